package identity

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/scim"
	"castellan/internal/store"
)

func (s *Service) scimGroupDoors() []gate.Route {
	return []gate.Route{
		s.scimDoor(readGroups, "GET Groups", (*visit).scimListGroups),
		s.scimDoor(createGroup, "POST Groups", (*visit).scimCreateGroup),
		s.scimDoor(readGroups, "GET Groups/{id}", func(v *visit) (answer, error) {
			_, m, err := v.scimGroup()
			if err != nil {
				return answer{}, err
			}
			return v.scimOne(http.StatusOK, scim.Groups, m)
		}),
		s.scimDoor(updateGroup, "PUT Groups/{id}", func(v *visit) (answer, error) {
			return v.scimChangeGroup(func(_ map[string]any, body any) (map[string]any, error) { return scim.Groups.Read(body) })
		}),
		s.scimDoor(updateGroup, "PATCH Groups/{id}", func(v *visit) (answer, error) { return v.scimChangeGroup(scim.Groups.Patch) }),
		s.scimDoor(deleteGroup, "DELETE Groups/{id}", (*visit).scimDeleteGroup),
	}
}

// scimGroup is the group that the path names, if SCIM made it.
func (v *visit) scimGroup() (*Group, map[string]any, error) {
	g := v.s.index.group(v.seg(1))
	if g == nil || g.Tenant != v.tenant || g.Origin != scimOrigin || g.Assignable || v.seg(2) != "" {
		return nil, nil, scimMissing("Groups", v.seg(1))
	}
	var m map[string]any
	err := v.s.DB.View(v.r.Context(), func(tx *store.Tx) (err error) { m, err = v.s.scimShowGroup(tx, g); return err })
	return g, m, err
}

// scimShowGroup is a group as SCIM shows it, with those members that SCIM made.
func (s *Service) scimShowGroup(tx *store.Tx, g *Group) (map[string]any, error) {
	m, err := recall(g.SCIM)
	if err != nil {
		return nil, err
	}
	m["id"], m["displayName"] = g.ID, g.Name
	rows, err := tx.Scan(memberTable, g.Tenant+"|"+g.ID+"|", "", 0)
	if err != nil {
		return nil, err
	}
	var members []any
	for _, r := range rows {
		id := r.Key[strings.LastIndexByte(r.Key, '|')+1:]
		kind, ok, err := provisioned(tx, g.Tenant, id)
		if err != nil {
			return nil, err
		}
		if ok {
			members = append(members, map[string]any{"value": id, "type": kind, "$ref": s.scimBase(g.Tenant) + "/" + kind + "s/" + id})
		}
	}
	if len(members) > 0 {
		m["members"] = members
	}
	if err := scim.Groups.Check(m); err != nil {
		return nil, err
	}
	m["meta"] = s.scimMeta(g.Tenant, scim.Groups, g.ID, g.Created, cmp.Or(g.Changed, g.Created), versionOf(m))
	return m, nil
}

func (s *Service) scimMeta(tenant string, t *scim.Type, id string, made, changed time.Time, version string) map[string]any {
	return map[string]any{"resourceType": t.Name, "created": stamp(made), "lastModified": stamp(changed), "version": version, "location": s.scimBase(tenant) + t.Endpoint + "/" + id}
}

func (v *visit) scimListGroups() (answer, error) {
	groups := find(v.s.index, func(x *index) (out []*Group) {
		for _, g := range x.groups {
			if g.Tenant == v.tenant && g.Origin == scimOrigin && !g.Assignable {
				out = append(out, g)
			}
		}
		return out
	})
	var rows []map[string]any
	err := v.s.DB.View(v.r.Context(), func(tx *store.Tx) error {
		for _, g := range groups {
			m, err := v.s.scimShowGroup(tx, g)
			if err != nil {
				return err
			}
			rows = append(rows, m)
		}
		return nil
	})
	if err != nil {
		return answer{}, err
	}
	return v.scimList(scim.Groups, rows)
}

