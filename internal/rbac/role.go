// Package rbac decides who may do what where: roles, their assignments, and a pure engine over both.
package rbac

import (
	"slices"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/condition"
)

// Role is a named set of permissions, Azure's role definition.
type Role struct {
	ID               string // a GUID
	Name             string // for people; nothing is decided by it
	Description      string // for people
	BuiltIn          bool   // came with the program and cannot be changed
	Permissions      []Permission
	AssignableScopes []string // where it may be assigned; held by whoever writes assignments
}

// Permission is one block of a role. What the blocks of a role give adds up;
// what any of them takes away is taken from all of that role, and from no other.
type Permission struct {
	Actions        []string // control-plane patterns given
	NotActions     []string // and taken away again
	DataActions    []string // data patterns given
	NotDataActions []string // and taken away again

	// Condition restricts what the block gives; what it takes away, it takes away
	// whether or not it holds.
	Condition        string
	ConditionVersion string
}

// Assignment gives a role to a principal at a scope and everywhere below it.
type Assignment struct {
	ID            string   // full resource id of the assignment
	Scope         arm.ID   // where it begins
	RoleID        string   // the role's GUID, or a resource id that ends in it
	Principal     string   // object id; never a name
	PrincipalType arm.Kind // what the principal is

	// Condition restricts the assignment; one that can't be read gives nothing.
	Condition        string
	ConditionVersion string

	// NotBefore and NotAfter bound the time in which the assignment gives
	// anything: from NotBefore on, and at NotAfter no more. Zero is no bound.
	NotBefore, NotAfter time.Time

	// Via is a group; the assignment gives nothing to who is not in it. "" is none.
	Via string
}

// Timed reports whether the clock counts for the assignment.
func (a Assignment) Timed() bool { return !a.NotBefore.IsZero() || !a.NotAfter.IsZero() }

// Holds reports whether the assignment's time has begun and not ended at now.
func (a Assignment) Holds(now time.Time) bool {
	return !now.Before(a.NotBefore) && (a.NotAfter.IsZero() || now.Before(a.NotAfter))
}

// roleKey is the one form in which role ids are compared: the GUID, lower case.
func roleKey(id string) string {
	return strings.ToLower(id[strings.LastIndexByte(id, '/')+1:])
}

// compiled is a role in the form that answers.
type compiled struct {
	name          string
	control, data grants
	blocks        []block // those with a condition
}

// block is what a role gives if a condition holds.
type block struct {
	control, data []pattern
	cond          *condition.Condition // nil, which never holds, if it can't be read
}

// grants is what a role gives and takes in one plane.
type grants struct{ allow, except []pattern }

func compileRole(r Role) *compiled {
	c := &compiled{name: r.Name}
	for _, p := range r.Permissions {
		c.control.except = appendPatterns(c.control.except, p.NotActions)
		c.data.except = appendPatterns(c.data.except, p.NotDataActions)
		if p.Condition != "" {
			b := block{control: appendPatterns(nil, p.Actions), data: appendPatterns(nil, p.DataActions)}
			b.cond, _ = condition.Parse(p.Condition, p.ConditionVersion)
			c.blocks = append(c.blocks, b)
			continue
		}
		c.control.allow = appendPatterns(c.control.allow, p.Actions)
		c.data.allow = appendPatterns(c.data.allow, p.DataActions)
	}
	return c
}

func appendPatterns(to []pattern, texts []string) []pattern {
	for _, t := range texts {
		to = append(to, compile(t))
	}
	return to
}

// allows reports whether the role opens the action of this key in its plane.
func (c *compiled) allows(k actionKey) bool {
	g := &c.control
	if k.data {
		g = &c.data
	}
	return anyCovers(g.allow, k.name) && !anyCovers(g.except, k.name)
}

// mayAllow reports whether a block with a condition gives the action.
func (c *compiled) mayAllow(k actionKey) bool {
	return slices.ContainsFunc(c.blocks, func(b block) bool { return c.gives(b, k) })
}

func (c *compiled) gives(b block, k actionKey) bool {
	if k.data {
		return anyCovers(b.data, k.name) && !anyCovers(c.data.except, k.name)
	}
	return anyCovers(b.control, k.name) && !anyCovers(c.control.except, k.name)
}

// conditions are the conditions of which each by itself lets the role allow the
// action: an empty list stands for none.
func (c *compiled) conditions(k actionKey, allows bool) [][]*condition.Condition {
	if allows {
		return [][]*condition.Condition{nil}
	}
	var out [][]*condition.Condition
	for _, b := range c.blocks {
		if c.gives(b, k) {
			out = append(out, []*condition.Condition{b.cond})
		}
	}
	return out
}

// actionKey is an action in the form that is compared.
type actionKey struct {
	name string
	data bool
}

// Allows reports whether the role, on its own, allows the action.
func (r Role) Allows(a arm.Action) bool {
	return !a.IsZero() && compileRole(r).allows(actionKey{a.Key(), a.Data()})
}
