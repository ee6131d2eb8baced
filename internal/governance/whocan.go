package governance

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/rbac"
	"castellan/internal/store"
)

// The states of who can do something.
const (
	activeNow   = "Active"      // the next request is let in
	conditional = "Conditional" // if a condition holds, which depends on the request
	couldBe     = "Eligible"    // once they activate the role
)

// way is how one principal may do what was asked about: by an assignment or an
// eligibility, given to the last of path or to the principal itself.
type way struct {
	Principal string     `json:"principalId"`
	Kind      arm.Kind   `json:"principalType"`
	State     string     `json:"state"`
	By        string     `json:"id"`
	Role      string     `json:"roleDefinitionId"`
	RoleName  string     `json:"roleName"`
	Scope     arm.ID     `json:"scope"`
	Path      []string   `json:"throughGroups"` // from the principal's own group up to the one that was given the role
	Start     *time.Time `json:"startDateTime,omitempty"`
	End       *time.Time `json:"endDateTime,omitempty"`
	Condition string     `json:"condition,omitempty"`
}

// listWhoCan answers who may do an action at a scope, and by which chain:
// assignment or eligibility, groups, role.
func (s *Service) listWhoCan(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	scope, err := g.On(ReadAssignment)
	if err != nil {
		return err
	}
	a, err := s.askedAction(r)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	after, err := cursor(q)
	if err != nil {
		return err
	}
	var all candidates
	err = s.DB.View(r.Context(), func(tx *store.Tx) error {
		if _, err := s.scope(tx, scope); err != nil {
			return err
		}
		all, err = s.candidates(tx, g.Caller().Tenant, a, scope)
		return err
	})
	if err != nil {
		return err
	}
	found := s.ways(all, g.Caller().Tenant, a, scope) // after the snapshot: the gate takes its own
	order := func(x way) string { return x.Principal + "|" + key(x.By) }
	slices.SortFunc(found, func(x, y way) int { return strings.Compare(order(x), order(y)) })
	found = slices.DeleteFunc(found, func(x way) bool { return order(x) <= after })
	out := map[string]any{}
	if len(found) > page {
		found = found[:page]
		out["nextLink"] = s.next(r, q, order(found[page-1]))
	}
	out["value"] = append([]way{}, found...)
	gate.WriteJSON(w, http.StatusOK, out)
	return nil
}

// askedAction is the action of the query: one of the platform's by its name, and any
// other for what isDataAction says it is.
func (s *Service) askedAction(r *http.Request) (arm.Action, error) {
	q := r.URL.Query()
	name, data := q.Get("action"), strings.ToLower(q.Get("isDataAction"))
	switch {
	case strings.Count(name, "/") < 2 || strings.ContainsAny(name, "* '\""):
		return arm.Action{}, arm.Errorf(arm.BadRequest, "the query's action is %q; it must be one action, such as Microsoft.KeyVault/vaults/read", name)
	case data != "" && data != "true" && data != "false":
		return arm.Action{}, arm.Errorf(arm.BadRequest, "the query's isDataAction is %q; it must be true or false", data)
	}
	for _, a := range s.Actions() {
		if a.Key() == strings.ToLower(name) && (data == "" || a.Data() == (data == "true")) {
			return a, nil
		}
	}
	if data == "true" {
		return arm.NewDataAction(name, ""), nil
	}
	return arm.NewAction(name, ""), nil
}

// ways are all ways by which principals of the tenant may do a at the scope, or
// could after an activation. Who has no way by roles is not among them: holders
// of keys and signatures, and those of a vault's access policies.
func (s *Service) ways(all candidates, tenant string, a arm.Action, scope arm.ID) (out []way) {
	paths := all.paths
	for who := range paths {
		c, err := s.Known(tenant, who)
		if err != nil {
			continue // a group, or somebody who may not sign in
		}
		if _, denied := s.Engine.Denied(c, a, scope, nil); denied {
			continue
		}
		add := func(state, by string, role rbac.Role, principal string, at arm.ID) *way {
			out = append(out, way{Principal: who, Kind: c.Kind, State: state, By: by, Role: definitionID(at, role.ID), RoleName: role.Name, Scope: at, Path: append([]string{}, paths[who][principal]...)})
			return &out[len(out)-1]
		}
		allowed, _ := s.Gate.Judge(c, a, gate.Target{ID: scope})
		for _, x := range s.Engine.Explain(c, a, scope) {
			state := map[rbac.Verdict]string{rbac.Allows: activeNow, rbac.ConditionFail: conditional}[x.Verdict]
			if state == "" || state == activeNow && !allowed {
				continue
			}
			y := add(state, x.ID, x.Role, key(x.Principal), x.Scope)
			y.Start, y.End, y.Condition = instant(x.NotBefore), instant(x.NotAfter), x.Condition
		}
		if c.Kind != arm.User {
			continue // only people activate
		}
		for _, e := range all.eligible {
			if _, in := paths[who][e.Principal]; !in {
				continue
			}
			role, _ := s.Engine.Role(e.Role)
			y := add(couldBe, e.ID.String(), role, e.Principal, e.Scope)
			y.Start, y.End = instant(e.Start), instant(e.End)
		}
	}
	return out
}

func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// candidates are the principals that something at a scope or above may reach.
type candidates struct {
	paths    map[string]map[string][]string // by principal and by the holder of what may reach it: the groups between
	eligible []*eligibility                 // whose role has the action
}

func (s *Service) candidates(tx *store.Tx, tenant string, a arm.Action, scope arm.ID) (candidates, error) {
	all, seen := candidates{paths: map[string]map[string][]string{}}, map[string]bool{}
	reach := func(holder string) {
		if seen[holder] {
			return
		}
		seen[holder] = true
		for who, path := range s.spread(tenant, holder) {
			if all.paths[who] == nil {
				all.paths[who] = map[string][]string{}
			}
			all.paths[who][holder] = path
		}
	}
	for _, k := range append([]string{scope.Key()}, s.above(scope)...) {
		given, err := exactly(tx, k)
		if err != nil {
			return all, err
		}
		for _, x := range given {
			if role, ok := s.Engine.Role(x.Role); ok && role.May(a) && s.owner(x) == tenant {
				reach(x.Principal)
			}
		}
		able, err := store.ScanJSON[eligibility](tx, eligibilities, strings.TrimSuffix(k, "/")+"/providers/"+key(eligibilityType)+"/", "", 0)
		if err != nil {
			return all, err
		}
		for i := range able {
			e := &able[i]
			if role, ok := s.Engine.Role(e.Role); ok && role.May(a) && e.window().open(s.Now()) {
				all.eligible = append(all.eligible, e)
				reach(e.Principal)
			}
		}
	}
	return all, nil
}

// spread is the holder and, if it is a group, all who are in it, each with the
// shortest way up: the groups between them and the holder, and the holder.
func (s *Service) spread(tenant, holder string) map[string][]string {
	out := map[string][]string{holder: nil}
	for todo := []string{holder}; len(todo) > 0; todo = todo[1:] {
		for _, m := range s.Members(tenant, todo[0]) {
			if _, ok := out[m]; ok {
				continue
			}
			out[m] = append([]string{todo[0]}, out[todo[0]]...)
			todo = append(todo, m)
		}
	}
	return out
}
