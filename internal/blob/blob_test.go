package blob

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc64"
	"net/http"
	"strings"
	"testing"
	"time"
)

// sizes are around every place where the way of keeping bytes changes.
var sizes = []int{0, 1, 4096, smallSize - 1, smallSize, smallSize + 1, chunkSize - 1, chunkSize, chunkSize + 1, 2 * chunkSize, largeUnit - 1, largeUnit, largeUnit + 1, largeUnit + chunkSize, 1<<20 + 12345}

// What was put is what is read, whatever its size, whole and in ranges.
func TestWhatWasPutIsRead(t *testing.T) {
	w := newWorld(t)
	for _, n := range sizes {
		data, at := noise(n), fmt.Sprintf("acct1:/con1/size/%d", n)
		sum := md5.Sum(data)
		r := w.do(contrib, "PUT", at, data, 201, "Content-MD5: "+base64.StdEncoding.EncodeToString(sum[:]))
		if r.header.Get("ETag") == "" || r.header.Get("Last-Modified") == "" || r.header.Get("Content-MD5") != base64.StdEncoding.EncodeToString(sum[:]) {
			t.Errorf("PUT of %d bytes: headers %v", n, r.header)
		}
		got := w.do(reads, "GET", at, nil, 200)
		if got.body != string(data) {
			t.Errorf("GET of %d bytes: they are others", n)
		}
		if got.header.Get("ETag") != r.header.Get("ETag") || got.header.Get("x-ms-blob-type") != "BlockBlob" || got.header.Get("Cache-Control") != "" {
			t.Errorf("GET of %d bytes: headers %v", n, got.header)
		}
		if h := w.do(reads, "HEAD", at, nil, 200); h.header.Get("Content-Length") != fmt.Sprint(n) {
			t.Errorf("HEAD of %d bytes: Content-Length %s", n, h.header.Get("Content-Length"))
		}
		for _, x := range [][2]int{{0, 0}, {0, n - 1}, {n - 1, n - 1}, {n / 2, n + 1000}, {chunkSize - 1, chunkSize}, {chunkSize, chunkSize}, {n / 3, 2 * n / 3}} {
			if x[0] < 0 || x[0] >= n || x[1] < x[0] {
				continue
			}
			end := min(x[1]+1, n)
			part := w.do(reads, "GET", at, nil, 206, fmt.Sprintf("x-ms-range: bytes=%d-%d", x[0], x[1]))
			if part.body != string(data[x[0]:end]) || part.header.Get("Content-Range") != fmt.Sprintf("bytes %d-%d/%d", x[0], end-1, n) {
				t.Errorf("range %v of %d bytes: %d bytes, %s", x, n, len(part.body), part.header.Get("Content-Range"))
			}
		}
		r = w.do(reads, "GET", at, nil, 416, fmt.Sprintf("Range: bytes=%d-", n))
		if r.header.Get("Content-Range") != fmt.Sprintf("bytes */%d", n) || r.header.Get("x-ms-error-code") != "InvalidRange" {
			t.Errorf("a range behind %d bytes: %v", n, r.header)
		}
	}
	w.restart()
	for _, n := range sizes {
		if got := w.do(reads, "GET", fmt.Sprintf("acct1:/con1/size/%d", n), nil, 200); got.body != string(noise(n)) {
			t.Errorf("after a restart, GET of %d bytes: they are others", n)
		}
	}
}

// Bytes that are not what their sender says they are are not kept.
func TestBytesMustBeWhatTheyAreSaidToBe(t *testing.T) {
	w := newWorld(t)
	for _, n := range []int{10, 300000} {
		data := noise(n)
		other := md5.Sum(noise(n + 1))
		wrong := base64.StdEncoding.EncodeToString(other[:])
		for _, h := range []string{"Content-MD5: " + wrong, "x-ms-blob-content-md5: " + wrong} {
			if r := w.do(contrib, "PUT", "acct1:/con1/b", data, 400, h); r.header.Get("x-ms-error-code") != "Md5Mismatch" {
				t.Errorf("%s: %s", h, r.header.Get("x-ms-error-code"))
			}
		}
		w.do(contrib, "PUT", "acct1:/con1/b", data, 400, "Content-MD5: !!")
		var sum [8]byte
		binary.LittleEndian.PutUint64(sum[:], crc64.Checksum(data, crc64.MakeTable(0x9A6C9329AC4BC9B5)))
		w.do(contrib, "PUT", "acct1:/con1/ok", data, 201, "x-ms-content-crc64: "+base64.StdEncoding.EncodeToString(sum[:]))
		sum[3]++
		w.do(contrib, "PUT", "acct1:/con1/b", data, 400, "x-ms-content-crc64: "+base64.StdEncoding.EncodeToString(sum[:]))
	}
	w.do(reads, "GET", "acct1:/con1/b", nil, 404)
	if n := len(w.filesOnDisk()); n != 1 {
		t.Errorf("%d files are left, want that of the one blob that was good", n)
	}
}

