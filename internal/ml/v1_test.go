package ml

import (
	"strings"
	"testing"

	"castellan/internal/arm"
	"castellan/internal/rbac"
)

const (
	v1Stores  = "/datastore/v1.0" + ws + "/datastores"
	v1Secrets = "/credential/v2.0" + ws + "/secrets"
)

func v1Keyed(name, key string) string {
	return `{"name":"` + name + `","dataStoreType":"AzureBlob","azureStorageSection":{"accountName":"acct2","containerName":"c","credentialType":"AccountKey","credential":"` + key + `","areWorkspaceManagedIdentitiesAllowed":false,"ServiceDataAccessAuthIdentity":"None"}}`
}

// One kind, one truth: what v1 registers is a datastore of Resource Manager, and the other way round.
func TestBothVersionsShowTheSameDatastores(t *testing.T) {
	w := ready(t, "")
	w.do("olga", "POST", v1Stores+"?createIfNotExists=true", v1Keyed("Old", accountKey), 200)
	_, d := w.do("olga", "GET", ws+"/datastores/old", "", 200)
	if dig(d, "properties", "accountName") != "acct2" || dig(d, "properties", "credentials", "credentialsType") != credKey || strings.Contains(jsonText(d), accountKey) {
		t.Errorf("v2 shows %v", d)
	}
	if _, d = w.do("olga", "GET", v1Stores+"/old", "", 200); dig(d, "azureStorageSection", "accountKey") != accountKey || d["hasBeenValidated"] != true {
		t.Errorf("v1 shows %v", d)
	}
	if _, m := w.refused("olga", "POST", v1Stores, v1Keyed("old", accountKey), 400); !strings.Contains(m, "Another datastore with the same name already exists") {
		t.Errorf("a second one is refused with %q, which azureml-core does not know", m)
	}
	w.do("olga", "PUT", v1Stores+"/old", v1Keyed("old", accountKey), 200)
	w.do("olga", "PUT", v1Stores+"/new", v1Keyed("new", accountKey), 404)
	if code, m := w.refused("olga", "POST", v1Stores, v1Keyed("bad", "d3Jvbmc="), 400); code != "InvalidDatastore" || strings.Contains(m, "d3Jvbmc=") {
		t.Errorf("a wrong key is %s: %s", code, m)
	}
	w.inVault(t, 1, accountKey)
	share := strings.Replace(v1Keyed("share", accountKey), azureBlob, azureFile, 1)
	w.do("olga", "POST", v1Stores+"?createIfNotExists=true", share, 400)
	w.do("olga", "POST", v1Stores, share, 200)
	if _, d := w.do("olga", "GET", ws+"/datastores/share", "", 200); dig(d, "properties", "fileShareName") != "c" {
		t.Errorf("v2 shows the share as %v", d)
	}
	w.do("olga", "PUT", ws+"/datastores/lake", `{"properties":{"datastoreType":"AzureDataLakeGen2","accountName":"acct2","filesystem":"c","credentials":{"credentialsType":"ServicePrincipal","tenantId":"tenant-1","clientId":"app1","secrets":{"secretsType":"ServicePrincipal","clientSecret":"`+clientSecret+`"}}}}`, 0)
	w.do("olga", "PUT", ws+"/datastores/plain", `{"properties":{"datastoreType":"AzureBlob","accountName":"acct2","containerName":"c","credentials":{"credentialsType":"None"}}}`, 201)
	_, page := w.do("rita", "GET", v1Stores+"?count=2&includeSecret=true", "", 200)
	_, rest := w.do("rita", "GET", v1Stores+"?continuationToken="+page["continuationToken"].(string), "", 200)
	all := append(page["value"].([]any), rest["value"].([]any)...)
	if _, v2 := w.do("rita", "GET", ws+"/datastores", "", 200); len(v2["value"].([]any)) != len(all) {
		t.Errorf("v1 lists %d, v2 %v", len(all), v2)
	}
	w.do("rita", "DELETE", v1Stores+"/old", "", 403)
	w.do("olga", "DELETE", v1Stores+"/old", "", 200)
	w.do("olga", "GET", ws+"/datastores/old", "", 404)
	w.do("olga", "DELETE", v1Stores+"/"+defaultDatastore, "", 400)
}

