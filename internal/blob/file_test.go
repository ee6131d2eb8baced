package blob

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"castellan/internal/arm"
	"castellan/internal/seal"
	"castellan/internal/store"
)

// get reads a blob by HTTP, which may break off.
func (w *world) get(target string, headers ...string) (code int, body []byte, err error) {
	res, err := w.srv.Client().Do(w.request(reads, "GET", target, nil, headers...))
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	body, err = io.ReadAll(res.Body)
	return res.StatusCode, body, err
}

// Altered bytes on disk are never served as the blob: flipped, cut, grown,
// swapped within a file, between files and between accounts (KV-09, REL-08).
func TestAlteredFilesAreNotServed(t *testing.T) {
	w := newWorld(t)
	w.account("acct2", "")
	w.do(contrib, "PUT", "acct2:/con1?restype=container", nil, 201)
	const size = 3*chunkSize + 1000
	a, b, c := noise(size), noise(size + 1)[:size], noise(size + 2)[:size]
	w.do(contrib, "PUT", "acct1:/con1/a", a, 201)
	fileA := w.filesOnDisk()[0]
	w.do(contrib, "PUT", "acct1:/con1/b", b, 201)
	w.do(contrib, "PUT", "acct2:/con1/c", c, 201)
	var others []string
	for _, f := range w.filesOnDisk() {
		if f != fileA {
			others = append(others, f)
		}
	}
	good, err := os.ReadFile(fileA)
	w.must(err)
	read := func(f string) []byte { x, err := os.ReadFile(f); w.must(err); return x }
	chunkOf := func(x []byte, i int) []byte { return x[i*sealedMax : min((i+1)*sealedMax, len(x))] }
	swap := append([]byte(nil), good...)
	copy(swap[:sealedMax], chunkOf(good, 1))
	copy(swap[sealedMax:2*sealedMax], chunkOf(good, 0))
	cases := map[string][]byte{
		"cut by a byte": good[:len(good)-1], "cut by a chunk": good[:3*sealedMax], "empty": {}, "chunks swapped": swap,
		"the other blob's file": read(others[0]), "another blob's file": read(others[1]),
		"a chunk repeated": append(append([]byte(nil), good[:sealedMax]...), good[:len(good)-sealedMax]...),
		"another's chunk":  append(append([]byte(nil), good[:sealedMax]...), append(append([]byte(nil), chunkOf(read(others[0]), 1)...), good[2*sealedMax:]...)...),
		"all zero":         make([]byte, len(good)),
	}
	for _, i := range []int{0, 1, chunkSize - 1, chunkSize, sealedMax - 1, sealedMax, 2 * sealedMax, len(good) - 1, len(good) - tagSize} {
		x := append([]byte(nil), good...)
		x[i] ^= 1
		cases[fmt.Sprintf("a bit flipped at %d", i)] = x
	}
	for name, x := range cases {
		w.must(os.WriteFile(fileA, x, 0o600))
		code, body, err := w.get("acct1:/con1/a")
		if code == 200 && err == nil {
			t.Errorf("%s: it is served as whole", name)
		}
		if code == 200 && !bytes.HasPrefix(a, body) {
			t.Errorf("%s: %d wrong bytes are served", name, len(body))
		}
		for at := 0; at < size; at += chunkSize / 2 {
			code, body, err := w.get("acct1:/con1/a", fmt.Sprintf("Range: bytes=%d-%d", at, at+99))
			if end := min(at+100, size); code == 206 && err == nil && !bytes.Equal(body, a[at:end]) {
				t.Errorf("%s: a range at %d has wrong bytes", name, at)
			}
		}
		if code, body, err := w.get("acct1:/con1/b"); code != 200 || err != nil || !bytes.Equal(body, b) {
			t.Errorf("%s: the other blob is %d, %v", name, code, err)
		}
	}
	w.must(os.Remove(fileA))
	if code, _, _ := w.get("acct1:/con1/a"); code != 500 {
		t.Errorf("a lost file: %d, want 500", code)
	}
	w.must(os.WriteFile(fileA, append(append([]byte(nil), good...), "more"...), 0o600))
	if code, body, err := w.get("acct1:/con1/a"); code != 200 || err != nil || !bytes.Equal(body, a) {
		t.Errorf("what hangs behind the file's end is read: %d, %v", code, err)
	}
	w.must(os.WriteFile(fileA, good, 0o600))
	if code, body, err := w.get("acct1:/con1/a"); code != 200 || err != nil || !bytes.Equal(body, a) {
		t.Errorf("the file as it was: %d, %v", code, err)
	}
}

// Small pieces in the store are bound to their place too.
func TestSmallPiecesDoNotMove(t *testing.T) {
	w := newWorld(t)
	w.do(contrib, "PUT", "acct1:/con1/a", []byte("one"), 201)
	w.do(contrib, "PUT", "acct1:/con1/b", []byte("two"), 201)
	w.must(w.db.Do(t.Context(), func(tx *store.Tx) error {
		rows, err := tx.Scan(byteTable, "", "", 0)
		if err != nil {
			return err
		}
		if err := tx.Put(byteTable, rows[0].Key, rows[1].Value); err != nil {
			return err
		}
		return tx.Put(byteTable, rows[1].Key, rows[0].Value)
	}))
	for _, n := range []string{"a", "b"} {
		if code, body, _ := w.get("acct1:/con1/" + n); code != 500 {
			t.Errorf("%s: %d %s", n, code, body)
		}
	}
}

