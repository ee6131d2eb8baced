package governance

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/rbac"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// Assignments lie under the keys of their ids, so that those at or below a scope
// are neighbours. index finds them by what else makes one out:
//
//	name|GUID                     the name, of which the tenant has one
//	held|PRINCIPAL|ROLE|SCOPE     what it gives, which nothing else gives too
//	role|ROLE|GUID                the role
//	called|TENANT|ROLE NAME       a custom role's GUID
const (
	assignments = "role_assignments"
	index       = "role_index"
)

// assignment is a role assignment as it is kept. Role and Principal are GUIDs
// in lower case.
type assignment struct {
	ID          arm.ID    `json:"id"`
	Scope       arm.ID    `json:"scope"`
	Role        string    `json:"role"`
	Principal   string    `json:"principal"`
	Kind        arm.Kind  `json:"kind"`
	Description string    `json:"description,omitempty"`
	Condition   string    `json:"condition,omitempty"`
	Version     string    `json:"conditionVersion,omitempty"`
	CreatedOn   time.Time `json:"createdOn"`
	CreatedBy   string    `json:"createdBy"`
	UpdatedOn   time.Time `json:"updatedOn"`
	UpdatedBy   string    `json:"updatedBy"`
	Tenant      string    `json:"tenant,omitempty"` // whose it is; "" in old rows: the home tenant's

	// NotBefore and NotAfter are when it gives anything; zero is no bound.
	NotBefore time.Time `json:"notBefore,omitzero"`
	NotAfter  time.Time `json:"notAfter,omitzero"`
	Eligible  string    `json:"eligible,omitempty"` // name of the eligibility that was activated
	Via       string    `json:"via,omitempty"`      // the group that is eligible, if it is one
	Request   arm.ID    `json:"request,omitzero"`   // what made it, if a request did
}

func (a *assignment) forEngine() rbac.Assignment {
	return a.timed(rbac.Assignment{ID: a.ID.String(), Scope: a.Scope, RoleID: a.Role, Principal: a.Principal, PrincipalType: a.Kind, Condition: a.Condition, ConditionVersion: a.Version})
}

func (a *assignment) name() string { return key(a.ID.Name()) }
func (a *assignment) held() string {
	return "held|" + a.Principal + "|" + a.Role + "|" + a.Scope.Key()
}
func (a *assignment) ofRole() string { return "role|" + a.Role + "|" + a.name() }

// rows are where the index has a.
func (a *assignment) rows() []string {
	out := []string{"name|" + a.name(), a.held(), a.ofRole()}
	if a.Eligible != "" {
		out = append(out, "activated|"+a.Eligible+"|"+a.name())
	}
	return out
}

// assignmentID is the id of an assignment at a scope.
func assignmentID(scope arm.ID, name string) arm.ID { return itemID(scope, assignmentType, name) }

// itemID is the id of something of the type at a scope.
func itemID(scope arm.ID, typ, name string) arm.ID {
	if scope == arm.Root {
		return arm.MustID("/providers/" + typ + "/" + name)
	}
	return scope.Child(typ, name)
}

// load is the assignment under the key of an id, or nil.
func load(tx *store.Tx, k string) (*assignment, error) {
	a, ok, err := store.GetJSON[assignment](tx, assignments, k)
	if err != nil || !ok {
		return nil, err
	}
	return &a, nil
}

// indexed is the assignment that index has under k, or nil.
func indexed(tx *store.Tx, k string) (*assignment, error) {
	at, err := tx.Get(index, k)
	if err != nil || at == nil {
		return nil, err
	}
	return load(tx, string(at))
}

// held are all assignments to the principal itself.
func held(tx *store.Tx, principal string) ([]*assignment, error) {
	return throughIndex(tx, "held|"+key(principal)+"|")
}

// ofRole are all assignments of the role.
func ofRole(tx *store.Tx, role string) ([]*assignment, error) {
	return throughIndex(tx, "role|"+role+"|")
}

