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
		if p.Row, _, err = c.current(tx, v.UID, name, ""); err != nil {
			return err
		}
		if p.Versions, err = store.ScanJSON[versionRow](tx, c.versions, nameKey(v.UID, name)+"/", "", 0); err != nil {
			return err
		}
		k, err := s.dataKey(tx, v.UID)
		if err != nil {
			return err
		}
		for i := range p.Versions {
			value, err := c.open(k, v.UID, name, p.Versions[i])
			if err != nil {
				return err
			}
			p.Versions[i].Sealed = value.Reveal()
		}
		return nil
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
	name := p.Row.Name
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		if err := s.alive(tx, v); err != nil {
			return err
		}
		have, err := s.roomFor(tx, c, v.UID, name)
		if err != nil {
			return err
		}
		if have.Current != "" {
			return &arm.Error{Code: arm.Conflict, Message: fmt.Sprintf("%s %s is there already; a backup is restored under its own name, where there is none of it.", c.noun, name)}
		}
		k, err := s.dataKey(tx, v.UID)
		if err != nil {
			return err
		}
		for _, ver := range p.Versions {
			ver.Sealed = k.Seal(ver.Sealed, c.context(v.UID, name, ver.Version))
			if err := store.PutJSON(tx, c.versions, versionKey(v.UID, name, ver.Version), ver); err != nil {
				return err
			}
		}
		if err := store.PutJSON(tx, c.names, nameKey(v.UID, name), p.Row); err != nil {
			return err
		}
		out, err = c.newest(tx, v.UID, p.Row)
		return err
	})
	return out, err
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
