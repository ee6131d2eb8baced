package key

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	_ "crypto/sha512" // the hashes that algorithms name
	"crypto/subtle"
	"hash"
	"maps"
	"math/big"
	"slices"
	"strings"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	k1ecdsa "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	josecipher "github.com/go-jose/go-jose/v4/cipher"
)

// Box is what is encrypted and what goes with it. IV and Tag are those of AES;
// Extra is authenticated and not encrypted.
type Box struct {
	Value, IV, Tag, Extra []byte
}

// signing are the algorithms that sign: the hash whose digest they take, the
// curve of the key, or how RSA pads.
var signing = map[string]struct {
	hash  crypto.Hash
	curve string
	pss   bool
}{
	"RS256": {hash: crypto.SHA256}, "RS384": {hash: crypto.SHA384}, "RS512": {hash: crypto.SHA512},
	"PS256": {hash: crypto.SHA256, pss: true}, "PS384": {hash: crypto.SHA384, pss: true}, "PS512": {hash: crypto.SHA512, pss: true},
	"ES256": {hash: crypto.SHA256, curve: "P-256"}, "ES384": {hash: crypto.SHA384, curve: "P-384"}, "ES512": {hash: crypto.SHA512, curve: "P-521"},
	"ES256K": {hash: crypto.SHA256, curve: P256K},
}

// aesBits is the key size that an AES algorithm's name says.
func aesBits(alg string) (bits int, mode string) {
	for b, prefix := range map[int]string{128: "A128", 192: "A192", 256: "A256"} {
		if mode, ok := strings.CutPrefix(alg, prefix); ok {
			return b, mode
		}
	}
	return 0, ""
}

func (p Public) wrong(alg string, can []string) error {
	if len(can) == 0 {
		return bad("a key of type %s can't do this", p.Type)
	}
	return bad("the algorithm %q is none that this key has; it may be %s", alg, strings.Join(can, ", "))
}

// signers are the algorithms by which the key signs.
func (p Public) signers() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(signing)), func(alg string) bool {
		s := signing[alg]
		return p.Type != RSA && p.Type != EC || s.curve != p.Curve
	})
}

// ciphers are the algorithms by which the key encrypts, or wraps other keys.
func (p Public) ciphers(wrap bool) []string {
	switch {
	case p.Type == RSA:
		return []string{"RSA-OAEP", "RSA-OAEP-256", "RSA1_5"}
	case p.Type == Oct && wrap:
		return []string{map[int]string{128: "A128KW", 192: "A192KW", 256: "A256KW"}[p.Size]}
	case p.Type == Oct:
		a := map[int]string{128: "A128", 192: "A192", 256: "A256"}[p.Size]
		return []string{a + "GCM", a + "CBC", a + "CBCPAD"}
	}
	return nil
}

func (p Public) signer(alg string, digest []byte) (crypto.Hash, bool, error) {
	if !slices.Contains(p.signers(), alg) {
		return 0, false, p.wrong(alg, p.signers())
	}
	s := signing[alg]
	if len(digest) != s.hash.Size() {
		return 0, false, bad("the digest has %d bytes; for %s it must have %d", len(digest), alg, s.hash.Size())
	}
	return s.hash, s.pss, nil
}

