package identity

import (
	"crypto/sha256"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"castellan/internal/arm"
)

func sha(s string) []byte {
	sum := sha256.Sum256([]byte(s))
	return sum[:]
}

// An application gets a token by its secret, at both endpoints and in both ways
// of showing it, and the token proves who it is.
func TestClientCredentials(t *testing.T) {
	w := newWorld(t)
	base := url.Values{"grant_type": {"client_credentials"}, "client_id": {w.first.ClientID}, "client_secret": {string(w.first.ClientSecret.Reveal())}}
	for name, c := range map[string]struct {
		path, key, value string
	}{
		"v2":                         {"/oauth2/v2.0/token", "scope", w.site.Base() + "/.default"},
		"v2 with OIDC scopes":        {"/oauth2/v2.0/token", "scope", "openid offline_access profile " + w.site.Base() + "/.default"},
		"v2 with two slashes":        {"/oauth2/v2.0/token", "scope", "https://management.core.windows.net//.default"},
		"v1":                         {"/oauth2/token", "resource", w.site.Base() + "/"},
		"v1 by the API's app id":     {"/oauth2/token", "resource", "797f4846-ba00-4fd7-ba43-dac1f8f63013"},
		"v1 asked for in v2's words": {"/oauth2/token", "scope", w.site.Base() + "/.default"},
	} {
		v := url.Values{c.key: {c.value}}
		for k := range base {
			v.Set(k, base.Get(k))
		}
		for _, tenant := range []string{w.first.Tenant, w.first.Domain, strings.ToUpper(w.first.Tenant)} {
			r := w.form("/"+tenant+c.path, v)
			if r.status != 200 {
				t.Errorf("%s: %d %s", name, r.status, r.body)
				continue
			}
			who, err := w.verify(r.text("access_token"))
			if err != nil || who.Object != w.first.ClientObject || who.App != w.first.ClientID || who.Kind != arm.ServicePrincipal || who.Tenant != w.first.Tenant {
				t.Errorf("%s: %+v, %v", name, who, err)
			}
		}
	}
	req, _ := http.NewRequest("POST", w.site.Base()+w.tokenPath(), strings.NewReader("grant_type=client_credentials&scope="+url.QueryEscape(w.site.Base()+"/.default")))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(url.QueryEscape(w.first.ClientID), url.QueryEscape(string(w.first.ClientSecret.Reveal())))
	if r := w.do(w.client(), req); r.status != 200 {
		t.Errorf("basic: %d %s", r.status, r.body)
	}
}

