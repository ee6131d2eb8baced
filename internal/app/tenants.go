package app

import (
	"context"
	"encoding/json"

	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/governance"
	"castellan/internal/identity"
	"castellan/internal/rbac"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// loadTenancy learns which tenants there are and what they own.
func (a *App) loadTenancy(ctx context.Context) error {
	for _, id := range a.identity.TenantIDs() {
		a.Site.Tenancy.AddTenant(id)
	}
	return a.db.View(ctx, func(tx *store.Tx) error {
		docs, err := resource.List(tx, resource.Subscription.Type, arm.Root, "", 0)
		if err != nil {
			return err
		}
		for _, d := range docs {
			var p governance.Subscription
			if err := json.Unmarshal(d.Properties, &p); err != nil {
				return err
			}
			if p.Tenant == "" {
				p.Tenant = a.Site.Tenant
			}
			a.Site.Tenancy.Put(d.ID.Subscription(), p.Tenant)
			a.Site.Tenancy.Cancel(d.ID.Subscription(), p.Cancelled())
		}
		return nil
	})
}

// found makes what an installation begins with: its directory, its
// subscription, and an administrator and an application that own it.
func (a *App) found(ctx context.Context, in installation) error {
	first, err := a.identity.Bootstrap(ctx, identity.Founding{Tenant: in.Tenant, Domain: in.Suffix})
	if err != nil {
		return err
	}
	a.Admin = &Admin{ClientID: first.ClientID, ClientSecret: first.ClientSecret, UserName: first.UserName, Password: first.Password}
	in.Founded = true
	return a.db.Do(ctx, func(tx *store.Tx) error { return store.PutJSON(tx, installations, "it", in) })
}

// foundTenant makes a new tenant's subscription, which its administrators own.
func (a *App) foundTenant(tx *store.Tx, f identity.Founded) (string, error) {
	id, name := arm.NewUUID(), f.Domain
	if f.Tenant == a.Site.Tenant {
		id, name = a.Site.Subscription, "Castellan"
	}
	a.Site.Tenancy.AddTenant(f.Tenant) // of one that does not come to be nothing is ever asked
	sub, err := a.roles.NewSubscription(tx, id, governance.Subscription{Name: name, Tenant: f.Tenant})
	if err != nil {
		return "", err
	}
	by := a.system(f.Tenant, "setup", nil)
	for who, kind := range map[string]arm.Kind{f.UserObject: arm.User, f.ClientObject: arm.ServicePrincipal} {
		r := rbac.Assignment{Scope: sub, RoleID: ownerRole, Principal: who, PrincipalType: kind}
		if err := a.roles.Assign(tx, r, by); err != nil {
			return "", err
		}
		if err := a.Audit.Append(tx, audit.Entry{
			Tenant: f.Tenant, Caller: by.Object, Name: by.Name, Credential: by.Token, Action: governance.WriteAssignment.Name(),
			Target: sub.String(), Item: who, Decision: "allowed", Reason: "a tenant begins with owners of its subscription", Outcome: "ok",
		}); err != nil {
			return "", err
		}
	}
	return id, nil
}
