// Package trial tells what policies would say before they are in force: of
// resources in files, of what a template makes, and of what was written in the
// past; and it runs tests of policies. It is pure: files and servers are its
// caller's.
package trial

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/policy"
)

// Policy is a definition or an initiative that was read.
type Policy struct {
	Name    string
	params  map[string]policy.Parameter // of an initiative
	set     bool
	members []part
}

// part is a definition, and what an initiative gives it.
type part struct {
	name   string
	file   *File
	def    *policy.Definition
	values map[string]any
}

// Rule is one rule of a policy with its parameters put in.
type Rule struct {
	Name string // the reference in the initiative, or the definition's name
	file *File
	*policy.Rule
}

// Find is the file of the definition with an id or a name; false if there is none.
type Find func(id string) (*File, bool)

// ReadPolicy reads a definition, a bare rule (if and then), or an initiative, whose
// definitions find has.
func ReadPolicy(f *File, find Find) (*Policy, error) {
	m, ok := f.Tree.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%s holds no object; it must hold a policy definition or an initiative", f.At(""))
	}
	props := m
	if p, ok := member(m, "properties").(map[string]any); ok {
		props = p
	}
	p := &Policy{Name: NameOf(f)}
	list := member(props, "policyDefinitions")
	if list == nil {
		d, err := readDefinition(f)
		p.members = []part{{name: p.Name, file: f, def: d}}
		return p, err
	}
	p.set = true
	var err error
	if p.params, err = policy.ReadParameters(member(props, "parameters")); err != nil {
		return nil, f.wrong(err)
	}
	members, ok := list.([]any)
	if !ok {
		return nil, f.wrong(&arm.Error{Code: policy.InvalidDefinition, Target: "policyDefinitions", Message: "policyDefinitions must be an array"})
	}
	for i, x := range members {
		at := fmt.Sprintf("policyDefinitions[%d]", i)
		bad := func(format string, args ...any) error {
			return f.wrong(&arm.Error{Code: policy.InvalidDefinition, Target: at, Message: at + ": " + fmt.Sprintf(format, args...)})
		}
		m, _ := x.(map[string]any)
		id := text(m, "policyDefinitionId")
		if id == "" {
			return nil, bad("it has no policyDefinitionId")
		}
		file, ok := find(id)
		if !ok {
			return nil, bad("the definition %s is not at hand; name its file with --definition", id)
		}
		d, err := readDefinition(file)
		if err != nil {
			return nil, err
		}
		y := part{name: text(m, "policyDefinitionReferenceId"), file: file, def: d, values: map[string]any{}}
		if y.name == "" {
			y.name = NameOf(file)
		}
		given, _ := member(m, "parameters").(map[string]any)
		for name, v := range given {
			if y.values[name], ok = unwrap(v); !ok {
				return nil, bad("the parameter %q must be {\"value\": ...}", name)
			}
		}
		p.members = append(p.members, y)
	}
	return p, nil
}

// unwrap is the value in {"value": ...}.
func unwrap(v any) (any, bool) {
	m, ok := v.(map[string]any)
	if !ok || len(m) != 1 {
		return nil, false
	}
	for k, x := range m {
		if strings.EqualFold(k, "value") {
			return x, true
		}
	}
	return nil, false
}

func readDefinition(f *File) (*policy.Definition, error) {
	m, ok := f.Tree.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%s holds no object; it must hold a policy definition", f.At(""))
	}
	if p, ok := member(m, "properties").(map[string]any); ok {
		m = p
	}
	if member(m, "if") != nil && member(m, "policyRule") == nil {
		m = map[string]any{"policyRule": m}
	}
	d, err := policy.ParseDefinition(m)
	if err != nil {
		return nil, f.wrong(err)
	}
	return d, nil
}

// NameOf is what a file's definition or initiative goes by.
func NameOf(f *File) string {
	m, _ := f.Tree.(map[string]any)
	if n := text(m, "name"); n != "" {
		return n
	}
	if id := text(m, "id"); id != "" {
		return id[strings.LastIndexByte(id, '/')+1:]
	}
	base := filepath.Base(f.Name)
	return strings.TrimSuffix(base, filepath.Ext(base))
}

