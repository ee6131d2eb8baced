package tracking

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
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
	"castellan/internal/resource"
	"castellan/internal/seal"
	"castellan/internal/store"
)

const group = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/g"

var (
	ws1 = arm.MustID(group + "/providers/Microsoft.MachineLearningServices/workspaces/ws1")
	ws2 = arm.MustID(group + "/providers/Microsoft.MachineLearningServices/workspaces/ws2")
)

// blobs keeps blobs in memory and complains of what must not reach it.
type blobs struct {
	t    testing.TB
	mu   sync.Mutex // guards all
	all  map[string][]byte
	sigs []string
}

func (b *blobs) name(w Workspace, name string) string {
	if w.UID == "" || w.Identity == "" || w.Container == "" {
		b.t.Errorf("blobs are asked for without a workspace: %+v", w)
	}
	for _, bad := range []string{"..", "\\", "//", "%2", "\x00", "?", "#"} {
		if strings.Contains(name, bad) {
			b.t.Errorf("the blob name %q reached the store", name)
		}
	}
	if strings.HasPrefix(name, "/") {
		b.t.Errorf("the blob name %q is absolute", name)
	}
	return w.UID + "|" + name
}

func (b *blobs) Put(_ context.Context, w Workspace, name, _ string, r io.Reader, size int64) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if size >= 0 && int64(len(data)) != size {
		return fmt.Errorf("got %d bytes of %d", len(data), size)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all[b.name(w, name)] = data
	return nil
}

func (b *blobs) Append(_ context.Context, w Workspace, name string, data []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.name(w, name)
	b.all[k] = append(b.all[k], data...)
	return nil
}

func (b *blobs) Open(_ context.Context, w Workspace, name string, offset int64) (Content, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	data, ok := b.all[b.name(w, name)]
	if !ok {
		return Content{}, arm.Errorf(arm.NotFound, "no such blob")
	}
	return Content{ReadCloser: io.NopCloser(bytes.NewReader(data[offset:])), Size: int64(len(data))}, nil
}

func (b *blobs) List(_ context.Context, w Workspace, prefix string, flat bool, mark string, limit int) (out []Blob, next string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := b.name(w, prefix)
	seen := map[string]bool{}
	var keys []string
	for k := range b.all {
		if strings.HasPrefix(k, at) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		name := strings.TrimPrefix(k, w.UID+"|")
		x := Blob{Name: name, Size: int64(len(b.all[k]))}
		if i := strings.IndexByte(name[len(prefix):], '/'); i >= 0 && !flat {
			x = Blob{Name: name[:len(prefix)+i+1], Folder: true}
		}
		if seen[x.Name] || x.Name <= mark {
			continue
		}
		if len(out) == limit {
			return out, out[limit-1].Name, nil
		}
		seen[x.Name] = true
		out = append(out, x)
	}
	return out, "", nil
}

func (b *blobs) Delete(_ context.Context, w Workspace, name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.name(w, name)
	if _, ok := b.all[k]; !ok {
		return arm.Errorf(arm.NotFound, "no such blob")
	}
	delete(b.all, k)
	return nil
}

func (b *blobs) Sign(_ context.Context, w Workspace, name, permissions string, until time.Time) (arm.Secret, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sigs = append(b.sigs, permissions+" "+name)
	return arm.NewSecret([]byte("https://acct.blob.core.castellan.localhost/azureml/" + strings.TrimPrefix(b.name(w, name), w.UID+"|") + "?sp=" + permissions + "&sig=x")), nil
}

// spaces are the workspaces that there are.
type spaces map[string]string // id's key to GUID

func (s spaces) Find(_ *store.Tx, id arm.ID) (Workspace, bool, error) {
	uid, ok := s[id.Key()]
	return Workspace{ID: id, UID: uid, Container: "azureml", Identity: "mi-" + uid, Account: arm.MustID(group + "/providers/Microsoft.Storage/storageAccounts/acct")}, ok, nil
}

