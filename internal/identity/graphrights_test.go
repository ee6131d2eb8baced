package identity

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"castellan/internal/arm"
)

// permit gives a principal a permission of the directory's API, by the ids that
// the API itself publishes, and returns the assignment's path.
func (w *world) permit(principal, permission string) string {
	w.t.Helper()
	api := w.admin("GET", "servicePrincipals(appId='"+graphApp+"')", nil)
	for _, r := range api.json["appRoles"].([]any) {
		if m := r.(map[string]any); m["value"] == permission {
			path := "servicePrincipals/" + principal + "/appRoleAssignments"
			return path + "/" + w.admin("POST", path, map[string]any{"principalId": principal, "resourceId": api.text("id"), "appRoleId": m["id"]}).text("id")
		}
	}
	w.t.Fatalf("the API has no %s", permission)
	return ""
}

// The table of permissions is what happens: with each of them an application
// gets through exactly the doors whose action the table gives, its token says
// so, and once it is taken away the same token opens none of them.
func TestApplicationPermissions(t *testing.T) {
	w := newWorld(t)
	bot := w.robot("bot")
	doors, nobody := w.s.Graph().Routes, arm.NewUUID()
	opens := func() (out []bool) {
		for _, rt := range doors {
			path := regexp.MustCompile(`\{[^}]*\}`).ReplaceAllString(strings.TrimPrefix(rt.Pattern, "/v1.0/"), nobody)
			out = append(out, w.graph(bot.token, rt.Method, path, map[string]any{}).status != 403)
		}
		return out
	}
	before := opens()
	for _, h := range book.permissions {
		given := w.permit(bot.id, h.name)
		for i, open := range opens() {
			rt := doors[i]
			if want := before[i] || h.allows(rt.Action.Key()) && !homeOnly[rt.Action.Key()]; open != want {
				t.Errorf("%s: %s %s opens: %v, want %v", h.name, rt.Method, rt.Pattern, open, want)
			}
		}
		secret := w.admin("POST", "applications/"+bot.app+"/addPassword", map[string]any{}).text("secretText")
		in := w.form(w.tokenPath(), url.Values{"grant_type": {"client_credentials"}, "client_id": {bot.client}, "client_secret": {secret}, "scope": {"https://" + w.site.GraphHost() + "/.default"}})
		if got := anys(claims(t, in.text("access_token"))["roles"]); !slices.Equal(got, []string{h.name}) {
			t.Errorf("%s: the token says %v", h.name, got)
		}
		w.admin("DELETE", given, nil)
	}
	if after := opens(); !slices.Equal(after, before) {
		t.Error("a permission that was taken away still opens doors")
	}
}

// A client does for a person what both may: the scopes never add to what the
// person may do, and the person never to what the client was let do.
func TestScopesBoundThePerson(t *testing.T) {
	w := newWorld(t)
	boss, _ := w.user("boss")
	w.give(boss, "Global Administrator")
	ann, _ := w.user("ann")
	here := tenantID(w.first.Tenant)
	for _, h := range book.permissions {
		for _, rt := range w.s.Graph().Routes {
			c := arm.Caller{Kind: arm.User, Tenant: w.first.Tenant, Object: boss, App: arm.NewUUID(), Scopes: []string{h.name}, Token: "access"}
			_, may, _ := w.s.Decide(c, rt.Action, here)
			want := book.everyone.allows(rt.Action.Key()) || h.scope != "" && h.allows(rt.Action.Key())
			if may != want {
				t.Errorf("%s: an administrator's client may %s: %v, want %v", h.name, rt.Action.Name(), may, want)
			}
			c.Object = ann
			if _, may, _ := w.s.Decide(c, rt.Action, here); may && !want {
				t.Errorf("%s: a person's client may %s", h.name, rt.Action.Name())
			}
			_, alone, _ := w.s.Decide(arm.Caller{Kind: arm.User, Tenant: w.first.Tenant, Object: ann, Token: "access"}, rt.Action, here)
			if _, may, _ := w.s.Decide(c, rt.Action, here); may && !alone {
				t.Errorf("%s: the client may %s, which the person may not", h.name, rt.Action.Name())
			}
		}
	}
}

// The permissions that at Microsoft lead to all others do not here.
func TestPermissionsDoNotMakeMore(t *testing.T) {
	w := newWorld(t)
	graph := w.s.index.spOf(w.first.Tenant, graphApp).ID
	const manageRoles = "9e3f62cf-ca93-4989-b6ce-bf83c28f9fe8"
	giver, owner, strong := w.robot("giver"), w.robot("owner"), w.robot("strong")
	w.permit(giver.id, "AppRoleAssignment.ReadWrite.All")
	w.permit(owner.id, "Application.ReadWrite.OwnedBy")
	w.permit(strong.id, "RoleManagement.ReadWrite.Directory")
	for _, path := range []string{"servicePrincipals/" + graph + "/appRoleAssignedTo", "servicePrincipals/" + giver.id + "/appRoleAssignments"} {
		if r := w.graph(giver.token, "POST", path, map[string]any{"principalId": giver.id, "resourceId": graph, "appRoleId": manageRoles}); r.status != 403 {
			t.Errorf("AppRoleAssignment.ReadWrite.All gives itself role management by %s: %d", path, r.status)
		}
	}
	e := newEnsemble(w)
	if r := w.graph(giver.token, "POST", "servicePrincipals/"+e.appSP+"/appRoleAssignments", map[string]any{"principalId": e.appSP, "resourceId": e.apiSP, "appRoleId": taskID}); r.status != 201 {
		t.Errorf("AppRoleAssignment.ReadWrite.All at an application of the tenant: %d %s", r.status, r.body)
	}
	mine := w.graph(owner.token, "POST", "applications", map[string]any{"displayName": "mine"})
	if mine.status != 201 {
		t.Fatalf("%d %s", mine.status, mine.body)
	}
	for app, want := range map[string]int{mine.text("id"): 200, e.app.text("id"): 403, strong.app: 403, owner.app: 403} {
		if r := w.graph(owner.token, "POST", "applications/"+app+"/addPassword", map[string]any{}); r.status != want {
			t.Errorf("Application.ReadWrite.OwnedBy adds a secret to %s: %d, want %d", app, r.status, want)
		}
		if r := w.graph(owner.token, "PATCH", "applications/"+app, map[string]any{"displayName": "taken"}); want == 403 && r.status != 403 {
			t.Errorf("Application.ReadWrite.OwnedBy renames %s: %d", app, r.status)
		}
	}
	// An application with such a permission is an administrator: who manages
	// applications does not become it.
	apps := w.robot("apps")
	w.permit(apps.id, "Application.ReadWrite.All")
	if r := w.graph(apps.token, "POST", "applications/"+strong.app+"/addPassword", map[string]any{}); r.status != 403 {
		t.Errorf("Application.ReadWrite.All takes over an administrator: %d", r.status)
	}
	if r := w.graph(apps.token, "POST", "applications/"+e.app.text("id")+"/addPassword", map[string]any{}); r.status != 200 {
		t.Errorf("Application.ReadWrite.All at another application: %d %s", r.status, r.body)
	}
	// A restart keeps all of it.
	w.permit(apps.id, "User.Read.All")
	fresh := newIndex()
	if err := w.s.DB.View(t.Context(), fresh.load); err != nil {
		t.Fatal(err)
	}
	if n := len(fresh.assigned(apps.id)); n != 2 {
		t.Errorf("after a restart %d permissions are left", n)
	}
}
