package governance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"castellan/internal/arm"
	"castellan/internal/rbac"
	"castellan/internal/resource"
	"castellan/internal/store"
)

const (
	readWS  = "Microsoft.MachineLearningServices/workspaces/read"
	writeWS = "Microsoft.MachineLearningServices/workspaces/write"
)

// A role given by a request counts for the next one, in every place of the
// tree, survives a restart, and is gone at once when it is taken.
func TestLifeOfAnAssignment(t *testing.T) {
	w := newWorld(t)
	for i, scope := range []string{top, sub, rg1, ws} {
		w.do(nora, "GET", ws, "", 403)
		a := at(scope, i)
		by := olga
		if scope == top {
			by = nobodyYet(w)
		}
		got := w.do(by, "PUT", a, w.give("Reader", nora), 201)
		p := got["properties"].(map[string]any)
		if p["scope"] != scope || p["principalType"] != "User" || p["principalId"] != nora || got["id"] != a || p["createdBy"] != by {
			t.Errorf("PUT answered %v", got)
		}
		w.do(by, "PUT", a, w.give("Reader", nora), 200)
		w.do(nora, "GET", ws, "", 200)
		w.do(nora, "PUT", ws, `{"location":"local"}`, 403)
		w.restart()
		w.do(nora, "GET", ws, "", 200)
		if got := w.do(by, "GET", a, "", 200); got["name"] != a[strings.LastIndexByte(a, '/')+1:] {
			t.Errorf("GET = %v", got)
		}
		w.do(by, "DELETE", a, "", 200)
		w.do(nora, "GET", ws, "", 403)
		w.do(by, "DELETE", a, "", 204)
		if got := w.do(by, "GET", a, "", 404); code(got) != "RoleAssignmentNotFound" {
			t.Errorf("GET of what was deleted = %v", got)
		}
	}
}

// nobodyYet makes bot Owner of the root management group, as a first start could.
func nobodyYet(w *world) string {
	w.Helper()
	err := w.db.Do(w.Context(), func(tx *store.Tx) error {
		return w.roles.Assign(tx, rbac.Assignment{Principal: bot, RoleID: owner, Scope: arm.MustID(top)}, arm.Caller{Tenant: tenant})
	})
	if err != nil {
		w.Fatal(err)
	}
	return bot
}

// A name means one assignment, and one assignment has one name.
func TestAssignmentsAreUnique(t *testing.T) {
	w := newWorld(t)
	w.do(olga, "PUT", at(rg1, 1), w.give("Reader", nora), 201)
	for _, x := range []struct{ name, path, body, code string }{
		{"the same under another name", at(rg1, 2), w.give("Reader", nora), "RoleAssignmentExists"},
		{"the same in other case", strings.ToUpper(at(rg1, 2)), strings.ToUpper(w.give("Reader", nora)), "RoleAssignmentExists"},
		{"another principal", at(rg1, 1), w.give("Reader", carl), "RoleAssignmentUpdateNotPermitted"},
		{"another role", at(rg1, 1), w.give("Owner", nora), "RoleAssignmentUpdateNotPermitted"},
		{"another scope", at(sub, 1), w.give("Reader", nora), "RoleAssignmentUpdateNotPermitted"},
	} {
		body := strings.NewReplacer("PROPERTIES", "properties", "ROLEDEFINITIONID", "roleDefinitionId", "PRINCIPALID", "principalId").Replace(x.body)
		if c, got := w.send(olga, "PUT", x.path, body); code(got) != x.code || c < 400 {
			t.Errorf("%s: %d %v, want %s", x.name, c, got, x.code)
		}
	}
	if got := w.roles.For(nora); len(got) != 1 || got[0].Scope.String() != rg1 {
		t.Errorf("nora has %v", got)
	}
	body := strings.Replace(w.give("Reader", nora), `{"role`, `{"description":"for the audit","role`, 1)
	w.do(olga, "PUT", at(rg1, 1), body, 200)
	if got := w.do(olga, "GET", at(rg1, 1), "", 200); got["properties"].(map[string]any)["description"] != "for the audit" {
		t.Errorf("the description is not kept: %v", got)
	}
}

