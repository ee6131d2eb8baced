package compute

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// What a crash left is wiped, also what a command shut, and links are not
// followed; a folder that is not Castellan's is never touched.
func TestScratchIsWiped(t *testing.T) {
	dir, kept := filepath.Join(t.TempDir(), "scratch"), filepath.Join(t.TempDir(), "kept")
	if err := os.WriteFile(kept, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(context.Background(), Config{Dir: filepath.Dir(kept)}); err == nil {
		t.Error("a foreign folder was taken")
	}
	if _, err := New(context.Background(), Config{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "old/shut/deep"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(kept), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "old/shut"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := New(context.Background(), Config{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != marker {
		t.Errorf("left: %v, %v", left, err)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Error(err)
	}
}
