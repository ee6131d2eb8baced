package ml

import (
	"encoding/json"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/resource"
)

// workspaceProps are a workspace's properties. A field that promises what this
// platform can't keep takes only the value that promises nothing.
type workspaceProps struct {
	FriendlyName        string `json:"friendlyName,omitempty"`
	Description         string `json:"description,omitempty"`
	StorageAccount      link   `json:"storageAccount"`
	KeyVault            link   `json:"keyVault"`
	ApplicationInsights link   `json:"applicationInsights"`
	ContainerRegistry   link   `json:"containerRegistry"`
	ImageBuildCompute   string `json:"imageBuildCompute,omitempty" arm:"since=2019-11-01"`

	PrimaryUserAssignedIdentity link   `json:"primaryUserAssignedIdentity" arm:"since=2021-03-01-preview"`
	AllowRoleAssignmentOnRG     *flag  `json:"allowRoleAssignmentOnRG,omitempty" arm:"since=2022-12-01-preview previews"`
	SystemDatastoresAuthMode    string `json:"systemDatastoresAuthMode,omitempty" arm:"only=|accessKey|identity,since=2022-12-01-preview 2024-10-01"`

	PublicNetworkAccess     string             `json:"publicNetworkAccess" arm:"only=Enabled,since=2022-01-01-preview"`
	AllowPublicBehindVnet   flag               `json:"allowPublicAccessWhenBehindVnet" arm:"only=false,since=2019-11-01"`
	HBI                     flag               `json:"hbiWorkspace" arm:"since=2019-11-01"` // jobs leave nothing that can be read
	V1LegacyMode            flag               `json:"v1LegacyMode" arm:"since=2022-10-01"` // v1.go
	EnableDataIsolation     flag               `json:"enableDataIsolation" arm:"only=false,since=2022-12-01-preview 2024-04-01"`
	ServiceSideEncryption   *flag              `json:"enableServiceSideCMKEncryption,omitempty" arm:"only=false,since=2024-04-01-preview"`
	SimplifiedCMK           *flag              `json:"enableSimplifiedCmk,omitempty" arm:"only=false,since=2024-07-01-preview previews"`
	BillOfMaterials         *flag              `json:"enableSoftwareBillOfMaterials,omitempty" arm:"only=false,since=2024-01-01-preview previews"`
	ProvisionNetworkNow     *flag              `json:"provisionNetworkNow,omitempty" arm:"only=false,since=2022-12-01-preview 2024-10-01"`
	SoftDelete              *flag              `json:"softDeleteEnabled,omitempty" arm:"only=false,since=2022-01-01-preview previews"`
	RecoverSoftDeleted      *flag              `json:"allowRecoverSoftDeletedWorkspace,omitempty" arm:"only=false,since=2022-01-01-preview previews"`
	Encryption              *encryption        `json:"encryption,omitempty" arm:"since=2019-11-01"`
	ManagedNetwork          *managedNetwork    `json:"managedNetwork,omitempty" arm:"since=2022-12-01-preview 2023-10-01"`
	FeatureStore            *featureStore      `json:"featureStoreSettings,omitempty" arm:"since=2022-12-01-preview 2023-10-01"`
	Serverless              *serverlessCompute `json:"serverlessComputeSettings,omitempty" arm:"since=2023-08-01-preview"`
	IPAllowlist             []string           `json:"ipAllowlist,omitempty" arm:"only=[],since=2024-01-01-preview previews"`
	SharedPrivateLinks      []any              `json:"sharedPrivateLinkResources,omitempty" arm:"only=[],since=2019-11-01"`
	AssociatedWorkspaces    []any              `json:"associatedWorkspaces,omitempty" arm:"only=[],since=2023-04-01-preview 2024-04-01"`
	ExistingWorkspaces      []any              `json:"existingWorkspaces,omitempty" arm:"only=[],since=2023-04-01-preview previews"`
	HubResourceID           string             `json:"hubResourceId,omitempty" arm:"only=,since=2023-04-01-preview 2024-04-01"`
	WorkspaceHubConfig      any                `json:"workspaceHubConfig,omitempty" arm:"only={},since=2023-06-01-preview 2024-04-01"`
	ServiceManagedResources any                `json:"serviceManagedResourcesSettings,omitempty" arm:"only={},since=2021-03-01-preview"`
	NetworkACLs             any                `json:"networkAcls,omitempty" arm:"only={},since=2024-10-01-preview previews"`
	State                   string             `json:"provisioningState,omitempty" arm:"readonly"`

	// What an answer shows, and a client that sends it back may.
	WorkspaceID  any `json:"workspaceId,omitempty" arm:"readonly"`
	Discovery    any `json:"discoveryUrl,omitempty" arm:"readonly"`
	Tracking     any `json:"mlFlowTrackingUri,omitempty" arm:"readonly,since=2021-07-01"`
	Notebook     any `json:"notebookInfo,omitempty" arm:"readonly,since=2021-03-01-preview"`
	Endpoints    any `json:"privateEndpointConnections,omitempty" arm:"readonly,since=2019-11-01"`
	Links        any `json:"privateLinkCount,omitempty" arm:"readonly,since=2019-11-01"`
	ServiceGroup any `json:"serviceProvisionedResourceGroup,omitempty" arm:"readonly,since=2019-11-01"`
	HNS          any `json:"storageHnsEnabled,omitempty" arm:"readonly,since=2021-07-01"`
	TenantID     any `json:"tenantId,omitempty" arm:"readonly,since=2021-03-01-preview"`
}

