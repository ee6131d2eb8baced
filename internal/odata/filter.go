// Package odata reads the parts of OData that Azure's clients use to ask for
// lists: $filter and $apply.
//
// Source: OData 4.0 part 2, URL conventions; OData extension for data aggregation 4.0.
package odata

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Matcher says whether an object, as it is shown, is meant. Its error is an *Unsupported.
type Matcher func(m map[string]any) (bool, error)

// Unsupported is the error of text that is not understood, or that names what
// objects do not have.
type Unsupported struct{ Text string }

// Supported is what filters may say, for errors.
const Supported = "NAME eq 'TEXT', also with ne, ge, gt, le and lt, and with true, false, null, a number or a time, NAME in ('A','B'), 'TEXT' in LIST, startswith(NAME,'TEXT'), endswith and contains, LIST/any(x:x eq 'TEXT'), joined by and or by or, with not and parentheses"

func (e *Unsupported) Error() string {
	return fmt.Sprintf("%.200q is not supported; supported: %s", e.Text, Supported)
}

// All means everything.
func All(map[string]any) (bool, error) { return true, nil }

// maxTokens is how long a filter may be, in tokens.
const maxTokens = 400

// parser reads tokens.
type parser struct {
	text   string
	tokens []string
	at     int
}

// wrong is the error for what can't be read.
func (p *parser) wrong() error { return &Unsupported{p.text} }

// read has all of a text read.
func read[T any](text string, rule func(*parser) (T, error)) (out T, err error) {
	p := &parser{text: text, tokens: lex(text)}
	if p.tokens == nil || len(p.tokens) > maxTokens {
		return out, p.wrong()
	}
	if out, err = rule(p); err == nil && p.at != len(p.tokens) {
		err = p.wrong()
	}
	return out, err
}

// ParseFilter makes the Matcher of a $filter; the empty one means everything.
func ParseFilter(text string) (Matcher, error) {
	if strings.TrimSpace(text) == "" {
		return All, nil
	}
	return read(text, (*parser).either)
}

// lex cuts a filter into names, 'texts' and single signs; nil if it can't.
func lex(f string) []string {
	out := []string{}
	for i := 0; i < len(f); {
		c := f[i]
		switch {
		case c == ' ':
			i++
		case c == '\'':
			end := i + 1
			for ; end < len(f); end++ {
				if f[end] != '\'' {
					continue
				}
				if end+1 < len(f) && f[end+1] == '\'' {
					end++
					continue
				}
				break
			}
			if end >= len(f) {
				return nil
			}
			out, i = append(out, f[i:end]), end+1
		case strings.IndexByte("(),:", c) >= 0:
			out, i = append(out, string(c)), i+1
		default:
			end := i
			for end < len(f) && strings.IndexByte(" (),:'", f[end]) < 0 {
				end++
			}
			out, i = append(out, f[i:end]), end
		}
	}
	return out
}

func (p *parser) peek() string {
	if p.at < len(p.tokens) {
		return p.tokens[p.at]
	}
	return ""
}

func (p *parser) take() string {
	t := p.peek()
	p.at++
	return t
}

func (p *parser) want(signs ...string) error {
	for _, s := range signs {
		if !strings.EqualFold(p.take(), s) {
			return p.wrong()
		}
	}
	return nil
}

func (p *parser) either() (Matcher, error) {
	left, err := p.both()
	for err == nil && strings.EqualFold(p.peek(), "or") {
		p.at++
		var right Matcher
		if right, err = p.both(); err == nil {
			left = Or(left, right)
		}
	}
	return left, err
}

func (p *parser) both() (Matcher, error) {
	left, err := p.term()
	for err == nil && strings.EqualFold(p.peek(), "and") {
		p.at++
		var right Matcher
		if right, err = p.term(); err == nil {
			left = And(left, right)
		}
	}
	return left, err
}

// And means what both mean.
func And(a, b Matcher) Matcher { return join(a, b, false) }

