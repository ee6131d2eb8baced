package identity

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"castellan/internal/ldap/ldaptest"
	"castellan/internal/store"
)

// corp is a world with a slapd of people who sign in here.
type corp struct {
	*world
	slapd *ldaptest.Server
	id    string // of the directory here
}

func newCorp(t *testing.T, entries string, more map[string]any) *corp {
	t.Helper()
	s := ldaptest.Start(t, entries)
	c := &corp{newWorld(t), s, ""}
	c.id = c.add(c.world, more).text("id")
	return c
}

func (c *corp) add(w *world, more map[string]any) reply {
	c.t.Helper()
	b := map[string]any{"displayName": "Corp", "url": c.slapd.TLS, "certificateAuthorities": c.slapd.Roots, "bindDn": ldaptest.Reader, "bindPassword": ldaptest.ReaderPassword,
		"userBase": ldaptest.People, "groupBase": ldaptest.Groups, "domains": []string{"corp.example"}}
	for k, v := range more {
		b[k] = v
	}
	return w.admin("POST", "identity/ldapDirectories", b)
}

// in signs somebody in at the page and trades the code.
func (c *corp) in(uid, password string) reply {
	c.t.Helper()
	page := c.world.signIn(c.client(), uid+"@corp.example", password, c.authorizeQuery())
	if codeOf(page) == "" {
		return page
	}
	return c.form("/organizations/oauth2/v2.0/token", c.redeemForm(codeOf(page)))
}

// sync synchronises, and wants success.
func (c *corp) sync() reply {
	c.t.Helper()
	return c.admin("POST", "identity/ldapDirectories/"+c.id+"/synchronize", nil)
}

// groups are the names of the groups that a token's owner is in now.
func (c *corp) groups(token string) (out []string) {
	c.t.Helper()
	who, err := c.verify(token)
	if err != nil {
		return []string{"refused"}
	}
	for _, g := range who.Groups {
		out = append(out, c.s.index.group(g).Name)
	}
	slices.Sort(out)
	return out
}

// modify changes an entry of the directory.
func (c *corp) modify(dn string, change func(*ldap.ModifyRequest)) {
	c.t.Helper()
	m := ldap.NewModifyRequest(dn, nil)
	change(m)
	if err := c.slapd.As(c.t).Modify(m); err != nil {
		c.t.Fatal(err)
	}
}

func (c *corp) drop(dn string) {
	c.t.Helper()
	if err := c.slapd.As(c.t).Del(ldap.NewDelRequest(dn, nil)); err != nil {
		c.t.Fatal(err)
	}
}

func cn(name string) string { return "cn=" + name + "," + ldaptest.Groups }

func corpStaff() string {
	return ldaptest.Person("ann", "ann-password", "mail: ann@corp.example") + ldaptest.Person("bob", "bob-password") +
		ldaptest.Group("staff", ldaptest.UID("ann")) + ldaptest.Group("all", cn("staff"), ldaptest.UID("bob"))
}

