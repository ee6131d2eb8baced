package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"castellan/internal/store"

	"golang.org/x/mod/sumdb/tlog"
)

// tree is a Merkle tree of RFC 6962, as far as one must know it to make it grow.
type tree struct {
	n    int64       // leaves
	edge []tlog.Hash // of the largest whole subtrees, from the left: one for each bit of n
}

// add puts a leaf at the tree's end. It returns the leaf's hash and those of
// all subtrees that became whole by it, the smallest first.
func (t *tree) add(h tlog.Hash) (made []tlog.Hash) {
	made = append(made, h)
	for rest := t.n; rest&1 == 1; rest >>= 1 {
		last := len(t.edge) - 1
		h = tlog.NodeHash(t.edge[last], h)
		t.edge, made = t.edge[:last], append(made, h)
	}
	t.edge = append(t.edge, h)
	t.n++
	return made
}

// root is the hash of the whole tree.
func (t *tree) root() tlog.Hash {
	if t.n == 0 {
		return sha256.Sum256(nil)
	}
	h := t.edge[len(t.edge)-1]
	for _, left := range slices.Backward(t.edge[:len(t.edge)-1]) {
		h = tlog.NodeHash(left, h)
	}
	return h
}

// head is where the log ends.
type head struct {
	Seq  uint64
	Edge []byte // the tree's edge, one hash after the other
	Hash string `json:",omitempty"` // of a log that is a chain still: its last entry's hash
}

func headOf(tx *store.Tx) (h head, t tree, err error) {
	if h, _, err = store.GetJSON[head](tx, heads, "head"); err != nil {
		return h, t, err
	}
	t.n = int64(h.Seq)
	t.edge, err = hashes(h.Edge)
	return h, t, err
}

func putHead(tx *store.Tx, t tree) error {
	return store.PutJSON(tx, heads, "head", head{Seq: uint64(t.n), Edge: flat(t.edge)})
}

func flat(list []tlog.Hash) (b []byte) {
	for _, h := range list {
		b = append(b, h[:]...)
	}
	return b
}

func hashes(b []byte) (list []tlog.Hash, err error) {
	if len(b)%tlog.HashSize != 0 {
		return nil, fmt.Errorf("audit: %d bytes are no list of hashes", len(b))
	}
	for part := range slices.Chunk(b, tlog.HashSize) {
		list = append(list, tlog.Hash(part))
	}
	return list, nil
}

// A row of the log holds, one after the other: rowMark, the number of hashes,
// the hashes that the entry made in the tree, and the entry as JSON, which is
// the tree's leaf. A pruned entry has no JSON any more. Rows of a log that is a
// chain still are JSON alone.
const rowMark = 1

func pack(made []tlog.Hash, leaf []byte) []byte {
	b := append(make([]byte, 0, 2+len(made)*tlog.HashSize+len(leaf)), rowMark, byte(len(made)))
	return append(append(b, flat(made)...), leaf...)
}

func unpack(row []byte) (made, leaf []byte, err error) {
	if len(row) > 0 && row[0] == '{' {
		return nil, row, nil
	}
	if len(row) < 2 || row[0] != rowMark || row[1] == 0 || len(row) < 2+int(row[1])*tlog.HashSize {
		return nil, nil, errors.New("it was altered: it has no form of an audit entry")
	}
	end := 2 + int(row[1])*tlog.HashSize
	return row[2:end], row[end:], nil
}

// entries are up to limit entries behind the row after; pruned ones are left out.
func entries(tx *store.Tx, after string, limit int) ([]Entry, error) {
	rows, err := tx.Scan(table, "", after, limit)
	if err != nil {
		return nil, err
	}
	out := make([]Entry, 0, len(rows))
	for _, r := range rows {
		e, ok, err := entry(r.Key, r.Value)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, e)
		}
	}
	return out, nil
}

