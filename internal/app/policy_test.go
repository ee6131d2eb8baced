package app

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"castellan/internal/arm"
	"castellan/internal/policy"
	"castellan/internal/rbac"
)

// policed is a platform with a group, and its Owner's token.
type policed struct {
	*testing.T
	a          *App
	token      string
	sub, group string // URLs
}

const version = "?api-version=any" // call knows one of the type

func newPoliced(t *testing.T, a *App) *policed {
	t.Helper()
	p := &policed{T: t, a: a, token: a.admin(t, "arm")}
	p.sub = a.Site.Base() + "/subscriptions/" + a.Site.Subscription
	p.group = p.sub + "/resourceGroups/policed"
	must(t, a, http.StatusCreated, p.token, http.MethodPut, p.group+version, map[string]any{"location": "local", "tags": map[string]any{"team": "green"}})
	return p
}

func (p *policed) put(want int, u string, body any) map[string]any {
	p.Helper()
	return must(p.T, p.a, want, p.token, http.MethodPut, u+version, body)
}

// fine puts what nothing is to be said against.
func (p *policed) fine(u string, body any) {
	p.Helper()
	if w := call(p.a, p.token, http.MethodPut, u+version, body); w.Code/100 != 2 {
		p.Fatalf("PUT %s = %d %s", u, w.Code, w.Body)
	}
}

func (p *policed) path(u string) string { return strings.TrimPrefix(u, p.a.Site.Base()) }

// define makes a definition at the subscription and gives its id.
func (p *policed) define(name, mode string, params, rule any) string {
	p.Helper()
	u := p.sub + "/providers/Microsoft.Authorization/policyDefinitions/" + name
	props := map[string]any{"displayName": "the policy " + name, "mode": mode, "policyRule": rule}
	if params != nil {
		props["parameters"] = params
	}
	p.put(http.StatusCreated, u, map[string]any{"properties": props})
	return p.path(u)
}

// assign assigns a definition at a scope, a URL, with more properties.
func (p *policed) assign(scope, name, def string, more map[string]any) string {
	p.Helper()
	u := scope + "/providers/Microsoft.Authorization/policyAssignments/" + name
	props := map[string]any{"policyDefinitionId": def, "displayName": "the assignment " + name}
	for k, v := range more {
		props[k] = v
	}
	p.put(http.StatusCreated, u, map[string]any{"properties": props})
	return u
}

