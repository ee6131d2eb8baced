package monitor

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"castellan/internal/arm"
)

// sinkFile is the content of the file of sinks, in JSON.
type sinkFile struct {
	Sinks []sinkConfig `json:"sinks"`
}

// sinkConfig is one sink: it has one of Syslog and OTLP.
type sinkConfig struct {
	Name       string            `json:"name"`
	Syslog     string            `json:"syslog"`     // tls://HOST:6514, tcp://HOST:601 or udp://HOST:514
	OTLP       string            `json:"otlp"`       // URL that takes logs by OTLP/HTTP, such as https://HOST:4318/v1/logs
	Headers    map[string]string `json:"headers"`    // of OTLP requests, such as Authorization
	CAFile     string            `json:"caFile"`     // PEM; default: the system's authorities
	CertFile   string            `json:"certFile"`   // PEM, of the certificate to show; default: none
	KeyFile    string            `json:"keyFile"`    // PEM, of its key
	Tenants    []string          `json:"tenants"`    // whose settings may name the sink; default: the home tenant
	Everything bool              `json:"everything"` // it gets the whole audit log, of all tenants, without a setting
}

var sinkName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// OpenSinks reads the file of sinks that the server's administrator wrote; "" is
// none. host is what the platform calls itself to them.
func OpenSinks(path, homeTenant, host string) ([]Named, error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the sinks of logs: %w", err)
	}
	var f sinkFile
	if err := arm.Decode(b, &f); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	var out []Named
	for i, c := range f.Sinks {
		n := Named{Name: c.Name, Tenants: c.Tenants, Everything: c.Everything}
		if n.Tenants == nil {
			n.Tenants = []string{homeTenant}
		}
		if !sinkName.MatchString(c.Name) || slices.ContainsFunc(out, func(o Named) bool { return o.Name == c.Name }) {
			return nil, fmt.Errorf("reading %s: sinks[%d].name is %q; it must be a name of its own, of at most 63 of a-z, 0-9 and hyphens", path, i, c.Name)
		}
		if n.Sink, err = c.open(host); err != nil {
			return nil, fmt.Errorf("reading %s: the sink %s: %w", path, c.Name, err)
		}
		out = append(out, n)
	}
	return out, nil
}

func (c sinkConfig) open(host string) (Sink, error) {
	if (c.Syslog == "") == (c.OTLP == "") {
		return nil, errors.New("it must have one of syslog and otlp")
	}
	// The addresses are told in errors, so they hold no secrets.
	u, err := url.Parse(c.Syslog + c.OTLP)
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("its address must be a URL with a host, and without user, query and fragment")
	}
	t, err := c.tls()
	if err != nil {
		return nil, err
	}
	plain := u.Scheme != "tls" && u.Scheme != "https"
	if plain && (c.CAFile != "" || c.CertFile != "" || len(c.Headers) > 0) {
		return nil, fmt.Errorf("caFile, certFile and headers need tls or https, and the address has %q", u.Scheme)
	}
	if c.OTLP != "" {
		if u.Scheme != "https" && u.Scheme != "http" {
			return nil, fmt.Errorf("otlp begins with %q; it must be https or http", u.Scheme)
		}
		return newOTLP(u, c.Headers, t, host), nil
	}
	if !slices.Contains([]string{"tls", "tcp", "udp"}, u.Scheme) || u.Port() == "" || strings.Trim(u.Path, "/") != "" || len(c.Headers) > 0 {
		return nil, errors.New("syslog must be tls://HOST:PORT, tcp://HOST:PORT or udp://HOST:PORT, and has no headers")
	}
	return &syslog{network: u.Scheme, address: u.Host, tls: t, host: host}, nil
}

func (c sinkConfig) tls() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, err
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate", c.CAFile)
		}
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return nil, errors.New("certFile and keyFile belong together")
	}
	if c.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, err
		}
		t.Certificates = []tls.Certificate{cert}
	}
	return t, nil
}
