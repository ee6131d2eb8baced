package identity

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"castellan/internal/arm"
)

const (
	readID, writeID, adminID = "11111111-0000-4000-8000-000000000001", "11111111-0000-4000-8000-000000000002", "11111111-0000-4000-8000-000000000003"
	taskID, peopleID         = "22222222-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000002"
	back                     = "https://app.example/cb"
)

// ensemble is an API with scopes and roles, a client with a secret that may ask
// for them, and their principals.
type ensemble struct {
	w               *world
	api, app        reply
	apiSP, appSP    string
	secret          string
	apiID, clientID string
}

func (w *world) secretOf(app reply) string {
	w.t.Helper()
	return w.admin("POST", "applications/"+app.text("id")+"/addPassword", map[string]any{"passwordCredential": map[string]any{"displayName": "s"}}).text("secretText")
}

func newEnsemble(w *world) *ensemble {
	w.t.Helper()
	e := &ensemble{w: w}
	scope := func(id, value, kind string) map[string]any {
		return map[string]any{"id": id, "value": value, "type": kind, "isEnabled": true, "adminConsentDisplayName": value + " things", "adminConsentDescription": value}
	}
	e.api, e.apiSP = w.newApp("api", map[string]any{
		"api": map[string]any{"oauth2PermissionScopes": []any{scope(readID, "Things.Read", "User"), scope(writeID, "Things.Write", "User"), scope(adminID, "Things.Admin", "Admin")}},
		"appRoles": []any{
			map[string]any{"id": taskID, "value": "Task.Run", "displayName": "run", "description": "run", "allowedMemberTypes": []string{"Application"}, "isEnabled": true},
			map[string]any{"id": peopleID, "value": "Approver", "displayName": "approve", "description": "approve", "allowedMemberTypes": []string{"User"}, "isEnabled": true},
		},
	})
	e.apiID = e.api.text("appId")
	w.admin("PATCH", "applications/"+e.api.text("id"), map[string]any{"identifierUris": []string{"api://" + e.apiID}})
	e.app, e.appSP = w.newApp("client", map[string]any{
		"web":                    map[string]any{"redirectUris": []string{back}},
		"requiredResourceAccess": []any{map[string]any{"resourceAppId": e.apiID, "resourceAccess": []any{map[string]any{"id": readID, "type": "Scope"}, map[string]any{"id": taskID, "type": "Role"}}}},
	})
	e.clientID, e.secret = e.app.text("appId"), w.secretOf(e.app)
	return e
}

func (e *ensemble) ask(scope string, more url.Values) url.Values {
	q := url.Values{"client_id": {e.clientID}, "response_type": {"code"}, "redirect_uri": {back}, "scope": {scope}, "state": {"st"}, "nonce": {"no"}}
	maps.Copy(q, more)
	return q
}

// redeem trades a code of the client.
func (e *ensemble) redeem(code string) reply {
	return e.w.form("/organizations/oauth2/v2.0/token", url.Values{"grant_type": {"authorization_code"}, "client_id": {e.clientID}, "client_secret": {e.secret}, "code": {code}, "redirect_uri": {back}})
}

// answer presses a button of a consent page.
func (e *ensemble) answer(c *http.Client, page reply, yes string) reply {
	return e.w.formBy(c, "/common/consent", url.Values{"ctx": {ctx(page)}, "answer": {yes}})
}

// administrator is a person who may consent for everybody.
func (w *world) administrator() string {
	w.t.Helper()
	id, upn := w.user("boss")
	w.admin("POST", "roleManagement/directory/roleAssignments", map[string]any{"roleDefinitionId": globalAdministrator, "principalId": id, "directoryScopeId": "/"})
	return upn
}

func errorOf(r reply) string {
	u, err := url.Parse(r.header.Get("Location"))
	if err != nil {
		return ""
	}
	return u.Query().Get("error") + " " + u.Query().Get("error_description")
}

// allow lets a client use scopes of an API for everybody, as an administrator does by Graph.
func (w *world) allow(client, resource, scope string) string {
	w.t.Helper()
	return w.admin("POST", "oauth2PermissionGrants", map[string]any{"clientId": client, "consentType": "AllPrincipals", "resourceId": resource, "scope": scope}).text("id")
}

