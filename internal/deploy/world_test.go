package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/gate"
	"castellan/internal/ops"
	"castellan/internal/resource"
	"castellan/internal/seal"
	"castellan/internal/store"
)

const (
	rg   = "/subscriptions/sub/resourceGroups/rg"
	deps = rg + "/providers/Microsoft.Resources/deployments/"
)

// world is deployments behind the real gate, with things that are ready at once
// and slow ones that an operation makes. ann may do all, bob nothing in the
// group "shut", and nobody may write a thing called "forbidden".
type world struct {
	t     *testing.T
	db    *store.DB
	log   *audit.Log
	s     *Service
	srv   *httptest.Server
	mu    sync.Mutex
	gone  map[string]bool         // principals that may not sign in
	fault func(name string) error // what making a slow thing comes to
	made  []string                // names of things, in the order in which they were written
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) order() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.made, " ")
}

// Known is the directory.
func (w *world) Known(tenant, object string) (arm.Caller, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.gone[object] {
		return arm.Caller{}, errors.New("gone")
	}
	return arm.Caller{Tenant: tenant, Object: object, Kind: arm.User, Name: object}, nil
}

func decide(c arm.Caller, a arm.Action, on gate.Target) (bool, string) {
	id := on.ID
	switch {
	case strings.Contains(id.Key(), "/resourcegroups/shut") && c.Object != "ann":
		return false, "shut"
	case id.Subscription() == "" && c.Object != "ann":
		return false, "above subscriptions"
	case strings.HasSuffix(id.Key(), "/forbidden") && strings.HasSuffix(a.Key(), "/write"):
		return false, "forbidden"
	case strings.Contains(id.Key(), "/kept") && c.Object == "bob" && strings.HasSuffix(a.Key(), "/delete"):
		return false, "kept"
	case strings.HasSuffix(id.Key(), "/unreadable") && strings.HasSuffix(a.Key(), "/read"):
		return false, "unreadable"
	}
	return c.Object == "ann" || c.Object == "bob", "test"
}

// scopes knows the root, one management group and what is kept.
func scopes(tx *store.Tx, id arm.ID) (arm.ID, error) {
	if id == arm.Root || id.Key() == "/providers/microsoft.management/managementgroups/tenant" {
		return id, nil
	}
	d, err := resource.Load(tx, id)
	if err == nil && d == nil {
		err = arm.Errorf(arm.GroupNotFound, "there is no %s", id)
	}
	return id, err
}

type thing struct {
	Size  int64  `json:"size"`
	Other string `json:"other,omitempty"`
	Key   string `json:"key,omitempty"`
	List  []any  `json:"list,omitempty"`
	State string `json:"provisioningState,omitempty" arm:"readonly"`
}

func (w *world) things() []*resource.Kind {
	save := func(_ *store.Tx, c resource.Change) error {
		var p thing
		if err := json.Unmarshal(c.Doc.Properties, &p); err != nil {
			return err
		}
		if p.Size > 100 {
			return arm.Errorf(arm.BadRequest, "the size is too large and the key is %s", p.Key)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.made = append(w.made, c.Doc.Name)
		return nil
	}
	check := func(c resource.Change) error {
		var p thing
		if err := json.Unmarshal(c.Doc.Properties, &p); err != nil || p.Other != "wrong" {
			return err
		}
		return arm.Errorf(arm.BadRequest, "the thing is wrong and the key is %s", p.Key)
	}
	fast := &resource.Kind{Type: "Microsoft.Storage/things", Doc: "a thing", Parent: resource.Group, Props: func() any { return &thing{Size: 1} }, Check: check, Save: save}
	slow := &resource.Kind{Type: "Microsoft.Storage/slows", Doc: "a slow thing", Parent: resource.Group, Props: func() any { return &thing{} }, Save: save, Created: 202,
		Apply: func(_ context.Context, d *resource.Doc) error {
			if w.fault != nil {
				return w.fault(d.Name)
			}
			return nil
		}}
	part := &resource.Kind{Type: "Microsoft.Storage/things/parts", Doc: "a part of a thing", Parent: fast, Global: true, Save: save}
	return []*resource.Kind{fast, slow, part}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, gone: map[string]bool{}}
	var err error
	w.db, err = store.Open(t.TempDir(), seal.Random())
	w.must(err)
	w.log = audit.New(w.db, time.Now)
	g := gate.New(decide, w.log)
	g.Locks = &gate.Locks{DB: w.db, Holding: func(_ *store.Tx, a arm.Action, id arm.ID) error {
		if strings.HasSuffix(id.Key(), "/locked") && strings.HasSuffix(a.Key(), "/delete") {
			return &arm.Error{Code: "ScopeLocked", Status: http.StatusConflict, Message: "it is locked"}
		}
		return nil
	}}
	site := arm.Site{Suffix: "castellan.localhost", Tenant: "tenant", Subscription: "sub", Location: "local"}
	rs := &resource.Server{DB: w.db, Gate: g, Now: time.Now, Site: site}
	plane := &gate.Plane{Name: "arm", Fold: true, Refuse: gate.RefuseARM, Who: func(r *http.Request) (arm.Caller, error) {
		return w.Known("tenant", r.Header.Get("Authorization"))
	}}
	runner := &ops.Runner{Server: rs}
	rs.Wake = runner.Wake
	soon := func(ctx context.Context, _ time.Duration) error { return pause(ctx, 10*time.Millisecond) }
	w.s, err = New(Config{DB: w.db, Site: site, Now: time.Now, Callers: w, Scope: scopes, Pause: soon, Doors: Inside{Gate: g, Plane: func() *gate.Plane { return plane }, Site: site, Resources: rs}})
	w.must(err)
	plane.Routes = append(w.s.Routes(), rs.OperationRoutes()...)
	for _, k := range append(append([]*resource.Kind{resource.Subscription, resource.Group}, w.things()...), w.s.Kinds()...) {
		plane.Routes = append(plane.Routes, rs.Routes(k)...)
	}
	w.srv = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rt, v, _, err := plane.Find(r)
		if err != nil || rt.Method == "" {
			http.Error(rw, fmt.Sprint("no door: ", err), 404)
			return
		}
		g.Serve(plane, rt, v, rw, r)
	}))
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Add(1)
	go func() { defer wg.Done(); _ = runner.Run(ctx) }()
	t.Cleanup(func() { w.srv.Close(); cancel(); wg.Wait(); _ = w.log.Close(); w.db.Close() })
	w.must(w.db.Do(ctx, func(tx *store.Tx) error {
		for _, d := range []*resource.Doc{{ID: arm.MustID("/subscriptions/sub"), Name: "sub", Type: resource.Subscription.Type}, {ID: arm.MustID(rg), Name: "rg", Type: resource.Group.Type, Location: "here"}, {ID: arm.MustID("/subscriptions/sub/resourceGroups/shut"), Name: "shut", Type: resource.Group.Type, Location: "here"}} {
			if err := resource.Save(tx, d); err != nil {
				return err
			}
		}
		return nil
	}))
	return w
}

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
	if s, ok := x.(string); ok {
		return s
	}
	b, _ := json.Marshal(x)
	return string(b)
}

