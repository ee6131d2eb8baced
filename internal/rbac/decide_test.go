package rbac

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"castellan/internal/arm"
)

const (
	sub    = "/subscriptions/11111111-0000-0000-0000-000000000001"
	rg1    = sub + "/resourceGroups/rg1"
	ws     = rg1 + "/providers/Microsoft.MachineLearningServices/workspaces/ws1"
	vault  = rg1 + "/providers/Microsoft.KeyVault/vaults/kv1"
	store  = rg1 + "/providers/Microsoft.Storage/storageAccounts/sa1"
	mgTop  = "/providers/Microsoft.Management/managementGroups/top"
	mgLeaf = "/providers/Microsoft.Management/managementGroups/leaf"
	ml     = "Microsoft.MachineLearningServices/workspaces/"
	alice  = "aaaaaaaa-0000-0000-0000-00000000000a"
	bob    = "bbbbbbbb-0000-0000-0000-00000000000b"
	team   = "cccccccc-0000-0000-0000-00000000000c"
)

// known is BuiltIn, read once; tests must not change it.
var known = sync.OnceValue(BuiltIn)

// builtInID is the id of the built-in role of this name.
func builtInID(t testing.TB, name string) string {
	t.Helper()
	for _, r := range known() {
		if r.Name == name {
			return r.ID
		}
	}
	t.Fatalf("no built-in role is called %q", name)
	return ""
}

// engineWith has the built-in roles and these assignments: principal, role name, scope.
func engineWith(t testing.TB, given ...[3]string) *Engine {
	t.Helper()
	e := New(known())
	e.SetParents(func(key string) []string {
		switch key {
		case strings.ToLower(sub):
			return []string{strings.ToLower(mgLeaf), strings.ToLower(mgTop)}
		case strings.ToLower(mgLeaf):
			return []string{strings.ToLower(mgTop)}
		}
		return nil
	})
	for i, g := range given {
		put(t, e, Assignment{ID: fmt.Sprintf("%s/providers/Microsoft.Authorization/roleAssignments/%d", g[2], i),
			Scope: arm.MustID(g[2]), RoleID: builtInID(t, g[1]), Principal: g[0]})
	}
	return e
}

func put(t testing.TB, e *Engine, a Assignment) {
	t.Helper()
	if err := e.PutAssignment(a); err != nil {
		t.Fatal(err)
	}
}

func control(name string) arm.Action { return arm.NewAction(name, "") }
func data(name string) arm.Action    { return arm.NewDataAction(name, "") }

var (
	wsRead  = control(ml + "read")
	wsWrite = control(ml + "write")
	getKey  = data("Microsoft.KeyVault/vaults/secrets/getSecret/action")
	caller  = arm.Caller{Object: alice, Kind: arm.User}
	member  = arm.Caller{Object: bob, Groups: []string{"dddddddd-0000-0000-0000-00000000000d", team}}
)

