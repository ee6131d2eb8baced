package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// one is somebody who goes a way to a token: a person or an application.
type one struct {
	id, upn string
	end     func() // ends what a token was given for: the sign-ins, or the credential
}

// ask is the last step of a way: at a tenant's endpoint, with claims.
type ask func(tenant, claims string) reply

// way is a way to a token.
type way struct {
	name   string
	grant  string // of the token endpoint; "" for ways that don't lead there
	person bool
	anew   bool                    // each request shows all that there is to show
	inner  bool                    // the platform itself goes it, in a tenant that is given
	begin  func() (who one, a ask) // all steps but the last, for somebody new
	from   func() context.Context  // where a token of the last way is good; nil: everywhere
}

// lane is a world with all that its ways need.
type lane struct {
	*world
	cluster *cluster
	op      *elsewhereOP
	front   *ensemble
	graph   string
	n       int
}

func newLane(t *testing.T) *lane {
	w, c := clusterWorld(t)
	l := &lane{world: w, cluster: c, op: newOP(w), front: newEnsemble(w), graph: "https://" + w.site.GraphHost()}
	l.op.add(nil)
	directory := w.admin("GET", "servicePrincipals?$filter="+url.QueryEscape("appId eq '00000003-0000-0000-c000-000000000000'"), nil).json["value"].([]any)[0].(m)["id"].(string)
	for _, client := range []string{l.front.appSP, l.front.apiSP} {
		w.allow(client, directory, "User.Read")
	}
	w.allow(l.front.appSP, l.front.apiSP, "Things.Read")
	w.admin("PATCH", "policies/passwordGrantPolicy", m{"isEnabled": true, "allowedClients": []string{}})
	w.admin("PATCH", "policies/passwordGrantPolicy", m{"allowedClients": []string{azureCLI}})
	return l
}

// person is somebody new.
func (l *lane) person() one {
	l.n++
	id, upn := l.user(fmt.Sprint("p", l.n))
	return l.signsOut(id, upn)
}

func (l *lane) signsOut(id, upn string) one {
	return one{id, upn, func() { l.admin("POST", "users/"+id+"/revokeSignInSessions", nil) }}
}

// at is the last step that a form is.
func (l *lane) at(f url.Values) ask {
	return func(tenant, claims string) reply {
		if claims != "" {
			f.Set("claims", claims)
		}
		return l.form("/"+tenant+"/oauth2/v2.0/token", f)
	}
}

func (l *lane) byGraph(f url.Values) url.Values {
	f.Set("scope", l.graph+"/.default offline_access openid")
	return f
}

// byApp is a new application that asks by a credential which give makes; end
// takes it away again.
func (l *lane) byApp(give func(app reply) (f url.Values, end func())) (one, ask) {
	l.n++
	app, sp := l.newApp(fmt.Sprint("a", l.n), nil)
	f, end := give(app)
	f.Set("grant_type", "client_credentials")
	f.Set("client_id", app.text("appId"))
	f.Set("scope", l.graph+"/.default")
	return one{id: sp, end: end}, l.at(f)
}

func (l *lane) secret(app reply) (url.Values, func()) {
	made := l.admin("POST", "applications/"+app.text("id")+"/addPassword", m{"passwordCredential": m{"displayName": "s"}})
	return url.Values{"client_secret": {made.text("secretText")}}, func() {
		l.admin("POST", "applications/"+app.text("id")+"/removePassword", m{"keyId": made.text("keyId")})
	}
}

func (l *lane) certificate(app reply) (url.Values, func()) {
	cert, key := ownCertificate(l.t)
	block, _ := pem.Decode([]byte(cert))
	l.admin("PATCH", "applications/"+app.text("id"), m{"keyCredentials": []any{m{"type": "AsymmetricX509Cert", "usage": "Verify", "key": base64.StdEncoding.EncodeToString(block.Bytes)}}})
	sum := sha256.Sum256(block.Bytes)
	return url.Values{"client_assertion_type": {assertionType}, "client_assertion": {l.assert(app, key, b64.EncodeToString(sum[:]))}}, func() {
		l.admin("PATCH", "applications/"+app.text("id"), m{"keyCredentials": []any{}})
	}
}

