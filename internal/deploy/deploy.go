// Package deploy deploys resource templates, as the one who asked for it.
//
// A deployment is a resource. Its template is worked out, and every resource in
// it judged, before anything is made; then each resource is written through the
// door by which the caller would have come. A deployment has no rights of its
// own: what its caller may not do, it can't.
package deploy

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// Doors are the doors of Resource Manager, for somebody who is inside already.
type Doors interface {
	// May says whether there is a door to put or delete a resource, and if so
	// what it asks for and whether the caller may.
	May(as arm.Caller, method string, id arm.ID) (known, allowed bool, action string)
	// Spared is nil, or the error that says which lock or policy keeps the
	// resource from being deleted.
	Spared(ctx context.Context, as arm.Caller, id arm.ID) error
	// Preview is what a PUT of body would make of a resource that the caller may
	// read and write, or the error that it would come to; nil if that can't be
	// told. fresh says that what is to hold the resource is not there yet.
	Preview(ctx context.Context, as arm.Caller, id arm.ID, apiVersion string, body []byte, fresh bool) (*resource.Forecast, error)
	// Do carries a request through the gate as the caller: it is decided and
	// recorded as if it had come from outside. An error means that it is not
	// known what became of it; refusals are answers.
	Do(ctx context.Context, as arm.Caller, method string, id arm.ID, apiVersion string, body []byte) (Answer, error)
}

// Answer is what a door answered.
type Answer struct {
	Status    int
	Operation string // what Azure-AsyncOperation says, or ""
	Body      []byte
}

// Callers knows principals as they are now: a deployment goes on only while its
// caller may sign in, and with the groups that the caller has by then.
type Callers interface {
	Known(tenant, object string) (arm.Caller, error)
}

// Config is what a Service needs: all of it but Pause.
type Config struct {
	DB      *store.DB
	Site    arm.Site
	Now     func() time.Time
	Doors   Doors
	Callers Callers
	// Scope is the id as it was first written of a subscription, management group
	// or the tenant, or the error that says that there is none.
	Scope func(tx *store.Tx, id arm.ID) (arm.ID, error)
	// Pause waits between two looks at a resource that is on its way; the
	// default waits for real.
	Pause func(ctx context.Context, d time.Duration) error
}

// Service is all deployments of an installation.
type Service struct {
	Config
	kind *resource.Kind
}

// New is a Service.
func New(c Config) (*Service, error) {
	if c.DB == nil || c.Now == nil || c.Doors == nil || c.Callers == nil || c.Scope == nil {
		return nil, fmt.Errorf("deploy: the configuration lacks a store, a clock, the doors, the callers or the scopes")
	}
	if c.Pause == nil {
		c.Pause = pause
	}
	s := &Service{Config: c}
	s.kind = &resource.Kind{
		Type: deploymentType, SystemData: "2025-04-01", Doc: "a deployment of a template", Parent: resource.Group,
		Global: true, NoPatch: true, Waits: true, Deleted: http.StatusAccepted,
		Props: func() any { return &properties{} },
		Body:  strict, Check: s.check, Needs: s.needs, Save: s.save, Remove: s.remove, Apply: s.apply, Show: show,
		Wide: func(tx *store.Tx, scope arm.ID) error { _, err := s.Scope(tx, scope); return err },
	}
	return s, nil
}

const deploymentType = "Microsoft.Resources/deployments"

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Kinds are the kinds of resources that the service has.
func (s *Service) Kinds() []*resource.Kind { return []*resource.Kind{s.kind} }

// Actions beside reading, writing and deleting deployments.
var (
	Validate      = arm.NewAction("Microsoft.Resources/deployments/validate/action", "see whether a template could be deployed")
	WhatIf        = arm.NewAction("Microsoft.Resources/deployments/whatIf/action", "see what a template would change")
	Cancel        = arm.NewAction("Microsoft.Resources/deployments/cancel/action", "stop a deployment where it is")
	Export        = arm.NewAction("Microsoft.Resources/deployments/exportTemplate/action", "see a deployment's template")
	ReadOperation = arm.NewAction("Microsoft.Resources/deployments/operations/read", "see what a deployment did")
)