// What a body says twice, or of what there is not, is refused before anything is kept.
func TestV1DatastoresAreReadStrictly(t *testing.T) {
	w := ready(t, "")
	for name, body := range map[string]string{
		"another type":              `{"name":"x","dataStoreType":"AzureSqlDatabase","azureSqlDatabaseSection":{}}`,
		"no section":                `{"name":"x","dataStoreType":"AzureBlob"}`,
		"a key and no key's type":   `{"name":"x","dataStoreType":"AzureBlob","azureStorageSection":{"accountName":"acct2","containerName":"c","credentialType":"None","credential":"a2V5"}}`,
		"a secret without its type": `{"name":"x","dataStoreType":"AzureBlob","azureStorageSection":{"accountName":"acct2","containerName":"c","credentialType":"None","clientCredentials":{"clientSecret":"s"}}}`,
		"an identity, half allowed": `{"name":"x","dataStoreType":"AzureBlob","azureStorageSection":{"accountName":"acct2","containerName":"c","areWorkspaceManagedIdentitiesAllowed":true}}`,
		"no name":                   `{"dataStoreType":"AzureBlob","azureStorageSection":{"accountName":"acct2","containerName":"c"}}`,
		"a name that is a path":     `{"name":"x/../y","dataStoreType":"AzureBlob","azureStorageSection":{"accountName":"acct2","containerName":"c"}}`,
		"an unknown word":           `{"name":"x","dataStoreType":"AzureBlob","azureStorageSection":{"accountName":"acct2","containerName":"c","colour":"red"}}`,
	} {
		if code, _ := w.do("olga", "POST", v1Stores, body, 0); code != 400 {
			t.Errorf("%s: %d, want 400", name, code)
		}
	}
	w.do("olga", "PUT", v1Stores+"/x", v1Keyed("y", accountKey), 404)
	w.inVault(t, 0, "")
}

// The default is one for both versions, can't be deleted in either, and survives being written over.
func TestTheDefaultDatastoreIsSetByV1(t *testing.T) {
	w := ready(t, "")
	w.do("olga", "POST", v1Stores+"?createIfNotExists=true", v1Keyed("mine", accountKey), 200)
	of := "/datastore/v1.0" + ws + "/default"
	w.do("rita", "PUT", of+"/mine", "", 403)
	w.do("olga", "PUT", of+"/nothing", "", 404)
	w.do("olga", "PUT", of+"/mine", "", 200)
	w.do("olga", "PUT", v1Stores+"/mine", v1Keyed("mine", accountKey), 200)
	if _, d := w.do("rita", "GET", of, "", 200); d["name"] != "mine" {
		t.Errorf("v1's default is %v", d["name"])
	}
	if _, d := w.do("rita", "GET", ws+"/datastores?isDefault=true", "", 200); len(d["value"].([]any)) != 1 || dig(d["value"].([]any)[0], "name") != "mine" {
		t.Errorf("v2's default is %v", d)
	}
	for _, at := range []string{v1Stores, ws + "/datastores"} {
		if _, m := w.refused("olga", "DELETE", at+"/mine", "", 400); !strings.Contains(m, "default") {
			t.Errorf("deleting the default at %s: %q", at, m)
		}
	}
	w.do("olga", "PUT", of+"/"+defaultDatastore, "", 200)
	w.do("olga", "DELETE", v1Stores+"/mine", "", 200)
}

