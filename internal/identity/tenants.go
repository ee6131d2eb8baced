package identity

import (
	"context"
	"net/http"
	"regexp"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// Tenants share an installation and nothing else. Making one is the home
// tenant's to do; what is in it then is not the home tenant's to see. Azure has
// no API for it, so the doors are the platform's own.
var (
	readTenants  = arm.NewAction("microsoft.directory/tenants/read", "see which tenants the installation has")
	createTenant = arm.NewAction("microsoft.directory/tenants/create", "make a tenant with an administrator and a subscription of its own")
)

// homeOnly are the actions on the directory that only the home tenant has.
var homeOnly = map[string]bool{readTenants.Key(): true, createTenant.Key(): true}

// OnTenant makes fn run in the transaction that makes a tenant: it makes what
// else a tenant begins with, and returns the id of its subscription.
// Call it before Bootstrap.
func (s *Service) OnTenant(fn func(tx *store.Tx, f Founded) (subscription string, err error)) {
	s.onTenant = fn
}

// TenantIDs are the ids of all tenants, in no order.
func (s *Service) TenantIDs() []string {
	return find(s.index, func(x *index) []string {
		var out []string
		for id := range x.tenants {
			out = append(out, id)
		}
		return out
	})
}

func (s *Service) tenantDoors() []gate.Route {
	return []gate.Route{
		s.door(readTenants, "GET castellan/tenants", func(v *visit) (answer, error) {
			all := find(s.index, func(x *index) []map[string]any {
				var out []map[string]any
				for _, t := range x.tenants {
					out = append(out, s.showTenant(t))
				}
				return out
			})
			return v.list("tenants", all)
		}),
		s.door(createTenant, "POST castellan/tenants", (*visit).createTenant),
	}
}

func (s *Service) showTenant(t *Tenant) map[string]any {
	subs := []string{}
	if s.Site.Tenancy != nil {
		subs = s.Site.Tenancy.Subscriptions(t.ID)
	}
	return map[string]any{"id": t.ID, "displayName": t.Name, "defaultDomainName": t.Domain, "createdDateTime": stamp(t.Created), "subscriptionIds": subs, "home": t.ID == s.Home()}
}

// domainForm is a DNS name of at least two labels.
var domainForm = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)

// createTenant answers with the secrets of the new tenant's first administrators,
// which are told here and nowhere else.
func (v *visit) createTenant() (answer, error) {
	var b struct {
		Name   string `json:"displayName"`
		Domain string `json:"defaultDomainName"`
		Admin  string `json:"administrator"`
	}
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	b.Domain = fold(b.Domain)
	if len(b.Domain) > 253 || !domainForm.MatchString(b.Domain) {
		return answer{}, arm.Errorf(arm.BadRequest, "defaultDomainName is %q; it must be a domain of at least two labels, such as contoso.example.", printable(b.Domain))
	}
	if b.Name = strings.TrimSpace(b.Name); len(b.Name) > 256 {
		return answer{}, arm.Errorf(arm.BadRequest, "displayName must have at most 256 bytes.")
	}
	f, err := v.s.CreateTenant(v.r.Context(), v.g, Founding{Domain: b.Domain, Name: b.Name, Admin: b.Admin})
	if err != nil {
		return answer{}, err
	}
	m := v.s.showTenant(v.s.index.tenantOf(f.Tenant))
	m["administrator"] = map[string]any{"id": f.UserObject, "userPrincipalName": f.UserName, "password": string(f.Password.Reveal())}
	m["application"] = map[string]any{"id": f.ClientObject, "appId": f.ClientID, "secretText": string(f.ClientSecret.Reveal())}
	return v.one(http.StatusCreated, "tenants", m)
}

// CreateTenant makes a tenant with an administrator, an application of theirs and
// a subscription. A new one always has a random id.
func (s *Service) CreateTenant(ctx context.Context, g gate.Grant, f Founding) (Founded, error) {
	if _, err := g.On(createTenant); err != nil {
		return Founded{}, err
	}
	f.Tenant = arm.NewUUID()
	if f.Domain == "" || s.index.tenantOf(f.Domain) != nil {
		return Founded{}, arm.Errorf(arm.Conflict, "There is a tenant with the domain %s already.", printable(f.Domain))
	}
	return s.found(ctx, f, func(fn func(*store.Tx) error) error { return g.Change(ctx, s.DB, fn) })
}
