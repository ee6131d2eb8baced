package ldap

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-ldap/ldap/v3"
)

// Authenticate is the person of a name whose password it is, and the groups
// that they are in, also by nesting. The password goes to the directory and
// nowhere else, and only if may, which is told the person's id, says so. A
// password of nobody costs as much.
func (d *Directory) Authenticate(ctx context.Context, name, password string, may func(id string) (bool, error)) (p Person, groups []Group, err error) {
	if password == "" || name == "" || strings.ContainsRune(name, 0) {
		return p, nil, ErrWrong // an empty password would bind as nobody, and succeed (RFC 4513 section 5.1.2)
	}
	err = d.talk(ctx, ofOne, func(c *ldap.Conn) error {
		found, err := d.find(c, name)
		if err != nil {
			return err
		}
		if found != nil {
			ok, err := may(found.ID)
			if err != nil {
				return err
			}
			if !ok || found.Disabled {
				found = nil
			}
		}
		dn := "cn=nobody-of-this-name," + d.UserBase
		if found != nil {
			dn = found.DN
		}
		policy := ldap.NewControlBeheraPasswordPolicy()
		res, err := c.SimpleBind(&ldap.SimpleBindRequest{Username: dn, Password: password, Controls: []ldap.Control{policy}})
		switch {
		case err == nil && mustChange(res), ldap.IsErrorAnyOf(err, refusals...), err != nil && found == nil:
			return ErrWrong
		case err != nil:
			return fmt.Errorf("binding as the person: %w", err)
		case found == nil:
			return ErrWrong
		}
		p = *found
		if err := d.serve(c); err != nil {
			return err
		}
		groups, err = d.above(c, p.DN)
		return err
	})
	return p, groups, err
}

// mustChange reports whether a password is good for choosing another alone. Those
// who have it get in nowhere else, and Active Directory refuses them by itself.
func mustChange(res *ldap.SimpleBindResult) bool {
	said, ok := ldap.FindControl(res.Controls, ldap.ControlTypeBeheraPasswordPolicy).(*ldap.ControlBeheraPasswordPolicy)
	return ok && said.Error == ldap.BeheraChangeAfterReset
}

// refusals are how directories say that somebody does not get in, whatever the
// reason: people without a password, locked ones, ones that must not bind.
var refusals = []uint16{ldap.LDAPResultInvalidCredentials, ldap.LDAPResultNoSuchObject, ldap.LDAPResultInappropriateAuthentication,
	ldap.LDAPResultUnwillingToPerform, ldap.LDAPResultConstraintViolation, ldap.LDAPResultInsufficientAccessRights}

// find is the one person of a name, or nil.
func (d *Directory) find(c *ldap.Conn, name string) (*Person, error) {
	res, err := c.Search(ldap.NewSearchRequest(d.UserBase, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 2, int(patience.Seconds()), false, d.filter(name), d.userAttributes(), nil))
	if err != nil && !ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded) {
		return nil, fmt.Errorf("searching the person: %w", err)
	}
	switch {
	case err != nil || len(res.Entries) > 1:
		return nil, errors.New("several people of the directory fit the user name")
	case len(res.Entries) == 0:
		return nil, nil
	}
	p, err := d.person(res.Entries[0])
	return &p, err
}

func (d *Directory) userAttributes() []string {
	var out []string
	for _, a := range []string{d.Names.ID, d.Names.UPN, d.Names.Name, d.Names.Given, d.Names.Surname, d.Names.Mail} {
		if a != "" {
			out = append(out, a)
		}
	}
	return append(out, "userAccountControl", "nsAccountLock", "pwdAccountLockedTime")
}

// locked reports whether the directory says that an administrator shut the
// account: Active Directory's bit 2, 389 Directory Server's word, and the time
// that stands for ever in draft-behera-ldap-password-policy section 5.3.3.
func locked(e *ldap.Entry) bool {
	bits, err := strconv.ParseUint(e.GetEqualFoldAttributeValue("userAccountControl"), 10, 32)
	return err == nil && bits&2 != 0 || strings.EqualFold(e.GetEqualFoldAttributeValue("nsAccountLock"), "true") ||
		e.GetEqualFoldAttributeValue("pwdAccountLockedTime") == "000001010000Z"
}

func (d *Directory) person(e *ldap.Entry) (Person, error) {
	id, err := idOf(e, d.Names.ID)
	get := func(a string) string {
		if a == "" {
			return ""
		}
		return e.GetEqualFoldAttributeValue(a)
	}
	return Person{ID: id, DN: e.DN, UPN: get(d.Names.UPN), Name: get(d.Names.Name), Given: get(d.Names.Given), Surname: get(d.Names.Surname), Mail: get(d.Names.Mail), Disabled: locked(e)}, err
}

// idOf is the entry's id that never changes. Active Directory's objectGUID is
// 16 bytes, of which the first three groups are little-endian.
func idOf(e *ldap.Entry, attribute string) (string, error) {
	raw := e.GetEqualFoldRawAttributeValues(attribute)
	if len(raw) != 1 || len(raw[0]) == 0 || len(raw[0]) > 128 {
		return "", fmt.Errorf("the entry %q has no single %s", e.DN, attribute)
	}
	b := raw[0]
	if strings.EqualFold(attribute, "objectGUID") && len(b) == 16 {
		b = []byte{b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]}
		h := hex.EncodeToString(b)
		return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:], nil
	}
	if !utf8.Valid(b) {
		return hex.EncodeToString(b), nil
	}
	return string(b), nil // as it is: ids that differ in case may be two people's
}

