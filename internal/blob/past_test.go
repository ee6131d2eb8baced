package blob

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// settings sets what acct1's blobs keep: versions, and days of what is deleted.
func (w *world) settings(versions bool, days int) {
	w.t.Helper()
	keep := fmt.Sprintf(`{"enabled":%t,"days":%d}`, days > 0, max(days, 1))
	w.do(owner, "PUT", "arm:"+accounts+"acct1/blobServices/default", fmt.Appendf(nil, `{"properties":{"isVersioningEnabled":%t,"deleteRetentionPolicy":%s,"containerDeleteRetentionPolicy":%s}}`, versions, keep, keep), 200)
}

// all are the tables that keep blobs.
var all = []string{blobTable, pastTable, refTable, dueTable, blockTable, layoutTable, byteTable, fileTable, lostTable, trashTable}

// past is a model of one blob: what its snapshots, versions and itself read.
type past struct {
	w     *world
	rnd   *rand.Rand
	now   []byte // nil: there is no blob
	typ   string
	snaps map[string][]byte
	vers  map[string][]byte
}

const pastBlob = "acct1:/con1/b"

func (p *past) wrote(r reply, data []byte) {
	p.now = data
	if v := r.header.Get("x-ms-version-id"); v != "" {
		p.vers[v] = data
	}
}

// step does something that may change what the blob is, or was.
func (p *past) step() {
	w := p.w
	n := []int{0, 10, smallSize + 1, 150000}[p.rnd.IntN(4)]
	data := noise(n + p.rnd.IntN(50))
	switch op := p.rnd.IntN(9); {
	case op == 0:
		p.typ = appendBlob
		p.wrote(w.do(contrib, "PUT", pastBlob, nil, 201, "x-ms-blob-type: AppendBlob"), []byte{})
	case op <= 2 && p.now != nil && p.typ == appendBlob && len(data) > 0:
		r := w.do(contrib, "PUT", pastBlob+"?comp=appendblock", data, 201)
		p.wrote(r, append(slices.Clone(p.now), data...))
	case op == 3 && (p.now == nil || p.typ == blockBlob):
		p.commit(data)
	case op <= 3:
		p.typ = blockBlob
		p.wrote(w.do(contrib, "PUT", pastBlob, data, 201), data)
	case op == 4 && p.now != nil:
		p.wrote(w.do(contrib, "PUT", pastBlob+"?comp=metadata", nil, 200, "x-ms-meta-a: "+fmt.Sprint(n)), p.now)
	case op == 5 && p.now != nil:
		p.snaps[w.do(contrib, "PUT", pastBlob+"?comp=snapshot", nil, 201).header.Get("x-ms-snapshot")] = p.now
	case op == 6 && p.now != nil:
		w.do(contrib, "DELETE", pastBlob, nil, 202, "x-ms-delete-snapshots: include")
		p.now, p.snaps = nil, map[string][]byte{}
	case op == 7:
		for stamp := range p.snaps {
			w.do(contrib, "DELETE", pastBlob+"?snapshot="+stamp, nil, 202)
			delete(p.snaps, stamp)
			break
		}
	case op == 8:
		for stamp := range p.vers {
			if r := w.do("key1", "DELETE", pastBlob+"?versionid="+stamp, nil, 0); r.code == 202 {
				delete(p.vers, stamp)
			}
			break
		}
	}
}

// commit makes the blob of a new block and, if it has one, of its first.
func (p *past) commit(data []byte) {
	if len(data) == 0 {
		return
	}
	w := p.w
	id := fmt.Sprintf("%08d", p.rnd.IntN(1e8))
	r := w.do(reads, "GET", pastBlob+"?comp=blocklist", nil, 0)
	_, first, has := strings.Cut(r.body, "<Name>")
	first, _, _ = strings.Cut(first, "</Name>")
	_, size, _ := strings.Cut(r.body, "<Size>")
	size, _, _ = strings.Cut(size, "</Size>")
	body, list := []byte{}, ""
	if r.code == 200 && has {
		var n int
		fmt.Sscan(size, &n)
		body, list = slices.Clone(p.now[:n]), "<Committed>"+first+"</Committed>"
	}
	w.do(contrib, "PUT", pastBlob+"?comp=block&blockid="+id, data, 201)
	p.typ = blockBlob
	p.wrote(w.do(contrib, "PUT", pastBlob+"?comp=blocklist", []byte("<BlockList>"+list+"<Latest>"+id+"</Latest></BlockList>"), 201), append(body, data...))
}

