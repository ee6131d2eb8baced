package policy

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"

	"castellan/internal/arm"
)

// Modes of a definition that are judged on Resource Manager's documents. Modes
// of data planes are NAMESPACE.Data or NAMESPACE.v2.Data.
const (
	All     = "All"
	Indexed = "Indexed"
)

// dataModes are the modes of data planes that are known.
var dataModes = []string{"Microsoft.MachineLearningServices.Data", "Microsoft.MachineLearningServices.v2.Data", "Microsoft.KeyVault.Data", "Microsoft.ManagedHSM.Data"}

// Parameter is one of a definition's parameters.
type Parameter struct {
	Name     string
	Type     string // String, Array, Object, Boolean, Integer, Float or DateTime
	Default  any
	HasValue bool // there is a default
	Allowed  []any
}

var parameterTypes = []string{"String", "Array", "Object", "Boolean", "Integer", "Float", "DateTime"}

// Definition is a policy definition, read and found sound.
type Definition struct {
	Mode       string
	Parameters map[string]Parameter // by name in lower case
	cond       condition
	effect     operand
	details    any
}

// ParseDefinition reads the properties of a definition: mode, parameters and
// policyRule. What it takes can be bound, unless parameters make it senseless.
func ParseDefinition(props map[string]any) (*Definition, error) {
	d := &Definition{Mode: All}
	if v, ok := lookup(props, "mode"); ok && v != nil {
		mode, err := readMode(v)
		if err != nil {
			return nil, err
		}
		d.Mode = mode
	}
	params, _ := lookup(props, "parameters")
	var err error
	if d.Parameters, err = ReadParameters(params); err != nil {
		return nil, err
	}
	v, ok := lookup(props, "policyRule")
	if !ok {
		return nil, arm.Errorf(InvalidDefinition, "the definition has no policyRule")
	}
	rule, ok := v.(map[string]any)
	if !ok {
		return nil, invalid("policyRule is %s; it must be an object with if and then", kindOf(v))
	}
	var then map[string]any
	for k, x := range rule {
		switch strings.ToLower(k) {
		case "if":
			d.cond, err = readCondition(x, "policyRule.if", 0)
		case "then":
			if then, ok = x.(map[string]any); !ok {
				err = invalid("policyRule.then is %s; it must be an object with effect", kindOf(x))
			}
		default:
			err = invalid("policyRule has %q; only if and then are allowed", clip(k))
		}
		if err != nil {
			return nil, err
		}
	}
	if d.cond == nil || then == nil {
		return nil, invalid("policyRule must have both if and then")
	}
	if err := d.readThen(then); err != nil {
		return nil, err
	}
	return d, d.rehearse()
}

func readMode(v any) (string, error) {
	s, _ := v.(string)
	for _, m := range append([]string{All, Indexed}, dataModes...) {
		if strings.EqualFold(m, s) {
			return m, nil
		}
	}
	return "", arm.Errorf(InvalidDefinition, "the mode %q is not known; it must be %s, %s or one of %s", clip(s), All, Indexed, list(dataModes))
}

func (d *Definition) readThen(then map[string]any) error {
	for k, x := range then {
		switch strings.ToLower(k) {
		case "effect":
			o, err := readOperand(x)
			if err != nil {
				return at("policyRule.then.effect", err)
			}
			if o.later() {
				return at("policyRule.then.effect", invalid("the effect must be known without a resource"))
			}
			d.effect = o
		case "details":
			d.details = x
		default:
			return invalid("policyRule.then has %q; only effect and details are allowed", clip(k))
		}
	}
	if d.effect.x == nil && d.effect.value == nil {
		return invalid("policyRule.then has no effect")
	}
	return nil
}

// rehearse binds the definition with its parameters' defaults, or what else they
// may be, so that what is wrong shows when it is written.
func (d *Definition) rehearse() error {
	values := map[string]any{}
	known := true
	for _, p := range d.Parameters {
		v, ok := p.any()
		values[p.Name] = v
		known = known && ok
	}
	if known {
		_, err := d.Bind(values)
		return err
	}
	return nil
}

// any is a value that the parameter may have: its default or the first allowed.
func (p Parameter) any() (any, bool) {
	switch {
	case p.HasValue:
		return p.Default, true
	case len(p.Allowed) > 0 && p.Type != "Array":
		return p.Allowed[0], true
	}
	return nil, false
}

