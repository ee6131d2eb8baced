package issuer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"castellan/internal/arm"
)

// Config says which issuers may be asked. Its zero value reaches whoever the
// system's certificate authorities vouch for, and never this machine itself.
type Config struct {
	File string                 // settings, see Settings; empty: none
	Own  func(host string) bool // names of the platform itself, which is never asked
	Now  func() time.Time       // nil: time.Now
}

// Settings is the content of Config.File, in JSON.
type Settings struct {
	CAFile   string         `json:"caFile"`   // PEM, of authorities besides the system's
	Loopback bool           `json:"loopback"` // lets issuers be at addresses of this machine
	Keys     map[string]any `json:"keys"`     // JWKS by issuer, which is then never asked: for clusters that can't be reached
}

// Open reads the settings.
func Open(c Config) (*Keys, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	k := &Keys{now: c.Now, pinned: map[string]map[string]jose.JSONWebKey{}, places: make(chan struct{}, fetches), issuers: map[string]*known{}}
	var set Settings
	if c.File != "" {
		b, err := os.ReadFile(c.File)
		if err != nil {
			return nil, fmt.Errorf("reading the settings of issuers: %w", err)
		}
		if err := arm.Decode(b, &set); err != nil {
			return nil, fmt.Errorf("reading %s: %w", c.File, err)
		}
	}
	for name, v := range set.Keys {
		keys, err := pinned(name, v)
		if err != nil {
			return nil, fmt.Errorf("reading the keys of %s in %s: %w", name, c.File, err)
		}
		k.pinned[name] = keys
	}
	roots, err := Roots(set.CAFile)
	if err != nil {
		return nil, err
	}
	k.fetch = newFetcher(set.Loopback, roots, c.Own)
	return k, nil
}

func pinned(name string, v any) (map[string]jose.JSONWebKey, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return keySet(b)
}

// Roots are the system's authorities and those of the file.
func Roots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate authorities: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("reading the system's certificate authorities: %w", err)
	}
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("%s has no certificate in PEM", file)
	}
	return pool, nil
}

// CheckName says whether an issuer can have this name: an https URL of a host,
// spelt in the one way in which it can be.
func CheckName(name string) error {
	u, err := url.Parse(name)
	switch {
	case err != nil || len(name) > 600 || strings.ContainsAny(name, " \t\r\n\\%#?@"):
		return errors.New("an issuer must be an https URL without user name, query, fragment and escapes, of at most 600 characters")
	case u.Scheme != "https" || !strings.HasPrefix(name, "https://") || u.Opaque != "":
		return errors.New("an issuer must begin with https://")
	case u.Hostname() == "" || strings.ToLower(u.Host) != u.Host || strings.HasSuffix(u.Hostname(), "."):
		return errors.New("an issuer must name a host, in lower case")
	case strings.Contains(u.Path+"/", "/../") || strings.Contains(u.Path+"/", "/./") || strings.Contains(u.Path, "//"):
		return errors.New("an issuer's path must not have empty or dot segments")
	}
	return checkHost(u.Hostname())
}

// checkHost refuses addresses that are never asked, and numbers that only some
// resolvers take for addresses.
func checkHost(host string) error {
	if a, err := netip.ParseAddr(host); err == nil {
		if a.IsLoopback() {
			return nil // the fetcher knows whether it may be asked
		}
		return checkAddr(a, true)
	}
	last := host[strings.LastIndexByte(host, '.')+1:]
	if strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") {
		return errors.New("an issuer's host must be a name, or an address in its usual spelling")
	}
	return nil
}

// never are networks in which nothing but the machine's or the cloud's own
// services answer: addresses of instance metadata among them.
var never = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("168.63.129.16/32"), netip.MustParsePrefix("100.100.100.200/32"), netip.MustParsePrefix("224.0.0.0/3"),
	netip.MustParsePrefix("::/128"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("fec0::/10"), netip.MustParsePrefix("ff00::/8"), netip.MustParsePrefix("fd00:ec2::/32"),
}

