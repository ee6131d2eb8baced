package governance

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/store"
)

// stepUp asks for a sign-in with more factors, or in an authentication context,
// as Azure does: what to ask the sign-in for stands behind &claims= in the message.
func stepUp(mfa bool, contexts []string) error {
	want := map[string]any{}
	if mfa {
		want["amr"] = map[string]any{"essential": true, "values": []string{"mfa"}}
	}
	if len(contexts) > 0 {
		want["acrs"] = map[string]any{"essential": true, "values": contexts}
	}
	claims, err := json.Marshal(map[string]any{"access_token": want})
	if err != nil {
		return err
	}
	return &arm.Error{Code: "RoleAssignmentRequestAcrsValidationFailed", Status: http.StatusBadRequest, Claims: string(claims),
		Message: "The role management policy wants multi-factor authentication or an authentication context, which the token does not show. Sign in again with the claims: &claims=" + url.QueryEscape(string(claims))}
}

// ownRequest is what people do with their own eligibilities. The gate let them
// in without a role, so that everything is held here against who they are.
func (s *Service) ownRequest(tx *store.Tx, q *request, by arm.Caller) error {
	switch {
	case q.eligibility():
		return arm.Errorf(arm.Unsupported, "the requestType %s is of roleAssignmentScheduleRequests", q.Type)
	case by.Kind != arm.User || by.Lease != nil:
		return insufficient("Only a person can activate a role, signed in as themselves.")
	case !strings.EqualFold(q.Principal, by.Object):
		return insufficient("A role is activated and deactivated by its principal alone: properties.principalId must be %s, the caller's object id.", by.Object)
	}
	if q.Type == selfDeactivate {
		return s.deactivate(tx, q)
	}
	e, err := s.activable(tx, q, by)
	if err != nil {
		return err
	}
	q.Eligible = e.name()
	w, err := windowOf(q.Start, q.Expiration, q.CreatedOn)
	if err != nil {
		return err
	}
	ps, err := policiesFor(tx, q.Role, e.Scope, q.Scope)
	if err != nil {
		return err
	}
	if err := hold(ps, userAssignment, q.evidence(w)); err != nil {
		return err
	}
	if _, err := s.subject(tx, q); err != nil {
		return err
	}
	wait, err := s.waits(tx, q, ps)
	if err != nil || wait {
		return err
	}
	return s.activate(tx, q, e, w)
}

func insufficient(format string, args ...any) error {
	e := arm.Errorf("InsufficientPermissions", format, args...)
	e.Status = http.StatusForbidden
	return e
}

// deactivate ends the caller's activation.
func (s *Service) deactivate(tx *store.Tx, q *request) error {
	a, err := indexed(tx, (&assignment{Principal: q.Principal, Role: q.Role, Scope: q.Scope}).held())
	if err != nil {
		return err
	}
	if a == nil || a.Eligible == "" || a.window().over(q.CreatedOn) {
		return errNoAssignment
	}
	q.Status, q.Target, q.Eligible, q.Kind = revoked, a.name(), a.Eligible, a.Kind
	return s.forget(tx, a)
}

// activable is the eligibility that q can activate: the one that it names, or
// any; of the caller or one of the caller's groups, for the role, at the scope
// or above, and now.
func (s *Service) activable(tx *store.Tx, q *request, by arm.Caller) (*eligibility, error) {
	all, err := eligible(tx, principals(by)...)
	if err != nil {
		return nil, err
	}
	for _, e := range all {
		named := q.Eligible == "" || roleGUID(q.Eligible) == e.name()
		if named && e.Role == q.Role && s.within(q.Scope, e.Scope) && e.window().open(q.CreatedOn) {
			return e, nil
		}
	}
	return nil, insufficient("The caller is not eligible for the role %s at the scope '%s' now.", q.Role, q.Scope)
}

// waits leaves q waiting if a policy wants somebody else's yes.
func (s *Service) waits(tx *store.Tx, q *request, ps []*policy) (bool, error) {
	days := 0
	for _, p := range ps {
		if p.Approval.Required && (days == 0 || p.Approval.Days < days) {
			days = p.Approval.Days
		}
	}
	if days == 0 {
		return false, nil
	}
	if s.BreakGlass != nil {
		if broken, err := s.BreakGlass(tx, s.Site.TenantOf(q.Scope), q.Principal); err != nil || broken {
			return false, err
		}
	}
	at, err := tx.Get(index, q.waiting())
	if err != nil {
		return false, err
	}
	if at != nil {
		old, err := loadRequest(tx, string(at))
		if err != nil {
			return false, err
		}
		if old != nil && old.status(q.CreatedOn) == pending {
			return false, &arm.Error{Code: "PendingRoleAssignmentRequest", Status: http.StatusConflict, Message: "There is already an existing pending Role assignment request."}
		}
	}
	q.Status, q.Until = pending, q.CreatedOn.Add(time.Duration(days)*24*time.Hour)
	return true, nil
}

