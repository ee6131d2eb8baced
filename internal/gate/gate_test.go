package gate

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/seal"
	"castellan/internal/store"
)

var (
	read  = arm.NewAction("Test/things/read", "see a thing")
	write = arm.NewAction("Test/things/write", "change a thing")
	peek  = arm.NewDataAction("Test/things/read", "see what is in a thing")
	thing = arm.MustID("/subscriptions/s/resourceGroups/g/providers/Test/things/t")
	ann   = arm.Caller{Object: "ann", Tenant: "t"}
)

type world struct {
	db   *store.DB
	log  *audit.Log
	gate *Gate
}

func newWorld(t *testing.T, allow bool) world {
	t.Helper()
	db, err := store.Open(t.TempDir(), seal.Random())
	if err != nil {
		t.Fatal(err)
	}
	log := audit.New(db, time.Now)
	t.Cleanup(func() { _ = log.Close(); db.Close() }) // some tests break the log on purpose
	return world{db, log, New(func(arm.Caller, arm.Action, Target) (bool, string) { return allow, "test" }, log)}
}

// tail is the whole log, once all of it is written.
func (w world) tail(t *testing.T) []audit.Entry {
	t.Helper()
	if err := w.log.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	out, err := w.log.Tail(context.Background(), 100)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A grant opens one action on one target while it is open; nothing else does.
func TestGrantOpensOneThing(t *testing.T) {
	w, ctx := newWorld(t, true), context.Background()
	if _, err := (Grant{}).On(read); err == nil {
		t.Error("the zero Grant opens")
	}
	for name, c := range map[string]struct {
		who arm.Caller
		a   arm.Action
		on  Target
	}{
		"zero caller": {arm.Caller{}, read, Target{ID: thing}},
		"zero action": {ann, arm.Action{}, Target{ID: thing}},
		"zero target": {ann, read, Target{}},
	} {
		if _, err := w.gate.Admit(ctx, c.who, c.a, c.on); err == nil {
			t.Errorf("%s is admitted", name)
		}
	}
	if _, err := new(Gate).Admit(ctx, ann, read, Target{ID: thing}); err == nil {
		t.Error("the zero Gate admits")
	}
	g, err := w.gate.Admit(ctx, ann, read, Target{ID: thing})
	if err != nil {
		t.Fatal(err)
	}
	if id, err := g.On(read); err != nil || id != thing {
		t.Errorf("On(read) = %v, %v", id, err)
	}
	for _, a := range []arm.Action{write, peek, {}} {
		if _, err := g.On(a); err == nil {
			t.Errorf("a grant to read opens %q", a.Name())
		}
	}
	if err := g.Close(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := g.On(read); err == nil {
		t.Error("a closed grant opens")
	}
	if g.Change(ctx, w.db, func(*store.Tx) error { return nil }) == nil {
		t.Error("a closed grant changes")
	}
}

// A Grant for a whole list shows the list's own rows and nothing besides: not
// what a data action of the same name would, nor what lies elsewhere.
func TestSeesItsOwnRows(t *testing.T) {
	w := newWorld(t, true)
	w.gate.decide = func(_ arm.Caller, a arm.Action, on Target) (bool, string) {
		return a.Is(read) && on.ID == thing, "test"
	}
	g, err := w.gate.admitEach(context.Background(), "", ann, read, Target{ID: thing})
	if err != nil {
		t.Fatal(err)
	}
	other := arm.MustID(thing.String() + "2")
	for name, c := range map[string]struct {
		a    arm.Action
		id   arm.ID
		want bool
	}{
		"a row":                       {read, thing.Child("parts", "p"), true},
		"the data action of one name": {peek, thing.Child("parts", "p"), false},
		"another action":              {write, thing, false},
		"a row of another list":       {read, other, false},
		"nothing":                     {arm.Action{}, thing, false},
	} {
		if got := g.Sees(c.a, c.id); got != c.want {
			t.Errorf("%s: Sees = %v, want %v", name, got, c.want)
		}
	}
}

// Every decision stands in the log once, whichever way it went, and a change's
// entry stands there if and only if the change does.
func TestEveryDecisionIsRecordedOnce(t *testing.T) {
	w, ctx := newWorld(t, true), context.Background()
	boom := errors.New("boom")
	for _, fail := range []error{nil, boom} {
		g, err := w.gate.Admit(ctx, ann, write, Target{ID: thing})
		if err != nil {
			t.Fatal(err)
		}
		err = g.Change(ctx, w.db, func(tx *store.Tx) error {
			if err := tx.Put("t", "k", []byte("v")); err != nil {
				return err
			}
			return fail
		})
		if got := g.Close(ctx, err); !errors.Is(got, fail) {
			t.Errorf("Close = %v, want %v", got, fail)
		}
	}
	no := New(func(arm.Caller, arm.Action, Target) (bool, string) { return false, "no role" }, w.log)
	if _, err := no.Admit(ctx, ann, read, Target{ID: thing}); arm.CodeOf(err) != arm.Forbidden {
		t.Errorf("refusal = %v", err)
	}
	var got []string
	for _, e := range w.tail(t) {
		got = append(got, e.Decision+" "+e.Outcome)
	}
	want := "allowed ok, allowed InternalServerError, refused AuthorizationFailed"
	if strings.Join(got, ", ") != want {
		t.Errorf("log = %q, want %q", got, want)
	}
}

// What cannot be written down does not happen, and the caller is not told why.
func TestNoAuditNoAction(t *testing.T) {
	w, ctx := newWorld(t, true), context.Background()
	g, err := w.gate.Admit(ctx, ann, read, Target{ID: thing})
	if err != nil {
		t.Fatal(err)
	}
	w.db.Close()
	if err := g.Close(ctx, nil); err != nil {
		t.Fatal(err) // queued: the log does not know yet
	}
	if err := w.log.Sync(ctx); err == nil {
		t.Fatal("the log is written to a closed store")
	}
	acted := false
	p := &Plane{
		Who:    func(*http.Request) (arm.Caller, error) { return ann, nil },
		Refuse: func(w http.ResponseWriter, _ *http.Request, err error) { http.Error(w, message(err), 500) },
		Routes: []Route{On(read, "GET /t", at(thing), func(http.ResponseWriter, *http.Request, Grant) error { acted = true; return nil })},
	}
	rec := knock(w.gate, p, "GET", "/t")
	if acted || rec.Code != 500 || strings.Contains(rec.Body.String(), "closed") {
		t.Errorf("acted %v, status %d, body %q", acted, rec.Code, rec.Body)
	}
}

// A lease opens what it names, in its scope, for its item, and nothing besides,
// even where roles would allow it.
func TestLease(t *testing.T) {
	w, ctx := newWorld(t, true), context.Background()
	run := ann
	run.Lease = &arm.Lease{Scope: thing, Actions: []arm.Action{read}, Item: "run1", Why: "the run's token"}
	other := arm.MustID(thing.String() + "2")
	for name, c := range map[string]struct {
		a    arm.Action
		on   Target
		want bool
	}{
		"its own":                 {read, Target{ID: thing, Item: "run1"}, true},
		"another item":            {read, Target{ID: thing, Item: "run2"}, false},
		"no item":                 {read, Target{ID: thing, Item: ""}, false},
		"another action":          {write, Target{ID: thing, Item: "run1"}, false},
		"the data action":         {peek, Target{ID: thing, Item: "run1"}, false},
		"a name that begins so":   {read, Target{ID: other, Item: "run1"}, false},
		"the group that holds it": {read, Target{ID: thing.Group(), Item: "run1"}, false},
	} {
		if _, err := w.gate.Admit(ctx, run, c.a, c.on); (err == nil) != c.want {
			t.Errorf("%s: %v, want allowed %v", name, err, c.want)
		}
	}
}

func at(id arm.ID) Locate {
	return func(*http.Request, Vars) (Target, error) { return Target{ID: id}, nil }
}

func message(err error) string {
	var e *arm.Error
	if errors.As(err, &e) {
		return e.Message
	}
	return "internal"
}

func knock(g *Gate, p *Plane, method, path string) *httptest.ResponseRecorder {
	rec, req := httptest.NewRecorder(), httptest.NewRequest(method, path, nil)
	rt, v, found, err := p.Match(method, req.URL.EscapedPath())
	switch {
	case err != nil:
		p.Refuse(rec, req, err)
	case rt.Method == "":
		rec.WriteHeader(map[bool]int{true: 405, false: 404}[found])
	default:
		g.Serve(p, rt, v, rec, req)
	}
	return rec
}

// A route names a permission or a reason, and not both.
func TestRouteValid(t *testing.T) {
	verb := func(http.ResponseWriter, *http.Request, Grant) error { return nil }
	open := func(http.ResponseWriter, *http.Request, Vars) error { return nil }
	both := On(read, "GET /x", at(thing), verb)
	both.Why, both.open = "why", open
	for name, c := range map[string]struct {
		r    Route
		want bool
	}{
		"guarded":   {On(read, "GET /x", at(thing), verb), true},
		"public":    {Public("because", "GET /x", open), true},
		"both":      {both, false},
		"zero":      {Route{}, false},
		"bare":      {Route{Method: "GET", Pattern: "/x"}, false},
		"no action": {On(arm.Action{}, "GET /x", at(thing), verb), false},
		"no reason": {Public("", "GET /x", open), false},
		"no path":   {On(read, "GET", at(thing), verb), false},
	} {
		if got := c.r.Valid(); got != c.want {
			t.Errorf("%s: Valid = %v, want %v", name, got, c.want)
		}
	}
}

// The router decodes each segment once, cleans nothing, and prefers what is
// more specific.
func TestMatch(t *testing.T) {
	none := func(http.ResponseWriter, *http.Request, Grant) error { return nil }
	p := &Plane{Fold: true, Routes: []Route{
		On(read, "GET /a/{x}", at(thing), none),
		On(read, "GET /a/list", at(thing), none),
		On(read, "GET /b/{x}/{rest...}", at(thing), none),
		On(write, "PUT /a/{x}", at(thing), none),
	}}
	for path, want := range map[string]string{
		"/a/1": "/a/{x}", "/A/1": "/a/{x}", "/a/list": "/a/list", "/a/LIST": "/a/list", "/b/1/c/d": "/b/{x}/{rest...}",
		"/a/": "", "/a/1/": "", "//a/1": "", "/b/1": "", "/a//1": "",
	} {
		rt, _, _, err := p.Match("GET", path)
		if err != nil || rt.Pattern != want {
			t.Errorf("Match(%q) = %q, %v; want %q", path, rt.Pattern, err, want)
		}
	}
	for _, bad := range []string{"/a/..", "/a/%2e%2e", "/a/%2E", "/b/1/../c", "/a/%00", "/a/%zz"} {
		if rt, _, _, err := p.Match("GET", bad); err == nil {
			t.Errorf("Match(%q) = %q, want an error", bad, rt.Pattern)
		}
	}
	if _, v, _, _ := p.Match("GET", "/a/x%2fy"); v["x"] != "x/y" {
		t.Errorf("an escaped slash gave %q", v["x"])
	}
	if _, _, found, _ := p.Match("DELETE", "/a/1"); !found {
		t.Error("a path that exists is not found under another method")
	}
}

// The log knows the other end of the connection that a request came by: no header
// claims another, and what comes out of a sandbox has none.
func TestAddressesAreThoseOfConnections(t *testing.T) {
	w := newWorld(t, false)
	p := &Plane{Name: "p", Refuse: RefuseARM, Who: func(*http.Request) (arm.Caller, error) { return ann, nil }, Routes: []Route{
		On(read, "GET /x", func(*http.Request, Vars) (Target, error) { return Target{ID: thing}, nil }, func(http.ResponseWriter, *http.Request, Grant) error { return nil }),
	}}
	peer := FromPeer(t.Context(), &net.TCPAddr{IP: net.ParseIP("::ffff:192.0.2.7"), Port: 5})
	for _, ctx := range []context.Context{peer, t.Context(), From(peer, "sandbox"), FromPeer(t.Context(), &net.UnixAddr{Name: "/x"})} {
		r := httptest.NewRequestWithContext(ctx, "GET", "https://test/x", nil)
		r.Header.Set("X-Forwarded-For", "203.0.113.9")
		w.gate.Serve(p, p.Routes[0], nil, httptest.NewRecorder(), r)
	}
	var got []string
	for _, e := range w.tail(t) {
		got = append(got, e.Address)
	}
	if !slices.Equal(got, []string{"192.0.2.7", "", "", ""}) {
		t.Errorf("the addresses are %q", got)
	}
}
