package rbac

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"castellan/internal/arm"
)

const asked = 4096 // questions that a benchmark goes round

type question struct {
	c  arm.Caller
	a  arm.Action
	on arm.ID
}

// pair is the key of the plain map that everything is measured against: the
// engine's least work is two string hashes and one look into a map of N.
type pair struct{ principal, scope string }

// benchWorld is N assignments: 70 % to groups; 1 % at management groups, 19 % at
// subscriptions, 40 % at resource groups, 40 % at workspaces; 400 roles.
type benchWorld struct {
	e         *Engine
	plain     map[pair]int
	pairs     []pair
	questions []question
	bytes     uint64 // heap of the engine for one assignment
}

func guid(kind byte, n int) string {
	return fmt.Sprintf("%c%07x-1111-2222-3333-%012x", kind, n*2654435761&0xfffffff, n)
}

func benchScope(w world, level, n int) string {
	subs, groups := max(2, n/200), max(4, n/20)
	g := w.IntN(groups)
	s := "/subscriptions/" + guid('5', g%subs)
	if level > 0 {
		s += fmt.Sprintf("/resourceGroups/group-%d", g)
	}
	if level > 1 {
		s += fmt.Sprintf("/providers/Microsoft.MachineLearningServices/workspaces/workspace-%d", w.IntN(2))
	}
	return s
}

func benchRole(w world, i int) Role {
	var p Permission
	for range 1 + w.IntN(20) {
		p.Actions = append(p.Actions, fmt.Sprintf("Microsoft.Service%d/type%d/*/%s", w.IntN(10), w.IntN(10), []string{"read", "write", "*"}[w.IntN(3)]))
	}
	if w.IntN(10) < 3 {
		p.NotActions = append(p.NotActions, fmt.Sprintf("Microsoft.Service%d/*/write", w.IntN(10)))
	}
	if w.IntN(4) == 0 {
		p.Actions = append(p.Actions, "*/read")
	}
	return Role{ID: guid('e', i), Name: fmt.Sprint("role ", i), Permissions: []Permission{p}}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func makeBenchWorld(b *testing.B, n int) *benchWorld {
	b.Helper()
	w := world{rand.New(rand.NewPCG(uint64(n), 9))}
	users, teams := max(n/5, 20), max(n/20, 20)
	o := &benchWorld{plain: map[pair]int{}}
	var roles []Role
	for i := range 400 {
		roles = append(roles, benchRole(w, i))
	}
	o.e = New(roles)
	o.e.SetParents(func(string) []string { return []string{mgKey} })
	given := make([]Assignment, n)
	for i := range given {
		given[i] = benchAssignment(w, i, n, users, teams)
	}
	before := heap()
	for _, a := range given {
		put(b, o.e, a)
	}
	o.bytes = (heap() - before) / uint64(n)
	for i, a := range given {
		k := pair{a.Principal, a.Scope.Key()}
		o.plain[k] = i
		if i < asked {
			o.pairs = append(o.pairs, k)
		}
	}
	for len(o.pairs) < asked {
		o.pairs = append(o.pairs, o.pairs[w.IntN(n)])
	}
	var actions []arm.Action
	for i := range 3000 {
		actions = append(actions, arm.NewAction(fmt.Sprintf("Microsoft.Service%d/type%d/part%d/%s", i%10, i/10%10, i/300, []string{"read", "write", "start/action"}[i/100%3]), ""))
	}
	callers, byGroup := benchCallers(w, users, teams), map[string][]arm.ID{}
	for _, a := range given {
		byGroup[a.Principal] = append(byGroup[a.Principal], a.Scope)
	}
	for range asked {
		o.questions = append(o.questions, benchQuestion(w, n, callers, byGroup, actions))
	}
	return o
}

const mgKey = "/providers/microsoft.management/managementgroups/all"

func benchAssignment(w world, i, n, users, teams int) Assignment {
	a := Assignment{ID: fmt.Sprintf("/providers/Microsoft.Authorization/roleAssignments/%s", guid('a', i)), RoleID: guid('e', w.IntN(400))}
	if a.Principal = guid('9', w.IntN(teams)); w.IntN(10) >= 7 {
		a.Principal = guid('0', w.IntN(users))
	}
	switch k := w.IntN(100); {
	case k == 0:
		a.Scope = arm.MustID(mgKey)
	case k < 20:
		a.Scope = arm.MustID(benchScope(w, 0, n))
	case k < 60:
		a.Scope = arm.MustID(benchScope(w, 1, n))
	default:
		a.Scope = arm.MustID(benchScope(w, 2, n))
	}
	return a
}

// benchCallers are users with ten groups each, which they always come with.
func benchCallers(w world, users, teams int) []arm.Caller {
	out := make([]arm.Caller, min(users, asked))
	for i := range out {
		out[i].Object = guid('0', i)
		for range 10 {
			out[i].Groups = append(out[i].Groups, guid('9', w.IntN(teams)))
		}
	}
	return out
}

// benchQuestion asks below a scope, mostly one where the caller has something.
func benchQuestion(w world, n int, callers []arm.Caller, byGroup map[string][]arm.ID, actions []arm.Action) question {
	q := question{c: callers[w.IntN(len(callers))], a: actions[w.IntN(len(actions))]}
	s := benchScope(w, 1+w.IntN(2), n)
	if mine := byGroup[q.c.Groups[w.IntN(10)]]; len(mine) > 0 && w.IntN(10) > 0 {
		s = mine[w.IntN(len(mine))].String()
	}
	id := arm.MustID(s)
	if id.Key() == mgKey {
		id = arm.MustID(benchScope(w, 2, n))
	}
	if id.Group().IsZero() {
		id = arm.MustID(id.String() + "/resourceGroups/g")
	}
	if id.Key() == id.Group().Key() {
		id = id.Child("Microsoft.MachineLearningServices/workspaces", "w")
	}
	q.on = arm.MustID(id.Child("jobs", fmt.Sprint(w.IntN(1000))).String())
	return q
}

// cpu is the processor time of this process. Others on the machine change it far
// less than the clock.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkDecide compares a decision with one look into a map of the same N, by
// processor time and in turns: remembered; not remembered, for a caller whose
// assignments are gathered; and for a caller who was never seen. What collecting
// garbage costs is the decision's: the median look has none of it.
func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{1e3, 1e4, 1e5, 1e6} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { benchDecide(b, makeBenchWorld(b, n)) })
	}
}

