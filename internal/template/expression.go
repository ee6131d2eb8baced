package template

import (
	"castellan/internal/arm"
)

// Expression is one expression outside of a template, as a policy rule has it:
// read once, worked out many times. It is safe for concurrent use.
type Expression struct {
	n *node
}

// ParseExpression reads text as a template does. An expression stands in
// brackets; for other text x is nil and plain is what it stands for.
func ParseExpression(text string) (x *Expression, plain string, err error) {
	inner, plain, ok := isExpression(text)
	if !ok {
		return nil, plain, nil
	}
	n, err := parse(inner)
	if err != nil {
		return nil, "", err
	}
	return &Expression{n}, "", nil
}

// Outer is what an expression calls before the language's own functions. It
// leaves ok false for what it does not know.
type Outer func(name string, args []any) (v any, ok bool, err error)

// ErrLater is what an Outer gives for a value that is not known yet.
var ErrLater = errLater

// Calls gives the names of the functions that the expression calls, in lower case.
func (x *Expression) Calls() []string {
	var out []string
	x.n.each(func(n *node) {
		if n.call != "" {
			out = append(out, n.call)
		}
	})
	return out
}

// Eval works the expression out. A property that is not there is null, as in
// policy rules. What speaks of a template or of where it is
// deployed has no meaning here, unless outer gives it one.
func (x *Expression) Eval(outer Outer) (any, error) {
	return env{d: &Deployment{scope: &Scope{}}, outer: outer}.eval(x.n)
}

// Known reports whether a function may stand in an expression: it is one of the
// language's own that need no template around them.
func Known(name string) bool {
	if lazily[name] {
		return true
	}
	if _, placed := placeFunctions[name]; placed {
		return false
	}
	_, ok := functions[name]
	return ok && name != "utcnow" && name != "newguid"
}

// outside calls a function of an expression that has no template around it.
func (e env) outside(n *node) (any, error) {
	args := make([]any, len(n.args))
	for i, a := range n.args {
		var err error
		if args[i], err = e.eval(a); err != nil {
			return nil, err
		}
	}
	if v, ok, err := e.outer(n.call, args); ok || err != nil {
		return v, err
	}
	if !Known(n.call) {
		return nil, arm.Errorf(InvalidTemplate, "there is no function %q here", n.call)
	}
	return e.apply(n.call, args)
}