// Effects are those that the definition can have.
func (d *Definition) Effects() []Effect {
	var names []any
	if d.effect.constant() {
		names = []any{d.effect.value}
	} else {
		for _, p := range d.Parameters {
			if strings.Contains(strings.ToLower(p.Name), "effect") {
				names = append(append(names, p.Allowed...), p.Default)
			}
		}
	}
	var out []Effect
	for _, n := range names {
		s, _ := n.(string)
		if e, err := ParseEffect(s); err == nil && !slices.Contains(out, e) {
			out = append(out, e)
		}
	}
	return out
}

// ReadParameters reads the parameters that a definition or an initiative declares.
func ReadParameters(v any) (map[string]Parameter, error) {
	out := map[string]Parameter{}
	if v == nil {
		return out, nil
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, arm.Errorf(InvalidDefinition, "parameters is %s; it must be an object", kindOf(v))
	}
	for name, x := range m {
		p, err := readParameter(name, x)
		if err != nil {
			return nil, err
		}
		if _, twice := out[strings.ToLower(name)]; twice {
			return nil, arm.Errorf(InvalidDefinition, "the parameter %q is there twice", clip(name))
		}
		out[strings.ToLower(name)] = p
	}
	return out, nil
}

func readParameter(name string, v any) (Parameter, error) {
	wrong := func(format string, args ...any) (Parameter, error) {
		return Parameter{}, arm.Errorf(InvalidDefinition, "the parameter %q: %s", clip(name), fmt.Sprintf(format, args...))
	}
	m, ok := v.(map[string]any)
	if !ok {
		return wrong("it is %s; it must be an object with type", kindOf(v))
	}
	p := Parameter{Name: name}
	typ, _ := lookup(m, "type")
	for _, t := range parameterTypes {
		if sameFold(typ, t) {
			p.Type = t
		}
	}
	if p.Type == "" {
		return wrong("its type is not one of %s", list(parameterTypes))
	}
	if a, ok := lookup(m, "allowedValues"); ok && a != nil {
		if p.Allowed, ok = a.([]any); !ok {
			return wrong("allowedValues is %s; it must be an array", kindOf(a))
		}
	}
	if p.Default, p.HasValue = lookup(m, "defaultValue"); p.HasValue {
		if err := p.fits(p.Default); err != nil {
			return Parameter{}, err
		}
	}
	return p, nil
}

// fits says whether a value is one that the parameter may have.
func (p Parameter) fits(v any) error {
	ok := false
	switch x := v.(type) {
	case string:
		ok = p.Type == "String" || p.Type == "DateTime"
		if p.Type == "DateTime" {
			_, err := readTime(x)
			ok = err == nil
		}
	case []any:
		ok = p.Type == "Array"
	case map[string]any:
		ok = p.Type == "Object"
	case bool:
		ok = p.Type == "Boolean"
	case int64:
		ok = p.Type == "Integer" || p.Type == "Float"
	case float64:
		ok = p.Type == "Float"
	}
	if !ok {
		return arm.Errorf(InvalidParameters, "the value of the parameter %q is %s; it must be of the type %s", clip(p.Name), kindOf(v), p.Type)
	}
	if len(p.Allowed) == 0 {
		return nil
	}
	values := []any{v}
	if list, is := v.([]any); is {
		values = list
	}
	for _, x := range values {
		if !slices.ContainsFunc(p.Allowed, func(a any) bool { return equal(x, a) }) {
			return arm.Errorf(InvalidParameters, "the value of the parameter %q is not one of the allowed: %s", clip(p.Name), clip(fmt.Sprint(p.Allowed...)))
		}
	}
	return nil
}

// Values are the parameters' values: those that are given, else their defaults.
// What is missing, unknown or of another type is an error.
func Values(declared map[string]Parameter, given map[string]any) (map[string]any, error) {
	out := map[string]any{}
	for name, v := range given {
		p, ok := declared[strings.ToLower(name)]
		if !ok {
			return nil, arm.Errorf(InvalidParameters, "there is no parameter %q; there are %s", clip(name), names(declared))
		}
		if err := p.fits(v); err != nil {
			return nil, err
		}
		out[p.Name] = v
	}
	for _, p := range declared {
		if _, ok := out[p.Name]; ok {
			continue
		}
		if !p.HasValue {
			return nil, arm.Errorf(InvalidParameters, "the parameter %q has no value and no default", clip(p.Name))
		}
		out[p.Name] = p.Default
	}
	return out, nil
}

