// Package audit is a log that shows whether it was altered.
//
// Every entry carries the hash of the one before it, so an entry cannot be
// changed, taken out, put in or moved without breaking the chain. Entries of
// changes are written in the same transaction as the change; entries of reads
// and refusals are gathered and written a moment later, and once that fails
// nothing more is let through.
package audit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"castellan/internal/store"
)

// Entry is one line of the log. No field ever holds a secret.
type Entry struct {
	Seq         uint64    `json:"seq"`
	Time        time.Time `json:"time"`
	Tenant      string    `json:"tenant,omitempty"`
	Caller      string    `json:"caller"` // object id
	Name        string    `json:"name,omitempty"`
	App         string    `json:"app,omitempty"`
	Credential  string    `json:"credential,omitempty"`
	Action      string    `json:"action"`
	Target      string    `json:"target"`
	Item        string    `json:"item,omitempty"`
	Decision    string    `json:"decision"` // allowed or refused
	Reason      string    `json:"reason,omitempty"`
	Outcome     string    `json:"outcome,omitempty"` // ok, or the error's code
	Correlation string    `json:"correlation,omitempty"`
	Detail      string    `json:"detail,omitempty"` // JSON that belongs to the action
	Data        bool      `json:"data,omitempty"`   // Action is a data action
	Plane       string    `json:"plane,omitempty"`  // whose door it was; "" when the platform asked by itself
	Prev        string    `json:"prev"`
	Hash        string    `json:"hash"`
}

const (
	table = "audit"
	heads = "audit_head"
	// queueSize is how many entries wait for the next flush at most; whoever
	// comes then waits too.
	queueSize = 4096
	flushWait = 20 * time.Millisecond
)

// Log is the audit log of one installation.
type Log struct {
	db    *store.DB
	now   func() time.Time
	queue chan Entry
	sync  chan chan error
	stop  chan struct{}
	done  chan struct{}

	mu     sync.Mutex // guards broken
	broken error      // why the last flush failed; nothing is let through while it stands
}

type head struct {
	Seq  uint64
	Hash string
}

// New opens the log that db keeps.
func New(db *store.DB, now func() time.Time) *Log {
	l := &Log{db: db, now: now, queue: make(chan Entry, queueSize), sync: make(chan chan error), stop: make(chan struct{}), done: make(chan struct{})}
	go l.flusher()
	return l
}

// Close writes what is still queued.
func (l *Log) Close() error {
	close(l.stop)
	<-l.done
	return l.Err()
}

// Err is why the log can't be written, or nil.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.broken
}

func key(seq uint64) string { return fmt.Sprintf("%016x", seq) }

// Append writes e at the log's end as part of tx: it stays if and only if tx does.
func (l *Log) Append(tx *store.Tx, e Entry) error { return l.appendAll(tx, []Entry{e}) }

// appendAll is Append for many, which costs less than one by one.
func (l *Log) appendAll(tx *store.Tx, list []Entry) error {
	h, _, err := store.GetJSON[head](tx, heads, "head")
	if err != nil {
		return err
	}
	for _, e := range list {
		e.Seq, e.Prev = h.Seq+1, h.Hash
		if e.Time.IsZero() {
			e.Time = l.now().UTC()
		}
		e.Hash = e.digest()
		if err := store.PutJSON(tx, table, key(e.Seq), e); err != nil {
			return err
		}
		if err := e.index(tx); err != nil {
			return err
		}
		h = head{e.Seq, e.Hash}
	}
	return store.PutJSON(tx, heads, "head", h)
}

