package scim

import (
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"

	"castellan/internal/arm"

	parse "github.com/scim2/filter-parser/v2"
)

// maxOperations is how many changes one request may have.
const maxOperations = 1000

func codeOf(err error) (arm.Code, string) {
	var e *arm.Error
	if errors.As(err, &e) {
		return e.Code, e.Message
	}
	return InvalidValue, "it is not valid."
}

// target is what a path means: the attributes that it leads through, and which
// values of one of them.
type target struct {
	chain  []*Attribute
	at     int // the filter is behind chain[at]
	filter Filter
	equal  map[string]any // what the filter wants to be equal, for a value that isn't there yet
}

// path reads a path (RFC 7644, figure 7).
func (t *Type) path(s string) (target, error) {
	for i := range t.all {
		if strings.Contains(s, ":") && fold(t.all[i].Name) == fold(s) {
			return target{chain: []*Attribute{&t.all[i]}}, nil // an extension as a whole
		}
	}
	if err := checkSize(s); err != nil {
		return target{}, &arm.Error{Code: InvalidPath, Message: "The path is too large: " + err.Error()}
	}
	p, err := parse.ParsePath([]byte(s))
	if err != nil {
		return target{}, arm.Errorf(InvalidPath, "The path %q can't be read; write ATTRIBUTE, ATTRIBUTE.SUB, or ATTRIBUTE[FILTER].SUB.", clip(s))
	}
	if fold(p.AttributePath.AttributeName) == "password" {
		return target{}, errPassword
	}
	chain, err := t.chain(strings.TrimSuffix(p.AttributePath.URI(), ":"), p.AttributePath.AttributeName, p.AttributePath.SubAttributeName())
	if err != nil {
		return target{}, err
	}
	out := target{chain: chain, at: len(chain) - 1}
	if p.ValueExpression == nil {
		return out, nil
	}
	last := chain[out.at]
	if !last.Multi {
		return target{}, arm.Errorf(InvalidPath, "The attribute %s has one value, and takes no filter.", last.Name)
	}
	if out.filter, err = (scope{t: t, in: chain}).compile(p.ValueExpression); err != nil {
		return target{}, err
	}
	out.equal = map[string]any{}
	equals(p.ValueExpression, last, out.equal)
	if sub := p.SubAttributeName(); sub != "" {
		a := lookup(last.Sub, sub)
		if a == nil {
			return target{}, arm.Errorf(InvalidPath, "The attribute %s has no %q; it has %s.", last.Name, clip(sub), names(last.Sub))
		}
		out.chain = append(out.chain, a)
	}
	return out, nil
}

// equals collects what an expression of "eq" and "and" says that a value is.
func equals(e parse.Expression, of *Attribute, into map[string]any) {
	switch e := e.(type) {
	case *parse.LogicalExpression:
		if e.Operator == parse.AND {
			equals(e.Left, of, into)
			equals(e.Right, of, into)
		}
	case *parse.AttributeExpression:
		a := lookup(of.Sub, e.AttributePath.AttributeName)
		if a != nil && e.Operator == parse.EQ {
			if v, err := a.clean("", e.CompareValue); err == nil && v != nil {
				into[a.Name] = v
			}
		}
	}
}

// Patch is the resource as the changes of a client make it (RFC 7644, 3.5.2),
// all of them or none. Operations may be in any letter case.
func (t *Type) Patch(m map[string]any, body any) (map[string]any, error) {
	var b struct {
		Schemas    []string `json:"schemas"`
		Operations []struct {
			Op    string `json:"op"`
			Path  string `json:"path"`
			Name  string `json:"name"` // Entra's note to itself
			Value any    `json:"value"`
		} `json:"Operations"`
	}
	if err := arm.DecodeTree(body, &b); err != nil {
		_, message := codeOf(err)
		return nil, &arm.Error{Code: InvalidSyntax, Message: message}
	}
	if !slices.ContainsFunc(b.Schemas, func(s string) bool { return fold(s) == fold(PatchURN) }) {
		return nil, arm.Errorf(InvalidSyntax, "The attribute schemas must name %s.", PatchURN)
	}
	if len(b.Operations) == 0 || len(b.Operations) > maxOperations {
		return nil, arm.Errorf(InvalidSyntax, "There are %d Operations; there must be from 1 to %d.", len(b.Operations), maxOperations)
	}
	out := clone(m).(map[string]any)
	for _, o := range b.Operations {
		op := fold(o.Op)
		if op != "add" && op != "replace" && op != "remove" {
			return nil, arm.Errorf(InvalidSyntax, "The op is %q; it must be add, replace or remove.", clip(o.Op))
		}
		var err error
		switch {
		case o.Path != "":
			err = t.apply(op, out, o.Path, o.Value)
		case op == "remove":
			err = arm.Errorf(NoTarget, "To remove something give its path.")
		default:
			err = t.applyAll(op, out, o.Value)
		}
		if err != nil {
			return nil, err
		}
	}
	return out, t.Check(out)
}

