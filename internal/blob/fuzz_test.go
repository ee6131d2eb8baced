package blob

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// No document ends the server, and what is read of one is within its limits.
func FuzzXML(f *testing.F) {
	for _, s := range []string{
		"", "<a/>", "<BlockList><Latest>QQ==</Latest><Committed>QQ==</Committed></BlockList>", "<Tags><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tags>",
		rules1, "<StorageServiceProperties><DeleteRetentionPolicy><Enabled>true</Enabled><Days>3</Days></DeleteRetentionPolicy></StorageServiceProperties>",
		"<SignedIdentifiers><SignedIdentifier><Id>a</Id><AccessPolicy><Start>2026-01-01</Start></AccessPolicy></SignedIdentifier></SignedIdentifiers>",
		`<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>`, "<a><b></a></b>", "<a>" + strings.Repeat("<b>", 20),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := parseXML(data)
		if err != nil {
			return
		}
		if list, err := blockList(n); err == nil && len(list) > maxBlocks {
			t.Errorf("a list has %d blocks", len(list))
		}
		if tags, err := tagList(n); err == nil && checkTags(tags) != nil {
			t.Errorf("the tags %v were taken", tags)
		}
		if _, err := policyList(n); err != nil {
			return
		}
		if change, err := serviceChange(n); err == nil {
			change(&ServiceProperties{})
		}
		if rules, err := corsList(n); err == nil && rules.check() == nil && len(rules.List) > maxRules {
			t.Errorf("%d rules were taken", len(rules.List))
		}
	})
}

// A query is read in one way or not at all, and no range is turned about.
func FuzzQuery(f *testing.F) {
	for _, s := range []string{"", "restype=container&comp=list", "sv=2022-11-02&sr=b&sp=r&se=2026-05-02&sig=a%2Bb", "snapshot=2026-01-01T00:00:00.0000000Z", "a=b&a=c", "a;b", "%zz=1", "Comp=list", "bytes=0-9", "bytes=9-", "bytes=-1", "bytes=0-9223372036854775807"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if q, err := parseQuery(text); err == nil {
			for k := range q {
				if !known(k) {
					t.Errorf("the parameter %q was taken", k)
				}
			}
			_, _ = q.moment()
			_ = q.delegated("/blob/a/b")
		}
		if b, err := parseRange(text); err == nil {
			for _, size := range []int64{0, 1, 512, 1 << 40} {
				if from, to, err := b.span(size); err == nil && (from < 0 || from > to || to > size) {
					t.Errorf("of %d bytes %q is %d to %d", size, text, from, to)
				}
			}
		}
	})
}

// What is signed has a line break only where the text has one between its parts,
// so no two requests that differ in a header are signed as one.
func FuzzSharedKey(f *testing.F) {
	for _, s := range []string{"x", "a b", "a\tb", "2021-12-02", "ä", ""} {
		f.Add(s, "x-ms-meta-a")
	}
	f.Fuzz(func(t *testing.T, value, name string) {
		r := httptest.NewRequest(http.MethodPut, "https://acct1.blob.example/c/b?comp=metadata", nil)
		if !identifier(strings.NewReplacer("-", "_").Replace(name)) || strings.ContainsAny(value, "\r\n\x00") {
			return
		}
		before := toSign(r, query{"comp": "metadata"}, "acct1", strings.Compare)
		r.Header.Set(name, value)
		after := toSign(r, query{"comp": "metadata"}, "acct1", strings.Compare)
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-ms-") && (after == before || strings.Count(after, "\n") > strings.Count(before, "\n")+1) {
			t.Errorf("%q: %q is signed as %q", name, value, after)
		}
	})
}
