package vault

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"castellan/internal/cert"
	"castellan/internal/key"
)

const (
	certist = "00000000-0000-0000-0000-0000000000c3" // Key Vault Certificates Officer
	certer  = "00000000-0000-0000-0000-0000000000c4" // Key Vault Certificate User
)

// certWorld is a keyWorld with people who have to do with certificates.
func certWorld(t *testing.T) *world {
	w := keyWorld(t)
	w.give(certist, "Key Vault Certificates Officer", rg)
	w.give(certer, "Key Vault Certificate User", rg)
	return w
}

// ecPolicy is a policy of a certificate by P-256, which is fast to make, with
// more members.
func ecPolicy(issuer, more string) string {
	return `"policy":{"key_props":{"kty":"EC","crv":"P-256"},"x509_props":{"subject":"CN=a.example, O=Example","sans":{"dns_names":["a.example","b.example"]}},"issuer":{"name":"` + issuer + `"}` + more + `}`
}

func der(t *testing.T, text string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// leafOf is the certificate that an answer has.
func leafOf(t *testing.T, r reply) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der(t, r.str("cer")))
	if err != nil {
		t.Fatalf("%v in %s", err, r.text)
	}
	return c
}

// A certificate that signs itself says what its policy says; its key and secret
// go with it through versions, the bin and back, and not without it.
func TestLifeOfACertificate(t *testing.T) {
	w := certWorld(t)
	op := w.do(certist, "POST", "vault:kv1/certificates/C-1/create", `{`+ecPolicy("Self", "")+`,"tags":{"a":"b"}}`, 202)
	if op.str("status") != "inProgress" || !strings.Contains(op.header.Get("Location"), "/certificates/C-1/pending?api-version=7.5&request_id=") {
		t.Errorf("create: %v %s", op.header, op.text)
	}
	if got := w.do(certer, "GET", "vault:kv1/certificates/c-1/pending", "", 200); got.str("status") != "completed" || got.str("target") != "https://kv1.vault.castellan.localhost/certificates/C-1" || got.str("csr") != op.str("csr") {
		t.Errorf("pending: %s", got.text)
	}
	one := w.do(certer, "GET", "vault:kv1/certificates/c-1", "", 200)
	leaf := leafOf(t, one)
	if err := leaf.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature); err != nil || leaf.Subject.String() != "CN=a.example,O=Example" || fmt.Sprint(leaf.DNSNames) != "[a.example b.example]" {
		t.Errorf("the certificate is of %s for %v (%v)", leaf.Subject, leaf.DNSNames, err)
	}
	if leaf.VerifyHostname("b.example") != nil || leaf.KeyUsage != x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment || len(leaf.ExtKeyUsage) != 2 || leaf.NotAfter != leaf.NotBefore.AddDate(0, 12, 0) {
		t.Errorf("it is for %v, %v, until %s", leaf.KeyUsage, leaf.ExtKeyUsage, leaf.NotAfter)
	}
	id := one.str("id")
	for _, p := range []string{"kid", "sid"} {
		if got := one.str(p); got != strings.Replace(id, "/certificates/", map[string]string{"kid": "/keys/", "sid": "/secrets/"}[p], 1) {
			t.Errorf("%s is %s, the certificate %s", p, got, id)
		}
	}
	if one.str("policy", "id") != "https://kv1.vault.castellan.localhost/certificates/C-1/policy" || one.str("policy", "issuer", "name") != "Self" || one.body["tags"].(map[string]any)["a"] != "b" {
		t.Errorf("the certificate is %s", one.text)
	}

	secret := w.do(certer, "GET", "vault:kv1/secrets/c-1", "", 200)
	if secret.body["managed"] != true || secret.str("kid") != one.str("kid") || secret.str("contentType") != "application/x-pkcs12" {
		t.Errorf("the secret is %s", secret.text)
	}
	private, inside, err := pkcs12.Decode(der(t, secret.str("value")), "")
	if err != nil || !inside.Equal(leaf) || !private.(*ecdsa.PrivateKey).PublicKey.Equal(leaf.PublicKey) {
		t.Errorf("the secret has another certificate or key (%v)", err)
	}
	shown := w.do(certer, "GET", "vault:kv1/keys/c-1", "", 200)
	if shown.body["managed"] != true || shown.str("key", "kid") != one.str("kid") {
		t.Errorf("the key is %s", shown.text)
	}
	w.do(cryptor, "POST", "vault:kv1/keys/c-1/sign", `{"alg":"ES256","value":"`+b64(make([]byte, 32))+`"}`, 200)

	// Neither its key nor its secret changes by itself, whoever asks.
	w.give(owner, "Key Vault Administrator", rg)
	for _, x := range [][3]string{
		{"DELETE", "secrets/c-1", ""}, {"DELETE", "keys/c-1", ""}, {"PUT", "secrets/c-1", `{"value":"mine"}`}, {"POST", "keys/c-1/create", `{"kty":"RSA"}`},
		{"PATCH", "secrets/c-1", `{"attributes":{"enabled":false}}`}, {"PATCH", "keys/c-1", `{"tags":{}}`}, {"POST", "keys/c-1/rotate", ""},
		{"PUT", "keys/c-1/rotationpolicy", `{"lifetimeActions":[]}`}, {"POST", "keys/c-1/backup", ""}, {"POST", "secrets/c-1/backup", ""},
	} {
		if got := w.do(owner, x[0], "vault:kv1/"+x[1], x[2], 403); !strings.HasSuffix(got.str("error", "innererror", "code"), "ManagedByKeyVault") {
			t.Errorf("%s %s: %s", x[0], x[1], got.text)
		}
	}

	w.do(certist, "POST", "vault:kv1/certificates/c-1/create", `{}`, 202) // by the same policy
	two := w.do(certer, "GET", "vault:kv1/certificates/c-1", "", 200)
	if two.str("id") == id || bytes.Equal(leafOf(t, two).RawSubjectPublicKeyInfo, leaf.RawSubjectPublicKeyInfo) {
		t.Error("the next version is the same, or has the same key")
	}
	list := w.do(certer, "GET", "vault:kv1/certificates", "", 200)
	if n := len(list.body["value"].([]any)); n != 1 || !strings.Contains(list.text, two.str("x5t")) || strings.Contains(list.text, "cer") && strings.Contains(list.text, `"cer":`) {
		t.Errorf("the list is %s", list.text)
	}
	if n := len(w.do(certer, "GET", "vault:kv1/certificates/c-1/versions", "", 200).body["value"].([]any)); n != 2 {
		t.Errorf("there are %d versions", n)
	}
	w.do(certist, "PATCH", strings.Replace(id, "https://kv1.vault.castellan.localhost/", "vault:kv1/", 1), `{"attributes":{"enabled":false},"tags":{"c":"d"}}`, 200)
	if got := w.do(certer, "GET", strings.Replace(one.str("sid"), "https://kv1.vault.castellan.localhost/", "vault:kv1/", 1), "", 403); got.str("error", "innererror", "code") != "SecretDisabled" {
		t.Errorf("the secret of a disabled certificate: %s", got.text)
	}
	w.do(certer, "GET", "vault:kv1/secrets/c-1", "", 200) // of the other version

	w.do(certist, "DELETE", "vault:kv1/certificates/c-1", "", 200)
	for _, p := range []string{"certificates", "keys", "secrets"} {
		w.do(owner, "GET", "vault:kv1/"+p+"/c-1", "", 404)
		w.do(owner, "GET", "vault:kv1/deleted"+p+"/c-1", "", 200)
	}
	for _, p := range []string{"keys", "secrets"} {
		w.do(owner, "POST", "vault:kv1/deleted"+p+"/c-1/recover", "", 403)
		w.do(owner, "DELETE", "vault:kv1/deleted"+p+"/c-1", "", 403)
	}
	w.do(office, "PUT", "vault:kv1/secrets/c-1", `{"value":"mine"}`, 409)
	for _, r := range []reply{w.do(certer, "GET", "vault:kv1/deletedcertificates/c-1", "", 200), w.do(certist, "POST", "vault:kv1/deletedcertificates/c-1/recover", "", 200)} {
		if r.str("cer") != two.str("cer") {
			t.Errorf("in and out of the bin: %s", r.text)
		}
	}
	if got := w.do(certer, "GET", "vault:kv1/certificates/c-1", "", 200); got.str("id") != two.str("id") {
		t.Errorf("recovered: %s", got.text)
	}
	w.do(certer, "GET", "vault:kv1/secrets/c-1", "", 200)
	w.do(certist, "DELETE", "vault:kv1/certificates/c-1", "", 200)
	w.do(certist, "DELETE", "vault:kv1/deletedcertificates/c-1", "", 204)
	if n := w.rows(tables()...); n != 0 {
		t.Errorf("%d rows are left of a purged certificate", n)
	}
}

