package governance

import (
	"fmt"
	"strings"
	"testing"

	"castellan/internal/rbac"
)

func denyAt(scope string, n int) string {
	return fmt.Sprintf("%sdenyAssignments/%08d-0000-4000-a000-000000000000", scope+auth, n)
}

// forbid is the body that denies actions to a principal but not to others.
func forbid(name, principal, actions string, but ...string) string {
	var list []string
	for _, b := range but {
		list = append(list, fmt.Sprintf(`{"id":%q,"type":"User"}`, b))
	}
	return fmt.Sprintf(`{"properties":{"denyAssignmentName":%q,"permissions":[{"actions":[%s]}],"principals":[{"id":%q,"type":"User"}],"excludePrincipals":[%s]}}`, name, actions, principal, strings.Join(list, ","))
}

// What is denied is refused with the next request, to the Owner and through a
// move too, and given again with the next after it was taken away; a restart
// changes nothing.
func TestDenyAssignments(t *testing.T) {
	w := newWorld(t)
	w.chief()
	w.makeGroup("g", tenant)
	w.do(olga, "GET", ws, "", 200)
	w.do(abel, "PUT", denyAt(rg1, 1), forbid("d", olga, `"*"`), 403)
	w.do(carl, "PUT", denyAt(rg1, 1), forbid("d", rita, `"*"`), 403)
	w.do(olga, "PUT", denyAt(mg+"g", 1), forbid("d", rbac.Everyone, `"Microsoft.MachineLearningServices/*"`, olga), 201)
	sees := func(who string, want int) {
		t.Helper()
		w.do(who, "GET", ws, "", want)
		w.do(who, "GET", ws, "", want)
	}
	sees(rita, 200)
	w.do(olga, "PUT", mg+"g"+sub, "", 200)
	sees(rita, 403)
	sees(olga, 200)
	w.restart()
	sees(rita, 403)
	w.do(olga, "DELETE", mg+"g"+sub, "", 204)
	sees(rita, 200)
	w.do(olga, "PUT", mg+"g"+sub, "", 200)
	out := w.do(olga, "GET", sub+auth+"denyAssignments?$filter=atScope()", "", 200)
	if got := names(out, "denyAssignmentName"); len(got) != 1 || got[0] != "d" {
		t.Errorf("the list at the subscription has %v", got)
	}
	if got := names(w.do(olga, "GET", sub+auth+"denyAssignments?$filter=assignedTo('"+rita+"')", "", 200), "denyAssignmentName"); len(got) != 1 {
		t.Errorf("rita is denied by %v", got)
	}
	who := w.do(olga, "GET", ws+"/providers/Castellan.Authorization/whoCan?action=Microsoft.MachineLearningServices/workspaces/read", "", 200)
	if text := fmt.Sprint(who); strings.Contains(text, rita) || !strings.Contains(text, olga) {
		t.Errorf("who can read: %v", text)
	}
	w.do(olga, "DELETE", denyAt(mg+"g", 1), "", 200)
	w.do(olga, "DELETE", denyAt(mg+"g", 1), "", 204)
	sees(rita, 200)
}

// A deny assignment never locks out: whoever has the role may take it away, and
// what lay at a deleted scope is gone.
func TestDenialsCanBeTakenAway(t *testing.T) {
	w := newWorld(t)
	w.do(olga, "PUT", denyAt(sub, 1), forbid("all", rbac.Everyone, `"*"`, nora), 201)
	w.do(olga, "GET", rg1, "", 403)
	w.do(olga, "PUT", denyAt(sub, 2), forbid("more", carl, `"*"`), 403)
	w.do(carl, "DELETE", denyAt(sub, 1), "", 403)
	w.do(olga, "GET", denyAt(sub, 1), "", 200)
	w.do(olga, "DELETE", denyAt(sub, 1), "", 200)
	w.do(olga, "PUT", denyAt(rg10, 3), forbid("here", rita, `"*/read"`), 201)
	w.do(rita, "GET", rg10, "", 403)
	w.do(olga, "DELETE", rg10, "", 200)
	w.do(olga, "PUT", rg10, `{"location":"local"}`, 201)
	w.do(rita, "GET", rg10, "", 200)
}

// A group is denied with all who are in it, whatever they hold themselves.
func TestDenialsOfGroups(t *testing.T) {
	w := newWorld(t)
	w.do(olga, "PUT", denyAt(sub, 1), forbid("d", team, `"Microsoft.Authorization/*"`), 201)
	w.do(olga, "PUT", at(sub, 9), w.give("Owner", nora), 201)
	w.do(nora, "PUT", at(rg1, 10), w.give("Reader", bot), 403)
	w.do(nora, "GET", rg1, "", 200)
}

func TestWrongDenials(t *testing.T) {
	w := newWorld(t)
	for why, x := range map[string][2]string{
		"everyone without anybody left out": {denyAt(sub, 1), forbid("d", rbac.Everyone, `"*"`)},
		"nobody":                            {denyAt(sub, 1), `{"properties":{"denyAssignmentName":"d","permissions":[{"actions":["*"]}]}}`},
		"somebody who is not there":         {denyAt(sub, 1), forbid("d", "00000000-0000-0000-0000-0000000000ff", `"*"`)},
		"nothing":                           {denyAt(sub, 1), forbid("d", rita, ``)},
		"no name":                           {denyAt(sub, 1), forbid("", rita, `"*"`)},
		"no pattern":                        {denyAt(sub, 1), forbid("d", rita, `"a b"`)},
		"no GUID":                           {sub + auth + "denyAssignments/x", forbid("d", rita, `"*"`)},
		"a protected one":                   {denyAt(sub, 1), strings.Replace(forbid("d", rita, `"*"`), `"permissions"`, `"isSystemProtected":true,"permissions"`, 1)},
		"an audit":                          {denyAt(sub, 1), strings.Replace(forbid("d", rita, `"*"`), `"permissions"`, `"denyAssignmentEffect":"audit","permissions"`, 1)},
		"a condition that can't be read":    {denyAt(sub, 1), strings.Replace(forbid("d", rita, `"*"`), `"permissions"`, `"condition":"x","conditionVersion":"2.0","permissions"`, 1)},
		"a condition without its version":   {denyAt(sub, 1), strings.Replace(forbid("d", rita, `"*"`), `"permissions"`, `"condition":"ActionMatches{'a'}","permissions"`, 1)},
	} {
		if code, out := w.send(olga, "PUT", x[0], x[1]); code != 400 {
			t.Errorf("%s: %d %v", why, code, out)
		}
	}
	w.do(rita, "GET", rg1, "", 200)
}
