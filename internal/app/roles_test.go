package app

import (
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/identity"
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

var compiledOnce sync.Map // text to *regexp.Regexp

func regexpOf(text string) *regexp.Regexp {
	re, ok := compiledOnce.Load(text)
	if !ok {
		re, _ = compiledOnce.LoadOrStore(text, regexp.MustCompile(text))
	}
	return re.(*regexp.Regexp)
}

// doors that no role opens: to approvals, by being an approver; to everything, by
// being Global Administrator.
var noRoles = map[string]bool{
	"microsoft.authorization/roleassignmentapprovals/read": true, "microsoft.authorization/roleassignmentapprovals/stages/write": true,
	"microsoft.authorization/elevateaccess/action": true,
}

// question is what a door asks the roles.
type question struct {
	plane  string
	route  gate.Route
	action arm.Action
	on     gate.Target
	own    bool // whose answer hangs on requests in the store, too
}

// ownRequests are the actions that people do to what they asked for themselves.
var ownRequests = regexp.MustCompile("/role(assignment|eligibility)schedule|/roleassignmentapprovals/|/eligiblechildresources/")

// questions are what every guarded door outside of the directory asks about the
// realm, heard by knocking at each.
func (x *realm) questions(t *testing.T, a *App) (out []question) {
	t.Helper()
	for _, p := range a.Planes {
		for _, rt := range p.Routes {
			if rt.Action.IsZero() || strings.HasPrefix(rt.Action.Key(), "microsoft.directory/") {
				continue
			}
			q := question{plane: p.Name, route: rt}
			listen := gate.New(func(_ arm.Caller, act arm.Action, on gate.Target) (bool, string) {
				if q.on.ID.IsZero() { // lists ask about their rows besides
					q.action, q.on = act, on
				}
				return false, "only listening"
			}, a.Audit)
			face := &gate.Plane{Name: p.Name, Fold: p.Fold, Refuse: p.Refuse, Who: func(*http.Request) (arm.Caller, error) {
				return arm.Caller{Tenant: x.tenant, Object: "a listener"}, nil
			}}
			r, w := x.knocking(t, a, q), httptest.NewRecorder()
			found, v, _, err := p.Find(r)
			if err != nil || found.Method != rt.Method || found.Pattern != rt.Pattern {
				t.Errorf("%s %s leads to the door %s, not to %s: %v", rt.Method, r.URL, found.Pattern, rt.Pattern, err)
				continue
			}
			if listen.Serve(face, found, v, w, r); !q.action.Is(rt.Action) {
				t.Errorf("%s %s asks for %q, not for %s: %s", rt.Method, r.URL, q.action.Name(), rt.Action.Name(), w.Body)
			}
			q.own = ownRequests.MatchString(q.action.Key())
			out = append(out, q)
		}
	}
	return out
}

// knocking is a request at the question's door about what the realm has.
func (x *realm) knocking(t *testing.T, a *App, q question) *http.Request {
	path := x.path(q.route.Pattern)
	if q.plane == "ml" {
		path += "?run_id=x&path=runs/x/x"
	}
	r := knocking(q.route.Method, x.host(a, q.plane, hostOf(t, a, a.plane(q.plane))), path)
	if strings.HasSuffix(path, "model-versions/create?run_id=x&path=runs/x/x") {
		r.Body = io.NopCloser(strings.NewReader(`{"name":"x","source":"runs:/x/x","run_id":"x"}`))
	}
	return r
}

// plane is the plane of this name.
func (a *App) plane(name string) *gate.Plane {
	return a.Planes[slices.IndexFunc(a.Planes, func(p *gate.Plane) bool { return p.Name == name })]
}

// resourceOf is the resource in a group that id is or belongs to.
func resourceOf(id arm.ID) (arm.ID, bool) {
	s := strings.Split(id.Key(), "/")
	if len(s) < 9 || s[3] != "resourcegroups" {
		return arm.ID{}, false
	}
	return arm.MustID(strings.Join(s[:9], "/")), true
}

// anyHolds reports whether id is one of the scopes or lies in one, by their text.
func anyHolds(scopes []arm.ID, id arm.ID) bool {
	return slices.ContainsFunc(scopes, func(s arm.ID) bool { return strings.HasPrefix(id.Key()+"/", s.Key()+"/") })
}

// identities are one of each kind whom roles are given to, and the id by which
// they are given: a person, one whose group's group has the roles, an
// application, and a managed identity.
type identities struct {
	names   []string
	given   []string // object ids
	types   []arm.Kind
	callers []arm.Caller
	tokens  []map[string]string // by plane
}

func newIdentities(t *testing.T, a *App, l *lab, s *served) *identities {
	t.Helper()
	ids := &identities{}
	planes := []string{"arm", "vault", "blob", "dfs"}
	var audiences []string
	for _, p := range planes {
		audiences = append(audiences, a.audiences()[audiencesOf(p)[0]])
	}
	add := func(name, given string, typ arm.Kind, object string, token func(audience string) string) {
		c, err := a.identity.Known(a.Site.Tenant, object)
		if err != nil {
			t.Fatal(err)
		}
		ids.names, ids.given, ids.types, ids.callers = append(ids.names, name), append(ids.given, given), append(ids.types, typ), append(ids.callers, c)
		by := map[string]string{}
		for i, audience := range audiences {
			by[planes[i]] = token(audience)
		}
		ids.tokens = append(ids.tokens, by)
	}
	human := func(name string) (string, func(string) string) {
		id, who := l.newHuman(t, s, name)
		tokens := l.signedIn(t, s, who, audiences...)
		return id, func(audience string) string { return tokens[slices.Index(audiences, audience)] }
	}
	graph := s.ready.Graph + "/v1.0/"
	group := func(name, member string) string {
		var g struct{ ID string }
		l.must(t, &g, l.graph, http.MethodPost, graph+"groups", map[string]any{"displayName": name, "mailNickname": name, "mailEnabled": false, "securityEnabled": true})
		l.must(t, nil, l.graph, http.MethodPost, graph+"groups/"+g.ID+"/members/$ref", map[string]any{"@odata.id": graph + "directoryObjects/" + member})
		return g.ID
	}
	user, token := human("matrix")
	add("a person", user, arm.User, user, token)
	member, token := human("member")
	outer := group("outer", group("inner", member))
	add("a member of a group's group", outer, arm.Group, member, token)
	app := a.newPerson(t, "matrix")
	add("an application", app.object, arm.ServicePrincipal, app.object, func(audience string) string { return tokenFor(t, a, app.id, app.secret, audience) })
	mi := arm.MustID(l.group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/matrix")
	l.put(t, mi.String(), map[string]any{"location": l.location})
	var made struct{ Properties struct{ PrincipalID string } }
	l.must(t, &made, l.arm, http.MethodGet, l.url(mi.String()), nil)
	principal := made.Properties.PrincipalID
	mint := a.system(a.Site.Tenant, "test", &arm.Lease{Scope: mi, Actions: []arm.Action{identity.MintManaged}, Why: "a test"})
	add("a managed identity", principal, arm.ServicePrincipal, principal, func(audience string) string {
		token, _, _, err := mlTokens{a}.Managed(t.Context(), mint, mi, audience, "")
		if err != nil {
			t.Fatal(err)
		}
		return string(token.Reveal())
	})
	return ids
}

// Every door, every built-in role, each kind of identity, each kind of scope:
// whoever has the role alone is let in exactly where its definition says so, at
// the scope and below it, and nowhere above or beside it (RBAC-01, section 2.4).
// What doors ask comes from the doors, who asks from the directory, and what is
// right from the definition, read by a few lines that share nothing with the
// engine. A part of it, chosen by chance, is asked through the edge.
func TestDoorsAreAsWrittenByRole(t *testing.T) {
	t.Parallel()
	a, s := serveHere(t)
	l := newLab(t, s)
	ids := newIdentities(t, a, l, s)
	x := &realm{tenant: a.Site.Tenant, sub: l.sub, user: ids.given[0], account: l.account, vault: "lab-vault", scope: l.workspace[1:]}
	qs := x.questions(t, a)
	m := &matrix{T: t, a: a, opens: map[string]map[string]bool{}, whole: os.Getenv("CASTELLAN_MATRIX") != ""}
	m.scopes = [4][]arm.ID{{arm.MustID("/subscriptions/" + l.sub)}, {arm.MustID(l.group)}, nil, {arm.MustID("/subscriptions/00000000-0000-0000-0000-000000000001"), arm.MustID(l.group + "2")}}
	seen := map[string]bool{}
	for _, q := range qs {
		if r, ok := resourceOf(q.on.ID); ok && !anyHolds(m.scopes[2], r) {
			m.scopes[2], m.scopes[3] = append(m.scopes[2], r), append(m.scopes[3], arm.MustID(r.String()+"2"))
		}
		if k := label(q.action) + " " + q.on.ID.Key(); !seen[k] { // doors that ask the same
			seen[k] = true
			m.asked = append(m.asked, q)
		}
	}
	for j := range m.within {
		for _, q := range m.asked {
			m.within[j] = append(m.within[j], anyHolds(m.scopes[j], q.on.ID))
		}
	}
	for i, role := range rbac.BuiltIn() {
		m.learn(role)
		if raced && i%8 > 0 {
			continue // all of them are walked without the detector
		}
		for k := range ids.names {
			for j := range 3 {
				if m.whole || (i+j)%len(ids.names) == k { // each role at each scope, the identities in turn
					m.walk(role, j, ids, k)
				}
			}
		}
		m.walk(role, 3, ids, i%len(ids.names))
		if raced || i%5 == 0 {
			m.throughTheEdge(x, l, role, ids, i/5)
		}
	}
	t.Logf("%d doors ask %d questions; %d answers, %d of them yes, %d through the edge; %d actions of roles", len(qs), len(m.asked), m.answers, m.yes, m.edge, m.given)
	if !raced && (len(qs) < 500 || m.answers < 1_000_000 || m.yes < 40_000 || m.edge < 200) {
		t.Error("that is too little to be all")
	}
	holdGolden(t, "testdata/roles.txt", rolesText(m.opens))
}

// matrix is the walk.
type matrix struct {
	*testing.T
	a      *App
	asked  []question
	scopes [4][]arm.ID                // the subscription, the group, the resources; what lies beside
	within [4][]bool                  // of each question: that it lies there
	opens  map[string]map[string]bool // roles' names to what they open

	says, skip                []bool // of each question: that the role of now opens it; that a condition decides
	turn                      int    // how many roles were learnt
	whole                     bool   // nothing is left to chance
	answers, yes, given, edge int
}

// learn reads the role's definition.
func (m *matrix) learn(role rbac.Role) {
	opens, skip := map[string]bool{}, map[string]bool{}
	for _, act := range m.a.actions() {
		switch {
		case strings.HasPrefix(act.Key(), "microsoft.directory/"):
		case conditional(role, act):
			skip[label(act)] = true
		case says(role, act) && !noRoles[act.Key()]:
			opens[label(act)] = true
		}
	}
	m.turn++
	m.opens[role.Name], m.given = opens, m.given+len(opens)
	m.says, m.skip = make([]bool, len(m.asked)), make([]bool, len(m.asked))
	for i, q := range m.asked {
		m.says[i], m.skip[i] = opens[label(q.action)], skip[label(q.action)]
	}
}

// walk gives the role at scopes j to identity k, and asks what every door would.
func (m *matrix) walk(role rbac.Role, j int, ids *identities, k int) {
	for i, s := range m.scopes[j] {
		err := m.a.engine.PutAssignment(rbac.Assignment{ID: fmt.Sprint("matrix", i), Scope: s, RoleID: role.ID, Principal: ids.given[k], PrincipalType: ids.types[k]})
		if err != nil {
			m.Fatal(err)
		}
	}
	for i, q := range m.asked {
		if m.skip[i] || q.own && m.turn%4 > 0 && !m.whole { // the store is slow
			continue
		}
		got, reason := m.a.gate.Judge(ids.callers[k], q.action, q.on)
		if want := m.says[i] && m.within[j][i]; got != want {
			m.Fatalf("%s as %s at %v: %s of %s is %v (%s), but the role says %v", ids.names[k], role.Name, m.scopes[j], q.action.Name(), q.on.ID, got, reason, want)
		}
		m.answers++
		if got {
			m.yes++
		}
	}
	for i := range m.scopes[j] {
		m.a.engine.RemoveAssignment(fmt.Sprint("matrix", i))
	}
}

// throughTheEdge gives the role by its own door, and knocks at one door that it
// opens, if it opens any, and at one that it does not.
func (m *matrix) throughTheEdge(x *realm, l *lab, role rbac.Role, ids *identities, n int) {
	r := rand.New(rand.NewPCG(24, uint64(n)))
	there := []arm.ID{m.scopes[0][0], m.scopes[1][0], arm.MustID(l.workspace), arm.MustID(l.group + "/providers/Microsoft.Storage/storageAccounts/" + l.account), arm.MustID(l.group + "/providers/Microsoft.KeyVault/vaults/lab-vault")}
	k, scope := n%len(ids.names), there[n%len(there)]
	at := scope.String() + "/providers/Microsoft.Authorization/roleAssignments/" + arm.NewUUID()
	l.must(m.T, nil, l.arm, http.MethodPut, l.url(at), map[string]any{"properties": map[string]any{
		"roleDefinitionId": "/providers/Microsoft.Authorization/roleDefinitions/" + role.ID, "principalId": ids.given[k], "principalType": ids.types[k],
	}})
	asked := map[bool]bool{}
	for _, i := range r.Perm(len(m.asked)) {
		q := m.asked[i]
		want := m.says[i] && anyHolds([]arm.ID{scope}, q.on.ID)
		if asked[want] || m.skip[i] || q.route.Filtered() || want && (q.route.Method == http.MethodDelete || strings.HasSuffix(q.action.Name(), "/keys/release/action")) { // which is forbidden to all
			continue
		}
		asked[want] = true
		m.edge++
		req, w := x.knocking(m.T, m.a, q), httptest.NewRecorder()
		req.Header.Set("Authorization", "Bearer "+ids.tokens[k][audiencesOf(q.plane)[0]])
		if m.a.Handler.ServeHTTP(w, req); (w.Code != http.StatusForbidden) != want || w.Code == http.StatusUnauthorized {
			m.Errorf("%s as %s at %s: %s %s = %d %s, but the role says %v to %s", ids.names[k], role.Name, scope, q.route.Method, req.URL, w.Code, w.Body, want, q.action.Name())
		}
	}
	l.must(m.T, nil, l.arm, http.MethodDelete, l.url(at), nil)
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
func conditional(r rbac.Role, a arm.Action) bool {
	return slices.ContainsFunc(r.Permissions, func(p rbac.Permission) bool { return p.Condition != "" }) && r.May(a) && !r.Allows(a)
}

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