// Who else signs gets a request, and the result is merged if it is of the key.
func TestMergedCertificates(t *testing.T) {
	w := certWorld(t)
	w.do(certist, "POST", "vault:kv1/certificates/c/create", `{`+ecPolicy("Unknown", `,"secret_props":{"contentType":"application/x-pem-file"}`)+`,"tags":{"a":"b"}}`, 202)
	op := w.do(certer, "GET", "vault:kv1/certificates/c/pending", "", 200)
	csr, err := x509.ParseCertificateRequest(der(t, op.str("csr")))
	w.must(err)
	w.must(csr.CheckSignature())
	if op.str("status") != "inProgress" || csr.Subject.String() != "CN=a.example,O=Example" || len(csr.DNSNames) != 2 {
		t.Errorf("pending: %s", op.text)
	}
	w.do(certer, "GET", "vault:kv1/certificates/c", "", 404)
	w.do(certer, "GET", "vault:kv1/certificates/c/policy", "", 200)
	w.do(certer, "GET", "vault:kv1/secrets/c", "", 404)
	w.do(certist, "POST", "vault:kv1/certificates/c/create", `{`+ecPolicy("Self", "")+`}`, 409)

	ca, caKey := authority(t, w.clock())
	sign := func(pub any) []byte {
		leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: csr.Subject, DNSNames: csr.DNSNames, NotBefore: w.clock(), NotAfter: w.clock().AddDate(1, 0, 0), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
		out, err := x509.CreateCertificate(rand.Reader, leaf, ca, pub, caKey)
		w.must(err)
		return out
	}
	chain := func(ders ...[]byte) string { b, _ := json.Marshal(map[string]any{"x5c": ders}); return string(b) }
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	for _, bad := range []string{chain(sign(&other.PublicKey)), chain(), chain([]byte("none")), `{"x5c":["!"]}`} {
		w.do(certist, "POST", "vault:kv1/certificates/c/pending/merge", bad, 400)
	}
	w.do(certer, "POST", "vault:kv1/certificates/c/pending/merge", chain(sign(csr.PublicKey)), 403)
	made := w.do(certist, "POST", "vault:kv1/certificates/c/pending/merge", chain(ca.Raw, sign(csr.PublicKey)), 201)
	if leafOf(t, made).Issuer.CommonName != "ca" || made.body["tags"].(map[string]any)["a"] != "b" {
		t.Errorf("merged: %s", made.text)
	}
	w.do(certist, "POST", "vault:kv1/certificates/c/pending/merge", chain(sign(csr.PublicKey)), 404)
	secret := w.do(certer, "GET", "vault:kv1/secrets/c", "", 200)
	pair, err := tls.X509KeyPair([]byte(secret.str("value")), []byte(secret.str("value")))
	if err != nil || len(pair.Certificate) != 2 || secret.str("contentType") != "application/x-pem-file" {
		t.Errorf("the secret is no pair with its chain: %v", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	if _, err := leafOf(t, made).Verify(x509.VerifyOptions{Roots: roots, DNSName: "b.example", CurrentTime: w.clock().Add(time.Minute)}); err != nil {
		t.Error(err)
	}
	w.do(certist, "DELETE", "vault:kv1/certificates/c/pending", "", 200)
	w.do(certer, "GET", "vault:kv1/certificates/c/pending", "", 404)

	// A making that is ended leaves what was before, and nothing of what was not.
	w.do(certist, "POST", "vault:kv1/certificates/c/create", `{}`, 202)
	w.do(certist, "PATCH", "vault:kv1/certificates/c/pending", `{"cancellation_requested":false}`, 400)
	if got := w.do(certist, "PATCH", "vault:kv1/certificates/c/pending", `{"cancellation_requested":true}`, 200); got.str("status") != "cancelled" {
		t.Errorf("cancelled: %s", got.text)
	}
	w.do(certist, "PATCH", "vault:kv1/certificates/c/pending", `{"cancellation_requested":true}`, 409)
	w.do(certist, "POST", "vault:kv1/certificates/c/pending/merge", chain(sign(csr.PublicKey)), 404)
	if got := w.do(certer, "GET", "vault:kv1/certificates/c", "", 200); got.str("id") != made.str("id") {
		t.Errorf("after a cancelled making: %s", got.text)
	}
	w.do(certist, "POST", "vault:kv1/certificates/d/create", `{`+ecPolicy("Unknown", "")+`}`, 202)
	w.do(certist, "DELETE", "vault:kv1/certificates/d/pending", "", 200)
	w.do(certer, "GET", "vault:kv1/certificates/d/policy", "", 404)

	// A name that has a key or secret of its own is none for a certificate.
	w.do(office, "PUT", "vault:kv1/secrets/s", `{"value":"mine"}`, 200)
	w.do(certist, "POST", "vault:kv1/certificates/s/create", `{`+ecPolicy("Self", "")+`}`, 409)
	w.do(certist, "POST", "vault:kv1/certificates/contacts/create", `{`+ecPolicy("Self", "")+`}`, 400)
}

// authority is a certificate authority that nobody knows.
func authority(t *testing.T, now time.Time) (*x509.Certificate, crypto.Signer) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: now, NotAfter: now.AddDate(2, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	raw, err := x509.CreateCertificate(rand.Reader, c, c, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(raw); err != nil {
		t.Fatal(err)
	}
	return c, k
}

// Certificates come with their keys as PFX and as PEM, and only whole; a key that
// may not leave is in no secret.
func TestImportedCertificates(t *testing.T) {
	w := certWorld(t)
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	w.must(err)
	k, err := key.Of(private)
	w.must(err)
	leaf, err := cert.Request{Subject: "CN=brought", Months: 3, Usage: []string{"digitalSignature"}, EKUs: []string{"1.2.3.4"}}.SelfSigned(k, w.clock())
	w.must(err)
	pfx, err := pkcs12.Modern2023.Encode(private, leaf, nil, "canary-password")
	w.must(err)
	text, err := cert.Bundle{Key: k, Chain: []*x509.Certificate{leaf}}.PEM(true)
	w.must(err)
	quoted := func(b []byte) string { q, _ := json.Marshal(string(b)); return string(q) }
	value := `"value":"` + base64.StdEncoding.EncodeToString(pfx) + `"`

	for _, bad := range []string{`{` + value + `}`, `{` + value + `,"pwd":"canary-passwort"}`, `{"value":"!"}`, `{"value":"AAAA","pwd":"canary-password"}`, `{}`, `{"value":7}`, `{` + value + `,"pwd":7}`,
		`{"value":` + quoted(text[:len(text)-900]) + `}`, `{` + value + `,"pwd":"canary-password","policy":{"key_props":{"kty":"RSA-HSM"},"secret_props":{"contentType":"text/plain"}}}`} {
		if got := w.do(certist, "POST", "vault:kv1/certificates/p/import", bad, 400); strings.Contains(got.text, "canary") {
			t.Errorf("the refusal tells the password: %s", got.text)
		}
	}
	if n := w.rows(tables()...); n != 0 {
		t.Errorf("%d rows were written", n)
	}
	got := w.do(certist, "POST", "vault:kv1/certificates/p/import", `{`+value+`,"pwd":"canary-password","tags":{"a":"b"}}`, 200)
	if !leafOf(t, got).Equal(leaf) || got.str("policy", "x509_props", "subject") != "CN=brought" || got.str("policy", "issuer", "name") != "Unknown" || got.str("policy", "key_props", "key_size") != "2048" || got.str("policy", "x509_props", "validity_months") != "3" {
		t.Errorf("imported: %s", got.text)
	}
	back, _, err := pkcs12.Decode(der(t, w.do(certer, "GET", "vault:kv1/secrets/p", "", 200).str("value")), "")
	if err != nil || !back.(*rsa.PrivateKey).Equal(private) {
		t.Errorf("the secret has another key (%v)", err)
	}
	got = w.do(certist, "POST", "vault:kv1/certificates/t/import", `{"value":`+quoted(text)+`,"policy":{"key_props":{"exportable":false},"secret_props":{"contentType":"application/x-pem-file"}}}`, 200)
	secret := w.do(certer, "GET", "vault:kv1/secrets/t", "", 200).str("value")
	if b, rest := pem.Decode([]byte(secret)); !leafOf(t, got).Equal(leaf) || b == nil || b.Type != "CERTIFICATE" || len(rest) > 0 || strings.Contains(secret, "PRIVATE") {
		t.Errorf("a key that may not leave is in the secret: %s", secret)
	}
	w.do(certist, "POST", "vault:kv1/certificates/x/import", `{`+value+`,"pwd":"canary-password","policy":{"key_props":{"exportable":false}}}`, 200)
	if _, _, err := pkcs12.Decode(der(t, w.do(certer, "GET", "vault:kv1/secrets/x", "", 200).str("value")), ""); err == nil {
		t.Error("a key that may not leave is in the secret's PFX")
	}
	signed := w.do(cryptor, "POST", "vault:kv1/keys/t/sign", `{"alg":"RS256","value":"`+b64(make([]byte, 32))+`"}`, 200)
	sig, err := base64.RawURLEncoding.DecodeString(signed.str("value"))
	if err != nil || rsa.VerifyPKCS1v15(&private.PublicKey, crypto.SHA256, make([]byte, 32), sig) != nil {
		t.Error("the key in the vault is another")
	}

	// A copy opens in another vault with all that goes with it, and lies sealed.
	w.do(owner, "PUT", vaults+"kv2", vaultBody(""), 201)
	saved := `{"value":"` + w.do(certist, "POST", "vault:kv1/certificates/p/backup", "", 200).str("value") + `"}`
	w.do(certist, "POST", "vault:kv1/certificates/restore", saved, 409)
	w.do(office, "POST", "vault:kv2/secrets/restore", saved, 400)
	if again := w.do(certist, "POST", "vault:kv2/certificates/restore", saved, 200); !leafOf(t, again).Equal(leaf) {
		t.Errorf("restored: %s", again.text)
	}
	if again := w.do(certer, "GET", "vault:kv2/secrets/p", "", 200); again.body["managed"] != true {
		t.Errorf("restored: %s", again.text)
	}
	w.do(office, "DELETE", "vault:kv2/secrets/p", "", 403)
	needle, err := x509.MarshalPKCS8PrivateKey(private)
	w.must(err)
	w.stop()
	w.must(filepath.WalkDir(w.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, needle[40:80]) || bytes.Contains(b, []byte("canary-password")) || bytes.Contains(b, []byte(base64.StdEncoding.EncodeToString(needle[40:80])[4:40])) {
			t.Errorf("%s has the key or its password in the clear", path)
		}
		return err
	}))
	w.start()
}

// KV-04: a key that may not leave does not, whatever is said of it later: not by
// having it again in a version that may, not by changing the policy before a merge.
func TestKeysThatMayNotLeave(t *testing.T) {
	w := certWorld(t)
	const bound = `"policy":{"key_props":{"kty":"EC","exportable":false,"reuse_key":true},"secret_props":{"contentType":"application/x-pem-file"},"x509_props":{"subject":"CN=a"},"issuer":{"name":"`
	w.do(certist, "POST", "vault:kv1/certificates/c/create", `{`+bound+`Self"}}}`, 202)
	w.do(certist, "PATCH", "vault:kv1/certificates/c/policy", `{"key_props":{"exportable":true}}`, 200)
	if got := w.do(certist, "POST", "vault:kv1/certificates/c/create", `{}`, 400); !strings.Contains(got.text, "may not leave") {
		t.Errorf("the key again, exportable: %s", got.text)
	}
	w.do(owner, "PUT", vaults+"kv2", vaultBody(""), 201)
	w.do(certist, "POST", "vault:kv2/certificates/restore", `{"value":"`+w.do(certist, "POST", "vault:kv1/certificates/c/backup", "", 200).str("value")+`"}`, 200)
	w.do(certist, "POST", "vault:kv2/certificates/c/create", `{}`, 400)

	op := w.do(certist, "POST", "vault:kv1/certificates/d/create", `{`+bound+`Unknown"}}}`, 202)
	w.do(certist, "PATCH", "vault:kv1/certificates/d/policy", `{"key_props":{"exportable":true}}`, 200)
	csr, err := x509.ParseCertificateRequest(der(t, op.str("csr")))
	w.must(err)
	ca, caKey := authority(t, w.clock())
	raw, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(2), Subject: csr.Subject, NotBefore: w.clock(), NotAfter: w.clock().AddDate(1, 0, 0)}, ca, csr.PublicKey, caKey)
	w.must(err)
	w.do(certist, "POST", "vault:kv1/certificates/d/pending/merge", `{"x5c":["`+base64.StdEncoding.EncodeToString(raw)+`"]}`, 201)
	for _, name := range []string{"c", "d"} {
		if got := w.do(certer, "GET", "vault:kv1/secrets/"+name, "", 200); strings.Contains(got.text, "PRIVATE KEY") {
			t.Errorf("the key of %s left", name)
		}
	}
	// With a new key the changed policy holds.
	w.do(certist, "PATCH", "vault:kv1/certificates/c/policy", `{"key_props":{"reuse_key":false}}`, 200)
	w.do(certist, "POST", "vault:kv1/certificates/c/create", `{}`, 202)
	if got := w.do(certer, "GET", "vault:kv1/secrets/c", "", 200); !strings.Contains(got.text, "PRIVATE KEY") {
		t.Errorf("a key that may leave does not: %s", got.text)
	}
}

