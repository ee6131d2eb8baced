package rbac

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/condition"
)

// Everyone is the principal of a deny assignment that stands for all.
const Everyone = "00000000-0000-0000-0000-000000000000"

// Deny is a deny assignment: it takes actions from principals at a scope and
// below it, whatever roles give.
type Deny struct {
	ID               string
	Name             string
	Scope            arm.ID
	Permissions      []Permission // each denies by itself; conditions of theirs are not read
	Principals       []string     // object ids, also of groups; Everyone
	Excluded         []string     // object ids, also of groups, whom it leaves alone
	Here             bool         // it does not reach below the scope
	Condition        string
	ConditionVersion string
}

// denial is a Deny in the form that answers.
type denial struct {
	Deny
	blocks []*compiled
	cond   *condition.Condition // nil: it always holds, also if it can't be read
}

// unless are deny assignments that a decision hangs on, each if its condition holds.
type unless struct {
	x    *denial
	next *unless
}

// undeniable are the actions that no deny assignment takes from who has a role
// for them: what was denied by mistake could else never be given back.
func undeniable(k actionKey) bool {
	return !k.data && (k.name == "microsoft.authorization/denyassignments/read" || k.name == "microsoft.authorization/denyassignments/delete")
}

// PutDeny adds a deny assignment, or replaces the one with its id.
func (e *Engine) PutDeny(d Deny) error {
	if d.ID == "" || d.Scope.IsZero() || len(d.Principals) == 0 {
		return errors.New("a deny assignment needs an id, a scope and a principal")
	}
	x := &denial{Deny: d}
	x.Principals, x.Excluded = lower(d.Principals), lower(d.Excluded)
	for _, p := range d.Permissions {
		p.Condition = ""
		x.blocks = append(x.blocks, compileRole(Role{Permissions: []Permission{p}}))
	}
	if d.Condition != "" {
		x.cond, _ = condition.Parse(d.Condition, d.ConditionVersion)
	}
	e.change(func() {
		e.dropDeny(d.ID)
		e.denials[strings.ToLower(d.ID)] = x
		e.deniedAt[d.Scope.Key()] = append(e.deniedAt[d.Scope.Key()], x)
	})
	return nil
}

// RemoveDeny forgets the deny assignment with this id, if there is one.
func (e *Engine) RemoveDeny(id string) { e.change(func() { e.dropDeny(id) }) }

// dropDeny takes a deny assignment out. The caller holds mu.
func (e *Engine) dropDeny(id string) {
	x := e.denials[strings.ToLower(id)]
	if x == nil {
		return
	}
	delete(e.denials, strings.ToLower(id))
	k := x.Scope.Key()
	if e.deniedAt[k] = slices.DeleteFunc(e.deniedAt[k], func(y *denial) bool { return x == y }); len(e.deniedAt[k]) == 0 {
		delete(e.deniedAt, k)
	}
}

func lower(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = strings.ToLower(s)
	}
	return out
}

// Denied is the answer of a deny assignment that stands against the question; ok
// is false if none does. A condition that asks for what is not known may hold.
func (e *Engine) Denied(c arm.Caller, a arm.Action, on arm.ID, attributes func() *condition.Attributes) (d Decision, ok bool) {
	if refuse(&c, a, on) != "" {
		return Decision{}, false
	}
	e.mu.RLock()
	d, u := e.denied(&identity{object: c.Object, groups: c.Groups}, actionKey{a.Key(), a.Data()}, on.Key())
	e.mu.RUnlock()
	if d.By == "" && u != nil {
		at := attributesOf(a, attributes)
		d = u.first(&at)
	}
	return d, d.By != ""
}

// attributesOf are the attributes with the action.
func attributesOf(a arm.Action, attributes func() *condition.Attributes) (at condition.Attributes) {
	if attributes != nil {
		if got := attributes(); got != nil {
			at = *got
		}
	}
	at.Action = a.Name()
	return at
}

// first is the answer of the first whose condition may hold, or the zero Decision.
func (u *unless) first(at *condition.Attributes) Decision {
	for ; u != nil; u = u.next {
		if u.x.cond.MayHold(at) {
			return u.x.decision()
		}
	}
	return Decision{}
}

func (x *denial) decision() Decision {
	return Decision{By: x.ID, Reason: fmt.Sprintf("the deny assignment '%s' denies it: %s", x.Name, x.ID)}
}

// denied goes up from the scope until a deny assignment stands against the
// action, and collects those that do if their conditions hold. Callers hold mu.
func (e *Engine) denied(w *identity, k actionKey, scope string) (d Decision, u *unless) {
	if len(e.denials) == 0 || undeniable(k) {
		return Decision{}, nil
	}
	var room [16]string
	for _, s := range e.scopes(room[:0], scope) {
		for _, x := range e.deniedAt[s] {
			switch {
			case x.Here && s != scope, !x.of(w), !slices.ContainsFunc(x.blocks, func(c *compiled) bool { return c.allows(k) }):
			case x.cond == nil:
				return x.decision(), nil
			default:
				u = &unless{x, u}
			}
		}
	}
	return Decision{}, u
}

// of reports whether x is about the caller.
func (x *denial) of(w *identity) bool {
	names := func(list []string) bool {
		return slices.Contains(list, strings.ToLower(w.object)) || slices.ContainsFunc(w.groups, func(g string) bool { return slices.Contains(list, strings.ToLower(g)) })
	}
	return (slices.Contains(x.Principals, Everyone) || names(x.Principals)) && !names(x.Excluded)
}