// A client gets for people what was consented to, and nothing else: no more
// scopes, nobody else's consent, and not after the consent was taken back.
func TestConsent(t *testing.T) {
	w := newWorld(t)
	e := newEnsemble(w)
	boss := w.administrator()
	_, ann := w.user("ann")
	scope := "api://" + e.apiID + "/Things.Read openid offline_access"
	if r := w.signIn(w.client(), ann, goodPassword, e.ask(scope, nil)); !strings.Contains(errorOf(r), "AADSTS90094") {
		t.Errorf("people may not consent: %d %s %s", r.status, errorOf(r), r.body)
	}
	if r := w.signIn(w.client(), ann, goodPassword, e.ask(scope, url.Values{"prompt": {"none"}})); codeOf(r) != "" {
		t.Errorf("silently: %s", errorOf(r))
	}

	// The tenant lets people consent for themselves, but not to everything.
	w.admin("PATCH", "policies/authorizationPolicy", map[string]any{"defaultUserRolePermissions": map[string]any{"permissionGrantPoliciesAssigned": []string{userConsentPolicy}}})
	if r := w.signIn(w.client(), ann, goodPassword, e.ask("api://"+e.apiID+"/Things.Admin", nil)); !strings.Contains(errorOf(r), "AADSTS90094") {
		t.Errorf("a scope for administrators: %d %s", r.status, errorOf(r))
	}
	browser := w.client()
	page := w.signIn(browser, ann, goodPassword, e.ask(scope, nil))
	if !strings.Contains(string(page.body), "Things.Read") || strings.Contains(string(page.body), "everybody") {
		t.Fatalf("the page: %d %s", page.status, page.body)
	}
	if r := e.answer(browser, page, "all"); !strings.Contains(errorOf(r), "AADSTS90094") {
		t.Errorf("for everybody, by anybody: %s %s", errorOf(r), r.body)
	}
	if r := e.answer(browser, page, "no"); !strings.Contains(errorOf(r), "AADSTS65004") {
		t.Errorf("declined: %s", errorOf(r))
	}
	if r := e.answer(w.client(), page, "me"); codeOf(r) != "" || r.status != 400 {
		t.Errorf("the page in another browser: %d %s", r.status, r.body)
	}
	w.admin("PATCH", "applications/"+e.api.text("id"), map[string]any{"api": map[string]any{"oauth2PermissionScopes": []any{map[string]any{"id": readID, "value": "Everything", "type": "User"}}}})
	if r := e.answer(browser, page, "me"); codeOf(r) != "" {
		t.Error("the permission became another between the page and the answer, and the answer counted")
	}
	e = newEnsemble(w)
	scope = "api://" + e.apiID + "/Things.Read openid offline_access"
	browser = w.client()
	got := e.redeem(codeOf(e.answer(browser, w.signIn(browser, ann, goodPassword, e.ask(scope, nil)), "me")))
	if got.status != 200 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	m := claims(t, got.text("access_token"))
	if m["scp"] != "Things.Read" || m["aud"] != e.apiID || m["azp"] != e.clientID || m["ver"] != "2.0" || m["groups"] != nil || !strings.Contains(got.text("scope"), "Things.Read") {
		t.Errorf("%v %s", m, got.text("scope"))
	}
	refresh := func(scope string) reply {
		r := w.form(w.tokenPath(), url.Values{"grant_type": {"refresh_token"}, "client_id": {e.clientID}, "client_secret": {e.secret}, "refresh_token": {got.text("refresh_token")}, "scope": {scope}})
		if r.status == 200 {
			got = r
		}
		return r
	}
	for what, scope := range map[string]string{"another scope": "api://" + e.apiID + "/Things.Write", "another API": w.site.Base() + "/.default", "the directory": "https://" + w.site.GraphHost() + "/User.Read"} {
		if r := refresh(scope); r.code() != "invalid_grant" || !strings.Contains(r.text("error_description"), "AADSTS65001") || r.text("suberror") != "consent_required" {
			t.Errorf("%s: %d %s", what, r.status, r.body)
		}
	}
	if r := refresh("api://" + e.apiID + "/Nothing"); !strings.Contains(r.text("error_description"), "AADSTS650053") {
		t.Errorf("a scope that is none: %s", r.body)
	}
	if r := refresh("api://" + e.apiID + "/.default"); r.status != 200 || claims(t, r.text("access_token"))["scp"] != "Things.Read" {
		t.Errorf("what was consented to: %d %s", r.status, r.body)
	}
	_, ben := w.user("ben")
	page = w.signIn(w.client(), ben, goodPassword, e.ask(scope, nil))
	if codeOf(page) != "" || ctx(page) == "" {
		t.Errorf("one person's consent is not another's: %s", errorOf(page))
	}

	// An administrator consents for everybody; then nobody is asked.
	browser = w.client()
	page = w.signIn(browser, boss, goodPassword, e.ask("api://"+e.apiID+"/Things.Admin api://"+e.apiID+"/Things.Read", nil))
	if r := e.answer(browser, page, "all"); codeOf(r) == "" {
		t.Fatalf("%s %s", errorOf(r), r.body)
	}
	r := e.redeem(codeOf(w.signIn(w.client(), ben, goodPassword, e.ask(scope, nil))))
	if r.status != 200 || claims(t, r.text("access_token"))["scp"] != "Things.Admin Things.Read" {
		t.Errorf("after the administrator: %d %s", r.status, r.body)
	}
	if page = w.signIn(w.client(), ben, goodPassword, e.ask(scope, url.Values{"prompt": {"consent"}})); ctx(page) == "" {
		t.Errorf("prompt=consent does not ask: %s", errorOf(page))
	}
	list := w.admin("GET", "servicePrincipals/"+e.appSP+"/oauth2PermissionGrants", nil).json["value"].([]any)
	if len(list) != 2 {
		t.Fatalf("%v", list)
	}
	for _, g := range list {
		w.admin("DELETE", "oauth2PermissionGrants/"+g.(map[string]any)["id"].(string), nil)
	}
	if r := refresh("api://" + e.apiID + "/.default"); !strings.Contains(r.text("error_description"), "AADSTS65001") {
		t.Errorf("the consent was taken back: %d %s", r.status, r.body)
	}
	if log := fmt.Sprint(w.tail()); !strings.Contains(log, "consent to "+e.appSP+": "+e.apiID+"/Things.Admin") || !strings.Contains(log, "AADSTS65004") {
		t.Error("the audit log does not tell of the consents and refusals")
	}
}

