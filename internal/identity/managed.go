package identity

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// MintManaged is what a token for a managed identity asks for. No role has it:
// only the platform's own leases do.
var MintManaged = arm.NewDataAction("Castellan.Identity/managedIdentities/mint/action", "get a token as a managed identity")

var _ resource.Identities = (*Service)(nil)

// mint is the managed identity that the Grant's target has or is.
func (s *Service) mint(g gate.Grant) (*Principal, error) {
	id, err := g.On(MintManaged)
	if err != nil {
		return nil, err
	}
	if g.Caller().Lease == nil {
		return nil, arm.Errorf(arm.Forbidden, "only the platform itself gets tokens of managed identities")
	}
	p := s.index.of(id.Key())
	if p == nil || p.Disabled {
		return nil, arm.Errorf(arm.NotFound, "%s has no managed identity", id)
	}
	return p, nil
}

// ManagedToken makes an access token for the managed identity that the Grant's
// target has (a resource) or is (a user-assigned identity).
//
// The audience must be spelt exactly: one of the platform's own APIs, which will
// be the token's aud letter by letter, or an application of the tenant by its id
// or one of its URIs. A sandbox that is named is the only one where the token is good.
func (s *Service) ManagedToken(ctx context.Context, g gate.Grant, audience, sandbox string) (token string, expires time.Time, clientID string, err error) {
	p, err := s.mint(g)
	if err != nil {
		return "", time.Time{}, "", err
	}
	to, ok := s.exactly(p.Tenant, audience)
	if !ok {
		to, ok = s.appExactly(p.Tenant, audience)
	}
	if !ok {
		return "", time.Time{}, "", arm.Errorf("invalid_resource", "AADSTS500011: The resource principal named %s was not found in the tenant named %s.", printable(audience), p.Tenant)
	}
	e := signIn{tenant: p.Tenant, object: p.ID, name: p.Name, app: p.AppID, how: "managed identity", grant: "managed identity", resource: to.audience}
	sub := subject{sp: p, client: p.AppID, how: "certificate", sandbox: sandbox}
	err = s.DB.View(ctx, func(tx *store.Tx) (err error) {
		sub.roles, err = s.rolesAt(tx, p.Tenant, to.app, sub)
		return err
	})
	if err == nil {
		token, expires, err = s.accessToken(sub, to)
	}
	if err = s.note(ctx, e, err); err != nil {
		return "", time.Time{}, "", err
	}
	return token, expires, p.AppID, nil
}

// appExactly is the application of a tenant that resource names exactly.
func (s *Service) appExactly(tenant, resource string) (api, bool) {
	a, ok := s.api(tenant, resource)
	if !ok || a.v1 {
		return api{}, false
	}
	app := s.index.client(a.audience)
	return a, app != nil && (resource == app.AppID || resource == "api://"+app.AppID || slices.Contains(app.URIs, resource))
}

// ManagedCaller is the managed identity that the Grant's target has or is, as
// the caller of another part of the platform.
func (s *Service) ManagedCaller(_ context.Context, g gate.Grant) (arm.Caller, error) {
	p, err := s.mint(g)
	if err != nil {
		return arm.Caller{}, err
	}
	return arm.Caller{Tenant: p.Tenant, Object: p.ID, App: p.AppID, Kind: arm.ServicePrincipal, Name: p.Name, Groups: s.index.groupsOf(p.ID), Token: string(accessClass)}, nil
}

// Ensure is the system-assigned identity of a resource, made if it is not there.
// One that was dropped is never made again: a resource made anew under the same
// id is somebody else.
func (s *Service) Ensure(tx *store.Tx, of arm.ID, name string) (principal, tenant string, err error) {
	p, err := s.ensure(tx, of, name, false)
	if err != nil {
		return "", "", err
	}
	return p.ID, p.Tenant, nil
}

func (s *Service) ensure(tx *store.Tx, of arm.ID, name string, explicit bool) (*Principal, error) {
	p, ok, err := named[*Principal](tx, "mi|"+of.Key())
	if err != nil || ok {
		return p, err
	}
	p = &Principal{ID: arm.NewUUID(), Tenant: s.Site.TenantOf(of), AppID: arm.NewUUID(), Name: name, Managed: true, Explicit: explicit, Resource: of.String(), Created: s.Now().UTC()}
	if p.Tenant == "" {
		return nil, fmt.Errorf("identity: %s belongs to no tenant", of)
	}
	return p, s.put(tx, p)
}