func (p *past) check(step int) {
	w := p.w
	w.t.Helper()
	look := func(query string, want []byte) {
		w.t.Helper()
		if r := w.do(reads, "GET", pastBlob+query, nil, 0); r.code != 200 || r.body != string(want) {
			w.t.Fatalf("step %d: %q reads %d, %d bytes, want %d", step, query, r.code, len(r.body), len(want))
		}
	}
	if p.now != nil {
		look("", p.now)
	} else {
		w.do(reads, "GET", pastBlob, nil, 404)
	}
	for stamp, want := range p.snaps {
		look("?snapshot="+stamp, want)
	}
	for stamp, want := range p.vers {
		look("?versionid="+stamp, want)
	}
}

// Whatever is done to a blob, each of its snapshots and versions reads as it was
// when it was made, and once all are gone nothing is left: no row, no count, no
// file.
func TestThePastIsExact(t *testing.T) {
	w := newWorld(t)
	w.still() // the test itself removes what is to be removed
	for round := range 6 {
		p := &past{w: w, rnd: rand.New(rand.NewPCG(7, uint64(round))), snaps: map[string][]byte{}, vers: map[string][]byte{}}
		w.settings(round%2 == 1, round/2*3)
		for step := range 40 {
			p.step()
			w.pass(time.Second)
			if step%10 == 9 {
				p.check(step)
			}
		}
		w.settings(false, 0)
		w.do(contrib, "DELETE", "acct1:/con1?restype=container", nil, 202)
		w.must(w.s.empty(t.Context()))
		if n := w.rows(all...); n != 0 || len(w.filesOnDisk()) != 0 {
			for _, x := range all {
				t.Log(x, w.rows(x))
			}
			t.Fatalf("round %d leaves %d rows and %d files", round, n, len(w.filesOnDisk()))
		}
		w.do(contrib, "PUT", "acct1:/con1?restype=container", nil, 201)
	}
}

func (w *world) included(include string) string {
	w.t.Helper()
	return w.do(reads, "GET", "acct1:/con1?restype=container&comp=list&include="+include, nil, 200).body
}

// Deleted blobs are kept for as long as the account says, seen by who asks, and
// brought back with their snapshots; then they are gone, also from the disk.
func TestDeletedBlobsAreKept(t *testing.T) {
	w := newWorld(t)
	w.still()
	w.settings(false, 7)
	big := noise(100000)
	w.do(contrib, "PUT", pastBlob, big, 201, "x-ms-meta-a: b")
	snap := w.do(contrib, "PUT", pastBlob+"?comp=snapshot", nil, 201).header.Get("x-ms-snapshot")
	if r := w.do(contrib, "DELETE", pastBlob, nil, 409); r.header.Get("x-ms-error-code") != "SnapshotsPresent" {
		t.Errorf("a delete of a blob with snapshots: %s", r.header.Get("x-ms-error-code"))
	}
	if r := w.do(contrib, "DELETE", pastBlob, nil, 202, "x-ms-delete-snapshots: include"); r.header.Get("x-ms-delete-type-permanent") != "false" {
		t.Errorf("the delete is %v", r.header)
	}
	for _, q := range []string{"", "?snapshot=" + snap} {
		w.do(reads, "GET", pastBlob+q, nil, 404)
	}
	if got := w.included("snapshots"); strings.Contains(got, "<Blob>") {
		t.Errorf("a list shows what is deleted: %s", got)
	}
	w.pass(24 * time.Hour)
	if got := w.included("deleted,snapshots"); strings.Count(got, "<Deleted>true</Deleted>") != 2 || strings.Count(got, "<RemainingRetentionDays>6</") != 2 || strings.Count(got, "<Snapshot>"+snap) != 1 {
		t.Errorf("a list of what is deleted: %s", got)
	}
	w.do(reads, "PUT", pastBlob+"?comp=undelete", nil, http.StatusForbidden)
	w.do(contrib, "PUT", pastBlob+"?comp=undelete", nil, 200)
	for _, q := range []string{"", "?snapshot=" + snap} {
		if r := w.do(reads, "GET", pastBlob+q, nil, 200); !bytes.Equal([]byte(r.body), big) || r.header.Get("x-ms-meta-a") != "b" {
			t.Errorf("%q came back with %d bytes", q, len(r.body))
		}
	}
	w.do(contrib, "PUT", "acct1:/con1/none?comp=undelete", nil, 404)

	// What is written over is kept too, as a snapshot.
	w.do(contrib, "DELETE", pastBlob, nil, 202, "x-ms-delete-snapshots: only")
	w.do(contrib, "PUT", pastBlob, []byte("new"), 201)
	w.do(contrib, "DELETE", pastBlob, nil, 202)
	w.do(contrib, "PUT", pastBlob, []byte("newer"), 201)
	w.do(contrib, "PUT", pastBlob+"?comp=undelete", nil, 200)
	if r := w.do(reads, "GET", pastBlob, nil, 200); r.body != "newer" {
		t.Errorf("bringing back replaced what is there by %q", r.body)
	}
	if got := w.included("snapshots"); strings.Count(got, "<Snapshot>") != 3 {
		t.Errorf("the snapshots are %s", got)
	}
	w.do(contrib, "DELETE", pastBlob, nil, 202, "x-ms-delete-snapshots: include")
	w.pass(7*24*time.Hour - time.Second)
	w.must(w.s.purge(t.Context()))
	if n := w.rows(pastTable); n != 4 {
		t.Errorf("a second before the end %d are kept, want 4", n)
	}
	w.pass(time.Second)
	w.must(w.s.purge(t.Context()))
	if n := w.rows(all...); n != 0 || len(w.filesOnDisk()) != 0 {
		t.Errorf("%d rows and %d files are left", n, len(w.filesOnDisk()))
	}
	w.do(contrib, "PUT", pastBlob+"?comp=undelete", nil, 404)
}

