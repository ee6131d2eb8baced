package blob

import (
	"net/url"
	"slices"
	"strings"
	"testing"
)

// What is sealed stays as it is until it is deleted; snapshots and copies are
// sealed as it was, unless the copy's request says otherwise.
func TestSealedBlobsStayAsTheyAre(t *testing.T) {
	w := newWorld(t)
	const b = "acct1:/con1/log"
	source := "x-ms-copy-source: https://acct1.blob." + testSite.StorageSuffix() + "/con1/log"
	w.do(contrib, "PUT", b, nil, 201, "x-ms-blob-type: AppendBlob")
	w.do(contrib, "PUT", b+"?comp=appendblock", []byte("one"), 201)
	etag := w.do(reads, "HEAD", b, nil, 200).header.Get("ETag")
	w.do(contrib, "PUT", b+"?comp=seal", nil, 412, "x-ms-blob-condition-appendpos: 2")
	w.do(contrib, "PUT", b+"?comp=seal", nil, 412, `If-Match: "0x1"`)
	w.do(reads, "PUT", b+"?comp=seal", nil, 403)
	w.do("", "PUT", b+"?comp=seal&"+serviceSAS(w.key("acct1", "key1"), "/blob/acct1/con1/log", url.Values{"sp": {"racd"}}).Encode(), nil, 403)
	for range 2 {
		if r := w.do(contrib, "PUT", b+"?comp=seal", nil, 200, "x-ms-blob-condition-appendpos: 3"); r.header.Get("x-ms-blob-sealed") != "true" || r.header.Get("ETag") != etag {
			t.Errorf("sealing is answered %v", r.header)
		}
	}
	w.restart()
	for name, r := range map[string]reply{
		"append":  w.do(contrib, "PUT", b+"?comp=appendblock", []byte("two"), 409),
		"replace": w.do(contrib, "PUT", b, []byte("two"), 409),
		"copy":    w.do(contrib, "PUT", b, nil, 409, source),
	} {
		if code := r.header.Get("x-ms-error-code"); code != "BlobIsSealed" {
			t.Errorf("%s: %s", name, code)
		}
	}
	if r := w.do(reads, "GET", b, nil, 200); r.body != "one" || r.header.Get("x-ms-blob-sealed") != "true" {
		t.Errorf("the blob is %q %v", r.body, r.header)
	}
	if r := w.do(reads, "GET", "acct1:/con1?restype=container&comp=list", nil, 200); !strings.Contains(r.body, "<Sealed>true</Sealed>") {
		t.Errorf("the list is %s", r.body)
	}
	for name, c := range map[string]struct{ header, sealed string }{"as": {"x-ms-seal-blob: ", "true"}, "un": {"x-ms-seal-blob: false", ""}} {
		w.do(contrib, "PUT", "acct1:/con1/"+name, nil, 202, source, c.header)
		if got := w.do(reads, "HEAD", "acct1:/con1/"+name, nil, 200).header.Get("x-ms-blob-sealed"); got != c.sealed {
			t.Errorf("a copy with %s is sealed: %q", c.header, got)
		}
	}
	w.do(contrib, "PUT", "acct1:/con1/other", []byte("x"), 400, "x-ms-seal-blob: true")
	w.do(contrib, "PUT", "acct1:/con1/other", []byte("x"), 400, "x-ms-source-if-tags: a='b'")
	w.do(contrib, "PUT", "acct1:/con1/other", []byte("x"), 201)
	w.do(contrib, "PUT", "acct1:/con1/other?comp=seal", nil, 409)
	w.do(contrib, "PUT", "acct1:/con1/none?comp=seal", nil, 404)
	w.do(contrib, "DELETE", b, nil, 202)
	w.do(contrib, "PUT", b, []byte("two"), 201)
}

// A condition on the tags of a source asks for the right to read them.
func TestConditionsOnTheTagsOfSources(t *testing.T) {
	w := newWorld(t)
	w.do("key1", "PUT", "acct1:/con1/src", []byte("x"), 201, "x-ms-tags: a=b")
	at := "x-ms-copy-source: https://acct1.blob." + testSite.StorageSuffix() + "/con1/src"
	w.do("key1", "PUT", "acct1:/con1/to", nil, 202, at, "x-ms-source-if-tags: a='b'")
	if r := w.do("key1", "PUT", "acct1:/con1/to", nil, 412, at, "x-ms-source-if-tags: a='c'"); r.header.Get("x-ms-error-code") != "SourceConditionNotMet" {
		t.Errorf("another tag: %s", r.body)
	}
	w.do(contrib, "PUT", "acct1:/con1/to", nil, 202, at)
	w.do(contrib, "PUT", "acct1:/con1/to", nil, 403, at, "x-ms-source-if-tags: a='b'")
	key := w.key("acct1", "key1")
	for perms, status := range map[string]int{"r": 403, "rt": 202} {
		w.do("key1", "PUT", "acct1:/con1/to", nil, status, at+"?"+serviceSAS(key, "/blob/acct1/con1/src", url.Values{"sp": {perms}}).Encode(), "x-ms-source-if-tags: a='b'")
	}
}

