package blob

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

const (
	conID    = accounts + "acct1/blobServices/default/containers/con1"
	policyID = conID + "/immutabilityPolicies/default"
)

func (w *world) guard(method, path, body string, want int, headers ...string) reply {
	w.t.Helper()
	return w.do(owner, method, "arm:"+path, []byte(body), want, headers...)
}

func days(n int) string {
	return fmt.Sprintf(`{"properties":{"immutabilityPeriodSinceCreationInDays":%d}}`, n)
}

// Nothing that changes or removes a guarded blob is done, by whatever door and
// credential: doors are the plane's own list. Reading, leasing and keeping a
// snapshot go on, and so does making blobs.
func TestGuardedBlobsStayAsTheyAre(t *testing.T) {
	w := newWorld(t)
	// None of these touches the blob's bytes, metadata or being there.
	free := map[string]bool{"PUT comp=lease": true, "PUT comp=snapshot": true, "PUT comp=undelete": true, "PUT comp=copy": true, "PUT comp=block": true, "PUT comp=tags": true, "PUT comp=tier": true}
	w.do("key1", "PUT", "acct1:/con1/"+appendBlob, nil, 201, "x-ms-blob-type: AppendBlob")
	w.do("key1", "PUT", "acct1:/con1/"+pageBlob, nil, 201, "x-ms-blob-type: PageBlob", "x-ms-blob-content-length: 512")
	w.do("key1", "PUT", "acct1:/con1/b", []byte("kept"), 201, "x-ms-meta-a: b")
	version := w.do("key1", "PUT", "acct1:/con1/b?comp=snapshot", nil, 201).header.Get("x-ms-snapshot")
	before := w.do(reads, "GET", "acct1:/con1/b", nil, 200)
	for name, set := range map[string][2]string{
		"policy": {"PUT " + policyID, days(3)}, "hold": {"POST " + conID + "/setLegalHold", `{"tags":["case1"]}`},
	} {
		method, path, _ := strings.Cut(set[0], " ")
		etag := w.guard(method, path, set[1], 200).header.Get("ETag")
		for _, rt := range w.s.Plane().Routes {
			_, query, _ := strings.Cut(rt.Pattern, "?")
			door := rt.Method + " " + query
			if !strings.HasPrefix(rt.Pattern, "/{container}/{blob...}") || rt.Method == "GET" || rt.Method == "HEAD" || rt.Why != "" || free[door] {
				continue
			}
			c := writes[door]
			target := "acct1:/con1/" + text(c.of, "b") + "?"
			if door == "DELETE versionid" || door == "DELETE deletetype=permanent" {
				continue // there are no versions; their deletion is a blob's
			}
			r := w.do("key1", rt.Method, target+query+c.query, []byte(c.body), 409, c.headers...)
			if code := r.header.Get("x-ms-error-code"); door != "DELETE " && code != map[string]string{"policy": "BlobImmutableDueToPolicy", "hold": "BlobImmutableDueToLegalHold"}[name] {
				t.Errorf("%s, %s: %s", name, door, code)
			}
		}
		w.do("key1", "DELETE", "acct1:/con1/b?snapshot="+version, nil, 409)
		w.do("key1", "DELETE", "acct1:/con1/b", nil, 409, "x-ms-delete-snapshots: include")
		w.do("key1", "DELETE", "acct1:/con1/b", nil, 409, "x-ms-delete-snapshots: only")
		w.do("key1", "PUT", "acct1:/con1/b", nil, 409, "x-ms-copy-source: https://acct1.blob."+testSite.StorageSuffix()+"/con1/"+appendBlob)
		w.do("key1", "PUT", "acct1:/con1/new"+name, []byte("x"), 201)
		// Neither does what holds it go.
		w.do("key1", "DELETE", "acct1:/con1?restype=container", nil, 409)
		for _, id := range []string{conID, accounts + "acct1", rg} {
			w.guard("DELETE", id, "", 409)
		}
		if r := w.do(reads, "GET", "acct1:/con1/b", nil, 200); r.body != "kept" || r.header.Get("ETag") != before.header.Get("ETag") || r.header.Get("x-ms-meta-a") != "b" {
			t.Errorf("%s: the blob is %q %v", name, r.body, r.header)
		}
		if name == "policy" {
			w.guard("DELETE", policyID, "", 200, "If-Match: "+etag)
		} else {
			w.guard("POST", conID+"/clearLegalHold", `{"tags":["case1"]}`, 200)
		}
	}
	w.do("key1", "PUT", "acct1:/con1/b", []byte("free"), 201)
}

