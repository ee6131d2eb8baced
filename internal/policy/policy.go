// Package policy decides whether a resource may be so: Azure Policy's rules,
// read once and judged many times. It is pure: what a rule is to know comes in
// an Input, and what follows from its effect is its caller's to do.
//
// Source: the Azure Policy definition structure, schema of 2020-10-01.
package policy

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/template"
)

// Codes of what is wrong with a definition, with its parameters, or with a rule
// that can't be judged.
const (
	InvalidRule       arm.Code = "InvalidPolicyRule"
	InvalidDefinition arm.Code = "InvalidPolicyDefinition"
	InvalidParameters arm.Code = "InvalidPolicyParameters"
	NotEvaluated      arm.Code = "PolicyEvaluationFailed"
)

func invalid(format string, args ...any) error { return arm.Errorf(InvalidRule, format, args...) }

// Effect is what follows where a rule applies, in Azure's spelling.
type Effect string

// The effects.
const (
	Audit             Effect = "audit"
	AuditIfNotExists  Effect = "auditIfNotExists"
	Deny              Effect = "deny"
	DenyAction        Effect = "denyAction"
	DeployIfNotExists Effect = "deployIfNotExists"
	Modify            Effect = "modify"
	Append            Effect = "append"
	Manual            Effect = "manual"
	EnforceSetting    Effect = "enforceSetting"
	AuditAction       Effect = "auditAction"
	Disabled          Effect = "disabled"
)

// effects are all of them.
var effects = []Effect{Audit, AuditIfNotExists, Deny, DenyAction, DeployIfNotExists, Modify, Append, Manual, EnforceSetting, AuditAction, Disabled}

// ParseEffect reads an effect's name, in whatever case.
func ParseEffect(s string) (Effect, error) {
	for _, e := range effects {
		if strings.EqualFold(string(e), s) {
			return e, nil
		}
	}
	return "", invalid("there is no effect %q here; it must be one of %s", clip(s), list(effects))
}

func list[T ~string](of []T) string {
	out := make([]string, len(of))
	for i, s := range of {
		out[i] = string(s)
	}
	return strings.Join(out, ", ")
}

// clip shortens text of others for an error.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

// Input is what a rule judges.
type Input struct {
	// Resource is the document as Resource Manager shows it: id, name, type,
	// location, tags, properties and so on, made of what Plain gives.
	Resource map[string]any
	// APIVersion is the request's, empty in a scan.
	APIVersion string
	// Subscription and Group are what the functions of these names give; nil
	// where the resource is in none.
	Subscription, Group map[string]any
	// Policy is what the function policy() gives; nil gives nothing.
	Policy func() map[string]any
	Now    time.Time
}

// Plain makes numbers of what a JSON decoder gave int64 or float64, in place
// where it can.
func Plain(v any) any {
	switch x := v.(type) {
	case map[string]any:
		for k, y := range x {
			x[k] = Plain(y)
		}
	case []any:
		for i, y := range x {
			x[i] = Plain(y)
		}
	case json.Number:
		if n, err := x.Int64(); err == nil {
			return n
		}
		f, _ := x.Float64()
		return f
	case float64:
		if n := int64(x); float64(n) == x {
			return n
		}
	case int:
		return int64(x)
	}
	return v
}

// maxSteps bounds the work of one judgement: conditions and members of arrays.
const maxSteps = 200_000

// run is one judgement.
type run struct {
	in     *Input
	params map[string]any
	scopes []scope
	steps  int
	seen   func(t *test, held bool) error // told of every test; may be nil
}

// scope is where a count stands: the member that its condition looks at.
type scope struct {
	key   string // of the counted path, or the name of a counted value
	value any
}

func (r *run) spend() error {
	if r.steps++; r.steps > maxSteps {
		return arm.Errorf(NotEvaluated, "the policy rule takes more than %d steps on this resource", maxSteps)
	}
	return nil
}

