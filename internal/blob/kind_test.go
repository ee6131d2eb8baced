package blob

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"castellan/internal/arm"
)

func (r reply) at(path string) string {
	var x any
	_ = json.Unmarshal([]byte(r.body), &x) // an answer of another form has nothing there
	for _, p := range strings.Split(path, ".") {
		m, _ := x.(map[string]any)
		x = m[p]
	}
	return fmt.Sprint(x)
}

// An account is answered with 200, never 201, shows what clients look for and
// only what exists.
func TestAnAccountAsAzureShowsIt(t *testing.T) {
	w := newWorld(t)
	for range 2 {
		r := w.do(owner, "PUT", "arm:"+accounts+"acct5", []byte(`{"location":"local","sku":{"name":"Standard_LRS"},"kind":"StorageV2","tags":{"a":"b"},"properties":{
			"encryption":{"services":{"blob":{"enabled":true},"file":{"enabled":true}},"keySource":"Microsoft.Storage"},"supportsHttpsTrafficOnly":true,"allowBlobPublicAccess":false,
			"networkAcls":null,"publicNetworkAccess":"Enabled","isHnsEnabled":false,"minimumTlsVersion":"TLS1_2"}}`), 200)
		for path, want := range map[string]string{
			"properties.primaryEndpoints.blob": "https://acct5.blob.core.castellan.localhost/", "properties.primaryLocation": "local", "properties.provisioningState": "Succeeded",
			"properties.allowSharedKeyAccess": "true", "properties.allowBlobPublicAccess": "false", "properties.supportsHttpsTrafficOnly": "true", "properties.minimumTlsVersion": "TLS1_2",
			"properties.encryption.services.blob.enabled": "true", "properties.networkAcls.defaultAction": "Allow", "properties.primaryEndpoints.dfs": "https://acct5.dfs.core.castellan.localhost/", "properties.isHnsEnabled": "false", "sku.tier": "Standard", "kind": "StorageV2", "tags.a": "b",
		} {
			if got := r.at(path); got != want {
				t.Errorf("%s is %s, want %s", path, got, want)
			}
		}
	}
	for _, p := range []string{"blobServices/default", "fileServices/default"} {
		if r := w.do(owner, "GET", "arm:"+accounts+"acct5/"+p, nil, 200); r.at("name") != "default" {
			t.Errorf("%s: %s", p, r.body)
		}
	}
	w.do(owner, "PUT", "arm:"+accounts+"acct5/blobServices/default", []byte(`{"properties":{"deleteRetentionPolicy":{"enabled":false},"cors":{"corsRules":[]}}}`), 200)
	w.do(owner, "PUT", "arm:"+accounts+"acct5/blobServices/default", []byte(`{"properties":{"deleteRetentionPolicy":{"enabled":true}}}`), 400)
	for _, days := range []string{"0", "366", "-1", "1.5"} {
		w.do(owner, "PUT", "arm:"+accounts+"acct5/blobServices/default", []byte(`{"properties":{"deleteRetentionPolicy":{"enabled":true,"days":`+days+`}}}`), 400)
	}
	w.do(owner, "PUT", "arm:"+accounts+"acct5/blobServices/other", []byte(`{}`), 400)
	w.do(owner, "DELETE", "arm:"+accounts+"acct5/blobServices/default", nil, 405)
	w.do(owner, "DELETE", "arm:"+accounts+"acct5", nil, 200)
	w.do(owner, "GET", "arm:"+accounts+"acct5", nil, 404)
	w.do(owner, "GET", "arm:"+accounts+"acct5/blobServices/default", nil, 404)
	w.do(owner, "DELETE", "arm:"+accounts+"acct5", nil, 204)
}

// What would promise more than the platform keeps is refused, and names are
// unique in the installation.
func TestAccountsThatCanNotBe(t *testing.T) {
	w := newWorld(t)
	put := func(name, sku, kind, props string, want int) reply {
		t.Helper()
		return w.do(owner, "PUT", "arm:"+rg+"2/providers/Microsoft.Storage/storageAccounts/"+name, []byte(`{"location":"local","sku":{"name":"`+sku+`"},"kind":"`+kind+`","properties":{`+props+`}}`), want)
	}
	w.do(owner, "PUT", "arm:"+rg+"2", []byte(`{"location":"local"}`), 201)
	if r := put("acct1", "Standard_LRS", "StorageV2", "", 409); r.at("error.code") != "StorageAccountAlreadyTaken" {
		t.Errorf("a name twice: %s", r.body)
	}
	for _, name := range []string{"ab", "Acct", "a-b", "a_b", strings.Repeat("x", 25), "äccount"} {
		put(name, "Standard_LRS", "StorageV2", "", 400)
	}
	for _, p := range []string{
		`"allowBlobPublicAccess":true`, `"supportsHttpsTrafficOnly":false`, `"minimumTlsVersion":"TLS1_0"`, `"publicNetworkAccess":"SecuredByPerimeter"`, `"isSftpEnabled":true`, `"isNfsV3Enabled":true`,
		`"networkAcls":{"defaultAction":"Reject"}`, `"networkAcls":{"ipRules":[{"value":"1.2.3.4/24"}]}`, `"networkAcls":{"ipRules":[{"value":"::1"}]}`, `"networkAcls":{"ipRules":[{"value":"1.2.3.4","action":"Deny"}]}`, `"networkAcls":{"bypass":"All"}`, `"networkAcls":{"resourceAccessRules":[{"tenantId":"` + sub + `","resourceId":"` + accounts + `acct1"}]}`, `"networkAcls":{"virtualNetworkRules":[{}]}`, `"encryption":{"keySource":"Microsoft.Keyvault"}`,
		`"unknown":1`, `"allowSharedKeyAccess":false,"AllowSharedKeyAccess":true`, `"accessTier":"Cold"`, `"immutableStorageWithVersioning":{"enabled":true}`,
	} {
		put("newaccount", "Standard_LRS", "StorageV2", p, 400)
	}
	put("newaccount", "Standard_GRS", "StorageV2", "", 400)
	put("newaccount", "Standard_LRS", "FileStorage", "", 400)
	put("newaccount", "", "StorageV2", "", 400)
	w.do(owner, "GET", "arm:"+rg+"2/providers/Microsoft.Storage/storageAccounts/newaccount", nil, 404)
	check := func(name string) reply {
		return w.do(owner, "POST", "arm:/subscriptions/"+sub+"/providers/Microsoft.Storage/checkNameAvailability", []byte(`{"name":"`+name+`","type":"Microsoft.Storage/storageAccounts"}`), 200)
	}
	for name, want := range map[string]string{"newaccount": "true <nil>", "acct1": "false AlreadyExists", "A": "false AccountNameInvalid"} {
		if r := check(name); r.at("nameAvailable")+" "+r.at("reason") != want {
			t.Errorf("checkNameAvailability of %s: %s", name, r.body)
		}
	}
	w.do(nobody, "POST", "arm:/subscriptions/"+sub+"/providers/Microsoft.Storage/checkNameAvailability", []byte(`{"name":"a"}`), 403)
}

