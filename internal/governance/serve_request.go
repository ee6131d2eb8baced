package governance

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/condition"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// requestBody is what a client may send of a request.
type requestBody struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Type       string `json:"type"`
	Properties struct {
		Role          string   `json:"roleDefinitionId"`
		Principal     string   `json:"principalId"`
		Kind          arm.Kind `json:"principalType"`
		Request       string   `json:"requestType"`
		Justification string   `json:"justification"`
		Linked        string   `json:"linkedRoleEligibilityScheduleId"`
		Ticket        struct {
			Number string `json:"ticketNumber"`
			System string `json:"ticketSystem"`
		} `json:"ticketInfo"`
		Schedule struct {
			Start      time.Time `json:"startDateTime"`
			Expiration struct {
				Type     string    `json:"type"`
				End      time.Time `json:"endDateTime"`
				Duration string    `json:"duration"`
			} `json:"expiration"`
		} `json:"scheduleInfo"`

		Condition string `json:"condition"`
		Version   string `json:"conditionVersion"`

		Scope     any `json:"scope" arm:"readonly"`
		Status    any `json:"status" arm:"readonly"`
		Approval  any `json:"approvalId" arm:"readonly"`
		CreatedOn any `json:"createdOn" arm:"readonly"`
		Requestor any `json:"requestorId" arm:"readonly"`
		Expanded  any `json:"expandedProperties" arm:"readonly"`
		// Which schedule a request changes follows from its principal, role and scope.
		T1 any `json:"targetRoleAssignmentScheduleId" arm:"readonly"`
		T2 any `json:"targetRoleAssignmentScheduleInstanceId" arm:"readonly"`
		T3 any `json:"targetRoleEligibilityScheduleId" arm:"readonly"`
		T4 any `json:"targetRoleEligibilityScheduleInstanceId" arm:"readonly"`
	} `json:"properties"`
}

// requestTypes are the types that a request can have, by its resource type.
var requestTypes = map[string][]string{
	eligibilityRequestType: {adminAssign, adminRemove, adminUpdate, adminExtend},
	assignmentRequestType:  {adminAssign, adminRemove, adminUpdate, adminExtend, selfActivate, selfDeactivate},
}

// read holds the body against itself and the path, and makes a request of it.
func (b *requestBody) read(id arm.ID, typ string) (*request, error) {
	p := &b.Properties
	role, err := roleOf(p.Role)
	types := requestTypes[typ]
	known := slices.IndexFunc(types, func(t string) bool { return strings.EqualFold(t, p.Request) })
	switch {
	case !guidForm.MatchString(id.Name()):
		return nil, arm.Errorf(arm.InvalidRequest, "the request's name %q must be a GUID", id.Name())
	case err != nil:
		return nil, err
	case !guidForm.MatchString(p.Principal):
		return nil, arm.Errorf("InvalidPrincipalId", "The Principal ID '%s' is not valid. Principal ID must be a GUID.", p.Principal)
	case known < 0:
		return nil, arm.Errorf(arm.Unsupported, "properties.requestType is %q; supported by %s: %s", p.Request, typ[strings.LastIndexByte(typ, '/')+1:], strings.Join(types, ", "))
	case id.Parent() == arm.Root:
		return nil, arm.Errorf(arm.InvalidRequest, "requests are made at a management group, a subscription or below, not at '/'")
	case p.Condition != "" || p.Version != "":
		return nil, arm.Errorf(arm.Unsupported, "properties.condition is not supported for roles that are given for a time: an assignment that seems narrower than it is must not be")
	case len(p.Justification) > maxText || len(p.Ticket.Number) > maxText || len(p.Ticket.System) > maxText:
		return nil, arm.Errorf(arm.InvalidRequest, "properties.justification and ticketInfo have at most %d bytes", maxText)
	}
	if err := agrees(b.ID, b.Name, b.Type, id, typ); err != nil {
		return nil, err
	}
	x := p.Schedule.Expiration
	q := &request{
		ID: itemID(id.Parent(), typ, key(id.Name())), Type: types[known], Role: role, Principal: key(p.Principal), Kind: p.Kind, Eligible: p.Linked,
		Start: p.Schedule.Start.UTC(), Expiration: expiration{x.Type, x.End.UTC(), x.Duration},
		Justification: p.Justification, Ticket: p.Ticket.Number, TicketSystem: p.Ticket.System,
	}
	if q.Start.IsZero() {
		q.Start = time.Time{}
	}
	return q, q.Expiration.fit()
}

