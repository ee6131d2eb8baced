package identity

import (
	"errors"
	"net/http"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/ldap"
	"castellan/internal/store"
)

// syncDirectory is on provisioning, as in Entra.
var syncDirectory = arm.NewAction("microsoft.directory/provisioning/synchronize", "hold what came of an LDAP directory against it")

// ldapDoors are ours: Entra reaches no LDAP directory by itself.
func (s *Service) ldapDoors() []gate.Route {
	const at = "identity/ldapdirectories"
	return []gate.Route{
		s.door(readProvider, "GET "+at, func(v *visit) (answer, error) {
			return v.list("identity/ldapDirectories", find(v.s.index, func(x *index) (out []map[string]any) {
				for _, d := range x.ldaps {
					if d.Tenant == v.tenant {
						out = append(out, d.show())
					}
				}
				return out
			}))
		}),
		s.door(createProvider, "POST "+at, (*visit).createLDAP),
		s.door(readProvider, "GET "+at+"/{id}", (*visit).getLDAP),
		s.door(updateProvider, "PATCH "+at+"/{id}", (*visit).updateLDAP),
		s.door(deleteProvider, "DELETE "+at+"/{id}", func(v *visit) (answer, error) {
			d, err := v.ldap()
			if err != nil {
				return answer{}, err
			}
			return done, v.change(func(tx *store.Tx) error {
				return errors.Join(v.s.endGiven(tx, d.Tenant, d.issuer()), v.s.remove(tx, d))
			})
		}),
		s.door(syncDirectory, "POST "+at+"/{id}/synchronize", (*visit).syncLDAP),
	}
}

func (d *LDAP) show() map[string]any {
	a := d.Attributes
	return map[string]any{
		"id": d.ID, "displayName": d.Name, "url": d.URL, "startTls": d.StartTLS, "allowCleartextLoopback": d.Cleartext, "certificateAuthorities": nullable(d.Roots),
		"bindDn": d.BindDN, "bindPassword": nil, "userBase": d.UserBase, "userFilter": d.UserFilter, "groupBase": nullable(d.GroupBase), "groupFilter": nullable(d.GroupFilter),
		"attributes": map[string]any{"id": a.ID, "userPrincipalName": a.UPN, "displayName": a.Name, "givenName": a.Given, "surname": a.Surname, "mail": a.Mail, "member": a.Member, "groupName": a.GroupName},
		"domains":    nonNil(d.Domains), "createUsers": d.Create, "syncIntervalMinutes": d.Every, "isEnabled": !d.Disabled, "createdDateTime": stamp(d.Created),
	}
}

func (y synced) show() map[string]any {
	if y.At.IsZero() {
		return nil
	}
	return map[string]any{"completedDateTime": stamp(y.At), "people": y.People, "groups": y.Groups, "disabled": y.Disabled, "error": nullable(y.Error)}
}

// ldapBody is what a client may say of an LDAP directory.
type ldapBody struct {
	Name       *string   `json:"displayName"`
	URL        *string   `json:"url"`
	StartTLS   *bool     `json:"startTls"`
	Cleartext  *bool     `json:"allowCleartextLoopback"`
	Roots      *string   `json:"certificateAuthorities"`
	BindDN     *string   `json:"bindDn"`
	Password   *string   `json:"bindPassword"`
	UserBase   *string   `json:"userBase"`
	UserFilter *string   `json:"userFilter"`
	GroupBase  *string   `json:"groupBase"`
	GroupFiltr *string   `json:"groupFilter"`
	Domains    *[]string `json:"domains"`
	Create     *bool     `json:"createUsers"`
	Every      *int      `json:"syncIntervalMinutes"`
	Enabled    *bool     `json:"isEnabled"`
	Attributes *struct {
		ID        *string `json:"id"`
		UPN       *string `json:"userPrincipalName"`
		Name      *string `json:"displayName"`
		Given     *string `json:"givenName"`
		Surname   *string `json:"surname"`
		Mail      *string `json:"mail"`
		Member    *string `json:"member"`
		GroupName *string `json:"groupName"`
	} `json:"attributes"`
}

func (v *visit) ldap() (*LDAP, error) {
	d := v.s.index.ldap(fold(v.seg(2)))
	if d == nil || d.Tenant != v.tenant {
		return nil, missing("ldapDirectory", v.seg(2))
	}
	return d, nil
}

func (v *visit) getLDAP() (answer, error) {
	d, err := v.ldap()
	if err != nil {
		return answer{}, err
	}
	m := d.show()
	last, err := v.s.lastSync(v.r.Context(), d)
	if err != nil {
		return answer{}, err
	}
	m["lastSynchronization"] = last.show()
	return v.one(http.StatusOK, "identity/ldapDirectories", m)
}

func (v *visit) createLDAP() (answer, error) {
	var b ldapBody
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	if b.Name == nil || b.URL == nil || b.Password == nil {
		return answer{}, arm.Errorf(arm.BadRequest, "An LDAP directory needs displayName, url, bindDn, bindPassword, userBase and domains.")
	}
	d := &LDAP{
		ID: arm.NewUUID(), Tenant: v.tenant, Create: true, Every: 60, Created: v.s.Now().UTC(),
		UserFilter: "(&(objectClass=person)(uid={local}))", GroupFilter: "(|(objectClass=groupOfNames)(objectClass=group))",
		Attributes: ldap.Names{ID: "entryUUID", UPN: "uid", Name: "displayName", Given: "givenName", Surname: "sn", Mail: "mail", Member: "member", GroupName: "cn"},
	}
	if err := v.s.fillLDAP(d, b); err != nil {
		return answer{}, err
	}
	if err := v.change(func(tx *store.Tx) error { return v.s.put(tx, d) }); err != nil {
		return answer{}, err
	}
	return v.one(http.StatusCreated, "identity/ldapDirectories", d.show())
}

