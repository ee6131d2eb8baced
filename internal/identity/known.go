package identity

import (
	"regexp"
	"slices"
	"strings"

	"castellan/internal/arm"
)

// Known is a principal as the directory knows it now, with all its groups: for
// whoever acts for it later than it was let in. It is an error if the principal
// is gone or may not sign in.
func (s *Service) Known(tenant, object string) (arm.Caller, error) {
	c := arm.Caller{Tenant: tenant, Object: object, Token: string(accessClass)}
	if u := s.index.user(object); u != nil && u.Tenant == tenant && !u.Disabled {
		c.Kind, c.Name, c.Groups = arm.User, u.UPN, s.index.groupsOf(u.ID)
		return c, nil
	}
	if p := s.index.sp(object); p != nil && p.Tenant == tenant && !p.Disabled {
		c.Kind, c.Name, c.App, c.Groups = arm.ServicePrincipal, p.Name, p.AppID, s.index.groupsOf(p.ID)
		return c, nil
	}
	return arm.Caller{}, arm.Errorf(arm.Unauthenticated, "the principal %s is gone or may not sign in", object)
}

// UserAssignedOf is the user-assigned identity that a principal is.
func (s *Service) UserAssignedOf(tenant, object string) (arm.ID, error) {
	p := s.index.sp(object)
	if p == nil || p.Tenant != tenant || !p.Explicit || p.Disabled {
		return arm.ID{}, arm.Errorf(arm.Unauthenticated, "the managed identity %s is gone or may not sign in", object)
	}
	return arm.ParseID(p.Resource)
}

// Standing is who an application acts as, in its own tenant, for a user-assigned
// identity of another that it trusts by a federated credential: what a token
// exchange would give, as everything stands now.
func (s *Service) Standing(tenant, object, client string) (arm.Caller, error) {
	if _, err := s.UserAssignedOf(tenant, object); err != nil {
		return arm.Caller{}, err
	}
	app := s.index.client(client)
	if app == nil || !slices.ContainsFunc(app.Federated, func(f Federated) bool {
		return f.Issuer == s.issuer(tenant, false) && f.Subject == object && slices.Contains(f.Audiences, ExchangeAudience)
	}) {
		return arm.Caller{}, arm.Errorf(arm.Unauthenticated, "no application %s trusts the identity %s by a federated credential", client, object)
	}
	p := s.index.spOf(app.Tenant, app.AppID)
	if p == nil {
		return arm.Caller{}, arm.Errorf(arm.Unauthenticated, "the application %s has no service principal", client)
	}
	return s.Known(app.Tenant, p.ID)
}

// Members are the object ids of what is in a group of the tenant itself, not by
// nesting; none if there is no such group.
func (s *Service) Members(tenant, group string) []string {
	if g := s.index.group(group); g == nil || g.Tenant != tenant {
		return nil
	}
	return s.index.membersOf(group, false)
}

// supportName is what Azure named the accounts that it made in customers'
// directories for computes before 14 May 2021.
var supportName = regexp.MustCompile(`(?i)^Microsoft-AzureML-Support-App-[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$`)

// SupportAccounts are the tenant's service principals that have the name of such
// accounts, which came with a directory that was brought here.
func (s *Service) SupportAccounts(tenant string) []arm.Caller {
	s.index.mu.RLock()
	defer s.index.mu.RUnlock()
	var out []arm.Caller
	for _, p := range s.index.sps {
		if p.Tenant == tenant && supportName.MatchString(p.Name) {
			out = append(out, arm.Caller{Tenant: tenant, Object: p.ID, Name: p.Name, Kind: arm.ServicePrincipal})
		}
	}
	slices.SortFunc(out, func(a, b arm.Caller) int { return strings.Compare(a.Name, b.Name) })
	return out
}
