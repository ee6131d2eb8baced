package ml

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/cmk"
	"castellan/internal/gate"
	"castellan/internal/ops"
	"castellan/internal/rbac"
	"castellan/internal/resource"
	"castellan/internal/seal"
	"castellan/internal/store"
)

const (
	sub      = "/subscriptions/11111111-2222-3333-4444-555555555555"
	group    = sub + "/resourceGroups/rg"
	other    = sub + "/resourceGroups/rg2"
	ws       = group + "/providers/Microsoft.MachineLearningServices/workspaces/ws1"
	ws2      = group + "/providers/Microsoft.MachineLearningServices/workspaces/ws2"
	account1 = group + "/providers/Microsoft.Storage/storageAccounts/acct1"
	account2 = other + "/providers/Microsoft.Storage/storageAccounts/acct2"
	vault1   = group + "/providers/Microsoft.KeyVault/vaults/kv1"
	uai1     = other + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/u1"
)

const (
	roleOwner         = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"
	roleReader        = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
	roleDataScientist = "f6c7c914-8db3-469d-8ca1-694a8f32e121"
)

// world is a platform in a small place: the real store, gate, roles, resources,
// operations and this package, with neighbours that complain when misused.
type world struct {
	root   seal.Key // wraps workspaces' keys
	t      *testing.T
	db     *store.DB
	engine *rbac.Engine
	log    *audit.Log
	gate   *gate.Gate
	server *resource.Server
	s      *Service
	srv    *httptest.Server
	blobs  *blobs
	runs   *runs
	roles  *roles
	boxes  *boxes
	people *people
	site   arm.Site
	stop   func()

	inside string // the sandbox that requests come out of, or ""

	mu     sync.Mutex
	who    map[string]arm.Caller
	planes []*gate.Plane
}

func newWorld(t *testing.T) *world {
	w := &world{root: seal.Random(), t: t, site: arm.Site{Suffix: "castellan.localhost", Tenant: "tenant-1", Subscription: "11111111-2222-3333-4444-555555555555", Location: "local"}}
	db, err := store.Open(t.TempDir(), seal.Random())
	if err != nil {
		t.Fatal(err)
	}
	w.db = db
	w.engine = rbac.New(rbac.BuiltIn())
	w.log = audit.New(db, time.Now)
	w.gate = gate.New(func(c arm.Caller, a arm.Action, on gate.Target) (bool, string) {
		d := w.engine.Decide(c, a, on.ID)
		return d.Allowed, d.Reason
	}, w.log)
	w.roles = &roles{w: w}
	w.blobs = &blobs{w: w, made: map[string]map[string][]byte{}}
	w.runs = &runs{w: w, runs: map[string]*pastRun{}}
	w.boxes = &boxes{w: w}
	w.people = &people{w: w, lent: map[string]Loan{}}
	w.who = map[string]arm.Caller{}
	for _, n := range []string{"olga", "dan", "rita", "sam"} {
		w.who[n] = arm.Caller{Tenant: "tenant-1", Object: n, Name: n, Kind: arm.User, Token: "access", SignIn: arm.SignIn{Family: "sign-in of " + n}}
	}
	w.give("olga", roleOwner, sub)
	w.give("rita", roleReader, group)
	t.Cleanup(func() {
		if w.stop != nil {
			w.stop()
		}
		w.srv.Close()
		_ = w.log.Close()
		_ = db.Close()
	})
	w.srv = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.handle(rw, r) }))
	w.seed()
	w.start()
	return w
}

func (w *world) give(who, role, scope string) {
	w.giveAs(arm.NewUUID(), who, role, scope)
}

// giveAs is give, by an assignment of this name.
func (w *world) giveAs(name, who, role, scope string) {
	err := w.engine.PutAssignment(rbac.Assignment{ID: name, Scope: arm.MustID(scope), RoleID: role, Principal: who, PrincipalType: arm.User})
	if err != nil {
		w.t.Fatal(err)
	}
}

