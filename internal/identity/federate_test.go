package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"castellan/internal/arm"
	"castellan/internal/store"
)

// elsewhereOP is an OpenID provider behind TLS that can be told to lie.
type elsewhereOP struct {
	t       testing.TB
	w       *world
	server  *httptest.Server
	key     *rsa.PrivateKey
	mu      sync.Mutex
	asked   url.Values            // of the last authorize request
	claims  func(map[string]any)  // changes the ID token's
	info    map[string]any        // userinfo; nil: none
	sign    func([]byte) string   // another way to sign
	answer  func(v url.Values)    // changes what comes back by the browser
	meta    func(map[string]any)  // changes what it says of itself
	broken  http.HandlerFunc      // answers at the token endpoint
	proof   func(r *http.Request) // looks at the token request
	fetched []string
}

func newOP(w *world) *elsewhereOP {
	w.t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		w.t.Fatal(err)
	}
	o := &elsewhereOP{t: w.t, w: w, key: key}
	o.server = httptest.NewTLSServer(http.HandlerFunc(o.serve))
	w.t.Cleanup(o.server.Close)
	return o
}

func (o *elsewhereOP) roots() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: o.server.Certificate().Raw}))
}

func (o *elsewhereOP) serve(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fetched = append(o.fetched, r.URL.Path)
	u := o.server.URL
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		m := map[string]any{"issuer": u, "authorization_endpoint": u + "/auth", "token_endpoint": u + "/token", "jwks_uri": u + "/jwks", "authorization_response_iss_parameter_supported": true,
			"id_token_signing_alg_values_supported": []string{"RS256"}, "response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"}}
		if o.info != nil {
			m["userinfo_endpoint"] = u + "/me"
		}
		if o.meta != nil {
			o.meta(m)
		}
		o.json(w, m)
	case "/jwks":
		o.json(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: o.key.Public(), KeyID: "k", Algorithm: "RS256", Use: "sig"}}})
	case "/me":
		o.json(w, o.info)
	case "/token":
		if o.proof != nil {
			o.proof(r)
		}
		if o.broken != nil {
			o.broken(w, r)
			return
		}
		o.json(w, map[string]any{"access_token": "at", "token_type": "Bearer", "id_token": o.token()})
	default:
		http.NotFound(w, r)
	}
}

func (o *elsewhereOP) json(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		o.t.Error(err)
	}
}

// token is the ID token for the last authorize request.
func (o *elsewhereOP) token() string {
	now := o.w.now().Unix()
	m := map[string]any{"iss": o.server.URL, "sub": "s-1", "aud": "castellan", "exp": now + 300, "iat": now, "nonce": o.asked.Get("nonce"),
		"preferred_username": "ann@corp.example", "name": "Ann Elsewhere", "email": "ann@corp.example", "groups": []string{"engineers"}}
	if o.claims != nil {
		o.claims(m)
	}
	b, err := json.Marshal(m)
	if err != nil {
		o.t.Fatal(err)
	}
	if o.sign != nil {
		return o.sign(b)
	}
	return signed(o.t, jose.RS256, jose.JSONWebKey{Key: o.key, KeyID: "k"}, b)
}

