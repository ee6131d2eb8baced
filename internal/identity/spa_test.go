package identity

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// A page gets tokens from its own origin, for a day, and nobody else's page does.
func TestSinglePageApplications(t *testing.T) {
	w := newWorld(t)
	_, upn := w.user("ann")
	app := w.admin("POST", "applications", map[string]any{"displayName": "a", "spa": map[string]any{"redirectUris": []string{"https://app.example/cb", "http://localhost/cb"}}, "publicClient": map[string]any{"redirectUris": []string{"http://localhost/native"}}})
	sp := w.admin("POST", "servicePrincipals", map[string]any{"appId": app.text("appId")})
	w.allow(sp.text("id"), w.s.index.spOf(w.first.Tenant, "797f4846-ba00-4fd7-ba43-dac1f8f63013").ID, "user_impersonation")
	c := w.client()
	code := func(redirect string) url.Values {
		q := w.authorizeQuery()
		q.Set("client_id", app.text("appId"))
		q.Set("redirect_uri", redirect)
		r := w.signIn(c, upn, goodPassword, q)
		f := w.redeemForm(codeOf(r))
		f.Set("client_id", app.text("appId"))
		f.Set("redirect_uri", redirect)
		return f
	}
	ask := func(v url.Values, origin string) reply {
		if origin == "" {
			return w.post(w.client(), w.tokenPath(), v)
		}
		return w.post(w.client(), w.tokenPath(), v, "Origin", origin)
	}
	const own = "https://app.example"
	f := code(own + "/cb")
	for _, other := range []string{"", "null", "https://evil.example", "http://app.example", "https://app.example:8443", "https://app.example.evil.example", w.site.Base(), "http://localhost"} {
		r := ask(f, other)
		if r.status == 200 || r.json["access_token"] != nil {
			t.Errorf("from %q: %d", other, r.status)
		}
		if got := r.header.Get("Access-Control-Allow-Origin"); got != "" && other != "http://localhost" {
			t.Errorf("%q may read: %q", other, got)
		}
	}
	r := ask(f, own)
	if r.status != 200 || r.header.Get("Access-Control-Allow-Origin") != own || !strings.Contains(strings.Join(r.header.Values("Vary"), ","), "Origin") || r.header.Get("Access-Control-Allow-Credentials") != "" {
		t.Fatalf("from its own origin: %d %v %s", r.status, r.header, r.body)
	}
	refresh := func(token, origin string) reply {
		v := w.refreshForm(token, w.site.Base())
		v.Set("client_id", app.text("appId"))
		return ask(v, origin)
	}
	if r := refresh(r.text("refresh_token"), ""); r.status == 200 {
		t.Error("what a page was given is used outside of it")
	}
	w.pass(23 * time.Hour)
	next := refresh(r.text("refresh_token"), own)
	if next.status != 200 {
		t.Fatalf("after 23 hours: %d %s", next.status, next.body)
	}
	w.pass(time.Hour)
	if r := refresh(next.text("refresh_token"), own); r.code() != "invalid_grant" || r.header.Get("Access-Control-Allow-Origin") != own {
		t.Errorf("after a day: %d %s", r.status, r.body)
	}
	if r := ask(code("http://localhost:3000/cb"), "http://localhost:3000"); r.status != 200 {
		t.Errorf("on loopback at another port: %d %s", r.status, r.body)
	}
	if r := ask(code("http://localhost:3000/native"), "http://localhost:3000"); r.status == 200 || !strings.HasPrefix(r.text("error_description"), "AADSTS9002326:") {
		t.Errorf("a native client's code from a page: %d %s", r.status, r.body)
	}
	if r := ask(code("http://localhost:3000/native"), ""); r.status != 200 {
		t.Errorf("a native client: %d %s", r.status, r.body)
	}
	for origin, want := range map[string]string{own: own, "https://evil.example": "", "http://localhost:77": "http://localhost:77"} {
		req, _ := http.NewRequest("OPTIONS", w.site.Base()+w.tokenPath(), nil)
		req.Header.Set("Origin", origin)
		req.Header.Set("Access-Control-Request-Method", "POST")
		if r := w.do(w.client(), req); r.status != 204 || r.header.Get("Access-Control-Allow-Origin") != want {
			t.Errorf("before a request from %s: %d %q", origin, r.status, r.header.Get("Access-Control-Allow-Origin"))
		}
	}
}
