package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"castellan/internal/server"
)

// An account that wants TLS 1.3 answers nobody who comes by less, whatever they
// show, and others still by TLS 1.2.
func TestAnAccountsMinimumTLS(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	p := newPoliced(t, a)
	me := a.newPerson(t, "operator")
	token := tokenFor(t, a, me.id, me.secret, a.audiences()["blob"])
	for name, min := range map[string]string{"onlythirteen": "TLS1_3", "alsotwelve": "TLS1_2"} {
		u, body := p.account(name, map[string]any{"minimumTlsVersion": min})
		p.fine(u, body)
		a.giveRole(t, p.token, p.path(u), me.object, "Storage Blob Data Owner")
		for version, fine := range map[uint16]bool{tls.VersionTLS12: min == "TLS1_2", tls.VersionTLS13: true} {
			r := httptest.NewRequest(http.MethodGet, "https://"+name+".blob.core."+a.Site.Suffix+"/?comp=list", nil)
			r.Header.Set("Authorization", "Bearer "+token)
			r.Header.Set("x-ms-version", "2023-11-03")
			r.TLS = &tls.ConnectionState{Version: version, HandshakeComplete: true}
			w := httptest.NewRecorder()
			a.Handler.ServeHTTP(w, r)
			if fine != (w.Code == http.StatusOK) || !fine && (w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "TlsVersionNotPermitted")) {
				t.Errorf("%s by %s = %d %s", min, tls.VersionName(version), w.Code, w.Body)
			}
		}
	}
}

// Clients from outside are shown the certificate that was brought, by HTTP/2 too;
// those that come by the proxy, as jobs do, the installation's own.
func TestABroughtCertificateIsShown(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	certDER, keyDER, err := server.NewAuthority("theirs", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := server.OpenAuthority(certDER, keyDER, a.Site, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := theirs.TLS().GetCertificate(&tls.ClientHelloInfo{ServerName: a.Site.Host()})
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	files := [2]string{t.TempDir() + "/cert.pem", t.TempDir() + "/key.pem"}
	for i, block := range []*pem.Block{{Type: "CERTIFICATE", Bytes: leaf.Certificate[0]}, {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(files[i], pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	brought, err := server.Bring(files[0], files[1], a.Log)
	if err != nil {
		t.Fatal(err)
	}
	e, err := Listen(a, "127.0.0.1:0", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e.Show(brought)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(theirs.PEM())
	outside := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", e.Listen)
		},
		TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true,
	}
	proxy, err := url.Parse("http://" + e.Proxy)
	if err != nil {
		t.Fatal(err)
	}
	inside := &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: a.roots()}, ForceAttemptHTTP2: true}
	for name, tr := range map[string]*http.Transport{"outside": outside, "inside": inside} {
		defer tr.CloseIdleConnections()
		resp, err := (&http.Client{Transport: tr}).Get(a.Site.Base() + "/metadata/endpoints?api-version=2022-09-01")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
			t.Errorf("%s: %s %s", name, resp.Status, resp.Proto)
		}
	}
}