func throughIndex(tx *store.Tx, prefix string) ([]*assignment, error) {
	rows, err := tx.Scan(index, prefix, "", 0)
	if err != nil {
		return nil, err
	}
	out := make([]*assignment, 0, len(rows))
	for _, r := range rows {
		a, err := load(tx, string(r.Value))
		if err != nil {
			return nil, err
		}
		if a == nil {
			return nil, fmt.Errorf("governance: the index names the assignment %s, which is not there", r.Value)
		}
		out = append(out, a)
	}
	return out, nil
}

// keep writes a, and tells the engine of it after the commit.
func (s *Service) keep(tx *store.Tx, a *assignment) error {
	k := a.ID.Key()
	for _, row := range a.rows() {
		if err := tx.Put(index, row, []byte(k)); err != nil {
			return err
		}
	}
	x := a.forEngine()
	tx.After(func() { _ = s.Engine.PutAssignment(x) }) // it refuses only what check did not let through
	return store.PutJSON(tx, assignments, k, a)
}

// forget removes a, and tells the engine after the commit.
func (s *Service) forget(tx *store.Tx, a *assignment) error {
	for _, row := range a.rows() {
		if err := tx.Delete(index, row); err != nil {
			return err
		}
	}
	id := a.ID.String()
	tx.After(func() { s.Engine.RemoveAssignment(id) })
	return tx.Delete(assignments, a.ID.Key())
}

// Assign gives a role to a principal at a scope, in the transaction of whatever
// it belongs to, and does nothing if that is so already. The scope may be made
// in the same transaction; role and principal must be there. a.ID may be empty.
// Whoever calls it has passed the gate for WriteAssignment at the scope, or is
// the first start.
func (s *Service) Assign(tx *store.Tx, a rbac.Assignment, by arm.Caller) error {
	if a.Scope.IsZero() || a.Principal == "" || a.Condition != "" {
		return arm.Errorf(arm.InvalidRequest, "an assignment needs a scope and a principal, and must have no condition")
	}
	x := &assignment{Scope: a.Scope, Role: roleGUID(a.RoleID), Principal: key(a.Principal), Kind: a.PrincipalType, Tenant: s.tenantOf(a.Scope, by)}
	name := arm.NewUUID()
	if n := a.ID[strings.LastIndexByte(a.ID, '/')+1:]; n != "" {
		name = n
	}
	x.ID = assignmentID(a.Scope, name)
	old, err := indexed(tx, x.held())
	if err != nil || old != nil && old.NotBefore.IsZero() && old.NotAfter.IsZero() {
		return err
	}
	if err := s.check(tx, x); err != nil {
		return err
	}
	if old != nil { // it would end
		if err := s.forget(tx, old); err != nil {
			return err
		}
	}
	if old, err = indexed(tx, "name|"+x.name()); err != nil {
		return err
	}
	if old != nil {
		return s.taken(old, x)
	}
	s.stamp(x, by)
	return s.keep(tx, x)
}

// Unassign takes the role from the principal at the scope, if it was given
// there; only a.Principal, a.RoleID and a.Scope count.
func (s *Service) Unassign(tx *store.Tx, a rbac.Assignment) error {
	x := &assignment{Scope: a.Scope, Role: roleGUID(a.RoleID), Principal: key(a.Principal)}
	old, err := indexed(tx, x.held())
	if err != nil || old == nil {
		return err
	}
	return s.release(tx, old)
}

// release forgets a, unless nobody could give roles at its subscription then.
func (s *Service) release(tx *store.Tx, a *assignment) error {
	if err := s.keepsAdmin(tx, a.Scope, a.ID); err != nil {
		return err
	}
	return s.forget(tx, a)
}

// DropScope forgets every assignment and lock at the resource or below it. It is one of
// resource.Server's OnRemove: who makes a resource of the same name anew does
// not meet the rights that others had on the old one.
func (s *Service) DropScope(tx *store.Tx, d *resource.Doc) error {
	found, err := below(tx, d.ID)
	if err != nil {
		return err
	}
	for _, a := range found {
		if err := s.forget(tx, a); err != nil {
			return err
		}
	}
	if err := errors.Join(dropLocks(tx, d.ID), s.dropDenials(tx, d.ID)); err != nil {
		return err
	}
	return s.dropEligibilities(tx, d.ID)
}

