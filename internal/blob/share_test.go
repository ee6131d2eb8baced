package blob

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

const (
	shareFS = "acct1.file:/shr"
	backup  = "x-ms-file-request-intent: backup"
)

// share makes the share shr of acct1.
func (w *world) share() {
	w.t.Helper()
	w.do("key1", "PUT", shareFS+"?restype=share", nil, 201)
}

// newFile makes a file of a share with those bytes.
func (w *world) newFile(path, text string) {
	w.t.Helper()
	w.do("key1", "PUT", shareFS+"/"+path, nil, 201, "x-ms-type: file", fmt.Sprintf("x-ms-content-length: %d", len(text)))
	if text != "" {
		w.putRange(path, 0, []byte(text), 201)
	}
}

func (w *world) putRange(path string, at int, data []byte, want int, headers ...string) reply {
	w.t.Helper()
	return w.do("key1", "PUT", shareFS+"/"+path+"?comp=range", data, want, append(headers, "x-ms-write: update", fmt.Sprintf("x-ms-range: bytes=%d-%d", at, at+len(data)-1))...)
}

// entries are what a list of a directory shows.
type entries struct {
	Files       []string                     `xml:"Entries>File>Name"`
	Directories []string                     `xml:"Entries>Directory>Name"`
	Sizes       []int64                      `xml:"Entries>File>Properties>Content-Length"`
	Shares      []string                     `xml:"Shares>Share>Name"`
	Ranges      []struct{ Start, End int64 } `xml:"Range"`
	Usage       int64                        `xml:"ShareUsageBytes"`
	Next        string                       `xml:"NextMarker"`
}

func (w *world) entries(who, target string, headers ...string) (e entries) {
	w.t.Helper()
	w.must(xml.Unmarshal([]byte(w.do(who, "GET", target, nil, 200, headers...).body), &e))
	return e
}

