package ml

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"castellan/internal/arm"
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

// workspaceProps are a workspace's properties. A field that promises what this
// platform can't keep takes only the value that promises nothing.
type workspaceProps struct {
	FriendlyName        string `json:"friendlyName,omitempty"`
	Description         string `json:"description,omitempty"`
	StorageAccount      link   `json:"storageAccount"`
	KeyVault            link   `json:"keyVault"`
	ApplicationInsights link   `json:"applicationInsights"`
	ContainerRegistry   link   `json:"containerRegistry"`
	ImageBuildCompute   string `json:"imageBuildCompute,omitempty"`

	PrimaryUserAssignedIdentity link   `json:"primaryUserAssignedIdentity"`
	AllowRoleAssignmentOnRG     *flag  `json:"allowRoleAssignmentOnRG,omitempty"`
	SystemDatastoresAuthMode    string `json:"systemDatastoresAuthMode,omitempty" arm:"only=|accessKey|identity"`

	PublicNetworkAccess     string             `json:"publicNetworkAccess" arm:"only=Enabled"`
	AllowPublicBehindVnet   flag               `json:"allowPublicAccessWhenBehindVnet" arm:"only=false"`
	HBI                     flag               `json:"hbiWorkspace" arm:"only=false"`
	V1LegacyMode            flag               `json:"v1LegacyMode" arm:"only=false"`
	EnableDataIsolation     flag               `json:"enableDataIsolation" arm:"only=false"`
	ServiceSideEncryption   *flag              `json:"enableServiceSideCMKEncryption,omitempty" arm:"only=false"`
	SimplifiedCMK           *flag              `json:"enableSimplifiedCmk,omitempty" arm:"only=false"`
	BillOfMaterials         *flag              `json:"enableSoftwareBillOfMaterials,omitempty" arm:"only=false"`
	ProvisionNetworkNow     *flag              `json:"provisionNetworkNow,omitempty" arm:"only=false"`
	SoftDelete              *flag              `json:"softDeleteEnabled,omitempty" arm:"only=false"`
	RecoverSoftDeleted      *flag              `json:"allowRecoverSoftDeletedWorkspace,omitempty" arm:"only=false"`
	Encryption              *encryption        `json:"encryption,omitempty"`
	ManagedNetwork          *managedNetwork    `json:"managedNetwork,omitempty"`
	FeatureStore            *featureStore      `json:"featureStoreSettings,omitempty"`
	Serverless              *serverlessCompute `json:"serverlessComputeSettings,omitempty"`
	IPAllowlist             []string           `json:"ipAllowlist,omitempty" arm:"only=[]"`
	SharedPrivateLinks      []any              `json:"sharedPrivateLinkResources,omitempty" arm:"only=[]"`
	AssociatedWorkspaces    []any              `json:"associatedWorkspaces,omitempty" arm:"only=[]"`
	ExistingWorkspaces      []any              `json:"existingWorkspaces,omitempty" arm:"only=[]"`
	HubResourceID           string             `json:"hubResourceId,omitempty" arm:"only="`
	WorkspaceHubConfig      any                `json:"workspaceHubConfig,omitempty" arm:"only={}"`
	ServiceManagedResources any                `json:"serviceManagedResourcesSettings,omitempty" arm:"only={}"`
	NetworkACLs             any                `json:"networkAcls,omitempty" arm:"only={}"`
	State                   string             `json:"provisioningState,omitempty" arm:"readonly"`

	// What an answer shows, and a client that sends it back may.
	WorkspaceID  any `json:"workspaceId,omitempty" arm:"readonly"`
	Discovery    any `json:"discoveryUrl,omitempty" arm:"readonly"`
	Tracking     any `json:"mlFlowTrackingUri,omitempty" arm:"readonly"`
	Notebook     any `json:"notebookInfo,omitempty" arm:"readonly"`
	Endpoints    any `json:"privateEndpointConnections,omitempty" arm:"readonly"`
	Links        any `json:"privateLinkCount,omitempty" arm:"readonly"`
	ServiceGroup any `json:"serviceProvisionedResourceGroup,omitempty" arm:"readonly"`
	HNS          any `json:"storageHnsEnabled,omitempty" arm:"readonly"`
	TenantID     any `json:"tenantId,omitempty" arm:"readonly"`
	Created      any `json:"creationTime,omitempty" arm:"readonly"`
}

// encryption is with a customer's key in Azure; here the platform's root key
// encrypts everything, and another can't be named yet.
type encryption struct {
	Status   string         `json:"status" arm:"only=Disabled"`
	Identity any            `json:"identity,omitempty" arm:"only={}"`
	Key      *encryptionKey `json:"keyVaultProperties,omitempty"`
	CosmosDB string         `json:"cosmosDbArmId,omitempty" arm:"only="`
	Storage  string         `json:"storageAccountArmId,omitempty" arm:"only="`
	Search   string         `json:"searchAccountArmId,omitempty" arm:"only="`
	Cosmos2  string         `json:"cosmosDbResourceId,omitempty" arm:"only="`
	Storage2 string         `json:"storageAccountResourceId,omitempty" arm:"only="`
	Search2  string         `json:"searchAccountResourceId,omitempty" arm:"only="`
}

