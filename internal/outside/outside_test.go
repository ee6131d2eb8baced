package outside

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"castellan/internal/arm"
	"castellan/internal/cmk"
	"castellan/internal/key"
)

const (
	vaultHost = "guards.example.com" // httptest's certificate is for such names
	authority = "https://login.example.com/tenant"
	keyURL    = "https://" + vaultHost + "/keys/k/1"
)

var ref = cmk.Ref{Host: vaultHost, Vault: "guards", Key: "k", Tenant: "t", Principal: "p", Client: "c"}

// world is a vault and its authority, as Azure's answer, and what may be wrong with them.
type world struct {
	*testing.T
	v         *Vaults
	key       key.Key
	challenge string
	attrs     map[string]any
	kid       string
	intercept func(w http.ResponseWriter, r *http.Request) bool // answers in their place
	live      string                                            // the token that the vault takes
	asserted  int                                               // how often the identity proved itself
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, challenge: `Bearer authorization="` + authority + `", resource="https://example.com"`, kid: keyURL, live: "one",
		attrs: map[string]any{"enabled": true, "recoveryLevel": "CustomizedRecoverable"}}
	var err error
	if w.key, err = key.Generate(key.RSA, "", 2048); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewTLSServer(http.HandlerFunc(w.serve))
	t.Cleanup(srv.Close)
	ca := t.TempDir() + "/ca.pem"
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	w.v = open(t, Settings{CAFile: ca, Vaults: []Vault{{Host: vaultHost, Authority: authority, Tenants: []string{"t"}}}}, func(context.Context, string, string) (arm.Secret, error) {
		w.asserted++
		return arm.NewSecret([]byte("assertion")), nil
	})
	tr := w.v.hosts[vaultHost].client.Transport.(*http.Transport)
	tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", srv.Listener.Addr().String())
	}
	return w
}

func open(t *testing.T, set Settings, assert func(context.Context, string, string) (arm.Secret, error)) *Vaults {
	t.Helper()
	b, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	file := t.TempDir() + "/vaults.json"
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	v, err := Open(Config{File: file, Assert: assert, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	if w.intercept != nil && w.intercept(rw, r) {
		return
	}
	reply := func(status int, v any) {
		rw.WriteHeader(status)
		_ = json.NewEncoder(rw).Encode(v) // the client sees what is missing
	}
	switch {
	case r.Host == "login.example.com":
		if r.FormValue("client_assertion") != "assertion" || r.FormValue("client_id") != "c" || r.FormValue("scope") != "https://example.com/.default" {
			w.Errorf("the authority was asked for %v", r.Form)
		}
		reply(200, map[string]any{"access_token": w.live, "expires_in": 3600})
	case r.Header.Get("Authorization") != "Bearer "+w.live:
		if b, _ := io.ReadAll(r.Body); len(b) > 0 && r.Header.Get("Authorization") == "" {
			w.Error("who has no token sends a key")
		}
		rw.Header().Set("WWW-Authenticate", w.challenge)
		reply(401, map[string]any{"error": map[string]any{"code": "Unauthorized"}})
	case r.Method == http.MethodGet:
		reply(200, map[string]any{"key": map[string]any{"kid": w.kid}, "attributes": w.attrs})
	default:
		var in struct{ Alg, Value string }
		_ = json.NewDecoder(r.Body).Decode(&in) // an empty value fails below
		raw, _ := base64.RawURLEncoding.DecodeString(in.Value)
		do := w.key.Wrap
		if strings.HasSuffix(r.URL.Path, "/unwrapkey") {
			do = w.key.Unwrap
		}
		out, err := do(in.Alg, raw)
		if err != nil {
			reply(400, map[string]any{"error": map[string]any{"code": "BadParameter"}})
			return
		}
		reply(200, map[string]any{"kid": w.kid, "value": base64.RawURLEncoding.EncodeToString(out)})
	}
}

// A vault outside wraps and unwraps; a token that died is replaced once.
func TestAVaultOutside(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	if err := w.v.Fit(ctx, ref); err != nil {
		t.Fatal(err)
	}
	wrapped, err := w.v.Wrap(ctx, ref, "1", []byte("plain"))
	if err != nil {
		t.Fatal(err)
	}
	w.live = "two"
	if plain, err := w.v.Unwrap(ctx, ref, "1", wrapped); err != nil || string(plain) != "plain" {
		t.Errorf("unwrapped: %q %v", plain, err)
	}
	if w.asserted != 2 {
		t.Errorf("the identity proved itself %d times, want once for each token", w.asserted)
	}
	for why, r := range map[string]cmk.Ref{"another tenant": {Host: vaultHost, Tenant: "u"}, "another host": {Host: "other.example.com", Tenant: "t"}, "a host around it": {Host: "x." + vaultHost, Tenant: "t"}} {
		if _, err := w.v.Newest(ctx, r); arm.CodeOf(err) != arm.Forbidden {
			t.Errorf("%s: %v", why, err)
		}
	}
}

// Who answers in a vault's place learns no proof of the identity, and gets
// nothing taken for the key.
func TestAFalseVaultOutside(t *testing.T) {
	answers := func(status int, body string, head ...string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.Host != vaultHost {
				return false
			}
			for i := 0; i+1 < len(head); i += 2 {
				w.Header().Set(head[i], head[i+1])
			}
			w.WriteHeader(status)
			fmt.Fprint(w, body)
			return true
		}
	}
	onlyWithToken := func(do func(http.ResponseWriter, *http.Request) bool) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			return r.Header.Get("Authorization") != "" && do(w, r)
		}
	}
	for name, c := range map[string]struct {
		change func(w *world)
		proofs int // of the identity that are shown
		says   arm.Code
	}{
		"another authority": {func(w *world) {
			w.challenge = `Bearer authorization="https://evil.example.com/tenant", resource="https://example.com"`
		}, 0, arm.Forbidden},
		"another tenant's authority": {func(w *world) {
			w.challenge = `Bearer authorization="` + authority + `2", resource="https://example.com"`
		}, 0, arm.Forbidden},
		"another service": {func(w *world) {
			w.challenge = `Bearer authorization="` + authority + `", resource="https://storage.example.org"`
		}, 0, arm.Forbidden},
		"a service cut in a label": {func(w *world) {
			w.challenge = `Bearer authorization="` + authority + `", resource="https://ards.example.com"`
		}, 0, arm.Forbidden},
		"no challenge":        {func(w *world) { w.challenge = "" }, 0, arm.Internal},
		"open to all":         {func(w *world) { w.intercept = answers(200, `{"key":{"kid":"`+keyURL+`"}}`) }, 0, arm.Internal},
		"a redirect":          {func(w *world) { w.intercept = answers(307, "", "Location", "https://evil.example.com/") }, 0, arm.Internal},
		"an endless answer":   {func(w *world) { w.intercept = onlyWithToken(answers(200, strings.Repeat(" ", mostAnswer+1))) }, 1, arm.Internal},
		"no JSON":             {func(w *world) { w.intercept = onlyWithToken(answers(200, "<html>")) }, 1, arm.Internal},
		"another vault's key": {func(w *world) { w.kid = "https://other.example.com/keys/k/1" }, 1, arm.Internal},
		"another key":         {func(w *world) { w.kid = "https://" + vaultHost + "/keys/other/1" }, 1, arm.Internal},
		"another version":     {func(w *world) { w.kid = "https://" + vaultHost + "/keys/k/2" }, 1, arm.Internal},
		"disabled":            {func(w *world) { w.attrs["enabled"] = false }, 1, arm.NotFound},
		"expired":             {func(w *world) { w.attrs["exp"] = time.Now().Unix() - 1 }, 1, arm.NotFound},
		"not valid yet":       {func(w *world) { w.attrs["nbf"] = time.Now().Unix() + 60 }, 1, arm.NotFound},
		"too many requests":   {func(w *world) { w.intercept = onlyWithToken(answers(429, "{}")) }, 1, arm.Internal},
		"no role": {func(w *world) {
			w.intercept = onlyWithToken(answers(403, `{"error":{"code":"Forbidden","innererror":{"code":"ForbiddenByRbac"}}}`))
		}, 1, arm.Forbidden},
		"disabled, in Azure's words": {func(w *world) {
			w.intercept = onlyWithToken(answers(403, `{"error":{"code":"Forbidden","innererror":{"code":"KeyDisabled"}}}`))
		}, 1, arm.NotFound},
		"never a token that it takes": {func(w *world) { w.intercept = onlyWithToken(answers(401, "{}")) }, 2, arm.Forbidden},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c.change(w)
			out, err := w.v.Unwrap(t.Context(), ref, "1", []byte("wrapped"))
			if out != nil || arm.CodeOf(err) != c.says || w.asserted != c.proofs {
				t.Errorf("Unwrap = %q, %v (%s) after %d proofs; want %s after %d", out, err, arm.CodeOf(err), w.asserted, c.says, c.proofs)
			}
		})
	}
	w := newWorld(t)
	w.attrs["recoveryLevel"] = "Recoverable+Purgeable"
	if err := w.v.Fit(t.Context(), ref); arm.CodeOf(err) != "KeyVaultPolicyError" {
		t.Errorf("a vault without purge protection: %v", err)
	}
}

