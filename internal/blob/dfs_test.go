package blob

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// lake makes the account lake1, which has a hierarchical namespace, with the file
// system fsy.
func (w *world) lake() {
	w.account("lake1", `"isHnsEnabled":true`)
	w.do("key1", "PUT", "lake1.dfs:/fsy?resource=filesystem", nil, 201)
}

const lakeFS = "lake1.dfs:/fsy/"

// mkdir and file make a directory and a file with content, by the account's key.
func (w *world) mkdir(path string, headers ...string) {
	w.t.Helper()
	w.do("key1", "PUT", lakeFS+path+"?resource=directory", nil, 201, headers...)
}

func (w *world) file(path, content string, headers ...string) {
	w.t.Helper()
	w.do("key1", "PUT", lakeFS+path+"?resource=file", nil, 201, headers...)
	if content != "" {
		w.do("key1", "PATCH", lakeFS+path+"?action=append&position=0", []byte(content), 202)
		w.do("key1", "PATCH", fmt.Sprintf("%s%s?action=flush&position=%d", lakeFS, path, len(content)), nil, 200)
	}
}

// ls lists paths, directories with a slash, by pages of so many.
func (w *world) ls(who, dir string, recursive bool, page int) (out []string) {
	w.t.Helper()
	next := ""
	for {
		r := w.do(who, "GET", fmt.Sprintf("lake1.dfs:/fsy?resource=filesystem&recursive=%v&directory=%s&maxResults=%d&continuation=%s", recursive, url.QueryEscape(dir), page, url.QueryEscape(next)), nil, 200)
		var l struct {
			Paths []struct{ Name, IsDirectory string }
		}
		w.must(json.Unmarshal([]byte(r.body), &l))
		for _, p := range l.Paths {
			out = append(out, p.Name+map[bool]string{true: "/"}[p.IsDirectory == "true"])
		}
		if next = r.header.Get("x-ms-continuation"); next == "" {
			return out
		}
	}
}

