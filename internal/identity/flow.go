package identity

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"time"

	"castellan/internal/access"
	"castellan/internal/arm"
	"castellan/internal/store"
)

// A flow is a sign-in under way at the pages. It lies with the browser, sealed,
// in a hidden field, bound to a cookie of the same browser: that is what keeps
// another site from filling in our forms (CSRF), and one person from ending up
// in another's sign-in. Nothing is kept on the server until somebody signed in.
type flow struct {
	Expires time.Time
	Bind    []byte     // hash of the browser's flow cookie
	Step    string     // which form this is for
	Tenant  string     // as in the path
	V1      bool       // of the authorize endpoint
	Query   url.Values // the authorize request; nil for a device's sign-in
	Code    string     // user code, once it is known, of a device's sign-in
	User    string     // who proved the password, when it must be changed
	Epoch   int
}

const (
	flowCookie    = "__Host-castellan-flow"
	sessionCookie = "__Host-castellan-session"
	flowLife      = 15 * time.Minute
	flowContext   = "sign-in flow"
)

func bindOf(cookie string) []byte {
	sum := sha256.Sum256([]byte("flow|" + cookie))
	return sum[:]
}

// bind is the hash of the browser's flow cookie, which it gets if it has none.
func (s *Service) bind(w http.ResponseWriter, r *http.Request) []byte {
	if c, err := r.Cookie(flowCookie); err == nil && len(c.Value) == 43 {
		return bindOf(c.Value)
	}
	raw := randomText(32)
	http.SetCookie(w, &http.Cookie{Name: flowCookie, Value: raw, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	return bindOf(raw)
}

// seal is the flow as the form carries it.
func (s *Service) seal(f flow) (string, error) {
	f.Expires = s.Now().Add(flowLife)
	b, err := json.Marshal(f)
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(s.flows.Seal(b, flowContext)), nil
}

// errFlow is shown when a form does not belong to the browser that sends it.
var errFlow = problemf(165000, "invalid_request", "This sign-in page is out of date or was opened in another browser. Go back to the application and start again.")

// unseal is the flow that a form brings back, if it came from this browser and
// from our own page.
func (s *Service) unseal(r *http.Request, form url.Values, step string) (f flow, err error) {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
		return f, errFlow
	}
	if o := r.Header.Get("Origin"); o != "" && o != s.base(r) && o != s.Site.Base() {
		return f, errFlow
	}
	c, err := r.Cookie(flowCookie)
	if err != nil {
		return f, errFlow
	}
	sealed, err := base64.RawURLEncoding.DecodeString(form.Get("ctx"))
	if err != nil {
		return f, errFlow
	}
	b, err := s.flows.Open(sealed, flowContext)
	if err != nil {
		return f, errFlow
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return f, err
	}
	if f.Step != step || !s.Now().Before(f.Expires) || subtle.ConstantTimeCompare(f.Bind, bindOf(c.Value)) != 1 {
		return f, errFlow
	}
	return f, nil
}

// session is the person who is signed in at this browser, if anybody is.
func (s *Service) session(r *http.Request) (u *User, g keyedGrant, ok bool) {
	c, err := r.Cookie(sessionCookie)
	if err != nil {
		return nil, g, false
	}
	err = s.DB.View(r.Context(), func(tx *store.Tx) (err error) {
		if g, ok, err = loadGrant(tx, sessionGrant, c.Value, s.Now()); err != nil || !ok {
			return err
		}
		u, err = s.alive(tx, g.grant)
		return err
	})
	if err != nil || !ok || u.MustChange {
		return nil, keyedGrant{}, false
	}
	return u, g, true
}

// beginSession signs a person in at this browser. The session is always a new
// one, whatever cookie the browser brought.
func (s *Service) beginSession(w http.ResponseWriter, r *http.Request, u *User, p access.Proofs) (keyedGrant, error) {
	now := s.Now()
	g := grant{Class: sessionGrant, Tenant: u.Tenant, User: u.ID, Epoch: u.Epoch, Family: arm.NewUUID(), Proofs: p, Issued: now, Expires: now.Add(sessionLife)}
	raw := ""
	err := s.DB.Do(r.Context(), func(tx *store.Tx) (err error) {
		raw, err = newGrant(tx, g)
		return err
	})
	if err != nil {
		return keyedGrant{}, err
	}
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Value: raw, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	return keyedGrant{g, grantKey(sessionGrant, raw)}, nil
}

// endSession signs the browser out.
func (s *Service) endSession(w http.ResponseWriter, r *http.Request) error {
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: -1})
	c, err := r.Cookie(sessionCookie)
	if err != nil {
		return nil // nobody was signed in
	}
	return s.DB.Do(r.Context(), func(tx *store.Tx) error { return tx.Delete(grantTable, grantKey(sessionGrant, c.Value)) })
}
