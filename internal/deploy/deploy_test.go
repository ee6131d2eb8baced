package deploy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"castellan/internal/arm"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// A template becomes resources, each after what it depends on, and its results
// can be read; the Azure CLI's form, with comments and a name without quotes,
// is taken.
func TestDeployment(t *testing.T) {
	w := newWorld(t)
	const template = `{
		// what the CLI sends as it is in the file
		"$schema": "x", "contentVersion": "1.0.0.0",
		"parameters": {"prefix": {"type": "string"}, "pw": {"type": "securestring"}, "count": {"type": "int", "defaultValue": 2}},
		"variables": {"first": "[concat(parameters('prefix'), '-a')]"},
		"resources": [
			{"type": "Microsoft.Storage/things/parts", "apiVersion": "2024-01-01", "name": "[concat(variables('first'), '/p')]", "dependsOn": ["[resourceId('Microsoft.Storage/things', variables('first'))]"]},
			{"type": "Microsoft.Storage/things", "apiVersion": "2024-01-01", "name": "last", "location": "here", "properties": {"size": "[reference('slow').size]", "key": "[parameters('pw')]"}},
			{"type": "Microsoft.Storage/things", "apiVersion": "2024-01-01", "name": "[variables('first')]", "location": "[resourceGroup().location]", "tags": {"a": "[deployment().name]"}},
			{"type": "Microsoft.Storage/slows", "apiVersion": "2024-01-01", "name": "slow", "location": "here", "properties": {"size": 7}, "dependsOn": ["loop"]},
			{"type": "Microsoft.Storage/things", "apiVersion": "2024-01-01", "name": "[format('{0}-c{1}', parameters('prefix'), copyIndex())]", "location": "here", "copy": {"name": "loop", "count": "[parameters('count')]"}, "dependsOn": ["[variables('first')]"]},
			{"condition": "[equals(parameters('count'), 9)]", "type": "No.Such/things", "apiVersion": "2024-01-01", "name": "never"},
		],
		"outputs": {"size": {"type": "int", "value": "[reference(resourceId('Microsoft.Storage/slows', 'slow'), '2024-01-01').size]"}, "pw": {"type": "securestring", "value": "[parameters('pw')]"}, "full": {"type": "string", "value": "[reference('last', '2024-01-01', 'Full').location]"}}
	}`
	got := w.deploy("ann", "d1", template, `{"prefix":{"value":"x"},"pw":{"value":"hunter2-secret"}}`)
	if got.str("properties", "provisioningState") != "Succeeded" {
		t.Fatalf("the deployment is %s\n%s", got.text, w.do("ann", "GET", deps+"d1/operations", "", 200).text)
	}
	if w.order() != "x-a p x-c0 x-c1 slow last" {
		t.Errorf("the things were made in the order %s", w.order())
	}
	if got.str("properties", "outputs") != `{"full":{"type":"string","value":"here"},"pw":{"type":"securestring"},"size":{"type":"int","value":7}}` {
		t.Errorf("the outputs are %s", got.str("properties", "outputs"))
	}
	if last := w.do("ann", "GET", rg+"/providers/Microsoft.Storage/things/last", "", 200); last.str("properties", "size") != "7" || last.str("properties", "key") != "hunter2-secret" {
		t.Errorf("the last thing is %s", last.text)
	}
	for _, path := range []string{deps + "d1", deps[:len(deps)-1], deps + "d1/operations", rg + "/deployments/d1/operations"} {
		if r := w.do("ann", "GET", path, "", 200); strings.Contains(r.text, "hunter2") || strings.Contains(r.text, `"template"`) {
			t.Errorf("GET %s shows the secret or the template: %s", path, r.text)
		}
	}
	if r := w.do("ann", "POST", deps+"d1/exportTemplate", "", 200); strings.Contains(r.text, "hunter2") || !strings.Contains(r.text, "variables('first')") {
		t.Errorf("the exported template is %s", r.text)
	}
	list := w.do("ann", "GET", rg+"/deployments/d1/operations?api-version=2020-06-01", "", 200)
	first := list.body["value"].([]any)[0].(map[string]any)
	w.do("ann", "GET", deps+"d1/operations/"+first["operationId"].(string), "", 200)
	w.do("ann", "GET", deps+"d1/operations/none", "", 404)
	w.do("ann", "HEAD", deps+"d1", "", 204)
	w.do("ann", "HEAD", deps+"none", "", 404)
	w.must(w.db.View(t.Context(), func(tx *store.Tx) error {
		d, err := resource.Load(tx, arm.MustID(deps+"d1"))
		if err == nil && (strings.Contains(string(d.Inner), "hunter2") || strings.Contains(string(d.Properties), "hunter2")) {
			t.Error("the deployment keeps the secret after its end")
		}
		return err
	}))
	if again := w.deploy("ann", "d1", template, `{"prefix":{"value":"x"},"pw":{"value":"hunter2-secret"}}`); again.str("properties", "provisioningState") != "Succeeded" {
		t.Errorf("deployed again: %s", again.text)
	}
	_, over, _ := strings.Cut(w.do("ann", "DELETE", deps+"d1", "", 202).header.Get("Location"), "/subscriptions/")
	w.do("ann", "GET", "/subscriptions/"+over, "", 204) // clients ask how an accepted deletion went
	w.do("eve", "GET", "/subscriptions/"+over, "", 404)
	w.do("ann", "DELETE", deps+"d1", "", 204)
	w.do("ann", "GET", deps+"d1/operations", "", 404)
	w.do("ann", "GET", rg+"/providers/Microsoft.Storage/things/last", "", 200)
}

