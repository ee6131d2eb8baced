package ml

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// The built-in roles that a workspace's identity gets, by their GUIDs.
const (
	roleContributor     = "b24988ac-6180-42a0-ab88-20f7382dd24c"
	roleAIAdministrator = "b78c5d69-af96-48a3-bf8d-a8b4d589de94"
	roleBlobContributor = "ba92f5b4-2d11-453d-a403-e96b0029c9fe"
	roleVaultAdmin      = "00482a5a-887f-4fb3-b363-3b7fe8e74483"
	roleAcrPull         = "7f951dda-4ed3-4680-a7ca-43fe172d538d"
)

var (
	assignRole    = arm.NewAction("Microsoft.Authorization/roleAssignments/write", "give somebody a role")
	unassignRole  = arm.NewAction("Microsoft.Authorization/roleAssignments/delete", "take a role from somebody")
	writePolicies = arm.NewAction(vaultType+"/accessPolicies/write", "change a vault's access policies")
)

// need is one role that an identity must have.
type need struct {
	role, name string
	scope      arm.ID
}

// needs is the table of what a workspace's identity may do, and where.
func (w workspace) needs(vaultByRoles bool) []need {
	out := []need{
		{roleContributor, "Contributor", w.Doc.ID},
		{roleBlobContributor, "Storage Blob Data Contributor", w.StorageAccount.ID},
		{roleContributor, "Contributor", w.KeyVault.ID},
	}
	if vaultByRoles {
		out = append(out, need{roleVaultAdmin, "Key Vault Administrator", w.KeyVault.ID})
	}
	if !w.ContainerRegistry.IsZero() {
		out = append(out, need{roleContributor, "Contributor", w.ContainerRegistry.ID})
	}
	if w.groupRole() == roleContributor {
		return append(out, need{roleContributor, "Contributor", w.Doc.ID.Group()})
	}
	return append(out, need{roleAIAdministrator, "Azure AI Administrator", w.Doc.ID.Group()})
}

// groupRole is the role on the resource group: the one that the workspace was
// made with, until its owner asks for the narrower one.
func (w workspace) groupRole() string {
	if w.AllowRoleAssignmentOnRG != nil && bool(*w.AllowRoleAssignmentOnRG) {
		return roleAIAdministrator
	}
	return w.Role
}

// applyWorkspace gives the workspace's identity its roles, and makes its
// containers, datastores and first environment. All of it is safe to repeat.
func (s *Service) applyWorkspace(ctx context.Context, d *resource.Doc) error {
	w, err := s.readWorkspace(d)
	if err != nil {
		return err
	}
	if _, err := s.give(ctx, w, "setting up the workspace "+w.Name); err != nil {
		return err
	}
	return s.equip(ctx, w)
}

// equip makes the workspace's containers, datastores and first environment.
func (s *Service) equip(ctx context.Context, w workspace) error {
	for _, c := range w.containers() {
		err := s.Blobs.Ensure(ctx, Access{As: w.self()}, w.StorageAccount.ID, c)
		if arm.CodeOf(err) == arm.Forbidden && w.bringsOwn() {
			return arm.Errorf("MissingRole", "the workspace's user-assigned identity (%s) can't make the container %s in %s; give it Storage Blob Data Contributor there", w.principal(), c, w.StorageAccount)
		}
		if err != nil {
			return err
		}
	}
	shared := w.share() != ""
	if shared {
		err := s.Blobs.Ensure(ctx, Access{As: w.self(), Files: true}, w.StorageAccount.ID, w.share())
		if shared = err == nil; err != nil && arm.CodeOf(err) != arm.Forbidden {
			return err
		}
	}
	return s.furnish(ctx, w, shared)
}

// give makes sure of every role that the workspace's identity needs, and lists
// what it had to give; nothing else stands in the log. An identity that its
// owner brings gets nothing: its owner gives it roles.
func (s *Service) give(ctx context.Context, w workspace, why string) (given []string, err error) {
	if w.bringsOwn() {
		return nil, nil
	}
	if err := s.linksAsMade(ctx, w); err != nil {
		return nil, err
	}
	byRoles, err := s.vaultByRoles(ctx, w)
	if err != nil {
		return nil, err
	}
	for _, n := range w.needs(byRoles) {
		if s.Roles.Has(w.principal(), n.role, n.scope) {
			continue
		}
		if err := s.Roles.Assign(ctx, s.system(why, n.scope, assignRole), w.principal(), n.role, n.scope); err != nil {
			return given, err
		}
		given = append(given, n.name+" on "+n.scope.String())
	}
	if !byRoles && !s.Vaults.Allows(w.KeyVault.ID, w.principal()) {
		if err := s.Vaults.Allow(ctx, s.system(why, w.KeyVault.ID, writePolicies), w.KeyVault.ID, w.principal()); err != nil {
			return given, err
		}
		given = append(given, "an access policy on "+w.KeyVault.String())
	}
	if w.Role == roleContributor && w.groupRole() != roleContributor {
		group := w.Doc.ID.Group()
		err = s.Roles.Unassign(ctx, s.system("narrowing the role of workspace "+w.Name, group, unassignRole), w.principal(), roleContributor, group)
	}
	return given, err
}

