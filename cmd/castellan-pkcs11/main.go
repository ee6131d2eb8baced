//go:build cgo

// Command castellan-pkcs11 has a key of a PKCS #11 token wrap or unwrap one key. It
// is castellan's helper: a request comes by standard input, an answer goes to
// standard output. Only this program loads the token's library and knows its PIN.
package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/big"
	"os"
	"slices"
	"strconv"
	"syscall"

	ours "castellan/internal/pkcs11"

	"github.com/miekg/pkcs11"
)

func main() {
	_ = syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}) // a core would have the key; where this is forbidden all goes on
	a, err := run(os.Stdin)
	if err != nil {
		a = ours.Answer{Error: err.Error()}
	}
	if err := json.NewEncoder(os.Stdout).Encode(a); err != nil {
		os.Exit(1) // nobody reads it
	}
}

func run(in io.Reader) (a ours.Answer, err error) {
	var r ours.Request
	if err := json.NewDecoder(io.LimitReader(in, 64<<10)).Decode(&r); err != nil {
		return a, fmt.Errorf("reading the request: %w", err)
	}
	u, err := ours.Parse(r.URI)
	if err != nil {
		return a, err
	}
	k, err := open(u)
	if err != nil {
		return a, err
	}
	defer k.close()
	if r.Wrapped != nil {
		a.Plain, err = k.unwrap(*r.Wrapped)
		return a, err
	}
	w, err := k.wrap(r.Plain)
	return ours.Answer{Wrapped: &w}, err
}

// tokenKey is a key in a token whose user is logged in.
type tokenKey struct {
	*pkcs11.Ctx
	session pkcs11.SessionHandle
	object  pkcs11.ObjectHandle
	public  *rsa.PublicKey // nil of an AES key
}

func open(u ours.URI) (_ *tokenKey, err error) {
	k := &tokenKey{Ctx: pkcs11.New(u.Module)}
	if k.Ctx == nil {
		return nil, fmt.Errorf("the token's library %s can't be loaded", u.Module)
	}
	if err := k.Initialize(); err != nil {
		return nil, fmt.Errorf("starting the token's library: %w", err)
	}
	defer func() {
		if err != nil {
			k.close()
		}
	}()
	slot, err := k.slot(u)
	if err != nil {
		return nil, err
	}
	pin, err := u.PIN()
	if err != nil {
		return nil, err
	}
	if k.session, err = k.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION); err != nil {
		return nil, fmt.Errorf("opening a session with the token: %w", err)
	}
	if err := k.Login(k.session, pkcs11.CKU_USER, pin); err != nil { // once: tokens count
		return nil, fmt.Errorf("logging in to the token: %w", err)
	}
	return k, k.find(u)
}

func (k *tokenKey) close() {
	_ = k.Finalize() // ends sessions and logins; the process ends next
	k.Destroy()
}

// slot is where the one token is that u names.
func (k *tokenKey) slot(u ours.URI) (uint, error) {
	slots, err := k.GetSlotList(true)
	if err != nil {
		return 0, fmt.Errorf("listing the tokens: %w", err)
	}
	var found []uint
	for _, s := range slots {
		t, err := k.GetTokenInfo(s)
		if err != nil {
			continue // taken out just now
		}
		has := map[string]string{"token": t.Label, "serial": t.SerialNumber, "manufacturer": t.ManufacturerID, "model": t.Model, "slot-id": strconv.FormatUint(uint64(s), 10)}
		if t.Flags&pkcs11.CKF_TOKEN_INITIALIZED != 0 && !slices.ContainsFunc([]string{"token", "serial", "manufacturer", "model", "slot-id"}, func(name string) bool { return u.Attrs[name] != "" && u.Attrs[name] != has[name] }) {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		return 0, fmt.Errorf("%d tokens are as the URI says; it must be one (serial= tells tokens of one label apart)", len(found))
	}
	return found[0], nil
}

// find looks for the one key that u names, and refuses what could leave the token.
func (k *tokenKey) find(u ours.URI) error {
	var found []pkcs11.ObjectHandle
	var class uint
	for typ, c := range map[string]uint{"secret-key": pkcs11.CKO_SECRET_KEY, "private": pkcs11.CKO_PRIVATE_KEY} {
		if want := u.Attrs["type"]; want != "" && want != typ {
			continue
		}
		like := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, c), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true)}
		if v := u.Attrs["object"]; v != "" {
			like = append(like, pkcs11.NewAttribute(pkcs11.CKA_LABEL, v))
		}
		if v := u.Attrs["id"]; v != "" {
			like = append(like, pkcs11.NewAttribute(pkcs11.CKA_ID, []byte(v)))
		}
		if err := k.FindObjectsInit(k.session, like); err != nil {
			return fmt.Errorf("looking for the key: %w", err)
		}
		some, _, err := k.FindObjects(k.session, 2)
		if err := errors.Join(err, k.FindObjectsFinal(k.session)); err != nil {
			return fmt.Errorf("looking for the key: %w", err)
		}
		if len(some) > 0 {
			found, class = append(found, some...), c
		}
	}
	if len(found) != 1 {
		return fmt.Errorf("%d keys of the token are as the URI says; it must be one (id= tells keys of one label apart)", len(found))
	}
	k.object = found[0]
	if !k.is(pkcs11.CKA_SENSITIVE, true) || !k.is(pkcs11.CKA_EXTRACTABLE, false) {
		return errors.New("the key can be taken out of the token; it must be sensitive and not extractable")
	}
	if class == pkcs11.CKO_PRIVATE_KEY {
		return k.findPublic()
	}
	if !k.has(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES) || !k.has(pkcs11.CKA_VALUE_LEN, 32) {
		return errors.New("the key is none of AES with 256 bits")
	}
	return nil
}

