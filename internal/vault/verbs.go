package vault

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// Draft is a secret about to be set. Its zero times say nothing about validity.
type Draft struct {
	Value       arm.Secret
	ContentType string
	Tags        map[string]string
	Disabled    bool
	NotBefore   *time.Time
	Expires     *time.Time
}

// SetSecret makes a new version of the secret that the Grant is for, which is
// then its newest; the secret itself too if there is none of the name.
func (s *Service) SetSecret(ctx context.Context, g gate.Grant, in Draft) (out Secret, err error) {
	v, name, err := s.of(g, SecretSet)
	if err != nil {
		return out, err
	}
	if n := len(in.Value.Reveal()); n == 0 || n > maxValue {
		return out, bad("the value has %d bytes; it must have 1 to %d", n, maxValue)
	}
	now := s.Now().UTC().Truncate(time.Second)
	row := versionRow{
		Version: arm.NewHex(), ContentType: in.ContentType, Tags: in.Tags,
		Attributes: Attributes{Enabled: !in.Disabled, NotBefore: in.NotBefore, Expires: in.Expires, Created: now, Updated: now},
	}
	if err := checkMeta(row.ContentType, row.Tags, row.Attributes); err != nil {
		return out, err
	}
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		if err := s.alive(tx, v); err != nil {
			return err
		}
		have, err := s.roomFor(tx, v.UID, name)
		if err != nil {
			return err
		}
		k, err := s.dataKey(tx, v.UID)
		if err != nil {
			return err
		}
		have.Current = row.Version
		row.Sealed = k.Seal(in.Value.Reveal(), "secret "+versionKey(v.UID, name, row.Version))
		if err := store.PutJSON(tx, versionTable, versionKey(v.UID, name, row.Version), row); err != nil {
			return err
		}
		out = row.secret(have.Name)
		out.Value = in.Value
		return store.PutJSON(tx, secretTable, secretKey(v.UID, name), have)
	})
	return out, err
}

// roomFor is the secret to which a version can be added.
func (s *Service) roomFor(tx *store.Tx, uid, name string) (secretRow, error) {
	have, ok, err := store.GetJSON[secretRow](tx, secretTable, secretKey(uid, name))
	if err != nil || ok {
		return have, err
	}
	old, ok, err := store.GetJSON[secretRow](tx, deletedTable, secretKey(uid, name))
	switch {
	case err != nil:
		return old, err
	case ok && s.over(old):
		return secretRow{Name: name}, eraseSecret(tx, uid, name)
	case ok:
		return old, inBinConflict(name)
	}
	return secretRow{Name: name}, nil
}

func inBinConflict(name string) error {
	return &fault{"ObjectIsDeletedButRecoverable", &arm.Error{Code: arm.Conflict, Message: fmt.Sprintf("Secret %s is currently in a deleted but recoverable state, and its name cannot be reused; in this state, the secret can only be recovered or purged.", name)}}
}

// alive looks, within the transaction, that the vault was not deleted meanwhile.
func (s *Service) alive(tx *store.Tx, v *live) error {
	n, taken, err := s.lookup(tx, v.ID.Name())
	if err == nil && (!taken || n.Deleted != nil || n.UID != v.UID) {
		err = noVault(v.ID.Name())
	}
	return err
}

// GetSecret is a version of the secret that the Grant is for, with its value;
// the newest if version is "".
func (s *Service) GetSecret(ctx context.Context, g gate.Grant, version string) (out Secret, err error) {
	v, name, err := s.of(g, SecretGet)
	if err != nil {
		return out, err
	}
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		if err := s.alive(tx, v); err != nil {
			return err
		}
		row, ver, err := current(tx, v.UID, name, version)
		if err != nil {
			return err
		}
		if err := ver.usable(s.Now()); err != nil {
			return err
		}
		k, err := s.dataKey(tx, v.UID)
		if err != nil {
			return err
		}
		if out, err = ver.open(k, v.UID, name); err == nil {
			out.Name = row.Name
		}
		return err
	})
	return out, err
}

// Amend says what to change of a version; what is nil stays.
type Amend struct {
	ContentType *string
	Tags        map[string]string
	Enabled     *bool
	NotBefore   *time.Time
	Expires     *time.Time
}

