package identity

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"math/big"
	"sync"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"castellan/internal/arm"
	"castellan/internal/seal"
	"castellan/internal/store"
)

// class is what a signing key signs. A key signs and verifies one class only,
// and a token of one class is never taken for another.
type class string

const (
	accessClass class = "access"
	idClass     class = "id"
)

// classes are all of them, each with the typ that its tokens have.
var classes = map[class]string{accessClass: "at+jwt", idClass: "JWT"}

const (
	keyTable = "identity_keys"
	keyBits  = 2048
	// verifies is how long a key verifies after another took its place: longer
	// than any token lives.
	verifies = 2 * time.Hour
)

// keyState says what a key is used for.
type keyState string

const (
	nextKey    keyState = "next"    // published, so that others know it before it signs
	currentKey keyState = "current" // signs
	formerKey  keyState = "former"  // still verifies
)

// keyRow is a key as it is kept.
type keyRow struct {
	Class   class
	KID     string
	State   keyState
	Private []byte // PKCS #8, sealed
	Created time.Time
	Until   time.Time // when a former key stops to verify; zero: not by itself
}

// signingKey is a key in use. It is never altered.
type signingKey struct {
	keyRow
	public *rsa.PublicKey
	signer jose.Signer
}

// keyring has the keys of all classes.
type keyring struct {
	seal seal.Key
	turn sync.Mutex   // held by whoever rotates
	mu   sync.RWMutex // guards keys
	keys map[class]map[string]*signingKey
}

func newKeyring(root seal.Key) *keyring {
	return &keyring{seal: root.Derive("identity signing keys"), keys: map[class]map[string]*signingKey{accessClass: {}, idClass: {}}}
}

func (k *keyring) context(kid string) string { return "identity key " + kid }

// generate makes a key. It takes a while, so it is done outside transactions.
func (k *keyring) generate(c class, state keyState, now time.Time) (*signingKey, error) {
	private, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, fmt.Errorf("making a signing key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("making a signing key: %w", err)
	}
	sum, err := (&jose.JSONWebKey{Key: &private.PublicKey}).Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("naming a signing key: %w", err)
	}
	kid := base64.RawURLEncoding.EncodeToString(sum)
	return k.open(keyRow{Class: c, KID: kid, State: state, Private: k.seal.Seal(der, k.context(kid)), Created: now.UTC()})
}

// open makes a row usable.
func (k *keyring) open(r keyRow) (*signingKey, error) {
	der, err := k.seal.Open(r.Private, k.context(r.KID))
	if err != nil {
		return nil, fmt.Errorf("opening signing key %s: %w", r.KID, err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("opening signing key %s: %w", r.KID, err)
	}
	private, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("identity: signing key %s is a %T", r.KID, parsed)
	}
	opts := (&jose.SignerOptions{}).WithType(jose.ContentType(classes[r.Class])).WithHeader("kid", r.KID)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: private}, opts)
	if err != nil {
		return nil, fmt.Errorf("opening signing key %s: %w", r.KID, err)
	}
	return &signingKey{keyRow: r, public: &private.PublicKey, signer: signer}, nil
}

func (k *keyring) load(tx *store.Tx) error {
	rows, err := store.ScanJSON[keyRow](tx, keyTable, "", "", 0)
	if err != nil {
		return err
	}
	for _, r := range rows {
		key, err := k.open(r)
		if err != nil {
			return err
		}
		k.set(key)
	}
	return nil
}

func (k *keyring) set(key *signingKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys[key.Class][key.KID] = key
}

func (k *keyring) drop(c class, kid string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.keys[c], kid)
}

func (k *keyring) put(tx *store.Tx, key *signingKey) error {
	tx.After(func() { k.set(key) })
	return store.PutJSON(tx, keyTable, string(key.Class)+"|"+key.KID, key.keyRow)
}

// usable is the key of the class with exactly this kid, if it verifies at now.
func (k *keyring) usable(c class, kid string, now time.Time) *signingKey {
	k.mu.RLock()
	defer k.mu.RUnlock()
	key := k.keys[c][kid]
	if key == nil || !key.Until.IsZero() && now.After(key.Until) {
		return nil
	}
	return key
}

