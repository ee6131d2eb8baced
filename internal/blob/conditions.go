package blob

import (
	"net/http"
	"strings"
	"time"
)

// Conditions are those under which a request is carried out (RFC 9110 section
// 13). The zero value is none.
type Conditions struct {
	Match      string // If-Match: an etag, or *
	NoneMatch  string // If-None-Match
	Modified   time.Time
	Unmodified time.Time
	Tags       *where // x-ms-if-tags; nil is none
	Lease      string // the id of the lease that the request shows; "" is none
}

// check holds what is against the conditions. To a read that it refuses because
// nothing is new, the answer is 304.
func (c Conditions) check(exists bool, etag string, modified time.Time, read bool) error {
	stale := unmet()
	if read {
		stale = notModified()
	}
	modified = modified.Truncate(time.Second)
	if c.Match != "" {
		if !exists || !sameTag(c.Match, etag) {
			return unmet()
		}
	} else if !c.Unmodified.IsZero() && exists && modified.After(c.Unmodified) {
		return unmet()
	}
	if !exists {
		return nil
	}
	if c.NoneMatch != "" {
		if !sameTag(c.NoneMatch, etag) {
			return nil
		}
		if c.NoneMatch == "*" && !read {
			return fail(http.StatusConflict, "BlobAlreadyExists", "The specified blob already exists.")
		}
		return stale
	}
	if !c.Modified.IsZero() && !modified.After(c.Modified) {
		return stale
	}
	return nil
}

func sameTag(want, etag string) bool {
	return want == "*" || strings.Trim(want, `"`) == strings.Trim(etag, `"`)
}

// conditions are those of a request, whose headers begin with prefix.
func conditions(h http.Header, prefix string) (c Conditions, err error) {
	c.Match, c.NoneMatch = h.Get(prefix+"If-Match"), h.Get(prefix+"If-None-Match")
	if c.Lease, err = leaseID(h, text(prefix, "x-ms-")+"lease-id"); err != nil {
		return c, err
	}
	if v := h.Get(text(prefix, "x-ms-") + "if-tags"); v != "" {
		if c.Tags, err = parseWhere(v, false); err != nil {
			return c, err
		}
	}
	for _, x := range []struct {
		name string
		to   *time.Time
	}{{"If-Modified-Since", &c.Modified}, {"If-Unmodified-Since", &c.Unmodified}} {
		v := h.Get(prefix + x.name)
		if v == "" {
			continue
		}
		if *x.to, err = http.ParseTime(v); err != nil {
			return c, badHeader(prefix+x.name, v, "a date such as Sun, 06 Nov 1994 08:49:37 GMT")
		}
	}
	return c, nil
}
