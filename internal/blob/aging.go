package blob

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// aged is what a lifecycle rule does with one blob, snapshot or version.
type aged struct {
	rule, tier string
	name       string
	at         moment
	etag       string
}

// age does what the accounts' lifecycle rules say.
func (s *Service) age(ctx context.Context) error {
	if s.Gate == nil {
		return nil
	}
	s.mu.RLock()
	var all []*account
	for _, a := range s.names {
		all = append(all, a)
	}
	s.mu.RUnlock()
	for _, a := range all {
		if err := s.ageAccount(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) ageAccount(ctx context.Context, a *account) error {
	var p ManagementPolicy
	var boxes []store.Row
	err := s.DB.View(ctx, func(tx *store.Tx) error {
		d, err := resource.Load(tx, a.ID.Child("managementPolicies", "default"))
		if err != nil || d == nil {
			return err
		}
		if err := json.Unmarshal(d.Properties, &p); err != nil {
			return fmt.Errorf("reading the rules of %s: %w", a.ID, err)
		}
		boxes, err = tx.Scan(containerTable, a.UID+"/", "", 0)
		return err
	})
	if err != nil {
		return err
	}
	for _, box := range boxes {
		var c containerRow
		if err := json.Unmarshal(box.Value, &c); err != nil {
			return fmt.Errorf("reading a container's row: %w", err)
		}
		in := place{account: a, container: strings.TrimPrefix(box.Key, a.UID+"/")}
		// The past first: a blob does not go while it has snapshots.
		for _, table := range []string{pastTable, blobTable} {
			if err := s.ageTable(ctx, in, c, &p, table); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Service) ageTable(ctx context.Context, in place, c containerRow, p *ManagementPolicy, table string) error {
	for after := ""; ; {
		var rows []store.Row
		if err := s.DB.View(ctx, func(tx *store.Tx) (err error) {
			rows, err = tx.Scan(table, c.UID+"/", after, trashBatch)
			return err
		}); err != nil {
			return err
		}
		for _, r := range rows {
			after = r.Key
			var b row
			if err := json.Unmarshal(r.Value, &b); err != nil {
				return fmt.Errorf("reading a blob's row: %w", err)
			}
			name, stamp, _ := strings.Cut(strings.TrimPrefix(r.Key, c.UID+"/"), "\x01")
			if b.deleted() {
				continue
			}
			x := aged{name: name, etag: b.ETag}
			if x.rule, x.tier = p.due(in.container, name, stamp, &b, s.Now()); x.rule == "" {
				continue
			}
			switch b.Past {
			case isSnapshot:
				x.at.snapshot = stamp
			case isVersion:
				x.at.version = stamp
			}
			if err := s.ageOne(ctx, in, x); ctx.Err() != nil {
				return ctx.Err()
			} else if err != nil {
				// It is leased, guarded, has snapshots or is another by now; tomorrow is another day.
				s.Log.Info("a lifecycle rule was not carried out on a blob", "account", in.ID.Name(), "rule", x.rule, "error", arm.CodeOf(err))
			}
		}
		if len(rows) < trashBatch {
			return nil
		}
	}
}

// ageOne carries out a rule through the gate, as a worker that can do this alone.
func (s *Service) ageOne(ctx context.Context, in place, x aged) (err error) {
	action := BlobWrite
	switch {
	case x.tier == "" && x.at.version != "":
		action = BlobDeleteVersion
	case x.tier == "":
		action = BlobDelete
	}
	id := in.containerID(in.container)
	as := arm.Caller{
		Tenant: s.Site.TenantOf(in.ID), Object: "system:lifecycle", Name: "the platform's lifecycle", Kind: arm.ServicePrincipal, Token: "system",
		Lease: &arm.Lease{Scope: id, Item: x.name, Actions: []arm.Action{action}, Why: "the lifecycle rule " + x.rule},
	}
	g, err := s.Gate.Admit(ctx, as, action, gate.Target{ID: id, Item: x.name})
	if err != nil {
		return err
	}
	when := Conditions{Match: x.etag}
	if x.tier == "" {
		_, err = s.delete(ctx, g, deletion{at: x.at, when: when})
	} else {
		_, err = s.setTier(ctx, g, x.tier, x.at, when)
	}
	return g.Close(ctx, err)
}