// A role counts for its principal, at its scope and below, for its actions, and
// for nothing else.
func TestDecide(t *testing.T) {
	given := func(x ...string) (out [][3]string) {
		for c := range slices.Chunk(x, 3) {
			out = append(out, [3]string(c))
		}
		return out
	}
	for _, x := range []struct {
		name  string
		given [][3]string
		c     arm.Caller
		a     arm.Action
		on    string
		want  bool
	}{
		{"Reader on the resource", given(alice, "Reader", ws), caller, wsRead, ws, true},
		{"Reader on the group", given(alice, "Reader", rg1), caller, wsRead, ws, true},
		{"Reader on the subscription", given(alice, "Reader", sub), caller, wsRead, ws, true},
		{"Reader on the root", given(alice, "Reader", "/"), caller, wsRead, ws, true},
		{"Reader on the management group", given(alice, "Reader", mgLeaf), caller, wsRead, ws, true},
		{"Reader on the one above it", given(alice, "Reader", mgTop), caller, wsRead, ws, true},
		{"one management group reaches the next", given(alice, "Reader", mgTop), caller, wsRead, mgLeaf, true},
		{"but not upward", given(alice, "Reader", mgLeaf), caller, wsRead, mgTop, false},
		{"another subscription has no such parents", given(alice, "Reader", mgTop), caller, wsRead, "/subscriptions/2", false},
		{"Reader of a child is none of its parent", given(alice, "Reader", ws), caller, wsRead, rg1, false},
		{"a scope that is a prefix but no parent", given(alice, "Reader", ws), caller, wsRead, ws + "2", false},
		{"rg1 is not rg10", given(alice, "Reader", rg1), caller, wsRead, sub + "/resourceGroups/rg10", false},
		{"nor rg1-x", given(alice, "Reader", rg1), caller, wsRead, sub + "/resourceGroups/rg1-x/providers/a/b/c", false},
		{"but it is RG1", given(alice, "Reader", rg1), caller, wsRead, strings.ToUpper(rg1) + "/providers/a/b/c", true},
		{"a workspace that is called rg1", given(alice, "Reader", rg1), caller, wsRead, sub + "/resourceGroups/x/providers/Microsoft.MachineLearningServices/workspaces/rg1", false},
		{"a subscription that shares a prefix", given(alice, "Reader", sub), caller, wsRead, sub + "0", false},
		{"a child of the resource", given(alice, "Reader", ws), caller, wsRead, ws + "/computes/c1", true},
		{"an extension of the resource", given(alice, "Reader", ws), caller, wsRead, ws + "/providers/Microsoft.Authorization/roleAssignments/r", true},

		{"somebody else", given(bob, "Reader", ws), caller, wsRead, ws, false},
		{"a name is no principal", given("Alice", "Owner", ws), arm.Caller{Object: bob, Name: "Alice", App: "Alice"}, wsRead, ws, false},
		{"a group", given(team, "Reader", rg1), member, wsRead, ws, true},
		{"a group in another case", given(strings.ToUpper(team), "Reader", rg1), member, wsRead, ws, true},
		{"not of the group", given(team, "Reader", rg1), caller, wsRead, ws, false},

		{"Reader does not write", given(alice, "Reader", ws), caller, wsWrite, ws, false},
		{"Reader lists no keys", given(alice, "Reader", ws), caller, control(ml + "listKeys/action"), ws, false},
		{"Reader reads no secret", given(alice, "Reader", vault), caller, getKey, vault, false},
		{"Owner reads no secret", given(alice, "Owner", vault), caller, getKey, vault, false},
		{"Contributor reads no blob", given(alice, "Contributor", store), caller, data("Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read"), store, false},
		{"Secrets User does", given(alice, "Key Vault Secrets User", vault), caller, getKey, vault, true},
		{"but not by a control action", given(alice, "Key Vault Secrets User", vault), caller, control(getKey.Name()), vault, false},
		{"Secrets Officer of another vault", given(alice, "Key Vault Secrets Officer", vault+"2"), caller, getKey, vault, false},
		{"Contributor assigns no role", given(alice, "Contributor", sub), caller, control("Microsoft.Authorization/roleAssignments/write"), ws, false},
		{"unless another role does", given(alice, "Contributor", sub, alice, "User Access Administrator", rg1), caller, control("Microsoft.Authorization/roleAssignments/write"), ws, true},
		{"unless the group's does", given(bob, "Contributor", sub, team, "Owner", ws), member, control("Microsoft.Authorization/roleAssignments/write"), ws, true},

		{"Data Scientist reads the workspace", given(alice, "AzureML Data Scientist", ws), caller, wsRead, ws, true},
		{"runs a job", given(alice, "AzureML Data Scientist", ws), caller, control(ml + "jobs/write"), ws, true},
		{"does not write the workspace", given(alice, "AzureML Data Scientist", ws), caller, wsWrite, ws, false},
		{"nor delete it", given(alice, "AzureML Data Scientist", ws), caller, control(ml + "delete"), ws, false},
		{"nor write computes", given(alice, "AzureML Data Scientist", ws), caller, control(ml + "computes/write"), ws, false},
		{"nor delete them", given(alice, "AzureML Data Scientist", ws), caller, control(ml + "computes/delete"), ws, false},
		{"but starts them", given(alice, "AzureML Data Scientist", ws), caller, control(ml + "computes/start/action"), ws, true},
		{"Compute Operator writes computes", given(alice, "AzureML Compute Operator", ws), caller, control(ml + "computes/write"), ws, true},
		{"and does not read the workspace", given(alice, "AzureML Compute Operator", ws), caller, wsRead, ws, false},
		{"a role's condition shuts it", given(alice, "Key Vault Data Access Administrator", vault), caller, control("Microsoft.Authorization/roleAssignments/write"), vault, false},

		{"nobody", given(alice, "Owner", "/"), arm.Caller{}, wsRead, ws, false},
		{"nobody with an empty group", given(alice, "Owner", "/"), arm.Caller{Object: bob, Groups: []string{""}}, wsRead, ws, false},
		{"a caller whose credential decides", given(alice, "Owner", "/"), arm.Caller{Object: alice, Lease: &arm.Lease{}}, wsRead, ws, false},
		{"no action", given(alice, "Owner", "/"), caller, arm.Action{}, ws, false},
		{"an action without a name", given(alice, "Owner", "/"), caller, control(""), ws, false},
		{"nowhere", given(alice, "Owner", "/"), caller, wsRead, "", false},
	} {
		e := engineWith(t, x.given...)
		var on arm.ID
		if x.on != "" {
			on = arm.MustID(x.on)
		}
		for range 2 { // looked up, then remembered
			d := e.Decide(x.c, x.a, on)
			if d.Allowed != x.want || d.Reason == "" || d.Allowed != (d.By != "" && d.Role != "") {
				t.Errorf("%s: Decide = %+v, want %v", x.name, d, x.want)
			}
		}
	}
}

