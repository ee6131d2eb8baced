package rbac

import (
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"castellan/internal/condition"
)

// Engine holds roles and assignments in memory and decides by them. Every
// change holds for the next Decide. An Engine is safe for concurrent use.
//
// It fails closed: whatever it cannot understand gives nothing. That goes for
// a condition that can't be read or asks for what is not there, an
// assignment of a role that is not there, one that is bound to a time while
// there is no clock, and a zero caller, action or id.
type Engine struct {
	seed maphash.Seed

	// gen counts the changes, floor is the last that could count for everybody,
	// and stamps the last for each stripe of principals. What was remembered at a
	// gen is used while none that it hangs on is later. All are written under mu.
	gen, floor atomic.Uint64
	stamps     [stripes]atomic.Uint64

	decisions *table[decided]
	views     *table[view]
	masks     *table[mask]

	mu      sync.RWMutex // guards everything below
	roles   map[string]*roleSlot
	slots   []*roleSlot
	given   map[string]*entry  // by assignment id, lower case
	holders map[string]*holder // by principal, lower case
	parents func(subscriptionKey string) []string

	denials  map[string]*denial   // by id, lower case
	deniedAt map[string][]*denial // by scope key

	now func() time.Time // nil: what is bound to a time gives nothing
}

// roleSlot stands for a role id, whether or not the role is there.
type roleSlot struct {
	index int
	def   Role
	role  *compiled // nil when the role is not there
}

// entry is an assignment in the index.
type entry struct {
	Assignment
	slot  *roleSlot
	timed bool                 // the clock counts
	cond  *condition.Condition // nil if there is none, or it can't be read
	pos   int                  // place in its holder's list
}

// holder is what was given to one principal.
type holder struct {
	all []held
	at  map[string][]*entry // by scope key; nil while all is short
}

// held is an assignment, with what is asked of all of them beside it.
type held struct {
	x    *entry
	hash uint64 // of the scope's key
	role int32  // its slot
	odd  bool   // it is bound to a time or to a group
}

// Sizes, in entries.
const (
	decisionCache = 1 << 16 // decisions remembered
	viewCache     = 1 << 12 // callers whose assignments are kept gathered
	maskCache     = 1 << 14 // actions remembered against all roles
	stripes       = 1 << 12 // principals are changed apart in so many parts
	shortList     = 64      // assignments that a principal has before they are indexed by scope
	viewLimit     = 512     // assignments gathered for a caller at most; beyond, the index is asked
)

// New is an engine with these roles and no assignments.
func New(roles []Role) *Engine {
	e := &Engine{
		seed:      maphash.MakeSeed(),
		decisions: newTable[decided](decisionCache),
		views:     newTable[view](viewCache),
		roles:     map[string]*roleSlot{},
		given:     map[string]*entry{},
		masks:     newTable[mask](maskCache),
		holders:   map[string]*holder{},
		denials:   map[string]*denial{},
		deniedAt:  map[string][]*denial{},
	}
	for _, r := range roles {
		e.PutRole(r)
	}
	return e
}

// SetParents says how to find the management groups above a subscription: f
// takes the key of a subscription (/subscriptions/ID) or of a management group,
// and lists the keys of the management groups above it, innermost first. It
// must not call the engine. Its answers change within Move alone.
func (e *Engine) SetParents(f func(subscriptionKey string) []string) {
	e.change(func() { e.parents = f })
}

// SetClock says what time it is, for assignments that are bound to a time: each
// decision looks at the clock anew. now must not call the engine.
func (e *Engine) SetClock(now func() time.Time) {
	e.change(func() { e.now = now })
}

// Move runs f, after which parents may answer otherwise, and asks them anew: no
// decision is made of the old chain and the new one.
func (e *Engine) Move(f func()) { e.change(f) }

// PutRole adds a role, or replaces the one with its id.
func (e *Engine) PutRole(r Role) {
	c := compileRole(r)
	e.change(func() {
		s := e.slot(r.ID)
		s.def, s.role = r, c
	})
}

// RemoveRole forgets a role; assignments of it give nothing from then on.
func (e *Engine) RemoveRole(id string) {
	e.change(func() {
		s := e.slot(id)
		s.def, s.role = Role{}, nil
	})
}

// Role is the role with this id.
func (e *Engine) Role(id string) (Role, bool) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	s := e.roles[roleKey(id)]
	if s == nil || s.role == nil {
		return Role{}, false
	}
	return s.def, true
}

