package blob

import (
	"cmp"
	"context"
	"math"
	"net/http"
	"slices"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// A page blob has a size, and bytes only where some were written: its pieces say
// where they lie, in order, and between them are zeros that nothing keeps. A
// write puts its piece over what is there; of a piece that is written over in
// part the rest goes on being used.

// Limits of page blobs, as Azure's but for the last.
const (
	pageSize     = 512
	maxPageWrite = 4 << 20 // bytes
	maxPageBlob  = 8 << 40 // bytes
	maxStretches = 50000   // pieces side by side
)

// stretch is the bytes from from to to, without to.
type stretch struct{ from, to int64 }

func invalidPages(size int64, p place) error {
	if p.files {
		return fail(http.StatusRequestedRangeNotSatisfiable, "InvalidRange", "The range specified is invalid: it must lie within the file's %d bytes.", size)
	}
	return fail(http.StatusRequestedRangeNotSatisfiable, "InvalidPageRange", "The page range specified is invalid: it must begin and end at pages of %d bytes, within the blob's %d.", pageSize, size)
}

// punch is ps without the bytes of hole.
func punch(ps []piece, hole stretch) []piece {
	out := make([]piece, 0, len(ps)+2)
	for _, p := range ps {
		end := p.At + p.Len
		if end <= hole.from || p.At >= hole.to {
			out = append(out, p)
			continue
		}
		if left := p; p.At < hole.from {
			left.Len = hole.from - p.At
			out = append(out, left)
		}
		if right := p; end > hole.to {
			right.From, right.Len, right.At = p.From+hole.to-p.At, end-hole.to, hole.to
			out = append(out, right)
		}
	}
	return out
}

// sequence is what a request wants of a page blob's sequence number.
type sequence struct {
	most, below, equal *int64 // what it must be: at most, below, equal
}

func (q sequence) check(n int64) error {
	if q.most != nil && n > *q.most || q.below != nil && n >= *q.below || q.equal != nil && n != *q.equal {
		return fail(http.StatusPreconditionFailed, "SequenceNumberConditionNotMet", "The sequence number condition specified was not met: the blob's is %d.", n)
	}
	return nil
}

// paged is what somebody writes to pages.
type paged struct {
	at      stretch
	clear   bool
	keeps   bool    // a file's last write time
	content content // unless it clears
	when    Conditions
	seq     sequence
}

// writePages writes or clears pages of the blob that the Grant, for BlobWrite, is
// about. sum is the MD5 of what was written.
func (s *Service) writePages(ctx context.Context, g gate.Grant, w paged) (info Info, sum []byte, err error) {
	p, err := s.blobTarget(g, BlobWrite, FileWrite)
	if err != nil {
		return info, nil, err
	}
	var t *taken
	if !w.clear {
		w.content.max = maxPageWrite
		if t, err = s.take(ctx, p.data, w.content); err != nil {
			return info, nil, err
		}
		sum = t.md5
	}
	info, err = s.changePages(ctx, g, p, w.when, func(tx *store.Tx, next *row, ps []piece) ([]piece, error) {
		if err := w.seq.check(next.Sequence); err != nil {
			return nil, err
		}
		if w.at.to > next.Size {
			return nil, invalidPages(next.Size, p)
		}
		if !w.keeps {
			next.SMB = next.SMB.written(next.Modified)
		}
		ps = punch(ps, w.at)
		if t == nil {
			return ps, nil
		}
		q := t.piece
		q.At, q.Len = w.at.from, q.Size
		i, _ := slices.BinarySearchFunc(ps, q, func(a, b piece) int { return cmp.Compare(a.At, b.At) })
		if ps = slices.Insert(ps, i, q); len(ps) > maxStretches {
			return nil, fail(http.StatusConflict, "BlockCountExceedsLimit", "The blob is written in %d stretches side by side; it can have no more. Larger writes make fewer.", maxStretches)
		}
		return ps, t.place(tx)
	})
	s.settle(t, err)
	return info, sum, err
}

// changePages goes on with a page blob, which must be there.
func (s *Service) changePages(ctx context.Context, g gate.Grant, p place, when Conditions, fn func(tx *store.Tx, next *row, ps []piece) ([]piece, error)) (Info, error) {
	return s.change(ctx, g, p, grows, func(tx *store.Tx, _ containerRow, old *row) (*row, []piece, error) {
		if old == nil {
			return nil, nil, noBlob()
		}
		if err := p.fits(old); err != nil {
			return nil, nil, err
		}
		if err := s.allows(when, old, false); err != nil {
			return nil, nil, err
		}
		if !old.sparse() {
			return nil, nil, wrongType(old.Type)
		}
		ps, err := pieces(tx, old)
		if err != nil {
			return nil, nil, err
		}
		next := *old
		next.Gen, next.ETag, next.Modified = arm.NewHex(), newETag(), s.Now().UTC()
		next.Lease = old.Lease.kept(next.Modified)
		ps, err = fn(tx, &next, ps)
		return &next, ps, err
	})
}

// The ways to set a sequence number.
const (
	sequenceMax    = "max" // the higher one
	sequenceUpdate = "update"
	sequenceNext   = "increment"
)

// resized is what Set Blob Properties changes of a page blob alone.
type resized struct {
	size   *int64
	action string // "" leaves the sequence number
	number int64
	head   *Headers // nil leaves them
	smb    func(smb) (smb, error)
	when   Conditions
}

// resize changes the size and the sequence number of the page blob that the
// Grant, for BlobWrite, is about. What lies behind its new end is gone.
func (s *Service) resize(ctx context.Context, g gate.Grant, z resized) (Info, error) {
	p, err := s.blobTarget(g, BlobWrite, FileWrite)
	if err != nil {
		return Info{}, err
	}
	return s.changePages(ctx, g, p, z.when, func(_ *store.Tx, next *row, ps []piece) ([]piece, error) {
		switch z.action {
		case sequenceMax:
			next.Sequence = max(next.Sequence, z.number)
		case sequenceUpdate:
			next.Sequence = z.number
		case sequenceNext:
			if next.Sequence == math.MaxInt64 {
				return nil, fail(http.StatusConflict, "SequenceNumberIncrementTooLarge", "The sequence number can't be incremented: it is the highest.")
			}
			next.Sequence++
		}
		if z.head != nil {
			next.Head = *z.head
		}
		if z.smb != nil {
			var err error
			if next.SMB, err = next.SMB.changed(z.smb, next.Modified); err != nil {
				return nil, err
			}
		}
		if z.size == nil {
			return ps, nil
		}
		if next.Size = *z.size; z.smb == nil {
			next.SMB = next.SMB.written(next.Modified)
		}
		return punch(ps, stretch{*z.size, math.MaxInt64}), nil
	})
}

// pageRange is a stretch of pages that was written or, if cleared, was and is no more.
type pageRange struct {
	stretch
	cleared bool
}

// pages are where the page blob that the Grant, for BlobRead, is about has bytes in
// the stretch, or, if since is not "", what is other there than in that snapshot.
func (s *Service) pages(ctx context.Context, g gate.Grant, m moment, when Conditions, since string, in stretch) (out []pageRange, info Info, err error) {
	p, err := s.blobTarget(g, BlobRead, FileRead)
	if err != nil {
		return nil, info, err
	}
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		c, b, err := s.look(tx, p, m, when, true)
		if err != nil {
			return err
		}
		if !b.sparse() {
			return wrongType(b.Type)
		}
		info = b.info(p.blob)
		if in.from >= b.Size && b.Size > 0 {
			return outOfRange(b.Size)
		}
		now, err := pieces(tx, b)
		if err != nil {
			return err
		}
		var was []piece
		if since != "" {
			old, err := findAt(tx, c, p.blob, moment{snapshot: since})
			switch {
			case err != nil:
				return err
			case old == nil:
				return fail(http.StatusNotFound, "PreviousSnapshotNotFound", "The previous snapshot is not found.")
			case m.snapshot != "" && since > m.snapshot:
				return fail(http.StatusBadRequest, "PreviousSnapshotCannotBeNewer", "The prevsnapshot query parameter value cannot be newer than snapshot query parameter value.")
			case old.Base != b.Base:
				return fail(http.StatusConflict, "BlobOverwritten", "The blob has been recreated since the previous snapshot was taken.")
			}
			if was, err = pieces(tx, old); err != nil {
				return err
			}
		}
		out = differ(now, was, stretch{in.from, min(in.to, max(b.Size, in.from))})
		return nil
	})
	return out, info, err
}

