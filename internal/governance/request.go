package governance

import (
	"net/http"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/store"
)

// Requests lie under the keys of their ids; index finds them by
//
//	request|GUID                      the name, of which the tenant has one
//	pending|PRINCIPAL|ROLE|SCOPE      the one that waits for approval
const requests = "role_requests"

// The kinds of requests.
const (
	adminAssign    = "AdminAssign"
	adminRemove    = "AdminRemove"
	adminUpdate    = "AdminUpdate"
	adminExtend    = "AdminExtend"
	selfActivate   = "SelfActivate"
	selfDeactivate = "SelfDeactivate"
)

// The states of requests, in Azure's words.
const (
	provisioned = "Provisioned"
	scheduled   = "ScheduleCreated" // its time is to come
	revoked     = "Revoked"
	pending     = "PendingApproval"
	denied      = "Denied"
	canceled    = "Canceled"
	timedOut    = "TimedOut"
)

// request is one act by which eligibilities and assignments come, change and go.
type request struct {
	ID            arm.ID     `json:"id"`
	Scope         arm.ID     `json:"scope"`
	Type          string     `json:"requestType"`
	Role          string     `json:"role"`
	Principal     string     `json:"principal"`
	Kind          arm.Kind   `json:"kind"`
	Status        string     `json:"status"`
	Target        string     `json:"target,omitempty"`   // name of the schedule that it made or changed
	Eligible      string     `json:"eligible,omitempty"` // name of the eligibility that it activates
	Start         time.Time  `json:"start"`
	Expiration    expiration `json:"expiration"`
	Justification string     `json:"justification,omitempty"`
	Ticket        string     `json:"ticket,omitempty"`
	TicketSystem  string     `json:"ticketSystem,omitempty"`
	CreatedOn     time.Time  `json:"createdOn"`
	Requestor     string     `json:"requestor"`
	Until         time.Time  `json:"until,omitzero"` // when it can't be approved any more
	Review        review     `json:"review,omitzero"`

	mfa      bool     // whoever asks showed two kinds of factors
	contexts []string // authentication contexts that their token is of
}

// review is what an approver decided.
type review struct {
	By, Name, Result, Why string
	On                    time.Time
}

func (q *request) eligibility() bool { return strings.EqualFold(q.ID.Type(), eligibilityRequestType) }
func (q *request) own() bool         { return q.Type == selfActivate || q.Type == selfDeactivate }
func (q *request) waiting() string {
	return "pending|" + q.Principal + "|" + q.Role + "|" + q.Scope.Key()
}

// status is the state at now: what nobody approved in time is over.
func (q *request) status(now time.Time) string {
	if q.Status == pending && !now.Before(q.Until) {
		return timedOut
	}
	return q.Status
}

func keepRequest(tx *store.Tx, q *request) error {
	k := q.ID.Key()
	if err := tx.Put(index, "request|"+key(q.ID.Name()), []byte(k)); err != nil {
		return err
	}
	if q.Status == pending {
		if err := tx.Put(index, q.waiting(), []byte(k)); err != nil {
			return err
		}
	}
	return store.PutJSON(tx, requests, k, q)
}

func forgetRequest(tx *store.Tx, q *request) error {
	if err := settled(tx, q); err != nil {
		return err
	}
	if err := tx.Delete(index, "request|"+key(q.ID.Name())); err != nil {
		return err
	}
	return tx.Delete(requests, q.ID.Key())
}

// settled takes q out of those that wait for approval.
func settled(tx *store.Tx, q *request) error {
	at, err := tx.Get(index, q.waiting())
	if err != nil || string(at) != q.ID.Key() {
		return err
	}
	return tx.Delete(index, q.waiting())
}

// loadRequest is the request under the key of an id, or nil.
func loadRequest(tx *store.Tx, k string) (*request, error) {
	q, ok, err := store.GetJSON[request](tx, requests, k)
	if err != nil || !ok {
		return nil, err
	}
	return &q, nil
}

// requestNamed is the request of this name, or nil.
func requestNamed(tx *store.Tx, name string) (*request, error) {
	at, err := tx.Get(index, "request|"+key(name))
	if err != nil || at == nil {
		return nil, err
	}
	return loadRequest(tx, string(at))
}

