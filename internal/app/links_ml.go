package app

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"time"

	"castellan/internal/arm"
	"castellan/internal/compute"
	"castellan/internal/gate"
	"castellan/internal/governance"
	"castellan/internal/identity"
	"castellan/internal/ml"
	"castellan/internal/rbac"
	"castellan/internal/store"
	"castellan/internal/tracking"
	"castellan/internal/vault"
)

// admit lets a caller do one thing, and records how it went.
func admit[T any](ctx context.Context, g *gate.Gate, as arm.Caller, act arm.Action, on gate.Target, do func(gate.Grant) (T, error)) (T, error) {
	grant, err := g.Admit(ctx, as, act, on)
	if err != nil {
		var none T
		return none, err
	}
	out, err := do(grant)
	return out, grant.Close(ctx, err)
}

// whole is a caller with what the directory knows of it now, unless its
// credential decides alone.
func (a *App) whole(c arm.Caller) (arm.Caller, error) {
	if c.Lease != nil {
		return c, nil
	}
	known, err := a.identity.Known(c.Tenant, c.Object)
	if c.Token == "lent" {
		known.Token, known.App = c.Token, c.App
	}
	return known, err
}

// mlRoles gives and takes roles for ml.
type mlRoles struct{ *App }

func (l mlRoles) Has(principal, role string, scope arm.ID) bool {
	return slices.ContainsFunc(l.roles.For(principal), func(a rbac.Assignment) bool {
		return a.RoleID == role && a.Scope.Key() == scope.Key() && !a.Timed() && a.Condition == ""
	})
}

func (l mlRoles) Assign(ctx context.Context, as arm.Caller, principal, role string, scope arm.ID) error {
	_, err := admit(ctx, l.gate, as, governance.WriteAssignment, gate.Target{ID: scope, Item: principal}, func(g gate.Grant) (struct{}, error) {
		return struct{}{}, g.Change(ctx, l.db, func(tx *store.Tx) error {
			if err := l.roles.Holding(tx, governance.WriteAssignment, scope); err != nil { // no door has asked the locks of this scope
				return err
			}
			return l.roles.Assign(tx, rbac.Assignment{Scope: scope, RoleID: role, Principal: principal, PrincipalType: arm.ServicePrincipal}, as)
		})
	})
	return err
}

func (l mlRoles) Unassign(ctx context.Context, as arm.Caller, principal, role string, scope arm.ID) error {
	_, err := admit(ctx, l.gate, as, governance.DeleteAssignment, gate.Target{ID: scope, Item: principal}, func(g gate.Grant) (struct{}, error) {
		return struct{}{}, g.Change(ctx, l.db, func(tx *store.Tx) error {
			return l.roles.Unassign(tx, rbac.Assignment{Scope: scope, RoleID: role, Principal: principal})
		})
	})
	return err
}

// mlVaults is key vaults for ml.
type mlVaults struct{ *App }

func (l mlVaults) Allows(id arm.ID, principal string) bool { return l.vault.Allows(id, principal) }

func (l mlVaults) Allow(ctx context.Context, as arm.Caller, id arm.ID, principal string) error {
	_, err := admit(ctx, l.gate, as, vault.PolicyWrite, gate.Target{ID: id, Item: principal}, func(g gate.Grant) (struct{}, error) {
		return struct{}{}, l.vault.Allow(ctx, g, l.Site.TenantOf(id), principal)
	})
	return err
}

func (l mlVaults) Secrets(ctx context.Context, as arm.Caller, id arm.ID, after string) (some []ml.VaultSecret, next string, err error) {
	if as, err = l.whole(as); err != nil {
		return nil, "", err
	}
	page, err := admit(ctx, l.gate, as, vault.SecretMetadata, gate.Target{ID: id}, func(g gate.Grant) (vault.Page, error) {
		return l.vault.Secrets(ctx, g, after, 1000)
	})
	for _, o := range page.Items {
		some = append(some, vaultSecret(o))
	}
	return some, page.After, err
}

func vaultSecret(o vault.Object) ml.VaultSecret {
	return ml.VaultSecret{Name: o.Name, Value: o.Value, Type: o.ContentType, Tags: o.Tags, Created: o.Attributes.Created, Updated: o.Attributes.Updated}
}

func (l mlVaults) Secret(ctx context.Context, as arm.Caller, id arm.ID, name string) (ml.VaultSecret, error) {
	return mlVaultDo(ctx, l, as, vault.SecretGet, id, name, func(g gate.Grant) (ml.VaultSecret, error) {
		found, err := l.vault.GetSecret(ctx, g, "")
		return vaultSecret(found), err
	})
}

