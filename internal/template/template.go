// Package template works out resource templates: parameters, variables and
// expressions, which resources there are to be and in which order. It is pure:
// what resources are like now it asks of its caller.
package template

import (
	"fmt"
	"sort"
	"strings"
	"time"

	"castellan/internal/arm"
)

// Scope is what expressions may know of where and when they are deployed.
type Scope struct {
	Tenant           string
	Subscription     string // its id; "" above subscriptions
	SubscriptionName string
	Group            string // name of the resource group; "" above groups
	GroupLocation    string
	GroupTags        map[string]string
	Deployment       string         // name of the deployment
	Mode             string         // of the deployment
	ManagementGroup  string         // its name, of a deployment to one
	Location         string         // of the deployment, at scopes that are no groups
	Environment      map[string]any // what environment() gives
	Now              time.Time      // what utcNow() gives
	Seed             string         // what newGuid() is made of; another one for every deployment

	// Reference is the state of a resource: all of it if full, else its
	// properties. It is nil as long as nothing is deployed.
	Reference func(id, apiVersion string, full bool) (any, error)
}

// Deployment is a template with parameters at a place. It is not safe for
// concurrent use.
type Deployment struct {
	tree  map[string]any
	scope *Scope

	params map[string]*param // by name in lower case
	vars   map[string]*lazy
	own    map[string]map[string]any // functions of the template's own, by namespace.name

	parsed     map[string]*node
	spent      struct{ steps, bytes int }
	defaults   bool   // a default value is being worked out
	defaulting string // of which parameter
	guids      int
	all, plan  []*Resource
}

// lazy is a value worked out when it is first asked for.
type lazy struct {
	from  any
	place string
	busy  bool
	done  bool
	value any
	err   error
}

// top is what a template may have at its top.
const top = " $schema contentversion apiprofile languageversion metadata parameters variables functions resources outputs definitions "

// New reads a template with the parameters of a request, each {"value": ...}.
// Everything about parameters is checked before it returns.
func New(tree any, params map[string]any, s Scope) (*Deployment, error) {
	m, ok := tree.(map[string]any)
	if !ok {
		return nil, invalid("the template is %s; it must be an object", kind(tree))
	}
	for k := range m {
		if !strings.Contains(top, " "+strings.ToLower(k)+" ") {
			return nil, invalid("the template has %q at its top, where only these may stand:%s", k, strings.TrimRight(top, " "))
		}
	}
	d := &Deployment{tree: m, scope: &s, params: map[string]*param{}, vars: map[string]*lazy{}, own: map[string]map[string]any{}, parsed: map[string]*node{}}
	if err := d.readVariables(); err != nil {
		return nil, err
	}
	if err := d.readFunctions(); err != nil {
		return nil, err
	}
	return d, d.readParameters(params)
}

// At sets where the state of resources is asked for.
func (d *Deployment) At(reference func(id, apiVersion string, full bool) (any, error)) {
	d.scope.Reference = reference
}

// maxExpressions is how many different expressions are kept parsed.
const maxExpressions = 20_000

func (d *Deployment) parse(s string) (*node, error) {
	if n, ok := d.parsed[s]; ok {
		return n, nil
	}
	n, err := parse(s)
	if err == nil && len(d.parsed) < maxExpressions {
		d.parsed[s] = n
	}
	return n, err
}

// section is an object at the template's top, empty if it is not there.
func (d *Deployment) section(name string) (map[string]any, error) {
	v := get(d.tree, name)
	if v == nil {
		return map[string]any{}, nil
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, invalid("%s is %s; it must be an object", name, kind(v))
	}
	return m, nil
}

func (d *Deployment) readVariables() error {
	vars, err := d.section("variables")
	if err != nil {
		return err
	}
	for k, v := range vars {
		if loops, ok := v.([]any); ok && strings.EqualFold(k, "copy") {
			if err := d.loopVariables(loops); err != nil {
				return err
			}
			continue
		}
		d.vars[strings.ToLower(k)] = &lazy{from: v, place: "variables." + k}
	}
	return nil
}

// loopVariables are the variables that copy loops make.
func (d *Deployment) loopVariables(loops []any) error {
	for i, x := range loops {
		m, ok := x.(map[string]any)
		name, named := get(m, "name").(string)
		if !ok || !named {
			return invalid("variables.copy[%d] must be an object with name, count and input", i)
		}
		d.vars[strings.ToLower(name)] = &lazy{from: repeated{m, name}, place: fmt.Sprintf("variables.copy[%d]", i)}
	}
	return nil
}

// repeated is a value that a copy loop makes.
type repeated struct {
	loop map[string]any
	name string
}

