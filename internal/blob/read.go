package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/seal"
	"castellan/internal/store"
)

// Stat shows the blob that the Grant, for BlobRead, is about.
func (s *Service) Stat(ctx context.Context, g gate.Grant) (Info, error) {
	return s.stat(ctx, g, moment{}, Conditions{})
}

func (s *Service) stat(ctx context.Context, g gate.Grant, m moment, when Conditions) (info Info, err error) {
	p, err := s.blobTarget(g, BlobRead, FileRead)
	if err != nil {
		return info, err
	}
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		_, b, err := s.look(tx, p, m, when, true)
		if err == nil {
			info = b.info(p.blob)
		}
		return err
	})
	return info, err
}

// look is the blob at a moment, which must be there, for who reads or changes it
// under conditions.
func (s *Service) look(tx *store.Tx, p place, m moment, when Conditions, reads bool) (containerRow, *row, error) {
	c, err := findContainer(tx, p)
	if err != nil {
		return c, nil, err
	}
	b, err := findAt(tx, c, p.blob, m)
	if err != nil {
		return c, nil, err
	}
	if b == nil {
		return c, nil, noBlob()
	}
	if err := p.fits(b); err != nil {
		return c, nil, err
	}
	return c, b, s.allows(when, b, reads)
}

// alter is look for who changes what the Grant, for a, is about: access lists that let
// them in are asked of what is there now.
func (s *Service) alter(tx *store.Tx, g gate.Grant, p place, m moment, when Conditions, a arm.Action) (containerRow, *row, error) {
	c, b, err := s.look(tx, p, m, when, false)
	if err == nil {
		err = s.lists(tx, c, g, p.blob, a)
	}
	return c, b, err
}

// put keeps b, which look found, where it was.
func put(tx *store.Tx, p place, c containerRow, m moment, b *row) error {
	if b.Past != "" {
		return store.PutJSON(tx, pastTable, pastPrefix(c, p.blob)+m.stamp(), b)
	}
	return store.PutJSON(tx, blobTable, blobKey(c, p.blob), b)
}

// Read reads count bytes from offset on of the blob that the Grant, for BlobRead,
// is about; a count below 0 is all the rest. The reader shows the blob as it is
// now, also if it is changed meanwhile; what was altered on disk it does not
// show, but fails. It must be closed.
func (s *Service) Read(ctx context.Context, g gate.Grant, offset, count int64) (io.ReadCloser, Info, error) {
	return s.read(ctx, g, moment{}, Conditions{}, func(size int64) (int64, int64, error) {
		switch {
		case offset < 0 || offset > size:
			return 0, 0, outOfRange(size)
		case count < 0 || count > size-offset:
			return offset, size, nil
		}
		return offset, offset + count, nil
	})
}

func outOfRange(size int64) error {
	return fail(http.StatusRequestedRangeNotSatisfiable, "InvalidRange", "The range specified is invalid for the current size of the resource, which is %d bytes.", size)
}

// attempts is how often a reader looks again because the blob was replaced
// between its look and its opening of the files.
const attempts = 10

// read is Read of those bytes that span chooses once the size is known.
func (s *Service) read(ctx context.Context, g gate.Grant, m moment, when Conditions, span func(size int64) (from, to int64, err error)) (io.ReadCloser, Info, error) {
	p, err := s.blobTarget(g, BlobRead, FileRead)
	if err != nil {
		return nil, Info{}, err
	}
	for range attempts {
		var r *reader
		var b *row
		err = s.DB.View(ctx, func(tx *store.Tx) (err error) {
			if _, b, err = s.look(tx, p, m, when, true); err != nil {
				return err
			}
			if err := b.online(); err != nil {
				return err
			}
			from, to, err := span(b.Size)
			if err != nil {
				return err
			}
			r, err = s.reader(ctx, tx, p, b, from, to)
			return err
		})
		if err == nil {
			if err = r.start(); err == nil {
				return r, b.info(p.blob), nil
			}
			_ = r.Close() // nothing was read yet
		}
		if !errors.Is(err, errGone) {
			return nil, Info{}, err
		}
	}
	return nil, Info{}, fail(http.StatusServiceUnavailable, "ServerBusy", "The blob is being replaced again and again; try again.")
}

// errGone means that the bytes of a piece were removed, with the blob they
// belonged to.
var errGone = errors.New("blob: the bytes of a piece are gone")

// part is the bytes from to to of one piece, or as many zeros if that has no id.
type part struct {
	piece
	from, to int64
	bytes    []byte // of a small piece, if they were read already
}

// reader reads parts one after the other.
type reader struct {
	ctx     context.Context
	s       *Service
	key     dataKey
	still   func() error // whether key may still be used
	parts   []part
	cur     io.Reader
	file    io.Closer // of cur, or nil
	release func()
}

// eager is how many bytes of small pieces are read at once with the blob's row.
const eager = 512 << 10

func (s *Service) reader(ctx context.Context, tx *store.Tx, in place, b *row, from, to int64) (*reader, error) {
	ps, err := pieces(tx, b)
	if err != nil {
		return nil, err
	}
	r := &reader{ctx: ctx, s: s, key: in.data, still: func() error { return s.still(in.account) }}
	var small int64
	if b.sparse() {
		r.parts = sparse(ps, from, to)
	} else {
		r.parts = dense(ps, from, to)
	}
	// The last small piece is read now: an append replaces it by a larger one.
	for i := range r.parts {
		q := &r.parts[i]
		if q.ID == "" || !q.Small || small > eager && i < len(r.parts)-1 {
			continue
		}
		small += q.Size
		if q.bytes, err = smallBytes(tx, r.key, q.piece); err != nil {
			return nil, err
		}
	}
	var ids []string
	for _, q := range r.parts {
		if q.ID != "" && !q.Small {
			ids = append(ids, q.ID)
		}
	}
	ok := false
	if r.release, ok = s.files.hold(ids); !ok {
		return nil, errGone
	}
	return r, nil
}

