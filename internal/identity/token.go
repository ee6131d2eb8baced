package identity

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

const maxForm = 64 << 10 // bytes of a form

// asking is one request to the token endpoint.
type asking struct {
	r       *http.Request
	form    url.Values
	tenant  *Tenant // nil where the path says common or organizations
	client  client
	wish    wish
	demand  demand
	v1      bool // of the endpoint
	arrived time.Time
}

// readForm reads a form in which no parameter stands twice (RFC 6749 section 3.2).
func readForm(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	typ, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || typ != "application/x-www-form-urlencoded" {
		return nil, problemf(900144, "invalid_request", "The request body must be of the type application/x-www-form-urlencoded.")
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForm))
	if err != nil {
		return nil, &problem{status: http.StatusBadRequest, number: 900144, code: "invalid_request", text: fmt.Sprintf("The request body could not be read; at most %d bytes are allowed.", maxForm), err: err}
	}
	form, err := url.ParseQuery(string(b))
	if err != nil {
		return nil, problemf(900144, "invalid_request", "The request body is malformed.")
	}
	return form, once(form)
}

func once(form url.Values) error {
	for name, v := range form {
		if len(v) > 1 {
			return problemf(9000411, "invalid_request", "The request is not properly formatted. The parameter '%s' is duplicated.", printable(name))
		}
	}
	return nil
}

// tenantNamed is the tenant that a path names; nil for those names that stand
// for whichever the user belongs to.
func (s *Service) tenantNamed(name string) (*Tenant, error) {
	switch strings.ToLower(name) {
	case "common", "organizations":
		return nil, nil
	}
	if t := s.index.tenantOf(name); t != nil {
		return t, nil
	}
	return nil, problemf(90002, "invalid_request", "Tenant '%s' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud.", printable(name))
}

// serveToken is the token endpoint.
func (s *Service) serveToken(v1 bool) func(http.ResponseWriter, *http.Request, gate.Vars) error {
	return func(w http.ResponseWriter, r *http.Request, v gate.Vars) error {
		a := &asking{r: r, v1: v1, arrived: s.Now()}
		if err := s.Log.Err(); err != nil {
			return err
		}
		var err error
		if a.form, err = readForm(w, r); err != nil {
			return err
		}
		s.allowOrigin(w, r, a.form.Get("client_id"))
		if a.tenant, err = s.tenantNamed(v["tenant"]); err != nil {
			return err
		}
		if a.demand, err = s.readDemand(a.form.Get("claims")); err != nil {
			return err
		}
		answer, err := s.give(r.Context(), a)
		if err != nil {
			return err
		}
		w.Header().Set("Cache-Control", "no-store, no-cache")
		w.Header().Set("Pragma", "no-cache")
		gate.WriteJSON(w, http.StatusOK, answer)
		return nil
	}
}

// grantTypes are the grants of the token endpoint, by the names that clients ask
// by; the device code's has two.
var grantTypes = map[string]func(*Service, context.Context, *asking) (map[string]any, error){
	"client_credentials": (*Service).giveClient,
	"authorization_code": (*Service).giveCode,
	"refresh_token":      (*Service).giveRefresh,
	"device_code":        (*Service).giveDevice,
	"urn:ietf:params:oauth:grant-type:device_code": (*Service).giveDevice,
	behalfGrant: (*Service).giveBehalf,
	"password":  (*Service).givePassword,
}

// give answers a token request by its grant.
func (s *Service) give(ctx context.Context, a *asking) (map[string]any, error) {
	name := a.form.Get("grant_type")
	if name == "" {
		return nil, problemf(900144, "invalid_request", "The request body must contain the following parameter: 'grant_type'.")
	}
	g := grantTypes[name]
	if g == nil {
		return nil, problemf(70003, "unsupported_grant_type", "The app requested an unsupported grant type '%s'.", printable(name))
	}
	return g(s, ctx, a)
}

