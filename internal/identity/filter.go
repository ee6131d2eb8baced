package identity

import (
	"cmp"
	"strconv"
	"strings"

	"castellan/internal/arm"
)

// matcher says whether an object, as it is shown, is meant.
type matcher func(m map[string]any) (bool, error)

func errFilter(f string) error {
	return &arm.Error{Code: "Request_UnsupportedQuery", Message: "The $filter " + printable(f) + " is not supported. Supported are: NAME eq 'TEXT', also with ne, ge, gt, le and lt, and with true, false, a number or a time, NAME in ('A','B'), startswith(NAME,'TEXT'), endswith(NAME,'TEXT'), LIST/any(x:x eq 'TEXT'), joined by and or by or, with not and parentheses."}
}

// maxTokens is how long a filter may be, in tokens.
const maxTokens = 400

// filterParser reads OData's $filter as far as clients of a directory use it.
type filterParser struct {
	text   string
	tokens []string
	at     int
}

// parseFilter makes the matcher of a filter; the empty filter means everything.
func parseFilter(f string) (matcher, error) {
	if strings.TrimSpace(f) == "" {
		return func(map[string]any) (bool, error) { return true, nil }, nil
	}
	p := &filterParser{text: f, tokens: lex(f)}
	if p.tokens == nil || len(p.tokens) > maxTokens {
		return nil, errFilter(f)
	}
	m, err := p.either()
	if err != nil {
		return nil, err
	}
	if p.at != len(p.tokens) {
		return nil, errFilter(f)
	}
	return m, nil
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

func (p *filterParser) peek() string {
	if p.at < len(p.tokens) {
		return p.tokens[p.at]
	}
	return ""
}

func (p *filterParser) take() string {
	t := p.peek()
	p.at++
	return t
}

func (p *filterParser) want(signs ...string) error {
	for _, s := range signs {
		if !strings.EqualFold(p.take(), s) {
			return errFilter(p.text)
		}
	}
	return nil
}

func (p *filterParser) either() (matcher, error) {
	left, err := p.both()
	for err == nil && strings.EqualFold(p.peek(), "or") {
		p.at++
		var right matcher
		if right, err = p.both(); err == nil {
			left = join2(left, right, true)
		}
	}
	return left, err
}

func (p *filterParser) both() (matcher, error) {
	left, err := p.term()
	for err == nil && strings.EqualFold(p.peek(), "and") {
		p.at++
		var right matcher
		if right, err = p.term(); err == nil {
			left = join2(left, right, false)
		}
	}
	return left, err
}

// join2 is a or b if stop is true, else a and b.
func join2(a, b matcher, stop bool) matcher {
	return func(m map[string]any) (bool, error) {
		ok, err := a(m)
		if err != nil || ok == stop {
			return ok, err
		}
		return b(m)
	}
}

func (p *filterParser) term() (matcher, error) {
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
	case lower == "startswith" || lower == "endswith":
		return p.affix(lower == "startswith")
	case strings.HasSuffix(lower, "/any"):
		return p.any(name[:len(name)-len("/any")])
	case name == "" || strings.HasPrefix(name, "'"):
		return nil, errFilter(p.text)
	}
	op := strings.ToLower(p.take())
	if op == "in" {
		return p.in(name)
	}
	test, ok := orders[op]
	if !ok {
		return nil, errFilter(p.text)
	}
	want, err := p.literal()
	m := p.compare(name, func(s string) bool { return test(order(s, want)) })
	if op == "ne" { // what is not there differs, too
		return negate(m), err
	}
	return m, err
}

func negate(m matcher) matcher {
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

// order compares numbers as numbers and everything else as text, which is right
// for times in UTC.
func order(a, b string) int {
	x, errA := strconv.ParseInt(a, 10, 64)
	y, errB := strconv.ParseInt(b, 10, 64)
	if errA == nil && errB == nil {
		return cmp.Compare(x, y)
	}
	return strings.Compare(a, b)
}

// literal is a text, a number, a time or true or false, folded as it is compared.
func (p *filterParser) literal() (string, error) {
	t := p.take()
	if t != "" && '0' <= t[0] && t[0] <= '9' {
		for p.peek() == ":" { // a time was cut at its colons
			t += p.take() + p.take()
		}
		return fold(t), nil
	}
	if s, ok := strings.CutPrefix(t, "'"); ok {
		return fold(strings.ReplaceAll(s, "''", "'")), nil
	}
	if l := strings.ToLower(t); l == "true" || l == "false" {
		return l, nil
	}
	return "", errFilter(p.text)
}

func (p *filterParser) affix(start bool) (matcher, error) {
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
	test := func(s string) bool { return strings.HasSuffix(s, want) }
	if start {
		test = func(s string) bool { return strings.HasPrefix(s, want) }
	}
	return p.compare(name, test), p.want(")")
}

// any is LIST/any(x:x eq 'TEXT').
func (p *filterParser) any(name string) (matcher, error) {
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

func (p *filterParser) in(name string) (matcher, error) {
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
func (p *filterParser) compare(name string, test func(string) bool) matcher {
	return func(m map[string]any) (bool, error) {
		v, ok := valueOf(m, name)
		if !ok {
			return false, errFilter(p.text)
		}
		switch x := v.(type) {
		case string:
			return test(fold(x)), nil
		case int:
			return test(strconv.Itoa(x)), nil
		case bool:
			return test(map[bool]string{true: "true", false: "false"}[x]), nil
		case []string:
			for _, s := range x {
				if test(fold(s)) {
					return true, nil
				}
			}
		}
		return false, nil
	}
}

func valueOf(m map[string]any, name string) (any, bool) {
	if first, rest, ok := strings.Cut(name, "/"); ok {
		inner, _ := valueOf(m, first)
		in, isMap := inner.(map[string]any)
		if !isMap {
			return nil, false
		}
		return valueOf(in, rest)
	}
	for k, v := range m {
		if strings.EqualFold(k, name) {
			return v, true
		}
	}
	return nil, false
}
