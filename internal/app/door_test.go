package app

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"castellan/internal/gate"
	"castellan/internal/resource"
)

var update = flag.Bool("update", false, "write testdata/doors.txt anew")

// doors is every door of the platform, a line each.
func doors(a *App) []string {
	var out []string
	for _, p := range a.Planes {
		for _, rt := range p.Routes {
			what := "open: " + rt.Why
			if !rt.Action.IsZero() {
				what = rt.Action.Name()
				if rt.Action.Data() {
					what += "  (data)"
				}
				if rt.Filtered() {
					what += "  (row by row)"
				}
			}
			pattern := rt.Pattern
			if p.Fold {
				pattern = foldPattern(pattern)
			}
			out = append(out, fmt.Sprintf("%-8s %-6s %s  %s", p.Name, rt.Method, pattern, what))
		}
	}
	slices.Sort(out)
	return out
}

// foldPattern lowers what a plane that minds no case does not mind.
func foldPattern(p string) string {
	segs := strings.Split(p, "/")
	for i, s := range segs {
		if !strings.HasPrefix(s, "{") {
			segs[i] = strings.ToLower(s)
		}
	}
	return strings.Join(segs, "/")
}

// Every door with its permission stands in testdata/doors.txt: a new public
// door or a changed permission is a line in the diff.
func TestDoorsAreAsWritten(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	got := strings.Join(doors(a), "\n") + "\n"
	if *update {
		if err := os.WriteFile("testdata/doors.txt", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/doors.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the doors are not those of testdata/doors.txt; read the difference, then run with -update\n%s", firstDifference(got, string(want)))
	}
	for i, d := range doors(a) {
		if i > 0 && d == doors(a)[i-1] {
			t.Errorf("two doors are alike: %s", d)
		}
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range g {
		if i >= len(w) || g[i] != w[i] {
			old := "(nothing)"
			if i < len(w) {
				old = w[i]
			}
			return fmt.Sprintf("line %d\n  is     %s\n  stood  %s", i+1, g[i], old)
		}
	}
	return "lines are missing at the end"
}

var wildcard = regexp.MustCompile(`\{[^}]*\}`)

// fill makes a path of a pattern.
func fill(pattern string, a *App) string {
	return wildcard.ReplaceAllStringFunc(pattern, func(w string) string {
		switch name := strings.Trim(w, "{}."); name {
		case "sub":
			return a.Site.Subscription
		case "tenant":
			return a.Site.Tenant
		case "scope":
			return "subscriptions/" + a.Site.Subscription
		case "ns":
			return "Microsoft.KeyVault"
		default:
			return "x0000001"
		}
	})
}

// hostOf is a host that the plane answers on.
func hostOf(t *testing.T, a *App, p *gate.Plane) string {
	t.Helper()
	for _, h := range []string{a.Site.Host(), a.Site.GraphHost(), "x0000001." + a.Site.VaultSuffix(), "x0000001.blob." + a.Site.StorageSuffix(), "x0000001.dfs." + a.Site.StorageSuffix(), "x0000001.file." + a.Site.StorageSuffix()} {
		if p.Host == nil || p.Host(h) {
			return h
		}
	}
	t.Fatalf("the plane %s answers on no known host", p.Name)
	return ""
}

func knock(a *App, method, host, path, token string) *httptest.ResponseRecorder {
	r := knocking(method, host, path)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	a.Handler.ServeHTTP(w, r)
	return w
}

// knocking is a request that names what doors have to know before they can ask
// the gate.
func knocking(method, host, path string) *http.Request {
	if strings.Contains(host, ".blob.") || strings.Contains(host, ".dfs.") || strings.Contains(host, ".file.") { // a blob's version is a header
		path = strings.TrimSuffix(path, "?")
	} else {
		path += map[bool]string{true: "&", false: "?"}[strings.Contains(path, "?")] + "api-version=" + resource.VersionFor(path)
	}
	r := httptest.NewRequest(method, "https://"+host+path, strings.NewReader(`{"run_id":"x","runId":"x"}`))
	r.Header.Set("x-ms-version", "2023-11-03")
	return r
}

// everybodys are the actions that need no role: at them callers see themselves,
// and each request of a batch is let in by itself (identity.TestBatch).
var everybodys = map[string]bool{"microsoft.directory/me/read": true, "microsoft.directory/batches/send": true}

// Every guarded door is shut to whoever is not signed in and to whoever has no
// role, and opens to neither by another token's luck (RBAC-02, TOK-05).
func TestEveryDoorIsShut(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	stranger := a.stranger(t)
	n := 0
	for _, p := range a.Planes {
		host := hostOf(t, a, p)
		for _, rt := range p.Routes {
			if rt.Action.IsZero() {
				continue
			}
			n++
			path := fill(rt.Pattern, a)
			if got := knock(a, rt.Method, host, path, ""); got.Code != http.StatusUnauthorized {
				t.Errorf("%s %s %s without a token = %d, want 401: %s", p.Name, rt.Method, path, got.Code, got.Body)
			}
			if got := knock(a, rt.Method, host, path, "garbage"); got.Code != http.StatusUnauthorized {
				t.Errorf("%s %s %s with garbage for a token = %d, want 401", p.Name, rt.Method, path, got.Code)
			}
			for aud, token := range stranger {
				got := knock(a, rt.Method, host, path, token)
				switch {
				case !slices.Contains(audiencesOf(p.Name), aud):
					if got.Code != http.StatusUnauthorized {
						t.Errorf("%s %s %s with a token for %s = %d, want 401", p.Name, rt.Method, path, aud, got.Code)
					}
				case rt.Filtered() && emptyList(got), p.Name == "graph" && (rt.Method == http.MethodGet || everybodys[rt.Action.Name()]):
				case got.Code != http.StatusForbidden && got.Code != http.StatusNotFound:
					t.Errorf("%s %s %s without a role = %d, want 403 or 404: %s", p.Name, rt.Method, path, got.Code, got.Body)
				}
			}
		}
	}
	if n < 50 {
		t.Errorf("only %d guarded doors were found", n)
	}
	t.Logf("%d guarded doors, %d tokens each", n, len(stranger)+2)
}

// audiencesOf are the kinds of tokens that the plane takes.
func audiencesOf(plane string) []string {
	switch plane {
	case "arm":
		return []string{"arm"}
	case "ml":
		return []string{"arm", "ml"}
	case "dfs", "file":
		return []string{"blob"}
	}
	return []string{plane}
}

// public lists are the same for everybody who is signed in.
var publicLists = regexp.MustCompile(`"(registrationState|isDataAction|regionType|tenantCategory|roleName|BuiltInRole|BuiltIn)"|^{"value":\[{"localizedValue":"Administrative","value":"Administrative"}\]}$`)

func emptyList(w *httptest.ResponseRecorder) bool {
	b := strings.TrimSpace(w.Body.String())
	return w.Code/100 == 4 || b == `{"value":[]}` || publicLists.MatchString(b)
}

// withoutGrant are the exported methods that take a context and yet no Grant,
// each with its reason. The list may only shrink.
var withoutGrant = map[string]string{
	"identity.Service.Bootstrap":   "the first start, when there is nobody yet",
	"identity.Service.Recover":     "the root key opened the store, and nobody is served",
	"identity.Service.Run":         "a worker, which ends what has expired",
	"identity.Service.Prove":       "it says who an application is, before there can be a Grant",
	"identity.Service.VerifyToken": "it says who is calling, before there can be a Grant",
	"governance.Service.Load":      "the start, before the first request",
	"compliance.Service.Load":      "the start, before the first request",
	"compliance.Service.Run":       "a worker, whose every act is admitted as an assignment's identity",
	"blob.Service.Run":             "a worker, which removes what nothing names",
	"blob.Service.TurnKeys":        "a worker, which asks vaults as the accounts' identities",
	"vault.Service.Run":            "a worker, whose every act is admitted by a lease",
	"blob.Service.SASCaller":       "it says who is calling, before there can be a Grant",
	"ml.Service.Run":               "a worker, whose every act is admitted by a lease",
	"tracking.Service.Status":      "a fact by which a run's token is judged",
}

// Every verb of every service asks for a Grant.
func TestEveryVerbAsksForAGrant(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	ctx, grant := reflect.TypeFor[context.Context](), reflect.TypeFor[gate.Grant]()
	used := map[string]bool{}
	for _, s := range a.verbs() {
		typ := reflect.TypeOf(s)
		for i := range typ.NumMethod() {
			m := typ.Method(i)
			if m.Type.NumIn() < 2 || m.Type.In(1) != ctx {
				continue
			}
			name := strings.TrimPrefix(typ.String(), "*") + "." + m.Name
			if m.Type.NumIn() > 2 && m.Type.In(2) == grant {
				continue
			}
			if withoutGrant[name] == "" {
				t.Errorf("%s takes a context but no Grant", name)
			}
			used[name] = true
		}
	}
	for name := range withoutGrant {
		if !used[name] {
			t.Errorf("%s is listed, but needs no exception any more", name)
		}
	}
}
