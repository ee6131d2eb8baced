package condition

import (
	"net/netip"
	"regexp"
	"strings"
	"time"
)

// operator compares the two sides of a comparison. What can't be compared meets
// no operator, and its opposite neither.
type operator struct {
	name string
	test func(l, r any) bool
}

// operators are all of them, by name in lower case.
var operators = map[string]*operator{}

func init() {
	add := func(name, opposite string, test func(l, r any) (holds, comparable bool)) {
		operators[strings.ToLower(name)] = &operator{name, func(l, r any) bool {
			holds, ok := test(l, r)
			return ok && holds
		}}
		if opposite != "" {
			operators[strings.ToLower(opposite)] = &operator{opposite, func(l, r any) bool {
				holds, ok := test(l, r)
				return ok && !holds
			}}
		}
	}
	for name, test := range map[string]func(s, t string) bool{
		"Equals": func(s, t string) bool { return s == t }, "StartsWith": strings.HasPrefix, "Like": like,
	} {
		add("String"+name, "StringNot"+name, texts(test))
		add("String"+name+"IgnoreCase", "StringNot"+name+"IgnoreCase", texts(func(s, t string) bool { return test(strings.ToLower(s), strings.ToLower(t)) }))
	}
	add("StringMatches", "StringNotMatches", texts(expression))
	for _, k := range []struct {
		name    string
		compare func(l, r any) (int, bool)
	}{{"Numeric", numbers}, {"DateTime", instants}, {"TimeOfDay", times}} {
		for name, holds := range map[string]func(c int) bool{
			"LessThan": func(c int) bool { return c < 0 }, "LessThanEquals": func(c int) bool { return c <= 0 },
			"GreaterThan": func(c int) bool { return c > 0 }, "GreaterThanEquals": func(c int) bool { return c >= 0 },
			"Equals": func(c int) bool { return c == 0 }, "NotEquals": func(c int) bool { return c != 0 },
		} {
			add(k.name+name, "", func(l, r any) (bool, bool) {
				c, ok := k.compare(l, r)
				return holds(c), ok
			})
		}
		add(k.name+"InRange", "", func(l, r any) (bool, bool) {
			ends := list(r)
			if len(ends) != 2 {
				return false, false
			}
			low, ok := k.compare(l, ends[0])
			high, ok2 := k.compare(l, ends[1])
			return low >= 0 && high <= 0, ok && ok2
		})
	}
	add("BoolEquals", "BoolNotEquals", func(l, r any) (bool, bool) {
		a, ok := boolean(l)
		b, ok2 := boolean(r)
		return a == b, ok && ok2
	})
	add("GuidEquals", "GuidNotEquals", texts(func(s, t string) bool { return strings.EqualFold(hex(s), hex(t)) }))
	add("IpMatch", "IpNotMatch", func(l, r any) (bool, bool) {
		a, ok := address(l)
		text, _ := r.(string)
		if n, err := netip.ParsePrefix(text); err == nil {
			return n.Contains(a), ok
		}
		b, ok2 := address(r)
		return a == b, ok && ok2
	})
	add("IpInRange", "", func(l, r any) (bool, bool) {
		ends := list(r)
		if len(ends) != 2 {
			return false, false
		}
		a, ok := address(l)
		from, ok2 := address(ends[0])
		to, ok3 := address(ends[1])
		return from.Compare(a) <= 0 && a.Compare(to) <= 0 && a.Is4() == from.Is4() && a.Is4() == to.Is4(), ok && ok2 && ok3
	})
	add("ListContains", "ListNotContains", func(l, r any) (bool, bool) { return contains(list(l), r), true })
}

// hex is a GUID without its hyphens.
func hex(s string) string { return strings.ReplaceAll(s, "-", "") }

func address(v any) (netip.Addr, bool) {
	s, _ := v.(string)
	a, err := netip.ParseAddr(s)
	return a, err == nil
}

// texts compares text.
func texts(test func(s, t string) bool) func(l, r any) (holds, comparable bool) {
	return func(l, r any) (bool, bool) {
		s, ok := l.(string)
		t, ok2 := r.(string)
		return ok && ok2 && test(s, t), ok && ok2
	}
}

func boolean(v any) (bool, bool) {
	switch x := v.(type) {
	case bool:
		return x, true
	case string:
		return strings.EqualFold(x, "true"), strings.EqualFold(x, "true") || strings.EqualFold(x, "false")
	}
	return false, false
}

func numbers(l, r any) (int, bool) {
	a, ok := l.(float64)
	b, ok2 := r.(float64)
	if !ok || !ok2 {
		return 0, false
	}
	switch {
	case a < b:
		return -1, true
	case a > b:
		return 1, true
	}
	return 0, true
}

func instant(v any) (time.Time, bool) {
	s, _ := v.(string)
	t, err := time.Parse(time.RFC3339Nano, s)
	return t, err == nil
}

func instants(l, r any) (int, bool) {
	a, ok := instant(l)
	b, ok2 := instant(r)
	return a.Compare(b), ok && ok2
}

func times(l, r any) (int, bool) {
	var t [2]time.Time
	for i, v := range []any{l, r} {
		s, _ := v.(string)
		var err error
		if t[i], err = time.Parse("15:04:05", s); err != nil {
			if t[i], err = time.Parse("15:04", s); err != nil {
				return 0, false
			}
		}
	}
	return t[0].Compare(t[1]), true
}

// like matches * with any text and ? with one character.
func like(s, pattern string) bool {
	for {
		i := strings.IndexByte(pattern, '*')
		if i < 0 {
			return len(s) == len(pattern) && prefix(s, pattern)
		}
		if len(s) < i || !prefix(s[:i], pattern[:i]) {
			return false
		}
		s, pattern = s[i:], pattern[i+1:]
		if pattern == "" {
			return true
		}
		// The next fixed part may begin anywhere; the last must end the text.
		part, _, more := strings.Cut(pattern, "*")
		if !more {
			return len(s) >= len(part) && prefix(s[len(s)-len(part):], part)
		}
		for len(s) >= len(part) && !prefix(s[:len(part)], part) {
			s = s[1:]
		}
		if len(s) < len(part) {
			return false
		}
	}
}

// prefix compares two texts of one length; ? fits any character.
func prefix(s, pattern string) bool {
	if len(s) != len(pattern) {
		return false
	}
	for i := range len(pattern) {
		if pattern[i] != '?' && pattern[i] != s[i] {
			return false
		}
	}
	return true
}

func likeFold(s, pattern string) bool { return like(strings.ToLower(s), strings.ToLower(pattern)) }

// expression matches a regular expression, which Go's matcher bounds in time.
func expression(s, pattern string) bool {
	if len(pattern) > 1024 {
		return false
	}
	re, err := regexp.Compile(pattern)
	return err == nil && re.MatchString(s)
}
