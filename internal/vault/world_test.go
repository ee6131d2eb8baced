package vault

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/gate"
	"castellan/internal/rbac"
	"castellan/internal/resource"
	"castellan/internal/seal"
	"castellan/internal/store"
)

const (
	tenant = "11111111-1111-1111-1111-111111111111"
	sub    = "22222222-2222-2222-2222-222222222222"
	rg     = "/subscriptions/" + sub + "/resourceGroups/rg"
	vaults = rg + "/providers/Microsoft.KeyVault/vaults/"

	owner  = "00000000-0000-0000-0000-00000000000a"
	reader = "00000000-0000-0000-0000-00000000000b"
	contri = "00000000-0000-0000-0000-00000000000c"
	user   = "00000000-0000-0000-0000-00000000000d"
	office = "00000000-0000-0000-0000-00000000000e"
	nobody = "00000000-0000-0000-0000-00000000000f"
)

// world is vaults behind the real gate, real roles and a real store; who asks
// is what the Authorization header says.
type world struct {
	t     *testing.T
	dir   string
	root  seal.Key
	db    *store.DB
	log   *audit.Log
	gate  *gate.Gate
	roles *rbac.Engine
	v     *Service
	srv   *httptest.Server

	mu  sync.Mutex // guards now
	now time.Time
}

func (w *world) clock() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.now }

func (w *world) pass(d time.Duration) { w.mu.Lock(); w.now = w.now.Add(d); w.mu.Unlock() }

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), root: seal.Random(), now: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC), roles: rbac.New(rbac.BuiltIn())}
	w.start()
	t.Cleanup(w.stop)
	w.must(w.db.Do(t.Context(), func(tx *store.Tx) error {
		for _, d := range []*resource.Doc{{ID: arm.MustID("/subscriptions/" + sub), Name: sub, Type: resource.Subscription.Type}, {ID: arm.MustID(rg), Name: "rg", Type: resource.Group.Type}} {
			if err := resource.Save(tx, d); err != nil {
				return err
			}
		}
		return nil
	}))
	w.give(owner, "Owner", "/subscriptions/"+sub)
	w.give(reader, "Reader", "/subscriptions/"+sub)
	w.give(contri, "Key Vault Contributor", "/subscriptions/"+sub)
	w.give(user, "Key Vault Secrets User", "/subscriptions/"+sub)
	w.give(office, "Key Vault Secrets Officer", "/subscriptions/"+sub)
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) give(who, role, scope string) {
	w.t.Helper()
	for _, r := range w.roles.Roles() {
		if r.Name == role {
			w.must(w.roles.PutAssignment(rbac.Assignment{ID: scope + "/providers/Microsoft.Authorization/roleAssignments/" + arm.NewHex(), Scope: arm.MustID(scope), RoleID: r.ID, Principal: who}))
			return
		}
	}
	w.t.Fatalf("there is no role %q", role)
}