// digest is the hash of e and, through Prev, of all before it.
func (e Entry) digest() string {
	e.Hash = ""
	b, err := json.Marshal(e)
	if err != nil {
		return "" // no field of Entry can fail to marshal
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Record queues e. It fails if the log can't be written, and then what e tells
// of must not happen.
func (l *Log) Record(ctx context.Context, e Entry) error {
	if err := l.Err(); err != nil {
		return err
	}
	e.Time = l.now().UTC()
	select {
	case l.queue <- e:
		return nil
	case <-l.stop:
		return errors.New("audit: the log is closed")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Sync returns when all that was recorded before is durable.
func (l *Log) Sync(ctx context.Context) error {
	ack := make(chan error, 1)
	select {
	case l.sync <- ack:
		return <-ack
	case <-l.done:
		return l.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *Log) flusher() {
	defer close(l.done)
	tick := time.NewTicker(flushWait)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			l.flush()
		case ack := <-l.sync:
			ack <- l.flush()
		case <-l.stop:
			l.flush()
			return
		}
	}
}

// flushSize is how many entries one transaction takes: other writers come in
// between when there are more.
const flushSize = 256

// flush writes what is queued by now.
func (l *Log) flush() error {
	for n := len(l.queue); n > 0; n -= flushSize {
		batch := make([]Entry, min(n, flushSize))
		for i := range batch {
			batch[i] = <-l.queue
		}
		if err := l.db.Do(context.Background(), func(tx *store.Tx) error { return l.appendAll(tx, batch) }); err != nil {
			l.mu.Lock()
			l.broken = fmt.Errorf("the audit log can't be written: %w", err)
			l.mu.Unlock()
			break
		}
	}
	return l.Err()
}

// Tail is the last n entries, oldest first.
func (l *Log) Tail(ctx context.Context, n int) (out []Entry, err error) {
	err = l.db.View(ctx, func(tx *store.Tx) error {
		h, _, err := store.GetJSON[head](tx, heads, "head")
		if err != nil {
			return err
		}
		from := uint64(0)
		if h.Seq > uint64(n) {
			from = h.Seq - uint64(n)
		}
		out, err = store.ScanJSON[Entry](tx, table, "", key(from), n)
		return err
	})
	return out, err
}

// Before is up to n entries that come before the entry seq, the newest first; 0
// stands for the log's end.
func (l *Log) Before(ctx context.Context, seq uint64, n int) (out []Entry, err error) {
	err = l.db.View(ctx, func(tx *store.Tx) error {
		if seq == 0 {
			h, _, err := store.GetJSON[head](tx, heads, "head")
			if err != nil {
				return err
			}
			seq = h.Seq + 1
		}
		from := uint64(0)
		if seq > uint64(n)+1 {
			from = seq - uint64(n) - 1
		}
		out, err = store.ScanJSON[Entry](tx, table, "", key(from), int(seq-1-from))
		return err
	})
	slices.Reverse(out)
	return out, err
}

// Verify walks the whole log and says how many entries it has, or which one is
// not as it was written.
func (l *Log) Verify(ctx context.Context) (n uint64, err error) {
	err = l.db.View(ctx, func(tx *store.Tx) error {
		h, _, err := store.GetJSON[head](tx, heads, "head")
		if err != nil {
			return err
		}
		var c Chain
		for after := ""; ; {
			rows, err := store.ScanJSON[Entry](tx, table, "", after, 1000)
			if err != nil {
				return err
			}
			if len(rows) == 0 {
				break
			}
			for _, e := range rows {
				if err := c.Next(e); err != nil {
					return err
				}
			}
			after = key(c.Seq)
		}
		n = c.Seq
		if c.Seq != h.Seq || c.Hash != h.Hash {
			return fmt.Errorf("audit: the log ends at entry %d; its head says %d", c.Seq, h.Seq)
		}
		return nil
	})
	return n, err
}

// Chain verifies entries one after the other, also offline from an export. The
// zero Chain expects the first entry.
type Chain struct {
	Seq  uint64
	Hash string
}

// Next takes the next entry, or says what is wrong with it.
func (c *Chain) Next(e Entry) error {
	switch {
	case e.Seq != c.Seq+1:
		return fmt.Errorf("audit: entry %d follows entry %d", e.Seq, c.Seq)
	case e.Prev != c.Hash:
		return fmt.Errorf("audit: entry %d does not follow the entry before it: its prev is %.12s, that entry's hash %.12s", e.Seq, e.Prev, c.Hash)
	case e.Hash != e.digest():
		return fmt.Errorf("audit: entry %d was altered", e.Seq)
	}
	c.Seq, c.Hash = e.Seq, e.Hash
	return nil
}

// Export calls fn with every entry from the first on.
func (l *Log) Export(ctx context.Context, fn func(Entry) error) error {
	for after := ""; ; {
		var rows []Entry
		err := l.db.View(ctx, func(tx *store.Tx) (err error) {
			rows, err = store.ScanJSON[Entry](tx, table, "", after, 1000)
			return err
		})
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, e := range rows {
			if err := fn(e); err != nil {
				return err
			}
			after = key(e.Seq)
		}
	}
}
