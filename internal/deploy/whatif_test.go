package deploy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"castellan/internal/arm"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// whatIf asks what a deployment at the path would change, fetches the result as
// clients do, and holds that nothing has changed by it.
func (w *world) whatIf(who, path, body string) (map[string]change, string) {
	w.t.Helper()
	before := w.all()
	r := w.do(who, "POST", path+"/whatIf", body, 202)
	at, here := strings.CutPrefix(r.header.Get("Location"), "https://castellan.localhost")
	if !here {
		w.t.Fatalf("the answer is %s with the headers %v", r.text, r.header)
	}
	w.do("eve", "GET", at, "", 404)
	r = w.do(who, "GET", at, "", 200)
	if after := w.all(); after != before {
		w.t.Errorf("there was\n%s\nand now there is\n%s", before, after)
	}
	var b struct {
		Status     string
		Properties struct{ Changes []change }
	}
	w.must(json.Unmarshal([]byte(r.text), &b))
	out := map[string]change{}
	for _, c := range b.Properties.Changes {
		if _, twice := out[c.ID.Name()]; twice || b.Status != "Succeeded" {
			w.t.Errorf("%s is told twice, or the status is %s", c.ID, b.Status)
		}
		out[c.ID.Name()] = c
	}
	return out, r.text
}

// all is every resource as it is kept.
func (w *world) all() (out string) {
	w.must(w.db.View(w.t.Context(), func(tx *store.Tx) error {
		for _, scope := range []string{rg, "/subscriptions/sub"} {
			docs, err := resource.Below(tx, arm.MustID(scope))
			for _, d := range docs {
				out += fmt.Sprintln(d.ID.Key(), d.Etag, string(d.Properties))
			}
			if err != nil {
				return err
			}
		}
		return nil
	}))
	return out
}

