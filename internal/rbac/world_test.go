package rbac

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"castellan/internal/arm"
)

// naive decides by looking at everything, each time.
type naive struct {
	roles   []Role
	given   []Assignment
	parents map[string][]string
	now     time.Time
}

func (n *naive) allows(c arm.Caller, a arm.Action, on arm.ID) (ids []string) {
	reach := map[string]bool{}
	for _, s := range on.Scopes() {
		reach[s] = true
		for _, up := range n.parents[s] {
			reach[up] = true
		}
	}
	open := map[string]bool{}
	for _, r := range n.roles {
		open[r.ID] = n.roleAllows(r.ID, a)
	}
	who := append([]string{c.Object}, c.Groups...)
	for _, x := range n.given {
		mine := slices.ContainsFunc(who, func(id string) bool { return strings.EqualFold(id, x.Principal) })
		if mine && reach[x.Scope.Key()] && x.Condition == "" && open[x.RoleID] && n.timely(c, x) {
			ids = append(ids, x.ID)
		}
	}
	return ids
}

// timely reports whether the assignment counts at this hour for this caller.
func (n *naive) timely(c arm.Caller, x Assignment) bool {
	if !x.NotBefore.IsZero() && n.now.Before(x.NotBefore) || !x.NotAfter.IsZero() && !n.now.Before(x.NotAfter) {
		return false
	}
	return x.Via == "" || slices.Contains(c.Groups, x.Via)
}

func (n *naive) roleAllows(id string, a arm.Action) bool {
	given, taken := false, false
	for _, r := range n.roles {
		if r.ID != id {
			continue
		}
		for _, p := range r.Permissions {
			yes, no := p.Actions, p.NotActions
			if a.Data() {
				yes, no = p.DataActions, p.NotDataActions
			}
			covers := func(x string) bool { return plainCovers(x, a.Name()) }
			given = given || p.Condition == "" && slices.ContainsFunc(yes, covers)
			taken = taken || slices.ContainsFunc(no, covers)
		}
	}
	return given && !taken
}

// world makes random things that often meet.
type world struct{ *rand.Rand }

func (w world) of(prefix string, n int) string { return fmt.Sprint(prefix, w.IntN(n)) }

func (w world) scope() string {
	s := "/subscriptions/" + w.of("s", 3)
	switch w.IntN(8) {
	case 0:
		return []string{"/", mgTop, mgLeaf}[w.IntN(3)]
	case 1, 2:
		return s
	case 3, 4:
		return s + "/resourceGroups/" + w.of("g1", 12)
	case 5:
		return s + "/providers/N/t/" + w.of("x", 3)
	}
	s += "/resourceGroups/" + w.of("g1", 12) + "/providers/N/t/" + w.of("x", 3)
	if w.IntN(3) == 0 {
		s += "/u/" + w.of("y", 2)
	}
	if w.IntN(5) == 0 {
		s += "/providers/M/e/" + w.of("z", 2)
	}
	return s
}

func (w world) action() string {
	return w.of("N", 3) + []string{"/", "/" + w.of("t", 3) + "/", "/" + w.of("t", 3) + "/" + w.of("u", 2) + "/"}[w.IntN(3)] +
		[]string{"read", "write", "delete"}[w.IntN(3)]
}

func (w world) patterns(n int) (out []string) {
	for range w.IntN(n + 1) {
		p := strings.Split(w.action(), "/")
		if w.IntN(2) == 0 {
			p[w.IntN(len(p))] = "*"
		}
		if w.IntN(3) == 0 {
			p = slices.Insert(p, w.IntN(len(p)), "*")
		}
		out = append(out, strings.Join(p, "/"))
	}
	return out
}

func (w world) role(id string) Role {
	r := Role{ID: id, Name: id}
	for range 1 + w.IntN(2) {
		p := Permission{Actions: w.patterns(4), NotActions: w.patterns(2), DataActions: w.patterns(2), NotDataActions: w.patterns(1)}
		if w.IntN(8) == 0 {
			p.Condition = "c"
		}
		r.Permissions = append(r.Permissions, p)
	}
	return r
}

