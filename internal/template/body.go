package template

import (
	"fmt"
	"strings"
)

// aside are the properties of a resource in a template that are not the
// resource's own.
const aside = " type name apiversion condition dependson copy scope comments existing import subscriptionid resourcegroup resources metadata options assert "

// On reports whether the resource is to be deployed, once all before it are.
func (r *Resource) On() (bool, error) {
	c, ok := lookup(r.tree, "condition")
	if !ok || !r.Maybe {
		return true, nil
	}
	return r.env.flag(c, r.Place+".condition")
}

// IsDeployment reports whether the resource is a deployment of its own.
func (r *Resource) IsDeployment() bool {
	return strings.EqualFold(r.Type, "Microsoft.Resources/deployments")
}

// Body is what to put for the resource. Before anything is deployed it may
// fail with an error that Later knows.
func (r *Resource) Body() (map[string]any, error) {
	out := map[string]any{}
	for k, x := range r.tree {
		if strings.Contains(aside, " "+strings.ToLower(k)+" ") {
			continue
		}
		if r.IsDeployment() && strings.EqualFold(k, "properties") {
			v, err := r.nested(x)
			if err != nil {
				return nil, err
			}
			out[k] = v
			continue
		}
		v, err := r.env.value(x, r.Place+"."+k)
		if err != nil {
			return nil, err
		}
		out[k] = v
	}
	return out, r.env.size(out)
}

// Known is Body as far as it is known before anything is deployed: what is not
// stays as its expression.
func (r *Resource) Known() (map[string]any, error) {
	known := *r
	known.env.rest = true
	return known.Body()
}

// Types are the types of the resources in a deployment within the template that is
// not known yet: those that are written out and that no condition leaves out.
func (r *Resource) Types() []string {
	props, _ := get(r.tree, "properties").(map[string]any)
	return typesIn(get(props, "template"), "", nil)
}

func typesIn(tree any, parent string, out []string) []string {
	t, _ := tree.(map[string]any)
	list, _ := get(t, "resources").([]any)
	for _, x := range list {
		m, _ := x.(map[string]any)
		typ, ok := get(m, "type").(string)
		if !ok || strings.HasPrefix(typ, "[") || get(m, "condition") != nil || get(m, "copy") != nil {
			continue
		}
		out = typesIn(m, parent+typ+"/", append(out, parent+typ))
		props, _ := get(m, "properties").(map[string]any)
		out = typesIn(get(props, "template"), "", out)
	}
	return out
}

// nested is the properties of a deployment within the template. Its template is
// its own matter if its scope is inner; else the expressions in it are ours, and
// it gets a template without any.
func (r *Resource) nested(x any) (map[string]any, error) {
	at := r.Place + ".properties"
	props, ok := x.(map[string]any)
	if !ok {
		return nil, within(at, invalid("it is %s; it must be an object", kind(x)))
	}
	inner := false
	if o, ok := get(props, "expressionEvaluationOptions").(map[string]any); ok {
		s, _ := get(o, "scope").(string)
		inner = strings.EqualFold(s, "inner")
	}
	out := map[string]any{}
	for k, v := range props {
		var err error
		switch {
		case strings.EqualFold(k, "expressionEvaluationOptions"):
		case strings.EqualFold(k, "template") && inner:
			out[k] = v
			continue
		case strings.EqualFold(k, "template"):
			v, err = r.outer(v, at+".template")
		case strings.EqualFold(k, "parameters") && !inner:
			continue // the parent's parameters count
		default:
			v, err = r.env.value(v, at+"."+k)
		}
		if err != nil {
			return nil, err
		}
		out[k] = v
	}
	return out, nil
}

// outer works out a nested template with what the parent knows: loops are run,
// conditions decided, and every text that looks like an expression is made one
// that stands for itself.
func (r *Resource) outer(x any, place string) (any, error) {
	t, ok := x.(map[string]any)
	if !ok {
		return nil, within(place, invalid("it is %s; it must be an object", kind(x)))
	}
	list, ok := get(t, "resources").([]any)
	if !ok {
		return nil, within(place, invalid("its resources must be an array"))
	}
	resources := []any{}
	for i, y := range list {
		more, err := r.outerResource(y, fmt.Sprintf("%s.resources[%d]", place, i))
		if err != nil {
			return nil, err
		}
		resources = append(resources, more...)
	}
	out := map[string]any{"$schema": get(t, "$schema"), "contentVersion": get(t, "contentVersion"), "resources": resources}
	if o, ok := lookup(t, "outputs"); ok {
		v, err := r.env.value(o, place+".outputs")
		if err != nil {
			return nil, err
		}
		out["outputs"] = literal(v)
	}
	return out, nil
}

func (r *Resource) outerResource(y any, place string) ([]any, error) {
	m, ok := y.(map[string]any)
	if !ok {
		return nil, within(place, invalid("it is %s; it must be an object", kind(y)))
	}
	envs := []env{r.env}
	if l, ok := get(m, "copy").(map[string]any); ok {
		name, _ := get(l, "name").(string)
		n, err := r.env.count(l, place+".copy")
		if err != nil {
			return nil, err
		}
		envs = nil
		for i := range n {
			envs = append(envs, r.env.with(loop{name, int64(i)}))
		}
	}
	out := []any{}
	for _, e := range envs {
		v, err := r.outerOne(e, m, place)
		if err != nil {
			return nil, err
		}
		if v != nil {
			out = append(out, v)
		}
	}
	return out, nil
}

func (r *Resource) outerOne(e env, m map[string]any, place string) (any, error) {
	if c, ok := lookup(m, "condition"); ok {
		on, err := e.flag(c, place+".condition")
		if err != nil || !on {
			return nil, err
		}
	}
	deeper := &Resource{tree: m, env: e, Place: place, Type: fmt.Sprint(get(m, "type"))}
	one := map[string]any{}
	for k, x := range m {
		switch strings.ToLower(k) {
		case "condition", "copy":
			continue
		case "properties":
			if deeper.IsDeployment() {
				v, err := deeper.nested(x)
				if err != nil {
					return nil, err
				}
				one[k] = literalBut(v, "template") // which is worked out already, or not ours
				continue
			}
		}
		v, err := e.value(x, place+"."+k)
		if err != nil {
			return nil, err
		}
		one[k] = literal(v)
	}
	return one, nil
}

// literalBut is literal for all properties but one.
func literalBut(m map[string]any, name string) any {
	out := make(map[string]any, len(m))
	for k, v := range m {
		if out[k] = v; !strings.EqualFold(k, name) {
			out[k] = literal(v)
		}
	}
	return out
}

// literal makes text that looks like an expression stand for itself.
func literal(v any) any {
	switch x := v.(type) {
	case string:
		if strings.HasPrefix(x, "[") {
			return "[" + x
		}
	case []any:
		out := make([]any, len(x))
		for i := range x {
			out[i] = literal(x[i])
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(x))
		for k := range x {
			out[literal(k).(string)] = literal(x[k])
		}
		return out
	}
	return v
}
