package compute

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"castellan/internal/node"
)

// disk is an ext4 file system in a file, mounted; bytes is all that is on it.
func disk(t *testing.T, features string) (dir string, bytes func() []byte) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting a file system takes root")
	}
	image, at := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 16<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-O", features, image).CombinedOutput(); err != nil {
		t.Skipf("mkfs.ext4: %v %s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop", image, at).CombinedOutput(); err != nil {
		t.Skipf("mount: %v %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			t.Errorf("umount: %v %s", err, out)
		}
	})
	return filepath.Join(at, "scratch"), func() []byte {
		if out, err := exec.Command("sync", "-f", at).CombinedOutput(); err != nil {
			t.Fatalf("sync: %v %s", err, out)
		}
		b, err := os.ReadFile(image)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}

// What a job had in its folder is nowhere on the disk that another could read it,
// neither its bytes nor its names: not while it runs, not after a crash, and the key is
// gone with the job. A disk without the feature keeps all of it, which shows that the
// test looks in the right place, and is refused where scratch must be sealed.
func TestScratchIsUnderAKeyOfItsOwn(t *testing.T) {
	const name, marker = "a-name-of-a-file-of-the-job", "what the job had in it: 4f1c9a"
	left := func(t *testing.T, features string) (s *Service, job string, forget func() error, bytes func() []byte) {
		dir, bytes := disk(t, features)
		s, err := New(t.Context(), Config{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		job = filepath.Join(dir, "job-1")
		if err := os.Mkdir(job, 0o700); err != nil {
			t.Fatal(err)
		}
		how, forget, err := s.Seal(job)
		if err != nil || how != s.Scratch() {
			t.Fatal(how, err)
		}
		if err := os.WriteFile(filepath.Join(job, name), []byte(marker), 0o600); err != nil {
			t.Fatal(err)
		}
		return s, job, forget, bytes
	}
	on := func(disk []byte) bool {
		return bytes.Contains(disk, []byte(marker)) || bytes.Contains(disk, []byte(name))
	}

	t.Run("plain", func(t *testing.T) {
		s, job, forget, all := left(t, "^encrypt")
		if s.Scratch() != plainScratch || !on(all()) {
			t.Errorf("scratch is %s, and the disk does not have what was written", s.Scratch())
		}
		if err := node.Wipe(job); err != nil || forget() != nil {
			t.Error(err)
		}
		if _, err := New(t.Context(), Config{Dir: s.Dir(), Sealed: true}); err == nil {
			t.Error("a plain disk is taken where scratch must be sealed")
		}
	})
	t.Run("key", func(t *testing.T) {
		s, job, forget, all := left(t, "encrypt")
		if s.Scratch() != keyScratch || on(all()) {
			t.Fatalf("scratch is %s, or the disk has what was written", s.Scratch())
		}
		if b, err := os.ReadFile(filepath.Join(job, name)); err != nil || string(b) != marker {
			t.Errorf("the job reads %q, %v", b, err)
		}
		// As after a crash: nobody knows the key's name but the folder itself.
		if err := node.ForgetKey(job); err != nil {
			t.Fatal(err)
		}
		if _, err := os.ReadFile(filepath.Join(job, name)); err == nil {
			t.Error("the file opens without its key")
		}
		if err := forget(); err == nil {
			t.Error("the key was still there")
		}
		if _, err := New(t.Context(), Config{Dir: s.Dir(), Sealed: true}); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(job); !os.IsNotExist(err) {
			t.Error("what a crash left is there")
		}
		// As at a job's end: its folder is wiped before the key goes.
		if err := os.Mkdir(job, 0o700); err != nil {
			t.Fatal(err)
		}
		_, forget, err := s.Seal(job)
		if err != nil {
			t.Fatal(err)
		}
		if why := s.Standing().Refusal(); why != "" {
			t.Skip(why)
		}
		var log bytes.Buffer
		e, err := s.Run(t.Context(), Task{Name: "sealed", Dir: job, Work: job, Command: []string{"/bin/sh", "-c", "echo '" + marker + "' > " + name + "; cat " + name}, Env: []string{"PATH=/usr/bin:/bin"}, Timeout: 30 * time.Second, Log: &log}, nil)
		if err != nil || e.Code != 0 || log.String() != marker+"\n" {
			t.Errorf("%+v, %v, log %q", e, err, log.String())
		}
		if err := node.Wipe(job); err != nil {
			t.Fatal(err)
		}
		if err := forget(); err != nil {
			t.Error(err)
		}
		if on(all()) {
			t.Error("the disk has what was written")
		}
	})
	t.Run("a folder that is not empty", func(t *testing.T) {
		s, job, _, _ := left(t, "encrypt")
		full := filepath.Join(s.Dir(), "job-2")
		if err := os.MkdirAll(filepath.Join(full, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.Seal(full); err == nil {
			t.Error("it was sealed")
		}
		if err := node.ForgetKey(job); err != nil {
			t.Error(err)
		}
	})
	t.Run("memory", func(t *testing.T) {
		if !node.InMemory("/dev/shm") {
			t.Skip("/dev/shm is not in memory")
		}
		dir, err := os.MkdirTemp("/dev/shm", "castellan-test-")
		if err != nil {
			t.Skip(err)
		}
		defer os.RemoveAll(dir)
		if s, err := New(t.Context(), Config{Dir: filepath.Join(dir, "scratch"), Sealed: true}); err != nil || s.Scratch() != memoryScratch {
			t.Error(err)
		}
	})
}
