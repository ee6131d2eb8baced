package cmk

import (
	"time"

	"castellan/internal/arm"
	"castellan/internal/store"
)

// destroyedTable has the keys that were deleted for good and may still lie on disk,
// under their uids.
const destroyedTable = "destroyed_keys"

// Destroyed is a data key that was deleted for good, with all that it sealed.
type Destroyed struct {
	ID         arm.ID    `json:"id"`
	UID        string    `json:"uid"`
	Protects   string    `json:"protects"`
	Thumbprint string    `json:"thumbprint"`
	Customer   *Ref      `json:"customer,omitempty"` // whose key wrapped it too
	With       string    `json:"with,omitempty"`     // and which version
	Made       time.Time `json:"made"`
	At         time.Time `json:"at"`
	By         string    `json:"by"`

	// Of a key in a vault:
	Key     string `json:"key,omitempty"`     // its name
	Version string `json:"version,omitempty"` // which of it
}

// Destroy notes, in the transaction in which it is deleted, that a key is no more.
func Destroy(tx *store.Tx, k Kept, at time.Time) error {
	d := Destroyed{ID: k.ID, UID: k.UID, Protects: k.Protects, Thumbprint: k.Thumbprint(), Made: k.Made.UTC(), At: at.UTC(), By: tx.By}
	if k.Customer != nil {
		d.Customer, d.With = &k.Customer.Ref, k.Customer.With
	}
	return store.PutJSON(tx, destroyedTable, k.UID, d)
}

// DestroyVersion is Destroy for one version of a key in the vault id, which the
// vault's data key sealed.
func DestroyVersion(tx *store.Tx, id arm.ID, key, version string, sealed []byte, made, at time.Time) error {
	d := Destroyed{ID: id, UID: arm.NewHex(), Key: key, Version: version, Protects: "what the key " + key + " of the vault wrapped or encrypted", Thumbprint: Kept{Data: sealed}.Thumbprint(), Made: made.UTC(), At: at.UTC(), By: tx.By}
	return store.PutJSON(tx, destroyedTable, d.UID, d)
}

// Unstated are the keys that were deleted and of which nothing was stated yet.
func Unstated(tx *store.Tx) ([]Destroyed, error) {
	return store.ScanJSON[Destroyed](tx, destroyedTable, "", "", 0)
}

// State takes a key out of the unstated; that it is gone was stated.
func State(tx *store.Tx, d Destroyed) error { return tx.Delete(destroyedTable, d.UID) }
