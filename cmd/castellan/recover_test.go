package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// castellan recover tells the password to a new file for its owner alone, and
// never to the terminal.
func TestRecoverCommand(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	serve(t, dir, `"ready":true`, "--json")
	file := filepath.Join(t.TempDir(), "password")
	run := func(args ...string) (string, error) {
		var out bytes.Buffer
		c := root()
		c.SetOut(&out)
		c.SetErr(&out)
		c.SetArgs(append([]string{"recover", "--data", dir}, args...))
		err := c.ExecuteContext(t.Context())
		return out.String(), err
	}
	for what, args := range map[string][]string{
		"no file":      {"--user", "admin@castellan.localhost"},
		"no user":      {"--output-file", file},
		"other domain": {"--user", "admin@elsewhere.example", "--output-file", file},
	} {
		if out, err := run(args...); err == nil {
			t.Errorf("%s: %s", what, out)
		}
		if _, err := os.Stat(file); err == nil {
			t.Errorf("%s leaves a file", what)
		}
	}
	out, err := run("--user", "admin@castellan.localhost", "--reset-mfa", "--break-glass", "--output-file", file)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil || len(strings.TrimSpace(string(text))) < 12 || strings.Contains(out, strings.TrimSpace(string(text))) {
		t.Errorf("the password: %d bytes, %v; said: %s", len(text), err, out)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", st, err)
	}
	if out, err := run("--user", "admin@castellan.localhost", "--output-file", file); err == nil {
		t.Errorf("an old file is written over: %s", out)
	}
}
