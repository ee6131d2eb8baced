package blob

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"

	"castellan/internal/gate"
	"castellan/internal/store"
)

// Bytes that are appended by the Data Lake endpoint wait, as blocks do, under the
// position at which they are to be, until they are flushed.

// positionID is the id of what waits for a position. No block has such a one.
func positionID(at int64) string { return fmt.Sprintf("@%020d", at) }

// positionOf is the position that an id is of.
func positionOf(id string) (int64, bool) {
	text, ok := strings.CutPrefix(id, "@")
	if !ok {
		return 0, false
	}
	return digits(text)
}

func base64Of(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// leaseActs are what an append or a flush may do with the file's lease.
type leaseActs struct {
	before, after *wish
	renews        bool
}

// leaseActs reads them.
func (x exchange) leaseActs(flushes bool) (a leaseActs, err error) {
	v := strings.ToLower(x.r.Header.Get("x-ms-lease-action"))
	act := func(action string) *wish {
		w, e := x.wishFor(action)
		if err == nil {
			err = e
		}
		return &w
	}
	switch v {
	case "":
	case "acquire":
		a.before = act("acquire")
	case "auto-renew":
		a.before, a.renews = act("renew"), true
	case "release":
		a.after = act("release")
	case "acquire-release":
		a.before = act("acquire")
		a.after = &wish{action: "release"}
	default:
		return a, badHeader("x-ms-lease-action", v, "acquire, auto-renew, release or acquire-release")
	}
	if a.after != nil && !flushes {
		return a, badHeader("x-ms-lease-action", v, "acquire or auto-renew where nothing is flushed")
	}
	return a, err
}

// wishFor is the wish of a request whose lease action is said elsewhere.
func (x exchange) wishFor(action string) (wish, error) {
	r := x.r.Clone(x.r.Context())
	r.Header.Set("x-ms-lease-action", action)
	return exchange{w: x.w, r: r, g: x.g, q: x.q, s: x.s}.wish()
}

// begin does what comes before the bytes, and gives the lease that the file has then.
func (a leaseActs) begin(l *lease, when *Conditions, s *Service) (*lease, error) {
	if a.before == nil {
		return l, nil
	}
	l, err := l.after(*a.before, s.Now())
	if err == nil {
		when.Lease = l.ID
	}
	return l, err
}

func (a leaseActs) end(l *lease, s *Service) (*lease, error) {
	if a.after == nil {
		return l, nil
	}
	w := *a.after
	if w.id == "" && l != nil {
		w.id = l.ID
	}
	return l.after(w, s.Now())
}

// position reads the parameter.
func (x exchange) position() (int64, error) {
	v, ok := x.q["position"]
	if !ok {
		return 0, fail(http.StatusBadRequest, "MissingRequiredQueryParameter", "The query parameter position is missing; it must be a number of bytes.")
	}
	n, ok := digits(v)
	if !ok {
		return 0, badQuery("position", v, "a number of bytes")
	}
	return n, nil
}

// appending is what a request adds to a file, and how it is flushed.
type appending struct {
	at      int64 // where the bytes are to be, or the size that the file has once flushed
	flushes bool
	retains bool // keeps what waits behind that
	when    Conditions
	acts    leaseActs
	head    func(Headers) (Headers, error)
}

// appendPath is Path Update with the action append.
func (s *Service) appendPath(x exchange) error {
	var a appending
	var err error
	if a.flushes, err = x.flag("flush", false); err != nil {
		return err
	}
	if a.at, err = x.position(); err != nil {
		return err
	}
	if _, err := x.flag("close", false); err != nil {
		return err
	}
	c, err := x.content()
	if err != nil {
		return err
	}
	if a.when, err = conditions(x.r.Header, ""); err != nil {
		return err
	}
	if a.acts, err = x.leaseActs(a.flushes); err != nil {
		return err
	}
	a.head = func(h Headers) (Headers, error) { return h, nil }
	info, t, err := s.addAt(x.r.Context(), x.g, c, a)
	if err != nil {
		x.patient().end()
		return err
	}
	h := x.w.Header()
	h.Set("Content-MD5", base64Of(t.md5))
	if c.crc != nil {
		h.Set("x-ms-content-crc64", x.r.Header.Get("x-ms-content-crc64"))
	}
	x.leaseAnswer(a.acts, info)
	if !a.flushes {
		info.ETag = ""
	}
	return x.appended(http.StatusAccepted, info)
}

// leaseAnswer tells what became of the lease.
func (x exchange) leaseAnswer(a leaseActs, info Info) {
	if a.renews {
		x.w.Header().Set("x-ms-lease-renewed", "true")
	}
	if a.before != nil && info.lease != nil {
		x.w.Header().Set("x-ms-lease-id", info.lease.ID)
	}
}

func (x exchange) appended(status int, info Info) error {
	x.patient().end()
	h := x.w.Header()
	if info.ETag != "" {
		h.Set("ETag", info.ETag)
		h.Set("Last-Modified", httpTime(info.Modified))
	}
	h.Set("x-ms-request-server-encrypted", "true")
	h.Set("Content-Length", "0")
	x.w.WriteHeader(status)
	return nil
}

// addAt keeps bytes that wait for a position of the file that the Grant, for
// BlobWrite, is about; the file must be there. With flushes they are part of it then.
func (s *Service) addAt(ctx context.Context, g gate.Grant, c content, a appending) (info Info, t *taken, err error) {
	p, err := s.pathTarget(g, false, BlobWrite)
	if err != nil {
		return info, nil, err
	}
	if a.acts.before == nil { // else the lease is only taken with the bytes
		if err := s.DB.View(ctx, func(tx *store.Tx) error {
			_, _, err := s.fileAt(tx, g, p, a, a.when)
			return err
		}); err != nil {
			return info, nil, err
		}
	}
	c.max = maxBlock
	if t, err = s.take(ctx, p.data, c); err != nil {
		return info, nil, err
	}
	if t.piece.Size == 0 {
		return info, nil, badHeader("Content-Length", "0", "above 0: there is nothing to append")
	}
	t.piece.Block = positionID(a.at)
	var gone []piece
	if err = s.still(p.account); err == nil { // the upload may have taken its time
		err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
			var err error
			info, gone, err = s.placeAt(tx, g, p, t, a)
			return err
		})
	}
	s.settle(t, err)
	if err == nil {
		s.files.remove(fileIDs(gone))
	}
	return info, t, err
}

