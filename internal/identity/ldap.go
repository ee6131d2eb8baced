package identity

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/ldap"
	"castellan/internal/store"
)

// LDAP is an LDAP directory whose people sign in at our pages with the password
// that they have there. The password is never kept. Who somebody is, is the id
// of their entry that never changes.
type LDAP struct {
	ID, Tenant, Name    string
	URL                 string
	StartTLS, Cleartext bool
	Roots               string // PEM; empty: whom the system trusts
	BindDN              string
	Secret              []byte // the bind password, sealed
	UserBase            string
	UserFilter          string
	GroupBase           string
	GroupFilter         string
	Attributes          ldap.Names
	Domains             []string // of the people's user names
	Create              bool     // people come to be when they first sign in
	Every               int      // minutes from one synchronisation to the next; 0: on demand only
	Disabled            bool
	Created             time.Time
}

func (d *LDAP) place() (string, string, string) { return d.Tenant, "ldap", d.ID }

func (d *LDAP) unique() (out []string) {
	for _, name := range d.Domains {
		out = append(out, "domain|"+name)
	}
	return out
}

// issuer is what the directory is called in links.
func (d *LDAP) issuer() string { return "urn:castellan:ldap:" + d.ID }

func (d *LDAP) host() host { return host{entry: d, name: d.Name, domains: d.Domains, create: d.Create} }

func (x *index) ldap(id string) *LDAP { return find(x, func(x *index) *LDAP { return x.ldaps[id] }) }

// ldapClient opens the directory's own secrets; nothing is sent yet.
func (s *Service) ldapClient(d *LDAP) (*ldap.Directory, error) {
	s.fed.mu.Lock()
	defer s.fed.mu.Unlock()
	if c := s.fed.ldaps[d]; c != nil {
		return c, nil
	}
	password, err := s.Root.Derive("identity federation").Open(d.Secret, sealing(d, "secret"))
	if err != nil {
		return nil, err
	}
	roots, err := pool(d.Roots)
	if err != nil {
		return nil, err
	}
	c, err := ldap.New(ldap.Config{
		URL: d.URL, StartTLS: d.StartTLS, Cleartext: d.Cleartext, Roots: roots, BindDN: d.BindDN, Password: arm.NewSecret(password), Names: d.Attributes,
		UserBase: d.UserBase, UserFilter: d.UserFilter, GroupBase: d.GroupBase, GroupFilter: d.GroupFilter,
	})
	if err != nil {
		return nil, err
	}
	for old := range s.fed.ldaps {
		if old.ID == d.ID {
			delete(s.fed.ldaps, old)
		}
	}
	s.fed.ldaps[d] = c
	return c, nil
}

// ldapOf is the LDAP directory that knows the password of a user name, or nil.
func (s *Service) ldapOf(t *Tenant, name string) *LDAP {
	_, domain, _ := strings.Cut(name, "@")
	d, ok := s.index.realm(domain).(*LDAP)
	if !ok || d.Disabled || t != nil && t.ID != d.Tenant || t == nil && d.Tenant != s.Home() {
		return nil
	}
	return d
}

// checkLDAP is the person of this name, if their directory says that the
// password is theirs. Failures are counted before the directory is asked, by the
// entry that was found and not by what was typed: many spellings find one. So
// guessing here does not shut people out there.
func (s *Service) checkLDAP(r *http.Request, d *LDAP, name, password string) (*User, error) {
	c, err := s.ldapClient(d)
	if err != nil {
		return nil, err
	}
	ctx, from := r.Context(), networkOf(r)
	counted, known := "", false
	p, groups, err := c.Authenticate(ctx, name, password, func(id string) (may bool, err error) {
		err = s.DB.Do(ctx, func(tx *store.Tx) error {
			l, _, err := linkOf(tx, d.Tenant, d.issuer(), id)
			if err != nil {
				return err
			}
			counted = d.issuer() + "|" + id
			if browser := s.browserOf(r, s.index.user(l.User)); browser != "" {
				counted, known = counted+" at "+browser, true
			}
			now := s.Now()
			if may = !s.locks.shut(counted, now) && (known || !s.spray.shut(from, now)); !may {
				return nil
			}
			return s.locks.failIn(tx, counted, true, now)
		})
		return may, err
	})
	if errors.Is(err, ldap.ErrWrong) {
		s.spray.wrong(from, s.Now())
		return nil, errPassword
	}
	if err != nil {
		return nil, &problem{status: http.StatusBadGateway, number: 80002, code: "temporarily_unavailable", text: "The directory " + d.Name + " can't be asked now.", err: err}
	}
	if err := s.locks.pass(ctx, s.DB, counted); err != nil {
		return nil, err
	}
	var u *User
	err = s.DB.Do(ctx, func(tx *store.Tx) error {
		if u, err = s.receive(tx, d.host(), d.outsider(p)); err != nil {
			return err
		}
		return s.mirrorOf(tx, d, u, p, groups)
	})
	return u, err
}

