package blob

import (
	"context"
	"net/http"

	"castellan/internal/gate"
	"castellan/internal/store"
)

// A sealed append blob is done: nothing is added to it, and nothing written in its
// place, until it is deleted.

// unsealed says that b, which may be nil, is not sealed.
func (b *row) unsealed() error {
	if b != nil && b.Sealed {
		return fail(http.StatusConflict, "BlobIsSealed", "The specified blob is sealed and its contents can't be modified unless the blob is re-created after a delete.")
	}
	return nil
}

// seal seals the append blob that the Grant, for BlobWrite, is about, if it has
// at bytes, where at is not nil. Its etag stays.
func (s *Service) seal(ctx context.Context, g gate.Grant, at *int64, when Conditions) (info Info, err error) {
	p, err := s.blobTarget(g, BlobWrite)
	if err != nil {
		return info, err
	}
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		c, b, err := s.alter(tx, g, p, moment{}, when, BlobWrite)
		if err != nil {
			return err
		}
		if b.Type != appendBlob {
			return wrongType(b.Type)
		}
		if at != nil && *at != b.Size {
			return fail(http.StatusPreconditionFailed, "AppendPositionConditionNotMet", "The append position condition specified was not met: the blob has %d bytes.", b.Size)
		}
		if err := c.Guard.changes(b, grows); err != nil {
			return err
		}
		b.Sealed = true
		info = b.info(p.blob)
		return put(tx, p, c, moment{}, b)
	})
	return info, err
}

// sealBlob is Append Blob Seal.
func (s *Service) sealBlob(x exchange) error {
	when, err := conditions(x.r.Header, "")
	if err != nil {
		return err
	}
	at, err := x.number("x-ms-blob-condition-appendpos")
	if err != nil {
		return err
	}
	info, err := s.seal(x.r.Context(), x.g, at, when)
	if err == nil {
		x.w.Header().Set("x-ms-blob-sealed", "true")
	}
	return x.written(http.StatusOK, info, err)
}

// sealsCopy is whether the copy of src is to be sealed: as src is, unless the
// request says.
func (x exchange) sealsCopy(src Info) (bool, error) {
	const name = "x-ms-seal-blob"
	switch v := x.r.Header.Get(name); {
	case v == "":
		return src.sealed, nil
	case v == "false":
		return false, nil
	case v == "true" && src.Type == appendBlob:
		return true, nil
	default:
		return false, badHeader(name, v, "true for an append blob, or false")
	}
}
