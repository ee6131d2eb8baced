package blob

import (
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

// source is what a request copies from: a blob of this installation, never
// another address. It is read as who calls, or as the signature in its URL or the
// token beside it allows. url has no signature any more.
type source struct {
	body io.ReadCloser
	info Info
	url  string
	size int64 // of what span chose
}

func (s *Service) source(x exchange, span func(size int64) (from, to int64, err error)) (src source, err error) {
	ctx := x.r.Context()
	u, err := url.Parse(x.r.Header.Get("x-ms-copy-source"))
	if err != nil {
		return src, badHeader("x-ms-copy-source", "…", "the URL of a blob")
	}
	from, err := s.Locate((&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath, User: u.User}).String())
	if err != nil || from.Item == "" {
		return src, fail(http.StatusBadRequest, "CannotVerifyCopySource", "The source of a copy must be the https URL of a blob in a storage account of this installation.")
	}
	at, err := sourceMoment(u)
	if err != nil {
		return src, err
	}
	when, err := conditions(x.r.Header, "x-ms-source-")
	if err != nil {
		return src, err
	}
	as, err := s.sourceCaller(x, u, from)
	if err != nil {
		return src, err
	}
	if err := s.reach(s.byID(from.ID.Parent().Parent()), as, peerOf(x.r)); err != nil {
		return src, err
	}
	unread := fail(http.StatusForbidden, "CannotVerifyCopySource", "The source of the copy can't be read with what the request shows.")
	if when.Tags != nil {
		g, err := s.Gate.Admit(ctx, as, BlobTagsRead, from)
		if err != nil {
			return src, unread
		}
		if err := g.Close(ctx, nil); err != nil {
			return src, err
		}
	}
	action := BlobRead
	if s.fileHost(u.Host) {
		action, from.Op = FileRead, fileKind
		if !s.Gate.Would(as, FileBackupRead, from.ID) && as.Lease == nil {
			return src, unread
		}
	}
	g, err := s.Gate.Admit(ctx, as, action, from)
	if err != nil {
		return src, unread
	}
	src.body, src.info, err = s.read(ctx, g, at, when, func(size int64) (a, b int64, err error) {
		a, b, err = span(size)
		src.size = b - a
		return a, b, err
	})
	if err = g.Close(ctx, err); arm.CodeOf(err) == "ConditionNotMet" {
		err = fail(http.StatusPreconditionFailed, "SourceConditionNotMet", "The source condition specified using HTTP conditional header(s) is not met.")
	}
	if err != nil && src.body != nil {
		_ = src.body.Close() // it was only read
	}
	u.RawQuery = ""
	src.url = u.String()
	return src, err
}

func whole(size int64) (from, to int64, err error) { return 0, size, nil }

// copyBlob is Copy Blob, and Put Blob From URL. It is done when it is answered.
func (s *Service) copyBlob(x exchange, d draft) error {
	src, err := s.source(x, whole)
	if err != nil {
		return err
	}
	defer src.body.Close()
	made := x.copyDraft(d, src.info, src.body, src.url)
	if made.sealed, err = x.sealsCopy(src.info); err != nil {
		return err
	}
	if made.content.md5, made.content.crc, err = x.sourceSums(); err != nil {
		return err
	}
	info, err := s.put(x.r.Context(), x.g, made)
	if err == nil {
		x.w.Header().Set("x-ms-copy-id", info.Copy.ID)
		x.w.Header().Set("x-ms-copy-status", "success")
	}
	status := http.StatusAccepted
	if x.r.Header.Get("x-ms-blob-type") != "" { // it is a Put Blob From URL
		status = http.StatusCreated
	}
	return x.written(status, info, err)
}

// sourceSums are what the bytes of a source must add up to.
func (x exchange) sourceSums() (md5 []byte, crc *uint64, err error) {
	if md5, err = md5Of(x.r, "x-ms-source-content-md5"); err != nil {
		return nil, nil, err
	}
	crc, err = crc64Of(x.r, "x-ms-source-content-crc64")
	return md5, crc, err
}

