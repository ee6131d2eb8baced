package resource

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/gate"
	"castellan/internal/seal"
	"castellan/internal/store"
)

type thing struct {
	Size   int    `json:"size"`
	Friend arm.ID `json:"friend"`
	State  string `json:"provisioningState" arm:"readonly"`
}

var look = arm.NewAction("Microsoft.Storage/things/look/action", "look at a thing")

func things() *Kind {
	return &Kind{
		Type: "Microsoft.Storage/things", Doc: "a thing", Parent: Group,
		Props: func() any { return &thing{Size: 1, State: "Succeeded"} },
		Links: func(d *Doc) ([]Linked, error) {
			var p thing
			if err := json.Unmarshal(d.Properties, &p); err != nil || p.Friend.IsZero() {
				return nil, err
			}
			return []Linked{{look, p.Friend, "friend"}}, nil
		},
	}
}

// server serves subscriptions, groups and things to ann, who may do all but
// look at what lies in the group "private".
func server(t *testing.T) *httptest.Server {
	t.Helper()
	db, err := store.Open(t.TempDir(), seal.Random())
	if err != nil {
		t.Fatal(err)
	}
	log := audit.New(db, time.Now)
	g := gate.New(func(_ arm.Caller, a arm.Action, on gate.Target) (bool, string) {
		return !strings.Contains(on.ID.Key(), "private"), "test"
	}, log)
	s := &Server{DB: db, Gate: g, Now: time.Now, Site: arm.Site{Suffix: "test", Location: "local"}}
	p := &gate.Plane{Name: "arm", Fold: true,
		Who: func(*http.Request) (arm.Caller, error) { return arm.Caller{Object: "ann"}, nil },
		Refuse: func(w http.ResponseWriter, _ *http.Request, err error) {
			status := map[arm.Code]int{arm.Forbidden: 403, arm.LinkedForbidden: 403, arm.NotFound: 404, arm.GroupNotFound: 404, arm.PreconditionFailed: 412, arm.Internal: 500}[arm.CodeOf(err)]
			if status == 0 {
				status = 400
			}
			http.Error(w, err.Error(), status)
		}}
	for _, k := range []*Kind{Subscription, Group, things()} {
		p.Routes = append(p.Routes, s.Routes(k)...)
	}
	p.Routes = append(p.Routes, s.CatalogRoutes()...)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rt, v, _, err := p.Match(r.Method, r.URL.EscapedPath())
		if err != nil || rt.Method == "" {
			http.Error(w, fmt.Sprint("no route: ", err), 404)
			return
		}
		g.Serve(p, rt, v, w, r)
	}))
	t.Cleanup(func() { srv.Close(); _ = log.Close(); db.Close() })
	if err := db.Do(t.Context(), func(tx *store.Tx) error {
		return Save(tx, &Doc{ID: arm.MustID("/subscriptions/s"), Name: "s", Type: Subscription.Type})
	}); err != nil {
		t.Fatal(err)
	}
	do(t, srv, "PUT", "/subscriptions/s/resourceGroups/rg", `{"location":"here"}`, 201)
	return srv
}

func do(t *testing.T, srv *httptest.Server, method, path, body string, want int, header ...string) string {
	t.Helper()
	if !strings.Contains(path, "api-version") {
		path += "?api-version=" + VersionFor(path)
	}
	req, err := http.NewRequest(method, srv.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	rec, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer rec.Body.Close()
	var b strings.Builder
	buf := make([]byte, 1<<16)
	for {
		n, err := rec.Body.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			break
		}
	}
	if want != 0 && rec.StatusCode != want {
		t.Errorf("%s %s %s = %d, want %d: %s", method, path, body, rec.StatusCode, want, b.String())
	}
	return fmt.Sprint(rec.StatusCode, " ", rec.Header.Get("ETag"), " ", b.String())
}

const at = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Storage/things/one"

