package blob

import (
	"context"
	"crypto/md5"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc64"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"castellan/internal/arm"
	"castellan/internal/store"
)

// smallSize is up to how many bytes a piece lies in the store: one commit
// instead of a file, its fsync and that of its folder.
const smallSize = 32 << 10

// Limits of one request, as Azure's.
const (
	maxPut    = 5000 << 20 // bytes of a blob that is put at once
	maxBlock  = 4000 << 20
	maxAppend = 100 << 20
)

// content is what a client sends as bytes.
type content struct {
	body io.Reader
	size int64 // -1 if it isn't known
	max  int64
	md5  []byte  // what it must be, or nil
	crc  *uint64 // what it must be, or nil
}

// taken is content that is safe on disk, but that no row names yet.
type taken struct {
	piece  piece
	sealed []byte // of a small piece
	md5    []byte
}

// crcTable is of the CRC64 that Azure uses (NVMe's), in Go's bit order.
var crcTable = sync.OnceValue(func() *crc64.Table { return crc64.MakeTable(0x9A6C9329AC4BC9B5) })

// sums are taken of the content while it goes by.
type sums struct {
	md5 hash.Hash
	crc hash.Hash64 // nil if nobody asked
}

func newSums(c content) *sums {
	s := &sums{md5: md5.New()}
	if c.crc != nil {
		s.crc = crc64.New(crcTable())
	}
	return s
}

func (s *sums) add(p []byte) {
	_, _ = s.md5.Write(p) // hashes never fail
	if s.crc != nil {
		_, _ = s.crc.Write(p)
	}
}

func (s *sums) check(c content) error {
	if sum := s.md5.Sum(nil); c.md5 != nil && string(c.md5) != string(sum) {
		return fail(http.StatusBadRequest, "Md5Mismatch", "The MD5 value specified in the request did not match with the MD5 value calculated by the server.")
	}
	if c.crc != nil && *c.crc != s.crc.Sum64() {
		return fail(http.StatusBadRequest, "Crc64Mismatch", "The CRC64 value specified in the request did not match with the CRC64 value calculated by the server.")
	}
	return nil
}

func crcOf(b []byte) (uint64, bool) {
	if len(b) != 8 {
		return 0, false
	}
	return binary.LittleEndian.Uint64(b), true
}

func crcBytes(sum uint64) []byte { return binary.LittleEndian.AppendUint64(nil, sum) }

// An upload is worked on in units: small ones as long as it comes slowly, so that
// thousands who send drop by drop take little room, and large ones for as many as
// there are of those.
const (
	smallUnit  = smallSize + 1
	largeUnit  = 256 << 10
	largeUnits = 128
	slowUnit   = time.Second // a small unit that takes longer comes slowly
)

var (
	smalls = sync.Pool{New: func() any { return new([smallUnit]byte) }}
	larges = sync.Pool{New: func() any { return new([largeUnit]byte) }}
	taking = make(chan struct{}, largeUnits) // who has a large unit
)

// take reads content and keeps it, encrypted and durable. On an error nothing
// of it stays.
func (s *Service) take(ctx context.Context, key dataKey, c content) (*taken, error) {
	if c.size > c.max {
		return nil, fail(http.StatusRequestEntityTooLarge, "RequestBodyTooLarge", "The request body has %d bytes; at most %d are allowed.", c.size, c.max)
	}
	buf, begun := smalls.Get().(*[smallUnit]byte), time.Now()
	n, err := fillUp(c.body, buf[:])
	defer func(n int) { clear(buf[:n]); smalls.Put(buf) }(n)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, cut(err)
	}
	if errors.Is(err, io.EOF) && n <= smallSize {
		return s.takeSmall(key, c, buf[:n])
	}
	return s.takeFile(ctx, key, c, buf[:], begun)
}

// fillUp reads until p is full. The error is io.EOF at the end, and nil if there
// may be more.
func fillUp(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		k, err = r.Read(p[n:])
		n += k
	}
	if n == len(p) && errors.Is(err, io.EOF) {
		err = nil // the next read says so again
	}
	return n, err
}

func cut(err error) error {
	return &arm.Error{Code: "InvalidInput", Status: http.StatusBadRequest, Message: "The request body could not be read to its end.", Err: err}
}

