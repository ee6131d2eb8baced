package template

import (
	"encoding/json"
	"fmt"
	"strings"
)

// param is a parameter with its value.
type param struct {
	name  string
	typ   string
	value *lazy
}

func isSecure(typ string) bool { return strings.HasPrefix(strings.ToLower(typ), "secure") }

// readParameters matches what was sent with what the template asks for.
func (d *Deployment) readParameters(sent map[string]any) error {
	defs, err := d.section("parameters")
	if err != nil {
		return err
	}
	for k := range sent {
		if _, ok := lookup(defs, k); !ok {
			return invalid("there is a value for the parameter %q, which the template does not have; it has: %s", k, strings.Join(sorted(defs), ", "))
		}
	}
	for _, name := range sorted(defs) {
		def, ok := defs[name].(map[string]any)
		typ, typed := get(def, "type").(string)
		if !ok || !typed {
			return invalid("parameters.%s must be an object with a type", name)
		}
		p := &param{name: name, typ: typ}
		if p.value, err = d.given(name, def, sent); err != nil {
			return err
		}
		d.params[strings.ToLower(name)] = p
	}
	for _, name := range sorted(defs) {
		if err := d.checkParameter(d.params[strings.ToLower(name)], defs[name].(map[string]any)); err != nil {
			return within("parameters."+name, err)
		}
	}
	return nil
}

// given is where a parameter's value comes from. A value of null is no value.
func (d *Deployment) given(name string, def, sent map[string]any) (*lazy, error) {
	place := "parameters." + name
	if x, ok := lookup(sent, name); ok && x != nil {
		m, ok := x.(map[string]any)
		if !ok {
			return nil, invalid(`the parameter %q is %s; it must be an object {"value": ...}`, name, kind(x))
		}
		if _, ref := lookup(m, "reference"); ref {
			return nil, invalid("the parameter %q is a reference to a key vault, which is not supported; send its value", name)
		}
		if v := get(m, "value"); v != nil {
			return &lazy{place: place, done: true, value: Whole(clone(v))}, nil
		}
	}
	if v, ok := lookup(def, "defaultValue"); ok {
		return &lazy{place: place + ".defaultValue", from: v}, nil
	}
	if nullable, _ := get(def, "nullable").(bool); nullable {
		return &lazy{place: place, done: true}, nil
	}
	return nil, invalid("the parameter %q has no value: the template has no default for it, so the request must give one", name)
}

func clone(v any) any {
	switch x := v.(type) {
	case []any:
		out := make([]any, len(x))
		for i := range x {
			out[i] = clone(x[i])
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(x))
		for k := range x {
			out[k] = clone(x[k])
		}
		return out
	}
	return v
}

func (d *Deployment) parameter(name string) (any, error) {
	p, ok := d.params[strings.ToLower(name)]
	if !ok {
		return nil, invalid("the template has no parameter %q", name)
	}
	if p.value.done {
		return p.value.value, p.value.err
	}
	was, of := d.defaults, d.defaulting
	d.defaults, d.defaulting = true, p.name
	defer func() { d.defaults, d.defaulting = was, of }()
	d.guids = 0
	return d.force(p.value)
}

// checkParameter holds a value against its type and limits.
func (d *Deployment) checkParameter(p *param, def map[string]any) error {
	v, err := d.parameter(p.name)
	if Later(err) {
		return invalid("its default value uses reference, which a parameter can't")
	}
	if err != nil {
		return err
	}
	if v == nil {
		if _, has := lookup(def, "defaultValue"); has {
			return nil
		}
		if nullable, _ := get(def, "nullable").(bool); nullable {
			return nil
		}
	}
	if v, err = fit(p.typ, v); err != nil {
		return err
	}
	p.value.value = v
	if allowed, ok := get(def, "allowedValues").([]any); ok && !d.allows(allowed, v) {
		return invalid("its value is not one of those that the template allows%s", listed(p.typ, allowed))
	}
	return limits(def, v)
}

// listed names the allowed values, unless they could be secrets.
func listed(typ string, allowed []any) string {
	b, err := json.Marshal(allowed)
	if err != nil || isSecure(typ) {
		return ""
	}
	return ": " + string(b)
}

// allows compares text without regard to case, as Azure does.
func (d *Deployment) allows(allowed []any, v any) bool {
	list, isList := v.([]any)
	for _, a := range allowed {
		s, ok := a.(string)
		t, is := v.(string)
		if ok && is && strings.EqualFold(s, t) {
			return true
		}
		if eq, err := (env{d: d}).same(Whole(clone(a)), v); eq && err == nil {
			return true
		}
	}
	if !isList {
		return false
	}
	for _, x := range list { // an array may be made of allowed values
		if !d.allows(allowed, x) {
			return false
		}
	}
	return true
}

// fit is v as a value of the type.
func fit(typ string, v any) (any, error) {
	ok := false
	switch strings.ToLower(typ) {
	case "string", "securestring":
		_, ok = v.(string)
	case "int":
		_, ok = v.(int64)
	case "bool":
		_, ok = v.(bool)
	case "array":
		_, ok = v.([]any)
	case "object", "secureobject":
		_, ok = v.(map[string]any)
	default:
		return nil, invalid("the type is %q; it must be string, securestring, int, bool, object, secureObject or array", typ)
	}
	if !ok {
		return nil, invalid("its value is %s; it must be of the type %s", kind(v), typ)
	}
	return v, nil
}

// limits holds v against minValue, maxValue, minLength and maxLength.
func limits(def map[string]any, v any) error {
	n, what := int64(0), ""
	switch x := v.(type) {
	case int64:
		n, what = x, "Value"
	case string, []any:
		size, err := length(x)
		if err != nil {
			return err
		}
		n, what = int64(size), "Length"
	default:
		return nil
	}
	if least, ok := bound(def, "min"+what); ok && n < least {
		return invalid("its %s is below the template's min%s, %d", strings.ToLower(what), what, least)
	}
	if most, ok := bound(def, "max"+what); ok && n > most {
		return invalid("its %s is above the template's max%s, %d", strings.ToLower(what), what, most)
	}
	return nil
}

func bound(def map[string]any, name string) (int64, bool) {
	n, ok := get(def, name).(json.Number)
	if !ok {
		return 0, false
	}
	i, err := n.Int64()
	return i, err == nil
}

// Parameters are the parameters with their values, as they may be shown: a
// secure one without.
func (d *Deployment) Parameters() map[string]any {
	out := map[string]any{}
	for _, p := range d.params {
		show := map[string]any{"type": p.typ}
		if !isSecure(p.typ) {
			show["value"] = p.value.value
		}
		out[p.name] = show
	}
	return out
}

// Secrets are all texts in the values of secure parameters, of a length that a
// secret may have, so that they can be kept out of what others say.
func (d *Deployment) Secrets() (out []string) {
	var walk func(any)
	walk = func(v any) {
		switch x := v.(type) {
		case string:
			if len(x) >= 4 {
				out = append(out, x)
			}
		case int64:
			if s := fmt.Sprint(x); len(s) >= 4 {
				out = append(out, s)
			}
		case []any:
			for _, y := range x {
				walk(y)
			}
		case map[string]any:
			for _, y := range x {
				walk(y)
			}
		}
	}
	for _, p := range d.params {
		if isSecure(p.typ) {
			walk(p.value.value)
		}
	}
	return out
}
