package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
)

// ACME has certificates from an authority that speaks ACME (RFC 8555), one for each
// name when it is first asked for, and new ones when two thirds of their time are
// over. The authority looks at the TLS listener itself (tls-alpn-01, RFC 8737), so
// there is no other. A name for which there is none can't be reached: no other
// certificate stands in.
type ACME struct{ m *autocert.Manager }

// NewACME is for the authority with this directory, reached by https and known by
// the roots in the file, or by those of the system if that is "". cache keeps
// certificates and keys; known are the names to ask for, and no others are: else
// whoever connects could have it ask without end.
func NewACME(directory, roots string, cache autocert.Cache, known func(name string) bool, log *slog.Logger) (*ACME, error) {
	if u, err := url.Parse(directory); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, fmt.Errorf("the ACME directory is %q; it must be an https URL", directory)
	}
	var pool *x509.CertPool
	if roots != "" {
		pem, err := os.ReadFile(roots)
		if err != nil {
			return nil, fmt.Errorf("reading the roots of the ACME authority: %w", err)
		}
		if pool = x509.NewCertPool(); !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("the file %s has no certificates in PEM", roots)
		}
	}
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
	return &ACME{&autocert.Manager{
		Prompt: autocert.AcceptTOS, // who names an authority agrees to its terms
		Cache:  cache, Client: &acme.Client{DirectoryURL: directory, HTTPClient: client, UserAgent: "castellan"},
		HostPolicy: func(_ context.Context, name string) error {
			if !known(name) {
				return errUnknownName
			}
			log.Info("a certificate is asked for", "name", name, "authority", directory)
			return nil
		},
	}}, nil
}

var errUnknownName = errors.New("that is no name of this installation")

// Over is the configuration of a listener that shows the authority's certificates.
func (x *ACME) Over(a *Authority) *tls.Config {
	cfg := a.TLS()
	cfg.NextProtos = append(cfg.NextProtos, acme.ALPNProto)
	cfg.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		named := *h
		named.ServerName = a.asked(h)
		if !a.site.Owns(named.ServerName) && !slices.Contains(h.SupportedProtos, acme.ALPNProto) {
			return nil, errUnknownName
		}
		return x.m.GetCertificate(&named)
	}
	return cfg
}
