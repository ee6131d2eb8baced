package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"castellan/internal/app"
)

// running is a server of its own until the test ends, and its first line.
func running(t *testing.T) (r app.Ready, dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "data")
	ctx, cancel := context.WithCancel(context.Background())
	out, in := io.Pipe()
	done := make(chan error, 1)
	go func() {
		c := root()
		c.SetOut(in)
		c.SetArgs([]string{"up", "--data", dir, "--listen", "127.0.0.1:0", "--json"})
		err := c.ExecuteContext(ctx)
		_ = in.CloseWithError(io.EOF)
		done <- err
	}()
	t.Cleanup(func() {
		cancel()
		_ = out.Close()
		if err := <-done; err != nil {
			t.Errorf("castellan up: %v", err)
		}
	})
	if err := json.NewDecoder(out).Decode(&r); err != nil {
		t.Fatal(err)
	}
	return r, dir
}

// tell runs a command and is what it printed.
func tell(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	c := root()
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs(args)
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

// must runs a command that must work and is its answer as JSON.
func must(t *testing.T, args ...string) any {
	t.Helper()
	text, err := tell(t, append(args, "--output", "json")...)
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	var out any
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatalf("%q printed %q: %v", args, text, err)
	}
	return out
}

// login signs in as the first start's application, with its secret for this
// command alone, and is the file of the session.
func login(t *testing.T, r app.Ready, args ...string) string {
	t.Helper()
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("AZURE_TENANT_ID", r.TenantID)
	t.Setenv("AZURE_CLIENT_ID", r.Admin.ClientID)
	t.Setenv("AZURE_CLIENT_SECRET", r.Admin.ClientSecret)
	if _, err := tell(t, append([]string{"login", "--service-principal"}, args...)...); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AZURE_CLIENT_SECRET", "")
	file, err := sessionFile()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// An administrator does by commands, on a running server, what each command says:
// the next command sees it done.
func TestAdministration(t *testing.T) {
	r, dir := running(t)
	file := login(t, r, "--data", dir)
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the session's file is %v, %v", info.Mode(), err)
	}
	if b, _ := os.ReadFile(file); bytes.Contains(b, []byte(r.Admin.ClientSecret)) {
		t.Error("the session keeps the application's secret")
	}
	anna := "anna@castellan.localhost"
	made := must(t, "user", "create", anna, "--name", "Anna")
	if len(cell(made, "password")) < 20 {
		t.Errorf("a person was made without a password told: %v", made)
	}
	show := func(path string) string { return cell(must(t, "user", "show", anna), path) }
	for _, x := range []struct{ args, path, want string }{
		{"user disable", "accountEnabled", "false"},
		{"user enable", "accountEnabled", "true"},
		{"user break-glass", "castellanBreakGlass", "true"},
		{"user break-glass --clear", "castellanBreakGlass", ""},
	} {
		must(t, append(strings.Fields(x.args), anna)...)
		if got := show(x.path); got != x.want {
			t.Errorf("after %s, %s is %q, want %q", x.args, x.path, got, x.want)
		}
	}
	if a, b := cell(must(t, "user", "reset-password", anna), "password"), cell(made, "password"); a == "" || a == b {
		t.Error("the password was not changed")
	}
	must(t, "user", "revoke-sessions", anna)
	if got := cell(must(t, "user", "reset-mfa", anna), "removed"); got != "0" {
		t.Errorf("%s methods removed of a person who has none", got)
	}

	must(t, "group", "create", "scientists")
	must(t, "group", "add-member", "scientists", anna)
	count := func(want int, args ...string) {
		t.Helper()
		if list, _ := must(t, args...).([]any); len(list) != want {
			t.Errorf("%q lists %d, want %d", args, len(list), want)
		}
	}
	count(1, "group", "members", "scientists")
	must(t, "group", "remove-member", "scientists", anna)
	count(0, "group", "members", "scientists")
	must(t, "group", "delete", "scientists")
	count(0, "group", "list")

	must(t, "app", "create", "pipeline")
	secret := must(t, "app", "add-secret", "pipeline", "--name", "nightly")
	if cell(secret, "secretText") == "" {
		t.Error("no secret was told")
	}
	must(t, "app", "remove-secret", "pipeline", cell(secret, "keyId"))
	if _, err := tell(t, "app", "remove-secret", "pipeline", cell(secret, "keyId")); err == nil {
		t.Error("a secret was removed twice")
	}
	must(t, "app", "delete", "pipeline")

	for _, more := range [][]string{{"Reader"}, {"User Administrator", "--directory"}} {
		list := append([]string{"role", "list"}, more[1:]...)
		before := len(must(t, list...).([]any))
		must(t, append([]string{"role", "assign", "--assignee", anna}, more...)...)
		count(before+1, list...)
		must(t, append([]string{"role", "remove", "--assignee", anna}, more...)...)
		count(before, list...)
		if _, err := tell(t, append([]string{"role", "remove", "--assignee", anna}, more...)...); err == nil {
			t.Errorf("%v was removed twice", more)
		}
	}
	count(0, "pim", "eligible")
	count(0, "pim", "approve")
	count(0, "access", "list")
	must(t, "pim", "list")
	must(t, "signins")

	current := func() (kid string) {
		for _, k := range must(t, "keys", "list").([]any) {
			if cell(k, "class") == "access" && cell(k, "state") == "current" {
				kid = cell(k, "id")
			}
		}
		return kid
	}
	was := current()
	must(t, "keys", "rotate", "access", "--retain")
	if now := current(); was == "" || now == was {
		t.Errorf("the key is %s after %s", now, was)
	}
	tenant := must(t, "tenant", "create", "contoso.example", "--name", "Contoso")
	if cell(tenant, "administrator.password") == "" || cell(tenant, "application.secretText") == "" {
		t.Error("a tenant was made without its secrets told")
	}
	count(2, "tenant", "list")

	must(t, "user", "delete", anna)
	if _, err := tell(t, "user", "show", anna); err == nil {
		t.Error("a person is shown after they were deleted")
	}
	// The key that signed this session's tokens ends, and so does the session.
	must(t, "keys", "retire", "access", was)
	if _, err := tell(t, "user", "list"); err == nil || !strings.Contains(err.Error(), "castellan login") {
		t.Errorf("a token of a retired key: %v", err)
	}
	if _, err := tell(t, "logout"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the session after castellan logout: %v", err)
	}
}

