package policy

import (
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"castellan/internal/arm"
)

// Details is what an effect needs to know.
type Details struct {
	// Roles are what the assignment's identity needs, ids of role definitions:
	// of modify and deployIfNotExists.
	Roles []string
	// ConflictEffect is what follows if a change can't be made: audit, deny or
	// disabled.
	ConflictEffect Effect
	// Actions are what denyAction denies, such as delete.
	Actions []string
	// DefaultState is the compliance state of manual.
	DefaultState string
	// Setting is what enforceSetting sets.
	Setting map[string]any
	// Scope and Deployment are those of deployIfNotExists.
	DeploymentScope string
	Deployment      map[string]any
	ExistenceScope  string // resourceGroup or subscription
	// Delay is how long after a change auditIfNotExists and deployIfNotExists look,
	// and After what must have become of the change by then: Success, Failure or "".
	Delay time.Duration
	After string

	operations                   []operation
	typ, name, group             operand
	exists                       condition
	setting, deploymentParameter operand
	delay, location              operand
}

// operation is one change of modify or append.
type operation struct {
	do    string // add, addOrReplace, remove or append
	field operand
	path  path
	value operand
	when  operand // a condition, as an expression; none is always
}

// readDetails reads what stands under then.details. What an effect has no use
// for is passed over, for one definition serves several effects.
func readDetails(e Effect, v any) (d Details, err error) {
	defer func() { err = at("policyRule.then.details", err) }()
	if e == Append {
		return readAppend(v)
	}
	m, ok := v.(map[string]any)
	if !ok && v != nil {
		if list, is := v.([]any); is && e != Modify && len(list) > 0 {
			return d, nil // of another effect that the definition may have
		}
		return d, invalid("they are %s; they must be an object", kindOf(v))
	}
	if d.Roles, err = readTexts(m, "roleDefinitionIds"); err != nil {
		return d, err
	}
	switch e {
	case Modify:
		return d, d.readModify(m)
	case AuditIfNotExists, DeployIfNotExists:
		return d, d.readExists(e, m)
	case DenyAction, AuditAction:
		if d.Actions, err = readTexts(m, "actionNames"); err == nil && len(d.Actions) == 0 {
			err = invalid("%s needs actionNames", e)
		}
		for _, a := range d.Actions {
			if !strings.EqualFold(a, "delete") && err == nil {
				err = invalid("%s knows the action delete only, not %q", e, clip(a))
			}
		}
		return d, err
	case Manual:
		s, _ := lookup(m, "defaultState")
		d.DefaultState, _ = s.(string)
		for _, known := range []string{"Compliant", "NonCompliant", "Unknown"} {
			if strings.EqualFold(known, d.DefaultState) {
				d.DefaultState = known
				return d, nil
			}
		}
		if s != nil {
			err = invalid("defaultState of manual is %v; it must be Compliant, NonCompliant or Unknown", s)
		}
	case EnforceSetting:
		s, has := lookup(m, "setting")
		if !has {
			return d, invalid("enforceSetting needs setting")
		}
		d.setting, err = readOperand(s)
	}
	return d, err
}

func readTexts(m map[string]any, name string) ([]string, error) {
	v, ok := lookup(m, name)
	if !ok || v == nil {
		return nil, nil
	}
	list, ok := v.([]any)
	if !ok {
		return nil, invalid("%s is %s; it must be an array of strings", name, kindOf(v))
	}
	out := make([]string, len(list))
	for i, x := range list {
		if out[i], ok = x.(string); !ok {
			return nil, invalid("%s has %s in it; it must be an array of strings", name, kindOf(x))
		}
	}
	return out, nil
}

func readAppend(v any) (d Details, err error) {
	if m, ok := v.(map[string]any); ok {
		v = []any{m}
	}
	list, ok := v.([]any)
	if !ok || len(list) == 0 {
		return d, invalid("append needs an array of objects with field and value")
	}
	for _, x := range list {
		m, ok := x.(map[string]any)
		if !ok || len(m) != 2 {
			return d, invalid("append needs an array of objects with field and value")
		}
		op, err := readOperation("append", m)
		if err != nil {
			return d, err
		}
		d.operations = append(d.operations, op)
	}
	return d, nil
}

func readOperation(do string, m map[string]any) (op operation, err error) {
	op.do = do
	f, ok := lookup(m, "field")
	if !ok {
		return op, invalid("an operation has no field")
	}
	if op.field, op.path, err = readField(f); err != nil {
		return op, err
	}
	v, has := lookup(m, "value")
	if has == (do == "remove") {
		return op, invalid("the operation %s must have a value unless it removes", do)
	}
	if has {
		op.value, err = readOperand(v)
	}
	return op, err
}

