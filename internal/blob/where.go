package blob

import (
	"net/http"
	"strings"
)

// where is a condition on a blob's tags, in the language of Azure's searches:
// comparisons such as "key" >= 'value' or @container = 'name', joined by AND and,
// in conditions of requests, OR.
type where struct {
	test func(tags map[string]string, container string) bool
	keys []string // of the tags that it speaks of
}

// Limits of a where.
const (
	maxWhere      = 4 << 10 // bytes
	maxWhereDepth = 16
)

type whereParser struct {
	rest string
	find bool // of a search: no OR, no <>
	keys []string
}

func badWhere(why string) error {
	return fail(http.StatusBadRequest, "InvalidQueryParameterValue", "The condition on tags is not valid: %s.", why)
}

// parseWhere reads a condition; find is whether it is a search's.
func parseWhere(text string, find bool) (*where, error) {
	if len(text) > maxWhere {
		return nil, badWhere("it has more than 4 KiB")
	}
	p := &whereParser{rest: text, find: find}
	test, err := p.or(0)
	if err == nil && p.skip() != "" {
		err = badWhere("it goes on where it should end")
	}
	if err != nil {
		return nil, err
	}
	return &where{test, p.keys}, nil
}

func (p *whereParser) skip() string {
	p.rest = strings.TrimLeft(p.rest, " \t\r\n")
	return p.rest
}

// word takes the word if it is next.
func (p *whereParser) word(w string) bool {
	rest := p.skip()
	if len(rest) < len(w) || !strings.EqualFold(rest[:len(w)], w) || len(rest) > len(w) && identifier(rest[len(w):len(w)+1]) {
		return false
	}
	p.rest = rest[len(w):]
	return true
}

type tagTest = func(tags map[string]string, container string) bool

func (p *whereParser) or(depth int) (tagTest, error) {
	l, err := p.and(depth)
	for err == nil && p.word("OR") {
		if p.find {
			return nil, badWhere("a search has no OR")
		}
		var r tagTest
		a := l
		r, err = p.and(depth)
		l = func(t map[string]string, c string) bool { return a(t, c) || r(t, c) }
	}
	return l, err
}

func (p *whereParser) and(depth int) (tagTest, error) {
	l, err := p.one(depth)
	for err == nil && p.word("AND") {
		var r tagTest
		a := l
		r, err = p.one(depth)
		l = func(t map[string]string, c string) bool { return a(t, c) && r(t, c) }
	}
	return l, err
}

func (p *whereParser) one(depth int) (tagTest, error) {
	if depth > maxWhereDepth {
		return nil, badWhere("it nests too deep")
	}
	if rest := p.skip(); strings.HasPrefix(rest, "(") {
		p.rest = rest[1:]
		t, err := p.or(depth + 1)
		if err != nil {
			return nil, err
		}
		if rest := p.skip(); !strings.HasPrefix(rest, ")") {
			return nil, badWhere("a parenthesis is not closed")
		}
		p.rest = p.rest[1:]
		return t, nil
	}
	key, container, err := p.key()
	if err != nil {
		return nil, err
	}
	test, err := p.operator()
	if err != nil {
		return nil, err
	}
	value, err := p.quoted('\'', "a value must stand in single quotes")
	if err != nil {
		return nil, err
	}
	if container {
		return func(_ map[string]string, c string) bool { return test(strings.Compare(c, value)) }, nil
	}
	p.keys = append(p.keys, key)
	return func(t map[string]string, _ string) bool {
		v, ok := t[key]
		return ok && test(strings.Compare(v, value))
	}, nil
}

// key is the name of a tag, or the container's.
func (p *whereParser) key() (key string, container bool, err error) {
	rest := p.skip()
	if strings.HasPrefix(rest, `"`) {
		key, err = p.quoted('"', "a key is not closed")
		return key, false, err
	}
	if p.word("@container") {
		return "", true, nil
	}
	n := 0
	for n < len(rest) && identifier("_"+rest[n:n+1]) {
		n++
	}
	if n == 0 {
		return "", false, badWhere("a key of a tag or @container must stand before each comparison")
	}
	p.rest = rest[n:]
	return rest[:n], false, nil
}

func (p *whereParser) operator() (func(c int) bool, error) {
	rest := p.skip()
	for _, o := range []struct {
		text string
		test func(c int) bool
	}{
		{"<>", func(c int) bool { return c != 0 }}, {">=", func(c int) bool { return c >= 0 }}, {"<=", func(c int) bool { return c <= 0 }},
		{"=", func(c int) bool { return c == 0 }}, {">", func(c int) bool { return c > 0 }}, {"<", func(c int) bool { return c < 0 }},
	} {
		if !strings.HasPrefix(rest, o.text) {
			continue
		}
		if p.find && o.text == "<>" {
			return nil, badWhere("a search has no <>")
		}
		p.rest = rest[len(o.text):]
		return o.test, nil
	}
	return nil, badWhere("the operator must be =, >, >=, <, <= or, in a condition of a request, <>")
}

// quoted is a text between marks; two of them are one in it.
func (p *whereParser) quoted(mark byte, why string) (string, error) {
	rest := p.skip()
	if rest == "" || rest[0] != mark {
		return "", badWhere(why)
	}
	var b strings.Builder
	for i := 1; i < len(rest); i++ {
		if rest[i] != mark {
			b.WriteByte(rest[i])
			continue
		}
		if i+1 < len(rest) && rest[i+1] == mark {
			b.WriteByte(mark)
			i++
			continue
		}
		p.rest = rest[i+1:]
		return b.String(), nil
	}
	return "", badWhere(why)
}
