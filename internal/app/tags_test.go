package app

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
)

// Tags are kept at subscriptions, groups and resources; who may tag changes
// nothing else; policies and locks have their say.
func TestTags(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	p := newPoliced(t, a)
	u, body := p.account("taggedacct", map[string]any{})
	p.fine(u, body)
	tagger := a.newPerson(t, "tagger")
	a.giveRole(t, p.token, p.path(p.sub), tagger.object, "Tag Contributor")
	token := tokenFor(t, a, tagger.id, tagger.secret, a.audiences()["arm"])
	if w := call(a, token, http.MethodPatch, u+version, map[string]any{"tags": map[string]any{"a": "b"}}); w.Code != http.StatusForbidden {
		t.Errorf("a Tag Contributor's PATCH of the account = %d %s", w.Code, w.Body)
	}
	const at = "/providers/Microsoft.Resources/tags/default"
	for _, scope := range []string{p.sub, p.group, u} {
		for _, c := range []struct{ method, operation, tags, want string }{
			{"PUT", "", "A=1 b=2", "A=1 b=2"}, {"PATCH", "Merge", "a=3 c=4", "A=3 b=2 c=4"}, {"PATCH", "Delete", "c=4 b=5 d=6", "A=3 b=2"}, {"PATCH", "Replace", "x=y", "x=y"},
		} {
			b := map[string]any{"properties": map[string]any{"tags": pairs(c.tags)}}
			if c.operation != "" {
				b["operation"] = c.operation
			}
			must(t, a, http.StatusOK, token, c.method, scope+at+version, b)
			got := must(t, a, http.StatusOK, token, http.MethodGet, scope+at+version, nil)
			if fmt.Sprint(got["properties"].(map[string]any)["tags"]) != fmt.Sprint(pairs(c.want)) || got["name"] != "default" {
				t.Errorf("%s %s %s at %s: %v, want %s", c.method, c.operation, c.tags, scope, got, c.want)
			}
		}
		must(t, a, http.StatusOK, token, http.MethodDelete, scope+at+version, nil)
		if got := must(t, a, http.StatusOK, token, http.MethodGet, scope+at+version, nil)["properties"].(map[string]any)["tags"].(map[string]any); len(got) != 0 {
			t.Errorf("after DELETE there are %v", got)
		}
	}
	many := map[string]any{}
	for i := range 51 {
		many[fmt.Sprint("t", i)] = ""
	}
	for _, b := range []any{
		map[string]any{"operation": "Merge", "properties": map[string]any{"tags": many}}, map[string]any{"properties": map[string]any{"tags": pairs("a=b")}},
		map[string]any{"operation": "Add", "properties": map[string]any{"tags": pairs("a=b")}}, map[string]any{"operation": "Merge", "properties": map[string]any{"tags": map[string]any{"a/b": "c"}}},
		map[string]any{"operation": "Merge", "properties": map[string]any{"tags": map[string]any{"a": strings.Repeat("v", 257)}}}, map[string]any{"operation": "Replace", "properties": map[string]any{"tags": pairs("a=b A=c")}},
	} {
		if w := call(a, token, http.MethodPatch, u+at+version, b); w.Code != http.StatusBadRequest {
			t.Errorf("PATCH %v = %d %s", b, w.Code, w.Body)
		}
	}
	must(t, a, http.StatusNotFound, token, http.MethodPut, u+"x"+at+version, map[string]any{"properties": map[string]any{"tags": pairs("a=b")}})
	deny := p.define("no-red", "All", nil, tree(t, `{"if":{"field":"tags['team']","equals":"red"},"then":{"effect":"deny"}}`))
	p.assign(p.group, "no-red", deny, nil)
	p.denied(http.MethodPut, u+at, map[string]any{"properties": map[string]any{"tags": pairs("team=red")}}, "no-red")
	p.lock(u, "ReadOnly")
	if w := call(a, token, http.MethodPut, u+at+version, map[string]any{"properties": map[string]any{"tags": pairs("a=b")}}); !locked(w) {
		t.Errorf("tagging what is locked = %d %s", w.Code, w.Body)
	}
}

// pairs are the tags of a text such as "a=b c=d".
func pairs(text string) map[string]any {
	out := map[string]any{}
	for _, x := range strings.Fields(text) {
		n, v, _ := strings.Cut(x, "=")
		maps.Copy(out, map[string]any{n: v})
	}
	return out
}
