package vault

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"castellan/internal/arm"
	"castellan/internal/key"
)

const (
	cryptoOfficer = "00000000-0000-0000-0000-0000000000c0" // Key Vault Crypto Officer
	cryptor       = "00000000-0000-0000-0000-0000000000c1" // Key Vault Crypto User
	wrapper       = "00000000-0000-0000-0000-0000000000c2" // Key Vault Crypto Service Encryption User
)

// keyWorld is a world with a vault kv1 and people who have to do with keys.
func keyWorld(t *testing.T) *world {
	w := newWorld(t)
	w.do(owner, "PUT", vaults+"kv1", vaultBody(`"softDeleteRetentionInDays":10`), 201)
	w.give(cryptoOfficer, "Key Vault Crypto Officer", rg)
	w.give(cryptor, "Key Vault Crypto User", rg)
	w.give(wrapper, "Key Vault Crypto Service Encryption User", rg)
	return w
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func version(r reply) string {
	kid := r.str("key", "kid")
	return kid[strings.LastIndex(kid, "/")+1:]
}

// A key has versions; what is said about them can change, what they are cannot.
// What is private of it is in no answer.
func TestLifeOfAKey(t *testing.T) {
	w := keyWorld(t)
	one := w.do(cryptoOfficer, "POST", "vault:kv1/keys/K-1/create", `{"kty":"RSA","key_size":2048,"tags":{"a":"b"},"attributes":{"enabled":true}}`, 200)
	if one.str("key", "kty") != "RSA" || one.str("key", "e") != "AQAB" || len(one.body["key"].(map[string]any)["key_ops"].([]any)) != 6 || one.str("attributes", "recoveryLevel") == "" {
		t.Errorf("the new key is %s", one.text)
	}
	two := w.do(cryptoOfficer, "POST", "vault:kv1/keys/k-1/create", `{"kty":"EC","crv":"P-384"}`, 200)
	for path, want := range map[string]reply{"": two, "/": two, "/" + version(one): one, "/" + version(two): two} {
		if got := w.do(cryptor, "GET", "vault:kv1/keys/K-1"+path, "", 200); got.str("key", "kid") != want.str("key", "kid") {
			t.Errorf("GET %q = %s", path, got.text)
		}
	}
	list := w.do(cryptoOfficer, "GET", "vault:kv1/keys", "", 200)
	if n := len(list.body["value"].([]any)); n != 1 || !strings.Contains(list.text, `"kid":"https://kv1.vault.castellan.localhost/keys/K-1"`) || strings.Contains(list.text, `"n":`) {
		t.Errorf("the list is %s", list.text)
	}
	if n := len(w.do(cryptoOfficer, "GET", "vault:kv1/keys/k-1/versions", "", 200).body["value"].([]any)); n != 2 {
		t.Errorf("there are %d versions", n)
	}
	w.do(cryptoOfficer, "PATCH", "vault:kv1/keys/k-1/"+version(one), `{"key_ops":["sign"],"attributes":{"enabled":false}}`, 200)
	w.do(cryptoOfficer, "PATCH", "vault:kv1/keys/k-1/"+version(two), `{"key_ops":["encrypt"]}`, 400)
	w.do(cryptoOfficer, "PATCH", "vault:kv1/keys/k-1", `{"kty":"oct"}`, 400)
	w.do(cryptoOfficer, "DELETE", "vault:kv1/keys/k-1", "", 200)
	w.do(cryptoOfficer, "GET", "vault:kv1/keys/k-1", "", 404)
	if got := w.do(cryptoOfficer, "POST", "vault:kv1/keys/k-1/create", `{"kty":"EC"}`, 409); got.str("error", "innererror", "code") != "ObjectIsDeletedButRecoverable" {
		t.Errorf("a name in the bin: %s", got.text)
	}
	if got := w.do(cryptoOfficer, "GET", "vault:kv1/deletedkeys/k-1", "", 200); got.str("recoveryId") != "https://kv1.vault.castellan.localhost/deletedkeys/K-1" || got.str("key", "crv") != "P-384" {
		t.Errorf("in the bin: %s", got.text)
	}
	w.do(cryptoOfficer, "POST", "vault:kv1/deletedkeys/k-1/recover", "", 200)
	w.do(cryptor, "GET", "vault:kv1/keys/k-1", "", 200)
	w.do(cryptoOfficer, "DELETE", "vault:kv1/keys/k-1", "", 200)
	w.do(cryptoOfficer, "DELETE", "vault:kv1/deletedkeys/k-1", "", 204)
	if n := w.rows(keys.names, keys.bin, keys.versions); n != 0 {
		t.Errorf("%d rows are left of a purged key", n)
	}
}

// Work by a key goes by its right, its uses, its validity and its version; what
// was encrypted with an expired key still opens.
func TestUseOfKeys(t *testing.T) {
	w := keyWorld(t)
	made := w.do(cryptoOfficer, "POST", "vault:kv1/keys/k/create", `{"kty":"RSA","key_ops":["wrapKey","unwrapKey","sign","verify"]}`, 200)
	path := "vault:kv1/keys/k/" + version(made)
	wrapped := w.do(wrapper, "POST", path+"/wrapkey", `{"alg":"RSA-OAEP-256","value":"AAECAw"}`, 200)
	if wrapped.str("kid") != made.str("key", "kid") {
		t.Errorf("wrapped: %s", wrapped.text)
	}
	body := `{"alg":"RSA-OAEP-256","value":"` + wrapped.str("value") + `"}`
	for _, p := range []string{path + "/unwrapkey", "vault:kv1/keys/k//unwrapkey", "vault:kv1/keys/k/unwrapkey"} {
		if got := w.do(cryptor, "POST", p, body, 200); got.str("value") != "AAECAw" {
			t.Errorf("%s: %s", p, got.text)
		}
	}
	sum := sha256.Sum256([]byte("x"))
	sig := w.do(cryptor, "POST", path+"/sign", `{"alg":"PS256","value":"`+b64(sum[:])+`"}`, 200)
	if got := w.do(cryptor, "POST", path+"/verify", `{"alg":"PS256","digest":"`+b64(sum[:])+`","value":"`+sig.str("value")+`"}`, 200); got.body["value"] != true {
		t.Errorf("verify: %s", got.text)
	}
	if got := w.do(cryptor, "POST", path+"/encrypt", `{"alg":"RSA-OAEP","value":"AA"}`, 403); got.str("error", "innererror", "code") != "KeyOperationForbidden" {
		t.Errorf("a use that the key has not: %s", got.text)
	}
	w.do(wrapper, "POST", path+"/sign", `{"alg":"PS256","value":"`+b64(sum[:])+`"}`, 403)
	for _, who := range []string{owner, reader, contri, office, nobody} { // who may do everything to the vault, and who may read secrets
		w.do(who, "POST", path+"/unwrapkey", body, 403)
		w.do(who, "GET", path, "", 403)
	}
	if got := w.do(cryptoOfficer, "POST", path+"/release", `{"target":"x"}`, 403); got.str("error", "innererror", "code") != "KeyNotExportable" {
		t.Errorf("release: %s", got.text)
	}
	w.do(cryptor, "POST", "vault:kv1/keys/other/create", `{"kty":"RSA"}`, 403)
	for _, bad := range []string{`{"alg":"RSA-OAEP-256"}`, `{"value":"AAECAw"}`, `{"alg":"none","value":"AAECAw"}`, `{"alg":"RSA-OAEP-256","value":"AAECAw"}`, `{"alg":"RSA-OAEP-256","value":"!"}`, `{"alg":"RSA-OAEP-256","value":7}`, `{"alg":"RSA-OAEP-256","value":"AA","Value":"AA"}`} {
		w.do(cryptor, "POST", path+"/unwrapkey", bad, 400)
	}
	end := w.clock().Add(time.Hour).Unix()
	w.do(cryptoOfficer, "PATCH", path, fmt.Sprintf(`{"attributes":{"exp":%d}}`, end), 200)
	w.pass(2 * time.Hour)
	if got := w.do(wrapper, "POST", path+"/wrapkey", `{"alg":"RSA-OAEP-256","value":"AAECAw"}`, 403); got.str("error", "innererror", "code") != "KeyExpired" {
		t.Errorf("an expired key wraps: %s", got.text)
	}
	w.do(wrapper, "POST", path+"/unwrapkey", body, 200)
	w.do(cryptoOfficer, "PATCH", path, `{"attributes":{"enabled":false}}`, 200)
	if got := w.do(wrapper, "POST", path+"/unwrapkey", body, 403); got.str("error", "innererror", "code") != "KeyDisabled" {
		t.Errorf("a disabled key unwraps: %s", got.text)
	}
}

// What can't be a key is refused by name, and makes none.
func TestBadKeys(t *testing.T) {
	w := keyWorld(t)
	for body, says := range map[string]string{
		`{"kty":"RSA","key_size":1024}`:                       "2048, 3072 or 4096",
		`{"kty":"RSA","public_exponent":3}`:                   "65537",
		`{"kty":"RSA","crv":"P-256"}`:                         "curve",
		`{"kty":"EC","key_size":256}`:                         "size",
		`{"kty":"EC","crv":"P-224"}`:                          "P-256K",
		`{"kty":"EC","key_ops":["wrapKey"]}`:                  "sign, verify",
		`{"kty":"oct","key_size":64}`:                         "128, 192 or 256",
		`{"kty":"RSA-HSM"}`:                                   "hardware",
		`{"kty":"DSA"}`:                                       "RSA, EC or oct",
		`{}`:                                                  "RSA, EC or oct",
		`{"kty":"RSA","release_policy":{"data":"e30"}}`:       "release_policy",
		`{"kty":"RSA","attributes":{"exportable":true}}`:      "exportable",
		`{"kty":"RSA","key_ops":["sign","sign"]}`:             "twice",
		`{"kty":"RSA","surprise":1}`:                          "surprise",
		`{"kty":"RSA","attributes":{"nbf":1000,"exp":10}}`:    "nbf",
		`{"kty":"RSA","key":{"kty":"oct","k":"AAAA"}}`:        "PUT",
		`{"kty":"RSA","attributes":{"nbf":-1,"exp":10}}`:      "nbf",
		`{"kty":"RSA","tags":{"a":1}}`:                        "tags",
		`{"kty":"RSA","key_ops":["sign"],"Key_Ops":["sign"]}`: "key_ops",
	} {
		if got := w.do(cryptoOfficer, "POST", "vault:kv1/keys/k/create", body, 400); !strings.Contains(strings.ToLower(got.text), strings.ToLower(says)) || got.str("error", "code") == "" {
			t.Errorf("%s: %s", body, got.text)
		}
	}
	for body, says := range map[string]string{
		`{"key":{"kty":"oct","k":"` + b64(make([]byte, 20)) + `"}}`:              "160 bits",
		`{"key":{"kty":"EC","crv":"P-256","d":"` + b64(make([]byte, 32)) + `"}}`: "no private key",
		`{"key":{"kty":"EC","crv":"P-256","d":"AQ","x":"AQ","y":"AQ"}}`:          "not the point",
		`{"key":{"kty":"RSA","n":"AQ","e":"AQAB"}}`:                              "bits",
		`{}`:                                 "key is missing",
		`{"key":{"kty":"oct-HSM","k":"AA"}}`: "hardware",
		`{"Hsm":true,"key":{"kty":"oct","k":"` + b64(make([]byte, 16)) + `"}}`:  "hardware",
		`{"key":{"kty":"RSA","key_hsm":"AAAA"}}`:                                "hardware",
		`{"kty":"oct","key":{"kty":"oct","k":"` + b64(make([]byte, 16)) + `"}}`: "in key",
		`{"key":{"kty":"oct","k":"c2VjcmV0IHdvcmRzIQ","d":12345}}`:              "d",
	} {
		got := w.do(cryptoOfficer, "PUT", "vault:kv1/keys/k", body, 400)
		if !strings.Contains(got.text, says) || strings.Contains(got.text, "12345") || strings.Contains(got.text, "c2VjcmV0") {
			t.Errorf("%s: %s", body, got.text)
		}
	}
	w.do(cryptoOfficer, "POST", "vault:kv1/keys/k_1/create", `{"kty":"RSA"}`, 400)
	if n := w.rows(keys.names, keys.bin, keys.versions); n != 0 {
		t.Errorf("%d rows were written", n)
	}
}

// A key that was brought works as the one it was, and lies nowhere in the clear.
func TestImportedKeysAreSealed(t *testing.T) {
	w := keyWorld(t)
	raw := []byte("canary key bytes of 32 octets!!!")
	w.do(cryptoOfficer, "PUT", "vault:kv1/keys/o", `{"key":{"kty":"oct","k":"`+b64(raw)+`","key_ops":["wrapKey","unwrapKey"]}}`, 200)
	k, err := key.JWK{Type: "oct", K: raw}.Import()
	w.must(err)
	want, err := k.Wrap("A256KW", make([]byte, 32))
	w.must(err)
	got := w.do(cryptor, "POST", "vault:kv1/keys/o/wrapkey", `{"alg":"A256KW","value":"`+b64(make([]byte, 32))+`"}`, 200)
	if got.str("value") != b64(want) {
		t.Errorf("it wraps as %s, want %s", got.str("value"), b64(want))
	}
	for _, r := range []reply{got, w.do(cryptoOfficer, "GET", "vault:kv1/keys/o", "", 200), w.do(cryptoOfficer, "POST", "vault:kv1/keys/o/backup", "", 200)} {
		if strings.Contains(r.text, b64(raw)) || strings.Contains(r.text, b64(raw)[:20]) {
			t.Errorf("an answer has the key: %s", r.text)
		}
	}
	w.stop()
	w.must(filepath.WalkDir(w.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, raw) || bytes.Contains(b, []byte(b64(raw))) {
			t.Errorf("%s has the key in the clear", path)
		}
		return err
	}))
	w.start()
}

