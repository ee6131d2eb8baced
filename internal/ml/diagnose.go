package ml

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// The levels of a diagnosis, as Azure spells them.
const (
	asWarning = "Warning"
	asError   = "Error"
)

// finding is one thing that is wrong.
type finding struct {
	Code    string `json:"code"`
	Level   string `json:"level"`
	Message string `json:"message"`
}

// diagnosis is what is wrong, by what it is about. Routes, network rules and
// names can't be wrong where there are no networks.
type diagnosis struct {
	Routes   []finding `json:"userDefinedRouteResults"`
	Rules    []finding `json:"networkSecurityRuleResults"`
	Locks    []finding `json:"resourceLockResults"`
	DNS      []finding `json:"dnsResolutionResults"`
	Storage  []finding `json:"storageAccountResults"`
	Vault    []finding `json:"keyVaultResults"`
	Registry []finding `json:"containerRegistryResults"`
	Insights []finding `json:"applicationInsightsResults"`
	Others   []finding `json:"otherResults"`
}

// questions is a diagnosis' body: what is asked about. If nothing is named, all is.
type questions struct {
	Value struct {
		Routes   *struct{} `json:"udr"`
		Rules    *struct{} `json:"nsg"`
		Locks    *struct{} `json:"resourceLock"`
		DNS      *struct{} `json:"dnsResolution"`
		Storage  *struct{} `json:"storageAccount"`
		Vault    *struct{} `json:"keyVault"`
		Registry *struct{} `json:"containerRegistry"`
		Insights *struct{} `json:"applicationInsights"`
		Others   *struct{} `json:"others"`
	} `json:"value"`
}

// diagnose tries what the workspace needs, as the workspace, and names what does
// not work. What follows from something that was named is not named again.
func (s *Service) diagnose(ctx context.Context, g gate.Grant, d *resource.Doc, body []byte) (int, any, error) {
	if _, err := g.On(diagnose); err != nil {
		return 0, nil, err
	}
	var ask questions
	if len(body) > 0 {
		if err := arm.Decode(body, &ask); err != nil {
			return 0, nil, err
		}
	}
	w, err := s.readWorkspace(d)
	if err != nil {
		return 0, nil, err
	}
	none := []finding{}
	out := diagnosis{Routes: none, Rules: none, Locks: none, DNS: none, Storage: none, Vault: none, Registry: none, Insights: none, Others: none}
	q := ask.Value
	all := ask == questions{}
	x := examination{s: s, w: w, alive: s.Tokens.Client(w.Doc.ID, w.principal()) != ""}
	for _, part := range []struct {
		asked bool
		into  *[]finding
		look  func(context.Context) ([]finding, error)
	}{
		{q.Locks != nil, &out.Locks, x.locks},
		{q.Storage != nil, &out.Storage, x.storage},
		{q.Vault != nil, &out.Vault, x.vault},
		{q.Registry != nil, &out.Registry, x.registry},
		{q.Insights != nil, &out.Insights, x.insights},
		{q.Others != nil, &out.Others, x.others},
	} {
		if !all && !part.asked {
			continue
		}
		found, err := part.look(ctx)
		if err != nil {
			return 0, nil, err
		}
		*part.into = append(*part.into, found...)
	}
	return http.StatusOK, map[string]any{"value": out}, nil
}

// examination is one diagnosis under way.
type examination struct {
	s     *Service
	w     workspace
	alive bool // whether the directory still has the workspace's identity
}

func bad(code, message string, args ...any) finding {
	return finding{code, asError, fmt.Sprintf(message, args...)}
}

