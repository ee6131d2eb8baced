package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"castellan/internal/arm"
	"castellan/internal/resource"
)

const examplePolicy = "../../examples/policies/storage.json"

// file is a file of a test's own.
func file(t *testing.T, name, text string) string {
	t.Helper()
	name = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// Tests of policies pass and fail as they say, tell where, and say which branches
// they leave out; a build server reads the same.
func TestPolicyTests(t *testing.T) {
	text, err := tell(t, "policy", "test", "../../examples/policies/storage.test.yaml", "-v")
	if err != nil || !strings.Contains(text, "4 of 4 tests pass; they take 6 of 6 branches") || strings.Count(text, "ok    ") != 4 {
		t.Errorf("the example, %v:\n%s", err, text)
	}
	policy, err := filepath.Abs(examplePolicy)
	if err != nil {
		t.Fatal(err)
	}
	wrong := file(t, "wrong.yaml", "policy: "+policy+`
cases:
  - name: a public account is fine
    resource: {type: Microsoft.Storage/storageAccounts, location: local, properties: {allowBlobPublicAccess: true}}
    expect: none
  - resource: {type: Microsoft.KeyVault/vaults, location: local}
    expect: none
`)
	report := filepath.Join(t.TempDir(), "report.xml")
	text, err = tell(t, "policy", "test", wrong, "-v", "--junit", report)
	if err == nil || !strings.Contains(text, "wrong.yaml:3: a public account is fine") || !strings.Contains(text, "the outcome is deny, want none") || !strings.Contains(text, "storage.json:16: policyRule.if.allOf[1].anyOf[1] of storage-is-private is never true") {
		t.Errorf("a wrong test, %v:\n%s", err, text)
	}
	var seen struct {
		Suites []struct {
			Failures int `xml:"failures,attr"`
			Cases    []struct {
				Failure *struct{} `xml:"failure"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	b, err := os.ReadFile(report)
	if err == nil {
		err = xml.Unmarshal(b, &seen)
	}
	if err != nil || seen.Suites[0].Failures != 1 || len(seen.Suites[0].Cases) != 2 || seen.Suites[0].Cases[0].Failure == nil || seen.Suites[0].Cases[1].Failure != nil {
		t.Errorf("the report is %s, %v", b, err)
	}
	for name, says := range map[string]string{
		"policy: " + policy + "\ncases:\n  - resource: {type: x}\n    expect: denied\n":                                      "bad.yaml:4: expect is \"denied\"",
		"policy: " + policy + "\ncases:\n  - resource: {type: x}\n    expct: deny\n":                                         "bad.yaml:4: there is no \"expct\"",
		"policy: " + policy + "\ncases:\n  - resource: {kind: x}\n    expect: deny\n":                                        "an object with a type",
		"policy: none.json\ncases:\n  - resource: {type: x}\n    expect: deny\n":                                             "none.json",
		"policy: {if: {field: type, equels: x}, then: {effect: deny}}\ncases: [{resource: {type: x}, expect: none}]\n":       "equels",
		"policy: {policyDefinitions: [{policyDefinitionId: /x}]}\ncases: [{resource: {type: x}, expect: none}]\n":            "/x is not at hand",
		"policy: " + policy + "\nparameters: {efect: Deny}\ncases:\n  - resource: {type: x}\n    expect: none\n":             "1 of the tests failed",
		"policy: " + policy + "\ncases: [{resource: {type: x}, expect: none}]\nCases: [{resource: {type: x}, expect: deny}]": "twice",
		"policy: &a " + policy + "\nparameters: *a\ncases: [{resource: {type: x}, expect: none}]\n":                          "write the value itself",
	} {
		text, err := tell(t, "policy", "test", file(t, "bad.yaml", name))
		if err == nil || !strings.Contains(err.Error()+text, says) {
			t.Errorf("%s: %v, want an error with %q", name, err, says)
		}
	}
}

// A template's resources are judged without a server, each at its place; a value
// that only a deployment has makes it unknown, and neither passes.
func TestPolicyTestsATemplate(t *testing.T) {
	main := file(t, "main.json", `{"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "contentVersion": "1.0.0.0",
  "parameters": {"public": {"type": "bool"}},
  "resources": [
    {"type": "Microsoft.Storage/storageAccounts", "apiVersion": "2023-01-01", "name": "[concat('acct', copyIndex())]", "location": "[resourceGroup().location]", "copy": {"name": "c", "count": 2},
      "properties": {"minimumTlsVersion": "TLS1_2", "allowBlobPublicAccess": "[and(parameters('public'), equals(copyIndex(), 1))]"}},
    {"type": "Microsoft.KeyVault/vaults", "apiVersion": "2023-07-01", "name": "kv", "location": "x", "properties": {"tenantId": "[reference('acct0').x]"}}
  ]}`)
	text, err := tell(t, "policy", "test", examplePolicy, "--template", main, "--template-parameters", "public=true")
	if err == nil || strings.Count(text, "storageAccounts/acct1") != 1 || strings.Contains(text, "acct0") || !strings.Contains(text, "main.json:4: resources[0]") || !strings.Contains(text, "3 resources; 1 of them listed") {
		t.Errorf("a public account, %v:\n%s", err, text)
	}
	if text, err := tell(t, "policy", "test", examplePolicy, "--template", main, "--template-parameters", "public=false"); err != nil {
		t.Errorf("private accounts, %v:\n%s", err, text)
	}
	if text, err := tell(t, "policy", "test", examplePolicy, "-p", "effect=Audit", "--template", main, "--template-parameters", "public=true"); err != nil || !strings.Contains(text, "audit") {
		t.Errorf("an audit, %v:\n%s", err, text)
	}
	every := file(t, "every.json", `{"if": {"field": "name", "equals": "kv"}, "then": {"effect": "deny"}}`)
	if text, err := tell(t, "policy", "test", every, "--template", main, "--template-parameters", "public=false"); err == nil || !strings.Contains(text, "unknown") {
		t.Errorf("a value of the deployment's, %v:\n%s", err, text)
	}
	if _, err := tell(t, "policy", "test", examplePolicy, "--template", main); err == nil || !strings.Contains(err.Error(), "public") {
		t.Errorf("a parameter that is missing: %v", err)
	}
	inner := file(t, "inner.json", `{"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "contentVersion": "1.0.0.0", "resources": [
    {"type": "Microsoft.Resources/deployments", "apiVersion": "2022-09-01", "name": "in", "properties": {"mode": "Incremental", "template": {"$schema": "s", "contentVersion": "1.0.0.0", "resources": [
      {"type": "Microsoft.Storage/storageAccounts", "apiVersion": "2023-01-01", "name": "deep", "location": "x", "properties": {"allowBlobPublicAccess": true}}]}}}]}`)
	if text, err := tell(t, "policy", "test", examplePolicy, "--template", inner); err == nil || !strings.Contains(text, "storageAccounts/deep") {
		t.Errorf("a template in a template, %v:\n%s", err, text)
	}
}

// The past of a server is judged for who may see it: the last write of what is
// there by what is there, all else honestly not.
func TestPolicyTestsThePast(t *testing.T) {
	r, dir := running(t)
	login(t, r, "--data", dir)
	s, err := loadSession()
	if err != nil {
		t.Fatal(err)
	}
	h, err := s.client()
	if err != nil {
		t.Fatal(err)
	}
	do := func(method, path string, body any) {
		t.Helper()
		if _, err := s.call(t.Context(), h, method, s.ARM, path+"?api-version="+resource.VersionFor(path), body); err != nil {
			t.Fatal(err)
		}
	}
	group := "/subscriptions/" + r.SubscriptionID + "/resourceGroups/past"
	account := func(name string) string { return group + "/providers/Microsoft.Storage/storageAccounts/" + name }
	rule := file(t, "owners.json", `{"if": {"allOf": [{"field": "type", "equals": "Microsoft.Storage/storageAccounts"}, {"field": "tags.owner", "exists": false}]}, "then": {"effect": "deny"}}`)
	sent := func(tags map[string]string) map[string]any {
		return map[string]any{"location": r.Location, "kind": "StorageV2", "sku": map[string]any{"name": "Standard_LRS"}, "tags": tags}
	}
	owned := map[string]string{"owner": "ada"}
	do(http.MethodPut, group, map[string]any{"location": r.Location})
	do(http.MethodPut, account("good"), sent(owned))
	do(http.MethodPut, account("bad"), sent(owned))
	do(http.MethodPut, account("bad"), sent(nil))
	do(http.MethodPut, account("gone"), sent(nil))
	do(http.MethodDelete, account("gone"), nil)

	type line struct {
		Outcome, Resource, Caller, JudgedBy, Unknown string
		Findings                                     []map[string]any
	}
	past := func(args ...string) (out []line) {
		t.Helper()
		text, err := tell(t, append([]string{"policy", "test", rule, "--history", "1h", "--json"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.NewDecoder(bytes.NewBufferString(text)).Decode(&out); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		return slices.DeleteFunc(out, func(l line) bool { return !arm.MustID(l.Resource).Within(arm.MustID(group)) })
	}
	var got []string
	for _, l := range past() {
		got = append(got, l.Resource[strings.LastIndexByte(l.Resource, '/')+1:]+" "+l.Outcome)
		if (l.JudgedBy == "") == (l.Unknown == "") || l.Caller == "" {
			t.Errorf("%+v says not how it was judged, or who wrote", l)
		}
	}
	if want := []string{"gone unknown", "bad deny", "bad unknown", "good none", "past none"}; !slices.Equal(got, want) {
		t.Errorf("the past is %q, want %q", got, want)
	}
	if text, err := tell(t, "policy", "test", rule, "--resource", account("bad")); err == nil || !strings.Contains(text, "deny") {
		t.Errorf("the account as it is, %v:\n%s", err, text)
	}

	// Who may see nothing sees none of it.
	client := cell(must(t, "app", "create", "robot"), "appId")
	robot := *r.Admin
	robot.ClientID, robot.ClientSecret = client, cell(must(t, "app", "add-secret", client), "secretText")
	r.Admin = &robot
	login(t, r, "--data", dir)
	if seen := past(); len(seen) != 0 {
		t.Errorf("who may see nothing is shown %v", seen)
	}
	if text, err := tell(t, "policy", "test", rule, "--resource", account("bad")); err == nil || strings.Contains(text, "deny") {
		t.Errorf("a stranger is told of the account, %v:\n%s", err, text)
	}
}