func (w *world) start() {
	t := w.t
	t.Helper()
	var err error
	w.db, err = store.Open(w.dir, w.root)
	w.must(err)
	w.log = audit.New(w.db, w.clock)
	who := func(r *http.Request) (arm.Caller, error) {
		name, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok {
			return arm.Caller{}, arm.Errorf(arm.Unauthenticated, "there is no bearer token")
		}
		object, app, _ := strings.Cut(name, "@")
		object, group, _ := strings.Cut(object, "+")
		c := arm.Caller{Object: object, Tenant: tenant, App: app, Kind: arm.User, Name: object, Token: "access"}
		if group != "" {
			c.Groups = []string{group}
		}
		return c, nil
	}
	site := arm.Site{Suffix: "castellan.localhost", Tenant: tenant, Subscription: sub, Location: "local"}
	may := func(c arm.Caller, a arm.Action, id arm.ID) bool { return w.roles.Decide(c, a, id).Allowed }
	w.gate = gate.New(func(c arm.Caller, a arm.Action, on gate.Target) (bool, string) {
		if handled, ok, why := w.v.Decide(c, a, on.ID); handled {
			return ok, why
		}
		d := w.roles.Decide(c, a, on.ID)
		return d.Allowed, d.Reason
	}, w.log)
	w.v, err = New(Config{DB: w.db, Gate: w.gate, Log: slog.New(slog.DiscardHandler), Root: w.root, Site: site, Now: w.clock, Who: who, May: may})
	w.must(err)
	rs := &resource.Server{DB: w.db, Gate: w.gate, Now: w.clock, Site: site}
	armPlane := &gate.Plane{Name: "arm", Fold: true, Who: who, Refuse: gate.RefuseARM, Routes: w.v.Routes()}
	for _, k := range append([]*resource.Kind{resource.Subscription, resource.Group}, w.v.Kinds()...) {
		armPlane.Routes = append(armPlane.Routes, rs.Routes(k)...)
	}
	plane := w.v.Plane()
	w.srv = httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		p := armPlane
		if plane.Host(r.Host) {
			p = plane
		}
		rt, v, _, err := p.Match(r.Method, r.URL.EscapedPath())
		if err == nil && rt.Method == "" {
			err = arm.Errorf(arm.NotFound, "nothing is there")
		}
		if err != nil {
			p.Refuse(rw, r, err)
			return
		}
		w.gate.Serve(p, rt, v, rw, r)
	}))
	w.srv.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return gate.FromPeer(ctx, c.RemoteAddr()) }
	w.srv.Start()
}

func (w *world) stop() {
	w.srv.Close()
	_ = w.log.Close() // some tests break the store on purpose
	w.db.Close()
}

// reply is an answer, read.
type reply struct {
	code   int
	header http.Header
	text   string
	body   map[string]any
}

func (r reply) str(path ...string) string {
	var x any = r.body
	for _, p := range path {
		m, _ := x.(map[string]any)
		x = m[p]
	}
	if x == nil {
		return ""
	}
	return fmt.Sprint(x)
}

// do sends a request; a path with a host is for the data plane of that vault.
func (w *world) do(who, method, path, body string, want int) reply {
	w.t.Helper()
	host := "castellan.localhost"
	if rest, ok := strings.CutPrefix(path, "vault:"); ok {
		name, p, _ := strings.Cut(rest, "/")
		host, path = name+".vault.castellan.localhost", "/"+p
		if !strings.Contains(path, "api-version") && !strings.Contains(path, "api%2Dversion") {
			path += sep(path) + "api-version=7.5"
		}
	} else if !strings.Contains(path, "api-version") {
		path += sep(path) + "api-version=2023-07-01"
	}
	req, err := http.NewRequest(method, w.srv.URL+path, strings.NewReader(body))
	w.must(err)
	req.Host = host
	if who != "" {
		req.Header.Set("Authorization", "Bearer "+who)
	}
	res, err := w.srv.Client().Do(req)
	w.must(err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	w.must(err)
	out := reply{code: res.StatusCode, header: res.Header, text: string(b)}
	_ = json.Unmarshal(b, &out.body) // some answers have no body
	if res.StatusCode != want {
		w.t.Errorf("%s %s %s by %s = %d, want %d: %s", method, path, body, who, res.StatusCode, want, b)
	}
	return out
}

func sep(path string) string {
	if strings.Contains(path, "?") {
		return "&"
	}
	return "?"
}

// vaultBody is a vault with these properties besides the required ones.
func vaultBody(props string) string {
	if props != "" {
		props = "," + props
	}
	return `{"location":"local","properties":{"tenantId":"` + tenant + `","sku":{"family":"A","name":"standard"}` + props + `}}`
}

// policy is the access policies of a vault that policies decide for.
func policy(who, permissions string) string {
	return `"enableRbacAuthorization":false,"accessPolicies":[{"tenantId":"` + tenant + `","objectId":"` + who + `","permissions":{"secrets":[` + permissions + `]}}]`
}

// rows counts what lies in the tables.
func (w *world) rows(tables ...string) (n int) {
	w.t.Helper()
	w.must(w.db.View(w.t.Context(), func(tx *store.Tx) error {
		for _, t := range tables {
			r, err := tx.Scan(t, "", "", 0)
			if err != nil {
				return err
			}
			n += len(r)
		}
		return nil
	}))
	return n
}
