package identity

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/scim"
	"castellan/internal/store"
)

func (s *Service) scimUserDoors() []gate.Route {
	return []gate.Route{
		s.scimDoor(readUsers, "GET Users", (*visit).scimListUsers),
		s.scimDoor(createUser, "POST Users", (*visit).scimCreateUser),
		s.scimDoor(readUsers, "GET Users/{id}", func(v *visit) (answer, error) {
			_, m, err := v.scimUser()
			if err != nil {
				return answer{}, err
			}
			return v.scimOne(http.StatusOK, scim.Users, m)
		}),
		s.scimDoor(updateUser, "PUT Users/{id}", func(v *visit) (answer, error) {
			return v.scimChangeUser(func(_ map[string]any, body any) (map[string]any, error) { return scim.Users.Read(body) })
		}),
		s.scimDoor(updateUser, "PATCH Users/{id}", func(v *visit) (answer, error) { return v.scimChangeUser(scim.Users.Patch) }),
		s.scimDoor(deleteUser, "DELETE Users/{id}", (*visit).scimDeleteUser),
	}
}

// scimUser is the person whom the path names, if SCIM made them.
func (v *visit) scimUser() (*User, map[string]any, error) {
	u := v.s.index.user(v.seg(1))
	if u == nil || u.Tenant != v.tenant || u.Origin != scimOrigin || v.seg(2) != "" {
		return nil, nil, scimMissing("Users", v.seg(1))
	}
	m, err := v.s.scimShow(u)
	return u, m, err
}

// scimShow is a person as SCIM shows them: what it said, and what is so.
func (s *Service) scimShow(u *User) (map[string]any, error) {
	m, err := recall(u.SCIM)
	if err != nil {
		return nil, err
	}
	m["id"], m["active"] = u.ID, !u.Disabled
	if said, _ := m["userName"].(string); fold(s.scimUPN(u.Tenant, said)) != fold(u.UPN) {
		m["userName"] = u.UPN // an administrator gave another
	}
	if err := scim.Users.Check(m); err != nil {
		return nil, err
	}
	version := versionOf(m)
	if groups := s.scimGroupsOf(u.ID); len(groups) > 0 {
		m["groups"] = groups
	}
	m["meta"] = s.scimMeta(u.Tenant, scim.Users, u.ID, u.Created, cmp.Or(u.Changed, u.Created), version)
	return m, nil
}

// scimGroupsOf are the groups made by SCIM that somebody is in.
func (s *Service) scimGroupsOf(id string) (out []any) {
	direct := find(s.index, func(x *index) []string {
		var out []string
		for g := range x.parents[id] {
			out = append(out, g)
		}
		return out
	})
	for _, gid := range s.index.groupsOf(id) {
		g := s.index.group(gid)
		if g == nil || g.Origin != scimOrigin {
			continue
		}
		kind := "indirect"
		if slices.Contains(direct, gid) {
			kind = "direct"
		}
		out = append(out, map[string]any{"value": g.ID, "display": g.Name, "type": kind, "$ref": s.scimBase(g.Tenant) + "/Groups/" + g.ID})
	}
	return out
}

// scimUPN is the user principal name of who is called so: with no domain it is
// the tenant's own.
func (s *Service) scimUPN(tenant, userName string) string {
	if t := s.index.tenantOf(tenant); t != nil && !strings.Contains(userName, "@") {
		return userName + "@" + t.Domain
	}
	return userName
}

// scimDomains are those that people may have names in: the tenant's own, and
// those whose people a provider of the tenant signs in.
func (s *Service) scimDomains(tenant string) []string {
	return find(s.index, func(x *index) (out []string) {
		if t := x.tenants[tenant]; t != nil {
			out = append(out, t.Domain)
		}
		for name, e := range x.realms {
			if t, class, _ := e.place(); t == tenant && class == "idp" {
				out = append(out, name)
			}
		}
		slices.Sort(out)
		return out
	})
}

func (v *visit) scimListUsers() (answer, error) {
	users := find(v.s.index, func(x *index) (out []*User) {
		for _, u := range x.users {
			if u.Tenant == v.tenant && u.Origin == scimOrigin {
				out = append(out, u)
			}
		}
		return out
	})
	var rows []map[string]any
	for _, u := range users {
		m, err := v.s.scimShow(u)
		if err != nil {
			return answer{}, err
		}
		rows = append(rows, m)
	}
	return v.scimList(scim.Users, rows)
}

func (v *visit) scimCreateUser() (answer, error) {
	body, err := v.scimBody()
	if err != nil {
		return answer{}, err
	}
	m, err := scim.Users.Read(body)
	if err != nil {
		return answer{}, err
	}
	u := &User{ID: arm.NewUUID(), Tenant: v.tenant, Created: v.s.Now().UTC(), outside: outside{Origin: scimOrigin}}
	if err := v.scimFill(u, m); err != nil {
		return answer{}, err
	}
	if err := v.change(func(tx *store.Tx) error { return v.s.put(tx, u) }); err != nil {
		return answer{}, err
	}
	if m, err = v.s.scimShow(u); err != nil {
		return answer{}, err
	}
	return v.scimOne(http.StatusCreated, scim.Users, m)
}

