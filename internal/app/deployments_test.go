package app

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"castellan/internal/arm"
)

// Deployments to the tenant are for who may write them at its root management
// group, and each tenant has its own: another's administrator, who may do the
// same, neither sees nor replaces them.
func TestDeploymentsToTheTenant(t *testing.T) {
	a := newApp(t)
	base, v := a.Site.Base(), "?api-version=2021-04-01"
	const list = "/providers/Microsoft.Resources/deployments"
	outputs := func(x string) map[string]any {
		return map[string]any{"location": "local", "properties": map[string]any{"mode": "Incremental", "template": map[string]any{
			"$schema": "x", "contentVersion": "1.0.0.0", "resources": []any{}, "outputs": map[string]any{"x": map[string]any{"type": "string", "value": x}}}}}
	}
	home, other := a.newPerson(t, "owner"), newTenant(t, a, "other.example")
	for tenant, c := range map[string]struct {
		admin string // a token
		owner person
	}{
		a.Site.Tenant: {a.admin(t, "arm"), home},
		other.tenant:  {tokenAt(t, a, other.tenant, other.admin.id, other.admin.secret, base), other.admin},
	} {
		token := tokenAt(t, a, tenant, c.owner.id, c.owner.secret, base)
		must(t, a, http.StatusOK, c.admin, "POST", base+"/providers/Microsoft.Authorization/elevateAccess"+v, nil)
		must(t, a, http.StatusForbidden, c.admin, "PUT", base+list+"/d"+v, outputs(tenant))
		role := base + "/providers/Microsoft.Management/managementGroups/" + tenant + "/providers/Microsoft.Authorization/roleAssignments/" + arm.NewUUID() + "?api-version=2022-04-01"
		must(t, a, http.StatusCreated, c.admin, "PUT", role, map[string]any{"properties": map[string]any{
			"roleDefinitionId": "/providers/Microsoft.Authorization/roleDefinitions/" + ownerRole, "principalId": c.owner.object}})
		must(t, a, http.StatusNotFound, token, "GET", base+list+"/d"+v, nil)
		made(t, a, token, list+"/d", outputs(tenant))
		got := fmt.Sprint(must(t, a, http.StatusOK, token, "GET", base+list+"/"+v, nil))
		if !strings.Contains(got, "value:"+tenant) || strings.Count(got, "outputs:") != 1 {
			t.Errorf("the tenant's deployments are %v", got)
		}
	}
	must(t, a, http.StatusForbidden, a.stranger(t)["arm"], "GET", base+list+"/d"+v, nil)
}

// deploying is a deployment of resources.
func deploying(mode string, resources ...any) map[string]any {
	return map[string]any{"properties": map[string]any{"mode": mode, "template": map[string]any{
		"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "contentVersion": "1.0.0.0", "resources": resources}}}
}

func accountInTemplate(name string) any {
	return map[string]any{"type": "Microsoft.Storage/storageAccounts", "apiVersion": "2023-04-01", "name": name, "location": "local", "sku": map[string]any{"name": "Standard_LRS"}, "kind": "StorageV2"}
}

// whatIf is what a deployment to the group, a URL, would change.
func whatIf(t *testing.T, a *App, token, group string, body any) (changes []any, text string) {
	t.Helper()
	w := call(a, token, http.MethodPost, group+"/providers/Microsoft.Resources/deployments/d/whatIf"+version, body)
	if w.Code != http.StatusAccepted {
		t.Fatalf("what-if = %d %s", w.Code, w.Body)
	}
	r := must(t, a, http.StatusOK, token, http.MethodGet, w.Header().Get("Location"), nil)
	changes, _ = r["properties"].(map[string]any)["changes"].([]any)
	return changes, fmt.Sprint(changes...)
}

// What-if knows what a deployment of all kinds in a group would change, as they
// are there already: nothing.
func TestWhatIfOfWhatIsThere(t *testing.T) {
	a := newApp(t)
	x := newTenant(t, a, "there.example")
	x.settle(t, a, "there")
	token, group := x.tokens["arm"], a.Site.Base()+"/subscriptions/"+x.sub+"/resourceGroups/lab"
	exported := must(t, a, http.StatusOK, token, http.MethodPost, group+"/exportTemplate"+version, map[string]any{"resources": []string{"*"}})
	resources := slices.DeleteFunc(exported["template"].(map[string]any)["resources"].([]any), func(r any) bool { // the workspace's own
		return strings.HasSuffix(r.(map[string]any)["type"].(string), "/datastores")
	})
	changes, text := whatIf(t, a, token, group, deploying("Complete", resources...))
	if len(changes) < 5 {
		t.Errorf("what-if tells of %d resources: %s", len(changes), text)
	}
	for _, c := range changes {
		if c := c.(map[string]any); c["changeType"] != "NoChange" {
			t.Errorf("%s: %s by %v", c["resourceId"], c["changeType"], c["delta"])
		}
	}
}