// RBAC-18, RBAC-09: a deployment has no rights of its own. With one resource
// that its caller may not write, or of a type that there is not, nothing of it
// is made, however deep it lies.
func TestNothingIsAppliedInPart(t *testing.T) {
	w := newWorld(t)
	nested := func(options, inner string) string {
		return `{"type":"Microsoft.Resources/deployments","apiVersion":"2021-04-01","name":"deep","properties":{"mode":"Incremental"` + options + `,"template":` + inner + `}}`
	}
	inner := `,"expressionEvaluationOptions":{"scope":"inner"}`
	elsewhere := `{"type":"Microsoft.Resources/deployments","apiVersion":"2021-04-01","name":"deep","resourceGroup":"shut","properties":{"mode":"Incremental","template":` + resources(one("things", "x", "")) + `}}`
	for name, c := range map[string]struct {
		who, template, code string
		status              int
	}{
		"a forbidden resource":      {"ann", resources(one("things", "ok", ""), one("things", "forbidden", "")), "InvalidTemplateDeployment", 403},
		"nested, outer":             {"ann", resources(one("things", "ok", ""), nested("", resources(one("things", "forbidden", "")))), "InvalidTemplateDeployment", 403},
		"nested, inner":             {"ann", resources(one("things", "ok", ""), nested(inner, resources(one("things", "forbidden", "")))), "InvalidTemplateDeployment", 403},
		"nested twice":              {"ann", resources(one("things", "ok", ""), nested(inner, resources(nested(inner, resources(one("things", "forbidden", "")))))), "InvalidTemplateDeployment", 403},
		"nested outer in outer":     {"ann", resources(one("things", "ok", ""), nested("", resources(nested("", resources(one("things", "[concat('for', 'bidden')]", "")))))), "InvalidTemplateDeployment", 403},
		"another group":             {"bob", resources(one("things", "ok", ""), elsewhere), "InvalidTemplateDeployment", 403},
		"by scope":                  {"bob", resources(one("things", "ok", ""), one("things", "x", `"scope":"/subscriptions/sub/resourceGroups/shut"`)), "InvalidTemplateDeployment", 403},
		"a group by subscriptionId": {"bob", resources(one("things", "ok", ""), one("things", "x", `"subscriptionId":"sub","resourceGroup":"Shut"`)), "InvalidTemplateDeployment", 403},
		"an unknown type":           {"ann", resources(one("things", "ok", ""), one("nosuch", "x", "")), "InvalidResourceType", 400},
		"an unknown type, later":    {"ann", resources(one("things", "ok", ""), nest("n", "", resources(one("things", "[concat('x', reference('ok').other)]", ""), one("nosuch", "x", "")))), "InvalidResourceType", 400},
		"an unknown type, deep":     {"ann", resources(one("things", "ok", ""), nested("", resources(one("nosuch", "x", "")))), "InvalidResourceType", 400},
		"a cycle":                   {"ann", resources(one("things", "a", `"dependsOn":["b"]`), one("things", "b", `"dependsOn":["a"]`)), "InvalidTemplate", 400},
		"one twice":                 {"ann", resources(one("things", "a", ""), one("things", "A", "")), "InvalidTemplate", 400},
		"no such dependency":        {"ann", resources(one("things", "a", `"dependsOn":["b"]`)), "InvalidTemplate", 400},
		"a name that climbs":        {"ann", resources(one("things", "a", ""), one("things", "..", "")), "InvalidTemplate", 400},
		"a name with a path":        {"ann", resources(one("things", "ok", ""), one("things", "a/providers/x", "")), "InvalidTemplate", 400},
		"a name with an escape":     {"ann", resources(one("things", "ok", ""), one("things", "%2e%2e", "")), "InvalidTemplate", 400},
		"a bad expression":          {"ann", resources(one("things", "ok", ""), one("things", "b", `"tags":{"a":"[concat(]"}`)), "InvalidTemplate", 400},
		"a secret unknown":          {"ann", `{"parameters":{"p":{"type":"secureString"}},"resources":[` + one("things", "ok", "") + `]}`, "InvalidTemplate", 400},
	} {
		got := w.do(c.who, "PUT", deps+"d", request(c.template, ""), c.status)
		if got.str("error", "code") != c.code {
			t.Errorf("%s: %s", name, got.text)
		}
		if v := w.do(c.who, "POST", deps+"d/validate", request(c.template, ""), c.status); v.str("error", "code") != c.code {
			t.Errorf("%s, validated: %s", name, v.text)
		}
	}
	w.do("eve", "PUT", deps+"d", request(resources(), ""), 403)
	w.do("bob", "PUT", strings.Replace(deps, "/rg/", "/shut/", 1)+"d", request(resources(), ""), 403)
	w.do("ann", "GET", deps+"d", "", 404)
	if w.order() != "" {
		t.Errorf("something was made: %s", w.order())
	}
}

