package seal_test

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"castellan/internal/seal"
)

// Of many that make a root key at once, one does; the others see that it is
// there, and nobody ever reads half of it.
func TestRootKeyIsMadeOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "root-key")
	var wg sync.WaitGroup
	sealed := make(chan []byte, 16)
	for range cap(sealed) {
		wg.Go(func() {
			if k, err := seal.FromFile(path, true); err == nil {
				sealed <- k.Seal([]byte("words"), "here")
			} else if k, err = seal.FromFile(path, false); err == nil {
				sealed <- k.Seal([]byte("words"), "here")
			} else {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	close(sealed)
	k, err := seal.FromFile(path, false)
	if err != nil {
		t.Fatal(err)
	}
	for s := range sealed {
		if got, err := k.Open(s, "here"); err != nil || !bytes.Equal(got, []byte("words")) {
			t.Errorf("two keys were made: %v", err)
		}
	}
	files, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(files) != 1 {
		t.Errorf("the folder has %v (%v)", files, err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the root key has the mode %v (%v)", st.Mode(), err)
	}
}

// A root key that others can read, or that is no key, is refused.
func TestBadRootKeys(t *testing.T) {
	dir := t.TempDir()
	for name, f := range map[string]struct {
		text string
		mode os.FileMode
	}{"empty": {"", 0o600}, "short": {"YWJj", 0o600}, "no base64": {"!!!", 0o600}, "open": {"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", 0o644}} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(f.text), f.mode); err != nil {
			t.Fatal(err)
		}
		if _, err := seal.FromFile(path, true); err == nil {
			t.Errorf("the root key %q was taken", name)
		}
	}
}
