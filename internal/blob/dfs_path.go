package blob

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"castellan/internal/gate"
	"castellan/internal/store"
)

// pathHeaders are what a path is to be served with; was is what it has where the
// request says nothing.
func (x exchange) pathHeaders(was Headers) (Headers, error) {
	for to, name := range map[*string]string{
		&was.ContentType: "x-ms-content-type", &was.Encoding: "x-ms-content-encoding", &was.Language: "x-ms-content-language",
		&was.Cache: "x-ms-cache-control", &was.Disposition: "x-ms-content-disposition",
	} {
		v := x.r.Header.Get(name)
		for _, c := range []byte(v) {
			if c < ' ' || c == 0x7f {
				return was, badHeader(name, v, "without control characters")
			}
		}
		if v != "" {
			*to = v
		}
	}
	sum, err := md5Of(x.r, "x-ms-content-md5")
	if sum != nil {
		was.MD5 = sum
	}
	return was, err
}

// shape is what a request says of the access of the path that it makes.
type shape struct {
	birth
	acl          lists
	hasACL       bool
	owner, group string // "" is as usual
	asked        bool   // the path was there, and the caller may change its access
}

func (s shape) says() bool { return s.has || s.hasACL || s.owner != "" || s.group != "" }

// shape reads it.
func (x exchange) shape() (s shape, err error) {
	h := x.r.Header
	s.birth = birth{owner: ownerOf(x.g), umask: usualMask}
	if v := h.Get("x-ms-umask"); v != "" {
		if s.umask, err = parseMode("x-ms-umask", v, true); err != nil {
			return s, err
		}
	}
	if v := h.Get("x-ms-permissions"); v != "" {
		s.has = true
		if s.mode, err = parseMode("x-ms-permissions", v, false); err != nil {
			return s, err
		}
	}
	if v := h.Get("x-ms-acl"); v != "" {
		s.hasACL = true
		if s.has {
			return s, badHeader("x-ms-acl", v, "left out where x-ms-permissions is set")
		}
		if s.acl, err = parseACL(v, true); err != nil {
			return s, err
		}
	}
	if s.owner, err = principalIn(x.r, "x-ms-owner"); err != nil {
		return s, err
	}
	s.group, err = principalIn(x.r, "x-ms-group")
	return s, err
}

// principalIn is the object id in a header, or "".
func principalIn(r *http.Request, name string) (string, error) {
	v := strings.ToLower(r.Header.Get(name))
	if v != "" && v != superuser && !guidForm.MatchString(v) {
		return "", badHeader(name, v, "the object id of a user or group, or "+superuser)
	}
	return v, nil
}

// give is the access a as the request wants it.
func (s shape) give(a *access, dir bool) (_ *access, err error) {
	out := *a
	if s.owner != "" {
		out.Owner = s.owner
	}
	if s.group != "" {
		out.Group = s.group
	}
	if s.hasACL {
		return out.changed(setsLists, s.acl, dir)
	}
	return &out, nil
}

// createPath is Path Create of a file or directory.
func (s *Service) createPath(x exchange) error {
	p, err := s.pathTarget(x.g, false, BlobWrite)
	if err != nil {
		return err
	}
	if err := x.noBody(); err != nil {
		return err
	}
	next := row{Type: blockBlob, Dir: x.q["resource"] == "directory"}
	if next.Dir && !p.hns {
		return notTree()
	}
	sh, err := x.shape()
	if err != nil {
		return err
	}
	if !p.hns && (sh.says() || x.r.Header.Get("x-ms-umask") != "") {
		return notTree()
	}
	if next.Head, err = x.pathHeaders(Headers{}); err != nil {
		return err
	}
	if next.Meta, _, err = propertiesOf(x.r); err != nil {
		return err
	}
	when, err := conditions(x.r.Header, "")
	if err != nil {
		return err
	}
	if x.q.onlyCreates() {
		when.NoneMatch = "*"
	}
	w, err := x.newLease()
	if err != nil {
		return err
	}
	if sh.asked, err = s.askedToShape(x, p, sh); err != nil {
		return err
	}
	info, err := s.create(x.r.Context(), x.g, p, next, sh, when, w)
	if err == nil && w != nil {
		x.w.Header().Set("x-ms-lease-id", info.lease.ID)
	}
	return x.written(http.StatusCreated, info, err)
}

// noBody refuses a body where nothing would be done with it, and what no path has here.
func (x exchange) noBody() error {
	if x.r.ContentLength > 0 {
		return badHeader("Content-Length", strconv.FormatInt(x.r.ContentLength, 10), "0")
	}
	for _, n := range []string{"x-ms-expiry-option", "x-ms-expiry-time", "x-ms-encryption-context"} {
		if x.r.Header.Get(n) != "" {
			return unsupportedHeader(n)
		}
	}
	return nil
}

