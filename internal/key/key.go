// Package key has the keys of a key vault and what can be done with them: RSA,
// elliptic curves and octets, by the algorithms of JSON Web Algorithms (RFC 7518,
// RFC 8812). It keeps nothing and knows no vault.
package key

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// The types of keys (RFC 7518, section 6.1).
const (
	RSA = "RSA"
	EC  = "EC"
	Oct = "oct"
)

// ErrBad is what an error is when what was asked for can't be: the wrong
// algorithm for the key, an input of the wrong size, a key that is none.
var ErrBad = errors.New("bad")

type badError string

func (e badError) Error() string   { return string(e) }
func (badError) Is(err error) bool { return err == ErrBad }

func bad(format string, args ...any) error { return badError(fmt.Sprintf(format, args...)) }

// ErrFailed means that what should be decrypted does not open. It says no more,
// so that nobody learns why.
var ErrFailed = errors.New("key: it does not open with this key")

// Bytes are bytes in base64url without padding, as JSON Web Keys have them.
type Bytes []byte

// MarshalText writes base64url.
func (b Bytes) MarshalText() ([]byte, error) {
	return []byte(base64.RawURLEncoding.EncodeToString(b)), nil
}

// UnmarshalText reads base64url, with or without padding.
func (b *Bytes) UnmarshalText(text []byte) (err error) {
	*b, err = base64.RawURLEncoding.Strict().DecodeString(strings.TrimRight(string(text), "="))
	if err != nil {
		return bad("a value is not base64url")
	}
	return nil
}

// Public is what everybody may know of a key.
type Public struct {
	Type  string `json:"kty"`
	Curve string `json:"crv,omitempty"`
	N     Bytes  `json:"n,omitempty"`
	E     Bytes  `json:"e,omitempty"`
	X     Bytes  `json:"x,omitempty"`
	Y     Bytes  `json:"y,omitempty"`
	Size  int    `json:"size,omitempty"` // bits, of octets
}

// Key is a key with what is private of it. It prints as its type alone.
type Key struct {
	Public
	rsa *rsa.PrivateKey
	ec  *ecdsa.PrivateKey
	k1  *secp256k1.PrivateKey
	oct []byte
}

// String is the key's type.
func (k Key) String() string { return k.Type + " key" }

// GoString is the key's type.
func (k Key) GoString() string { return k.String() }

// MarshalJSON writes what is public.
func (k Key) MarshalJSON() ([]byte, error) { return json.Marshal(k.Public) }

// P256K is the curve secp256k1 (RFC 8812), which the standard library lacks.
const P256K = "P-256K"

var curves = map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}

// Curves are the names of the curves, RSASizes and OctSizes the bits of other keys.
var (
	Curves   = []string{"P-256", "P-256K", "P-384", "P-521"}
	RSASizes = []int{2048, 3072, 4096}
	OctSizes = []int{128, 192, 256}
)

// Generate makes a key. bits is the size of an RSA key or of octets, curve the
// curve of an elliptic one; zero means 2048, 256 and P-256.
func Generate(typ, curve string, bits int) (Key, error) {
	switch {
	case typ == EC && bits != 0:
		return Key{}, bad("a size is given for a key of type EC, which has a curve")
	case typ != EC && curve != "":
		return Key{}, bad("a curve is given for a key of type %s, which has a size", typ)
	}
	switch typ {
	case RSA:
		return newRSA(bits)
	case EC:
		return newEC(curve)
	case Oct:
		return newOct(bits)
	}
	return Key{}, bad("the key type is %q; it may be RSA, EC or oct", typ)
}

func newRSA(bits int) (Key, error) {
	if bits == 0 {
		bits = 2048
	}
	if !slices.Contains(RSASizes, bits) {
		return Key{}, bad("the key size is %d bits; of RSA it may be 2048, 3072 or 4096", bits)
	}
	p, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return Key{}, err
	}
	return ofRSA(p), nil
}

func newEC(curve string) (Key, error) {
	switch c := curves[curve]; {
	case curve == "" || c != nil:
		if c == nil {
			c = elliptic.P256()
		}
		p, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			return Key{}, err
		}
		return ofEC(p)
	case curve == P256K:
		p, err := secp256k1.GeneratePrivateKey()
		if err != nil {
			return Key{}, err
		}
		return ofK1(p), nil
	}
	return Key{}, bad("the curve is %q; it may be %s", curve, strings.Join(Curves, ", "))
}

