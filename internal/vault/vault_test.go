package vault

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// A vault is made, found, listed, deleted, found in the bin and recovered with
// all that it kept.
func TestLifeOfAVault(t *testing.T) {
	w := newWorld(t)
	got := w.do(owner, "PUT", vaults+"kv1", vaultBody(""), 201)
	for path, want := range map[string]string{
		"vaultUri": "https://kv1.vault.castellan.localhost/", "enableRbacAuthorization": "true", "enableSoftDelete": "true",
		"softDeleteRetentionInDays": "90", "provisioningState": "Succeeded", "tenantId": tenant, "accessPolicies": "[]",
	} {
		if got.str("properties", path) != want {
			t.Errorf("properties.%s = %q, want %q", path, got.str("properties", path), want)
		}
	}
	w.do(owner, "PUT", vaults+"kv1", vaultBody(""), 200)
	w.do(office, "PUT", "vault:kv1/secrets/s1", `{"value":"hunter2"}`, 200)
	w.do(owner, "DELETE", vaults+"kv1", "", 200)
	w.do(user, "GET", "vault:kv1/secrets/s1", "", 404)
	w.do(owner, "GET", vaults+"kv1", "", 404)
	bin := "/subscriptions/" + sub + "/providers/Microsoft.KeyVault/locations/local/deletedVaults/kv1"
	if got := w.do(reader, "GET", bin, "", 200); !strings.EqualFold(got.str("properties", "vaultId"), vaults+"kv1") {
		t.Errorf("the deleted vault is %s", got.text)
	}
	if got := w.do(nobody, "GET", bin, "", 404); strings.Contains(got.text, rg) {
		t.Errorf("somebody without a role is told where the vault was: %s", got.text)
	}
	w.do(nobody, "GET", strings.Replace(bin, "locations/local/", "", 1)[:strings.LastIndex(strings.Replace(bin, "locations/local/", "", 1), "/")], "", 200)
	if got := w.do(owner, "PUT", vaults+"kv1", vaultBody(`"createMode":"recover"`), 201); got.str("properties", "createMode") != "" {
		t.Errorf("the recovered vault shows its createMode: %s", got.text)
	}
	if got := w.do(user, "GET", "vault:kv1/secrets/s1", "", 200); got.str("value") != "hunter2" {
		t.Errorf("after recovery the secret is %s", got.text)
	}
	w.do(owner, "GET", bin, "", 404)
}

// KV-03: who deletes a vault cannot have its name until it is purged, purge
// protection holds against everybody, and retention is fixed at birth.
func TestSoftDeleteHolds(t *testing.T) {
	w := newWorld(t)
	for _, n := range []int{6, 91, 0, -1} {
		w.do(owner, "PUT", vaults+"kv3", vaultBody(fmt.Sprintf(`"softDeleteRetentionInDays":%d`, n)), 400)
	}
	w.do(owner, "PUT", vaults+"kv3", vaultBody(`"enableSoftDelete":false`), 400)
	w.do(owner, "PUT", vaults+"kv3", vaultBody(`"softDeleteRetentionInDays":7,"enablePurgeProtection":true`), 201)
	w.do(owner, "PUT", vaults+"kv3", vaultBody(`"softDeleteRetentionInDays":8`), 400)
	w.do(owner, "PATCH", vaults+"kv3", `{"properties":{"softDeleteRetentionInDays":30}}`, 400)
	w.do(owner, "PATCH", vaults+"kv3", `{"properties":{"enablePurgeProtection":false}}`, 400)
	w.do(owner, "PATCH", vaults+"kv3", `{"properties":{"enableSoftDelete":false}}`, 400)
	if got := w.do(owner, "PUT", vaults+"kv3", vaultBody(""), 200); got.str("properties", "enablePurgeProtection") != "true" || got.str("properties", "softDeleteRetentionInDays") != "7" {
		t.Errorf("a PUT that says nothing of them took protection or retention away: %s", got.text)
	}
	w.do(office, "PUT", "vault:kv3/secrets/s", `{"value":"x"}`, 200)
	w.do(office, "DELETE", "vault:kv3/secrets/s", "", 200)
	w.do(office, "DELETE", "vault:kv3/deletedsecrets/s", "", 403)
	w.do(owner, "DELETE", vaults+"kv3", "", 200)
	purge := "/subscriptions/" + sub + "/providers/Microsoft.KeyVault/locations/local/deletedVaults/kv3/purge"
	w.do(owner, "POST", purge, "", 403)
	w.do(contri, "POST", purge, "", 403)
	other := strings.Replace(vaults, "/rg/", "/RG/", 1)
	w.do(owner, "PUT", other+"KV3", vaultBody(""), 409)
	w.pass(6 * 24 * time.Hour)
	w.do(owner, "PUT", vaults+"kv3", vaultBody(""), 409)
	w.pass(25 * time.Hour)
	w.do(owner, "POST", purge, "", 404)
	w.do(owner, "PUT", vaults+"kv3", vaultBody(`"createMode":"recover"`), 404)
	w.do(owner, "PUT", vaults+"kv3", vaultBody(""), 201)
	w.do(office, "GET", "vault:kv3/deletedsecrets/s", "", 404)
	if got := w.do(office, "GET", "vault:kv3/deletedsecrets", "", 200); !strings.Contains(got.text, `"value":[]`) {
		t.Errorf("the vault's successor shows what it kept: %s", got.text)
	}
}

