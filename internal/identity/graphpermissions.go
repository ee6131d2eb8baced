package identity

import (
	"slices"
	"strings"

	"castellan/internal/arm"
)

// What an application says of its own API, and of what it will ask others for.

type scopeBody struct {
	ID        string `json:"id"`
	Value     string `json:"value"`
	Type      string `json:"type"`
	Enabled   *bool  `json:"isEnabled"`
	AdminName string `json:"adminConsentDisplayName"`
	AdminText string `json:"adminConsentDescription"`
	UserName  string `json:"userConsentDisplayName"`
	UserText  string `json:"userConsentDescription"`
	Origin    any    `json:"origin" arm:"readonly"`
	Lang      any    `json:"lang" arm:"readonly"`
}

type roleBody struct {
	ID          string   `json:"id"`
	Value       string   `json:"value"`
	Name        string   `json:"displayName"`
	Description string   `json:"description"`
	Members     []string `json:"allowedMemberTypes"`
	Enabled     *bool    `json:"isEnabled"`
	Origin      any      `json:"origin" arm:"readonly"`
	Lang        any      `json:"lang" arm:"readonly"`
}

type needBody struct {
	App    string `json:"resourceAppId"`
	Access []struct {
		ID   string `json:"id"`
		Type string `json:"type"`
	} `json:"resourceAccess"`
}

type trustBody struct {
	App    string   `json:"appId"`
	Scopes []string `json:"delegatedPermissionIds"`
	Old    []string `json:"permissionIds"`
}

type apiBody struct {
	Version *int         `json:"requestedAccessTokenVersion"`
	Scopes  *[]scopeBody `json:"oauth2PermissionScopes"`
	Trusted *[]trustBody `json:"preAuthorizedApplications"`
	Known   []string     `json:"knownClientApplications"`
	Mapped  *bool        `json:"acceptMappedClaims"`
}

const maxPermissions = 400 // of an application, of each kind

func refusedf(format string, args ...any) error { return arm.Errorf(arm.BadRequest, format, args...) }

// fillPermissions takes over what the client said of permissions.
func (a *App) fillPermissions(b appBody) error {
	if b.Claims != nil && !empty(b.Claims) {
		return refusedf("optionalClaims are not supported: every token has the claims of its version.")
	}
	if b.Groups != nil {
		if !slices.Contains([]string{"", "None", "SecurityGroup", "All"}, *b.Groups) {
			return refusedf("groupMembershipClaims is %s; it must be None, SecurityGroup or All.", printable(*b.Groups))
		}
		a.GroupClaims = *b.Groups
	}
	if b.Access != nil {
		if err := a.fillNeeds(*b.Access); err != nil {
			return err
		}
	}
	if b.Roles != nil {
		if err := a.fillRoles(*b.Roles); err != nil {
			return err
		}
	}
	if b.API == nil {
		return nil
	}
	return a.fillAPI(*b.API)
}

// empty reports whether v says nothing: every list in it is empty.
func empty(v any) bool {
	switch x := v.(type) {
	case nil:
		return true
	case []any:
		return len(x) == 0
	case map[string]any:
		for _, y := range x {
			if !empty(y) {
				return false
			}
		}
		return true
	}
	return false
}

func (a *App) fillNeeds(list []needBody) error {
	a.Needs = nil
	if len(list) > 50 {
		return refusedf("requiredResourceAccess names %d APIs; at most 50 are allowed.", len(list))
	}
	for _, n := range list {
		if !isGUID(n.App) || len(n.Access) > maxPermissions {
			return refusedf("resourceAppId must be an app id, with at most %d permissions.", maxPermissions)
		}
		out := Needs{App: fold(n.App)}
		for _, x := range n.Access {
			switch {
			case !isGUID(x.ID):
				return refusedf("resourceAccess has an id that is not one.")
			case x.Type == "Scope":
				out.Scopes = append(out.Scopes, fold(x.ID))
			case x.Type == "Role":
				out.Roles = append(out.Roles, fold(x.ID))
			default:
				return refusedf("resourceAccess has the type %s; it must be Scope or Role.", printable(x.Type))
			}
		}
		a.Needs = append(a.Needs, out)
	}
	return nil
}

// unlike refuses ids that are none, and ids and values that stand twice.
func unlike(what string, seen map[string]bool, id, value string) error {
	switch {
	case !isGUID(id):
		return refusedf("%s needs an id that is a GUID.", what)
	case !permissionValue.MatchString(value):
		return refusedf("The value of %s must be 1 to 120 letters, digits and signs, without spaces.", what)
	case seen[fold(id)] || seen["value "+fold(value)]:
		return refusedf("%s has the same id or value twice.", what)
	}
	seen[fold(id)], seen["value "+fold(value)] = true, true
	return nil
}

