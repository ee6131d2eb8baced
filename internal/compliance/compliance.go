// Package compliance keeps policy definitions, initiatives, assignments and
// exemptions as resources, has policies judge every change, and knows which
// resources comply.
//
// The store has the truth; what is in force lies in memory, follows the store
// after every commit and is filled from it by Load.
package compliance

import (
	"context"
	"errors"
	"net/http"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// Config is what a Service is made of. All must be there.
type Config struct {
	DB   *store.DB
	Gate *gate.Gate
	Site arm.Site
	Now  func() time.Time
	// Scope is a scope as it was first written, or the error that says what of
	// it does not exist.
	Scope func(tx *store.Tx, id arm.ID) (arm.ID, error)
	// Above are the keys of the scopes that hold id, without id.
	Above func(id arm.ID) []string
	// Subscriptions are the ids of a tenant's subscriptions.
	Subscriptions func(tenant string) []string
	// Resources knows the kinds, and shows a resource as answers do.
	Resources Resources
	// Identities makes the identities of assignments.
	Identities resource.Identities
	// Jobs tells what policies of data planes' modes want to know of a job.
	Jobs func(tx *store.Tx, d *resource.Doc) (Job, error)
	// Doors carries requests through the gate as an assignment's identity.
	Doors Doors
}

// Resources is what compliance needs to know of resources.
type Resources interface {
	Kind(typ string) *resource.Kind
	Tree(d *resource.Doc) (map[string]any, error)
}

// Doors sends a request to Resource Manager as the identity of an assignment.
type Doors interface {
	Do(ctx context.Context, tenant, object, method string, id arm.ID, apiVersion string, body []byte) (status int, answer []byte, err error)
}

// Service keeps policies and judges by them.
type Service struct {
	Config
	force inForce
	wake  chan struct{} // has Run look for work
}

// The actions that compliance asks for.
var (
	// Exempt is asked for on an assignment by whoever exempts from it.
	Exempt           = arm.NewAction("Microsoft.Authorization/policyAssignments/exempt/action", "exempt resources from a policy assignment")
	queryStates      = arm.NewAction("Microsoft.PolicyInsights/policyStates/queryResults/action", "see which resources comply with policies")
	sumStates        = arm.NewAction("Microsoft.PolicyInsights/policyStates/summarize/action", "see how many resources comply with policies")
	triggerScan      = arm.NewAction("Microsoft.PolicyInsights/policyStates/triggerEvaluation/action", "have all resources judged by policies now")
	queryEvents      = arm.NewAction("Microsoft.PolicyInsights/policyEvents/queryResults/action", "see what policies did to requests")
	readRestrictions = arm.NewAction("Microsoft.PolicyInsights/checkPolicyRestrictions/read", "see what policies would say of a resource")
)

// New is a Service over what c names. Load must have succeeded before the first
// request.
func New(c Config) (*Service, error) {
	if c.DB == nil || c.Gate == nil || c.Now == nil || c.Scope == nil || c.Above == nil || c.Subscriptions == nil || c.Resources == nil || c.Identities == nil || c.Jobs == nil || c.Doors == nil {
		return nil, errors.New("compliance: every field of Config must be set")
	}
	s := &Service{Config: c, wake: make(chan struct{}, 1)}
	s.force.clear()
	return s, nil
}

// Routes are the doors of Resource Manager that compliance serves.
func (s *Service) Routes() []gate.Route {
	const at = "/{scope...}/providers/"
	const insights = at + "Microsoft.PolicyInsights/"
	var out []gate.Route
	for _, k := range s.kinds() {
		out = append(out, s.routes(k)...)
	}
	out = append(out, s.remediationRoutes()...)
	return append(out,
		gate.On(queryStates, "POST "+insights+"policyStates/{which}/queryResults", behind(5), s.states),
		gate.On(queryStates, "POST "+insights+"componentPolicyStates/latest/queryResults", behind(5), s.components),
		gate.On(sumStates, "POST "+insights+"policyStates/{which}/summarize", behind(5), s.summary),
		gate.On(triggerScan, "POST "+insights+"policyStates/latest/triggerEvaluation", behind(5), s.scan),
		gate.On(queryEvents, "POST "+insights+"policyEvents/default/queryResults", behind(5), s.events),
		gate.On(readRestrictions, "POST "+insights+"checkPolicyRestrictions", behind(3), s.restrictions),
	)
}

// behind locates the scope in front of the path's last n segments.
func behind(n int) gate.Locate {
	return func(r *http.Request, v gate.Vars) (gate.Target, error) {
		t, err := resource.Locate(r, n)
		t.Item = v["which"]
		return t, err
	}
}
