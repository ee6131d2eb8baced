package blob

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"castellan/internal/arm"
	"castellan/internal/rbac"
)

func tagsBody(pairs ...string) []byte {
	out := "<Tags><TagSet>"
	for i := 0; i < len(pairs); i += 2 {
		out += "<Tag><Key>" + pairs[i] + "</Key><Value>" + pairs[i+1] + "</Value></Tag>"
	}
	return []byte(out + "</TagSet></Tags>")
}

func TestConditionsOnTags(t *testing.T) {
	tags := map[string]string{"Project": "Cascade", "n": "0100", "a b": "x'y"}
	for text, want := range map[string]bool{
		`"Project" = 'Cascade'`: true, `Project='Cascade'`: true, `project = 'Cascade'`: false, `"Project" <> 'X'`: true, `"none" <> 'X'`: false, `n >= '0100' AND n < '0200'`: true, `n > '0100'`: false,
		`"a b" = 'x''y'`: true, `(n = 'z' or Project = 'Cascade') and n <= '0100'`: true, `n = 'z' OR Project = 'Cascade' AND n = 'z'`: false, `@container = 'con'`: true, `@container > 'con'`: false,
	} {
		w, err := parseWhere(text, false)
		if err != nil || w.test(tags, "con") != want {
			t.Errorf("%s: %v, want %t", text, err, want)
		}
	}
	for _, bad := range []string{"", "a", "a =", "a = b", "a = 'b", `"a = 'b'`, "a ~ 'b'", "a = 'b' AND", "a = 'b' a = 'c'", "(a = 'b'", "a = 'b')", "@other = 'b'", strings.Repeat("(", 40) + "a='b'" + strings.Repeat(")", 40), "a = '" + strings.Repeat("x", 5000) + "'"} {
		if _, err := parseWhere(bad, false); err == nil {
			t.Errorf("%.40q is read", bad)
		}
	}
	for _, bad := range []string{"a = 'b' OR a = 'c'", "a <> 'b'"} {
		if _, err := parseWhere(bad, true); err == nil {
			t.Errorf("%q is a search", bad)
		}
	}
}

func FuzzWhere(f *testing.F) {
	f.Add(`"a" = 'b' AND (c >= 'd' OR @container <> 'e')`)
	f.Fuzz(func(t *testing.T, text string) {
		if w, err := parseWhere(text, false); err == nil {
			w.test(map[string]string{"a": "b"}, "c")
		}
	})
}

const dataOwner = "00000000-0000-0000-0000-0000000000da"