// What only shows while resources are being made stops the deployment there:
// what the caller may not, is not done, and what comes behind it is not tried.
func TestFailuresStop(t *testing.T) {
	w := newWorld(t)
	late := `{"type":"Microsoft.Storage/things","apiVersion":"2024-01-01","name":"forbidden","location":"here","condition":"[equals(reference('a').size, 1)]"}`
	big := one("things", "big", `"properties":{"size":101,"key":"[parameters('pw')]"},"dependsOn":["a"]`)
	w.fault = func(name string) error {
		if name == "broken" {
			return arm.Errorf("Broken", "it broke")
		}
		return nil
	}
	for name, c := range map[string]struct{ template, code string }{
		"a condition known late":   {resources(one("things", "a", ""), late, one("things", "z", `"dependsOn":["forbidden"]`)), "AuthorizationFailed"},
		"a refusal":                {`{"parameters":{"pw":{"type":"securestring"}},"resources":[` + one("things", "a", "") + "," + big + "," + one("things", "z", `"dependsOn":["big"]`) + `]}`, "BadRequest"},
		"a slow failure":           {resources(one("things", "a", ""), one("slows", "broken", `"dependsOn":["a"]`), one("things", "z", `"dependsOn":["broken"]`)), "Broken"},
		"what may not be read":     {resources(one("things", "a", `"tags":{"x":"[string(reference(resourceId('Microsoft.Storage/things', 'unreadable')))]"}`), one("things", "z", `"dependsOn":["a"]`)), "AuthorizationFailed"},
		"what is not there":        {resources(one("things", "z", `"tags":{"x":"[string(reference(resourceId('Microsoft.Storage/things', 'none'), '2024-01-01'))]"}`)), "ResourceNotFound"},
		"an output that is not so": {`{"resources":[],"outputs":{"z":{"type":"int","value":"[string(1)]"}}}`, "InvalidTemplate"},
	} {
		params := ""
		if name == "a refusal" {
			params = `{"pw":{"value":"hunter2-secret"}}`
		}
		got := w.deploy("ann", "d", c.template, params)
		ops := w.do("ann", "GET", deps+"d/operations", "", 200)
		if got.str("properties", "provisioningState") != "Failed" || !strings.Contains(got.text, `"`+c.code+`"`) || strings.Contains(got.text+ops.text, "hunter2") {
			t.Errorf("%s: %s\n%s", name, got.text, ops.text)
		}
		if strings.Contains(" "+w.order()+" ", " z ") {
			t.Errorf("%s: what comes behind was made: %s", name, w.order())
		}
	}
	w.must(w.log.Sync(t.Context()))
	log, err := w.log.Tail(t.Context(), 100_000)
	w.must(err)
	refused, direct := 0, 0
	for _, e := range log {
		if strings.HasSuffix(e.Target, "/forbidden") && e.Decision == "refused" && e.Caller == "ann" && e.Action == "Microsoft.Storage/things/write" {
			refused++
		}
		if strings.HasSuffix(e.Target, "/things/a") && e.Action == "Microsoft.Storage/things/write" && e.Caller == "ann" {
			direct++
		}
		if strings.Contains(fmt.Sprintf("%+v", e), "hunter2") {
			t.Errorf("the log has the secret: %+v", e)
		}
	}
	if refused != 1 || direct < 3 {
		t.Errorf("the log has %d refused writes of the forbidden thing and %d writes of a by ann herself", refused, direct)
	}
}

