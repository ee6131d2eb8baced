// Package monitor tells the activity log, sends logs where diagnostic settings say, and keeps the records of monitoring resources that clients make beside a workspace.
//
// Of those nothing is collected yet: a component has no connection string and no
// instrumentation key, so that no client takes it for one that does.
package monitor

import (
	"castellan/internal/arm"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// Workspace is the properties of a Log Analytics workspace
// (Microsoft.OperationalInsights/workspaces, API version 2020-08-01).
type Workspace struct {
	State           string         `json:"provisioningState" arm:"readonly"`
	ApplicationType string         `json:"Application_Type,omitempty"` // no workspace's, but azure-ai-ml sends it
	Retention       int            `json:"retentionInDays,omitempty"`
	SKU             map[string]any `json:"sku,omitempty"`
	Ingestion       string         `json:"publicNetworkAccessForIngestion,omitempty" arm:"since=2020-03-01-preview"`
	Query           string         `json:"publicNetworkAccessForQuery,omitempty" arm:"since=2020-03-01-preview"`
	Features        map[string]any `json:"features,omitempty"`
	CustomerID      string         `json:"customerId,omitempty" arm:"readonly"`
}

// Component is the properties of an Application Insights component
// (Microsoft.Insights/components, API version 2020-02-02-preview).
type Component struct {
	State           string `json:"provisioningState" arm:"readonly"`
	ApplicationType string `json:"Application_Type,omitempty"`
	Flow            string `json:"Flow_Type,omitempty"`
	Source          string `json:"Request_Source,omitempty"`
	Workspace       arm.ID `json:"WorkspaceResourceId,omitzero" arm:"since=2020-02-02"`
	Retention       int    `json:"RetentionInDays,omitempty"`
	Ingestion       string `json:"publicNetworkAccessForIngestion,omitempty" arm:"since=2018-05-01-preview"`
	Query           string `json:"publicNetworkAccessForQuery,omitempty" arm:"since=2018-05-01-preview"`
	LocalAuth       *bool  `json:"DisableLocalAuth,omitempty" arm:"since=2020-02-02"`
}

// Kinds are the kinds of resources of this package.
func Kinds() []*resource.Kind {
	return []*resource.Kind{
		{
			Type: "Microsoft.OperationalInsights/workspaces", Etag: true, Doc: "a Log Analytics workspace", Parent: resource.Group,
			Props: func() any { return &Workspace{State: "Succeeded"} }, Moved: moved,
		},
		{
			Type: "Microsoft.Insights/components", Etag: true, Doc: "an Application Insights component", Parent: resource.Group, Created: 200,
			Props: func() any { return &Component{State: "Succeeded"} }, Moved: moved,
		},
	}
}

// moved has nothing to do: these resources are records alone.
func moved(*store.Tx, arm.ID, *resource.Doc) error { return nil }