// What no certificate can be is refused by name, and makes none.
func TestBadCertificates(t *testing.T) {
	w := certWorld(t)
	x509Props := func(more string) string {
		return `"x509_props":{"subject":"CN=a"` + more + `}`
	}
	self := `,"issuer":{"name":"Self"}`
	for body, says := range map[string]string{
		`{}`:                                 "policy is missing",
		`{"policy":{` + x509Props("") + `}}`: "issuer.name",
		`{"policy":{"x509_props":{}` + self + `}}`:                                                                                           "subject and sans",
		`{"policy":{"x509_props":{"subject":"nobody"}` + self + `}}`:                                                                         "distinguished name",
		`{"policy":{"x509_props":{"subject":"XX=nobody"}` + self + `}}`:                                                                      "XX",
		`{"policy":{"x509_props":{"subject":"CN=a, C=Utopia"}` + self + `}}`:                                                                 "two letters",
		`{"policy":{` + x509Props(`,"ekus":["server"]`) + self + `}}`:                                                                        "object identifiers",
		`{"policy":{` + x509Props(`,"key_usage":["everything"]`) + self + `}}`:                                                               "keyCertSign",
		`{"policy":{` + x509Props(`,"validity_months":-1`) + self + `}}`:                                                                     "validity_months",
		`{"policy":{` + x509Props(`,"sans":{"dns_names":["a b"]}`) + self + `}}`:                                                             "dns_names",
		`{"policy":{` + x509Props(`,"sans":{"ipAddresses":["a"]}`) + self + `}}`:                                                             "ipAddresses",
		`{"policy":{"key_props":{"kty":"oct"},` + x509Props("") + self + `}}`:                                                                "RSA or EC",
		`{"policy":{"key_props":{"kty":"RSA-HSM"},` + x509Props("") + self + `}}`:                                                            "hardware",
		`{"policy":{"key_props":{"kty":"EC","crv":"P-256K"},` + x509Props("") + self + `}}`:                                                  "P-521",
		`{"policy":{"key_props":{"key_size":1024},` + x509Props("") + self + `}}`:                                                            "2048, 3072 or 4096",
		`{"policy":{"key_props":{"kty":"EC","key_size":384},` + x509Props("") + self + `}}`:                                                  "P-256 has 256",
		`{"policy":{"secret_props":{"contentType":"text/plain"},` + x509Props("") + self + `}}`:                                              "x-pem-file",
		`{` + ecPolicy("Unknown", `,"lifetime_actions":[{"trigger":{"lifetime_percentage":80},"action":{"action_type":"AutoRenew"}}]`) + `}`: "AutoRenew",
		`{` + ecPolicy("Self", `,"lifetime_actions":[{"trigger":{},"action":{"action_type":"AutoRenew"}}]`) + `}`:                            "one of lifetime_percentage",
		`{` + ecPolicy("Self", `,"lifetime_actions":[{"trigger":{"days_before_expiry":9999},"action":{"action_type":"AutoRenew"}}]`) + `}`:   "from 1 to 324",
		`{` + ecPolicy("nowhere", "") + `}`:                                                                                                  "no such issuer",
		`{` + ecPolicy("digi", "") + `}`:                                                                                                     "DigiCert, which can't be reached",
		`{` + ecPolicy("Self", "") + `,"value":"x"}`:                                                                                         "value must be left out",
		`{` + ecPolicy("Self", `,"surprise":1`) + `}`:                                                                                        "surprise",
		`{` + ecPolicy("Self", "") + `,"tags":{"a":1}}`:                                                                                      "tags",
	} {
		if strings.Contains(body, `"digi"`) {
			w.do(certist, "PUT", "vault:kv1/certificates/issuers/digi", `{"provider":"DigiCert","credentials":{"account_id":"me","pwd":"canary"}}`, 200)
			defer w.do(certist, "DELETE", "vault:kv1/certificates/issuers/digi", "", 200)
		}
		if got := w.do(certist, "POST", "vault:kv1/certificates/c/create", body, 400); !strings.Contains(got.text, says) {
			t.Errorf("%s: %s", body, got.text)
		}
	}
	if n := w.rows(certificates.names, keys.names, secrets.names); n != 0 {
		t.Errorf("%d rows were written", n)
	}
	w.do(certist, "POST", "vault:kv1/certificates/c/create", `{`+ecPolicy("Self", "")+`}`, 202)
	w.do(certist, "PATCH", "vault:kv1/certificates/c/policy", `{"key_props":{"kty":"oct"}}`, 400)
	w.do(certist, "PATCH", "vault:kv1/certificates/c", `{"tags":{"a":"b"},"policy":{"x509_props":{"validity_months":-5}}}`, 400)
	if got := w.do(certer, "GET", "vault:kv1/certificates/c", "", 200); got.body["tags"] != nil || got.str("policy", "key_props", "kty") != "EC" {
		t.Errorf("a refused change changed %s", got.text)
	}
	if got := w.do(certist, "PATCH", "vault:kv1/certificates/c/policy", `{"x509_props":{"validity_months":6}}`, 200); got.str("x509_props", "subject") == "" || got.str("x509_props", "validity_months") != "6" {
		t.Errorf("the policy is %s", got.text)
	}
}