// there looks whether what a link names is there, and is what was linked. An
// empty instance is not looked at.
func (x examination) there(ctx context.Context, l link, kind, instance string) ([]finding, error) {
	var d *resource.Doc
	err := x.s.DB.View(ctx, func(tx *store.Tx) (err error) {
		d, err = resource.Load(tx, l.ID)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case d == nil:
		return []finding{bad(kind+"NotFound", "%s does not exist.", l)}, nil
	case instance != "" && d.Instance != instance:
		return []finding{bad(kind+"Replaced", "%s was deleted and made anew since the workspace was made. The workspace has no rights on the new one and gets none: make another workspace.", l)}, nil
	}
	return nil, nil
}

// roles looks for the roles of the table that the workspace's identity should
// have at a scope. An identity that its owner brings is judged by what it can do.
func (x examination) roles(ctx context.Context, kind string, scope arm.ID) (out []finding, err error) {
	if x.w.bringsOwn() || !x.alive {
		return nil, nil
	}
	byRoles, err := x.s.vaultByRoles(ctx, x.w)
	if err != nil {
		byRoles = false // the vault is gone, and said to be
	}
	for _, n := range x.w.needs(byRoles) {
		if n.scope.Key() == scope.Key() && !x.s.Roles.Has(x.w.principal(), n.role, n.scope) {
			out = append(out, bad(kind+"RoleMissing", "The workspace's identity (%s) does not have the role %s on %s. resyncKeys gives it back.", x.w.principal(), n.name, n.scope))
		}
	}
	return out, nil
}

// first is what the first of the looks finds: what comes after depends on it.
func first(ctx context.Context, looks ...func(context.Context) ([]finding, error)) ([]finding, error) {
	for _, look := range looks {
		if found, err := look(ctx); err != nil || len(found) > 0 {
			return found, err
		}
	}
	return nil, nil
}

func (x examination) storage(ctx context.Context) ([]finding, error) {
	return first(ctx, func(ctx context.Context) ([]finding, error) {
		return x.there(ctx, x.w.StorageAccount, "StorageAccount", x.w.workspaceInner.Storage)
	}, func(ctx context.Context) ([]finding, error) {
		return x.roles(ctx, "StorageAccount", x.w.StorageAccount.ID)
	}, x.containers, x.share, x.key)
}

// share looks for the workspace's file share.
func (x examination) share(ctx context.Context) ([]finding, error) {
	gone, err := x.s.shareGone(ctx, x.w)
	if err != nil || !gone {
		return nil, err
	}
	return []finding{bad("StorageShareNotFound", "The file share %s of %s does not exist. resyncKeys makes it anew, empty.", x.w.share(), x.w.StorageAccount)}, nil
}

// containers opens the workspace's containers as its identity.
func (x examination) containers(ctx context.Context) (out []finding, err error) {
	if !x.alive {
		return nil, nil
	}
	for _, c := range x.w.containers() {
		_, err := x.s.Blobs.List(ctx, Access{As: x.w.self()}, x.w.StorageAccount.ID, c, "\x7f", 1)
		code, message := gate.PublicError(err)
		switch {
		case err == nil:
		case code == arm.Internal:
			return nil, err
		case missing(err):
			out = append(out, bad("StorageContainerNotFound", "The container %s of %s does not exist. resyncKeys makes it anew, empty.", c, x.w.StorageAccount))
		default:
			return []finding{bad("StorageAccountNotAccessible", "The workspace's identity (%s) can't read %s: %s: %s", x.w.principal(), x.w.StorageAccount, code, message)}, nil
		}
	}
	return out, nil
}

// key tries the account's key, which clients may be given instead of a signature.
// A workspace whose identity may not list keys never gives one out.
func (x examination) key(ctx context.Context) ([]finding, error) {
	if !x.alive || x.w.byIdentity() {
		return nil, nil
	}
	key, err := x.s.Accounts.Key(ctx, x.w.self(), x.w.StorageAccount.ID)
	if arm.CodeOf(err) == arm.Forbidden {
		return nil, nil
	}
	if err == nil {
		err = x.s.tryOpen(ctx, x.w, location{name: defaultDatastore, account: x.w.StorageAccount.ID, container: x.w.blobContainer(), creds: credentials{Type: credKey}}, &secrets{Key: string(key.Reveal())})
	}
	if arm.CodeOf(err) == noKeys {
		return []finding{{"StorageKeyAccessDisabled", asWarning, fmt.Sprintf("%s has allowSharedKeyAccess false, so the keys that clients are given for the workspace's datastores open nothing. Set systemDatastoresAuthMode to identity, or allow keys.", x.w.StorageAccount)}}, nil
	}
	return nil, err
}

// noKeys is what an account answers to any key while it takes none.
const noKeys arm.Code = "KeyBasedAuthenticationNotPermitted"

func (x examination) vault(ctx context.Context) ([]finding, error) {
	return first(ctx, x.deletedVault, func(ctx context.Context) ([]finding, error) {
		return x.there(ctx, x.w.KeyVault, "KeyVault", x.w.workspaceInner.Vault)
	}, func(ctx context.Context) ([]finding, error) {
		return x.roles(ctx, "KeyVault", x.w.KeyVault.ID)
	}, x.policy, x.secrets)
}

// deletedVault looks for a vault that can be recovered.
func (x examination) deletedVault(ctx context.Context) (out []finding, err error) {
	err = x.s.DB.View(ctx, func(tx *store.Tx) error {
		until, err := x.s.Vaults.Recoverable(tx, x.w.KeyVault.ID)
		if err == nil && !until.IsZero() {
			out = []finding{bad("KeyVaultSoftDeleted", "%s was deleted. It can be recovered until %s.", x.w.KeyVault, until.UTC().Format("2006-01-02T15:04:05Z"))}
		}
		return err
	})
	return out, err
}

// policy looks for the identity's access policy, where they decide.
func (x examination) policy(ctx context.Context) ([]finding, error) {
	byRoles, err := x.s.vaultByRoles(ctx, x.w)
	if err != nil || byRoles || !x.alive || x.w.bringsOwn() || x.s.Vaults.Allows(x.w.KeyVault.ID, x.w.principal()) {
		return nil, err
	}
	return []finding{bad("KeyVaultAccessPolicyMissing", "No access policy of %s gives the workspace's identity (%s) all permissions on keys, secrets and certificates. resyncKeys adds one.", x.w.KeyVault, x.w.principal())}, nil
}

// secrets lists the vault's secrets as the workspace's identity.
func (x examination) secrets(ctx context.Context) ([]finding, error) {
	if !x.alive {
		return nil, nil
	}
	_, _, err := x.s.Vaults.Secrets(ctx, x.w.self(), x.w.KeyVault.ID, "")
	code, message := gate.PublicError(err)
	if err == nil || code == arm.Internal {
		return nil, err
	}
	return []finding{bad("KeyVaultNotAccessible", "The workspace's identity (%s) can't list the secrets of %s: %s: %s", x.w.principal(), x.w.KeyVault, code, message)}, nil
}

func (x examination) registry(ctx context.Context) ([]finding, error) {
	if x.w.ContainerRegistry.IsZero() {
		return nil, nil
	}
	return first(ctx, func(ctx context.Context) ([]finding, error) {
		return x.there(ctx, x.w.ContainerRegistry, "ContainerRegistry", x.w.workspaceInner.Registry)
	}, func(ctx context.Context) ([]finding, error) {
		return x.roles(ctx, "ContainerRegistry", x.w.ContainerRegistry.ID)
	})
}

func (x examination) insights(ctx context.Context) ([]finding, error) {
	if x.w.ApplicationInsights.IsZero() {
		return nil, nil
	}
	return x.there(ctx, x.w.ApplicationInsights, "ApplicationInsights", "")
}

// locks names the locks that will stop somebody, each once.
func (x examination) locks(ctx context.Context) (out []finding, err error) {
	err = x.s.DB.View(ctx, func(tx *store.Tx) error {
		for _, id := range []arm.ID{x.w.Doc.ID, x.w.StorageAccount.ID, x.w.KeyVault.ID, x.w.ContainerRegistry.ID, x.w.ApplicationInsights.ID} {
			if id.IsZero() {
				continue
			}
			found, err := x.s.Around.Locks(tx, id)
			if err != nil {
				return err
			}
			for _, l := range found {
				f := finding{"ResourceLocked", asWarning, fmt.Sprintf("The scope %s has a lock of level %s: nothing there, or that holds it, can be deleted.", l.Scope, l.Level)}
				if !strings.EqualFold(l.Level, "CanNotDelete") {
					f.Level, f.Message = asError, fmt.Sprintf("The scope %s has a lock of level %s: nothing there can be changed, deleted or repaired by resyncKeys, and no keys listed.", l.Scope, l.Level)
				}
				if !slices.Contains(out, f) {
					out = append(out, f)
				}
			}
		}
		return nil
	})
	return out, err
}

// others looks at the identity itself, its roles on the workspace and the group,
// the datastores, the clusters' identities, and accounts of former times.
func (x examination) others(ctx context.Context) (out []finding, err error) {
	if !x.alive {
		out = append(out, bad("IdentityNotUsable", "The workspace's identity (%s) is not in the directory any more, or may not sign in.", x.w.principal()))
	}
	for _, scope := range []arm.ID{x.w.Doc.ID, x.w.Doc.ID.Group()} {
		found, err := x.roles(ctx, "Workspace", scope)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	for _, look := range []func(context.Context) ([]finding, error){x.datastores, x.clusters} {
		found, err := look(ctx)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	for _, a := range x.s.Around.Support(x.w.Doc.ID) {
		out = append(out, finding{"LegacySupportAccount", asWarning, fmt.Sprintf("The account %s (%s) has %s. Azure made such accounts for computes before 14 May 2021; no compute here uses it, and it can be deleted.", a.Name, a.Object, strings.Join(a.Roles, " and "))})
	}
	return out, nil
}

// datastores opens each datastore with what it keeps.
func (x examination) datastores(ctx context.Context) (out []finding, err error) {
	all, err := x.s.datastores(ctx, x.w)
	if err != nil {
		return nil, err
	}
	for _, d := range all {
		own, instance := d.inner.Account.Key() == x.w.StorageAccount.Key(), ""
		if own {
			instance = x.w.workspaceInner.Storage
		}
		gone, err := x.there(ctx, link{d.inner.Account}, "Datastore", instance)
		switch {
		case err != nil:
			return nil, err
		case len(gone) > 0 && own: // which is said of the account
			continue
		case len(gone) > 0:
			out = append(out, bad("DatastoreAccountNotFound", "The datastore %s is on %s, which does not exist.", d.Name, d.inner.Account))
			continue
		case d.Credentials.Type == credNone: // who reads it is only known then
			continue
		}
		err = x.s.tryKept(ctx, x.w, d)
		code, message := gate.PublicError(err)
		switch {
		case err == nil, own && code == noKeys, code == secretUnavailable: // of which the vault's part says why
		case code == secretMissing:
			out = append(out, bad(string(code), "%s Recover it there, or register the datastore anew.", message))
		case code == arm.Internal:
			return nil, err
		case code == wrongKey && own && d.inner.Proven && !x.w.byIdentity():
			out = append(out, bad("DatastoreCredentialsInvalid", "The datastore %s keeps a key that %s does not have any more. resyncKeys renews it.", d.Name, d.inner.Account))
		default:
			out = append(out, bad("DatastoreCredentialsInvalid", "The container %s of %s does not open with what the datastore %s keeps: %s: %s Register it anew.", d.place(), d.inner.Account, d.Name, code, message))
		}
	}
	return out, nil
}

// clusters looks whether their identities are there.
func (x examination) clusters(ctx context.Context) (out []finding, err error) {
	err = x.s.DB.View(ctx, func(tx *store.Tx) error {
		all, err := resource.List(tx, x.s.kinds.compute.Type, x.w.Doc.ID, "", 0)
		if err != nil {
			return err
		}
		for _, d := range all {
			for _, i := range (cluster{Doc: d}).identities() {
				if x.s.Tokens.Client(i.of, i.principal) == "" {
					out = append(out, bad("ComputeIdentityNotUsable", "The managed identity %s of the cluster %s is not in the directory any more, or may not sign in.", i.of, d.Name))
				}
			}
		}
		return nil
	})
	return out, err
}
