package condition

import (
	"regexp"
	"sort"
	"strconv"
	"strings"

	"castellan/internal/arm"
)

type kind int

const (
	end kind = iota
	word
	text
	number
	attribute // @Source[name]
	mark      // punctuation
)

type token struct {
	kind   kind
	s      string // the word, text, mark or attribute's source
	name   string // of an attribute
	number float64
}

type parser struct {
	s   string
	at  int
	tok token
}

func (p *parser) bad(format string, args ...any) error {
	return arm.Errorf(Invalid, "at character %d of the condition: "+format, append([]any{p.at}, args...)...)
}

// next reads the next token.
func (p *parser) next() error {
	for p.at < len(p.s) && strings.IndexByte(" \t\r\n", p.s[p.at]) >= 0 {
		p.at++
	}
	if p.at == len(p.s) {
		p.tok = token{}
		return nil
	}
	from := p.at
	if guid := guidForm.FindString(p.s[p.at:]); guid != "" { // Azure writes them without quotes, and without hyphens
		p.at += len(guid)
		p.tok = token{kind: text, s: guid}
		return nil
	}
	switch c := p.s[p.at]; {
	case c == '\'':
		return p.text()
	case c == '@':
		return p.attribute()
	case letter(c):
		for p.at < len(p.s) && (letter(p.s[p.at]) || digit(p.s[p.at])) {
			p.at++
		}
		p.tok = token{kind: word, s: p.s[from:p.at]}
	case digit(c) || c == '-':
		for p.at++; p.at < len(p.s) && (digit(p.s[p.at]) || p.s[p.at] == '.'); p.at++ {
		}
		f, err := strconv.ParseFloat(p.s[from:p.at], 64)
		if err != nil {
			return p.bad("%q is no number", p.s[from:p.at])
		}
		p.tok = token{kind: number, number: f}
	case strings.HasPrefix(p.s[p.at:], "&&") || strings.HasPrefix(p.s[p.at:], "||"):
		p.at += 2
		p.tok = token{kind: mark, s: p.s[from:p.at]}
	case strings.IndexByte("(){}[],!:", c) >= 0:
		p.at++
		p.tok = token{kind: mark, s: string(c)}
	default:
		return p.bad("%q has no meaning here", string(c))
	}
	return nil
}

var guidForm = regexp.MustCompile(`^([0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]{32})\b`)

func letter(c byte) bool { return c == '_' || 'a' <= c|0x20 && c|0x20 <= 'z' }
func digit(c byte) bool  { return '0' <= c && c <= '9' }

func (p *parser) text() error {
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
		p.tok = token{kind: text, s: b.String()}
		return nil
	}
	return p.bad("a text has no end")
}

// attribute reads @Source[name]; the name may have brackets of its own.
func (p *parser) attribute() error {
	rest := p.s[p.at+1:]
	open := strings.IndexByte(rest, '[')
	if open < 0 {
		return p.bad("an attribute must be like @Resource[name]")
	}
	source := strings.ToLower(rest[:open])
	switch source {
	case "principal", "resource", "request", "environment":
	default:
		return p.bad("there is no attribute source @%s; there are @Principal, @Resource, @Request and @Environment", rest[:open])
	}
	depth := 0
	for i := open; i < len(rest); i++ {
		switch rest[i] {
		case '[':
			depth++
		case ']':
			if depth--; depth == 0 {
				p.at += i + 2
				p.tok = token{kind: attribute, s: source, name: attributeName(rest[open+1 : i])}
				return nil
			}
		}
	}
	return p.bad("the attribute has no ]")
}

// attributeName is the form in which attributes are compared: no case, but for
// the keys of tags, which have one.
func attributeName(s string) string {
	head, key, ok := strings.Cut(s, ":")
	if !ok || !strings.HasSuffix(key, caseSensitive) {
		return strings.ToLower(s)
	}
	return strings.ToLower(head) + ":" + key
}

// caseSensitive ends the name of an attribute that is the value of a tag.
const caseSensitive = "<$key_case_sensitive$>"

func (p *parser) is(words ...string) bool {
	for _, w := range words {
		if (p.tok.kind == word || p.tok.kind == mark) && strings.EqualFold(p.tok.s, w) {
			return true
		}
	}
	return false
}

func (p *parser) want(m string) error {
	if !p.is(m) {
		return p.bad("%s must stand here", m)
	}
	return p.next()
}

func (p *parser) or(depth int) (expr, error) {
	l, err := p.and(depth)
	for err == nil && p.is("or", "||") {
		var r expr
		if err = p.next(); err == nil {
			r, err = p.and(depth)
			l = either{l, r}
		}
	}
	return l, err
}

func (p *parser) and(depth int) (expr, error) {
	l, err := p.not(depth)
	for err == nil && p.is("and", "&&") {
		var r expr
		if err = p.next(); err == nil {
			r, err = p.not(depth)
			l = both{l, r}
		}
	}
	return l, err
}