func newOct(bits int) (Key, error) {
	if bits == 0 {
		bits = 256
	}
	if !slices.Contains(OctSizes, bits) {
		return Key{}, bad("the key size is %d bits; of oct it may be 128, 192 or 256", bits)
	}
	raw := make([]byte, bits/8)
	_, _ = rand.Read(raw) // never fails (crypto/rand)
	return ofOct(raw), nil
}

func ofRSA(p *rsa.PrivateKey) Key {
	return Key{Public: Public{Type: RSA, N: p.N.Bytes(), E: big.NewInt(int64(p.E)).Bytes()}, rsa: p}
}

func ofEC(p *ecdsa.PrivateKey) (Key, error) {
	point, err := p.PublicKey.Bytes() // 4, x, y (SEC 1, section 2.3.3)
	if err != nil {
		return Key{}, err
	}
	n := (len(point) - 1) / 2
	return Key{Public: Public{Type: EC, Curve: p.Curve.Params().Name, X: point[1 : 1+n], Y: point[1+n:]}, ec: p}, nil
}

func ofK1(p *secp256k1.PrivateKey) Key {
	point := p.PubKey().SerializeUncompressed()
	return Key{Public: Public{Type: EC, Curve: P256K, X: point[1:33], Y: point[33:]}, k1: p}
}

// Of is the key that crypto/rsa or crypto/ecdsa has, if it may be one here.
func Of(private any) (Key, error) {
	switch p := private.(type) {
	case *rsa.PrivateKey:
		if !slices.Contains(RSASizes, p.N.BitLen()) || p.E != 65537 {
			return Key{}, bad("the RSA key has %d bits and the exponent %d; it may have 2048, 3072 or 4096, and 65537", p.N.BitLen(), p.E)
		}
		if err := p.Validate(); err != nil {
			return Key{}, bad("the RSA key is none")
		}
		return ofRSA(p), nil
	case *ecdsa.PrivateKey:
		if curves[p.Params().Name] == nil {
			return Key{}, bad("the curve is %q; it may be P-256, P-384 or P-521", p.Params().Name)
		}
		return ofEC(p)
	}
	return Key{}, bad("the private key must be RSA or EC")
}

// Signer is the key as crypto/x509 takes it; nil for those of which it knows
// nothing.
func (k Key) Signer() crypto.Signer {
	switch {
	case k.rsa != nil:
		return k.rsa
	case k.ec != nil:
		return k.ec
	}
	return nil
}

func ofOct(raw []byte) Key {
	return Key{Public: Public{Type: Oct, Size: 8 * len(raw)}, oct: raw}
}

// JWK is a key as JSON has it with all that is private (RFC 7518, section 6).
type JWK struct {
	Type  string `json:"kty"`
	Curve string `json:"crv"`
	N     Bytes  `json:"n"`
	E     Bytes  `json:"e"`
	X     Bytes  `json:"x"`
	Y     Bytes  `json:"y"`
	D     Bytes  `json:"d"`
	P     Bytes  `json:"p"`
	Q     Bytes  `json:"q"`
	DP    Bytes  `json:"dp"`
	DQ    Bytes  `json:"dq"`
	QI    Bytes  `json:"qi"`
	K     Bytes  `json:"k"`
}

// Import takes a key from elsewhere. Whatever is said twice in it must agree.
func (j JWK) Import() (Key, error) {
	switch j.Type {
	case RSA:
		return j.rsa()
	case EC:
		return j.ec()
	case Oct:
		if !slices.Contains(OctSizes, 8*len(j.K)) {
			return Key{}, bad("k has %d bits; it may have 128, 192 or 256", 8*len(j.K))
		}
		return ofOct(slices.Clone(j.K)), nil
	}
	return Key{}, bad("the key type is %q; it may be RSA, EC or oct", j.Type)
}

