// Package issuer verifies tokens of foreign OpenID issuers with the keys that those publish, and trusts nothing else they say.
package issuer

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"castellan/internal/arm"
)

// Limits of what an issuer may send, and of how often it is asked.
const (
	maxToken    = 16 << 10 // bytes of a token
	maxDocument = 256 << 10
	maxKeys     = 100
	maxIssuers  = 500 // whose keys are remembered at once
	minRSA      = 2048
	fetchTime   = 5 * time.Second // for discovery and keys together
	fresh       = time.Hour       // after this, keys are asked for again
	stale       = 24 * time.Hour  // after this, keys that can't be had again are not used
	floor       = time.Minute     // between two fetches, whoever asks and for whichever key
	fetches     = 4               // at the same time
)

// algorithms are those that a foreign token may be signed with: all of them
// with a private key that only the issuer has.
var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.ES256, jose.ES384}

// types are the typ that a foreign token may have.
var types = []string{"", "jwt", "at+jwt"}

// ErrToken is the cause of all errors that are the token's own fault. Its text
// never repeats what the token had.
var ErrToken = errors.New("the token is not valid")

// ErrFetch is the cause of errors about an issuer whose keys can't be had.
var ErrFetch = errors.New("the issuer's keys can't be had")

func bad(why string) error { return fmt.Errorf("%w: %s", ErrToken, why) }

// Keys has the keys of issuers. Use Open to make one.
type Keys struct {
	now    func() time.Time
	fetch  *fetcher
	pinned map[string]map[string]jose.JSONWebKey
	places chan struct{} // a place for each fetch under way

	mu      sync.Mutex // guards issuers
	issuers map[string]*known
}

// known is one issuer.
type known struct {
	turn  chan struct{} // held by whoever fetches
	mu    sync.Mutex    // guards the rest
	keys  map[string]jose.JSONWebKey
	got   time.Time // when keys were had
	asked time.Time // when they were last asked for
	err   error     // of that time
}

// Verify is the claims of a compact token that the issuer signed. The caller
// has found the issuer's name among those it trusts; the token can't choose it.
// Its other claims, times and audience among them, are for the caller to judge.
func (k *Keys) Verify(ctx context.Context, raw, issuer string) (map[string]any, error) {
	head, _, err := Unverified(raw)
	if err != nil {
		return nil, err
	}
	typ, _ := head["typ"].(string)
	alg, _ := head["alg"].(string)
	if _, given := head["typ"]; given && typ == "" || !slices.Contains(types, strings.ToLower(typ)) {
		return nil, bad("its typ is another")
	}
	if !slices.Contains(algorithms, jose.SignatureAlgorithm(alg)) {
		return nil, bad("its alg must be RS256, PS256, ES256 or ES384")
	}
	kid, _ := head["kid"].(string)
	key, err := k.key(ctx, issuer, kid)
	if err != nil {
		return nil, err
	}
	if key.Algorithm != "" && key.Algorithm != alg || !suits(key, alg) {
		return nil, bad("its alg is not its key's")
	}
	j, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
	if err != nil {
		return nil, bad("it is malformed")
	}
	payload, err := j.Verify(key.Key)
	if err != nil {
		return nil, bad("its signature does not verify")
	}
	claims, err := object(payload)
	if err != nil {
		return nil, err
	}
	if claims["iss"] != issuer {
		return nil, bad("its issuer is another")
	}
	return claims, nil
}

// suits reports whether a key is of the kind that alg signs with.
func suits(key jose.JSONWebKey, alg string) bool {
	switch p := key.Key.(type) {
	case *rsa.PublicKey:
		return alg == string(jose.RS256) || alg == string(jose.PS256)
	case *ecdsa.PublicKey:
		return alg == map[int]string{256: string(jose.ES256), 384: string(jose.ES384)}[p.Curve.Params().BitSize]
	}
	return false
}

// key is the issuer's key of exactly this name. Only a name that is not known
// makes the issuer be asked again, and not more often than once in floor.
func (k *Keys) key(ctx context.Context, issuer, kid string) (jose.JSONWebKey, error) {
	if list, ok := k.pinned[issuer]; ok {
		return pick(list, kid)
	}
	e := k.entry(issuer)
	keys, need, err := e.look(kid, k.now())
	if !need {
		if err != nil {
			return jose.JSONWebKey{}, err
		}
		return pick(keys, kid)
	}
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
		return jose.JSONWebKey{}, fmt.Errorf("%w: %w", ErrFetch, ctx.Err())
	}
	if keys, need, err = e.look(kid, k.now()); need { // nobody did it meanwhile
		keys, err = k.refresh(ctx, e, issuer)
	}
	if err != nil {
		return jose.JSONWebKey{}, err
	}
	return pick(keys, kid)
}

