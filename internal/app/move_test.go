package app

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"castellan/internal/arm"
	"castellan/internal/governance"
	"castellan/internal/rbac"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// another is a second subscription of the home tenant, as a URL, which the
// administrator's application owns.
func (p *policed) another() string {
	p.Helper()
	id := arm.NewUUID()
	if err := p.a.db.Do(p.Context(), func(tx *store.Tx) error {
		p.a.Site.Tenancy.Put(id, p.a.Site.Tenant)
		props, err := json.Marshal(governance.Subscription{Name: "second", Tenant: p.a.Site.Tenant})
		if err != nil {
			return err
		}
		sub := arm.MustID("/subscriptions/" + id)
		if err := resource.Save(tx, &resource.Doc{ID: sub, Name: id, Type: resource.Subscription.Type, Instance: arm.NewUUID(), Etag: `"1"`, Properties: props}); err != nil {
			return err
		}
		return p.a.roles.Assign(tx, rbac.Assignment{Scope: sub, RoleID: ownerRole, Principal: claimOf(p.token, "oid"), PrincipalType: arm.ServicePrincipal}, p.a.system(p.a.Site.Tenant, "setup", nil))
	}); err != nil {
		p.Fatal(err)
	}
	return p.a.Site.Base() + "/subscriptions/" + id
}

// move asks to move resources, URLs, from one group to another.
func (p *policed) move(token, verb, from, to string, what ...string) *httptest.ResponseRecorder {
	p.Helper()
	ids := []string{}
	for _, u := range what {
		ids = append(ids, p.path(u))
	}
	return call(p.a, token, http.MethodPost, from+"/"+verb+version, map[string]any{"resources": ids, "targetResourceGroup": p.path(to)})
}

