package vault

import (
	"encoding/json"
	"fmt"

	"castellan/internal/arm"
	"castellan/internal/cmk"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// KeyTarget is what a Grant for a key of a vault, both given by name, must be for.
func (s *Service) KeyTarget(vault, key string) (gate.Target, error) {
	v := s.byName(vault)
	if v == nil {
		return gate.Target{}, noVault(vault)
	}
	return keys.within(v.ID, key)
}

// SecretTarget is one secret of a vault, for a Grant.
func (s *Service) SecretTarget(vault arm.ID, name string) (gate.Target, error) {
	v := s.byID(vault)
	if v == nil {
		return gate.Target{}, noVault(vault.Name())
	}
	return secrets.within(v.ID, name)
}

// PurgeProtected reports whether nobody can end at once what the vault of this
// name keeps.
func (s *Service) PurgeProtected(vault string) bool {
	v := s.byName(vault)
	return v != nil && v.Props.protected()
}

// Unwraps says whether a version of a key may unwrap now what a customer's key
// guards, whoever asked. One that is expired may not, though it still unwraps.
func (s *Service) Unwraps(tx *store.Tx, vault, key, version string) error {
	v := s.byName(vault)
	if v == nil {
		return noVault(vault)
	}
	_, ver, err := keys.current(tx, v.UID, key, version)
	if err != nil {
		return err
	}
	if err := s.usableFor(ver, opUnwrap); err != nil {
		return err
	}
	return keys.usable(ver, opUnwrap, s.Now())
}

// DataKeys are the keys of all vaults, also of those in the bin.
func (s *Service) DataKeys(tx *store.Tx) ([]cmk.Kept, error) {
	rows, err := store.ScanJSON[named](tx, nameTable, "", "", 0)
	if err != nil {
		return nil, err
	}
	var out []cmk.Kept
	for _, n := range rows {
		k, err := n.kept(tx)
		if err != nil {
			return nil, err
		}
		out = append(out, k)
	}
	return out, nil
}

// kept is the key of the vault that has the name, or had it.
func (n named) kept(tx *store.Tx) (k cmk.Kept, err error) {
	k = cmk.Kept{ID: n.ID, UID: n.UID, Protects: "secrets, keys and certificates of the vault"}
	if k.Data, err = tx.Get(keyTable, n.UID); err != nil {
		return k, err
	}
	var d *resource.Doc
	if n.Deleted == nil {
		d, err = resource.Load(tx, n.ID)
	} else {
		k.Gone = n.Deleted.At
		err = json.Unmarshal(n.Deleted.Doc, &d)
	}
	if err != nil {
		return k, fmt.Errorf("reading the vault %s: %w", n.ID, err)
	}
	if d != nil && d.System != nil {
		k.Made = d.System.CreatedAt
	}
	return k, nil
}
