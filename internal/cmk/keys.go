package cmk

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"castellan/internal/arm"
	"castellan/internal/seal"
	"castellan/internal/store"
)

// keyTable has the data keys of Keys, under their uids.
const keyTable = "data_keys"

// Keys are the data keys of resources whose rows they guard in the store
// (store.Guard), each wrapped by the root key, and perhaps by a customer's around
// that. It is safe for concurrent use.
type Keys struct {
	db   *store.DB
	ring *Ring

	mu    sync.RWMutex // guards what follows
	uids  map[string]*held
	ids   map[string]*held // by id
	users []*held          // those that a customer's key wraps
}

type keyRow struct {
	UID      string    `json:"uid"`
	ID       arm.ID    `json:"id"`
	Made     time.Time `json:"made"`
	Data     []byte    `json:"data,omitempty"` // wrapped by the root key, unless Customer has it
	Customer *Wrapped  `json:"customer,omitempty"`
}

// held is a key that is known. It is replaced, never changed.
type held struct {
	keyRow
	plain seal.Key // zero if a customer's key guards it
}

// Fresh is a data key that is yet to be kept by Add, or wrapped anew by Rewrap.
type Fresh struct {
	UID      string
	customer *Wrapped
	was      []byte // what Customer was, by its wrapped key
}

// OpenKeys is Keys with those that the store has.
func OpenKeys(ctx context.Context, db *store.DB, ring *Ring) (*Keys, error) {
	k := &Keys{db: db, ring: ring, uids: map[string]*held{}, ids: map[string]*held{}}
	err := db.View(ctx, func(tx *store.Tx) error {
		rows, err := store.ScanJSON[keyRow](tx, keyTable, "", "", 0)
		if err != nil {
			return err
		}
		for _, r := range rows {
			h, err := k.open(r)
			if err != nil {
				return err
			}
			k.know(h)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the data keys: %w", err)
	}
	return k, nil
}

func (k *Keys) open(r keyRow) (h *held, err error) {
	h = &held{keyRow: r}
	if r.Customer == nil {
		if h.plain, err = k.ring.Root.Unwrap(r.Data, r.UID); err != nil {
			return nil, fmt.Errorf("opening the key of %s: %w", r.ID, err)
		}
	}
	return h, nil
}

func (k *Keys) know(h *held) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forgetLocked(h.UID)
	k.uids[h.UID], k.ids[h.ID.Key()] = h, h
	if h.Customer != nil {
		k.users = append(k.users, h)
	}
}

func (k *Keys) forgetLocked(uid string) {
	old := k.uids[uid]
	if old == nil {
		return
	}
	delete(k.uids, uid)
	delete(k.ids, old.ID.Key())
	users := []*held{}
	for _, u := range k.users {
		if u != old {
			users = append(users, u)
		}
	}
	k.users = users
}

// Wrap is a fresh data key under a customer's. It asks the vault.
func (k *Keys) Wrap(ctx context.Context, ref Ref) (*Fresh, error) {
	f := &Fresh{UID: arm.NewUUID()}
	w, err := k.ring.Wrap(ctx, ref, f.UID, seal.Random())
	f.customer = &w
	return f, err
}

// Rewrapped is the data key of uid, under another customer's key or for another
// identity: nil if that is as it was. It asks both keys' vaults.
func (k *Keys) Rewrapped(ctx context.Context, uid string, ref Ref) (*Fresh, error) {
	h := k.byUID(uid)
	if h == nil || h.Customer == nil {
		return nil, arm.Errorf(arm.BadRequest, "no customer's key guards this, and none can from now on")
	}
	if h.Customer.Ref == ref {
		return nil, nil
	}
	key, err := k.ring.Open(ctx, uid, *h.Customer)
	if err != nil {
		return nil, err
	}
	w, err := k.ring.Wrap(ctx, ref, uid, key)
	return &Fresh{uid, &w, h.Customer.Data}, err
}

// Add keeps the data key of a resource that has none: f's, or without it one of its
// own under the root key alone.
func (k *Keys) Add(tx *store.Tx, id arm.ID, uid string, f *Fresh) error {
	r := keyRow{UID: uid, ID: id, Made: k.ring.Now().UTC()}
	if f == nil {
		r.Data = k.ring.Root.Wrap(seal.Random(), uid)
	} else {
		r.Customer = f.customer
	}
	return k.put(tx, r)
}

// Rewrap keeps what Rewrapped made.
func (k *Keys) Rewrap(tx *store.Tx, f *Fresh) error {
	r, ok, err := store.GetJSON[keyRow](tx, keyTable, f.UID)
	if err != nil {
		return err
	}
	if !ok || r.Customer == nil || string(r.Customer.Data) != string(f.was) {
		return arm.Errorf(arm.Conflict, "The key was changed meanwhile. Try again.")
	}
	r.Customer = f.customer
	return k.put(tx, r)
}

func (k *Keys) put(tx *store.Tx, r keyRow) error {
	h, err := k.open(r)
	if err != nil {
		return err
	}
	tx.After(func() { k.know(h) })
	return store.PutJSON(tx, keyTable, r.UID, r)
}

// Drop forgets a data key, and with it all that it guarded, which protects names.
func (k *Keys) Drop(tx *store.Tx, uid, protects string) error {
	r, ok, err := store.GetJSON[keyRow](tx, keyTable, uid)
	if err != nil || !ok {
		return err
	}
	if err := Destroy(tx, Kept{ID: r.ID, UID: uid, Protects: protects, Made: r.Made, Data: r.Data, Customer: r.Customer}, k.ring.Now()); err != nil {
		return err
	}
	tx.After(func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.forgetLocked(uid)
	})
	return tx.Delete(keyTable, uid)
}

