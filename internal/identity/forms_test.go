package identity

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"castellan/internal/access"
)

// post sends a form as a browser would that was led here from elsewhere.
func (w *world) post(c *http.Client, path string, v url.Values, header ...string) reply {
	w.t.Helper()
	req, err := http.NewRequest("POST", w.site.Base()+path, strings.NewReader(v.Encode()))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return w.do(c, req)
}

// Every form that the pages have is good in the browser that it was made for,
// from our own page, for its own step, for a while, and for whom it was made.
// The list of forms is the program's, so a new one is held to this too.
func TestEveryFormIsHeld(t *testing.T) {
	w := newWorld(t)
	_, upn := w.user("ann")
	u := w.s.index.upn(upn)
	site, _ := url.Parse(w.site.Base())
	browser := func() (*http.Client, func(at step) flow) {
		c := w.client()
		w.signIn(c, upn, goodPassword, w.authorizeQuery())
		has := map[string]string{}
		for _, k := range c.Jar.Cookies(site) {
			has[k.Name] = k.Value
		}
		return c, func(at step) flow {
			return flow{Bind: bindOf(has[flowCookie]), Began: w.now(), Step: at, Goal: goalSecurity, User: u.ID, Epoch: u.Epoch, From: grantKey(sessionGrant, has[sessionCookie]),
				Proofs: access.Proofs{}.With(access.Password, w.now()), Asked: []byte("{}"), Secret: []byte("x"), Tenant: "common"}
		}
	}
	mine, good := browser()
	theirs := w.client()
	w.open(theirs, w.authorizeQuery())
	sealed := func(f flow) url.Values {
		ctx, err := w.s.seal(f)
		if err != nil {
			t.Fatal(err)
		}
		return url.Values{"ctx": {ctx}, "login": {upn}, "passwd": {goodPassword}, "otc": {"000000"}, "way": {"app"}, "do": {"app"}, "answer": {"{}"}}
	}
	held := func(what string, r reply) {
		t.Helper()
		if r.status != 400 || title(r) != "The sign-in can't go on" || codeOf(r) != "" || strings.Contains(strings.Join(r.header.Values("Set-Cookie"), " "), sessionCookie) {
			t.Errorf("%s: %d %q", what, r.status, title(r))
		}
	}
	// These want more than this test gives them, and say so.
	unready := map[step]bool{stepChange: true, stepConfirm: true, stepConsent: true}
	forms := w.s.forms()
	doors := 0
	for _, rt := range w.s.Login().Routes {
		if rt.Method == "POST" && strings.HasPrefix(rt.Pattern, "/common/") {
			doors++
		}
	}
	if doors != len(forms) || doors < 14 {
		t.Errorf("%d doors take forms, and there are %d kinds of forms", doors, len(forms))
	}
	for at, f := range forms {
		own, flow := browser()
		if r := w.post(own, f.path, sealed(flow(at))); title(r) == "The sign-in can't go on" && !unready[at] {
			t.Errorf("%s: its own form is refused: %d %s", at, r.status, title(r))
		}
		held(string(at)+" without a flow", w.post(mine, f.path, url.Values{"login": {upn}, "passwd": {goodPassword}}))
		held(string(at)+" in another browser", w.post(theirs, f.path, sealed(good(at))))
		held(string(at)+" in no browser", w.post(w.client(), f.path, sealed(good(at))))
		held(string(at)+" from another site", w.post(mine, f.path, sealed(good(at)), "Origin", "https://evil.example"))
		held(string(at)+" from no site", w.post(mine, f.path, sealed(good(at)), "Origin", "null"))
		held(string(at)+" from a neighbour", w.post(mine, f.path, sealed(good(at)), "Sec-Fetch-Site", "same-site"))
		v := sealed(good(at))
		altered := []byte(v.Get("ctx"))
		if i := len(altered) / 2; altered[i] == 'A' {
			altered[i] = 'B'
		} else {
			altered[i] = 'A'
		}
		v.Set("ctx", string(altered))
		held(string(at)+" altered", w.post(mine, f.path, v))
		for other := range forms {
			if other != at {
				held(string(at)+" with the form of "+string(other), w.post(mine, f.path, sealed(good(other))))
			}
		}
		old := good(at)
		old.Began = w.now().Add(-flowMost)
		held(string(at)+" begun long ago", w.post(mine, f.path, sealed(old)))
		late := sealed(good(at))
		w.clock.Add(int64(flowLife / time.Second))
		held(string(at)+" late", w.post(mine, f.path, late))
		w.clock.Add(-int64(flowLife / time.Second))
	}
	// What needs somebody who showed something needs all that it stands on.
	for _, at := range []step{stepFactor, stepEnrol, stepApp, stepKey, stepCodes, stepSecurity, stepOwn} {
		for name, change := range map[string]func(*flow){
			"nobody":          func(f *flow) { f.User = "" },
			"no proof":        func(f *flow) { f.Proofs = nil },
			"half a proof":    func(f *flow) { f.Proofs = access.Proofs{}.With(access.OTP, w.now()) },
			"another epoch":   func(f *flow) { f.Epoch++ },
			"another session": func(f *flow) { f.From = grantKey(sessionGrant, "x") },
		} {
			f := good(at)
			change(&f)
			held(string(at)+" with "+name, w.post(mine, forms[at].path, sealed(f)))
		}
	}
}

