package node

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sort"
	"strings"
)

// Folder is a directory of the host that a sandbox works in. Nothing done
// through it leaves it: names are local paths, links are neither followed nor
// made, and only regular files are read.
type Folder struct{ root *os.Root }

// OpenFolder opens the directory at path, making it (for its owner only) if
// it is not there.
func OpenFolder(dir string) (*Folder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making folder: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening folder: %w", err)
	}
	return &Folder{root}, nil
}

// Close lets go of the folder; it stays on disk.
func (f *Folder) Close() error { return f.root.Close() }

// Dir is the folder's path on the host.
func (f *Folder) Dir() string { return f.root.Name() }

// MaxName is the longest path, in bytes, of a file in a folder.
const MaxName = 1024

// CheckName says what is wrong with a file's name within a folder: it must be
// a clean relative path with slashes, without control characters or backslashes.
func CheckName(name string) error {
	if len(name) > MaxName {
		return fmt.Errorf("the file name %q… has %d bytes; it may have %d", name[:40], len(name), MaxName)
	}
	if !fs.ValidPath(name) || name == "." {
		return fmt.Errorf("the file name %q is not a clean relative path", name)
	}
	for _, r := range name {
		if r < ' ' || r == 0x7f || r == '\\' || r == '\uFFFD' {
			return fmt.Errorf("the file name %q has a control character, a backslash or broken UTF-8", name)
		}
	}
	return nil
}

// Write makes the file name with what r holds, which may be at most limit bytes.
// A file of that name, or a link in its way, is an error and never written through.
func (f *Folder) Write(name string, r io.Reader, limit int64) (n int64, err error) {
	if err := CheckName(name); err != nil {
		return 0, err
	}
	if dir := path.Dir(name); dir != "." {
		if err := f.makeDirs(dir); err != nil {
			return 0, err
		}
	}
	out, err := f.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, fmt.Errorf("writing %q: %w", name, err)
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	n, err = io.Copy(out, io.LimitReader(r, limit+1))
	if err != nil {
		return n, fmt.Errorf("writing %q: %w", name, err)
	}
	if n > limit {
		return n, fmt.Errorf("writing %q: it has more than %d bytes", name, limit)
	}
	return n, nil
}

// makeDirs makes dir and its parents; each of them must be a real directory.
func (f *Folder) makeDirs(dir string) error {
	made := ""
	for _, part := range strings.Split(dir, "/") {
		made = path.Join(made, part)
		st, err := f.root.Lstat(made)
		if errors.Is(err, fs.ErrNotExist) {
			err = f.root.Mkdir(made, 0o700)
			if err == nil {
				continue
			}
		}
		if err != nil {
			return fmt.Errorf("making %q: %w", made, err)
		}
		if !st.IsDir() {
			return fmt.Errorf("making %q: it is there and no directory", made)
		}
	}
	return nil
}

// Executable lets the sandbox run the file name as a program.
func (f *Folder) Executable(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	return f.root.Chmod(name, 0o700)
}

// Refused is an entry of a folder that is not carried out of it.
type Refused struct{ Name, Why string }

func (r *Refused) Error() string { return fmt.Sprintf("the file %q is refused: %s", r.Name, r.Why) }

// Bounds are how much Walk reads before it refuses. Zero means nothing.
type Bounds struct {
	Files int
	Bytes int64
}

// Walk calls fn for each regular file of the folder, in the order of names. A
// link, pipe, socket, device or a name that CheckName refuses ends it with a
// *Refused that names the entry. It is for folders whose sandbox has ended.
func (f *Folder) Walk(b Bounds, fn func(name string, size int64, r io.Reader) error) error {
	w := walker{f: f, b: b, fn: fn}
	return w.dir(".")
}

type walker struct {
	f     *Folder
	b     Bounds
	fn    func(string, int64, io.Reader) error
	files int
	bytes int64
}