// Somebody of an LDAP directory signs in at our page with the password that they
// have there, comes to be, and has the groups that they have there.
func TestSignInByLDAP(t *testing.T) {
	c := newCorp(t, corpStaff(), nil)
	r := c.in("ann", "ann-password")
	who, err := c.verify(r.text("access_token"))
	if err != nil || who.Name != "ann@corp.example" || !slices.Equal(who.AMR, []string{"pwd"}) {
		t.Fatalf("%+v, %v: %s", who, err, r.body)
	}
	if got := c.groups(r.text("access_token")); !slices.Equal(got, []string{"all", "staff"}) {
		t.Errorf("groups %v", got)
	}
	if u := c.admin("GET", "users/"+who.Object, nil); u.text("displayName") != "ann of Corp" || u.text("mail") != "ann@corp.example" {
		t.Errorf("%s", u.body)
	}
	again, err := c.verify(c.in("ann", "ann-password").text("access_token"))
	if err != nil || again.Object != who.Object {
		t.Errorf("the second time %+v, %v", again, err)
	}
	if err := c.s.DB.View(t.Context(), func(tx *store.Tx) error {
		u, _, err := fetch[*User](tx, c.first.Tenant, "user", who.Object)
		if u.Password != "" {
			t.Error("the password is kept")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, e := range c.tail() {
		if s := fmt.Sprint(e); strings.Contains(s, "ann-password") || strings.Contains(s, ldaptest.ReaderPassword) {
			t.Errorf("the audit log has a password: %s", s)
		}
	}
	if s := string(c.admin("GET", "identity/ldapDirectories/"+c.id, nil).body); strings.Contains(s, ldaptest.ReaderPassword) {
		t.Errorf("the bind password is shown: %s", s)
	}
}

// Nobody gets in by what they type, and whoever is refused is told no more than
// somebody with a wrong password.
func TestLDAPTellsNothing(t *testing.T) {
	c := newCorp(t, corpStaff()+ldaptest.Person("boss", "boss-password"), nil)
	id, boss := c.user("boss")
	for name, try := range map[string][2]string{
		"wrong":                   {"ann@corp.example", "bob-password"},
		"none":                    {"ann@corp.example", ""},
		"nobody":                  {"zoe@corp.example", "ann-password"},
		"a filter":                {"*)(uid=*@corp.example", "ann-password"},
		"everybody":               {"*@corp.example", "ann-password"},
		"a domain not theirs":     {"ann@other.example", "ann-password"},
		"below the domain":        {"ann@x.corp.example", "ann-password"},
		"an administrator's name": {boss, "boss-password"}, // the password of another's account there
	} {
		page := c.world.signIn(c.client(), try[0], try[1], c.authorizeQuery())
		if codeOf(page) != "" || page.status != 400 || !strings.Contains(string(page.body), "The user name or password is wrong") {
			t.Errorf("%s: %d %s", name, page.status, page.body)
		}
	}
	there, err := c.verify(c.in("boss", "boss-password").text("access_token"))
	if err != nil || there.Object == id {
		t.Errorf("boss of Corp is %+v, %v", there, err)
	}
	here, err := c.verify(c.userTokens(boss).text("access_token"))
	if err != nil || here.Object != id {
		t.Errorf("boss of the tenant is %+v, %v", here, err)
	}
}

// The directory can't give the names of the tenant, nor those of others.
func TestLDAPNamesNobodyHere(t *testing.T) {
	for _, name := range []string{"DOMAIN", "ann@other.example", "ann@corp.example@DOMAIN"} {
		t.Run(name, func(t *testing.T) {
			c := newCorp(t, corpStaff(), map[string]any{"attributes": map[string]any{"userPrincipalName": "mail"}})
			_, upn := c.user("ann")
			mail := strings.ReplaceAll(name, "DOMAIN", c.first.Domain)
			if name == "DOMAIN" {
				mail = upn
			}
			c.modify(ldaptest.UID("ann"), func(m *ldap.ModifyRequest) { m.Replace("mail", []string{mail}) })
			if r := c.in("ann", "ann-password"); r.status != 400 || !strings.Contains(string(r.body), "The user name that Corp tells of you") {
				t.Errorf("%d %s", r.status, r.body)
			}
		})
	}
}

// Memberships follow the directory: at a sign-in those of the person, and at a
// synchronisation everybody's.
func TestLDAPGroupsFollow(t *testing.T) {
	c := newCorp(t, corpStaff()+ldaptest.Group("extra", ldaptest.UID("bob")), nil)
	ann, bob := c.in("ann", "ann-password").text("access_token"), c.in("bob", "bob-password").text("access_token")
	want := func(token string, want ...string) {
		t.Helper()
		if got := c.groups(token); !slices.Equal(got, want) {
			t.Errorf("groups %v, want %v", got, want)
		}
	}
	want(bob, "all", "extra")
	c.modify(cn("extra"), func(m *ldap.ModifyRequest) { m.Add("member", []string{ldaptest.UID("ann")}) })
	c.modify(cn("all"), func(m *ldap.ModifyRequest) { m.Delete("member", []string{ldaptest.UID("bob")}) })
	want(ann, "all", "staff")
	c.sync()
	want(ann, "all", "extra", "staff")
	want(bob, "extra")
	c.modify(cn("all"), func(m *ldap.ModifyRequest) { m.Replace("member", []string{ldaptest.UID("bob")}) })
	ann = c.in("ann", "ann-password").text("access_token") // staff is no longer in all
	want(ann, "extra", "staff")
	c.drop(cn("staff"))
	c.sync()
	want(ann, "extra")
	want(bob, "all", "extra")

	// Who may give directory roles is never told from outside.
	special := c.admin("POST", "groups", map[string]any{"displayName": "Admins", "mailEnabled": false, "securityEnabled": true, "mailNickname": "a", "isAssignableToRole": true}).text("id")
	c.modify(cn("extra"), func(m *ldap.ModifyRequest) { m.Replace("cn", []string{"extra", "Admins"}) })
	c.sync()
	if m := c.s.index.membersOf(special, true); len(m) > 0 {
		t.Errorf("the group that has roles has %v", m)
	}
}

// Whoever leaves the directory, or is shut there, loses at the next
// synchronisation all that they were given, and comes back when they are back.
func TestLDAPPeopleLeave(t *testing.T) {
	c := newCorp(t, corpStaff(), nil)
	ann, bob := c.in("ann", "ann-password"), c.in("bob", "bob-password")
	c.modify(ldaptest.UID("ann"), func(m *ldap.ModifyRequest) { m.Replace("pwdAccountLockedTime", []string{"000001010000Z"}) })
	c.drop(ldaptest.UID("bob"))
	if out := c.sync(); out.json["disabled"] != 2.0 {
		t.Errorf("%s", out.body)
	}
	for name, r := range map[string]reply{"ann": ann, "bob": bob} {
		if _, err := c.verify(r.text("access_token")); err == nil {
			t.Errorf("%s's token is good", name)
		}
		if r := c.form(c.tokenPath(), c.refreshForm(r.text("refresh_token"), c.site.Base())); r.status != 400 {
			t.Errorf("%s's refresh token: %d %s", name, r.status, r.body)
		}
		if r := c.in(name, name+"-password"); r.text("access_token") != "" {
			t.Errorf("%s signs in", name)
		}
	}
	c.modify(ldaptest.UID("ann"), func(m *ldap.ModifyRequest) { m.Delete("pwdAccountLockedTime", nil) })
	if _, err := c.verify(c.in("ann", "ann-password").text("access_token")); err != nil {
		t.Errorf("ann is back: %v", err)
	}
	// Another bob of the same name is another person, and has not what bob had.
	e := ldap.NewAddRequest(ldaptest.UID("bob"), nil)
	for k, v := range map[string]string{"objectClass": "inetOrgPerson", "uid": "bob", "cn": "bob", "sn": "bob", "userPassword": "bob-password"} {
		e.Attribute(k, []string{v})
	}
	if err := c.slapd.As(t).Add(e); err != nil {
		t.Fatal(err)
	}
	if r := c.in("bob", "bob-password"); r.text("access_token") != "" {
		t.Errorf("another bob is bob: %s", r.body)
	}
}

// A synchronisation that can't be read to its end, or would shut most people
// out, changes nothing and says why.
func TestLDAPSyncThatFails(t *testing.T) {
	var b strings.Builder
	for i := range manyGone + 2 {
		b.WriteString(ldaptest.Person(fmt.Sprintf("p%d", i), "pass-word"))
	}
	c := newCorp(t, b.String(), nil)
	token := ""
	for i := range manyGone + 2 {
		token = c.in(fmt.Sprintf("p%d", i), "pass-word").text("access_token")
	}
	at := "identity/ldapDirectories/" + c.id
	c.admin("PATCH", at, map[string]any{"userBase": ldaptest.Groups}) // nobody is there
	if r := c.graph(c.token, "POST", at+"/synchronize", nil); r.status != 502 || !strings.Contains(string(r.body), "more than half") {
		t.Errorf("%d %s", r.status, r.body)
	}
	c.admin("PATCH", at, map[string]any{"userBase": "ou=none," + ldaptest.Suffix})
	if r := c.graph(c.token, "POST", at+"/synchronize", map[string]any{"force": true}); r.status != 502 || !strings.Contains(string(r.body), "nothing was changed") {
		t.Errorf("%d %s", r.status, r.body)
	}
	c.slapd.Stop()
	if r := c.graph(c.token, "POST", at+"/synchronize", nil); r.status != 502 {
		t.Errorf("%d %s", r.status, r.body)
	}
	if _, err := c.verify(token); err != nil {
		t.Errorf("somebody was shut out: %v", err)
	}
	c.slapd.Run(t)
	c.admin("PATCH", at, map[string]any{"userBase": ldaptest.Groups})
	if r := c.admin("POST", at+"/synchronize", map[string]any{"force": true}); r.json["disabled"] != float64(manyGone+2) {
		t.Errorf("by force: %s", r.body)
	}
}

// With the directory down its people do not get in, however many try, and an
// account of the tenant's own still does, while they wait.
func TestLDAPDown(t *testing.T) {
	c := newCorp(t, corpStaff(), nil)
	token := c.in("ann", "ann-password").text("access_token")
	_, own := c.user("emergency")
	c.slapd.Stop()
	if r := c.in("ann", "ann-password"); r.status != http.StatusBadGateway || !strings.Contains(string(r.body), "Corp") {
		t.Errorf("%d %s", r.status, r.body)
	}
	// A directory that takes calls and never answers.
	silent := newSilent(t)
	c.admin("PATCH", "identity/ldapDirectories/"+c.id, map[string]any{"url": "ldaps://" + silent.Addr().String(), "bindPassword": ldaptest.ReaderPassword})
	until, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	for range 40 {
		browser := c.client()
		form := url.Values{"ctx": {ctx(c.open(browser, c.authorizeQuery()))}, "login": {"ann@corp.example"}, "passwd": {"ann-password"}}
		waiting.Go(func() {
			req, err := http.NewRequestWithContext(until, "POST", c.site.Base()+"/common/login", strings.NewReader(form.Encode()))
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			if res, err := browser.Do(req); err == nil {
				_ = res.Body.Close()
				t.Errorf("a silent directory is answered by %d", res.StatusCode)
			}
		})
	}
	<-silent.full // as many wait for an answer as are let wait
	done := time.AfterFunc(8*time.Second, func() { t.Error("the directory that is silent holds up our own people") })
	c.userTokens(own)
	done.Stop()
	cancel()
	waiting.Wait()
	if _, err := c.verify(token); err != nil {
		t.Errorf("a token that was given before: %v", err)
	}
}

// Guesses are counted by whom they are for, in whatever spelling, also when they
// come all at once; the person's own browser is counted apart.
func TestLDAPGuesses(t *testing.T) {
	c := newCorp(t, corpStaff(), map[string]any{"domains": []string{"corp.example", "corp.test"}})
	own := c.client()
	if codeOf(c.world.signIn(own, "ann@corp.example", "ann-password", c.authorizeQuery())) == "" {
		t.Fatal("ann can't sign in")
	}
	spellings := []string{"ann@corp.example", "ANN@corp.example", " ann@corp.example", "ann @corp.example", "ann@corp.test", "a\u00adnn@corp.example", "ａnn@corp.example"}
	var all sync.WaitGroup
	for i := range 4 * lockAfter {
		all.Go(func() { c.world.signIn(c.client(), spellings[i%len(spellings)], "wrong", c.authorizeQuery()) })
	}
	all.Wait()
	if codeOf(c.world.signIn(c.client(), "ann@corp.example", "ann-password", c.authorizeQuery())) != "" {
		t.Error("after many guesses the right one is let in")
	}
	q := c.authorizeQuery()
	q.Set("prompt", "login")
	if codeOf(c.world.signIn(own, "ann@corp.example", "ann-password", q)) == "" {
		t.Error("ann is shut out of her own browser")
	}
	if n := strings.Count(c.slapd.Log(), `BIND dn="uid=ann,ou=people,dc=corp,dc=example" mech=SIMPLE`); n > 2 {
		t.Errorf("%d good binds", n)
	}
	if n := strings.Count(c.slapd.Log(), `BIND dn="uid=ann,ou=people,dc=corp,dc=example" method=128`); n > lockAfter+2 {
		t.Errorf("%d guesses reached the directory", n)
	}
}

// silent is a server that takes connections and says nothing.
type silent struct {
	net.Listener
	full chan bool // closed when eight are connected
}

func newSilent(t *testing.T) silent {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	s := silent{l, make(chan bool)}
	go func() {
		for range 8 {
			if c, err := l.Accept(); err == nil {
				t.Cleanup(func() { _ = c.Close() })
			}
		}
		close(s.full)
	}()
	return s
}

// A directory that is disabled or deleted ends what it gave, and signs nobody in.
func TestLDAPDisabled(t *testing.T) {
	c := newCorp(t, corpStaff(), nil)
	at := "identity/ldapDirectories/" + c.id
	for _, end := range []func(){
		func() { c.admin("PATCH", at, map[string]any{"isEnabled": false}) },
		func() { c.admin("DELETE", at, nil) },
	} {
		token := c.in("ann", "ann-password").text("access_token")
		if _, err := c.verify(token); err != nil {
			t.Fatal(err)
		}
		end()
		if _, err := c.verify(token); err == nil {
			t.Error("the token lives")
		}
		if r := c.in("ann", "ann-password"); r.text("access_token") != "" {
			t.Error("ann signs in")
		}
		if c.s.index.ldap(c.id) != nil {
			c.admin("PATCH", at, map[string]any{"isEnabled": true})
		}
	}
}

// Who may configure directories can't turn the one by which an administrator
// signs in to a server of their own.
func TestLDAPAdministratorsAreProtected(t *testing.T) {
	c := newCorp(t, corpStaff(), nil)
	who, err := c.verify(c.in("ann", "ann-password").text("access_token"))
	if err != nil {
		t.Fatal(err)
	}
	bot := c.robot("bot")
	c.give(bot.id, "Hybrid Identity Administrator")
	evil := map[string]any{"url": "ldaps://127.0.0.1:1", "bindPassword": "x"}
	at := "identity/ldapDirectories/" + c.id
	if r := c.graph(bot.token, "PATCH", at, map[string]any{"displayName": "Corp 2"}); r.status != 204 {
		t.Errorf("%d %s", r.status, r.body)
	}
	c.give(who.Object, "Global Administrator")
	if r := c.graph(bot.token, "PATCH", at, evil); r.status != 403 {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := c.graph(bot.token, "PATCH", at, map[string]any{"isEnabled": false}); r.status != 204 {
		t.Errorf("disabling: %d %s", r.status, r.body)
	}
}