// OID-09: what belongs to one browser's sign-in is worth nothing in another's.
func TestSwappedSignIns(t *testing.T) {
	w := newWorld(t)
	_, ann := w.user("ann")
	_, bob := w.user("bob")
	qa, qb := w.authorizeQuery(), w.authorizeQuery()
	qa.Set("state", "ann's")
	qa.Set("nonce", "ann's nonce")
	qb.Set("state", "bob's")
	qb.Set("code_challenge", challenge(verifier+"bob"))
	ra, rb := w.signIn(w.client(), ann, goodPassword, qa), w.signIn(w.client(), bob, goodPassword, qb)
	back, err := url.Parse(ra.header.Get("Location"))
	if err != nil || back.Query().Get("state") != "ann's" || back.Query().Get("iss") != w.site.Base()+"/"+w.first.Tenant+"/v2.0" {
		t.Fatalf("state or issuer is not told: %s", ra.header.Get("Location"))
	}
	swapped := w.redeemForm(codeOf(rb)) // Bob's code, put into Ann's sign-in
	if r := w.form(w.tokenPath(), swapped); r.status == 200 {
		t.Error("a code of another sign-in gives tokens")
	}
	mine := w.form(w.tokenPath(), w.redeemForm(codeOf(ra)))
	if n := claims(t, mine.text("id_token"))["nonce"]; n != "ann's nonce" {
		t.Errorf("nonce %v", n)
	}
	q := w.authorizeQuery()
	q.Add("state", "twice")
	if r := w.open(w.client(), q); r.status != 400 || r.header.Get("Location") != "" {
		t.Errorf("two states: %d", r.status)
	}
}

// What clients ask of the page, they get: another account, a new sign-in, one
// that is young enough, or none to be seen.
func TestPrompts(t *testing.T) {
	w := newWorld(t)
	_, upn := w.user("ann")
	c := w.client()
	w.signIn(c, upn, goodPassword, w.authorizeQuery())
	w.pass(10 * time.Minute)
	open := func(kv ...string) reply {
		q := w.authorizeQuery()
		for i := 0; i < len(kv); i += 2 {
			q.Set(kv[i], kv[i+1])
		}
		return w.open(c, q)
	}
	for _, x := range []struct {
		ask   []string
		title string // "" is a code at once
		err   string // in the redirect
	}{
		{nil, "", ""},
		{[]string{"prompt", "none"}, "", ""},
		{[]string{"prompt", "consent"}, "", ""},
		{[]string{"prompt", "login"}, "Sign in", ""},
		{[]string{"prompt", "select_account"}, "Which account?", ""},
		{[]string{"login_hint", upn, "domain_hint", "organizations"}, "", ""},
		{[]string{"login_hint", "bob@" + w.first.Domain}, "Sign in", ""},
		{[]string{"login_hint", "bob@" + w.first.Domain, "prompt", "none"}, "", "login_required"},
		{[]string{"max_age", "3600"}, "", ""},
		{[]string{"max_age", "60"}, "Sign in", ""},
		{[]string{"max_age", "0"}, "Sign in", ""},
		{[]string{"max_age", "60", "prompt", "none"}, "", "login_required"},
		{[]string{"max_age", "-1"}, "", "invalid_request"},
		{[]string{"prompt", "none login"}, "", "invalid_request"},
		{[]string{"prompt", "maybe"}, "", "invalid_request"},
		{[]string{"claims", "{"}, "", "invalid_request"},
		{[]string{"claims", `{"id_token":{"amr":{"values":["mfa"]},"amr":null}}`}, "", "invalid_request"},
		{[]string{"claims", `{"access_token":{"xms_cc":{"values":["cp1"]}},"id_token":null}`}, "", ""},
	} {
		r := open(x.ask...)
		to, _ := url.Parse(r.header.Get("Location"))
		if title(r) != x.title || to.Query().Get("error") != x.err || (codeOf(r) != "") != (x.title == "" && x.err == "") {
			t.Errorf("%v: %d %q %s", x.ask, r.status, title(r), to)
		}
	}
	page := open("prompt", "select_account")
	if codeOf(w.send(c, page, "/common/account", "way", "this")) == "" {
		t.Error("going on as the same person gives no code")
	}
	page = w.send(c, open("prompt", "select_account"), "/common/account", "way", "other")
	if title(page) != "Sign in" || strings.Contains(string(page.body), upn) {
		t.Errorf("another account: %q", title(page))
	}
}

