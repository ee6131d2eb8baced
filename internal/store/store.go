// Package store keeps bytes under keys, in tables, in transactions.
//
// It is one SQLite file in WAL mode with full durability, encrypted page by
// page; every value is sealed besides, for its table and key, so that a value
// altered or moved on disk does not open. Writes of many callers share one
// commit: when Do returns nil, the change is on disk.
package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"castellan/internal/seal"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/driver"
)

// ErrClosed means that the store was closed.
var ErrClosed = errors.New("store: closed")

// maxBatch is the most writes that share one commit.
const maxBatch = 256

// readers is how many read at once. Each keeps up to 8 MB of pages, and is closed
// when it had nothing to do for a minute.
const readers = 8

// DB is an open store.
type DB struct {
	read  *sql.DB
	write *sql.DB
	key   seal.Key
	on    map[*sql.DB]*statements // of read and of write
	guard Guard                   // nil: no row has another key
	work  chan *job
	stop  chan struct{} // closed when Close begins
	dead  chan struct{} // closed when the writer has ended
	once  sync.Once
	err   error // what Close found, set once
}

// statements are all that the store asks of SQLite, read by it once for each
// connection: that costs as much as looking up a row.
type statements struct {
	get, put, remove, up, down *sql.Stmt
	begin, undo, end           *sql.Stmt // of the part of a transaction that is one job's
}

func prepare(pool *sql.DB) (*statements, error) {
	var out statements
	for _, x := range []struct {
		to   **sql.Stmt
		text string
	}{
		{&out.get, "SELECT v FROM kv WHERE t=? AND k=?"},
		{&out.put, "INSERT OR REPLACE INTO kv (t,k,v) VALUES (?,?,?)"},
		{&out.remove, "DELETE FROM kv WHERE t=? AND k=?"},
		{&out.up, "SELECT k,v FROM kv WHERE t=? AND k>=? AND k<? AND k>? ORDER BY k LIMIT ?"},
		{&out.down, "SELECT k,v FROM kv WHERE t=? AND k>=? AND k<? AND k<? ORDER BY k DESC LIMIT ?"},
		{&out.begin, "SAVEPOINT one"},
		{&out.undo, "ROLLBACK TO one"},
		{&out.end, "RELEASE one"},
	} {
		var err error
		if *x.to, err = pool.Prepare(x.text); err != nil {
			return nil, fmt.Errorf("opening the store (is it the right root key?): %w", err)
		}
	}
	return &out, nil
}

type job struct {
	fn    func(*Tx) error
	after []func() // what fn asked for once its change is durable
	err   error
	ready chan struct{}
}

// Open opens or makes the store in dir, with everything sealed under key.
func Open(dir string, key seal.Key) (*DB, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the data folder: %w", err)
	}
	// Made by hand, for its owner alone.
	f, err := os.OpenFile(filepath.Join(dir, FileName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the store: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("opening the store: %w", err)
	}
	uri := uri(dir, key)
	setup := func(c *sqlite3.Conn) error {
		return c.Exec(`PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA temp_store=memory; PRAGMA secure_delete=ON; PRAGMA busy_timeout=10000; PRAGMA cache_size=-8000`)
	}
	w, err := driver.Open(uri+"&_txlock=immediate", setup)
	if err != nil {
		return nil, fmt.Errorf("opening the store: %w", err)
	}
	w.SetMaxOpenConns(1)
	if _, err := w.Exec(`CREATE TABLE IF NOT EXISTS kv (t TEXT NOT NULL, k TEXT NOT NULL, v BLOB NOT NULL, PRIMARY KEY (t, k)) WITHOUT ROWID`); err != nil {
		w.Close()
		return nil, fmt.Errorf("opening the store (is it the right root key?): %w", err)
	}
	// Readers can't write at all, which spares each View two statements that say so.
	r, err := driver.Open(uri, func(c *sqlite3.Conn) error { return errors.Join(setup(c), c.Exec(`PRAGMA query_only=ON`)) })
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("opening the store: %w", err)
	}
	r.SetMaxOpenConns(readers)
	r.SetMaxIdleConns(readers)
	r.SetConnMaxIdleTime(time.Minute)
	on := map[*sql.DB]*statements{}
	for _, pool := range []*sql.DB{r, w} {
		if on[pool], err = prepare(pool); err != nil {
			return nil, errors.Join(err, r.Close(), w.Close())
		}
	}
	db := &DB{read: r, write: w, on: on, key: key.Derive("values"), work: make(chan *job, maxBatch), stop: make(chan struct{}), dead: make(chan struct{})}
	for _, more := range []string{"-wal", "-shm"} { // which are there while the store is open
		if err := os.Chmod(f.Name()+more, 0o600); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, errors.Join(fmt.Errorf("opening the store: %w", err), r.Close(), w.Close())
		}
	}
	go db.writer()
	return db, nil
}

