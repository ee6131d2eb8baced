// Package cmk keeps data keys that a customer's own key wraps, in a key vault.
//
// Such a data key lies on disk wrapped twice: by the platform's root key, and
// around that by the customer's. It is opened by asking the vault, as the
// identity of whose data it is, and held in memory for a Lease; then the vault is
// asked again. Meanwhile a glance at the key and the right to it, which opens
// nothing, is enough. So whoever disables or deletes the key, or takes the
// identity's right to unwrap away, ends all reading and writing at once, and
// whoever gives it back has everything back.
package cmk

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"castellan/internal/arm"
	"castellan/internal/seal"
)

const (
	// Lease is how long a data key is used without asking the vault again.
	Lease = 30 * time.Second
	// Glance is how long the last look at the key stands.
	Glance = 250 * time.Millisecond
	// hold is how long an answer of Held stands: what was let in while the key could
	// be used may end so much later.
	hold = 5 * time.Second
	// pause is how long a refusal stands, so that clients of what is shut do not
	// each go to the vault.
	pause = time.Second
	// away is how long it stands that a vault does not answer: each try takes its
	// time, and somebody waits for it.
	away = 5 * time.Second
	// patience is how long a vault may take to answer.
	patience = 10 * time.Second
)

// busy is what clients are told where a vault does not answer, and try again.
const busy arm.Code = "ServerBusy"

// Ref names a customer's key, and the identity that may use it.
type Ref struct {
	Vault     string `json:"vault"`             // the vault's name
	Key       string `json:"key"`               // the key's name
	Version   string `json:"version,omitempty"` // "" follows the newest
	Tenant    string `json:"tenant"`
	Principal string `json:"principal"` // object id of the identity

	Host   string `json:"host,omitempty"`   // of a vault outside of the installation
	Client string `json:"client,omitempty"` // id of an application where the vault is, which trusts the identity and acts for it there
}

// Wrapped is a data key as it is kept.
type Wrapped struct {
	Ref
	With    string    `json:"with"` // the version that wrapped it
	Data    []byte    `json:"data"`
	Rotated time.Time `json:"rotated"` // when it was wrapped
}

// Vaults asks vaults for what their keys do, always as the Ref's identity. Its
// errors are those of the vault's plane.
type Vaults interface {
	// Newest is the version of the key that is used if none is named.
	Newest(ctx context.Context, r Ref) (string, error)
	// Usable is nil if Unwrap would unwrap. It is no use of the key.
	Usable(ctx context.Context, r Ref, version string) error
	Wrap(ctx context.Context, r Ref, version string, plain []byte) ([]byte, error)
	Unwrap(ctx context.Context, r Ref, version string, wrapped []byte) ([]byte, error)
}

// Ring opens data keys. It is safe for concurrent use.
type Ring struct {
	Root   seal.Key
	Vaults Vaults
	Now    func() time.Time

	mu     sync.Mutex // guards leases
	leases map[string]*lease
}

// lease is one data key while it may be used.
type lease struct {
	mu    sync.Mutex // held while the vault is asked, so that it is asked once
	of    Wrapped
	key   seal.Key
	err   error
	until time.Time // the answer, key or err, stands so long
	seen  time.Time // when the vault was last looked at
	drop  *time.Timer

	last atomic.Pointer[answer] // for who may not wait
}

// answer is what a lease said last.
type answer struct {
	of    Ref
	key   seal.Key
	err   error
	until time.Time
}

// Wrap wraps a data key, which uid names, with the customer's key as it is now.
func (r *Ring) Wrap(ctx context.Context, ref Ref, uid string, key seal.Key) (Wrapped, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	w := Wrapped{Ref: ref, With: ref.Version, Rotated: r.Now().UTC()}
	var err error
	if w.With == "" {
		if w.With, err = r.Vaults.Newest(ctx, ref); err != nil {
			return w, Refused(err, ref)
		}
	}
	if w.Data, err = r.Vaults.Wrap(ctx, ref, w.With, r.Root.Wrap(key, uid)); err != nil {
		return w, Refused(err, ref)
	}
	// A key that wraps and does not unwrap would lose everything.
	if _, err := r.unwrap(ctx, uid, w); err != nil {
		return w, err
	}
	return w, nil
}

func (r *Ring) unwrap(ctx context.Context, uid string, w Wrapped) (seal.Key, error) {
	inner, err := r.Vaults.Unwrap(ctx, w.Ref, w.With, w.Data)
	if err != nil {
		return seal.Key{}, Refused(err, w.Ref)
	}
	return r.Root.Unwrap(inner, uid)
}