// Bind puts parameters in; their names are told apart without case.
func (p *Policy) Bind(given map[string]any) ([]Rule, error) {
	params := given
	if p.set {
		var err error
		if params, err = policy.Values(p.params, given); err != nil {
			return nil, err
		}
	}
	var out []Rule
	for _, m := range p.members {
		values := params
		if p.set {
			var err error
			if values, err = policy.Expand(m.values, params); err != nil {
				return nil, fmt.Errorf("the member %s: %w", m.name, err)
			}
		}
		r, err := m.def.Bind(values)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
		out = append(out, Rule{m.name, m.file, r})
	}
	return out, nil
}

// Values reads parameters as files have them: {name: value}, {name: {"value":
// value}}, or a template's file of parameters.
func Values(tree any) (map[string]any, error) {
	m, ok := tree.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("parameters must be an object of names and values")
	}
	if p, ok := member(m, "parameters").(map[string]any); ok && member(m, "$schema") != nil {
		m = p
	}
	out := map[string]any{}
	for k, v := range m {
		if x, ok := unwrap(v); ok {
			v = x
		}
		out[k] = v
	}
	return out, nil
}

// Subject is a resource that is judged.
type Subject struct {
	Resource            map[string]any // as Resource Manager shows it
	APIVersion          string
	Subscription, Group map[string]any   // nil: made of the resource's id
	Related             []map[string]any // what is there besides, for the effects ...IfNotExists
	Now                 time.Time
}

// Finding is what one rule says of one resource.
type Finding struct {
	Rule   string        `json:"rule"`
	Effect policy.Effect `json:"effect"`
	// Error is why the rule could not be judged, which enforcement takes for a yes.
	Error   string   `json:"error,omitempty"`
	Changes []Change `json:"changes,omitempty"`
}

// Change is one change of modify or append.
type Change struct {
	Field     string `json:"field"`
	Operation string `json:"operation"`
	Value     any    `json:"value,omitempty"`
}

// strength is the order of effects, the one that decides first.
var strength = []policy.Effect{policy.Deny, policy.DenyAction, policy.Modify, policy.Append, policy.DeployIfNotExists, policy.AuditIfNotExists, policy.EnforceSetting, policy.Audit, policy.AuditAction, policy.Manual}

// None is the outcome where no rule applies.
const None = "none"

// Outcome is the strongest effect of what was found. What can't be judged where
// it counts, or can't be changed, is denied.
func Outcome(found []Finding) string {
	out := len(strength)
	for _, f := range found {
		e := f.Effect
		if f.Error != "" && (e == policy.Modify || e == policy.Append) {
			e = policy.Deny
		}
		if i := slices.Index(strength, e); i >= 0 {
			out = min(out, i)
		}
	}
	if out == len(strength) {
		return None
	}
	return string(strength[out])
}

// Seen is told of each test of a rule that was made, by its place in the definition.
type Seen func(rule, place string, held bool)

