package identity

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"castellan/internal/access"
	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// A flow is a sign-in under way at the pages. It lies with the browser, sealed,
// in a hidden field, bound to a cookie of the same browser: that is what keeps
// another site from filling in our forms (CSRF), and one person from ending up
// in another's sign-in. Nothing is kept on the server until somebody signed in.
type flow struct {
	Expires time.Time
	Began   time.Time
	Bind    []byte     // hash of the browser's flow cookie
	Step    step       // which form this is for
	Goal    goal       // what follows once the person is signed in
	Tenant  string     // as in the path
	V1      bool       // of the authorize endpoint
	Query   url.Values // the authorize request; nil for other goals
	Code    string     // user code, once it is known, of a device's sign-in
	User    string     // who showed Proofs
	Epoch   int
	Proofs  access.Proofs
	From    string // key of the session that this builds upon, which must last
	Anew    bool   // what the person showed before is too old
	Asked   []byte // what a passkey was asked
	Secret  []byte // of an authenticator app that is being added
	Back    string // where to go after signing out
	State   string // to take there
}

// step is one kind of form.
type step string

const (
	stepAccount  step = "account"
	stepPassword step = "password"
	stepChange   step = "change"
	stepFactor   step = "factor"
	stepPasskey  step = "passkey"
	stepEnrol    step = "enrol"
	stepApp      step = "app"
	stepKey      step = "key"
	stepCodes    step = "codes"
	stepDevice   step = "device"
	stepConfirm  step = "confirm"
	stepLogout   step = "logout"
	stepConsent  step = "consent"
	stepAway     step = "away" // at another provider: no form of ours
	stepSecurity step = "security"
	stepOwn      step = "own password"
)

// goal is what a person signs in for.
type goal string

const (
	goalCode     goal = "" // an application, which gets a code
	goalDevice   goal = "device"
	goalLogout   goal = "logout"
	goalSecurity goal = "security"
)

// taker takes a form that belongs to this browser; a is nil but for goalCode.
type taker func(w http.ResponseWriter, r *http.Request, form url.Values, f flow, a *authorization) error

// forms are all forms of the pages, each with the path that takes it: no form
// is good at another's path.
func (s *Service) forms() map[step]struct {
	path string
	take taker
} {
	return map[step]struct {
		path string
		take taker
	}{
		stepAccount:  {"/common/account", s.serveAccount},
		stepPassword: {"/common/login", s.servePassword},
		stepChange:   {"/common/changepassword", s.serveChange},
		stepFactor:   {"/common/factor", s.serveFactor},
		stepPasskey:  {"/common/passkey", s.servePasskey},
		stepEnrol:    {"/common/register", s.serveEnrol},
		stepApp:      {"/common/register/app", s.serveEnrolApp},
		stepKey:      {"/common/register/passkey", s.serveEnrolKey},
		stepCodes:    {"/common/register/codes", s.serveEnrolled},
		stepConsent:  {"/common/consent", s.serveConsent},
		stepDevice:   {"/common/oauth2/deviceauth", s.serveCode},
		stepConfirm:  {"/common/oauth2/deviceconfirm", s.serveConfirm},
		stepLogout:   {"/common/oauth2/logout", s.serveLogoutForm},
		stepSecurity: {"/common/mysecurityinfo", s.serveSecurityForm},
		stepOwn:      {"/common/mysecurityinfo/password", s.serveOwnPassword},
	}
}

// formDoors are the doors that take the forms.
func (s *Service) formDoors() (out []gate.Route) {
	for at, f := range s.forms() {
		out = append(out, gate.Public(pageWay, "POST "+f.path, func(w http.ResponseWriter, r *http.Request, _ gate.Vars) error {
			form, err := readForm(w, r)
			if err != nil {
				return s.fault(w, r, err)
			}
			state, err := s.unseal(r, form, at)
			if err != nil {
				return s.fault(w, r, err)
			}
			a, err := s.resume(state)
			if err != nil {
				return s.fault(w, r, err)
			}
			return f.take(w, r, form, state, a)
		}))
	}
	slices.SortFunc(out, func(a, b gate.Route) int { return strings.Compare(a.Pattern, b.Pattern) })
	return out
}

// newFlow begins a sign-in at this browser.
func (s *Service) newFlow(w http.ResponseWriter, r *http.Request, g goal, tenant string) flow {
	return flow{Bind: s.bind(w, r), Began: s.Now(), Goal: g, Tenant: tenant}
}

// entry is what the audit log is told of a step.
func (f flow) entry(a *authorization, how, grant string) signIn {
	e := signIn{how: how, grant: grant}
	if a != nil {
		e.app = a.client.app.AppID
		if a.tenant != nil {
			e.tenant = a.tenant.ID
		}
	}
	return e
}

// flowTenant is the tenant that a person must be of; nil is any.
func flowTenant(a *authorization) *Tenant {
	if a == nil {
		return nil
	}
	return a.tenant
}

// prover is the person who showed f.Proofs, if all that it stands on still does.
func (s *Service) prover(r *http.Request, f flow) (*User, error) {
	u := s.index.user(f.User)
	if u == nil || u.Disabled || u.Epoch != f.Epoch || !f.Proofs.Any() {
		return nil, errFlow
	}
	if f.From == "" {
		return u, nil
	}
	_, g, ok := s.session(r)
	if !ok || g.Key != f.From {
		return nil, errFlow
	}
	return u, nil
}

const (
	flowCookie    = "__Host-castellan-flow"
	sessionCookie = "__Host-castellan-session"
	flowLife      = 15 * time.Minute // between two forms
	flowMost      = time.Hour        // of all of them
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
func (s *Service) unseal(r *http.Request, form url.Values, at step) (f flow, err error) {
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
	if f.Step != at || !s.Now().Before(f.Expires) || !s.Now().Before(f.Began.Add(flowMost)) || subtle.ConstantTimeCompare(f.Bind, bindOf(c.Value)) != 1 {
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
// one, whatever cookie the browser brought, and the old one of that cookie ends.
func (s *Service) beginSession(w http.ResponseWriter, r *http.Request, u *User, p access.Proofs) (keyedGrant, error) {
	now := s.Now()
	g := grant{Class: sessionGrant, Tenant: u.Tenant, User: u.ID, Epoch: u.Epoch, Family: arm.NewUUID(), Proofs: p, Issued: now, Expires: now.Add(sessionLife)}
	raw := ""
	err := s.DB.Do(r.Context(), func(tx *store.Tx) (err error) {
		if c, err := r.Cookie(sessionCookie); err == nil {
			if err := tx.Delete(grantTable, grantKey(sessionGrant, c.Value)); err != nil {
				return err
			}
		}
		raw, err = newGrant(tx, g)
		return err
	})
	if err != nil {
		return keyedGrant{}, err
	}
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Value: raw, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	return keyedGrant{g, grantKey(sessionGrant, raw)}, s.remember(w, r, u)
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
