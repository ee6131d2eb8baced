package identity

import (
	"context"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"castellan/internal/access"
	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// authorization is an authorize request whose client and redirect are good, so
// that errors may be sent there.
type authorization struct {
	tenant    *Tenant // nil: whichever the person belongs to
	client    client
	web       bool   // the redirect is of a client with a credential
	spa       string // the origin that the redirect leads to, if it is of a page
	redirect  string
	state     string
	mode      string
	wish      wish
	nonce     string
	challenge string
	prompt    string
	hint      string
	demand    demand
	maxAge    *time.Duration // how old the sign-in may be
	v1        bool
	path      string // the tenant as in the path
	query     url.Values
}

// readAuthorization reads an authorize request. An error for which sendable is
// false must be shown and not sent: where it would go is not to be trusted.
func (s *Service) readAuthorization(path string, q url.Values, v1 bool) (a *authorization, sendable bool, err error) {
	if err := once(q); err != nil {
		return nil, false, err
	}
	a = &authorization{v1: v1, path: path, query: q, state: q.Get("state"), nonce: q.Get("nonce"), prompt: q.Get("prompt"), hint: q.Get("login_hint"), redirect: q.Get("redirect_uri")}
	if a.tenant, err = s.tenantNamed(path); err != nil {
		return nil, false, err
	}
	tenant := s.Home()
	if a.tenant != nil {
		tenant = a.tenant.ID
	}
	if a.client, err = s.lookup(tenant, q.Get("client_id")); err != nil {
		return nil, false, err
	}
	to, ok := a.client.app.takes(a.redirect)
	if a.web = to.Web; to.SPA {
		a.spa = originOf(a.redirect)
	}
	if !ok {
		return nil, false, problemf(50011, "invalid_request", "The redirect URI '%s' specified in the request does not match the redirect URIs configured for the application '%s'.", printable(a.redirect), a.client.app.AppID)
	}
	switch a.mode = q.Get("response_mode"); a.mode {
	case "":
		a.mode = "query"
	case "query", "fragment", "form_post":
	default:
		a.mode = "query"
		return a, true, problemf(70000, "invalid_request", "response_mode must be query, fragment or form_post.")
	}
	return a, true, s.readRest(a, tenant)
}

// readRest reads what else the request asks, once errors can be sent.
func (s *Service) readRest(a *authorization, tenant string) error {
	q := a.query
	if a.adminConsent() {
		a.wish.resource = s.Site.GraphAudiences()[0]
		return nil
	}
	if t := q.Get("response_type"); t != "code" {
		return problemf(700054, "unsupported_response_type", "response_type '%s' is not enabled for the application; only 'code' is.", printable(t))
	}
	if len(a.nonce) > 512 || len(a.state) > 8192 {
		return problemf(900144, "invalid_request", "nonce or state is too long.")
	}
	switch a.challenge = q.Get("code_challenge"); {
	case a.challenge == "" && !a.web:
		return problemf(9002325, "invalid_request", "Proof Key for Code Exchange is required for authorization code redemption: send code_challenge and code_challenge_method=S256.")
	case a.challenge == "":
	case q.Get("code_challenge_method") != "S256":
		return problemf(501491, "invalid_request", "code_challenge_method must be S256.")
	case !challengeForm.MatchString(a.challenge):
		return problemf(501491, "invalid_request", "code_challenge must be 43 characters of base64url.")
	}
	var err error
	if a.demand, err = s.readDemand(q.Get("claims")); err != nil {
		return err
	}
	if a.maxAge, err = readMaxAge(q.Get("max_age")); err != nil {
		return err
	}
	for _, p := range strings.Fields(a.prompt) {
		if !slices.Contains(prompts, p) || p == "none" && p != a.prompt {
			return problemf(90023, "invalid_request", "Unsupported 'prompt' value '%s'. It must be login, consent, select_account or none.", printable(a.prompt))
		}
	}
	k := &asking{form: q, v1: a.v1}
	if err := s.readWish(k); err != nil {
		return err
	}
	if a.wish = k.wish; a.wish.resource == "" {
		a.wish.resource = s.Site.GraphAudiences()[0]
	}
	_, err = s.target(tenant, a.wish.resource)
	return err
}

// prompts are what a client can ask to be shown.
var prompts = []string{"login", "consent", "select_account", "none", "admin_consent", "create"}

// with is a person's session as the client that asks would use it.
func (a *authorization) with(session grant) grant {
	session.Confidential, session.Kind, session.Demand = a.web, access.Native, a.demand
	if a.web || a.spa != "" {
		session.Kind = access.Browser
	}
	return session
}

func (a *authorization) prompts(what string) bool {
	return slices.Contains(strings.Fields(a.prompt), what)
}

func readMaxAge(text string) (*time.Duration, error) {
	if text == "" {
		return nil, nil
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return nil, problemf(900144, "invalid_request", "max_age must be a number of seconds.")
	}
	d := time.Duration(n) * time.Second
	return &d, nil
}

var challengeForm = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

// loopback is a redirect to a port of the person's own machine (RFC 8252
// section 7.3): whatever follows the host must be what is registered.
var loopback = regexp.MustCompile(`^(http://(?:localhost|127\.0\.0\.1))(?::[0-9]{1,5})?((?:/[A-Za-z0-9._~/-]*)?)$`)

// takes reports whether codes may be sent to uri, and what kind of client is
// there. URIs are compared letter by letter; only on loopback is the port free.
func (a *App) takes(uri string) (r Redirect, ok bool) {
	if uri == "" {
		return Redirect{}, false
	}
	for _, r := range a.Redirects {
		if r.URI == uri {
			return r, true
		}
	}
	m := loopback.FindStringSubmatch(uri)
	if m == nil || strings.Contains(m[2], "..") || strings.Contains(m[2], "//") {
		return Redirect{}, false
	}
	bare := m[1] + m[2]
	if m[2] == "/" {
		bare = m[1] // a host alone has the path / (RFC 3986 section 6.2.3)
	}
	for _, r := range a.Redirects {
		if !r.Web && (r.URI == bare || r.URI == m[1]+"/" && bare == m[1]) {
			return r, true
		}
	}
	return Redirect{}, false
}

// serveAuthorize is the authorize endpoint.
func (s *Service) serveAuthorize(v1 bool) func(http.ResponseWriter, *http.Request, gate.Vars) error {
	return func(w http.ResponseWriter, r *http.Request, v gate.Vars) error {
		q := r.URL.Query()
		if strings.Contains(r.URL.RawQuery, ";") || len(r.URL.RawQuery) > maxForm {
			return s.fault(w, r, problemf(900144, "invalid_request", "The request is malformed."))
		}
		if r.Method == http.MethodPost {
			form, err := readForm(w, r)
			if err != nil {
				return s.fault(w, r, err)
			}
			q = form
		}
		a, sendable, err := s.readAuthorization(v["tenant"], q, v1)
		switch {
		case err != nil && sendable:
			return s.sendError(w, r, a, err)
		case err != nil:
			return s.fault(w, r, err)
		}
		return s.proceed(w, r, a)
	}
}

// proceed sends a code if somebody is signed in already and showed enough, else
// asks who it is or for what is missing.
func (s *Service) proceed(w http.ResponseWriter, r *http.Request, a *authorization) error {
	u, g, ok := s.session(r)
	fits := ok && (a.tenant == nil || a.tenant.ID == u.Tenant) && (a.hint == "" || fold(a.hint) == fold(u.UPN))
	fits = fits && (a.maxAge == nil || s.Now().Sub(g.Proofs.SignedIn()) <= *a.maxAge)
	if a.prompts("none") {
		return s.silently(w, r, a, u, g, fits)
	}
	f := s.newFlow(w, r, goalCode, a.path)
	f.V1, f.Query = a.v1, a.query
	if p := s.hinted(a); p != nil && (!fits || a.prompts("login")) {
		return s.sendAway(w, r, f, a, p, a.hint)
	}
	if !fits || a.prompts("login") {
		return s.askPassword(w, r, f, a, a.hint, "")
	}
	f.User, f.Epoch, f.Proofs, f.From = u.ID, u.Epoch, g.Proofs, g.Key
	if a.prompts("select_account") {
		return s.askAccount(w, r, f, a, u)
	}
	return s.advance(w, r, f, a, u)
}

// silently answers without showing anything.
func (s *Service) silently(w http.ResponseWriter, r *http.Request, a *authorization, u *User, g keyedGrant, fits bool) error {
	if !fits {
		return s.sendError(w, r, a, problemf(50058, "login_required", "A silent sign-in request was sent but no user is signed in."))
	}
	return s.sendCode(w, r, a, u, g.grant)
}

// sendCode gives the client a code for the person, once what it wants was
// consented to.
func (s *Service) sendCode(w http.ResponseWriter, r *http.Request, a *authorization, u *User, session grant) error {
	if shown, err := s.askConsent(w, r, a, u, session); shown || err != nil {
		return err
	}
	return s.answerCode(w, r, a, u, session)
}

// answerCode gives the client a code.
func (s *Service) answerCode(w http.ResponseWriter, r *http.Request, a *authorization, u *User, session grant) error {
	e := signIn{tenant: u.Tenant, object: u.ID, name: u.UPN, app: a.client.app.AppID, how: "session", grant: "authorize"}
	to, err := s.target(u.Tenant, a.wish.resource)
	code := ""
	if err == nil {
		e.resource = to.audience
		e.verdict, err = s.conditions(r, u, a.client.app.AppID, to, a.with(session))
	}
	if err == nil {
		code, err = s.newCode(r.Context(), a, u, session)
	}
	if err = s.note(r.Context(), e, err); err != nil {
		return s.unmet(w, r, a, u, session, e.verdict, err)
	}
	a.tenant = s.index.tenantOf(u.Tenant)
	return s.send(w, r, a, url.Values{"code": {code}, "state": {a.state}, "session_state": {session.Family}, "client_info": {clientInfo(u)}})
}

func (s *Service) newCode(ctx context.Context, a *authorization, u *User, session grant) (code string, err error) {
	now := s.Now()
	session = a.with(session)
	g := grant{
		Class: codeGrant, Tenant: u.Tenant, User: u.ID, Client: a.client.app.AppID, Family: arm.NewUUID(), Epoch: u.Epoch, Resource: a.wish.resource,
		Scope: strings.Join(a.wish.scopes, " "), Redirect: a.redirect, Challenge: a.challenge, Nonce: a.nonce, Confidential: session.Confidential, Kind: session.Kind, Demand: session.Demand, SPA: a.spa,
		Proofs: session.Proofs, Issued: now, Expires: now.Add(codeLife),
	}
	err = s.DB.Do(ctx, func(tx *store.Tx) (err error) {
		code, err = newGrant(tx, g)
		return err
	})
	return code, err
}

func (s *Service) sendError(w http.ResponseWriter, r *http.Request, a *authorization, err error) error {
	p := problemOf(err)
	return s.send(w, r, a, url.Values{"error": {p.code}, "error_description": {p.description()}, "state": {a.state}, "suberror": {p.sub}, "claims": {p.claims}})
}

// send answers the client at its redirect, in the way that it asked for.
func (s *Service) send(w http.ResponseWriter, r *http.Request, a *authorization, v url.Values) error {
	for name := range v {
		if v.Get(name) == "" {
			v.Del(name)
		}
	}
	v.Set("iss", s.base(r)+"/"+s.issuerTenant(a)+"/v2.0") // RFC 9207
	if a.mode == "form_post" {
		return s.postForm(w, a, v)
	}
	mark := "?"
	if strings.Contains(a.redirect, "?") {
		mark = "&"
	}
	if a.mode == "fragment" {
		mark = "#"
	}
	pageHeaders(w, a.redirect, s.style, false)
	w.Header().Set("Location", a.redirect+mark+v.Encode())
	w.WriteHeader(http.StatusFound)
	return nil
}

func (s *Service) issuerTenant(a *authorization) string {
	if a.tenant != nil {
		return a.tenant.ID
	}
	return s.Home()
}