// fileAt is the file that bytes are added to, if they may be.
func (s *Service) fileAt(tx *store.Tx, g gate.Grant, p place, a appending, when Conditions) (containerRow, *row, error) {
	c, b, err := s.here(tx, p, when)
	if err != nil {
		return c, nil, err
	}
	if err := s.lists(tx, c, g, p.blob, BlobWrite); err != nil {
		return c, nil, err
	}
	switch {
	case b.Dir:
		return c, nil, pathConflict(p.blob)
	case b.Type != blockBlob:
		return c, nil, fail(http.StatusConflict, "InvalidAppendOperation", "The file is an append blob; bytes are added to it by Append Block alone.")
	case a.at < b.Size:
		return c, nil, fail(http.StatusBadRequest, "InvalidFlushPosition", "The uploaded data is not contiguous or the position query parameter value is not equal to the length of the file after appending the uploaded data: the file has %d bytes.", b.Size)
	}
	if err := b.online(); err != nil {
		return c, nil, err
	}
	return c, b, c.Guard.changes(b, keeps)
}

// placeAt adds what was taken to what waits.
func (s *Service) placeAt(tx *store.Tx, g gate.Grant, p place, t *taken, a appending) (info Info, gone []piece, err error) {
	c, b, err := s.fileAt(tx, g, p, a, a.when)
	if err != nil {
		return info, nil, err
	}
	if b.Lease, err = a.acts.begin(b.Lease, &a.when, s); err != nil {
		return info, nil, err
	}
	if err := b.Lease.admits(a.when.Lease, "Blob", true, s.Now()); err != nil {
		return info, nil, err
	}
	key := blockPrefix(c, p.blob) + t.piece.Block
	was, ok, err := store.GetJSON[waiting](tx, blockTable, key)
	if err != nil {
		return info, nil, err
	}
	if ok {
		if gone, err = release(tx, []piece{was.Piece}); err != nil {
			return info, nil, err
		}
	}
	if err := t.place(tx); err != nil {
		return info, nil, err
	}
	if err := store.PutJSON(tx, blockTable, key, waiting{t.piece, s.Now().UTC()}); err != nil {
		return info, nil, err
	}
	if a.flushes {
		a.at, a.retains = a.at+t.piece.Size, true
		more, err := s.settleAt(tx, p, c, b, a)
		return b.info(p.blob), append(gone, more...), err
	}
	info = b.info(p.blob)
	if a.acts.before == nil {
		return info, gone, nil
	}
	return info, gone, store.PutJSON(tx, blobTable, blobKey(c, p.blob), b)
}