// Access policies decide about keys by their own permissions, not by those on
// secrets.
func TestKeysByAccessPolicies(t *testing.T) {
	w := keyWorld(t)
	give := func(who, field string, permissions ...string) string {
		return `{"tenantId":"` + tenant + `","objectId":"` + who + `","permissions":{"` + field + `":["` + strings.Join(permissions, `","`) + `"]}}`
	}
	w.do(owner, "PUT", vaults+"kv2", vaultBody(`"enableRbacAuthorization":false,"accessPolicies":[`+strings.Join([]string{
		give(office, "keys", "all"), give(user, "secrets", "all"), give(nobody, "keys", "wrapKey", "get"), give(reader, "keys", "list"),
	}, ",")+`]`), 201)
	w.do(cryptoOfficer, "POST", "vault:kv2/keys/k/create", `{"kty":"oct"}`, 403) // its role does not count here
	w.do(user, "POST", "vault:kv2/keys/k/create", `{"kty":"oct"}`, 403)
	w.do(office, "POST", "vault:kv2/keys/k/create", `{"kty":"oct"}`, 200)
	w.do(office, "PUT", "vault:kv2/secrets/s", `{"value":"x"}`, 403)
	w.do(nobody, "POST", "vault:kv2/keys/k/wrapkey", `{"alg":"A256KW","value":"AAAAAAAAAAAAAAAAAAAAAA"}`, 200)
	w.do(nobody, "POST", "vault:kv2/keys/k/unwrapkey", `{"alg":"A256KW","value":"AAAAAAAAAAAAAAAAAAAAAA"}`, 403)
	w.do(nobody, "GET", "vault:kv2/keys/k", "", 200)
	w.do(nobody, "GET", "vault:kv2/keys", "", 403)
	w.do(nobody, "GET", "vault:kv2/keys/k/versions", "", 403)
	w.do(reader, "GET", "vault:kv2/keys", "", 200)
	w.do(reader, "GET", "vault:kv2/keys/k", "", 403)
	w.do(office, "DELETE", "vault:kv2/keys/k", "", 200)
	w.do(office, "DELETE", "vault:kv2/deletedkeys/k", "", 403) // all is all but purge
}

