package blob

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// FoldPath is a path of a share in the spelling that the Target of a Grant has it in.
func FoldPath(name string) string { return fold(name) }

// maxWalked is how many directories Files goes through.
const maxWalked = 100_000

// Files are up to limit files of the share that the Grant, for FileRead, is about, whose
// paths begin with prefix in any case, in the order of their paths. A name is the prefix
// as it was asked, and what follows as it was first written.
func (s *Service) Files(ctx context.Context, g gate.Grant, prefix string, limit int) (out []Info, err error) {
	p, err := s.target(g, FileRead)
	if err != nil {
		return nil, err
	}
	dir := prefix[:strings.LastIndexByte(prefix, '/')+1]
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		c, err := findContainer(tx, p)
		if err != nil {
			return err
		}
		cur := &cursor{tx: tx, table: blobTable, base: c.UID + "/", prefix: fold(prefix), batch: 1000}
		written := map[string]string{} // directories below dir, by their keys
		for len(out) < limit {
			key, value, ok, err := cur.peek()
			if err != nil || !ok {
				return err
			}
			cur.pass(key)
			var b row
			if err := json.Unmarshal(value, &b); err != nil {
				return fmt.Errorf("reading a file's row: %w", err)
			}
			name := b.Name
			if up := parentOf(key[len(fold(dir)):]); up != "" {
				name = written[up] + "/" + name
			}
			switch {
			case b.Dir && len(written) > maxWalked:
				return fail(http.StatusBadRequest, "OutOfRangeInput", "There are more than %d directories below %q.", maxWalked, prefix)
			case b.Dir:
				written[key[len(fold(dir)):]] = name
			case key == fold(prefix):
				out = append(out, b.info(prefix))
			default:
				out = append(out, b.info(dir+name))
			}
		}
		return nil
	})
	return out, err
}

// EnsureShare makes the share that the Grant, for ShareWrite, is about, if it is not there.
func (s *Service) EnsureShare(ctx context.Context, g gate.Grant) error {
	p, err := s.target(g, ShareWrite)
	if err != nil {
		return err
	}
	props, err := ShareProperties{}.whole()
	if err != nil {
		return err
	}
	if _, err = s.createIn(ctx, g, p, nil, props); arm.CodeOf(err) == "ContainerAlreadyExists" {
		return nil
	}
	return err
}

// WriteFile puts a file in the place that the Grant, for FileWrite, is about, which is
// written as name; directories that lead to it are made. It is durable and whole when
// WriteFile returns, and if it fails what was there stays. size is -1 if it isn't known.
func (s *Service) WriteFile(ctx context.Context, g gate.Grant, name string, body io.Reader, size int64) (Info, error) {
	n := newborn{name: path.Base(name), smb: usualSMB(false), path: strings.Trim(name, "/")}
	return s.put(ctx, g, draft{typ: fileType, file: n, content: content{body: body, size: size}})
}

// usualSMB is what is made without a word of it.
func usualSMB(dir bool) func(smb) (smb, error) {
	return func(a smb) (smb, error) {
		if a.Attr == "" {
			a.Attr, _ = attributesOf("None", dir) // which is one
		}
		return a, nil
	}
}

// leadTo makes the directories that a path, as it is written, lies in, where they are
// not there, and gives the id of the last.
func (s *Service) leadTo(tx *store.Tx, p place, c containerRow, written string) (int64, error) {
	written = parentOf(written)
	p.blob = fold(written)
	old, err := findBlob(tx, c, p.blob)
	if err != nil || old != nil {
		return 0, orElse(err, otherType()) // a file: a directory would have been found
	}
	d, err := s.bear(tx, p, c, newborn{name: path.Base(written), smb: usualSMB(true), path: written}, nil, row{Dir: true})
	if err != nil {
		return 0, err
	}
	return d.SMB.ID, keep(tx, c, p.blob, d, nil)
}
