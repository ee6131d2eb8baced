package app

import (
	"net/http"
	"strings"
	"testing"

	"castellan/internal/arm"
	"castellan/internal/identity"
	"castellan/internal/rbac"
	"castellan/internal/seal"
)

// A lost administrator comes back with the root key alone: not without it, not
// with another, not beside a running server; and the log shows it, unbroken.
func TestRecover(t *testing.T) {
	t.Parallel()
	cfg := Config{Data: t.TempDir() + "/data"}
	a, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	name := a.Admin.UserName
	before, err := a.Audit.Verify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Recover(t.Context(), cfg, identity.Recovery{UserName: name}, true); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("beside a running server: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	wrong := cfg
	wrong.RootKey = t.TempDir() + "/none"
	if _, err := Recover(t.Context(), wrong, identity.Recovery{UserName: name}, true); err == nil {
		t.Error("recovered without the key")
	}
	if _, err := seal.FromFile(wrong.RootKey, true); err != nil {
		t.Fatal(err)
	}
	if _, err := Recover(t.Context(), wrong, identity.Recovery{UserName: name}, true); err == nil {
		t.Error("recovered with another key")
	}
	pass, err := Recover(t.Context(), cfg, identity.Recovery{UserName: "saviour@castellan.localhost", ResetMFA: true}, true)
	if err != nil || len(pass.Reveal()) < 12 {
		t.Fatalf("with the key: %v", err)
	}
	if a, err = New(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	after, err := a.Audit.Verify(t.Context())
	if err != nil || after != before+2 {
		t.Errorf("the log has %d entries, %v, want %d", after, err, before+2)
	}
	tail, err := a.Audit.Tail(t.Context(), 2)
	if err != nil || len(tail) != 2 || !strings.Contains(tail[0].Reason+tail[1].Reason, "root key") {
		t.Errorf("the log ends with %v, %v", tail, err)
	}
	if got := a.roles.For(tail[1].Item); len(got) != 1 {
		t.Errorf("the person has %v at the subscription", got)
	}
}

// Deny assignments that leave out nobody who still exists shut everybody out, the
// Owner too. Who was recovered takes them away, and all are let in again.
func TestRecoverWhereEverybodyIsDenied(t *testing.T) {
	t.Parallel()
	dir := t.TempDir() + "/data"
	s := spawn(t, dir)
	base, v := s.ready.ARM, "?api-version=any"
	sub, root := base+"/subscriptions/"+s.ready.SubscriptionID, base+"/providers/Microsoft.Management/managementGroups/"+s.ready.TenantID
	const denials = "/providers/Microsoft.Authorization/denyAssignments/"
	admin, graph := s.token(t, *s.ready.Admin, base), s.token(t, *s.ready.Admin, s.ready.Graph)
	var app, sp struct{ ID, AppID string }
	s.must(t, &app, graph, http.MethodPost, s.ready.Graph+"/v1.0/applications", map[string]any{"displayName": "the one left out"})
	s.must(t, &sp, graph, http.MethodPost, s.ready.Graph+"/v1.0/servicePrincipals", map[string]any{"appId": app.AppID})
	deny := map[string]any{"properties": map[string]any{
		"denyAssignmentName": "nobody", "permissions": []any{map[string]any{"actions": []string{"*"}, "dataActions": []string{"*"}}},
		"principals": []any{map[string]any{"id": rbac.Everyone}}, "excludePrincipals": []any{map[string]any{"id": sp.ID}},
	}}
	s.must(t, nil, admin, http.MethodPost, base+"/providers/Microsoft.Authorization/elevateAccess"+v, nil)
	if a, err := s.send(admin, http.MethodPut, base+denials+arm.NewUUID()+v, deny); err != nil || a.status/100 != 4 {
		t.Errorf("a deny assignment at / = %d %s, %v", a.status, a.body, err)
	}
	at := []string{root + denials + arm.NewUUID() + v, sub + denials + arm.NewUUID() + v}
	for _, u := range []string{at[1], at[0]} {
		s.must(t, nil, admin, http.MethodPut, u, deny)
	}
	s.must(t, nil, graph, http.MethodDelete, s.ready.Graph+"/v1.0/servicePrincipals/"+sp.ID, nil)
	shut := func(s *served, token, what string) {
		t.Helper()
		for method, u := range map[string]string{http.MethodGet: sub + v, http.MethodPut: sub + "/resourceGroups/g" + v} {
			a, err := s.send(token, method, u, map[string]any{"location": "local"})
			if err != nil || a.status != http.StatusForbidden {
				t.Errorf("%s: %s = %d %s, %v", what, method, a.status, a.body, err)
			}
		}
	}
	shut(s, admin, "the Owner")
	s.stop(t)

	cfg := Config{Data: dir}
	who := ReadyAdmin{UserName: "saviour@" + s.ready.UserDomain()}
	pass, err := Recover(t.Context(), cfg, identity.Recovery{UserName: who.UserName}, true)
	if err != nil {
		t.Fatal(err)
	}
	who.Password = string(pass.Reveal())
	first := *s.ready.Admin
	s = spawn(t, dir)
	l := &lab{door: s.door, base: base}
	saviour := l.signedIn(t, s, who, base)[0]
	shut(s, saviour, "who was recovered")
	if a, err := s.send(saviour, http.MethodDelete, at[0], nil); err != nil || a.status != http.StatusForbidden {
		t.Errorf("an Owner of the subscription takes what is denied above it: %d %s, %v", a.status, a.body, err)
	}
	s.must(t, nil, saviour, http.MethodPost, base+"/providers/Microsoft.Authorization/elevateAccess"+v, nil)
	s.must(t, nil, saviour, http.MethodDelete, at[0], nil)
	shut(s, saviour, "denied at the subscription still")
	s.must(t, nil, saviour, http.MethodDelete, at[1], nil)
	for _, token := range []string{saviour, s.token(t, first, base)} {
		s.must(t, nil, token, http.MethodGet, sub+v, nil)
		s.must(t, nil, token, http.MethodPut, sub+"/resourceGroups/g"+v, map[string]any{"location": "local"})
	}
	s.stop(t)
}
