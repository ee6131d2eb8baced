package blob

import (
	"fmt"

	"castellan/internal/store"
)

// A blob, its snapshots and its versions may have one content (a generation), and
// contents may have pieces in common. Who else has a content or a piece is
// counted under its id, only while somebody else does. A content that has no
// other holder gives its pieces back when it goes, and a piece that has none
// gives its bytes back.

// share counts one more holder of a content or piece.
func share(tx *store.Tx, id string) error {
	n, _, err := store.GetJSON[int](tx, refTable, id)
	if err != nil {
		return err
	}
	return store.PutJSON(tx, refTable, id, n+1)
}

// unshare counts one holder less, and reports whether that was the last.
func unshare(tx *store.Tx, id string) (last bool, err error) {
	n, ok, err := store.GetJSON[int](tx, refTable, id)
	switch {
	case err != nil || !ok:
		return err == nil, err
	case n == 1:
		return false, tx.Delete(refTable, id)
	case n < 1:
		return false, fmt.Errorf("blob: the count of %s is %d", id, n)
	}
	return false, store.PutJSON(tx, refTable, id, n-1)
}

// dropContent gives back the content of b, which may be nil, and says which
// pieces nobody has then but perhaps those who count them.
func dropContent(tx *store.Tx, b *row) ([]piece, error) {
	if b == nil {
		return nil, nil
	}
	last, err := unshare(tx, b.Gen)
	if err != nil || !last {
		return nil, err
	}
	ps, err := pieces(tx, b)
	if err != nil {
		return nil, err
	}
	return without(ps, nil), dropLayout(tx, b)
}

// shareBoth counts the pieces that two contents have.
func shareBoth(tx *store.Tx, a, b []piece) error {
	in := make(map[string]bool, len(a))
	for _, p := range a {
		in[p.ID] = true
	}
	for _, p := range without(b, nil) {
		if in[p.ID] {
			if err := share(tx, p.ID); err != nil {
				return err
			}
		}
	}
	return nil
}
