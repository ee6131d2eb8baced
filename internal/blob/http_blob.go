package blob

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"castellan/internal/arm"
)

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// setMeta writes metadata as headers, whose names stay in lower case.
func setMeta(h http.Header, m map[string]string) {
	for k, v := range m {
		h[metaPrefix+k] = []string{v}
	}
}

// patient gives every step of an upload or download some time, but not for ever.
type patient struct {
	x exchange
	c *http.ResponseController
}

func (x exchange) patient() patient { return patient{x, http.NewResponseController(x.w)} }

// deadline is by the wall clock, as connections have it. What can't have one
// (a recorder in a test) goes without.
func (p patient) deadline() time.Time { return time.Now().Add(p.x.s.Patience) }

func (p patient) Read(b []byte) (int, error) {
	_ = p.c.SetReadDeadline(p.deadline())
	return p.x.r.Body.Read(b)
}

func (p patient) Write(b []byte) (int, error) {
	_ = p.c.SetWriteDeadline(p.deadline())
	return p.x.w.Write(b)
}

// end takes the deadlines back.
func (p patient) end() {
	_ = p.c.SetReadDeadline(time.Time{})
	_ = p.c.SetWriteDeadline(time.Time{})
}

// content is the bytes that the request brings, with what they must add up to.
func (x exchange) content() (c content, err error) {
	if x.r.ContentLength < 0 {
		return c, fail(http.StatusLengthRequired, "MissingContentLengthHeader", "The request must say how long its body is, in Content-Length.")
	}
	c = content{body: x.patient(), size: x.r.ContentLength}
	if c.md5, err = md5Of(x.r, "Content-MD5"); err != nil {
		return c, err
	}
	c.crc, err = crc64Of(x.r, "x-ms-content-crc64")
	return c, err
}

func crc64Of(r *http.Request, name string) (*uint64, error) {
	v := r.Header.Get(name)
	if v == "" {
		return nil, nil
	}
	b, err := base64.StdEncoding.DecodeString(v)
	sum, ok := crcOf(b)
	if err != nil || !ok {
		return nil, badHeader(name, v, "8 bytes in base64")
	}
	return &sum, nil
}

func md5Of(r *http.Request, name string) ([]byte, error) {
	v := r.Header.Get(name)
	if v == "" {
		return nil, nil
	}
	b, err := base64.StdEncoding.DecodeString(v)
	if err != nil || len(b) != md5.Size {
		return nil, fail(http.StatusBadRequest, "InvalidMd5", "The header %s is %q; it must be 16 bytes in base64.", name, v)
	}
	return b, nil
}

// headers are what the blob is to be served with. Only Put Blob falls back to
// the request's own headers.
func (x exchange) headers(fallback bool) (h Headers, err error) {
	for _, f := range []struct {
		to        *string
		own, said string
	}{
		{&h.ContentType, "Content-Type", "x-ms-blob-content-type"}, {&h.Encoding, "Content-Encoding", "x-ms-blob-content-encoding"},
		{&h.Language, "Content-Language", "x-ms-blob-content-language"}, {&h.Cache, "Cache-Control", "x-ms-blob-cache-control"},
		{&h.Disposition, "", "x-ms-blob-content-disposition"},
	} {
		if *f.to = x.r.Header.Get(f.said); *f.to == "" && fallback && f.own != "" {
			*f.to = x.r.Header.Get(f.own)
		}
		for _, c := range []byte(*f.to) {
			if c < ' ' || c == 0x7f {
				return h, badHeader(f.said, *f.to, "without control characters")
			}
		}
	}
	h.MD5, err = md5Of(x.r, "x-ms-blob-content-md5")
	return h, err
}

// draft is what a request says of the blob that it makes.
func (x exchange) draft(fallback bool) (d draft, err error) {
	if d.head, err = x.headers(fallback); err != nil {
		return d, err
	}
	if d.meta, err = metaOf(x.r.Header); err != nil {
		return d, err
	}
	if d.when, err = conditions(x.r.Header, ""); err != nil {
		return d, err
	}
	if d.tags, err = headerTags(x.r); err != nil {
		return d, err
	}
	if d.tier, err = tierOf(x.r); err != nil {
		return d, err
	}
	if x.q.onlyCreates() {
		d.when.NoneMatch = "*"
	}
	return d, nil
}

