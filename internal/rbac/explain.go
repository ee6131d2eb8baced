package rbac

import (
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/condition"
)

// Verdict is what one assignment does to a question.
type Verdict string

// The verdicts.
const (
	Allows        Verdict = "Allows"
	LacksAction   Verdict = "LacksAction"     // its role does not have the action
	OtherScope    Verdict = "OtherScope"      // it would do, but begins where the resource is not
	Untimely      Verdict = "OutsideItsTime"  // its time has not come, or is over
	NotInGroup    Verdict = "NotInGroup"      // it counts only in a group that the caller is not in
	ConditionFail Verdict = "ConditionNotMet" // a condition does not hold for the action alone
	RoleGone      Verdict = "RoleGone"        // its role is not there
)

// Weighed is an assignment, its role, and what it does to a question.
type Weighed struct {
	Assignment
	Role    Role // zero if it is not there
	Verdict Verdict
}

// Explain holds the question against every assignment of the caller and the
// caller's groups: first those that reach the resource, innermost first, then
// those that would open the action elsewhere. One allows if and only if Decide does,
// deny assignments aside:
// conditions are held against the action alone.
func (e *Engine) Explain(c arm.Caller, a arm.Action, on arm.ID) []Weighed {
	if refuse(&c, a, on) != "" {
		return nil
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	who, k := &identity{object: c.Object, groups: c.Groups}, actionKey{a.Key(), a.Data()}
	above := e.scopes(nil, on.Key())
	rank := func(w Weighed) int {
		if at := slices.Index(above, w.Scope.Key()); at >= 0 {
			return at
		}
		return len(above)
	}
	var out []Weighed
	for _, h := range e.holdersOf(c.Object, c.Groups, nil) {
		for _, y := range h.all {
			x := y.x
			w := Weighed{x.Assignment, x.slot.def, e.verdict(x, who, k, a)}
			if rank(w) == len(above) {
				if w.Verdict != Allows {
					continue
				}
				w.Verdict = OtherScope
			}
			out = append(out, w)
		}
	}
	slices.SortFunc(out, func(x, y Weighed) int {
		if d := rank(x) - rank(y); d != 0 {
			return d
		}
		return compareIDs(x.Assignment, y.Assignment)
	})
	return out
}

// verdict is what x does to the action for w, wherever it begins. Callers hold mu.
func (e *Engine) verdict(x *entry, w *identity, k actionKey, a arm.Action) Verdict {
	role := x.slot.role
	switch {
	case role == nil:
		return RoleGone
	case !role.allows(k) && !role.mayAllow(k):
		return LacksAction
	case x.effective(w) < 0:
		return NotInGroup
	case x.timed && (e.now == nil || !x.Holds(e.now())):
		return Untimely
	}
	at := condition.Attributes{Action: a.Name()}
	for _, all := range role.conditions(k, role.allows(k)) {
		if m := (&maybe{conditions: all}); m.holds(&at) && (x.Condition == "" || x.cond.Holds(&at)) {
			return Allows
		}
	}
	return ConditionFail
}

// Gives reports whether a block of the role gives the action, whatever the role
// takes away again.
func (r Role) Gives(a arm.Action) bool {
	less := Role{Permissions: slices.Clone(r.Permissions)}
	for i := range less.Permissions {
		less.Permissions[i].NotActions, less.Permissions[i].NotDataActions = nil, nil
	}
	return less.Allows(a)
}

// May reports whether the role has the action, if need be under a condition.
func (r Role) May(a arm.Action) bool {
	c, k := compileRole(r), actionKey{a.Key(), a.Data()}
	return !a.IsZero() && (c.allows(k) || c.mayAllow(k))
}

// Narrowest is, of the roles that have the action, the one that opens the fewest
// of the known actions; of those alike, the one with the narrowest patterns.
func Narrowest(roles []Role, a arm.Action, known []arm.Action) (best Role, ok bool) {
	var least [2]int
	for _, r := range roles {
		c := compileRole(r)
		if a.IsZero() || !c.allows(actionKey{a.Key(), a.Data()}) {
			continue
		}
		size := [2]int{0, r.breadth()}
		for _, x := range known {
			if c.allows(actionKey{x.Key(), x.Data()}) {
				size[0]++
			}
		}
		if d := slices.Compare(size[:], least[:]); !ok || d < 0 || d == 0 && r.Name < best.Name {
			best, least, ok = r, size, true
		}
	}
	return best, ok
}

// breadth orders roles by how much their patterns could mean: one for each, and
// far more for each with a star, the more the further left it stands.
func (r Role) breadth() (n int) {
	for _, p := range r.Permissions {
		for _, text := range slices.Concat(p.Actions, p.DataActions) {
			n++
			if at := strings.IndexByte(text, '*'); at >= 0 {
				n += 1000 / (strings.Count(text[:at], "/") + 1)
			}
		}
	}
	return n
}
