package blob

import (
	"encoding/base64"
	"net/http"
	"strconv"
)

// headers are what the blob is to be served with. Only Put Blob falls back to
// the request's own headers.
func (x exchange) headers(fallback bool) (h Headers, err error) {
	prefix := "x-ms-blob-"
	if x.files() {
		prefix = "x-ms-"
	}
	for _, f := range []struct {
		to        *string
		own, said string
	}{
		{&h.ContentType, "Content-Type", prefix + "content-type"}, {&h.Encoding, "Content-Encoding", prefix + "content-encoding"},
		{&h.Language, "Content-Language", prefix + "content-language"}, {&h.Cache, "Cache-Control", prefix + "cache-control"},
		{&h.Disposition, "", prefix + "content-disposition"},
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
	h.MD5, err = md5Of(x.r, prefix+"content-md5")
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
	if err := x.noSource(); err != nil {
		return err
	}
	switch d.typ = x.r.Header.Get("x-ms-blob-type"); d.typ {
	case "":
		return fail(http.StatusBadRequest, "MissingRequiredHeader", "The header x-ms-blob-type is missing; it must be BlockBlob, PageBlob or AppendBlob.")
	case blockBlob, appendBlob:
	case pageBlob:
		if err := x.newPages(&d); err != nil {
			return err
		}
	default:
		return badHeader("x-ms-blob-type", d.typ, "BlockBlob, PageBlob or AppendBlob")
	}
	if d.content, err = x.content(); err != nil {
		return err
	}
	if d.typ != blockBlob && d.content.size != 0 {
		return badHeader("Content-Length", strconv.FormatInt(d.content.size, 10), "0 for a new "+d.typ)
	}
	if d.content.md5 == nil && d.typ == blockBlob {
		d.content.md5 = d.head.MD5
	}
	info, err := s.put(x.r.Context(), x.g, d)
	if err == nil {
		x.echoCRC(d.content)
	}
	if err == nil && d.typ == blockBlob {
		x.w.Header().Set("Content-MD5", base64.StdEncoding.EncodeToString(info.MD5))
	}
	return x.written(http.StatusCreated, info, err)
}

// echoCRC repeats the sum that c was held against.
func (x exchange) echoCRC(c content) {
	if c.crc != nil {
		x.w.Header().Set("x-ms-content-crc64", base64.StdEncoding.EncodeToString(crcBytes(*c.crc)))
	}
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
	x.echoCRC(c)
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
		x.echoCRC(a.content)
		h.Set("x-ms-blob-append-offset", strconv.FormatInt(offset, 10))
		h.Set("x-ms-blob-committed-block-count", strconv.Itoa(info.Appends))
	}
	return x.written(http.StatusCreated, info, err)
}

// deleteBlob is Delete Blob.
func (s *Service) deleteBlob(x exchange) error {
	d := deletion{snapshots: x.r.Header.Get("x-ms-delete-snapshots")}
	var err error
	if d.at, d.when, err = x.terms(); err != nil {
		return err
	}
	if v := d.snapshots; v != "" && (v != withSnapshots && v != onlySnapshots || !d.at.current()) {
		return badHeader("x-ms-delete-snapshots", v, "include or only, and left out where one snapshot or version is deleted")
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

// showSequence tells the sequence number of a page blob.
func (x exchange) showSequence(b Info) {
	if b.Type == pageBlob {
		x.w.Header().Set("x-ms-blob-sequence-number", strconv.FormatInt(b.sequence, 10))
	}
}

// setBlobHeaders is Set Blob Properties.
func (s *Service) setBlobHeaders(x exchange) error {
	d, err := x.draft(false)
	if err != nil {
		return err
	}
	z, err := x.resizing(d)
	if err != nil {
		return err
	}
	if z != nil {
		info, err := s.resize(x.r.Context(), x.g, *z)
		x.showSequence(info)
		return x.written(http.StatusOK, info, err)
	}
	info, err := s.SetHeaders(x.r.Context(), x.g, d.head, d.when)
	x.showSequence(info)
	return x.written(http.StatusOK, info, err)
}