// DropPrincipal forgets every assignment to the principal, in the transaction
// that deletes it. It fails when the principal is the last that can give roles
// at a subscription.
func (s *Service) DropPrincipal(tx *store.Tx, id string) error {
	if err := s.dropEligible(tx, id); err != nil {
		return err
	}
	found, err := held(tx, id)
	if err != nil {
		return err
	}
	for _, a := range found {
		if err := s.release(tx, a); err != nil {
			return err
		}
	}
	return nil
}

// For lists what was given to the principal itself, not to its groups.
func (s *Service) For(principal string) []rbac.Assignment { return s.Engine.Held(principal) }

// below are the assignments at the scope and at all that lies in it.
func below(tx *store.Tx, scope arm.ID) ([]*assignment, error) {
	return scan(tx, strings.TrimSuffix(scope.Key(), "/")+"/")
}

// exactly are the assignments at the scope of this key.
func exactly(tx *store.Tx, scopeKey string) ([]*assignment, error) {
	return scan(tx, strings.TrimSuffix(scopeKey, "/")+"/providers/"+strings.ToLower(assignmentType)+"/")
}

func scan(tx *store.Tx, prefix string) ([]*assignment, error) {
	found, err := store.ScanJSON[assignment](tx, assignments, prefix, "", 0)
	if err != nil {
		return nil, err
	}
	out := make([]*assignment, len(found))
	for i := range found {
		out[i] = &found[i]
	}
	return out, nil
}

// check says whether a may be: the role exists and can be assigned there, and
// the principal exists and is what a says it is. It fills in the kind.
func (s *Service) check(tx *store.Tx, a *assignment) error {
	r, ok, err := s.role(tx, a.Role)
	if err != nil {
		return err
	}
	if !ok || !s.assignable(r, a.Scope) {
		return arm.Errorf("RoleDefinitionDoesNotExist", "The specified role definition with ID '%s' does not exist, or can't be assigned at the scope '%s'.", a.Role, a.Scope)
	}
	kind, ok, err := s.Directory.Principal(tx, a.Tenant, a.Principal)
	if err != nil {
		return err
	}
	if !ok {
		return arm.Errorf("PrincipalNotFound", "Principal %s does not exist in the directory %s. Check that you have the correct principal ID: the object ID of a user, group or service principal, not an application's.", a.Principal, a.Tenant)
	}
	if a.Kind != "" && a.Kind != kind {
		return arm.Errorf("UnmatchedPrincipalType", "The PrincipalId '%s' has type '%s', which is different from the specified PrincipalType '%s'.", a.Principal, kind, a.Kind)
	}
	a.Kind = kind
	return nil
}

// stamp says who made or changed a.
func (s *Service) stamp(a *assignment, by arm.Caller) {
	a.UpdatedOn, a.UpdatedBy = s.Now().UTC(), by.Object
	if a.CreatedOn.IsZero() {
		a.CreatedOn, a.CreatedBy = a.UpdatedOn, a.UpdatedBy
	}
}

// owner is whose assignment a is.
func (s *Service) owner(a *assignment) string {
	if a.Tenant == "" {
		return s.Site.Tenant
	}
	return a.Tenant
}

// taken is the error that next can't have the name of old. Of another tenant's
// assignment nothing is told.
func (s *Service) taken(old, next *assignment) error {
	if s.owner(old) == s.owner(next) {
		return exists(old)
	}
	return arm.Errorf(arm.Conflict, "The role assignment name %s can't be used. Choose another GUID.", next.ID.Name())
}

func exists(old *assignment) error {
	return &arm.Error{Code: "RoleAssignmentExists", Status: http.StatusConflict,
		Message: fmt.Sprintf("The role assignment already exists. The ID of the existing role assignment is %s.", strings.ReplaceAll(old.name(), "-", ""))}
}

func notFound(format string, args ...any) error {
	return &arm.Error{Code: "NotFound", Status: http.StatusNotFound, Message: fmt.Sprintf(format, args...)}
}
