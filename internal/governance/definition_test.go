package governance

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"castellan/internal/arm"
)

// role is the body of a custom role with one action.
func role(name, action string, scopes ...string) string {
	return fmt.Sprintf(`{"properties":{"roleName":%q,"type":"CustomRole","permissions":[{"actions":[%q]}],"assignableScopes":["%s"]}}`, name, action, strings.Join(scopes, `","`))
}

func guidOf(path string) string { return path[len(path)-36:] }

// A custom role counts from the moment it is written, in what it now says, and
// is gone when it is deleted.
func TestLifeOfACustomRole(t *testing.T) {
	w := newWorld(t)
	c := custom(sub, 1)
	got := w.do(olga, "PUT", c, role("Looker", "Microsoft.MachineLearningServices/*/read", rg1, strings.ToUpper(rg10)), 201)
	p := got["properties"].(map[string]any)
	if got["id"] != c || p["type"] != "CustomRole" || fmt.Sprint(p["assignableScopes"]) != fmt.Sprint([]string{rg1, rg10}) || p["createdBy"] != olga {
		t.Errorf("PUT answered %v", got)
	}
	w.do(olga, "PUT", at(rg1, 1), w.give(guidOf(c), nora), 201)
	w.do(nora, "GET", ws, "", 200)
	w.do(olga, "PUT", c, role("Looker", "Microsoft.Storage/*/read", rg1), 201)
	w.do(nora, "GET", ws, "", 403)
	w.do(olga, "PUT", c, role("Looker 2", "Microsoft.MachineLearningServices/*/read", rg1), 201)
	w.restart()
	w.do(nora, "GET", ws, "", 200)
	if got := w.do(olga, "DELETE", c, "", 400); code(got) != "RoleDefinitionHasAssignments" {
		t.Errorf("DELETE of a role in use = %v", got)
	}
	if got := w.do(olga, "PUT", c, role("Looker 2", "*/read", rg10), 400); code(got) != "RoleDefinitionHasAssignments" {
		t.Errorf("PUT that leaves an assignment outside = %v", got)
	}
	w.do(olga, "PUT", at(sub, 2), w.give(guidOf(c), nora), 400)
	w.do(olga, "DELETE", at(rg1, 1), "", 200)
	w.do(olga, "DELETE", c, "", 200)
	w.do(olga, "DELETE", c, "", 204)
	w.do(olga, "GET", c, "", 404)
	w.do(olga, "PUT", custom(sub, 2), role("LOOKER", "*/read", sub), 201)
	w.do(olga, "PUT", custom(sub, 3), role("looker 2", "*/read", sub), 201)
}

