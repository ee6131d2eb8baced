package blob

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/cmk"
	"castellan/internal/resource"
	"castellan/internal/seal"
	"castellan/internal/store"
)

// The sources of the key that wraps an account's (Azure's keySource).
const (
	platformKey = "Microsoft.Storage"
	customerKey = "Microsoft.Keyvault"
)

// Encryption is what clients may say of it. It is always on; the key is wrapped
// by the platform's alone, or also by a customer's.
type Encryption struct {
	Source   string              `json:"keySource,omitempty" arm:"only=Microsoft.Storage|Microsoft.Keyvault"`
	Twice    *bool               `json:"requireInfrastructureEncryption,omitempty" arm:"since=2019-06-01"` // from the beginning or never
	Services any                 `json:"services,omitempty"`
	Identity *EncryptionIdentity `json:"identity,omitempty" arm:"since=2021-01-01"`
	Vault    *VaultKey           `json:"keyvaultproperties,omitempty" arm:"since=2017-06-01"`
}

// EncryptionIdentity is as whom the account asks the vault: its own identity if
// none is named.
type EncryptionIdentity struct {
	User      string `json:"userAssignedIdentity,omitempty"`
	Federated string `json:"federatedIdentityClientId,omitempty" arm:"since=2021-08-01"`
}

// VaultKey is a customer's key in a vault.
type VaultKey struct {
	Name    string `json:"keyname"`
	Version string `json:"keyversion,omitempty"` // "" follows the newest
	URI     string `json:"keyvaulturi"`

	Current string `json:"currentVersionedKeyIdentifier,omitempty" arm:"readonly,since=2019-06-01"`
	Rotated any    `json:"lastKeyRotationTimestamp,omitempty" arm:"readonly,since=2019-06-01"`
	Expires any    `json:"currentVersionedKeyExpirationTimestamp,omitempty" arm:"readonly,since=2021-09-01"`
}

// customer reports whether a customer's key wraps the account's.
func (p Properties) customer() bool { return p.Encryption != nil && p.Encryption.Vault != nil }

// checkEncryption leaves of what a client said the customer's key, or nothing.
// Who does not speak of encryption leaves it as it was.
func (s *Service) checkEncryption(d *resource.Doc, p *Properties, old Properties, fresh bool) error {
	e := p.Encryption
	if e == nil {
		e = old.Encryption
	}
	var twice *bool
	if e != nil && e.Twice != nil {
		twice = e.Twice
	} else if old.Encryption != nil {
		twice = old.Encryption.Twice
	}
	if !fresh && (twice != nil && *twice) != old.Encryption.twice() {
		return fail(http.StatusConflict, "AccountPropertyCannotBeUpdated", "The property 'requireInfrastructureEncryption' was specified in the input, but it cannot be updated as it is read-only.")
	}
	if p.Encryption = nil; e == nil || e.Source != customerKey {
		if twice != nil && *twice {
			p.Encryption = &Encryption{Source: platformKey, Twice: twice}
		}
		return nil
	}
	v := e.Vault
	switch {
	case s.Customers == nil:
		return arm.Errorf(arm.Unsupported, "properties.encryption.keySource is %s; this installation has no vaults", customerKey)
	case v == nil || v.Name == "" || v.URI == "":
		return arm.Errorf(arm.InvalidRequest, "properties.encryption.keySource is %s, so keyvaultproperties must have keyname and keyvaulturi", customerKey)
	}
	_, host, err := s.vaultOf(v.URI, s.Site.TenantOf(d.ID))
	if err != nil {
		return err
	}
	switch federated := e.federated(); {
	case host != "" && federated == "":
		return arm.Errorf(arm.InvalidRequest, "properties.encryption.keyvaultproperties.keyvaulturi names a vault outside of this installation, so encryption.identity must have federatedIdentityClientId: the application there that trusts the account's user-assigned identity")
	case federated != "" && e.userAssigned() == "":
		return arm.Errorf(arm.InvalidRequest, "properties.encryption.identity.federatedIdentityClientId is set, so encryption.identity must have userAssignedIdentity")
	}
	if user := e.userAssigned(); user != "" {
		if !d.Identity.Lists(user) {
			return arm.Errorf(arm.InvalidRequest, "properties.encryption.identity.userAssignedIdentity is %q; it must be one of identity.userAssignedIdentities", user)
		}
	} else if !d.Identity.Has() {
		return arm.Errorf(arm.InvalidRequest, "properties.encryption needs an identity that may use the key: give the account a system-assigned one, or name a user-assigned one in encryption.identity.userAssignedIdentity")
	}
	p.Encryption = &Encryption{Source: customerKey, Twice: twice, Vault: &VaultKey{Name: v.Name, Version: v.Version, URI: v.URI}}
	if user := e.userAssigned(); user != "" {
		p.Encryption.Identity = &EncryptionIdentity{User: user, Federated: e.federated()}
	}
	return nil
}

// twice reports whether bytes are sealed by two keys.
func (e *Encryption) twice() bool { return e != nil && e.Twice != nil && *e.Twice }

func (e *Encryption) userAssigned() string {
	if e.Identity == nil {
		return ""
	}
	return e.Identity.User
}

