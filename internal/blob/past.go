package blob

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"castellan/internal/store"
)

// The past of a blob is its snapshots, its earlier versions and what was deleted
// but is still kept, each under the time that names it (a stamp).

// What a row of the past is.
const (
	isSnapshot = "snapshot"
	isVersion  = "version"
	isBase     = "base" // the blob itself, deleted; a snapshot as soon as there is another
)

// stampForm is the form of snapshots' and versions' names: a time of 100 ns.
const stampForm = "2006-01-02T15:04:05.0000000Z"

const tick = 100 * time.Nanosecond

// moment says which state of a blob is meant; the zero value is the current one.
type moment struct{ snapshot, version string }

func (m moment) current() bool { return m == moment{} }

func (m moment) stamp() string { return text(m.snapshot, m.version) }

func pastPrefix(c containerRow, name string) string { return blobKey(c, name) + "\x01" }

// nextStamp is a time, not before now, that nothing of the blob's past or present has.
func (s *Service) nextStamp(tx *store.Tx, c containerRow, name string, cur *row) (string, error) {
	last, err := tx.ScanDown(pastTable, pastPrefix(c, name), "", 1)
	if err != nil {
		return "", err
	}
	at := s.Now().UTC().Truncate(tick)
	taken := ""
	if len(last) > 0 {
		taken = strings.TrimPrefix(last[0].Key, pastPrefix(c, name))
	}
	if cur != nil {
		taken = max(taken, cur.Version)
	}
	if taken >= at.Format(stampForm) {
		t, err := time.Parse(stampForm, taken)
		if err != nil {
			return "", fmt.Errorf("blob: a stamp is %q", taken)
		}
		at = t.Add(tick)
	}
	return at.Format(stampForm), nil
}

// pastRow is a row of a blob's past, with the time that names it.
type pastRow struct {
	row
	stamp string
}

// pastOf calls fn with all of a blob's past, from the first on. fn may change it.
func pastOf(tx *store.Tx, c containerRow, name string, fn func(r pastRow) error) error {
	prefix, after := pastPrefix(c, name), ""
	for {
		rows, err := tx.Scan(pastTable, prefix, after, trashBatch)
		if err != nil {
			return err
		}
		for _, x := range rows {
			r := pastRow{stamp: strings.TrimPrefix(x.Key, prefix)}
			if err := json.Unmarshal(x.Value, &r.row); err != nil {
				return fmt.Errorf("reading a blob's past: %w", err)
			}
			if err := fn(r); err != nil {
				return err
			}
			after = x.Key
		}
		if len(rows) < trashBatch {
			return nil
		}
	}
}

// findAt is the blob as it was at a moment, or nil. What was deleted is not found.
func findAt(tx *store.Tx, c containerRow, name string, m moment) (*row, error) {
	if m.current() {
		return findBlob(tx, c, name)
	}
	if m.version != "" {
		b, err := findBlob(tx, c, name)
		if err != nil || b != nil && b.Version == m.version {
			return b, err
		}
	}
	b, ok, err := store.GetJSON[row](tx, pastTable, pastPrefix(c, name)+m.stamp())
	want := isSnapshot
	if m.version != "" {
		want = isVersion
	}
	if err != nil || !ok || b.Past != want || b.deleted() {
		return nil, err
	}
	return &b, nil
}

func (b *row) deleted() bool { return !b.Deleted.IsZero() }

// bury puts b, as it is, in the past. Its content goes there with it.
func bury(tx *store.Tx, c containerRow, name, stamp string, b row) error {
	b.Lease = nil
	return store.PutJSON(tx, pastTable, pastPrefix(c, name)+stamp, b)
}

// dueKey sorts what is kept for a while by when that is over.
func dueKey(until time.Time, key string) string { return until.UTC().Format(stampForm) + "/" + key }

