package blob

import (
	"bytes"
	"castellan/internal/arm"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// setMeta writes metadata as headers, whose names stay in lower case.
func setMeta(h http.Header, m map[string]string) {
	for k, v := range m {
		h[metaPrefix+k] = []string{v}
	}
}

// patient gives every step of an upload or download some time, but not for ever.
type patient struct {
	x exchange
	c *http.ResponseController
}

func (x exchange) patient() patient { return patient{x, http.NewResponseController(x.w)} }

// deadline is by the wall clock, as connections have it. What can't have one
// (a recorder in a test) goes without.
func (p patient) deadline() time.Time { return time.Now().Add(p.x.s.Patience) }

func (p patient) Read(b []byte) (int, error) {
	_ = p.c.SetReadDeadline(p.deadline())
	return p.x.r.Body.Read(b)
}

func (p patient) Write(b []byte) (int, error) {
	_ = p.c.SetWriteDeadline(p.deadline())
	return p.x.w.Write(b)
}

// end takes the deadlines back.
func (p patient) end() {
	_ = p.c.SetReadDeadline(time.Time{})
	_ = p.c.SetWriteDeadline(time.Time{})
}

// content is the bytes that the request brings, with what they must add up to.
func (x exchange) content() (c content, err error) {
	if x.r.ContentLength < 0 {
		return c, fail(http.StatusLengthRequired, "MissingContentLengthHeader", "The request must say how long its body is, in Content-Length.")
	}
	c = content{body: x.patient(), size: x.r.ContentLength}
	if c.md5, err = md5Of(x.r, "Content-MD5"); err != nil {
		return c, err
	}
	c.crc, err = crc64Of(x.r, "x-ms-content-crc64")
	return c, err
}

func crc64Of(r *http.Request, name string) (*uint64, error) {
	v := r.Header.Get(name)
	if v == "" {
		return nil, nil
	}
	b, err := base64.StdEncoding.DecodeString(v)
	sum, ok := crcOf(b)
	if err != nil || !ok {
		return nil, badHeader(name, v, "8 bytes in base64")
	}
	return &sum, nil
}

func md5Of(r *http.Request, name string) ([]byte, error) {
	v := r.Header.Get(name)
	if v == "" {
		return nil, nil
	}
	b, err := base64.StdEncoding.DecodeString(v)
	if err != nil || len(b) != md5.Size {
		return nil, fail(http.StatusBadRequest, "InvalidMd5", "The header %s is %q; it must be 16 bytes in base64.", name, v)
	}
	return b, nil
}

// maxSummed is how many bytes of a range an MD5 may be asked for, as Azure's.
const maxSummed = 4 << 20

// summed is the body of n bytes with the sum of them that the request asks for.
func (x exchange) summed(body io.Reader, n int64) (r io.Reader, sum []byte, err error) {
	asks := func(name string) bool { return strings.EqualFold(x.r.Header.Get(name), "true") }
	wantMD5, wantCRC := asks("x-ms-range-get-content-md5"), asks("x-ms-range-get-content-crc64")
	switch {
	case !wantMD5 && !wantCRC:
		return body, nil, nil
	case wantMD5 && wantCRC:
		return nil, nil, fail(http.StatusBadRequest, "InvalidHeaderValue", "Either an MD5 or a CRC64 of a range can be asked for, not both.")
	case n > maxSummed:
		return nil, nil, fail(http.StatusBadRequest, "OutOfRangeQueryParameterValue", "A sum can be asked for of at most 4 MiB.")
	}
	data, err := io.ReadAll(io.LimitReader(body, maxSummed))
	if err != nil {
		return nil, nil, err
	}
	if wantMD5 {
		m := md5.Sum(data)
		sum = m[:]
	} else {
		x.w.Header().Set("x-ms-content-crc64", base64.StdEncoding.EncodeToString(crcBytes(crc64.Checksum(data, crcTable()))))
	}
	return bytes.NewReader(data), sum, nil
}

// send answers with bytes. What does not open is found before the first of its
// bytes is sent; an answer that has begun is cut.
func (x exchange) send(status int, info Info, body io.Reader, n int64, sum []byte) error {
	x.describe(info)
	h := x.w.Header()
	h.Set("Content-Length", strconv.FormatInt(n, 10))
	if sum != nil {
		h.Set("Content-MD5", base64.StdEncoding.EncodeToString(sum))
	}
	p := x.patient()
	defer p.end()
	late := &lateWriter{p: p, status: status, w: x.w}
	m, err := io.Copy(late, body)
	if err == nil && m != n {
		err = fmt.Errorf("%w: there were %d bytes of %d", errAltered, m, n)
	}
	if err == nil {
		late.begin()
		return nil
	}
	if serious(err) {
		x.s.Log.Error("a blob could not be read", "account", x.s.accountOf(x.r.Host), "error", err)
	}
	var known *arm.Error
	if errors.As(err, &known) {
		return err
	}
	return &arm.Error{Code: arm.Internal, Message: "the blob could not be read", Err: err}
}

// lateWriter writes the status with the first bytes.
type lateWriter struct {
	p      patient
	w      http.ResponseWriter
	status int
	begun  bool
}

func (l *lateWriter) begin() {
	if !l.begun {
		l.begun = true
		l.w.WriteHeader(l.status)
	}
}

func (l *lateWriter) Write(b []byte) (int, error) {
	l.begin()
	return l.p.Write(b)
}
