package vault

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/key"
	"castellan/internal/seal"
	"castellan/internal/store"
)

// maxBackup is the most bytes of a sealed copy.
const maxBackup = 4 << 20

// packed is what a sealed copy has: the name, and the versions with their values
// in the clear. It is sealed as a whole for the subscription, the only place
// where it opens, as in Azure.
type packed struct {
	Row      nameRow      `json:"row"`
	Versions []versionRow `json:"versions"`
	With     []packed     `json:"with,omitempty"` // of a certificate: its key and its secret
}

func (c *class) backupContext(v *live) string {
	return "backup of " + c.path + " for " + v.ID.Subscription()
}

// pack is a sealed copy of what the Grant is for, with all its versions.
func (s *Service) pack(ctx context.Context, g gate.Grant, c *class) (out []byte, err error) {
	v, name, err := s.of(g, c.backup)
	if err != nil {
		return nil, err
	}
	var p packed
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		if err := s.alive(tx, v); err != nil {
			return err
		}
		row, _, err := c.current(tx, v.UID, name, "")
		if err != nil {
			return err
		}
		if err := c.own(row, "backup"); err != nil {
			return err
		}
		k, err := s.dataKey(tx, v.UID)
		if err == nil {
			p, err = c.pack(tx, k, v.UID, name)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	plain, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	if out = s.root.Derive("backup").Seal(plain, c.backupContext(v)); len(out) > maxBackup/2 {
		return nil, bad("the %s %s has too many versions for a backup: they are %d bytes, of which %d are allowed", c.noun, name, len(out), maxBackup/2)
	}
	return out, nil
}

func (c *class) pack(tx *store.Tx, k seal.Key, uid, name string) (p packed, err error) {
	if p.Row, _, err = c.current(tx, uid, name, ""); err != nil {
		return p, err
	}
	p.Row.Pending = nil
	if p.Versions, err = store.ScanJSON[versionRow](tx, c.versions, nameKey(uid, name)+"/", "", 0); err != nil {
		return p, err
	}
	for i := range p.Versions {
		value, err := c.open(k, uid, name, p.Versions[i])
		if err != nil {
			return p, err
		}
		p.Versions[i].Sealed = value.Reveal()
	}
	for _, w := range c.with {
		q, err := w.pack(tx, k, uid, name)
		if err != nil {
			return p, err
		}
		p.With = append(p.With, q)
	}
	return p, nil
}

// unpack puts a sealed copy into the vault that the Grant is for.
func (s *Service) unpack(ctx context.Context, g gate.Grant, c *class, sealed []byte) (out Object, err error) {
	v, err := s.target(g, c.unpack)
	if err != nil {
		return out, err
	}
	plain, err := s.root.Derive("backup").Open(sealed, c.backupContext(v))
	if err != nil {
		return out, bad("the value is no backup of one of the %s of this subscription", c.path)
	}
	var p packed
	if err := json.Unmarshal(plain, &p); err != nil {
		return out, fmt.Errorf("reading a backup: %w", err)
	}
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		if err := s.alive(tx, v); err != nil {
			return err
		}
		k, err := s.dataKey(tx, v.UID)
		if err != nil {
			return err
		}
		if err := s.unpackOne(tx, k, c, v.UID, p); err != nil {
			return err
		}
		ver, err := c.newest(tx, v.UID, p.Row)
		if err != nil {
			return err
		}
		out, err = s.answered(tx, c, v.UID, p.Row, ver)
		return err
	})
	return out, err
}

func (s *Service) unpackOne(tx *store.Tx, k seal.Key, c *class, uid string, p packed) error {
	name := p.Row.Name
	have, err := s.room(tx, c, uid, name)
	if err != nil {
		return err
	}
	if have.Current != "" || have.Pending != nil {
		return &arm.Error{Code: arm.Conflict, Message: fmt.Sprintf("%s %s is there already; a backup is restored under its own name, where there is none of it.", c.noun, name)}
	}
	for _, ver := range p.Versions {
		ver.Sealed = k.Seal(ver.Sealed, c.context(uid, name, ver.Version))
		if err := store.PutJSON(tx, c.versions, versionKey(uid, name, ver.Version), ver); err != nil {
			return err
		}
	}
	for i, w := range c.with {
		if len(p.With) != len(c.with) {
			return fmt.Errorf("vault: a backup of a %s has %d parts", c.noun, len(p.With))
		}
		if err := s.unpackOne(tx, k, w, uid, p.With[i]); err != nil {
			return err
		}
	}
	return store.PutJSON(tx, c.names, nameKey(uid, name), p.Row)
}

func (s *Service) backupOne(c *class) gate.Verb {
	return func(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
		out, err := s.pack(r.Context(), g, c)
		if err != nil {
			return err
		}
		gate.WriteJSON(w, http.StatusOK, map[string]any{"value": key.Bytes(out)})
		return nil
	}
}

func (s *Service) restoreOne(c *class) gate.Verb {
	return s.answer(c, func(r *http.Request, g gate.Grant) (Object, error) {
		data, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBackup))
		if err != nil {
			return Object{}, arm.Errorf(arm.TooLarge, "the request body could not be read, or is larger than %d bytes", maxBackup)
		}
		var in struct {
			Value key.Bytes `json:"value"`
		}
		if err := arm.Decode(data, &in); err != nil {
			return Object{}, err
		}
		return s.unpack(r.Context(), g, c, in.Value)
	})
}
