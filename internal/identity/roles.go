package identity

import (
	"slices"
	"strings"

	"castellan/internal/arm"
)

// Rights on the directory are actions on /providers/Microsoft.Directory/tenants/ID
// and on the objects below it, which Azure's roles never reach: an Owner of every
// subscription may not add a user, and who may add users owns nothing. Who has
// which of them is said by directoryroles.txt.
var (
	readDirectory   = arm.NewAction("microsoft.directory/objects/read", "look up objects of the tenant by their ids")
	readEntity      = arm.NewAction("microsoft.directory/entities/read", "look something up by another key than its id; what it is asks for more")
	readUsers       = arm.NewAction("microsoft.directory/users/standard/read", "see the people of the tenant")
	readGroups      = arm.NewAction("microsoft.directory/groups/standard/read", "see the groups of the tenant")
	readMembers     = arm.NewAction("microsoft.directory/groups/members/read", "see who is in which group")
	readOwners      = arm.NewAction("microsoft.directory/groups/owners/read", "see who owns a group")
	readApps        = arm.NewAction("microsoft.directory/applications/standard/read", "see the applications of the tenant")
	readAppOwners   = arm.NewAction("microsoft.directory/applications/owners/read", "see who owns an application")
	readPrincipals  = arm.NewAction("microsoft.directory/servicePrincipals/standard/read", "see the principals of applications and resources")
	readOrg         = arm.NewAction("microsoft.directory/organization/standard/read", "see the tenant itself")
	readRoles       = arm.NewAction("microsoft.directory/directoryRoles/standard/read", "see who administers the directory")
	readSelf        = arm.NewAction("microsoft.directory/me/read", "see oneself")
	changeSelf      = arm.NewAction("microsoft.directory/me/changePassword", "change one's own password")
	createUser      = arm.NewAction("microsoft.directory/users/create", "add a person")
	updateUser      = arm.NewAction("microsoft.directory/users/update", "change a person; each property asks for more")
	basicUser       = arm.NewAction("microsoft.directory/users/basic/update", "change a person's name and the like")
	passwordUser    = arm.NewAction("microsoft.directory/users/password/update", "give a person another password")
	enableUser      = arm.NewAction("microsoft.directory/users/enable", "let a person sign in")
	emergencyUser   = arm.NewAction("microsoft.directory/users/breakGlass/update", "make an account one for emergencies, which no Conditional Access policy holds")
	disableUser     = arm.NewAction("microsoft.directory/users/disable", "let a person not sign in")
	renameUser      = arm.NewAction("microsoft.directory/users/userPrincipalName/update", "change the name that a person signs in with")
	deleteUser      = arm.NewAction("microsoft.directory/users/delete", "delete a person")
	revokeUser      = arm.NewAction("microsoft.directory/users/revokeSignInSessions", "sign a person out everywhere")
	createGroup     = arm.NewAction("microsoft.directory/groups/create", "add a group")
	createRoleGroup = arm.NewAction("microsoft.directory/groupsAssignableToRoles/create", "add a group that directory roles can be given to")
	updateGroup     = arm.NewAction("microsoft.directory/groups/basic/update", "change a group")
	deleteGroup     = arm.NewAction("microsoft.directory/groups/delete", "delete a group")
	changeMembers   = arm.NewAction("microsoft.directory/groups/members/update", "say who is in a group")
	changeOwners    = arm.NewAction("microsoft.directory/groups/owners/update", "say who owns a group")
	createApp       = arm.NewAction("microsoft.directory/applications/create", "register an application")
	updateApp       = arm.NewAction("microsoft.directory/applications/basic/update", "change an application")
	deleteApp       = arm.NewAction("microsoft.directory/applications/delete", "delete an application")
	credentialApp   = arm.NewAction("microsoft.directory/applications/credentials/update", "give an application a secret or certificate, or take it away")
	ownApp          = arm.NewAction("microsoft.directory/applications/owners/update", "say who owns an application")
	createPrincipal = arm.NewAction("microsoft.directory/servicePrincipals/create", "let an application into the tenant")
	updatePrincipal = arm.NewAction("microsoft.directory/servicePrincipals/basic/update", "change an application's principal")
	deletePrincipal = arm.NewAction("microsoft.directory/servicePrincipals/delete", "put an application out of the tenant")
	ownPrincipal    = arm.NewAction("microsoft.directory/servicePrincipals/owners/update", "say who owns an application's principal")
	assignRole      = arm.NewAction("microsoft.directory/roleAssignments/allProperties/allTasks", "say who administers the directory")
	readConsents    = arm.NewAction("microsoft.directory/oAuth2PermissionGrants/standard/read", "see what applications may do for people")
	readAssigned    = arm.NewAction("microsoft.directory/servicePrincipals/appRoleAssignedTo/read", "see who has which role at an application")
	readPolicy      = arm.NewAction("microsoft.directory/authorizationPolicy/standard/read", "see what people of the tenant may do by themselves")
	consentAll      = arm.NewAction("microsoft.directory/oAuth2PermissionGrants/allProperties/update", "consent for everybody to what applications do for people")
	assignApp       = arm.NewAction("microsoft.directory/servicePrincipals/appRoleAssignedTo/update", "say who has which role at an application")
	updatePolicy    = arm.NewAction("microsoft.directory/authorizationPolicy/standard/update", "say what people of the tenant may do by themselves")
	readKeys        = arm.NewAction("microsoft.directory/signingKeys/read", "see which keys sign tokens")
	rotateKeys      = arm.NewAction("microsoft.directory/signingKeys/rotate", "let the next key sign tokens")
	retireKeys      = arm.NewAction("microsoft.directory/signingKeys/retire", "end a key and all tokens that it signed")
)

