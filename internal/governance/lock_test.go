package governance

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func lockAt(scope, name string) string { return scope + auth + "locks/" + name }

func level(l string) string { return fmt.Sprintf(`{"properties":{"level":%q,"notes":"why"}}`, l) }

// held asserts that a lock at the scope refuses a request, in Azure's words.
func (w *world) held(who, method, path, body, does, scope string) {
	w.Helper()
	out := w.do(who, method, path, body, 409)
	e, _ := out["error"].(map[string]any)
	want := "cannot perform " + does + " operation because following scope(s) are locked: '" + scope + "'. Please remove the lock and try again."
	if code(out) != "ScopeLocked" || !strings.HasSuffix(fmt.Sprint(e["message"]), want) {
		w.Errorf("%s %s is refused by %v, want a message that ends in %s", method, path, e, want)
	}
}

// A lock binds its scope and what lies in it, whoever asks; a deletion also what
// holds the scope. It outlives a restart, and ends with its scope.
func TestLocks(t *testing.T) {
	w := newWorld(t)
	for _, scope := range []string{sub, rg1, ws} {
		made := w.do(olga, "PUT", lockAt(scope, "keep"), level("CanNotDelete"), 201)
		p, _ := made["properties"].(map[string]any)
		if made["id"] != lockAt(scope, "keep") || made["type"] != "Microsoft.Authorization/locks" || p["level"] != "CanNotDelete" || p["notes"] != "why" || made["systemData"] == nil {
			t.Errorf("PUT answered %v", made)
		}
		w.restart()
		w.held(olga, "DELETE", ws, "", "delete", scope)
		if scope != sub {
			w.held(olga, "DELETE", rg1, "", "delete", scope)
		}
		w.do(olga, "PUT", ws, `{"location":"local"}`, 200)
		w.do(olga, "PUT", at(ws, 1), w.give("Reader", nora), 201)
		w.held(olga, "DELETE", at(ws, 1), "", "delete", scope)
		w.do(olga, "PUT", lockAt(scope, "keep"), level("ReadOnly"), 200)
		w.held(olga, "PUT", ws, `{"location":"local"}`, "write", scope)
		w.held(olga, "PATCH", ws, `{"tags":{}}`, "write", scope)
		w.held(olga, "PUT", ws+"/computes/new", `{}`, "write", scope)
		w.held(olga, "DELETE", ws, "", "delete", scope)
		w.held(olga, "PUT", at(ws, 2), w.give("Reader", nora), "write", scope)
		w.do(olga, "GET", ws, "", 200)
		w.do(carl, "DELETE", lockAt(scope, "keep"), "", 403) // a Contributor may not
		w.do(carl, "PUT", lockAt(scope, "keep"), level("CanNotDelete"), 403)
		w.do(nora, "PUT", ws, `{"location":"local"}`, 403) // who has no right hears nothing of locks
		w.do(rita, "GET", lockAt(scope, "keep"), "", 200)
		w.do(olga, "DELETE", lockAt(scope, "keep"), "", 200)
		w.do(olga, "DELETE", lockAt(scope, "keep"), "", 204)
		if got := w.do(olga, "GET", lockAt(scope, "keep"), "", 404); code(got) != "LockNotFound" {
			t.Errorf("GET of what is gone = %v", got)
		}
		w.do(olga, "DELETE", at(ws, 1), "", 200)
	}
	// The SDKs' methods leave the place of a parent empty.
	w.do(olga, "PUT", rg1+"/providers/Microsoft.MachineLearningServices//workspaces/ws"+auth+"locks/odd", level("ReadOnly"), 201)
	w.do(olga, "DELETE", lockAt(ws, "odd"), "", 200)
	w.do(olga, "PUT", rg1+"//providers/Microsoft.MachineLearningServices/workspaces/ws"+auth+"locks/odd", level("ReadOnly"), 400)
	// Its neighbours are free, also those whose names begin alike.
	w.do(olga, "PUT", lockAt(rg1, "all"), level("ReadOnly"), 201)
	w.do(olga, "DELETE", rg10, "", 200)
	w.do(olga, "DELETE", lockAt(rg1, "all"), "", 200)
	w.do(olga, "DELETE", rg1, "", 200)
}

// Lists have what holds something at a scope: at it, above it and, without
// atScope(), below it.
func TestListsOfLocks(t *testing.T) {
	w := newWorld(t)
	for i, scope := range []string{sub, rg1, rg10, ws} {
		w.do(olga, "PUT", lockAt(scope, fmt.Sprint("lock-", i)), level("CanNotDelete"), 201)
	}
	for _, c := range []struct{ scope, filter, want string }{
		{sub, "", "0 1 3 2"}, {sub, "?$filter=atScope()", "0"}, {rg1, "", "0 1 3"}, {rg1, "?$filter=atScope()", "0 1"}, {rg10, "", "0 2"}, {ws, "", "0 1 3"},
	} {
		out := w.do(olga, "GET", c.scope+auth+"locks"+c.filter, "", 200)
		var got, want []string
		for _, x := range out["value"].([]any) {
			got = append(got, strings.TrimPrefix(fmt.Sprint(x.(map[string]any)["name"]), "lock-"))
		}
		want = strings.Fields(c.want)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("the locks of %s%s are %v, want %v", c.scope, c.filter, got, want)
		}
	}
	w.do(olga, "GET", sub+auth+"locks?$filter=level%20eq%20'ReadOnly'", "", 400)
}

// What is no lock is refused, and locks nothing.
func TestWrongLocks(t *testing.T) {
	w := newWorld(t)
	for path, bodies := range map[string][]string{
		lockAt(rg1, "wrong"): {
			``, `{}`, `{"properties":{}}`, level("NotSpecified"), level("Delete"), `{"properties":{"level":"ReadOnly","until":"noon"}}`, `{"name":"other","properties":{"level":"ReadOnly"}}`,
			`{"type":"Microsoft.Authorization/policies","properties":{"level":"ReadOnly"}}`, `{"properties":{"level":"ReadOnly","notes":"` + strings.Repeat("n", 513) + `"}}`, `{"properties":{"level":"ReadOnly","level":"CanNotDelete"}}`,
		},
		lockAt(rg1, "wr&ng"):                     {level("ReadOnly")},
		lockAt(rg1, strings.Repeat("n", 261)):    {level("ReadOnly")},
		lockAt(sub+"/resourceGroups/none", "no"): {level("ReadOnly")},
	} {
		for _, b := range bodies {
			if got, out := w.send(olga, "PUT", path, b); got != 400 && got != 404 || code(out) == "" {
				t.Errorf("PUT %s %s = %d %v", path, b, got, out)
			}
		}
	}
	w.do(olga, "PUT", ws, `{"location":"local"}`, 200)
	w.do(nobodyYet(w), "PUT", lockAt(top, "tenant"), level("ReadOnly"), 400)
}
