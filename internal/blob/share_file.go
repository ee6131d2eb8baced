package blob

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// newborn is what a path of a share is made with.
type newborn struct {
	name string // its own, as it is written
	smb  func(smb) (smb, error)
	path string // if not "", all of it as it is written: what it lies in is made if need be
}

// parentIn is the id of the directory that the place's path lies in, which must be there.
func (p place) parentIn(tx *store.Tx, c containerRow) (int64, error) {
	up := parentOf(p.blob)
	if up == "" {
		return 0, nil
	}
	d, err := findBlob(tx, c, up)
	if err != nil {
		return 0, err
	}
	if d == nil || !d.Dir {
		return 0, fail(http.StatusNotFound, "ParentNotFound", "The specified parent path does not exist.")
	}
	return d.SMB.ID, nil
}

// bear is b as what is new in the place, or takes old's, which may be nil.
func (s *Service) bear(tx *store.Tx, p place, c containerRow, n newborn, old *row, b row) (*row, error) {
	parent, err := p.parentIn(tx, c)
	if arm.CodeOf(err) == "ParentNotFound" && n.path != "" {
		parent, err = s.leadTo(tx, p, c, n.path)
	}
	if err != nil {
		return nil, err
	}
	b.Type, b.Name = fileType, n.name
	next := s.renew(old, b)
	info := smb{ID: rand.Int64N(1<<62) + 1, Parent: parent, Created: next.Modified, Written: next.Modified}
	if old != nil {
		next.Name, info.ID = old.Name, old.SMB.ID
	}
	next.SMB, err = (&info).changed(n.smb, next.Modified)
	return next, err
}

func otherType() error {
	return fail(http.StatusConflict, "ResourceTypeMismatch", "The specified resource type does not match the type of the existing resource.")
}

// newFile is the file that d makes in old's place, of what was taken.
func (s *Service) newFile(tx *store.Tx, p place, c containerRow, d draft, old *row, t *taken) (*row, []piece, error) {
	switch {
	case old == nil:
	case old.Dir:
		return nil, nil, otherType()
	case old.SMB.readOnly():
		return nil, nil, readOnly()
	}
	next, err := s.bear(tx, p, c, d.file, old, row{Size: max(d.size, t.piece.Size), Head: d.head, Meta: d.meta, Copy: d.copy})
	if err != nil {
		return nil, nil, err
	}
	t.piece.Len = t.piece.Size
	return next, t.pieces(), t.place(tx)
}

// makeDirectory makes the directory that the Grant, for FileWrite, is about.
func (s *Service) makeDirectory(ctx context.Context, g gate.Grant, n newborn, meta map[string]string) (Info, error) {
	p, err := s.blobTarget(g, FileWrite)
	if err != nil {
		return Info{}, err
	}
	return s.change(ctx, g, p, replaces, func(tx *store.Tx, c containerRow, old *row) (*row, []piece, error) {
		if old != nil {
			return nil, nil, fileExists()
		}
		next, err := s.bear(tx, p, c, n, nil, row{Dir: true, Meta: meta})
		return next, nil, err
	})
}

func fileExists() error {
	return fail(http.StatusConflict, "ResourceAlreadyExists", "The specified resource already exists.")
}

// removePath deletes the file, or the empty directory, that the Grant, for FileDelete,
// is about.
func (s *Service) removePath(ctx context.Context, g gate.Grant, when Conditions) error {
	p, err := s.blobTarget(g, FileDelete)
	if err != nil {
		return err
	}
	_, err = s.change(ctx, g, p, replaces, func(tx *store.Tx, c containerRow, old *row) (*row, []piece, error) {
		if old == nil {
			return nil, nil, noBlob()
		}
		if err := p.fits(old); err != nil {
			return nil, nil, err
		}
		if old.Dir {
			if full, err := hasChildren(tx, c, p.blob); err != nil || full {
				return nil, nil, orElse(err, fail(http.StatusConflict, "DirectoryNotEmpty", "The specified directory is not empty."))
			}
		}
		return nil, nil, s.allows(when, old, false)
	})
	return err
}

// children lists up to limit of what lies in the directory that the Grant, for FileRead,
// is about, under names that begin with prefix and come after the name after. next is
// where to go on, or "". of is the directory, nil for the root.
func (s *Service) children(ctx context.Context, g gate.Grant, prefix, after string, limit int) (out []Info, of *smb, next string, err error) {
	p, err := s.target(g, FileRead)
	if err != nil {
		return nil, nil, "", err
	}
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		c, err := findContainer(tx, p)
		if err != nil {
			return err
		}
		base := c.UID + "/"
		if p.blob != "" {
			d, err := findBlob(tx, c, p.blob)
			if err != nil || d == nil || !d.Dir {
				return orElse(err, noBlob())
			}
			of, base = d.SMB, base+p.blob+"/"
		}
		cur := &cursor{tx: tx, table: blobTable, base: base, prefix: fold(prefix), after: after, batch: min(limit+1, 1000)}
		for {
			key, value, ok, err := cur.peek()
			if err != nil || !ok {
				return err
			}
			if dir, _, below := strings.Cut(key, "/"); below {
				cur.pass(dir + "/" + afterAll)
				continue
			}
			if len(out) == limit {
				next = after
				return nil
			}
			var b row
			if err := json.Unmarshal(value, &b); err != nil {
				return fmt.Errorf("reading a file's row: %w", err)
			}
			out = append(out, b.info(b.Name))
			after = key
			cur.pass(key)
		}
	})
	return out, of, next, err
}

