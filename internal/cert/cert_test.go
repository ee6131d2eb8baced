package cert

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"castellan/internal/key"
)

var now = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

func newKey(t testing.TB, curve string) key.Key {
	t.Helper()
	k, err := key.Generate(key.EC, curve, 0)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// What a request says, its certificate and its CSR say too, as crypto/x509 reads
// them; and what a certificate says can be asked for anew.
func TestCertificatesSayWhatWasAsked(t *testing.T) {
	r := Request{
		Subject: `CN=a\, b,OU=one+OU=two,DC=example,C=DE`, Months: 13,
		Names: Names{DNS: []string{"*.example", "b.example"}, Emails: []string{"a@example"}, URIs: []string{"spiffe://example/a"}, IPs: []string{"10.0.0.1", "fd00::1"}},
		Usage: []string{"digitalSignature", "keyAgreement", "decipherOnly"}, EKUs: []string{"1.3.6.1.5.5.7.3.1", "1.2.3.4"},
	}
	for _, curve := range []string{"P-256", "P-384", "P-521"} {
		k := newKey(t, curve)
		c, err := r.SelfSigned(k, now)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature); err != nil || c.IsCA {
			t.Errorf("%s: it does not sign itself: %v", curve, err)
		}
		if got, want := fmt.Sprint(Describe(c)), fmt.Sprint(r); got != want {
			t.Errorf("it says %s, want %s", got, want)
		}
		if c.NotBefore != now.Add(-early) || c.NotAfter != c.NotBefore.AddDate(0, 13, 0) {
			t.Errorf("it is from %s to %s", c.NotBefore, c.NotAfter)
		}
		der, err := r.CSR(k)
		if err != nil {
			t.Fatal(err)
		}
		q, err := x509.ParseCertificateRequest(der)
		if err != nil || q.CheckSignature() != nil || !bytes.Equal(q.RawSubject, c.RawSubject) {
			t.Fatalf("the request: %v", err)
		}
		for _, id := range []asn1.ObjectIdentifier{oidSAN, oidUsage, oidEKU} {
			if a, b := extension(q.Extensions, id), extension(c.Extensions, id); a == "" || a != b {
				t.Errorf("the request has of %v %x, the certificate %x", id, a, b)
			}
		}
	}
}

func extension(list []pkix.Extension, id asn1.ObjectIdentifier) string {
	for _, e := range list {
		if e.Id.Equal(id) {
			return fmt.Sprint(e.Critical, e.Value)
		}
	}
	return ""
}

// A user principal name is an other name (RFC 4985's shape); without a subject
// the names are critical.
func TestPrincipalNames(t *testing.T) {
	r := Request{Months: 1, Names: Names{UPNs: []string{"ä@example"}}}
	c, err := r.SelfSigned(newKey(t, ""), now)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range c.Extensions {
		if e.Id.Equal(oidSAN) {
			var names []struct {
				Type  asn1.ObjectIdentifier
				Value string `asn1:"utf8,explicit,tag:0"`
			}
			// the tag of an other name is [0], implicit
			plain := bytes.Replace(e.Value, []byte{0xa0}, []byte{0x30}, 1)
			if _, err := asn1.Unmarshal(plain, &names); err != nil || len(names) != 1 || !names[0].Type.Equal(oidUPN) || names[0].Value != "ä@example" || !e.Critical {
				t.Errorf("the names are %v (%v)", names, err)
			}
			return
		}
	}
	t.Error("there are no names")
}

