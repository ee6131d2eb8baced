package blob

import (
	"context"
	"encoding/base64"
	"net/http"

	"castellan/internal/gate"
	"castellan/internal/store"
)

// Limits of block blobs, as Azure's.
const (
	maxBlocks  = 50000 // in one blob
	maxBlockID = 64    // bytes of a block's id, decoded
)

func checkBlockID(id string) error {
	b, err := base64.StdEncoding.DecodeString(id)
	if err != nil || len(b) == 0 || len(b) > maxBlockID {
		return fail(http.StatusBadRequest, "InvalidBlockId", "The block id %q is invalid; it must be base64 of 1 to 64 bytes.", id)
	}
	return nil
}

// putBlock keeps a block that waits to be committed to the blob that the Grant,
// for BlobWrite, is about.
func (s *Service) putBlock(ctx context.Context, g gate.Grant, id string, c content, when Conditions) (*taken, error) {
	p, err := s.blobTarget(g, BlobWrite)
	if err != nil {
		return nil, err
	}
	if err := checkBlockID(id); err != nil {
		return nil, err
	}
	if err := s.precheck(ctx, p, when, c.size); err != nil {
		return nil, err
	}
	c.max = maxBlock
	t, err := s.take(ctx, p.data, c)
	if err != nil {
		return nil, err
	}
	if t.piece.Size == 0 {
		return nil, badHeader("Content-Length", "0", "above 0: a block has bytes")
	}
	t.piece.Block = id
	var gone []piece
	if err = s.still(p.account); err == nil { // the upload may have taken its time
		err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
			gone, err = s.await(tx, g, p, t, when)
			return err
		})
	}
	s.settle(t, err)
	if err == nil {
		s.files.remove(fileIDs(gone))
	}
	return t, err
}

// await adds a block to those that wait, and says whose place it took.
func (s *Service) await(tx *store.Tx, g gate.Grant, p place, t *taken, when Conditions) (gone []piece, err error) {
	c, err := findContainer(tx, p)
	if err != nil {
		return nil, err
	}
	old, err := findBlob(tx, c, p.blob)
	if err != nil {
		return nil, err
	}
	if err := s.lists(tx, c, g, p.blob, BlobWrite); err != nil {
		return nil, err
	}
	if err := s.allows(when, old, false); err != nil {
		return nil, err
	}
	if old != nil && old.Dir {
		return nil, pathConflict(p.blob)
	}
	if old != nil && old.Type != blockBlob {
		return nil, wrongType(old.Type)
	}
	prefix := blockPrefix(c, p.blob)
	first, err := store.ScanJSON[waiting](tx, blockTable, prefix, "", 1)
	if err != nil {
		return nil, err
	}
	if len(first) > 0 && len(first[0].Piece.Block) != len(t.piece.Block) {
		return nil, fail(http.StatusBadRequest, "InvalidBlobOrBlock", "The block id %q has another length than those of the blob's other blocks, such as %q.", t.piece.Block, first[0].Piece.Block)
	}
	was, ok, err := store.GetJSON[waiting](tx, blockTable, prefix+t.piece.Block)
	if err != nil {
		return nil, err
	}
	if ok {
		gone = []piece{was.Piece}
		if gone, err = release(tx, gone); err != nil {
			return nil, err
		}
	}
	if err := t.place(tx); err != nil {
		return nil, err
	}
	return gone, store.PutJSON(tx, blockTable, prefix+t.piece.Block, waiting{t.piece, s.Now().UTC()})
}

// The places where a block of a list is looked for.
const (
	committed   = "Committed"
	uncommitted = "Uncommitted"
	latest      = "Latest" // uncommitted, else committed
)

// listed is one block of a list.
type listed struct{ from, id string }

// commit makes the blob that the Grant, for BlobWrite, is about of blocks.
func (s *Service) commit(ctx context.Context, g gate.Grant, list []listed, d draft) (info Info, err error) {
	p, err := s.blobTarget(g, BlobWrite)
	if err != nil {
		return info, err
	}
	if err := checkMeta(d.meta); err != nil {
		return info, err
	}
	return s.change(ctx, g, p, replaces, func(tx *store.Tx, c containerRow, old *row) (*row, []piece, error) {
		if err := s.allows(d.when, old, false); err != nil {
			return nil, nil, err
		}
		if old != nil && old.Type != blockBlob {
			return nil, nil, wrongType(old.Type)
		}
		if old != nil && old.online() != nil && len(list) > 0 {
			return nil, nil, old.online() // its blocks would come out of the archive
		}
		ps, err := choose(tx, c, p.blob, old, list)
		if err != nil {
			return nil, nil, err
		}
		var size int64
		for _, q := range ps {
			size += q.Size
		}
		return s.renew(old, row{Type: blockBlob, Size: size, Head: d.head, Meta: d.meta, Tags: d.tags, Tier: d.tier}), ps, nil
	})
}

// choose finds the blocks of a list.
func choose(tx *store.Tx, c containerRow, name string, old *row, list []listed) ([]piece, error) {
	had, err := pieces(tx, old)
	if err != nil {
		return nil, err
	}
	ws, err := waitingBlocks(tx, c, name)
	if err != nil {
		return nil, err
	}
	done, open := map[string]piece{}, map[string]piece{}
	for _, q := range had {
		if q.Block != "" {
			done[q.Block] = q
		}
	}
	for _, w := range ws {
		open[w.Piece.Block] = w.Piece
	}
	out := make([]piece, 0, len(list))
	for _, l := range list {
		q, ok := open[l.id]
		if l.from == committed || l.from == latest && !ok {
			q, ok = done[l.id]
		}
		if !ok {
			return nil, fail(http.StatusBadRequest, "InvalidBlockList", "The specified block list is invalid: there is no %s block %q.", l.from, l.id)
		}
		out = append(out, q)
	}
	return out, nil
}

// blocks are the committed and the waiting blocks of the blob that the Grant,
// for BlobRead, is about.
func (s *Service) blocks(ctx context.Context, g gate.Grant, when Conditions) (b *row, done, open []piece, err error) {
	p, err := s.blobTarget(g, BlobRead)
	if err != nil {
		return nil, nil, nil, err
	}
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		c, err := findContainer(tx, p)
		if err != nil {
			return err
		}
		if b, err = findBlob(tx, c, p.blob); err != nil {
			return err
		}
		if err := s.allows(Conditions{Lease: when.Lease}, b, true); err != nil {
			return err
		}
		if b != nil && b.Type != blockBlob {
			return wrongType(b.Type)
		}
		ps, err := pieces(tx, b)
		if err != nil {
			return err
		}
		for _, q := range ps {
			if q.Block != "" {
				done = append(done, q)
			}
		}
		ws, err := waitingBlocks(tx, c, p.blob)
		for _, w := range ws {
			open = append(open, w.Piece)
		}
		if err == nil && b == nil && len(ws) == 0 {
			err = noBlob()
		}
		return err
	})
	return b, done, open, err
}
