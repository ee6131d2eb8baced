package app

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"
)

// canary is something that must not be found.
type canary struct {
	kind  string
	text  string
	named bool   // a name, which the audit log may tell of
	raw   []byte // how else it may lie in a file, if it is no text
}

// newCanary is text that nothing else has, fit for all names and passwords.
func newCanary() string {
	var b [13]byte
	_, _ = rand.Read(b[:]) // never fails
	return "kq" + hex.EncodeToString(b[:])
}

// forms are the bytes by which a canary gives itself away: as it is, in capitals, the
// other way round, in UTF-16, in hex, in both alphabets of base64 at each of the three
// offsets, and escaped for URLs and for JSON.
func (c canary) forms() (out [][]byte) {
	for _, b := range [][]byte{c.raw, []byte(c.text)} {
		if len(b) == 0 {
			continue
		}
		back := slices.Clone(b)
		slices.Reverse(back)
		out = append(out, b, back)
		for _, s := range []string{hex.EncodeToString(b), strings.ToUpper(hex.EncodeToString(b))} {
			out = append(out, []byte(s))
		}
		for offset := range 3 {
			s := base64.RawStdEncoding.EncodeToString(append(make([]byte, offset), b...))
			s = s[(offset*8+5)/6 : len(s)-1] // what other bytes have no part in
			out = append(out, []byte(s), []byte(strings.NewReplacer("+", "-", "/", "_").Replace(s)))
		}
	}
	var little, big []byte
	escaped := ""
	for _, u := range utf16.Encode([]rune(c.text)) {
		little, big = binary.LittleEndian.AppendUint16(little, u), binary.BigEndian.AppendUint16(big, u)
		escaped += fmt.Sprintf(`\u%04x`, u)
	}
	for _, s := range []string{url.QueryEscape(c.text), strings.ToUpper(c.text), escaped} {
		out = append(out, []byte(s))
	}
	return append(out, little, big)
}

// scanner finds forms of canaries by their first eight bytes, and looks those up
// where the first two fit.
type scanner struct {
	begins *[1 << 16]bool
	forms  map[uint64][]found
}

type found struct {
	canary canary
	form   []byte
}

const keySize = 8

func newScanner(cs []canary) scanner {
	s := scanner{new([1 << 16]bool), map[uint64][]found{}}
	for _, c := range cs {
		for _, f := range c.forms() {
			k := binary.LittleEndian.Uint64(f)
			s.forms[k] = append(s.forms[k], found{c, f})
			s.begins[uint16(k)] = true
		}
	}
	return s
}

func (s scanner) scan(b []byte) (out []found) {
	for i := 0; i+keySize <= len(b); i++ {
		if !s.begins[binary.LittleEndian.Uint16(b[i:])] {
			continue
		}
		for _, f := range s.forms[binary.LittleEndian.Uint64(b[i:])] {
			if bytes.HasPrefix(b[i:], f.form) {
				out = append(out, f)
			}
		}
	}
	return out
}

// unpackers open what is compressed, by what it begins with.
var unpackers = []struct {
	magic []byte
	open  func(io.Reader) (io.ReadCloser, error)
}{
	{[]byte{0x1f, 0x8b, 8}, func(r io.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) }},
	{[]byte{0x78, 0x01}, zlib.NewReader}, {[]byte{0x78, 0x5e}, zlib.NewReader}, {[]byte{0x78, 0x9c}, zlib.NewReader}, {[]byte{0x78, 0xda}, zlib.NewReader},
	{[]byte("PK\x03\x04"), func(r io.Reader) (io.ReadCloser, error) { // a file in a zip archive
		var head [30]byte
		_, err := io.ReadFull(r, head[:])
		if err == nil {
			_, err = io.CopyN(io.Discard, r, int64(binary.LittleEndian.Uint16(head[26:]))+int64(binary.LittleEndian.Uint16(head[28:])))
		}
		return flate.NewReader(r), err
	}},
}

// packed scans what begins anywhere in b and can be unpacked, as far as it can.
func (s scanner) packed(b []byte) (out []found) {
	for _, u := range unpackers {
		for at := 0; ; at++ {
			i := bytes.Index(b[at:], u.magic)
			if i < 0 {
				break
			}
			at += i
			r, err := u.open(bytes.NewReader(b[at:]))
			if err != nil {
				continue
			}
			plain, _ := io.ReadAll(io.LimitReader(r, 1<<20)) // what is no stream ends soon
			out = append(out, s.scan(plain)...)
		}
	}
	return out
}

// disk scans a disk of which the greater part is empty, piece by piece, each with
// the end of the one before. It tells how much was not empty.
func (s scanner) disk(t *testing.T, r io.Reader) (full int64, out []string) {
	t.Helper()
	const piece, over = 1 << 20, 4 << 10
	b, empty := make([]byte, over+piece), make([]byte, piece)
	for at := int64(0); ; at += piece {
		n, err := io.ReadFull(r, b[over:])
		if n > 0 && !bytes.Equal(b[over:over+n], empty[:n]) {
			full += int64(n)
			for _, f := range append(s.scan(b[:over+n]), s.packed(b[:over+n])...) {
				out = append(out, fmt.Sprintf("a %s is on the disk at about %d as %q", f.canary.kind, at, f.form))
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatal(err)
			}
			return full, out
		}
		copy(b, b[piece:])
	}
}

// folder scans all files below dir, and their names.
func (s scanner) folder(t *testing.T, dir string) (files int, out []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // it was there when the folder was read
			return nil
		}
		if err != nil {
			return err
		}
		for _, f := range s.scan([]byte(path)) {
			out = append(out, fmt.Sprintf("a %s is in the name %s", f.canary.kind, path))
		}
		if !d.Type().IsRegular() {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		for _, f := range append(s.scan(b), s.packed(b)...) {
			out = append(out, fmt.Sprintf("a %s is in %s as %q", f.canary.kind, path, f.form))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files, out
}

// control holds that the scanner finds each form of each canary, in a file and
// at odd places.
func control(t *testing.T, scan scanner, all []canary) {
	t.Helper()
	dir, planted := t.TempDir(), 0
	for i, c := range all {
		for j, f := range c.forms() {
			planted++
			b := append(bytesOf("noise", (i*7+j)%61), f...)
			hits := scan.scan(append(b, bytesOf("more", 5)...))
			if len(hits) == 0 {
				t.Errorf("the scanner misses a %s as %q", c.kind, f)
			}
		}
		if i%50 == 0 && len(scan.packed(pack(t, c.text))) < 3 {
			t.Errorf("the scanner misses a %s that is packed", c.kind)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), append([]byte{0}, c.text...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files, hits := scan.folder(t, dir)
	if files != len(all) || len(hits) < len(all) {
		t.Errorf("the scanner finds %d of %d planted in %d files", len(hits), len(all), files)
	}
	t.Logf("controls: %d forms planted", planted)
}

// pack is text by all packers, one after the other.
func pack(t *testing.T, text string) []byte {
	t.Helper()
	out := bytes.NewBufferString("noise")
	z := zip.NewWriter(out)
	inside, err := z.Create("x")
	if err != nil {
		t.Fatal(err)
	}
	packers := []io.WriteCloser{gzip.NewWriter(out), zlib.NewWriter(out)}
	for _, w := range append([]io.Writer{packers[0], packers[1]}, inside) {
		if _, err := io.WriteString(w, "before "+text+" after"); err != nil {
			t.Fatal(err)
		}
		if c, ok := w.(io.Closer); ok {
			err = errors.Join(err, c.Close())
		}
	}
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