// What is deleted but kept goes before its time only where the account lets it,
// and to whom has that right.
func TestPermanentDeletion(t *testing.T) {
	w := newWorld(t)
	const b = "acct1:/con1/b"
	service := "arm:" + accounts + "acct1/blobServices/default"
	keep := func(permanent string) {
		w.do(owner, "PUT", service, []byte(`{"properties":{"deleteRetentionPolicy":{"enabled":true,"days":5,"allowPermanentDelete":`+permanent+`}}}`), 200)
	}
	keep("false")
	w.do(contrib, "PUT", b, noise(100<<10), 201)
	at := w.do(contrib, "PUT", b+"?comp=snapshot", nil, 201).header.Get("x-ms-snapshot")
	gone := b + "?snapshot=" + at + "&deletetype=permanent"
	w.do(contrib, "DELETE", b, nil, 202, "x-ms-delete-snapshots: include")
	w.do("key1", "DELETE", gone, nil, 409)
	keep("true")
	w.do(contrib, "DELETE", gone, nil, 403) // Storage Blob Data Contributor has no such right
	w.do("key1", "DELETE", b+"?deletetype=permanent", nil, 400)
	w.do("key1", "DELETE", b+"?versionid="+at+"&deletetype=permanent", nil, 404)
	key := w.key("acct1", "key1")
	sign := func(perms string) string {
		q := accountSAS(key, "acct1", url.Values{"sp": {perms}})
		return gone + "&" + q.Encode()
	}
	w.do("", "DELETE", sign("rwdxlacuptf"), nil, 403)
	if r := w.do("", "DELETE", sign("y"), nil, 202); r.header.Get("x-ms-delete-type-permanent") != "true" {
		t.Errorf("the deletion is answered %v", r.header)
	}
	w.do("key1", "DELETE", gone, nil, 404)
	w.do(contrib, "PUT", b+"?comp=undelete", nil, 200)
	at = w.do(contrib, "PUT", b+"?comp=snapshot", nil, 201).header.Get("x-ms-snapshot")
	w.do("key1", "DELETE", b+"?snapshot="+at+"&deletetype=permanent", nil, 409) // it is not deleted
	if got := w.do(reads, "GET", b+"?snapshot="+at, nil, 200).body; len(got) != 100<<10 {
		t.Errorf("the snapshot has %d bytes", len(got))
	}
}

// A list shows names of which only versions are left, once each, over its pages.
func TestNamesOfWhichOnlyVersionsAreLeft(t *testing.T) {
	w := newWorld(t)
	w.do(owner, "PUT", "arm:"+accounts+"acct1/blobServices/default", []byte(`{"properties":{"isVersioningEnabled":true}}`), 200)
	for _, name := range []string{"a", "b", "c"} {
		w.do(contrib, "PUT", "acct1:/con1/"+name, []byte("1"), 201)
		w.do(contrib, "PUT", "acct1:/con1/"+name, []byte("2"), 201)
	}
	w.do(contrib, "DELETE", "acct1:/con1/a", nil, 202)
	w.do(contrib, "DELETE", "acct1:/con1/c", nil, 202)
	for _, include := range []string{"deletedwithversions", "versions,deletedwithversions"} {
		for _, n := range []string{"1", "2", "9"} {
			var names []string
			only := 0
			for marker := ""; ; {
				r := w.do(reads, "GET", "acct1:/con1?restype=container&comp=list&include="+include+"&maxresults="+n+"&marker="+url.QueryEscape(marker), nil, 200)
				names = append(names, r.list().Blobs...)
				only += strings.Count(r.body, "<HasVersionsOnly>true</HasVersionsOnly>")
				if marker = r.list().Next; marker == "" {
					break
				}
			}
			want := []string{"a", "b", "c"}
			if strings.Contains(include, "versions,") {
				want = []string{"a", "a", "a", "b", "b", "c", "c", "c"}
			}
			if !slices.Equal(names, want) || only != 2 {
				t.Errorf("%s by %s: %v, %d of them without a blob", include, n, names, only)
			}
		}
	}
}
