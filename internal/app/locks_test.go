package app

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/governance"
	"castellan/internal/identity"
)

// locked reports whether an answer is a lock's refusal.
func locked(w *httptest.ResponseRecorder) bool {
	return w.Code == http.StatusConflict && strings.Contains(w.Body.String(), "following scope(s) are locked")
}

// lock locks a scope, a URL, and gives the lock's URL.
func (p *policed) lock(scope, level string) string {
	p.Helper()
	u := scope + "/providers/Microsoft.Authorization/locks/" + strings.ToLower(level)
	p.fine(u, map[string]any{"properties": map[string]any{"level": level}})
	return u
}

func (p *policed) unlock(u string) {
	p.Helper()
	must(p.T, p.a, http.StatusOK, p.token, http.MethodDelete, u+version, nil)
}

// Every door of Resource Manager is held by a lock above what it leads to, the
// Owner's request too: a ReadOnly lock but for doors that only read, a
// CanNotDelete lock at those that delete. Only locks themselves can be changed.
func TestEveryDoorIsLocked(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	p := newPoliced(t, a)
	for _, level := range []string{"ReadOnly", "CanNotDelete"} {
		u := p.lock(p.sub, level)
		held := 0
		for _, plane := range a.Planes {
			if plane.Name != "arm" && plane.Name != "ml" {
				continue
			}
			for _, rt := range plane.Routes {
				path := strings.Replace(fill(rt.Pattern, a), "/mlflow/x0000001", "/mlflow/v2.0", 1)
				if rt.Action.IsZero() || rt.Filtered() || !strings.Contains(path, a.Site.Subscription) || strings.Contains(path, "/locks") ||
					strings.HasSuffix(path, "/model-versions/create") { // which has to find its run in the body first
					continue
				}
				got := knock(a, rt.Method, a.Site.Host(), path, p.token)
				want := holds(level, plane, rt)
				if locked(got) != want && got.Code != http.StatusForbidden {
					t.Errorf("%s: %s %s (%s) = %d %s, want it held: %v", level, rt.Method, path, rt.Action.Name(), got.Code, got.Body, want)
				}
				if locked(got) {
					held++
				}
			}
		}
		if min := map[string]int{"ReadOnly": 100, "CanNotDelete": 30}[level]; held < min {
			t.Errorf("%s holds %d doors", level, held)
		}
		p.unlock(u)
	}
}

// holds is what a lock should do at a door, in words of its own.
func holds(level string, p *gate.Plane, rt gate.Route) bool {
	name := strings.ToLower(rt.Action.Name())
	word := name[strings.LastIndexByte(name, '/')+1:]
	switch {
	case word == "read", rt.Action.Data(), strings.Contains(name, "/policystates/"), strings.Contains(name, "/policyevents/"):
		return false
	case p.Name == "ml" && !strings.Contains(name, "/workspaces/models/") && !strings.Contains(name, "/workspaces/datastores/"): // run history and secrets
		return false
	}
	return level == "ReadOnly" || word == "delete"
}

