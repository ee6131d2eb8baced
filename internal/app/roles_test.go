package app

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/rbac"
)

// says reads a role's own definition, by a reading of patterns that shares
// nothing with the engine's: a star is any text, and "/*/" may be a slash alone.
func says(r rbac.Role, a arm.Action) bool {
	covers := func(pattern string) bool {
		p := regexp.QuoteMeta(strings.ToLower(pattern))
		p = strings.ReplaceAll(p, `/\*/`, `/(.*/)?`)
		return regexpOf("^" + strings.ReplaceAll(p, `\*`, `.*`) + "$").MatchString(a.Key())
	}
	given, taken := false, false
	for _, p := range r.Permissions {
		yes, no := p.Actions, p.NotActions
		if a.Data() {
			yes, no = p.DataActions, p.NotDataActions
		}
		given = given || p.Condition == "" && slices.ContainsFunc(yes, covers)
		taken = taken || slices.ContainsFunc(no, covers)
	}
	return given && !taken
}

var compiledOnce = map[string]*regexp.Regexp{}

func regexpOf(text string) *regexp.Regexp {
	if compiledOnce[text] == nil {
		compiledOnce[text] = regexp.MustCompile(text)
	}
	return compiledOnce[text]
}

// doors that no role opens: to approvals, by being an approver; to everything, by
// being Global Administrator.
var noRoles = map[string]bool{
	"microsoft.authorization/roleassignmentapprovals/read": true, "microsoft.authorization/roleassignmentapprovals/stages/write": true,
	"microsoft.authorization/elevateaccess/action": true,
}

// Every action of every door, every built-in role, every kind of scope: whoever
// has the role alone is let in exactly where its definition says so, at the scope
// and below it, and nowhere above or beside it.
func TestDoorsAreAsWrittenByRole(t *testing.T) {
	a := newApp(t)
	sub := arm.MustID("/subscriptions/" + a.Site.Subscription)
	group := arm.MustID(sub.String() + "/resourceGroups/rg")
	scopes := []arm.ID{sub, group}
	beside := []arm.ID{arm.MustID("/subscriptions/00000000-0000-0000-0000-000000000001"), arm.MustID(group.String() + "2")}
	opens := map[string]map[string]bool{} // roles to what they open
	asked, yes := 0, 0
	for _, role := range rbac.BuiltIn() {
		var acts []arm.Action
		opens[role.Name] = map[string]bool{}
		for _, act := range a.actions() {
			if strings.HasPrefix(act.Key(), "microsoft.directory/") || conditional(role, act) {
				continue
			}
			acts = append(acts, act)
			if says(role, act) && !noRoles[act.Key()] {
				opens[role.Name][label(act)] = true
				yes++
			}
		}
		for i, scope := range scopes {
			who := arm.Caller{Tenant: a.Site.Tenant, Object: fmt.Sprint(role.ID, i), Kind: arm.ServicePrincipal, Token: "access"}
			err := a.engine.PutAssignment(rbac.Assignment{ID: who.Object, Scope: scope, RoleID: role.ID, Principal: who.Object, PrincipalType: who.Kind})
			if err != nil {
				t.Fatal(err)
			}
			for _, act := range acts {
				want := opens[role.Name][label(act)]
				for j, on := range append(slices.Clone(scopes), beside[i]) {
					asked++
					if got, reason := a.decide(who, act, gate.Target{ID: on}); got != (want && j >= i && j < len(scopes)) {
						t.Fatalf("%s at %s: %s on %s is %v (%s), but the role says %v", role.Name, scope, act.Name(), on, got, reason, want)
					}
				}
			}
			a.engine.RemoveAssignment(who.Object)
		}
	}
	t.Logf("%d questions, %d actions of roles", asked, yes)
	if asked < 500_000 || yes < 5_000 {
		t.Errorf("only %d questions were asked, and %d said yes", asked, yes)
	}
	holdGolden(t, "testdata/roles.txt", rolesText(opens))
}

// label tells a data action from another action of its name.
func label(a arm.Action) string {
	if a.Data() {
		return a.Name() + "(data)"
	}
	return a.Name()
}

// conditional reports whether a part of the role under a condition gives the
// action: that is for the tests of conditions.
func conditional(r rbac.Role, a arm.Action) bool { return r.May(a) && !r.Allows(a) }

// general are namespaces in which nearly every role has something.
var general = regexp.MustCompile(`(?i)^Microsoft\.(Authorization|Resources|Management|Insights|Support)/`)

// rolesText says of each role that means something here what it opens: types of
// things, each with what may be done. Roles that open the same stand together.
func rolesText(opens map[string]map[string]bool) string {
	alike := map[string][]string{}
	for role, actions := range opens {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(actions)), func(n string) bool { return !general.MatchString(n) }) {
			continue
		}
		verbs := map[string][]string{}
		for _, n := range slices.Sorted(maps.Keys(actions)) {
			typ, verb := n[:strings.LastIndexByte(n, '/')], n[strings.LastIndexByte(n, '/')+1:]
			if at := strings.LastIndexByte(typ, '/'); strings.HasPrefix(verb, "action") && at > 0 {
				typ, verb = typ[:at], typ[at+1:]+"/"+verb
			}
			if verb != "read" || !general.MatchString(n) {
				verbs[typ] = append(verbs[typ], verb)
			}
		}
		var b strings.Builder
		for _, typ := range slices.Sorted(maps.Keys(verbs)) {
			fmt.Fprintf(&b, "  %s: %s\n", typ, strings.Join(verbs[typ], " "))
		}
		alike[b.String()] = append(alike[b.String()], role)
	}
	var blocks []string
	for text, roles := range alike {
		slices.Sort(roles)
		blocks = append(blocks, strings.Join(roles, "\n")+"\n"+text)
	}
	slices.Sort(blocks)
	return "# The built-in roles that mean something here, and what of the platform's actions\n# each of them opens (but for reading what nearly all may read). Written by: go test ./internal/app -run DoorsAreAsWritten -update\n\n" + strings.Join(blocks, "\n")
}

// holdGolden holds text against a file, which -update writes.
func holdGolden(t *testing.T, file, text string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("%s is not what is so; read the difference, then run with -update\n%s", file, firstDifference(text, string(want)))
	}
}