// tree is a rule, written as JSON.
func tree(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func (p *policed) account(name string, props map[string]any) (string, map[string]any) {
	return p.group + "/providers/Microsoft.Storage/storageAccounts/" + name, map[string]any{"location": "local", "sku": map[string]any{"name": "Standard_LRS"}, "kind": "StorageV2", "properties": props}
}

// denied asserts that a request is refused by the assignment, as Azure says it.
func (p *policed) denied(method, u string, body any, assignment string) {
	p.Helper()
	w := call(p.a, p.token, method, u+version, body)
	var e struct {
		Error struct {
			Code    string
			Message string
			Info    []struct {
				Type string
				Info struct {
					Assignment string `json:"policyAssignmentId"`
				}
			} `json:"additionalInfo"`
		}
	}
	_ = json.Unmarshal(w.Body.Bytes(), &e)
	if w.Code != http.StatusForbidden || e.Error.Code != "RequestDisallowedByPolicy" || len(e.Error.Info) == 0 || e.Error.Info[0].Type != "PolicyViolation" || !strings.HasSuffix(e.Error.Info[0].Info.Assignment, "/"+assignment) {
		p.Fatalf("%s %s = %d %s, want it denied by %s", method, u, w.Code, w.Body, assignment)
	}
}

// A deny policy binds the Owner, whatever way the change comes, and leaves
// nothing behind.
func TestPolicyDenies(t *testing.T) {
	t.Parallel()
	a, err := New(t.Context(), Config{Data: t.TempDir() + "/data"})
	if err != nil {
		t.Fatal(err)
	}
	a.Run(t.Context())
	p := newPoliced(t, a)
	tls := p.define("tls", "Indexed", tree(t, `{"least":{"type":"String","defaultValue":"TLS1_2","allowedValues":["TLS1_2","TLS1_3"]}}`), tree(t, `{"if":{"allOf":[
		{"field":"type","equals":"Microsoft.Storage/storageAccounts"},{"field":"Microsoft.Storage/storageAccounts/allowSharedKeyAccess","notEquals":"false"}]},"then":{"effect":"deny"}}`))
	u, open := p.account("openaccount", nil)
	_, shut := p.account("openaccount", map[string]any{"allowSharedKeyAccess": false})
	p.fine(u, open)
	p.assign(p.sub, "no-keys", tls, map[string]any{"nonComplianceMessages": []any{map[string]any{"message": "Keys are for doors."}}})

	// The default of what is not sent is judged, too.
	other, body := p.account("otheraccount", nil)
	p.denied(http.MethodPut, other, body, "no-keys")
	p.denied(http.MethodPut, u, open, "no-keys")
	p.denied(http.MethodPatch, u, map[string]any{"tags": map[string]any{"x": "y"}}, "no-keys")
	if w := call(a, p.token, http.MethodPut, other+version, body); !strings.Contains(w.Body.String(), "Keys are for doors.") {
		t.Errorf("the assignment's message is not in %s", w.Body)
	}
	must(t, a, http.StatusNotFound, p.token, http.MethodGet, other+version, nil)
	// As part of a deployment, and of what-if.
	deployment := deploying("Incremental", accountInTemplate("otheraccount"))
	p.denied(http.MethodPost, p.group+"/providers/Microsoft.Resources/deployments/d/whatIf", deployment, "no-keys")
	w := call(a, p.token, http.MethodPut, p.group+"/providers/Microsoft.Resources/deployments/d?api-version=2021-04-01", deployment)
	if w.Code/100 == 2 {
		state := ""
		for start := time.Now(); state != "Failed" && state != "Succeeded" && time.Since(start) < 30*time.Second; {
			d := must(t, a, http.StatusOK, p.token, http.MethodGet, p.group+"/providers/Microsoft.Resources/deployments/d?api-version=2021-04-01", nil)
			state = fmt.Sprint(d["properties"].(map[string]any)["provisioningState"])
		}
		if state != "Failed" {
			t.Errorf("the deployment is %s", state)
		}
	}
	must(t, a, http.StatusNotFound, p.token, http.MethodGet, other+version, nil)
	// What complies passes, and so does what the policy does not speak of.
	p.fine(u, shut)
	p.fine(p.group+"/providers/Microsoft.ManagedIdentity/userAssignedIdentities/someone", map[string]any{"location": "local"})

	// A definition in use can't go, nor become what the assignment does not fit.
	must(t, a, http.StatusConflict, p.token, http.MethodDelete, a.Site.Base()+tls+version, nil)
	must(t, a, http.StatusConflict, p.token, http.MethodPut, a.Site.Base()+tls+version, map[string]any{"properties": map[string]any{"parameters": tree(t, `{"new":{"type":"String"}}`),
		"policyRule": tree(t, `{"if":{"field":"name","equals":"[parameters('new')]"},"then":{"effect":"deny"}}`)}})
	p.denied(http.MethodPut, other, body, "no-keys")

	// It holds after a restart, and ends with its assignment.
	b := again(t, a)
	p.a = b
	p.denied(http.MethodPut, other, body, "no-keys")
	must(t, b, http.StatusOK, p.token, http.MethodDelete, p.sub+"/providers/Microsoft.Authorization/policyAssignments/no-keys"+version, nil)
	p.fine(other, body)
	must(t, b, http.StatusOK, p.token, http.MethodDelete, b.Site.Base()+tls+version, nil)
}

// again closes a platform and opens its data folder anew.
func again(t *testing.T, a *App) *App {
	t.Helper()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := New(t.Context(), a.Config)
	if err != nil {
		t.Fatal(err)
	}
	b.Run(t.Context())
	t.Cleanup(func() { _ = b.Close() })
	return b
}

const contributor = "/providers/Microsoft.Authorization/roleDefinitions/b24988ac-6180-42a0-ab88-20f7382dd24c"

// Policies that change a resource come before those that deny it, in whatever
// order they are assigned; what two want otherwise is refused.
func TestPolicyChangesBeforeItDenies(t *testing.T) {
	t.Parallel()
	p := newPoliced(t, newApp(t))
	modify := p.define("no-keys", "Indexed", nil, tree(t, `{"if":{"field":"type","equals":"Microsoft.Storage/storageAccounts"},"then":{"effect":"modify","details":{"roleDefinitionIds":["`+contributor+`"],
		"operations":[{"operation":"addOrReplace","field":"Microsoft.Storage/storageAccounts/allowSharedKeyAccess","value":false}]}}}`))
	tag := p.define("tag", "Indexed", tree(t, `{"value":{"type":"String"}}`), tree(t, `{"if":{"field":"tags['owner']","exists":"false"},"then":{"effect":"append","details":[{"field":"tags['owner']","value":"[parameters('value')]"}]}}`))
	inherit := p.define("inherit", "Indexed", nil, tree(t, `{"if":{"field":"tags['team']","notEquals":"[resourceGroup().tags['team']]"},"then":{"effect":"modify","details":{"roleDefinitionIds":["`+contributor+`"],
		"operations":[{"operation":"addOrReplace","field":"tags['team']","value":"[resourceGroup().tags['team']]"}]}}}`))
	deny := p.define("deny-keys", "Indexed", nil, tree(t, `{"if":{"anyOf":[{"allOf":[{"field":"type","equals":"Microsoft.Storage/storageAccounts"},{"field":"Microsoft.Storage/storageAccounts/allowSharedKeyAccess","notEquals":false}]},{"field":"tags.owner","exists":false}]},"then":{"effect":"deny"}}`))
	change := func(names [4]string) func(name string, def string, more map[string]any) {
		i := 0
		return func(_, def string, more map[string]any) {
			u := p.group + "/providers/Microsoft.Authorization/policyAssignments/" + names[i]
			i++
			props := map[string]any{"policyDefinitionId": def}
			for k, v := range more {
				props[k] = v
			}
			p.put(http.StatusCreated, u, map[string]any{"location": "local", "identity": map[string]any{"type": "SystemAssigned"}, "properties": props})
		}
	}
	n := 0
	for _, order := range orders(4) {
		var names [4]string
		for i, at := range order {
			names[i] = fmt.Sprintf("a%d", at)
		}
		put := change(names)
		put("", modify, nil)
		put("", tag, map[string]any{"parameters": map[string]any{"value": map[string]any{"value": "olga"}}})
		put("", inherit, nil)
		put("", deny, nil)
		n++
		if _, text := whatIf(t, p.a, p.token, p.group, deploying("Incremental", accountInTemplate(fmt.Sprintf("account%d", n)))); !strings.Contains(text, "allowSharedKeyAccess:false") || !strings.Contains(text, "owner:olga team:green") {
			t.Fatalf("in the order %v what-if tells %s", order, text)
		}
		u, body := p.account(fmt.Sprintf("account%d", n), nil)
		made := p.put(http.StatusOK, u, body)
		tags, _ := made["tags"].(map[string]any)
		if made["properties"].(map[string]any)["allowSharedKeyAccess"] != false || tags["owner"] != "olga" || tags["team"] != "green" {
			t.Fatalf("in the order %v the account became %v", order, made)
		}
		for _, name := range names {
			must(t, p.a, http.StatusOK, p.token, http.MethodDelete, p.group+"/providers/Microsoft.Authorization/policyAssignments/"+name+version, nil)
		}
	}
	if n != 24 {
		t.Errorf("%d orders were tried", n)
	}
	// Without the policy that changes, the one that denies does.
	p.assign(p.group, "deny", deny, nil)
	u, body := p.account("strict", nil)
	p.denied(http.MethodPut, u, body, "deny")

	// Two that want different values.
	p.assign(p.group, "one", tag, map[string]any{"parameters": map[string]any{"value": map[string]any{"value": "olga"}}})
	p.assign(p.group, "two", tag, map[string]any{"parameters": map[string]any{"value": map[string]any{"value": "otto"}}})
	p.denied(http.MethodPut, u, body, "one")
}

// orders are all orders of n things.
func orders(n int) [][]int {
	if n == 0 {
		return [][]int{{}}
	}
	var out [][]int
	for _, o := range orders(n - 1) {
		for at := range n {
			next := append(append(append([]int{}, o[:at]...), n-1), o[at:]...)
			out = append(out, next)
		}
	}
	return out
}

// Who may not exempt from an assignment can't, though they may write exemptions;
// an exemption ends when it says.
func TestPolicyExemptions(t *testing.T) {
	t.Parallel()
	now := &movable{at: time.Now()}
	a, err := New(t.Context(), Config{Data: t.TempDir() + "/data", Now: now.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	p := newPoliced(t, a)
	def := p.define("named", "All", nil, tree(t, `{"if":{"allOf":[{"field":"type","equals":"Microsoft.ManagedIdentity/userAssignedIdentities"},{"field":"name","notLike":"good*"}]},"then":{"effect":"deny"}}`))
	at := p.assign(p.sub, "named", def, map[string]any{"notScopes": []string{p.path(p.sub) + "/resourceGroups/elsewhere"}})
	u := p.group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/bad"
	body := map[string]any{"location": "local"}
	p.denied(http.MethodPut, u, body, "named")
	exempt := p.group + "/providers/Microsoft.Authorization/policyExemptions/ex"
	ends := now.now().Add(time.Hour).UTC()
	ex := map[string]any{"properties": map[string]any{"policyAssignmentId": p.path(at), "exemptionCategory": "Waiver", "expiresOn": ends.Format(time.RFC3339)}}

	// A Contributor with the right to write exemptions at the group, and none on the assignment.
	who := a.newPerson(t, "exempter")
	a.giveRole(t, p.token, p.path(p.group), who.object, "Resource Policy Contributor")
	theirs := tokenFor(t, a, who.id, who.secret, a.audiences()["arm"])
	if w := call(a, theirs, http.MethodPut, exempt+version, ex); w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "LinkedAuthorizationFailed") {
		t.Fatalf("the exemption by somebody without the right on the assignment = %d %s", w.Code, w.Body)
	}
	p.put(http.StatusCreated, exempt, ex)
	p.fine(u, body)
	now.to(ends.Add(-time.Second))
	p.token = p.a.admin(t, "arm")
	p.fine(u, body)
	now.to(ends)
	p.denied(http.MethodPut, u, body, "named")

	// Outside of its scope the assignment says nothing.
	elsewhere := p.sub + "/resourceGroups/elsewhere"
	must(t, a, http.StatusCreated, p.token, http.MethodPut, elsewhere+version, map[string]any{"location": "local"})
	p.fine(elsewhere+"/providers/Microsoft.ManagedIdentity/userAssignedIdentities/bad", body)
}

// What is not enforced lets pass and is told; an effect that guards against
// deletion guards; a disabled one leaves no trace.
func TestPolicyStates(t *testing.T) {
	t.Parallel()
	p := newPoliced(t, newApp(t))
	rule := `{"if":{"allOf":[{"field":"type","equals":"Microsoft.Storage/storageAccounts"},{"field":"Microsoft.Storage/storageAccounts/allowSharedKeyAccess","notEquals":false}]},"then":{"effect":"[parameters('effect')]"}}`
	def := p.define("keys", "All", tree(t, `{"effect":{"type":"String","defaultValue":"Deny","allowedValues":["Deny","Audit","Disabled"]}}`), tree(t, rule))
	guard := p.define("guard", "All", nil, tree(t, `{"if":{"allOf":[{"field":"type","equals":"Microsoft.Storage/storageAccounts"},{"field":"tags.keep","equals":"true"}]},"then":{"effect":"denyAction","details":{"actionNames":["delete"]}}}`))
	with := func(e string) map[string]any {
		return map[string]any{"parameters": map[string]any{"effect": map[string]any{"value": e}}}
	}
	soft := with("Deny")
	soft["enforcementMode"] = "DoNotEnforce"
	p.assign(p.group, "soft", def, soft)
	p.assign(p.group, "audits", def, with("Audit"))
	p.assign(p.group, "off", def, with("Disabled"))
	p.assign(p.group, "guards", guard, nil)
	bad, body := p.account("badaccount", nil)
	body["tags"] = map[string]any{"keep": "true"}
	p.fine(bad, body)
	good, body2 := p.account("goodaccount", map[string]any{"allowSharedKeyAccess": false})
	p.fine(good, body2)

	states := func(filter string) map[string]string {
		t.Helper()
		out := map[string]string{}
		u := p.group + "/providers/Microsoft.PolicyInsights/policyStates/latest/queryResults" + version + "&$filter=" + strings.ReplaceAll(filter, " ", "%20")
		for _, x := range must(t, p.a, http.StatusOK, p.token, http.MethodPost, u, nil)["value"].([]any) {
			row := x.(map[string]any)
			id := fmt.Sprint(row["resourceId"])
			out[fmt.Sprint(row["policyAssignmentName"])+" "+id[strings.LastIndexByte(id, '/')+1:]] = fmt.Sprint(row["complianceState"])
		}
		return out
	}
	want := map[string]string{"soft badaccount": "NonCompliant", "soft goodaccount": "Compliant", "audits badaccount": "NonCompliant", "audits goodaccount": "Compliant"}
	if got := states(""); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the states are %v, want %v", got, want)
	}
	if got := states("complianceState eq 'NonCompliant' and policyAssignmentName eq 'soft'"); fmt.Sprint(got) != "map[soft badaccount:NonCompliant]" {
		t.Errorf("filtered, the states are %v", got)
	}
	sum := must(t, p.a, http.StatusOK, p.token, http.MethodPost, p.sub+"/providers/Microsoft.PolicyInsights/policyStates/latest/summarize"+version, nil)
	results := sum["value"].([]any)[0].(map[string]any)["results"].(map[string]any)
	if results["nonCompliantResources"] != 1.0 || results["nonCompliantPolicies"] != 2.0 {
		t.Errorf("the summary is %v", results)
	}
	events := must(t, p.a, http.StatusOK, p.token, http.MethodPost, p.group+"/providers/Microsoft.PolicyInsights/policyEvents/default/queryResults"+version, nil)["value"].([]any)
	if len(events) != 2 {
		t.Errorf("there are %d events, want one of each assignment that reports: %v", len(events), events)
	}
	must(t, p.a, http.StatusBadRequest, p.token, http.MethodPost, p.group+"/providers/Microsoft.PolicyInsights/policyStates/latest/queryResults"+version+"&$apply=groupby((x))", nil)

	p.denied(http.MethodDelete, bad, nil, "guards")
	p.denied(http.MethodDelete, p.group, nil, "guards")
	must(t, p.a, http.StatusOK, p.token, http.MethodGet, bad+version, nil)
	must(t, p.a, http.StatusOK, p.token, http.MethodDelete, good+version, nil)

	would := must(t, p.a, http.StatusOK, p.token, http.MethodPost, p.group+"/providers/Microsoft.PolicyInsights/checkPolicyRestrictions"+version, map[string]any{"includeAuditEffect": true,
		"resourceDetails": map[string]any{"resourceContent": map[string]any{"type": "Microsoft.Storage/storageAccounts", "name": "x"}}})
	if n := len(would["contentEvaluationResult"].(map[string]any)["policyEvaluations"].([]any)); n != 2 {
		t.Errorf("the rehearsal finds %d policies: %v", n, would)
	}
}

// An initiative binds by each of its members; a message, an override and an
// exemption reach one of them.
func TestPolicyInitiative(t *testing.T) {
	t.Parallel()
	p := newPoliced(t, newApp(t))
	tag := p.define("need-tag", "Indexed", tree(t, `{"tag":{"type":"String"},"effect":{"type":"String","defaultValue":"Deny"}}`), tree(t, `{"if":{"field":"[concat('tags[', parameters('tag'), ']')]","exists":"false"},"then":{"effect":"[parameters('effect')]"}}`))
	set := p.sub + "/providers/Microsoft.Authorization/policySetDefinitions/tags"
	members := []any{
		map[string]any{"policyDefinitionId": tag, "policyDefinitionReferenceId": "cost", "parameters": map[string]any{"tag": map[string]any{"value": "cost"}}},
		map[string]any{"policyDefinitionId": tag, "policyDefinitionReferenceId": "env", "parameters": map[string]any{"tag": map[string]any{"value": "[parameters('second')]"}}},
	}
	p.put(http.StatusCreated, set, map[string]any{"properties": map[string]any{"parameters": tree(t, `{"second":{"type":"String","defaultValue":"env"}}`), "policyDefinitions": members}})
	at := p.assign(p.group, "tags", p.path(set), map[string]any{"nonComplianceMessages": []any{map[string]any{"message": "Say what it costs.", "policyDefinitionReferenceId": "cost"}}})
	u := p.group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/x"
	body := func(tags ...string) map[string]any {
		m := map[string]any{}
		for _, x := range tags {
			m[x] = "1"
		}
		return map[string]any{"location": "local", "tags": m}
	}
	p.denied(http.MethodPut, u, body("env"), "tags")
	p.denied(http.MethodPut, u, body("cost"), "tags")
	p.fine(u, body("cost", "env"))
	must(t, p.a, http.StatusOK, p.token, http.MethodPatch, at+version, map[string]any{"properties": map[string]any{"overrides": []any{map[string]any{"kind": "policyEffect", "value": "audit", "selectors": []any{map[string]any{"kind": "policyDefinitionReferenceId", "in": []string{"env"}}}}}}})
	p.fine(u, body("cost"))
	p.denied(http.MethodPut, u, body("env"), "tags")
	p.put(http.StatusCreated, p.group+"/providers/Microsoft.Authorization/policyExemptions/e", map[string]any{"properties": map[string]any{"policyAssignmentId": p.path(at), "exemptionCategory": "Mitigated", "policyDefinitionReferenceIds": []string{"cost"}}})
	p.fine(u, body())
	// Wrong initiatives are refused.
	for name, props := range map[string]map[string]any{
		"none":      {"policyDefinitions": []any{}},
		"twice":     {"policyDefinitions": []any{members[0], members[0]}},
		"no group":  {"policyDefinitions": []any{map[string]any{"policyDefinitionId": tag, "groupNames": []string{"g"}}}},
		"not there": {"policyDefinitions": []any{map[string]any{"policyDefinitionId": tag + "x"}}},
		"of itself": {"policyDefinitions": []any{map[string]any{"policyDefinitionId": p.path(set)}}},
		"no id":     {"policyDefinitions": []any{map[string]any{"policyDefinitionId": "x"}}},
		"unknown":   {"policyDefinitions": members, "colour": "red"},
	} {
		if w := call(p.a, p.token, http.MethodPut, set+"2"+version, map[string]any{"properties": props}); w.Code < 400 || w.Code >= 500 {
			t.Errorf("the initiative %q = %d %s", name, w.Code, w.Body)
		}
	}
}

// movable is a clock that a test sets.
type movable struct {
	mu sync.Mutex // guards at
	at time.Time
}

func (m *movable) now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.at
}

