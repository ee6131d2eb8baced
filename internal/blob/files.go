package blob

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"castellan/internal/seal"
	"castellan/internal/store"
)

// files is a folder of files by id, in 256 folders.
type files struct {
	dir string

	mu     sync.Mutex      // guards all below
	fresh  map[string]bool // being written; no row names them yet
	held   map[string]int  // being read, by how many
	doomed map[string]bool // to be removed: now, or once nobody reads them
}

func openFiles(dir string) (*files, error) {
	for i := range 256 {
		if err := os.MkdirAll(filepath.Join(dir, fmt.Sprintf("%02x", i)), 0o700); err != nil {
			return nil, fmt.Errorf("making the folder of blobs: %w", err)
		}
	}
	if err := seal.SyncDir(dir); err != nil {
		return nil, fmt.Errorf("making the folder of blobs: %w", err)
	}
	return &files{dir: dir, fresh: map[string]bool{}, held: map[string]int{}, doomed: map[string]bool{}}, nil
}

func (f *files) path(id string) string { return FilePath(f.dir, id) }

// FilePath is where a file lies in the folder of files.
func FilePath(dir, id string) string { return filepath.Join(dir, id[:2], id) }

// Files are the ids of all files that rows name.
func Files(tx *store.Tx) (ids []string, err error) {
	rows, err := tx.Scan(fileTable, "", "", 0)
	for _, r := range rows {
		ids = append(ids, r.Key)
	}
	return ids, err
}

// create makes a file that the sweep leaves alone until settled is called.
func (f *files) create(id string) (*os.File, error) {
	f.mu.Lock()
	f.fresh[id] = true
	f.mu.Unlock()
	file, err := os.OpenFile(f.path(id), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		f.settled(id)
	}
	return file, err
}

// settled says that a row names the file, or that none ever will.
func (f *files) settled(id string) {
	f.mu.Lock()
	delete(f.fresh, id)
	f.mu.Unlock()
}

func (f *files) isFresh(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fresh[id]
}

// hold keeps files from being removed until release is called. It is not ok if
// one of them is being removed at this moment.
func (f *files) hold(ids []string) (release func(), ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range ids {
		if f.doomed[id] && f.held[id] == 0 {
			return nil, false
		}
	}
	for _, id := range ids {
		f.held[id]++
	}
	var once sync.Once
	return func() { once.Do(func() { f.unhold(ids) }) }, true
}

func (f *files) unhold(ids []string) {
	f.mu.Lock()
	var now []string
	for _, id := range ids {
		if f.held[id]--; f.held[id] > 0 {
			continue
		}
		delete(f.held, id)
		if f.doomed[id] {
			now = append(now, id)
		}
	}
	f.mu.Unlock()
	f.unlink(now)
}

// remove removes files, those that are being read a little later.
func (f *files) remove(ids []string) {
	if len(ids) == 0 {
		return
	}
	f.mu.Lock()
	var now []string
	for _, id := range ids {
		if f.doomed[id] = true; f.held[id] == 0 {
			now = append(now, id)
		}
	}
	f.mu.Unlock()
	f.unlink(now)
}

// unlink removes files. What it can't remove the next sweep will.
func (f *files) unlink(ids []string) {
	if len(ids) == 0 {
		return
	}
	for _, id := range ids {
		_ = os.Remove(f.path(id))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range ids {
		delete(f.doomed, id)
	}
}

// durable makes the file's content and its name last.
func (f *files) durable(file *os.File, id string) error {
	if err := file.Sync(); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return seal.SyncDir(filepath.Dir(f.path(id)))
}

// each calls fn with every file's id. What is not named by an id, or lies in
// another folder than its own, is removed: nobody can have put it there.
func (f *files) each(fn func(id string) error) error {
	return filepath.WalkDir(f.dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // it was removed meanwhile
		case err != nil || d.IsDir():
			return err
		case len(d.Name()) != 2*idSize || f.path(d.Name()) != path:
			return os.Remove(path)
		}
		return fn(d.Name())
	})
}

// fileIDs are the ids of those pieces that lie in files.
func fileIDs(ps []piece) []string {
	var out []string
	for _, p := range ps {
		if !p.Small {
			out = append(out, p.ID)
		}
	}
	return out
}
