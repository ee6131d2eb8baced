package compliance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/policy"
	"castellan/internal/resource"
	"castellan/internal/store"
)

const (
	remediationType  = "Microsoft.PolicyInsights/remediations"
	remediationTable = "policy_remediations"
	// pendingTable has what deployIfNotExists is to look at after a change.
	pendingTable = "policy_pending"
	maxResources = 50_000 // of one remediation, as in Azure
)

var (
	readRemediation   = arm.NewAction(remediationType+"/read", "see remediation tasks")
	writeRemediation  = arm.NewAction(remediationType+"/write", "have resources repaired by a policy")
	deleteRemediation = arm.NewAction(remediationType+"/delete", "delete a remediation task")
	cancelRemediation = arm.NewAction(remediationType+"/cancel/action", "stop a remediation task")
	readDeployments   = arm.NewAction(remediationType+"/listDeployments/read", "see what a remediation task did to each resource")
)

// The states of a remediation and of what it does to one resource.
const (
	accepted  = "Accepted"
	running   = "InProgress"
	succeeded = "Succeeded"
	failed    = "Failed"
	canceled  = "Canceled"
)

// remediation is a task that repairs resources, as the assignment's identity.
type remediation struct {
	ID       arm.ID           `json:"id"`
	Scope    arm.ID           `json:"scope"`
	Tenant   string           `json:"tenant"`
	Props    remediationProps `json:"properties"`
	State    string           `json:"state"`
	Repairs  []repair         `json:"repairs,omitempty"`
	Created  time.Time        `json:"created"`
	Updated  time.Time        `json:"updated"`
	Correlat string           `json:"correlation"`
	Begun    *gate.Begun      `json:"begun,omitempty"` // for the record of its end
	System   resource.System  `json:"systemData"`
}

type remediationProps struct {
	Assignment string  `json:"policyAssignmentId"`
	Ref        string  `json:"policyDefinitionReferenceId,omitempty"`
	Discovery  string  `json:"resourceDiscoveryMode" arm:"only=ExistingNonCompliant|ReEvaluateCompliance"`
	Count      int     `json:"resourceCount,omitempty"`
	Parallel   int     `json:"parallelDeployments,omitempty"`
	Threshold  *number `json:"failureThreshold,omitempty"`
	Filters    *struct {
		Locations []string `json:"locations,omitempty"`
	} `json:"filters,omitempty"`
	State   any `json:"provisioningState,omitempty" arm:"readonly"`
	Created any `json:"createdOn,omitempty" arm:"readonly"`
	Updated any `json:"lastUpdatedOn,omitempty" arm:"readonly"`
	Status  any `json:"deploymentStatus,omitempty" arm:"readonly"`
	Message any `json:"statusMessage,omitempty" arm:"readonly"`
	Correl  any `json:"correlationId,omitempty" arm:"readonly"`
}

type number struct {
	Percentage float64 `json:"percentage"`
}

// repair is what a remediation does to one resource.
type repair struct {
	Resource   arm.ID    `json:"remediatedResourceId"`
	Location   string    `json:"resourceLocation,omitempty"`
	Deployment string    `json:"deploymentId,omitempty"`
	Status     string    `json:"status"`
	Error      string    `json:"error,omitempty"`
	Created    time.Time `json:"createdOn"`
	Updated    time.Time `json:"lastUpdatedOn"`
}

func (s *Service) remediationRoutes() []gate.Route {
	const at = "/{scope...}/providers/" + remediationType
	here := func(n int) gate.Locate {
		return func(r *http.Request, _ gate.Vars) (gate.Target, error) { return resource.Locate(r, n) }
	}
	return []gate.Route{
		gate.On(readRemediation, "GET "+at, here(3), s.listRemediations),
		gate.On(readRemediation, "GET "+at+"/{name}", here(0), s.getRemediation),
		gate.On(writeRemediation, "PUT "+at+"/{name}", here(0), s.putRemediation),
		gate.On(deleteRemediation, "DELETE "+at+"/{name}", here(0), s.deleteRemediation),
		gate.On(cancelRemediation, "POST "+at+"/{name}/cancel", here(1), s.cancelRemediation),
		gate.On(readDeployments, "POST "+at+"/{name}/listDeployments", here(1), s.listRepairs),
	}
}

