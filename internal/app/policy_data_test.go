package app

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// withLab gives p's group a workspace with a cluster, by its URL.
func (p *policed) withLab() string {
	p.Helper()
	g := p.path(p.group)
	account, vault, ws := g+"/providers/Microsoft.Storage/storageAccounts/labacct", g+"/providers/Microsoft.KeyVault/vaults/pol-lab-kv", g+"/providers/Microsoft.MachineLearningServices/workspaces/lab"
	made(p.T, p.a, p.token, account, map[string]any{"location": "local", "kind": "StorageV2", "sku": map[string]any{"name": "Standard_LRS"}})
	made(p.T, p.a, p.token, vault, map[string]any{"location": "local", "properties": map[string]any{"tenantId": p.a.Site.Tenant, "sku": map[string]any{"family": "A", "name": "standard"}}})
	made(p.T, p.a, p.token, ws, map[string]any{"location": "local", "identity": map[string]any{"type": "SystemAssigned"}, "properties": map[string]any{"storageAccount": account, "keyVault": vault}})
	made(p.T, p.a, p.token, ws+"/computes/cpu", map[string]any{"location": "local", "tags": map[string]any{"team": "green"}, "properties": map[string]any{
		"computeType": "AmlCompute", "properties": map[string]any{"vmSize": "Standard_B1s", "scaleSettings": map[string]any{"minNodeCount": 0, "maxNodeCount": 1}},
	}})
	return p.a.Site.Base() + ws
}

func jobOn(p *policed, ws string) map[string]any {
	at := p.path(ws)
	return map[string]any{"properties": map[string]any{"jobType": "Command", "command": "sleep 600", "environmentId": at + "/environments/host/versions/1", "computeId": at + "/computes/cpu"}}
}

const builtInDefinition = "/providers/Microsoft.Authorization/policyDefinitions/"

func value(v any) map[string]any { return map[string]any{"value": v} }

