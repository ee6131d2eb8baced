package blob

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// Where an account has a hierarchical namespace, names are paths: every path but
// the root lies in a directory that is there, as a row like a blob's, and has an
// access list.

// maxDepth is how many names a path has at most.
const maxDepth = 63

// kindOf is what a path is, as clients know it.
func kindOf(dir bool) string {
	if dir {
		return "directory"
	}
	return "file"
}

// checkPath says whether a path can be so, which is a blob's name already.
func checkPath(name string) error {
	if strings.HasPrefix(name, "/") || strings.HasSuffix(name, "/") || strings.Contains(name, "//") || strings.Count(name, "/") >= maxDepth {
		return fail(http.StatusBadRequest, arm.InvalidResourceName, "The path %q is invalid: where there is a hierarchical namespace no name in it is empty, and it has at most %d.", name, maxDepth)
	}
	return nil
}

// checkName says whether the place's blob can have its name.
func (p place) checkName() error {
	if err := p.checkOpaque(); err != nil || !p.hns {
		return err
	}
	return checkPath(p.blob)
}

// checkOpaque is checkName for what may be no path where names are paths.
func (p place) checkOpaque() error {
	if p.files {
		return checkFilePath(p.blob)
	}
	return checkBlobName(p.blob)
}

// parentOf is the path of the directory that a path lies in, "" for the root.
func parentOf(name string) string {
	return name[:max(0, strings.LastIndexByte(name, '/'))]
}

// ancestors are the directories that lead to a path, from the first below the root on.
func ancestors(name string) (out []string) {
	for i := range name {
		if name[i] == '/' {
			out = append(out, name[:i])
		}
	}
	return out
}

func pathConflict(name string) error {
	return fail(http.StatusConflict, "PathConflict", "The specified path, or an element of the path, exists and its resource type is invalid for this operation: %q.", name)
}

func notEmpty() error {
	return fail(http.StatusConflict, "DirectoryNotEmpty", "The recursive query parameter value must be true to delete a non-empty directory.")
}

// ownerOf is whom what the Grant's holder makes belongs to.
func ownerOf(g gate.Grant) string {
	c := g.Caller()
	switch {
	case c.Lease != nil && c.Lease.For != "":
		return c.Lease.For
	case c.Token == "sharedkey", strings.HasPrefix(c.Object, "storageaccount:"):
		return superuser
	}
	return c.Object
}

// birth is what a new path is made with.
type birth struct {
	owner       string
	mode, umask int
	has         bool // mode was said
}

func (b birth) of(parent *access, dir bool) *access {
	mode := b.mode
	if !b.has {
		if mode = fileMode; dir {
			mode = dirMode
		}
	}
	return parent.inherit(b.owner, dir, mode, b.umask)
}

// plant puts next, which may be nil, in the place of old in the tree: what it lies
// in is made if need be, and no file takes a directory's place.
func (s *Service) plant(tx *store.Tx, p place, c containerRow, by birth, old, next *row) error {
	if next != nil && next.Type == pageBlob {
		return notInTrees("page blobs")
	}
	if next != nil && next.Meta[folderMark] == "true" && next.Type == blockBlob && next.Size == 0 {
		next.Dir = true // it is how clients that know blobs alone make a directory
		next.Meta = maps.Clone(next.Meta)
		delete(next.Meta, folderMark)
	}
	if next == nil {
		if old == nil || !old.Dir {
			return nil
		}
		full, err := hasChildren(tx, c, p.blob)
		if err == nil && full {
			err = notEmpty()
		}
		return err
	}
	if old != nil {
		if old.Dir != next.Dir {
			return pathConflict(p.blob)
		}
		if next.Access == nil {
			next.Access = old.Access
		}
		return nil
	}
	parent, err := s.lead(tx, c, p.blob, by)
	if err == nil && next.Access == nil {
		next.Access = by.of(parent, next.Dir)
	}
	return err
}

// lead makes the directories that lead to a path, where they are not there, and
// gives the access of the last.
func (s *Service) lead(tx *store.Tx, c containerRow, name string, by birth) (*access, error) {
	up := parentOf(name)
	if up == "" {
		return c.Root, nil
	}
	b, err := findBlob(tx, c, up)
	if err != nil {
		return nil, err
	}
	if b != nil && !b.Dir {
		return nil, pathConflict(up)
	}
	if b != nil {
		return b.Access, nil
	}
	parent, err := s.lead(tx, c, up, by)
	if err != nil {
		return nil, err
	}
	b = s.renew(nil, row{Type: blockBlob, Dir: true, Access: birth{owner: by.owner, umask: usualMask}.of(parent, true)})
	return b.Access, keep(tx, c, up, b, nil)
}

func hasChildren(tx *store.Tx, c containerRow, dir string) (bool, error) {
	rows, err := tx.Scan(blobTable, blobKey(c, dir)+"/", "", 1)
	return len(rows) > 0, err
}

// within calls fn with up to limit of what lies below a directory, "" for all the
// container, behind the path after; whole is whether that was all.
func within(tx *store.Tx, c containerRow, dir, after string, limit int, fn func(name string, b *row) error) (whole bool, err error) {
	prefix := c.UID + "/"
	if dir != "" {
		prefix += dir + "/"
	}
	if after != "" {
		after = blobKey(c, after)
	}
	rows, err := tx.Scan(blobTable, prefix, after, limit)
	if err != nil {
		return false, err
	}
	for _, r := range rows {
		var b row
		if err := json.Unmarshal(r.Value, &b); err != nil {
			return false, fmt.Errorf("reading a blob's row: %w", err)
		}
		if err := fn(strings.TrimPrefix(r.Key, c.UID+"/"), &b); err != nil {
			return false, err
		}
	}
	return len(rows) < limit || limit == 0, nil
}

// setMeta replaces a path's metadata, but for what marks a directory.
func (b *row) setMeta(meta map[string]string) {
	b.Meta = maps.Clone(meta)
	if b.Dir {
		delete(b.Meta, folderMark)
	}
}