// Shares, directories and files are made, read, changed, listed and deleted as Azure
// Files does.
func TestShares(t *testing.T) {
	w := newWorld(t)
	r := w.do("key1", "PUT", shareFS+"?restype=share", nil, 201, "x-ms-share-quota: 2", "x-ms-meta-a: b", "x-ms-access-tier: Hot")
	w.do("key1", "PUT", shareFS+"?restype=share", nil, 409)
	r = w.do("key1", "HEAD", shareFS+"?restype=share", nil, 200)
	for k, v := range map[string]string{"x-ms-share-quota": "2", "x-ms-meta-a": "b", "x-ms-access-tier": "Hot", "x-ms-lease-state": "available"} {
		if r.header.Get(k) != v {
			t.Errorf("%s of the share is %q, want %q", k, r.header.Get(k), v)
		}
	}
	w.do("key1", "PUT", shareFS+"?restype=share&comp=properties", nil, 200, "x-ms-share-quota: 3")
	w.do("key1", "PUT", shareFS+"?restype=share&comp=metadata", nil, 200, "x-ms-meta-c: d")
	if got := w.do(owner, "GET", "arm:"+accounts+"acct1/fileServices/default/shares/shr", nil, 200).body; !strings.Contains(got, `"shareQuota":3`) || !strings.Contains(got, `"c":"d"`) {
		t.Errorf("Resource Manager shows %s", got)
	}
	w.do(owner, "PUT", "arm:"+accounts+"acct1/fileServices/default/shares/other", []byte(`{"properties":{"accessTier":"Cool"}}`), 201)
	if e := w.entries("key1", "acct1.file:/?comp=list"); !slices.Equal(e.Shares, []string{"other", "shr"}) {
		t.Errorf("the shares are %v", e.Shares)
	}
	if l := w.do("key1", "GET", "acct1:/?comp=list", nil, 200).list(); !slices.Equal(l.Containers, []string{"con1"}) {
		t.Errorf("the containers are %v", l.Containers)
	}
	w.do("key1", "GET", "acct1:/shr?restype=container&comp=list", nil, 404)
	w.do("key1", "GET", "acct1.file:/con1?restype=directory&comp=list", nil, 404)

	w.do("key1", "PUT", shareFS+"/Dir/sub?restype=directory", nil, 404)
	w.do("key1", "PUT", shareFS+"/Dir?restype=directory", nil, 201, "x-ms-meta-x: y")
	w.do("key1", "PUT", shareFS+"/dIR?restype=directory", nil, 409)
	w.do("key1", "PUT", shareFS+"/Dir/sub?restype=directory", nil, 201)
	w.do("key1", "PUT", shareFS+"/no/f", nil, 404, "x-ms-type: file", "x-ms-content-length: 1")
	data := noise(5 << 20)
	w.do("key1", "PUT", shareFS+"/Dir/Big.bin", nil, 201, "x-ms-type: file", fmt.Sprintf("x-ms-content-length: %d", 6<<20), "x-ms-content-type: a/b", "x-ms-file-attributes: Hidden", "x-ms-file-creation-time: 2020-01-02T03:04:05.0000000Z")
	sum := md5.Sum(data[:4<<20])
	r = w.putRange("Dir/Big.bin", 0, data[:4<<20], 201, "Content-MD5: "+base64.StdEncoding.EncodeToString(sum[:]))
	if r.header.Get("Content-MD5") != base64.StdEncoding.EncodeToString(sum[:]) {
		t.Errorf("the MD5 of the range is %q", r.header.Get("Content-MD5"))
	}
	w.putRange("Dir/Big.bin", 4<<20, data[4<<20:], 201)
	w.putRange("Dir/Big.bin", 6<<20-1, []byte("xy"), 416)
	w.putRange("Dir/Big.bin", 7, data[:3], 400, "Content-MD5: "+base64.StdEncoding.EncodeToString(sum[:]))
	w.do("key1", "PUT", shareFS+"/dir/big.bin?comp=range", nil, 201, "x-ms-write: clear", "x-ms-range: bytes=3-1000002")
	clear(data[3:1000003])
	r = w.do("key1", "GET", shareFS+"/DIR/BIG.BIN", nil, 200)
	if r.body != string(append(slices.Clip(data), make([]byte, 1<<20)...)) || r.header.Get("Content-Type") != "a/b" || r.header.Get("x-ms-type") != "File" || r.header.Get("x-ms-file-creation-time") != "2020-01-02T03:04:05.0000000Z" || r.header.Get("x-ms-file-attributes") != "Hidden" {
		t.Errorf("the file has %d bytes and %v", len(r.body), r.header)
	}
	r = w.do("key1", "GET", shareFS+"/Dir/Big.bin", nil, 206, "x-ms-range: bytes=1000000-1000009", "x-ms-range-get-content-md5: true")
	if m := md5.Sum(data[1000000:1000010]); r.body != string(data[1000000:1000010]) || r.header.Get("Content-MD5") != base64.StdEncoding.EncodeToString(m[:]) {
		t.Errorf("the range is %q", r.body)
	}
	if e := w.entries("key1", shareFS+"/Dir/Big.bin?comp=rangelist"); fmt.Sprint(e.Ranges) != "[{0 2} {1000003 5242879}]" {
		t.Errorf("the ranges are %v", e.Ranges)
	}
	w.do("key1", "PUT", shareFS+"/Dir/Big.bin?comp=properties", nil, 200, "x-ms-content-length: 2", "x-ms-content-type: c/d")
	w.do("key1", "PUT", shareFS+"/Dir/Big.bin?comp=properties", nil, 200, "x-ms-content-length: 5")
	if r = w.do("key1", "GET", shareFS+"/Dir/Big.bin", nil, 200); r.body != string(data[:2])+"\x00\x00\x00" || r.header.Get("Content-Type") != "c/d" {
		t.Errorf("the file that was cut is %q, a %s", r.body, r.header.Get("Content-Type"))
	}
	w.do("key1", "PUT", shareFS+"/Dir/Big.bin?comp=metadata", nil, 200, "x-ms-meta-m: n")
	if r = w.do("key1", "HEAD", shareFS+"/Dir/Big.bin", nil, 200); r.header.Get("x-ms-meta-m") != "n" || r.header.Get("Content-Length") != "5" {
		t.Errorf("the file has %v", r.header)
	}
	w.do("key1", "HEAD", shareFS+"/Dir", nil, 404)
	w.do("key1", "HEAD", shareFS+"/Dir/Big.bin?restype=directory", nil, 404)
	if r = w.do("key1", "GET", shareFS+"/Dir?restype=directory", nil, 200); r.header.Get("x-ms-meta-x") != "y" || r.header.Get("x-ms-file-attributes") != "Directory" || r.header.Get("x-ms-file-parent-id") != "0" {
		t.Errorf("the directory has %v", r.header)
	}
	w.do("key1", "GET", shareFS+"?restype=directory", nil, 200)
	w.newFile("Dir/sub/deep", "deep")
	w.newFile("Dir-not", "")
	e := w.entries("key1", shareFS+"?restype=directory&comp=list")
	if !slices.Equal(e.Files, []string{"Dir-not"}) || !slices.Equal(e.Directories, []string{"Dir"}) {
		t.Errorf("the root has %v", e)
	}
	e = w.entries("key1", shareFS+"/dir?restype=directory&comp=list&include=Timestamps,Etag,Attributes,PermissionKey")
	if !slices.Equal(e.Files, []string{"Big.bin"}) || !slices.Equal(e.Directories, []string{"sub"}) || e.Sizes[0] != 5 {
		t.Errorf("the directory has %v", e)
	}
	if e = w.entries("key1", shareFS+"/dir?restype=directory&comp=list&prefix=B"); len(e.Files)+len(e.Directories) != 1 {
		t.Errorf("the directory has %v under b", e)
	}
	first := w.entries("key1", shareFS+"/dir?restype=directory&comp=list&maxresults=1")
	if rest := w.entries("key1", shareFS+"/dir?restype=directory&comp=list&marker="+first.Next); len(first.Files) != 1 || len(rest.Directories) != 1 || rest.Next != "" {
		t.Errorf("page by page the directory has %v and %v", first, rest)
	}
	w.do("key1", "GET", shareFS+"/none?restype=directory&comp=list", nil, 404)
	w.do("key1", "GET", shareFS+"/Dir/Big.bin?restype=directory&comp=list", nil, 404)
	if e = w.entries("key1", shareFS+"?restype=share&comp=stats"); e.Usage != 9 {
		t.Errorf("the share uses %d bytes, want 9", e.Usage)
	}
	w.do("key1", "DELETE", shareFS+"/Dir/sub?restype=directory", nil, 409)
	w.do("key1", "DELETE", shareFS+"/Dir/sub/deep?restype=directory", nil, 404)
	w.do("key1", "DELETE", shareFS+"/Dir/sub/deep", nil, 202)
	w.do("key1", "DELETE", shareFS+"/Dir/sub", nil, 404)
	w.do("key1", "DELETE", shareFS+"/Dir/sub?restype=directory", nil, 202)
	w.do("key1", "DELETE", shareFS+"?restype=share", nil, 202)
	w.do("key1", "GET", shareFS+"/Dir/Big.bin", nil, 404)
	w.share()
	if e = w.entries("key1", shareFS+"?restype=directory&comp=list"); len(e.Files)+len(e.Directories) != 0 {
		t.Errorf("a share with the name of a deleted one has %v", e)
	}
	w.still()
	w.must(w.s.empty(t.Context()))
	if n := w.rows(blobTable, layoutTable, byteTable, fileTable, refTable); n != 0 || len(w.filesOnDisk()) != 0 {
		t.Errorf("%d rows and files %v are left of a deleted share", n, w.filesOnDisk())
	}
}