func (v *visit) scimCreateGroup() (answer, error) {
	body, err := v.scimBody()
	if err != nil {
		return answer{}, err
	}
	m, err := scim.Groups.Read(body)
	if err != nil {
		return answer{}, err
	}
	g := &Group{ID: arm.NewUUID(), Tenant: v.tenant, Created: v.s.Now().UTC(), outside: outside{Origin: scimOrigin}}
	if err := v.scimFillGroup(g, m); err != nil {
		return answer{}, err
	}
	err = v.change(func(tx *store.Tx) error {
		if err := v.s.put(tx, g); err != nil {
			return err
		}
		if err := v.scimMembers(tx, g, nil, memberIDs(m)); err != nil {
			return err
		}
		m, err = v.s.scimShowGroup(tx, g)
		return err
	})
	if err != nil {
		return answer{}, err
	}
	return v.scimOne(http.StatusCreated, scim.Groups, m)
}

func (v *visit) scimFillGroup(g *Group, m map[string]any) (err error) {
	g.Name, _ = m["displayName"].(string)
	if err := checkName(g.Name); err != nil {
		return err
	}
	g.Changed = v.s.Now().UTC()
	g.SCIM, err = aside(m, "id", "meta", "displayName", "members")
	return err
}

// memberIDs are the ids of the members that a group is said to have.
func memberIDs(m map[string]any) map[string]bool {
	out := map[string]bool{}
	list, _ := m["members"].([]any)
	for _, x := range list {
		x, _ := x.(map[string]any)
		id, _ := x["value"].(string)
		out[fold(id)] = true
	}
	return out
}

// scimMembers makes of the members that a group had those that it is to have.
// Both are SCIM's own; others that are in the group stay.
func (v *visit) scimMembers(tx *store.Tx, g *Group, was, want map[string]bool) error {
	for _, id := range slices.Sorted(maps.Keys(want)) {
		if was[id] {
			continue
		}
		_, ok, err := provisioned(tx, v.tenant, id)
		if err != nil {
			return err
		}
		if !ok || id == g.ID {
			return arm.Errorf(scim.InvalidValue, "The member %s is not one of the other people and groups that were provisioned here.", printable(id))
		}
		if v.s.untouchable("users", id) {
			return errProtected
		}
		if err := v.s.join(tx, v.tenant, g.ID, id); err != nil {
			return err
		}
	}
	for id := range was {
		if want[id] {
			continue
		}
		if v.s.untouchable("users", id) {
			return errProtected
		}
		if err := v.s.leave(tx, v.tenant, g.ID, id); err != nil {
			return err
		}
	}
	return nil
}

// scimChangeGroup is PUT and PATCH.
func (v *visit) scimChangeGroup(how func(was map[string]any, body any) (map[string]any, error)) (answer, error) {
	g, shown, err := v.scimGroup()
	if err != nil {
		return answer{}, err
	}
	body, err := v.scimBody()
	if err != nil {
		return answer{}, err
	}
	m, err := how(shown, body)
	if err != nil {
		return answer{}, err
	}
	was, want := memberIDs(shown), memberIDs(m)
	if !maps.Equal(was, want) { // the audit log names what is done
		if err := v.also(changeMembers); err != nil {
			return answer{}, err
		}
	}
	err = v.change(func(tx *store.Tx) error {
		g, err := v.scimGroupStill(tx, g.ID, shown)
		if err != nil {
			return err
		}
		if err := v.scimFillGroup(g, m); err != nil {
			return err
		}
		if err := v.s.put(tx, g); err != nil {
			return err
		}
		if err := v.scimMembers(tx, g, was, want); err != nil {
			return err
		}
		m, err = v.s.scimShowGroup(tx, g)
		return err
	})
	if err != nil {
		return answer{}, err
	}
	return v.scimOne(http.StatusOK, scim.Groups, m)
}

// scimGroupStill is the group, if it is as it was when a change was worked out.
func (v *visit) scimGroupStill(tx *store.Tx, id string, shown map[string]any) (*Group, error) {
	g, ok, err := fetch[*Group](tx, v.tenant, "group", id)
	if err != nil {
		return nil, err
	}
	if !ok || g.Origin != scimOrigin || g.Assignable {
		return nil, scimMissing("Groups", id)
	}
	m, err := v.s.scimShowGroup(tx, g)
	if err != nil {
		return nil, err
	}
	return g, v.checkMatch(shown, m)
}

func (v *visit) scimDeleteGroup() (answer, error) {
	g, shown, err := v.scimGroup()
	if err != nil {
		return answer{}, err
	}
	return done, v.change(func(tx *store.Tx) error {
		now, err := v.scimGroupStill(tx, g.ID, shown)
		if err != nil {
			return err
		}
		return v.s.remove(tx, now)
	})
}
