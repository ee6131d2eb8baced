package cmk

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"castellan/internal/arm"
	"castellan/internal/key"
	"castellan/internal/seal"
)

// vaults is one vault with one RSA key, as a vault's plane has it.
type vaults struct {
	key    key.Key
	shut   atomic.Bool
	hang   bool
	opened atomic.Int32
}

func (v *vaults) Newest(ctx context.Context, r Ref) (string, error) { return "1", v.Usable(ctx, r, "") }

func (v *vaults) Usable(context.Context, Ref, string) error {
	if v.shut.Load() {
		return arm.Errorf(arm.Forbidden, "shut")
	}
	return nil
}

func (v *vaults) Wrap(_ context.Context, _ Ref, _ string, plain []byte) ([]byte, error) {
	return v.key.Wrap("RSA-OAEP-256", plain)
}

func (v *vaults) Unwrap(ctx context.Context, _ Ref, _ string, wrapped []byte) ([]byte, error) {
	v.opened.Add(1)
	if v.hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if err := v.Usable(ctx, Ref{}, ""); err != nil {
		return nil, err
	}
	return v.key.Unwrap("RSA-OAEP-256", wrapped)
}

func newRing(t *testing.T) (*Ring, *vaults) {
	t.Helper()
	k, err := key.Generate(key.RSA, "", 2048)
	if err != nil {
		t.Fatal(err)
	}
	v := &vaults{key: k}
	return &Ring{Root: seal.Random(), Vaults: v, Now: time.Now}, v
}

// Of many who need a key at once one asks the vault; a key whose time is over is
// not in memory any more, whether or not anybody asks.
func TestALeaseEnds(t *testing.T) {
	r, v := newRing(t)
	synctest.Test(t, func(t *testing.T) {
		data := seal.Random()
		w, err := r.Wrap(t.Context(), Ref{Vault: "v", Key: "k"}, "x", data)
		if err != nil {
			t.Fatal(err)
		}
		v.opened.Store(0)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if k, err := r.Open(t.Context(), "x", w); err != nil || !bytes.Equal(k.Bytes(), data.Bytes()) {
					t.Errorf("the key does not open: %v", err)
				}
			})
		}
		wg.Wait()
		if n := v.opened.Load(); n != 1 {
			t.Errorf("the vault was asked %d times, want once", n)
		}
		time.Sleep(Lease + 1) // the bubble's time, which takes none
		synctest.Wait()
		if len(r.leases) != 0 {
			t.Error("a key whose lease is over is in memory still")
		}
	})
}

// A key that is shut ends at the next glance, and its refusals don't each go to
// the vault; a vault that does not answer is told apart from one that refuses.
func TestAKeyIsShut(t *testing.T) {
	r, v := newRing(t)
	synctest.Test(t, func(t *testing.T) {
		w, err := r.Wrap(t.Context(), Ref{Vault: "v", Key: "k"}, "x", seal.Random())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Open(t.Context(), "x", w); err != nil {
			t.Fatal(err)
		}
		v.shut.Store(true)
		time.Sleep(Glance)
		v.opened.Store(0)
		for range 100 {
			if k, err := r.Open(t.Context(), "x", w); arm.CodeOf(err) != "KeyVaultAuthenticationFailure" || !k.IsZero() {
				t.Fatalf("a key that is shut = %v, %v", k, err)
			}
		}
		if n := v.opened.Load(); n != 1 {
			t.Errorf("100 refusals asked the vault %d times, want once", n)
		}
		v.shut.Store(false)
		time.Sleep(pause)
		if _, err := r.Open(t.Context(), "x", w); err != nil {
			t.Errorf("a key that was given back: %v", err)
		}
		if _, err := r.Open(t.Context(), "y", w); err == nil {
			t.Error("one's key opens as another's")
		}
		v.hang = true
		time.Sleep(Lease)
		if _, err := r.Open(t.Context(), "x", w); arm.CodeOf(err) != "ServerBusy" {
			t.Errorf("a vault that hangs = %v", err)
		}
	})
}
