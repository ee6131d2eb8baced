package compliance

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
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
		there, err := s.related(tx, x, r.rule, in)
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

// related reports whether the resource that a rule asks for is there.
func (s *Service) related(tx *store.Tx, x *subject, r *policy.Rule, in *policy.Input) (bool, error) {
	want, err := r.Related(in)
	if err != nil {
		return false, nil // what can't be named does not exist
	}
	var found []*resource.Doc
	switch {
	case strings.EqualFold(want.Type, x.typ) && want.Name == "":
		return want.Meets(in.Resource)
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
			return false, nil
		}
		found, err = resource.List(tx, want.Type, scope, "", 0)
	}
	if _, shut := errors.AsType[*store.Shut](err); shut {
		return false, nil // nothing is known of it now
	}
	if err != nil {
		return false, err
	}
	for _, d := range found {
		if want.Name != "" && !strings.EqualFold(d.Name, want.Name) && !strings.EqualFold(fullName(d.ID), want.Name) {
			continue
		}
		doc, err := s.Resources.Tree(d)
		if err != nil {
			return false, err
		}
		if ok, err := want.Meets(policy.Plain(doc).(map[string]any)); err != nil || ok {
			return ok && err == nil, nil
		}
	}
	return false, nil
}

// statesBelow judges every resource at or below a scope, now. A scope may also
// be an assignment, of which only its own states are given.
func (s *Service) statesBelow(tx *store.Tx, scope arm.ID) ([]state, error) {
	only := ""
	if strings.EqualFold(scope.Type(), assignments.typ) {
		a, err := load(tx, assignments, scope)
		if err != nil {
			return nil, err
		}
		if a == nil {
			return nil, assignments.missing(scope)
		}
		only, scope = a.ID.Key(), a.Scope
	}
	if _, err := s.Scope(tx, scope); err != nil {
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

func (s *Service) statesOf(tx *store.Tx, d *resource.Doc, only string, out []state) ([]state, error) {
	out, err := s.componentStates(tx, d, only, out)
	if err != nil {
		return nil, err
	}
	all := s.reaching(d.ID)
	var x *subject
	for _, b := range all {
		if only != "" && b.ID.Key() != only {
			continue
		}
		rules := b.rules(strings.ToLower(d.Type))
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

func (x *state) show(now time.Time) map[string]any {
	set := ""
	if x.set != nil {
		set = x.set.id.String()
	}
	parts := []any{}
	for _, c := range x.components {
		parts = append(parts, map[string]any{"id": c.ID, "type": c.Type, "name": c.Name, "timestamp": now, "complianceState": c.State})
	}
	return map[string]any{
		"components": parts, "timestamp": now, "resourceId": x.doc.ID, "resourceType": x.doc.Type, "resourceLocation": x.doc.Location, "resourceGroup": x.doc.ID.Group().Name(),
		"subscriptionId": x.doc.ID.Subscription(), "policyAssignmentId": x.ID, "policyAssignmentName": x.ID.Name(), "policyAssignmentScope": x.Scope,
		"policyDefinitionId": x.def.id, "policyDefinitionName": x.def.id.Name(), "policyDefinitionAction": string(x.rule.Effect), "policyDefinitionCategory": x.def.category,
		"policySetDefinitionId": set, "policyDefinitionReferenceId": x.ref, "policyDefinitionGroupNames": x.groups,
		"complianceState": x.value, "isCompliant": x.value == Compliant || x.value == Exempted,
	}
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
			if _, err := s.Scope(tx, scope); err != nil {
				return err
			}
			rows, err = s.past(tx, scope, q)
			return err
		}
		found, err = s.statesBelow(tx, scope)
		return err
	}); err != nil {
		return err
	}
	now := s.Now().UTC()
	for i := range found {
		rows = append(rows, found[i].show(now))
	}
	return q.answer(w, s.Site, "policyStates", rows)
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
				row := found[i].show(now)
				delete(row, "isCompliant")
				row["componentId"], row["componentType"], row["componentName"], row["complianceState"] = c.ID, c.Type, c.Name, c.State
				rows = append(rows, row)
			}
		}
		return err
	}); err != nil {
		return err
	}
	return q.answer(w, s.Site, "componentPolicyStates", rows)
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
		if !q.holds(x.show(now)) {
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

// query is the OData options of a query of PolicyInsights.
type query struct {
	top    int
	from   time.Time
	to     time.Time
	filter []clause
	parts  bool // $expand=components
	choose []string
	order  string
	down   bool
}

// clause is one condition of a $filter, NAME eq|ne VALUE; all must hold.
type clause struct {
	name  string
	equal bool
	value string
}

func readQuery(r *http.Request) (q query, err error) {
	v := r.URL.Query()
	for name := range v {
		switch strings.ToLower(name) {
		case "api-version", "$top", "$from", "$to", "$filter", "$select", "$orderby", "$expand", "$skiptoken":
		default:
			return q, arm.Errorf(arm.BadRequest, "the query option %q is not supported; supported: $top, $from, $to, $filter, $select, $orderby, $expand", name)
		}
	}
	if v.Get("$skiptoken") != "" {
		return q, arm.Errorf(arm.BadRequest, "the query option $skiptoken is not supported")
	}
	switch e := v.Get("$expand"); {
	case strings.EqualFold(e, "components"):
		q.parts = true
	case e != "":
		return q, arm.Errorf(arm.BadRequest, "$expand is %q; supported: components", e)
	}
	q.top = 10_000
	if t := v.Get("$top"); t != "" {
		if q.top, err = strconv.Atoi(t); err != nil || q.top < 1 {
			return q, arm.Errorf(arm.BadRequest, "$top is %q; it must be a whole number above 0", t)
		}
	}
	for name, to := range map[string]*time.Time{"$from": &q.from, "$to": &q.to} {
		if t := v.Get(name); t != "" {
			if *to, err = time.Parse(time.RFC3339, t); err != nil {
				return q, arm.Errorf(arm.BadRequest, "%s is %q; it must be a time such as 2026-01-31T08:00:00Z", name, t)
			}
		}
	}
	if t := v.Get("$select"); t != "" {
		for _, n := range strings.Split(t, ",") {
			q.choose = append(q.choose, strings.TrimSpace(n))
		}
	}
	if t := v.Get("$orderby"); t != "" {
		name, dir, _ := strings.Cut(strings.TrimSpace(t), " ")
		q.order, q.down = name, strings.EqualFold(strings.TrimSpace(dir), "desc")
	}
	q.filter, err = readFilter(v)
	return q, err
}

func readFilter(v url.Values) ([]clause, error) {
	text := strings.TrimSpace(v.Get("$filter"))
	if text == "" {
		return nil, nil
	}
	var out []clause
	for _, part := range splitAnd(text) {
		name, rest, ok := strings.Cut(strings.TrimSpace(part), " ")
		op, value, ok2 := strings.Cut(strings.TrimSpace(rest), " ")
		value = strings.TrimSpace(value)
		if !ok || !ok2 || !strings.EqualFold(op, "eq") && !strings.EqualFold(op, "ne") || value == "" {
			return nil, arm.Errorf(arm.BadRequest, "the $filter %q is not supported; supported: NAME eq 'VALUE' and NAME ne 'VALUE', joined by and", text)
		}
		if len(value) > 1 && value[0] == '\'' && value[len(value)-1] == '\'' {
			value = strings.ReplaceAll(value[1:len(value)-1], "''", "'")
		} else if value != "true" && value != "false" {
			return nil, arm.Errorf(arm.BadRequest, "the $filter has the value %s; it must be text in quotes, true or false", value)
		}
		out = append(out, clause{name, strings.EqualFold(op, "eq"), value})
	}
	return out, nil
}

// splitAnd parts a filter at " and " outside of quotes.
func splitAnd(text string) []string {
	var out []string
	quoted, from := false, 0
	for i := range len(text) {
		if text[i] == '\'' {
			quoted = !quoted
		}
		if !quoted && i+5 <= len(text) && strings.EqualFold(text[i:i+5], " and ") {
			out = append(out, text[from:i])
			from = i + 5
		}
	}
	return append(out, text[from:])
}

// holds reports whether all clauses of the filter hold of a row.
func (q query) holds(row map[string]any) bool {
	for _, c := range q.filter {
		v, _ := value(row, c.name)
		if strings.EqualFold(fmt.Sprint(v), c.value) != c.equal {
			return false
		}
	}
	return true
}

func value(row map[string]any, name string) (any, bool) {
	for k, v := range row {
		if strings.EqualFold(k, name) {
			return v, true
		}
	}
	return nil, false
}

// answer writes the rows that are meant. A filter or order by a name that no row
// has is an error.
func (q query) answer(w http.ResponseWriter, site arm.Site, what string, rows []map[string]any) error {
	for _, name := range q.names() {
		if len(rows) > 0 {
			if _, ok := value(rows[0], name); !ok {
				return arm.Errorf(arm.BadRequest, "there is no property %q", name)
			}
		}
	}
	out := []any{}
	if !q.parts {
		for _, r := range rows {
			delete(r, "components")
		}
	}
	rows = slices.DeleteFunc(rows, func(r map[string]any) bool { return !q.holds(r) })
	if q.order != "" {
		slices.SortStableFunc(rows, func(a, b map[string]any) int {
			x, _ := value(a, q.order)
			y, _ := value(b, q.order)
			c := strings.Compare(fmt.Sprint(x), fmt.Sprint(y))
			if q.down {
				c = -c
			}
			return c
		})
	}
	for _, r := range rows {
		if len(out) == q.top {
			break
		}
		if len(q.choose) > 0 {
			part := map[string]any{}
			for _, n := range q.choose {
				if v, ok := value(r, n); ok {
					part[n] = v
				}
			}
			r = part
		}
		out = append(out, r)
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{"@odata.context": site.Base() + "/providers/Microsoft.PolicyInsights/$metadata#" + what, "@odata.count": len(out), "value": out})
	return nil
}

func (q query) names() []string {
	out := slices.Clone(q.choose)
	for _, c := range q.filter {
		out = append(out, c.name)
	}
	if q.order != "" {
		out = append(out, q.order)
	}
	return out
}