// operand is a value in a rule: a constant, or an expression.
type operand struct {
	value any
	x     *template.Expression
	parts *parts // of an object or array that has expressions in it
}

type parts struct {
	object map[string]operand
	array  []operand
}

// readOperand reads a value; text in brackets is an expression wherever it stands.
func readOperand(v any) (operand, error) {
	switch t := v.(type) {
	case string:
		x, plain, err := template.ParseExpression(t)
		if err != nil {
			return operand{}, err
		}
		if x != nil {
			for _, name := range x.Calls() {
				if _, own := functions[name]; !own && !template.Known(name) {
					return operand{}, invalid("the function %q can't be used in a policy rule", clip(name))
				}
			}
			return operand{x: x}, nil
		}
		return operand{value: plain}, nil
	case []any:
		out, constant := make([]operand, len(t)), true
		for i, y := range t {
			var err error
			if out[i], err = readOperand(y); err != nil {
				return operand{}, err
			}
			constant = constant && out[i].constant()
		}
		if !constant {
			return operand{parts: &parts{array: out}}, nil
		}
	case map[string]any:
		out, constant := make(map[string]operand, len(t)), true
		for k, y := range t {
			o, err := readOperand(y)
			if err != nil {
				return operand{}, err
			}
			out[k], constant = o, constant && o.constant()
		}
		if !constant {
			return operand{parts: &parts{object: out}}, nil
		}
	}
	return operand{value: v}, nil
}

func (o operand) constant() bool { return o.x == nil && o.parts == nil }

// later reports whether o can be known only with a resource at hand.
func (o operand) later() bool {
	if o.parts != nil {
		for _, p := range o.parts.array {
			if p.later() {
				return true
			}
		}
		for _, p := range o.parts.object {
			if p.later() {
				return true
			}
		}
	}
	if o.x != nil {
		for _, name := range o.x.Calls() {
			if functions[name].later {
				return true
			}
		}
	}
	return false
}

// bind puts parameters in; what is known then is worked out once and for all.
func (o operand) bind(params map[string]any) (operand, error) {
	if o.constant() || o.later() {
		return o, nil
	}
	v, err := o.eval(&run{params: params})
	return operand{value: v}, err
}

func (o operand) eval(r *run) (any, error) {
	switch {
	case o.x != nil:
		if err := r.spend(); err != nil {
			return nil, err
		}
		v, err := o.x.Eval(r.call)
		if err != nil {
			return nil, failed(err)
		}
		return v, nil
	case o.parts != nil && o.parts.array != nil:
		out := make([]any, len(o.parts.array))
		for i, p := range o.parts.array {
			var err error
			if out[i], err = p.eval(r); err != nil {
				return nil, err
			}
		}
		return out, nil
	case o.parts != nil:
		out := make(map[string]any, len(o.parts.object))
		for k, p := range o.parts.object {
			v, err := p.eval(r)
			if err != nil {
				return nil, err
			}
			out[k] = v
		}
		return out, nil
	}
	return o.value, nil
}

// text is an operand that must be text, known without a resource.
func (o operand) text(what string) (string, error) {
	s, ok := o.value.(string)
	if !ok || !o.constant() {
		return "", invalid("%s must be a string that is known without a resource", what)
	}
	return s, nil
}

// failed words that an expression came to nothing.
func failed(err error) error {
	return &arm.Error{Code: NotEvaluated, Message: "an expression of the policy rule can't be worked out: " + err.Error(), Err: err}
}

// lookup is a property by its name, in whatever case: the very spelling first.
func lookup(m map[string]any, name string) (any, bool) {
	if v, ok := m[name]; ok {
		return v, true
	}
	for k, v := range m {
		if len(k) == len(name) && strings.EqualFold(k, name) {
			return v, true
		}
	}
	return nil, false
}

func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case string:
		return "a string"
	case bool:
		return "a boolean"
	case int64, float64:
		return "a number"
	case []any:
		return "an array"
	case map[string]any:
		return "an object"
	}
	return fmt.Sprintf("%T", v)
}
