package issuer

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

// foreign is a real issuer behind TLS, which a test can make misbehave.
type foreign struct {
	t       *testing.T
	server  *httptest.Server
	asked   atomic.Int64 // key sets that were sent
	mu      sync.Mutex
	keys    []jose.JSONWebKey
	handler http.HandlerFunc // in the place of the documents, if set
	clock   atomic.Int64
	file    string
}

func newForeign(t *testing.T) *foreign {
	t.Helper()
	f := &foreign{t: t}
	f.clock.Store(time.Now().Unix())
	f.server = httptest.NewTLSServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.server.Close)
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	f.write(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.server.Certificate().Raw}))
	f.file = filepath.Join(dir, "issuers.json")
	f.settings(Settings{CAFile: ca, Loopback: true})
	return f
}

func (f *foreign) write(path string, b []byte) {
	f.t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func (f *foreign) settings(s Settings) {
	f.t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		f.t.Fatal(err)
	}
	f.write(f.file, b)
}

func (f *foreign) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	keys, handler := f.keys, f.handler
	f.mu.Unlock()
	if handler != nil {
		handler(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": f.server.URL, "jwks_uri": f.server.URL + "/keys"})
	case "/keys":
		f.asked.Add(1)
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: keys})
	default:
		http.NotFound(w, r)
	}
}

func (f *foreign) publish(h http.HandlerFunc, keys ...jose.JSONWebKey) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keys, f.handler = keys, h
}

func (f *foreign) open() *Keys {
	f.t.Helper()
	k, err := Open(Config{File: f.file, Own: func(h string) bool { return h == "castellan.localhost" }, Now: f.now})
	if err != nil {
		f.t.Fatal(err)
	}
	return k
}

func (f *foreign) now() time.Time         { return time.Unix(f.clock.Load(), 0) }
func (f *foreign) pass(d time.Duration)   { f.clock.Add(int64(d / time.Second)) }
func (f *foreign) claims() map[string]any { return map[string]any{"iss": f.server.URL, "sub": "s"} }

func public(kid string, key crypto.PublicKey, alg string) jose.JSONWebKey {
	return jose.JSONWebKey{KeyID: kid, Key: key, Use: "sig", Algorithm: alg}
}