type encryptionKey struct {
	Vault  string `json:"keyVaultArmId,omitempty" arm:"only="`
	Key    string `json:"keyIdentifier,omitempty" arm:"only="`
	Client string `json:"identityClientId,omitempty" arm:"only="`
}

// managedNetwork is a promise about jobs' networks that takes a network to keep.
type managedNetwork struct {
	IsolationMode string `json:"isolationMode" arm:"only=Disabled"`
	OutboundRules any    `json:"outboundRules,omitempty" arm:"only={}"`
	FirewallSku   string `json:"firewallSku,omitempty" arm:"only=|Standard|Basic"`
	Kind          string `json:"managedNetworkKind,omitempty" arm:"only=|V1|V2"`
	Monitor       *flag  `json:"enableNetworkMonitor,omitempty" arm:"only=false"`
	Status        any    `json:"status,omitempty" arm:"readonly"`
	NetworkID     any    `json:"networkId,omitempty" arm:"readonly"`
	Changeable    any    `json:"changeableIsolationModes,omitempty" arm:"readonly"`
}

type featureStore struct {
	Runtime struct {
		Spark string `json:"sparkRuntimeVersion,omitempty" arm:"only="`
	} `json:"computeRuntime"`
	Offline string `json:"offlineStoreConnectionName,omitempty" arm:"only="`
	Online  string `json:"onlineStoreConnectionName,omitempty" arm:"only="`
}

type serverlessCompute struct {
	Subnet     string `json:"serverlessComputeCustomSubnet,omitempty" arm:"only="`
	NoPublicIP *flag  `json:"serverlessComputeNoPublicIP,omitempty" arm:"only=false"`
}

// workspaceInner is what no answer shows of a workspace.
type workspaceInner struct {
	ID   string `json:"id"`   // workspaceId
	Role string `json:"role"` // of its identity on the resource group
}

// The modes in which the workspace's own datastores are reached.
const (
	byKey      = "accessKey"
	byIdentity = "identity"
)

var workspaceName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_-]{2,32}$`)

func (s *Service) workspaceKind() *resource.Kind {
	return &resource.Kind{
		Type: workspaceType, Doc: "a machine learning workspace", Parent: resource.Group,
		Created: http.StatusAccepted, Updated: http.StatusOK,
		Props: func() any {
			return &workspaceProps{PublicNetworkAccess: "Enabled", SystemDatastoresAuthMode: byKey, State: "Creating"}
		},
		Identity: func(d *resource.Doc) string { return d.Name },
		Check:    checkWorkspace,
		Links:    workspaceLinks,
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

// checkWorkspace judges a workspace by itself, and gives one that names no
// identity its own.
func checkWorkspace(c resource.Change) error {
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
	if c.Old == nil {
		return nil
	}
	was, err := props[workspaceProps](c.Old)
	if err != nil {
		return err
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
	for _, l := range []struct {
		link
		field string
	}{{p.StorageAccount, "storageAccount"}, {p.KeyVault, "keyVault"}, {p.ContainerRegistry, "containerRegistry"}, {p.ApplicationInsights, "applicationInsights"}} {
		if l.IsZero() {
			continue
		}
		if _, err := l.there(tx, l.field); err != nil {
			return err
		}
	}
	if c.Old != nil {
		return nil
	}
	role := roleAIAdministrator
	if s.LegacyContributor {
		role = roleContributor
	}
	return setInner(c.Doc, workspaceInner{ID: newGUID(), Role: role})
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
	p["tenantId"] = s.Site.Tenant
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
	w.Doc, w.tenant = d, s.Site.Tenant
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

// newGUID is a random id in the form of RFC 9562, version 4.
func newGUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
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
	key, err := s.Accounts.Key(ctx, w.self(), w.StorageAccount.ID)
	if err != nil {
		return nil, fmt.Errorf("listing the storage account's key as the workspace: %w", err)
	}
	return string(key.Reveal()), nil
}

// Facts is what other services must know of a workspace.
type Facts struct {
	ID        arm.ID
	UID       string // its GUID (properties.workspaceId)
	Account   arm.ID // its storage account
	Container string // the container of the account that artifacts lie in
	Identity  string // object id of the workspace's identity
}

// Facts are those of the workspace id; ok is false if there is none. They need
// no grant, for they open nothing.
func (s *Service) Facts(tx *store.Tx, id arm.ID) (f Facts, ok bool, err error) {
	d, err := resource.Load(tx, id)
	if err != nil || d == nil || !strings.EqualFold(d.Type, workspaceType) {
		return Facts{}, false, err
	}
	w, err := s.readWorkspace(d)
	return Facts{ID: d.ID, UID: w.workspaceInner.ID, Account: w.StorageAccount.ID, Container: artifactContainer, Identity: w.principal()}, err == nil, err
}
