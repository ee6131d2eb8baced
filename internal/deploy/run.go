package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/resource"
	"castellan/internal/store"
	"castellan/internal/template"
)

// How long a run looks at a resource that is on its way.
const (
	firstLook = 200 * time.Millisecond // doubled at every look
	lastLook  = 5 * time.Second
	maxWait   = 25 * time.Minute // for one resource
)

// run is one deployment under way.
type run struct {
	s    *Service
	doc  *resource.Doc
	in   inner
	as   arm.Caller
	d    *template.Deployment
	hide *strings.Replacer // takes the secrets of parameters out of what others say
}

// apply deploys what is still to be deployed. It may be called again at any
// point: resources that are recorded as done are not written twice.
func (s *Service) apply(ctx context.Context, doc *resource.Doc) error {
	in, err := innerOf(doc)
	if err != nil {
		return err
	}
	if in.Over || over(resource.StateOf(doc)) {
		return ended(doc)
	}
	as, err := s.Callers.Known(in.Tenant, in.Object)
	if err != nil {
		return arm.Errorf("DeploymentFailed", "The deployment's caller is gone or may not sign in any more, so the deployment was stopped.")
	}
	d, err := s.load(ctx, doc.ID, in)
	if err != nil {
		return err
	}
	r := &run{s: s, doc: doc, in: in, as: as, d: d, hide: hider(d.Secrets())}
	plan, err := d.Plan()
	if err != nil {
		return err
	}
	d.At(func(id, version string, full bool) (any, error) { return r.reference(ctx, id, version, full) })
	for i, x := range plan {
		if err := r.step(ctx, i, x); err != nil {
			return r.fail(ctx, err)
		}
	}
	if in.Complete {
		if err := r.purge(ctx, len(plan)); err != nil {
			return r.fail(ctx, err)
		}
	}
	outputs, err := r.outputs()
	if err != nil {
		return r.fail(ctx, err)
	}
	return r.finish(ctx, plan, outputs, nil)
}

// ended is how a run ended that is over.
func ended(doc *resource.Doc) error {
	var p properties
	if err := json.Unmarshal(doc.Properties, &p); err != nil {
		return fmt.Errorf("reading the properties of %s: %w", doc.ID, err)
	}
	if p.Error == nil {
		return nil
	}
	return p.Error.told()
}

// told is the error of a failed deployment as its operation tells it.
func (p *problem) told() error {
	e := arm.Errorf(p.Code, "%s", p.Message)
	for _, d := range p.Details {
		e.Message += fmt.Sprintf(" %s: %s: %s", d.Target, d.Code, d.Message)
	}
	return e
}

func hider(secrets []string) *strings.Replacer {
	var pairs []string
	for _, s := range secrets {
		pairs = append(pairs, s, "[redacted]")
	}
	return strings.NewReplacer(pairs...)
}

// step deploys one resource.
func (r *run) step(ctx context.Context, i int, x *template.Resource) error {
	op, err := r.recorded(ctx, i)
	if err != nil {
		return err
	}
	if op != nil && over(op.State) {
		return nil
	}
	on, err := x.On()
	if err != nil || !on {
		return err
	}
	body, err := x.Body()
	if err != nil {
		return err
	}
	if p, ok := body["properties"].(map[string]any); ok && x.IsDeployment() && strings.EqualFold(fmt.Sprint(p["mode"]), "Complete") {
		return nestedComplete(x.ID)
	}
	data, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("writing %s: %w", x.ID, err)
	}
	if op == nil {
		op = &operation{Index: i, Target: x.ID, Type: x.Type, Began: r.s.Now().UTC()}
	}
	op.State = "Running"
	if err := r.record(ctx, op); err != nil {
		return err
	}
	a, err := r.s.Doors.Do(ctx, r.as, http.MethodPut, x.ID, x.APIVersion, data)
	if err == nil && a.Status/100 == 2 {
		a, err = r.await(ctx, x, a)
	}
	if err != nil {
		return err
	}
	if a.Status >= 500 || a.Status == http.StatusTooManyRequests {
		return fmt.Errorf("deploying %s: the answer is %d", x.ID, a.Status)
	}
	op.Status = a.Status
	op.State = "Succeeded"
	if a.Status/100 != 2 {
		op.State, op.Error = "Failed", r.problemOf(a)
	}
	if err := r.record(ctx, op); err != nil {
		return err
	}
	if op.Error != nil {
		return &failure{*op.Error, x.ID}
	}
	return nil
}