// A blob is deleted once its time is over, but never changed; a locked policy is
// made longer and nothing else; then its container can go.
func TestALockedPolicy(t *testing.T) {
	w := newWorld(t)
	w.do(contrib, "PUT", "acct1:/con1/b", []byte("x"), 201)
	w.do(contrib, "PUT", "acct1:/con1/log", nil, 201, "x-ms-blob-type: AppendBlob")
	w.guard("GET", policyID, "", 404)
	w.guard("POST", policyID+"/lock", "", 404, "If-Match: x")
	etag := w.guard("PUT", policyID, `{"properties":{"immutabilityPeriodSinceCreationInDays":3,"allowProtectedAppendWrites":true}}`, 200).header.Get("ETag")
	w.do(contrib, "PUT", "acct1:/con1/log?comp=appendblock", []byte("x"), 201)
	w.do(contrib, "DELETE", "acct1:/con1/log", nil, 409)
	for _, who := range []string{contrib, reads, nobody} {
		w.do(who, "PUT", "arm:"+policyID, []byte(days(1)), 403)
		w.do(who, "DELETE", "arm:"+policyID, nil, 403, "If-Match: "+etag)
		w.do(who, "POST", "arm:"+conID+"/clearLegalHold", []byte(`{"tags":["abc"]}`), 403)
	}
	w.guard("POST", policyID+"/extend", days(9), 409, "If-Match: "+etag)
	w.guard("POST", policyID+"/lock", "", 400)
	w.guard("POST", policyID+"/lock", "", 412, `If-Match: "x"`)
	etag = w.guard("POST", policyID+"/lock", "", 200, "If-Match: "+etag).header.Get("ETag")
	for _, c := range []struct {
		method, path, body string
		want               int
	}{{"PUT", "", days(1), 409}, {"PUT", "", days(9), 409}, {"DELETE", "", "", 409}, {"POST", "/lock", "", 409}, {"POST", "/extend", days(3), 400}, {"POST", "/extend", days(2), 400}, {"POST", "/extend", days(0), 400}, {"POST", "/extend", days(146001), 400}} {
		w.guard(c.method, policyID+c.path, c.body, c.want, "If-Match: "+etag)
	}
	for i := range maxExtends {
		etag = w.guard("POST", policyID+"/extend", days(4+i), 200, "If-Match: "+etag).header.Get("ETag")
	}
	w.guard("POST", policyID+"/extend", days(90), 409, "If-Match: "+etag)
	if r := w.guard("GET", policyID, "", 200); r.at("properties.state") != "Locked" || r.at("properties.immutabilityPeriodSinceCreationInDays") != "8" {
		t.Errorf("the policy is %s", r.body)
	}
	if r := w.guard("GET", conID, "", 200); r.at("properties.hasImmutabilityPolicy") != "true" || r.at("properties.immutabilityPolicy.properties.state") != "Locked" {
		t.Errorf("the container is %s", r.body)
	}
	w.restart()
	w.guard("PUT", conID, `{"properties":{"metadata":{"a":"b"}}}`, 200) // keeps the guard
	if r := w.do(reads, "HEAD", "acct1:/con1?restype=container", nil, 200); r.header.Get("x-ms-has-immutability-policy") != "true" {
		t.Errorf("the container shows %v", r.header)
	}
	w.pass(8*24*time.Hour - time.Second)
	w.do(contrib, "DELETE", "acct1:/con1/b", nil, 409)
	w.pass(time.Second)
	w.do(contrib, "PUT", "acct1:/con1/b", []byte("y"), 409)
	w.do(contrib, "DELETE", "acct1:/con1/b", nil, 202)
	w.guard("DELETE", accounts+"acct1", "", 409)
	w.do(contrib, "DELETE", "acct1:/con1/log", nil, 202)
	w.do(contrib, "DELETE", "acct1:/con1?restype=container", nil, 202)
	w.guard("DELETE", accounts+"acct1", "", 200)
}

// Several holds are set and cleared by their tags; the last one lets go.
func TestLegalHolds(t *testing.T) {
	w := newWorld(t)
	w.do(contrib, "PUT", "acct1:/con1/b", []byte("x"), 201)
	w.guard("POST", conID+"/setLegalHold", `{"tags":["case1","Case2"]}`, 200)
	if r := w.guard("POST", conID+"/clearLegalHold", `{"tags":["case1"]}`, 200); r.at("hasLegalHold") != "true" || r.at("tags") != "[case2]" {
		t.Errorf("the holds are %s", r.body)
	}
	if r := w.do(reads, "GET", "acct1:/?comp=list", nil, 200); !strings.Contains(r.body, "<HasLegalHold>true</HasLegalHold>") {
		t.Errorf("the list shows %s", r.body)
	}
	for _, bad := range []string{`{"tags":[]}`, `{}`, `{"tags":["ab"]}`, `{"tags":["a-b"]}`, `{"tags":["one","two","three","four","five","six","seven","eight","nine","ten","eleven"]}`} {
		w.guard("POST", conID+"/setLegalHold", bad, 400)
	}
	w.pass(1000 * 24 * time.Hour)
	w.do(contrib, "DELETE", "acct1:/con1/b", nil, http.StatusConflict)
	w.guard("POST", conID+"/clearLegalHold", `{"tags":["case2"]}`, 200)
	w.do(contrib, "DELETE", "acct1:/con1/b", nil, 202)
}
