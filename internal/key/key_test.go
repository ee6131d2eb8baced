package key

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// every is a key of each type, curve and size.
func every(t *testing.T) (out []Key) {
	t.Helper()
	add := func(typ, curve string, bits int) {
		k, err := Generate(typ, curve, bits)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, k)
	}
	add(RSA, "", 2048)
	for _, c := range Curves {
		add(EC, c, 0)
	}
	for _, n := range OctSizes {
		add(Oct, "", n)
	}
	return out
}

// What a key does by each of its algorithms it undoes, another key does not, and
// what it has no algorithm for it refuses. A key kept and read again is the same.
func TestWhatKeysDo(t *testing.T) {
	all, others := every(t), every(t)
	algs := []string{"RSA-OAEP", "RSA-OAEP-256", "RSA1_5", "A128KW", "A192KW", "A256KW", "A128GCM", "A192GCM", "A256GCM", "A128CBC", "A192CBC", "A256CBC", "A128CBCPAD", "A192CBCPAD", "A256CBCPAD", "none", "dir", ""}
	for alg := range signing {
		algs = append(algs, alg)
	}
	for i, k := range all {
		raw, err := k.Private()
		if err != nil {
			t.Fatal(err)
		}
		if k, err = k.Open(raw); err != nil {
			t.Fatalf("%s %s: %v", k.Type, k.Curve, err)
		}
		if _, err := others[i].Public.Open(raw); err == nil && k.Type != Oct { // octets have nothing public
			t.Errorf("%s %s: the private part of another key opens", k.Type, k.Curve)
		}
		for _, alg := range algs {
			t.Run(fmt.Sprint(k.Type, k.Curve, k.Size, " ", alg), func(t *testing.T) { roundTrip(t, k, others[i], alg) })
		}
	}
}

func roundTrip(t *testing.T, k, other Key, alg string) {
	value := make([]byte, 32)
	_, _ = rand.Read(value)
	if wrapped, err := k.Wrap(alg, value); err == nil {
		got, err := k.Unwrap(alg, wrapped)
		if err != nil || !slices.Equal(got, value) {
			t.Errorf("unwrap: %x, %v", got, err)
		}
		if _, err := other.Unwrap(alg, wrapped); !errors.Is(err, ErrFailed) {
			t.Errorf("another key unwraps: %v", err)
		}
	} else if slices.Contains(k.ciphers(true), alg) || !errors.Is(err, ErrBad) {
		t.Errorf("wrap: %v", err)
	}
	in := Box{Value: value}
	if strings.Contains(alg, "CBC") {
		in.IV = make([]byte, 16)
	}
	if strings.HasSuffix(alg, "GCM") {
		in.Extra = []byte("extra")
	}
	if box, err := k.Encrypt(alg, in); err == nil {
		got, err := k.Decrypt(alg, box)
		if err != nil || !slices.Equal(got, value) {
			t.Errorf("decrypt: %x, %v", got, err)
		}
		if got, err := other.Decrypt(alg, box); err == nil && slices.Equal(got, value) {
			t.Error("another key decrypts")
		}
	} else if slices.Contains(k.ciphers(false), alg) || !errors.Is(err, ErrBad) {
		t.Errorf("encrypt: %v", err)
	}
	size := 32
	if s, ok := signing[alg]; ok {
		size = s.hash.Size()
	}
	d := make([]byte, size)
	sig, err := k.Sign(alg, d)
	if err != nil {
		if slices.Contains(k.signers(), alg) || !errors.Is(err, ErrBad) {
			t.Errorf("sign: %v", err)
		}
		return
	}
	if ok, err := k.Verify(alg, d, sig); !ok || err != nil {
		t.Errorf("verify: %v, %v", ok, err)
	}
	if ok, _ := other.Verify(alg, d, sig); ok {
		t.Error("another key's signature is taken")
	}
	sig[len(sig)/2] ^= 1
	if ok, _ := k.Verify(alg, d, sig); ok {
		t.Error("an altered signature is taken")
	}
	if _, err := k.Sign(alg, d[1:]); !errors.Is(err, ErrBad) {
		t.Errorf("a digest of the wrong size: %v", err)
	}
}

// GCM never takes an initialisation vector: two of the same betray the key.
func TestNoChosenNonce(t *testing.T) {
	k, err := Generate(Oct, "", 256)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Encrypt("A256GCM", Box{Value: []byte("x"), IV: make([]byte, 12)}); !errors.Is(err, ErrBad) {
		t.Errorf("a chosen IV: %v", err)
	}
	a, _ := k.Encrypt("A256GCM", Box{Value: []byte("x")})
	b, _ := k.Encrypt("A256GCM", Box{Value: []byte("x")})
	if slices.Equal(a.IV, b.IV) {
		t.Error("the same IV twice")
	}
}

// No way of printing a key shows what is private of it.
func TestKeysPrintNothing(t *testing.T) {
	for _, k := range every(t) {
		text, err := json.Marshal(k)
		if err != nil {
			t.Fatal(err)
		}
		raw, _ := k.Private()
		secret, _ := Bytes(raw).MarshalText()
		for _, s := range []string{fmt.Sprint(k), fmt.Sprintf("%+v", k), fmt.Sprintf("%#v", k), string(text)} {
			if strings.Contains(s, string(secret)) || strings.Contains(s, fmt.Sprint(raw)) || strings.Contains(s, "rsa:") {
				t.Errorf("a key prints as %q", s)
			}
		}
	}
}

// FuzzImport: no JSON makes the reader fall over, and what it takes is a key that
// works.
func FuzzImport(f *testing.F) {
	f.Add([]byte(`{"kty":"EC","crv":"P-256","d":"AQ"}`))
	f.Add([]byte(`{"kty":"EC","crv":"P-256K","d":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE"}`))
	f.Add([]byte(`{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAA"}`))
	f.Add([]byte(`{"kty":"RSA","n":"AQAB","e":"AQAB","d":"AQ","p":"AQ","q":"AQ"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var j JWK
		if json.Unmarshal(data, &j) != nil {
			return
		}
		k, err := j.Import()
		if err != nil {
			return
		}
		raw, err := k.Private()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Open(raw); err != nil {
			t.Fatal(err)
		}
	})
}
