package blob

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"castellan/internal/arm"
)

const (
	idA = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa"
	idB = "bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb"
)

// What every action does in every state, after Azure's table of outcomes: the
// state that follows, or the code of the refusal.
func TestALeaseGoesThroughItsStates(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	states := map[string]*lease{
		available: nil,
		leased:    newLease(idA, 30, now),
		expired:   newLease(idA, 30, now.Add(-time.Minute)),
		breaking:  {ID: idA, Seconds: endless, Broken: now.Add(time.Second)},
		broken:    {ID: idA, Seconds: endless, Broken: now},
	}
	for name, l := range states {
		if got := l.state(now); got != name {
			t.Fatalf("the lease is %s, want %s", got, name)
		}
	}
	const mismatch, absent = "LeaseIdMismatchWithLeaseOperation", "LeaseNotPresentWithLeaseOperation"
	for _, c := range []struct {
		name string
		w    wish
		want [5]string // available, leased, expired, breaking, broken
	}{
		{"acquire", wish{action: "acquire", seconds: 15}, [5]string{leased, "LeaseAlreadyPresent", leased, "LeaseAlreadyPresent", leased}},
		{"acquire A", wish{action: "acquire", seconds: 15, proposed: idA}, [5]string{leased, leased, leased, "LeaseIsBreakingAndCannotBeAcquired", leased}},
		{"acquire B", wish{action: "acquire", seconds: endless, proposed: idB}, [5]string{leased, "LeaseAlreadyPresent", leased, "LeaseAlreadyPresent", leased}},
		{"renew A", wish{action: "renew", id: idA}, [5]string{mismatch, leased, leased, "LeaseIsBrokenAndCannotBeRenewed", "LeaseIsBrokenAndCannotBeRenewed"}},
		{"renew B", wish{action: "renew", id: idB}, [5]string{mismatch, mismatch, mismatch, mismatch, mismatch}},
		{"change A to B", wish{action: "change", id: idA, proposed: idB}, [5]string{absent, leased, absent, "LeaseIsBreakingAndCannotBeChanged", absent}},
		{"change B to A", wish{action: "change", id: idB, proposed: idA}, [5]string{absent, leased, absent, "LeaseIsBreakingAndCannotBeChanged", absent}},
		{"change B to B", wish{action: "change", id: idB, proposed: idB}, [5]string{absent, mismatch, absent, mismatch, absent}},
		{"release A", wish{action: "release", id: idA}, [5]string{mismatch, available, available, available, available}},
		{"release B", wish{action: "release", id: idB}, [5]string{mismatch, mismatch, mismatch, mismatch, mismatch}},
		{"break", wish{action: "break", period: -1}, [5]string{absent, breaking, broken, breaking, broken}},
		{"break now", wish{action: "break", period: 0}, [5]string{absent, broken, broken, broken, broken}},
		{"break late", wish{action: "break", period: 60}, [5]string{absent, breaking, broken, breaking, broken}},
	} {
		for i, state := range []string{available, leased, expired, breaking, broken} {
			l, err := states[state].after(c.w, now)
			got := string(arm.CodeOf(err))
			if err == nil {
				got = l.state(now)
			}
			if got != c.want[i] {
				t.Errorf("%s of one that is %s: %s, want %s", c.name, state, got, c.want[i])
			}
		}
	}
	for _, c := range []struct {
		l      *lease
		period int
		want   int
	}{{newLease(idA, 30, now), -1, 30}, {newLease(idA, 30, now), 10, 10}, {newLease(idA, 30, now), 60, 30}, {newLease(idA, endless, now), -1, 0}, {newLease(idA, endless, now), 60, 60}, {states[breaking], 60, 1}} {
		if l, err := c.l.after(wish{action: "break", period: c.period}, now); err != nil || l.remaining(now) != c.want {
			t.Errorf("a lease of %d s, broken in %d, holds for %d s more (%v), want %d", c.l.Seconds, c.period, l.remaining(now), err, c.want)
		}
	}
}

func (w *world) lease(who, target, action string, want int, headers ...string) string {
	w.t.Helper()
	comp := map[bool]string{true: "&comp=lease", false: "?comp=lease"}[strings.Contains(target, "?")]
	return w.do(who, "PUT", target+comp, nil, want, append(headers, "x-ms-lease-action: "+action)...).header.Get("x-ms-lease-id")
}

