package identity

import (
	"fmt"
	"slices"
	"testing"
)

func piece(id, method, url string, more ...any) map[string]any {
	out := map[string]any{"id": id, "method": method, "url": url}
	for i := 0; i < len(more); i += 2 {
		out[more[i].(string)] = more[i+1]
	}
	return out
}

// statuses are what a batch's requests were answered with.
func (w *world) statuses(token string, parts ...map[string]any) (map[string]int, reply) {
	w.t.Helper()
	r := w.graph(token, "POST", "$batch", map[string]any{"requests": parts})
	out := map[string]int{}
	list, _ := r.json["responses"].([]any)
	for _, x := range list {
		m := x.(map[string]any)
		out[m["id"].(string)] = int(m["status"].(float64))
	}
	return out, r
}

// A batch is no door of its own: each request in it is let in, refused and
// recorded as if it had come alone.
func TestBatch(t *testing.T) {
	w := newWorld(t)
	ann, upn := w.user("ann")
	_, other := w.user("other")
	body := map[string]any{"displayName": "g", "mailEnabled": false, "mailNickname": "g", "securityEnabled": true}
	got, r := w.statuses(w.token, piece("last", "GET", "/users/"+ann, "dependsOn", []string{"make"}), piece("make", "POST", "/groups", "body", body, "headers", map[string]string{"Content-Type": "application/json"}),
		piece("none", "GET", "/groups/"+ann), piece("behind", "DELETE", "/users/"+ann, "dependsOn", []string{"none"}), piece("count", "GET", "users/$count", "headers", map[string]string{"ConsistencyLevel": "eventual"}),
		piece("nowhere", "GET", "/nothing/here/at/all"), piece("up", "GET", "/../subscriptions"))
	if want := map[string]int{"last": 200, "make": 201, "none": 404, "behind": 424, "count": 200, "nowhere": 404, "up": 400}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v\n%s", got, want, r.body)
	}
	if w.s.index.user(ann) == nil {
		t.Fatal("what depended on a failure was done")
	}

	// A person without rights, with an administrator's token as a header of the part.
	token := w.graphToken(upn)
	before := len(w.tail())
	got, _ = w.statuses(token, piece("me", "GET", "/me"), piece("kill", "DELETE", "/users/"+other, "headers", map[string]string{"Authorization": "Bearer " + w.token}), piece("roles", "POST", "/roleManagement/directory/roleAssignments", "body", map[string]any{}))
	if want := map[string]int{"me": 200, "kill": 403, "roles": 403}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
	if w.s.index.userNamed(other) == nil {
		t.Fatal("the person was deleted")
	}
	var acts []string
	for _, e := range w.tail()[before:] {
		acts = append(acts, e.Action+" "+e.Decision)
	}
	for _, want := range []string{sendBatch.Name() + " allowed", readSelf.Name() + " allowed", deleteUser.Name() + " refused", assignRole.Name() + " refused"} {
		if !slices.Contains(acts, want) {
			t.Errorf("the audit log has no %q: %v", want, acts)
		}
	}
	if r := w.graph("", "POST", "$batch", map[string]any{"requests": []any{piece("1", "GET", "/users")}}); r.status != 401 {
		t.Errorf("nobody's batch: %d", r.status)
	}
}

