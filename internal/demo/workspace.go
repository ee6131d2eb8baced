package demo

import (
	"castellan/internal/arm"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// workspace is where things are.
type workspace struct {
	group string // id of the resource group
	id    string
}

func (w workspace) tracking(base string) string { return base + "/mlflow/v2.0" + w.id }

const apiML = "/providers/Microsoft.MachineLearningServices/workspaces/"

func (d *demo) makeWorkspace(ctx context.Context) error {
	var b [3]byte
	_, _ = rand.Read(b[:]) // never fails
	tail := hex.EncodeToString(b[:])
	s := d.edge.App.Site
	group := "/subscriptions/" + s.Subscription + "/resourceGroups/demo"
	account, vault := "demo"+tail, "demo-"+tail
	d.workspace = workspace{group, group + apiML + "iris-lab"}
	d.storage, d.vaultURL = s.BlobURL(account), s.VaultURL(vault)
	storage := group + "/providers/Microsoft.Storage/storageAccounts/" + account
	keyVault := group + "/providers/Microsoft.KeyVault/vaults/" + vault
	for _, r := range []struct {
		path string
		body any
		text string
	}{
		{group, map[string]any{"location": s.Location}, "resource group demo"},
		{storage, map[string]any{"location": s.Location, "kind": "StorageV2", "sku": map[string]any{"name": "Standard_LRS"}, "properties": map[string]any{}}, "storage account " + account},
		{keyVault, map[string]any{"location": s.Location, "properties": map[string]any{"tenantId": s.Tenant, "sku": map[string]any{"family": "A", "name": "standard"}, "enableRbacAuthorization": true}}, "key vault " + vault},
		{d.workspace.id, map[string]any{"location": s.Location, "identity": map[string]any{"type": "SystemAssigned"}, "properties": map[string]any{"storageAccount": storage, "keyVault": keyVault, "friendlyName": "Iris lab"}}, "workspace iris-lab"},
		{group + apiML + "other-lab", map[string]any{"location": s.Location, "identity": map[string]any{"type": "SystemAssigned"}, "properties": map[string]any{"storageAccount": storage, "keyVault": keyVault}}, "workspace other-lab, to be refused to the first one's job later"},
	} {
		if err := d.put(ctx, d.admin, r.path, r.body); err != nil {
			return err
		}
		d.say("made the %s", r.text)
	}
	return nil
}

// expected are the roles that a workspace's identity has (features B11 to B15):
// the role's GUID, its name, and where.
func (d *demo) expected() map[string]string {
	return map[string]string{
		"b24988ac-6180-42a0-ab88-20f7382dd24c": "Contributor on the workspace",
		"ba92f5b4-2d11-453d-a403-e96b0029c9fe": "Storage Blob Data Contributor on the storage account",
		"00482a5a-887f-4fb3-b363-3b7fe8e74483": "Key Vault Administrator on the key vault",
		"b78c5d69-af96-48a3-bf8d-a8b4d589de94": "Azure AI Administrator on the resource group",
	}
}

func (d *demo) showIdentity(ctx context.Context) error {
	var ws struct {
		Identity struct {
			Principal string `json:"principalId"`
		} `json:"identity"`
	}
	if _, err := d.arm(ctx, d.admin, http.MethodGet, d.workspace.id, nil, &ws); err != nil {
		return err
	}
	d.say("iris-lab's managed identity is %s; nobody can sign in as it.", ws.Identity.Principal)
	var list struct {
		Value []struct {
			Properties struct {
				Role  string `json:"roleDefinitionId"`
				Scope string `json:"scope"`
			} `json:"properties"`
		} `json:"value"`
	}
	q := url.Values{"$filter": {"principalId eq '" + ws.Identity.Principal + "'"}}
	if _, err := d.arm(ctx, d.admin, http.MethodGet, "/subscriptions/"+d.edge.App.Site.Subscription+"/providers/Microsoft.Authorization/roleAssignments?"+q.Encode(), nil, &list); err != nil {
		return err
	}
	want := d.expected()
	for _, a := range list.Value {
		guid := a.Properties.Role[strings.LastIndexByte(a.Properties.Role, '/')+1:]
		if text := want[guid]; text != "" {
			d.say("it is %s", text)
			delete(want, guid)
		}
	}
	if len(want) > 0 {
		return fmt.Errorf("the identity lacks %v", want)
	}
	return nil
}

// rolesAndCompute gives each person what they need, and makes the cluster.
func (d *demo) rolesAndCompute(ctx context.Context) error {
	for _, r := range []struct {
		who         session
		guid, scope string
		text        string
	}{
		{d.scientist, "f6c7c914-8db3-469d-8ca1-694a8f32e121", d.workspace.id, "dana is AzureML Data Scientist in iris-lab"},
		{d.reader, "acdd72a7-3385-48ef-bd42-f606fba81ae7", d.workspace.group, "rita is Reader of the resource group"},
	} {
		path := r.scope + "/providers/Microsoft.Authorization/roleAssignments/" + arm.NewUUID()
		body := map[string]any{"properties": map[string]any{
			"roleDefinitionId": "/subscriptions/" + d.edge.App.Site.Subscription + "/providers/Microsoft.Authorization/roleDefinitions/" + r.guid,
			"principalId":      r.who.object, "principalType": "User",
		}}
		if _, err := d.arm(ctx, d.admin, http.MethodPut, path+"?api-version=2022-04-01", body, nil); err != nil {
			return err
		}
		d.say("%s; sam has no role at all.", r.text)
	}
	if err := d.put(ctx, d.admin, d.workspace.id+"/computes/cpu", map[string]any{
		"location": d.edge.App.Site.Location, "identity": map[string]any{"type": "SystemAssigned"},
		"properties": map[string]any{"computeType": "AmlCompute", "properties": map[string]any{
			"vmSize": "Standard_DS1_v2", "scaleSettings": map[string]any{"minNodeCount": 0, "maxNodeCount": 1, "nodeIdleTimeBeforeScaleDown": "PT120S"},
		}},
	}); err != nil {
		return err
	}
	d.say("made the compute cluster cpu, with an identity of its own.")
	return nil
}
