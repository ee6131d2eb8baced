package blob

import (
	"context"
	"io"
	"net/http"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// draft is a blob as somebody wants it.
type draft struct {
	typ     string
	head    Headers
	meta    map[string]string
	when    Conditions
	tags    map[string]string
	tier    string
	content content
	copy    *copied
	sealed  bool
	// Of a new page blob:
	size, sequence int64
	file           newborn // of a new file in a share, with size
}

// Write puts a block blob in the place that the Grant, for BlobWrite, is about:
// it is durable and whole when Write returns, and if it fails what was there
// stays. size is -1 if it isn't known.
func (s *Service) Write(ctx context.Context, g gate.Grant, body io.Reader, size int64, contentType string, meta map[string]string) (Info, error) {
	return s.put(ctx, g, draft{typ: blockBlob, head: Headers{ContentType: contentType}, meta: meta, content: content{body: body, size: size}})
}

// put is Write for all that a client may say of a blob.
func (s *Service) put(ctx context.Context, g gate.Grant, d draft) (info Info, err error) {
	p, err := s.blobTarget(g, BlobWrite, FileWrite)
	if err != nil {
		return info, err
	}
	if err := checkMeta(d.meta); err != nil {
		return info, err
	}
	if d.tier != "" && d.typ != blockBlob {
		return info, badHeader("x-ms-access-tier", d.tier, "left out: only block blobs have tiers")
	}
	if err := s.precheck(ctx, p, d.when, d.content.size); err != nil {
		return info, err
	}
	d.content.max = maxPut
	t, err := s.take(ctx, p.data, d.content)
	if err != nil {
		return info, err
	}
	if d.head.MD5 == nil && d.typ == blockBlob {
		d.head.MD5 = t.md5
	}
	info, err = s.change(ctx, g, p, replaces, func(tx *store.Tx, c containerRow, old *row) (*row, []piece, error) {
		if err := s.allows(d.when, old, false); err != nil {
			return nil, nil, err
		}
		if d.typ == fileType {
			return s.newFile(tx, p, c, d, old, t)
		}
		next := row{Type: d.typ, Size: t.piece.Size, Head: d.head, Meta: d.meta, Tags: d.tags, Tier: d.tier, Copy: d.copy, Sealed: d.sealed}
		if d.typ == pageBlob {
			next.Size, next.Sequence, next.Base = max(d.size, t.piece.Size), d.sequence, arm.NewHex()
			t.piece.Len = t.piece.Size
		}
		return s.renew(old, next), t.pieces(), t.place(tx)
	})
	s.settle(t, err)
	return info, err
}

// precheck spares an upload of size bytes that would be refused in the end. A small
// one is there before it could be spared.
func (s *Service) precheck(ctx context.Context, p place, when Conditions, size int64) error {
	if size >= 0 && size <= smallSize {
		return nil
	}
	return s.DB.View(ctx, func(tx *store.Tx) error {
		c, err := findContainer(tx, p)
		if err != nil {
			return err
		}
		old, err := findBlob(tx, c, p.blob)
		if err != nil {
			return err
		}
		if err := s.allows(when, old, false); err != nil {
			return err
		}
		return c.Guard.changes(old, replaces)
	})
}

// allows holds b, which may be nil, against the conditions of a request and its
// lease.
func (s *Service) allows(c Conditions, b *row, read bool) error {
	if err := c.tagged(b); err != nil {
		return err
	}
	if b == nil {
		if c.Lease != "" && !read {
			return (*lease)(nil).admits(c.Lease, "Blob", true, s.Now())
		}
		return c.check(false, "", time.Time{}, read)
	}
	if err := c.check(true, b.ETag, b.Modified, read); err != nil {
		return err
	}
	return b.Lease.admits(c.Lease, "Blob", !read, s.Now())
}

// renew is next as a new content in the place of old, which may be nil.
func (s *Service) renew(old *row, next row) *row {
	next.Gen, next.ETag, next.Modified = arm.NewHex(), newETag(), s.Now().UTC()
	if next.Created = next.Modified; old != nil {
		next.Created, next.Lease = old.Created, old.Lease.kept(next.Modified)
	}
	if next.Tier != "" {
		next.Tiered = next.Modified
	}
	if next.Head.ContentType == "" {
		next.Head.ContentType = "application/octet-stream"
	}
	return &next
}

// Whether a change puts another content in the place of a blob's, of which the
// account may keep the old one, or goes on with it.
type how int

const (
	replaces how = iota
	grows
	keeps // and leaves blocks that wait as they are
)

// change puts a blob with other content in the place of what is there, in one
// transaction with the audit entry. Waiting blocks and pieces that the new blob
// does not have are gone with it, but for what the blob's past has.
func (s *Service) change(ctx context.Context, g gate.Grant, p place, as how, fn func(tx *store.Tx, c containerRow, old *row) (*row, []piece, error)) (info Info, err error) {
	if !p.data.IsZero() { // an upload may have taken its time
		if err := s.still(p.account); err != nil {
			return info, err
		}
	}
	var gone []piece
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		c, err := findContainer(tx, p)
		if err != nil {
			return err
		}
		old, err := findBlob(tx, c, p.blob)
		if err != nil {
			return err
		}
		if err := s.lists(tx, c, g, p.blob, BlobWrite, BlobAdd, BlobDelete); err != nil {
			return err
		}
		next, ps, err := fn(tx, c, old)
		if err != nil {
			return err
		}
		if p.hns {
			if err := s.plant(tx, p, c, birth{owner: ownerOf(g), umask: usualMask}, old, next); err != nil {
				return err
			}
		}
		if next == nil {
			err = c.Guard.deletes(old, s.Now())
		} else if err = old.unsealed(); err == nil {
			err = c.Guard.changes(old, as)
		}
		if err != nil {
			return err
		}
		if err := p.charge(tx, c, old, next); err != nil {
			return err
		}
		if gone, err = s.replace(tx, p, c, old, next, ps, as); err != nil {
			return err
		}
		if next != nil {
			info = next.info(p.blob)
		}
		return nil
	})
	if err == nil {
		s.files.remove(fileIDs(gone))
	}
	return info, err
}

