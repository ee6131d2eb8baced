package governance

import (
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/rbac"
	"castellan/internal/store"
)

// definitions is the table of custom roles, by GUID in lower case. The built-in
// ones are part of the program.
const definitions = "role_definitions"

// definition is a role as it is kept; of built-in ones only Role is set.
type definition struct {
	Role      rbac.Role `json:"role"`
	CreatedOn time.Time `json:"createdOn"`
	CreatedBy string    `json:"createdBy"`
	UpdatedOn time.Time `json:"updatedOn"`
	UpdatedBy string    `json:"updatedBy"`
}

// tenantsName is the row of index for the name of a custom role, which its
// tenant has once. All scopes that a role is assignable at are of one tenant.
func (s *Service) tenantsName(r rbac.Role) string {
	id, err := arm.ParseID(r.AssignableScopes[0])
	if err != nil {
		return "called||" + key(r.Name)
	}
	return "called|" + s.Site.TenantOf(id) + "|" + key(r.Name)
}

// roleGUID is the GUID in which a role's id ends.
func roleGUID(id string) string { return key(id[strings.LastIndexByte(id, '/')+1:]) }

// role is the role with this GUID, as the transaction sees it.
func (s *Service) role(tx *store.Tx, guid string) (rbac.Role, bool, error) {
	d, err := s.definition(tx, guid)
	if err != nil || d == nil {
		return rbac.Role{}, false, err
	}
	return d.Role, true, nil
}

// definition is the role with this GUID, or nil.
func (s *Service) definition(tx *store.Tx, guid string) (*definition, error) {
	if r, ok := s.builtIn[key(guid)]; ok {
		return &definition{Role: r}, nil
	}
	d, ok, err := store.GetJSON[definition](tx, definitions, key(guid))
	if err != nil || !ok {
		return nil, err
	}
	return &d, nil
}

// assignable reports whether the role can be assigned at the scope.
func (s *Service) assignable(r rbac.Role, at arm.ID) bool {
	for _, text := range r.AssignableScopes {
		if id, err := arm.ParseID(text); err == nil && s.within(at, id) {
			return true
		}
	}
	return false
}

// assignableBelow reports whether the role can be assigned somewhere in the scope.
func (s *Service) assignableBelow(r rbac.Role, scope arm.ID) bool {
	for _, text := range r.AssignableScopes {
		if id, err := arm.ParseID(text); err == nil && s.within(id, scope) {
			return true
		}
	}
	return false
}

// keepDefinition writes d in place of old, which is nil for a new role, and
// tells the engine after the commit.
func (s *Service) keepDefinition(tx *store.Tx, d, old *definition) error {
	if old != nil {
		if err := tx.Delete(index, s.tenantsName(old.Role)); err != nil {
			return err
		}
	}
	guid := key(d.Role.ID)
	if err := tx.Put(index, s.tenantsName(d.Role), []byte(guid)); err != nil {
		return err
	}
	r := d.Role
	tx.After(func() { s.Engine.PutRole(r) })
	return store.PutJSON(tx, definitions, guid, d)
}

// forgetDefinition removes a custom role, and tells the engine after the commit.
func (s *Service) forgetDefinition(tx *store.Tx, d *definition) error {
	if err := tx.Delete(index, s.tenantsName(d.Role)); err != nil {
		return err
	}
	guid := key(d.Role.ID)
	tx.After(func() { s.Engine.RemoveRole(guid) })
	return tx.Delete(definitions, guid)
}

// called is the GUID of the role that has r's name, or "".
func (s *Service) called(tx *store.Tx, r rbac.Role) (string, error) {
	if guid, ok := s.named[key(r.Name)]; ok {
		return guid, nil
	}
	guid, err := tx.Get(index, s.tenantsName(r))
	return string(guid), err
}