func (e *Encryption) federated() string {
	if e.Identity == nil {
		return ""
	}
	return strings.ToLower(e.Identity.Federated)
}

// vaultOf is the name of the vault that a URI leads to, and its host if that is one
// outside of the installation which may be asked for what is the tenant's.
func (s *Service) vaultOf(uri, tenant string) (name, outside string, err error) {
	u, err := url.Parse(uri)
	if err == nil && u.Scheme == "https" && u.User == nil && strings.Trim(u.Path, "/") == "" && u.RawQuery == "" {
		if name := arm.Label(u.Host, s.Site.VaultSuffix()); name != "" {
			return name, "", nil
		}
		if host := strings.ToLower(u.Host); s.Customers.Outside(host, tenant) {
			name, _, _ = strings.Cut(host, ".")
			return name, host, nil
		}
	}
	return "", "", arm.Errorf(arm.Unsupported, "properties.encryption.keyvaultproperties.keyvaulturi is %.200q; it must be that of a vault of this installation, https://NAME.%s, or one outside that its administrator permits", uri, s.Site.VaultSuffix())
}

// rekeyed is an account's key, wrapped as a change wants it.
type rekeyed struct {
	row accountRow // of which UID, Data and Customer count
	was accountRow // the account's row when it was wrapped
}

// needsKey wraps the account's key anew if a change asks for another key or
// another identity. It asks the vault, so it comes before the transaction.
func (s *Service) needsKey(ctx context.Context, c resource.Change) (any, error) {
	p, err := propsOf(c.Doc)
	if err != nil {
		return nil, err
	}
	var n rekeyed
	key := seal.Random()
	n.row.UID = arm.NewHex()
	if c.Old != nil {
		if err := s.DB.View(ctx, func(tx *store.Tx) error {
			n.was, _, err = store.GetJSON[accountRow](tx, accountTable, nameKey(c.Doc.Name))
			return err
		}); err != nil {
			return nil, err
		}
		n.row.UID = n.was.UID
	}
	var ref cmk.Ref
	if p.customer() {
		if ref, err = s.ref(ctx, c, p); err != nil {
			return nil, err
		}
		if n.was.Customer != nil && n.was.Customer.Ref == ref {
			return nil, nil
		}
	} else if c.Old == nil || n.was.Customer == nil {
		return nil, nil // there is nothing to wrap anew
	}
	if c.Old != nil {
		if key, err = s.unwrap(ctx, n.was); err != nil {
			return nil, err
		}
	}
	if !p.customer() {
		n.row.Data = s.root.Wrap(key, n.row.UID)
		return &n, nil
	}
	if err := s.Customers.Fit(ctx, ref); err != nil {
		return nil, err
	}
	w, err := s.ring.Wrap(ctx, ref, n.row.UID, key)
	if err != nil {
		return nil, cmk.AsBadRequest(err)
	}
	n.row.Customer = &w
	return &n, nil
}

// ref names the key that p asks for, and the identity as which it is asked.
func (s *Service) ref(ctx context.Context, c resource.Change, p Properties) (cmk.Ref, error) {
	r := cmk.Ref{Key: p.Encryption.Vault.Name, Version: p.Encryption.Vault.Version, Tenant: s.Site.TenantOf(c.Doc.ID), Client: p.Encryption.federated()}
	var err error
	if r.Vault, r.Host, err = s.vaultOf(p.Encryption.Vault.URI, r.Tenant); err != nil {
		return r, err
	}
	if user := p.Encryption.userAssigned(); user != "" {
		id, err := arm.ParseID(user)
		if err != nil {
			return r, err
		}
		r.Principal, err = s.Customers.UserAssigned(ctx, id)
		return r, err
	}
	if c.Old == nil || c.Old.Identity == nil || c.Old.Identity.Principal == "" {
		return r, arm.Errorf(arm.InvalidRequest, "properties.encryption asks for a customer's key with the system-assigned identity, which is only made with this request: make the account with it first, give it the right to use the key, and then set the key; or use a user-assigned identity")
	}
	r.Principal = c.Old.Identity.Principal
	return r, nil
}

// rekey takes what needsKey made into the account's row.
func (n *rekeyed) rekey(r *accountRow) error {
	if n.was.UID != "" && !n.was.sameKey(*r) {
		return arm.Errorf(arm.Conflict, "The key of the storage account %s was changed meanwhile. Try again.", r.ID.Name())
	}
	r.UID, r.Data, r.Customer = n.row.UID, n.row.Data, n.row.Customer
	return nil
}

// sameKey reports whether both have the same key, wrapped alike.
func (r accountRow) sameKey(o accountRow) bool {
	if r.UID != o.UID || !bytes.Equal(r.Data, o.Data) || (r.Customer == nil) != (o.Customer == nil) {
		return false
	}
	return r.Customer == nil || r.Customer.Same(*o.Customer)
}