func (m *movable) to(t time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at = t
}

// giveRole gives an object a built-in role at a scope, as the bearer of token.
func (a *App) giveRole(t *testing.T, token, scope, object, role string) {
	t.Helper()
	guid := ""
	for _, r := range rbac.BuiltIn() {
		if r.Name == role {
			guid = r.ID
		}
	}
	if guid == "" {
		t.Fatalf("there is no role %q", role)
	}
	must(t, a, http.StatusCreated, token, http.MethodPut, a.Site.Base()+scope+"/providers/Microsoft.Authorization/roleAssignments/"+arm.NewUUID()+"?api-version=2022-04-01",
		map[string]any{"properties": map[string]any{"roleDefinitionId": "/providers/Microsoft.Authorization/roleDefinitions/" + guid, "principalId": object}})
}

// await asks until what is asked for holds, for half a minute.
func (p *policed) await(what string, holds func() bool) {
	p.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); !holds(); <-tick.C {
		if time.Now().After(end) {
			p.Fatalf("it did not come about that %s", what)
		}
	}
}

func (p *policed) there(u string) bool {
	return call(p.a, p.token, http.MethodGet, u+version, nil).Code == http.StatusOK
}

// A policy deploys what a resource lacks, and a task repairs what is there
// already: both as the assignment's own identity, and as far as its roles go.
func TestPolicyRepairs(t *testing.T) {
	t.Parallel()
	p := newPoliced(t, newApp(t))
	template := `{"$schema":"https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#","contentVersion":"1.0.0.0","parameters":{"of":{"type":"string"}},
		"resources":[{"type":"Microsoft.ManagedIdentity/userAssignedIdentities","apiVersion":"2023-01-31","name":"[concat('of-', parameters('of'))]","location":"local"}]}`
	dine := p.define("identity-of-account", "Indexed", nil, tree(t, `{"if":{"field":"type","equals":"Microsoft.Storage/storageAccounts"},"then":{"effect":"deployIfNotExists","details":{
		"type":"Microsoft.ManagedIdentity/userAssignedIdentities","name":"[concat('of-', field('name'))]","roleDefinitionIds":["`+contributor+`"],
		"deployment":{"properties":{"mode":"incremental","template":`+template+`,"parameters":{"of":{"value":"[field('name')]"}}}}}}}`))
	tag := p.define("owner-tag", "Indexed", nil, tree(t, `{"if":{"allOf":[{"field":"type","equals":"Microsoft.Storage/storageAccounts"},{"field":"tags.owner","exists":false}]},"then":{"effect":"modify","details":{"roleDefinitionIds":["`+contributor+`"],
		"operations":[{"operation":"add","field":"tags.owner","value":"policy"}]}}}`))
	before, body := p.account("beforehand", nil)
	p.fine(before, body)
	assign := func(name, def string) (principal string) {
		made := p.put(http.StatusCreated, p.group+"/providers/Microsoft.Authorization/policyAssignments/"+name, map[string]any{"location": "local", "identity": map[string]any{"type": "SystemAssigned"}, "properties": map[string]any{"policyDefinitionId": def}})
		return fmt.Sprint(made["identity"].(map[string]any)["principalId"])
	}
	deployer, tagger := assign("deploys", dine), assign("tags", tag)
	remedy := func(name, assignment string) (state string, repairs []any) {
		t.Helper()
		u := p.group + "/providers/Microsoft.PolicyInsights/remediations/" + name
		p.put(http.StatusCreated, u, map[string]any{"properties": map[string]any{"policyAssignmentId": p.path(p.group) + "/providers/Microsoft.Authorization/policyAssignments/" + assignment}})
		p.await("the remediation "+name+" ends", func() bool {
			props := must(t, p.a, http.StatusOK, p.token, http.MethodGet, u+version, nil)["properties"].(map[string]any)
			state = fmt.Sprint(props["provisioningState"])
			return state != "Accepted" && state != "InProgress"
		})
		return state, must(t, p.a, http.StatusOK, p.token, http.MethodPost, u+"/listDeployments"+version, nil)["value"].([]any)
	}

	// An identity without a role repairs nothing.
	if state, repairs := remedy("powerless", "deploys"); state != "Failed" || len(repairs) != 1 || !strings.Contains(fmt.Sprint(repairs[0]), "AuthorizationFailed") {
		t.Errorf("without a role the remediation is %s: %v", state, repairs)
	}
	if state, repairs := remedy("powerless-tags", "tags"); state != "Failed" || len(repairs) != 1 {
		t.Errorf("without a role the remediation of tags is %s: %v", state, repairs)
	}
	of := p.group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/of-"
	if p.there(of + "beforehand") {
		t.Error("an identity without a role made a resource")
	}
	for _, who := range []string{deployer, tagger} {
		p.a.giveRole(t, p.token, p.path(p.group), who, "Contributor")
	}
	if state, repairs := remedy("deploys", "deploys"); state != "Succeeded" || len(repairs) != 1 || !p.there(of+"beforehand") {
		t.Errorf("the remediation is %s: %v", state, repairs)
	}
	if state, _ := remedy("tags", "tags"); state != "Succeeded" {
		t.Errorf("the remediation of tags is %s", state)
	}
	if got := must(t, p.a, http.StatusOK, p.token, http.MethodGet, before+version, nil)["tags"]; fmt.Sprint(got) != "map[owner:policy]" {
		t.Errorf("the tags are %v", got)
	}
	for name, want := range map[string]string{"powerless": "Failed", "deploys": "Succeeded"} {
		props := must(t, p.a, http.StatusOK, p.token, http.MethodGet, p.group+"/providers/Microsoft.PolicyInsights/remediations/"+name+version, nil)["properties"].(map[string]any)
		p.begunAndEnded(fmt.Sprint(props["correlationId"]), "Microsoft.PolicyInsights/remediations/write", want)
	}
	// After that there is nothing to do, and a change brings what it lacks by itself.
	if state, repairs := remedy("again", "deploys"); state != "Succeeded" || len(repairs) != 0 {
		t.Errorf("the remediation once more is %s: %v", state, repairs)
	}
	after, body := p.account("afterwards", nil)
	p.fine(after, body)
	p.await("the new account has its identity", func() bool { return p.there(of + "afterwards") })

	// The identity goes with its assignment.
	must(t, p.a, http.StatusOK, p.token, http.MethodDelete, p.group+"/providers/Microsoft.Authorization/policyAssignments/deploys"+version, nil)
	if _, err := p.a.identity.Known(p.a.Site.Tenant, deployer); err == nil {
		t.Error("the identity outlives its assignment")
	}
	// What no policy repairs, or nobody assigned, is refused.
	for name, props := range map[string]map[string]any{
		"no assignment": {}, "another's": {"policyAssignmentId": p.path(p.sub) + "/providers/Microsoft.Authorization/policyAssignments/none"}, "too many": {"policyAssignmentId": p.path(p.group) + "/providers/Microsoft.Authorization/policyAssignments/tags", "resourceCount": 99999},
	} {
		if w := call(p.a, p.token, http.MethodPut, p.group+"/providers/Microsoft.PolicyInsights/remediations/bad"+version, map[string]any{"properties": props}); w.Code/100 != 4 {
			t.Errorf("a remediation of %s = %d %s", name, w.Code, w.Body)
		}
	}
}