func (w world) assignment(id string) Assignment {
	a := Assignment{ID: id, Scope: arm.MustID(w.scope()), RoleID: w.of("r", 12), Principal: w.of("p", 12)}
	if w.IntN(10) == 0 {
		a.Condition = "c"
	}
	if w.IntN(4) == 0 {
		a.NotBefore = w.hour()
	}
	if w.IntN(4) == 0 {
		a.NotAfter = w.hour()
	}
	if w.IntN(8) == 0 {
		a.Via = w.of("P", 12)
	}
	return a
}

func (w world) hour() time.Time { return day.Add(time.Duration(w.IntN(6)) * time.Hour) }

var day = time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC)

func (w world) question() (arm.Caller, arm.Action, arm.ID) {
	c := arm.Caller{Object: w.of("p", 12)}
	for range w.IntN(3) {
		c.Groups = append(c.Groups, w.of("P", 12))
	}
	a := arm.NewAction(w.action(), "")
	if w.IntN(3) == 0 {
		a = arm.NewDataAction(a.Name(), "")
	}
	return c, a, arm.MustID(w.scope())
}

// The engine agrees with the plainest reference while the world changes.
func TestAgreesWithNaive(t *testing.T) {
	asked, allowed := 0, 0
	for seed := range uint64(40) {
		w := world{rand.New(rand.NewPCG(seed, 7))}
		n := &naive{parents: map[string][]string{"/subscriptions/s0": {strings.ToLower(mgLeaf), strings.ToLower(mgTop)},
			strings.ToLower(mgLeaf): {strings.ToLower(mgTop)}, "/subscriptions/s1": {strings.ToLower(mgTop)}}}
		for i := range 10 {
			n.roles = append(n.roles, w.role(fmt.Sprint("r", i)))
		}
		e := New(n.roles)
		e.SetClock(func() time.Time { return n.now })
		e.SetParents(func(k string) []string { return n.parents[k] })
		type question struct {
			c  arm.Caller
			a  arm.Action
			on arm.ID
		}
		var old []question                      // some of them allowed, asked again after each change
		size := []int{5, 60, 400, 8000}[seed%4] // 8000 is beyond viewLimit
		for i := range size {
			a := w.assignment(fmt.Sprint("/a/", i))
			n.given = append(n.given, a)
			put(t, e, a)
		}
		for i := range 300 {
			c, a, on := w.question()
			if i%3 == 0 { // also back: clocks are set
				n.now = w.hour()
			}
			ids, d := n.allows(c, a, on), e.Decide(c, a, on)
			again := e.Decide(c, a, on)
			if d.Allowed != (len(ids) > 0) || d.Allowed && !slices.Contains(ids, d.By) || again != d {
				t.Fatalf("world %d: Decide(%v %v, %s, %s) = %+v, then %+v, want one of %v", seed, c.Object, c.Groups, a.Name(), on, d, again, ids)
			}
			if asked++; d.Allowed {
				allowed++
			}
			if d.Allowed && len(old) < 10 && size < 8000 {
				old = append(old, question{c, a, on})
			}
			if i%10 > 0 {
				continue
			}
			n.shake(t, w, e)
			for _, q := range old {
				ids, d := n.allows(q.c, q.a, q.on), e.Decide(q.c, q.a, q.on)
				if d.Allowed != (len(ids) > 0) || d.Allowed && !slices.Contains(ids, d.By) {
					t.Fatalf("world %d, after a change: Decide(%v %v, %s, %s) = %+v, want one of %v", seed, q.c.Object, q.c.Groups, q.a.Name(), q.on, d, ids)
				}
			}
		}
	}
	if asked < 10_000 || allowed < asked/10 || allowed > asked*9/10 {
		t.Errorf("%d questions, %d allowed: not a test", asked, allowed)
	}
}

