package ml

import (
	"context"
	"net/url"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/cmk"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// What a workspace keeps in the store (run history, jobs, datastores, data, models,
// environments) lies under a data key of its own. encryption says that a
// customer's key wraps that; it is so from the beginning or never, and the key
// stays in its vault, as in Azure.
type encryption struct {
	Status   string              `json:"status" arm:"only=Enabled|Disabled"`
	Identity *encryptionIdentity `json:"identity,omitempty" arm:"since=2021-03-01-preview"`
	Key      *encryptionKey      `json:"keyVaultProperties,omitempty"`
	CosmosDB string              `json:"cosmosDbArmId,omitempty" arm:"only=,since=2022-12-01-preview previews"`
	Storage  string              `json:"storageAccountArmId,omitempty" arm:"only=,since=2022-12-01-preview previews"`
	Search   string              `json:"searchAccountArmId,omitempty" arm:"only=,since=2022-12-01-preview previews"`
	Cosmos2  string              `json:"cosmosDbResourceId,omitempty" arm:"only=,since=2022-01-01-preview 2025-12-01"`
	Storage2 string              `json:"storageAccountResourceId,omitempty" arm:"only=,since=2022-01-01-preview 2025-12-01"`
	Search2  string              `json:"searchAccountResourceId,omitempty" arm:"only=,since=2022-01-01-preview 2025-12-01"`
}

// encryptionIdentity is as whom the vault is asked: the workspace's primary
// user-assigned identity if none is named.
type encryptionIdentity struct {
	User link `json:"userAssignedIdentity"`
}

type encryptionKey struct {
	Vault  link   `json:"keyVaultArmId"`
	Key    string `json:"keyIdentifier"`              // without a version it follows the newest
	Client string `json:"identityClientId,omitempty"` // of an application where the vault is, in another tenant or outside, that trusts the identity
}

const encryptionEnabled = "Enabled"

// keyWatch is how often a job that runs looks whether its workspace's key may be used.
const keyWatch = time.Second

// customer reports whether a customer's key guards the workspace.
func (p workspaceProps) customer() bool {
	return p.Encryption != nil && strings.EqualFold(p.Encryption.Status, encryptionEnabled)
}

// keyUser is as whom the vault is asked.
func (p workspaceProps) keyUser() link {
	if i := p.Encryption.Identity; i != nil && !i.User.IsZero() {
		return i.User
	}
	return p.PrimaryUserAssignedIdentity
}

// checkEncryption holds what a change says of encryption against the rules. Who says
// nothing leaves it as it was.
func (s *Service) checkEncryption(d *resource.Doc, p *workspaceProps, was *workspaceProps) error {
	if p.Encryption == nil && was != nil {
		p.Encryption = was.Encryption
	}
	e := p.Encryption
	if was != nil && was.customer() != p.customer() {
		return arm.Errorf(arm.BadRequest, "encryption.status can't be changed after the workspace was made; it is %s", was.encryptionStatus())
	}
	if !p.customer() {
		if e != nil && (e.Key != nil && (e.Key.Key != "" || !e.Key.Vault.IsZero()) || e.Identity != nil && !e.Identity.User.IsZero()) {
			return arm.Errorf(arm.BadRequest, "encryption.status is Disabled, so keyVaultProperties and identity must be empty")
		}
		p.Encryption = nil
		return nil
	}
	if s.Customers == nil {
		return arm.Errorf(arm.Unsupported, "encryption.status is Enabled; this installation has no vaults")
	}
	if e.Key == nil || e.Key.Key == "" || e.Key.Vault.IsZero() {
		return arm.Errorf(arm.BadRequest, "encryption.status is Enabled, so encryption.keyVaultProperties must have keyVaultArmId and keyIdentifier")
	}
	if err := e.Key.Vault.is(vaultType, "encryption.keyVaultProperties.keyVaultArmId"); err != nil {
		return err
	}
	host, _, _, err := s.keyOf(e.Key, s.Site.TenantOf(d.ID))
	if err != nil {
		return err
	}
	if host != "" && e.Key.Client == "" {
		return arm.Errorf(arm.BadRequest, "encryption.keyVaultProperties.keyIdentifier names a vault outside of this installation, so identityClientId must be the application there that trusts the user-assigned identity")
	}
	if was != nil && was.Encryption.Key.Vault.Key() != e.Key.Vault.Key() {
		return arm.Errorf(arm.BadRequest, "encryption.keyVaultProperties.keyVaultArmId can't be changed; it is '%s', and another key must lie in the same vault", was.Encryption.Key.Vault)
	}
	user := p.keyUser()
	if user.IsZero() {
		return arm.Errorf(arm.BadRequest, "encryption needs an identity that may use the key before the workspace is made: name a user-assigned one in encryption.identity.userAssignedIdentity or in primaryUserAssignedIdentity")
	}
	if err := user.is(userIDType, "encryption.identity.userAssignedIdentity"); err != nil {
		return err
	}
	if !d.Identity.Lists(user.String()) {
		return arm.Errorf(arm.BadRequest, "encryption.identity.userAssignedIdentity is '%s', which is not among identity.userAssignedIdentities", user)
	}
	return nil
}

func (p workspaceProps) encryptionStatus() string {
	if p.customer() {
		return encryptionEnabled
	}
	return "Disabled"
}

// keyOf reads a key's identifier, https://VAULT/keys/NAME or with /VERSION, which
// must be of the vault that is named beside it. outside is its host if that is not of
// the installation, and may be asked for what is the tenant's.
func (s *Service) keyOf(e *encryptionKey, tenant string) (outside, name, version string, err error) {
	u, err := url.Parse(e.Key)
	var label string
	if err == nil && u.Scheme == "https" && u.User == nil && u.RawQuery == "" {
		if label = arm.Label(u.Host, s.Site.VaultSuffix()); label == "" && s.Customers.Outside(u.Host, tenant) {
			outside = strings.ToLower(u.Host)
			label, _, _ = strings.Cut(outside, ".")
		}
	}
	if label != "" && strings.EqualFold(label, e.Vault.Name()) {
		parts := strings.Split(strings.Trim(u.Path, "/"), "/")
		if (len(parts) == 2 || len(parts) == 3) && parts[0] == "keys" && parts[1] != "" {
			return outside, parts[1], strings.Join(parts[2:], ""), nil
		}
	}
	return "", "", "", arm.Errorf(arm.BadRequest, "encryption.keyVaultProperties.keyIdentifier is %.200q; it must be a key of the vault in keyVaultArmId, %skeys/NAME or %skeys/NAME/VERSION, or of one outside that the administrator of this installation permits", e.Key, s.Site.VaultURL(e.Vault.Name()), s.Site.VaultURL(e.Vault.Name()))
}

// needsKey wraps the workspace's data key by the customer's as a change wants it.
func (s *Service) needsKey(ctx context.Context, c resource.Change) (any, error) {
	p, err := props[workspaceProps](c.Doc)
	if err != nil || !p.customer() {
		return nil, err
	}
	r := cmk.Ref{Vault: p.Encryption.Key.Vault.Name(), Tenant: s.Site.TenantOf(c.Doc.ID), Client: strings.ToLower(p.Encryption.Key.Client)}
	if r.Host, r.Key, r.Version, err = s.keyOf(p.Encryption.Key, r.Tenant); err != nil {
		return nil, err
	}
	if r.Principal, err = s.Customers.UserAssigned(ctx, p.keyUser().ID); err != nil {
		return nil, err
	}
	var f *cmk.Fresh
	if c.Old == nil {
		if err := s.Customers.Fit(ctx, r); err != nil {
			return nil, err
		}
		f, err = s.Keys.Wrap(ctx, r)
	} else {
		var in workspaceInner
		if in, err = inner[workspaceInner](c.Old); err != nil {
			return nil, err
		}
		f, err = s.Keys.Rewrapped(ctx, in.ID, r)
	}
	if err != nil {
		return nil, cmk.AsBadRequest(err)
	}
	return f, nil
}

// removeWorkspace forgets the workspace's data key, without which what is left of
// it is noise.
func (s *Service) removeWorkspace(tx *store.Tx, d *resource.Doc) error {
	in, err := inner[workspaceInner](d)
	if err != nil {
		return err
	}
	return s.Keys.Drop(tx, in.ID, protects)
}

const protects = "run history, jobs and assets of the workspace"

// DataKeys are the keys of all workspaces.
func (s *Service) DataKeys(tx *store.Tx) ([]cmk.Kept, error) {
	out, err := s.Keys.All(tx)
	for i := range out {
		out[i].Protects = protects
	}
	return out, err
}
