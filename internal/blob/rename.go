package blob

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// renaming is what a request to rename says of the source.
type renaming struct {
	from    place
	when    Conditions
	meta    map[string]string
	hasMeta bool
}

// renamePath is Path Create with a source: a file, or a directory with all it has,
// is there under the new path and not under the old one, in one transaction.
func (s *Service) renamePath(x exchange) error {
	p, err := x.treeTarget(false, BlobWrite)
	if err != nil {
		return err
	}
	if v := x.q["mode"]; v != "" && v != "legacy" && v != "posix" {
		return badQuery("mode", v, "legacy or posix")
	}
	for _, n := range []string{"x-ms-acl", "x-ms-permissions", "x-ms-umask", "x-ms-owner", "x-ms-group", "x-ms-proposed-lease-id", "x-ms-lease-duration"} {
		if x.r.Header.Get(n) != "" {
			return unsupportedHeader(n)
		}
	}
	when, err := conditions(x.r.Header, "")
	if err != nil {
		return err
	}
	var in renaming
	if in.meta, in.hasMeta, err = propertiesOf(x.r); err != nil {
		return err
	}
	if in.when, err = conditions(x.r.Header, "x-ms-source-"); err != nil {
		return err
	}
	src, err := s.renameSource(x, p, &in)
	if err != nil {
		return err
	}
	ctx := x.r.Context()
	info, err := s.rename(ctx, x.g, src, p, in, when)
	if err = src.Close(ctx, err); err != nil {
		return err
	}
	return x.written(http.StatusCreated, info, nil)
}

// renameSource is a Grant for the source of a renaming: for whoever calls, or who has
// the signature in its query.
func (s *Service) renameSource(x exchange, to place, in *renaming) (g gate.Grant, err error) {
	const header = "x-ms-rename-source"
	v := x.r.Header.Get(header)
	path, rawQuery, _ := strings.Cut(v, "?")
	path, err = url.PathUnescape(strings.TrimPrefix(path, "/"))
	system, name, ok := strings.Cut(path, "/")
	name = strings.TrimSuffix(name, "/")
	if err != nil || !ok || name == "" || CheckContainerName(system) != nil {
		return g, fail(http.StatusBadRequest, "InvalidSourceUri", "The header %s must be /FILESYSTEM/PATH, perhaps with a signature behind a question mark.", header)
	}
	in.from = place{account: to.account, container: system, blob: name}
	if err := in.from.checkName(); err != nil {
		return g, err
	}
	q, err := parseQuery(rawQuery)
	if err != nil {
		return g, err
	}
	on := gate.Target{ID: to.containerID(system), Item: name}
	on.Attributes = s.attributes(nil, on.ID, name)
	as := x.g.Caller()
	if q["sig"] != "" {
		rq := request{account: to.account, container: system, blob: name, action: BlobMove, dir: name, secure: true, peer: peerOf(x.r)}
		if as, err = s.bySAS(x.r.Context(), rq, q); err != nil {
			return g, err
		}
	}
	if err := s.reach(to.account, as, peerOf(x.r)); err != nil {
		return g, err
	}
	return s.Gate.Admit(x.r.Context(), as, BlobMove, on)
}

// rename moves a path. src is a Grant, for BlobMove, for where it is.
func (s *Service) rename(ctx context.Context, g, src gate.Grant, to place, in renaming, when Conditions) (info Info, err error) {
	if _, err := src.On(BlobMove); err != nil {
		return info, err
	}
	from := in.from
	if from.container == to.container && strings.HasPrefix(to.blob, from.blob+"/") {
		return info, fail(http.StatusConflict, "InvalidRenameSourcePath", "The source of the renaming is the destination's own directory, or one above it.")
	}
	var gone []piece
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		fc, b, err := s.renamed(tx, src, in)
		if err != nil {
			return err
		}
		tc, err := findContainer(tx, to)
		if err != nil {
			return err
		}
		if err := s.lists(tx, tc, g, to.blob, BlobWrite); err != nil {
			return err
		}
		if gone, err = s.makeRoom(tx, to, tc, from.container == to.container && from.blob == to.blob, b, when); err != nil {
			return err
		}
		if in.hasMeta {
			b.setMeta(in.meta)
		}
		b.Lease = b.Lease.kept(s.Now())
		info = b.info(to.blob)
		if err := store.PutJSON(tx, blobTable, blobKey(fc, from.blob), b); err != nil {
			return err
		}
		if fc.UID == tc.UID && from.blob == to.blob {
			return src.Keep(tx)
		}
		if err := s.moveRows(tx, fc, from.blob, tc, to.blob); err != nil {
			return err
		}
		return src.Keep(tx)
	})
	if err == nil {
		src.Kept()
		s.files.remove(fileIDs(gone))
	}
	return info, err
}