// managedNetwork is a promise about jobs' networks that takes a network to keep.
type managedNetwork struct {
	IsolationMode string `json:"isolationMode" arm:"only=Disabled"`
	OutboundRules any    `json:"outboundRules,omitempty" arm:"only={}"`
	FirewallSku   string `json:"firewallSku,omitempty" arm:"only=|Standard|Basic,since=2024-04-01-preview"`
	Kind          string `json:"managedNetworkKind,omitempty" arm:"only=|V1|V2,since=2025-01-01-preview"`
	Monitor       *flag  `json:"enableNetworkMonitor,omitempty" arm:"only=false,since=2024-10-01-preview"`
	Status        any    `json:"status,omitempty" arm:"readonly"`
	NetworkID     any    `json:"networkId,omitempty" arm:"readonly"`
	Changeable    any    `json:"changeableIsolationModes,omitempty" arm:"readonly,since=2023-08-01-preview previews"`
}

type featureStore struct {
	Runtime struct {
		Spark string `json:"sparkRuntimeVersion,omitempty"` // a wish of feature stores, which clients send for every workspace
	} `json:"computeRuntime"`
	Offline string `json:"offlineStoreConnectionName,omitempty" arm:"only="`
	Online  string `json:"onlineStoreConnectionName,omitempty" arm:"only="`
}

type serverlessCompute struct {
	Subnet     string `json:"serverlessComputeCustomSubnet,omitempty" arm:"only="`
	NoPublicIP *flag  `json:"serverlessComputeNoPublicIP,omitempty" arm:"only=false"`
}

// checkWorkspace judges a workspace by itself, and gives one that names no
// identity its own.
func (s *Service) checkWorkspace(c resource.Change) error {
	d := c.Doc
	if !workspaceName.MatchString(d.Name) {
		return arm.Errorf(arm.InvalidResourceName, "the workspace name %q must be 3 to 33 letters, digits, hyphens and underscores and begin with a letter or digit", d.Name)
	}
	if d.Identity == nil {
		d.Identity = &resource.Identity{Type: "SystemAssigned"}
	}
	if d.Kind != "" && !strings.EqualFold(d.Kind, "Default") {
		return arm.Errorf(arm.Unsupported, "kind is %q; supported: Default", d.Kind)
	}
	if n, _ := d.SKU["name"].(string); d.SKU != nil && !strings.EqualFold(n, "Basic") {
		return arm.Errorf(arm.Unsupported, "sku.name is %q; supported: Basic", n)
	}
	p, err := props[workspaceProps](d)
	if err != nil {
		return err
	}
	if err := p.checkLinks(); err != nil {
		return err
	}
	if err := p.checkPrimary(d.Identity); err != nil {
		return err
	}
	var was *workspaceProps
	if c.Old != nil {
		old, err := props[workspaceProps](c.Old)
		if err != nil {
			return err
		}
		was = &old
	}
	if err := s.checkEncryption(d, &p, was); err != nil {
		return err
	}
	if d.Properties, err = json.Marshal(p); err != nil {
		return err
	}
	if was == nil {
		if bool(p.HBI) && !s.Sandboxes.Sealed() {
			return arm.Errorf(arm.Unsupported, "hbiWorkspace is true, which wants jobs' scratch folders under keys of their own; this server's lie on a disk in the clear. Give it a scratch folder that is encrypted (castellan up --scratch)")
		}
		return nil
	}
	if was.HBI != p.HBI {
		return arm.Errorf(arm.BadRequest, "hbiWorkspace can't be changed after the workspace was made; it is %t", was.HBI)
	}
	if was.StorageAccount.Key() != p.StorageAccount.Key() || was.KeyVault.Key() != p.KeyVault.Key() {
		return arm.Errorf(arm.BadRequest, "storageAccount and keyVault can't be changed; they are '%s' and '%s'", was.StorageAccount, was.KeyVault)
	}
	return nil
}

func (p workspaceProps) checkLinks() error {
	for _, l := range []struct {
		link
		field, typ string
		must       bool
	}{
		{p.StorageAccount, "storageAccount", storageType, true},
		{p.KeyVault, "keyVault", vaultType, true},
		{p.ContainerRegistry, "containerRegistry", registryType, false},
		{p.ApplicationInsights, "applicationInsights", insightsType, false},
		{p.PrimaryUserAssignedIdentity, "primaryUserAssignedIdentity", userIDType, false},
	} {
		if l.must && l.IsZero() {
			return arm.Errorf(arm.BadRequest, "%s is missing; a workspace needs the id of a %s", l.field, l.typ)
		}
		if err := l.is(l.typ, l.field); err != nil {
			return err
		}
	}
	return nil
}

// checkPrimary wants it to be clear which identity the workspace acts as.
func (p workspaceProps) checkPrimary(i *resource.Identity) error {
	if p.PrimaryUserAssignedIdentity.IsZero() {
		if !i.Has() && len(i.Users) != 1 {
			return arm.Errorf(arm.BadRequest, "primaryUserAssignedIdentity must name one of the %d user-assigned identities, as the workspace has no system-assigned one", len(i.Users))
		}
		return nil
	}
	for text := range i.Users {
		if strings.EqualFold(text, p.PrimaryUserAssignedIdentity.String()) {
			return nil
		}
	}
	return arm.Errorf(arm.BadRequest, "primaryUserAssignedIdentity is '%s', which is not among identity.userAssignedIdentities", p.PrimaryUserAssignedIdentity)
}