// readWish fills in the wish: v1's resource, or v2's scope.
func (s *Service) readWish(a *asking) (err error) {
	if a.wish, err = readScope(a.form.Get("scope"), s.Site.GraphAudiences()[0]); err != nil {
		return err
	}
	if resource := a.form.Get("resource"); a.v1 && resource != "" {
		a.wish.resource, a.wish.scopes = resource, nil
	}
	return nil
}

// target is the API that resource names in a tenant.
func (s *Service) target(tenant, resource string) (api, error) {
	a, ok := s.api(tenant, resource)
	if !ok {
		return api{}, problemf(500011, "invalid_resource", "The resource principal named %s was not found in the tenant named %s. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant.", printable(resource), tenant)
	}
	return a, nil
}

// giveClient is the grant client_credentials: an application as itself.
func (s *Service) giveClient(ctx context.Context, a *asking) (_ map[string]any, err error) {
	if a.tenant == nil {
		return nil, problemf(50059, "invalid_request", "No tenant-identifying information found in either the request or implied by any provided credentials: use the tenant's id or domain in the path.")
	}
	e := signIn{tenant: a.tenant.ID, app: a.form.Get("client_id"), grant: "client_credentials"}
	defer func() { err = s.note(ctx, e, err) }()
	if a.client, err = s.authenticate(ctx, a.r, a.form, a.tenant); err != nil {
		return nil, err
	}
	e.app, e.how = a.client.app.AppID, a.client.how
	p := a.client.principal
	if p == nil || a.client.evidence == "" {
		return nil, problemf(7000218, "invalid_client", "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.")
	}
	e.object, e.name = p.ID, p.Name
	if err := s.readWish(a); err != nil {
		return nil, err
	}
	if a.wish.resource == "" {
		return nil, problemf(900144, "invalid_request", "The request body must contain the following parameter: 'scope' or, at the v1 endpoint, 'resource'.")
	}
	if len(a.wish.scopes) > 1 || len(a.wish.scopes) == 1 && !a.wish.standard {
		return nil, problemf(1002012, "invalid_scope", "The provided value for scope %s is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI).", printable(a.form.Get("scope")))
	}
	target, err := s.target(a.tenant.ID, a.wish.resource)
	if err != nil {
		return nil, err
	}
	e.resource = target.audience
	if a.demand.MFA || len(a.demand.Contexts) > 0 {
		return nil, badClaims("an application signs in as itself, so no token of it can show what the claims amr and acrs ask of people")
	}
	sub := subject{sp: p, client: p.AppID, evidence: a.client.evidence, how: a.client.how, cp1: a.demand.CP1}
	if err := s.DB.View(ctx, func(tx *store.Tx) (err error) {
		sub.roles, err = s.rolesAt(tx, p.Tenant, target.app, sub)
		return err
	}); err != nil {
		return nil, err
	}
	access, exp, err := s.accessToken(sub, target)
	if err != nil {
		return nil, err
	}
	return s.bearer(a, access, exp), nil
}

// bearer is the part of an answer that all grants have. v1 writes numbers as text.
func (s *Service) bearer(a *asking, access string, exp time.Time) map[string]any {
	left := int64(exp.Sub(s.Now()) / time.Second)
	if !a.v1 {
		return map[string]any{"token_type": "Bearer", "expires_in": left, "ext_expires_in": left, "access_token": access}
	}
	return map[string]any{
		"token_type": "Bearer", "expires_in": fmt.Sprint(left), "ext_expires_in": fmt.Sprint(left), "expires_on": fmt.Sprint(exp.Unix()),
		"not_before": fmt.Sprint(s.Now().Unix()), "resource": a.wish.resource, "access_token": access,
	}
}