// A sealer and an opener agree about every size, and no chunk opens elsewhere.
func TestSealedFileForm(t *testing.T) {
	once := dataKey{Key: seal.Random()}
	t.Run("once", func(t *testing.T) { sealedFileForm(t, once, dataKey{Key: seal.Random()}) })
	both := dataKey{once.Key, seal.Random()}
	for _, other := range []dataKey{once, {once.Key, seal.Random()}, {seal.Random(), both.outer}, {Key: both.outer}} {
		t.Run("twice", func(t *testing.T) { sealedFileForm(t, both, other) })
	}
}

// sealedFileForm holds a file's form; what key sealed, other does not open.
func sealedFileForm(t *testing.T, key, other dataKey) {
	dir := t.TempDir()
	for _, n := range []int{1, 100, chunkSize - 1, chunkSize, chunkSize + 1, 3 * chunkSize} {
		path := filepath.Join(dir, fmt.Sprint(n))
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		s, err := newSealer(f, key, "id")
		if err != nil {
			t.Fatal(err)
		}
		data := noise(n)
		for rest := data; len(rest) > 0; {
			k := min(len(rest), 7001)
			if _, err := s.Write(rest[:k]); err != nil {
				t.Fatal(err)
			}
			rest = rest[k:]
		}
		if err := s.finish(); err != nil {
			t.Fatal(err)
		}
		s.free()
		chunks := (n + chunkSize - 1) / chunkSize
		if st, _ := f.Stat(); st.Size() != int64(n+chunks*tagSize) {
			t.Errorf("%d bytes make a file of %d, want %d", n, st.Size(), n+chunks*tagSize)
		}
		f.Close()
		open := func(k dataKey, id string, size int64) ([]byte, error) {
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			o, err := newOpener(f, k, piece{ID: id, Size: size}, 0, size, func() error { return nil })
			if err != nil {
				t.Fatal(err)
			}
			defer o.Close()
			return io.ReadAll(o)
		}
		if got, err := open(key, "id", int64(n)); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes: %v", n, err)
		}
		if _, err := open(key, "ie", int64(n)); err == nil {
			t.Errorf("%d bytes open under another id", n)
		}
		if _, err := open(other, "id", int64(n)); err == nil {
			t.Errorf("%d bytes open with another key", n)
		}
		if _, err := open(key, "id", int64(n-1)); err == nil && n > 1 {
			t.Errorf("%d bytes open as %d", n, n-1)
		}
	}
}

// No canary is in the clear in the data folder: no bytes, names, metadata or
// keys (KV-07). The scanner finds what is planted.
func TestNothingIsInTheClear(t *testing.T) {
	w := newWorld(t)
	var canaries []string
	canary := func() string {
		c := "canary" + arm.NewHex()
		canaries = append(canaries, c)
		return c
	}
	for i := range 40 {
		body := []byte(strings.Repeat(canary()+"\n", 1+i*i*3))
		w.do(contrib, "PUT", "acct1:/con1/"+canary(), body, 201, "x-ms-meta-"+canary()+": "+canary(), "x-ms-blob-content-type: "+canary())
	}
	w.do(contrib, "PUT", "acct1:/con1/log", nil, 201, "x-ms-blob-type: AppendBlob")
	w.do(contrib, "PUT", "acct1:/con1/log?comp=appendblock", []byte(canary()), 201)
	w.do(contrib, "PUT", "acct1:/con1/w?comp=block&blockid="+url.QueryEscape(base64.StdEncoding.EncodeToString([]byte(canary()))), []byte(canary()), 201)
	w.do(contrib, "PUT", "acct1:/con1/cut", []byte(canary()), 400, "Content-MD5: "+base64.StdEncoding.EncodeToString(make([]byte, 16)))
	for _, k := range []string{"key1", "key2"} {
		canaries = append(canaries, string(w.key("acct1", k)), base64.StdEncoding.EncodeToString(w.key("acct1", k)))
	}
	canaries = append(canaries, string(w.s.byName("acct1").Delegation), string(w.s.byName("acct1").plain.Bytes()), string(w.root.Bytes()))
	scan := func() (found int) {
		w.must(filepath.WalkDir(w.dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(p)
			for _, c := range canaries {
				if bytes.Contains(data, []byte(c)) || strings.Contains(p, c) {
					found++
				}
			}
			return err
		}))
		return found
	}
	if n := scan(); n != 0 {
		t.Errorf("%d canaries are in the clear", n)
	}
	planted := filepath.Join(w.dir, "blobs", "00", "planted")
	w.must(os.WriteFile(planted, []byte(strings.Join(canaries, " ")), 0o600))
	if n := scan(); n != len(canaries) {
		t.Errorf("the scanner found %d of %d planted", n, len(canaries))
	}
	w.must(w.s.sweep(t.Context()))
	if n := scan(); n != 0 {
		t.Error("a file that no row names is still there after the sweep")
	}
}

// The sweep removes what no row names and nothing else, also while uploads run.
func TestSweep(t *testing.T) {
	w := newWorld(t)
	w.still()
	w.do(contrib, "PUT", "acct1:/con1/b", noise(100000), 201)
	orphan := arm.NewHex()
	w.must(os.WriteFile(w.s.files.path(orphan), []byte("x"), 0o600))
	f, err := w.s.files.create(arm.NewHex())
	w.must(err)
	f.Close()
	w.must(w.s.sweep(t.Context()))
	if n := len(w.filesOnDisk()); n != 2 {
		t.Errorf("%d files are left, want that of the blob and that of the upload", n)
	}
	w.do(reads, "GET", "acct1:/con1/b", nil, 200)
	w.restart()
	w.still()
	w.must(w.s.sweep(t.Context()))
	if n := len(w.filesOnDisk()); n != 1 {
		t.Errorf("%d files are left after a restart, want that of the blob", n)
	}
	w.do(reads, "GET", "acct1:/con1/b", nil, 200)
}