// newLease is the lease that a request wants for what it makes, or nil.
func (x exchange) newLease() (*wish, error) {
	if x.r.Header.Get("x-ms-lease-duration") == "" && x.r.Header.Get("x-ms-proposed-lease-id") == "" {
		return nil, nil
	}
	w, err := x.wishFor("acquire")
	return &w, err
}

// askedToShape asks whether the caller may give the path the access that the request
// says, and reports whether it is there already: then it has an owner and a list
// that writing does not change.
func (s *Service) askedToShape(x exchange, p place, sh shape) (there bool, err error) {
	if !sh.says() {
		return false, nil
	}
	err = s.DB.View(x.r.Context(), func(tx *store.Tx) error {
		c, err := findContainer(tx, p)
		if err != nil {
			return err
		}
		b, err := findBlob(tx, c, p.blob)
		there = b != nil
		return err
	})
	if err != nil {
		return false, err
	}
	if there && (sh.has || sh.hasACL) {
		if err := x.also(BlobPermissions); err != nil {
			return false, err
		}
	}
	if sh.group != "" || sh.owner != "" && (there || sh.owner != ownerOf(x.g)) {
		return there, x.also(BlobOwnership)
	}
	return there, nil
}

// create makes a file without bytes, or a directory. A file that is there is
// emptied; what a directory has stays.
func (s *Service) create(ctx context.Context, g gate.Grant, p place, next row, sh shape, when Conditions, w *wish) (Info, error) {
	as := replaces
	return s.change(ctx, g, p, as, func(tx *store.Tx, c containerRow, old *row) (*row, []piece, error) {
		if err := s.allows(when, old, false); err != nil {
			return nil, nil, err
		}
		b := s.renew(old, next)
		if p.hns {
			from := &access{}
			if old != nil {
				if sh.says() && !sh.asked {
					return nil, nil, unmet() // it was not there when the request was let in
				}
				if err := s.mayGive(g, p, sh, old.Access); err != nil {
					return nil, nil, err
				}
				if from = old.Access; sh.has {
					from = from.chmod(sh.mode)
				}
			} else {
				parent, err := s.lead(tx, c, p.blob, sh.birth)
				if err != nil {
					return nil, nil, err
				}
				from = sh.of(parent, next.Dir)
			}
			var err error
			if b.Access, err = sh.give(from, next.Dir); err != nil {
				return nil, nil, err
			}
		}
		if w != nil {
			var err error
			if b.Lease, err = b.Lease.after(*w, s.Now()); err != nil {
				return nil, nil, err
			}
		}
		return b, nil, nil
	})
}

// setPathProperties is Path Update with the action setProperties.
func (s *Service) setPathProperties(x exchange) error {
	meta, _, err := propertiesOf(x.r)
	if err != nil {
		return err
	}
	head, err := x.pathHeaders(Headers{})
	if err != nil {
		return err
	}
	when, err := conditions(x.r.Header, "")
	if err != nil {
		return err
	}
	info, err := s.revise(x.r.Context(), x.g, when, true, func(b *row) {
		if b.setMeta(meta); head.ContentType == "" {
			head.ContentType = b.Head.ContentType
		}
		if head.MD5 == nil {
			head.MD5 = b.Head.MD5
		}
		b.Head = head
	})
	return x.written(http.StatusOK, info, err)
}

// statPath is Path Get Properties, also of its status and its access alone.
func (s *Service) statPath(x exchange) error {
	p, err := s.pathTarget(x.g, true, BlobRead)
	if err != nil {
		return err
	}
	when, err := conditions(x.r.Header, "")
	if err != nil {
		return err
	}
	if x.q["action"] != "" && !p.hns {
		return notTree()
	}
	name, err := x.names()
	if err != nil {
		return err
	}
	var b *row
	err = s.DB.View(x.r.Context(), func(tx *store.Tx) error {
		_, b, err = s.path(tx, p, when, true)
		return err
	})
	if err != nil {
		return err
	}
	info := b.info(p.blob)
	h := x.w.Header()
	if x.q["action"] == "" {
		x.describe(info)
	}
	h.Set("ETag", info.ETag)
	h.Set("Last-Modified", httpTime(info.Modified))
	h.Set("x-ms-resource-type", kindOf(info.dir))
	if a := info.access; a != nil {
		h.Set("x-ms-owner", name(a.Owner))
		h.Set("x-ms-group", name(a.Group))
		h.Set("x-ms-permissions", a.mode())
		if x.q["action"] == "getAccessControl" {
			h.Set("x-ms-acl", a.text(name))
		}
	}
	h.Set("Content-Length", strconv.FormatInt(info.Size, 10))
	if info.MD5 != nil && x.q["action"] == "" {
		h.Set("Content-MD5", base64Of(info.MD5))
	}
	x.w.WriteHeader(http.StatusOK)
	return nil
}

