package ml

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"castellan/internal/arm"
	"castellan/internal/store"
)

// Limits of what a job reads and leaves.
const (
	maxInputFiles  = 100_000
	maxInputBytes  = 64 << 30
	maxOutputFiles = 10_000
	maxOutputBytes = 16 << 30
)

// stage brings the job's code and inputs into its folder.
func (k *work) stage(ctx context.Context) error {
	if k.in.Code != nil {
		if err := k.stageCode(ctx, *k.in.Code); err != nil {
			return err
		}
	}
	for _, name := range sortedKeys(k.p.Inputs) {
		if err := k.stageInput(ctx, name, k.p.Inputs[name]); err != nil {
			return at("inputs."+name, err)
		}
	}
	for _, name := range sortedKeys(k.p.Outputs) {
		if err := os.Mkdir(filepath.Join(k.dir.outputs, name), 0o700); err != nil {
			return fmt.Errorf("making an output's folder: %w", err)
		}
	}
	return nil
}

// stageCode brings the very files that were there when the code was registered.
// Anything else, whoever put it there, is not run.
func (k *work) stageCode(ctx context.Context, snap snapshot) error {
	if snap.sum() != snap.Digest {
		return arm.Errorf("SnapshotTampered", "the list of the code's files was altered since it was registered; the job is not run")
	}
	root, err := os.OpenRoot(k.dir.code)
	if err != nil {
		return fmt.Errorf("opening a job's folder: %w", err)
	}
	defer root.Close()
	wanted := map[string]digest{}
	for _, f := range snap.Files {
		wanted[f.Path] = f
	}
	err = k.s.eachFile(ctx, Access{As: k.w.self()}, location{account: snap.Account, container: snap.Container, path: snap.Prefix}, maxCodeFiles+1, maxCodeBytes,
		func(path string, _ int64, r io.Reader) error {
			f, ok := wanted[path]
			delete(wanted, path)
			h := sha256.New()
			n, err := save(root, path, io.TeeReader(r, h))
			if err != nil {
				return err
			}
			if !ok || n != f.Size || hex.EncodeToString(h.Sum(nil)) != f.SHA256 {
				return arm.Errorf("SnapshotTampered", "the code file %q is not the one that was registered (hash mismatch); the job is not run", path)
			}
			return nil
		})
	if err != nil {
		return at("code", err)
	}
	for path := range wanted {
		return arm.Errorf("SnapshotTampered", "the code file %q is gone since the code was registered; the job is not run", path)
	}
	return nil
}

// stageInput copies one input, reached as the job.
func (k *work) stageInput(ctx context.Context, name string, in *jobInput) error {
	if in.literal() {
		return nil
	}
	l, by, err := k.reach(ctx, func(tx *store.Tx) (location, error) { return k.s.resolve(tx, k.w, in.URI) })
	if err != nil {
		return err
	}
	dir := filepath.Join(k.dir.inputs, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("making an input's folder: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("opening an input's folder: %w", err)
	}
	defer root.Close()
	n := 0
	err = k.s.eachFile(ctx, by, l, maxInputFiles, maxInputBytes, func(path string, _ int64, r io.Reader) error {
		n++
		_, err := save(root, path, r)
		return err
	})
	if err == nil && n == 0 {
		err = arm.Errorf(arm.NotFound, "there is nothing at %s in the datastore %s", l.path, l.name)
	}
	return err
}

// save writes one file below root, which no path leaves.
func save(root *os.Root, path string, r io.Reader) (int64, error) {
	if dir := filepath.Dir(path); dir != "." {
		if err := root.MkdirAll(dir, 0o700); err != nil {
			return 0, fmt.Errorf("making the folder %s: %w", dir, err)
		}
	}
	f, err := root.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o700)
	if err != nil {
		return 0, fmt.Errorf("making the file %s: %w", path, err)
	}
	n, err := io.Copy(f, r)
	return n, errors.Join(err, f.Close())
}

// collect keeps what the command left: its outputs, and the folders outputs and
// logs as artifacts of the run. Only regular files are kept; anything else
// could name a file that is not the job's.
func (k *work) collect(ctx context.Context) error {
	ws := k.w.Doc.ID
	as := k.s.history(ws, k.run)
	left := budget{maxOutputFiles, maxOutputBytes}
	for _, dir := range []string{"outputs", "logs"} {
		err := eachLeft(k.dir.code, dir, &left, func(path string, f *os.File, size int64) error {
			return k.s.Runs.Put(ctx, as, ws, k.run, path, f, size)
		})
		if err != nil {
			return err
		}
	}
	for _, name := range sortedKeys(k.p.Outputs) {
		if err := k.collectOutput(ctx, name, k.p.Outputs[name], &left); err != nil {
			return at("outputs."+name, err)
		}
	}
	return nil
}

func (k *work) collectOutput(ctx context.Context, name string, out *jobOutput, left *budget) error {
	l, by, err := k.reach(ctx, func(tx *store.Tx) (location, error) { return k.s.locate(tx, k.w, out.place(k.run, name)) })
	if err != nil {
		return err
	}
	return eachLeft(k.dir.outputs, name, left, func(path string, f *os.File, size int64) error {
		rel, err := filepath.Rel(name, path)
		if err != nil {
			return err
		}
		return k.s.Blobs.Write(ctx, by, l.account, l.container, join(l.path, filepath.ToSlash(rel)), f, size)
	})
}

func join(prefix, path string) string {
	if prefix == "" {
		return path
	}
	return prefix + "/" + path
}

// budget is what may still be kept.
type budget struct {
	files int
	bytes int64
}

// eachLeft opens every regular file below base/dir, never following a link.
func eachLeft(base, dir string, left *budget, do func(path string, f *os.File, size int64) error) error {
	root, err := os.OpenRoot(base)
	if err != nil {
		return fmt.Errorf("opening what a job left: %w", err)
	}
	defer root.Close()
	if info, err := root.Lstat(dir); err != nil || !info.IsDir() {
		return nil // the job removed it, or made something else of it
	}
	return fs.WalkDir(root.FS(), dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return arm.Errorf(arm.BadRequest, "%s can't be read", path)
		}
		if e.IsDir() {
			return nil
		}
		if !e.Type().IsRegular() {
			return arm.Errorf(arm.BadRequest, "%q is not a regular file but %s; only regular files are kept", path, e.Type())
		}
		if _, err := cleanPath(path); err != nil {
			return err
		}
		f, err := root.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
		if err != nil {
			return arm.Errorf(arm.BadRequest, "%q can't be opened", path)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil || !info.Mode().IsRegular() {
			return arm.Errorf(arm.BadRequest, "%q is not a regular file", path)
		}
		if left.files, left.bytes = left.files-1, left.bytes-info.Size(); left.files < 0 || left.bytes < 0 {
			return arm.Errorf(arm.TooLarge, "the job left more than %d files or %d bytes; %q and what follows was not kept", maxOutputFiles, int64(maxOutputBytes), path)
		}
		return do(filepath.ToSlash(path), f, info.Size())
	})
}

// wipe removes a job's folder, also what the job made unreadable.
func wipe(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if e != nil && e.IsDir() {
			_ = os.Chmod(path, 0o700) // RemoveAll says what stays shut
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// at says to what an error belongs, for the one who reads it.
func at(what string, err error) error {
	var e *arm.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("%s: %w", what, err)
	}
	c := *e
	c.Message = what + ": " + e.Message
	return &c
}