// failure is why a resource could not be deployed.
type failure struct {
	problem
	on arm.ID
}

func (f *failure) Error() string { return fmt.Sprintf("%s: %s: %s", f.on, f.Code, f.Message) }

// problemOf is the error in a door's answer, without the secrets that it may repeat.
func (r *run) problemOf(a Answer) *problem {
	var b struct {
		Error problem `json:"error"`
	}
	if json.Unmarshal(a.Body, &b) != nil || b.Error.Code == "" {
		b.Error = problem{Code: "Unknown", Message: fmt.Sprintf("the answer is %d", a.Status)}
	}
	b.Error.Message = r.hide.Replace(b.Error.Message)
	b.Error.Details = nil
	return &b.Error
}

// await looks at a resource until it changes no more. The answer is a failure's
// if the resource failed.
func (r *run) await(ctx context.Context, x *template.Resource, a Answer) (Answer, error) {
	operation := a.Operation
	wait, until := firstLook, r.s.Now().Add(maxWait)
	for {
		state := stateOf(a.Body)
		switch {
		case a.Status/100 != 2:
			return a, nil
		case strings.EqualFold(state, "failed") || strings.EqualFold(state, "canceled"):
			return r.why(ctx, operation, state), nil
		case over(state) && a.Status != http.StatusAccepted:
			return a, nil
		case r.s.Now().After(until):
			return problemAnswer(http.StatusConflict, "DeploymentTimeout", fmt.Sprintf("The resource was still %s after %v.", state, maxWait)), nil
		}
		if err := r.s.Pause(ctx, wait); err != nil {
			return a, err
		}
		wait = min(2*wait, lastLook)
		var err error
		if a, err = r.s.Doors.Do(ctx, r.as, http.MethodGet, x.ID, x.APIVersion, nil); err != nil {
			return a, err
		}
		if a.Status >= 500 || a.Status == http.StatusTooManyRequests {
			a = Answer{Status: http.StatusAccepted} // look again
		}
	}
}

func stateOf(body []byte) string {
	var b struct {
		Properties struct {
			State string `json:"provisioningState"`
		} `json:"properties"`
	}
	if json.Unmarshal(body, &b) != nil {
		return "" // kinds without a state are ready when they are written
	}
	return b.Properties.State
}

func problemAnswer(status int, code arm.Code, message string) Answer {
	b, err := json.Marshal(map[string]any{"error": problem{Code: code, Message: message}})
	if err != nil { // strings can't fail
		return Answer{Status: status}
	}
	return Answer{Status: status, Body: b}
}

// why asks the operation that failed for its reason.
func (r *run) why(ctx context.Context, operation, state string) Answer {
	out := problemAnswer(http.StatusConflict, "ResourceDeploymentFailure", "The resource ended in the state "+state+".")
	path, ok := strings.CutPrefix(operation, r.s.Site.Base())
	if !ok {
		return out
	}
	path, _, _ = strings.Cut(path, "?")
	id, err := arm.ParseID(path)
	if err != nil {
		return out
	}
	a, err := r.s.Doors.Do(ctx, r.as, http.MethodGet, id, resource.VersionFor(id.String()), nil)
	if err != nil || a.Status != http.StatusOK {
		return out
	}
	var b struct {
		Error *problem `json:"error"`
	}
	if json.Unmarshal(a.Body, &b) != nil || b.Error == nil || b.Error.Code == "" {
		return out
	}
	return problemAnswer(http.StatusConflict, b.Error.Code, b.Error.Message)
}

