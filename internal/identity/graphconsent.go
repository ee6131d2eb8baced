package identity

import (
	"net/http"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

func (c Consent) show() map[string]any {
	kind := "AllPrincipals"
	if c.User != "" {
		kind = "Principal"
	}
	return map[string]any{"id": c.ID, "clientId": c.Client, "consentType": kind, "principalId": nullable(c.User), "resourceId": c.Resource, "scope": strings.Join(c.Scopes, " ")}
}

func (v *visit) showAssignment(a Assignment) map[string]any {
	name := ""
	if m := v.s.index.shown(v.tenant, a.Principal); m != nil {
		name, _ = m["displayName"].(string)
	}
	resource := ""
	if p := v.s.index.sp(a.Resource); p != nil {
		resource = p.Name
	}
	return map[string]any{"id": a.ID, "appRoleId": a.Role, "principalId": a.Principal, "principalType": string(a.Kind), "principalDisplayName": name,
		"resourceId": a.Resource, "resourceDisplayName": resource, "createdDateTime": stamp(a.Created)}
}

// permissionDoors are consents, application roles that were assigned, and what
// a tenant lets people consent to.
func (s *Service) permissionDoors() []gate.Route {
	out := []gate.Route{
		s.door(readConsents, "GET oauth2permissiongrants", func(v *visit) (answer, error) { return v.listConsents(func(Consent) bool { return true }) }),
		s.door(consentAll, "POST oauth2permissiongrants", (*visit).createConsent),
		s.door(readConsents, "GET oauth2permissiongrants/{id}", (*visit).readConsent),
		s.door(consentAll, "PATCH oauth2permissiongrants/{id}", (*visit).updateConsent),
		s.door(consentAll, "DELETE oauth2permissiongrants/{id}", (*visit).deleteConsent),
		s.door(readConsents, "GET serviceprincipals/{id}/oauth2permissiongrants", func(v *visit) (answer, error) {
			p, err := v.principal()
			if err != nil {
				return answer{}, err
			}
			return v.listConsents(func(c Consent) bool { return c.Client == p.ID })
		}),
		s.door(readConsents, "GET users/{id}/oauth2permissiongrants", func(v *visit) (answer, error) {
			return v.listConsents(func(c Consent) bool { return c.User == fold(v.seg(1)) })
		}),
		s.door(readAssigned, "GET serviceprincipals/{id}/approleassignedto", func(v *visit) (answer, error) {
			return v.listAppRoles(func(a Assignment) bool { return a.Resource == fold(v.seg(1)) })
		}),
		s.door(assignApp, "POST serviceprincipals/{id}/approleassignedto", func(v *visit) (answer, error) { return v.createAssignment("") }),
		s.door(assignApp, "DELETE serviceprincipals/{id}/approleassignedto/{key}", (*visit).deleteAssignment),
		s.door(readPolicy, "GET policies/authorizationpolicy", func(v *visit) (answer, error) {
			return answer{http.StatusOK, v.authorizationPolicy()}, nil
		}),
		s.door(updatePolicy, "PATCH policies/authorizationpolicy", (*visit).updateAuthorizationPolicy),
	}
	for _, class := range []string{"serviceprincipals", "users", "groups"} {
		out = append(out,
			s.door(readAssigned, "GET "+class+"/{id}/approleassignments", func(v *visit) (answer, error) {
				return v.listAppRoles(func(a Assignment) bool { return a.Principal == fold(v.seg(1)) })
			}),
			s.door(assignApp, "POST "+class+"/{id}/approleassignments", func(v *visit) (answer, error) { return v.createAssignment(fold(v.seg(1))) }),
			s.door(assignApp, "DELETE "+class+"/{id}/approleassignments/{key}", (*visit).deleteAssignment))
	}
	return out
}

// rows reads all of a table that the tenant has.
func rows[T any](v *visit, table string) (out []T, err error) {
	err = v.s.DB.View(v.r.Context(), func(tx *store.Tx) (err error) {
		out, err = store.ScanJSON[T](tx, table, v.tenant+"|", "", 0)
		return err
	})
	return out, err
}

func (v *visit) listConsents(is func(Consent) bool) (answer, error) {
	all, err := rows[Consent](v, consentTable)
	if err != nil {
		return answer{}, err
	}
	var out []map[string]any
	for _, c := range all {
		if is(c) {
			out = append(out, c.show())
		}
	}
	return v.list("oauth2PermissionGrants", out)
}

// oneConsent is the consent that the path names, as tx sees it.
func (v *visit) oneConsent(tx *store.Tx) (Consent, error) {
	all, err := store.ScanJSON[Consent](tx, consentTable, v.tenant+"|", "", 0)
	if err != nil {
		return Consent{}, err
	}
	at := slices.IndexFunc(all, func(c Consent) bool { return c.ID == fold(v.seg(1)) })
	if at < 0 {
		return Consent{}, missing("oAuth2PermissionGrant", v.seg(1))
	}
	return all[at], nil
}

func (v *visit) readConsent() (answer, error) {
	var c Consent
	err := v.s.DB.View(v.r.Context(), func(tx *store.Tx) (err error) {
		c, err = v.oneConsent(tx)
		return err
	})
	if err != nil {
		return answer{}, err
	}
	return v.one(http.StatusOK, "oauth2PermissionGrants", c.show())
}

// consentBody is what a client may say of a consent.
type consentBody struct {
	Client   string `json:"clientId"`
	Type     string `json:"consentType"`
	Person   string `json:"principalId"`
	Resource string `json:"resourceId"`
	Scope    string `json:"scope"`
	Start    any    `json:"startTime"`
	Expiry   any    `json:"expiryTime"` // ignored by Graph as well
}

// scopesFor are scopes that the API of a principal has; the OpenID ones need no consent.
func (v *visit) scopesFor(resource, scope string) (out []string, err error) {
	p := v.s.index.sp(fold(resource))
	if p == nil || p.Tenant != v.tenant {
		return nil, arm.Errorf(arm.BadRequest, "resourceId does not name a service principal of the tenant.")
	}
	h, ok := v.s.shop(v.tenant, p.AppID)
	if !ok {
		return nil, arm.Errorf(arm.BadRequest, "The service principal %s has no API.", p.ID)
	}
	for _, name := range strings.Fields(scope) {
		x, ok := h.named(name)
		switch {
		case oidcScopes[strings.ToLower(name)]:
		case !ok:
			return nil, arm.Errorf(arm.BadRequest, "The API of %s has no scope %s.", p.Name, printable(name))
		case !slices.Contains(out, x.Value):
			out = append(out, x.Value)
		}
	}
	return out, nil
}

func (v *visit) createConsent() (answer, error) {
	var b consentBody
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	client := v.s.index.sp(fold(b.Client))
	if client == nil || client.Tenant != v.tenant || client.Managed || client.Platform {
		return answer{}, arm.Errorf(arm.BadRequest, "clientId does not name a service principal of an application of the tenant.")
	}
	switch {
	case b.Type == "AllPrincipals" && b.Person == "":
	case b.Type == "Principal":
		if u := v.s.index.user(fold(b.Person)); u == nil || u.Tenant != v.tenant {
			return answer{}, arm.Errorf(arm.BadRequest, "principalId does not name a user of the tenant.")
		}
	default:
		return answer{}, arm.Errorf(arm.BadRequest, "consentType must be AllPrincipals, with no principalId, or Principal, with one.")
	}
	scopes, err := v.scopesFor(b.Resource, b.Scope)
	if err != nil {
		return answer{}, err
	}
	var c Consent
	err = v.change(func(tx *store.Tx) (err error) {
		if c, err = v.s.consentOf(tx, v.tenant, client.ID, fold(b.Resource), fold(b.Person)); err != nil {
			return err
		}
		if old, err := tx.Get(consentTable, c.key()); err != nil || old != nil {
			return cmpErr(err, arm.Errorf(arm.Conflict, "Permission entry already exists."))
		}
		c.Scopes = scopes
		return store.PutJSON(tx, consentTable, c.key(), c)
	})
	if err != nil {
		return answer{}, err
	}
	return v.one(http.StatusCreated, "oauth2PermissionGrants", c.show())
}

// cmpErr is err, or other if there is none.
func cmpErr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

func (v *visit) updateConsent() (answer, error) {
	var b struct {
		Scope *string `json:"scope"`
	}
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	if b.Scope == nil {
		return answer{}, arm.Errorf(arm.BadRequest, "Only scope can be changed.")
	}
	return done, v.change(func(tx *store.Tx) error {
		c, err := v.oneConsent(tx)
		if err != nil {
			return err
		}
		if c.Scopes, err = v.scopesFor(c.Resource, *b.Scope); err != nil {
			return err
		}
		return store.PutJSON(tx, consentTable, c.key(), c)
	})
}

func (v *visit) deleteConsent() (answer, error) {
	return done, v.change(func(tx *store.Tx) error {
		c, err := v.oneConsent(tx)
		if err != nil {
			return err
		}
		return tx.Delete(consentTable, c.key())
	})
}

func (v *visit) listAppRoles(is func(Assignment) bool) (answer, error) {
	if v.s.index.shown(v.tenant, fold(v.seg(1))) == nil {
		return answer{}, missing("directoryObject", v.seg(1))
	}
	out, err := v.assignedRows(is)
	if err != nil {
		return answer{}, err
	}
	return v.list("appRoleAssignments", out)
}

func (v *visit) assignedRows(is func(Assignment) bool) (out []map[string]any, err error) {
	all, err := rows[Assignment](v, assignmentTable)
	for _, a := range all {
		if is(a) {
			out = append(out, v.showAssignment(a))
		}
	}
	return out, err
}

// createAssignment gives a principal a role at an API. holder is whose list the
// path names, or "" if it names the API's.
func (v *visit) createAssignment(holder string) (answer, error) {
	var b struct {
		Principal string `json:"principalId"`
		Resource  string `json:"resourceId"`
		Role      string `json:"appRoleId"`
		Kind      any    `json:"principalType" arm:"readonly"`
	}
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	if holder == "" && fold(b.Resource) != fold(v.seg(1)) || holder != "" && fold(b.Principal) != holder {
		return answer{}, arm.Errorf(arm.BadRequest, "principalId or resourceId is not the one that the path names.")
	}
	if err := v.mayAssign(fold(b.Resource)); err != nil {
		return answer{}, err
	}
	a := Assignment{ID: arm.NewUUID(), Tenant: v.tenant, Principal: fold(b.Principal), Resource: fold(b.Resource), Role: fold(b.Role), Created: v.s.Now().UTC()}
	err := v.change(func(tx *store.Tx) error {
		if err := v.fits(tx, &a); err != nil {
			return err
		}
		return v.s.assign(tx, a)
	})
	if err != nil {
		return answer{}, err
	}
	return v.one(http.StatusCreated, "appRoleAssignments", v.showAssignment(a))
}

// mayAssign asks for the right to give roles at an API, whoever the path names:
// an owner of a client would else give it roles at the APIs of others. Roles at
// the platform's own APIs are given by those who make administrators.
func (v *visit) mayAssign(resource string) error {
	p := v.s.index.sp(resource)
	switch {
	case p == nil || p.Tenant != v.tenant:
		return noEnds
	case p.Platform:
		return v.alsoOn(assignRole, tenantID(v.tenant))
	}
	return v.alsoOn(assignApp, objectID(v.tenant, "servicePrincipals", p.ID))
}

var noEnds = arm.Errorf(arm.BadRequest, "principalId and resourceId must name a principal and a service principal of the tenant.")

// fits holds an assignment against the directory as tx sees it.
func (v *visit) fits(tx *store.Tx, a *Assignment) error {
	kind, ok, err := v.s.Principal(tx, v.tenant, a.Principal)
	if err != nil {
		return err
	}
	p, there, err := fetch[*Principal](tx, v.tenant, "sp", a.Resource)
	if err != nil {
		return err
	}
	if !ok || !there {
		return noEnds
	}
	a.Kind = kind
	member := map[bool]string{true: "Application", false: "User"}[kind == arm.ServicePrincipal]
	app, _, err := named[*App](tx, "app|"+fold(p.AppID))
	if err != nil {
		return err
	}
	role := slices.IndexFunc(p.roles(app), func(r AppRole) bool {
		return r.ID == a.Role && !r.Disabled && slices.Contains(r.Members, member)
	})
	if a.Role != defaultRole && role < 0 {
		return arm.Errorf(arm.BadRequest, "Permission being assigned was not found on application '%s', or is not for principals of this kind.", p.AppID)
	}
	had, err := v.s.assigned(tx, v.tenant, a.Resource, []string{a.Principal})
	if err != nil {
		return err
	}
	if slices.ContainsFunc(had, func(x Assignment) bool { return x.Role == a.Role }) {
		return arm.Errorf(arm.Conflict, "Permission being assigned already exists on the object.")
	}
	return nil
}

func (v *visit) deleteAssignment() (answer, error) {
	return done, v.change(func(tx *store.Tx) error {
		all, err := store.ScanJSON[Assignment](tx, assignmentTable, v.tenant+"|", "", 0)
		if err != nil {
			return err
		}
		at := slices.IndexFunc(all, func(a Assignment) bool {
			return a.ID == fold(v.seg(3)) && (a.Principal == fold(v.seg(1)) || a.Resource == fold(v.seg(1)))
		})
		if at < 0 {
			return missing("appRoleAssignment", v.seg(3))
		}
		return v.s.unassign(tx, all[at])
	})
}

// userConsentPolicy is Entra's name for letting people consent for themselves.
const userConsentPolicy = "ManagePermissionGrantsForSelf.microsoft-user-default-legacy"

// authorizationPolicy is what the tenant lets people do, of which only the
// consent for themselves can be changed.
func (v *visit) authorizationPolicy() map[string]any {
	granted := []string{}
	if t := v.s.index.tenantOf(v.tenant); t != nil && t.UserConsent {
		granted = append(granted, userConsentPolicy)
	}
	return map[string]any{"@odata.context": v.context("policies/authorizationPolicy/$entity"), "id": "authorizationPolicy", "displayName": "Authorization Policy",
		"allowInvitesFrom": "none", "allowedToUseSSPR": false, "defaultUserRolePermissions": map[string]any{
			"allowedToCreateApps": false, "allowedToCreateSecurityGroups": false, "allowedToReadOtherUsers": true, "permissionGrantPoliciesAssigned": granted,
		}}
}

func (v *visit) updateAuthorizationPolicy() (answer, error) {
	var b struct {
		Defaults struct {
			Granted *[]string `json:"permissionGrantPoliciesAssigned"`
		} `json:"defaultUserRolePermissions"`
	}
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	if b.Defaults.Granted == nil {
		return answer{}, arm.Errorf(arm.BadRequest, "Only defaultUserRolePermissions.permissionGrantPoliciesAssigned can be changed.")
	}
	on := false
	for _, p := range *b.Defaults.Granted {
		if fold(p) != fold(userConsentPolicy) {
			return answer{}, arm.Errorf(arm.BadRequest, "permissionGrantPoliciesAssigned has %s; it must be empty (only administrators consent) or %s.", printable(p), userConsentPolicy)
		}
		on = true
	}
	return done, v.change(func(tx *store.Tx) error {
		return v.s.amendTenant(tx, v.tenant, func(t *Tenant) { t.UserConsent = on })
	})
}

// amendTenant changes what is kept of a tenant.
func (s *Service) amendTenant(tx *store.Tx, id string, fn func(*Tenant)) error {
	t, ok, err := store.GetJSON[*Tenant](tx, tenantTable, id)
	if err != nil {
		return err
	}
	if !ok {
		return missing("tenant", id)
	}
	fn(t)
	tx.After(func() { s.index.tenant(t) })
	return store.PutJSON(tx, tenantTable, id, t)
}