// Each role and each permission opens what it names.
func TestWhoMayDoWhatWithCertificates(t *testing.T) {
	w := certWorld(t)
	self := `{` + ecPolicy("Self", "") + `}`
	w.do(certist, "POST", "vault:kv1/certificates/c/create", self, 202)
	for _, who := range []string{owner, reader, contri, office, cryptoOfficer, nobody} { // all of the vault, all of its secrets, all of its keys
		w.do(who, "GET", "vault:kv1/certificates/c", "", 403)
		w.do(who, "GET", "vault:kv1/certificates", "", 403)
		w.do(who, "POST", "vault:kv1/certificates/c/create", self, 403)
		w.do(who, "GET", "vault:kv1/certificates/contacts", "", 403)
	}
	for _, x := range [][2]string{{"POST", "certificates/c/create"}, {"PATCH", "certificates/c"}, {"DELETE", "certificates/c"}, {"GET", "certificates/contacts"}, {"GET", "certificates/issuers"}, {"POST", "certificates/c/backup"}, {"PATCH", "certificates/c/policy"}, {"DELETE", "certificates/c/pending"}} {
		w.do(certer, x[0], "vault:kv1/"+x[1], self, 403)
	}
	w.do(certist, "GET", "vault:kv1/secrets/c", "", 403) // who manages certificates has no key of theirs
	w.do(certist, "GET", "vault:kv1/certificates/contacts", "", 404)
	w.do(certist, "PUT", "vault:kv1/certificates/contacts", `{"contacts":[{"email":"nobody"}]}`, 400)
	w.do(certist, "PUT", "vault:kv1/certificates/contacts", `{"contacts":[{"email":"a@example","name":"A"}]}`, 200)
	if got := w.do(certist, "GET", "vault:kv1/certificates/contacts", "", 200); !strings.Contains(got.text, `"a@example"`) {
		t.Errorf("contacts: %s", got.text)
	}
	w.do(certist, "DELETE", "vault:kv1/certificates/contacts", "", 200)
	w.do(certist, "PUT", "vault:kv1/certificates/issuers/Self", `{"provider":"x"}`, 400)
	w.do(certist, "PUT", "vault:kv1/certificates/issuers/one", `{}`, 400)
	w.do(certist, "PUT", "vault:kv1/certificates/issuers/one", `{"provider":"DigiCert","credentials":{"account_id":"me","pwd":"canary"},"org_details":{"admin_details":[{"email":"a@b"}]}}`, 200)
	w.do(certist, "PATCH", "vault:kv1/certificates/issuers/one", `{"attributes":{"enabled":false}}`, 200)
	w.do(certist, "PATCH", "vault:kv1/certificates/issuers/two", `{"attributes":{"enabled":false}}`, 404)
	if got := w.do(certist, "GET", "vault:kv1/certificates/issuers/one", "", 200); got.str("credentials", "account_id") != "me" || got.str("attributes", "enabled") != "false" || strings.Contains(got.text, "canary") || !strings.Contains(got.text, "a@b") {
		t.Errorf("issuer: %s", got.text)
	}
	if got := w.do(certist, "GET", "vault:kv1/certificates/issuers", "", 200); len(got.body["value"].([]any)) != 1 {
		t.Errorf("issuers: %s", got.text)
	}

	give := func(who string, permissions ...string) string {
		return `{"tenantId":"` + tenant + `","objectId":"` + who + `","permissions":{"certificates":["` + strings.Join(permissions, `","`) + `"]}}`
	}
	w.do(owner, "PUT", vaults+"kv3", vaultBody(`"enableRbacAuthorization":false,"accessPolicies":[`+strings.Join([]string{
		give(office, "all"), give(nobody, "get", "managecontacts"), give(reader, "list", "getissuers"), give(user, "create", "setissuers", "listissuers"),
	}, ",")+`]`), 201)
	w.do(certist, "POST", "vault:kv3/certificates/c/create", self, 403) // its role does not count here
	w.do(user, "POST", "vault:kv3/certificates/c/create", self, 202)
	w.do(user, "GET", "vault:kv3/certificates/c", "", 403)
	w.do(nobody, "GET", "vault:kv3/certificates/c", "", 200)
	w.do(nobody, "GET", "vault:kv3/certificates/c/policy", "", 200)
	w.do(nobody, "GET", "vault:kv3/certificates", "", 403)
	w.do(nobody, "GET", "vault:kv3/certificates/c/versions", "", 403)
	w.do(nobody, "GET", "vault:kv3/secrets/c", "", 403)
	w.do(nobody, "GET", "vault:kv3/certificates/contacts", "", 404)
	w.do(reader, "GET", "vault:kv3/certificates/contacts", "", 403)
	w.do(reader, "GET", "vault:kv3/certificates", "", 200)
	w.do(reader, "GET", "vault:kv3/certificates/c", "", 403)
	w.do(user, "PUT", "vault:kv3/certificates/issuers/one", `{"provider":"x"}`, 200)
	w.do(user, "GET", "vault:kv3/certificates/issuers", "", 200)
	w.do(user, "GET", "vault:kv3/certificates/issuers/one", "", 403)
	w.do(reader, "GET", "vault:kv3/certificates/issuers/one", "", 200)
	w.do(reader, "GET", "vault:kv3/certificates/issuers", "", 403)
	w.do(user, "DELETE", "vault:kv3/certificates/issuers/one", "", 403)
	w.do(office, "DELETE", "vault:kv3/certificates/issuers/one", "", 200)
	w.do(office, "DELETE", "vault:kv3/certificates/c", "", 200)
	w.do(office, "DELETE", "vault:kv3/deletedcertificates/c", "", 403) // all is all but purge
}

