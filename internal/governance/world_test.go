package governance

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
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

// The people of the world, with what they have at its subscription.
const (
	olga  = "00000000-0000-0000-0000-0000000000a1" // Owner
	carl  = "00000000-0000-0000-0000-0000000000a2" // Contributor
	rita  = "00000000-0000-0000-0000-0000000000a3" // Reader
	dora  = "00000000-0000-0000-0000-0000000000a4" // AzureML Data Scientist at the workspace
	abel  = "00000000-0000-0000-0000-0000000000a5" // Role Based Access Control Administrator
	nora  = "00000000-0000-0000-0000-0000000000a6" // nothing
	bot   = "00000000-0000-0000-0000-0000000000b1" // a service principal with nothing
	team  = "00000000-0000-0000-0000-0000000000c1" // a group with nora in it
	above = "00000000-0000-0000-0000-0000000000c2" // a group with team in it
)

const (
	sub    = "/subscriptions/11111111-1111-1111-1111-111111111111"
	twin   = "/subscriptions/11111111-1111-1111-1111-111111111112"
	rg1    = sub + "/resourceGroups/rg1"
	rg10   = sub + "/resourceGroups/rg10"
	ws     = rg1 + "/providers/Microsoft.MachineLearningServices/workspaces/ws"
	tenant = "77777777-7777-7777-7777-777777777777"
	top    = "/providers/Microsoft.Management/managementGroups/" + tenant
	auth   = "/providers/Microsoft.Authorization/"
	owner  = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"
)

type world struct {
	*testing.T
	dir    string
	key    seal.Key
	db     *store.DB
	log    *audit.Log
	engine *rbac.Engine
	gate   *gate.Gate
	roles  *Service
	server *resource.Server
	plane  *gate.Plane
	people *people
	ids    map[string]string // role ids by name

	decided func(a arm.Action, id arm.ID) // called after every decision; may be nil
	fixed   time.Time                     // what time it is; zero: that of the machine
	broken  string                        // whose account is for emergencies
}

func (w *world) now() time.Time {
	if w.fixed.IsZero() {
		return time.Now()
	}
	return w.fixed
}

// people is a directory in memory; a principal is gone when its kind is "".
type people struct {
	mu    sync.Mutex // guards kinds
	kinds map[string]arm.Kind
	left  bool // nora has left her group
}

func (p *people) Principal(_ *store.Tx, _, id string) (arm.Kind, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.kinds[strings.ToLower(id)]
	return k, k != "", nil
}

func (p *people) Groups(_ *store.Tx, _, id string) ([]string, error) {
	switch strings.ToLower(id) {
	case nora:
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.left {
			return nil, nil
		}
		return []string{team, above}, nil
	case team:
		return []string{above}, nil
	}
	return nil, nil
}

var (
	wsKind   = &resource.Kind{Type: "Microsoft.MachineLearningServices/workspaces", Doc: "a workspace", Parent: resource.Group}
	compKind = &resource.Kind{Type: "Microsoft.MachineLearningServices/workspaces/computes", Doc: "a compute", Parent: wsKind}
)

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, dir: t.TempDir(), key: seal.Random(), ids: map[string]string{}, people: &people{kinds: map[string]arm.Kind{
		olga: arm.User, carl: arm.User, rita: arm.User, dora: arm.User, abel: arm.User, nora: arm.User,
		bot: arm.ServicePrincipal, team: arm.Group, above: arm.Group,
	}}}
	for _, r := range rbac.BuiltIn() {
		w.ids[r.Name] = r.ID
	}
	w.open()
	t.Cleanup(func() { w.close() })
	w.found()
	return w
}