// Trap T1: by Azure's documents of v2 a reader has no credentials, by those of v1 every reader
// has. The workspace says which holds, and only who may read them may open them to readers.
func TestWhoReadsCredentialsIsTheWorkspacesMode(t *testing.T) {
	w := ready(t, "")
	w.do("olga", "POST", v1Stores+"?createIfNotExists=true", v1Keyed("mine", accountKey), 200)
	w.do("olga", "PUT", v1Secrets, `{"name":"word","value":"a secret word"}`, 200)
	own := func(who string) string {
		_, d := w.do(who, "GET", v1Stores+"/"+defaultDatastore, "", 200)
		text, _ := dig(d, "azureStorageSection", "sasToken").(string)
		return text
	}
	if _, d := w.do("rita", "GET", v1Stores+"/mine", "", 200); strings.Contains(jsonText(d), accountKey) || own("rita") != "" {
		t.Errorf("a reader has the key in v2's mode: %v", d)
	}
	if _, d := w.do("rita", "GET", v1Stores+"?includeSecret=true", "", 200); strings.Contains(jsonText(d), accountKey) {
		t.Errorf("a reader's list has the key in v2's mode: %v", d)
	}
	w.do("rita", "GET", v1Secrets+"/word", "", 403)
	w.do("rita", "POST", v1Secrets+":getbatch", `{"secrets":[{"name":"word"}]}`, 403)
	if _, d := w.do("rita", "GET", v1Secrets, "", 200); !strings.Contains(jsonText(d), "word") || strings.Contains(jsonText(d), "a secret word") {
		t.Errorf("a reader's list of secrets is %v", d)
	}
	if own("olga") == "" {
		t.Error("the owner has no signature")
	}

	legacy := func(who, is string, want int) { w.do(who, "PATCH", ws, `{"properties":{"v1LegacyMode":`+is+`}}`, want) }
	w.engine.PutRole(rbac.Role{ID: "writer", Permissions: []rbac.Permission{{Actions: []string{workspaceType + "/*"}, NotActions: []string{listSecrets.Name()}}}})
	w.give("sam", "writer", group)
	if code, _ := w.refused("sam", "PATCH", ws, `{"properties":{"v1LegacyMode":true}}`, 403); code != string(arm.LinkedForbidden) {
		t.Errorf("who may change the workspace and not read credentials is refused with %s", code)
	}
	legacy("olga", "true", 200)
	if _, d := w.do("rita", "GET", v1Stores+"/mine", "", 200); dig(d, "azureStorageSection", "accountKey") != accountKey {
		t.Errorf("a reader has no key in v1's mode: %v", d)
	}
	if s := own("rita"); !strings.Contains(s, "sp=rl&") {
		t.Errorf("a reader's signature for the workspace's own datastore is %q, want one that only reads", s)
	}
	if s := own("olga"); !strings.Contains(s, "sp=racwl&") {
		t.Errorf("the owner's signature is %q", s)
	}
	if _, d := w.do("rita", "GET", v1Secrets+"/word", "", 200); d["value"] != "a secret word" {
		t.Errorf("a reader's secret is %v", d)
	}
	w.do("rita", "PUT", v1Secrets, `{"name":"word","value":"another"}`, 403)
	w.do("dan", "GET", v1Secrets+"/word", "", 403)

	// v2 is shut below the workspace, but for computes.
	for _, at := range []string{"/datastores", "/datastores/mine", "/jobs", "/data", "/codes", "/environments"} {
		if code, m := w.refused("olga", "GET", ws+at, "", 400); !strings.Contains(m, "v1LegacyMode") {
			t.Errorf("v2's %s in v1's mode: %s %s", at, code, m)
		}
	}
	w.do("olga", "POST", ws+"/datastores/mine/listSecrets", "", 400)
	w.do("olga", "GET", ws+"/computes", "", 200)
	w.do("rita", "GET", ws, "", 200)
	legacy("olga", "false", 200)
	w.do("rita", "GET", v1Secrets+"/word", "", 403)
	w.do("olga", "GET", ws+"/datastores/mine", "", 200)
}

