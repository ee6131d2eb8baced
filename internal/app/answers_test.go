package app

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"castellan/internal/arm"
	"castellan/internal/resource"
)

// answers are the shapes of what GET answers, by the pattern of a path and a version.
type answers []struct {
	path    *regexp.Regexp
	version string
	shape   shape
}

var variable = regexp.MustCompile(`\\\{([^}]*)\\\}`)

// answers are those of all paths of the specifications.
func (s specified) answers(t *testing.T) (out answers) {
	for file, doc := range s.swaggers {
		paths, _ := doc["paths"].(map[string]any)
		more, _ := doc["x-ms-paths"].(map[string]any)
		for _, paths := range []map[string]any{paths, more} {
			for path, ops := range paths {
				get, _ := ops.(map[string]any)["get"].(map[string]any)
				responses, _ := get["responses"].(map[string]any)
				ok, _ := responses["200"].(map[string]any)
				if ok["schema"] == nil || strings.Contains(path, "{resourceId}") || strings.Contains(path, "{parentResourcePath}") || strings.HasPrefix(path, "/{") && strings.Count(path, "/") == 1 {
					continue // it is of all resources, so of none
				}
				path, _, _ = strings.Cut(path, "?")
				form := variable.ReplaceAllStringFunc(regexp.QuoteMeta(path), func(v string) string {
					if strings.Contains(strings.ToLower(v), "scope") || strings.Contains(v, "resourceUri") {
						return `.*?`
					}
					return `[^/]+`
				})
				out = append(out, struct {
					path    *regexp.Regexp
					version string
					shape   shape
				}{regexp.MustCompile(`(?i)^/?` + form + `$`), doc["info"].(map[string]any)["version"].(string), schema{t: t, in: s.swaggers, file: file}.at(ok["schema"])})
			}
		}
	}
	return out
}

