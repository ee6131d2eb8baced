package audit

import (
	"context"
	"strings"
	"testing"
	"time"

	"castellan/internal/seal"
	"castellan/internal/store"
)

// What was altered, taken out or moved is found.
func TestTampersAreFound(t *testing.T) {
	db, err := store.Open(t.TempDir(), seal.Random())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx := context.Background()
	l := New(db, time.Now)
	for range 20 {
		if err := l.Record(ctx, Entry{Caller: "u", Action: "a", Target: "/x", Decision: "allowed"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	if n, err := l.Verify(ctx); n != 20 || err != nil {
		t.Fatalf("Verify = %d, %v; want 20, nil", n, err)
	}
	var all []Entry
	if err := l.Export(ctx, func(e Entry) error { all = append(all, e); return nil }); err != nil {
		t.Fatal(err)
	}
	tampers := map[string]func([]Entry) []Entry{
		"edit":    func(e []Entry) []Entry { e[7].Caller = "other"; return e },
		"delete":  func(e []Entry) []Entry { return append(e[:5], e[6:]...) },
		"reorder": func(e []Entry) []Entry { e[3], e[4] = e[4], e[3]; return e },
		"insert":  func(e []Entry) []Entry { return append(e[:3:3], append([]Entry{e[1]}, e[3:]...)...) },
	}
	for name, tamper := range tampers {
		var c Chain
		var err error
		for _, e := range tamper(append([]Entry(nil), all...)) {
			if err = c.Next(e); err != nil {
				break
			}
		}
		if err == nil {
			t.Errorf("%s: the chain verifies", name)
		}
	}
	err = db.Do(ctx, func(tx *store.Tx) error { return tx.Delete(table, key(20)) })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Verify(ctx); err == nil || !strings.Contains(err.Error(), "ends at entry 19") {
		t.Errorf("after the tail was cut, Verify says %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
