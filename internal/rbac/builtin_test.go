package rbac

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"castellan/internal/condition"
)

var update = flag.Bool("update", false, "write builtin.txt anew from the published role definitions")

const published = "../../../shared/data/azure-roles/built-in-roles.json"

const header = `# The built-in roles: id and name, then + actions, - notActions, d+ dataActions,
# d- notDataActions, "if" version and condition; & begins a further permission.
# An empty line ends a role. Written by: go test ./internal/rbac -run BuiltIn -update

`

// publishedRoles reads the definitions that builtin.txt must agree with.
func publishedRoles(t *testing.T) []Role {
	t.Helper()
	raw, err := os.ReadFile(published)
	if errors.Is(err, fs.ErrNotExist) && os.Getenv("CI") == "" {
		t.Skip("shared/data is absent, so the built-in roles are not compared with the published ones")
	}
	if err != nil {
		t.Fatal(err)
	}
	var in []struct {
		Name, RoleName string
		Permissions    []Permission
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		t.Fatal(err)
	}
	var out []Role
	for _, r := range in {
		x := Role{ID: strings.ToLower(r.Name), Name: strings.TrimSpace(r.RoleName)}
		for _, p := range r.Permissions {
			p.Actions, p.NotActions = tidy(p.Actions), tidy(p.NotActions)
			p.DataActions, p.NotDataActions = tidy(p.DataActions), tidy(p.NotDataActions)
			x.Permissions = append(x.Permissions, p)
		}
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b Role) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// tidy trims, sorts and drops what only repeats.
func tidy(in []string) []string {
	var out []string
	for _, s := range in {
		out = append(out, strings.TrimSpace(s))
	}
	less := func(a, b string) int { return cmp.Compare(strings.ToLower(a), strings.ToLower(b)) }
	slices.SortFunc(out, less)
	return slices.CompactFunc(out, strings.EqualFold)
}

// The built-in roles are exactly the published ones.
func TestBuiltInAgreesWithPublished(t *testing.T) {
	want := publishedRoles(t)
	if *update {
		if err := os.WriteFile("builtin.txt", []byte(header+writeRoles(want)), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Skip("builtin.txt is written; run again without -update")
	}
	got := map[string]Role{}
	for _, r := range BuiltIn() {
		got[r.ID] = r
	}
	if len(got) != len(want) || len(want) < 900 {
		t.Errorf("there are %d built-in roles, %d published", len(got), len(want))
	}
	for _, w := range want {
		g := writeRoles([]Role{got[w.ID]})
		if x := writeRoles([]Role{w}); g != x {
			t.Errorf("role %s is\n%swant\n%s", w.ID, g, x)
		}
	}
}

// The built-in roles can be had without anything beside the program, and are
// the asker's own.
func TestBuiltInStandsAlone(t *testing.T) {
	roles := BuiltIn()
	if len(roles) != 928 {
		t.Fatalf("BuiltIn has %d roles, want 928", len(roles))
	}
	seen := map[string]bool{}
	for _, r := range roles {
		if len(r.ID) != 36 || r.ID != roleKey(r.ID) || seen[r.ID] || seen[strings.ToLower(r.Name)] || r.Name == "" {
			t.Errorf("role %q %q is malformed or there twice", r.ID, r.Name)
		}
		seen[r.ID], seen[strings.ToLower(r.Name)] = true, true
		if !r.BuiltIn || !strings.HasPrefix(r.Description, "Allows ") || len(r.Description) > 400 {
			t.Errorf("role %s has BuiltIn %v and description %q", r.Name, r.BuiltIn, r.Description)
		}
	}
	roles[0].Permissions[0].Actions = nil
	roles[0].AssignableScopes[0] = "changed"
	if x := BuiltIn()[0]; x.AssignableScopes[0] != "/" {
		t.Error("a change of one BuiltIn shows in the next")
	}
}

// What parseRoles does not understand it refuses, rather than to leave it out.
func TestParseRolesRefuses(t *testing.T) {
	for _, text := range []string{
		"one-word", "id name\n+", "id name\n+ ", "id name\n* a/read", "id name\nif 2.0", "id name\n+a/read",
	} {
		if roles, err := parseRoles(text); err == nil {
			t.Errorf("parseRoles(%q) = %v, want an error", text, roles)
		}
	}
}

// Descriptions count, and say when a part is shut.
func TestDescribe(t *testing.T) {
	for _, x := range []struct {
		name string
		p    Permission
		want string
	}{
		{"nothing", Permission{}, "Allows nothing."},
		{"everything", Permission{Actions: []string{"*"}, NotActions: []string{"a/b"}}, "Allows every action, less 1."},
		{"reads", Permission{Actions: []string{"*/read"}}, "Allows every action that reads."},
		{"both planes", Permission{Actions: []string{"N/a/read"}, DataActions: []string{"M/b/read", "M/b/write"}},
			"Allows 1 action pattern in N, and 2 data action patterns in M."},
		{"a condition", Permission{Actions: []string{"N/a/read"}, Condition: "c"},
			"Allows 1 action pattern in N. 1 permission is under a condition, which is not evaluated: that part allows nothing."},
		{"many providers", Permission{Actions: []string{"A/1", "B/1", "C/1", "D/1", "D/2"}},
			"Allows 5 action patterns in D, A, B and 1 more provider."},
	} {
		if got := describe([]Permission{x.p}); got != x.want {
			t.Errorf("%s: %q, want %q", x.name, got, x.want)
		}
	}
}

// Every condition of a built-in role can be read: one that can't gives nothing.
func TestBuiltInConditionsAreRead(t *testing.T) {
	seen := 0
	for _, r := range BuiltIn() {
		for _, p := range r.Permissions {
			if p.Condition == "" {
				continue
			}
			seen++
			if p.ConditionVersion == "1.0" && r.Name == "Oracle Database DbSystems Administrator" {
				continue // a language that is gone; it speaks of what is not here
			}
			if _, err := condition.Parse(p.Condition, p.ConditionVersion); err != nil {
				t.Errorf("%s: %v", r.Name, err)
			}
		}
	}
	if seen == 0 {
		t.Error("no built-in role has a condition")
	}
}
