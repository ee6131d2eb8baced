package identity

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/gate"
	"castellan/internal/seal"
	"castellan/internal/store"
)

// ring has the signing keys of all tests: making them takes a while.
var (
	root = seal.Random()
	ring = newKeyring(root)
)

func TestMain(m *testing.M) {
	now := time.Now()
	for c := range classes {
		key, err := ring.generate(c, currentKey, now)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		ring.set(key)
	}
	os.Exit(m.Run())
}

// world is a directory with its two planes behind TLS, and a clock.
type world struct {
	t      testing.TB
	s      *Service
	db     *store.DB
	log    *audit.Log
	gate   *gate.Gate
	site   arm.Site
	clock  atomic.Int64
	server *httptest.Server
	wire   *http.Transport
	first  Founded

	token   string // of the first application for Graph
	tokenAt int64
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldWith(t, func(*Config) {})
}

// newWorldWith is a world whose directory is configured by set.
func newWorldWith(t testing.TB, set func(*Config)) *world {
	t.Helper()
	db, err := store.Open(t.TempDir(), seal.Random())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, db: db, site: arm.Site{Suffix: "castellan.localhost", Tenant: arm.NewUUID(), Subscription: arm.NewUUID(), Location: "local"}}
	w.clock.Store(time.Now().Unix())
	if err := db.Do(context.Background(), func(tx *store.Tx) error {
		for c := range classes {
			if err := newKeyring(root).put(tx, ring.in(c, currentKey)); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	w.log = audit.New(db, w.now)
	w.gate = gate.New(func(c arm.Caller, a arm.Action, on gate.Target) (bool, string) {
		_, ok, why := w.s.Decide(c, a, on.ID)
		return ok, why
	}, w.log)
	cfg := Config{DB: db, Log: w.log, Gate: w.gate, Root: root, Site: w.site, Now: w.now}
	set(&cfg)
	if w.s, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	if w.first, err = w.s.Bootstrap(context.Background(), Founding{Tenant: w.site.Tenant}); err != nil {
		t.Fatal(err)
	}
	planes := []*gate.Plane{w.s.Login(), w.s.Graph(), w.s.SCIM()}
	w.server = httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.serve(planes, rw, r) }))
	addr := w.server.Listener.Addr().String()
	w.wire = &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // the test's own server
		DialContext: func(ctx context.Context, n, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, n, addr)
		},
	}
	t.Cleanup(func() { w.wire.CloseIdleConnections(); w.server.Close(); _ = w.log.Close(); db.Close() }) // some tests break the log on purpose
	return w
}

func (w *world) now() time.Time { return time.Unix(w.clock.Load(), 0) }

func (w *world) pass(d time.Duration) { w.clock.Add(int64(d / time.Second)) }

func (w *world) serve(planes []*gate.Plane, rw http.ResponseWriter, r *http.Request) {
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	for _, p := range planes {
		if !p.Host(host) {
			continue
		}
		rt, v, _, err := p.Match(r.Method, r.URL.EscapedPath())
		if err != nil {
			p.Refuse(rw, r, err)
			return
		}
		if rt.Method != "" {
			w.gate.Serve(p, rt, v, rw, r)
			return
		}
	}
	http.Error(rw, "no door", http.StatusNotFound)
}

// client is an HTTP client for which every name is the world's server.
func (w *world) client() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return &http.Client{Jar: jar, Transport: w.wire, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if r.URL.Scheme == "http" || r.URL.Hostname() != w.site.Host() {
			return http.ErrUseLastResponse
		}
		return nil
	}}
}

// reply is an answer, read.
type reply struct {
	status int
	body   []byte
	header http.Header
	json   map[string]any
}

func (r reply) text(name string) string { s, _ := r.json[name].(string); return s }

// code is an error's code, in either plane's shape.
func (r reply) code() string {
	if m, ok := r.json["error"].(map[string]any); ok {
		s, _ := m["code"].(string)
		return s
	}
	return r.text("error")
}

func (w *world) do(c *http.Client, req *http.Request) reply {
	w.t.Helper()
	res, err := c.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	out := reply{status: res.StatusCode, body: b, header: res.Header}
	_ = json.Unmarshal(b, &out.json) // pages are not JSON
	return out
}

func (w *world) form(path string, v url.Values) reply {
	w.t.Helper()
	return w.formBy(w.client(), path, v)
}

func (w *world) formBy(c *http.Client, path string, v url.Values) reply {
	w.t.Helper()
	req, err := http.NewRequest("POST", w.site.Base()+path, strings.NewReader(v.Encode()))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return w.do(c, req)
}

func (w *world) tokenPath() string { return "/" + w.first.Tenant + "/oauth2/v2.0/token" }

// appToken is a token of the first application.
func (w *world) appToken(resource string) string {
	w.t.Helper()
	r := w.form(w.tokenPath(), url.Values{"grant_type": {"client_credentials"}, "client_id": {w.first.ClientID}, "client_secret": {string(w.first.ClientSecret.Reveal())}, "scope": {resource + "/.default"}})
	if r.status != 200 {
		w.t.Fatalf("client credentials: %d %s", r.status, r.body)
	}
	return r.text("access_token")
}

// graph calls the directory with a token.
func (w *world) graph(token, method, path string, body any) reply {
	w.t.Helper()
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			w.t.Fatal(err)
		}
		in = strings.NewReader(string(b))
	}
	req, err := http.NewRequest(method, "https://"+w.site.GraphHost()+"/v1.0/"+path, in)
	if err != nil {
		w.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return w.do(w.client(), req)
}