// globalAdministrator is the template id of Entra's role of this name.
const globalAdministrator = "62e90394-69f5-4237-9190-012177145e10"

// IsGlobalAdministrator reports whether the caller has the role, now.
func (s *Service) IsGlobalAdministrator(c arm.Caller) bool {
	return c.Lease == nil && !c.IsZero() && slices.Contains(s.directoryRoles(c.Object), globalAdministrator)
}

// Roles of Entra that say where a tenant's logs go, and that see it.
var (
	sendsLogs = []string{globalAdministrator, "194ae4cb-b126-40b2-bd5b-6091b380977d"}                                          // Security Administrator
	seesLogs  = append([]string{"f2ef992c-3afb-46b9-b7cf-a126ee74c451", "5d6b6bb7-de71-4623-b4af-96380a352509"}, sendsLogs...) // Global Reader, Security Reader
)

// decideLogs answers for the diagnostic settings of the caller's own tenant; handled is
// false where roles of Resource Manager decide.
func (s *Service) decideLogs(c arm.Caller, a arm.Action) (handled, allowed bool, reason string) {
	may := sendsLogs
	if strings.HasSuffix(a.Key(), "/read") {
		may = seesLogs
	}
	if c.IsZero() || c.Lease != nil || !strings.HasPrefix(a.Key(), "microsoft.aadiam/") {
		return false, false, ""
	}
	for _, role := range s.directoryRoles(c.Object) {
		if slices.Contains(may, role) {
			return true, true, "the directory role " + role
		}
	}
	return false, false, ""
}

var directoryRoot = arm.MustID("/providers/Microsoft.Directory")

// objectID is the scope of one object of a directory.
func objectID(tenant, class, id string) arm.ID {
	return arm.MustID("/providers/Microsoft.Directory/tenants/" + tenant + "/" + class + "/" + id)
}

// scopeOf is which directory a scope lies in, and which object of it it is, if
// it is one.
func scopeOf(id arm.ID) (tenant, class, object string) {
	p := strings.Split(id.Key(), "/") // "", providers, microsoft.directory, tenants, TENANT, CLASS, OBJECT
	if len(p) < 5 || !id.Within(directoryRoot) {
		return "", "", ""
	}
	if len(p) >= 7 {
		return p[4], p[5], p[6]
	}
	return p[4], "", ""
}

