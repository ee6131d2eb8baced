package identity

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

var update = flag.Bool("update", false, "write testdata/directory-roles.txt anew")

// robot is an application with a principal and a token for the directory.
type robot struct{ app, client, id, token string }

func (w *world) robot(name string) robot {
	w.t.Helper()
	a := w.admin("POST", "applications", map[string]any{"displayName": name})
	r := robot{app: a.text("id"), client: a.text("appId")}
	r.id = w.admin("POST", "servicePrincipals", map[string]any{"appId": r.client}).text("id")
	secret := w.admin("POST", "applications/"+r.app+"/addPassword", map[string]any{}).text("secretText")
	in := w.form(w.tokenPath(), url.Values{"grant_type": {"client_credentials"}, "client_id": {r.client}, "client_secret": {secret}, "scope": {"https://" + w.site.GraphHost() + "/.default"}})
	if r.token = in.text("access_token"); r.token == "" {
		w.t.Fatalf("%s: %d %s", name, in.status, in.body)
	}
	return r
}

func roleID(t testing.TB, name string) string {
	t.Helper()
	for _, h := range book.roles {
		if h.name == name {
			return h.id
		}
	}
	t.Fatalf("there is no role %s", name)
	return ""
}

// give assigns a directory role and returns the assignment's id.
func (w *world) give(principal, role string) string {
	w.t.Helper()
	return w.admin("POST", "roleManagement/directory/roleAssignments", map[string]any{"principalId": principal, "roleDefinitionId": roleID(w.t, role), "directoryScopeId": "/"}).text("id")
}

