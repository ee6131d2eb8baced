package app

import (
	"context"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/cmk"
	"castellan/internal/gate"
	"castellan/internal/identity"
	"castellan/internal/resource"
	"castellan/internal/seal"
	"castellan/internal/store"
	"castellan/internal/tracking"
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
	if on, err = l.vault.KeyTarget(r.Vault, r.Key); err != nil {
		return as, on, err
	}
	if r.Client != "" {
		as, err = l.identity.Standing(r.Tenant, r.Principal, r.Client)
	} else {
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
	if r.Host != "" {
		return l.outside.Newest(ctx, r)
	}
	return customerDo(ctx, l, r, vault.KeyRead, func(g gate.Grant) (string, error) {
		k, err := l.vault.GetKey(ctx, g, "")
		return k.Version, err
	})
}

// Usable asks all that Unwrap would be asked.
func (l customerKeys) Usable(ctx context.Context, r cmk.Ref, version string) error {
	if r.Host != "" {
		return l.outside.Usable(ctx, r, version)
	}
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
	if r.Host != "" {
		return l.outside.Wrap(ctx, r, version, plain)
	}
	return customerDo(ctx, l, r, vault.KeyWrap, func(g gate.Grant) ([]byte, error) {
		_, out, err := l.vault.Wrap(ctx, g, version, wrapping, plain)
		return out, err
	})
}

func (l customerKeys) Unwrap(ctx context.Context, r cmk.Ref, version string, wrapped []byte) ([]byte, error) {
	if r.Host != "" {
		return l.outside.Unwrap(ctx, r, version, wrapped)
	}
	return customerDo(ctx, l, r, vault.KeyUnwrap, func(g gate.Grant) ([]byte, error) {
		if err := l.db.View(ctx, func(tx *store.Tx) error { return l.vault.Unwraps(tx, r.Vault, r.Key, version) }); err != nil {
			return nil, err
		}
		_, out, err := l.vault.Unwrap(ctx, g, version, wrapping, wrapped)
		return out, err
	})
}

// Fit wants a vault that keeps what is deleted: else one deletion could be the
// end of all that the key guards.
func (l customerKeys) Fit(ctx context.Context, r cmk.Ref) error {
	if r.Host != "" {
		return l.outside.Fit(ctx, r)
	}
	if _, err := l.vault.KeyTarget(r.Vault, r.Key); err != nil {
		return arm.Errorf("KeyVaultVaultNotFound", "properties.encryption.keyvaultproperties: there is no key vault %q that can have a key %q", r.Vault, r.Key)
	}
	if !l.vault.PurgeProtected(r.Vault) {
		return arm.Errorf("KeyVaultPolicyError", "The key vault '%s' must have purge protection (enablePurgeProtection) before one of its keys can guard data: without it the key, and with it the data, could be destroyed at once.", r.Vault)
	}
	return nil
}

// Outside reports whether a vault of another installation, or of Azure, may be asked
// for what is a tenant's.
func (l customerKeys) Outside(host, tenant string) bool { return l.outside.Lists(host, tenant) }

// assert is a token by which a managed identity proves itself outside.
func (a *App) assert(ctx context.Context, tenant, principal string) (token arm.Secret, err error) {
	of, err := a.identity.UserAssignedOf(tenant, principal)
	if err != nil {
		return token, err
	}
	as := a.system(tenant, "customers' keys", &arm.Lease{Scope: of, Actions: []arm.Action{identity.MintManaged}, Why: "a customer's key lies outside"})
	return admit(ctx, a.gate, as, identity.MintManaged, gate.Target{ID: of}, func(g gate.Grant) (arm.Secret, error) {
		text, _, _, err := a.identity.ManagedToken(ctx, g, identity.ExchangeAudience, "")
		return arm.NewSecret([]byte(text)), err
	})
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

// guard tells the store which rows workspaces' data keys guard: run history, and
// the resources in a workspace but its computes, which hold no data, and what
// others keep about it.
type guard struct{ keys *cmk.Keys }

func (g guard) key(table, key string) (k seal.Key, guarded bool, err error) {
	switch {
	case table == resource.Table:
		return g.keys.Below(key, "/computes/", "/providers/")
	case history[table]:
		ws, _, _ := strings.Cut(key, "|")
		return g.keys.Of(ws)
	}
	return k, false, nil
}

// history are the tables of run history.
var history = func() map[string]bool {
	out := map[string]bool{}
	for _, t := range tracking.Tables() {
		out[t] = true
	}
	return out
}()

// turnKeys is how often newer versions of customers' keys are looked for.
const turnKeys = 5 * time.Minute

// runKeys wraps the keys of accounts and workspaces anew when customers' keys get newer
// versions, until ctx is done.
func (a *App) runKeys(ctx context.Context) error {
	tick := time.NewTicker(turnKeys)
	defer tick.Stop()
	for {
		a.blob.TurnKeys(ctx)
		if err := a.keys.Turn(ctx); err != nil && ctx.Err() == nil {
			a.Log.Warn("keys of workspaces were not wrapped by the newest versions of customers' keys; it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