// Token requests that are wrong are refused in Entra's words, and none gives
// anything.
func TestTokenRefusals(t *testing.T) {
	w := newWorld(t)
	good := url.Values{"grant_type": {"client_credentials"}, "client_id": {w.first.ClientID}, "client_secret": {string(w.first.ClientSecret.Reveal())}, "scope": {w.site.Base() + "/.default"}}
	with := func(k, v string) url.Values {
		out := url.Values{}
		for n := range good {
			out.Set(n, good.Get(n))
		}
		if out.Set(k, v); v == "" {
			out.Del(k)
		}
		return out
	}
	for name, c := range map[string]struct {
		path   string
		form   url.Values
		status int
		code   string
		number string
	}{
		"wrong secret":        {w.tokenPath(), with("client_secret", "x"), 401, "invalid_client", "AADSTS7000215"},
		"no secret":           {w.tokenPath(), with("client_secret", ""), 401, "invalid_client", "AADSTS7000218"},
		"no such client":      {w.tokenPath(), with("client_id", arm.NewUUID()), 400, "unauthorized_client", "AADSTS700016"},
		"the CLI as itself":   {w.tokenPath(), with("client_id", azureCLI), 401, "invalid_client", "AADSTS7000215"},
		"no such tenant":      {"/" + arm.NewUUID() + "/oauth2/v2.0/token", good, 400, "invalid_request", "AADSTS90002"},
		"no tenant":           {"/common/oauth2/v2.0/token", good, 400, "invalid_request", "AADSTS50059"},
		"no such resource":    {w.tokenPath(), with("scope", "https://evil.example/.default"), 400, "invalid_resource", "AADSTS500011"},
		"no scope":            {w.tokenPath(), with("scope", ""), 400, "invalid_request", "AADSTS900144"},
		"a single permission": {w.tokenPath(), with("scope", w.site.Base()+"/user_impersonation"), 400, "invalid_scope", "AADSTS1002012"},
		"two resources":       {w.tokenPath(), with("scope", w.site.Base()+"/.default https://vault.azure.net/.default"), 400, "invalid_scope", "AADSTS28000"},
		"a password":          {w.tokenPath(), with("grant_type", "password"), 400, "unsupported_grant_type", "AADSTS70003"},
		"no grant":            {w.tokenPath(), with("grant_type", ""), 400, "invalid_request", "AADSTS900144"},
	} {
		r := w.form(c.path, c.form)
		if r.status != c.status || r.code() != c.code || !strings.HasPrefix(r.text("error_description"), c.number+":") || r.json["access_token"] != nil {
			t.Errorf("%s: %d %s, want %d %s %s", name, r.status, r.body, c.status, c.code, c.number)
		}
	}
	twice := w.form(w.tokenPath(), url.Values{"grant_type": {"client_credentials", "password"}})
	if twice.status != 400 || !strings.Contains(twice.text("error_description"), "duplicated") {
		t.Errorf("a parameter given twice: %d %s", twice.status, twice.body)
	}
	w.pass(firstSecret)
	if r := w.form(w.tokenPath(), good); r.status != 401 || !strings.HasPrefix(r.text("error_description"), "AADSTS7000222:") {
		t.Errorf("an expired secret: %d %s", r.status, r.body)
	}
}

// A person signs in at the page, and gets what clients need: a token for the
// API, an ID token, a refresh token, and who they are.
func TestAuthorizationCode(t *testing.T) {
	w := newWorld(t)
	id, upn := w.user("ann")
	r := w.userTokens(upn)
	who, err := w.verify(r.text("access_token"))
	if err != nil || who.Object != id || who.Kind != arm.User || who.Name != upn || who.App != azureCLI {
		t.Fatalf("%+v, %v", who, err)
	}
	m := claims(t, r.text("access_token"))
	for k, want := range map[string]any{"tid": w.first.Tenant, "oid": id, "appid": azureCLI, "idtyp": "user", "ver": "1.0", "upn": upn, "aud": w.site.Base(), "iss": w.site.Base() + "/" + w.first.Tenant + "/"} {
		if m[k] != want {
			t.Errorf("%s = %v, want %v", k, m[k], want)
		}
	}
	if left := m["exp"].(float64) - m["iat"].(float64); left < 3600 || left > 5400 {
		t.Errorf("the token lives %v s", left)
	}
	n := claims(t, r.text("id_token"))
	if n["aud"] != azureCLI || n["nonce"] != "no" || n["oid"] != id || n["iss"] != w.site.Base()+"/"+w.first.Tenant+"/v2.0" {
		t.Errorf("ID token %v", n)
	}
	if r.text("client_info") == "" || !strings.Contains(r.text("scope"), w.site.Base()+"/.default") {
		t.Errorf("answer %s", r.body)
	}
}

