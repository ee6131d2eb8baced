package tracking

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A search's filter is comparisons joined by AND, as in
//
//	metrics.loss < 0.1 AND tags."mlflow.user" LIKE 'ann%' AND status = 'FINISHED'
//
// It is parsed into clauses that are held against values in memory: nothing of
// it ever becomes part of a statement in another language.

const (
	maxFilter  = 20_000 // bytes of a filter
	maxClauses = 200
)

// value is what a thing has under a name: a text or a number.
type value struct {
	text    string
	num     float64
	integer int64
	isNum   bool
	isInt   bool
}

func textValue(s string) value { return value{text: s} }

func floatValue(f float64) value { return value{num: f, isNum: true} }

func intValue(n int64) value { return value{num: float64(n), integer: n, isNum: true, isInt: true} }

// thing is what filters are held against. kind is attribute, metric, parameter,
// tag or dataset; several values mean that any may match.
type thing interface {
	values(kind, key string) []value
}

// field is an attribute that one may ask for.
type field struct {
	numeric bool
	list    bool // IN and NOT IN too
	noOrder bool
	as      string // its real name, if this is another one
}

// grammar is what the filters and orders of one search may speak of.
type grammar struct {
	kinds      map[string]string // by what a name may begin with
	attributes map[string]field
	tail       []term // decides last
}

// clause is one comparison.
type clause struct {
	kind, key, op string
	want          value
	list          []string
}

// term is one key to order by.
type term struct {
	kind, key string
	desc      bool
}

type query struct {
	clauses []clause
	order   []term
	sorted  bool // the caller asked for an order
}

func (gr grammar) query(filter string, order []string) (query, error) {
	var q query
	clauses, err := gr.parse(filter)
	if err != nil {
		return q, err
	}
	q.clauses = clauses
	if len(order) > 20 {
		return q, bad("order_by has %d keys; at most 20 are allowed", len(order))
	}
	for _, o := range order {
		t, err := gr.term(o)
		if err != nil {
			return q, err
		}
		q.order = append(q.order, t)
	}
	q.sorted = len(q.order) > 0
	q.order = append(q.order, gr.tail...)
	return q, nil
}

type tokenKind byte

const (
	tokEnd tokenKind = iota
	tokWord
	tokQuoted // "..." : a value, or a part of a name
	tokTicked // `...`: a part of a name
	tokText   // '...'
	tokNumber
	tokOp
	tokMark // ( ) ,
)

type token struct {
	kind tokenKind
	text string
	glue bool // nothing stands between it and the token before
}

func wordRune(r rune) bool {
	return unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("_./-:", r)
}

// lex cuts a filter into tokens.
func lex(s string) ([]token, error) {
	if len(s) > maxFilter {
		return nil, bad("the filter is %d bytes long; at most %d are allowed", len(s), maxFilter)
	}
	if !utf8.ValidString(s) {
		return nil, bad("the filter is not UTF-8")
	}
	var out []token
	glue := false
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		if unicode.IsSpace(r) {
			s, glue = s[size:], false
			continue
		}
		t, n, err := lexOne(s, r)
		if err != nil {
			return nil, err
		}
		t.glue = glue
		out, s, glue = append(out, t), s[n:], true
	}
	return append(out, token{}), nil
}

func lexOne(s string, r rune) (token, int, error) {
	switch {
	case r == '\'', r == '"', r == '`':
		return lexQuoted(s, byte(r))
	case strings.ContainsRune("(),", r):
		return token{kind: tokMark, text: s[:1]}, 1, nil
	case strings.ContainsRune("=!<>", r):
		n := 1
		for n < len(s) && strings.IndexByte("=!<>", s[n]) >= 0 {
			n++
		}
		return token{kind: tokOp, text: s[:n]}, n, nil
	case r == '+' || r == '-' || r == '.' || r >= '0' && r <= '9':
		n := 1
		for n < len(s) && (s[n] >= '0' && s[n] <= '9' || strings.IndexByte(".eE", s[n]) >= 0 || (s[n] == '+' || s[n] == '-') && (s[n-1]|0x20) == 'e') {
			n++
		}
		return token{kind: tokNumber, text: s[:n]}, n, nil
	case wordRune(r):
		n := strings.IndexFunc(s, func(r rune) bool { return !wordRune(r) })
		if n < 0 {
			n = len(s)
		}
		return token{kind: tokWord, text: s[:n]}, n, nil
	}
	return token{}, 0, bad("Invalid clause(s) in filter string: the character %q", r)
}