// entryAt is the entry of a row; ok is false if there is none or it was pruned.
func entryAt(tx *store.Tx, at string) (e Entry, ok bool, err error) {
	row, err := tx.Get(table, at)
	if err != nil || row == nil {
		return e, false, err
	}
	return entry(at, row)
}

func entry(at string, row []byte) (e Entry, ok bool, err error) {
	_, leaf, err := unpack(row)
	if err != nil || len(leaf) == 0 {
		return e, false, err
	}
	if err := json.Unmarshal(leaf, &e); err != nil {
		return e, false, fmt.Errorf("reading entry %s of the audit log: %w", at, err)
	}
	return e, true, nil
}

// reader reads the tree's hashes where the log's rows keep them.
func reader(tx *store.Tx) tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			level, n := tlog.SplitStoredHashIndex(index)
			row, err := tx.Get(table, key(uint64((n+1)<<level)))
			if err != nil {
				return nil, err
			}
			made, _, err := unpack(row)
			if err != nil || len(made) < (level+1)*tlog.HashSize {
				return nil, fmt.Errorf("audit: entry %d has lost hashes of the tree", (n+1)<<level)
			}
			out[i] = tlog.Hash(made[level*tlog.HashSize : (level+1)*tlog.HashSize])
		}
		return out, nil
	})
}

// Until logs were trees, an entry ended with the hash of the one before it and
// its own, which was made with "" in its place.
const (
	chainPrev = `,"prev":"`
	chainHash = `","hash":"`
	chainEnd  = `"}`
)

// link holds a chain's entry against the hash of the one before it.
func link(leaf []byte, prev string) (hash string, ok bool) {
	tail := chainPrev + prev + chainHash
	from := len(leaf) - len(chainEnd) - sha256.Size*2
	if from < len(tail) || string(leaf[from-len(tail):from]) != tail || string(leaf[len(leaf)-len(chainEnd):]) != chainEnd {
		return "", false
	}
	hash = string(leaf[from : len(leaf)-len(chainEnd)])
	sum := sha256.Sum256(append(slices.Clone(leaf[:from]), chainEnd...))
	return hash, hash == hex.EncodeToString(sum[:])
}

// carrySize is how many entries of a chain one transaction makes leaves of.
const carrySize = 1000

// carry makes the next entries of a log that is a chain still leaves of a tree,
// as they are, once they are found unbroken; more tells that there are others.
// How far it came is kept beside the head, so it goes on after a crash.
func carry(tx *store.Tx) (more bool, err error) {
	h, _, err := headOf(tx)
	if err != nil || h.Hash == "" {
		return false, err
	}
	done, _, err := store.GetJSON[head](tx, heads, "carried")
	if err != nil {
		return false, err
	}
	t := tree{n: int64(done.Seq)}
	if t.edge, err = hashes(done.Edge); err != nil {
		return false, err
	}
	rows, err := tx.Scan(table, "", key(done.Seq), carrySize)
	if err != nil {
		return false, err
	}
	for _, r := range rows {
		var ok bool
		if done.Hash, ok = link(r.Value, done.Hash); !ok || r.Key != key(uint64(t.n)+1) {
			return false, fmt.Errorf("audit: the chain of entries is broken at %d, so that no tree can be made of it", t.n+1)
		}
		if err := tx.Put(table, r.Key, pack(t.add(tlog.RecordHash(r.Value)), r.Value)); err != nil {
			return false, err
		}
	}
	done.Seq, done.Edge = uint64(t.n), flat(t.edge)
	if len(rows) == carrySize && done.Seq < h.Seq {
		return true, store.PutJSON(tx, heads, "carried", done)
	}
	if done.Seq != h.Seq || done.Hash != h.Hash {
		return false, fmt.Errorf("audit: the chain of entries ends at %d; its head says %d", done.Seq, h.Seq)
	}
	return false, errors.Join(putHead(tx, t), tx.Delete(heads, "carried"))
}
