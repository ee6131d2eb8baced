// Package backup makes copies of a data folder, of which each is the whole folder
// at one moment, and makes data folders of them.
//
// A backup folder has points, one for each time that a backup was made, and one
// pool of files for all points, so that a backup copies only what is new. All that
// lies in it is sealed as it was in the data folder: by the root key, by accounts'
// keys and by customers' keys. A manifest for each point, sealed too, has the
// digest of every file, so that what was altered, cut or taken away is noticed.
package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"castellan/internal/blob"
	"castellan/internal/seal"
	"castellan/internal/store"
)

const (
	points   = "points"   // a folder for each point
	pool     = "blobs"    // files of all points, as the data folder has them
	manifest = "manifest" // of a point
	salt     = "salt"     // of a data folder whose root key is a passphrase

	// WrappedKey is the file of a root key that a token's key wraps, in a data folder
	// and in a backup folder.
	WrappedKey = "root-key.pkcs11"

	// form is how a point is called: its time, in UTC.
	form = "20060102T150405.000Z"

	// tries is how often a backup begins anew because the data moved away under it.
	tries = 20
)

// Point is one moment of which there is a backup.
type Point struct {
	Name  string
	At    time.Time
	Files int   // files of blobs
	Bytes int64 // of those, and of the store
}

// list is what a point has.
type list struct {
	At    time.Time      `json:"at"`
	Store sum            `json:"store"`
	Salt  []byte         `json:"salt,omitempty"`
	Files map[string]sum `json:"files"` // by id
}

// sum tells one content from others.
type sum struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

func (l list) point(name string) Point {
	p := Point{Name: name, At: l.At, Files: len(l.Files), Bytes: l.Store.Size}
	for _, s := range l.Files {
		p.Bytes += s.Size
	}
	return p
}

// Folder is a backup folder, opened with the root key of the data it is of.
type Folder struct {
	dir  string
	seal seal.Key
	root seal.Key
	Now  func() time.Time
	// Wrapped is what a restored folder has as its WrappedKey; nil for none.
	Wrapped []byte
	// Progress is told how many files of how many are done; nil tells nobody.
	Progress func(done, all int)
}

// Open is the backup folder dir.
func Open(dir string, root seal.Key) *Folder {
	return &Folder{dir: dir, root: root, seal: root.Derive("backup folder"), Now: time.Now}
}

// Make adds a point with the data folder as it is now. A server may run on it.
func (f *Folder) Make(ctx context.Context, data string) (p Point, err error) {
	if err := os.MkdirAll(filepath.Join(f.dir, points), 0o700); err != nil {
		return p, fmt.Errorf("making the backup folder: %w", err)
	}
	known, err := f.known()
	if err != nil {
		return p, err
	}
	var l list
	for range tries {
		var gone int
		if l, gone, err = f.try(ctx, data, known); err != nil {
			return p, err
		}
		if gone == 0 {
			if p, err = f.point(l, data); err != nil {
				return p, err
			}
			return p, f.note(data, p)
		}
	}
	return p, errors.New("backup: files were removed again and again while they were copied; try again when less is deleted")
}

// known are the files in the pool, as the newest points that have them say.
func (f *Folder) known() (map[string]sum, error) {
	all, err := f.names()
	if err != nil {
		return nil, err
	}
	out := map[string]sum{}
	for _, name := range all {
		l, err := f.read(name)
		if err != nil {
			return nil, err
		}
		for id, s := range l.Files {
			out[id] = s
		}
	}
	return out, nil
}

// try copies the store, and the files that the copy names. Files of blobs are
// written once and never changed; gone is how many were removed in between, since
// what they were of was deleted: then the copy is of a moment that can't be had.
func (f *Folder) try(ctx context.Context, data string, known map[string]sum) (l list, gone int, err error) {
	next := f.next()
	if err := os.RemoveAll(next); err != nil { // of a backup that was cut off
		return l, 0, err
	}
	if err := os.Mkdir(next, 0o700); err != nil {
		return l, 0, err
	}
	if err := store.Copy(data, f.root, next); err != nil {
		return l, 0, err
	}
	l = list{At: f.Now().UTC(), Files: map[string]sum{}}
	ids, err := f.named(ctx, next)
	if err != nil {
		return l, 0, err
	}
	if l.Store, err = digest(filepath.Join(next, store.FileName)); err != nil {
		return l, 0, err
	}
	for i, id := range ids {
		if err := ctx.Err(); err != nil {
			return l, 0, err
		}
		s, ok := known[id]
		if st, err := os.Stat(blob.FilePath(filepath.Join(f.dir, pool), id)); !ok || err != nil || st.Size() != s.Size {
			s, err = f.take(data, id)
			if errors.Is(err, fs.ErrNotExist) {
				gone++
				continue
			}
			if err != nil {
				return l, 0, err
			}
			known[id] = s
		}
		l.Files[id] = s
		if f.Progress != nil {
			f.Progress(i+1, len(ids))
		}
	}
	return l, gone, nil
}