// What a share is made of is held against its quota, whatever way it grows, and given back.
func TestQuota(t *testing.T) {
	w := newWorld(t)
	w.share()
	w.do("key1", "PUT", shareFS+"?restype=share&comp=properties", nil, 200, "x-ms-share-quota: 1")
	made := func(path string, size, want int) {
		t.Helper()
		w.do("key1", "PUT", shareFS+"/"+path, nil, want, "x-ms-type: file", fmt.Sprintf("x-ms-content-length: %d", size))
	}
	made("a", 1<<30, 201)
	made("b", 1, 413)
	made("a", 1<<30, 201)
	made("b", 0, 201)
	w.do("key1", "PUT", shareFS+"/b?comp=properties", nil, 413, "x-ms-content-length: 1")
	w.do("key1", "PUT", shareFS+"/a?comp=properties", nil, 200, "x-ms-content-length: 5")
	w.do("key1", "PUT", shareFS+"/b?comp=properties", nil, 200, "x-ms-content-length: 1")
	w.do("key1", "PUT", shareFS+"/b?comp=rename", nil, 200, "x-ms-file-rename-source: https://acct1.file.core.castellan.localhost/shr/a", "x-ms-file-rename-replace-if-exists: true")
	if e := w.entries("key1", shareFS+"?restype=share&comp=stats"); e.Usage != 5 {
		t.Errorf("the share uses %d bytes, want 5", e.Usage)
	}
	made("huge", 5<<40, 400)
	w.do("key1", "PUT", shareFS+"?restype=share&comp=properties", nil, 400, "x-ms-share-quota: 0")
}

