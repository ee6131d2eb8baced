package identity

import (
	"context"
	"net/http"
	"regexp"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// upnForm is what a user principal name looks like: ASCII only, for no two
// people may have names that look the same, and one at-sign.
var upnForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._'-]{0,62}@[A-Za-z0-9.-]+$`)

// checkUPN says whether somebody of the tenant with this domain may have the name.
func checkUPN(upn, domain string) error {
	if !upnForm.MatchString(upn) {
		return arm.Errorf(arm.BadRequest, "Property userPrincipalName is invalid: it must be NAME@%s, where NAME has the letters A to Z, digits, and . _ ' - only.", domain)
	}
	if _, d, _ := strings.Cut(upn, "@"); fold(d) != domain {
		return arm.Errorf(arm.BadRequest, "The domain portion of the userPrincipalName property is invalid. You must use the domain of your organization, %s.", domain)
	}
	return nil
}

// checkName says whether s may be a display name.
func checkName(s string) error {
	if s = strings.TrimSpace(s); s == "" || len(s) > 256 {
		return arm.Errorf(arm.BadRequest, "Invalid value specified for property 'displayName': it must have 1 to 256 bytes.")
	}
	for _, r := range s {
		if r < ' ' || r == 0x7f {
			return arm.Errorf(arm.BadRequest, "Invalid value specified for property 'displayName': it has control characters.")
		}
	}
	return nil
}

func (u *User) show() map[string]any {
	m := map[string]any{
		"id": u.ID, "displayName": u.Name, "givenName": nullable(u.Given), "surname": nullable(u.Surname), "mail": nullable(u.Mail), "userPrincipalName": u.UPN,
		"accountEnabled": !u.Disabled, "userType": "Member", "mailNickname": strings.SplitN(u.UPN, "@", 2)[0], "createdDateTime": stamp(u.Created),
		"businessPhones": []string{}, "jobTitle": nil, "mobilePhone": nil, "officeLocation": nil, "preferredLanguage": nil,
	}
	if u.BreakGlass {
		m["castellanBreakGlass"] = true
	}
	return m
}

func nullable(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// userBody is what a client may say of a person.
type userBody struct {
	Enabled   *bool   `json:"accountEnabled"`
	Name      *string `json:"displayName"`
	Nick      *string `json:"mailNickname"` // the user principal name's first part is shown
	UPN       *string `json:"userPrincipalName"`
	Given     *string `json:"givenName"`
	Surname   *string `json:"surname"`
	Mail      *string `json:"mail"`
	Emergency *bool   `json:"castellanBreakGlass"` // the platform's own: Entra knows such accounts only by policies' exclusions
	Password  *struct {
		Password string `json:"password"`
		Change   *bool  `json:"forceChangePasswordNextSignIn"`
		MFA      *bool  `json:"forceChangePasswordNextSignInWithMfa"`
	} `json:"passwordProfile"`
	UserType  any `json:"userType"`
	Immutable any `json:"onPremisesImmutableId"`
	Location  any `json:"usageLocation"`
}

func (s *Service) selfDoors() []gate.Route {
	out := []gate.Route{
		s.door(readSelf, "GET me", func(v *visit) (answer, error) {
			u, err := v.self()
			if err != nil {
				return answer{}, err
			}
			return v.one(http.StatusOK, "users", u.show())
		}),
		s.door(changeSelf, "POST me/changepassword", (*visit).changeOwn),
	}
	out = append(out, s.collection(readSelf, "me/memberof", true, func(v *visit) (answer, error) { return v.groupsOf(v.g.Caller().Object, false) })...)
	return append(out, s.collection(readSelf, "me/transitivememberof", true, func(v *visit) (answer, error) { return v.groupsOf(v.g.Caller().Object, true) })...)
}

func (v *visit) self() (*User, error) {
	u := v.s.index.user(v.g.Caller().Object)
	if u == nil {
		return nil, arm.Errorf(arm.BadRequest, "/me request is only valid with delegated authentication flow.")
	}
	return u, nil
}

// changeOwn is a person changing the password that they know.
func (v *visit) changeOwn() (answer, error) {
	var b struct {
		Current string `json:"currentPassword"`
		Next    string `json:"newPassword"`
	}
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	u, err := v.self()
	if err != nil {
		return answer{}, err
	}
	if u.guest() {
		return answer{}, errGuest
	}
	t := v.s.index.tenantOf(v.tenant)
	if _, err := v.s.checkUser(v.r, t, u.UPN, b.Current); err != nil {
		return answer{}, err
	}
	if err := checkPassword(b.Next, u.UPN); err != nil {
		return answer{}, err
	}
	if b.Next == b.Current {
		return answer{}, arm.Errorf(arm.BadRequest, "The new password must be another than the old one.")
	}
	if _, err := v.s.changePassword(v.r.Context(), u, b.Next); err != nil {
		return answer{}, err
	}
	return done, nil
}

func (s *Service) userDoors() []gate.Route {
	out := []gate.Route{
		s.door(createUser, "POST users", (*visit).createUser),
		s.door(readUsers, "GET users/{id}", func(v *visit) (answer, error) {
			u, err := v.user(v.seg(1))
			if err != nil {
				return answer{}, err
			}
			return v.one(http.StatusOK, "users", u.show())
		}),
		s.door(updateUser, "PATCH users/{id}", (*visit).updateUser),
		s.door(deleteUser, "DELETE users/{id}", (*visit).deleteUser),
		s.door(revokeUser, "POST users/{id}/revokesigninsessions", (*visit).revokeUser),
	}
	out = append(out, s.collection(readUsers, "users", false, (*visit).listUsers)...)
	out = append(out, s.collection(readMembers, "users/{id}/memberof", true, func(v *visit) (answer, error) { return v.groupsOfUser(false) })...)
	return append(out, s.collection(readMembers, "users/{id}/transitivememberof", true, func(v *visit) (answer, error) { return v.groupsOfUser(true) })...)
}

// user is a person of the tenant by id or user principal name.
func (v *visit) user(name string) (*User, error) {
	u := v.s.index.userNamed(name)
	if u == nil || u.Tenant != v.tenant {
		return nil, missing("user", name)
	}
	return u, nil
}

func (v *visit) listUsers() (answer, error) {
	rows := find(v.s.index, func(x *index) (out []map[string]any) {
		for _, u := range x.users {
			if u.Tenant == v.tenant {
				out = append(out, u.show())
			}
		}
		return out
	})
	return v.list("users", rows)
}

func (v *visit) createUser() (answer, error) {
	var b userBody
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	if b.Emergency != nil {
		return answer{}, arm.Errorf(arm.BadRequest, "castellanBreakGlass is set on a user who is there, with PATCH.")
	}
	if b.Enabled == nil || b.Name == nil || b.UPN == nil || b.Password == nil || b.Password.Password == "" {
		return answer{}, arm.Errorf(arm.BadRequest, "A user needs accountEnabled, displayName, userPrincipalName and passwordProfile with a password.")
	}
	u := &User{ID: arm.NewUUID(), Tenant: v.tenant, MustChange: true, Created: v.s.Now().UTC()}
	if err := v.fill(u, b); err != nil {
		return answer{}, err
	}
	if err := v.change(func(tx *store.Tx) error { return v.s.put(tx, u) }); err != nil {
		return answer{}, err
	}
	return v.one(http.StatusCreated, "users", u.show())
}

// fill takes over what the client said. Hashing a password takes a while, so it
// is done before the transaction.
func (v *visit) fill(u *User, b userBody) error {
	if b.Name != nil {
		if err := checkName(*b.Name); err != nil {
			return err
		}
		u.Name = *b.Name
	}
	if b.UPN != nil {
		t := v.s.index.tenantOf(v.tenant)
		if t == nil {
			return missing("tenant", v.tenant)
		}
		if err := checkUPN(*b.UPN, t.Domain); err != nil {
			return err
		}
		u.UPN = *b.UPN
	}
	for to, from := range map[*string]*string{&u.Given: b.Given, &u.Surname: b.Surname, &u.Mail: b.Mail} {
		if from == nil {
			continue
		}
		if len(*from) > 256 {
			return arm.Errorf(arm.BadRequest, "A property is longer than 256 bytes.")
		}
		*to = *from
	}
	if b.Enabled != nil {
		u.DisabledBy = "" // what an administrator says, no synchronisation takes back
	}
	if b.Enabled != nil && u.Disabled == *b.Enabled {
		u.Disabled = !*b.Enabled
		u.Epoch++ // what was given before stays dead also once the person is enabled again
	}
	if b.Emergency != nil {
		u.BreakGlass = *b.Emergency
	}
	return v.fillPassword(v.r.Context(), u, b)
}

func (v *visit) fillPassword(ctx context.Context, u *User, b userBody) error {
	if b.Password == nil {
		return nil
	}
	if u.guest() {
		return errGuest
	}
	if b.Password.Change != nil {
		u.MustChange = *b.Password.Change
	}
	if b.Password.Password == "" {
		return nil
	}
	if err := checkPassword(b.Password.Password, u.UPN); err != nil {
		return err
	}
	hash, err := v.s.hasher.hash(ctx, b.Password.Password)
	if err != nil {
		return err
	}
	if b.Password.Change == nil {
		u.MustChange = true
	}
	u.Password, u.Epoch = hash, u.Epoch+1
	return nil
}

func (v *visit) updateUser() (answer, error) {
	var b userBody
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	was, err := v.user(v.seg(1))
	if err != nil {
		return answer{}, err
	}
	if err := v.mayUpdate(b); err != nil {
		return answer{}, err
	}
	u := *was
	if err := v.fill(&u, b); err != nil {
		return answer{}, err
	}
	err = v.change(func(tx *store.Tx) error {
		now, ok, err := fetch[*User](tx, v.tenant, "user", u.ID)
		if err != nil {
			return err
		}
		if !ok || *now != *was {
			return arm.Errorf(arm.Conflict, "The user was changed by somebody else at the same moment. Try again.")
		}
		if u.Disabled {
			if err := v.s.lastAdmin(tx, v.tenant, u.ID); err != nil {
				return err
			}
		}
		return v.s.put(tx, &u)
	})
	if err != nil {
		return answer{}, err
	}
	return done, nil
}

// mayUpdate asks for the action behind each property that the client sent.
func (v *visit) mayUpdate(b userBody) error {
	asks := []struct {
		sent bool
		a    arm.Action
	}{
		{b.Password != nil, passwordUser},
		{b.Enabled != nil && *b.Enabled, enableUser},
		{b.Enabled != nil && !*b.Enabled, disableUser},
		{b.Emergency != nil, emergencyUser},
		{b.UPN != nil, renameUser},
		{b.Name != nil || b.Nick != nil || b.Given != nil || b.Surname != nil || b.Mail != nil, basicUser},
	}
	for _, x := range asks {
		if !x.sent {
			continue
		}
		if err := v.also(x.a); err != nil {
			return err
		}
	}
	return nil
}

func (v *visit) deleteUser() (answer, error) {
	u, err := v.user(v.seg(1))
	if err != nil {
		return answer{}, err
	}
	err = v.change(func(tx *store.Tx) error {
		if err := v.s.lastAdmin(tx, v.tenant, u.ID); err != nil {
			return err
		}
		return v.s.remove(tx, u)
	})
	return done, err
}

// revokeUser signs a person out everywhere.
func (v *visit) revokeUser() (answer, error) {
	was, err := v.user(v.seg(1))
	if err != nil {
		return answer{}, err
	}
	err = v.change(func(tx *store.Tx) error {
		u, ok, err := fetch[*User](tx, v.tenant, "user", was.ID)
		if err != nil || !ok {
			return err
		}
		u.Epoch++
		return v.s.put(tx, u)
	})
	return answer{http.StatusOK, map[string]any{"@odata.context": v.context("Edm.Boolean"), "value": true}}, err
}

func (v *visit) groupsOfUser(all bool) (answer, error) {
	u, err := v.user(v.seg(1))
	if err != nil {
		return answer{}, err
	}
	return v.groupsOf(u.ID, all)
}

func (v *visit) groupsOf(id string, all bool) (answer, error) {
	return v.list("directoryObjects", v.groupRows(id, all))
}

// groupRows are the groups that an object is in, and its directory roles.
func (v *visit) groupRows(id string, all bool) (rows []map[string]any) {
	for _, g := range v.s.index.groupsOf(id) {
		direct := find(v.s.index, func(x *index) bool { return x.parents[id][g] })
		if o := v.s.index.group(g); o != nil && o.Tenant == v.tenant && (all || direct) {
			rows = append(rows, typedShow("group", o.show()))
		}
	}
	for _, r := range v.assignments() {
		if h := book.byID[r.Role]; h != nil && r.Principal == id {
			rows = append(rows, typedShow("directoryRole", h.showRole()))
		}
	}
	return rows
}

func typedShow(class string, m map[string]any) map[string]any {
	m["@odata.type"] = "#microsoft.graph." + class
	return m
}