// Or means what either means.
func Or(a, b Matcher) Matcher { return join(a, b, true) }

// join asks a, and b unless the answer of a is stop.
func join(a, b Matcher, stop bool) Matcher {
	return func(m map[string]any) (bool, error) {
		ok, err := a(m)
		if err != nil || ok == stop {
			return ok, err
		}
		return b(m)
	}
}

func (p *parser) term() (Matcher, error) {
	name := p.take()
	switch lower := strings.ToLower(name); {
	case name == "(":
		m, err := p.either()
		if err != nil {
			return nil, err
		}
		return m, p.want(")")
	case lower == "not":
		m, err := p.term()
		if err != nil {
			return nil, err
		}
		return negate(m), nil
	case affixes[lower] != nil:
		return p.affix(affixes[lower])
	case strings.HasSuffix(lower, "/any"):
		return p.any(name[:len(name)-len("/any")])
	case strings.HasPrefix(name, "'") && strings.EqualFold(p.peek(), "in"):
		p.at++
		want := unquoted(name)
		if name = p.take(); !isName(name) {
			return nil, p.wrong()
		}
		return p.compare(name, func(s string) bool { return s == want }), nil
	case !isName(name):
		return nil, p.wrong()
	}
	op := strings.ToLower(p.take())
	if op == "in" {
		return p.in(name)
	}
	test, ok := orders[op]
	if !ok {
		return nil, p.wrong()
	}
	if strings.EqualFold(p.peek(), "null") && (op == "eq" || op == "ne") {
		p.at++
		return p.absent(name, op == "eq"), nil
	}
	compare := order
	if strings.HasPrefix(p.peek(), "'") { // '1' is not '1.0'
		compare = orderTexts
	}
	want, err := p.literal()
	m := p.compare(name, func(s string) bool { return test(compare(s, want)) })
	if op == "ne" { // what is not there differs, too
		return negate(m), err
	}
	return m, err
}

// isName reports whether a token can be a property's name.
func isName(t string) bool {
	return t != "" && !strings.ContainsAny(t[:1], "'(),:$0123456789")
}

// absent tests whether a property is null.
func (p *parser) absent(name string, yes bool) Matcher {
	return func(m map[string]any) (bool, error) {
		v, ok := Value(m, name)
		if !ok {
			return false, p.wrong()
		}
		return (v == nil) == yes, nil
	}
}

func negate(m Matcher) Matcher {
	return func(o map[string]any) (bool, error) {
		ok, err := m(o)
		return !ok, err
	}
}

// orders are the comparisons, by how the left side stands to the right.
var orders = map[string]func(int) bool{
	"eq": func(n int) bool { return n == 0 }, "ne": func(n int) bool { return n == 0 },
	"ge": func(n int) bool { return n >= 0 }, "gt": func(n int) bool { return n > 0 },
	"le": func(n int) bool { return n <= 0 }, "lt": func(n int) bool { return n < 0 },
}

// order compares numbers as numbers, times as times and everything else as text.
func order(a, b string) int {
	x, errA := strconv.ParseFloat(a, 64)
	y, errB := strconv.ParseFloat(b, 64)
	if errA == nil && errB == nil {
		return cmp.Compare(x, y)
	}
	return orderTexts(a, b)
}

// orderTexts compares times as times and everything else as text.
func orderTexts(a, b string) int {
	t, errA := time.Parse(time.RFC3339, strings.ToUpper(a))
	u, errB := time.Parse(time.RFC3339, strings.ToUpper(b))
	if errA == nil && errB == nil {
		return t.Compare(u)
	}
	return strings.Compare(a, b)
}

// literal is a text, a number, a time or true or false, folded as it is compared.
func (p *parser) literal() (string, error) {
	t := p.take()
	if t != "" && '0' <= t[0] && t[0] <= '9' {
		for p.peek() == ":" { // a time was cut at its colons
			t += p.take() + p.take()
		}
		return fold(t), nil
	}
	if strings.HasPrefix(t, "'") {
		return unquoted(t), nil
	}
	if l := strings.ToLower(t); l == "true" || l == "false" {
		return l, nil
	}
	return "", p.wrong()
}

