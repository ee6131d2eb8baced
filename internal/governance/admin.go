package governance

import (
	"net/http"

	"castellan/internal/arm"
	"castellan/internal/rbac"
	"castellan/internal/store"
)

// keepsAdmin fails if the assignment of this id is the last at a subscription
// whose role gives roles: nobody could repair the subscription then. Those of
// the management group above do not count, as in Azure.
func (s *Service) keepsAdmin(tx *store.Tx, scope, id arm.ID) error {
	if !isSubscription(scope) {
		return nil
	}
	all, err := exactly(tx, scope.Key())
	if err != nil {
		return err
	}
	last, others := false, false
	for _, a := range all {
		r, ok, err := s.role(tx, a.Role)
		if err != nil {
			return err
		}
		if !ok || !r.Allows(WriteAssignment) || !s.lasting(a) {
			continue // what ends keeps nobody administrator
		}
		last = last || a.ID.Key() == id.Key()
		others = others || a.ID.Key() != id.Key()
	}
	if !last || others {
		return nil
	}
	return &arm.Error{Code: "CannotDeleteLastRbacAdminAssignment", Status: http.StatusPreconditionFailed,
		Message: "Cannot delete the last RBAC admin assignment: nobody could give roles at this subscription any more. Make another principal Owner of it first."}
}

// lasting reports whether a holds now and always will, whatever is asked.
func (s *Service) lasting(a *assignment) bool {
	return a.NotAfter.IsZero() && a.Condition == "" && s.holds(a)
}

// changesAdmin is keepsAdmin for a role that is about to become next.
func (s *Service) changesAdmin(tx *store.Tx, old, next rbac.Role) error {
	if !old.Allows(WriteAssignment) || next.Allows(WriteAssignment) {
		return nil
	}
	all, err := ofRole(tx, key(old.ID))
	if err != nil {
		return err
	}
	for _, a := range all {
		if err := s.othersAdmin(tx, a.Scope, key(old.ID)); err != nil {
			return err
		}
	}
	return nil
}

// othersAdmin fails if only assignments of this role give roles at the subscription.
func (s *Service) othersAdmin(tx *store.Tx, scope arm.ID, role string) error {
	if !isSubscription(scope) {
		return nil
	}
	all, err := exactly(tx, scope.Key())
	if err != nil {
		return err
	}
	for _, a := range all {
		r, ok, err := s.role(tx, a.Role)
		if err != nil {
			return err
		}
		if ok && a.Role != role && r.Allows(WriteAssignment) && s.lasting(a) {
			return nil
		}
	}
	return &arm.Error{Code: "CannotDeleteLastRbacAdminAssignment", Status: http.StatusPreconditionFailed,
		Message: "Only this role gives roles at the subscription " + scope.Name() + "; it must keep Microsoft.Authorization/roleAssignments/write until another principal is Owner there."}
}