func types(changes map[string]change) string {
	var out []string
	for name, c := range changes {
		out = append(out, name+":"+c.Type)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// What-if tells what a deployment would do to each resource, and to each of its
// properties, in both modes and in both formats.
func TestWhatIf(t *testing.T) {
	w := newWorld(t)
	w.deploy("ann", "before", resources(one("things", "a", `"tags":{"x":"1"},"properties":{"size":7,"list":["p",{"q":1}]}`), one("things", "same", ""), one("things", "beside", ""), one("things", "off", "")), "")
	template := resources(
		one("things", "a", `"properties":{"other":"new","list":["p",{"q":2},3],"provisioningState":"mine"}`), one("things", "same", `"properties":{"size":1}`), one("things", "new", ""), one("things/parts", "new/p", `"dependsOn":["new"]`),
		one("things", "off", `"condition":false`), one("things", "maybe", `"condition":"[greater(reference('new').size,0)]"`), one("things", "later", `"properties":{"size":"[reference('new').size]"}`), one("things", "text", `"properties":{"other":"[reference('new').other]"}`),
		nest("inner", "", resources(one("things", "deep", ""))), nest("unknown", "", resources(one("things", "[concat('x', reference('new').other)]", ""))),
	)
	got, text := w.whatIf("ann", deps+"d", request(template, ""))
	if want := "a:Modify beside:Ignore deep:Create later:Unsupported maybe:Unsupported new:Create off:Ignore p:Create same:NoChange text:Create unknown:Unsupported"; types(got) != want {
		t.Errorf("what-if tells %s, want %s", types(got), want)
	}
	a, err := json.Marshal(got["a"].Delta)
	w.must(err)
	if want := `[{"path":"properties.list","propertyChangeType":"Array","children":[{"path":"1","propertyChangeType":"Modify","children":[{"path":"q","propertyChangeType":"Modify","before":1,"after":2}]},{"path":"2","propertyChangeType":"Create","after":3}]},` +
		`{"path":"properties.other","propertyChangeType":"Create","after":"new"},{"path":"properties.size","propertyChangeType":"Modify","before":7,"after":1},{"path":"tags.x","propertyChangeType":"Delete","before":"1"},{"path":"properties.provisioningState","propertyChangeType":"NoEffect"}]`; string(a) != want {
		t.Errorf("the delta is\n%s, want\n%s", a, want)
	}
	if got["a"].Before["name"] != "a" || got["new"].After["apiVersion"] != "2024-01-01" || got["new"].Before != nil || got["beside"].After != nil || !strings.Contains(text, "[reference('new').other]") {
		t.Errorf("what-if tells %s", text)
	}
	complete := func(body string) string { return strings.Replace(body, "Incremental", "Complete", 1) }
	if got, _ := w.whatIf("ann", deps+"d", complete(request(resources(one("things", "a", "")), ""))); types(got) != "a:Modify beside:Delete off:Delete same:Delete" {
		t.Errorf("in mode Complete what-if tells %s", types(got))
	}
	ids := strings.Replace(request(template, ""), `"mode"`, `"whatIfSettings":{"resultFormat":"ResourceIdOnly"},"mode"`, 1)
	if got, text := w.whatIf("ann", deps+"d", ids); types(got) != "a:Deploy beside:Ignore deep:Create later:Unsupported maybe:Unsupported new:Create off:Ignore p:Create same:Deploy text:Create unknown:Unsupported" || strings.Contains(text, `"after"`) {
		t.Errorf("with ids alone what-if tells %s: %s", types(got), text)
	}
}

// At wider scopes what-if tells of groups and of what goes into them before they
// are there, and of nothing but NoChange once they are.
func TestWhatIfAtScopes(t *testing.T) {
	w := newWorld(t)
	template := resources(group("made", `,"tags":{"a":"b"}`), own("into", `,"resourceGroup":"made","dependsOn":["made"]`, resources(one("things", "x", `"properties":{"size":2}`))))
	if got, text := w.whatIf("bob", subDeps+"d", wide(template)); types(got) != "made:Create x:Create" || got["x"].After["name"] != "x" {
		t.Errorf("what-if tells %s: %s", types(got), text)
	}
	w.await("bob", subDeps+"d", w.do("bob", "PUT", subDeps+"d", wide(template), 201))
	for path, who := range map[string]string{subDeps: "bob", mgDeps: "ann", tenantDeps: "ann"} {
		at := resources(own("sub", `,"subscriptionId":"sub","location":"here"`, template))
		if got, text := w.whatIf(who, path+"d", wide(at)); types(got) != "made:NoChange x:NoChange" {
			t.Errorf("%s: what-if tells %s", path, text)
		}
	}
}

// What-if is no way to see what its caller may not read, or to learn more of
// what a deployment would come to than who may deploy it; nor does it tell, keep
// or repeat secrets.
func TestWhatIfRevealsNothing(t *testing.T) {
	w := newWorld(t)
	w.deploy("ann", "before", resources(one("things", "unreadable", `"properties":{"other":"private"}`), one("things", "s", `"properties":{"key":"older"}`)), "")
	got, text := w.whatIf("bob", deps+"d", request(resources(one("things", "unreadable", ""), one("things", "s", "")), ""))
	if types(got) != "s:Modify unreadable:Unsupported" || strings.Contains(text, "private") {
		t.Errorf("what-if tells %s", text)
	}
	if got, text := w.whatIf("bob", deps+"d", request(resources(), "")); types(got) != "s:Ignore" || strings.Contains(text, "unreadable") {
		t.Errorf("beside the template what-if tells %s", text)
	}
	complete := strings.Replace(request(resources(), ""), "Incremental", "Complete", 1)
	for who, c := range map[string]struct {
		body, code string
		status     int
	}{
		"bob": {complete, "InvalidTemplateDeployment", 403},
		"eve": {request(resources(), ""), "AuthorizationFailed", 403},
	} {
		if got := w.do(who, "POST", deps+"d/whatIf", c.body, c.status); got.str("error", "code") != c.code || strings.Contains(got.text, "unreadable") {
			t.Errorf("%s: %s", who, got.text)
		}
	}
	for name, c := range map[string]struct {
		at, body, code string
		status         int
	}{
		"another's group":  {deps, request(resources(own("n", `,"resourceGroup":"shut"`, resources(one("things", "x", "")))), ""), "InvalidTemplateDeployment", 403},
		"a type of nobody": {deps, request(resources(`{"type":"A.B/c","apiVersion":"2024-01-01","name":"x"}`), ""), "InvalidResourceType", 400},
		"no group":         {deps, request(resources(own("n", `,"resourceGroup":"none"`, resources(one("things", "x", "")))), ""), "ResourceGroupNotFound", 404},
		"no location":      {subDeps, request(resources(), ""), "LocationRequired", 400},
		"another format":   {deps, strings.Replace(request(resources(), ""), `"mode"`, `"whatIfSettings":{"resultFormat":"All"},"mode"`, 1), string(arm.Unsupported), 400},
	} {
		if got := w.do("bob", "POST", c.at+"d/whatIf", c.body, c.status); got.str("error", "code") != c.code {
			t.Errorf("%s: %s", name, got.text)
		}
	}
	secret := func(other string) string {
		return request(`{"parameters":{"pw":{"type":"securestring"}},"resources":[`+one("things", "s", `"tags":{"t":"[concat('x', parameters('pw'))]"},"properties":{"other":"`+other+`","key":"[parameters('pw')]"}`)+`]}`, `{"pw":{"value":"hunter2"}}`)
	}
	got, text = w.whatIf("bob", deps+"d", secret("right"))
	if types(got) != "s:Modify unreadable:Ignore" && types(got) != "s:Modify" || strings.Contains(text, "hunter2") || !strings.Contains(text, "older") {
		t.Errorf("what-if tells %s", text)
	}
	if r := w.do("bob", "POST", deps+"d/whatIf", secret("wrong"), 400); r.str("error", "code") != "BadRequest" || !strings.Contains(r.text, "the thing is wrong") || strings.Contains(r.text, "hunter2") {
		t.Errorf("the error is %s", r.text)
	}
	w.must(w.db.View(t.Context(), func(tx *store.Tx) error {
		rows, err := tx.Scan("operations", "", "", 0)
		for _, r := range rows {
			if strings.Contains(string(r.Value), "hunter2") {
				t.Errorf("%s keeps the secret", r.Key)
			}
		}
		return err
	}))
}
