package vault

import (
	"context"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

// everything is every permission but purge.
func everything() Permissions {
	return Permissions{Keys: allBut(keyPermissions), Secrets: allBut(secretPermissions), Certificates: allBut(certificatePermissions)}
}

// Allow gives the principal every permission but purge on what the vault of the
// Grant, for PolicyWrite, holds.
func (s *Service) Allow(ctx context.Context, g gate.Grant, tenant, principal string) error {
	_, err := s.UpdatePolicies(ctx, g, "add", []AccessPolicy{{Tenant: tenant, Object: principal, Permissions: everything()}})
	return err
}

// Allows reports whether a policy of the vault's gives the principal all that
// Allow does.
func (s *Service) Allows(id arm.ID, principal string) bool {
	v, all := s.byID(id), everything()
	return v != nil && slices.ContainsFunc(v.Props.Policies, func(p AccessPolicy) bool {
		return p.App == "" && strings.EqualFold(p.Object, principal) && holdsAll(p.Permissions.Keys, all.Keys) &&
			holdsAll(p.Permissions.Secrets, all.Secrets) && holdsAll(p.Permissions.Certificates, all.Certificates)
	})
}

// allBut is every one of the permissions but purge.
func allBut(permissions string) []string {
	return slices.DeleteFunc(strings.Fields(permissions), func(p string) bool { return p == "all" || p == "purge" })
}

func holdsAll(has, want []string) bool {
	return !slices.ContainsFunc(want, func(w string) bool {
		return !slices.ContainsFunc(has, func(h string) bool { return strings.EqualFold(h, w) || strings.EqualFold(h, "all") })
	})
}
