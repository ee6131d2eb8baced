package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/gate"
	"castellan/internal/seal"
	"castellan/internal/store"
)

const (
	sub   = "/subscriptions/11111111-1111-1111-1111-111111111111"
	other = "/subscriptions/11111111-1111-1111-1111-111111111112"
	kv    = sub + "/resourceGroups/rg1/providers/Microsoft.KeyVault/vaults/kv"
)

type world struct {
	*testing.T
	db    *store.DB
	log   *audit.Log
	gate  *gate.Gate
	plane *gate.Plane
	diag  *Diagnostics
	now   time.Time
}

// newWorld has ada, who may do everything, and bea, who may see the events of
// rg1 alone; every minute something happens.
func newWorld(t *testing.T) *world {
	t.Helper()
	db, err := store.Open(t.TempDir(), seal.Random())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, db: db, now: time.Date(2030, 5, 6, 12, 0, 0, 0, time.UTC)}
	log := audit.New(db, func() time.Time { return w.now })
	t.Cleanup(func() { _ = log.Close(); db.Close() })
	w.log = log
	w.gate = gate.New(func(c arm.Caller, a arm.Action, on gate.Target) (bool, string) {
		return c.Object == "ada" || c.Object == "bea" && on.ID.Within(arm.MustID(sub+"/resourceGroups/rg1")) && a.Is(readEvents), "a test"
	}, log)
	site := arm.Site{Suffix: "test", Tenant: "t"}
	w.gate.Site = site
	w.restart()
	change := func(pattern, action string) gate.Route {
		return gate.On(arm.NewAction(action, ""), pattern, func(r *http.Request, _ gate.Vars) (gate.Target, error) {
			id, err := arm.ParseID(r.URL.Path)
			return gate.Target{ID: id}, err
		}, func(w http.ResponseWriter, r *http.Request, _ gate.Grant) error {
			if strings.Contains(r.URL.Path, "/none") {
				return arm.Errorf(arm.NotFound, "there is none")
			}
			return nil
		})
	}
	w.plane = &gate.Plane{Name: "arm", Fold: true, Refuse: gate.RefuseARM, Who: func(r *http.Request) (arm.Caller, error) {
		who := r.Header.Get("x-who")
		return arm.Caller{Tenant: "t", Object: who, App: "app-of-" + who, Name: who + "@test", Kind: arm.User, Token: "access"}, nil
	}, Routes: append(append((&Activity{Log: log, Site: site}).Routes(), w.diag.Routes()...), change("PUT /{rest...}", "Microsoft.KeyVault/vaults/write"), change("POST /{rest...}", "Microsoft.KeyVault/vaults/listKeys/action"), change("GET /{rest...}", "Microsoft.KeyVault/vaults/read"))}
	return w
}

// restart makes the diagnostics anew: nothing in memory stays.
func (w *world) restart(sinks ...Named) {
	w.diag = NewDiagnostics(Config{
		DB: w.db, Gate: w.gate, Log: w.log, Site: w.gate.Site, Now: func() time.Time { return w.now }, Warn: slog.New(slog.DiscardHandler), Sinks: sinks,
		Append: func(context.Context, arm.ID, string, string, []byte) error {
			return errors.New("this test has no accounts")
		},
	})
}

func (w *world) do(who, method, u string) (*httptest.ResponseRecorder, map[string]any) {
	w.Helper()
	return w.send(who, method, u, "")
}

func (w *world) send(who, method, u, body string) (*httptest.ResponseRecorder, map[string]any) {
	w.Helper()
	w.now = w.now.Add(time.Minute)
	r := httptest.NewRequest(method, u, strings.NewReader(body))
	r.Header.Set("x-who", who)
	rec := httptest.NewRecorder()
	rt, v, _, err := w.plane.Match(method, r.URL.EscapedPath())
	if err != nil {
		w.Fatal(err)
	}
	w.gate.Serve(w.plane, rt, v, rec, r)
	var out map[string]any
	_ = json.Unmarshal(rec.Body.Bytes(), &out)
	return rec, out
}