// Roles lists all roles by id.
func (e *Engine) Roles() []Role {
	e.mu.RLock()
	defer e.mu.RUnlock()
	var out []Role
	for _, k := range slices.Sorted(maps.Keys(e.roles)) {
		if s := e.roles[k]; s.role != nil {
			out = append(out, s.def)
		}
	}
	return out
}

// slot finds or makes the slot of a role id. The caller holds mu.
func (e *Engine) slot(id string) *roleSlot {
	k := roleKey(id)
	s := e.roles[k]
	if s == nil {
		s = &roleSlot{index: len(e.slots)}
		e.roles[k] = s
		e.slots = append(e.slots, s)
	}
	return s
}

// PutAssignment adds an assignment, or replaces the one with its id.
func (e *Engine) PutAssignment(a Assignment) error {
	if a.ID == "" || a.RoleID == "" || a.Principal == "" {
		return errors.New("an assignment needs an id, a role and a principal")
	}
	if a.Scope.IsZero() {
		return fmt.Errorf("the assignment %s has no scope", a.ID)
	}
	x := &entry{Assignment: a, timed: a.Timed()}
	if a.Condition != "" {
		x.cond, _ = condition.Parse(a.Condition, a.ConditionVersion) // what can't be read never holds
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	gen := e.gen.Load() + 1
	e.drop(a.ID, gen)
	x.slot = e.slot(a.RoleID)
	e.given[strings.ToLower(a.ID)] = x
	k := strings.ToLower(a.Principal)
	if e.holders[k] == nil {
		e.holders[k] = &holder{}
	}
	e.holders[k].add(held{x, e.hash(a.Scope.Key()), int32(x.slot.index), x.timed || a.Via != ""})
	e.stamps[e.stripe(k)].Store(gen)
	e.gen.Store(gen)
	return nil
}

// RemoveAssignment forgets the assignment with this id, if there is one.
func (e *Engine) RemoveAssignment(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	gen := e.gen.Load() + 1
	e.drop(id, gen)
	e.gen.Store(gen)
}

// drop takes an assignment out of the index. The caller holds mu, and makes gen
// the engine's afterwards.
func (e *Engine) drop(id string, gen uint64) {
	id = strings.ToLower(id)
	x := e.given[id]
	if x == nil {
		return
	}
	delete(e.given, id)
	k := strings.ToLower(x.Principal)
	h := e.holders[k]
	h.remove(x)
	if len(h.all) == 0 {
		delete(e.holders, k)
	}
	e.stamps[e.stripe(k)].Store(gen)
}

// change runs f alone and then makes everybody decide anew.
func (e *Engine) change(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f()
	gen := e.gen.Load() + 1
	e.floor.Store(gen)
	e.gen.Store(gen)
}

// stripe is where the changes of a principal, in lower case, are stamped.
func (e *Engine) stripe(principal string) uint16 { return uint16(e.hash(principal) % stripes) }

// still reports whether what was found for w at gen holds yet.
func (e *Engine) still(gen uint64, w *identity) bool {
	if e.floor.Load() > gen {
		return false
	}
	for _, s := range w.stripes {
		if e.stamps[s].Load() > gen {
			return false
		}
	}
	return true
}

func (h *holder) add(y held) {
	y.x.pos = len(h.all)
	h.all = append(h.all, y)
	if h.at != nil {
		k := y.x.Scope.Key()
		h.at[k] = append(h.at[k], y.x)
		return
	}
	if len(h.all) <= shortList {
		return
	}
	h.at = map[string][]*entry{}
	for _, y := range h.all {
		k := y.x.Scope.Key()
		h.at[k] = append(h.at[k], y.x)
	}
}

func (h *holder) remove(x *entry) {
	last := len(h.all) - 1
	h.all[x.pos] = h.all[last]
	h.all[x.pos].x.pos = x.pos
	h.all[last] = held{}
	h.all = h.all[:last]
	if h.at == nil {
		return
	}
	k := x.Scope.Key()
	rest := slices.DeleteFunc(h.at[k], func(y *entry) bool { return y == x })
	if len(rest) == 0 {
		delete(h.at, k)
		return
	}
	h.at[k] = rest
}

// each calls f with every assignment of h that begins at the scope, of which hash is.
func (h *holder) each(scope string, hash uint64, f func(*entry)) {
	if h.at != nil {
		for _, x := range h.at[scope] {
			f(x)
		}
		return
	}
	for _, y := range h.all {
		if y.hash == hash && y.x.Scope.Key() == scope {
			f(y.x)
		}
	}
}
