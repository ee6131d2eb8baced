package scim

import (
	"slices"
	"strings"

	"castellan/internal/arm"
)

const (
	maxText   = 4096   // bytes of one value
	maxValues = 50_000 // of one attribute
)

// Read is a resource as a client sent it, by its type's schemas: names in their
// spelling, what only the platform says left out. What no schema has is refused
// by name.
func (t *Type) Read(tree any) (map[string]any, error) {
	m, ok := tree.(map[string]any)
	if !ok {
		return nil, arm.Errorf(InvalidSyntax, "The body must be one JSON object.")
	}
	out, err := t.object(m)
	if err != nil {
		return nil, err
	}
	if err := t.checkSchemas(out); err != nil {
		return nil, err
	}
	return out, t.Check(out)
}

// object reads an object of the type whose keys may also be paths with the
// URN of the core schema.
func (t *Type) object(m map[string]any) (map[string]any, error) {
	if _, ok := keyOf(m, "password"); ok {
		return nil, errPassword
	}
	return cleanObject("", t.all, m)
}

var errPassword = arm.Errorf(InvalidValue, "The attribute password is not supported: people who are provisioned sign in where they come from.")

func keyOf(m map[string]any, name string) (string, bool) {
	for k := range m {
		if fold(k) == fold(name) {
			return k, true
		}
	}
	return "", false
}

// checkSchemas holds what the client says that the resource has against what it may have.
func (t *Type) checkSchemas(m map[string]any) error {
	said, _ := m["schemas"].([]any)
	known := []string{fold(t.Core.ID)}
	for _, x := range t.Extensions {
		known = append(known, fold(x.ID))
	}
	core := false
	for _, s := range said {
		if !slices.Contains(known, fold(s.(string))) {
			return arm.Errorf(InvalidValue, "The schema %q is not one of a %s: %s.", clip(s.(string)), t.Name, strings.Join(known, ", "))
		}
		core = core || fold(s.(string)) == known[0]
	}
	if !core {
		return arm.Errorf(InvalidValue, "The attribute schemas must name %s.", t.Core.ID)
	}
	return nil
}

// Check says whether a resource has what it must have, and sets its schemas.
func (t *Type) Check(m map[string]any) error {
	for _, a := range t.all {
		if a.Required && (m[a.Name] == nil || m[a.Name] == "") {
			return arm.Errorf(InvalidValue, "A %s needs the attribute %s.", t.Name, a.Name)
		}
		if err := checkPrimary(&a, m[a.Name]); err != nil {
			return err
		}
	}
	schemas := []any{t.Core.ID}
	for _, x := range t.Extensions {
		if m[x.ID] != nil {
			schemas = append(schemas, x.ID)
		}
	}
	m["schemas"] = schemas
	return nil
}

func checkPrimary(a *Attribute, v any) error {
	n := 0
	list, _ := v.([]any)
	for _, x := range list {
		if m, ok := x.(map[string]any); ok && m["primary"] == true {
			n++
		}
	}
	if n > 1 {
		return arm.Errorf(InvalidValue, "The attribute %s has %d primary values; it may have one.", a.Name, n)
	}
	return nil
}

func cleanObject(where string, in []Attribute, m map[string]any) (map[string]any, error) {
	out := map[string]any{}
	for k, v := range m {
		a := lookup(in, k)
		if a == nil && fold(k) == "schemas" && strings.Contains(where, ":") {
			continue // scim2-client writes its URN into an extension
		}
		if a == nil {
			return nil, arm.Errorf(InvalidSyntax, "The attribute %q is not one of %s: %s.", clip(where+k), or(where, "the resource"), names(in))
		}
		if a.Mutability == "readOnly" {
			continue
		}
		v, err := a.clean(where, v)
		if err != nil {
			return nil, err
		}
		if v != nil {
			out[a.Name] = v
		}
	}
	return out, nil
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return strings.TrimSuffix(s, ".")
}

// clean is a value for the attribute in its one form, or nil for none.
func (a *Attribute) clean(where string, v any) (any, error) {
	if v == nil {
		return nil, nil
	}
	if !a.Multi && a.Name != "schemas" {
		return a.cleanOne(where, v)
	}
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	if len(list) > maxValues {
		return nil, arm.Errorf(TooMany, "The attribute %s has %d values; it may have %d.", where+a.Name, len(list), maxValues)
	}
	out := []any{}
	for _, x := range list {
		x, err := a.cleanOne(where, x)
		if err != nil {
			return nil, err
		}
		if x != nil {
			out = append(out, x)
		}
	}
	if len(out) == 0 {
		return nil, nil
	}
	return out, nil
}

