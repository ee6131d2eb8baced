package blob

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// batchOf is a batch of requests.
func batchOf(parts ...string) []byte {
	var b strings.Builder
	for i, p := range parts {
		fmt.Fprintf(&b, "--x\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\nContent-ID: %d\r\n\r\n%s\r\n", i, p)
	}
	b.WriteString("--x--\r\n")
	return []byte(b.String())
}

func sub1(who, method, path string, headers ...string) string {
	out := method + " " + path + " HTTP/1.1\r\nContent-Length: 0\r\n"
	if who != "" {
		out += "Authorization: Bearer " + who + "\r\n"
	}
	for _, h := range headers {
		out += h + "\r\n"
	}
	return out + "\r\n"
}

const mixed = "Content-Type: multipart/mixed; boundary=x"

// Each request of a batch is let in by its own credential, whoever sends the
// batch, and is answered by itself.
func TestBatch(t *testing.T) {
	w := newWorld(t)
	for i := range 7 {
		w.do(contrib, "PUT", fmt.Sprintf("acct1:/con1/b%d", i), []byte("x"), 201)
	}
	r := w.do(reads, "POST", "acct1:/?comp=batch", batchOf(
		sub1(contrib, "DELETE", "/con1/b0"), sub1(reads, "DELETE", "/con1/b1"), sub1("", "DELETE", "/con1/b2"), sub1(nobody, "DELETE", "/con1/b3"),
		sub1(contrib, "DELETE", "/con1/none"), sub1(contrib, "PUT", "/con1/b4?comp=tier", "x-ms-access-tier: Cool"),
	), 202, mixed)
	want := []string{"202", "403", "401", "403", "404", "200"}
	parts := strings.Split(r.body, "--batchresponse_")[1:]
	for i, w := range want {
		if !strings.Contains(parts[i], fmt.Sprintf("Content-ID: %d\r\n", i)) && !strings.Contains(parts[i], fmt.Sprintf("Content-Id: %d\r\n", i)) || !strings.Contains(parts[i], "HTTP/1.1 "+w) {
			t.Errorf("the answer %d is %q, want %s", i, parts[i], w)
		}
	}
	w.do(reads, "GET", "acct1:/con1/b0", nil, 404)
	for _, b := range []string{"b1", "b2", "b3"} {
		w.do(reads, "GET", "acct1:/con1/"+b, nil, 200)
	}
	if r := w.do(reads, "HEAD", "acct1:/con1/b4", nil, 200); r.header.Get("x-ms-access-tier") != "Cool" {
		t.Errorf("the tier is %v", r.header)
	}
	w.do("", "POST", "acct1:/?comp=batch", batchOf(sub1(contrib, "DELETE", "/con1/b1")), 401, mixed)
	w.do(contrib, "POST", "acct1:/con1?restype=container&comp=batch", batchOf(sub1(contrib, "DELETE", "/con1/b1")), 202, mixed)
	w.do(reads, "GET", "acct1:/con1/b1", nil, 404)
	// The SDK for JavaScript ends a part with its last header.
	w.do(contrib, "POST", "acct1:/?comp=batch", batchOf(strings.TrimSuffix(sub1(contrib, "DELETE", "/con1/b6"), "\r\n\r\n")), 202, mixed)
	w.do(reads, "GET", "acct1:/con1/b6", nil, 404)

	// A key signs the request as it stands in the batch.
	signed := w.request("key1", "DELETE", "acct1:/con1/b5", nil)
	signed.Header.Del("x-ms-version")
	w.sign(signed, "acct1", "key1")
	if r := w.do(reads, "POST", "acct1:/?comp=batch", batchOf(sub1("", "DELETE", "/con1/b5", "x-ms-date: "+signed.Header.Get("x-ms-date"), "Authorization: "+signed.Header.Get("Authorization"))), 202, mixed); !strings.Contains(r.body, "HTTP/1.1 202") {
		t.Errorf("a signed request in a batch: %s", r.body)
	}

	// Nothing else is done by one, and nothing of one that is not whole.
	w.do(contrib, "PUT", "acct1:/con2?restype=container", nil, 201)
	good := sub1(contrib, "DELETE", "/con1/b2")
	many := make([]string, maxBatch+1)
	for i := range many {
		many[i] = good
	}
	for name, body := range map[string][]byte{
		"a container": batchOf(good, sub1(contrib, "DELETE", "/con1?restype=container")), "a read": batchOf(good, sub1(contrib, "GET", "/con1/b2")), "a write": batchOf(good, sub1(contrib, "PUT", "/con1/b2", "x-ms-blob-type: BlockBlob")),
		"a batch": batchOf(good, sub1(contrib, "POST", "/?comp=batch")), "another host": batchOf(good, sub1(contrib, "DELETE", "https://acct2.blob."+testSite.StorageSuffix()+"/con1/b2")), "too many": batchOf(many...),
		"nothing": batchOf(), "no end": []byte("--x\r\nContent-Type: application/http\r\n\r\n" + good), "a body": batchOf(good, "DELETE /con1/b2 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"), "dots": batchOf(good, sub1(contrib, "DELETE", "/con1/../con1/b2")),
	} {
		if r := w.do(contrib, "POST", "acct1:/?comp=batch", body, 400, mixed); r.code != 400 {
			t.Errorf("%s: %s", name, r.body)
		}
	}
	w.do(contrib, "POST", "acct1:/con2?restype=container&comp=batch", batchOf(good), 400, mixed)
	w.do(contrib, "POST", "acct1:/?comp=batch", batchOf(good), 400, "Content-Type: application/json")
	w.do(reads, "GET", "acct1:/con1/b2", nil, 200)
	w.rules(`"networkAcls":{"defaultAction":"Deny"}`)
	w.do(contrib, "POST", "acct1:/?comp=batch", batchOf(good), http.StatusForbidden, mixed)
}

func FuzzBatch(f *testing.F) {
	f.Add("multipart/mixed; boundary=x", batchOf(sub1(contrib, "DELETE", "/a/b")))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		list, err := readBatch(contentType, strings.NewReader(string(body)))
		if err == nil && (len(list) == 0 || len(list) > maxBatch) {
			t.Errorf("%d requests", len(list))
		}
	})
}
