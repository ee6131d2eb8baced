package governance

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"castellan/internal/arm"
	"castellan/internal/rbac"
	"castellan/internal/store"
)

const mg = "/providers/Microsoft.Management/managementGroups/"

// chief makes olga Owner of the root management group.
func (w *world) chief() {
	w.Helper()
	w.assign(olga, "Owner", top)
}

func (w *world) assign(who, role, scope string) {
	w.Helper()
	if err := w.db.Do(w.Context(), func(tx *store.Tx) error {
		return w.roles.Assign(tx, rbac.Assignment{Principal: who, RoleID: w.ids[role], Scope: arm.MustID(scope)}, arm.Caller{Tenant: tenant, Object: "setup"})
	}); err != nil {
		w.Fatal(err)
	}
}

func (w *world) makeGroup(name, parent string) {
	w.Helper()
	w.do(olga, "PUT", mg+name, `{"properties":{"displayName":"The `+name+`","details":{"parent":{"id":"`+mg+parent+`"}}}}`, 200)
}

// A role above counts in what is moved under it with the next request, and ends
// with the next request after it was moved away; remembered decisions too.
func TestMovesCountAtOnce(t *testing.T) {
	w := newWorld(t)
	w.chief()
	for _, x := range [][2]string{{"a", tenant}, {"b", "a"}, {"c", tenant}} {
		w.makeGroup(x[0], x[1])
	}
	w.assign(nora, "Reader", mg+"b")
	reads := func(want bool) {
		t.Helper()
		for range 3 { // remembered or not
			if got := w.may(nora, "Microsoft.MachineLearningServices/workspaces/read", ws); got != want {
				t.Fatalf("nora may read = %v, want %v", got, want)
			}
		}
		if code, out := w.send(nora, "GET", ws, ""); (code == 200) != want {
			t.Fatalf("GET as nora = %d %v, want %v", code, out, want)
		}
		held := names(w.do(olga, "GET", ws+auth+"roleAssignments?$filter=atScope()", "", 200), "principalId")
		if slices.Contains(held, nora) != want {
			t.Fatalf("the list has nora's = %v, want %v", !want, want)
		}
	}
	member := strings.TrimPrefix(sub, "/")
	steps := []struct {
		method, path, body string
		want               bool
	}{
		{"PUT", mg + "b/" + member, "", true},
		{"PUT", mg + "c/" + member, "", false},
		{"PATCH", mg + "c", `{"parentGroupId":"` + mg + `b"}`, true},
		{"PATCH", mg + "c", `{"parentGroupId":"` + mg + `a"}`, false},
		{"PUT", mg + "c", `{"properties":{"details":{"parent":{"id":"` + mg + `b"}}}}`, true},
		{"DELETE", mg + "c/" + member, "", false},
	}
	reads(false)
	for _, s := range steps {
		code, out := w.send(olga, s.method, s.path, s.body)
		if code/100 != 2 {
			t.Fatalf("%s %s = %d %v", s.method, s.path, code, out)
		}
		reads(s.want)
		w.restart()
		reads(s.want)
	}
}

// Nobody gets more by a move than they could have given themselves, and nobody
// takes anything out of a group that they may not change.
func TestMovesAreNoEscalation(t *testing.T) {
	w := newWorld(t)
	w.chief()
	for _, name := range []string{"mine", "prod", "dev"} {
		w.makeGroup(name, tenant)
	}
	w.assign(carl, "Owner", mg+"mine") // Contributor of the subscription
	w.assign(nora, "Owner", mg+"mine") // nothing at it
	w.assign(abel, "Owner", sub)
	w.assign(dora, "Management Group Contributor", top)
	member := strings.TrimPrefix(sub, "/")
	for _, who := range []string{carl, nora, rita, dora} {
		if out := w.do(who, "PUT", mg+"mine/"+member, "", 403); who == carl && code(out) != "LinkedAuthorizationFailed" {
			t.Errorf("carl's move: %v", out)
		}
	}
	if w.may(carl, WriteAssignment.Name(), sub) || w.may(nora, "Microsoft.Resources/subscriptions/read", sub) {
		t.Error("a refused move gave rights")
	}
	w.do(olga, "PUT", mg+"prod/"+member, "", 200)
	// Owner of the subscription alone: neither out of prod, nor into dev.
	w.do(abel, "DELETE", mg+"prod/"+member, "", 403)
	w.do(abel, "PUT", mg+"dev/"+member, "", 403)
	w.assign(abel, "Management Group Contributor", mg+"dev")
	if out := w.do(abel, "PUT", mg+"dev/"+member, "", 403); code(out) != "LinkedAuthorizationFailed" {
		t.Errorf("out of prod without a right there: %v", out)
	}
	w.assign(abel, "Management Group Contributor", mg+"prod")
	w.do(abel, "PUT", mg+"dev/"+member, "", 200)
	// A group is moved by who could give roles in it.
	w.do(dora, "PATCH", mg+"dev", `{"parentGroupId":"`+mg+`mine"}`, 403)
	// A subscription that is not there tells no more than one that may not be moved.
	w.do(dora, "PUT", mg+"mine/subscriptions/11111111-1111-1111-1111-999999999999", "", 403)
	w.do(olga, "PUT", mg+"mine/subscriptions/..", "", 400)
}