// replace writes next with its pieces, or nothing if it is nil, where old was, and
// says whose bytes nobody has then.
func (s *Service) replace(tx *store.Tx, p place, c containerRow, old, next *row, ps []piece, as how) (gone []piece, err error) {
	had, err := pieces(tx, old)
	if err != nil {
		return nil, err
	}
	kept := false
	if old != nil && as == replaces {
		if kept, err = s.retire(tx, p, c, old, next != nil); err != nil {
			return nil, err
		}
	}
	if old != nil && !kept {
		last, err := unshare(tx, old.Gen)
		if err != nil {
			return nil, err
		}
		kept = !last
	}
	var blocks []piece
	if as != keeps {
		if blocks, err = dropBlocks(tx, c, p.blob); err != nil {
			return nil, err
		}
	}
	if kept {
		gone = without(blocks, ps)
		err = shareBoth(tx, had, ps)
	} else {
		gone = without(append(had, blocks...), ps)
		err = dropLayout(tx, old)
	}
	if err != nil {
		return nil, err
	}
	if gone, err = release(tx, gone); err != nil {
		return nil, err
	}
	if next == nil {
		return gone, tx.Delete(blobTable, blobKey(c, p.blob))
	}
	if p.rules.versioning && (as == replaces || old == nil) {
		if next.Version, err = s.nextStamp(tx, c, p.blob, nil); err != nil {
			return nil, err
		}
	}
	return gone, keep(tx, c, p.blob, next, ps)
}

// without are those of all whose bytes no piece of kept has, each once.
func without(all, kept []piece) (out []piece) {
	seen := make(map[string]bool, len(kept))
	for _, p := range kept {
		seen[p.ID] = true
	}
	for _, p := range all {
		if !seen[p.ID] {
			seen[p.ID] = true
			out = append(out, p)
		}
	}
	return out
}

// Delete deletes the blob that the Grant, for BlobDelete, is about.
func (s *Service) Delete(ctx context.Context, g gate.Grant) error {
	_, err := s.delete(ctx, g, deletion{})
	return err
}

// SetMeta replaces the metadata of the blob that the Grant, for BlobWrite, is about.
func (s *Service) SetMeta(ctx context.Context, g gate.Grant, meta map[string]string, when Conditions) (Info, error) {
	if err := checkMeta(meta); err != nil {
		return Info{}, err
	}
	return s.revise(ctx, g, when, true, func(b *row) { b.setMeta(meta) })
}

// SetHeaders replaces what the blob that the Grant, for BlobWrite, is about is
// served with.
func (s *Service) SetHeaders(ctx context.Context, g gate.Grant, h Headers, when Conditions) (Info, error) {
	return s.revise(ctx, g, when, false, func(b *row) { b.Head = h })
}

// revise changes what a blob has beside its bytes. If it makes a version, what the
// blob was is kept where accounts keep versions.
func (s *Service) revise(ctx context.Context, g gate.Grant, when Conditions, version bool, fn func(*row)) (info Info, err error) {
	p, err := s.blobTarget(g, BlobWrite, FileWrite)
	if err != nil {
		return info, err
	}
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		c, b, err := s.alter(tx, g, p, moment{}, when, BlobWrite)
		if err != nil {
			return err
		}
		if err := b.online(); err != nil {
			return err
		}
		if err := c.Guard.changes(b, replaces); err != nil {
			return err
		}
		if version && p.rules.versioning {
			if err := s.version(tx, p, c, b); err != nil {
				return err
			}
		}
		fn(b)
		b.ETag, b.Modified = newETag(), s.Now().UTC()
		b.Lease = b.Lease.kept(b.Modified)
		info = b.info(p.blob)
		return store.PutJSON(tx, blobTable, blobKey(c, p.blob), b)
	})
	return info, err
}

