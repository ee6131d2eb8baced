package compliance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/policy"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// Disallowed is the code of what a policy denies.
const Disallowed arm.Code = "RequestDisallowedByPolicy"

// hit is a rule that applies to a resource.
type hit struct {
	*bound
	*one
	component arm.ID // the job that was judged by a rule of a data plane's mode
	err       error  // the rule could not be judged, which counts as a yes
}

// found is what Review found of a change, for Settled.
type found struct {
	hits []hit
}

// subject is a resource that is judged.
type subject struct {
	id       arm.ID
	typ      string
	location string
	tracked  bool
	changed  time.Time // when it last was; zero if nobody knows
	input    *policy.Input
}

// subjectOf makes a subject of a document as answers show it.
func (s *Service) subjectOf(tx *store.Tx, id arm.ID, typ string, doc map[string]any, version string) (*subject, error) {
	doc, _ = policy.Plain(doc).(map[string]any)
	x := &subject{id: id, typ: strings.ToLower(typ), input: &policy.Input{Resource: doc, APIVersion: version, Now: s.Now()}}
	x.location, _ = doc["location"].(string)
	if sys, is := doc["systemData"].(map[string]any); is {
		at, _ := sys["lastModifiedAt"].(string)
		x.changed, _ = time.Parse(time.RFC3339, at) // zero looks at once
	}
	if k := s.Resources.Kind(typ); k != nil {
		x.tracked = k.Tracked()
	}
	if id.Type() != typ && doc["fullName"] == nil { // Azure's fullName has the parents' names too
		doc["fullName"] = fullName(id)
	}
	if sub := id.Subscription(); sub != "" {
		x.input.Subscription = map[string]any{"id": "/subscriptions/" + sub, "subscriptionId": sub, "tenantId": s.Site.TenantOf(id)}
		if d, err := resource.Load(tx, arm.MustID("/subscriptions/"+sub)); err != nil {
			return nil, err
		} else if d != nil {
			x.input.Subscription["tags"] = tags(d)
		}
	}
	if g := id.Group(); !g.IsZero() && g.Key() != id.Key() {
		d, err := resource.Load(tx, g)
		if err != nil {
			return nil, err
		}
		if d != nil {
			x.input.Group = map[string]any{"id": d.ID.String(), "name": d.Name, "location": d.Location, "tags": tags(d), "type": d.Type}
		}
	}
	return x, nil
}

func tags(d *resource.Doc) map[string]any {
	out := map[string]any{}
	for k, v := range d.Tags {
		out[k] = v
	}
	return out
}

// fullName is the names of a resource and of what holds it, parted by slashes.
func fullName(id arm.ID) string {
	names := []string{id.Name()}
	for p := id.Parent(); strings.Count(p.Type(), "/") < strings.Count(id.Type(), "/") && strings.Contains(p.Type(), "/") && p.Key() != id.Group().Key() && p.Subscription() != ""; p = p.Parent() {
		if p.Key() == p.Group().Key() {
			break
		}
		names = append(names, p.Name())
	}
	slices.Reverse(names)
	return strings.Join(names, "/")
}

// judging is what a rule knows when it judges: the subject, and which
// assignment the rule is of.
func (x *subject) judging(h hit) *policy.Input {
	in := *x.input
	in.Policy = h.itself
	return &in
}

// itself is what the function policy() gives.
func (h *hit) itself() map[string]any {
	out := map[string]any{"assignmentId": h.ID.String(), "definitionId": h.def.id.String(), "setDefinitionId": "", "definitionReferenceId": h.ref}
	if h.set != nil {
		out["setDefinitionId"] = h.set.id.String()
	}
	return out
}

// hits are the rules that apply to x, of those that want picks.
func (s *Service) hits(all []*bound, x *subject, want func(policy.Effect) bool) []hit {
	var out []hit
	var h hit
	in := *x.input
	in.Policy = func() map[string]any { return h.itself() }
	for _, b := range all {
		if !selected(b.selectors, x.typ, x.location) {
			continue
		}
		for _, r := range b.rules(x.typ) {
			if !want(r.rule.Effect) || r.rule.Mode == policy.Indexed && !x.tracked {
				continue
			}
			h = hit{bound: b, one: r}
			yes, err := r.rule.Applies(&in)
			if !yes && err == nil || s.exempting(b, r, x.id, x.typ, x.location) != nil {
				continue
			}
			h.err = err
			out = append(out, h)
		}
	}
	return out
}

