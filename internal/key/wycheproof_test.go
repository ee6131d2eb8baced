package key

import (
	"crypto"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// hexed are bytes in hexadecimal.
type hexed []byte

func (h *hexed) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}

// vectors is a file of them, as far as it is looked at.
type vectors struct {
	Groups []struct {
		Private JWK `json:"privateKeyJwk"`
		EC      struct {
			Curve string `json:"curve"`
			Point hexed  `json:"uncompressed"`
		} `json:"publicKey"`
		Sha   string `json:"sha"`
		IV    int    `json:"ivSize"`
		Tag   int    `json:"tagSize"`
		Tests []struct {
			ID      int    `json:"tcId"`
			Comment string `json:"comment"`
			Result  string `json:"result"`
			Key     hexed  `json:"key"`
			IV      hexed  `json:"iv"`
			AAD     hexed  `json:"aad"`
			Msg     hexed  `json:"msg"`
			CT      hexed  `json:"ct"`
			Tag     hexed  `json:"tag"`
			Sig     hexed  `json:"sig"`
			Label   hexed  `json:"label"`
		} `json:"tests"`
	} `json:"testGroups"`
}

// modulus is the public key of a group of RSA signatures.
type modulus struct {
	Groups []struct {
		Public struct {
			N hexed `json:"modulus"`
			E hexed `json:"publicExponent"`
		} `json:"publicKey"`
	} `json:"testGroups"`
}

const vectorDir = "../../../shared/data/wycheproof"

