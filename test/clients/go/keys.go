package main

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"math/big"
	"slices"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
)

// keys makes keys in the vault at url and holds what they do against Go's own
// cryptography.
func (r *run) keys(url string) {
	client := func(who azcore.TokenCredential) *azkeys.Client {
		c, err := azkeys.NewClient(url, who, &azkeys.ClientOptions{ClientOptions: r.opts})
		if err != nil {
			r.ok("azkeys: client", err)
		}
		return c
	}
	c := client(r.admin)
	if c == nil {
		return
	}
	r.rsaKey(c)
	r.ecKeys(c)
	r.octKey(c)
	r.imported(c)
	r.keyLife(c)
	for name, who := range map[string]azcore.TokenCredential{"a reader's": r.reader, "a stranger's": r.stranger} {
		theirs := client(who)
		_, err := theirs.GetKey(r.ctx, "rsa", "", nil)
		r.refused(name+" get of a key", err, "Forbidden")
		_, err = theirs.CreateKey(r.ctx, "rsa", azkeys.CreateKeyParameters{Kty: to.Ptr(azkeys.KeyTypeRSA)}, nil)
		r.refused(name+" new version of a key", err, "Forbidden")
		_, err = theirs.Sign(r.ctx, "rsa", "", azkeys.SignParameters{Algorithm: to.Ptr(azkeys.SignatureAlgorithmRS256), Value: make([]byte, 32)}, nil)
		r.refused(name+" signature", err, "Forbidden")
	}
}

func digest(h crypto.Hash, words string) []byte {
	switch h {
	case crypto.SHA384:
		d := sha512.Sum384([]byte(words))
		return d[:]
	case crypto.SHA512:
		d := sha512.Sum512([]byte(words))
		return d[:]
	}
	d := sha256.Sum256([]byte(words))
	return d[:]
}

func publicRSA(k *azkeys.JSONWebKey) *rsa.PublicKey {
	return &rsa.PublicKey{N: new(big.Int).SetBytes(k.N), E: int(new(big.Int).SetBytes(k.E).Int64())}
}

func (r *run) rsaKey(c *azkeys.Client) {
	made, err := c.CreateKey(r.ctx, "rsa", azkeys.CreateKeyParameters{Kty: to.Ptr(azkeys.KeyTypeRSA), KeySize: to.Ptr(int32(2048)), Tags: map[string]*string{"a": to.Ptr("b")}}, nil)
	if !r.ok("azkeys: create RSA", err) {
		return
	}
	pub, words := publicRSA(made.Key), []byte("words of 32 bytes, like some key")
	for alg, h := range map[azkeys.SignatureAlgorithm]crypto.Hash{
		azkeys.SignatureAlgorithmRS256: crypto.SHA256, azkeys.SignatureAlgorithmRS384: crypto.SHA384, azkeys.SignatureAlgorithmRS512: crypto.SHA512,
		azkeys.SignatureAlgorithmPS256: crypto.SHA256, azkeys.SignatureAlgorithmPS384: crypto.SHA384, azkeys.SignatureAlgorithmPS512: crypto.SHA512,
	} {
		d := digest(h, string(alg))
		signed, err := c.Sign(r.ctx, "rsa", made.Key.KID.Version(), azkeys.SignParameters{Algorithm: &alg, Value: d}, nil)
		if err == nil && alg[0] == 'P' {
			err = rsa.VerifyPSS(pub, h, d, signed.Result, nil)
		} else if err == nil {
			err = rsa.VerifyPKCS1v15(pub, h, d, signed.Result)
		}
		r.ok("azkeys: sign by "+string(alg)+", verified by Go", err)
		r.ok("azkeys: verify by "+string(alg), r.verified(c, "rsa", alg, d, signed.Result))
	}
	for alg, seal := range map[azkeys.EncryptionAlgorithm]func() ([]byte, error){
		azkeys.EncryptionAlgorithmRSAOAEP256: func() ([]byte, error) { return rsa.EncryptOAEP(sha256.New(), rand.Reader, pub, words, nil) },
		azkeys.EncryptionAlgorithmRSA15:      func() ([]byte, error) { return rsa.EncryptPKCS1v15(rand.Reader, pub, words) },
	} {
		sealed, err := seal()
		if err == nil {
			opened, e := c.Decrypt(r.ctx, "rsa", "", azkeys.KeyOperationParameters{Algorithm: &alg, Value: sealed}, nil)
			if err = e; err == nil {
				err = equal(string(opened.Result), string(words))
			}
		}
		r.ok("azkeys: decrypt by "+string(alg)+" what Go encrypted", err)
	}
	for _, alg := range []azkeys.EncryptionAlgorithm{azkeys.EncryptionAlgorithmRSAOAEP, azkeys.EncryptionAlgorithmRSAOAEP256} {
		r.ok("azkeys: wrap and unwrap by "+string(alg), r.wrapped(c, "rsa", alg, words))
	}
	_, err = c.Decrypt(r.ctx, "rsa", "", azkeys.KeyOperationParameters{Algorithm: to.Ptr(azkeys.EncryptionAlgorithmRSAOAEP256), Value: make([]byte, 256)}, nil)
	r.refused("what no key encrypted", err, "BadParameter")
}

