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

// Run frees what has lain in bins for its time, and rotates keys and renews
// certificates as their policies say, until ctx is done.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(workEvery)
	defer tick.Stop()
	for {
		if err := s.work(ctx); err != nil && ctx.Err() == nil {
			s.Log.Error("the vaults' bins and policies were not seen to; it is tried again", "error", err)
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
	for _, x := range []struct {
		class  *class
		due    func(nameRow, versionRow) bool
		action arm.Action
		do     func(context.Context, gate.Grant) error
	}{
		{keys, func(n nameRow, v versionRow) bool { return n.Rotation != nil && n.Rotation.due(v, s.Now()) }, KeyRotate,
			func(ctx context.Context, g gate.Grant) error { _, err := s.RotateKey(ctx, g); return err }},
		{certificates, func(n nameRow, v versionRow) bool { return n.Policy.due(v, s.Now()) }, CertificateCreate, s.renew},
	} {
		due, err := s.due(ctx, x.class, x.due)
		if err != nil {
			return err
		}
		for _, id := range due {
			if err := s.as(ctx, x.action, id, x.do); err != nil {
				s.Log.Error("a key or certificate was not renewed; it is tried again", "id", id.String(), "error", err)
			}
		}
	}
	return nil
}

// renew makes the next version of the certificate that the Grant is for, with
// the tags of its newest.
func (s *Service) renew(ctx context.Context, g gate.Grant) error {
	last, err := s.load(ctx, g, certificates, CertificateCreate, "", nil)
	if err == nil {
		_, err = s.CreateCertificate(ctx, g, CertificateDraft{Tags: last.Tags})
	}
	return err
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

// due are the things of a class of which is says that they want a new version now.
func (s *Service) due(ctx context.Context, c *class, is func(nameRow, versionRow) bool) (due []arm.ID, err error) {
	s.mu.RLock()
	vaults := map[string]arm.ID{}
	for _, v := range s.names {
		vaults[v.UID] = v.ID
	}
	s.mu.RUnlock()
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		for uid, id := range vaults {
			rows, err := store.ScanJSON[nameRow](tx, c.names, uid+"/", "", 0)
			if err != nil {
				return err
			}
			for _, r := range rows {
				if r.Current == "" {
					continue
				}
				_, ver, err := c.current(tx, uid, r.Name, "")
				if err != nil {
					return err
				}
				if is(r, ver) {
					due = append(due, id.Child(c.path, r.Name))
				}
			}
		}
		return nil
	})
	return due, err
}
