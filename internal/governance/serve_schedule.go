package governance

import (
	"net/http"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// The types of what is served for privileged access.
const (
	eligibilityRequestType  = "Microsoft.Authorization/roleEligibilityScheduleRequests"
	eligibilityType         = "Microsoft.Authorization/roleEligibilitySchedules"
	eligibilityInstanceType = "Microsoft.Authorization/roleEligibilityScheduleInstances"
	assignmentRequestType   = "Microsoft.Authorization/roleAssignmentScheduleRequests"
	assignmentScheduleType  = "Microsoft.Authorization/roleAssignmentSchedules"
	assignmentInstanceType  = "Microsoft.Authorization/roleAssignmentScheduleInstances"
	policyType              = "Microsoft.Authorization/roleManagementPolicies"
	policyAssignmentType    = "Microsoft.Authorization/roleManagementPolicyAssignments"
	approvalType            = "Microsoft.Authorization/roleAssignmentApprovals"
)

// The actions of privileged access.
var (
	readEligibilityRequest     = arm.NewAction(eligibilityRequestType+"/read", "see who asked to make somebody eligible for a role")
	writeEligibilityRequest    = arm.NewAction(eligibilityRequestType+"/write", "make somebody eligible for a role, or no more")
	cancelEligibilityRequest   = arm.NewAction(eligibilityRequestType+"/cancel/action", "withdraw an eligibility whose time is to come")
	readEligibility            = arm.NewAction(eligibilityType+"/read", "see who is or will be eligible for a role")
	readEligibilityInstance    = arm.NewAction(eligibilityInstanceType+"/read", "see who is eligible for a role now")
	readAssignmentRequest      = arm.NewAction(assignmentRequestType+"/read", "see who asked for a role for a time")
	writeAssignmentRequest     = arm.NewAction(assignmentRequestType+"/write", "give somebody a role for a time, or take it; everybody who is eligible may for themselves")
	cancelAssignmentRequest    = arm.NewAction(assignmentRequestType+"/cancel/action", "withdraw a request that waits; everybody may their own")
	readAssignmentSchedule     = arm.NewAction(assignmentScheduleType+"/read", "see who has or will have a role, and for how long")
	readAssignmentInstance     = arm.NewAction(assignmentInstanceType+"/read", "see who has a role now, and for how long")
	readPolicy                 = arm.NewAction(policyType+"/read", "see what activating a role asks for")
	writePolicy                = arm.NewAction(policyType+"/write", "say what activating a role asks for")
	readPolicyAssignment       = arm.NewAction(policyAssignmentType+"/read", "see which policy counts for a role")
	readEligibleChildResources = arm.NewAction("Microsoft.Authorization/eligibleChildResources/read", "see where below a scope one is eligible for a role")
	readApproval               = arm.NewAction(approvalType+"/read", "see a request that waits for one's own decision")
	writeApproval              = arm.NewAction(approvalType+"/stages/write", "approve or deny a request that waits for one's own decision")
)

// privilegedRoutes are the doors of privileged access. Lists are for everybody,
// who sees their own rows; so are requests of their own (see Decide).
func (s *Service) privilegedRoutes() []gate.Route {
	const at = "/{scope...}/providers/Microsoft.Authorization/"
	const root = "/providers/Microsoft.Authorization/"
	out := []gate.Route{
		gate.On(writeEligibilityRequest, "PUT "+at+"roleEligibilityScheduleRequests/{request}", locateItem, s.putRequest(eligibilityRequestType, writeEligibilityRequest)),
		gate.On(cancelEligibilityRequest, "POST "+at+"roleEligibilityScheduleRequests/{request}/cancel", locateBehind, s.cancelRequest(cancelEligibilityRequest)),
		gate.On(writeEligibilityRequest, "POST "+at+"roleEligibilityScheduleRequests/{request}/validate", locateBehind, s.validateRequest(eligibilityRequestType, writeEligibilityRequest)),
		gate.On(writeAssignmentRequest, "PUT "+at+"roleAssignmentScheduleRequests/{request}", locateItem, s.putRequest(assignmentRequestType, writeAssignmentRequest)),
		gate.On(cancelAssignmentRequest, "POST "+at+"roleAssignmentScheduleRequests/{request}/cancel", locateBehind, s.cancelRequest(cancelAssignmentRequest)),
		gate.On(writeAssignmentRequest, "POST "+at+"roleAssignmentScheduleRequests/{request}/validate", locateBehind, s.validateRequest(assignmentRequestType, writeAssignmentRequest)),

		gate.On(readPolicy, "GET "+at+"roleManagementPolicies", locateScope, s.listPolicies),
		gate.On(readPolicy, "GET "+at+"roleManagementPolicies/{policy}", locateItem, s.getPolicy),
		gate.On(writePolicy, "PATCH "+at+"roleManagementPolicies/{policy}", locateItem, s.patchPolicy),
		gate.On(readPolicyAssignment, "GET "+at+"roleManagementPolicyAssignments", locateScope, s.listPolicyAssignments),
		gate.On(readPolicyAssignment, "GET "+at+"roleManagementPolicyAssignments/{assignment}", locateItem, s.getPolicyAssignment),

		gate.Each(readEligibleChildResources, "GET "+at+"eligibleChildResources", locateScope, s.listEligibleChildren),

		gate.Each(readApproval, "GET "+root+"roleAssignmentApprovals", locateScope, s.listApprovals),
		gate.On(readApproval, "GET "+root+"roleAssignmentApprovals/{approval}", locateItem, s.getApproval),
		gate.On(readApproval, "GET "+root+"roleAssignmentApprovals/{approval}/stages", locateBehind, s.listStages),
		gate.On(readApproval, "GET "+root+"roleAssignmentApprovals/{approval}/stages/{stage}", locateItem, s.getStage),
		gate.On(writeApproval, "PATCH "+root+"roleAssignmentApprovals/{approval}/stages/{stage}", locateItem, s.decideStage),
		gate.On(writeApproval, "PUT "+root+"roleAssignmentApprovals/{approval}/stages/{stage}", locateItem, s.decideStage),
	}
	for _, f := range s.faces() {
		name := f.typ[strings.LastIndexByte(f.typ, '/')+1:]
		out = append(out,
			gate.Each(f.read, "GET "+at+name, locateScope, s.list(f)),
			gate.Each(f.read, "GET "+root+name, locateScope, s.list(f)),
			gate.On(f.read, "GET "+at+name+"/{item}", locateItem, s.get(f)))
	}
	return out
}

// locateBehind is what stands in front of a verb such as /cancel.
func locateBehind(r *http.Request, _ gate.Vars) (gate.Target, error) { return resource.Locate(r, 1) }

// listed is a row of a list of schedules, instances or requests.
type listed struct {
	id, scope         arm.ID
	principal, role   string
	requestor, status string
	kind              arm.Kind
	props             map[string]any
	request           *request
}

// face is one kind of things that are listed.
type face struct {
	typ  string
	read arm.Action
	rows func(tx *store.Tx) ([]*listed, error)
}

// faces are all kinds.
func (s *Service) faces() []face {
	return []face{
		{eligibilityRequestType, readEligibilityRequest, func(tx *store.Tx) ([]*listed, error) { return s.requestRows(tx, eligibilityRequestType) }},
		{eligibilityType, readEligibility, func(tx *store.Tx) ([]*listed, error) { return s.eligibilityRows(tx, false) }},
		{eligibilityInstanceType, readEligibilityInstance, func(tx *store.Tx) ([]*listed, error) { return s.eligibilityRows(tx, true) }},
		{assignmentRequestType, readAssignmentRequest, func(tx *store.Tx) ([]*listed, error) { return s.requestRows(tx, assignmentRequestType) }},
		{assignmentScheduleType, readAssignmentSchedule, func(tx *store.Tx) ([]*listed, error) { return s.assignmentRows(tx, false) }},
		{assignmentInstanceType, readAssignmentInstance, func(tx *store.Tx) ([]*listed, error) { return s.assignmentRows(tx, true) }},
	}
}

// face is the kind of a type, whatever its letter case.
func (s *Service) face(typ string) (face, bool) {
	for _, f := range s.faces() {
		if strings.EqualFold(f.typ, typ) {
			return f, true
		}
	}
	return face{}, false
}

func (s *Service) requestRows(tx *store.Tx, typ string) ([]*listed, error) {
	all, err := store.ScanJSON[request](tx, requests, "", "", 0)
	if err != nil {
		return nil, err
	}
	var out []*listed
	for i := range all {
		q := &all[i]
		if strings.EqualFold(q.ID.Type(), typ) {
			out = append(out, &listed{id: q.ID, scope: q.Scope, principal: q.Principal, role: q.Role, kind: q.Kind, requestor: q.Requestor, status: q.status(s.Now()), request: q,
				props: s.showRequest(q)["properties"].(map[string]any)})
		}
	}
	return out, nil
}

func (s *Service) eligibilityRows(tx *store.Tx, now bool) ([]*listed, error) {
	all, err := store.ScanJSON[eligibility](tx, eligibilities, "", "", 0)
	if err != nil {
		return nil, err
	}
	var out []*listed
	for i := range all {
		e := &all[i]
		if e.window().over(s.Now()) || now && !e.window().open(s.Now()) {
			continue
		}
		x := &listed{id: itemID(e.Scope, eligibilityType, e.ID.Name()), scope: e.Scope, principal: e.Principal, role: e.Role, kind: e.Kind, status: provisioned}
		x.props = s.scheduleProps(x, e.Start, e.End)
		x.props["createdOn"] = e.CreatedOn
		if now {
			x.props["roleEligibilityScheduleId"] = x.id
			x.id = itemID(e.Scope, eligibilityInstanceType, e.ID.Name())
		} else {
			x.props["roleEligibilityScheduleRequestId"], x.props["updatedOn"] = e.Request, e.UpdatedOn
		}
		out = append(out, x)
	}
	return out, nil
}

func (s *Service) assignmentRows(tx *store.Tx, now bool) ([]*listed, error) {
	all, err := store.ScanJSON[assignment](tx, assignments, "", "", 0)
	if err != nil {
		return nil, err
	}
	var out []*listed
	for i := range all {
		a := &all[i]
		if a.window().over(s.Now()) || now && !s.holds(a) {
			continue
		}
		x := &listed{id: itemID(a.Scope, assignmentScheduleType, a.ID.Name()), scope: a.Scope, principal: a.Principal, role: a.Role, kind: a.Kind, status: provisioned}
		start := a.NotBefore
		if start.IsZero() {
			start = a.CreatedOn
		}
		x.props = s.scheduleProps(x, start, a.NotAfter)
		x.props["createdOn"], x.props["assignmentType"], x.props["linkedRoleEligibilityScheduleId"] = a.CreatedOn, "Assigned", nil
		if a.Eligible != "" {
			x.props["assignmentType"], x.props["linkedRoleEligibilityScheduleId"] = "Activated", a.Eligible
		}
		if now {
			x.props["roleAssignmentScheduleId"], x.props["originRoleAssignmentId"] = x.id, a.ID
			x.props["linkedRoleEligibilityScheduleInstanceId"] = nullable(a.Eligible)
			x.id = itemID(a.Scope, assignmentInstanceType, a.ID.Name())
		} else {
			x.props["roleAssignmentScheduleRequestId"], x.props["updatedOn"] = nil, a.UpdatedOn
			if !a.Request.IsZero() {
				x.props["roleAssignmentScheduleRequestId"] = a.Request
			}
		}
		out = append(out, x)
	}
	return out, nil
}

func (s *Service) scheduleProps(x *listed, from, till any) map[string]any {
	return map[string]any{
		"scope": x.scope, "roleDefinitionId": definitionID(x.scope, x.role), "principalId": x.principal, "principalType": x.kind, "status": x.status,
		"startDateTime": from, "endDateTime": till, "memberType": "Direct", "condition": nil, "conditionVersion": nil,
		"expandedProperties": s.expanded(x.scope, x.role, x.principal, x.kind),
	}
}

func (x *listed) show() map[string]any {
	return map[string]any{"id": x.id, "name": x.id.Name(), "type": x.id.Type(), "properties": x.props}
}

// scheduleFilters are the clauses that lists of schedules take.
var scheduleFilters = []string{"asTarget()", "asRequestor()", "asApprover()", "atScope()", "principalId eq", "assignedTo(id)", "roleDefinitionId eq", "requestorId eq", "status eq"}

// list is the door to a list: what lies at, above and below the scope, as far as
// the clauses hold and the caller may see it.
func (s *Service) list(f face) gate.Verb {
	return func(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
		scope, err := g.On(f.read)
		if err != nil {
			return err
		}
		clauses, err := parseFilter(r.URL.Query().Get("$filter"), scheduleFilters...)
		if err != nil {
			return err
		}
		var rows []*listed
		err = s.DB.View(r.Context(), func(tx *store.Tx) error {
			if rows, err = f.rows(tx); err != nil {
				return err
			}
			rows = slices.DeleteFunc(rows, func(x *listed) bool { return !s.within(scope, x.scope) && !s.within(x.scope, scope) })
			for _, c := range clauses {
				keep, err := s.chosen(tx, scope, c, g.Caller())
				if err != nil {
					return err
				}
				rows = slices.DeleteFunc(rows, func(x *listed) bool { return !keep(x) })
			}
			return nil
		})
		if err != nil {
			return err
		}
		slices.SortFunc(rows, func(a, b *listed) int { return strings.Compare(a.id.Key(), b.id.Key()) })
		list := []any{}
		for _, x := range rows {
			if g.Sees(f.read, x.id) {
				list = append(list, s.seen(x, scope, g.Caller()))
			}
		}
		gate.WriteJSON(w, http.StatusOK, map[string]any{"value": list})
		return nil
	}
}

// seen is x as the caller has it: themselves, by a group, or from above.
func (s *Service) seen(x *listed, scope arm.ID, c arm.Caller) map[string]any {
	if x.request != nil {
		return x.show()
	}
	switch {
	case x.kind == arm.Group && slices.ContainsFunc(c.Groups, func(g string) bool { return strings.EqualFold(g, x.principal) }):
		x.props["memberType"] = "Group"
	case scope != arm.Root && x.scope.Key() != scope.Key() && s.within(scope, x.scope):
		x.props["memberType"] = "Inherited"
	}
	return x.show()
}

// chosen is the test that a clause stands for.
func (s *Service) chosen(tx *store.Tx, scope arm.ID, c clause, who arm.Caller) (func(*listed) bool, error) {
	switch key(c.name) {
	case "astarget()":
		mine := principals(who)
		return func(x *listed) bool {
			return slices.ContainsFunc(mine, func(id string) bool { return strings.EqualFold(id, x.principal) })
		}, nil
	case "asrequestor()":
		return func(x *listed) bool { return strings.EqualFold(x.requestor, who.Object) }, nil
	case "requestorid eq":
		return func(x *listed) bool { return strings.EqualFold(x.requestor, c.value) }, nil
	case "asapprover()":
		return func(x *listed) bool {
			return x.request != nil && x.status == pending && s.mayApprove(tx, x.request, who)
		}, nil
	case "status eq":
		return func(x *listed) bool { return strings.EqualFold(x.status, c.value) }, nil
	}
	keep, err := s.keeps(tx, scope, who.Tenant, c)
	if err != nil {
		return nil, err
	}
	return func(x *listed) bool {
		return keep(&assignment{Scope: x.scope, Principal: x.principal, Role: x.role})
	}, nil
}

// get is the door to one row.
func (s *Service) get(f face) gate.Verb {
	return func(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
		id, err := g.On(f.read)
		if err != nil {
			return err
		}
		return s.DB.View(r.Context(), func(tx *store.Tx) error {
			rows, err := f.rows(tx)
			if err != nil {
				return err
			}
			for _, x := range rows {
				if x.id.Key() == id.Key() {
					gate.WriteJSON(w, http.StatusOK, x.show())
					return nil
				}
			}
			return notFound("'%s' was not found.", id)
		})
	}
}