// in is the key of the class in a state, or nil.
func (k *keyring) in(c class, state keyState) *signingKey {
	k.mu.RLock()
	defer k.mu.RUnlock()
	for _, key := range k.keys[c] {
		if key.State == state {
			return key
		}
	}
	return nil
}

// all are the keys that verify at now, of both classes.
func (k *keyring) all(now time.Time) []*signingKey {
	k.mu.RLock()
	defer k.mu.RUnlock()
	var out []*signingKey
	for _, m := range k.keys {
		for _, key := range m {
			if key.Until.IsZero() || !now.After(key.Until) {
				out = append(out, key)
			}
		}
	}
	return out
}

// ensure makes the keys that are missing, all classes at once.
func (k *keyring) ensure(ctx context.Context, db *store.DB, now time.Time) error {
	made := make(chan error, len(classes))
	keys := make(chan *signingKey, len(classes))
	for c := range classes {
		go func() {
			if k.in(c, currentKey) != nil {
				made <- nil
				return
			}
			key, err := k.generate(c, currentKey, now)
			if err == nil {
				keys <- key
			}
			made <- err
		}()
	}
	for range classes {
		if err := <-made; err != nil {
			return err
		}
	}
	close(keys)
	return db.Do(ctx, func(tx *store.Tx) error {
		for key := range keys {
			if err := k.put(tx, key); err != nil {
				return err
			}
		}
		return nil
	})
}

// announce publishes a next key of each class that has none, so that whoever
// keeps the published keys for a while knows the one that will sign.
func (k *keyring) announce(ctx context.Context, db *store.DB, now time.Time) error {
	k.turn.Lock()
	defer k.turn.Unlock()
	for c := range classes {
		if k.in(c, nextKey) != nil {
			continue
		}
		key, err := k.generate(c, nextKey, now)
		if err != nil {
			return err
		}
		if err := db.Do(ctx, func(tx *store.Tx) error { return k.put(tx, key) }); err != nil {
			return err
		}
	}
	return nil
}

// prepared is a class's next keys: the one that will sign, and one after it.
func (k *keyring) prepared(c class, now time.Time) (next, after *signingKey, err error) {
	if next = k.in(c, nextKey); next == nil {
		if next, err = k.generate(c, nextKey, now); err != nil {
			return nil, nil, err
		}
	}
	after, err = k.generate(c, nextKey, now)
	return next, after, err
}

// rotate makes next the key that signs. The key that signed until now verifies
// a while longer, or until it is retired if retain is set.
func (k *keyring) rotate(tx *store.Tx, next, after *signingKey, now time.Time, retain bool) error {
	for _, old := range k.all(now) {
		if old.Class != next.Class || old.State != currentKey {
			continue
		}
		former := *old
		if former.State = formerKey; !retain {
			former.Until = now.Add(verifies).UTC()
		}
		if err := k.put(tx, &former); err != nil {
			return err
		}
	}
	signs := *next
	signs.State = currentKey
	if err := k.put(tx, &signs); err != nil {
		return err
	}
	return k.put(tx, after)
}

// retire ends a key at once: what it signed is dead.
func (k *keyring) retire(tx *store.Tx, c class, kid string) error {
	if kid == "" {
		return arm.Errorf(arm.BadRequest, "no key was named")
	}
	row, ok, err := store.GetJSON[keyRow](tx, keyTable, string(c)+"|"+kid)
	if err != nil {
		return err
	}
	if !ok {
		return arm.Errorf(arm.NotFound, "there is no %s key %q", c, kid)
	}
	if row.State == currentKey {
		return arm.Errorf(arm.Conflict, "the key %q signs; rotate first, so that another takes its place", kid)
	}
	tx.After(func() { k.drop(c, kid) })
	return tx.Delete(keyTable, string(c)+"|"+kid)
}

// publicJWK is a key as it is published.
func publicJWK(k *signingKey, issuer string) map[string]any {
	e := big.NewInt(int64(k.public.E)).Bytes()
	b := base64.RawURLEncoding
	return map[string]any{"kty": "RSA", "use": "sig", "alg": string(jose.RS256), "kid": k.KID, "n": b.EncodeToString(k.public.N.Bytes()), "e": b.EncodeToString(e), "issuer": issuer}
}
