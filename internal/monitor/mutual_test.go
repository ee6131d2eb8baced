package monitor

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// pair is a certificate for 127.0.0.1 that vouches for itself, for either side of
// a connection, as two files and loaded.
func pair(t *testing.T) (cert, key string, loaded tls.Certificate, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	say := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, say, say, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(&block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if loaded, err = tls.LoadX509KeyPair(cert, key); err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AddCert(loaded.Leaf)
	return cert, key, loaded, pool
}

// A sink that asks who sends has the certificate of the sinks' file, by syslog and by
// OTLP; without one, or with another, nothing counts as delivered.
func TestASinkThatAsksForACertificate(t *testing.T) {
	cert, key, own, pool := pair(t)
	other, otherKey, _, _ := pair(t)
	asks := &tls.Config{Certificates: []tls.Certificate{own}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	listen(t, tls.NewListener(l, asks), 0)
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	web.TLS = asks
	web.StartTLS()
	defer web.Close()
	for _, at := range []string{`"syslog":"tls://` + l.Addr().String() + `"`, `"otlp":"` + web.URL + `/v1/logs"`} {
		for shown, fine := range map[string]bool{
			`,"certFile":"` + cert + `","keyFile":"` + key + `"`:       true,
			`,"certFile":"` + other + `","keyFile":"` + otherKey + `"`: false,
			"": false,
		} {
			s, err := open(at + `,"caFile":"` + cert + `"` + shown)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Deliver(t.Context(), records(t, 3)); (err == nil) != fine {
				t.Errorf("%s%s: the delivery ended with %v", at, shown, err)
			}
		}
	}
}
