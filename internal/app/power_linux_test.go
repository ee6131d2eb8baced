package app

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// powerCuts is how often the power fails, unless CASTELLAN_CRASH_ROUNDS says
// otherwise.
const powerCuts = 4

// disk is a file system of its own, on a file that can be copied at one moment:
// what the kernel had not yet written to the file is not in the copy, as what was
// in memory is not on a disk after a power cut.
type disk struct {
	*testing.T
	outer, at string // where the copies lie, and where the file system is
}

func (d *disk) run(name string, args ...string) {
	d.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		d.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

func (d *disk) image() string { return filepath.Join(d.outer, "disk") }

// cut is a power cut: the disk goes on from what was on it at this moment.
func (d *disk) cut() {
	d.Helper()
	d.run("cp", "--reflink=always", d.image(), d.image()+".cut")
}

// boot mounts what the power cut left.
func (d *disk) boot() {
	d.Helper()
	unmount(d.T, d.at)
	d.run("mv", d.image()+".cut", d.image())
	d.run("fsck.ext4", "-p", d.image()) // 1 is that it replayed the journal, which is said to be an error
	d.run("mount", "-o", "loop", d.image(), d.at)
}

func newDisk(t *testing.T) *disk {
	if os.Getuid() != 0 {
		t.Skip("only root mounts file systems")
	}
	for _, tool := range []string{"mkfs.btrfs", "mkfs.ext4"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	dir := t.TempDir()
	d := &disk{T: t, outer: dir + "/outer", at: dir + "/disk"}
	for _, p := range []string{d.outer, d.at} {
		if err := os.Mkdir(p, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	d.run("truncate", "-s", "4G", dir+"/image")
	d.run("mkfs.btrfs", "-q", dir+"/image") // it copies files at one moment
	if out, err := exec.Command("mount", "-o", "loop", dir+"/image", d.outer).CombinedOutput(); err != nil {
		t.Skipf("nothing can be mounted here: %s", out)
	}
	t.Cleanup(func() { d.run("umount", "-l", d.outer) }) // the kernel lets go of the disk in it a little later
	d.run("truncate", "-s", "1G", d.image())
	d.run("mkfs.ext4", "-q", d.image())
	d.run("mount", "-o", "loop", d.image(), d.at)
	t.Cleanup(func() { unmount(t, d.at) })
	return d
}

// A power cut at any moment of a load of writes leaves on the disk every write
// that was acknowledged, whole, and nothing half-done (REL-03). What was written
// beside it and never made durable is gone, so that the cut is one.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	d := newDisk(t)
	lost := 0
	endings(t, d.at+"/data", powerCuts, func(s *served) {
		if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil { // what it had acknowledged until now counts
			t.Error(err)
		}
		unsynced := d.at + "/unsynced"
		if err := os.WriteFile(unsynced, []byte(strings.Repeat("lost", 1<<10)), 0o600); err != nil {
			t.Error(err)
		}
		d.cut()
		s.kill(t)
		d.boot()
		if b, err := os.ReadFile(unsynced); err != nil || len(b) == 0 {
			lost++
		}
		_ = os.Remove(unsynced) // it may not be there
	})
	if lost == 0 {
		t.Error("what was not made durable is there after every cut, so no power was cut")
	}
}
