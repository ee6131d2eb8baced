// Package outside asks key vaults that lie outside of the installation, in Azure
// or in another one, for what customers' keys in them do.
//
// Nothing is asked that an administrator has not listed, with the authority whose
// tokens the vault takes: an identity of ours proves itself there by a token of our
// own issuer (workload identity federation), so no secret is kept for it.
package outside

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"castellan/internal/arm"
	"castellan/internal/cmk"
	"castellan/internal/issuer"
)

// patience is how long one request may take.
const patience = 5 * time.Second

// Config says what may be asked. Its zero value asks nobody.
type Config struct {
	File string // settings, see Settings; "": none
	// Assert is a token of our issuer for the managed identity principal, whose
	// audience is api://AzureADTokenExchange.
	Assert func(ctx context.Context, tenant, principal string) (arm.Secret, error)
	Now    func() time.Time
}

// Settings is the content of Config.File, in JSON.
type Settings struct {
	CAFile string  `json:"caFile"` // PEM, of authorities besides the system's
	Vaults []Vault `json:"vaults"`
}

// Vault is one vault that may be asked.
type Vault struct {
	Host      string   `json:"host"`      // such as contoso.vault.azure.net
	Authority string   `json:"authority"` // whose tokens it takes, such as https://login.microsoftonline.com/TENANT
	Tenants   []string `json:"tenants"`   // ids of our tenants whose data its keys may guard
	Proxy     string   `json:"proxy"`     // URL of the CONNECT proxy by which both are reached; "": straight
	Addresses []string `json:"addresses"` // networks, such as 127.0.0.0/8, that would be refused otherwise: loopback, link-local
}

// Vaults asks those vaults. It is safe for concurrent use.
type Vaults struct {
	assert func(ctx context.Context, tenant, principal string) (arm.Secret, error)
	now    func() time.Time
	hosts  map[string]*host
}

// host is one vault that may be asked.
type host struct {
	Vault
	client *http.Client

	mu       sync.Mutex // guards what follows
	resource string     // what tokens are for, as the vault said
	tokens   map[string]token
}

// token lets one identity ask.
type token struct {
	text  arm.Secret
	until time.Time
}

// Open reads the settings.
func Open(c Config) (*Vaults, error) {
	v := &Vaults{assert: c.Assert, now: c.Now, hosts: map[string]*host{}}
	if c.File == "" {
		return v, nil
	}
	b, err := os.ReadFile(c.File)
	if err != nil {
		return nil, fmt.Errorf("reading the vaults outside: %w", err)
	}
	var set Settings
	if err := arm.Decode(b, &set); err != nil {
		return nil, fmt.Errorf("reading %s: %w", c.File, err)
	}
	roots, err := issuer.Roots(set.CAFile)
	if err != nil {
		return nil, err
	}
	for _, x := range set.Vaults {
		h, err := newHost(x, roots)
		if err == nil && v.hosts[h.Host] != nil {
			err = errors.New("it is there twice")
		}
		if err != nil {
			return nil, fmt.Errorf("reading the vault %q in %s: %w", x.Host, c.File, err)
		}
		v.hosts[h.Host] = h
	}
	return v, nil
}

func newHost(x Vault, roots *x509.CertPool) (*host, error) {
	x.Host = strings.ToLower(x.Host)
	if err := issuer.CheckName("https://" + x.Host); err != nil || strings.ContainsAny(x.Host, "/") {
		return nil, errors.New("host must be the name of a host, such as contoso.vault.azure.net")
	}
	if err := issuer.CheckName(x.Authority); err != nil {
		return nil, fmt.Errorf("authority must be an https URL such as https://login.microsoftonline.com/TENANT: %w", err)
	}
	if len(x.Tenants) == 0 {
		return nil, errors.New("tenants must list the tenants whose data its keys may guard")
	}
	h := &host{Vault: x, tokens: map[string]token{}}
	var allowed []netip.Prefix
	for _, a := range x.Addresses {
		p, err := netip.ParsePrefix(a)
		if err != nil {
			return nil, fmt.Errorf("addresses has %q; it must be a network such as 10.0.0.0/8", a)
		}
		allowed = append(allowed, p)
	}
	d := &net.Dialer{Timeout: patience}
	tr := &http.Transport{
		TLSHandshakeTimeout: patience, ResponseHeaderTimeout: patience, MaxResponseHeaderBytes: 16 << 10, MaxIdleConns: 4, IdleConnTimeout: time.Minute,
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	}
	if x.Proxy != "" { // it chooses the addresses, and was listed itself
		u, err := url.Parse(x.Proxy)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
			return nil, errors.New("proxy must be a URL such as http://proxy:3128, without a name and password")
		}
		tr.Proxy = http.ProxyURL(u)
	} else {
		d.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error {
			to, err := netip.ParseAddrPort(address) // what the name came to, at the last moment
			if err != nil {
				return err
			}
			if slices.ContainsFunc(allowed, func(p netip.Prefix) bool { return p.Contains(to.Addr().Unmap()) }) {
				return nil
			}
			return issuer.CheckAddr(to.Addr())
		}
	}
	tr.DialContext = d.DialContext
	h.client = &http.Client{Transport: tr, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error {
		return errors.New("vaults must not redirect")
	}}
	return h, nil
}

// Lists reports whether a vault may be asked for what is a tenant's.
func (v *Vaults) Lists(vault, tenant string) bool {
	_, err := v.host(cmk.Ref{Host: vault, Tenant: tenant})
	return err == nil
}

func (v *Vaults) host(r cmk.Ref) (*host, error) {
	h := v.hosts[strings.ToLower(r.Host)]
	if h == nil || !slices.Contains(h.Tenants, r.Tenant) {
		return nil, arm.Errorf(arm.Forbidden, "the vault %s is not one that the administrator of this installation permits for the tenant", r.Host)
	}
	return h, nil
}
