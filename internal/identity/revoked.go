package identity

import (
	"strings"
	"sync"
	"time"

	"castellan/internal/store"
)

const revokedTable = "identity_revoked"

// revocations are the families of tokens that were ended: all that one sign-in
// gave, its access tokens too.
type revocations struct {
	mu sync.RWMutex // guards m
	m  map[string]time.Time
}

func (v *revocations) load(tx *store.Tx) error {
	rows, err := tx.Scan(revokedTable, "", "", 0)
	for _, r := range rows {
		until, err := time.Parse(time.RFC3339, string(r.Value))
		if err != nil {
			return err
		}
		v.m[r.Key] = until
	}
	return err
}

func (v *revocations) has(family string) bool {
	if family == "" {
		return false
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	_, ok := v.m[family]
	return ok
}

// revoke ends a family. It is remembered for as long as anything of it could
// still be shown.
func (v *revocations) revoke(tx *store.Tx, family string, now time.Time) error {
	until := now.Add(refreshLife + verifies).UTC()
	tx.After(func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.m[family] = until
	})
	return tx.Put(revokedTable, family, []byte(until.Format(time.RFC3339)))
}

// sweep forgets what nobody can show any more: revocations, opaque tokens,
// assertion ids and keys whose time has passed.
func (s *Service) sweep(tx *store.Tx, now time.Time) error {
	rows, err := tx.Scan(revokedTable, "", "", 0)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if until, err := time.Parse(time.RFC3339, string(r.Value)); err == nil && now.Before(until) {
			continue
		}
		if err := tx.Delete(revokedTable, r.Key); err != nil {
			return err
		}
		tx.After(func() {
			s.revoked.mu.Lock()
			defer s.revoked.mu.Unlock()
			delete(s.revoked.m, r.Key)
		})
	}
	if err := s.sweepGrants(tx, now); err != nil {
		return err
	}
	if err := s.locks.sweep(tx, now); err != nil {
		return err
	}
	if err := s.sweepRoles(tx, now); err != nil {
		return err
	}
	for _, key := range s.keys.expired(now) {
		if err := tx.Delete(keyTable, string(key.Class)+"|"+key.KID); err != nil {
			return err
		}
		tx.After(func() { s.keys.drop(key.Class, key.KID) })
	}
	return nil
}

// expired are the keys that no longer verify.
func (k *keyring) expired(now time.Time) []*signingKey {
	k.mu.RLock()
	defer k.mu.RUnlock()
	var out []*signingKey
	for _, m := range k.keys {
		for _, key := range m {
			if !key.Until.IsZero() && now.After(key.Until) {
				out = append(out, key)
			}
		}
	}
	return out
}

// sweepGrants deletes opaque tokens and assertion ids whose time has passed.
func (s *Service) sweepGrants(tx *store.Tx, now time.Time) error {
	rows, err := store.ScanJSON[keyedGrant](tx, grantTable, "", "", 0)
	if err != nil {
		return err
	}
	for _, g := range rows {
		if now.Before(g.Expires) {
			continue
		}
		if err := tx.Delete(grantTable, g.Key); err != nil {
			return err
		}
		if g.UserCode == "" {
			continue
		}
		if err := tx.Delete(userCodes, g.UserCode); err != nil {
			return err
		}
	}
	ids, err := tx.Scan(assertionTable, "", "", 0)
	if err != nil {
		return err
	}
	for _, r := range ids {
		if until, err := time.Parse(time.RFC3339, strings.TrimSpace(string(r.Value))); err == nil && now.Before(until) {
			continue
		}
		if err := tx.Delete(assertionTable, r.Key); err != nil {
			return err
		}
	}
	return nil
}
