package blob

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// pageModel is a page blob as it must be: its bytes, and for each page which write
// it is of; 0 is none.
type pageModel struct {
	data []byte
	by   []int
}

func (m pageModel) clone() pageModel { return pageModel{slices.Clone(m.data), slices.Clone(m.by)} }

// ranges are what Get Page Ranges must show of m since was.
func (m pageModel) ranges(was pageModel) (out []string) {
	kind := func(i int) string {
		old := 0
		if i < len(was.by) {
			old = was.by[i]
		}
		switch {
		case m.by[i] == old:
			return ""
		case m.by[i] == 0:
			return "ClearRange"
		}
		return "PageRange"
	}
	for i := 0; i < len(m.by); {
		j, k := i, kind(i)
		for j < len(m.by) && kind(j) == k {
			j++
		}
		if k != "" {
			out = append(out, fmt.Sprintf("%s %d-%d", k, i*pageSize, j*pageSize-1))
		}
		i = j
	}
	return out
}

func (w *world) ranges(target string) (out []string) {
	w.t.Helper()
	var list struct {
		Items []struct {
			XMLName    xml.Name
			Start, End int
		} `xml:",any"`
	}
	w.must(xml.Unmarshal([]byte(w.do(reads, "GET", target, nil, 200).body), &list))
	for _, r := range list.Items {
		out = append(out, fmt.Sprintf("%s %d-%d", r.XMLName.Local, r.Start, r.End))
	}
	return out
}

// However a page blob is written, cleared, resized and snapshotted, it and its
// snapshots read as they were, say exactly what was written and what is other
// since, and leave nothing behind. It holds over restarts.
func TestPagesAreExact(t *testing.T) {
	w := newWorld(t)
	const b = "acct1:/con1/disk"
	rnd := rand.New(rand.NewPCG(1, 2))
	m := pageModel{make([]byte, 300*pageSize), make([]int, 300)}
	w.do(contrib, "PUT", b, nil, 201, "x-ms-blob-type: PageBlob", fmt.Sprintf("x-ms-blob-content-length: %d", len(m.data)))
	past := map[string]pageModel{}
	look := func() {
		t.Helper()
		if got := w.do(reads, "GET", b, nil, 200).body; got != string(m.data) {
			t.Fatal("the blob reads otherwise")
		}
		if got, want := w.ranges(b+"?comp=pagelist"), m.ranges(pageModel{}); !slices.Equal(got, want) {
			t.Fatalf("its pages are %v, want %v", got, want)
		}
		for at, was := range past {
			if got := w.do(reads, "GET", b+"?snapshot="+at, nil, 200).body; got != string(was.data) {
				t.Fatalf("the snapshot %s reads otherwise", at)
			}
			if got, want := w.ranges(b+"?comp=pagelist&prevsnapshot="+at), m.ranges(was); !slices.Equal(got, want) {
				t.Fatalf("since %s there are %v, want %v", at, got, want)
			}
		}
	}
	for n := 1; n <= 120; n++ {
		pages := len(m.by)
		from := rnd.IntN(pages)
		to := from + 1 + rnd.IntN(min(pages-from, 1+rnd.IntN(100)))
		at := fmt.Sprintf("x-ms-range: bytes=%d-%d", from*pageSize, to*pageSize-1)
		switch k := rnd.IntN(20); {
		case k < 12:
			data := noise((to - from) * pageSize)
			data[0] = byte(n)
			w.do(contrib, "PUT", b+"?comp=page", data, 201, "x-ms-page-write: update", at)
			copy(m.data[from*pageSize:], data)
			for i := from; i < to; i++ {
				m.by[i] = n
			}
		case k < 16:
			w.do(contrib, "PUT", b+"?comp=page", nil, 201, "x-ms-page-write: clear", at)
			clear(m.data[from*pageSize : to*pageSize])
			clear(m.by[from:to])
		case k < 18:
			size := 200 + rnd.IntN(200)
			w.do(contrib, "PUT", b+"?comp=properties", nil, 200, fmt.Sprintf("x-ms-blob-content-length: %d", size*pageSize))
			m.data = append(m.data[:min(pages, size)*pageSize:min(pages, size)*pageSize], make([]byte, max(0, size-pages)*pageSize)...)
			m.by = append(m.by[:min(pages, size):min(pages, size)], make([]int, max(0, size-pages))...)
		case k < 19 || len(past) == 0:
			past[w.do(contrib, "PUT", b+"?comp=snapshot", nil, 201).header.Get("x-ms-snapshot")] = m.clone()
		default:
			for at := range past {
				w.do(contrib, "DELETE", b+"?snapshot="+at, nil, 202)
				delete(past, at)
				break
			}
		}
		if n%30 == 0 {
			look()
		}
	}
	w.restart()
	look()
	for range 20 {
		from := rnd.IntN(len(m.data))
		to := from + 1 + rnd.IntN(len(m.data)-from)
		if got := w.do(reads, "GET", b, nil, 206, fmt.Sprintf("Range: bytes=%d-%d", from, to-1)).body; got != string(m.data[from:to]) {
			t.Fatalf("the bytes %d to %d read otherwise", from, to)
		}
	}
	w.do(contrib, "DELETE", b, nil, 202, "x-ms-delete-snapshots: include")
	if n := w.rows(blobTable, pastTable, refTable, layoutTable, byteTable, fileTable); n > 0 || len(w.filesOnDisk()) > 0 {
		t.Errorf("%d rows and %d files are left", n, len(w.filesOnDisk()))
	}
}

