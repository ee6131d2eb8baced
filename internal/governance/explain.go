package governance

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/gate"
	"castellan/internal/rbac"
	"castellan/internal/store"
)

// Decisions are not Azure's, so they lie in a namespace of our own.
const decisionType = "Castellan.Authorization/decisions"

// byRoles are the classes of credentials for whose callers roles decide; for
// others the credential itself does.
var byRoles = map[string]bool{"access": true, "managed": true, "lent": true}

// getDecision explains a recorded decision to whoever may read role assignments
// at its scope. Who asked for it sees no more of it than the refusal told.
func (s *Service) getDecision(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(ReadAssignment)
	if err != nil {
		return err
	}
	e, ok, err := s.Log.Find(r.Context(), key(id.Name()))
	if err != nil {
		return err
	}
	scope, bad := arm.ParseID(e.Target)
	ours := e.Tenant == g.Caller().Tenant
	if owner := s.Site.TenantOf(scope); owner != "" {
		ours = owner == g.Caller().Tenant
	}
	full := ours && g.Sees(ReadAssignment, scope)
	if !ok || bad != nil || !full && (e.Caller != g.Caller().Object || e.Tenant != g.Caller().Tenant) {
		return notFound("There is no decision '%s' that you may see. Kept for this are refusals, and changes of resources; to see those of others needs '%s' at their scope.", id.Name(), ReadAssignment.Name())
	}
	out := map[string]any{"correlationId": e.Correlation, "action": e.Action, "isDataAction": e.Data, "scope": e.Target, "decision": e.Decision}
	if full {
		if err := s.explain(r, out, e, scope); err != nil {
			return err
		}
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{"id": id, "name": id.Name(), "type": decisionType, "properties": out})
	return nil
}

// explain adds to out who asked, what was said, and why by the state of now.
func (s *Service) explain(r *http.Request, out map[string]any, e audit.Entry, scope arm.ID) error {
	for k, v := range map[string]any{"time": e.Time, "callerId": e.Caller, "callerName": e.Name, "item": nullable(e.Item), "reason": e.Reason, "outcome": e.Outcome} {
		out[k] = v
	}
	if !byRoles[e.Credential] {
		out["note"] = "The caller's credential (" + e.Credential + ") carries its own rights, so role assignments did not count."
		return nil
	}
	c, err := s.Known(e.Tenant, e.Caller)
	if err != nil {
		out["now"] = map[string]any{"decision": "refused", "reason": "the caller is no principal of this directory that may sign in"}
		out["changed"] = e.Decision != "refused"
		return nil
	}
	a := actionOf(e)
	allowed, reason := s.Gate.Judge(c, a, gate.Target{ID: scope, Item: e.Item})
	now := map[bool]string{true: "allowed", false: "refused"}[allowed]
	list, conditional := []any{}, false
	for _, x := range s.Engine.Explain(c, a, scope) {
		list = append(list, s.showWeighed(x, c, a))
		conditional = conditional || x.Verdict == rbac.ConditionFail
	}
	out["now"], out["changed"] = map[string]any{"decision": now, "reason": reason}, e.Decision != now && !conditional
	out["note"] = "The assignments are those of now, and the caller's groups too."
	switch {
	case conditional:
		out["note"] = "The assignments are those of now. Conditions were held against the action alone: what else the request was about is not kept."
	case e.Decision != now:
		out["note"] = "It would be " + now + " now: something was changed since. The assignments are those of now, and the caller's groups too."
	}
	out["assignmentsConsidered"] = list
	if out["eligible"], err = s.wouldDo(r, c, a, scope); err != nil || allowed {
		return err
	}
	if d, denied := s.Engine.Denied(c, a, scope, nil); denied {
		out["deniedBy"] = d.By // no role would help
		return nil
	}
	out["missingAction"] = a.Name()
	if role, ok := rbac.Narrowest(slices.Collect(maps.Values(s.builtIn)), a, s.Actions()); ok {
		out["smallestRole"] = map[string]any{"id": definitionID(scope, role.ID), "roleName": role.Name}
	}
	return nil
}

// actionOf is the action that e is of.
func actionOf(e audit.Entry) arm.Action {
	if e.Data {
		return arm.NewDataAction(e.Action, "")
	}
	return arm.NewAction(e.Action, "")
}

// showWeighed is one assignment with why it did or did not do.
func (s *Service) showWeighed(x rbac.Weighed, c arm.Caller, a arm.Action) map[string]any {
	out := map[string]any{
		"id": x.ID, "roleDefinitionId": definitionID(x.Scope, x.RoleID), "roleName": x.Role.Name, "scope": x.Scope,
		"principalId": x.Principal, "verdict": x.Verdict, "explanation": because(x, a),
	}
	if x.Condition != "" {
		out["condition"] = x.Condition
	}
	if !strings.EqualFold(x.Principal, c.Object) {
		out["throughGroup"] = x.Principal
	}
	return out
}

// because is a verdict in a sentence.
func because(x rbac.Weighed, a arm.Action) string {
	switch x.Verdict {
	case rbac.Allows:
		return "It allows the action."
	case rbac.LacksAction:
		if x.Role.Gives(a) {
			return "Its role gives the action and takes it away again by notActions."
		}
		return "Its role does not have the action."
	case rbac.OtherScope:
		return "Its role has the action, but it counts only at " + x.Scope.String() + " and below."
	case rbac.Untimely:
		return "Its time is " + between(x.NotBefore, x.NotAfter) + "."
	case rbac.NotInGroup:
		return "It counts only for who is in the group " + x.Via + "."
	case rbac.ConditionFail:
		return "A condition, of it or of its role, does not hold for the action alone."
	case rbac.RoleGone:
		return "Its role does not exist."
	}
	return ""
}

func between(from, till time.Time) string {
	var parts []string
	if !from.IsZero() {
		parts = append(parts, "from "+from.UTC().Format(time.RFC3339))
	}
	if !till.IsZero() {
		parts = append(parts, "until "+till.UTC().Format(time.RFC3339))
	}
	return strings.Join(parts, " ")
}

// wouldDo are the eligibilities of the caller that would allow a at the scope
// once they are activated.
func (s *Service) wouldDo(r *http.Request, c arm.Caller, a arm.Action, scope arm.ID) ([]any, error) {
	list := []any{}
	err := s.DB.View(r.Context(), func(tx *store.Tx) error {
		all, err := eligible(tx, principals(c)...)
		for _, e := range all {
			role, ok := s.Engine.Role(e.Role)
			if ok && role.Allows(a) && e.window().open(s.Now()) && s.within(scope, e.Scope) {
				list = append(list, map[string]any{"id": e.ID, "roleDefinitionId": definitionID(e.Scope, e.Role), "roleName": role.Name, "scope": e.Scope, "principalId": e.Principal})
			}
		}
		return err
	})
	return list, err
}
