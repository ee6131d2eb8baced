package app

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"castellan/internal/audit"
)

// A data folder that was put back to an older state does not start against its
// witness, and leaves the witness as it is; nor does another folder.
func TestWitness(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), time.Now()
	cfg := Config{Data: filepath.Join(dir, "data"), Witness: filepath.Join(dir, "witness"), AuditDays: 30, Now: func() time.Time { return now }}
	start := func(cfg Config) (*App, error) {
		t.Helper()
		a, err := New(t.Context(), cfg)
		if err == nil {
			err = a.Close()
		}
		return a, err
	}
	if _, err := start(cfg); err != nil {
		t.Fatal(err)
	}
	db := filepath.Join(cfg.Data, "castellan.db")
	old, err := os.ReadFile(db)
	if err != nil {
		t.Fatal(err)
	}
	a, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	now = now.AddDate(0, 2, 0)
	if err := a.pruneAudit(t.Context()); err != nil { // which the log tells of
		t.Fatal(err)
	}
	if tail, err := a.Audit.Tail(t.Context(), 100); err != nil || len(tail) != 1 || tail[0].Caller != "system:audit" {
		t.Errorf("after the pruning the log says %v, %v", tail, err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	told, err := os.ReadFile(cfg.Witness)
	if err != nil {
		t.Fatal(err)
	}
	if err := ReadAudit(t.Context(), cfg, func(l *audit.Log) error { return l.Holds(t.Context(), told) }); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(db, old, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := start(cfg); err == nil || !strings.Contains(err.Error(), "before the checkpoint") {
		t.Errorf("the folder was put back, and the start says %v", err)
	}
	other := cfg
	other.Data = filepath.Join(dir, "other")
	if _, err := start(other); err == nil || !strings.Contains(err.Error(), "no checkpoint signed by") {
		t.Errorf("another folder starts: %v", err)
	}
	if is, err := os.ReadFile(cfg.Witness); err != nil || string(is) != string(told) {
		t.Errorf("the witness says %q now, not %q (%v)", is, told, err)
	}
	inside := cfg
	inside.Witness = filepath.Join(cfg.Data, "witness")
	if _, err := start(inside); err == nil || !strings.Contains(err.Error(), "lies in the data folder") {
		t.Errorf("a witness in the folder: %v", err)
	}
	cfg.Witness = ""
	if _, err := start(cfg); err != nil {
		t.Errorf("without the witness: %v", err)
	}
}

// Strangers have checkpoints and proofs, are told what is wrong with a question,
// and learn nothing of what entries say.
func TestAuditDoors(t *testing.T) {
	t.Parallel()
	a, err := New(t.Context(), Config{Data: filepath.Join(t.TempDir(), "data")})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	ask := func(path string) (int, string) {
		w := call(a, "", http.MethodGet, a.Site.Base()+path, nil)
		return w.Code, w.Body.String()
	}
	_, key := ask("/audit/key")
	_, signed := ask("/audit/checkpoint")
	c, err := audit.ParseCheckpoint([]byte(signed), strings.TrimSpace(key))
	if err != nil || c.N == 0 {
		t.Fatalf("the checkpoint is %q: %v", signed, err)
	}
	if code, proof := ask("/audit/growth?old=1"); code != http.StatusOK {
		t.Errorf("a proof = %d %s", code, proof)
	} else if _, err := audit.CheckGrowth(c, []byte(proof), strings.TrimSpace(key)); err == nil {
		t.Error("a proof about one entry is one about all")
	}
	for path, want := range map[string]string{
		"/audit/growth": "old is required", "/audit/growth?old=1&old=2": "once", "/audit/growth?old=x": `old is \"x\"`, "/audit/growth?old=-1": "old is -1",
		"/audit/inclusion": "index is required", "/audit/inclusion?index=9999999999": "index is 9999999999",
	} {
		if code, body := ask(path); code != http.StatusBadRequest || !strings.Contains(body, want) {
			t.Errorf("GET %s = %d %s; want %q", path, code, body, want)
		}
	}
}