// putBlob is Put Blob, Copy Blob and Put Blob From URL.
func (s *Service) putBlob(x exchange) error {
	d, err := x.draft(true)
	if err != nil {
		return err
	}
	if x.r.Header.Get("x-ms-copy-source") != "" {
		return s.copyBlob(x, d)
	}
	switch d.typ = x.r.Header.Get("x-ms-blob-type"); d.typ {
	case "":
		return fail(http.StatusBadRequest, "MissingRequiredHeader", "The header x-ms-blob-type is missing; it must be BlockBlob or AppendBlob.")
	case blockBlob, appendBlob:
	default:
		return badHeader("x-ms-blob-type", d.typ, "BlockBlob or AppendBlob")
	}
	if d.content, err = x.content(); err != nil {
		return err
	}
	if d.typ == appendBlob && d.content.size != 0 {
		return badHeader("Content-Length", strconv.FormatInt(d.content.size, 10), "0 for a new append blob")
	}
	if d.content.md5 == nil && d.typ == blockBlob {
		d.content.md5 = d.head.MD5
	}
	info, err := s.put(x.r.Context(), x.g, d)
	if err == nil && d.content.crc != nil {
		x.w.Header().Set("x-ms-content-crc64", text(x.r.Header.Get("x-ms-content-crc64"), x.r.Header.Get("x-ms-source-content-crc64")))
	}
	if err == nil && d.typ == blockBlob {
		x.w.Header().Set("Content-MD5", base64.StdEncoding.EncodeToString(info.MD5))
	}
	return x.written(http.StatusCreated, info, err)
}

// written answers for a change of a blob.
func (x exchange) written(status int, info Info, err error) error {
	x.patient().end()
	if err != nil {
		return err
	}
	h := x.w.Header()
	h.Set("ETag", info.ETag)
	h.Set("Last-Modified", httpTime(info.Modified))
	if info.Version != "" {
		h.Set("x-ms-version-id", info.Version)
	}
	h.Set("x-ms-request-server-encrypted", "true")
	h.Set("Content-Length", "0")
	x.w.WriteHeader(status)
	return nil
}

// putBlockOf is Put Block.
func (s *Service) putBlockOf(x exchange) error {
	c, done, err := x.contentFrom()
	if err != nil {
		return err
	}
	defer done()
	when, err := conditions(x.r.Header, "")
	if err != nil {
		return err
	}
	t, err := s.putBlock(x.r.Context(), x.g, x.q["blockid"], c, Conditions{Lease: when.Lease})
	x.patient().end()
	if err != nil {
		return err
	}
	h := x.w.Header()
	h.Set("Content-MD5", base64.StdEncoding.EncodeToString(t.md5))
	if c.crc != nil {
		h.Set("x-ms-content-crc64", text(x.r.Header.Get("x-ms-content-crc64"), x.r.Header.Get("x-ms-source-content-crc64")))
	}
	h.Set("x-ms-request-server-encrypted", "true")
	h.Set("Content-Length", "0")
	x.w.WriteHeader(http.StatusCreated)
	return nil
}

// putBlockList is Put Block List.
func (s *Service) putBlockList(x exchange) error {
	d, err := x.draft(false)
	if err != nil {
		return err
	}
	n, err := readXML(x.w, x.r, "BlockList")
	if err != nil {
		return err
	}
	list, err := blockList(n)
	if err != nil {
		return err
	}
	info, err := s.commit(x.r.Context(), x.g, list, d)
	return x.written(http.StatusCreated, info, err)
}

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

