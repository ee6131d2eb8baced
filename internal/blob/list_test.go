package blob

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// odd are names that a file system, a shell or a URL could take for something else.
var odd = []string{
	"a//b", "a/", "/a", "//", `a\b`, "a.", "a..", "..a", "...", "A", "a", "ä", "a\u0308", " ", " a ", "a b", "%2e%2e", "%00", "a%2fb", "a?b", "a#b", "a&b=c", "<x>&amp;", `"'`, "CON", ".hidden", "~", "-rf",
	"\u202eabc", "\U0001f4a9", "😀/😀", "a;b", "a+b", "a=b", "\ufeffx", strings.Repeat("x", 1024), strings.Repeat("y/", 253) + "y", "\u017f", "\u212a", "K", "k",
}

func escape(name string) string { return strings.ReplaceAll(url.PathEscape(name), "+", "%2B") }

// Names are opaque: each is its own blob, and a list returns exactly what was
// put (STO-09). No file is named by them.
func TestNamesAreOpaque(t *testing.T) {
	w := newWorld(t)
	for i, n := range odd {
		w.do(contrib, "PUT", "acct1:/con1/"+escape(n), fmt.Appendf(nil, "%d", i), 201)
	}
	for i, n := range odd {
		if got := w.do(reads, "GET", "acct1:/con1/"+escape(n), nil, 200); got.body != fmt.Sprint(i) {
			t.Errorf("%q is %q, want %d", n, got.body, i)
		}
	}
	want := slices.Sorted(slices.Values(odd))
	if got := w.listAll("con1", "", "", 7); !slices.Equal(got, want) {
		t.Errorf("the list has\n%q, want\n%q", got, want)
	}
	bad := map[string]int{
		"..%2fx": 400, "%2e%2e/x": 400, "a/../b": 400, "a/./b": 400, "a%00b": 400, "%0a": 400, "%c0%af": 400, "%ff": 400, "%ef%bf%bf": 400, "%7f": 400, "..": 400, ".": 400,
		strings.Repeat("x", 1025): 400, strings.Repeat("y/", 254) + "y": 400, "%c2%85": 400, "a%2F..%2Fb": 400, "%f4%8f%bf%bf": 400,
	}
	for n, code := range bad {
		r := w.request(contrib, "PUT", "acct1:/con1/x", []byte("x"))
		r.URL.Opaque = "/con1/" + n // sent as it is
		res, err := w.srv.Client().Do(r)
		w.must(err)
		if res.Body.Close(); res.StatusCode != code {
			t.Errorf("PUT of %q = %d, want %d", n, res.StatusCode, code)
		}
	}
	if got := w.listAll("con1", "", "", 5000); !slices.Equal(got, want) {
		t.Error("a refused name is there")
	}
	for _, f := range w.filesOnDisk() {
		if !strings.HasPrefix(f, w.dir+"/blobs/") {
			t.Errorf("%s is outside", f)
		}
	}
}

// listAll walks a list to its end, page by page.
func (w *world) listAll(container, prefix, delimiter string, page int) (out []string) {
	w.t.Helper()
	for marker, n := "", 0; ; n++ {
		q := url.Values{"prefix": {prefix}, "delimiter": {delimiter}, "marker": {marker}, "maxresults": {fmt.Sprint(page)}}
		for k := range q {
			if q.Get(k) == "" {
				delete(q, k)
			}
		}
		l := w.do(reads, "GET", "acct1:/"+container+"?restype=container&comp=list&"+q.Encode(), nil, 200).list()
		if len(l.Blobs)+len(l.Prefixes) > page {
			w.t.Errorf("a page has %d entries, want at most %d", len(l.Blobs)+len(l.Prefixes), page)
		}
		out = append(append(out, l.Blobs...), l.Prefixes...)
		if marker = l.Next; marker == "" || n > 10000 {
			slices.Sort(out)
			return out
		}
	}
}

