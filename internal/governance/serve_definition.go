package governance

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/rbac"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// What a custom role may have at most, as in Azure.
const (
	maxName     = 128  // bytes of a role's name
	maxPatterns = 2048 // action patterns
	maxScopes   = 2000 // assignable scopes
)

// patternForm is what an action pattern is made of.
var patternForm = regexp.MustCompile(`^(\*|[A-Za-z0-9.*_-]+(/[A-Za-z0-9.*_$-]+)+)$`)

// permission is one block of a role, as it is sent and answered.
type permission struct {
	Actions        []string `json:"actions"`
	NotActions     []string `json:"notActions"`
	DataActions    []string `json:"dataActions"`
	NotDataActions []string `json:"notDataActions"`
	Condition      *string  `json:"condition"`
	Version        *string  `json:"conditionVersion"`
}

// definitionBody is what a client may send of a role.
type definitionBody struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Type       string `json:"type"`
	Properties struct {
		Name        string       `json:"roleName"`
		Type        string       `json:"type" arm:"only=CustomRole"`
		Description string       `json:"description"`
		Scopes      []string     `json:"assignableScopes"`
		Permissions []permission `json:"permissions"`

		Service   any `json:"isServiceRole" arm:"readonly"`
		CreatedOn any `json:"createdOn" arm:"readonly"`
		CreatedBy any `json:"createdBy" arm:"readonly"`
		UpdatedOn any `json:"updatedOn" arm:"readonly"`
		UpdatedBy any `json:"updatedBy" arm:"readonly"`
	} `json:"properties"`
}

// read makes a role of the body, with the scopes parsed.
func (b *definitionBody) read(id arm.ID) (rbac.Role, []arm.ID, error) {
	p := &b.Properties
	r := rbac.Role{ID: key(id.Name()), Name: strings.TrimSpace(p.Name), Description: p.Description}
	if err := agrees(b.ID, b.Name, b.Type, id, definitionType); err != nil {
		return r, nil, err
	}
	switch {
	case r.Name == "" || len(r.Name) > maxName:
		return r, nil, arm.Errorf(arm.InvalidRequest, "properties.roleName is %d bytes long; it must have 1 to %d", len(r.Name), maxName)
	case len(r.Description) > maxText:
		return r, nil, arm.Errorf(arm.InvalidRequest, "properties.description is %d bytes long; at most %d are allowed", len(r.Description), maxText)
	case len(p.Permissions) == 0:
		return r, nil, arm.Errorf(arm.InvalidRequest, "properties.permissions must have a permission")
	case len(p.Scopes) == 0 || len(p.Scopes) > maxScopes:
		return r, nil, arm.Errorf(arm.InvalidRequest, "properties.assignableScopes has %d scopes; it must have 1 to %d", len(p.Scopes), maxScopes)
	}
	n := 0
	for _, x := range p.Permissions {
		if x.Condition != nil || x.Version != nil {
			return r, nil, arm.Errorf(arm.Unsupported, "properties.permissions has a condition; conditions are not evaluated yet")
		}
		for _, text := range slices.Concat(x.Actions, x.NotActions, x.DataActions, x.NotDataActions) {
			if n++; !patternForm.MatchString(text) {
				return r, nil, arm.Errorf("InvalidActionOrNotAction", "'%s' is not an action pattern such as Microsoft.KeyVault/vaults/*/read.", text)
			}
		}
		r.Permissions = append(r.Permissions, rbac.Permission{Actions: x.Actions, NotActions: x.NotActions, DataActions: x.DataActions, NotDataActions: x.NotDataActions})
	}
	if n > maxPatterns {
		return r, nil, arm.Errorf(arm.InvalidRequest, "properties.permissions has %d action patterns; at most %d are allowed", n, maxPatterns)
	}
	scopes, err := parseScopes(p.Scopes)
	return r, scopes, err
}