// dense are the parts of pieces that follow each other.
func dense(ps []piece, from, to int64) (out []part) {
	var at int64
	for _, p := range ps {
		lo, hi := max(from-at, 0), min(to-at, p.Size)
		if at += p.Size; lo < hi {
			out = append(out, part{piece: p, from: lo, to: hi})
		}
	}
	return out
}

// sparse are the parts of pieces that lie where they say, with zeros between them.
func sparse(ps []piece, from, to int64) (out []part) {
	for _, p := range ps {
		lo, hi := max(from, p.At), min(to, p.At+p.Len)
		if lo >= hi {
			continue
		}
		if from < lo {
			out = append(out, part{to: lo - from})
		}
		out = append(out, part{piece: p, from: lo - p.At + p.From, to: hi - p.At + p.From})
		from = hi
	}
	if from < to {
		out = append(out, part{to: to - from})
	}
	return out
}

// zeros are bytes that a page blob never had written.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func smallBytes(tx *store.Tx, key dataKey, p piece) ([]byte, error) {
	sealed, err := tx.Get(byteTable, p.ID)
	if err != nil {
		return nil, err
	}
	if sealed == nil {
		return nil, errGone
	}
	plain, err := key.Open(sealed, smallContext(p.ID))
	if err == nil && int64(len(plain)) != p.Size {
		err = fmt.Errorf("%w: piece %s has %d bytes of %d", errAltered, p.ID, len(plain), p.Size)
	}
	return plain, err
}

// start makes sure that the files are still there, now that they are held: the
// row may have been read before they were removed.
func (r *reader) start() error {
	for _, q := range r.parts {
		if q.ID == "" || q.Small {
			continue
		}
		if _, err := os.Lstat(r.s.files.path(q.ID)); errors.Is(err, fs.ErrNotExist) {
			return r.vanished(q.ID)
		}
	}
	return nil
}

// vanished tells a file that was removed with its blob from one that is lost.
func (r *reader) vanished(id string) error {
	err := errGone
	look := r.s.DB.View(r.ctx, func(tx *store.Tx) error {
		b, e := tx.Get(fileTable, id)
		if e == nil && b != nil {
			err = fmt.Errorf("%w: the file %s is missing", errAltered, id)
		}
		return e
	})
	if look != nil {
		return look
	}
	return err
}

func (r *reader) Read(p []byte) (int, error) {
	for {
		if r.cur == nil {
			if err := r.next(); err != nil {
				return 0, err
			}
		}
		n, err := r.cur.Read(p)
		if n > 0 || !errors.Is(err, io.EOF) {
			return n, err
		}
		r.done()
	}
}

// WriteTo spares a copy.
func (r *reader) WriteTo(w io.Writer) (total int64, err error) {
	for {
		if r.cur == nil {
			if err := r.next(); errors.Is(err, io.EOF) {
				return total, nil
			} else if err != nil {
				return total, err
			}
		}
		n, err := io.Copy(w, r.cur)
		total += n
		if err != nil {
			return total, err
		}
		r.done()
	}
}

// next opens the next part.
func (r *reader) next() error {
	if len(r.parts) == 0 {
		return io.EOF
	}
	q := r.parts[0]
	r.parts = r.parts[1:]
	switch {
	case q.ID == "":
		r.cur = io.LimitReader(zeros{}, q.to-q.from)
		return nil
	case q.Small:
		return r.nextSmall(q)
	}
	f, err := os.Open(r.s.files.path(q.ID))
	if err != nil {
		return fmt.Errorf("reading a blob: %w", err)
	}
	o, err := newOpener(f, r.key, q.piece, q.from, q.to, r.still)
	if err != nil {
		_ = f.Close() // nothing was written
		return err
	}
	r.cur, r.file = o, o
	return nil
}

func (r *reader) nextSmall(q part) error {
	if err := r.still(); err != nil {
		return err
	}
	if q.bytes == nil {
		if err := r.s.DB.View(r.ctx, func(tx *store.Tx) (err error) {
			q.bytes, err = smallBytes(tx, r.key, q.piece)
			return err
		}); err != nil {
			return err
		}
	}
	r.cur = &slice{q.bytes[q.from:q.to]}
	return nil
}

// slice reads bytes that are there already.
type slice struct{ b []byte }

func (s *slice) Read(p []byte) (int, error) {
	if len(s.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.b)
	s.b = s.b[n:]
	return n, nil
}

func (r *reader) done() {
	if r.file != nil {
		_ = r.file.Close() // it was only read
	}
	r.cur, r.file = nil, nil
}

// Close ends the reading; the blob's files may go then.
func (r *reader) Close() error {
	r.done()
	r.release()
	return nil
}

// serious reports whether an operator must hear of err.
func serious(err error) bool {
	return errors.Is(err, errAltered) || errors.Is(err, seal.ErrSealed) || arm.CodeOf(err) == arm.Internal
}