func (w *walker) dir(name string) error {
	d, err := w.f.root.Open(name)
	if err != nil {
		return fmt.Errorf("reading %q: %w", name, err)
	}
	// One more than is allowed is enough to refuse.
	entries, err := d.ReadDir(w.b.Files - w.files + 1)
	d.Close()
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading %q: %w", name, err)
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].Name() < entries[j].Name() })
	for _, e := range entries {
		if err := w.entry(path.Join(name, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) entry(name string) error {
	w.files++
	if w.files > w.b.Files {
		return &Refused{name, fmt.Sprintf("there are more than %d files", w.b.Files)}
	}
	if err := CheckName(name); err != nil {
		return &Refused{name, err.Error()}
	}
	st, err := w.f.root.Lstat(name)
	if err != nil {
		return fmt.Errorf("looking at %q: %w", name, err)
	}
	if st.IsDir() {
		return w.dir(name)
	}
	if !st.Mode().IsRegular() {
		return &Refused{name, "it is " + kind(st.Mode()) + "; only regular files are taken"}
	}
	return w.file(name, st)
}

func (w *walker) file(name string, seen fs.FileInfo) error {
	in, err := w.f.root.OpenFile(name, os.O_RDONLY|openSafely, 0)
	if err != nil {
		return &Refused{name, "it cannot be opened: " + err.Error()}
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil || !st.Mode().IsRegular() || !os.SameFile(st, seen) {
		return &Refused{name, "it changed while it was read"}
	}
	w.bytes += st.Size()
	if w.bytes > w.b.Bytes {
		return &Refused{name, fmt.Sprintf("the files have more than %d bytes", w.b.Bytes)}
	}
	return w.fn(name, st.Size(), io.LimitReader(in, st.Size()))
}

func kind(m fs.FileMode) string {
	switch {
	case m&fs.ModeSymlink != 0:
		return "a symbolic link"
	case m&fs.ModeNamedPipe != 0:
		return "a pipe"
	case m&fs.ModeSocket != 0:
		return "a socket"
	case m&fs.ModeDevice != 0:
		return "a device"
	default:
		return "of an unknown kind"
	}
}

// Digest identifies a set of files by their names and bytes, whatever the
// order in which they were added. Its zero value is empty and ready.
type Digest struct{ lines []string }

// Add adds one file.
func (d *Digest) Add(name string, r io.Reader) error {
	if err := CheckName(name); err != nil {
		return err
	}
	h := sha256.New()
	n, err := io.Copy(h, r)
	if err != nil {
		return fmt.Errorf("reading %q: %w", name, err)
	}
	d.lines = append(d.lines, fmt.Sprintf("%x %d %s\n", h.Sum(nil), n, name))
	return nil
}

// Sum is "sha256:" and the digest of all files added.
func (d *Digest) Sum() string {
	lines := append([]string(nil), d.lines...)
	sort.Slice(lines, func(i, j int) bool { return lines[i] < lines[j] })
	h := sha256.New()
	for _, l := range lines {
		io.WriteString(h, l) // a hash takes all
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// Digest is the digest of the folder's files; whatever Walk refuses is an error.
func (f *Folder) Digest(b Bounds) (string, error) {
	var d Digest
	err := f.Walk(b, func(name string, _ int64, r io.Reader) error { return d.Add(name, r) })
	if err != nil {
		return "", err
	}
	return d.Sum(), nil
}

// Wipe removes dir and all in it, also folders that a command has shut.
func Wipe(dir string) error {
	if st, err := os.Lstat(dir); err != nil || !st.IsDir() {
		return os.RemoveAll(dir) // what is no directory goes as it is
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		// Shut by its owner; a link is not followed by RemoveAll.
		if cerr := os.Chmod(dir, 0o700); cerr == nil {
			root, err = os.OpenRoot(dir)
		}
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	open(root, ".", 0)
	root.Close()
	return os.RemoveAll(dir)
}

// open makes folders below name enterable for their owner, so that they can be
// removed. What it cannot open the removal will report.
func open(root *os.Root, name string, depth int) {
	if depth > 4096 {
		return
	}
	st, err := root.Lstat(name)
	if err != nil || !st.IsDir() {
		return
	}
	if st.Mode().Perm()&0o700 != 0o700 {
		if root.Chmod(name, 0o700) != nil {
			return
		}
	}
	d, err := root.Open(name)
	if err != nil {
		return
	}
	defer d.Close()
	for {
		entries, err := d.ReadDir(256)
		for _, e := range entries {
			if e.IsDir() {
				open(root, path.Join(name, e.Name()), depth+1)
			}
		}
		if err != nil || len(entries) == 0 {
			return
		}
	}
}

// maxDepth is how deep folders may be nested; deeper ones are only removed.
const maxDepth = 256

// Usage is the bytes on disk and the number of entries below the folder; it
// stops counting at the bounds.
func (f *Folder) Usage(b Bounds) (bytes int64, files int) {
	f.usage(".", b, &bytes, &files)
	return bytes, files
}

func (f *Folder) usage(name string, b Bounds, bytes *int64, files *int) {
	if strings.Count(name, "/") > maxDepth { // too deep to count, so too much
		*files = b.Files + 1
		return
	}
	d, err := f.root.Open(name)
	if err != nil {
		return
	}
	defer d.Close()
	for *files <= b.Files && *bytes <= b.Bytes {
		entries, err := d.ReadDir(256)
		for _, e := range entries {
			*files++
			if e.IsDir() {
				f.usage(path.Join(name, e.Name()), b, bytes, files)
				continue
			}
			if st, err := f.root.Lstat(path.Join(name, e.Name())); err == nil {
				*bytes += diskSize(st)
			}
		}
		if err != nil || len(entries) == 0 {
			return
		}
	}
}