// writes are requests for the doors that change a blob.
var writes = map[string]struct {
	query, body string
	headers     []string
	of          string // "" is a block blob
}{
	"PUT ":                {body: "new"},
	"DELETE ":             {},
	"PUT comp=block":      {query: "&blockid=QQ%3D%3D", body: "new"},
	"PUT comp=blocklist":  {body: "<BlockList></BlockList>"},
	"PUT comp=metadata":   {headers: []string{"x-ms-meta-a: b"}},
	"PUT comp=properties": {headers: []string{"x-ms-blob-content-type: a/b"}},
	"PUT comp=tier":       {headers: []string{"x-ms-access-tier: Cool"}},
	"PUT comp=tags":       {body: "<Tags><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tags>"},
	"PUT comp=appendblock": {
		body: "new", of: appendBlob,
	},
	"PUT comp=seal": {of: appendBlob},
	"PUT comp=page": {
		headers: []string{"x-ms-page-write: clear", "x-ms-range: bytes=0-511"}, of: pageBlob,
	},
}

// Every door that changes a blob asks for the id of its lease, and changes
// nothing without it; reading asks for none. Doors are the plane's own list.
func TestEveryWriteAsksForTheLease(t *testing.T) {
	w := newWorld(t)
	// A lease is changed by its own door; a snapshot and what was deleted are beside
	// the blob, and no lease holds a version.
	free := map[string]bool{"PUT comp=lease": true, "PUT comp=snapshot": true, "PUT comp=undelete": true, "DELETE versionid": true, "DELETE deletetype=permanent": true, "PUT comp=copy": true}
	doors := 0
	for _, rt := range w.s.Plane().Routes {
		if !strings.HasPrefix(rt.Pattern, "/{container}/{blob...}") || rt.Method == "GET" || rt.Method == "HEAD" || rt.Why != "" {
			continue
		}
		_, query, _ := strings.Cut(rt.Pattern, "?")
		c, ok := writes[rt.Method+" "+query]
		if !ok && free[rt.Method+" "+query] {
			continue
		}
		if !ok {
			t.Errorf("%s %s is a door of which this test knows no request", rt.Method, rt.Pattern)
			continue
		}
		doors++
		typ := "x-ms-blob-type: " + text(c.of, blockBlob)
		name := "acct1:/con1/" + strings.ToLower(rt.Method) + strings.TrimPrefix(query, "comp=")
		w.do("key1", "PUT", name, nil, 201, typ, "x-ms-blob-content-length: 512")
		w.lease("key1", name, "acquire", 201, "x-ms-lease-duration: -1", "x-ms-proposed-lease-id: "+idA)
		before := w.do(reads, "HEAD", name, nil, 200).header
		target := name + "?" + query + c.query
		for id, code := range map[string]string{"": "LeaseIdMissing", idB: "LeaseIdMismatchWithBlobOperation"} {
			headers := c.headers
			if id != "" {
				headers = append([]string{"x-ms-lease-id: " + id}, headers...)
			}
			if r := w.do("key1", rt.Method, target, []byte(c.body), 412, headers...); r.header.Get("x-ms-error-code") != code {
				t.Errorf("%s %s with the lease %q: %s, want %s", rt.Method, rt.Pattern, id, r.header.Get("x-ms-error-code"), code)
			}
		}
		if after := w.do(reads, "HEAD", name, nil, 200).header; after.Get("ETag") != before.Get("ETag") || after.Get("x-ms-lease-state") != "leased" || after.Get("x-ms-lease-duration") != "infinite" {
			t.Errorf("%s %s changed the blob: %v", rt.Method, rt.Pattern, after)
		}
		if r := w.do("key1", rt.Method, target, []byte(c.body), 0, append([]string{"x-ms-lease-id: " + strings.ToUpper(idA)}, c.headers...)...); r.code >= 300 {
			t.Errorf("%s %s with the lease = %d %s", rt.Method, rt.Pattern, r.code, r.body)
		}
		if rt.Method != "DELETE" {
			if r := w.do(reads, "HEAD", name, nil, 200); r.header.Get("x-ms-lease-state") != "leased" {
				t.Errorf("%s %s ended the lease", rt.Method, rt.Pattern)
			}
		}
	}
	if doors != len(writes) {
		t.Errorf("%d doors were tried of %d", doors, len(writes))
	}
}