// activate makes the assignment, which must lie in the time of the eligibility.
func (s *Service) activate(tx *store.Tx, q *request, e *eligibility, w window) error {
	if w.till.IsZero() || !e.window().covers(w) {
		return arm.Errorf("RoleAssignmentRequestPolicyValidationFailed", `The following policy rules failed: ["ExpirationRule"]. An activation must end, and lie in the time of the eligibility, which is from %s to %s.`, when(e.Start), when(e.End))
	}
	x := &assignment{Scope: q.Scope, Role: q.Role, Principal: q.Principal, Kind: q.Kind, Eligible: e.name(), Tenant: s.Site.TenantOf(q.Scope)}
	if e.Principal != q.Principal {
		x.Via = e.Principal
	}
	q.Status = q.started(w)
	return s.provide(tx, q, x, w, q.Requestor)
}

// when is t for people.
func when(t time.Time) string {
	if t.IsZero() {
		return "for ever"
	}
	return t.UTC().Format(time.RFC3339)
}

// decideRequest is an approver's yes or no. A yes activates what was asked for,
// from now on, if the eligibility still stands.
func (s *Service) decideRequest(tx *store.Tx, q *request, by arm.Caller, r review) error {
	now := s.Now().UTC()
	if q.status(now) != pending {
		return arm.Errorf(arm.Conflict, "The request is not waiting for a decision: its status is %s.", q.status(now))
	}
	e, ps, err := s.approvals(tx, q)
	if err != nil {
		return err
	}
	if !approves(ps, q, by) {
		return insufficient("The caller is not an approver of this request.")
	}
	for _, p := range ps {
		if p.Approval.Required && p.Approval.Reason && strings.TrimSpace(r.Why) == "" {
			return arm.Errorf(arm.InvalidRequest, "the policy wants a justification of whoever decides")
		}
	}
	r.By, r.Name, r.On = by.Object, by.Name, now
	q.Review = r
	if err := settled(tx, q); err != nil {
		return err
	}
	if q.Status = denied; r.Result == "Approve" {
		if err := s.carryOut(tx, q, e, now); err != nil {
			return err
		}
	}
	return keepRequest(tx, q)
}

// carryOut activates what was approved.
func (s *Service) carryOut(tx *store.Tx, q *request, e *eligibility, now time.Time) error {
	if !e.window().open(now) {
		return arm.Errorf(arm.Conflict, "The eligibility that the request is for has ended meanwhile; the request can only be denied.")
	}
	w, err := windowOf(q.Start, q.Expiration, now)
	if err != nil {
		return err
	}
	if _, err := s.subject(tx, q); err != nil {
		return err
	}
	q.CreatedOn, now = now, q.CreatedOn // what has begun counts from now
	err = s.activate(tx, q, e, w)
	q.CreatedOn = now
	return err
}

// approvals are the eligibility that a request is for, and the policies that
// count for it now.
func (s *Service) approvals(tx *store.Tx, q *request) (*eligibility, []*policy, error) {
	e, err := eligibilityAt(tx, "eligibility|"+q.Eligible)
	if err != nil {
		return nil, nil, err
	}
	if e == nil {
		return nil, nil, arm.Errorf(arm.Conflict, "The eligibility that the request is for is gone.")
	}
	ps, err := policiesFor(tx, q.Role, e.Scope, q.Scope)
	return e, ps, err
}

// approves reports whether the caller may decide about q: named as an approver
// by every policy that wants approval, and neither who asks nor for whom.
func approves(ps []*policy, q *request, by arm.Caller) bool {
	if by.Kind != arm.User || by.Lease != nil || strings.EqualFold(by.Object, q.Requestor) || strings.EqualFold(by.Object, q.Principal) {
		return false
	}
	wanted := false
	for _, p := range ps {
		if !p.Approval.Required {
			continue
		}
		if wanted = true; !p.Approval.names(by) {
			return false
		}
	}
	return wanted
}

// cancel withdraws a request that waits or whose time is to come.
func (s *Service) cancel(tx *store.Tx, q *request) error {
	now := s.Now().UTC()
	switch q.status(now) {
	case pending:
		if err := settled(tx, q); err != nil {
			return err
		}
	case scheduled:
		if err := s.withdraw(tx, q, now); err != nil {
			return err
		}
	default:
		return arm.Errorf(arm.InvalidRequest, "a request can be canceled while it waits; the status of this one is %s", q.status(now))
	}
	q.Status = canceled
	return keepRequest(tx, q)
}

// withdraw forgets what q made, whose time is to come.
func (s *Service) withdraw(tx *store.Tx, q *request, now time.Time) error {
	if q.eligibility() {
		e, err := eligibilityAt(tx, "eligibility|"+q.Target)
		if err != nil || e == nil {
			return err
		}
		if !e.Start.After(now) || e.Request.Key() != q.ID.Key() {
			return arm.Errorf(arm.InvalidRequest, "what the request made has begun, or was changed; AdminRemove ends it")
		}
		return s.forgetEligibility(tx, e)
	}
	a, err := indexed(tx, "name|"+q.Target)
	if err != nil || a == nil {
		return err
	}
	if !a.NotBefore.After(now) || a.Request.Key() != q.ID.Key() {
		return arm.Errorf(arm.InvalidRequest, "what the request made has begun, or was changed; it must be ended instead")
	}
	return s.forget(tx, a)
}
