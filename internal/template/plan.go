package template

import (
	"fmt"
	"slices"
	"strings"

	"castellan/internal/arm"
)

// Resource is one resource that a template asks for.
type Resource struct {
	ID         arm.ID
	Type       string
	APIVersion string
	Place      string // where in the template it stands
	Maybe      bool   // its condition is known only at deployment

	symbol   string // its name in a template that names its resources
	loop     string // name of the copy loop that made it
	existing bool   // it is only spoken of
	off      bool   // its condition is false
	tree     map[string]any
	env      env
	after    []*Resource
}

// maxResources is how many resources a template may have; Azure allows no more either.
const maxResources = 800

// Plan is the resources to be deployed, in an order in which each comes after
// all that it depends on. What a condition leaves out is not among them.
func (d *Deployment) Plan() ([]*Resource, error) {
	if d.plan != nil {
		return d.plan, nil
	}
	all, err := d.collect()
	if err != nil {
		return nil, err
	}
	for i, r := range all {
		for _, s := range all[:i] {
			if r.ID.Key() == s.ID.Key() && !r.off && !s.off && !r.existing && !s.existing {
				return nil, within(r.Place, invalid("the template has the resource %s twice, also at %s", r.ID, s.Place))
			}
		}
	}
	for _, r := range all {
		if err := d.link(r, all); err != nil {
			return nil, err
		}
	}
	sortedAll, err := order(all)
	if err != nil {
		return nil, err
	}
	d.all, d.plan = all, []*Resource{}
	for _, r := range sortedAll {
		if !r.off && !r.existing {
			d.plan = append(d.plan, r)
		}
	}
	return d.plan, nil
}

// Spoken are the ids of the resources that are not to be deployed: those that a
// condition leaves out, and those that are only spoken of, as existing.
func (d *Deployment) Spoken() (off, existing []arm.ID) {
	for _, r := range d.all {
		switch {
		case r.existing:
			existing = append(existing, r.ID)
		case r.off:
			off = append(off, r.ID)
		}
	}
	return off, existing
}

