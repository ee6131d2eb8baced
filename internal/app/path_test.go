package app

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"castellan/internal/arm"
)

// attacked is a home tenant with a world, and its Owner's token.
func attacked(t *testing.T, a *App) (x *realm, resources []string) {
	t.Helper()
	x = &realm{tenant: a.Site.Tenant, sub: a.Site.Subscription, domain: a.Site.Suffix, admin: person{id: a.Admin.ClientID, secret: string(a.Admin.ClientSecret.Reveal())}}
	x.settle(t, a, "home")
	group := "/subscriptions/" + x.sub + "/resourceGroups/lab"
	return x, []string{
		group, group + "/providers/Microsoft.Storage/storageAccounts/homeacct", group + "/providers/Microsoft.KeyVault/vaults/home-vault",
		group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/home", group + "/providers/Microsoft.MachineLearningServices/workspaces/lab",
		group + "/providers/Microsoft.MachineLearningServices/workspaces/lab/computes/cpu",
	}
}

// A resource is one, however its id is spelt: the answer has the spelling that was
// stored, and one etag (ARM-01).
func TestOneResourceInAnySpelling(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	x, resources := attacked(t, a)
	r := rand.New(rand.NewPCG(1, 2))
	for _, id := range resources {
		want := call(a, x.tokens["arm"], http.MethodGet, a.Site.Base()+id+"?api-version=any", nil)
		if !strings.Contains(want.Body.String(), `"id":"`+id+`"`) {
			t.Errorf("GET %s = %d %s", id, want.Code, want.Body)
		}
		for range 32 {
			odd := respell(r, id)
			got := call(a, x.tokens["arm"], http.MethodGet, a.Site.Base()+odd+"?api-version=any", nil)
			if got.Code != http.StatusOK || got.Body.String() != want.Body.String() || got.Header().Get("ETag") != want.Header().Get("ETag") {
				t.Errorf("GET %s = %d %s", odd, got.Code, got.Body)
			}
		}
	}
}

// No path that a cleaner would make another one of is cleaned: it leads nowhere,
// or to what it says, and nothing is changed by it (ARM-02, ARM-03). Nor is a
// request without exactly one api-version of the right form (ARM-04).
func TestOddPathsLeadNowhere(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	x, resources := attacked(t, a)
	group := "/subscriptions/" + x.sub + "/resourceGroups/mine"
	made(t, a, x.tokens["arm"], group, map[string]any{"location": "local"})
	mallory := a.newPerson(t, "mallory") // has all of one group, and nothing of the other
	a.giveRole(t, x.tokens["arm"], group, mallory.object, "Owner")
	theirs := tokenFor(t, a, mallory.id, mallory.secret, a.Site.Base())
	before, asked := documents(t, a, x.sub), 0
	try := func(token, method, path, query string, fine bool) {
		t.Helper()
		asked++
		w := call(a, token, method, a.Site.Base()+path+query, map[string]any{"location": "local", "tags": map[string]any{"by": "attack"}})
		if w.Code/100 != 4 && !fine || w.Code/100 == 3 || w.Code/100 == 5 {
			t.Errorf("%s %s%s = %d %v %s", method, path, query, w.Code, w.Header()["Location"], w.Body)
		}
	}
	const v = "?api-version=any"
	for _, id := range resources {
		name := id[strings.LastIndexByte(id, '/')+1:]
		up := strings.TrimSuffix(id, "/"+name)
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodPatch, http.MethodDelete} {
			for _, odd := range []string{
				up + "/./" + name, up + "/x/../" + name, up + "/%2e/" + name, up + "/x/%2e%2e/" + name, up + "/..;/" + name, up + "/x/..%5c" + name, up + "//" + name,
				up + "/" + name + "/.", up + "/" + name + "/..", up + "/" + name + "%00", up + "/" + name + "%0a", up + "/" + name + "%252f..", up + "/%c0%ae%c0%ae/" + name,
				up + "/" + name + ";x=1", up + "%2f" + name, up + "/x%2f..%2f" + name, up + "/" + name + "%20", up + "/" + name + "%2e", "/./" + id, // two slashes at the beginning are one: clients send them
				id + "%2f", up + "/%252e%252e/" + name,
			} {
				try(x.tokens["arm"], method, odd, v, false)
			}
			for _, odd := range []string{group + "/../lab", group + "/%2e%2e/lab", group + "%2f..%2flab", group + "/..;/lab", group + "/providers/../../lab", group + "//../lab", "/subscriptions/" + x.sub + "/resourceGroups/mine/../lab"} {
				try(theirs, method, odd+strings.TrimPrefix(id, resources[0]), v, false)
			}
			for _, query := range []string{"", "?api-version=", "?api-version=latest", "?api-version=2024-04-01&api-version=2024-04-01", "?api-version=2024-04-01;x=1", "?api-version=2024-04-01%00", "?api-version=2024-04-01&API-VERSION=2023-01-01", "?x=1#api-version=2024-04-01", "?api%2Dversion=2024-13-45"} {
				try(x.tokens["arm"], method, id, query, false)
			}
		}
	}
	if documents(t, a, x.sub) != before {
		t.Error("something was changed")
	}
	t.Logf("%d requests", asked)
}

