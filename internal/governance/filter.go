package governance

import (
	"strings"

	"castellan/internal/arm"
)

// clause is one condition of a $filter: NAME() or NAME('value') or NAME eq
// 'value'. All clauses of a filter must hold.
type clause struct{ name, value string }

// parseFilter reads a $filter whose clauses must be among the allowed, each
// given as it is written, such as "atScope()" or "roleName eq".
func parseFilter(text string, allowed ...string) ([]clause, error) {
	var out []clause
	for rest := strings.TrimSpace(text); rest != ""; {
		c, after, ok := parseClause(rest)
		if !ok || !c.in(allowed) {
			return nil, badFilter(text, allowed)
		}
		out = append(out, c)
		if rest = strings.TrimSpace(after); rest == "" {
			break
		}
		word, more, found := strings.Cut(rest, " ")
		if !found || !strings.EqualFold(word, "and") || strings.TrimSpace(more) == "" {
			return nil, badFilter(text, allowed)
		}
		rest = strings.TrimSpace(more)
	}
	return out, nil
}

func badFilter(text string, allowed []string) error {
	return arm.Errorf(arm.BadRequest, "the $filter %q is not supported; supported, also joined by and: %s", text, strings.Join(allowed, ", "))
}

func (c clause) in(allowed []string) bool {
	for _, a := range allowed {
		if strings.EqualFold(c.name, a) {
			return true
		}
	}
	return false
}

// parseClause cuts one clause off text. A clause's name keeps what tells the
// forms apart: "atScope()", "assignedTo(id)", "roleName eq".
func parseClause(text string) (c clause, rest string, ok bool) {
	n := strings.IndexFunc(text, func(r rune) bool { return r == ' ' || r == '(' })
	if n <= 0 {
		return clause{}, "", false
	}
	name := text[:n]
	rest = strings.TrimLeft(text[n:], " ")
	if strings.HasPrefix(rest, "(") {
		return parseCall(name, strings.TrimLeft(rest[1:], " "))
	}
	op, after, found := strings.Cut(rest, " ")
	if !found || !strings.EqualFold(op, "eq") {
		return clause{}, "", false
	}
	v, rest, ok := parseValue(strings.TrimLeft(after, " "))
	return clause{name + " eq", v}, rest, ok
}

func parseCall(name, rest string) (clause, string, bool) {
	if after, ok := strings.CutPrefix(rest, ")"); ok {
		return clause{name + "()", ""}, after, true
	}
	v, rest, ok := parseValue(rest)
	if !ok {
		return clause{}, "", false
	}
	after, ok := strings.CutPrefix(strings.TrimLeft(rest, " "), ")")
	return clause{name + "(id)", v}, after, ok
}

// parseValue reads 'text', in which two quotes stand for one, or a bare word.
func parseValue(text string) (value, rest string, ok bool) {
	if !strings.HasPrefix(text, "'") {
		n := strings.IndexAny(text, " )")
		if n < 0 {
			n = len(text)
		}
		return text[:n], text[n:], n > 0
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		if text[i] != '\'' {
			b.WriteByte(text[i])
			continue
		}
		if i+1 < len(text) && text[i+1] == '\'' {
			b.WriteByte('\'')
			i++
			continue
		}
		return b.String(), text[i+1:], true
	}
	return "", "", false
}