func (d *Details) readModify(m map[string]any) error {
	d.ConflictEffect = Deny
	if v, ok := lookup(m, "conflictEffect"); ok {
		s, _ := v.(string)
		e, err := ParseEffect(s)
		if err != nil || e != Audit && e != Deny && e != Disabled {
			return invalid("conflictEffect must be audit, deny or disabled")
		}
		d.ConflictEffect = e
	}
	v, _ := lookup(m, "operations")
	list, ok := v.([]any)
	if !ok || len(list) == 0 {
		return invalid("modify needs operations, an array of objects")
	}
	for _, x := range list {
		o, ok := x.(map[string]any)
		if !ok {
			return invalid("modify needs operations, an array of objects")
		}
		do := ""
		name, _ := lookup(o, "operation")
		for _, known := range []string{"add", "addOrReplace", "remove"} {
			if sameFold(name, known) {
				do = known
			}
		}
		if do == "" {
			return invalid("an operation of modify must be add, addOrReplace or remove")
		}
		op, err := readOperation(do, o)
		if err != nil {
			return err
		}
		if c, ok := lookup(o, "condition"); ok {
			if op.when, err = readOperand(c); err != nil {
				return err
			}
		}
		if op.field.x == nil && !op.path.changeable() {
			return invalid("the field %q can't be modified", clip(op.path.text))
		}
		d.operations = append(d.operations, op)
	}
	if len(d.Roles) == 0 {
		return invalid("modify needs roleDefinitionIds, for whoever repairs resources that are there already")
	}
	return nil
}

// changeable reports whether a rule may set a field: what names a resource it may not.
func (p path) changeable() bool {
	switch strings.ToLower(p.steps[0].name) {
	case "id", "name", "type", "fullname", "systemdata", "etag", "provisioningstate", "primaryendpoints", "secondaryendpoints":
		return false
	case "kind", "location", "sku", "plan", "zones", "managedby", "extendedlocation":
		return p.typ != ""
	}
	return true
}

func (d *Details) readExists(e Effect, m map[string]any) (err error) {
	for _, f := range []struct {
		name string
		to   *operand
		must bool
	}{{"type", &d.typ, true}, {"name", &d.name, false}, {"resourceGroupName", &d.group, false}} {
		v, ok := lookup(m, f.name)
		if !ok {
			if f.must {
				return invalid("%s needs the type of the resource that must exist", e)
			}
			continue
		}
		if *f.to, err = readOperand(v); err != nil {
			return err
		}
	}
	d.ExistenceScope = "resourceGroup"
	if v, ok := lookup(m, "existenceScope"); ok {
		switch {
		case sameFold(v, "subscription"):
			d.ExistenceScope = "subscription"
		case !sameFold(v, "resourceGroup"):
			return invalid("existenceScope must be resourceGroup or subscription")
		}
	}
	if v, ok := lookup(m, "evaluationDelay"); ok {
		if d.delay, err = readOperand(v); err != nil {
			return err
		}
	}
	if v, ok := lookup(m, "existenceCondition"); ok {
		if d.exists, err = readCondition(v, "policyRule.then.details.existenceCondition", 0); err != nil {
			return err
		}
	}
	if e != DeployIfNotExists {
		return nil
	}
	if len(d.Roles) == 0 {
		return invalid("deployIfNotExists needs roleDefinitionIds, for whoever deploys")
	}
	d.DeploymentScope = "resourceGroup"
	v, _ := lookup(m, "deployment")
	dep, _ := v.(map[string]any)
	at, there := lookup(dep, "location")
	if v, ok := lookup(m, "deploymentScope"); ok {
		switch {
		case sameFold(v, "subscription"):
			d.DeploymentScope = "subscription"
		case !sameFold(v, "resourceGroup"):
			return invalid("deploymentScope must be resourceGroup or subscription")
		}
	}
	if d.DeploymentScope == "subscription" && !there {
		return invalid("a deployment at the scope of a subscription needs a location beside its properties")
	}
	if d.location, err = readOperand(at); err != nil {
		return err
	}
	p, _ := lookup(dep, "properties")
	if d.Deployment, _ = p.(map[string]any); d.Deployment == nil {
		return invalid("deployIfNotExists needs a deployment with properties")
	}
	if t, _ := lookup(d.Deployment, "template"); t == nil {
		return invalid("the deployment of deployIfNotExists has no template")
	}
	params, _ := lookup(d.Deployment, "parameters")
	d.deploymentParameter, err = readOperand(params)
	return err
}