// What others do at somebody's bidding is held, too: deployments, roles given to
// workspaces. Data is not, as in Azure.
func TestLocksHoldInside(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	p := newPoliced(t, a)
	u, body := p.account("lockedacct", map[string]any{})
	p.fine(u, body)
	container := u + "/blobServices/default/containers/data"
	p.fine(container, map[string]any{})
	lock := p.lock(u, "ReadOnly")

	template := map[string]any{"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "contentVersion": "1.0.0.0", "resources": []any{
		map[string]any{"type": "Microsoft.Storage/storageAccounts", "apiVersion": "2023-01-01", "name": "lockedacct", "location": "local", "sku": map[string]any{"name": "Standard_LRS"}, "kind": "StorageV2", "tags": map[string]any{"by": "deployment"}},
	}}
	d := p.group + "/providers/Microsoft.Resources/deployments/sneaky"
	w := call(a, p.token, http.MethodPut, d+version, map[string]any{"properties": map[string]any{"mode": "Incremental", "template": template}})
	if w.Code/100 == 2 {
		p.await("the deployment fails", func() bool {
			w = call(a, p.token, http.MethodGet, d+version, nil)
			return strings.Contains(w.Body.String(), `"provisioningState":"Failed"`)
		})
	}
	if !strings.Contains(w.Body.String(), "ScopeLocked") {
		t.Errorf("the deployment says %s", w.Body)
	}
	if got := must(t, a, http.StatusOK, p.token, http.MethodGet, u+version, nil); got["tags"] != nil {
		t.Errorf("the deployment changed the account: %v", got)
	}

	if w := call(a, p.token, http.MethodPost, u+"/listKeys"+version, nil); !locked(w) {
		t.Errorf("listKeys = %d %s", w.Code, w.Body)
	}
	if w := call(a, p.token, http.MethodDelete, container+version, nil); !locked(w) {
		t.Errorf("DELETE of a container by Resource Manager = %d %s", w.Code, w.Body)
	}
	const contributor = "ba92f5b4-2d11-453d-a403-e96b0029c9fe" // Storage Blob Data Contributor
	role := "/providers/Microsoft.Authorization/roleAssignments/00000000-0000-4000-8000-0000000000"
	give := func(n string) *httptest.ResponseRecorder {
		return call(a, p.token, http.MethodPut, u+role+n+version, map[string]any{"properties": map[string]any{
			"roleDefinitionId": p.path(p.sub) + "/providers/Microsoft.Authorization/roleDefinitions/" + contributor, "principalId": a.newPerson(t, "of "+n).object}})
	}
	if w := give("01"); !locked(w) {
		t.Errorf("a role below a ReadOnly lock = %d %s", w.Code, w.Body)
	}
	owner := a.newPerson(t, "an owner")
	a.giveRole(t, p.token, p.path(p.sub), owner.object, "Owner")
	as, err := a.identity.Known(a.Site.Tenant, owner.object)
	if err != nil {
		t.Fatal(err)
	}
	if err := (mlRoles{a}).Assign(t.Context(), as, a.newPerson(t, "a workspace").object, contributor, arm.MustID(p.path(u))); arm.CodeOf(err) != governance.Locked {
		t.Errorf("a role that the platform gives below a lock: %v", err)
	}
	p.unlock(lock)
	if w := give("02"); w.Code != http.StatusCreated {
		t.Fatalf("a role = %d %s", w.Code, w.Body)
	}
	lock = p.lock(u, "CanNotDelete")
	if w := call(a, p.token, http.MethodDelete, u+role+"02"+version, nil); !locked(w) {
		t.Errorf("taking a role below a CanNotDelete lock = %d %s", w.Code, w.Body)
	}
	for _, up := range []string{u, p.group} {
		w := call(a, p.token, http.MethodDelete, up+version, nil)
		if !locked(w) || !strings.Contains(w.Body.String(), "cannot perform delete operation because following scope(s) are locked: '"+p.path(u)+"'") {
			t.Errorf("DELETE %s = %d %s", up, w.Code, w.Body)
		}
	}
	p.fine(u, body)

	// Data is not held: the container goes by its own plane, and a lock on it with it.
	inner := p.lock(container, "ReadOnly")
	who := a.newPerson(t, "who has the data")
	a.giveRole(t, p.token, p.path(p.sub), who.object, "Storage Blob Data Contributor")
	w = call(a, tokenFor(t, a, who.id, who.secret, a.audiences()["blob"]), http.MethodDelete, "https://lockedacct.blob."+a.Site.StorageSuffix()+"/data?restype=container", nil, "x-ms-version", "2023-11-03")
	if w.Code != http.StatusAccepted {
		t.Errorf("DELETE of a container by its own plane = %d %s", w.Code, w.Body)
	}
	p.unlock(lock)
	if w := call(a, p.token, http.MethodGet, inner+version, nil); w.Code != http.StatusNotFound {
		t.Errorf("the lock on the container that is gone = %d %s", w.Code, w.Body)
	}
	must(t, a, http.StatusOK, p.token, http.MethodDelete, u+version, nil)
}

// slow is a body whose reading does something first.
type slow struct {
	*strings.Reader
	first func()
}

func (s *slow) Read(b []byte) (int, error) {
	if s.first != nil {
		s.first()
		s.first = nil
	}
	return s.Reader.Read(b)
}

// A request that was let in before the lock was there, and takes its time, is
// held all the same.
func TestLocksHoldWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	p := newPoliced(t, a)
	r := httptest.NewRequest(http.MethodPatch, versioned(p.group+version), &slow{strings.NewReader(`{"tags":{"team":"red"}}`), func() { p.lock(p.group, "ReadOnly") }})
	r.Header.Set("Authorization", "Bearer "+p.token)
	w := httptest.NewRecorder()
	a.Handler.ServeHTTP(w, r)
	if !locked(w) {
		t.Errorf("a PATCH that was under way = %d %s", w.Code, w.Body)
	}
	if got := must(t, a, http.StatusOK, p.token, http.MethodGet, p.group+version, nil); got["tags"].(map[string]any)["team"] != "green" {
		t.Errorf("it changed the group: %v", got)
	}
}

// No lock keeps a lost administrator out.
func TestRecoverBelowALock(t *testing.T) {
	t.Parallel()
	cfg := Config{Data: t.TempDir() + "/data"}
	a, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	p := newPoliced(t, a)
	p.lock(p.sub, "ReadOnly")
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Recover(t.Context(), cfg, identity.Recovery{UserName: "saviour@castellan.localhost"}, true); err != nil {
		t.Error(err)
	}
}
