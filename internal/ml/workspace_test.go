package ml

import (
	"fmt"
	"strings"
	"testing"

	"castellan/internal/arm"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// A workspace's identity gets the roles of the table, no more and no less, and
// has them back after somebody took them (B09-B15, B20, B21).
func TestAWorkspaceHasTheRolesOfTheTable(t *testing.T) {
	w := newWorld(t)
	w.workspace(ws)
	_, d := w.do("olga", "GET", ws, "", 200)
	me := principalOf(arm.MustID(ws))
	if got := dig(d, "identity", "principalId"); got != me || dig(d, "identity", "type") != "SystemAssigned" {
		t.Errorf("identity = %v, want the system-assigned %s", dig(d, "identity"), me)
	}
	if got := w.roles.ids[strings.ToLower(ws)]; got != "ws1" {
		t.Errorf("the identity is named %q, want ws1", got)
	}
	want := []string{
		w.roles.key(me, roleContributor, arm.MustID(ws)), w.roles.key(me, roleBlobContributor, arm.MustID(account1)),
		w.roles.key(me, roleContributor, arm.MustID(vault1)), w.roles.key(me, roleVaultAdmin, arm.MustID(vault1)),
		w.roles.key(me, roleAIAdministrator, arm.MustID(group)),
	}
	for _, k := range want {
		if !w.roles.given[k] {
			t.Errorf("missing %s", k)
		}
	}
	if len(w.roles.given) != len(want) {
		t.Errorf("%d roles, want %d: %v", len(w.roles.given), len(want), w.roles.given)
	}
	w.roles.take(me, roleBlobContributor, arm.MustID(account1))
	_, sick := w.do("olga", "POST", ws+"/diagnose", "", 200)
	if got := dig(sick, "value", "storageAccountResults"); len(got.([]any)) != 1 {
		t.Errorf("diagnose after the role was taken = %v, want one storage result", got)
	}
	w.do("rita", "POST", ws+"/resyncKeys", "", 403)
	_, out := w.do("olga", "POST", ws+"/resyncKeys", "", 200)
	if got := fmt.Sprint(out["restored"]); !strings.Contains(got, "Storage Blob Data Contributor") || !w.roles.has(me, roleBlobContributor, arm.MustID(account1)) {
		t.Errorf("resyncKeys = %v", got)
	}
	if _, out := w.do("olga", "POST", ws+"/resyncKeys", "", 200); len(out["restored"].([]any)) != 0 {
		t.Errorf("a second resyncKeys restores %v, want nothing", out["restored"])
	}
}

func TestWhatClientsReadOfAWorkspace(t *testing.T) {
	w := newWorld(t)
	w.workspace(ws)
	_, d := w.do("rita", "GET", ws, "", 200)
	p, _ := d["properties"].(map[string]any)
	if p["discoveryUrl"] != "https://castellan.localhost/discovery" || p["mlFlowTrackingUri"] != "azureml://castellan.localhost/mlflow/v1.0"+ws || len(fmt.Sprint(p["workspaceId"])) != 36 {
		t.Errorf("properties = %v", p)
	}
	_, list := w.do("rita", "GET", ws+"/datastores?isDefault=true&count=30", "", 200)
	if v, _ := list["value"].([]any); len(v) != 1 || dig(v[0], "name") != defaultDatastore {
		t.Errorf("the default datastores are %v", list)
	}
	w.do("olga", "DELETE", ws+"/datastores/WorkspaceBlobStore", "", 400)
	w.do("olga", "PUT", ws+"/datastores/workspaceblobstore", `{"properties":{"datastoreType":"AzureBlob","accountName":"acct2","containerName":"x"}}`, 400)
	w.do("rita", "POST", ws+"/datastores/workspaceblobstore/listSecrets", `{"expirableSecret":true}`, 403)
	_, sec := w.do("olga", "POST", ws+"/datastores/workspaceblobstore/listSecrets", `{"expirableSecret":true,"expireAfterHours":24}`, 200)
	if sec["secretsType"] != "Sas" {
		t.Errorf("listSecrets = %v", sec)
	}
	_, env := w.do("rita", "GET", ws+"/environments/host/versions/1", "", 200)
	if dig(env, "properties", "image") != hostImage {
		t.Errorf("the first environment is %v", env)
	}
	_, keys := w.do("olga", "POST", ws+"/listKeys", "", 200)
	if keys["userStorageResourceId"] != account1 || keys["userStorageKey"] != accountKey {
		t.Errorf("listKeys = %v", keys)
	}
	w.do("rita", "POST", ws+"/listKeys", "", 403)
	status, disc := w.do("nobody", "GET", "/discovery", "", 200)
	if status != 200 || disc["history"] != "https://castellan.localhost" {
		t.Errorf("discovery = %v", disc)
	}
	// A PUT again, of what was read, changes nothing that the platform made.
	id := p["workspaceId"]
	w.do("olga", "PUT", ws, workspaceBody(account1, vault1), 200)
	if _, d := w.do("olga", "GET", ws, "", 200); dig(d, "properties", "workspaceId") != id || dig(d, "identity", "principalId") == nil {
		t.Errorf("after a second PUT: %v", d)
	}
	w.do("olga", "PATCH", ws, `{"tags":{"a":"b"},"identity":{"type":"SystemAssigned"},"properties":{"friendlyName":"F"}}`, 200)
	if _, d := w.do("olga", "GET", ws, "", 200); dig(d, "properties", "friendlyName") != "F" || dig(d, "properties", "workspaceId") != id {
		t.Errorf("after a PATCH: %v", d)
	}
}

// What the platform can't keep is refused, and nothing is left behind (ARM-11).
func TestAWorkspacePromisesOnlyWhatIsKept(t *testing.T) {
	w := newWorld(t)
	for body, code := range map[string]string{
		`"publicNetworkAccess":"Disabled"`:                                                          "NotSupported",
		`"managedNetwork":{"isolationMode":"AllowInternetOutbound"}`:                                "NotSupported",
		`"managedNetwork":{"isolationMode":"AllowOnlyApprovedOutbound"}`:                            "NotSupported",
		`"encryption":{"status":"Enabled"}`:                                                         "NotSupported",
		`"encryption":{"status":"Disabled","keyVaultProperties":{"keyIdentifier":"https://k"}}`:     "BadRequest",
		`"enableDataIsolation":"true"`:                                                              "NotSupported",
		`"hubResourceId":"/x"`:                                                                      "NotSupported",
		`"noSuchThing":1`:                                                                           "InvalidRequestContent",
		`"containerRegistry":"` + group + `/providers/Microsoft.ContainerRegistry/registries/none"`: "BadRequest",
		`"applicationInsights":"` + vault1 + `"`:                                                    "LinkedInvalidPropertyId",
		`"containerRegistry":"` + vault1 + `/../../../../../../subscriptions/x"`:                    "LinkedInvalidPropertyId",
		`"primaryUserAssignedIdentity":"` + uai1 + `"`:                                              "BadRequest",
	} {
		full := strings.Replace(workspaceBody(account1, vault1), `"properties":{`, `"properties":{`+body+",", 1)
		if got, m := w.refused("olga", "PUT", ws, full, 400); got != code {
			t.Errorf("%s: %s (%s), want %s", body, got, m, code)
		}
	}
	for body, code := range map[string]string{
		workspaceBody("", vault1):           "BadRequest",
		workspaceBody(account1, ""):         "BadRequest",
		workspaceBody(account1+"x", vault1): "BadRequest",
		workspaceBody(vault1, account1):     "LinkedInvalidPropertyId",
		workspaceBody(vault1+"/../../../../../../subscriptions/SB1/resourceGroups/x", vault1):            "LinkedInvalidPropertyId",
		strings.Replace(workspaceBody(account1, vault1), `{`, `{"kind":"hub",`, 1):                       "NotSupported",
		strings.Replace(workspaceBody(account1, vault1), `{`, `{"identity":{"type":"UserAssigned"},`, 1): "InvalidRequestContent",
	} {
		if got, m := w.refused("olga", "PUT", ws, body, 400); got != code {
			t.Errorf("%s: %s (%s), want %s", body, got, m, code)
		}
	}
	w.do("olga", "GET", ws, "", 404)
	if len(w.roles.given) != 0 || len(w.blobs.asked) != 0 { // no call was made as the platform
		t.Errorf("a refused workspace left %v and asked %v", w.roles.given, w.blobs.asked)
	}
}

// What azure-ai-ml's template sends is taken: nulls, empty strings and booleans
// spelt as strings.
func TestATemplatesWorkspaceIsTaken(t *testing.T) {
	w := newWorld(t)
	w.do("olga", "PUT", ws+"?api-version=2023-08-01-preview", `{"location":"local","kind":"default","tags":{},"identity":{"type":"SystemAssigned"},"properties":{"friendlyName":"ws1","description":"d",
		"storageAccount":"`+account1+`","keyVault":"`+vault1+`","containerRegistry":null,"applicationInsights":null,"hbiWorkspace":"false","imageBuildCompute":"","publicNetworkAccess":"Enabled",
		"encryption":{"status":"Disabled","keyVaultProperties":{"keyVaultArmId":"","keyIdentifier":""},"cosmosDbArmId":"","storageAccountArmId":"","SearchAccountArmId":""},
		"primaryUserAssignedIdentity":"","systemDatastoresAuthMode":"","managedNetwork":{"isolationMode":"Disabled","outboundRules":{}},"featureStoreSettings":{"computeruntime":{"SparkRuntimeVersion":""}},
		"workspaceHubConfig":{},"existingWorkspaces":[],"serverlessComputeSettings":{},"softDeleteEnabled":"false","allowRecoverSoftDeletedWorkspace":"false","provisionNetworkNow":"false","enableDataIsolation":"false","allowRoleAssignmentOnRG":"true"}}`, 202)
}

// Who has no rights on a resource can't have a workspace use it (ARM-12), nor
// give it an identity that is not theirs to give (RBAC-12).
func TestLinksAskForRightsOnTheLinked(t *testing.T) {
	w := newWorld(t)
	w.give("sam", roleContributor, group)
	if code, _ := w.refused("sam", "PUT", ws, workspaceBody(account2, vault1), 403); code != "LinkedAuthorizationFailed" {
		t.Errorf("another group's account: %s", code)
	}
	w.give("sam", roleReader, other)
	if code, _ := w.refused("sam", "PUT", ws, workspaceBody(account2, vault1), 403); code != "LinkedAuthorizationFailed" {
		t.Errorf("another group's account, of which one is a reader: %s", code)
	}
	uai := strings.Replace(workspaceBody(account1, vault1), `{`, `{"identity":{"type":"UserAssigned","userAssignedIdentities":{"`+uai1+`":{}}},`, 1)
	if code, _ := w.refused("sam", "PUT", ws, uai, 403); code != "LinkedAuthorizationFailed" {
		t.Errorf("another's identity on a workspace: %s", code)
	}
	w.workspace(ws)
	cl := `{"identity":{"type":"UserAssigned","userAssignedIdentities":{"` + uai1 + `":{}}},"properties":{"computeType":"AmlCompute","properties":{"vmSize":"Standard_DS1_v2","scaleSettings":{"maxNodeCount":1}}}}`
	if code, _ := w.refused("sam", "PUT", ws+"/computes/cpu", cl, 403); code != "LinkedAuthorizationFailed" {
		t.Errorf("another's identity on a cluster: %s", code)
	}
	w.do("olga", "GET", ws+"/computes/cpu", "", 404)
	w.cluster("cpu", "")
	w.do("sam", "PATCH", ws+"/computes/cpu", `{"identity":{"type":"UserAssigned","userAssignedIdentities":{"`+uai1+`":{}}}}`, 403)
	if _, d := w.do("olga", "GET", ws+"/computes/cpu", "", 200); d["identity"] != nil {
		t.Errorf("the refused identity is there: %v", d["identity"])
	}
}

// A workspace with an identity of its owner's gets no roles from the platform,
// and says which one is missing (B25).
func TestAnOwnersIdentityBringsItsRoles(t *testing.T) {
	w := newWorld(t)
	body := strings.Replace(workspaceBody(account1, vault1), `{`, `{"identity":{"type":"UserAssigned","userAssignedIdentities":{"`+uai1+`":{}}},`, 1)
	state := func() string {
		_, d := w.do("olga", "GET", ws, "", 200)
		s, _ := dig(d, "properties", "provisioningState").(string)
		return s
	}
	w.do("olga", "PUT", ws, body, 202)
	w.until("the workspace fails", func() bool { return state() == "Failed" })
	if len(w.roles.given) != 0 {
		t.Errorf("the platform gave %v", w.roles.given)
	}
	w.roles.add(principalOf(arm.MustID(uai1)), roleBlobContributor, arm.MustID(account1))
	w.do("olga", "PUT", ws, body, 200)
	w.until("the workspace is made", func() bool { return state() == "Succeeded" })
}

// A vault that goes by access policies gets a policy in place of the role (B13);
// the narrower role on the group is had by asking (B15).
func TestPolicyVaultsAndLegacyRoles(t *testing.T) {
	w := newWorld(t)
	err := w.db.Do(t.Context(), func(tx *store.Tx) error {
		d, err := resource.Load(tx, arm.MustID(vault1))
		if err != nil {
			return err
		}
		d.Properties = []byte(`{}`)
		return resource.Save(tx, d)
	})
	if err != nil {
		t.Fatal(err)
	}
	w.s.LegacyContributor = true
	w.workspace(ws)
	me := principalOf(arm.MustID(ws))
	if !w.roles.policy[me+"|"+strings.ToLower(vault1)] || w.roles.has(me, roleVaultAdmin, arm.MustID(vault1)) {
		t.Errorf("policies %v, roles %v", w.roles.policy, w.roles.given)
	}
	if !w.roles.has(me, roleContributor, arm.MustID(group)) {
		t.Errorf("a legacy workspace has no Contributor on its group")
	}
	w.do("olga", "PATCH", ws+"?api-version=2023-08-01-preview", `{"properties":{"allowRoleAssignmentOnRG":true}}`, 200)
	w.until("the role is narrower", func() bool {
		return w.roles.has(me, roleAIAdministrator, arm.MustID(group)) && !w.roles.has(me, roleContributor, arm.MustID(group))
	})
}

// A deleted workspace leaves nothing.
func TestADeletedWorkspaceIsGone(t *testing.T) {
	w := newWorld(t)
	w.workspace(ws)
	w.cluster("cpu", systemIdentity)
	w.do("olga", "DELETE", ws+"?forceToPurge=false", "", 200)
	w.do("olga", "GET", ws, "", 404)
	_ = w.db.View(t.Context(), func(tx *store.Tx) error {
		left, err := resource.Below(tx, arm.MustID(ws))
		if err != nil || len(left) != 0 {
			t.Errorf("%d resources are left, %v", len(left), err)
		}
		return nil
	})
	if len(w.roles.ids) != 0 {
		t.Errorf("identities are left: %v", w.roles.ids)
	}
}

// RBAC-19: a storage account made anew under the id of one that a workspace used
// is another; who may repair or change the workspace does not reach it by that.
func TestAnAccountMadeAnewIsNotTheWorkspaces(t *testing.T) {
	w := newWorld(t)
	w.workspace(ws)
	me := principalOf(arm.MustID(ws))
	w.roles.take(me, roleBlobContributor, arm.MustID(account1)) // as deleting the account does
	if err := w.db.Do(t.Context(), func(tx *store.Tx) error {
		return resource.Save(tx, &resource.Doc{ID: arm.MustID(account1), Name: arm.MustID(account1).Name(), Type: storageType, Location: "local", Properties: []byte(`{}`), Instance: "another"})
	}); err != nil {
		t.Fatal(err)
	}
	w.do("olga", "POST", ws+"/resyncKeys", "", 409)
	// The identity's role on the group would list the new account's keys.
	for _, keys := range []string{"/listKeys", "/listStorageAccountKeys", "/datastores/workspaceblobstore/listSecrets"} {
		w.do("olga", "POST", ws+keys, "{}", 409)
	}
	w.do("olga", "PATCH", ws, `{"tags":{"a":"b"}}`, 200)
	w.until("the change is judged", func() bool {
		_, d := w.do("olga", "GET", ws, "", 200)
		return dig(d, "properties", "provisioningState") == "Failed"
	})
	if w.roles.has(me, roleBlobContributor, arm.MustID(account1)) {
		t.Error("the workspace's identity has a role on the new account")
	}
}

// A workspace of high business impact is made only where jobs leave nothing that can
// be read, stays one, and runs no job where they would (D10).
func TestHighBusinessImpact(t *testing.T) {
	w := newWorld(t)
	body := strings.Replace(workspaceBody(account1, vault1), `"properties":{`, `"properties":{"hbiWorkspace":true,`, 1)
	w.boxes.plain.Store(true)
	if code, m := w.refused("olga", "PUT", ws, body, 400); code != "NotSupported" || !strings.Contains(m, "hbiWorkspace") {
		t.Errorf("without keys: %s (%s)", code, m)
	}
	w.boxes.plain.Store(false)
	w.do("olga", "PUT", ws, body, 202)
	w.until("the workspace is made", func() bool {
		_, d := w.do("olga", "GET", ws, "", 200)
		return dig(d, "properties", "provisioningState") == "Succeeded"
	})
	for method, change := range map[string]string{"PATCH": `{"properties":{"hbiWorkspace":false}}`, "PUT": workspaceBody(account1, vault1)} {
		if code, m := w.refused("olga", method, ws, change, 400); code != "BadRequest" || !strings.Contains(m, "hbiWorkspace") {
			t.Errorf("%s: %s (%s)", method, code, m)
		}
	}
	w.cluster("cpu", systemIdentity)
	w.job("sealed", `"command":"true"`)
	w.ends("sealed", "Completed")
	w.boxes.plain.Store(true) // as after a start with another scratch folder
	n := len(w.boxes.tasks)
	w.job("plain", `"command":"true"`)
	w.ends("plain", "Failed")
	if why := w.runs.get("plain").failure; len(w.boxes.tasks) != n || !strings.Contains(why, "hbiWorkspace") {
		t.Errorf("%d tasks began; the job failed for %q", len(w.boxes.tasks)-n, why)
	}
}
