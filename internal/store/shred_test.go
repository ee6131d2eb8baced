package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"castellan/internal/seal"

	"github.com/ncruces/go-sqlite3/vfs"
	"lukechampine.com/adiantum"
)

// onDisk reports whether the pages of a store's files, opened with its root key,
// have the bytes anywhere.
func onDisk(t *testing.T, dir string, root seal.Key, what []byte) bool {
	t.Helper()
	c := adiantum.New(root.Derive("pages").Bytes())
	files, err := filepath.Glob(filepath.Join(dir, FileName+"*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var plain []byte
		for at := 0; at+4096 <= len(b); at += 4096 {
			tweak := binary.LittleEndian.AppendUint64(nil, uint64(at))
			plain = append(plain, c.Decrypt(slices.Clone(b[at:at+4096]), tweak)...)
		}
		if bytes.Contains(plain, what) {
			return true
		}
	}
	return false
}

// What was deleted is in no page of the store any more once it was shredded, also
// not for who has the root key; what was not is there.
func TestShred(t *testing.T) {
	dir, root, ctx := t.TempDir(), seal.Random(), context.Background()
	db := open(t, dir, root)
	defer db.Close()
	put := func(key string) []byte {
		if err := db.Do(ctx, func(tx *Tx) error { return tx.Put("t", key, bytes.Repeat([]byte{7}, 60)) }); err != nil {
			t.Fatal(err)
		}
		var v []byte
		if err := db.View(ctx, func(tx *Tx) error { return tx.tx.QueryRow("SELECT v FROM kv WHERE k=?", key).Scan(&v) }); err != nil {
			t.Fatal(err)
		}
		return v
	}
	stays, goes, large := put("stays"), put("goes"), put("large")
	if err := db.Shred(ctx); err != nil {
		t.Fatal(err)
	}
	for _, v := range [][]byte{stays, goes, large} {
		if !onDisk(t, dir, root, v) {
			t.Fatal("a row is not found on disk; this test can't tell")
		}
	}
	again := put("goes") // written over, as by a rotation
	if err := db.Do(ctx, func(tx *Tx) error { return errors.Join(tx.Delete("t", "goes"), tx.Delete("t", "large")) }); err != nil {
		t.Fatal(err)
	}
	if !onDisk(t, dir, root, goes) {
		t.Error("what was deleted is gone before it was shredded; this test can't tell")
	}
	held, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		_ = db.View(ctx, func(tx *Tx) error {
			_, err := tx.Get("t", "stays")
			held <- struct{}{}
			<-held
			return err
		})
	}()
	<-held
	put("more")
	if err := db.Shred(ctx); !errors.Is(err, ErrReading) {
		t.Errorf("while a snapshot is read: %v", err)
	}
	held <- struct{}{}
	<-done
	if err := db.Shred(ctx); err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string][]byte{"deleted": goes, "written over": again, "deleted besides": large} {
		if onDisk(t, dir, root, v) {
			t.Errorf("what was %s is on disk still", name)
		}
	}
	if !onDisk(t, dir, root, stays) {
		t.Error("what was not deleted is gone")
	}
}

// spy is a file that remembers what it was when it was cut.
type spy struct {
	vfs.File
	b      []byte
	synced []byte
	cut    []byte
}

func (s *spy) Size() (int64, error) { return int64(len(s.b)), nil }
func (s *spy) WriteAt(p []byte, off int64) (int, error) {
	return copy(s.b[off:], p), nil
}
func (s *spy) Sync(vfs.SyncFlag) error { s.synced = bytes.Clone(s.b); return nil }
func (s *spy) Truncate(n int64) error  { s.cut, s.b = s.b, s.b[:n]; return nil }

// The log is zeros, on disk, before its blocks go back to the file system.
func TestTheLogIsOverwrittenBeforeItIsCut(t *testing.T) {
	s := &spy{b: bytes.Repeat([]byte{9}, 200<<10)}
	if err := (overwritten{s}).Truncate(10); err != nil {
		t.Fatal(err)
	}
	if zeros := make([]byte, 200<<10-10); !bytes.Equal(s.synced[10:], zeros) || s.synced[9] != 9 || len(s.b) != 10 {
		t.Error("the log was cut as it was")
	}
	dir := t.TempDir()
	name := filepath.Join(dir, "x-wal")
	if err := os.WriteFile(name, s.cut, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name) // which sees what is in the blocks, also without a name
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := (shredding{vfs.Find("")}).Delete(name, false); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 10)
	if _, err := f.ReadAt(b, 0); err != nil || !bytes.Equal(b, make([]byte, 10)) {
		t.Errorf("a log that was removed is %v still, %v", b, err)
	}
}