// What a policy deploys to the subscription needs the assignment's identity to
// hold a role there: one at the resource's group is not enough.
func TestPolicyRepairsTheSubscription(t *testing.T) {
	t.Parallel()
	p := newPoliced(t, newApp(t))
	rule := func(deployment string) any {
		return tree(t, `{"if":{"field":"type","equals":"Microsoft.Storage/storageAccounts"},"then":{"effect":"deployIfNotExists","details":{
			"type":"Microsoft.Resources/subscriptions/resourceGroups","name":"[concat('of-', field('name'))]","existenceScope":"subscription","roleDefinitionIds":["`+contributor+`"],
			"deployment":{`+deployment+`"properties":{"mode":"incremental","parameters":{"of":{"value":"[field('name')]"}},"template":{"$schema":"https://schema.management.azure.com/schemas/2018-05-01/subscriptionDeploymentTemplate.json#","contentVersion":"1.0.0.0","parameters":{"of":{"type":"string"}},
			"resources":[{"type":"Microsoft.Resources/resourceGroups","apiVersion":"2021-04-01","name":"[concat('of-', parameters('of'))]","location":"[deployment().location]"}]}}}}}}`)
	}
	bad := p.sub + "/providers/Microsoft.Authorization/policyDefinitions/bad" + version
	for name, x := range map[string]struct{ scope, deployment string }{"no location": {"subscription", ""}, "no such scope": {"managementGroup", `"location":"local",`}} {
		r := rule(x.deployment).(map[string]any)
		r["then"].(map[string]any)["details"].(map[string]any)["deploymentScope"] = x.scope
		if w := call(p.a, p.token, http.MethodPut, bad, map[string]any{"properties": map[string]any{"mode": "Indexed", "policyRule": r}}); w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	r := rule(`"location":"local",`).(map[string]any)
	r["then"].(map[string]any)["details"].(map[string]any)["deploymentScope"] = "subscription"
	dine := p.define("group-of-account", "Indexed", nil, r)
	before, body := p.account("beforehand", nil)
	p.fine(before, body)
	made := p.put(http.StatusCreated, p.sub+"/providers/Microsoft.Authorization/policyAssignments/groups", map[string]any{"location": "local", "identity": map[string]any{"type": "SystemAssigned"}, "properties": map[string]any{"policyDefinitionId": dine}})
	who := fmt.Sprint(made["identity"].(map[string]any)["principalId"])
	remedy := func(name string) (state, repairs string) {
		t.Helper()
		u := p.sub + "/providers/Microsoft.PolicyInsights/remediations/" + name
		p.put(http.StatusCreated, u, map[string]any{"properties": map[string]any{"policyAssignmentId": p.path(p.sub) + "/providers/Microsoft.Authorization/policyAssignments/groups"}})
		p.await("the remediation "+name+" ends", func() bool {
			state = fmt.Sprint(must(t, p.a, http.StatusOK, p.token, http.MethodGet, u+version, nil)["properties"].(map[string]any)["provisioningState"])
			return state != "Accepted" && state != "InProgress"
		})
		return state, fmt.Sprint(must(t, p.a, http.StatusOK, p.token, http.MethodPost, u+"/listDeployments"+version, nil)["value"])
	}
	p.a.giveRole(t, p.token, p.path(p.group), who, "Contributor")
	if state, repairs := remedy("low"); state != "Failed" || !strings.Contains(repairs, "AuthorizationFailed") || p.there(p.sub+"/resourceGroups/of-beforehand") {
		t.Errorf("with a role at the group alone the remediation is %s: %s", state, repairs)
	}
	p.a.giveRole(t, p.token, p.path(p.sub), who, "Contributor")
	if state, repairs := remedy("high"); state != "Succeeded" || !strings.Contains(repairs, p.path(p.sub)+"/providers/Microsoft.Resources/deployments/PolicyDeployment_") || !p.there(p.sub+"/resourceGroups/of-beforehand") {
		t.Errorf("the remediation is %s: %s", state, repairs)
	}
	after, body := p.account("afterwards", nil)
	p.fine(after, body)
	p.await("the new account has its group", func() bool { return p.there(p.sub + "/resourceGroups/of-afterwards") })
}

// The aliases that a provider lists are those by which policies find properties.
func TestPolicyAliases(t *testing.T) {
	t.Parallel()
	p := newPoliced(t, newApp(t))
	seen := 0
	for _, x := range must(t, p.a, http.StatusOK, p.token, http.MethodGet, p.sub+"/providers/Microsoft.Storage"+version+"&$expand=resourceTypes/aliases", nil)["resourceTypes"].([]any) {
		m := x.(map[string]any)
		if m["resourceType"] != "storageAccounts" {
			continue
		}
		for _, a := range m["aliases"].([]any) {
			name := fmt.Sprint(a.(map[string]any)["name"])
			if name == "Microsoft.Storage/storageAccounts/allowSharedKeyAccess" {
				seen++
			}
			if _, err := policy.ParseRule([]byte(`{"policyRule":{"if":{"field":"` + name + `","exists":true},"then":{"effect":"audit"}}}`)); err != nil {
				t.Errorf("the alias %s: %v", name, err)
			}
		}
	}
	if seen != 1 {
		t.Errorf("allowSharedKeyAccess is listed %d times", seen)
	}
}

// What is written by other ways than a resource's own doors is judged too:
// models by MLflow's registry, role assignments, a vault's access policies.
func TestPolicyHoldsEverywhere(t *testing.T) {
	t.Parallel()
	l := newLab(t, spawn(t, t.TempDir()+"/data"))
	vault := l.group + "/providers/Microsoft.KeyVault/vaults/open-vault"
	l.put(t, vault, map[string]any{"location": l.location, "properties": map[string]any{"tenantId": claimOf(l.arm, "tid"), "sku": map[string]any{"family": "A", "name": "standard"}, "accessPolicies": []any{}}})
	for name, cond := range map[string]string{
		"models":  `{"allOf":[{"field":"type","equals":"Microsoft.MachineLearningServices/workspaces/models"},{"field":"name","notLike":"approved-*"}]}`,
		"owners":  `{"allOf":[{"field":"type","equals":"Microsoft.Authorization/roleAssignments"},{"field":"Microsoft.Authorization/roleAssignments/roleDefinitionId","like":"*8e3af657-a8ff-443c-a75c-2fe8c4bcb635"}]}`,
		"keepers": `{"allOf":[{"field":"type","equals":"Microsoft.KeyVault/vaults"},{"count":{"field":"Microsoft.KeyVault/vaults/accessPolicies[*]","where":{"field":"Microsoft.KeyVault/vaults/accessPolicies[*].objectId","equals":"` + l.nobody + `"}},"greater":0}]}`,
	} {
		def := "/subscriptions/" + l.sub + "/providers/Microsoft.Authorization/policyDefinitions/" + name
		l.must(t, nil, l.arm, http.MethodPut, l.url(def), map[string]any{"properties": map[string]any{"policyRule": map[string]any{"if": tree(t, cond), "then": map[string]any{"effect": "deny"}}}})
		l.must(t, nil, l.arm, http.MethodPut, l.url(l.group+"/providers/Microsoft.Authorization/policyAssignments/"+name), map[string]any{"properties": map[string]any{"policyDefinitionId": def}})
	}
	refused := func(what, method, u string, body any) {
		t.Helper()
		a, err := l.send(l.arm, method, u, body)
		if err != nil || a.status != http.StatusForbidden || !strings.Contains(string(a.body), "disallowed by policy") {
			t.Errorf("%s = %d %s (%v)", what, a.status, a.body, err)
		}
	}
	refused("a model by MLflow", http.MethodPost, l.mlflow+"registered-models/create", map[string]any{"name": "wild"})
	l.must(t, nil, l.arm, http.MethodPost, l.mlflow+"registered-models/create", map[string]any{"name": "approved-one"})
	refused("its new name", http.MethodPost, l.mlflow+"registered-models/rename", map[string]any{"name": "approved-one", "new_name": "wild"})
	refused("a model by Resource Manager", http.MethodPut, l.url(l.workspace+"/models/wild"), map[string]any{"properties": map[string]any{}})

	give := func(role string) (string, any) {
		return l.url(l.group + "/providers/Microsoft.Authorization/roleAssignments/" + arm.NewUUID()), assignmentOf(l.sub, role, l.nobody)
	}
	u, body := give(ownerRole)
	refused("an Owner", http.MethodPut, u, body)
	u, body = give(roles[0])
	l.must(t, nil, l.arm, http.MethodPut, u, body)

	keep := func(who string) any {
		return map[string]any{"properties": map[string]any{"accessPolicies": []any{map[string]any{"tenantId": claimOf(l.arm, "tid"), "objectId": who, "permissions": map[string]any{"secrets": []string{"get"}}}}}}
	}
	refused("an access policy", http.MethodPut, l.url(vault+"/accessPolicies/add"), keep(l.nobody))
	l.must(t, nil, l.arm, http.MethodPut, l.url(vault+"/accessPolicies/add"), keep(l.owner))
}
