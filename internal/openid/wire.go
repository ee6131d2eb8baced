package openid

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"
)

// maxAnswer is the most that is read of one answer, in bytes.
const maxAnswer = 1 << 20

// client is how providers are reached: over TLS, with no proxy, no redirect, in
// bounded time and size, and nowhere that only this machine could mean.
func client(roots *x509.CertPool) *http.Client {
	dial := &net.Dialer{Timeout: 5 * time.Second, Control: reachable}
	return &http.Client{
		Timeout:       patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: bounded{&http.Transport{
			DialContext: dial.DialContext, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout: 5 * time.Second, ResponseHeaderTimeout: patience, IdleConnTimeout: time.Minute,
			MaxIdleConns: 4, MaxConnsPerHost: 8, MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true,
		}},
	}
}

// reachable refuses addresses that no provider has: those of the link, where
// clouds keep the credentials of machines, and those that are no one machine's.
func reachable(_, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if ip := a.Addr().Unmap(); ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() || ip.IsInterfaceLocalMulticast() {
		return fmt.Errorf("the address %s is no provider's", ip)
	}
	return nil
}

// bounded limits what is read of an answer, and wants TLS.
type bounded struct{ next http.RoundTripper }

// RoundTrip is for http.Client.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" {
		return nil, errors.New("a provider is reached by https alone")
	}
	res, err := b.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	res.Body = http.MaxBytesReader(nil, res.Body, maxAnswer)
	return res, nil
}