// An administrator consents at a page of its own to all that the application
// says it needs, roles among it; nobody else can.
func TestAdminConsent(t *testing.T) {
	w := newWorld(t)
	e := newEnsemble(w)
	boss := w.administrator()
	_, ann := w.user("ann")
	open := func(c *http.Client, upn, redirect string) reply {
		req, err := http.NewRequest("GET", w.site.Base()+"/"+w.first.Tenant+"/adminconsent?"+url.Values{"client_id": {e.clientID}, "redirect_uri": {redirect}, "state": {"st"}}.Encode(), nil)
		if err != nil {
			t.Fatal(err)
		}
		page := w.do(c, req)
		if ctx(page) == "" {
			return page
		}
		return w.formBy(c, "/common/login", url.Values{"ctx": {ctx(page)}, "login": {upn}, "passwd": {goodPassword}})
	}
	if r := open(w.client(), ann, back); !strings.Contains(errorOf(r), "AADSTS90094") {
		t.Errorf("anybody: %d %s", r.status, errorOf(r))
	}
	if r := open(w.client(), boss, "https://evil.example"); r.header.Get("Location") != "" || r.status != 400 {
		t.Errorf("another redirect: %d", r.status)
	}
	browser := w.client()
	page := open(browser, boss, back)
	if !strings.Contains(string(page.body), "Things.Read") || !strings.Contains(string(page.body), "Task.Run") || strings.Contains(string(page.body), "for myself") {
		t.Fatalf("%d %s", page.status, page.body)
	}
	done := e.answer(browser, page, "all")
	at, _ := url.Parse(done.header.Get("Location"))
	if at == nil || at.Query().Get("admin_consent") != "True" || at.Query().Get("tenant") != w.first.Tenant || at.Query().Get("state") != "st" || at.Query().Get("code") != "" {
		t.Fatalf("%d %s", done.status, done.header.Get("Location"))
	}
	r := w.form(w.tokenPath(), url.Values{"grant_type": {"client_credentials"}, "client_id": {e.clientID}, "client_secret": {e.secret}, "scope": {"api://" + e.apiID + "/.default"}})
	if roles, _ := claims(t, r.text("access_token"))["roles"].([]any); len(roles) != 1 || roles[0] != "Task.Run" {
		t.Errorf("%v", claims(t, r.text("access_token")))
	}
	if r := e.redeem(codeOf(w.signIn(w.client(), ann, goodPassword, e.ask("api://"+e.apiID+"/.default", nil)))); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
}

