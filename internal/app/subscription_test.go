package app

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"castellan/internal/arm"
)

// A cancelled subscription is read and emptied, and nothing else, whoever asks, until
// it is enabled again; one with resources is cancelled only by who says so.
func TestCancelledSubscription(t *testing.T) {
	t.Parallel()
	a, err := New(t.Context(), Config{Data: t.TempDir() + "/data"})
	if err != nil {
		t.Fatal(err)
	}
	a.Run(t.Context())
	token, base, sub := a.admin(t, "arm"), a.Site.Base(), "/subscriptions/"+a.Site.Subscription
	group, at := sub+"/resourceGroups/kept", map[string]any{"location": "local"}
	account := group + "/providers/Microsoft.Storage/storageAccounts/keptacct"
	made(t, a, token, group, at)
	made(t, a, token, account, map[string]any{"location": "local", "kind": "StorageV2", "sku": map[string]any{"name": "Standard_LRS"}})
	reader := a.newPerson(t, "reader")
	a.giveRole(t, token, sub, reader.object, "Reader")
	readers := tokenFor(t, a, reader.id, reader.secret, a.Site.Base())
	ask := func(token, method, path string, body any) (int, string) {
		w := call(a, token, method, base+path+"?api-version=any", body)
		return w.Code, w.Body.String()
	}
	is := func(state string) {
		t.Helper()
		if got := fmt.Sprint(must(t, a, http.StatusOK, token, http.MethodGet, base+sub+"?api-version=any", nil)["state"]); got != state {
			t.Errorf("the subscription is %s, want %s", got, state)
		}
	}
	for _, p := range a.Planes {
		if ours := slices.Contains([]string{"arm", "login", "graph", "scim"}, p.Name); ours == (p.Cancelled != nil) {
			t.Errorf("the plane %s says what a cancelled subscription's data are: %v", p.Name, !ours)
		}
	}
	data := cancelledData(t, a, token, group, account)
	data(a, "before", true)
	const cancel, enable = "/providers/Microsoft.Subscription/cancel", "/providers/Microsoft.Subscription/enable"
	for what, c := range map[string]struct {
		token, path string
		want        int
	}{
		"by a reader":          {readers, cancel + "?IgnoreResourceCheck=true&api-version=any", 403},
		"with resources in it": {token, cancel + "?api-version=any", 409},
		"perhaps":              {token, cancel + "?IgnoreResourceCheck=maybe&api-version=any", 400},
	} {
		if w := call(a, c.token, http.MethodPost, base+sub+c.path, nil); w.Code != c.want {
			t.Errorf("cancelled %s: %d %s", what, w.Code, w.Body)
		}
	}
	is("Enabled")
	must(t, a, http.StatusOK, token, http.MethodPost, base+sub+cancel+"?IgnoreResourceCheck=true&api-version=any", nil)
	is("Disabled")
	data(a, "while it is cancelled", false)
	const role = "/providers/Microsoft.Authorization/roleAssignments/"
	for _, c := range []struct {
		method, path string
		body         any
	}{
		{http.MethodPut, sub + "/resourceGroups/new", at},
		{http.MethodPatch, group, map[string]any{"tags": map[string]any{"a": "b"}}},
		{http.MethodPatch, account, map[string]any{"tags": map[string]any{"a": "b"}}},
		{http.MethodPost, account + "/listKeys", nil},
		{http.MethodPost, account + "/regenerateKey", map[string]any{"keyName": "key1"}},
		{http.MethodPut, sub + role + arm.NewUUID(), assignmentOf(a.Site.Subscription, roles[0], reader.object)},
		{http.MethodPost, sub + "/providers/Microsoft.Subscription/rename", map[string]any{"subscriptionName": "other"}},
	} {
		if code, body := ask(token, c.method, c.path, c.body); code != http.StatusConflict || !strings.Contains(body, `"ReadOnlyDisabledSubscription"`) {
			t.Errorf("%s %s in a cancelled subscription = %d %s", c.method, c.path, code, body)
		}
	}
	if code, body := ask(readers, http.MethodGet, account, nil); code != http.StatusOK {
		t.Errorf("a reader reads: %d %s", code, body)
	}
	if code, body := ask(readers, http.MethodPost, sub+enable, nil); code != http.StatusForbidden {
		t.Errorf("a reader enables it: %d %s", code, body)
	}
	if code, body := ask(token, http.MethodDelete, group+"/providers/Microsoft.ManagedIdentity/userAssignedIdentities/spare", nil); code/100 != 2 {
		t.Errorf("deleting in a cancelled subscription: %d %s", code, body)
	}
	admin := a.Admin
	a = again(t, a)
	a.Admin = admin // newTenant asks as them
	data(a, "while it is cancelled, after a restart", false)
	must(t, a, http.StatusOK, token, http.MethodPost, base+sub+enable+"?api-version=any", nil)
	is("Enabled")
	data(a, "once it is enabled", true)
	made(t, a, token, sub+"/resourceGroups/new", at)

	// Another alias is given by whoever may rename the subscription; it can't change what it is of.
	alias := func(token, of string) (int, string) {
		return ask(token, http.MethodPut, "/providers/Microsoft.Subscription/aliases/again", map[string]any{"properties": map[string]any{"subscriptionId": of}})
	}
	must(t, a, http.StatusOK, token, http.MethodPost, base+"/providers/Microsoft.Authorization/elevateAccess?api-version=any", nil)
	a.giveRole(t, token, "/providers/Microsoft.Management/managementGroups/"+a.Site.Tenant, claimOf(token, "oid"), "Owner")
	if code, body := alias(readers, a.Site.Subscription); code != http.StatusForbidden {
		t.Errorf("a reader's alias: %d %s", code, body)
	}
	if code, body := alias(token, arm.NewUUID()); code/100 == 2 {
		t.Errorf("an alias of nothing: %d %s", code, body)
	}
	if code, body := alias(token, a.Site.Subscription); code != http.StatusCreated || !strings.Contains(body, a.Site.Subscription) {
		t.Errorf("an alias: %d %s", code, body)
	}
	other := newTenant(t, a, "other.example")
	if code, body := alias(token, other.sub); code != http.StatusForbidden {
		t.Errorf("an alias of another tenant's: %d %s", code, body)
	}
}