// file carries q out, or leaves it waiting for approval, and keeps it.
func (s *Service) file(tx *store.Tx, q *request, by arm.Caller) (err error) {
	if q.Scope, err = s.scope(tx, q.ID.Parent()); err != nil {
		return err
	}
	q.ID = itemID(q.Scope, q.ID.Type(), q.ID.Name())
	old, err := requestNamed(tx, q.ID.Name())
	if err != nil {
		return err
	}
	if old != nil {
		return arm.Errorf(arm.Conflict, "There is a request with the name %s already. A request is made once; take another GUID.", q.ID.Name())
	}
	q.CreatedOn, q.Requestor = s.Now().UTC(), by.Object
	if q.Start.IsZero() {
		q.Start = q.CreatedOn
	}
	switch {
	case q.own():
		err = s.ownRequest(tx, q, by)
	case q.eligibility():
		err = s.eligibilityRequest(tx, q)
	default:
		err = s.assignmentRequest(tx, q)
	}
	if err != nil {
		return err
	}
	return keepRequest(tx, q)
}

// evidence is what q shows for a right in this window.
func (q *request) evidence(w window) evidence {
	return evidence{mfa: q.mfa, contexts: q.contexts, reason: q.Justification, ticket: q.Ticket, system: q.TicketSystem, window: w}
}

// started is the state of what q made.
func (q *request) started(w window) string {
	if w.from.After(q.CreatedOn) {
		return scheduled
	}
	return provisioned
}

// subject is what q is about, checked, in the form of an assignment.
func (s *Service) subject(tx *store.Tx, q *request) (*assignment, error) {
	x := &assignment{Scope: q.Scope, Role: q.Role, Principal: q.Principal, Kind: q.Kind, Tenant: s.Site.TenantOf(q.Scope)}
	if err := s.check(tx, x); err != nil {
		return nil, err
	}
	q.Kind = x.Kind
	return x, nil
}

// admitted is the window that an administrator asks for, if the policy lets it be.
func (s *Service) admitted(tx *store.Tx, q *request, target string) (window, error) {
	w, err := windowOf(q.Start, q.Expiration, q.CreatedOn)
	if err != nil {
		return w, err
	}
	ps, err := policiesFor(tx, q.Role, q.Scope)
	if err != nil {
		return w, err
	}
	return w, hold(ps, target, q.evidence(w))
}

var errNoEligibility = notFoundAs("RoleEligibilityScheduleNotFound", "The principal is not eligible for this role at this scope.")
var errNoAssignment = notFoundAs("RoleAssignmentDoesNotExist", "The Role assignment does not exist.")

func notFoundAs(code arm.Code, message string) *arm.Error {
	return &arm.Error{Code: code, Status: http.StatusNotFound, Message: message}
}

// eligibilityRequest is what administrators do to eligibilities.
func (s *Service) eligibilityRequest(tx *store.Tx, q *request) error {
	e, err := eligibilityAt(tx, "eligible|"+q.Principal+"|"+q.Role+"|"+q.Scope.Key())
	if err != nil {
		return err
	}
	if q.Type == adminRemove {
		if e == nil {
			return errNoEligibility
		}
		q.Status, q.Target, q.Kind = revoked, e.name(), e.Kind
		return s.forgetEligibility(tx, e)
	}
	if _, err := s.subject(tx, q); err != nil {
		return err
	}
	if q.Kind == arm.ServicePrincipal {
		return arm.Errorf("PrincipalTypeNotSupported", "The principal %s is a service principal. People and groups can be eligible: what is activated is activated by a person.", q.Principal)
	}
	w, err := s.admitted(tx, q, adminEligibility)
	if err != nil {
		return err
	}
	q.Status = q.started(w)
	if q.Type == adminAssign {
		return s.makeEligible(tx, q, e, w)
	}
	if e == nil {
		return errNoEligibility
	}
	if q.Type == adminExtend {
		if w.from = e.Start; e.End.IsZero() || !w.till.IsZero() && !w.till.After(e.End) {
			return arm.Errorf(arm.InvalidRequest, "an AdminExtend must end later than what it extends")
		}
	}
	e.Start, e.End, e.UpdatedOn, e.Request, q.Target = w.from, w.till, q.CreatedOn, q.ID, e.name()
	if err := s.fit(tx, e); err != nil {
		return err
	}
	return keepEligibility(tx, e)
}

