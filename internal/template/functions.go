package template

import (
	"encoding/json"
	"fmt"
	"strings"
)

// function is one that takes the values of its arguments.
type function struct {
	least, most int // arguments; most -1 is any number
	do          func(e env, a []any) (any, error)
}

func (f function) span() string {
	switch {
	case f.most < 0:
		return fmt.Sprintf("at least %d", f.least)
	case f.least == f.most:
		return fmt.Sprint(f.least)
	}
	return fmt.Sprintf("%d to %d", f.least, f.most)
}

// functions are all of them, by name in lower case.
var functions = join(stringFunctions, listFunctions, numberFunctions, logicFunctions, placeFunctions)

func join(sets ...map[string]function) map[string]function {
	out := map[string]function{}
	for _, s := range sets {
		for k, f := range s {
			out[k] = f
		}
	}
	return out
}

// need is argument i, which must be of type T.
func need[T any](a []any, i int) (T, error) {
	v, ok := a[i].(T)
	if !ok {
		var want T
		return v, invalid("argument %d is %s; it must be %s", i+1, kind(a[i]), kind(any(want)))
	}
	return v, nil
}

// texts are all arguments, as strings; numbers and bools become text.
func texts(a []any) ([]string, error) {
	out := make([]string, len(a))
	for i, v := range a {
		s, err := textOf(v)
		if err != nil {
			return nil, invalid("argument %d is %s; it must be a string", i+1, kind(v))
		}
		out[i] = s
	}
	return out, nil
}

func textOf(v any) (string, error) {
	switch x := v.(type) {
	case string:
		return x, nil
	case int64, json.Number:
		return fmt.Sprint(x), nil
	case bool:
		if x {
			return "True", nil
		}
		return "False", nil
	}
	return "", invalid("%s is no text", kind(v))
}

// of1 makes a function of one string.
func of1(f func(s string) (any, error)) function {
	return function{1, 1, func(_ env, a []any) (any, error) {
		s, err := need[string](a, 0)
		if err != nil {
			return nil, err
		}
		return f(s)
	}}
}

// of2 makes a function of two strings.
func of2(f func(s, t string) (any, error)) function {
	return function{2, 2, func(_ env, a []any) (any, error) {
		s, err := need[string](a, 0)
		if err != nil {
			return nil, err
		}
		t, err := need[string](a, 1)
		if err != nil {
			return nil, err
		}
		return f(s, t)
	}}
}

var logicFunctions = map[string]function{
	"equals": {2, 2, func(e env, a []any) (any, error) { return e.same(a[0], a[1]) }},
	"not": {1, 1, func(_ env, a []any) (any, error) {
		b, err := need[bool](a, 0)
		return !b, err
	}},
	"greater":         compare(func(c int) bool { return c > 0 }),
	"greaterorequals": compare(func(c int) bool { return c >= 0 }),
	"less":            compare(func(c int) bool { return c < 0 }),
	"lessorequals":    compare(func(c int) bool { return c <= 0 }),
	"true":            constant(true),
	"false":           constant(false),
	"null":            constant(nil),
	"bool":            {1, 1, toBool},
}

func constant(v any) function {
	return function{0, 0, func(env, []any) (any, error) { return v, nil }}
}

func compare(ok func(int) bool) function {
	return function{2, 2, func(_ env, a []any) (any, error) {
		if x, is := a[0].(int64); is {
			y, err := need[int64](a, 1)
			if err != nil {
				return nil, err
			}
			return ok(map[bool]int{true: 1}[x > y] - map[bool]int{true: 1}[x < y]), nil
		}
		x, err := need[string](a, 0)
		if err != nil {
			return nil, err
		}
		y, err := need[string](a, 1)
		return ok(strings.Compare(x, y)), err
	}}
}

func toBool(_ env, a []any) (any, error) {
	switch v := a[0].(type) {
	case bool:
		return v, nil
	case int64:
		return v != 0, nil
	case string:
		switch strings.ToLower(v) {
		case "true", "1":
			return true, nil
		case "false", "0":
			return false, nil
		}
	}
	return nil, invalid("%s can't be read as a bool; it must be true or false", kind(a[0]))
}

// same compares two values wholly; text is compared with its case.
func (e env) same(x, y any) (bool, error) {
	if err := e.spend(0); err != nil {
		return false, err
	}
	switch a := x.(type) {
	case []any:
		b, ok := y.([]any)
		if !ok || len(a) != len(b) {
			return false, nil
		}
		for i := range a {
			if eq, err := e.same(a[i], b[i]); !eq || err != nil {
				return false, err
			}
		}
		return true, nil
	case map[string]any:
		b, ok := y.(map[string]any)
		if !ok || len(a) != len(b) {
			return false, nil
		}
		for k, v := range a {
			w, has := b[k]
			if !has {
				return false, nil
			}
			if eq, err := e.same(v, w); !eq || err != nil {
				return false, err
			}
		}
		return true, nil
	case json.Number:
		return fmt.Sprint(x) == fmt.Sprint(y), nil
	}
	switch y.(type) {
	case []any, map[string]any:
		return false, nil
	}
	return x == y, nil
}

var numberFunctions = map[string]function{
	"add": arithmetic(func(x, y int64) (int64, bool) { z := x + y; return z, (z > x) == (y > 0) }),
	"sub": arithmetic(func(x, y int64) (int64, bool) { z := x - y; return z, (z < x) == (y > 0) }),
	"mul": arithmetic(func(x, y int64) (int64, bool) {
		if x == 0 || y == 0 {
			return 0, true
		}
		z := x * y
		return z, z/y == x && !(x == -1 && y == -1<<63) && !(y == -1 && x == -1<<63)
	}),
	"div": arithmetic(func(x, y int64) (int64, bool) {
		if y == 0 || y == -1 && x == -1<<63 {
			return 0, false
		}
		return x / y, true
	}),
	"mod": arithmetic(func(x, y int64) (int64, bool) {
		if y == 0 || y == -1 && x == -1<<63 {
			return 0, false
		}
		return x % y, true
	}),
	"min": extreme(func(x, y int64) bool { return x < y }),
	"max": extreme(func(x, y int64) bool { return x > y }),
	"int": {1, 1, toInt},
}

func arithmetic(f func(x, y int64) (int64, bool)) function {
	return function{2, 2, func(_ env, a []any) (any, error) {
		x, err := need[int64](a, 0)
		if err != nil {
			return nil, err
		}
		y, err := need[int64](a, 1)
		if err != nil {
			return nil, err
		}
		z, ok := f(x, y)
		if !ok {
			return nil, invalid("the result is out of range")
		}
		return z, nil
	}}
}

func toInt(_ env, a []any) (any, error) {
	switch v := a[0].(type) {
	case int64:
		return v, nil
	case string:
		var n int64
		if err := json.Unmarshal([]byte(strings.TrimSpace(v)), &n); err == nil {
			return n, nil
		}
	}
	return nil, invalid("%s can't be read as a whole number", kind(a[0]))
}

// extreme is min and max, of arguments or of one array.
func extreme(better func(x, y int64) bool) function {
	return function{1, -1, func(_ env, a []any) (any, error) {
		if list, ok := a[0].([]any); ok && len(a) == 1 {
			a = list
		}
		if len(a) == 0 {
			return nil, invalid("the array is empty")
		}
		best, err := need[int64](a, 0)
		for i := 1; err == nil && i < len(a); i++ {
			var x int64
			if x, err = need[int64](a, i); err == nil && better(x, best) {
				best = x
			}
		}
		return best, err
	}}
}