// verified is an error unless the key verifies sig, and no longer once it is bent.
func (r *run) verified(c *azkeys.Client, name string, alg azkeys.SignatureAlgorithm, d, sig []byte) error {
	for i, want := range []bool{true, false} {
		if !want && len(sig) > 0 {
			sig = slices.Clone(sig)
			sig[len(sig)/2] ^= 1
		}
		said, err := c.Verify(r.ctx, name, "", azkeys.VerifyParameters{Algorithm: &alg, Digest: d, Signature: sig}, nil)
		if err != nil {
			return err
		}
		if value(said.Value) != want {
			return fmt.Errorf("look %d says %v", i, value(said.Value))
		}
	}
	return nil
}

func (r *run) wrapped(c *azkeys.Client, name string, alg azkeys.EncryptionAlgorithm, inner []byte) error {
	w, err := c.WrapKey(r.ctx, name, "", azkeys.KeyOperationParameters{Algorithm: &alg, Value: inner}, nil)
	if err != nil {
		return err
	}
	u, err := c.UnwrapKey(r.ctx, name, "", azkeys.KeyOperationParameters{Algorithm: &alg, Value: w.Result}, nil)
	if err != nil {
		return err
	}
	return equal(string(u.Result), string(inner))
}

func (r *run) ecKeys(c *azkeys.Client) {
	for _, x := range []struct {
		curve azkeys.CurveName
		is    elliptic.Curve
		alg   azkeys.SignatureAlgorithm
		hash  crypto.Hash
	}{
		{azkeys.CurveNameP256, elliptic.P256(), azkeys.SignatureAlgorithmES256, crypto.SHA256},
		{azkeys.CurveNameP384, elliptic.P384(), azkeys.SignatureAlgorithmES384, crypto.SHA384},
		{azkeys.CurveNameP521, elliptic.P521(), azkeys.SignatureAlgorithmES512, crypto.SHA512},
		{azkeys.CurveNameP256K, nil, azkeys.SignatureAlgorithmES256K, crypto.SHA256},
	} {
		name := "ec-" + string(x.curve)
		made, err := c.CreateKey(r.ctx, name, azkeys.CreateKeyParameters{Kty: to.Ptr(azkeys.KeyTypeEC), Curve: &x.curve}, nil)
		if !r.ok("azkeys: create EC "+string(x.curve), err) {
			continue
		}
		d := digest(x.hash, name)
		signed, err := c.Sign(r.ctx, name, "", azkeys.SignParameters{Algorithm: &x.alg, Value: d}, nil)
		if err == nil && x.is != nil {
			pub := &ecdsa.PublicKey{Curve: x.is, X: new(big.Int).SetBytes(made.Key.X), Y: new(big.Int).SetBytes(made.Key.Y)}
			n := len(signed.Result) / 2
			if !ecdsa.Verify(pub, d, new(big.Int).SetBytes(signed.Result[:n]), new(big.Int).SetBytes(signed.Result[n:])) {
				err = fmt.Errorf("it does not verify")
			}
		}
		r.ok("azkeys: sign by "+string(x.alg), err)
		r.ok("azkeys: verify by "+string(x.alg), r.verified(c, name, x.alg, d, signed.Result))
	}
	_, err := c.Encrypt(r.ctx, "ec-P-256", "", azkeys.KeyOperationParameters{Algorithm: to.Ptr(azkeys.EncryptionAlgorithmRSAOAEP), Value: []byte("x")}, nil)
	r.refused("encrypt by a key that signs", err, "KeyOperationForbidden", "Forbidden")
}

