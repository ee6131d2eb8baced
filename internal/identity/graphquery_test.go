package identity

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// ask is a GET of the directory as the first application, with options as they
// stand, and with the header that advanced queries need.
func (w *world) ask(path string, options ...string) reply {
	w.t.Helper()
	w.admin("GET", "organization", nil) // a token that is fresh
	q := url.Values{}
	for i := 0; i < len(options); i += 2 {
		q.Set(options[i], options[i+1])
	}
	req, err := http.NewRequest("GET", "https://"+w.site.GraphHost()+"/v1.0/"+path+"?"+q.Encode(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.token)
	req.Header.Set("ConsistencyLevel", "eventual")
	return w.do(w.client(), req)
}

func column(r reply, of string) (out []string) {
	list, _ := r.json["value"].([]any)
	for _, x := range list {
		s, _ := x.(map[string]any)[of].(string)
		out = append(out, s)
	}
	return out
}

// What a client asks of a list is what it gets: those rows, in that order, with
// those properties, each once over all pages.
func TestQueryOptions(t *testing.T) {
	w := newWorld(t)
	for _, n := range []string{"carla", "anton", "berta", "dora"} {
		w.user(n)
	}
	ours := "startswith(displayName,'carla') or startswith(displayName,'anton') or startswith(displayName,'berta') or startswith(displayName,'dora')"
	for order, want := range map[string]string{"displayName": "[anton berta carla dora]", "displayName desc": "[dora carla berta anton]"} {
		r := w.ask("users", "$filter", ours, "$orderby", order, "$top", "3", "$select", "displayName", "$count", "true")
		got := column(r, "displayName")
		if m := r.json["value"].([]any)[0].(map[string]any); len(m) != 1 {
			t.Errorf("$select=displayName shows %v", m)
		}
		if r.json["@odata.count"] != 4.0 {
			t.Errorf("@odata.count is %v", r.json["@odata.count"])
		}
		next, err := url.Parse(r.text("@odata.nextLink"))
		if err != nil || next.RawQuery == "" {
			t.Fatalf("the first page leads to %q", r.text("@odata.nextLink"))
		}
		var options []string
		for k := range next.Query() {
			options = append(options, k, next.Query().Get(k))
		}
		r = w.ask("users", options...)
		if got = append(got, column(r, "displayName")...); fmt.Sprint(got) != want || r.text("@odata.nextLink") != "" {
			t.Errorf("by %s: %v, want %s; then %q", order, got, want, r.text("@odata.nextLink"))
		}
		// A page goes on only with the question that it was part of.
		if r := w.ask("users", "$skiptoken", next.Query().Get("$skiptoken")); r.status != 400 {
			t.Errorf("another question's $skiptoken: %d", r.status)
		}
	}
	if r := w.ask("users/$count", "$filter", ours); string(r.body) != "4" {
		t.Errorf("/$count: %d %s", r.status, r.body)
	}
	if r := w.ask("users", "top", "1"); len(column(r, "id")) != 1 {
		t.Errorf("an option without its dollar sign: %d %s", r.status, r.body)
	}
	for search, want := range map[string]string{
		`"displayName:ber"`: "[berta]", `"displayName:erta"`: "[]", `"displayName:ber" OR "displayName:do"`: "[berta dora]", `"displayName:ber" AND "userPrincipalName:do"`: "[]",
		`"displayName:ber" AND "userPrincipalName:berta" OR "displayName:do"`: "[berta dora]",
	} {
		if got := fmt.Sprint(column(w.ask("users", "$search", search, "$orderby", "displayName"), "displayName")); got != want {
			t.Errorf("$search=%s: %s, want %s", search, got, want)
		}
	}
}

// What is not supported, or makes no sense, is refused in Graph's words by its
// name; nothing is guessed.
func TestQueryOptionsThatAreRefused(t *testing.T) {
	w := newWorld(t)
	group := w.admin("POST", "groups", map[string]any{"displayName": "g", "mailEnabled": false, "mailNickname": "g", "securityEnabled": true}).text("id")
	for _, x := range [][3]string{
		{"users", "$skip", "1"}, {"users", "$apply", "x"}, {"users", "foo", "x"}, {"users", "$orderby", "accountEnabled"}, {"users", "$orderby", "displayName sideways"},
		{"groups", "$orderby", "userPrincipalName"}, {"users", "$expand", "manager"}, {"users/nobody@example.com/memberOf", "$expand", "members"}, {"users", "$count", "yes"}, {"users", "$select", "a b"},
		{"users", "$search", "displayName:x"}, {"users", "$search", `"passwordHash:x"`}, {"users", "$search", `"displayName:x" XOR "displayName:y"`}, {"users", "$top", "0"},
		{"auditLogs/signIns", "$orderby", "displayName"}, {"users", "$filter", "password eq 'x'"}, {"groups/" + group + "/members/microsoft.graph.device", "$top", "1"}, {"groups/" + group + "/members/$count/$count", "$top", "1"},
	} {
		r := w.ask(x[0], x[1], x[2])
		if r.status != 400 && r.status != 404 || r.code() == "" {
			t.Errorf("%s?%s=%s: %d %s", x[0], x[1], x[2], r.status, r.body)
		}
		if name, _, _ := strings.Cut(strings.TrimPrefix(x[1], "$"), " "); r.status == 400 && !strings.Contains(string(r.body), name) && !strings.Contains(string(r.body), x[2]) && !strings.Contains(x[0], "/members/") && x[1] != "$orderby" {
			t.Errorf("%s?%s=%s does not say what it is about: %s", x[0], x[1], x[2], r.body)
		}
	}
	for _, q := range []string{"users?$count=true", "users/$count", "users?$search=" + url.QueryEscape(`"displayName:a"`), "users?$top=1&top=2", "users?$top=1&$top=2"} {
		if r := w.graph(w.token, "GET", q, nil); r.status != 400 {
			t.Errorf("%s without the header: %d %s", q, r.status, r.body)
		}
	}
}

// What $expand adds, and what a narrowed list holds, is asked of the gate.
func TestExpandAndCasts(t *testing.T) {
	w := newWorld(t)
	ann, _ := w.user("ann")
	bot := w.robot("bot")
	group := w.admin("POST", "groups", map[string]any{"displayName": "g", "mailEnabled": false, "mailNickname": "g", "securityEnabled": true,
		"members@odata.bind": []string{"https://graph.microsoft.com/v1.0/directoryObjects/" + ann, "https://graph.microsoft.com/v1.0/directoryObjects/" + bot.id}}).text("id")
	r := w.ask("groups/"+group, "$select", "id", "$expand", "members($select=id,displayName),owners")
	members, _ := r.json["members"].([]any)
	if len(members) != 2 || len(members[0].(map[string]any)) != 3 || r.json["owners"] == nil || r.json["displayName"] != nil {
		t.Errorf("$expand=members: %d %s", r.status, r.body)
	}
	if got := column(w.ask("groups/"+group+"/members/microsoft.graph.user"), "id"); len(got) != 1 || got[0] != ann {
		t.Errorf("the people among the members: %v", got)
	}
	if r := w.ask("groups/" + group + "/members/graph.servicePrincipal/$count"); string(r.body) != "1" {
		t.Errorf("the count of principals: %d %s", r.status, r.body)
	}
	if got := column(w.ask("users/"+ann+"/transitiveMemberOf/microsoft.graph.group"), "id"); len(got) != 1 || got[0] != group {
		t.Errorf("ann's groups: %v", got)
	}
	// Who may see groups but not who is in them gets no way around by $expand.
	w.permit(bot.id, "User.Read.All")
	for _, path := range []string{"users/" + ann + "?$expand=memberOf", "users?$expand=memberOf"} {
		if r := w.graph(bot.token, "GET", path, nil); r.status != 403 || strings.Contains(string(r.body), group) {
			t.Errorf("%s by who may only see people: %d %s", path, r.status, r.body)
		}
	}
	w.permit(bot.id, "GroupMember.Read.All")
	if r := w.graph(bot.token, "GET", "users/"+ann+"?$expand=memberOf", nil); r.status != 200 || !strings.Contains(string(r.body), group) {
		t.Errorf("with both permissions: %d %s", r.status, r.body)
	}
}
