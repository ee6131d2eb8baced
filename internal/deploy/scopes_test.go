package deploy

import (
	"context"
	"strings"
	"testing"

	"castellan/internal/arm"
)

const (
	subDeps    = "/subscriptions/sub/providers/Microsoft.Resources/deployments/"
	mgDeps     = "/providers/Microsoft.Management/managementGroups/tenant/providers/Microsoft.Resources/deployments/"
	tenantDeps = "/providers/Microsoft.Resources/deployments/"
)

// wide is a request for a deployment above resource groups.
func wide(template string) string {
	return strings.Replace(request(template, ""), "{", `{"location":"here",`, 1)
}

// own is a nested deployment with a template of its own.
func own(name, more, template string) string {
	return strings.Replace(nest(name, more, template), `"mode":"Incremental"`, `"mode":"Incremental","expressionEvaluationOptions":{"scope":"inner"}`, 1)
}

// group is a resource group in a template.
func group(name, more string) string {
	return `{"type":"Microsoft.Resources/resourceGroups","apiVersion":"2021-04-01","name":"` + name + `","location":"[deployment().location]"` + more + `}`
}

// A deployment to a subscription makes groups, and what goes into them by
// deployments of its own.
func TestSubscription(t *testing.T) {
	w := newWorld(t)
	template := `{"$schema":"x","contentVersion":"1.0.0.0","resources":[` + strings.Join([]string{
		own("into", `,"resourceGroup":"made","dependsOn":["[subscriptionResourceId('Microsoft.Resources/resourceGroups','made')]"]`, resources(one("things", "a", `"tags":{"of":"[resourceGroup().name]"}`))),
		group("made", `,"tags":{"by":"[subscription().subscriptionId]"}`),
		nest("same", `,"location":"here"`, resources(group("other", ""))),
	}, ",") + `],"outputs":{"id":{"type":"string","value":"[resourceId('Microsoft.Resources/resourceGroups','made')]"},"at":{"type":"string","value":"[reference(resourceId('Microsoft.Resources/resourceGroups/','made'),'2021-04-01','Full').location]"}}}`
	got := w.await("bob", subDeps+"d", w.do("bob", "PUT", subDeps+"d", wide(template), 201))
	if got.str("properties", "provisioningState") != "Succeeded" || got.str("location") != "here" || got.str("properties", "outputs", "id", "value") != "/subscriptions/sub/resourceGroups/made" || got.str("properties", "outputs", "at", "value") != "here" {
		t.Fatalf("the deployment is %s\n%s", got.text, w.do("bob", "GET", subDeps+"d/operations", "", 200).text)
	}
	th := w.do("bob", "GET", "/subscriptions/sub/resourceGroups/made/providers/Microsoft.Storage/things/a", "", 200)
	if th.str("tags", "of") != "made" || w.do("bob", "GET", "/subscriptions/sub/resourceGroups/made", "", 200).str("tags", "by") != "sub" {
		t.Errorf("the thing is %s", th.text)
	}
	list := w.do("bob", "GET", strings.TrimSuffix(subDeps, "/"), "", 200)
	if n := len(list.body["value"].([]any)); n != 2 {
		t.Errorf("the subscription lists %d deployments: %s", n, list.text)
	}
	w.do("bob", "POST", subDeps+"d/exportTemplate", "", 200)
	w.do("bob", "POST", subDeps+"d/validate", wide(template), 200)
	w.do("bob", "POST", subDeps+"d/cancel", "", 409)
	w.do("bob", "HEAD", subDeps+"d", "", 204)
	w.do("bob", "DELETE", subDeps+"d", "", 202)
	w.do("bob", "GET", subDeps+"d", "", 404)
	w.do("bob", "GET", deps+"d", "", 404)
}

// Above subscriptions the same doors serve, with functions of their own; what
// lies at the tenant is one tenant's, and shown without that.
func TestAboveSubscriptions(t *testing.T) {
	w := newWorld(t)
	deep := own("sub", `,"subscriptionId":"sub","location":"here"`, resources(group("made", "")))
	for path, template := range map[string]string{
		mgDeps:     `{"resources":[` + deep + `],"outputs":{"x":{"type":"string","value":"[concat(managementGroup().name, tenantResourceId('A.B/c','d'), managementGroupResourceId('A.B/c','e'))]"}}}`,
		tenantDeps: `{"resources":[` + own("m", `,"scope":"Microsoft.Management/managementGroups/tenant","location":"here"`, resources(deep)) + `],"outputs":{"x":{"type":"string","value":"[resourceId('A.B/c','d')]"}}}`,
	} {
		got := w.await("ann", path+"d", w.do("ann", "PUT", path+"d", wide(template), 201))
		if got.str("properties", "provisioningState") != "Succeeded" || got.str("id") != path+"d" {
			t.Errorf("%s: %s", path, got.text)
		}
		want := map[string]string{mgDeps: "tenant/providers/A.B/c/d/providers/Microsoft.Management/managementGroups/tenant/providers/A.B/c/e", tenantDeps: "/providers/A.B/c/d"}[path]
		if got.str("properties", "outputs", "x", "value") != want {
			t.Errorf("%s: the outputs are %s", path, got.str("properties", "outputs"))
		}
		if list := w.do("ann", "GET", strings.TrimSuffix(path, "/"), "", 200); !strings.Contains(list.text, `"`+path+"d\"") || strings.Contains(list.text, "tenants/") {
			t.Errorf("%s: the list is %s", path, list.text)
		}
		if ops := w.do("ann", "GET", path+"d/operations", "", 200); !strings.Contains(ops.text, path+"d/operations/") {
			t.Errorf("%s: the operations are %s", path, ops.text)
		}
		w.do("ann", "POST", path+"d/validate", wide(template), 200)
		w.do("ann", "POST", path+"d/exportTemplate", "", 200)
		w.do("bob", "GET", path+"d", "", 403)
		w.do("ann", "DELETE", path+"d", "", 202)
		w.do("ann", "DELETE", path+"d", "", 204)
	}
	w.do("ann", "GET", "/subscriptions/sub/resourceGroups/made", "", 200)
	w.do("ann", "PUT", strings.Replace(mgDeps, "/tenant/", "/none/", 1)+"d", wide(resources()), 404)
}