// Roles at an application are what somebody was assigned, themselves or by a
// group, and of their kind; where an assignment is required, others get nothing.
func TestApplicationRoles(t *testing.T) {
	w := newWorld(t)
	e := newEnsemble(w)
	w.allow(e.appSP, e.apiSP, "Things.Read")
	ann, annUPN := w.user("ann")
	_, benUPN := w.user("ben")
	group := w.admin("POST", "groups", map[string]any{"displayName": "g", "mailEnabled": false, "mailNickname": "g", "securityEnabled": true}).text("id")
	w.admin("POST", "groups/"+group+"/members/$ref", map[string]any{"@odata.id": "https://" + w.site.GraphHost() + "/v1.0/directoryObjects/" + ann})
	appOnly := func() reply {
		return w.form(w.tokenPath(), url.Values{"grant_type": {"client_credentials"}, "client_id": {e.clientID}, "client_secret": {e.secret}, "scope": {"api://" + e.apiID + "/.default"}})
	}
	person := func(upn string) reply {
		return e.redeem(codeOf(w.signIn(w.client(), upn, goodPassword, e.ask("api://"+e.apiID+"/.default", nil))))
	}
	roles := func(r reply) string { return fmt.Sprint(claims(t, r.text("access_token"))["roles"]) }
	if got := roles(appOnly()); got != "<nil>" {
		t.Errorf("before: %s", got)
	}
	assign := func(principal, role string) reply {
		return w.graph(w.token, "POST", "servicePrincipals/"+e.apiSP+"/appRoleAssignedTo", map[string]any{"principalId": principal, "resourceId": e.apiSP, "appRoleId": role})
	}
	for what, x := range map[string][2]string{"a role for people, to an application": {e.appSP, peopleID}, "a role for applications, to a person": {ann, taskID}, "a role that is none": {ann, arm.NewUUID()}, "nobody": {arm.NewUUID(), peopleID}} {
		if r := assign(x[0], x[1]); r.status != 400 {
			t.Errorf("%s: %d %s", what, r.status, r.body)
		}
	}
	task := assign(e.appSP, taskID)
	if task.status != 201 {
		t.Fatalf("%d %s", task.status, task.body)
	}
	if r := assign(e.appSP, taskID); r.status != 400 {
		t.Errorf("twice: %d", r.status)
	}
	w.admin("POST", "groups/"+group+"/appRoleAssignments", map[string]any{"principalId": group, "resourceId": e.apiSP, "appRoleId": peopleID})
	if got := roles(appOnly()); got != "[Task.Run]" {
		t.Errorf("the application: %s", got)
	}
	if got := roles(person(annUPN)); got != "[Approver]" {
		t.Errorf("a member of the group: %s", got)
	}
	if got := roles(person(benUPN)); got != "<nil>" {
		t.Errorf("no member: %s", got)
	}
	w.admin("PATCH", "servicePrincipals/"+e.apiSP, map[string]any{"appRoleAssignmentRequired": true})
	if r := person(benUPN); !strings.Contains(r.text("error_description"), "AADSTS50105") {
		t.Errorf("not assigned: %d %s", r.status, r.body)
	}
	if r := person(annUPN); r.status != 200 {
		t.Errorf("assigned: %d %s", r.status, r.body)
	}
	w.admin("DELETE", "servicePrincipals/"+e.appSP+"/appRoleAssignments/"+task.text("id"), nil)
	if r := appOnly(); !strings.Contains(r.text("error_description"), "AADSTS501051") {
		t.Errorf("an application that is not assigned: %d %s", r.status, r.body)
	}
	w.admin("DELETE", "groups/"+group, nil)
	if r := person(annUPN); !strings.Contains(r.text("error_description"), "AADSTS50105") {
		t.Errorf("the group is gone: %d %s", r.status, r.body)
	}
	if list := w.admin("GET", "servicePrincipals/"+e.apiSP+"/appRoleAssignedTo", nil).json["value"].([]any); len(list) != 0 {
		t.Errorf("left over: %v", list)
	}
	for _, x := range [][3]string{{"POST", "servicePrincipals/" + e.apiSP + "/appRoleAssignedTo"}, {"POST", "oauth2PermissionGrants"}, {"PATCH", "policies/authorizationPolicy"}, {"PATCH", "policies/passwordGrantPolicy"}, {"POST", "policies/tokenLifetimePolicies"}} {
		if r := w.graph(w.graphToken(annUPN), x[0], x[1], map[string]any{}); r.status != 403 {
			t.Errorf("%s %s by anybody: %d", x[0], x[1], r.status)
		}
	}
}

