package app

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"castellan/internal/backup"
)

// kept is a platform with an account, a vault, and who uses both.
type kept struct {
	*guarded
	cfg    Config
	folder *backup.Folder
	dir    string
}

func newKept(t *testing.T) *kept {
	k := &kept{guarded: newGuarded(t)}
	k.cfg, k.dir = k.a.Config, t.TempDir()+"/backups"
	k.cfg.RootKey = k.cfg.keyFile()
	if code, body := k.blob(http.MethodPut, "?restype=container", nil); code != http.StatusCreated {
		t.Fatalf("a container = %d %s", code, body)
	}
	var err error
	if k.folder, err = BackupFolder(t.Context(), k.cfg, k.dir); err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *kept) make() backup.Point {
	k.Helper()
	p, err := k.folder.Make(k.Context(), k.cfg.Data)
	if err != nil {
		k.Fatal(err)
	}
	return p
}

// restored is a platform on what a point had.
func (k *kept) restored(t *testing.T, p backup.Point) *guarded {
	t.Helper()
	cfg := k.cfg
	cfg.Data = t.TempDir() + "/restored"
	if err := Restore(t.Context(), cfg, k.folder, p); err != nil {
		t.Fatal(err)
	}
	a, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	g := *k.guarded
	g.policed = &policed{T: t, a: a, token: k.token, sub: k.sub, group: k.group}
	return &g
}

// A backup that is made while blobs come and go is of one moment: each blob that
// it names is in it, whole, and so it is after each later backup.
func TestBackupsAreOfOneMoment(t *testing.T) {
	t.Parallel()
	k := newKept(t)
	big := func(i int) []byte { return bytes.Repeat([]byte(fmt.Sprintf("%08d", i)), 20<<10) }
	if code, body := k.blob(http.MethodPut, "/first", big(0)); code != http.StatusCreated {
		t.Fatalf("a blob = %d %s", code, body)
	}
	first := k.make()
	ctx, stop := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() {
		for i := 1; ctx.Err() == nil; i++ {
			if code, body := k.blob(http.MethodPut, fmt.Sprint("/n", i%7), big(i)); code != http.StatusCreated {
				t.Errorf("a blob meanwhile = %d %s", code, body)
			}
			if i%3 == 0 {
				k.blob(http.MethodDelete, fmt.Sprint("/n", (i+3)%7), nil)
			}
		}
	})
	var made []backup.Point
	for range 4 {
		made = append(made, k.make())
	}
	stop()
	work.Wait()
	if code, _ := k.blob(http.MethodDelete, "/first", nil); code != http.StatusAccepted {
		t.Error("the first blob stays")
	}
	for _, p := range append([]backup.Point{first}, made...) {
		if err := k.folder.Check(t.Context(), p); err != nil {
			t.Error(err)
		}
		r := k.restored(t, p)
		r.same(t, "/first", big(0))
		code, list := r.blob(http.MethodGet, "?restype=container&comp=list", nil)
		if code != http.StatusOK {
			t.Fatalf("the list of what was restored = %d", code)
		}
		for _, part := range strings.Split(list, "<Name>")[1:] {
			name, _, _ := strings.Cut(part, "</Name>")
			if code, body := r.blob(http.MethodGet, "/"+name, nil); code != http.StatusOK || len(body) != len(big(0)) || strings.Count(body, body[:8]) != len(body)/8 {
				t.Errorf("%s of %s = %d with %d bytes", name, p.Name, code, len(body))
			}
		}
		if _, err := r.a.Audit.Verify(t.Context()); err != nil {
			t.Errorf("the restored log: %v", err)
		}
	}
	if at, err := k.folder.At(made[1].At); err != nil || at.Name != made[1].Name {
		t.Errorf("the backup of %s is %v, %v", made[1].At, at, err)
	}
	if at, err := k.folder.At(made[1].At.Add(-time.Nanosecond)); err != nil || at.Name != made[0].Name {
		t.Errorf("the backup of before is %v, %v", at, err)
	}
	if _, err := k.folder.At(first.At.Add(-time.Second)); err == nil {
		t.Error("there is a backup from before the first")
	}

	// What is over goes, and what stays is whole.
	if n, err := k.folder.Keep(2); err != nil || n != 3 {
		t.Fatalf("kept two of five: %d are gone, %v", n, err)
	}
	for _, p := range made[2:] {
		if err := k.folder.Check(t.Context(), p); err != nil {
			t.Error(err)
		}
	}
	if err := Restore(t.Context(), k.cfg, k.folder, made[3]); err == nil || !strings.Contains(err.Error(), "there already") {
		t.Errorf("a restore over what is there = %v", err)
	}
}