// A list shows what a plain filter over all names does, whatever prefix,
// delimiter and page.
func TestListIsExact(t *testing.T) {
	w := newWorld(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	parts := []string{"a", "b", "ab", "a/", "b/", "/", "//", "-", "z/z"}
	names := map[string]bool{}
	for len(names) < 120 {
		n := ""
		for range 1 + rnd.IntN(5) {
			n += parts[rnd.IntN(len(parts))]
		}
		names[n] = true
	}
	for n := range names {
		gr := w.admit(person(contrib), BlobWrite, "con1", n)
		_, err := w.s.Write(t.Context(), gr, strings.NewReader("x"), -1, "", nil)
		w.must(gr.Close(t.Context(), err))
	}
	for _, prefix := range []string{"", "a", "a/", "b", "/", "//", "nothing", "ab/a"} {
		for _, delimiter := range []string{"", "/", "//", "b", "-"} {
			want := map[string]bool{}
			for n := range names {
				rest, ok := strings.CutPrefix(n, prefix)
				if !ok {
					continue
				}
				if i := strings.Index(rest, delimiter); delimiter != "" && i >= 0 {
					n = prefix + rest[:i] + delimiter
				}
				want[n] = true
			}
			for _, page := range []int{3, 100, 5000} {
				var wanted []string
				for n := range want {
					wanted = append(wanted, n)
				}
				slices.Sort(wanted)
				if got := w.listAll("con1", prefix, delimiter, page); !slices.Equal(got, wanted) {
					t.Errorf("prefix %q, delimiter %q, pages of %d: %d entries, want %d\n%q\n%q", prefix, delimiter, page, len(got), len(wanted), got, wanted)
				}
			}
		}
	}
}

// Lists show metadata if asked, refuse what they can't show, and go on only from
// where they gave a marker.
func TestListParameters(t *testing.T) {
	w := newWorld(t)
	w.do(contrib, "PUT", "acct1:/con1/b", []byte("x"), 201, "x-ms-meta-a_1: <&>", "x-ms-blob-content-type: x/y")
	at := "acct1:/con1?restype=container&comp=list"
	if r := w.do(reads, "GET", at, nil, 200); strings.Contains(r.body, "a_1") || !strings.Contains(r.body, "<Content-Length>1</Content-Length>") || !strings.Contains(r.body, "<BlobType>BlockBlob</BlobType>") || !strings.Contains(r.body, "<Content-Type>x/y</Content-Type>") || !strings.Contains(r.body, `ServiceEndpoint="https://acct1.blob.core.castellan.localhost/" ContainerName="con1"`) || !strings.Contains(r.body, "<NextMarker></NextMarker>") {
		t.Errorf("the list is %s", r.body)
	}
	if r := w.do(reads, "GET", at+"&include=metadata,copy", nil, 200); !strings.Contains(r.body, "<Metadata><a_1>&lt;&amp;&gt;</a_1></Metadata>") {
		t.Errorf("the list with metadata is %s", r.body)
	}
	for _, q := range []string{"&marker=x", "&marker=1!_", "&maxresults=0", "&maxresults=x", "&prefix=a&prefix=b", "&Prefix=a", "&unknown=1", "&showonly=files", "&prefix=%zz", "&a;b"} {
		w.do(reads, "GET", at+q, nil, 400)
	}
	w.do(contrib, "PUT", "acct1:/con2?restype=container", nil, 201, "x-ms-meta-k: v")
	w.do(contrib, "PUT", "acct1:/xyz?restype=container", nil, 201)
	r := w.do(reads, "GET", "acct1:/?comp=list&prefix=con&maxresults=1&include=metadata", nil, 200)
	if l := r.list(); !slices.Equal(l.Containers, []string{"con1"}) || l.Next == "" {
		t.Errorf("containers: %s", r.body)
	}
	r = w.do(reads, "GET", "acct1:/?comp=list&prefix=con&include=metadata&marker="+url.QueryEscape(r.list().Next), nil, 200)
	if l := r.list(); !slices.Equal(l.Containers, []string{"con2"}) || l.Next != "" || !strings.Contains(r.body, "<k>v</k>") {
		t.Errorf("containers behind the marker: %s", r.body)
	}
}

// What the platform does not do it refuses, by name, and does nothing instead.
func TestWhatIsNotDoneIsRefused(t *testing.T) {
	w := newWorld(t)
	w.do(contrib, "PUT", "acct1:/con1/b", []byte("x"), 201)
	for _, q := range []string{"comp=query", "comp=legalhold", "comp=incrementalcopy", "comp=expiry", "comp=x", "restype=directory", "restype=container"} {
		r := w.do(contrib, "PUT", "acct1:/con1/b?"+q, []byte("y"), 400)
		if r.header.Get("x-ms-error-code") != "UnsupportedQueryParameter" {
			t.Errorf("PUT with %s: %s", q, r.header.Get("x-ms-error-code"))
		}
	}
	for _, q := range []string{"snapshot=2026-01-01", "versionid=x"} {
		w.do(contrib, "GET", "acct1:/con1/b?"+q, nil, 400)
		w.do("key1", "DELETE", "acct1:/con1/b?"+q, nil, 400)
	}
	for _, h := range []string{"x-ms-encryption-key: x", "x-ms-access-tier: Warm", "x-ms-source-if-tags: a", "x-ms-blob-type: PageBlob", "x-ms-version: latest", "x-ms-immutability-policy-mode: Locked", "x-ms-structured-body: XSM/1.0", "x-ms-encryption-scope: s"} {
		w.do(contrib, "PUT", "acct1:/con1/b", []byte("y"), 400, h)
	}
	for _, h := range []string{"x-ms-tags: a=b", "x-ms-if-tags: a='b'", "x-ms-access-tier: Cool"} {
		w.do("key1", "PUT", "acct1:/con1/b?comp=block&blockid=QQ%3D%3D", []byte("y"), 400, h)
	}
	w.do(contrib, "PUT", "acct1:/con1/b", []byte("y"), 412, "x-ms-lease-id: "+idA)
	w.do(contrib, "DELETE", "acct1:/con1/b", nil, 400, "x-ms-delete-snapshots: some")
	w.do(contrib, "GET", "acct1:/con1", nil, 400)
	w.do(contrib, "POST", "acct1:/con1/b", nil, 405)
	for _, v := range []string{"bytes=5-1", "bytes=-5", "bytes=a-b", "bytes=0-1,3-4", "5-6", "bytes=99999999999999999999-", "bytes=+1-2"} {
		w.do(reads, "GET", "acct1:/con1/b", nil, 400, "x-ms-range: "+v)
	}
	if r := w.do(reads, "GET", "acct1:/con1/b", nil, 200, "x-ms-client-request-id: mine", "x-ms-version: 2026-12-06"); r.body != "x" || r.header.Get("x-ms-client-request-id") != "mine" || r.header.Get("x-ms-version") != "2026-12-06" || r.header.Get("x-ms-request-id") == "" {
		t.Errorf("%q, %v", r.body, r.header)
	}
	if r := w.do(nobody, "GET", "acct1:/con1/b", nil, http.StatusForbidden, "x-ms-version: 2026-12-06"); r.header.Get("x-ms-version") != "2026-12-06" || !strings.Contains(r.body, "<Error><Code>AuthorizationPermissionMismatch</Code><Message>") {
		t.Errorf("%q, %v", r.body, r.header)
	}
}
