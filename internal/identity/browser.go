package identity

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"time"
)

// A browser in which a person signed in before is known to be theirs. Its wrong
// guesses are counted apart from everybody's, so that a stranger who shuts a
// name by guessing does not shut out whom it belongs to. The cookie gives
// nothing else: it is no sign-in, and its own guesses have the same limit.
const (
	knownCookie  = "__Host-castellan-known"
	knownLife    = 180 * 24 * time.Hour
	knownContext = "known browser"
)

// knownBrowser is what the cookie says, sealed.
type knownBrowser struct {
	User, ID string
	Until    time.Time
}

// remember marks the browser as the person's, unless it is already.
func (s *Service) remember(w http.ResponseWriter, r *http.Request, u *User) error {
	if s.browserOf(r, u) != "" {
		return nil
	}
	b, err := json.Marshal(knownBrowser{u.ID, randomText(16), s.Now().Add(knownLife)})
	if err != nil {
		return err
	}
	http.SetCookie(w, &http.Cookie{Name: knownCookie, Value: base64.RawURLEncoding.EncodeToString(s.flows.Seal(b, knownContext)), Path: "/", Secure: true, HttpOnly: true,
		SameSite: http.SameSiteLaxMode, MaxAge: int(knownLife / time.Second)})
	return nil
}

// browserOf is the id of the browser if it is known to be the person's, or "".
func (s *Service) browserOf(r *http.Request, u *User) string {
	c, err := r.Cookie(knownCookie)
	if err != nil || u == nil {
		return ""
	}
	sealed, err := base64.RawURLEncoding.DecodeString(c.Value)
	if err != nil {
		return ""
	}
	b, err := s.flows.Open(sealed, knownContext)
	if err != nil {
		return ""
	}
	var k knownBrowser
	if json.Unmarshal(b, &k) != nil || k.User != u.ID || !s.Now().Before(k.Until) {
		return ""
	}
	return k.ID
}
