package blob

import (
	"crypto/cipher"
	"crypto/rand"
	"fmt"

	"golang.org/x/crypto/chacha20"
	"golang.org/x/crypto/chacha20poly1305"

	"castellan/internal/seal"
)

// dataKey is what an account's bytes are sealed by: its key, and where the account
// asks for it (requireInfrastructureEncryption) a second one of the platform's around
// that, by another algorithm: ChaCha20 around AES-256-GCM. Neither key nor
// algorithm alone keeps the bytes, so neither alone gives them away.
type dataKey struct {
	seal.Key
	outer seal.Key // zero: sealed once
}

// Seal encrypts what is small.
func (k dataKey) Seal(plain []byte, context string) []byte {
	in := k.Key.Seal(plain, context)
	if k.outer.IsZero() {
		return in
	}
	nonce := make([]byte, chacha20poly1305.NonceSizeX)
	_, _ = rand.Read(nonce) // never fails
	return k.small().Seal(nonce, nonce, in, []byte(context))
}

// Open decrypts what Seal made for the same context.
func (k dataKey) Open(sealed []byte, context string) ([]byte, error) {
	if k.outer.IsZero() {
		return k.Key.Open(sealed, context)
	}
	if len(sealed) < chacha20poly1305.NonceSizeX {
		return nil, seal.ErrSealed
	}
	in, err := k.small().Open(nil, sealed[:chacha20poly1305.NonceSizeX], sealed[chacha20poly1305.NonceSizeX:], []byte(context))
	if err != nil {
		return nil, seal.ErrSealed
	}
	return k.Key.Open(in, context)
}

func (k dataKey) small() cipher.AEAD {
	a, err := chacha20poly1305.NewX(k.outer.Derive("blob bytes").Bytes())
	if err != nil {
		panic(err) // the size is right by construction
	}
	return a
}

// twice is a file's cipher with a stream cipher around it. The inner one tells what
// was altered, so chunks keep their size.
type twice struct {
	cipher.AEAD
	key []byte // for this one file
}

func (t twice) stream(b, nonce []byte) error {
	c, err := chacha20.NewUnauthenticatedCipher(t.key, nonce)
	if err != nil {
		return fmt.Errorf("blob: sealing twice: %w", err)
	}
	c.XORKeyStream(b, b)
	return nil
}

func (t twice) Seal(dst, nonce, plain, context []byte) []byte {
	out := t.AEAD.Seal(dst, nonce, plain, context)
	if err := t.stream(out[len(dst):], nonce); err != nil {
		panic(err) // only for sizes that are wrong
	}
	return out
}

// Open decrypts sealed in its own place.
func (t twice) Open(dst, nonce, sealed, context []byte) ([]byte, error) {
	if err := t.stream(sealed, nonce); err != nil {
		return nil, err
	}
	return t.AEAD.Open(dst, nonce, sealed, context)
}
