package blob

import (
	"context"
	"net/http"
	"time"

	"castellan/internal/gate"
	"castellan/internal/store"
)

// snapshot keeps the blob that the Grant, for BlobWrite, is about as it is now,
// with other metadata if there is some. The blob stays as it is.
func (s *Service) snapshot(ctx context.Context, g gate.Grant, meta map[string]string, when Conditions) (stamp string, info Info, err error) {
	p, err := s.blobTarget(g, BlobWrite)
	if err != nil {
		return "", info, err
	}
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		c, b, err := s.here(tx, p, when)
		if err != nil {
			return err
		}
		if err := b.Lease.admits(when.Lease, "Blob", false, s.Now()); err != nil {
			return err
		}
		if err := b.online(); err != nil {
			return err
		}
		if stamp, err = s.nextStamp(tx, c, p.blob, b); err != nil {
			return err
		}
		if err := share(tx, b.Gen); err != nil {
			return err
		}
		past := *b
		past.Past, past.Version = isSnapshot, ""
		if len(meta) > 0 {
			past.Meta = meta
		}
		info = b.info(p.blob)
		return bury(tx, c, p.blob, stamp, past)
	})
	return stamp, info, err
}

// here is the blob, which must be there, after conditions that are not of leases.
func (s *Service) here(tx *store.Tx, p place, when Conditions) (containerRow, *row, error) {
	c, err := findContainer(tx, p)
	if err != nil {
		return c, nil, err
	}
	b, err := findBlob(tx, c, p.blob)
	if err == nil && b == nil {
		err = noBlob()
	}
	if err == nil {
		err = p.fits(b)
	}
	if err != nil {
		return c, nil, err
	}
	if err := when.tagged(b); err != nil {
		return c, nil, err
	}
	return c, b, when.check(true, b.ETag, b.Modified, false)
}

// The ways in which a blob's snapshots go with it.
const (
	withSnapshots = "include"
	onlySnapshots = "only"
)

// deletion is what somebody wants deleted.
type deletion struct {
	at        moment
	snapshots string // "", include or only
	when      Conditions
}

// delete deletes what d says of the blob that the Grant, for BlobDelete, or for
// BlobDeleteVersion if it is a version, is about. lasting reports that it is gone
// for good.
func (s *Service) delete(ctx context.Context, g gate.Grant, d deletion) (lasting bool, err error) {
	action := BlobDelete
	if d.at.version != "" {
		action = BlobDeleteVersion
	}
	p, err := s.blobTarget(g, action)
	if err != nil {
		return false, err
	}
	switch {
	case !d.at.current():
		return p.rules.keep <= 0, s.deleteAt(ctx, g, p, d)
	case d.snapshots == onlySnapshots:
		return p.rules.keep <= 0, s.deleteOnlySnapshots(ctx, g, p, d.when)
	}
	var gone []piece
	_, err = s.change(ctx, g, p, replaces, func(tx *store.Tx, c containerRow, old *row) (*row, []piece, error) {
		if old == nil {
			return nil, nil, noBlob()
		}
		if err := s.allows(d.when, old, false); err != nil {
			return nil, nil, err
		}
		gone, err = s.deleteSnapshots(tx, p, c, d.snapshots)
		return nil, nil, err
	})
	if err == nil {
		s.files.remove(fileIDs(gone))
	}
	return p.rules.keep <= 0 && !p.rules.versioning, err
}

// deleteOnlySnapshots deletes the snapshots of a blob, which stays.
func (s *Service) deleteOnlySnapshots(ctx context.Context, g gate.Grant, p place, when Conditions) error {
	var gone []piece
	err := g.Change(ctx, s.DB, func(tx *store.Tx) error {
		c, b, err := s.here(tx, p, Conditions{})
		if err != nil {
			return err
		}
		if err := s.allows(when, b, false); err != nil {
			return err
		}
		gone, err = s.deleteSnapshots(tx, p, c, onlySnapshots)
		return err
	})
	if err == nil {
		s.files.remove(fileIDs(gone))
	}
	return err
}