// start makes the service and lets it work; stopped and started again it is the
// same platform in a new process.
func (w *world) start() {
	keys, err := cmk.OpenKeys(w.t.Context(), w.db, &cmk.Ring{Root: w.root, Now: time.Now})
	if err != nil {
		w.t.Fatal(err)
	}
	s, err := New(Config{
		Keys: keys, DB: w.db, Gate: w.gate, Root: w.t.TempDir(), Site: w.site, Blobs: w.blobs, Accounts: w.blobs, Roles: w.roles, Vaults: w.roles,
		Runs: w.runs, Sandboxes: w.boxes, Tokens: w.roles, Applications: w.roles, Metadata: endpoints{}, People: w.people, Around: w.roles, Machine: Machine{CPUs: 16, MemoryMB: 64 << 10},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.s = s
	w.server = &resource.Server{DB: w.db, Gate: w.gate, Now: time.Now, Site: w.site, Identities: w.roles}
	runner := &ops.Runner{Server: w.server}
	w.server.Wake = runner.Wake
	p := &gate.Plane{Name: "arm", Fold: true, Who: w.caller, Refuse: gate.RefuseARM}
	for _, k := range append([]*resource.Kind{resource.Subscription, resource.Group}, s.Kinds()...) {
		p.Routes = append(p.Routes, s.Guard(k, w.server.Routes(k))...)
	}
	p.Routes = append(p.Routes, s.Routes()...)
	ml := &gate.Plane{Name: "ml", Who: func(r *http.Request) (arm.Caller, error) {
		if c, ok, err := s.RunToken(r); ok {
			return c, err
		}
		return w.caller(r)
	}, Refuse: gate.RefuseARM, Routes: s.MLRoutes(w.server)}
	w.mu.Lock()
	w.planes = []*gate.Plane{p, ml}
	w.mu.Unlock()
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, run := range []func(context.Context) error{runner.Run, s.Run} {
		wg.Go(func() {
			if err := run(ctx); err != nil {
				w.t.Error(err)
			}
		})
	}
	w.stop = func() { stop(); wg.Wait(); w.stop = nil }
}

func (w *world) caller(r *http.Request) (arm.Caller, error) {
	raw, _ := bearer(r)
	w.mu.Lock()
	defer w.mu.Unlock()
	if c, ok := w.who[raw]; ok {
		return c, nil
	}
	return arm.Caller{}, arm.Errorf(arm.Unauthenticated, "nobody knows this token")
}

func (w *world) handle(rw http.ResponseWriter, r *http.Request) {
	r = r.WithContext(gate.From(r.Context(), r.Header.Get("test-inside"))) // as the edge inside a sandbox does
	w.mu.Lock()
	planes := w.planes
	w.mu.Unlock()
	for _, p := range planes {
		rt, v, _, err := p.Match(r.Method, r.URL.EscapedPath())
		if err == nil && rt.Method != "" {
			w.gate.Serve(p, rt, v, rw, r)
			return
		}
	}
	http.Error(rw, "no route", 404)
}

// seed puts in what others make: groups, accounts, a vault, an identity.
func (w *world) seed() {
	err := w.db.Do(context.Background(), func(tx *store.Tx) error {
		for id, p := range map[string]string{
			sub: `{}`, group: `{"provisioningState":"Succeeded"}`, other: `{}`, account1: `{}`, account2: `{}`,
			vault1: `{"enableRbacAuthorization":true}`, uai1: `{}`,
		} {
			d := &resource.Doc{ID: arm.MustID(id), Name: arm.MustID(id).Name(), Type: arm.MustID(id).Type(), Location: "local", Properties: []byte(p)}
			if err := resource.Save(tx, d); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// do sends a request and wants a status; 0 takes any.
func (w *world) do(who, method, path, body string, want int) (int, map[string]any) {
	w.t.Helper()
	if !strings.Contains(path, "api-version=") {
		sep := "?"
		if strings.Contains(path, "?") {
			sep = "&"
		}
		path += sep + "api-version=" + resource.VersionFor(path)
	}
	req, err := http.NewRequest(method, w.srv.URL+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+who)
	req.Header.Set("test-inside", w.inside)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	if want != 0 && resp.StatusCode != want {
		w.t.Fatalf("%s %s %s = %d, want %d: %s", method, path, body, resp.StatusCode, want, b)
	}
	out := map[string]any{}
	_ = json.Unmarshal(b, &out) // an empty answer stays empty
	return resp.StatusCode, out
}

// refused is the code and message of a refusal.
func (w *world) refused(who, method, path, body string, want int) (code, message string) {
	w.t.Helper()
	_, out := w.do(who, method, path, body, want)
	e, _ := out["error"].(map[string]any)
	code, _ = e["code"].(string)
	message, _ = e["message"].(string)
	return code, message
}

func workspaceBody(account, vault string) string {
	return fmt.Sprintf(`{"location":"local","properties":{"storageAccount":%q,"keyVault":%q}}`, account, vault)
}

// workspace makes a workspace and waits until it is there.
func (w *world) workspace(id string) {
	w.t.Helper()
	w.do("olga", "PUT", id, workspaceBody(account1, vault1), 202)
	w.until("the workspace is made", func() bool {
		_, d := w.do("olga", "GET", id, "", 200)
		state, _ := dig(d, "properties", "provisioningState").(string)
		if state == "Failed" {
			w.t.Fatalf("the workspace failed")
		}
		return state == "Succeeded"
	})
}

func (w *world) cluster(name, extra string) {
	w.t.Helper()
	w.do("olga", "PUT", ws+"/computes/"+name, `{"location":"local",`+extra+`"properties":{"computeType":"AmlCompute","properties":{"vmSize":"Standard_DS1_v2","scaleSettings":{"maxNodeCount":2,"minNodeCount":0}}}}`, 201)
}

const systemIdentity = `"identity":{"type":"SystemAssigned"},`

// job submits a job.
func (w *world) job(name, props string) {
	w.t.Helper()
	w.do("olga", "PUT", ws+"/jobs/"+name, jobBody(props), 201)
}

func jobBody(props string) string {
	return `{"properties":{"jobType":"Command","environmentId":"azureml:host@latest","computeId":"` + ws + `/computes/cpu",` + props + `}}`
}

func (w *world) status(name string) string {
	w.t.Helper()
	_, d := w.do("olga", "GET", ws+"/jobs/"+name, "", 200)
	s, _ := dig(d, "properties", "status").(string)
	return s
}

// ends waits for a job's end.
func (w *world) ends(name, want string) {
	w.t.Helper()
	got := ""
	w.until("job "+name+" is over", func() bool {
		got = w.status(name)
		return Status(got).Over()
	})
	if got != want {
		r := w.runs.get(name)
		w.t.Fatalf("job %s = %s (%s), want %s; log: %s", name, got, r.failure, want, r.artifacts[stdLog])
	}
	w.until("history knows", func() bool { return string(w.runs.get(name).status) == want })
}

func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			w.t.Fatalf("waited in vain until %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func dig(v any, path ...string) any {
	for _, p := range path {
		m, _ := v.(map[string]any)
		v = m[p]
	}
	return v
}

// blobs keeps blobs in memory and lets in who has a role on the account.
type blobs struct {
	w     *world
	mu    sync.Mutex
	made  map[string]map[string][]byte // by account key|container
	asked []string                     // who asked, with what
}

const clientSecret = "secret-of-app1~"

const accountKey = "c2VjcmV0LWtleS1vZi10aGUtYWNjb3VudA=="

// admit lets in by role or by key, as the blob plane does.
func (b *blobs) admit(by Access, account arm.ID, verb string) error {
	b.asked = append(b.asked, verb+" "+by.As.Object)
	if !by.Key.IsZero() {
		if string(by.Key.Reveal()) != accountKey {
			return arm.Errorf(arm.Forbidden, "wrong key")
		}
		return nil
	}
	if !by.SAS.IsZero() {
		return nil
	}
	if by.As.IsZero() {
		b.w.t.Error("blobs: nobody asks")
	}
	if by.As.Lease != nil {
		return arm.Errorf(arm.Forbidden, "a lease of %s opens no blobs", by.As.Object)
	}
	if !b.w.roles.has(by.As.Object, roleBlobContributor, account) {
		return arm.Errorf(arm.Forbidden, "%s has no role on %s", by.As.Object, account.Name())
	}
	return nil
}

func (b *blobs) place(account arm.ID, container string) string {
	return account.Key() + "|" + container
}

func (b *blobs) Ensure(_ context.Context, by Access, account arm.ID, container string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.admit(by, account, "ensure"); err != nil {
		return err
	}
	if b.made[b.place(account, container)] == nil {
		b.made[b.place(account, container)] = map[string][]byte{}
	}
	return nil
}

func (b *blobs) List(_ context.Context, by Access, account arm.ID, container, prefix string, limit int) ([]Blob, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.admit(by, account, "list"); err != nil {
		return nil, err
	}
	c := b.made[b.place(account, container)]
	if c == nil {
		return nil, arm.Errorf(arm.NotFound, "the container %s does not exist", container)
	}
	var out []Blob
	for n, v := range c {
		if strings.HasPrefix(n, prefix) {
			out = append(out, Blob{n, int64(len(v))})
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	if len(out) > limit {
		return nil, arm.Errorf(arm.TooLarge, "more than %d blobs", limit)
	}
	return out, nil
}

func (b *blobs) Open(_ context.Context, by Access, account arm.ID, container, blob string) (io.ReadCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.admit(by, account, "open"); err != nil {
		return nil, err
	}
	v, ok := b.made[b.place(account, container)][blob]
	if !ok {
		return nil, arm.Errorf(arm.NotFound, "the blob %s does not exist", blob)
	}
	return io.NopCloser(bytes.NewReader(bytes.Clone(v))), nil
}

func (b *blobs) Write(_ context.Context, by Access, account arm.ID, container, blob string, r io.Reader, size int64) error {
	v, err := io.ReadAll(r)
	if err != nil || int64(len(v)) != size {
		b.w.t.Errorf("Write of %s: %d bytes for %d, %v", blob, len(v), size, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.admit(by, account, "write"); err != nil {
		return err
	}
	if b.made[b.place(account, container)] == nil {
		return arm.Errorf(arm.NotFound, "the container %s does not exist", container)
	}
	b.made[b.place(account, container)][blob] = v
	return nil
}

func (b *blobs) Key(_ context.Context, as arm.Caller, account arm.ID) (arm.Secret, error) {
	if d := b.w.engine.Decide(as, arm.NewAction("Microsoft.Storage/storageAccounts/listkeys/action", ""), account); !d.Allowed && !b.w.roles.has(as.Object, roleAIAdministrator, account.Group()) {
		return arm.Secret{}, arm.Errorf(arm.Forbidden, "%s may not list keys", as.Object)
	}
	return arm.NewSecret([]byte(accountKey)), nil
}

func (b *blobs) Sign(_ context.Context, as arm.Caller, account arm.ID, container, permissions string, until time.Time) (arm.Secret, error) {
	if time.Until(until) > time.Hour {
		return arm.Secret{}, arm.Errorf(arm.BadRequest, "the signature must end within an hour")
	}
	if !b.w.roles.has(as.Object, roleBlobContributor, account) {
		return arm.Secret{}, arm.Errorf(arm.Forbidden, "%s may not sign", as.Object)
	}
	return arm.NewSecret([]byte("sr=c&sp=" + permissions + "&sig=x")), nil
}

// put is a blob that came by another way.
func (b *blobs) put(account, container, name, content string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := b.place(arm.MustID(account), container)
	if b.made[at] == nil {
		b.made[at] = map[string][]byte{}
	}
	b.made[at][name] = []byte(content)
}

// roles are assignments, access policies and identities.
type roles struct {
	w       *world
	mu      sync.Mutex
	given   map[string]bool // principal|role|scope
	policy  map[string]bool
	ids     map[string]string
	secrets map[string][]arm.Secret // of all vaults
	tags    map[string]map[string]string
	anew    string // set once user-assigned identities were deleted and made anew
}

func (r *roles) key(principal, role string, scope arm.ID) string {
	return principal + "|" + role + "|" + scope.Key()
}

func (r *roles) has(principal, role string, scope arm.ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.given[r.key(principal, role, scope)]
}

func (r *roles) leased(as arm.Caller, a string, scope arm.ID) {
	if as.Lease == nil || as.Lease.Scope.Key() != scope.Key() || len(as.Lease.Actions) != 1 || as.Lease.Actions[0].Name() != a {
		r.w.t.Errorf("the worker comes with the lease %+v, want one for %s on %s alone", as.Lease, a, scope)
	}
}

func (r *roles) Assign(_ context.Context, as arm.Caller, principal, role string, scope arm.ID) error {
	r.leased(as, "Microsoft.Authorization/roleAssignments/write", scope)
	r.add(principal, role, scope)
	return nil
}

func (r *roles) Has(principal, role string, scope arm.ID) bool { return r.has(principal, role, scope) }

func (r *roles) add(principal, role string, scope arm.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if principal == "" {
		r.w.t.Error("a role for nobody")
	}
	if r.given == nil {
		r.given = map[string]bool{}
	}
	r.given[r.key(principal, role, scope)] = true
}

func (r *roles) take(principal, role string, scope arm.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.given, r.key(principal, role, scope))
}

func (r *roles) Unassign(_ context.Context, as arm.Caller, principal, role string, scope arm.ID) error {
	r.leased(as, "Microsoft.Authorization/roleAssignments/delete", scope)
	r.take(principal, role, scope)
	return nil
}

func (r *roles) Allow(_ context.Context, as arm.Caller, vault arm.ID, principal string) error {
	r.leased(as, "Microsoft.KeyVault/vaults/accessPolicies/write", vault)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.policy == nil {
		r.policy = map[string]bool{}
	}
	r.policy[principal+"|"+vault.Key()] = true
	return nil
}

func (r *roles) Allows(vault arm.ID, principal string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.policy[principal+"|"+vault.Key()]
}

func (r *roles) vaultFor(as arm.Caller, vault arm.ID) error {
	if !r.has(as.Object, roleVaultAdmin, vault) && !r.Allows(vault, as.Object) {
		return arm.Errorf(arm.Forbidden, "%s may not touch the vault's secrets", as.Object)
	}
	return nil
}

func (r *roles) Keep(_ context.Context, as arm.Caller, vault arm.ID, x VaultSecret) (string, error) {
	name := x.Name
	if err := r.vaultFor(as, vault); err != nil {
		return "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.secrets == nil {
		r.secrets = map[string][]arm.Secret{}
	}
	r.secrets[name] = append(r.secrets[name], x.Value)
	if r.tags == nil {
		r.tags = map[string]map[string]string{}
	}
	r.tags[name] = x.Tags
	return fmt.Sprint(len(r.secrets[name])), nil
}

func (r *roles) Kept(_ context.Context, as arm.Caller, vault arm.ID, name, version string) (arm.Secret, error) {
	if err := r.vaultFor(as, vault); err != nil {
		return arm.Secret{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, v := range r.secrets[name] {
		if fmt.Sprint(i+1) == version {
			return v, nil
		}
	}
	return arm.Secret{}, arm.Errorf("SecretNotFound", "there is no secret %s", name)
}

func (r *roles) Discard(_ context.Context, as arm.Caller, vault arm.ID, name string) error {
	if err := r.vaultFor(as, vault); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.secrets, name)
	return nil
}

// Prove knows one application, app1 of tenant-1, by one secret.
func (r *roles) Prove(_ context.Context, tenant, client string, secret, certificate arm.Secret) (arm.Caller, error) {
	if tenant != "tenant-1" || client != "app1" || string(secret.Reveal()) != clientSecret || !certificate.IsZero() {
		return arm.Caller{}, arm.Errorf(arm.Unauthenticated, "AADSTS7000215: Invalid client secret provided.")
	}
	return arm.Caller{Tenant: tenant, Object: "sp1", Name: "sp1", Kind: arm.ServicePrincipal}, nil
}

func (r *roles) Secrets(_ context.Context, as arm.Caller, vault arm.ID, _ string) (out []VaultSecret, next string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range r.secrets {
		out = append(out, VaultSecret{Name: name, Tags: r.tags[name]})
	}
	return out, "", nil
}

func (r *roles) Secret(ctx context.Context, as arm.Caller, vault arm.ID, name string) (VaultSecret, error) {
	r.mu.Lock()
	newest, tags := fmt.Sprint(len(r.secrets[name])), r.tags[name]
	r.mu.Unlock()
	value, err := r.Kept(ctx, as, vault, name, newest)
	return VaultSecret{Name: name, Value: value, Tags: tags}, err
}

func (r *roles) Recoverable(*store.Tx, arm.ID) (time.Time, error) { return time.Time{}, nil }

func (r *roles) Locks(*store.Tx, arm.ID) ([]Lock, error) { return nil, nil }

func (r *roles) Support(arm.ID) []Support { return nil }

func (r *roles) Ensure(_ *store.Tx, of arm.ID, name string) (string, string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ids == nil {
		r.ids = map[string]string{}
	}
	r.ids[of.Key()] = name
	return principalOf(of), "tenant-1", nil
}

func principalOf(of arm.ID) string { return "mi:" + of.Key() }

func (r *roles) Drop(_ *store.Tx, of arm.ID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.ids, of.Key())
	return nil
}

func (r *roles) UserAssigned(_ *store.Tx, id arm.ID) (string, string, bool, error) {
	return principalOf(id) + r.anew, "client:" + id.Name() + r.anew, strings.EqualFold(id.String(), uai1), nil
}

func (r *roles) Managed(_ context.Context, as arm.Caller, of arm.ID, audience, sandbox string) (arm.Secret, string, time.Time, error) {
	r.leased(as, "Castellan.Identity/managedIdentities/mint/action", of)
	if audience != "https://storage.azure.com" {
		return arm.Secret{}, "", time.Time{}, arm.Errorf(arm.BadRequest, "unknown audience %q", audience)
	}
	client := "client:" + of.Name() + r.anew
	if sandbox != "" {
		client += " in " + sandbox
	}
	return arm.NewSecret([]byte("token of " + principalOf(of))), client, time.Now().Add(time.Hour), nil
}

func (r *roles) Client(_ arm.ID, principal string) string { return "client of " + principal }

func (endpoints) Instance(token TokenFunc, _ map[string]any) http.Handler {
	return http.NotFoundHandler()
}

func (endpoints) Lent(token LentFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		t, _, _, err := token(q.Context(), q.URL.Query().Get("resource"))
		if err != nil {
			http.Error(w, err.Error(), 400)
			return
		}
		w.Write(t.Reveal())
	})
}

// endpoints tell tokens in a form of the tests' own.
type endpoints struct{}

// people lend identities, and complain if it is done for anything but a live loan.
type people struct {
	w    *world
	mu   sync.Mutex
	lent map[string]Loan
	gone error // why nobody may sign in any more
	made int   // tokens
}

func (p *people) Lend(l Loan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.ID == "" || l.SignIn.Family == "" || l.Sandbox == "" {
		p.w.t.Errorf("a loan of %+v", l)
	}
	p.lent[l.ID] = l
}

func (p *people) Recall(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.lent, id)
}

func (p *people) Known(tenant, object string) (arm.Caller, error) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return p.w.who[object], p.gone
}

// count is how many loans live, and how many tokens were lent.
func (p *people) count() (loans, tokens int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.lent), p.made
}

func (p *people) leave(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = why
}

func (p *people) Lender(l Loan) (arm.Caller, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	if p.gone != nil {
		return arm.Caller{}, p.gone
	}
	c := p.w.who[l.User]
	if c.SignIn.Family != l.SignIn.Family {
		p.w.t.Errorf("the loan %+v is of another sign-in than %s's", l, l.User)
	}
	c.SignIn = arm.SignIn{}
	return c, nil
}

func (p *people) Token(_ context.Context, as arm.Caller, job arm.ID, loan, audience string) (arm.Secret, string, time.Time, error) {
	p.w.roles.leased(as, "Castellan.Identity/users/lend/action", job)
	p.mu.Lock()
	defer p.mu.Unlock()
	l, ok := p.lent[loan]
	if !ok || as.Lease.Item != loan {
		return arm.Secret{}, "", time.Time{}, arm.Errorf(arm.Forbidden, "no loan")
	}
	p.made++
	return arm.NewSecret([]byte("token of " + l.User + " for " + audience)), "jobs", time.Now().Add(time.Hour), nil
}

func (endpoints) Managed(secret arm.Secret, token TokenFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.Header.Get("secret") != string(secret.Reveal()) || secret.IsZero() {
			http.Error(w, "wrong secret", http.StatusUnauthorized)
			return
		}
		v := q.URL.Query()
		t, client, _, err := token(q.Context(), v.Get("resource"), v.Get("clientid"), v.Get("object_id"), v.Get("mi_res_id"))
		if err != nil {
			http.Error(w, err.Error(), 400)
			return
		}
		fmt.Fprintf(w, "%s as %s", t.Reveal(), client)
	})
}

// runs is history, as it is told.
type runs struct {
	w    *world
	mu   sync.Mutex
	runs map[string]*pastRun
}

type pastRun struct {
	Run
	status    Status
	passed    []Status
	failure   string
	props     map[string]string
	artifacts map[string]string
}

func (r *runs) check(as arm.Caller, workspace arm.ID, run string) {
	if as.Lease == nil || as.Lease.Item != run || as.Lease.Scope.Key() != workspace.Key() {
		r.w.t.Errorf("history of %s is written with the lease %+v", run, as.Lease)
	}
}

func (r *runs) get(run string) pastRun {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.runs[run]; p != nil {
		c := *p
		c.artifacts = map[string]string{}
		for k, v := range p.artifacts {
			c.artifacts[k] = v
		}
		return c
	}
	return pastRun{}
}

func (r *runs) Create(_ context.Context, as arm.Caller, workspace arm.ID, n Run) (string, error) {
	r.check(as, workspace, n.ID)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.runs[n.ID] == nil {
		r.runs[n.ID] = &pastRun{Run: n, artifacts: map[string]string{}, props: map[string]string{}}
	}
	return "exp-" + n.Experiment, nil
}

func (r *runs) Update(_ context.Context, as arm.Caller, workspace arm.ID, run string, u Update) error {
	r.check(as, workspace, run)
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.runs[run]
	if p == nil {
		return arm.Errorf(arm.NotFound, "no run %s", run)
	}
	if p.status.Over() {
		return nil
	}
	if u.Status != "" {
		p.status, p.passed = u.Status, append(p.passed, u.Status)
	}
	if u.Error != "" {
		p.failure = u.Error
	}
	for k, v := range u.Properties {
		p.props[k] = v
	}
	return nil
}

func (r *runs) Append(_ context.Context, as arm.Caller, workspace arm.ID, run, path string, data []byte) error {
	r.check(as, workspace, run)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.runs[run].artifacts[path] += string(data)
	return nil
}

func (r *runs) Put(_ context.Context, as arm.Caller, workspace arm.ID, run, path string, content io.Reader, size int64) error {
	r.check(as, workspace, run)
	b, err := io.ReadAll(content)
	if err != nil || int64(len(b)) != size {
		r.w.t.Errorf("Put of %s: %d bytes for %d, %v", path, len(b), size, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.runs[run].artifacts[path] = string(b)
	return nil
}

// boxes runs tasks for real, without a sandbox around them.
type boxes struct {
	w         *world
	mu        sync.Mutex
	tasks     []Task
	forgotten atomic.Int32  // keys of folders
	hang      chan struct{} // if set, Run waits for it before it starts anything
	plain     atomic.Bool   // folders have no keys
}

func (b *boxes) Sealed() bool { return !b.plain.Load() }

// Seal wants an empty folder, and to be told once it was wiped.
func (b *boxes) Seal(dir string) (string, func() error, error) {
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		b.w.t.Errorf("Seal of %s: it has %d entries, %v", dir, len(left), err)
	}
	return "key", func() error {
		if _, err := os.Lstat(dir); !os.IsNotExist(err) {
			b.w.t.Errorf("the key of %s is forgotten before it is wiped: %v", dir, err)
		}
		b.forgotten.Add(1)
		return nil
	}, nil
}

func (b *boxes) Inside(path string) string  { return path }
func (b *boxes) Address(name string) string { return "{{" + name + "}}" }

func (b *boxes) Run(ctx context.Context, t Task, begun func(string)) (Ended, error) {
	b.mu.Lock()
	b.tasks = append(b.tasks, t)
	hang := b.hang
	b.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return Ended{}, ctx.Err()
		}
	}
	for _, f := range append([]string{t.Work}, t.ReadOnly...) {
		if rel, err := filepath.Rel(t.Dir, f); err != nil || !filepath.IsLocal(rel) {
			b.w.t.Errorf("task %s names %s, which is not in its folder %s", t.Name, f, t.Dir)
		}
	}
	env := append([]string{}, t.Env...)
	for name, h := range t.Listeners {
		srv := httptest.NewServer(h)
		defer srv.Close()
		for i := range env {
			env[i] = strings.ReplaceAll(env[i], b.Address(name), strings.TrimPrefix(srv.URL, "http://"))
		}
	}
	if t.Timeout > 0 {
		var stop func()
		ctx, stop = context.WithTimeout(ctx, t.Timeout)
		defer stop()
	}
	cmd := exec.CommandContext(ctx, t.Command[0], t.Command[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = t.Work, env, t.Log, t.Log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return Ended{}, err
	}
	begun("none")
	err := cmd.Wait()
	e := Ended{Tier: "none", Code: cmd.ProcessState.ExitCode(), Details: map[string]string{"enforced": "nothing"}}
	switch {
	case ctx.Err() == context.DeadlineExceeded:
		e.TimedOut = true
	case ctx.Err() != nil:
		e.Canceled = true
	case err != nil && e.Code < 0:
		e.Reason = err.Error()
	}
	return e, nil
}

func (b *boxes) last() Task {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.tasks[len(b.tasks)-1]
}

func envOf(t Task, name string) string {
	for _, e := range t.Env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}

// scratch is what is left in the folder of jobs.
func (w *world) scratch() []string {
	all, err := os.ReadDir(w.s.Root)
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, e := range all {
		out = append(out, e.Name())
	}
	return out
}

func jsonText(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}
