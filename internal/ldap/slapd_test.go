package ldap

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"castellan/internal/arm"
	"castellan/internal/ldap/ldaptest"
)

// of is how the directory of a server is read.
func of(s *ldaptest.Server) Config {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(s.Roots))
	return Config{
		URL: s.TLS, Roots: roots, BindDN: ldaptest.Reader, Password: arm.NewSecret([]byte(ldaptest.ReaderPassword)),
		UserBase: ldaptest.People, UserFilter: "(&(objectClass=person)(uid={local}))", GroupBase: ldaptest.Groups, GroupFilter: "(objectClass=groupOfNames)",
		Names: Names{ID: "entryUUID", UPN: "uid", Name: "displayName", Given: "givenName", Surname: "sn", Mail: "mail", Member: "member", GroupName: "cn"},
	}
}

func open(t *testing.T, cfg Config) *Directory {
	t.Helper()
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func all(string) (bool, error) { return true, nil }

func names(groups []Group) (out []string) {
	for _, g := range groups {
		out = append(out, g.Name)
	}
	slices.Sort(out)
	return out
}

func staff() string {
	// The same DN in other spellings, as people type them into groups.
	odd := "UID=Ann , OU=People,DC=corp,dc=example"
	return ldaptest.Person("ann", "ann-password", "mail: ann@corp.example", "givenName: Ann") +
		ldaptest.Person("bob", "bob-password") + ldaptest.Person("twin", "twin-password") +
		fmt.Sprintf("dn: cn=twin,%s\nobjectClass: inetOrgPerson\nuid: twin\ncn: twin\nsn: twin\nuserPassword: twin-password\n\n", ldaptest.People) +
		fmt.Sprintf("dn: uid=nopassword,%s\nobjectClass: inetOrgPerson\nuid: nopassword\ncn: n\nsn: n\n\n", ldaptest.People) +
		ldaptest.Group("staff", odd) + ldaptest.Group("all", "cn=staff,"+ldaptest.Groups, "cn=ring,"+ldaptest.Groups) +
		ldaptest.Group("ring", "cn=all,"+ldaptest.Groups) + ldaptest.Group("others", ldaptest.UID("bob"))
}

// A password is proven over ldaps and over StartTLS, and the groups over the
// person are found through nesting, circles and odd spellings.
func TestAuthenticate(t *testing.T) {
	s := ldaptest.Start(t, staff())
	for _, u := range []string{s.TLS, s.URL} {
		cfg := of(s)
		cfg.URL, cfg.StartTLS = u, u == s.URL
		p, groups, err := open(t, cfg).Authenticate(t.Context(), "ann@corp.example", "ann-password", all)
		if err != nil || p.UPN != "ann" || p.Name != "ann of Corp" || p.Given != "Ann" || p.Mail != "ann@corp.example" || len(p.ID) != 36 || p.Disabled {
			t.Fatalf("%s: %+v, %v", u, p, err)
		}
		if got := names(groups); !slices.Equal(got, []string{"all", "ring", "staff"}) {
			t.Errorf("groups %v", got)
		}
	}
	if strings.Contains(s.Log(), "ann-password") {
		t.Error("the server's log has the password")
	}
}

// Nobody gets in by what they type: not by filters or names of their own, and
// not without a password, though this server lets those bind. Of what is refused
// before the directory is asked, it sees nothing.
func TestNobodyIsAuthenticated(t *testing.T) {
	s := ldaptest.Start(t, staff())
	d := open(t, of(s))
	if c := s.As(t); c.UnauthenticatedBind(ldaptest.UID("ann")) != nil {
		t.Fatal("the server refuses a bind without a password: then this test shows nothing")
	}
	for name, c := range map[string][2]string{
		"wrong password":         {"ann", "bob-password"},
		"no password":            {"ann", ""},
		"nobody":                 {"zoe", "ann-password"},
		"no name":                {"", "ann-password"},
		"everybody":              {"*", "ann-password"},
		"a prefix":               {"an*", "ann-password"},
		"another filter":         {"*)(uid=*", "ann-password"},
		"an or":                  {"zoe)(|(uid=ann", "ann-password"},
		"an escape":              {`\61nn`, "ann-password"},
		"a half escape":          {`ann\`, "ann-password"},
		"a zero byte":            {"ann\x00", "ann-password"},
		"bytes that are no text": {"ann\xff", "ann-password"},
		"a DN":                   {ldaptest.UID("ann"), "ann-password"},
		"into another DN":        {"ann,ou=people", "ann-password"},
		"the one who searches":   {"reader", ldaptest.ReaderPassword},
		"nobody's bind":          {"nobody-of-this-name", "x"},
		"has no password":        {"nopassword", "x"},
	} {
		if p, _, err := d.Authenticate(t.Context(), c[0], c[1], all); !errors.Is(err, ErrWrong) || p != (Person{}) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
	if _, _, err := d.Authenticate(t.Context(), "twin", "twin-password", all); err == nil || errors.Is(err, ErrWrong) {
		t.Errorf("two people of one name: %v", err)
	}
	asked := ""
	if _, _, err := d.Authenticate(t.Context(), "ann", "ann-password", func(id string) (bool, error) { asked = id; return false, nil }); !errors.Is(err, ErrWrong) || len(asked) != 36 {
		t.Errorf("somebody who may not: %q, %v", asked, err)
	}
	// A password is never shown to the directory as that of somebody who may not.
	if n := strings.Count(s.Log(), `BIND dn="uid=ann,ou=people,dc=corp,dc=example" method=128`); n != 2 { // the wrong one, and the test's own
		t.Errorf("%d binds as ann", n)
	}
}

// What the server calls locked is locked, and a rule of the administrator's that
// the filter has does the same.
func TestDisabledThere(t *testing.T) {
	s := ldaptest.Start(t, staff())
	d, c := open(t, of(s)), s.As(t)
	lock := ldap.NewModifyRequest(ldaptest.UID("ann"), nil)
	lock.Replace("pwdAccountLockedTime", []string{"000001010000Z"})
	if err := c.Modify(lock); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.Authenticate(t.Context(), "ann", "ann-password", all); !errors.Is(err, ErrWrong) {
		t.Errorf("a locked person: %v", err)
	}
	reset := ldap.NewModifyRequest(ldaptest.UID("bob"), nil)
	reset.Replace("pwdReset", []string{"TRUE"})
	if err := c.Modify(reset); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.Authenticate(t.Context(), "bob", "bob-password", all); !errors.Is(err, ErrWrong) {
		t.Errorf("somebody who must change their password there: %v", err)
	}
	people, _, err := d.Everybody(t.Context())
	if i := slices.IndexFunc(people, func(p Person) bool { return p.UPN == "ann" }); err != nil || i < 0 || !people[i].Disabled {
		t.Errorf("%+v, %v", people, err)
	}
	for name, e := range map[string]*ldap.Entry{
		"Active Directory": ldap.NewEntry("cn=a", map[string][]string{"userAccountControl": {"514"}}),
		"389":              ldap.NewEntry("cn=a", map[string][]string{"nsaccountlock": {"TRUE"}}),
	} {
		if !locked(e) {
			t.Errorf("%s's word for it is not read", name)
		}
	}
	if locked(ldap.NewEntry("cn=a", map[string][]string{"userAccountControl": {"512"}, "nsAccountLock": {"false"}, "pwdAccountLockedTime": {"20260101000000Z"}})) {
		t.Error("somebody who is not locked is")
	}
}

// More than the server tells at once is read page by page.
func TestPages(t *testing.T) {
	var b strings.Builder
	const many = 1201
	var members []string
	for i := range many {
		uid := fmt.Sprintf("u%04d", i)
		b.WriteString(ldaptest.Person(uid, "x"))
		members = append(members, ldaptest.UID(uid))
	}
	b.WriteString(ldaptest.Group("crowd", members...))
	s := ldaptest.Start(t, b.String())
	people, groups, err := open(t, of(s)).Everybody(t.Context())
	if err != nil || len(people) != many || len(groups) != 1 || len(groups[0].Members) != many {
		t.Fatalf("%d people, %d groups, %v", len(people), len(groups), err)
	}
	if n := strings.Count(s.Log(), "nentries=500 "); n != 2 {
		t.Errorf("%d full pages", n)
	}
}

// Whoever is not the directory learns nothing: with another's certificate, for
// another name, and where StartTLS is refused or stripped, no password is sent.
func TestOnlyTheDirectoryIsTold(t *testing.T) {
	s := ldaptest.Start(t, staff())
	other := ldaptest.Start(t, "")
	for name, set := range map[string]func(*Config){
		"another's certificate":               func(c *Config) { c.Roots = of(other).Roots },
		"another's certificate with StartTLS": func(c *Config) { c.Roots, c.URL, c.StartTLS = of(other).Roots, s.URL, true },
		"whom the system trusts":              func(c *Config) { c.Roots = nil },
		"another name":                        func(c *Config) { c.URL = strings.Replace(s.TLS, "127.0.0.1", "localhost", 1) },
		"TLS where there is none":             func(c *Config) { c.URL = strings.Replace(s.URL, "ldap:", "ldaps:", 1) },
		"a server that is down":               func(c *Config) { other.Stop(); c.URL = other.TLS },
	} {
		cfg := of(s)
		set(&cfg)
		if _, _, err := open(t, cfg).Authenticate(t.Context(), "ann", "ann-password", all); err == nil || errors.Is(err, ErrWrong) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if strings.Contains(s.Log(), "BIND dn=") {
		t.Errorf("somebody bound: %s", s.Log())
	}
}

// A server that strips StartTLS hears no password, one that goes silent in the
// middle of it holds nobody up for ever, and one that talks without end is cut.
func TestServersThatLie(t *testing.T) {
	refuse := "\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x02\x04\x00\x04\x00" // protocolError
	accept := "\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00" // success, and no handshake
	endless := "\x30\x84\x7f\xff\xff\xff\x04\x84\x7f\xff\xff\xf0"        // a message of 2 GiB
	for name, says := range map[string]string{"refuses": refuse, "silent": accept, "endless": endless} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close() //nolint:errcheck // the test is over
			heard := make(chan string, 1)
			go func() {
				c, err := l.Accept()
				if err != nil {
					return
				}
				defer c.Close() //nolint:errcheck // as above
				b := make([]byte, 1024)
				n, _ := c.Read(b)
				_, _ = io.WriteString(c, says)
				for chunk := make([]byte, 1<<20); says == endless; {
					if _, err := c.Write(chunk); err != nil {
						break
					}
				}
				rest, _ := io.ReadAll(c)
				heard <- string(b[:n]) + string(rest)
			}()
			d := open(t, Config{URL: "ldap://" + l.Addr().String(), StartTLS: true, BindDN: ldaptest.Reader, Password: arm.NewSecret([]byte(ldaptest.ReaderPassword)),
				UserBase: ldaptest.People, UserFilter: "(uid={name})", Names: Names{ID: "entryUUID"}})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if says == endless {
				ctx = t.Context()
			}
			if _, _, err := d.Authenticate(ctx, "ann", "ann-password", all); err == nil || errors.Is(err, ErrWrong) {
				t.Errorf("%v", err)
			}
			if h := <-heard; strings.Contains(h, "password") {
				t.Errorf("it heard %q", h)
			}
		})
	}
}

// A referral leads nowhere: what lies on another server is not there.
func TestReferralsAreNotFollowed(t *testing.T) {
	bait, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer bait.Close() //nolint:errcheck // the test is over
	bitten := make(chan bool, 1)
	go func() {
		if c, err := bait.Accept(); err == nil {
			_ = c.Close()
			bitten <- true
		}
	}()
	s := ldaptest.Start(t, staff()+fmt.Sprintf("dn: ou=away,%s\nobjectClass: referral\nobjectClass: extensibleObject\nou: away\nref: ldap://%s/ou=away,%s\n\n", ldaptest.People, bait.Addr(), ldaptest.People))
	cfg := of(s)
	if _, _, err := open(t, cfg).Authenticate(t.Context(), "ann", "ann-password", all); err != nil {
		t.Errorf("beside a referral: %v", err)
	}
	if people, _, err := open(t, cfg).Everybody(t.Context()); err != nil || len(people) != 5 {
		t.Errorf("%d people, %v", len(people), err)
	}
	cfg.UserBase = "ou=away," + ldaptest.People
	if _, _, err := open(t, cfg).Authenticate(t.Context(), "ann", "ann-password", all); err == nil || errors.Is(err, ErrWrong) {
		t.Errorf("below a referral: %v", err)
	}
	if _, _, err := open(t, cfg).Everybody(t.Context()); err == nil {
		t.Error("all below a referral are read")
	}
	select {
	case <-bitten:
		t.Error("somebody went where the referral leads")
	default:
	}
}

// What could not be asked for is refused before anybody is asked.
func TestConfigs(t *testing.T) {
	good := Config{URL: "ldaps://ldap.corp.example", BindDN: ldaptest.Reader, Password: arm.NewSecret([]byte("x")), UserBase: ldaptest.People, UserFilter: "(uid={local})",
		GroupBase: ldaptest.Groups, GroupFilter: "(objectClass=group)"}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, set := range map[string]func(*Config){
		"no TLS":                    func(c *Config) { c.URL = "ldap://ldap.corp.example" },
		"TLS twice":                 func(c *Config) { c.StartTLS = true },
		"both TLS and none":         func(c *Config) { c.URL, c.StartTLS, c.Cleartext = "ldap://127.0.0.1", true, true },
		"another scheme":            func(c *Config) { c.URL = "https://ldap.corp.example" },
		"a password in the url":     func(c *Config) { c.URL = "ldaps://a:b@ldap.corp.example" },
		"no bind password":          func(c *Config) { c.Password = arm.Secret{} },
		"no bind name":              func(c *Config) { c.BindDN = "" },
		"a base that is no DN":      func(c *Config) { c.UserBase = "people" },
		"a filter for everybody":    func(c *Config) { c.UserFilter = "(uid=*)" },
		"half a filter":             func(c *Config) { c.UserFilter = "(uid={local}" },
		"a filter and more":         func(c *Config) { c.UserFilter = "(uid={local})(cn=*)" },
		"a filter that can't list":  func(c *Config) { c.UserFilter = "(uid:caseExactMatch:={local})" },
		"a group filter that is no": func(c *Config) { c.GroupFilter = "group" },
	} {
		cfg := good
		set(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	for _, u := range []string{"ldap://169.254.169.254", "ldap://192.0.2.1"} {
		cfg := good
		cfg.URL, cfg.Cleartext = u, true
		if _, _, err := open(t, cfg).Authenticate(t.Context(), "ann", "x", all); err == nil || !strings.Contains(err.Error(), "may be reached") {
			t.Errorf("%s: %v", u, err)
		}
	}
}

// Ids that are no text stay apart from one another.
func TestIDs(t *testing.T) {
	of := func(raw string) string {
		id, err := idOf(ldap.NewEntry("cn=a", map[string][]string{"guid": {raw}}), "guid")
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	if of("\xff\x01") == of("\xfe\x01") || of("Ab") == of("ab") {
		t.Error("two ids are one")
	}
	id, err := idOf(ldap.NewEntry("cn=a", map[string][]string{"objectGUID": {"\x33\x22\x11\x00\x55\x44\x77\x66\x88\x99\xaa\xbb\xcc\xdd\xee\xff"}}), "objectGUID")
	if err != nil || id != "00112233-4455-6677-8899-aabbccddeeff" {
		t.Errorf("objectGUID %q, %v", id, err)
	}
}
