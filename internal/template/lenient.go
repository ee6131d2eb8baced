package template

import (
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"castellan/internal/arm"
)

// maxDepth is how deep a document may nest.
const maxDepth = 64

// Read reads a request about a template: JSON with the freedoms that template
// files take, which the Azure CLI sends as they are: comments, names without
// quotes, single quotes, line breaks in strings and commas before an end. What
// two readers could take for two things is refused here as everywhere: names
// that differ in case only, and anything behind the document.
func Read(data []byte) (any, error) {
	if !utf8.Valid(data) {
		return nil, arm.Errorf(arm.InvalidRequest, "the request body is not UTF-8")
	}
	r := &reader{s: strings.TrimPrefix(string(data), "\uFEFF")}
	v, err := r.value(0)
	if err != nil {
		return nil, err
	}
	if err := r.space(); err != nil {
		return nil, err
	}
	if r.at < len(r.s) {
		return nil, r.bad("goes on after its document")
	}
	return v, nil
}

type reader struct {
	s  string
	at int
}

func (r *reader) bad(what string) error {
	at := min(r.at, len(r.s))
	line := 1 + strings.Count(r.s[:at], "\n")
	return arm.Errorf(arm.InvalidRequest, "the request body %s, at line %d, column %d", what, line, at-strings.LastIndexByte(r.s[:at], '\n'))
}

// space skips white space and comments.
func (r *reader) space() error {
	for r.at < len(r.s) {
		rest := r.s[r.at:]
		switch {
		case strings.ContainsRune(" \t\r\n", rune(rest[0])):
			r.at++
		case strings.HasPrefix(rest, "//"):
			n := strings.IndexByte(rest, '\n')
			if n < 0 {
				n = len(rest)
			}
			r.at += n
		case strings.HasPrefix(rest, "/*"):
			n := strings.Index(rest, "*/")
			if n < 0 {
				return r.bad("has a comment without an end")
			}
			r.at += n + 2
		default:
			return nil
		}
	}
	return nil
}

// next is the first character after white space, or 0 at the end.
func (r *reader) next() (byte, error) {
	if err := r.space(); err != nil || r.at >= len(r.s) {
		return 0, err
	}
	return r.s[r.at], nil
}

func (r *reader) value(depth int) (any, error) {
	c, err := r.next()
	switch {
	case err != nil:
		return nil, err
	case depth > maxDepth:
		return nil, r.bad("nests too deep")
	case c == '{':
		return r.object(depth)
	case c == '[':
		return r.array(depth)
	case c == '"' || c == '\'':
		return r.text()
	}
	return r.word()
}

func (r *reader) object(depth int) (any, error) {
	r.at++
	out, seen := map[string]any{}, map[string]bool{}
	for {
		c, err := r.next()
		if err != nil {
			return nil, err
		}
		if c == '}' {
			r.at++
			return out, nil
		}
		k, err := r.name(c)
		if err != nil {
			return nil, err
		}
		if seen[strings.ToLower(k)] {
			return nil, r.bad("has the property " + strconv.Quote(k) + " twice")
		}
		seen[strings.ToLower(k)] = true
		if c, err = r.next(); err != nil {
			return nil, err
		}
		if c != ':' {
			return nil, r.bad("lacks a colon after " + strconv.Quote(k))
		}
		r.at++
		if out[k], err = r.value(depth + 1); err != nil {
			return nil, err
		}
		if err := r.comma('}'); err != nil {
			return nil, err
		}
	}
}

func (r *reader) array(depth int) (any, error) {
	r.at++
	out := []any{}
	for {
		c, err := r.next()
		if err != nil {
			return nil, err
		}
		if c == ']' {
			r.at++
			return out, nil
		}
		v, err := r.value(depth + 1)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
		if err := r.comma(']'); err != nil {
			return nil, err
		}
	}
}

// comma skips the comma between two items; before the end there need be none.
func (r *reader) comma(end byte) error {
	c, err := r.next()
	switch {
	case err != nil:
		return err
	case c == ',':
		r.at++
	case c != end:
		return r.bad("lacks a comma or " + string(end))
	}
	return nil
}

// name is a property's name, quoted or not.
func (r *reader) name(c byte) (string, error) {
	if c == '"' || c == '\'' {
		return r.text()
	}
	from := r.at
	for r.at < len(r.s) && (isLetter(r.s[r.at]) || isDigit(r.s[r.at])) {
		r.at++
	}
	if from == r.at {
		return "", r.bad("lacks the name of a property")
	}
	return r.s[from:r.at], nil
}

func isLetter(c byte) bool { return c == '_' || c == '$' || 'a' <= c|0x20 && c|0x20 <= 'z' }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// word is true, false, null or a number.
func (r *reader) word() (any, error) {
	from := r.at
	for r.at < len(r.s) && (isLetter(r.s[r.at]) || isDigit(r.s[r.at]) || strings.IndexByte("+-.", r.s[r.at]) >= 0) {
		r.at++
	}
	w := r.s[from:r.at]
	switch w {
	case "true":
		return true, nil
	case "false":
		return false, nil
	case "null":
		return nil, nil
	}
	var n json.Number
	if err := json.Unmarshal([]byte(w), &n); err == nil && w != "" && w[0] != '"' {
		if _, err := n.Float64(); err == nil {
			return n, nil
		}
	}
	r.at = from
	return nil, r.bad("has something that is no value")
}

var escapes = map[byte]string{'"': `"`, '\'': `'`, '\\': `\`, '/': `/`, 'b': "\b", 'f': "\f", 'n': "\n", 'r': "\r", 't': "\t"}

func (r *reader) text() (string, error) {
	quote := r.s[r.at]
	r.at++
	var b strings.Builder
	for r.at < len(r.s) {
		c := r.s[r.at]
		switch {
		case c == quote:
			r.at++
			return b.String(), nil
		case c != '\\':
			b.WriteByte(c)
			r.at++
			continue
		}
		if r.at+1 >= len(r.s) {
			break
		}
		if e, ok := escapes[r.s[r.at+1]]; ok {
			b.WriteString(e)
			r.at += 2
			continue
		}
		u, err := r.unicode()
		if err != nil {
			return "", err
		}
		b.WriteRune(u)
	}
	r.at = len(r.s)
	return "", r.bad("has a string without an end")
}

// unicode reads \uXXXX, or two of them that make one character.
func (r *reader) unicode() (rune, error) {
	a, ok := r.hex()
	if !ok {
		return 0, r.bad(`has a backslash that begins no escape`)
	}
	if !utf16.IsSurrogate(a) {
		return a, nil
	}
	if b, ok := r.hex(); ok {
		if c := utf16.DecodeRune(a, b); c != utf8.RuneError {
			return c, nil
		}
	}
	return 0, r.bad("has half a character")
}

func (r *reader) hex() (rune, bool) {
	if len(r.s) < r.at+6 || r.s[r.at] != '\\' || r.s[r.at+1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(r.s[r.at+2:r.at+6], 16, 16)
	if err != nil {
		return 0, false
	}
	r.at += 6
	return rune(n), true
}
