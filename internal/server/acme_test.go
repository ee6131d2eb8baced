package server

import (
	"context"
	"crypto/tls"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/crypto/acme/autocert"
)

// empty is a cache with nothing in it, which takes nothing.
type empty struct{}

func (empty) Get(context.Context, string) ([]byte, error) { return nil, autocert.ErrCacheMiss }
func (empty) Put(context.Context, string, []byte) error   { return nil }
func (empty) Delete(context.Context, string) error        { return nil }

// A name for which the authority signs nothing gets no other certificate, and it is
// asked for none that is not known.
func TestACMEFailsClosed(t *testing.T) {
	a := authority(t)
	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, a.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	var asked []string
	known := func(name string) bool { asked = append(asked, name); return name != "nobody.vault.castellan.localhost" }
	x, err := NewACME("https://127.0.0.1:1/dir", roots, empty{}, known, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	cfg := x.Over(a)
	for _, name := range []string{"castellan.localhost", "", "nobody.vault.castellan.localhost", "www.example.com", "localhost", "CASTELLAN.LOCALHOST.example"} {
		c, err := cfg.GetCertificate(&tls.ClientHelloInfo{ServerName: name, Conn: nil, SupportedProtos: []string{"h2"}, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}})
		if c != nil || err == nil {
			t.Errorf("%q is shown a certificate", name)
		}
	}
	if c, err := cfg.GetCertificate(&tls.ClientHelloInfo{ServerName: "www.example.com", SupportedProtos: []string{"acme-tls/1"}}); c != nil || err == nil {
		t.Error("a challenge that nobody waits for is answered")
	}
	slices.Sort(asked)
	if asked = slices.Compact(asked); !slices.Equal(asked, []string{"castellan.localhost", "nobody.vault.castellan.localhost"}) {
		t.Errorf("asked about %q", asked)
	}
	for _, directory := range []string{"", "http://acme.example/dir", "https://", "https://u:p@acme.example/dir"} {
		if _, err := NewACME(directory, roots, empty{}, known, nil); err == nil {
			t.Errorf("the directory %q is taken", directory)
		}
	}
	if _, err := NewACME("https://acme.example/dir", os.Args[0], empty{}, known, nil); err == nil {
		t.Error("roots that are none are taken")
	}
}
