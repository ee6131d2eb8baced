package compliance

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/policy"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// The compliance states of Azure that come about here.
const (
	Compliant    = "Compliant"
	NonCompliant = "NonCompliant"
	Exempted     = "Exempt"
	Unknown      = "Unknown"
	Failed       = "Error" // the rule could not be judged
)

// state is whether one resource complies with one rule.
type state struct {
	*bound
	*one
	subject    *subject
	doc        *resource.Doc
	value      string
	components []component
	details    map[string]any // of the judgement, if somebody asked
}

// judge gives the state of a resource by one rule; "" if the rule has nothing to
// say of it.
func (s *Service) judge(tx *store.Tx, x *subject, b *bound, r *one) (string, error) {
	if r.rule.Mode == policy.Indexed && !x.tracked || !selected(b.selectors, x.typ, x.location) {
		return "", nil
	}
	h := hit{bound: b, one: r}
	in := x.judging(h)
	yes, err := r.rule.Applies(in)
	if err != nil {
		return Failed, nil
	}
	out := Compliant
	switch r.rule.Effect {
	case policy.Audit, policy.Deny:
		if yes {
			out = NonCompliant
		}
	case policy.Modify, policy.Append:
		if yes {
			differs, err := s.differs(r.rule, in)
			if err != nil {
				return Failed, nil
			}
			if differs {
				out = NonCompliant
			}
		}
	case policy.AuditIfNotExists, policy.DeployIfNotExists:
		if !yes || s.Now().Before(x.changed.Add(r.rule.Details.Delay)) {
			return "", nil
		}
		there, _, err := s.related(tx, x, r.rule, in)
		if err != nil {
			return "", err
		}
		if !there {
			out = NonCompliant
		}
	case policy.Manual:
		if !yes {
			return "", nil
		}
		if out, err = s.manual(tx, x.id, b, r); err != nil {
			return "", err
		}
	default:
		return "", nil
	}
	if out != Compliant && s.exempting(b, r, x.id, x.typ, x.location) != nil {
		return Exempted, nil
	}
	return out, nil
}

// differs reports whether modify or append would change the resource.
func (s *Service) differs(r *policy.Rule, in *policy.Input) (bool, error) {
	changes, err := r.Changes(in)
	if err != nil {
		return false, err
	}
	doc := copyTree(in.Resource).(map[string]any)
	differs := false
	for _, c := range changes {
		did, err := c.Make(doc)
		if err != nil {
			return true, nil // it would have to be otherwise, and can't be made so
		}
		differs = differs || did
	}
	return differs, nil
}

func copyTree(v any) any {
	switch x := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(x))
		for k, y := range x {
			out[k] = copyTree(y)
		}
		return out
	case []any:
		out := make([]any, len(x))
		for i, y := range x {
			out[i] = copyTree(y)
		}
		return out
	}
	return v
}

// related reports whether the resource that a rule asks for is there. seen are those
// that were looked at for it, the last one last.
func (s *Service) related(tx *store.Tx, x *subject, r *policy.Rule, in *policy.Input) (there bool, seen []arm.ID, err error) {
	want, err := r.Related(in)
	if err != nil {
		return false, nil, nil // what can't be named does not exist
	}
	var found []*resource.Doc
	switch {
	case strings.EqualFold(want.Type, x.typ) && want.Name == "":
		there, err = want.Meets(in.Resource)
		return there, []arm.ID{x.id}, err
	case strings.HasPrefix(strings.ToLower(want.Type), x.typ+"/"), !strings.Contains(want.Type, "/"):
		found, err = resource.List(tx, want.Type, x.id, "", 0)
	default:
		scope := x.id.Group()
		switch {
		case want.Group != "":
			scope, err = arm.ParseID("/subscriptions/" + x.id.Subscription() + "/resourceGroups/" + want.Group)
		case want.Scope == "subscription" || scope.IsZero():
			scope, err = arm.ParseID("/subscriptions/" + x.id.Subscription())
		}
		if err != nil {
			return false, nil, nil
		}
		found, err = resource.List(tx, want.Type, scope, "", 0)
	}
	if _, shut := errors.AsType[*store.Shut](err); shut {
		return false, nil, nil // nothing is known of it now
	}
	if err != nil {
		return false, nil, err
	}
	for _, d := range found {
		if want.Name != "" && !strings.EqualFold(d.Name, want.Name) && !strings.EqualFold(fullName(d.ID), want.Name) {
			continue
		}
		doc, err := s.Resources.Tree(d)
		if err != nil {
			return false, seen, err
		}
		seen = append(seen, d.ID)
		if ok, err := want.Meets(policy.Plain(doc).(map[string]any)); err != nil || ok {
			return ok && err == nil, seen, nil
		}
	}
	return false, seen, nil
}

