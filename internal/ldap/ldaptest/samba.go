package ldaptest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/go-ldap/ldap/v3"
)

// What every Active Directory of Samba has.
const (
	ADSuffix   = "DC=ad,DC=example"
	ADUsers    = "CN=Users," + ADSuffix
	ADReader   = "CN=Administrator," + ADUsers
	ADPassword = "Adm1n-Passw0rd-canary"
)

const adConfig = `[global]
netbios name = DC1
realm = AD.EXAMPLE
workgroup = AD
server role = active directory domain controller
server services = ldap
interfaces = ADDRESS/8
bind interfaces only = yes
tls enabled = yes
tls keyfile = DIR/key.pem
tls certfile = DIR/cert.pem
tls cafile = DIR/cert.pem
private dir = DIR/private
state directory = DIR/state
cache directory = DIR/cache
lock directory = DIR
binddns dir = DIR/bind-dns
pid directory = DIR
ncalrpc dir = DIR/ncalrpc
logging = file
ldb:nosync = true
log file = DIR/log
`

// StartAD runs Samba's Active Directory, its LDAP alone. Where Samba is not
// installed or can't run, the test is skipped: it wants root, and a file system
// with extended attributes.
func StartAD(t testing.TB) *Server {
	t.Helper()
	tool, err := exec.LookPath("samba-tool")
	if err != nil {
		t.Skip("samba is not installed: apt-get install samba samba-ad-provision samba-dsdb-modules samba-vfs-modules python3-samba winbind")
	}
	if os.Geteuid() != 0 {
		t.Skip("samba's Active Directory wants root")
	}
	// Its ports are 389 and 636 whatever one says, so it has an address of its own.
	at := fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(250), rand.IntN(250), 1+rand.IntN(250))
	s := &Server{dir: t.TempDir(), TLS: "ldaps://" + at}
	make := exec.Command(tool, "domain", "provision", "--realm=AD.EXAMPLE", "--domain=AD", "--adminpass="+ADPassword, "--server-role=dc", "--targetdir="+s.dir,
		"--dns-backend=NONE", "--host-name=dc1", "--option=interfaces=lo", "--option=bind interfaces only=yes", "--option=logging=stdout", "--option=ldb:nosync=true")
	if out, err := make.CombinedOutput(); err != nil {
		t.Skipf("samba can't be set up here: %v: %s", err, out)
	}
	s.certify(t, net.ParseIP(at))
	must(t, os.WriteFile(s.file("run.conf"), []byte(strings.NewReplacer("DIR", s.dir, "ADDRESS", at).Replace(adConfig)), 0o600))
	cmd := exec.Command("samba", "--foreground", "--model=single", "--no-process-group", "--configfile="+s.file("run.conf"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); ; <-tick.C {
		if c, err := net.Dial("tcp", at+":636"); err == nil {
			_ = c.Close()
			return s
		}
		if time.Now().After(end) {
			t.Fatal("samba does not listen")
		}
	}
}

// AddADUser makes a person of the Active Directory.
func AddADUser(t testing.TB, c *ldap.Conn, name, password string) {
	t.Helper()
	var quoted []byte
	for _, u := range utf16.Encode([]rune(`"` + password + `"`)) {
		quoted = append(quoted, byte(u), byte(u>>8))
	}
	e := ldap.NewAddRequest("CN="+name+","+ADUsers, nil)
	for k, v := range map[string]string{"objectClass": "user", "sAMAccountName": name, "userPrincipalName": name + "@corp.example", "displayName": name + " of AD", "userAccountControl": "512", "unicodePwd": string(quoted)} {
		e.Attribute(k, []string{v})
	}
	must(t, c.Add(e))
}

// AddADGroup makes a group of the Active Directory.
func AddADGroup(t testing.TB, c *ldap.Conn, name string, members []string) {
	t.Helper()
	e := ldap.NewAddRequest(fmt.Sprintf("CN=%s,%s", name, ADUsers), nil)
	e.Attribute("objectClass", []string{"group"})
	e.Attribute("sAMAccountName", []string{name})
	if len(members) > 0 {
		e.Attribute("member", members)
	}
	must(t, c.Add(e))
}
