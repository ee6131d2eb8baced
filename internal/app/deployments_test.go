package app

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"castellan/internal/arm"
)

// Deployments to the tenant are for who may write them at its root management
// group, and each tenant has its own: another's administrator, who may do the
// same, neither sees nor replaces them.
func TestDeploymentsToTheTenant(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	base, v := a.Site.Base(), "?api-version=any"
	const list = "/providers/Microsoft.Resources/deployments"
	outputs := func(x string) map[string]any {
		return map[string]any{"location": "local", "properties": map[string]any{"mode": "Incremental", "template": map[string]any{
			"$schema": "x", "contentVersion": "1.0.0.0", "resources": []any{}, "outputs": map[string]any{"x": map[string]any{"type": "string", "value": x}}}}}
	}
	home, other := a.newPerson(t, "owner"), newTenant(t, a, "other.example")
	for tenant, c := range map[string]struct {
		admin string // a token
		owner person
	}{
		a.Site.Tenant: {a.admin(t, "arm"), home},
		other.tenant:  {tokenAt(t, a, other.tenant, other.admin.id, other.admin.secret, base), other.admin},
	} {
		token := tokenAt(t, a, tenant, c.owner.id, c.owner.secret, base)
		must(t, a, http.StatusOK, c.admin, "POST", base+"/providers/Microsoft.Authorization/elevateAccess"+v, nil)
		must(t, a, http.StatusForbidden, c.admin, "PUT", base+list+"/d"+v, outputs(tenant))
		role := base + "/providers/Microsoft.Management/managementGroups/" + tenant + "/providers/Microsoft.Authorization/roleAssignments/" + arm.NewUUID() + "?api-version=2022-04-01"
		must(t, a, http.StatusCreated, c.admin, "PUT", role, map[string]any{"properties": map[string]any{
			"roleDefinitionId": "/providers/Microsoft.Authorization/roleDefinitions/" + ownerRole, "principalId": c.owner.object}})
		must(t, a, http.StatusNotFound, token, "GET", base+list+"/d"+v, nil)
		made(t, a, token, list+"/d", outputs(tenant))
		got := fmt.Sprint(must(t, a, http.StatusOK, token, "GET", base+list+"/"+v, nil))
		if !strings.Contains(got, "value:"+tenant) || strings.Count(got, "outputs:") != 1 {
			t.Errorf("the tenant's deployments are %v", got)
		}
	}
	must(t, a, http.StatusForbidden, a.stranger(t)["arm"], "GET", base+list+"/d"+v, nil)
}

