package server

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"time"

	"castellan/internal/arm"
)

// Lifetimes of certificates. A leaf is minted anew when half of its life is over.
const (
	rootLife = 10 * 365 * 24 * time.Hour
	leafLife = 30 * 24 * time.Hour
	maxNames = 4096 // leaves kept at a time
)

// Authority is the installation's certificate authority: it mints a leaf for
// every name of the installation that is asked for, and for no other.
type Authority struct {
	site arm.Site
	now  func() time.Time
	cert *x509.Certificate
	key  *ecdsa.PrivateKey

	mu     sync.Mutex // guards leaves
	leaves map[string]*tls.Certificate
}

// NewAuthority makes a root certificate and its key (PKCS #8), to be kept sealed.
func NewAuthority(name string, now time.Time) (certDER, keyDER []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	pub, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, nil, err
	}
	ski := sha256.Sum256(pub)
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: name, Organization: []string{"Castellan"}},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(rootLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: ski[:20],
	}
	if certDER, err = x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key); err != nil {
		return nil, nil, err
	}
	keyDER, err = x509.MarshalPKCS8PrivateKey(key)
	return certDER, keyDER, err
}

// OpenAuthority is the authority of a kept certificate and key.
func OpenAuthority(certDER, keyDER []byte, site arm.Site, now func() time.Time) (*Authority, error) {
	cert, err := x509.ParseCertificate(certDER)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate authority: %w", err)
	}
	k, err := x509.ParsePKCS8PrivateKey(keyDER)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate authority's key: %w", err)
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("the certificate authority's key is not its certificate's")
	}
	return &Authority{site: site, now: now, cert: cert, key: key, leaves: map[string]*tls.Certificate{}}, nil
}

// PEM is the root certificate, for clients to trust.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// TLS is the configuration of a listener: TLS 1.2 at least, a leaf per name.
func (a *Authority) TLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: a.leaf, NextProtos: []string{"h2", "http/1.1"}}
}

// asked is the name that a client says it wants, the site's own if it says none.
func (a *Authority) asked(h *tls.ClientHelloInfo) string {
	return cmp.Or(strings.ToLower(h.ServerName), a.site.Host())
}

// leaf is the certificate for the name that a client says it wants.
func (a *Authority) leaf(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := a.asked(h)
	if !a.site.Owns(name) && name != "localhost" {
		return nil, fmt.Errorf("%q is not a name of this installation", h.ServerName)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.leaves[name]; c != nil && a.now().Before(c.Leaf.NotAfter.Add(-leafLife/2)) {
		return c, nil
	}
	c, err := a.mint(name)
	if err != nil {
		return nil, err
	}
	if len(a.leaves) >= maxNames {
		clear(a.leaves)
	}
	a.leaves[name] = c
	return c, nil
}

func (a *Authority) mint(name string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := a.now()
	t := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: commonName(name)}, DNSNames: []string{name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(leafLife), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// commonName is name, if X.520 lets it be one.
func commonName(name string) string {
	if len(name) > 64 {
		return ""
	}
	return name
}

func serial() *big.Int {
	n, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)) // never fails
	return n.Add(n, big.NewInt(1))
}
