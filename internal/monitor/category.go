package monitor

import (
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/audit"
)

// source is a kind of resources whose events diagnostic settings send elsewhere.
type source struct {
	categories []string // those of which there are events here, by Azure's names
	audit      []string // those of the category group audit; the group allLogs has all
	single     bool     // it has no groups
	// of is the categories that an entry about the resource, or about what lies in
	// it, is of.
	of func(e *audit.Entry) []string
}

// sources are by resource type, in lower case.
var sources = map[string]source{
	"microsoft.resources/subscriptions": {
		categories: []string{"Administrative", "Policy"}, of: ofSubscription,
	},
	"microsoft.keyvault/vaults": {
		categories: []string{"AuditEvent"}, audit: []string{"AuditEvent"}, of: ofVault,
	},
	"microsoft.storage/storageaccounts/blobservices": {
		categories: []string{"StorageRead", "StorageWrite", "StorageDelete"}, audit: []string{"StorageRead", "StorageWrite", "StorageDelete"}, of: ofBlobs,
	},
	"microsoft.machinelearningservices/workspaces": {
		categories: []string{"AmlComputeClusterEvent", "AmlComputeJobEvent", "RunEvent", "RunReadEvent", "ModelsChangeEvent", "ModelsReadEvent",
			"EnvironmentChangeEvent", "EnvironmentReadEvent", "DataStoreChangeEvent", "DataStoreReadEvent", "DataSetChangeEvent", "DataSetReadEvent"},
		audit: []string{"AmlComputeClusterEvent", "AmlComputeJobEvent", "RunEvent", "ModelsChangeEvent", "EnvironmentChangeEvent", "DataStoreChangeEvent", "DataSetChangeEvent"},
		of:    ofWorkspace,
	},
}

// sourceOf is the source of a resource; ok is false for those that have none.
func sourceOf(id arm.ID) (source, bool) {
	s, ok := sources[strings.ToLower(id.Type())]
	return s, ok && (!isBlobService(id) || strings.EqualFold(id.Name(), "default"))
}

// isBlobService reports whether id is the blob service of an account, which is
// there whenever the account is.
func isBlobService(id arm.ID) bool {
	return strings.EqualFold(id.Type(), "Microsoft.Storage/storageAccounts/blobServices")
}

// group are the categories of a category group.
func (s source) group(name string) ([]string, bool) {
	switch {
	case s.single:
	case strings.EqualFold(name, "allLogs"):
		return s.categories, true
	case strings.EqualFold(name, "audit") && s.audit != nil:
		return s.audit, true
	}
	return nil, false
}

func (s source) groups() []string {
	if s.single {
		return nil
	}
	if s.audit == nil {
		return []string{"allLogs"}
	}
	return []string{"allLogs", "audit"}
}

// category is a category's name as Azure spells it, "" for none of the source's.
func (s source) category(name string) string {
	i := slices.IndexFunc(s.categories, func(c string) bool { return strings.EqualFold(c, name) })
	if i < 0 {
		return ""
	}
	return s.categories[i]
}

// disallowed is the outcome of what a policy denies.
const disallowed = "RequestDisallowedByPolicy"

func ofSubscription(e *audit.Entry) []string {
	if _, ok := e.Change(); !ok {
		return nil
	}
	if e.Outcome == disallowed {
		return []string{"Administrative", "Policy"}
	}
	return []string{"Administrative"}
}

func ofVault(e *audit.Entry) []string {
	if below(e, "Microsoft.KeyVault/vaults/") == "" {
		return nil
	}
	return []string{"AuditEvent"}
}

// ofBlobs has what was done by the storage protocol, or by the platform for
// somebody; changes by Resource Manager are in the activity log.
func ofBlobs(e *audit.Entry) []string {
	action := below(e, "Microsoft.Storage/storageAccounts/blobServices/")
	switch {
	case action == "" || e.Plane == "arm":
		return nil
	case reads(action):
		return []string{"StorageRead"}
	case strings.HasSuffix(action, "/delete"):
		return []string{"StorageDelete"}
	}
	return []string{"StorageWrite"}
}

// ofWorkspace goes by what of the workspace the action is about.
func ofWorkspace(e *audit.Entry) []string {
	action := below(e, "Microsoft.MachineLearningServices/workspaces/")
	about, _, _ := strings.Cut(action, "/")
	change, read := "", ""
	switch about {
	case "computes":
		change = "AmlComputeClusterEvent"
	case "jobs":
		change = "AmlComputeJobEvent"
	case "experiments", "metrics", "metadata":
		change, read = "RunEvent", "RunReadEvent"
	case "models":
		change, read = "ModelsChangeEvent", "ModelsReadEvent"
	case "environments":
		change, read = "EnvironmentChangeEvent", "EnvironmentReadEvent"
	case "datastores":
		change, read = "DataStoreChangeEvent", "DataStoreReadEvent"
	case "data":
		change, read = "DataSetChangeEvent", "DataSetReadEvent"
	}
	if reads(action) {
		change = read
	}
	if change == "" {
		return nil
	}
	return []string{change}
}

// below is the rest of the entry's action behind a prefix, in lower case.
func below(e *audit.Entry, prefix string) string {
	rest, ok := strings.CutPrefix(strings.ToLower(e.Action), strings.ToLower(prefix))
	if !ok {
		return ""
	}
	return rest
}

func reads(action string) bool {
	for _, end := range []string{"/read", "/getacl/action", "/listsecrets/action"} {
		if strings.HasSuffix("/"+action, end) {
			return true
		}
	}
	return false
}