// open starts the platform over the world's folder, as a restart does.
func (w *world) open() {
	w.Helper()
	var err error
	if w.db, err = store.Open(w.dir, w.key); err != nil {
		w.Fatal(err)
	}
	w.log = audit.New(w.db, w.now)
	w.engine = rbac.New(rbac.BuiltIn())
	w.gate = gate.New(func(c arm.Caller, a arm.Action, on gate.Target) (bool, string) {
		if handled, ok, why := w.roles.Decide(c, a, on); handled {
			return ok, why
		}
		d := w.engine.DecideWith(c, a, on.ID, on.Attributes)
		if w.decided != nil {
			w.decided(a, on.ID)
		}
		return d.Allowed, d.Reason
	}, w.log)
	site := arm.Site{Suffix: "test", Tenant: "77777777-7777-7777-7777-777777777777", Location: "local", Tenancy: &arm.Tenancy{}}
	site.Tenancy.AddTenant(site.Tenant)
	for _, id := range []string{sub, twin} {
		site.Tenancy.Put(strings.TrimPrefix(id, "/subscriptions/"), site.Tenant)
	}
	w.gate.Site, w.gate.Inside = site, w.engine.Inside
	if w.roles, err = New(Config{DB: w.db, Log: w.log, Gate: w.gate, Known: w.known, Members: w.people.members, Actions: w.actions, Engine: w.engine, Directory: w.people, Site: site, Now: w.now,
		BreakGlass: func(_ *store.Tx, _, id string) (bool, error) { return id == w.broken, nil }}); err != nil {
		w.Fatal(err)
	}
	w.gate.Locks = &gate.Locks{DB: w.db, Holding: w.roles.Holding}
	if err := w.roles.Load(w.Context()); err != nil {
		w.Fatal(err)
	}
	w.server = &resource.Server{DB: w.db, Gate: w.gate, Now: time.Now, Site: site}
	w.server.OnRemove = append(w.server.OnRemove, w.roles.DropScope)
	w.plane = &gate.Plane{Name: "arm", Fold: true, Refuse: gate.RefuseARM, Who: w.who, Routes: w.roles.Routes()}
	for _, k := range []*resource.Kind{resource.Subscription, resource.Group, wsKind, compKind} {
		w.plane.Routes = append(w.plane.Routes, w.server.Routes(k)...)
	}
	for _, r := range w.plane.Routes {
		if !r.Valid() {
			w.Errorf("the door %s %s is not valid", r.Method, r.Pattern)
		}
	}
}

func (w *world) close() {
	_ = w.log.Close()
	w.db.Close()
}

func (w *world) restart() { w.close(); w.open() }

func (w *world) who(r *http.Request) (arm.Caller, error) {
	id := r.Header.Get("x-who")
	groups, _ := w.people.Groups(nil, "", id)
	c := arm.Caller{Tenant: tenant, Object: id, Kind: arm.User, Groups: groups, Token: "access", AMR: strings.Fields(r.Header.Get("x-amr")), ACRS: strings.Fields(r.Header.Get("x-amr"))}
	if id == bot {
		c.Kind = arm.ServicePrincipal
	}
	return c, nil
}

func (p *people) members(_, group string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case group == above:
		return []string{team}
	case group == team && !p.left:
		return []string{nora}
	}
	return nil
}

// known is somebody as who knows them; nobody without a kind.
func (w *world) known(_, object string) (arm.Caller, error) {
	kind, ok, _ := w.people.Principal(nil, "", object)
	if !ok || kind == arm.Group {
		return arm.Caller{}, errors.New("nobody signs in as them")
	}
	groups, _ := w.people.Groups(nil, "", object)
	return arm.Caller{Tenant: tenant, Object: object, Kind: kind, Groups: groups, Token: "access"}, nil
}

func (w *world) actions() (out []arm.Action) {
	for _, r := range w.plane.Routes {
		if !slices.Contains(out, r.Action) {
			out = append(out, r.Action)
		}
	}
	return out
}

