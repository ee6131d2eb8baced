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

// roomFor is the name to which a version can be added.
func (s *Service) roomFor(tx *store.Tx, c *class, uid, name string) (nameRow, error) {
	have, err := s.room(tx, c, uid, name)
	if err == nil {
		err = c.own(have, "set")
	}
	return have, err
}

// room is roomFor, also for what is a certificate's.
func (s *Service) room(tx *store.Tx, c *class, uid, name string) (nameRow, error) {
	have, ok, err := store.GetJSON[nameRow](tx, c.names, nameKey(uid, name))
	if err != nil || ok {
		return have, err
	}
	old, ok, err := store.GetJSON[nameRow](tx, c.bin, nameKey(uid, name))
	switch {
	case err != nil:
		return old, err
	case ok && s.over(old):
		return nameRow{Name: name}, s.end(tx, c, uid, name)
	case ok:
		return old, c.inBin(name)
	}
	return nameRow{Name: name}, nil
}

func (c *class) inBin(name string) error {
	return &fault{"ObjectIsDeletedButRecoverable", &arm.Error{Code: arm.Conflict, Message: fmt.Sprintf("%s %s is currently in a deleted but recoverable state, and its name cannot be reused; in this state, it can only be recovered or purged.", c.noun, name)}}
}

// alive looks, within the transaction, that the vault was not deleted meanwhile.
func (s *Service) alive(tx *store.Tx, v *live) error {
	n, taken, err := s.lookup(tx, v.ID.Name())
	if err == nil && (!taken || n.Deleted != nil || n.UID != v.UID) {
		err = noVault(v.ID.Name())
	}
	return err
}

// load is a version of what the Grant, for a, is for; the newest if version is
// "". Its value is opened if may agrees; without may none is.
func (s *Service) load(ctx context.Context, g gate.Grant, c *class, a arm.Action, version string, may func(versionRow) error) (out Object, err error) {
	v, name, err := s.of(g, a)
	if err != nil {
		return out, err
	}
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		if err := s.alive(tx, v); err != nil {
			return err
		}
		row, ver, err := c.current(tx, v.UID, name, version)
		if err != nil {
			return err
		}
		out = ver.object(row)
		if may == nil {
			return nil
		}
		if err := may(ver); err != nil {
			return err
		}
		k, err := s.dataKey(tx, v.UID)
		if err != nil {
			return err
		}
		out.Value, err = c.open(k, v.UID, name, ver)
		return err
	})
	return out, err
}

// bury puts what the Grant is for in the bin, from where it can be recovered
// with all its versions until its time is over.
func (s *Service) bury(ctx context.Context, g gate.Grant, c *class) (out Object, err error) {
	v, name, err := s.of(g, c.del)
	if err != nil {
		return out, err
	}
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		if err := s.alive(tx, v); err != nil {
			return err
		}
		row, ver, err := c.current(tx, v.UID, name, "")
		if err != nil {
			return err
		}
		if err := c.own(row, "delete"); err != nil {
			return err
		}
		now := s.Now().UTC().Truncate(time.Second)
		end := now.AddDate(0, 0, v.Props.retention())
		row.Deleted, row.Purge = &now, &end
		if out, err = s.answered(tx, c, v.UID, row, ver); err != nil {
			return err
		}
		for _, p := range c.parts() {
			err := move(tx, p.names, p.bin, nameKey(v.UID, name), func(r *nameRow) { r.Deleted, r.Purge, r.Pending = &now, &end, nil })
			if err != nil {
				return err
			}
		}
		return nil
	})
	return out, err
}

// move puts what lies under the key into another table, changed.
func move(tx *store.Tx, from, to, key string, change func(*nameRow)) error {
	row, ok, err := store.GetJSON[nameRow](tx, from, key)
	if err != nil || !ok {
		return err
	}
	change(&row)
	if err := tx.Delete(from, key); err != nil {
		return err
	}
	return store.PutJSON(tx, to, key, row)
}

// exhume takes what the Grant is for out of the bin.
func (s *Service) exhume(ctx context.Context, g gate.Grant, c *class) (out Object, err error) {
	v, name, err := s.of(g, c.restore)
	if err != nil {
		return out, err
	}
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		if err := s.alive(tx, v); err != nil {
			return err
		}
		row, ok, err := s.binned(tx, c, v.UID, name)
		if err != nil {
			return err
		}
		if !ok {
			return c.missing(name)
		}
		if err := c.own(row, "recover"); err != nil {
			return err
		}
		for _, p := range c.parts() {
			err := move(tx, p.bin, p.names, nameKey(v.UID, name), func(r *nameRow) { r.Deleted, r.Purge = nil, nil })
			if err != nil {
				return err
			}
		}
		row, ver, err := c.current(tx, v.UID, name, "")
		if err != nil {
			return err
		}
		out, err = s.answered(tx, c, v.UID, row, ver)
		return err
	})
	return out, err
}

