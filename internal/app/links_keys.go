package app

import (
	"context"

	"castellan/internal/arm"
	"castellan/internal/cmk"
	"castellan/internal/gate"
	"castellan/internal/store"
	"castellan/internal/vault"
)

// wrapping is how customers' keys wrap data keys (RFC 7518, section 4.3).
const wrapping = "RSA-OAEP-256"

// customerKeys is the vaults' data plane for what customers' keys guard, as the
// identity of whose data it is: its rights are asked for, and recorded, as
// anybody's.
type customerKeys struct{ *App }

// of is who asks, and for what.
func (l customerKeys) of(r cmk.Ref) (as arm.Caller, on gate.Target, err error) {
	if on, err = l.vault.KeyTarget(r.Vault, r.Key); err == nil {
		as, err = l.identity.Known(r.Tenant, r.Principal)
	}
	return as, on, err
}

func customerDo[T any](ctx context.Context, l customerKeys, r cmk.Ref, act arm.Action, do func(gate.Grant) (T, error)) (out T, err error) {
	as, on, err := l.of(r)
	if err != nil {
		return out, err
	}
	return admit(ctx, l.gate, as, act, on, do)
}

func (l customerKeys) Newest(ctx context.Context, r cmk.Ref) (string, error) {
	return customerDo(ctx, l, r, vault.KeyRead, func(g gate.Grant) (string, error) {
		k, err := l.vault.GetKey(ctx, g, "")
		return k.Version, err
	})
}

// Usable asks all that Unwrap would be asked.
func (l customerKeys) Usable(ctx context.Context, r cmk.Ref, version string) error {
	as, on, err := l.of(r)
	if err != nil {
		return err
	}
	if ok, why := l.gate.Judge(as, vault.KeyUnwrap, on); !ok {
		return arm.Errorf(arm.Forbidden, "%s", why)
	}
	return l.db.View(ctx, func(tx *store.Tx) error { return l.vault.Unwraps(tx, r.Vault, r.Key, version) })
}

func (l customerKeys) Wrap(ctx context.Context, r cmk.Ref, version string, plain []byte) ([]byte, error) {
	return customerDo(ctx, l, r, vault.KeyWrap, func(g gate.Grant) ([]byte, error) {
		_, out, err := l.vault.Wrap(ctx, g, version, wrapping, plain)
		return out, err
	})
}

func (l customerKeys) Unwrap(ctx context.Context, r cmk.Ref, version string, wrapped []byte) ([]byte, error) {
	return customerDo(ctx, l, r, vault.KeyUnwrap, func(g gate.Grant) ([]byte, error) {
		_, out, err := l.vault.Unwrap(ctx, g, version, wrapping, wrapped)
		return out, err
	})
}

// Fit wants a vault that keeps what is deleted: else one deletion could be the
// end of all that the key guards.
func (l customerKeys) Fit(_ context.Context, r cmk.Ref) error {
	if _, err := l.vault.KeyTarget(r.Vault, r.Key); err != nil {
		return arm.Errorf("KeyVaultVaultNotFound", "properties.encryption.keyvaultproperties: there is no key vault %q that can have a key %q", r.Vault, r.Key)
	}
	if !l.vault.PurgeProtected(r.Vault) {
		return arm.Errorf("KeyVaultPolicyError", "The key vault '%s' must have purge protection (enablePurgeProtection) before one of its keys can guard data: without it the key, and with it the data, could be destroyed at once.", r.Vault)
	}
	return nil
}

func (l customerKeys) UserAssigned(ctx context.Context, id arm.ID) (principal string, err error) {
	err = l.db.View(ctx, func(tx *store.Tx) error {
		var ok bool
		if principal, _, ok, err = l.identity.UserAssigned(tx, id); err == nil && !ok {
			err = arm.Errorf(arm.NotFound, "the user-assigned identity %s does not exist", id)
		}
		return err
	})
	return principal, err
}