// within4 are IPv6 networks that carry an IPv4 address, and where in it.
var within4 = []struct {
	net netip.Prefix
	at  int
}{
	{netip.MustParsePrefix("::/96"), 12}, {netip.MustParsePrefix("64:ff9b::/96"), 12}, {netip.MustParsePrefix("64:ff9b:1::/48"), 12}, {netip.MustParsePrefix("2002::/16"), 2},
}

var errAddress = errors.New("the address is not one that may be asked: link-local, metadata, multicast or this machine's own")

// checkAddr refuses addresses that no issuer may have, however they are spelt.
func checkAddr(a netip.Addr, loopback bool) error {
	a = a.Unmap().WithZone("")
	if a.IsLoopback() {
		if loopback {
			return nil
		}
		return errAddress
	}
	for _, w := range within4 {
		if b := a.As16(); a.Is6() && w.net.Contains(a) {
			in := netip.AddrFrom4([4]byte(b[w.at : w.at+4]))
			if err := checkAddr(in, false); err != nil {
				return err
			}
		}
	}
	for _, n := range never {
		if n.Contains(a) {
			return errAddress
		}
	}
	return nil
}

// CheckAddr refuses addresses that nobody outside may have: this machine's own,
// link-local, metadata and multicast.
func CheckAddr(a netip.Addr) error { return checkAddr(a, false) }

// fetcher asks issuers for their documents.
type fetcher struct {
	client *http.Client
	own    func(host string) bool
}

// newFetcher makes a client that goes straight to the issuer: no proxy, which
// would choose the address, no redirects, no cookies, no reused credentials.
func newFetcher(loopback bool, roots *x509.CertPool, own func(string) bool) *fetcher {
	d := &net.Dialer{Timeout: fetchTime, ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address) // what the name came to, at the last moment
		if err != nil {
			return errAddress
		}
		return checkAddr(to.Addr(), loopback)
	}}
	return &fetcher{own: own, client: &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("issuers must not redirect") },
		Timeout:       fetchTime,
		Transport: &http.Transport{
			Proxy: nil, DialContext: d.DialContext, TLSHandshakeTimeout: fetchTime, ResponseHeaderTimeout: fetchTime, MaxResponseHeaderBytes: 16 << 10,
			DisableKeepAlives: true, ForceAttemptHTTP2: false, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		},
	}}
}

// keys are what the issuer's discovery document leads to.
func (f *fetcher) keys(ctx context.Context, issuer string) (map[string]jose.JSONWebKey, error) {
	b, err := f.get(ctx, strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return nil, err
	}
	doc, err := object(b)
	if err != nil {
		return nil, errors.New("the discovery document is not a JSON object")
	}
	if doc["issuer"] != issuer {
		return nil, errors.New("the discovery document is of another issuer")
	}
	at, _ := doc["jwks_uri"].(string)
	if b, err = f.get(ctx, at); err != nil {
		return nil, err
	}
	return keySet(b)
}

// get reads one document.
func (f *fetcher) get(ctx context.Context, at string) ([]byte, error) {
	u, err := url.Parse(at)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || len(at) > 2048 {
		return nil, errors.New("a document's address must be an https URL")
	}
	if err := checkHost(u.Hostname()); err != nil {
		return nil, err
	}
	if f.own != nil && f.own(strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))) {
		return nil, errors.New("the platform does not ask itself")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, errors.New("a document's address must be an https URL")
	}
	req.Header.Set("Accept", "application/json")
	res, err := f.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %d", u.Host, res.StatusCode)
	}
	if typ, _, err := mime.ParseMediaType(res.Header.Get("Content-Type")); err != nil || !strings.HasSuffix(typ, "json") {
		return nil, fmt.Errorf("%s did not answer with JSON", u.Host)
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, maxDocument+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxDocument {
		return nil, fmt.Errorf("%s answered with more than %d bytes", u.Host, maxDocument)
	}
	return b, nil
}
