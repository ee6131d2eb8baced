package deploy

import (
	"slices"
	"strings"
	"testing"
)

func (w *world) complete(who, name, template string, query ...string) reply {
	w.t.Helper()
	body := strings.Replace(request(template, ""), "Incremental", "Complete", 1)
	return w.await(who, deps+name, w.do(who, "PUT", deps+name+strings.Join(query, ""), body, 0))
}

// things are the names of all things in the group.
func (w *world) names() string {
	var out []string
	for _, typ := range []string{"things", "slows"} {
		for _, x := range w.do("ann", "GET", rg+"/providers/Microsoft.Storage/"+typ, "", 200).body["value"].([]any) {
			out = append(out, x.(map[string]any)["name"].(string))
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// nest is a deployment within a template.
func nest(name, more, inner string) string {
	return `{"type":"Microsoft.Resources/deployments","apiVersion":"2021-04-01","name":"` + name + `"` + more + `,"properties":{"mode":"Incremental","template":` + inner + `}}`
}

// Mode Complete deletes what lies directly in the group and not in the template,
// once all of it is deployed: what nested templates have stays, and so do
// records of deployments, children of what stays and other groups.
func TestComplete(t *testing.T) {
	w := newWorld(t)
	other := `"scope":"/subscriptions/sub/resourceGroups/shut"`
	before := func() {
		w.deploy("ann", "before", resources(one("things", "a", ""), one("things/parts", "a/p", `"dependsOn":["a"]`), one("things", "b", ""), one("things", "spoken", ""), one("things", "off", ""), one("things", "nested", ""), one("slows", "s", ""), one("things", "elsewhere", other)), "")
	}
	before()
	template := resources(one("things", "a", ""), one("things", "new", ""), one("things", "off", `"condition":false`), nest("deep", "", resources(one("things", "nested", ""))))
	got := w.complete("bob", "d", template)
	if got.str("properties", "provisioningState") != "Succeeded" || got.str("properties", "mode") != "Complete" || w.names() != "a nested new" {
		t.Errorf("there are %s after %s", w.names(), got.text)
	}
	ops := w.do("ann", "GET", deps+"d/operations", "", 200)
	if strings.Count(ops.text, `"provisioningOperation":"Delete"`) != 4 {
		t.Errorf("the operations are %s", ops.text)
	}
	w.do("ann", "GET", rg+"/providers/Microsoft.Storage/things/a/parts/p", "", 200)
	w.do("ann", "GET", deps+"before", "", 200)
	w.do("ann", "GET", "/subscriptions/sub/resourceGroups/shut/providers/Microsoft.Storage/things/elsewhere", "", 200)

	before()
	if w.complete("ann", "old", template, "?api-version=2019-05-01"); w.names() != "a nested new off" {
		t.Errorf("by an older version there are %s", w.names())
	}
	symbolic := `{"languageVersion":"2.0","resources":{"x":{"existing":true,"type":"Microsoft.Storage/things","apiVersion":"2024-01-01","name":"a"}}}`
	if w.complete("ann", "existing", symbolic); w.names() != "a" {
		t.Errorf("what is spoken of as existing is gone: %s", w.names())
	}
}

// Nothing is made, and nothing deleted, where mode Complete would delete what is
// locked, or what its caller may not delete; a nested deployment has no such mode.
func TestCompleteHasItsCallersRights(t *testing.T) {
	w := newWorld(t)
	complete := strings.Replace(nest("n", "", resources()), "Incremental", "Complete", 1)
	late := strings.Replace(nest("n", `,"condition":"[greater(reference('new').size, 0)]"`, resources()), "Incremental", "Complete", 1)
	for name, c := range map[string]struct {
		who, there, template, code string
		status                     int
	}{
		"a lock":                    {"ann", "locked", resources(one("things", "new", "")), "ScopeLocked", 409},
		"not the caller's right":    {"bob", "kept", resources(one("things", "new", "")), "InvalidTemplateDeployment", 403},
		"the right to nothing":      {"eve", "kept", resources(), "AuthorizationFailed", 403},
		"nested, another's mode":    {"ann", "x", resources(one("things", "new", ""), complete), "InvalidTemplate", 400},
		"nested in nested":          {"ann", "x", resources(one("things", "new", ""), nest("m", "", resources(complete))), "InvalidTemplate", 400},
		"nested, a late condition":  {"ann", "x", resources(one("things", "new", ""), late), "InvalidTemplate", 400},
		"nested in another's group": {"bob", "x", resources(strings.Replace(complete, `"name"`, `"resourceGroup":"shut","name"`, 1)), "InvalidTemplate", 400},
	} {
		w.deploy("ann", "before", resources(one("things", c.there, "")), "")
		body := strings.Replace(request(c.template, ""), "Incremental", "Complete", 1)
		if got := w.do(c.who, "PUT", deps+"d", body, c.status); got.str("error", "code") != c.code {
			t.Errorf("%s: %s", name, got.text)
		}
		if strings.Contains(w.names(), "new") || !strings.Contains(w.names(), c.there) {
			t.Errorf("%s: there are %s", name, w.names())
		}
	}
}

// What is locked, or taken from the caller, while the deployment runs stays, and
// the deployment fails by it; all else is deleted.
func TestCompleteStopsAtLocks(t *testing.T) {
	w := newWorld(t)
	w.deploy("ann", "before", resources(one("things", "x", ""), one("slows", "s", "")), "")
	w.fault = func(string) error {
		w.do("ann", "PUT", rg+"/providers/Microsoft.Storage/things/locked", `{"location":"here"}`, 0)
		return nil
	}
	got := w.complete("ann", "d", resources(one("slows", "s", "")))
	if got.str("properties", "provisioningState") != "Failed" || !strings.Contains(got.text, "ScopeLocked") || w.names() != "locked s" {
		t.Errorf("there are %s after %s", w.names(), got.text)
	}
}