// Of many that give the same at the same moment under different names, one does.
func TestOneOfManyGives(t *testing.T) {
	w := newWorld(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	codes := map[int]int{}
	for i := range 40 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c, _ := w.send(olga, "PUT", at(rg1, i), w.give("Reader", nora))
			mu.Lock()
			codes[c]++
			mu.Unlock()
		}()
	}
	wg.Wait()
	if codes[201] != 1 || codes[409] != 39 {
		t.Errorf("statuses %v, want one 201 and 39 times 409", codes)
	}
}

// What is wrong is refused with a code that says what, and gives nothing.
func TestBadAssignmentsGiveNothing(t *testing.T) {
	w := newWorld(t)
	good := w.give("Reader", nora)
	with := func(more string) string { return strings.Replace(good, `{"role`, `{`+more+`,"role`, 1) }
	for _, x := range []struct{ name, path, body, code string }{
		{"a name that is no GUID", rg1 + auth + "roleAssignments/mine", good, "InvalidRoleAssignmentId"},
		{"a principal that is not there", at(rg1, 1), w.give("Reader", "99999999-0000-0000-0000-000000000000"), "PrincipalNotFound"},
		{"a principal by name", at(rg1, 1), w.give("Reader", "nora@test"), "InvalidPrincipalId"},
		{"a role that is not there", at(rg1, 1), w.give("99999999-0000-0000-0000-000000000000", nora), "RoleDefinitionDoesNotExist"},
		{"a role by name", at(rg1, 1), strings.Replace(good, w.ids["Reader"], "Reader", 1), "InvalidRoleDefinitionId"},
		{"another kind", at(rg1, 1), with(`"principalType":"Group"`), "UnmatchedPrincipalType"},
		{"a kind that is none", at(rg1, 1), with(`"principalType":"Device"`), "InvalidRequestContent"},
		{"a condition of another version", at(rg1, 1), with(`"condition":"true","conditionVersion":"1.0"`), "InvalidConditionExpression"},
		{"a condition without its version", at(rg1, 1), with(`"CONDITION":"true"`), "InvalidConditionExpression"},
		{"a condition that can't be read", at(rg1, 1), with(`"condition":"@Nobody[x] Likes 'y'","conditionVersion":"2.0"`), "InvalidConditionExpression"},
		{"delegation", at(rg1, 1), with(`"canDelegate":true`), "NotSupported"},
		{"an unknown field", at(rg1, 1), with(`"effect":"allow"`), "InvalidRequestContent"},
		{"another scope in the body", at(rg1, 1), with(`"scope":"` + sub + `"`), "InvalidRequestContent"},
		{"another name in the body", at(rg1, 1), strings.Replace(good, "{", `{"name":"x",`, 1), "InvalidRequestContent"},
		{"two principals", at(rg1, 1), with(`"principalId":"` + olga + `"`), "InvalidRequestContent"},
		{"no body", at(rg1, 1), "", "InvalidRequestContent"},
		{"no properties", at(rg1, 1), "{}", "InvalidRoleDefinitionId"},
		{"a group that is not there", at(sub+"/resourceGroups/none", 1), good, "ResourceGroupNotFound"},
		{"a resource that is not there", at(ws+"2", 1), good, "ResourceNotFound"},
		{"an assignment as scope", at(at(rg1, 2), 1), good, "ResourceNotFound"},
	} {
		if c, got := w.send(olga, "PUT", x.path, x.body); code(got) != x.code || c < 400 {
			t.Errorf("%s: %d %v, want %s", x.name, c, got, x.code)
		}
	}
	w.do(olga, "PUT", at("/subscriptions/22222222-1111-1111-1111-111111111111", 1), good, 403)
	w.do(olga, "PUT", at("/providers/Microsoft.Management/managementGroups/other", 1), good, 403)
	w.do(olga, "PUT", at("", 1), good, 403)
	if got := w.roles.For(nora); got != nil || w.may(nora, readWS, ws) {
		t.Errorf("nora has %v", got)
	}
}