// everything makes one of each thing, with all that can be said of it, and
// gives the paths of what there is to be seen.
func everything(t *testing.T, a *App) (token string, paths []string) {
	p := newPoliced(t, a)
	sub, group := p.path(p.sub), p.path(p.group)
	const policies, roles = "/providers/Microsoft.Authorization/policy", "/providers/Microsoft.Authorization/role"
	dev := a.newPerson(t, "dev")
	made := func(path string, body any) {
		t.Helper()
		v := resource.VersionFor(path)
		if strings.Contains(path, "diagnosticSettings") {
			v = "2021-05-01-preview" // the newest other is of 2016
		}
		if w := call(a, p.token, http.MethodPut, a.Site.Base()+path+"?api-version="+v, body); w.Code/100 != 2 {
			t.Fatalf("PUT %s = %d %s", path, w.Code, w.Body)
		}
		paths = append(paths, path)
	}
	account, vault := group+"/providers/Microsoft.Storage/storageAccounts/everything", group+"/providers/Microsoft.KeyVault/vaults/everything"
	user := group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/u"
	made(account, map[string]any{"location": "local", "kind": "StorageV2", "sku": map[string]any{"name": "Standard_LRS"}, "tags": map[string]any{"a": "b"}})
	made(account+"/blobServices/default/containers/con", map[string]any{})
	made(account+"/fileServices/default/shares/share", map[string]any{})
	made(account+"/managementPolicies/default", tree(t, `{"properties":{"policy":{"rules":[{"name":"r","type":"Lifecycle","definition":{"filters":{"blobTypes":["blockBlob"]},"actions":{"baseBlob":{"delete":{"daysAfterModificationGreaterThan":9}},"snapshot":{"delete":{"daysAfterCreationGreaterThan":9}}}}}]}}}`))
	made(vault, map[string]any{"location": "local", "properties": map[string]any{"tenantId": a.Site.Tenant, "sku": map[string]any{"family": "A", "name": "standard"}, "enableRbacAuthorization": true}})
	made(user, map[string]any{"location": "local"})
	made(user+"/federatedIdentityCredentials/fic", tree(t, `{"properties":{"issuer":"https://issuer.example","subject":"s","audiences":["api://AzureADTokenExchange"]}}`))
	made(group+"/providers/Microsoft.OperationalInsights/workspaces/la", map[string]any{"location": "local"})
	made(group+"/providers/Microsoft.Insights/components/ai", map[string]any{"location": "local", "kind": "web", "properties": map[string]any{"Application_Type": "web"}})
	made(group+"/providers/Microsoft.MachineLearningServices/workspaces/everything", map[string]any{"location": "local", "properties": map[string]any{"storageAccount": account, "keyVault": vault}})
	role := arm.NewUUID()
	made(sub+roles+"Definitions/"+role, map[string]any{"properties": map[string]any{"roleName": "all of it", "description": "d", "assignableScopes": []any{sub}, "permissions": []any{map[string]any{"actions": []any{"*/read"}, "dataActions": []any{}}}}})
	made(group+roles+"Assignments/"+arm.NewUUID(), map[string]any{"properties": map[string]any{"roleDefinitionId": sub + roles + "Definitions/ba92f5b4-2d11-453d-a403-e96b0029c9fe", "principalId": dev.object, "principalType": "ServicePrincipal", "description": "d",
		"condition": "@Resource[Microsoft.Storage/storageAccounts/blobServices/containers:name] StringEquals 'con'", "conditionVersion": "2.0"}})
	rule := tree(t, `{"if":{"field":"tags.nothing","equals":"x"},"then":{"effect":"[parameters('effect')]"}}`)
	def, set, assigned := sub+policies+"Definitions/def", sub+policies+"SetDefinitions/set", group+policies+"Assignments/as"
	made(def, map[string]any{"properties": map[string]any{"displayName": "d", "description": "d", "mode": "All", "metadata": map[string]any{"category": "c"}, "policyRule": rule,
		"parameters": tree(t, `{"effect":{"type":"String","allowedValues":["audit","deny"],"defaultValue":"audit","metadata":{"displayName":"d"}}}`)}})
	made(set, map[string]any{"properties": map[string]any{"displayName": "d", "policyDefinitionGroups": tree(t, `[{"name":"g","displayName":"d","category":"c"}]`),
		"policyDefinitions": []any{map[string]any{"policyDefinitionId": def, "policyDefinitionReferenceId": "r", "groupNames": []any{"g"}}}}})
	made(assigned, map[string]any{"location": "local", "identity": map[string]any{"type": "SystemAssigned"}, "properties": map[string]any{"policyDefinitionId": set, "displayName": "d", "description": "d", "notScopes": []any{account}, "metadata": map[string]any{"a": "b"},
		"nonComplianceMessages": tree(t, `[{"message":"m","policyDefinitionReferenceId":"r"}]`), "resourceSelectors": tree(t, `[{"name":"s","selectors":[{"kind":"resourceLocation","in":["local"]}]}]`),
		"overrides": tree(t, `[{"kind":"policyEffect","value":"deny","selectors":[{"kind":"policyDefinitionReferenceId","in":["r"]}]}]`)}})
	made(account+policies+"Exemptions/ex", map[string]any{"properties": map[string]any{"policyAssignmentId": assigned, "exemptionCategory": "Waiver", "displayName": "d", "policyDefinitionReferenceIds": []any{"r"}}})
	made(vault+"/providers/Microsoft.Authorization/locks/l", map[string]any{"properties": map[string]any{"level": "CanNotDelete", "notes": "n"}})
	made(group+"/providers/Microsoft.Resources/deployments/dep", deploying("Incremental"))
	must(t, a, http.StatusOK, p.token, http.MethodPost, a.Site.Base()+"/providers/Microsoft.Authorization/elevateAccess?api-version=any", nil)
	made("/providers/Microsoft.Management/managementGroups/"+a.Site.Tenant+roles+"Assignments/"+arm.NewUUID(), map[string]any{"properties": map[string]any{"roleDefinitionId": roles + "Definitions/" + ownerRole, "principalId": claimOf(p.token, "oid")}})
	made("/providers/Microsoft.Management/managementGroups/mg", map[string]any{"properties": map[string]any{"displayName": "d"}})
	made(vault+"/providers/Microsoft.Insights/diagnosticSettings/ds", map[string]any{"properties": map[string]any{"storageAccountId": account, "logs": tree(t, `[{"categoryGroup":"allLogs","enabled":true}]`)}})
	for _, path := range slices.Clone(paths) {
		for path != "" {
			path = path[:strings.LastIndexByte(path, '/')]
			paths = append(paths, path)
		}
	}
	for _, scope := range []string{"", sub, group, account} {
		for _, list := range []string{"roleAssignments", "roleDefinitions", "policyAssignments", "policyDefinitions", "policySetDefinitions", "policyExemptions", "locks", "denyAssignments", "permissions", "roleEligibilitySchedules", "roleAssignmentSchedules", "roleAssignmentScheduleInstances",
			"roleManagementPolicies", "roleManagementPolicyAssignments", "eligibleChildResources"} {
			paths = append(paths, scope+"/providers/Microsoft.Authorization/"+list)
		}
	}
	paths = append(paths, sub+"/locations", sub+"/tagNames", sub+"/resources", group+"/resources", sub+"/providers", sub+"/providers/Microsoft.Storage", "/providers", "/tenants", group+"/providers/Microsoft.Resources/tags/default", sub+"/providers/Microsoft.Resources/tags/default",
		vault+"/providers/Microsoft.Insights/diagnosticSettingsCategories", "/providers/Microsoft.Insights/eventcategories", sub+"/providers/Microsoft.Insights/eventtypes/management/values",
		group+"/providers/Microsoft.Resources/deployments/dep/operations", "/providers/Microsoft.Authorization/providerOperations", "/providers/Microsoft.Authorization/providerOperations/Microsoft.Storage", sub+roles+"Definitions/ba92f5b4-2d11-453d-a403-e96b0029c9fe", "/providers/Microsoft.Authorization/policyDefinitions/0a914e76-4921-4c19-b460-a2d36003525a",
		sub+"/providers/Microsoft.PolicyInsights/remediations", sub+"/providers/Microsoft.PolicyInsights/attestations", "/providers/Microsoft.PolicyInsights/policyMetadata")
	slices.Sort(paths)
	return p.token, slices.Compact(paths)
}

