package identity

import (
	"crypto/rsa"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	jose "github.com/go-jose/go-jose/v4"
)

// CRY-01: of Project Wycheproof's JWS vectors, those for RS256 are accepted
// where they must be and nowhere else, and those for other algorithms nowhere.
func TestWycheproof(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "..", "shared", "data", "wycheproof", "json_web_signature_test.json"))
	if err != nil {
		t.Skip("shared/data is absent, so the vectors are not held against")
	}
	var file struct {
		Groups []struct {
			Public, Private json.RawMessage
			Tests           []struct {
				ID      int    `json:"tcId"`
				Comment string `json:"comment"`
				JWS     any    `json:"jws"`
				Result  string `json:"result"`
			} `json:"tests"`
		} `json:"testGroups"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	accepted, refused := 0, 0
	for _, g := range file.Groups {
		raw := g.Public
		if raw == nil {
			raw = g.Private
		}
		var k jose.JSONWebKey
		if err := json.Unmarshal(raw, &k); err != nil {
			continue // no key that could sign a token
		}
		// Our keys are for RS256 and say so; a key of another kind is in no ring.
		public, _ := k.Public().Key.(*rsa.PublicKey)
		ours := public != nil && k.Algorithm == "RS256"
		for _, c := range g.Tests {
			jws, isText := c.JWS.(string)
			ok := isText && ours && verifies256(jws, public)
			want := ours && c.Result == "valid" && c.Comment != "emptyPayload" // a token has claims
			if ok && !want {
				t.Errorf("%d (%s, %s) is accepted", c.ID, c.Comment, k.Algorithm)
			}
			if !ok && want {
				t.Errorf("%d (%s) is refused", c.ID, c.Comment)
			}
			if ok {
				accepted++
			} else {
				refused++
			}
		}
	}
	if accepted == 0 {
		t.Error("nothing is accepted")
	}
	t.Logf("%d accepted, %d refused", accepted, refused)
}

// verifies256 is the part of verify that looks at a signature. The vectors'
// payloads are no claims, so that only this part can be held against them.
func verifies256(raw string, public *rsa.PublicKey) bool {
	head, err := header(raw)
	if err != nil || head["alg"] != string(jose.RS256) {
		return false
	}
	_, err = checked(raw, public)
	return err == nil
}