// Rights end with the segment where they were given, whatever the letter case
// of a question (RBAC-03, RBAC-07).
func TestScopesAreSegments(t *testing.T) {
	w := newWorld(t)
	w.do(olga, "PUT", at(rg1, 1), w.give("Reader", nora), 201)
	for scope, want := range map[string]int{rg1: 200, strings.ToUpper(rg1): 200, rg10: 403, rg1 + "-x": 403, sub + "/resourceGroups/rg": 403,
		twin + "/resourceGroups/rg1": 403, sub: 403, ws: 200, strings.Replace(ws, "/rg1/", "/rg10/", 1): 403, strings.Replace(ws, "/ws", "/rg1", 1): 404} {
		w.do(nora, "GET", scope, "", want)
	}
	r := rand.New(rand.NewPCG(1, 2))
	odd := func(s string) string {
		b := []byte(s)
		for i := range b {
			if r.IntN(2) == 0 {
				b[i] = strings.ToUpper(s[i : i+1])[0]
			} else {
				b[i] = strings.ToLower(s[i : i+1])[0]
			}
		}
		return string(b)
	}
	for i := range 10_000 {
		who, action, scope := []string{nora, carl, dora}[i%3], []string{readWS, writeWS, "Microsoft.Authorization/roleAssignments/write"}[i/3%3], []string{ws, rg1, rg10}[i/9%3]
		if got, want := w.may(odd(who), odd(action), odd(scope)), w.may(who, action, scope); got != want {
			t.Fatalf("%s %s %s in odd case = %v, want %v", who, action, scope, got, want)
		}
	}
}

// Nobody gets more than they have, however they ask (RBAC-09).
func TestNobodyGivesThemselvesRights(t *testing.T) {
	w := newWorld(t)
	for n, who := range []string{carl, rita, dora, nora, abel} {
		own := 0
		for _, scope := range []string{"", top, sub, rg1, rg10, ws} {
			if who == abel && (scope == rg1 || scope == ws) {
				continue
			}
			for i, body := range []string{w.give("Owner", who), w.give(strings.ToUpper(owner), who), w.give("User Access Administrator", who), w.give("Owner", team)} {
				w.do(who, "PUT", at(scope, 100*n+i), body, 403)
				w.do(who, "PUT", strings.ToUpper(at(scope, 100*n+i)), body, 403)
				w.do(who, "PUT", "/"+at(scope, 100*n+i), body, 403)
			}
			w.do(who, "PUT", custom(scope, n), role("Mine", "*", sub), 403)
			w.do(who, "DELETE", custom(scope, n), "", 403)
		}
		for _, a := range w.engine.Assignments() {
			if who == abel && a.Scope.Within(arm.MustID(rg1)) {
				continue
			}
			w.do(who, "DELETE", a.ID, "", 403)
			own++
		}
		if own == 0 {
			t.Error("there was nothing to delete")
		}
	}
	if got := len(w.engine.Assignments()); got != 5 {
		t.Errorf("there are %d assignments, want the 5 of the beginning", got)
	}
	// Who may give roles at a group may give any there, and nothing outside.
	w.do(abel, "PUT", at(rg1, 1), w.give("Owner", abel), 201)
	w.do(abel, "PUT", rg1+"/providers/Microsoft.MachineLearningServices/workspaces/two", `{"location":"local"}`, 201)
	w.do(abel, "PUT", at(sub, 2), w.give("Owner", abel), 403)
	w.do(abel, "PUT", at(rg10, 2), w.give("Owner", abel), 403)
}

// A refusal tells the caller what was missing, and the log why.
func TestRefusalsAreExplained(t *testing.T) {
	w := newWorld(t)
	got := w.do(rita, "PUT", at(rg1, 1), w.give("Owner", rita), 403)
	if err := w.log.Sync(w.Context()); err != nil {
		t.Fatal(err)
	}
	tail, err := w.log.Tail(w.Context(), 1)
	if err != nil || len(tail) != 1 {
		t.Fatal(tail, err)
	}
	e, text := tail[0], fmt.Sprint(got)
	for _, want := range []string{e.Correlation, WriteAssignment.Name(), at(rg1, 1), rita, "AuthorizationFailed"} {
		if !strings.Contains(text, want) {
			t.Errorf("the refusal %s does not say %s", text, want)
		}
	}
	if e.Decision != "refused" || e.Reason != "none of the caller's roles here or above has the action" {
		t.Errorf("the log says %+v", e)
	}
}