// UpdateSecret changes what is said about a version, the newest if version is
// "". Its value never changes.
func (s *Service) UpdateSecret(ctx context.Context, g gate.Grant, version string, in Amend) (out Secret, err error) {
	v, name, err := s.of(g, SecretUpdate)
	if err != nil {
		return out, err
	}
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		if err := s.alive(tx, v); err != nil {
			return err
		}
		row, ver, err := current(tx, v.UID, name, version)
		if err != nil {
			return err
		}
		in.over(&ver)
		ver.Attributes.Updated = s.Now().UTC().Truncate(time.Second)
		if err := checkMeta(ver.ContentType, ver.Tags, ver.Attributes); err != nil {
			return err
		}
		out = ver.secret(row.Name)
		return store.PutJSON(tx, versionTable, versionKey(v.UID, name, ver.Version), ver)
	})
	return out, err
}

func (in Amend) over(v *versionRow) {
	if in.ContentType != nil {
		v.ContentType = *in.ContentType
	}
	if in.Tags != nil {
		v.Tags = in.Tags
	}
	if in.Enabled != nil {
		v.Attributes.Enabled = *in.Enabled
	}
	if in.NotBefore != nil {
		v.Attributes.NotBefore = in.NotBefore
	}
	if in.Expires != nil {
		v.Attributes.Expires = in.Expires
	}
}

// Deleted is a secret in the bin.
type Deleted struct {
	Secret
	At, Purge time.Time
}

// DeleteSecret puts the secret that the Grant is for in the bin, from where it
// can be recovered with all its versions until its time is over.
func (s *Service) DeleteSecret(ctx context.Context, g gate.Grant) (out Deleted, err error) {
	v, name, err := s.of(g, SecretDelete)
	if err != nil {
		return out, err
	}
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		if err := s.alive(tx, v); err != nil {
			return err
		}
		row, ver, err := current(tx, v.UID, name, "")
		if err != nil {
			return err
		}
		now := s.Now().UTC().Truncate(time.Second)
		end := now.AddDate(0, 0, v.Props.retention())
		row.Deleted, row.Purge = &now, &end
		out = Deleted{ver.secret(row.Name), now, end}
		if err := tx.Delete(secretTable, secretKey(v.UID, name)); err != nil {
			return err
		}
		return store.PutJSON(tx, deletedTable, secretKey(v.UID, name), row)
	})
	return out, err
}

// RecoverSecret takes the secret that the Grant is for out of the bin.
func (s *Service) RecoverSecret(ctx context.Context, g gate.Grant) (out Secret, err error) {
	v, name, err := s.of(g, SecretRecover)
	if err != nil {
		return out, err
	}
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		if err := s.alive(tx, v); err != nil {
			return err
		}
		row, ok, err := s.binned(tx, v.UID, name)
		if err != nil {
			return err
		}
		if !ok {
			return noSecret(name)
		}
		row.Deleted, row.Purge = nil, nil
		if err := tx.Delete(deletedTable, secretKey(v.UID, name)); err != nil {
			return err
		}
		if err := store.PutJSON(tx, secretTable, secretKey(v.UID, name), row); err != nil {
			return err
		}
		_, ver, err := current(tx, v.UID, name, "")
		out = ver.secret(row.Name)
		return err
	})
	return out, err
}

// PurgeSecret deletes for good the deleted secret that the Grant is for.
func (s *Service) PurgeSecret(ctx context.Context, g gate.Grant) error {
	v, name, err := s.of(g, SecretPurge)
	if err != nil {
		return err
	}
	return g.Change(ctx, s.DB, func(tx *store.Tx) error {
		if err := s.alive(tx, v); err != nil {
			return err
		}
		_, ok, err := s.binned(tx, v.UID, name)
		if err != nil {
			return err
		}
		if !ok {
			return noSecret(name)
		}
		if v.Props.protected() {
			return shut("ForbiddenByPurgeProtection", "Operation 'purge' is not allowed: the vault has purge protection.")
		}
		return eraseSecret(tx, v.UID, name)
	})
}