// outsider is a person as the directory tells of them. A user name without a
// domain gets the directory's first.
func (d *LDAP) outsider(p ldap.Person) outsider {
	upn := p.UPN
	if !strings.Contains(upn, "@") && len(d.Domains) > 0 {
		upn += "@" + d.Domains[0]
	}
	return outsider{Issuer: d.issuer(), Subject: p.ID, UPN: upn, Name: p.Name, Given: p.Given, Surname: p.Surname, Mail: p.Mail}
}

// mirrorOf makes the memberships of a person, and of the groups over them, what
// the directory says.
func (s *Service) mirrorOf(tx *store.Tx, d *LDAP, u *User, p ldap.Person, groups []ldap.Group) error {
	ids := map[string]string{ldap.Key(p.DN): u.ID}
	for _, g := range groups {
		id, err := s.mirror(tx, d, g)
		if err != nil {
			return err
		}
		ids[ldap.Key(g.DN)] = id
	}
	in := map[string]map[string]bool{} // by member: the groups that it is in
	for _, id := range ids {
		in[id] = map[string]bool{}
	}
	for _, g := range groups {
		for _, m := range g.Members {
			id := ids[ldap.Key(g.DN)]
			if err := s.setMember(tx, d.host(), id, ids[m], true); err != nil {
				return err
			}
			in[ids[m]][id] = true
		}
	}
	for member, keep := range in {
		if err := s.leaveOthers(tx, d, member, keep); err != nil {
			return err
		}
	}
	return nil
}

// leaveOthers takes a member out of those groups of the directory that are not in keep.
func (s *Service) leaveOthers(tx *store.Tx, d *LDAP, member string, keep map[string]bool) error {
	rows, err := tx.Scan(groupTable, d.Tenant+"|"+member+"|", "", 0)
	if err != nil {
		return err
	}
	for _, r := range rows {
		id := r.Key[strings.LastIndexByte(r.Key, '|')+1:]
		g, ok, err := fetch[*Group](tx, d.Tenant, "group", id)
		if err != nil {
			return err
		}
		if !ok || g.Origin != d.host().origin() || keep[id] {
			continue
		}
		if err := s.setMember(tx, d.host(), id, member, false); err != nil {
			return err
		}
	}
	return nil
}

// mirror is the id of our group that stands for one of the directory. Nobody
// has rights by it until an administrator here gives it some.
func (s *Service) mirror(tx *store.Tx, d *LDAP, g ldap.Group) (string, error) {
	h := d.host()
	name := g.Name
	if checkName(name) != nil {
		name = "LDAP group " + g.ID
	}
	was, ok, err := named[*Group](tx, mirrorName(h.origin(), d.Tenant, g.ID))
	if err != nil {
		return "", err
	}
	if ok && was.Name == name {
		return was.ID, nil
	}
	if !ok {
		was = &Group{ID: arm.NewUUID(), Tenant: d.Tenant, Description: "mirrors a group of " + d.Name, Created: s.Now().UTC(), outside: outside{Origin: h.origin(), External: g.ID}}
	}
	was.Name = name
	if err := s.put(tx, was); err != nil {
		return "", err
	}
	if ok {
		return was.ID, s.tell(tx, h, updateGroup, was.ID, d.Name+" calls the group so")
	}
	return was.ID, s.tell(tx, h, createGroup, was.ID, d.Name+" has the group")
}

// mirrorName is how a group is found by the directory that it mirrors.
func mirrorName(origin, tenant, id string) string {
	return "external|" + tenant + "|" + origin + "|" + id
}

// externalName is how a person is found by SCIM's externalId, letter by letter.
func externalName(tenant, id string) string {
	return "external|" + tenant + "|" + scimOrigin + "|" + id
}

// scimOrigin marks what SCIM made.
const scimOrigin = "scim"

func (o outside) unique(tenant string) []string {
	if o.External == "" || o.Origin == "" {
		return nil
	}
	return []string{mirrorName(o.Origin, tenant, o.External)}
}
