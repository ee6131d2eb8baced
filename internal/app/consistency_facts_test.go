package app

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"

	"castellan/internal/arm"
)

// reading is what a role must have to be let in everywhere in the lab.
func reading() map[string]any {
	return map[string]any{
		"actions":     []string{"*/read"},
		"dataActions": []string{"Microsoft.KeyVault/vaults/secrets/readMetadata/action", "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read"},
	}
}

// role makes a custom role.
func (w *facts) role(name string) (id string, define func(permissions map[string]any) error) {
	id = "/subscriptions/" + w.sub + atScope + "roleDefinitions/" + arm.NewUUID()
	define = func(permissions map[string]any) error {
		return w.rm(http.MethodPut, id, map[string]any{"properties": map[string]any{
			"roleName": name, "type": "CustomRole", "permissions": []any{permissions}, "assignableScopes": []string{"/subscriptions/" + w.sub},
		}})
	}
	if err := define(reading()); err != nil {
		w.t.Fatal(err)
	}
	return id, define
}

// assignment is the body of a role assignment.
func assignment(role, principal, kind string) map[string]any {
	return map[string]any{"properties": map[string]any{"roleDefinitionId": role, "principalId": principal, "principalType": kind}}
}

// prepare stops the test if a preparation fails.
func (w *facts) prepare(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// rolesAndPeople are roles, how they come and go, and who they are given to.
func (w *facts) rolesAndPeople() {
	reads, _ := w.role("reads")
	give := func(c *caller, kind string) {
		w.prepare(w.rm(http.MethodPut, given(w.group, "roleAssignments"), assignment(reads, c.object, kind)))
	}
	const sp = "ServicePrincipal"

	assigned := w.newCaller("assigned")
	w.fact("a role assignment", []string{"Microsoft.Authorization/roleAssignments/write", "Microsoft.Authorization/roleAssignments/delete"},
		w.putOrDelete(given(w.group, "roleAssignments"), assignment(reads, assigned.object, sp)), w.everywhere(assigned)...)

	defined := w.newCaller("defined")
	changing, define := w.role("changing")
	w.prepare(w.rm(http.MethodPut, given(w.group, "roleAssignments"), assignment(changing, defined.object, sp)))
	w.fact("a role's definition", []string{"Microsoft.Authorization/roleDefinitions/write"}, func(on bool) error {
		if on {
			return define(reading())
		}
		return define(map[string]any{"actions": []string{"Microsoft.Insights/components/read"}})
	}, w.everywhere(defined)...)

	careful := w.newCaller("conditional")
	under := given(w.group, "roleAssignments")
	w.fact("a condition", nil, func(on bool) error {
		container := map[bool]string{true: "con", false: "other"}[on]
		body := assignment("/subscriptions/"+w.sub+atScope+"roleDefinitions/2a2b9908-6ea1-4ae2-8e65-a410df84e7d1", careful.object, sp)
		body["properties"].(map[string]any)["conditionVersion"] = "2.0"
		body["properties"].(map[string]any)["condition"] = "((!(ActionMatches{'Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read'})) OR (@Resource[Microsoft.Storage/storageAccounts/blobServices/containers:name] StringEquals '" + container + "'))"
		return w.rm(http.MethodPut, under, body)
	}, w.storage(careful)...)

	denied := w.newCaller("denied")
	give(denied, sp)
	denies := map[string]any{"properties": map[string]any{
		"denyAssignmentName": "law", "permissions": []any{reading()}, "principals": []any{map[string]any{"id": denied.object, "type": sp}},
	}}
	w.fact("a deny assignment", []string{"Microsoft.Authorization/denyAssignments/write", "Microsoft.Authorization/denyAssignments/delete"},
		not(w.putOrDelete(given(w.group, "denyAssignments"), denies)), w.everywhere(denied)...)

	const eligibility, activation = "roleEligibilityScheduleRequests", "roleAssignmentScheduleRequests"
	request := func(c *caller, kind, typ, token string) error {
		return w.do(token, http.MethodPut, w.url(given(w.group, kind)), map[string]any{"properties": map[string]any{
			"roleDefinitionId": reads, "principalId": c.object, "requestType": typ, "justification": "the law",
			"scheduleInfo": map[string]any{"expiration": map[string]any{"type": "AfterDuration", "duration": map[string]string{eligibility: "P1D", activation: "PT1H"}[kind]}},
		}})
	}
	active := w.signed("active")
	w.prepare(request(active, eligibility, "AdminAssign", w.arm))
	w.fact("an activation", []string{"Microsoft.Authorization/" + activation + "/write"}, func(on bool) error {
		return request(active, activation, map[bool]string{true: "SelfActivate", false: "SelfDeactivate"}[on], active.at("arm")())
	}, w.everywhere(active)...)
	eligible := w.signed("eligible")
	w.fact("an eligibility that is activated", []string{"Microsoft.Authorization/" + eligibility + "/write"}, func(on bool) error {
		if !on {
			return request(eligible, eligibility, "AdminRemove", w.arm)
		}
		if err := request(eligible, eligibility, "AdminAssign", w.arm); err != nil {
			return err
		}
		return request(eligible, activation, "SelfActivate", eligible.at("arm")())
	}, w.everywhere(eligible)...)

	member := w.newCaller("member")
	graph := w.s.ready.Graph + "/v1.0/"
	var g struct{ ID string }
	w.must(w.t, &g, w.graph, http.MethodPost, graph+"groups", map[string]any{"displayName": "law", "mailNickname": "law", "mailEnabled": false, "securityEnabled": true})
	w.prepare(w.rm(http.MethodPut, given(w.group, "roleAssignments"), assignment(reads, g.ID, "Group")))
	w.fact("a group's members", []string{"microsoft.directory/groups/members/update"}, func(on bool) error {
		if on {
			return w.do(w.graph, http.MethodPost, graph+"groups/"+g.ID+"/members/$ref", map[string]any{"@odata.id": graph + "directoryObjects/" + member.object})
		}
		return w.do(w.graph, http.MethodDelete, graph+"groups/"+g.ID+"/members/"+member.object+"/$ref", nil)
	}, w.everywhere(member)...)
}

// directory are facts of the directory, and of sign-ins.
func (w *facts) directory() {
	graph := w.s.ready.Graph + "/v1.0/"
	reads, _ := w.role("known")
	let := func(c *caller, kind string) *caller {
		w.prepare(w.rm(http.MethodPut, given(w.group, "roleAssignments"), assignment(reads, c.object, kind)))
		return c
	}
	signIn := func(p person) ask {
		form := "grant_type=client_credentials&client_id=" + p.id + "&client_secret=" + p.secret + "&scope=" + w.base + "/.default"
		return ask{method: http.MethodPost, url: w.base + "/" + w.s.ready.TenantID + "/oauth2/v2.0/token", body: []byte(form), header: []string{"Content-Type", "application/x-www-form-urlencoded"}}
	}
	policies := func(c *caller) ask {
		return ask{method: http.MethodGet, url: graph + "identity/conditionalAccess/policies", token: c.at("graph")}
	}
	// Disabling ends what was given before for good, so that letting in is by a new sign-in.
	able := func(kind string, c *caller) func(bool) error {
		return func(on bool) error {
			err := w.do(w.graph, http.MethodPatch, graph+kind+"/"+c.object, map[string]any{"accountEnabled": on})
			if err == nil && on {
				c.again()
			}
			return err
		}
	}
	disabled := let(w.newCaller("disabled"), "ServicePrincipal")
	w.fact("an application that is disabled", []string{"microsoft.directory/servicePrincipals/basic/update"}, able("servicePrincipals", disabled), append(w.everywhere(disabled), signIn(disabled.person))...)
	u := let(w.signed("user"), "User")
	me := func(c *caller) ask { return ask{method: http.MethodGet, url: graph + "me", token: c.at("graph")} }
	w.fact("a person who is disabled", []string{"microsoft.directory/users/update"}, able("users", u), append(w.everywhere(u), me(u))...)

	b := let(w.signed("blocked"), "User")
	policy := map[string]any{
		"displayName": "law", "state": "disabled", "grantControls": map[string]any{"operator": "OR", "builtInControls": []string{"block"}},
		"conditions": map[string]any{"users": map[string]any{"includeUsers": []string{b.object}}, "applications": map[string]any{"includeApplications": []string{"All"}}, "clientAppTypes": []string{"all"}},
	}
	var made struct{ ID string }
	w.must(w.t, &made, w.graph, http.MethodPost, graph+"identity/conditionalAccess/policies", policy)
	w.fact("a Conditional Access policy", []string{"microsoft.directory/conditionalAccessPolicies/basic/update"}, func(on bool) error {
		return w.do(w.graph, http.MethodPatch, graph+"identity/conditionalAccess/policies/"+made.ID, map[string]any{"state": map[bool]string{true: "disabled", false: "enabled"}[on]})
	}, append(w.everywhere(b), me(b))...)

	d := w.newCaller("administrator")
	w.fact("a directory role", []string{"microsoft.directory/roleAssignments/allProperties/allTasks"},
		w.postOrDelete(graph+"roleManagement/directory/roleAssignments", map[string]any{"principalId": d.object, "roleDefinitionId": "f2ef992c-3afb-46b9-b7cf-a126ee74c451", "directoryScopeId": "/"}), policies(d))

	p := w.newCaller("permitted")
	var api struct {
		ID    string
		Roles []struct{ ID, Value string } `json:"appRoles"`
	}
	w.must(w.t, &api, w.graph, http.MethodGet, graph+"servicePrincipals(appId='00000003-0000-0000-c000-000000000000')", nil)
	for _, r := range api.Roles {
		if r.Value == "Policy.Read.All" {
			w.fact("an application's permission", []string{"microsoft.directory/servicePrincipals/appRoleAssignedTo/update"},
				w.postOrDelete(graph+"servicePrincipals/"+p.object+"/appRoleAssignments", map[string]any{"principalId": p.object, "resourceId": api.ID, "appRoleId": r.ID}), policies(p))
		}
	}

	k := let(w.newCaller("keyed"), "ServicePrincipal")
	password := "servicePrincipals/" + k.object
	var key struct{ KeyID, SecretText string }
	w.fact("an application's password", []string{"microsoft.directory/applications/credentials/update"}, func(on bool) error {
		if !on {
			return w.do(w.graph, http.MethodPost, graph+password+"/removePassword", map[string]any{"keyId": key.KeyID})
		}
		if err := w.take(&key, w.graph, graph+password+"/addPassword", map[string]any{"passwordCredential": map[string]any{}}); err != nil {
			return err
		}
		k.person.secret = key.SecretText
		k.again()
		return nil
	}, w.everywhere(k)...)
	w.prepare(w.all[len(w.all)-1].turn(true))
}

// take is do whose answer is read into out.
func (w *facts) take(out any, token, u string, body any) error {
	r, err := w.send(token, http.MethodPost, u, body)
	if err == nil && r.status/100 != 2 {
		err = fmt.Errorf("POST %s = %d %s", u, r.status, r.body)
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(r.body, out)
}

// postOrDelete turns what gets its id when it is made.
func (w *facts) postOrDelete(u string, body any) func(bool) error {
	var made struct{ ID string }
	return func(on bool) error {
		if on {
			return w.take(&made, w.graph, u, body)
		}
		if made.ID == "" {
			return nil // it was not made yet
		}
		return w.do(w.graph, http.MethodDelete, u+"/"+made.ID, nil)
	}
}

// governed are locks, policies, management groups and subscriptions.
func (w *facts) governed() {
	sub := "/subscriptions/" + w.sub
	group := func(name string) string {
		id := sub + "/resourceGroups/" + name
		w.put(w.t, id, map[string]any{"location": w.location})
		return id
	}
	held := group("held")
	second := held + "/providers/Microsoft.MachineLearningServices/workspaces/held"
	w.put(w.t, second, map[string]any{"location": w.location, "identity": map[string]any{"type": "SystemAssigned"}, "properties": map[string]any{
		"storageAccount": w.group + "/providers/Microsoft.Storage/storageAccounts/" + w.account, "keyVault": w.group + "/providers/Microsoft.KeyVault/vaults/lab-vault"}})
	models := w.base + "/mlflow/v2.0" + second + "/api/2.0/mlflow/registered-models/"
	w.prepare(w.do(w.arm, http.MethodPost, models+"create", map[string]any{"name": "m"}))
	arms := func() string { return w.arm }
	w.fact("a lock", []string{"Microsoft.Authorization/locks/write", "Microsoft.Authorization/locks/delete"},
		not(w.putOrDelete(held+atScope+"locks/law", map[string]any{"properties": map[string]any{"level": "ReadOnly"}})),
		ask{method: http.MethodPatch, url: w.url(held), token: arms, body: map[string]any{"tags": map[string]any{"a": "b"}}},
		ask{method: http.MethodPatch, url: models + "update", token: arms, body: map[string]any{"name": "m", "description": "d"}})

	rule := func(effect string) map[string]any {
		return map[string]any{"properties": map[string]any{"displayName": "law", "mode": "All", "policyRule": map[string]any{
			"if": map[string]any{"field": "type", "equals": "Microsoft.ManagedIdentity/userAssignedIdentities"}, "then": map[string]any{"effect": effect}}}}
	}
	define := func(name, effect string) (id string) {
		id = sub + atScope + "policyDefinitions/" + name
		w.prepare(w.rm(http.MethodPut, id, rule(effect)))
		return id
	}
	assign := func(of string) map[string]any {
		return map[string]any{"properties": map[string]any{"policyDefinitionId": of, "displayName": "law"}}
	}
	write := func(group string) ask {
		return ask{method: http.MethodPut, url: w.url(group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/x"), token: arms, body: map[string]any{"location": w.location}}
	}
	denies, audits := define("denies", "deny"), define("audits", "audit")
	at := group("assigned")
	w.fact("a policy's assignment", []string{"Microsoft.Authorization/policyAssignments/write", "Microsoft.Authorization/policyAssignments/delete"},
		not(w.putOrDelete(at+atScope+"policyAssignments/law", assign(denies))), write(at))

	at = group("defined")
	changing := define("changing", "deny")
	w.prepare(w.rm(http.MethodPut, at+atScope+"policyAssignments/law", assign(changing)))
	w.fact("a policy's definition", []string{"Microsoft.Authorization/policyDefinitions/write"}, func(on bool) error {
		return w.rm(http.MethodPut, changing, rule(map[bool]string{true: "audit", false: "deny"}[on]))
	}, write(at))

	at = group("several")
	set := sub + atScope + "policySetDefinitions/law"
	choose := func(of string) error {
		return w.rm(http.MethodPut, set, map[string]any{"properties": map[string]any{"displayName": "law", "policyDefinitions": []any{map[string]any{"policyDefinitionId": of, "policyDefinitionReferenceId": "one"}}}})
	}
	w.prepare(choose(denies))
	w.prepare(w.rm(http.MethodPut, at+atScope+"policyAssignments/law", assign(set)))
	w.fact("an initiative", []string{"Microsoft.Authorization/policySetDefinitions/write"}, func(on bool) error {
		return choose(map[bool]string{true: audits, false: denies}[on])
	}, write(at))

	at = group("exempt")
	w.prepare(w.rm(http.MethodPut, at+atScope+"policyAssignments/law", assign(denies)))
	w.fact("an exemption", []string{"Microsoft.Authorization/policyExemptions/write", "Microsoft.Authorization/policyExemptions/delete"},
		w.putOrDelete(at+atScope+"policyExemptions/law", map[string]any{"properties": map[string]any{"policyAssignmentId": at + atScope + "policyAssignments/law", "exemptionCategory": "Waiver"}}), write(at))

	const tree = "/providers/Microsoft.Management/managementGroups/"
	root := tree + w.s.ready.TenantID
	w.prepare(w.do(w.arm, http.MethodPost, w.url("/providers/Microsoft.Authorization/elevateAccess"), nil))
	owner := "/providers/Microsoft.Authorization/roleDefinitions/" + ownerRole
	w.prepare(w.rm(http.MethodPut, given(root, "roleAssignments"), assignment(owner, w.owner, "ServicePrincipal")))
	w.put(w.t, tree+"law", map[string]any{})
	spare := func(alias string) string {
		w.must(w.t, nil, w.arm, http.MethodPut, w.url("/providers/Microsoft.Subscription/aliases/"+alias), map[string]any{"properties": map[string]any{"displayName": alias, "billingScope": "/", "workload": "Production"}})
		var got struct {
			Properties struct {
				ID string `json:"subscriptionId"`
			}
		}
		w.must(w.t, &got, w.arm, http.MethodGet, w.url("/providers/Microsoft.Subscription/aliases/"+alias), nil)
		return "/subscriptions/" + got.Properties.ID
	}
	above, moved := w.newCaller("above"), spare("moved")
	w.prepare(w.rm(http.MethodPut, given(tree+"law", "roleAssignments"), assignment("/providers/Microsoft.Authorization/roleDefinitions/"+roles[0], above.object, "ServicePrincipal")))
	w.fact("a subscription's management group", []string{"Microsoft.Management/managementGroups/subscriptions/write", "Microsoft.Management/managementGroups/subscriptions/delete"},
		w.putOrDelete(tree+"law"+moved, nil), ask{method: http.MethodGet, url: w.url(moved), token: above.at("arm")})

	cancelled := spare("cancelled")
	inside := cancelled + "/resourceGroups/g"
	w.put(w.t, inside, map[string]any{"location": w.location})
	w.newAccount(inside, "lawcancelled", nil)
	blob := ask{method: http.MethodPut, url: "https://lawcancelled.blob." + w.s.ready.Suffixes["storage"] + "/con/b", token: func() string { return w.blob }, body: []byte("x"), header: []string{"x-ms-version", storageVersion, "x-ms-blob-type", "BlockBlob"}}
	w.fact("a subscription that is cancelled", []string{"Microsoft.Subscription/cancel/action", "Microsoft.Subscription/enable/action"}, func(on bool) error {
		if on {
			return w.do(w.arm, http.MethodPost, w.url(cancelled+"/providers/Microsoft.Subscription/enable"), nil)
		}
		return w.do(w.arm, http.MethodPost, w.url(cancelled+"/providers/Microsoft.Subscription/cancel")+"&IgnoreResourceCheck=true", nil)
	}, ask{method: http.MethodPatch, url: w.url(inside), token: arms, body: map[string]any{"tags": map[string]any{"a": "b"}}}, blob)
}

// vaults are what vaults themselves say about who is let in.
func (w *facts) vaults() {
	vault := func(name string, roles bool) (id string, list func(*caller) ask) {
		id = w.group + "/providers/Microsoft.KeyVault/vaults/" + name
		w.put(w.t, id, map[string]any{"location": w.location, "properties": map[string]any{"tenantId": w.s.ready.TenantID, "sku": map[string]any{"family": "A", "name": "standard"}, "enableRbacAuthorization": roles, "accessPolicies": []any{}}})
		return id, func(c *caller) ask {
			return ask{method: http.MethodGet, url: "https://" + name + "." + w.s.ready.Suffixes["vault"] + "/secrets?api-version=7.4", token: c.at("vault")}
		}
	}
	policies := func(id, verb string, c *caller) error {
		return w.rm(http.MethodPut, id+"/accessPolicies/"+verb, map[string]any{"properties": map[string]any{"accessPolicies": []any{
			map[string]any{"tenantId": w.s.ready.TenantID, "objectId": c.object, "permissions": map[string]any{"secrets": []string{"list"}}}}}})
	}
	listed := w.newCaller("listed")
	byPolicy, list := vault("law-policies", false)
	w.fact("a vault's access policy", []string{"Microsoft.KeyVault/vaults/accessPolicies/write"}, func(on bool) error {
		return policies(byPolicy, map[bool]string{true: "add", false: "remove"}[on], listed)
	}, list(listed))

	both := w.newCaller("either")
	either, list := vault("law-either", false)
	w.prepare(policies(either, "add", both))
	patch := func(id, property string, value any) error {
		return w.rm(http.MethodPatch, id, map[string]any{"properties": map[string]any{property: value}})
	}
	w.fact("whether a vault goes by roles", []string{"Microsoft.KeyVault/vaults/write"}, func(on bool) error { return patch(either, "enableRbacAuthorization", !on) }, list(both))

	near := w.newCaller("near")
	walled, list := vault("law-walled", false)
	w.prepare(policies(walled, "add", near))
	w.fact("a vault's network rules", nil, func(on bool) error {
		return patch(walled, "networkAcls", map[string]any{"defaultAction": allowOrDeny(on), "bypass": "AzureServices"})
	}, list(near))
}

func allowOrDeny(allow bool) string {
	if allow {
		return "Allow"
	}
	return "Deny"
}

// accounts are what storage accounts themselves say about who is let in.
func (w *facts) accounts() {
	account := func(name string, more map[string]any) (id, key string, list func(token func() string, query string) []ask) {
		id = w.newAccount(w.group, name, more)
		return id, w.key(id), func(token func() string, query string) (out []ask) {
			for _, k := range w.storageOf(name, token) {
				if query != "" {
					k.url += "&" + query
				}
				out = append(out, k)
			}
			return out
		}
	}
	patch := func(id, property string, value any) error {
		return w.rm(http.MethodPatch, id, map[string]any{"properties": map[string]any{property: value}})
	}
	blobs := func() string { return w.blob }

	walled, _, list := account("lawwalled", nil)
	w.fact("an account's network rules", []string{"Microsoft.Storage/storageAccounts/write"}, func(on bool) error {
		return patch(walled, "networkAcls", map[string]any{"defaultAction": allowOrDeny(on), "bypass": "None"})
	}, list(blobs, "")...)

	keyed, key, list := account("lawkeyed", nil)
	w.fact("whether an account takes keys", nil, func(on bool) error { return patch(keyed, "allowSharedKeyAccess", on) }, list(nil, signature(w.t, "lawkeyed", key, ""))...)

	_, key, list = account("lawkept", nil)
	w.fact("a container's policy for signatures", []string{"Microsoft.Storage/storageAccounts/blobServices/containers/setAcl/action"}, func(on bool) error {
		name := map[bool]string{true: "law", false: "other"}[on]
		text := "<SignedIdentifiers><SignedIdentifier><Id>" + name + "</Id><AccessPolicy><Expiry>2999-01-01T00:00:00Z</Expiry><Permission>rl</Permission></AccessPolicy></SignedIdentifier></SignedIdentifiers>"
		return w.do(w.blob, http.MethodPut, "https://lawkept.blob."+w.s.ready.Suffixes["storage"]+"/con?restype=container&comp=acl", []byte(text), "x-ms-version", storageVersion)
	}, list(nil, signature(w.t, "lawkept", key, "law"))...)

	turned, key, list := account("lawturned", nil)
	var have atomic.Pointer[string] // a signature with the key that was read last
	made := signature(w.t, "lawturned", key, "")
	have.Store(&made)
	asks := list(nil, "")
	for i := range asks {
		asks[i].query = func() string { return "&" + *have.Load() }
	}
	w.fact("an account's key", []string{"Microsoft.Storage/storageAccounts/regenerateKey/action"}, func(on bool) error {
		if err := w.do(w.arm, http.MethodPost, w.url(turned+"/regenerateKey"), map[string]any{"keyName": "key1"}); err != nil || !on {
			return err
		}
		made := signature(w.t, "lawturned", w.key(turned), "")
		have.Store(&made)
		return nil
	}, asks...)

	// A person without a role, whom the list of a directory lets in or not.
	lake := "https://lawlake.dfs." + w.s.ready.Suffixes["storage"] + "/con"
	account("lawlake", map[string]any{"isHnsEnabled": true})
	passer := w.newCaller("listed2")
	w.prepare(w.do(w.blob, http.MethodPut, lake+"/f?resource=file", nil, "x-ms-version", storageVersion))
	w.prepare(w.do(w.blob, http.MethodPatch, lake+"/f?action=setAccessControl", nil, "x-ms-version", storageVersion, "x-ms-acl", "user::rwx,group::r-x,other::r--"))
	w.fact("an access list", []string{"Microsoft.Storage/storageAccounts/blobServices/containers/blobs/modifyPermissions/action"}, func(on bool) error {
		others := map[bool]string{true: "--x", false: "---"}[on]
		return w.do(w.blob, http.MethodPatch, lake+"/?action=setAccessControl", nil, "x-ms-version", storageVersion, "x-ms-acl", "user::rwx,group::r-x,other::"+others)
	}, ask{method: http.MethodGet, url: lake + "/f", token: passer.at("blob"), header: []string{"x-ms-version", storageVersion}},
		ask{method: http.MethodGet, url: strings.Replace(lake, ".dfs.", ".blob.", 1) + "/f", token: passer.at("blob"), header: []string{"x-ms-version", storageVersion}})
}

// newAccount makes a storage account with a container, whose data are the owner's.
func (w *facts) newAccount(group, name string, more map[string]any) (id string) {
	id = group + "/providers/Microsoft.Storage/storageAccounts/" + name
	w.put(w.t, id, map[string]any{"location": w.location, "kind": "StorageV2", "sku": map[string]any{"name": "Standard_LRS"}, "properties": more})
	w.prepare(w.rm(http.MethodPut, given(id, "roleAssignments"), assignment("/providers/Microsoft.Authorization/roleDefinitions/b7e6dc6d-f1e8-4753-8033-0f276bb0955b", w.owner, "ServicePrincipal")))
	w.must(w.t, nil, w.blob, http.MethodPut, "https://"+name+".blob."+w.s.ready.Suffixes["storage"]+"/con?restype=container", nil, "x-ms-version", storageVersion)
	return id
}

// key is an account's first key.
func (w *facts) key(account string) string {
	var list struct{ Keys []struct{ Value string } }
	w.must(w.t, &list, w.arm, http.MethodPost, w.url(account+"/listKeys"), nil)
	return list.Keys[0].Value
}