// Tags are set with a blob or by themselves, by who has the right to tags and by
// nobody else, and conditions hold requests to them.
func TestTags(t *testing.T) {
	w := newWorld(t)
	w.give(dataOwner, "Storage Blob Data Owner", accounts+"acct1")
	const b, tagged = "acct1:/con1/b", "x-ms-tags: Project=Cascade&a%20b=1"
	w.do(contrib, "PUT", b, []byte("x"), http.StatusForbidden, tagged)
	w.do(reads, "GET", b, nil, http.StatusForbidden, "x-ms-if-tags: a='b'")
	w.do(dataOwner, "PUT", b, []byte("x"), 201, tagged)
	etag := w.do(reads, "HEAD", b, nil, 200)
	if etag.header.Get("x-ms-tag-count") != "2" {
		t.Errorf("the blob shows %v", etag.header)
	}
	for _, who := range []string{contrib, reads} {
		w.do(who, "GET", b+"?comp=tags", nil, http.StatusForbidden)
		w.do(who, "PUT", b+"?comp=tags", tagsBody("a", "b"), http.StatusForbidden)
		w.do(who, "GET", "acct1:/con1?restype=container&comp=list&include=tags", nil, http.StatusForbidden)
	}
	if r := w.do(dataOwner, "GET", b+"?comp=tags", nil, 200); !strings.Contains(r.body, "<Tag><Key>Project</Key><Value>Cascade</Value></Tag>") {
		t.Errorf("the tags are %s", r.body)
	}
	if r := w.do(dataOwner, "GET", "acct1:/con1?restype=container&comp=list&include=tags", nil, 200); !strings.Contains(r.body, "<Key>a b</Key><Value>1</Value>") || !strings.Contains(r.body, "<TagCount>2<") {
		t.Errorf("the list shows %s", r.body)
	}
	w.do(dataOwner, "DELETE", b, nil, 412, "x-ms-if-tags: Project = 'Other'")
	w.do(dataOwner, "GET", b, nil, 412, "x-ms-if-tags: Project = 'Other'")
	w.do(dataOwner, "GET", b, nil, 200, `x-ms-if-tags: "Project" = 'Cascade' AND "a b" > '0'`)
	w.do(dataOwner, "GET", b, nil, 400, "x-ms-if-tags: Project")
	w.do(dataOwner, "PUT", b+"?comp=tags", tagsBody("k", "v"), 204, "x-ms-if-tags: Project = 'Cascade'")
	if r := w.do(reads, "HEAD", b, nil, 200); r.header.Get("ETag") != etag.header.Get("ETag") || r.header.Get("x-ms-tag-count") != "1" {
		t.Errorf("tags changed the blob: %v", r.header)
	}
	eleven := []string{}
	for i := range 11 {
		eleven = append(eleven, fmt.Sprint(i), "v")
	}
	for _, bad := range [][]byte{tagsBody(eleven...), tagsBody("", "v"), tagsBody("a", "b", "a", "c"), tagsBody("k", strings.Repeat("x", 257)), tagsBody(strings.Repeat("k", 129), ""), tagsBody("k", "a*b"), []byte("<Tags>"), []byte("<Tags><Tag/></Tags>")} {
		w.do(dataOwner, "PUT", b+"?comp=tags", bad, 400)
	}
	w.do(dataOwner, "PUT", b, []byte("y"), 400, "x-ms-tags: a=1&a=2")
	if r := w.do(dataOwner, "GET", b+"?comp=tags", nil, 200); !strings.Contains(r.body, "<Key>k</Key>") || strings.Count(r.body, "<Tag>") != 1 {
		t.Errorf("a refused change left %s", r.body)
	}
	// A signature opens tags by t alone.
	key := w.key("acct1", "key1")
	at := func(sp string) string {
		return serviceSAS(key, "/blob/acct1/con1/b", url.Values{"sp": {sp}}).Encode()
	}
	w.do("", "GET", b+"?comp=tags&"+at("r"), nil, http.StatusForbidden)
	w.do("", "GET", b+"?comp=tags&"+at("t"), nil, 200)
	w.do("", "GET", b+"?"+at("t"), nil, http.StatusForbidden)
	w.do("", "PUT", b+"?"+at("w"), []byte("x"), http.StatusForbidden, tagged, "x-ms-blob-type: BlockBlob")
	w.do("", "PUT", b+"?"+at("wt"), []byte("x"), 201, tagged, "x-ms-blob-type: BlockBlob")
}

// A search finds what has the tags, page by page, in an account or a container,
// and is for who has the right to search.
func TestFindByTags(t *testing.T) {
	w := newWorld(t)
	w.give(dataOwner, "Storage Blob Data Owner", accounts+"acct1")
	w.do(dataOwner, "PUT", "acct1:/con2?restype=container", nil, 201)
	var want []string
	for i := range 12 {
		con := fmt.Sprintf("con%d", i%2+1)
		name := fmt.Sprintf("b%02d", i)
		w.do(dataOwner, "PUT", "acct1:/"+con+"/"+name, nil, 201, fmt.Sprintf("x-ms-tags: n=%02d&all=yes", i))
		if i >= 3 {
			want = append(want, con+"/"+name)
		}
	}
	w.do(dataOwner, "PUT", "acct1:/con1/none", nil, 201)
	slices.Sort(want)
	find := func(at, where string, size int) (out []string) {
		marker := ""
		for range 20 {
			r := w.do(dataOwner, "GET", at+"comp=blobs&where="+url.QueryEscape(where)+fmt.Sprintf("&maxresults=%d", size)+marker, nil, 200)
			for part := range strings.SplitSeq(r.body, "<Blob>") {
				name, ok := between(part, "<Name>", "</Name>")
				con, _ := between(part, "<ContainerName>", "</ContainerName>")
				if ok {
					out = append(out, con+"/"+name)
				}
			}
			next, _ := between(r.body, "<NextMarker>", "</NextMarker>")
			if next == "" {
				return out
			}
			marker = "&marker=" + url.QueryEscape(next)
		}
		t.Fatal("the search has no end")
		return nil
	}
	for _, size := range []int{1, 4, 5000} {
		if got := find("acct1:/?", "n >= '03' AND all = 'yes'", size); !slices.Equal(got, want) {
			t.Errorf("%d at once: %v, want %v", size, got, want)
		}
	}
	if got := find("acct1:/?", "@container = 'con2' AND n < '04'", 5000); !slices.Equal(got, []string{"con2/b01", "con2/b03"}) {
		t.Errorf("in one container by name: %v", got)
	}
	if got := find("acct1:/con1?restype=container&", "n < '04'", 1); !slices.Equal(got, []string{"con1/b00", "con1/b02"}) {
		t.Errorf("in one container: %v", got)
	}
	w.do(dataOwner, "GET", "acct1:/con3?restype=container&comp=blobs&where=a%3D%27b%27", nil, 404)
	w.do(dataOwner, "GET", "acct1:/?comp=blobs", nil, 400)
	for _, at := range []string{"acct1:/?", "acct1:/con1?restype=container&"} {
		w.do(contrib, "GET", at+"comp=blobs&where=a%3D%27b%27", nil, http.StatusForbidden)
	}
}