// cleanOne is one value. Entra writes booleans as text, and a complex value
// that is all about its "value" as that alone.
func (a *Attribute) cleanOne(where string, v any) (any, error) {
	switch x := v.(type) {
	case nil:
		return nil, nil
	case map[string]any:
		if a.Type != "complex" {
			break
		}
		m, err := cleanObject(where+a.Name+".", a.Sub, x)
		if err != nil || len(m) == 0 {
			return nil, err
		}
		return m, nil
	case bool:
		if a.Type == "boolean" {
			return x, nil
		}
	case string:
		switch {
		case len(x) > maxText:
			return nil, arm.Errorf(InvalidValue, "The attribute %s has %d bytes; it may have %d.", where+a.Name, len(x), maxText)
		case a.Type == "boolean" && (strings.EqualFold(x, "true") || strings.EqualFold(x, "false")):
			return strings.EqualFold(x, "true"), nil
		case a.Type == "complex" && lookup(a.Sub, "value") != nil:
			if x == "" {
				return nil, nil
			}
			return map[string]any{"value": x}, nil
		case a.Type != "complex" && a.Type != "boolean":
			return x, nil
		}
	}
	want := map[string]string{"complex": "a JSON object", "boolean": "true or false"}[a.Type]
	return nil, arm.Errorf(InvalidValue, "The attribute %s has another value than %s.", where+a.Name, or(want, "text"))
}

// Select leaves in the resource what the client wants to see of it; id and
// schemas always are. Both lists are separated by commas (RFC 7644, 3.9).
func (t *Type) Select(m map[string]any, attributes, excluded string) (map[string]any, error) {
	if attributes != "" && excluded != "" {
		return nil, arm.Errorf(InvalidValue, "attributes and excludedAttributes can't be asked for together.")
	}
	out := map[string]any{"id": m["id"], "schemas": m["schemas"]}
	list, keep := attributes, true
	if attributes == "" {
		list, keep = excluded, false
		for k, v := range m {
			out[k] = v
		}
	}
	for _, p := range strings.Split(list, ",") {
		if p = strings.TrimSpace(p); p == "" {
			continue
		}
		path, err := t.path(p)
		if err != nil {
			return nil, err
		}
		if path.filter != nil {
			return nil, arm.Errorf(InvalidPath, "The attribute %q must be a name without a filter.", clip(p))
		}
		if a := path.chain[0]; a.Returned == "always" || a.Name == "schemas" {
			continue
		}
		if keep {
			pick(out, m, path.chain)
		} else {
			omit(out, path.chain)
		}
	}
	return out, nil
}

// pick copies into out what the chain leads to in m.
func pick(out, m map[string]any, chain []*Attribute) {
	name := chain[0].Name
	v, ok := m[name]
	if !ok || len(chain) == 1 {
		if ok {
			out[name] = v
		}
		return
	}
	switch v := v.(type) {
	case map[string]any:
		into, _ := out[name].(map[string]any)
		if into == nil {
			into = map[string]any{}
		}
		out[name] = into
		pick(into, v, chain[1:])
	case []any:
		into, _ := out[name].([]any)
		for i, x := range v {
			if len(into) <= i {
				into = append(into, map[string]any{})
			}
			pick(into[i].(map[string]any), x.(map[string]any), chain[1:])
		}
		out[name] = into
	}
}

// omit takes out of m what the chain leads to; what lies deeper is copied first.
func omit(m map[string]any, chain []*Attribute) {
	name := chain[0].Name
	if len(chain) == 1 {
		delete(m, name)
		return
	}
	switch v := clone(m[name]).(type) {
	case map[string]any:
		omit(v, chain[1:])
		m[name] = v
	case []any:
		for _, x := range v {
			omit(x.(map[string]any), chain[1:])
		}
		m[name] = v
	}
}

// clone is a deep copy.
func clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, x := range v {
			out[k] = clone(x)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = clone(x)
		}
		return out
	}
	return v
}
