package resource

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"castellan/internal/arm"
)

// later are the properties that came in after a version, each with the version
// that it came with; none for "", which stands for the platform itself. Versions
// are in the order of their names: a preview comes after the version of its day.
func (k *Kind) later(version string) map[string]string {
	out := map[string]string{}
	for path, since := range k.Since {
		if version != "" && version < since {
			out[path] = since
		}
	}
	return out
}

// known refuses properties that the version does not have.
func (k *Kind) known(version string, tree any) error {
	later := k.later(version)
	for _, path := range slices.Sorted(maps.Keys(later)) {
		if _, ok := valueAt(tree, path); ok {
			return arm.Errorf(arm.InvalidRequest, "properties.%s is not of api-version %s: it came with %s", path, version, later[path])
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
		up, name := "", path
		if i := strings.LastIndexByte(path, '.'); i >= 0 {
			up, name = path[:i], path[i+1:]
		}
		if m, ok := valueAt(tree, up); ok {
			if m, ok := m.(map[string]any); ok {
				delete(m, name)
			}
		}
	}
	return json.Marshal(tree)
}

// kept puts into tree, which a PUT has sent, what old has of properties that the
// version does not have: who doesn't know of a thing doesn't take it away.
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
		v, ok := valueAt(was, path)
		if !ok {
			continue
		}
		m, segs := to, strings.Split(path, ".")
		for _, s := range segs[:len(segs)-1] {
			next, ok := m[name(m, s)].(map[string]any)
			if !ok {
				next = map[string]any{}
				m[s] = next
			}
			m = next
		}
		m[segs[len(segs)-1]] = v
	}
	return to, nil
}

// valueAt is the value that path leads to in tree, whatever the case of its names.
func valueAt(tree any, path string) (any, bool) {
	if path == "" {
		return tree, true
	}
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
