package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"castellan/internal/seal"
	"castellan/internal/store"

	"golang.org/x/mod/sumdb/tlog"
)

// tamperLog is how many entries the log has that is tampered with, and
// tamperings how many are tried, unless CASTELLAN_TAMPERS says otherwise.
const (
	tamperLog  = 24
	tamperings = 1000
)

// scene is what somebody finds who has the store and its key.
type scene struct {
	*testing.T
	rnd    *rand.Rand
	tx     *store.Tx
	rows   []store.Row
	leaves [][]byte
	other  []store.Row // of another log
}

func (s *scene) put(i int, row []byte) {
	if err := s.tx.Put(table, key(uint64(i+1)), row); err != nil {
		s.Fatal(err)
	}
}

// rewrite puts another log in the place of the one that was there, with all
// hashes made anew that are not the same.
func (s *scene) rewrite(leaves [][]byte) {
	var t tree
	same := true
	for i, leaf := range leaves {
		made := t.add(tlog.RecordHash(leaf))
		if same = same && i < len(s.leaves) && bytes.Equal(leaf, s.leaves[i]); !same {
			s.put(i, pack(made, leaf))
		}
	}
	for i := len(leaves); i < len(s.leaves); i++ {
		if err := s.tx.Delete(table, key(uint64(i+1))); err != nil {
			s.Fatal(err)
		}
	}
	if err := putHead(s.tx, t); err != nil {
		s.Fatal(err)
	}
}

// flip changes one byte.
func (s *scene) flip(b []byte) []byte {
	b = slices.Clone(b)
	b[s.rnd.IntN(len(b))] ^= byte(1 + s.rnd.IntN(255))
	return b
}

// as is the leaf with another number.
func as(leaf []byte, seq int) []byte {
	_, rest, _ := bytes.Cut(leaf, []byte(","))
	return fmt.Appendf(nil, `{"seq":%d,%s`, seq, rest)
}

// renumber gives the leaves the numbers of their places.
func renumber(leaves [][]byte) [][]byte {
	for i, leaf := range leaves {
		leaves[i] = as(leaf, i+1)
	}
	return leaves
}

