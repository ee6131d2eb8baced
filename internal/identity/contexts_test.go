package identity

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

const ctxPath = "identity/conditionalAccess/authenticationContextClassReferences"

// contexts is a policy about authentication contexts as a client sends it.
func contexts(control string, ids ...string) m {
	return with(with(capolicy(nil, control), "conditions.applications", m{"includeAuthenticationContextClassReferences": ids}), "displayName", "contexts")
}

// Authentication contexts are made, changed and deleted as in Microsoft Graph, by
// those who may do it with policies; a policy names those that there are.
func TestAuthenticationContextsAreKept(t *testing.T) {
	w := newWorld(t)
	if r := w.admin("POST", ctxPath, m{"id": "c1", "displayName": "Payments", "description": "move money", "isAvailable": true}); r.status != 201 || r.text("id") != "c1" {
		t.Fatalf("POST: %d %s", r.status, r.body)
	}
	w.admin("PATCH", ctxPath+"/c1", m{"displayName": "Transfers"})
	if r := w.admin("GET", ctxPath+"/c1", nil); r.text("displayName") != "Transfers" || r.text("description") != "move money" || r.json["isAvailable"] != true {
		t.Errorf("after PATCH: %s", r.body)
	}
	w.admin("PATCH", ctxPath+"/c99", m{"displayName": "made by PATCH"})
	if r := w.admin("GET", ctxPath, nil); strings.Count(string(r.body), `"displayName"`) != 2 {
		t.Errorf("the list: %s", r.body)
	}
	for what, r := range map[string]reply{
		"c1 again":                 w.graph(w.token, "POST", ctxPath, m{"id": "c1", "displayName": "x"}),
		"an id too high":           w.graph(w.token, "POST", ctxPath, m{"id": "c100", "displayName": "x"}),
		"an id with a nought":      w.graph(w.token, "PATCH", ctxPath+"/c01", m{"displayName": "x"}),
		"another id":               w.graph(w.token, "PATCH", ctxPath+"/c1", m{"id": "c2"}),
		"no name":                  w.graph(w.token, "POST", ctxPath, m{"id": "c3"}),
		"what is not there":        w.graph(w.token, "POST", ctxPath, m{"id": "c3", "displayName": "x", "colour": "red"}),
		"a policy about no such":   w.graph(w.token, "POST", capPath, contexts("mfa", "c2")),
		"a policy about both":      w.graph(w.token, "POST", capPath, with(contexts("mfa", "c1"), "conditions.applications.includeApplications", []string{"All"})),
		"a policy that names none": w.graph(w.token, "POST", capPath, contexts("mfa")),
	} {
		if r.status != 400 {
			t.Errorf("%s: %d %s", what, r.status, r.body)
		}
	}
	p := w.admin("POST", capPath, contexts("mfa", "c1", "c99"))
	if got := fmt.Sprint(p.json["conditions"].(m)["applications"].(m)["includeAuthenticationContextClassReferences"]); got != "[c1 c99]" {
		t.Errorf("the policy: %s", p.body)
	}
	if r := w.graph(w.token, "DELETE", ctxPath+"/c1", nil); r.status != 400 {
		t.Errorf("deleting what a policy names: %d %s", r.status, r.body)
	}
	w.admin("DELETE", capPath+"/"+p.text("id"), nil)
	w.admin("DELETE", ctxPath+"/c1", nil)
	if r := w.graph(w.token, "GET", ctxPath+"/c1", nil); r.status != 404 {
		t.Errorf("after DELETE: %d %s", r.status, r.body)
	}
	_, upn := w.user("mallory")
	token := w.graphToken(upn)
	for _, x := range []string{"GET ", "POST ", "GET /c99", "PATCH /c99", "PATCH /c5", "DELETE /c99"} {
		method, at, _ := strings.Cut(x, " ")
		if r := w.graph(token, method, ctxPath+at, m{"displayName": "x"}); r.status != 403 {
			t.Errorf("%s by somebody: %d %s", x, r.status, r.body)
		}
	}
}

