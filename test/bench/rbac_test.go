package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"castellan/internal/arm"
	"castellan/internal/rbac"

	cedar "github.com/cedar-policy/cedar-go"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
)

// given is one role assignment: a user has a role at a resource group.
type given struct {
	user, group, role int
}

// roleActions are the actions of ten roles, without patterns, which Rego and Cedar
// would only make dearer.
func roleActions(role int) (out []string) {
	for i := range 5 {
		out = append(out, fmt.Sprintf("Vendor.Things/type%d/op%d", role, i))
	}
	return out
}

func userID(n int) string  { return fmt.Sprintf("user-%07d", n) }
func groupID(n int) string { return fmt.Sprintf("/subscriptions/s/resourcegroups/g%d", n) }

// inquiry is one question; half of them are answered with yes.
type inquiry struct {
	user   string
	action string
	group  string
	want   bool
}

// partialLimit is of how many assignments OPA makes rules in advance: of 10^4 that
// takes 10 s, of 10^5 minutes.
const partialLimit = 1e4

func madeAssignments(n int) (all []given, ask []inquiry) {
	rnd := rand.New(rand.NewPCG(3, uint64(n)))
	for range n {
		all = append(all, given{rnd.IntN(max(n/5, 10)), rnd.IntN(max(n/20, 10)), rnd.IntN(10)})
	}
	for i := range 1024 {
		g := all[rnd.IntN(n)]
		q := inquiry{userID(g.user), roleActions(g.role)[rnd.IntN(5)], groupID(g.group), true}
		if i%2 == 1 {
			q.action, q.want = "Vendor.Things/type99/op", false
		}
		ask = append(ask, q)
	}
	return all, ask
}

// The rule in Rego, over data that are indexed by user and group as OPA likes it best.
const regoRules = `package authz

default allow := false

allow if {
	some role in data.given[input.user][input.group]
	data.roles[role][input.action]
}
`

// BenchmarkRBAC asks "may this user do this at something in this group" of n
// assignments: of us with answers remembered and not, of OPA with a prepared query
// over indexed data and, of few, partially evaluated, and of cedar-go with one policy over groups as entities. All
// give the same answers. A look into a plain map is the measure.
func BenchmarkRBAC(b *testing.B) {
	for _, n := range []int{1e3, 1e4, 1e5, 1e6} {
		all, ask := madeAssignments(n)
		measure := func(name string, do func(i int) bool) {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				for i, q := range ask {
					if do(i) != q.want {
						b.Fatalf("%s answers %v otherwise", name, q)
					}
				}
				i, began := 0, cpu()
				for b.Loop() {
					do(i % len(ask))
					i++
				}
				b.ReportMetric(float64((cpu()-began).Nanoseconds())/float64(b.N), "cpu-ns/op")
			})
		}
		plain := map[[2]string]int{}
		for i, g := range all {
			plain[[2]string{userID(g.user), groupID(g.group)}] = i
		}
		measure("map", func(i int) bool {
			_, ok := plain[[2]string{ask[i].user, ask[i].group}]
			return ok && ask[i].want
		})

		e := ours(b, all)
		type question struct {
			c  arm.Caller
			a  arm.Action
			on []arm.ID
		}
		var questions []question
		for _, q := range ask {
			x := question{c: arm.Caller{Object: q.user}, a: arm.NewAction(q.action, "")}
			for j := range 512 {
				x.on = append(x.on, arm.MustID(fmt.Sprintf("%s/providers/Vendor.Things/things/t%d", q.group, j)))
			}
			questions = append(questions, x)
		}
		measure("remembered", func(i int) bool { q := &questions[i]; return e.Decide(q.c, q.a, q.on[0]).Allowed })
		turn := 0
		measure("anew", func(i int) bool { // 524,288 questions, of which 65,536 are remembered
			q := &questions[i]
			turn++
			return e.Decide(q.c, q.a, q.on[turn/len(questions)%512]).Allowed
		})
		questions = nil

		roles, has := map[string]any{}, map[string]any{}
		for r := range 10 {
			set := map[string]any{}
			for _, a := range roleActions(r) {
				set[a] = true
			}
			roles[fmt.Sprint(r)] = set
		}
		for _, g := range all {
			u, _ := has[userID(g.user)].(map[string]any)
			if u == nil {
				u = map[string]any{}
				has[userID(g.user)] = u
			}
			list, _ := u[groupID(g.group)].([]any)
			u[groupID(g.group)] = append(list, fmt.Sprint(g.role))
		}
		store := inmem.NewFromObjectWithOpts(map[string]any{"given": has, "roles": roles}, inmem.OptRoundTripOnWrite(false), inmem.OptReturnASTValuesOnRead(true))
		query, err := rego.New(rego.Query("data.authz.allow"), rego.Module("authz.rego", regoRules), rego.Store(store), rego.SetRegoVersion(ast.RegoV1)).PrepareForEval(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		var inputs []ast.Value
		for _, q := range ask {
			v, err := ast.InterfaceToValue(map[string]any{"user": q.user, "group": q.group, "action": q.action})
			if err != nil {
				b.Fatal(err)
			}
			inputs = append(inputs, v)
		}
		measure("opa", func(i int) bool {
			set, err := query.Eval(context.Background(), rego.EvalParsedInput(inputs[i]))
			if err != nil {
				b.Fatal(err)
			}
			return set.Allowed()
		})
		if n <= partialLimit {
			part, err := rego.New(rego.Query("data.authz.allow"), rego.Module("authz.rego", regoRules), rego.Store(store), rego.SetRegoVersion(ast.RegoV1)).PartialResult(context.Background())
			if err != nil {
				b.Fatal(err)
			}
			ready, err := part.Rego().PrepareForEval(context.Background())
			if err != nil {
				b.Fatal(err)
			}
			measure("opa+partial", func(i int) bool {
				set, err := ready.Eval(context.Background(), rego.EvalParsedInput(inputs[i]))
				if err != nil {
					b.Fatal(err)
				}
				return set.Allowed()
			})
		}

		policies, entities := cedarWorld(b, all)
		measure("cedar", func(i int) bool {
			q := ask[i]
			ok, _ := cedar.Authorize(policies, entities, cedar.Request{
				Principal: cedar.NewEntityUID("User", cedar.String(q.user)), Action: cedar.NewEntityUID("Action", cedar.String(q.action)), Resource: cedar.NewEntityUID("Group", cedar.String(q.group)), Context: cedar.NewRecord(nil),
			})
			return ok == cedar.Allow
		})
	}
}

