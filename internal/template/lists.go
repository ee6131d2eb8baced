package template

import (
	"sort"
	"strings"
	"unicode/utf8"
)

var listFunctions = map[string]function{
	"concat":       {1, -1, concat},
	"array":        {1, 1, func(_ env, a []any) (any, error) { return asArray(a[0]), nil }},
	"createarray":  {0, -1, func(_ env, a []any) (any, error) { return append([]any{}, a...), nil }},
	"createobject": {0, -1, createObject},
	"union":        {2, -1, union},
	"intersection": {2, -1, intersection},
	"contains":     {2, 2, contains},
	"empty":        {1, 1, func(_ env, a []any) (any, error) { n, err := length(a[0]); return a[0] == nil || n == 0, err }},
	"length":       {1, 1, func(_ env, a []any) (any, error) { n, err := length(a[0]); return int64(n), err }},
	"first":        {1, 1, func(_ env, a []any) (any, error) { return end(a[0], false) }},
	"last":         {1, 1, func(_ env, a []any) (any, error) { return end(a[0], true) }},
	"join":         {2, 2, joinArray},
	"range":        {2, 2, numberRange},
	"take":         {2, 2, func(_ env, a []any) (any, error) { return part(a, true) }},
	"skip":         {2, 2, func(_ env, a []any) (any, error) { return part(a, false) }},
	"flatten":      {1, 1, flatten},
	"items":        {1, 1, items},
}

// concat joins strings, or arrays.
func concat(_ env, a []any) (any, error) {
	if _, ok := a[0].([]any); ok {
		out := []any{}
		for i := range a {
			x, err := need[[]any](a, i)
			if err != nil {
				return nil, err
			}
			if out = append(out, x...); len(out) > maxItems {
				return out, nil // weighed and refused by the caller
			}
		}
		return out, nil
	}
	parts, err := texts(a)
	if err != nil {
		return nil, err
	}
	n := 0
	for _, p := range parts {
		if n += len(p); n > maxText {
			return nil, invalid("the result has more than %d characters", maxText)
		}
	}
	return strings.Join(parts, ""), nil
}

func asArray(v any) []any {
	if list, ok := v.([]any); ok {
		return list
	}
	return []any{v}
}

func createObject(_ env, a []any) (any, error) {
	if len(a)%2 != 0 {
		return nil, invalid("there are %d arguments; names and values must come in pairs", len(a))
	}
	out := map[string]any{}
	for i := 0; i < len(a); i += 2 {
		k, err := need[string](a, i)
		if err != nil {
			return nil, err
		}
		out[k] = a[i+1]
	}
	return out, nil
}