// statesBelow judges every resource at or below a scope, now, by the rules that it
// means: see meant.
func (s *Service) statesBelow(tx *store.Tx, scope arm.ID) ([]state, error) {
	only, scope, err := s.meant(tx, scope)
	if err != nil {
		return nil, err
	}
	scopes := []arm.ID{scope}
	if scope == arm.Root {
		scopes = s.bound()
	} else if strings.EqualFold(scope.Type(), "Microsoft.Management/managementGroups") {
		scopes = nil
		for _, sub := range s.Subscriptions(s.Site.TenantOf(scope)) {
			if id := arm.MustID("/subscriptions/" + sub); contains(s.Above(id), scope.Key()) {
				scopes = append(scopes, id)
			}
		}
	}
	var out []state
	for _, at := range scopes {
		docs, err := resource.All(tx, at)
		if err != nil {
			return nil, err
		}
		for _, d := range docs {
			if d.Shut != nil {
				continue // nothing is known of it now
			}
			if out, err = s.statesOf(tx, d, only, out); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// choice is which rules somebody asks about: those of an assignment, or of a
// definition or initiative of that name; all of them if it is zero.
type choice struct{ assignment, definition, set string }

func (c choice) takes(b *bound, r *one) bool {
	return (c.assignment == "" || b.ID.Key() == c.assignment) &&
		(c.definition == "" || strings.EqualFold(r.def.id.Name(), c.definition)) &&
		(c.set == "" || b.set != nil && strings.EqualFold(b.set.id.Name(), c.set))
}

// meant reads what a query is about. Besides scopes that is an assignment, and all that
// a subscription has of the definition, or initiative, with a name: it may lie above
// the subscription, but is named below it.
func (s *Service) meant(tx *store.Tx, asked arm.ID) (only choice, scope arm.ID, err error) {
	scope = asked
	for _, k := range []*kind{assignments, definitions, sets} {
		if !strings.EqualFold(asked.Type(), k.typ) {
			continue
		}
		scope = asked.Parent()
		switch k {
		case definitions:
			only.definition = asked.Name()
		case sets:
			only.set = asked.Name()
		default:
			a, err := load(tx, k, asked)
			if err != nil {
				return only, scope, err
			}
			if a == nil {
				return only, scope, k.missing(asked)
			}
			only.assignment, scope = a.ID.Key(), a.Scope
			continue
		}
		if !strings.EqualFold(scope.Type(), "Microsoft.Resources/subscriptions") {
			return only, scope, arm.Errorf(arm.BadRequest, "%s is not of a subscription; what complies with a definition is asked of a subscription, as /subscriptions/ID/providers/%s/NAME", asked, k.typ)
		}
	}
	_, err = s.Scope(tx, scope)
	return only, scope, err
}

func (s *Service) statesOf(tx *store.Tx, d *resource.Doc, only choice, out []state) ([]state, error) {
	out, err := s.componentStates(tx, d, only, out)
	if err != nil {
		return nil, err
	}
	all := s.reaching(d.ID)
	var x *subject
	for _, b := range all {
		rules := slices.DeleteFunc(slices.Clone(b.rules(strings.ToLower(d.Type))), func(r *one) bool { return !only.takes(b, r) })
		if len(rules) == 0 {
			continue
		}
		if x == nil {
			doc, err := s.Resources.Tree(d)
			if err != nil {
				return nil, err
			}
			if x, err = s.subjectOf(tx, d.ID, d.Type, doc, ""); err != nil {
				return nil, err
			}
		}
		for _, r := range rules {
			v, err := s.judge(tx, x, b, r)
			if err != nil {
				return nil, err
			}
			if v != "" {
				out = append(out, state{bound: b, one: r, subject: x, doc: d, value: v})
			}
		}
	}
	return out, nil
}

// show is the state as a row of a query's answer. Azure has more about who owns what,
// which is not known here.
func (s *Service) show(x *state, now time.Time) map[string]any {
	parts := []any{}
	for _, c := range x.components {
		parts = append(parts, map[string]any{"id": c.ID, "type": c.Type, "name": c.Name, "timestamp": now, "complianceState": c.State})
	}
	row := map[string]any{
		"components": parts, "timestamp": now, "resourceId": x.doc.ID, "resourceType": x.doc.Type, "resourceLocation": x.doc.Location, "resourceGroup": x.doc.ID.Group().Name(),
		"subscriptionId": x.doc.ID.Subscription(), "policyAssignmentId": x.ID, "policyAssignmentName": x.ID.Name(), "policyAssignmentScope": x.Scope,
		"policyDefinitionId": x.def.id, "policyDefinitionName": x.def.id.Name(), "policyDefinitionAction": string(x.rule.Effect), "policyDefinitionCategory": x.def.category,
		"policyDefinitionReferenceId": x.ref, "policyDefinitionGroupNames": x.groups, "policyDefinitionVersion": x.def.version, "policyAssignmentVersion": x.props.Version,
		"policyAssignmentParameters": jsonText(x.props.Parameters), "resourceTags": jsonText(x.doc.Tags), "managementGroupIds": strings.Join(s.groupsAbove(x.doc.ID), ","),
		"policySetDefinitionId": "", "policySetDefinitionName": "", "policySetDefinitionCategory": "", "policySetDefinitionVersion": "",
		"complianceState": x.value, "isCompliant": x.value == Compliant || x.value == Exempted,
	}
	if x.set != nil {
		row["policySetDefinitionId"], row["policySetDefinitionName"] = x.set.id, x.set.id.Name()
		row["policySetDefinitionCategory"], row["policySetDefinitionVersion"] = metadataCategory(x.set.props.Metadata), x.set.props.Version
	}
	if x.details != nil {
		row["policyEvaluationDetails"] = x.details
	}
	return row
}

func jsonText[T any](m map[string]T) string {
	if len(m) == 0 {
		return "{}"
	}
	b, _ := json.Marshal(m) // it came from JSON
	return string(b)
}

// groupsAbove are the names of the management groups that hold id.
func (s *Service) groupsAbove(id arm.ID) (out []string) {
	for _, k := range s.Above(id) {
		if name, ok := strings.CutPrefix(k, "/providers/microsoft.management/managementgroups/"); ok && !strings.Contains(name, "/") {
			out = append(out, name)
		}
	}
	return out
}

// showTests are the tests of a rule as Azure shows them.
func showTests(tests []policy.Evaluated) []any {
	list := []any{}
	for _, e := range tests {
		t := map[string]any{
			"result": map[bool]string{true: "True", false: "False"}[e.Held], "expression": e.Expression, "expressionKind": e.Kind,
			"expressionValue": e.Value, "targetValue": e.Target, "operator": e.Operator,
		}
		if e.Path != "" {
			t["path"] = e.Path
		}
		list = append(list, t)
	}
	return list
}

// explain notes what a rule made of a resource, test by test.
func (s *Service) explain(tx *store.Tx, x *state) error {
	if x.subject == nil {
		return nil
	}
	in := x.subject.judging(hit{bound: x.bound, one: x.one})
	tests, err := x.rule.Explain(in)
	x.details = map[string]any{"evaluatedExpressions": showTests(tests)}
	if err != nil { // which is what the state Error is about
		_, x.details["reason"] = gate.PublicError(err)
		return nil
	}
	if is(policy.AuditIfNotExists, policy.DeployIfNotExists)(x.rule.Effect) {
		_, seen, err := s.related(tx, x.subject, x.rule, in)
		if err != nil {
			return err
		}
		about := map[string]any{"totalResources": len(seen)}
		if len(seen) > 0 {
			about["resourceId"] = seen[len(seen)-1]
		}
		x.details["ifNotExistsDetails"] = about
	}
	return nil
}

func (s *Service) states(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	scope, err := g.On(queryStates)
	if err != nil {
		return err
	}
	if w1 := g.Item(); !strings.EqualFold(w1, "latest") && !strings.EqualFold(w1, "default") {
		return arm.Errorf(arm.BadRequest, "there are no policy states %q; there are latest and default", w1)
	}
	q, err := readQuery(r)
	if err != nil {
		return err
	}
	var found []state
	var rows []map[string]any
	if err := s.DB.View(r.Context(), func(tx *store.Tx) error {
		if strings.EqualFold(g.Item(), "default") {
			rows, err = s.past(tx, scope, q)
			return err
		}
		if found, err = s.statesBelow(tx, scope); err != nil || !q.details {
			return err
		}
		for i := range found {
			if err := s.explain(tx, &found[i]); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	now := s.Now().UTC()
	for i := range found {
		rows = append(rows, s.show(&found[i], now))
	}
	return q.answer(w, r, s.Site, rows)
}

// components answers which jobs comply with the rules of data planes' modes.
func (s *Service) components(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	scope, err := g.On(queryStates)
	if err != nil {
		return err
	}
	q, err := readQuery(r)
	if err != nil {
		return err
	}
	var rows []map[string]any
	now := s.Now().UTC()
	if err := s.DB.View(r.Context(), func(tx *store.Tx) error {
		found, err := s.statesBelow(tx, scope)
		for i := range found {
			for _, c := range found[i].components {
				row := s.show(&found[i], now)
				delete(row, "isCompliant")
				row["componentId"], row["componentType"], row["componentName"], row["complianceState"] = c.ID, c.Type, c.Name, c.State
				rows = append(rows, row)
			}
		}
		return err
	}); err != nil {
		return err
	}
	return q.answer(w, r, s.Site, rows)
}

// tally counts resources and rules by how they comply.
type tally struct {
	bad       map[string]bool // resources that do not comply with something
	resources map[string]string
	rules     map[string]bool
}

func newTally() *tally { return &tally{map[string]bool{}, map[string]string{}, map[string]bool{}} }

// worse are the states, the one that counts most for a resource first.
var worse = []string{NonCompliant, Failed, Unknown, Exempted, Compliant}

func (t *tally) add(x *state) {
	k := x.doc.ID.Key()
	if was, ok := t.resources[k]; !ok || slices.Index(worse, x.value) < slices.Index(worse, was) {
		t.resources[k] = x.value
	}
	if x.value == NonCompliant {
		t.bad[k] = true
		t.rules[x.ID.Key()+"|"+x.ref] = true
	}
}

func (t *tally) show() map[string]any {
	counts := map[string]int{}
	for _, v := range t.resources {
		counts[v]++
	}
	var details []any
	for _, v := range worse {
		if counts[v] > 0 {
			details = append(details, map[string]any{"complianceState": strings.ToLower(v), "count": counts[v]})
		}
	}
	return map[string]any{"nonCompliantResources": len(t.bad), "nonCompliantPolicies": len(t.rules), "resourceDetails": details, "queryResultsUri": nil}
}

func (s *Service) summary(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	scope, err := g.On(sumStates)
	if err != nil {
		return err
	}
	q, err := readQuery(r)
	if err != nil {
		return err
	}
	var found []state
	if err := s.DB.View(r.Context(), func(tx *store.Tx) error {
		found, err = s.statesBelow(tx, scope)
		return err
	}); err != nil {
		return err
	}
	whole := newTally()
	per, order := map[string]*tally{}, []*bound{}
	rules := map[string]map[string]*tally{}
	now := s.Now().UTC()
	for i := range found {
		x := &found[i]
		ok, err := q.match(s.show(x, now))
		if err != nil {
			return badOption(err)
		}
		if !ok {
			continue
		}
		whole.add(x)
		k := x.ID.Key()
		if per[k] == nil {
			per[k], rules[k], order = newTally(), map[string]*tally{}, append(order, x.bound)
		}
		per[k].add(x)
		if rules[k][x.ref] == nil {
			rules[k][x.ref] = newTally()
		}
		rules[k][x.ref].add(x)
	}
	list := []any{}
	for _, b := range order {
		k := b.ID.Key()
		var defs []any
		for _, x := range b.all {
			if t := rules[k][x.ref]; t != nil {
				defs = append(defs, map[string]any{"policyDefinitionId": x.def.id, "policyDefinitionReferenceId": x.ref, "effect": strings.ToLower(string(x.rule.Effect)), "policyDefinitionGroupNames": x.groups, "results": t.show()})
			}
		}
		set := ""
		if b.set != nil {
			set = b.set.id.String()
		}
		list = append(list, map[string]any{"policyAssignmentId": b.ID, "policySetDefinitionId": set, "results": per[k].show(), "policyDefinitions": defs})
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{"@odata.count": 1, "value": []any{map[string]any{"results": whole.show(), "policyAssignments": list}}})
	return nil
}
