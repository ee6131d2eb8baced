package app

import (
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"castellan/internal/resource"
)

// published are types of one api-version, as their publisher lists them.
type published []struct {
	Kind           string `json:"$type"`
	Name           string
	Body, ItemType ref
	Properties     map[string]struct{ Type ref }
	BaseProperties map[string]struct{ Type ref }
	Elements       any // refs by name of a discriminated object, or a union's list
}

type ref struct {
	Ref string `json:"$ref"`
}

// has reports whether the type at has the property that path names; what is no
// object has any.
func (p published) has(at ref, path []string, depth int) bool {
	if len(path) == 0 || depth > 20 {
		return true
	}
	i := 0
	for _, d := range strings.TrimPrefix(at.Ref, "#/") {
		i = i*10 + int(d-'0')
	}
	switch x := p[i]; x.Kind {
	case "ObjectType", "DiscriminatedObjectType":
		for _, props := range []map[string]struct{ Type ref }{x.Properties, x.BaseProperties} {
			for name, f := range props {
				if strings.EqualFold(name, path[0]) {
					return p.has(f.Type, path[1:], depth+1)
				}
			}
		}
		elements, _ := x.Elements.(map[string]any)
		for _, e := range elements {
			r, _ := e.(map[string]any)["$ref"].(string)
			if p.has(ref{r}, path, depth+1) {
				return true
			}
		}
		return x.Kind == "ObjectType" && len(x.Properties) == 0 // a map
	}
	return true
}

// A property is shown to, and taken from, callers with the api-versions that have
// it: of the published versions of a type here, each has those of its properties
// that the Kind says it has, as far as any version has them.
func TestShapesAreThePublished(t *testing.T) {
	files, _ := filepath.Glob("../../../shared/data/bicep-types/*/*/*/types.json")
	if len(files) == 0 {
		t.Skip("shared/data is absent, so the published shapes are not held against")
	}
	a := newApp(t)
	type seen struct{ with, without []string } // versions
	found := map[string]*seen{}
	for _, f := range files {
		var p published
		read(t, f, &p)
		for _, x := range p {
			typ, v, ok := strings.Cut(x.Name, "@")
			k := a.resources.Kind(typ)
			if !ok || k == nil {
				continue
			}
			for _, path := range k.Paths() {
				s := found[k.Type+" "+path]
				if s == nil {
					s = &seen{}
					found[k.Type+" "+path] = s
				}
				if p.has(x.Body, append([]string{"properties"}, strings.Split(path, ".")...), 0) {
					s.with = append(s.with, v)
				} else {
					s.without = append(s.without, v)
				}
			}
		}
	}
	for key, s := range found {
		typ, path, _ := strings.Cut(key, " ")
		// Some previews had the first long before the first version that is none, and
		// azure-ai-ml sends the others with versions that were published without them.
		if len(s.with) == 0 || strings.HasPrefix(path, "encryption.") || path == "systemDatastoresAuthMode" || path == "provisionNetworkNow" {
			continue
		}
		since := a.resources.Kind(typ).Since[path]
		if first := slices.Min(s.with); since > first {
			t.Errorf("%s came with %s, and %s has it", key, since, first)
		}
		for _, v := range s.without {
			if v >= since && v < slices.Min(s.with) {
				t.Errorf("%s came with %q, and %s does not have it", key, since, v)
			}
		}
	}
	if len(found) < 150 {
		t.Errorf("only %d properties were found", len(found))
	}
}

// Who asks with an api-version that does not have a property is not shown it and
// may not send it; a PUT by them leaves it as it is.
func TestOlderVersionsKeepWhatTheyDoNotKnow(t *testing.T) {
	a := newApp(t)
	p := newPoliced(t, a)
	for _, k := range a.resources.Kinds() {
		for path, since := range k.Since {
			if !slices.Contains(resource.Versions(k.Type), since) || !slices.Contains(k.Paths(), path) {
				t.Errorf("%s has no %s, or no version %s", k.Type, path, since)
			}
		}
	}
	account := p.group + "/providers/Microsoft.Storage/storageAccounts/ages"
	const old, now = "?api-version=2019-04-01", "?api-version=2023-05-01"
	props := func(v string) map[string]any {
		return must(t, a, http.StatusOK, p.token, http.MethodGet, account+v, nil)["properties"].(map[string]any)
	}
	sent := func(props map[string]any) map[string]any {
		return map[string]any{"location": "local", "kind": "StorageV2", "sku": map[string]any{"name": "Standard_LRS"}, "properties": props}
	}
	must(t, a, http.StatusOK, p.token, http.MethodPut, account+now, sent(map[string]any{
		"publicNetworkAccess": "Disabled", "minimumTlsVersion": "TLS1_2",
	}))
	had := props(now)
	if had["publicNetworkAccess"] != "Disabled" {
		t.Fatalf("the account has %v", had)
	}
	if got := props(old); got["publicNetworkAccess"] != nil || got["minimumTlsVersion"] != nil {
		t.Errorf("an older version is shown %v", got)
	}
	for _, v := range must(t, a, http.StatusOK, p.token, http.MethodGet, p.group+"/providers/Microsoft.Storage/storageAccounts"+old, nil)["value"].([]any) {
		if got := v.(map[string]any)["properties"].(map[string]any); got["publicNetworkAccess"] != nil {
			t.Errorf("an older version is listed %v", got)
		}
	}
	for _, bad := range []map[string]any{{"publicNetworkAccess": "Enabled"}, {"PublicNetworkAccess": "Enabled"}, {"networkAcls": map[string]any{"IPV6rules": []any{}}}} {
		for _, method := range []string{http.MethodPut, http.MethodPatch} {
			if w := call(a, p.token, method, account+old, sent(bad)); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "2019-04-01") {
				t.Errorf("%s of %v by an older version = %d %s", method, bad, w.Code, w.Body)
			}
		}
	}
	for _, body := range []map[string]any{sent(map[string]any{"networkAcls": map[string]any{"defaultAction": "Deny"}}), sent(nil), {"location": "local", "kind": "StorageV2", "sku": map[string]any{"name": "Standard_LRS"}}} {
		must(t, a, http.StatusOK, p.token, http.MethodPut, account+old, body)
		got := props(now)
		if got["publicNetworkAccess"] != "Disabled" || got["minimumTlsVersion"] != "TLS1_2" {
			t.Errorf("a PUT of %v by an older version left %v", body, got)
		}
	}
}