func loadRemediation(tx *store.Tx, id arm.ID) (*remediation, error) {
	r, ok, err := store.GetJSON[remediation](tx, remediationTable, id.Key())
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, &arm.Error{Code: "RemediationNotFound", Status: http.StatusNotFound, Message: "The remediation '" + id.Name() + "' is not found at '" + id.Parent().String() + "'."}
	}
	return &r, nil
}

func (r *remediation) show() map[string]any {
	status := map[string]int{"totalDeployments": len(r.Repairs)}
	for _, x := range r.Repairs {
		switch x.Status {
		case succeeded:
			status["successfulDeployments"]++
		case failed:
			status["failedDeployments"]++
		}
	}
	props := map[string]any{
		"policyAssignmentId": r.Props.Assignment, "policyDefinitionReferenceId": r.Props.Ref, "provisioningState": r.State, "resourceDiscoveryMode": r.Props.Discovery,
		"createdOn": r.Created, "lastUpdatedOn": r.Updated, "deploymentStatus": status, "correlationId": r.Correlat, "resourceCount": r.Props.Count, "parallelDeployments": r.Props.Parallel,
	}
	if r.Props.Filters != nil {
		props["filters"] = r.Props.Filters
	}
	if r.Props.Threshold != nil {
		props["failureThreshold"] = r.Props.Threshold
	}
	return map[string]any{"id": r.ID, "name": r.ID.Name(), "type": remediationType, "properties": props, "systemData": r.System}
}

func (r *remediation) over() bool { return r.State != accepted && r.State != running }

func (s *Service) putRemediation(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(writeRemediation)
	if err != nil {
		return err
	}
	data, err := resource.ReadBody(w, r)
	if err != nil {
		return err
	}
	var b objectBody
	if err := arm.Decode(data, &b); err != nil {
		return err
	}
	p := remediationProps{Discovery: "ExistingNonCompliant", Count: 500, Parallel: 10}
	if b.Properties != nil {
		if err := arm.DecodeTree(b.Properties, &p); err != nil {
			return err
		}
	}
	switch {
	case !nameForm.MatchString(id.Name()):
		return arm.Errorf(arm.InvalidResourceName, "the name of a remediation must have 1 to 64 characters")
	case p.Count < 1 || p.Count > maxResources:
		return arm.Errorf(arm.InvalidRequest, "resourceCount is %d; it must be 1 to %d", p.Count, maxResources)
	case p.Parallel < 1 || p.Parallel > 30:
		return arm.Errorf(arm.InvalidRequest, "parallelDeployments is %d; it must be 1 to 30", p.Parallel)
	case p.Threshold != nil && (p.Threshold.Percentage < 0 || p.Threshold.Percentage > 1):
		return arm.Errorf(arm.InvalidRequest, "failureThreshold.percentage is %v; it must be 0 to 1", p.Threshold.Percentage)
	}
	x := &remediation{ID: id, Props: p, State: accepted, Created: s.Now().UTC(), Updated: s.Now().UTC(), Correlat: g.Correlation()}
	err = g.Change(r.Context(), s.DB, func(tx *store.Tx) error {
		if x.Scope, err = s.Scope(tx, id.Parent()); err != nil {
			return err
		}
		x.ID, x.Tenant = x.Scope.Child(remediationType, id.Name()), s.Site.TenantOf(x.Scope)
		if p.Discovery == reEvaluate && strings.EqualFold(x.Scope.Type(), "Microsoft.Management/managementGroups") {
			return arm.Errorf("InvalidRemediation", "resourceDiscoveryMode is %s, which does not go with the scope of a management group", reEvaluate)
		}
		if _, _, err := s.repairing(x); err != nil {
			return err
		}
		o := &object{}
		o.System.Stamp(g.Caller(), s.Now())
		x.System = o.System
		if old, err := loadRemediation(tx, id); err == nil && !old.over() {
			return arm.Errorf(arm.Conflict, "the remediation %s is at work; cancel it first", id.Name())
		}
		tx.After(s.wakeUp)
		x.Begun = g.Begin()
		return store.PutJSON(tx, remediationTable, x.ID.Key(), x)
	})
	if err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusCreated, x.show())
	return nil
}