// fit gives an expiration the type that its other fields have, and refuses two
// ends at once.
func (e *expiration) fit() error {
	switch {
	case e.Duration != "" && !e.End.IsZero():
		return arm.Errorf(arm.InvalidRequest, "properties.scheduleInfo.expiration has a duration and an endDateTime; it must have one of them")
	case e.Type == "" && e.Duration != "":
		e.Type = "AfterDuration"
	case e.Type == "" && !e.End.IsZero():
		e.Type = "AfterDateTime"
	case e.Type == "":
		e.Type = "NoExpiration"
	}
	for _, t := range []string{"AfterDuration", "AfterDateTime", "NoExpiration"} {
		if strings.EqualFold(e.Type, t) {
			e.Type = t
		}
	}
	return nil
}

// errRehearsed ends the transaction of a request that was only to be validated.
var errRehearsed = errors.New("only validated")

// request reads the request that stands in the body for the grant's id. Those of
// administrators pass the gate again, at the scope and by roles alone: the gate
// lets the eligible come this far for their own.
func (s *Service) request(w http.ResponseWriter, r *http.Request, g gate.Grant, id arm.ID, typ string, act arm.Action) (*request, error) {
	data, err := resource.ReadBody(w, r)
	if err != nil {
		return nil, err
	}
	var b requestBody
	if err := arm.Decode(data, &b); err != nil {
		return nil, err
	}
	q, err := b.read(id, typ)
	if err != nil {
		return nil, err
	}
	q.mfa, q.contexts = slices.Contains(g.Caller().AMR, "mfa"), g.Caller().ACRS
	if q.own() {
		return q, nil
	}
	if err := s.administers(r.Context(), g, act, gate.Target{ID: id.Parent()}); err != nil {
		return nil, err
	}
	return q, s.mayGive(r.Context(), g, q)
}

// mayGive asks the gate whether the caller may give the role that a request
// gives for a time, or take it, outright: a condition that holds them from that
// holds them from this.
func (s *Service) mayGive(ctx context.Context, g gate.Grant, q *request) error {
	at := gate.Target{ID: q.ID.Parent()}
	if q.Type == adminRemove {
		at.Attributes = func() *condition.Attributes {
			return &condition.Attributes{Resource: given(q.Role, q.Principal, q.Kind)}
		}
		return s.administers(ctx, g, DeleteAssignment, at)
	}
	at.Attributes = func() *condition.Attributes { return s.asked(ctx, q.ID, q.Role, q.Principal) }
	return s.administers(ctx, g, WriteAssignment, at)
}

// administers asks the gate whether the caller's roles allow the action at the scope.
func (s *Service) administers(ctx context.Context, g gate.Grant, act arm.Action, on gate.Target) error {
	x, err := s.Gate.Admit(ctx, g.Caller(), act, on)
	return x.Close(ctx, err)
}

func (s *Service) putRequest(typ string, act arm.Action) gate.Verb {
	return s.filing(typ, act, http.StatusCreated, func(ctx context.Context, g gate.Grant, file func(*store.Tx) error) error {
		return g.Change(ctx, s.DB, file)
	})
}

// validateRequest does all that putRequest does, and undoes it.
func (s *Service) validateRequest(typ string, act arm.Action) gate.Verb {
	return s.filing(typ, act, http.StatusOK, func(ctx context.Context, _ gate.Grant, file func(*store.Tx) error) error {
		err := s.DB.Do(ctx, func(tx *store.Tx) error {
			if err := file(tx); err != nil {
				return err
			}
			return errRehearsed
		})
		if errors.Is(err, errRehearsed) {
			return nil
		}
		return err
	})
}

