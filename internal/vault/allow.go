package vault

import (
	"context"
	"slices"
	"strings"

	"castellan/internal/gate"
)

// Allow gives the principal every permission but purge on what the vault of the
// Grant, for PolicyWrite, holds. made is false if it had all of them.
func (s *Service) Allow(ctx context.Context, g gate.Grant, tenant, principal string) (made bool, err error) {
	v, err := s.target(g, PolicyWrite)
	if err != nil {
		return false, err
	}
	all := Permissions{Keys: allBut(keyPermissions), Secrets: allBut(secretPermissions), Certificates: allBut(certificatePermissions)}
	for _, p := range v.Props.Policies {
		if p.App == "" && strings.EqualFold(p.Object, principal) && holdsAll(p.Permissions.Keys, all.Keys) && holdsAll(p.Permissions.Secrets, all.Secrets) && holdsAll(p.Permissions.Certificates, all.Certificates) {
			return false, nil
		}
	}
	_, err = s.UpdatePolicies(ctx, g, "add", []AccessPolicy{{Tenant: tenant, Object: principal, Permissions: all}})
	return err == nil, err
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