// shake makes one change, in the reference and in the engine.
func (n *naive) shake(t *testing.T, w world, e *Engine) {
	i := w.IntN(len(n.given))
	switch w.IntN(6) {
	case 0, 1: // as often to somebody else
		n.given[i] = w.assignment(n.given[i].ID)
		put(t, e, n.given[i])
	case 2, 3:
		if len(n.given) > 1 {
			e.RemoveAssignment(n.given[i].ID)
			n.given = slices.Delete(n.given, i, i+1)
		}
	case 4:
		e.Move(func() { n.parents[w.of("/subscriptions/s", 3)] = [][]string{{strings.ToLower(mgTop)}, nil}[w.IntN(2)] })
	case 5:
		i = w.IntN(len(n.roles))
		n.roles[i] = w.role(n.roles[i].ID)
		e.PutRole(n.roles[i])
	}
}

// The engine's way up is the one that ids know.
func TestScopesAgreeWithID(t *testing.T) {
	w := world{rand.New(rand.NewPCG(5, 6))}
	for range 2000 {
		id := arm.MustID(w.scope())
		if got, want := scopes(nil, id.Key(), nil), id.Scopes(); !slices.Equal(got, want) {
			t.Errorf("scopes of %s are %q, want %q", id, got, want)
		}
	}
	for _, s := range []string{"/", "/providers/N", "/subscriptions/s/providers/N", "/subscriptions/s/resourceGroups/g/providers/N",
		"/providers/N/t/x", "/subscriptions/s/providers/Microsoft.Features/providers/N/features/f", "/subscriptions/providers/providers/N/t/x"} {
		id := arm.MustID(s)
		if got, want := scopes(nil, id.Key(), nil), id.Scopes(); !slices.Equal(got, want) {
			t.Errorf("scopes of %s are %q, want %q", id, got, want)
		}
	}
}

// Lists choose by scope and by principal, and come in order.
func TestAssignments(t *testing.T) {
	e := engineWith(t, [3]string{alice, "Reader", sub}, [3]string{team, "Owner", rg1}, [3]string{bob, "Reader", ws}, [3]string{alice, "Owner", mgTop})
	for _, x := range []struct {
		name string
		keep []Filter
		want string
	}{
		{"all", nil, "3 0 1 2"},
		{"at", []Filter{AtScope(arm.MustID(strings.ToUpper(rg1)))}, "1"},
		{"above", []Filter{e.Above(arm.MustID(rg1))}, "3 0 1"},
		{"above nothing", []Filter{e.Above(arm.ID{})}, ""},
		{"below", []Filter{e.Below(arm.MustID(rg1))}, "1 2"},
		{"below a management group", []Filter{e.Below(arm.MustID(mgTop))}, "3 0 1 2"},
		{"below another", []Filter{e.Below(arm.MustID(mgLeaf))}, "0 1 2"},
		{"below nothing", []Filter{e.Below(arm.ID{})}, ""},
		{"of a principal", []Filter{ByPrincipal(strings.ToUpper(alice))}, "3 0"},
		{"of a member", []Filter{ByPrincipal(bob, team)}, "1 2"},
		{"of a role and a scope", []Filter{ByRole(builtInID(t, "Owner")), e.Below(arm.MustID(sub))}, "1"},
	} {
		var got []string
		for _, a := range e.Assignments(x.keep...) {
			got = append(got, a.ID[strings.LastIndexByte(a.ID, '/')+1:])
		}
		if s := strings.Join(got, " "); s != x.want {
			t.Errorf("%s: %q, want %q", x.name, s, x.want)
		}
	}
}

// An explanation names all that reaches the resource, nearest first.
func TestConsidered(t *testing.T) {
	e := engineWith(t, [3]string{bob, "Reader", sub}, [3]string{team, "Owner", ws}, [3]string{team, "Reader", mgTop},
		[3]string{alice, "Owner", ws}, [3]string{bob, "Owner", vault})
	var got []string
	for _, a := range e.Considered(member, wsWrite, arm.MustID(ws)) {
		got = append(got, a.Scope.String())
	}
	if want := []string{ws, sub, mgTop}; !slices.Equal(got, want) {
		t.Errorf("Considered is at %q, want %q", got, want)
	}
	if x := e.Considered(arm.Caller{}, wsWrite, arm.MustID(ws)); x != nil {
		t.Errorf("Considered for nobody = %v, want nothing", x)
	}
}