// Names that a client of another system could take for another path are none, however
// they are written.
func TestSharedNames(t *testing.T) {
	w := newWorld(t)
	w.share()
	for _, name := range []string{
		"..", ".", "%2e%2e", "a%2f..%2fb", "..%2f..%2fcon1", "a%5cb", "a%5c..%5cb", "a.", "a%20", "dir./f", "con", "CON", "NuL.txt", "com1", "LPT9.tar.gz", "clock$", "a%3ab", "a%2ab", "a%3fb", "a%3cb", "a%7cb", "a%22b", "a%00b", "a%0ab", "%ff",
		strings.Repeat("x", 256), strings.Repeat("d/", 251) + "f",
	} {
		for _, door := range []string{"", "?restype=directory"} {
			r := w.do("key1", "PUT", shareFS+"/"+name+door, nil, 0, "x-ms-type: file", "x-ms-content-length: 0")
			if r.code != 400 {
				t.Errorf("a path named %.40q is answered %d: %.200s", name, r.code, r.body)
			}
		}
	}
	if e := w.entries("key1", shareFS+"?restype=directory&comp=list"); len(e.Files)+len(e.Directories) != 0 {
		t.Errorf("the share has %v", e)
	}
	for _, name := range []string{"Stra%C3%9Fe", "%E2%82%AC", "a..b", "concert", ".hidden", "com10", "a%25b", "K"} {
		w.do("key1", "PUT", shareFS+"/"+name, nil, 201, "x-ms-type: file", "x-ms-content-length: 0")
	}
	w.do("key1", "HEAD", shareFS+"/%E2%84%AA", nil, 200) // the sign for kelvin, which folds to k
	w.do("key1", "PUT", shareFS+"/d?restype=directory", nil, 201)
	w.do("key1", "PUT", shareFS+"/d%2Fe", nil, 201, "x-ms-type: file", "x-ms-content-length: 0")
	w.do("key1", "HEAD", shareFS+"/D/E", nil, 200)
	for _, method := range []string{"PUT", "DELETE"} {
		w.do("key1", method, shareFS+"/?restype=directory", nil, 400)
	}
}

// A path is renamed with all that lies in it, within its share and over nothing that the
// request does not name.
func TestSharedRename(t *testing.T) {
	w := newWorld(t)
	w.share()
	w.do("key1", "PUT", "acct1.file:/other?restype=share", nil, 201)
	w.do("key1", "PUT", shareFS+"/d?restype=directory", nil, 201)
	w.do("key1", "PUT", shareFS+"/d/e?restype=directory", nil, 201)
	w.newFile("d/e/F", "deep")
	w.newFile("g", "gee")
	const at = "https://acct1.file.core.castellan.localhost/"
	move := func(from, to string, want int, headers ...string) {
		t.Helper()
		w.do("key1", "PUT", shareFS+"/"+to, nil, want, append(headers, "x-ms-file-rename-source: "+from)...)
	}
	move(at+"shr/d", "N?restype=directory&comp=rename", 200)
	if r := w.do("key1", "GET", shareFS+"/n/e/f", nil, 200); r.body != "deep" {
		t.Errorf("the file that moved with its directory is %q", r.body)
	}
	w.do("key1", "GET", shareFS+"/d/e/f", nil, 404)
	if e := w.entries("key1", shareFS+"?restype=directory&comp=list"); !slices.Equal(e.Directories, []string{"N"}) {
		t.Errorf("the directories are %v", e.Directories)
	}
	move(at+"shr/n", "nn?restype=directory&comp=rename", 200)
	move(at+"shr/nn", "NN?restype=directory&comp=rename", 200)
	move(at+"shr/nn", "nn/e/x?restype=directory&comp=rename", 409)
	move(at+"shr/g", "nn/e/f?comp=rename", 409)
	move(at+"shr/nn", "x?comp=rename", 404)
	move(at+"shr/g", "none/f?comp=rename", 404)
	move(at+"shr/g", "nn/e/f?comp=rename", 200, "x-ms-file-rename-replace-if-exists: true")
	if r := w.do("key1", "GET", shareFS+"/nn/e/F", nil, 200); r.body != "gee" {
		t.Errorf("the file that was written over is %q", r.body)
	}
	for _, from := range []string{at + "other/g", "https://acct2.file.core.castellan.localhost/shr/g", "https://acct1.blob.core.castellan.localhost/shr/g", "https://evil.example/shr/g", at + "shr/../con1/x", "/shr/g", at + "shr"} {
		move(from, "z?comp=rename", 400)
	}
	w.newFile("ro", "x")
	w.do("key1", "PUT", shareFS+"/ro?comp=properties", nil, 200, "x-ms-file-attributes: ReadOnly")
	w.putRange("ro", 0, []byte("y"), 409)
	w.do("key1", "DELETE", shareFS+"/ro", nil, 409)
	w.do("key1", "PUT", shareFS+"/ro", nil, 409, "x-ms-type: file", "x-ms-content-length: 0")
	w.newFile("g", "gee")
	move(at+"shr/g", "ro?comp=rename", 409, "x-ms-file-rename-replace-if-exists: true")
	w.do("key1", "PUT", shareFS+"/ro?comp=properties", nil, 200, "x-ms-file-attributes: None")
	w.do("key1", "DELETE", shareFS+"/ro", nil, 202)
}