// A rotated key is like the one before, which still opens what it wrapped. The
// vault's own worker rotates when the policy says, and not before.
func TestRotation(t *testing.T) {
	w := keyWorld(t)
	first := w.do(cryptoOfficer, "POST", "vault:kv1/keys/k/create", `{"kty":"oct","key_size":192,"key_ops":["wrapKey","unwrapKey"]}`, 200)
	inner := b64(make([]byte, 16))
	wrapped := w.do(cryptor, "POST", "vault:kv1/keys/k/wrapkey", `{"alg":"A192KW","value":"`+inner+`"}`, 200)
	w.do(cryptor, "POST", "vault:kv1/keys/k/rotate", "", 403)
	second := w.do(cryptoOfficer, "POST", "vault:kv1/keys/k/rotate", "", 200)
	if version(first) == version(second) || fmt.Sprint(second.body["key"].(map[string]any)["key_ops"]) != "[wrapKey unwrapKey]" {
		t.Errorf("rotated: %s", second.text)
	}
	if got := w.do(cryptor, "POST", "vault:kv1/keys/k/wrapkey", `{"alg":"A192KW","value":"`+inner+`"}`, 200); got.str("value") == wrapped.str("value") {
		t.Error("the new version is the old key")
	}
	if got := w.do(cryptor, "POST", "vault:kv1/keys/k/"+version(first)+"/unwrapkey", `{"alg":"A192KW","value":"`+wrapped.str("value")+`"}`, 200); got.str("value") != inner {
		t.Errorf("the old version unwraps: %s", got.text)
	}
	for _, bad := range []string{
		`{"lifetimeActions":[{"trigger":{"timeAfterCreate":"P1D"},"action":{"type":"Rotate"}}]}`,
		`{"lifetimeActions":[{"trigger":{"timeBeforeExpiry":"P30D"},"action":{"type":"Rotate"}}]}`,
		`{"lifetimeActions":[{"trigger":{},"action":{"type":"Rotate"}}]}`,
		`{"lifetimeActions":[{"trigger":{"timeAfterCreate":"soon"},"action":{"type":"Rotate"}}]}`,
		`{"lifetimeActions":[{"trigger":{"timeAfterCreate":"P30D"},"action":{"type":"Explode"}}]}`,
		`{"attributes":{"expiryTime":"P1D"}}`,
		`{"lifetimeActions":[{"trigger":{"timeAfterCreate":"P90D"},"action":{"type":"Rotate"}}],"attributes":{"expiryTime":"P90D"}}`,
	} {
		w.do(cryptoOfficer, "PUT", "vault:kv1/keys/k/rotationpolicy", bad, 400)
	}
	w.do(cryptor, "PUT", "vault:kv1/keys/k/rotationpolicy", `{"lifetimeActions":[]}`, 403)
	set := w.do(cryptoOfficer, "PUT", "vault:kv1/keys/k/rotationpolicy", `{"lifetimeActions":[{"trigger":{"timeAfterCreate":"P30D"},"action":{"type":"Rotate"}},{"trigger":{"timeBeforeExpiry":"P30D"},"action":{"type":"Notify"}}],"attributes":{"expiryTime":"P3M"}}`, 200)
	if got := w.do(cryptoOfficer, "GET", "vault:kv1/keys/k/rotationpolicy", "", 200); got.text != set.text || got.str("id") != "https://kv1.vault.castellan.localhost/keys/k/rotationpolicy" {
		t.Errorf("the policy reads %s, it was set as %s", got.text, set.text)
	}
	versions := func() int {
		return len(w.do(cryptoOfficer, "GET", "vault:kv1/keys/k/versions", "", 200).body["value"].([]any))
	}
	for _, step := range []struct {
		pass time.Duration
		want int
	}{{29 * 24 * time.Hour, 2}, {25 * time.Hour, 3}, {time.Hour, 3}, {30 * 24 * time.Hour, 4}} {
		w.pass(step.pass)
		w.must(w.v.work(t.Context()))
		if n := versions(); n != step.want {
			t.Fatalf("there are %d versions, want %d", n, step.want)
		}
	}
	now := w.do(cryptoOfficer, "GET", "vault:kv1/keys/k", "", 200)
	if exp := int64(now.body["attributes"].(map[string]any)["exp"].(float64)); exp != w.clock().AddDate(0, 3, 0).Unix() {
		t.Errorf("the version made by rotation ends at %d", exp)
	}
}

