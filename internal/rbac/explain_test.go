package rbac

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"castellan/internal/arm"
)

// An explanation never contradicts the decision: over random worlds something
// allows exactly when Decide does, and it is what Decide names at its scope.
func TestExplanationsAgree(t *testing.T) {
	w := world{rand.New(rand.NewPCG(7, 11))}
	yes := 0
	for range 60 {
		e := engineWith(t)
		now := time.Unix(1_800_000_000, 0)
		e.SetClock(func() time.Time { return now })
		people := []string{alice, bob, team}
		roles := []string{"Owner", "Contributor", "Reader", "AzureML Data Scientist", "Key Vault Secrets User"}
		for i := range 12 {
			scope := []string{"/", mgTop, sub, rg1, ws, vault, store, sub + "0"}[w.IntN(8)]
			a := Assignment{ID: fmt.Sprint("x", i), Scope: arm.MustID(scope), RoleID: builtInID(t, roles[w.IntN(len(roles))]), Principal: people[w.IntN(3)]}
			switch w.IntN(8) {
			case 3: // holds for reads
				a.Condition, a.ConditionVersion = "((!(ActionMatches{'*/write'})))", "2.0"
			case 4: // asks for what the action alone does not tell
				a.Condition, a.ConditionVersion = "((@Resource[Microsoft.KeyVault/vaults:name] StringEquals 'x'))", "2.0"
			case 0:
				a.NotAfter = now.Add(time.Duration(w.IntN(3)-1) * time.Hour)
			case 1:
				a.Via = team
			case 2:
				a.RoleID = "11111111-2222-3333-4444-555555555555"
			}
			put(t, e, a)
		}
		for _, c := range []arm.Caller{caller, member, {Object: bob}} {
			for _, a := range []arm.Action{wsRead, wsWrite, getKey} {
				for _, on := range []string{sub, rg1, ws, vault} {
					d := e.Decide(c, a, arm.MustID(on))
					allows := slices.ContainsFunc(e.Explain(c, a, arm.MustID(on)), func(x Weighed) bool { return x.Verdict == Allows })
					by := !d.Allowed || slices.ContainsFunc(e.Explain(c, a, arm.MustID(on)), func(x Weighed) bool { return x.Verdict == Allows && x.ID == d.By })
					if allows != d.Allowed || !by {
						t.Fatalf("Decide(%s, %s, %s) = %+v, but the explanation is %+v", c.Object, a.Name(), on, d, e.Explain(c, a, arm.MustID(on)))
					}
					if d.Allowed {
						yes++
					}
				}
			}
		}
	}
	if yes < 100 {
		t.Errorf("only %d questions were answered with yes", yes)
	}
}

// Each verdict says what stands in the way.
func TestVerdicts(t *testing.T) {
	e := engineWith(t, [3]string{alice, "Reader", rg1}, [3]string{alice, "Contributor", ws + "2"}, [3]string{alice, "Reader", ws + "2"})
	e.SetClock(func() time.Time { return time.Unix(1000, 0) })
	put(t, e, Assignment{ID: "late", Scope: arm.MustID(sub), RoleID: builtInID(t, "Owner"), Principal: alice, NotAfter: time.Unix(1000, 0)})
	put(t, e, Assignment{ID: "via", Scope: arm.MustID(sub), RoleID: builtInID(t, "Owner"), Principal: alice, Via: team})
	put(t, e, Assignment{ID: "zgone", Scope: arm.MustID(sub), RoleID: "11111111-2222-3333-4444-555555555555", Principal: alice})
	var got []string
	for _, x := range e.Explain(caller, wsWrite, arm.MustID(ws)) {
		got = append(got, x.Role.Name+" "+string(x.Verdict))
	}
	want := []string{"Reader LacksAction", "Owner OutsideItsTime", "Owner NotInGroup", " RoleGone", "Contributor OtherScope"}
	if !slices.Equal(got, want) {
		t.Errorf("the verdicts are %q, want %q", got, want)
	}
	if x := e.Explain(arm.Caller{Object: alice, Lease: &arm.Lease{}}, wsWrite, arm.MustID(ws)); x != nil {
		t.Errorf("a lease is explained by roles: %v", x)
	}
}

// The role that is proposed has the action, and no other role that has it opens
// fewer of the known ones.
func TestNarrowest(t *testing.T) {
	all := []arm.Action{wsRead, wsWrite, getKey, control("Microsoft.KeyVault/vaults/read"), control("Microsoft.Storage/storageAccounts/read"), control("Microsoft.Authorization/roleAssignments/write")}
	opens := func(r Role) (n int) {
		for _, a := range all {
			if r.Allows(a) {
				n++
			}
		}
		return n
	}
	for _, a := range all {
		best, ok := Narrowest(known(), a, all)
		if !ok || !best.Allows(a) {
			t.Errorf("for %s it proposes %q", a.Name(), best.Name)
		}
		for _, r := range known() {
			if r.Allows(a) && opens(r) < opens(best) {
				t.Errorf("for %s it proposes %q, but %q opens less", a.Name(), best.Name, r.Name)
			}
		}
	}
	if best, ok := Narrowest(known(), getKey, all); best.Name != "Key Vault Secrets User" {
		t.Errorf("to read a secret it proposes %q, %v", best.Name, ok)
	}
	if _, ok := Narrowest(known(), control("Nobody.Has/this/burn/action"), all); !ok {
		t.Error("Owner has everything")
	}
	if _, ok := Narrowest(known(), arm.Action{}, all); ok {
		t.Error("a role was proposed for no action")
	}
}