// Custom roles do not reach what their makers do not, and do not pass for
// built-in ones (RBAC-16).
func TestCustomRolesStayInside(t *testing.T) {
	w := newWorld(t)
	bot := nobodyYet(w)
	w.do(olga, "PUT", at(rg10, 9), w.give("User Access Administrator", nora), 201)
	w.do(olga, "PUT", custom(sub, 9), role("Wide", "*/read", sub), 201)
	plain := role("New", "*/read", sub)
	data := strings.Replace(plain, `"actions":`, `"dataActions":["Microsoft.Storage/*/read"],"actions":`, 1)
	for _, x := range []struct {
		name, who, path, body string
		status                int
		code                  string
	}{
		{"a scope outside one's own rights", nora, custom(rg10, 1), role("New", "*", rg10, rg1), 403, "LinkedAuthorizationFailed"},
		{"the scope above", nora, custom(rg10, 1), role("New", "*", sub), 403, "LinkedAuthorizationFailed"},
		{"a scope that only the name begins", nora, custom(rg10, 1), role("New", "*", rg10+"0"), 403, "LinkedAuthorizationFailed"},
		{"somebody else's wide role", nora, custom(rg10, 9), role("Wide", "*", rg10), 403, "LinkedAuthorizationFailed"},
		{"the management group above one's own rights", olga, custom(sub, 1), role("New", "*", top), 403, "LinkedAuthorizationFailed"},
		{"another subscription", olga, custom(sub, 1), role("New", "*", twin), 403, "LinkedAuthorizationFailed"},
		{"the root", olga, custom(sub, 1), role("New", "*", "/"), 400, "InvalidRequestContent"},
		{"a resource", olga, custom(sub, 1), role("New", "*", ws), 400, "InvalidRequestContent"},
		{"a wildcard", olga, custom(sub, 1), role("New", "*", sub+"/resourceGroups/*"), 404, "ResourceGroupNotFound"},
		{"dataActions at a management group", bot, custom(top, 1), strings.Replace(data, sub, top, 1), 400, "InvalidDataActionsAtManagementGroup"},
		{"the id of a built-in role", olga, sub + auth + "roleDefinitions/" + owner, role("New", "*", sub), 403, "RoleDefinitionUpdateNotPermitted"},
		{"that id in capitals", olga, sub + auth + "roleDefinitions/" + strings.ToUpper(owner), role("New", "*", sub), 403, "RoleDefinitionUpdateNotPermitted"},
		{"the name of a built-in role", olga, custom(sub, 1), role("Owner", "*", sub), 409, "RoleDefinitionWithSameNameExists"},
		{"that name in capitals with spaces", olga, custom(sub, 1), role(" OWNER ", "*", sub), 409, "RoleDefinitionWithSameNameExists"},
		{"another role's name", olga, custom(sub, 1), role("wide", "*", sub), 409, "RoleDefinitionWithSameNameExists"},
		{"a built-in type", olga, custom(sub, 1), strings.Replace(plain, "CustomRole", "BuiltInRole", 1), 400, "NotSupported"},
		{"a name that is no GUID", olga, sub + auth + "roleDefinitions/mine", plain, 400, "InvalidRoleDefinitionId"},
		{"no scope", olga, custom(sub, 1), strings.Replace(plain, `["`+sub+`"]`, "[]", 1), 400, "InvalidRequestContent"},
		{"no name", olga, custom(sub, 1), role("", "*", sub), 400, "InvalidRequestContent"},
		{"a pattern that is none", olga, custom(sub, 1), role("New", "read everything", sub), 400, "InvalidActionOrNotAction"},
		{"an empty pattern", olga, custom(sub, 1), role("New", "", sub), 400, "InvalidActionOrNotAction"},
		{"a condition", olga, custom(sub, 1), strings.Replace(plain, `"actions":`, `"condition":"x","actions":`, 1), 400, "NotSupported"},
	} {
		if c, got := w.send(x.who, "PUT", x.path, x.body); c != x.status || code(got) != x.code {
			t.Errorf("%s: %d %v, want %d %s", x.name, c, got, x.status, x.code)
		}
	}
	for who, path := range map[string]string{nora: custom(rg10, 9), olga: sub + auth + "roleDefinitions/" + owner} {
		w.do(who, "DELETE", path, "", 403)
	}
	w.do(olga, "GET", custom(sub, 1), "", 404)
	w.do(nora, "PUT", custom(rg10, 1), role("Local", "*", rg10), 201)
	w.do(bot, "PUT", custom(top, 2), strings.Replace(plain, sub, top, 1), 201)
	w.do(olga, "PUT", at(ws, 5), w.give(guidOf(custom(top, 2)), dora), 201) // assignable everywhere below
}

