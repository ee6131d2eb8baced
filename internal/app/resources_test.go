package app

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// Lists of resources of all types choose, page and add as asked, and show each
// caller what they may see.
func TestListsOfResources(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	p := newPoliced(t, a)
	for i, tags := range []string{"team=red note=a and b", "team=blue", "Team=red"} {
		u, body := p.account(fmt.Sprintf("listed%dacct", i), map[string]any{})
		name, rest, _ := strings.Cut(tags, " note=")
		body["tags"] = pairs(name)
		if rest != "" {
			body["tags"].(map[string]any)["note"] = rest
		}
		p.fine(u, body)
	}
	mi := p.group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/listed-mi"
	p.fine(mi, map[string]any{"location": "local"})
	names := func(token, at, query string) string {
		var out []string
		for u := at + "/resources" + version + query; u != ""; {
			got := must(t, a, http.StatusOK, token, http.MethodGet, u, nil)
			for _, row := range got["value"].([]any) {
				out = append(out, strings.TrimSuffix(strings.TrimPrefix(row.(map[string]any)["name"].(string), "listed"), "acct"))
			}
			u, _ = got["nextLink"].(string)
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	for f, want := range map[string]string{
		"": "-mi 0 1 2", "resourceType eq 'microsoft.storage/storageaccounts'": "0 1 2", "resourceType ne 'Microsoft.Storage/storageAccounts'": "-mi",
		"name eq 'listed1acct' or name eq 'listed-mi'": "-mi 1", "substringof('1acct', name)": "1", "startswith(name, 'LISTED-')": "-mi",
		"tagName eq 'team' and tagValue eq 'red'": "0 2", "tagName eq 'note' and tagValue eq 'a and b'": "0", "tagName eq 'team' and tagValue eq 'RED'": "", "startswith(tagName, 'no')": "0",
		"location eq 'Local' and resourceGroup eq 'POLICED'": "-mi 0 1 2", "location ne 'local'": "", "identity ne 'None'": "", "resourceGroup eq 'other'": "",
	} {
		for _, at := range []string{p.sub, p.group} {
			for _, top := range []string{"", "&$top=1", "&$top=3"} {
				if got := names(p.token, at, "&$filter="+url.QueryEscape(f)+top); got != want {
					t.Errorf("%s chooses %q at %s%s, want %q", f, got, at, top, want)
				}
			}
		}
	}
	for _, bad := range []string{"$filter=color eq 'x'", "$filter=name eq x", "$filter=name gt 'x'", "$filter=name eq 'x' and", "$filter=tagValue eq 'x'", "$filter=name eq 'x' xor name eq 'y'", "$expand=secrets", "$top=0", "$skiptoken=!"} {
		k, v, _ := strings.Cut(bad, "=")
		if w := call(a, p.token, http.MethodGet, p.sub+"/resources"+version+"&"+k+"="+url.QueryEscape(v), nil); w.Code != http.StatusBadRequest {
			t.Errorf("%s = %d %s", bad, w.Code, w.Body)
		}
	}
	row := must(t, a, http.StatusOK, p.token, http.MethodGet, p.group+"/resources"+version+"&$expand=createdTime,changedTime,provisioningState&$top=1", nil)["value"].([]any)[0].(map[string]any)
	if row["createdTime"] == nil || row["changedTime"] == nil || row["provisioningState"] != "Succeeded" {
		t.Errorf("an expanded row is %v", row)
	}
	guest := a.newPerson(t, "guest")
	token := tokenFor(t, a, guest.id, guest.secret, a.Site.Base())
	a.giveRole(t, p.token, p.path(mi), guest.object, "Reader")
	if got := names(token, p.sub, "&$top=1"); got != "-mi" {
		t.Errorf("a reader of one resource sees %q", got)
	}
	for u, want := range map[string]int{p.group: 204, p.group + "x": 404, mi: 204, mi + "x": 404} {
		if w := call(a, p.token, http.MethodHead, u+version, nil); w.Code != want {
			t.Errorf("HEAD %s = %d, want %d", u, w.Code, want)
		}
	}
}

// A group's template has what a client could send, and makes the same again.
func TestExportOfAGroup(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	p := newPoliced(t, a)
	u, body := p.account("exportacct", map[string]any{"minimumTlsVersion": "TLS1_2"})
	body["tags"] = pairs("a=b")
	p.fine(u, body)
	p.fine(u+"/blobServices/default/containers/data", map[string]any{})
	all := map[string]any{"resources": []string{"*"}}
	out := must(t, a, http.StatusOK, p.token, http.MethodPost, p.group+"/exportTemplate"+version, all)
	template := out["template"].(map[string]any)
	text := fmt.Sprint(template)
	for _, want := range []string{"exportacct/default/data", "Standard_LRS", "a:b", "TLS1_2"} {
		if !strings.Contains(text, want) {
			t.Errorf("the template lacks %s: %s", want, text)
		}
	}
	for _, no := range []string{"provisioningState", "principalId", "etag", "primaryEndpoints", "systemData"} {
		if strings.Contains(text, no) {
			t.Errorf("the template has %s: %s", no, text)
		}
	}
	d := p.group + "/providers/Microsoft.Resources/deployments/again"
	must(t, a, http.StatusCreated, p.token, http.MethodPut, d+version, map[string]any{"properties": map[string]any{"mode": "Incremental", "template": template}})
	p.await("the template is deployed", func() bool {
		w := call(a, p.token, http.MethodGet, d+version, nil)
		if strings.Contains(w.Body.String(), `"Failed"`) {
			t.Fatal(w.Body)
		}
		return strings.Contains(w.Body.String(), `"provisioningState":"Succeeded"`)
	})
	guest := a.newPerson(t, "guest")
	token := tokenFor(t, a, guest.id, guest.secret, a.Site.Base())
	if w := call(a, token, http.MethodPost, p.group+"/exportTemplate"+version, all); w.Code/100 == 2 && strings.Contains(w.Body.String(), "exportacct") {
		t.Errorf("a stranger exports %s", w.Body)
	}
}

// A provider that a subscription unregistered serves what is there and makes
// nothing new.
func TestProviderRegistration(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	p := newPoliced(t, a)
	kv, storage := p.sub+"/providers/Microsoft.KeyVault", p.sub+"/providers/microsoft.storage"
	state := func(u string) any {
		return must(t, a, http.StatusOK, p.token, http.MethodGet, u+version, nil)["registrationState"]
	}
	vault := p.group + "/providers/Microsoft.KeyVault/vaults/registered-kv"
	body := map[string]any{"location": "local", "properties": map[string]any{"tenantId": a.Site.Tenant, "sku": map[string]any{"family": "A", "name": "standard"}}}
	must(t, a, http.StatusOK, p.token, http.MethodPost, kv+"/unregister"+version, nil)
	if state(kv) != "Unregistered" || state(storage) != "Registered" {
		t.Errorf("the states are %v and %v", state(kv), state(storage))
	}
	if w := call(a, p.token, http.MethodPut, vault+version, body); w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), "MissingSubscriptionRegistration") {
		t.Errorf("a vault without its provider = %d %s", w.Code, w.Body)
	}
	must(t, a, http.StatusNotFound, p.token, http.MethodGet, vault+version, nil)
	must(t, a, http.StatusOK, p.token, http.MethodPost, kv+"/register"+version, nil)
	p.fine(vault, body)
	must(t, a, http.StatusConflict, p.token, http.MethodPost, kv+"/unregister"+version, nil)
	if state(kv) != "Registered" {
		t.Error("a provider in use was unregistered")
	}
	must(t, a, http.StatusBadRequest, p.token, http.MethodPost, p.sub+"/providers/Microsoft.Resources/unregister"+version, nil)
	must(t, a, http.StatusNotFound, p.token, http.MethodPost, p.sub+"/providers/No.Such/register"+version, nil)
	must(t, a, http.StatusOK, p.token, http.MethodGet, kv+"/providerPermissions"+version, nil)
	list := must(t, a, http.StatusOK, p.token, http.MethodGet, p.sub+"/providers"+version+"&$expand=resourceTypes/aliases", nil)
	if text := fmt.Sprint(list); !strings.Contains(text, "Microsoft.KeyVault/vaults/enableRbacAuthorization") {
		t.Error("the list has no aliases")
	}
	guest := a.newPerson(t, "guest")
	a.giveRole(t, p.token, p.path(p.sub), guest.object, "Reader")
	if w := call(a, tokenFor(t, a, guest.id, guest.secret, a.Site.Base()), http.MethodPost, storage+"/unregister"+version, nil); w.Code != http.StatusForbidden {
		t.Errorf("a Reader unregisters: %d", w.Code)
	}
}