func mlVaultDo[T any](ctx context.Context, l mlVaults, as arm.Caller, act arm.Action, id arm.ID, name string, do func(gate.Grant) (T, error)) (out T, err error) {
	on, err := l.vault.SecretTarget(id, name)
	if err != nil {
		return out, err
	}
	if as, err = l.whole(as); err != nil {
		return out, err
	}
	return admit(ctx, l.gate, as, act, on, do)
}

func (l mlVaults) Keep(ctx context.Context, as arm.Caller, id arm.ID, x ml.VaultSecret) (string, error) {
	return mlVaultDo(ctx, l, as, vault.SecretSet, id, x.Name, func(g gate.Grant) (string, error) {
		made, err := l.vault.SetSecret(ctx, g, vault.Draft{Value: x.Value, Tags: x.Tags, ContentType: x.Type})
		return made.Version, err
	})
}

func (l mlVaults) Kept(ctx context.Context, as arm.Caller, id arm.ID, name, version string) (arm.Secret, error) {
	return mlVaultDo(ctx, l, as, vault.SecretGet, id, name, func(g gate.Grant) (arm.Secret, error) {
		found, err := l.vault.GetSecret(ctx, g, version)
		return found.Value, err
	})
}

func (l mlVaults) Discard(ctx context.Context, as arm.Caller, id arm.ID, name string) error {
	_, err := mlVaultDo(ctx, l, as, vault.SecretDelete, id, name, func(g gate.Grant) (struct{}, error) {
		return struct{}{}, l.vault.DeleteSecret(ctx, g)
	})
	return err
}

func (l mlVaults) Recoverable(tx *store.Tx, id arm.ID) (time.Time, error) {
	return l.vault.Recoverable(tx, id)
}

// mlAround is what ml looks up around workspaces.
type mlAround struct{ *App }

func (l mlAround) Locks(tx *store.Tx, id arm.ID) (out []ml.Lock, err error) {
	found, err := l.roles.Locks(tx, id)
	for _, f := range found {
		out = append(out, ml.Lock(f))
	}
	return out, err
}

func (l mlAround) Support(id arm.ID) (out []ml.Support) {
	for _, c := range l.identity.SupportAccounts(l.Site.TenantOf(id)) {
		x := ml.Support{Object: c.Object, Name: c.Name}
		for _, a := range l.roles.For(c.Object) {
			if r, ok := l.engine.Role(a.RoleID); ok && id.Within(a.Scope) {
				x.Roles = append(x.Roles, r.Name+" on "+a.Scope.String())
			}
		}
		if len(x.Roles) > 0 {
			out = append(out, x)
		}
	}
	return out
}

// mlRuns keeps the runs of jobs in run history.
type mlRuns struct{ *App }

func (l mlRuns) Create(ctx context.Context, as arm.Caller, ws arm.ID, r ml.Run) (experiment string, err error) {
	return admit(ctx, l.gate, as, tracking.RunsWrite, gate.Target{ID: ws, Item: r.ID}, func(g gate.Grant) (string, error) {
		return l.tracking.CreateJobRun(ctx, g, tracking.JobRun(r))
	})
}

func (l mlRuns) Update(ctx context.Context, as arm.Caller, ws arm.ID, run string, u ml.Update) error {
	_, err := admit(ctx, l.gate, as, tracking.RunsWrite, gate.Target{ID: ws, Item: run}, func(g gate.Grant) (struct{}, error) {
		return struct{}{}, l.tracking.UpdateJobRun(ctx, g, tracking.JobUpdate{
			Status: string(u.Status), Started: u.Started, Ended: u.Ended, Error: u.Error, Tags: u.Tags, Properties: u.Properties,
		})
	})
	return err
}

func (l mlRuns) Append(ctx context.Context, as arm.Caller, ws arm.ID, run, path string, data []byte) error {
	_, err := admit(ctx, l.gate, as, tracking.ArtifactsWrite, gate.Target{ID: ws, Item: run}, func(g gate.Grant) (struct{}, error) {
		return struct{}{}, l.tracking.AppendArtifact(ctx, g, path, data)
	})
	return err
}

func (l mlRuns) Put(ctx context.Context, as arm.Caller, ws arm.ID, run, path string, content io.Reader, size int64) error {
	_, err := admit(ctx, l.gate, as, tracking.ArtifactsWrite, gate.Target{ID: ws, Item: run}, func(g gate.Grant) (struct{}, error) {
		return struct{}{}, l.tracking.PutArtifact(ctx, g, path, "application/octet-stream", content, size)
	})
	return err
}

