package resource

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"castellan/internal/arm"
)

// since are the properties that the first versions did not have, each with what
// Kind.Since says of it.
func (k *Kind) since() map[string]string {
	k.once.Do(func() {
		k.came = arm.Since(k.props())
		maps.Copy(k.came, k.Since)
	})
	return k.came
}

// first is the version that a rule of Since asks of versions such as this one,
// which are in the order of their names: a preview comes after the version of its day.
func first(rule, version string) string {
	if preview, other, two := strings.Cut(rule, " "); two && len(version) > len("2006-01-02") {
		return preview
	} else if two {
		return other
	}
	return rule
}

// later are the properties that the version does not have, each with the version
// that it came with; none for "", which stands for the platform itself.
func (k *Kind) later(version string) map[string]string {
	out := map[string]string{}
	for path, rule := range k.since() {
		if since := first(rule, version); version != "" && version < since {
			out[path] = since
		}
	}
	return out
}

// Has reports whether a version has the property at path.
func (k *Kind) Has(version, path string) bool {
	for at := range k.later(version) {
		if path == at || strings.HasPrefix(path, at+".") || strings.HasPrefix(path, at+"[") {
			return false
		}
	}
	return true
}

// known refuses properties that the version does not have.
func (k *Kind) known(version string, tree any) error {
	later := k.later(version)
	for _, path := range slices.Sorted(maps.Keys(later)) {
		found := false
		reach(tree, path, func(m map[string]any, name string) {
			_, ok := m[name]
			found = found || ok
		})
		if found {
			came := "came with " + later[path]
			if later[path] == "previews" {
				came = "is of previews alone"
			}
			return arm.Errorf(arm.InvalidRequest, "properties.%s is not of api-version %s: it %s", path, version, came)
		}
	}
	return nil
}

// hidden is props less what the version does not have.
func (k *Kind) hidden(version string, props json.RawMessage) (json.RawMessage, error) {
	later := k.later(version)
	if len(later) == 0 {
		return props, nil
	}
	tree, err := arm.ParseJSON(props)
	if err != nil {
		return nil, err
	}
	for path := range later {
		reach(tree, path, func(m map[string]any, name string) { delete(m, name) })
	}
	return json.Marshal(tree)
}

// reach calls do with every object in tree that may have what path leads to, and
// with how it spells the last name.
func reach(tree any, path string, do func(m map[string]any, name string)) {
	if list, ok := tree.([]any); ok {
		for _, x := range list {
			reach(x, path, do)
		}
		return
	}
	m, ok := tree.(map[string]any)
	if !ok {
		return
	}
	first, rest, more := strings.Cut(path, ".")
	first = name(m, strings.TrimSuffix(first, "[*]"))
	if more {
		reach(m[first], rest, do)
		return
	}
	do(m, first)
}

// kept puts into tree, which a PUT has sent, what old has of properties that the
// version does not have: who doesn't know of a thing doesn't take it away. What it
// lies in must have been sent too, and lists are sent whole.
func (k *Kind) kept(version string, tree any, old json.RawMessage) (any, error) {
	later := k.later(version)
	if len(later) == 0 || len(old) == 0 {
		return tree, nil
	}
	was, err := arm.ParseJSON(old)
	if err != nil {
		return nil, err
	}
	to, ok := tree.(map[string]any)
	if !ok {
		if tree != nil {
			return tree, nil // decoding says so
		}
		to = map[string]any{}
	}
	for path := range later {
		if v, ok := valueAt(was, path); ok {
			reach(to, path, func(m map[string]any, name string) { m[name] = v })
		}
	}
	return to, nil
}

// valueAt is the value that path leads to in tree, whatever the case of its names.
func valueAt(tree any, path string) (any, bool) {
	for _, s := range strings.Split(path, ".") {
		m, ok := tree.(map[string]any)
		if !ok {
			return nil, false
		}
		if tree, ok = m[name(m, s)]; !ok {
			return nil, false
		}
	}
	return tree, true
}

// name is how m spells the name s.
func name(m map[string]any, s string) string {
	for k := range m {
		if strings.EqualFold(k, s) {
			return k
		}
	}
	return s
}