// An administrator who signs in to somebody's application does not hand it the
// directory: there it does for them what was consented to.
func TestClientsDoNotInheritAdministrators(t *testing.T) {
	w := newWorld(t)
	e := newEnsemble(w)
	boss := w.administrator()
	var graph string
	for _, p := range w.admin("GET", "servicePrincipals", nil).json["value"].([]any) {
		if m := p.(map[string]any); m["appId"] == "00000003-0000-0000-c000-000000000000" {
			graph = m["id"].(string)
		}
	}
	id := w.allow(e.appSP, graph, "User.Read")
	token := func() string {
		r := e.redeem(codeOf(w.signIn(w.client(), boss, goodPassword, e.ask("https://"+w.site.GraphHost()+"/.default", nil))))
		if r.status != 200 {
			t.Fatalf("%d %s", r.status, r.body)
		}
		return r.text("access_token")
	}
	status := func(token, method, path string) int {
		return w.graph(token, method, path, map[string]any{"displayName": "x", "mailEnabled": false, "mailNickname": "x", "securityEnabled": true}).status
	}
	for _, x := range []struct {
		scope                string
		me, read, createdYet int
	}{{"User.Read", 200, 403, 403}, {"User.Read Directory.Read.All", 200, 200, 403}, {"Group.ReadWrite.All", 200, 200, 201}, {"Application.ReadWrite.All", 200, 403, 403}, {"Directory.AccessAsUser.All", 200, 200, 201}} {
		w.admin("PATCH", "oauth2PermissionGrants/"+id, map[string]any{"scope": x.scope})
		tok := token()
		if a, b, c := status(tok, "GET", "me"), status(tok, "GET", "groups"), status(tok, "POST", "groups"); a != x.me || b != x.read || c != x.createdYet {
			t.Errorf("with %s: %d %d %d", x.scope, a, b, c)
		}
	}
}

// An application that a person called calls on for them, as far as was
// consented to; what comes of it is the person's, and ends with their sign-in.
func TestOnBehalfOf(t *testing.T) {
	w := newWorld(t)
	front, middle := newEnsemble(w), newEnsemble(w)
	id, ann := w.user("ann")
	w.allow(front.appSP, front.apiSP, "Things.Read") // the person's client calls front's API
	midSecret := w.secretOf(front.api)
	arrive := func() string {
		r := front.redeem(codeOf(w.signIn(w.client(), ann, goodPassword, front.ask("api://"+front.apiID+"/Things.Read", nil))))
		if r.status != 200 {
			t.Fatalf("%d %s", r.status, r.body)
		}
		return r.text("access_token")
	}
	assertion := arrive()
	form := func(assertion string, more url.Values) url.Values {
		f := url.Values{"grant_type": {behalfGrant}, "requested_token_use": {behalfUse}, "client_id": {front.apiID}, "client_secret": {midSecret}, "assertion": {assertion}, "scope": {"api://" + middle.apiID + "/.default offline_access"}}
		for k, v := range more {
			if f[k] = v; v == nil {
				delete(f, k)
			}
		}
		return f
	}
	if r := w.form(w.tokenPath(), form(assertion, nil)); r.code() != "invalid_grant" || !strings.Contains(r.text("error_description"), "AADSTS65001") {
		t.Errorf("the application between has no consent of its own: %d %s", r.status, r.body)
	}
	w.allow(front.apiSP, middle.apiSP, "Things.Write")
	r := w.form(w.tokenPath(), form(assertion, nil))
	if r.status != 200 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	m, first := claims(t, r.text("access_token")), claims(t, assertion)
	for k, want := range map[string]any{"oid": id, "aud": middle.apiID, "azp": front.apiID, "scp": "Things.Write", "sid": first["sid"], "azpacr": "1", "idtyp": "user"} {
		if m[k] != want {
			t.Errorf("%s = %v, want %v", k, m[k], want)
		}
	}
	if fmt.Sprint(m["amr"], m["shown"]) != fmt.Sprint(first["amr"], first["shown"]) {
		t.Errorf("the proofs are others: %v %v, before %v %v", m["amr"], m["shown"], first["amr"], first["shown"])
	}
	// A chain: the next application is called with that token, and calls on.
	w.allow(middle.apiSP, front.apiSP, "Things.Read")
	next := w.form(w.tokenPath(), url.Values{"grant_type": {behalfGrant}, "requested_token_use": {behalfUse}, "client_id": {middle.apiID}, "client_secret": {w.secretOf(middle.api)}, "assertion": {r.text("access_token")}, "scope": {"api://" + front.apiID + "/Things.Read"}})
	if next.status != 200 || claims(t, next.text("access_token"))["sid"] != first["sid"] {
		t.Errorf("the chain: %d %s", next.status, next.body)
	}

	app := w.form(w.tokenPath(), url.Values{"grant_type": {"client_credentials"}, "client_id": {front.clientID}, "client_secret": {front.secret}, "scope": {"api://" + front.apiID + "/.default"}}).text("access_token")
	parts := strings.Split(assertion, ".")
	for what, x := range map[string]struct {
		f      url.Values
		code   string
		number string
	}{
		"an application's own token":   {form(app, nil), "invalid_grant", "7000114"},
		"a token for another API":      {form(r.text("access_token"), nil), "invalid_grant", "500131"},
		"a token for the platform":     {form(w.userTokens(ann).text("access_token"), nil), "invalid_grant", "500131"},
		"another application's secret": {form(assertion, url.Values{"client_id": {middle.apiID}, "client_secret": {midSecret}}), "invalid_client", "7000215"},
		"no secret":                    {form(assertion, url.Values{"client_secret": nil}), "invalid_client", "7000218"},
		"another application":          {form(assertion, url.Values{"client_id": {front.clientID}, "client_secret": {front.secret}}), "invalid_grant", "500131"},
		"a public client":              {form(assertion, url.Values{"client_id": {azureCLI}, "client_secret": nil}), "invalid_client", "7000218"},
		"no assertion":                 {form("", nil), "invalid_request", "900144"},
		"an assertion that is none":    {form("a.b.c", nil), "invalid_grant", "50013"},
		"altered":                      {form(parts[0]+"."+part(func() map[string]any { m := maps.Clone(first); m["oid"] = arm.NewUUID(); return m }())+"."+parts[2], nil), "invalid_grant", "50013"},
		"an ID token":                  {form(w.userTokens(ann).text("id_token"), nil), "invalid_grant", "50013"},
		"another use":                  {form(assertion, url.Values{"requested_token_use": {"logon_cert"}}), "invalid_request", "900144"},
		"a scope beyond":               {form(assertion, url.Values{"scope": {"api://" + middle.apiID + "/Things.Admin"}}), "invalid_grant", "65001"},
		"no scope":                     {form(assertion, url.Values{"scope": {"openid"}}), "invalid_request", "900144"},
	} {
		if r := w.form(w.tokenPath(), x.f); r.code() != x.code || !strings.Contains(r.text("error_description"), "AADSTS"+x.number+":") {
			t.Errorf("%s: %d %s", what, r.status, r.body)
		}
	}
	again := func() reply {
		return w.form(w.tokenPath(), url.Values{"grant_type": {"refresh_token"}, "client_id": {front.apiID}, "client_secret": {midSecret}, "refresh_token": {r.text("refresh_token")}, "scope": {"api://" + middle.apiID + "/.default"}})
	}
	if r := w.form(w.tokenPath(), url.Values{"grant_type": {"refresh_token"}, "client_id": {front.apiID}, "refresh_token": {r.text("refresh_token")}}); r.code() != "invalid_client" {
		t.Errorf("its refresh token without the secret: %d %s", r.status, r.body)
	}
	if x := again(); x.status != 200 {
		t.Errorf("its refresh token: %d %s", x.status, x.body)
	} else {
		r = x
	}
	// The sign-in ends; so does all that came of it.
	w.admin("POST", "users/"+id+"/revokeSignInSessions", nil)
	for what, x := range map[string]reply{"the assertion": w.form(w.tokenPath(), form(assertion, nil)), "the refresh token": again()} {
		if x.code() != "invalid_grant" || !strings.Contains(x.text("error_description"), "AADSTS50173") {
			t.Errorf("%s after the end of the sign-in: %d %s", what, x.status, x.body)
		}
	}
	late := arrive()
	w.pass(2 * time.Hour)
	if x := w.form(w.tokenPath(), form(late, nil)); !strings.Contains(x.text("error_description"), "AADSTS500133:") {
		t.Errorf("an expired assertion: %d %s", x.status, x.body)
	}
}

