package blob

import (
	"strings"
	"testing"

	"castellan/internal/cmk"
	"castellan/internal/store"
)

// An account that asks for it from the beginning has its bytes sealed by two keys:
// neither alone opens them, and both are destroyed with it.
func TestAnAccountIsSealedTwice(t *testing.T) {
	w := newWorld(t)
	w.account("twice1", `"encryption":{"keySource":"Microsoft.Storage","requireInfrastructureEncryption":true}`)
	w.do(contrib, "PUT", "twice1:/con1?restype=container", nil, 201)
	small, large := "a small one", strings.Repeat("0123456789abcdef", 3*chunkSize/16)
	w.do(contrib, "PUT", "twice1:/con1/small", []byte(small), 201, "x-ms-blob-type: BlockBlob")
	w.do(contrib, "PUT", "twice1:/con1/large", []byte(large), 201, "x-ms-blob-type: BlockBlob")
	w.do(contrib, "PUT", "twice1:/con1/log", nil, 201, "x-ms-blob-type: AppendBlob")
	for range 2 { // small pieces are joined
		w.do(contrib, "PUT", "twice1:/con1/log?comp=appendblock", []byte(small), 201)
	}
	w.do(contrib, "PUT", "twice1:/con1/copy", nil, 202, "x-ms-copy-source: https://twice1.blob."+w.s.Site.StorageSuffix()+"/con1/large")
	w.restart()
	for name, want := range map[string]string{"small": small, "large": large, "log": small + small, "copy": large} {
		if got := w.do(reads, "GET", "twice1:/con1/"+name, nil, 200); got.body != want {
			t.Errorf("%s has %d bytes, want %d", name, len(got.body), len(want))
		}
	}
	if got := w.do(reads, "GET", "twice1:/con1/large", nil, 206, "Range: bytes=70000-140000").body; got != large[70000:140001] {
		t.Errorf("a range over chunks is another")
	}

	// What lies on disk opens by neither key alone.
	a := w.s.byName("twice1")
	w.must(w.db.View(t.Context(), func(tx *store.Tx) error {
		rows, err := tx.Scan(byteTable, "", "", 0)
		for _, r := range rows {
			for name, k := range map[string]dataKey{"the first key": {Key: a.plain}, "the second key": {Key: a.outer}, "both, the wrong way round": {a.outer, a.plain}} {
				if _, err := k.Open(r.Value, smallContext(r.Key)); err == nil {
					t.Errorf("%s opens %s", name, r.Key)
				}
			}
			if _, err := (dataKey{a.plain, a.outer}).Open(r.Value, smallContext(r.Key)); err != nil {
				t.Errorf("both keys don't open %s: %v", r.Key, err)
			}
		}
		return err
	}))
	if a.outer.IsZero() || !w.s.byName("acct1").outer.IsZero() {
		t.Error("an account has another number of keys than it asked for")
	}

	at := "arm:" + accounts
	if got := w.do(owner, "GET", at+"twice1", nil, 200).at("properties.encryption.requireInfrastructureEncryption"); got != "true" {
		t.Errorf("requireInfrastructureEncryption is shown as %q", got)
	}
	for target, props := range map[string]string{"twice1": "false", "acct1": "true"} {
		w.do(owner, "PATCH", at+target, []byte(`{"properties":{"encryption":{"keySource":"Microsoft.Storage","requireInfrastructureEncryption":`+props+`}}}`), 409)
	}
	for _, body := range []string{`{"tags":{"a":"b"}}`, `{"properties":{"encryption":{"keySource":"Microsoft.Storage"}}}`, `{"properties":{"encryption":{"keySource":"Microsoft.Storage","requireInfrastructureEncryption":true}}}`} {
		w.do(owner, "PATCH", at+"twice1", []byte(body), 200)
	}
	w.do(reads, "GET", "twice1:/con1/small", nil, 200)
	w.do(owner, "DELETE", at+"twice1", nil, 200)
	w.must(w.db.View(t.Context(), func(tx *store.Tx) error {
		gone, err := cmk.Unstated(tx)
		if len(gone) != 2 || gone[0].Thumbprint == gone[1].Thumbprint {
			t.Errorf("with the account %d keys were destroyed, want 2", len(gone))
		}
		return err
	}))
}
