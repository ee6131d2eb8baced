package app

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// image is a disk for one data folder: an ext4 on a file, that can encrypt folders. Of what was on it, also
// what was deleted, nothing is cleaned away.
type image struct {
	file, at string
}

func newImage(t *testing.T) *image {
	t.Helper()
	return newImageIn(t, t.TempDir())
}

// newImageIn is nil where nobody lets us mount one.
func newImageIn(t *testing.T, dir string) *image {
	t.Helper()
	d := &image{dir + "/image", dir + "/disk"}
	f, err := os.Create(d.file)
	if err == nil {
		err = f.Truncate(256 << 20)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(d.at, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", "-O", "encrypt", d.file}, {"mount", "-o", "loop", d.file, d.at}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Logf("no file system can be mounted here, so freed blocks are not looked at: %v %s", err, out)
			return nil
		}
	}
	t.Cleanup(func() { _ = exec.Command("umount", d.at).Run() }) // a second time is none
	return d
}

// raw is all that is on the disk, once it has been unmounted: files, journal and freed blocks.
func (d *image) raw(t *testing.T) *os.File {
	t.Helper()
	unmount(t, d.at)
	f, err := os.Open(d.file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() }) // it was read
	return f
}

// isClear looks at all that ever was on the disk. A file that was deleted a moment
// ago shows that what is deleted is seen.
func (d *image) isClear(t *testing.T, s scanner, p *planter) {
	t.Helper()
	gone := d.at + "/gone"
	text := p.new("control")
	if err := os.WriteFile(gone, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("sync").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	control := newScanner(p.all[len(p.all)-1:])
	for k, f := range control.forms {
		s.forms[k], s.begins[uint16(k)] = append(s.forms[k], f...), true
	}
	full, hits := s.disk(t, d.raw(t))
	t.Logf("disk: %d canaries, %d MB that are not empty", len(p.all), full>>20)
	seen := false
	for _, h := range hits {
		switch {
		case strings.Contains(h, "a control is"):
			seen = true
		case p.plain && strings.Contains(h, "a artifact's "):
			t.Log(h, ", where this kernel encrypts no folders")
		default:
			t.Error(h)
		}
	}
	if !seen {
		t.Error("what was written and deleted is not found on the disk")
	}
}

// unmount takes a file system away. What a server that was killed ran may take a moment
// to end, and so may a process that another test is just starting, which has
// our files open until it is another program.
func unmount(t *testing.T, at string) {
	t.Helper()
	var out []byte
	for range 200 {
		var err error
		if out, err = exec.Command("umount", at).CombinedOutput(); err == nil {
			return
		}
		<-time.After(50 * time.Millisecond)
	}
	t.Fatalf("umount %s: %s", at, out)
}