// deploying is a deployment of resources.
func deploying(mode string, resources ...any) map[string]any {
	return map[string]any{"properties": map[string]any{"mode": mode, "template": map[string]any{
		"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "contentVersion": "1.0.0.0", "resources": resources}}}
}

func accountInTemplate(name string) any {
	return map[string]any{"type": "Microsoft.Storage/storageAccounts", "apiVersion": "2023-04-01", "name": name, "location": "local", "sku": map[string]any{"name": "Standard_LRS"}, "kind": "StorageV2"}
}

// whatIf is what a deployment to the group, a URL, would change.
func whatIf(t *testing.T, a *App, token, group string, body any) (changes []any, text string) {
	t.Helper()
	w := call(a, token, http.MethodPost, group+"/providers/Microsoft.Resources/deployments/d/whatIf"+version, body)
	if w.Code != http.StatusAccepted {
		t.Fatalf("what-if = %d %s", w.Code, w.Body)
	}
	r := must(t, a, http.StatusOK, token, http.MethodGet, w.Header().Get("Location"), nil)
	changes, _ = r["properties"].(map[string]any)["changes"].([]any)
	return changes, fmt.Sprint(changes...)
}

// What-if knows what a deployment of all kinds in a group would change, as they
// are there already: nothing.
func TestWhatIfOfWhatIsThere(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	x := newTenant(t, a, "there.example")
	x.settle(t, a, "there")
	token, group := x.tokens["arm"], a.Site.Base()+"/subscriptions/"+x.sub+"/resourceGroups/lab"
	exported := must(t, a, http.StatusOK, token, http.MethodPost, group+"/exportTemplate"+version, map[string]any{"resources": []string{"*"}})
	resources := slices.DeleteFunc(exported["template"].(map[string]any)["resources"].([]any), func(r any) bool { // the workspace's own
		return strings.HasSuffix(r.(map[string]any)["type"].(string), "/datastores")
	})
	changes, text := whatIf(t, a, token, group, deploying("Complete", resources...))
	if len(changes) < 5 {
		t.Errorf("what-if tells of %d resources: %s", len(changes), text)
	}
	for _, c := range changes {
		if c := c.(map[string]any); c["changeType"] != "NoChange" {
			t.Errorf("%s: %s by %v", c["resourceId"], c["changeType"], c["delta"])
		}
	}
	// Roles are no kind's: what they look like is told by their door.
	role := map[string]any{"type": "Microsoft.Authorization/roleAssignments", "apiVersion": "2022-04-01", "name": arm.NewUUID(), "properties": map[string]any{"principalId": x.admin.object,
		"roleDefinitionId": "/providers/Microsoft.Authorization/roleDefinitions/" + contributor[strings.LastIndex(contributor, "/")+1:]}}
	if _, text := whatIf(t, a, token, group, deploying("Incremental", role)); strings.Count(text, "changeType:Create") != 1 {
		t.Errorf("of a role what-if tells %s", text)
	}
	role["scope"] = "Microsoft.KeyVault/vaults/none"
	if w := call(a, token, http.MethodPost, group+"/providers/Microsoft.Resources/deployments/d/whatIf"+version, deploying("Incremental", role)); w.Code != http.StatusNotFound {
		t.Errorf("of a role on what there is not what-if = %d %s", w.Code, w.Body)
	}
}

// placeholder is what the published parameters have instead of names, with how
// long a name is to be.
var placeholder = regexp.MustCompile(`GEN-UNIQUE-?([0-9]*)`)

// quickstart is a published template with its parameters.
func quickstart(t *testing.T, file string) (template, parameters map[string]any) {
	t.Helper()
	read := func(file string) (v map[string]any) {
		b, err := os.ReadFile(file)
		if err == nil {
			b = placeholder.ReplaceAllFunc(b, func(x []byte) []byte {
				n, err := strconv.Atoi(string(placeholder.FindSubmatch(x)[1]))
				if err != nil {
					n = 5
				}
				return []byte("abcdefghijklmnop"[:n])
			})
			err = json.Unmarshal(b, &v)
		}
		if err != nil {
			t.Fatalf("reading %s: %v", file, err)
		}
		return v
	}
	parameters, _ = read(strings.TrimSuffix(file, ".json") + ".parameters.json")["parameters"].(map[string]any)
	return read(file), parameters
}

// lacking are the types in a template that there are no doors to put; must are
// those that no condition leaves out.
func (a *App) lacking(template map[string]any, maybe bool, all, must map[string]bool) {
	list, _ := template["resources"].([]any)
	for _, x := range list {
		r := x.(map[string]any)
		_, conditional := r["condition"]
		conditional = conditional || maybe
		typ := r["type"].(string)
		path := "/subscriptions/s/resourceGroups/g/providers/" + strings.ReplaceAll(typ, "/", "/x/")
		path = strings.Replace(path, "/providers/"+strings.Split(typ, "/")[0]+"/x/", "/providers/"+strings.Split(typ, "/")[0]+"/", 1) + "/x"
		if rt, _, _, err := a.Planes[0].Match(http.MethodPut, path); err != nil || rt.Method == "" {
			all[typ] = true
			if !conditional {
				must[typ] = true
			}
		}
		props, _ := r["properties"].(map[string]any)
		if inner, ok := props["template"].(map[string]any); ok {
			a.lacking(inner, conditional, all, must)
		}
	}
}

// The published templates for machine learning are judged as a whole, at a group
// and from the subscription: whoever asks for a deployment, for its validation or
// for what it would change is told all types that there are none of, and nothing
// is made.
func TestQuickstartsNameWhatIsMissing(t *testing.T) {
	t.Parallel()
	files, _ := filepath.Glob("../../../shared/data/quickstarts-ml/*/azuredeploy.json")
	if len(files) == 0 {
		t.Skip("shared/data is absent, so the quickstart templates are not held against")
	}
	a := newApp(t)
	token, sub := a.admin(t, "arm"), "/subscriptions/"+a.Site.Subscription
	must(t, a, http.StatusCreated, token, http.MethodPut, a.Site.Base()+sub+"/resourceGroups/quick"+version, map[string]any{"location": "local"})
	before, held := documents(t, a, a.Site.Subscription), 0
	for _, f := range files {
		template, parameters := quickstart(t, f)
		all, least := map[string]bool{}, map[string]bool{}
		a.lacking(template, false, all, least)
		properties := map[string]any{"mode": "Incremental", "template": template, "parameters": parameters}
		nested := deploying("Incremental", map[string]any{"type": "Microsoft.Resources/deployments", "apiVersion": "2021-04-01", "name": "n", "resourceGroup": "quick", "properties": map[string]any{
			"mode": "Incremental", "template": template, "parameters": parameters, "expressionEvaluationOptions": map[string]any{"scope": "inner"}}})
		nested["location"] = "local"
		for scope, body := range map[string]any{sub + "/resourceGroups/quick": map[string]any{"properties": properties}, sub: nested} {
			for _, door := range []string{"PUT ", "POST /validate", "POST /whatIf"} {
				method, tail, _ := strings.Cut(door, " ")
				if len(least) == 0 && method == http.MethodPut {
					continue // it begins, and fails by what it depends on
				}
				w := call(a, token, method, a.Site.Base()+scope+"/providers/Microsoft.Resources/deployments/d"+tail+version, body)
				_, list, named := strings.Cut(w.Body.String(), "does not have: ")
				if !named {
					if len(least) > 0 && !strings.Contains(w.Body.String(), `property \"castellan\" is not there`) { // of a list of clouds
						t.Errorf("%s at %s: %s lacks %v and is answered %d %s", door, scope, f, least, w.Code, w.Body)
					}
					continue
				}
				held++
				list, _, _ = strings.Cut(list, ".\"")
				told := map[string]bool{}
				for _, typ := range strings.Split(list, ", ") {
					if told[typ] = true; !all[typ] {
						t.Errorf("%s: %s is called missing", f, typ)
					}
				}
				for typ := range least {
					if !told[typ] {
						t.Errorf("%s at %s: %s is not called missing in %s of %s", door, scope, typ, list, f)
					}
				}
			}
		}
	}
	if after := documents(t, a, a.Site.Subscription); after != before || held == 0 {
		t.Errorf("%d templates were held; there was\n%s\nand now there is\n%s", held, before, after)
	}
}