// clientOf authenticates the client of a grant that a person gave, and wants it
// to be the one that the grant was given to.
func (s *Service) clientOf(ctx context.Context, a *asking, g grant) error {
	t := s.index.tenantOf(g.Tenant)
	if t == nil || a.tenant != nil && a.tenant.ID != t.ID {
		return problemf(70000, "invalid_grant", "The provided grant was not issued by this tenant.")
	}
	c, err := s.authenticate(ctx, a.r, a.form, t)
	if err != nil {
		return err
	}
	if !strings.EqualFold(c.app.AppID, g.Client) {
		return problemf(700009, "invalid_grant", "The provided grant was issued to another client.")
	}
	if g.Confidential && c.evidence == "" {
		return problemf(7000218, "invalid_client", "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.")
	}
	a.client, a.tenant = c, t
	return nil
}

// giveCode is the grant authorization_code.
func (s *Service) giveCode(ctx context.Context, a *asking) (map[string]any, error) {
	return s.giveOnce(ctx, a, codeGrant, a.form.Get("code"), "code", func(g grant) error {
		if a.form.Get("redirect_uri") != g.Redirect {
			return problemf(50011, "invalid_grant", "The redirect URI specified in the request does not match the one that the authorization code was given for.")
		}
		return checkChallenge(g.Challenge, a.form.Get("code_verifier"))
	})
}

// checkChallenge holds a verifier against S256 of it (RFC 7636).
func checkChallenge(challenge, verifier string) error {
	if challenge == "" && verifier == "" {
		return nil // a client with a credential; the authorize endpoint saw to it
	}
	sum := sha256.Sum256([]byte(verifier))
	got := base64.RawURLEncoding.EncodeToString(sum[:])
	if challenge == "" || len(verifier) < 43 || len(verifier) > 128 || subtle.ConstantTimeCompare([]byte(got), []byte(challenge)) != 1 {
		return problemf(501481, "invalid_grant", "The Code_Verifier does not match the code_challenge supplied in the authorization request.")
	}
	return nil
}

// giveRefresh is the grant refresh_token.
func (s *Service) giveRefresh(ctx context.Context, a *asking) (map[string]any, error) {
	return s.giveOnce(ctx, a, refreshGrant, a.form.Get("refresh_token"), "refresh_token", func(grant) error { return nil })
}

// giveOnce trades a grant that can be used once for tokens. The client is held
// against the grant before it is used up, so that a stranger cannot use it up.
func (s *Service) giveOnce(ctx context.Context, a *asking, c grantClass, raw, param string, check func(grant) error) (_ map[string]any, err error) {
	e := signIn{app: a.form.Get("client_id"), grant: string(c), how: string(c)}
	defer func() { err = s.note(ctx, e, err) }()
	if raw == "" {
		return nil, problemf(900144, "invalid_request", "The request body must contain the following parameter: '%s'.", param)
	}
	var g keyedGrant
	ok := false
	if err := s.DB.View(ctx, func(tx *store.Tx) (err error) {
		g, ok, err = loadGrant(tx, c, raw, s.Now())
		return err
	}); err != nil {
		return nil, err
	}
	if !ok {
		return nil, problemf(expiredNumber[c], "invalid_grant", "The provided authorization code or refresh token is not valid, or has expired.")
	}
	e.tenant, e.object = g.Tenant, g.User
	if err := s.clientOf(ctx, a, g.grant); err != nil {
		return nil, err
	}
	e.app = a.client.app.AppID
	if err := fromOrigin(a.r, g.grant); err != nil {
		return nil, err
	}
	if err := check(g.grant); err != nil {
		return nil, err
	}
	if err := s.readWish(a); err != nil {
		return nil, err
	}
	return s.person(ctx, &e, a, g.grant, func(tx *store.Tx) (replayed bool, err error) {
		_, replayed, err = s.redeem(tx, c, raw, a.arrived)
		return replayed, err
	})
}

