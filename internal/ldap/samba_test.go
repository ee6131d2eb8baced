package ldap

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"castellan/internal/arm"
	"castellan/internal/ldap/ldaptest"
)

// Active Directory, as Samba serves it: ids that are bytes, accounts that are
// shut by a bit, nesting, referrals in each answer, and members told in ranges.
func TestActiveDirectory(t *testing.T) {
	t.Parallel()
	s := ldaptest.StartAD(t)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(s.Roots))
	c, err := ldap.DialURL(s.TLS, ldap.DialWithTLSConfig(&tls.Config{RootCAs: roots}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // the test is over
	if err := c.Bind(ldaptest.ADReader, ldaptest.ADPassword); err != nil {
		t.Fatal(err)
	}
	ldaptest.AddADUser(t, c, "ann", "Ann-Passw0rd")
	ldaptest.AddADUser(t, c, "bob", "Bob-Passw0rd")
	const many = 100
	members := []string{"CN=ann," + ldaptest.ADUsers}
	for i := range many {
		dn := fmt.Sprintf("CN=c%d,%s", i, ldaptest.ADUsers)
		e := ldap.NewAddRequest(dn, nil)
		e.Attribute("objectClass", []string{"contact"})
		if err := c.Add(e); err != nil {
			t.Fatal(err)
		}
		members = append(members, dn)
	}
	ldaptest.AddADGroup(t, c, "crowd", members)
	ldaptest.AddADGroup(t, c, "above", []string{"CN=crowd," + ldaptest.ADUsers})

	d := open(t, Config{
		URL: s.TLS, Roots: roots, BindDN: ldaptest.ADReader, Password: arm.NewSecret([]byte(ldaptest.ADPassword)),
		UserBase: ldaptest.ADSuffix, UserFilter: "(&(objectCategory=person)(objectClass=user)(userPrincipalName={name}))",
		GroupBase: ldaptest.ADSuffix, GroupFilter: "(objectClass=group)",
		Names: Names{ID: "objectGUID", UPN: "userPrincipalName", Name: "displayName", Member: "member", GroupName: "cn"},
	})
	p, groups, err := d.Authenticate(t.Context(), "ann@corp.example", "Ann-Passw0rd", all)
	if err != nil || p.UPN != "ann@corp.example" || p.Name != "ann of AD" || len(p.ID) != 36 || !slices.Equal(names(groups), []string{"above", "crowd"}) {
		t.Fatalf("%+v %v, %v", p, names(groups), err)
	}
	for _, try := range [][2]string{{"ann@corp.example", ""}, {"ann@corp.example", "Bob-Passw0rd"}, {"*", "Ann-Passw0rd"}, {"zoe@corp.example", "x"}} {
		if _, _, err := d.Authenticate(t.Context(), try[0], try[1], all); !errors.Is(err, ErrWrong) {
			t.Errorf("%v: %v", try, err)
		}
	}
	shut := ldap.NewModifyRequest("CN=bob,"+ldaptest.ADUsers, nil)
	shut.Replace("userAccountControl", []string{"514"})
	if err := c.Modify(shut); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.Authenticate(t.Context(), "bob@corp.example", "Bob-Passw0rd", all); !errors.Is(err, ErrWrong) {
		t.Errorf("somebody who is shut there: %v", err)
	}
	people, groups, err := d.Everybody(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range people {
		if p.Disabled != (p.UPN == "bob@corp.example") {
			t.Errorf("%+v", p)
		}
	}
	i := slices.IndexFunc(groups, func(g Group) bool { return g.Name == "crowd" })
	if i < 0 || len(people) != 2 || len(groups[i].Members) != many+1 {
		t.Fatalf("%d people, %+v", len(people), groups)
	}
	// Microsoft's tells 1500 members at once, and Samba as many as it is asked
	// for: so the first range is asked for here, and the others are by the client.
	for asked, want := range map[string]int{"0-39": many + 1, "0-0": many + 1, "0-*": many + 1, "1-39": 0} {
		res, err := c.Search(ldap.NewSearchRequest("CN=crowd,"+ldaptest.ADUsers, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 0, 0, false, "(objectClass=*)", []string{"member;range=" + asked}, nil))
		if err != nil || len(res.Entries) != 1 || len(res.Entries[0].Attributes) != 1 {
			t.Fatalf("%+v, %v", res, err)
		}
		got, err := d.members(c, res.Entries[0])
		if slices.Sort(got); len(slices.Compact(got)) != want || (err == nil) != (want > 0) {
			t.Errorf("%s: %d members, %v", asked, len(got), err)
		}
	}
}