// appendBlock is Append Block.
func (s *Service) appendBlock(x exchange) error {
	a := addition{}
	var done func()
	var err error
	if a.content, done, err = x.contentFrom(); err != nil {
		return err
	}
	defer done()
	if a.when, err = conditions(x.r.Header, ""); err != nil {
		return err
	}
	for name, to := range map[string]*int64{"x-ms-blob-condition-appendpos": &a.at, "x-ms-blob-condition-maxsize": &a.most} {
		v := x.r.Header.Get(name)
		if v == "" {
			continue
		}
		if *to, err = strconv.ParseInt(v, 10, 64); err != nil || *to < 0 {
			return badHeader(name, v, "a whole number")
		}
		a.pinned = a.pinned || to == &a.at
	}
	info, offset, err := s.append(x.r.Context(), x.g, a)
	if err == nil {
		h := x.w.Header()
		if a.content.crc != nil {
			h.Set("x-ms-content-crc64", text(x.r.Header.Get("x-ms-content-crc64"), x.r.Header.Get("x-ms-source-content-crc64")))
		}
		h.Set("x-ms-blob-append-offset", strconv.FormatInt(offset, 10))
		h.Set("x-ms-blob-committed-block-count", strconv.Itoa(info.Appends))
	}
	return x.written(http.StatusCreated, info, err)
}

// deleteBlob is Delete Blob.
func (s *Service) deleteBlob(x exchange) error {
	d := deletion{snapshots: x.r.Header.Get("x-ms-delete-snapshots")}
	var err error
	if d.at, err = x.moment(); err != nil {
		return err
	}
	if v := d.snapshots; v != "" && (v != withSnapshots && v != onlySnapshots || !d.at.current()) {
		return badHeader("x-ms-delete-snapshots", v, "include or only, and left out where one snapshot or version is deleted")
	}
	if d.when, err = conditions(x.r.Header, ""); err != nil {
		return err
	}
	lasting, err := s.delete(x.r.Context(), x.g, d)
	if err != nil {
		return err
	}
	x.w.Header().Set("x-ms-delete-type-permanent", strconv.FormatBool(lasting))
	x.w.WriteHeader(http.StatusAccepted)
	return nil
}

// setBlobMeta is Set Blob Metadata.
func (s *Service) setBlobMeta(x exchange) error {
	d, err := x.draft(false)
	if err != nil {
		return err
	}
	info, err := s.SetMeta(x.r.Context(), x.g, d.meta, d.when)
	return x.written(http.StatusOK, info, err)
}

// setBlobHeaders is Set Blob Properties.
func (s *Service) setBlobHeaders(x exchange) error {
	for _, n := range []string{"x-ms-blob-content-length", "x-ms-sequence-number-action", "x-ms-blob-sequence-number"} {
		if x.r.Header.Get(n) != "" {
			return unsupportedHeader(n) // they are of page blobs
		}
	}
	d, err := x.draft(false)
	if err != nil {
		return err
	}
	info, err := s.SetHeaders(x.r.Context(), x.g, d.head, d.when)
	return x.written(http.StatusOK, info, err)
}

// describe writes what is known of a blob as headers.
func (x exchange) describe(b Info) {
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
	if b.Version != "" {
		h.Set("x-ms-version-id", b.Version)
		if b.past == "" {
			h.Set("x-ms-is-current-version", "true")
		}
	}
	h.Set("x-ms-creation-time", httpTime(b.Created))
	h.Set("x-ms-blob-type", b.Type)
	x.showLease(b.lease)
	h.Set("x-ms-server-encrypted", "true")
	if b.Type == blockBlob {
		h.Set("x-ms-access-tier", text(b.tier, "Hot"))
		if b.tier == "" {
			h.Set("x-ms-access-tier-inferred", "true")
		} else {
			h.Set("x-ms-access-tier-change-time", httpTime(b.tiered))
		}
	} else {
		h.Set("x-ms-blob-committed-block-count", strconv.Itoa(b.Appends))
	}
	if c := b.Copy; c != nil {
		h.Set("x-ms-copy-id", c.ID)
		h.Set("x-ms-copy-source", c.Source)
		h.Set("x-ms-copy-status", "success")
		h.Set("x-ms-copy-progress", fmt.Sprintf("%d/%d", c.Size, c.Size))
		h.Set("x-ms-copy-completion-time", httpTime(c.Ended))
	}
	if n := len(b.tags); n > 0 {
		h.Set("x-ms-tag-count", strconv.Itoa(n))
	}
	setMeta(h, b.Meta)
}

