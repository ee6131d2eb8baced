package app

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"castellan/internal/server"
)

// drainTime is how long requests under way may take when the server stops.
const drainTime = 10 * time.Second

// memory is what the garbage collector keeps the process below, working more often
// when it comes near, unless GOMEMLIMIT says otherwise: ten thousand clients at once
// would else have twice what they need.
const memory = 768 << 20

// Edge is a platform that listens.
type Edge struct {
	App    *App
	Listen string // address of the TLS listener
	Proxy  string // address of the CONNECT proxy

	tls, proxy net.Listener
	shown      Certificates // nil: the authority's own leaves are shown
	srv        *http.Server
	failed     chan error
}

// Listen opens the listeners; the zero port picks a free one.
func Listen(a *App, listen, proxy string) (*Edge, error) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memory)
	}
	tl, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	pl, err := net.Listen("tcp", proxy)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listening for the proxy: %w", err), tl.Close())
	}
	return &Edge{App: a, Listen: tl.Addr().String(), Proxy: pl.Addr().String(), tls: tl, proxy: pl, srv: a.Handler.Server(), failed: make(chan error, 3)}, nil
}

// Certificates are of another authority than the installation's own.
type Certificates interface {
	// Over is the configuration of a listener that shows them.
	Over(own *server.Authority) *tls.Config
}

// Show has clients from outside shown other certificates. Jobs trust the
// installation's own authority, so they and the proxy go on with its leaves.
func (e *Edge) Show(c Certificates) { e.shown = c }

// Serve answers until ctx is done; then it lets requests under way end.
func (e *Edge) Serve(ctx context.Context) error {
	inner := server.NewHanded(e.proxy.Addr())
	proxy := &server.Proxy{Site: e.App.Site, Edge: inner.Hand}
	e.srv.TLSConfig = e.App.CA.TLS()
	outer := e.srv.TLSConfig
	if e.shown != nil {
		outer = e.shown.Over(e.App.CA)
	}
	go func() { e.failed <- e.srv.Serve(tls.NewListener(e.tls, outer)) }()
	go func() { e.failed <- e.srv.ServeTLS(inner, "", "") }()
	go func() { e.failed <- proxy.Serve(e.proxy) }()
	var err error
	select {
	case <-ctx.Done():
	case err = <-e.failed:
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	_ = e.proxy.Close() // nothing is lost with it
	if down := e.srv.Shutdown(drain); down != nil {
		_ = e.srv.Close() // what did not end in time is cut
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Client is an HTTP client that reaches the platform by its own names.
func (e *Edge) Client() *http.Client {
	dial := server.Dial(e.Listen)
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DialContext:     func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		TLSClientConfig: &tls.Config{RootCAs: e.App.roots(), MinVersion: tls.VersionTLS12},
	}}
}

// Ready is what a client must know of a running platform.
type Ready struct {
	Ready          bool              `json:"ready"`
	ARM            string            `json:"armEndpoint"`
	Login          string            `json:"loginEndpoint"`
	Graph          string            `json:"graphEndpoint"`
	ML             string            `json:"mlEndpoint"`
	Suffixes       map[string]string `json:"suffixes"`
	TenantID       string            `json:"tenantId"`
	SubscriptionID string            `json:"subscriptionId"`
	Location       string            `json:"location"`
	CAFile         string            `json:"caFile"`
	CABundleFile   string            `json:"caBundleFile,omitempty"` // the system's roots and ours
	Listen         string            `json:"listen"`
	Proxy          string            `json:"proxy"` // for HTTPS_PROXY
	Admin          *ReadyAdmin       `json:"admin,omitempty"`
}

// ReadyAdmin is told at the first start and never again.
type ReadyAdmin struct {
	ClientID     string `json:"clientId"`
	ClientSecret string `json:"clientSecret"`
	UserName     string `json:"userName"`
	Password     string `json:"password"`
}

// Ready writes the certificate files and tells how to reach the platform. The
// same, without secrets, is kept in the data folder for castellan setup.
func (e *Edge) Ready() (Ready, error) {
	a, s := e.App, e.App.Site
	r := Ready{
		Ready: true, ARM: s.Base(), Login: s.Base(), Graph: "https://" + s.GraphHost(), ML: s.Base(),
		Suffixes: map[string]string{"vault": s.VaultSuffix(), "blob": "blob." + s.StorageSuffix(), "dfs": "dfs." + s.StorageSuffix(), "file": "file." + s.StorageSuffix(), "storage": s.StorageSuffix(), "registry": s.RegistrySuffix(), "inference": s.InferenceSuffix()},
		TenantID: s.Tenant, SubscriptionID: s.Subscription, Location: s.Location,
		CAFile: filepath.Join(a.Data, "ca.pem"), Listen: e.Listen, Proxy: "http://" + e.Proxy,
	}
	if err := os.WriteFile(r.CAFile, a.CA.PEM(), 0o644); err != nil {
		return r, fmt.Errorf("writing the certificate: %w", err)
	}
	if system := systemRoots(); system != nil {
		r.CABundleFile = filepath.Join(a.Data, "ca-bundle.pem")
		if err := os.WriteFile(r.CABundleFile, append(system, a.CA.PEM()...), 0o644); err != nil {
			return r, fmt.Errorf("writing the certificates: %w", err)
		}
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return r, err
	}
	if err := os.WriteFile(filepath.Join(a.Data, "server.json"), append(b, '\n'), 0o600); err != nil {
		return r, fmt.Errorf("writing how to reach the server: %w", err)
	}
	if a.Admin != nil {
		r.Admin = &ReadyAdmin{a.Admin.ClientID, string(a.Admin.ClientSecret.Reveal()), a.Admin.UserName, string(a.Admin.Password.Reveal())}
	}
	return r, nil
}

// systemRoots are the machine's own root certificates, or nil.
func systemRoots() []byte {
	for _, path := range []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"} {
		if b, err := os.ReadFile(path); err == nil {
			if block, _ := pem.Decode(b); block != nil {
				return append(b, '\n')
			}
		}
	}
	return nil
}
