package app

import (
	"strings"
	"testing"

	"castellan/internal/identity"
	"castellan/internal/seal"
)

// A lost administrator comes back with the root key alone: not without it, not
// with another, not beside a running server; and the log shows it, unbroken.
func TestRecover(t *testing.T) {
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
	wrong.RootKeyFile = t.TempDir() + "/none"
	if _, err := Recover(t.Context(), wrong, identity.Recovery{UserName: name}, true); err == nil {
		t.Error("recovered without the key")
	}
	if _, err := seal.FromFile(wrong.RootKeyFile, true); err != nil {
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