func (j JWK) rsa() (Key, error) {
	num := func(b Bytes) *big.Int { return new(big.Int).SetBytes(b) }
	n, e := num(j.N), num(j.E)
	switch {
	case !slices.Contains(RSASizes, n.BitLen()):
		return Key{}, bad("n has %d bits; it may have 2048, 3072 or 4096", n.BitLen())
	case !e.IsInt64() || e.Int64() != 65537:
		return Key{}, bad("e must be 65537")
	case len(j.D) == 0 || len(j.P) == 0 || len(j.Q) == 0:
		return Key{}, bad("d, p and q must be there")
	case len(j.D) > len(j.N) || len(j.P) > len(j.N) || len(j.Q) > len(j.N):
		return Key{}, bad("d, p and q must not be longer than n")
	}
	p := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: n, E: 65537}, D: num(j.D), Primes: []*big.Int{num(j.P), num(j.Q)}}
	if err := p.Validate(); err != nil {
		return Key{}, bad("n, e, d, p and q are no key together")
	}
	p.Precompute()
	for _, x := range []struct {
		said Bytes
		is   *big.Int
	}{{j.DP, p.Precomputed.Dp}, {j.DQ, p.Precomputed.Dq}, {j.QI, p.Precomputed.Qinv}} {
		if len(x.said) > 0 && num(x.said).Cmp(x.is) != 0 {
			return Key{}, bad("dp, dq or qi is not that of d, p and q")
		}
	}
	return ofRSA(p), nil
}

func (j JWK) ec() (Key, error) {
	n := 32
	if c := curves[j.Curve]; c != nil {
		n = (c.Params().N.BitLen() + 7) / 8
	}
	k, err := parseEC(j.Curve, pad(j.D, n)) // some clients leave zeros out
	if err != nil {
		return Key{}, err
	}
	if len(j.X) > 0 && !slices.Equal(pad(j.X, n), k.X) || len(j.Y) > 0 && !slices.Equal(pad(j.Y, n), k.Y) {
		return Key{}, bad("x and y are not the point of d")
	}
	return k, nil
}

// pad is b with zeros before it, n bytes long if it was not longer.
func pad(b []byte, n int) []byte {
	if len(b) == 0 || len(b) >= n {
		return b
	}
	return append(make([]byte, n-len(b), n), b...)
}

func parseEC(curve string, d []byte) (Key, error) {
	if curve == P256K {
		var s secp256k1.ModNScalar
		if len(d) != 32 || s.SetByteSlice(d) || s.IsZero() {
			return Key{}, bad("d is no private key of the curve %s", curve)
		}
		return ofK1(secp256k1.NewPrivateKey(&s)), nil
	}
	c := curves[curve]
	if c == nil {
		return Key{}, bad("the curve is %q; it may be %s", curve, strings.Join(Curves, ", "))
	}
	p, err := ecdsa.ParseRawPrivateKey(c, d)
	if err != nil {
		return Key{}, bad("d is no private key of the curve %s", curve)
	}
	return ofEC(p)
}

// Private is what is private of the key, for Open. RSA keys are PKCS #8, the
// others what their JWK calls d and k.
func (k Key) Private() ([]byte, error) {
	switch {
	case k.rsa != nil:
		return x509.MarshalPKCS8PrivateKey(k.rsa)
	case k.ec != nil:
		return k.ec.Bytes()
	case k.k1 != nil:
		return k.k1.Serialize(), nil
	case k.oct != nil:
		return slices.Clone(k.oct), nil
	}
	return nil, bad("the key has nothing private")
}

// Open is the key of which p is public and raw is what Private gave.
func (p Public) Open(raw []byte) (k Key, err error) {
	switch p.Type {
	case RSA:
		var x any
		if x, err = x509.ParsePKCS8PrivateKey(raw); err != nil {
			return Key{}, fmt.Errorf("reading an RSA key: %w", err)
		}
		r, ok := x.(*rsa.PrivateKey)
		if !ok {
			return Key{}, errors.New("key: it is no RSA key")
		}
		k = ofRSA(r)
	case EC:
		k, err = parseEC(p.Curve, raw)
	case Oct:
		k = ofOct(slices.Clone(raw))
	default:
		err = fmt.Errorf("key: there is no key type %q", p.Type)
	}
	if err == nil && !k.Equal(p) {
		err = errors.New("key: the private part is not that of the public one")
	}
	return k, err
}

// Equal reports whether both are the same key.
func (p Public) Equal(q Public) bool {
	return p.Type == q.Type && p.Curve == q.Curve && p.Size == q.Size &&
		slices.Equal(p.N, q.N) && slices.Equal(p.E, q.E) && slices.Equal(p.X, q.X) && slices.Equal(p.Y, q.Y)
}
