package ml

import (
	"strings"
	"testing"

	"castellan/internal/arm"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// Every kind of credential of every type of datastore: tried when it is
// registered, kept in the vault alone, given to who may list secrets, used by a
// job, and out of the vault once the datastore is gone or opened otherwise.
func TestEveryKindOfCredential(t *testing.T) {
	w := ready(t, "")
	w.blobs.put(account2, "c", "d.txt", "a word\n")
	w.roles.add("sp1", roleBlobContributor, arm.MustID(account2))
	const principal = `"tenantId":"tenant-1","clientId":"app1","authorityUrl":"https://castellan.localhost"`
	places := map[string]string{azureBlob: `"containerName":"c"`, azureGen2: `"filesystem":"c"`, azureFile: `"fileShareName":"c"`}
	body := func(typ, creds string) string {
		return `{"properties":{"datastoreType":"` + typ + `","accountName":"acct2",` + places[typ] + `,"credentials":` + creds + `}}`
	}
	for _, x := range []struct{ kind, fields, good, wrong, field string }{
		{credKey, "", accountKey, "d3Jvbmc=", "key"},
		{credPrincipal, principal, clientSecret, "wrong", "clientSecret"},
	} {
		for typ := range places {
			with := func(value string) string {
				return body(typ, `{"credentialsType":"`+x.kind+`",`+strings.TrimSuffix(x.fields+",", ",")+map[bool]string{true: ",", false: ""}[x.fields != ""]+`"secrets":{"secretsType":"`+x.kind+`","`+x.field+`":"`+value+`"}}`)
			}
			at := ws + "/datastores/d1"
			if typ == azureFile && x.kind != credKey { // as in Azure, no identity opens a share
				w.refused("olga", "PUT", at, with(x.good), 400)
				continue
			}
			if code, m := w.refused("olga", "PUT", at, with(x.wrong), 400); code != "InvalidDatastore" || strings.Contains(m, x.wrong) {
				t.Errorf("%s %s: a wrong secret is %s (%s)", typ, x.kind, code, m)
			}
			_, d := w.do("olga", "PUT", at, with(x.good), 201)
			if strings.Contains(jsonText(d), x.good) {
				t.Errorf("%s %s: the answer shows the secret", typ, x.kind)
			}
			w.do("rita", "POST", at+"/listSecrets", "", 403)
			if _, d := w.do("olga", "POST", at+"/listSecrets", "", 200); d[x.field] != x.good || d["secretsType"] != x.kind {
				t.Errorf("%s %s: listSecrets = %v", typ, x.kind, d)
			}
			w.inVault(t, 1, x.good)
			job := "j" + strings.ToLower(typ+x.kind)
			w.job(job, `"command":"cat ${{inputs.d}}","inputs":{"d":{"jobInputType":"uri_file","uri":"azureml://datastores/d1/paths/d.txt"}}`)
			w.ends(job, "Completed")
			if log := w.runs.get(job).artifacts[stdLog]; log != "a word\n" {
				t.Errorf("%s %s: log = %q", typ, x.kind, log)
			}
			if none := body(typ, `{"credentialsType":"None"}`); typ == azureFile {
				w.refused("olga", "PUT", at, none, 400)
			} else {
				w.do("olga", "PUT", at, none, 200)
				w.inVault(t, 0, "")
			}
			w.do("olga", "PUT", at, with(x.good), 200)
			w.do("olga", "DELETE", at, "", 200)
			w.inVault(t, 0, "")
		}
	}
}

// inVault wants n secrets in the workspace's vault, and the last of each to have
// value; no row of the store outside has it.
func (w *world) inVault(t *testing.T, n int, value string) {
	t.Helper()
	w.roles.mu.Lock()
	defer w.roles.mu.Unlock()
	if len(w.roles.secrets) != n {
		t.Errorf("the vault has %d secrets, want %d", len(w.roles.secrets), n)
	}
	for name, versions := range w.roles.secrets {
		if !strings.Contains(string(versions[len(versions)-1].Reveal()), value) {
			t.Errorf("the secret %s has another value", name)
		}
	}
	_ = w.db.View(t.Context(), func(tx *store.Tx) error {
		d, err := resource.Load(tx, arm.MustID(ws+"/datastores/d1"))
		if err == nil && d != nil && n > 0 && strings.Contains(string(d.Inner)+string(d.Properties), value) {
			t.Error("the datastore's row has the secret")
		}
		return err
	})
}

// A datastore whose secret the workspace can't reach opens nothing, and says why;
// one is not kept without.
func TestWithoutTheVaultNothingOpens(t *testing.T) {
	w := ready(t, "")
	w.blobs.put(account2, "c", "d.txt", "a word\n")
	const keyed = `{"properties":{"datastoreType":"AzureBlob","accountName":"acct2","containerName":"c","credentials":{"credentialsType":"AccountKey","secrets":{"secretsType":"AccountKey","key":"` + accountKey + `"}}}}`
	w.do("olga", "PUT", ws+"/datastores/d1", keyed, 201)
	me := principalOf(arm.MustID(ws))
	w.roles.take(me, roleVaultAdmin, arm.MustID(vault1))
	if code, _ := w.refused("olga", "PUT", ws+"/datastores/d2?skipValidation=true", keyed, 400); code != string(secretUnavailable) {
		t.Errorf("a datastore that can't be kept: %s", code)
	}
	w.do("olga", "GET", ws+"/datastores/d2", "", 404)
	if code, _ := w.refused("olga", "POST", ws+"/datastores/d1/listSecrets", "", 400); code != string(secretUnavailable) {
		t.Errorf("listSecrets without the vault: %s", code)
	}
	const in = `"command":"cat ${{inputs.d}}","inputs":{"d":{"jobInputType":"uri_file","uri":"azureml://datastores/d1/paths/d.txt"}}`
	w.job("cut", in)
	w.ends("cut", "Failed")
	w.do("olga", "POST", ws+"/resyncKeys", "", 200)
	w.job("back", in)
	w.ends("back", "Completed")
}

// What names another tenant, another authority, or a secret for another place is refused.
func TestCredentialsOfElsewhere(t *testing.T) {
	w := ready(t, "")
	w.blobs.put(account2, "c", "d.txt", "x")
	put := func(creds string) (string, string) {
		return w.refused("olga", "PUT", ws+"/datastores/d1?skipValidation=true", `{"properties":{"datastoreType":"AzureBlob","accountName":"acct2","containerName":"c","credentials":`+creds+`}}`, 400)
	}
	const secret = `,"secrets":{"secretsType":"ServicePrincipal","clientSecret":"s"}}`
	for creds, names := range map[string]string{
		`{"credentialsType":"ServicePrincipal","tenantId":"tenant-2","clientId":"app1"` + secret:                                                      "own tenant",
		`{"credentialsType":"ServicePrincipal","tenantId":"tenant-1","clientId":"app1","authorityUrl":"https://login.example"` + secret:               "authorityUrl",
		`{"credentialsType":"ServicePrincipal","tenantId":"tenant-1","clientId":"app1","authorityUrl":"https://castellan.localhost.example"` + secret: "authorityUrl",
		`{"credentialsType":"ServicePrincipal","tenantId":"tenant-1","clientId":"app1","resourceUrl":"https://vault.example"` + secret:                "resourceUrl",
		`{"credentialsType":"ServicePrincipal","tenantId":"tenant-1"` + secret:                                                                        "clientId",
		`{"credentialsType":"ServicePrincipal","tenantId":"tenant-1","clientId":"app1","secrets":{"secretsType":"ServicePrincipal"}}`:                 "clientSecret",
		`{"credentialsType":"Certificate","tenantId":"tenant-1","clientId":"app1","secrets":{"secretsType":"Certificate","certificate":"none"}}`:      "certificate",
		`{"credentialsType":"KerberosKeytab"}`: "credentialsType",
	} {
		if _, m := put(creds); !strings.Contains(m, names) {
			t.Errorf("%s: %s", creds, m)
		}
	}
}