// above are all groups over an entry. A circle of groups is walked once.
func (d *Directory) above(c *ldap.Conn, dn string) ([]Group, error) {
	if d.GroupBase == "" {
		return nil, nil
	}
	var out []Group
	at := map[string]int{}
	for todo := []string{dn}; len(todo) > 0; {
		next := todo[0]
		todo = todo[1:]
		found, err := d.groups(c, "(&"+d.GroupFilter+"("+d.Names.Member+"="+ldap.EscapeFilter(next)+"))", false)
		if err != nil {
			return nil, err
		}
		for _, g := range found {
			i, seen := at[Key(g.DN)]
			if !seen {
				i = len(out)
				at[Key(g.DN)], out, todo = i, append(out, g), append(todo, g.DN)
			}
			out[i].Members = append(out[i].Members, Key(next))
		}
		if len(out) > mostUp {
			return nil, fmt.Errorf("the person is in more than %d groups", mostUp)
		}
	}
	return out, nil
}

func (d *Directory) groups(c *ldap.Conn, filter string, members bool) ([]Group, error) {
	attributes := []string{d.Names.ID, d.Names.GroupName}
	if members {
		attributes = append(attributes, d.Names.Member)
	}
	entries, err := d.all(c, d.GroupBase, filter, attributes)
	if err != nil {
		return nil, fmt.Errorf("reading groups: %w", err)
	}
	var out []Group
	for _, e := range entries {
		id, err := idOf(e, d.Names.ID)
		if err != nil {
			return nil, err
		}
		g := Group{ID: id, DN: e.DN, Name: e.GetEqualFoldAttributeValue(d.Names.GroupName)}
		if members {
			if g.Members, err = d.members(c, e); err != nil {
				return nil, err
			}
		}
		out = append(out, g)
	}
	return out, nil
}

// members are whom a group's entry names. Of many, Active Directory tells one
// range at a time, as member;range=0-1499, and the last one as 1500-*
// ([MS-ADTS] section 3.1.1.3.1.3.3).
func (d *Directory) members(c *ldap.Conn, e *ldap.Entry) (out []string, err error) {
	take := func(values []string) {
		for _, m := range values {
			out = append(out, Key(m))
		}
	}
	take(e.GetEqualFoldAttributeValues(d.Names.Member))
	for next := 0; ; {
		i := slices.IndexFunc(e.Attributes, func(a *ldap.EntryAttribute) bool {
			return strings.HasPrefix(strings.ToLower(a.Name), strings.ToLower(d.Names.Member)+";range=")
		})
		if i < 0 {
			if next > 0 {
				return nil, fmt.Errorf("the directory did not tell the members of %q to the end", e.DN)
			}
			return out, nil
		}
		a := e.Attributes[i]
		from, to, _ := strings.Cut(a.Name[len(d.Names.Member+";range="):], "-")
		if from != strconv.Itoa(next) {
			return nil, fmt.Errorf("the directory told other members of %q than it was asked for", e.DN)
		}
		take(a.Values)
		if to == "*" {
			return out, nil
		}
		last, err := strconv.Atoi(to)
		if err != nil || last < next || len(out) > mostAll {
			return nil, fmt.Errorf("the directory told too many members of %q, or in no order", e.DN)
		}
		next = last + 1
		res, err := c.Search(ldap.NewSearchRequest(e.DN, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 1, int(patience.Seconds()), false, "(objectClass=*)", []string{fmt.Sprintf("%s;range=%d-*", d.Names.Member, next)}, nil))
		if err != nil {
			return nil, fmt.Errorf("reading members: %w", err)
		}
		if len(res.Entries) != 1 {
			return nil, fmt.Errorf("the group %q went while it was read", e.DN)
		}
		e = res.Entries[0]
	}
}

// all reads a list to its end, page by page. Where it leads elsewhere (a
// referral) is not gone after.
func (d *Directory) all(c *ldap.Conn, base, filter string, attributes []string) ([]*ldap.Entry, error) {
	var out []*ldap.Entry
	paging := ldap.NewControlPaging(page)
	for {
		req := ldap.NewSearchRequest(base, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 0, int(patience.Seconds()), false, filter, attributes, []ldap.Control{paging})
		res, err := c.Search(req)
		if err != nil {
			return nil, err
		}
		if out = append(out, res.Entries...); len(out) > mostAll {
			return nil, fmt.Errorf("there are more than %d entries", mostAll)
		}
		next, ok := ldap.FindControl(res.Controls, ldap.ControlTypePaging).(*ldap.ControlPaging)
		if !ok || len(next.Cookie) == 0 {
			return out, nil
		}
		paging.SetCookie(next.Cookie)
	}
}

// Everybody reads all people and all groups.
func (d *Directory) Everybody(ctx context.Context) (people []Person, groups []Group, err error) {
	err = d.talk(ctx, ofAll, func(c *ldap.Conn) error {
		entries, err := d.all(c, d.UserBase, d.everybody(), d.userAttributes())
		if err != nil {
			return fmt.Errorf("reading people: %w", err)
		}
		for _, e := range entries {
			p, err := d.person(e)
			if err != nil {
				return err
			}
			people = append(people, p)
		}
		if d.GroupBase == "" {
			return nil
		}
		groups, err = d.groups(c, d.GroupFilter, true)
		return err
	})
	return people, groups, err
}