// world is a service behind a real gate, reached by HTTP.
type world struct {
	t      testing.TB
	s      *Service
	db     *store.DB
	gate   *gate.Gate
	log    *audit.Log
	blobs  *blobs
	spaces spaces
	plane  *gate.Plane
	arm    *gate.Plane
	url    string
	now    time.Time
}

// may says what the callers of the tests may do. ann may all; reader may read;
// two may all in ws2 alone; metrics may log metrics alone.
func may(c arm.Caller, a arm.Action, on gate.Target) (bool, string) {
	id := on.ID
	switch c.Object {
	case "ann":
		return true, "all"
	case "reader":
		return strings.HasSuffix(a.Key(), "/read"), "reader"
	case "two":
		return id.Within(ws2), "owner of ws2"
	case "metrics":
		return a.Key() == metricsWrite.Key(), "metrics writer"
	}
	return false, "no role"
}

// who takes "Bearer NAME", and "Bearer run:WORKSPACE:ID" for a run's token.
func who(r *http.Request) (arm.Caller, error) {
	name, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || name == "" {
		return arm.Caller{}, arm.Errorf(arm.Unauthenticated, "no token")
	}
	if p := strings.Split(name, ":"); p[0] == "run" {
		return runCaller(arm.MustID(group+"/providers/Microsoft.MachineLearningServices/workspaces/"+p[1]), p[2]), nil
	}
	return arm.Caller{Object: name, Tenant: "t", Name: name, Kind: arm.User, Token: "access"}, nil
}

func runCaller(ws arm.ID, run string) arm.Caller {
	return arm.Caller{Object: "ann", Tenant: "t", Name: "ann", Token: "run", Lease: &arm.Lease{
		Scope: ws, Item: run, Why: "the token of run " + run,
		Actions: []arm.Action{experimentsRead, RunsRead, RunsWrite, metricsWrite, ArtifactsRead, ArtifactsWrite, modelsRead, modelsWrite, versionsRead, versionsWrite},
	}}
}

