package app

import (
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"castellan/internal/arm"
	"castellan/internal/resource"
)

// otherwise are the properties that are not as specified, each with the reason.
var otherwise = map[*regexp.Regexp]string{
	regexp.MustCompile(`managementPolicies policy\.rules\[\*]\.definition\.actions\.(snapshot|version)\.(enableAuto|.*(Modification|LastAccessTime)Greater)`): "one type of actions serves blobs, snapshots and versions, and the check of a rule refuses these by name",
}

// Every property of every Kind is shown to, and taken from, who asks with a
// version exactly if the specification of that version has it.
func TestShapesAreThePublished(t *testing.T) {
	spec := specification(t)
	a := newApp(t)
	n, used := 0, map[string]bool{}
	for _, k := range a.resources.Kinds() {
		for v, shapes := range spec.items[strings.ToLower(k.Type)] {
			for _, path := range k.Paths() {
				n++
				has := hasPath(shapes, append([]string{"properties"}, strings.Split(strings.ReplaceAll(path, "[*]", ".[*]"), ".")...))
				shown, why := k.Has(v, path), ""
				for r, reason := range otherwise {
					if shown != has && r.MatchString(k.Type+" "+path) {
						why = reason
					}
				}
				used[why] = true
				if shown != has && why == "" {
					t.Errorf("%s %s: %s is shown: %t; the specification has it: %t", k.Type, v, path, shown, has)
				}
			}
		}
	}
	if n < 1300 {
		t.Errorf("only %d properties were compared", n)
	}
	for _, why := range otherwise {
		if !used[why] {
			t.Errorf("nothing is any more such that %s", why)
		}
	}
}

// A property came with versions that its type has.
func TestShapesNameVersions(t *testing.T) {
	shapes := maps.Clone(resource.Shapes())
	for _, k := range newApp(t).resources.Kinds() {
		shapes[k.Type] = resource.Shape{"systemData": k.SystemData}
		if k.Props != nil {
			maps.Copy(shapes[k.Type], arm.Since(k.Props()))
			maps.Copy(shapes[k.Type], k.Since)
		}
	}
	for typ, shape := range shapes {
		for path, rule := range shape {
			for _, v := range strings.Fields(rule) {
				if v != "previews" && v != "never" && !slices.Contains(resource.Versions(typ), v) {
					t.Errorf("%s of %s came with %s, which the type does not have", path, typ, v)
				}
			}
		}
	}
}

// Who asks with an api-version that does not have a property is not shown it and
// may not send it; a PUT by them leaves it as it is.
func TestOlderVersionsKeepWhatTheyDoNotKnow(t *testing.T) {
	a := newApp(t)
	p := newPoliced(t, a)
	account := p.group + "/providers/Microsoft.Storage/storageAccounts/ages"
	const old, now = "?api-version=2018-11-01", "?api-version=2023-05-01"
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
			if w := call(a, p.token, method, account+old, sent(bad)); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "2018-11-01") {
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

// Who writes what is no Kind with a version that doesn't know of a restriction may
// not speak of it, is not shown it, and does not take it away.
func TestOlderVersionsKeepRestrictions(t *testing.T) {
	a := newApp(t)
	p := newPoliced(t, a)
	dev := a.newPerson(t, "dev")
	put := func(want int, at, v string, props map[string]any) map[string]any {
		t.Helper()
		return must(t, a, want, p.token, http.MethodPut, p.group+"/providers/Microsoft.Authorization/"+at+"?api-version="+v, map[string]any{"properties": props})
	}
	got := func(at, v string) map[string]any {
		t.Helper()
		return must(t, a, http.StatusOK, p.token, http.MethodGet, p.group+"/providers/Microsoft.Authorization/"+at+"?api-version="+v, nil)["properties"].(map[string]any)
	}
	const condition = "@Resource[Microsoft.Storage/storageAccounts/blobServices/containers:name] StringEquals 'con'"
	assignment := "roleAssignments/" + arm.NewUUID()
	given := map[string]any{"roleDefinitionId": "/providers/Microsoft.Authorization/roleDefinitions/ba92f5b4-2d11-453d-a403-e96b0029c9fe", "principalId": dev.object}
	limited := maps.Clone(given)
	limited["condition"], limited["conditionVersion"] = condition, "2.0"
	put(http.StatusBadRequest, assignment, "2015-07-01", limited)
	put(http.StatusCreated, assignment, "2022-04-01", limited)
	if was := got(assignment, "2015-07-01"); was["condition"] != nil || was["createdOn"] != nil || was["principalId"] != dev.object {
		t.Errorf("2015-07-01 is shown %v", was)
	}
	put(http.StatusOK, assignment, "2015-07-01", given)
	if now := got(assignment, "2022-04-01"); now["condition"] != condition {
		t.Errorf("a PUT by 2015-07-01 left %v", now)
	}
	for _, x := range must(t, a, http.StatusOK, p.token, http.MethodGet, p.group+"/providers/Microsoft.Authorization/roleAssignments?api-version=2018-01-01-preview", nil)["value"].([]any) {
		if props := x.(map[string]any)["properties"].(map[string]any); props["condition"] != nil || props["principalType"] != nil {
			t.Errorf("2018-01-01-preview lists %v", props)
		}
	}
	def := p.define("old", "All", nil, tree(t, `{"if":{"field":"name","equals":"x"},"then":{"effect":"audit"}}`))
	plain := map[string]any{"policyDefinitionId": def}
	full := map[string]any{"policyDefinitionId": def, "notScopes": []any{p.path(p.group) + "/providers/Microsoft.KeyVault/vaults/x"}, "enforcementMode": "DoNotEnforce",
		"resourceSelectors": tree(t, `[{"name":"s","selectors":[{"kind":"resourceLocation","in":["local"]}]}]`)}
	put(http.StatusBadRequest, "policyAssignments/p", "2019-01-01", full)
	put(http.StatusCreated, "policyAssignments/p", "2022-06-01", full)
	put(http.StatusCreated, "policyAssignments/p", "2019-01-01", plain)
	if now := got("policyAssignments/p", "2022-06-01"); now["enforcementMode"] != "DoNotEnforce" || now["resourceSelectors"] == nil || now["notScopes"] != nil && len(now["notScopes"].([]any)) > 0 {
		t.Errorf("a PUT by 2019-01-01 left %v", now)
	}
}
