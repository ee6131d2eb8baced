package blob

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
)

// dial is a raw connection to the server.
func (w *world) dial() net.Conn {
	w.t.Helper()
	c, err := tls.Dial("tcp", w.srv.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	w.must(err)
	w.must(c.SetDeadline(time.Now().Add(20 * time.Second)))
	return c
}

func putHead(path string, length int64) string {
	return fmt.Sprintf("PUT %s HTTP/1.1\r\nHost: acct1.blob.core.castellan.localhost\r\nAuthorization: Bearer %s\r\nx-ms-version: 2023-11-03\r\nx-ms-blob-type: BlockBlob\r\nContent-Length: %d\r\n\r\n", path, contrib, length)
}

// A body that ends early leaves nothing, and what was there stays, whether it is
// small or large, a blob, a block or an append.
func TestACutUploadLeavesNothing(t *testing.T) {
	w := newWorld(t)
	w.do(contrib, "PUT", "acct1:/con1/b", []byte("old"), 201)
	w.do(contrib, "PUT", "acct1:/con1/log", nil, 201, "x-ms-blob-type: AppendBlob")
	for _, path := range []string{"/con1/b", "/con1/new", "/con1/b?comp=block&blockid=QQ%3D%3D", "/con1/log?comp=appendblock"} {
		for _, n := range []int{0, 10, smallSize, smallSize + 10, 300000, 600000} {
			c := w.dial()
			_, err := io.WriteString(c, putHead(path, 1<<20))
			w.must(err)
			_, err = c.Write(noise(n))
			w.must(err)
			w.must(c.(*tls.Conn).CloseWrite())
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err == nil && res.StatusCode < 400 {
				t.Errorf("%s: %d bytes of a MiB = %d", path, n, res.StatusCode)
			}
			c.Close()
		}
	}
	if r := w.do(reads, "GET", "acct1:/con1/b", nil, 200); r.body != "old" {
		t.Errorf("what was there is %d bytes", len(r.body))
	}
	w.do(reads, "GET", "acct1:/con1/new", nil, 404)
	if n := len(w.filesOnDisk()); n != 0 || w.rows(blockTable, fileTable) != 0 || w.rows(byteTable) != 1 {
		t.Errorf("%d files, %d rows of files and blocks, %d small pieces are left; want 0, 0, 1", n, w.rows(blockTable, fileTable), w.rows(byteTable))
	}
}

// An upload that stands still is cut, and leaves nothing.
func TestAStalledUploadIsCut(t *testing.T) {
	w := newWorld(t)
	w.s.Patience = 100 * time.Millisecond
	c := w.dial()
	defer c.Close()
	_, err := io.WriteString(c, putHead("/con1/b", 1<<20))
	w.must(err)
	_, err = c.Write(noise(300000))
	w.must(err)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err == nil && res.StatusCode < 400 {
		t.Errorf("a stalled upload = %d", res.StatusCode)
	}
	if err != nil && strings.Contains(err.Error(), "timeout") {
		t.Error("the upload was not cut")
	}
	if n := len(w.filesOnDisk()); n != 0 {
		t.Errorf("%d files are left", n)
	}
}

// A size that is more than Azure's largest is refused before a byte is read, and
// so is one that is not said.
func TestTooMuchIsRefusedUnread(t *testing.T) {
	w := newWorld(t)
	for path, n := range map[string]int64{"/con1/b": 5 << 40, "/con1/c": maxPut + 1, "/con1/d?comp=block&blockid=QQ%3D%3D": maxBlock + 1, "/con1/e?comp=appendblock": maxAppend + 1} {
		c := w.dial()
		_, err := io.WriteString(c, putHead(path, n))
		w.must(err)
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		w.must(err)
		if res.StatusCode != 413 || res.Header.Get("x-ms-error-code") != "RequestBodyTooLarge" {
			t.Errorf("%s of %d bytes = %d %s", path, n, res.StatusCode, res.Header.Get("x-ms-error-code"))
		}
		c.Close()
	}
	r := w.request(contrib, "PUT", "acct1:/con1/b", nil)
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader("x")), -1
	res, err := w.srv.Client().Do(r)
	w.must(err)
	if res.Body.Close(); res.StatusCode != 411 {
		t.Errorf("a body of unknown length = %d, want 411", res.StatusCode)
	}
	w.do(contrib, "PUT", "acct1:/con1/b?comp=blocklist", bytes.Repeat([]byte(" "), maxXML+1), 413)
}

// counted yields n bytes and is gone.
type counted struct{ n int64 }

func (c *counted) Read(p []byte) (int, error) {
	if c.n <= 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), c.n)
	c.n -= n
	return int(n), nil
}

// Memory does not grow with a blob: neither by writing nor by reading one.
func TestMemoryIsBounded(t *testing.T) {
	w := newWorldAlone(t)
	const size = 96 << 20
	var before, peak runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	g := w.admit(person(contrib), BlobWrite, "con1", "large")
	_, err := w.s.Write(t.Context(), g, &counted{size}, size, "", nil)
	w.must(g.Close(t.Context(), err))
	g = w.admit(person(reads), BlobRead, "con1", "large")
	body, info, err := w.s.Read(t.Context(), g, 0, -1)
	w.must(err)
	n, err := io.Copy(io.Discard, body)
	w.must(err)
	w.must(body.Close())
	w.must(g.Close(t.Context(), nil))
	runtime.ReadMemStats(&peak)
	if n != size || info.Size != size {
		t.Errorf("%d bytes were read of %d", n, size)
	}
	if grown := peak.TotalAlloc - before.TotalAlloc; grown > 16<<20 {
		t.Errorf("%d bytes were allocated for a blob of %d", grown, size)
	}
}

// A write whose caller goes away leaves nothing.
func TestInsideWritesAreWholeOrNotAtAll(t *testing.T) {
	w := newWorld(t)
	for _, n := range []int64{10, 100000} {
		for _, said := range []int64{n + 1, n - 1} {
			g := w.admit(person(contrib), BlobWrite, "con1", "b")
			_, err := w.s.Write(t.Context(), g, &counted{n}, said, "", nil)
			if err == nil {
				t.Errorf("%d bytes said to be %d were taken", n, said)
			}
			_ = g.Close(t.Context(), err)
		}
		g := w.admit(person(contrib), BlobWrite, "con1", "b")
		_, err := w.s.Write(t.Context(), g, io.MultiReader(&counted{n}, brokenBody{}), -1, "", nil)
		if err == nil {
			t.Error("a brokenBody reader was taken for the end")
		}
		_ = g.Close(t.Context(), err)
	}
	w.do(reads, "GET", "acct1:/con1/b", nil, 404)
	if n := len(w.filesOnDisk()); n != 0 {
		t.Errorf("%d files are left", n)
	}
}

type brokenBody struct{}

func (brokenBody) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