// next is where a point is put together.
func (f *Folder) next() string { return filepath.Join(f.dir, points, ".next") }

// named are the files that the store in dir names. Reading leaves the copy as it is.
func (f *Folder) named(ctx context.Context, dir string) (ids []string, err error) {
	err = store.ViewCopy(ctx, dir, f.root, func(tx *store.Tx) error {
		ids, err = blob.Files(tx)
		return err
	})
	return ids, err
}

// take copies a file of the data folder to the pool.
func (f *Folder) take(data, id string) (sum, error) {
	to := blob.FilePath(filepath.Join(f.dir, pool), id)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return sum{}, err
	}
	return copyFile(blob.FilePath(filepath.Join(data, "blobs"), id), to)
}

// point names the point once all of it is on disk.
func (f *Folder) point(l list, data string) (p Point, err error) {
	if l.Salt, err = os.ReadFile(filepath.Join(data, salt)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return p, err
	}
	if l.Salt != nil { // outside of what its key seals, for whoever has the passphrase alone
		if err := seal.WriteOnce(filepath.Join(f.dir, salt), l.Salt); err != nil && !errors.Is(err, fs.ErrExist) {
			return p, err
		}
	}
	wrapped, err := os.ReadFile(filepath.Join(data, WrappedKey))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return p, err
	}
	if wrapped != nil { // the newest opens all points: the root key stays when another token's key wraps it
		if err := seal.Replace(filepath.Join(f.dir, WrappedKey), wrapped); err != nil {
			return p, err
		}
	}
	name := l.At.Format(form)
	b, err := json.Marshal(l)
	if err != nil {
		return p, err
	}
	if err := seal.WriteOnce(filepath.Join(f.next(), manifest), f.seal.Seal(b, "point "+name)); err != nil {
		return p, err
	}
	if err := errors.Join(syncTree(filepath.Join(f.dir, pool)), seal.SyncDir(f.next())); err != nil {
		return p, err
	}
	if err := os.Rename(f.next(), filepath.Join(f.dir, points, name)); err != nil {
		return p, err
	}
	return l.point(name), seal.SyncDir(filepath.Join(f.dir, points))
}

// names are the points' names, the oldest first.
func (f *Folder) names() (out []string, err error) {
	all, err := os.ReadDir(filepath.Join(f.dir, points))
	if err != nil {
		return nil, fmt.Errorf("reading the backup folder: %w", err)
	}
	for _, e := range all {
		if !strings.HasPrefix(e.Name(), ".") {
			out = append(out, e.Name())
		}
	}
	slices.Sort(out)
	return out, nil
}

// read is what a point has, by its manifest.
func (f *Folder) read(name string) (l list, err error) {
	b, err := os.ReadFile(filepath.Join(f.dir, points, name, manifest))
	if err != nil {
		return l, fmt.Errorf("reading the backup %s: %w", name, err)
	}
	plain, err := f.seal.Open(b, "point "+name)
	if err != nil {
		return l, fmt.Errorf("the backup %s was altered, or was made with another root key", name)
	}
	return l, json.Unmarshal(plain, &l)
}

// Points are all points, the oldest first.
func (f *Folder) Points() (out []Point, err error) {
	all, err := f.names()
	for _, name := range all {
		l, err := f.read(name)
		if err != nil {
			return nil, err
		}
		out = append(out, l.point(name))
	}
	return out, err
}

// At is the last point that is not after t; the newest if t is zero.
func (f *Folder) At(t time.Time) (Point, error) {
	all, err := f.Points()
	if err != nil {
		return Point{}, err
	}
	for _, p := range slices.Backward(all) {
		if t.IsZero() || !p.At.After(t) {
			return p, nil
		}
	}
	if len(all) == 0 {
		return Point{}, fmt.Errorf("%s has no backups", f.dir)
	}
	return Point{}, fmt.Errorf("%s has no backup from before %s; the oldest is of %s", f.dir, t.Format(time.RFC3339), all[0].At.Format(time.RFC3339))
}