func (p *parser) not(depth int) (expr, error) {
	if depth > maxDepth {
		return nil, p.bad("the condition nests too deep")
	}
	switch {
	case p.is("not", "!"):
		if err := p.next(); err != nil {
			return nil, err
		}
		e, err := p.not(depth + 1)
		return negated{e}, err
	case p.is("("):
		if err := p.next(); err != nil {
			return nil, err
		}
		e, err := p.or(depth + 1)
		if err != nil {
			return nil, err
		}
		return e, p.want(")")
	case p.is("exists"):
		if err := p.next(); err != nil {
			return nil, err
		}
		if p.tok.kind != attribute {
			return nil, p.bad("Exists must be followed by an attribute")
		}
		o, err := p.operand(depth)
		return exists{o}, err
	case p.is("actionmatches", "suboperationmatches"):
		return p.matches()
	}
	return p.compare(depth)
}

// matches reads ActionMatches{'pattern'}.
func (p *parser) matches() (expr, error) {
	sub := p.is("suboperationmatches")
	if err := p.next(); err != nil {
		return nil, err
	}
	closing := map[string]string{"{": "}", "(": ")"}[p.tok.s]
	if closing == "" {
		return nil, p.bad("{ must stand here")
	}
	if err := p.next(); err != nil {
		return nil, err
	}
	if p.tok.kind != text {
		return nil, p.bad("an action in quotes must stand here")
	}
	m := matches{p.tok.s, sub}
	if err := p.next(); err != nil {
		return nil, err
	}
	return m, p.want(closing)
}

func (p *parser) compare(depth int) (expr, error) {
	l, err := p.operand(depth)
	if err != nil {
		return nil, err
	}
	if p.tok.kind != word || p.is("and", "or") {
		return truth{l}, nil
	}
	c := compare{left: l}
	name := p.tok.s
	if strings.HasPrefix(strings.ToLower(name), "for") {
		c.cross = strings.ToLower(name)
		if !crossForm[c.cross] {
			return nil, p.bad("there is no %q; there are ForAnyOfAnyValues, ForAllOfAnyValues, ForAnyOfAllValues and ForAllOfAllValues", name)
		}
		if err := p.next(); err != nil {
			return nil, err
		}
		name = "StringEquals"
		if p.is(":") {
			if err := p.next(); err != nil {
				return nil, err
			}
			name = p.tok.s
			if err := p.next(); err != nil {
				return nil, err
			}
		}
	} else if err := p.next(); err != nil {
		return nil, err
	}
	if c.op = operators[strings.ToLower(name)]; c.op == nil {
		return nil, p.bad("there is no operator %q; there are %s", name, operatorNames())
	}
	c.right, err = p.operand(depth)
	return c, err
}

var crossForm = map[string]bool{"foranyofanyvalues": true, "forallofanyvalues": true, "foranyofallvalues": true, "forallofallvalues": true}

func operatorNames() string {
	var out []string
	for _, o := range operators {
		out = append(out, o.name)
	}
	sort.Strings(out)
	return strings.Join(out, ", ")
}

func (p *parser) operand(depth int) (operand, error) {
	if depth > maxDepth {
		return operand{}, p.bad("the condition nests too deep")
	}
	t := p.tok
	switch {
	case t.kind == text:
		return operand{constant: t.s}, p.next()
	case t.kind == number:
		return operand{constant: t.number}, p.next()
	case t.kind == attribute:
		return operand{source: t.s, name: t.name}, p.next()
	case p.is("{"):
		return p.values("}", depth)
	case p.is("["):
		return p.values("]", depth)
	case p.is("true", "false"):
		return operand{constant: p.is("true")}, p.next()
	case t.kind == word:
		n, ok := functions[strings.ToLower(t.s)]
		if !ok {
			return operand{}, p.bad("%q is no attribute, value or function", t.s)
		}
		if err := p.next(); err != nil {
			return operand{}, err
		}
		return p.call(strings.ToLower(t.s), n, depth)
	}
	return operand{}, p.bad("an attribute or a value must stand here")
}

// values reads a set or a list of constants.
func (p *parser) values(closing string, depth int) (operand, error) {
	out := []any{}
	for {
		if err := p.next(); err != nil {
			return operand{}, err
		}
		if len(out) == 0 && p.is(closing) {
			break
		}
		o, err := p.operand(depth + 1)
		if err != nil {
			return operand{}, err
		}
		if o.source != "" || o.call != "" {
			return operand{}, p.bad("only values may stand in a list")
		}
		if out = append(out, o.constant); len(out) > maxValues {
			return operand{}, p.bad("a list has more than %d values", maxValues)
		}
		if p.is(closing) {
			break
		}
		if !p.is(",") {
			return operand{}, p.bad("a comma or %s must stand here", closing)
		}
	}
	return operand{constant: out}, p.next()
}

func (p *parser) call(name string, n, depth int) (operand, error) {
	o := operand{call: name}
	if err := p.want("("); err != nil {
		return o, err
	}
	for !p.is(")") {
		if len(o.args) > 0 {
			if err := p.want(","); err != nil {
				return o, err
			}
		}
		x, err := p.operand(depth + 1)
		if err != nil {
			return o, err
		}
		o.args = append(o.args, x)
	}
	if len(o.args) != n {
		return o, p.bad("%s has %d arguments; it must have %d", name, len(o.args), n)
	}
	return o, p.next()
}