func names(declared map[string]Parameter) string {
	if len(declared) == 0 {
		return "none"
	}
	var out []string
	for _, p := range declared {
		out = append(out, p.Name)
	}
	sort.Strings(out)
	return strings.Join(out, ", ")
}

// Rule is a definition with its parameters put in. It is never altered and safe
// for concurrent use.
type Rule struct {
	Mode   string
	Effect Effect
	// Types are the types of resource, in lower case, that the rule can apply to;
	// nil if to all.
	Types   []string
	Details Details
	cond    condition
	params  map[string]any
}

// Bind puts parameters' values in.
func (d *Definition) Bind(given map[string]any) (*Rule, error) {
	params, err := Values(d.Parameters, given)
	if err != nil {
		return nil, err
	}
	o, err := d.effect.bind(params)
	if err != nil {
		return nil, err
	}
	name, err := o.text("the effect")
	if err != nil {
		return nil, err
	}
	r := &Rule{Mode: d.Mode, params: params}
	if r.Effect, err = ParseEffect(name); err != nil {
		return nil, err
	}
	return r, r.bind(d)
}

// WithEffect is the rule with another effect, as an assignment's override gives it.
func (d *Definition) WithEffect(given map[string]any, e Effect) (*Rule, error) {
	params, err := Values(d.Parameters, given)
	if err != nil {
		return nil, err
	}
	r := &Rule{Mode: d.Mode, Effect: e, params: params}
	return r, r.bind(d)
}

func (r *Rule) bind(d *Definition) (err error) {
	if r.cond, err = d.cond.bind(r.params); err != nil {
		return err
	}
	r.Types = r.cond.types()
	if r.Details, err = readDetails(r.Effect, d.details); err != nil {
		return err
	}
	return r.Details.bind(r.params)
}

// Applies reports whether the rule's "if" holds of a resource. An error is no
// answer: whoever enforces must take it for a yes.
func (r *Rule) Applies(in *Input) (bool, error) {
	x := runs.Get().(*run)
	x.in, x.params = in, r.params
	ok, err := r.cond.holds(x)
	*x = run{}
	runs.Put(x)
	return ok, err
}

// runs are runs that are over, and hold on to nothing.
var runs = sync.Pool{New: func() any { return new(run) }}

// MayApply reports whether the rule can apply to a type of resource.
func (r *Rule) MayApply(typ string) bool {
	return r.Types == nil || slices.Contains(r.Types, strings.ToLower(typ))
}

// Trace is Applies, and tells of each test that was made where in the definition
// it stands and whether it held.
func (r *Rule) Trace(in *Input, seen func(place string, held bool)) (bool, error) {
	return r.cond.holds(&run{in: in, params: r.params, seen: func(t *test, held bool) error {
		seen(t.place, held)
		return nil
	}})
}

// Tests are the places of all tests in the rule's "if".
func (r *Rule) Tests() (out []string) {
	r.cond.tests(func(place string) { out = append(out, place) })
	return out
}

// ParseRule reads the text of a definition's properties, or of a whole
// definition with properties in it.
func ParseRule(text []byte) (*Definition, error) {
	v, err := arm.ParseJSON(text)
	if err != nil {
		return nil, err
	}
	m, ok := Plain(v).(map[string]any)
	if !ok {
		return nil, arm.Errorf(InvalidDefinition, "a definition must be an object")
	}
	if p, ok := m["properties"].(map[string]any); ok {
		m = p
	}
	return ParseDefinition(m)
}

// Expand works out the expressions in values that an initiative gives one of its
// policies; they may speak of the initiative's own parameters alone.
func Expand(values, params map[string]any) (map[string]any, error) {
	out := make(map[string]any, len(values))
	for name, v := range values {
		o, err := readOperand(v)
		if err != nil {
			return nil, err
		}
		if o.later() {
			return nil, invalid("the value of the parameter %q must be known without a resource", clip(name))
		}
		if o, err = o.bind(params); err != nil {
			return nil, err
		}
		out[name] = o.value
	}
	return out, nil
}
