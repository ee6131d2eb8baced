package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// castellan backup, list, check and restore go together, with a root key of a
// file or of a passphrase; what they lack they name.
func TestBackupCommands(t *testing.T) {
	pass := filepath.Join(t.TempDir(), "pass")
	if err := os.WriteFile(pass, []byte("a passphrase of some length\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string][]string{"file": {"--root-key", filepath.Join(t.TempDir(), "key")}, "passphrase": {"--passphrase-file", pass}} {
		t.Run(name, func(t *testing.T) {
			dir, to, back := filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "to"), filepath.Join(t.TempDir(), "back")
			serve(t, dir, `"ready":true`, append([]string{"--json"}, key...)...)
			run := func(args ...string) (string, error) {
				var out bytes.Buffer
				c := root()
				c.SetOut(&out)
				c.SetErr(&out)
				c.SetArgs(append(args, key...))
				err := c.ExecuteContext(t.Context())
				return out.String(), err
			}
			if out, err := run("backup", "list", "--from", to); err == nil {
				t.Errorf("a folder that is not there: %s", out)
			}
			if out, err := run("backup", "--data", dir+"none", "--to", to); err == nil {
				t.Errorf("no data: %s", out)
			}
			for range 2 {
				if out, err := run("backup", "--data", dir, "--to", to, "--keep", "1"); err != nil || !strings.Contains(out, "backup 2") {
					t.Fatalf("backup: %s %v", out, err)
				}
			}
			if out, err := run("backup", "list", "--from", to); err != nil || strings.Count(out, "\n") != 2 {
				t.Errorf("list: %s %v", out, err)
			}
			if out, err := run("backup", "check", "--from", to); err != nil || !strings.Contains(out, "is whole") {
				t.Errorf("check: %s %v", out, err)
			}
			if out, err := run("restore", "--from", to, "--at", "yesterday", "--data", back); err == nil || !strings.Contains(err.Error(), "--at") {
				t.Errorf("a bad time: %s %v", out, err)
			}
			if out, err := run("restore", "--from", to, "--at", "2001-01-01T00:00:00Z", "--data", back); err == nil {
				t.Errorf("a time before all: %s", out)
			}
			if out, err := run("restore", "--from", to, "--data", back); err != nil || !strings.Contains(out, "as it was at") {
				t.Fatalf("restore: %s %v", out, err)
			}
			serve(t, back, `"ready":true`, append([]string{"--json"}, key...)...)
		})
	}
}
