package compliance

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/policy"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// restrictionsBody is a resource of which somebody wants to know what policies
// would say (Azure's checkPolicyRestrictions).
type restrictionsBody struct {
	Details struct {
		Content    map[string]any `json:"resourceContent"`
		APIVersion string         `json:"apiVersion"`
		Scope      string         `json:"scope"`
	} `json:"resourceDetails"`
	Pending []struct {
		Field  string `json:"field"`
		Values []any  `json:"values"`
	} `json:"pendingFields"`
	IncludeAudit bool `json:"includeAuditEffect"`
}

// restrictions answers what policies would say of a resource that is not there.
func (s *Service) restrictions(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	scope, err := g.On(readRestrictions)
	if err != nil {
		return err
	}
	data, err := resource.ReadBody(w, r)
	if err != nil {
		return err
	}
	var b restrictionsBody
	if err := arm.Decode(data, &b); err != nil {
		return err
	}
	typ, _ := b.Details.Content["type"].(string)
	if typ == "" || !strings.Contains(typ, "/") {
		return arm.Errorf(arm.InvalidRequest, "resourceDetails.resourceContent must have the type of the resource")
	}
	name, _ := b.Details.Content["name"].(string)
	if name == "" {
		name = "resource"
	}
	at := scope
	if b.Details.Scope != "" {
		if at, err = arm.ParseID(b.Details.Scope); err != nil {
			return err
		}
		if !s.below(at, scope) {
			return arm.Errorf(arm.InvalidRequest, "resourceDetails.scope is %s, which does not lie below %s", at, scope)
		}
	}
	if err := arm.CheckSegment(name); err != nil {
		return err
	}
	if len(b.Pending) > maxPending {
		return arm.Errorf(arm.InvalidRequest, "pendingFields has %d fields; at most %d are allowed", len(b.Pending), maxPending)
	}
	q := rehearsal{s: s, id: at.Child(typ, name), typ: typ, body: b, want: is(policy.Deny)}
	if b.IncludeAudit {
		q.want = is(policy.Deny, policy.Audit)
	}
	err = s.DB.View(r.Context(), func(tx *store.Tx) error {
		if _, err := s.Scope(tx, at); err != nil {
			return err
		}
		return q.run(tx)
	})
	if err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, q.answer())
	return nil
}

// Limits of what is tried of pending fields.
const (
	maxPending = 50
	maxValues  = 100 // of one field
)

// rehearsal judges a resource that is not there, as it is and with what may come.
type rehearsal struct {
	s    *Service
	id   arm.ID
	typ  string
	body restrictionsBody
	want func(policy.Effect) bool

	x      *subject         // the content as it is
	hits   []hit            // of that
	freed  map[*one]bool    // those that a field that is yet to be said settles
	fields []string         // with restrictions, in their order
	found  map[string][]any // restrictions by field
}

func (q *rehearsal) restrict(field string, h hit, result string, more map[string]any) {
	reason := h.message
	if reason == "" {
		reason = "the policy assignment " + h.ID.Name() + " says so"
	}
	r := map[string]any{"result": result, "policy": reference(h), "policyEffect": string(h.rule.Effect), "reason": reason}
	maps.Copy(r, more)
	if q.found[field] == nil {
		q.fields = append(q.fields, field)
	}
	q.found[field] = append(q.found[field], r)
}

// reference are the ids of a rule.
func reference(h hit) map[string]any {
	out := map[string]any{"policyDefinitionId": h.def.id, "policyAssignmentId": h.ID}
	if h.set != nil {
		out["policySetDefinitionId"], out["policyDefinitionReferenceId"] = h.set.id, h.ref
	}
	return out
}

// with is the resource, with more of it if field is not empty.
func (q *rehearsal) with(tx *store.Tx, field string, value any) (*subject, error) {
	doc, _ := copyTree(q.body.Details.Content).(map[string]any)
	if field != "" {
		if err := put(doc, field, value); err != nil {
			return nil, err
		}
	}
	return q.s.subjectOf(tx, q.id, q.typ, doc, q.body.Details.APIVersion)
}

func put(doc map[string]any, field string, value any) error {
	if err := policy.SetField(doc, field, value); err != nil {
		return arm.Errorf(arm.InvalidRequest, "pendingFields has %.80q, which can't be tried: %s", field, err.Error())
	}
	return nil
}

