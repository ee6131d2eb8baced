package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"castellan/internal/audit"
	"castellan/internal/seal"
	"castellan/internal/store"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/driver"
)

var entry = audit.Entry{
	Tenant: "6f1c1b6e-0b0c-4f0e-9d9e-3a5a1f7f0f11", Caller: "0e6a3c9f-53ad-4c59-a8a5-6a0f33a2e4b7", Name: "ann@castellan.localhost", Action: "Microsoft.KeyVault/vaults/write",
	Target:   "/subscriptions/6f1c1b6e-0b0c-4f0e-9d9e-3a5a1f7f0f11/resourceGroups/rg/providers/Microsoft.KeyVault/vaults/kv",
	Decision: "allowed", Reason: "Owner by /subscriptions/6f1c1b6e-0b0c-4f0e-9d9e-3a5a1f7f0f11", Outcome: "ok", Correlation: "5f0a7f5e-6f9f-4e35-b4d5-9f4d6d1c2b3a",
}

// BenchmarkAuditedWrites has n callers write one row with one entry of the audit
// log each, durably: to us (sealed, encrypted, in a Merkle tree), and to SQLite
// alone with the same settings, whose one writer commits for all who wait: two
// plain rows each, nothing sealed, nothing hashed.
func BenchmarkAuditedWrites(b *testing.B) {
	for _, n := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("sqlite/%d", n), func(b *testing.B) {
			g := newGroup(b)
			callers(b, n, func(i int) error { return g.write(i) })
		})
		b.Run(fmt.Sprintf("castellan/%d", n), func(b *testing.B) {
			db, err := store.Open(b.TempDir(), seal.Random())
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = db.Close() })
			l := audit.New(db, time.Now)
			b.Cleanup(func() { _ = l.Close() })
			callers(b, n, func(i int) error {
				return db.Do(context.Background(), func(tx *store.Tx) error {
					if err := store.PutJSON(tx, "things", fmt.Sprint(i), entry); err != nil {
						return err
					}
					e := entry
					e.Correlation = fmt.Sprint(i)
					return l.Append(tx, e)
				})
			})
		})
	}
}

// callers share b.N writes among n goroutines.
func callers(b *testing.B, n int, write func(i int) error) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range n {
		wg.Go(func() {
			for i := range next {
				if err := write(i); err != nil {
					b.Error(err)
				}
			}
		})
	}
	b.ResetTimer()
	began := cpu()
	for i := range b.N {
		next <- i
	}
	close(next)
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
	b.ReportMetric(float64((cpu()-began).Microseconds())/float64(b.N), "cpu-µs/write")
}

// group is SQLite with one writer that commits for all who wait.
type group struct{ work chan ticket }

type ticket struct {
	i    int
	done chan error
}

func newGroup(b *testing.B) *group {
	db, err := driver.Open("file:"+filepath.Join(b.TempDir(), "plain.db")+"?_txlock=immediate", func(c *sqlite3.Conn) error {
		return c.Exec(`PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-8000`)
	})
	if err != nil {
		b.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	if _, err := db.Exec(`CREATE TABLE kv (t TEXT NOT NULL, k TEXT NOT NULL, v BLOB NOT NULL, PRIMARY KEY (t, k)) WITHOUT ROWID`); err != nil {
		b.Fatal(err)
	}
	g, over := &group{work: make(chan ticket, 256)}, make(chan bool)
	commit := func(list []ticket) error {
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }()
		for _, t := range list {
			v, err := json.Marshal(entry)
			if err != nil {
				return err
			}
			for _, table := range []string{"things", "audit"} {
				if _, err := tx.Exec(`INSERT INTO kv (t, k, v) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET v = excluded.v`, table, fmt.Sprintf("%016x", t.i), v); err != nil {
					return err
				}
			}
		}
		return tx.Commit()
	}
	go func() {
		defer close(over)
		for t := range g.work {
			list := []ticket{t}
			for more := true; more && len(list) < cap(g.work); {
				select {
				case t, ok := <-g.work:
					if more = ok; ok {
						list = append(list, t)
					}
				default:
					more = false
				}
			}
			err := commit(list)
			for _, t := range list {
				t.done <- err
			}
		}
	}()
	b.Cleanup(func() { close(g.work); <-over; _ = db.Close() })
	return g
}

func (g *group) write(i int) error {
	t := ticket{i, make(chan error, 1)}
	g.work <- t
	return <-t.done
}
