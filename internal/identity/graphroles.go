package identity

import (
	"net/http"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

func (s *Service) roleDoors() []gate.Route {
	const at = "rolemanagement/directory/"
	return []gate.Route{
		s.door(readDirectory, "GET "+at+"roledefinitions", func(v *visit) (answer, error) {
			return v.list("roleManagement/directory/roleDefinitions", []map[string]any{{"id": globalAdministrator, "templateId": globalAdministrator, "displayName": "Global Administrator",
				"description": "Can manage all aspects of the directory.", "isBuiltIn": true, "isEnabled": true,
				"rolePermissions": []any{map[string]any{"allowedResourceActions": []string{"microsoft.directory/*"}}}}})
		}),
		s.door(readDirectory, "GET "+at+"roleassignments", (*visit).listRoles),
		s.door(assignRole, "POST "+at+"roleassignments", (*visit).assignRole),
		s.door(assignRole, "DELETE "+at+"roleassignments/{id}", (*visit).unassignRole),
	}
}

// showRole is a role assignment. There is one role, so that a principal's
// assignment goes by the principal's id.
func showRole(principal string) map[string]any {
	return map[string]any{"id": principal, "principalId": principal, "roleDefinitionId": globalAdministrator, "directoryScopeId": "/"}
}

func (v *visit) listRoles() (answer, error) {
	rows := find(v.s.index, func(x *index) (out []map[string]any) {
		for id := range x.admins {
			if u := x.users[id]; u != nil && u.Tenant == v.tenant {
				out = append(out, showRole(id))
			}
			if p := x.sps[id]; p != nil && p.Tenant == v.tenant {
				out = append(out, showRole(id))
			}
		}
		return out
	})
	return v.list("roleManagement/directory/roleAssignments", rows)
}

func (v *visit) assignRole() (answer, error) {
	var b struct {
		Principal string `json:"principalId"`
		Role      string `json:"roleDefinitionId"`
		Scope     string `json:"directoryScopeId"`
		Type      any    `json:"@odata.type"`
	}
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	if !strings.EqualFold(b.Role, globalAdministrator) || b.Scope != "/" {
		return answer{}, arm.Errorf(arm.BadRequest, "The only directory role is Global Administrator, %s, at the directoryScopeId /.", globalAdministrator)
	}
	id := fold(b.Principal)
	err := v.change(func(tx *store.Tx) error {
		kind, ok, err := v.s.Principal(tx, v.tenant, id)
		if err != nil {
			return err
		}
		if !ok || kind == arm.Group {
			return arm.Errorf(arm.BadRequest, "The principal %s does not exist in the tenant, or is a group, which can't have a directory role.", printable(b.Principal))
		}
		return v.s.empower(tx, v.tenant, id, true)
	})
	if err != nil {
		return answer{}, err
	}
	return v.one(http.StatusCreated, "roleManagement/directory/roleAssignments", showRole(id))
}

func (v *visit) unassignRole() (answer, error) {
	id := fold(v.seg(3))
	return done, v.change(func(tx *store.Tx) error {
		has, err := tx.Get(roleTable, v.tenant+"|"+id)
		if err != nil {
			return err
		}
		if has == nil {
			return missing("roleAssignment", id)
		}
		if err := v.s.lastAdmin(tx, v.tenant, id); err != nil {
			return err
		}
		return v.s.empower(tx, v.tenant, id, false)
	})
}

// lastAdmin refuses what would leave the tenant without an enabled
// administrator: nobody could ever make another.
func (s *Service) lastAdmin(tx *store.Tx, tenant, without string) error {
	is, err := tx.Get(roleTable, tenant+"|"+without)
	if err != nil || is == nil {
		return err
	}
	rows, err := tx.Scan(roleTable, tenant+"|", "", 0)
	if err != nil {
		return err
	}
	for _, r := range rows {
		id := r.Key[len(tenant)+1:]
		if id == without {
			continue
		}
		u, ok, err := fetch[*User](tx, tenant, "user", id)
		if err != nil {
			return err
		}
		if ok && !u.Disabled {
			return nil
		}
		p, ok, err := fetch[*Principal](tx, tenant, "sp", id)
		if err != nil {
			return err
		}
		if ok && !p.Disabled {
			return nil
		}
	}
	return arm.Errorf(arm.BadRequest, "This is the last enabled administrator of the directory; make another first.")
}

// keyDoors are the platform's own: Entra lets nobody at the keys that sign its
// tokens, but here an administrator is who turns them.
func (s *Service) keyDoors() []gate.Route {
	return []gate.Route{
		s.door(readKeys, "GET signingkeys", func(v *visit) (answer, error) {
			var rows []map[string]any
			for _, k := range s.keys.all(s.Now()) {
				m := map[string]any{"id": k.KID, "class": k.Class, "state": k.State, "createdDateTime": stamp(k.Created), "endDateTime": nil}
				if !k.Until.IsZero() {
					m["endDateTime"] = stamp(k.Until)
				}
				rows = append(rows, m)
			}
			return v.list("signingKeys", rows)
		}),
		s.door(rotateKeys, "POST signingkeys/rotate", func(v *visit) (answer, error) {
			var b struct {
				Class  string `json:"class"`
				Retain bool   `json:"retain"`
			}
			if err := v.body(&b); err != nil {
				return answer{}, err
			}
			if !v.home() {
				return answer{}, arm.Errorf(arm.Forbidden, "The keys are the home tenant's to turn.")
			}
			kid, err := s.rotate(class(b.Class), b.Retain, v.change)
			if err != nil {
				return answer{}, err
			}
			return answer{http.StatusOK, map[string]any{"id": kid, "class": b.Class, "state": currentKey}}, nil
		}),
		s.door(retireKeys, "DELETE signingkeys/{class}/{id}", func(v *visit) (answer, error) {
			if !v.home() {
				return answer{}, arm.Errorf(arm.Forbidden, "The keys are the home tenant's to turn.")
			}
			return done, v.change(func(tx *store.Tx) error { return s.keys.retire(tx, class(v.seg(1)), v.seg(2)) })
		}),
	}
}

// home reports whether the caller is of the home tenant; others share the keys
// but do not turn them.
func (v *visit) home() bool { return v.tenant == v.s.Home() }

// rotate lets the next key of a class sign.
func (s *Service) rotate(c class, retain bool, change func(func(*store.Tx) error) error) (kid string, err error) {
	if !slices.Contains([]class{accessClass, idClass}, c) {
		return "", arm.Errorf(arm.BadRequest, "class must be access or id.")
	}
	s.keys.turn.Lock()
	defer s.keys.turn.Unlock()
	now := s.Now()
	next, after, err := s.keys.prepared(c, now)
	if err != nil {
		return "", err
	}
	return next.KID, change(func(tx *store.Tx) error { return s.keys.rotate(tx, next, after, now, retain) })
}
