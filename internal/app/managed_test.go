package app

import (
	"net/http"
	"testing"
)

// Resource Manager shows the identity of a resource to who may see it, as long
// as the resource has one.
func TestTheIdentityOfAResourceIsShown(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	p := newPoliced(t, a)
	const at = "/providers/Microsoft.ManagedIdentity/identities/default"
	u := p.group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/ua"
	p.fine(u, map[string]any{"location": a.Site.Location})
	for _, without := range []string{p.group, u, u + "-not"} {
		must(t, a, http.StatusNotFound, p.token, http.MethodGet, without+at+version, nil)
	}
	def := p.define("identified", "All", nil, tree(t, `{"if":{"field":"name","equals":"x"},"then":{"effect":"audit"}}`))
	with := p.group + "/providers/Microsoft.Authorization/policyAssignments/identified"
	made := p.put(http.StatusCreated, with, map[string]any{"location": a.Site.Location, "identity": map[string]any{"type": "SystemAssigned"}, "properties": map[string]any{"policyDefinitionId": def}})
	got := must(t, a, http.StatusOK, p.token, http.MethodGet, with+at+version, nil)
	props, want := got["properties"].(map[string]any), made["identity"].(map[string]any)["principalId"]
	if props["principalId"] != want || props["tenantId"] != a.Site.Tenant || props["clientId"] == "" || got["name"] != "default" {
		t.Errorf("the identity of %s is %v, want the principal %v", with, got, want)
	}
	if w := call(a, a.stranger(t)["arm"], http.MethodGet, with+at+version, nil); w.Code != http.StatusForbidden {
		t.Errorf("a stranger sees the identity: %d %s", w.Code, w.Body)
	}
	must(t, a, http.StatusOK, p.token, http.MethodDelete, with+version, nil)
	must(t, a, http.StatusNotFound, p.token, http.MethodGet, with+at+version, nil)
}
