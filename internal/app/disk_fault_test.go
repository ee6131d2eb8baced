package app

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"
)

// written are blobs, small and large, until one is not taken; it gives those that
// were. The answer to the other is an error in the storage protocol's own words.
func (l *lab) written(t *testing.T, name string, most int) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for i := range most {
		u, data := fmt.Sprintf("%scon/%s%d", l.blobURL, name, i), bytesOf(fmt.Sprint(name, i), 1+i%2*(1<<20))
		a, err := l.send(l.blob, http.MethodPut, u, data, "x-ms-version", storageVersion, "x-ms-blob-type", "BlockBlob")
		if err != nil || a.status/100 == 5 {
			if err == nil && (!bytes.Contains(a.body, []byte("<Code>")) || bytes.Contains(a.body, []byte(l.dir))) {
				t.Errorf("the refusal is %d %s", a.status, a.body)
			}
			return out
		}
		if a.status != http.StatusCreated {
			t.Fatalf("PUT %s = %d %s", u, a.status, a.body)
		}
		out[u] = data
	}
	t.Fatalf("all of %d blobs were taken", most)
	return nil
}

func (l *lab) reads(t *testing.T, want map[string][]byte) {
	t.Helper()
	for u, data := range want {
		if a, err := l.send(l.blob, http.MethodGet, u, nil, "x-ms-version", storageVersion); err != nil || a.status != http.StatusOK || !bytes.Equal(a.body, data) {
			t.Errorf("%s, which was acknowledged, is %d with %d bytes of %d, %v", u, a.status, len(a.body), len(data), err)
		}
	}
}

// On a disk that is really full, blobs, secrets, people and resources are refused and
// what was there is served; once there is room all works again, without a restart.
func TestAFullDiskRefusesAndRecovers(t *testing.T) {
	t.Parallel()
	d := newImage(t)
	if d == nil {
		t.Skip("no file system can be mounted here")
	}
	s := spawn(t, d.at+"/data")
	l := newLab(t, s)
	filler := d.at + "/filler"
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	piece := make([]byte, 1<<20)
	for err == nil {
		_, err = f.Write(piece)
	}
	if st, _ := f.Stat(); st != nil { // leave room for some
		_ = f.Truncate(st.Size() - 24<<20)
	}
	_ = f.Close() // it is full
	before := l.written(t, "before", 200)
	small, err := os.Create(d.at + "/filler2")
	for err == nil {
		_, err = small.Write(piece[:4096])
	}
	_ = small.Close() // it is full
	secret := l.vaultURL + "secrets/s?api-version=7.4"
	refused := 0
	for i := range 40 { // what is left in the store's own files is used up
		a, err := l.send(l.vault, http.MethodPut, secret, map[string]any{"value": newCanary()})
		b, err2 := l.send(l.arm, http.MethodPut, l.url(fmt.Sprintf("%sfull%d", l.group, i)), map[string]any{"location": l.location, "tags": map[string]any{"t": string(bytesOf("tag", 100))}})
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		for _, r := range []reply{a, b} {
			if r.status/100 == 5 {
				refused++
				if bytes.Contains(r.body, []byte(s.dir)) || !bytes.Contains(r.body, []byte(`"error"`)) {
					t.Errorf("the refusal is %d %s", r.status, r.body)
				}
			}
		}
	}
	if refused == 0 {
		t.Error("with the disk full all secrets and groups were taken")
	}
	for _, name := range []string{filler, d.at + "/filler2"} {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	l.until(t, 20*time.Second, "it works again", func() bool {
		a, err := l.send(l.vault, http.MethodPut, secret, map[string]any{"value": "again"})
		b, err2 := l.send(l.blob, http.MethodPut, l.blobURL+"con/again", piece, "x-ms-version", storageVersion, "x-ms-blob-type", "BlockBlob")
		return err == nil && a.status == http.StatusOK && err2 == nil && b.status == http.StatusCreated
	})
	l.reads(t, before)
	s.stop(t)
	again := spawn(t, s.dir)
	l.door = again.door
	l.reads(t, before)
	again.stop(t)
}

// Where the disk below fails, so that fsync does, nothing is acknowledged that is not
// there once the disk is well again.
func TestAFailingDiskLosesNothing(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root mounts file systems")
	}
	below := t.TempDir()
	run := func(name string, args ...string) error {
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s %v: %w %s", name, args, err, out)
		}
		return nil
	}
	if err := run("mount", "-t", "tmpfs", "-o", "size=96m", "below", below); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = run("umount", "-l", below) }) // the kernel lets go of the disk in it a little later
	d := newImageIn(t, below)
	if d == nil {
		t.Skip("no file system can be mounted here")
	}
	s := spawn(t, d.at+"/data")
	l := newLab(t, s)
	kept := l.written(t, "kept", 300) // until there is no more of the disk than was promised
	if len(kept) == 0 {
		t.Fatal("nothing was written before the disk failed")
	}
	s.kill(t)
	unmount(t, d.at)
	if err := run("mount", "-o", "remount,size=600m", below); err != nil {
		t.Fatal(err)
	}
	_ = run("fsck.ext4", "-p", d.file) // 1 is that it mended something
	if err := run("mount", "-o", "loop", d.file, d.at); err != nil {
		t.Fatal(err)
	}
	again := spawn(t, s.dir)
	l.door = again.door
	t.Logf("%d blobs were acknowledged before the disk failed", len(kept))
	l.reads(t, kept)
	again.stop(t)
	a, err := New(t.Context(), Config{Data: s.dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Audit.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}
