package main

import (
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