// A name that leads to this machine or its metadata is asked only if its network is listed.
func TestNoVaultIsThisMachine(t *testing.T) {
	srv := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(srv.Close)
	_, port, err := net.SplitHostPort(srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	try := func(addresses ...string) error {
		host := "localhost:" + port
		v := open(t, Settings{Vaults: []Vault{{Host: host, Authority: authority, Tenants: []string{"t"}, Addresses: addresses}}}, nil)
		_, err := v.Newest(t.Context(), cmk.Ref{Host: host, Key: "k", Tenant: "t"})
		return err
	}
	if err := try(); err == nil || !strings.Contains(err.Error(), "may be asked") {
		t.Errorf("loopback: %v", err)
	}
	if err := try("10.0.0.0/8"); err == nil || !strings.Contains(err.Error(), "may be asked") {
		t.Errorf("loopback, with another network listed: %v", err)
	}
	if err := try("127.0.0.0/8", "::1/128"); err == nil || strings.Contains(err.Error(), "may be asked") {
		t.Errorf("loopback that is listed is not reached: %v", err)
	}
	var unknown error
	for _, bad := range []Vault{
		{Host: "169.254.169.254", Authority: authority, Tenants: []string{"t"}},
		{Host: "guards.example.com/x", Authority: authority, Tenants: []string{"t"}},
		{Host: vaultHost, Authority: "http://login.example.com/t", Tenants: []string{"t"}},
		{Host: vaultHost, Authority: authority},
		{Host: vaultHost, Authority: authority, Tenants: []string{"t"}, Proxy: "socks5://x"},
		{Host: vaultHost, Authority: authority, Tenants: []string{"t"}, Addresses: []string{"127.0.0.1"}},
	} {
		if _, err := newHost(bad, nil); err == nil {
			unknown = errors.Join(unknown, fmt.Errorf("%+v was taken", bad))
		}
	}
	if unknown != nil {
		t.Error(unknown)
	}
}