// unwrap is the key of the account's bytes, if it may be used now.
func (s *Service) unwrap(ctx context.Context, r accountRow) (seal.Key, error) {
	if r.Customer != nil {
		return s.ring.Open(ctx, r.UID, *r.Customer)
	}
	k, err := s.root.Unwrap(r.Data, r.UID)
	if err != nil {
		return k, fmt.Errorf("opening the key of the account %s: %w", r.ID, err)
	}
	return k, nil
}

// dataKey is the key of the account's bytes, if it may be used now.
func (s *Service) dataKey(a *account) (k dataKey, err error) {
	k = dataKey{a.plain, a.outer}
	if a.Customer != nil {
		k.Key, err = s.unwrap(context.Background(), a.accountRow)
	}
	return k, err
}

// readable says whether what people wrote in the account may be shown in a list:
// its metadata and tags are in the store, and are theirs all the same.
func (s *Service) readable(x exchange) error {
	a := s.at(x.r.Host)
	if a == nil {
		return noAccount(s.accountOf(x.r.Host))
	}
	_, err := s.dataKey(a)
	return err
}

// still says whether an account's key that was taken a while ago may be used
// still. Meanwhile it may have been wrapped anew.
func (s *Service) still(a *account) error {
	if a.Customer == nil {
		return nil
	}
	now := s.byName(a.ID.Name())
	if now == nil || now.UID != a.UID {
		return noAccount(a.ID.Name())
	}
	_, err := s.dataKey(now)
	return err
}

// TurnKeys wraps those accounts' keys anew whose customers' keys have newer versions.
func (s *Service) TurnKeys(ctx context.Context) {
	s.mu.RLock()
	var all []*account
	for _, a := range s.names {
		if a.Customer != nil {
			all = append(all, a)
		}
	}
	s.mu.RUnlock()
	for _, a := range all {
		if err := s.turnKey(ctx, a); err != nil && ctx.Err() == nil {
			s.Log.Warn("the key of a storage account was not wrapped by the newest version of the customer's; it is tried again", "account", a.ID.String(), "error", err)
		}
	}
}

func (s *Service) turnKey(ctx context.Context, a *account) error {
	w, turned, err := s.ring.Turn(ctx, a.UID, *a.Customer)
	if err != nil || !turned {
		return err
	}
	return s.DB.Do(ctx, func(tx *store.Tx) error {
		r, ok, err := store.GetJSON[accountRow](tx, accountTable, nameKey(a.ID.Name()))
		if err != nil || !ok || !r.sameKey(a.accountRow) {
			return err // it is another by now
		}
		d, err := resource.Load(tx, r.ID)
		if err != nil || d == nil {
			return err
		}
		r.Customer = &w
		if err := store.PutJSON(tx, accountTable, nameKey(r.ID.Name()), r); err != nil {
			return err
		}
		return s.remember(tx, r, d)
	})
}

// showEncryption is an account's encryption as Azure shows it.
func (s *Service) showEncryption(d *resource.Doc, created time.Time) map[string]any {
	out := map[string]any{
		"keySource": platformKey, "requireInfrastructureEncryption": false,
		"services": map[string]any{"blob": map[string]any{"enabled": true, "keyType": "Account", "lastEnabledTime": created}},
	}
	var p Properties
	if json.Unmarshal(d.Properties, &p) != nil {
		return out
	}
	if out["requireInfrastructureEncryption"] = p.Encryption.twice(); !p.customer() {
		return out
	}
	v := map[string]any{"keyname": p.Encryption.Vault.Name, "keyvaulturi": p.Encryption.Vault.URI}
	if p.Encryption.Vault.Version != "" {
		v["keyversion"] = p.Encryption.Vault.Version
	}
	if a := s.byName(d.Name); a != nil && a.Customer != nil {
		v["currentVersionedKeyIdentifier"] = strings.TrimSuffix(p.Encryption.Vault.URI, "/") + "/keys/" + a.Customer.Key + "/" + a.Customer.With
		v["lastKeyRotationTimestamp"] = a.Customer.Rotated
	}
	out["keySource"], out["keyvaultproperties"] = customerKey, v
	if p.Encryption.Identity != nil {
		out["identity"] = p.Encryption.Identity
	}
	return out
}

// DataKeys are the keys of all accounts.
func (s *Service) DataKeys(tx *store.Tx) ([]cmk.Kept, error) {
	rows, err := store.ScanJSON[accountRow](tx, accountTable, "", "", 0)
	if err != nil {
		return nil, err
	}
	var out []cmk.Kept
	for _, r := range rows {
		d, err := resource.Load(tx, r.ID)
		if err != nil {
			return nil, err
		}
		out = append(out, r.kept(d)...)
	}
	return out, nil
}

// kept are the account's keys; d is the account.
func (r accountRow) kept(d *resource.Doc) []cmk.Kept {
	k := cmk.Kept{ID: r.ID, UID: r.UID, Protects: "blobs of the account", Data: r.Data, Customer: r.Customer}
	if d != nil && d.System != nil {
		k.Made = d.System.CreatedAt
	}
	if r.Outer == nil {
		return []cmk.Kept{k}
	}
	return []cmk.Kept{k, {ID: r.ID, UID: r.UID + "-2", Protects: "blobs of the account, a second time", By: "ChaCha20", Made: k.Made, Data: r.Outer}}
}
