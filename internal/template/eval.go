package template

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"castellan/internal/arm"
)

// InvalidTemplate is the code of everything that is wrong with a template itself.
const InvalidTemplate arm.Code = "InvalidTemplate"

// invalid is an error that will be given its place on the way up. It must never
// hold a value: a value may be a secret.
func invalid(format string, args ...any) error { return arm.Errorf(InvalidTemplate, format, args...) }

// within says where in the template an error arose.
func within(place string, err error) error {
	if err == nil || errors.Is(err, errLater) {
		return err
	}
	var e *arm.Error
	if !errors.As(err, &e) || e.Target != "" || e.Code != InvalidTemplate {
		return err
	}
	return &arm.Error{Code: e.Code, Message: place + ": " + e.Message, Target: place, Err: e.Err}
}

// errLater means that a value is known only while resources are being deployed.
var errLater = errors.New("template: the value is known only at deployment")

// Later reports whether err means only that a value is not known yet.
func Later(err error) bool { return errors.Is(err, errLater) }

// Limits of what the expressions of one template may make, so that a small
// template can't be made to fill the memory.
const (
	maxSteps = 500_000
	maxBytes = 32 << 20 // of all strings made
	maxText  = 1 << 20  // of one string
	maxItems = 10_000   // of one array
)

// loop is where a copy loop stands.
type loop struct {
	name string
	n    int64
}

// env is what expressions see: one deployment, and the loops and, in a function
// of the template's own, the arguments around.
type env struct {
	d     *Deployment
	loops []loop
	own   map[string]any // parameters of the template's own function; nil outside
	outer Outer          // of an expression without a template; nil in one
	deep  int
	// rest leaves what is not known yet as the expression that it is.
	rest bool
}

func (e env) with(l loop) env {
	e.loops = append(slices.Clone(e.loops), l)
	return e
}

func (e env) spend(bytes int) error {
	b := &e.d.spent
	b.steps++
	b.bytes += bytes
	if b.steps > maxSteps || b.bytes > maxBytes || bytes > maxText {
		return invalid("the expressions of the template make too much: at most %d steps, %d characters in one string and %d in all", maxSteps, maxText, maxBytes)
	}
	return nil
}

// value evaluates every expression in tree.
func (e env) value(tree any, place string) (any, error) {
	if err := e.spend(0); err != nil {
		return nil, within(place, err)
	}
	switch v := tree.(type) {
	case string:
		inner, plain, ok := isExpression(v)
		if !ok {
			return plain, nil
		}
		n, err := e.d.parse(inner)
		if err != nil {
			return nil, within(place, err)
		}
		out, err := e.eval(n)
		if e.rest && Later(err) {
			return v, nil
		}
		return out, within(place, err)
	case map[string]any:
		return e.object(v, place)
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			var err error
			if out[i], err = e.value(x, fmt.Sprintf("%s[%d]", place, i)); err != nil {
				return nil, err
			}
		}
		return out, nil
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n, nil
		}
		return v, nil
	}
	return tree, nil
}

