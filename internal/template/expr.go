package template

import (
	"strconv"
	"strings"
)

// node is an expression, parsed: exactly one of its parts is set.
type node struct {
	text *string
	num  *int64
	call string // name of the function, lower case; with its namespace if it is the template's own
	args []*node
	base *node // of a member
	name string
	at   *node // the index, if the member is not a name
}

// Limits of one expression.
const (
	maxExpression = 24576 // characters, as in Azure
	maxNesting    = 64
)

// isExpression reports whether a string of a template is one; the other results
// are its inside, or the text that it stands for.
func isExpression(s string) (inner, plain string, ok bool) {
	switch {
	case strings.HasPrefix(s, "[["):
		return "", s[1:], false
	case strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]"):
		return s[1 : len(s)-1], "", true
	}
	return "", s, false
}

// parse reads an expression. It never sees a value, so its errors can name the
// place.
func parse(s string) (*node, error) {
	if len(s) > maxExpression {
		return nil, invalid("the expression has %d characters; at most %d are allowed", len(s), maxExpression)
	}
	p := &parser{s: s}
	n, err := p.expr(0)
	if err != nil {
		return nil, err
	}
	if p.skip(); p.at < len(s) {
		return nil, p.bad("the expression goes on where it should end")
	}
	return n, nil
}

type parser struct {
	s  string
	at int
}

func (p *parser) bad(what string) error {
	return invalid("%s, at character %d of the expression", what, p.at+1)
}

func (p *parser) skip() {
	for p.at < len(p.s) && strings.IndexByte(" \t\r\n", p.s[p.at]) >= 0 {
		p.at++
	}
}

// peek is the next character that counts, or 0.
func (p *parser) peek() byte {
	if p.skip(); p.at < len(p.s) {
		return p.s[p.at]
	}
	return 0
}

func (p *parser) expr(depth int) (*node, error) {
	if depth > maxNesting {
		return nil, p.bad("the expression nests too deep")
	}
	n, err := p.primary(depth)
	for links := 0; err == nil; links++ {
		if links > maxNesting {
			return nil, p.bad("the expression has too many members in a row")
		}
		switch p.peek() {
		case '.':
			p.at++
			p.skip()
			name := p.ident()
			if name == "" {
				return nil, p.bad("a name must follow the dot")
			}
			n = &node{base: n, name: name}
		case '[':
			p.at++
			at, err := p.expr(depth + 1)
			if err != nil {
				return nil, err
			}
			if p.peek() != ']' {
				return nil, p.bad("an index must end with ]")
			}
			p.at++
			n = &node{base: n, at: at}
		default:
			return n, nil
		}
	}
	return nil, err
}

func (p *parser) ident() string {
	from := p.at
	for p.at < len(p.s) && (isLetter(p.s[p.at]) || p.at > from && (isDigit(p.s[p.at]) || p.s[p.at] == '-')) {
		p.at++
	}
	return p.s[from:p.at]
}

func (p *parser) primary(depth int) (*node, error) {
	c := p.peek()
	switch {
	case c == '\'':
		return p.text()
	case isDigit(c) || c == '-' || c == '+':
		return p.number()
	case isLetter(c):
		return p.call(depth)
	}
	return nil, p.bad("a string in single quotes, a number or a function must stand here")
}

func (p *parser) text() (*node, error) {
	var b strings.Builder
	for p.at++; p.at < len(p.s); p.at++ {
		if p.s[p.at] != '\'' {
			b.WriteByte(p.s[p.at])
			continue
		}
		if p.at+1 < len(p.s) && p.s[p.at+1] == '\'' {
			b.WriteByte('\'')
			p.at++
			continue
		}
		p.at++
		s := b.String()
		return &node{text: &s}, nil
	}
	return nil, p.bad("a string has no end")
}

func (p *parser) number() (*node, error) {
	from := p.at
	for p.at++; p.at < len(p.s) && isDigit(p.s[p.at]); p.at++ {
	}
	n, err := strconv.ParseInt(p.s[from:p.at], 10, 64)
	if err != nil {
		return nil, p.bad("this is no whole number")
	}
	return &node{num: &n}, nil
}

func (p *parser) call(depth int) (*node, error) {
	name := p.ident()
	if p.peek() == '.' { // a function of the template's own: namespace.name(...)
		from := p.at
		p.at++
		p.skip()
		if own := p.ident(); own != "" && p.peek() == '(' {
			name += "." + own
		} else {
			p.at = from
		}
	}
	if p.peek() != '(' {
		return nil, p.bad("the function " + strconv.Quote(name) + " lacks its arguments in parentheses")
	}
	p.at++
	n := &node{call: strings.ToLower(name)}
	for {
		if p.peek() == ')' {
			p.at++
			return n, nil
		}
		if len(n.args) > 0 {
			if p.peek() != ',' {
				return nil, p.bad("a comma or ) must stand here")
			}
			p.at++
		}
		arg, err := p.expr(depth + 1)
		if err != nil {
			return nil, err
		}
		n.args = append(n.args, arg)
	}
}

// each visits n and all below it.
func (n *node) each(f func(*node)) {
	if n == nil {
		return
	}
	f(n)
	for _, a := range n.args {
		a.each(f)
	}
	n.base.each(f)
	n.at.each(f)
}
