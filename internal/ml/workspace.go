package ml

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/cmk"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

const (
	workspaceType = namespace + "/workspaces"
	storageType   = "Microsoft.Storage/storageAccounts"
	vaultType     = "Microsoft.KeyVault/vaults"
	registryType  = "Microsoft.ContainerRegistry/registries"
	insightsType  = "Microsoft.Insights/components"
	userIDType    = "Microsoft.ManagedIdentity/userAssignedIdentities"
)

// workspaceInner is what no answer shows of a workspace.
type workspaceInner struct {
	ID   string `json:"id"`   // workspaceId
	Role string `json:"role"` // of its identity on the resource group
	// Storage, Vault and Registry are which resources its links meant when they
	// were made: what was made anew under their ids since is somebody else's.
	Storage  string `json:"storage"`
	Vault    string `json:"vault"`
	Registry string `json:"registry,omitempty"`
}

// The modes in which the workspace's own datastores are reached.
const (
	byKey      = "accessKey"
	byIdentity = "identity"
)

var workspaceName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_-]{2,32}$`)

func (s *Service) workspaceKind() *resource.Kind {
	return &resource.Kind{
		Type: workspaceType, SystemData: "2021-03-01-preview", Doc: "a machine learning workspace", Parent: resource.Group,
		Created: http.StatusAccepted, Updated: http.StatusOK,
		Props: func() any {
			return &workspaceProps{PublicNetworkAccess: "Enabled", SystemDatastoresAuthMode: byKey, State: "Creating"}
		},
		Identity: func(d *resource.Doc) string { return d.Name },
		Check:    s.checkWorkspace,
		Needs:    s.needsKey,
		Remove:   s.removeWorkspace,
		Links:    workspaceLinks,
		Holds:    true,
		Save:     s.saveWorkspace,
		Apply:    s.applyWorkspace,
		Show:     s.showWorkspace,
		Posts: []resource.Post{
			{Name: "listKeys", Action: listKeys, Do: s.listKeys},
			{Name: "resyncKeys", Action: resyncKeys, Do: s.resyncKeys},
			{Name: "listStorageAccountKeys", Action: listStorageKeys, Do: s.listStorageKeys},
			{Name: "diagnose", Action: diagnose, Do: s.diagnose},
		},
	}
}

var (
	listKeys        = arm.NewAction(workspaceType+"/listKeys/action", "list the keys that a workspace uses")
	resyncKeys      = arm.NewAction(workspaceType+"/resynckeys/action", "make a workspace's keys and its identity's roles right again")
	listStorageKeys = arm.NewAction(workspaceType+"/listStorageAccountKeys/action", "list the keys of a workspace's storage account")
	diagnose        = arm.NewAction(workspaceType+"/diagnose/read", "see what is wrong with a workspace")

	readStorage   = arm.NewAction(storageType+"/read", "see a storage account")
	writeStorage  = arm.NewAction(storageType+"/write", "make or change a storage account")
	readVault     = arm.NewAction(vaultType+"/read", "see a key vault")
	writeVault    = arm.NewAction(vaultType+"/write", "make or change a key vault")
	readRegistry  = arm.NewAction(registryType+"/read", "see a container registry")
	writeRegistry = arm.NewAction(registryType+"/write", "make or change a container registry")
	readInsights  = arm.NewAction(insightsType+"/read", "see an application insights component")
)

// workspaceLinks is what the workspace will use in its maker's stead: who makes
// it must have the right to change each, for its identity gets roles there.
func workspaceLinks(d *resource.Doc) ([]resource.Linked, error) {
	p, err := props[workspaceProps](d)
	if err != nil {
		return nil, err
	}
	out := []resource.Linked{
		{Action: readStorage, ID: p.StorageAccount.ID, Field: "storageAccount"}, {Action: writeStorage, ID: p.StorageAccount.ID, Field: "storageAccount"},
		{Action: readVault, ID: p.KeyVault.ID, Field: "keyVault"}, {Action: writeVault, ID: p.KeyVault.ID, Field: "keyVault"},
	}
	if p.V1LegacyMode {
		// Readers may then see what opens datastores: only who may do so may allow it.
		out = append(out, resource.Linked{Action: listSecrets, ID: d.ID, Field: "v1LegacyMode"})
	}
	if p.customer() && p.Encryption.Key != nil && p.Encryption.Key.Client == "" { // elsewhere the application's right to the key is what counts
		out = append(out, resource.Linked{Action: readVault, ID: p.Encryption.Key.Vault.ID, Field: "encryption.keyVaultProperties.keyVaultArmId"})
	}
	if !p.ContainerRegistry.IsZero() {
		out = append(out, resource.Linked{Action: readRegistry, ID: p.ContainerRegistry.ID, Field: "containerRegistry"}, resource.Linked{Action: writeRegistry, ID: p.ContainerRegistry.ID, Field: "containerRegistry"})
	}
	if !p.ApplicationInsights.IsZero() {
		out = append(out, resource.Linked{Action: readInsights, ID: p.ApplicationInsights.ID, Field: "applicationInsights"})
	}
	return out, nil
}

// saveWorkspace wants what the workspace uses to be there, and gives a new one its id.
func (s *Service) saveWorkspace(tx *store.Tx, c resource.Change) error {
	p, err := props[workspaceProps](c.Doc)
	if err != nil {
		return err
	}
	instances := map[string]string{}
	for _, l := range []struct {
		link
		field string
	}{{p.StorageAccount, "storageAccount"}, {p.KeyVault, "keyVault"}, {p.ContainerRegistry, "containerRegistry"}, {p.ApplicationInsights, "applicationInsights"}} {
		if l.IsZero() {
			continue
		}
		d, err := l.there(tx, l.field)
		if err != nil {
			return err
		}
		instances[l.field] = d.Instance
	}
	fresh, _ := c.Seen.(*cmk.Fresh)
	if c.Old != nil {
		if fresh != nil {
			if err := s.Keys.Rewrap(tx, fresh); err != nil {
				return err
			}
		}
		return relink(c, p, instances["containerRegistry"])
	}
	role := roleAIAdministrator
	if s.LegacyContributor {
		role = roleContributor
	}
	uid := arm.NewUUID()
	if fresh != nil {
		uid = fresh.UID
	}
	if err := s.Keys.Add(tx, c.Doc.ID, uid, fresh); err != nil {
		return err
	}
	return setInner(c.Doc, workspaceInner{ID: uid, Role: role, Storage: instances["storageAccount"], Vault: instances["keyVault"], Registry: instances["containerRegistry"]})
}

// relink notes which registry is meant by a link that changed; the others can't.
// One that stays means what it meant.
func relink(c resource.Change, p workspaceProps, registry string) error {
	was, err := props[workspaceProps](c.Old)
	if err != nil || was.ContainerRegistry.Key() == p.ContainerRegistry.Key() {
		return err
	}
	in, err := inner[workspaceInner](c.Doc)
	if err != nil {
		return err
	}
	in.Registry = registry
	return setInner(c.Doc, in)
}

// showWorkspace adds what follows from a workspace's id and place.
func (s *Service) showWorkspace(d *resource.Doc, p map[string]any) {
	in, err := inner[workspaceInner](d)
	if err != nil {
		return
	}
	p["workspaceId"] = in.ID
	p["discoveryUrl"] = s.Site.Base() + "/discovery"
	p["mlFlowTrackingUri"] = "azureml://" + s.Site.Host() + "/mlflow/v1.0" + d.ID.String()
	p["tenantId"] = s.Site.TenantOf(d.ID)
	p["privateEndpointConnections"] = []any{}
	p["privateLinkCount"] = 0
	p["storageHnsEnabled"] = false
	p["notebookInfo"] = nil
}

// workspace is a workspace, read for work.
type workspace struct {
	*resource.Doc
	workspaceProps
	workspaceInner
	tenant string
}

func (s *Service) readWorkspace(d *resource.Doc) (w workspace, err error) {
	w.Doc, w.tenant = d, s.Site.TenantOf(d.ID)
	if w.workspaceProps, err = props[workspaceProps](d); err != nil {
		return w, err
	}
	w.workspaceInner, err = inner[workspaceInner](d)
	return w, err
}

// workspaceIn loads a workspace in tx.
func (s *Service) workspaceIn(tx *store.Tx, id arm.ID) (workspace, error) {
	d, err := resource.Load(tx, id)
	if err != nil {
		return workspace{}, err
	}
	if d == nil {
		return workspace{}, arm.Errorf(arm.NotFound, "the workspace %s does not exist", id)
	}
	return s.readWorkspace(d)
}

// load loads a workspace.
func (s *Service) load(ctx context.Context, id arm.ID) (w workspace, err error) {
	err = s.DB.View(ctx, func(tx *store.Tx) (err error) {
		w, err = s.workspaceIn(tx, id)
		return err
	})
	return w, err
}

// self is the workspace's own identity: what reaches storage, vault and
// registry. It never leaves this process.
func (w workspace) self() arm.Caller {
	return arm.Caller{Tenant: w.tenant, Object: w.principal(), Kind: arm.ServicePrincipal, Name: w.Name, Token: "managed"}
}

func (w workspace) principal() string {
	if !w.PrimaryUserAssignedIdentity.IsZero() || !w.Identity.Has() {
		for text, u := range w.Identity.Users {
			if w.PrimaryUserAssignedIdentity.IsZero() || strings.EqualFold(text, w.PrimaryUserAssignedIdentity.String()) {
				return u.Principal
			}
		}
	}
	return w.Identity.Principal
}

// bringsOwn reports whether the workspace acts as an identity that its owner
// made and gave roles to.
func (w workspace) bringsOwn() bool {
	return !w.Identity.Has() || !w.PrimaryUserAssignedIdentity.IsZero()
}

// byIdentity reports whether the workspace's own datastores open to identities
// alone, not to keys and signatures.
func (w workspace) byIdentity() bool {
	return strings.EqualFold(w.SystemDatastoresAuthMode, byIdentity)
}

// blobContainer is where the workspace's data lies by default.
func (w workspace) blobContainer() string { return "azureml-blobstore-" + w.workspaceInner.ID }

// artifactContainer is where run artifacts lie.
const artifactContainer = "azureml"

// containers are those that the workspace can't do without.
func (w workspace) containers() []string { return []string{w.blobContainer(), artifactContainer} }

// share is the file share that the workspace has, "" if it goes by identities: a
// share is opened by the account's key.
func (w workspace) share() string {
	if w.byIdentity() {
		return ""
	}
	return "azureml-filestore-" + w.workspaceInner.ID
}

// listKeys shows the keys a workspace uses. There is no notebook service and no
// Application Insights here, so those are null, as Azure has them then.
func (s *Service) listKeys(ctx context.Context, g gate.Grant, d *resource.Doc, _ []byte) (int, any, error) {
	if _, err := g.On(listKeys); err != nil {
		return 0, nil, err
	}
	w, err := s.readWorkspace(d)
	if err != nil {
		return 0, nil, err
	}
	key, err := s.storageKey(ctx, w)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, map[string]any{
		"userStorageKey": key, "userStorageResourceId": w.StorageAccount.String(),
		"appInsightsInstrumentationKey": nil, "containerRegistryCredentials": nil,
		"notebookAccessKeys": map[string]any{"primaryAccessKey": nil, "secondaryAccessKey": nil},
	}, nil
}

func (s *Service) listStorageKeys(ctx context.Context, g gate.Grant, d *resource.Doc, _ []byte) (int, any, error) {
	if _, err := g.On(listStorageKeys); err != nil {
		return 0, nil, err
	}
	w, err := s.readWorkspace(d)
	if err != nil {
		return 0, nil, err
	}
	key, err := s.storageKey(ctx, w)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, map[string]any{"userStorageKey": key}, nil
}

// storageKey is the account's key as the workspace's identity may list it, or
// nil in a workspace that goes by identities.
func (s *Service) storageKey(ctx context.Context, w workspace) (any, error) {
	if w.byIdentity() {
		return nil, nil
	}
	if err := s.asMade(ctx, w.StorageAccount, "storageAccount", w.workspaceInner.Storage); err != nil {
		return nil, err
	}
	key, err := s.Accounts.Key(ctx, w.self(), w.StorageAccount.ID)
	if err != nil {
		return nil, fmt.Errorf("listing the storage account's key as the workspace: %w", err)
	}
	s.hideFrom(ctx, string(key.Reveal()))
	return string(key.Reveal()), nil
}
