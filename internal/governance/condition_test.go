package governance

import (
	"fmt"
	"strings"
	"testing"
)

// delegating lets its holder give and take the roles alone, to principals of one
// kind alone, as Azure's portal writes it.
func delegating(kind string, roles ...string) string {
	list := strings.Join(roles, ", ")
	return fmt.Sprintf("((!(ActionMatches{'Microsoft.Authorization/roleAssignments/write'})) OR (@Request[Microsoft.Authorization/roleAssignments:RoleDefinitionId] ForAnyOfAnyValues:GuidEquals {%s} AND @Request[Microsoft.Authorization/roleAssignments:PrincipalType] StringEqualsIgnoreCase '%s')) AND ((!(ActionMatches{'Microsoft.Authorization/roleAssignments/delete'})) OR (@Resource[Microsoft.Authorization/roleAssignments:RoleDefinitionId] ForAnyOfAnyValues:GuidEquals {%s}))", list, kind, list)
}

// Who may give some roles only gives no others, by whatever door, spelling or
// claim, and takes no others (RBAC-09).
func TestDelegatedAdministratorsStayWithinTheirCondition(t *testing.T) {
	w := newWorld(t)
	reader, ownerRole := w.ids["Reader"], w.ids["Owner"]
	body := strings.Replace(w.give("Owner", nora), `{"role`, fmt.Sprintf(`{"condition":%q,"conditionVersion":"2.0","role`, delegating("User", reader)), 1)
	made := w.do(olga, "PUT", at(sub, 1), body, 201)
	if p := made["properties"].(map[string]any); p["condition"] != delegating("User", reader) || p["conditionVersion"] != "2.0" {
		t.Errorf("the condition is shown as %v", p)
	}
	// What the condition speaks of, within it.
	w.do(nora, "PUT", at(rg1, 2), w.give("Reader", carl), 201)
	w.do(nora, "PUT", at(rg1, 3), strings.Replace(w.give("Reader", rita), reader, strings.ToUpper(reader), 1), 201)
	w.do(nora, "DELETE", at(rg1, 2), "", 200)
	// And beyond it.
	w.do(olga, "PUT", at(rg1, 4), w.give("Owner", rita), 201)
	tries := map[string][3]string{
		"another role":                  {"PUT", at(rg1, 9), w.give("Owner", carl)},
		"in another case":               {"PUT", at(rg1, 9), strings.Replace(w.give("Owner", carl), ownerRole, strings.ToUpper(ownerRole), 1)},
		"to themselves":                 {"PUT", at(sub, 9), w.give("Owner", nora)},
		"another kind of principal":     {"PUT", at(rg1, 9), w.give("Reader", bot)},
		"a kind that they claim":        {"PUT", at(rg1, 9), strings.Replace(w.give("Reader", bot), `{"role`, `{"principalType":"User","role`, 1)},
		"two roles in one body":         {"PUT", at(rg1, 9), strings.Replace(w.give("Owner", carl), `{"role`, `{"RoleDefinitionId":"`+sub+auth+"roleDefinitions/"+reader+`","role`, 1)},
		"no body":                       {"PUT", at(rg1, 9), ""},
		"their own condition taken off": {"PUT", at(sub, 1), w.give("Owner", nora)},
		"an assignment of another role": {"DELETE", at(rg1, 4), ""},
		"their own assignment":          {"DELETE", at(sub, 1), ""},
		"an assignment that is not":     {"DELETE", at(rg1, 77), ""},
	}
	for name, x := range tries {
		if c, got := w.send(nora, x[0], x[1], x[2]); c != 403 || code(got) != "AuthorizationFailed" {
			t.Errorf("%s: %d %v", name, c, got)
		}
	}
	// Roles for a time go the same way.
	for i, role := range []string{"Owner", "Reader"} {
		q := fmt.Sprintf("%s%sroleAssignmentScheduleRequests/%08d-0000-4000-8000-00000000000a", rg1, auth, i)
		b := fmt.Sprintf(`{"properties":{"principalId":%q,"roleDefinitionId":%q,"requestType":"AdminAssign","justification":"on call","scheduleInfo":{"expiration":{"type":"AfterDuration","duration":"PT1H"}}}}`, carl, sub+auth+"roleDefinitions/"+w.ids[role])
		want := map[string]int{"Owner": 403, "Reader": 201}[role]
		if c, got := w.send(nora, "PUT", q, b); c != want {
			t.Errorf("%s for a time: %d %v, want %d", role, c, got, want)
		}
	}
	// It holds after a restart, and ends when the condition goes.
	w.close()
	w.open()
	w.do(nora, "PUT", at(rg1, 9), w.give("Owner", carl), 403)
	w.do(nora, "PUT", at(rg1, 5), w.give("Reader", abel), 201)
	w.do(olga, "PUT", at(sub, 1), w.give("Owner", nora), 200)
	w.do(nora, "PUT", at(rg1, 9), w.give("Owner", carl), 201)
}

// An administrator under a condition does not count as one that can repair a
// subscription.
func TestConditionsKeepNobodyAdministrator(t *testing.T) {
	w := newWorld(t)
	w.do(olga, "PUT", at(sub, 1), strings.Replace(w.give("Owner", nora), `{"role`, fmt.Sprintf(`{"condition":%q,"conditionVersion":"2.0","role`, delegating("User", w.ids["Reader"])), 1), 201)
	for _, a := range w.do(olga, "GET", sub+auth+"roleAssignments?$filter=atScope()", "", 200)["value"].([]any) {
		m := a.(map[string]any)
		p := m["properties"].(map[string]any)
		who, role := fmt.Sprint(p["principalId"]), fmt.Sprint(p["roleDefinitionId"])
		if who == nora || who == olga || !strings.HasSuffix(role, w.ids["Owner"]) && !strings.HasSuffix(role, w.ids["Role Based Access Control Administrator"]) {
			continue
		}
		w.do(olga, "DELETE", fmt.Sprint(m["id"]), "", 200)
	}
	var own string
	for _, a := range w.do(olga, "GET", sub+auth+"roleAssignments?$filter=principalId eq '"+olga+"'", "", 200)["value"].([]any) {
		if m := a.(map[string]any); strings.HasSuffix(fmt.Sprint(m["properties"].(map[string]any)["roleDefinitionId"]), w.ids["Owner"]) {
			own = fmt.Sprint(m["id"])
		}
	}
	if c, got := w.send(olga, "DELETE", own, ""); c != 412 {
		t.Errorf("the last administrator without a condition went: %d %v", c, got)
	}
}