// A leased file is changed by who shows the lease, and by nobody else.
func TestSharedLease(t *testing.T) {
	w := newWorld(t)
	w.share()
	w.newFile("f", "x")
	const id = "x-ms-lease-id: 11111111-2222-3333-4444-555555555555"
	w.do("key1", "PUT", shareFS+"/f?comp=lease", nil, 201, "x-ms-lease-action: acquire", "x-ms-lease-duration: -1", "x-ms-proposed-lease-id: 11111111-2222-3333-4444-555555555555")
	w.putRange("f", 0, []byte("y"), 412)
	w.putRange("f", 0, []byte("y"), 201, id)
	w.do("key1", "PUT", shareFS+"/f?comp=rename", nil, 412, "x-ms-file-rename-source: https://acct1.file.core.castellan.localhost/shr/f")
	w.do("key1", "PUT", shareFS+"/f?comp=properties", nil, 412, "x-ms-content-length: 0")
	w.do("key1", "DELETE", shareFS+"/f", nil, 412)
	w.do("key1", "PUT", shareFS+"/f?comp=lease", nil, 200, "x-ms-lease-action: release", id)
	w.do("key1", "DELETE", shareFS+"/f", nil, 202)
}

// Files are copied from files and from blobs of the installation, by who may read them.
func TestSharedCopy(t *testing.T) {
	w := newWorld(t)
	w.share()
	w.newFile("f", "file")
	w.do("key1", "PUT", "acct1:/con1/b", []byte("blob"), 201)
	const files, blobs = "x-ms-copy-source: https://acct1.file.core.castellan.localhost/shr/", "x-ms-copy-source: https://acct1.blob.core.castellan.localhost/con1/"
	for from, want := range map[string]string{files + "F": "file", blobs + "b": "blob"} {
		w.do("key1", "PUT", shareFS+"/copy", nil, 202, from)
		if r := w.do("key1", "GET", shareFS+"/copy", nil, 200); r.body != want {
			t.Errorf("the copy is %q, want %q", r.body, want)
		}
		w.do("key1", "PUT", shareFS+"/f2", nil, 201, "x-ms-type: file", "x-ms-content-length: 9")
		w.do("key1", "PUT", shareFS+"/f2?comp=range", nil, 201, "x-ms-write: update", "x-ms-range: bytes=2-4", "x-ms-source-range: bytes=1-3", from)
		if r := w.do("key1", "GET", shareFS+"/f2", nil, 200); r.body != "\x00\x00"+want[1:]+"\x00\x00\x00\x00" {
			t.Errorf("the file is %q", r.body)
		}
	}
	w.do("key1", "PUT", "acct1:/con1/c", nil, 202, files+"f")
	if r := w.do("key1", "GET", "acct1:/con1/c", nil, 200); r.body != "file" {
		t.Errorf("the blob is %q", r.body)
	}
	w.give(nobody, "Storage File Data Privileged Contributor", "/subscriptions/"+sub)
	w.do(nobody, "PUT", shareFS+"/stolen", nil, 403, blobs+"b", backup)
	w.do(contrib, "PUT", "acct1:/con1/stolen", nil, 403, files+"f")
	w.do("key1", "PUT", shareFS+"/x", nil, 404, files+"none")
	w.do("key1", "PUT", shareFS+"/x", nil, 400, "x-ms-copy-source: https://evil.example/shr/f")
}

