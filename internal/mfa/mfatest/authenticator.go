// Package mfatest has a passkey's device for tests: it makes keys and signs with them as a browser's would.
package mfatest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
)

// Device holds one passkey. Its fields are for attacks: a device that lies.
type Device struct {
	Origin     string // of the page that asks
	Host       string // for which it signs
	Unverified bool   // the user was not verified
	Count      uint32 // of signatures; 0 does not count
	Handle     []byte // of the owner
	ID         []byte
	key        *ecdsa.PrivateKey
}

var b64 = base64.RawURLEncoding

// Copy is another device with the same key.
func (d *Device) Copy() *Device { c := *d; return &c }

// Create answers the options of a registration with a new passkey.
func (d *Device) Create(options []byte) ([]byte, error) {
	var o struct {
		Challenge string
		User      struct{ ID string }
	}
	if err := json.Unmarshal(options, &o); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	d.key, d.ID = key, make([]byte, 16)
	_, _ = rand.Read(d.ID) // never fails
	if d.Handle, err = b64.DecodeString(o.User.ID); err != nil {
		return nil, err
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	data := d.authData(0x40)
	data = append(data, make([]byte, 16)...) // AAGUID
	data = binary.BigEndian.AppendUint16(data, uint16(len(d.ID)))
	data = append(data, d.ID...)
	// COSE: a map of kty EC2, alg ES256, crv P-256, x, y.
	data = append(data, 0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 0x20)
	data = append(data, point[1:33]...)
	data = append(data, 0x22, 0x58, 0x20)
	data = append(data, point[33:]...)
	// CBOR: {"fmt": "none", "attStmt": {}, "authData": data}.
	object := append([]byte{0xa3, 0x63}, "fmt"...)
	object = append(append(object, 0x64), "none"...)
	object = append(append(append(object, 0x67), "attStmt"...), 0xa0, 0x68)
	object = append(append(object, "authData"...), 0x59)
	object = append(binary.BigEndian.AppendUint16(object, uint16(len(data))), data...)
	return d.answer(map[string]any{"attestationObject": b64.EncodeToString(object), "clientDataJSON": b64.EncodeToString(d.client("webauthn.create", o.Challenge)), "transports": []string{"internal"}})
}

// Get answers the options of a sign-in.
func (d *Device) Get(options []byte) ([]byte, error) {
	var o struct{ Challenge string }
	if err := json.Unmarshal(options, &o); err != nil {
		return nil, err
	}
	if d.Count > 0 {
		d.Count++
	}
	data, client := d.authData(0), d.client("webauthn.get", o.Challenge)
	hash := sha256.Sum256(client)
	sum := sha256.Sum256(append(append([]byte{}, data...), hash[:]...))
	sig, err := ecdsa.SignASN1(rand.Reader, d.key, sum[:])
	if err != nil {
		return nil, err
	}
	return d.answer(map[string]any{"authenticatorData": b64.EncodeToString(data), "clientDataJSON": b64.EncodeToString(client), "signature": b64.EncodeToString(sig), "userHandle": b64.EncodeToString(d.Handle)})
}

func (d *Device) authData(flags byte) []byte {
	sum := sha256.Sum256([]byte(d.Host))
	flags |= 0x01
	if !d.Unverified {
		flags |= 0x04
	}
	return binary.BigEndian.AppendUint32(append(sum[:], flags), d.Count)
}

func (d *Device) client(typ, challenge string) []byte {
	b, err := json.Marshal(map[string]any{"type": typ, "challenge": challenge, "origin": d.Origin, "crossOrigin": false})
	if err != nil {
		return nil // strings can be marshalled
	}
	return b
}

func (d *Device) answer(response map[string]any) ([]byte, error) {
	id := b64.EncodeToString(d.ID)
	return json.Marshal(map[string]any{"id": id, "rawId": id, "type": "public-key", "authenticatorAttachment": "platform", "clientExtensionResults": map[string]any{}, "response": response})
}