// A scope that a client escapes as one segment, as the SDK for Python does, is the
// same to doors, rights, locks, policies and the log as one that is not; what two
// readers could take for two things leads nowhere.
func TestEscapedScopes(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	x, resources := attacked(t, a)
	const v = "?api-version=any"
	escaped := func(scope string) string { return "/" + strings.ReplaceAll(scope, "/", "%2F") }
	asked := 0
	for _, rt := range a.plane("arm").Routes {
		rest, ok := strings.CutPrefix(rt.Pattern, "/{scope...}")
		if !ok || rt.Method != http.MethodGet {
			continue
		}
		for _, scope := range resources[:3] {
			rest := strings.ReplaceAll(regexpOf(`\{[^}]*\}`).ReplaceAllString(rest, "00000000-0000-4000-8000-000000000001"), "...", "")
			u := versioned(a.Site.Base() + scope + rest + v)
			want := call(a, x.tokens["arm"], http.MethodGet, u, nil)
			_, query, _ := strings.Cut(u, "?")
			for _, odd := range []string{escaped(scope), strings.ReplaceAll(escaped(scope), "%2F", "%2f"), strings.Replace(escaped(scope), "%2F", "", 1)} {
				asked++
				got := call(a, x.tokens["arm"], http.MethodGet, a.Site.Base()+odd+rest+"?"+query, nil)
				if got.Code != want.Code || len(got.Body.String()) != len(want.Body.String()) {
					t.Errorf("GET %s = %d %s, want as %s: %d %s", odd+rest, got.Code, got.Body, u, want.Code, want.Body)
				}
			}
		}
	}
	if asked < 100 {
		t.Errorf("%d requests are too few to be all", asked)
	}

	group, lock := resources[0], "/providers/Microsoft.Authorization/locks/l"
	mine := "/subscriptions/" + x.sub + "/resourceGroups/mine"
	made(t, a, x.tokens["arm"], mine, map[string]any{"location": "local"})
	mallory := a.newPerson(t, "mallory")
	a.giveRole(t, x.tokens["arm"], mine, mallory.object, "Owner")
	theirs := tokenFor(t, a, mallory.id, mallory.secret, a.Site.Base())
	body := map[string]any{"properties": map[string]any{"level": "ReadOnly"}}
	before := documents(t, a, x.sub)
	w := call(a, theirs, http.MethodPut, a.Site.Base()+escaped(group)+lock+"?api-version=2016-09-01", body)
	if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "over scope '"+group+lock+"'") {
		t.Errorf("a lock in another's group = %d %s", w.Code, w.Body)
	}
	if e := tailOf(t, a, 1)[0]; e.Target != group+lock || e.Decision != "refused" {
		t.Errorf("the log has %+v", e)
	}
	for _, token := range []string{theirs, x.tokens["arm"]} {
		whole := escaped(group)
		for _, odd := range []string{
			"/%2Fsubscriptions%2F" + x.sub + "/resourceGroups/lab", "/subscriptions/" + x.sub + "/resourceGroups%2Flab", "/subscriptions/" + x.sub + "%2FresourceGroups%2Flab", // mixed
			strings.ReplaceAll(whole, "%2F", "%252F"), strings.Replace(whole, "%2F", "%252F", 1), strings.Replace(whole, "lab", "l%61b", 1), strings.Replace(whole, "lab", "lab%2500", 1), // escaped otherwise
			escaped(mine) + "%2F..%2Flab", escaped(mine) + "%2F%2E%2E%2Flab", escaped(mine) + "%2F.%2F", whole + "%2F", "/%2F" + whole[1:], "//" + whole[1:], whole + "/", strings.ReplaceAll(whole, "%2F", "%5C"), strings.ReplaceAll(whole, "%2F", "%2F%2F"), // other paths
			"/%2Fmlflow" + whole[4:], "/%2F..%2Fsubscriptions" + strings.TrimPrefix(whole, "/%2Fsubscriptions"), "/%2F", "/%2Fsubscriptions", whole + "%00", whole + ";x", // no scopes
		} {
			for _, tail := range []string{lock, "/providers%2FMicrosoft.Authorization/locks/l", "/providers/Microsoft.Authorization%2Flocks/l", "/providers/Microsoft.Authorization/locks%2Fl"} {
				if w := call(a, token, http.MethodPut, a.Site.Base()+odd+tail+"?api-version=2016-09-01", body); w.Code/100 != 4 {
					t.Errorf("PUT %s = %d %s", odd+tail, w.Code, w.Body)
				}
			}
		}
	}
	if documents(t, a, x.sub) != before {
		t.Error("something was changed")
	}

	// What holds a scope holds it however it is spelt.
	owner := func(method, path, version string, body any) *httptest.ResponseRecorder {
		return call(a, x.tokens["arm"], method, a.Site.Base()+path+"?api-version="+version, body)
	}
	const deny = "/providers/Microsoft.Authorization/policyAssignments/none"
	def := "/subscriptions/" + x.sub + "/providers/Microsoft.Authorization/policyDefinitions/none"
	if w := owner(http.MethodPut, def, "2023-04-01", map[string]any{"properties": map[string]any{"mode": "All", "displayName": "none", "policyRule": tree(t, `{"if":{"field":"type","equals":"Microsoft.ManagedIdentity/userAssignedIdentities"},"then":{"effect":"deny"}}`)}}); w.Code != http.StatusCreated {
		t.Fatal(w.Body)
	}
	if w := owner(http.MethodPut, escaped(mine)+deny, "2023-04-01", map[string]any{"properties": map[string]any{"policyDefinitionId": def, "displayName": "none"}}); w.Code != http.StatusCreated || !strings.Contains(w.Body.String(), `"id":"`+mine+deny+`"`) {
		t.Errorf("an assignment at an escaped scope = %d %s", w.Code, w.Body)
	}
	if w := owner(http.MethodPut, escaped(mine)+"/providers/Microsoft.ManagedIdentity/userAssignedIdentities/x", "2023-01-31", map[string]any{"location": "local"}); w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "RequestDisallowedByPolicy") {
		t.Errorf("what a policy denies = %d %s", w.Code, w.Body)
	}
	if w := owner(http.MethodPut, escaped(mine)+lock, "2016-09-01", body); w.Code/100 != 2 {
		t.Errorf("a lock = %d %s", w.Code, w.Body)
	}
	if w := owner(http.MethodDelete, escaped(mine)+deny, "2023-04-01", nil); !locked(w) {
		t.Errorf("what a lock holds = %d %s", w.Code, w.Body)
	}
}