// A batch that makes no sense does nothing at all.
func TestBatchesThatAreRefused(t *testing.T) {
	w := newWorld(t)
	w.admin("GET", "organization", nil)
	many := []map[string]any{}
	for i := range maxBatch + 1 {
		many = append(many, piece(fmt.Sprint(i), "GET", "/me"))
	}
	body := map[string]any{"displayName": "never", "mailEnabled": false, "mailNickname": "never", "securityEnabled": true}
	first := piece("1", "POST", "/groups", "body", body)
	for name, parts := range map[string][]map[string]any{
		"none": {}, "too many": many, "an id twice": {first, piece("1", "GET", "/me")}, "no id": {first, piece("", "GET", "/me")},
		"a circle": {first, piece("a", "GET", "/me", "dependsOn", []string{"b"}), piece("b", "GET", "/me", "dependsOn", []string{"a"})},
		"nobody":   {first, piece("a", "GET", "/me", "dependsOn", []string{"x"})}, "a batch": {first, piece("2", "POST", "/$batch", "body", map[string]any{})}, "a batch in other letters": {first, piece("2", "POST", "/%24BATCH", "body", map[string]any{})},
		"elsewhere": {first, piece("2", "GET", "https://example.org/users")}, "another host": {first, piece("2", "GET", "//example.org/users")}, "a strange method": {first, piece("2", "TRACE", "/me")}, "an unknown field": {first, piece("2", "GET", "/me", "as", "root")},
	} {
		if _, r := w.statuses(w.token, parts...); r.status != 400 {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	if n := len(column(w.ask("groups", "$filter", "displayName eq 'never'"), "id")); n != 0 {
		t.Errorf("%d groups were made by batches that were refused", n)
	}
}

// What somebody is in can be asked of any object, also by nesting, and of
// directory roles; only by who may see members, and by everybody of themselves.
func TestMemberships(t *testing.T) {
	w := newWorld(t)
	ann, upn := w.user("ann")
	other, _ := w.user("other")
	group := func(name string, members ...string) string {
		refs := []string{}
		for _, m := range members {
			refs = append(refs, "https://graph.microsoft.com/v1.0/directoryObjects/"+m)
		}
		return w.admin("POST", "groups", map[string]any{"displayName": name, "mailEnabled": false, "mailNickname": name, "securityEnabled": true, "members@odata.bind": refs}).text("id")
	}
	inner := group("inner", ann)
	outer, strange := group("outer", inner), group("strange", other)
	w.give(ann, "Reports Reader")
	role := roleID(t, "Reports Reader")
	value := func(r reply) string {
		list := anys(r.json["value"])
		slices.Sort(list)
		return fmt.Sprint(r.status, list)
	}
	sorted := func(ids ...string) string {
		slices.Sort(ids)
		return fmt.Sprint(200, ids)
	}
	mine := w.graphToken(upn)
	for _, at := range []string{"me", "users/" + ann, "users/" + upn, "directoryObjects/" + ann} {
		for call, x := range map[string]struct {
			body any
			want string
		}{
			"checkMemberGroups":  {map[string]any{"groupIds": []string{outer, strange, role}}, sorted(outer)},
			"checkMemberObjects": {map[string]any{"ids": []string{outer, strange, role}}, sorted(outer, role)},
			"getMemberGroups":    {map[string]any{"securityEnabledOnly": true}, sorted(inner, outer)},
			"getMemberObjects":   {map[string]any{"securityEnabledOnly": false}, sorted(inner, outer, role)},
		} {
			if got := value(w.graph(mine, "POST", at+"/"+call, x.body)); got != x.want {
				t.Errorf("%s/%s: %s, want %s", at, call, got, x.want)
			}
		}
	}
	if got := value(w.graph(mine, "POST", "groups/"+inner+"/getMemberGroups", map[string]any{})); got != sorted(outer) {
		t.Errorf("the inner group is in %s", got)
	}
	for _, body := range []any{map[string]any{}, map[string]any{"groupIds": make([]string, maxChecked+1)}, map[string]any{"ids": []string{outer}}} {
		if r := w.graph(mine, "POST", "me/checkMemberGroups", body); r.status != 400 {
			t.Errorf("checkMemberGroups of %v: %d", body, r.status)
		}
	}
	bot := w.robot("bot")
	if r := w.graph(bot.token, "POST", "users/"+ann+"/getMemberGroups", map[string]any{}); r.status != 403 {
		t.Errorf("who may see nothing: %d", r.status)
	}
	w.admin("POST", "groups/"+inner+"/owners/$ref", map[string]any{"@odata.id": "https://graph.microsoft.com/v1.0/directoryObjects/" + ann})
	if got := column(w.graph(mine, "GET", "me/ownedObjects/microsoft.graph.group", nil), "id"); fmt.Sprint(got) != fmt.Sprint([]string{inner}) {
		t.Errorf("ann owns %v", got)
	}
}
