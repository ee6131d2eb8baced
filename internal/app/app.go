// Package app puts the platform together; the only package that knows all others.
package app

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/blob"
	"castellan/internal/cmk"
	"castellan/internal/compliance"
	"castellan/internal/compute"
	"castellan/internal/deploy"
	"castellan/internal/gate"
	"castellan/internal/governance"
	"castellan/internal/identity"
	"castellan/internal/ml"
	"castellan/internal/monitor"
	"castellan/internal/ops"
	"castellan/internal/outside"
	"castellan/internal/rbac"
	"castellan/internal/resource"
	"castellan/internal/seal"
	"castellan/internal/server"
	"castellan/internal/store"
	"castellan/internal/tracking"
	"castellan/internal/vault"
)

// Config is how an installation is run. Its zero value runs.
type Config struct {
	Data           string // data folder; default $XDG_DATA_HOME/castellan
	Suffix         string // base of all host names; default castellan.localhost; fixed at the first start
	Location       string // name of the one region; default local; fixed at the first start
	RootKey        string // file of the root key, made if it is not there, or pkcs11: and the rest of the URI of the token's key that wraps it; default: the data folder's path with .root-key added
	PassphraseFile string // file with a passphrase that the root key is made of, instead of RootKey
	Witness        string // file outside of the data folder for the audit log's last checkpoint, which a start is held against; default: none
	AuditDays      int    // audit entries older than so many days are pruned; default 0: none
	Throttle       int    // how many times Azure's limits callers of Resource Manager have; default 100
	VaultThrottle  int    // how many times Azure's limits each vault has; default 10
	Issuers        string // file of settings about foreign issuers (issuer.Settings); default: none
	OutsideVaults  string // file of the vaults outside whose keys may guard data (outside.Settings); default: none
	Scratch        string // folder of what jobs work on; default: scratch in the data folder
	SealedScratch  bool   // no start with a scratch folder that leaves on a disk what jobs had in it
	Sinks          string // file of sinks for logs, which diagnostic settings may name (monitor.OpenSinks); default: none
	Log            *slog.Logger
	Now            func() time.Time
}

// DataFolder is the absolute path of a data folder, of the usual one if dir is "".
func DataFolder(dir string) (string, error) {
	if dir != "" {
		return filepath.Abs(dir)
	}
	base := os.Getenv("XDG_DATA_HOME")
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("finding the data folder: %w; name one with --data", err)
		}
		base = filepath.Join(home, ".local", "share")
	}
	return filepath.Abs(filepath.Join(base, "castellan"))
}