// A condition on what one may give binds moves too, also one that only refuses.
func TestConditionsBindMoves(t *testing.T) {
	w := newWorld(t)
	w.chief()
	w.makeGroup("mine", tenant)
	w.assign(bot, "Management Group Contributor", mg+"mine")
	w.assign(bot, "Management Group Contributor", sub)
	cond := `((!(ActionMatches{'Microsoft.Authorization/roleAssignments/write'})) OR (NOT @Request[Microsoft.Authorization/roleAssignments:RoleDefinitionId] ForAnyOfAnyValues:GuidEquals {` + owner + `}))`
	w.do(olga, "PUT", at(sub, 77), fmt.Sprintf(`{"properties":{"roleDefinitionId":%q,"principalId":%q,"condition":%q,"conditionVersion":"2.0"}}`,
		sub+auth+"roleDefinitions/"+w.ids["User Access Administrator"], bot, cond), 201)
	if out := w.do(bot, "PUT", mg+"mine"+sub, "", 403); code(out) != "LinkedAuthorizationFailed" {
		t.Errorf("a move by who may not give Owner: %v", out)
	}
}

// The hierarchy stays a tree of at most six levels under a root that stays.
func TestTheHierarchyStaysATree(t *testing.T) {
	w := newWorld(t)
	w.chief()
	parent := tenant
	for i := range 6 {
		name := fmt.Sprint("l", i+1)
		w.makeGroup(name, parent)
		parent = name
	}
	w.makeGroup("side", tenant)
	w.makeGroup("under", "side")
	for _, x := range []struct {
		why, method, path, body string
		want                    int
	}{
		{"a seventh level", "PUT", mg + "l7", `{"properties":{"details":{"parent":{"id":"` + mg + `l6"}}}}`, 400},
		{"a seventh level by a move", "PATCH", mg + "side", `{"parentGroupId":"` + mg + `l5"}`, 400},
		{"a group in itself", "PATCH", mg + "l1", `{"parentGroupId":"` + mg + `l1"}`, 400},
		{"a group in its own child", "PATCH", mg + "L1", `{"parentGroupId":"` + mg + `L3"}`, 400},
		{"the root in another", "PATCH", top, `{"parentGroupId":"` + mg + `l1"}`, 400},
		{"no root", "DELETE", top, "", 400},
		{"a group with children", "DELETE", mg + "l1", "", 400},
		{"a parent that is not there", "PATCH", mg + "side", `{"parentGroupId":"` + mg + `nowhere"}`, 404},
		{"a parent that is no group", "PATCH", mg + "side", `{"parentGroupId":"` + sub + `"}`, 400},
		{"a field that nobody knows", "PATCH", mg + "side", `{"parent":"x"}`, 400},
		{"a name that is none", "PUT", mg + "a$b", `{}`, 400},
		{"a name that ends with a dot", "PUT", mg + "ab.", `{}`, 400},
		{"one that is not there", "PATCH", mg + "nowhere", `{}`, 404},
		{"one that is not there", "DELETE", mg + "nowhere", "", 404},
		{"one that is not there", "GET", mg + "nowhere", "", 404},
	} {
		code, out := w.send(olga, x.method, x.path, x.body)
		if code != x.want && !(x.want == 404 && code == 403) { // no role reaches what is not there
			t.Errorf("%s: %d, want %d: %v", x.why, code, x.want, out)
		}
	}
	out := w.do(olga, "GET", top+"?$expand=children,path,ancestors&$recurse=true", "", 200)
	if text := fmt.Sprint(out); !strings.Contains(text, "l6") || !strings.Contains(text, "under") || !strings.Contains(text, strings.TrimPrefix(sub, "/subscriptions/")) {
		t.Errorf("the whole tree is %v", out)
	}
	deep := w.do(olga, "GET", mg+"l3?$expand=ancestors", "", 200)["properties"].(map[string]any)["details"].(map[string]any)
	if got := fmt.Sprint(deep["managementGroupAncestors"]); got != "[l2 l1 "+tenant+"]" {
		t.Errorf("the ancestors of l3 are %s", got)
	}
	if got := len(w.do(olga, "GET", mg+"l1/descendants", "", 200)["value"].([]any)); got != 5 {
		t.Errorf("l1 holds %d, want 5", got)
	}
}

