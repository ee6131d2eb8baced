package blob

import (
	"fmt"
	"net/http"
	"net/url"
	"testing"

	"castellan/internal/arm"
	"castellan/internal/resource"
	"castellan/internal/store"
)

func (w *world) rules(props string) {
	w.t.Helper()
	w.account("acct1", props)
}

// An account that is shut lets in the addresses and resources of its rules, by
// whatever credential, and nobody else; Resource Manager goes on.
func TestAFirewalledAccount(t *testing.T) {
	w := newWorld(t)
	w.do(contrib, "PUT", "acct1:/con1/b", []byte("x"), 201)
	key := w.key("acct1", "key1")
	sas := serviceSAS(key, "/blob/acct1/con1/b", nil).Encode()
	look := func(want int, why string) {
		t.Helper()
		for _, who := range []string{reads, "key1"} {
			if r := w.do(who, "GET", "acct1:/con1/b", nil, want); r.code == 403 && r.header.Get("x-ms-error-code") != "AuthorizationFailure" {
				t.Errorf("%s: %s", why, r.header.Get("x-ms-error-code"))
			}
		}
		w.do("", "GET", "acct1:/con1/b?"+sas, nil, want)
	}
	ip := func(v string) string {
		return fmt.Sprintf(`"networkAcls":{"defaultAction":"Deny","ipRules":[{"value":%q}]}`, v)
	}
	for _, c := range []struct {
		props string
		want  int
	}{
		{`"networkAcls":{"defaultAction":"Deny"}`, 403}, {ip("127.0.0.1"), 200}, {ip("127.0.0.0/8"), 200}, {ip("127.0.0.2"), 403}, {ip("128.0.0.0/1"), 403}, {ip("0.0.0.0/0"), 200},
		{`"publicNetworkAccess":"Disabled",` + ip("127.0.0.1"), 403}, {`"publicNetworkAccess":"Disabled","networkAcls":{"defaultAction":"Allow"}`, 403},
		{`"publicNetworkAccess":"Enabled","networkAcls":{"defaultAction":"Allow"}`, 200},
	} {
		w.rules(c.props)
		look(c.want, c.props)
	}
	w.rules(`"networkAcls":{"defaultAction":"Deny"}`)
	w.do(reads, "GET", "acct1:/con1/b", nil, 403, "X-Forwarded-For: 127.0.0.1", "Forwarded: for=127.0.0.1")
	w.restart()
	look(403, "after a restart")
	w.do(owner, "PATCH", "arm:"+accounts+"acct1", []byte(`{"tags":{"a":"b"}}`), 200)
	look(403, "after a change of something else")
	w.do(owner, "PUT", "arm:"+accounts+"acct1/blobServices/default/containers/con2", []byte(`{}`), 201)

	// Nothing of it is copied out by way of another account.
	w.account("acct2", "")
	w.do(contrib, "PUT", "acct2:/con2?restype=container", nil, 201)
	src := "x-ms-copy-source: https://acct1.blob." + testSite.StorageSuffix() + "/con1/b"
	for _, from := range []string{src, src + "?" + sas} {
		w.do(contrib, "PUT", "acct2:/con2/stolen", nil, 403, from)
		w.do(contrib, "PUT", "acct2:/con2/stolen?comp=block&blockid=QQ%3D%3D", nil, 403, from)
	}
	w.do(reads, "GET", "acct2:/con2/stolen", nil, 404)
}

// A resource that a rule names reaches the account by its own identity alone, and
// the platform's services do while they are let by.
func TestResourcesAndServicesReachAccounts(t *testing.T) {
	w := newWorld(t)
	w.do(contrib, "PUT", "acct1:/con1/b", []byte("x"), 201)
	const robot = "00000000-0000-0000-0000-0000000000ee"
	id := rg + "/providers/Microsoft.MachineLearningServices/workspaces/ws"
	w.must(w.db.Do(t.Context(), func(tx *store.Tx) error {
		return resource.Save(tx, &resource.Doc{ID: arm.MustID(id), Name: "ws", Type: "Microsoft.MachineLearningServices/workspaces", Identity: &resource.Identity{Type: "SystemAssigned", Principal: robot, Tenant: tenant}})
	}))
	rule := func(bypass string) {
		w.rules(fmt.Sprintf(`"networkAcls":{"defaultAction":"Deny","bypass":%q,"resourceAccessRules":[{"tenantId":%q,"resourceId":%q}]}`, bypass, tenant, id))
	}
	acct := arm.MustID(accounts + "acct1")
	is := person(robot)
	is.Kind = arm.ServicePrincipal
	other := is
	other.Object = nobody
	lent := is
	lent.Lease = &arm.Lease{Scope: acct, Actions: []arm.Action{BlobRead}, Why: "a run token"}
	for _, bypass := range []string{"AzureServices", "None", "Logging, Metrics"} {
		rule(bypass)
		a := w.s.byID(acct)
		for _, c := range []struct {
			who  arm.Caller
			want bool
		}{{is, true}, {other, false}, {lent, false}, {person(robot), false}, {arm.Caller{}, false}} {
			if err := w.s.reach(a, c.who, peerOf(&http.Request{RemoteAddr: "192.0.2.1:5"})); err == nil != c.want {
				t.Errorf("%s: %v reaches: %v", bypass, c.who, err)
			}
			if err := w.s.Trusts(c.who, acct); err == nil != (c.want || bypass == "AzureServices") {
				t.Errorf("%s: %v is trusted: %v", bypass, c.who, err)
			}
		}
	}
	if w.s.Trusts(is, arm.MustID(accounts+"none")) == nil {
		t.Error("an account that is not there trusts")
	}
}

