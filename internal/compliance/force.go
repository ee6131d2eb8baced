package compliance

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"castellan/internal/arm"
	"castellan/internal/policy"
	"castellan/internal/store"
)

// parsed is a definition, read.
type parsed struct {
	id       arm.ID
	def      *policy.Definition
	display  string
	category string
	version  string
}

// parsedSet is an initiative, read.
type parsedSet struct {
	id      arm.ID
	props   setProps
	params  map[string]policy.Parameter
	members []memberParams
}

// memberParams are the values that an initiative gives one of its members.
type memberParams struct {
	member
	values map[string]any
}

// unit is what assignments are bound to: definitions and initiatives by their
// ids' keys. assignments are those to be bound besides.
type unit struct {
	defs        map[string]*parsed
	sets        map[string]*parsedSet
	assignments map[string]*object
}

// newUnit has the built-in definitions alone.
func newUnit() unit {
	u := unit{map[string]*parsed{}, map[string]*parsedSet{}, map[string]*object{}}
	for k, o := range builtIn {
		d, err := parsedOf(o)
		if err != nil {
			panic(fmt.Sprint("compliance: the built-in definition ", k, ": ", err))
		}
		u.defs[k] = d
	}
	return u
}

// one is one rule of an assignment.
type one struct {
	rule    *policy.Rule
	def     *parsed
	ref     string // in the initiative; "" for an assignment of a definition
	groups  []string
	message string // to who is refused
	params  map[string]any
}

// bound is an assignment in force. It is never altered.
type bound struct {
	*object
	props     assignmentProps
	definedBy arm.ID // the definition or initiative
	set       *parsedSet
	enforce   bool
	notScopes []string // keys
	selectors []resourceSelector
	byType    map[string][]*one // by type in lower case, those for all types among them
	general   []*one
	data      []*one // those of data planes' modes
	all       []*one
}

// rules are those that can apply to a type.
func (b *bound) rules(typ string) []*one {
	if r, ok := b.byType[typ]; ok {
		return r
	}
	return b.general
}

// exemption is one in force.
type exemption struct {
	*object
	props exemptionProps
}

func (e *exemption) over(now time.Time) bool {
	return e.props.Expires != nil && !now.Before(*e.props.Expires)
}

// inForce is what changes are judged by.
type inForce struct {
	mu         sync.RWMutex // guards the rest
	unit       unit
	byScope    map[string][]*bound     // assignments by the key of their scope, in the order of their ids
	exemptions map[string][]*exemption // by the key of their assignment
}

func (f *inForce) clear() {
	f.unit = newUnit()
	f.byScope, f.exemptions = map[string][]*bound{}, map[string][]*exemption{}
}