// lexQuoted reads up to the closing quote; a quote within is written twice.
func lexQuoted(s string, quote byte) (token, int, error) {
	kind := map[byte]tokenKind{'\'': tokText, '"': tokQuoted, '`': tokTicked}[quote]
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		if s[i] != quote {
			b.WriteByte(s[i])
			continue
		}
		if i+1 < len(s) && s[i+1] == quote {
			b.WriteByte(quote)
			i++
			continue
		}
		return token{kind: kind, text: b.String()}, i + 1, nil
	}
	return token{}, 0, bad("Invalid filter: a quote (%c) is not closed.", quote)
}

type parser struct {
	gr  grammar
	in  []token
	pos int
}

func (p *parser) peek() token { return p.in[p.pos] }

func (p *parser) next() token {
	t := p.in[p.pos]
	if t.kind != tokEnd {
		p.pos++
	}
	return t
}

// word reports whether the next token is that keyword, and takes it.
func (p *parser) word(w string) bool {
	if t := p.peek(); t.kind == tokWord && strings.EqualFold(t.text, w) {
		p.pos++
		return true
	}
	return false
}

func (gr grammar) parse(filter string) ([]clause, error) {
	toks, err := lex(filter)
	if err != nil {
		return nil, err
	}
	p := &parser{gr: gr, in: toks}
	var out []clause
	for p.peek().kind != tokEnd {
		if len(out) > 0 && !p.word("AND") {
			return nil, bad("Invalid clause(s) in filter string: '%s'. Comparisons are joined by AND.", clip(p.peek().text))
		}
		c, err := p.clause()
		if err != nil {
			return nil, err
		}
		if out = append(out, c); len(out) > maxClauses {
			return nil, bad("the filter has more than %d comparisons", maxClauses)
		}
	}
	return out, nil
}

// name reads kind.key, or an attribute alone; parts may be quoted.
func (p *parser) name() (kind, key string, err error) {
	first := p.next()
	if first.kind != tokWord && first.kind != tokTicked && first.kind != tokQuoted {
		return "", "", bad("Invalid comparison clause: '%s' is not a name.", clip(first.text))
	}
	text := first.text
	kind, key, dotted := strings.Cut(text, ".")
	if first.kind != tokWord {
		kind, key, dotted = text, "", false
		if t := p.peek(); t.glue && t.kind == tokNumber && t.text == "." || t.glue && t.kind == tokWord && strings.HasPrefix(t.text, ".") {
			p.next()
			dotted, key = true, strings.TrimPrefix(t.text, ".")
		}
	}
	if dotted && key == "" { // kind."key"
		t := p.next()
		if !t.glue || t.kind != tokTicked && t.kind != tokQuoted {
			return "", "", bad("Invalid identifier '%s'.", clip(text))
		}
		key = t.text
	}
	if !dotted {
		kind, key = "attribute", kind
	}
	return p.gr.resolve(kind, key)
}

// resolve gives a name its canonical form.
func (gr grammar) resolve(kind, key string) (string, string, error) {
	k, ok := gr.kinds[kind]
	if !ok {
		return "", "", bad("Invalid entity type '%s'. Valid values are %s.", clip(kind), sortedKeys(gr.kinds))
	}
	if k != "attribute" && k != "dataset" {
		return k, key, nil
	}
	if k == "dataset" {
		if key != "name" && key != "digest" && key != "context" {
			return "", "", bad("Invalid dataset key '%s' specified. Valid keys are context, digest, name.", clip(key))
		}
		return k, key, nil
	}
	f, ok := gr.attributes[key]
	if !ok {
		return "", "", bad("Invalid attribute key '%s' specified. Valid keys are %s.", clip(key), sortedKeys(gr.attributes))
	}
	if f.as != "" {
		key = f.as
	}
	return k, key, nil
}