// assert is a client assertion that many requests can show, for each tenant has its own endpoint.
func (l *lane) assert(app reply, key, x5t string) string {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: pkcs8(l.t, key)}, (&jose.SignerOptions{}).WithHeader("x5t#S256", x5t))
	if err != nil {
		l.t.Fatal(err)
	}
	j, err := signer.Sign(mustJSON(m{"iss": app.text("appId"), "sub": app.text("appId"), "aud": l.site.Base() + l.tokenPath(), "jti": rand.Text(), "exp": l.now().Add(10 * time.Minute).Unix()}))
	if err != nil {
		l.t.Fatal(err)
	}
	out, err := j.CompactSerialize()
	if err != nil {
		l.t.Fatal(err)
	}
	return out
}

func (l *lane) federated(app reply) (url.Values, func()) {
	at := "applications/" + app.text("id") + "/federatedIdentityCredentials"
	f := l.admin("POST", at, m{"name": "cluster", "issuer": l.cluster.server.URL, "subject": workload, "audiences": []string{ExchangeAudience}})
	return url.Values{"client_assertion_type": {assertionType}, "client_assertion": {l.cluster.token(l.now(), nil)}}, func() { l.admin("DELETE", at+"/"+f.text("id"), nil) }
}

// managed is a resource's own identity, whose tokens the platform hands out.
func (l *lane) managed() (one, ask) {
	l.n++
	of := arm.MustID(fmt.Sprintf("/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/ws%d", l.n))
	var sp string
	if err := l.db.Do(l.t.Context(), func(tx *store.Tx) (err error) { sp, _, err = l.s.Ensure(tx, of, "ws"); return err }); err != nil {
		l.t.Fatal(err)
	}
	end := func() {
		if err := l.db.Do(l.t.Context(), func(tx *store.Tx) error { return l.s.Drop(tx, of) }); err != nil {
			l.t.Fatal(err)
		}
	}
	return one{id: sp, end: end}, func(string, string) reply {
		token, _, _, err := l.managedToken(of, l.graph)
		return inside(token, err)
	}
}

// lent is a person whose identity a job has.
func (l *lane) lent() (one, ask) {
	who := l.person()
	c, err := l.verify(l.userTokens(who.upn).text("access_token"))
	if err != nil {
		l.t.Fatal(err)
	}
	loan := Loan{ID: "loan-" + who.id, Tenant: l.first.Tenant, User: who.id, SignIn: c.SignIn, Sandbox: "job"}
	l.s.Lend(loan)
	return who, func(string, string) reply { return inside(l.lentTo(loan.ID, "https://storage.azure.com")) }
}

// inside is the platform's own answer as if it came over the wire.
func inside(token string, err error) reply {
	if err != nil {
		return reply{status: gate.Status(err), body: []byte(err.Error())}
	}
	return reply{status: http.StatusOK, json: m{"access_token": token}}
}

