package rbac

import (
	"cmp"
	"slices"
	"strings"

	"castellan/internal/arm"
)

// Filter chooses assignments for a list. Nothing is decided by filters. They
// must not call the engine.
type Filter func(Assignment) bool

// AtScope keeps assignments that begin exactly at the scope.
func AtScope(on arm.ID) Filter {
	return func(a Assignment) bool { return a.Scope.Key() == on.Key() }
}

// Below keeps assignments that begin at the scope or anywhere inside it.
func (e *Engine) Below(on arm.ID) Filter {
	e.mu.RLock()
	parents := e.parents
	e.mu.RUnlock()
	if !strings.HasPrefix(on.Key(), managementGroups) {
		return func(a Assignment) bool { return a.Scope.Within(on) }
	}
	return func(a Assignment) bool {
		return slices.Contains(scopes(nil, a.Scope.Key(), parents), on.Key())
	}
}

// ByPrincipal keeps assignments to the object itself or to one of the groups.
func ByPrincipal(object string, groups ...string) Filter {
	ids := map[string]bool{strings.ToLower(object): true}
	for _, g := range groups {
		ids[strings.ToLower(g)] = true
	}
	return func(a Assignment) bool { return ids[strings.ToLower(a.Principal)] }
}

// ByRole keeps assignments of the role.
func ByRole(id string) Filter {
	return func(a Assignment) bool { return roleKey(a.RoleID) == roleKey(id) }
}

// Above keeps assignments that reach the scope: those that begin at it, at a
// scope that holds it, or at a management group above it.
func (e *Engine) Above(on arm.ID) Filter {
	if on.IsZero() {
		return func(Assignment) bool { return false }
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	keys := map[string]bool{}
	for _, k := range e.scopes(nil, on.Key()) {
		keys[k] = true
	}
	return func(a Assignment) bool { return keys[a.Scope.Key()] }
}

// Inside reports whether the caller has an assignment that reaches the scope or
// begins somewhere inside it.
func (e *Engine) Inside(c arm.Caller, scope arm.ID) bool {
	if c.IsZero() || c.Lease != nil || scope.IsZero() {
		return false
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	above, who := e.scopes(nil, scope.Key()), &identity{object: c.Object, groups: c.Groups}
	group := strings.HasPrefix(scope.Key(), managementGroups)
	for _, h := range e.holdersOf(c.Object, c.Groups, nil) {
		for _, y := range h.all {
			x := y.x
			if e.gives(x, who) && (slices.Contains(above, x.Scope.Key()) || x.Scope.Within(scope) || group && slices.Contains(e.scopes(nil, x.Scope.Key()), scope.Key())) {
				return true
			}
		}
	}
	return false
}

// gives reports whether x gives anything to w now. Callers hold mu.
func (e *Engine) gives(x *entry, w *identity) bool {
	return x.effective(w) >= 0 && (!x.timed || e.now != nil && x.Holds(e.now()))
}

// Assignments lists what passes all filters, by id; everything without a filter.
func (e *Engine) Assignments(keep ...Filter) []Assignment {
	e.mu.RLock()
	defer e.mu.RUnlock()
	var out []Assignment
	for _, x := range e.given {
		if passes(x.Assignment, keep) {
			out = append(out, x.Assignment)
		}
	}
	slices.SortFunc(out, compareIDs)
	return out
}

// Assignment is the assignment with this id.
func (e *Engine) Assignment(id string) (Assignment, bool) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	x := e.given[strings.ToLower(id)]
	if x == nil {
		return Assignment{}, false
	}
	return x.Assignment, true
}

func compareIDs(a, b Assignment) int { return cmp.Compare(a.ID, b.ID) }

func passes(a Assignment, keep []Filter) bool {
	for _, f := range keep {
		if !f(a) {
			return false
		}
	}
	return true
}

// Considered lists the assignments that Decide looks at for the question,
// innermost scope first: all of the caller's that reach the resource, also
// those that do not open the action.
func (e *Engine) Considered(c arm.Caller, a arm.Action, on arm.ID) []Assignment {
	if refuse(&c, a, on) != "" {
		return nil
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	var out []Assignment
	holders := e.holdersOf(c.Object, c.Groups, nil)
	for _, s := range e.scopes(nil, on.Key()) {
		from := len(out)
		for _, h := range holders {
			h.each(s, e.hash(s), func(x *entry) { out = append(out, x.Assignment) })
		}
		slices.SortFunc(out[from:], compareIDs)
	}
	return out
}

// Held lists what was given to the principal itself, by id.
func (e *Engine) Held(principal string) []Assignment {
	e.mu.RLock()
	defer e.mu.RUnlock()
	h := e.holders[strings.ToLower(principal)]
	if h == nil {
		return nil
	}
	out := make([]Assignment, len(h.all))
	for i, y := range h.all {
		out[i] = y.x.Assignment
	}
	slices.SortFunc(out, compareIDs)
	return out
}