// Versions: every write makes one, the list tells the current one, and only who
// has the right to versions deletes one.
func TestVersions(t *testing.T) {
	w := newWorld(t)
	w.do(contrib, "PUT", pastBlob, []byte("before"), 201)
	w.settings(true, 0)
	v1 := w.do(contrib, "PUT", pastBlob, []byte("one"), 201).header.Get("x-ms-version-id")
	v2 := w.do(contrib, "PUT", pastBlob+"?comp=metadata", nil, 200, "x-ms-meta-a: b").header.Get("x-ms-version-id")
	if v1 == "" || v2 <= v1 {
		t.Fatalf("the versions are %q and %q", v1, v2)
	}
	if r := w.do(reads, "GET", pastBlob+"?versionid="+v1, nil, 200); r.body != "one" || r.header.Get("x-ms-meta-a") != "" || r.header.Get("x-ms-is-current-version") != "" {
		t.Errorf("the first version is %q %v", r.body, r.header)
	}
	if r := w.do(reads, "HEAD", pastBlob+"?versionid="+v2, nil, 200); r.header.Get("x-ms-is-current-version") != "true" {
		t.Errorf("the current version is %v", r.header)
	}
	if got := w.included("versions"); strings.Count(got, "<VersionId>") != 3 || strings.Count(got, "<IsCurrentVersion>true") != 1 {
		t.Errorf("the versions are listed as %s", got)
	}
	w.do(contrib, "PUT", "acct1:/con1/copy", nil, 202, "x-ms-copy-source: https://acct1.blob.core.castellan.localhost/con1/b?versionid="+v1)
	if r := w.do(reads, "GET", "acct1:/con1/copy", nil, 200); r.body != "one" {
		t.Errorf("the copy of a version is %q", r.body)
	}
	w.do(contrib, "DELETE", pastBlob+"?versionid="+v1, nil, http.StatusForbidden)
	if r := w.do("key1", "DELETE", pastBlob+"?versionid="+v2, nil, http.StatusForbidden); r.header.Get("x-ms-error-code") != "OperationNotAllowedOnRootBlob" {
		t.Errorf("a delete of the current version: %s", r.header.Get("x-ms-error-code"))
	}
	w.do(contrib, "DELETE", pastBlob, nil, 202)
	w.do(reads, "GET", pastBlob, nil, 404)
	if r := w.do(reads, "GET", pastBlob+"?versionid="+v2, nil, 200); r.body != "one" {
		t.Errorf("the deleted blob's last version is %q", r.body)
	}
	w.do("key1", "DELETE", pastBlob+"?versionid="+v1, nil, 202)
	w.do(reads, "GET", pastBlob+"?versionid="+v1, nil, 404)
	for _, q := range []string{"?versionid=" + v2 + "&snapshot=" + v2, "?versionid=x", "?snapshot="} {
		w.do(reads, "GET", pastBlob+q, nil, 400)
	}
	for _, q := range []string{"?snapshot=" + v2, "?versionid=" + v2, "?comp=metadata&versionid=" + v2, "?comp=block&blockid=QQ%3D%3D&snapshot=" + v2} {
		w.do(contrib, "PUT", pastBlob+q, []byte("x"), 400)
	}
}

