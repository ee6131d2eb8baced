package template

import "strings"

// lazily are the functions that evaluate only what they need.
var lazily = map[string]bool{"if": true, "and": true, "or": true, "coalesce": true}

// special calls the functions that do not simply take the values of their
// arguments: because not all are to be evaluated, or because of where they
// stand. ok is false for all others.
func (e env) special(n *node) (v any, ok bool, err error) {
	switch n.call {
	case "if":
		v, err = evalIf(e, n)
	case "and":
		v, err = e.junction(n, "and", false)
	case "or":
		v, err = e.junction(n, "or", true)
	case "coalesce":
		v, err = evalCoalesce(e, n)
	}
	if lazily[n.call] || e.outer != nil {
		return v, lazily[n.call], err
	}
	switch n.call {
	case "parameters":
		v, err = evalParameters(e, n)
	case "variables":
		v, err = evalVariables(e, n)
	case "copyindex":
		v, err = evalCopyIndex(e, n)
	case "reference":
		v, err = evalReference(e, n)
	default:
		return nil, false, nil
	}
	return v, true, err
}

// evalIf evaluates the branch that is taken and no other.
func evalIf(e env, n *node) (any, error) {
	if len(n.args) != 3 {
		return nil, invalid("the function if has %d arguments; it must have 3", len(n.args))
	}
	c, err := e.truth(n.args[0], "if")
	if err != nil {
		return nil, err
	}
	if c {
		return e.eval(n.args[1])
	}
	return e.eval(n.args[2])
}

func (e env) truth(n *node, in string) (bool, error) {
	v, err := e.eval(n)
	if err != nil {
		return false, err
	}
	b, ok := v.(bool)
	if !ok {
		return false, invalid("in the function %s, %s stands where a bool must be", in, kind(v))
	}
	return b, nil
}

// junction stops at the first argument that is stop.
func (e env) junction(n *node, name string, stop bool) (any, error) {
	if len(n.args) < 2 {
		return nil, invalid("the function %s has %d arguments; it must have at least 2", name, len(n.args))
	}
	for _, a := range n.args {
		b, err := e.truth(a, name)
		if err != nil {
			return nil, err
		}
		if b == stop {
			return stop, nil
		}
	}
	return !stop, nil
}

func evalCoalesce(e env, n *node) (any, error) {
	if len(n.args) == 0 {
		return nil, invalid("the function coalesce has no arguments; it must have at least 1")
	}
	for _, a := range n.args {
		v, err := e.eval(a)
		if err != nil || v != nil {
			return v, err
		}
	}
	return nil, nil
}

// one is the only argument, a string.
func (e env) one(n *node) (string, error) {
	if len(n.args) != 1 {
		return "", invalid("the function %s has %d arguments; it must have 1", n.call, len(n.args))
	}
	v, err := e.eval(n.args[0])
	if err != nil {
		return "", err
	}
	s, ok := v.(string)
	if !ok {
		return "", invalid("in the function %s, %s stands where a name must be", n.call, kind(v))
	}
	return s, nil
}

func evalParameters(e env, n *node) (any, error) {
	name, err := e.one(n)
	if err != nil {
		return nil, err
	}
	if e.own != nil {
		v, ok := lookup(e.own, name)
		if !ok {
			return nil, invalid("the function has no parameter %q", name)
		}
		return v, nil
	}
	return e.d.parameter(name)
}

func evalVariables(e env, n *node) (any, error) {
	name, err := e.one(n)
	if err != nil {
		return nil, err
	}
	if e.own != nil {
		return nil, invalid("a function of the template's own can't use variables")
	}
	return e.d.variable(name)
}

// evalCopyIndex is where the innermost loop stands, or the one that is named.
func evalCopyIndex(e env, n *node) (any, error) {
	name, offset := "", int64(0)
	for i, a := range n.args {
		v, err := e.eval(a)
		if err != nil {
			return nil, err
		}
		switch x := v.(type) {
		case string:
			name = x
		case int64:
			offset = x
		default:
			return nil, invalid("in the function copyIndex, argument %d must be a loop's name or a number", i+1)
		}
	}
	for i := len(e.loops) - 1; i >= 0; i-- {
		if name == "" || strings.EqualFold(e.loops[i].name, name) {
			return e.loops[i].n + offset, nil
		}
	}
	return nil, invalid("copyIndex stands outside of a copy loop of that name")
}

// evalReference asks for the state of a resource, which is there only while
// resources are being deployed.
func evalReference(e env, n *node) (any, error) {
	if len(n.args) < 1 || len(n.args) > 3 {
		return nil, invalid("the function reference has %d arguments; it must have 1 to 3", len(n.args))
	}
	var args [3]string
	for i, a := range n.args {
		v, err := e.eval(a)
		if err != nil {
			return nil, err
		}
		s, ok := v.(string)
		if !ok {
			return nil, invalid("in the function reference, argument %d is %s; it must be a string", i+1, kind(v))
		}
		args[i] = s
	}
	if e.d.scope.Reference == nil {
		return nil, errLater
	}
	id, version := e.d.resolve(args[0], args[1])
	return e.d.scope.Reference(id, version, strings.EqualFold(args[2], "full"))
}