// mlSandboxes runs jobs.
type mlSandboxes struct{ s *compute.Service }

func (l mlSandboxes) Run(ctx context.Context, t ml.Task, begun func(tier string)) (ml.Ended, error) {
	e, err := l.s.Run(ctx, compute.Task(t), begun)
	return ml.Ended(e), err
}

func (l mlSandboxes) Seal(dir string) (string, func() error, error) { return l.s.Seal(dir) }
func (l mlSandboxes) Sealed() bool                                  { return l.s.Sealed() }

func (l mlSandboxes) Inside(path string) string      { return l.s.Inside(path) }
func (l mlSandboxes) Address(listener string) string { return l.s.Address(listener) }

// mlTokens mints tokens of compute's identities, for jobs.
type mlTokens struct{ *App }

func (l mlTokens) Managed(ctx context.Context, as arm.Caller, of arm.ID, audience, sandbox string) (token arm.Secret, client string, expires time.Time, err error) {
	token, err = admit(ctx, l.gate, as, identity.MintManaged, gate.Target{ID: of}, func(g gate.Grant) (arm.Secret, error) {
		text, until, app, err := l.identity.ManagedToken(ctx, g, audience, sandbox)
		client, expires = app, until
		return arm.NewSecret([]byte(text)), err
	})
	if arm.CodeOf(err) == "invalid_resource" {
		return token, client, expires, arm.Errorf(arm.BadRequest, "the audience is not one that this platform has")
	}
	return token, client, expires, err
}

func (l mlTokens) Client(of arm.ID, principal string) string {
	c, err := l.identity.Known(l.Site.TenantOf(of), principal)
	if err != nil {
		return "" // it is gone
	}
	return c.App
}

// mlPeople lends people's identities to their jobs.
type mlPeople struct{ *App }

func (l mlPeople) Lend(x ml.Loan)   { l.identity.Lend(identity.Loan(x)) }
func (l mlPeople) Recall(id string) { l.identity.Recall(id) }
func (l mlPeople) Known(tenant, object string) (arm.Caller, error) {
	return l.identity.Known(tenant, object)
}
func (l mlPeople) Lender(x ml.Loan) (arm.Caller, error) { return l.identity.Lender(identity.Loan(x)) }

func (l mlPeople) Token(ctx context.Context, as arm.Caller, job arm.ID, loan, audience string) (token arm.Secret, client string, expires time.Time, err error) {
	token, err = admit(ctx, l.gate, as, identity.MintLent, gate.Target{ID: job, Item: loan}, func(g gate.Grant) (arm.Secret, error) {
		text, until, app, err := l.identity.LentToken(ctx, g, audience)
		client, expires = app, until
		return arm.NewSecret([]byte(text)), err
	})
	return token, client, expires, err
}

// mlApplications proves service principals.
type mlApplications struct{ *App }

func (l mlApplications) Prove(ctx context.Context, tenant, client string, secret, certificate arm.Secret) (arm.Caller, error) {
	return l.identity.Prove(ctx, tenant, client, secret, certificate)
}

// mlMetadata tells tokens inside sandboxes.
type mlMetadata struct{ now func() time.Time }

func (l mlMetadata) Managed(secret arm.Secret, token ml.TokenFunc) http.Handler {
	return compute.MSI(secret, compute.TokenFunc(token), l.now)
}

func (l mlMetadata) Instance(token ml.TokenFunc, facts map[string]any) http.Handler {
	return compute.IMDS(compute.TokenFunc(token), facts, l.now)
}

func (l mlMetadata) Lent(token ml.LentFunc) http.Handler {
	return compute.OBO(compute.LentFunc(token), l.now)
}

// workspaces is what tracking asks of ml: facts, which need no grant.
type workspaces struct{ *App }

func (l workspaces) Find(tx *store.Tx, id arm.ID) (tracking.Workspace, bool, error) {
	f, ok, err := l.ml.Facts(tx, id)
	return tracking.Workspace(f), ok, err
}

var errNoSuchContainer = errors.New("the container's id is malformed")

// container is the id of a container of an account.
func container(account arm.ID, name string) (arm.ID, error) {
	if arm.CheckSegment(name) != nil {
		return arm.ID{}, errNoSuchContainer
	}
	return arm.ParseID(account.String() + "/blobServices/default/containers/" + name)
}