// applyAll is an operation without a path: its value has an attribute, or a
// path, for each change. What it says of read-only attributes must be so.
func (t *Type) applyAll(op string, m map[string]any, value any) error {
	all, ok := value.(map[string]any)
	if !ok {
		return arm.Errorf(InvalidSyntax, "Without a path the value of an operation must be a JSON object.")
	}
	seen := map[string]string{}
	for _, k := range slices.Sorted(maps.Keys(all)) {
		p, err := t.path(k)
		if err != nil {
			return err
		}
		id := p.name()
		if other, twice := seen[id]; twice && p.filter == nil {
			return arm.Errorf(InvalidValue, "The value says %q and %q, which are one attribute.", clip(other), clip(k))
		}
		seen[id] = k
		if len(p.chain) == 1 && (p.chain[0].Name == "schemas" || p.chain[0].Mutability == "readOnly" && (p.chain[0].Type == "complex" || all[k] == m[p.chain[0].Name])) {
			continue
		}
		if err := p.change(op, m, p.chain, p.at, all[k]); err != nil {
			return err
		}
	}
	return nil
}

func (p target) name() string {
	s := ""
	for _, a := range p.chain {
		s += "/" + a.Name
	}
	return s
}

func (t *Type) apply(op string, m map[string]any, path string, value any) error {
	p, err := t.path(path)
	if err != nil {
		return err
	}
	return p.change(op, m, p.chain, p.at, value)
}

// change carries out one operation on what the chain leads to from m.
func (p target) change(op string, m map[string]any, chain []*Attribute, at int, value any) error {
	a := chain[0]
	if a.Mutability == "readOnly" || a.Name == "schemas" {
		return arm.Errorf(Mutability, "The attribute %s is read-only.", a.Name)
	}
	before := primaries(m[a.Name])
	var err error
	switch {
	case a.Multi && (len(chain) > 1 || at == 0 && p.filter != nil):
		err = p.changeValues(op, m, chain, value)
	case len(chain) > 1:
		err = p.changeInside(op, m, chain, at, value)
	case op == "remove":
		err = a.remove(m, value)
	default:
		err = a.set(op, m, value)
	}
	if err == nil && len(primaries(m[a.Name])) > 1 { // the new one is it (RFC 7644, 3.5.2)
		for _, x := range before {
			x["primary"] = false
		}
	}
	return err
}

func primaries(v any) (out []map[string]any) {
	list, _ := v.([]any)
	for _, x := range list {
		if m, ok := x.(map[string]any); ok && m["primary"] == true {
			out = append(out, m)
		}
	}
	return out
}

// changeInside goes on inside of a complex attribute.
func (p target) changeInside(op string, m map[string]any, chain []*Attribute, at int, value any) error {
	a := chain[0]
	in, _ := m[a.Name].(map[string]any)
	if in == nil {
		if op == "remove" {
			return nil
		}
		in = map[string]any{}
	}
	if err := p.change(op, in, chain[1:], at-1, value); err != nil {
		return err
	}
	if m[a.Name] = in; len(in) == 0 {
		delete(m, a.Name)
	}
	return nil
}

