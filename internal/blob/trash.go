package blob

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"castellan/internal/store"
)

const (
	// trashBatch is how many rows are removed in one transaction, for which all
	// other writes wait.
	trashBatch = 200
	// blockLife is how long a block waits to be committed.
	blockLife = 7 * 24 * time.Hour
)

// sweep removes files that no row names: what an upload left that the process
// did not survive, or a removal that it didn't.
func (s *Service) sweep(ctx context.Context) error {
	return s.files.each(func(id string) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if s.files.isFresh(id) { // asked first: once it is settled its row can be seen
			return nil
		}
		var named bool
		err := s.DB.View(ctx, func(tx *store.Tx) error {
			b, err := tx.Get(fileTable, id)
			named = b != nil
			return err
		})
		if err == nil && !named {
			s.files.remove([]string{id})
		}
		return err
	})
}

// empty removes what deleted containers held.
func (s *Service) empty(ctx context.Context) error {
	for {
		uid := ""
		if err := s.DB.View(ctx, func(tx *store.Tx) error {
			rows, err := tx.Scan(trashTable, "", "", 1)
			if len(rows) > 0 {
				uid = rows[0].Key
			}
			return err
		}); err != nil || uid == "" {
			return err
		}
		if err := s.emptyOne(ctx, uid); err != nil {
			return err
		}
	}
}

func (s *Service) emptyOne(ctx context.Context, uid string) error {
	for {
		var gone []piece
		var left bool
		err := s.DB.Do(ctx, func(tx *store.Tx) (err error) {
			gone, left, err = shovel(tx, uid)
			if err == nil && !left {
				err = tx.Delete(trashTable, uid)
			}
			return err
		})
		if err != nil {
			return err
		}
		s.files.remove(fileIDs(gone))
		if !left {
			return nil
		}
	}
}

// shovel removes some rows of a deleted container, and says whether there are more.
func shovel(tx *store.Tx, uid string) (gone []piece, left bool, err error) {
	for _, table := range []string{blobTable, pastTable} {
		rows, err := tx.Scan(table, uid+"/", "", trashBatch)
		if err != nil {
			return nil, false, err
		}
		left = left || len(rows) == trashBatch
		for _, r := range rows {
			var b row
			if err := json.Unmarshal(r.Value, &b); err != nil {
				return nil, false, fmt.Errorf("reading a blob's row: %w", err)
			}
			ps, err := dropRow(tx, table, r.Key, &b)
			if err != nil {
				return nil, false, err
			}
			gone = append(gone, ps...)
		}
	}
	blocks, err := tx.Scan(blockTable, uid+"/", "", trashBatch)
	if err != nil {
		return nil, false, err
	}
	more, err := dropWaiting(tx, blocks, func(waiting) bool { return true })
	if err != nil {
		return nil, false, err
	}
	more, err = release(tx, more)
	return append(gone, more...), left || len(blocks) == trashBatch, err
}

// dropRow forgets a blob or its past, and says whose bytes nobody has then.
func dropRow(tx *store.Tx, table, key string, b *row) ([]piece, error) {
	if table == pastTable {
		return dropPast(tx, key, b)
	}
	ps, err := dropContent(tx, b)
	if err != nil {
		return nil, err
	}
	if err := tx.Delete(table, key); err != nil {
		return nil, err
	}
	return release(tx, ps)
}

// dropWaiting forgets those of the rows that old says.
func dropWaiting(tx *store.Tx, rows []store.Row, old func(waiting) bool) (gone []piece, err error) {
	for _, r := range rows {
		var w waiting
		if err := json.Unmarshal(r.Value, &w); err != nil {
			return nil, fmt.Errorf("reading a block's row: %w", err)
		}
		if !old(w) {
			continue
		}
		if err := tx.Delete(blockTable, r.Key); err != nil {
			return nil, err
		}
		gone = append(gone, w.Piece)
	}
	return gone, nil
}

// expire removes blocks that waited too long.
func (s *Service) expire(ctx context.Context) error {
	limit := s.Now().Add(-blockLife)
	for after := ""; ; {
		var gone []piece
		var n int
		err := s.DB.Do(ctx, func(tx *store.Tx) error {
			rows, err := tx.Scan(blockTable, "", after, trashBatch)
			if err != nil {
				return err
			}
			if n = len(rows); n > 0 {
				after = strings.Clone(rows[n-1].Key)
			}
			if gone, err = dropWaiting(tx, rows, func(w waiting) bool { return w.Since.Before(limit) }); err != nil {
				return err
			}
			gone, err = release(tx, gone)
			return err
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