// All are the keys as they are kept.
func (k *Keys) All(tx *store.Tx) ([]Kept, error) {
	rows, err := store.ScanJSON[keyRow](tx, keyTable, "", "", 0)
	var out []Kept
	for _, r := range rows {
		out = append(out, Kept{ID: r.ID, UID: r.UID, Made: r.Made, Data: r.Data, Customer: r.Customer})
	}
	return out, err
}

// Customer is how a customer's key wraps the data key uid; nil if none does.
func (k *Keys) Customer(uid string) *Wrapped {
	if h := k.byUID(uid); h != nil {
		return h.Customer
	}
	return nil
}

func (k *Keys) byUID(uid string) *held {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.uids[uid]
}

// Of is the data key with a uid, if there is one, for a store.Guard.
func (k *Keys) Of(uid string) (key seal.Key, there bool, err error) { return k.now(k.byUID(uid)) }

// Below is the data key of the resource that the id, a key of one, lies below. The
// resource itself is not guarded: it says which key guards the rest. Nor is what lies
// in it under one of open, such as /providers/.
func (k *Keys) Below(id string, open ...string) (key seal.Key, there bool, err error) {
	at := 0
	for range 8 { // /subscriptions/S/resourceGroups/G/providers/N/T/NAME
		i := strings.IndexByte(id[min(at+1, len(id)):], '/')
		if i < 0 {
			return key, false, nil
		}
		at += 1 + i
	}
	for _, prefix := range open {
		if strings.HasPrefix(id[at:], prefix) {
			return key, false, nil
		}
	}
	k.mu.RLock()
	h := k.ids[id[:at]]
	k.mu.RUnlock()
	return k.now(h)
}

func (k *Keys) now(h *held) (key seal.Key, there bool, err error) {
	switch {
	case h == nil:
		return key, false, nil
	case h.Customer == nil:
		return h.plain, true, nil
	}
	key, err = k.ring.Held(h.UID, *h.Customer)
	return key, true, err
}

// Ready asks for the customers' keys that guard what lies at, above or below id,
// so that the answers are at hand. What they refuse, the rows themselves refuse.
func (k *Keys) Ready(ctx context.Context, id arm.ID) {
	k.mu.RLock()
	users := k.users
	k.mu.RUnlock()
	for _, h := range users {
		if id.Within(h.ID) || h.ID.Within(id) {
			_, _ = k.ring.Open(ctx, h.UID, *h.Customer) // Held tells what came of it
		}
	}
}

// Turn wraps the keys anew whose customers' keys have newer versions.
func (k *Keys) Turn(ctx context.Context) error {
	k.mu.RLock()
	users := k.users
	k.mu.RUnlock()
	var errs []error
	for _, h := range users {
		w, turned, err := k.ring.Turn(ctx, h.UID, *h.Customer)
		if err == nil && turned {
			err = k.db.Do(ctx, func(tx *store.Tx) error {
				err := k.Rewrap(tx, &Fresh{h.UID, &w, h.Customer.Data})
				if arm.CodeOf(err) == arm.Conflict {
					return nil // it is another by now
				}
				return err
			})
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("wrapping the key of %s anew: %w", h.ID, err))
		}
	}
	return errors.Join(errs...)
}