// found makes the subscriptions, the groups, the workspace and the first roles.
func (w *world) found() {
	w.Helper()
	err := w.db.Do(w.Context(), func(tx *store.Tx) error {
		for _, d := range []resource.Doc{
			{ID: arm.MustID(sub), Type: resource.Subscription.Type}, {ID: arm.MustID(twin), Type: resource.Subscription.Type},
			{ID: arm.MustID(rg1), Type: resource.Group.Type, Location: "local"}, {ID: arm.MustID(rg10), Type: resource.Group.Type, Location: "local"},
			{ID: arm.MustID(ws), Type: wsKind.Type, Location: "local"},
		} {
			d.Name, d.Properties = d.ID.Name(), json.RawMessage("{}")
			if err := resource.Save(tx, &d); err != nil {
				return err
			}
		}
		for _, x := range [][3]string{
			{olga, "Owner", sub}, {carl, "Contributor", sub}, {rita, "Reader", sub},
			{dora, "AzureML Data Scientist", ws}, {abel, "Role Based Access Control Administrator", rg1},
		} {
			a := rbac.Assignment{Principal: x[0], RoleID: w.ids[x[1]], Scope: arm.MustID(x[2])}
			if err := w.roles.Assign(tx, a, arm.Caller{Tenant: tenant, Object: "setup"}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		w.Fatal(err)
	}
}

// do sends a request as somebody and reads the answer; want 0 takes any status.
func (w *world) do(who, method, path, body string, want int) map[string]any {
	w.Helper()
	code, out := w.send(who, method, path, body)
	if want != 0 && code != want {
		w.Errorf("%s: %s %s %s = %d, want %d: %v", who[32:], method, path, body, code, want, out)
	}
	return out
}

func (w *world) send(who, method, path, body string) (int, map[string]any) {
	w.Helper()
	mark := "?"
	if strings.Contains(path, "?") {
		mark = "&"
	}
	req := httptest.NewRequest(method, "http://test"+strings.ReplaceAll(path, " ", "%20")+mark+"api-version="+resource.VersionFor(path), strings.NewReader(body))
	who, amr, _ := strings.Cut(who, " ")
	req.Header.Set("x-who", who)
	req.Header.Set("x-amr", amr)
	rec := httptest.NewRecorder()
	rt, v, _, err := w.plane.Match(method, req.URL.EscapedPath())
	switch {
	case err != nil:
		gate.RefuseARM(rec, req, err)
	case rt.Method == "":
		rec.WriteHeader(http.StatusNotFound)
	default:
		w.gate.Serve(w.plane, rt, v, rec, req)
	}
	out := map[string]any{}
	if rec.Body.Len() > 0 {
		if err := json.Unmarshal(rec.Body.Bytes(), &out); err != nil {
			w.Errorf("%s %s answered %q", method, path, rec.Body)
		}
	}
	return rec.Code, out
}

// code is the error code of an answer, or "".
func code(out map[string]any) string {
	e, _ := out["error"].(map[string]any)
	return fmt.Sprint(e["code"])
}

// names are the values of a property of the rows of a list.
func names(out map[string]any, property string) (list []string) {
	rows, _ := out["value"].([]any)
	for _, r := range rows {
		p, _ := r.(map[string]any)["properties"].(map[string]any)
		list = append(list, fmt.Sprint(p[property]))
	}
	return list
}

// give is the body that gives a role, by its name or GUID, to a principal.
func (w *world) give(role, principal string) string {
	if id, ok := w.ids[role]; ok {
		role = id
	}
	return fmt.Sprintf(`{"properties":{"roleDefinitionId":%q,"principalId":%q}}`, sub+auth+"roleDefinitions/"+role, principal)
}

// at is the path of the n-th assignment at a scope.
func at(scope string, n int) string {
	return fmt.Sprintf("%sroleAssignments/%08d-0000-4000-8000-000000000000", scope+auth, n)
}

// custom is the path of the n-th custom role at a scope.
func custom(scope string, n int) string {
	return fmt.Sprintf("%sroleDefinitions/%08d-0000-4000-9000-000000000000", scope+auth, n)
}

// may asks the engine, as the next request would.
func (w *world) may(who, action, scope string) bool {
	groups, _ := w.people.Groups(nil, "", who)
	return w.engine.Decide(arm.Caller{Object: who, Groups: groups}, arm.NewAction(action, ""), arm.MustID(scope)).Allowed
}
