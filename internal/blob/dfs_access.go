package blob

import (
	"context"
	"net/http"
	"slices"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// setAccess is Path Update with the action setAccessControl.
func (s *Service) setAccess(x exchange) error {
	p, err := x.treeTarget(true, BlobPermissions)
	if err != nil {
		return err
	}
	sh, err := x.shape()
	if err != nil {
		return err
	}
	if !sh.says() {
		return fail(http.StatusBadRequest, "MissingRequiredHeader", "One of the headers x-ms-owner, x-ms-group, x-ms-permissions and x-ms-acl must say what changes.")
	}
	if sh.owner != "" || sh.group != "" {
		if err := x.also(BlobOwnership); err != nil {
			return err
		}
	}
	when, err := conditions(x.r.Header, "")
	if err != nil {
		return err
	}
	info, err := s.give(x.r.Context(), x.g, p, sh, when)
	return x.written(http.StatusOK, info, err)
}

// give changes the access of the path, or the root, that the Grant, for
// BlobPermissions, is about. Its etag stays.
func (s *Service) give(ctx context.Context, g gate.Grant, p place, sh shape, when Conditions) (info Info, err error) {
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		c, b, err := s.path(tx, p, when, false)
		if err != nil {
			return err
		}
		if err := s.lists(tx, c, g, p.blob, BlobPermissions); err != nil {
			return err
		}
		if err := s.mayGive(g, p, sh, b.Access); err != nil {
			return err
		}
		next := b.Access
		if sh.has {
			next = next.chmod(sh.mode)
		}
		if b.Access, err = sh.give(next, b.Dir); err != nil {
			return err
		}
		info = b.info(p.blob)
		return s.keepAccess(tx, p, c, p.blob, b)
	})
	return info, err
}

// mayGive holds owners to what they may give away: what is theirs to a group that
// they are in, and never to another owner.
func (s *Service) mayGive(g gate.Grant, p place, sh shape, was *access) error {
	if sh.owner == "" && sh.group == "" || s.roleOwns(g, p) {
		return nil
	}
	who := g.Caller()
	if l := who.Lease; l != nil && l.For != "" {
		var err error
		if who, err = s.Signer(context.Background(), who.Tenant, l.For); err != nil {
			return err
		}
	}
	if sh.owner != "" && sh.owner != was.Owner || sh.group != "" && sh.group != was.Group && !slices.Contains(who.Groups, sh.group) {
		return arm.Errorf(arm.Forbidden, "An owner may give a path to a group that the owner is in, and to nobody else.")
	}
	return nil
}

// roleOwns reports whether the Grant's holder may change owners by a role or a
// credential, and not only by being one.
func (s *Service) roleOwns(g gate.Grant, p place) bool {
	c := g.Caller()
	if l := c.Lease; l != nil {
		return !l.Listed && l.Allows(BlobOwnership, p.containerID(p.container))
	}
	return s.May != nil && s.May(c, BlobOwnership, p.containerID(p.container))
}

// keepAccess writes b, whose access changed, where it was; name is "" for the root.
func (s *Service) keepAccess(tx *store.Tx, p place, c containerRow, name string, b *row) error {
	if name == "" {
		c.Root = b.Access
		return store.PutJSON(tx, containerTable, p.UID+"/"+p.container, c)
	}
	return store.PutJSON(tx, blobTable, blobKey(c, name), b)
}

// Limits of changes of many paths, as Azure's.
const maxRecords = 2000

// failedJSON is a path whose access was not changed.
type failedJSON struct {
	Name    string `json:"name"`
	Type    string `json:"type"` // DIRECTORY or FILE
	Message string `json:"errorMessage"`
}

// recursionJSON is what one request of a recursive change did.
type recursionJSON struct {
	Directories int          `json:"directoriesSuccessful"`
	Files       int          `json:"filesSuccessful"`
	Failures    int          `json:"failureCount"`
	Failed      []failedJSON `json:"failedEntries"`
}

// recursion is what somebody wants changed of many paths.
type recursion struct {
	how    string
	lists  lists
	after  string // the last path of the request before, "" for the first
	begun  bool
	most   int
	forces bool // goes on where a path's access is not the caller's to change
}

// setAccessBelow is Path Update with the action setAccessControlRecursive: so many
// paths by a request, the next of which goes on behind them.
func (s *Service) setAccessBelow(x exchange) error {
	p, err := x.treeTarget(true, BlobPermissions)
	if err != nil {
		return err
	}
	var r recursion
	switch r.how = x.q["mode"]; r.how {
	case setsLists, modifiesList, removesList:
	default:
		return badQuery("mode", r.how, "set, modify or remove")
	}
	if r.lists, err = parseACL(x.r.Header.Get("x-ms-acl"), r.how != removesList); err != nil {
		return err
	}
	if r.how == setsLists {
		if _, err := rootAccess("").changed(r.how, r.lists, true); err != nil {
			return err
		}
	}
	if r.most, err = x.q.count("maxrecords", maxRecords); err != nil {
		return err
	}
	if r.forces, err = x.flag("forceflag", false); err != nil {
		return err
	}
	if v := x.q["continuation"]; v != "" {
		r.begun = true
		if r.after, err = readMarker(v); err != nil {
			return err
		}
	}
	out, next, err := s.giveBelow(x.r.Context(), x.g, p, r)
	if err != nil {
		return err
	}
	if next != "" {
		x.w.Header().Set("x-ms-continuation", next)
	}
	x.namespace()
	gate.WriteJSON(x.w, http.StatusOK, out)
	return nil
}

// giveBelow changes the access of the path that the Grant, for BlobPermissions, is
// about and of what lies below it, and says where to go on. The paths of one
// request are changed at once.
func (s *Service) giveBelow(ctx context.Context, g gate.Grant, p place, r recursion) (out recursionJSON, next string, err error) {
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		out, next = recursionJSON{Failed: []failedJSON{}}, ""
		c, top, err := s.path(tx, p, Conditions{}, true)
		if err != nil {
			return err
		}
		if err := s.lists(tx, c, g, p.blob, BlobPermissions); err != nil {
			return err
		}
		who, asked, err := s.listedAs(g)
		if err != nil {
			return err
		}
		one := func(name string, b *row) error {
			problem := ""
			if asked && b.Access.Owner != who.Object {
				problem = "This request is not authorized to perform this operation using this permission."
			} else if a, err := b.Access.changed(r.how, r.lists, b.Dir); err != nil {
				_, problem = gate.PublicError(err)
			} else {
				b.Access = a
				if b.Dir {
					out.Directories++
				} else {
					out.Files++
				}
				return s.keepAccess(tx, p, c, name, b)
			}
			out.Failures++
			out.Failed = append(out.Failed, failedJSON{name, map[bool]string{true: "DIRECTORY", false: "FILE"}[b.Dir], problem})
			return nil
		}
		left := r.most
		if !r.begun {
			left--
			if err := one(p.blob, top); err != nil {
				return err
			}
		}
		last := text(r.after, p.blob)
		if !top.Dir {
			return nil
		}
		whole := true
		if left > 0 && (r.forces || out.Failures == 0) {
			after := r.after
			whole, err = within(tx, c, p.blob, after, left, func(name string, b *row) error {
				if !r.forces && out.Failures > 0 {
					return nil
				}
				last = name
				return one(name, b)
			})
		} else {
			whole = false
		}
		if err == nil && !whole && (r.forces || out.Failures == 0) {
			next = newMarker(last)
		}
		return err
	})
	return out, next, err
}