// A blob carries its headers and metadata, and both can be changed alone.
func TestHeadersAndMetadata(t *testing.T) {
	w := newWorld(t)
	r := w.do(contrib, "PUT", "acct1:/con1/b", []byte("x"), 201, "x-ms-blob-content-type: text/css", "x-ms-blob-cache-control: max-age=3", "x-ms-blob-content-disposition: inline", "x-ms-blob-content-encoding: gzip", "x-ms-blob-content-language: de", "x-ms-meta-Colour: blue", "x-ms-meta-n_1: 2")
	g := w.do(reads, "GET", "acct1:/con1/b", nil, 200, "Accept-Encoding: identity").header
	for k, v := range map[string]string{"Content-Type": "text/css", "Cache-Control": "max-age=3", "Content-Disposition": "inline", "Content-Encoding": "gzip", "Content-Language": "de", "x-ms-meta-colour": "blue", "x-ms-meta-n_1": "2", "ETag": r.header.Get("ETag")} {
		if g.Get(k) != v {
			t.Errorf("%s is %q, want %q", k, g.Get(k), v)
		}
	}
	m := w.do(contrib, "PUT", "acct1:/con1/b?comp=metadata", nil, 200, "x-ms-meta-only: this")
	g = w.do(reads, "HEAD", "acct1:/con1/b", nil, 200).header
	if g.Get("x-ms-meta-only") != "this" || g.Get("x-ms-meta-colour") != "" || g.Get("ETag") != m.header.Get("ETag") || g.Get("ETag") == r.header.Get("ETag") || g.Get("Content-Type") != "text/css" {
		t.Errorf("after Set Metadata: %v", g)
	}
	w.do(contrib, "PUT", "acct1:/con1/b?comp=properties", nil, 200, "x-ms-blob-content-type: a/b")
	g = w.do(reads, "GET", "acct1:/con1/b?comp=metadata", nil, 200).header
	if g.Get("x-ms-meta-only") != "this" {
		t.Errorf("Set Properties took the metadata: %v", g)
	}
	if g = w.do(reads, "HEAD", "acct1:/con1/b", nil, 200).header; g.Get("Content-Type") != "a/b" || g.Get("Cache-Control") != "" {
		t.Errorf("after Set Properties: %v", g)
	}
	w.do(contrib, "PUT", "acct1:/con1/b", nil, 400, "x-ms-meta-bad-name: x")
	w.do(contrib, "PUT", "acct1:/con1/b", nil, 400, "x-ms-meta-big: "+strings.Repeat("x", maxMeta+1))
}

// Conditions decide before anything changes, with the statuses that clients know.
func TestConditions(t *testing.T) {
	w := newWorld(t)
	tag := w.do(contrib, "PUT", "acct1:/con1/b", []byte("1"), 201, "If-None-Match: *").header.Get("ETag")
	now, before, after := w.clock().Format(http.TimeFormat), w.clock().Add(-time.Hour).Format(http.TimeFormat), w.clock().Add(time.Hour).Format(http.TimeFormat)
	for _, c := range []struct {
		method, header string
		want           int
		code           string
	}{
		{"GET", "If-Match: " + tag, 200, ""},
		{"GET", "If-Match: " + strings.Trim(tag, `"`), 200, ""},
		{"GET", `If-Match: "other"`, 412, "ConditionNotMet"},
		{"GET", "If-None-Match: " + tag, 304, "ConditionNotMet"},
		{"GET", `If-None-Match: "other"`, 200, ""},
		{"GET", "If-Modified-Since: " + now, 304, "ConditionNotMet"},
		{"GET", "If-Modified-Since: " + before, 200, ""},
		{"GET", "If-Unmodified-Since: " + before, 412, "ConditionNotMet"},
		{"GET", "If-Unmodified-Since: " + after, 200, ""},
		{"GET", "If-Modified-Since: yesterday", 400, "InvalidHeaderValue"},
		{"HEAD", "If-None-Match: " + tag, 304, "ConditionNotMet"},
		{"PUT", "If-None-Match: *", 409, "BlobAlreadyExists"},
		{"PUT", "If-None-Match: " + tag, 412, "ConditionNotMet"},
		{"PUT", `If-Match: "other"`, 412, "ConditionNotMet"},
		{"PUT", "If-Modified-Since: " + after, 412, "ConditionNotMet"},
		{"DELETE", `If-Match: "other"`, 412, "ConditionNotMet"},
		{"DELETE", "If-Unmodified-Since: " + before, 412, "ConditionNotMet"},
	} {
		r := w.do(contrib, c.method, "acct1:/con1/b", nil, c.want, c.header)
		if r.header.Get("x-ms-error-code") != c.code {
			t.Errorf("%s with %s: %s, want %s", c.method, c.header, r.header.Get("x-ms-error-code"), c.code)
		}
	}
	if got := w.do(reads, "GET", "acct1:/con1/b", nil, 200); got.body != "1" {
		t.Errorf("a refused change was made: %q", got.body)
	}
	w.do(contrib, "PUT", "acct1:/con1/new", nil, 412, "If-Match: *")
	w.do(contrib, "DELETE", "acct1:/con1/b", nil, 202, "If-Match: "+tag)
	w.do(contrib, "DELETE", "acct1:/con1/b", nil, 404)
}

