package governance

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"castellan/internal/arm"
)

const decisions = "/providers/" + decisionType + "/"

var correlated = regexp.MustCompile(`Correlation id: ([0-9a-f]+)\.`)

// refused is the correlation id of a refusal.
func (w *world) refused(who, method, path, body string) string {
	w.Helper()
	out := w.do(who, method, path, body, http.StatusForbidden)
	m := correlated.FindStringSubmatch(fmt.Sprint(out))
	if m == nil {
		w.Fatalf("the refusal has no correlation id: %v", out)
	}
	return m[1]
}

func properties(out map[string]any) map[string]any {
	p, _ := out["properties"].(map[string]any)
	return p
}

// verdicts are what the assignments of an explanation did, as "role verdict".
func verdicts(p map[string]any) (out []string) {
	list, _ := p["assignmentsConsidered"].([]any)
	for _, x := range list {
		m := x.(map[string]any)
		out = append(out, fmt.Sprint(m["roleName"], " ", m["verdict"]))
	}
	return out
}

// A refusal is explained to who may read assignments at its scope: who, what,
// the assignments that did not do, and the smallest role that would.
func TestRefusalsHaveReasons(t *testing.T) {
	w := newWorld(t)
	w.do(olga, "PUT", at(ws, 1), w.give("Contributor", rita), http.StatusCreated)
	id := w.refused(rita, "PUT", rg1, `{"location":"local"}`)
	p := properties(w.do(olga, "GET", decisions+id, "", http.StatusOK))
	for name, want := range map[string]any{
		"callerId": rita, "action": "Microsoft.Resources/subscriptions/resourceGroups/write", "scope": rg1, "decision": "refused",
		"missingAction": "Microsoft.Resources/subscriptions/resourceGroups/write", "changed": false,
	} {
		if p[name] != want {
			t.Errorf("%s is %v, want %v", name, p[name], want)
		}
	}
	if got := fmt.Sprint(verdicts(p)); got != "[Reader LacksAction Contributor OtherScope]" {
		t.Errorf("the assignments considered are %s", got)
	}
	small, _ := p["smallestRole"].(map[string]any)
	role, ok := w.engine.Role(fmt.Sprint(small["id"]))
	if !ok || !role.Allows(arm.NewAction(fmt.Sprint(p["action"]), "")) || role.Name == "Owner" {
		t.Errorf("the smallest role is %v", small)
	}
	if fmt.Sprint(small["roleName"]) != role.Name {
		t.Errorf("its name is %v, but %s", small, role.Name)
	}

	w.do(olga, "PUT", at(rg1, 2), w.give(role.ID, rita), http.StatusCreated)
	w.do(rita, "PUT", rg1, `{"location":"local"}`, http.StatusOK)
	p = properties(w.do(olga, "GET", decisions+id, "", http.StatusOK))
	now, _ := p["now"].(map[string]any)
	if p["changed"] != true || now["decision"] != "allowed" || p["decision"] != "refused" || p["missingAction"] != nil {
		t.Errorf("after the role was given, the explanation is %v", p)
	}
}

// What one is told depends on the scope of the decision, not on the door: who
// was refused sees only what the refusal said, and all others nothing.
func TestExplanationsAreForWhoMayReadAssignments(t *testing.T) {
	w := newWorld(t)
	id := w.refused(nora, "PUT", rg10, `{"location":"local"}`)
	p := properties(w.do(nora, "GET", decisions+id, "", http.StatusOK))
	if len(p) != 5 || p["action"] == "" || p["scope"] != rg10 || p["correlationId"] != id || p["decision"] != "refused" {
		t.Errorf("who was refused sees %v", p)
	}
	for _, who := range []string{dora, abel, bot} { // abel may read assignments, but in rg1
		out := w.do(who, "GET", decisions+id, "", http.StatusNotFound)
		unknown := w.do(who, "GET", decisions+strings.Repeat("0", len(id)), "", http.StatusNotFound)
		if got, want := strings.ReplaceAll(fmt.Sprint(out), id, "ID"), strings.ReplaceAll(fmt.Sprint(unknown), strings.Repeat("0", len(id)), "ID"); got != want {
			t.Errorf("a decision that is there is told from one that is not: %s, %s", got, want)
		}
	}
	inside := w.refused(nora, "PUT", rg1, `{"location":"local"}`)
	for _, who := range []string{olga, carl, rita, abel} {
		if p := properties(w.do(who, "GET", decisions+inside, "", http.StatusOK)); p["callerId"] != nora {
			t.Errorf("%s, who may read assignments, sees %v", who[32:], p)
		}
	}
	w.people.kinds[nora] = ""
	p = properties(w.do(olga, "GET", decisions+inside, "", http.StatusOK))
	if now := fmt.Sprint(p["now"]); !strings.Contains(now, "no principal") || p["assignmentsConsidered"] != nil {
		t.Errorf("of somebody who is gone it says %v", p)
	}
}

// A group's assignment is shown as the group's, and an eligibility as a way.
func TestExplanationsShowGroupsAndEligibilities(t *testing.T) {
	w := eligibleWorld(t)
	w.do(olga, "PUT", at(rg1, 1), w.give("Reader", above), http.StatusCreated)
	id := w.refused(nora, "PUT", rg1, `{"location":"local"}`)
	p := properties(w.do(olga, "GET", decisions+id, "", http.StatusOK))
	list, _ := p["assignmentsConsidered"].([]any)
	if len(list) != 1 || list[0].(map[string]any)["throughGroup"] != above {
		t.Errorf("the group's assignment is shown as %v", list)
	}
	if got := fmt.Sprint(p["eligible"]); !strings.Contains(got, "roleName:Contributor") {
		t.Errorf("the eligibility is shown as %s", got)
	}
	if p := properties(w.do(nora, "GET", decisions+id, "", http.StatusOK)); p["callerId"] != nora {
		t.Errorf("nora may read assignments by her group, but sees %v", p)
	}
}