// A token is of an authentication context only if it was asked for and all
// policies about the context are met: then, and again at each call.
func TestTokensOfAuthenticationContexts(t *testing.T) {
	w := newWorld(t)
	id, upn := w.user("ann")
	c := w.client()
	secret, _ := w.app(c, upn)
	graph := "https://" + w.site.GraphHost()
	for _, id := range []string{"c1", "c2"} {
		w.admin("POST", ctxPath, m{"id": id, "displayName": id})
	}
	w.admin("POST", capPath, contexts("mfa", "c1"))
	refresh := w.userTokens(upn).text("refresh_token")
	ask := func(claims string) (reply, string) {
		r := w.form(w.tokenPath(), claiming(w.refreshForm(refresh, graph), claims))
		if r.status != 200 {
			return r, r.code()
		}
		refresh = r.text("refresh_token")
		return r, fmt.Sprint(claimsOf(t, r)["acrs"])
	}
	for _, x := range []struct{ claims, want string }{
		{``, "<nil>"},
		{`{"access_token":{"acrs":{"essential":true,"value":"c1"}}}`, "interaction_required"},
		{`{"access_token":{"acrs":{"essential":true,"values":["c1","c2"]}}}`, "interaction_required"},
		{`{"access_token":{"acrs":{"essential":true,"value":"c2"}}}`, "[c2]"},
		{`{"access_token":{"acrs":{"values":["c1","c2","c3"]}}}`, "[c2]"},
		{`{"id_token":{"acrs":{"essential":true,"value":"c1"}}}`, "<nil>"},
		{``, "<nil>"},
	} {
		if r, got := ask(x.claims); got != x.want {
			t.Errorf("%s with a password: %s, want %s: %s", x.claims, got, x.want, r.body)
		}
	}
	r, _ := ask(`{"access_token":{"acrs":{"essential":true,"value":"c1"}}}`)
	if !strings.Contains(r.text("claims"), `"acrs":{"essential":true,"values":["c1"]}`) || !strings.Contains(r.text("claims"), "capolids") {
		t.Errorf("what to ask for: %s", r.body)
	}
	browser := w.client()
	if codeOf(w.signIn(browser, upn, goodPassword, w.authorizeQuery())) == "" {
		t.Error("a sign-in that asks for no context is asked for more")
	}
	q := claiming(w.authorizeQuery(), r.text("claims"))
	q.Set("prompt", "none")
	if got := errorOf(w.open(browser, q)); !strings.HasPrefix(got, "interaction_required") {
		t.Errorf("silently: %s", got)
	}
	q.Del("prompt")
	code := codeOf(w.send(browser, w.open(browser, q), "/common/factor", "otc", w.codeNow(secret)))
	strong := w.form(w.tokenPath(), w.redeemForm(code))
	if got := fmt.Sprint(claimsOf(t, strong)["acrs"]); got != "[c1]" {
		t.Errorf("after the step up: acrs %s, %s", got, strong.body)
	}
	refresh = strong.text("refresh_token")
	if _, got := ask(``); got != "<nil>" {
		t.Errorf("a refresh that asks for none is of %s", got)
	}
	both, got := ask(`{"access_token":{"acrs":{"essential":true,"value":"c1"}}}`)
	if got != "[c1]" {
		t.Errorf("a refresh that asks: %s", both.body)
	}
	other, _ := ask(``)
	w.admin("POST", capPath, with(contexts("block", "c1"), "conditions.users.includeUsers", []string{id}))
	for token, want := range map[string]int{both.text("access_token"): http.StatusUnauthorized, other.text("access_token"): http.StatusOK} {
		if r := w.graph(token, "GET", "me", nil); r.status != want {
			t.Errorf("a token of %v once the context is blocked: %d %s, want %d", claims(t, token)["acrs"], r.status, r.body, want)
		}
	}
	if _, got := ask(`{"access_token":{"acrs":{"values":["c1","c2"]}}}`); got != "[c2]" {
		t.Errorf("wished for, and blocked: %s", got)
	}
}

// claimsOf are the claims of an answer's access token.
func claimsOf(t *testing.T, r reply) m {
	t.Helper()
	return claims(t, r.text("access_token"))
}
