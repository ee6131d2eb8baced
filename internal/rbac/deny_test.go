package rbac

import (
	"testing"

	"castellan/internal/arm"
	"castellan/internal/condition"
)

// A deny assignment goes before every role: for those whom it names and does not
// leave out, at its scope and below it, for its own actions.
func TestDeny(t *testing.T) {
	const sub, other, group = "/subscriptions/s1", "/subscriptions/s2", "/subscriptions/s1/resourceGroups/g"
	const vault = group + "/providers/Microsoft.KeyVault/vaults/v"
	all := func(actions ...string) []Permission { return []Permission{{Actions: actions}} }
	read, remove := arm.NewAction("Microsoft.KeyVault/vaults/read", ""), arm.NewAction("Microsoft.KeyVault/vaults/delete", "")
	secret := arm.NewDataAction("Microsoft.KeyVault/vaults/secrets/getSecret/action", "")
	undo := arm.NewAction("Microsoft.Authorization/denyAssignments/delete", "")
	ann, bob := arm.Caller{Object: "ann", Groups: []string{"team"}}, arm.Caller{Object: "bob"}
	cond := `@Resource[Microsoft.KeyVault/vaults:name] StringEquals 'v'`
	for _, x := range []struct {
		why    string
		d      Deny
		c      arm.Caller
		a      arm.Action
		on     string
		denied bool
	}{
		{"named, at its scope", Deny{Permissions: all("*/delete"), Principals: []string{"ANN"}}, ann, remove, sub, true},
		{"named, below", Deny{Permissions: all("*/delete"), Principals: []string{"ann"}}, ann, remove, vault, true},
		{"another action", Deny{Permissions: all("*/delete"), Principals: []string{"ann"}}, ann, read, vault, false},
		{"another person", Deny{Permissions: all("*"), Principals: []string{"ann"}}, bob, read, vault, false},
		{"by a group", Deny{Permissions: all("*"), Principals: []string{"Team"}}, ann, read, vault, true},
		{"everyone", Deny{Permissions: all("*"), Principals: []string{Everyone}}, bob, read, vault, true},
		{"everyone but one", Deny{Permissions: all("*"), Principals: []string{Everyone}, Excluded: []string{"BOB"}}, bob, read, vault, false},
		{"everyone but a group", Deny{Permissions: all("*"), Principals: []string{Everyone}, Excluded: []string{"team"}}, ann, read, vault, false},
		{"notActions", Deny{Permissions: []Permission{{Actions: []string{"*"}, NotActions: []string{"*/read"}}}, Principals: []string{Everyone}}, ann, read, vault, false},
		{"notActions of another permission", Deny{Permissions: []Permission{{Actions: []string{"*/read"}}, {Actions: []string{"*"}, NotActions: []string{"*/read"}}}, Principals: []string{Everyone}}, ann, read, vault, true},
		{"only here, below", Deny{Permissions: all("*"), Principals: []string{Everyone}, Here: true}, ann, read, vault, false},
		{"only here, here", Deny{Permissions: all("*"), Principals: []string{Everyone}, Here: true}, ann, read, sub, true},
		{"beside", Deny{Permissions: all("*"), Principals: []string{Everyone}}, ann, read, other, false},
		{"actions are no data actions", Deny{Permissions: all("*"), Principals: []string{Everyone}}, ann, secret, vault, false},
		{"data actions", Deny{Permissions: []Permission{{DataActions: []string{"*"}}}, Principals: []string{Everyone}}, ann, secret, vault, true},
		{"taking it away", Deny{Permissions: all("*"), Principals: []string{Everyone}}, ann, undo, vault, false},
		{"a condition that can't be known", Deny{Permissions: all("*"), Principals: []string{Everyone}, Condition: cond, ConditionVersion: "2.0"}, ann, read, vault, true},
		{"a condition that can't be read", Deny{Permissions: all("*"), Principals: []string{Everyone}, Condition: "nonsense", ConditionVersion: "2.0"}, ann, read, vault, true},
		{"a condition on another action", Deny{Permissions: all("*"), Principals: []string{Everyone}, Condition: `ActionMatches{'Microsoft.KeyVault/vaults/delete'} AND ` + cond, ConditionVersion: "2.0"}, ann, read, vault, false},
	} {
		e := New([]Role{{ID: "all", Name: "all", Permissions: []Permission{{Actions: []string{"*"}, DataActions: []string{"*"}}}}})
		for _, who := range []string{"ann", "bob"} {
			if err := e.PutAssignment(Assignment{ID: who, RoleID: "all", Principal: who, Scope: arm.Root}); err != nil {
				t.Fatal(err)
			}
		}
		on := arm.MustID(x.on)
		e.Decide(x.c, x.a, on) // remembered, and to be forgotten
		x.d.ID, x.d.Name, x.d.Scope = "/d", "d", arm.MustID(sub)
		if err := e.PutDeny(x.d); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got := e.Decide(x.c, x.a, on); got.Allowed == x.denied || x.denied && got.By != "/d" {
				t.Errorf("%s: allowed = %v by %s (%s)", x.why, got.Allowed, got.By, got.Reason)
			}
		}
		if _, denied := e.Denied(x.c, x.a, on, nil); denied != x.denied {
			t.Errorf("%s: Denied = %v", x.why, denied)
		}
		e.RemoveDeny("/D")
		if !e.Decide(x.c, x.a, on).Allowed {
			t.Errorf("%s: it is still denied once that was taken away", x.why)
		}
	}
}

// A condition that is known decides, whatever was remembered.
func TestDenyUnderACondition(t *testing.T) {
	e := New([]Role{{ID: "all", Permissions: []Permission{{Actions: []string{"*"}}}}})
	on, read := arm.MustID("/subscriptions/s"), arm.NewAction("a/b/read", "")
	if err := e.PutAssignment(Assignment{ID: "a", RoleID: "all", Principal: "ann", Scope: on}); err != nil {
		t.Fatal(err)
	}
	if err := e.PutDeny(Deny{ID: "d", Scope: on, Permissions: []Permission{{Actions: []string{"*"}}}, Principals: []string{Everyone}, Condition: `NOT @Resource[a/b:name] StringEquals 'open'`, ConditionVersion: "2.0"}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for name, want := range map[string]bool{"open": true, "shut": false} {
			at := func() *condition.Attributes { return &condition.Attributes{Resource: map[string]any{"a/b:name": name}} }
			if got := e.DecideWith(arm.Caller{Object: "ann"}, read, on, at); got.Allowed != want {
				t.Errorf("%s: %v %s", name, got.Allowed, got.Reason)
			}
		}
	}
}