// Judge is what rules say of s, in the order in which a server asks: changes
// first, each judged on what was sent; then all else, of the outcome, which it
// gives too. seen may be nil.
func Judge(rules []Rule, s Subject, seen Seen) (found []Finding, outcome map[string]any) {
	doc := clone(s.Resource).(map[string]any)
	in := s.input(doc)
	type change struct {
		policy.Change
		at int // in found
	}
	var changes []change
	for _, r := range rules {
		if r.Effect != policy.Modify && r.Effect != policy.Append {
			continue
		}
		f := Finding{Rule: r.Name, Effect: r.Effect}
		yes, err := r.applies(in, seen)
		if !yes && err == nil {
			continue
		}
		var made []policy.Change
		if err == nil {
			made, err = r.Changes(in)
		}
		if err != nil {
			f.Error = err.Error()
		}
		for _, c := range made {
			changes = append(changes, change{c, len(found)})
			f.Changes = append(f.Changes, Change{c.Field, c.Do, c.Value})
		}
		found = append(found, f)
	}
	for i, c := range changes {
		for _, o := range changes[:i] {
			if c.Clashes(o.Change) {
				found[c.at].Error = fmt.Sprintf("it and %s want different values for %s", found[o.at].Rule, c.Field)
			}
		}
		if _, err := c.Make(doc); err != nil {
			found[c.at].Error = err.Error()
		}
	}
	for _, r := range rules {
		if r.Effect == policy.Modify || r.Effect == policy.Append || r.Effect == policy.Disabled {
			continue
		}
		yes, err := r.applies(in, seen)
		if yes && err == nil && (r.Effect == policy.AuditIfNotExists || r.Effect == policy.DeployIfNotExists) {
			var there bool
			there, err = r.related(in, s.Related)
			yes = !there
		}
		switch {
		case err != nil:
			found = append(found, Finding{Rule: r.Name, Effect: r.Effect, Error: err.Error()})
		case yes:
			found = append(found, Finding{Rule: r.Name, Effect: r.Effect})
		}
	}
	return found, doc
}

// input is what rules know of s. A resource's id says which subscription and
// group it is in, where s does not.
func (s Subject) input(doc map[string]any) *policy.Input {
	in := &policy.Input{Resource: doc, APIVersion: s.APIVersion, Subscription: s.Subscription, Group: s.Group, Now: s.Now}
	id, err := arm.ParseID(text(doc, "id"))
	if err != nil {
		return in
	}
	if sub := id.Subscription(); sub != "" && in.Subscription == nil {
		in.Subscription = map[string]any{"id": "/subscriptions/" + sub, "subscriptionId": sub, "tags": map[string]any{}}
	}
	if g := id.Group(); !g.IsZero() && g.Key() != id.Key() && in.Group == nil {
		in.Group = map[string]any{"id": g.String(), "name": g.Name(), "type": "Microsoft.Resources/resourceGroups", "tags": map[string]any{}}
	}
	return in
}

// applies reports whether the rule's "if" holds. A rule of the mode Indexed is
// for what has a location or tags, one of a data plane for nothing here.
func (r Rule) applies(in *policy.Input, seen Seen) (bool, error) {
	switch {
	case r.Mode == policy.Indexed && member(in.Resource, "location") == nil && member(in.Resource, "tags") == nil, r.Mode != policy.Indexed && r.Mode != policy.All:
		return false, nil
	case seen == nil:
		return r.Applies(in)
	}
	return r.Trace(in, func(place string, held bool) { seen(r.Name, place, held) })
}

// related reports whether one of the resources is the one that must exist.
func (r Rule) related(in *policy.Input, all []map[string]any) (bool, error) {
	want, err := r.Related(in)
	if err != nil {
		return false, err
	}
	for _, x := range all {
		name := text(x, "name")
		if id, err := arm.ParseID(text(x, "id")); err == nil && want.Group != "" && !strings.EqualFold(id.Group().Name(), want.Group) {
			continue
		}
		if !strings.EqualFold(text(x, "type"), want.Type) || want.Name != "" && !strings.EqualFold(name, want.Name) && !strings.HasSuffix(strings.ToLower(want.Name), "/"+strings.ToLower(name)) {
			continue
		}
		if ok, err := want.Meets(x); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

func clone(v any) any {
	switch x := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(x))
		for k, y := range x {
			out[k] = clone(y)
		}
		return out
	case []any:
		out := make([]any, len(x))
		for i, y := range x {
			out[i] = clone(y)
		}
		return out
	}
	return v
}

// ResourceOf is the resource of a document, which must have a type.
func ResourceOf(f *File, tree any, part string) (map[string]any, error) {
	m, ok := policy.Plain(tree).(map[string]any)
	if !ok || text(m, "type") == "" {
		return nil, fmt.Errorf("%s: a resource must be an object with a type, as Resource Manager shows it", f.At(part))
	}
	return m, nil
}

// show is a value as JSON, for people.
func show(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}
