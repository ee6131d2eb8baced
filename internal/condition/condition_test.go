package condition_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"castellan/internal/condition"
)

// otherwise are the published cases where we answer otherwise, and why.
var otherwise = map[string]string{}

// Every published case gets the answer that is stated with it.
func TestPublishedCases(t *testing.T) {
	files, _ := filepath.Glob("../../../shared/data/regorus-azure-rbac/azure_rbac/test_cases/*.yaml")
	if len(files) == 0 {
		t.Skip("shared/data is absent, so the published cases are not held against")
	}
	ran := 0
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var f struct {
			Cases []struct {
				Name, Condition string
				Expected        bool
				Context         struct {
					Request  map[string]any `yaml:"request_attributes"`
					Resource map[string]any `yaml:"resource_attributes"`
				}
			} `yaml:"test_cases"`
		}
		if err := yaml.Unmarshal(text, &f); err != nil {
			t.Fatal(err)
		}
		for _, c := range f.Cases {
			ran++
			a := &condition.Attributes{Action: "Microsoft.Storage/storageAccounts/read",
				Request: map[string]any{"enabled": true, "date": "2023-05-01T12:00:00Z", "guid": "a1b2c3d4-0000-0000-0000-000000000000", "ip": "10.0.0.8",
					"tags": []any{"prod", "gold"}, "count": 10.0, "text": "HelloWorld", "time": "12:30:15"},
				Resource: map[string]any{"enabled": false, "count": 5.0, "tags": []any{"a", "b"}}}
			for k, v := range c.Context.Request {
				a.Request[strings.ToLower(k)] = v
			}
			for k, v := range c.Context.Resource {
				a.Resource[strings.ToLower(k)] = v
			}
			x, err := condition.Parse(c.Condition, condition.Version)
			got := err == nil && x.Holds(a)
			why, listed := otherwise[c.Name]
			if ok := err == nil && got == c.Expected; ok == listed {
				t.Errorf("%s: %s gives %v (%v), want %v; %s", c.Name, c.Condition, got, err, c.Expected, why)
			}
		}
	}
	if ran < 60 {
		t.Errorf("only %d cases were run", ran)
	}
}

const (
	roleWrite  = "Microsoft.Authorization/roleAssignments/write"
	roleDelete = "Microsoft.Authorization/roleAssignments/delete"
	delegation = `((!(ActionMatches{'Microsoft.Authorization/roleAssignments/write'})) OR (@Request[Microsoft.Authorization/roleAssignments:RoleDefinitionId] ForAnyOfAnyValues:GuidEquals {acdd72a7-3385-48ef-bd42-f606fba81ae7, 'B24988AC-6180-42a0-ab88-20f7382dd24c'})) AND ((!(ActionMatches{'Microsoft.Authorization/roleAssignments/delete'})) OR (@Resource[Microsoft.Authorization/roleAssignments:RoleDefinitionId] ForAnyOfAnyValues:GuidEquals {acdd72a7-3385-48ef-bd42-f606fba81ae7}))`
	blobs      = `((!(ActionMatches{'Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read'} AND NOT SubOperationMatches{'Blob.List'})) OR (@Resource[Microsoft.Storage/storageAccounts/blobServices/containers:name] StringEquals 'shared' AND @Resource[Microsoft.Storage/storageAccounts/blobServices/containers/blobs:path] StringLike 'team/*'))`
)

