package audit

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"castellan/internal/store"

	"golang.org/x/mod/sumdb/tlog"
)

// An export is lines of JSON: first an exportHead, then one line for each entry,
// with its hash as a leaf and itself, byte for byte as it is in the log; of a
// pruned one the hash alone.
const (
	lineHash  = `{"leaf":"`
	lineEntry = `","entry":`
	lineGone  = `"}`
)

type exportHead struct {
	Key        string `json:"key"`
	Checkpoint string `json:"checkpoint"` // signed, of all entries that follow
}

// Export writes the log as VerifyExport takes it.
func (l *Log) Export(ctx context.Context, to io.Writer) error {
	w := bufio.NewWriter(to)
	err := l.db.View(ctx, func(tx *store.Tx) error {
		signed, err := sign(tx)
		if err != nil {
			return err
		}
		key, err := keyOf(tx)
		if err != nil {
			return err
		}
		if err := json.NewEncoder(w).Encode(exportHead{key, string(signed)}); err != nil {
			return err
		}
		return walkRows(tx, func(_ string, made, leaf []byte) error {
			if made == nil {
				return errors.New("audit: a row of the log was altered: it has no hashes")
			}
			line := base64.StdEncoding.AppendEncode([]byte(lineHash), made[:tlog.HashSize])
			if len(leaf) == 0 {
				line = append(line, lineGone...)
			} else {
				line = append(append(append(line, lineEntry...), leaf...), '}')
			}
			_, err := w.Write(append(line, '\n'))
			return err
		})
	})
	if err != nil {
		return err
	}
	return w.Flush()
}

// mostLine is how long a line of an export may be, in bytes.
const mostLine = 1 << 20

// VerifyExport reads what Export wrote. It must be signed with the key, if that
// isn't "", and hold what the kept signed checkpoints tell of.
func VerifyExport(r io.Reader, key string, kept ...[]byte) (c Checkpoint, signedBy string, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, mostLine)
	var head exportHead
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &head) != nil {
		return c, "", errors.Join(errors.New("audit: this is no exported log: its first line has no key and checkpoint"), lines.Err())
	}
	if key != "" && key != head.Key {
		return c, "", fmt.Errorf("audit: the log's key is %s; it must be %s", head.Key, key)
	}
	if c, err = ParseCheckpoint([]byte(head.Checkpoint), head.Key); err != nil {
		return c, "", err
	}
	w := walk{kept: []Checkpoint{c}}
	for _, signed := range kept {
		k, err := ParseCheckpoint(signed, head.Key)
		if err != nil {
			return c, "", err
		}
		w.kept = append(w.kept, k)
	}
	if err := w.meet(false); err != nil {
		return c, "", err
	}
	for lines.Scan() {
		hash, leaf, ok := cutLine(lines.Bytes())
		if !ok {
			return c, "", fmt.Errorf("audit: what stands at %d is no entry", w.n+1)
		}
		if _, err := w.next(leaf, hash); err != nil {
			return c, "", err
		}
	}
	if err := errors.Join(lines.Err(), w.end()); err != nil {
		return c, "", err
	}
	if w.n != c.N {
		return c, "", fmt.Errorf("audit: %d entries follow those of the export's checkpoint", w.n-c.N)
	}
	return c, head.Key, nil
}

// cutLine is what the line of an entry holds.
func cutLine(line []byte) (hash tlog.Hash, leaf []byte, ok bool) {
	rest, ok := bytes.CutPrefix(line, []byte(lineHash))
	size := base64.StdEncoding.EncodedLen(tlog.HashSize)
	if !ok || len(rest) < size {
		return hash, nil, false
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(string(rest[:size]))
	if err != nil || len(raw) != tlog.HashSize {
		return hash, nil, false
	}
	hash = tlog.Hash(raw)
	if string(rest[size:]) == lineGone {
		return hash, nil, true
	}
	leaf, ok = bytes.CutPrefix(rest[size:], []byte(lineEntry))
	if !ok || len(leaf) < 2 || leaf[len(leaf)-1] != '}' {
		return hash, nil, false
	}
	return hash, leaf[:len(leaf)-1], true
}
