package vault

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// Who has no token is told where to get one, for an audience that is a parent
// of the vault's host, whatever else is wrong with the request.
func TestChallenge(t *testing.T) {
	w := newWorld(t)
	w.do(owner, "PUT", vaults+"kv1", vaultBody(""), 201)
	want := `Bearer authorization="https://castellan.localhost/` + tenant + `", resource="https://vault.castellan.localhost"`
	for _, path := range []string{"vault:kv1/secrets/s", "vault:KV1/secrets/s/", "vault:none/secrets/s", "vault:kv1/secrets/s?api-version=nonsense"} {
		got := w.do("", "PUT", path, "", 401)
		if got.header.Get("WWW-Authenticate") != want || got.str("error", "code") != "Unauthorized" {
			t.Errorf("%s: %q %s", path, got.header.Get("WWW-Authenticate"), got.text)
		}
	}
	if got := w.do(user, "GET", "vault:kv1/storage/accounts", "", 404); got.header.Get("WWW-Authenticate") != "" {
		t.Errorf("a 404 has a challenge")
	}
}

// A secret has versions, of which the newest answers; what is said about them
// can change, their values cannot.
func TestLifeOfASecret(t *testing.T) {
	w := newWorld(t)
	w.do(owner, "PUT", vaults+"kv1", vaultBody(`"softDeleteRetentionInDays":10`), 201)
	one := w.do(office, "PUT", "vault:kv1/secrets/Pass-1?api%2Dversion=2025-07-01", `{"value":"one","tags":{"a":"b"},"contentType":"text","attributes":{"enabled":true}}`, 200)
	id := one.str("id")
	if !strings.HasPrefix(id, "https://kv1.vault.castellan.localhost/secrets/Pass-1/") || one.str("attributes", "recoveryLevel") != "CustomizedRecoverable+Purgeable" {
		t.Errorf("the new secret is %s", one.text)
	}
	version := id[strings.LastIndex(id, "/")+1:]
	w.pass(time.Minute)
	w.do(office, "PUT", "vault:kv1/secrets/pass-1", `{"value":"two"}`, 200)
	for path, want := range map[string]string{"": "two", "/": "two", "/" + version: "one", "/" + strings.ToUpper(version): "one"} {
		if got := w.do(user, "GET", "vault:kv1/secrets/PASS-1"+path+"?api-version=7.4", "", 200); got.str("value") != want || !strings.Contains(got.str("id"), "/Pass-1/") {
			t.Errorf("GET %q = %s, want %q", path, got.text, want)
		}
	}
	got := w.do(office, "PATCH", "vault:kv1/secrets/pass-1/"+version, `{"tags":{"c":"d"},"attributes":{"enabled":false}}`, 200)
	if got.str("tags", "c") != "d" || got.str("tags", "a") != "" || got.str("contentType") != "text" || got.str("value") != "" {
		t.Errorf("after an update: %s", got.text)
	}
	w.do(office, "PATCH", "vault:kv1/secrets/pass-1/", `{"value":"three"}`, 400)
	if got := w.do(user, "GET", "vault:kv1/secrets/pass-1/"+version, "", 403); got.str("error", "innererror", "code") != "SecretDisabled" {
		t.Errorf("a disabled version: %s", got.text)
	}
	del := w.do(office, "DELETE", "vault:kv1/secrets/pass-1", "", 200)
	if del.str("recoveryId") != "https://kv1.vault.castellan.localhost/deletedsecrets/Pass-1" || del.str("value") != "" || del.body["scheduledPurgeDate"].(float64)-del.body["deletedDate"].(float64) != 864000 {
		t.Errorf("the deleted secret is %s", del.text)
	}
	w.do(user, "GET", "vault:kv1/secrets/pass-1", "", 404)
	w.do(user, "GET", "vault:kv1/secrets/pass-1/"+version, "", 404)
	if got := w.do(office, "PUT", "vault:kv1/secrets/PASS-1", `{"value":"x"}`, 409); got.str("error", "innererror", "code") != "ObjectIsDeletedButRecoverable" {
		t.Errorf("a name in the bin: %s", got.text)
	}
	w.do(office, "GET", "vault:kv1/deletedsecrets/pass-1", "", 200)
	w.do(office, "POST", "vault:kv1/deletedsecrets/pass-1/recover", "", 200)
	if got := w.do(user, "GET", "vault:kv1/secrets/pass-1", "", 200); got.str("value") != "two" {
		t.Errorf("recovered: %s", got.text)
	}
	w.do(office, "DELETE", "vault:kv1/secrets/pass-1", "", 200)
	w.do(office, "DELETE", "vault:kv1/deletedsecrets/pass-1", "", 204)
	w.do(office, "GET", "vault:kv1/deletedsecrets/pass-1", "", 404)
	w.do(office, "PUT", "vault:kv1/secrets/pass-1", `{"value":"new"}`, 200)
	w.do(user, "GET", "vault:kv1/secrets/pass-1/"+version, "", 404)
	w.do(office, "DELETE", "vault:kv1/secrets/pass-1", "", 200)
	w.pass(11 * 24 * time.Hour)
	w.do(office, "GET", "vault:kv1/deletedsecrets/pass-1", "", 404)
	w.do(office, "POST", "vault:kv1/deletedsecrets/pass-1/recover", "", 404)
	w.do(office, "PUT", "vault:kv1/secrets/pass-1", `{"value":"newer"}`, 200)
}