// The conditions that Azure's portal writes mean what its pages say.
func TestAzuresConditions(t *testing.T) {
	guid := map[string]any{"microsoft.authorization/roleassignments:roledefinitionid": "acdd72a7-3385-48ef-bd42-f606fba81ae7"}
	other := map[string]any{"microsoft.authorization/roleassignments:roledefinitionid": "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"}
	const read = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read"
	blob := func(c, path string) map[string]any {
		return map[string]any{"microsoft.storage/storageaccounts/blobservices/containers:name": c, "microsoft.storage/storageaccounts/blobservices/containers/blobs:path": path}
	}
	for name, c := range map[string]struct {
		text string
		a    condition.Attributes
		want bool
	}{
		"a role that may be given":          {delegation, condition.Attributes{Action: roleWrite, Request: guid}, true},
		"in another case of the action":     {delegation, condition.Attributes{Action: strings.ToUpper(roleWrite), Request: guid}, true},
		"another role":                      {delegation, condition.Attributes{Action: roleWrite, Request: other}, false},
		"no role at all":                    {delegation, condition.Attributes{Action: roleWrite}, false},
		"taken away":                        {delegation, condition.Attributes{Action: roleDelete, Resource: guid}, true},
		"another taken away":                {delegation, condition.Attributes{Action: roleDelete, Resource: other, Request: guid}, false},
		"an action it does not speak of":    {delegation, condition.Attributes{Action: "Microsoft.Authorization/roleAssignments/read"}, true},
		"a blob below the path":             {blobs, condition.Attributes{Action: read, Resource: blob("shared", "team/x/y")}, true},
		"a blob elsewhere":                  {blobs, condition.Attributes{Action: read, Resource: blob("shared", "other/x")}, false},
		"a path that begins alike":          {blobs, condition.Attributes{Action: read, Resource: blob("shared", "team")}, false},
		"another container":                 {blobs, condition.Attributes{Action: read, Resource: blob("Shared", "team/x")}, false},
		"a list, which it leaves out":       {blobs, condition.Attributes{Action: read, SubOperation: "Blob.List"}, true},
		"precedence: and binds before or":   {"true AND false OR true", condition.Attributes{}, true},
		"a missing attribute meets nothing": {"@Request[x] StringNotEquals 'y'", condition.Attributes{}, false},
		"nor is it there":                   {"Exists @Request[x]", condition.Attributes{}, false},
		"what can't be compared":            {"@Request[x] StringNotEquals 'y'", condition.Attributes{Request: map[string]any{"x": 5.0}}, false},
		"a tag's key has a case":            {"@Resource[a:tags:Project<$key_case_sensitive$>] StringEquals 'x'", condition.Attributes{Resource: map[string]any{"a:tags:project<$key_case_sensitive$>": "x"}}, false},
	} {
		x, err := condition.Parse(c.text, "2.0")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := x.Holds(&c.a); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// What can't be read is refused, and what is refused holds for nobody.
func TestBadConditions(t *testing.T) {
	for _, text := range []string{
		"", "(", "true)", "true true", "@Nobody[x] StringEquals 'y'", "@Request[x StringEquals 'y'", "@Request[x] Resembles 'y'", "@Request[x] StringEquals", "@Request[x] StringEquals 'y",
		"ActionMatches{read}", "ActionMatches{'read'", "Exists 'x'", "@Request[x] ForSomeValues:StringEquals {'y'}", "@Request[x] StringEquals {@Request[y]}", "AddDays('x') BoolEquals true", "Unknown('x') BoolEquals true",
		"@Request[x] NumericEquals 1.2.3", "#", strings.Repeat("(", 100) + "true" + strings.Repeat(")", 100), strings.Repeat("true AND ", 2000) + "true",
	} {
		if x, err := condition.Parse(text, "2.0"); err == nil || x.Holds(&condition.Attributes{}) {
			t.Errorf("%q was taken", text)
		}
	}
	if _, err := condition.Parse("true", "1.0"); err == nil {
		t.Error("version 1.0 was taken")
	}
	var none *condition.Condition
	if none.Holds(&condition.Attributes{}) {
		t.Error("no condition holds")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{delegation, blobs, "NOT Exists @Resource[a:b]", "@Request[t] TimeOfDayInRange ['12:00','13:00']", "{'a','b'} ForAllOfAnyValues:StringLike {'*a*'}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		x, err := condition.Parse(s, "2.0")
		if (err == nil) != (x != nil) {
			t.Fatalf("%v, %v", x, err)
		}
		x.Holds(&condition.Attributes{Action: s, Request: map[string]any{"x": s, "t": s}})
	})
}
