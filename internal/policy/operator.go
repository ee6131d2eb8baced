package policy

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// operator compares a value, nil if it is not there, with the rule's own.
type operator struct {
	name string
	test func(v, want any) (bool, error)
}

// operators are all of them, by name in lower case. Source: the conditions of
// the policy rule.
var operators = map[string]*operator{}

func init() {
	add := func(name, opposite string, test func(v, want any) (bool, error)) {
		operators[strings.ToLower(name)] = &operator{name: name, test: test}
		if opposite != "" {
			operators[strings.ToLower(opposite)] = &operator{name: opposite, test: func(v, want any) (bool, error) {
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

// equal compares as Azure does: text without its case, and text with the number
// or the boolean that it spells.
func equal(v, want any) bool {
	switch a := v.(type) {
	case string:
		switch b := want.(type) {
		case string:
			return strings.EqualFold(a, b) || fold(a) == fold(b)
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

// like matches * with any text, without regard to case.
func like(s, pattern string) bool {
	s, pattern = fold(s), fold(pattern)
	head, rest, wild := strings.Cut(pattern, "*")
	if !wild {
		return s == pattern
	}
	if !strings.HasPrefix(s, head) {
		return false
	}
	s = s[len(head):]
	for {
		part, more, wild := strings.Cut(rest, "*")
		if !wild {
			return strings.HasSuffix(s, part)
		}
		i := strings.Index(s, part)
		if i < 0 {
			return false
		}
		s, rest = s[i+len(part):], more
	}
}

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
