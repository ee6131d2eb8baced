package main

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const (
	authorization = "/providers/Microsoft.Authorization/"
	rolesVersion  = "2022-04-01" // of roles and assignments
	pimVersion    = "2020-10-01" // of schedules
)

// arm calls Resource Manager; path may have a query.
func (a *admin) arm(method, path, version string, body any) (map[string]any, error) {
	return a.s.call(a.ctx, a.h, method, a.s.ARM, versioned(path, version), body)
}

func (a *admin) armList(path, version string) (any, error) {
	return a.s.list(a.ctx, a.h, a.s.ARM, versioned(path, version))
}

func versioned(path, version string) string {
	if strings.Contains(path, "?") {
		return path + "&api-version=" + version
	}
	return path + "?api-version=" + version
}

// scope is --scope, or the subscription of the server that was signed in to.
func (a *admin) scope() (string, error) {
	s := strings.TrimRight(a.flag("scope"), "/")
	if s == "" && a.s.Subscription != "" {
		s = "/subscriptions/" + a.s.Subscription
	}
	if !strings.HasPrefix(s, "/") || strings.ContainsAny(s, "?#") {
		return "", fmt.Errorf("--scope is %q; it must be a resource's id, such as /subscriptions/ID/resourceGroups/NAME", s)
	}
	return (&url.URL{Path: s}).EscapedPath(), nil
}

// azureRole is the id of the role with a name at a scope.
func (a *admin) azureRole(scope, name string) (string, error) {
	rows, err := a.s.list(a.ctx, a.h, a.s.ARM, versioned(scope+authorization+"roleDefinitions"+where("roleName eq '%s'", name), rolesVersion))
	if err != nil {
		return "", err
	}
	if len(rows) != 1 {
		return "", fmt.Errorf("there is no role %q at %s; a role's name is such as Reader or \"AzureML Data Scientist\"", name, scope)
	}
	return cell(rows[0], "id"), nil
}

// newName is a random GUID, for what a client names.
func newName() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

const scopeFlag = "scope=id of what the role counts for (default: the server's subscription)"

func roleCommand() *cobra.Command {
	flags := []string{scopeFlag, "assignee=a person's user name, or an id"}
	directory := []string{"directory=a role of the directory, such as \"User Administrator\", instead of a role over resources"}
	return noun("role", "Who has which role",
		roleList(directory),
		verb{use: "assign ROLE", short: "Give a role", example: `role assign Reader --assignee anna@castellan.localhost --scope /subscriptions/ID`, columns: []string{"id"}, flags: flags, bools: directory, needs: []string{"assignee"}, run: assignRole},
		verb{use: "remove ROLE", short: "Take a role away", example: `role remove "User Administrator" --directory --assignee anna@castellan.localhost`, columns: []string{"removed"}, flags: flags, bools: directory, needs: []string{"assignee"}, run: removeRole},
	)
}

// roleList shows who has which role, by names where the caller may see them.
func roleList(directory []string) verb {
	return verb{use: "list", short: "List who has which role", example: "role list --directory", columns: []string{"role", "principal", "scope"}, flags: []string{scopeFlag}, bools: directory,
		run: func(a *admin, _ []string) (any, error) {
			if a.is("directory") {
				return a.directoryRoles()
			}
			scope, err := a.scope()
			if err != nil {
				return nil, err
			}
			names, err := a.s.list(a.ctx, a.h, a.s.ARM, versioned(scope+authorization+"roleDefinitions", rolesVersion))
			if err != nil {
				return nil, err
			}
			all, err := a.s.list(a.ctx, a.h, a.s.ARM, versioned(scope+authorization+"roleAssignments", rolesVersion))
			rows := []any{}
			for _, x := range all {
				rows = append(rows, row{"role": nameOf(names, cell(x, "properties.roleDefinitionId"), "properties.roleName"), "principal": cell(x, "properties.principalId"), "scope": cell(x, "properties.scope"), "id": cell(x, "id")})
			}
			return rows, err
		}}
}