// A deployment goes on only as long as its caller may sign in.
func TestCallerGone(t *testing.T) {
	w := newWorld(t)
	w.fault = func(string) error {
		w.mu.Lock()
		w.gone["bob"] = true
		w.mu.Unlock()
		return nil
	}
	r := w.do("bob", "PUT", deps+"d", request(resources(one("slows", "s", "")), ""), 201)
	if r.str("properties", "provisioningState") != "Running" {
		t.Errorf("a new deployment is %s", r.text)
	}
	d := w.kept("d")
	if in, err := innerOf(d); err != nil || in.Object != "bob" {
		t.Errorf("the run acts as %q (%v)", in.Object, err)
	}
	w.mu.Lock()
	w.gone["bob"] = true
	w.mu.Unlock()
	d.Inner = []byte(`{"object":"bob","template":{"resources":[]}}`)
	d.Properties = []byte(`{"provisioningState":"Creating"}`)
	if err := w.s.apply(t.Context(), d); err == nil || !strings.Contains(err.Error(), "may not sign in") {
		t.Errorf("a run of somebody who is gone: %v", err)
	}
}

// cut is Doors that break down at a certain call.
type cut struct {
	Doors
	left int
}

func (c *cut) Do(ctx context.Context, as arm.Caller, method string, id arm.ID, v string, body []byte) (Answer, error) {
	if c.left--; c.left < 0 {
		return Answer{}, errors.New("the power is out")
	}
	return c.Doors.Do(ctx, as, method, id, v, body)
}

// A run that was cut off goes on where it was: what was done is not done twice,
// ids that were made stay the same, and the secrets are there until the end.
func TestRunsResume(t *testing.T) {
	w := newWorld(t)
	const template = `{"parameters":{"pw":{"type":"securestring"},"id":{"type":"string","defaultValue":"[newGuid()]"}},"resources":[` +
		`{"type":"Microsoft.Storage/things","apiVersion":"2024-01-01","name":"[parameters('id')]","location":"here"},` +
		`{"type":"Microsoft.Storage/things","apiVersion":"2024-01-01","name":"b","location":"here","properties":{"key":"[parameters('pw')]"},"dependsOn":["[parameters('id')]"]},` +
		`{"type":"Microsoft.Storage/slows","apiVersion":"2024-01-01","name":"c","location":"here","dependsOn":["b"]}]}`
	s, doors := *w.s, &cut{Doors: w.s.Doors}
	s.Doors = doors
	p, err := s.prepare(t.Context(), arm.Caller{Tenant: "tenant", Object: "ann"}, arm.MustID(deps+"d"), properties{Mode: "Incremental", Template: []byte(template), Parameters: []byte(`{"pw":{"value":"hunter2"}}`)}, "", "2021-04-01")
	w.must(err)
	d := &resource.Doc{ID: arm.MustID(deps + "d"), Name: "d", Type: deploymentType, Instance: "i", Etag: "e"}
	w.must(w.db.Do(t.Context(), func(tx *store.Tx) error {
		if err := s.save(tx, resource.Change{Doc: d, Seen: p}); err != nil {
			return err
		}
		d.Properties = []byte(strings.Replace(string(d.Properties), "{", `{"provisioningState":"Creating",`, 1))
		return resource.Save(tx, d)
	}))
	tries := 0
	for err = errors.New("not yet"); err != nil && tries < 20; tries++ {
		doors.left = 1 // one call each time
		if tries > 10 {
			doors.left = 1000
		}
		err = s.apply(t.Context(), w.kept("d"))
	}
	names := strings.Fields(w.order())
	if err != nil || len(names) < 3 || names[1] != "b" || strings.Count(w.order(), " b") != 1 {
		t.Fatalf("after %d tries: %v, made %v", tries, err, names)
	}
	if err := s.apply(t.Context(), w.kept("d")); err != nil || len(strings.Fields(w.order())) != len(names) {
		t.Errorf("a run that is over does more: %v, made %s", err, w.order())
	}
}