// A server elsewhere is reached by its address, its proxy and its authority, and
// by no other authority.
func TestLoginElsewhere(t *testing.T) {
	r, _ := running(t)
	login(t, r, "--server", r.ARM, "--proxy", r.Proxy, "--ca", r.CAFile)
	text, err := tell(t, "user", "list")
	if err != nil || !strings.Contains(text, "USERPRINCIPALNAME") || !strings.Contains(text, r.Admin.UserName) {
		t.Errorf("the table is %q, %v", text, err)
	}
	t.Setenv("AZURE_CLIENT_SECRET", r.Admin.ClientSecret)
	if _, err := tell(t, "login", "--service-principal", "--server", r.ARM, "--proxy", r.Proxy); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without its authority: %v", err)
	}
	t.Setenv("AZURE_CLIENT_SECRET", "wrong")
	if _, err := tell(t, "login", "--service-principal", "--server", r.ARM, "--proxy", r.Proxy, "--ca", r.CAFile); err == nil || !strings.Contains(err.Error(), "AADSTS7000215") {
		t.Errorf("with a wrong secret: %v", err)
	}
}

// What can't be done says what to do instead.
func TestBadAdministration(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("AZURE_CLIENT_ID", "")
	t.Setenv("AZURE_TENANT_ID", "")
	for _, c := range []struct{ args, want string }{
		{"user list", "castellan login"},
		{"user list --output yaml", "table or json"},
		{"user create", "accepts 1 arg"},
		{"login --server http://castellan.localhost", "https://"},
		{"login --server https://castellan.localhost", "--tenant"},
		{"login --data " + t.TempDir(), "--server"},
	} {
		if _, err := tell(t, strings.Fields(c.args)...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.args, err, c.want)
		}
	}
	if got := plain("a\x1b[2Jb\u202e"); got != "a?[2Jb?" {
		t.Errorf("a name may steer a terminal: %q", got)
	}
}