// shareRoot is what is known of a share's root: its share.
func (s *Service) shareRoot(ctx context.Context, p place) (info ContainerInfo, err error) {
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		d, err := s.loadContainer(tx, p, Conditions{}, true)
		if err == nil {
			info, err = containerInfo(d)
		}
		return err
	})
	return info, err
}

// used is how many bytes the files have of the share that the Grant, for ShareRead, is about.
func (s *Service) used(ctx context.Context, g gate.Grant) (n int64, err error) {
	p, err := s.target(g, ShareRead)
	if err != nil {
		return 0, err
	}
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		c, err := findContainer(tx, p)
		n = c.Used
		return err
	})
	return n, err
}

// moving is what a request to rename a path of a share says.
type moving struct {
	from           string
	when, fromWhen Conditions
	replaces       bool
	newborn
	meta map[string]string
}

// movePath renames what lies at from of the same share to where the Grant, for FileWrite,
// is about. src is a Grant, for FileDelete, for where it is.
func (s *Service) movePath(ctx context.Context, g, src gate.Grant, m moving) (info Info, err error) {
	p, err := s.blobTarget(g, FileWrite)
	if err != nil {
		return info, err
	}
	if _, err := src.On(FileDelete); err != nil {
		return info, err
	}
	if strings.HasPrefix(p.blob, m.from+"/") {
		return info, fail(http.StatusConflict, "InvalidRenameSourcePath", "The source of the renaming is the destination's own directory, or one above it.")
	}
	var gone []piece
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		c, err := findContainer(tx, p)
		if err != nil {
			return err
		}
		b, err := findBlob(tx, c, m.from)
		if err != nil || b == nil || p.fits(b) != nil {
			return orElse(err, fail(http.StatusNotFound, "ResourceNotFound", "The source of the renaming does not exist."))
		}
		if err := s.allows(m.fromWhen, b, false); err != nil {
			return err
		}
		if b.SMB, err = b.SMB.changed(m.smb, s.Now().UTC()); err != nil {
			return err
		}
		if b.SMB.Parent, err = p.parentIn(tx, c); err != nil {
			return err
		}
		if m.from != p.blob {
			if gone, err = s.giveWay(tx, p, c, b, m); err != nil {
				return err
			}
		}
		if b.Name, b.ETag, b.Modified = m.name, newETag(), s.Now().UTC(); m.meta != nil {
			b.Meta = m.meta
		}
		info = b.info(p.blob)
		if err := store.PutJSON(tx, blobTable, blobKey(c, m.from), b); err != nil {
			return err
		}
		if m.from != p.blob {
			if err := s.moveRows(tx, c, m.from, c, p.blob); err != nil {
				return err
			}
		}
		return src.Keep(tx)
	})
	if err == nil {
		src.Kept()
		s.files.remove(fileIDs(gone))
	}
	return info, err
}

// giveWay takes away the file that lies where b is to be, if the request says so.
func (s *Service) giveWay(tx *store.Tx, p place, c containerRow, b *row, m moving) ([]piece, error) {
	old, err := findBlob(tx, c, p.blob)
	if err != nil || old == nil {
		return nil, err
	}
	if !m.replaces {
		return nil, fileExists()
	}
	if old.Dir || b.Dir {
		return nil, otherType()
	}
	if err := s.allows(m.when, old, false); err != nil {
		return nil, err
	}
	if err := p.charge(tx, c, old, nil); err != nil {
		return nil, err
	}
	return s.replace(tx, p, c, old, nil, nil, replaces)
}

// moveSource is a Grant for the source of a renaming: for whoever calls, or who has the
// signature in its URL.
func (s *Service) moveSource(x exchange, m *moving) (g gate.Grant, err error) {
	const header = "x-ms-file-rename-source"
	bad := fail(http.StatusBadRequest, "InvalidSourceUri", "The header %s must be the URL of a path in the same share, perhaps with a signature.", header)
	to, err := x.g.On(FileWrite)
	if err != nil {
		return g, err
	}
	u, err := url.Parse(x.r.Header.Get(header))
	if err != nil {
		return g, bad
	}
	from, err := s.Locate((&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath, User: u.User}).String())
	if err != nil || from.Item == "" || from.ID.Key() != to.Key() {
		return g, bad
	}
	m.from = from.Item
	from.Op = x.g.Op()
	as := x.g.Caller()
	q, err := parseQuery(u.RawQuery)
	if err != nil {
		return g, err
	}
	if q["sig"] != "" {
		_, raw, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
		rq := request{account: s.at(x.r.Host), container: to.Name(), blob: strings.Trim(raw, "/"), action: FileDelete, secure: true, peer: peerOf(x.r)}
		if as, err = s.bySAS(x.r.Context(), rq, q); err != nil {
			return g, err
		}
	}
	if err := s.reach(s.at(x.r.Host), as, peerOf(x.r)); err != nil {
		return g, err
	}
	return s.Gate.Admit(x.r.Context(), as, FileDelete, from)
}

// nameIn is the path's own name as the request writes it.
func (x exchange) nameIn() (string, error) {
	_, written := sharedPath(x.r)
	name := path.Base(written)
	if fold(name) != path.Base(x.g.Item()) {
		return "", &arm.Error{Code: arm.Internal, Message: "the path was read in two ways"}
	}
	return name, nil
}