// Where an administrator chose the password, the person must choose another
// before anything is given, and only once.
func TestMustChange(t *testing.T) {
	w := newWorld(t)
	c := w.client()
	page := w.signIn(c, w.first.UserName, string(w.first.Password.Reveal()), w.authorizeQuery())
	if codeOf(page) != "" || !strings.Contains(string(page.body), "newpasswd") {
		t.Fatalf("no page to change the password: %s", page.body)
	}
	for name, v := range map[string][2]string{"too short": {"short", "short"}, "not the same": {goodPassword, goodPassword + "x"}, "the old one": {string(w.first.Password.Reveal()), string(w.first.Password.Reveal())}, "the user's name": {"xx-admin-xx-yy-zz", "xx-admin-xx-yy-zz"}} {
		r := w.formBy(c, "/common/changepassword", url.Values{"ctx": {ctx(page)}, "newpasswd": {v[0]}, "confirmnewpasswd": {v[1]}})
		if codeOf(r) != "" || r.status != 400 {
			t.Errorf("%s: %d", name, r.status)
		}
	}
	change := url.Values{"ctx": {ctx(page)}, "newpasswd": {goodPassword}, "confirmnewpasswd": {goodPassword}}
	if r := w.formBy(w.client(), "/common/changepassword", change); r.status != 400 {
		t.Errorf("another browser changes the password: %d", r.status)
	}
	r := w.formBy(c, "/common/changepassword", change)
	if codeOf(r) == "" {
		t.Fatalf("changed: %d %s", r.status, r.body)
	}
	if r := w.formBy(c, "/common/changepassword", change); r.status != 400 {
		t.Errorf("the form works twice: %d", r.status)
	}
	if r := w.form(w.tokenPath(), w.redeemForm(codeOf(r))); r.status != 200 {
		t.Errorf("redeeming: %d %s", r.status, r.body)
	}
}

// OID-01: a code goes to exactly the addresses that are registered. On the
// person's own machine the port is free, and nothing else is.
func TestRedirectsAreExact(t *testing.T) {
	w := newWorld(t)
	app := w.admin("POST", "applications", map[string]any{"displayName": "a", "web": map[string]any{"redirectUris": []string{"https://app.example/cb"}}, "publicClient": map[string]any{"redirectUris": []string{"http://localhost/cb"}}})
	w.admin("POST", "servicePrincipals", map[string]any{"appId": app.text("appId")})
	q := w.authorizeQuery()
	q.Set("client_id", app.text("appId"))
	for _, uri := range []string{"https://app.example/cb", "http://localhost/cb", "http://localhost:1/cb", "http://localhost:65535/cb"} {
		q.Set("redirect_uri", uri)
		if r := w.open(w.client(), q); r.status != 200 || ctx(r) == "" {
			t.Errorf("%s: %d %s", uri, r.status, r.body)
		}
	}
	for _, uri := range []string{
		"", "https://app.example/cb/", "https://app.example/cb2", "https://app.example/c", "https://app.example", "https://app.example/", "https://app.example/cb/x", "https://app.example/cb/../x",
		"https://app.example/x/../cb", "https://app.example/%63b", "https://app.example/cb%2f", "https://app.example/cb%2e%2e", "https://app.example/cb#", "https://app.example/cb#x", "https://app.example/cb?x", "https://app.example/cb?",
		"https://app.example@evil.example/cb", "https://evil.example@app.example/cb", "https://app.example.evil.example/cb", "https://evil.app.example/cb", "https://app.example:443/cb", "https://app.example:8443/cb", "http://app.example/cb", "HTTPS://app.example/cb",
		"https://App.example/cb", "https://app.example./cb", "https:/app.example/cb", "https:app.example/cb", "https:\\\\app.example/cb", "https://app.example\\cb", "//app.example/cb", "app.example/cb", " https://app.example/cb", "https://app.example/cb ",
		"https://app.example/CB", "https://app.example//cb", "javascript:alert(1)", "http://127.0.0.1/cb", "http://[::1]/cb", "http://localhost", "http://localhost:1", "http://localhost:1/", "http://localhost:1/cb/", "http://localhost:1/cb/../x", "http://localhost:1@evil.example/cb",
		"http://localhost.evil.example/cb", "http://localhost:x/cb", "http://localhost:/cb", "http://localhost:123456/cb", "https://localhost/cb", "http://localhost/cb?x=1", "http://LOCALHOST/cb", "http://localhost%00/cb", "https://app.example/cb\n", "https://app.example/cb\x00",
	} {
		q.Set("redirect_uri", uri)
		r := w.open(w.client(), q)
		if r.status != 400 || r.header.Get("Location") != "" || ctx(r) != "" {
			t.Errorf("%q: %d to %q", uri, r.status, r.header.Get("Location"))
		}
	}
}

