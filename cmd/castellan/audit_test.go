package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// An operator keeps a checkpoint elsewhere, and holds the folder, an export and
// the running server against it; a folder that was put back does not pass.
func TestAuditCommands(t *testing.T) {
	r, dir := running(t)
	server := []string{r.ARM, "--proxy", r.Proxy, "--ca", r.CAFile}
	first, key := keep(t, dir)
	if _, also := keep(t, server...); also != key {
		t.Errorf("the server tells the key %s, the folder %s", also, key)
	}
	export := filepath.Join(t.TempDir(), "log.jsonl")
	if _, err := tell(t, "audit", "export", export, "--data", dir); err != nil {
		t.Fatal(err)
	}
	verify := func(args ...string) (string, error) { return tell(t, append([]string{"audit", "verify"}, args...)...) }
	pass := func(args ...string) {
		t.Helper()
		// Three of the first start, and perhaps one of the vaults' worker.
		if out, err := verify(args...); err != nil || !strings.Contains(out, "3 entries") && !strings.Contains(out, "4 entries") {
			t.Errorf("verify %q: %s, %v", args, out, err)
		}
	}
	fail := func(why string, args ...string) {
		t.Helper()
		if out, err := verify(args...); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("verify %q: %s, %v; want %q", args, out, err, why)
		}
	}
	for _, target := range [][]string{{dir}, {export}, server} {
		pass(append(target, "--checkpoint", first)...)
		pass(append(target, "--checkpoint", first, "--key", key)...)
		fail("it must be other", append(target, "--checkpoint", first, "--key", "other")...)
		fail("no checkpoint signed by", append(target, "--checkpoint", r.CAFile)...)
	}
	fail("--checkpoint", server...)
	fail("root key", dir, "--root-key", filepath.Join(dir, "none"))
	text, err := os.ReadFile(export)
	if err != nil {
		t.Fatal(err)
	}
	for i := range text { // whichever byte is altered
		if text[i] == '\n' || i < bytes.IndexByte(text, '\n') {
			continue
		}
		old := text[i]
		text[i] ^= 1
		if err := verifyFile(bytes.NewReader(text), io.Discard, "-", expect{key: key}); err == nil {
			t.Fatalf("byte %d is altered, and it passes", i)
		}
		text[i] = old
	}
	if _, err := tell(t, "audit", "export", export, "--data", dir); err == nil {
		t.Error("an old file is written over")
	}
}

// keep keeps a checkpoint in a file, and is the key it was told with.
func keep(t *testing.T, from ...string) (file, key string) {
	t.Helper()
	var out, told bytes.Buffer
	c := root()
	c.SetOut(&out)
	c.SetErr(&told)
	c.SetArgs(append([]string{"audit", "checkpoint"}, from...))
	if err := c.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "kept")
	if err := os.WriteFile(file, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, strings.Fields(told.String())[2]
}

// A server whose data folder was put back to an older state does not pass.
func TestRollbackOfTheServer(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	serve(t, dir, `"ready":true`, "--json")
	db := filepath.Join(dir, "castellan.db")
	old, err := os.ReadFile(db)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tell(t, "recover", "--data", dir, "--user", "admin@castellan.localhost", "--output-file", filepath.Join(t.TempDir(), "password")); err != nil {
		t.Fatal(err)
	}
	kept, _ := keep(t, dir)
	if _, err := tell(t, "audit", "verify", dir, "--checkpoint", kept); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(db, old, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := tell(t, "audit", "verify", dir); err != nil {
		t.Error(err)
	}
	if _, err := tell(t, "audit", "verify", dir, "--checkpoint", kept); err == nil || !strings.Contains(err.Error(), "before the checkpoint") {
		t.Errorf("the folder was put back, and verify says %v", err)
	}
}
