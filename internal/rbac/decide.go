package rbac

import (
	"hash/maphash"
	"strings"
	"sync/atomic"
	"time"

	"castellan/internal/arm"
	"castellan/internal/condition"
)

// Decision is an answer and what it rests on. The zero Decision denies.
type Decision struct {
	Allowed bool
	By      string // id of the assignment that allows, or of the deny assignment that denies
	Role    string // name of the role that it gives
	Reason  string // for people

	maybe  *maybe  // what conditions decide; nil once it is settled
	unless *unless // what is denied if conditions hold; nil once it is settled
}

// maybe is an assignment that allows, if its conditions hold.
type maybe struct {
	conditions []*condition.Condition
	d          Decision
	next       *maybe
}

// The reasons of decisions.
const (
	becauseAssigned     = "a role assignment allows it"
	becauseNobody       = "nobody is calling"
	becauseLease        = "the caller's credential carries its own rights, so roles do not count"
	becauseNothing      = "no action or no resource was named"
	becauseUnassigned   = "the caller has no role assignment here or above"
	becauseInsufficient = "none of the caller's roles here or above has the action"
	becauseUntimely     = "the time of the caller's only fitting role assignments has not come, or is over"
	becauseConditional  = "the conditions of the caller's only fitting role assignments do not hold"
)

// decided is a Decision together with everything it depends on.
type decided struct {
	gen    atomic.Uint64 // the last at which it is known to have held
	who    *identity
	action actionKey
	scope  string
	d      Decision
	span   *span // nil: it holds whatever the time
}

// span is a time in which a decision holds: the clock crosses no bound of the
// caller's assignments in it.
type span struct {
	clock      func() time.Time
	from, till time.Time // from counts, till does not; a zero till is no end
}

func (s *span) holds() bool {
	if s == nil {
		return true
	}
	now := s.clock()
	return !now.Before(s.from) && (s.till.IsZero() || now.Before(s.till))
}

// Decide says whether c may do a on the resource. An assignment counts when it
// names the caller or one of the caller's groups by object id, begins at the
// resource or at a scope that holds it, and gives a role that has the action,
// unless a deny assignment stands against it.
// It denies callers with a Lease, for whom the credential decides. Conditions
// are held against the action alone.
func (e *Engine) Decide(c arm.Caller, a arm.Action, on arm.ID) Decision {
	return e.settle(e.decide(&c, a, on), a, nil)
}

// DecideWith is Decide with what conditions may ask about the request, the
// resource and the caller. It is asked for only where a condition decides.
func (e *Engine) DecideWith(c arm.Caller, a arm.Action, on arm.ID, attributes func() *condition.Attributes) Decision {
	return e.settle(e.decide(&c, a, on), a, attributes)
}

// settle holds the conditions that d hangs on against the request.
func (e *Engine) settle(d *Decision, a arm.Action, attributes func() *condition.Attributes) Decision {
	if d.maybe == nil && (d.unless == nil || !d.Allowed) {
		return Decision{Allowed: d.Allowed, By: d.By, Role: d.Role, Reason: d.Reason}
	}
	at := attributesOf(a, attributes)
	if no := d.unless.first(&at); no.By != "" {
		return no
	}
	if d.maybe == nil {
		return Decision{Allowed: d.Allowed, By: d.By, Role: d.Role, Reason: d.Reason}
	}
	for m := d.maybe; m != nil; m = m.next {
		if m.holds(&at) {
			return m.d
		}
	}
	return Decision{Reason: becauseConditional}
}

func (m *maybe) holds(at *condition.Attributes) bool {
	for _, c := range m.conditions {
		if !c.Holds(at) {
			return false
		}
	}
	return true
}

