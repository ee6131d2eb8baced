package identity

import (
	"net/http"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

func (g *Group) show() map[string]any {
	return map[string]any{
		"id": g.ID, "displayName": g.Name, "description": nullable(g.Description), "mailNickname": g.Nick, "mailEnabled": false, "mail": nil,
		"securityEnabled": true, "isAssignableToRole": g.Assignable, "groupTypes": []string{}, "visibility": nil, "createdDateTime": stamp(g.Created),
	}
}

// groupBody is what a client may say of a group.
type groupBody struct {
	Name        *string  `json:"displayName"`
	Description *string  `json:"description"`
	Nick        *string  `json:"mailNickname"`
	Mail        *bool    `json:"mailEnabled"`
	Security    *bool    `json:"securityEnabled"`
	Types       []any    `json:"groupTypes"`
	Assignable  *bool    `json:"isAssignableToRole"`
	Members     []string `json:"members@odata.bind"`
	Owners      []string `json:"owners@odata.bind"`
}

func (s *Service) groupDoors() []gate.Route {
	out := []gate.Route{
		s.door(createGroup, "POST groups", (*visit).createGroup),
		s.door(readGroups, "GET groups/{id}", func(v *visit) (answer, error) {
			g, err := v.group()
			if err != nil {
				return answer{}, err
			}
			return v.one(http.StatusOK, "groups", g.show())
		}),
		s.door(updateGroup, "PATCH groups/{id}", (*visit).updateGroup),
		s.door(deleteGroup, "DELETE groups/{id}", (*visit).deleteGroup),
		s.door(changeOwners, "POST groups/{id}/owners/$ref", (*visit).addOwner),
		s.door(changeOwners, "DELETE groups/{id}/owners/{member}/$ref", (*visit).removeOwner),
		s.door(changeMembers, "POST groups/{id}/members/$ref", (*visit).addMember),
		s.door(changeMembers, "DELETE groups/{id}/members/{member}/$ref", (*visit).removeMember),
	}
	out = append(out, s.collection(readGroups, "groups", false, (*visit).listGroups)...)
	out = append(out, s.collection(readOwners, "groups/{id}/owners", true, (*visit).listOwners)...)
	for name, all := range map[string]bool{"": false, "transitive": true} {
		out = append(out, s.collection(readMembers, "groups/{id}/"+name+"members", true, func(v *visit) (answer, error) { return v.members(all) })...)
		out = append(out, s.collection(readMembers, "groups/{id}/"+name+"memberof", true, func(v *visit) (answer, error) { return v.groupsOfGroup(all) })...)
	}
	return out
}

func (v *visit) group() (*Group, error) {
	g := v.s.index.group(fold(v.seg(1)))
	if g == nil || g.Tenant != v.tenant {
		return nil, missing("group", v.seg(1))
	}
	return g, nil
}

func (v *visit) listGroups() (answer, error) {
	rows := find(v.s.index, func(x *index) (out []map[string]any) {
		for _, g := range x.groups {
			if g.Tenant == v.tenant {
				out = append(out, g.show())
			}
		}
		return out
	})
	return v.list("groups", rows)
}

func (g *Group) fill(b groupBody) error {
	if b.Mail != nil && *b.Mail || b.Security != nil && !*b.Security || len(b.Types) > 0 {
		return arm.Errorf(arm.BadRequest, "Only security groups are supported: mailEnabled must be false, securityEnabled true, and groupTypes empty.")
	}
	if b.Name != nil {
		if err := checkName(*b.Name); err != nil {
			return err
		}
		g.Name = *b.Name
	}
	if b.Description != nil {
		if len(*b.Description) > 1024 {
			return arm.Errorf(arm.BadRequest, "The description is longer than 1024 bytes.")
		}
		g.Description = *b.Description
	}
	if b.Nick != nil {
		g.Nick = (*b.Nick)[:min(len(*b.Nick), 64)]
	}
	return nil
}

func (v *visit) createGroup() (answer, error) {
	var b groupBody
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	if b.Name == nil {
		return answer{}, arm.Errorf(arm.BadRequest, "A group needs a displayName.")
	}
	g := &Group{ID: arm.NewUUID(), Tenant: v.tenant, Created: v.s.Now().UTC()}
	if err := g.fill(b); err != nil {
		return answer{}, err
	}
	if g.Assignable = b.Assignable != nil && *b.Assignable; g.Assignable {
		if err := v.also(createRoleGroup); err != nil {
			return answer{}, err
		}
	}
	err := v.change(func(tx *store.Tx) error {
		if err := v.s.put(tx, g); err != nil {
			return err
		}
		if err := v.admitAll(tx, g, b.Members); err != nil {
			return err
		}
		return v.firstOwners(tx, g, b.Owners)
	})
	if err != nil {
		return answer{}, err
	}
	return v.one(http.StatusCreated, "groups", g.show())
}

func (v *visit) updateGroup() (answer, error) {
	var b groupBody
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	was, err := v.group()
	if err != nil {
		return answer{}, err
	}
	if len(b.Owners) > 0 {
		return answer{}, arm.Errorf(arm.BadRequest, "owners@odata.bind can't be changed with the group; use owners/$ref.")
	}
	if len(b.Members) > 0 {
		if err := v.also(changeMembers); err != nil {
			return answer{}, err
		}
	}
	err = v.change(func(tx *store.Tx) error {
		g, ok, err := fetch[*Group](tx, v.tenant, "group", was.ID)
		if err != nil {
			return err
		}
		if !ok {
			return missing("group", was.ID)
		}
		if err := g.fill(b); err != nil {
			return err
		}
		if b.Assignable != nil && *b.Assignable != g.Assignable {
			return arm.Errorf(arm.BadRequest, "Property 'isAssignableToRole' is read-only: it is said when the group is made.")
		}
		if err := v.s.put(tx, g); err != nil {
			return err
		}
		return v.admitAll(tx, g, b.Members)
	})
	return done, err
}

// maxBind is how many members one request may add, as in Entra.
const maxBind = 20

func (v *visit) admitAll(tx *store.Tx, g *Group, refs []string) error {
	if len(refs) > maxBind {
		return arm.Errorf(arm.BadRequest, "members@odata.bind has %d references; at most %d are taken at once.", len(refs), maxBind)
	}
	for _, ref := range refs {
		if err := v.admit(tx, g, ref); err != nil {
			return err
		}
	}
	return nil
}

// firstOwners makes those that the client names the owners of a new group; where
// it names none, whoever made it, as far as it must to go on with it.
func (v *visit) firstOwners(tx *store.Tx, g *Group, refs []string) error {
	if len(refs) == 0 {
		return v.ownNew(tx, g.ID, updateGroup)
	}
	if len(refs) > maxBind {
		return arm.Errorf(arm.BadRequest, "owners@odata.bind has %d references; at most %d are taken at once.", len(refs), maxBind)
	}
	for _, ref := range refs {
		id, err := refID(ref)
		if err != nil {
			return err
		}
		if err := v.addOwnerIn(tx, g.ID, id); err != nil {
			return err
		}
	}
	return nil
}

func (v *visit) deleteGroup() (answer, error) {
	g, err := v.group()
	if err != nil {
		return answer{}, err
	}
	return done, v.change(func(tx *store.Tx) error { return v.s.remove(tx, g) })
}

func (v *visit) members(all bool) (answer, error) {
	g, err := v.group()
	if err != nil {
		return answer{}, err
	}
	return v.list("directoryObjects", v.memberRows(g.ID, all))
}

func (v *visit) memberRows(id string, all bool) (rows []map[string]any) {
	return v.shownAll(v.s.index.membersOf(id, all))
}

// shownAll are those of the objects that are in the tenant.
func (v *visit) shownAll(ids []string) (rows []map[string]any) {
	for _, id := range ids {
		if m := v.s.index.shown(v.tenant, id); m != nil {
			rows = append(rows, m)
		}
	}
	return rows
}

func (v *visit) groupsOfGroup(all bool) (answer, error) {
	g, err := v.group()
	if err != nil {
		return answer{}, err
	}
	return v.groupsOf(g.ID, all)
}

// admit makes what ref points to a member of the group. A group that roles can
// be given to has no groups in it: who is in it must be plain to see.
func (v *visit) admit(tx *store.Tx, group *Group, ref string) error {
	id, err := refID(ref)
	if err != nil {
		return err
	}
	kind, ok, err := v.s.Principal(tx, v.tenant, id)
	if err != nil {
		return err
	}
	if !ok {
		return missing("directoryObject", id)
	}
	if kind == arm.Group && id == group.ID {
		return arm.Errorf(arm.BadRequest, "A group can't be a member of itself.")
	}
	if kind == arm.Group && group.Assignable {
		return arm.Errorf(arm.BadRequest, "A group can't be a member of a group for which isAssignableToRole is true.")
	}
	already, err := tx.Get(memberTable, v.tenant+"|"+group.ID+"|"+id)
	if err != nil {
		return err
	}
	if already != nil {
		return arm.Errorf(arm.BadRequest, "One or more added object references already exist for the following modified properties: 'members'.")
	}
	return v.s.join(tx, v.tenant, group.ID, id)
}

func (v *visit) addMember() (answer, error) {
	var b struct {
		ID string `json:"@odata.id"`
	}
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	g, err := v.group()
	if err != nil {
		return answer{}, err
	}
	return done, v.change(func(tx *store.Tx) error { return v.admit(tx, g, b.ID) })
}

func (v *visit) removeMember() (answer, error) {
	g, err := v.group()
	if err != nil {
		return answer{}, err
	}
	id := fold(v.seg(3))
	return done, v.change(func(tx *store.Tx) error {
		is, err := tx.Get(memberTable, v.tenant+"|"+g.ID+"|"+id)
		if err != nil {
			return err
		}
		if is == nil {
			return missing("directoryObject", id)
		}
		return v.s.leave(tx, v.tenant, g.ID, id)
	})
}

// shown is an object of the tenant that rights can be given to, as it is
// shown, or nil.
func (x *index) shown(tenant, id string) map[string]any {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if u := x.users[id]; u != nil && u.Tenant == tenant {
		return typedShow("user", u.show())
	}
	if g := x.groups[id]; g != nil && g.Tenant == tenant {
		return typedShow("group", g.show())
	}
	if p := x.sps[id]; p != nil && p.Tenant == tenant {
		return typedShow("servicePrincipal", p.show(x.clients[fold(p.AppID)]))
	}
	if a := x.apps[id]; a != nil && a.Tenant == tenant {
		return typedShow("application", a.show())
	}
	return nil
}