// linksAsMade refuses to let the workspace's identity at a storage account, a
// vault or a registry that was deleted and made anew: who links them must have
// the right to change them, and nobody was asked for the new ones.
func (s *Service) linksAsMade(ctx context.Context, w workspace) error {
	if err := s.asMade(ctx, w.KeyVault, "keyVault", w.workspaceInner.Vault); err != nil {
		return err
	}
	if !w.ContainerRegistry.IsZero() {
		if err := s.asMade(ctx, w.ContainerRegistry, "containerRegistry", w.workspaceInner.Registry); err != nil {
			return err
		}
	}
	return s.asMade(ctx, w.StorageAccount, "storageAccount", w.workspaceInner.Storage)
}

func (s *Service) asMade(ctx context.Context, l link, field, instance string) error {
	return s.DB.View(ctx, func(tx *store.Tx) error {
		d, err := l.there(tx, field)
		if err == nil && d.Instance != instance {
			err = arm.Errorf(arm.Conflict, "%s '%s' was deleted and made anew since the workspace was made, so the workspace has no rights on it; make another workspace", field, l)
		}
		return err
	})
}

// vaultByRoles reports whether the workspace's vault goes by roles.
func (s *Service) vaultByRoles(ctx context.Context, w workspace) (bool, error) {
	var p struct {
		ByRoles *bool `json:"enableRbacAuthorization"`
	}
	err := s.DB.View(ctx, func(tx *store.Tx) error {
		d, err := w.KeyVault.there(tx, "keyVault")
		if err != nil {
			return err
		}
		return json.Unmarshal(d.Properties, &p)
	})
	return p.ByRoles != nil && *p.ByRoles, err
}

// furnish puts into the workspace what every one has, and the datastore of its share
// if there is one: where the account is in another group, or the identity is its
// owner's, the workspace may make none.
func (s *Service) furnish(ctx context.Context, w workspace, shared bool) error {
	account := w.StorageAccount.Name()
	store1 := func(name, about string, p datastoreProps) *resource.Doc {
		p.Account, p.Endpoint, p.Protocol, p.Description = account, s.Site.StorageSuffix(), "https", about
		p.Group, p.Subscription = w.StorageAccount.Group().Name(), w.StorageAccount.Subscription()
		p.Credentials.Type = map[bool]string{true: credNone, false: credKey}[w.byIdentity()]
		return s.made(w, s.kinds.datastore, w.Doc.ID.Child("datastores", name), p, datastoreInner{System: true, Default: name == defaultDatastore, Account: w.StorageAccount.ID})
	}
	env := w.Doc.ID.Child("environments", hostEnvironment)
	docs := []*resource.Doc{
		store1(defaultDatastore, "the workspace's data", datastoreProps{Type: azureBlob, Container: w.blobContainer()}),
		store1(artifactDatastore, "the artifacts of runs", datastoreProps{Type: azureBlob, Container: artifactContainer}),
		s.made(w, s.kinds.env, env, containerProps{Description: "this machine's own programs, read-only"}, containerInner{Latest: "1", Next: 2}),
		s.made(w, s.kinds.envVersion, env.Child("versions", "1"), envProps{assetProps: assetProps{Description: "this machine's own programs, read-only"}, Image: hostImage}, assetInner{}),
	}
	if shared {
		docs = append(docs, store1(fileDatastore, "the workspace's files", datastoreProps{Type: azureFile, Share: w.share()}))
	}
	for _, d := range docs {
		if err := s.put(ctx, w, d); err != nil {
			return err
		}
	}
	return nil
}

// made is a resource that the platform makes.
func (s *Service) made(w workspace, k *resource.Kind, id arm.ID, p, in any) *resource.Doc {
	now := s.Now().UTC()
	d := &resource.Doc{
		ID: id, Name: id.Name(), Type: k.Type, Instance: strings.ReplaceAll(arm.NewUUID(), "-", ""), Etag: `"` + arm.NewUUID() + `"`,
		System: &resource.System{CreatedBy: w.Name, CreatedByType: "ManagedIdentity", CreatedAt: now, ModifiedBy: w.Name, ModifiedByType: "ManagedIdentity", ModifiedAt: now},
	}
	d.Properties, _ = json.Marshal(p) // our own structs can't fail
	d.Inner, _ = json.Marshal(in)
	return d
}

// put keeps d, unless it is there.
func (s *Service) put(ctx context.Context, w workspace, d *resource.Doc) error {
	there := errors.New("there")
	write := arm.NewAction(d.Type+"/write", "make or change what a new workspace has")
	err := s.act(ctx, "setting up the workspace "+w.Name, write, d.ID, func(tx *store.Tx) error {
		old, err := resource.Load(tx, d.ID)
		if err != nil {
			return err
		}
		if old != nil {
			return there
		}
		if parent, err := resource.Load(tx, w.Doc.ID); err != nil || parent == nil {
			return errors.Join(err, arm.Errorf("ResourceDeleted", "the workspace was deleted meanwhile"))
		}
		return resource.Save(tx, d)
	})
	if errors.Is(err, there) {
		return nil
	}
	return err
}