// path is a path that must be there, the root too, after conditions.
func (s *Service) path(tx *store.Tx, p place, when Conditions, reads bool) (containerRow, *row, error) {
	if p.blob != "" {
		return s.look(tx, p, moment{}, when, reads)
	}
	c, err := findContainer(tx, p)
	if err != nil {
		return c, nil, err
	}
	d, err := s.loadContainer(tx, p, when, reads)
	if err != nil {
		return c, nil, err
	}
	info, err := containerInfo(d)
	if err != nil {
		return c, nil, err
	}
	return c, &row{Type: blockBlob, Dir: true, ETag: info.ETag, Created: info.Modified, Modified: info.Modified, Access: c.Root}, nil
}

// deletePath is Path Delete.
func (s *Service) deletePath(x exchange) error {
	p, err := s.pathTarget(x.g, false, BlobDelete)
	if err != nil {
		return err
	}
	recursive, err := x.flag("recursive", false)
	if err != nil {
		return err
	}
	paginated, err := x.flag("paginated", false)
	if err != nil {
		return err
	}
	if _, err := readMarker(x.q["continuation"]); err != nil {
		return err
	}
	when, err := conditions(x.r.Header, "")
	if err != nil {
		return err
	}
	most := 0
	if paginated {
		most = maxPage
	}
	if recursive && p.hns {
		more, err := s.deleteTree(x.r.Context(), x.g, p, when, most)
		if err != nil {
			return err
		}
		if more {
			x.w.Header().Set("x-ms-continuation", newMarker(p.blob))
		}
	} else if _, err := s.delete(x.r.Context(), x.g, deletion{when: when}); err != nil {
		return err
	}
	x.w.WriteHeader(http.StatusOK)
	return nil
}

// deleteTree deletes a path with all that lies below it, at once. With most it
// deletes so many paths, the last first, and says whether there are more.
func (s *Service) deleteTree(ctx context.Context, g gate.Grant, p place, when Conditions, most int) (more bool, err error) {
	var gone []piece
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		gone = nil
		c, b, err := s.alter(tx, g, p, moment{}, when, BlobDelete)
		if err != nil {
			return err
		}
		who, asked, err := s.listedAs(g)
		if err != nil {
			return err
		}
		p.with = b.ETag // which stays while page after page of it goes
		left, before := most, ""
		for b.Dir {
			rows, err := tx.ScanDown(blobTable, blobKey(c, p.blob)+"/", before, trashBatch)
			if err != nil {
				return err
			}
			for _, r := range rows {
				if before = r.Key; most > 0 && left == 0 {
					more = true
					return nil
				}
				left--
				ps, err := s.deleteOne(tx, p, c, strings.TrimPrefix(r.Key, c.UID+"/"), func(b *row) bool {
					return !asked || !b.Dir || b.Access.lets(who, canAll)
				})
				if err != nil {
					return err
				}
				gone = append(gone, ps...)
			}
			if len(rows) < trashBatch {
				break
			}
		}
		if asked && b.Dir && !b.Access.lets(who, canAll) {
			return notListed(p.blob)
		}
		ps, err := s.deleteOne(tx, p, c, p.blob, func(*row) bool { return true })
		gone = append(gone, ps...)
		return err
	})
	if err == nil {
		s.files.remove(fileIDs(gone))
	}
	return more, err
}

// deleteOne deletes one path, if may lets it.
func (s *Service) deleteOne(tx *store.Tx, p place, c containerRow, name string, may func(*row) bool) ([]piece, error) {
	b, err := findBlob(tx, c, name)
	if err != nil || b == nil {
		return nil, err
	}
	if !may(b) {
		return nil, notListed(name)
	}
	if err := c.Guard.deletes(b, s.Now()); err != nil {
		return nil, err
	}
	if name != p.blob && b.Lease.holds(s.Now()) {
		return nil, fail(http.StatusPreconditionFailed, "LeaseIdMissing", "There is currently a lease on %q, which lies in the directory.", name)
	}
	in := p
	in.blob = name
	return s.replace(tx, in, c, b, nil, nil, replaces)
}
