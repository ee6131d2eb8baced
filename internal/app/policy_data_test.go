package app

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
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
	t.Parallel()
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
	t.Parallel()
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
	t.Parallel()
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

// People attest to policies that nobody can judge but they: one attestation for
// a resource and a policy, until it ends.
func TestPolicyAttestations(t *testing.T) {
	t.Parallel()
	clock := &movable{at: time.Now()}
	a, err := New(t.Context(), Config{Data: t.TempDir() + "/data", Now: clock.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	a.Run(t.Context())
	p := newPoliced(t, a)
	u, body := p.account("attested", nil)
	p.fine(u, body)
	other, _ := p.account("unattested", nil)
	p.fine(other, body)
	rule := func(effect, state string) any {
		return tree(t, `{"if":{"field":"type","equals":"Microsoft.Storage/storageAccounts"},"then":{"effect":"`+effect+`","details":{"defaultState":"`+state+`"}}}`)
	}
	manual := p.path(p.assign(p.group, "reviewed", p.define("reviewed", "All", nil, rule("manual", "NonCompliant")), nil))
	audit := p.path(p.assign(p.group, "looks", p.define("looks", "All", nil, rule("audit", "")), nil))
	if w := call(a, p.token, http.MethodPut, p.sub+"/providers/Microsoft.Authorization/policyDefinitions/wrong"+version, map[string]any{"properties": map[string]any{"policyRule": rule("manual", "Maybe")}}); w.Code != http.StatusBadRequest {
		t.Errorf("a default state that there is not = %d %s", w.Code, w.Body)
	}
	const at = "/providers/Microsoft.PolicyInsights/attestations"
	v := "?api-version=2024-10-01"
	states := func() string {
		got := map[string]string{}
		for _, x := range must(t, a, http.StatusOK, p.token, http.MethodPost, p.group+"/providers/Microsoft.PolicyInsights/policyStates/latest/queryResults"+version+"&$filter=policyAssignmentName%20eq%20'reviewed'", nil)["value"].([]any) {
			row := x.(map[string]any)
			id := fmt.Sprint(row["resourceId"])
			got[id[strings.LastIndexByte(id, '/')+1:]] = fmt.Sprint(row["complianceState"])
		}
		return fmt.Sprint(got)
	}
	if got := states(); got != "map[attested:NonCompliant unattested:NonCompliant]" {
		t.Errorf("before anybody attests: %s", got)
	}
	ends := clock.now().Add(time.Hour).UTC().Format(time.RFC3339)
	props := map[string]any{"policyAssignmentId": manual, "complianceState": "Compliant", "expiresOn": ends, "owner": "o", "comments": "seen", "assessmentDate": ends,
		"evidence": []any{map[string]any{"description": "minutes", "sourceUri": "https://x/minutes"}}, "metadata": map[string]any{"ticket": 7}}
	put := func(want int, u string, props map[string]any) map[string]any {
		t.Helper()
		return must(t, a, want, p.token, http.MethodPut, u+v, map[string]any{"properties": props})
	}
	made := put(http.StatusCreated, u+at+"/seen", props)["properties"].(map[string]any)
	changed := made["lastComplianceStateChangeAt"]
	if made["provisioningState"] != "Succeeded" || changed == nil || fmt.Sprint(made["evidence"]) != "[map[description:minutes sourceUri:https://x/minutes]]" || fmt.Sprint(made["metadata"]) != "map[ticket:7]" {
		t.Errorf("the attestation is %v", made)
	}
	if got := states(); got != "map[attested:Compliant unattested:NonCompliant]" {
		t.Errorf("once attested: %s", got)
	}
	clock.to(clock.now().Add(time.Minute))
	if again := put(http.StatusOK, u+at+"/seen", props)["properties"].(map[string]any); again["lastComplianceStateChangeAt"] != changed {
		t.Errorf("the state changed at %v, and is the same as at %v", again["lastComplianceStateChangeAt"], changed)
	}
	if n := len(must(t, a, http.StatusOK, p.token, http.MethodGet, p.sub+at+v, nil)["value"].([]any)); n != 1 {
		t.Errorf("the subscription lists %d attestations", n)
	}
	if n := len(must(t, a, http.StatusOK, p.token, http.MethodGet, other+at+v, nil)["value"].([]any)); n != 0 {
		t.Errorf("another resource lists %d", n)
	}
	for why, bad := range map[string]map[string]any{
		"a policy that is judged": {"policyAssignmentId": audit}, "a policy that is not there": {"policyAssignmentId": manual + "x"}, "no policy": {},
		"a state that there is not": {"policyAssignmentId": manual, "complianceState": "Fine"}, "a member that there is not": {"policyAssignmentId": manual, "policyDefinitionReferenceId": "x"},
	} {
		if w := call(a, p.token, http.MethodPut, other+at+"/bad"+v, map[string]any{"properties": bad}); w.Code/100 != 4 {
			t.Errorf("%s = %d %s", why, w.Code, w.Body)
		}
	}
	put(http.StatusConflict, u+at+"/twice", props)
	clock.to(clock.now().Add(2 * time.Hour))
	p.token = a.admin(t, "arm")
	if got := states(); got != "map[attested:NonCompliant unattested:NonCompliant]" {
		t.Errorf("after it ended: %s", got)
	}
	must(t, a, http.StatusOK, p.token, http.MethodDelete, u+at+"/seen"+v, nil)
	must(t, a, http.StatusNotFound, p.token, http.MethodGet, u+at+"/seen"+v, nil)

	// It goes with its assignment.
	put(http.StatusCreated, u+at+"/seen", map[string]any{"policyAssignmentId": manual})
	must(t, a, http.StatusOK, p.token, http.MethodDelete, a.Site.Base()+manual+version, nil)
	must(t, a, http.StatusNotFound, p.token, http.MethodGet, u+at+"/seen"+v, nil)
}

// Everything is judged once a day; what was found stays to be asked for, while
// the latest states are those of now.
func TestPolicyScans(t *testing.T) {
	t.Parallel()
	clock := &movable{at: time.Now()}
	a, err := New(t.Context(), Config{Data: t.TempDir() + "/data", Now: clock.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	a.Run(t.Context())
	p := newPoliced(t, a)
	u, body := p.account("scanned", nil)
	p.fine(u, body)
	p.assign(p.group, "keys", p.define("keys", "All", nil, tree(t, `{"if":{"allOf":[{"field":"type","equals":"Microsoft.Storage/storageAccounts"},{"field":"Microsoft.Storage/storageAccounts/allowSharedKeyAccess","notEquals":false}]},"then":{"effect":"audit"}}`)), nil)
	past := func(more string) (out []string) {
		t.Helper()
		for _, x := range must(t, a, http.StatusOK, p.token, http.MethodPost, p.sub+"/providers/Microsoft.PolicyInsights/policyStates/default/queryResults"+version+more, nil)["value"].([]any) {
			out = append(out, fmt.Sprint(x.(map[string]any)["complianceState"]))
		}
		return out
	}
	p.await("the first scan finds it", func() bool { return fmt.Sprint(past("")) == "[NonCompliant]" })
	_, shut := p.account("scanned", map[string]any{"allowSharedKeyAccess": false})
	p.fine(u, shut)
	if got := past(""); fmt.Sprint(got) != "[NonCompliant]" {
		t.Errorf("without a scan the past is %v", got)
	}
	start := clock.now().UTC().Add(-time.Hour).Format(time.RFC3339)
	clock.to(clock.now().Add(24 * time.Hour))
	p.token = a.admin(t, "arm")
	p.await("the next day's scan finds it repaired", func() bool { return fmt.Sprint(past("&$from="+start)) == "[NonCompliant Compliant]" })
	noon := clock.now().UTC().Add(-time.Hour).Format(time.RFC3339)
	if got := past("&$from=" + start + "&$to=" + noon); fmt.Sprint(got) != "[NonCompliant]" {
		t.Errorf("an hour before it was %v", got)
	}
	must(t, a, http.StatusOK, p.token, http.MethodDelete, u+version, nil)
	must(t, a, http.StatusOK, p.token, http.MethodPost, p.group+"/providers/Microsoft.PolicyInsights/policyStates/latest/triggerEvaluation"+version, nil)
	if got := past("&$from=" + noon); fmt.Sprint(got) != "[Compliant]" {
		t.Errorf("of what is gone the past is %v", got)
	}
}

// A task repairs as many side by side as it says and stops when too many fail; a
// delayed policy looks when its time has come; auditAction tells of deletions.
func TestPolicyTasksAndDelays(t *testing.T) {
	t.Parallel()
	clock := &movable{at: time.Now()}
	a, err := New(t.Context(), Config{Data: t.TempDir() + "/data", Now: clock.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	a.Run(t.Context())
	p := newPoliced(t, a)
	accounts := `{"field":"type","equals":"Microsoft.Storage/storageAccounts"}`
	p.assign(p.group, "tells", p.define("tells", "All", nil, tree(t, `{"if":`+accounts+`,"then":{"effect":"auditAction","details":{"actionNames":["delete"]}}}`)), nil)
	for i := range 4 {
		u, body := p.account(fmt.Sprint("tasked", i), nil)
		p.fine(u, body)
		if i == 3 {
			must(t, a, http.StatusOK, p.token, http.MethodDelete, u+version, nil)
		}
	}
	events := must(t, a, http.StatusOK, p.token, http.MethodPost, p.sub+"/providers/Microsoft.PolicyInsights/policyEvents/default/queryResults"+version, nil)["value"].([]any)
	if len(events) != 1 || !strings.Contains(fmt.Sprint(events[0]), "tasked3") {
		t.Errorf("the events are %v", events)
	}
	assign := func(name string, rule string) string {
		made := p.put(http.StatusCreated, p.group+"/providers/Microsoft.Authorization/policyAssignments/"+name, map[string]any{"location": "local", "identity": map[string]any{"type": "SystemAssigned"}, "properties": map[string]any{"policyDefinitionId": p.define(name, "Indexed", nil, tree(t, rule))}})
		return fmt.Sprint(made["identity"].(map[string]any)["principalId"])
	}
	tagger := assign("tags", `{"if":{"allOf":[`+accounts+`,{"field":"tags.owner","exists":false}]},"then":{"effect":"modify","details":{"roleDefinitionIds":["`+contributor+`"],"operations":[{"operation":"add","field":"tags.owner","value":"policy"}]}}}`)
	remedy := func(name string, props map[string]any) string {
		t.Helper()
		u := p.group + "/providers/Microsoft.PolicyInsights/remediations/" + name
		props["policyAssignmentId"] = p.path(p.group) + "/providers/Microsoft.Authorization/policyAssignments/tags"
		p.put(http.StatusCreated, u, map[string]any{"properties": props})
		state := ""
		p.await(name+" ends", func() bool {
			state = fmt.Sprint(must(t, a, http.StatusOK, p.token, http.MethodGet, u+version, nil)["properties"].(map[string]any)["provisioningState"])
			return state != "Accepted" && state != "InProgress"
		})
		for _, r := range must(t, a, http.StatusOK, p.token, http.MethodPost, u+"/listDeployments"+version, nil)["value"].([]any) {
			state += " " + fmt.Sprint(r.(map[string]any)["status"])
		}
		return state
	}
	few := map[string]any{"percentage": 0.3}
	if got := remedy("one", map[string]any{"parallelDeployments": 1, "failureThreshold": few}); got != "Failed Failed Canceled Canceled" {
		t.Errorf("one by one: %s", got)
	}
	if got := remedy("two", map[string]any{"parallelDeployments": 2, "failureThreshold": few}); got != "Failed Failed Failed Canceled" {
		t.Errorf("two by two: %s", got)
	}
	if got := remedy("all", map[string]any{"parallelDeployments": 1}); got != "Failed Failed Failed Failed" {
		t.Errorf("without a threshold: %s", got)
	}
	a.giveRole(t, p.token, p.path(p.group), tagger, "Contributor")
	if got := remedy("able", map[string]any{"resourceDiscoveryMode": "ReEvaluateCompliance", "parallelDeployments": 30}); got != "Succeeded Succeeded Succeeded Succeeded" {
		t.Errorf("with a role: %s", got)
	}
	rows := must(t, a, http.StatusOK, p.token, http.MethodPost, p.sub+"/providers/Microsoft.PolicyInsights/policyStates/default/queryResults"+version+"&$filter=policyAssignmentName%20eq%20'tags'", nil)["value"].([]any)
	if len(rows) != 3 {
		t.Errorf("re-evaluated, the past has %d states: %v", len(rows), rows)
	}

	late := func(delay string) string {
		return `{"if":` + accounts + `,"then":{"effect":"deployIfNotExists","details":{"type":"Microsoft.ManagedIdentity/userAssignedIdentities","name":"[concat('of-', field('name'))]","evaluationDelay":"` + delay + `","roleDefinitionIds":["` + contributor + `"],
			"deployment":{"properties":{"mode":"incremental","template":{"$schema":"https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#","contentVersion":"1.0.0.0","parameters":{"of":{"type":"string"}},
			"resources":[{"type":"Microsoft.ManagedIdentity/userAssignedIdentities","apiVersion":"2023-01-31","name":"[concat('of-', parameters('of'))]","location":"local"}]},"parameters":{"of":{"value":"[field('name')]"}}}}}}}`
	}
	for _, wrong := range []string{"PT", "PT361M", "P1D", "soon", "AfterProvisioningMaybe"} {
		if w := call(a, p.token, http.MethodPut, p.sub+"/providers/Microsoft.Authorization/policyDefinitions/wrong"+version, map[string]any{"properties": map[string]any{"policyRule": tree(t, late(wrong))}}); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "evaluationDelay") {
			t.Errorf("the delay %s = %d %s", wrong, w.Code, w.Body)
		}
	}
	a.giveRole(t, p.token, p.path(p.group), assign("late", late("PT20M")), "Contributor")
	a.giveRole(t, p.token, p.path(p.group), assign("failed", strings.ReplaceAll(late("AfterProvisioningFailure"), "of-", "failed-")), "Contributor")
	a.giveRole(t, p.token, p.path(p.group), assign("now", strings.ReplaceAll(late("AfterProvisioningSuccess"), "of-", "now-")), "Contributor")
	u, body := p.account("delayed", nil)
	p.fine(u, body)
	mi := p.group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/"
	p.await("what is not delayed is there", func() bool { return p.there(mi + "now-delayed") })
	if p.there(mi+"of-delayed") || p.there(mi+"failed-delayed") {
		t.Error("it came before its time")
	}
	clock.to(clock.now().Add(21 * time.Minute))
	p.await("what is delayed is there", func() bool { return p.there(mi + "of-delayed") })
	if p.there(mi + "failed-delayed") {
		t.Error("it came, though nothing failed")
	}
}