// Routes are the doors that the kind does not give.
func (s *Service) Routes() []gate.Route {
	const group = "/subscriptions/{sub}/resourcegroups/{group}"
	const old = group + "/deployments/{name}" // which older clients ask
	inGroup := func(r *http.Request, v gate.Vars) (gate.Target, error) { return resource.InGroup(r, v, deploymentType) }
	out := []gate.Route{
		gate.On(ReadOperation, "GET "+old+"/operations", inGroup, s.listOperations),
		gate.On(ReadOperation, "GET "+old+"/operations/{op}", inGroup, s.readOperation),
	}
	for _, scope := range append([]string{group}, resource.Wide...) {
		one := scope + "/providers/" + deploymentType + "/{name}"
		out = append(out,
			gate.On(Validate, "POST "+one+"/validate", locate, s.validate),
			gate.On(WhatIf, "POST "+one+"/whatIf", locate, s.whatIf),
			gate.On(Cancel, "POST "+one+"/cancel", locate, s.cancel),
			gate.On(Export, "POST "+one+"/exportTemplate", locate, s.export),
			gate.On(ReadOperation, "GET "+one+"/operations", locate, s.listOperations),
			gate.On(ReadOperation, "GET "+one+"/operations/{op}", locate, s.readOperation),
		)
	}
	return out
}

// locate is the deployment in front of an action, or of operations/{op}.
func locate(r *http.Request, v gate.Vars) (gate.Target, error) {
	cut := 1
	if v["op"] != "" {
		cut = 2
	}
	t, err := resource.Locate(r, cut)
	t.Item = v["op"]
	return t, err
}

// properties are those of a deployment: what a client sends and, behind that,
// what became of it.
type properties struct {
	Mode           string          `json:"mode,omitempty" arm:"only=Incremental|Complete"`
	Template       json.RawMessage `json:"template,omitempty"`
	Parameters     json.RawMessage `json:"parameters,omitempty"`
	TemplateLink   any             `json:"templateLink,omitempty"`
	ParametersLink any             `json:"parametersLink,omitempty"`
	OnError        any             `json:"onErrorDeployment,omitempty" arm:"since=2018-02-01"`
	Debug          any             `json:"debugSetting,omitempty"`
	Evaluation     any             `json:"expressionEvaluationOptions,omitempty" arm:"since=2020-06-01"`
	Level          string          `json:"validationLevel,omitempty" arm:"only=Provider,since=2024-11-01"`

	State       string         `json:"provisioningState,omitempty" arm:"readonly"`
	Hash        string         `json:"templateHash,omitempty" arm:"readonly,since=2019-10-01"`
	Correlation string         `json:"correlationId,omitempty" arm:"readonly"`
	Timestamp   *time.Time     `json:"timestamp,omitempty" arm:"readonly"`
	Duration    string         `json:"duration,omitempty" arm:"readonly,since=2019-05-01"`
	Outputs     map[string]any `json:"outputs,omitempty" arm:"readonly"`
	Resources   []reference    `json:"outputResources,omitempty" arm:"readonly,since=2019-10-01"`
	Validated   []reference    `json:"validatedResources,omitempty" arm:"readonly,since=2019-10-01"`
	Error       *problem       `json:"error,omitempty" arm:"readonly"`
	Providers   []any          `json:"providers,omitempty" arm:"readonly"`
	Needs       []any          `json:"dependencies,omitempty" arm:"readonly"`
}

// reference is a resource, by its id.
type reference struct {
	ID arm.ID `json:"id"`
}

// problem is an error as ARM writes it.
type problem struct {
	Code    arm.Code  `json:"code"`
	Message string    `json:"message"`
	Target  string    `json:"target,omitempty"`
	Details []problem `json:"details,omitempty"`
}

// inner is what a deployment keeps for its run, and no answer shows.
type inner struct {
	Template   json.RawMessage `json:"template"`
	Parameters json.RawMessage `json:"parameters,omitempty"` // until the run is over: there may be secrets among them
	Tenant     string          `json:"tenant"`
	Object     string          `json:"object"` // the caller's object id
	Seed       string          `json:"seed"`   // of the run; its operations lie under it
	Began      time.Time       `json:"began"`
	Over       bool            `json:"over,omitempty"` // the end is written into the properties
	Complete   bool            `json:"complete,omitempty"`
	Location   string          `json:"location,omitempty"`
	KeepOff    bool            `json:"keepOff,omitempty"` // Complete leaves alone what a condition leaves out
}

func show(d *resource.Doc, props map[string]any) {
	switch props["provisioningState"] {
	case "Creating", "Updating":
		props["provisioningState"] = "Running"
	}
	for _, list := range []string{"providers", "dependencies"} {
		props[list] = []any{}
	}
}

// over reports whether a resource in this state changes no more.
func over(state string) bool {
	switch strings.ToLower(state) {
	case "", "succeeded", "failed", "canceled":
		return true
	}
	return false
}