func (d *Deployment) variable(name string) (any, error) {
	v, ok := d.vars[strings.ToLower(name)]
	if !ok {
		return nil, invalid("the template has no variable %q", name)
	}
	return d.force(v)
}

// force works out a lazy value, once.
func (d *Deployment) force(v *lazy) (any, error) {
	if v.done {
		return v.value, v.err
	}
	if v.busy {
		return nil, invalid("%s depends on itself", v.place)
	}
	v.busy = true
	defer func() { v.busy = false }()
	if r, ok := v.from.(repeated); ok {
		list, err := env{d: d}.repeat(r.loop, r.name, v.place)
		v.value, v.err = list, err
	} else {
		v.value, v.err = env{d: d}.value(v.from, v.place)
	}
	v.done = !Later(v.err)
	return v.value, v.err
}

// readFunctions reads the template's own functions.
func (d *Deployment) readFunctions() error {
	list, ok := get(d.tree, "functions").([]any)
	if !ok {
		return nil
	}
	for i, x := range list {
		ns, _ := x.(map[string]any)
		space, named := get(ns, "namespace").(string)
		members, ok := get(ns, "members").(map[string]any)
		if !named || !ok {
			return invalid("functions[%d] must have a namespace and members", i)
		}
		for name, f := range members {
			m, ok := f.(map[string]any)
			if !ok {
				return invalid("functions[%d].members.%s is %s; it must be an object", i, name, kind(f))
			}
			d.own[strings.ToLower(space+"."+name)] = m
		}
	}
	return nil
}

// ownFunction calls a function of the template's own, which sees its
// parameters and nothing else.
func (e env) ownFunction(name string, args []any) (any, error) {
	f, ok := e.d.own[name]
	if !ok {
		return nil, invalid("the template has no function %q of its own", name)
	}
	if e.deep > maxNesting {
		return nil, invalid("the function %q calls itself without an end", name)
	}
	params, _ := get(f, "parameters").([]any)
	if len(params) != len(args) {
		return nil, invalid("the function %q has %d arguments; it must have %d", name, len(args), len(params))
	}
	own := map[string]any{}
	for i, p := range params {
		m, _ := p.(map[string]any)
		n, ok := get(m, "name").(string)
		if !ok {
			return nil, invalid("parameter %d of the function %q has no name", i+1, name)
		}
		own[n] = args[i]
	}
	out, _ := get(f, "output").(map[string]any)
	return env{d: e.d, own: own, deep: e.deep + 1}.value(get(out, "value"), "the output of "+name)
}

// Output is one result of a deployment.
type Output struct {
	Type   string
	Value  any
	Secret bool // its value is shown to nobody
}

// Outputs works out the results, once all resources are deployed.
func (d *Deployment) Outputs() (map[string]Output, error) {
	outs, err := d.section("outputs")
	if err != nil {
		return nil, err
	}
	all := map[string]Output{}
	for _, k := range sorted(outs) {
		o, ok := outs[k].(map[string]any)
		typ, typed := get(o, "type").(string)
		if !ok || !typed {
			return nil, invalid("outputs.%s must be an object with type and value", k)
		}
		if c, has := lookup(o, "condition"); has {
			yes, err := (env{d: d}).flag(c, "outputs."+k+".condition")
			if err != nil {
				return nil, err
			}
			if !yes {
				continue
			}
		}
		v, err := d.output(o, "outputs."+k)
		if err != nil {
			return nil, err
		}
		if v, err = fit(typ, v); err != nil {
			return nil, within("outputs."+k, err)
		}
		if err := (env{d: d}).size(v); err != nil {
			return nil, within("outputs."+k, err)
		}
		all[k] = Output{Type: typ, Value: v, Secret: isSecure(typ)}
	}
	return all, nil
}

func (d *Deployment) output(o map[string]any, place string) (any, error) {
	if loop, ok := get(o, "copy").(map[string]any); ok {
		return anyList(env{d: d}.repeat(loop, "", place+".copy"))
	}
	return env{d: d}.value(get(o, "value"), place+".value")
}

func anyList(v []any, err error) (any, error) { return v, err }

// flag is a condition.
func (e env) flag(tree any, place string) (bool, error) {
	v, err := e.value(tree, place)
	if err != nil {
		return false, err
	}
	switch b := v.(type) {
	case bool:
		return b, nil
	case string:
		if strings.EqualFold(b, "true") || strings.EqualFold(b, "false") {
			return strings.EqualFold(b, "true"), nil
		}
	}
	return false, within(place, invalid("it is %s; it must be a bool", kind(v)))
}

func sorted[T any](m map[string]T) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

// id parses what an expression says is a resource id.
func id(text string) (arm.ID, error) {
	out, err := arm.ParseID(text)
	if err != nil {
		return arm.ID{}, invalid("the name or scope makes no resource id")
	}
	return out, nil
}