func is(of ...policy.Effect) func(policy.Effect) bool {
	return func(e policy.Effect) bool { return slices.Contains(of, e) }
}

// Review has all policies that reach c.Doc judge it, in Azure's order: those
// that change it first, then, of the outcome, those that deny it.
func (s *Service) Review(tx *store.Tx, c *resource.Change, doc map[string]any) (func(map[string]any) error, error) {
	all := s.reaching(c.Doc.ID)
	if len(all) == 0 {
		return nil, nil
	}
	x, err := s.subjectOf(tx, c.Doc.ID, c.Doc.Type, doc, c.Version)
	if err != nil {
		return nil, err
	}
	changes, err := s.changes(all, x)
	if err != nil {
		return nil, err
	}
	var edit func(map[string]any) error
	if len(changes) > 0 {
		edit = func(doc map[string]any) error { return makeAll(changes, doc) }
		if err := edit(x.input.Resource); err != nil {
			return nil, err
		}
	}
	hits := s.hits(all, x, is(policy.Deny, policy.Audit, policy.AuditIfNotExists, policy.DeployIfNotExists))
	var denied []hit
	for _, h := range hits {
		if h.rule.Effect == policy.Deny && h.enforce {
			denied = append(denied, h)
		}
	}
	used, err := s.usesOf(tx, all, c.Doc)
	if err != nil {
		return nil, err
	}
	for _, u := range used {
		switch {
		case c.Old != nil && u.rule.Effect == policy.EnforceSetting, !u.broken, u.exempt: // settings bind what is to run
		case u.denies():
			denied = append(denied, u.hit)
		default:
			hits = append(hits, u.hit)
		}
	}
	if len(denied) > 0 {
		return nil, s.disallowed(c.Doc.Name, denied)
	}
	c.Policy = &found{hits}
	return edit, nil
}

// change is one change of a document, with whose it is.
type change struct {
	policy.Change
	hit
}

// changes are what modify and append make of x. Each is judged on x as it was
// sent, so that the order of assignments says nothing. Where two want different
// values, they are in conflict.
func (s *Service) changes(all []*bound, x *subject) ([]change, error) {
	var list []change
	for _, h := range s.hits(all, x, is(policy.Modify, policy.Append)) {
		if !h.enforce {
			continue
		}
		if h.err != nil {
			return nil, s.disallowed(x.id.Name(), []hit{h})
		}
		made, err := h.rule.Changes(x.judging(h))
		if err != nil {
			h.err = err
			return nil, s.disallowed(x.id.Name(), []hit{h})
		}
		for _, c := range made {
			list = append(list, change{c, h})
		}
	}
	var out []change
	for _, c := range list {
		keep := true
		for _, o := range list {
			if !c.Clashes(o.Change) {
				continue
			}
			if c.rule.Details.ConflictEffect == policy.Deny || o.rule.Details.ConflictEffect == policy.Deny || c.rule.Effect == policy.Append {
				c.hit.err = arm.Errorf(policy.NotEvaluated, "the policy assignments %s and %s want different values for %s", c.ID, o.ID, c.Field)
				return nil, s.disallowed(x.id.Name(), []hit{c.hit, o.hit})
			}
			keep = false
		}
		if keep {
			out = append(out, c)
		}
	}
	return out, nil
}

// makeAll makes all changes in a document.
func makeAll(changes []change, doc map[string]any) error {
	for _, c := range changes {
		if _, err := c.Make(doc); err != nil {
			if c.rule.Effect == policy.Modify && c.rule.Details.ConflictEffect != policy.Deny {
				continue
			}
			return &arm.Error{Code: Disallowed, Status: http.StatusForbidden, Message: fmt.Sprintf("The policy assignment '%s' can't change the resource: %v", c.ID, err), Info: []arm.Info{violation(hit{bound: c.bound, one: c.one})}}
		}
	}
	return nil
}

