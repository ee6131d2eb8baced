package blob

import (
	"encoding/base64"
	"encoding/xml"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// number reads a header that is a whole number; nil is none.
func (x exchange) number(name string) (*int64, error) {
	v := x.r.Header.Get(name)
	if v == "" {
		return nil, nil
	}
	n, ok := digits(v)
	if !ok {
		return nil, badHeader(name, v, "a whole number")
	}
	return &n, nil
}

// pageSizeOf is the size that a page blob is to have; nil is none.
func (x exchange) pageSizeOf() (*int64, error) {
	const name = "x-ms-blob-content-length"
	n, err := x.number(name)
	if err == nil && n != nil && (*n%pageSize != 0 || *n > maxPageBlob) {
		return nil, badHeader(name, x.r.Header.Get(name), "a multiple of 512, at most 8 TiB")
	}
	return n, err
}

// newPages reads what a request says of the page blob that it makes.
func (x exchange) newPages(d *draft) error {
	size, err := x.pageSizeOf()
	if err != nil {
		return err
	}
	if size == nil {
		return fail(http.StatusBadRequest, "MissingRequiredHeader", "The header x-ms-blob-content-length is missing; it must be the size of the page blob.")
	}
	n, err := x.number("x-ms-blob-sequence-number")
	if err != nil {
		return err
	}
	if d.size = *size; n != nil {
		d.sequence = *n
	}
	return nil
}

// pagesAsked is the stretch of whole pages that a request names.
func (x exchange) pagesAsked() (at stretch, err error) {
	if at, err = x.bytesAsked(); err == nil && (at.from%pageSize != 0 || at.to%pageSize != 0) {
		err = fail(http.StatusRequestedRangeNotSatisfiable, "InvalidPageRange", "The page range bytes=%d-%d is invalid; it must begin at a multiple of %d and end one byte before another.", at.from, at.to-1, pageSize)
	}
	return at, err
}

// bytesAsked is the stretch of bytes that a request names, with its end.
func (x exchange) bytesAsked() (at stretch, err error) {
	v := text(x.r.Header.Get("x-ms-range"), x.r.Header.Get("Range"))
	if v == "" {
		return at, fail(http.StatusBadRequest, "MissingRequiredHeader", "The header Range or x-ms-range is missing; it must be bytes=FROM-TO.")
	}
	b, err := parseRange(v)
	if err != nil {
		return at, err
	}
	if at = (stretch{b.from, b.to + 1}); at.to <= at.from {
		return at, fail(http.StatusRequestedRangeNotSatisfiable, "InvalidPageRange", "The range %q is invalid; it must be bytes=FROM-TO.", v)
	}
	return at, nil
}

func (x exchange) sequence() (q sequence, err error) {
	for name, to := range map[string]**int64{"x-ms-if-sequence-number-le": &q.most, "x-ms-if-sequence-number-lt": &q.below, "x-ms-if-sequence-number-eq": &q.equal} {
		if *to, err = x.number(name); err != nil {
			return q, err
		}
	}
	return q, nil
}

// putPage is Put Page and Put Page From URL.
func (s *Service) putPage(x exchange) error {
	w := paged{}
	var err error
	if w.at, err = x.pagesAsked(); err != nil {
		return err
	}
	if w.when, err = conditions(x.r.Header, ""); err != nil {
		return err
	}
	if w.seq, err = x.sequence(); err != nil {
		return err
	}
	done, err := x.overwrite(&w, "x-ms-page-write")
	if err != nil {
		return err
	}
	defer done()
	info, sum, err := s.writePages(x.r.Context(), x.g, w)
	if err == nil {
		x.showSequence(info)
	}
	x.sums(w, sum, err)
	return x.written(http.StatusCreated, info, err)
}

// sums tells what the bytes that were written add up to.
func (x exchange) sums(w paged, md5 []byte, err error) {
	if err != nil {
		return
	}
	if md5 != nil {
		x.w.Header().Set("Content-MD5", base64.StdEncoding.EncodeToString(md5))
	}
	x.echoCRC(w.content)
}

// overwrite reads what is written to w.at: zeros, or bytes of the request or of a source.
// done must be called.
func (x exchange) overwrite(w *paged, header string) (done func(), err error) {
	switch v := strings.ToLower(x.r.Header.Get(header)); v {
	case "clear":
		if w.clear = true; x.r.ContentLength > 0 || x.r.Header.Get("x-ms-copy-source") != "" {
			return nil, badHeader("Content-Length", strconv.FormatInt(x.r.ContentLength, 10), "0 where pages are cleared, and no bytes copied")
		}
		return func() {}, nil
	case "update":
	default:
		return nil, badHeader(header, v, "update or clear")
	}
	n := w.at.to - w.at.from
	if n > maxPageWrite {
		return nil, fail(http.StatusRequestEntityTooLarge, "RequestBodyTooLarge", "The request writes %d bytes; at most %d are allowed.", n, maxPageWrite)
	}
	if w.content, done, err = x.contentFrom(); err == nil && n != w.content.size {
		done()
		err = fail(http.StatusBadRequest, "InvalidHeaderValue", "The range has %d bytes, what is to be written %d; it must be as many.", n, w.content.size)
	}
	return done, err
}

// resizing is what a Set Blob Properties changes of page blobs alone; nil is nothing.
func (x exchange) resizing(d draft) (*resized, error) {
	z := &resized{action: strings.ToLower(x.r.Header.Get("x-ms-sequence-number-action")), when: d.when}
	var err error
	if z.size, err = x.pageSizeOf(); err != nil {
		return nil, err
	}
	n, err := x.number("x-ms-blob-sequence-number")
	if err != nil {
		return nil, err
	}
	switch z.action {
	case "":
		if n != nil {
			return nil, fail(http.StatusBadRequest, "MissingRequiredHeader", "The header x-ms-sequence-number-action is missing; it must say what becomes of the sequence number.")
		}
	case sequenceNext:
		if n != nil {
			return nil, badHeader("x-ms-blob-sequence-number", x.r.Header.Get("x-ms-blob-sequence-number"), "left out where the sequence number is incremented")
		}
	case sequenceMax, sequenceUpdate:
		if n == nil {
			return nil, fail(http.StatusBadRequest, "MissingRequiredHeader", "The header x-ms-blob-sequence-number is missing; it must be a whole number.")
		}
		z.number = *n
	default:
		return nil, badHeader("x-ms-sequence-number-action", z.action, "max, update or increment")
	}
	if z.size == nil && z.action == "" {
		return nil, nil
	}
	if !d.head.none() { // else they stay
		z.head = &d.head
	}
	return z, nil
}

func (h Headers) none() bool {
	return h.MD5 == nil && h.ContentType+h.Encoding+h.Language+h.Disposition+h.Cache == ""
}

// maxRanges is how many ranges of pages one answer has at most.
const maxRanges = 10000

// getPages is Get Page Ranges.
func (s *Service) getPages(x exchange) error {
	m, when, err := x.terms()
	if err != nil {
		return err
	}
	limit, err := x.q.count("maxresults", maxRanges)
	if err != nil {
		return err
	}
	in := stretch{0, math.MaxInt64}
	if v := text(x.r.Header.Get("x-ms-range"), x.r.Header.Get("Range")); v != "" {
		b, err := parseRange(v)
		if err != nil {
			return err
		}
		// Only whole pages are shown.
		if in.from = b.from / pageSize * pageSize; b.to >= 0 && b.to < maxPageBlob {
			in.to = (b.to/pageSize + 1) * pageSize
		}
	}
	if v := x.q["marker"]; v != "" {
		after, err := readMarker(v)
		from, ok := digits(after)
		if err != nil || !ok {
			return badQuery("marker", v, "one that an answer gave")
		}
		in.from = max(in.from, from)
	}
	since, diff := x.q["prevsnapshot"]
	if _, err := time.Parse(stampForm, since); diff && err != nil {
		return badQuery("prevsnapshot", since, "a time such as 2026-01-02T15:04:05.0000000Z")
	}
	list, info, err := s.pages(x.r.Context(), x.g, m, when, since, in)
	if err != nil {
		return err
	}
	type item struct {
		XMLName    xml.Name
		Start, End int64
	}
	out := struct {
		XMLName xml.Name `xml:"PageList"`
		Items   []item
		Next    string `xml:"NextMarker,omitempty"`
	}{}
	for i, r := range list {
		if i == limit {
			out.Next = newMarker(strconv.FormatInt(r.from, 10))
			break
		}
		name := "PageRange"
		if r.cleared {
			name = "ClearRange"
		}
		out.Items = append(out.Items, item{xml.Name{Local: name}, r.from, r.to - 1})
	}
	h := x.w.Header()
	h.Set("ETag", info.ETag)
	h.Set("Last-Modified", httpTime(info.Modified))
	h.Set("x-ms-blob-content-length", strconv.FormatInt(info.Size, 10))
	writeXML(x.w, http.StatusOK, out)
	return nil
}