func (d *Details) bind(params map[string]any) (err error) {
	for i := range d.operations {
		op := &d.operations[i]
		if op.path, err = bindField(&op.field, op.path, params); err != nil {
			return err
		}
		if op.value, err = op.value.bind(params); err != nil {
			return err
		}
		if op.when, err = op.when.bind(params); err != nil {
			return err
		}
	}
	for _, o := range []*operand{&d.typ, &d.name, &d.group, &d.setting, &d.delay, &d.location} {
		if *o, err = o.bind(params); err != nil {
			return err
		}
	}
	if d.exists != nil {
		if d.exists, err = d.exists.bind(params); err != nil {
			return err
		}
	}
	if err := d.readDelay(); err != nil {
		return err
	}
	if d.setting.constant() && d.setting.value != nil {
		d.Setting, _ = d.setting.value.(map[string]any)
	}
	return nil
}

// maxDelay is Azure's longest evaluationDelay.
const maxDelay = 360 * time.Minute

// readDelay reads evaluationDelay, once parameters are known. Without a time it
// is as soon as the change is over.
func (d *Details) readDelay() error {
	if d.delay.constant() && d.delay.value == nil {
		return nil
	}
	text, err := d.delay.text("evaluationDelay")
	if err != nil {
		return err
	}
	for name, after := range map[string]string{"AfterProvisioning": "", "AfterProvisioningSuccess": "Success", "AfterProvisioningFailure": "Failure"} {
		if strings.EqualFold(name, text) {
			d.After = after
			return nil
		}
	}
	if m := delayForm.FindStringSubmatch(text); m != nil && m[1]+m[2] != "" {
		h, _ := strconv.Atoi(m[1]) // "" is 0
		n, _ := strconv.Atoi(m[2])
		if d.Delay = time.Duration(h)*time.Hour + time.Duration(n)*time.Minute; d.Delay <= maxDelay {
			return nil
		}
	}
	return invalid("evaluationDelay is %q; it must be AfterProvisioning, AfterProvisioningSuccess, AfterProvisioningFailure or a time from PT0M to PT360M", clip(text))
}

var delayForm = regexp.MustCompile(`^PT(?:(\d{1,4})H)?(?:(\d{1,4})M)?$`)

// Related says which resource must exist besides the one that is judged.
type Related struct {
	Type, Name, Group, Scope string
	cond                     condition
	params                   map[string]any
	in                       *Input
}

// Related is what auditIfNotExists and deployIfNotExists look for.
func (r *Rule) Related(in *Input) (Related, error) {
	run := &run{in: in, params: r.params}
	out := Related{Scope: r.Details.ExistenceScope, cond: r.Details.exists, params: r.params, in: in}
	for _, f := range []struct {
		from operand
		to   *string
	}{{r.Details.typ, &out.Type}, {r.Details.name, &out.Name}, {r.Details.group, &out.Group}} {
		v, err := f.from.eval(run)
		if err != nil {
			return Related{}, err
		}
		*f.to, _ = v.(string)
	}
	return out, nil
}

// Meets reports whether a resource is the one that must exist.
func (x Related) Meets(resource map[string]any) (bool, error) {
	if x.cond == nil {
		return true, nil
	}
	in := *x.in
	in.Resource = resource
	return x.cond.holds(&run{in: &in, params: x.params})
}

// DeploymentParameters are the values that the template of deployIfNotExists gets.
func (r *Rule) DeploymentParameters(in *Input) (map[string]any, error) {
	v, err := r.Details.deploymentParameter.eval(&run{in: in, params: r.params})
	m, _ := v.(map[string]any)
	return m, err
}

// DeploymentLocation is where the record of a deployment to a subscription is to lie.
func (r *Rule) DeploymentLocation(in *Input) (string, error) {
	v, err := r.Details.location.eval(&run{in: in, params: r.params})
	s, _ := v.(string)
	return s, err
}

// Template is the template of deployIfNotExists, as the rule has it: its
// expressions are its own.
func (d *Details) Template() any {
	t, _ := lookup(d.Deployment, "template")
	return t
}

// Change is what modify or append makes of one field.
type Change struct {
	Field string // as the rule spells it
	Do    string // add, addOrReplace, remove or append
	Value any
	path  path
}