func between(s, a, b string) (string, bool) {
	_, s, ok := strings.Cut(s, a)
	out, _, ok2 := strings.Cut(s, b)
	return out, ok && ok2
}

// Conditions of roles hold their people to blobs by tags: to read what is tagged,
// and to write only with a tag, by whatever way the tag is given.
func TestConditionsAskForTags(t *testing.T) {
	w := newWorld(t)
	const only = "00000000-0000-0000-0000-0000000000d8"
	const at = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs"
	const tag = at + "/tags:Project<$key_case_sensitive$>] StringEquals 'Cascade'"
	condition := "((!(ActionMatches{'" + at + "/read'} AND NOT SubOperationMatches{'Blob.List'})) OR (@Resource[" + tag + ")) AND " +
		"((!(ActionMatches{'" + at + "/write'})) OR (SubOperationMatches{'Blob.Write.WithTagHeaders'} AND @Request[" + tag + ")) AND " +
		"((!(ActionMatches{'" + at + "/tags/write'})) OR (@Request[" + tag + " AND @Request[" + at + "/tags&$keys$] ForAllOfAnyValues:StringEquals {'Project'}))"
	for _, r := range rbac.BuiltIn() {
		if r.Name == "Storage Blob Data Owner" {
			w.must(w.roles.PutAssignment(rbac.Assignment{ID: "tags", Scope: arm.MustID(accounts + "acct1"), RoleID: r.ID, Principal: only, Condition: condition, ConditionVersion: "2.0"}))
		}
	}
	w.do("key1", "PUT", "acct1:/con1/mine", []byte("x"), 201, "x-ms-tags: Project=Cascade")
	w.do("key1", "PUT", "acct1:/con1/theirs", []byte("x"), 201, "x-ms-tags: project=Cascade")
	w.do(only, "GET", "acct1:/con1/mine", nil, 200)
	for _, q := range []string{"", "?comp=metadata"} {
		w.do(only, "GET", "acct1:/con1/theirs"+q, nil, http.StatusForbidden)
	}
	w.do(only, "PUT", "acct1:/con1/new", []byte("x"), http.StatusForbidden)
	w.do(only, "PUT", "acct1:/con1/new", []byte("x"), http.StatusForbidden, "x-ms-tags: Project=Other")
	w.do(only, "PUT", "acct1:/con1/new", []byte("x"), 201, "x-ms-tags: Project=Cascade")
	w.do(only, "PUT", "acct1:/con1/new?comp=tags", tagsBody("Project", "Other"), http.StatusForbidden)
	w.do(only, "PUT", "acct1:/con1/new?comp=tags", tagsBody("Project", "Cascade", "more", "x"), http.StatusForbidden)
	w.do(only, "PUT", "acct1:/con1/new?comp=tags", []byte(strings.Repeat(" ", maxTagsXML)+string(tagsBody("Project", "Cascade"))), http.StatusForbidden)
	w.do(only, "PUT", "acct1:/con1/new?comp=tags", tagsBody("Project", "Cascade"), 204)
	w.do(only, "PUT", "acct1:/con1/copy", nil, http.StatusForbidden, "x-ms-tags: Project=Cascade", "x-ms-copy-source: https://acct1.blob."+testSite.StorageSuffix()+"/con1/theirs")
	w.do("key1", "PUT", "acct1:/con1/mine?comp=tags", tagsBody(), 204)
	w.do(only, "GET", "acct1:/con1/mine", nil, http.StatusForbidden)
}