func newWorld(t testing.TB) *world {
	t.Helper()
	db, err := store.Open(t.TempDir(), seal.Random())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, db: db, now: time.Unix(1_800_000_000, 0), spaces: spaces{ws1.Key(): "uid-1", ws2.Key(): "uid-2"}}
	w.log = audit.New(db, time.Now)
	t.Cleanup(func() { _ = w.log.Close(); db.Close() })
	w.gate = gate.New(may, w.log)
	w.blobs = &blobs{t: t, all: map[string][]byte{}}
	kind := &resource.Kind{Type: namespace + "/workspaces", Doc: "a workspace", Parent: resource.Group}
	w.s, err = New(Config{
		DB: db, Gate: w.gate, Site: arm.Site{Suffix: "castellan.localhost", Tenant: "t"}, Who: who, Workspace: kind, Blobs: w.blobs, Workspaces: w.spaces,
		Now: func() time.Time { w.now = w.now.Add(time.Millisecond); return w.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	w.plane = w.s.Plane()
	w.serveARM(kind)
	srv := httptest.NewServer(http.HandlerFunc(w.serve))
	t.Cleanup(srv.Close)
	w.url = srv.URL
	return w
}

// serveARM makes the plane of Resource Manager with the kinds, and what they lie in.
func (w *world) serveARM(kind *resource.Kind) {
	rs := &resource.Server{DB: w.db, Gate: w.gate, Now: func() time.Time { return w.now }, Site: w.s.Site}
	w.arm = &gate.Plane{Name: "arm", Fold: true, Who: who, Refuse: gate.RefuseARM}
	for _, k := range append([]*resource.Kind{resource.Subscription, resource.Group, kind}, w.s.Kinds()...) {
		w.arm.Routes = append(w.arm.Routes, rs.Routes(k)...)
	}
	err := w.db.Do(context.Background(), func(tx *store.Tx) error {
		for _, d := range []resource.Doc{
			{ID: ws1.Group().Parent(), Type: resource.Subscription.Type}, {ID: ws1.Group(), Type: resource.Group.Type},
			{ID: ws1, Type: kind.Type}, {ID: ws2, Type: kind.Type},
		} {
			d.Name, d.Properties = d.ID.Name(), json.RawMessage("{}")
			if err := resource.Save(tx, &d); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// serve does what the edge does: it finds the door, and tells nobody who is not
// signed in whether there is one.
func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	p := w.plane
	if strings.HasPrefix(r.URL.Path, "/subscriptions") {
		p = w.arm
	}
	rt, v, found, err := p.Match(r.Method, r.URL.EscapedPath())
	if err == nil && rt.Method == "" {
		if _, err = p.Who(r); err == nil {
			err = &arm.Error{Code: "InvalidResourceType", Status: 404, Message: "There is nothing at this path."}
			if found {
				err = arm.Errorf(arm.MethodNotAllowed, "not allowed")
			}
		}
	}
	if err != nil {
		p.Refuse(rw, r, err)
		return
	}
	w.gate.Serve(p, rt, v, rw, r)
}

// answer is what came back.
type answer struct {
	status int
	body   []byte
	tree   map[string]any
	head   http.Header
}

func (a answer) code() string {
	if c, ok := a.tree["error_code"].(string); ok {
		return c
	}
	if e, ok := a.tree["error"].(map[string]any); ok {
		c, _ := e["code"].(string)
		return c
	}
	return ""
}

// at walks the answer's JSON by keys and indexes.
func (a answer) at(path ...any) any {
	var v any = a.tree
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[p]
		case int:
			l, _ := v.([]any)
			if p >= len(l) {
				return nil
			}
			v = l[p]
		}
	}
	return v
}

func (a answer) text(path ...any) string { s, _ := a.at(path...).(string); return s }

func (a answer) list(path ...any) []any { l, _ := a.at(path...).([]any); return l }

// do sends a request; body may be nil, a string, or something for JSON.
func (w *world) do(as, method, path string, body any) answer {
	w.t.Helper()
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		r = strings.NewReader(b)
	default:
		data, err := json.Marshal(b)
		if err != nil {
			w.t.Fatal(err)
		}
		r = bytes.NewReader(data)
	}
	req, err := http.NewRequest(method, w.url+path, r)
	if err != nil {
		w.t.Fatal(err)
	}
	if as != "" {
		req.Header.Set("Authorization", "Bearer "+as)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	out := answer{status: res.StatusCode, head: res.Header}
	if out.body, err = io.ReadAll(res.Body); err != nil {
		w.t.Fatal(err)
	}
	_ = json.Unmarshal(out.body, &out.tree) // what isn't JSON has no tree
	return out
}

func base(ws arm.ID) string { return "/mlflow/v2.0" + ws.String() + "/api/2.0/mlflow/" }

func proxy(ws arm.ID) string {
	return "/mlflow/v2.0" + ws.String() + "/api/2.0/mlflow-artifacts/artifacts"
}

func past0(ws arm.ID) string { return "/history/v1.0" + ws.String() + "/" }

type obj = map[string]any

// ml sends a request to MLflow's API in ws1.
func (w *world) ml(as, method, path string, body any) answer {
	w.t.Helper()
	return w.do(as, method, base(ws1)+path, body)
}

// must is ml that succeeds.
func (w *world) must(as, method, path string, body any) answer {
	w.t.Helper()
	a := w.ml(as, method, path, body)
	if a.status != 200 {
		w.t.Fatalf("%s %s as %s = %d %s", method, path, as, a.status, a.body)
	}
	return a
}

// run begins a run in ws1 and gives its id.
func (w *world) run(name string) string {
	w.t.Helper()
	return w.must("ann", "POST", "runs/create", obj{"experiment_id": "0", "run_name": name}).text("run", "info", "run_id")
}

// admit is a grant for one run of a workspace.
func (w *world) admit(a arm.Action, ws arm.ID, run string) gate.Grant {
	w.t.Helper()
	g, err := w.gate.Admit(context.Background(), arm.Caller{Object: "ann", Tenant: "t", Name: "ann"}, a, gate.Target{ID: ws, Item: run})
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}
