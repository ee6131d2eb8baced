// Package seal encrypts what the store keeps.
//
// A root key, which lives outside the data folder, wraps data keys; a data key
// seals values with AES-256-GCM under a context that names where the value
// lies, so that a sealed value moved elsewhere does not open.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
)

// KeySize is the size of every key here, in bytes.
const KeySize = 32

// ErrSealed means that a value does not open: wrong key, wrong place, altered.
var ErrSealed = errors.New("seal: the value does not open with this key in this place")

// Key seals and opens. The zero Key opens nothing.
type Key struct {
	raw  []byte
	aead cipher.AEAD
}

// NewKey makes a Key from 32 bytes of key material.
func NewKey(raw []byte) (Key, error) {
	if len(raw) != KeySize {
		return Key{}, fmt.Errorf("seal: a key has %d bytes; it must have %d", len(raw), KeySize)
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return Key{}, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return Key{}, err
	}
	return Key{raw: append([]byte(nil), raw...), aead: aead}, nil
}

// Random makes a fresh Key.
func Random() Key {
	raw := make([]byte, KeySize)
	_, _ = rand.Read(raw) // never fails (crypto/rand)
	k, err := NewKey(raw)
	if err != nil {
		panic(err) // the size is right by construction
	}
	return k
}

// Derive makes the key for one use, which label names (HKDF-SHA256, RFC 5869).
func (k Key) Derive(label string) Key {
	raw, err := hkdf.Key(sha256.New, k.raw, nil, "castellan "+label, KeySize)
	if err != nil {
		panic(err) // only for absurd lengths
	}
	d, err := NewKey(raw)
	if err != nil {
		panic(err)
	}
	return d
}

// IsZero reports whether k is no key.
func (k Key) IsZero() bool { return k.aead == nil }

// Bytes is the key material, for libraries that want it themselves.
func (k Key) Bytes() []byte { return append([]byte(nil), k.raw...) }

// Seal encrypts plain for the place that context names.
func (k Key) Seal(plain []byte, context string) []byte {
	return k.aead.Seal(nil, nil, plain, []byte(context))
}

// Open decrypts what Seal made for the same context, or fails with ErrSealed.
func (k Key) Open(sealed []byte, context string) ([]byte, error) {
	if k.aead == nil {
		return nil, ErrSealed
	}
	plain, err := k.aead.Open(nil, nil, sealed, []byte(context))
	if err != nil {
		return nil, ErrSealed
	}
	return plain, nil
}

// Wrap seals another key.
func (k Key) Wrap(inner Key, context string) []byte { return k.Seal(inner.raw, "key "+context) }

// Unwrap opens a wrapped key.
func (k Key) Unwrap(wrapped []byte, context string) (Key, error) {
	raw, err := k.Open(wrapped, "key "+context)
	if err != nil {
		return Key{}, err
	}
	return NewKey(raw)
}
