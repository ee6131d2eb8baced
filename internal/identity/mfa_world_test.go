package identity

import (
	"encoding/base32"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"castellan/internal/access"
	"castellan/internal/mfa"
	"castellan/internal/mfa/mfatest"
)

var (
	asks   = regexp.MustCompile(`data-ask="([^"]*)"`)
	keys   = regexp.MustCompile(`<code class="key">([A-Z2-7 ]+)</code>`)
	listed = regexp.MustCompile(`<li><code>([A-Z0-9-]+)</code></li>`)
	titles = regexp.MustCompile(`<h1>([^<]*)</h1>`)
	ids    = regexp.MustCompile(`name="id" value="([^"]*)"`)
)

func title(r reply) string {
	m := titles.FindSubmatch(r.body)
	if m == nil {
		return ""
	}
	return html.UnescapeString(string(m[1]))
}

// send sends the form of a page on: to path, with more values besides the flow.
func (w *world) send(c *http.Client, page reply, path string, more ...string) reply {
	w.t.Helper()
	v := url.Values{"ctx": {ctx(page)}}
	for i := 0; i < len(more); i += 2 {
		v.Set(more[i], more[i+1])
	}
	return w.formBy(c, path, v)
}

func (w *world) get(c *http.Client, path string) reply {
	w.t.Helper()
	req, err := http.NewRequest("GET", w.site.Base()+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.do(c, req)
}

// security opens the page of one's own methods with a new sign-in.
func (w *world) security(c *http.Client, upn string) reply {
	w.t.Helper()
	return w.send(c, w.get(c, securityPath), "/common/login", "login", upn, "passwd", goodPassword)
}

// app adds an authenticator app for a person who has no method yet.
func (w *world) app(c *http.Client, upn string) (secret []byte, recovery []string) {
	w.t.Helper()
	return w.addApp(c, w.send(c, w.security(c, upn), securityPath, "do", "app"))
}

// addApp answers the page that shows a new app's key.
func (w *world) addApp(c *http.Client, page reply) (secret []byte, recovery []string) {
	w.t.Helper()
	secret = secretOf(w.t, page)
	page = w.send(c, page, "/common/register/app", "otc", w.codeNow(secret))
	if title(page) != "Keep your recovery codes" {
		w.t.Fatalf("adding an app: %d %s", page.status, page.body)
	}
	for _, m := range listed.FindAllSubmatch(page.body, -1) {
		recovery = append(recovery, string(m[1]))
	}
	w.send(c, page, "/common/register/codes")
	w.pass(31 * time.Second) // its first code is used
	return secret, recovery
}

func secretOf(t testing.TB, page reply) []byte {
	t.Helper()
	m := keys.FindSubmatch(page.body)
	if m == nil {
		t.Fatalf("no key on the page: %d %s", page.status, page.body)
	}
	b, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ReplaceAll(string(m[1]), " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (w *world) codeNow(secret []byte) string {
	w.t.Helper()
	c, err := mfa.Code(secret, w.now())
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// askOf is what a page asks a passkey.
func askOf(t testing.TB, page reply) []byte {
	t.Helper()
	m := asks.FindSubmatch(page.body)
	if m == nil {
		t.Fatalf("the page asks no passkey: %d %s", page.status, page.body)
	}
	return []byte(html.UnescapeString(string(m[1])))
}

func (w *world) device0() *mfatest.Device {
	return &mfatest.Device{Origin: w.site.Base(), Host: w.site.Host(), Count: 1}
}

// passkey adds a passkey for a person who has no method yet.
func (w *world) passkey(c *http.Client, upn string) (*mfatest.Device, []string) {
	w.t.Helper()
	return w.addPasskey(c, w.send(c, w.security(c, upn), securityPath, "do", "passkey"))
}

func (w *world) addPasskey(c *http.Client, page reply) (d *mfatest.Device, recovery []string) {
	w.t.Helper()
	d = w.device0()
	answer, err := d.Create(askOf(w.t, page))
	if err != nil {
		w.t.Fatal(err)
	}
	page = w.send(c, page, "/common/register/passkey", "answer", string(answer), "name", "my key")
	for _, m := range listed.FindAllSubmatch(page.body, -1) {
		recovery = append(recovery, string(m[1]))
	}
	if len(recovery) == 0 {
		w.t.Fatalf("adding a passkey: %d %s", page.status, page.body)
	}
	w.send(c, page, "/common/register/codes")
	return d, recovery
}

// byPasskey signs in at the first page, with nothing but a passkey.
func (w *world) byPasskey(c *http.Client, d *mfatest.Device, q url.Values) reply {
	w.t.Helper()
	page := w.send(c, w.open(c, q), "/common/login", "way", "passkey", "login", "", "passwd", "")
	return w.answer(c, page, d)
}

func (w *world) answer(c *http.Client, page reply, d *mfatest.Device) reply {
	w.t.Helper()
	answer, err := d.Get(askOf(w.t, page))
	if err != nil {
		w.t.Fatal(err)
	}
	return w.send(c, page, "/common/passkey", "answer", string(answer))
}

// stepUp is an authorize request of a client that wants several factors.
func (w *world) stepUp() url.Values {
	q := w.authorizeQuery()
	q.Set("claims", `{"id_token":{"amr":{"essential":true,"values":["mfa"]}}}`)
	return q
}

// policy makes one Conditional Access policy for everybody.
func (w *world) policy(change func(*access.Policy)) {
	p := access.Policy{ID: "11111111-1111-1111-1111-111111111111", State: access.Enabled, IncludeUsers: []string{access.All}, IncludeApps: []string{access.All}}
	change(&p)
	w.s.rules.Store(&map[string]*access.Rules{w.first.Tenant: access.Compile([]access.Policy{p}, nil)})
}

// amr is how the person signed in, as the tokens for a code say.
func (w *world) amr(r reply) string {
	w.t.Helper()
	code := codeOf(r)
	if code == "" {
		return fmt.Sprintf("no code: %d %s", r.status, title(r))
	}
	t := w.form("/organizations/oauth2/v2.0/token", w.redeemForm(code))
	if t.status != 200 {
		return fmt.Sprintf("no token: %s", t.body)
	}
	a, i := fmt.Sprint(claims(w.t, t.text("access_token"))["amr"]), fmt.Sprint(claims(w.t, t.text("id_token"))["amr"])
	if a != i {
		return "access token " + a + ", ID token " + i
	}
	return a
}

func request(from string) *http.Request { return &http.Request{RemoteAddr: from} }