func (c Config) withDefaults() (_ Config, err error) {
	if c.Data, err = DataFolder(c.Data); err != nil {
		return c, err
	}
	if c.Suffix == "" {
		c.Suffix = "castellan.localhost"
	}
	c.Suffix = strings.ToLower(c.Suffix)
	if strings.Count(c.Suffix, ".") < 1 || arm.CheckSegment(c.Suffix) != nil || strings.ContainsAny(c.Suffix, ":/_") {
		return c, fmt.Errorf("the suffix %q must be a host name of at least two labels, such as castellan.localhost", c.Suffix)
	}
	if c.Location == "" {
		c.Location = "local"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Throttle == 0 {
		c.Throttle = 100
	}
	if c.VaultThrottle == 0 {
		c.VaultThrottle = 10
	}
	if c.VaultThrottle < 0 {
		return c, fmt.Errorf("vaults are to have %d times Azure's limits; it must be 1 or more", c.VaultThrottle)
	}
	if c.Throttle < 0 {
		return c, fmt.Errorf("callers are to have %d times Azure's limits; it must be 1 or more", c.Throttle)
	}
	if c.AuditDays < 0 {
		return c, fmt.Errorf("audit entries are to be kept for %d days; it must be 1 or more, or 0 for ever", c.AuditDays)
	}
	return c, nil
}

func (c Config) keyFile() string {
	if c.RootKey != "" {
		return c.RootKey
	}
	return c.Data + ".root-key"
}

// Admin is what the first start tells once, and nobody ever again.
type Admin struct {
	ClientID     string // an application with Owner on the subscription, for scripts
	ClientSecret arm.Secret
	UserName     string     // a person with Owner on the subscription
	Password     arm.Secret // to be changed at the first sign-in
}

// App is a running platform.
type App struct {
	Config
	Site    arm.Site
	Admin   *Admin // set by the first start alone
	Handler *server.Handler
	CA      *server.Authority
	Planes  []*gate.Plane
	Audit   *audit.Log

	db        *store.DB
	unlock    func() error
	gate      *gate.Gate
	engine    *rbac.Engine
	resources *resource.Server
	runner    *ops.Runner
	identity  *identity.Service
	roles     *governance.Service
	policies  *compliance.Service
	vault     *vault.Service
	blob      *blob.Service
	keys      *cmk.Keys
	outside   *outside.Vaults
	compute   *compute.Service
	ml        *ml.Service
	tracking  *tracking.Service
	deploy    *deploy.Service
	diagnoses *monitor.Diagnostics

	witnessed bool // the witness agreed, and may be told more
	stop      context.CancelFunc
	work      sync.WaitGroup
}

// New opens the data folder, or makes it, and puts everything together. Nothing
// runs in the background until Run.
func New(ctx context.Context, cfg Config) (_ *App, err error) {
	if cfg, err = cfg.withDefaults(); err != nil {
		return nil, err
	}
	unlock, err := lockFolder(cfg.Data)
	if err != nil {
		return nil, err
	}
	a := &App{Config: cfg, unlock: unlock}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	key, err := rootKey(ctx, cfg)
	if err != nil {
		return nil, err
	}
	db, in, fresh, err := openStore(ctx, cfg, key)
	if a.db = db; err != nil {
		return nil, err
	}
	a.Site = in.site()
	if a.CA, err = server.OpenAuthority(in.CACert, in.CAKey, a.Site, cfg.Now); err != nil {
		return nil, err
	}
	a.Audit = audit.New(db, cfg.Now)
	if err := errors.Join(a.Audit.Err(), a.openWitness(ctx)); err != nil {
		return nil, err
	}
	a.engine = rbac.New(rbac.BuiltIn())
	a.gate = gate.New(a.decide, a.Audit)
	a.gate.Inside, a.gate.Site, a.gate.Lists = a.engine.Inside, a.Site, a.lists
	a.gate.Report = func(r *http.Request, err error) { // the path alone: a query may hold a signature
		a.Log.Error("a request failed", "method", r.Method, "host", r.Host, "path", r.URL.Path, "error", err)
	}
	a.resources = &resource.Server{DB: db, Gate: a.gate, Now: cfg.Now, Site: a.Site}
	a.runner = &ops.Runner{Server: a.resources, Log: cfg.Log}
	a.resources.Wake, a.resources.Actions = a.runner.Wake, a.actions
	if err := a.services(ctx, key); err != nil {
		return nil, err
	}
	if err := a.loadTenancy(ctx); err != nil {
		return nil, fmt.Errorf("reading whose the subscriptions are: %w", err)
	}
	if err := a.roles.Load(ctx); err != nil {
		return nil, fmt.Errorf("reading the role assignments: %w", err)
	}
	if err := a.policies.Load(ctx); err != nil {
		return nil, fmt.Errorf("reading the policies: %w", err)
	}
	if fresh {
		if err := a.found(ctx, in); err != nil {
			return nil, fmt.Errorf("making the installation: %w", err)
		}
	}
	a.Planes = a.planes()
	if a.Handler, err = server.New(a.Site, a.gate, a.Planes, cfg.Log); err != nil {
		return nil, err
	}
	st := a.compute.Standing()
	a.Log.Info("the platform is put together", "data", cfg.Data, "suffix", a.Site.Suffix, "new", fresh, "sandbox", st.Tier.String(), "sandboxRefusal", st.Refusal(), "scratch", a.compute.Scratch())
	return a, nil
}

// services makes the services, those first that others need.
func (a *App) services(ctx context.Context, key seal.Key) (err error) {
	a.identity, err = identity.New(identity.Config{Warn: a.Log.Warn, DB: a.db, Log: a.Audit, Gate: a.gate, Root: key, Site: a.Site, Now: a.Now, Issuers: a.Issuers})
	if err != nil {
		return err
	}
	a.roles, err = governance.New(governance.Config{
		DB: a.db, Log: a.Audit, Gate: a.gate, Engine: a.engine, Directory: directory{a}, Known: a.identity.Known, Members: a.identity.Members, Actions: a.actions,
		Site: a.Site, Now: a.Now, BreakGlass: a.identity.IsBreakGlass, Judge: a.resources.Judge,
		Elevates: a.identity.IsGlobalAdministrator,
		Removed:  func(tx *store.Tx, d *resource.Doc) error { return a.resources.Removed(tx, d, arm.Caller{}) },
	})
	if err != nil {
		return err
	}
	a.resources.Identities = a.identity
	a.policies, err = compliance.New(compliance.Config{
		DB: a.db, Gate: a.gate, Site: a.Site, Now: a.Now, Scope: a.roles.Scope, Above: a.roles.Above, Subscriptions: a.Site.Tenancy.Subscriptions,
		Resources: a.resources, Identities: a.identity, Doors: policyDoors{a}, Jobs: policyJobs{a}.facts,
	})
	if err != nil {
		return err
	}
	a.resources.Policies = a.policies
	a.gate.Locks = &gate.Locks{DB: a.db, Holding: a.roles.Holding}
	a.resources.Gains = a.roles.Gains
	a.resources.OnRemove = append(a.resources.OnRemove, a.roles.DropScope, a.policies.DropScope)
	a.identity.OnPrincipalGone(a.roles.DropPrincipal)
	a.identity.OnTenant(a.foundTenant)
	a.vault, err = vault.New(vault.Config{DB: a.db, Gate: a.gate, Log: a.Log, Root: key, Site: a.Site, Now: a.Now, Who: a.identity.Bearer(a.Site.VaultAudiences()...), May: a.may, Judge: a.resources.Judge, Told: a.told, Pace: a.VaultThrottle})
	if err != nil {
		return err
	}
	if a.outside, err = outside.Open(outside.Config{File: a.OutsideVaults, Assert: a.assert, Now: a.Now}); err != nil {
		return err
	}
	a.keys, err = cmk.OpenKeys(ctx, a.db, &cmk.Ring{Root: key.Derive("workspaces"), Vaults: customerKeys{a}, Now: a.Now})
	if err != nil {
		return err
	}
	a.db.SetGuard(guard{a.keys}.key)
	a.gate.Ready = a.keys.Ready
	a.blob, err = blob.New(blob.Config{
		DB: a.db, Gate: a.gate, Root: key, Dir: filepath.Join(a.Data, "blobs"), Site: a.Site, Now: a.Now, Log: a.Log,
		Who: a.identity.Bearer(a.Site.StorageAudiences()...), May: a.may, OnRemove: a.roles.DropScope, NameOf: func(tenant, object string) string {
			if c, err := a.identity.Known(tenant, object); err == nil && c.Kind == arm.User {
				return c.Name
			}
			return ""
		},
		Customers: customerKeys{a}, Told: a.told,
		Signer: func(_ context.Context, tenant, object string) (arm.Caller, error) {
			return a.identity.Known(tenant, object)
		},
	})
	if err != nil {
		return err
	}
	control := func() *gate.Plane { return a.Planes[0] }
	a.deploy, err = deploy.New(deploy.Config{
		DB: a.db, Site: a.Site, Now: a.Now, Callers: a.identity, Scope: a.roles.Scope,
		Doors: deploy.Inside{Gate: a.gate, Plane: control, Site: a.Site, Resources: a.resources},
	})
	if err != nil {
		return err
	}
	sinks, err := monitor.OpenSinks(a.Sinks, a.Site.Tenant, a.Site.Host())
	if err != nil {
		return err
	}
	a.diagnoses = monitor.NewDiagnostics(monitor.Config{
		Sinks: sinks, DB: a.db, Gate: a.gate, Log: a.Audit, Site: a.Site, Now: a.Now, Warn: a.Log, Append: diagnosticBlobs{a}.Append, Directory: a.identity.Told,
	})
	a.resources.OnRemove = append(a.resources.OnRemove, a.diagnoses.Removed)
	return a.learning(ctx)
}

// learning makes what jobs need: sandboxes, workspaces and run history.
func (a *App) learning(ctx context.Context) (err error) {
	scratch := cmp.Or(a.Scratch, filepath.Join(a.Data, "scratch"))
	a.compute, err = compute.New(ctx, compute.Config{Dir: scratch, Sealed: a.SealedScratch, Names: a.names, CA: a.CA.PEM, Edge: a.edge, Proxy: a.proxy})
	if err != nil {
		return err
	}
	a.ml, err = ml.New(ml.Config{
		DB: a.db, Gate: a.gate, Root: scratch, Site: a.Site, Now: a.Now, Log: a.Log,
		Keys: a.keys, Customers: customerKeys{a}, Blobs: mlBlobs{a}, Accounts: mlAccounts{a}, Roles: mlRoles{a}, Vaults: mlVaults{a}, Runs: mlRuns{a},
		Sandboxes: mlSandboxes{a.compute}, Tokens: mlTokens{a}, Metadata: mlMetadata{a.Now}, People: mlPeople{a}, Applications: mlApplications{a}, Policies: policyJobs{a}, Around: mlAround{a},
	})
	if err != nil {
		return err
	}
	a.tracking, err = tracking.New(tracking.Config{
		DB: a.db, Gate: a.gate, Site: a.Site, Now: a.Now, Who: a.whoLearns(), Workspace: a.ml.Kinds()[0],
		Blobs: trackingBlobs{a}, Workspaces: workspaces{a}, Judge: a.resources.Judge,
		Removed: func(tx *store.Tx, d *resource.Doc) error { return a.resources.Removed(tx, d, arm.Caller{}) },
	})
	return err
}

// whoLearns is who calls the ML plane: a run by its own token, or the bearer of
// a token for Resource Manager or for machine learning.
func (a *App) whoLearns() func(*http.Request) (arm.Caller, error) {
	bearer := a.identity.Bearer(append(a.Site.ARMAudiences(), a.Site.MLAudiences()...)...)
	return func(r *http.Request) (arm.Caller, error) {
		if c, ok, err := a.ml.RunToken(r); ok || err != nil {
			return c, err
		}
		return bearer(r)
	}
}

// decide asks whoever decides about id: the directory, a vault with access
// policies, and for everything else the roles.
func (a *App) decide(c arm.Caller, act arm.Action, on gate.Target) (bool, string) {
	id := on.ID
	if handled, ok, why := a.identity.Decide(c, act, id); handled {
		return ok, why
	}
	if handled, ok, why := a.roles.Decide(c, act, on); handled {
		return ok, why
	}
	if handled, ok, why := a.vault.Decide(c, act, id); handled {
		return ok, why
	}
	d := a.engine.DecideWith(c, act, id, on.Attributes)
	if d.Allowed {
		return true, d.Role + " by " + d.By
	}
	return false, d.Reason
}

// lists asks the access lists of what lies in storage accounts, where roles do not
// allow. What is denied they do not allow either.
func (a *App) lists(c arm.Caller, act arm.Action, on gate.Target) (bool, string) {
	if _, denied := a.engine.Denied(c, act, on.ID, on.Attributes); denied {
		return false, ""
	}
	return a.blob.Lists(c, act, on)
}

// actions are all actions that doors ask for, each once.
func (a *App) actions() (out []arm.Action) {
	seen := map[string]bool{}
	for _, p := range a.Planes {
		for _, rt := range p.Routes {
			k := fmt.Sprint(rt.Action.Key(), rt.Action.Data())
			if !rt.Action.IsZero() && !seen[k] {
				seen[k] = true
				out = append(out, rt.Action)
			}
		}
	}
	return out
}

// told has what a sandbox is told kept out of its job's log.
func (a *App) told(ctx context.Context, secret arm.Secret) { a.ml.Told(gate.Origin(ctx), secret) }

func (a *App) may(c arm.Caller, act arm.Action, id arm.ID) bool {
	return a.Site.TenantOf(id) == c.Tenant && a.engine.Decide(c, act, id).Allowed
}

// planes are the faces of all protocols. The order decides who answers for a
// path on the shared host that nobody has.
func (a *App) planes() []*gate.Plane {
	shared := func(h string) bool { return h == a.Site.Host() }
	control := &gate.Plane{
		Name: "arm", Fold: true, Host: shared,
		Who:    a.identity.Bearer(a.Site.ARMAudiences()...),
		Refuse: server.Challenging(a.identity.Challenge),
		Pass:   server.NewThrottle(a.Site, a.Throttle, a.Now).Pass,
	}
	kinds := []*resource.Kind{resource.Subscription, resource.Group}
	kinds = append(kinds, a.identity.Kinds()...)
	for _, more := range [][]*resource.Kind{a.vault.Kinds(), a.blob.Kinds(), a.ml.Kinds(), a.tracking.Kinds(), a.deploy.Kinds(), monitor.Kinds()} {
		kinds = append(kinds, more...)
	}
	for _, k := range kinds {
		control.Routes = append(control.Routes, a.ml.Guard(k, a.resources.Routes(k))...)
	}
	for _, more := range [][]gate.Route{
		server.Metadata(a.Site), a.auditRoutes(), a.keyRoutes(), a.destructionRoutes(), a.resources.OperationRoutes(), a.resources.CatalogRoutes(), a.resources.TagRoutes(), a.resources.MoveRoutes(), a.roles.Routes(), a.policies.Routes(), a.vault.Routes(),
		a.blob.Routes(), a.ml.Routes(), a.deploy.Routes(), a.identity.ManagedRoutes(), (&monitor.Activity{Log: a.Audit, Site: a.Site}).Routes(), a.diagnoses.Routes(),
	} {
		control.Routes = append(control.Routes, more...)
	}
	control.Routes = resource.Shaped(control.Routes)
	learn := a.tracking.Plane()
	learn.Routes = append(learn.Routes, a.ml.MLRoutes(a.resources)...)
	all := []*gate.Plane{control, learn, a.identity.Login(), a.identity.Graph(), a.identity.SCIM(), a.vault.Plane(), a.blob.Plane(), a.blob.Paths(), a.blob.Shares()}
	server.InTurn(all)
	return all
}

// Run does the work in the background until ctx is done or Close.
func (a *App) Run(ctx context.Context) {
	ctx, a.stop = context.WithCancel(ctx)
	for name, run := range a.workers() {
		a.work.Add(1)
		go func() {
			defer a.work.Done()
			if err := run(ctx); err != nil && ctx.Err() == nil {
				a.Log.Error("a worker ended", "worker", name, "error", err)
			}
		}()
	}
}

func (a *App) workers() map[string]func(context.Context) error {
	return map[string]func(context.Context) error{"operations": a.runner.Run, "sign-in": a.identity.Run, "blobs": a.blob.Run, "customer-keys": a.runKeys, "destroyed-keys": a.runDestroy, "vaults": a.vault.Run, "policies": a.policies.Run, "jobs": a.ml.Run, "audit": a.runAudit, "diagnostics": a.diagnoses.Run}
}

// Close ends the work in the background and closes the data folder.
func (a *App) Close() error {
	if a.stop != nil {
		a.stop()
	}
	a.work.Wait()
	return a.close()
}

// roots are the installation's own root certificate alone.
func (a *App) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(a.CA.PEM())
	return pool
}

func (a *App) close() error {
	var errs []error
	if a.Audit != nil {
		errs = append(errs, a.Audit.Close(), a.tellWitness(context.Background()))
	}
	if a.db != nil {
		errs = append(errs, a.db.Close())
	}
	if a.unlock != nil {
		errs = append(errs, a.unlock())
	}
	return errors.Join(errs...)
}
