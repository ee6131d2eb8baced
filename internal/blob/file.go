package blob

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// A file is the bytes of one piece in chunks, each sealed with AES-256-GCM
// under a key derived from the account's for this one file. The nonce is the
// chunk's number and whether it is the last: the STREAM construction of Hoang,
// Reyhanitabar, Rogaway and Vizár (2015). A chunk that was altered, moved within
// its file or into another does not open, and a file that was cut has no last
// chunk. A key seals each chunk once, for a file is written once and never again.
const (
	chunkSize = 64 << 10 // bytes of content in a chunk; the last may have fewer
	tagSize   = 16
	sealedMax = chunkSize + tagSize
)

// fileFormat is bound into every chunk.
var fileFormat = []byte("castellan blob file 1")

// errAltered means that bytes on disk are not those that were written.
var errAltered = errors.New("blob: a file was altered on disk")

func fileCipher(account dataKey, id string) (cipher.AEAD, error) {
	block, err := aes.NewCipher(account.Derive("blob file " + id).Bytes())
	if err != nil {
		return nil, err
	}
	a, err := cipher.NewGCM(block)
	if err != nil || account.outer.IsZero() {
		return a, err
	}
	return twice{a, account.outer.Derive("blob file " + id).Bytes()}, nil
}

func nonce(n *[12]byte, index int64, last bool) []byte {
	binary.BigEndian.PutUint64(n[:8], uint64(index))
	n[11] = 0
	if last {
		n[11] = 1
	}
	return n[:]
}

// buffers hold one sealed chunk each.
var buffers = sync.Pool{New: func() any { return new([sealedMax]byte) }}

// sealer writes a file. A chunk is sealed once it is known whether it is the last.
type sealer struct {
	f     *os.File
	aead  cipher.AEAD
	buf   *[sealedMax]byte
	n     int
	index int64
	nonce [12]byte
}

func newSealer(f *os.File, account dataKey, id string) (*sealer, error) {
	a, err := fileCipher(account, id)
	if err != nil {
		return nil, err
	}
	return &sealer{f: f, aead: a, buf: buffers.Get().(*[sealedMax]byte)}, nil
}

func (w *sealer) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		if w.n == chunkSize {
			if err := w.flush(false); err != nil {
				return total - len(p), err
			}
		}
		k := copy(w.buf[w.n:chunkSize], p)
		w.n += k
		p = p[k:]
	}
	return total, nil
}

func (w *sealer) flush(last bool) error {
	out := w.aead.Seal(w.buf[:0], nonce(&w.nonce, w.index, last), w.buf[:w.n], fileFormat)
	w.index, w.n = w.index+1, 0
	_, err := w.f.Write(out)
	return err
}

// finish writes the last chunk.
func (w *sealer) finish() error { return w.flush(true) }

// free gives the buffer back, without the content in it.
func (w *sealer) free() {
	clear(w.buf[:])
	buffers.Put(w.buf)
}

// opener reads bytes off to end of a file whose content has size bytes.
type opener struct {
	f        *os.File
	aead     cipher.AEAD
	size     int64
	off, end int64
	still    func() error // whether the key may still be used; asked for each chunk
	buf      *[sealedMax]byte
	rest     []byte // of the chunk in buf, what was not read yet
	nonce    [12]byte
}

func newOpener(f *os.File, account dataKey, p piece, off, end int64, still func() error) (*opener, error) {
	a, err := fileCipher(account, p.ID)
	if err != nil {
		return nil, err
	}
	return &opener{f: f, aead: a, size: p.Size, off: off, end: end, still: still, buf: buffers.Get().(*[sealedMax]byte)}, nil
}

func (r *opener) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		if r.off >= r.end {
			return 0, io.EOF
		}
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// WriteTo spares a copy.
func (r *opener) WriteTo(w io.Writer) (total int64, err error) {
	for {
		if len(r.rest) == 0 {
			if r.off >= r.end {
				return total, nil
			}
			if err := r.next(); err != nil {
				return total, err
			}
		}
		n, err := w.Write(r.rest)
		total += int64(n)
		r.rest = r.rest[n:]
		if err != nil {
			return total, err
		}
	}
}

// next opens the chunk that has the byte off.
func (r *opener) next() error {
	if err := r.still(); err != nil {
		return err
	}
	index := r.off / chunkSize
	from := index * chunkSize
	length := min(chunkSize, r.size-from)
	last := from+length == r.size
	sealed := r.buf[:length+tagSize]
	if _, err := r.f.ReadAt(sealed, index*sealedMax); err != nil {
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%w: it is too short", errAltered)
		}
		return err
	}
	plain, err := r.aead.Open(sealed[:0], nonce(&r.nonce, index, last), sealed, fileFormat)
	if err != nil {
		return fmt.Errorf("%w: chunk %d of %s does not open", errAltered, index, r.f.Name())
	}
	to := min(length, r.end-from)
	r.rest = plain[r.off-from : to]
	r.off = from + to
	return nil
}

func (r *opener) Close() error {
	if r.buf != nil {
		clear(r.buf[:])
		buffers.Put(r.buf)
		r.buf = nil
	}
	return r.f.Close()
}
