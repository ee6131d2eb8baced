package app

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// What complies is asked of a definition, an initiative or an assignment as of a scope; it is filtered,
// grouped, ordered and explained test by test; what can't be meant is refused.
func TestPolicyQueries(t *testing.T) {
	t.Parallel()
	p := newPoliced(t, newApp(t))
	audit := func(field string) any {
		return tree(t, `{"if":{"allOf":[{"field":"type","equals":"Microsoft.Storage/storageAccounts"},{"field":"`+field+`","notEquals":"[parameters('want')]"}]},"then":{"effect":"audit"}}`)
	}
	params := tree(t, `{"want":{"type":"String","defaultValue":"a"}}`)
	one := p.define("one", "All", params, audit("tags.one"))
	two := p.define("two", "All", params, audit("tags.two"))
	lacks := p.define("lacks", "All", nil, tree(t, `{"if":{"field":"type","equals":"Microsoft.Storage/storageAccounts"},"then":{"effect":"auditIfNotExists","details":{
		"type":"Microsoft.Storage/storageAccounts/blobServices","existenceCondition":{"field":"Microsoft.Storage/storageAccounts/blobServices/isVersioningEnabled","equals":true}}}}`))
	set := p.sub + "/providers/Microsoft.Authorization/policySetDefinitions/both"
	p.put(http.StatusCreated, set, map[string]any{"properties": map[string]any{
		"metadata": map[string]any{"category": "Tags"}, "policyDefinitionGroups": []any{map[string]any{"name": "group1"}},
		"policyDefinitions": []any{
			map[string]any{"policyDefinitionId": one, "policyDefinitionReferenceId": "first", "groupNames": []any{"group1"}},
			map[string]any{"policyDefinitionId": two, "policyDefinitionReferenceId": "second"},
		}}})
	p.assign(p.sub, "initiative", p.path(set), nil)
	alone := p.assign(p.group, "alone", one, map[string]any{"parameters": map[string]any{"want": map[string]any{"value": "x"}}})
	p.assign(p.group, "related", lacks, nil)
	for name, tags := range map[string]map[string]any{"goodaccount": {"one": "a", "two": "a"}, "badaccount": {"one": "x"}} {
		u, body := p.account(name, nil)
		body["tags"] = tags
		p.fine(u, body)
	}

	type row = map[string]any
	ask := func(want int, scope, what string, options ...string) (rows []row) {
		t.Helper()
		q := url.Values{"api-version": {"any"}}
		for _, o := range options {
			n, v, _ := strings.Cut(o, "=")
			q.Set(n, v)
		}
		body := must(t, p.a, want, p.token, http.MethodPost, scope+"/providers/Microsoft.PolicyInsights/"+what+"/queryResults?"+q.Encode(), nil)
		all, _ := body["value"].([]any)
		for _, x := range all {
			rows = append(rows, x.(row))
		}
		return rows
	}
	seen := func(rows []row, columns ...string) string {
		var out []string
		for _, r := range rows {
			var cells []string
			for _, c := range columns {
				text := fmt.Sprint(r[c])
				cells = append(cells, text[strings.LastIndexByte(text, '/')+1:])
			}
			out = append(out, strings.Join(cells, " "))
		}
		return strings.Join(out, ", ")
	}
	const states, by = "policyStates/latest", "$orderby=policyAssignmentName desc,PolicyDefinitionReferenceId,resourceId asc"
	is := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
	}
	columns := []string{"policyAssignmentName", "policyDefinitionReferenceId", "resourceId", "complianceState"}
	providers := p.sub + "/providers/Microsoft.Authorization/"
	is(seen(ask(200, providers+"policyDefinitions/one", states, by), columns...),
		"initiative first badaccount NonCompliant, initiative first goodaccount Compliant, alone  badaccount Compliant, alone  goodaccount NonCompliant")
	is(seen(ask(200, providers+"policySetDefinitions/BOTH", states, by), columns...),
		"initiative first badaccount NonCompliant, initiative first goodaccount Compliant, initiative second badaccount NonCompliant, initiative second goodaccount Compliant")
	is(seen(ask(200, alone, states, by), columns...), "alone  badaccount Compliant, alone  goodaccount NonCompliant")
	is(seen(ask(200, providers+"policyDefinitions/nothing", states), columns...), "")
	is(seen(ask(200, alone, "policyEvents/default"), "policyAssignmentName", "resourceId"), "alone goodaccount")
	is(seen(ask(200, providers+"policySetDefinitions/both", "policyEvents/default", "$orderby=policyDefinitionReferenceId"), "policyAssignmentName", "policyDefinitionReferenceId"), "initiative first, initiative second")
	must(t, p.a, http.StatusOK, p.token, http.MethodPost, p.sub+"/providers/Microsoft.PolicyInsights/policyStates/latest/triggerEvaluation"+version, nil)
	is(seen(ask(200, providers+"policySetDefinitions/both", "policyStates/default", by, "$filter=isCompliant eq false"), columns...), "initiative first badaccount NonCompliant, initiative second badaccount NonCompliant")
	is(seen(ask(200, providers+"policyDefinitions/two", "policyStates/default", by), columns...), "initiative second badaccount NonCompliant, initiative second goodaccount Compliant")
	sum := must(t, p.a, http.StatusOK, p.token, http.MethodPost, providers+"policyDefinitions/one/providers/Microsoft.PolicyInsights/policyStates/latest/summarize"+version, nil)
	if r := sum["value"].([]any)[0].(row)["results"].(row); r["nonCompliantResources"] != 2.0 || r["nonCompliantPolicies"] != 2.0 {
		t.Errorf("the summary of a definition is %v", r)
	}

	is(seen(ask(200, p.group, states, by, "$filter='GROUP1' IN PolicyDefinitionGroupNames and not (isCompliant eq true)"), columns...), "initiative first badaccount NonCompliant")
	is(seen(ask(200, p.group, states, "$filter=policyDefinitionAction eq 'audit'", "$apply=groupby((PolicyAssignmentName, ComplianceState), aggregate($count as N))", "$orderby=N desc,PolicyAssignmentName,complianceState"),
		"policyAssignmentName", "complianceState", "N"), "initiative Compliant 2, initiative NonCompliant 2, alone Compliant 1, alone NonCompliant 1")
	is(seen(ask(200, p.group, states, "$apply=groupby((policyAssignmentId,resourceId))/groupby((policyAssignmentId),aggregate($count as resources))", "$orderby=PolicyAssignmentId"), "policyAssignmentId", "resources"), "initiative 2, alone 2, related 2")
	is(seen(ask(200, p.group, states, by, "$select=ResourceId,TIMESTAMP", "$top=1"), "resourceId", "policyAssignmentName"), "badaccount <nil>")

	// Why: each test that was made, with what was there.
	why := ask(200, providers+"policyDefinitions/one", states, by, "$expand=PolicyEvaluationDetails", "$filter=policyAssignmentName eq 'alone'")
	text, _ := json.Marshal(why[0]["policyEvaluationDetails"])
	is(string(text), `{"evaluatedExpressions":[{"expression":"type","expressionKind":"Field","expressionValue":"Microsoft.Storage/storageAccounts","operator":"Equals","path":"type","result":"True","targetValue":"Microsoft.Storage/storageAccounts"},`+
		`{"expression":"tags.one","expressionKind":"Field","expressionValue":"x","operator":"NotEquals","path":"tags.one","result":"False","targetValue":"x"}]}`)
	why = ask(200, p.group, states, "$expand=PolicyEvaluationDetails", "$filter=policyAssignmentName eq 'related' and contains(resourceId,'bad')")
	text, _ = json.Marshal(why[0]["policyEvaluationDetails"].(row)["ifNotExistsDetails"])
	is(string(text), `{"resourceId":"`+p.path(p.group)+`/providers/Microsoft.Storage/storageAccounts/badaccount/blobServices/default","totalResources":1}`)

	// Lists of policy objects are filtered, too.
	listed := func(want int, at, kind, filter string) string {
		t.Helper()
		body := must(t, p.a, want, p.token, http.MethodGet, at+"/providers/Microsoft.Authorization/"+kind+"?"+url.Values{"api-version": {"any"}, "$filter": {filter}}.Encode(), nil)
		var names []string
		all, _ := body["value"].([]any)
		for _, x := range all {
			names = append(names, fmt.Sprint(x.(row)["name"]))
		}
		return strings.Join(names, " ")
	}
	is(listed(200, p.sub, "policyAssignments", "policyDefinitionId eq '"+one+"'"), "alone")
	is(listed(200, p.sub, "policyAssignments", "policyDefinitionId eq '"+strings.ToUpper(p.path(set))+"'"), "initiative")
	is(listed(200, p.sub, "policyDefinitions", "policyType eq 'Custom'"), "lacks one two")
	is(listed(200, p.sub, "policySetDefinitions", "category eq 'tags'"), "both")
	for _, at := range []string{p.sub, p.a.Site.Base()} {
		if n := len(strings.Fields(listed(200, at, "policyDefinitions", "policyType eq 'BuiltIn' and category eq 'Machine Learning'"))); n < 5 {
			t.Errorf("%d built-in definitions of machine learning are listed", n)
		}
	}
	free := p.group + "/providers/Microsoft.Authorization/policyExemptions/"
	for name, ends := range map[string]string{"ended": "2020-01-01T00:00:00Z", "lasts": "2099-01-01T00:00:00Z"} {
		p.put(http.StatusCreated, free+name, map[string]any{"properties": map[string]any{"policyAssignmentId": p.path(alone), "exemptionCategory": "Waiver", "expiresOn": ends}})
	}
	is(listed(200, p.group, "policyExemptions", "excludeExpired()"), "lasts")
	is(listed(200, p.group, "policyExemptions", "policyAssignmentId eq '"+p.path(alone)+"'"), "ended lasts")
	for kind, filter := range map[string]string{"policyAssignments": "excludeExpired()", "policyDefinitions": "policyDefinitionId eq 'x'", "policyExemptions": "name eq 'x'", "policySetDefinitions": "policyType -eq 'Custom'"} {
		listed(400, p.group, kind, filter)
	}

	for _, bad := range []string{"$apply=groupby((x))", "$apply=concat(a)", "$filter=x eq 'y'", "$filter=resourceId", "$orderby=resourceId sideways", "$orderby=x", "$select=x", "$expand=everything", "$expand=components($filter=x)", "$expand=components($top=1)",
		"$skiptoken=x", "$top=0", "$search=x", "$from=yesterday"} {
		ask(400, p.group, states, bad)
	}
	ask(400, p.group+"/providers/Microsoft.Authorization/policyDefinitions/one", states)
	ask(404, p.sub+"/providers/Microsoft.Authorization/policyAssignments/none", states)
}