func (r *run) octKey(c *azkeys.Client) {
	_, err := c.CreateKey(r.ctx, "oct", azkeys.CreateKeyParameters{Kty: to.Ptr(azkeys.KeyTypeOct), KeySize: to.Ptr(int32(256))}, nil)
	r.ok("azkeys: create oct", err)
	words, extra := []byte("words"), []byte("beside")
	sealed, err := c.Encrypt(r.ctx, "oct", "", azkeys.KeyOperationParameters{Algorithm: to.Ptr(azkeys.EncryptionAlgorithmA256GCM), Value: words, AdditionalAuthenticatedData: extra}, nil)
	if err == nil {
		opened, e := c.Decrypt(r.ctx, "oct", "", azkeys.KeyOperationParameters{Algorithm: to.Ptr(azkeys.EncryptionAlgorithmA256GCM), Value: sealed.Result, IV: sealed.IV, AuthenticationTag: sealed.AuthenticationTag, AdditionalAuthenticatedData: extra}, nil)
		if err = e; err == nil {
			err = equal(string(opened.Result), string(words))
		}
	}
	r.ok("azkeys: encrypt and decrypt by A256GCM", err)
	r.ok("azkeys: wrap and unwrap by A256KW", r.wrapped(c, "oct", azkeys.EncryptionAlgorithmA256KW, make([]byte, 32)))
}

// imported brings keys of which this side has the private part too.
func (r *run) imported(c *azkeys.Client) {
	raw := []byte("0123456789abcdef0123456789abcdef")
	_, err := c.ImportKey(r.ctx, "brought-oct", azkeys.ImportKeyParameters{Key: &azkeys.JSONWebKey{Kty: to.Ptr(azkeys.KeyTypeOct), K: raw}}, nil)
	r.ok("azkeys: import oct", err)
	iv, plain := make([]byte, 16), []byte("sixteen bytes...")
	sealed, err := c.Encrypt(r.ctx, "brought-oct", "", azkeys.KeyOperationParameters{Algorithm: to.Ptr(azkeys.EncryptionAlgorithmA256CBC), Value: plain, IV: iv}, nil)
	if err == nil {
		b, e := aes.NewCipher(raw)
		if err = e; err == nil {
			want := make([]byte, 16)
			cipher.NewCBCEncrypter(b, iv).CryptBlocks(want, plain)
			err = equal(string(sealed.Result), string(want))
		}
	}
	r.ok("azkeys: A256CBC is Go's", err)

	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err == nil {
		_, err = c.ImportKey(r.ctx, "brought-rsa", azkeys.ImportKeyParameters{Key: &azkeys.JSONWebKey{
			Kty: to.Ptr(azkeys.KeyTypeRSA), N: k.N.Bytes(), E: big.NewInt(int64(k.E)).Bytes(), D: k.D.Bytes(), P: k.Primes[0].Bytes(), Q: k.Primes[1].Bytes(),
			DP: k.Precomputed.Dp.Bytes(), DQ: k.Precomputed.Dq.Bytes(), QI: k.Precomputed.Qinv.Bytes(),
		}}, nil)
	}
	r.ok("azkeys: import RSA", err)
	sealedKey, err := c.Encrypt(r.ctx, "brought-rsa", "", azkeys.KeyOperationParameters{Algorithm: to.Ptr(azkeys.EncryptionAlgorithmRSAOAEP256), Value: plain}, nil)
	if err == nil {
		opened, e := rsa.DecryptOAEP(sha256.New(), nil, k, sealedKey.Result, nil)
		if err = e; err == nil {
			err = equal(string(opened), string(plain))
		}
	}
	r.ok("azkeys: encrypt by RSA-OAEP-256, decrypted by Go", err)

	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err == nil {
		d, e1 := e.Bytes()
		pub, e2 := e.PublicKey.Bytes()
		if err = e1; err == nil {
			err = e2
		}
		if err == nil {
			_, err = c.ImportKey(r.ctx, "brought-ec", azkeys.ImportKeyParameters{Key: &azkeys.JSONWebKey{Kty: to.Ptr(azkeys.KeyTypeEC), Crv: to.Ptr(azkeys.CurveNameP256), D: d, X: pub[1:33], Y: pub[33:]}}, nil)
		}
	}
	r.ok("azkeys: import EC", err)
	d := digest(crypto.SHA256, "brought")
	R, S, err := ecdsa.Sign(rand.Reader, e, d)
	if err == nil {
		err = r.verified(c, "brought-ec", azkeys.SignatureAlgorithmES256, d, append(R.FillBytes(make([]byte, 32)), S.FillBytes(make([]byte, 32))...))
	}
	r.ok("azkeys: verify by ES256 what Go signed", err)
}

