package audit

import (
	"context"
	"testing"
	"time"

	"castellan/internal/seal"
	"castellan/internal/store"
)

// usual is an entry such as a change of a resource leaves.
var usual = Entry{
	Tenant: "6f1c1b6e-0b0c-4f0e-9d9e-3a5a1f7f0f11", Caller: "0e6a3c9f-53ad-4c59-a8a5-6a0f33a2e4b7", Name: "ann@castellan.localhost",
	Credential: "oauth2 token 8d3f5a1c", Action: "Microsoft.KeyVault/vaults/secrets/getSecret/action",
	Target:   "/subscriptions/6f1c1b6e-0b0c-4f0e-9d9e-3a5a1f7f0f11/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/kv",
	Decision: "allowed", Reason: "Owner by /subscriptions/6f1c1b6e-0b0c-4f0e-9d9e-3a5a1f7f0f11", Outcome: "ok", Correlation: "5f0a7f5e-6f9f-4e35-b4d5-9f4d6d1c2b3a",
}

// newLog is a log with n entries, on a store of its own.
func newLog(t testing.TB, n int) (*Log, *store.DB) {
	t.Helper()
	db, err := store.Open(t.TempDir(), seal.Random())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	l := New(db, time.Now)
	t.Cleanup(func() { _ = l.Close() }) // before its store
	fill(t, l, n)
	return l, db
}

func fill(t testing.TB, l *Log, n int) {
	t.Helper()
	for range n {
		if err := l.Record(context.Background(), usual); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// An entry of a change: a transaction of its own.
func BenchmarkAppend(b *testing.B) {
	l, db := newLog(b, 1000)
	for b.Loop() {
		if err := db.Do(b.Context(), func(tx *store.Tx) error { return l.Append(tx, usual) }); err != nil {
			b.Fatal(err)
		}
	}
}

// Entries of reads and refusals, written together.
func BenchmarkRecord(b *testing.B) {
	l, _ := newLog(b, 1000)
	for b.Loop() {
		if err := l.Record(b.Context(), usual); err != nil {
			b.Fatal(err)
		}
	}
	if err := l.Sync(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// One entry verified, of a log of 20,000.
func BenchmarkVerify(b *testing.B) {
	const entries = 20_000
	l, _ := newLog(b, entries)
	for b.Loop() {
		if n, err := l.Verify(b.Context()); n != entries || err != nil {
			b.Fatal(n, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/entries, "ns/entry")
}