// A file that was written is read as it was, also by old algorithms; whose key
// its certificates are not of is refused.
func TestFiles(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	k, err := key.Of(private)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := Request{Subject: "CN=leaf", Months: 1}.SelfSigned(k, now)
	if err != nil {
		t.Fatal(err)
	}
	other, err := Request{Subject: "CN=other", Months: 1}.SelfSigned(newKey(t, ""), now)
	if err != nil {
		t.Fatal(err)
	}
	b := Bundle{k, []*x509.Certificate{leaf, other}}
	same := func(what string, got Bundle, err error) {
		t.Helper()
		if err != nil || len(got.Chain) != 2 || !got.Leaf().Equal(leaf) || !got.Key.Equal(k.Public) {
			t.Errorf("%s: %v %v", what, got.Chain, err)
		}
	}
	pfx, err := b.PFX(true)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadPFX(pfx, "")
	same("PFX", got, err)
	text, err := b.PEM(true)
	if err != nil {
		t.Fatal(err)
	}
	got, err = ReadPEM(text)
	same("PEM", got, err)
	for name, enc := range map[string]*pkcs12.Encoder{"RC2": pkcs12.LegacyRC2, "3DES": pkcs12.LegacyDES, "2026": pkcs12.Modern2026} {
		// the leaf need not be the first
		raw, err := enc.Encode(private, other, []*x509.Certificate{leaf}, "ä pass")
		if err != nil {
			t.Fatal(err)
		}
		got, err := ReadPFX(raw, "ä pass")
		same(name, got, err)
		if _, err := ReadPFX(raw, "a pass"); !errors.Is(err, key.ErrBad) {
			t.Errorf("%s opens with a wrong password, or fails by %v", name, err)
		}
	}
	for name, enc := range map[string]*pkcs12.Encoder{"RC2": pkcs12.LegacyRC2, "3DES": pkcs12.LegacyDES, "2023": pkcs12.Modern2023, "2026": pkcs12.Modern2026} {
		slow, err := enc.WithIterations(maxIterations+1).Encode(private, leaf, nil, "x")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ReadPFX(slow, "x"); err == nil || !strings.Contains(err.Error(), "stretched 1000001 times") {
			t.Errorf("%s, which takes too long: %v", name, err)
		}
	}
	alien, err := pkcs12.Modern.Encode(private, other, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ReadPFX(alien, ""); err == nil || !strings.Contains(err.Error(), "none of the 1 certificates") {
		t.Errorf("a certificate of another key: %v", err)
	}
	twice := append(bytes.Clone(text), text...)
	for name, bad := range map[string][]byte{"nothing": nil, "two keys": twice, "no key": text[bytes.Index(text, []byte("-----BEGIN CERT")):], "no certificate": text[:bytes.Index(text, []byte("-----BEGIN CERT"))]} {
		if _, err := ReadPEM(bad); !errors.Is(err, key.ErrBad) {
			t.Errorf("PEM with %s: %v", name, err)
		}
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, weak := range []any{small, p224, "none"} {
		if _, err := key.Of(weak); !errors.Is(err, key.ErrBad) {
			t.Errorf("a key %T is taken (%v)", weak, err)
		}
	}
}

// A subject that is taken is one that a certificate can have.
func FuzzSubject(f *testing.F) {
	for _, s := range []string{"CN=a", "CN=a,O=b+OU=c", `CN="a, b"`, `CN=\41\c3\a4`, "1.2.3=x", "OID.2.5.4.3=x", "E=a@b", "CN=#0c0161", "=", "CN", "C=DE", ",", "cn = a , o = b"} {
		f.Add(s)
	}
	k := newKey(f, "")
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := parseSubject(s); err != nil {
			return
		}
		r := Request{Subject: s, Months: 1, Names: Names{DNS: []string{"a"}}}
		if _, err := r.SelfSigned(k, now); err != nil && !errors.Is(err, key.ErrBad) {
			t.Errorf("%q is taken, and then %v", s, err)
		}
	})
}

// Files of anything are read or refused, and soon.
func FuzzFiles(f *testing.F) {
	k := newKey(f, "")
	leaf, err := Request{Subject: "CN=leaf", Months: 1}.SelfSigned(k, now)
	if err != nil {
		f.Fatal(err)
	}
	b := Bundle{k, []*x509.Certificate{leaf}}
	for _, key := range []bool{true, false} {
		pfx, err1 := b.PFX(key)
		text, err2 := b.PEM(key)
		if err1 != nil || err2 != nil {
			f.Fatal(err1, err2)
		}
		f.Add(pfx)
		f.Add(text)
	}
	f.Add([]byte{0x30, 0x80, 0x02, 0x01, 0x03})
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, read := range []func() (Bundle, error){func() (Bundle, error) { return ReadPFX(data, "") }, func() (Bundle, error) { return ReadPEM(data) }} {
			if got, err := read(); err == nil && len(got.Chain) == 0 {
				t.Error("it has no certificate")
			}
		}
	})
}