// unquoted is the text of a token of lex that begins with a quote.
func unquoted(t string) string { return fold(strings.ReplaceAll(t[1:], "''", "'")) }

func fold(s string) string { return strings.ToLower(s) }

// affixes are the functions of a text and a part of it.
var affixes = map[string]func(s, part string) bool{"startswith": strings.HasPrefix, "endswith": strings.HasSuffix, "contains": strings.Contains}

func (p *parser) affix(test func(s, part string) bool) (Matcher, error) {
	if err := p.want("("); err != nil {
		return nil, err
	}
	name := p.take()
	if err := p.want(","); err != nil {
		return nil, err
	}
	want, err := p.literal()
	if err != nil {
		return nil, err
	}
	return p.compare(name, func(s string) bool { return test(s, want) }), p.want(")")
}

// any is LIST/any(x:x eq 'TEXT').
func (p *parser) any(name string) (Matcher, error) {
	if err := p.want("("); err != nil {
		return nil, err
	}
	v := p.take()
	if err := p.want(":", v, "eq"); err != nil {
		return nil, err
	}
	want, err := p.literal()
	if err != nil {
		return nil, err
	}
	return p.compare(name, func(s string) bool { return s == want }), p.want(")")
}

func (p *parser) in(name string) (Matcher, error) {
	if err := p.want("("); err != nil {
		return nil, err
	}
	set := map[string]bool{}
	for {
		want, err := p.literal()
		if err != nil {
			return nil, err
		}
		set[want] = true
		if p.peek() != "," {
			break
		}
		p.at++
	}
	return p.compare(name, func(s string) bool { return set[s] }), p.want(")")
}

// compare tests a property, or any of a list's items. What objects do not have
// can't be filtered by: guessing would show too much or too little.
func (p *parser) compare(name string, test func(string) bool) Matcher {
	return func(m map[string]any) (bool, error) {
		v, ok := Value(m, name)
		if !ok {
			return false, p.wrong()
		}
		switch x := v.(type) {
		case nil:
			return false, nil
		case []string:
			for _, s := range x {
				if test(fold(s)) {
					return true, nil
				}
			}
			return false, nil
		case []any:
			for _, s := range x {
				if test(fold(Text(s))) {
					return true, nil
				}
			}
			return false, nil
		case map[string]any:
			return false, nil
		}
		return test(fold(Text(v))), nil
	}
}

// Text is how a property that is no list is compared and ordered.
func Text(v any) string {
	switch x := v.(type) {
	case nil:
		return ""
	case string:
		return x
	case time.Time:
		return x.UTC().Format(time.RFC3339Nano)
	}
	return fmt.Sprint(v)
}

// Compare orders two properties that are no lists: numbers as numbers, times as
// times, and text without minding its case.
func Compare(a, b any) int {
	_, isA := a.(string)
	_, isB := b.(string)
	if isA || isB {
		return orderTexts(fold(Text(a)), fold(Text(b)))
	}
	return order(fold(Text(a)), fold(Text(b)))
}

// Name is the name of a property of m as m spells it, and whether there is one.
func Name(m map[string]any, name string) (string, bool) {
	if _, ok := m[name]; ok {
		return name, true
	}
	for k := range m {
		if strings.EqualFold(k, name) {
			return k, true
		}
	}
	return name, false
}

// Value is the property of m with that name, or path of names with slashes.
func Value(m map[string]any, name string) (any, bool) {
	if first, rest, ok := strings.Cut(name, "/"); ok {
		inner, _ := Value(m, first)
		in, isMap := inner.(map[string]any)
		if !isMap {
			return nil, false
		}
		return Value(in, rest)
	}
	k, ok := Name(m, name)
	return m[k], ok
}
