package app

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"castellan/internal/arm"
)

// A cancelled subscription is read and emptied, and nothing else, whoever asks, until
// it is enabled again; one with resources is cancelled only by who says so.
func TestCancelledSubscription(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	token, base, sub := a.admin(t, "arm"), a.Site.Base(), "/subscriptions/"+a.Site.Subscription
	group, at := sub+"/resourceGroups/kept", map[string]any{"location": "local"}
	account := group + "/providers/Microsoft.Storage/storageAccounts/keptacct"
	made(t, a, token, group, at)
	made(t, a, token, account, map[string]any{"location": "local", "kind": "StorageV2", "sku": map[string]any{"name": "Standard_LRS"}})
	reader := a.newPerson(t, "reader")
	a.giveRole(t, token, sub, reader.object, "Reader")
	readers := tokenFor(t, a, reader.id, reader.secret, a.Site.Base())
	ask := func(token, method, path string, body any) (int, string) {
		w := call(a, token, method, base+path+"?api-version=any", body)
		return w.Code, w.Body.String()
	}
	is := func(state string) {
		t.Helper()
		if got := fmt.Sprint(must(t, a, http.StatusOK, token, http.MethodGet, base+sub+"?api-version=any", nil)["state"]); got != state {
			t.Errorf("the subscription is %s, want %s", got, state)
		}
	}
	const cancel, enable = "/providers/Microsoft.Subscription/cancel", "/providers/Microsoft.Subscription/enable"
	for what, c := range map[string]struct {
		token, path string
		want        int
	}{
		"by a reader":          {readers, cancel + "?IgnoreResourceCheck=true&api-version=any", 403},
		"with resources in it": {token, cancel + "?api-version=any", 409},
		"perhaps":              {token, cancel + "?IgnoreResourceCheck=maybe&api-version=any", 400},
	} {
		if w := call(a, c.token, http.MethodPost, base+sub+c.path, nil); w.Code != c.want {
			t.Errorf("cancelled %s: %d %s", what, w.Code, w.Body)
		}
	}
	is("Enabled")
	must(t, a, http.StatusOK, token, http.MethodPost, base+sub+cancel+"?IgnoreResourceCheck=true&api-version=any", nil)
	is("Disabled")
	const role = "/providers/Microsoft.Authorization/roleAssignments/"
	for _, c := range []struct {
		method, path string
		body         any
	}{
		{http.MethodPut, sub + "/resourceGroups/new", at},
		{http.MethodPatch, group, map[string]any{"tags": map[string]any{"a": "b"}}},
		{http.MethodPatch, account, map[string]any{"tags": map[string]any{"a": "b"}}},
		{http.MethodPost, account + "/listKeys", nil},
		{http.MethodPost, account + "/regenerateKey", map[string]any{"keyName": "key1"}},
		{http.MethodPut, sub + role + arm.NewUUID(), assignmentOf(a.Site.Subscription, roles[0], reader.object)},
		{http.MethodPost, sub + "/providers/Microsoft.Subscription/rename", map[string]any{"subscriptionName": "other"}},
	} {
		if code, body := ask(token, c.method, c.path, c.body); code != http.StatusConflict || !strings.Contains(body, `"ReadOnlyDisabledSubscription"`) {
			t.Errorf("%s %s in a cancelled subscription = %d %s", c.method, c.path, code, body)
		}
	}
	if code, body := ask(readers, http.MethodGet, account, nil); code != http.StatusOK {
		t.Errorf("a reader reads: %d %s", code, body)
	}
	if code, body := ask(readers, http.MethodPost, sub+enable, nil); code != http.StatusForbidden {
		t.Errorf("a reader enables it: %d %s", code, body)
	}
	if code, body := ask(token, http.MethodDelete, account, nil); code/100 != 2 {
		t.Errorf("deleting in a cancelled subscription: %d %s", code, body)
	}
	must(t, a, http.StatusOK, token, http.MethodPost, base+sub+enable+"?api-version=any", nil)
	is("Enabled")
	made(t, a, token, sub+"/resourceGroups/new", at)

	// Another alias is given by whoever may rename the subscription; it can't change what it is of.
	alias := func(token, of string) (int, string) {
		return ask(token, http.MethodPut, "/providers/Microsoft.Subscription/aliases/again", map[string]any{"properties": map[string]any{"subscriptionId": of}})
	}
	must(t, a, http.StatusOK, token, http.MethodPost, base+"/providers/Microsoft.Authorization/elevateAccess?api-version=any", nil)
	a.giveRole(t, token, "/providers/Microsoft.Management/managementGroups/"+a.Site.Tenant, claimOf(token, "oid"), "Owner")
	if code, body := alias(readers, a.Site.Subscription); code != http.StatusForbidden {
		t.Errorf("a reader's alias: %d %s", code, body)
	}
	if code, body := alias(token, arm.NewUUID()); code/100 == 2 {
		t.Errorf("an alias of nothing: %d %s", code, body)
	}
	if code, body := alias(token, a.Site.Subscription); code != http.StatusCreated || !strings.Contains(body, a.Site.Subscription) {
		t.Errorf("an alias: %d %s", code, body)
	}
	other := newTenant(t, a, "other.example")
	if code, body := alias(token, other.sub); code != http.StatusForbidden {
		t.Errorf("an alias of another tenant's: %d %s", code, body)
	}
}