// What policy judged is what is stored: a body that two readers could take for two
// things is refused, one odd spelling is read before policy sees it, and a letter
// that folds to another by Unicode alone is another letter (ARM-05, ARM-06). What
// the server says is not the client's to say (ARM-08, ARM-09).
func TestBodiesSayOneThing(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	p := newPoliced(t, a)
	def := p.define("private", "All", nil, tree(t, `{"if":{"allOf":[{"field":"type","equals":"Microsoft.Storage/storageAccounts"},{"field":"Microsoft.Storage/storageAccounts/allowSharedKeyAccess","notEquals":false}]},"then":{"effect":"deny"}}`))
	p.assign(p.group, "private", def, nil)
	const head = `{"location":"local","sku":{"name":"Standard_LRS"},"kind":"StorageV2",`
	u := p.group + "/providers/Microsoft.Storage/storageAccounts/oneacct"
	for body, want := range map[string]int{
		`"properties":{"allowSharedKeyAccess":false,"AllowSharedKeyAccess":true}}`:                400,
		`"properties":{"AllowSharedKeyAccess":true,"allowSharedKeyAccess":false}}`:                400,
		`"properties":{"allowSharedKeyAccess":false,"allowSharedKeyAccess":true}}`:                400,
		`"properties":{"allowSharedKeyAccess":false},"Properties":{"allowSharedKeyAccess":true}}`: 400,
		`"properties":{"allowSharedKeyAcceſs":true,"allowSharedKeyAccess":false}}`:                400,
		`"properties":{"allow\u0053haredKeyAccess":true,"allowSharedKeyAccess":false}}`:           400,
		`"properties":{"ALLOWSHAREDKEYACCESS":true}}`:                                             403,
		`"properties":{"\u0041llowSharedKeyAccess":true}}`:                                        403,
		`"properties":{}}`: 403,
		`"name":"another","properties":{"allowSharedKeyAccess":false}}`:                            400,
		`"id":"/subscriptions/x","properties":{"allowSharedKeyAccess":false}}`:                     400,
		`"type":"Microsoft.KeyVault/vaults","properties":{"allowSharedKeyAccess":false}}`:          400,
		`"location":"elsewhere","properties":{"allowSharedKeyAccess":false}}`:                      400,
		`"properties":{"allowSharedKeyAccess":false}}{"properties":{"allowSharedKeyAccess":true}}`: 400,
	} {
		if w := call(a, p.token, http.MethodPut, u+version, head+body); w.Code != want {
			t.Errorf("%s = %d, want %d: %s", body, w.Code, want, w.Body)
		}
	}
	must(t, a, http.StatusNotFound, p.token, http.MethodGet, u+version, nil)
	w := call(a, p.token, http.MethodPut, u+version, head+`"etag":"mine","systemData":{"createdBy":"nobody"},"properties":{"ALLOWSHAREDKEYACCESS":false,"provisioningState":"Hacked","creationTime":"1999-01-01T00:00:00Z"}}`)
	if w.Code/100 != 2 {
		t.Fatalf("PUT = %d %s", w.Code, w.Body)
	}
	got := fmt.Sprint(must(t, a, http.StatusOK, p.token, http.MethodGet, u+version, nil))
	if strings.Contains(got, "Hacked") || strings.Contains(got, "1999") || strings.Contains(got, "nobody") || strings.Contains(got, "mine") || !strings.Contains(got, "allowSharedKeyAccess:false") {
		t.Errorf("stored: %s", got)
	}
	mi := p.group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/mine"
	owner := claimOf(p.token, "oid")
	p.fine(mi, map[string]any{"location": "local", "properties": map[string]any{"principalId": owner, "clientId": owner, "tenantId": owner}})
	if got := fmt.Sprint(must(t, a, http.StatusOK, p.token, http.MethodGet, mi+version, nil)["properties"]); strings.Contains(got, owner) {
		t.Errorf("an identity took the principal that its maker named: %s", got)
	}
}

