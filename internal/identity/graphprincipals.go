package identity

import (
	"net/http"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// show is the principal as Graph shows it; a is its application, or nil.
func (p *Principal) show(a *App) map[string]any {
	typ, names, alternative := "Application", []string{p.AppID}, []string{}
	if p.Managed {
		typ = "ManagedIdentity"
		explicit := map[bool]string{true: "isExplicit=True", false: "isExplicit=False"}[p.Explicit]
		alternative = []string{explicit, p.Resource}
	}
	if a != nil && a.Tenant == p.Tenant {
		names = append(names, a.URIs...)
	}
	return map[string]any{
		"id": p.ID, "appId": p.AppID, "displayName": p.Name, "appDisplayName": p.Name, "accountEnabled": !p.Disabled, "servicePrincipalType": typ,
		"servicePrincipalNames": names, "alternativeNames": alternative, "appOwnerOrganizationId": p.Tenant, "createdDateTime": stamp(p.Created),
		"appRoleAssignmentRequired": p.AssignmentRequired, "passwordCredentials": []any{}, "keyCredentials": []any{}, "tags": []string{}, "appRoles": showRoles(p.roles(a)), "oauth2PermissionScopes": showScopes(p.scopes(a)),
		"replyUrls": []string{}, "signInAudience": "AzureADMyOrg", "homepage": nil, "description": nil,
	}
}

func (s *Service) principalDoors() []gate.Route {
	out := []gate.Route{
		s.door(createPrincipal, "POST serviceprincipals", (*visit).createPrincipal),
		s.door(readPrincipals, "GET serviceprincipals/{id}", func(v *visit) (answer, error) {
			p, err := v.principal()
			if err != nil {
				return answer{}, err
			}
			return v.one(http.StatusOK, "servicePrincipals", p.show(v.s.index.client(p.AppID)))
		}),
		s.door(updatePrincipal, "PATCH serviceprincipals/{id}", (*visit).updatePrincipal),
		s.door(deletePrincipal, "DELETE serviceprincipals/{id}", (*visit).deletePrincipal),
		s.door(ownPrincipal, "POST serviceprincipals/{id}/owners/$ref", (*visit).addOwner),
		s.door(ownPrincipal, "DELETE serviceprincipals/{id}/owners/{member}/$ref", (*visit).removeOwner),
	}
	out = append(out, s.collection(readPrincipals, "serviceprincipals", false, (*visit).listPrincipals)...)
	out = append(out, s.collection(readAppOwners, "serviceprincipals/{id}/owners", true, (*visit).listOwners)...)
	out = append(out, s.collection(readMembers, "serviceprincipals/{id}/memberof", true, func(v *visit) (answer, error) { return v.groupsOfPrincipal(false) })...)
	return append(out, s.collection(readMembers, "serviceprincipals/{id}/transitivememberof", true, func(v *visit) (answer, error) { return v.groupsOfPrincipal(true) })...)
}

func (v *visit) principal() (*Principal, error) {
	p := v.s.index.sp(fold(v.seg(1)))
	if p == nil || p.Tenant != v.tenant {
		return nil, missing("servicePrincipal", v.seg(1))
	}
	return p, nil
}

func (v *visit) listPrincipals() (answer, error) {
	rows := find(v.s.index, func(x *index) (out []map[string]any) {
		for _, p := range x.sps {
			if p.Tenant == v.tenant {
				out = append(out, p.show(x.clients[fold(p.AppID)]))
			}
		}
		return out
	})
	return v.list("servicePrincipals", rows)
}

func (v *visit) groupsOfPrincipal(all bool) (answer, error) {
	p, err := v.principal()
	if err != nil {
		return answer{}, err
	}
	return v.groupsOf(p.ID, all)
}

// principalBody is what a client may say of an application's principal.
type principalBody struct {
	AppID   string `json:"appId"`
	Enabled *bool  `json:"accountEnabled"`
	Tags    any    `json:"tags"`
	Notes   any    `json:"notes"`
	Name    any    `json:"displayName"` // the application's
	Assign  *bool  `json:"appRoleAssignmentRequired"`
}

// createPrincipal lets an application of the tenant act in it.
func (v *visit) createPrincipal() (answer, error) {
	var b principalBody
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	var p *Principal
	var app *App
	err := v.change(func(tx *store.Tx) error {
		a, ok, err := named[*App](tx, "app|"+fold(b.AppID))
		if err != nil {
			return err
		}
		if name := v.s.firstParty(b.AppID); name != "" && !ok {
			a, ok = &App{Tenant: v.tenant, AppID: fold(b.AppID), Name: name}, true
		}
		if !ok || a.Tenant != v.tenant {
			return arm.Errorf(arm.BadRequest, "The appId '%s' of the service principal does not reference a valid application object.", printable(b.AppID))
		}
		app = a
		p = &Principal{ID: arm.NewUUID(), Tenant: v.tenant, AppID: a.AppID, Name: a.Name, Disabled: b.Enabled != nil && !*b.Enabled, AssignmentRequired: b.Assign != nil && *b.Assign, Created: v.s.Now().UTC()}
		if err := v.s.put(tx, p); err != nil {
			return err
		}
		return v.ownNew(tx, p.ID, updatePrincipal)
	})
	if err != nil {
		return answer{}, err
	}
	return v.one(http.StatusCreated, "servicePrincipals", p.show(app))
}

func (v *visit) updatePrincipal() (answer, error) {
	var b principalBody
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	was, err := v.principal()
	if err != nil {
		return answer{}, err
	}
	return done, v.change(func(tx *store.Tx) error {
		p, ok, err := fetch[*Principal](tx, v.tenant, "sp", was.ID)
		if err != nil {
			return err
		}
		if !ok {
			return missing("servicePrincipal", was.ID)
		}
		if b.Enabled != nil && p.Disabled == *b.Enabled {
			p.Disabled = !*b.Enabled
			p.Epoch++
		}
		if p.Platform && (p.Disabled || b.Assign != nil) {
			return arm.Errorf(arm.BadRequest, "%s is the platform's own; it is for everybody and can't be disabled.", p.Name)
		}
		if b.Assign != nil {
			p.AssignmentRequired = *b.Assign
		}
		if p.Disabled {
			if err := v.s.lastAdmin(tx, v.tenant, p.ID); err != nil {
				return err
			}
		}
		return v.s.put(tx, p)
	})
}

// deletePrincipal puts an application out of the tenant. A managed identity
// goes with its resource and not otherwise.
func (v *visit) deletePrincipal() (answer, error) {
	p, err := v.principal()
	if err != nil {
		return answer{}, err
	}
	if p.Managed {
		return answer{}, arm.Errorf(arm.BadRequest, "A managed identity is deleted with its resource, %s.", p.Resource)
	}
	if p.Platform {
		return answer{}, arm.Errorf(arm.BadRequest, "%s is the platform's own and stays.", p.Name)
	}
	return done, v.change(func(tx *store.Tx) error {
		if err := v.s.lastAdmin(tx, v.tenant, p.ID); err != nil {
			return err
		}
		return v.s.remove(tx, p)
	})
}

func (s *Service) objectDoors() []gate.Route {
	return []gate.Route{
		s.door(readDirectory, "POST directoryobjects/getbyids", (*visit).byIDs),
		s.door(readDirectory, "GET directoryobjects/{id}", func(v *visit) (answer, error) {
			m := v.s.index.shown(v.tenant, fold(v.seg(1)))
			if m == nil {
				return answer{}, missing("directoryObject", v.seg(1))
			}
			return v.one(http.StatusOK, "directoryObjects", m)
		}),
		s.door(readOrg, "GET organization", func(v *visit) (answer, error) {
			return v.list("organization", []map[string]any{v.s.index.tenantOf(v.tenant).show()})
		}),
		s.door(readOrg, "GET organization/{id}", func(v *visit) (answer, error) {
			if fold(v.seg(1)) != v.tenant {
				return answer{}, missing("organization", v.seg(1))
			}
			return v.one(http.StatusOK, "organization", v.s.index.tenantOf(v.tenant).show())
		}),
		s.door(readOrg, "GET subscribedskus", func(v *visit) (answer, error) { return v.list("subscribedSkus", nil) }), // nothing here is licensed
	}
}

func (t *Tenant) show() map[string]any {
	return map[string]any{"id": t.ID, "displayName": t.Name, "createdDateTime": stamp(t.Created),
		"verifiedDomains": []any{map[string]any{"name": t.Domain, "isDefault": true, "isInitial": true, "type": "Managed", "capabilities": "Email"}}}
}

// byIDs looks up objects of any kind; those that are not there are left out.
func (v *visit) byIDs() (answer, error) {
	var b struct {
		IDs   []string `json:"ids"`
		Types []string `json:"types"`
	}
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	if len(b.IDs) > 1000 {
		return answer{}, arm.Errorf(arm.BadRequest, "At most 1000 ids are taken at once.")
	}
	rows := []map[string]any{}
	for _, id := range b.IDs {
		m := v.s.index.shown(v.tenant, fold(id))
		if m != nil && (len(b.Types) == 0 || slices.ContainsFunc(b.Types, func(t string) bool {
			return strings.EqualFold(t, "directoryObject") || strings.EqualFold("#microsoft.graph."+t, m["@odata.type"].(string))
		})) {
			rows = append(rows, m)
		}
	}
	return answer{http.StatusOK, map[string]any{"@odata.context": v.context("directoryObjects"), "value": rows}}, nil
}