// ways are all ways to an access token.
func (l *lane) ways() []way {
	code := func() (one, ask) {
		who := l.person()
		return who, l.at(l.byGraph(l.redeemForm(codeOf(l.signIn(l.client(), who.upn, goodPassword, l.authorizeQuery())))))
	}
	device := func(grant string) func() (one, ask) {
		return func() (one, ask) {
			who := l.person()
			d := l.form("/organizations/oauth2/v2.0/devicecode", url.Values{"client_id": {azureCLI}, "scope": {l.graph + "/.default offline_access"}})
			l.device(l.client(), who.upn, d.text("user_code"), "yes")
			return who, l.at(url.Values{"grant_type": {grant}, "client_id": {azureCLI}, "device_code": {d.text("device_code")}})
		}
	}
	const longDevice = "urn:ietf:params:oauth:grant-type:device_code"
	return []way{
		{name: "a code", grant: "authorization_code", person: true, begin: code},
		{name: "a code for a client with a secret", grant: "authorization_code", person: true, begin: func() (one, ask) {
			who := l.person()
			c := codeOf(l.signIn(l.client(), who.upn, goodPassword, l.front.ask(l.graph+"/.default offline_access", nil)))
			return who, l.at(url.Values{"grant_type": {"authorization_code"}, "client_id": {l.front.clientID}, "client_secret": {l.front.secret}, "code": {c}, "redirect_uri": {back}})
		}},
		{name: "a browser that is signed in", grant: "authorization_code", person: true, begin: func() (one, ask) {
			who, c := l.person(), l.client()
			l.signIn(c, who.upn, goodPassword, l.authorizeQuery())
			return who, func(tenant, claims string) reply {
				q := l.authorizeQuery()
				q.Set("prompt", "none")
				if claims != "" {
					q.Set("claims", claims)
				}
				return l.at(l.byGraph(l.redeemForm(codeOf(l.open(c, q)))))(tenant, claims)
			}
		}},
		{name: "another provider", grant: "authorization_code", person: true, begin: func() (one, ask) {
			l.n++
			name := fmt.Sprintf("e%d@corp.example", l.n)
			l.op.claims = func(c map[string]any) { c["sub"], c["preferred_username"], c["email"] = name, name, name }
			f := l.byGraph(l.redeemForm(codeOf(l.op.signIn())))
			g := l.pending(f.Get("code"))
			return l.signsOut(g.User, name), l.at(f)
		}},
		{name: "a refresh token", grant: "refresh_token", person: true, begin: func() (one, ask) {
			who := l.person()
			return who, l.at(l.refreshForm(l.userTokens(who.upn).text("refresh_token"), l.graph))
		}},
		{name: "a device code", grant: "device_code", person: true, begin: device("device_code")},
		{name: "a device code, by its long name", grant: longDevice, person: true, begin: device(longDevice)},
		{name: "a password", grant: "password", person: true, anew: true, begin: func() (one, ask) {
			who := l.person()
			return who, l.at(l.byGraph(url.Values{"grant_type": {"password"}, "client_id": {azureCLI}, "username": {who.upn}, "password": {goodPassword}}))
		}},
		{name: "on behalf of", grant: behalfGrant, person: true, begin: func() (one, ask) {
			who := l.person()
			in := l.front.redeem(codeOf(l.signIn(l.client(), who.upn, goodPassword, l.front.ask("api://"+l.front.apiID+"/Things.Read", nil))))
			return who, l.at(l.byGraph(url.Values{"grant_type": {behalfGrant}, "requested_token_use": {behalfUse}, "client_id": {l.front.apiID}, "client_secret": {l.secretOf(l.front.api)}, "assertion": {in.text("access_token")}}))
		}},
		{name: "a client secret", grant: "client_credentials", begin: func() (one, ask) { return l.byApp(l.secret) }},
		{name: "a certificate", grant: "client_credentials", begin: func() (one, ask) { return l.byApp(l.certificate) }},
		{name: "a federated credential", grant: "client_credentials", begin: func() (one, ask) { return l.byApp(l.federated) }},
		{name: "a managed identity", inner: true, begin: l.managed},
		{name: "a job that an identity was lent to", person: true, inner: true, begin: l.lent, from: func() context.Context { return within("job") }},
	}
}

// pending is the row of a code that was not redeemed yet.
func (l *lane) pending(code string) (g keyedGrant) {
	l.t.Helper()
	ok := false
	if err := l.db.View(l.t.Context(), func(tx *store.Tx) (err error) { g, ok, err = loadGrant(tx, codeGrant, code, l.now()); return err }); err != nil || !ok {
		l.t.Fatalf("no code: %v", err)
	}
	return g
}

// knock shows a token as a call brings it: what the refusal asks for; ok is true
// if there is none.
func (l *lane) knock(x way, token string) (asks string, ok bool) {
	r := &http.Request{Header: http.Header{"Authorization": {"Bearer " + token}}, RemoteAddr: "127.0.0.1:1", URL: &url.URL{Path: "/"}}
	if x.from != nil {
		r = r.WithContext(x.from())
	}
	_, err := l.s.Bearer(append(l.site.GraphAudiences(), l.site.StorageAudiences()...)...)(r)
	return gate.Challenge(err), err == nil
}

// obstacle is something that stands in the way of whoever goes it.
type obstacle struct {
	name         string
	put          func(l *lane, who one) (away func()) // away is nil where nothing brings it back
	people, apps bool                                 // whom it stops
	code, says   string                               // for people: the error, and a part of the answer
	anew         bool                                 // it stops nobody who shows everything anew
}

func policyFor(change func(m) m) func(*lane, one) func() {
	return func(l *lane, who one) func() {
		if who.upn == "" {
			id := l.admin("POST", capPath, with(change(capolicy([]string{"All"}, "mfa")), "conditions.users.excludeUsers", []string{l.first.UserObject})).text("id")
			return func() { l.admin("DELETE", capPath+"/"+id, nil) }
		}
		id := l.admin("POST", capPath, with(change(capolicy([]string{"All"}, "mfa")), "conditions.users.includeUsers", []string{who.id})).text("id")
		return func() { l.admin("DELETE", capPath+"/"+id, nil) }
	}
}