// The grant password is off; an administrator names the clients that may use
// it, a wrong password counts there as at the page, and it is one factor.
func TestPasswordGrant(t *testing.T) {
	w := newWorld(t)
	id, ann := w.user("ann")
	send := func(client, password string) reply {
		return w.form(w.tokenPath(), url.Values{"grant_type": {"password"}, "client_id": {client}, "username": {ann}, "password": {password}, "scope": {w.site.Base() + "/.default"}})
	}
	if r := send(azureCLI, goodPassword); r.code() != "unsupported_grant_type" {
		t.Errorf("off: %d %s", r.status, r.body)
	}
	if r := w.graph(w.token, "PATCH", "policies/passwordGrantPolicy", map[string]any{"isEnabled": true, "allowedClients": []string{arm.NewUUID()}}); r.status != 400 {
		t.Errorf("an unknown client: %d %s", r.status, r.body)
	}
	w.admin("PATCH", "policies/passwordGrantPolicy", map[string]any{"isEnabled": true})
	if r := send(azureCLI, goodPassword); r.code() != "unauthorized_client" || !strings.Contains(r.text("error_description"), "AADSTS7000218") {
		t.Errorf("no client is named: %d %s", r.status, r.body)
	}
	w.admin("PATCH", "policies/passwordGrantPolicy", map[string]any{"allowedClients": []string{azureCLI}})
	r := send(azureCLI, goodPassword)
	if r.status != 200 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	m := claims(t, r.text("access_token"))
	if m["oid"] != id || fmt.Sprint(m["amr"]) != "[pwd]" || r.text("refresh_token") == "" {
		t.Errorf("%v", m)
	}
	e := newEnsemble(w)
	if r := send(e.clientID, goodPassword); r.code() != "unauthorized_client" {
		t.Errorf("another client: %d %s", r.status, r.body)
	}
	for i := range lockAfter {
		if r := send(azureCLI, "wrong"); r.code() != "invalid_grant" || !strings.Contains(r.text("error_description"), "AADSTS50126") {
			t.Errorf("wrong, %d: %d %s", i, r.status, r.body)
		}
	}
	if r := send(azureCLI, goodPassword); r.status == 200 {
		t.Error("guessing is not counted")
	}
	if log := fmt.Sprint(w.tail()); strings.Contains(log, goodPassword) {
		t.Error("the log has a password")
	}
	w.admin("PATCH", "policies/passwordGrantPolicy", map[string]any{"isEnabled": false})
	w.pass(2 * time.Hour)
	if r := send(azureCLI, goodPassword); r.code() != "unsupported_grant_type" {
		t.Errorf("off again: %d %s", r.status, r.body)
	}
}

