package blob

import (
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// getBlockList is Get Block List.
func (s *Service) getBlockList(x exchange) error {
	which := text(strings.ToLower(x.q["blocklisttype"]), "committed")
	if which != "committed" && which != "uncommitted" && which != "all" {
		return badQuery("blocklisttype", which, "committed, uncommitted or all")
	}
	when, err := conditions(x.r.Header, "")
	if err != nil {
		return err
	}
	b, done, open, err := s.blocks(x.r.Context(), x.g, when)
	if err != nil {
		return err
	}
	type block struct {
		Name string
		Size int64
	}
	type blocks struct{ Block []block }
	show := func(ps []piece) *blocks {
		out := &blocks{}
		for _, p := range ps {
			out.Block = append(out.Block, block{p.Block, p.Size})
		}
		return out
	}
	out := struct {
		XMLName     xml.Name `xml:"BlockList"`
		Committed   *blocks  `xml:"CommittedBlocks"`
		Uncommitted *blocks  `xml:"UncommittedBlocks"`
	}{}
	if which != "uncommitted" {
		out.Committed = show(done)
	}
	if which != "committed" {
		out.Uncommitted = show(open)
	}
	h := x.w.Header()
	if b != nil {
		h.Set("ETag", b.ETag)
		h.Set("Last-Modified", httpTime(b.Modified))
		h.Set("x-ms-blob-content-length", strconv.FormatInt(b.Size, 10))
	}
	writeXML(x.w, http.StatusOK, out)
	return nil
}

// describe writes what is known of a blob, or of a file, as headers.
func (x exchange) describe(b Info) {
	if x.files() {
		x.shown(b)
		return
	}
	x.served(b)
	h := x.w.Header()
	if b.Version != "" {
		h.Set("x-ms-version-id", b.Version)
		if b.past == "" {
			h.Set("x-ms-is-current-version", "true")
		}
	}
	h.Set("x-ms-creation-time", httpTime(b.Created))
	h.Set("x-ms-blob-type", b.Type)
	h.Set("x-ms-server-encrypted", "true")
	if b.Type == blockBlob {
		h.Set("x-ms-access-tier", text(b.tier, "Hot"))
		if b.tier == "" {
			h.Set("x-ms-access-tier-inferred", "true")
		} else {
			h.Set("x-ms-access-tier-change-time", httpTime(b.tiered))
		}
	} else if b.Type == appendBlob {
		h.Set("x-ms-blob-committed-block-count", strconv.Itoa(b.Appends))
	}
	x.showSequence(b)
	if b.sealed {
		h.Set("x-ms-blob-sealed", "true")
	}
	if b.access != nil {
		h.Set("x-ms-resource-type", kindOf(b.dir))
		h.Set("x-ms-owner", b.access.Owner)
		h.Set("x-ms-group", b.access.Group)
		h.Set("x-ms-permissions", b.access.mode())
	}
	if n := len(b.tags); n > 0 {
		h.Set("x-ms-tag-count", strconv.Itoa(n))
	}
}

// served writes what blobs and files have in common of that.
func (x exchange) served(b Info) {
	h := x.w.Header()
	h.Del("Cache-Control") // it is the blob's to say
	for n, v := range map[string]string{
		"Content-Type": text(b.ContentType, "application/octet-stream"), "Content-Encoding": b.Encoding, "Content-Language": b.Language, "Content-Disposition": b.Disposition, "Cache-Control": b.Cache,
	} {
		if over := x.q[rsc[n]]; over != "" && x.q["sig"] != "" {
			v = over
		}
		if v != "" {
			h.Set(n, v)
		}
	}
	h.Set("ETag", b.ETag)
	h.Set("Last-Modified", httpTime(b.Modified))
	h.Set("Accept-Ranges", "bytes")
	x.showLease(b.lease)
	if c := b.Copy; c != nil {
		h.Set("x-ms-copy-id", c.ID)
		h.Set("x-ms-copy-source", c.Source)
		h.Set("x-ms-copy-status", "success")
		h.Set("x-ms-copy-progress", fmt.Sprintf("%d/%d", c.Size, c.Size))
		h.Set("x-ms-copy-completion-time", httpTime(c.Ended))
	}
	if x.dfs() {
		h.Set("x-ms-properties", properties(b.Meta))
	}
	setMeta(h, b.Meta) // on both: clients for blobs read paths at the Data Lake host, too
}

// rsc are the parameters by which a signature says what a blob is served with.
var rsc = map[string]string{
	"Cache-Control": "rscc", "Content-Disposition": "rscd", "Content-Encoding": "rsce", "Content-Language": "rscl", "Content-Type": "rsct",
}

// headBlob is Get Blob Properties.
func (s *Service) headBlob(x exchange) error {
	at, when, err := x.terms()
	if err != nil {
		return err
	}
	info, err := s.stat(x.r.Context(), x.g, at, when)
	if err != nil {
		return err
	}
	x.describe(info)
	x.w.Header().Set("Content-Length", strconv.FormatInt(info.Size, 10))
	if info.MD5 != nil {
		x.w.Header().Set("Content-MD5", base64.StdEncoding.EncodeToString(info.MD5))
	}
	x.w.WriteHeader(http.StatusOK)
	return nil
}

// getBlobMeta is Get Blob Metadata.
func (s *Service) getBlobMeta(x exchange) error {
	at, when, err := x.terms()
	if err != nil {
		return err
	}
	info, err := s.stat(x.r.Context(), x.g, at, when)
	if err != nil {
		return err
	}
	h := x.w.Header()
	h.Set("ETag", info.ETag)
	h.Set("Last-Modified", httpTime(info.Modified))
	setMeta(h, info.Meta)
	x.w.WriteHeader(http.StatusOK)
	return nil
}

// bounds is a range of bytes as a client asks for it: from from to and with to,
// or to the end if to is below 0.
type bounds struct{ from, to int64 }

// parseRange reads bytes=FROM-[TO], the one form of range that Azure takes.
func parseRange(v string) (b bounds, err error) {
	bad := badHeader("Range", v, "bytes=FROM-TO or bytes=FROM-")
	text, ok := strings.CutPrefix(v, "bytes=")
	from, to, dash := strings.Cut(text, "-")
	if !ok || !dash {
		return b, bad
	}
	if b.from, ok = digits(from); !ok {
		return b, bad
	}
	if b.to = -1; to != "" {
		if b.to, ok = digits(to); !ok || b.to < b.from {
			return b, bad
		}
	}
	return b, nil
}

// digits is a whole number that is written in digits alone.
func digits(s string) (int64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// span is what b is of a blob of size bytes.
func (b bounds) span(size int64) (from, to int64, err error) {
	if b.from >= size {
		return 0, 0, outOfRange(size)
	}
	if to = size; b.to >= 0 && b.to < size-1 {
		to = b.to + 1
	}
	return b.from, to, nil
}

// getBlob is Get Blob.
func (s *Service) getBlob(x exchange) error {
	at, when, err := x.terms()
	if err != nil {
		return err
	}
	ranged := text(x.r.Header.Get("x-ms-range"), x.r.Header.Get("Range"))
	span := func(size int64) (int64, int64, error) { return 0, size, nil }
	if ranged != "" {
		b, err := parseRange(ranged)
		if err != nil {
			return err
		}
		span = b.span
	}
	var from, to int64
	body, info, err := s.read(x.r.Context(), x.g, at, when, func(size int64) (_, _ int64, err error) {
		if from, to, err = span(size); err != nil {
			x.w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", size))
		}
		return from, to, err
	})
	if err != nil {
		return err
	}
	defer body.Close()
	if ranged == "" {
		return x.send(http.StatusOK, info, body, info.Size, info.MD5)
	}
	r, sum, err := x.summed(body, to-from)
	if err != nil {
		return err
	}
	h := x.w.Header()
	h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, info.Size))
	if info.MD5 != nil {
		name := "x-ms-blob-content-md5"
		if x.files() {
			name = "x-ms-content-md5"
		}
		h.Set(name, base64.StdEncoding.EncodeToString(info.MD5))
	}
	return x.send(http.StatusPartialContent, info, r, to-from, sum)
}