// Predefined tag names and values are made once, counted where they are used,
// and not forgotten while they are.
func TestTagNames(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	p := newPoliced(t, a) // the group has the tag team=green
	at := p.sub + "/tagNames"
	list := func() string {
		var out []string
		for _, v := range must(t, a, http.StatusOK, p.token, http.MethodGet, at+version, nil)["value"].([]any) {
			m := v.(map[string]any)
			text := fmt.Sprintf("%v=%v", m["tagName"], m["count"].(map[string]any)["value"])
			for _, x := range m["values"].([]any) {
				text += fmt.Sprintf(",%v:%v", x.(map[string]any)["tagValue"], x.(map[string]any)["count"].(map[string]any)["value"])
			}
			out = append(out, text)
		}
		return strings.Join(out, " ")
	}
	for _, c := range []struct {
		method, path string
		status       int
		want         string
	}{
		{"PUT", "/cost/tagValues/1", 400, "team=1,green:1"}, {"PUT", "/cost", 201, "cost=0 team=1,green:1"}, {"PUT", "/COST", 200, "cost=0 team=1,green:1"},
		{"PUT", "/cost/tagValues/1", 201, "cost=0,1:0 team=1,green:1"}, {"PUT", "/Cost/tagValues/1", 200, "cost=0,1:0 team=1,green:1"}, {"DELETE", "/cost", 409, "cost=0,1:0 team=1,green:1"},
		{"PUT", "/team", 201, "cost=0,1:0 team=1,green:1"}, {"PUT", "/team/tagValues/green", 201, "cost=0,1:0 team=1,green:1"}, {"DELETE", "/team/tagValues/green", 409, "cost=0,1:0 team=1,green:1"},
		{"DELETE", "/cost/tagValues/2", 204, "cost=0,1:0 team=1,green:1"}, {"DELETE", "/cost/tagValues/1", 200, "cost=0 team=1,green:1"}, {"DELETE", "/cost", 200, "team=1,green:1"},
		{"DELETE", "/cost", 204, "team=1,green:1"}, {"PUT", "/" + strings.Repeat("x", 513), 400, "team=1,green:1"}, {"PUT", "/a%3Cb", 400, "team=1,green:1"},
	} {
		if w := call(a, p.token, c.method, at+c.path+version, nil); w.Code != c.status {
			t.Errorf("%s %.40s = %d %s, want %d", c.method, c.path, w.Code, w.Body, c.status)
		}
		if got := list(); got != c.want {
			t.Errorf("after %s %.40s: %s, want %s", c.method, c.path, got, c.want)
		}
	}
}