// Blocks and appends come from other blobs, ranges of them too, by the caller's
// rights, a signature or a token beside; from nowhere else.
func TestBytesFromOtherBlobs(t *testing.T) {
	w := newWorld(t)
	const only = "00000000-0000-0000-0000-0000000000dd"
	w.account("acct2", "")
	w.give(only, "Storage Blob Data Contributor", accounts+"acct2")
	w.do(contrib, "PUT", "acct1:/con1/src", []byte("0123456789"), 201)
	w.do(contrib, "PUT", "acct2:/con2?restype=container", nil, 201)
	w.do(contrib, "PUT", "acct2:/con2/log", nil, 201, "x-ms-blob-type: AppendBlob")
	url1 := "https://acct1.blob." + testSite.StorageSuffix() + "/con1/src"
	src := "x-ms-copy-source: " + url1
	sas := serviceSAS(w.key("acct1", "key1"), "/blob/acct1/con1/src", url.Values{}).Encode()
	block, app := "acct2:/con2/b?comp=block&blockid=QQ%3D%3D", "acct2:/con2/log?comp=appendblock"
	for _, to := range []string{block, app} {
		w.do(only, "PUT", to, nil, 403, src)
		w.do(only, "PUT", to, nil, 403, src, "x-ms-copy-source-authorization: Bearer "+nobody)
		w.do(only, "PUT", to, nil, 400, src, "x-ms-copy-source-authorization: Basic x")
		w.do(only, "PUT", to, nil, 400, src+"?"+sas, "x-ms-copy-source-authorization: Bearer "+reads)
		w.do(only, "PUT", to, nil, 416, src+"?"+sas, "x-ms-source-range: bytes=10-")
		w.do(only, "PUT", to, nil, 400, src+"?"+sas, "x-ms-source-range: bytes=-1")
		w.do(only, "PUT", to, []byte("x"), 400, src+"?"+sas)
		w.do(only, "PUT", to, nil, 400, src+"?"+sas, "x-ms-source-content-md5: AAAAAAAAAAAAAAAAAAAAAA==")
		w.do(only, "PUT", to, nil, 412, src+"?"+sas, `x-ms-source-if-match: "x"`)
		for _, evil := range []string{"https://example.com/a/b", "http://acct1.blob." + testSite.StorageSuffix() + "/con1/src", "https://169.254.169.254/metadata/identity", "file:///etc/passwd", "https://acct1.blob." + testSite.StorageSuffix() + "@example.com/con1/src"} {
			w.do(contrib, "PUT", to, nil, 400, "x-ms-copy-source: "+evil)
		}
		w.do(only, "PUT", to, nil, 201, src+"?"+sas, "x-ms-source-range: bytes=2-4")
		w.do(only, "PUT", to, nil, 201, src, "x-ms-copy-source-authorization: Bearer "+reads, "x-ms-source-range: bytes=5-6")
	}
	w.do(only, "PUT", "acct2:/con2/b?comp=blocklist", []byte("<BlockList><Latest>QQ==</Latest></BlockList>"), 201)
	if r := w.do(only, "GET", "acct2:/con2/b", nil, 200); r.body != "56" {
		t.Errorf("the block blob is %q", r.body)
	}
	if r := w.do(only, "GET", "acct2:/con2/log", nil, 200); r.body != "23456" {
		t.Errorf("the append blob is %q", r.body)
	}
	if r := w.do(only, "PUT", "acct2:/con2/b?comp=copy&copyid="+idA, nil, 409); r.header.Get("x-ms-error-code") != "NoPendingCopyOperation" {
		t.Errorf("a copy is aborted: %s", r.header.Get("x-ms-error-code"))
	}
}