// scimFill takes over what SCIM says of a person. Who was disabled by somebody
// else stays so.
func (v *visit) scimFill(u *User, m map[string]any) (err error) {
	userName, _ := m["userName"].(string)
	if u.UPN = v.s.scimUPN(v.tenant, userName); checkOutsideUPN(u.UPN, v.s.scimDomains(v.tenant)) != nil {
		return arm.Errorf(scim.InvalidValue, "The userName is %q; it must be NAME, or NAME@ one of %s, where NAME has the letters A to Z, digits, and . _ ' - only.", printable(userName), strings.Join(v.s.scimDomains(v.tenant), ", "))
	}
	if u.External, _ = m["externalId"].(string); len(u.External) > 256 || printable(u.External) != u.External {
		return arm.Errorf(scim.InvalidValue, "The externalId must have 1 to 200 printable characters.")
	}
	name, _ := m["name"].(map[string]any)
	part := func(k string) string { s, _ := name[k].(string); return strings.TrimSpace(s) }
	u.Given, u.Surname, u.Mail = part("givenName"), part("familyName"), mailOf(m["emails"])
	shown, _ := m["displayName"].(string)
	u.Name = cmp.Or(strings.TrimSpace(shown), part("formatted"), strings.TrimSpace(u.Given+" "+u.Surname), userName)
	for what, s := range map[string]string{"displayName": u.Name, "name.givenName": u.Given, "name.familyName": u.Surname, "emails": u.Mail} {
		if s != "" && checkName(s) != nil {
			return arm.Errorf(scim.InvalidValue, "The attribute %s must have 1 to 256 bytes and no control characters.", what)
		}
	}
	if active, said := m["active"].(bool); said && active == u.Disabled {
		if u.Disabled && u.DisabledBy != scimOrigin {
			return arm.Errorf(arm.Forbidden, "An administrator disabled this person, and only an administrator enables them again; leave active false.")
		}
		if u.Disabled, u.DisabledBy = !active, ""; u.Disabled {
			u.DisabledBy = scimOrigin
		}
		u.Epoch++ // what was given before stays dead also once the person is enabled again
	}
	u.Changed = v.s.Now().UTC()
	u.SCIM, err = aside(m, "id", "meta", "active", "groups")
	return err
}

// mailOf is the primary mail address, else the first.
func mailOf(emails any) string {
	list, _ := emails.([]any)
	mail := ""
	for _, x := range list {
		m, _ := x.(map[string]any)
		s, _ := m["value"].(string)
		if mail == "" || m["primary"] == true {
			mail = s
		}
	}
	return mail
}

// scimChangeUser is PUT and PATCH: how makes of what a person is and the body
// what they are to be.
func (v *visit) scimChangeUser(how func(was map[string]any, body any) (map[string]any, error)) (answer, error) {
	was, shown, err := v.scimUser()
	if err != nil {
		return answer{}, err
	}
	if v.s.untouchable("users", was.ID) {
		return answer{}, errProtected
	}
	body, err := v.scimBody()
	if err != nil {
		return answer{}, err
	}
	m, err := how(shown, body)
	if err != nil {
		return answer{}, err
	}
	u := *was
	if err := v.scimFill(&u, m); err != nil {
		return answer{}, err
	}
	if u.Disabled != was.Disabled { // the audit log names what is done
		if err := v.also(map[bool]arm.Action{true: disableUser, false: enableUser}[u.Disabled]); err != nil {
			return answer{}, err
		}
	}
	err = v.change(func(tx *store.Tx) error {
		if err := v.scimStill(tx, was, shown); err != nil {
			return err
		}
		return v.s.put(tx, &u)
	})
	if err != nil {
		return answer{}, err
	}
	if m, err = v.s.scimShow(&u); err != nil {
		return answer{}, err
	}
	return v.scimOne(http.StatusOK, scim.Users, m)
}

// scimStill says whether a person is still as they were when a change was worked out.
func (v *visit) scimStill(tx *store.Tx, was *User, shown map[string]any) error {
	now, ok, err := fetch[*User](tx, v.tenant, "user", was.ID)
	if err != nil {
		return err
	}
	if !ok || now.Origin != scimOrigin {
		return scimMissing("Users", was.ID)
	}
	m, err := v.s.scimShow(now)
	if err != nil {
		return err
	}
	a, err := json.Marshal(now)
	if err != nil {
		return err
	}
	b, err := json.Marshal(was)
	if err != nil {
		return err
	}
	if string(a) != string(b) { // also what SCIM doesn't show, such as a password
		shown = map[string]any{"meta": map[string]any{"version": ""}}
	}
	return v.checkMatch(shown, m)
}

func (v *visit) scimDeleteUser() (answer, error) {
	u, shown, err := v.scimUser()
	if err != nil {
		return answer{}, err
	}
	if v.s.untouchable("users", u.ID) {
		return answer{}, errProtected
	}
	return done, v.change(func(tx *store.Tx) error {
		if err := v.scimStill(tx, u, shown); err != nil {
			return err
		}
		return v.s.remove(tx, u)
	})
}