// What is moved has another id from one moment to the next: its content and its
// endpoints stay, and nothing is left at the old id, neither rights nor doors.
func TestMove(t *testing.T) {
	t.Parallel()
	dir := t.TempDir() + "/data"
	a, err := New(t.Context(), Config{Data: dir})
	if err != nil {
		t.Fatal(err)
	}
	p := newPoliced(t, a)
	sub2 := p.another()
	to := sub2 + "/resourceGroups/target"
	p.put(http.StatusCreated, to, map[string]any{"location": "local"})

	account, body := p.account("movedacct", map[string]any{})
	p.fine(account, body)
	p.fine(account+"/blobServices/default/containers/data", map[string]any{})
	vault := p.group + "/providers/Microsoft.KeyVault/vaults/moved-vault"
	p.fine(vault, map[string]any{"location": "local", "properties": map[string]any{"tenantId": a.Site.Tenant, "sku": map[string]any{"family": "A", "name": "standard"}, "enableRbacAuthorization": true}})
	logs := p.group + "/providers/Microsoft.OperationalInsights/workspaces/moved-logs"
	p.fine(logs, map[string]any{"location": "local"})

	guest := a.newPerson(t, "guest")
	const blobOwner, secretsOfficer = "Storage Blob Data Owner", "Key Vault Secrets Officer"
	a.giveRole(t, p.token, p.path(account), guest.object, blobOwner)
	a.giveRole(t, p.token, p.path(vault), guest.object, secretsOfficer)
	blobToken, vaultToken := tokenFor(t, a, guest.id, guest.secret, a.audiences()["blob"]), tokenFor(t, a, guest.id, guest.secret, a.audiences()["vault"])
	blob := a.Site.BlobURL("movedacct") + "data/x"
	secret := a.Site.VaultURL("moved-vault") + "secrets/s?api-version=7.4"
	head := []string{"x-ms-version", "2023-11-03", "x-ms-blob-type", "BlockBlob"}
	must(t, a, http.StatusCreated, blobToken, http.MethodPut, blob, "hello", head...)
	must(t, a, http.StatusOK, vaultToken, http.MethodPut, secret, map[string]any{"value": "hush"})

	what := []string{account, vault, logs}
	before := documents(t, a, a.Site.Subscription)
	if w := p.move(p.token, "validateMoveResources", p.group, to, what...); w.Code != http.StatusNoContent {
		t.Fatalf("validate = %d %s", w.Code, w.Body)
	}
	if documents(t, a, a.Site.Subscription) != before {
		t.Error("validating changed something")
	}
	w := p.move(p.token, "moveResources", p.group, to, what...)
	if w.Code != http.StatusAccepted || w.Header().Get("Location") == "" {
		t.Fatalf("move = %d %s", w.Code, w.Body)
	}
	must(t, a, http.StatusNoContent, p.token, http.MethodGet, w.Header().Get("Location"), nil)

	for _, u := range append(what, account+"/blobServices/default", account+"/blobServices/default/containers/data", account+"/fileServices/default") {
		must(t, a, http.StatusNotFound, p.token, http.MethodGet, u+version, nil)
		now := strings.Replace(u, p.group, to, 1)
		if got := must(t, a, http.StatusOK, p.token, http.MethodGet, now+version, nil)["id"]; got != p.path(now) {
			t.Errorf("%s has the id %v", now, got)
		}
	}
	// Rights that hung on the old ids are gone, and come back with nobody.
	for _, c := range []struct{ token, u string }{{blobToken, blob}, {vaultToken, secret}} {
		if w := call(a, c.token, http.MethodGet, c.u, nil, head...); w.Code != http.StatusForbidden {
			t.Errorf("GET %s by a role at the old id = %d %s", c.u, w.Code, w.Body)
		}
	}
	a.giveRole(t, p.token, p.path(to), guest.object, blobOwner)
	a.giveRole(t, p.token, p.path(to), guest.object, secretsOfficer)
	if w := call(a, blobToken, http.MethodGet, blob, nil, head...); w.Code != http.StatusOK || w.Body.String() != "hello" {
		t.Errorf("the blob is %d %s", w.Code, w.Body)
	}
	if got := must(t, a, http.StatusOK, vaultToken, http.MethodGet, secret, nil)["value"]; got != "hush" {
		t.Errorf("the secret is %v", got)
	}
	p.put(http.StatusConflict, account, body) // the name is taken, by the same account
	must(t, a, http.StatusNotFound, p.token, http.MethodPost, account+"/listKeys"+version, nil)
	must(t, a, http.StatusOK, p.token, http.MethodPost, strings.Replace(account, p.group, to, 1)+"/listKeys"+version, nil)
	for scope, action := range map[string]string{p.sub: "Microsoft.Resources/subscriptions/resourceGroups/moveResources/action", sub2: "Microsoft.KeyVault/vaults/write"} {
		u := scope + "/providers/microsoft.insights/eventtypes/management/values?api-version=2015-04-01&$filter=" + url.QueryEscape("eventTimestamp ge '2020-01-01T00:00:00Z'")
		if w := call(a, p.token, http.MethodGet, u, nil); !strings.Contains(w.Body.String(), action) {
			t.Errorf("the activity log of %s does not tell of %s: %s", scope, action, w.Body)
		}
	}

	// And back.
	if w := p.move(p.token, "moveResources", to, p.group, strings.Replace(account, p.group, to, 1)); w.Code != http.StatusAccepted {
		t.Errorf("moving back = %d %s", w.Code, w.Body)
	}
	if w := call(a, blobToken, http.MethodGet, blob, nil, head...); w.Code != http.StatusForbidden {
		t.Errorf("the blob at its first id again = %d", w.Code)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := New(t.Context(), Config{Data: dir}) // which finds every name's resource, or does not start
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

// A move that may not be is refused by name and changes nothing.
func TestMoveRefused(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	p := newPoliced(t, a)
	to := p.sub + "/resourceGroups/target"
	p.put(http.StatusCreated, to, map[string]any{"location": "local"})
	account, body := p.account("stuckacct", map[string]any{})
	p.fine(account, body)
	used, body := p.account("usedacct", map[string]any{})
	p.fine(used, body)
	vault := p.group + "/providers/Microsoft.KeyVault/vaults/used-vault"
	p.fine(vault, map[string]any{"location": "local", "properties": map[string]any{"tenantId": a.Site.Tenant, "sku": map[string]any{"family": "A", "name": "standard"}}})
	mi := p.group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/mi"
	p.fine(mi, map[string]any{"location": "local"})
	ws := p.group + "/providers/Microsoft.MachineLearningServices/workspaces/lab"
	p.fine(ws, map[string]any{"location": "local", "identity": map[string]any{"type": "SystemAssigned"}, "properties": map[string]any{"storageAccount": p.path(used), "keyVault": p.path(vault)}})
	p.await("the workspace is there", func() bool {
		return strings.Contains(call(a, p.token, http.MethodGet, ws+version, nil).Body.String(), `"Succeeded"`)
	})
	other := newTenant(t, a, "other.example")
	foreign := a.Site.Base() + "/subscriptions/" + other.sub + "/resourceGroups/theirs"
	must(t, a, http.StatusCreated, tokenAt(t, a, other.tenant, other.admin.id, other.admin.secret, a.Site.Base()), http.MethodPut, foreign+version, map[string]any{"location": "local"})

	// mover may do anything in the source but give roles, and owns a group.
	mover, nobody := a.newPerson(t, "mover"), a.newPerson(t, "nobody")
	own := p.sub + "/resourceGroups/own"
	p.put(http.StatusCreated, own, map[string]any{"location": "local"})
	a.giveRole(t, p.token, p.path(p.group), mover.object, "Contributor")
	a.giveRole(t, p.token, p.path(own), mover.object, "Owner")
	a.giveRole(t, p.token, p.path(p.sub), nobody.object, "Reader")
	moverToken, nobodyToken := tokenFor(t, a, mover.id, mover.secret, a.Site.Base()), tokenFor(t, a, nobody.id, nobody.secret, a.Site.Base())

	deny := p.define("no-storage", "All", nil, map[string]any{"if": map[string]any{"field": "type", "equals": "Microsoft.Storage/storageAccounts"}, "then": map[string]any{"effect": "deny"}})
	strict := p.sub + "/resourceGroups/strict"
	p.put(http.StatusCreated, strict, map[string]any{"location": "local"})
	p.assign(strict, "no-storage", deny, nil)
	held := p.sub + "/resourceGroups/held"
	p.put(http.StatusCreated, held, map[string]any{"location": "local"})
	p.lock(held, "ReadOnly")

	before := documents(t, a, a.Site.Subscription)
	for name, c := range map[string]struct {
		token, from, to string
		what            []string
		code            string
	}{
		"a kind that can't be moved":         {p.token, p.group, to, []string{account, mi}, "ResourceMoveProviderValidationFailed"},
		"a workspace":                        {p.token, p.group, to, []string{ws}, "ResourceMoveProviderValidationFailed"},
		"a workspace's storage account":      {p.token, p.group, to, []string{used}, "MissingMoveDependentResources"},
		"a workspace's vault":                {p.token, p.group, to, []string{account, vault}, "MissingMoveDependentResources"},
		"what is not there":                  {p.token, p.group, to, []string{account, account + "x"}, "ResourceNotFound"},
		"what lies in another":               {p.token, p.group, to, []string{account + "/blobServices/default"}, "InvalidRequestContent"},
		"the same twice":                     {p.token, p.group, to, []string{account, strings.ToUpper(p.path(account))}, "InvalidRequestContent"},
		"nothing":                            {p.token, p.group, to, nil, "InvalidRequestContent"},
		"to the same group":                  {p.token, p.group, p.group, []string{account}, "SourceAndTargetGroupAreSame"},
		"to no group":                        {p.token, p.group, p.sub, []string{account}, "InvalidTargetResourceGroup"},
		"to a group that is not there":       {p.token, p.group, to + "x", []string{account}, "ResourceGroupNotFound"},
		"from another group":                 {p.token, to, own, []string{account}, "InvalidRequestContent"},
		"against a policy":                   {p.token, p.group, strict, []string{account}, "RequestDisallowedByPolicy"},
		"into a lock":                        {p.token, p.group, held, []string{account}, "ScopeLocked"},
		"to another tenant":                  {p.token, p.group, foreign, []string{account}, "LinkedAuthorizationFailed"},
		"by who may not move":                {nobodyToken, p.group, to, []string{account}, "AuthorizationFailed"},
		"by who may not write there":         {moverToken, p.group, to, []string{account}, "LinkedAuthorizationFailed"},
		"to where the mover has more to say": {moverToken, p.group, own, []string{account}, "LinkedAuthorizationFailed"},
	} {
		for _, verb := range []string{"validateMoveResources", "moveResources"} {
			if w := p.move(c.token, verb, c.from, c.to, c.what...); w.Code/100 != 4 || !strings.Contains(w.Body.String(), `"`+c.code+`"`) {
				t.Errorf("%s: %s = %d %s, want %s", name, verb, w.Code, w.Body, c.code)
			}
		}
	}
	lock := p.lock(account, "CanNotDelete")
	if w := p.move(p.token, "moveResources", p.group, to, account); !locked(w) {
		t.Errorf("moving out of a lock = %d %s", w.Code, w.Body)
	}
	p.unlock(lock)
	if documents(t, a, a.Site.Subscription) != before {
		t.Error("a refused move changed something")
	}
}