// noSource refuses what is about the source of a copy, where there is none.
func (x exchange) noSource() error {
	for _, n := range append(from[1:len(from):len(from)], "x-ms-seal-blob") {
		if x.r.Header.Get(n) != "" {
			return unsupportedHeader(n)
		}
	}
	return nil
}

// contentFrom is what Put Block and Append Block add: what the request brings, or
// bytes of another blob. done must be called.
func (x exchange) contentFrom() (c content, done func(), err error) {
	if x.r.Header.Get("x-ms-copy-source") == "" {
		if err := x.noSource(); err != nil {
			return c, nil, err
		}
		c, err = x.content()
		return c, func() {}, err
	}
	if x.r.ContentLength != 0 {
		return c, nil, badHeader("Content-Length", strconv.FormatInt(x.r.ContentLength, 10), "0 where x-ms-copy-source says where the bytes are")
	}
	span := whole
	if v := x.r.Header.Get("x-ms-source-range"); v != "" {
		b, err := parseRange(v)
		if err != nil {
			return c, nil, badHeader("x-ms-source-range", v, "bytes=FROM-TO")
		}
		span = b.span
	}
	if c.md5, c.crc, err = x.sourceSums(); err != nil {
		return c, nil, err
	}
	src, err := x.s.source(x, span)
	if err != nil {
		return c, nil, err
	}
	c.body, c.size = src.body, src.size
	return c, func() { _ = src.body.Close() }, nil
}

// abortCopy is Abort Copy Blob: no copy is pending once it was answered.
func (s *Service) abortCopy(x exchange) error {
	if _, err := s.blobTarget(x.g, BlobWrite); err != nil {
		return err
	}
	return fail(http.StatusConflict, "NoPendingCopyOperation", "There is currently no pending copy operation.")
}

// sourceCaller is as whom the source of a copy is read.
func (s *Service) sourceCaller(x exchange, u *url.URL, from gate.Target) (arm.Caller, error) {
	q, err := parseQuery(u.RawQuery)
	if err != nil {
		return arm.Caller{}, err
	}
	token := x.r.Header.Get("x-ms-copy-source-authorization")
	switch {
	case token != "" && (q["sig"] != "" || !strings.HasPrefix(token, "Bearer ") || s.Who == nil):
		return arm.Caller{}, fail(http.StatusBadRequest, "InvalidHeaderValue", "The header x-ms-copy-source-authorization must be a bearer token, and the source's URL without a signature.")
	case token != "":
		r := x.r.Clone(x.r.Context())
		r.Header = http.Header{"Authorization": {token}}
		return s.Who(r)
	case q["sig"] == "":
		return x.g.Caller(), nil
	}
	rq := request{account: s.at(u.Host), container: from.ID.Name(), blob: from.Item, dir: from.Item, action: BlobRead, secure: true, peer: peerOf(x.r), at: moment{q["snapshot"], q["versionid"]}}
	if rq.account.files {
		_, raw, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
		rq.blob, rq.action = strings.Trim(raw, "/"), FileRead
	}
	return s.bySAS(x.r.Context(), rq, q)
}

// copyDraft is the copy of src as the request wants it.
func (x exchange) copyDraft(d draft, src Info, body io.Reader, source string) draft {
	out := draft{typ: src.Type, head: src.Headers, meta: src.Meta, tags: d.tags, tier: d.tier, when: d.when, content: content{body: body, size: src.Size}}
	if src.Type == fileType {
		out.typ = blockBlob
	}
	if len(d.meta) > 0 {
		out.meta = d.meta
	}
	if x.r.Header.Get("x-ms-blob-type") != "" {
		for to, v := range map[*string]string{&out.head.ContentType: d.head.ContentType, &out.head.Encoding: d.head.Encoding, &out.head.Language: d.head.Language, &out.head.Cache: d.head.Cache, &out.head.Disposition: d.head.Disposition} {
			if v != "" {
				*to = v
			}
		}
	}
	out.copy = &copied{ID: arm.NewUUID(), Source: source, Size: src.Size, Ended: x.s.Now().UTC()}
	return out
}
