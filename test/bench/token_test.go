// Package bench measures tokens against another implementation, in a module of
// its own so that the product does not depend on that one.
package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// servedPeer names the peer that this program, started again, serves.
const servedPeer = "CASTELLAN_BENCH_PEER"

func TestMain(m *testing.M) {
	switch os.Getenv(servedPeer) {
	case "bare":
		serve(func(string) http.Handler { return bare() })
	case "zitadel":
		serve(zitadel)
	}
	os.Exit(m.Run())
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// bare signs a token of the usual size for whoever asks: net/http, a form, and
// one RSA-2048 signature.
func bare() http.Handler {
	key := must(rsa.GenerateKey(rand.Reader, 2048))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		said := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"sub":%q,"iat":%d,"more":%q}`, r.Form.Get("client_id"), time.Now().Unix(), strings.Repeat("x", 600)))
		text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256"}`)) + "." + said
		sum := sha256.Sum256([]byte(text))
		sig, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"token_type": "Bearer", "access_token": text + "." + base64.RawURLEncoding.EncodeToString(sig)}) // the client's loss
	})
}

// signing is the example's store, whose tokens are signed as ours are; as
// shipped they are opaque.
type signing struct{ *storage.Storage }

type signed struct{ op.Client }

func (signed) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeJWT }

func (s signing) ClientCredentials(ctx context.Context, id, secret string) (op.Client, error) {
	c, err := s.Storage.ClientCredentials(ctx, id, secret)
	return signed{c}, err
}

func zitadel(base string) http.Handler {
	return exampleop.SetupServer(base+"/", signing{storage.NewStorage(storage.NewUserStore(base + "/"))}, slog.New(slog.DiscardHandler), false)
}

// serve serves a peer by TLS until its input ends.
func serve(peer func(base string) http.Handler) {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	der := certificate(key.Public(), key)
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	base := "https://" + l.Addr().String()
	srv := &http.Server{Handler: peer(base), TLSConfig: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}}
	go func() { _ = srv.ServeTLS(l, "", "") }() // until the process ends
	must(0, json.NewEncoder(os.Stdout).Encode(map[string]any{"loginEndpoint": base, "listen": l.Addr().String(), "der": der}))
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

func certificate(public any, key crypto.Signer) []byte {
	t := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true}
	return must(x509.CreateCertificate(rand.Reader, t, t, public, key))
}

// served is a server in a process of its own.
type served struct {
	Login  string `json:"loginEndpoint"`
	Graph  string `json:"graphEndpoint"`
	Tenant string `json:"tenantId"`
	Listen string
	CAFile string `json:"caFile"`
	DER    []byte
	Admin  struct{ ClientID, ClientSecret string }

	pid  int
	http *http.Client
}

func start(b *testing.B, cmd *exec.Cmd) *served {
	b.Helper()
	out, in := must(cmd.StdoutPipe()), must(cmd.StdinPipe())
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = in.Close(); _ = cmd.Process.Signal(os.Interrupt); _ = cmd.Wait() })
	s := &served{pid: cmd.Process.Pid}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err = errors.Join(err, json.Unmarshal(line, s)); err != nil {
		b.Fatal(err)
	}
	roots := x509.NewCertPool()
	if s.DER != nil {
		roots.AddCert(must(x509.ParseCertificate(s.DER)))
	} else if !roots.AppendCertsFromPEM(must(os.ReadFile(s.CAFile))) {
		b.Fatal("no certificate")
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", s.Listen)
	}
	s.http = &http.Client{Transport: &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: roots}, MaxIdleConnsPerHost: 64}}
	return s
}

// cpu is the processor time that a server has used.
func (s *served) cpu() time.Duration {
	stat := string(must(os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.pid))))
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	const tick = 10 * time.Millisecond
	return time.Duration(must(strconv.Atoi(f[11]))+must(strconv.Atoi(f[12]))) * tick
}

// do sends a request and reads the answer, which must be good.
func (s *served) do(method, u, bearer, typ string, body []byte, into any) error {
	req := must(http.NewRequest(method, u, bytes.NewReader(body)))
	req.Header.Set("Content-Type", typ)
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	res, err := s.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s = %d %s", method, u, res.StatusCode, b)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(b, into)
}

// token asks for a token, which must be a signed one.
func (s *served) token(path string, form url.Values) (string, error) {
	var got struct {
		Token string `json:"access_token"`
	}
	form.Set("grant_type", "client_credentials")
	err := s.do(http.MethodPost, s.Login+path, "", "application/x-www-form-urlencoded", []byte(form.Encode()), &got)
	if err == nil && strings.Count(got.Token, ".") != 2 {
		err = fmt.Errorf("the token of %s is not signed", path)
	}
	return got.Token, err
}

