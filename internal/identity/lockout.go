package identity

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"time"

	"castellan/internal/store"
)

const (
	lockTable    = "identity_locks"
	lockAfter    = 10 // failures
	lockFor      = time.Minute
	lockForMost  = time.Hour
	forgetAfter  = 24 * time.Hour
	mostUnknowns = 10_000 // names of nobody that are counted at once
)

// lock counts failures of one name. The name is kept as a hash: people type
// passwords where names belong.
type lock struct {
	Failures int
	Last     time.Time
	Until    time.Time
}

// lockout shuts a name after lockAfter failures, for longer each time. Names
// of nobody are counted as all others, so that counting tells nothing. It
// outlives a restart for principals, whom it protects, and not for nobody.
type lockout struct {
	mu    sync.Mutex // guards known and unknown
	known map[string]lock
	other map[string]lock
}

func (l *lockout) load(tx *store.Tx) error {
	rows, err := tx.Scan(lockTable, "", "", 0)
	for _, r := range rows {
		v, _, err := store.GetJSON[lock](tx, lockTable, r.Key)
		if err != nil {
			return err
		}
		if v.Failures > 0 {
			l.known[r.Key] = v
		}
	}
	return err
}

func lockKey(name string) string {
	sum := sha256.Sum256([]byte("lock|" + fold(name)))
	return hex.EncodeToString(sum[:])
}

// shut reports whether name is shut at now.
func (l *lockout) shut(name string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := lockKey(name)
	v, ok := l.known[k]
	if !ok {
		v = l.other[k]
	}
	return now.Before(v.Until)
}

// fail counts a failure of a name; principal says whether anybody has it.
func (l *lockout) fail(ctx context.Context, db *store.DB, name string, principal bool, now time.Time) error {
	return db.Do(ctx, func(tx *store.Tx) error { return l.failIn(tx, name, principal, now) })
}

// failIn is fail in a transaction. Transactions run one after another, so who
// asks shut and counts in one of them lets no guess slip in between.
func (l *lockout) failIn(tx *store.Tx, name string, principal bool, now time.Time) error {
	k := lockKey(name)
	v := l.count(k, principal, now)
	if !principal {
		// Written as for a principal, so that it takes as long; into few places,
		// so that made-up names do not fill the store.
		k, v = "nobody|"+k[:3], lock{}
	}
	return store.PutJSON(tx, lockTable, k, v)
}

func (l *lockout) count(k string, principal bool, now time.Time) lock {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.known
	if !principal {
		if m = l.other; len(m) >= mostUnknowns {
			clear(m)
		}
	}
	v := m[k]
	if now.Sub(v.Last) > forgetAfter {
		v = lock{}
	}
	v.Failures, v.Last = v.Failures+1, now
	if v.Failures >= lockAfter {
		v.Until = now.Add(min(lockFor<<min(v.Failures-lockAfter, 10), lockForMost))
	}
	m[k] = v
	return v
}

// pass forgets the failures of a name after a success.
func (l *lockout) pass(ctx context.Context, db *store.DB, name string) error {
	if !l.counted(name) {
		return nil
	}
	return db.Do(ctx, func(tx *store.Tx) error { return l.passIn(tx, name) })
}

// passIn is pass in a transaction.
func (l *lockout) passIn(tx *store.Tx, name string) error {
	if !l.counted(name) {
		return nil
	}
	k := lockKey(name)
	tx.After(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.known, k)
	})
	return tx.Delete(lockTable, k)
}

func (l *lockout) counted(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.known[lockKey(name)]
	return ok
}

// sweep forgets failures that no longer count.
func (l *lockout) sweep(tx *store.Tx, now time.Time) error {
	rows, err := tx.Scan(lockTable, "", "", 0)
	if err != nil {
		return err
	}
	for _, r := range rows {
		v, _, err := store.GetJSON[lock](tx, lockTable, r.Key)
		if err != nil {
			return err
		}
		if now.Sub(v.Last) <= forgetAfter || v.Failures == 0 {
			continue
		}
		if err := tx.Delete(lockTable, r.Key); err != nil {
			return err
		}
		tx.After(func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			if now.Sub(l.known[r.Key].Last) > forgetAfter {
				delete(l.known, r.Key)
			}
		})
	}
	return nil
}