// RBAC-18: a nested deployment is no way to what its caller could not do
// directly, at whatever scope either lies, and what can't go there is refused by
// name; nothing is made.
func TestScopesGiveNoRights(t *testing.T) {
	w := newWorld(t)
	shut := `,"resourceGroup":"shut"`
	up := own("up", `,"scope":"/providers/Microsoft.Management/managementGroups/tenant","location":"here"`, resources())
	top := own("top", `,"scope":"/","location":"here"`, resources())
	ok := group("new", "")
	for name, c := range map[string]struct {
		who, at, body, code string
		status              int
	}{
		"down into a group":               {"bob", subDeps, wide(resources(ok, own("n", shut, resources(one("things", "x", ""))))), "InvalidTemplateDeployment", 403},
		"down, twice":                     {"bob", subDeps, wide(resources(ok, own("n", `,"location":"here"`, resources(own("m", shut, resources()))))), "InvalidTemplateDeployment", 403},
		"up from a group":                 {"bob", deps, request(resources(up), ""), "InvalidTemplateDeployment", 403},
		"up from a subscription":          {"bob", subDeps, wide(resources(ok, up)), "InvalidTemplateDeployment", 403},
		"to the tenant":                   {"bob", subDeps, wide(resources(ok, top)), "InvalidTemplateDeployment", 403},
		"at the tenant":                   {"bob", tenantDeps, wide(resources()), "AuthorizationFailed", 403},
		"at a management group":           {"bob", mgDeps, wide(resources()), "AuthorizationFailed", 403},
		"another tenant's subscription":   {"ann", mgDeps, wide(resources(own("n", `,"subscriptionId":"","location":"here","resourceGroup":"x"`, resources()))), "InvalidTemplate", 400},
		"no location":                     {"ann", subDeps, request(resources(), ""), "LocationRequired", 400},
		"nested without a location":       {"ann", subDeps, wide(resources(ok, own("n", "", resources()))), "LocationRequired", 400},
		"Complete":                        {"ann", subDeps, strings.Replace(wide(resources()), "Incremental", "Complete", 1), "InvalidDeployment", 400},
		"a thing at a subscription":       {"ann", subDeps, wide(resources(ok, `{"type":"Microsoft.Storage/things","apiVersion":"2024-01-01","name":"x","location":"here"}`)), "InvalidResourceType", 400},
		"resourceGroup() at none":         {"ann", subDeps, wide(resources(ok, one("things", "x", `"resourceGroup":"rg"`))), "InvalidTemplate", 400},
		"subscription() at none":          {"ann", mgDeps, wide(resources(group("[subscription().subscriptionId]", ""))), "InvalidTemplate", 400},
		"managementGroup() at none":       {"ann", subDeps, wide(resources(group("[managementGroup().name]", ""))), "InvalidTemplate", 400},
		"a group without a subscription":  {"ann", tenantDeps, wide(resources(own("n", shut, resources()))), "InvalidTemplate", 400},
		"the keeping place of the tenant": {"ann", deps, request(resources(own("n", `,"scope":"/providers/Microsoft.Resources/tenants/tenant","location":"here"`, resources())), ""), "InvalidResourceType", 400},
	} {
		got := w.do(c.who, "PUT", c.at+"d", c.body, c.status)
		if got.str("error", "code") != c.code {
			t.Errorf("%s: %s, want %s", name, got.text, c.code)
		}
	}
	w.do("ann", "GET", "/subscriptions/sub/resourceGroups/new", "", 404)
	if w.order() != "" {
		t.Errorf("something was made: %s", w.order())
	}
}

// A deployment that is cancelled makes nothing after what is under way, forgets
// its secrets and says what became of it.
func TestCancel(t *testing.T) {
	w := newWorld(t)
	w.fault = func(string) error {
		w.do("bob", "POST", deps+"d/cancel", "", 204)
		return nil
	}
	template := `{"parameters":{"pw":{"type":"securestring","defaultValue":"x"}},"resources":[` + one("slows", "s", "") + "," + one("things", "z", `"dependsOn":["s"]`) + `]}`
	r := w.do("bob", "PUT", deps+"d", request(template, `{"pw":{"value":"hunter2"}}`), 201)
	at := strings.TrimPrefix(r.header.Get("Azure-AsyncOperation"), "https://castellan.localhost")
	for w.do("bob", "GET", at, "", 200).str("status") == "InProgress" {
		w.must(w.s.Pause(context.Background(), 0))
	}
	got := w.do("bob", "GET", deps+"d", "", 200)
	if got.str("properties", "provisioningState") != "Canceled" || w.order() != "s" || strings.Contains(string(w.kept("d").Inner), "hunter2") {
		t.Errorf("made %s: %s", w.order(), got.text)
	}
	w.do("bob", "POST", deps+"d/cancel", "", 409)
	w.do("bob", "POST", deps+"none/cancel", "", 404)
	w.do("eve", "POST", deps+"d/cancel", "", 403)
	if arm.TenantScope("a").Key() == arm.TenantScope("b").Key() {
		t.Error("two tenants keep their deployments in one place")
	}
}