func ours(b *testing.B, all []given) *rbac.Engine {
	var roles []rbac.Role
	for r := range 10 {
		roles = append(roles, rbac.Role{ID: fmt.Sprintf("/providers/Microsoft.Authorization/roleDefinitions/%d", r), Name: fmt.Sprint("role ", r), Permissions: []rbac.Permission{{Actions: roleActions(r)}}})
	}
	e := rbac.New(roles)
	for i, g := range all {
		a := rbac.Assignment{ID: fmt.Sprint("/providers/Microsoft.Authorization/roleAssignments/", i), RoleID: roles[g.role].ID, Principal: userID(g.user), Scope: arm.MustID(groupID(g.group))}
		if err := e.PutAssignment(a); err != nil {
			b.Fatal(err)
		}
	}
	return e
}

// cedarWorld has a policy for each role, and each assignment as membership of the
// user in "role at group", which the group names: policies stay few, which is how
// Cedar wants it.
func cedarWorld(b *testing.B, all []given) (*cedar.PolicySet, cedar.EntityMap) {
	var text strings.Builder
	for r := range 10 {
		var acts []string
		for _, a := range roleActions(r) {
			q, err := json.Marshal(a)
			if err != nil {
				b.Fatal(err)
			}
			acts = append(acts, "Action::"+string(q))
		}
		fmt.Fprintf(&text, "permit(principal, action in [%s], resource) when { resource has role%d && principal in resource.role%d };\n", strings.Join(acts, ", "), r, r)
	}
	set, err := cedar.NewPolicySetFromBytes("roles.cedar", []byte(text.String()))
	if err != nil {
		b.Fatal(err)
	}
	parents, attributes := map[string][]cedar.EntityUID{}, map[string]cedar.RecordMap{}
	entities := cedar.EntityMap{}
	for _, g := range all {
		team := cedar.NewEntityUID("Holders", cedar.String(fmt.Sprintf("%d at %s", g.role, groupID(g.group))))
		parents[userID(g.user)] = append(parents[userID(g.user)], team)
		if attributes[groupID(g.group)] == nil {
			attributes[groupID(g.group)] = cedar.RecordMap{}
		}
		attributes[groupID(g.group)][cedar.String(fmt.Sprint("role", g.role))] = team
		entities[team] = cedar.Entity{UID: team}
	}
	for name, up := range parents {
		uid := cedar.NewEntityUID("User", cedar.String(name))
		entities[uid] = cedar.Entity{UID: uid, Parents: cedar.NewEntityUIDSet(up...)}
	}
	for name, m := range attributes {
		uid := cedar.NewEntityUID("Group", cedar.String(name))
		entities[uid] = cedar.Entity{UID: uid, Attributes: cedar.NewRecord(m)}
	}
	return set, entities
}
