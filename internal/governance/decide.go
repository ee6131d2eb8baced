package governance

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// Decide answers for what people may do by being eligible, or an approver, and
// not by a role; handled is false where roles decide. It opens the door for
// requests of one's own only as far as the verb, which reads what is asked for;
// the answer's reason says so in the audit log.
//
//   - what a deny assignment takes, nobody may who is denied it
//   - Global Administrators may make themselves User Access Administrators
//   - who may write the root group, or everybody if the tenant wants that, may
//     make a management group
//   - who may write aliases at the root group may make subscriptions
//   - who is eligible at a scope may send requests there, for themselves
//   - who asked may withdraw the request
//   - everybody sees their own eligibilities, assignments and requests
//   - approvals are their approvers' alone, whatever roles say
func (s *Service) Decide(c arm.Caller, a arm.Action, on gate.Target) (handled, allowed bool, reason string) {
	id := on.ID
	if d, ok := s.Engine.Denied(c, a, id, on.Attributes); ok {
		return true, false, d.Reason
	}
	if a.Is(elevate) && c.Lease == nil {
		return true, s.Elevates != nil && s.Elevates(c), "Global Administrators alone elevate their access"
	}
	if ofTenant(a, id) && c.Lease == nil && c.Tenant != "" {
		d := s.Engine.Decide(c, a, rootGroup(c.Tenant))
		return true, d.Allowed, "asked at the root management group: " + cmp.Or(d.Role, d.Reason)
	}
	if a.Is(WriteGroup) && isGroup(id) && s.Site.TenantOf(id) == "" && c.Lease == nil {
		allowed, reason = s.mayCreate(c)
		return true, allowed, reason
	}
	if !strings.HasPrefix(a.Key(), "microsoft.authorization/") || c.IsZero() || c.Lease != nil {
		return false, false, ""
	}
	if a.Is(readApproval) || a.Is(writeApproval) {
		allowed, reason = s.isApprover(c, id)
		return true, allowed, reason
	}
	if reason = s.mine(c, a, id); reason == "" || s.Engine.Decide(c, a, id).Allowed {
		return false, false, ""
	}
	return true, true, reason
}

// mine is why the caller may do a on id, which is their own, or "".
func (s *Service) mine(c arm.Caller, a arm.Action, id arm.ID) (reason string) {
	var look func(tx *store.Tx) error
	f, listed := s.face(id.Type())
	switch {
	case a.Is(writeAssignmentRequest) && strings.EqualFold(id.Type(), assignmentRequestType):
		look = func(tx *store.Tx) (err error) { reason, err = s.reached(tx, c, id.Parent(), false); return err }
	case a.Is(readEligibleChildResources):
		look = func(tx *store.Tx) (err error) { reason, err = s.reached(tx, c, id, true); return err }
	case a.Is(cancelAssignmentRequest):
		look = func(tx *store.Tx) error {
			q, err := loadRequest(tx, id.Key())
			if q != nil && q.own() && strings.EqualFold(q.Requestor, c.Object) {
				reason = "the request is the caller's own"
			}
			return err
		}
	case listed && a.Is(f.read):
		look = func(tx *store.Tx) (err error) { reason, err = s.owned(tx, c, id); return err }
	default:
		return ""
	}
	if err := s.DB.View(context.Background(), look); err != nil {
		return ""
	}
	return reason
}

// reached says that the caller is eligible now for a role that reaches the
// scope, or that begins inside it if inside is set.
func (s *Service) reached(tx *store.Tx, c arm.Caller, scope arm.ID, inside bool) (string, error) {
	if c.Kind != arm.User {
		return "", nil
	}
	all, err := eligible(tx, principals(c)...)
	for _, e := range all {
		if e.window().open(s.Now()) && (s.within(scope, e.Scope) || inside && s.within(e.Scope, scope)) {
			return "no role, but eligible by " + e.ID.String() + ": for requests of one's own", nil
		}
	}
	return "", err
}

// owned says that the row of a list is about the caller, asked for by them, or
// theirs to approve.
func (s *Service) owned(tx *store.Tx, c arm.Caller, id arm.ID) (string, error) {
	who, name := "", id.Name()
	switch t := key(id.Type()); t {
	case key(eligibilityRequestType), key(assignmentRequestType):
		q, err := loadRequest(tx, id.Key())
		if err != nil || q == nil {
			return "", err
		}
		if strings.EqualFold(q.Requestor, c.Object) {
			return "the caller asked for it", nil
		}
		if q.Status == pending && s.mayApprove(tx, q, c) {
			return "an approver by the role management policy", nil
		}
		who = q.Principal
	case key(eligibilityType), key(eligibilityInstanceType):
		e, err := loadEligibility(tx, itemID(id.Parent(), eligibilityType, name).Key())
		if err != nil || e == nil {
			return "", err
		}
		who = e.Principal
	default:
		a, err := load(tx, assignmentID(id.Parent(), name).Key())
		if err != nil || a == nil {
			return "", err
		}
		who = a.Principal
	}
	if slices.ContainsFunc(principals(c), func(p string) bool { return strings.EqualFold(p, who) }) {
		return "it is the caller's own", nil
	}
	return "", nil
}

// isApprover says whether the caller is an approver of what the approval is of.
func (s *Service) isApprover(c arm.Caller, id arm.ID) (bool, string) {
	name := id.Name()
	if strings.EqualFold(id.Type(), approvalType+"/stages") {
		name = id.Parent().Name()
	}
	ok := false
	err := s.DB.View(context.Background(), func(tx *store.Tx) error {
		q, err := requestNamed(tx, name)
		ok = err == nil && q != nil && !q.Until.IsZero() && s.mayApprove(tx, q, c)
		return err
	})
	if err == nil && ok {
		return true, "an approver by the role management policy"
	}
	return false, "the caller is not an approver of such a request"
}

// mayApprove reports whether the caller may decide about q.
func (s *Service) mayApprove(tx *store.Tx, q *request, c arm.Caller) bool {
	_, ps, err := s.approvals(tx, q)
	return err == nil && approves(ps, q, c)
}