// A run whose deployment was deleted, or deployed anew, stops where it is and
// writes nothing over its successor.
func TestReplacedRunsStop(t *testing.T) {
	w := newWorld(t)
	w.deploy("ann", "d", resources(one("things", "a", "")), "")
	for name, change := range map[string]func(*resource.Doc){
		"deployed anew": func(d *resource.Doc) { d.Etag = "older" },
		"another one":   func(d *resource.Doc) { d.Instance = "older" },
		"deleted":       func(d *resource.Doc) { d.ID = arm.MustID(deps + "none") },
	} {
		d := w.kept("d")
		before := string(d.Properties)
		d.Properties = []byte(`{"provisioningState":"Creating"}`)
		d.Inner = []byte(`{"object":"ann","tenant":"tenant","seed":"other","template":` + resources(one("things", "late", "")) + `}`)
		change(d)
		if err := w.s.apply(t.Context(), d); err == nil {
			t.Errorf("%s: the run went on", name)
		}
		if string(w.kept("d").Properties) != before || strings.Contains(w.order(), "late") {
			t.Errorf("%s: the run changed its successor, or made %s", name, w.order())
		}
	}
}

// Nested templates deploy with the rights, records and results of any other:
// inner ones with their own parameters, outer ones with their parent's.
func TestNested(t *testing.T) {
	w := newWorld(t)
	const template = `{
		"parameters": {"name": {"type": "string", "defaultValue": "outer"}, "pw": {"type": "securestring"}},
		"resources": [
			{"type": "Microsoft.Resources/deployments", "apiVersion": "2021-04-01", "name": "in", "properties": {"mode": "Incremental", "expressionEvaluationOptions": {"scope": "inner"},
				"parameters": {"name": {"value": "[concat(parameters('name'), '-in')]"}, "pw": {"value": "[parameters('pw')]"}, "text": {"value": "[parameters('pw')]"}},
				"template": {"$schema": "x", "contentVersion": "1", "parameters": {"name": {"type": "string"}, "pw": {"type": "securestring"}, "text": {"type": "secureString"}},
					"resources": [{"type": "Microsoft.Storage/things", "apiVersion": "2024-01-01", "name": "[parameters('name')]", "location": "here", "properties": {"key": "[parameters('pw')]"}}],
					"outputs": {"made": {"type": "string", "value": "[parameters('name')]"}}}}},
			{"type": "Microsoft.Resources/deployments", "apiVersion": "2021-04-01", "name": "out", "dependsOn": ["in"], "properties": {"mode": "Incremental",
				"template": {"$schema": "x", "contentVersion": "1",
					"resources": [{"type": "Microsoft.Storage/things", "apiVersion": "2024-01-01", "name": "[concat(parameters('name'), copyIndex())]", "location": "here", "copy": {"name": "c", "count": 2},
						"tags": {"literal": "[[not(1)]", "of": "[reference('in').outputs.made.value]"}},
						{"condition": "[equals(parameters('name'), 'other')]", "type": "No.Such/x", "apiVersion": "2024-01-01", "name": "n"}]}}}
		],
		"outputs": {"of": {"type": "string", "value": "[reference('in').outputs.made.value]"}}
	}`
	got := w.deploy("ann", "top", template, `{"pw":{"value":"[hunter2-secret]"}}`)
	if got.str("properties", "provisioningState") != "Succeeded" || got.str("properties", "outputs", "of", "value") != "outer-in" {
		t.Fatalf("the deployment is %s\n%s", got.text, w.do("ann", "GET", deps+"top/operations", "", 200).text)
	}
	if w.order() != "outer-in outer0 outer1" {
		t.Errorf("made: %s", w.order())
	}
	if th := w.do("ann", "GET", rg+"/providers/Microsoft.Storage/things/outer1", "", 200); th.str("tags", "literal") != "[not(1)]" || th.str("tags", "of") != "outer-in" {
		t.Errorf("the nested thing is %s", th.text)
	}
	if th := w.do("ann", "GET", rg+"/providers/Microsoft.Storage/things/outer-in", "", 200); th.str("properties", "key") != "[hunter2-secret]" {
		t.Errorf("a parameter that looks like an expression became %s", th.text)
	}
	for _, d := range []string{"top", "in", "out"} {
		if r := w.do("ann", "GET", deps+d, "", 200); strings.Contains(r.text, "hunter2") {
			t.Errorf("%s shows the secret: %s", d, r.text)
		}
	}
}

