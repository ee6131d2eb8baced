package blob

import (
	"io"
	"net/http"
	"net/url"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

// copyBlob is Copy Blob, and Put Blob From URL of a blob that is kept here. It
// is done when it is answered. The source is read as who calls, or as the
// signature in its URL allows.
func (s *Service) copyBlob(x exchange, d draft) error {
	ctx := x.r.Context()
	raw := x.r.Header.Get("x-ms-copy-source")
	u, err := url.Parse(raw)
	if err != nil {
		return badHeader("x-ms-copy-source", "…", "the URL of a blob")
	}
	from, err := s.Locate((&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath, User: u.User}).String())
	if err != nil || from.Item == "" {
		return fail(http.StatusBadRequest, "CannotVerifyCopySource", "The source of a copy must be the https URL of a blob in a storage account of this installation.")
	}
	as, err := s.sourceCaller(x, u, from)
	if err != nil {
		return err
	}
	g, err := s.Gate.Admit(ctx, as, BlobRead, from)
	if err != nil {
		return fail(http.StatusForbidden, "CannotVerifyCopySource", "The source of the copy can't be read with what the request shows.")
	}
	when, err := conditions(x.r.Header, "x-ms-source-")
	if err != nil {
		return g.Close(ctx, err)
	}
	at, err := sourceMoment(u)
	if err != nil {
		return g.Close(ctx, err)
	}
	body, src, err := s.read(ctx, g, at, when, func(size int64) (int64, int64, error) { return 0, size, nil })
	if err = g.Close(ctx, err); err != nil {
		if arm.CodeOf(err) == "ConditionNotMet" {
			return fail(http.StatusPreconditionFailed, "SourceConditionNotMet", "The source condition specified using HTTP conditional header(s) is not met.")
		}
		return err
	}
	defer body.Close()
	u.RawQuery = ""
	info, err := s.put(ctx, x.g, x.copyDraft(d, src, body, u.String()))
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

// sourceCaller is as whom the source of a copy is read.
func (s *Service) sourceCaller(x exchange, u *url.URL, from gate.Target) (arm.Caller, error) {
	q, err := parseQuery(u.RawQuery)
	if err != nil {
		return arm.Caller{}, err
	}
	if q["sig"] == "" {
		return x.g.Caller(), nil
	}
	rq := request{account: s.byID(from.ID.Parent().Parent()), container: from.ID.Name(), blob: from.Item, action: BlobRead, secure: true, peer: peerOf(x.r), at: moment{q["snapshot"], q["versionid"]}}
	return s.bySAS(x.r.Context(), rq, q)
}

// copyDraft is the copy of src as the request wants it.
func (x exchange) copyDraft(d draft, src Info, body io.Reader, source string) draft {
	out := draft{typ: src.Type, head: src.Headers, meta: src.Meta, tags: d.tags, tier: d.tier, when: d.when, content: content{body: body, size: src.Size}}
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