// events are all events that a filter chooses, over all pages.
func (w *world) events(who, on, filter, more string) (list []map[string]any) {
	w.Helper()
	u := "https://test" + on + "/providers/microsoft.insights/eventtypes/management/values?api-version=2015-04-01&$filter=" + url.QueryEscape(filter) + more
	for pages := 0; u != ""; pages++ {
		rec, out := w.do(who, "GET", u)
		if rec.Code != http.StatusOK || pages > 20 {
			w.Fatalf("%s: %d on page %d: %s", filter, rec.Code, pages, rec.Body)
		}
		for _, x := range out["value"].([]any) {
			list = append(list, x.(map[string]any))
		}
		u, _ = out["nextLink"].(string)
	}
	return list
}

func column(list []map[string]any, name string) (out []string) {
	for _, x := range list {
		if v, ok := x[name].(map[string]any); ok && v["value"] != nil {
			out = append(out, fmt.Sprint(v["value"]))
			continue
		}
		out = append(out, fmt.Sprint(x[name]))
	}
	return out
}

const always = "eventTimestamp ge '2030-01-01T00:00:00Z'"

// Changes and refused changes are events of their subscription, newest first;
// reads and other subscriptions' changes are none. Each tells who, what, where
// and how it went.
func TestEvents(t *testing.T) {
	w := newWorld(t)
	w.do("ada", "PUT", kv)
	w.do("ada", "GET", kv)
	w.do("bea", "PUT", kv)
	w.do("ada", "POST", kv)
	w.do("ada", "PUT", sub+"/resourceGroups/rg2/providers/Microsoft.KeyVault/vaults/none")
	w.do("ada", "PUT", other+"/resourceGroups/rg1")
	all := w.events("ada", sub, always, "")
	if got := column(all, "status"); !slices.Equal(got, []string{"Failed", "Succeeded", "Failed", "Succeeded"}) {
		t.Fatalf("the statuses are %q: %v", got, all)
	}
	if got := column(all, "subStatus"); !slices.Equal(got, []string{"NotFound", "OK", "Forbidden", "OK"}) {
		t.Errorf("the sub-statuses are %q", got)
	}
	e := all[2]
	for name, want := range map[string]any{
		"caller": "bea@test", "resourceId": kv, "resourceGroupName": "rg1", "subscriptionId": sub[15:], "tenantId": "t", "level": "Error",
		"authorization": map[string]any{"action": "Microsoft.KeyVault/vaults/write", "scope": kv},
	} {
		if fmt.Sprint(e[name]) != fmt.Sprint(want) {
			t.Errorf("%s is %v, want %v", name, e[name], want)
		}
	}
	if got := e["claims"].(map[string]any); got["appid"] != "app-of-bea" || len(got) != 4 {
		t.Errorf("the claims are %v", got)
	}
	if got := column(w.events("bea", sub, always, ""), "resourceGroupName"); !slices.Equal(got, []string{"rg1", "rg1", "rg1"}) {
		t.Errorf("who may see rg1 sees %q", got)
	}
	if got := w.events("cyd", sub, always, ""); len(got) != 0 {
		t.Errorf("who may see nothing sees %v", got)
	}
}