func (q *rehearsal) run(tx *store.Tx) error {
	q.freed, q.found = map[*one]bool{}, map[string][]any{}
	all := q.s.reaching(q.id)
	var err error
	if q.x, err = q.with(tx, "", nil); err != nil {
		return err
	}
	q.hits = q.s.hits(all, q.x, q.want)
	for _, h := range q.s.hits(all, q.x, is(policy.Modify, policy.Append)) {
		changes, err := h.rule.Changes(q.x.judging(h))
		if err != nil {
			return err
		}
		for _, c := range changes {
			if c.Do == "remove" {
				q.restrict(c.Field, h, "Removed", nil)
				continue
			}
			text := valueText(c.Value)
			q.restrict(c.Field, h, "Required", map[string]any{"defaultValue": text, "values": []string{text}})
		}
	}
	for _, f := range q.body.Pending {
		if err := put(map[string]any{}, f.Field, nil); err != nil {
			return err
		}
		if len(f.Values) > maxValues {
			return arm.Errorf(arm.InvalidRequest, "pendingFields has %d values of %q; at most %d are allowed", len(f.Values), f.Field, maxValues)
		}
		if err := q.try(tx, all, f.Field, f.Values); err != nil {
			return err
		}
		if len(f.Values) == 0 {
			q.lacks(f.Field)
		}
	}
	return nil
}

// try judges the resource with each value of a field. A rule that minds the value
// restricts the field; one that holds whatever it is minds something else.
func (q *rehearsal) try(tx *store.Tx, all []*bound, field string, values []any) error {
	refused, rules := map[*one][]any{}, []hit{}
	for _, v := range values {
		x, err := q.with(tx, field, policy.Plain(v))
		if err != nil {
			return err
		}
		for _, h := range q.s.hits(all, x, q.want) {
			if refused[h.one] == nil {
				rules = append(rules, h)
			}
			refused[h.one] = append(refused[h.one], valueText(v))
		}
	}
	for _, h := range q.hits {
		if len(refused[h.one]) < len(values) {
			q.freed[h.one] = true
		}
	}
	for _, h := range rules {
		before := slices.ContainsFunc(q.hits, func(o hit) bool { return o.one == h.one })
		if n := len(refused[h.one]); n < len(values) || !before {
			q.restrict(field, h, map[policy.Effect]string{policy.Audit: "Audit", policy.Deny: "Deny"}[h.rule.Effect], map[string]any{"values": refused[h.one]})
		}
	}
	return nil
}

// lacks finds the rules that hold because the field, or one in it, is not there.
func (q *rehearsal) lacks(field string) {
	for _, h := range q.hits {
		tests, err := h.rule.Explain(q.x.judging(h))
		if err != nil {
			continue // it holds because it can't be judged
		}
		for _, t := range tests {
			name := strings.ToLower(t.Expression)
			if in := strings.ToLower(field); t.Kind != "Field" || t.Value != nil || name != in && !strings.HasPrefix(name, in+".") && !strings.HasPrefix(name, in+"[") {
				continue
			}
			more := map[string]any{}
			switch list, isList := t.Target.([]any); {
			case isList && strings.HasSuffix(strings.ToLower(t.Operator), "in"):
				texts := []string{}
				for _, v := range list {
					texts = append(texts, valueText(v))
				}
				more["values"] = texts
			case strings.HasSuffix(strings.ToLower(t.Operator), "equals"):
				more["values"] = []string{valueText(t.Target)}
			}
			q.restrict(t.Expression, h, "Required", more)
			q.freed[h.one] = true
		}
	}
}

func valueText(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	b, _ := json.Marshal(v) // it came from JSON
	return string(b)
}

func (q *rehearsal) answer() map[string]any {
	fields, results := []any{}, []any{}
	for _, f := range q.fields {
		fields = append(fields, map[string]any{"field": f, "restrictions": q.found[f]})
	}
	for _, h := range q.hits {
		if q.freed[h.one] {
			continue
		}
		tests, _ := h.rule.Explain(q.x.judging(h)) // as far as they went
		results = append(results, map[string]any{
			"policyInfo": reference(h), "evaluationResult": NonCompliant, "effectDetails": map[string]any{"policyEffect": string(h.rule.Effect)},
			"evaluationDetails": map[string]any{"evaluatedExpressions": showTests(tests), "reason": h.message},
		})
	}
	return map[string]any{"fieldRestrictions": fields, "contentEvaluationResult": map[string]any{"policyEvaluations": results}}
}
