package identity

import (
	"net/url"
	"strings"
	"testing"

	"castellan/internal/access"
)

// The sign-in log says why each sign-in failed and what Conditional Access made
// of it, to those who may read it, of their own tenant, page by page.
func TestSignInLog(t *testing.T) {
	w := newWorld(t)
	id, upn := w.user("ann")
	w.signIn(w.client(), upn, "a wrong password", w.authorizeQuery())
	w.userTokens(upn)
	w.admin("POST", capPath, with(capolicy([]string{armApp}, "block"), "conditions.users.includeUsers", []string{id}))
	w.signIn(w.client(), upn, goodPassword, w.authorizeQuery())
	ask := func(token string, q url.Values) reply {
		return w.graph(token, "GET", "auditLogs/signIns?"+q.Encode(), nil)
	}
	mine := "userId eq '" + id + "'"
	for filter, want := range map[string][]string{
		mine + " and status/errorCode eq 50126":                               {"wrong", `"errorCode":50126`},
		mine + " and status/errorCode eq 53003":                               {`"conditionalAccessStatus":"failure"`, `"result":"failure"`, `"block"`},
		mine + " and conditionalAccessStatus eq 'notApplied'":                 {`"errorCode":0`},
		"userPrincipalName eq '" + upn + "' and status/errorCode ne 0":        {"50126", "53003"},
		mine + " and createdDateTime ge 2001-01-01T00:00:00Z":                 {upn},
		"startswith(userPrincipalName,'ann') and not (status/errorCode eq 0)": {"50126"},
	} {
		r := ask(w.token, url.Values{"$filter": {filter}})
		for _, x := range want {
			if !strings.Contains(string(r.body), x) {
				t.Errorf("%s: %d, no %s in %s", filter, r.status, x, r.body)
			}
		}
		if strings.Contains(string(r.body), goodPassword) || strings.Contains(string(r.body), w.first.ClientID) {
			t.Errorf("%s shows what it must not: %s", filter, r.body)
		}
	}
	if r := ask(w.token, url.Values{"$filter": {mine + " and createdDateTime le 2001-01-01T00:00:00Z"}}); strings.Contains(string(r.body), upn) {
		t.Errorf("before the time: %s", r.body)
	}
	if r := ask(w.token, url.Values{"$filter": {"password eq 'x'"}}); r.status != 400 {
		t.Errorf("an unknown property: %d %s", r.status, r.body)
	}
	seen, link := 0, "auditLogs/signIns?$top=2&$filter="+url.QueryEscape(mine)
	for link != "" {
		r := w.graph(w.token, "GET", link, nil)
		rows, _ := r.json["value"].([]any)
		if seen += len(rows); len(rows) > 2 || r.status != 200 {
			t.Fatalf("a page of %d: %d %s", len(rows), r.status, r.body)
		}
		next, _ := r.json["@odata.nextLink"].(string)
		_, link, _ = strings.Cut(next, "/v1.0/")
	}
	all := ask(w.token, url.Values{"$filter": {mine}})
	if rows, _ := all.json["value"].([]any); len(rows) != seen || seen < 4 {
		t.Errorf("%d sign-ins by pages, %d at once", seen, len(rows))
	}
	for role, may := range map[string]bool{"Reports Reader": true, "Security Reader": true, "Global Reader": true, "User Administrator": false} {
		r := w.robot(role)
		w.give(r.id, role)
		if got := ask(r.token, nil); (got.status == 200) != may {
			t.Errorf("%s: %d", role, got.status)
		}
	}
}

// Neither a password sent by a client nor an application that acts on behalf of
// somebody gets around a policy that wants several factors (OID-12).
func TestPasswordsAndDelegatesAreHeldToMFA(t *testing.T) {
	w := newWorld(t)
	front, middle := newEnsemble(w), newEnsemble(w)
	_, ann := w.user("ann")
	w.allow(front.appSP, front.apiSP, "Things.Read")
	w.allow(front.apiSP, middle.apiSP, "Things.Write")
	w.admin("PATCH", "policies/passwordGrantPolicy", m{"isEnabled": true})
	w.admin("PATCH", "policies/passwordGrantPolicy", m{"allowedClients": []string{azureCLI}})
	assertion := front.redeem(codeOf(w.signIn(w.client(), ann, goodPassword, front.ask("api://"+front.apiID+"/Things.Read", nil)))).text("access_token")
	forms := map[string]url.Values{
		"password": {"grant_type": {"password"}, "client_id": {azureCLI}, "username": {ann}, "password": {goodPassword}, "scope": {w.site.Base() + "/.default"}},
		"on behalf": {"grant_type": {behalfGrant}, "requested_token_use": {behalfUse}, "client_id": {front.apiID}, "client_secret": {w.secretOf(front.api)}, "assertion": {assertion},
			"scope": {"api://" + middle.apiID + "/.default"}},
	}
	for name, f := range forms {
		if r := w.form(w.tokenPath(), f); r.status != 200 {
			t.Fatalf("%s without a policy: %d %s", name, r.status, r.body)
		}
	}
	w.policy(func(p *access.Policy) { p.MFA = true })
	for name, f := range forms {
		if r := w.form(w.tokenPath(), f); r.code() != "interaction_required" || r.text("access_token") != "" || !strings.Contains(r.text("claims"), "capolids") {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
}
