package app

import (
	"net/http"
	"strings"
	"testing"

	"castellan/internal/resource"
)

// Whatever can have an identity is given somebody's user-assigned one only by
// who may assign that: the right to change the thing alone is refused, and the
// refusal names action and scope (B25, B26).
func TestAttachingAnIdentityAsksForIt(t *testing.T) {
	t.Parallel()
	a, s := serveHere(t)
	l := newLab(t, s)
	group := "/subscriptions/" + l.sub + "/resourceGroups/identities"
	uai := group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/theirs"
	l.put(t, group, map[string]any{"location": l.location})
	l.put(t, uai, map[string]any{"location": l.location})
	p := a.newPerson(t, "contributor")
	l.give(t, "b24988ac-6180-42a0-ab88-20f7382dd24c", l.group, p.object, "ServicePrincipal")
	token := tokenFor(t, a, p.id, p.secret, l.base)
	storage, vault := l.group+"/providers/Microsoft.Storage/storageAccounts/"+l.account, l.group+"/providers/Microsoft.KeyVault/vaults/lab-vault"
	with := map[string]any{"type": "UserAssigned", "userAssignedIdentities": map[string]any{uai: map[string]any{}}}
	bodies := map[string]struct {
		id   string
		body map[string]any
	}{
		"Microsoft.MachineLearningServices/workspaces": {strings.TrimSuffix(l.workspace, "lab") + "attached", map[string]any{"location": l.location, "properties": map[string]any{
			"storageAccount": storage, "keyVault": vault, "primaryUserAssignedIdentity": uai,
		}}},
		"Microsoft.Storage/storageAccounts": {l.group + "/providers/Microsoft.Storage/storageAccounts/attachedacct", map[string]any{
			"location": l.location, "kind": "StorageV2", "sku": map[string]any{"name": "Standard_LRS"},
		}},
		"Microsoft.MachineLearningServices/workspaces/computes": {l.workspace + "/computes/attached", map[string]any{"location": l.location, "properties": map[string]any{
			"computeType": "AmlCompute", "properties": map[string]any{"vmSize": "Standard_DS1_v2", "scaleSettings": map[string]any{"maxNodeCount": 1}},
		}}},
	}
	n := 0
	for _, kinds := range [][]*resource.Kind{a.identity.Kinds(), a.vault.Kinds(), a.blob.Kinds(), a.ml.Kinds(), a.tracking.Kinds(), a.deploy.Kinds()} {
		for _, k := range kinds {
			if k.Identity == nil {
				continue
			}
			n++
			b, ok := bodies[k.Type]
			if !ok {
				t.Errorf("%s can have an identity, and this test makes none", k.Type)
				continue
			}
			refused := func(method string, body any) {
				t.Helper()
				r, err := l.send(token, method, l.url(b.id), body)
				if text := string(r.body); err != nil || r.status != http.StatusForbidden || !strings.Contains(text, "LinkedAuthorizationFailed") || !strings.Contains(text, resource.AssignIdentity.Name()) || !strings.Contains(text, uai) {
					t.Errorf("%s of %s with somebody's identity = %d %s, %v", method, k.Type, r.status, r.body, err)
				}
			}
			b.body["identity"] = with
			refused(http.MethodPut, b.body)
			if r, err := l.send(l.arm, http.MethodGet, l.url(b.id), nil); err != nil || r.status != http.StatusNotFound {
				t.Errorf("%s was made though it was refused: %d", b.id, r.status)
			}
			if strings.HasSuffix(k.Type, "/computes") { // and later, by a change
				delete(b.body, "identity")
				l.put(t, b.id, b.body)
				refused(http.MethodPatch, map[string]any{"identity": with})
			}
		}
	}
	if n < 2 {
		t.Errorf("%d kinds can have an identity", n)
	}
	given := l.give(t, "f1a07417-d97a-45cb-824c-7a7467783830", uai, p.object, "ServicePrincipal") // Managed Identity Operator
	compute := l.url(l.workspace + "/computes/attached")
	l.must(t, nil, token, http.MethodPatch, compute, map[string]any{"identity": with})
	l.must(t, nil, l.arm, http.MethodDelete, l.url(given), nil)
	both := map[string]any{"type": "SystemAssigned,UserAssigned", "userAssignedIdentities": map[string]any{uai: map[string]any{}}}
	if r, err := l.send(l.arm, http.MethodPatch, compute, map[string]any{"identity": both}); err != nil || r.status != http.StatusBadRequest || !strings.Contains(string(r.body), "never both") {
		t.Errorf("a cluster with both kinds of identity = %d %s, %v", r.status, r.body, err)
	}
}
