package identity

import (
	"context"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/openid"
	"castellan/internal/store"
)

// outsider is somebody whom others vouch for, as they tell of them. Who it is
// is Issuer and Subject; the rest is names.
type outsider struct {
	Issuer, Subject                 string
	UPN, Name, Given, Surname, Mail string
}

// host is who vouches: a provider or an LDAP directory.
type host struct {
	entry
	name        string
	domains     []string
	create      bool // people come to be when they first sign in
	provisioned bool // the subject is the externalId of people that SCIM made
}

func (h host) tenant() string { t, _, _ := h.place(); return t }

// origin is the mark of what the host made.
func (h host) origin() string { _, c, id := h.place(); return c + "|" + id }

// errStrangerNumber is of all answers to people whom others vouch for and who
// are nobody here.
const errStrangerNumber = 50020

// errStranger is the answer to people whom nobody let in.
func errStranger(h host) error {
	return problemf(errStrangerNumber, "access_denied", "Your account at %s is not known in this directory. An administrator must add it first.", h.name)
}

// arrive is the person whom a provider vouches for, made or brought up to date
// in one transaction with the record of it.
func (s *Service) arrive(ctx context.Context, p *Provider, who openid.Person) (u *User, err error) {
	o := outsider{
		Issuer: who.Issuer, Subject: who.Subject, UPN: who.Text(p.Claims.UPN), Name: who.Text(p.Claims.Name),
		Given: who.Text(p.Claims.Given), Surname: who.Text(p.Claims.Surname), Mail: who.Text(p.Claims.Mail),
	}
	h := host{p, p.Name, p.Domains, p.Create, p.Provisioned}
	err = s.DB.Do(ctx, func(tx *store.Tx) error {
		if u, err = s.receive(tx, h, o); err != nil {
			return err
		}
		return s.sortInto(tx, h, u, p.Groups, who.Texts(p.GroupsClaim))
	})
	if err != nil {
		return s.index.user(idOf(u)), err
	}
	return u, nil
}

func idOf(u *User) string {
	if u == nil {
		return ""
	}
	return u.ID
}

// receive finds the person that an outsider is, or makes one. It never looks
// for them by a name: whoever may choose names elsewhere would be anybody here.
func (s *Service) receive(tx *store.Tx, h host, o outsider) (*User, error) {
	l, ok, err := linkOf(tx, h.tenant(), o.Issuer, o.Subject)
	if err != nil {
		return nil, err
	}
	if !ok {
		if l.User, err = s.introduce(tx, h, o); err != nil {
			return nil, err
		}
	}
	u, ok, err := fetch[*User](tx, h.tenant(), "user", l.User)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, errStranger(h)
	case u.Disabled && u.DisabledBy != h.origin():
		return u, problemf(50057, "invalid_grant", "The user account is disabled.")
	}
	return u, s.refresh(tx, h, u, o)
}

// introduce makes a link for an outsider who has none: to the person that SCIM
// made for them, or to a new one.
func (s *Service) introduce(tx *store.Tx, h host, o outsider) (string, error) {
	if h.provisioned {
		u, ok, err := named[*User](tx, externalName(h.tenant(), o.Subject))
		if err != nil {
			return "", err
		}
		// An administrator is bound by one who may change administrators, never by
		// what others call them.
		if ok && u.Tenant == h.tenant() && u.Origin == scimOrigin && !s.protected("users", u.ID) {
			err := bindLink(tx, h.tenant(), tie{User: u.ID, Issuer: o.Issuer, Subject: o.Subject, By: "externalId", At: s.Now().UTC()})
			if err != nil {
				return "", err
			}
			return u.ID, s.tell(tx, h, linkUser, u.ID, "its externalId is the subject at "+h.name)
		}
	}
	if !h.create {
		return "", errStranger(h)
	}
	return s.beget(tx, h, o)
}

// beget makes the person of an outsider. A name that somebody has is not given
// again, and nobody's account is taken over by having their name elsewhere.
func (s *Service) beget(tx *store.Tx, h host, o outsider) (string, error) {
	if err := checkOutsideUPN(o.UPN, h.domains); err != nil {
		return "", problemf(errStrangerNumber, "access_denied", "The user name that %s tells of you can't be one here: %s", h.name, publicText(err))
	}
	u := &User{ID: arm.NewUUID(), Tenant: h.tenant(), UPN: o.UPN, Name: o.UPN, Created: s.Now().UTC()}
	u.Origin = h.origin()
	u.adopt(o)
	if err := s.put(tx, u); err != nil {
		if arm.CodeOf(err) == arm.Conflict {
			return "", problemf(errStrangerNumber, "access_denied", "There is an account %s here that is not bound to yours at %s. An administrator can bind it.", o.UPN, h.name)
		}
		return "", err
	}
	l := tie{User: u.ID, Issuer: o.Issuer, Subject: o.Subject, By: u.Origin, At: u.Created}
	if err := bindLink(tx, u.Tenant, l); err != nil {
		return "", err
	}
	return u.ID, s.tell(tx, h, createUser, u.ID, "the first sign-in by "+h.name)
}

