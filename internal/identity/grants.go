package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"castellan/internal/access"
	"castellan/internal/store"
)

// Codes, refresh tokens, device codes and sessions are random text that says
// nothing; the store has a row under the hash of each. The row's class is part
// of what is hashed, so that one class is never taken for another.
const (
	grantTable = "identity_grants"
	userCodes  = "identity_user_codes" // hash of a user code to the key of its device code's row
)

type grantClass string

const (
	codeGrant    grantClass = "code"
	refreshGrant grantClass = "refresh"
	deviceGrant  grantClass = "device"
	sessionGrant grantClass = "session"
)

// How long each lives.
const (
	codeLife    = 5 * time.Minute
	deviceLife  = 15 * time.Minute
	sessionLife = 12 * time.Hour
	refreshLife = 90 * 24 * time.Hour
)

// grant is what an opaque token stands for.
type grant struct {
	Class                 grantClass
	Tenant, User, Client  string
	Family                string // of all that comes of one sign-in
	Epoch                 int    // the user's, when it was given
	Resource              string
	Scope                 string
	Redirect              string
	Challenge             string // PKCE, S256
	Nonce                 string
	Confidential          bool          // only the client with its credential may use it
	Kind                  access.Client // the kind of client that the person signed in with
	Proofs                access.Proofs // what the person showed in this sign-in
	Issued, Expires, Used time.Time
	State                 deviceState // of device codes
	UserCode              string      // hash of a device code's user code
	DeviceCode            bool        // the sign-in began with a device code
	SPA                   string      // origin of the page that the code was given to, if its client is one
	Demand                demand      // what codes and device codes were asked for
}

// kind is the kind of client that a person signed in with.
func (g grant) kind() access.Client {
	switch {
	case g.Kind != "":
		return g.Kind
	case g.Confidential: // rows of old say no more
		return access.Browser
	}
	return access.Native
}

// keyedGrant is a grant with the key that it lies under.
type keyedGrant struct {
	grant
	Key string
}

// grantKey is where the grant that raw stands for lies.
func grantKey(c grantClass, raw string) string {
	sum := sha256.Sum256([]byte(string(c) + "|" + raw))
	return string(c) + "|" + hex.EncodeToString(sum[:])
}

// newGrant keeps g and returns the text that stands for it.
func newGrant(tx *store.Tx, g grant) (string, error) {
	raw := randomText(48)
	key := grantKey(g.Class, raw)
	return raw, store.PutJSON(tx, grantTable, key, keyedGrant{g, key})
}

func putGrant(tx *store.Tx, g keyedGrant) error { return store.PutJSON(tx, grantTable, g.Key, g) }

// loadGrant is the grant that raw stands for, as long as it lasts.
func loadGrant(tx *store.Tx, c grantClass, raw string, now time.Time) (keyedGrant, bool, error) {
	g, ok, err := store.GetJSON[keyedGrant](tx, grantTable, grantKey(c, raw))
	if err != nil || !ok || g.Class != c || !now.Before(g.Expires) {
		return keyedGrant{}, false, err
	}
	return g, true, nil
}

// alive says whether the person who signed in still may, and none of what came
// of the sign-in was stolen.
func (s *Service) alive(tx *store.Tx, g grant) (*User, error) {
	u, ok, err := fetch[*User](tx, g.Tenant, "user", g.User)
	if err != nil {
		return nil, err
	}
	gone, err := tx.Get(revokedTable, g.Family)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, problemf(50034, "invalid_grant", "The user account does not exist in the directory.")
	case u.Disabled:
		return nil, problemf(50057, "invalid_grant", "The user account is disabled.")
	case gone != nil:
		return nil, problemf(50173, "invalid_grant", "The provided grant has been revoked. The user must sign in again.")
	case u.Epoch != g.Epoch:
		return nil, problemf(50173, "invalid_grant", "The provided grant has expired due to it being revoked; a fresh auth token is needed. The user might have changed or reset their password.")
	}
	return u, nil
}

// redeem uses a grant that may be used once. A second use means that somebody
// else has it too: then everything that came of the sign-in ends. Requests that
// came in before the first use was done are no second use; they are only refused.
func (s *Service) redeem(tx *store.Tx, c grantClass, raw string, arrived time.Time) (g keyedGrant, replayed bool, err error) {
	now := s.Now()
	g, ok, err := loadGrant(tx, c, raw, now)
	if err != nil {
		return g, false, err
	}
	if !ok {
		return g, false, problemf(expiredNumber[c], "invalid_grant", "The provided authorization code or refresh token is not valid, or has expired.")
	}
	if g.Used.IsZero() {
		g.Used = now
		return g, false, putGrant(tx, g)
	}
	if arrived.After(g.Used) {
		return g, true, s.revoked.revoke(tx, g.Family, now)
	}
	return g, false, problemf(54005, "invalid_grant", "OAuth2 authorization code or refresh token was already redeemed, please retry with a new valid one or use an existing token.")
}

var expiredNumber = map[grantClass]int{codeGrant: 70008, refreshGrant: 700082, deviceGrant: 70020}

// hint is the start of a secret, by which people tell secrets apart.
func hint(secret string) string { return strings.ToValidUTF8(secret[:min(3, len(secret))], "") }