func load(t *testing.T, name string, into any) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(vectorDir, name))
	if os.IsNotExist(err) {
		t.Skip("shared/data is absent")
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

var hashes = map[string]crypto.Hash{"SHA-256": crypto.SHA256, "SHA-384": crypto.SHA384, "SHA-512": crypto.SHA512}

func digest(t *testing.T, sha string, msg []byte) []byte {
	t.Helper()
	h, ok := hashes[sha]
	if !ok {
		t.Fatalf("there is no hash %s", sha)
	}
	d := h.New()
	d.Write(msg)
	return d.Sum(nil)
}

// Signatures that are none are refused, and those that are taken.
func TestWycheproofSignatures(t *testing.T) {
	for file, alg := range map[string]string{
		"ecdsa_secp256r1_sha256_p1363_test.json": "ES256", "ecdsa_secp384r1_sha384_p1363_test.json": "ES384",
		"ecdsa_secp521r1_sha512_p1363_test.json": "ES512", "ecdsa_secp256k1_sha256_p1363_test.json": "ES256K",
		"rsa_pss_2048_sha256_mgf1_32_test.json": "PS256", "rsa_pss_2048_sha384_mgf1_48_test.json": "PS384",
		"rsa_pss_3072_sha256_mgf1_32_test.json": "PS256", "rsa_pss_4096_sha256_mgf1_32_test.json": "PS256",
		"rsa_signature_2048_sha256_test.json": "RS256", "rsa_signature_2048_sha384_test.json": "RS384", "rsa_signature_2048_sha512_test.json": "RS512",
		"rsa_signature_3072_sha256_test.json": "RS256", "rsa_signature_4096_sha256_test.json": "RS256",
	} {
		t.Run(file, func(t *testing.T) {
			var v vectors
			var m modulus
			load(t, file, &v)
			load(t, file, &m)
			seen := 0
			for i, g := range v.Groups {
				p := Public{Type: RSA, N: Bytes(trim(m.Groups[i].Public.N)), E: Bytes(m.Groups[i].Public.E)}
				if n := len(g.EC.Point); n > 0 {
					p = Public{Type: EC, Curve: signing[alg].curve, X: Bytes(g.EC.Point[1 : 1+n/2]), Y: Bytes(g.EC.Point[1+n/2:])}
				}
				for _, c := range g.Tests {
					seen++
					ok, err := p.Verify(alg, digest(t, g.Sha, c.Msg), c.Sig)
					if err != nil {
						t.Errorf("%d: %v", c.ID, err)
					}
					if ok && c.Result == "invalid" || !ok && c.Result == "valid" {
						t.Errorf("%d (%s) is %s, and Verify says %v", c.ID, c.Comment, c.Result, ok)
					}
				}
			}
			if seen < 50 {
				t.Errorf("only %d vectors were looked at", seen)
			}
		})
	}
}

func trim(b []byte) []byte {
	for len(b) > 0 && b[0] == 0 {
		b = b[1:]
	}
	return b
}

// What is encrypted by RSA opens if it is right, and only then.
func TestWycheproofRSA(t *testing.T) {
	for file, alg := range map[string]string{
		"rsa_oaep_2048_sha1_mgf1sha1_test.json": "RSA-OAEP", "rsa_oaep_2048_sha256_mgf1sha256_test.json": "RSA-OAEP-256",
		"rsa_oaep_3072_sha256_mgf1sha256_test.json": "RSA-OAEP-256", "rsa_oaep_4096_sha256_mgf1sha256_test.json": "RSA-OAEP-256",
		"rsa_pkcs1_2048_test.json": "RSA1_5",
	} {
		t.Run(file, func(t *testing.T) {
			var v vectors
			load(t, file, &v)
			seen := 0
			for _, g := range v.Groups {
				if g.Private.Type == "" {
					continue // a key that no JSON Web Key says
				}
				k, err := g.Private.Import()
				if err != nil {
					t.Errorf("the key of a group: %v", err)
					continue
				}
				for _, c := range g.Tests {
					if len(c.Label) > 0 {
						continue // labels are no part of JSON Web Algorithms
					}
					seen++
					for _, open := range []func() ([]byte, error){
						func() ([]byte, error) { return k.Unwrap(alg, c.CT) },
						func() ([]byte, error) { return k.Decrypt(alg, Box{Value: []byte(c.CT)}) },
					} {
						got, err := open()
						if c.Result == "valid" && (err != nil || !slices.Equal(got, c.Msg)) || c.Result == "invalid" && err == nil {
							t.Errorf("%d (%s) is %s, and gives %x, %v", c.ID, c.Comment, c.Result, got, err)
						}
					}
				}
			}
			if seen < 15 {
				t.Errorf("only %d vectors were looked at", seen)
			}
		})
	}
}

// AES wraps and seals as it must.
func TestWycheproofAES(t *testing.T) {
	var wrap, gcm vectors
	load(t, "aes_wrap_test.json", &wrap)
	load(t, "aes_gcm_test.json", &gcm)
	for _, g := range wrap.Groups {
		for _, c := range g.Tests {
			k := ofOct(c.Key)
			alg := k.ciphers(true)[0]
			got, err := k.Unwrap(alg, c.CT)
			if c.Result == "valid" && (err != nil || !slices.Equal(got, c.Msg)) || c.Result != "valid" && err == nil {
				t.Errorf("unwrap %d (%s) is %s, and gives %x, %v", c.ID, c.Comment, c.Result, got, err)
			}
			if c.Result != "valid" {
				continue
			}
			if got, err := k.Wrap(alg, c.Msg); err != nil || !slices.Equal(got, c.CT) {
				t.Errorf("wrap %d gives %x, %v", c.ID, got, err)
			}
		}
	}
	for _, g := range gcm.Groups {
		for _, c := range g.Tests {
			k := ofOct(c.Key)
			got, err := k.Decrypt(k.ciphers(false)[0], Box{Value: c.CT, IV: c.IV, Tag: c.Tag, Extra: c.AAD})
			odd := g.IV != 96 || g.Tag != 128 // sizes that are refused here
			if c.Result == "valid" && !odd && (err != nil || !slices.Equal(got, c.Msg)) || (c.Result != "valid" || odd) && err == nil {
				t.Errorf("gcm %d (%s) is %s, and gives %x, %v", c.ID, c.Comment, c.Result, got, err)
			}
		}
	}
}