// version keeps what b is as a version, and makes b the next one with the same
// content.
func (s *Service) version(tx *store.Tx, p place, c containerRow, b *row) (err error) {
	if err := share(tx, b.Gen); err != nil {
		return err
	}
	if _, err := s.retire(tx, p, c, b, true); err != nil {
		return err
	}
	b.Version, err = s.nextStamp(tx, c, p.blob, nil)
	return err
}

// Append adds data to the end of the append blob that the Grant, for BlobAdd, is
// about. With create it makes the blob if it is not there.
func (s *Service) Append(ctx context.Context, g gate.Grant, data io.Reader, size int64, create bool) (Info, error) {
	info, _, err := s.append(ctx, g, addition{content: content{body: data, size: size}, create: create})
	return info, err
}

// addition is what somebody adds to an append blob.
type addition struct {
	content content
	when    Conditions
	at      int64 // the size that the blob must have, or -1; 0 counts only with pinned
	pinned  bool
	most    int64 // the size that the blob may have then; 0 is no limit
	create  bool
}

// maxAppends is how many blocks an append blob may have.
const maxAppends = 50000

// append is Append with all that a client may say. offset is where the new
// bytes begin.
func (s *Service) append(ctx context.Context, g gate.Grant, a addition) (info Info, offset int64, err error) {
	p, err := s.blobTarget(g, BlobAdd)
	if err != nil {
		return info, 0, err
	}
	a.content.max = maxAppend
	t, err := s.take(ctx, p.data, a.content)
	if err != nil {
		return info, 0, err
	}
	if t.piece.Size == 0 {
		return info, 0, fail(http.StatusBadRequest, "InvalidHeaderValue", "The request adds no bytes; Content-Length must be above 0.")
	}
	info, err = s.change(ctx, g, p, grows, func(tx *store.Tx, c containerRow, old *row) (*row, []piece, error) {
		next, err := a.allowed(s, old, t.piece.Size)
		if err != nil {
			return nil, nil, err
		}
		offset = next.Size - t.piece.Size
		ps, err := pieces(tx, old)
		if err != nil {
			return nil, nil, err
		}
		ps, err = s.extend(tx, p, ps, t)
		return next, ps, err
	})
	s.settle(t, err)
	return info, offset, err
}

// allowed is the blob as it is after n more bytes, or why it may not be.
func (a addition) allowed(s *Service, old *row, n int64) (*row, error) {
	if old == nil && a.create {
		old = s.renew(nil, row{Type: appendBlob})
	}
	if old == nil {
		return nil, noBlob()
	}
	if err := s.allows(a.when, old, false); err != nil {
		return nil, err
	}
	next := *old
	next.Gen, next.ETag, next.Modified = arm.NewHex(), newETag(), s.Now().UTC()
	next.Lease = old.Lease.kept(next.Modified)
	next.Size, next.Appends = old.Size+n, old.Appends+1
	switch {
	case old.Type != appendBlob:
		return nil, wrongType(old.Type)
	case old.Sealed:
		return nil, old.unsealed()
	case a.pinned && a.at != old.Size:
		return nil, fail(http.StatusPreconditionFailed, "AppendPositionConditionNotMet", "The append position condition specified was not met: the blob has %d bytes.", old.Size)
	case a.most > 0 && next.Size > a.most:
		return nil, fail(http.StatusPreconditionFailed, "MaxBlobSizeConditionNotMet", "The max blob size condition specified was not met: the blob would have %d bytes.", next.Size)
	case next.Appends > maxAppends:
		return nil, fail(http.StatusConflict, "BlockCountExceedsLimit", "The blob has %d blocks; it can have no more.", old.Appends)
	}
	return &next, nil
}

func wrongType(is string) error {
	return fail(http.StatusConflict, "InvalidBlobType", "The blob type is invalid for this operation: the blob is of type %s.", is)
}

// extend adds what was taken to pieces. Small ones grow together, so that a log
// written line by line does not become a piece a line.
func (s *Service) extend(tx *store.Tx, p place, ps []piece, t *taken) ([]piece, error) {
	if n := len(ps); n > 0 && ps[n-1].Small && t.piece.Small && ps[n-1].Size+t.piece.Size <= smallSize {
		last, err := smallBytes(tx, p.data, ps[n-1])
		if err != nil {
			return nil, err
		}
		more, err := p.data.Open(t.sealed, smallContext(t.piece.ID))
		if err != nil {
			return nil, err
		}
		id := arm.NewHex()
		both := piece{ID: id, Size: ps[n-1].Size + t.piece.Size, Small: true}
		err = tx.Put(byteTable, id, p.data.Seal(append(last, more...), smallContext(id)))
		return append(append([]piece(nil), ps[:n-1]...), both), err
	}
	return append(append([]piece(nil), ps...), t.piece), t.place(tx)
}