// purgeOne deletes for good what the Grant is for and lies in the bin.
func (s *Service) purgeOne(ctx context.Context, g gate.Grant, c *class) error {
	v, name, err := s.of(g, c.purge)
	if err != nil {
		return err
	}
	return g.Change(ctx, s.DB, func(tx *store.Tx) error {
		if err := s.alive(tx, v); err != nil {
			return err
		}
		row, ok, err := s.binned(tx, c, v.UID, name)
		if err != nil {
			return err
		}
		if !ok {
			return c.missing(name)
		}
		if err := c.own(row, "purge"); err != nil {
			return err
		}
		if v.Props.protected() {
			return shut("ForbiddenByPurgeProtection", "Operation 'purge' is not allowed: the vault has purge protection.")
		}
		for _, p := range c.parts() {
			if err := s.end(tx, p, v.UID, name); err != nil {
				return err
			}
		}
		return nil
	})
}

// binnedOne is what the Grant is for and lies in the bin.
func (s *Service) binnedOne(ctx context.Context, g gate.Grant, c *class) (out Object, err error) {
	v, name, err := s.of(g, c.see)
	if err != nil {
		return out, err
	}
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		row, ok, err := s.binned(tx, c, v.UID, name)
		if err != nil {
			return err
		}
		if !ok {
			return &arm.Error{Code: arm.Code(c.noun + "NotFound"), Status: http.StatusNotFound, Message: fmt.Sprintf("Deleted %s not found: %s", c.noun, name)}
		}
		ver, err := c.newest(tx, v.UID, row)
		if err != nil {
			return err
		}
		out, err = s.answered(tx, c, v.UID, row, ver)
		return err
	})
	return out, err
}

// answered is a version as answers to changes show it: values are not, but a
// certificate's is itself.
func (s *Service) answered(tx *store.Tx, c *class, uid string, row nameRow, ver versionRow) (Object, error) {
	out := ver.object(row)
	if c != certificates {
		return out, nil
	}
	k, err := s.dataKey(tx, uid)
	if err != nil {
		return out, err
	}
	out.Value, err = c.open(k, uid, row.Name, ver)
	return out, err
}

// newest is the newest version of row, wherever that lies.
func (c *class) newest(tx *store.Tx, uid string, row nameRow) (versionRow, error) {
	ver, ok, err := store.GetJSON[versionRow](tx, c.versions, versionKey(uid, row.Name, row.Current))
	if err == nil && !ok {
		err = fmt.Errorf("vault: the %s %s of vault %s has no version", c.noun, row.Name, uid)
	}
	return ver, err
}

// Page is part of a list; After is where the next part begins, or "".
type Page struct {
	Items []Object
	After string
}

// Secrets lists the newest version of every secret of the vault that the Grant
// is for, without values.
func (s *Service) Secrets(ctx context.Context, g gate.Grant, after string, limit int) (Page, error) {
	return s.all(ctx, g, secrets, false, after, limit)
}

// all lists the newest version of every thing of a class in the vault that the
// Grant is for, or of what lies in its bin, without values.
func (s *Service) all(ctx context.Context, g gate.Grant, c *class, bin bool, after string, limit int) (out Page, err error) {
	v, err := s.whole(g, c)
	if err != nil {
		return out, err
	}
	table := c.names
	if bin {
		table = c.bin
	}
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		rows, err := store.ScanJSON[nameRow](tx, table, v.UID+"/", nameKey(v.UID, after), limit+1)
		if err != nil {
			return err
		}
		if len(rows) > limit {
			rows, out.After = rows[:limit], strings.ToLower(rows[limit-1].Name)
		}
		for _, r := range rows {
			if s.over(r) || r.Current == "" {
				continue
			}
			ver, err := c.newest(tx, v.UID, r)
			if err != nil {
				return err
			}
			out.Items = append(out.Items, ver.object(r))
		}
		return nil
	})
	return out, err
}

// whole is the vault, if the Grant is for what all of it has.
func (s *Service) whole(g gate.Grant, c *class) (*live, error) {
	v, err := s.target(g, c.see)
	if err != nil {
		return nil, err
	}
	if id, err := g.On(c.see); err != nil || id.Key() != v.ID.Key() {
		return nil, arm.Errorf(arm.Forbidden, "the grant is for one %s, not for the vault %s", strings.ToLower(c.noun), v.ID.Name())
	}
	return v, nil
}

// history lists the versions of what the Grant is for, without values. Under
// access policies it takes the permission to list.
func (s *Service) history(ctx context.Context, g gate.Grant, c *class, after string, limit int) (out Page, err error) {
	v, name, err := s.of(g, c.see)
	if err != nil {
		return out, err
	}
	if !v.Props.rbac() && !g.Sees(c.see, v.ID) {
		return out, arm.Errorf(arm.Forbidden, "no access policy of vault %s gives the permission list on %s", v.ID.Name(), c.path)
	}
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		row, _, err := c.current(tx, v.UID, name, "")
		if err != nil {
			return err
		}
		rows, err := store.ScanJSON[versionRow](tx, c.versions, nameKey(v.UID, name)+"/", versionKey(v.UID, name, after), limit+1)
		if err != nil {
			return err
		}
		if len(rows) > limit {
			rows, out.After = rows[:limit], rows[limit-1].Version
		}
		for _, r := range rows {
			out.Items = append(out.Items, r.object(row))
		}
		return nil
	})
	return out, err
}
