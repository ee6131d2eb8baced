package cert

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"castellan/internal/key"
)

// Bundle is a certificate with those that lead to its issuer, the leaf first,
// and its key.
type Bundle struct {
	Key   key.Key
	Chain []*x509.Certificate
}

// Leaf is the certificate itself.
func (b Bundle) Leaf() *x509.Certificate { return b.Chain[0] }

// bundle puts the certificate of the key first.
func bundle(k key.Key, certs []*x509.Certificate) (Bundle, error) {
	signer := k.Signer()
	if signer == nil {
		return Bundle{}, bad("the private key is of a type that has no certificate; it must be RSA or EC by P-256, P-384 or P-521")
	}
	pub, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	for i, c := range certs {
		if ok && pub.Equal(c.PublicKey) {
			chain := append([]*x509.Certificate{c}, certs[:i]...)
			return Bundle{k, append(chain, certs[i+1:]...)}, nil
		}
	}
	return Bundle{}, bad("none of the %d certificates is that of the private key", len(certs))
}

// Merge is a bundle of the key and certificates in DER, of which one is the key's.
func Merge(k key.Key, ders [][]byte) (Bundle, error) {
	var certs []*x509.Certificate
	for i, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return Bundle{}, bad("certificate %d of x5c is none", i)
		}
		certs = append(certs, c)
	}
	return bundle(k, certs)
}

// maxCertificates are those that a file may have.
const maxCertificates = 20

// ReadPEM reads certificates and a key that is not encrypted.
func ReadPEM(text []byte) (Bundle, error) {
	var certs []*x509.Certificate
	var private any
	for {
		var b *pem.Block
		if b, text = pem.Decode(text); b == nil {
			break
		}
		var err error
		var p any
		switch b.Type {
		case "CERTIFICATE":
			c, err := x509.ParseCertificate(b.Bytes)
			if err != nil || len(certs) == maxCertificates {
				return Bundle{}, bad("certificate %d of the PEM text is none, or there are more than %d", len(certs), maxCertificates)
			}
			certs = append(certs, c)
			continue
		case "PRIVATE KEY":
			p, err = x509.ParsePKCS8PrivateKey(b.Bytes)
		case "RSA PRIVATE KEY":
			p, err = x509.ParsePKCS1PrivateKey(b.Bytes)
		case "EC PRIVATE KEY":
			p, err = x509.ParseECPrivateKey(b.Bytes)
		default:
			return Bundle{}, bad("the PEM text has a block %q; it may have CERTIFICATE and PRIVATE KEY, not encrypted", b.Type)
		}
		if err != nil || private != nil {
			return Bundle{}, bad("the PEM text must have one private key that can be read")
		}
		private = p
	}
	return read(private, certs, "the PEM text")
}

func read(private any, certs []*x509.Certificate, what string) (Bundle, error) {
	if private == nil || len(certs) == 0 {
		return Bundle{}, bad("%s must have a private key and its certificate", what)
	}
	k, err := key.Of(private)
	if err != nil {
		return Bundle{}, err
	}
	return bundle(k, certs)
}

// Opening a PKCS #12 file takes as long as the file says: maxIterations is what
// may stand in it openly, openTime what is waited for the rest, and places how
// many are opened at a time.
const (
	maxIterations = 1_000_000
	openTime      = 10 * time.Second
)

var places = make(chan struct{}, 2)

// ReadPFX opens a PKCS #12 file.
func ReadPFX(data []byte, password string) (Bundle, error) {
	if n := iterations(data, 0); n > maxIterations {
		return Bundle{}, bad("the PKCS #12 file wants its password stretched %d times; at most %d are allowed", n, maxIterations)
	}
	late := time.NewTimer(openTime)
	defer late.Stop()
	select {
	case places <- struct{}{}:
	case <-late.C:
		return Bundle{}, bad("too many PKCS #12 files are being opened; try again later")
	}
	type opened struct {
		private any
		certs   []*x509.Certificate
		err     error
	}
	done := make(chan opened, 1)
	go func() {
		defer func() {
			if x := recover(); x != nil { // nobody else would: the goroutine is no request's
				done <- opened{err: bad("it can't be read: %v", x)}
			}
			<-places
		}()
		private, leaf, more, err := pkcs12.DecodeChain(data, password)
		if leaf != nil {
			more = append([]*x509.Certificate{leaf}, more...)
		}
		done <- opened{private, more, err}
	}()
	select {
	case <-late.C:
		return Bundle{}, bad("the PKCS #12 file takes too long to open; write it anew with fewer iterations")
	case o := <-done:
		if o.err != nil || len(o.certs) > maxCertificates {
			return Bundle{}, bad("the value is no PKCS #12 file (DER) with one private key and at most %d certificates that opens with this password", maxCertificates)
		}
		return read(o.private, o.certs, "the PKCS #12 file")
	}
}

// iterations is the largest number that stands behind an octet string in der, as
// iterations stand behind their salt (RFC 8018, appendix A), however deep.
func iterations(der []byte, depth int) int64 {
	top, salted := int64(0), false
	for len(der) > 0 && depth < 32 {
		var v asn1.RawValue
		rest, err := asn1.Unmarshal(der, &v)
		if err != nil {
			return top
		}
		der = rest
		switch {
		case v.Class == asn1.ClassUniversal && v.Tag == asn1.TagInteger && salted:
			if n := new(big.Int).SetBytes(v.Bytes); n.IsInt64() {
				top = max(top, n.Int64())
			} else {
				top = maxIterations + 1
			}
		case v.IsCompound || v.Tag == asn1.TagOctetString:
			top = max(top, iterations(v.Bytes, depth+1))
		}
		salted = v.Class == asn1.ClassUniversal && v.Tag == asn1.TagOctetString
	}
	return top
}

// PFX is the bundle as a PKCS #12 file without a password; without its key if
// that may not leave.
func (b Bundle) PFX(withKey bool) ([]byte, error) {
	if !withKey {
		return pkcs12.Modern2023.EncodeTrustStore(b.Chain, "")
	}
	return pkcs12.Modern2023.Encode(b.Key.Signer(), b.Leaf(), b.Chain[1:], "")
}

// PEM is the bundle as PEM text, the key first; without it if it may not leave.
func (b Bundle) PEM(withKey bool) ([]byte, error) {
	var out bytes.Buffer
	if withKey {
		der, err := x509.MarshalPKCS8PrivateKey(b.Key.Signer())
		if err != nil {
			return nil, err
		}
		out.Write(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	}
	for _, c := range b.Chain {
		out.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return out.Bytes(), nil
}
