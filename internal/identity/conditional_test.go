package identity

import "testing"

// A policy that blocks ends tokens that were given before it, at the next call,
// and lets no new one be given.
func TestBlockEndsTokens(t *testing.T) {
	w := newWorld(t)
	id, upn := w.user("ann")
	refresh := w.userTokens(upn).text("refresh_token")
	token := w.graphToken(upn)
	if r := w.graph(token, "GET", "me", nil); r.status != 200 {
		t.Fatalf("before: %d %s", r.status, r.body)
	}
	p := w.admin("POST", capPath, with(capolicy([]string{"All"}, "block"), "conditions.users.includeUsers", []string{id})).text("id")
	if r := w.graph(token, "GET", "me", nil); r.status != 401 {
		t.Errorf("a call with an old token: %d %s", r.status, r.body)
	}
	if r := w.form(w.tokenPath(), w.refreshForm(refresh, "https://"+w.site.GraphHost())); r.status != 400 || r.text("claims") == "" || r.text("access_token") != "" {
		t.Errorf("a refresh: %d %s", r.status, r.body)
	}
	w.admin("DELETE", capPath+"/"+p, nil)
	if r := w.graph(token, "GET", "me", nil); r.status != 200 {
		t.Errorf("after the policy is gone: %d %s", r.status, r.body)
	}
}

// A refresh of a sign-in with a password alone gives nothing where MFA is wanted.
func TestRefreshIsHeldToMFA(t *testing.T) {
	w := newWorld(t)
	_, upn := w.user("ann")
	refresh := w.userTokens(upn).text("refresh_token")
	p := w.admin("POST", capPath, capolicy([]string{armApp}, "mfa")).text("id")
	form := w.refreshForm(refresh, w.site.Base())
	if r := w.form(w.tokenPath(), form); r.code() != "interaction_required" || r.text("claims") == "" || r.text("access_token") != "" {
		t.Errorf("a refresh: %d %s", r.status, r.body)
	}
	w.admin("DELETE", capPath+"/"+p, nil)
	if r := w.form(w.tokenPath(), form); r.status != 200 {
		t.Errorf("the refusal used the refresh token up: %d %s", r.status, r.body)
	}
}