// A long operation is its beginner's: nobody else sees it, of this tenant or
// another, and its id can't be guessed (ARM-15).
func TestOperationsAreTheirBeginners(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	x, resources := attacked(t, a)
	w := call(a, x.tokens["arm"], http.MethodPatch, a.Site.Base()+resources[4]+"?api-version=any", map[string]any{"tags": map[string]any{"a": "b"}})
	op := w.Header().Get("Azure-AsyncOperation")
	if op == "" {
		w = call(a, x.tokens["arm"], http.MethodPut, a.Site.Base()+resources[5]+"2?api-version=any", map[string]any{"location": "local", "properties": map[string]any{
			"computeType": "AmlCompute", "properties": map[string]any{"vmSize": "Standard_B1s", "scaleSettings": map[string]any{"minNodeCount": 0, "maxNodeCount": 1}}}})
		op = w.Header().Get("Azure-AsyncOperation")
	}
	at, _, _ := strings.Cut(op, "?")
	if id := at[strings.LastIndexByte(at, '/')+1:]; len(strings.ReplaceAll(id, "-", "")) < 32 {
		t.Fatalf("%d %s: the operation is %q", w.Code, w.Body, op)
	}
	must(t, a, http.StatusOK, x.tokens["arm"], http.MethodGet, op, nil)
	second := a.newPerson(t, "another owner")
	a.giveRole(t, x.tokens["arm"], "/subscriptions/"+x.sub, second.object, "Owner")
	other := newTenant(t, a, "other.example")
	for who, token := range map[string]string{
		"another Owner": tokenFor(t, a, second.id, second.secret, a.Site.Base()), "a stranger": a.stranger(t)["arm"],
		"another tenant's administrator": tokenAt(t, a, other.tenant, other.admin.id, other.admin.secret, a.Site.Base()),
	} {
		unknown := strings.Replace(op, at[strings.LastIndexByte(at, '/')+1:], arm.NewUUID(), 1)
		got, none := call(a, token, http.MethodGet, op, nil), call(a, token, http.MethodGet, unknown, nil)
		if got.Code != none.Code || got.Code != http.StatusNotFound && got.Code != http.StatusUnauthorized {
			t.Errorf("%s gets %d %s, and of what is not there %d", who, got.Code, got.Body, none.Code)
		}
	}
}

