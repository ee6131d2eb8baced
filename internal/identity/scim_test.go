package identity

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"castellan/internal/arm"
	"castellan/internal/scim"
	"castellan/internal/store"
)

// provisioner is an outside system with a SCIM token of a tenant.
type provisioner struct {
	w             *world
	tenant, token string
	id            string // of the token
}

func (w *world) provisioner() provisioner {
	w.t.Helper()
	r := w.admin("POST", "identity/scimTokens", map[string]any{"displayName": "Okta"})
	return provisioner{w, w.first.Tenant, r.text("secretText"), r.text("id")}
}

// call makes a request; header has names and values by turns.
func (p provisioner) call(method, path string, body any, header ...string) reply {
	p.w.t.Helper()
	b, err := json.Marshal(body)
	if s, ok := body.(string); ok {
		b = []byte(s)
	}
	if err != nil {
		p.w.t.Fatal(err)
	}
	req, err := http.NewRequest(method, p.w.site.Base()+"/"+p.tenant+"/scim/v2/"+path, strings.NewReader(string(b)))
	if err != nil {
		p.w.t.Fatal(err)
	}
	if p.token != "" {
		req.Header.Set("Authorization", "Bearer "+p.token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return p.w.do(p.w.client(), req)
}

func (p provisioner) must(status int, method, path string, body any) reply {
	p.w.t.Helper()
	r := p.call(method, path, body)
	if r.status != status {
		p.w.t.Fatalf("%s %s = %d %s, want %d", method, path, r.status, r.body, status)
	}
	return r
}

func (p provisioner) user(name string, more map[string]any) string {
	p.w.t.Helper()
	m := map[string]any{"schemas": []string{scim.Users.Core.ID}, "userName": name}
	for k, v := range more {
		m[k] = v
	}
	return p.must(201, "POST", "Users", m).text("id")
}

func (p provisioner) group(name string, members ...string) string {
	p.w.t.Helper()
	list := []any{}
	for _, id := range members {
		list = append(list, map[string]any{"value": id})
	}
	return p.must(201, "POST", "Groups", map[string]any{"schemas": []string{scim.Groups.Core.ID}, "displayName": name, "members": list}).text("id")
}

// patch is the body of a change.
func patch(ops ...any) map[string]any {
	return map[string]any{"schemas": []string{scim.PatchURN}, "Operations": ops}
}

func op(op, path string, value any) map[string]any {
	m := map[string]any{"op": op, "value": value}
	if path != "" {
		m["path"] = path
	}
	return m
}

// refusedAs complains if an answer isn't SCIM's refusal with this status and word.
func refusedAs(t *testing.T, what string, r reply, status int, word string) {
	t.Helper()
	schemas, _ := r.json["schemas"].([]any)
	if r.status != status || r.text("scimType") != word || r.text("detail") == "" || len(schemas) != 1 || schemas[0] != scim.ErrorURN || !strings.HasPrefix(r.header.Get("Content-Type"), "application/scim+json") {
		t.Errorf("%s: %d %s, want %d %s in SCIM's shape", what, r.status, r.body, status, word)
	}
}

// A person is made, found, changed, let in no more, and forgotten, as Okta and
// Entra do it.
func TestSCIMLifecycle(t *testing.T) {
	w := newWorld(t)
	p := w.provisioner()
	id := p.user("ann", map[string]any{"externalId": "00u1", "active": true, "name": map[string]any{"givenName": "Ann", "familyName": "Lee"}, "emails": []any{map[string]any{"value": "ann@mail.example", "type": "work", "primary": true}}})
	if u := w.admin("GET", "users/"+id, nil); u.text("userPrincipalName") != "ann@"+w.first.Domain || u.text("displayName") != "Ann Lee" || u.text("mail") != "ann@mail.example" {
		t.Errorf("Graph shows %s", u.body)
	}
	for filter, want := range map[string]float64{`userName eq "ANN"`: 1, `externalId eq "00u1"`: 1, `externalId eq "00U1"`: 0, `userName eq "bob"`: 0} {
		if r := p.must(200, "GET", "Users?filter="+strings.NewReplacer(" ", "%20", `"`, "%22").Replace(filter), nil); r.json["totalResults"] != want {
			t.Errorf("%s: %s", filter, r.body)
		}
	}
	one := p.must(200, "GET", "Users/"+id, nil)
	etag := one.header.Get("ETag")
	if r := p.call("GET", "Users/"+id, nil, "If-None-Match", etag); r.status != 304 {
		t.Errorf("unchanged: %d", r.status)
	}
	refusedAs(t, "an old version", p.call("PATCH", "Users/"+id, patch(op("replace", "title", "T")), "If-Match", `W/"old"`), 412, "")
	if r := p.call("PATCH", "Users/"+id, patch(op("replace", "title", "T")), "If-Match", etag); r.status != 200 || r.text("title") != "T" || r.header.Get("ETag") == etag {
		t.Errorf("this version: %d %s", r.status, r.body)
	}
	g := p.group("Engineers", id)
	if r := p.must(200, "GET", "Groups/"+g+"?excludedAttributes=members", nil); r.json["members"] != nil {
		t.Errorf("members were excluded: %s", r.body)
	}
	if groups, _ := p.must(200, "GET", "Users/"+id, nil).json["groups"].([]any); len(groups) != 1 {
		t.Error("the person doesn't show their group")
	}
	p.must(200, "PATCH", "Groups/"+g, patch(op("Remove", `members[value eq "`+id+`"]`, nil)))
	if got := w.s.index.groupsOf(id); len(got) != 0 {
		t.Errorf("the person is still in %v", got)
	}
	p.must(200, "PUT", "Groups/"+g, map[string]any{"schemas": []string{scim.Groups.Core.ID}, "displayName": "Eng", "members": []any{map[string]any{"value": id}}})
	refusedAs(t, "the same name again", p.call("POST", "Users", map[string]any{"schemas": []string{scim.Users.Core.ID}, "userName": "ANN@" + w.first.Domain}), 409, "uniqueness")
	p.must(204, "DELETE", "Groups/"+g, nil)
	p.must(204, "DELETE", "Users/"+id, nil)
	refusedAs(t, "who is gone", p.call("GET", "Users/"+id, nil), 404, "")
}

// A person who is let in no more is out at once, with all that they hold, and
// who was disabled by an administrator stays so.
func TestSCIMDisablesAtOnce(t *testing.T) {
	w := newWorld(t)
	p := w.provisioner()
	id := p.user("ann", nil)
	w.admin("PATCH", "users/"+id, map[string]any{"passwordProfile": map[string]any{"password": goodPassword, "forceChangePasswordNextSignIn": false}})
	h := w.holdings("ann@" + w.first.Domain)
	if _, err := w.verify(h.access); err != nil {
		t.Fatal(err)
	}
	p.must(200, "PATCH", "Users/"+id, patch(op("Replace", "active", "False")))
	w.dead("disabled by SCIM", h)
	p.must(200, "PATCH", "Users/"+id, patch(op("replace", "", map[string]any{"active": true})))
	w.dead("enabled again", h)
	w.admin("PATCH", "users/"+id, map[string]any{"accountEnabled": false})
	refusedAs(t, "enabling whom an administrator disabled", p.call("PATCH", "Users/"+id, patch(op("replace", "active", true))), 403, "")
	if !w.s.index.user(id).Disabled {
		t.Error("SCIM enabled whom an administrator disabled")
	}
}

// SCIM touches what it made and nothing else: local people, emergency accounts,
// groups that give roles and whoever has a role stay as they are, under whatever
// name they are asked for.
func TestSCIMTakesNobodyOver(t *testing.T) {
	w := newWorld(t)
	p := w.provisioner()
	local, upn := w.user("root")
	w.admin("PATCH", "users/"+local, map[string]any{"mail": "root@mail.example"})
	localGroup := w.admin("POST", "groups", map[string]any{"displayName": "Local", "mailNickname": "l", "mailEnabled": false, "securityEnabled": true}).text("id")
	roleGroup := w.admin("POST", "groups", map[string]any{"displayName": "Admins", "mailNickname": "a", "mailEnabled": false, "securityEnabled": true, "isAssignableToRole": true}).text("id")
	mine := p.user("ann", map[string]any{"externalId": "e1"})
	admin, rescue := p.user("boss", nil), p.user("rescue", nil)
	w.give(admin, "User Administrator")
	w.admin("PATCH", "users/"+rescue, map[string]any{"castellanBreakGlass": true})
	group := p.group("Mine")
	before := func() string {
		s := ""
		for _, x := range []string{"users/" + local, "users/" + admin, "users/" + rescue, "groups/" + localGroup, "groups/" + roleGroup, "groups/" + localGroup + "/members", "groups/" + roleGroup + "/members"} {
			s += string(w.admin("GET", x, nil).body)
		}
		return s
	}
	was := before()

	user := func(name string, more map[string]any) map[string]any {
		m := map[string]any{"schemas": []string{scim.Users.Core.ID}, "userName": name}
		for k, v := range more {
			m[k] = v
		}
		return m
	}
	refusedAs(t, "the name of a local administrator", p.call("POST", "Users", user(upn, nil)), 409, "uniqueness")
	refusedAs(t, "in other letters", p.call("POST", "Users", user(strings.ToUpper(upn), nil)), 409, "uniqueness")
	refusedAs(t, "by renaming", p.call("PATCH", "Users/"+mine, patch(op("replace", "userName", upn))), 409, "uniqueness")
	refusedAs(t, "another's externalId", p.call("POST", "Users", user("eve", map[string]any{"externalId": "e1"})), 409, "uniqueness")
	refusedAs(t, "a name elsewhere", p.call("POST", "Users", user("eve@evil.example", nil)), 400, "invalidValue")
	for _, name := range []string{"аnn", "a b", "ann\u200b", "ann@x@" + w.first.Domain, "@" + w.first.Domain} {
		refusedAs(t, name, p.call("POST", "Users", user(name, nil)), 400, "invalidValue")
	}
	p.user("carl", map[string]any{"id": local, "emails": []any{map[string]any{"value": "root@mail.example"}}, "groups": []any{map[string]any{"value": roleGroup}}})
	for _, x := range []string{"Users/" + local, "Groups/" + localGroup, "Groups/" + roleGroup, "Users/" + roleGroup, "Users/" + w.first.UserObject} {
		refusedAs(t, "GET "+x, p.call("GET", x, nil), 404, "")
		refusedAs(t, "DELETE "+x, p.call("DELETE", x, nil), 404, "")
		refusedAs(t, "PATCH "+x, p.call("PATCH", x, patch(op("replace", "active", false))), 404, "")
	}
	for _, x := range []string{"Users/" + admin, "Users/" + rescue} {
		refusedAs(t, "DELETE "+x, p.call("DELETE", x, nil), 403, "")
		refusedAs(t, "PATCH "+x, p.call("PATCH", x, patch(op("replace", "active", false))), 403, "")
		refusedAs(t, "PUT "+x, p.call("PUT", x, user("other", nil)), 403, "")
	}
	refusedAs(t, "an administrator in a group", p.call("PATCH", "Groups/"+group, patch(op("add", "members", []any{map[string]any{"value": admin}}))), 403, "")
	for _, id := range []string{local, localGroup, roleGroup, group, "nobody", w.first.ClientObject} {
		refusedAs(t, "the member "+id, p.call("PATCH", "Groups/"+group, patch(op("add", "members", []any{map[string]any{"value": id}}))), 400, "invalidValue")
	}
	refusedAs(t, "a group that gives roles", p.call("POST", "Groups", `{"schemas":["`+scim.Groups.Core.ID+`"],"displayName":"x","isAssignableToRole":true}`), 400, "invalidSyntax")
	if r := p.call("GET", "Users?filter=userName%20eq%20%22"+upn+"%22", nil); r.json["totalResults"] != 0.0 {
		t.Errorf("SCIM sees a local administrator: %s", r.body)
	}
	if now := before(); now != was {
		t.Errorf("SCIM changed what isn't its own:\n%s\n%s", was, now)
	}
}

// A token is good for SCIM, on one tenant, until it expires or is revoked.
func TestSCIMToken(t *testing.T) {
	w := newWorld(t)
	p := w.provisioner()
	other, err := w.s.found(t.Context(), Founding{Tenant: arm.NewUUID(), Domain: "other.example"}, func(fn func(*store.Tx) error) error { return w.db.Do(t.Context(), fn) })
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := p
	elsewhere.tenant = other.Tenant
	n := 0
	for _, rt := range w.s.SCIM().Routes { // the law: each door is shut to all but the right token
		path := strings.NewReplacer("/{tenant}/scim/v2/", "", "{id}", "00000000-0000-0000-0000-000000000001", "{any...}", "Bulk").Replace(rt.Pattern)
		for what, q := range map[string]provisioner{"none": {w: w, tenant: p.tenant}, "garbage": {w: w, tenant: p.tenant, token: "x"}, "the administrator's": {w: w, tenant: p.tenant, token: w.token}, "another secret": {w: w, tenant: p.tenant, token: scimPrefix + newSecret()}} {
			refusedAs(t, rt.Method+" "+path+" with "+what, q.call(rt.Method, path, "{}"), 401, "")
		}
		if r := elsewhere.call(rt.Method, path, "{}"); r.status != 401 && r.status != 403 {
			t.Errorf("%s %s in another tenant: %d %s", rt.Method, path, r.status, r.body)
		}
		n++
	}
	if n < 20 {
		t.Errorf("only %d doors", n)
	}
	nowhere := p
	nowhere.tenant = "nowhere"
	refusedAs(t, "a tenant that isn't there", nowhere.call("GET", "Users", nil), 403, "")
	if r := w.graph(p.token, "GET", "users", nil); r.status != 401 {
		t.Errorf("the token is good for Graph: %d", r.status)
	}
	if list := w.admin("GET", "identity/scimTokens", nil); strings.Contains(string(list.body), p.token) || !strings.Contains(string(list.body), p.id) {
		t.Errorf("the list: %s", list.body)
	}
	for _, end := range []time.Duration{-time.Hour, 366 * 24 * time.Hour} {
		if r := w.graph(w.token, "POST", "identity/scimTokens", map[string]any{"displayName": "x", "endDateTime": w.now().Add(end).UTC().Format(time.RFC3339)}); r.status != 400 {
			t.Errorf("a token until %v from now: %d", end, r.status)
		}
	}
	_, token := w.user("plain")
	if r := w.graph(w.holdings(token).access, "POST", "identity/scimTokens", map[string]any{"displayName": "x"}); r.status < 400 {
		t.Errorf("anybody makes a SCIM token: %d", r.status)
	}
	p.must(200, "GET", "Users", nil)
	w.admin("DELETE", "identity/scimTokens/"+p.id, nil)
	refusedAs(t, "revoked", p.call("GET", "Users", nil), 401, "")
	q := w.provisioner()
	q.must(200, "GET", "Users", nil)
	w.pass(scimLife)
	refusedAs(t, "expired", q.call("GET", "Users", nil), 401, "")
}

// What can't be understood is refused in SCIM's words and changes nothing.
func TestSCIMRefuses(t *testing.T) {
	w := newWorld(t)
	p := w.provisioner()
	id := p.user("ann", nil)
	before := string(p.must(200, "GET", "Users/"+id, nil).body)
	urn := `"schemas":["` + scim.Users.Core.ID + `"]`
	for _, c := range []struct {
		name, method, path string
		body               any
		status             int
		word               string
	}{
		{"one key twice", "POST", "Users", `{` + urn + `,"userName":"a","userName":"b"}`, 400, "invalidSyntax"},
		{"one key in two spellings", "PUT", "Users/" + id, `{` + urn + `,"userName":"a","USERNAME":"b"}`, 400, "invalidSyntax"},
		{"no JSON", "POST", "Users", `{`, 400, "invalidSyntax"},
		{"a password", "POST", "Users", `{` + urn + `,"userName":"a","password":"x"}`, 400, "invalidValue"},
		{"a huge body", "PATCH", "Users/" + id, strings.Repeat(" ", maxGraphBody+1), 413, ""},
		{"a thousand and one changes", "PATCH", "Users/" + id, patch(make([]any, 1001)...), 400, "invalidSyntax"},
		{"deep", "PATCH", "Users/" + id, strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100), 400, "invalidSyntax"},
		{"a filter bomb", "GET", "Users?filter=" + strings.Repeat("(", 1000), nil, 400, "invalidFilter"},
		{"an order", "GET", "Users?sortBy=userName", nil, 400, "invalidValue"},
		{"no number", "GET", "Users?count=many", nil, 400, "invalidValue"},
		{"bulk", "POST", "Bulk", `{}`, 404, ""},
		{"a schema of one's own", "POST", "Schemas", `{}`, 405, ""},
		{"all people at once", "DELETE", "Users", nil, 405, ""},
		{"the root", "GET", "", nil, 404, ""},
		{"a filter of schemas", "GET", "Schemas?filter=x", nil, 403, ""},
	} {
		refusedAs(t, c.name, p.call(c.method, c.path, c.body), c.status, c.word)
	}
	if now := string(p.must(200, "GET", "Users/"+id, nil).body); now != before {
		t.Errorf("a refused request changed the person: %s", now)
	}
	for i := range 5 {
		p.user("u"+string(rune('a'+i)), nil)
	}
	r := p.must(200, "GET", "Users?startIndex=5&count=10", nil)
	if rows, _ := r.json["Resources"].([]any); len(rows) != 2 || r.json["totalResults"] != 6.0 || r.json["startIndex"] != 5.0 || r.json["itemsPerPage"] != 2.0 {
		t.Errorf("a page: %s", r.body)
	}
}
