package store

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"castellan/internal/seal"
)

type nonce [12]byte

// twice is a nonce that is there more than once.
func twice(all []nonce) (n nonce, found bool) {
	slices.SortFunc(all, func(a, b nonce) int { return bytes.Compare(a[:], b[:]) })
	for i := range all[1:] {
		if all[i] == all[i+1] {
			return all[i], true
		}
	}
	return n, false
}

// No key seals two values with one nonce: not over a million values, not over starts
// that never ended in order, and not when an old copy of the folder is put back and
// written on (KV-08). No counter is kept that could be turned back.
func TestNoNonceIsUsedTwice(t *testing.T) {
	k := seal.Random()
	again, err := seal.NewKey(k.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	all := make([]nonce, 0, 1_000_000)
	for range cap(all) / 2 {
		all = append(all, nonce(k.Seal(nil, "x")[:12]), nonce(again.Seal(nil, "x")[:12]))
	}
	if n, found := twice(all); found {
		t.Errorf("the nonce %x was used twice", n)
	}
	if _, found := twice(append(all, all[7])); !found {
		t.Error("a nonce that was used twice is not found")
	}

	all = all[:0]
	dir, old := t.TempDir(), ""
	for start := range 20 {
		db := open(t, dir, k)
		for range 5 {
			if err := db.Do(t.Context(), func(tx *Tx) error {
				for i := range 100 { // the same rows, again and again
					key := fmt.Sprint("row", i)
					if err := tx.Put("t", key, []byte("the same value")); err != nil {
						return err
					}
					sealed, err := tx.Sealed("t", key)
					if err != nil {
						return err
					}
					all = append(all, nonce(sealed[:12]))
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		// The power goes: what is on disk now goes on, or at every fifth time what was
		// there long ago.
		next := cut(t, dir)
		if start == 0 {
			old = cut(t, dir)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if dir = next; start%5 == 4 {
			dir = cut(t, old)
		}
	}
	if n, found := twice(all); found || len(all) != 20*500 {
		t.Errorf("of %d nonces %x was used twice: %v", len(all), n, found)
	}
}

// cut is a copy of a folder as it lies on disk.
func cut(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, d.Name()), b, 0o600)
	}); err != nil {
		t.Fatal(err)
	}
	return to
}