func (a *admin) directoryRoles() (any, error) {
	const at = "roleManagement/directory/"
	names, err := a.graphList(at + "roleDefinitions")
	if err != nil {
		return nil, err
	}
	all, err := a.graphList(at + "roleAssignments")
	rows := []any{}
	for _, x := range all {
		rows = append(rows, row{"role": nameOf(names, cell(x, "roleDefinitionId"), "displayName"), "principal": cell(x, "principalId"), "scope": "/", "id": cell(x, "id")})
	}
	return rows, err
}

// nameOf is the name of the role with an id, whose last part alone is looked at.
func nameOf(roles []any, id, path string) string {
	last := func(s string) string { return strings.ToLower(s[strings.LastIndexByte(s, '/')+1:]) }
	for _, r := range roles {
		if last(cell(r, "id")) == last(id) {
			return cell(r, path)
		}
	}
	return id
}

// directoryRole is the id of the directory's role with a name.
func (a *admin) directoryRole(name string) (string, error) {
	return a.only("roleManagement/directory/roleDefinitions", name, where("displayName eq '%s'", name))
}

// holding is who has which role: at a scope, or in the directory.
type holding struct{ principal, kind, role, scope string } // no scope in the directory

// holding is what the flags and a role's name mean.
func (a *admin) holding(name string) (h holding, err error) {
	if h.principal, h.kind, err = a.principal(a.flag("assignee")); err != nil {
		return h, err
	}
	if a.is("directory") {
		h.role, err = a.directoryRole(name)
		return h, err
	}
	if h.scope, err = a.scope(); err != nil {
		return h, err
	}
	h.role, err = a.azureRole(h.scope, name)
	return h, err
}

func assignRole(a *admin, args []string) (any, error) {
	h, err := a.holding(args[0])
	if err != nil {
		return nil, err
	}
	if a.is("directory") {
		return a.graph("POST", "roleManagement/directory/roleAssignments", row{"principalId": h.principal, "roleDefinitionId": h.role, "directoryScopeId": "/"})
	}
	return a.arm("PUT", h.scope+authorization+"roleAssignments/"+newName(), rolesVersion, row{"properties": row{"roleDefinitionId": h.role, "principalId": h.principal, "principalType": h.kind}})
}

func removeRole(a *admin, args []string) (any, error) {
	h, err := a.holding(args[0])
	if err != nil {
		return nil, err
	}
	if a.is("directory") {
		return a.graph("DELETE", "directoryRoles/"+seg(h.role)+"/members/"+seg(h.principal)+"/$ref", nil)
	}
	all, err := a.s.list(a.ctx, a.h, a.s.ARM, versioned(h.scope+authorization+"roleAssignments"+where("principalId eq '%s'", h.principal), rolesVersion))
	if err != nil {
		return nil, err
	}
	here, _ := url.PathUnescape(h.scope)
	for _, x := range all {
		at := cell(x, "properties.scope")
		if !strings.EqualFold(at, here) || nameOf([]any{row{"id": h.role, "n": "same"}}, cell(x, "properties.roleDefinitionId"), "n") != "same" {
			continue
		}
		_, err := a.arm("DELETE", (&url.URL{Path: cell(x, "id")}).EscapedPath(), rolesVersion, nil)
		return row{"removed": cell(x, "id")}, err
	}
	return nil, fmt.Errorf("%s does not have the role %s at %s itself (castellan role list shows where)", a.flag("assignee"), args[0], here)
}

func pimCommand() *cobra.Command {
	cols := []string{"properties.expandedProperties.roleDefinition.displayName", "properties.scope", "properties.status", "properties.endDateTime", "name"}
	mine := func(typ string) func(*admin, []string) (any, error) {
		return func(a *admin, _ []string) (any, error) {
			scope, err := a.scope()
			if err != nil {
				return nil, err
			}
			return a.armList(scope+authorization+typ+where("asTarget()"), pimVersion)
		}
	}
	return noun("pim", "Roles for a time (privileged identity management)",
		verb{use: "eligible", short: "List the roles that I can activate", example: "pim eligible", columns: cols, flags: []string{scopeFlag}, run: mine("roleEligibilityScheduleInstances")},
		verb{use: "list", short: "List the roles that I have now", example: "pim list", columns: cols, flags: []string{scopeFlag}, run: mine("roleAssignmentScheduleInstances")},
		verb{use: "activate ROLE", short: "Activate a role that I am eligible for", example: `pim activate Contributor --justification "the nightly job fails" --duration PT1H`, columns: []string{"properties.status", "properties.scope", "name"},
			flags: []string{scopeFlag, "justification=why", "duration=for how long, such as PT2H (default PT1H)"}, needs: []string{"justification"}, run: activate},
		verb{use: "approve", short: "List what waits for my decision, or decide with --request", example: `pim approve --request ID --justification "agreed by phone"`, columns: []string{"name", "properties.status", "properties.reviewResult", "id"},
			flags: []string{"request=name of what is decided", "justification=why"}, bools: []string{"deny=refuse it"}, run: approve},
	)
}