// filing is the door to requests, which are filed in a transaction that do begins.
func (s *Service) filing(typ string, act arm.Action, status int, do func(context.Context, gate.Grant, func(*store.Tx) error) error) gate.Verb {
	return func(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
		id, err := g.On(act)
		if err != nil {
			return err
		}
		q, err := s.request(w, r, g, id, typ, act)
		if err != nil {
			return err
		}
		err = do(r.Context(), g, func(tx *store.Tx) error { return s.file(tx, q, g.Caller()) })
		if err != nil {
			return s.challenge(w, g, err)
		}
		gate.WriteJSON(w, status, s.showRequest(q))
		return nil
	}
}

// challenge also tells a client that must sign in for more so in the header
// from which Azure's clients read what to ask the sign-in for.
func (s *Service) challenge(w http.ResponseWriter, g gate.Grant, err error) error {
	if asks := gate.Challenge(err); asks != "" {
		w.Header().Set("WWW-Authenticate", `Bearer authorization_uri="`+s.Site.Base()+"/"+g.Caller().Tenant+`"`+asks)
	}
	return err
}

func (s *Service) cancelRequest(act arm.Action) gate.Verb {
	return func(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
		id, err := g.On(act)
		if err != nil {
			return err
		}
		err = g.Change(r.Context(), s.DB, func(tx *store.Tx) error {
			q, err := loadRequest(tx, id.Key())
			if err != nil {
				return err
			}
			if q == nil {
				return errNoRequest
			}
			return s.cancel(tx, q)
		})
		if err != nil {
			return err
		}
		w.WriteHeader(http.StatusOK)
		return nil
	}
}

var errNoRequest = notFoundAs("RequestNotFound", "There is no request with this name at this scope.")

// showRequest is q as answers have it.
func (s *Service) showRequest(q *request) map[string]any {
	p := map[string]any{
		"scope": q.Scope, "roleDefinitionId": definitionID(q.Scope, q.Role), "principalId": q.Principal, "principalType": q.Kind, "requestType": q.Type,
		"status": q.status(s.Now()), "approvalId": nil, "createdOn": q.CreatedOn, "requestorId": q.Requestor,
		"justification": nullable(q.Justification), "condition": nil, "conditionVersion": nil,
		"ticketInfo":         map[string]any{"ticketNumber": nullable(q.Ticket), "ticketSystem": nullable(q.TicketSystem)},
		"scheduleInfo":       map[string]any{"startDateTime": q.Start, "expiration": map[string]any{"type": q.Expiration.Type, "endDateTime": timeOrNull(q.Expiration.End), "duration": nullable(q.Expiration.Duration)}},
		"expandedProperties": s.expanded(q.Scope, q.Role, q.Principal, q.Kind),
	}
	if q.eligibility() {
		p["targetRoleEligibilityScheduleId"], p["targetRoleEligibilityScheduleInstanceId"] = nullable(q.Target), nil
	} else {
		p["targetRoleAssignmentScheduleId"], p["targetRoleAssignmentScheduleInstanceId"] = nullable(q.Target), nil
		p["linkedRoleEligibilityScheduleId"] = nullable(q.Eligible)
	}
	if !q.Until.IsZero() {
		p["approvalId"] = approvalID(q)
	}
	return map[string]any{"id": q.ID, "name": q.ID.Name(), "type": q.ID.Type(), "properties": p}
}

// expanded names what ids stand for, as far as governance knows it.
func (s *Service) expanded(scope arm.ID, role, principal string, kind arm.Kind) map[string]any {
	def := map[string]any{"id": definitionID(scope, role), "displayName": nil, "type": "CustomRole"}
	if r, ok := s.Engine.Role(role); ok {
		def["displayName"] = r.Name
		if r.BuiltIn {
			def["type"] = "BuiltInRole"
		}
	}
	typ := strings.ToLower(scope.Type()[strings.LastIndexByte(scope.Type(), '/')+1:])
	typ = map[string]string{"subscriptions": "subscription", "resourcegroups": "resourcegroup", "managementgroups": "managementgroup"}[typ]
	if typ == "" {
		typ = scope.Type()
	}
	return map[string]any{
		"scope": map[string]any{"id": scope, "displayName": scope.Name(), "type": typ}, "roleDefinition": def,
		"principal": map[string]any{"id": principal, "displayName": nil, "type": kind},
	}
}

func timeOrNull(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t
}