// tampers change the log that tx sees; at is the entry at which that shows, or 0
// if nothing but a checkpoint tells.
var tampers = map[string]func(s *scene) (at int){
	"an entry is edited": func(s *scene) int {
		i := s.rnd.IntN(len(s.rows))
		head := len(s.rows[i].Value) - len(s.leaves[i])
		s.put(i, append(slices.Clone(s.rows[i].Value[:head]), s.flip(s.leaves[i])...))
		return i + 1
	},
	"a row is edited": func(s *scene) int {
		i := s.rnd.IntN(len(s.rows))
		s.put(i, s.flip(s.rows[i].Value))
		return i + 1
	},
	"an entry is edited and hashed anew": func(s *scene) int {
		i, leaves := s.rnd.IntN(len(s.rows)), slices.Clone(s.leaves)
		var e Entry
		if err := json.Unmarshal(leaves[i], &e); err != nil {
			s.Fatal(err)
		}
		e.Caller = "somebody else"
		leaves[i], _ = json.Marshal(e)
		s.rewrite(leaves)
		return 0
	},
	"the hashes of a row are edited": func(s *scene) int {
		i := s.rnd.IntN(len(s.rows))
		head := len(s.rows[i].Value) - len(s.leaves[i])
		s.put(i, append([]byte{rowMark, s.rows[i].Value[1]}, append(s.flip(s.rows[i].Value[2:head]), s.leaves[i]...)...))
		return i + 1
	},
	"the head is edited": func(s *scene) int {
		_, t, err := headOf(s.tx)
		if err != nil {
			s.Fatal(err)
		}
		i := s.rnd.IntN(len(t.edge))
		t.edge[i] = tlog.Hash(s.flip(t.edge[i][:]))
		if err := putHead(s.tx, t); err != nil {
			s.Fatal(err)
		}
		return len(s.rows)
	},
	"an entry is deleted": func(s *scene) int {
		i := s.rnd.IntN(len(s.rows))
		if err := s.tx.Delete(table, s.rows[i].Key); err != nil {
			s.Fatal(err)
		}
		if i == len(s.rows)-1 {
			return i // the log ends there
		}
		return i + 1
	},
	"an entry is deleted and the gap closed": func(s *scene) int {
		i := s.rnd.IntN(len(s.rows))
		s.rewrite(slices.Delete(slices.Clone(s.leaves), i, i+1))
		if i == len(s.rows)-1 {
			return 0 // a cut
		}
		return i + 1
	},
	"an entry is deleted and all numbered anew": func(s *scene) int {
		i := s.rnd.IntN(len(s.rows))
		s.rewrite(renumber(slices.Delete(slices.Clone(s.leaves), i, i+1)))
		return 0
	},
	"two rows change places": func(s *scene) int {
		list := s.rnd.Perm(len(s.rows))
		i, j := min(list[0], list[1]), max(list[0], list[1])
		s.put(i, s.rows[j].Value)
		s.put(j, s.rows[i].Value)
		return i + 1
	},
	"two entries change places and numbers": func(s *scene) int {
		list, leaves := s.rnd.Perm(len(s.rows)), slices.Clone(s.leaves)
		leaves[list[0]], leaves[list[1]] = leaves[list[1]], leaves[list[0]]
		s.rewrite(renumber(leaves))
		return 0
	},
	"an entry is put in": func(s *scene) int {
		i := s.rnd.IntN(len(s.rows) - 1) // what is put in behind the checkpoint adds to the log
		leaves := slices.Insert(slices.Clone(s.leaves), i, s.leaves[s.rnd.IntN(len(s.leaves))])
		s.rewrite(renumber(leaves))
		return 0
	},
	"an entry is there twice": func(s *scene) int {
		i := s.rnd.IntN(len(s.rows))
		s.rewrite(slices.Insert(slices.Clone(s.leaves), i, s.leaves[i]))
		return i + 2
	},
	"a row of another log is put in its place": func(s *scene) int {
		i := s.rnd.IntN(len(s.rows))
		s.put(i, s.other[i].Value)
		return 0 // it fits into its place; the next or the checkpoint tells
	},
	"another log is put in its place": func(s *scene) int {
		var leaves [][]byte
		for _, r := range s.other {
			_, leaf, _ := unpack(r.Value)
			leaves = append(leaves, leaf)
		}
		s.rewrite(leaves)
		return 0
	},
	"rows are cut off": func(s *scene) int {
		keep := s.rnd.IntN(len(s.rows))
		for _, r := range s.rows[keep:] {
			if err := s.tx.Delete(table, r.Key); err != nil {
				s.Fatal(err)
			}
		}
		return keep
	},
	"the log is as it was before": func(s *scene) int {
		s.rewrite(s.leaves[:s.rnd.IntN(len(s.leaves))])
		return 0
	},
	"the log is as it was before and went on otherwise": func(s *scene) int {
		keep := s.rnd.IntN(len(s.leaves))
		leaves := slices.Clone(s.leaves[:keep])
		for len(leaves) < len(s.leaves)+s.rnd.IntN(3) {
			leaves = append(leaves, as(s.leaves[0], len(leaves)+1))
		}
		if keep == 0 {
			leaves[0] = as(s.leaves[1], 1)
		}
		s.rewrite(leaves)
		return 0
	},
	"entries at the beginning are made to look pruned": func(s *scene) int {
		for i, r := range s.rows[:1+s.rnd.IntN(len(s.rows))] {
			s.put(i, r.Value[:len(r.Value)-len(s.leaves[i])])
		}
		return -1
	},
	"an entry is made to look pruned": func(s *scene) int {
		i := 1 + s.rnd.IntN(len(s.rows)-1)
		s.put(i, s.rows[i].Value[:len(s.rows[i].Value)-len(s.leaves[i])])
		return i + 1
	},
}

var errUndo = errors.New("undo it")