// SetField puts a value where the field is, a name or an alias without members of arrays.
func SetField(doc map[string]any, field string, value any) error {
	p, err := parsePath(field)
	if err != nil {
		return err
	}
	if p.each > 0 || len(p.steps) == 0 {
		return invalid("the field %q is not one value", clip(field))
	}
	_, err = Change{p.text, "addOrReplace", value, p}.Make(doc)
	return err
}

// Changes are what modify or append is to do to a resource.
func (r *Rule) Changes(in *Input) ([]Change, error) {
	run := &run{in: in, params: r.params}
	var out []Change
	for _, op := range r.Details.operations {
		if !op.path.changeable() {
			return nil, arm.Errorf(NotEvaluated, "the field %q can't be modified", clip(op.path.text))
		}
		if !op.when.constant() || op.when.value != nil {
			v, err := op.when.eval(run)
			if err != nil {
				return nil, err
			}
			if yes, is := v.(bool); !is {
				return nil, arm.Errorf(NotEvaluated, "the condition of an operation is %s; it must be a boolean", kindOf(v))
			} else if !yes {
				continue
			}
		}
		v, err := op.value.eval(run)
		if err != nil {
			return nil, err
		}
		out = append(out, Change{op.path.text, op.do, v, op.path})
	}
	return out, nil
}

// Clashes reports whether two changes want different values for one field.
// Adding to arrays clashes with nothing.
func (c Change) Clashes(o Change) bool {
	if !strings.EqualFold(c.Field, o.Field) || strings.HasSuffix(c.Field, "[*]") || c.Do == "remove" && o.Do == "remove" {
		return false
	}
	return c.Do == "remove" || o.Do == "remove" || !reflect.DeepEqual(c.Value, o.Value)
}

// Make makes a change in a document and reports whether the document differs
// then. append and add leave a value that is there alone: append is an error if
// it is another one.
func (c Change) Make(doc map[string]any) (bool, error) {
	steps := c.path.steps
	at := doc
	if c.path.typ != "" && !envelope[strings.ToLower(steps[0].name)] {
		at = bag(doc, "properties", c.Do != "remove")
	}
	return c.set(at, steps)
}

// bag is an object's member that is an object, made if it is missing.
func bag(m map[string]any, name string, make bool) map[string]any {
	if m == nil {
		return nil
	}
	v, ok := find(m, name, false)
	if x, is := v.(map[string]any); is {
		return x
	}
	if ok && v != nil || !make {
		return nil
	}
	x := map[string]any{}
	m[spelling(m, name)] = x
	return x
}

// spelling is how a document spells a property that it has already.
func spelling(m map[string]any, name string) string {
	if _, ok := m[name]; !ok {
		for k := range m {
			if strings.EqualFold(k, name) {
				return k
			}
		}
	}
	return name
}

func (c Change) set(at map[string]any, steps []step) (bool, error) {
	if at == nil {
		if c.Do == "remove" {
			return false, nil
		}
		return false, arm.Errorf(NotEvaluated, "the field %q can't be set: something else stands in its way", clip(c.Field))
	}
	name := spelling(at, steps[0].name)
	switch {
	case len(steps) == 1:
		return c.put(at, name)
	case steps[1].each:
		return c.members(at, name, steps[2:])
	}
	return c.set(bag(at, name, c.Do != "remove"), steps[1:])
}

func (c Change) put(at map[string]any, name string) (bool, error) {
	old, has := at[name]
	has = has && old != nil
	switch {
	case c.Do == "remove":
		delete(at, name)
		return has, nil
	case has && equal(old, c.Value):
		return false, nil
	case has && c.Do == "append":
		return false, arm.Errorf(NotEvaluated, "the field %q has another value than the one that the policy appends", clip(c.Field))
	case has && c.Do == "add":
		return false, nil
	}
	at[name] = c.Value
	return true, nil
}

// members changes every member of an array, or the array itself.
func (c Change) members(at map[string]any, name string, rest []step) (bool, error) {
	list, _ := at[name].([]any)
	if len(rest) > 0 {
		changed := false
		for _, m := range list {
			x, _ := m.(map[string]any)
			did, err := c.set(x, rest)
			if err != nil {
				return false, err
			}
			changed = changed || did
		}
		return changed, nil
	}
	kept := []any{}
	has := false
	for _, m := range list {
		if equal(m, c.Value) {
			if has = true; c.Do == "remove" {
				continue
			}
		}
		kept = append(kept, m)
	}
	if c.Do == "remove" || has {
		at[name] = kept
		return has && c.Do == "remove", nil
	}
	at[name] = append(kept, c.Value)
	return true, nil
}
