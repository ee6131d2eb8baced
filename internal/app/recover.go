package app

import (
	"context"
	"errors"
	"fmt"

	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/governance"
	"castellan/internal/identity"
	"castellan/internal/rbac"
	"castellan/internal/store"
)

// Recover makes a person Global Administrator of a stopped installation, and
// Owner of its subscription if owner is set. It needs the root key, makes
// neither a key nor an installation, and is refused while a server runs.
func Recover(ctx context.Context, cfg Config, r identity.Recovery, owner bool) (password arm.Secret, err error) {
	if cfg, err = cfg.existing(); err != nil {
		return password, fmt.Errorf("recovering: %w", err)
	}
	a, err := New(ctx, cfg)
	if err != nil {
		return password, err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	return a.identity.Recover(ctx, r, func(tx *store.Tx, object string) error {
		if !owner {
			return nil
		}
		sub, by := arm.MustID("/subscriptions/"+a.Site.Subscription), a.system(a.Site.Tenant, "recover", nil)
		if err := a.roles.Assign(tx, rbac.Assignment{Scope: sub, RoleID: ownerRole, Principal: object, PrincipalType: arm.User}, by); err != nil {
			return err
		}
		return a.Audit.Append(tx, audit.Entry{Tenant: a.Site.Tenant, Caller: by.Object, Name: by.Name, Credential: by.Token, Action: governance.WriteAssignment.Name(),
			Target: sub.String(), Item: object, Decision: "allowed", Reason: "recovered with the root key", Outcome: "ok"})
	})
}