func pick(keys map[string]jose.JSONWebKey, kid string) (jose.JSONWebKey, error) {
	if key, ok := keys[kid]; ok && kid != "" {
		return key, nil
	}
	return jose.JSONWebKey{}, bad("its key is not one that the issuer publishes")
}

// look is what is known of the issuer, and whether it must be asked.
func (e *known) look(kid string, now time.Time) (keys map[string]jose.JSONWebKey, need bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	age := now.Sub(e.got)
	_, ok := e.keys[kid]
	if ok && age < fresh {
		return e.keys, false, nil
	}
	if now.Sub(e.asked) >= floor {
		return nil, true, nil
	}
	if e.keys == nil || age >= stale {
		return nil, false, e.err
	}
	return e.keys, false, nil
}

// refresh asks the issuer. Keys that it no longer publishes are gone at once;
// if it can't be reached, those from before serve until they are stale.
func (k *Keys) refresh(ctx context.Context, e *known, issuer string) (map[string]jose.JSONWebKey, error) {
	select {
	case k.places <- struct{}{}:
		defer func() { <-k.places }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrFetch, ctx.Err())
	}
	// The fetch is for all who ask, so it does not end with who asked first.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTime)
	defer cancel()
	keys, err := k.fetch.keys(ctx, issuer)
	now := k.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked = now
	if err == nil {
		e.keys, e.got, e.err = keys, now, nil
		return keys, nil
	}
	e.err = fmt.Errorf("%w: %w", ErrFetch, err)
	if e.keys == nil || now.Sub(e.got) >= stale {
		return nil, e.err
	}
	return e.keys, nil
}

// entry is the issuer's place. When there are too many, all make way: only
// names that an administrator wrote down come here, so that is rare.
func (k *Keys) entry(issuer string) *known {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e := k.issuers[issuer]; e != nil {
		return e
	}
	if len(k.issuers) >= maxIssuers {
		clear(k.issuers)
	}
	e := &known{turn: make(chan struct{}, 1)}
	k.issuers[issuer] = e
	return e
}

// Unverified reads a compact token's header and claims, which nobody vouches
// for yet: to find out which issuer to hold it against, and for nothing else.
func Unverified(raw string) (head, claims map[string]any, err error) {
	if len(raw) > maxToken {
		return nil, nil, bad("it is too long")
	}
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return nil, nil, bad("it does not have three parts")
	}
	var text [3][]byte
	for i, p := range parts {
		if text[i], err = base64.RawURLEncoding.Strict().DecodeString(p); err != nil || p == "" || strings.ContainsAny(p, "\r\n") {
			return nil, nil, bad("it is not base64url")
		}
	}
	if head, err = object(text[0]); err != nil {
		return nil, nil, err
	}
	if _, ok := head["crit"]; ok {
		return nil, nil, bad("it has critical headers")
	}
	claims, err = object(text[1])
	return head, claims, err
}

// object reads a JSON object in which no key stands twice.
func object(b []byte) (map[string]any, error) {
	tree, err := arm.ParseJSON(b)
	if err != nil {
		return nil, bad("it is not JSON")
	}
	m, ok := tree.(map[string]any)
	if !ok {
		return nil, bad("it is not a JSON object")
	}
	return m, nil
}

// keySet reads a JWKS: the public signing keys in it, by name. Keys of other
// kinds are passed over; a set with a secret or with two keys of one name is not taken.
func keySet(b []byte) (map[string]jose.JSONWebKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(b, &set); err != nil {
		return nil, errors.New("the key set is not JSON")
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("the key set has %d keys; at most %d are taken", len(set.Keys), maxKeys)
	}
	out := map[string]jose.JSONWebKey{}
	for _, raw := range set.Keys {
		var k jose.JSONWebKey
		if err := k.UnmarshalJSON(raw); err != nil {
			continue // of a kind that is not known here
		}
		if _, secret := k.Key.([]byte); secret || !k.IsPublic() {
			return nil, errors.New("the key set has a private or symmetric key")
		}
		if k.KeyID == "" || !k.Valid() || k.Use != "" && k.Use != "sig" || weak(k.Key) {
			continue
		}
		if _, twice := out[k.KeyID]; twice {
			return nil, errors.New("the key set has two keys of one name")
		}
		out[k.KeyID] = k
	}
	if len(out) == 0 {
		return nil, errors.New("the key set has no key that can be used: RSA of at least 2048 bits, P-256 or P-384, with a kid")
	}
	return out, nil
}

func weak(key any) bool {
	switch p := key.(type) {
	case *rsa.PublicKey:
		return p.N.BitLen() < minRSA
	case *ecdsa.PublicKey:
		return p.Curve.Params().BitSize < 256
	}
	return true
}
