package policy

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// operator compares a value, nil if it is not there, with the rule's own.
type operator struct {
	name string
	test func(v, want any) (bool, error)
	of   string // the operator that this is the opposite of, or its own name
}

// operators are all of them, by name in lower case. Source: the conditions of
// the policy rule.
var operators = map[string]*operator{}

func init() {
	add := func(name, opposite string, test func(v, want any) (bool, error)) {
		operators[strings.ToLower(name)] = &operator{name: name, of: name, test: test}
		if opposite != "" {
			operators[strings.ToLower(opposite)] = &operator{name: opposite, of: name, test: func(v, want any) (bool, error) {
				ok, err := test(v, want)
				return !ok, err
			}}
		}
	}
	add("equals", "notEquals", func(v, want any) (bool, error) { return equal(v, want), nil })
	add("like", "notLike", onText("like", like))
	add("match", "notMatch", onText("match", func(s, pattern string) bool { return match(s, pattern, false) }))
	add("matchInsensitively", "notMatchInsensitively", onText("matchInsensitively", func(s, pattern string) bool { return match(s, pattern, true) }))
	add("contains", "notContains", contains)
	add("in", "notIn", in)
	add("containsKey", "notContainsKey", containsKey)
	add("less", "", ordered(func(c int) bool { return c < 0 }))
	add("lessOrEquals", "", ordered(func(c int) bool { return c <= 0 }))
	add("greater", "", ordered(func(c int) bool { return c > 0 }))
	add("greaterOrEquals", "", ordered(func(c int) bool { return c >= 0 }))
	add("exists", "", func(v, want any) (bool, error) { return equal(v != nil, want), nil })
}

// fold is text as comparisons see it: Azure minds no case.
func fold(s string) string { return strings.ToLower(s) }

// sameText is equality as strings.EqualFold or fold see it. Letters are taken one
// by one by both, so the first ASCII letters that differ settle it; what is not
// ASCII is left to them.
func sameText(a, b string) bool {
	for i := range min(len(a), len(b)) {
		x, y := a[i], b[i]
		switch {
		case x|y >= utf8.RuneSelf:
			return strings.EqualFold(a, b) || fold(a) == fold(b)
		case x == y:
		case x|0x20 != y|0x20 || x|0x20 < 'a' || x|0x20 > 'z':
			return false
		}
	}
	return len(a) == len(b)
}

// onStrings is the operator's test of text against a constant, made once, or nil
// if there is none that is quicker.
func (o *operator) onStrings(want any) func(s string) bool {
	var yes func(string) bool
	switch w := want.(type) {
	case string:
		switch o.of {
		case "equals":
			yes = func(s string) bool { return sameText(s, w) }
		case "like":
			p := readPattern(w)
			yes = p.covers
		}
	case []any:
		if o.of != "in" {
			return nil
		}
		all := make([]string, len(w))
		for i, x := range w {
			var ok bool
			if all[i], ok = x.(string); !ok {
				return nil
			}
		}
		yes = func(s string) bool {
			for _, x := range all {
				if sameText(s, x) {
					return true
				}
			}
			return false
		}
	}
	if yes != nil && o.of != o.name {
		return func(s string) bool { return !yes(s) }
	}
	return yes
}