// myself is the object that a token is for. The server reads the token; here it
// only says what to ask for.
func (a *admin) myself() (string, error) {
	text, err := a.s.bearer(a.ctx, a.h, a.s.ARM, "")
	if err != nil {
		return "", err
	}
	var claims struct {
		Object string `json:"oid"`
	}
	parts := strings.Split(text, ".")
	if len(parts) == 3 {
		b, _ := base64.RawURLEncoding.DecodeString(parts[1])
		_ = json.Unmarshal(b, &claims) // an empty object is refused below
	}
	if claims.Object == "" {
		return "", errors.New("the sign-in does not say who it is for; run castellan login again")
	}
	return claims.Object, nil
}

// eligible is the role with a name that I can activate, and where. Where --scope
// says nothing, it is where the eligibility is, if there is one alone.
func (a *admin) eligible(name string) (role, scope string, err error) {
	if scope, err = a.scope(); err != nil {
		return "", "", err
	}
	all, err := a.s.list(a.ctx, a.h, a.s.ARM, versioned(scope+authorization+"roleEligibilityScheduleInstances"+where("asTarget()"), pimVersion))
	if err != nil {
		return "", "", err
	}
	places := map[string]bool{}
	for _, x := range all {
		if !strings.EqualFold(cell(x, "properties.expandedProperties.roleDefinition.displayName"), name) {
			continue
		}
		role = cell(x, "properties.roleDefinitionId")
		places[cell(x, "properties.scope")] = true
	}
	switch {
	case len(places) == 0:
		return "", "", fmt.Errorf("you are not eligible for the role %q there; castellan pim eligible lists what you are eligible for", name)
	case a.flag("scope") != "":
		return role, scope, nil
	case len(places) > 1:
		return "", "", fmt.Errorf("you are eligible for %q in %d places; say which with --scope (castellan pim eligible lists them)", name, len(places))
	}
	for place := range places {
		scope = (&url.URL{Path: place}).EscapedPath()
	}
	return role, scope, nil
}

func activate(a *admin, args []string) (any, error) {
	role, scope, err := a.eligible(args[0])
	if err != nil {
		return nil, err
	}
	me, err := a.myself()
	if err != nil {
		return nil, err
	}
	duration := a.flag("duration")
	if duration == "" {
		duration = "PT1H"
	}
	return a.arm("PUT", scope+authorization+"roleAssignmentScheduleRequests/"+newName(), pimVersion, row{"properties": row{
		"principalId": me, "roleDefinitionId": role, "requestType": "SelfActivate", "justification": a.flag("justification"),
		"scheduleInfo": row{"startDateTime": time.Now().UTC().Format(time.RFC3339), "expiration": row{"type": "AfterDuration", "duration": duration}}}})
}

func approve(a *admin, _ []string) (any, error) {
	const at = authorization + "roleAssignmentApprovals"
	name := a.flag("request")
	if name == "" {
		return a.armList(at+where("asApprover()"), "2021-01-01-preview")
	}
	stages, err := a.s.list(a.ctx, a.h, a.s.ARM, versioned(at+"/"+seg(name)+"/stages", "2021-01-01-preview"))
	if err != nil {
		return nil, err
	}
	if len(stages) != 1 {
		return nil, fmt.Errorf("%s has %d stages; it must have one", name, len(stages))
	}
	result := "Approve"
	if a.is("deny") {
		result = "Deny"
	}
	return a.arm("PATCH", at+"/"+seg(name)+"/stages/"+seg(cell(stages[0], "name")), "2021-01-01-preview", row{"properties": row{"reviewResult": result, "justification": a.flag("justification")}})
}