// The workspace's rights in its vault open what was kept by these doors and nothing
// else: not what opens datastores, not what others keep there.
func TestTheVaultIsNotOpenByTheWorkspacesRights(t *testing.T) {
	w := ready(t, "")
	w.do("olga", "POST", v1Stores+"?createIfNotExists=true", v1Keyed("mine", accountKey), 200)
	w.roles.add("kim", roleVaultAdmin, arm.MustID(vault1))
	if _, err := w.roles.Keep(t.Context(), arm.Caller{Object: "kim"}, arm.MustID(vault1), VaultSecret{Name: "theirs", Value: arm.NewSecret([]byte("kim's own"))}); err != nil {
		t.Fatal(err)
	}
	store := ""
	for name := range w.roles.secrets {
		if strings.HasPrefix(name, "datastore-") {
			store = name
		}
	}
	for _, name := range []string{"theirs", store} {
		w.do("olga", "GET", v1Secrets+"/"+name, "", 403)
		w.do("olga", "DELETE", v1Secrets+"/"+name, "", 403)
		w.do("olga", "PUT", v1Secrets, `{"name":"`+name+`","value":"over"}`, 403)
		w.do("olga", "POST", v1Secrets+":getbatch", `{"secrets":[{"name":"`+name+`"}]}`, 403)
		w.do("olga", "POST", v1Secrets+":deletebatch", `{"secrets":[{"name":"`+name+`"}]}`, 403)
	}
	w.roles.add("olga", roleVaultAdmin, arm.MustID(vault1))
	if _, d := w.do("olga", "GET", v1Secrets+"/theirs", "", 200); d["value"] != "kim's own" {
		t.Errorf("who may read the vault reads %v", d)
	}
	w.do("olga", "GET", v1Secrets+"?systemSecret=true", "", 400)
	w.do("olga", "PUT", v1Secrets, `{"name":"empty","value":""}`, 400)
	w.do("olga", "POST", v1Secrets+":getbatch", `{"secrets":[]}`, 400)
	w.do("olga", "PUT", v1Secrets+":putbatch", `{"secrets":[{"name":"a","value":"value a"},{"name":"b","value":"value b"}]}`, 200)
	if _, d := w.do("olga", "POST", v1Secrets+":getbatch", `{"secrets":[{"name":"a"},{"name":"none"}]}`, 200); dig(d["secrets"].([]any)[0], "value") != "value a" || d["notFoundSecrets"].([]any)[0] != "none" {
		t.Errorf("a batch is %v", d)
	}
	w.do("olga", "POST", v1Secrets+":deletebatch", `{"secrets":[{"name":"a"},{"name":"none"}]}`, 200)
	if code, _ := w.refused("olga", "GET", v1Secrets+"/a", "", 0); code != "SecretNotFound" {
		t.Errorf("a secret that was deleted is %s", code)
	}
	w.workspace(ws2)
	w.do("olga", "PUT", "/credential/v2.0"+ws2+"/secrets", `{"name":"second","value":"of the second"}`, 200)
	w.roles.take("olga", roleVaultAdmin, arm.MustID(vault1))
	w.do("olga", "GET", v1Secrets+"/second", "", 403)
	if _, d := w.do("olga", "GET", v1Secrets, "", 200); strings.Contains(jsonText(d), "second") || strings.Contains(jsonText(d), "theirs") {
		t.Errorf("the list has what is not the workspace's: %v", d)
	}
}

// A run reads what whoever submitted it could read, asked at that moment, and
// only with its own token; it sets and deletes nothing.
func TestARunReadsItsSubmittersSecrets(t *testing.T) {
	w := ready(t, "")
	w.do("olga", "PUT", v1Secrets, `{"name":"word","value":"a secret word"}`, 200)
	w.give("dan", roleDataScientist, ws)
	w.engine.PutRole(rbac.Role{ID: "submitter", Permissions: []rbac.Permission{{Actions: []string{workspaceType + "/*"}, NotActions: []string{listSecrets.Name()}}}})
	w.give("sam", "submitter", ws)
	for who, want := range map[string]int{"dan": 200, "sam": 403} {
		w.do(who, "PUT", ws+"/jobs/of-"+who, jobBody(`"command":"sleep 60"`), 201)
		w.until(who+"'s job runs", func() bool { return w.status("of-"+who) == "Running" })
		token := envOf(w.boxes.last(), "AZUREML_RUN_TOKEN")
		w.do(token, "GET", v1Secrets+"/word", "", 401) // out of its sandbox
		w.inside = w.boxes.last().Name
		if _, d := w.do(token, "GET", v1Secrets+"/word", "", want); (d["value"] == "a secret word") != (want == 200) {
			t.Errorf("%s's run reads %v", who, d)
		}
		w.do(token, "POST", v1Secrets+":getbatch", `{"secrets":[{"name":"word"}]}`, want)
		w.do(token, "PUT", v1Secrets, `{"name":"word","value":"x"}`, 403)
		w.do(token, "DELETE", v1Secrets+"/word", "", 403)
		w.do(token, "GET", v1Stores+"/"+defaultDatastore, "", 403)
		w.do(token, "GET", "/credential/v2.0"+ws2+"/secrets/word", "", 403)
		w.inside = ""
		w.do("olga", "POST", ws+"/jobs/of-"+who+"/cancel", "", 0)
		w.ends("of-"+who, "Canceled")
	}
}
