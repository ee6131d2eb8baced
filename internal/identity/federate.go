package identity

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"castellan/internal/access"
	"castellan/internal/gate"
	"castellan/internal/openid"
)

// A sign-in at somebody else's provider leaves this browser and comes back to
// it. What it was about travels with the browser, in a cookie of its own: the
// flow, and what the provider's answer must fit. The provider sees none of it.
type away struct {
	Flow                   flow
	Provider, Issuer       string
	State, Nonce, Verifier string
	Since                  time.Time // when the person must have signed in there at the earliest; zero: whenever
}

const (
	awayCookie  = "__Host-castellan-away"
	awayContext = "federated sign-in"
	maxAway     = 3800 // bytes: browsers drop longer cookies without a word
)

// errAway is shown when an answer of a provider belongs to no sign-in that this
// browser began.
var errAway = problemf(165000, "invalid_request", "This answer of an identity provider belongs to no sign-in of this browser. Go back to the application and start again.")

// returnsTo is where a provider's answers come to. Each provider has a place of
// its own, so that no answer is taken for another's.
func (s *Service) returnsTo(p *Provider) string {
	return s.Site.Base() + "/" + p.Tenant + "/federation/oauth2/" + p.ID
}

// tenantOfFlow is the directory that a sign-in is for.
func (s *Service) tenantOfFlow(a *authorization) string {
	if a != nil && a.tenant != nil {
		return a.tenant.ID
	}
	return s.Home()
}

// elsewhere are the buttons of the sign-in page that lead to other providers.
func (s *Service) elsewhere(a *authorization) (out []button) {
	for _, p := range s.index.providers(s.tenantOfFlow(a)) {
		out = append(out, button{Name: "idp", Value: p.ID, Label: "Sign in with " + p.Name, Other: true})
	}
	return out
}

// chosen is the provider at which a sign-in goes on: the one whose button was
// pressed, or whose people have this user name; nil for a sign-in here.
func (s *Service) chosen(a *authorization, id, name string) *Provider {
	p := s.index.provider(id)
	if id == "" {
		_, domain, _ := strings.Cut(name, "@")
		p, _ = s.index.realm(domain).(*Provider)
	}
	if p == nil || p.Disabled || p.Tenant != s.tenantOfFlow(a) {
		return nil
	}
	return p
}

// hinted is the provider that an authorize request itself names.
func (s *Service) hinted(a *authorization) *Provider {
	if d := a.query.Get("domain_hint"); d != "" {
		return s.chosen(a, "", "@"+d)
	}
	return s.chosen(a, "", a.hint)
}

// sendAway sends the browser to a provider. name is the user name, if it is known.
func (s *Service) sendAway(w http.ResponseWriter, r *http.Request, f flow, a *authorization, p *Provider, name string) error {
	e := signIn{tenant: p.Tenant, how: "federated", grant: "sign-in page"}
	to, err := s.depart(w, r, f, a, p, name)
	if err != nil {
		return s.fault(w, r, s.note(r.Context(), e, err))
	}
	if r.Method == http.MethodGet {
		pageHeaders(w, "", s.style, false)
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusFound)
		return nil
	}
	// A redirect of a form would be held against where the form may lead; a
	// page's own way on is not.
	return s.show(w, http.StatusOK, "", view{Title: "Going on to " + p.Name, Text: "You sign in there and come back.", Next: template.URL(to), NextLabel: "Go on to " + p.Name})
}

func (s *Service) depart(w http.ResponseWriter, r *http.Request, f flow, a *authorization, p *Provider, name string) (string, error) {
	o, err := s.openidOf(p)
	if err != nil {
		return "", err
	}
	f.Step, f.Expires = stepAway, s.Now().Add(flowLife)
	out := away{Flow: f, Provider: p.ID, Issuer: p.Issuer, State: randomText(32), Nonce: randomText(32), Verifier: randomText(32)}
	prompt := ""
	switch {
	case f.Anew || a != nil && a.prompts("login"):
		prompt, out.Since = "login", s.Now()
	case a != nil && a.maxAge != nil:
		out.Since = s.Now().Add(-*a.maxAge)
	case a != nil && a.prompts("select_account"):
		prompt = "select_account"
	}
	ask := s.asks(p, out)
	if ask.Prompt, ask.Hint = prompt, name; len(name) > 256 {
		ask.Hint = ""
	}
	to, err := o.Begin(r.Context(), ask)
	if err != nil {
		return "", unreachable(p, err)
	}
	b, err := json.Marshal(out)
	if err != nil {
		return "", err
	}
	sealed := base64.RawURLEncoding.EncodeToString(s.flows.Seal(b, awayContext))
	if len(sealed) > maxAway {
		return "", problemf(900144, "invalid_request", "The request is too long to be taken along to an identity provider.")
	}
	http.SetCookie(w, &http.Cookie{Name: awayCookie, Value: sealed, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: int(flowLife / time.Second)})
	return to, nil
}