// Whatever is altered, cut or taken away in a backup is noticed, and then nothing
// is restored; another root key opens nothing.
func TestBackupsShowTampering(t *testing.T) {
	t.Parallel()
	k := newKept(t)
	if code, body := k.blob(http.MethodPut, "/b", bytes.Repeat([]byte("tamper"), 50<<10)); code != http.StatusCreated {
		t.Fatalf("a blob = %d %s", code, body)
	}
	p := k.make()
	var files []string
	if err := filepath.WalkDir(k.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	}); err != nil || len(files) < 3 {
		t.Fatalf("the folder has %v (%v)", files, err)
	}
	cfg := k.cfg
	cfg.Data = t.TempDir() + "/never"
	for _, path := range files {
		was, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		flipped := bytes.Clone(was)
		flipped[len(flipped)/2] ^= 1
		for how, now := range map[string][]byte{"altered": flipped, "cut": was[:len(was)-1], "longer": append(bytes.Clone(was), 0), "gone": nil} {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if now != nil {
				if err := os.WriteFile(path, now, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if k.folder.Check(t.Context(), p) == nil || Restore(t.Context(), cfg, k.folder, p) == nil {
				t.Errorf("%s was %s, and nobody noticed", path, how)
			}
			if _, err := os.Lstat(cfg.Data); err == nil {
				t.Fatalf("%s was %s, and was restored", path, how)
			}
			if err := os.WriteFile(path, was, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := k.folder.Check(t.Context(), p); err != nil {
		t.Errorf("put back: %v", err)
	}
	other := k.cfg
	other.RootKey = newGuarded(t).a.keyFile()
	f, err := RestoreFolder(t.Context(), other, k.dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.At(time.Time{}); err == nil {
		t.Error("another root key opens the backup")
	}
	// A backup that was cut off leaves nothing that the next one trips over.
	if err := os.MkdirAll(filepath.Join(k.dir, "points", ".next"), 0o700); err != nil {
		t.Fatal(err)
	}
	k.make()
}

// A customer who takes their key away takes it from later backups too. One that was
// made before has the vault as it was, and so the key.
func TestBackupsAreGuardedByCustomersKeys(t *testing.T) {
	t.Parallel()
	k := newKept(t)
	k.letIn()
	if code, body := k.guard(nil); code != http.StatusOK {
		t.Fatalf("the key is refused: %d %s", code, body)
	}
	if code, body := k.blob(http.MethodPut, "/b", []byte("guarded")); code != http.StatusCreated {
		t.Fatalf("a blob = %d %s", code, body)
	}
	before := k.make()
	k.key(http.StatusOK, http.MethodPatch, "k", map[string]any{"attributes": map[string]any{"enabled": false}})
	r := k.restored(t, k.make())
	if code, _ := r.blob(http.MethodGet, "/b", nil); code != http.StatusForbidden {
		t.Errorf("without the key a restored blob is read: %d", code)
	}
	r.key(http.StatusOK, http.MethodPatch, "k", map[string]any{"attributes": map[string]any{"enabled": true}})
	r.past()
	r.same(t, "/b", []byte("guarded"))
	k.restored(t, before).same(t, "/b", []byte("guarded"))
}
