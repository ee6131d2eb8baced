package store

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"castellan/internal/seal"
)

func open(t *testing.T, dir string, k seal.Key) *DB {
	t.Helper()
	db, err := Open(dir, k)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// What Do acknowledged is there after a reopen; what failed is not; nothing
// lies on disk in the clear; another key opens nothing.
func TestDurableAndSealed(t *testing.T) {
	dir, k, ctx := t.TempDir(), seal.Random(), context.Background()
	db := open(t, dir, k)
	canary := []byte("canary-7f3a-value")
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			err := db.Do(ctx, func(tx *Tx) error {
				if err := tx.Put("t", "canary-key-"+string(rune('a'+i)), canary); err != nil {
					return err
				}
				if i%2 == 1 {
					return errors.New("no")
				}
				return nil
			})
			if (err != nil) != (i%2 == 1) {
				t.Errorf("write %d: %v", i, err)
			}
		}()
	}
	wg.Wait()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil || bytes.Contains(b, []byte("canary")) {
			t.Errorf("%s: canary in the clear, or %v", filepath.Base(f), err)
		}
	}
	db = open(t, dir, k)
	err := db.View(ctx, func(tx *Tx) error {
		rows, err := tx.Scan("t", "canary-", "", 0)
		if len(rows) != 25 {
			t.Errorf("%d rows, want 25", len(rows))
		}
		if tx.Put("t", "x", nil) == nil {
			t.Error("a View writes")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	db.Close()
	if other, err := Open(dir, seal.Random()); err == nil {
		other.Close()
		t.Error("another key opens the store")
	}
}

// A value moved to another key does not open.
func TestMovedValueIsRefused(t *testing.T) {
	ctx := context.Background()
	db := open(t, t.TempDir(), seal.Random())
	defer db.Close()
	if err := db.Do(ctx, func(tx *Tx) error { return tx.Put("t", "a", []byte("x")) }); err != nil {
		t.Fatal(err)
	}
	if err := db.Do(ctx, func(tx *Tx) error {
		_, err := tx.tx.Exec("UPDATE kv SET k='b'")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	err := db.View(ctx, func(tx *Tx) error { _, err := tx.Get("t", "b"); return err })
	if !errors.Is(err, seal.ErrSealed) {
		t.Errorf("Get = %v, want ErrSealed", err)
	}
}

// What the store writes is for its owner alone (OPS-01).
func TestFilesAreForTheOwnerAlone(t *testing.T) {
	dir := t.TempDir()
	db, err := Open(dir, seal.Random())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Do(t.Context(), func(tx *Tx) error { return tx.Put("t", "k", []byte("v")) }); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) < 2 {
		t.Fatalf("files %v, %v", files, err)
	}
	for _, f := range files {
		st, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %o", f.Name(), st.Mode().Perm())
		}
	}
}
