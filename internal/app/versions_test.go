package app

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"castellan/internal/resource"
)

// Every door of Resource Manager refuses an api-version that its type does not
// have, to whoever may do all, and says which ones it has; with the newest of
// these the refusal is gone.
func TestEveryDoorHasItsVersions(t *testing.T) {
	a := newApp(t)
	admin := a.admin(t, "arm")
	n := 0
	for _, rt := range a.Planes[0].Routes {
		if rt.Action.IsZero() {
			continue
		}
		n++
		u := a.Site.Base() + strings.TrimSuffix(fill(rt.Pattern, a), "?")
		good := resource.VersionFor(u)
		w := call(a, admin, rt.Method, u+"?api-version=2001-01-01", nil)
		var e struct {
			Error struct{ Code, Message string }
		}
		_ = json.Unmarshal(w.Body.Bytes(), &e)
		if want := map[string]int{"InvalidApiVersionParameter": 400, "NoRegisteredProviderFound": 400, "InvalidResourceType": 404}[e.Error.Code]; w.Code != want && rt.Method != http.MethodHead {
			t.Errorf("%s %s with a version of nothing = %d %s", rt.Method, rt.Pattern, w.Code, w.Body)
		} else if !strings.Contains(e.Error.Message, good) && rt.Method != http.MethodHead {
			t.Errorf("%s %s does not tell of %s: %s", rt.Method, rt.Pattern, good, e.Error.Message)
		}
		if rt.Method != http.MethodGet {
			continue // it would be done
		}
		if w := call(a, admin, rt.Method, u+"?api-version="+good, nil); strings.Contains(w.Body.String(), "api-versions are") || strings.Contains(w.Body.String(), "supported versions are") {
			t.Errorf("%s %s with %s = %d %s", rt.Method, rt.Pattern, good, w.Code, w.Body)
		}
	}
	if n < 200 {
		t.Errorf("only %d doors were found", n)
	}
}

// What providers say of their types is what their doors take: each type has
// versions, the default among them, and none is told that no door takes.
func TestProvidersTellTheirVersions(t *testing.T) {
	a := newApp(t)
	admin := a.admin(t, "arm")
	told := must(t, a, http.StatusOK, admin, http.MethodGet, a.Site.Base()+"/subscriptions/"+a.Site.Subscription+"/providers?api-version=2021-04-01", nil)
	n := 0
	for _, p := range told["value"].([]any) {
		p := p.(map[string]any)
		for _, rt := range p["resourceTypes"].([]any) {
			rt := rt.(map[string]any)
			typ := p["namespace"].(string) + "/" + rt["resourceType"].(string)
			versions, _ := rt["apiVersions"].([]any)
			if len(versions) == 0 || !slices.Contains(versions, rt["defaultApiVersion"]) {
				t.Errorf("%s has the versions %v and of them the default %v", typ, versions, rt["defaultApiVersion"])
			}
			for _, v := range versions {
				if err := resource.Supports(typ, v.(string)); err != nil {
					t.Errorf("%s is told to have %v: %v", typ, v, err)
				}
			}
			n++
		}
	}
	if n < 50 {
		t.Errorf("only %d types were told of", n)
	}
}

// quickstartTypes finds the resources of a template with their versions.
var quickstartTypes = regexp.MustCompile(`"type":\s*"([A-Za-z.]+/[A-Za-z/]+)",\s*"apiVersion":\s*"([0-9a-z-]+)"`)

// Whatever published specifications, templates and lists of what clients send say of
// a type that there is here, its version is taken.
func TestPublishedVersionsAreTaken(t *testing.T) {
	const data = "../../../shared/data/"
	if _, err := os.Stat(data); err != nil {
		t.Skip("shared/data is absent, so the published versions are not held against")
	}
	a := newApp(t)
	here := map[string]bool{}
	for _, k := range a.resources.Kinds() {
		here[strings.ToLower(k.Type)] = true
	}
	n := 0
	check := func(from, typ, v string) {
		if !here[strings.ToLower(typ)] {
			return
		}
		n++
		if err := resource.Supports(typ, v); err != nil {
			t.Errorf("%s: %v", from, err)
		}
	}
	specs, _ := filepath.Glob(data + "arm-specs/*/resource-manager/*/*/*/*.json")
	for _, f := range specs {
		var spec struct {
			Info  struct{ Version string }
			Paths map[string]any
		}
		read(t, f, &spec)
		for path := range spec.Paths {
			if typ := typeOf(path); typ != "" {
				check(f, typ, spec.Info.Version)
			}
		}
	}
	bicep, _ := filepath.Glob(data + "bicep-types/*/*/*/types.json")
	for _, f := range bicep {
		var types []struct{ Name string }
		read(t, f, &types)
		for _, x := range types {
			if typ, v, ok := strings.Cut(x.Name, "@"); ok {
				check(f, typ, v)
			}
		}
	}
	lists, _ := filepath.Glob(data + "client-contract/*.tsv")
	for _, f := range lists {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if cols := strings.Split(line, "\t"); len(cols) > 5 && typeOf(cols[4]) != "" {
				check(f, typeOf(cols[4]), cols[5])
			}
		}
	}
	templates, _ := filepath.Glob(data + "quickstarts-ml/*/*.json")
	for _, f := range templates {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range quickstartTypes.FindAllStringSubmatch(string(b), -1) {
			check(f, m[1], m[2])
		}
	}
	if n < 250 {
		t.Errorf("only %d published versions were of types here", n)
	}
	t.Logf("%d published versions", n)
}

// typeOf is the type that a specification's path names; "" if it is none's item.
func typeOf(path string) string {
	_, below, ok := strings.Cut(path, "/providers/")
	if !ok || strings.Contains(below, "/providers/") {
		return ""
	}
	segs := strings.Split(below, "/")
	typ := segs[0]
	for i := 1; i < len(segs); i += 2 {
		typ += "/" + segs[i]
	}
	return typ
}

func read(t *testing.T, file string, into any) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}