// Decide answers for ids below /providers/Microsoft.Directory; handled is false
// for all others, and for actions that are not the directory's nothing is
// allowed here.
func (s *Service) Decide(c arm.Caller, a arm.Action, id arm.ID) (handled, allowed bool, reason string) {
	if !id.Within(directoryRoot) {
		if strings.HasPrefix(a.Key(), "microsoft.directory/") {
			return true, false, "rights on the directory are given nowhere else"
		}
		return s.decideLogs(c, a)
	}
	allowed, reason = s.decide(c, a, id)
	return true, allowed, reason
}

func (s *Service) decide(c arm.Caller, a arm.Action, id arm.ID) (bool, string) {
	tenant, class, object := scopeOf(id)
	switch {
	case c.IsZero() || c.Lease != nil:
		return false, "nobody with rights of their own is calling"
	case c.Tenant == "" || tenant != fold(c.Tenant):
		return false, "it is the directory of another tenant"
	case a.Data() || !strings.HasPrefix(a.Key(), "microsoft.directory/"):
		return false, "it is no action of the directory"
	case homeOnly[a.Key()] && c.Tenant != s.Home():
		return false, "it is the home tenant's to do"
	case !s.lets(c, a):
		return false, "the application '" + printable(c.App) + "' lacks a scope to do this for the person"
	}
	st := standing{person: c.Kind == arm.User, roles: s.directoryRoles(c.Object), class: class}
	if !st.person {
		st.rights = s.appRoles(c.Tenant, c.Object)
	}
	if object != "" {
		st.owner = s.owns(c.Object, object)
		st.protected = s.protected(class, object)
	}
	return book.decide(st, a.Key())
}

// appRoles are the application permissions of the directory's API that a
// principal has now (User.Read.All and so on), whatever its token says.
func (s *Service) appRoles(tenant, principal string) (out []string) {
	api := s.index.spOf(tenant, graphApp)
	if api == nil {
		return nil
	}
	for _, a := range s.index.assigned(principal) {
		at := slices.IndexFunc(graphRoles, func(r AppRole) bool { return r.ID == a.Role })
		if a.Resource == api.ID && at >= 0 {
			out = append(out, graphRoles[at].Value)
		}
	}
	return out
}

// directoryRoles are the template ids of the directory roles that a principal
// has now, also by a group that roles can be given to.
func (s *Service) directoryRoles(principal string) []string {
	return s.index.rolesOf(principal, s.Now())
}

// owns reports whether a caller owns an object, or the application of which the
// object is the principal.
func (s *Service) owns(caller, object string) bool {
	if s.index.owns(caller, object) {
		return true
	}
	p := s.index.sp(object)
	if p == nil {
		return false
	}
	a := s.index.client(p.AppID)
	return a != nil && a.Tenant == p.Tenant && s.index.owns(caller, a.ID)
}

// protected reports whether an object is an administrator, or leads to being
// one: a group that roles can be given to, who is in it or owns it, an
// application whose principal administers.
func (s *Service) protected(class, object string) bool {
	if u := s.index.user(object); u != nil && u.BreakGlass {
		return true
	}
	if g := s.index.group(object); g != nil {
		return g.Assignable
	}
	if a := s.index.app(object); a != nil {
		p := s.index.spOf(a.Tenant, a.AppID)
		return p != nil && s.protected(class, p.ID)
	}
	var rights []string
	if p := s.index.sp(object); p != nil {
		rights = s.appRoles(p.Tenant, object)
	}
	if book.administers(s.directoryRoles(object), rights) {
		return true
	}
	for _, g := range append(s.index.owned(object), s.index.groupsOf(object)...) {
		if g := s.index.group(g); g != nil && g.Assignable {
			return true
		}
	}
	return false
}