// complete says whether n bytes are what was announced.
func (c content) complete(n int64) error {
	switch {
	case n > c.max:
		return fail(http.StatusRequestEntityTooLarge, "RequestBodyTooLarge", "The request body has more than %d bytes.", c.max)
	case c.size >= 0 && n != c.size:
		return cut(fmt.Errorf("it has %d bytes of %d", n, c.size))
	}
	return nil
}

func (s *Service) takeSmall(key dataKey, c content, p []byte) (*taken, error) {
	if err := c.complete(int64(len(p))); err != nil {
		return nil, err
	}
	h := newSums(c)
	h.add(p)
	if err := h.check(c); err != nil {
		return nil, err
	}
	id := arm.NewHex()
	return &taken{piece: piece{ID: id, Size: int64(len(p)), Small: true}, sealed: key.Seal(p, smallContext(id)), md5: h.md5.Sum(nil)}, nil
}

func smallContext(id string) string { return "blob bytes " + id }

// takeFile takes what begins with the bytes in buf, the first of which came at begun.
func (s *Service) takeFile(ctx context.Context, key dataKey, c content, buf []byte, begun time.Time) (t *taken, err error) {
	id := arm.NewHex()
	f, err := s.files.create(id)
	if err != nil {
		return nil, onDisk(fmt.Errorf("making a file: %w", err))
	}
	defer func() {
		if err != nil {
			_ = f.Close() // perhaps again
			s.discard(id)
			err = onDisk(err)
		}
	}()
	size, h, err := pour(ctx, f, key, id, c, buf, begun)
	if err != nil {
		return nil, err
	}
	if err := c.complete(size); err != nil {
		return nil, err
	}
	if err := h.check(c); err != nil {
		return nil, err
	}
	if err := s.files.durable(f, id); err != nil {
		return nil, fmt.Errorf("keeping a file: %w", err)
	}
	return &taken{piece: piece{ID: id, Size: size}, md5: h.md5.Sum(nil)}, nil
}

// pour writes the bytes in buf and all that follow them to f. While a part is hashed
// it is also sealed and written.
func pour(ctx context.Context, f *os.File, key dataKey, id string, c content, buf []byte, begun time.Time) (size int64, h *sums, err error) {
	w, err := newSealer(f, key, id)
	if err != nil {
		return 0, nil, err
	}
	defer w.free()
	h = newSums(c)
	n, large := len(buf), false
	var end error
	for {
		size += int64(n)
		if size > c.max {
			return size, h, c.complete(size)
		}
		hashed := make(chan struct{})
		go func() { h.add(buf[:n]); close(hashed) }()
		_, err := w.Write(buf[:n])
		<-hashed
		if err != nil {
			return size, h, fmt.Errorf("writing a file: %w", err)
		}
		if end != nil {
			return size, h, w.finish()
		}
		if err := ctx.Err(); err != nil {
			return size, h, err
		}
		if !large && time.Since(begun) < slowUnit {
			select {
			case taking <- struct{}{}:
				large = true
				unit := larges.Get().(*[largeUnit]byte)
				buf = unit[:]
				defer func() { clear(unit[:]); larges.Put(unit); <-taking }()
			default:
			}
		}
		begun = time.Now()
		n, end = fillUp(c.body, buf)
		if end != nil && !errors.Is(end, io.EOF) {
			return size, h, cut(end)
		}
	}
}

// discard removes what was taken and will not be named.
func (s *Service) discard(id string) {
	s.files.unlink([]string{id})
	s.files.settled(id)
}

// pieces is the one piece, or none if there are no bytes.
func (t *taken) pieces() []piece {
	if t.piece.Size == 0 {
		return nil
	}
	return []piece{t.piece}
}

// place keeps what was taken as part of tx.
func (t *taken) place(tx *store.Tx) error {
	if t.piece.Size == 0 {
		return nil
	}
	if t.piece.Small {
		return tx.Put(byteTable, t.piece.ID, t.sealed)
	}
	return tx.Put(fileTable, t.piece.ID, nil)
}

// settle ends the taking once the transaction that names it ended with err. If
// it is not sure what became of the transaction, the file is left to the sweep.
func (s *Service) settle(t *taken, err error) {
	if t == nil || t.piece.Small {
		return
	}
	var refused *arm.Error
	if errors.As(err, &refused) {
		s.discard(t.piece.ID)
		return
	}
	s.files.settled(t.piece.ID)
}