// repairing is the assignment and the rule that a remediation is for.
func (s *Service) repairing(x *remediation) (*bound, *one, error) {
	b, r, err := s.ruleAt(x.Scope, x.Tenant, x.Props.Assignment, x.Props.Ref)
	if err == nil && !needsIdentity(r.rule.Effect) {
		err = arm.Errorf("InvalidRemediation", "the policy has the effect %s; only deployIfNotExists and modify repair", r.rule.Effect)
	}
	return b, r, err
}

// ruleAt is an assignment that reaches a scope, and the rule of it that is meant.
func (s *Service) ruleAt(scope arm.ID, tenant, assignment, ref string) (*bound, *one, error) {
	id, err := arm.ParseID(assignment)
	if err != nil || !strings.EqualFold(id.Type(), assignments.typ) {
		return nil, nil, arm.Errorf(arm.InvalidRequest, "policyAssignmentId is %q; it must be the id of a policy assignment", assignment)
	}
	for _, b := range s.reaching(scope) {
		if b.ID.Key() != id.Key() || b.Tenant != tenant {
			continue
		}
		for _, r := range b.all {
			if b.set == nil && ref == "" || strings.EqualFold(r.ref, ref) {
				return b, r, nil
			}
		}
		return nil, nil, arm.Errorf(arm.InvalidRequest, "policyDefinitionReferenceId is %q, which the assignment does not have", ref)
	}
	return nil, nil, arm.Errorf(arm.InvalidRequest, "the assignment %s does not reach %s", assignment, scope)
}

func (s *Service) getRemediation(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	return s.showRemediation(w, r, g, readRemediation, func(x *remediation) any { return x.show() })
}

func (s *Service) listRepairs(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	return s.showRemediation(w, r, g, readDeployments, func(x *remediation) any {
		list := []any{}
		for _, p := range x.Repairs {
			m := map[string]any{"remediatedResourceId": p.Resource, "resourceLocation": p.Location, "status": p.Status, "createdOn": p.Created, "lastUpdatedOn": p.Updated}
			if p.Deployment != "" {
				m["deploymentId"] = p.Deployment
			}
			if p.Error != "" {
				m["error"] = map[string]any{"code": "RepairFailed", "message": p.Error}
			}
			list = append(list, m)
		}
		return map[string]any{"value": list}
	})
}

func (s *Service) showRemediation(w http.ResponseWriter, r *http.Request, g gate.Grant, a arm.Action, show func(*remediation) any) error {
	id, err := g.On(a)
	if err != nil {
		return err
	}
	return s.DB.View(r.Context(), func(tx *store.Tx) error {
		x, err := loadRemediation(tx, id)
		if err != nil {
			return err
		}
		gate.WriteJSON(w, http.StatusOK, show(x))
		return nil
	})
}

func (s *Service) listRemediations(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	scope, err := g.On(readRemediation)
	if err != nil {
		return err
	}
	var found []remediation
	if err := s.DB.View(r.Context(), func(tx *store.Tx) error {
		if _, err := s.Scope(tx, scope); err != nil {
			return err
		}
		found, err = store.ScanJSON[remediation](tx, remediationTable, "", "", 0)
		return err
	}); err != nil {
		return err
	}
	list := []any{}
	for i := range found {
		if found[i].Tenant == g.Caller().Tenant && s.below(found[i].Scope, scope) {
			list = append(list, found[i].show())
		}
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{"value": list})
	return nil
}

func (s *Service) deleteRemediation(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(deleteRemediation)
	if err != nil {
		return err
	}
	var x *remediation
	err = g.Change(r.Context(), s.DB, func(tx *store.Tx) error {
		if x, err = loadRemediation(tx, id); err != nil {
			if arm.CodeOf(err) == "RemediationNotFound" {
				return nil
			}
			return err
		}
		if !x.over() {
			return arm.Errorf(arm.Conflict, "the remediation %s is at work; cancel it first", id.Name())
		}
		return tx.Delete(remediationTable, id.Key())
	})
	if err != nil {
		return err
	}
	if x == nil {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	gate.WriteJSON(w, http.StatusOK, x.show())
	return nil
}

func (s *Service) cancelRemediation(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(cancelRemediation)
	if err != nil {
		return err
	}
	var x *remediation
	err = g.Change(r.Context(), s.DB, func(tx *store.Tx) error {
		if x, err = loadRemediation(tx, id); err != nil {
			return err
		}
		if x.over() {
			return arm.Errorf(arm.Conflict, "the remediation %s is over: %s", id.Name(), x.State)
		}
		x.State, x.Updated = canceled, s.Now().UTC()
		if err := s.Gate.Ended(tx, x.Begun, "RemediationCanceled"); err != nil {
			return err
		}
		return store.PutJSON(tx, remediationTable, x.ID.Key(), x)
	})
	if err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, x.show())
	return nil
}