// A signature opens what it says of the service, the share and the file it is over, and
// each permission alone.
func TestShareSignatures(t *testing.T) {
	w := newWorld(t)
	w.share()
	w.do("key1", "PUT", "acct1.file:/shr2?restype=share", nil, 201)
	w.do("key1", "PUT", "acct1:/shr?restype=container", nil, 201)
	w.do("key1", "PUT", "acct1:/shr/f", []byte("blob"), 201)
	w.do("key1", "PUT", shareFS+"/d?restype=directory", nil, 201)
	w.newFile("f", "x")
	w.newFile("d/g", "x")
	key := w.key("acct1", "key1")
	over := func(sr, path string, fields url.Values) string {
		q := url.Values{"sv": {"2022-11-02"}, "se": {"2026-05-02T00:00:00Z"}, "sp": {"r"}, "sr": {sr}}
		for k, v := range fields {
			q[k] = v
		}
		g := q.Get
		q.Set("sig", mac(key, strings.Join([]string{g("sp"), g("st"), g("se"), "/file/acct1/" + path, g("si"), g("sip"), g("spr"), g("sv"), "", "", "", "", ""}, "\n")))
		return q.Encode()
	}
	do := func(method, target, sig string, want int, headers ...string) {
		t.Helper()
		sep := "?"
		if strings.Contains(target, "?") {
			sep = "&"
		}
		w.do("", method, target+sep+sig, nil, want, headers...)
	}
	clearing := []string{"x-ms-write: clear", "x-ms-range: bytes=0-0"}
	const every = "rcwdl"
	for _, x := range []struct {
		perm, method, target string
		want                 int
		headers              []string
	}{
		{"r", "GET", "/f", 200, nil},
		{"r", "HEAD", "/d?restype=directory", 200, nil},
		{"r", "GET", "/f?comp=rangelist", 200, nil},
		{"l", "GET", "?restype=directory&comp=list", 200, nil},
		{"l", "GET", "/d?restype=directory&comp=list", 200, nil},
		{"w", "PUT", "/f?comp=range", 201, clearing},
		{"w", "PUT", "/f?comp=properties", 200, nil},
		{"w", "PUT", "/f?comp=metadata", 200, nil},
		{"cw", "PUT", "/new?restype=directory", 201, nil},
		{"d", "DELETE", "/new?restype=directory", 202, nil},
	} {
		for i := range every {
			want := 403
			if strings.ContainsRune(x.perm, rune(every[i])) {
				want = x.want
			}
			if strings.HasPrefix(x.target, "/new") {
				w.do("key1", map[string]string{"PUT": "DELETE", "DELETE": "PUT"}[x.method], shareFS+"/new?restype=directory", nil, 0)
			}
			do(x.method, shareFS+x.target, over("s", "shr", url.Values{"sp": {every[i : i+1]}}), want, x.headers...)
		}
	}
	all := url.Values{"sp": {every}}
	for name, sig := range map[string]string{"a file": over("f", "shr/f", all), "another share": over("s", "shr2", all), "a file, as a share's": over("s", "shr/f", all), "a share, as a file's": over("f", "shr", all),
		"blobs": accountSAS(key, "acct1", nil).Encode(), "queues": accountSAS(key, "acct1", url.Values{"ss": {"qt"}}).Encode(),
		"a container of that name": serviceSAS(key, "/blob/acct1/shr", url.Values{"sr": {"c"}, "sp": {"racwdl"}}).Encode(), "a blob of that name": serviceSAS(key, "/blob/acct1/shr/f", url.Values{"sp": {"racwd"}}).Encode()} {
		for _, target := range []string{"GET /d/g", "GET ?restype=directory&comp=list", "GET ?restype=share", "DELETE ?restype=share", "GET ?restype=share&comp=acl", "PUT /x?restype=directory"} {
			method, path, _ := strings.Cut(target, " ")
			do(method, shareFS+path, sig, 403)
		}
		if name != "a file" {
			do("GET", shareFS+"/f", sig, 403)
		}
	}
	do("GET", shareFS+"/f", over("f", "shr/f", nil), 200)
	do("GET", shareFS+"/f?restype=directory", over("f", "shr/f", all), 403)
	do("GET", "acct1:/shr/f", over("f", "shr/f", all), 403)
	do("GET", "acct1:/shr?restype=container&comp=list", over("s", "shr", all), 403)
	// What lets only make does not let change.
	do("PUT", shareFS+"/f", over("f", "shr/f", url.Values{"sp": {"c"}}), 409, "x-ms-type: file", "x-ms-content-length: 0")
	do("PUT", shareFS+"/made", over("f", "shr/made", url.Values{"sp": {"c"}}), 201, "x-ms-type: file", "x-ms-content-length: 0")
	// Of another account's key, after the time, and of another sr than was meant.
	do("GET", shareFS+"/f", strings.Replace(over("f", "shr/f", nil), "sr=f", "sr=s", 1), 403)
	do("GET", shareFS+"/f", over("f", "shr/f", url.Values{"se": {"2026-04-01T00:00:00Z"}}), 403)

	account := func(fields url.Values) string {
		f := url.Values{"ss": {"f"}}
		for k, v := range fields {
			f[k] = v
		}
		return accountSAS(key, "acct1", f).Encode()
	}
	do("GET", "acct1.file:/?comp=list", account(nil), 200)
	do("GET", shareFS+"?restype=share", account(nil), 200)
	do("GET", "acct1:/?comp=list", account(nil), 403)
	do("GET", shareFS+"?restype=directory&comp=list", account(url.Values{"srt": {"c"}}), 200)
	do("GET", shareFS+"/f", account(url.Values{"srt": {"sc"}}), 403)
	do("GET", shareFS+"?restype=share", account(url.Values{"srt": {"o"}}), 403)
	do("GET", shareFS+"?restype=share&comp=acl", account(nil), 403)

	// A stored policy gives what it says for as long as it is there.
	w.do("key1", "PUT", shareFS+"?restype=share&comp=acl", []byte(`<SignedIdentifiers><SignedIdentifier><Id>p</Id><AccessPolicy><Expiry>2026-05-02T00:00:00Z</Expiry><Permission>r</Permission></AccessPolicy></SignedIdentifier></SignedIdentifiers>`), 200)
	stored := over("s", "shr", url.Values{"si": {"p"}, "sp": {""}, "se": {""}})
	do("GET", shareFS+"/f", stored, 200)
	do("PUT", shareFS+"/f?comp=range", stored, 403, clearing...)
	w.do("key1", "PUT", shareFS+"?restype=share&comp=acl", []byte(`<SignedIdentifiers></SignedIdentifiers>`), 200)
	do("GET", shareFS+"/f", stored, 403)

	w.account("acct1", `"allowSharedKeyAccess":false`)
	do("GET", shareFS+"/f", over("f", "shr/f", nil), 403)
	do("GET", shareFS+"/f", account(nil), 403)
	w.do("key1", "GET", shareFS+"/f", nil, 403)
}