// What was given at a group goes with it: a new one of its name begins empty.
func TestDeletedGroupsGiveNothing(t *testing.T) {
	w := newWorld(t)
	w.chief()
	w.makeGroup("g", tenant)
	w.assign(nora, "Owner", mg+"g")
	w.do(olga, "PUT", mg+"g"+sub, "", 200)
	w.do(olga, "DELETE", mg+"g", "", 400)
	w.do(olga, "DELETE", mg+"g"+sub, "", 204)
	w.do(olga, "DELETE", mg+"g", "", 204)
	w.makeGroup("g", tenant)
	w.do(olga, "PUT", mg+"g"+sub, "", 200)
	if w.may(nora, "Microsoft.Resources/subscriptions/read", sub) {
		t.Error("a role at a deleted group counts at its namesake")
	}
}

// Groups are made by who may write the root group, until the tenant lets
// everybody; who has no right above then owns what they made, and only that.
func TestWhoMakesGroups(t *testing.T) {
	w := newWorld(t)
	w.chief()
	w.do(nora, "PUT", mg+"n", `{}`, 403)
	w.do(nora, "PUT", top+"/settings/default", `{"properties":{"requireAuthorizationForGroupCreation":false}}`, 403)
	w.makeGroup("land", tenant)
	w.do(olga, "PUT", mg+"land/settings/default", `{}`, 400)
	w.do(olga, "PUT", top+"/settings/default", `{"properties":{"requireAuthorizationForGroupCreation":false,"defaultManagementGroup":"`+mg+`land"}}`, 200)
	w.do(nora, "PUT", mg+"n", `{}`, 200)
	if !w.may(nora, WriteAssignment.Name(), mg+"n") || w.may(nora, ReadGroup.Name(), mg+"land") {
		t.Error("who makes a group owns it, and nothing above it")
	}
	if !w.may(olga, WriteGroup.Name(), mg+"n") {
		t.Error("the root's owner lost the new group")
	}
	w.do(nora, "PUT", mg+"m", `{"properties":{"details":{"parent":{"id":"`+top+`"}}}}`, 200)
	w.makeGroup("closed", tenant)
	w.do(nora, "PUT", mg+"k", `{"properties":{"details":{"parent":{"id":"`+mg+`closed"}}}}`, 403)
	w.do(olga, "DELETE", mg+"land", "", 400)
	w.do(olga, "DELETE", top+"/settings/default", "", 200)
	w.do(nora, "PUT", mg+"k", `{}`, 403)
	if got := len(w.do(nora, "POST", "/providers/Microsoft.Management/getEntities", "", 200)["value"].([]any)); got != 4 {
		t.Errorf("nora sees %d entities, want 4: her groups and those that hold them", got)
	}
}

// A custom role that is assigned where it would not be assignable any more keeps
// its subscription in place.
func TestMovesKeepCustomRoles(t *testing.T) {
	w := newWorld(t)
	w.chief()
	w.makeGroup("a", tenant)
	w.makeGroup("b", "a")
	w.makeGroup("c", "a")
	w.do(olga, "PUT", mg+"b"+sub, "", 200)
	for n, scope := range []string{mg + "b", mg + "a"} {
		w.do(olga, "PUT", custom(top, n+1), fmt.Sprintf(`{"properties":{"roleName":"r%d","type":"CustomRole","assignableScopes":[%q],"permissions":[{"actions":["*/read"]}]}}`, n, scope), 201)
		w.do(olga, "PUT", at(rg1, 50+n), w.give(fmt.Sprintf("%08d-0000-4000-9000-000000000000", n+1), nora), 201)
	}
	w.do(olga, "PUT", mg+"c"+sub, "", 400)
	w.do(olga, "DELETE", at(rg1, 50), "", 200)
	w.do(olga, "PUT", mg+"c"+sub, "", 200)
	w.do(olga, "DELETE", mg+"c"+sub, "", 400)
}
