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
	a := newApp(t)
	base, v := a.Site.Base(), "?api-version=2022-04-01"
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
		if p := x.(map[string]any)["properties"].(map[string]any); p["scope"] == "/" {
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