// object is value for an object, in which copy makes arrays.
func (e env) object(v map[string]any, place string) (any, error) {
	out := make(map[string]any, len(v))
	for k, x := range v {
		if strings.EqualFold(k, "copy") {
			if loops, ok := x.([]any); ok {
				if err := e.copies(loops, out, place); err != nil {
					return nil, err
				}
				continue
			}
		}
		key, err := e.value(k, place)
		if err != nil {
			return nil, err
		}
		name, ok := key.(string)
		if !ok {
			return nil, within(place, invalid("the name of a property is %s; it must be a string", kind(key)))
		}
		if out[name], err = e.value(x, place+"."+k); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// copies runs the property loops of an object: [{name, count, input}].
func (e env) copies(loops []any, out map[string]any, place string) error {
	for i, x := range loops {
		at := fmt.Sprintf("%s.copy[%d]", place, i)
		m, ok := x.(map[string]any)
		name, named := get(m, "name").(string)
		if !ok || !named {
			return within(at, invalid("a copy loop must be an object with name, count and input"))
		}
		list, err := e.repeat(m, name, at)
		if err != nil {
			return err
		}
		out[name] = list
	}
	return nil
}

// repeat evaluates a loop's input once per turn.
func (e env) repeat(m map[string]any, name, place string) ([]any, error) {
	count, err := e.count(m, place)
	if err != nil {
		return nil, err
	}
	input, ok := lookup(m, "input")
	if !ok {
		return nil, within(place, invalid("the copy loop has no input"))
	}
	list := make([]any, count)
	for n := range list {
		if list[n], err = e.with(loop{name, int64(n)}).value(input, place+".input"); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// maxCopies is how often a copy loop may run; Azure allows no more either.
const maxCopies = 800

func (e env) count(m map[string]any, place string) (int, error) {
	c, ok := lookup(m, "count")
	if !ok {
		return 0, within(place, invalid("the copy loop has no count"))
	}
	v, err := e.value(c, place+".count")
	if err != nil {
		return 0, err
	}
	n, ok := v.(int64)
	if !ok || n < 0 || n > maxCopies {
		return 0, within(place, invalid("the count of a copy loop must be a whole number from 0 to %d", maxCopies))
	}
	return int(n), nil
}

func (e env) eval(n *node) (any, error) {
	if err := e.spend(0); err != nil {
		return nil, err
	}
	switch {
	case n.text != nil:
		return *n.text, nil
	case n.num != nil:
		return *n.num, nil
	case n.base != nil:
		return e.member(n)
	}
	if v, ok, err := e.special(n); ok {
		return v, err
	}
	if e.outer != nil {
		return e.outside(n)
	}
	args := make([]any, len(n.args))
	for i, a := range n.args {
		var err error
		if args[i], err = e.eval(a); err != nil {
			return nil, err
		}
	}
	if _, ok := functions[n.call]; ok {
		return e.apply(n.call, args)
	}
	if strings.Contains(n.call, ".") {
		return e.ownFunction(n.call, args)
	}
	return nil, invalid("there is no function %q", n.call)
}

// apply calls a function of the language.
func (e env) apply(name string, args []any) (any, error) {
	f := functions[name]
	if len(args) < f.least || f.most >= 0 && len(args) > f.most {
		return nil, invalid("the function %s has %d arguments; it must have %s", name, len(args), f.span())
	}
	out, err := f.do(e, args)
	if err != nil {
		return nil, inFunction(name, err)
	}
	return out, e.weigh(out)
}

func inFunction(name string, err error) error {
	var e *arm.Error
	if errors.As(err, &e) && e.Code == InvalidTemplate && e.Target == "" {
		return &arm.Error{Code: e.Code, Message: "in the function " + name + ", " + e.Message, Err: e.Err}
	}
	return err
}

// weigh counts what a function made.
func (e env) weigh(v any) error {
	switch x := v.(type) {
	case string:
		return e.spend(len(x))
	case []any:
		if len(x) > maxItems {
			return invalid("an array has %d items; at most %d are allowed", len(x), maxItems)
		}
		return e.spend(len(x))
	}
	return nil
}

// member is base.name or base[at].
func (e env) member(n *node) (any, error) {
	base, err := e.eval(n.base)
	if err != nil {
		return nil, err
	}
	var key any = n.name
	if n.at != nil {
		if key, err = e.eval(n.at); err != nil {
			return nil, err
		}
	}
	switch b := base.(type) {
	case map[string]any:
		k, ok := key.(string)
		if !ok {
			return nil, invalid("an object's property is asked for by %s; it must be a string", kind(key))
		}
		v, ok := lookup(b, k)
		if !ok && e.outer == nil {
			return nil, invalid("the property %q is not there", k)
		}
		return v, nil
	case []any:
		i, ok := key.(int64)
		if !ok || i < 0 || i >= int64(len(b)) {
			return nil, invalid("an array of %d items has no such item", len(b))
		}
		return b[i], nil
	case nil:
		if e.outer != nil {
			return nil, nil
		}
	}
	return nil, invalid("%s has no properties", kind(base))
}

// lookup is a property by its name, in whatever case: the very spelling first.
func lookup(m map[string]any, name string) (any, bool) {
	if v, ok := m[name]; ok {
		return v, true
	}
	for k, v := range m {
		if strings.EqualFold(k, name) {
			return v, true
		}
	}
	return nil, false
}

func get(m map[string]any, name string) any {
	v, _ := lookup(m, name)
	return v
}

// kind names a value's type, for errors.
func kind(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case string:
		return "a string"
	case bool:
		return "a bool"
	case int64, json.Number:
		return "a number"
	case []any:
		return "an array"
	case map[string]any:
		return "an object"
	}
	return "something unknown"
}

// size walks v and fails when it is larger than a resource may be: values share
// their parts, so what is small in memory may be huge when written out.
func (e env) size(v any) error {
	switch x := v.(type) {
	case string:
		return e.spend(len(x))
	case []any:
		for _, y := range x {
			if err := e.size(y); err != nil {
				return err
			}
		}
	case map[string]any:
		for k, y := range x {
			if err := e.spend(len(k)); err != nil {
				return err
			}
			if err := e.size(y); err != nil {
				return err
			}
		}
	}
	return e.spend(0)
}