// Open is the data key that w has, of what uid names.
func (r *Ring) Open(ctx context.Context, uid string, w Wrapped) (seal.Key, error) {
	r.mu.Lock()
	if r.leases == nil {
		r.leases = map[string]*lease{}
	}
	l := r.leases[uid]
	if l == nil {
		l = &lease{}
		r.leases[uid] = l
	}
	r.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.tell()
	asked := r.Now()
	stands := l.of.Same(w) && asked.Before(l.until)
	if stands && (l.err != nil || asked.Sub(l.seen) < Glance) {
		return l.key, l.err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience) // others wait for the answer too
	defer cancel()
	if stands && r.Vaults.Usable(ctx, w.Ref, w.With) == nil { // else asking tells why, and leaves a record
		l.seen = asked
		return l.key, nil
	}
	l.key, l.err = r.unwrap(ctx, uid, w)
	l.of, l.until, l.seen = w, asked.Add(Lease), asked
	if l.err != nil {
		l.until = r.Now().Add(pause) // since the refusal: it may have taken its time
		if arm.CodeOf(l.err) == busy {
			l.until = r.Now().Add(away)
		}
	}
	if l.drop != nil {
		l.drop.Stop()
	}
	l.drop = time.AfterFunc(Lease, func() { r.lapse(uid, l) })
	return l.key, l.err
}

// tell lets Held know what the lease says.
func (l *lease) tell() {
	until := l.seen.Add(hold)
	if l.until.Before(until) {
		until = l.until
	}
	l.last.Store(&answer{l.of.Ref, l.key, l.err, until})
}

// Held is what Open said a moment ago. It asks nobody, and may be called where
// nobody may wait; if nothing was said it has somebody ask for the next time.
func (r *Ring) Held(uid string, w Wrapped) (seal.Key, error) {
	r.mu.Lock()
	l := r.leases[uid]
	r.mu.Unlock()
	if l != nil {
		if a := l.last.Load(); a != nil && a.of == w.Ref && r.Now().Before(a.until) {
			return a.key, a.err
		}
	}
	if l == nil || l.mu.TryLock() { // else somebody asks already
		if l != nil {
			l.mu.Unlock()
		}
		go func() { _, _ = r.Open(context.Background(), uid, w) }() // Held tells what came of it
	}
	return seal.Key{}, &arm.Error{Code: busy, Status: http.StatusServiceUnavailable, Message: "The key vault that guards the data is asked. Try again."}
}

// Same reports whether both are one wrapping.
func (w Wrapped) Same(o Wrapped) bool {
	return w.Ref == o.Ref && w.With == o.With && bytes.Equal(w.Data, o.Data)
}

// lapse takes a data key whose time is over out of memory, whether or not anybody
// asks for it.
func (r *Ring) lapse(uid string, l *lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.leases[uid] == l {
		delete(r.leases, uid)
	}
}

// Turn wraps the data key anew if a newer version of the customer's key is there,
// and w follows the newest. The data stays as it is.
func (r *Ring) Turn(ctx context.Context, uid string, w Wrapped) (next Wrapped, turned bool, err error) {
	if w.Version != "" {
		return w, false, nil
	}
	newest, err := r.Vaults.Newest(ctx, w.Ref)
	if err != nil || newest == w.With {
		return w, false, err
	}
	key, err := r.Open(ctx, uid, w)
	if err != nil {
		return w, false, err
	}
	next, err = r.Wrap(ctx, w.Ref, uid, key)
	return next, err == nil, err
}

// Refused is err as the service tells its clients whose data the key guards.
func Refused(err error, ref Ref) error {
	e, ok := errors.AsType[*arm.Error](err)
	if !ok || e.Code == arm.Internal {
		return &arm.Error{Code: busy, Status: http.StatusServiceUnavailable, Message: "The key vault that guards the data does not answer. Try again.", Err: err}
	}
	const see = " The data can't be read or written until the vault lets the identity use the key."
	out := &arm.Error{Code: "KeyVaultEncryptionKeyNotFound", Status: http.StatusForbidden, Message: "The key '" + ref.Key + "' of the vault '" + ref.Vault + "' can't be used: it is not there, disabled, expired or not meant for this." + see, Err: err}
	switch {
	case e.Code == arm.Forbidden || e.Code == arm.WrongTenant || e.Code == arm.Unauthenticated:
		out.Code, out.Message = "KeyVaultAuthenticationFailure", "The vault '"+ref.Vault+"' refuses the identity "+ref.Principal+" the use of the key '"+ref.Key+"'."+see
	case e.Code == "VaultNotFound":
		out.Code, out.Message = "KeyVaultVaultNotFound", "The vault '"+ref.Vault+"' is not there."+see
	}
	return out
}

// AsBadRequest is a vault's refusal as Resource Manager tells it to who chooses a key.
func AsBadRequest(err error) error {
	if e, ok := err.(*arm.Error); ok && e.Status == http.StatusForbidden {
		return &arm.Error{Code: e.Code, Status: http.StatusBadRequest, Message: e.Message, Err: e.Err}
	}
	return err
}