// deleteSnapshots deletes all snapshots of a blob, or refuses if there are some
// and nobody said that they should go.
func (s *Service) deleteSnapshots(tx *store.Tx, p place, c containerRow, how string) (gone []piece, err error) {
	err = pastOf(tx, c, p.blob, func(r pastRow) error {
		if r.Past != isSnapshot || r.deleted() {
			return nil
		}
		if how == "" {
			return fail(http.StatusConflict, "SnapshotsPresent", "This operation is not permitted while the blob has snapshots; x-ms-delete-snapshots says what becomes of them.")
		}
		ps, err := s.erase(tx, p, c, r)
		gone = append(gone, ps...)
		return err
	})
	return gone, err
}

// deleteAt deletes one snapshot or version.
func (s *Service) deleteAt(ctx context.Context, g gate.Grant, p place, d deletion) error {
	var gone []piece
	err := g.Change(ctx, s.DB, func(tx *store.Tx) error {
		c, err := findContainer(tx, p)
		if err != nil {
			return err
		}
		b, err := findAt(tx, c, p.blob, d.at)
		if err != nil {
			return err
		}
		if b == nil {
			return noBlob()
		}
		if b.Past == "" {
			return fail(http.StatusForbidden, "OperationNotAllowedOnRootBlob", "The current version is not deleted by its id: delete the blob without one.")
		}
		if err := s.allows(d.when, b, false); err != nil {
			return err
		}
		gone, err = s.erase(tx, p, c, pastRow{*b, d.at.stamp()})
		return err
	})
	if err == nil {
		s.files.remove(fileIDs(gone))
	}
	return err
}

// deleteNow removes for good, before its time, a snapshot or version that is
// deleted but kept, of the blob that the Grant, for BlobDeletePermanent, is about.
func (s *Service) deleteNow(ctx context.Context, g gate.Grant, m moment) error {
	p, err := s.blobTarget(g, BlobDeletePermanent)
	if err != nil {
		return err
	}
	if !p.rules.permanent {
		return fail(http.StatusConflict, "PermanentDeleteNotAllowed", "The account's deleteRetentionPolicy does not allow what is kept to be removed before its time (allowPermanentDelete).")
	}
	var gone []piece
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		c, err := findContainer(tx, p)
		if err != nil {
			return err
		}
		key := pastPrefix(c, p.blob) + m.stamp()
		b, ok, err := store.GetJSON[row](tx, pastTable, key)
		switch {
		case err != nil:
			return err
		case !ok || b.Past == isVersion && m.version == "" || b.Past != isVersion && m.version != "":
			return noBlob()
		case !b.deleted():
			return fail(http.StatusConflict, "BlobNotSoftDeleted", "Only a snapshot or version that was deleted already can be removed for good.")
		}
		if err := c.Guard.deletes(&b, s.Now()); err != nil {
			return err
		}
		gone, err = dropPast(tx, key, &b)
		return err
	})
	if err == nil {
		s.files.remove(fileIDs(gone))
	}
	return err
}

// undelete brings back what was deleted of the blob that the Grant, for
// BlobWrite, is about, and is still kept. With versions the blob itself stays as
// it is: a version is copied over it by who wants it back.
func (s *Service) undelete(ctx context.Context, g gate.Grant) error {
	p, err := s.blobTarget(g, BlobWrite)
	if err != nil {
		return err
	}
	return g.Change(ctx, s.DB, func(tx *store.Tx) error {
		c, err := findContainer(tx, p)
		if err != nil {
			return err
		}
		b, err := findBlob(tx, c, p.blob)
		if err != nil {
			return err
		}
		var base *pastRow
		found := b != nil
		if err := pastOf(tx, c, p.blob, func(r pastRow) error {
			found = true
			if !r.deleted() {
				return nil
			}
			key := pastPrefix(c, p.blob) + r.stamp
			if err := tx.Delete(dueTable, dueKey(r.Until, key)); err != nil {
				return err
			}
			r.revive()
			if r.Past == isBase {
				r.Past, base = isSnapshot, &r
			}
			return store.PutJSON(tx, pastTable, key, r.row)
		}); err != nil {
			return err
		}
		if !found {
			return noBlob()
		}
		if b != nil || base == nil {
			return nil
		}
		if err := tx.Delete(pastTable, pastPrefix(c, p.blob)+base.stamp); err != nil {
			return err
		}
		base.Past = ""
		return store.PutJSON(tx, blobTable, blobKey(c, p.blob), base.row)
	})
}

func (b *row) revive() { b.Deleted, b.Until = time.Time{}, time.Time{} }