// OID-02: of many redemptions of one code exactly one succeeds, and one more,
// later, ends everything that the code gave.
func TestCodeIsUsedOnce(t *testing.T) {
	w := newWorld(t)
	_, upn := w.user("ann")
	code := codeOf(w.signIn(w.client(), upn, goodPassword, w.authorizeQuery()))
	won := w.race(50, w.redeemForm(code))
	if len(won) != 1 {
		t.Fatalf("%d of 50 redemptions succeeded", len(won))
	}
	w.pass(time.Second)
	if r := w.form(w.tokenPath(), w.redeemForm(code)); r.code() != "invalid_grant" {
		t.Errorf("once more: %d %s", r.status, r.body)
	}
	if _, err := w.verify(won[0].text("access_token")); err == nil {
		t.Error("the code's access token outlives the code's second use")
	}
	if r := w.form(w.tokenPath(), w.refreshForm(won[0].text("refresh_token"), w.site.Base())); r.code() != "invalid_grant" {
		t.Errorf("the code's refresh token outlives the code's second use: %d", r.status)
	}
}

// race sends a form many times at once and returns the successes.
func (w *world) race(n int, v url.Values) []reply {
	var wg sync.WaitGroup
	out := make([]reply, n)
	for i := range n {
		wg.Add(1)
		go func() {
			defer wg.Done()
			out[i] = w.form(w.tokenPath(), v)
		}()
	}
	wg.Wait()
	var won []reply
	for _, r := range out {
		if r.status == 200 {
			won = append(won, r)
		}
	}
	return won
}