// A token opens files with the role, the right of backups and the word for it, not with
// some of them; and who has a role for blobs has none for files.
func TestShareTokens(t *testing.T) {
	w := newWorld(t)
	w.share()
	w.newFile("f", "x")
	scope := accounts + "acct1/fileServices/default/shares/shr"
	reader, all, smb := owner[:35]+"1", owner[:35]+"2", owner[:35]+"3"
	w.give(reader, "Storage File Data Privileged Reader", scope)
	w.give(all, "Storage File Data Privileged Contributor", scope)
	w.give(smb, "Storage File Data SMB Share Contributor", scope) // no right of backups
	w.do(owner, "PUT", "arm:"+accounts+"acct1/fileServices/default/shares/other", []byte(`{"properties":{}}`), 201)
	for _, x := range []struct {
		who           string
		read, written int
	}{{reader, 200, 403}, {all, 200, 201}, {smb, 403, 403}, {contrib, 403, 403}, {owner, 403, 403}, {nobody, 403, 403}} {
		w.do(x.who, "GET", shareFS+"/f", nil, x.read, backup)
		w.do(x.who, "GET", shareFS+"?restype=directory&comp=list", nil, x.read, backup)
		w.do(x.who, "PUT", shareFS+"/f?comp=range", []byte("y"), x.written, backup, "x-ms-write: update", "x-ms-range: bytes=0-0")
		if x.read == 200 || x.who == smb { // who may read is told what is missing
			x.read = 400
		}
		w.do(x.who, "GET", shareFS+"/f", nil, x.read)
		w.do(x.who, "GET", shareFS+"/f", nil, x.read, "x-ms-file-request-intent: none")
		w.do(x.who, "GET", "acct1.file:/other?restype=directory&comp=list", nil, 403, backup)
	}
	w.do(reader, "DELETE", shareFS+"/f", nil, 403, backup)
	w.do(reader, "GET", "acct1:/con1?restype=container&comp=list", nil, 403)
	// Shares themselves are Resource Manager's, by either plane.
	w.do(owner, "GET", shareFS+"?restype=share", nil, 200)
	w.do(all, "DELETE", shareFS+"?restype=share", nil, 403)
	w.do(contrib, "PUT", "acct1.file:/more?restype=share", nil, 403)
	w.do("", "GET", shareFS+"/f", nil, 401)
	if n, err := w.log.Verify(t.Context()); err != nil {
		t.Errorf("the audit log does not verify behind entry %d: %v", n, err)
	}
}