// What a request to pages wants and may not have is refused by name, and changes
// nothing.
func TestPagesAreChecked(t *testing.T) {
	w := newWorld(t)
	const b = "acct1:/con1/disk"
	w.do(contrib, "PUT", b, nil, 400, "x-ms-blob-type: PageBlob")
	w.do(contrib, "PUT", b, nil, 400, "x-ms-blob-type: PageBlob", "x-ms-blob-content-length: 513")
	w.do(contrib, "PUT", b, nil, 400, "x-ms-blob-type: PageBlob", "x-ms-blob-content-length: 8796093022720")
	w.do(contrib, "PUT", b, nil, 400, "x-ms-blob-type: PageBlob", "x-ms-blob-content-length: 512", "x-ms-access-tier: Hot")
	w.do(contrib, "PUT", b, []byte("x"), 400, "x-ms-blob-type: PageBlob", "x-ms-blob-content-length: 512")
	w.do(contrib, "PUT", b, nil, 201, "x-ms-blob-type: PageBlob", "x-ms-blob-content-length: 8796093022208", "x-ms-blob-sequence-number: 7", "x-ms-blob-content-type: a/b")
	w.do(contrib, "PUT", "acct1:/con1/text", []byte(strings.Repeat("x", 512)), 201)
	page := noise(pageSize)
	first := []string{"x-ms-page-write: update", "x-ms-range: bytes=0-511"}
	if r := w.do(contrib, "PUT", b+"?comp=page", page, 201, first...); r.header.Get("x-ms-blob-sequence-number") != "7" || r.header.Get("Content-MD5") == "" {
		t.Errorf("a write is answered %v", r.header)
	}
	before := w.do(reads, "HEAD", b, nil, 200).header
	if before.Get("x-ms-blob-type") != pageBlob || before.Get("Content-Length") != "8796093022208" || before.Get("x-ms-access-tier") != "" {
		t.Errorf("the blob has %v", before)
	}
	for name, c := range map[string]struct {
		code    string
		status  int
		body    []byte
		headers []string
	}{
		"no range":                {"MissingRequiredHeader", 400, page, first[:1]},
		"part of a page":          {"InvalidPageRange", 416, page[:511], []string{first[0], "x-ms-range: bytes=0-510"}},
		"between two":             {"InvalidPageRange", 416, page, []string{first[0], "x-ms-range: bytes=256-767"}},
		"an open range":           {"InvalidPageRange", 416, page, []string{first[0], "x-ms-range: bytes=0-"}},
		"a range without end":     {"InvalidPageRange", 416, page, []string{first[0], "x-ms-range: bytes=0-9223372036854775807"}},
		"behind the end":          {"InvalidPageRange", 416, page, []string{first[0], "x-ms-range: bytes=8796093022208-8796093022719"}},
		"fewer bytes":             {"InvalidHeaderValue", 400, page[:100], first},
		"more bytes":              {"InvalidHeaderValue", 400, noise(1024), first},
		"too many bytes":          {"RequestBodyTooLarge", 413, noise(maxPageWrite + pageSize), []string{first[0], fmt.Sprintf("x-ms-range: bytes=0-%d", maxPageWrite+pageSize-1)}},
		"neither":                 {"InvalidHeaderValue", 400, page, first[1:]},
		"clear with bytes":        {"InvalidHeaderValue", 400, page, []string{"x-ms-page-write: clear", first[1]}},
		"another sum":             {"Md5Mismatch", 400, page, append([]string{"Content-MD5: 1B2M2Y8AsgTpgAmY7PhCfg=="}, first...)},
		"a sequence number below": {"SequenceNumberConditionNotMet", 412, page, append([]string{"x-ms-if-sequence-number-lt: 7"}, first...)},
		"at most":                 {"SequenceNumberConditionNotMet", 412, page, append([]string{"x-ms-if-sequence-number-le: 6"}, first...)},
		"equal":                   {"SequenceNumberConditionNotMet", 412, page, append([]string{"x-ms-if-sequence-number-eq: 8"}, first...)},
		"a negative one":          {"InvalidHeaderValue", 400, page, append([]string{"x-ms-if-sequence-number-eq: -1"}, first...)},
		"another etag":            {"ConditionNotMet", 412, page, append([]string{`If-Match: "0x1"`}, first...)},
		"no such lease":           {"LeaseNotPresentWithBlobOperation", 412, page, append([]string{"x-ms-lease-id: " + idA}, first...)},
		"a source of fewer bytes": {"InvalidHeaderValue", 400, nil, append([]string{"x-ms-copy-source: https://acct1.blob." + testSite.StorageSuffix() + "/con1/text", "x-ms-source-range: bytes=0-99"}, first...)},
	} {
		if r := w.do(contrib, "PUT", b+"?comp=page", c.body, c.status, c.headers...); r.header.Get("x-ms-error-code") != c.code {
			t.Errorf("%s: %s, want %s", name, r.header.Get("x-ms-error-code"), c.code)
		}
	}
	w.do(contrib, "PUT", "acct1:/con1/text?comp=page", page, 409, first...)
	w.do(contrib, "PUT", "acct1:/con1/none?comp=page", page, 404, first...)
	w.do(contrib, "GET", "acct1:/con1/text?comp=pagelist", nil, 409)
	w.do(contrib, "PUT", b+"?comp=appendblock", page, 409)
	w.do(contrib, "PUT", b+"?comp=block&blockid=QQ%3D%3D", page, 409)
	w.do(reads, "PUT", b+"?comp=page", page, 403, first...)
	for perms, status := range map[string]int{"rcatd": 403, "w": 201} {
		w.do("", "PUT", b+"?comp=page&"+serviceSAS(w.key("acct1", "key1"), "/blob/acct1/con1/disk", url.Values{"sp": {perms}}).Encode(), page, status, first...)
	}
	w.do("", "GET", b+"?comp=pagelist&"+serviceSAS(w.key("acct1", "key1"), "/blob/acct1/con1/disk", url.Values{"sp": {"w"}}).Encode(), nil, 403)
	if r := w.do(contrib, "PUT", b+"?comp=incrementalcopy", nil, 400, "x-ms-copy-source: https://x"); !strings.Contains(r.body, "incrementalcopy") {
		t.Errorf("an incremental copy is refused so: %s", r.body)
	}

	// The sequence number and the size change alone, and headers stay.
	for _, c := range []struct {
		action, number, want string
		status               int
	}{{"max", "5", "7", 200}, {"max", "9", "9", 200}, {"update", "3", "3", 200}, {"increment", "", "4", 200}, {"increment", "1", "4", 400}, {"update", "", "4", 400}, {"set", "1", "4", 400}, {"", "1", "4", 400}, {"update", "9223372036854775807", "9223372036854775807", 200}, {"increment", "", "9223372036854775807", 409}} {
		w.do(contrib, "PUT", b+"?comp=properties", nil, c.status, "x-ms-sequence-number-action: "+c.action, "x-ms-blob-sequence-number: "+c.number)
		if h := w.do(reads, "HEAD", b, nil, 200).header; h.Get("x-ms-blob-sequence-number") != c.want || h.Get("Content-Type") != "a/b" {
			t.Errorf("after %s %s the blob has %v", c.action, c.number, h)
		}
	}
	w.do(contrib, "PUT", b+"?comp=properties", nil, 400, "x-ms-blob-content-length: 100")
	w.do(contrib, "PUT", "acct1:/con1/text?comp=properties", nil, 409, "x-ms-blob-content-length: 512")
}

