package vault

import (
	"castellan/internal/gate"
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

// PurgeProtected reports whether nobody can end at once what the vault of this
// name keeps.
func (s *Service) PurgeProtected(vault string) bool {
	v := s.byName(vault)
	return v != nil && v.Props.protected()
}

// Unwraps says whether a version of a key could unwrap now, whoever asked.
func (s *Service) Unwraps(tx *store.Tx, vault, key, version string) error {
	v := s.byName(vault)
	if v == nil {
		return noVault(vault)
	}
	_, ver, err := keys.current(tx, v.UID, key, version)
	if err != nil {
		return err
	}
	return s.usableFor(ver, opUnwrap)
}