// What would be said of a resource that is not there, and of the values that a form
// may offer: by whom each is refused, what is missing, and what policies add.
func TestPolicyRestrictions(t *testing.T) {
	t.Parallel()
	p := newPoliced(t, newApp(t))
	on := func(cond string) any {
		return tree(t, `{"if":{"allOf":[{"field":"type","equals":"Microsoft.Storage/storageAccounts"},`+cond+`]},"then":{"effect":"deny"}}`)
	}
	message := map[string]any{"nonComplianceMessages": []any{map[string]any{"message": "not there"}}}
	p.assign(p.group, "places", p.define("places", "All", nil, on(`{"field":"location","notIn":["local","here"]}`)), message)
	p.assign(p.group, "env", p.define("env", "All", nil, on(`{"field":"tags.env","notIn":["Prod","Test"]}`)), nil)
	p.assign(p.group, "owner", p.define("owner", "All", nil, on(`{"field":"tags['owner']","exists":"false"}`)), nil)
	p.assign(p.group, "kinds", p.define("kinds", "All", nil, on(`{"field":"kind","equals":"BlobStorage"}`)), nil)
	p.assign(p.group, "names", p.define("names", "All", nil, on(`{"field":"name","like":"x*"}`)), nil)
	adds := p.define("adds", "Indexed", nil, tree(t, `{"if":{"field":"tags.team","exists":"false"},"then":{"effect":"append","details":[{"field":"tags.team","value":"green"}]}}`))
	p.assign(p.group, "adds", adds, nil)
	ask := func(want int, pending ...any) map[string]any {
		t.Helper()
		return must(t, p.a, want, p.token, http.MethodPost, p.group+"/providers/Microsoft.PolicyInsights/checkPolicyRestrictions"+version, map[string]any{
			"resourceDetails": map[string]any{"resourceContent": map[string]any{"type": "Microsoft.Storage/storageAccounts", "kind": "BlobStorage"}}, "pendingFields": pending})
	}
	type row = map[string]any
	assignment := func(v any) string {
		id := fmt.Sprint(v.(row)["policyAssignmentId"])
		return id[strings.LastIndexByte(id, '/')+1:]
	}
	got := ask(200, row{"field": "location", "values": []any{"local", "west", "east"}}, row{"field": "name", "values": []any{"xa", "b"}}, row{"field": "tags"}, row{"field": "kind", "values": []any{"StorageV2"}})
	var found []string
	for _, f := range got["fieldRestrictions"].([]any) {
		for _, x := range f.(row)["restrictions"].([]any) {
			r := x.(row)
			found = append(found, fmt.Sprint(f.(row)["field"], " ", r["result"], " ", r["values"], " by ", assignment(r["policy"]), " ", r["policyEffect"], " ", r["reason"]))
		}
	}
	want := `tags.team Required [green] by adds append the policy assignment adds says so
location Deny [west east] by places deny not there
name Deny [xa] by names deny the policy assignment names says so
tags.env Required [Prod Test] by env deny the policy assignment env says so
tags['owner'] Required <nil> by owner deny the policy assignment owner says so`
	if strings.Join(found, "\n") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(found, "\n"), want)
	}
	if e := got["contentEvaluationResult"].(row)["policyEvaluations"].([]any); len(e) != 0 {
		t.Errorf("the fields settle all, but these are left: %v", e)
	}
	var left []string
	for _, e := range ask(200)["contentEvaluationResult"].(row)["policyEvaluations"].([]any) {
		left = append(left, fmt.Sprint(assignment(e.(row)["policyInfo"]), " ", len(e.(row)["evaluationDetails"].(row)["evaluatedExpressions"].([]any))))
	}
	if fmt.Sprint(left) != "[env 2 kinds 2 owner 2 places 2]" {
		t.Errorf("of the content alone: %v", left)
	}
	ask(400, row{"field": "properties.a[*].b", "values": []any{"x"}})
	ask(400, row{"field": ""})
	ask(400, row{"field": "kind", "values": make([]any, 101)})
}