func (v *visit) updateLDAP() (answer, error) {
	var b ldapBody
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	was, err := v.ldap()
	if err != nil {
		return answer{}, err
	}
	return done, v.change(func(tx *store.Tx) error {
		d, ok, err := fetch[*LDAP](tx, v.tenant, "ldap", was.ID)
		if err != nil || !ok {
			return missingOr(err, "ldapDirectory", was.ID)
		}
		if b.URL != nil && *b.URL != d.URL && b.Password == nil {
			return arm.Errorf(arm.BadRequest, "With another url give the bindPassword anew: the old one is not shown to another server.")
		}
		if err := v.s.fillLDAP(d, b); err != nil {
			return err
		}
		if err := v.vouch(tx, d.issuer(), d.Disabled); err != nil {
			return err
		}
		return v.s.put(tx, d)
	})
}

// fillLDAP takes over what the client said, and refuses what could not be asked.
func (s *Service) fillLDAP(d *LDAP, b ldapBody) error {
	if b.Name != nil {
		if err := checkName(*b.Name); err != nil {
			return err
		}
	}
	for to, from := range map[*string]*string{
		&d.Name: b.Name, &d.URL: b.URL, &d.BindDN: b.BindDN, &d.UserBase: b.UserBase, &d.UserFilter: b.UserFilter, &d.GroupBase: b.GroupBase, &d.GroupFilter: b.GroupFiltr,
	} {
		if from != nil {
			*to = strings.TrimSpace(*from)
		}
		if len(*to) > 2048 {
			return arm.Errorf(arm.BadRequest, "A property is longer than 2048 bytes.")
		}
	}
	for to, from := range map[*bool]*bool{&d.StartTLS: b.StartTLS, &d.Cleartext: b.Cleartext, &d.Create: b.Create} {
		if from != nil {
			*to = *from
		}
	}
	if b.Enabled != nil {
		d.Disabled = !*b.Enabled
	}
	if b.Every != nil {
		if *b.Every < 0 || *b.Every > 7*24*60 {
			return arm.Errorf(arm.BadRequest, "syncIntervalMinutes is %d; it must be from 0 to %d, and 0 means on demand only.", *b.Every, 7*24*60)
		}
		d.Every = *b.Every
	}
	if b.Domains != nil {
		domains, err := s.checkDomains(*b.Domains)
		if err != nil {
			return err
		}
		d.Domains = domains
	}
	if len(d.Domains) == 0 || len(d.Domains) > 100 {
		return arm.Errorf(arm.BadRequest, "An LDAP directory needs 1 to 100 domains, by which its people are known.")
	}
	if err := d.fillAttributes(b); err != nil {
		return err
	}
	if err := fillRoots(&d.Roots, b.Roots); err != nil {
		return err
	}
	if b.Password != nil {
		if *b.Password == "" || len(*b.Password) > 2048 {
			return arm.Errorf(arm.BadRequest, "The bindPassword must have 1 to 2048 bytes: with none the directory would take it for nobody's.")
		}
		d.Secret = s.Root.Derive("identity federation").Seal([]byte(*b.Password), sealing(d, "secret"))
	}
	trial := *d
	if _, err := s.ldapClient(&trial); err != nil {
		return arm.Errorf(arm.BadRequest, "The LDAP directory can't be used: %v.", err)
	}
	return nil
}

func (d *LDAP) fillAttributes(b ldapBody) error {
	if m := b.Attributes; m != nil {
		n := &d.Attributes
		for to, from := range map[*string]*string{&n.ID: m.ID, &n.UPN: m.UPN, &n.Name: m.Name, &n.Given: m.Given, &n.Surname: m.Surname, &n.Mail: m.Mail, &n.Member: m.Member, &n.GroupName: m.GroupName} {
			if from != nil {
				*to = *from
			}
		}
	}
	n := d.Attributes
	for _, a := range []string{n.ID, n.UPN, n.Name, n.Member, n.GroupName} {
		if a == "" {
			return arm.Errorf(arm.BadRequest, "The attributes id, userPrincipalName, displayName, member and groupName must be named.")
		}
	}
	for _, a := range []string{n.ID, n.UPN, n.Name, n.Given, n.Surname, n.Mail, n.Member, n.GroupName} {
		if len(a) > 100 || strings.Trim(a, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != "" {
			return arm.Errorf(arm.BadRequest, "The attribute %q must have letters, digits and - only.", printable(a))
		}
	}
	return nil
}

// syncLDAP synchronises on demand.
func (v *visit) syncLDAP() (answer, error) {
	var b struct {
		Force bool `json:"force"`
	}
	if v.r.ContentLength != 0 {
		if err := v.body(&b); err != nil {
			return answer{}, err
		}
	}
	d, err := v.ldap()
	if err != nil {
		return answer{}, err
	}
	if d.Disabled {
		return answer{}, arm.Errorf(arm.BadRequest, "The LDAP directory %s is disabled.", d.Name)
	}
	out, err := v.s.synchronise(v.r.Context(), d, b.Force)
	if err != nil {
		return answer{}, err
	}
	return answer{http.StatusOK, out.show()}, nil
}