// parseScopes reads assignable scopes: management groups, subscriptions and
// resource groups, not a resource and not the root.
func parseScopes(texts []string) ([]arm.ID, error) {
	var out []arm.ID
	for _, text := range texts {
		id, err := arm.ParseID(strings.TrimSuffix(text, "/"))
		if err != nil {
			return nil, arm.Errorf(arm.InvalidRequest, "properties.assignableScopes has %q, which is not a management group, subscription or resource group", text)
		}
		group := strings.EqualFold(id.Type(), groupType)
		if !group && !isSubscription(id) && id.Key() != id.Group().Key() {
			return nil, arm.Errorf(arm.InvalidRequest, "properties.assignableScopes has %q; a custom role is assignable at management groups, subscriptions and resource groups", text)
		}
		out = append(out, id)
	}
	return out, nil
}

// writable is the GUID of the grant's role, if it can be a custom role's.
func (s *Service) writable(id arm.ID) (string, error) {
	guid := key(id.Name())
	if !guidForm.MatchString(guid) {
		return "", arm.Errorf("InvalidRoleDefinitionId", "The role definition ID '%s' is not valid. The role definition ID must be a GUID.", id.Name())
	}
	if r, ok := s.builtIn[guid]; ok {
		return "", &arm.Error{Code: "RoleDefinitionUpdateNotPermitted", Status: http.StatusForbidden, Message: fmt.Sprintf("'%s' is a built-in role, which can't be changed or deleted. Make a custom role with another ID.", r.Name)}
	}
	return guid, nil
}

// linked asks the gate for the action at every scope: who changes a role changes
// what its holders may do at all of them.
func (s *Service) linked(ctx context.Context, g gate.Grant, a arm.Action, scopes []arm.ID) error {
	for _, scope := range scopes {
		x, err := s.Gate.Admit(ctx, g.Caller(), a, gate.Target{ID: scope})
		if arm.CodeOf(err) == arm.WrongTenant {
			return arm.Errorf(arm.LinkedForbidden, "A role can't be assignable in another tenant, and the ID of a role can't be one that is in use there: choose another GUID, and scopes of the tenant %s.", g.Caller().Tenant)
		}
		if arm.CodeOf(err) == arm.Forbidden {
			return arm.Errorf(arm.LinkedForbidden, "The client with object id '%s' has permission to perform action '%s' at the scope of the request, but not at the assignable scope '%s'. A role can be changed only by who may do so at all of its assignable scopes.", g.Caller().Object, a.Name(), scope)
		}
		if err = x.Close(ctx, err); err != nil {
			return err
		}
	}
	return nil
}

// scopesOf are the assignable scopes of a custom role that is kept.
func scopesOf(d *definition) ([]arm.ID, error) {
	if d == nil {
		return nil, nil
	}
	return parseScopes(d.Role.AssignableScopes)
}

// kept is the custom role as the store has it, or nil, and its scopes.
func (s *Service) kept(ctx context.Context, guid string) (d *definition, scopes []arm.ID, err error) {
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		d, err = s.definition(tx, guid)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	scopes, err = scopesOf(d)
	return d, scopes, err
}

func (s *Service) putDefinition(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(WriteDefinition)
	if err != nil {
		return err
	}
	guid, err := s.writable(id)
	if err != nil {
		return err
	}
	data, err := resource.ReadBody(w, r)
	if err != nil {
		return err
	}
	var b definitionBody
	if err := arm.Decode(data, &b); err != nil {
		return err
	}
	role, scopes, err := b.read(id)
	if err != nil {
		return err
	}
	seen, had, err := s.kept(r.Context(), guid)
	if err != nil {
		return err
	}
	if err := s.linked(r.Context(), g, WriteDefinition, append(had, scopes...)); err != nil {
		return err
	}
	d := &definition{Role: role}
	err = g.Change(r.Context(), s.DB, func(tx *store.Tx) error {
		old, err := s.definition(tx, guid)
		if err != nil {
			return err
		}
		if !same(seen, old) {
			return arm.Errorf(arm.Conflict, "the role was changed by somebody else at the same time; try again")
		}
		return s.writeDefinition(tx, d, old, scopes, g.Caller())
	})
	if err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusCreated, d.show(id.Parent()))
	return nil
}