// decide is Decide but for conditions. What it finds is remembered: nobody changes it.
func (e *Engine) decide(c *arm.Caller, a arm.Action, on arm.ID) *Decision {
	if why := refuse(c, a, on); why != "" {
		return &Decision{Reason: why}
	}
	// Reading gen first is what makes a change count for the next Decide.
	gen := e.gen.Load()
	k, object := actionKey{a.Key(), a.Data()}, e.hash(c.Object)
	h := mix(object, a.Hash(), e.hash(on.Key()))
	s := e.decisions.set(h)
	for i := range ways {
		if s.tag[i].Load() != h {
			continue
		}
		x := s.item[i].Load()
		if x == nil || !x.is(c, k, on.Key()) || !x.span.holds() {
			continue
		}
		if at := x.gen.Load(); at == gen {
			return &x.d
		} else if e.still(at, x.who) {
			x.gen.Store(gen) // a change since then is later than gen
			return &x.d
		}
	}
	return e.decideAnew(h, object, c, a, on)
}

func (x *decided) is(c *arm.Caller, k actionKey, scope string) bool {
	return x.action == k && x.scope == scope && x.who.is(c.Object, c.Groups)
}

// refuse is why a question is denied without looking, or "".
func refuse(c *arm.Caller, a arm.Action, on arm.ID) string {
	switch {
	case c.IsZero():
		return becauseNobody
	case c.Lease != nil:
		return becauseLease
	case a.Key() == "" || on.IsZero():
		return becauseNothing
	}
	return ""
}

// decideAnew looks at the assignments, and remembers what it found under h. The
// hash of the caller's object is object.
func (e *Engine) decideAnew(h, object uint64, c *arm.Caller, a arm.Action, on arm.ID) *Decision {
	k := actionKey{a.Key(), a.Data()}
	e.mu.RLock()
	defer e.mu.RUnlock()
	v := e.view(object, c.Object, c.Groups)
	now, in := e.span(v)
	d, u := e.denied(v.who, k, on.Key())
	if d.By == "" {
		d = e.weigh(v, e.mask(k, a.Hash()), on.Key(), now)
		d.unless = u
	}
	x := &decided{who: v.who, action: k, scope: on.Key(), d: d, span: in}
	x.gen.Store(e.gen.Load()) // cannot change under mu
	e.decisions.put(h, x)
	return &x.d
}

// span is the time now, and how long what is decided now holds. With no clock,
// or nothing that is bound to a time, the time is zero. Callers hold mu.
func (e *Engine) span(v *view) (now time.Time, in *span) {
	if len(v.timed) == 0 || e.now == nil {
		return time.Time{}, nil
	}
	now = e.now()
	in = &span{clock: e.now, from: now}
	for _, x := range v.timed {
		for _, edge := range [2]time.Time{x.NotBefore, x.NotAfter} {
			if edge.After(now) && (in.till.IsZero() || edge.Before(in.till)) {
				in.till = edge
			}
		}
	}
	return now, in
}

// weigh goes up from the scope until a role allows the action.
func (e *Engine) weigh(v *view, m *mask, scope string, now time.Time) Decision {
	var room [16]string
	out := Decision{Reason: becauseUnassigned}
	for _, s := range e.scopes(room[:0], scope) {
		h := e.hash(s)
		if v.places == nil {
			if e.weighHolders(v, m, s, h, now, &out); out.Allowed {
				return out
			}
			continue
		}
		p := v.place(h)
		for i, role := range v.roles[p.first:][:p.n] {
			if !m.any.has(role) {
				out.reached()
			} else if x := v.given[int(p.first)+i]; x.Scope.Key() == s && m.weigh(x, now, &out) {
				return out
			}
		}
	}
	return out
}

// weighHolders is weigh at one scope for a caller with very many assignments.
func (e *Engine) weighHolders(v *view, m *mask, scope string, hash uint64, now time.Time, out *Decision) {
	for _, h := range v.holders {
		h.each(scope, hash, func(x *entry) {
			switch {
			case out.Allowed:
			case !m.any.has(x.effective(v.who)):
				out.reached()
			default:
				m.weigh(x, now, out)
			}
		})
	}
}

// reached notes that an assignment reaches the resource, but does not do.
func (d *Decision) reached() {
	if d.Reason == becauseUnassigned {
		d.Reason = becauseInsufficient
	}
}