// A version is given out only while it is enabled and between nbf and exp.
func TestValidity(t *testing.T) {
	w := newWorld(t)
	w.do(owner, "PUT", vaults+"kv1", vaultBody(""), 201)
	now := w.clock().Unix()
	w.do(office, "PUT", "vault:kv1/secrets/s", fmt.Sprintf(`{"value":"v","attributes":{"nbf":%d,"exp":%d}}`, now+60, now+120), 200)
	for _, step := range []struct {
		pass  time.Duration
		want  int
		inner string
	}{{0, 403, "SecretNotYetValid"}, {59 * time.Second, 403, "SecretNotYetValid"}, {time.Second, 200, ""}, {59 * time.Second, 200, ""}, {time.Second, 403, "SecretExpired"}} {
		w.pass(step.pass)
		if got := w.do(user, "GET", "vault:kv1/secrets/s", "", step.want); got.str("error", "innererror", "code") != step.inner || got.code != 200 && strings.Contains(got.text, `"v"`) {
			t.Errorf("at %v: %s", w.clock(), got.text)
		}
	}
	w.do(office, "PATCH", "vault:kv1/secrets/s", fmt.Sprintf(`{"attributes":{"exp":%d}}`, w.clock().Unix()+10), 200)
	w.do(user, "GET", "vault:kv1/secrets/s", "", 200)
}

// Bad requests are refused with what was wrong, and never with the value.
func TestBadSecrets(t *testing.T) {
	w := newWorld(t)
	w.do(owner, "PUT", vaults+"kv1", vaultBody(""), 201)
	const canary = "918273645546372819"
	big := strings.Repeat("x", maxValue)
	for body, want := range map[string]int{
		`{"value":` + canary + `}`:               400,
		`{"value":["` + canary + `"]}`:           400,
		`{"value":"` + canary + `","valu":"e"}`:  400,
		`{"value":"` + canary + `","VALUE":"e"}`: 400,
		`{"value":"` + canary + `"}{}`:           400,
		`{"value":"` + canary + `"`:              400,
		`{}`:                                     400,
		`{"value":""}`:                           400,
		`[]`:                                     400,
		`null`:                                   400,
		`{"value":"` + canary + `","attributes":{"exp":1,"nbf":2}}`: 400,
		`{"value":"` + canary + `","attributes":{"exp":-1}}`:        400,
		`{"value":"` + canary + `","attributes":{"exp":1e300}}`:     400,
		`{"value":"` + canary + `","attributes":{"enabled":"yes"}}`: 400,
		`{"value":"` + big + `x"}`:                                  400,
		`{"value":"` + big + `"}`:                                   200,
		`{"value":"` + strings.Repeat(`\u0000`, 100) + `"}`:         200,
		`{"value":"` + strings.Repeat("x", maxBody) + `"}`:          413,
	} {
		if got := w.do(office, "PUT", "vault:kv1/secrets/bad", body, want); strings.Contains(got.text, canary) {
			t.Errorf("the refusal of %.60s repeats the value: %s", body, got.text)
		}
	}
	for _, name := range []string{"a_b", "a.b", "%2e%2e", "a%2fb", "a%00", "a%20b", "ä", strings.Repeat("a", 128), "..%5cx", "%252f", "a;b"} {
		w.do(office, "PUT", "vault:kv1/secrets/"+name, `{"value":"x"}`, 400)
	}
	for _, q := range []string{"api-version=", "api-version=6.0", "api-version=7.4&api-version=7.5", "api-version=2025-7-1", "x=1&api-version=latest"} {
		w.do(office, "GET", "vault:kv1/secrets/bad?"+q, "", 400)
	}
	w.do(office, "GET", "vault:kv1/secrets/bad/notaversion", "", 400)
	w.do(office, "GET", "vault:kv1/secrets/bad/"+strings.Repeat("0", 32), "", 404)
	for _, q := range []string{"maxresults=0", "maxresults=26", "maxresults=x", "$skiptoken=!!"} {
		w.do(office, "GET", "vault:kv1/secrets?"+q, "", 400)
	}
}

