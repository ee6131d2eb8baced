package identity

import (
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"castellan/internal/arm"
)

const (
	maxToken = 16 << 10         // bytes of a token that are looked at
	skew     = 30 * time.Second // how far clocks may be apart; 5 minutes at most are allowed
	longest  = 24 * time.Hour   // lifetime that no token of ours exceeds
)

// errToken is why a token is not taken. Its text never repeats what it had.
var errToken = errors.New("the token is not valid")

func badToken(why string) error { return fmt.Errorf("%w: %s", errToken, why) }

// sign makes a token of a class.
func (k *keyring) sign(c class, claims map[string]any) (string, error) {
	key := k.in(c, currentKey)
	if key == nil {
		return "", fmt.Errorf("identity: there is no %s key", c)
	}
	b, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("writing claims: %w", err)
	}
	j, err := key.signer.Sign(b)
	if err != nil {
		return "", fmt.Errorf("signing: %w", err)
	}
	return j.CompactSerialize()
}

// verify is the payload of a token of a class, and the key that signed it. The
// key is found by the class and the exact kid and settles the algorithm; what
// else the header says or brings along counts for nothing.
func (k *keyring) verify(c class, raw string, now time.Time) (map[string]any, *signingKey, error) {
	head, err := header(raw)
	if err != nil {
		return nil, nil, err
	}
	kid, _ := head["kid"].(string)
	key := k.usable(c, kid, now)
	if key == nil {
		return nil, nil, badToken("its key is unknown")
	}
	if head["alg"] != string(jose.RS256) || head["typ"] != classes[c] {
		return nil, nil, badToken("it is of another kind")
	}
	payload, err := checked(raw, key.public)
	if err != nil {
		return nil, nil, err
	}
	claims, err := object(payload)
	return claims, key, err
}

// checked is the payload of a compact token that the key signed with RS256.
func checked(raw string, key *rsa.PublicKey) ([]byte, error) {
	j, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return nil, badToken("it is malformed")
	}
	payload, err := j.Verify(key)
	if err != nil {
		return nil, badToken("its signature does not verify")
	}
	return payload, nil
}

// header is a compact token's header, once the token is spelt in the one way
// in which it can be: three parts of base64url without padding or spare bits.
func header(raw string) (map[string]any, error) {
	if len(raw) > maxToken {
		return nil, badToken("it is too long")
	}
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return nil, badToken("it does not have three parts")
	}
	var first []byte
	for i, p := range parts {
		b, err := strict(p)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			first = b
		}
	}
	head, err := object(first)
	if err != nil {
		return nil, err
	}
	if _, ok := head["crit"]; ok {
		return nil, badToken("it has critical headers")
	}
	return head, nil
}

// strict decodes base64url that has exactly one spelling.
func strict(s string) ([]byte, error) {
	if s == "" || strings.ContainsAny(s, "\r\n") {
		return nil, badToken("it is not base64url")
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, badToken("it is not base64url")
	}
	return b, nil
}

// object reads a JSON object in which no key stands twice.
func object(b []byte) (map[string]any, error) {
	tree, err := arm.ParseJSON(b)
	if err != nil {
		return nil, badToken("it is not JSON")
	}
	m, ok := tree.(map[string]any)
	if !ok {
		return nil, badToken("it is not a JSON object")
	}
	return m, nil
}

// seconds is a claim that must be a number of seconds (RFC 7519 section 2,
// NumericDate); a part of a second, which MSAL for Python sends, is dropped.
func seconds(m map[string]any, name string) (time.Time, error) {
	n, ok := m[name].(json.Number)
	if !ok {
		return time.Time{}, badToken(name + " is not a number")
	}
	v, err := strconv.ParseFloat(n.String(), 64)
	if err != nil || !(v >= 1 && v <= 1<<40) {
		return time.Time{}, badToken(name + " is out of range")
	}
	return time.Unix(int64(v), 0), nil
}

// timely holds exp, nbf and iat, all of which must be there, against now.
func timely(m map[string]any, now time.Time) (exp time.Time, err error) {
	if exp, err = seconds(m, "exp"); err != nil {
		return exp, err
	}
	nbf, err := seconds(m, "nbf")
	if err != nil {
		return exp, err
	}
	iat, err := seconds(m, "iat")
	switch {
	case err != nil:
		return exp, err
	case !now.Before(exp.Add(skew)):
		return exp, errExpired
	case now.Add(skew).Before(nbf) || now.Add(skew).Before(iat):
		return exp, badToken("it is not valid yet")
	case exp.Before(iat) || exp.Sub(iat) > longest:
		return exp, badToken("its lifetime is out of range")
	}
	return exp, nil
}

// errExpired is told apart because clients are told to sign in again.
var errExpired = badToken("it has expired")

func text(m map[string]any, name string) string {
	s, _ := m[name].(string)
	return s
}

// texts is a claim that is a list of strings; anything else in it is dropped.
func texts(m map[string]any, name string) []string {
	list, _ := m[name].([]any)
	var out []string
	for _, v := range list {
		if s, ok := v.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

func number(m map[string]any, name string) int {
	n, ok := m[name].(json.Number)
	if !ok {
		return -1
	}
	v, err := n.Int64()
	if err != nil {
		return -1
	}
	return int(v)
}