// A backup opens in no other class, subscription or installation, and brings
// back every version.
func TestBackups(t *testing.T) {
	w := keyWorld(t)
	w.do(owner, "PUT", vaults+"kv2", vaultBody(""), 201)
	w.do(office, "PUT", "vault:kv1/secrets/s", `{"value":"one"}`, 200)
	w.do(office, "PUT", "vault:kv1/secrets/s", `{"value":"two"}`, 200)
	w.do(user, "POST", "vault:kv1/secrets/s/backup", "", 403)
	saved := w.do(office, "POST", "vault:kv1/secrets/s/backup", "", 200)
	body := `{"value":"` + saved.str("value") + `"}`
	w.do(office, "POST", "vault:kv1/secrets/restore", body, 409)
	w.do(user, "POST", "vault:kv2/secrets/restore", body, 403)
	w.do(cryptoOfficer, "POST", "vault:kv2/keys/restore", body, 400)
	w.do(office, "POST", "vault:kv2/secrets/restore", body, 200)
	if got := w.do(user, "GET", "vault:kv2/secrets/s", "", 200); got.str("value") != "two" {
		t.Errorf("restored: %s", got.text)
	}
	if n := len(w.do(office, "GET", "vault:kv2/secrets/s/versions", "", 200).body["value"].([]any)); n != 2 {
		t.Errorf("%d versions came back", n)
	}
	sealed, err := base64.RawURLEncoding.DecodeString(saved.str("value"))
	w.must(err)
	for _, at := range []int{0, len(sealed) / 2, len(sealed) - 1} {
		bent := slices.Clone(sealed)
		bent[at] ^= 1
		w.do(office, "POST", "vault:kv2/secrets/restore", `{"value":"`+b64(bent)+`"}`, 400)
	}
	other := &live{ID: arm.MustID("/subscriptions/" + nobody + "/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/kv1")}
	if _, err := w.v.root.Derive("backup").Open(sealed, secrets.backupContext(other)); err == nil {
		t.Error("a backup opens in another subscription")
	}
}