// reference is the state of a resource, as the deployment's caller may see it.
func (r *run) reference(ctx context.Context, text, version string, full bool) (any, error) {
	id, err := arm.ParseID(text)
	if err != nil {
		return nil, arm.Errorf(template.InvalidTemplate, "reference is of something that is neither a resource id nor a resource of the template")
	}
	if version == "" {
		version = resource.VersionFor(text)
	}
	a, err := r.s.Doors.Do(ctx, r.as, http.MethodGet, id, version, nil)
	if err != nil {
		return nil, err
	}
	if a.Status >= 500 || a.Status == http.StatusTooManyRequests {
		return nil, fmt.Errorf("referring to %s: the answer is %d", id, a.Status)
	}
	if a.Status/100 != 2 {
		return nil, &failure{*r.problemOf(a), id}
	}
	v, err := template.Read(a.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the state of %s: %w", id, err)
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("deploy: the state of %s is no object", id)
	}
	m = template.Whole(m).(map[string]any)
	if full {
		m["apiVersion"] = version
		return m, nil
	}
	if p, ok := m["properties"]; ok {
		return p, nil
	}
	return map[string]any{}, nil
}

func (r *run) outputs() (map[string]any, error) {
	outs, err := r.d.Outputs()
	if err != nil {
		return nil, err
	}
	shown := map[string]any{}
	for k, o := range outs {
		x := map[string]any{"type": o.Type}
		if !o.Secret {
			x["value"] = o.Value
		}
		shown[k] = x
	}
	return shown, nil
}

// fail ends the run with err, if it is one that trying again will not mend.
func (r *run) fail(ctx context.Context, err error) error {
	var f *failure
	var e *arm.Error
	switch {
	case errors.As(err, &f):
	case errors.As(err, &e) && e.Code != arm.Internal:
		f = &failure{problem{Code: e.Code, Message: r.hide.Replace(e.Message), Target: e.Target}, resource.Shown(r.doc.ID)}
	default:
		return err
	}
	f.Target = f.on.String()
	p := &problem{Code: "DeploymentFailed", Target: resource.Shown(r.doc.ID).String(), Message: "At least one resource deployment operation failed. Please list deployment operations for details.", Details: []problem{f.problem}}
	if err := r.finish(ctx, nil, nil, p); err != nil {
		return err
	}
	return p.told()
}

// finish writes down what became of the run, and forgets its parameters. What
// was made meanwhile under the deployment's name is not touched.
func (r *run) finish(ctx context.Context, plan []*template.Resource, outputs map[string]any, failed *problem) error {
	return r.s.DB.Do(ctx, func(tx *store.Tx) error {
		d, err := resource.Load(tx, r.doc.ID)
		if err != nil || d == nil || d.Instance != r.doc.Instance || d.Etag != r.doc.Etag {
			return err
		}
		var p properties
		if err := json.Unmarshal(d.Properties, &p); err != nil {
			return fmt.Errorf("reading the properties of %s: %w", d.ID, err)
		}
		now := r.s.Now().UTC()
		p.Timestamp, p.Duration, p.Outputs, p.Error = &now, duration(now.Sub(r.in.Began)), outputs, failed
		p.Resources = nil
		for _, x := range plan {
			p.Resources = append(p.Resources, reference{x.ID})
		}
		if d.Properties, err = json.Marshal(p); err != nil {
			return err
		}
		in := r.in
		in.Parameters, in.Over = nil, true
		if d.Inner, err = json.Marshal(in); err != nil {
			return err
		}
		return resource.Save(tx, d)
	})
}

// duration is d as ISO 8601 writes it.
func duration(d time.Duration) string {
	h, m, s := int(d.Hours()), int(d.Minutes())%60, d.Seconds()-60*float64(int(d.Minutes()))
	out := "PT"
	if h > 0 {
		out += fmt.Sprintf("%dH", h)
	}
	if h > 0 || m > 0 {
		out += fmt.Sprintf("%dM", m)
	}
	return out + fmt.Sprintf("%.7fS", s)
}