// What a role takes away another may give (RBAC-04), data actions are not
// actions (RBAC-05), and a data scientist makes no compute (RBAC-08).
func TestRolesDecide(t *testing.T) {
	w := newWorld(t)
	data := func(who, action string) bool {
		return w.engine.Decide(arm.Caller{Object: who}, arm.NewDataAction(action, ""), arm.MustID(ws)).Allowed
	}
	for _, who := range []string{olga, carl} {
		for _, a := range []string{"Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read", "Microsoft.KeyVault/vaults/secrets/getSecret/action"} {
			if data(who, a) {
				t.Errorf("%s may do the data action %s by a role without data actions", who[32:], a)
			}
		}
	}
	const comp = "Microsoft.MachineLearningServices/workspaces/computes/"
	for action, want := range map[string]bool{comp + "write": false, comp + "delete": false, comp + "start/action": true, comp + "read": true, readWS: true, writeWS: false,
		"Microsoft.MachineLearningServices/workspaces/delete": false, "Microsoft.MachineLearningServices/workspaces/jobs/write": true} {
		if got := w.may(dora, action, ws); got != want {
			t.Errorf("a data scientist may %s is %v, want %v", action, got, want)
		}
	}
	w.do(dora, "PUT", ws+"/computes/c", `{"location":"local"}`, 403)
	w.do(dora, "DELETE", ws+"/computes/c", "", 403)
	if w.may(rita, comp+"start/action", ws) {
		t.Error("*/read covers an action")
	}
	w.do(olga, "PUT", at(ws, 1), w.give("AzureML Compute Operator", dora), 201)
	w.do(dora, "PUT", ws+"/computes/c", `{"location":"local"}`, 201)
	if !w.may(dora, comp+"write", ws) || !w.may(dora, readWS, ws) {
		t.Error("a second role takes something away")
	}
}

// The last who can give roles at a subscription stays (RBAC-10), by whichever
// way the right would go.
func TestLastAdminStays(t *testing.T) {
	w := newWorld(t)
	bot := nobodyYet(w)
	last := w.roles.For(olga)[0].ID
	for _, who := range []string{olga, bot} {
		if got := w.do(who, "DELETE", last, "", 412); code(got) != "CannotDeleteLastRbacAdminAssignment" {
			t.Errorf("DELETE = %v", got)
		}
	}
	drop := func(who string) error {
		return w.db.Do(w.Context(), func(tx *store.Tx) error { return w.roles.DropPrincipal(tx, who) })
	}
	if err := drop(olga); arm.CodeOf(err) != "CannotDeleteLastRbacAdminAssignment" {
		t.Errorf("DropPrincipal = %v", err)
	}
	w.do(olga, "PUT", at(rg1, 2), w.give("Owner", carl), 201)
	w.do(olga, "DELETE", last, "", 412) // an owner of a group is none of the subscription
	// A custom role that can give roles counts, until it no longer can.
	w.do(olga, "PUT", custom(sub, 1), role("Giver", "Microsoft.Authorization/*", sub), 201)
	w.do(olga, "PUT", at(sub, 3), w.give(custom(sub, 1)[len(custom(sub, 1))-36:], carl), 201)
	w.do(olga, "DELETE", last, "", 200)
	w.do(olga, "GET", ws, "", 403)
	if got := w.do(carl, "PUT", custom(sub, 1), role("Giver", "Microsoft.Authorization/*/read", sub), 412); code(got) != "CannotDeleteLastRbacAdminAssignment" {
		t.Errorf("PUT of the role = %v", got)
	}
	w.do(carl, "DELETE", at(sub, 3), "", 412)
	w.do(carl, "PUT", at(sub, 4), w.give("Owner", olga), 201)
	w.do(carl, "DELETE", at(sub, 3), "", 200)
}