func (k *tokenKey) value(typ uint) []byte {
	a, err := k.GetAttributeValue(k.session, k.object, []*pkcs11.Attribute{pkcs11.NewAttribute(typ, nil)})
	if err != nil || len(a) != 1 {
		return nil
	}
	return a[0].Value
}

func (k *tokenKey) is(typ uint, want bool) bool {
	return slices.Equal(k.value(typ), pkcs11.NewAttribute(typ, want).Value)
}

func (k *tokenKey) has(typ, want uint) bool {
	return slices.Equal(k.value(typ), pkcs11.NewAttribute(typ, want).Value)
}

// findPublic is the other half of an RSA key.
func (k *tokenKey) findPublic() error {
	n, e := new(big.Int).SetBytes(k.value(pkcs11.CKA_MODULUS)), new(big.Int).SetBytes(k.value(pkcs11.CKA_PUBLIC_EXPONENT))
	if !k.has(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA) || n.BitLen() < 2048 || e.BitLen() > 31 {
		return errors.New("the key is none of RSA with 2048 bits or more")
	}
	k.public = &rsa.PublicKey{N: n, E: int(e.Int64())}
	return nil
}

// oaep are the ways of RSA, the better first.
var oaep = []struct {
	name           string
	hash           func() hash.Hash
	algorithm, mgf uint
}{
	{ours.OAEP256, sha256.New, pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256},
	{ours.OAEP1, sha1.New, pkcs11.CKM_SHA_1, pkcs11.CKG_MGF1_SHA1},
}

func (k *tokenKey) wrap(plain []byte) (w ours.Wrapped, err error) {
	if k.public == nil {
		return k.wrapAES(plain)
	}
	for _, way := range oaep {
		w.Algorithm = way.name
		if w.Data, err = rsa.EncryptOAEP(way.hash(), rand.Reader, k.public, plain, nil); err != nil {
			return w, err
		}
		if _, err = k.unwrap(w); err == nil {
			return w, nil
		}
	}
	return w, err
}

func (k *tokenKey) wrapAES(plain []byte) (ours.Wrapped, error) {
	iv := make([]byte, 12)
	_, _ = rand.Read(iv) // never fails
	p := pkcs11.NewGCMParams(iv, []byte(ours.Label), 128)
	defer p.Free()
	if err := k.EncryptInit(k.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, p)}, k.object); err != nil {
		return ours.Wrapped{}, fmt.Errorf("wrapping by the token's key: %w", err)
	}
	data, err := k.Encrypt(k.session, plain)
	if err != nil {
		return ours.Wrapped{}, fmt.Errorf("wrapping by the token's key: %w", err)
	}
	return ours.Wrapped{Algorithm: ours.AESGCM, IV: p.IV(), Data: data}, nil // the token may have taken another nonce
}

func (k *tokenKey) unwrap(w ours.Wrapped) ([]byte, error) {
	var m *pkcs11.Mechanism
	if w.Algorithm == ours.AESGCM && k.public == nil {
		p := pkcs11.NewGCMParams(w.IV, []byte(ours.Label), 128)
		defer p.Free()
		m = pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, p)
	}
	for _, way := range oaep {
		if w.Algorithm == way.name && k.public != nil {
			m = pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_OAEP, pkcs11.NewOAEPParams(way.algorithm, way.mgf, pkcs11.CKZ_DATA_SPECIFIED, nil))
		}
	}
	if m == nil {
		return nil, fmt.Errorf("a key of another kind than the token's wrapped this (%s)", w.Algorithm)
	}
	err := k.DecryptInit(k.session, []*pkcs11.Mechanism{m}, k.object)
	if err != nil {
		return nil, fmt.Errorf("unwrapping by the token's key: %w", err)
	}
	plain, err := k.Decrypt(k.session, w.Data)
	if err != nil {
		return nil, fmt.Errorf("unwrapping by the token's key (is it the key that wrapped this?): %w", err)
	}
	return plain, nil
}