// weigh looks at when and on what condition x gives the action, which its role
// may give, and writes down what it finds. It reports whether the action is allowed.
func (m *mask) weigh(x *entry, now time.Time, out *Decision) bool {
	if x.timed && (now.IsZero() || !x.Holds(now)) {
		out.Reason = becauseUntimely
		return false
	}
	allows := m.all.has(int32(x.slot.index))
	d := Decision{Allowed: true, By: x.ID, Role: x.slot.role.name, Reason: becauseAssigned}
	if allows && x.Condition == "" {
		*out = d
		return true
	}
	for _, conditions := range x.slot.role.conditions(m.action, allows) {
		if x.Condition != "" {
			conditions = append(conditions, x.cond) // nil, which never holds, if it can't be read
		}
		out.maybe = &maybe{conditions, d, out.maybe}
	}
	return false
}

// bitset has a bit for every slot of a role.
type bitset []uint64

func (b bitset) has(i int32) bool {
	w := int(i >> 6)
	return uint(w) < uint(len(b)) && b[w]&(1<<(i&63)) != 0 // -1 is in none
}

// mask tells which roles give an action: whatever holds, and perhaps.
type mask struct {
	gen      uint64
	action   actionKey
	all, any bitset
}

// mask is that of the action, whose hash is h. Callers hold mu.
func (e *Engine) mask(k actionKey, h uint64) *mask {
	s, floor := e.masks.set(h), e.floor.Load()
	for i := range ways {
		if m := s.item[i].Load(); m != nil && m.gen >= floor && m.action == k {
			return m
		}
	}
	words := len(e.slots)/64 + 1
	both := make(bitset, 2*words)
	m := &mask{floor, k, both[:words], both[words:]}
	for i, s := range e.slots {
		if s.role == nil {
			continue
		}
		if s.role.allows(k) {
			m.all[i>>6] |= 1 << (i & 63)
			m.any[i>>6] |= 1 << (i & 63)
		} else if s.role.mayAllow(k) {
			m.any[i>>6] |= 1 << (i & 63)
		}
	}
	e.masks.put(h, m)
	return m
}

// scopes appends the key and all that hold it, as arm.ID.Scopes does, with the
// management groups between the subscription and the root. Callers hold mu.
func (e *Engine) scopes(to []string, key string) []string {
	return scopes(to, key, e.parents)
}

func scopes(to []string, key string, parents func(string) []string) []string {
	for key != "/" {
		to = append(to, key)
		up := above(key)
		if up == "/" && parents != nil && hasParents(key) {
			to = append(to, parents(key)...)
		}
		key = up
	}
	return append(to, "/")
}

const managementGroups = "/providers/microsoft.management/managementgroups/"

// hasParents reports whether management groups can hold the key directly.
func hasParents(key string) bool {
	return strings.HasPrefix(key, "/subscriptions/") || strings.HasPrefix(key, managementGroups)
}

// above is the key of the scope that directly holds key: arm.ID.Parent without
// making anything. A key is segments in pairs; a pair that begins with
// "providers" names a namespace and belongs to the pair after it.
func above(key string) string {
	up := key[:cutPair(key)]
	if n := cutPair(up); n < len(up) && strings.HasPrefix(up[n:], "/providers/") {
		up = up[:n]
	}
	if up == "" {
		return "/"
	}
	return up
}

// cutPair is where the last two segments of key begin; 0 if it has no more.
func cutPair(key string) int {
	n := strings.LastIndexByte(key, '/')
	if n <= 0 {
		return 0
	}
	return max(strings.LastIndexByte(key[:n], '/'), 0)
}

func (e *Engine) hash(s string) uint64 { return maphash.String(e.seed, s) }

// mix is the hash of a question by those of its parts. Groups are left to the
// comparison: who comes with other groups under one object id meets a miss.
func mix(object, action, scope uint64) uint64 {
	const odd = 0x9e3779b97f4a7c15
	h := (object^object>>29)*odd + action
	return (h^h>>29)*odd + scope
}
