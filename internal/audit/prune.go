package audit

import (
	"context"
	"encoding/json"
	"sort"
	"time"

	"castellan/internal/store"

	"golang.org/x/mod/sumdb/tlog"
)

// pruneAction is the action of entries that tell of pruning.
const pruneAction = "castellan/audit/prune/action"

// pruning is the detail of such an entry.
type pruning struct {
	Pruned int64 `json:"pruned"` // entries at the log's beginning of which the hashes alone are left
}

// pruneSize is how many entries one transaction prunes.
const pruneSize = 1000

// Prune takes away what the entries before the first one that is not older than
// till say, and says how many those were. Their hashes stay, so that all proofs
// do; the log tells of it, in the same transaction, by an entry that is by but for
// its action and detail.
func (l *Log) Prune(ctx context.Context, till time.Time, by Entry) (n int, err error) {
	for {
		var done int
		err := l.db.Do(ctx, func(tx *store.Tx) (err error) { done, err = l.prune(tx, till, by); return err })
		if n += done; err != nil || done < pruneSize {
			return n, err
		}
	}
}

func (l *Log) prune(tx *store.Tx, till time.Time, by Entry) (n int, err error) {
	from, err := prunedOf(tx)
	if err != nil {
		return 0, err
	}
	rows, err := tx.Scan(table, "", key(uint64(from)), pruneSize)
	if err != nil {
		return 0, err
	}
	for _, r := range rows {
		e, ok, err := entry(r.Key, r.Value)
		if err != nil {
			return 0, err
		}
		if !ok || !e.Time.Before(till) {
			break
		}
		made, _, err := unpack(r.Value)
		if err != nil {
			return 0, err
		}
		list, err := hashes(made)
		if err != nil {
			return 0, err
		}
		if err := tx.Put(table, r.Key, pack(list, nil)); err != nil {
			return 0, err
		}
		if err := e.unindex(tx); err != nil {
			return 0, err
		}
		n++
	}
	if n == 0 {
		return 0, nil
	}
	detail, err := json.Marshal(pruning{from + int64(n)})
	if err != nil {
		return 0, err
	}
	by.Action, by.Detail = pruneAction, string(detail)
	return n, l.Append(tx, by)
}

// prunedOf is how many entries are pruned: the first ones.
func prunedOf(tx *store.Tx) (int64, error) {
	_, t, err := headOf(tx)
	if err != nil {
		return 0, err
	}
	var bad error
	n := sort.Search(int(t.n), func(i int) bool {
		row, err := tx.Get(table, key(uint64(i+1)))
		if err == nil {
			_, row, err = unpack(row)
		}
		if err != nil {
			bad = err
		}
		return len(row) > 0
	})
	return int64(n), bad
}

// Holds reports, by an error, that the log is not one that the signed checkpoint
// tells of: it has fewer entries, or others. It reads the tree's hashes alone.
func (l *Log) Holds(ctx context.Context, signed []byte) error {
	return l.db.View(ctx, func(tx *store.Tx) error {
		key, err := keyOf(tx)
		if err != nil {
			return err
		}
		c, err := ParseCheckpoint(signed, key)
		if err != nil {
			return err
		}
		_, t, err := headOf(tx)
		if err != nil {
			return err
		}
		if c.N > t.n {
			return shorter(t.n, c)
		}
		root, err := tlog.TreeHash(c.N, reader(tx))
		if err != nil {
			return err
		}
		if root != c.Hash {
			return other(c)
		}
		return nil
	})
}
