package policy

import (
	"encoding/json"
	"strings"
)

// Evaluated is one test of a rule as it came out on a resource, as Azure's
// policyEvaluationDetails tell it.
type Evaluated struct {
	Held       bool
	Kind       string // Field, Value or Count
	Expression string // the field's name, or what is compared in its stead
	Path       string // where in the resource a field is; "" for others
	Value      any    // what the resource has; nil if it has nothing
	Target     any    // what the rule compares it with
	Operator   string // such as Equals
}

// Explain are the tests of the rule's "if" that were made on a resource: those
// after the one that settled it were not. Of a count it is the count itself, not
// the tests of each member.
func (r *Rule) Explain(in *Input) (out []Evaluated, err error) {
	x := &run{in: in, params: r.params}
	tell := func(t *test, held bool) error {
		if len(x.scopes) > 0 {
			return nil
		}
		seen := x.seen
		x.seen = nil // what is asked once more is told once
		defer func() { x.seen = seen }()
		e, err := t.explain(x)
		e.Held = held
		out = append(out, e)
		return err
	}
	x.seen = tell
	_, err = r.cond.holds(x)
	return out, err
}

func (t *test) explain(r *run) (e Evaluated, err error) {
	e.Operator = strings.ToUpper(t.op.name[:1]) + t.op.name[1:]
	if e.Target, err = t.want.eval(r); err != nil {
		return e, err
	}
	switch {
	case t.value != nil:
		e.Kind, e.Expression = "Value", textOf(t.left)
		e.Value, err = t.value.eval(r)
	case t.count != nil:
		if e.Kind, e.Expression = "Count", t.count.path.text; t.count.value != nil {
			e.Expression = textOf(t.left)
		}
		e.Value, err = t.count.of(r)
	default:
		e.Kind, e.Expression, e.Path = "Field", t.path.text, t.path.place()
		if t.path.each == 0 {
			e.Value, _ = r.one(&t.path)
			break
		}
		all := []any{}
		err = r.visit(&t.path, func(v any, _ bool) error {
			all = append(all, v)
			return nil
		})
		e.Value = all
	}
	return e, err
}

func textOf(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	b, _ := json.Marshal(v) // it was read from JSON
	return string(b)
}

// place is the path in the resource.
func (p *path) place() string {
	var out []string
	for _, s := range p.steps {
		switch {
		case s.each && len(out) > 0:
			out[len(out)-1] += "[*]"
		case len(out) == 0 && p.typ != "" && !envelope[strings.ToLower(s.name)]:
			out = append(out, "properties", s.name)
		default:
			out = append(out, s.name)
		}
	}
	return strings.Join(out, ".")
}