// Lists have the built-in roles and those that can be assigned at the scope;
// the root shows custom roles to those alone who may see them.
func TestListDefinitions(t *testing.T) {
	w := newWorld(t)
	w.do(olga, "PUT", custom(sub, 1), role("Wide", "*/read", sub), 201)
	w.do(olga, "PUT", custom(rg1, 2), role("Narrow", "*/read", rg1), 201)
	list := func(who, scope, filter string) []string {
		path := scope + auth + "roleDefinitions"
		if filter != "" {
			path += "?$filter=" + filter
		}
		got := names(w.do(who, "GET", path, "", 200), "roleName")
		slices.Sort(got)
		return got
	}
	for _, x := range []struct {
		who, scope, filter, want string
	}{
		{olga, sub, "type eq 'CustomRole'", "Wide"},
		{olga, sub, "atScopeAndBelow() and type eq 'CustomRole'", "Narrow Wide"},
		{olga, rg1, "type eq 'CustomRole'", "Narrow Wide"},
		{olga, rg10, "type eq 'CustomRole'", "Wide"},
		{olga, sub, "roleName eq 'Owner'", "Owner"},
		{olga, sub, "roleName eq 'owner' and type eq 'BuiltInRole'", "Owner"},
		{olga, sub, "roleName eq 'O''Brien'", ""},
		{olga, sub, "type eq 'Other'", ""},
		{olga, "", "type eq 'CustomRole'", "Narrow Wide"},
		{nora, "", "type eq 'CustomRole'", ""},
		{nora, "", "roleName eq 'Reader'", "Reader"},
		{abel, "", "type eq 'CustomRole'", "Narrow"},
	} {
		if got := strings.Join(list(x.who, x.scope, x.filter), " "); got != x.want {
			t.Errorf("%q %s: %q, want %q", x.scope, x.filter, got, x.want)
		}
	}
	if got := list(olga, sub, ""); len(got) != 929 {
		t.Errorf("a subscription has %d roles, want 928 and one", len(got))
	}
	w.do(nora, "GET", sub+auth+"roleDefinitions", "", 403)
	w.do(nora, "GET", auth+"roleDefinitions/"+owner, "", 200)
	w.do(nora, "GET", auth+"roleDefinitions/"+guidOf(custom(sub, 1)), "", 404)
	got := w.do(olga, "GET", rg1+auth+"roleDefinitions/"+strings.ToUpper(owner), "", 200)
	if got["id"] != sub+auth+"roleDefinitions/"+owner || got["name"] != owner {
		t.Errorf("GET of Owner = %v", got)
	}
	a := w.do(olga, "PUT", at(ws, 1), w.give("Owner", nora), 201)
	if a["properties"].(map[string]any)["roleDefinitionId"] != got["id"] {
		t.Errorf("the assignment's role is %v, the list's %v", a, got["id"])
	}
}

// Everybody sees what they may, and nobody what others may.
func TestPermissions(t *testing.T) {
	w := newWorld(t)
	for who, want := range map[string]string{olga: "[*]", rita: "[*/read]", nora: ""} {
		rows := w.do(who, "GET", ws+auth+"permissions", "", 200)["value"].([]any)
		got := ""
		if len(rows) == 1 {
			got = fmt.Sprint(rows[0].(map[string]any)["actions"])
		}
		if got != want {
			t.Errorf("%s: %v, want %s", who[32:], rows, want)
		}
	}
}

// The root management group is above every subscription.
func TestManagementGroup(t *testing.T) {
	w := newWorld(t)
	bot := nobodyYet(w)
	w.do(olga, "GET", top, "", 403)
	w.do(bot, "GET", top, "", 200)
	w.do(bot, "GET", top+"8", "", 403)
	for who, want := range map[string]int{olga: 0, bot: 1} {
		if got := w.do(who, "GET", "/providers/Microsoft.Management/managementGroups", "", 200)["value"].([]any); len(got) != want {
			t.Errorf("%s sees %v", who[32:], got)
		}
	}
	if !w.may(bot, readWS, ws) || !w.may(bot, readWS, twin) {
		t.Error("an assignment at the management group does not reach down")
	}
}

// A role that grows between the look at its scopes and the write is not written
// by who has no right to what it grew to.
func TestRoleThatChangesMeanwhile(t *testing.T) {
	w := newWorld(t)
	w.do(olga, "PUT", at(rg10, 9), w.give("User Access Administrator", nora), 201)
	w.do(olga, "PUT", custom(rg10, 1), role("Role", "*/read", rg10), 201)
	w.decided = func(a arm.Action, id arm.ID) {
		if id.Key() == arm.MustID(rg10).Key() {
			w.decided = nil
			w.do(olga, "PUT", custom(rg10, 1), role("Role", "*/read", sub), 201)
		}
	}
	if got := w.do(nora, "PUT", custom(rg10, 1), role("Role", "*", rg10), 409); code(got) != "Conflict" {
		t.Errorf("PUT = %v", got)
	}
	w.do(nora, "PUT", custom(rg10, 1), role("Role", "*", rg10), 403)
	w.do(nora, "DELETE", custom(rg10, 1), "", 403)
}
