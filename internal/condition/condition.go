// Package condition reads and evaluates the conditions of role assignments:
// Azure's ABAC language, version 2.0. It is pure.
//
// Source: "Azure role assignment condition format and syntax".
package condition

import (
	"fmt"
	"strings"
	"time"

	"castellan/internal/arm"
)

// Version is the only version of the language.
const Version = "2.0"

// Invalid is the code of a condition that can't be read.
const Invalid arm.Code = "InvalidConditionExpression"

// Condition is a condition, read. It is never altered and safe for concurrent use.
type Condition struct {
	text string
	root expr
}

// Attributes are what conditions speak of. Their names are in lower case, with
// what Azure puts in front of a colon. What is not there meets no comparison.
type Attributes struct {
	Action       string // such as Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read
	SubOperation string // such as Blob.List; "" is none
	Principal    map[string]any
	Resource     map[string]any
	Request      map[string]any
	Environment  map[string]any
}

// Limits of a condition, as Azure's.
const (
	maxText   = 8 << 10
	maxDepth  = 32
	maxValues = 1000
)

// Parse reads a condition. Its version must be 2.0.
func Parse(text, version string) (*Condition, error) {
	if version != Version {
		return nil, arm.Errorf(Invalid, "conditionVersion is %q; it must be %s", version, Version)
	}
	if len(text) > maxText {
		return nil, arm.Errorf(Invalid, "the condition has %d bytes; at most %d are allowed", len(text), maxText)
	}
	p := &parser{s: text}
	if err := p.next(); err != nil {
		return nil, err
	}
	root, err := p.or(0)
	if err != nil {
		return nil, err
	}
	if p.tok.kind != end {
		return nil, p.bad("the condition goes on where it should end")
	}
	return &Condition{text, root}, nil
}

// String is the condition as it was written.
func (c *Condition) String() string { return c.text }

// Holds evaluates the condition. Without a condition nothing holds.
func (c *Condition) Holds(a *Attributes) bool { return c != nil && c.root.holds(a) }

// expr is a part of a condition that holds or does not.
type expr interface{ holds(a *Attributes) bool }

type (
	both    struct{ a, b expr }
	either  struct{ a, b expr }
	negated struct{ of expr }
	// matches is ActionMatches{'...'} and SubOperationMatches{'...'}.
	matches struct {
		pattern string
		sub     bool
	}
	exists  struct{ of operand }
	truth   struct{ of operand }
	compare struct {
		left  operand
		cross string // "", or which values of both sides must fit
		op    *operator
		right operand
	}
)

func (e both) holds(a *Attributes) bool    { return e.a.holds(a) && e.b.holds(a) }
func (e either) holds(a *Attributes) bool  { return e.a.holds(a) || e.b.holds(a) }
func (e negated) holds(a *Attributes) bool { return !e.of.holds(a) }

func (e matches) holds(a *Attributes) bool {
	if e.sub {
		return strings.EqualFold(e.pattern, a.SubOperation)
	}
	return likeFold(a.Action, e.pattern)
}

func (e exists) holds(a *Attributes) bool {
	_, ok := e.of.value(a)
	return ok
}

func (e truth) holds(a *Attributes) bool {
	v, _ := e.of.value(a)
	b, ok := v.(bool)
	return ok && b
}

func (e compare) holds(a *Attributes) bool {
	l, ok := e.left.value(a)
	if !ok {
		return false
	}
	r, ok := e.right.value(a)
	if !ok {
		return false
	}
	if e.cross == "" {
		return e.op.test(l, r)
	}
	return crosses(e.cross, e.op.test, list(l), list(r))
}

// crosses compares every value of the left side with every one of the right.
func crosses(how string, test func(l, r any) bool, ls, rs []any) bool {
	any1 := func(l any) bool {
		for _, r := range rs {
			if test(l, r) {
				return true
			}
		}
		return false
	}
	all1 := func(l any) bool {
		for _, r := range rs {
			if !test(l, r) {
				return false
			}
		}
		return true
	}
	of := any1
	if strings.HasSuffix(how, "allvalues") {
		of = all1
	}
	if strings.HasPrefix(how, "foranyof") {
		for _, l := range ls {
			if of(l) {
				return true
			}
		}
		return false
	}
	for _, l := range ls {
		if !of(l) {
			return false
		}
	}
	return len(ls) > 0
}

func list(v any) []any {
	if l, ok := v.([]any); ok {
		return l
	}
	return []any{v}
}

// operand is one side of a comparison.
type operand struct {
	constant any
	source   string // principal, resource, request or environment; "" for others
	name     string // of the attribute, in lower case
	call     string // of a function, in lower case
	args     []operand
}

func (o operand) value(a *Attributes) (any, bool) {
	switch {
	case o.source != "":
		m := map[string]map[string]any{"principal": a.Principal, "resource": a.Resource, "request": a.Request, "environment": a.Environment}[o.source]
		v, ok := m[o.name]
		return v, ok && v != nil
	case o.call != "":
		return o.apply(a)
	}
	return o.constant, true
}

// functions are what an operand may call, with how many arguments each.
var functions = map[string]int{"tolower": 1, "toupper": 1, "trim": 1, "normalizelist": 1, "normalizeset": 1, "adddays": 2}

func (o operand) apply(a *Attributes) (any, bool) {
	args := make([]any, len(o.args))
	for i, x := range o.args {
		var ok bool
		if args[i], ok = x.value(a); !ok {
			return nil, false
		}
	}
	switch o.call {
	case "normalizelist":
		return list(args[0]), true
	case "normalizeset":
		var out []any
		for _, v := range list(args[0]) {
			if !contains(out, v) {
				out = append(out, v)
			}
		}
		return out, true
	case "adddays":
		t, ok := instant(args[0])
		n, isNumber := args[1].(float64)
		if !ok || !isNumber {
			return nil, false
		}
		return t.AddDate(0, 0, int(n)).Format(time.RFC3339Nano), true
	}
	s, ok := args[0].(string)
	if !ok {
		return nil, false
	}
	return map[string]func(string) string{"tolower": strings.ToLower, "toupper": strings.ToUpper, "trim": strings.TrimSpace}[o.call](s), true
}

func contains(l []any, v any) bool {
	for _, x := range l {
		if fmt.Sprint(x) == fmt.Sprint(v) {
			return true
		}
	}
	return false
}