func TestLifeOfAResource(t *testing.T) {
	srv := server(t)
	do(t, srv, "GET", at, "", 404)
	do(t, srv, "PUT", at, `{"location":"here","properties":{"SIZE":3,"provisioningState":"Hacked"}}`, 201)
	got := do(t, srv, "GET", strings.ToUpper(at), "", 200)
	if !strings.Contains(got, `"size":3`) || strings.Contains(got, "Hacked") || !strings.Contains(got, at) {
		t.Errorf("GET in capitals = %s", got)
	}
	if got := do(t, srv, "PATCH", at, `{"tags":{"a":"b"}}`, 200); !strings.Contains(got, `"size":3`) {
		t.Errorf("PATCH lost what it did not name: %s", got)
	}
	if got := do(t, srv, "PUT", at, `{"properties":{}}`, 200); !strings.Contains(got, `"size":1`) {
		t.Errorf("PUT kept what it did not name: %s", got)
	}
	if got := do(t, srv, "GET", "/subscriptions/s/providers/Microsoft.Storage/things", "", 200); !strings.Contains(got, at) {
		t.Errorf("list = %s", got)
	}
	etag := strings.Fields(do(t, srv, "GET", at, "", 200))[1]
	do(t, srv, "DELETE", at, "", 412, "If-Match", `"other"`)
	do(t, srv, "PUT", at, `{"properties":{}}`, 412, "If-None-Match", `"other", `+etag)
	do(t, srv, "DELETE", at, "", 200, "If-Match", `"other", `+etag)
	do(t, srv, "DELETE", at, "", 412, "If-Match", "*")
	do(t, srv, "DELETE", at, "", 204)
	do(t, srv, "PUT", at, `{"location":"here"}`, 201)
	do(t, srv, "DELETE", at[:strings.Index(at, "/providers")], "", 200)
	do(t, srv, "GET", at, "", 404)
}

// What is wrong is refused and leaves nothing behind (ARM-02 to ARM-12).
func TestBadRequestsChangeNothing(t *testing.T) {
	srv := server(t)
	for body, status := range map[string]int{
		`{"location":"here","properties":{"nope":1}}`:     400,
		`{"location":"here","name":"two"}`:                400,
		`{"location":"here","id":"/subscriptions/other"}`: 400,
		`{"properties":{}}`:                               400,
		`{"location":"a\u0000b"}`:                         400, `{"location":"a\nb"}`: 400, `{"location":"<x>"}`: 400,
		`{"location":"here","properties":[]}`: 400,
		`{}{}`:                                400,
		`{"location":"here","properties":{"friend":"/x/../y"}}`:                                                                      400,
		`{"location":"here","properties":{"friend":"/subscriptions/s/resourceGroups/private/providers/Microsoft.Storage/things/x"}}`: 403,
	} {
		do(t, srv, "PUT", at, body, status)
	}
	do(t, srv, "PUT", at+"?api-version=latest", `{"location":"here"}`, 400)
	do(t, srv, "PUT", at+"?api-version=2024-01-01&api-version=2023-01-01", `{"location":"here"}`, 400)
	do(t, srv, "PUT", strings.Replace(at, "/rg/", "/none/", 1), `{"location":"here"}`, 404)
	do(t, srv, "PUT", strings.Replace(at, "/one", "/%2e%2e", 1), `{"location":"here"}`, 404)
	do(t, srv, "GET", at, "", 404)
}

// Of many writers who all saw one etag, one wins (ARM-10).
func TestOneWriterWins(t *testing.T) {
	srv := server(t)
	etag := strings.Fields(do(t, srv, "PUT", at, `{"location":"here"}`, 201))[1]
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := map[string]int{}
	for i := range 50 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			got := do(t, srv, "PUT", at, fmt.Sprintf(`{"properties":{"size":%d}}`, i), 0, "If-Match", etag)
			mu.Lock()
			won[got[:3]]++
			mu.Unlock()
		}()
	}
	wg.Wait()
	if won["200"] != 1 || won["412"] != 49 {
		t.Errorf("outcomes %v, want one 200 and 49 times 412", won)
	}
}