// Tokens can be made to live shorter, for one application or for all.
func TestTokenLifetimes(t *testing.T) {
	w := newWorld(t)
	e := newEnsemble(w)
	lives := func(resource string) time.Duration {
		m := claims(t, w.form(w.tokenPath(), url.Values{"grant_type": {"client_credentials"}, "client_id": {e.clientID}, "client_secret": {e.secret}, "scope": {resource + "/.default"}}).text("access_token"))
		return time.Duration(m["exp"].(float64)-m["iat"].(float64)) * time.Second
	}
	policy := func(life string) map[string]any {
		return map[string]any{"displayName": life, "definition": []string{`{"TokenLifetimePolicy":{"Version":1,"AccessTokenLifetime":"` + life + `"}}`}}
	}
	for _, life := range []string{"00:09:59", "01:30:01", "24:00:00", "1h", "", "-00:20:00"} {
		if r := w.graph(w.token, "POST", "policies/tokenLifetimePolicies", policy(life)); r.status != 400 {
			t.Errorf("%q: %d", life, r.status)
		}
	}
	mine := w.admin("POST", "policies/tokenLifetimePolicies", policy("00:10:00")).text("id")
	api := "api://" + e.apiID
	if d := lives(api); d < shortest {
		t.Errorf("before it is given: %s", d)
	}
	w.admin("POST", "applications/"+e.api.text("id")+"/tokenLifetimePolicies/$ref", map[string]any{"@odata.id": "https://" + w.site.GraphHost() + "/v1.0/policies/tokenLifetimePolicies/" + mine})
	if a, b := lives(api), lives(w.site.Base()); a != 10*time.Minute || b < shortest {
		t.Errorf("the application's %s, another's %s", a, b)
	}
	all := policy("00:30:00")
	all["isOrganizationDefault"] = true
	w.admin("POST", "policies/tokenLifetimePolicies", all)
	if a, b := lives(api), lives(w.site.Base()); a != 10*time.Minute || b != 30*time.Minute {
		t.Errorf("the application's %s, all others' %s", a, b)
	}
	w.admin("DELETE", "applications/"+e.api.text("id")+"/tokenLifetimePolicies/"+mine+"/$ref", nil)
	if a := lives(api); a != 30*time.Minute {
		t.Errorf("taken away: %s", a)
	}
}