func (p *parser) clause() (clause, error) {
	kind, key, err := p.name()
	if err != nil {
		return clause{}, err
	}
	c := clause{kind: kind, key: key}
	if c.op, err = p.operator(); err != nil {
		return c, err
	}
	f := p.gr.attributes[key]
	switch {
	case c.op == "IS NULL" || c.op == "IS NOT NULL":
		if kind != "tag" && kind != "parameter" {
			return c, bad("%s is only supported for tags and params, not for '%s'.", c.op, clip(key))
		}
		return c, nil
	case kind == "metric" || kind == "attribute" && f.numeric:
		return p.numeric(c)
	case c.op == "IN" || c.op == "NOT IN":
		if kind != "dataset" && (kind != "attribute" || !f.list) {
			return c, bad("'%s' does not support comparison with a list.", clip(key))
		}
		c.list, err = p.list()
		return c, err
	case c.op != "=" && c.op != "!=" && c.op != "LIKE" && c.op != "ILIKE":
		return c, bad("Invalid comparator '%s' for '%s'; supported: =, !=, LIKE, ILIKE.", c.op, clip(key))
	}
	t := p.next()
	if t.kind != tokText && t.kind != tokQuoted {
		return c, bad("Expected a quoted string value for '%s'. Got value %s", clip(key), clip(t.text))
	}
	c.want = textValue(t.text)
	return c, nil
}

func (p *parser) operator() (string, error) {
	t := p.next()
	switch word := strings.ToUpper(t.text); {
	case t.kind == tokOp && (t.text == "=" || t.text == "!=" || t.text == "<" || t.text == "<=" || t.text == ">" || t.text == ">="):
		return t.text, nil
	case t.kind != tokWord:
	case word == "LIKE", word == "ILIKE", word == "IN":
		return word, nil
	case word == "NOT":
		if p.word("IN") {
			return "NOT IN", nil
		}
	case word == "IS":
		if p.word("NULL") {
			return "IS NULL", nil
		}
		if p.word("NOT") && p.word("NULL") {
			return "IS NOT NULL", nil
		}
	}
	return "", bad("Invalid comparator '%s'; supported: =, !=, <, <=, >, >=, LIKE, ILIKE, IN, NOT IN, IS NULL, IS NOT NULL.", clip(t.text))
}

func (p *parser) numeric(c clause) (clause, error) {
	if strings.ContainsAny(c.op, "ILN") {
		return c, bad("Invalid comparator '%s' for '%s'; supported: =, !=, <, <=, >, >=.", c.op, clip(c.key))
	}
	t := p.next()
	if t.kind == tokNumber {
		if n, err := strconv.ParseInt(t.text, 10, 64); err == nil {
			c.want = intValue(n)
			return c, nil
		}
		if f, err := strconv.ParseFloat(t.text, 64); err == nil {
			c.want = floatValue(f)
			return c, nil
		}
	}
	return c, bad("Expected numeric value type for '%s'. Found %s", clip(c.key), clip(t.text))
}

func (p *parser) list() ([]string, error) {
	if t := p.next(); t.kind != tokMark || t.text != "(" {
		return nil, bad("Expected a list in parentheses. Found %s", clip(t.text))
	}
	var out []string
	for {
		t := p.next()
		if t.kind != tokText && t.kind != tokQuoted {
			return nil, bad("While parsing a list in the filter: expected a quoted string value. Found %s", clip(t.text))
		}
		out = append(out, t.text)
		switch t := p.next(); {
		case t.kind == tokMark && t.text == ")":
			return out, nil
		case t.kind != tokMark || t.text != ",":
			return nil, bad("While parsing a list in the filter: expected a comma or a closing parenthesis. Found %s", clip(t.text))
		}
	}
}

// term reads one key of order_by: a name, and perhaps ASC or DESC.
func (gr grammar) term(s string) (term, error) {
	toks, err := lex(s)
	if err != nil {
		return term{}, err
	}
	p := &parser{gr: gr, in: toks}
	kind, key, err := p.name()
	if err != nil {
		return term{}, err
	}
	if kind == "dataset" || kind == "attribute" && gr.attributes[key].noOrder {
		return term{}, bad("Invalid order_by key '%s' specified.", clip(key))
	}
	t := term{kind: kind, key: key}
	if t.desc = p.word("DESC"); !t.desc {
		p.word("ASC")
	}
	if p.peek().kind != tokEnd {
		return term{}, bad("Invalid order_by clause '%s'. It must be a key, and perhaps ASC or DESC.", clip(s))
	}
	return t, nil
}
