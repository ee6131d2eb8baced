package app

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// events are what the activity log has of a correlation id, the oldest first.
func (p *policed) events(correlation string) (out []map[string]any) {
	p.Helper()
	u := p.sub + "/providers/Microsoft.Insights/eventtypes/management/values" + version + "&$filter=" + url.QueryEscape("eventTimestamp ge '2020-01-01T00:00:00Z' and correlationId eq '"+correlation+"'")
	for _, x := range must(p.T, p.a, http.StatusOK, p.token, http.MethodGet, u, nil)["value"].([]any) {
		out = append([]map[string]any{x.(map[string]any)}, out...)
	}
	return out
}

// begunAndEnded awaits the beginning and the end of one operation.
func (p *policed) begunAndEnded(correlation, action, status string) {
	p.Helper()
	p.await("the end of "+correlation, func() bool { return len(p.events(correlation)) > 1 })
	said := ""
	list := p.events(correlation)
	for _, e := range list {
		said += fmt.Sprint(textOf(e["eventName"]), " ", textOf(e["status"]), " ", textOf(e["operationName"]), ", ")
	}
	if want := "BeginRequest Started " + action + ", EndRequest " + status + " " + action + ", "; said != want {
		p.Errorf("%s: the events are %s, want %s", correlation, said, want)
	}
	for _, name := range []string{"caller", "claims", "authorization", "resourceId", "operationId"} {
		if fmt.Sprint(list[0][name]) != fmt.Sprint(list[1][name]) {
			p.Errorf("%s: %s is %v at first and %v at the end", correlation, name, list[0][name], list[1][name])
		}
	}
	why := must(p.T, p.a, http.StatusOK, p.token, http.MethodGet, p.a.Site.Base()+"/providers/Castellan.Authorization/decisions/"+strings.ReplaceAll(correlation, "-", "")+version, nil)["properties"].(map[string]any)
	if why["decision"] != "allowed" || why["action"] != action || why["outcome"] != "ok" {
		p.Errorf("%s is explained as %v", correlation, why)
	}
}

func textOf(v any) any { return v.(map[string]any)["value"] }

// What goes on after its request was answered has two events of one correlation id,
// its beginning and its end, of the same caller and operation; the end says how it
// went. What ends with its request has one.
func TestWhatGoesOnHasABeginningAndAnEnd(t *testing.T) {
	t.Parallel()
	p := newPoliced(t, newApp(t))
	send := func(method, u string, body any) string {
		t.Helper()
		w := call(p.a, p.token, method, u+version, body)
		if w.Code/100 != 2 {
			t.Fatalf("%s %s = %d %s", method, u, w.Code, w.Body)
		}
		return w.Header().Get("x-ms-correlation-request-id")
	}
	account, body := p.account("evented", nil)
	if list := p.events(send(http.MethodPut, account, body)); len(list) != 1 || textOf(list[0]["eventName"]) != "EndRequest" || textOf(list[0]["status"]) != "Succeeded" {
		t.Errorf("what ends with its request has the events %v", list)
	}
	vault := p.group + "/providers/Microsoft.KeyVault/vaults/evented-vault"
	p.fine(vault, map[string]any{"location": "local", "properties": map[string]any{"tenantId": p.a.Site.Tenant, "sku": map[string]any{"family": "A", "name": "standard"}}})
	lab := p.group + "/providers/Microsoft.MachineLearningServices/workspaces/evented"
	for _, what := range []map[string]any{nil, {"description": "another"}} {
		props := map[string]any{"storageAccount": p.path(account), "keyVault": p.path(vault)}
		for k, v := range what {
			props[k] = v
		}
		id := send(http.MethodPut, lab, map[string]any{"location": "local", "identity": map[string]any{"type": "SystemAssigned"}, "properties": props})
		p.begunAndEnded(id, "Microsoft.MachineLearningServices/workspaces/write", "Succeeded")
	}
	deploy := func(name string, resources ...any) {
		t.Helper()
		u := p.group + "/providers/Microsoft.Resources/deployments/" + name
		body := map[string]any{"properties": map[string]any{"mode": "Incremental", "template": map[string]any{"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "contentVersion": "1.0.0.0", "resources": resources}}}
		id, want := send(http.MethodPut, u, body), map[bool]string{true: "Failed", false: "Succeeded"}[len(resources) > 0]
		p.begunAndEnded(id, "Microsoft.Resources/deployments/write", want)
		shown := must(t, p.a, http.StatusOK, p.token, http.MethodGet, u+version, nil)["properties"].(map[string]any)["correlationId"]
		if strings.ReplaceAll(fmt.Sprint(shown), "-", "") != id {
			t.Errorf("the deployment %s has the correlation id %v, its events %s", name, shown, id)
		}
		if list := p.events(id); len(resources) > 0 && (textOf(list[1]["subStatus"]) == "OK" || list[1]["level"] != "Error") {
			t.Errorf("a deployment that failed ends as %v", list[1])
		}
	}
	deploy("fine")
	// The account is elsewhere, which shows when it is written.
	deploy("wrong", map[string]any{"type": "Microsoft.Storage/storageAccounts", "apiVersion": "2023-01-01", "name": "evented", "location": "elsewhere and far", "kind": "StorageV2", "sku": map[string]any{"name": "Standard_LRS"}})

	// A change that is refused in its transaction begins nothing.
	w := call(p.a, p.token, http.MethodPut, lab+version, map[string]any{"location": "local", "identity": map[string]any{"type": "SystemAssigned"}, "properties": map[string]any{"storageAccount": p.path(account), "keyVault": p.path(vault)}}, "If-None-Match", "*")
	if list := p.events(w.Header().Get("x-ms-correlation-request-id")); w.Code != http.StatusPreconditionFailed || len(list) != 1 || textOf(list[0]["status"]) != "Failed" || textOf(list[0]["eventName"]) != "EndRequest" {
		t.Errorf("what is refused, %d, has the events %v", w.Code, list)
	}
}
