// Package ldap asks an LDAP directory who somebody is: it proves passwords by binding, and reads people and groups.
package ldap

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/go-ldap/ldap/v3"

	"castellan/internal/arm"
)

// Config says where the directory is and how its entries are read.
type Config struct {
	URL       string // ldaps://HOST[:PORT], or ldap://HOST[:PORT] with StartTLS
	StartTLS  bool
	Cleartext bool           // no TLS at all: to a loopback address only
	Roots     *x509.CertPool // whom to trust for its TLS; nil: whom the system trusts

	BindDN   string // who searches
	Password arm.Secret

	UserBase, UserFilter   string // the filter has {name}, what was typed, or {local}, what of it stands before the @
	GroupBase, GroupFilter string // an empty base means no groups
	Names                  Names
}

// Names are the attributes that hold what is read.
type Names struct{ ID, UPN, Name, Given, Surname, Mail, Member, GroupName string }

const (
	patience = 10 * time.Second // for one answer, and for a connection
	most     = 8                // conversations at once
	page     = 500              // entries of one page
	mostAll  = 200_000          // entries of one list
	mostUp   = 500              // groups above one person
)

// budget is what one conversation may cost, waiting for its turn included.
type budget struct {
	time  time.Duration
	bytes int64 // that the directory says
}

var (
	ofOne = budget{30 * time.Second, 16 << 20}
	ofAll = budget{10 * time.Minute, 256 << 20}
)

// ErrWrong means that there is nobody of the name, or that the password is not theirs.
var ErrWrong = errors.New("ldap: the user name or password is wrong")

// Directory is one LDAP directory, not necessarily reached yet.
type Directory struct {
	Config
	address string
	host    string
	tls     bool // from the first byte
	slots   chan struct{}
}

// Person is an entry of a person. Disabled is what the directory itself says.
type Person struct {
	ID, DN, UPN, Name, Given, Surname, Mail string
	Disabled                                bool
}

// Group is an entry of a group. Members are the DNs that it names, as Key spells them.
type Group struct {
	ID, DN, Name string
	Members      []string
}

// New checks cfg and makes a Directory. Nothing is sent yet.
func New(cfg Config) (*Directory, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/" {
		return nil, errors.New("the url must be like ldaps://ldap.corp.example")
	}
	d := &Directory{Config: cfg, host: u.Hostname(), slots: make(chan struct{}, most)}
	port := u.Port()
	switch {
	case u.Scheme == "ldaps" && !cfg.StartTLS && !cfg.Cleartext:
		d.tls = true
		if port == "" {
			port = "636"
		}
	case u.Scheme == "ldap" && cfg.StartTLS != cfg.Cleartext:
		if port == "" {
			port = "389"
		}
	default:
		return nil, errors.New("the connection must be ldaps://, or ldap:// with StartTLS; without any TLS only to loopback, and by its own setting")
	}
	d.address = net.JoinHostPort(d.host, port)
	return d, d.check()
}

func (d *Directory) check() error {
	for what, dn := range map[string]string{"bindDN": d.BindDN, "userBase": d.UserBase, "groupBase": d.GroupBase} {
		if _, err := ldap.ParseDN(dn); err != nil || dn == "" && what != "groupBase" {
			return fmt.Errorf("%s is no distinguished name", what)
		}
	}
	if d.Password.IsZero() {
		return errors.New("the bind password is empty: the directory would take it for nobody's")
	}
	if !strings.Contains(d.UserFilter, "{name}") && !strings.Contains(d.UserFilter, "{local}") {
		return errors.New("userFilter must have {name} or {local}, or it would fit everybody")
	}
	for _, odd := range []string{":={", ">={", "<={", "~={"} {
		if strings.Contains(d.UserFilter, odd) {
			return errors.New("userFilter must compare {name} and {local} by = alone: by anything else a list of all could not be asked for")
		}
	}
	for what, f := range map[string]string{"userFilter": d.filter("x"), "groupFilter": d.GroupFilter} {
		if _, err := ldap.CompileFilter(f); err != nil && (what != "groupFilter" || d.GroupBase != "") {
			return fmt.Errorf("%s is no LDAP filter", what)
		}
	}
	return nil
}

// filter is the filter for what somebody typed. What they typed stays a value
// whatever it is.
func (d *Directory) filter(typed string) string {
	local, _, _ := strings.Cut(typed, "@")
	return strings.NewReplacer("{name}", ldap.EscapeFilter(typed), "{local}", ldap.EscapeFilter(local)).Replace(d.UserFilter)
}

// everybody is the filter for all whom the filter could fit.
func (d *Directory) everybody() string {
	return strings.NewReplacer("{name}", "*", "{local}", "*").Replace(d.UserFilter)
}

// talk has one conversation, in its turn, as the one who searches.
func (d *Directory) talk(ctx context.Context, b budget, do func(*ldap.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, b.time)
	defer cancel()
	select {
	case d.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-d.slots }()
	c, err := d.dial(ctx, b.bytes)
	if err != nil {
		return fmt.Errorf("reaching the directory: %w", err)
	}
	defer c.Close() //nolint:errcheck // the conversation is over
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	if err := d.serve(c); err != nil {
		return err
	}
	return do(c)
}

// serve binds as the one who searches.
func (d *Directory) serve(c *ldap.Conn) error {
	if err := c.Bind(d.BindDN, string(d.Password.Reveal())); err != nil {
		return fmt.Errorf("binding as the one who searches: %w", err)
	}
	return nil
}

func (d *Directory) dial(ctx context.Context, bytes int64) (_ *ldap.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	dialer := &net.Dialer{Control: d.reachable}
	raw, err := dialer.DialContext(ctx, "tcp", d.address)
	if err != nil {
		return nil, err
	}
	// The handshake of StartTLS knows no limit of its own.
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer func() {
		if !stop() && err == nil {
			err = ctx.Err()
		}
	}()
	cfg := &tls.Config{RootCAs: d.Roots, ServerName: d.host, MinVersion: tls.VersionTLS12}
	conn := net.Conn(&limited{Conn: raw, left: bytes})
	if d.tls {
		t := tls.Client(conn, cfg)
		if err := t.HandshakeContext(ctx); err != nil {
			raw.Close() //nolint:errcheck // the handshake's error is the one to tell
			return nil, err
		}
		conn = t
	}
	c := ldap.NewConn(conn, d.tls)
	c.SetTimeout(patience)
	c.Start()
	if d.StartTLS {
		if err := c.StartTLS(cfg); err != nil {
			c.Close() //nolint:errcheck // as above
			return nil, err
		}
	}
	return c, nil
}

// reachable refuses addresses that no directory has, and with Cleartext all but
// the machine's own.
func (d *Directory) reachable(_, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	ip := a.Addr().Unmap()
	if d.Cleartext && !ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() {
		return fmt.Errorf("the address %s is not one that may be reached so", ip)
	}
	return nil
}

// limited ends a conversation that says too much.
type limited struct {
	net.Conn
	left int64
}

// Read is for net.Conn.
func (l *limited) Read(b []byte) (int, error) {
	if l.left <= 0 {
		return 0, io.ErrShortBuffer
	}
	n, err := l.Conn.Read(b[:min(int64(len(b)), l.left)])
	l.left -= int64(n)
	return n, err
}

// Key is a DN in the one spelling in which DNs are compared.
func Key(dn string) string {
	p, err := ldap.ParseDN(dn)
	if err != nil {
		return strings.ToLower(dn)
	}
	return strings.ToLower(p.String())
}