// cancelledData makes data on every plane of a subscription, and tells how to ask for
// it: by token, account key's signature and token again, to read and to change.
func cancelledData(t *testing.T, a *App, token, group, account string) func(a *App, when string, open bool) {
	t.Helper()
	me := a.newPerson(t, "data")
	for _, role := range []string{"Storage Blob Data Owner", "Key Vault Administrator", "Contributor"} {
		a.giveRole(t, token, group, me.object, role)
	}
	vault, lab := group+"/providers/Microsoft.KeyVault/vaults/kept-vault", group+"/providers/Microsoft.MachineLearningServices/workspaces/kept"
	made(t, a, token, vault, map[string]any{"location": "local", "properties": map[string]any{"tenantId": a.Site.Tenant, "sku": map[string]any{"family": "A", "name": "standard"}, "enableRbacAuthorization": true}})
	made(t, a, token, lab, map[string]any{"location": "local", "identity": map[string]any{"type": "SystemAssigned"}, "properties": map[string]any{"storageAccount": account, "keyVault": vault}})
	made(t, a, token, group+"/providers/Microsoft.ManagedIdentity/userAssignedIdentities/spare", map[string]any{"location": "local"})
	tokens := map[string]string{}
	for plane, audience := range a.audiences() {
		tokens[plane] = tokenFor(t, a, me.id, me.secret, audience)
	}
	keys := must(t, a, http.StatusOK, token, http.MethodPost, a.Site.Base()+account+"/listKeys?api-version=any", nil)["keys"].([]any)
	sas := signature(t, "keptacct", fmt.Sprint(keys[0].(map[string]any)["value"]), "")
	blobs, files := "https://keptacct.blob.core."+a.Site.Suffix+"/con", "https://keptacct.dfs.core."+a.Site.Suffix+"/con"
	secret := "https://kept-vault." + a.Site.VaultSuffix() + "/secrets/s?api-version=7.4"
	mlflow := a.Site.Base() + "/mlflow/v2.0" + lab + "/api/2.0/mlflow/"
	must(t, a, http.StatusCreated, tokens["blob"], http.MethodPut, blobs+"?restype=container", nil, "x-ms-version", storageVersion)
	must(t, a, http.StatusOK, tokens["ml"], http.MethodPost, mlflow+"registered-models/create", map[string]any{"name": "m"})
	return func(a *App, when string, open bool) {
		t.Helper()
		for _, c := range []struct {
			plane, method, url string
			body               any
			code               string // of the refusal; "" for what is never refused
		}{
			{"blob", http.MethodPut, blobs + "/b", "x", "AccountIsDisabled"},
			{"", http.MethodGet, blobs + "?restype=container&comp=list&" + sas, nil, ""},
			{"blob", http.MethodGet, blobs + "/b", nil, ""},
			{"blob", http.MethodPut, blobs + "?restype=container&comp=metadata", nil, "AccountIsDisabled"},
			{"blob", http.MethodPut, files + "/f?resource=file", nil, "AccountIsDisabled"},
			{"blob", http.MethodGet, files + "?resource=filesystem&recursive=false", nil, ""},
			{"vault", http.MethodPut, secret, map[string]any{"value": "v"}, "subscription was cancelled"},
			{"vault", http.MethodGet, secret, nil, "subscription was cancelled"},
			{"ml", http.MethodPatch, mlflow + "registered-models/update", map[string]any{"name": "m", "description": when}, "subscription is disabled"},
			{"ml", http.MethodGet, mlflow + "registered-models/get?name=m", nil, ""},
		} {
			w := call(a, tokens[c.plane], c.method, c.url, c.body, "x-ms-version", storageVersion, "x-ms-blob-type", "BlockBlob")
			if fine := open || c.code == ""; fine != (w.Code/100 == 2) || !fine && !strings.Contains(w.Body.String(), c.code) {
				t.Errorf("%s: %s %s = %d %s", when, c.method, c.url, w.Code, w.Body)
			}
		}
	}
}