// A lease lasts as long as it says; what it kept out goes on then. It outlives a
// restart.
func TestALeaseEnds(t *testing.T) {
	w := newWorld(t)
	const b = "acct1:/con1/b"
	w.do(contrib, "PUT", b, []byte("x"), 201)
	etag := w.do(reads, "HEAD", b, nil, 200).header.Get("ETag")
	id := w.lease(contrib, b, "acquire", 201, "x-ms-lease-duration: 15")
	w.pass(14 * time.Second)
	w.restart()
	w.do(contrib, "PUT", b, []byte("y"), 412)
	w.lease(contrib, b, "renew", 200, "x-ms-lease-id: "+id)
	w.pass(14 * time.Second)
	w.do(contrib, "DELETE", b, nil, 412)
	w.do(reads, "GET", b, nil, 412, "x-ms-lease-id: "+idB)
	w.do(reads, "GET", b, nil, 200, "x-ms-lease-id: "+id)
	if r := w.do(reads, "GET", b, nil, 200); r.body != "x" || r.header.Get("ETag") != etag || r.header.Get("x-ms-lease-duration") != "fixed" {
		t.Errorf("a leased blob reads %q %v", r.body, r.header)
	}
	w.pass(time.Second)
	if r := w.do(contrib, "PUT", b, []byte("y"), 412, "x-ms-lease-id: "+id); r.header.Get("x-ms-error-code") != "LeaseLost" {
		t.Errorf("a lease that ran out: %s", r.header.Get("x-ms-error-code"))
	}
	if r := w.do(reads, "GET", "acct1:/con1?restype=container&comp=list", nil, 200); !strings.Contains(r.body, "<LeaseState>expired</LeaseState>") {
		t.Errorf("the list shows %s", r.body)
	}
	w.do(contrib, "PUT", b, []byte("y"), 201)
	if r := w.do(reads, "HEAD", b, nil, 200); r.header.Get("x-ms-lease-state") != available {
		t.Errorf("after a write the lease is %s", r.header.Get("x-ms-lease-state"))
	}
	w.lease(contrib, b, "renew", 409, "x-ms-lease-id: "+id)
	for _, bad := range [][]string{{"acquire"}, {"acquire", "x-ms-lease-duration: 14"}, {"acquire", "x-ms-lease-duration: 61"}, {"acquire", "x-ms-lease-duration: 15", "x-ms-proposed-lease-id: 1"}, {"renew"}, {"change", "x-ms-lease-id: " + id}, {"break", "x-ms-lease-break-period: 61"}, {"take"}, {""}} {
		w.lease(contrib, b, bad[0], 400, bad[1:]...)
	}
	w.lease(contrib, "acct1:/con1/none", "acquire", 404, "x-ms-lease-duration: 15")
	w.lease(reads, b, "acquire", 403, "x-ms-lease-duration: 15")
}

// The lease of a container keeps it from being deleted, and from nothing else.
func TestALeasedContainerStays(t *testing.T) {
	w := newWorld(t)
	const con = "acct1:/con1?restype=container"
	id := w.lease(contrib, con, "acquire", 201, "x-ms-lease-duration: -1")
	w.do(contrib, "PUT", "acct1:/con1/b", []byte("x"), 201)
	w.do(contrib, "PUT", con+"&comp=metadata", nil, 200, "x-ms-meta-a: b")
	w.do(contrib, "PUT", con+"&comp=metadata", nil, 412, "x-ms-meta-a: c", "x-ms-lease-id: "+idB)
	for _, headers := range [][]string{{}, {"x-ms-lease-id: " + idB}} {
		w.do(contrib, "DELETE", con, nil, 412, headers...)
	}
	if r := w.do(reads, "GET", con, nil, 200); r.header.Get("x-ms-lease-state") != leased || r.header.Get("x-ms-meta-a") != "b" {
		t.Errorf("the container shows %v", r.header)
	}
	const at = accounts + "acct1/blobServices/default/containers/con1"
	w.do(owner, "PUT", "arm:"+at, []byte(`{"properties":{"metadata":{"x":"y"}}}`), 200)
	if r := w.do(owner, "GET", "arm:"+at, nil, 200); r.at("properties.leaseState") != "Leased" || r.at("properties.leaseStatus") != "Locked" || r.at("properties.leaseDuration") != "Infinite" {
		t.Errorf("Resource Manager shows %s", r.body)
	}
	if r := w.do(contrib, "PUT", con+"&comp=lease", nil, 202, "x-ms-lease-action: break", "x-ms-lease-break-period: 20"); r.header.Get("x-ms-lease-time") != "20" {
		t.Errorf("it is broken in %s s", r.header.Get("x-ms-lease-time"))
	}
	w.do(contrib, "DELETE", con, nil, 412)
	w.pass(20 * time.Second)
	w.do(contrib, "DELETE", con, nil, 412, "x-ms-lease-id: "+id)
	w.do(contrib, "DELETE", con, nil, 202)
}

// A signature leases what it may write, and breaks leases of what it may delete.
func TestASignatureAndLeases(t *testing.T) {
	w := newWorld(t)
	key := w.key("acct1", "key1")
	w.do(contrib, "PUT", "acct1:/con1/b", []byte("x"), 201)
	at := func(sp string) string {
		return "acct1:/con1/b?" + serviceSAS(key, "/blob/acct1/con1/b", url.Values{"sp": {sp}}).Encode()
	}
	for _, sp := range []string{"r", "d", "c", "a", "rcad"} {
		w.lease("", at(sp), "acquire", http.StatusForbidden, "x-ms-lease-duration: -1")
	}
	w.lease("", at("w"), "acquire", 201, "x-ms-lease-duration: -1")
	w.lease("", at("r"), "break", http.StatusForbidden)
	w.lease("", at("d"), "break", 202)
}