// Each clause chooses; what is none is refused and says what is allowed.
func TestFilters(t *testing.T) {
	w := newWorld(t)
	for range 3 {
		w.do("ada", "PUT", kv)
		w.do("bea", "PUT", kv+"2")
		w.do("ada", "PUT", sub+"/resourceGroups/rg2/providers/Microsoft.KeyVault/vaults/x")
	}
	all := w.events("ada", sub, always, "")
	third := all[2]
	for filter, want := range map[string]int{
		"":                                 9,
		" and resourceGroupName eq 'RG1'":  6,
		" and resourceUri eq '" + kv + "'": 3,
		" and resourceId eq '" + kv + "2'": 3,
		" and caller eq 'bea@test'":        3,
		" and caller eq 'ada'":             6,
		" and status eq 'Failed'":          3,
		" and resourceProvider eq 'microsoft.keyvault' and status eq 'Succeeded'":                               6,
		" and correlationId eq '" + fmt.Sprint(third["correlationId"]) + "'":                                    1,
		" and correlationId eq 'none'":                                                                          0,
		" and eventChannels eq 'Admin, Operation'":                                                              9,
		" and eventTimestamp le " + fmt.Sprint(third["eventTimestamp"]):                                         7,
		" and eventTimestamp le '" + fmt.Sprint(third["eventTimestamp"])[:19] + "'":                             7,
		" and eventTimestamp le '2030-01-02T00:00:00Z' and caller eq 'it''s'":                                   0,
		" and eventTimestamp le '2029-01-02' and correlationId eq '" + fmt.Sprint(third["correlationId"]) + "'": 0,
	} {
		if got := w.events("ada", sub, always+filter, ""); len(got) != want {
			t.Errorf("%s chooses %d, want %d", filter, len(got), want)
		}
	}
	some := w.events("ada", sub, always, "&$select="+url.QueryEscape("caller , status"))
	if len(some) != 9 || len(some[0]) != 2 || some[0]["caller"] == nil {
		t.Errorf("$select gives %v", some)
	}
	for _, bad := range []string{
		"", "caller eq 'x'", always + " or caller eq 'x'", always + " and color eq 'x'", always + " and caller ne 'x'", always + " and caller eq 'x' and caller eq 'y'",
		"eventTimestamp ge 'yesterday'", always + " and resourceUri eq 'x'", always + " and caller eq 'x", always + " and ",
	} {
		if rec, _ := w.do("ada", "GET", "https://test"+sub+"/providers/microsoft.insights/eventtypes/management/values?api-version=2015-04-01&$filter="+url.QueryEscape(bad)); rec.Code != http.StatusBadRequest {
			t.Errorf("the filter %q = %d: %s", bad, rec.Code, rec.Body)
		}
	}
	for _, bad := range []string{"&$select=secret", "&$skipToken=x", "&$skipToken=Li4v"} {
		if rec, _ := w.do("ada", "GET", "https://test"+sub+"/providers/microsoft.insights/eventtypes/management/values?api-version=2015-04-01&$filter="+url.QueryEscape(always)+bad); rec.Code != http.StatusBadRequest {
			t.Errorf("%s = %d: %s", bad, rec.Code, rec.Body)
		}
	}
}

// Pages have every event once, whatever comes in between, and a page looks at a
// bounded part of the log.
func TestPages(t *testing.T) {
	w := newWorld(t)
	for range page + 20 {
		w.do("ada", "PUT", kv)
	}
	seen := map[string]bool{}
	all := w.events("ada", sub, always, "")
	for _, e := range all {
		seen[fmt.Sprint(e["eventDataId"])] = true
	}
	if len(all) != page+20 || len(seen) != page+20 {
		t.Errorf("%d events, %d different ones, want %d", len(all), len(seen), page+20)
	}
	_, out := w.do("ada", "GET", "https://test"+sub+"/providers/microsoft.insights/eventtypes/management/values?api-version=2015-04-01&$filter="+url.QueryEscape(always+" and caller eq 'nobody'"))
	if next, _ := out["nextLink"].(string); next == "" || len(out["value"].([]any)) != 0 {
		t.Errorf("a page that found nothing is %v", out)
	}
}

// The categories are those that events are of.
func TestEventCategories(t *testing.T) {
	w := newWorld(t)
	w.do("ada", "PUT", "https://test"+kv)
	rec, out := w.do("ada", "GET", "https://test/providers/Microsoft.Insights/eventcategories?api-version=2015-04-01")
	if rec.Code != http.StatusOK {
		t.Fatalf("the categories are answered with %d: %s", rec.Code, rec.Body)
	}
	var list []map[string]any
	for _, x := range out["value"].([]any) {
		list = append(list, map[string]any{"category": x})
	}
	got := column(w.events("ada", sub, "eventTimestamp ge '2030-05-01T00:00:00Z'", ""), "category")
	if want := column(list, "category"); len(got) == 0 || !slices.Equal(slices.Compact(got), want) {
		t.Errorf("events are of %v, the categories are %v", got, want)
	}
	if rec, _ := w.do("ada", "GET", "https://test/providers/Microsoft.Insights/eventcategories"); rec.Code != http.StatusBadRequest {
		t.Errorf("without an api-version = %d, want 400", rec.Code)
	}
}