// keyLife lists, changes, rotates, saves, deletes and brings back a key.
func (r *run) keyLife(c *azkeys.Client) {
	policy := azkeys.KeyRotationPolicy{
		Attributes:      &azkeys.KeyRotationPolicyAttributes{ExpiryTime: to.Ptr("P90D")},
		LifetimeActions: []*azkeys.LifetimeAction{{Action: &azkeys.LifetimeActionType{Type: to.Ptr(azkeys.KeyRotationPolicyActionRotate)}, Trigger: &azkeys.LifetimeActionTrigger{TimeBeforeExpiry: to.Ptr("P30D")}}},
	}
	_, err := c.UpdateKeyRotationPolicy(r.ctx, "rsa", policy, nil)
	r.ok("azkeys: rotation policy update", err)
	got, err := c.GetKeyRotationPolicy(r.ctx, "rsa", nil)
	if err == nil && (got.Attributes == nil || value(got.Attributes.ExpiryTime) != "P90D" || len(got.LifetimeActions) != 1) {
		err = fmt.Errorf("it is %+v", got.KeyRotationPolicy)
	}
	r.ok("azkeys: rotation policy get", err)
	rotated, err := c.RotateKey(r.ctx, "rsa", nil)
	if err == nil && (rotated.Attributes == nil || rotated.Attributes.Expires == nil) {
		err = fmt.Errorf("the new version has no end")
	}
	r.ok("azkeys: rotate", err)
	_, err = c.UpdateKey(r.ctx, "rsa", "", azkeys.UpdateKeyParameters{KeyAttributes: &azkeys.KeyAttributes{Enabled: to.Ptr(false)}, Tags: map[string]*string{"c": to.Ptr("d")}}, nil)
	r.ok("azkeys: update", err)
	_, err = c.Sign(r.ctx, "rsa", "", azkeys.SignParameters{Algorithm: to.Ptr(azkeys.SignatureAlgorithmRS256), Value: make([]byte, 32)}, nil)
	r.refused("sign by a disabled key", err, "KeyDisabled", "Forbidden")
	_, err = c.Release(r.ctx, "rsa", rotated.Key.KID.Version(), azkeys.ReleaseParameters{TargetAttestationToken: to.Ptr("e30.e30.AA")}, nil)
	r.refused("release", err, "KeyNotExportable", "not exportable")
	names, versions := 0, 0
	for pages := c.NewListKeyPropertiesPager(nil); pages.More(); {
		page, e := pages.NextPage(r.ctx)
		if e != nil {
			break
		}
		names += len(page.Value)
	}
	for pages := c.NewListKeyPropertiesVersionsPager("rsa", nil); pages.More(); {
		page, e := pages.NextPage(r.ctx)
		if e != nil {
			break
		}
		versions += len(page.Value)
	}
	r.ok("azkeys: list of keys", equal(names, 9))
	r.ok("azkeys: list of versions", equal(versions, 2))
	saved, err := c.BackupKey(r.ctx, "rsa", nil)
	r.ok("azkeys: backup", err)
	_, err = c.DeleteKey(r.ctx, "rsa", nil)
	r.ok("azkeys: delete", err)
	_, err = c.GetKey(r.ctx, "rsa", "", nil)
	r.refused("get of the deleted key", err, "KeyNotFound")
	_, err = c.GetDeletedKey(r.ctx, "rsa", nil)
	r.ok("azkeys: the deleted key", err)
	_, err = c.RecoverDeletedKey(r.ctx, "rsa", nil)
	r.ok("azkeys: recover", err)
	if _, err = c.DeleteKey(r.ctx, "rsa", nil); err == nil {
		_, err = c.PurgeDeletedKey(r.ctx, "rsa", nil)
	}
	r.ok("azkeys: purge", err)
	_, err = c.GetDeletedKey(r.ctx, "rsa", nil)
	r.refused("get of the purged key", err, "KeyNotFound")
	back, err := c.RestoreKey(r.ctx, azkeys.RestoreKeyParameters{KeyBackup: saved.Value}, nil)
	if err == nil {
		err = equal(back.Key.KID.Version(), rotated.Key.KID.Version())
	}
	r.ok("azkeys: restore", err)
}
