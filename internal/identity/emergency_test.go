package identity

import (
	"strings"
	"testing"

	"castellan/internal/access"
)

// An account for emergencies comes in whatever policies say, loudly; who may make
// one, or touch one, is few.
func TestAccountsForEmergencies(t *testing.T) {
	var warned []string
	w := newWorldWith(t, func(c *Config) { c.Warn = func(what string, _ ...any) { warned = append(warned, what) } })
	id, upn := w.user("glass")
	for role, may := range map[string]bool{"User Administrator": false, "Authentication Administrator": false, "Privileged Authentication Administrator": true, "Security Administrator": false} {
		r := w.robot(role)
		w.give(r.id, role)
		if got := w.graph(r.token, "PATCH", "users/"+id, m{"castellanBreakGlass": true}); (got.status == 204) != may {
			t.Errorf("%s makes an account for emergencies: %d %s", role, got.status, got.body)
		}
		if got := w.graph(r.token, "PATCH", "users/"+id, m{"castellanBreakGlass": false}); (got.status == 204) != may {
			t.Errorf("%s takes it back: %d %s", role, got.status, got.body)
		}
	}
	if got := w.graph(w.token, "POST", "users", m{"accountEnabled": true, "displayName": "x", "mailNickname": "x", "userPrincipalName": "x@" + w.first.Domain,
		"castellanBreakGlass": true, "passwordProfile": m{"password": goodPassword}}); got.status != 400 {
		t.Errorf("made as one: %d %s", got.status, got.body)
	}
	w.policy(func(p *access.Policy) { p.Block = true })
	if r := w.signIn(w.client(), upn, goodPassword, w.authorizeQuery()); codeOf(r) != "" {
		t.Error("signed in although policies block everybody")
	}
	if len(warned) != 0 {
		t.Errorf("warned of an ordinary account: %v", warned)
	}
	w.admin("PATCH", "users/"+id, m{"castellanBreakGlass": true})
	if got := w.amr(w.signIn(w.client(), upn, goodPassword, w.authorizeQuery())); got != "[pwd]" {
		t.Errorf("the account for emergencies: %s", got)
	}
	loud := 0
	for _, e := range w.tail() {
		if e.Caller == id && strings.HasPrefix(e.Reason, "AN ACCOUNT FOR EMERGENCIES") {
			loud++
		}
	}
	if loud < 2 || len(warned) < 2 {
		t.Errorf("%d entries of the log and %d warnings are loud", loud, len(warned))
	}
	helper := w.robot("helper")
	w.give(helper.id, "User Administrator")
	for what, r := range map[string]reply{
		"disables": w.graph(helper.token, "PATCH", "users/"+id, m{"accountEnabled": false}),
		"resets":   w.graph(helper.token, "PATCH", "users/"+id, m{"passwordProfile": m{"password": goodPassword + "x"}}),
		"deletes":  w.graph(helper.token, "DELETE", "users/"+id, nil),
	} {
		if r.status != 403 {
			t.Errorf("a User Administrator %s it: %d %s", what, r.status, r.body)
		}
	}
}