// admin calls the directory as the first application, and wants success.
func (w *world) admin(method, path string, body any) reply {
	w.t.Helper()
	if now := w.clock.Load(); w.token == "" || now-w.tokenAt > 600 {
		w.token, w.tokenAt = w.appToken("https://"+w.site.GraphHost()), now
	}
	r := w.graph(w.token, method, path, body)
	if r.status >= 300 {
		w.t.Fatalf("%s %s: %d %s", method, path, r.status, r.body)
	}
	return r
}

const goodPassword = "correct horse battery"

// user makes a person whose password need not be changed.
func (w *world) user(name string) (id, upn string) {
	w.t.Helper()
	upn = name + "@" + w.first.Domain
	r := w.admin("POST", "users", map[string]any{"accountEnabled": true, "displayName": name, "mailNickname": name, "userPrincipalName": upn,
		"passwordProfile": map[string]any{"password": goodPassword, "forceChangePasswordNextSignIn": false}})
	return r.text("id"), upn
}

const (
	verifier  = "0123456789012345678901234567890123456789abcdefg"
	localhost = "http://localhost:8400"
)

func challenge(v string) string { return base64.RawURLEncoding.EncodeToString(sha(v)) }

// authorizeQuery is what the Azure CLI asks for.
func (w *world) authorizeQuery() url.Values {
	return url.Values{"client_id": {azureCLI}, "response_type": {"code"}, "redirect_uri": {localhost}, "scope": {w.site.Base() + "/.default offline_access openid profile"},
		"state": {"st"}, "nonce": {"no"}, "code_challenge": {challenge(verifier)}, "code_challenge_method": {"S256"}}
}

func (w *world) open(c *http.Client, q url.Values) reply {
	w.t.Helper()
	req, err := http.NewRequest("GET", w.site.Base()+"/organizations/oauth2/v2.0/authorize?"+q.Encode(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.do(c, req)
}

var hidden = regexp.MustCompile(`name="ctx" value="([^"]*)"`)

// ctx is the sealed flow that a page carries.
func ctx(page reply) string {
	m := hidden.FindStringSubmatch(string(page.body))
	if m == nil {
		return ""
	}
	return html.UnescapeString(m[1])
}

// signIn goes through the sign-in page and returns the code.
func (w *world) signIn(c *http.Client, upn, password string, q url.Values) reply {
	w.t.Helper()
	page := w.open(c, q)
	if ctx(page) == "" {
		return page
	}
	return w.formBy(c, "/common/login", url.Values{"ctx": {ctx(page)}, "login": {upn}, "passwd": {password}})
}

func codeOf(r reply) string {
	u, err := url.Parse(r.header.Get("Location"))
	if err != nil {
		return ""
	}
	return u.Query().Get("code")
}

func (w *world) redeemForm(code string) url.Values {
	return url.Values{"grant_type": {"authorization_code"}, "client_id": {azureCLI}, "code": {code}, "redirect_uri": {localhost}, "code_verifier": {verifier}}
}

// userTokens signs a person in and trades the code.
func (w *world) userTokens(upn string) reply {
	w.t.Helper()
	code := codeOf(w.signIn(w.client(), upn, goodPassword, w.authorizeQuery()))
	r := w.form("/organizations/oauth2/v2.0/token", w.redeemForm(code))
	if r.status != 200 {
		w.t.Fatalf("%s: %d %s", upn, r.status, r.body)
	}
	return r
}

func (w *world) refreshForm(token, resource string) url.Values {
	return url.Values{"grant_type": {"refresh_token"}, "client_id": {azureCLI}, "refresh_token": {token}, "scope": {resource + "/.default offline_access openid profile"}}
}

// graphToken is a token of a person for the directory.
func (w *world) graphToken(upn string) string {
	w.t.Helper()
	r := w.form(w.tokenPath(), w.refreshForm(w.userTokens(upn).text("refresh_token"), "https://"+w.site.GraphHost()))
	if r.status != 200 {
		w.t.Fatalf("%s: %d %s", upn, r.status, r.body)
	}
	return r.text("access_token")
}

// claims reads a token without verifying it.
func claims(t testing.TB, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("%q is no token", token)
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]any{}
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func (w *world) verify(token string) (arm.Caller, error) {
	return w.s.VerifyToken(context.Background(), token, w.site.ARMAudiences())
}

func (w *world) tail() []audit.Entry {
	w.t.Helper()
	if err := w.log.Sync(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	out, err := w.log.Tail(context.Background(), 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// brokenLog is an audit log whose store is gone.
func brokenLog(t *testing.T, w *world) *audit.Log {
	db, err := store.Open(t.TempDir(), seal.Random())
	if err != nil {
		t.Fatal(err)
	}
	l := audit.New(db, w.now)
	t.Cleanup(func() { _ = l.Close() }) // it is broken
	db.Close()
	if err := l.Record(context.Background(), audit.Entry{}); err != nil {
		t.Fatal(err)
	}
	if l.Sync(context.Background()) == nil {
		t.Fatal("the log is not broken")
	}
	return l
}

// breakGlass makes a person's account one for emergencies.
func (w *world) breakGlass(id string) {
	w.t.Helper()
	err := w.s.DB.Do(context.Background(), func(tx *store.Tx) error {
		u, ok, err := fetch[*User](tx, w.first.Tenant, "user", id)
		if err != nil || !ok {
			return err
		}
		u.BreakGlass = true
		return w.s.put(tx, u)
	})
	if err != nil {
		w.t.Fatal(err)
	}
}
