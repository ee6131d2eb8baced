package identity

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/store"
)

// roleTable has one row for each directory role of each principal, under
// tenant|principal|role.
const roleTable = "directory_role_assignments"

// oldRoleTable is where the one role that there was at first was kept, under
// tenant|principal.
const oldRoleTable = "directory_roles"

// RoleAssignment says that a principal has a directory role.
type RoleAssignment struct {
	Tenant, Principal, Role string
	Created                 time.Time
	Until                   time.Time // zero: without end
}

func (r *RoleAssignment) key() string { return r.Tenant + "|" + r.Principal + "|" + r.Role }

// lives reports whether the assignment counts at now.
func (r *RoleAssignment) lives(now time.Time) bool {
	return r.Until.IsZero() || now.Before(r.Until)
}

// id is the assignment's name for clients: role and principal, which nothing
// else has both of.
func (r *RoleAssignment) id() string {
	role, _ := hex.DecodeString(strings.ReplaceAll(r.Role, "-", ""))
	principal, _ := hex.DecodeString(strings.ReplaceAll(r.Principal, "-", "")) // both are GUIDs
	return base64.RawURLEncoding.EncodeToString(append(role, principal...)) + "-1"
}

// roleOfID is the role and the principal that an assignment's id names.
func roleOfID(id string) (role, principal string, ok bool) {
	text, end := strings.CutSuffix(id, "-1")
	b, err := base64.RawURLEncoding.DecodeString(text)
	if !end || err != nil || len(b) != 32 {
		return "", "", false
	}
	return guid(b[:16]), guid(b[16:]), true
}

func guid(b []byte) string {
	h := hex.EncodeToString(b)
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}

// empower gives a principal a directory role.
func (s *Service) empower(tx *store.Tx, r RoleAssignment) error {
	tx.After(func() { s.index.empower(&r) })
	return store.PutJSON(tx, roleTable, r.key(), &r)
}

// disempower takes a directory role from a principal.
func (s *Service) disempower(tx *store.Tx, tenant, principal, role string) error {
	tx.After(func() { s.index.disempower(principal, role) })
	return tx.Delete(roleTable, tenant+"|"+principal+"|"+role)
}

// dropRoles takes all directory roles from a principal that goes.
func (s *Service) dropRoles(tx *store.Tx, tenant, principal string) error {
	all, err := store.ScanJSON[*RoleAssignment](tx, roleTable, tenant+"|"+principal+"|", "", 0)
	if err != nil {
		return err
	}
	for _, r := range all {
		if err := s.disempower(tx, tenant, principal, r.Role); err != nil {
			return err
		}
	}
	return nil
}

// checkHolder says whether a principal can be given a directory role.
func (s *Service) checkHolder(tx *store.Tx, tenant, principal string) error {
	kind, ok, err := s.Principal(tx, tenant, principal)
	if err != nil {
		return err
	}
	if ok && kind == arm.Group {
		g, _, err := fetch[*Group](tx, tenant, "group", principal)
		if err != nil {
			return err
		}
		ok = g.Assignable
	}
	if !ok {
		return arm.Errorf(arm.BadRequest, "The principal %s does not exist in the tenant, or is a group for which isAssignableToRole is not true.", printable(principal))
	}
	return nil
}

// lastAdmin refuses what would leave the tenant without an enabled Global
// Administrator: nobody could ever make another. Only those count that have the
// role themselves and without end.
func (s *Service) lastAdmin(tx *store.Tx, tenant, without string) error {
	is, err := tx.Get(roleTable, tenant+"|"+without+"|"+globalAdministrator)
	if err != nil || is == nil {
		return err
	}
	all, err := store.ScanJSON[*RoleAssignment](tx, roleTable, tenant+"|", "", 0)
	if err != nil {
		return err
	}
	for _, r := range all {
		if r.Role != globalAdministrator || r.Principal == without || !r.Until.IsZero() {
			continue
		}
		u, ok, err := fetch[*User](tx, tenant, "user", r.Principal)
		if err != nil {
			return err
		}
		if ok && !u.Disabled {
			return nil
		}
		p, ok, err := fetch[*Principal](tx, tenant, "sp", r.Principal)
		if err != nil {
			return err
		}
		if ok && !p.Disabled {
			return nil
		}
	}
	return arm.Errorf(arm.BadRequest, "This is the last enabled administrator of the directory; make another first.")
}

// migrateRoles carries over who had the one role that there was at first.
func (s *Service) migrateRoles(tx *store.Tx) error {
	rows, err := tx.Scan(oldRoleTable, "", "", 0)
	if err != nil {
		return err
	}
	for _, row := range rows {
		tenant, principal, ok := strings.Cut(row.Key, "|")
		if !ok || !bytes.Equal(row.Value, []byte{}) {
			continue
		}
		if err := s.empower(tx, RoleAssignment{Tenant: tenant, Principal: principal, Role: globalAdministrator, Created: s.Now().UTC()}); err != nil {
			return err
		}
		if err := tx.Delete(oldRoleTable, row.Key); err != nil {
			return err
		}
	}
	return nil
}

// sweepRoles forgets directory roles whose time has passed.
func (s *Service) sweepRoles(tx *store.Tx, now time.Time) error {
	all, err := store.ScanJSON[*RoleAssignment](tx, roleTable, "", "", 0)
	if err != nil {
		return err
	}
	for _, r := range all {
		if r.lives(now) {
			continue
		}
		if err := s.disempower(tx, r.Tenant, r.Principal, r.Role); err != nil {
			return err
		}
	}
	return nil
}