// The vault's own worker renews a certificate when its policy says, and not
// before, nor one that is disabled; the key stays if the policy says so.
func TestRenewal(t *testing.T) {
	w := certWorld(t)
	w.do(certist, "POST", "vault:kv1/certificates/c/create", `{"policy":{"key_props":{"kty":"EC","reuse_key":true},"x509_props":{"subject":"CN=a","validity_months":10},"issuer":{"name":"Self"},"lifetime_actions":[{"trigger":{"days_before_expiry":30},"action":{"action_type":"AutoRenew"}}]},"tags":{"a":"b"}}`, 202)
	w.do(certist, "POST", "vault:kv1/certificates/d/create", `{`+ecPolicy("Self", "")+`}`, 202)
	w.do(certist, "POST", "vault:kv1/certificates/e/create", `{`+ecPolicy("Self", "")+`}`, 202)
	w.do(certist, "POST", "vault:kv1/certificates/f/create", `{`+ecPolicy("Unknown", "")+`}`, 202)
	w.do(certist, "PATCH", "vault:kv1/certificates/e", `{"attributes":{"enabled":false}}`, 200)
	first := w.do(certer, "GET", "vault:kv1/certificates/c", "", 200)
	end := leafOf(t, first).NotAfter
	versions := func(name string) int {
		return len(w.do(certist, "GET", "vault:kv1/certificates/"+name+"/versions", "", 200).body["value"].([]any))
	}
	step := func(to time.Time, c, d int) {
		t.Helper()
		w.pass(to.Sub(w.clock()))
		w.must(w.v.work(t.Context()))
		if gotC, gotD, gotE := versions("c"), versions("d"), versions("e"); gotC != c || gotD != d || gotE != 1 {
			t.Fatalf("at %s there are %d, %d and %d versions, want %d, %d and 1", to, gotC, gotD, gotE, c, d)
		}
	}
	step(end.AddDate(0, 0, -30).Add(-time.Minute), 1, 1)
	step(end.AddDate(0, 0, -30), 2, 1)
	step(end.AddDate(0, 0, -30).Add(time.Hour), 2, 1)
	step(end, 2, 2) // 80 % of twelve months are over
	now := w.do(certer, "GET", "vault:kv1/certificates/c", "", 200)
	if !bytes.Equal(leafOf(t, now).RawSubjectPublicKeyInfo, leafOf(t, first).RawSubjectPublicKeyInfo) || !leafOf(t, now).NotAfter.After(end) || now.body["tags"].(map[string]any)["a"] != "b" {
		t.Errorf("renewed: %s", now.text)
	}
}