// More deployments than operations may be applied at one time do not stop each
// other, though each waits for operations of its own.
func TestManyAtOnce(t *testing.T) {
	w := newWorld(t)
	done := make(chan reply)
	for i := range 12 {
		go func() {
			var r reply
			defer func() { done <- r }() // also when the request fails the test
			inner := resources(one("slows", fmt.Sprintf("s%d", i), ""))
			r = w.deploy("ann", fmt.Sprintf("d%d", i), resources(`{"type":"Microsoft.Resources/deployments","apiVersion":"2021-04-01","name":"n`+fmt.Sprint(i)+`","properties":{"mode":"Incremental","template":`+inner+`}}`), "")
		}()
	}
	for range 12 {
		if r := <-done; r.str("properties", "provisioningState") != "Succeeded" {
			t.Error(r.text)
		}
	}
}

// Requests that are not what a deployment needs are refused with what is wrong.
func TestBadRequests(t *testing.T) {
	w := newWorld(t)
	for body, code := range map[string]string{
		`{}`:                                    "InvalidDeployment",
		`{"properties":{"mode":"Incremental"}}`: "InvalidDeployment",
		`{"properties":{"template":{"resources":[]}}}`:                                                                    "InvalidDeployment",
		`{"properties":{"mode":"Whole","template":{"resources":[]}}}`:                                                     "NotSupported",
		`{"properties":{"mode":"Incremental","templateLink":{"uri":"https://x/"}}}`:                                       "NotSupported",
		`{"properties":{"mode":"Incremental","template":{"resources":[]},"onErrorDeployment":{"type":"LastSuccessful"}}}`: "NotSupported",
		`{"properties":{"mode":"Incremental","template":{"resources":[]},"fancy":1}}`:                                     "InvalidRequestContent",
		`{"properties":{"mode":"Incremental","template":{"resources":[]},"MODE":"Incremental"}}`:                          "InvalidRequestContent",
		`{"properties":{"mode":"Incremental","template":[]}}`:                                                             "InvalidTemplate",
		`{"properties":{"mode":"Incremental","template":{"resource":[]}}}`:                                                "InvalidTemplate",
		`{"properties":{"mode":"Incremental","template":{"resources":[]},"parameters":{"x":{"value":1}}}}`:                "InvalidTemplate",
		`{"properties":{"mode":"Incremental","template":{"resources":[]},"parameters":[]}}`:                               "InvalidDeployment",
		`{"properties":`: "InvalidRequestContent",
	} {
		for _, at := range []string{"d", "d/validate"} {
			method := map[bool]string{true: "POST", false: "PUT"}[strings.HasSuffix(at, "/validate")]
			if got := w.do("ann", method, deps+at, body, 400); got.str("error", "code") != code {
				t.Errorf("%s %s: %s, want %s", at, body, got.text, code)
			}
		}
	}
	w.do("ann", "PUT", deps+strings.Repeat("x", 65), request(resources(), ""), 400)
	w.do("ann", "POST", strings.Replace(deps, "/rg/", "/none/", 1)+"d/validate", request(resources(), ""), 404)
	w.do("ann", "POST", strings.Replace(deps, "/rg/", "/rg%2fproviders%2fa%2fb%2fc/", 1)+"d/validate", request(resources(), ""), 400)
	got := w.do("ann", "POST", deps+"d/validate", request(resources(one("things", "a", "")), ""), 200)
	if !strings.Contains(got.str("properties", "validatedResources"), "/things/a") || w.order() != "" {
		t.Errorf("validated: %s, made %q", got.text, w.order())
	}
}
