package scim

import (
	"encoding/json"
	"strings"
	"time"

	"castellan/internal/arm"

	parse "github.com/scim2/filter-parser/v2"
)

// Limits of a filter. The parser tries brackets again and again, so that few
// are let near it.
const (
	maxFilter   = 2048 // bytes
	maxBrackets = 8
)

// Filter says whether a resource, or a value of an attribute, is meant.
type Filter func(m map[string]any) bool

// Filter is the filter that a client wrote (RFC 7644, 3.4.2.2); "" means all.
func (t *Type) Filter(s string) (Filter, error) {
	if s == "" {
		return func(map[string]any) bool { return true }, nil
	}
	if err := checkSize(s); err != nil {
		return nil, &arm.Error{Code: InvalidFilter, Message: "The filter is too large: " + err.Error()}
	}
	e, err := parse.ParseFilter([]byte(s))
	if err != nil {
		return nil, arm.Errorf(InvalidFilter, "The filter %q can't be read; write ATTRIBUTE eq \"VALUE\", with eq, ne, co, sw, ew, gt, ge, lt, le or pr, and, or, not ( ) between.", clip(s))
	}
	return scope{t: t}.compile(e)
}

type tooLarge string

func (e tooLarge) Error() string { return string(e) }

func checkSize(s string) error {
	if len(s) > maxFilter {
		return tooLarge("it has more than 2048 bytes.")
	}
	if strings.Count(s, "(")+strings.Count(s, "[") > maxBrackets {
		return tooLarge("it has more than 8 brackets.")
	}
	return nil
}

// scope is where names of attributes are looked up: a type, or what is in
// brackets behind one of its attributes.
type scope struct {
	t  *Type
	in []*Attribute // the chain to the attribute in whose brackets we are
}

func (c scope) chain(p parse.AttributePath) ([]*Attribute, error) {
	if c.in == nil {
		out, err := c.t.chain(strings.TrimSuffix(p.URI(), ":"), p.AttributeName, p.SubAttributeName())
		if err != nil {
			return nil, asFilter(err)
		}
		return out, nil
	}
	last := c.in[len(c.in)-1]
	a := lookup(last.Sub, p.AttributeName)
	if a == nil || p.SubAttributeName() != "" || p.URI() != "" {
		return nil, arm.Errorf(InvalidFilter, "The attribute %s has no %q; it has %s.", last.Name, clip(p.String()), names(last.Sub))
	}
	return []*Attribute{a}, nil
}

func asFilter(err error) error {
	_, message := codeOf(err)
	return &arm.Error{Code: InvalidFilter, Message: message}
}

func (c scope) compile(e parse.Expression) (Filter, error) {
	switch e := e.(type) {
	case *parse.NotExpression:
		f, err := c.compile(e.Expression)
		if err != nil {
			return nil, err
		}
		return func(m map[string]any) bool { return !f(m) }, nil
	case *parse.LogicalExpression:
		return c.both(e)
	case *parse.ValuePath:
		return c.within(e)
	case *parse.AttributeExpression:
		return c.compare(e)
	}
	return nil, arm.Errorf(InvalidFilter, "The filter has an expression that is not known.")
}

func (c scope) both(e *parse.LogicalExpression) (Filter, error) {
	l, err := c.compile(e.Left)
	if err != nil {
		return nil, err
	}
	r, err := c.compile(e.Right)
	if err != nil {
		return nil, err
	}
	if e.Operator == parse.OR {
		return func(m map[string]any) bool { return l(m) || r(m) }, nil
	}
	return func(m map[string]any) bool { return l(m) && r(m) }, nil
}

func (c scope) within(e *parse.ValuePath) (Filter, error) {
	chain, err := c.chain(e.AttributePath)
	if err != nil {
		return nil, err
	}
	if chain[len(chain)-1].Type != "complex" || c.in != nil {
		return nil, arm.Errorf(InvalidFilter, "The attribute %s has no attributes for a filter in brackets.", chain[len(chain)-1].Name)
	}
	f, err := scope{t: c.t, in: chain}.compile(e.ValueFilter)
	if err != nil {
		return nil, err
	}
	return func(m map[string]any) bool {
		for _, v := range valuesAt(m, chain) {
			if x, ok := v.(map[string]any); ok && f(x) {
				return true
			}
		}
		return false
	}, nil
}

// valuesAt are all values that a chain leads to.
func valuesAt(m map[string]any, chain []*Attribute) []any {
	v, ok := m[chain[0].Name]
	if !ok || v == nil {
		return nil
	}
	list, many := v.([]any)
	if !many {
		list = []any{v}
	}
	if len(chain) == 1 {
		return list
	}
	var out []any
	for _, x := range list {
		if x, ok := x.(map[string]any); ok {
			out = append(out, valuesAt(x, chain[1:])...)
		}
	}
	return out
}

