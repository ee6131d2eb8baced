package blob

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"testing"
)

// gone are the deleted paths of lake1's file system, with their ids, by pages of so many.
func (w *world) gone(who, prefix string, page int) (names, ids []string) {
	w.t.Helper()
	for next := ""; ; {
		r := w.do(who, "GET", fmt.Sprintf("lake1:/fsy?restype=container&comp=list&showonly=deleted&prefix=%s&maxresults=%d&marker=%s", prefix, page, next), nil, 200)
		var l struct {
			Items []struct {
				Name       string
				DeletionId string
				Properties struct {
					RemainingRetentionDays int
				}
			} `xml:"Blobs>Blob"`
			NextMarker string
		}
		w.must(xml.Unmarshal([]byte(r.body), &l))
		for _, b := range l.Items {
			if b.Properties.RemainingRetentionDays != 7 {
				w.t.Errorf("%s is kept for %d days", b.Name, b.Properties.RemainingRetentionDays)
			}
			names, ids = append(names, b.Name), append(ids, b.DeletionId)
		}
		if next = l.NextMarker; next == "" {
			return names, ids
		}
	}
}

// What is deleted in a hierarchical namespace is brought back path by path, each time
// that it was deleted by its own id; a directory with all that went with it.
func TestPathsAreBroughtBack(t *testing.T) {
	w := newWorld(t)
	w.lake()
	w.do(owner, "PUT", "arm:"+accounts+"lake1/blobServices/default", []byte(`{"properties":{"deleteRetentionPolicy":{"enabled":true,"days":7}}}`), 200)
	w.mkdir("d/e")
	w.file("d/a", "first")
	w.file("d/e/b", "below")
	w.do("key1", "DELETE", lakeFS+"d/a", nil, 200)
	w.file("d/a", "second")
	w.do("key1", "DELETE", lakeFS+"d?recursive=true", nil, 200)
	w.same("paths", w.ls("key1", "", true, 100))
	names, ids := w.gone("key1", "", 2)
	w.same("deleted paths", names, "d", "d/a", "d/a", "d/e", "d/e/b")
	if some, _ := w.gone("key1", "d/e", 10); len(some) != 2 {
		t.Errorf("below d/e %q were deleted", some)
	}
	back := func(who, path, id string, want int) {
		t.Helper()
		w.do(who, "PUT", "lake1:/fsy/"+path+"?comp=undelete", nil, want, "x-ms-undelete-source: "+path+"?deletionid="+id)
	}
	back("key1", "d", "1", http.StatusNotFound)
	back("key1", "d", "x", http.StatusBadRequest)
	w.do("key1", "PUT", "lake1:/fsy/d?comp=undelete", nil, 400)
	w.do("key1", "PUT", "lake1:/fsy/d?comp=undelete", nil, 400, "x-ms-undelete-source: d/a?deletionid="+ids[1])
	back(reads, "d", ids[0], http.StatusForbidden)
	back("key1", "d", ids[0], 200)
	w.same("paths, with the directory", w.ls("key1", "", true, 100), "d/", "d/a", "d/e/", "d/e/b")
	if got := w.do("key1", "GET", lakeFS+"d/a", nil, 200).body; got != "second" {
		t.Errorf("the file that went with the directory is %q", got)
	}
	names, ids = w.gone("key1", "", 10)
	w.same("what is still deleted", names, "d/a")
	back("key1", "d/a", ids[0], http.StatusConflict)
	w.do("key1", "DELETE", lakeFS+"d?recursive=true", nil, 200)
	w.do("key1", "PUT", "lake1.dfs:/fsy/d/a?comp=undelete", nil, 200, "x-ms-undelete-source: ?deletionid="+ids[0])
	if got := w.do("key1", "GET", lakeFS+"d/a", nil, 200).body; got != "first" {
		t.Errorf("the file of the first deletion is %q", got)
	}
	w.same("paths, with one file", w.ls("key1", "", true, 100), "d/", "d/a")
	w.do("key1", "GET", "lake1:/fsy?restype=container&comp=list&showonly=files", nil, 400)
	w.do("key1", "GET", "acct1:/con1?restype=container&comp=list&showonly=deleted", nil, 400)
}

// The Data Lake host does what blobs do, asked in their way, by the same rights, and
// browsers are let in by the same rules.
func TestTheLakesHostSpeaksOfBlobsToo(t *testing.T) {
	w := newWorld(t)
	w.lake()
	w.do("key1", "PUT", "lake1.dfs:/two?restype=container", nil, 201)
	w.do(reads, "PUT", "lake1.dfs:/three?restype=container", nil, 403)
	w.do("nobody", "PUT", "lake1.dfs:/three?restype=container", nil, 401)
	if r := w.do("key1", "PUT", "lake1.dfs:/two?restype=container", nil, 409); r.header.Get("x-ms-error-code") != "ContainerAlreadyExists" || r.header.Get("Content-Type") != "application/xml" {
		t.Errorf("a second container is refused with %v", r.header)
	}
	w.file("a", "text")
	w.do("key1", "PUT", lakeFS+"a?comp=metadata", nil, 200, "x-ms-meta-kind: day")
	if got := w.do("key1", "HEAD", lakeFS+"a?comp=metadata", nil, 200).header.Get("x-ms-meta-kind"); got != "day" {
		t.Errorf("the metadata is %q", got)
	}
	w.do(reads, "PUT", lakeFS+"a?comp=metadata", nil, 403, "x-ms-meta-kind: night")
	w.do(owner, "PUT", "arm:"+accounts+"lake1/blobServices/default", []byte(`{"properties":{"cors":{"corsRules":[{"allowedOrigins":["https://app.example"],"allowedMethods":["GET","PATCH"],"maxAgeInSeconds":60,"allowedHeaders":["*"],"exposedHeaders":["x-ms-*"]}]}}}`), 200)
	asks := []string{"Access-Control-Request-Method: PATCH", "Access-Control-Request-Headers: x-ms-version"}
	w.do("nobody", "OPTIONS", lakeFS+"a?action=append&position=0", nil, 200, append(asks, "Origin: https://app.example")...)
	w.do("nobody", "OPTIONS", lakeFS+"a?action=append&position=0", nil, 403, append(asks, "Origin: https://evil.example")...)
	if got := w.do("key1", "GET", lakeFS+"a", nil, 200, "Origin: https://app.example").header.Get("Access-Control-Allow-Origin"); got != "https://app.example" {
		t.Errorf("a browser is told %q", got)
	}
}