// person answers with tokens for the person who gave g. use marks g used, in
// the transaction that also makes the new refresh token.
func (s *Service) person(ctx context.Context, e *signIn, a *asking, g grant, use func(*store.Tx) (replayed bool, err error)) (map[string]any, error) {
	resource, scopes := a.wish.resource, a.wish.scopes
	if resource == "" {
		resource, scopes = g.Resource, strings.Fields(g.Scope)
	}
	target, err := s.target(g.Tenant, resource)
	if err != nil {
		return nil, err
	}
	a.wish.resource, a.wish.scopes = resource, scopes
	var u *User
	var replayed bool
	next := g
	next.Class, next.Used, next.Issued, next.Expires = refreshGrant, time.Time{}, s.Now(), s.Now().Add(refreshLife)
	next.Resource, next.Scope = resource, strings.Join(scopes, " ")
	next.Challenge, next.Redirect, next.State, next.UserCode, next.Demand = "", "", "", "", demand{}
	g.Demand = g.Demand.and(a.demand)
	if g.SPA != "" {
		next.Expires = s.Now().Add(spaLife)
	}
	if g.SPA != "" && g.Class == refreshGrant {
		next.Expires = g.Expires
	}
	refresh, sub := "", subject{}
	err = s.DB.Do(ctx, func(tx *store.Tx) (err error) {
		if u, err = s.alive(tx, g); err != nil {
			return err
		}
		e.name, e.resource = u.UPN, target.audience
		if e.verdict, err = s.conditions(a.r, u, a.client.app.AppID, target, g); err != nil {
			return err
		}
		if replayed, err = use(tx); err != nil || replayed {
			return err
		}
		if sub, err = s.entitle(tx, a, g, u, target, scopes); err != nil {
			return err
		}
		sub.contexts = e.verdict.Contexts
		refresh, err = newGrant(tx, next)
		return err
	})
	if err != nil {
		return nil, err
	}
	if replayed {
		return nil, problemf(54005, "invalid_grant", "The authorization code or refresh token was already redeemed. Because somebody else may have it, everything that this sign-in gave has been revoked; the user must sign in again.")
	}
	access, exp, err := s.accessToken(sub, target)
	if err != nil {
		return nil, err
	}
	id, err := s.idToken(a.r, sub, g)
	if err != nil {
		return nil, err
	}
	out := s.bearer(a, access, exp)
	out["refresh_token"], out["id_token"], out["client_info"] = refresh, id, clientInfo(u)
	out["scope"] = granted(sub, resource, scopes)
	return out, nil
}

// entitle is what the person's token for an API will say of permissions, once
// the client may act for them there and they may use both.
func (s *Service) entitle(tx *store.Tx, a *asking, g grant, u *User, to api, scopes []string) (sub subject, err error) {
	sub = subject{user: u, client: a.client.app.AppID, family: g.Family, proofs: g.Proofs, device: g.DeviceCode, kind: g.kind(), cp1: g.Demand.CP1, public: a.client.evidence == ""}
	if _, err := s.rolesAt(tx, g.Tenant, sub.client, sub); err != nil {
		return sub, err
	}
	if sub.roles, err = s.rolesAt(tx, g.Tenant, to.app, sub); err != nil {
		return sub, err
	}
	sub.scp, err = s.permit(tx, g.Tenant, a.client, to, scopes, u.ID)
	return sub, err
}

// granted is the answer's scope: what was asked for, and its usual spelling.
func granted(sub subject, resource string, scopes []string) string {
	out := append([]string{"openid", "profile", "email", "offline_access"}, scopes...)
	more := []string{resource + "/.default"}
	for _, x := range strings.Fields(sub.scp) {
		more = append(more, resource+"/"+x)
	}
	for _, x := range more {
		if !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	return strings.Join(out, " ")
}

// tenantID is the scope that rights on a directory are at.
func tenantID(tenant string) arm.ID {
	if tenant == "" {
		return arm.MustID("/providers/Microsoft.Directory")
	}
	return arm.MustID("/providers/Microsoft.Directory/tenants/" + tenant)
}
