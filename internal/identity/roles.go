package identity

import (
	"strings"

	"castellan/internal/arm"
)

// Rights on the directory are actions on /providers/Microsoft.Directory/tenants/ID,
// which Azure's roles never reach: an Owner of every subscription may not add a
// user, and who may add users owns nothing. Every user of a tenant sees its
// directory, and so do its administrators, people or not; only the role Global
// Administrator changes it.
var (
	readDirectory   = arm.NewAction("microsoft.directory/objects/read", "see the people, groups and applications of the tenant")
	readSelf        = arm.NewAction("microsoft.directory/me/read", "see oneself")
	changeSelf      = arm.NewAction("microsoft.directory/me/changePassword", "change one's own password")
	createUser      = arm.NewAction("microsoft.directory/users/create", "add a person")
	updateUser      = arm.NewAction("microsoft.directory/users/update", "change a person, also the password")
	deleteUser      = arm.NewAction("microsoft.directory/users/delete", "delete a person")
	revokeUser      = arm.NewAction("microsoft.directory/users/revokeSignInSessions", "sign a person out everywhere")
	createGroup     = arm.NewAction("microsoft.directory/groups/create", "add a group")
	updateGroup     = arm.NewAction("microsoft.directory/groups/update", "change a group")
	deleteGroup     = arm.NewAction("microsoft.directory/groups/delete", "delete a group")
	changeMembers   = arm.NewAction("microsoft.directory/groups/members/update", "say who is in a group")
	createApp       = arm.NewAction("microsoft.directory/applications/create", "register an application")
	updateApp       = arm.NewAction("microsoft.directory/applications/update", "change an application")
	deleteApp       = arm.NewAction("microsoft.directory/applications/delete", "delete an application")
	credentialApp   = arm.NewAction("microsoft.directory/applications/credentials/update", "give an application a secret or certificate, or take it away")
	createPrincipal = arm.NewAction("microsoft.directory/servicePrincipals/create", "let an application into the tenant")
	updatePrincipal = arm.NewAction("microsoft.directory/servicePrincipals/update", "change an application's principal")
	deletePrincipal = arm.NewAction("microsoft.directory/servicePrincipals/delete", "put an application out of the tenant")
	assignRole      = arm.NewAction("microsoft.directory/roleAssignments/allProperties/allTasks", "say who administers the directory")
	readKeys        = arm.NewAction("microsoft.directory/signingKeys/read", "see which keys sign tokens")
	rotateKeys      = arm.NewAction("microsoft.directory/signingKeys/rotate", "let the next key sign tokens")
	retireKeys      = arm.NewAction("microsoft.directory/signingKeys/retire", "end a key and all tokens that it signed")
)

// globalAdministrator is the id of Entra's role of this name.
const globalAdministrator = "62e90394-69f5-4237-9190-012177145e10"

var directoryRoot = arm.MustID("/providers/Microsoft.Directory")

// Decide answers for ids below /providers/Microsoft.Directory; handled is false
// for all others, and for actions that are not the directory's nothing is
// allowed here.
func (s *Service) Decide(c arm.Caller, a arm.Action, id arm.ID) (handled, allowed bool, reason string) {
	if !id.Within(directoryRoot) {
		if strings.HasPrefix(a.Key(), "microsoft.directory/") {
			return true, false, "rights on the directory are given nowhere else"
		}
		return false, false, ""
	}
	allowed, reason = s.decide(c, a, id)
	return true, allowed, reason
}

func (s *Service) decide(c arm.Caller, a arm.Action, id arm.ID) (bool, string) {
	switch {
	case c.IsZero() || c.Lease != nil:
		return false, "nobody with rights of their own is calling"
	case c.Tenant == "" || id.Key() != tenantID(c.Tenant).Key():
		return false, "it is the directory of another tenant"
	case a.Data() || !strings.HasPrefix(a.Key(), "microsoft.directory/"):
		return false, "it is no action of the directory"
	case homeOnly[a.Key()] && c.Tenant != s.Home():
		return false, "it is the home tenant's to do"
	case s.index.admin(c.Object):
		return true, "the directory role Global Administrator"
	}
	switch a.Key() {
	case readSelf.Key():
		return true, "everybody sees themselves"
	case changeSelf.Key():
		return c.Kind == arm.User, "people change their own password"
	case readDirectory.Key():
		if c.Kind == arm.User {
			return true, "people see the directory of their tenant"
		}
		return false, "an application sees the directory only with a directory role"
	}
	return false, "the caller lacks the directory role Global Administrator"
}