// pending is a resource for deployIfNotExists to look at.
type pending struct {
	Resource   arm.ID    `json:"resource"`
	Assignment string    `json:"assignment"` // key
	Ref        string    `json:"ref,omitempty"`
	After      time.Time `json:"after,omitzero"` // not before
}

func (p pending) key() string { return p.Resource.Key() + "|" + p.Assignment + "|" + p.Ref }

// wakeUp has Run look for work.
func (s *Service) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run repairs what policies find, until ctx is done: after changes, and by
// remediation tasks. What was left undone by a crash it does again.
func (s *Service) Run(ctx context.Context) error {
	s.wakeUp()
	timer := time.NewTicker(5 * time.Second) // for resources that were still being made
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-timer.C:
		}
		if err := s.work(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

func (s *Service) work(ctx context.Context) error {
	var todo []pending
	var tasks []remediation
	err := s.DB.View(ctx, func(tx *store.Tx) (err error) {
		if todo, err = store.ScanJSON[pending](tx, pendingTable, "", "", 0); err != nil {
			return err
		}
		tasks, err = store.ScanJSON[remediation](tx, remediationTable, "", "", 0)
		return err
	})
	if err != nil {
		return err
	}
	if err := s.scanAll(ctx); err != nil {
		return err
	}
	for _, p := range todo {
		if s.Now().Before(p.After) {
			continue
		}
		if err := s.after(ctx, p); err != nil {
			return err
		}
	}
	for i := range tasks {
		if !tasks[i].over() {
			if err := s.remediate(ctx, &tasks[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// after looks at a resource after a change, and deploys what it lacks.
func (s *Service) after(ctx context.Context, p pending) error {
	var b *bound
	var r *one
	for _, x := range s.reaching(p.Resource) {
		if x.ID.Key() == p.Assignment {
			b = x
			r = x.member(p.Ref)
		}
	}
	if b != nil && r != nil && b.enforce {
		if wait, meant, err := s.provisioned(ctx, p.Resource, r.rule.Details.After); err != nil || wait {
			return err
		} else if !meant {
			return s.DB.Do(ctx, func(tx *store.Tx) error { return tx.Delete(pendingTable, p.key()) })
		}
		wait, err := s.repair(ctx, b, r, &repair{Resource: p.Resource})
		if err != nil || wait {
			return err
		}
	}
	return s.DB.Do(ctx, func(tx *store.Tx) error { return tx.Delete(pendingTable, p.key()) })
}

// provisioned reports whether a change is over, and whether it went as a rule
// wants that looks after successes or failures alone.
func (s *Service) provisioned(ctx context.Context, id arm.ID, after string) (wait, meant bool, err error) {
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		d, err := resource.Load(tx, id)
		if err != nil || d == nil {
			return err
		}
		switch state := resource.StateOf(d); state {
		case "", resource.Succeeded:
			meant = after != "Failure"
		case resource.Failed, canceled:
			meant = after != "Success"
		default:
			wait = true
		}
		return nil
	})
	return wait, meant, err
}

func (b *bound) member(ref string) *one {
	for _, x := range b.all {
		if x.ref == ref {
			return x
		}
	}
	return nil
}

// principal is the identity of an assignment.
func (b *bound) principal() string {
	if b.Identity == nil {
		return ""
	}
	for _, u := range b.Identity.Users {
		return u.Principal
	}
	return b.Identity.Principal
}

// remediate works through a task, as many resources side by side as it says,
// until all are done, too many failed, or it was canceled.
func (s *Service) remediate(ctx context.Context, x *remediation) error {
	b, r, err := s.repairing(x)
	if err != nil { // the assignment went meanwhile
		x.State = failed
		return s.keepRemediation(ctx, x)
	}
	if x.State == accepted {
		if err := s.discover(ctx, x, b, r); err != nil {
			return err
		}
		x.State = running
		if err := s.keepRemediation(ctx, x); err != nil {
			return err
		}
	}
	for {
		next, bad := x.next()
		if x.tooMany(bad) {
			for _, p := range next {
				p.Status = canceled
			}
			next = nil
		}
		if len(next) == 0 {
			if x.State = succeeded; bad > 0 {
				x.State = failed
			}
			return s.keepRemediation(ctx, x)
		}
		if err := s.repairAll(ctx, b, r, next[:min(len(next), x.Props.Parallel)]); err != nil {
			return err
		}
		if err := s.keepRemediation(ctx, x); err != nil || x.State == canceled {
			return err
		}
	}
}

// next are the repairs that were not done yet; bad is how many failed.
func (x *remediation) next() (next []*repair, bad int) {
	for i := range x.Repairs {
		switch p := &x.Repairs[i]; p.Status {
		case succeeded, canceled:
		case failed:
			bad++
		default:
			next = append(next, p)
		}
	}
	return next, bad
}

// tooMany reports whether so many repairs failed that the task ends.
func (x *remediation) tooMany(bad int) bool {
	return x.Props.Threshold != nil && float64(bad) > x.Props.Threshold.Percentage*float64(len(x.Repairs))
}

// repairAll repairs some resources side by side.
func (s *Service) repairAll(ctx context.Context, b *bound, r *one, some []*repair) error {
	errs := make([]error, len(some))
	var group sync.WaitGroup
	for i, p := range some {
		group.Go(func() {
			wait, err := s.repair(ctx, b, r, p)
			if errs[i] = err; wait {
				p.Status, p.Error = failed, "the resource is still being made or changed"
			}
			p.Updated = s.Now().UTC()
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// keepRemediation writes x, unless it was canceled or deleted meanwhile.
func (s *Service) keepRemediation(ctx context.Context, x *remediation) error {
	x.Updated = s.Now().UTC()
	return s.DB.Do(ctx, func(tx *store.Tx) error {
		old, err := loadRemediation(tx, x.ID)
		if err != nil || old.over() {
			x.State = canceled
			return nil
		}
		if x.over() {
			if err := s.Gate.Ended(tx, x.Begun, map[string]string{succeeded: "ok", failed: "RemediationFailed"}[x.State]); err != nil {
				return err
			}
		}
		return store.PutJSON(tx, remediationTable, x.ID.Key(), x)
	})
}

// reEvaluate has a task scan before it repairs.
const reEvaluate = "ReEvaluateCompliance"

// discover finds what a task is to repair.
func (s *Service) discover(ctx context.Context, x *remediation, b *bound, r *one) error {
	do := s.DB.View
	if x.Props.Discovery == reEvaluate {
		do = s.DB.Do
	}
	return do(ctx, func(tx *store.Tx) error {
		found, err := s.statesBelow(tx, x.Scope)
		if err == nil && x.Props.Discovery == reEvaluate {
			err = s.remember(tx, found)
		}
		if err != nil {
			return err
		}
		for i := range found {
			st := &found[i]
			if st.ID.Key() != b.ID.Key() || st.ref != r.ref || st.value != NonCompliant || len(x.Repairs) == x.Props.Count {
				continue
			}
			if f := x.Props.Filters; f != nil && len(f.Locations) > 0 && !contains(f.Locations, st.doc.Location) {
				continue
			}
			x.Repairs = append(x.Repairs, repair{Resource: st.doc.ID, Location: st.doc.Location, Status: accepted, Created: s.Now().UTC(), Updated: s.Now().UTC()})
		}
		return nil
	})
}

// repair makes one resource comply, as the assignment's identity and through the
// gate: what the identity may not do is not done. wait is true if the resource
// is not ready yet.
func (s *Service) repair(ctx context.Context, b *bound, r *one, p *repair) (wait bool, err error) {
	var state string
	var in *policy.Input
	ready := true
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		d, err := resource.Load(tx, p.Resource)
		if err != nil || d == nil {
			return err
		}
		ready = slices.Contains([]string{"", resource.Succeeded, resource.Failed, "Canceled"}, resource.StateOf(d))
		doc, err := s.Resources.Tree(d)
		if err != nil {
			return err
		}
		x, err := s.subjectOf(tx, d.ID, d.Type, doc, "")
		if err != nil {
			return err
		}
		in = x.judging(hit{bound: b, one: r})
		state, err = s.judge(tx, x, b, r)
		return err
	})
	switch {
	case err != nil:
		return false, err
	case !ready:
		return true, nil
	case state != NonCompliant:
		p.Status = succeeded
		return false, nil
	}
	if r.rule.Effect == policy.Modify {
		status, answer, err := s.Doors.Do(ctx, b.Tenant, b.principal(), http.MethodPatch, p.Resource, resource.VersionFor(p.Resource.String()), []byte("{}"))
		p.end(status, answer, err)
		return false, ctx.Err()
	}
	p.Deployment, err = s.deploy(ctx, b, r, in, p)
	if err != nil {
		p.Status, p.Error = failed, err.Error()
	}
	return false, ctx.Err()
}

// end is how a request went.
func (p *repair) end(status int, answer []byte, err error) {
	p.Status = succeeded
	if err != nil || status/100 != 2 {
		p.Status, p.Error = failed, said(status, answer, err)
	}
}

func said(status int, answer []byte, err error) string {
	if err != nil {
		_, text := gate.PublicError(err)
		return text
	}
	var e struct {
		Error struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	_ = json.Unmarshal(answer, &e) // what is no error says so by its status
	return fmt.Sprintf("%d %s: %s", status, e.Error.Code, e.Error.Message)
}

// destination is what a rule's template is deployed to, for a resource: its group,
// the one that the rule names, or its subscription, with the location of the record.
func destination(r *one, in *policy.Input, on arm.ID) (to arm.ID, location string, err error) {
	subscription := "/subscriptions/" + on.Subscription()
	if r.rule.Details.DeploymentScope == "subscription" {
		if location, err = r.rule.DeploymentLocation(in); err != nil {
			return arm.ID{}, "", err
		}
		to, err = arm.ParseID(subscription)
		return to, location, err
	}
	want, err := r.rule.Related(in)
	if err != nil {
		return arm.ID{}, "", err
	}
	to = on.Group()
	if want.Group != "" {
		to, err = arm.ParseID(subscription + "/resourceGroups/" + want.Group)
	}
	if err == nil && to.IsZero() {
		err = arm.Errorf(arm.Unsupported, "the resource lies in no group, and the policy names none to deploy to")
	}
	return to, "", err
}

// deploy deploys a rule's template and waits until that is over.
func (s *Service) deploy(ctx context.Context, b *bound, r *one, in *policy.Input, p *repair) (string, error) {
	to, location, err := destination(r, in, p.Resource)
	if err != nil {
		return "", err
	}
	params, err := r.rule.DeploymentParameters(in)
	if err != nil {
		return "", err
	}
	template := r.rule.Details.Template()
	sent := map[string]any{"properties": map[string]any{"mode": "Incremental", "template": template, "parameters": params}}
	if location != "" {
		sent["location"] = location
	}
	body, err := json.Marshal(sent)
	if err != nil {
		return "", err
	}
	id := to.Child("Microsoft.Resources/deployments", "PolicyDeployment_"+arm.NewHex()[:16])
	do := func(method string, body []byte) (int, []byte, error) {
		return s.Doors.Do(ctx, b.Tenant, b.principal(), method, id, resource.VersionFor(id.String()), body)
	}
	status, answer, err := do(http.MethodPut, body)
	timer := time.NewTicker(100 * time.Millisecond)
	defer timer.Stop()
	for range 6000 { // ten minutes
		if p.end(status, answer, err); p.Status == failed {
			return id.String(), nil
		}
		var d struct {
			Properties struct {
				State string `json:"provisioningState"`
				Error struct {
					Code    string `json:"code"`
					Message string `json:"message"`
				} `json:"error"`
			} `json:"properties"`
		}
		if err := json.Unmarshal(answer, &d); err != nil {
			return id.String(), err
		}
		switch d.Properties.State {
		case succeeded:
			return id.String(), nil
		case failed, canceled:
			p.Status, p.Error = failed, d.Properties.Error.Code+": "+d.Properties.Error.Message
			return id.String(), nil
		}
		select {
		case <-ctx.Done():
			return id.String(), ctx.Err()
		case <-timer.C:
		}
		status, answer, err = do(http.MethodGet, nil)
	}
	return id.String(), arm.Errorf(arm.Conflict, "the deployment was not over after ten minutes")
}