// Load puts into force what the store keeps.
func (s *Service) Load(ctx context.Context) error {
	var force inForce
	force.clear()
	err := s.DB.View(ctx, func(tx *store.Tx) error {
		u, err := readUnit(tx)
		if err != nil {
			return err
		}
		force.unit = *u
		for _, k := range slices.Sorted(maps.Keys(u.assignments)) {
			b, err := u.bind(u.assignments[k])
			if err != nil {
				return fmt.Errorf("compliance: the assignment %s: %w", k, err)
			}
			force.byScope[b.Scope.Key()] = append(force.byScope[b.Scope.Key()], b)
		}
		all, err := all(tx, exemptions)
		if err != nil {
			return err
		}
		for i := range all {
			if err := force.exempt(&all[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.force.mu.Lock()
	defer s.force.mu.Unlock()
	s.force.unit, s.force.byScope, s.force.exemptions = force.unit, force.byScope, force.exemptions
	return nil
}

// exempt puts an exemption into force, in the place of the one that had its id.
func (f *inForce) exempt(o *object) error {
	p, err := propsOf[exemptionProps](o)
	if err != nil {
		return err
	}
	f.unexempt(o)
	k := strings.ToLower(p.Assignment)
	f.exemptions[k] = append(slices.Clone(f.exemptions[k]), &exemption{o, p})
	return nil
}

func (f *inForce) unexempt(o *object) {
	for k, list := range f.exemptions {
		f.exemptions[k] = slices.DeleteFunc(slices.Clone(list), func(e *exemption) bool { return e.ID.Key() == o.ID.Key() })
	}
}

// readUnit reads all definitions, initiatives and assignments.
func readUnit(tx *store.Tx) (*unit, error) {
	fresh := newUnit()
	u := &fresh
	defs, err := all(tx, definitions)
	if err != nil {
		return nil, err
	}
	for i := range defs {
		if u.defs[defs[i].ID.Key()], err = parsedOf(&defs[i]); err != nil {
			return nil, fmt.Errorf("compliance: the definition %s: %w", defs[i].ID, err)
		}
	}
	list, err := all(tx, sets)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if u.sets[list[i].ID.Key()], err = parseSet(&list[i]); err != nil {
			return nil, fmt.Errorf("compliance: the initiative %s: %w", list[i].ID, err)
		}
	}
	as, err := all(tx, assignments)
	for i := range as {
		u.assignments[as[i].ID.Key()] = &as[i]
	}
	return u, err
}

// parse reads a definition's rule.
func parse(o *object) (*policy.Definition, error) {
	return policy.ParseRule(o.Properties)
}

func parsedOf(o *object) (*parsed, error) {
	p, err := propsOf[definitionProps](o)
	if err != nil {
		return nil, err
	}
	d, err := parse(o)
	return &parsed{o.ID, d, p.DisplayName, metadataCategory(p.Metadata), p.Version}, err
}

func parseSet(o *object) (*parsedSet, error) {
	p, err := propsOf[setProps](o)
	if err != nil {
		return nil, err
	}
	x := &parsedSet{id: o.ID, props: p}
	tree, err := plainTree(p.Parameters)
	if err != nil {
		return nil, err
	}
	if x.params, err = policy.ReadParameters(tree); err != nil {
		return nil, err
	}
	for _, m := range p.Members {
		v, err := values(m.Parameters)
		if err != nil {
			return nil, err
		}
		x.members = append(x.members, memberParams{m, v})
	}
	return x, nil
}

// plainTree is a JSON value as package policy reads them.
func plainTree(v any) (any, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	t, err := arm.ParseJSON(b)
	return policy.Plain(t), err
}

func values(params map[string]paramValue) (map[string]any, error) {
	out := map[string]any{}
	for name, v := range params {
		x, err := plainTree(v.Value)
		if err != nil {
			return nil, err
		}
		out[name] = x
	}
	return out, nil
}

// holds says whether all that depends on a change of o can still be bound.
func (s *Service) holds(tx *store.Tx, o *object, change func(*unit)) error {
	s.force.mu.RLock()
	u := unit{maps.Clone(s.force.unit.defs), maps.Clone(s.force.unit.sets), nil}
	have := s.force.unit.assignments
	s.force.mu.RUnlock()
	change(&u)
	if u.assignments == nil {
		u.assignments = map[string]*object{}
		for k, a := range have {
			if s.uses(&u, a, o.ID) {
				u.assignments[k] = a
			}
		}
	}
	for _, a := range u.assignments {
		b, err := u.bind(a)
		if err == nil {
			err = b.checkData()
		}
		if err != nil {
			if a.ID.Key() == o.ID.Key() {
				return err
			}
			return &arm.Error{Code: "PolicyDefinitionInUse", Status: 409, Message: "the change does not fit the assignment " + a.ID.String() + ", which is in force: " + err.Error(), Err: err}
		}
	}
	return nil
}

// uses reports whether an assignment is of a definition, also by an initiative.
func (s *Service) uses(u *unit, a *object, id arm.ID) bool {
	if names(a, id) {
		return true
	}
	for _, x := range u.sets {
		if names(a, x.id) {
			for _, m := range x.members {
				if strings.EqualFold(m.Definition, id.String()) {
					return true
				}
			}
		}
	}
	return false
}

// bind makes rules of an assignment.
func (u *unit) bind(o *object) (*bound, error) {
	p, err := propsOf[assignmentProps](o)
	if err != nil {
		return nil, err
	}
	b := &bound{object: o, props: p, enforce: p.Enforcement != "DoNotEnforce", selectors: p.Selectors, byType: map[string][]*one{}}
	for _, text := range p.NotScopes {
		b.notScopes = append(b.notScopes, strings.ToLower(strings.TrimSuffix(text, "/")))
	}
	if err := checkSelectors(p.Selectors); err != nil {
		return nil, err
	}
	given, err := values(p.Parameters)
	if err != nil {
		return nil, err
	}
	if b.definedBy, err = arm.ParseID(p.Definition); err != nil {
		return nil, err
	}
	k := b.definedBy.Key()
	switch d, x := u.defs[k], u.sets[k]; {
	case d != nil:
		err = b.add(d, "", nil, given)
	case x != nil:
		b.set = x
		err = b.addSet(u, x, given)
	default:
		err = arm.Errorf(arm.NotFound, "the definition %s is not there", p.Definition)
	}
	if err != nil {
		return nil, err
	}
	b.index()
	return b, b.checkMessages()
}

func (b *bound) addSet(u *unit, x *parsedSet, given map[string]any) error {
	params, err := policy.Values(x.params, given)
	if err != nil {
		return err
	}
	for _, m := range x.members {
		d := u.defs[strings.ToLower(m.Definition)]
		if d == nil {
			return arm.Errorf(arm.NotFound, "the definition %s is not there", m.Definition)
		}
		v, err := policy.Expand(m.values, params)
		if err != nil {
			return err
		}
		if err := b.add(d, m.Ref, m.Groups, v); err != nil {
			return fmt.Errorf("%w (of the member %s)", err, m.Ref)
		}
	}
	return nil
}

func (b *bound) add(d *parsed, ref string, groups []string, params map[string]any) (err error) {
	x := &one{def: d, ref: ref, groups: groups, params: params}
	for _, m := range b.props.Messages {
		if m.Ref == "" && x.message == "" || m.Ref != "" && strings.EqualFold(m.Ref, ref) {
			x.message = m.Message
		}
	}
	effect, err := b.overridden(ref)
	if err != nil {
		return err
	}
	if effect != "" {
		x.rule, err = d.def.WithEffect(params, effect)
	} else {
		x.rule, err = d.def.Bind(params)
	}
	if err != nil {
		return err
	}
	if needsIdentity(x.rule.Effect) && b.enforce && b.Identity == nil {
		return arm.Errorf("ResourceIdentityRequired", "the effect %s needs the assignment to have an identity that deploys or changes resources", x.rule.Effect)
	}
	b.all = append(b.all, x)
	return nil
}

func needsIdentity(e policy.Effect) bool {
	return e == policy.DeployIfNotExists || e == policy.Modify
}

// overridden is the effect that an override gives a member, or "".
func (b *bound) overridden(ref string) (policy.Effect, error) {
	for _, o := range b.props.Overrides {
		if !strings.EqualFold(o.Kind, "policyEffect") {
			return "", arm.Errorf(arm.InvalidRequest, "an override is of the kind %q; it must be policyEffect", o.Kind)
		}
		e, err := policy.ParseEffect(o.Value)
		if err != nil {
			return "", err
		}
		meant := true
		for _, sel := range o.Selectors {
			if !strings.EqualFold(sel.Kind, "policyDefinitionReferenceId") {
				return "", arm.Errorf(arm.Unsupported, "an override selects by %q; supported: policyDefinitionReferenceId", sel.Kind)
			}
			meant = meant && sel.takes(ref)
		}
		if meant {
			return e, nil
		}
	}
	return "", nil
}

func (x selector) takes(v string) bool {
	if len(x.NotIn) > 0 {
		return !contains(x.NotIn, v)
	}
	return contains(x.In, v)
}

// checkSelectors holds resource selectors against what is known.
func checkSelectors(list []resourceSelector) error {
	for _, r := range list {
		for _, x := range r.Selectors {
			switch strings.ToLower(x.Kind) {
			case "resourcelocation", "resourcetype", "resourcewithoutlocation":
			default:
				return arm.Errorf(arm.Unsupported, "a resource selector is of the kind %q; supported: resourceLocation, resourceType, resourceWithoutLocation", x.Kind)
			}
			if (len(x.In) > 0) == (len(x.NotIn) > 0) {
				return arm.Errorf(arm.InvalidRequest, "a resource selector must have exactly one of in and notIn")
			}
		}
	}
	return nil
}

// selected reports whether resource selectors mean a resource: one of them
// must, with all its parts; none mean all.
func selected(list []resourceSelector, typ, location string) bool {
	for _, r := range list {
		all := true
		for _, x := range r.Selectors {
			switch strings.ToLower(x.Kind) {
			case "resourcelocation":
				all = all && location != "" && x.takes(location)
			case "resourcetype":
				all = all && x.takes(typ)
			case "resourcewithoutlocation":
				all = all && location == "" && x.takes("true")
			}
		}
		if all {
			return true
		}
	}
	return len(list) == 0
}

// checkMessages refuses messages to members that are not there.
func (b *bound) checkMessages() error {
	for _, m := range b.props.Messages {
		if m.Message == "" {
			return arm.Errorf(arm.InvalidRequest, "a non-compliance message is empty")
		}
		if m.Ref != "" && !slices.ContainsFunc(b.all, func(x *one) bool { return strings.EqualFold(x.ref, m.Ref) }) {
			return arm.Errorf(arm.InvalidRequest, "a non-compliance message is for the policyDefinitionReferenceId %q, which the initiative does not have", m.Ref)
		}
	}
	return nil
}

func (b *bound) index() {
	for _, x := range b.all {
		if x.rule.Effect == policy.Disabled {
			continue
		}
		if x.rule.Mode != policy.All && x.rule.Mode != policy.Indexed {
			b.data = append(b.data, x)
			continue
		}
		if x.rule.Types == nil {
			b.general = append(b.general, x)
			continue
		}
		for _, t := range x.rule.Types {
			b.byType[t] = nil
		}
	}
	for t := range b.byType {
		for _, x := range b.all {
			if x.rule.Effect == policy.Disabled || x.rule.Mode != policy.All && x.rule.Mode != policy.Indexed {
				continue
			}
			if x.rule.Types == nil || slices.Contains(x.rule.Types, t) {
				b.byType[t] = append(b.byType[t], x)
			}
		}
	}
}

// put brings o into force, and anew what depends on it.
func (f *inForce) put(s *Service, k *kind, o *object) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := o.ID.Key()
	switch k.typ {
	case definitions.typ:
		if d, err := parsedOf(o); err == nil { // it was read before it was written
			f.unit.defs[key] = d
		}
	case sets.typ:
		if x, err := parseSet(o); err == nil {
			f.unit.sets[key] = x
		}
	case assignments.typ:
		f.unit.assignments[key] = o
	case exemptions.typ:
		_ = f.exempt(o)
		return
	case attestations.typ: // they are read from the store
		return
	}
	for _, a := range f.unit.assignments {
		if a.ID.Key() == key || s.uses(&f.unit, a, o.ID) {
			f.rebind(a)
		}
	}
}

// rebind puts an assignment's rules in the place of those that it had.
func (f *inForce) rebind(a *object) {
	f.unbind(a)
	b, err := f.unit.bind(a)
	if err != nil {
		return // holds has bound it in the change's own transaction
	}
	at := a.Scope.Key()
	list := append(slices.Clone(f.byScope[at]), b)
	slices.SortFunc(list, func(x, y *bound) int { return strings.Compare(x.ID.Key(), y.ID.Key()) })
	f.byScope[at] = list
}

func (f *inForce) unbind(a *object) {
	at := a.Scope.Key()
	f.byScope[at] = slices.DeleteFunc(slices.Clone(f.byScope[at]), func(b *bound) bool { return b.ID.Key() == a.ID.Key() })
	if len(f.byScope[at]) == 0 {
		delete(f.byScope, at)
	}
}

// drop takes o out of force.
func (f *inForce) drop(k *kind, o *object) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch k.typ {
	case definitions.typ:
		delete(f.unit.defs, o.ID.Key())
	case sets.typ:
		delete(f.unit.sets, o.ID.Key())
	case assignments.typ:
		delete(f.unit.assignments, o.ID.Key())
		f.unbind(o)
	case exemptions.typ:
		f.unexempt(o)
	}
}

// reaching are the assignments that reach a scope, those at the outermost scope
// first: a copy that stays as it is.
func (s *Service) reaching(id arm.ID) []*bound {
	keys := append([]string{id.Key()}, s.Above(id)...)
	s.force.mu.RLock()
	defer s.force.mu.RUnlock()
	if len(s.force.byScope) == 0 {
		return nil
	}
	var out []*bound
	for _, k := range keys {
		for _, b := range s.force.byScope[k] {
			if !slices.ContainsFunc(b.notScopes, func(n string) bool { return slices.Contains(keys, n) }) {
				out = append(out, b)
			}
		}
	}
	slices.SortFunc(out, func(x, y *bound) int { return strings.Compare(x.ID.Key(), y.ID.Key()) })
	return out
}

// exempting is the exemption by which a rule does not bind a resource, or nil.
func (s *Service) exempting(b *bound, x *one, id arm.ID, typ, location string) *exemption {
	now := s.Now()
	s.force.mu.RLock()
	defer s.force.mu.RUnlock()
	list := s.force.exemptions[b.ID.Key()]
	if len(list) == 0 {
		return nil
	}
	keys := append([]string{id.Key()}, s.Above(id)...)
	for _, e := range list {
		if e.over(now) || !slices.Contains(keys, e.Scope.Key()) || len(e.props.Refs) > 0 && !contains(e.props.Refs, x.ref) {
			continue
		}
		if selected(e.props.Selectors, typ, location) {
			return e
		}
	}
	return nil
}