// OID-03: a public client must prove that it began the flow.
func TestPKCE(t *testing.T) {
	w := newWorld(t)
	_, upn := w.user("ann")
	for name, change := range map[string]func(url.Values){
		"no challenge":  func(q url.Values) { q.Del("code_challenge") },
		"plain":         func(q url.Values) { q.Set("code_challenge_method", "plain") },
		"no method":     func(q url.Values) { q.Del("code_challenge_method") },
		"not a hash":    func(q url.Values) { q.Set("code_challenge", "x") },
		"implicit flow": func(q url.Values) { q.Set("response_type", "token") },
		"hybrid flow":   func(q url.Values) { q.Set("response_type", "code id_token") },
	} {
		q := w.authorizeQuery()
		change(q)
		r := w.open(w.client(), q)
		to := r.header.Get("Location")
		if r.status != 302 || !strings.HasPrefix(to, localhost+"?") || !strings.Contains(to, "error=") || strings.Contains(to, "code=") {
			t.Errorf("%s: %d to %q", name, r.status, to)
		}
	}
	for name, v := range map[string]string{"no verifier": "", "a wrong one": strings.Repeat("x", 43), "the challenge itself": challenge(verifier)} {
		f := w.redeemForm(codeOf(w.signIn(w.client(), upn, goodPassword, w.authorizeQuery())))
		f.Set("code_verifier", v)
		if r := w.form(w.tokenPath(), f); r.code() != "invalid_grant" {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
		f.Set("code_verifier", verifier)
		if r := w.form(w.tokenPath(), f); r.status != 200 {
			t.Errorf("%s uses the code up: %s", name, r.body)
		}
	}
}

// OID-04: a refresh token is used once. Of many at once one succeeds; one that
// comes later means theft, and ends the whole line.
func TestRefreshTokensRotate(t *testing.T) {
	w := newWorld(t)
	_, upn := w.user("ann")
	first := w.userTokens(upn)
	w.pass(time.Second)
	won := w.race(100, w.refreshForm(first.text("refresh_token"), w.site.Base()))
	if len(won) != 1 {
		t.Fatalf("%d of 100 refreshes succeeded", len(won))
	}
	w.pass(time.Second)
	second := w.form(w.tokenPath(), w.refreshForm(won[0].text("refresh_token"), "https://vault.azure.net"))
	if second.status != 200 {
		t.Fatalf("refreshing again, for another API: %d %s", second.status, second.body)
	}
	w.pass(time.Second)
	if r := w.form(w.tokenPath(), w.refreshForm(first.text("refresh_token"), w.site.Base())); r.code() != "invalid_grant" {
		t.Errorf("an old one: %d %s", r.status, r.body)
	}
	if r := w.form(w.tokenPath(), w.refreshForm(second.text("refresh_token"), w.site.Base())); r.code() != "invalid_grant" {
		t.Errorf("the line lives on: %d %s", r.status, r.body)
	}
	if _, err := w.verify(won[0].text("access_token")); err == nil {
		t.Error("an access token of the line lives on")
	}
	alert := false
	for _, e := range w.tail() {
		alert = alert || strings.Contains(e.Reason, "somebody else may have it")
	}
	if !alert {
		t.Error("the audit log does not tell of it")
	}
}

// OID-05: device codes are asked after at their pace, expire, and user codes
// can't be guessed.
func TestDeviceCode(t *testing.T) {
	w := newWorld(t)
	id, upn := w.user("ann")
	begin := func() reply {
		r := w.form("/organizations/oauth2/v2.0/devicecode", url.Values{"client_id": {azureCLI}, "scope": {w.site.Base() + "/.default offline_access"}})
		if r.status != 200 {
			t.Fatalf("devicecode: %d %s", r.status, r.body)
		}
		return r
	}
	poll := func(r reply, grant string) reply {
		return w.form("/organizations/oauth2/v2.0/token", url.Values{"grant_type": {grant}, "client_id": {azureCLI}, "device_code": {r.text("device_code")}, "code": {r.text("device_code")}})
	}
	const long = "urn:ietf:params:oauth:grant-type:device_code"
	d := begin()
	if r := poll(d, "device_code"); r.code() != "authorization_pending" || r.status != 400 {
		t.Errorf("first poll: %d %s", r.status, r.body)
	}
	if r := poll(d, long); r.code() != "slow_down" {
		t.Errorf("at once again: %d %s", r.status, r.body)
	}
	w.pass(interval)
	if r := poll(d, long); r.code() != "authorization_pending" {
		t.Errorf("at its pace: %d %s", r.status, r.body)
	}
	c := w.client()
	done := w.device(c, upn, d.text("user_code"), "yes")
	if !strings.Contains(string(done.body), "is signed in") {
		t.Fatalf("confirming: %d %s", done.status, done.body)
	}
	r := poll(d, "device_code")
	who, err := w.verify(r.text("access_token"))
	if err != nil || who.Object != id {
		t.Fatalf("%d %s: %+v, %v", r.status, r.body, who, err)
	}
	if r := w.form(w.tokenPath(), w.refreshForm(r.text("refresh_token"), w.site.Base())); r.status != 200 {
		t.Errorf("refresh: %d %s", r.status, r.body)
	}

	no := begin()
	w.device(c, upn, no.text("user_code"), "no")
	if r := poll(no, long); r.code() != "authorization_declined" {
		t.Errorf("declined: %d %s", r.status, r.body)
	}
	late := begin()
	w.pass(deviceLife)
	if r := poll(late, long); r.code() != "expired_token" {
		t.Errorf("expired: %d %s", r.status, r.body)
	}
	fresh := begin()
	for range maxGuesses {
		if r := w.code(c, upn, "BBBBBBBBB"); !strings.Contains(string(r.body), "not known") {
			t.Fatalf("a guess: %d %s", r.status, r.body)
		}
	}
	if r := w.code(c, upn, fresh.text("user_code")); !strings.Contains(string(r.body), "too many wrong codes") {
		t.Errorf("after %d guesses: %s", maxGuesses, r.body)
	}
}

// code types a user code at the device page, signing in first if need be.
func (w *world) code(c *http.Client, upn, code string) reply {
	w.t.Helper()
	req, _ := http.NewRequest("GET", w.site.Base()+"/common/oauth2/deviceauth", nil)
	page := w.do(c, req)
	if strings.Contains(string(page.body), "passwd") {
		page = w.formBy(c, "/common/login", url.Values{"ctx": {ctx(page)}, "login": {upn}, "passwd": {goodPassword}})
	}
	return w.formBy(c, "/common/oauth2/deviceauth", url.Values{"ctx": {ctx(page)}, "otc": {code}})
}

func (w *world) device(c *http.Client, upn, code, answer string) reply {
	w.t.Helper()
	page := w.code(c, upn, strings.ToLower(code[:4])+" - "+code[4:])
	return w.formBy(c, "/common/oauth2/deviceconfirm", url.Values{"ctx": {ctx(page)}, "answer": {answer}})
}

// OID-09: a form works in the browser that it was made for, from our own page,
// for the step that it was made for, and not for long.
func TestFormsCannotBeForged(t *testing.T) {
	w := newWorld(t)
	_, upn := w.user("ann")
	mine, theirs := w.client(), w.client()
	page := w.open(mine, w.authorizeQuery())
	good := url.Values{"ctx": {ctx(page)}, "login": {upn}, "passwd": {goodPassword}}
	w.open(theirs, w.authorizeQuery())
	for name, send := range map[string]func() reply{
		"no cookie": func() reply { return w.form("/common/login", good) },
		"another's": func() reply { return w.formBy(theirs, "/common/login", good) },
		"no flow": func() reply {
			return w.formBy(mine, "/common/login", url.Values{"login": {upn}, "passwd": {goodPassword}})
		},
		"an altered flow": func() reply {
			return w.formBy(mine, "/common/login", url.Values{"ctx": {ctx(page)[1:]}, "login": {upn}, "passwd": {goodPassword}})
		},
		"another step": func() reply {
			return w.formBy(mine, "/common/changepassword", url.Values{"ctx": {ctx(page)}, "newpasswd": {goodPassword}, "confirmnewpasswd": {goodPassword}})
		},
		"another site": func() reply {
			req, _ := http.NewRequest("POST", w.site.Base()+"/common/login", strings.NewReader(good.Encode()))
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.Header.Set("Origin", "https://evil.example")
			return w.do(mine, req)
		},
		"a later day": func() reply { w.pass(flowLife); return w.formBy(mine, "/common/login", good) },
	} {
		if name == "a later day" {
			continue
		}
		if r := send(); r.status != 400 || codeOf(r) != "" || strings.Contains(strings.Join(r.header.Values("Set-Cookie"), " "), sessionCookie) {
			t.Errorf("%s: %d %s", name, r.status, r.header.Get("Location"))
		}
	}
	if r := w.formBy(mine, "/common/login", good); codeOf(r) == "" {
		t.Errorf("the real form: %d %s", r.status, r.body)
	}
	w.pass(flowLife)
	if r := w.formBy(mine, "/common/login", good); r.status != 400 {
		t.Errorf("a quarter of an hour later: %d", r.status)
	}
	csp := page.header.Get("Content-Security-Policy")
	if !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") || strings.Contains(string(page.body), "<script") || page.header.Get("X-Frame-Options") != "DENY" {
		t.Errorf("the page is open: %q", csp)
	}
}