// changeValues changes those values of a list that the filter means; without
// one, all.
func (p target) changeValues(op string, m map[string]any, chain []*Attribute, value any) error {
	a := chain[0]
	list, _ := m[a.Name].([]any)
	var out []any
	hit := false
	for _, x := range list {
		x, ok := x.(map[string]any)
		if !ok || p.filter != nil && !p.filter(x) {
			out = append(out, x)
			continue
		}
		hit = true
		if op == "remove" && len(chain) == 1 {
			continue
		}
		if err := a.changeValue(op, x, chain[1:], value); err != nil {
			return err
		}
		if len(x) > 0 {
			out = append(out, x)
		}
	}
	if !hit {
		if op != "add" || len(p.equal) == 0 {
			return arm.Errorf(NoTarget, "No value of the attribute %s is as the path says.", a.Name)
		}
		x := clone(p.equal).(map[string]any)
		if err := a.changeValue("new", x, chain[1:], value); err != nil {
			return err
		}
		out = append(out, x)
	}
	if m[a.Name] = out; len(out) == 0 {
		delete(m, a.Name)
	}
	return nil
}

// changeValue changes one value of a list, or one attribute of it.
func (a *Attribute) changeValue(op string, x map[string]any, rest []*Attribute, value any) error {
	if len(rest) == 0 {
		one := *a
		one.Multi = false
		v, err := one.clean("", value)
		if err != nil {
			return err
		}
		with, _ := v.(map[string]any)
		for k, v := range with {
			if s := lookup(a.Sub, k); s.Mutability == "immutable" && op != "new" && !reflect.DeepEqual(x[k], v) {
				return arm.Errorf(Mutability, "The attribute %s.%s can't be changed; remove the value and add another.", a.Name, k)
			}
			x[k] = v
		}
		return nil
	}
	if rest[0].Mutability != "readWrite" && op != "new" {
		return arm.Errorf(Mutability, "The attribute %s.%s can't be changed.", a.Name, rest[0].Name)
	}
	if op == "remove" {
		delete(x, rest[0].Name)
		return nil
	}
	return rest[0].set(op, x, value)
}

// remove takes an attribute out of m; of a list, the values that are given
// (Entra's dialect), or all.
func (a *Attribute) remove(m map[string]any, value any) error {
	if a.Required {
		return arm.Errorf(Mutability, "The attribute %s can't be removed.", a.Name)
	}
	gone, err := a.clean("", value)
	if err != nil {
		return err
	}
	list, _ := m[a.Name].([]any)
	if gone == nil || !a.Multi {
		delete(m, a.Name)
		return nil
	}
	drop := map[string]bool{}
	for _, x := range gone.([]any) {
		drop[a.key(x)] = true
	}
	list = slices.DeleteFunc(list, func(x any) bool { return drop[a.key(x)] })
	if m[a.Name] = list; len(list) == 0 {
		delete(m, a.Name)
	}
	return nil
}

// key is by what the values of a list are told apart: members by their ids,
// others by value and type, or as a whole.
func (a *Attribute) key(x any) string {
	m, _ := x.(map[string]any)
	v, _ := m["value"].(string)
	kind, _ := m["type"].(string)
	switch id := lookup(a.Sub, "value"); {
	case v == "":
		b, _ := json.Marshal(x) // of what was JSON
		return string(b)
	case id.Mutability == "immutable":
		return fold(v)
	}
	return kind + "|" + v
}

// set adds to an attribute or replaces it.
func (a *Attribute) set(op string, m map[string]any, value any) error {
	v, err := a.clean("", value)
	if err != nil {
		return err
	}
	switch old := m[a.Name].(type) {
	case map[string]any:
		with, ok := v.(map[string]any)
		if !ok {
			break
		}
		for k, x := range with { // what isn't said stays (RFC 7644, 3.5.2.3)
			old[k] = x
		}
		return nil
	case []any:
		if op == "replace" {
			break
		}
		with, _ := v.([]any)
		have := map[string]int{}
		for i, x := range old {
			have[a.key(x)] = i + 1
		}
		for _, x := range with {
			if at := have[a.key(x)]; at > 0 {
				old[at-1] = x
				continue
			}
			old = append(old, x)
			have[a.key(x)] = len(old)
		}
		if len(old) > maxValues {
			return arm.Errorf(TooMany, "The attribute %s would have %d values; it may have %d.", a.Name, len(old), maxValues)
		}
		m[a.Name] = old
		return nil
	}
	if v == nil {
		if a.Required {
			return arm.Errorf(InvalidValue, "The attribute %s needs a value.", a.Name)
		}
		delete(m, a.Name)
		return nil
	}
	m[a.Name] = v
	return nil
}
