package governance

import (
	"net/http"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/rbac"
	"castellan/internal/store"
)

// definitionID is the id of a role as seen from a scope: in the subscription of
// the scope, so that the ids in assignments and in lists of roles agree.
func definitionID(scope arm.ID, guid string) string {
	id := "/providers/" + definitionType + "/" + guid
	if sub := subscription(scope); !sub.IsZero() {
		return sub.String() + id
	}
	return id
}

// kind is the type of role that d is, as Azure calls it.
func (d *definition) kind() string {
	if d.Role.BuiltIn {
		return "BuiltInRole"
	}
	return "CustomRole"
}

// show is d as answers at the scope have it. When Azure made the built-in roles
// is not known, so that they have no times.
func (d *definition) show(scope arm.ID) map[string]any {
	props := map[string]any{
		"roleName": d.Role.Name, "type": d.kind(), "description": d.Role.Description,
		"assignableScopes": d.Role.AssignableScopes, "permissions": showPermissions(d.Role.Permissions),
		"createdOn": nil, "createdBy": nil, "updatedOn": nil, "updatedBy": nil,
	}
	if !d.Role.BuiltIn {
		props["createdOn"], props["createdBy"] = d.CreatedOn, d.CreatedBy
		props["updatedOn"], props["updatedBy"] = d.UpdatedOn, d.UpdatedBy
	}
	return map[string]any{"id": definitionID(scope, key(d.Role.ID)), "name": key(d.Role.ID), "type": definitionType, "properties": props}
}

func showPermissions(ps []rbac.Permission) []permission {
	out := make([]permission, len(ps))
	for i, p := range ps {
		out[i] = permission{Actions: some(p.Actions), NotActions: some(p.NotActions), DataActions: some(p.DataActions), NotDataActions: some(p.NotDataActions)}
		if p.Condition != "" {
			out[i].Condition, out[i].Version = &p.Condition, &p.ConditionVersion
		}
	}
	return out
}

// some is the list, [] rather than null when it is empty.
func some(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// sees reports whether the holder of a grant for the scope sees d there. Built-in
// roles are no secret. At the root custom roles are seen by whoever may read
// roles where they are assignable; elsewhere the grant itself says so.
func (s *Service) sees(g gate.Grant, d *definition, scope arm.ID) bool {
	if d.Role.BuiltIn || scope != arm.Root {
		return true
	}
	scopes, err := scopesOf(d)
	return err == nil && slices.ContainsFunc(scopes, func(at arm.ID) bool { return g.Sees(ReadDefinition, at) })
}

func (s *Service) getDefinition(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(ReadDefinition)
	if err != nil {
		return err
	}
	at := id.Parent()
	return s.DB.View(r.Context(), func(tx *store.Tx) error {
		d, err := s.definition(tx, id.Name())
		if err != nil {
			return err
		}
		if d == nil || !s.sees(g, d, at) || at != arm.Root && !s.assignable(d.Role, at) && !s.assignableBelow(d.Role, at) {
			return &arm.Error{Code: "RoleDefinitionDoesNotExist", Status: http.StatusNotFound, Message: "The specified role definition with ID '" + id.Name() + "' does not exist."}
		}
		gate.WriteJSON(w, http.StatusOK, d.show(at))
		return nil
	})
}

func (s *Service) listDefinitions(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	scope, err := g.On(ReadDefinition)
	if err != nil {
		return err
	}
	clauses, err := parseFilter(r.URL.Query().Get("$filter"), "atScopeAndBelow()", "atScope()", "roleName eq", "type eq")
	if err != nil {
		return err
	}
	return s.answerList(w, r, func(tx *store.Tx, add func(any)) error {
		if _, err := s.scope(tx, scope); err != nil {
			return err
		}
		all, err := s.allDefinitions(tx)
		for _, d := range all {
			if s.sees(g, d, scope) && s.listed(d, scope, clauses) {
				add(d.show(scope))
			}
		}
		return err
	})
}

// allDefinitions are all roles, the built-in ones first, by GUID.
func (s *Service) allDefinitions(tx *store.Tx) ([]*definition, error) {
	custom, err := store.ScanJSON[definition](tx, definitions, "", "", 0)
	if err != nil {
		return nil, err
	}
	out := make([]*definition, 0, len(s.builtIn)+len(custom))
	for _, r := range s.builtIn {
		out = append(out, &definition{Role: r})
	}
	slices.SortFunc(out, func(a, b *definition) int { return strings.Compare(a.Role.ID, b.Role.ID) })
	for i := range custom {
		out = append(out, &custom[i])
	}
	return out, nil
}

// listed reports whether a list at the scope has d: it can be assigned there,
// or below if a clause says so, and all other clauses hold. At the root there is
// everything.
func (s *Service) listed(d *definition, scope arm.ID, clauses []clause) bool {
	reach := scope == arm.Root || s.assignable(d.Role, scope)
	for _, c := range clauses {
		switch key(c.name) {
		case "atscopeandbelow()":
			reach = reach || s.assignableBelow(d.Role, scope)
		case "rolename eq":
			if !strings.EqualFold(c.value, d.Role.Name) {
				return false
			}
		case "type eq":
			if !strings.EqualFold(c.value, d.kind()) {
				return false
			}
		}
	}
	return reach
}

// listPermissions answers what the caller's roles at the scope and above allow.
// Nothing is decided by it.
func (s *Service) listPermissions(w http.ResponseWriter, _ *http.Request, g gate.Grant) error {
	scope, err := g.On(ReadPermissions)
	if err != nil {
		return err
	}
	list, seen := []permission{}, map[string]bool{}
	for _, a := range s.Engine.Considered(g.Caller(), ReadPermissions, scope) {
		role, ok := s.Engine.Role(a.RoleID)
		if !ok || seen[role.ID] || a.Condition != "" || !a.Holds(s.Now()) || a.Via != "" && !slices.Contains(g.Caller().Groups, a.Via) {
			continue
		}
		seen[role.ID] = true
		list = append(list, showPermissions(role.Permissions)...)
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{"value": list})
	return nil
}