// What an application says of its API is held against rules, and shown again.
func TestApplicationsAreHeldToRules(t *testing.T) {
	w := newWorld(t)
	e := newEnsemble(w)
	at := "applications/" + e.api.text("id")
	scope := func(id, value string) map[string]any { return map[string]any{"id": id, "value": value, "type": "User"} }
	role := func(id, value string, members ...string) map[string]any {
		return map[string]any{"id": id, "value": value, "displayName": "r", "description": "r", "allowedMemberTypes": members}
	}
	for what, b := range map[string]map[string]any{
		"scope ids twice":       {"api": map[string]any{"oauth2PermissionScopes": []any{scope(readID, "a"), scope(readID, "b")}}},
		"scope values twice":    {"api": map[string]any{"oauth2PermissionScopes": []any{scope(readID, "a"), scope(writeID, "A")}}},
		"a value with spaces":   {"api": map[string]any{"oauth2PermissionScopes": []any{scope(readID, "a b")}}},
		"a value of OIDC":       {"api": map[string]any{"oauth2PermissionScopes": []any{scope(readID, "openid")}}},
		".default":              {"api": map[string]any{"oauth2PermissionScopes": []any{scope(readID, ".default")}}},
		"a slash":               {"api": map[string]any{"oauth2PermissionScopes": []any{scope(readID, "a/b")}}},
		"no id":                 {"api": map[string]any{"oauth2PermissionScopes": []any{scope("x", "a")}}},
		"version 3":             {"api": map[string]any{"requestedAccessTokenVersion": 3}},
		"known clients":         {"api": map[string]any{"knownClientApplications": []string{arm.NewUUID()}}},
		"mapped claims":         {"api": map[string]any{"acceptMappedClaims": true}},
		"a trust in no scope":   {"api": map[string]any{"preAuthorizedApplications": []any{map[string]any{"appId": azureCLI, "delegatedPermissionIds": []string{arm.NewUUID()}}}}},
		"a role for nobody":     {"appRoles": []any{role(taskID, "a")}},
		"a role for groups":     {"appRoles": []any{role(taskID, "a", "Group")}},
		"the default role":      {"appRoles": []any{role(defaultRole, "a", "User")}},
		"optional claims":       {"optionalClaims": map[string]any{"accessToken": []any{map[string]any{"name": "email"}}}},
		"groups of application": {"groupMembershipClaims": "ApplicationGroup"},
		"another kind of need":  {"requiredResourceAccess": []any{map[string]any{"resourceAppId": e.apiID, "resourceAccess": []any{map[string]any{"id": readID, "type": "Any"}}}}},
		"the platform's name":   {"identifierUris": []string{w.site.Base()}},
		"another domain's":      {"identifierUris": []string{"https://other.example/api"}},
		"the tenant alone":      {"identifierUris": []string{"api://" + w.first.Tenant}},
		"the exchange":          {"identifierUris": []string{ExchangeAudience}},
		"another's id":          {"identifierUris": []string{"api://" + e.clientID}},
		"a wildcard":            {"identifierUris": []string{"api://" + e.apiID + "/*"}},
	} {
		if r := w.graph(w.token, "PATCH", at, b); r.status != 400 {
			t.Errorf("%s: %d %s", what, r.status, r.body)
		}
	}
	w.admin("PATCH", at, map[string]any{"identifierUris": []string{"api://" + e.apiID, "api://" + w.first.Tenant + "/things"}, "optionalClaims": map[string]any{"accessToken": []any{}}, "groupMembershipClaims": "SecurityGroup",
		"api": map[string]any{"requestedAccessTokenVersion": 1, "preAuthorizedApplications": []any{map[string]any{"appId": azureCLI, "delegatedPermissionIds": []string{writeID}}}}})
	shown := w.admin("GET", at, nil)
	if !strings.Contains(string(shown.body), "Things.Admin") || !strings.Contains(string(shown.body), `"requestedAccessTokenVersion":1`) || !strings.Contains(string(shown.body), "Task.Run") {
		t.Errorf("%s", shown.body)
	}
	// The platform's own client is trusted by the API, and by nobody else.
	id, ann := w.user("ann")
	group := w.admin("POST", "groups", map[string]any{"displayName": "g", "mailEnabled": false, "mailNickname": "g", "securityEnabled": true}).text("id")
	w.admin("POST", "groups/"+group+"/members/$ref", map[string]any{"@odata.id": "https://" + w.site.GraphHost() + "/v1.0/directoryObjects/" + id})
	r := w.form(w.tokenPath(), w.refreshForm(w.userTokens(ann).text("refresh_token"), "api://"+e.apiID))
	m := claims(t, r.text("access_token"))
	if m["scp"] != "Things.Write" || m["ver"] != "1.0" || m["aud"] != "api://"+e.apiID || m["iss"] != w.s.issuer(w.first.Tenant, true) || !slices.Contains(anys(m["groups"]), group) {
		t.Errorf("%v", m)
	}
	other := newEnsemble(w)
	if r := w.form(w.tokenPath(), w.refreshForm(r.text("refresh_token"), "api://"+other.apiID)); !strings.Contains(r.text("error_description"), "AADSTS65001") {
		t.Errorf("an API that does not trust it: %d %s", r.status, r.body)
	}
	for _, p := range w.admin("GET", "servicePrincipals", nil).json["value"].([]any) {
		if m := p.(map[string]any); m["displayName"] == "Microsoft Graph" {
			for _, x := range []string{"DELETE", "PATCH"} {
				if r := w.graph(w.token, x, "servicePrincipals/"+m["id"].(string), map[string]any{"accountEnabled": false}); r.status != 400 {
					t.Errorf("%s of the platform's own: %d", x, r.status)
				}
			}
		}
	}
}

func anys(v any) (out []string) {
	list, _ := v.([]any)
	for _, x := range list {
		out = append(out, fmt.Sprint(x))
	}
	return out
}
