package blob

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// lostRow is a deleted container that is kept for a while, with all it holds.
type lostRow struct {
	Container  containerRow     `json:"container"`
	Properties json.RawMessage  `json:"properties"`
	System     *resource.System `json:"system"`
	Deleted    time.Time        `json:"deleted"`
	Until      time.Time        `json:"until"`
}

// lostMark is what keys of what is due begin with if it is a container.
const lostMark = "lost/"

// lose keeps a deleted container. key is where its row was.
func (s *Service) lose(tx *store.Tx, key string, c containerRow, d *resource.Doc, keep time.Duration) error {
	now := s.Now().UTC()
	at := now.Truncate(tick)
	if last, err := tx.ScanDown(lostTable, key+"\x01", "", 1); err != nil {
		return err
	} else if len(last) > 0 && last[0].Key >= key+"\x01"+at.Format(stampForm) {
		t, err := time.Parse(stampForm, strings.TrimPrefix(last[0].Key, key+"\x01"))
		if err != nil {
			return fmt.Errorf("blob: a deleted container's version is %q", last[0].Key)
		}
		at = t.Add(tick)
	}
	key += "\x01" + at.Format(stampForm)
	r := lostRow{c, d.Properties, d.System, now, now.Add(keep)}
	if err := tx.Put(dueTable, dueKey(r.Until, lostMark+key), nil); err != nil {
		return err
	}
	return store.PutJSON(tx, lostTable, key, r)
}

// discardLost has Run remove what a deleted container held.
func (s *Service) discardLost(tx *store.Tx, key string, r lostRow) error {
	if err := tx.Put(trashTable, r.Container.UID, nil); err != nil {
		return err
	}
	tx.After(s.stir)
	if err := tx.Delete(dueTable, dueKey(r.Until, lostMark+key)); err != nil {
		return err
	}
	return tx.Delete(lostTable, key)
}

// purgeContainer removes for good a container that was kept long enough.
func (s *Service) purgeContainer(tx *store.Tx, key string) error {
	r, ok, err := store.GetJSON[lostRow](tx, lostTable, key)
	if err != nil || !ok {
		return err
	}
	return s.discardLost(tx, key, r)
}

// forgetLost removes for good the deleted containers of an account that goes.
func (s *Service) forgetLost(tx *store.Tx, d *resource.Doc) error {
	a, ok, err := store.GetJSON[accountRow](tx, accountTable, nameKey(d.Name))
	if err != nil || !ok {
		return err
	}
	rows, err := tx.Scan(lostTable, a.UID+"/", "", 0)
	if err != nil {
		return err
	}
	for _, x := range rows {
		if err := s.purgeContainer(tx, x.Key); err != nil {
			return err
		}
	}
	return nil
}

// undeleteContainer brings back the container that the Grant, for ContainerWrite,
// is about, as it was when it was deleted under that version.
func (s *Service) undeleteContainer(ctx context.Context, g gate.Grant, version string) error {
	p, err := s.target(g, ContainerWrite)
	if err != nil {
		return err
	}
	d := s.newContainerDoc(g, p)
	return g.Change(ctx, s.DB, func(tx *store.Tx) error {
		key := p.UID + "/" + p.container
		r, ok, err := store.GetJSON[lostRow](tx, lostTable, key+"\x01"+version)
		if err != nil {
			return err
		}
		if !ok {
			return noContainer(p.container)
		}
		if _, err := findContainer(tx, p); arm.CodeOf(err) != "ContainerNotFound" {
			return orElse(err, containerExists())
		}
		if err := tx.Delete(dueTable, dueKey(r.Until, lostMark+key+"\x01"+version)); err != nil {
			return err
		}
		if err := tx.Delete(lostTable, key+"\x01"+version); err != nil {
			return err
		}
		if err := store.PutJSON(tx, containerTable, key, r.Container); err != nil {
			return err
		}
		if d.Properties = r.Properties; r.System != nil {
			d.System = r.System
		}
		if d.Inner, err = json.Marshal(containerInner{Guard: r.Container.Guard}); err != nil {
			return err
		}
		s.touch(d)
		return resource.Save(tx, d)
	})
}