// enforceSetting binds jobs, the Owner's too: where their images come from and
// who wrote what they run. It binds by what the compute is.
func TestPolicySettingsBindJobs(t *testing.T) {
	p := newPoliced(t, newApp(t))
	ws := p.withLab()
	job := func(name string) string { return ws + "/jobs/" + name }
	const registries, authors = builtInDefinition + "5853517a-63de-11ea-bc55-0242ac130003", builtInDefinition + "53c70b02-63dd-11ea-bc55-0242ac130003"
	green := value([]any{"team:green"})
	for i, c := range []struct {
		why    string
		params map[string]any
		denied bool
	}{
		{"another registry", map[string]any{"allowedACRs": value([]any{"good.azurecr.io"}), "tags": green}, true},
		{"a host that is a prefix", map[string]any{"allowedACRs": value([]any{"castellan.loca"}), "tags": green}, true},
		{"a repository that is a prefix", map[string]any{"allowedACRs": value([]any{"castellan.local/hos"}), "tags": green}, true},
		{"no registry at all", map[string]any{"tags": green}, true},
		{"the registry", map[string]any{"allowedACRs": value([]any{"good.azurecr.io", "Castellan.local"}), "tags": green}, false},
		{"the repository", map[string]any{"allowedACRs": value([]any{"castellan.local/host"}), "tags": green}, false},
		{"computes with another tag", map[string]any{"tags": value([]any{"team:blue"})}, false},
		{"computes with other names", map[string]any{"computeNames": value([]any{"gpu"}), "tags": green}, false},
		{"this compute by its name", map[string]any{"computeNames": value([]any{"CPU"}), "tags": green}, true},
		{"computes of other types", map[string]any{"computeType": value("ComputeInstance"), "tags": green}, false},
		{"computes in networks of their own", map[string]any{"isIsolatedNetwork": value("Yes"), "tags": green}, false},
		{"an effect that is off", map[string]any{"effect": value("disabled"), "tags": green}, false},
	} {
		a := p.assign(ws, "images", registries, map[string]any{"parameters": c.params})
		name := fmt.Sprint("j", i)
		if c.denied {
			p.denied(http.MethodPut, job(name), jobOn(p, ws), "images")
			must(t, p.a, http.StatusNotFound, p.token, http.MethodGet, job(name)+version, nil)
		} else if w := call(p.a, p.token, http.MethodPut, job(name)+version, jobOn(p, ws)); w.Code/100 != 2 {
			t.Errorf("%s: %d %s", c.why, w.Code, w.Body)
		} else {
			must(t, p.a, http.StatusOK, p.token, http.MethodPost, job(name)+"/cancel"+version, nil)
		}
		must(t, p.a, http.StatusOK, p.token, http.MethodDelete, a+version, nil)
	}

	me := fmt.Sprint(must(t, p.a, http.StatusOK, p.token, http.MethodGet, job("j4")+version, nil)["systemData"].(map[string]any)["createdBy"])
	for _, c := range []struct {
		authors []any
		denied  bool
	}{{nil, true}, {[]any{"somebody"}, true}, {[]any{"somebody", strings.ToUpper(me)}, false}} {
		a := p.assign(p.sub, "authors", authors, map[string]any{"parameters": map[string]any{"tags": green, "allowedModuleAuthors": value(append([]any{}, c.authors...))}})
		if c.denied {
			p.denied(http.MethodPut, job("authored"), jobOn(p, ws), "authors")
		} else {
			p.fine(job("authored"), jobOn(p, ws))
		}
		must(t, p.a, http.StatusOK, p.token, http.MethodDelete, a+version, nil)
	}
	must(t, p.a, http.StatusOK, p.token, http.MethodPost, job("authored")+"/cancel"+version, nil)

	// An exemption frees from it; what is not enforced tells of it.
	a := p.assign(p.group, "images", registries, map[string]any{"parameters": map[string]any{"tags": green}})
	exempt := ws + "/providers/Microsoft.Authorization/policyExemptions/free"
	p.put(http.StatusCreated, exempt, map[string]any{"properties": map[string]any{"policyAssignmentId": p.path(a), "exemptionCategory": "Waiver"}})
	p.fine(job("exempt"), jobOn(p, ws))
	must(t, p.a, http.StatusOK, p.token, http.MethodPost, job("exempt")+"/cancel"+version, nil)
	must(t, p.a, http.StatusOK, p.token, http.MethodDelete, exempt+version, nil)
	p.denied(http.MethodPut, job("bound"), jobOn(p, ws), "images")
	must(t, p.a, http.StatusOK, p.token, http.MethodPatch, a+version, map[string]any{"properties": map[string]any{"enforcementMode": "DoNotEnforce"}})
	p.fine(job("told"), jobOn(p, ws))
	rows := must(t, p.a, http.StatusOK, p.token, http.MethodPost, p.sub+"/providers/Microsoft.PolicyInsights/policyEvents/default/queryResults"+version+"&$expand=components", nil)["value"].([]any)
	if len(rows) != 1 || !strings.Contains(fmt.Sprint(rows[0]), "/jobs/told") || !strings.HasSuffix(fmt.Sprint(rows[0].(map[string]any)["resourceId"]), "/workspaces/lab") {
		t.Errorf("the events are %v", rows)
	}

	must(t, p.a, http.StatusOK, p.token, http.MethodPost, job("told")+"/cancel"+version, nil)
}

// Rules of the mode v2.Data deny and audit jobs; each job is a component that
// complies or does not.
func TestPolicyJudgesJobs(t *testing.T) {
	p := newPoliced(t, newApp(t))
	ws := p.withLab()
	const kind = "Microsoft.MachineLearningServices.v2.Data/workspaces/jobs"
	def := p.define("owner-of-jobs", "Microsoft.MachineLearningServices.v2.Data", tree(t, `{"effect":{"type":"String"}}`), tree(t, `{"if":{"allOf":[{"field":"type","equals":"`+kind+`"},
		{"field":"`+kind+`/image","like":"castellan.local/*"},{"field":"`+kind+`/properties.owner","exists":false}]},"then":{"effect":"[parameters('effect')]"}}`))
	a := p.assign(p.group, "owners", def, map[string]any{"parameters": map[string]any{"effect": value("deny")}})
	p.denied(http.MethodPut, ws+"/jobs/nobodys", jobOn(p, ws), "owners")
	owned := jobOn(p, ws)
	owned["properties"].(map[string]any)["properties"] = map[string]any{"owner": "me"}
	p.fine(ws+"/jobs/mine", owned)
	must(t, p.a, http.StatusOK, p.token, http.MethodDelete, a+version, nil)
	p.assign(p.group, "owners", def, map[string]any{"parameters": map[string]any{"effect": value("audit")}})
	p.fine(ws+"/jobs/nobodys", jobOn(p, ws))
	rows := func(path string) (out []map[string]any) {
		t.Helper()
		for _, x := range must(t, p.a, http.StatusOK, p.token, http.MethodPost, p.sub+"/providers/Microsoft.PolicyInsights/"+path, nil)["value"].([]any) {
			out = append(out, x.(map[string]any))
		}
		return out
	}
	got := map[string]string{}
	for _, r := range rows("componentPolicyStates/latest/queryResults?api-version=2022-04-01") {
		got[fmt.Sprint(r["componentName"])] = fmt.Sprint(r["complianceState"])
	}
	if fmt.Sprint(got) != "map[mine:Compliant nobodys:NonCompliant]" {
		t.Errorf("the jobs are %v", got)
	}
	states := rows("policyStates/latest/queryResults" + version + "&$expand=components")
	if len(states) != 1 || states[0]["complianceState"] != "NonCompliant" || len(states[0]["components"].([]any)) != 2 {
		t.Errorf("the workspace is %v", states)
	}
	if plain := rows("policyStates/latest/queryResults" + version); len(plain) != 1 || plain[0]["components"] != nil {
		t.Errorf("without $expand the workspace is %v", plain)
	}
	if e := rows("policyEvents/default/queryResults" + version); len(e) != 1 || e[0]["policyDefinitionAction"] != "audit" {
		t.Errorf("the events are %v", e)
	}
	for _, j := range []string{"mine", "nobodys"} {
		must(t, p.a, http.StatusOK, p.token, http.MethodPost, ws+"/jobs/"+j+"/cancel"+version, nil)
	}
}