// flushPath is Path Update with the action flush.
func (s *Service) flushPath(x exchange) error {
	a := appending{flushes: true, head: x.pathHeaders}
	var err error
	if a.at, err = x.position(); err != nil {
		return err
	}
	if a.retains, err = x.flag("retainuncommitteddata", false); err != nil {
		return err
	}
	if _, err := x.flag("close", false); err != nil {
		return err
	}
	if err := x.noBody(); err != nil {
		return err
	}
	if a.when, err = conditions(x.r.Header, ""); err != nil {
		return err
	}
	if a.acts, err = x.leaseActs(true); err != nil {
		return err
	}
	if _, err := x.pathHeaders(Headers{}); err != nil {
		return err
	}
	info, err := s.flush(x.r.Context(), x.g, a)
	if err != nil {
		return err
	}
	x.leaseAnswer(a.acts, info)
	return x.appended(http.StatusOK, info)
}

// flush makes what waits part of the file that the Grant, for BlobWrite, is about.
func (s *Service) flush(ctx context.Context, g gate.Grant, a appending) (info Info, err error) {
	p, err := s.pathTarget(g, false, BlobWrite)
	if err != nil {
		return info, err
	}
	var gone []piece
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		c, b, err := s.fileAt(tx, g, p, a, a.when)
		if err != nil {
			return err
		}
		if b.Lease, err = a.acts.begin(b.Lease, &a.when, s); err != nil {
			return err
		}
		if err := b.Lease.admits(a.when.Lease, "Blob", true, s.Now()); err != nil {
			return err
		}
		gone, err = s.settleAt(tx, p, c, b, a)
		info = b.info(p.blob)
		return err
	})
	if err == nil {
		s.files.remove(fileIDs(gone))
	}
	return info, err
}

// settleAt makes b as long as a says, of what waits without a gap, and says whose
// bytes nobody has then.
func (s *Service) settleAt(tx *store.Tx, p place, c containerRow, b *row, a appending) (gone []piece, err error) {
	ps, err := pieces(tx, b)
	if err != nil {
		return nil, err
	}
	ps = append([]piece(nil), ps...)
	ws, err := waitingBlocks(tx, c, p.blob)
	if err != nil {
		return nil, err
	}
	old, size := *b, b.Size
	for _, w := range ws {
		id := w.Piece.Block
		at, ok := positionOf(id)
		switch {
		case ok && at == size && size < a.at:
			size += w.Piece.Size
			w.Piece.Block = ""
			ps = append(ps, w.Piece)
		case ok && at >= a.at && a.retains:
			continue
		default:
			gone = append(gone, w.Piece)
		}
		if err := tx.Delete(blockTable, blockPrefix(c, p.blob)+id); err != nil {
			return nil, err
		}
	}
	if size != a.at {
		return nil, fail(http.StatusBadRequest, "InvalidFlushPosition", "The uploaded data is not contiguous or the position query parameter value is not equal to the length of the file after appending the uploaded data: %d bytes are there without a gap.", size)
	}
	if len(ps) > maxBlocks {
		return nil, fail(http.StatusConflict, "BlockCountExceedsLimit", "The file would be of %d parts; at most %d are allowed. Append more bytes at once.", len(ps), maxBlocks)
	}
	next := *s.renew(&old, old)
	next.Size, next.Lease = size, old.Lease
	if size != old.Size {
		next.Head.MD5 = nil
	}
	if next.Head, err = a.head(next.Head); err != nil {
		return nil, err
	}
	if next.Lease, err = a.acts.end(next.Lease, s); err != nil {
		return nil, err
	}
	*b = next
	if gone, err = release(tx, gone); err != nil {
		return nil, err
	}
	more, err := s.replace(tx, p, c, &old, b, ps, keeps)
	return append(gone, more...), err
}