// Signing out leads back to an address of an application, and to no other.
func TestSigningOutLeadsBack(t *testing.T) {
	w := newWorld(t)
	_, upn := w.user("ann")
	app := w.admin("POST", "applications", map[string]any{"displayName": "a", "spa": map[string]any{"redirectUris": []string{"https://app.example/out"}}})
	w.admin("POST", "servicePrincipals", map[string]any{"appId": app.text("appId")})
	out := func(to string) (*http.Client, reply) {
		c := w.client()
		w.signIn(c, upn, goodPassword, w.authorizeQuery())
		page := w.get(c, "/common/oauth2/v2.0/logout?post_logout_redirect_uri="+url.QueryEscape(to)+"&state=s%26t")
		if codeOf(w.open(c, w.authorizeQuery())) == "" {
			t.Error("a link signs out")
		}
		return c, w.send(c, page, "/common/oauth2/logout")
	}
	c, r := out("https://app.example/out")
	if r.header.Get("Location") != "https://app.example/out?state=s%26t" {
		t.Errorf("back to %q", r.header.Get("Location"))
	}
	if codeOf(w.open(c, w.authorizeQuery())) != "" {
		t.Error("still signed in")
	}
	for _, bad := range []string{"https://evil.example/out", "https://app.example/out/../x", "javascript:alert(1)", "//evil.example", "https://app.example@evil.example/out"} {
		if _, r := out(bad); r.header.Get("Location") != "" || r.status != 200 {
			t.Errorf("%s: %d to %q", bad, r.status, r.header.Get("Location"))
		}
	}
}

// Every page with a form lets browsers say where the form comes from: under a
// policy of no-referrer they send the origin null, which we refuse from anybody.
func TestPagesLetFormsSayTheirOrigin(t *testing.T) {
	w := newWorld(t)
	_, upn := w.user("ann")
	c := w.client()
	pages := map[string]reply{"sign-in": w.open(c, w.authorizeQuery())}
	form := url.Values{"login": {upn}, "passwd": {"wrong " + goodPassword}, "ctx": {ctx(pages["sign-in"])}}
	pages["sign-in again"] = w.post(c, "/common/login", form, "Origin", w.site.Base())
	if title(pages["sign-in again"]) != "Sign in" {
		t.Fatalf("our own origin is refused: %q", title(pages["sign-in again"]))
	}
	w.signIn(c, upn, goodPassword, w.authorizeQuery())
	pages["methods"] = w.get(c, securityPath)
	pages["sign-out"] = w.get(c, "/common/oauth2/v2.0/logout")
	for name, r := range pages {
		if p := r.header.Get("Referrer-Policy"); p != "same-origin" {
			t.Errorf("%s: Referrer-Policy %q", name, p)
		}
		if p := r.header.Get("Content-Security-Policy"); !strings.Contains(p, "form-action 'self'") || !strings.Contains(string(r.body), "<form") {
			t.Errorf("%s: no form, or none that may be sent: %s", name, p)
		}
	}
}
