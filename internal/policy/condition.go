package policy

import (
	"fmt"
	"slices"
	"strings"

	"castellan/internal/arm"
)

// condition is a part of a rule's "if".
type condition interface {
	// bind puts parameters in.
	bind(params map[string]any) (condition, error)
	holds(r *run) (bool, error)
	// types are the types of resource, in lower case, outside of which it can't
	// hold; nil if it can hold for any.
	types() []string
	// tests calls f with the place of each test in it.
	tests(f func(place string))
}

type (
	allOf []condition
	anyOf []condition
	not   struct{ of condition }
	// test compares a field, a value or a count.
	test struct {
		place string   // where in the definition it stands
		left  any      // what is compared, as the definition has it
		field *operand // its name
		path  path     // of the field, once its name is known
		value *operand
		count *count
		op    *operator
		want  operand
		quick func(s string) bool // op against want, of text; may be nil
	}
	// count is how many members of an array meet a condition.
	count struct {
		field *operand
		path  path
		value *operand
		name  string
		where condition
	}
)

// maxNesting bounds how deep a rule nests.
const maxNesting = 32

// readCondition reads a condition; place says where it stands, for errors.
func readCondition(v any, place string, depth int) (condition, error) {
	m, ok := v.(map[string]any)
	if !ok {
		return nil, invalid("%s is %s; it must be an object with a condition", place, kindOf(v))
	}
	if depth > maxNesting {
		return nil, invalid("%s nests too deep; at most %d levels are allowed", place, maxNesting)
	}
	for k, x := range m {
		switch strings.ToLower(k) {
		case "allof", "anyof":
			if err := alone(m, k, place); err != nil {
				return nil, err
			}
			all, err := readConditions(x, place+"."+k, depth)
			if err != nil {
				return nil, err
			}
			if strings.EqualFold(k, "anyOf") {
				return anyOf(all), nil
			}
			return allOf(all), nil
		case "not":
			if err := alone(m, k, place); err != nil {
				return nil, err
			}
			c, err := readCondition(x, place+"."+k, depth+1)
			return not{c}, err
		}
	}
	t, err := readTest(m, place, depth)
	return t, at(place, err)
}

// at says where in the rule something is wrong.
func at(place string, err error) error {
	e, ok := err.(*arm.Error)
	if !ok || e.Target != "" {
		return err
	}
	return &arm.Error{Code: e.Code, Target: place, Message: place + ": " + e.Message, Err: e.Err}
}

func alone(m map[string]any, k, place string) error {
	if len(m) > 1 {
		return at(place, invalid("nothing may stand beside %s", clip(k)))
	}
	return nil
}