// Whether a name is somebody's can't be told from the answers, and guessing
// ends after ten failures, however the name is written.
func TestGuessingPasswords(t *testing.T) {
	w := newWorld(t)
	_, upn := w.user("ann")
	strip := func(r reply, name string) string {
		return hidden.ReplaceAllString(strings.ReplaceAll(string(r.body), name, "NAME"), "")
	}
	known := w.signIn(w.client(), upn, "wrong password", w.authorizeQuery())
	nobody := w.signIn(w.client(), "bob@"+w.first.Domain, "wrong password", w.authorizeQuery())
	if known.status != nobody.status || strip(known, upn) != strip(nobody, "bob@"+w.first.Domain) {
		t.Errorf("the answers differ:\n%d %s\n%d %s", known.status, known.body, nobody.status, nobody.body)
	}
	for i := range lockAfter - 1 {
		name := []string{upn, strings.ToUpper(upn), " " + upn, upn + " ", "Ann@" + w.first.Domain}[i%5]
		w.signIn(w.client(), name, "wrong password", w.authorizeQuery())
	}
	if r := w.signIn(w.client(), upn, goodPassword, w.authorizeQuery()); codeOf(r) != "" {
		t.Error("after ten failures the password still works")
	}
	w.pass(lockFor)
	if r := w.signIn(w.client(), upn, goodPassword, w.authorizeQuery()); codeOf(r) == "" {
		t.Errorf("a minute later: %d %s", r.status, r.body)
	}
	for _, e := range w.tail() {
		if strings.Contains(e.Name+e.Reason+e.Item, "bob") || strings.Contains(e.Name+e.Reason+e.Item, "wrong") && !strings.Contains(e.Reason, "is wrong") {
			t.Errorf("the audit log has what was typed: %+v", e)
		}
	}
}