// same reports whether both are the same state of one role.
func same(a, b *definition) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.UpdatedOn.Equal(b.UpdatedOn) && slices.Equal(a.Role.AssignableScopes, b.Role.AssignableScopes)
}

// writeDefinition checks d, which is to be assignable at the scopes, against
// what there is, and keeps it.
func (s *Service) writeDefinition(tx *store.Tx, d, old *definition, scopes []arm.ID, by arm.Caller) error {
	for _, x := range scopes {
		at, err := s.scope(tx, x)
		if err != nil {
			return err
		}
		if isGroup(at) && hasData(d.Role) {
			return arm.Errorf("InvalidDataActionsAtManagementGroup", "A custom role with dataActions can't be assignable at the management group '%s'.", at)
		}
		d.Role.AssignableScopes = append(d.Role.AssignableScopes, at.String())
	}
	other, err := s.called(tx, d.Role)
	if err != nil {
		return err
	}
	if other != "" && other != d.Role.ID {
		return &arm.Error{Code: "RoleDefinitionWithSameNameExists", Status: http.StatusConflict, Message: fmt.Sprintf("A role with the name '%s' already exists in this directory. Use a different name.", d.Role.Name)}
	}
	d.UpdatedOn, d.UpdatedBy = s.Now().UTC(), by.Object
	d.CreatedOn, d.CreatedBy = d.UpdatedOn, d.UpdatedBy
	if old == nil {
		return s.keepDefinition(tx, d, nil)
	}
	d.CreatedOn, d.CreatedBy = old.CreatedOn, old.CreatedBy
	if err := s.changesAdmin(tx, old.Role, d.Role); err != nil {
		return err
	}
	if err := s.staysAssignable(tx, d.Role); err != nil {
		return err
	}
	return s.keepDefinition(tx, d, old)
}

// hasData reports whether the role speaks of data actions.
func hasData(r rbac.Role) bool {
	return slices.ContainsFunc(r.Permissions, func(p rbac.Permission) bool { return len(p.DataActions)+len(p.NotDataActions) > 0 })
}

// staysAssignable fails if the role is assigned where it may not be any more.
func (s *Service) staysAssignable(tx *store.Tx, r rbac.Role) error {
	all, err := ofRole(tx, r.ID)
	if err != nil {
		return err
	}
	for _, a := range all {
		if !s.assignable(r, a.Scope) {
			return arm.Errorf("RoleDefinitionHasAssignments", "The role is assigned at '%s', which properties.assignableScopes does not have any more. Delete the assignment first.", a.Scope)
		}
	}
	return nil
}

func (s *Service) deleteDefinition(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(DeleteDefinition)
	if err != nil {
		return err
	}
	guid, err := s.writable(id)
	if err != nil {
		return err
	}
	seen, had, err := s.kept(r.Context(), guid)
	if err != nil {
		return err
	}
	if err := s.linked(r.Context(), g, DeleteDefinition, had); err != nil {
		return err
	}
	err = g.Change(r.Context(), s.DB, func(tx *store.Tx) error {
		old, err := s.definition(tx, guid)
		if err != nil {
			return err
		}
		if !same(seen, old) {
			return arm.Errorf(arm.Conflict, "the role was changed by somebody else at the same time; try again")
		}
		if old == nil {
			return nil
		}
		all, err := ofRole(tx, guid)
		if err != nil {
			return err
		}
		if len(all) > 0 {
			return arm.Errorf("RoleDefinitionHasAssignments", "There are %d existing role assignments referencing the role. Delete them first.", len(all))
		}
		if rows, err := tx.Scan(index, "activable|"+guid+"|", "", 1); err != nil || len(rows) > 0 {
			return cmp.Or(err, error(arm.Errorf("RoleDefinitionHasAssignments", "Somebody is eligible for the role. Remove the eligibility first.")))
		}
		return s.forgetDefinition(tx, old)
	})
	if err != nil {
		return err
	}
	if seen == nil {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	gate.WriteJSON(w, http.StatusOK, seen.show(id.Parent()))
	return nil
}
