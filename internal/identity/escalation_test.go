package identity

import (
	"net/http"
	"testing"
)

// Nobody gets further than they are by giving an application roles: an owner of
// a client gives it none at others' APIs, and who administers applications none
// at the directory's own API.
func TestRolesGivenToOnesOwnApplication(t *testing.T) {
	w := newWorld(t)
	e := newEnsemble(w)
	owner, apps, roles := w.robot("owner"), w.robot("apps"), w.robot("roles")
	w.give(apps.id, "Application Administrator")
	w.give(roles.id, "Global Administrator")
	ref := map[string]any{"@odata.id": "https://graph.microsoft.com/v1.0/directoryObjects/" + owner.id}
	w.admin("POST", "servicePrincipals/"+e.appSP+"/owners/$ref", ref)
	graph := w.s.index.spOf(w.first.Tenant, "00000003-0000-0000-c000-000000000000").ID
	give := func(r robot, path, to, at, role string) int {
		return w.graph(r.token, "POST", path, map[string]any{"principalId": to, "resourceId": at, "appRoleId": role}).status
	}
	held, at := "servicePrincipals/"+e.appSP+"/appRoleAssignments", "servicePrincipals/"+graph+"/appRoleAssignedTo"
	if n := give(owner, held, e.appSP, e.apiSP, taskID); n != http.StatusForbidden {
		t.Errorf("an owner of the client gives it a role at another's API: %d", n)
	}
	for name, r := range map[string]robot{"an owner": owner, "an Application Administrator": apps} {
		for _, path := range []string{held, at} {
			if n := give(r, path, e.appSP, graph, defaultRole); n != http.StatusForbidden {
				t.Errorf("%s gives a role at the directory's API by %s: %d", name, path, n)
			}
		}
	}
	if list := w.admin("GET", held, nil).json["value"].([]any); len(list) != 0 {
		t.Fatalf("what was refused is there: %v", list)
	}
	if n := give(apps, held, e.appSP, e.apiSP, taskID); n != http.StatusCreated {
		t.Errorf("an Application Administrator gives a role at an application: %d", n)
	}
	if n := give(roles, held, e.appSP, graph, defaultRole); n != http.StatusCreated {
		t.Errorf("a Global Administrator assigns the directory's API: %d", n)
	}
	w.admin("POST", "servicePrincipals/"+e.apiSP+"/owners/$ref", ref)
	if n := give(owner, "servicePrincipals/"+e.apiSP+"/appRoleAssignedTo", owner.id, e.apiSP, taskID); n != http.StatusCreated {
		t.Errorf("an owner of the API gives a role at it: %d", n)
	}
}

// The page that asks administrators for consent keeps to the same.
func TestConsentToTheDirectorysRoles(t *testing.T) {
	w := newWorld(t)
	ann, _ := w.user("ann")
	list := []asked{{shop: shop{first: true}, roles: []AppRole{{ID: taskID}}}}
	w.give(ann, "Application Administrator")
	u := w.s.index.user(ann)
	if all, self := w.s.consents(u, list); all || self {
		t.Error("an Application Administrator consents to roles at the directory's API")
	}
	if all, _ := w.s.consents(u, []asked{{roles: []AppRole{{ID: taskID}}}}); !all {
		t.Error("an Application Administrator does not consent to roles at an application")
	}
	w.give(ann, "Global Administrator")
	if all, _ := w.s.consents(u, list); !all {
		t.Error("a Global Administrator does not consent")
	}
}