// Drop removes the system-assigned identity of a resource, if it has one. Its
// tokens are dead at once.
func (s *Service) Drop(tx *store.Tx, of arm.ID) error {
	p, ok, err := named[*Principal](tx, "mi|"+of.Key())
	if err != nil || !ok {
		return err
	}
	return s.remove(tx, p)
}

// UserAssigned is the principal of a user-assigned identity; ok is false if
// there is no such resource.
func (s *Service) UserAssigned(tx *store.Tx, id arm.ID) (principal, client string, ok bool, err error) {
	p, ok, err := named[*Principal](tx, "mi|"+id.Key())
	if err != nil || !ok || !p.Explicit {
		return "", "", false, err
	}
	return p.ID, p.AppID, true, nil
}

// assigned is the properties of a user-assigned identity.
type assigned struct {
	Tenant    string `json:"tenantId,omitempty" arm:"readonly"`
	Principal string `json:"principalId,omitempty" arm:"readonly"`
	Client    string `json:"clientId,omitempty" arm:"readonly"`
	Isolation string `json:"isolationScope,omitempty" arm:"only=None|Regional,since=2024-11-30"`
}

// Kinds are the resource kinds of this package.
func (s *Service) Kinds() []*resource.Kind {
	identities := &resource.Kind{
		Type: "Microsoft.ManagedIdentity/userAssignedIdentities", SystemData: "2023-01-31", Doc: "a user-assigned managed identity", Parent: resource.Group,
		Props: func() any { return &assigned{} }, Save: s.saveAssigned, Remove: func(tx *store.Tx, d *resource.Doc) error { return s.Drop(tx, d.ID) },
	}
	return []*resource.Kind{identities, s.federatedKind(identities)}
}

// saveAssigned makes the principal of a new identity, and shows it.
func (s *Service) saveAssigned(tx *store.Tx, c resource.Change) error {
	var props assigned
	if err := json.Unmarshal(c.Doc.Properties, &props); err != nil {
		return err
	}
	p, err := s.ensure(tx, c.Doc.ID, c.Doc.Name, true)
	if err != nil {
		return err
	}
	if !strings.EqualFold(p.Resource, c.Doc.ID.String()) || !p.Explicit {
		return arm.Errorf(arm.Conflict, "%s can't be made: its identity is of another kind", c.Doc.ID)
	}
	props.Tenant, props.Principal, props.Client = p.Tenant, p.ID, p.AppID
	c.Doc.Properties, err = json.Marshal(props)
	return err
}

// readDefault is Azure's.
var readDefault = arm.NewAction("Microsoft.ManagedIdentity/identities/read", "see the system-assigned identity of a resource")

// ManagedRoutes are the doors of Resource Manager to identities that resources have.
func (s *Service) ManagedRoutes() []gate.Route {
	at := func(r *http.Request, _ gate.Vars) (gate.Target, error) { return resource.Locate(r, 4) }
	return []gate.Route{gate.On(readDefault, "GET /{scope...}/providers/Microsoft.ManagedIdentity/identities/default", at, s.getDefault)}
}

// getDefault shows the system-assigned identity of the Grant's target
// (Microsoft.ManagedIdentity/identities, API version 2023-01-31).
func (s *Service) getDefault(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	of, err := g.On(readDefault)
	if err != nil {
		return err
	}
	p := s.index.of(of.Key())
	if p == nil || p.Explicit {
		return arm.Errorf(arm.NotFound, "The resource '%s' has no system-assigned identity.", of)
	}
	out := map[string]any{
		"id": of.Child("Microsoft.ManagedIdentity/identities", "default"), "name": "default", "type": "Microsoft.ManagedIdentity/identities",
		"properties": map[string]any{"tenantId": p.Tenant, "principalId": p.ID, "clientId": p.AppID},
	}
	if err := s.DB.View(r.Context(), func(tx *store.Tx) error {
		d, err := resource.Load(tx, of)
		if d != nil {
			out["location"], out["tags"] = d.Location, d.Tags
		}
		return err
	}); err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, out)
	return nil
}