// disallowed is the error that names every policy that denies.
func (s *Service) disallowed(name string, denied []hit) error {
	var ids []map[string]any
	var reasons []string
	e := &arm.Error{Code: Disallowed, Status: http.StatusForbidden, Target: name}
	for _, h := range denied {
		if h.message != "" && !slices.Contains(reasons, h.message) {
			reasons = append(reasons, h.message)
		}
		pair := map[string]any{
			"policyAssignment": map[string]any{"name": h.props.DisplayName, "id": h.ID.String()},
			"policyDefinition": map[string]any{"name": h.def.display, "id": h.def.id.String()},
		}
		if h.set != nil {
			pair["policySetDefinition"] = map[string]any{"name": h.set.props.DisplayName, "id": h.set.id.String()}
		}
		ids = append(ids, pair)
		e.Info = append(e.Info, violation(h))
		if h.err != nil {
			reasons = append(reasons, h.err.Error())
		}
	}
	list, err := json.Marshal(ids)
	if err != nil {
		return err
	}
	e.Message = fmt.Sprintf("Resource '%s' was disallowed by policy. ", name)
	if len(reasons) > 0 {
		e.Message += "Reasons: '" + strings.Join(reasons, "', '") + "'. "
	}
	e.Message += "Policy identifiers: '" + string(list) + "'."
	return e
}

// violation is Azure's PolicyViolation for programs to read.
func violation(h hit) arm.Info {
	info := map[string]any{
		"policyDefinitionId": h.def.id.String(), "policyDefinitionName": h.def.id.Name(), "policyDefinitionDisplayName": h.def.display, "policyDefinitionEffect": h.rule.Effect,
		"policyAssignmentId": h.ID.String(), "policyAssignmentName": h.ID.Name(), "policyAssignmentDisplayName": h.props.DisplayName, "policyAssignmentScope": h.Scope.String(),
		"policyAssignmentParameters": h.props.Parameters, "policyExemptionIds": []string{},
	}
	if h.set != nil {
		info["policySetDefinitionId"], info["policySetDefinitionName"], info["policySetDefinitionDisplayName"] = h.set.id.String(), h.set.id.Name(), h.set.props.DisplayName
		info["policyDefinitionReferenceId"] = h.ref
	}
	return arm.Info{Type: "PolicyViolation", Info: info}
}

// Settled records what policies found of a change that is being written.
func (s *Service) Settled(tx *store.Tx, c *resource.Change) error {
	f, ok := c.Policy.(*found)
	if !ok {
		return nil
	}
	for _, h := range f.hits {
		if h.rule.Effect == policy.DeployIfNotExists && h.enforce {
			p := pending{c.Doc.ID, h.ID.Key(), h.ref, s.Now().UTC().Add(h.rule.Details.Delay)}
			tx.After(s.wakeUp)
			if err := store.PutJSON(tx, pendingTable, p.key(), p); err != nil {
				return err
			}
		}
		if h.rule.Effect != policy.Audit && !(is(policy.Deny, policy.EnforceSetting)(h.rule.Effect) && !h.enforce) {
			continue
		}
		if err := s.note(tx, c.Doc, c.Caller, h); err != nil {
			return err
		}
	}
	return nil
}

// Removing has denyAction policies judge a deletion, and notes what the others
// find of it that look at deletions.
func (s *Service) Removing(tx *store.Tx, by arm.Caller, d *resource.Doc, doc map[string]any) error {
	all := s.reaching(d.ID)
	if len(all) == 0 {
		return nil
	}
	x, err := s.subjectOf(tx, d.ID, d.Type, doc, "")
	if err != nil {
		return err
	}
	var denied []hit
	hits := s.hits(all, x, is(policy.DenyAction, policy.AuditAction))
	for _, h := range hits {
		if h.rule.Effect == policy.DenyAction && h.enforce {
			denied = append(denied, h)
		}
	}
	if len(denied) > 0 {
		return s.disallowed(d.Name, denied)
	}
	for _, h := range hits {
		if err := s.note(tx, d, by, h); err != nil {
			return err
		}
	}
	return nil
}