func sign(t *testing.T, alg jose.SignatureAlgorithm, key any, head map[string]any, body any) string {
	t.Helper()
	o := &jose.SignerOptions{}
	for k, v := range head {
		o.WithHeader(jose.HeaderKey(k), v)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, o)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(body)
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

func rsaKey(t *testing.T, bits int) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Only the key that the issuer publishes under the token's kid verifies it, and
// only with an algorithm of that key's kind.
func TestOnlyPublishedKeysVerify(t *testing.T) {
	f := newForeign(t)
	one, two := rsaKey(t, 2048), rsaKey(t, 2048)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f.publish(nil, public("one", &one.PublicKey, ""), public("only256", &two.PublicKey, "RS256"), public("ec", &ec.PublicKey, ""))
	k := f.open()
	verify := func(raw string) error {
		_, err := k.Verify(context.Background(), raw, f.server.URL)
		return err
	}
	for name, raw := range map[string]string{
		"RS256":         sign(t, jose.RS256, one, map[string]any{"kid": "one"}, f.claims()),
		"PS256":         sign(t, jose.PS256, one, map[string]any{"kid": "one", "typ": "JWT"}, f.claims()),
		"ES256":         sign(t, jose.ES256, ec, map[string]any{"kid": "ec", "typ": "at+jwt"}, f.claims()),
		"the key's own": sign(t, jose.RS256, two, map[string]any{"kid": "only256"}, f.claims()),
	} {
		if err := verify(raw); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	good := sign(t, jose.RS256, one, map[string]any{"kid": "one"}, f.claims())
	for name, raw := range map[string]string{
		"another key under its name": sign(t, jose.RS256, two, map[string]any{"kid": "one"}, f.claims()),
		"no kid":                     sign(t, jose.RS256, one, nil, f.claims()),
		"an unknown kid":             sign(t, jose.RS256, one, map[string]any{"kid": "three"}, f.claims()),
		"another alg than the key's": sign(t, jose.PS256, two, map[string]any{"kid": "only256"}, f.claims()),
		"RS512":                      sign(t, jose.RS512, one, map[string]any{"kid": "one"}, f.claims()),
		"HS256 with the modulus":     sign(t, jose.HS256, one.PublicKey.N.Bytes(), map[string]any{"kid": "one"}, f.claims()),
		"its own jwk":                sign(t, jose.RS256, two, map[string]any{"kid": "x", "jwk": public("x", &two.PublicKey, "")}, f.claims()),
		"another typ":                sign(t, jose.RS256, one, map[string]any{"kid": "one", "typ": "logout+jwt"}, f.claims()),
		"crit":                       sign(t, jose.RS256, one, map[string]any{"kid": "one", "crit": []string{"x"}, "x": 1}, f.claims()),
		"another issuer's":           sign(t, jose.RS256, one, map[string]any{"kid": "one"}, map[string]any{"iss": f.server.URL + "/", "sub": "s"}),
		"no signature":               good[:strings.LastIndexByte(good, '.')+1],
		"padded":                     good + "=",
		"too long":                   good + strings.Repeat("A", maxToken),
	} {
		if err := verify(raw); !errors.Is(err, ErrToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	none := strings.Split(good, ".")
	none[0] = "eyJhbGciOiJub25lIiwia2lkIjoib25lIn0"
	if err := verify(strings.Join(none, ".")); !errors.Is(err, ErrToken) {
		t.Errorf("none: %v", err)
	}
}

// However many tokens with made-up key names come, the issuer is asked once a
// minute; a new key is taken once that has passed, and one that is no longer
// published is dead within the hour.
func TestUnknownKeysDoNotFlood(t *testing.T) {
	f := newForeign(t)
	one, two := rsaKey(t, 2048), rsaKey(t, 2048)
	f.publish(nil, public("one", &one.PublicKey, ""))
	k := f.open()
	old := sign(t, jose.RS256, one, map[string]any{"kid": "one"}, f.claims())
	var wait sync.WaitGroup
	for i := range 50 {
		raw := old
		if i%2 == 1 {
			raw = sign(t, jose.RS256, two, map[string]any{"kid": strings.Repeat("k", i)}, f.claims())
		}
		wait.Go(func() {
			if _, err := k.Verify(context.Background(), raw, f.server.URL); (err == nil) != (i%2 == 0) {
				t.Errorf("request %d: %v", i, err)
			}
		})
	}
	wait.Wait()
	if n := f.asked.Load(); n != 1 {
		t.Errorf("the issuer was asked %d times at once, want 1", n)
	}
	f.publish(nil, public("two", &two.PublicKey, ""))
	turned := sign(t, jose.RS256, two, map[string]any{"kid": "two"}, f.claims())
	if _, err := k.Verify(context.Background(), turned, f.server.URL); err == nil || f.asked.Load() != 1 {
		t.Errorf("a new key within the minute: %v after %d fetches", err, f.asked.Load())
	}
	f.pass(floor)
	if _, err := k.Verify(context.Background(), turned, f.server.URL); err != nil {
		t.Errorf("a new key after the minute: %v", err)
	}
	if _, err := k.Verify(context.Background(), old, f.server.URL); !errors.Is(err, ErrToken) {
		t.Errorf("a key that is no longer published: %v", err)
	}

	f.publish(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "down", http.StatusServiceUnavailable) })
	f.pass(fresh + time.Minute)
	if _, err := k.Verify(context.Background(), turned, f.server.URL); err != nil {
		t.Errorf("the issuer is down for a while: %v", err)
	}
	f.pass(stale)
	if _, err := k.Verify(context.Background(), turned, f.server.URL); !errors.Is(err, ErrFetch) {
		t.Errorf("the issuer is down for a day: %v", err)
	}
}

// An issuer that lies, dawdles over bytes or leads elsewhere gives no keys.
func TestIssuersThatMisbehave(t *testing.T) {
	f := newForeign(t)
	key := rsaKey(t, 2048)
	raw := sign(t, jose.RS256, key, map[string]any{"kid": "one"}, f.claims())
	elsewhere := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
	defer elsewhere.Close()
	set := mustJSON(t, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{public("one", &key.PublicKey, "")}})
	document := func(iss, at string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			if r.URL.Path == "/keys" {
				_, _ = w.Write(set)
				return
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"issuer": iss, "jwks_uri": at})
		}
	}
	send := func(set []byte) http.HandlerFunc {
		good := document(f.server.URL, f.server.URL+"/keys")
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/keys" {
				good(w, r)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(set)
		}
	}
	small := rsaKey(t, 1024)
	many := make([]jose.JSONWebKey, maxKeys+1)
	for i := range many {
		many[i] = public(strings.Repeat("a", i+1), &key.PublicKey, "")
	}
	for name, h := range map[string]http.HandlerFunc{
		"another issuer's document": document("https://other.example", f.server.URL+"/keys"),
		"a slash too many":          document(f.server.URL+"/", f.server.URL+"/keys"),
		"keys over http":            document(f.server.URL, strings.Replace(f.server.URL, "https", "http", 1)+"/keys"),
		"keys in a file":            document(f.server.URL, "file:///etc/passwd"),
		"keys at the metadata":      document(f.server.URL, "https://169.254.169.254/keys"),
		"keys at the platform":      document(f.server.URL, "https://castellan.localhost/keys"),
		"keys behind a user name":   document(f.server.URL, "https://a@"+strings.TrimPrefix(f.server.URL, "https://")+"/keys"),
		"no keys":                   document(f.server.URL, ""),
		"a redirect":                func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) },
		"a page":                    func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
		"too much":                  send([]byte(`{"keys":[` + strings.Repeat(" ", maxDocument) + `]}`)),
		"too many keys":             send(mustJSON(t, jose.JSONWebKeySet{Keys: many})),
		"two keys of one name":      send(mustJSON(t, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{public("one", &key.PublicKey, ""), public("one", &rsaKey(t, 2048).PublicKey, "")}})),
		"a private key":             send(mustJSON(t, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{KeyID: "one", Key: key}}})),
		"a symmetric key":           send(mustJSON(t, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{KeyID: "one", Key: []byte("0123456789abcdef")}}})),
		"a weak key":                send(mustJSON(t, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{public("one", &small.PublicKey, "")}})),
		"a key to encrypt with":     send(mustJSON(t, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{KeyID: "one", Key: &key.PublicKey, Use: "enc"}}})),
		"an empty set":              send([]byte(`{}`)),
	} {
		f.publish(h)
		if _, err := f.open().Verify(context.Background(), raw, f.server.URL); !errors.Is(err, ErrFetch) {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.publish(send(set))
	if _, err := f.open().Verify(context.Background(), raw, f.server.URL); err != nil {
		t.Errorf("the well-behaved issuer: %v", err)
	}
	f.settings(Settings{Loopback: true}) // its authority is not one of ours
	if _, err := f.open().Verify(context.Background(), raw, f.server.URL); !errors.Is(err, ErrFetch) {
		t.Errorf("an unknown authority: %v", err)
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Without the setting, this machine is not asked, whatever name leads to it.
func TestLoopbackIsShut(t *testing.T) {
	f := newForeign(t)
	key := rsaKey(t, 2048)
	f.publish(nil, public("one", &key.PublicKey, ""))
	f.settings(Settings{CAFile: filepath.Join(filepath.Dir(f.file), "ca.pem")})
	k := f.open()
	port := f.server.URL[strings.LastIndexByte(f.server.URL, ':'):]
	for _, at := range []string{f.server.URL, "https://localhost" + port, "https://[::1]" + port, "https://[::ffff:127.0.0.1]" + port, "https://127.1" + port, "https://0x7f000001" + port, "https://2130706433" + port} {
		raw := sign(t, jose.RS256, key, map[string]any{"kid": "one"}, map[string]any{"iss": at})
		if _, err := k.Verify(context.Background(), raw, at); !errors.Is(err, ErrFetch) {
			t.Errorf("%s: %v", at, err)
		}
	}
	if n := f.asked.Load(); n != 0 {
		t.Errorf("it was asked %d times", n)
	}
}

// MID-09: addresses of metadata services are refused in every spelling, at
// registration and when a name comes to them.
func TestAddressesThatAreNeverAsked(t *testing.T) {
	for _, a := range []string{
		"169.254.169.254", "169.254.0.1", "::ffff:169.254.169.254", "::169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "2002:a9fe:a9fe::", "fe80::1", "fe80::a9fe:a9fe%eth0",
		"168.63.129.16", "100.100.100.200", "0.0.0.0", "0.1.2.3", "::", "224.0.0.1", "255.255.255.255", "ff02::1", "fd00:ec2::254", "127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "::7f00:1", "2002:7f00:1::",
	} {
		if err := checkAddr(netip.MustParseAddr(a), false); err == nil {
			t.Errorf("%s may be asked", a)
		}
	}
	for _, a := range []string{"10.0.0.1", "192.168.1.1", "140.82.112.3", "2606:50c0::1", "fd12::1"} {
		if err := checkAddr(netip.MustParseAddr(a), false); err != nil {
			t.Errorf("%s: %v", a, err)
		}
	}
	for _, name := range []string{
		"", "issuer", "http://a.example", "HTTPS://a.example", "https://", "https:///x", "https://A.example", "https://a.example.", "https://u@a.example", "https://a.example?x", "https://a.example#x", "https://a.example/%2e",
		"https://a.example/../b", "https://a.example//b", "https://a.example/ b", "https://a.example\n", "https://169.254.169.254", "https://[::ffff:169.254.169.254]/", "https://[::ffff:a9fe:a9fe]/", "https://2852039166/",
		"https://0xa9fea9fe/", "https://0xa9.0xfe.0xa9.0xfe/", "https://169.254.43518/", "https://0251.0376.0251.0376/", "https://169.0xfea9fe", "file:///x", "https:a.example", "https://a.example/" + strings.Repeat("x", 600),
	} {
		if CheckName(name) == nil {
			t.Errorf("%q may be an issuer", name)
		}
	}
	for _, name := range []string{"https://token.actions.githubusercontent.com", "https://kubernetes.default.svc.cluster.local", "https://10.0.0.1:6443", "https://oidc.eks.eu-west-1.amazonaws.com/id/AB12", "https://a.example/"} {
		if err := CheckName(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The keys of a cluster that can't be reached are written down, and then it is
// never asked.
func TestPinnedKeys(t *testing.T) {
	f := newForeign(t)
	key := rsaKey(t, 2048)
	var set any
	if err := json.Unmarshal(mustJSON(t, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{public("one", &key.PublicKey, "")}}), &set); err != nil {
		t.Fatal(err)
	}
	f.settings(Settings{Keys: map[string]any{f.server.URL: set}})
	k := f.open()
	if _, err := k.Verify(context.Background(), sign(t, jose.RS256, key, map[string]any{"kid": "one"}, f.claims()), f.server.URL); err != nil {
		t.Error(err)
	}
	if _, err := k.Verify(context.Background(), sign(t, jose.RS256, key, map[string]any{"kid": "two"}, f.claims()), f.server.URL); !errors.Is(err, ErrToken) {
		t.Errorf("a key that is not written down: %v", err)
	}
	if n := f.asked.Load(); n != 0 {
		t.Errorf("it was asked %d times", n)
	}
	for _, bad := range []string{`{"keys":{"http://a":{"keys":[]}}}`, `{"keys":{"https://a.example":{"keys":[]}}}`, `{"unknown":1}`, `{"caFile":"/nowhere"}`, `{`} {
		f.write(f.file, []byte(bad))
		if _, err := Open(Config{File: f.file}); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}
