package server

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

var site = arm.Site{Suffix: "castellan.localhost"}

func open(f func(w http.ResponseWriter)) func(http.ResponseWriter, *http.Request, gate.Vars) error {
	return func(w http.ResponseWriter, _ *http.Request, _ gate.Vars) error { f(w); return nil }
}

func say(text string) func(http.ResponseWriter, *http.Request, gate.Vars) error {
	return open(func(w http.ResponseWriter) { _, _ = io.WriteString(w, text) })
}

// edge serves two planes on one host and one on hosts of their own, and gives a
// client that reaches them through the proxy alone.
func edge(t *testing.T) *http.Client {
	t.Helper()
	shared := func(h string) bool { return h == site.Host() }
	planes := []*gate.Plane{
		{Name: "a", Host: shared, Refuse: gate.RefuseARM, Fold: true, Routes: []gate.Route{
			gate.Public("test", "GET /a/{x}", say("plane a")),
			gate.Public("test", "GET /a/{x}/boom", open(func(http.ResponseWriter) { panic("secret words") })),
		}},
		{Name: "b", Host: shared, Refuse: func(w http.ResponseWriter, _ *http.Request, err error) { http.Error(w, "b refuses", gate.Status(err)) }, Routes: []gate.Route{
			gate.Public("test", "GET /b/{x}", say("plane b")),
		}},
		{Name: "v", Host: func(h string) bool { return arm.Label(h, site.VaultSuffix()) != "" }, Refuse: gate.RefuseARM, Routes: []gate.Route{
			gate.Public("test", "GET /a/{x}", say("plane v")),
		}},
	}
	h, err := New(site, nil, planes, nil)
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := NewAuthority("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ca, err := OpenAuthority(cert, key, site, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := h.Server()
	go func() { _ = srv.Serve(tls.NewListener(l, ca.TLS())) }()
	pl, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	inner := NewHanded(pl.Addr())
	go func() { _ = srv.Serve(tls.NewListener(inner, ca.TLS())) }()
	go func() { _ = (&Proxy{Site: site, Edge: inner.Hand}).Serve(pl) }()
	t.Cleanup(func() { srv.Close(); pl.Close() })
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.PEM())
	proxy := &url.URL{Scheme: "http", Host: pl.Addr().String()}
	return &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: roots}}}
}

func get(t *testing.T, c *http.Client, u string) (int, string) {
	t.Helper()
	res, err := c.Get(u)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// Host and path tell the planes apart, and each words its own refusals.
func TestPlanesByHostAndPath(t *testing.T) {
	c := edge(t)
	for u, want := range map[string]string{
		"https://castellan.localhost/a/1":          "plane a",
		"https://castellan.localhost/A/1":          "plane a",
		"https://castellan.localhost/a/1/":         "plane a",
		"https://castellan.localhost//a/1":         "plane a",
		"https://castellan.localhost/b/1":          "plane b",
		"https://kv.vault.castellan.localhost/a/1": "plane v",
	} {
		if code, body := get(t, c, u); code != 200 || body != want {
			t.Errorf("%s = %d %s, want %s", u, code, body, want)
		}
	}
	if code, body := get(t, c, "https://castellan.localhost/b/1/2"); code != 404 || !strings.Contains(body, "b refuses") {
		t.Errorf("an unknown path below /b = %d %s, want b's 404", code, body)
	}
	for _, u := range []string{"https://castellan.localhost/a/1//", "https://castellan.localhost///a/1", "https://castellan.localhost/a/1/2%2f", "https://castellan.localhost/b/1/"} {
		if code, body := get(t, c, u); code != 404 {
			t.Errorf("%s = %d %s, want 404: one slash more at an end, where Resource Manager is, means nothing", u, code, body)
		}
	}
	if code, _ := get(t, c, "https://other.castellan.localhost/a/1"); code != http.StatusMisdirectedRequest {
		t.Errorf("a host without a plane = %d, want 421", code)
	}
	if code, body := get(t, c, "https://castellan.localhost/a/%2e%2e/b"); code != 400 {
		t.Errorf("a dot segment = %d %s, want 400", code, body)
	}
}

// A panic costs one request and tells nothing (HTTP-14).
func TestPanicTellsNothing(t *testing.T) {
	c := edge(t)
	if code, body := get(t, c, "https://castellan.localhost/a/1/boom"); code != 500 || strings.Contains(body, "secret") {
		t.Errorf("panic = %d %s", code, body)
	}
	if code, _ := get(t, c, "https://castellan.localhost/a/1"); code != 200 {
		t.Errorf("after a panic = %d, want 200", code)
	}
}

// The authority vouches for the installation's names and no others, and the
// proxy leads nowhere else.
func TestNamesOfOthersAreRefused(t *testing.T) {
	c := edge(t)
	for _, u := range []string{"https://example.org/", "https://castellan.localhost.example.org/", "https://evilcastellan.localhost/", "https://castellan.localhost:22/", "https://127.0.0.1/"} {
		if res, err := c.Get(u); err == nil {
			res.Body.Close()
			t.Errorf("%s was reached: %s", u, res.Status)
		}
	}
	cert, key, _ := NewAuthority("test", time.Now())
	ca, err := OpenAuthority(cert, key, site, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"example.org", "xcastellan.localhost", "castellan.localhost.org"} {
		if _, err := ca.leaf(&tls.ClientHelloInfo{ServerName: name}); err == nil {
			t.Errorf("a certificate for %s was made", name)
		}
	}
}

// The proxy takes CONNECT alone: it can't be made to send requests of its own.
func TestProxyTakesConnectAlone(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialed := false
	p := &Proxy{Site: site, Edge: func(net.Conn) { dialed = true }}
	go func() { _ = p.Serve(l) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "GET http://castellan.localhost/ HTTP/1.1\r\nHost: castellan.localhost\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || res.StatusCode != http.StatusMethodNotAllowed || dialed {
		t.Errorf("GET = %v %v, dialed %v", res, err, dialed)
	}
}

// A route that names neither a permission nor a reason keeps the server from starting.
func TestBareRouteDoesNotStart(t *testing.T) {
	p := &gate.Plane{Name: "x", Refuse: gate.RefuseARM, Routes: []gate.Route{{Method: "GET", Pattern: "/x"}}}
	if _, err := New(site, nil, []*gate.Plane{p}, nil); err == nil {
		t.Error("a bare route is served")
	}
}

// The edge sees who the client is, not the proxy that it came by: policies and
// signatures are held to addresses.
func TestProxyHandsOnTheAddress(t *testing.T) {
	pl, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan net.Conn, 1)
	go func() { _ = (&Proxy{Site: site, Edge: func(c net.Conn) { seen <- c }}).Serve(pl) }()
	defer pl.Close()
	c, err := net.Dial("tcp", pl.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "CONNECT castellan.localhost:443 HTTP/1.1\r\nHost: castellan.localhost:443\r\n\r\nearly")
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, "200") {
		t.Fatalf("%q, %v", line, err)
	}
	handed := <-seen
	defer handed.Close()
	got := make([]byte, 5)
	if _, err := io.ReadFull(handed, got); err != nil || string(got) != "early" {
		t.Errorf("what was sent early is %q, %v", got, err)
	}
	if handed.RemoteAddr().String() != c.LocalAddr().String() {
		t.Errorf("the edge sees %s, and the client is %s", handed.RemoteAddr(), c.LocalAddr())
	}
}