var obstacles = []obstacle{
	{name: "a policy that wants MFA", people: true, code: "interaction_required", says: "AADSTS50076", put: policyFor(func(p m) m { return p })},
	{name: "a policy that blocks", people: true, code: "invalid_grant", says: "AADSTS53003", put: policyFor(func(p m) m { return with(p, "grantControls.builtInControls", []string{"block"}) })},
	{name: "the account disabled", people: true, apps: true, put: func(l *lane, who one) func() {
		l.admin("PATCH", map[bool]string{true: "users/", false: "servicePrincipals/"}[who.upn != ""]+who.id, m{"accountEnabled": false})
		return nil
	}},
	{name: "the sign-ins or the credential ended", people: true, apps: true, anew: true, put: func(_ *lane, who one) func() { who.end(); return nil }},
	{name: "another password", people: true, put: func(l *lane, who one) func() {
		switch {
		case strings.HasSuffix(who.upn, l.first.Domain):
			l.admin("PATCH", "users/"+who.id, m{"passwordProfile": m{"password": goodPassword + "2", "forceChangePasswordNextSignIn": false}})
		case who.upn != "":
			who.end() // the password is the other provider's
		}
		return nil
	}},
}

// OID-12: there is no way to a token around what stands in it. Every grant that
// the token endpoint has, and every way besides, is refused by the same
// obstacles; a token of any of them that was given before meets the next call's
// challenge, where its client can answer one.
func TestNoWayAround(t *testing.T) {
	l := newLane(t)
	other, err := l.s.found(t.Context(), Founding{Tenant: arm.NewUUID(), Domain: "other.example"}, func(fn func(*store.Tx) error) error { return l.db.Do(t.Context(), fn) })
	if err != nil {
		t.Fatal(err)
	}
	home, ways, seen := l.first.Tenant, l.ways(), map[string]bool{}
	for _, x := range ways {
		seen[x.grant] = true
		for i, o := range obstacles {
			l.stops(t, x, o, home)
			if !(x.person && o.people || !x.person && o.apps) {
				continue
			}
			l.dies(t, x, o, home, cp1)
			if i == 0 {
				l.dies(t, x, o, home, "")
			}
		}
		if x.inner {
			continue
		}
		if _, ask := x.begin(); !refused(ask(other.Tenant, "")) {
			t.Errorf("%s: a token of another tenant's endpoint", x.name)
		}
	}
	for name := range grantTypes {
		if !seen[name] {
			t.Errorf("nobody tries the grant %s", name)
		}
	}
}

func refused(r reply) bool {
	return r.status >= 400 && r.status < 500 && r.text("access_token")+r.text("refresh_token")+r.text("id_token") == ""
}

// stops holds that a way ends at an obstacle, and that nothing was used up by it.
func (l *lane) stops(t *testing.T, x way, o obstacle, home string) {
	t.Helper()
	who, ask := x.begin()
	away := o.put(l, who)
	r := ask(home, "")
	if away != nil {
		away()
	}
	if stopped := (x.person && o.people || !x.person && o.apps) && !(o.anew && x.anew); refused(r) != stopped {
		t.Errorf("%s, %s: %d %s; refused should be %v", x.name, o.name, r.status, r.body, stopped)
	} else if stopped && o.code != "" && !x.inner && (r.code() != o.code || !strings.Contains(string(r.body), o.says) || !strings.Contains(r.text("claims"), "capolids")) {
		// A browser is told at the authorize endpoint, so that there is no code.
		if x.name != "a browser that is signed in" {
			t.Errorf("%s, %s: %d %s; want %s %s with claims", x.name, o.name, r.status, r.body, o.code, o.says)
		}
	}
	if away == nil || !x.person {
		return
	}
	l.pass(10 * time.Second) // devices ask no faster
	if r := ask(home, ""); r.status != http.StatusOK {
		t.Errorf("%s: once %s is gone: %d %s", x.name, o.name, r.status, r.body)
	}
}

// dies holds that a token of a way dies of an obstacle, with a challenge if
// the client said that it can answer one.
func (l *lane) dies(t *testing.T, x way, o obstacle, home, claims string) {
	t.Helper()
	who, ask := x.begin()
	given := ask(home, claims)
	if _, ok := l.knock(x, given.text("access_token")); !ok {
		t.Fatalf("%s: the token opens nothing: %d %s", x.name, given.status, given.body)
	}
	away := o.put(l, who)
	asks, ok := l.knock(x, given.text("access_token"))
	if ok || (asks != "") != (claims != "" && !x.inner) {
		t.Errorf("%s, %s: the token from before opens: %v, challenge %q for a client of %q", x.name, o.name, ok, asks, claims)
	}
	if away != nil {
		away()
	}
}

func pkcs8(t testing.TB, text string) any {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
