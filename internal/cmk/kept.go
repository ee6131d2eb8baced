package cmk

import (
	"crypto/sha256"
	"encoding/hex"
	"time"

	"castellan/internal/arm"
)

// Kept is a data key as it is kept, with what it guards. Nothing of it is a secret
// but the key itself, which is wrapped.
type Kept struct {
	ID       arm.ID // the resource whose data it seals
	UID      string // tells it from all others, of all times
	Protects string // what it seals, for people
	By       string // the algorithm; "" is AES-256-GCM
	Made     time.Time
	Gone     time.Time // when the resource was deleted, if it can still be recovered
	Data     []byte    // wrapped by the root key, unless Customer has it
	Customer *Wrapped
}

// Thumbprint is the SHA-256, in hex, of the key as it lies on disk.
func (k Kept) Thumbprint() string {
	data := k.Data
	if k.Customer != nil {
		data = k.Customer.Data
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