// Close waits for the writes under way and closes the store; more than once
// does no more than once.
func (db *DB) Close() error {
	db.once.Do(func() {
		close(db.stop)
		<-db.dead
		db.err = errors.Join(db.read.Close(), db.write.Close())
	})
	return db.err
}

// Do runs fn in a transaction and returns when it is durable. If fn returns an
// error nothing of it stays. fn must use only its Tx, and be quick: writes of
// all callers wait for it.
func (db *DB) Do(ctx context.Context, fn func(*Tx) error) error {
	j := &job{fn: fn, ready: make(chan struct{})}
	select {
	case db.work <- j:
	case <-db.stop:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-j.ready: // once taken it is not abandoned: the caller learns what became of it
		return j.err
	case <-db.dead: // nobody will take it any more, unless it was just done
		select {
		case <-j.ready:
			return j.err
		default:
			return ErrClosed
		}
	}
}

// View runs fn on a snapshot that it can only read.
func (db *DB) View(ctx context.Context, fn func(*Tx) error) error {
	tx, err := db.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return fmt.Errorf("reading the store: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // nothing was written
	return fn(&Tx{db: db, tx: tx, on: db.on[db.read]})
}

func (db *DB) writer() {
	defer close(db.dead)
	for {
		select {
		case j := <-db.work:
			db.batch(db.gather(j))
		case <-db.stop:
			for {
				select {
				case j := <-db.work:
					j.err = ErrClosed
					close(j.ready)
				default:
					return
				}
			}
		}
	}
}

func (db *DB) gather(first *job) []*job {
	jobs := []*job{first}
	for len(jobs) < maxBatch {
		select {
		case j := <-db.work:
			jobs = append(jobs, j)
		default:
			return jobs
		}
	}
	return jobs
}

// batch runs the jobs in one SQLite transaction, each in a savepoint of its own.
func (db *DB) batch(jobs []*job) {
	err := db.commit(jobs)
	for _, j := range jobs {
		if err != nil && j.err == nil {
			j.err = err
		}
		if j.err == nil {
			for _, f := range j.after {
				f()
			}
		}
		close(j.ready)
	}
}

func (db *DB) commit(jobs []*job) error {
	tx, err := db.write.Begin()
	if err != nil {
		return fmt.Errorf("beginning a write: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // a no-op after Commit
	for _, j := range jobs {
		if err := db.one(tx, j); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("committing: %w", err)
	}
	return nil
}

func (db *DB) one(tx *sql.Tx, j *job) (err error) {
	on := db.on[db.write]
	if _, err = tx.Stmt(on.begin).Exec(); err != nil {
		return fmt.Errorf("beginning a write: %w", err)
	}
	func() {
		defer func() {
			if p := recover(); p != nil {
				j.err = fmt.Errorf("store: a write panicked: %v", p)
			}
		}()
		j.err = j.fn(&Tx{db: db, tx: tx, on: on, job: j})
	}()
	if j.err != nil {
		if _, err = tx.Stmt(on.undo).Exec(); err != nil {
			return fmt.Errorf("undoing a write: %w", err)
		}
	}
	if _, err = tx.Stmt(on.end).Exec(); err != nil {
		return fmt.Errorf("ending a write: %w", err)
	}
	return nil
}

// Tx is a transaction. It must not be kept after its function returns.
type Tx struct {
	// By is who changes something, for the record alone; "" if nobody said so.
	By string

	db  *DB
	tx  *sql.Tx
	on  *statements
	job *job // nil in a View
}

// After has fn called once the transaction is durable and before Do returns,
// in the order of the transactions; what is remembered in memory follows the
// store by it. fn must be quick and must not use the store.
func (tx *Tx) After(fn func()) {
	if tx.job != nil {
		tx.job.after = append(tx.job.after, fn)
	}
}

func place(table, key string) string { return table + "\x00" + key }

// Get is the value under key, or nil if there is none.
func (tx *Tx) Get(table, key string) ([]byte, error) {
	var v []byte
	err := tx.tx.Stmt(tx.on.get).QueryRow(table, key).Scan(&v)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", table, err)
	}
	return tx.open(table, key, v)
}

func (tx *Tx) open(table, key string, v []byte) ([]byte, error) {
	plain, err := tx.opened(table, key, v)
	if shut, ok := errors.AsType[*Shut](err); ok {
		return nil, shut
	}
	if err != nil {
		return nil, fmt.Errorf("a row of %s was altered on disk: %w", table, err)
	}
	if plain == nil {
		plain = []byte{}
	}
	return plain, nil
}

// Put keeps value under key.
func (tx *Tx) Put(table, key string, value []byte) error {
	if tx.job == nil {
		return errors.New("store: Put in a View")
	}
	v, err := tx.sealed(table, key, value)
	if err != nil {
		return err
	}
	if _, err := tx.tx.Stmt(tx.on.put).Exec(table, key, v); err != nil {
		return fmt.Errorf("writing %s: %w", table, err)
	}
	return nil
}

// Delete removes what is under key, if anything is.
func (tx *Tx) Delete(table, key string) error {
	if tx.job == nil {
		return errors.New("store: Delete in a View")
	}
	if _, err := tx.tx.Stmt(tx.on.remove).Exec(table, key); err != nil {
		return fmt.Errorf("deleting from %s: %w", table, err)
	}
	return nil
}

// Row is one key and its value.
type Row struct {
	Key   string
	Value []byte
}

// Scan is up to limit rows whose key begins with prefix and comes after after,
// in the order of their bytes; limit 0 means all.
func (tx *Tx) Scan(table, prefix, after string, limit int) ([]Row, error) {
	if limit == 0 {
		limit = -1
	}
	return tx.list(tx.on.up, table, prefix, prefix+"\U0010ffff", after, limit)
}

// Keys is Scan without the values, of which none is opened.
func (tx *Tx) Keys(table, prefix, after string, limit int) (out []string, err error) {
	if limit == 0 {
		limit = -1
	}
	rows, err := tx.tx.Query("SELECT k FROM kv WHERE t=? AND k>=? AND k<? AND k>? ORDER BY k LIMIT ?", table, prefix, prefix+"\U0010ffff", after, limit)
	if err != nil {
		return nil, fmt.Errorf("listing %s: %w", table, err)
	}
	defer rows.Close()
	for rows.Next() {
		var k string
		if err := rows.Scan(&k); err != nil {
			return nil, fmt.Errorf("listing %s: %w", table, err)
		}
		out = append(out, k)
	}
	return out, rows.Err()
}

// ScanDown is up to limit rows whose key begins with prefix and comes before
// before, the last first; before "" means from the end.
func (tx *Tx) ScanDown(table, prefix, before string, limit int) ([]Row, error) {
	end := prefix + "\U0010ffff"
	if before == "" {
		before = end
	}
	return tx.list(tx.on.down, table, prefix, end, before, limit)
}

func (tx *Tx) list(stmt *sql.Stmt, table string, args ...any) ([]Row, error) {
	rows, err := tx.tx.Stmt(stmt).Query(append([]any{table}, args...)...)
	if err != nil {
		return nil, fmt.Errorf("listing %s: %w", table, err)
	}
	defer rows.Close()
	var out []Row
	for rows.Next() {
		var r Row
		var v []byte
		if err := rows.Scan(&r.Key, &v); err != nil {
			return nil, fmt.Errorf("listing %s: %w", table, err)
		}
		if r.Value, err = tx.open(table, r.Key, v); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, rows.Err()
}

// GetJSON reads a value that PutJSON wrote; ok is false if there is none.
func GetJSON[T any](tx *Tx, table, key string) (v T, ok bool, err error) {
	b, err := tx.Get(table, key)
	if err != nil || b == nil {
		return v, false, err
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return v, false, fmt.Errorf("reading a row of %s: %w", table, err)
	}
	return v, true, nil
}

// PutJSON keeps v as JSON.
func PutJSON(tx *Tx, table, key string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("writing a row of %s: %w", table, err)
	}
	return tx.Put(table, key, b)
}

// ScanJSON is Scan for values that PutJSON wrote.
func ScanJSON[T any](tx *Tx, table, prefix, after string, limit int) ([]T, error) {
	rows, err := tx.Scan(table, prefix, after, limit)
	if err != nil {
		return nil, err
	}
	out := make([]T, len(rows))
	for i, r := range rows {
		if err := json.Unmarshal(r.Value, &out[i]); err != nil {
			return nil, fmt.Errorf("reading a row of %s: %w", table, err)
		}
	}
	return out, nil
}
