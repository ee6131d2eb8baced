package deploy

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// delta is what would become of one property, as Azure shows it.
type delta struct {
	Path     string  `json:"path"`
	Type     string  `json:"propertyChangeType"` // Create, Delete, Modify, Array or NoEffect
	Before   any     `json:"before,omitempty"`
	After    any     `json:"after,omitempty"`
	Children []delta `json:"children,omitempty"`
}

// differ is what differs between two trees. Paths of objects in objects have
// dots; items of arrays are children, whose paths are their indices.
func differ(before, after any, path string) []delta {
	if empty(before) && empty(after) || reflect.DeepEqual(before, after) {
		return nil
	}
	b, wasObject := before.(map[string]any)
	a, isObject := after.(map[string]any)
	if wasObject && (isObject || after == nil) || before == nil && isObject {
		var out []delta
		for _, k := range slices.Sorted(maps.Keys(union(b, a))) {
			at := k
			if path != "" {
				at = path + "." + k
			}
			out = append(out, differ(b[k], a[k], at)...)
		}
		return out
	}
	was, wasList := before.([]any)
	will, isList := after.([]any)
	switch {
	case wasList && isList:
		return []delta{{Path: path, Type: "Array", Children: items(was, will)}}
	case before == nil:
		return []delta{{Path: path, Type: "Create", After: after}}
	case after == nil:
		return []delta{{Path: path, Type: "Delete", Before: before}}
	}
	return []delta{{Path: path, Type: "Modify", Before: before, After: after}}
}

func items(was, will []any) (out []delta) {
	for i := range max(len(was), len(will)) {
		at := strconv.Itoa(i)
		switch {
		case i >= len(was):
			out = append(out, delta{Path: at, Type: "Create", After: will[i]})
		case i >= len(will):
			out = append(out, delta{Path: at, Type: "Delete", Before: was[i]})
		default:
			in := differ(was[i], will[i], "")
			if len(in) == 1 && in[0].Path == "" {
				in[0].Path = at
				out = append(out, in[0])
			} else if len(in) > 0 {
				out = append(out, delta{Path: at, Type: "Modify", Children: in})
			}
		}
	}
	return out
}

// empty reports whether v says nothing: the same as if it was not there.
func empty(v any) bool {
	switch x := v.(type) {
	case nil:
		return true
	case map[string]any:
		for _, y := range x {
			if !empty(y) {
				return false
			}
		}
		return true
	case []any:
		return len(x) == 0
	}
	return false
}

func union(a, b map[string]any) map[string]any {
	out := map[string]any{}
	maps.Copy(out, a)
	maps.Copy(out, b)
	return out
}

// overlay is tree with what over has, names in whatever case.
func overlay(tree, over any) any {
	t, ok := tree.(map[string]any)
	o, both := over.(map[string]any)
	if !ok || !both {
		return over
	}
	out := maps.Clone(t)
	for k, v := range o {
		for name := range t {
			if strings.EqualFold(name, k) {
				k = name
			}
		}
		out[k] = overlay(t[k], v)
	}
	return out
}

// hidden is v without the secrets that hide knows.
func hidden(v any, hide *strings.Replacer) any {
	switch x := v.(type) {
	case string:
		return hide.Replace(x)
	case json.Number, int64:
		if s := fmt.Sprint(x); hide.Replace(s) != s {
			return "[redacted]"
		}
	case []any:
		out := make([]any, len(x))
		for i := range x {
			out[i] = hidden(x[i], hide)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(x))
		for k := range x {
			out[hide.Replace(k)] = hidden(x[k], hide)
		}
		return out
	}
	return v
}