// A purged vault's successor finds nothing of it, and purging takes a right
// that Key Vault Contributor has not.
func TestPurge(t *testing.T) {
	w := newWorld(t)
	w.do(owner, "PUT", vaults+"kv4", vaultBody(""), 201)
	w.do(office, "PUT", "vault:kv4/secrets/s", `{"value":"first"}`, 200)
	w.do(owner, "DELETE", vaults+"kv4", "", 200)
	purge := "/subscriptions/" + sub + "/providers/Microsoft.KeyVault/locations/local/deletedVaults/kv4/purge"
	w.do(contri, "POST", purge, "", 403)
	w.do(owner, "POST", strings.Replace(purge, "local/", "elsewhere/", 1), "", 404)
	w.do(owner, "POST", purge, "", 200)
	w.do(owner, "PUT", vaults+"kv4", vaultBody(""), 201)
	w.do(office, "GET", "vault:kv4/secrets/s", "", 404)
	w.do(office, "GET", "vault:kv4/secrets", "", 200)
}

// Names are one per installation, of the form that a host name takes.
func TestNames(t *testing.T) {
	w := newWorld(t)
	w.do(owner, "PUT", vaults+"taken", vaultBody(""), 201)
	for name, want := range map[string]int{
		"ab": 400, "a23456789012345678901234b": 400, "1abc": 400, "ab-": 400, "a--b": 400, "a_b": 400, "a.b": 400, "a%20b": 400, "a%2fb": 400, "abç": 400,
		"a-b": 201, "A23": 201, "a2345678901234567890123b": 201,
	} {
		w.do(owner, "PUT", vaults+name, vaultBody(""), want)
	}
	w.do(owner, "PUT", strings.Replace(vaults, "/rg/", "/rg2/", 1)+"x1x", vaultBody(""), 404)
	check := func(name string) string {
		return w.do(owner, "POST", "/subscriptions/"+sub+"/providers/Microsoft.KeyVault/checkNameAvailability", `{"name":"`+name+`","type":"Microsoft.KeyVault/vaults"}`, 200).text
	}
	if got := check("TAKEN"); !strings.Contains(got, "AlreadyExists") {
		t.Errorf("a taken name in capitals: %s", got)
	}
	if got := check("a--b"); !strings.Contains(got, "AccountNameInvalid") {
		t.Errorf("an impossible name: %s", got)
	}
	if got := check("free"); !strings.Contains(got, `"nameAvailable":true`) {
		t.Errorf("a free name: %s", got)
	}
}

// What a vault cannot keep it does not promise.
func TestPromisesThatCannotBeKept(t *testing.T) {
	w := newWorld(t)
	for _, props := range []string{
		`"publicNetworkAccess":"SecuredByPerimeter"`, `"networkAcls":{"ipRules":[{"value":"1.2.3.4"}]}`, `"networkAcls":{"defaultAction":"Deny","ipRules":[{"value":"1.2.3.4/8"}]}`,
		`"networkAcls":{"defaultAction":"Deny","ipRules":[{"value":"::ffff:1.2.3.0/120"}]}`, `"networkAcls":{"defaultAction":"Deny","virtualNetworkRules":[{"id":"x"}]}`,
		`"networkAcls":{"defaultAction":"Deny","bypass":"None"}`, `"publicNetworkAccess":"Disabled","networkAcls":{"defaultAction":"Allow","bypass":"None"}`,
		`"sku":{"family":"A","name":"premium"}`, `"tenantId":"33333333-3333-3333-3333-333333333333"`, `"unheard":1`, `"createMode":"fresh"`,
		policy("not-a-guid", `"get"`), policy(user, `"fly"`), policy(user, `"get"`)[:0] + `"accessPolicies":[{"tenantId":"33333333-3333-3333-3333-333333333333","objectId":"` + user + `","permissions":{}}]`,
	} {
		body := vaultBody(props)
		if strings.HasPrefix(props, `"sku"`) || strings.HasPrefix(props, `"tenantId"`) {
			body = `{"location":"local","properties":{"tenantId":"` + tenant + `","sku":{"family":"A","name":"standard"}}}`
			key, value, _ := strings.Cut(props, ":")
			at := strings.Index(body, key)
			body = body[:at] + key + ":" + value + body[at+strings.IndexAny(body[at+len(key)+1:], ",}")+len(key)+1:]
			if strings.HasPrefix(props, `"sku"`) {
				body = `{"location":"local","properties":{"tenantId":"` + tenant + `",` + props + `}}`
			}
		}
		w.do(owner, "PUT", vaults+"kv5", body, 400)
	}
	w.do(owner, "GET", vaults+"kv5", "", 404)
	w.do(owner, "PUT", vaults+"kv5", vaultBody(`"publicNetworkAccess":"enabled","networkAcls":{"bypass":"AzureServices","defaultAction":"Allow","ipRules":[],"virtualNetworkRules":[]},"accessPolicies":null`), 201)
}

// A restart forgets nothing: names, policies, the bin, the secrets.
func TestRestart(t *testing.T) {
	w := newWorld(t)
	w.do(owner, "PUT", vaults+"kv6", vaultBody(policy(nobody, `"get"`)), 201)
	w.do(owner, "PUT", vaults+"kv7", vaultBody(""), 201)
	w.do(owner, "DELETE", vaults+"kv7", "", 200)
	w.do(owner, "PUT", vaults+"kv6/accessPolicies/add", `{"properties":{"accessPolicies":[{"tenantId":"`+tenant+`","objectId":"`+office+`","permissions":{"secrets":["set"]}}]}}`, 200)
	w.do(office, "PUT", "vault:kv6/secrets/s", `{"value":"kept"}`, 200)
	w.stop()
	w.start()
	if got := w.do(nobody, "GET", "vault:kv6/secrets/s", "", 200); got.str("value") != "kept" {
		t.Errorf("after a restart: %s", got.text)
	}
	w.do(user, "GET", "vault:kv6/secrets/s", "", 403)
	w.do(owner, "PUT", vaults+"kv7", vaultBody(""), 409)
}