// others are names that are shown and not of the version, each with the reason.
var others = map[string]string{
	"2024-04-01 value[*].properties.enableDataIsolation": "the specification at hand is a draft; the types that were published have it",
	"2015-04-01 value[*].channels":                       "Azure shows it too",
}

// Whatever is asked with a version for which there is a specification is answered
// with what that version has, and nothing else.
func TestAnswersAreThePublished(t *testing.T) {
	spec := specification(t)
	a := newApp(t)
	token, paths := everything(t, a)
	known := spec.answers(t)
	n, seen := 0, map[string]bool{}
	used := map[string]bool{}
	for _, path := range paths {
		versions := map[string][]shape{}
		for _, x := range known {
			if x.path.MatchString(path) {
				versions[x.version] = append(versions[x.version], x.shape)
			}
		}
		if id, err := arm.ParseID(path); err == nil {
			for v, shapes := range spec.items[strings.ToLower(id.Type())] {
				versions[v] = append(versions[v], shapes...)
			}
		}
		for v, shapes := range versions {
			u := a.Site.Base() + path + "?api-version=" + v
			if strings.Contains(path, "eventtypes") {
				u += "&$filter=eventTimestamp%20ge%20%27" + "2020-01-01T00:00:00Z%27"
			}
			w := call(a, token, http.MethodGet, u, nil)
			if w.Code != http.StatusOK {
				continue // not of this type, or with none of its versions
			}
			n++
			body, err := arm.ParseJSON(w.Body.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range unknown(shapes, body, "") {
				if key := path + " " + v + " " + name; !seen[key] {
					seen[key] = true
					if why := others[v+" "+name]; why == "" {
						t.Errorf("%s with %s shows %s, which is not of that version", path, v, name)
					}
					used[v+" "+name] = true
				}
			}
		}
	}
	if n < 140 {
		t.Errorf("only %d answers were compared", n)
	}
	for what := range others {
		if !used[what] {
			t.Errorf("%s is no longer shown", what)
		}
	}
}