// Sign signs a digest. Signatures by elliptic curves are r and s, each as long
// as the curve's order (RFC 7518, section 3.4).
func (k Key) Sign(alg string, digest []byte) ([]byte, error) {
	hash, pss, err := k.signer(alg, digest)
	switch {
	case err != nil:
		return nil, err
	case k.k1 != nil:
		sig := k1ecdsa.Sign(k.k1, digest)
		r, s := sig.R(), sig.S()
		rb, sb := r.Bytes(), s.Bytes()
		return append(rb[:], sb[:]...), nil
	case k.ec != nil:
		r, s, err := ecdsa.Sign(rand.Reader, k.ec, digest)
		if err != nil {
			return nil, err
		}
		n := (k.ec.Params().N.BitLen() + 7) / 8
		return append(r.FillBytes(make([]byte, n)), s.FillBytes(make([]byte, n))...), nil
	case pss:
		return rsa.SignPSS(rand.Reader, k.rsa, hash, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	}
	return rsa.SignPKCS1v15(rand.Reader, k.rsa, hash, digest)
}

// Verify reports whether sig is a signature of the digest.
func (p Public) Verify(alg string, digest, sig []byte) (bool, error) {
	hash, pss, err := p.signer(alg, digest)
	if err != nil {
		return false, err
	}
	switch {
	case p.Curve == P256K:
		return p.verifyK1(digest, sig), nil
	case p.Type == EC:
		return p.verifyEC(digest, sig), nil
	}
	pub := p.rsa()
	if pss {
		return rsa.VerifyPSS(pub, hash, digest, sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil, nil
	}
	return rsa.VerifyPKCS1v15(pub, hash, digest, sig) == nil, nil
}

func (p Public) rsa() *rsa.PublicKey {
	return &rsa.PublicKey{N: new(big.Int).SetBytes(p.N), E: int(new(big.Int).SetBytes(p.E).Int64())}
}

func (p Public) verifyEC(digest, sig []byte) bool {
	c := curves[p.Curve]
	n := (c.Params().N.BitLen() + 7) / 8
	if len(sig) != 2*n {
		return false
	}
	pub, err := ecdsa.ParseUncompressedPublicKey(c, slices.Concat([]byte{4}, p.X, p.Y))
	if err != nil {
		return false
	}
	return ecdsa.Verify(pub, digest, new(big.Int).SetBytes(sig[:n]), new(big.Int).SetBytes(sig[n:]))
}

func (p Public) verifyK1(digest, sig []byte) bool {
	pub, err := secp256k1.ParsePubKey(slices.Concat([]byte{4}, p.X, p.Y))
	if err != nil || len(sig) != 64 {
		return false
	}
	var r, s secp256k1.ModNScalar
	if r.SetByteSlice(sig[:32]) || s.SetByteSlice(sig[32:]) || r.IsZero() || s.IsZero() {
		return false
	}
	return k1ecdsa.NewSignature(&r, &s).Verify(digest, pub)
}

// Encrypt encrypts in.Value. By CBC it takes the caller's IV; by GCM it makes
// one, since two of the same would betray the key.
func (k Key) Encrypt(alg string, in Box) (Box, error) {
	if !slices.Contains(k.ciphers(false), alg) {
		return Box{}, k.wrong(alg, k.ciphers(false))
	}
	if k.Type == RSA {
		return k.sealRSA(alg, in)
	}
	if _, mode := aesBits(alg); mode != "GCM" {
		return k.cbc(mode, in, true)
	}
	if len(in.IV) > 0 || len(in.Tag) > 0 {
		return Box{}, bad("iv and tag must be left out: they are made here")
	}
	aead, err := k.gcm()
	if err != nil {
		return Box{}, err
	}
	iv := make([]byte, aead.NonceSize())
	_, _ = rand.Read(iv) // never fails (crypto/rand)
	out := aead.Seal(nil, iv, in.Value, in.Extra)
	cut := len(out) - aead.Overhead()
	return Box{Value: out[:cut], IV: iv, Tag: out[cut:], Extra: in.Extra}, nil
}

// Decrypt opens what Encrypt made, or fails with ErrFailed.
func (k Key) Decrypt(alg string, in Box) ([]byte, error) {
	if !slices.Contains(k.ciphers(false), alg) {
		return nil, k.wrong(alg, k.ciphers(false))
	}
	if k.Type == RSA {
		return k.openRSA(alg, in)
	}
	if _, mode := aesBits(alg); mode != "GCM" {
		out, err := k.cbc(mode, in, false)
		return out.Value, err
	}
	aead, err := k.gcm()
	if err != nil {
		return nil, err
	}
	if len(in.IV) != aead.NonceSize() || len(in.Tag) != aead.Overhead() {
		return nil, bad("iv has %d bytes and tag %d; they must have %d and %d", len(in.IV), len(in.Tag), aead.NonceSize(), aead.Overhead())
	}
	out, err := aead.Open(nil, in.IV, slices.Concat(in.Value, in.Tag), in.Extra)
	if err != nil {
		return nil, ErrFailed
	}
	return out, nil
}

// Wrap encrypts another key.
func (k Key) Wrap(alg string, inner []byte) ([]byte, error) {
	if !slices.Contains(k.ciphers(true), alg) {
		return nil, k.wrong(alg, k.ciphers(true))
	}
	if k.Type == RSA {
		out, err := k.sealRSA(alg, Box{Value: inner})
		return out.Value, err
	}
	if len(inner) < 16 || len(inner)%8 != 0 {
		return nil, bad("the value has %d bytes; for %s it must be a multiple of 8 from 16", len(inner), alg)
	}
	b, err := aes.NewCipher(k.oct)
	if err != nil {
		return nil, err
	}
	return josecipher.KeyWrap(b, inner)
}

// Unwrap opens what Wrap made, or fails with ErrFailed.
func (k Key) Unwrap(alg string, wrapped []byte) ([]byte, error) {
	if !slices.Contains(k.ciphers(true), alg) {
		return nil, k.wrong(alg, k.ciphers(true))
	}
	if k.Type == RSA {
		return k.openRSA(alg, Box{Value: wrapped})
	}
	if len(wrapped) < 24 || len(wrapped)%8 != 0 {
		return nil, ErrFailed
	}
	b, err := aes.NewCipher(k.oct)
	if err != nil {
		return nil, err
	}
	out, err := josecipher.KeyUnwrap(b, wrapped)
	if err != nil {
		return nil, ErrFailed
	}
	return out, nil
}

func oaep(alg string) hash.Hash {
	if alg == "RSA-OAEP" {
		return sha1.New() // RFC 7518, section 4.3: its default parameters
	}
	return sha256.New()
}

func onlyValue(in Box) error {
	if len(in.IV)+len(in.Tag)+len(in.Extra) > 0 {
		return bad("iv, tag and aad must be left out: RSA has none")
	}
	return nil
}

func (k Key) sealRSA(alg string, in Box) (Box, error) {
	if err := onlyValue(in); err != nil {
		return Box{}, err
	}
	pub := k.Public.rsa()
	room := pub.Size() - 11
	if alg != "RSA1_5" {
		room = pub.Size() - 2*oaep(alg).Size() - 2
	}
	if len(in.Value) > room {
		return Box{}, bad("the value has %d bytes; for %s by a key of %d bits it may have %d", len(in.Value), alg, pub.N.BitLen(), room)
	}
	var out []byte
	var err error
	if alg == "RSA1_5" {
		//lint:ignore SA1019 clients of Key Vault still ask for RSA1_5
		out, err = rsa.EncryptPKCS1v15(rand.Reader, pub, in.Value)
	} else {
		out, err = rsa.EncryptOAEP(oaep(alg), rand.Reader, pub, in.Value, nil)
	}
	return Box{Value: out}, err
}

func (k Key) openRSA(alg string, in Box) (out []byte, err error) {
	if err := onlyValue(in); err != nil {
		return nil, err
	}
	if alg == "RSA1_5" {
		//lint:ignore SA1019 what was encrypted so must still open; who may ask may decrypt anyway
		out, err = rsa.DecryptPKCS1v15(nil, k.rsa, in.Value)
	} else {
		out, err = rsa.DecryptOAEP(oaep(alg), nil, k.rsa, in.Value, nil)
	}
	if err != nil {
		return nil, ErrFailed
	}
	return out, nil
}

func (k Key) gcm() (cipher.AEAD, error) {
	b, err := aes.NewCipher(k.oct)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(b)
}

// cbc does AES-CBC; in the mode CBCPAD it pads (PKCS #7), else the value must be
// whole blocks.
func (k Key) cbc(mode string, in Box, encrypt bool) (Box, error) {
	if len(in.IV) != aes.BlockSize {
		return Box{}, bad("iv has %d bytes; it must have %d", len(in.IV), aes.BlockSize)
	}
	if len(in.Tag)+len(in.Extra) > 0 {
		return Box{}, bad("tag and aad must be left out: CBC has none")
	}
	b, err := aes.NewCipher(k.oct)
	if err != nil {
		return Box{}, err
	}
	v := slices.Clone(in.Value)
	if mode == "CBCPAD" && encrypt {
		n := aes.BlockSize - len(v)%aes.BlockSize
		v = append(v, slices.Repeat([]byte{byte(n)}, n)...)
	}
	if len(v) == 0 || len(v)%aes.BlockSize != 0 {
		return Box{}, bad("the value has %d bytes; it must be whole blocks of %d", len(v), aes.BlockSize)
	}
	if encrypt {
		cipher.NewCBCEncrypter(b, in.IV).CryptBlocks(v, v)
		return Box{Value: v, IV: in.IV}, nil
	}
	cipher.NewCBCDecrypter(b, in.IV).CryptBlocks(v, v)
	if mode == "CBCPAD" {
		n := int(v[len(v)-1])
		if n == 0 || n > aes.BlockSize || subtle.ConstantTimeCompare(v[len(v)-n:], slices.Repeat([]byte{byte(n)}, n)) == 0 {
			return Box{}, ErrFailed
		}
		v = v[:len(v)-n]
	}
	return Box{Value: v}, nil
}