// Pages are copied from other blobs, lists of them come in parts, and what is
// other is asked only of what went before.
func TestPageRanges(t *testing.T) {
	w := newWorld(t)
	const b = "acct1:/con1/disk"
	make := func() {
		w.do(contrib, "PUT", b, nil, 201, "x-ms-blob-type: PageBlob", "x-ms-blob-content-length: 10240")
	}
	make()
	src := noise(2048)
	w.do(contrib, "PUT", "acct1:/con1/src", src, 201)
	w.do(contrib, "PUT", b+"?comp=page", nil, 201, "x-ms-page-write: update", "x-ms-range: bytes=1024-2047", "x-ms-copy-source: https://acct1.blob."+testSite.StorageSuffix()+"/con1/src", "x-ms-source-range: bytes=512-1535")
	w.do(contrib, "PUT", b+"?comp=page", src[:512], 201, "x-ms-page-write: update", "x-ms-range: bytes=4096-4607")
	if got := w.do(reads, "GET", b, nil, 200).body; !bytes.Equal([]byte(got)[1024:2048], src[512:1536]) || strings.Trim(got[2048:4096], "\x00") != "" {
		t.Error("the copied pages read otherwise")
	}
	r := w.do(reads, "GET", b+"?comp=pagelist&maxresults=1", nil, 200)
	_, next, _ := strings.Cut(r.body, "<NextMarker>")
	next, _, _ = strings.Cut(next, "<")
	if got := w.ranges(b + "?comp=pagelist&marker=" + url.QueryEscape(next)); len(got) != 1 || got[0] != "PageRange 4096-4607" {
		t.Errorf("the list goes on with %v", got)
	}
	if r := w.do(reads, "GET", b+"?comp=pagelist", nil, 200, "x-ms-range: bytes=1600-1700"); !strings.Contains(r.body, "<Start>1536</Start><End>2047</End>") || r.header.Get("x-ms-blob-content-length") != "10240" {
		t.Errorf("of a range there are %s", r.body)
	}
	one := w.do(contrib, "PUT", b+"?comp=snapshot", nil, 201).header.Get("x-ms-snapshot")
	two := w.do(contrib, "PUT", b+"?comp=snapshot", nil, 201).header.Get("x-ms-snapshot")
	if got := w.ranges(b + "?comp=pagelist&snapshot=" + two + "&prevsnapshot=" + one); len(got) != 0 {
		t.Errorf("two like snapshots differ in %v", got)
	}
	for target, code := range map[string]string{
		"&snapshot=" + one + "&prevsnapshot=" + two:  "PreviousSnapshotCannotBeNewer",
		"&prevsnapshot=2020-01-01T00:00:00.0000000Z": "PreviousSnapshotNotFound",
		"&prevsnapshot=yesterday":                    "InvalidQueryParameterValue",
		"&marker=no":                                 "InvalidQueryParameterValue",
	} {
		if r := w.do(reads, "GET", b+"?comp=pagelist"+target, nil, 0); r.header.Get("x-ms-error-code") != code {
			t.Errorf("%s: %s, want %s", target, r.header.Get("x-ms-error-code"), code)
		}
	}
	make() // another blob under the name
	if r := w.do(reads, "GET", b+"?comp=pagelist&prevsnapshot="+one, nil, 409); r.header.Get("x-ms-error-code") != "BlobOverwritten" {
		t.Errorf("since a snapshot of another blob: %s", r.body)
	}
	if got := w.ranges(b + "?comp=pagelist&snapshot=" + one); len(got) != 2 {
		t.Errorf("the snapshot has %v", got)
	}
}