// What is archived is not read, nor copied, nor made a snapshot of, until it is in
// another tier.
func TestTiers(t *testing.T) {
	w := newWorld(t)
	const b = "acct1:/con1/b"
	w.do(contrib, "PUT", b, []byte("x"), 201, "x-ms-access-tier: cool")
	if r := w.do(reads, "HEAD", b, nil, 200); r.header.Get("x-ms-access-tier") != "Cool" || r.header.Get("x-ms-access-tier-inferred") != "" {
		t.Errorf("the blob shows %v", r.header)
	}
	tier := func(to string, want int) {
		t.Helper()
		w.do(contrib, "PUT", b+"?comp=tier", nil, want, "x-ms-access-tier: "+to)
	}
	tier("Archive", 200)
	for _, c := range []struct{ method, query, header string }{{"GET", "", "x-ms-range: bytes=0-0"}, {"GET", "", "a: b"}, {"PUT", "?comp=snapshot", "a: b"}, {"PUT", "?comp=metadata", "x-ms-meta-a: b"}, {"PUT", "?comp=properties", "a: b"}} {
		if r := w.do(contrib, c.method, b+c.query, nil, 409, c.header); r.header.Get("x-ms-error-code") != "BlobArchived" {
			t.Errorf("%s %s: %s", c.method, c.query, r.header.Get("x-ms-error-code"))
		}
	}
	w.do(contrib, "PUT", "acct1:/con1/copy", nil, 409, "x-ms-copy-source: https://acct1.blob."+testSite.StorageSuffix()+"/con1/b")
	if got := w.included("metadata"); !strings.Contains(got, "<AccessTier>Archive</AccessTier><AccessTierChangeTime>") {
		t.Errorf("the list shows %s", got)
	}
	tier("Hot", 202)
	if r := w.do(reads, "GET", b, nil, 200); r.body != "x" {
		t.Errorf("it came back as %q", r.body)
	}
	tier("Cold", 200)
	tier("P10", 400)
	tier("", 400)
	w.do(reads, "PUT", b+"?comp=tier", nil, http.StatusForbidden, "x-ms-access-tier: Hot")
	w.do(contrib, "PUT", "acct1:/con1/log", nil, 201, "x-ms-blob-type: AppendBlob")
	w.do(contrib, "PUT", "acct1:/con1/log?comp=tier", nil, 409, "x-ms-access-tier: Hot")
}

// Sums are held against what came, and given of what goes: the check value of
// CRC-64/NVME of "123456789" is that of its definition.
func TestSumsOfRanges(t *testing.T) {
	w := newWorld(t)
	w.do(contrib, "PUT", "acct1:/con1/b", []byte("x123456789y"), 201)
	got := w.do(reads, "GET", "acct1:/con1/b", nil, 206, "x-ms-range: bytes=1-9", "x-ms-range-get-content-crc64: true").header.Get("x-ms-content-crc64")
	if got != "iJh5CoYUi64=" { // ae8b14860a799888, the lowest byte first
		t.Errorf("the CRC64 is %s", got)
	}
	for _, c := range []struct {
		path string
		code int
	}{{"acct1:/con1/c", 201}, {"acct1:/con1/c?comp=block&blockid=QQ%3D%3D", 201}} {
		if r := w.do(contrib, "PUT", c.path, []byte("123456789"), c.code, "x-ms-content-crc64: "+got); r.header.Get("x-ms-content-crc64") != got {
			t.Errorf("%s answers %v", c.path, r.header)
		}
		if r := w.do(contrib, "PUT", c.path, []byte("123456780"), 400, "x-ms-content-crc64: "+got); r.header.Get("x-ms-error-code") != "Crc64Mismatch" {
			t.Errorf("%s: %s", c.path, r.header.Get("x-ms-error-code"))
		}
	}
	w.do(reads, "GET", "acct1:/con1/b", nil, 400, "x-ms-range: bytes=1-9", "x-ms-range-get-content-crc64: true", "x-ms-range-get-content-md5: true")
}
