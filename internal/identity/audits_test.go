package identity

import (
	"net/url"
	"strings"
	"testing"
)

// What was changed in the directory, and what somebody tried to, is told by whom, to
// whom and how it ended, to those alone who may read it, of their own tenant.
func TestDirectoryAudits(t *testing.T) {
	w := newWorld(t)
	ann, upn := w.user("ann")
	ben, _ := w.user("ben")
	token := w.graphToken(upn)
	w.graph(w.token, "PATCH", "users/"+ann, map[string]any{"displayName": "Ann A."})
	w.graph(token, "DELETE", "users/"+ben, nil)
	w.graph(w.token, "GET", "users/"+ann, nil)
	ask := func(token, filter string) reply {
		return w.graph(token, "GET", "auditLogs/directoryAudits?"+url.Values{"$filter": {filter}}.Encode(), nil)
	}
	for filter, want := range map[string][]string{
		"category eq 'UserManagement' and operationType eq 'Add'":           {`"activityDisplayName":"microsoft.directory/users/create"`, `"result":"success"`},
		"initiatedBy/user/id eq '" + ann + "'":                              {`"operationType":"Delete"`, `"result":"failure"`, `"userPrincipalName":"` + upn, `"id":"` + ben, `"app":null`},
		"initiatedBy/app/servicePrincipalId ne '1' and result eq 'success'": {"users/basic/update", `"id":"` + ann, "Ann A.", `"user":null`},
		"activityDateTime ge 2001-01-01T00:00:00Z":                          {"users/create"},
	} {
		r := ask(w.token, filter)
		for _, x := range want {
			if r.status != 200 || !strings.Contains(string(r.body), x) {
				t.Errorf("%s: %d, no %s in %s", filter, r.status, x, r.body)
			}
		}
		for _, x := range []string{goodPassword, signInAction, "standard/read"} {
			if strings.Contains(string(r.body), x) {
				t.Errorf("%s shows %s: %s", filter, x, r.body)
			}
		}
	}
	if r := ask(w.token, "activityDateTime lt 2001-01-01T00:00:00Z"); strings.Contains(string(r.body), "users/create") {
		t.Errorf("before the time: %s", r.body)
	}
	if r := ask(w.token, "secret eq 'x'"); r.status != 400 {
		t.Errorf("an unknown property: %d %s", r.status, r.body)
	}
	if r := ask(token, "result eq 'success'"); r.status != 403 {
		t.Errorf("a person without a role: %d %s", r.status, r.body)
	}
	all := w.graph(w.token, "GET", "auditLogs/directoryAudits", nil)
	seen, link, id := 0, "auditLogs/directoryAudits?$top=2", ""
	for link != "" {
		r := w.graph(w.token, "GET", link, nil)
		rows, _ := r.json["value"].([]any)
		if len(rows) > 2 || r.status != 200 {
			t.Fatalf("a page of %d: %d %s", len(rows), r.status, r.body)
		}
		for _, x := range rows {
			seen++
			id, _ = x.(map[string]any)["id"].(string)
		}
		next, _ := r.json["@odata.nextLink"].(string)
		_, link, _ = strings.Cut(next, "/v1.0/")
	}
	if rows, _ := all.json["value"].([]any); len(rows) != seen || seen < 4 {
		t.Errorf("%d changes by pages, %d at once", seen, len(rows))
	}
	if r := w.graph(w.token, "GET", "auditLogs/directoryAudits/"+id, nil); r.status != 200 || r.json["id"] != id {
		t.Errorf("by its id: %d %s", r.status, r.body)
	}
	if r := w.graph(token, "GET", "auditLogs/directoryAudits/"+id, nil); r.status != 403 {
		t.Errorf("by its id, to a person without a role: %d %s", r.status, r.body)
	}
	for _, no := range []string{"0", "999999", "x"} {
		if r := w.graph(w.token, "GET", "auditLogs/directoryAudits/"+no, nil); r.status != 404 {
			t.Errorf("none of the id %s: %d %s", no, r.status, r.body)
		}
	}
}