// What a policy denies of a child is denied where the child is made by itself,
// within its parent, and within its parent in a template (POL-10).
func TestPolicyDeniesChildrenHoweverTheyCome(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	p := newPoliced(t, a)
	const villain = "11111111-2222-3333-4444-555555555555"
	def := p.define("no-villain", "All", nil, tree(t, `{"if":{"count":{"field":"Microsoft.KeyVault/vaults/accessPolicies[*]","where":{"field":"Microsoft.KeyVault/vaults/accessPolicies[*].objectId","equals":"`+villain+`"}},"greater":0},"then":{"effect":"deny"}}`))
	p.assign(p.group, "no-villain", def, nil)
	vault := func(policies ...any) map[string]any {
		return map[string]any{"location": "local", "properties": map[string]any{"tenantId": a.Site.Tenant, "sku": map[string]any{"family": "A", "name": "standard"}, "enableRbacAuthorization": false, "accessPolicies": append([]any{}, policies...)}}
	}
	entry := map[string]any{"tenantId": a.Site.Tenant, "objectId": villain, "permissions": map[string]any{"secrets": []string{"get"}}}
	u := p.group + "/providers/Microsoft.KeyVault/vaults/child-kv"
	p.denied(http.MethodPut, u, vault(entry), "no-villain")
	p.fine(u, vault())
	p.denied(http.MethodPut, u, vault(entry), "no-villain")
	p.denied(http.MethodPatch, u, map[string]any{"properties": map[string]any{"accessPolicies": []any{entry}}}, "no-villain")
	p.denied(http.MethodPut, u+"/accessPolicies/add", map[string]any{"properties": map[string]any{"accessPolicies": []any{entry}}}, "no-villain")

	def = p.define("no-box", "All", nil, tree(t, `{"if":{"allOf":[{"field":"type","equals":"Microsoft.Storage/storageAccounts/blobServices/containers"},{"field":"name","like":"*box"}]},"then":{"effect":"deny"}}`))
	p.assign(p.group, "no-box", def, nil)
	account, body := p.account("childacct", map[string]any{})
	p.fine(account, body)
	p.denied(http.MethodPut, account+"/blobServices/default/containers/box", map[string]any{}, "no-box")
	body["type"], body["apiVersion"], body["name"] = "Microsoft.Storage/storageAccounts", "2023-01-01", "childacct"
	body["resources"] = []any{map[string]any{"type": "blobServices/containers", "apiVersion": "2023-01-01", "name": "default/box", "properties": map[string]any{}, "dependsOn": []string{"childacct"}}}
	d := p.group + "/providers/Microsoft.Resources/deployments/nested"
	w := call(a, p.token, http.MethodPut, d+version, map[string]any{"properties": map[string]any{"mode": "Incremental", "template": map[string]any{
		"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "contentVersion": "1.0.0.0", "resources": []any{body}}}})
	if w.Code/100 == 2 {
		p.await("the deployment fails", func() bool {
			w = call(a, p.token, http.MethodGet, d+version, nil)
			return strings.Contains(w.Body.String(), `"provisioningState":"Failed"`)
		})
	}
	if !strings.Contains(w.Body.String(), "RequestDisallowedByPolicy") {
		t.Errorf("the deployment = %d %s", w.Code, w.Body)
	}
	must(t, a, http.StatusNotFound, p.token, http.MethodGet, account+"/blobServices/default/containers/box"+version, nil)
}