// makeEligible makes an eligibility of q in the place of old, which must be over.
func (s *Service) makeEligible(tx *store.Tx, q *request, old *eligibility, w window) error {
	if old != nil {
		if !old.window().over(q.CreatedOn) {
			return &arm.Error{Code: "RoleAssignmentExists", Status: http.StatusConflict, Message: "The Role assignment already exists: the principal is eligible for this role at this scope. AdminUpdate changes its time."}
		}
		if err := s.forgetEligibility(tx, old); err != nil {
			return err
		}
	}
	q.Target = arm.NewUUID()
	return keepEligibility(tx, &eligibility{
		ID: itemID(q.Scope, eligibilityType, q.Target), Scope: q.Scope, Role: q.Role, Principal: q.Principal, Kind: q.Kind,
		Start: w.from, End: w.till, Request: q.ID, CreatedOn: q.CreatedOn, UpdatedOn: q.CreatedOn,
	})
}

// assignmentRequest is what administrators do to assignments.
func (s *Service) assignmentRequest(tx *store.Tx, q *request) error {
	x := &assignment{Scope: q.Scope, Role: q.Role, Principal: q.Principal}
	a, err := indexed(tx, x.held())
	if err != nil {
		return err
	}
	if q.Type == adminRemove {
		if a == nil {
			return errNoAssignment
		}
		if err := s.Holding(tx, DeleteAssignment, a.ID); err != nil { // the door asks only about writing
			return err
		}
		q.Status, q.Target, q.Kind = revoked, a.name(), a.Kind
		return s.release(tx, a)
	}
	if x, err = s.subject(tx, q); err != nil {
		return err
	}
	w, err := s.admitted(tx, q, adminAssignment)
	if err != nil {
		return err
	}
	q.Status = q.started(w)
	if q.Type == adminAssign {
		return s.provide(tx, q, x, w, q.Requestor)
	}
	return s.retime(tx, q, a, w)
}

// retime gives an assignment that an administrator made other times.
func (s *Service) retime(tx *store.Tx, q *request, a *assignment, w window) error {
	switch {
	case a == nil:
		return errNoAssignment
	case a.Eligible != "":
		return arm.Errorf(arm.InvalidRequest, "the assignment is an activation, which only ends: AdminRemove or SelfDeactivate it, or change the eligibility")
	case q.Type == adminExtend && (a.NotAfter.IsZero() || !w.till.IsZero() && !w.till.After(a.NotAfter)):
		return arm.Errorf(arm.InvalidRequest, "an AdminExtend must end later than what it extends")
	}
	if s.lasting(a) && (!w.till.IsZero() || w.from.After(q.CreatedOn)) {
		if err := s.keepsAdmin(tx, a.Scope, a.ID); err != nil {
			return err
		}
	}
	if a.NotAfter = w.till; q.Type == adminUpdate {
		a.NotBefore = w.from
	}
	a.UpdatedOn, a.UpdatedBy, a.Request, q.Target = q.CreatedOn, q.Requestor, q.ID, a.name()
	return s.keep(tx, a)
}

// provide makes the assignment x for the window, as q asks.
func (s *Service) provide(tx *store.Tx, q *request, x *assignment, w window, by string) error {
	if err := s.Holding(tx, WriteAssignment, x.Scope); err != nil { // approvals come by a door elsewhere
		return err
	}
	if err := s.clear(tx, x); err != nil {
		return err
	}
	q.Target = arm.NewUUID()
	x.ID, x.Request = itemID(x.Scope, assignmentType, q.Target), q.ID
	x.NotBefore, x.NotAfter = w.from, w.till
	s.stamp(x, arm.Caller{Object: by})
	return s.keep(tx, x)
}
