package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path"
	"slices"

	"castellan/internal/arm"
	"castellan/internal/cmk"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// keysRead is the right to see which key protects what. No key is among it.
var keysRead = arm.NewAction("Castellan.Keys/dataKeys/read", "see which key protects what")

// derived is what keys that are derived from the root key protect, by their labels.
var derived = map[string]string{
	"pages": "every page of the store's file", "values": "every row of the store",
	"blob": "the data keys of storage accounts", "blob infrastructure": "the second keys of storage accounts that are encrypted twice", "vault": "the data keys of key vaults", "workspaces": "the data keys of workspaces",
	"identity signing keys": "the keys that sign tokens", "identity federation": "passwords and keys for other providers",
	"identity flows": "the steps of sign-ins under way", "one-time codes": "the seeds of one-time codes",
	"backup": "backups of secrets, keys and certificates", "backup folder": "the manifests of backups",
}

// keptKeys are the data keys of all resources.
func (a *App) keptKeys(ctx context.Context) (all []cmk.Kept, err error) {
	err = a.db.View(ctx, func(tx *store.Tx) error {
		for _, of := range []func(*store.Tx) ([]cmk.Kept, error){a.vault.DataKeys, a.blob.DataKeys, a.ml.DataKeys} {
			more, err := of(tx)
			if err != nil {
				return err
			}
			all = append(all, more...)
		}
		return nil
	})
	return all, err
}

// dataKeys are the lines of castellan keys about resources that the caller sees.
func (a *App) dataKeys(ctx context.Context, sees func(arm.ID) bool) ([]any, error) {
	all, err := a.keptKeys(ctx)
	if err != nil {
		return nil, err
	}
	out := []any{}
	for _, k := range all {
		if sees(k.ID) {
			out = append(out, a.showKey(ctx, k))
		}
	}
	return out, nil
}

// showKey is one data key as the API shows it. Whether a customer's key may be
// used now is looked at; it is no use of the key.
func (a *App) showKey(ctx context.Context, k cmk.Kept) map[string]any {
	wrapped := []string{"root key"}
	props := map[string]any{"scope": k.ID, "protects": k.Protects, "algorithm": cmp.Or(k.By, "AES-256-GCM"), "state": "Enabled", "thumbprint": k.Thumbprint()}
	if !k.Made.IsZero() {
		props["created"], props["lastRotated"] = k.Made.UTC(), k.Made.UTC()
	}
	if !k.Gone.IsZero() {
		props["state"], props["deleted"] = "Deleted", k.Gone.UTC()
	}
	if c := k.Customer; c != nil {
		id := a.keyID(c.Ref, c.With)
		if c.Host != "" { // whether it may be used is known only when it is
			props["state"] = "Unknown"
		}
		wrapped = append(wrapped, id)
		props["customerKey"] = map[string]any{"keyIdentifier": id, "version": c.With, "followsNewest": c.Version == "", "principalId": c.Principal}
		props["lastRotated"] = c.Rotated
		if err := (customerKeys{a}).Usable(ctx, c.Ref, c.With); err != nil {
			code, message := gate.PublicError(cmk.Refused(err, c.Ref))
			props["state"], props["reason"] = string(code), message
		}
	}
	props["wrappedBy"] = wrapped
	sub := "/subscriptions/" + k.ID.Subscription()
	return map[string]any{"id": sub + "/providers/Castellan.Keys/dataKeys/" + k.UID, "name": k.UID, "type": "Castellan.Keys/dataKeys", "properties": props}
}

// keyID is the identifier of a version of a customer's key.
func (a *App) keyID(r cmk.Ref, version string) string {
	vault := a.Site.VaultURL(r.Vault)
	if r.Host != "" {
		vault = "https://" + r.Host + "/"
	}
	return vault + path.Join("keys", r.Key, version)
}

// rootKeys are the lines about the root key, and about what is derived from it.
func (a *App) rootKeys() []any {
	kind := "a file"
	if a.PassphraseFile != "" {
		kind = "a passphrase"
	}
	if a.inToken() {
		kind = "a key in a token" // which one is nobody's matter but the operator's
	}
	line := func(name, protects, algorithm, by string) any {
		return map[string]any{"name": name, "type": "Castellan.Keys/rootKeys", "properties": map[string]any{"scope": "/", "protects": protects, "algorithm": algorithm, "state": "Enabled", "wrappedBy": []string{by}}}
	}
	out := []any{line("root key", "all keys of the installation", "HKDF-SHA256", kind)}
	for _, label := range slices.Sorted(maps.Keys(derived)) {
		algorithm := "AES-256-GCM"
		if label == "pages" {
			algorithm = "Adiantum"
		}
		out = append(out, line("root key: "+label, derived[label], algorithm, "root key"))
	}
	return out
}

// keyRoutes is the door to which key protects what. Who sees the whole
// subscription sees the installation's keys too.
func (a *App) keyRoutes() []gate.Route {
	return []gate.Route{gate.Each(keysRead, "GET /subscriptions/{sub}/providers/Castellan.Keys/dataKeys", func(r *http.Request, v gate.Vars) (gate.Target, error) {
		if err := resource.Version(r); err != nil {
			return gate.Target{}, err
		}
		id, err := arm.ParseID("/subscriptions/" + v["sub"])
		return gate.Target{ID: id}, err
	}, func(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
		sub, err := g.On(keysRead)
		if err != nil {
			return err
		}
		list, err := a.dataKeys(r.Context(), func(id arm.ID) bool { return id.Within(sub) && g.Sees(keysRead, id) })
		if err != nil {
			return err
		}
		if g.Sees(keysRead, sub) {
			list = append(a.rootKeys(), list...)
		}
		gate.WriteJSON(w, http.StatusOK, map[string]any{"value": list})
		return nil
	})}
}

// Keys tells which key protects what in the data folder of a stopped
// installation. It needs the root key.
func Keys(ctx context.Context, cfg Config) (list []any, err error) {
	if cfg, err = cfg.existing(); err != nil {
		return nil, err
	}
	a, err := New(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("reading the keys: %w", err)
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	list, err = a.dataKeys(ctx, func(arm.ID) bool { return true })
	return append(a.rootKeys(), list...), err
}