func readConditions(v any, place string, depth int) ([]condition, error) {
	list, ok := v.([]any)
	if !ok {
		return nil, at(place, invalid("it is %s; it must be an array of conditions", kindOf(v)))
	}
	out := make([]condition, len(list))
	for i, x := range list {
		var err error
		if out[i], err = readCondition(x, fmt.Sprintf("%s[%d]", place, i), depth+1); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func readTest(m map[string]any, place string, depth int) (*test, error) {
	t := test{place: place}
	left := 0
	for k, x := range m {
		switch name := strings.ToLower(k); name {
		case "field":
			left++
			o, p, err := readField(x)
			if err != nil {
				return nil, err
			}
			t.field, t.path = &o, p
		case "value":
			left++
			t.left = x
			o, err := readOperand(x)
			if err != nil {
				return nil, err
			}
			t.value = &o
		case "count":
			left++
			t.left = x
			c, err := readCount(x, place+".count", depth)
			if err != nil {
				return nil, err
			}
			t.count = c
		default:
			op, ok := operators[name]
			if !ok {
				return nil, invalid("there is no condition %q; it must be field, value or count, with one of %s", clip(k), operatorNames())
			}
			if t.op != nil {
				return nil, invalid("%s and %s stand side by side; one condition has one", t.op.name, op.name)
			}
			o, err := readOperand(x)
			if err != nil {
				return nil, err
			}
			t.op, t.want = op, o
		}
	}
	if left != 1 || t.op == nil {
		return nil, invalid("a condition must have exactly one of field, value and count, and exactly one of %s", operatorNames())
	}
	return &t, nil
}

func operatorNames() string {
	var out []string
	for _, op := range operators {
		out = append(out, op.name)
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// readField reads the name of a field, which may be an expression of parameters.
func readField(v any) (operand, path, error) {
	if _, ok := v.(string); !ok {
		return operand{}, path{}, invalid("the name of a field is %s; it must be a string", kindOf(v))
	}
	o, err := readOperand(v)
	if err != nil || o.x != nil {
		if err == nil && o.later() {
			err = invalid("the name of a field must be known without a resource")
		}
		return o, path{}, err
	}
	p, err := parsePath(o.value.(string))
	return o, p, err
}

// bindField is a field's path once parameters are known.
func bindField(o *operand, p path, params map[string]any) (path, error) {
	if o == nil || o.x == nil {
		return p, nil
	}
	b, err := o.bind(params)
	if err != nil {
		return path{}, err
	}
	name, err := b.text("the name of a field")
	if err != nil {
		return path{}, err
	}
	return parsePath(name)
}

func readCount(v any, place string, depth int) (*count, error) {
	m, ok := v.(map[string]any)
	if !ok {
		return nil, invalid("count is %s; it must be an object", kindOf(v))
	}
	var c count
	for k, x := range m {
		var err error
		switch strings.ToLower(k) {
		case "field":
			var o operand
			o, c.path, err = readField(x)
			c.field = &o
		case "value":
			var o operand
			o, err = readOperand(x)
			c.value = &o
		case "name":
			if c.name, ok = x.(string); !ok || c.name == "" {
				err = invalid("the name of a count must be a string")
			}
		case "where":
			c.where, err = readCondition(x, place+".where", depth+1)
		default:
			err = invalid("count has %q; only field, value, name and where are allowed", clip(k))
		}
		if err != nil {
			return nil, err
		}
	}
	if (c.field == nil) == (c.value == nil) {
		return nil, invalid("count must have exactly one of field and value")
	}
	if c.field != nil && c.name != "" {
		return nil, invalid("the count of a field has no name")
	}
	if c.field != nil && c.field.x == nil && c.path.each == 0 {
		return nil, invalid("count needs the members of an array: the field %q has no [*]", clip(c.path.text))
	}
	return &c, nil
}

func (a allOf) bind(params map[string]any) (condition, error) {
	out, err := bindAll(a, params)
	return allOf(out), err
}

func (a anyOf) bind(params map[string]any) (condition, error) {
	out, err := bindAll(a, params)
	return anyOf(out), err
}

func bindAll(all []condition, params map[string]any) ([]condition, error) {
	out := make([]condition, len(all))
	for i, c := range all {
		var err error
		if out[i], err = c.bind(params); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (n not) bind(params map[string]any) (condition, error) {
	c, err := n.of.bind(params)
	return not{c}, err
}

func (t *test) bind(params map[string]any) (condition, error) {
	b := *t
	var err error
	if b.path, err = bindField(t.field, t.path, params); err != nil {
		return nil, err
	}
	if b.want, err = t.want.bind(params); err != nil {
		return nil, err
	}
	if t.value != nil {
		v, err := t.value.bind(params)
		if err != nil {
			return nil, err
		}
		b.value = &v
	}
	if t.count != nil {
		c := *t.count
		if c.path, err = bindField(c.field, c.path, params); err != nil {
			return nil, err
		}
		if c.value != nil {
			v, err := c.value.bind(params)
			if err != nil {
				return nil, err
			}
			c.value = &v
		}
		if c.where != nil {
			if c.where, err = c.where.bind(params); err != nil {
				return nil, err
			}
		}
		b.count = &c
	}
	if b.want.constant() {
		// What can't be compared shows now, not at the first resource.
		if _, err := b.op.test("", b.want.value); err != nil {
			return nil, err
		}
		b.quick = b.op.onStrings(b.want.value)
	}
	return &b, nil
}

func (a allOf) holds(r *run) (bool, error) {
	for _, c := range a {
		if ok, err := c.holds(r); !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

func (a anyOf) holds(r *run) (bool, error) {
	for _, c := range a {
		if ok, err := c.holds(r); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

func (n not) holds(r *run) (bool, error) {
	ok, err := n.of.holds(r)
	return !ok && err == nil, err
}

func (t *test) holds(r *run) (bool, error) {
	ok, err := t.compare(r)
	if r.seen != nil && err == nil {
		err = r.seen(t, ok)
	}
	return ok, err
}

// compare is holds without the tale.
func (t *test) compare(r *run) (bool, error) {
	if err := r.spend(); err != nil {
		return false, err
	}
	if t.quick != nil && t.field != nil && t.path.each == 0 {
		v, _ := r.one(&t.path)
		if s, is := v.(string); is {
			return t.quick(s), nil
		}
		return t.op.test(v, t.want.value)
	}
	want, err := t.want.eval(r)
	if err != nil {
		return false, err
	}
	switch {
	case t.value != nil:
		v, err := t.value.eval(r)
		if err != nil {
			return false, err
		}
		if want == "" {
			v = orEmpty(v)
		}
		return t.op.test(v, want)
	case t.count != nil:
		n, err := t.count.of(r)
		if err != nil {
			return false, err
		}
		return t.op.test(n, want)
	case t.path.each == 0:
		v, _ := r.one(&t.path)
		return t.op.test(v, want)
	}
	// Of an array each member must pass; of none, all do.
	all := true
	err = r.visit(&t.path, func(v any, _ bool) error {
		ok, err := t.op.test(v, want)
		all = all && ok
		return err
	})
	return all, err
}

// of counts.
func (c *count) of(r *run) (n int64, err error) {
	key := c.name
	if c.field != nil {
		key = c.path.key()
	}
	each := func(v any, _ bool) error {
		if c.where == nil {
			n++
			return nil
		}
		r.scopes = append(r.scopes, scope{key, v})
		ok, err := c.where.holds(r)
		r.scopes = r.scopes[:len(r.scopes)-1]
		if ok {
			n++
		}
		return err
	}
	if c.field != nil {
		return n, r.visit(&c.path, each)
	}
	v, err := c.value.eval(r)
	if err != nil {
		return 0, err
	}
	members, ok := v.([]any)
	if !ok {
		return 0, failed(invalid("the value of a count is %s; it must be an array", kindOf(v)))
	}
	for _, m := range members {
		if err := each(m, true); err != nil {
			return 0, err
		}
	}
	return n, nil
}

func (a allOf) types() []string {
	var out []string
	for _, c := range a {
		if t := c.types(); t != nil {
			if out == nil {
				out = t
				continue
			}
			out = slices.DeleteFunc(slices.Clone(out), func(s string) bool { return !slices.Contains(t, s) })
		}
	}
	return out
}

func (a anyOf) types() []string {
	out := []string{}
	for _, c := range a {
		t := c.types()
		if t == nil {
			return nil
		}
		out = append(out, t...)
	}
	return out
}

func (not) types() []string { return nil }

func (t *test) types() []string {
	if t.field == nil || !strings.EqualFold(t.path.text, "type") || !t.want.constant() {
		return nil
	}
	switch t.op.name {
	case "equals":
		if s, ok := t.want.value.(string); ok {
			return []string{strings.ToLower(s)}
		}
	case "in":
		list, _ := t.want.value.([]any)
		out := []string{}
		for _, x := range list {
			s, ok := x.(string)
			if !ok {
				return nil
			}
			out = append(out, strings.ToLower(s))
		}
		return out
	}
	return nil
}

func (a allOf) tests(f func(string)) { eachTest(a, f) }

func (a anyOf) tests(f func(string)) { eachTest(a, f) }

func eachTest(all []condition, f func(string)) {
	for _, c := range all {
		c.tests(f)
	}
}

func (n not) tests(f func(string)) { n.of.tests(f) }

func (t *test) tests(f func(string)) {
	f(t.place)
	if t.count != nil && t.count.where != nil {
		t.count.where.tests(f)
	}
}
