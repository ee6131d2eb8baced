package app

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// Management groups from the first administrator on: who is Global Administrator
// elevates, makes groups, and moves a subscription; policies of the groups bind
// and let go with the next request, and nobody else gets anywhere.
func TestManagementGroups(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	base, v := a.Site.Base(), "?api-version=any"
	admin, stranger := a.admin(t, "arm"), a.stranger(t)["arm"]
	mg := base + "/providers/Microsoft.Management/managementGroups/"
	sub := "/subscriptions/" + a.Site.Subscription
	elevate := base + "/providers/Microsoft.Authorization/elevateAccess" + v
	must(t, a, http.StatusForbidden, stranger, "POST", elevate, nil)
	must(t, a, http.StatusForbidden, admin, "PUT", mg+"g"+v, "{}")
	must(t, a, http.StatusOK, admin, "POST", elevate, nil)
	me := must(t, a, http.StatusOK, admin, "GET", base+sub+"/providers/Microsoft.Authorization/roleAssignments"+v+"&$filter=atScope()", nil)
	object := ""
	for _, x := range me["value"].([]any) {
		if p := x.(map[string]any)["properties"].(map[string]any); strings.HasSuffix(fmt.Sprint(p["scope"]), a.Site.Tenant) {
			object = fmt.Sprint(p["principalId"])
		}
	}
	give := map[string]any{"properties": map[string]any{"roleDefinitionId": "/providers/Microsoft.Authorization/roleDefinitions/" + ownerRole, "principalId": object}}
	must(t, a, http.StatusCreated, admin, "PUT", mg+a.Site.Tenant+"/providers/Microsoft.Authorization/roleAssignments/11111111-0000-4000-8000-000000000000"+v, give)
	must(t, a, http.StatusOK, admin, "PUT", mg+"g"+v, "{}")
	def := mg + "g/providers/Microsoft.Authorization/policyDefinitions/no"
	must(t, a, http.StatusCreated, admin, "PUT", def+"?api-version=2023-04-01", `{"properties":{"mode":"All","policyRule":{"if":{"field":"name","like":"no*"},"then":{"effect":"deny"}}}}`)
	must(t, a, http.StatusCreated, admin, "PUT", mg+"g/providers/Microsoft.Authorization/policyAssignments/no?api-version=2023-04-01", map[string]any{"properties": map[string]any{"policyDefinitionId": strings.TrimPrefix(def, base)}})
	group := func(want int, name string) {
		t.Helper()
		must(t, a, want, admin, "PUT", base+sub+"/resourceGroups/"+name+v, `{"location":"local"}`)
	}
	group(http.StatusCreated, "no1")
	must(t, a, http.StatusOK, admin, "PUT", mg+"g"+sub+v, nil)
	group(http.StatusForbidden, "no2")
	must(t, a, http.StatusNoContent, admin, "DELETE", mg+"g"+sub+v, nil)
	group(http.StatusCreated, "no3")
	must(t, a, http.StatusNoContent, admin, "DELETE", mg+"g"+v, nil)
	must(t, a, http.StatusOK, admin, "PUT", mg+"g"+v, "{}")
	must(t, a, http.StatusOK, admin, "PUT", mg+"g"+sub+v, nil)
	group(http.StatusCreated, "no4") // the old group's policies went with it

	for _, ns := range []string{"Microsoft.Authorization", "microsoft.management"} {
		out := must(t, a, http.StatusOK, stranger, "GET", base+"/providers/"+ns+v+"&$expand=resourceTypes/aliases", nil)
		if len(out["resourceTypes"].([]any)) < 3 {
			t.Errorf("%s has the types %v", ns, out["resourceTypes"])
		}
		must(t, a, http.StatusOK, admin, "POST", base+sub+"/providers/"+ns+"/register"+v, nil)
		if ops := must(t, a, http.StatusOK, stranger, "GET", base+"/providers/"+ns+"/operations"+v, nil); len(ops["value"].([]any)) < 5 {
			t.Errorf("%s has the operations %v", ns, ops)
		}
	}
}

// Subscriptions are made by who may at the root management group: they lie where
// new ones go, belong to their maker, and are what any other is.
func TestMoreSubscriptions(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	base, v := a.Site.Base(), "?api-version=any"
	admin, stranger := a.admin(t, "arm"), a.stranger(t)["arm"]
	root := base + "/providers/Microsoft.Management/managementGroups/" + a.Site.Tenant
	alias := base + "/providers/Microsoft.Subscription/aliases/second" + v
	body := `{"properties":{"displayName":"Second","workload":"Production","billingScope":"/none"}}`
	must(t, a, http.StatusForbidden, admin, "PUT", alias, body)
	me := a.newPerson(t, "maker")
	maker := tokenFor(t, a, me.id, me.secret, base)
	must(t, a, http.StatusOK, admin, "POST", base+"/providers/Microsoft.Authorization/elevateAccess"+v, nil)
	must(t, a, http.StatusCreated, admin, "PUT", root+"/providers/Microsoft.Authorization/roleAssignments/11111111-0000-4000-8000-000000000001"+v, map[string]any{"properties": map[string]any{
		"roleDefinitionId": "/providers/Microsoft.Authorization/roleDefinitions/" + ownerRole, "principalId": me.object}})
	must(t, a, http.StatusOK, maker, "PUT", root[:strings.LastIndexByte(root, '/')]+"/land"+v, "{}")
	must(t, a, http.StatusOK, maker, "PUT", root+"/settings/default"+v, `{"properties":{"defaultManagementGroup":"/providers/Microsoft.Management/managementGroups/land"}}`)
	must(t, a, http.StatusForbidden, stranger, "PUT", alias, body)
	must(t, a, http.StatusBadRequest, maker, "PUT", alias, `{"properties":{"displayName":""}}`)
	made := must(t, a, http.StatusCreated, maker, "PUT", alias, body)
	again := must(t, a, http.StatusOK, maker, "PUT", alias, body)
	id := fmt.Sprint(made["properties"].(map[string]any)["subscriptionId"])
	if fmt.Sprint(again["properties"].(map[string]any)["subscriptionId"]) != id {
		t.Errorf("an alias made two subscriptions: %v, %v", made, again)
	}
	sub := base + "/subscriptions/" + id
	must(t, a, http.StatusOK, maker, "GET", root[:strings.LastIndexByte(root, '/')]+"/land/subscriptions/"+id+v, nil)
	must(t, a, http.StatusCreated, maker, "PUT", sub+"/resourceGroups/rg"+v, `{"location":"local"}`)
	must(t, a, http.StatusForbidden, stranger, "POST", sub+"/providers/Microsoft.Subscription/rename"+v, `{"subscriptionName":"Mine"}`)
	must(t, a, http.StatusOK, maker, "POST", sub+"/providers/Microsoft.Subscription/rename"+v, `{"subscriptionName":"Third"}`)
	if got := must(t, a, http.StatusOK, maker, "GET", sub+v, nil); got["displayName"] != "Third" || got["tenantId"] != a.Site.Tenant {
		t.Errorf("the subscription is %v", got)
	}
	if got := must(t, a, http.StatusOK, maker, "GET", base+"/subscriptions"+v, nil); len(got["value"].([]any)) != 2 {
		t.Errorf("the maker has the subscriptions %v", got)
	}
	must(t, a, http.StatusOK, maker, "DELETE", alias, nil)
	must(t, a, http.StatusOK, maker, "GET", sub+v, nil)
}