// Lists give everything once, over as many pages as it takes.
func TestPaging(t *testing.T) {
	w := newWorld(t)
	w.do(owner, "PUT", vaults+"kv1", vaultBody(""), 201)
	w.do(owner, "PUT", vaults+"kv2", vaultBody(""), 201)
	w.do(office, "PUT", "vault:kv2/secrets/elsewhere", `{"value":"x"}`, 200)
	for i := range 30 {
		w.do(office, "PUT", fmt.Sprintf("vault:kv1/secrets/S%02d", i), `{"value":"x"}`, 200)
	}
	for range 5 {
		w.do(office, "PUT", "vault:kv1/secrets/S00", `{"value":"x"}`, 200)
	}
	for path, want := range map[string]int{"vault:kv1/secrets": 30, "vault:kv1/secrets?maxresults=7": 30, "vault:kv1/secrets/s00/versions?maxresults=4": 6, "vault:kv2/secrets": 1} {
		seen := map[string]bool{}
		for next := path; next != ""; {
			got := w.do(user, "GET", next, "", 200)
			for _, x := range got.body["value"].([]any) {
				m := x.(map[string]any)
				if seen[m["id"].(string)] || m["value"] != nil {
					t.Fatalf("%s gives %v twice or with its value", path, m)
				}
				seen[m["id"].(string)] = true
			}
			next = strings.Replace(strings.Replace(got.str("nextLink"), "https://", "vault:", 1), ".vault.castellan.localhost", "", 1)
		}
		if len(seen) != want {
			t.Errorf("%s gave %d items, want %d", path, len(seen), want)
		}
	}
}

// KV-01, RBAC-05: rights on vaults are not rights on what they keep; neither
// plane tells their holders the names of secrets.
func TestControlRightsOpenNothing(t *testing.T) {
	w := newWorld(t)
	w.do(owner, "PUT", vaults+"kv1", vaultBody(""), 201)
	w.do(office, "PUT", "vault:kv1/secrets/topsecret", `{"value":"hunter2"}`, 200)
	for _, who := range []string{reader, contri, owner, nobody} {
		for _, path := range []string{"vault:kv1/secrets", "vault:kv1/secrets/topsecret", "vault:kv1/secrets/topsecret/versions", "vault:kv1/deletedsecrets", "vault:kv1/deletedsecrets/topsecret", vaults + "kv1/secrets", vaults + "kv1/secrets/topsecret"} {
			got := w.do(who, "GET", path, "", 403)
			if !strings.HasPrefix(path, vaults) && got.str("error", "innererror", "code") != "ForbiddenByRbac" || strings.HasSuffix(path, "/secrets") && strings.Contains(got.text, "topsecret") || strings.Contains(got.text, "hunter2") {
				t.Errorf("%s GET %s: %s", who, path, got.text)
			}
		}
		w.do(who, "PUT", "vault:kv1/secrets/topsecret", `{"value":"x"}`, 403)
		w.do(who, "PUT", vaults+"kv1/secrets/topsecret", `{"properties":{"value":"x"}}`, 403)
		w.do(who, "DELETE", "vault:kv1/secrets/topsecret", "", 403)
	}
	if got := w.do(user, "GET", vaults+"kv1/secrets/topsecret", "", 200); strings.Contains(got.text, "hunter2") {
		t.Errorf("Resource Manager shows the value: %s", got.text)
	}
	w.do(user, "PUT", "vault:kv1/secrets/topsecret", `{"value":"x"}`, 403)
	w.do(office, "PUT", vaults+"kv1/secrets/topsecret", `{"properties":{"value":"by arm"}}`, 200)
	if got := w.do(user, "GET", "vault:kv1/secrets/topsecret", "", 200); got.str("value") != "by arm" {
		t.Errorf("set by Resource Manager: %s", got.text)
	}
}

// A role on one secret opens that one.
func TestRoleOnOneSecret(t *testing.T) {
	w := newWorld(t)
	w.do(owner, "PUT", vaults+"kv1", vaultBody(""), 201)
	w.do(office, "PUT", "vault:kv1/secrets/mine", `{"value":"1"}`, 200)
	w.do(office, "PUT", "vault:kv1/secrets/mine2", `{"value":"2"}`, 200)
	w.give(nobody, "Key Vault Secrets User", vaults+"kv1/secrets/mine")
	w.do(nobody, "GET", "vault:kv1/secrets/MINE", "", 200)
	w.do(nobody, "GET", "vault:kv1/secrets/mine2", "", 403)
	w.do(nobody, "GET", "vault:kv1/secrets", "", 403)
}