// rsc are the parameters by which a signature says what a blob is served with.
var rsc = map[string]string{
	"Cache-Control": "rscc", "Content-Disposition": "rscd", "Content-Encoding": "rsce", "Content-Language": "rscl", "Content-Type": "rsct",
}

// headBlob is Get Blob Properties.
func (s *Service) headBlob(x exchange) error {
	when, err := conditions(x.r.Header, "")
	if err != nil {
		return err
	}
	at, err := x.moment()
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
	when, err := conditions(x.r.Header, "")
	if err != nil {
		return err
	}
	at, err := x.moment()
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

// maxSummed is how many bytes of a range an MD5 may be asked for, as Azure's.
const maxSummed = 4 << 20

// getBlob is Get Blob.
func (s *Service) getBlob(x exchange) error {
	when, err := conditions(x.r.Header, "")
	if err != nil {
		return err
	}
	at, err := x.moment()
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
		h.Set("x-ms-blob-content-md5", base64.StdEncoding.EncodeToString(info.MD5))
	}
	return x.send(http.StatusPartialContent, info, r, to-from, sum)
}

// summed is the body of n bytes with the sum of them that the request asks for.
func (x exchange) summed(body io.Reader, n int64) (r io.Reader, sum []byte, err error) {
	asks := func(name string) bool { return strings.EqualFold(x.r.Header.Get(name), "true") }
	wantMD5, wantCRC := asks("x-ms-range-get-content-md5"), asks("x-ms-range-get-content-crc64")
	switch {
	case !wantMD5 && !wantCRC:
		return body, nil, nil
	case wantMD5 && wantCRC:
		return nil, nil, fail(http.StatusBadRequest, "InvalidHeaderValue", "Either an MD5 or a CRC64 of a range can be asked for, not both.")
	case n > maxSummed:
		return nil, nil, fail(http.StatusBadRequest, "OutOfRangeQueryParameterValue", "A sum can be asked for of at most 4 MiB.")
	}
	data, err := io.ReadAll(io.LimitReader(body, maxSummed))
	if err != nil {
		return nil, nil, err
	}
	if wantMD5 {
		m := md5.Sum(data)
		sum = m[:]
	} else {
		x.w.Header().Set("x-ms-content-crc64", base64.StdEncoding.EncodeToString(crcBytes(crc64.Checksum(data, crcTable()))))
	}
	return bytes.NewReader(data), sum, nil
}

// send answers with bytes. What does not open is found before the first of its
// bytes is sent; an answer that has begun is cut.
func (x exchange) send(status int, info Info, body io.Reader, n int64, sum []byte) error {
	x.describe(info)
	h := x.w.Header()
	h.Set("Content-Length", strconv.FormatInt(n, 10))
	if sum != nil {
		h.Set("Content-MD5", base64.StdEncoding.EncodeToString(sum))
	}
	p := x.patient()
	defer p.end()
	late := &lateWriter{p: p, status: status, w: x.w}
	m, err := io.Copy(late, body)
	if err == nil && m != n {
		err = fmt.Errorf("%w: there were %d bytes of %d", errAltered, m, n)
	}
	if err == nil {
		late.begin()
		return nil
	}
	if serious(err) {
		x.s.Log.Error("a blob could not be read", "account", x.s.accountOf(x.r.Host), "error", err)
	}
	var known *arm.Error
	if errors.As(err, &known) {
		return err
	}
	return &arm.Error{Code: arm.Internal, Message: "the blob could not be read", Err: err}
}

// lateWriter writes the status with the first bytes.
type lateWriter struct {
	p      patient
	w      http.ResponseWriter
	status int
	begun  bool
}

func (l *lateWriter) begin() {
	if !l.begun {
		l.begun = true
		l.w.WriteHeader(l.status)
	}
}

func (l *lateWriter) Write(b []byte) (int, error) {
	l.begin()
	return l.p.Write(b)
}