// Every kind of change counts for the next question.
func TestChangesCountAtOnce(t *testing.T) {
	e := engineWith(t)
	id := sub + "/providers/Microsoft.Authorization/roleAssignments/1"
	reader := builtInID(t, "Reader")
	want := func(what string, on string, allowed bool) {
		t.Helper()
		if d := e.Decide(caller, wsRead, arm.MustID(on)); d.Allowed != allowed {
			t.Errorf("after %s: Decide = %+v, want %v", what, d, allowed)
		}
	}
	want("nothing", ws, false)
	put(t, e, Assignment{ID: id, Scope: arm.MustID(sub), RoleID: "/x/" + strings.ToUpper(reader), Principal: alice})
	want("assigning", ws, true)
	e.RemoveRole(reader)
	want("removing the role", ws, false)
	e.PutRole(Role{ID: reader, Permissions: []Permission{{Actions: []string{"*"}, NotActions: []string{ml + "read"}}}})
	want("putting a lesser role", ws, false)
	e.PutRole(Role{ID: reader, Permissions: []Permission{{Actions: []string{"*"}}}})
	want("putting a greater role", ws, true)
	put(t, e, Assignment{ID: strings.ToUpper(id), Scope: arm.MustID(rg1), RoleID: reader, Principal: alice})
	want("narrowing the assignment", sub, false)
	want("narrowing the assignment", ws, true)
	put(t, e, Assignment{ID: id, Scope: arm.MustID(rg1), RoleID: reader, Principal: bob})
	want("giving it to another", ws, false)
	put(t, e, Assignment{ID: id, Scope: arm.MustID(rg1), RoleID: reader, Principal: alice, Condition: "true"})
	want("adding a condition", ws, false)
	put(t, e, Assignment{ID: id, Scope: arm.MustID(mgTop), RoleID: reader, Principal: alice})
	want("moving it to a management group", ws, true)
	e.SetParents(nil)
	want("forgetting the parents", ws, false)
	put(t, e, Assignment{ID: id, Scope: arm.MustID(ws), RoleID: reader, Principal: alice})
	want("putting it back", ws, true)
	e.RemoveAssignment(strings.ToUpper(id))
	want("removing it", ws, false)
	if len(e.holders) != 0 || len(e.given) != 0 {
		t.Errorf("%d holders and %d assignments are left", len(e.holders), len(e.given))
	}
}

// An assignment that says nothing is refused.
func TestPutAssignmentRefuses(t *testing.T) {
	e, on := New(nil), arm.MustID(ws)
	for _, a := range []Assignment{
		{}, {Scope: on, RoleID: "r", Principal: "p"}, {ID: "i", RoleID: "r", Principal: "p"},
		{ID: "i", Scope: on, Principal: "p"}, {ID: "i", Scope: on, RoleID: "r"},
	} {
		if err := e.PutAssignment(a); err == nil {
			t.Errorf("PutAssignment(%+v) = nil, want an error", a)
		}
	}
}

