package app

import (
	"encoding/json"
	"net/http"
	"slices"
	"testing"
	"time"

	"castellan/internal/resource"
)

// made makes a resource as the administrator and waits until it is there; it
// gives the resource as it is then.
func made(t *testing.T, a *App, token, id string, body any) (out struct {
	Identity struct {
		Principal string `json:"principalId"`
	} `json:"identity"`
	Properties map[string]any `json:"properties"`
}) {
	t.Helper()
	u := a.Site.Base() + id + "?api-version=any"
	if w := call(a, token, http.MethodPut, u, body); w.Code/100 != 2 {
		t.Fatalf("PUT %s = %d %s", id, w.Code, w.Body)
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		w := call(a, token, http.MethodGet, u, nil)
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code != http.StatusOK {
			t.Fatalf("GET %s = %d %s", id, w.Code, w.Body)
		}
		switch state := out.Properties["provisioningState"]; state {
		case resource.Failed:
			t.Fatalf("%s failed: %s", id, w.Body)
		case nil, resource.Succeeded:
			return out
		}
		<-time.After(10 * time.Millisecond)
	}
	t.Fatalf("%s does not become ready", id)
	return out
}

// In a vault that goes by access policies, a workspace's identity gets a policy
// with every permission but purge (B13), and roles count for nothing there.
func TestAWorkspaceGetsAPolicyWhereRolesDoNotCount(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	admin := a.admin(t, "arm")
	group := "/subscriptions/" + a.Site.Subscription + "/resourceGroups/g"
	account := group + "/providers/Microsoft.Storage/storageAccounts/policyacct"
	vault := group + "/providers/Microsoft.KeyVault/vaults/policy-kv"
	at := map[string]any{"location": "local"}
	made(t, a, admin, group, at)
	made(t, a, admin, account, map[string]any{"location": "local", "kind": "StorageV2", "sku": map[string]any{"name": "Standard_LRS"}})
	made(t, a, admin, vault, map[string]any{"location": "local", "properties": map[string]any{
		"tenantId": a.Site.Tenant, "sku": map[string]any{"family": "A", "name": "standard"}, "enableRbacAuthorization": false, "accessPolicies": []any{},
	}})
	ws := made(t, a, admin, group+"/providers/Microsoft.MachineLearningServices/workspaces/policy-lab", map[string]any{
		"location": "local", "identity": map[string]any{"type": "SystemAssigned"}, "properties": map[string]any{"storageAccount": account, "keyVault": vault},
	})
	var got struct {
		Properties struct {
			Policies []struct {
				Object      string              `json:"objectId"`
				Permissions map[string][]string `json:"permissions"`
			} `json:"accessPolicies"`
		} `json:"properties"`
	}
	w := call(a, admin, http.MethodGet, a.Site.Base()+vault+"?api-version=2023-07-01", nil)
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || len(got.Properties.Policies) != 1 {
		t.Fatalf("the vault is %s", w.Body)
	}
	p := got.Properties.Policies[0]
	if p.Object != ws.Identity.Principal || p.Object == "" {
		t.Errorf("the policy is for %q, want the workspace's %q", p.Object, ws.Identity.Principal)
	}
	for kind, want := range map[string]string{"keys": "unwrapkey", "secrets": "set", "certificates": "import"} {
		if has := p.Permissions[kind]; !slices.Contains(has, want) || slices.Contains(has, "purge") || slices.Contains(has, "all") {
			t.Errorf("permissions on %s are %v, want all by name but purge", kind, has)
		}
	}
	secret := a.Site.VaultURL("policy-kv") + "secrets/s?api-version=7.4"
	if w := call(a, a.admin(t, "vault"), http.MethodPut, secret, map[string]any{"value": "x"}); w.Code != http.StatusForbidden {
		t.Errorf("the owner, who has no policy, sets a secret: %d %s", w.Code, w.Body)
	}
}