// A signature over a snapshot or a version opens that one alone, and one over the
// blob opens neither.
func TestASignatureIsOverOneMoment(t *testing.T) {
	w := newWorld(t)
	key := w.key("acct1", "key1")
	w.settings(true, 0)
	v := w.do(contrib, "PUT", pastBlob, []byte("one"), 201).header.Get("x-ms-version-id")
	a := w.do(contrib, "PUT", pastBlob+"?comp=snapshot", nil, 201).header.Get("x-ms-snapshot")
	b := w.do(contrib, "PUT", pastBlob+"?comp=snapshot", nil, 201).header.Get("x-ms-snapshot")
	w.do(contrib, "PUT", pastBlob, []byte("two"), 201)
	sign := func(sr, sp, moment string) string {
		q := url.Values{"sv": {"2022-11-02"}, "st": {"2026-05-01T00:00:00Z"}, "se": {"2026-05-02T00:00:00Z"}, "sp": {sp}, "sr": {sr}}
		g := q.Get
		q.Set("sig", mac(key, strings.Join([]string{g("sp"), g("st"), g("se"), "/blob/acct1/con1/b", "", "", "", g("sv"), g("sr"), moment, "", "", "", "", "", ""}, "\n")))
		return q.Encode()
	}
	for _, c := range []struct {
		method, query string
		want          int
	}{
		{"GET", sign("bs", "r", a) + "&snapshot=" + a, 200},
		{"GET", sign("bs", "r", a) + "&snapshot=" + b, 403},
		{"GET", sign("bs", "r", a), 403},
		{"GET", sign("bs", "r", v) + "&versionid=" + v, 403},
		{"GET", sign("bv", "r", v) + "&versionid=" + v, 200},
		{"GET", sign("bv", "r", v), 403},
		{"GET", sign("b", "r", "") + "&versionid=" + v, 403},
		{"GET", sign("b", "r", "") + "&snapshot=" + a, 403},
		{"GET", sign("b", "r", ""), 200},
		{"DELETE", sign("bv", "d", v) + "&versionid=" + v, 403},
		{"DELETE", sign("bs", "r", a) + "&snapshot=" + a, 403},
		{"DELETE", sign("bs", "d", a) + "&snapshot=" + a, 202},
		{"DELETE", sign("bv", "x", v) + "&versionid=" + v, 202},
	} {
		w.do("", c.method, pastBlob+"?"+c.query, nil, c.want)
	}
}

// Deleted containers come back with all they held, or go for good: in time, or
// with their account.
func TestDeletedContainersAreKept(t *testing.T) {
	w := newWorld(t)
	w.still()
	w.settings(false, 2)
	w.do(contrib, "PUT", pastBlob, noise(100000), 201)
	const con = "acct1:/con1?restype=container"
	w.do(contrib, "PUT", con+"&comp=metadata", nil, 200, "x-ms-meta-a: b")
	w.do(contrib, "DELETE", con, nil, 202)
	w.do(reads, "GET", pastBlob, nil, 404)
	if got := w.do(reads, "GET", "acct1:/?comp=list", nil, 200).body; strings.Contains(got, "con1") {
		t.Errorf("the list shows %s", got)
	}
	got := w.do(reads, "GET", "acct1:/?comp=list&include=deleted", nil, 200).body
	_, version, _ := strings.Cut(got, "<Version>")
	version, _, _ = strings.Cut(version, "</Version>")
	if !strings.Contains(got, "<Deleted>true</Deleted>") || !strings.Contains(got, "<RemainingRetentionDays>2</") {
		t.Fatalf("what is deleted is listed as %s", got)
	}
	restore := func(who, target, name, version string, want int) {
		t.Helper()
		w.do(who, "PUT", target+"&comp=undelete", nil, want, "x-ms-deleted-container-name: "+name, "x-ms-deleted-container-version: "+version)
	}
	restore(reads, con, "con1", version, 403)
	restore(contrib, "acct1:/con2?restype=container", "con1", version, 400)
	restore(contrib, con, "con1", "x", 400)
	restore(contrib, con, "con1", "2020-01-01T00:00:00.0000000Z", 404)
	w.do(contrib, "PUT", con, nil, 201)
	restore(contrib, con, "con1", version, 409)
	w.do(contrib, "DELETE", con, nil, 202)
	restore(contrib, con, "con1", version, 201)
	if r := w.do(reads, "GET", pastBlob, nil, 200); len(r.body) != 100000 {
		t.Errorf("the blob came back with %d bytes", len(r.body))
	}
	if r := w.do(reads, "GET", con, nil, 200); r.header.Get("x-ms-meta-a") != "b" {
		t.Errorf("the container came back as %v", r.header)
	}
	w.do(owner, "DELETE", "arm:"+accounts+"acct1/blobServices/default/containers/con1", nil, 200)
	if n := w.rows(lostTable); n != 2 {
		t.Errorf("%d containers are kept, want 2", n)
	}
	w.do(owner, "DELETE", "arm:"+accounts+"acct1", nil, 200)
	w.must(w.s.empty(t.Context()))
	if n := w.rows(all...); n != 0 || len(w.filesOnDisk()) != 0 {
		t.Errorf("%d rows and %d files are left of the account", n, len(w.filesOnDisk()))
	}
}