// Versions and names of one vault mean nothing in another, and rows that were
// swapped in the store do not open.
func TestOneVaultIsNotAnother(t *testing.T) {
	w := newWorld(t)
	ids := map[string]string{}
	for _, v := range []string{"kva", "kvb"} {
		w.do(owner, "PUT", vaults+v, vaultBody(""), 201)
		got := w.do(office, "PUT", "vault:"+v+"/secrets/s", `{"value":"of `+v+`"}`, 200)
		ids[v] = got.str("id")[strings.LastIndex(got.str("id"), "/")+1:]
	}
	w.do(office, "PUT", "vault:kva/secrets/t", `{"value":"t"}`, 200)
	w.do(user, "GET", "vault:kva/secrets/s/"+ids["kvb"], "", 404)
	w.do(user, "GET", "vault:kva/secrets/t/"+ids["kva"], "", 404)
	a, b := w.v.byName("kva"), w.v.byName("kvb")
	w.must(w.db.Do(t.Context(), func(tx *store.Tx) error {
		ka, kb := versionKey(a.UID, "s", ids["kva"]), versionKey(b.UID, "s", ids["kvb"])
		ra, _, err := store.GetJSON[versionRow](tx, secrets.versions, ka)
		if err != nil {
			return err
		}
		rb, _, err := store.GetJSON[versionRow](tx, secrets.versions, kb)
		if err != nil {
			return err
		}
		ra.Sealed, rb.Sealed = rb.Sealed, ra.Sealed
		if err := store.PutJSON(tx, secrets.versions, ka, ra); err != nil {
			return err
		}
		return store.PutJSON(tx, secrets.versions, kb, rb)
	}))
	for _, v := range []string{"kva", "kvb"} {
		if got := w.do(user, "GET", "vault:"+v+"/secrets/s", "", 500); strings.Contains(got.text, "of kv") {
			t.Errorf("a swapped row opened: %s", got.text)
		}
	}
}

// A grant opens the one secret and the one action that it is for.
func TestGrantsOfOneSecret(t *testing.T) {
	w := newWorld(t)
	w.do(owner, "PUT", vaults+"kv1", vaultBody(""), 201)
	w.do(office, "PUT", "vault:kv1/secrets/s", `{"value":"x"}`, 200)
	ctx := context.Background()
	id := arm.MustID(vaults + "kv1")
	one, err := secrets.within(id, "s")
	w.must(err)
	admit := func(a arm.Action, on gate.Target) gate.Grant {
		g, err := w.gate.Admit(ctx, arm.Caller{Object: office, Tenant: tenant}, a, on)
		w.must(err)
		return g
	}
	got, err := w.v.GetSecret(ctx, admit(SecretGet, one), "")
	if err != nil || string(got.Value.Reveal()) != "x" || strings.Contains(fmt.Sprintf("%+v %v", got, got), "x}") && strings.Contains(fmt.Sprintf("%+v", got), "Value:x") {
		t.Errorf("GetSecret = %+v, %v", got, err)
	}
	for name, g := range map[string]gate.Grant{"zero": {}, "set": admit(SecretSet, one), "vault": admit(SecretGet, gate.Target{ID: id}), "other vault": admit(SecretGet, gate.Target{ID: arm.MustID(vaults+"kv2").Child("secrets", "s")})} {
		if _, err := w.v.GetSecret(ctx, g, ""); err == nil {
			t.Errorf("a grant for %s reads the secret", name)
		}
	}
	if _, err := w.v.all(ctx, admit(SecretMetadata, one), secrets, false, "", 25); err == nil {
		t.Error("a grant for one secret lists the vault")
	}
}

// No secret is found in the data folder or the audit log, whatever was done.
func TestCanaries(t *testing.T) {
	w := newWorld(t)
	w.do(owner, "PUT", vaults+"kv1", vaultBody(""), 201)
	var canaries []string
	for i := range 50 {
		c := "canary-" + arm.NewHex()
		canaries = append(canaries, c)
		w.do(office, "PUT", fmt.Sprintf("vault:kv1/secrets/c%d", i), `{"value":"`+c+`"}`, 200)
		w.do(user, "PUT", fmt.Sprintf("vault:kv1/secrets/c%d", i), `{"value":"`+c+`"}`, 403)
		w.do(user, "GET", fmt.Sprintf("vault:kv1/secrets/c%d", i), "", 200)
	}
	w.must(w.log.Sync(t.Context()))
	log, err := w.log.Tail(t.Context(), 1000)
	w.must(err)
	seen := fmt.Sprintf("%+v", log)
	if !strings.Contains(seen, "/secrets/c49") {
		t.Error("the log does not say which secret was read")
	}
	files, err := filepath.Glob(w.dir + "/*")
	w.must(err)
	for _, f := range files {
		b, err := os.ReadFile(f)
		w.must(err)
		seen += string(b)
	}
	for _, c := range canaries {
		if strings.Contains(seen, c) {
			t.Fatalf("%s is in the log or in the data folder", c)
		}
	}
}
