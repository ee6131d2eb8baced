package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"castellan/internal/store"

	"golang.org/x/mod/sumdb/tlog"
)

// walk holds the leaves of a log, from the first on, against all that is known
// of it. The zero walk knows nothing.
type walk struct {
	tree
	kept   []Checkpoint // what the log was found to be before
	pruned int64        // leaves that only their hashes are left of, the first ones
	said   int64        // how many those are by the log's own last word
}

// next takes the next leaf, or nil and the hash of a pruned one; it returns the
// hashes that the leaf makes in the tree.
func (w *walk) next(leaf []byte, hash tlog.Hash) (made []tlog.Hash, err error) {
	seq := w.n + 1
	switch {
	case len(leaf) == 0 && w.pruned != w.n:
		return nil, fmt.Errorf("audit: entry %d was taken out", seq)
	case len(leaf) == 0:
		w.pruned++
	case !bytes.HasPrefix(leaf, append(strconv.AppendInt([]byte(`{"seq":`), seq, 10), ',')):
		return nil, fmt.Errorf("audit: what stands at %d is another entry", seq)
	case tlog.RecordHash(leaf) != hash:
		return nil, fmt.Errorf("audit: entry %d was altered", seq)
	default:
		if w.said, err = prunedBy(leaf, w.said); err != nil {
			return nil, fmt.Errorf("audit: entry %d: %w", seq, err)
		}
	}
	made = w.add(hash)
	return made, w.meet(false)
}

// meet holds the tree against the checkpoints of its size; those beyond it have
// to be met before the end.
func (w *walk) meet(end bool) error {
	for _, c := range w.kept {
		if c.N == w.n && c.Hash != w.root() {
			return other(c)
		}
		if end && c.N > w.n {
			return shorter(w.n, c)
		}
	}
	return nil
}

func other(c Checkpoint) error {
	return fmt.Errorf("audit: the first %d entries are not those of the checkpoint of %d entries: entries were altered, or an older log was put in place and went on", c.N, c.N)
}

func shorter(n int64, c Checkpoint) error {
	return fmt.Errorf("audit: the log ends at entry %d, before the checkpoint of %d entries: its end was cut off, or an older log put in its place", n, c.N)
}

// end says whether the log may end here.
func (w *walk) end() error {
	if w.pruned != w.said {
		return fmt.Errorf("audit: %d entries at the beginning are hashes alone; the log tells of %d that were pruned", w.pruned, w.said)
	}
	return w.meet(true)
}

// verify walks the log that tx sees.
func verify(tx *store.Tx, kept []Checkpoint) (t tree, err error) {
	h, end, err := headOf(tx)
	if err != nil {
		return t, err
	}
	if h.Hash != "" {
		return t, errors.New("audit: the log is a chain of an older form; it becomes a tree when the server starts")
	}
	w := walk{kept: kept}
	if err := w.meet(false); err != nil {
		return t, err
	}
	if err := walkRows(tx, w.row); err != nil {
		return t, err
	}
	if end.n != w.n || !slices.Equal(end.edge, w.edge) {
		return t, fmt.Errorf("audit: the log ends at entry %d; its head says %d", w.n, end.n)
	}
	return w.tree, w.end()
}

// rowsAtOnce is how many rows are read at once.
const rowsAtOnce = 1000

// walkRows calls fn with what each row of the log holds.
func walkRows(tx *store.Tx, fn func(key string, made, leaf []byte) error) error {
	for after := ""; ; {
		rows, err := tx.Scan(table, "", after, rowsAtOnce)
		if err != nil {
			return err
		}
		for _, r := range rows {
			made, leaf, err := unpack(r.Value)
			if err != nil {
				seq, _ := strconv.ParseUint(r.Key, 16, 64) // what is no number is not an entry's row
				return fmt.Errorf("audit: entry %d: %w", seq, err)
			}
			if err := fn(r.Key, made, leaf); err != nil {
				return err
			}
			after = r.Key
		}
		if len(rows) < rowsAtOnce {
			return nil
		}
	}
}

// row takes the next row, and holds the hashes in it against the tree's.
func (w *walk) row(at string, said, leaf []byte) error {
	seq := w.n + 1
	if at != key(uint64(seq)) {
		return fmt.Errorf("audit: entry %d is missing", seq)
	}
	if said == nil {
		return fmt.Errorf("audit: entry %d was altered: it has no hashes", seq)
	}
	made, err := w.next(leaf, tlog.Hash(said[:tlog.HashSize]))
	if err != nil {
		return err
	}
	if !bytes.Equal(flat(made), said) {
		return fmt.Errorf("audit: the tree's hashes at entry %d were altered", seq)
	}
	return nil
}

// Verify walks the whole log and says how many entries it has, or which one is
// not as it was written. Entries that were pruned count.
func (l *Log) Verify(ctx context.Context, kept ...Checkpoint) (n uint64, err error) {
	err = l.db.View(ctx, func(tx *store.Tx) error {
		t, err := verify(tx, kept)
		n = uint64(t.n)
		return err
	})
	return n, err
}

// prunedBy is how many entries the log says to be pruned after leaf, if before
// it said so many.
func prunedBy(leaf []byte, said int64) (int64, error) {
	if !bytes.Contains(leaf, []byte(pruneAction)) {
		return said, nil
	}
	var e Entry
	var p pruning
	if err := json.Unmarshal(leaf, &e); err != nil {
		return 0, err
	}
	if e.Action != pruneAction {
		return said, nil
	}
	if err := json.Unmarshal([]byte(e.Detail), &p); err != nil {
		return 0, err
	}
	return p.Pruned, nil
}