func (s *Service) asks(p *Provider, a away) openid.Ask {
	return openid.Ask{Redirect: s.returnsTo(p), State: a.State, Nonce: a.Nonce, Verifier: a.Verifier, Since: a.Since}
}

func unreachable(p *Provider, err error) error {
	return &problem{status: http.StatusBadGateway, number: 50180, code: "temporarily_unavailable", text: "The identity provider " + p.Name + " can't be used now.", err: err}
}

// serveReturn takes the answer that the browser brings back from a provider.
func (s *Service) serveReturn(w http.ResponseWriter, r *http.Request, v gate.Vars) error {
	b, p, err := s.comesBack(r, v)
	http.SetCookie(w, &http.Cookie{Name: awayCookie, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: -1})
	if err != nil {
		return s.fault(w, r, err)
	}
	a, err := s.resume(b.Flow)
	if err != nil {
		return s.fault(w, r, err)
	}
	e := signIn{tenant: p.Tenant, how: "federated", grant: "sign-in page"}
	if a != nil {
		e.app = a.client.app.AppID
	}
	u, proofs, err := s.vouched(r, b, p)
	if u != nil {
		e.object, e.name = u.ID, u.UPN
	}
	if err := s.note(r.Context(), e, err); err != nil {
		return s.fault(w, r, err)
	}
	f := b.Flow
	f.User, f.Epoch, f.From, f.Proofs = u.ID, u.Epoch, "", proofs
	return s.advance(w, r, f, a, u)
}

// comesBack is the sign-in that a provider's answer belongs to, if this browser
// began it at this provider, and not too long ago.
func (s *Service) comesBack(r *http.Request, v gate.Vars) (b away, p *Provider, err error) {
	c, err := r.Cookie(awayCookie)
	if err != nil {
		return b, nil, errAway
	}
	bound, err := r.Cookie(flowCookie)
	if err != nil {
		return b, nil, errAway
	}
	sealed, err := base64.RawURLEncoding.DecodeString(c.Value)
	if err != nil {
		return b, nil, errAway
	}
	text, err := s.flows.Open(sealed, awayContext)
	if err != nil {
		return b, nil, errAway
	}
	if err := json.Unmarshal(text, &b); err != nil {
		return b, nil, err
	}
	fits := b.Flow.Step == stepAway && s.Now().Before(b.Flow.Expires) && subtle.ConstantTimeCompare(b.Flow.Bind, bindOf(bound.Value)) == 1
	p = s.index.provider(b.Provider)
	if !fits || p == nil || p.Disabled || p.Issuer != b.Issuer || fold(v["provider"]) != p.ID || fold(v["tenant"]) != p.Tenant {
		return b, nil, errAway
	}
	return b, p, nil
}

// vouched is the person of the directory that the provider vouches for, and
// what its word proves here.
func (s *Service) vouched(r *http.Request, b away, p *Provider) (*User, access.Proofs, error) {
	o, err := s.openidOf(p)
	if err != nil {
		return nil, nil, err
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, nil, errAway
	}
	who, err := o.Finish(r.Context(), s.asks(p, b), q)
	if err != nil {
		return nil, nil, untrusted(p, err)
	}
	u, err := s.arrive(r.Context(), p, who)
	return u, s.proofs(p, who), err
}

// untrusted is a sign-in that the provider did not vouch for, or not so that it
// could be believed.
func untrusted(p *Provider, err error) error {
	var no openid.Declined
	if errors.As(err, &no) {
		return problemf(500173, "access_denied", "The identity provider %s did not sign you in: it answered %s.", p.Name, no.Code)
	}
	if errors.Is(err, openid.ErrStale) {
		return problemf(50173, "access_denied", "You must sign in anew at %s, and it does not say that you did.", p.Name)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return unreachable(p, err)
	}
	return &problem{status: http.StatusBadRequest, number: 50008, code: "invalid_request", text: "The answer of the identity provider " + p.Name + " can't be believed.", err: err}
}

// proofs are what a provider's word is worth: as much as a password, or as
// several factors where an administrator said so and the provider does.
func (s *Service) proofs(p *Provider, who openid.Person) access.Proofs {
	now := s.Now()
	at := now
	if !who.At.IsZero() && who.At.Before(now) {
		at = who.At
	}
	if p.TrustMFA && (slices.ContainsFunc(who.Methods, func(m string) bool { return slices.Contains(p.MFAMethods, m) }) || slices.Contains(p.MFAClasses, who.Class)) {
		return access.Proofs{{Method: access.ExternalMFA, At: at}}
	}
	return access.Proofs{{Method: access.External, At: at}}
}