func (c scope) compare(e *parse.AttributeExpression) (Filter, error) {
	chain, err := c.chain(e.AttributePath)
	if err != nil {
		return nil, err
	}
	a := chain[len(chain)-1]
	if e.Operator == parse.PR {
		return func(m map[string]any) bool {
			for _, v := range valuesAt(m, chain) {
				if v != "" {
					return true
				}
			}
			return false
		}, nil
	}
	if a.Type == "complex" { // of a list of values the "value" is meant
		if a = lookup(a.Sub, "value"); a == nil {
			return nil, arm.Errorf(InvalidFilter, "The attribute %s can't be compared as a whole.", e.AttributePath.AttributeName)
		}
		chain = append(chain, a)
	}
	if e.CompareValue == nil {
		if e.Operator != parse.EQ && e.Operator != parse.NE {
			return nil, arm.Errorf(InvalidFilter, "Nothing can be compared with null but by eq and ne.")
		}
		return func(m map[string]any) bool { return (len(valuesAt(m, chain)) == 0) == (e.Operator == parse.EQ) }, nil
	}
	test, err := comparison(a, e)
	if err != nil {
		return nil, err
	}
	return func(m map[string]any) bool {
		all := valuesAt(m, chain)
		for _, v := range all {
			if test(v) {
				return true
			}
		}
		return len(all) == 0 && e.Operator == parse.NE
	}, nil
}

// comparison is the test of one value of the attribute.
func comparison(a *Attribute, e *parse.AttributeExpression) (func(v any) bool, error) {
	s, isText := e.CompareValue.(string)
	if a.Type == "boolean" {
		want, ok := e.CompareValue.(bool)
		if isText && (strings.EqualFold(s, "true") || strings.EqualFold(s, "false")) { // Entra's spelling
			want, ok = strings.EqualFold(s, "true"), true
		}
		if !ok || e.Operator != parse.EQ && e.Operator != parse.NE {
			return nil, arm.Errorf(InvalidFilter, "The attribute %s is true or false; it can be compared with one of them by eq and ne.", a.Name)
		}
		return func(v any) bool { return (v == want) == (e.Operator == parse.EQ) }, nil
	}
	if !isText || json.Unmarshal([]byte(`"`+s+`"`), &s) != nil {
		return nil, arm.Errorf(InvalidFilter, "The attribute %s is compared with text in double quotes.", a.Name)
	}
	if a.Type == "dateTime" {
		return moments(a, e.Operator, s)
	}
	holds := textTests[e.Operator]
	if holds == nil {
		return nil, arm.Errorf(InvalidFilter, "The operator %q is not known.", clip(string(e.Operator)))
	}
	form := func(s string) string { return s }
	if !a.Exact {
		form = strings.ToLower
	}
	s = form(s)
	return func(v any) bool {
		x, ok := v.(string)
		return ok && holds(form(x), s)
	}, nil
}

var textTests = map[parse.CompareOperator]func(x, s string) bool{
	parse.EQ: func(x, s string) bool { return x == s }, parse.NE: func(x, s string) bool { return x != s },
	parse.CO: strings.Contains, parse.SW: strings.HasPrefix, parse.EW: strings.HasSuffix,
	parse.GT: func(x, s string) bool { return x > s }, parse.GE: func(x, s string) bool { return x >= s },
	parse.LT: func(x, s string) bool { return x < s }, parse.LE: func(x, s string) bool { return x <= s },
}

func moments(a *Attribute, op parse.CompareOperator, s string) (func(v any) bool, error) {
	at, err := time.Parse(time.RFC3339, s)
	accepts := map[parse.CompareOperator]func(c int) bool{
		parse.EQ: func(c int) bool { return c == 0 }, parse.NE: func(c int) bool { return c != 0 },
		parse.GT: func(c int) bool { return c > 0 }, parse.GE: func(c int) bool { return c >= 0 },
		parse.LT: func(c int) bool { return c < 0 }, parse.LE: func(c int) bool { return c <= 0 },
	}[op]
	if err != nil || accepts == nil {
		return nil, arm.Errorf(InvalidFilter, "The attribute %s is compared with a time such as \"2026-01-02T03:04:05Z\", by eq, ne, gt, ge, lt and le.", a.Name)
	}
	return func(v any) bool {
		x, _ := v.(string)
		t, err := time.Parse(time.RFC3339, x)
		return err == nil && accepts(t.Compare(at))
	}, nil
}