// differ says where now has other bytes than was, within in. Bytes of two writes
// are other bytes, even if they are the same.
func differ(now, was []piece, in stretch) (out []pageRange) {
	cuts := []int64{in.from, in.to}
	for _, p := range append(slices.Clip(now), was...) {
		for _, x := range []int64{p.At, p.At + p.Len} {
			if in.from < x && x < in.to {
				cuts = append(cuts, x)
			}
		}
	}
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	for i := range len(cuts) - 1 {
		var a, b *piece
		a, now = under(now, cuts[i])
		b, was = under(was, cuts[i])
		if a == nil && b == nil || a != nil && b != nil && a.ID == b.ID && a.From-a.At == b.From-b.At {
			continue
		}
		r := pageRange{stretch{cuts[i], cuts[i+1]}, a == nil}
		if n := len(out); n > 0 && out[n-1].to == r.from && out[n-1].cleared == r.cleared {
			out[n-1].to = r.to
			continue
		}
		out = append(out, r)
	}
	return out
}

// under is the piece that has the byte at, or nil, and what of ps does not end before it.
func under(ps []piece, at int64) (*piece, []piece) {
	for len(ps) > 0 && ps[0].At+ps[0].Len <= at {
		ps = ps[1:]
	}
	if len(ps) > 0 && ps[0].At <= at {
		return &ps[0], ps
	}
	return nil, ps
}