// A container is one thing on both planes.
func TestAContainerOnBothPlanes(t *testing.T) {
	w := newWorld(t)
	at := "arm:" + accounts + "acct1/blobServices/default/containers/"
	w.do(owner, "GET", at+"con1", nil, 200)
	w.do(owner, "PUT", at+"con2", []byte(`{"properties":{"publicAccess":"None","metadata":{"a":"b"}}}`), 201)
	w.do(owner, "PUT", at+"con2", []byte(`{"properties":{"publicAccess":"None","metadata":{"a":"c"}}}`), 200)
	r := w.do(reads, "GET", "acct1:/con2?restype=container", nil, 200)
	if r.header.Get("x-ms-meta-a") != "c" || r.header.Get("ETag") == "" {
		t.Errorf("%v", r.header)
	}
	w.do(contrib, "PUT", "acct1:/con2?restype=container&comp=metadata", nil, 200, "x-ms-meta-a: d")
	if r := w.do(owner, "GET", at+"con2", nil, 200); r.at("properties.metadata.a") != "d" || r.at("properties.publicAccess") != "None" || r.at("properties.leaseState") != "Available" {
		t.Errorf("%s", r.body)
	}
	w.do(contrib, "PUT", "acct1:/con2/b", []byte("x"), 201)
	if r := w.do(contrib, "PUT", "acct1:/con2?restype=container", nil, 409); r.header.Get("x-ms-error-code") != "ContainerAlreadyExists" {
		t.Errorf("%v", r.header)
	}
	for _, name := range []string{"ab", "UP", "a--b", "-ab", "ab-", "a_b", strings.Repeat("x", 64), "$root"} {
		w.do(owner, "PUT", at+name, []byte(`{}`), 400)
		w.do(contrib, "PUT", "acct1:/"+name+"?restype=container", nil, 400)
	}
	w.do(owner, "PUT", at+"con3", []byte(`{"properties":{"publicAccess":"Blob"}}`), 400)
	w.do(owner, "DELETE", at+"con2", nil, 200)
	w.do(reads, "GET", "acct1:/con2/b", nil, 404)
	w.do(contrib, "DELETE", "acct1:/con1?restype=container", nil, 202, "If-Unmodified-Since: "+httpTime(w.clock()))
	w.do(owner, "GET", at+"con1", nil, 404)
	w.do(owner, "PUT", "arm:"+accounts+"nosuch/blobServices/default/containers/con1", []byte(`{}`), 404)
	id := arm.MustID(accounts + "acct1")
	g, err := w.s.Locate("https://acct1.blob.core.castellan.localhost/con1/a%20b/c?sig=x")
	if err != nil || g.ID != ContainerID(id, "con1") || g.Item != "a b/c" {
		t.Errorf("Locate = %v, %v", g, err)
	}
	if u := w.s.URL(ContainerID(id, "con1"), "a b/c"); u != "https://acct1.blob.core.castellan.localhost/con1/a%20b/c" {
		t.Errorf("URL = %s", u)
	}
}

// An account that was there before is found again, a deleted one is not, and a
// grant for one account does not reach another that took its name.
func TestAccountsOutliveARestart(t *testing.T) {
	w := newWorld(t)
	w.do(contrib, "PUT", "acct1:/con1/b", noise(100000), 201)
	w.account("acct2", "")
	w.do(owner, "DELETE", "arm:"+accounts+"acct2", nil, 200)
	key := w.key("acct1", "key1")
	w.restart()
	if got := w.do(reads, "GET", "acct1:/con1/b", nil, 200); got.body != string(noise(100000)) {
		t.Error("other bytes")
	}
	if string(w.key("acct1", "key1")) != string(key) {
		t.Error("another key")
	}
	w.do(reads, "GET", "acct2:/con1/b", nil, 404)
	g := w.admit(person(contrib), BlobRead, "con1", "b")
	w.do(owner, "DELETE", "arm:"+accounts+"acct1", nil, 200)
	w.account("acct1", "")
	w.do(contrib, "PUT", "acct1:/con1?restype=container", nil, 201)
	if _, err := w.s.Stat(t.Context(), g); arm.CodeOf(err) != "BlobNotFound" {
		t.Errorf("Stat = %v, want BlobNotFound", err)
	}
}
