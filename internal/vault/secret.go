package vault

import (
	"context"
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
func (s *Service) SetSecret(ctx context.Context, g gate.Grant, in Draft) (out Object, err error) {
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
		have, err := s.roomFor(tx, secrets, v.UID, name)
		if err != nil {
			return err
		}
		k, err := s.dataKey(tx, v.UID)
		if err != nil {
			return err
		}
		have.Current = row.Version
		row.Sealed = k.Seal(in.Value.Reveal(), secrets.context(v.UID, name, row.Version))
		if err := store.PutJSON(tx, secrets.versions, versionKey(v.UID, name, row.Version), row); err != nil {
			return err
		}
		out = row.object(have)
		out.Value = in.Value
		return store.PutJSON(tx, secrets.names, nameKey(v.UID, name), have)
	})
	return out, err
}

// GetSecret is a version of the secret that the Grant is for, with its value;
// the newest if version is "".
func (s *Service) GetSecret(ctx context.Context, g gate.Grant, version string) (Object, error) {
	out, err := s.load(ctx, g, secrets, SecretGet, version, func(v versionRow) error { return secrets.usable(v, "get", s.Now()) })
	if err == nil && s.Told != nil {
		s.Told(ctx, out.Value)
	}
	return out, err
}

// DeleteSecret puts the secret that the Grant is for in the bin.
func (s *Service) DeleteSecret(ctx context.Context, g gate.Grant) error {
	_, err := s.bury(ctx, g, secrets)
	return err
}

// Amend says what to change of a version; what is nil stays.
type Amend struct {
	ContentType *string
	Tags        map[string]string
	Enabled     *bool
	NotBefore   *time.Time
	Expires     *time.Time
	Ops         []string // what a key may be used for
}

// UpdateSecret changes what is said about a version, the newest if version is
// "". Its value never changes.
func (s *Service) UpdateSecret(ctx context.Context, g gate.Grant, version string, in Amend) (Object, error) {
	return s.amend(ctx, g, secrets, SecretUpdate, version, in)
}

func (s *Service) amend(ctx context.Context, g gate.Grant, c *class, a arm.Action, version string, in Amend) (out Object, err error) {
	v, name, err := s.of(g, a)
	if err != nil {
		return out, err
	}
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		if err := s.alive(tx, v); err != nil {
			return err
		}
		out, err = s.amendParts(tx, c, v.UID, name, version, in)
		return err
	})
	return out, err
}

// amendParts changes a version with what goes with it.
func (s *Service) amendParts(tx *store.Tx, c *class, uid, name, version string, in Amend) (out Object, err error) {
	row, ver, err := c.current(tx, uid, name, version)
	if err != nil {
		return out, err
	}
	if err := c.own(row, "update"); err != nil {
		return out, err
	}
	for _, p := range c.parts() {
		changed, err := s.amendOne(tx, p, uid, name, ver.Version, in)
		if err != nil {
			return out, err
		}
		if p == c {
			out = changed
		}
	}
	return out, nil
}

func (s *Service) amendOne(tx *store.Tx, c *class, uid, name, version string, in Amend) (Object, error) {
	row, ver, err := c.current(tx, uid, name, version)
	if err != nil {
		return Object{}, err
	}
	if err := in.over(&ver); err != nil {
		return Object{}, err
	}
	ver.Attributes.Updated = s.Now().UTC().Truncate(time.Second)
	if err := checkMeta(ver.ContentType, ver.Tags, ver.Attributes); err != nil {
		return Object{}, err
	}
	return ver.object(row), store.PutJSON(tx, c.versions, versionKey(uid, name, ver.Version), ver)
}

func (in Amend) over(v *versionRow) error {
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
	if in.Ops == nil {
		return nil
	}
	k := *v.Key
	k.Ops = in.Ops
	v.Key = &k
	return k.checkOps()
}