// adopt takes over the names that are told of a person, as far as they can be
// names here, and reports whether any is new.
func (u *User) adopt(o outsider) bool {
	was := *u
	if checkName(o.Name) == nil {
		u.Name = o.Name
	}
	for to, from := range map[*string]string{&u.Given: o.Given, &u.Surname: o.Surname, &u.Mail: o.Mail} {
		if from == "" || checkName(from) == nil {
			*to = from
		}
	}
	return was.Name != u.Name || was.Given != u.Given || was.Surname != u.Surname || was.Mail != u.Mail
}

// refresh brings a person up to date whom the host made. One that an
// administrator made stays as the administrator said.
func (s *Service) refresh(tx *store.Tx, h host, u *User, o outsider) error {
	if u.Origin != h.origin() {
		return nil
	}
	changed := u.adopt(o)
	if u.Disabled && u.DisabledBy == h.origin() {
		u.Disabled, u.DisabledBy, changed = false, "", true
		u.Epoch++
	}
	if fold(o.UPN) != fold(u.UPN) && checkOutsideUPN(o.UPN, h.domains) == nil {
		taken, err := tx.Get(nameTable, "upn|"+fold(o.UPN))
		if err != nil {
			return err
		}
		if taken == nil { // a name that somebody else has stays theirs
			u.UPN, changed = o.UPN, true
		}
	}
	if !changed {
		return nil
	}
	if err := s.put(tx, u); err != nil {
		return err
	}
	return s.tell(tx, h, updateUser, u.ID, h.name+" tells other names")
}

// checkOutsideUPN says whether somebody of the domains may have the name.
func checkOutsideUPN(upn string, domains []string) error {
	_, domain, _ := strings.Cut(upn, "@")
	for _, d := range domains {
		if fold(domain) == d {
			return checkUPN(upn, d)
		}
	}
	return arm.Errorf(arm.BadRequest, "its domain must be one of %s.", strings.Join(domains, ", "))
}

// sortInto makes the person a member of the groups that rules give for values,
// and of no other group that a rule names.
func (s *Service) sortInto(tx *store.Tx, h host, u *User, rules []groupRule, values []string) error {
	want := map[string]bool{}
	for _, r := range rules {
		want[r.Group] = want[r.Group] || contains(values, r.Value)
	}
	for group, in := range want {
		if err := s.setMember(tx, h, group, u.ID, in); err != nil {
			return err
		}
	}
	return nil
}

func contains(list []string, v string) bool {
	for _, x := range list {
		if x == v {
			return true
		}
	}
	return false
}

// setMember makes member be in a group, or not be in it, and records what changed.
func (s *Service) setMember(tx *store.Tx, h host, group, member string, in bool) error {
	is, err := tx.Get(memberTable, h.tenant()+"|"+group+"|"+member)
	if err != nil || (is != nil) == in {
		return err
	}
	if !in {
		if err := s.leave(tx, h.tenant(), group, member); err != nil {
			return err
		}
		return s.tell(tx, h, changeMembers, group+" "+member, h.name+" says that the member left")
	}
	g, ok, err := fetch[*Group](tx, h.tenant(), "group", group)
	if err != nil || !ok || g.Assignable {
		return err // the group of a rule is gone, or gives directory roles, which nobody outside gives
	}
	if err := s.join(tx, h.tenant(), group, member); err != nil {
		return err
	}
	return s.tell(tx, h, changeMembers, group+" "+member, h.name+" says that it is a member")
}

// tell records a change that follows from what a host says.
func (s *Service) tell(tx *store.Tx, h host, a arm.Action, item, why string) error {
	return s.Log.Append(tx, audit.Entry{
		Tenant: h.tenant(), Caller: "system:federation", Name: h.name, Credential: "federated", Action: a.Name(), Target: tenantID(h.tenant()).String(),
		Item: item, Decision: "allowed", Reason: why, Outcome: "ok",
	})
}
