package resource

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

// Shape says of properties, by their paths, with which api-versions they came, as
// Kind.Since does.
type Shape map[string]string

// shape are the properties of the kind that the first versions did not have.
func (k *Kind) shape() Shape {
	k.once.Do(func() {
		k.came = arm.Since(k.props())
		maps.Copy(k.came, k.Since)
	})
	return k.came
}

// first is the version that a rule of a Shape asks of versions such as this one,
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
func (s Shape) later(version string) map[string]string {
	out := map[string]string{}
	for path, rule := range s {
		if since := first(rule, version); version != "" && version < since {
			out[path] = since
		}
	}
	return out
}

// Has reports whether a version has the property at path.
func (k *Kind) Has(version, path string) bool { return k.shape().Has(version, path) }

// Has reports whether a version has the property at path.
func (s Shape) Has(version, path string) bool {
	for at := range s.later(version) {
		if path == at || strings.HasPrefix(path, at+".") || strings.HasPrefix(path, at+"[") {
			return false
		}
	}
	return true
}

// known refuses properties that the version does not have; at is where the paths begin.
func (s Shape) known(version string, tree any, at string) error {
	later := s.later(version)
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
			return arm.Errorf(arm.InvalidRequest, "%s%s is not of api-version %s: it %s", at, path, version, came)
		}
	}
	return nil
}

// hide takes out of tree what the version does not have.
func (s Shape) hide(version string, tree any) {
	for path := range s.later(version) {
		reach(tree, path, func(m map[string]any, name string) { delete(m, name) })
	}
}

// hidden is the kind's props less what the version does not have.
func (k *Kind) hidden(version string, props json.RawMessage) (json.RawMessage, error) {
	if len(k.shape().later(version)) == 0 {
		return props, nil
	}
	tree, err := arm.ParseJSON(props)
	if err != nil {
		return nil, err
	}
	k.shape().hide(version, tree)
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
func (s Shape) kept(version string, tree any, old json.RawMessage) (any, error) {
	later := s.later(version)
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

//go:embed shapes.txt
var shapesText string

// Shapes are those of the types that are no Kinds, by type in lower case.
var Shapes = sync.OnceValue(func() map[string]Shape {
	out, typ := map[string]Shape{}, ""
	for line := range strings.Lines(shapesText) {
		switch line = strings.TrimRight(line, "\n"); {
		case line[0] == '#':
		case line[0] != ' ':
			typ = strings.ToLower(line)
			out[typ] = Shape{}
		default:
			path, rule, _ := strings.Cut(line[1:], " ")
			out[typ][path] = rule
		}
	}
	return out
})

// Preserve gives the properties that a PUT with a version has sent for something of a
// type that is no Kind, and of the old ones those that the version does not have.
func Preserve(typ, version string, props any, old json.RawMessage) (any, error) {
	s := Shape{}
	for path, rule := range Shapes()[strings.ToLower(typ)] {
		if below, ok := strings.CutPrefix(path, "properties."); ok {
			s[below] = rule
		}
	}
	return s.kept(version, props, old)
}

// Shaped are the routes with those to what has a Shape refusing what the version
// of a request does not have, and not showing it. The others are as they were.
func Shaped(routes []gate.Route) []gate.Route {
	for i, rt := range routes {
		typ, _ := typeOfDoor(rt.Pattern, "")
		if s := Shapes()[strings.ToLower(typ)]; s != nil && !rt.Action.IsZero() {
			routes[i] = rt.Through(s.through)
		}
	}
	return routes
}

// through is verb for requests with any version.
func (s Shape) through(verb gate.Verb) gate.Verb {
	return func(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
		version := r.URL.Query().Get("api-version")
		if len(s.later(version)) == 0 {
			return verb(w, r, g)
		}
		if r.Method != http.MethodGet {
			data, err := readBody(w, r)
			if err != nil {
				return err
			}
			if tree, err := arm.ParseJSON(data); err == nil { // else the verb says so
				if err := s.known(version, tree, ""); err != nil {
					return err
				}
			}
			r.Body = io.NopCloser(bytes.NewReader(data))
		}
		a := &shapedAnswer{ResponseWriter: w, status: http.StatusOK}
		if err := verb(a, r, g); err != nil {
			return err
		}
		return a.release(s, version)
	}
}

// shapedAnswer holds an answer back until it is in the shape of a version.
type shapedAnswer struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (a *shapedAnswer) WriteHeader(status int)      { a.status = status }
func (a *shapedAnswer) Write(b []byte) (int, error) { return a.body.Write(b) }

func (a *shapedAnswer) release(s Shape, version string) error {
	if a.body.Len() == 0 {
		a.ResponseWriter.WriteHeader(a.status)
		return nil
	}
	tree, err := arm.ParseJSON(a.body.Bytes())
	if err != nil {
		return err
	}
	if m, ok := tree.(map[string]any); ok && m["value"] != nil {
		s.hide(version, m["value"])
	} else {
		s.hide(version, tree)
	}
	gate.WriteJSON(a.ResponseWriter, a.status, tree)
	return nil
}