// equal compares as Azure does: text without its case, and text with the number
// or the boolean that it spells.
func equal(v, want any) bool {
	switch a := v.(type) {
	case string:
		switch b := want.(type) {
		case string:
			return sameText(a, b)
		case bool:
			return strings.EqualFold(a, strconv.FormatBool(b))
		case int64, float64:
			x, ok := number(a)
			y, _ := number(b)
			return ok && x == y
		}
		return false
	case bool:
		switch b := want.(type) {
		case bool:
			return a == b
		case string:
			return strings.EqualFold(b, strconv.FormatBool(a))
		}
		return false
	case int64, float64:
		x, _ := number(a)
		y, ok := number(want)
		return ok && x == y
	case []any:
		b, ok := want.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for i := range a {
			if !equal(a[i], b[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		b, ok := want.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for k, x := range a {
			y, has := lookup(b, k)
			if !has || !equal(x, y) {
				return false
			}
		}
		return true
	}
	return v == nil && want == nil
}

// number is a number, or one that text spells.
func number(v any) (float64, bool) {
	switch x := v.(type) {
	case int64:
		return float64(x), true
	case float64:
		return x, true
	case string:
		f, err := strconv.ParseFloat(strings.TrimSpace(x), 64)
		return f, err == nil && !strings.ContainsAny(x, "xXpPnN_")
	}
	return 0, false
}

// text is a value as patterns see it.
func text(v any) (string, bool) {
	switch x := v.(type) {
	case string:
		return x, true
	case int64, float64:
		return fmt.Sprint(x), true
	case bool:
		return strconv.FormatBool(x), true
	}
	return "", false
}

func onText(name string, test func(s, pattern string) bool) func(v, want any) (bool, error) {
	return func(v, want any) (bool, error) {
		pattern, ok := text(want)
		if !ok {
			return false, wrongOperand(name, "a string", want)
		}
		s, ok := text(v)
		return ok && test(s, pattern), nil
	}
}

func wrongOperand(name, must string, got any) error {
	return invalid("%s is compared with %s; it must be %s", name, kindOf(got), must)
}

// pattern is what like matches: * stands for any text.
type pattern struct {
	head string
	rest []string // what follows each *; nil if there is none
}

func readPattern(text string) pattern {
	parts := strings.Split(fold(text), "*")
	return pattern{parts[0], parts[1:]}
}

// covers reports whether s matches, without regard to case.
func (p pattern) covers(s string) bool {
	s = fold(s)
	if len(p.rest) == 0 {
		return s == p.head
	}
	s, ok := strings.CutPrefix(s, p.head)
	if !ok {
		return false
	}
	last := len(p.rest) - 1
	for _, part := range p.rest[:last] {
		i := strings.Index(s, part)
		if i < 0 {
			return false
		}
		s = s[i+len(part):]
	}
	return strings.HasSuffix(s, p.rest[last])
}

func like(s, text string) bool { return readPattern(text).covers(s) }

// match matches # with a digit, ? with a letter and . with any character.
func match(s, pattern string, anyCase bool) bool {
	if anyCase {
		s, pattern = fold(s), fold(pattern)
	}
	a, b := []rune(s), []rune(pattern)
	if len(a) != len(b) {
		return false
	}
	for i, p := range b {
		switch p {
		case '#':
			if !unicode.IsDigit(a[i]) {
				return false
			}
		case '?':
			if !unicode.IsLetter(a[i]) {
				return false
			}
		case '.':
		default:
			if a[i] != p {
				return false
			}
		}
	}
	return true
}

// contains looks for text in text, or for a member in an array.
func contains(v, want any) (bool, error) {
	if members, ok := v.([]any); ok {
		for _, m := range members {
			if equal(m, want) {
				return true, nil
			}
		}
		return false, nil
	}
	part, ok := text(want)
	if !ok {
		return false, wrongOperand("contains", "a string", want)
	}
	s, ok := text(v)
	return ok && strings.Contains(fold(s), fold(part)), nil
}

func in(v, want any) (bool, error) {
	members, ok := want.([]any)
	if !ok {
		return false, wrongOperand("in", "an array", want)
	}
	for _, m := range members {
		if equal(v, m) {
			return true, nil
		}
	}
	return false, nil
}

func containsKey(v, want any) (bool, error) {
	name, ok := want.(string)
	if !ok {
		return false, wrongOperand("containsKey", "a string", want)
	}
	m, ok := v.(map[string]any)
	if !ok {
		return false, nil
	}
	_, has := lookup(m, name)
	return has, nil
}

// ordered compares numbers as numbers and all other text as text.
func ordered(ok func(c int) bool) func(v, want any) (bool, error) {
	return func(v, want any) (bool, error) {
		x, isX := number(v)
		y, isY := number(want)
		if isX && isY {
			c := 0
			switch {
			case x < y:
				c = -1
			case x > y:
				c = 1
			}
			return ok(c), nil
		}
		s, isS := v.(string)
		t, isT := want.(string)
		return isS && isT && ok(strings.Compare(fold(s), fold(t))), nil
	}
}
