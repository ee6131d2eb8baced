package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Which key protects what is shown by a running server to who is signed in.
func TestKeys(t *testing.T) {
	r, dir := running(t)
	login(t, r, "--data", dir)
	rows, _ := must(t, "keys").([]any)
	if len(rows) < 5 || cell(rows[0], "properties.protects") != "all keys of the installation" {
		t.Errorf("the keys are %v", rows)
	}
	text, err := tell(t, "keys")
	if err != nil || !strings.Contains(text, "PROTECTS") || !strings.Contains(text, "every page of the store's file") {
		t.Errorf("the table is %v\n%s", err, text)
	}
	if rows, _ := must(t, "keys", "destroyed").([]any); len(rows) != 0 {
		t.Errorf("without a deletion these are destroyed: %v", rows)
	}
	if _, err := tell(t, "keys", "statement", "none"); err == nil || !strings.Contains(err.Error(), "no statement") {
		t.Errorf("a statement about nothing: %v", err)
	}
	kept := filepath.Join(t.TempDir(), "statement")
	if err := os.WriteFile(kept, []byte("what: nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := tell(t, "keys", "verify", kept, "--key", "no-key"); err == nil {
		t.Error("a statement that nobody signed is taken")
	}
	if _, err := tell(t, "keys", "--output", "xml", "--data", dir); err == nil {
		t.Error("a form that there is not was taken")
	}
	if _, err := tell(t, "keys", "--data", dir+"-none"); err == nil || !strings.Contains(err.Error(), "data folder") {
		t.Errorf("of no folder: %v", err)
	}
	if _, err := tell(t, "keys", "--data", dir); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("of a folder in use: %v", err)
	}
}