// Check reads all of a point and holds it against its manifest.
func (f *Folder) Check(ctx context.Context, p Point) error {
	l, err := f.read(p.Name)
	if err != nil {
		return err
	}
	return f.each(ctx, p, l, func(from, _ string) (sum, error) { return digest(from) })
}

// Restore makes the data folder of a point. There must be nothing in its place.
func (f *Folder) Restore(ctx context.Context, p Point, data string) error {
	if _, err := os.Lstat(data); err == nil {
		return fmt.Errorf("%s is there already; a backup is restored to a new folder", data)
	}
	if err := os.MkdirAll(filepath.Dir(data), 0o700); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(data), ".restore-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	l, err := f.read(p.Name)
	if err != nil {
		return err
	}
	if err := f.each(ctx, p, l, func(from, name string) (sum, error) {
		to := filepath.Join(tmp, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return sum{}, err
		}
		return copyFile(from, to)
	}); err != nil {
		return err
	}
	if l.Salt != nil {
		if err := seal.WriteOnce(filepath.Join(tmp, salt), l.Salt); err != nil {
			return err
		}
	}
	if f.Wrapped != nil {
		if err := seal.WriteOnce(filepath.Join(tmp, WrappedKey), f.Wrapped); err != nil {
			return err
		}
	}
	if err := syncTree(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, data); err != nil {
		return err
	}
	return seal.SyncDir(filepath.Dir(data))
}

// each calls do for each file of a point, which has l, and the name that it has in a data folder;
// what do finds must be what the manifest says.
func (f *Folder) each(ctx context.Context, p Point, l list, do func(from, name string) (sum, error)) error {
	one := func(from, name string, want sum) error {
		got, err := do(from, name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("the backup %s lacks %s", p.Name, name)
		case err == nil && got != want:
			return fmt.Errorf("the backup %s has an altered %s", p.Name, name)
		}
		return err
	}
	if err := one(filepath.Join(f.dir, points, p.Name, store.FileName), store.FileName, l.Store); err != nil {
		return err
	}
	done := 0
	for id, want := range l.Files {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := one(blob.FilePath(filepath.Join(f.dir, pool), id), blob.FilePath("blobs", id), want); err != nil {
			return err
		}
		if done++; f.Progress != nil {
			f.Progress(done, len(l.Files))
		}
	}
	return nil
}

// Keep removes all points but the newest n, and the files that none of those has.
func (f *Folder) Keep(n int) (removed int, err error) {
	all, err := f.names()
	if err != nil || n < 1 || len(all) <= n {
		return 0, err
	}
	kept := map[string]bool{}
	for _, name := range all[len(all)-n:] {
		l, err := f.read(name)
		if err != nil {
			return 0, err
		}
		for id := range l.Files {
			kept[id] = true
		}
	}
	for _, name := range all[:len(all)-n] {
		if err := os.RemoveAll(filepath.Join(f.dir, points, name)); err != nil {
			return removed, err
		}
		removed++
	}
	return removed, filepath.WalkDir(filepath.Join(f.dir, pool), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && !d.IsDir() && !kept[d.Name()] {
			err = os.Remove(path)
		}
		return err
	})
}

// digest is what tells a file's content from others.
func digest(path string) (sum, error) {
	f, err := os.Open(path)
	if err != nil {
		return sum{}, err
	}
	defer f.Close()
	return copied(f, io.Discard)
}

func copied(from io.Reader, to io.Writer) (sum, error) {
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(to, h), from)
	return sum{n, hex.EncodeToString(h.Sum(nil))}, err
}

// copyFile makes to whole or not at all, on disk when it returns.
func copyFile(from, to string) (s sum, err error) {
	in, err := os.Open(from)
	if err != nil {
		return s, err
	}
	defer in.Close()
	out, err := os.CreateTemp(filepath.Dir(to), ".new-*")
	if err != nil {
		return s, err
	}
	defer os.Remove(out.Name())
	s, err = copied(in, out)
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return s, err
	}
	return s, os.Rename(out.Name(), to)
}

// syncTree syncs all folders from dir on.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) && path == dir:
			return nil
		case err == nil && d.IsDir():
			err = seal.SyncDir(path)
		}
		return err
	})
}
