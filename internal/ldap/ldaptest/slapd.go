// Package ldaptest runs LDAP directories that others wrote for tests: OpenLDAP's slapd, and Samba's Active Directory.
package ldaptest

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// Who is in every directory, and their passwords.
const (
	Suffix         = "dc=corp,dc=example"
	Root           = "cn=root," + Suffix
	RootPassword   = "root-password"
	Reader         = "cn=reader," + Suffix // may read everything but passwords, 500 entries at once
	ReaderPassword = "reader-password-canary"
	People         = "ou=people," + Suffix
	Groups         = "ou=groups," + Suffix
)

// Server is a slapd with its own folder, on two ports of loopback.
type Server struct {
	URL   string // ldap://, with StartTLS
	TLS   string // ldaps://
	Roots string // PEM of whom to trust
	dir   string
	cmd   *exec.Cmd
	said  chan bool  // closed when it has written all
	mu    sync.Mutex // guards log
	log   bytes.Buffer
}

const start = `dn: dc=corp,dc=example
objectClass: dcObject
objectClass: organization
o: Corp

dn: cn=reader,dc=corp,dc=example
objectClass: organizationalRole
objectClass: simpleSecurityObject
userPassword: reader-password-canary

dn: cn=policy,dc=corp,dc=example
objectClass: organizationalRole
objectClass: pwdPolicy
pwdAttribute: userPassword
pwdMustChange: TRUE

dn: ou=people,dc=corp,dc=example
objectClass: organizationalUnit

dn: ou=groups,dc=corp,dc=example
objectClass: organizationalUnit

`

// With bind_anon_cred a bind with a name and no password succeeds, as nobody:
// what many directories do by default.
const config = `include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload ppolicy
allow bind_anon_cred bind_anon_dn
pidfile DIR/pid
TLSCertificateFile DIR/cert.pem
TLSCertificateKeyFile DIR/key.pem
database mdb
suffix "dc=corp,dc=example"
rootdn "cn=root,dc=corp,dc=example"
rootpw root-password
directory DIR/data
maxsize 67108864
dbnosync
limits * size.soft=500 size.hard=500 size.prtotal=unlimited
access to attrs=userPassword by anonymous auth by * none
access to * by users read by * none
overlay ppolicy
ppolicy_default "cn=policy,dc=corp,dc=example"
`

// Start runs a slapd that has the entries (LDIF) besides its own. Where slapd is
// not installed, the test is skipped.
func Start(t testing.TB, entries string) *Server {
	t.Helper()
	path, err := exec.LookPath("slapd")
	if err != nil {
		if path = "/usr/sbin/slapd"; !exists(path) {
			t.Skip("slapd is not installed: apt-get install slapd")
		}
	}
	s := &Server{dir: t.TempDir()}
	// A copy, since distributions confine the program by its path to the folders
	// of its package.
	b, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(s.file("slapd"), b, 0o700))
	must(t, os.Mkdir(s.file("data"), 0o700))
	s.certify(t, net.IPv4(127, 0, 0, 1))
	must(t, os.WriteFile(s.file("slapd.conf"), []byte(strings.ReplaceAll(config, "DIR", s.dir)), 0o600))
	must(t, os.WriteFile(s.file("start.ldif"), []byte(start+entries), 0o600))
	if out, err := exec.Command(s.file("slapd"), "-Ta", "-f", s.file("slapd.conf"), "-q", "-l", s.file("start.ldif")).CombinedOutput(); err != nil {
		t.Fatalf("slapadd: %v: %s", err, out)
	}
	s.URL, s.TLS = "ldap://"+freePort(t), "ldaps://"+freePort(t)
	s.Run(t)
	t.Cleanup(s.Stop)
	return s
}

// Run starts the server, again after Stop, on the same ports and data.
func (s *Server) Run(t testing.TB) {
	t.Helper()
	s.cmd = exec.Command(s.file("slapd"), "-d", "stats", "-f", s.file("slapd.conf"), "-h", s.URL+" "+s.TLS)
	out, err := s.cmd.StderrPipe()
	must(t, err)
	must(t, s.cmd.Start())
	ready, said := make(chan bool, 1), make(chan bool)
	s.said = said
	go func() {
		defer close(said)
		defer close(ready)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			s.mu.Lock()
			s.log.WriteString(lines.Text() + "\n")
			s.mu.Unlock()
			if strings.Contains(lines.Text(), "slapd starting") {
				ready <- true
			}
		}
	}()
	if !<-ready {
		t.Fatalf("slapd did not start: %s", s.Log())
	}
	// It says so a moment before it listens.
	for _, u := range []string{s.URL, s.TLS} {
		_, address, _ := strings.Cut(u, "://")
		for tick := time.NewTicker(time.Millisecond); ; <-tick.C {
			if c, err := net.Dial("tcp", address); err == nil {
				_ = c.Close()
				tick.Stop()
				break
			}
		}
	}
}

// Stop ends the server.
func (s *Server) Stop() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		<-s.said
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// Log ends the server and is what it wrote of the operations that it was asked for.
func (s *Server) Log() string {
	s.Stop()

	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

// As is a connection of the directory's own administrator, for changes.
func (s *Server) As(t testing.TB) *ldap.Conn {
	t.Helper()
	c, err := ldap.DialURL(s.URL)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	must(t, c.Bind(Root, RootPassword))
	return c
}

// Person is an entry of a person; more are lines of LDIF.
func Person(uid, password string, more ...string) string {
	return fmt.Sprintf("dn: uid=%[1]s,%[2]s\nobjectClass: inetOrgPerson\nuid: %[1]s\ncn: %[1]s\nsn: %[1]s\ndisplayName: %[1]s of Corp\nuserPassword: %[3]s\n%[4]s\n", uid, People, password, lines(more))
}

// Group is an entry of a group with members by their DNs, of which there must be one.
func Group(cn string, members ...string) string {
	for i, m := range members {
		members[i] = "member: " + m
	}
	return fmt.Sprintf("dn: cn=%[1]s,%[2]s\nobjectClass: groupOfNames\ncn: %[1]s\n%[3]s\n", cn, Groups, lines(members))
}

// UID is the DN of a person.
func UID(uid string) string { return "uid=" + uid + "," + People }

func lines(l []string) string {
	if len(l) == 0 {
		return ""
	}
	return strings.Join(l, "\n") + "\n"
}

func (s *Server) file(name string) string { return filepath.Join(s.dir, name) }

func (s *Server) certify(t testing.TB, ip net.IP) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ldap"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{ip}, DNSNames: []string{"ldap.corp.example"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	raw, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	must(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	s.Roots = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}))
	must(t, os.WriteFile(s.file("cert.pem"), []byte(s.Roots), 0o600))
	must(t, os.WriteFile(s.file("key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close() //nolint:errcheck // slapd takes it
	return l.Addr().String()
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
