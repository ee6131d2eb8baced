// Package audit is a log that shows whether it was altered.
//
// It is a transparency log: every entry is a leaf of one growing Merkle tree
// (RFC 6962), so an entry cannot be changed, taken out, put in or moved without
// another root. Signed checkpoints say what the root was; with one that was kept
// elsewhere, a log that was cut short or rolled back shows too. Entries of changes are written in the same transaction as the change; entries of reads
// and refusals are gathered and written a moment later, and once that fails
// nothing more is let through.
package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"castellan/internal/store"

	"golang.org/x/mod/sumdb/tlog"
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
	Detail      string    `json:"detail,omitempty"`  // JSON that belongs to the action
	Data        bool      `json:"data,omitempty"`    // Action is a data action
	Address     string    `json:"address,omitempty"` // IP address that the request came from
	Plane       string    `json:"plane,omitempty"`   // whose door it was; "" when the platform asked by itself
	Event       string    `json:"event,omitempty"`   // Begun or Ended of what went on after its answer; "" is all of it
}

// The events of what goes on after its request was answered. Both entries have one
// correlation id, and all else but the time and the outcome in common.
const (
	Begun = "begun"
	Ended = "ended"
)

const (
	table = "audit"
	heads = "audit_head" // where the log ends, and its key
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

	unwritten []Entry // taken from the queue; the flusher's own

	mu        sync.Mutex // guards what follows
	broken    error      // why the log can't be written, for good; nothing is let through
	stuck     error      // why the last flush failed; nothing is let through until one succeeds
	published []byte     // the last checkpoint that was made for everybody
	at        time.Time  // and when
}

// New opens the log that db keeps; if that fails, Err says why. A log of an
// older form, a chain, is made a tree.
func New(db *store.DB, now func() time.Time) *Log {
	l := &Log{db: db, now: now, queue: make(chan Entry, queueSize), sync: make(chan chan error), stop: make(chan struct{}), done: make(chan struct{})}
	if err := l.open(context.Background()); err != nil {
		l.broken = fmt.Errorf("opening the audit log: %w", err)
	}
	go l.flusher()
	return l
}

// Read opens the log that db keeps to be read alone; nothing can be recorded.
func Read(db *store.DB) *Log {
	return &Log{db: db, now: time.Now, broken: errors.New("the audit log was opened to be read alone")}
}

func (l *Log) open(ctx context.Context) error {
	for more := true; more; {
		if err := l.db.Do(ctx, func(tx *store.Tx) (err error) { more, err = carry(tx); return err }); err != nil {
			return err
		}
	}
	return l.db.Do(ctx, keyOnce)
}

// Close writes what is still queued.
func (l *Log) Close() error {
	close(l.stop)
	<-l.done
	return l.Err()
}

// Err is why the log can't be written now, or nil.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.broken, l.stuck)
}

func key(seq uint64) string { return fmt.Sprintf("%016x", seq) }

// Append writes e at the log's end as part of tx: it stays if and only if tx does.
func (l *Log) Append(tx *store.Tx, e Entry) error { return l.appendAll(tx, []Entry{e}) }

// appendAll is Append for many, which costs less than one by one.
func (l *Log) appendAll(tx *store.Tx, list []Entry) error {
	_, t, err := headOf(tx)
	if err != nil {
		return err
	}
	for _, e := range list {
		e.Seq = uint64(t.n) + 1
		if e.Time.IsZero() {
			e.Time = l.now().UTC()
		}
		leaf, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("writing an audit entry: %w", err)
		}
		if err := tx.Put(table, key(e.Seq), pack(t.add(tlog.RecordHash(leaf)), leaf)); err != nil {
			return err
		}
		if err := e.index(tx); err != nil {
			return err
		}
	}
	return putHead(tx, t)
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

// Write is Record that returns when e is durable.
func (l *Log) Write(ctx context.Context, e Entry) error {
	if err := l.Err(); err != nil {
		return err
	}
	return l.db.Do(ctx, func(tx *store.Tx) error { return l.Append(tx, e) })
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

// flush writes what is queued by now. What can't be written is kept for the next
// flush, and nothing is let through until then.
func (l *Log) flush() error {
	var err error
	for n := len(l.queue) + len(l.unwritten); n > 0 && err == nil; n -= flushSize {
		for len(l.unwritten) < min(n, flushSize) {
			l.unwritten = append(l.unwritten, <-l.queue)
		}
		if err = l.db.Do(context.Background(), func(tx *store.Tx) error { return l.appendAll(tx, l.unwritten) }); err == nil {
			l.unwritten = l.unwritten[:0]
		} else {
			err = fmt.Errorf("the audit log can't be written: %w", err)
		}
	}
	l.mu.Lock()
	l.stuck = err
	l.mu.Unlock()
	return l.Err()
}

// Tail is the last n entries, oldest first.
func (l *Log) Tail(ctx context.Context, n int) (out []Entry, err error) {
	err = l.db.View(ctx, func(tx *store.Tx) error {
		h, _, err := headOf(tx)
		if err != nil {
			return err
		}
		from := uint64(0)
		if h.Seq > uint64(n) {
			from = h.Seq - uint64(n)
		}
		out, err = entries(tx, key(from), n)
		return err
	})
	return out, err
}

// Before is up to n entries that come before the entry seq, the newest first; 0
// stands for the log's end.
func (l *Log) Before(ctx context.Context, seq uint64, n int) (out []Entry, err error) {
	err = l.db.View(ctx, func(tx *store.Tx) error {
		if seq == 0 {
			h, _, err := headOf(tx)
			if err != nil {
				return err
			}
			seq = h.Seq + 1
		}
		if seq == 1 {
			return nil
		}
		from := uint64(0)
		if seq > uint64(n)+1 {
			from = seq - uint64(n) - 1
		}
		out, err = entries(tx, key(from), int(seq-1-from))
		return err
	})
	slices.Reverse(out)
	return out, err
}

// End is how many entries the log has in tx: the last one's Seq.
func End(tx *store.Tx) (uint64, error) {
	h, _, err := headOf(tx)
	return h.Seq, err
}

// After is up to n entries that come after the entry seq, oldest first. Pruned
// ones are left out, but count among the n.
func After(tx *store.Tx, seq uint64, n int) ([]Entry, error) { return entries(tx, key(seq), n) }