// Neither the case of an action, of a scope nor of a principal says anything.
func TestCasings(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	mix := func(s string) string {
		b := []byte(s)
		for i := range b {
			if r.IntN(2) == 0 {
				b[i] = strings.ToUpper(string(b[i]))[0]
			} else {
				b[i] = strings.ToLower(string(b[i]))[0]
			}
		}
		return string(b)
	}
	e := engineWith(t, [3]string{alice, "AzureML Data Scientist", rg1}, [3]string{team, "Key Vault Secrets User", vault})
	for range 10_000 {
		c := arm.Caller{Object: mix(alice), Groups: []string{mix(team)}}
		for _, x := range []struct {
			a    arm.Action
			on   string
			want bool
		}{
			{control(mix(ml + "jobs/write")), ws, true},
			{control(mix(ml + "computes/write")), ws, false},
			{data(mix(getKey.Name())), vault, true},
			{data(mix(getKey.Name())), vault + "2", false},
		} {
			if d := e.Decide(c, x.a, arm.MustID(mix(x.on))); d.Allowed != x.want {
				t.Fatalf("Decide(%v, %s, %s) = %+v, want %v", c, x.a.Name(), x.on, d, x.want)
			}
		}
	}
}

// What is remembered for a caller is not for the same object with other groups,
// not even when the caller's own list is changed underneath.
func TestGroupsAreCompared(t *testing.T) {
	e, on := engineWith(t, [3]string{team, "Owner", sub}), arm.MustID(ws)
	groups := []string{team}
	c := arm.Caller{Object: bob, Groups: groups}
	if d := e.Decide(c, wsRead, on); !d.Allowed {
		t.Fatalf("Decide = %+v, want true", d)
	}
	groups[0] = alice
	if d := e.Decide(c, wsRead, on); d.Allowed {
		t.Errorf("after leaving the group: Decide = %+v, want false", d)
	}
	if d := e.Decide(arm.Caller{Object: bob}, wsRead, on); d.Allowed {
		t.Errorf("without groups: Decide = %+v, want false", d)
	}
}

// A refusal says which kind it is.
func TestReasons(t *testing.T) {
	e := engineWith(t, [3]string{alice, "Reader", rg1})
	put(t, e, Assignment{ID: "/c", Scope: arm.MustID(rg1), RoleID: builtInID(t, "Owner"), Principal: bob, Condition: "x"})
	for _, x := range []struct {
		c    arm.Caller
		a    arm.Action
		on   string
		want string
	}{
		{caller, wsRead, ws, becauseAssigned},
		{caller, wsWrite, ws, becauseInsufficient},
		{caller, wsRead, sub, becauseUnassigned},
		{arm.Caller{Object: bob}, wsRead, ws, becauseConditional},
		{arm.Caller{Object: bob}, getKey, ws, becauseInsufficient},
		{arm.Caller{}, wsRead, ws, becauseNobody},
	} {
		if d := e.Decide(x.c, x.a, arm.MustID(x.on)); d.Reason != x.want {
			t.Errorf("Decide(%s, %s, %s) says %q, want %q", x.c.Object, x.a.Name(), x.on, d.Reason, x.want)
		}
	}
}

// Once a removal has returned, nobody is let in, however many ask meanwhile.
func TestConcurrentRemoval(t *testing.T) {
	e, on := engineWith(t), arm.MustID(ws)
	owner := builtInID(t, "Owner")
	stop := make(chan struct{})
	var askers sync.WaitGroup
	for range 4 {
		askers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					e.Decide(caller, wsRead, on)
				}
			}
		})
	}
	for i := range 300 {
		id := fmt.Sprint("/a/", i)
		put(t, e, Assignment{ID: id, Scope: on, RoleID: owner, Principal: alice})
		if d := e.Decide(caller, wsRead, on); !d.Allowed {
			t.Errorf("round %d: denied after the assignment", i)
		}
		e.RemoveAssignment(id)
		if d := e.Decide(caller, wsRead, on); d.Allowed {
			t.Errorf("round %d: allowed after the removal", i)
		}
	}
	close(stop)
	askers.Wait()
}

// A remembered decision costs no allocation.
func TestRememberedDecisionAllocatesNothing(t *testing.T) {
	e, on := engineWith(t, [3]string{team, "Reader", rg1}), arm.MustID(ws)
	e.Decide(member, wsRead, on)
	if n := testing.AllocsPerRun(1000, func() { e.Decide(member, wsRead, on) }); n != 0 {
		t.Errorf("a remembered decision makes %v allocations, want 0", n)
	}
}

// Scopes whose hashes are the same are still two: an assignment at one gives
// nothing at the other.
func TestHashesThatMeet(t *testing.T) {
	e := engineWith(t, [3]string{alice, "Owner", rg1})
	e.holders[alice].all[0].hash = e.hash(arm.MustID(sub).Key())
	if d := e.Decide(arm.Caller{Object: alice}, wsWrite, arm.MustID(sub)); d.Allowed {
		t.Errorf("Decide = %+v by an assignment that begins elsewhere", d)
	}
}