func (w *world) same(what string, got []string, want ...string) {
	w.t.Helper()
	if !slices.Equal(got, want) {
		w.t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func (r reply) code2() string { return r.header.Get("x-ms-error-code") }

// What is made by one endpoint is there by the other, lists are exact by pages of
// any size, and no path lies in a file.
func TestPathsAreATree(t *testing.T) {
	w := newWorld(t)
	w.lake()
	w.mkdir("a/b/c")
	w.mkdir("a-b")
	w.file("a/b/f.txt", "hello")
	w.do("key1", "PUT", "lake1:/fsy/a/new/g.txt", []byte("blob"), 201)
	w.do("key1", "PUT", "lake1:/fsy/made", nil, 201, "x-ms-meta-hdi_isfolder: true")
	all := []string{"a/", "a-b/", "a/b/", "a/b/c/", "a/b/f.txt", "a/new/", "a/new/g.txt", "made/"}
	for _, page := range []int{1, 2, 3, 100} {
		w.same("all", w.ls("key1", "", true, page), all...)
		w.same("the root", w.ls("key1", "", false, page), "a/", "a-b/", "made/")
		w.same("a", w.ls("key1", "a", false, page), "a/b/", "a/new/")
		w.same("a/b", w.ls("key1", "/a/b/", true, page), "a/b/c/", "a/b/f.txt")
	}
	l := w.do("key1", "GET", "lake1:/fsy?restype=container&comp=list&delimiter=/", nil, 200).list()
	w.same("prefixes", l.Prefixes, "a-b/", "a/", "made/")
	w.same("blobs", l.Blobs)
	if r := w.do("key1", "HEAD", "lake1:/fsy/a/b", nil, 200); r.header.Get("x-ms-meta-hdi_isfolder") != "true" || r.header.Get("x-ms-resource-type") != "directory" {
		t.Errorf("a directory as a blob: %v", r.header)
	}
	if r := w.do("key1", "GET", "lake1:/fsy/a/b/f.txt", nil, 200); r.body != "hello" {
		t.Errorf("a file as a blob: %q", r.body)
	}
	if r := w.do("key1", "GET", lakeFS+"a/new/g.txt", nil, 206, "Range: bytes=1-2"); r.body != "lo" || r.header.Get("x-ms-resource-type") != "file" {
		t.Errorf("a blob as a file: %q %v", r.body, r.header)
	}
	for _, x := range []struct {
		method, target, code string
		status               int
		headers              []string
	}{
		{"PUT", lakeFS + "a/b/f.txt/x?resource=file", "PathConflict", 409, nil},
		{"PUT", lakeFS + "a/b?resource=file", "PathConflict", 409, nil},
		{"PUT", lakeFS + "a/b/f.txt?resource=directory", "PathConflict", 409, nil},
		{"PUT", "lake1:/fsy/a/b", "PathConflict", 409, nil},
		{"PUT", "lake1:/fsy/a/b/f.txt/x", "PathConflict", 409, nil},
		{"PUT", "lake1:/fsy/a/b?comp=block&blockid=" + base64.URLEncoding.EncodeToString([]byte("one")), "PathConflict", 409, nil},
		{"PUT", "lake1:/fsy/a//b", "InvalidResourceName", 400, nil},
		{"PUT", "lake1:/fsy/a/", "InvalidResourceName", 400, nil},
		{"PUT", lakeFS + "a//b?resource=file", "InvalidResourceName", 400, nil},
		{"PUT", lakeFS + "a/b/f.txt?resource=file", "PathAlreadyExists", 409, []string{"If-None-Match: *"}},
		{"PUT", lakeFS + "new?resource=link", "InvalidUri", 400, nil},
		{"PUT", lakeFS + "new?resource=file", "UnsupportedHeader", 400, []string{"x-ms-expiry-option: NeverExpire"}},
		{"PUT", "lake1.dfs:/fsy/?resource=directory", "InvalidUri", 400, nil},
		{"DELETE", lakeFS + "a", "DirectoryNotEmpty", 409, nil},
		{"DELETE", "lake1:/fsy/a", "DirectoryIsNotEmpty", 409, nil},
		{"DELETE", lakeFS + "a?recursive=perhaps", "InvalidQueryParameterValue", 400, nil},
		{"DELETE", lakeFS + "none?recursive=true", "PathNotFound", 404, nil},
		{"HEAD", lakeFS + "none", "PathNotFound", 404, nil},
		{"GET", "lake1.dfs:/none?resource=filesystem&recursive=true", "FilesystemNotFound", 404, nil},
		{"GET", "lake1.dfs:/fsy?resource=filesystem&recursive=true&directory=none", "PathNotFound", 404, nil},
		{"GET", "lake1.dfs:/fsy?resource=filesystem&recursive=true&directory=a/b/f.txt", "PathNotFound", 404, nil},
		{"GET", "lake1.dfs:/fsy?resource=filesystem", "MissingRequiredQueryParameter", 400, nil},
		{"PUT", "lake1.dfs:/fsy?resource=filesystem", "FilesystemAlreadyExists", 409, nil},
		{"PUT", "lake1:/fsy/a/b/f.txt?comp=snapshot", "FeatureNotSupportedForHierarchicalNamespace", 409, nil},
		{"GET", "lake1:/fsy/a/b/f.txt?comp=tags", "FeatureNotSupportedForHierarchicalNamespace", 409, nil},
		{"PUT", "lake1:/fsy/t", "FeatureNotSupportedForHierarchicalNamespace", 409, []string{"x-ms-blob-type: PageBlob", "x-ms-blob-content-length: 512"}},
		{"PUT", "lake1:/fsy/t", "FeatureNotSupportedForHierarchicalNamespace", 409, []string{"x-ms-tags: a=b"}},
	} {
		body := []byte(nil)
		if strings.Contains(x.target, "comp=block") {
			body = []byte("x")
		}
		if r := w.do("key1", x.method, x.target, body, x.status, x.headers...); r.code2() != x.code {
			t.Errorf("%s %s is refused with %s, want %s: %s", x.method, x.target, r.code2(), x.code, r.body)
		}
	}
	w.same("all, after what was refused", w.ls("key1", "", true, 100), all...)
	w.do("key1", "DELETE", lakeFS+"a?recursive=true", nil, 200)
	w.do("key1", "DELETE", lakeFS+"made", nil, 200)
	w.same("what is left", w.ls("key1", "", true, 100), "a-b/")
	w.do(owner, "PUT", "arm:"+accounts+"lake1/blobServices/default", []byte(`{"properties":{"isVersioningEnabled":true}}`), 400)
	w.do(owner, "PATCH", "arm:"+accounts+"lake1", []byte(`{"properties":{"isHnsEnabled":false}}`), 409)
	w.do(owner, "PATCH", "arm:"+accounts+"acct1", []byte(`{"properties":{"isHnsEnabled":true}}`), 409)
}

// Bytes wait for their position, in any order, until a flush makes them the file;
// a gap, a wrong position and wrong sums change nothing.
func TestAppendAndFlush(t *testing.T) {
	w := newWorld(t)
	w.lake()
	w.file("f", "")
	do := func(method, query string, body []byte, want int, headers ...string) reply {
		t.Helper()
		return w.do("key1", method, lakeFS+"f?"+query, body, want, headers...)
	}
	is := func(want string) {
		t.Helper()
		if r := do("GET", "", nil, 200); r.body != want {
			t.Errorf("the file has %d bytes %.20q, want %d", len(r.body), r.body, len(want))
		}
	}
	big := noise(100000)
	do("PATCH", "action=append&position=100000", []byte("tail"), 202)
	do("PATCH", "action=flush&position=100004", nil, 400)
	do("PATCH", "action=append&position=0", big[:5], 202)
	do("PATCH", "action=append&position=0", big, 202) // in the place of the first
	is("")
	for _, at := range []string{"99999", "100003", "100005", "1", "-1", "x"} {
		if r := do("PATCH", "action=flush&position="+at, nil, 400); strings.Contains("99999 100003 100005 1", at) && r.code2() != "InvalidFlushPosition" {
			t.Errorf("a flush at %s: %s", at, r.body)
		}
	}
	do("PATCH", "action=flush&position=100000&retainUncommittedData=true&close=true", nil, 200, "x-ms-content-type: text/x")
	is(string(big))
	if r := do("HEAD", "", nil, 200); r.header.Get("Content-Type") != "text/x" {
		t.Errorf("the type is %q", r.header.Get("Content-Type"))
	}
	do("PATCH", "action=append&position=1", []byte("x"), 400)
	do("PATCH", "action=append&position=100004", nil, 400)
	do("PATCH", "action=append&position=100004", []byte("x"), 400, "Content-MD5: "+base64.StdEncoding.EncodeToString(make([]byte, 16)))
	do("PATCH", "action=append&position=100004", []byte("x"), 400, "x-ms-content-crc64: "+base64.StdEncoding.EncodeToString(make([]byte, 8)))
	do("PATCH", "action=flush&position=100004", nil, 200)
	if r := do("PATCH", "action=append&position=100004&flush=true", []byte("!"), 202); r.header.Get("ETag") == "" {
		t.Error("an append that flushes shows no etag")
	}
	want := string(big) + "tail!"
	is(want)
	do("PATCH", "action=append&position=100005", []byte("lost"), 202)
	do("PATCH", "action=flush&position=100005", nil, 200)
	do("PATCH", "action=flush&position=100009", nil, 400)
	w.do("key1", "PATCH", lakeFS+"none?action=append&position=0", []byte("x"), 404)
	w.mkdir("d")
	w.do("key1", "PATCH", lakeFS+"d?action=append&position=0", []byte("x"), 409)
	w.do("key1", "PUT", "lake1:/fsy/log", nil, 201, "x-ms-blob-type: AppendBlob")
	w.do("key1", "PATCH", lakeFS+"log?action=append&position=0", []byte("x"), 409)

	// Leases, by what appends and flushes do with them.
	const id, other = "x-ms-lease-id: 11111111-2222-3333-4444-555555555555", "x-ms-lease-id: 99999999-2222-3333-4444-555555555555"
	taken := []string{"x-ms-lease-action: acquire", "x-ms-lease-duration: 15", "x-ms-proposed-lease-id: 11111111-2222-3333-4444-555555555555"}
	if r := do("PATCH", "action=append&position=100005", []byte("?"), 202, taken...); r.header.Get("x-ms-lease-id") == "" {
		t.Errorf("the lease is not shown: %v", r.header)
	}
	do("PATCH", "action=append&position=100005", []byte("?"), 412)
	do("PATCH", "action=append&position=100005", []byte("?"), 412, other)
	w.pass(10e9)
	if r := do("PATCH", "action=append&position=100005", []byte("?"), 202, "x-ms-lease-action: auto-renew", id); r.header.Get("x-ms-lease-renewed") != "true" {
		t.Errorf("the lease is not renewed: %v", r.header)
	}
	w.pass(10e9)
	do("PATCH", "action=append&position=100006", []byte("?"), 412)
	do("PATCH", "action=append&position=100006", []byte("?"), 400, "x-ms-lease-action: release", id)
	do("PATCH", "action=flush&position=100006", nil, 200, "x-ms-lease-action: release", id)
	do("PATCH", "action=append&position=100006&flush=true", []byte("."), 202)
	is(want + "?.")
	w.do("key1", "PUT", lakeFS+"f?resource=file", nil, 201)
	is("")
	if n := w.rows(blockTable); n != 0 {
		t.Errorf("%d blocks wait still", n)
	}
}

// A rename moves all that a directory has, with its bytes that wait, at once; what
// stands against it changes nothing.
func TestRename(t *testing.T) {
	w := newWorld(t)
	w.lake()
	w.do("key1", "PUT", "lake1.dfs:/other?resource=filesystem", nil, 201)
	w.mkdir("a/b/empty")
	w.file("a/b/f", "one")
	w.file("a/b-c", "two")
	w.file("a/g", "three")
	w.do("key1", "PATCH", lakeFS+"a/b/f?action=append&position=3", []byte("!"), 202)
	w.mkdir("full/x")
	w.mkdir("hollow")
	mv := func(from, to, code string, want int, headers ...string) {
		t.Helper()
		r := w.do("key1", "PUT", to+"?mode=legacy", nil, want, append(headers, "x-ms-rename-source: "+from)...)
		if r.code2() != code {
			t.Errorf("%s to %s: %s, want %q: %s", from, to, r.code2(), code, r.body)
		}
	}
	before := w.ls("key1", "", true, 100)
	mv("/fsy/none", lakeFS+"x", "SourcePathNotFound", 404)
	mv("/none/a", lakeFS+"x", "FilesystemNotFound", 404)
	mv("/fsy/a", lakeFS+"a/b/x", "InvalidRenameSourcePath", 409)
	mv("/fsy/a", lakeFS+"no/x", "RenameDestinationParentPathNotFound", 404)
	mv("/fsy/a/b", lakeFS+"full", "PathAlreadyExists", 409)
	mv("/fsy/a/b", lakeFS+"a/g", "InvalidSourceOrDestinationResourceType", 409)
	mv("/fsy/a/g", lakeFS+"hollow", "InvalidSourceOrDestinationResourceType", 409)
	mv("/fsy/a/b", lakeFS+"a/g/x", "PathConflict", 409)
	mv("/fsy/a/g", lakeFS+"a/b-c", "PathAlreadyExists", 409, "If-None-Match: *")
	mv("/fsy/a/g", lakeFS+"x", "SourceConditionNotMet", 412, `x-ms-source-if-match: "0x1"`)
	mv("/fsy/a/g", lakeFS+"x", "UnsupportedHeader", 400, "x-ms-permissions: 0777")
	mv("fsy", lakeFS+"x", "InvalidSourceUri", 400)
	mv("/fsy/a/g", "lake1.dfs:/fsy/", "InvalidUri", 400)
	w.same("what is there after what was refused", w.ls("key1", "", true, 100), before...)

	mv("/fsy/a/b", lakeFS+"hollow", "", 201)
	w.same("what is there", w.ls("key1", "", true, 100), "a/", "a/b-c", "a/g", "full/", "full/x/", "hollow/", "hollow/empty/", "hollow/f")
	w.do("key1", "PATCH", lakeFS+"hollow/f?action=flush&position=4", nil, 200)
	mv("/fsy/a/b-c", lakeFS+"a/g", "", 201)
	if r := w.do("key1", "GET", lakeFS+"a/g", nil, 200); r.body != "two" {
		t.Errorf("the file that was written over has %q", r.body)
	}
	mv("/fsy/hollow", "lake1.dfs:/other/a%20b", "", 201)
	if r := w.do("key1", "GET", "lake1.dfs:/other/a%20b/f", nil, 200); r.body != "one!" {
		t.Errorf("the file in the other file system has %q", r.body)
	}
	mv("/other/a%20b", lakeFS+"back", "", 201)
	mv("/fsy/back", lakeFS+"back", "", 201)
	w.same("what is there", w.ls("key1", "back", true, 1), "back/empty/", "back/f")
	w.do("key1", "DELETE", lakeFS+"back?recursive=true", nil, 200)
	w.do("key1", "DELETE", lakeFS+"a?recursive=true&paginated=true", nil, 200)
	if n := w.rows(byteTable, fileTable, blockTable, refTable); n != 0 {
		t.Errorf("%d rows of bytes are left", n)
	}
}

// What cannot be done without a hierarchical namespace is refused by its name, and
// files are there all the same.
func TestPathsOfAFlatAccount(t *testing.T) {
	w := newWorld(t)
	const at = "acct1.dfs:/con1/"
	w.do("key1", "PUT", at+"a/f?resource=file", nil, 201)
	w.do("key1", "PATCH", at+"a/f?action=append&position=0&flush=true", []byte("x"), 202)
	if r := w.do("key1", "GET", "acct1:/con1/a/f", nil, 200); r.body != "x" {
		t.Errorf("the file has %q", r.body)
	}
	if r := w.do("key1", "GET", "acct1.dfs:/con1?resource=filesystem&recursive=false", nil, 200); !strings.Contains(r.body, `"name":"a","isDirectory":"true"`) {
		t.Errorf("the list is %s", r.body)
	}
	for _, x := range [][2]string{{"PUT", "d?resource=directory"}, {"HEAD", "a/f?action=getAccessControl"}, {"HEAD", "?action=getAccessControl"}, {"PUT", "b"}} {
		if r := w.do("key1", x[0], at+x[1], nil, 400, "x-ms-rename-source: /con1/a/f"); r.code2() != "HierarchicalNamespaceNotEnabled" {
			t.Errorf("%s %s: %s", x[0], x[1], r.code2())
		}
	}
	w.do("key1", "PUT", at+"x?resource=file", nil, 400, "x-ms-permissions: 0777")
	w.do("key1", "DELETE", at+"a/f?recursive=true", nil, 200)
	if !bytes.Contains([]byte(w.do("key1", "HEAD", "acct1.dfs:/con1?resource=filesystem", nil, 200).header.Get("x-ms-namespace-enabled")), []byte("false")) {
		t.Error("the account has a namespace")
	}
}
