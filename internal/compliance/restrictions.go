package compliance

import (
	"net/http"
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
	if len(b.Pending) > 0 {
		return arm.Errorf(arm.Unsupported, "pendingFields are not supported; send the values in resourceContent")
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
	id := at.Child(typ, name)
	var results []any
	err = s.DB.View(r.Context(), func(tx *store.Tx) error {
		if _, err := s.Scope(tx, at); err != nil {
			return err
		}
		x, err := s.subjectOf(tx, id, typ, b.Details.Content, b.Details.APIVersion)
		if err != nil {
			return err
		}
		want := is(policy.Deny)
		if b.IncludeAudit {
			want = is(policy.Deny, policy.Audit)
		}
		for _, h := range s.hits(s.reaching(id), x, want) {
			results = append(results, map[string]any{"policyInfo": violation(h).Info, "evaluationResult": NonCompliant, "effectDetails": map[string]any{"policyEffect": string(h.rule.Effect)}})
		}
		return nil
	})
	if err != nil {
		return err
	}
	if results == nil {
		results = []any{}
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{"fieldRestrictions": []any{}, "contentEvaluationResult": map[string]any{"policyEvaluations": results}})
	return nil
}