// collect is all resources, loops run and children beside their parents.
func (d *Deployment) collect() (all []*Resource, err error) {
	switch list := get(d.tree, "resources").(type) {
	case nil:
	case []any:
		for i, x := range list {
			if all, err = d.expand(all, x, nil, "", fmt.Sprintf("resources[%d]", i)); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for _, k := range sorted(list) {
			if all, err = d.expand(all, list[k], nil, k, "resources."+k); err != nil {
				return nil, err
			}
		}
	default:
		return nil, invalid("resources is %s; it must be an array, or an object of named resources", kind(list))
	}
	return all, nil
}

// expand adds the resources that one entry stands for.
func (d *Deployment) expand(all []*Resource, x any, parent *Resource, symbol, place string) ([]*Resource, error) {
	tree, ok := x.(map[string]any)
	if !ok {
		return nil, within(place, invalid("it is %s; it must be an object", kind(x)))
	}
	e := env{d: d}
	if parent != nil {
		e = parent.env
	}
	loopTree, ok := get(tree, "copy").(map[string]any)
	if !ok {
		return d.one(all, tree, parent, e, symbol, "", place)
	}
	name, ok := get(loopTree, "name").(string)
	if !ok {
		return nil, within(place+".copy", invalid("the copy loop has no name"))
	}
	count, err := e.count(loopTree, place+".copy")
	if err != nil {
		return nil, err
	}
	for n := range count {
		if all, err = d.one(all, tree, parent, e.with(loop{name, int64(n)}), symbol, name, place); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (d *Deployment) one(all []*Resource, tree map[string]any, parent *Resource, e env, symbol, loopName, place string) ([]*Resource, error) {
	if len(all) >= maxResources {
		return nil, invalid("the template has more than %d resources", maxResources)
	}
	r := &Resource{tree: tree, env: e, symbol: symbol, loop: loopName, Place: place}
	r.existing, _ = get(tree, "existing").(bool)
	if parent != nil {
		r.off, r.Maybe = parent.off, parent.Maybe
		r.after = append(r.after, parent)
	}
	if err := r.read(parent); err != nil {
		return nil, err
	}
	all = append(all, r)
	children, _ := get(tree, "resources").([]any)
	var err error
	for i, c := range children {
		if all, err = d.expand(all, c, r, "", fmt.Sprintf("%s.resources[%d]", place, i)); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// read works out what and where the resource is.
func (r *Resource) read(parent *Resource) error {
	if c, ok := lookup(r.tree, "condition"); ok && !r.off {
		on, err := r.env.flag(c, r.Place+".condition")
		switch {
		case Later(err):
			r.Maybe = true
		case err != nil:
			return err
		default:
			r.off = !on
		}
	}
	typ, err := r.text("type", true)
	if err != nil {
		return err
	}
	name, err := r.text("name", true)
	if err != nil {
		return err
	}
	if r.APIVersion, err = r.text("apiVersion", !r.existing && !r.off); err != nil {
		return err
	}
	if parent != nil {
		typ, name = parent.Type+"/"+typ, parent.fullName()+"/"+name
	}
	r.Type = typ
	base, err := r.scope(parent)
	if err != nil {
		return err
	}
	p, err := pairs(typ, strings.Split(name, "/"))
	if err != nil {
		return within(r.Place+".name", err)
	}
	base = strings.TrimSuffix(base, "/")
	if sub, ok := strings.CutPrefix(base, "/subscriptions/"); ok && !strings.Contains(sub, "/") {
		r.ID, err = id(inSubscription(sub, p))
	} else {
		r.ID, err = id(base + p)
	}
	return within(r.Place+".name", err)
}

// fullName is the names of the resource and of those that hold it.
func (r *Resource) fullName() string {
	p := strings.Split(r.ID.String(), "/")
	var names []string
	at := len(p) - 2*(strings.Count(r.Type, "/"))
	for i := at + 1; i < len(p); i += 2 {
		names = append(names, p[i])
	}
	return strings.Join(names, "/")
}

// text is a property of the resource that is a string and known from the start.
func (r *Resource) text(field string, must bool) (string, error) {
	x, ok := lookup(r.tree, field)
	if !ok {
		if must {
			return "", within(r.Place, invalid("it has no %s", field))
		}
		return "", nil
	}
	v, err := r.env.value(x, r.Place+"."+field)
	if Later(err) {
		return "", within(r.Place+"."+field, invalid("it uses reference, and must be known before anything is deployed"))
	}
	if err != nil {
		return "", err
	}
	s, ok := v.(string)
	if !ok || s == "" && must {
		return "", within(r.Place+"."+field, invalid("it is %s or empty; it must be a string", kind(v)))
	}
	return s, nil
}

// scope is what the resource lies in: the deployment's group, or where its own
// scope, subscriptionId and resourceGroup say.
func (r *Resource) scope(parent *Resource) (string, error) {
	s := r.env.d.scope
	if parent != nil {
		p := parent.ID.String()
		return p[:strings.LastIndex(strings.ToLower(p), "/providers/")], nil
	}
	own, err := r.text("scope", false)
	if err != nil {
		return "", err
	}
	if own != "" {
		if !strings.HasPrefix(own, "/") {
			return r.relative(own)
		}
		_, err := id(own)
		return own, within(r.Place+".scope", err)
	}
	sub, err := r.text("subscriptionId", false)
	if err != nil {
		return "", err
	}
	group, err := r.text("resourceGroup", false)
	if err != nil {
		return "", err
	}
	at := *s
	if sub != "" {
		at.Subscription, at.Group = sub, ""
	}
	if group != "" {
		at.Group = group
	}
	if at.Group != "" && at.Subscription == "" {
		return "", within(r.Place+".resourceGroup", invalid("it must stand with a subscriptionId, since the template is not deployed to a subscription"))
	}
	return at.base(), nil
}

// relative is a scope given as TYPE/NAME at what the template is deployed to;
// management groups lie in the tenant.
func (r *Resource) relative(scope string) (string, error) {
	parts := strings.Split(scope, "/")
	if len(parts) < 3 || len(parts)%2 == 0 {
		return "", within(r.Place+".scope", invalid("it must be a resource id, or a type with its name"))
	}
	out := r.env.d.scope.base() + "/providers/" + parts[0]
	if strings.EqualFold(parts[0]+"/"+parts[1], "Microsoft.Management/managementGroups") {
		out = "/providers/" + parts[0]
	}
	for _, p := range parts[1:] {
		out += "/" + p
	}
	_, err := id(out)
	return out, within(r.Place+".scope", err)
}

// link finds what r must wait for: what it says itself, and what it refers to.
func (d *Deployment) link(r *Resource, all []*Resource) error {
	list := []any{}
	switch x := get(r.tree, "dependsOn").(type) {
	case nil:
	case []any:
		list = x
	default:
		return within(r.Place+".dependsOn", invalid("it is %s; it must be an array", kind(x)))
	}
	for i, x := range list {
		at := fmt.Sprintf("%s.dependsOn[%d]", r.Place, i)
		v, err := r.env.value(x, at)
		if err != nil && r.off {
			continue
		}
		if Later(err) {
			return within(at, invalid("it uses reference, and must be known before anything is deployed"))
		}
		if err != nil {
			return err
		}
		name, ok := v.(string)
		if !ok {
			return within(at, invalid("it is %s; it must be a resource's id, name or loop", kind(v)))
		}
		found := match(all, name)
		if len(found) == 0 && !r.off {
			return within(at, invalid("the resource %q is not defined in the template", name))
		}
		r.wait(found)
	}
	for k, x := range r.tree {
		if !strings.EqualFold(k, "resources") { // children wait for themselves
			d.referred(r, x, all)
		}
	}
	return nil
}

func (r *Resource) wait(others []*Resource) {
	for _, x := range others {
		if x != r && !slices.Contains(r.after, x) {
			r.after = append(r.after, x)
		}
	}
}

// match is the resources that a dependency means: by symbol, loop, id, type and
// name, or name.
func match(all []*Resource, name string) (out []*Resource) {
	for _, r := range all {
		short := r.ID.String()
		full := r.Type + "/" + r.fullName()
		if strings.EqualFold(r.ID.Key(), strings.TrimSuffix(name, "/")) || r.symbol != "" && r.symbol == name || r.loop != "" && strings.EqualFold(r.loop, name) ||
			strings.EqualFold(full, name) || strings.EqualFold(short[strings.LastIndexByte(short, '/')+1:], name) || strings.EqualFold(r.fullName(), name) || pairedName(r, name) {
			out = append(out, r)
		}
	}
	return out
}

// pairedName reports whether name is the resource's id from its namespace on.
func pairedName(r *Resource, name string) bool {
	key := r.ID.Key()
	return key[strings.LastIndex(key, "/providers/")+len("/providers/"):] == strings.ToLower(name)
}

// referred makes r wait for the resources that its expressions refer to, as far
// as what they refer to is known already. Nested templates of their own wait
// with the resource that holds them.
func (d *Deployment) referred(r *Resource, tree any, all []*Resource) {
	switch v := tree.(type) {
	case map[string]any:
		for _, x := range v {
			d.referred(r, x, all)
		}
	case []any:
		for _, x := range v {
			d.referred(r, x, all)
		}
	case string:
		inner, _, ok := isExpression(v)
		if !ok || !strings.Contains(strings.ToLower(inner), "reference") {
			return
		}
		n, err := d.parse(inner)
		if err != nil {
			return // it is reported when the resource is worked out
		}
		n.each(func(c *node) {
			if c.call != "reference" || len(c.args) == 0 {
				return
			}
			if v, err := r.env.eval(c.args[0]); err == nil {
				if s, ok := v.(string); ok {
					r.wait(match(all, s))
				}
			}
		})
	}
}

// order sorts so that nothing comes before what it waits for; else as written.
func order(all []*Resource) (out []*Resource, err error) {
	const busy, done = 1, 2
	state := map[*Resource]int{}
	var visit func(r *Resource) error
	visit = func(r *Resource) error {
		switch state[r] {
		case done:
			return nil
		case busy:
			return within(r.Place, invalid("the resource %s depends on itself, over its dependencies", r.ID))
		}
		state[r] = busy
		for _, x := range r.after {
			if err := visit(x); err != nil {
				return err
			}
		}
		state[r] = done
		out = append(out, r)
		return nil
	}
	for _, r := range all {
		if err := visit(r); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// resolve makes the id that a reference means, and the version to ask with.
func (d *Deployment) resolve(name, version string) (string, string) {
	found := match(d.all, name)
	if len(found) == 0 {
		return name, version
	}
	if version == "" {
		version = found[0].APIVersion
	}
	return found[0].ID.String(), version
}