// mark makes b deleted, for as long as deleted blobs are kept.
func (s *Service) mark(tx *store.Tx, key string, b *row, keep time.Duration) error {
	b.Deleted = s.Now().UTC()
	b.Until = b.Deleted.Add(keep)
	return tx.Put(dueTable, dueKey(b.Until, key), nil)
}

// retire takes old, which is not nil, out of the present: into the past if the
// account's rules keep it there. kept reports that its content stays. over is
// whether another content takes its place.
func (s *Service) retire(tx *store.Tx, p place, c containerRow, old *row, over bool) (kept bool, err error) {
	b := *old
	switch {
	case p.rules.versioning || b.Version != "":
		b.Past = isVersion
		stamp := b.Version
		if stamp == "" { // it is from before there were versions
			if stamp, err = s.nextStamp(tx, c, p.blob, nil); err != nil {
				return false, err
			}
			b.Version = stamp
		}
		return true, bury(tx, c, p.blob, stamp, b)
	case p.rules.keep > 0 && !(p.hns && over): // what is written over is not kept there, as in Azure
		stamp, err := s.nextStamp(tx, c, p.blob, nil)
		if err != nil {
			return false, err
		}
		if b.Past, b.With = isBase, p.with; over {
			b.Past = isSnapshot
		}
		if err := s.mark(tx, pastPrefix(c, p.blob)+stamp, &b, p.rules.keep); err != nil {
			return false, err
		}
		return true, bury(tx, c, p.blob, stamp, b)
	}
	return false, nil
}

// dropPast forgets a row of the past, and says whose bytes nobody has then.
func dropPast(tx *store.Tx, key string, b *row) ([]piece, error) {
	if !b.Until.IsZero() {
		if err := tx.Delete(dueTable, dueKey(b.Until, key)); err != nil {
			return nil, err
		}
	}
	ps, err := dropContent(tx, b)
	if err != nil {
		return nil, err
	}
	if err := tx.Delete(pastTable, key); err != nil {
		return nil, err
	}
	return release(tx, ps)
}

// erase deletes a snapshot or version: for a while if the account keeps what is
// deleted, else for good.
func (s *Service) erase(tx *store.Tx, p place, c containerRow, r pastRow) ([]piece, error) {
	if err := c.Guard.deletes(&r.row, s.Now()); err != nil {
		return nil, err
	}
	key := pastPrefix(c, p.blob) + r.stamp
	if p.rules.keep <= 0 {
		return dropPast(tx, key, &r.row)
	}
	if err := s.mark(tx, key, &r.row, p.rules.keep); err != nil {
		return nil, err
	}
	return nil, store.PutJSON(tx, pastTable, key, r.row)
}

// purge removes for good what was kept long enough.
func (s *Service) purge(ctx context.Context) error {
	for {
		var gone []piece
		var n int
		err := s.DB.Do(ctx, func(tx *store.Tx) error {
			gone = nil
			rows, err := tx.Scan(dueTable, "", "", trashBatch)
			if err != nil {
				return err
			}
			n = 0
			now := s.Now().UTC().Format(stampForm)
			for _, r := range rows {
				until, key, _ := strings.Cut(r.Key, "/")
				if until > now {
					break
				}
				n++
				ps, err := s.purgeOne(tx, r.Key, key)
				if err != nil {
					return err
				}
				gone = append(gone, ps...)
			}
			return nil
		})
		if err != nil {
			return err
		}
		s.files.remove(fileIDs(gone))
		if n < trashBatch {
			return nil
		}
	}
}

func (s *Service) purgeOne(tx *store.Tx, due, key string) ([]piece, error) {
	if err := tx.Delete(dueTable, due); err != nil {
		return nil, err
	}
	if c, ok := strings.CutPrefix(key, lostMark); ok {
		return nil, s.purgeContainer(tx, c)
	}
	b, ok, err := store.GetJSON[row](tx, pastTable, key)
	if err != nil || !ok {
		return nil, err
	}
	return dropPast(tx, key, &b)
}