func signed(t testing.TB, alg jose.SignatureAlgorithm, key any, b []byte) string {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	j, err := s.Sign(b)
	if err != nil {
		t.Fatal(err)
	}
	out, err := j.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// add makes the provider one of the tenant's.
func (o *elsewhereOP) add(more map[string]any) reply {
	o.t.Helper()
	b := map[string]any{"@odata.type": "#microsoft.graph.openIdConnectIdentityProvider", "displayName": "Corp", "issuer": o.server.URL, "clientId": "castellan", "clientSecret": "op-secret-canary",
		"domains": []string{"corp.example"}, "certificateAuthorities": o.roots()}
	for k, v := range more {
		b[k] = v
	}
	return o.w.admin("POST", "identity/identityProviders", b)
}

// leave goes to the sign-in page, types a name of the provider's domain, and is
// where the browser is sent.
func (o *elsewhereOP) leave(c *http.Client) *url.URL {
	o.t.Helper()
	q := o.w.authorizeQuery()
	q.Set("domain_hint", "corp.example")
	r := o.w.open(c, q)
	to, err := url.Parse(r.header.Get("Location"))
	if err != nil || r.status != 302 || !strings.HasPrefix(to.String(), o.server.URL+"/auth?") {
		o.t.Fatalf("not sent to the provider: %d %s %s", r.status, r.header.Get("Location"), r.body)
	}
	o.mu.Lock()
	o.asked = to.Query()
	o.mu.Unlock()
	return to
}

// back brings an answer of the provider back.
func (o *elsewhereOP) back(c *http.Client, to *url.URL) reply {
	o.t.Helper()
	v := url.Values{"code": {"the-code"}, "state": {to.Query().Get("state")}, "iss": {o.server.URL}}
	if o.answer != nil {
		o.answer(v)
	}
	req, err := http.NewRequest("GET", to.Query().Get("redirect_uri")+"?"+v.Encode(), nil)
	if err != nil {
		o.t.Fatal(err)
	}
	req.Header.Set("Sec-Fetch-Site", "cross-site") // as a browser that comes from there says
	return o.w.do(c, req)
}

// signIn is a whole sign-in by the provider.
func (o *elsewhereOP) signIn() reply {
	o.t.Helper()
	c := o.w.client()
	return o.back(c, o.leave(c))
}

func (o *elsewhereOP) tokens() reply {
	o.t.Helper()
	in := o.signIn()
	r := o.w.form("/organizations/oauth2/v2.0/token", o.w.redeemForm(codeOf(in)))
	if r.status != 200 {
		o.t.Fatalf("%d %s; sign-in %d %s", r.status, r.body, in.status, in.body)
	}
	return r
}

// Somebody signs in at another provider and is a person here: known by issuer
// and subject, with the names and groups that the provider tells, and no more.
func TestSignInElsewhere(t *testing.T) {
	w := newWorld(t)
	o := newOP(w)
	group := w.admin("POST", "groups", map[string]any{"displayName": "Engineers", "mailEnabled": false, "securityEnabled": true, "mailNickname": "e"}).text("id")
	other := w.admin("POST", "groups", map[string]any{"displayName": "Others", "mailEnabled": false, "securityEnabled": true, "mailNickname": "o"}).text("id")
	p := o.add(map[string]any{"groupsClaim": "groups", "groupMappings": []any{map[string]any{"claimValue": "engineers", "groupId": group}, map[string]any{"claimValue": "others", "groupId": other}}})
	if strings.Contains(string(p.body), "op-secret-canary") {
		t.Error("the client secret is shown")
	}
	o.proof = func(r *http.Request) {
		id, secret, _ := r.BasicAuth()
		if id != "castellan" || secret != "op-secret-canary" || r.FormValue("code_verifier") == "" || r.FormValue("redirect_uri") != p.text("redirectUri") {
			t.Errorf("token request %v by %s", r.Form, id)
		}
	}
	r := o.tokens()
	if o.asked.Get("code_challenge_method") != "S256" || len(o.asked.Get("nonce")) < 40 || len(o.asked.Get("state")) < 40 || o.asked.Get("response_type") != "code" {
		t.Errorf("authorize request %v", o.asked)
	}
	who, err := w.verify(r.text("access_token"))
	if err != nil || who.Name != "ann@corp.example" || who.Kind != arm.User || !slices.Equal(who.Groups, []string{group}) || !slices.Equal(who.AMR, []string{"fed"}) {
		t.Fatalf("%+v, %v", who, err)
	}

	o.claims = func(m map[string]any) { m["name"], m["groups"], m["email"] = "Ann Married", "others", "a@corp.example" }
	again, err := w.verify(o.tokens().text("access_token"))
	if err != nil || again.Object != who.Object || !slices.Equal(again.Groups, []string{other}) {
		t.Errorf("the second time %+v, %v", again, err)
	}
	if u := w.admin("GET", "users/"+who.Object, nil); u.text("displayName") != "Ann Married" || u.text("mail") != "a@corp.example" {
		t.Errorf("names %s", u.body)
	}
	o.claims = func(m map[string]any) { m["sub"], m["preferred_username"] = "S-1", "bob@corp.example" }
	bob, err := w.verify(o.tokens().text("access_token"))
	if err != nil || bob.Object == who.Object {
		t.Errorf("a subject that differs in case is the same person: %+v, %v", bob, err)
	}

	o.claims = nil
	w.admin("PATCH", "users/"+who.Object, map[string]any{"accountEnabled": false})
	if r := o.signIn(); r.status != 400 || codeOf(r) != "" || !strings.Contains(string(r.body), "disabled") {
		t.Errorf("a disabled person: %d %s", r.status, r.body)
	}
	if _, err := w.verify(r.text("access_token")); err == nil {
		t.Error("the token of a disabled person is good")
	}
	w.admin("PATCH", "identity/identityProviders/"+p.text("id"), map[string]any{"isEnabled": false})
	if r := w.open(w.client(), w.authorizeQuery()); strings.Contains(string(r.body), "Sign in with Corp") {
		t.Error("a disabled provider is offered")
	}
}

// TOK-19: nobody is somebody here by having their name elsewhere, not even with
// a mail address that is proven there. An administrator can bind them.
func TestNamesElsewhereAreNobody(t *testing.T) {
	w := newWorld(t)
	id, upn := w.user("ann")
	o := newOP(w)
	o.add(nil)
	for name, c := range map[string]string{"a name of the tenant": upn, "no name": "", "no domain": "ann", "another domain": "ann@other.example", "below the domain": "ann@x.corp.example",
		"two at signs": "ann@corp.example@corp.example", "a homoglyph": "аnn@corp.example", "a space": "ann @corp.example"} {
		o.claims = func(m map[string]any) {
			m["preferred_username"], m["email"], m["upn"], m["email_verified"], m["oid"], m["tid"] = c, upn, upn, true, id, w.first.Tenant
		}
		if r := o.signIn(); codeOf(r) != "" || r.status != 400 {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	o.claims = nil
	first, err := w.verify(o.tokens().text("access_token"))
	if err != nil {
		t.Fatal(err)
	}
	o.claims = func(m map[string]any) { m["sub"] = "thief" }
	if r := o.signIn(); codeOf(r) != "" || r.status != 400 {
		t.Errorf("another subject with the name of a person: %d %s", r.status, r.body)
	}
	if r := w.graph(w.graphToken(upn), "POST", "users/"+id+"/identities", map[string]any{"signInType": "federated", "issuer": o.server.URL, "issuerAssignedId": "thief"}); r.status != 403 {
		t.Errorf("a person binds themselves: %d %s", r.status, r.body)
	}
	w.admin("POST", "users/"+id+"/identities", map[string]any{"signInType": "federated", "issuer": o.server.URL, "issuerAssignedId": "thief"})
	bound := o.tokens()
	if who, err := w.verify(bound.text("access_token")); err != nil || who.Object != id {
		t.Errorf("bound: %+v, %v", who, err)
	}
	if r := w.graph(w.token, "POST", "users/"+first.Object+"/identities", map[string]any{"signInType": "federated", "issuer": o.server.URL, "issuerAssignedId": "thief"}); r.status != 400 {
		t.Errorf("bound twice: %d %s", r.status, r.body)
	}
	l := w.admin("GET", "users/"+id+"/identities", nil).json["value"].([]any)[0].(map[string]any)
	w.admin("DELETE", "users/"+id+"/identities/"+l["id"].(string), nil)
	if r := o.signIn(); codeOf(r) != "" {
		t.Error("somebody unbound signs in")
	}
	if _, err := w.verify(bound.text("access_token")); err == nil {
		t.Error("the token of somebody unbound is good")
	}
}

// Everything that an attacker could alter in an answer ends the sign-in.
func TestAnswersFromElsewhereAreChecked(t *testing.T) {
	w := newWorld(t)
	o := newOP(w)
	o.add(nil)
	thief, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	claim := func(k string, v any) func() {
		return func() { o.claims = func(m map[string]any) { m[k] = v } }
	}
	without := func(k string) func() { return func() { o.claims = func(m map[string]any) { delete(m, k) } } }
	now := w.now().Unix()
	for name, lie := range map[string]func(){
		"another audience":       claim("aud", "other"),
		"two audiences, no azp":  claim("aud", []string{"castellan", "other"}),
		"another azp":            claim("azp", "other"),
		"another issuer":         claim("iss", "https://evil.example"),
		"an issuer with a slash": claim("iss", o.server.URL+"/"),
		"another nonce":          claim("nonce", "x"),
		"no nonce":               without("nonce"),
		"no subject":             without("sub"),
		"expired":                claim("exp", now-10),
		"no expiry":              without("exp"),
		"made long ago":          claim("iat", now-3600),
		"made later":             claim("iat", now+3600),
		"not yet":                claim("nbf", now+3600),
		"another key": func() {
			o.sign = func(b []byte) string { return signed(t, jose.RS256, jose.JSONWebKey{Key: thief, KeyID: "k"}, b) }
		},
		"signed by the secret": func() {
			o.sign = func(b []byte) string {
				return signed(t, jose.HS256, []byte("op-secret-canaryop-secret-canary"), b)
			}
		},
		"not signed": func() {
			o.sign = func(b []byte) string {
				return b64.EncodeToString([]byte(`{"alg":"none"}`)) + "." + b64.EncodeToString(b) + "."
			}
		},
		"another state":     func() { o.answer = func(v url.Values) { v.Set("state", "x") } },
		"no state":          func() { o.answer = func(v url.Values) { v.Del("state") } },
		"two states":        func() { o.answer = func(v url.Values) { v["state"] = append(v["state"], "x") } },
		"mix-up":            func() { o.answer = func(v url.Values) { v.Set("iss", "https://evil.example") } },
		"does not say iss":  func() { o.answer = func(v url.Values) { v.Del("iss") } },
		"no code":           func() { o.answer = func(v url.Values) { v.Del("code") } },
		"a refusal":         func() { o.answer = func(v url.Values) { v.Set("error", "access_denied") } },
		"an endless answer": func() { o.broken = func(w http.ResponseWriter, _ *http.Request) { endless(w) } },
		"a redirect": func() {
			o.broken = func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, o.server.URL+"/stolen", http.StatusTemporaryRedirect)
			}
		},
		"no token": func() {
			o.broken = func(w http.ResponseWriter, _ *http.Request) { o.json(w, map[string]any{"access_token": "x"}) }
		},
	} {
		o.claims, o.sign, o.answer, o.broken = nil, nil, nil, nil
		lie()
		r := o.signIn()
		if codeOf(r) != "" || r.status < 400 || strings.Contains(r.header.Get("Set-Cookie"), sessionCookie) {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
		if slices.Contains(o.fetched, "/stolen") {
			t.Errorf("%s: a redirect was followed with the client's secret", name)
		}
	}
	o.claims, o.sign, o.answer, o.broken = nil, nil, nil, nil
	if n := len(w.s.index.providers(w.first.Tenant)); n != 1 || w.s.index.upn("ann@corp.example") != nil {
		t.Errorf("a refused sign-in made a person")
	}
	if r := o.signIn(); codeOf(r) == "" {
		t.Fatalf("the truth is refused too: %d %s", r.status, r.body)
	}
	found := 0
	for _, e := range w.tail() {
		if e.Credential == "federated" && e.Decision == "refused" && strings.Contains(e.Reason, "AADSTS") {
			found++
		}
	}
	if found < 20 {
		t.Errorf("the sign-in log has %d refusals", found)
	}
}

func endless(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	junk := []byte(`{"id_token":"` + strings.Repeat("a", 1<<16))
	for range 40 { // more than is read of one answer
		if _, err := w.Write(junk); err != nil {
			return
		}
	}
}

// An answer is good for the browser that asked, once, at the provider that was
// asked, and not for ever.
func TestAnswersBelongToTheirBrowser(t *testing.T) {
	w := newWorld(t)
	o, evil := newOP(w), newOP(w)
	o.add(nil)
	e := evil.add(map[string]any{"displayName": "Evil", "domains": []string{"evil.example"}})

	c := w.client()
	to := o.leave(c)
	if r := o.back(w.client(), to); codeOf(r) != "" || r.status != 400 {
		t.Errorf("another browser: %d", r.status)
	}
	moved := *to
	q := moved.Query()
	q.Set("redirect_uri", e.text("redirectUri"))
	moved.RawQuery = q.Encode()
	if r := o.back(c, &moved); codeOf(r) != "" || r.status != 400 {
		t.Errorf("at another provider's place: %d", r.status)
	}
	to = o.leave(c)
	if r := o.back(c, to); codeOf(r) == "" {
		t.Fatalf("the right browser: %d %s", r.status, r.body)
	}
	if r := o.back(c, to); codeOf(r) != "" {
		t.Error("an answer is good twice")
	}
	late := w.client()
	to = o.leave(late)
	w.pass(flowLife + time.Second)
	if r := o.back(late, to); codeOf(r) != "" {
		t.Error("an answer is good for ever")
	}
}

// The page leads to the provider by its button and by the domain of a user
// name; a password that was typed there is sent nowhere and checked by nobody.
func TestHomeRealm(t *testing.T) {
	w := newWorld(t)
	o := newOP(w)
	p := o.add(nil)
	page := w.open(w.client(), w.authorizeQuery())
	if !strings.Contains(string(page.body), "Sign in with Corp") || !strings.Contains(string(page.body), "formnovalidate") {
		t.Errorf("no button: %s", page.body)
	}
	for name, v := range map[string]url.Values{"the button": {"idp": {p.text("id")}, "login": {""}, "passwd": {""}}, "the name": {"login": {"ANN@Corp.Example"}, "passwd": {"not-yours"}}} {
		c := w.client()
		page := w.open(c, w.authorizeQuery())
		v.Set("ctx", ctx(page))
		r := w.formBy(c, "/common/login", v)
		if r.status != 200 || !strings.Contains(string(r.body), o.server.URL+"/auth?") || strings.Contains(string(r.body), "not-yours") {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	q := w.authorizeQuery()
	q.Set("login_hint", "ann@corp.example")
	if r := w.open(w.client(), q); r.status != 302 || !strings.Contains(r.header.Get("Location"), "login_hint=ann%40corp.example") {
		t.Errorf("login_hint: %d %s", r.status, r.header.Get("Location"))
	}
	for name, hint := range map[string]string{"another domain": "other.example", "a domain of the tenant": w.first.Domain} {
		q := w.authorizeQuery()
		q.Set("domain_hint", hint)
		if r := w.open(w.client(), q); r.status != 200 {
			t.Errorf("%s: %d", name, r.status)
		}
	}
	for _, d := range []string{w.first.Domain, "x." + w.first.Domain, "localhost", "corp.example", "not a domain", "evil.example/x"} {
		if r := w.graph(w.token, "POST", "identity/identityProviders", map[string]any{"displayName": "X", "issuer": "https://x.example", "clientId": "x", "clientSecret": "x", "domains": []string{d}}); r.status != 400 {
			t.Errorf("the domain %q is claimed: %d %s", d, r.status, r.body)
		}
	}
}

// A provider's word counts as two factors where an administrator said so and
// the ID token does, and not by what it says elsewhere.
func TestFactorsElsewhere(t *testing.T) {
	w := newWorld(t)
	o := newOP(w)
	o.info = map[string]any{"sub": "s-1", "amr": []string{"mfa"}, "department": "x"}
	p := o.add(nil)
	mfa := func() bool {
		who, err := w.verify(o.tokens().text("access_token"))
		if err != nil {
			t.Fatal(err)
		}
		return slices.Contains(who.AMR, "mfa")
	}
	told := func(m map[string]any) { m["amr"], m["auth_time"] = []string{"pwd", "mfa"}, w.now().Unix()-100 }
	if o.claims = told; mfa() {
		t.Error("a provider is believed that nobody trusts so far")
	}
	w.admin("PATCH", "identity/identityProviders/"+p.text("id"), map[string]any{"federatedIdpMfaBehavior": acceptMFA, "mfaClasses": []string{"phr"}})
	if !mfa() {
		t.Error("a trusted provider is not believed")
	}
	if o.claims = nil; mfa() {
		t.Error("what the userinfo endpoint says of factors is believed")
	}
	if o.claims = func(m map[string]any) { m["acr"] = "phr" }; !mfa() {
		t.Error("acr is not believed")
	}
	if o.claims = func(m map[string]any) { m["acr"], m["amr"] = "phrx", "mfa2" }; mfa() {
		t.Error("words that are near are believed")
	}
	o.info["sub"] = "somebody-else"
	if r := o.signIn(); codeOf(r) != "" {
		t.Error("another person's claims are taken")
	}
}

// With private_key_jwt the platform proves itself by a key that never leaves it.
func TestPrivateKeyJWT(t *testing.T) {
	w := newWorld(t)
	o := newOP(w)
	p := o.w.admin("POST", "identity/identityProviders", map[string]any{"displayName": "Corp", "issuer": o.server.URL, "clientId": "castellan", "clientAuthentication": "privateKeyJwt",
		"domains": []string{"corp.example"}, "certificateAuthorities": o.roots()})
	b, err := json.Marshal(p.json["clientAssertionKey"])
	if err != nil {
		t.Fatal(err)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(b, &set); err != nil || len(set.Keys) != 1 || !set.Keys[0].IsPublic() || strings.Contains(string(p.body), `"d":`) {
		t.Fatalf("key %s, %v", b, err)
	}
	proven := false
	o.proof = func(r *http.Request) {
		j, err := jose.ParseSignedCompact(r.FormValue("client_assertion"), []jose.SignatureAlgorithm{jose.ES256})
		if err != nil {
			t.Error(err)
			return
		}
		said, err := j.Verify(set.Keys[0])
		m := map[string]any{}
		if err != nil || json.Unmarshal(said, &m) != nil || m["aud"] != o.server.URL+"/token" || m["sub"] != "castellan" || m["iss"] != "castellan" || m["jti"] == "" || r.FormValue("client_secret") != "" {
			t.Errorf("assertion %s, %v", said, err)
		}
		proven = true
	}
	if r := o.signIn(); codeOf(r) == "" || !proven {
		t.Errorf("%d %s", r.status, r.body)
	}
}

// Who configures providers can't make the platform reach where it should not,
// and only those who may configure them.
func TestProvidersAreConfiguredByFew(t *testing.T) {
	w := newWorld(t)
	_, upn := w.user("ann")
	token := w.graphToken(upn)
	w.admin("GET", "identity/identityProviders", nil)
	for _, path := range []string{"identity/identityProviders", "identity/ldapDirectories"} {
		if r := w.graph(token, "GET", path, nil); r.status != 403 {
			t.Errorf("a person reads %s: %d", path, r.status)
		}
		if r := w.graph(token, "POST", path, map[string]any{}); r.status != 403 {
			t.Errorf("a person adds to %s: %d", path, r.status)
		}
	}
	for name, more := range map[string]map[string]any{
		"http":           {"issuer": "http://op.example"},
		"a user":         {"issuer": "https://u:p@op.example"},
		"a query":        {"issuer": "https://op.example?x"},
		"a file":         {"issuer": "file:///etc/passwd"},
		"no secret":      {"clientSecret": ""},
		"implicit":       {"responseType": "id_token"},
		"unknown":        {"bogus": 1},
		"no certificate": {"certificateAuthorities": "x"},
		"no group":       {"groupMappings": []any{map[string]any{"claimValue": "x", "groupId": arm.NewUUID()}}},
		"empty words":    {"mfaClasses": []string{""}},
	} {
		b := map[string]any{"displayName": "X", "issuer": "https://op.example", "clientId": "x", "clientSecret": "x"}
		for k, v := range more {
			b[k] = v
		}
		if r := w.graph(w.token, "POST", "identity/identityProviders", b); r.status < 400 || r.status > 404 {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	o := newOP(w)
	stranger, _ := ownCertificate(t)
	for name, c := range map[string]struct {
		meta  func(map[string]any)
		roots string
	}{
		"keys over http": {func(m map[string]any) { m["jwks_uri"] = "http://127.0.0.1/jwks" }, o.roots()},
		"another issuer": {func(m map[string]any) { m["issuer"] = "https://evil.example" }, o.roots()},
		"not trusted":    {nil, stranger},
	} {
		o.meta = c.meta
		p := o.add(map[string]any{"certificateAuthorities": c.roots})
		q := w.authorizeQuery()
		q.Set("domain_hint", "corp.example")
		if r := w.open(w.client(), q); r.status != 502 || r.header.Get("Location") != "" {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
		w.admin("DELETE", "identity/identityProviders/"+p.text("id"), nil)
	}
	p := o.add(map[string]any{"issuer": "https://169.254.169.254"})
	q := w.authorizeQuery()
	q.Set("domain_hint", "corp.example")
	if r := w.open(w.client(), q); r.status != 502 {
		t.Errorf("the machine's own metadata are asked: %d", r.status)
	}
	if r := w.graph(w.token, "PATCH", "identity/identityProviders/"+p.text("id"), map[string]any{"issuer": "https://other.example"}); r.status != 400 {
		t.Errorf("the secret is shown to another issuer: %d", r.status)
	}
}

// ownCertificate is a certificate for this machine's loopback, signed by itself.
func ownCertificate(t testing.TB) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "loopback"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	b, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b}))
}

// Where a fresh sign-in is wanted, the provider is asked for one, and an answer
// that does not say that there was one is not taken.
func TestFreshSignInElsewhere(t *testing.T) {
	w := newWorld(t)
	o := newOP(w)
	o.add(nil)
	at := func(age int64) func(map[string]any) {
		return func(m map[string]any) { m["auth_time"] = w.now().Unix() - age }
	}
	for name, c := range map[string]struct {
		ask         url.Values
		prompt, age string // what the provider is asked
		claims      func(map[string]any)
		in          bool
	}{
		"nothing wanted, nothing told": {nil, "", "", nil, true},
		"an old sign-in is as good":    {nil, "", "", at(9000), true},
		"select_account":               {url.Values{"prompt": {"select_account"}}, "select_account", "", nil, true},
		"login, just now":              {url.Values{"prompt": {"login"}}, "login", "0", at(0), true},
		"login and consent, just now":  {url.Values{"prompt": {"login consent"}}, "login", "0", at(0), true},
		"login, an old sign-in":        {url.Values{"prompt": {"login"}}, "login", "0", at(120), false},
		"login, nothing told":          {url.Values{"prompt": {"login"}}, "login", "0", nil, false},
		"login, a text":                {url.Values{"prompt": {"login"}}, "login", "0", func(m map[string]any) { m["auth_time"] = "now" }, false},
		"max_age, young enough":        {url.Values{"max_age": {"600"}}, "", "600", at(500), true},
		"max_age, too old":             {url.Values{"max_age": {"600"}}, "", "600", at(700), false},
		"max_age, nothing told":        {url.Values{"max_age": {"600"}}, "", "600", nil, false},
	} {
		o.claims = c.claims
		b := w.client()
		q := w.authorizeQuery()
		q.Set("domain_hint", "corp.example")
		for k, v := range c.ask {
			q[k] = v
		}
		to, err := url.Parse(w.open(b, q).header.Get("Location"))
		if err != nil {
			t.Fatal(err)
		}
		o.asked = to.Query()
		if o.asked.Get("prompt") != c.prompt || o.asked.Get("max_age") != c.age {
			t.Errorf("%s: asked for %v", name, o.asked)
		}
		r := o.back(b, to)
		shown := codeOf(r) != "" || r.status == 200 && strings.Contains(c.ask.Get("prompt"), "consent")
		if shown != c.in {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	// Somebody who is signed in here is sent there all the same.
	o.claims = at(0)
	c := w.client()
	o.back(c, o.leave(c))
	q := w.authorizeQuery()
	q.Set("prompt", "login")
	q.Set("login_hint", "ann@corp.example")
	if r := w.open(c, q); !strings.Contains(r.header.Get("Location"), "prompt=login") {
		t.Errorf("signed in already: %d %s", r.status, r.header)
	}
}

// A provider or directory that is disabled or deleted ends what it gave, at once.
func TestDisablingEndsSessions(t *testing.T) {
	for name, end := range map[string]func(w *world, at string){
		"disabled": func(w *world, at string) { w.admin("PATCH", at, map[string]any{"isEnabled": false}) },
		"deleted":  func(w *world, at string) { w.admin("DELETE", at, nil) },
	} {
		w := newWorld(t)
		o, other := newOP(w), newOP(w)
		p := o.add(nil)
		other.add(map[string]any{"displayName": "Other", "domains": []string{"other.example"}})
		_, own := w.user("own")
		c := w.client()
		in := w.form("/organizations/oauth2/v2.0/token", w.redeemForm(codeOf(o.back(c, o.leave(c)))))
		kept := w.userTokens(own)
		end(w, "identity/identityProviders/"+p.text("id"))
		if _, err := w.verify(in.text("access_token")); err == nil {
			t.Errorf("%s: the token lives", name)
		}
		if r := w.form(w.tokenPath(), w.refreshForm(in.text("refresh_token"), w.site.Base())); r.status != 400 {
			t.Errorf("%s: the refresh token lives: %d", name, r.status)
		}
		if r := w.open(c, w.authorizeQuery()); codeOf(r) != "" {
			t.Errorf("%s: the session lives", name)
		}
		if _, err := w.verify(kept.text("access_token")); err != nil {
			t.Errorf("%s: somebody else's token: %v", name, err)
		}
	}
}

// Nobody becomes an administrator by whom others vouch for: who configures
// providers may neither bind an administrator nor turn what vouches for one.
func TestAdministratorsAreVouchedForByTheirOwn(t *testing.T) {
	w := newWorld(t)
	o := newOP(w)
	p := o.add(nil)
	bot := w.robot("bot")
	boss, _ := w.user("boss")
	w.give(boss, "Global Administrator")
	plain, _ := w.user("plain")
	bind := func(subject string) map[string]any {
		return map[string]any{"signInType": "federated", "issuer": o.server.URL, "issuerAssignedId": subject}
	}
	at, evil := "identity/identityProviders/"+p.text("id"), map[string]any{"certificateAuthorities": o.roots()}
	for _, role := range []string{"External Identity Provider Administrator", "Security Administrator", "Hybrid Identity Administrator"} {
		id := w.give(bot.id, role)
		if r := w.graph(bot.token, "PATCH", at, evil); r.status != 204 {
			t.Errorf("a %s can't change a provider: %d %s", role, r.status, r.body)
		}
		for _, who := range []string{boss, plain} {
			if r := w.graph(bot.token, "POST", "users/"+who+"/identities", bind("x")); r.status != 403 {
				t.Errorf("a %s binds: %d %s", role, r.status, r.body)
			}
		}
		w.admin("DELETE", "roleManagement/directory/roleAssignments/"+id, nil)
	}
	for _, role := range []string{"User Administrator", "Privileged Authentication Administrator", "Helpdesk Administrator"} {
		id := w.give(bot.id, role)
		if r := w.graph(bot.token, "POST", "users/"+boss+"/identities", bind("x")); r.status != 403 {
			t.Errorf("a %s binds: %d %s", role, r.status, r.body)
		}
		w.admin("DELETE", "roleManagement/directory/roleAssignments/"+id, nil)
	}

	w.admin("POST", "users/"+boss+"/identities", bind("s-1"))
	w.give(bot.id, "External Identity Provider Administrator")
	for _, b := range []map[string]any{evil, {"domains": []string{"evil.example"}}, {"clientSecret": "x"}, {"isEnabled": true}} {
		if r := w.graph(bot.token, "PATCH", at, b); r.status != 403 || !strings.Contains(string(r.body), "disabled") {
			t.Errorf("%v: %d %s", b, r.status, r.body)
		}
	}
	in := o.tokens()
	if who, err := w.verify(in.text("access_token")); err != nil || who.Object != boss {
		t.Fatalf("%+v, %v", who, err)
	}
	// To stop believing it is allowed, and then it can't be turned in the dark.
	if r := w.graph(bot.token, "PATCH", at, map[string]any{"isEnabled": false}); r.status != 204 {
		t.Errorf("disabling: %d %s", r.status, r.body)
	}
	if r := w.graph(bot.token, "PATCH", at, map[string]any{"isEnabled": true}); r.status != 403 {
		t.Errorf("enabling: %d %s", r.status, r.body)
	}
	if r := w.graph(bot.token, "DELETE", at, nil); r.status != 204 {
		t.Errorf("deleting: %d %s", r.status, r.body)
	}
	again := map[string]any{"displayName": "Corp", "issuer": o.server.URL, "clientId": "castellan", "clientSecret": "x", "certificateAuthorities": o.roots()}
	if r := w.graph(bot.token, "POST", "identity/identityProviders", again); r.status != 403 {
		t.Errorf("the same issuer again: %d %s", r.status, r.body)
	}
	w.admin("POST", "identity/identityProviders", again)
}

// A rule never leads into a group that can be given directory roles.
func TestRulesLeadToNoRoles(t *testing.T) {
	w := newWorld(t)
	o := newOP(w)
	p := o.add(nil)
	roles := w.admin("POST", "groups", map[string]any{"displayName": "Admins", "mailNickname": "a", "mailEnabled": false, "securityEnabled": true, "isAssignableToRole": true}).text("id")
	rule := map[string]any{"groupsClaim": "groups", "groupMappings": []any{map[string]any{"claimValue": "engineers", "groupId": roles}}}
	if r := w.graph(w.token, "PATCH", "identity/identityProviders/"+p.text("id"), rule); r.status != 400 || !strings.Contains(string(r.body), roles) {
		t.Errorf("%d %s", r.status, r.body)
	}
	rule["displayName"], rule["issuer"], rule["clientId"], rule["clientSecret"] = "X", "https://x.example", "x", "x"
	if r := w.graph(w.token, "POST", "identity/identityProviders", rule); r.status != 400 {
		t.Errorf("%d %s", r.status, r.body)
	}
}

// A domain belongs to one: neither a tenant nor a provider takes another's.
func TestDomainsBelongToOne(t *testing.T) {
	w := newWorld(t)
	o := newOP(w)
	o.add(nil)
	for _, domain := range []string{"corp.example", "CORP.example", w.first.Domain} {
		if r := w.graph(w.token, "POST", "castellan/tenants", map[string]any{"displayName": "Thief", "defaultDomainName": domain}); r.status < 400 || r.status >= 500 {
			t.Errorf("a tenant takes %s: %d %s", domain, r.status, r.body)
		}
	}
	w.admin("POST", "castellan/tenants", map[string]any{"displayName": "Other", "defaultDomainName": "other.example"})
	for _, domain := range []string{"other.example", "x.other.example"} {
		b := map[string]any{"displayName": "X", "issuer": "https://x.example", "clientId": "x", "clientSecret": "x", "domains": []string{domain}}
		if r := w.graph(w.token, "POST", "identity/identityProviders", b); r.status != 400 {
			t.Errorf("a provider takes %s: %d %s", domain, r.status, r.body)
		}
	}
}

// A person whom SCIM made is bound by externalId, unless they administer.
func TestExternalIDsBindNoAdministrators(t *testing.T) {
	for role, in := range map[string]bool{"": true, "Reports Reader": true, "Groups Administrator": false, "Global Administrator": false} {
		w := newWorld(t)
		o := newOP(w)
		o.add(map[string]any{"matchExternalId": true, "createUsers": false})
		id, _ := w.user("made")
		if err := w.s.DB.Do(t.Context(), func(tx *store.Tx) error {
			u, _, err := fetch[*User](tx, w.first.Tenant, "user", id)
			if err != nil {
				return err
			}
			u.Origin, u.External = scimOrigin, "s-1"
			return w.s.put(tx, u)
		}); err != nil {
			t.Fatal(err)
		}
		if role != "" {
			w.give(id, role)
		}
		if r := o.signIn(); (codeOf(r) != "") != in {
			t.Errorf("%q: %d %s", role, r.status, r.body)
		}
	}
}