// DeletedSecret is the secret in the bin that the Grant is for.
func (s *Service) DeletedSecret(ctx context.Context, g gate.Grant) (out Deleted, err error) {
	v, name, err := s.of(g, SecretMetadata)
	if err != nil {
		return out, err
	}
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		row, ok, err := s.binned(tx, v.UID, name)
		if err != nil {
			return err
		}
		if !ok {
			return &arm.Error{Code: "SecretNotFound", Status: http.StatusNotFound, Message: fmt.Sprintf("Deleted Secret not found: %s", name)}
		}
		out, err = deletedOf(tx, v.UID, row)
		return err
	})
	return out, err
}

func deletedOf(tx *store.Tx, uid string, row secretRow) (Deleted, error) {
	ver, ok, err := store.GetJSON[versionRow](tx, versionTable, versionKey(uid, row.Name, row.Current))
	if err == nil && !ok {
		err = fmt.Errorf("vault: the secret %s of vault %s has no version", row.Name, uid)
	}
	return Deleted{ver.secret(row.Name), *row.Deleted, *row.Purge}, err
}

// Page is part of a list; After is where the next part begins, or "".
type Page[T any] struct {
	Items []T
	After string
}

// Secrets lists the newest version of every secret of the vault that the Grant
// is for, without values.
func (s *Service) Secrets(ctx context.Context, g gate.Grant, after string, limit int) (out Page[Secret], err error) {
	v, err := s.whole(g)
	if err != nil {
		return out, err
	}
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		rows, err := store.ScanJSON[secretRow](tx, secretTable, v.UID+"/", secretKey(v.UID, after), limit+1)
		if err != nil {
			return err
		}
		if len(rows) > limit {
			rows, out.After = rows[:limit], strings.ToLower(rows[limit-1].Name)
		}
		for _, r := range rows {
			_, ver, err := current(tx, v.UID, r.Name, "")
			if err != nil {
				return err
			}
			out.Items = append(out.Items, ver.secret(r.Name))
		}
		return nil
	})
	return out, err
}

// whole is the vault, if the Grant is for what all of it has.
func (s *Service) whole(g gate.Grant) (*live, error) {
	v, err := s.target(g, SecretMetadata)
	if err != nil {
		return nil, err
	}
	if id, err := g.On(SecretMetadata); err != nil || id.Key() != v.ID.Key() {
		return nil, arm.Errorf(arm.Forbidden, "the grant is for one secret, not for the vault %s", v.ID.Name())
	}
	return v, nil
}

// DeletedSecrets lists the secrets in the bin of the vault that the Grant is for.
func (s *Service) DeletedSecrets(ctx context.Context, g gate.Grant, after string, limit int) (out Page[Deleted], err error) {
	v, err := s.whole(g)
	if err != nil {
		return out, err
	}
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		rows, err := store.ScanJSON[secretRow](tx, deletedTable, v.UID+"/", secretKey(v.UID, after), limit+1)
		if err != nil {
			return err
		}
		if len(rows) > limit {
			rows, out.After = rows[:limit], strings.ToLower(rows[limit-1].Name)
		}
		for _, r := range rows {
			if s.over(r) {
				continue
			}
			d, err := deletedOf(tx, v.UID, r)
			if err != nil {
				return err
			}
			out.Items = append(out.Items, d)
		}
		return nil
	})
	return out, err
}

// Versions lists the versions of the secret that the Grant is for, without
// values. Under access policies it takes the permission to list.
func (s *Service) Versions(ctx context.Context, g gate.Grant, after string, limit int) (out Page[Secret], err error) {
	v, name, err := s.of(g, SecretMetadata)
	if err != nil {
		return out, err
	}
	if !v.Props.rbac() && !g.Sees(SecretMetadata, v.ID) {
		return out, arm.Errorf(arm.Forbidden, "no access policy of vault %s gives the permission list on secrets", v.ID.Name())
	}
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		row, _, err := current(tx, v.UID, name, "")
		if err != nil {
			return err
		}
		rows, err := store.ScanJSON[versionRow](tx, versionTable, secretKey(v.UID, name)+"/", versionKey(v.UID, name, after), limit+1)
		if err != nil {
			return err
		}
		if len(rows) > limit {
			rows, out.After = rows[:limit], rows[limit-1].Version
		}
		for _, r := range rows {
			out.Items = append(out.Items, r.secret(row.Name))
		}
		return nil
	})
	return out, err
}