func (w *world) do(who, method, path, body string, want int) reply {
	w.t.Helper()
	if !strings.Contains(path, "api-version") {
		path += "?api-version=" + resource.VersionFor(path)
	}
	req, err := http.NewRequest(method, w.srv.URL+path, strings.NewReader(body))
	w.must(err)
	req.Header.Set("Authorization", who)
	res, err := w.srv.Client().Do(req)
	w.must(err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	w.must(err)
	out := reply{code: res.StatusCode, header: res.Header, text: string(b)}
	_ = json.Unmarshal(b, &out.body) // some answers have no body
	if want != 0 && res.StatusCode != want {
		w.t.Errorf("%s %s by %s = %d, want %d: %s\n%s", method, path, who, res.StatusCode, want, b, body)
	}
	return out
}

// deploy deploys a template and waits until it is over, as clients do.
func (w *world) deploy(who, name, template, params string) reply {
	w.t.Helper()
	return w.await(who, deps+name, w.do(who, "PUT", deps+name, request(template, params), 0))
}

// await waits for the end of the deployment at a path, which was answered with r.
func (w *world) await(who, path string, r reply) reply {
	w.t.Helper()
	if r.code != 201 && r.code != 200 {
		w.t.Fatalf("PUT %s = %d: %s", path, r.code, r.text)
	}
	at := strings.TrimPrefix(r.header.Get("Azure-AsyncOperation"), "https://castellan.localhost")
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); { // the race detector slows all of it down
		op := w.do(who, "GET", at, "", 200)
		w.must(w.s.Pause(w.t.Context(), 0)) // as clients wait between two questions
		if s := op.str("status"); s != "InProgress" {
			d := w.do(who, "GET", path, "", 200)
			if d.str("properties", "provisioningState") != s {
				w.t.Errorf("the operation is %s and the deployment %s", s, d.text)
			}
			return d
		}
	}
	w.t.Fatalf("the deployment %s does not end: %s", path, w.do(who, "GET", path+"/operations", "", 200).text)
	return reply{}
}

func request(template, params string) string {
	if params == "" {
		params = "{}"
	}
	return `{"properties": {"mode":"Incremental","parameters":` + params + `, template:` + template + `}}`
}

// one is a resource of a template.
func one(typ, name, more string) string {
	if more != "" {
		more = "," + more
	}
	return `{"type":"Microsoft.Storage/` + typ + `","apiVersion":"2024-01-01","name":"` + name + `","location":"[resourceGroup().location]"` + more + `}`
}

func resources(list ...string) string {
	return `{"$schema":"x","contentVersion":"1.0.0.0","resources":[` + strings.Join(list, ",") + `]}`
}

// kept is a deployment as the store has it.
func (w *world) kept(name string) (d *resource.Doc) {
	w.t.Helper()
	w.must(w.db.View(w.t.Context(), func(tx *store.Tx) (err error) {
		d, err = resource.Load(tx, arm.MustID(deps+name))
		return err
	}))
	return d
}