// Of many writers with one etag, one writes.
func TestOneOfManyWritesUnderAnETag(t *testing.T) {
	w := newWorld(t)
	tag := w.do(contrib, "PUT", "acct1:/con1/b", []byte("0"), 201).header.Get("ETag")
	codes := make(chan int, 20)
	for i := range 20 {
		go func() {
			res, err := w.srv.Client().Do(w.request(contrib, "PUT", "acct1:/con1/b", noise(smallSize*(i%2*2)+i), "If-Match: "+tag))
			if err != nil {
				codes <- 0
				return
			}
			res.Body.Close()
			codes <- res.StatusCode
		}()
	}
	got := map[int]int{}
	for range 20 {
		got[<-codes]++
	}
	if got[201] != 1 || got[412] != 19 {
		t.Errorf("20 writes under one etag ended %v, want one 201 and 19 412", got)
	}
}

func blockID(i int) string { return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%05d", i)) }

func blocksXML(lines ...string) []byte {
	return []byte(`<?xml version="1.0" encoding="utf-8"?><BlockList>` + strings.Join(lines, "") + `</BlockList>`)
}

// A blob is made of the blocks that its list names, in that order; the others
// are gone.
func TestBlocks(t *testing.T) {
	w := newWorld(t)
	var want []byte
	var list []string
	for i := range 12 {
		data := noise(20000*i + 1)
		w.do(contrib, "PUT", "acct1:/con1/b?comp=block&blockid="+strings.ReplaceAll(blockID(i), "=", "%3D"), data, 201)
		if i != 3 {
			want = append(want, data...)
			list = append(list, "<Latest>"+blockID(i)+"</Latest>")
		}
	}
	w.do(reads, "GET", "acct1:/con1/b", nil, 404)
	if r := w.do(reads, "GET", "acct1:/con1/b?comp=blocklist&blocklisttype=all", nil, 200); strings.Count(r.body, "<Block>") != 12 {
		t.Errorf("before the commit the block list is %s", r.body)
	}
	w.do(contrib, "PUT", "acct1:/con1/b?comp=blocklist", blocksXML(list...), 201, "x-ms-blob-content-type: x/y", "x-ms-meta-a: b")
	got := w.do(reads, "GET", "acct1:/con1/b", nil, 200)
	if got.body != string(want) || got.header.Get("Content-Type") != "x/y" || got.header.Get("x-ms-meta-a") != "b" {
		t.Errorf("the blob has %d bytes, want %d: %v", len(got.body), len(want), got.header)
	}
	for _, from := range []int{0, 1, 20001, 60000, len(want) - 1} {
		to := min(from+250000, len(want))
		if r := w.do(reads, "GET", "acct1:/con1/b", nil, 206, fmt.Sprintf("Range: bytes=%d-%d", from, to-1)); r.body != string(want[from:to]) {
			t.Errorf("the range %d-%d is other bytes", from, to)
		}
	}
	if r := w.do(reads, "GET", "acct1:/con1/b?comp=blocklist&blocklisttype=all", nil, 200); strings.Count(r.body, "<Block>") != 11 {
		t.Errorf("after the commit the block list is %s", r.body)
	}
	// Some committed blocks again, one twice, and a new one.
	w.do(contrib, "PUT", "acct1:/con1/b?comp=block&blockid="+strings.ReplaceAll(blockID(99), "=", "%3D"), []byte("new"), 201)
	w.do(contrib, "PUT", "acct1:/con1/b?comp=blocklist", blocksXML("<Committed>"+blockID(11)+"</Committed>", "<Uncommitted>"+blockID(99)+"</Uncommitted>", "<Committed>"+blockID(11)+"</Committed>"), 201)
	want = append(append(noise(220001), "new"...), noise(220001)...)
	if got := w.do(reads, "GET", "acct1:/con1/b", nil, 200); got.body != string(want) {
		t.Errorf("the second list makes %d bytes, want %d", len(got.body), len(want))
	}
	if n := len(w.filesOnDisk()); n != 1 || w.rows(blockTable) != 0 || w.rows(byteTable) != 1 || w.rows(fileTable) != 1 {
		t.Errorf("%d files, %d waiting blocks, %d small pieces are left; want 1, 0, 1", n, w.rows(blockTable), w.rows(byteTable))
	}
	w.do(contrib, "PUT", "acct1:/con1/b?comp=blocklist", blocksXML("<Committed>"+blockID(1)+"</Committed>"), 400)
	w.do(contrib, "PUT", "acct1:/con1/b?comp=blocklist", blocksXML("<Uncommitted>"+blockID(11)+"</Uncommitted>"), 400)
	w.do(contrib, "PUT", "acct1:/con1/b?comp=block&blockid="+strings.ReplaceAll(blockID(1), "=", "%3D"), []byte("x"), 201)
	w.do(contrib, "PUT", "acct1:/con1/b?comp=block&blockid=QQ%3D%3D", []byte("x"), 400)
	w.do(contrib, "PUT", "acct1:/con1/b?comp=block&blockid=***", []byte("x"), 400)
	w.do(contrib, "PUT", "acct1:/con1/b?comp=block&blockid="+blockID(2)[:4], nil, 400)
	w.do(contrib, "PUT", "acct1:/con1/b", []byte("whole"), 201)
	w.do(contrib, "DELETE", "acct1:/con1/b", nil, 202)
	if n := len(w.filesOnDisk()); n != 0 || w.rows(blockTable, byteTable, fileTable, layoutTable, blobTable) != 0 {
		t.Errorf("after the deletion %d files and %d rows are left", n, w.rows(blockTable, byteTable, fileTable, layoutTable, blobTable))
	}
}

// An append blob grows at its end alone, and only from where the writer thinks
// that it is.
func TestAppend(t *testing.T) {
	w := newWorld(t)
	w.do(contrib, "PUT", "acct1:/con1/log?comp=appendblock", []byte("x"), 404)
	w.do(contrib, "PUT", "acct1:/con1/log", []byte("x"), 400, "x-ms-blob-type: AppendBlob")
	w.do(contrib, "PUT", "acct1:/con1/log", nil, 201, "x-ms-blob-type: AppendBlob", "x-ms-blob-content-type: text/plain")
	var want []byte
	for i := range 60 {
		data := noise(i * i * 37 % 50000 * (i % 3))
		if len(data) == 0 {
			data = []byte("line\n")
		}
		r := w.do(contrib, "PUT", "acct1:/con1/log?comp=appendblock", data, 201, fmt.Sprintf("x-ms-blob-condition-appendpos: %d", len(want)))
		if r.header.Get("x-ms-blob-append-offset") != fmt.Sprint(len(want)) || r.header.Get("x-ms-blob-committed-block-count") != fmt.Sprint(i+1) {
			t.Errorf("append %d: %v", i, r.header)
		}
		want = append(want, data...)
	}
	if r := w.do(contrib, "PUT", "acct1:/con1/log?comp=appendblock", []byte("x"), 412, "x-ms-blob-condition-appendpos: 0"); r.header.Get("x-ms-error-code") != "AppendPositionConditionNotMet" {
		t.Errorf("another position: %v", r.header)
	}
	w.do(contrib, "PUT", "acct1:/con1/log?comp=appendblock", []byte("x"), 412, fmt.Sprintf("x-ms-blob-condition-maxsize: %d", len(want)))
	got := w.do(reads, "GET", "acct1:/con1/log", nil, 200)
	if got.body != string(want) || got.header.Get("x-ms-blob-type") != "AppendBlob" {
		t.Errorf("the log has %d bytes, want %d", len(got.body), len(want))
	}
	w.do(contrib, "PUT", "acct1:/con1/b", []byte("x"), 201)
	w.do(contrib, "PUT", "acct1:/con1/b?comp=appendblock", []byte("x"), 409)
	w.do(contrib, "PUT", "acct1:/con1/log?comp=block&blockid=QQ%3D%3D", []byte("x"), 409)
	w.do(contrib, "DELETE", "acct1:/con1/log", nil, 202)
	w.do(contrib, "DELETE", "acct1:/con1/b", nil, 202)
	if n := len(w.filesOnDisk()); n != 0 || w.rows(byteTable, fileTable, layoutTable) != 0 {
		t.Errorf("after the deletion %d files and %d rows are left", n, w.rows(byteTable, fileTable, layoutTable))
	}
}

// A reader sees the blob as it was when it began, though it is replaced, grown
// or deleted meanwhile.
func TestAReaderSeesOneBlob(t *testing.T) {
	w := newWorld(t)
	w.do(contrib, "PUT", "acct1:/con1/b?comp=block&blockid=MQ%3D%3D", noise(100000), 201)
	w.do(contrib, "PUT", "acct1:/con1/b?comp=block&blockid=Mg%3D%3D", noise(200000), 201)
	w.do(contrib, "PUT", "acct1:/con1/b?comp=blocklist", blocksXML("<Latest>MQ==</Latest>", "<Latest>Mg==</Latest>"), 201)
	w.do(contrib, "PUT", "acct1:/con1/log", nil, 201, "x-ms-blob-type: AppendBlob")
	w.do(contrib, "PUT", "acct1:/con1/log?comp=appendblock", []byte("one\n"), 201)
	for _, c := range []struct {
		blob string
		want []byte
		act  func()
	}{
		{"log", []byte("one\n"), func() { w.do(contrib, "PUT", "acct1:/con1/log?comp=appendblock", []byte("two\n"), 201) }},
		{"b", append(noise(100000), noise(200000)...), func() {
			w.do(contrib, "PUT", "acct1:/con1/b?comp=blocklist", blocksXML("<Committed>Mg==</Committed>"), 201)
		}},
		{"b", noise(200000), func() { w.do(contrib, "PUT", "acct1:/con1/b", noise(300000), 201) }},
		{"b", noise(300000), func() { w.do(contrib, "DELETE", "acct1:/con1/b", nil, 202) }},
	} {
		g := w.admit(person(reads), BlobRead, "con1", c.blob)
		body, _, err := w.s.Read(t.Context(), g, 0, -1)
		w.must(err)
		c.act()
		var got bytes.Buffer
		if _, err := got.ReadFrom(body); err != nil {
			t.Errorf("reading %s: %v", c.blob, err)
		}
		if !bytes.Equal(got.Bytes(), c.want) {
			t.Errorf("%s is %d bytes, want %d", c.blob, got.Len(), len(c.want))
		}
		body.Close()
		w.must(g.Close(t.Context(), nil))
	}
	if n := len(w.filesOnDisk()); n != 0 {
		t.Errorf("%d files are left once nobody reads them", n)
	}
}

// A copy is made of what the caller may read, and of nothing else.
func TestCopy(t *testing.T) {
	w := newWorld(t)
	w.account("acct2", "")
	w.do(contrib, "PUT", "acct2:/con2?restype=container", nil, 201)
	data := noise(200000)
	w.do(contrib, "PUT", "acct1:/con1/src", data, 201, "x-ms-blob-content-type: x/y", "x-ms-meta-a: b")
	src := "https://acct1.blob.core.castellan.localhost/con1/src"
	r := w.do(contrib, "PUT", "acct2:/con2/dst", nil, 202, "x-ms-copy-source: "+src)
	if r.header.Get("x-ms-copy-status") != "success" || r.header.Get("x-ms-copy-id") == "" {
		t.Errorf("the copy's headers: %v", r.header)
	}
	got := w.do(reads, "GET", "acct2:/con2/dst", nil, 200)
	if got.body != string(data) || got.header.Get("Content-Type") != "x/y" || got.header.Get("x-ms-meta-a") != "b" || got.header.Get("x-ms-copy-source") != src {
		t.Errorf("the copy: %d bytes, %v", len(got.body), got.header)
	}
	only := "00000000-0000-0000-0000-0000000000c2"
	w.give(only, "Storage Blob Data Contributor", accounts+"acct2")
	w.do(only, "PUT", "acct2:/con2/stolen", nil, 403, "x-ms-copy-source: "+src)
	key := w.key("acct1", "key1")
	q := serviceSAS(key, "/blob/acct1/con1/src", nil)
	w.do(only, "PUT", "acct2:/con2/lent", nil, 202, "x-ms-copy-source: "+src+"?"+q.Encode())
	q = serviceSAS(key, "/blob/acct1/con1/other", nil)
	w.do(only, "PUT", "acct2:/con2/stolen", nil, 403, "x-ms-copy-source: "+src+"?"+q.Encode())
	w.do(contrib, "PUT", "acct2:/con2/gone", nil, 404, "x-ms-copy-source: "+src+"x")
	w.do(contrib, "PUT", "acct2:/con2/gone", nil, 412, "x-ms-copy-source: "+src, `x-ms-source-if-match: "x"`)
	for _, u := range []string{"http://acct1.blob.core.castellan.localhost/con1/src", "https://example.com/con1/src", "https://169.254.169.254/x/y", "file:///etc/passwd", "https://a@acct1.blob.core.castellan.localhost/con1/src", "%"} {
		w.do(contrib, "PUT", "acct2:/con2/gone", nil, 400, "x-ms-copy-source: "+u)
	}
	w.do("key1", "PUT", "acct1:/con1/copy", nil, 202, "x-ms-copy-source: "+src)
	w.do(reads, "GET", "acct2:/con2/stolen", nil, 404)
}

// What a container held is gone with it, bytes and all, and what takes its name
// finds nothing.
func TestADeletedContainerLeavesNothing(t *testing.T) {
	w := newWorld(t)
	w.still()
	for i := range 30 {
		w.do(contrib, "PUT", fmt.Sprintf("acct1:/con1/b%d", i), noise(i*5000), 201)
	}
	w.do(contrib, "PUT", "acct1:/con1/w?comp=block&blockid=MQ%3D%3D", noise(100000), 201)
	w.do(contrib, "DELETE", "acct1:/con1?restype=container", nil, 202)
	w.do(reads, "GET", "acct1:/con1/b9", nil, 404)
	w.do(contrib, "PUT", "acct1:/con1?restype=container", nil, 201)
	w.do(reads, "GET", "acct1:/con1/b9", nil, 404)
	w.must(w.s.empty(t.Context()))
	if n := len(w.filesOnDisk()); n != 0 || w.rows(blobTable, blockTable, byteTable, fileTable, layoutTable, trashTable) != 0 {
		t.Errorf("%d files and %d rows are left", n, w.rows(blobTable, blockTable, byteTable, fileTable, layoutTable, trashTable))
	}
	w.do(contrib, "PUT", "acct1:/con1/b", noise(100000), 201)
	w.do(owner, "DELETE", "arm:"+accounts+"acct1", nil, 200)
	w.do(contrib, "GET", "acct1:/con1/b", nil, 404)
	w.must(w.s.empty(t.Context()))
	if n := len(w.filesOnDisk()); n != 0 || w.rows(accountTable, containerTable, blobTable, fileTable, trashTable) != 0 {
		t.Errorf("after the account's deletion %d files and %d rows are left", n, w.rows(accountTable, containerTable, blobTable, fileTable, trashTable))
	}
	w.account("acct1", "")
	w.do(contrib, "PUT", "acct1:/con1?restype=container", nil, 201)
	if l := w.do(reads, "GET", "acct1:/con1?restype=container&comp=list", nil, 200).list(); len(l.Blobs) != 0 {
		t.Errorf("the new account has %v", l.Blobs)
	}
}

// A block that is never committed is removed in the end.
func TestBlocksDoNotWaitForEver(t *testing.T) {
	w := newWorld(t)
	w.still()
	w.do(contrib, "PUT", "acct1:/con1/b?comp=block&blockid=MQ%3D%3D", noise(100000), 201)
	w.pass(blockLife - time.Minute)
	w.do(contrib, "PUT", "acct1:/con1/b?comp=block&blockid=Mg%3D%3D", noise(100000), 201)
	w.must(w.s.expire(t.Context()))
	if n := w.rows(blockTable); n != 2 {
		t.Errorf("%d blocks are left, want both", n)
	}
	w.pass(2 * time.Minute)
	w.must(w.s.expire(t.Context()))
	if n, m := w.rows(blockTable), len(w.filesOnDisk()); n != 1 || m != 1 {
		t.Errorf("%d blocks and %d files are left, want one", n, m)
	}
}