// Two who each leave the other as the last do not both go.
func TestLastAdminsRace(t *testing.T) {
	w := newWorld(t)
	w.do(olga, "PUT", at(sub, 1), w.give("Owner", carl), 201)
	first := w.roles.For(olga)[0].ID
	var wg sync.WaitGroup
	for who, id := range map[string]string{olga: at(sub, 1), carl: first} {
		wg.Add(1)
		go func() { defer wg.Done(); w.send(who, "DELETE", id, "") }()
	}
	wg.Wait()
	if len(w.roles.For(olga)) == 0 && !w.may(carl, WriteAssignment.Name(), sub) {
		t.Error("nobody can give roles at the subscription")
	}
}

// Rights go with what they were on, and with who had them (RBAC-19).
func TestRightsDieWithTheirScopeAndPrincipal(t *testing.T) {
	w := newWorld(t)
	w.do(olga, "PUT", at(ws, 1), w.give("Owner", nora), 201)
	w.do(olga, "PUT", ws+"/computes/c", `{"location":"local"}`, 201)
	w.do(olga, "PUT", at(ws+"/computes/c", 2), w.give("Owner", bot), 201)
	w.do(olga, "PUT", at(rg1, 3), w.give("Reader", team), 201)
	w.do(olga, "DELETE", rg1, "", 200)
	w.do(olga, "PUT", rg1, `{"location":"local"}`, 201)
	w.do(olga, "PUT", ws, `{"location":"local"}`, 201)
	w.do(olga, "PUT", ws+"/computes/c", `{"location":"local"}`, 201)
	for _, who := range []string{nora, dora, bot} {
		w.do(who, "GET", ws, "", 403)
		w.do(who, "GET", ws+"/computes/c", "", 403)
	}
	if left := w.engine.Assignments(); len(left) != 3 {
		t.Errorf("left are %v, want those at the subscription", left)
	}
	w.do(olga, "PUT", at(rg1, 4), w.give("Owner", nora), 201)
	if err := w.db.Do(w.Context(), func(tx *store.Tx) error { return w.roles.DropPrincipal(tx, strings.ToUpper(nora)) }); err != nil {
		t.Fatal(err)
	}
	w.do(nora, "GET", rg1, "", 403)
	w.restart()
	w.do(nora, "GET", rg1, "", 403)
}

// Lists have what is at, above and below their scope, and filters choose.
func TestListAssignments(t *testing.T) {
	w := newWorld(t)
	bot := nobodyYet(w)
	w.do(olga, "PUT", at(rg1, 1), w.give("Reader", above), 201)
	w.do(olga, "PUT", at(rg10, 2), w.give("Reader", nora), 201)
	for _, x := range []struct {
		scope, filter string
		want          []string
	}{
		{sub, "", []string{olga, carl, rita, dora, abel, bot, above, nora}},
		{sub, "atScope()", []string{olga, carl, rita, bot}},
		{rg1, "", []string{olga, carl, rita, dora, abel, bot, above}},
		{rg1, "atScope()", []string{olga, carl, rita, abel, bot, above}},
		{ws, "atScope()", []string{olga, carl, rita, dora, abel, bot, above}},
		{sub, "principalId eq '" + strings.ToUpper(nora) + "'", []string{nora}},
		{rg1, "principalId eq '" + nora + "'", nil},
		{sub, "principalId eq " + bot, []string{bot}},
		{sub, "assignedTo('" + nora + "')", []string{nora, above}},
		{rg1, "atScope() and assignedTo('" + nora + "')", []string{above}},
		{sub, "roleDefinitionId eq '" + sub + auth + "roleDefinitions/" + w.ids["Reader"] + "'", []string{rita, above, nora}},
		{top, "", nil}, // olga may not look there
	} {
		path := x.scope + auth + "roleAssignments"
		if x.filter != "" {
			path += "?$filter=" + x.filter
		}
		who, status := olga, 200
		if x.scope == top {
			status = 403
		}
		got := names(w.do(who, "GET", path, "", status), "principalId")
		slices.Sort(got)
		slices.Sort(x.want)
		if !slices.Equal(got, x.want) {
			t.Errorf("%s %s: %v, want %v", x.scope, x.filter, got, x.want)
		}
	}
	if got := names(w.do(bot, "GET", top+auth+"roleAssignments", "", 200), "principalId"); len(got) != 8 {
		t.Errorf("the management group has %v below it", got)
	}
	for _, bad := range []string{"true", "principalId ne 'x'", "atScope() or atScope()", "principalId eq 'x", "atScope() and", "atscope(", "createdBy eq 'x'"} {
		w.do(olga, "GET", sub+auth+"roleAssignments?$filter="+bad, "", 400)
	}
	w.do(olga, "GET", sub+"/resourceGroups/none"+auth+"roleAssignments", "", 404)
}