func benchDecide(b *testing.B, o *benchWorld) {
	run := func(name string, decisions *table[decided], views *table[view]) {
		b.Run(name, func(b *testing.B) {
			o.e.decisions, o.e.views = decisions, views
			allowed := 0
			for _, q := range o.questions {
				if o.e.Decide(q.c, q.a, q.on).Allowed {
					allowed++
				}
			}
			runtime.GC()
			b.ReportAllocs()
			b.ResetTimer()
			rounds, sum := max(b.N/asked, 1), 0
			var ours time.Duration
			var looks []time.Duration
			for range rounds {
				began := cpu()
				for i := range o.questions {
					q := &o.questions[i]
					o.e.Decide(q.c, q.a, q.on)
				}
				between := cpu()
				for _, p := range o.pairs {
					sum += o.plain[p]
				}
				ours += between - began
				looks = append(looks, cpu()-between)
			}
			runtime.KeepAlive(sum)
			slices.Sort(looks)
			each := float64(ours.Nanoseconds()) / float64(rounds*asked)
			limit := float64(looks[rounds/2].Nanoseconds()) / asked
			b.ReportMetric(each, "cpu-ns")
			b.ReportMetric(limit, "limit-ns")
			b.ReportMetric(each/limit, "x-limit")
			b.ReportMetric(100*float64(allowed)/asked, "%allowed")
			b.ReportMetric(float64(o.bytes), "B/assignment")
			b.ReportMetric(0, "ns/op")
		})
	}
	// A table of one place remembers next to nothing of the questions.
	run("remembered", newTable[decided](decisionCache), newTable[view](viewCache))
	run("known", newTable[decided](ways), newTable[view](viewCache*4))
	run("unknown", newTable[decided](ways), newTable[view](ways))
}
