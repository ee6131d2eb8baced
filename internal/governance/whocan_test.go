package governance

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"castellan/internal/arm"
)

// rows are the rows of a list.
func rows(out map[string]any) (list []map[string]any) {
	all, _ := out["value"].([]any)
	for _, r := range all {
		list = append(list, r.(map[string]any))
	}
	return list
}

func (w *world) whoCan(who, action, scope string, want int) []map[string]any {
	w.Helper()
	return rows(w.do(who, "GET", scope+"/providers/Castellan.Authorization/whoCan?action="+action, "", want))
}

// Whoever the gate would let in is on the list with an active way, and nobody
// else is: for every action of the doors, at every scope, before and after
// groups, times and conditions.
func TestWhoCanAgreesWithTheGate(t *testing.T) {
	w := eligibleWorld(t)
	w.do(olga, "PUT", at(rg1, 1), w.give("Contributor", above), http.StatusCreated)
	w.do(olga, "PUT", at(rg10, 2), w.give("Owner", bot), http.StatusCreated)
	everybody := []string{olga, carl, rita, dora, abel, nora, bot}
	yes := 0
	for _, left := range []bool{false, true} {
		w.people.left = left
		for _, a := range w.actions() {
			if strings.Contains(a.Key(), "approval") {
				continue // the approvers', by no role
			}
			for _, scope := range []string{sub, rg1, rg10, ws} {
				var got, want []string
				for _, x := range w.whoCan(olga, a.Name(), scope, http.StatusOK) {
					if who := fmt.Sprint(x["principalId"]); x["state"] == activeNow && !slices.Contains(got, who) {
						got = append(got, who)
					}
				}
				for _, who := range everybody {
					c, _ := w.known("", who)
					if w.gate.Would(c, a, arm.MustID(scope)) && w.engine.Decide(c, a, arm.MustID(scope)).Allowed {
						want = append(want, who)
						yes++
					}
				}
				slices.Sort(got)
				if slices.Sort(want); !slices.Equal(got, want) {
					t.Errorf("%s at %s: %v can, want %v", a.Name(), scope, got, want)
				}
			}
		}
	}
	if yes < 500 {
		t.Errorf("only %d questions were answered with yes", yes)
	}
}

// The chain is told: nesting of groups, the role, and what could be activated.
func TestWhoCanTellsTheChain(t *testing.T) {
	w := eligibleWorld(t)
	w.do(olga, "PUT", at(rg1, 1), w.give("Contributor", above), http.StatusCreated)
	var got []string
	for _, x := range w.whoCan(olga, "Microsoft.Resources/subscriptions/resourceGroups/write", rg1, http.StatusOK) {
		if x["principalId"] == nora {
			got = append(got, fmt.Sprint(x["state"], x["roleName"], x["scope"], x["throughGroups"], x["endDateTime"]))
		}
	}
	slices.Sort(got)
	want := []string{
		fmt.Sprint(activeNow, "Contributor", rg1, []string{team, above}, nil),
		fmt.Sprint(couldBe, "Contributor", rg1, "[]", "2030-05-07T12:00:00Z"),
	}
	if !slices.Equal(got, want) {
		t.Errorf("nora's ways are %q, want %q", got, want)
	}
	w.people.kinds[nora] = ""
	for _, x := range w.whoCan(olga, "Microsoft.Resources/subscriptions/resourceGroups/write", rg1, http.StatusOK) {
		if x["principalId"] == nora {
			t.Errorf("who is gone still can: %v", x)
		}
	}
}

// Who can is for who may read role assignments at the scope; a question that is
// none is refused.
func TestWhoCanIsForWhoMayReadAssignments(t *testing.T) {
	w := newWorld(t)
	const action = "Microsoft.Resources/subscriptions/resourceGroups/write"
	for _, who := range []string{nora, dora, bot} {
		w.whoCan(who, action, rg1, http.StatusForbidden)
	}
	w.whoCan(abel, action, rg1, http.StatusOK)
	w.whoCan(abel, action, rg10, http.StatusForbidden)
	w.whoCan(olga, action, sub+"/resourceGroups/none", http.StatusNotFound)
	for _, bad := range []string{"", "*", "a/b", "Microsoft.Resources/*/write", action + "&isDataAction=perhaps"} {
		w.whoCan(olga, bad, rg1, http.StatusBadRequest)
	}
}
