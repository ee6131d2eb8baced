package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"castellan/internal/arm"
)

// An application is proven by what it has now, in its own tenant, and not by what
// was taken from it; each proof is recorded as a sign-in.
func TestProvingAnApplication(t *testing.T) {
	w := newWorld(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issue := func(serial int64, from time.Time) ([]byte, arm.Secret) {
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "c"}, NotBefore: from, NotAfter: w.now().Add(48 * time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		private, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return der, arm.NewSecret(append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...))
	}
	der, file := issue(1, w.now().Add(-time.Hour))
	_, other := issue(2, w.now().Add(-time.Hour))
	app, principal := w.newApp("c", map[string]any{"keyCredentials": []any{map[string]any{"type": "AsymmetricX509Cert", "usage": "Verify", "key": base64.StdEncoding.EncodeToString(der)}}})
	secret := arm.NewSecret([]byte(w.secretOf(app)))
	public := arm.NewSecret(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	tenant, id, none := w.first.Tenant, app.text("appId"), arm.Secret{}
	for name, x := range map[string]struct {
		tenant, id   string
		secret, cert arm.Secret
		holds        bool
	}{
		"the secret":               {tenant, id, secret, none, true},
		"the certificate":          {tenant, id, none, file, true},
		"no proof":                 {tenant, id, none, none, false},
		"another secret":           {tenant, id, arm.NewSecret([]byte("x")), none, false},
		"another certificate":      {tenant, id, none, other, false},
		"a certificate, no key":    {tenant, id, none, public, false},
		"another tenant":           {arm.NewUUID(), id, secret, none, false},
		"another application":      {tenant, arm.NewUUID(), secret, none, false},
		"a well-known application": {tenant, azureCLI, secret, none, false},
	} {
		c, err := w.s.Prove(t.Context(), x.tenant, x.id, x.secret, x.cert)
		if (err == nil) != x.holds || x.holds && (c.Object != principal || c.Tenant != tenant) || !x.holds && (!c.IsZero() || arm.CodeOf(err) != arm.Unauthenticated) {
			t.Errorf("%s: %v, %v", name, c, err)
		}
	}
	if last := w.tail(); len(last) == 0 {
		t.Error("nothing is recorded")
	}
	w.pass(49 * time.Hour)
	if _, err := w.s.Prove(t.Context(), tenant, id, none, file); err == nil {
		t.Error("a certificate after its time proves something")
	}
	w.admin("PATCH", "servicePrincipals/"+principal, map[string]any{"accountEnabled": false})
	if _, err := w.s.Prove(t.Context(), tenant, id, secret, none); err == nil {
		t.Error("a disabled application proves something")
	}
}
