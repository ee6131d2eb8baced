package vault

import (
	"context"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// workEvery is how often Run looks for what its time has come.
const workEvery = time.Hour

// Run frees what has lain in bins for its time, and rotates keys as their
// policies say, until ctx is done.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(workEvery)
	defer tick.Stop()
	for {
		if err := s.work(ctx); err != nil && ctx.Err() == nil {
			s.Log.Error("the vaults' bins and rotation policies were not seen to; it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *Service) work(ctx context.Context) error {
	if err := s.as(ctx, DeletedPurge, arm.Root, s.Sweep); err != nil {
		return err
	}
	due, err := s.dueKeys(ctx)
	if err != nil {
		return err
	}
	for _, id := range due {
		rotate := func(ctx context.Context, g gate.Grant) error { _, err := s.RotateKey(ctx, g); return err }
		if err := s.as(ctx, KeyRotate, id, rotate); err != nil {
			s.Log.Error("a key was not rotated; it is tried again", "key", id.String(), "error", err)
		}
	}
	return nil
}

// as lets the service's own worker do one thing, recorded like everybody's.
func (s *Service) as(ctx context.Context, a arm.Action, on arm.ID, do func(context.Context, gate.Grant) error) error {
	c := arm.Caller{
		Tenant: s.Site.TenantOf(on), Object: "system:vault", Kind: arm.ServicePrincipal, Name: "system:vault", Token: "system",
		Lease: &arm.Lease{Scope: on, Actions: []arm.Action{a}, Why: "the vaults' own upkeep"},
	}
	g, err := s.Gate.Admit(ctx, c, a, gate.Target{ID: on})
	if err != nil {
		return err
	}
	return g.Close(ctx, do(ctx, g))
}

// dueKeys are the keys whose rotation policy wants a new version now.
func (s *Service) dueKeys(ctx context.Context) (due []arm.ID, err error) {
	s.mu.RLock()
	vaults := map[string]arm.ID{}
	for _, v := range s.names {
		vaults[v.UID] = v.ID
	}
	s.mu.RUnlock()
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		for uid, id := range vaults {
			rows, err := store.ScanJSON[nameRow](tx, keys.names, uid+"/", "", 0)
			if err != nil {
				return err
			}
			for _, r := range rows {
				if r.Rotation == nil {
					continue
				}
				_, ver, err := keys.current(tx, uid, r.Name, "")
				if err != nil {
					return err
				}
				if r.Rotation.due(ver, s.Now()) {
					due = append(due, id.Child(keys.path, r.Name))
				}
			}
		}
		return nil
	})
	return due, err
}