// A long list comes in pages, each row once.
func TestListPages(t *testing.T) {
	w := newWorld(t)
	err := w.db.Do(w.Context(), func(tx *store.Tx) error {
		for i := range page + 20 {
			d := &resource.Doc{ID: arm.MustID(fmt.Sprintf("%s/resourceGroups/g%d", sub, i)), Type: resource.Group.Type}
			if err := resource.Save(tx, d); err != nil {
				return err
			}
			if err := w.roles.Assign(tx, rbac.Assignment{Principal: nora, RoleID: owner, Scope: d.ID}, arm.Caller{Tenant: tenant}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[any]bool{}
	path := sub + auth + "roleAssignments?x=1"
	for n := 0; path != "" && n < 4; n++ {
		got := w.do(olga, "GET", path, "", 200)
		for _, r := range got["value"].([]any) {
			id := r.(map[string]any)["id"]
			if seen[id] {
				t.Errorf("%v comes twice", id)
			}
			seen[id] = true
		}
		next, _ := got["nextLink"].(string)
		path = strings.Replace(strings.TrimPrefix(next, "https://test"), "&api-version=2022-04-01", "", 1)
		path = strings.Replace(path, "api-version=2022-04-01&", "", 1)
	}
	if len(seen) != page+25 {
		t.Errorf("the pages have %d rows, want %d", len(seen), page+25)
	}
}

// Assign may be repeated and taken back; a transaction that fails leaves the
// engine as it was.
func TestEngineFollowsTheStore(t *testing.T) {
	w := newWorld(t)
	a := rbac.Assignment{Principal: bot, RoleID: sub + auth + "roleDefinitions/" + strings.ToUpper(w.ids["Contributor"]), Scope: arm.MustID(ws)}
	do := func(fn func(tx *store.Tx) error) error { return w.db.Do(context.Background(), fn) }
	broken := errors.New("broken")
	if err := do(func(tx *store.Tx) error {
		return errors.Join(w.roles.Assign(tx, a, arm.Caller{Tenant: tenant}), broken)
	}); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if w.may(bot, writeWS, ws) {
		t.Error("the engine followed a transaction that failed")
	}
	for range 3 {
		if err := do(func(tx *store.Tx) error { return w.roles.Assign(tx, a, arm.Caller{Tenant: tenant}) }); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.roles.For(bot); len(got) != 1 || !w.may(bot, writeWS, ws) {
		t.Errorf("bot has %v", got)
	}
	for _, bad := range []rbac.Assignment{{}, {Principal: bot, RoleID: a.RoleID}, {Principal: "x", RoleID: a.RoleID, Scope: a.Scope}, {Principal: bot, RoleID: "x", Scope: a.Scope},
		{Principal: nora, RoleID: a.RoleID, Scope: a.Scope, Condition: "true"}, {Principal: bot, RoleID: a.RoleID, Scope: arm.MustID(rg1), PrincipalType: arm.User}} {
		if err := do(func(tx *store.Tx) error { return w.roles.Assign(tx, bad, arm.Caller{Tenant: tenant}) }); err == nil {
			t.Errorf("Assign(%+v) succeeds", bad)
		}
	}
	w.restart()
	if !w.may(bot, writeWS, ws) {
		t.Error("the assignment did not survive")
	}
	for range 2 {
		if err := do(func(tx *store.Tx) error { return w.roles.Unassign(tx, a) }); err != nil {
			t.Fatal(err)
		}
	}
	if w.may(bot, writeWS, ws) {
		t.Error("what was taken still counts")
	}
}