// renamed is what is to be moved.
func (s *Service) renamed(tx *store.Tx, src gate.Grant, in renaming) (containerRow, *row, error) {
	c, b, err := s.look(tx, in.from, moment{}, in.when, false)
	switch arm.CodeOf(err) {
	case "BlobNotFound":
		err = fail(http.StatusNotFound, "SourcePathNotFound", "The source path for a rename operation does not exist.")
	case "ConditionNotMet":
		err = fail(http.StatusPreconditionFailed, "SourceConditionNotMet", "The source condition specified using HTTP conditional header(s) is not met.")
	}
	if err != nil {
		return c, nil, err
	}
	if err := s.lists(tx, c, src, in.from.blob, BlobMove); err != nil {
		return c, nil, err
	}
	if !c.Guard.none() {
		return c, nil, heldByPolicy()
	}
	return c, b, nil
}

// makeRoom takes away what is where b is to be: a file that a file takes the place of, or a
// directory with nothing in it.
func (s *Service) makeRoom(tx *store.Tx, to place, c containerRow, same bool, b *row, when Conditions) (gone []piece, err error) {
	if up := parentOf(to.blob); up != "" {
		d, err := findBlob(tx, c, up)
		if err != nil {
			return nil, err
		}
		if d == nil {
			return nil, fail(http.StatusNotFound, "RenameDestinationParentPathNotFound", "The parent directory of the destination path does not exist.")
		}
		if !d.Dir {
			return nil, pathConflict(up)
		}
	}
	old, err := findBlob(tx, c, to.blob)
	if err != nil {
		return nil, err
	}
	if err := s.allows(when, old, false); err != nil || old == nil || same {
		return nil, err
	}
	if old.Dir != b.Dir {
		return nil, fail(http.StatusConflict, "InvalidSourceOrDestinationResourceType", "The source and destination resource type must be identical.")
	}
	if old.Dir {
		full, err := hasChildren(tx, c, to.blob)
		if err == nil && full {
			err = fail(http.StatusConflict, "PathAlreadyExists", "The destination of the renaming is a directory that is not empty.")
		}
		if err != nil {
			return nil, err
		}
	}
	if err := c.Guard.deletes(old, s.Now()); err != nil {
		return nil, err
	}
	return s.replace(tx, to, c, old, nil, nil, replaces)
}

// moveRows moves the rows of a path and of all that lies below it. Contents do not
// know the names that they have.
func (s *Service) moveRows(tx *store.Tx, from containerRow, old string, to containerRow, name string) error {
	for _, table := range []string{blobTable, blockTable} {
		for _, mark := range []string{"", "\x01", "/"} {
			if mark == "" && table == blockTable || mark == "\x01" && table == blobTable {
				continue
			}
			if err := moveRange(tx, table, blobKey(from, old)+mark, blobKey(to, name)+mark, mark == ""); err != nil {
				return err
			}
		}
	}
	return nil
}

// moveRange moves the rows whose keys begin with from, or the one that has it for a key.
func moveRange(tx *store.Tx, table, from, to string, one bool) error {
	if one {
		v, err := tx.Get(table, from)
		if err != nil || v == nil {
			return err
		}
		if err := tx.Delete(table, from); err != nil {
			return err
		}
		return tx.Put(table, to, v)
	}
	for {
		rows, err := tx.Scan(table, from, "", trashBatch)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if err := tx.Delete(table, r.Key); err != nil {
				return err
			}
			if err := tx.Put(table, to+strings.TrimPrefix(r.Key, from), r.Value); err != nil {
				return err
			}
		}
		if len(rows) < trashBatch {
			return nil
		}
	}
}