// tamperWith tries n tampers and lists those of which verify says nothing, or
// not where they are. None stays.
func tamperWith(t *testing.T, n int, verify func(tx *store.Tx, kept []Checkpoint) error) (missed map[string]int) {
	l, db := newLog(t, tamperLog)
	_, otherDB := newLog(t, tamperLog)
	kept := checkpointOf(t, l)
	seed := uint64(time.Now().UnixNano())
	s := &scene{T: t, rnd: rand.New(rand.NewPCG(seed, 1)), rows: rowsOf(t, db), other: rowsOf(t, otherDB)}
	for _, r := range s.rows {
		_, leaf, err := unpack(r.Value)
		if err != nil {
			t.Fatal(err)
		}
		s.leaves = append(s.leaves, leaf)
	}
	names := make([]string, 0, len(tampers))
	for name := range tampers {
		names = append(names, name)
	}
	slices.Sort(names)
	missed = map[string]int{}
	for i := range n {
		name := names[i%len(names)]
		err := db.Do(t.Context(), func(tx *store.Tx) error {
			s.tx = tx
			at := tampers[name](s)
			err := verify(tx, []Checkpoint{kept})
			if err == nil || at > 0 && !says(err, at) {
				missed[name]++
			}
			return errUndo
		})
		if !errors.Is(err, errUndo) {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
	if len(missed) > 0 {
		t.Logf("seed %d", seed)
	}
	if n, err := l.Verify(t.Context(), kept); n != tamperLog || err != nil {
		t.Fatalf("after all was undone, Verify = %d, %v", n, err)
	}
	return missed
}

// says reports whether the error names the entry.
func says(err error, at int) bool {
	return slices.Contains(strings.FieldsFunc(err.Error(), func(r rune) bool { return r < '0' || r > '9' }), strconv.Itoa(at))
}

func rowsOf(t testing.TB, db *store.DB) (rows []store.Row) {
	t.Helper()
	err := db.View(context.Background(), func(tx *store.Tx) (err error) { rows, err = tx.Scan(table, "", "", 0); return err })
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func checkpointOf(t testing.TB, l *Log) Checkpoint {
	t.Helper()
	signed, err := l.Checkpoint(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	key, err := l.Key(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	c, err := ParseCheckpoint(signed, key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Whatever somebody does to the rows who has the store's key, it is found
// against a checkpoint that was kept elsewhere, and where it is where that can
// be said (AUD-04).
func TestTampersAreFound(t *testing.T) {
	n := tamperings
	if more, err := strconv.Atoi(os.Getenv("CASTELLAN_TAMPERS")); err == nil {
		n = more
	}
	missed := tamperWith(t, n, func(tx *store.Tx, kept []Checkpoint) error { _, err := verify(tx, kept); return err })
	if len(missed) > 0 {
		t.Errorf("of %d tampers were missed: %v", n, missed)
	}
	// The same test finds a verifier that is good for nothing.
	if missed := tamperWith(t, len(tampers), func(*store.Tx, []Checkpoint) error { return nil }); len(missed) != len(tampers) {
		t.Errorf("a verifier that says yes always passes for %d kinds of tampers", len(tampers)-len(missed))
	}
}

// A data folder that was put back as it was a while ago is in itself whole: the
// checkpoint that was kept elsewhere tells.
func TestRollbackOfTheFolder(t *testing.T) {
	dir, key := t.TempDir(), seal.Random()
	open := func() (*Log, func()) {
		db, err := store.Open(dir, key)
		if err != nil {
			t.Fatal(err)
		}
		l := New(db, time.Now)
		return l, func() {
			if err := errors.Join(l.Close(), db.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	l, done := open()
	fill(t, l, 20)
	early := checkpointOf(t, l)
	done()
	old, err := os.ReadFile(filepath.Join(dir, "castellan.db"))
	if err != nil {
		t.Fatal(err)
	}
	l, done = open()
	fill(t, l, 5)
	kept := checkpointOf(t, l)
	signed, err := l.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Holds(t.Context(), signed); err != nil {
		t.Error(err)
	}
	if n, err := l.Verify(t.Context(), early, kept); n != 25 || err != nil {
		t.Errorf("Verify = %d, %v; want 25, nil", n, err)
	}
	done()
	if err := os.WriteFile(filepath.Join(dir, "castellan.db"), old, 0o600); err != nil {
		t.Fatal(err)
	}
	l, done = open()
	defer done()
	if n, err := l.Verify(t.Context(), early); n != 20 || err != nil {
		t.Errorf("Verify = %d, %v; want 20, nil", n, err)
	}
	if _, err := l.Verify(t.Context(), kept); err == nil || !strings.Contains(err.Error(), "checkpoint of 25") {
		t.Errorf("after the rollback, Verify says %v", err)
	}
	if err := l.Holds(t.Context(), signed); err == nil || !strings.Contains(err.Error(), "checkpoint of 25") {
		t.Errorf("after the rollback, Holds says %v", err)
	}
	fill(t, l, 5) // as many as there were, of later times
	if _, err := l.Verify(t.Context(), early, kept); err == nil || !strings.Contains(err.Error(), "the first 25 entries") {
		t.Errorf("after the rollback and five more entries, Verify says %v", err)
	}
	if err := l.Holds(t.Context(), signed); err == nil || !strings.Contains(err.Error(), "the first 25 entries") {
		t.Errorf("after the rollback and five more entries, Holds says %v", err)
	}
}

// An export says what the log says, signed; what is altered in it is found, and
// that an old one was given for a new one by a checkpoint that was kept.
func TestExport(t *testing.T) {
	l, _ := newLog(t, 20)
	export := func() []byte {
		var b bytes.Buffer
		if err := l.Export(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	old := export()
	fill(t, l, 5)
	whole := export()
	kept, err := l.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	key, err := l.Key(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if c, by, err := VerifyExport(bytes.NewReader(whole), key, kept); err != nil || c.N != 25 || by != key {
		t.Fatalf("VerifyExport = %v, %s, %v", c, by, err)
	}
	if _, _, err := VerifyExport(bytes.NewReader(old), key); err != nil {
		t.Error(err)
	}
	if _, _, err := VerifyExport(bytes.NewReader(old), key, kept); err == nil || !strings.Contains(err.Error(), "checkpoint of 25") {
		t.Errorf("an old export: %v", err)
	}
	other, _ := newLog(t, 25)
	foreign, err := other.Key(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := VerifyExport(bytes.NewReader(whole), foreign); err == nil {
		t.Error("it is good for the key of another log")
	}
	rnd := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	for range 2000 {
		lines := bytes.SplitAfter(bytes.TrimSuffix(whole, []byte("\n")), []byte("\n"))
		i, j := 1+rnd.IntN(len(lines)-1), 1+rnd.IntN(len(lines)-2)
		what := rnd.IntN(6)
		switch what {
		case 0:
			at := rnd.IntN(len(lines[i]) - 1)
			lines[i] = slices.Clone(lines[i])
			lines[i][at] ^= byte(1 + rnd.IntN(255))
		case 1:
			lines = slices.Delete(lines, i, i+1)
		case 2:
			lines[j], lines[j+1] = lines[j+1], lines[j]
		case 3:
			lines = slices.Insert(lines, i, lines[j])
		case 4:
			lines = lines[:i]
		case 5:
			lines[i] = append(slices.Clone(lines[i][:len(lineHash)+44]), lineGone+"\n"...)
		}
		if _, _, err := VerifyExport(bytes.NewReader(bytes.Join(lines, nil)), key); err == nil {
			t.Fatalf("tamper %d at %d, %d is not found", what, i, j)
		}
	}
}

// The proofs are such as golang.org/x/mod checks them, for each entry and each
// size, and prove nothing else.
func TestProofs(t *testing.T) {
	now := time.Now()
	l, db := newLog(t, 0)
	l.now = func() time.Time { return now }
	key, err := l.Key(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var kept []Checkpoint
	for range 9 {
		kept = append(kept, checkpointOf(t, l))
		fill(t, l, 1)
	}
	rows := rowsOf(t, db)
	for i := range int64(9) {
		proof, err := l.Inclusion(t.Context(), i)
		if err != nil {
			t.Fatal(err)
		}
		head, signed, _ := strings.Cut(string(proof), "\n\n")
		c, err := ParseCheckpoint([]byte(signed), key)
		if err != nil || c.N != 9 {
			t.Fatalf("the proof's checkpoint is %v, %v", c, err)
		}
		var p tlog.RecordProof
		for _, line := range strings.Split(head, "\n")[2:] {
			h, err := tlog.ParseHash(line)
			if err != nil {
				t.Fatal(err)
			}
			p = append(p, h)
		}
		for j, r := range rows {
			_, leaf, _ := unpack(r.Value)
			if err := tlog.CheckRecord(p, c.N, c.Hash, i, tlog.RecordHash(leaf)); (err == nil) != (int64(j) == i) {
				t.Errorf("the proof of %d for entry %d: %v", i, j, err)
			}
		}
	}
	fill(t, l, 1)
	for _, want := range []int64{9, 10} {
		for _, k := range kept {
			proof, err := l.Growth(t.Context(), k.N)
			if err != nil {
				t.Fatal(err)
			}
			if c, err := CheckGrowth(k, proof, key); err != nil || c.N != want {
				t.Errorf("from %d: %v, %v", k.N, c, err)
			}
			other := k
			other.Hash[3]++
			if _, err := CheckGrowth(other, proof, key); k.N > 0 && err == nil {
				t.Errorf("from another log of %d entries: it is taken", k.N)
			}
		}
		now = now.Add(publishEvery) // then strangers learn more
	}
	for _, bad := range []int64{-1, 10, 11, 1 << 62} {
		if _, err := l.Inclusion(t.Context(), bad); err == nil {
			t.Errorf("there is a proof of entry %d", bad)
		}
		if _, err := l.Growth(t.Context(), bad); bad != 10 && err == nil {
			t.Errorf("there is a proof from %d", bad)
		}
	}
}

// What is pruned says nothing any more, and all that is left is proved as before:
// against old checkpoints, by proofs and in exports. More than was told to be
// pruned is a tamper.
func TestPruning(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	_, db := newLog(t, 0)
	l := New(db, func() time.Time { return now })
	defer l.Close()
	const n = pruneSize + 50
	fill(t, l, n)
	kept := checkpointOf(t, l)
	now = now.Add(time.Hour)
	fill(t, l, 5)
	for _, want := range []int{n, 0} {
		if got, err := l.Prune(t.Context(), now, Entry{Caller: "system:audit"}); got != want || err != nil {
			t.Fatalf("Prune = %d, %v; want %d, nil", got, err, want)
		}
	}
	rows := rowsOf(t, db)
	for i, r := range rows {
		_, leaf, err := unpack(r.Value)
		if err != nil || (len(leaf) == 0) != (i < n) {
			t.Fatalf("entry %d: %d bytes, %v", i+1, len(leaf), err)
		}
	}
	const all = n + 5 + 2 // and two that tell of the pruning
	if got, err := l.Verify(t.Context(), kept); got != all || err != nil {
		t.Errorf("Verify = %d, %v; want %d, nil", got, err, all)
	}
	if tail, err := l.Tail(t.Context(), all); err != nil || len(tail) != 7 || tail[6].Detail != fmt.Sprintf(`{"pruned":%d}`, n) {
		t.Errorf("Tail = %d entries, %v", len(tail), err)
	}
	signed, err := l.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Holds(t.Context(), signed); err != nil {
		t.Error(err)
	}
	var b bytes.Buffer
	if err := l.Export(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	if _, _, err := VerifyExport(bytes.NewReader(b.Bytes()), "", signed); err != nil {
		t.Error(err)
	}
	for i := int64(0); i < all; i += 97 {
		if _, err := l.Inclusion(t.Context(), i); err != nil {
			t.Error(err)
		}
	}
	for name, at := range map[string]int{"one more": n, "all": all - 1} {
		err := db.Do(t.Context(), func(tx *store.Tx) error {
			for _, r := range rows[n : at+1] {
				made, _, _ := unpack(r.Value)
				list, _ := hashes(made)
				if err := tx.Put(table, r.Key, pack(list, nil)); err != nil {
					return err
				}
			}
			if _, err := verify(tx, nil); err == nil || !strings.Contains(err.Error(), "hashes alone") {
				t.Errorf("%s: verify says %v", name, err)
			}
			return errUndo
		})
		if !errors.Is(err, errUndo) {
			t.Fatal(err)
		}
	}
}

// The tree that grows entry by entry, its root and the hashes it leaves are
// those of RFC 6962, as golang.org/x/mod makes them.
func TestTreeIsRFC6962(t *testing.T) {
	var grown tree
	var stored []tlog.Hash
	r := tlog.HashReaderFunc(func(indexes []int64) (out []tlog.Hash, _ error) {
		for _, i := range indexes {
			out = append(out, stored[i])
		}
		return out, nil
	})
	for n := range int64(200) {
		root, err := tlog.TreeHash(n, r)
		if err != nil || root != grown.root() {
			t.Fatalf("the root of %d leaves is %s, want %s (%v)", n, grown.root(), root, err)
		}
		leaf := fmt.Appendf(nil, "leaf %d", n)
		want, err := tlog.StoredHashes(n, leaf, r)
		if made := grown.add(tlog.RecordHash(leaf)); err != nil || !slices.Equal(made, want) {
			t.Fatalf("leaf %d makes %v, want %v (%v)", n, made, want, err)
		}
		stored = append(stored, want...)
	}
}

// A log that was a chain becomes a tree with the same entries, in steps that may
// be cut off; a chain that is broken does not.
func TestChainsBecomeTrees(t *testing.T) {
	const n = 2*carrySize + 7
	list := chain(n)
	db := chained(t, list)
	if err := db.Do(t.Context(), func(tx *store.Tx) error {
		more, err := carry(tx) // and then the program is killed
		if !more {
			t.Error("all is carried at once")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	l := New(db, time.Now)
	defer l.Close()
	fill(t, l, 3)
	if got, err := l.Verify(t.Context()); got != n+3 || err != nil {
		t.Fatalf("Verify = %d, %v; want %d, nil", got, err, n+3)
	}
	for i, r := range rowsOf(t, db)[:n] {
		if _, leaf, err := unpack(r.Value); err != nil || !bytes.Equal(leaf, list[i]) {
			t.Fatalf("entry %d is %s, want %s (%v)", i+1, leaf, list[i], err)
		}
	}
	last, err := l.Tail(t.Context(), 4)
	if err != nil || len(last) != 4 || last[0].Seq != n || last[0].Caller != "u" || last[3].Seq != n+3 {
		t.Errorf("Tail = %v, %v", last, err)
	}
	for name, tamper := range map[string]func([][]byte) [][]byte{
		"edited":  func(l [][]byte) [][]byte { l[6] = bytes.Replace(l[6], []byte(`"u"`), []byte(`"v"`), 1); return l },
		"moved":   func(l [][]byte) [][]byte { l[6], l[7] = l[7], l[6]; return l },
		"missing": func(l [][]byte) [][]byte { return slices.Delete(l, 6, 7) },
	} {
		l := New(chained(t, tamper(chain(20))), time.Now)
		if err := l.Err(); err == nil || !strings.Contains(err.Error(), "broken at 7") {
			t.Errorf("%s: the log opens: %v", name, err)
		}
		if l.Record(t.Context(), Entry{}) == nil {
			t.Errorf("%s: it is gone on with", name)
		}
		_ = l.Close() // it is broken
	}
}

// chain is n entries as they were written before logs were trees.
func chain(n int) (list [][]byte) {
	type old struct {
		Entry
		Prev string `json:"prev"`
		Hash string `json:"hash"`
	}
	prev := ""
	for i := range n {
		e := old{Entry{Seq: uint64(i + 1), Time: time.Unix(int64(i), 0).UTC(), Caller: "u", Action: "a", Target: "/x", Decision: "allowed"}, prev, ""}
		b, _ := json.Marshal(e)
		sum := sha256.Sum256(b)
		e.Hash = hex.EncodeToString(sum[:])
		b, _ = json.Marshal(e)
		list, prev = append(list, b), e.Hash
	}
	return list
}

// chained is a store with the entries of a chain.
func chained(t *testing.T, list [][]byte) *store.DB {
	t.Helper()
	db, err := store.Open(t.TempDir(), seal.Random())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	err = db.Do(t.Context(), func(tx *store.Tx) error {
		for i, b := range list {
			if err := tx.Put(table, key(uint64(i+1)), b); err != nil {
				return err
			}
		}
		var last struct{ Hash string }
		if err := json.Unmarshal(list[len(list)-1], &last); err != nil {
			return err
		}
		return store.PutJSON(tx, heads, "head", map[string]any{"Seq": len(list), "Hash": last.Hash})
	})
	if err != nil {
		t.Fatal(err)
	}
	return db
}