// union joins objects, of which the later win, or arrays without what is twice.
func union(e env, a []any) (any, error) {
	if _, ok := a[0].(map[string]any); ok {
		out := map[string]any{}
		for i := range a {
			m, err := need[map[string]any](a, i)
			if err != nil {
				return nil, err
			}
			if err := e.mergeInto(out, m); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	out := []any{}
	for i := range a {
		list, err := need[[]any](a, i)
		if err != nil {
			return nil, err
		}
		for _, x := range list {
			has, err := e.among(out, x)
			if err != nil {
				return nil, err
			}
			if !has {
				out = append(out, x)
			}
		}
	}
	return out, nil
}

// mergeInto puts the properties of m over those of out; objects in both are joined.
func (e env) mergeInto(out, m map[string]any) error {
	for k, v := range m {
		if err := e.spend(0); err != nil {
			return err
		}
		at := k
		for have := range out {
			if strings.EqualFold(have, k) {
				at = have
			}
		}
		old, isOld := out[at].(map[string]any)
		add, isNew := v.(map[string]any)
		if !isOld || !isNew {
			out[at] = v
			continue
		}
		joined := map[string]any{}
		for x, y := range old {
			joined[x] = y
		}
		if err := e.mergeInto(joined, add); err != nil {
			return err
		}
		out[at] = joined
	}
	return nil
}

func (e env) among(list []any, x any) (bool, error) {
	for _, y := range list {
		if eq, err := e.same(x, y); eq || err != nil {
			return eq, err
		}
	}
	return false, nil
}

func intersection(e env, a []any) (any, error) {
	if first, ok := a[0].(map[string]any); ok {
		out := map[string]any{}
		for k, v := range first {
			all := true
			for i := 1; i < len(a) && all; i++ {
				m, err := need[map[string]any](a, i)
				if err != nil {
					return nil, err
				}
				w, has := m[k]
				if all = has; has {
					if all, err = e.same(v, w); err != nil {
						return nil, err
					}
				}
			}
			if all {
				out[k] = v
			}
		}
		return out, nil
	}
	first, err := need[[]any](a, 0)
	if err != nil {
		return nil, err
	}
	out := []any{}
	for _, x := range first {
		all := true
		for i := 1; i < len(a) && all; i++ {
			list, err := need[[]any](a, i)
			if err != nil {
				return nil, err
			}
			if all, err = e.among(list, x); err != nil {
				return nil, err
			}
		}
		if dup, err := e.among(out, x); err != nil {
			return nil, err
		} else if all && !dup {
			out = append(out, x)
		}
	}
	return out, nil
}

func contains(e env, a []any) (any, error) {
	switch c := a[0].(type) {
	case string:
		t, err := textOf(a[1])
		return strings.Contains(c, t), err
	case []any:
		return e.among(c, a[1])
	case map[string]any:
		k, err := need[string](a, 1)
		if err != nil {
			return nil, err
		}
		_, ok := lookup(c, k)
		return ok, nil
	}
	return nil, invalid("argument 1 is %s; it must be a string, an array or an object", kind(a[0]))
}

func length(v any) (int, error) {
	switch x := v.(type) {
	case nil:
		return 0, nil
	case string:
		return utf8.RuneCountInString(x), nil
	case []any:
		return len(x), nil
	case map[string]any:
		return len(x), nil
	}
	return 0, invalid("argument 1 is %s; it must be a string, an array or an object", kind(v))
}

// end is the first or last item, or character; null or "" of nothing.
func end(v any, last bool) (any, error) {
	switch x := v.(type) {
	case string:
		r := []rune(x)
		switch {
		case len(r) == 0:
			return "", nil
		case last:
			return string(r[len(r)-1]), nil
		}
		return string(r[0]), nil
	case []any:
		switch {
		case len(x) == 0:
			return nil, nil
		case last:
			return x[len(x)-1], nil
		}
		return x[0], nil
	}
	return nil, invalid("argument 1 is %s; it must be a string or an array", kind(v))
}

func joinArray(_ env, a []any) (any, error) {
	list, err := need[[]any](a, 0)
	if err != nil {
		return nil, err
	}
	sep, err := need[string](a, 1)
	if err != nil {
		return nil, err
	}
	parts, err := texts(list)
	if err != nil {
		return nil, err
	}
	n := len(sep) * len(parts)
	for _, p := range parts {
		if n += len(p); n > maxText {
			return nil, invalid("the result has more than %d characters", maxText)
		}
	}
	return strings.Join(parts, sep), nil
}

func numberRange(_ env, a []any) (any, error) {
	from, err := need[int64](a, 0)
	if err != nil {
		return nil, err
	}
	n, err := need[int64](a, 1)
	if err != nil {
		return nil, err
	}
	if n < 0 || n > maxItems || from > 1<<31 || from < -1<<31 {
		return nil, invalid("the range must have 0 to %d numbers of 32 bits", maxItems)
	}
	out := make([]any, n)
	for i := range out {
		out[i] = from + int64(i)
	}
	return out, nil
}

// part is what take and skip leave.
func part(a []any, take bool) (any, error) {
	n, err := need[int64](a, 1)
	if err != nil {
		return nil, err
	}
	cut := func(size int) int { return int(max(0, min(n, int64(size)))) }
	switch x := a[0].(type) {
	case string:
		r := []rune(x)
		if take {
			return string(r[:cut(len(r))]), nil
		}
		return string(r[cut(len(r)):]), nil
	case []any:
		if take {
			return x[:cut(len(x)):cut(len(x))], nil
		}
		return x[cut(len(x)):], nil
	}
	return nil, invalid("argument 1 is %s; it must be a string or an array", kind(a[0]))
}

func flatten(_ env, a []any) (any, error) {
	list, err := need[[]any](a, 0)
	if err != nil {
		return nil, err
	}
	out := []any{}
	for i := range list {
		x, err := need[[]any](list, i)
		if err != nil {
			return nil, err
		}
		if out = append(out, x...); len(out) > maxItems {
			break // weighed and refused by the caller
		}
	}
	return out, nil
}

// items is an object as an array of {key, value}, in the order of the keys.
func items(_ env, a []any) (any, error) {
	m, err := need[map[string]any](a, 0)
	if err != nil {
		return nil, err
	}
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	out := make([]any, len(keys))
	for i, k := range keys {
		out[i] = map[string]any{"key": k, "value": m[k]}
	}
	return out, nil
}
