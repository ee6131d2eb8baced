package trial

import (
	"errors"
	"fmt"
	"strings"

	"castellan/internal/policy"
	"castellan/internal/template"
)

// Verdict is what a policy says of one resource.
type Verdict struct {
	Resource string `json:"resource"`
	Type     string `json:"type"`
	Place    string `json:"place,omitempty"` // in the template
	Outcome  string `json:"outcome"`
	// Unknown is why it can't be said; then no rule was asked.
	Unknown  string         `json:"unknown,omitempty"`
	Findings []Finding      `json:"findings,omitempty"`
	Becomes  map[string]any `json:"becomes,omitempty"` // where a rule changes it
}

// Unknown is the outcome of what can't be judged.
const Unknown = "unknown"

// Bad reports whether a deployment of it would fail or might: it is denied, or
// nobody can say.
func (v Verdict) Bad() bool { return v.Outcome == "deny" || v.Outcome == Unknown }

// One is what rules say of one resource.
func One(rules []Rule, s Subject) Verdict {
	found, doc := Judge(rules, s, nil)
	v := Verdict{Resource: text(s.Resource, "id"), Type: text(s.Resource, "type"), Outcome: Outcome(found), Findings: found}
	if v.Resource == "" {
		v.Resource = text(s.Resource, "name")
	}
	for _, f := range found {
		if len(f.Changes) > 0 {
			v.Becomes = doc
		}
	}
	return v
}

// maxDeep is how deep templates nest, as when they are deployed.
const maxDeep = 5

// Template is what rules say of every resource that a template makes, templates
// within it too. What depends on values of the deployment itself is Unknown,
// unless no rule is about its type.
func Template(rules []Rule, f *File, params map[string]any, at template.Scope) ([]Verdict, error) {
	all, err := expand(rules, f.Tree, params, at, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name, err)
	}
	for i := range all {
		if all[i].Place != "" {
			all[i].Place = f.At(all[i].Place) + ": " + all[i].Place
		}
	}
	return all, nil
}

func expand(rules []Rule, tree any, params map[string]any, at template.Scope, deep int) (out []Verdict, err error) {
	if deep > maxDeep {
		return nil, fmt.Errorf("the template nests deployments deeper than %d", maxDeep)
	}
	d, err := template.New(tree, params, at)
	if err != nil {
		return nil, err
	}
	plan, err := d.Plan()
	if err != nil {
		return nil, err
	}
	for _, r := range plan {
		body, err := r.Body()
		unsure := template.Later(err)
		if err != nil && !unsure {
			return nil, err
		}
		v := Verdict{Resource: r.ID.String(), Type: r.Type, Place: r.Place, Outcome: None}
		switch {
		case unsure && about(rules, r.Type):
			v.Outcome, v.Unknown = Unknown, err.Error()
		case unsure:
		case r.IsDeployment():
			inner, err := nested(rules, body, at, r.ID.Name(), deep)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", r.Place, err)
			}
			for i := range inner {
				inner[i].Place = r.Place
			}
			out = append(out, inner...)
			continue
		default:
			doc := map[string]any{"id": r.ID.String(), "name": r.ID.Name(), "type": r.Type}
			for k, x := range body {
				doc[k] = x
			}
			s := Subject{Resource: policy.Plain(doc).(map[string]any), APIVersion: r.APIVersion, Now: at.Now}
			if strings.EqualFold(r.ID.Group().Name(), at.Group) {
				s.Group = group(at)
			}
			v = One(rules, s)
			v.Place = r.Place
		}
		out = append(out, v)
	}
	return out, nil
}

func nested(rules []Rule, body map[string]any, at template.Scope, name string, deep int) ([]Verdict, error) {
	props, _ := member(body, "properties").(map[string]any)
	tree := member(props, "template")
	if tree == nil {
		return nil, errors.New("the deployment has no template; what a templateLink leads to is not fetched")
	}
	params, _ := member(props, "parameters").(map[string]any)
	at.Deployment = name
	return expand(rules, tree, params, at, deep+1)
}

// about reports whether a rule can apply to a type at all.
func about(rules []Rule, typ string) bool {
	for _, r := range rules {
		if r.Effect != policy.Disabled && r.MayApply(typ) {
			return true
		}
	}
	return false
}

func group(at template.Scope) map[string]any {
	tags := map[string]any{}
	for k, v := range at.GroupTags {
		tags[k] = v
	}
	return map[string]any{"id": "/subscriptions/" + at.Subscription + "/resourceGroups/" + at.Group, "name": at.Group, "location": at.GroupLocation, "type": "Microsoft.Resources/resourceGroups", "tags": tags}
}