// certify gives the administrator's application a certificate.
func (s *served) certify(b *testing.B, token string, der []byte) {
	b.Helper()
	var found struct{ Value []struct{ ID string } }
	err := s.do(http.MethodGet, s.Graph+"/v1.0/applications?$filter="+url.QueryEscape("appId eq '"+s.Admin.ClientID+"'"), token, "", nil, &found)
	if err != nil || len(found.Value) != 1 {
		b.Fatal(err, found)
	}
	body := must(json.Marshal(map[string]any{"keyCredentials": []any{map[string]any{"type": "AsymmetricX509Cert", "usage": "Verify", "displayName": "bench", "key": der}}}))
	if err := s.do(http.MethodPatch, s.Graph+"/v1.0/applications/"+found.Value[0].ID, token, "application/json", body, nil); err != nil {
		b.Fatal(err)
	}
}

// contender is one way to a token.
type contender struct {
	name string
	s    *served
	ask  func() error
	took []time.Duration
	cpu  time.Duration
}

// Tokens of the grant client_credentials through TLS. All take turns, so that
// what else the machine does hurts all alike; ratios are to the bare server.
func BenchmarkClientCredentials(b *testing.B) {
	program := filepath.Join(b.TempDir(), "castellan")
	build := exec.Command("go", "build", "-o", program, "./cmd/castellan")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	peer := func(name string) *served {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), servedPeer+"="+name)
		return start(b, cmd)
	}
	plain, other := peer("bare"), peer("zitadel")
	ours := start(b, exec.Command(program, "up", "--data", filepath.Join(b.TempDir(), "data"), "--listen", "127.0.0.1:0", "--json"))
	path := "/" + ours.Tenant + "/oauth2/v2.0/token"
	bySecret := func(audience string) (string, error) {
		return ours.token(path, url.Values{"client_id": {ours.Admin.ClientID}, "client_secret": {ours.Admin.ClientSecret}, "scope": {audience + "/.default"}})
	}
	admin, err := bySecret(ours.Graph)
	if err != nil {
		b.Fatal(err)
	}
	key := must(rsa.GenerateKey(rand.Reader, 2048))
	der := certificate(key.Public(), key)
	ours.certify(b, admin, der)
	name := sha256.Sum256(der)
	signer := must(jose.NewSigner(jose.SigningKey{Algorithm: jose.PS256, Key: key}, (&jose.SignerOptions{}).WithHeader("x5t#S256", base64.RawURLEncoding.EncodeToString(name[:]))))
	assertion := func() string {
		said := must(json.Marshal(map[string]any{"iss": ours.Admin.ClientID, "sub": ours.Admin.ClientID, "aud": ours.Login + path, "exp": time.Now().Add(10 * time.Minute).Unix(), "jti": rand.Text()}))
		return must(must(signer.Sign(said)).CompactSerialize())
	}
	asks := func(_ string, err error) error { return err }
	for _, width := range []int{1, 8} {
		b.Run(strconv.Itoa(width), func(b *testing.B) {
			ready := make(chan string, width) // assertions are signed before the clock starts
			all := []*contender{
				{name: "bare", s: plain, ask: func() error { return asks(plain.token("/", url.Values{"client_id": {"x"}, "client_secret": {"x"}})) }},
				{name: "zitadel", s: other, ask: func() error {
					return asks(other.token("/oauth/token", url.Values{"client_id": {"sid1"}, "client_secret": {"verysecret"}, "scope": {"openid"}}))
				}},
				{name: "secret", s: ours, ask: func() error { return asks(bySecret(ours.Login)) }},
				{name: "assertion", s: ours, ask: func() error {
					return asks(ours.token(path, url.Values{"client_id": {ours.Admin.ClientID}, "client_assertion": {<-ready}, "client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "scope": {ours.Login + "/.default"}}))
				}},
			}
			for b.Loop() {
				for _, c := range all {
					c.turn(b, width, ready, assertion)
				}
			}
			base := median(all[0].took)
			for _, c := range all {
				n := len(c.took) * width
				b.ReportMetric(float64(width)/median(c.took).Seconds(), c.name+"/s")
				b.ReportMetric(float64(c.cpu.Microseconds())/float64(n), c.name+"-cpu-µs")
				b.ReportMetric(float64(base)/float64(median(c.took)), c.name+"/bare")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// turn has width callers ask at once.
func (c *contender) turn(b *testing.B, width int, ready chan string, assertion func() string) {
	if c.name == "assertion" {
		for range width {
			ready <- assertion()
		}
	}
	var wg sync.WaitGroup
	errs := make([]error, width)
	used, begin := c.s.cpu(), time.Now()
	for i := range width {
		wg.Go(func() { errs[i] = c.ask() })
	}
	wg.Wait()
	c.took, c.cpu = append(c.took, time.Since(begin)), c.cpu+c.s.cpu()-used
	if err := errors.Join(errs...); err != nil {
		b.Fatal(err)
	}
}

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}