// knownActions are all actions of the directory that the program names.
func knownActions(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`arm\.NewAction\("(microsoft\.directory/[^"]+)"`).FindAllSubmatch(b, -1) {
			out = append(out, string(m[1]))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// codeOfRole is a role's name in a narrow column: the first letters of its words.
func codeOfRole(name string) string {
	out := ""
	for _, w := range strings.Fields(name) {
		out += w[:2]
	}
	return strings.TrimSuffix(out, "Ad")
}

// Which directory role opens which door is written down in
// testdata/directory-roles.txt: a change of the roles, or a new door, is a line
// in the diff. The doors are knocked at, one after the other, by an application
// that is given one role after the other.
func TestDirectoryRolesAreAsWritten(t *testing.T) {
	w := newWorld(t)
	_, upn := w.user("ann")
	ann, bot := w.graphToken(upn), w.robot("bot")
	doors := w.s.Graph().Routes
	slices.SortFunc(doors, func(a, b gate.Route) int { return strings.Compare(a.Pattern+a.Method, b.Pattern+b.Method) })
	nobody := arm.NewUUID()
	opens := func(token string) (out []bool) {
		for _, rt := range doors {
			path := regexp.MustCompile(`\{[^}]*\}`).ReplaceAllString(strings.TrimPrefix(rt.Pattern, "/v1.0/"), nobody)
			r := w.graph(token, rt.Method, path, map[string]any{})
			if r.status == 401 || r.status >= 500 {
				t.Errorf("%s %s: %d %s", rt.Method, path, r.status, r.body)
			}
			out = append(out, r.status != 403)
		}
		return out
	}
	columns := [][]bool{opens(ann), opens(bot.token)}
	heads := []string{"person", "application"}
	legend := []string{"person       a person without a role", "application  an application without a role", "readers      person and every role but ReRe"}
	for _, h := range book.roles {
		id := w.give(bot.id, h.name)
		columns, heads = append(columns, opens(bot.token)), append(heads, codeOfRole(h.name))
		legend = append(legend, fmt.Sprintf("%-12s %s", codeOfRole(h.name), h.name))
		w.admin("DELETE", "roleManagement/directory/roleAssignments/"+id, nil)
	}
	if after := opens(bot.token); !slices.Equal(after, columns[1]) {
		t.Error("a role that was taken away still opens doors")
	}
	var text strings.Builder
	text.WriteString("# Who may do what to the directory. Written by: go test ./internal/identity -run DirectoryRoles -update\n\n")
	text.WriteString(strings.Join(legend, "\n") + "\n\n# Doors of Graph; people and applications without a role also do what is their own.\n\n")
	readers := []string{"person"}
	for _, h := range book.roles {
		if h.name != "Reports Reader" {
			readers = append(readers, codeOfRole(h.name))
		}
	}
	open := map[string][]int{}
	for i, rt := range doors {
		var who []string
		for c := range columns {
			if columns[c][i] {
				who = append(who, heads[c])
			}
		}
		if slices.Equal(who, readers) {
			who = []string{"readers"}
		}
		open[rt.Action.Key()] = append(open[rt.Action.Key()], i)
		fmt.Fprintf(&text, "%-6s %s\n       %s: %s\n", rt.Method, strings.TrimPrefix(rt.Pattern, "/v1.0/"), strings.TrimPrefix(rt.Action.Name(), "microsoft.directory/"), strings.Join(who, " "))
	}
	text.WriteString("\n# Actions that a door asks for besides its own.\n\n")
	actions := knownActions(t)
	for _, a := range actions {
		if len(open[strings.ToLower(a)]) > 0 {
			continue
		}
		var who []string
		for _, h := range book.roles {
			if ok, _ := book.decide(standing{roles: []string{h.id}}, strings.ToLower(a)); ok {
				who = append(who, codeOfRole(h.name))
			}
		}
		fmt.Fprintf(&text, "%s: %s\n", strings.TrimPrefix(a, "microsoft.directory/"), strings.Join(who, " "))
	}
	text.WriteString("\n# Application permissions, and owners of an object.\n\n")
	for _, h := range others() {
		var may []string
		for _, a := range actions {
			if h.allows(strings.ToLower(a)) {
				may = append(may, strings.TrimPrefix(a, "microsoft.directory/"))
			}
		}
		fmt.Fprintf(&text, "%s %s: %s\n", h.kind, h.name, strings.Join(may, " "))
	}
	const file = "testdata/directory-roles.txt"
	if *update {
		if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if text.String() != string(want) {
		t.Errorf("the directory's roles are not those of %s; read the difference, then run with -update", file)
		got := strings.Split(text.String(), "\n")
		for i, line := range strings.Split(string(want), "\n") {
			if i < len(got) && got[i] != line {
				t.Fatalf("line %d is    %s\nand stood %s", i+1, got[i], line)
			}
		}
	}
}

func others() (out []*holder) {
	for _, m := range []map[string]*holder{book.owners, book.rights} {
		for _, h := range m {
			out = append(out, h)
		}
	}
	slices.SortFunc(out, func(a, b *holder) int { return strings.Compare(a.kind+a.name, b.kind+b.name) })
	return out
}

// What a table of roles can be wrong in is found when it is read.
func TestRoleTableIsRead(t *testing.T) {
	for name, text := range map[string]string{
		"no block":        "+ microsoft.directory/*\n",
		"no id":           "role Nobody\n",
		"an unknown mark": "people\n? x\n",
		"an unknown role": "people\n> Nobody\n",
		"no ids":          "right User.Read.All\n",
		"no scope's id":   "right " + globalAdministrator + " x User.Read.All\n",
		"a right twice":   "right " + globalAdministrator + " - A\n\nright " + globalAdministrator + " - A\n",
		"a role twice":    "role " + globalAdministrator + " A\n\nrole " + globalAdministrator + " B\n",
	} {
		if _, err := readBook(text); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"a/*", "a/b/c", true}, {"a/*/read", "a/b/read", true}, {"a/*/read", "a/read", false}, {"*", "", true},
		{"a/b", "a/b/c", false}, {"a/*/b/*", "a/x/b/y", true}, {"a/*/b/*", "a/b/y", false}, {"a*a", "a", false},
	} {
		if fits(c.pattern, c.text) != c.want {
			t.Errorf("%s fits %s: %v", c.text, c.pattern, !c.want)
		}
	}
	if ok, _ := mustBook("").decide(standing{person: true, owner: true, class: "users", roles: []string{globalAdministrator}}, readSelf.Key()); ok {
		t.Error("an empty table allows something")
	}
}

// Nobody becomes an administrator by way of another's password, a group or an
// application: who may change people, groups and applications in general may
// not change those that administer.
func TestAdministratorsAreProtected(t *testing.T) {
	w := newWorld(t)
	bot, target := w.robot("bot"), w.robot("target")
	plain, _ := w.user("plain")
	boss, _ := w.user("boss")
	w.give(boss, "Groups Administrator")
	reports, _ := w.user("reports")
	w.give(reports, "Reports Reader")
	group := func(name string, assignable bool) string {
		return w.admin("POST", "groups", map[string]any{"displayName": name, "mailNickname": name, "mailEnabled": false, "securityEnabled": true, "isAssignableToRole": assignable}).text("id")
	}
	roles, usual := group("roles", true), group("usual", false)
	member, _ := w.user("member")
	owner, _ := w.user("owner")
	ref := func(id string) map[string]any {
		return map[string]any{"@odata.id": "https://graph.microsoft.com/v1.0/directoryObjects/" + id}
	}
	w.admin("POST", "groups/"+roles+"/members/$ref", ref(member))
	w.admin("POST", "groups/"+roles+"/owners/$ref", ref(owner))
	w.give(target.id, "Reports Reader")
	adminApp := w.admin("GET", "applications?$filter="+url.QueryEscape("appId eq '"+w.first.ClientID+"'"), nil).json["value"].([]any)[0].(map[string]any)["id"].(string)

	password := map[string]any{"passwordProfile": map[string]any{"password": "another good battery"}}
	name, off := map[string]any{"displayName": "n"}, map[string]any{"accountEnabled": false}
	for _, c := range []struct {
		role, method, path string
		body               map[string]any
		may                bool
	}{
		{"Helpdesk Administrator", "PATCH", "users/" + plain, password, true},
		{"Helpdesk Administrator", "PATCH", "users/" + reports, password, true},
		{"Helpdesk Administrator", "PATCH", "users/" + plain, name, false},
		{"Helpdesk Administrator", "PATCH", "users/" + plain, off, false},
		{"Helpdesk Administrator", "PATCH", "users/" + w.first.UserObject, password, false},
		{"Helpdesk Administrator", "PATCH", "users/" + w.first.UserName, password, false},
		{"Helpdesk Administrator", "PATCH", "users/" + strings.ToUpper(w.first.UserName), password, false},
		{"Helpdesk Administrator", "PATCH", "users/" + boss, password, false},
		{"Helpdesk Administrator", "PATCH", "users/" + member, password, false},
		{"Helpdesk Administrator", "PATCH", "users/" + owner, password, false},
		{"Authentication Administrator", "PATCH", "users/" + boss, password, false},
		{"User Administrator", "PATCH", "users/" + plain, name, true},
		{"User Administrator", "PATCH", "users/" + boss, off, false},
		{"User Administrator", "PATCH", "users/" + boss, name, false},
		{"User Administrator", "DELETE", "users/" + boss, nil, false},
		{"User Administrator", "POST", "users/" + boss + "/revokeSignInSessions", nil, false},
		{"User Administrator", "POST", "groups/" + usual + "/members/$ref", ref(plain), true},
		{"User Administrator", "POST", "groups/" + roles + "/members/$ref", ref(plain), false},
		{"Groups Administrator", "POST", "groups/" + roles + "/members/$ref", ref(bot.id), false},
		{"Groups Administrator", "POST", "groups/" + roles + "/owners/$ref", ref(bot.id), false},
		{"Groups Administrator", "PATCH", "groups/" + roles, map[string]any{"members@odata.bind": []string{"https://graph.microsoft.com/v1.0/directoryObjects/" + bot.id}}, false},
		{"Groups Administrator", "DELETE", "groups/" + roles, nil, false},
		{"Groups Administrator", "POST", "groups", map[string]any{"displayName": "x", "mailNickname": "x", "mailEnabled": false, "securityEnabled": true, "isAssignableToRole": true}, false},
		{"Application Administrator", "POST", "applications/" + target.app + "/addPassword", map[string]any{}, true},
		{"Application Administrator", "POST", "applications/" + adminApp + "/addPassword", map[string]any{}, false},
		{"Application Administrator", "POST", "servicePrincipals/" + w.first.ClientObject + "/addPassword", map[string]any{}, false},
		{"Application Administrator", "POST", "applications/" + adminApp + "/owners/$ref", ref(bot.id), false},
		{"Application Administrator", "PATCH", "applications/" + adminApp, map[string]any{"keyCredentials": []any{}}, false},
		{"Application Administrator", "PATCH", "servicePrincipals/" + w.first.ClientObject, off, false},
		{"Cloud Application Administrator", "DELETE", "servicePrincipals/" + w.first.ClientObject, nil, false},
		{"Application Administrator", "POST", "roleManagement/directory/roleAssignments", map[string]any{"principalId": bot.id, "roleDefinitionId": globalAdministrator, "directoryScopeId": "/"}, false},
		{"Privileged Authentication Administrator", "PATCH", "users/" + boss, password, true},
		{"Privileged Authentication Administrator", "POST", "applications/" + adminApp + "/addPassword", map[string]any{}, false},
		{"Privileged Authentication Administrator", "POST", "groups/" + roles + "/members/$ref", ref(bot.id), false},
		{"Privileged Role Administrator", "PATCH", "users/" + boss, password, false},
		{"Privileged Role Administrator", "POST", "groups/" + roles + "/members/$ref", ref(plain), true},
	} {
		id := w.give(bot.id, c.role)
		r := w.graph(bot.token, c.method, c.path, c.body)
		if c.may && r.status >= 300 || !c.may && (r.status != 403 || r.code() != "Authorization_RequestDenied") {
			t.Errorf("a %s: %s %s %v: %d %s", c.role, c.method, c.path, c.body, r.status, r.body)
		}
		w.admin("DELETE", "roleManagement/directory/roleAssignments/"+id, nil)
	}
}

// A group that roles can be given to gives them to those that are in it, for as
// long as they are; no other group does, and none may be nested in it.
func TestRolesByGroup(t *testing.T) {
	w := newWorld(t)
	bot := w.robot("bot")
	group := func(name string, assignable bool) string {
		return w.admin("POST", "groups", map[string]any{"displayName": name, "mailNickname": name, "mailEnabled": false, "securityEnabled": true, "isAssignableToRole": assignable}).text("id")
	}
	roles, usual := group("roles", true), group("usual", false)
	graph := w.appToken("https://" + w.site.GraphHost())
	assign := func(principal string) reply {
		return w.graph(graph, "POST", "roleManagement/directory/roleAssignments", map[string]any{"principalId": principal, "roleDefinitionId": roleID(t, "Global Reader"), "directoryScopeId": "/"})
	}
	if r := assign(usual); r.status != 400 {
		t.Errorf("a role for a usual group: %d %s", r.status, r.body)
	}
	if r := assign(arm.NewUUID()); r.status != 400 {
		t.Errorf("a role for nobody: %d %s", r.status, r.body)
	}
	if r := w.graph(graph, "PATCH", "groups/"+usual, map[string]any{"isAssignableToRole": true}); r.status != 400 {
		t.Errorf("a usual group becomes one: %d %s", r.status, r.body)
	}
	if r := w.graph(graph, "POST", "groups/"+roles+"/members/$ref", map[string]any{"@odata.id": "https://graph.microsoft.com/v1.0/groups/" + usual}); r.status != 400 {
		t.Errorf("a usual group in it: %d %s", r.status, r.body)
	}
	if r := assign(roles); r.status != 201 {
		t.Fatalf("a role for the group: %d %s", r.status, r.body)
	}
	if r := assign(roles); r.status != 400 {
		t.Errorf("twice: %d %s", r.status, r.body)
	}
	reads := func() bool { return w.graph(bot.token, "GET", "users", nil).status == 200 }
	if reads() {
		t.Error("it reads before it is in the group")
	}
	w.admin("POST", "groups/"+roles+"/members/$ref", map[string]any{"@odata.id": "https://graph.microsoft.com/v1.0/directoryObjects/" + bot.id})
	if !reads() {
		t.Error("in the group it does not read")
	}
	if r := w.admin("GET", "directoryRoles(roleTemplateId='"+roleID(t, "Global Reader")+"')", nil); r.text("displayName") != "Global Reader" {
		t.Errorf("%s", r.body)
	}
	if r := w.admin("GET", "directoryRoles/"+roleID(t, "Global Reader")+"/members", nil); !strings.Contains(string(r.body), roles) {
		t.Errorf("members of the role: %s", r.body)
	}
	again, err := New(w.s.Config)
	if err != nil {
		t.Fatal(err)
	}
	if got := again.directoryRoles(bot.id); !slices.Equal(got, []string{roleID(t, "Global Reader")}) {
		t.Errorf("after a restart: %v", got)
	}
	w.admin("DELETE", "groups/"+roles+"/members/"+bot.id+"/$ref", nil)
	if reads() {
		t.Error("out of the group it still reads")
	}
}

// Who registers an application with no right to change all of them owns it, and
// can go on with it; who owns nothing can't.
func TestOwners(t *testing.T) {
	w := newWorld(t)
	bot, other := w.robot("bot"), w.robot("other")
	w.give(bot.id, "Application Developer")
	app := w.graph(bot.token, "POST", "applications", map[string]any{"displayName": "mine"})
	if app.status != 201 {
		t.Fatalf("%d %s", app.status, app.body)
	}
	id := app.text("id")
	owners := w.admin("GET", "applications/"+id+"/owners", nil)
	if !strings.Contains(string(owners.body), bot.id) {
		t.Errorf("owners: %s", owners.body)
	}
	if r := w.graph(bot.token, "POST", "applications/"+id+"/addPassword", map[string]any{}); r.status != 200 {
		t.Errorf("the owner's secret: %d %s", r.status, r.body)
	}
	if r := w.graph(bot.token, "POST", "applications/"+other.app+"/addPassword", map[string]any{}); r.status != 403 {
		t.Errorf("a secret for another's application: %d %s", r.status, r.body)
	}
	if r := w.graph(other.token, "POST", "applications/"+id+"/addPassword", map[string]any{}); r.status != 403 {
		t.Errorf("another's secret: %d %s", r.status, r.body)
	}
	sp := w.graph(bot.token, "POST", "servicePrincipals", map[string]any{"appId": app.text("appId")})
	if sp.status != 201 {
		t.Fatalf("%d %s", sp.status, sp.body)
	}
	w.give(sp.text("id"), "Global Administrator")
	if r := w.graph(bot.token, "POST", "applications/"+id+"/addPassword", map[string]any{}); r.status != 403 {
		t.Errorf("the owner's secret once it administers: %d %s", r.status, r.body)
	}
	group := w.admin("POST", "groups", map[string]any{"displayName": "g", "mailNickname": "g", "mailEnabled": false, "securityEnabled": true, "owners@odata.bind": []string{"https://graph.microsoft.com/v1.0/directoryObjects/" + other.id}}).text("id")
	join := map[string]any{"@odata.id": "https://graph.microsoft.com/v1.0/directoryObjects/" + other.id}
	if r := w.graph(bot.token, "POST", "groups/"+group+"/members/$ref", join); r.status != 403 {
		t.Errorf("a stranger adds a member: %d %s", r.status, r.body)
	}
	if r := w.graph(other.token, "POST", "groups/"+group+"/members/$ref", join); r.status != 204 {
		t.Errorf("the owner adds a member: %d %s", r.status, r.body)
	}
	graph := w.appToken("https://" + w.site.GraphHost())
	if r := w.graph(graph, "DELETE", "groups/"+group+"/owners/"+other.id+"/$ref", nil); r.status != 400 {
		t.Errorf("a group's last owner goes: %d %s", r.status, r.body)
	}
	w.admin("DELETE", "servicePrincipals/"+other.id, nil)
	if got := w.s.index.ownersOf(group); len(got) != 0 {
		t.Errorf("who is gone still owns: %v", got)
	}
}

// A role that was given for a time ends by itself, and counts for nothing where
// the last administrator is looked for.
func TestRolesEnd(t *testing.T) {
	w := newWorld(t)
	bot := w.robot("bot")
	r := RoleAssignment{Tenant: w.first.Tenant, Principal: bot.id, Role: globalAdministrator, Created: w.now(), Until: w.now().Add(10 * time.Minute)}
	if err := w.db.Do(context.Background(), func(tx *store.Tx) error { return w.s.empower(tx, r) }); err != nil {
		t.Fatal(err)
	}
	last := func(principal string) reply {
		return w.graph(bot.token, "DELETE", "directoryRoles/"+globalAdministrator+"/members/"+principal+"/$ref", nil)
	}
	if r := last(w.first.UserObject); r.status != 204 {
		t.Errorf("one of two goes: %d %s", r.status, r.body)
	}
	if r := last(w.first.ClientObject); r.status != 400 {
		t.Errorf("the last without end goes: %d %s", r.status, r.body)
	}
	w.pass(10 * time.Minute)
	if r := w.graph(bot.token, "GET", "users", nil); r.status != 403 {
		t.Errorf("after its time: %d %s", r.status, r.body)
	}
	if err := w.db.Do(context.Background(), func(tx *store.Tx) error { return w.s.sweep(tx, w.now()) }); err != nil {
		t.Fatal(err)
	}
	if n := len(find(w.s.index, func(x *index) map[string]*RoleAssignment { return x.roles[bot.id] })); n != 0 {
		t.Errorf("%d roles are still remembered", n)
	}
}

// Who was an administrator when there was but one role, is one still.
func TestFirstRoleIsCarriedOver(t *testing.T) {
	w := newWorld(t)
	bot := w.robot("bot")
	if err := w.db.Do(context.Background(), func(tx *store.Tx) error { return tx.Put(oldRoleTable, w.first.Tenant+"|"+bot.id, nil) }); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		again, err := New(w.s.Config)
		if err != nil {
			t.Fatal(err)
		}
		if got := again.directoryRoles(bot.id); !slices.Equal(got, []string{globalAdministrator}) {
			t.Errorf("roles %v", got)
		}
	}
}