// What files of a share hold lies on disk in no form that shows it.
func TestShareSealed(t *testing.T) {
	w := newWorld(t)
	w.share()
	canary := []byte("canary-in-a-share-")
	w.do("key1", "PUT", shareFS+"/f", nil, 201, "x-ms-type: file", "x-ms-content-length: 2000000")
	w.putRange("f", 0, bytes.Repeat(canary, 50000), 201)
	w.putRange("f", 1000000, canary, 201)
	files := w.filesOnDisk()
	if len(files) == 0 {
		t.Fatal("a large range is no file")
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		w.must(err)
		if bytes.Contains(b, canary[:10]) {
			t.Errorf("%s shows what the file has", f)
		}
		b[len(b)/2] ^= 1
		w.must(os.WriteFile(f, b, 0o600))
	}
	res, err := w.srv.Client().Do(w.request("key1", "GET", shareFS+"/f", nil))
	if err != nil {
		return // it was cut
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err == nil && res.StatusCode == 200 {
		t.Errorf("a file that was altered on disk is read: %d bytes", len(b))
	}
}

// What a job reads and leaves goes by a key or a signature that a datastore keeps: files are
// found below a path in any case, and directories made that lead to what is written.
func TestSharesOfDatastores(t *testing.T) {
	w := newWorld(t)
	w.share()
	ctx := t.Context()
	account := arm.MustID(accounts + "acct1")
	id := ShareID(account, "shr")
	key := w.key("acct1", "key1")
	byKey, err := w.s.KeyCaller(account, arm.NewSecret([]byte(base64.StdEncoding.EncodeToString(key))))
	w.must(err)
	write := func(as arm.Caller, name, text string) error {
		g, err := w.gate.Admit(ctx, as, FileWrite, gate.Target{ID: id, Item: FoldPath(name)})
		if err != nil {
			return err
		}
		_, err = w.s.WriteFile(ctx, g, name, strings.NewReader(text), int64(len(text)))
		return g.Close(ctx, err)
	}
	names := func(as arm.Caller, prefix string) (out []string, err error) {
		g, err := w.gate.Admit(ctx, as, FileRead, gate.Target{ID: id})
		if err != nil {
			return nil, err
		}
		list, err := w.s.Files(ctx, g, prefix, 9)
		for _, b := range list {
			out = append(out, b.Name)
		}
		return out, g.Close(ctx, err)
	}
	w.must(write(byKey, "Out/Deep/er/A.txt", "first"))
	w.must(write(byKey, "out/deep/b", strings.Repeat("x", 100000)))
	w.must(write(byKey, "out/DEEP/er/a.TXT", "second"))
	if r := w.do("key1", "GET", shareFS+"/out/deep/er/a.txt", nil, 200); r.body != "second" {
		t.Errorf("the file is %q", r.body)
	}
	for prefix, want := range map[string]string{"": "Out/Deep/b Out/Deep/er/A.txt", "out/": "out/Deep/b out/Deep/er/A.txt", "OUT/deep/er/": "OUT/deep/er/A.txt", "out/deep/ER/A.TXT": "out/deep/ER/A.TXT", "out/d": "out/Deep/b out/Deep/er/A.txt", "out/deep": "out/Deep/b out/Deep/er/A.txt", "no/": ""} {
		if got, err := names(byKey, prefix); err != nil || strings.Join(got, " ") != want {
			t.Errorf("below %q are %v, want %s: %v", prefix, got, want, err)
		}
	}
	for _, name := range []string{"out", "out/deep/b/x", "../x", "a/../b", "con", "a\\b"} {
		if err := write(byKey, name, "x"); err == nil {
			t.Errorf("%q was written", name)
		}
	}
	sas := func(canonical, sp string) arm.Secret {
		q := url.Values{"sv": {"2022-11-02"}, "se": {"2026-05-02T00:00:00Z"}, "sp": {sp}, "sr": {"s"}}
		q.Set("sig", mac(key, strings.Join([]string{sp, "", q.Get("se"), canonical, "", "", "", q.Get("sv"), "", "", "", "", ""}, "\n")))
		return arm.NewSecret([]byte(q.Encode()))
	}
	for _, x := range []struct {
		sig           arm.Secret
		lists, writes bool
	}{{sas("/file/acct1/shr", "rl"), true, false}, {sas("/file/acct1/shr", "w"), false, true}, {sas("/file/acct1/other", "rwl"), false, false}, {sas("/blob/acct1/shr", "rwl"), false, false}} {
		as, err := w.s.SASCaller(ctx, id, "", FileRead, x.sig)
		if err == nil {
			_, err = names(as, "")
		}
		if (err == nil) != x.lists {
			t.Errorf("a signature lists: %v, want %t", err, x.lists)
		}
		if as, err = w.s.SASCaller(ctx, id, "new", FileWrite, x.sig); err == nil {
			err = write(as, "new", "x")
		}
		if (err == nil) != x.writes {
			t.Errorf("a signature writes: %v, want %t", err, x.writes)
		}
	}
	if as, err := w.s.SASCaller(ctx, ContainerID(account, "shr"), "", BlobRead, sas("/file/acct1/shr", "rl")); err == nil {
		t.Errorf("a share's signature opens a container of its name: %v", as)
	}
}
