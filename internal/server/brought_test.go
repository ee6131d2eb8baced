package server

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"castellan/internal/arm"
)

// authority is an authority of its own, for names of castellan.localhost.
func authority(t *testing.T) *Authority {
	t.Helper()
	cert, key, err := NewAuthority("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	a, err := OpenAuthority(cert, key, arm.Site{Suffix: "castellan.localhost"}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// bring writes a leaf of somebody else's authority for a name to the files.
func bring(t *testing.T, from *Authority, name, cert, key string) {
	t.Helper()
	leaf, err := from.mint(name)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: leaf.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// shown is the certificate that a client who asks for name is shown.
func shown(t *testing.T, cfg *tls.Config, name string) (*x509.Certificate, uint16) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			_ = c.(*tls.Conn).Handshake() // the client says how it went
			_ = c.Close()
		}
	}()
	c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{ServerName: name, InsecureSkipVerify: true}) // what is shown is looked at
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	st := c.ConnectionState()
	return st.PeerCertificates[0], uint16(st.CurveID)
}

// A brought certificate is shown for its own names alone, and a renewed one
// without a restart; files that are half written change nothing. The key exchange
// is the hybrid one that resists quantum computers (X25519MLKEM768).
func TestABroughtCertificate(t *testing.T) {
	own, theirs := authority(t), authority(t)
	cert, key := filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	bring(t, theirs, "castellan.localhost", cert, key)
	var log bytes.Buffer
	b, err := Bring(cert, key, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	cfg := b.Over(own)
	first, curve := shown(t, cfg, "castellan.localhost")
	if first.CheckSignatureFrom(theirs.cert) != nil {
		t.Error("the brought certificate is not shown")
	}
	if curve != uint16(tls.X25519MLKEM768) {
		t.Errorf("the key exchange is %v", tls.CurveID(curve))
	}
	if c, _ := shown(t, cfg, "kv.vault.castellan.localhost"); c.CheckSignatureFrom(own.cert) != nil {
		t.Error("for a name that the brought certificate lacks the own is not shown")
	}
	if err := os.WriteFile(key, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.looked = time.Time{}
	if c, _ := shown(t, cfg, "castellan.localhost"); !c.Equal(first) {
		t.Error("files that are half written are shown")
	}
	bring(t, theirs, "castellan.localhost", cert, key)
	b.looked = time.Time{}
	if c, _ := shown(t, cfg, "castellan.localhost"); c.Equal(first) || c.CheckSignatureFrom(theirs.cert) != nil {
		t.Error("the renewed certificate is not shown")
	}
	if !strings.Contains(log.String(), "can't be read again") {
		t.Error("nobody was told of the bad file")
	}
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Bring(cert, key, slog.Default()); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that all can read = %v", err)
	}
}