// What nothing here would keep is refused by its name when it is assigned, with
// nothing left of it.
func TestPolicySettingsThatBindNothing(t *testing.T) {
	p := newPoliced(t, newApp(t))
	rule := func(effect, details string) any {
		return tree(t, `{"if":{"field":"Microsoft.MachineLearningServices.Data/workspaces/computeName","exists":true},"then":{"effect":"`+effect+`","details":`+details+`}}`)
	}
	setting := func(text string) any { return rule("enforceSetting", `{"setting":`+text+`}`) }
	const v1, v2 = "Microsoft.MachineLearningServices.Data", "Microsoft.MachineLearningServices.v2.Data"
	for i, c := range []struct {
		mode string
		rule any
		says string
	}{
		{v1, setting(`{"name":"allowedPythonPackageChannels","value":["https://pypi.org"]}`), "allowedPythonPackageChannels"},
		{v1, setting(`{"name":"signingKeys","value":{"allowedList":["k"]}}`), "signingKeys"},
		{v1, setting(`{"name":"approvalEndpoint","value":"https://x"}`), "approvalEndpoint"},
		{v1, setting(`{"name":"colour","value":"red"}`), "colour"},
		{v1, setting(`{"name":"allowedACRs","value":{"allowedList":["a"],"trustIPProtectedComponent":"Yes"}}`), "trustIPProtectedComponent"},
		{v1, setting(`{"name":"allowedACRs","value":{"allowedList":["a"],"shade":1}}`), "shade"},
		{v1, setting(`{"name":"allowedACRs","value":{"allowedList":[1]}}`), "allowedList"},
		{v1, setting(`{"name":"logFilter","value":{"filters":["("],"datastore":"logs"}}`), "regular expression"},
		{v1, setting(`{"name":"logFilter","value":{"filters":["x"]}}`), "datastore"},
		{v1, rule("audit", `{}`), "audit"},
		{v2, setting(`{"name":"allowedACRs","value":{"allowedList":["a"]}}`), "enforceSetting"},
		{v2, tree(t, `{"if":{"field":"type","equals":"`+v2+`/workspaces/deployments"},"then":{"effect":"deny"}}`), "deployments"},
		{"All", setting(`{"name":"allowedACRs","value":{"allowedList":["a"]}}`), "enforceSetting"},
		{"Microsoft.KeyVault.Data", tree(t, `{"if":{"field":"type","equals":"Microsoft.KeyVault.Data/vaults/keys"},"then":{"effect":"deny"}}`), "Microsoft.KeyVault.Data"},
	} {
		def := p.define(fmt.Sprint("d", i), c.mode, nil, c.rule)
		u := p.group + "/providers/Microsoft.Authorization/policyAssignments/a"
		w := call(p.a, p.token, http.MethodPut, u+version, map[string]any{"properties": map[string]any{"policyDefinitionId": def}})
		if w.Code/100 != 4 || !strings.Contains(w.Body.String(), c.says) || p.there(u) {
			t.Errorf("%s %v = %d %s, want it refused for %q", c.mode, c.rule, w.Code, w.Body, c.says)
		}
	}
}