func (a *App) fillRoles(list []roleBody) error {
	out, seen := []AppRole{}, map[string]bool{}
	if len(list) > maxPermissions {
		return refusedf("An application has at most %d appRoles.", maxPermissions)
	}
	for _, r := range list {
		if err := unlike("appRoles", seen, r.ID, r.Value); err != nil {
			return err
		}
		if len(r.Members) == 0 || slices.ContainsFunc(r.Members, func(m string) bool { return m != "User" && m != "Application" }) {
			return refusedf("allowedMemberTypes must be User, Application or both.")
		}
		if fold(r.ID) == defaultRole {
			return refusedf("appRoles can't have the id %s.", defaultRole)
		}
		out = append(out, AppRole{ID: fold(r.ID), Value: r.Value, Name: r.Name, Description: r.Description, Members: r.Members, Disabled: r.Enabled != nil && !*r.Enabled})
	}
	a.Roles = out
	return nil
}

func (a *App) fillAPI(b apiBody) error {
	if len(b.Known) > 0 || b.Mapped != nil && *b.Mapped {
		return refusedf("knownClientApplications and acceptMappedClaims are not supported.")
	}
	if b.Version != nil {
		if *b.Version != 1 && *b.Version != 2 {
			return refusedf("requestedAccessTokenVersion is %d; it must be 1 or 2.", *b.Version)
		}
		a.TokenVersion = *b.Version
	}
	if b.Scopes != nil {
		if err := a.fillScopes(*b.Scopes); err != nil {
			return err
		}
	}
	if b.Trusted == nil {
		return nil
	}
	if len(*b.Trusted) > 100 {
		return refusedf("preAuthorizedApplications names more than 100 applications.")
	}
	a.Trusted = nil
	for _, t := range *b.Trusted {
		p := Preauthorized{App: fold(t.App)}
		for _, id := range append(t.Scopes, t.Old...) {
			if !slices.ContainsFunc(a.Scopes, func(x Scope) bool { return x.ID == fold(id) }) {
				return refusedf("preAuthorizedApplications names a permission that is not among oauth2PermissionScopes.")
			}
			p.Scopes = append(p.Scopes, fold(id))
		}
		if !isGUID(t.App) {
			return refusedf("preAuthorizedApplications needs app ids.")
		}
		a.Trusted = append(a.Trusted, p)
	}
	return nil
}

func (a *App) fillScopes(list []scopeBody) error {
	out, seen := []Scope{}, map[string]bool{}
	if len(list) > maxPermissions {
		return refusedf("An application has at most %d oauth2PermissionScopes.", maxPermissions)
	}
	for _, x := range list {
		if err := unlike("oauth2PermissionScopes", seen, x.ID, x.Value); err != nil {
			return err
		}
		if x.Type != "" && x.Type != "Admin" && x.Type != "User" || strings.HasPrefix(x.Value, ".") || strings.Contains(x.Value, "/") || oidcScopes[strings.ToLower(x.Value)] {
			return refusedf("A scope has the type Admin or User, and a value that neither begins with a dot, nor has a slash, nor is one of OpenID Connect's.")
		}
		out = append(out, Scope{ID: fold(x.ID), Value: x.Value, Admin: x.Type != "User", Disabled: x.Enabled != nil && !*x.Enabled,
			AdminName: x.AdminName, AdminText: x.AdminText, UserName: x.UserName, UserText: x.UserText})
	}
	a.Scopes = out
	return nil
}

func showScopes(list []Scope) []any {
	out := []any{}
	for _, x := range list {
		out = append(out, map[string]any{"id": x.ID, "value": x.Value, "type": map[bool]string{true: "Admin", false: "User"}[x.Admin], "isEnabled": !x.Disabled,
			"adminConsentDisplayName": x.AdminName, "adminConsentDescription": x.AdminText, "userConsentDisplayName": nullable(x.UserName), "userConsentDescription": nullable(x.UserText)})
	}
	return out
}

func showRoles(list []AppRole) []any {
	out := []any{}
	for _, r := range list {
		out = append(out, map[string]any{"id": r.ID, "value": r.Value, "displayName": r.Name, "description": r.Description, "allowedMemberTypes": r.Members, "isEnabled": !r.Disabled, "origin": "Application"})
	}
	return out
}

func (a *App) showNeeds() []any {
	out := []any{}
	for _, n := range a.Needs {
		access := []any{}
		for _, id := range n.Scopes {
			access = append(access, map[string]any{"id": id, "type": "Scope"})
		}
		for _, id := range n.Roles {
			access = append(access, map[string]any{"id": id, "type": "Role"})
		}
		out = append(out, map[string]any{"resourceAppId": n.App, "resourceAccess": access})
	}
	return out
}

func (a *App) showAPI() map[string]any {
	trusted := []any{}
	for _, t := range a.Trusted {
		trusted = append(trusted, map[string]any{"appId": t.App, "delegatedPermissionIds": append([]string{}, t.Scopes...)})
	}
	return map[string]any{"requestedAccessTokenVersion": a.version(), "oauth2PermissionScopes": showScopes(a.Scopes), "preAuthorizedApplications": trusted, "knownClientApplications": []any{}, "acceptMappedClaims": nil}
}

// version is the version of tokens for the application's API.
func (a *App) version() int {
	if a.TokenVersion == 0 {
		return 2
	}
	return a.TokenVersion
}