// OID-13: whoever is disabled, or whose password was reset, is out at once.
func TestOutAtOnce(t *testing.T) {
	w := newWorld(t)
	for name, change := range map[string]func(id string){
		"disabled": func(id string) { w.admin("PATCH", "users/"+id, map[string]any{"accountEnabled": false}) },
		"password reset": func(id string) {
			w.admin("PATCH", "users/"+id, map[string]any{"passwordProfile": map[string]any{"password": "another good one 12"}})
		},
		"deleted":    func(id string) { w.admin("DELETE", "users/"+id, nil) },
		"signed out": func(id string) { w.admin("POST", "users/"+id+"/revokeSignInSessions", nil) },
		"disabled and enabled": func(id string) {
			w.admin("PATCH", "users/"+id, map[string]any{"accountEnabled": false})
			w.admin("PATCH", "users/"+id, map[string]any{"accountEnabled": true})
		},
	} {
		id, upn := w.user(strings.ReplaceAll(name, " ", "-"))
		c := w.client()
		code := codeOf(w.signIn(c, upn, goodPassword, w.authorizeQuery()))
		r := w.form(w.tokenPath(), w.redeemForm(code))
		if _, err := w.verify(r.text("access_token")); err != nil {
			t.Fatal(err)
		}
		pending := codeOf(w.open(c, w.authorizeQuery())) // by the session
		if pending == "" {
			t.Fatal("the session gives no code")
		}
		change(id)
		if _, err := w.verify(r.text("access_token")); arm.CodeOf(err) != arm.Unauthenticated {
			t.Errorf("%s: the access token gives %v", name, err)
		}
		if r := w.form(w.tokenPath(), w.refreshForm(r.text("refresh_token"), w.site.Base())); r.code() != "invalid_grant" {
			t.Errorf("%s: the refresh token gives %d %s", name, r.status, r.body)
		}
		if r := w.form(w.tokenPath(), w.redeemForm(pending)); r.code() != "invalid_grant" {
			t.Errorf("%s: the code gives %d %s", name, r.status, r.body)
		}
		if code := codeOf(w.open(c, w.authorizeQuery())); code != "" {
			t.Errorf("%s: the session gives a code", name)
		}
	}
}

// No audit, no sign-in.
func TestWhatIsNotRecordedIsNotGiven(t *testing.T) {
	w := newWorld(t)
	w.appToken(w.site.Base())
	w.s.Log = brokenLog(t, w)
	r := w.form(w.tokenPath(), url.Values{"grant_type": {"client_credentials"}, "client_id": {w.first.ClientID}, "client_secret": {string(w.first.ClientSecret.Reveal())}, "scope": {w.site.Base() + "/.default"}})
	if r.status != 500 || r.json["access_token"] != nil {
		t.Errorf("%d %s", r.status, r.body)
	}
}
