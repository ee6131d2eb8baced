package identity

import (
	"net/http"
	"strconv"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/audit"
)

var readAudits = arm.NewAction("microsoft.directory/auditLogs/allProperties/read", "see who changed what in the directory, and who tried to")

// listAudits is the tenant's part of the audit log that tells of changes of the directory,
// in the form of Microsoft Graph's directoryAudit.
func (v *visit) listAudits() (answer, error) { return v.listEntries("directoryAudits", v.s.showAudit) }

func (v *visit) getAudit() (answer, error) {
	seq, err := strconv.ParseUint(v.path[2], 10, 63)
	if err != nil {
		return answer{}, missing("directoryAudit", v.path[2])
	}
	if err := v.s.Log.Sync(v.r.Context()); err != nil {
		return answer{}, err
	}
	list, err := v.s.Log.Before(v.r.Context(), seq+1, 1)
	if err != nil {
		return answer{}, err
	}
	for _, e := range list {
		if m := v.s.showAudit(e); e.Seq == seq && e.Tenant == v.tenant && m != nil {
			initiator(m)
			m["@odata.context"] = v.context("auditLogs/directoryAudits/$entity")
			return answer{http.StatusOK, m}, nil
		}
	}
	return answer{}, missing("directoryAudit", v.path[2])
}

// classOf is what of the directory an entry changed, "" for one that changed nothing
// there. Reads and sign-ins are no changes, and a batch's parts have entries of their own.
func classOf(e audit.Entry) string {
	path, ok := strings.CutPrefix(e.Action, "microsoft.directory/")
	if !ok || e.Action == signInAction || strings.HasSuffix(path, "/read") || strings.HasPrefix(path, "batches/") {
		return ""
	}
	class, _, _ := strings.Cut(path, "/")
	return class
}

// categories are Entra's, by what was changed; everything else is DirectoryManagement.
var categories = map[string]string{
	"users": "UserManagement", "me": "UserManagement", "groups": "GroupManagement", "groupsAssignableToRoles": "GroupManagement",
	"applications": "ApplicationManagement", "servicePrincipals": "ApplicationManagement", "oAuth2PermissionGrants": "ApplicationManagement",
	"roleAssignments": "RoleManagement", "conditionalAccessPolicies": "Policy", "namedLocations": "Policy", "authorizationPolicy": "Policy",
	"provisioning": "ProvisioningManagement",
}

// operationOf is Entra's operationType: what an action does, by its last word.
func operationOf(action string) string {
	switch action[strings.LastIndexByte(action, '/')+1:] {
	case "create", "groupsAssignableToRoles":
		return "Add"
	case "delete":
		return "Delete"
	case "allTasks":
		return "Assign"
	}
	return "Update"
}

// showAudit is the entry as a directoryAudit, nil for one that changed nothing in the
// directory. All that a filter may name is there, as null where there is none.
func (s *Service) showAudit(e audit.Entry) map[string]any {
	class := classOf(e)
	if class == "" {
		return nil
	}
	category := categories[class]
	if category == "" {
		category = "DirectoryManagement"
	}
	result := "success"
	if e.Outcome != "ok" {
		result = "failure"
	}
	user := map[string]any{"id": nil, "displayName": nil, "userPrincipalName": nil, "ipAddress": nil}
	app := map[string]any{"appId": nullable(e.App), "displayName": nil, "servicePrincipalId": nil, "servicePrincipalName": nil}
	if u := s.index.user(e.Caller); u != nil || strings.Contains(e.Name, "@") {
		user["id"], user["userPrincipalName"], user["ipAddress"] = nullable(e.Caller), nullable(e.Name), nullable(e.Address)
		if u != nil {
			user["displayName"] = nullable(u.Name)
		}
	} else {
		app["servicePrincipalId"], app["displayName"] = nullable(e.Caller), nullable(e.Name)
	}
	target := map[string]any{"id": nil, "displayName": nil, "type": nil, "userPrincipalName": nil, "modifiedProperties": []any{}}
	if id, err := arm.ParseID(e.Target); err == nil {
		if _, class, object := scopeOf(id); object != "" {
			target["id"], target["type"] = object, targetTypes[class]
			if u := s.index.user(object); u != nil {
				target["displayName"], target["userPrincipalName"] = nullable(u.Name), nullable(u.UPN)
			}
		}
	}
	return map[string]any{
		"id": strconv.FormatUint(e.Seq, 10), "activityDateTime": stamp(e.Time), "activityDisplayName": e.Action, "category": category, "operationType": operationOf(e.Action),
		"loggedByService": "Core Directory", "correlationId": nullable(e.Correlation), "result": result, "resultReason": e.Reason,
		"initiatedBy": map[string]any{"user": user, "app": app}, "targetResources": []any{target},
		"additionalDetails": []any{map[string]any{"key": "path", "value": e.Item}, map[string]any{"key": "outcome", "value": e.Outcome}, map[string]any{"key": "ipAddress", "value": e.Address}},
	}
}

// initiator leaves of initiatedBy the one who it was: the other is null, as in Graph.
func initiator(m map[string]any) {
	by, ok := m["initiatedBy"].(map[string]any)
	if !ok {
		return
	}
	other := "user"
	if by["user"].(map[string]any)["id"] != nil {
		other = "app"
	}
	by[other] = nil
}

// targetTypes are Graph's names for the kinds of objects.
var targetTypes = map[string]any{"users": "User", "groups": "Group", "applications": "Application", "serviceprincipals": "ServicePrincipal"}
