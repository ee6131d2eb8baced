package identity

import (
	"net/http"
	"slices"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

func (s *Service) roleDoors() []gate.Route {
	const at = "rolemanagement/directory/"
	return []gate.Route{
		s.door(readRoles, "GET "+at+"roledefinitions", func(v *visit) (answer, error) {
			return v.list("roleManagement/directory/roleDefinitions", shownRoles((*holder).showDefinition))
		}),
		s.door(readRoles, "GET "+at+"roledefinitions/{id}", func(v *visit) (answer, error) {
			return v.oneRole(v.seg(3), "roleManagement/directory/roleDefinitions", (*holder).showDefinition)
		}),
		s.door(readRoles, "GET "+at+"roleassignments", (*visit).listAssignments),
		s.door(readRoles, "GET "+at+"roleassignments/{id}", (*visit).readAssignment),
		s.door(assignRole, "POST "+at+"roleassignments", (*visit).assignRole),
		s.door(assignRole, "DELETE "+at+"roleassignments/{id}", (*visit).unassignRole),
		s.door(readRoles, "GET directoryroletemplates", func(v *visit) (answer, error) {
			return v.list("directoryRoleTemplates", shownRoles((*holder).showTemplate))
		}),
		s.door(readRoles, "GET directoryroletemplates/{id}", func(v *visit) (answer, error) {
			return v.oneRole(v.seg(1), "directoryRoleTemplates", (*holder).showTemplate)
		}),
		s.door(readRoles, "GET directoryroles", func(v *visit) (answer, error) {
			return v.list("directoryRoles", shownRoles((*holder).showRole))
		}),
		s.door(readRoles, "GET directoryroles/{id}", func(v *visit) (answer, error) {
			return v.oneRole(v.seg(1), "directoryRoles", (*holder).showRole)
		}),
		s.door(readRoles, "GET directoryroles/{id}/members", (*visit).roleMembers),
		s.door(assignRole, "POST directoryroles/{id}/members/$ref", (*visit).addRoleMember),
		s.door(assignRole, "DELETE directoryroles/{id}/members/{member}/$ref", (*visit).removeRoleMember),
	}
}

func (h *holder) showDefinition() map[string]any {
	return map[string]any{"id": h.id, "templateId": h.id, "displayName": h.name, "description": h.doc, "isBuiltIn": true, "isEnabled": true, "version": "1",
		"resourceScopes": []string{"/"}, "rolePermissions": []any{map[string]any{"allowedResourceActions": h.actions, "condition": nil}}}
}

func (h *holder) showTemplate() map[string]any {
	return map[string]any{"id": h.id, "displayName": h.name, "description": h.doc, "deletedDateTime": nil}
}

// showRole is the role as one that the tenant has activated: all are, and go by
// the ids of their templates.
func (h *holder) showRole() map[string]any {
	return map[string]any{"id": h.id, "roleTemplateId": h.id, "displayName": h.name, "description": h.doc, "deletedDateTime": nil}
}

func shownRoles(show func(*holder) map[string]any) (out []map[string]any) {
	for _, h := range book.roles {
		out = append(out, show(h))
	}
	return out
}

// role is the directory role with this template id.
func (v *visit) role(id string) (*holder, error) {
	h := book.byID[fold(id)]
	if h == nil {
		return nil, missing("directoryRole", id)
	}
	return h, nil
}

func (v *visit) oneRole(id, class string, show func(*holder) map[string]any) (answer, error) {
	h, err := v.role(id)
	if err != nil {
		return answer{}, err
	}
	return v.one(http.StatusOK, class, show(h))
}

func (r *RoleAssignment) show() map[string]any {
	return map[string]any{"id": r.id(), "principalId": r.Principal, "roleDefinitionId": r.Role, "directoryScopeId": "/", "appScopeId": nil, "principalOrganizationId": r.Tenant}
}

// assignments are the assignments of the tenant that count now.
func (v *visit) assignments() (out []*RoleAssignment) {
	now := v.s.Now()
	return find(v.s.index, func(x *index) []*RoleAssignment {
		for _, m := range x.roles {
			for _, r := range m {
				if r.Tenant == v.tenant && r.lives(now) {
					out = append(out, r)
				}
			}
		}
		return out
	})
}

func (v *visit) listAssignments() (answer, error) {
	var rows []map[string]any
	for _, r := range v.assignments() {
		rows = append(rows, r.show())
	}
	return v.list("roleManagement/directory/roleAssignments", rows)
}

// assignment is the one with this id.
func (v *visit) assignment(id string) (*RoleAssignment, error) {
	role, principal, ok := roleOfID(id)
	if ok {
		for _, r := range v.assignments() {
			if r.Role == role && r.Principal == principal {
				return r, nil
			}
		}
	}
	return nil, missing("roleAssignment", id)
}

func (v *visit) readAssignment() (answer, error) {
	r, err := v.assignment(v.seg(3))
	if err != nil {
		return answer{}, err
	}
	return v.one(http.StatusOK, "roleManagement/directory/roleAssignments", r.show())
}

func (v *visit) assignRole() (answer, error) {
	var b struct {
		Principal     string `json:"principalId"`
		Role          string `json:"roleDefinitionId"`
		Scope         string `json:"directoryScopeId"`
		Justification any    `json:"justification"`
		Type          any    `json:"@odata.type"`
	}
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	if b.Scope != "/" {
		return answer{}, arm.Errorf(arm.BadRequest, "directoryScopeId is %s; it must be /: roles are given for the whole directory.", printable(b.Scope))
	}
	h := book.byID[fold(b.Role)]
	if h == nil {
		return answer{}, arm.Errorf(arm.BadRequest, "roleDefinitionId is %s, which is no directory role; roleManagement/directory/roleDefinitions lists them.", printable(b.Role))
	}
	r, err := v.empower(h, fold(b.Principal))
	if err != nil {
		return answer{}, err
	}
	return v.one(http.StatusCreated, "roleManagement/directory/roleAssignments", r.show())
}

func (v *visit) empower(h *holder, principal string) (RoleAssignment, error) {
	r := RoleAssignment{Tenant: v.tenant, Principal: principal, Role: h.id, Created: v.s.Now().UTC()}
	return r, v.change(func(tx *store.Tx) error {
		if err := v.s.checkHolder(tx, v.tenant, principal); err != nil {
			return err
		}
		old, ok, err := store.GetJSON[*RoleAssignment](tx, roleTable, r.key())
		if err != nil {
			return err
		}
		if ok && old.Until.IsZero() {
			return arm.Errorf(arm.BadRequest, "A conflicting object with one or more of the specified property values is present in the directory: the principal has the role already.")
		}
		return v.s.empower(tx, r)
	})
}

func (v *visit) unassignRole() (answer, error) {
	r, err := v.assignment(v.seg(3))
	if err != nil {
		return answer{}, err
	}
	return done, v.disempower(r.Role, r.Principal)
}

func (v *visit) disempower(role, principal string) error {
	return v.change(func(tx *store.Tx) error {
		has, err := tx.Get(roleTable, v.tenant+"|"+principal+"|"+role)
		if err != nil {
			return err
		}
		if has == nil {
			return missing("roleAssignment", principal)
		}
		if role == globalAdministrator {
			if err := v.s.lastAdmin(tx, v.tenant, principal); err != nil {
				return err
			}
		}
		return v.s.disempower(tx, v.tenant, principal, role)
	})
}

func (v *visit) roleMembers() (answer, error) {
	h, err := v.role(v.seg(1))
	if err != nil {
		return answer{}, err
	}
	var rows []map[string]any
	for _, r := range v.assignments() {
		if m := v.s.index.shown(v.tenant, r.Principal); m != nil && r.Role == h.id {
			rows = append(rows, m)
		}
	}
	return v.list("directoryObjects", rows)
}

func (v *visit) addRoleMember() (answer, error) {
	id, err := v.reference()
	if err != nil {
		return answer{}, err
	}
	h, err := v.role(v.seg(1))
	if err != nil {
		return answer{}, err
	}
	_, err = v.empower(h, id)
	return done, err
}

func (v *visit) removeRoleMember() (answer, error) {
	h, err := v.role(v.seg(1))
	if err != nil {
		return answer{}, err
	}
	return done, v.disempower(h.id, fold(v.seg(3)))
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
