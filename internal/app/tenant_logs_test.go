package app

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"castellan/internal/arm"
	"castellan/internal/identity"
)

// tenantLogs are the lines that an account has of a tenant's category.
func tenantLogs(t *testing.T, a *App, token, account, category string) (out []map[string]any) {
	t.Helper()
	container := "https://" + account + ".blob.core." + a.Site.Suffix + "/insights-logs-" + strings.ToLower(category)
	w := call(a, token, http.MethodGet, container+"?restype=container&comp=list", nil, "x-ms-version", storageVersion)
	for _, part := range strings.Split(w.Body.String(), "<Name>")[1:] {
		name, _, _ := strings.Cut(part, "</Name>")
		if !strings.HasPrefix(name, "tenantId="+a.Site.Tenant+"/y=") || !strings.HasSuffix(name, "/m=00/PT1H.json") {
			t.Errorf("a blob of logs is %s", name)
		}
		b := call(a, token, http.MethodGet, container+"/"+(&url.URL{Path: name}).EscapedPath(), nil, "x-ms-version", storageVersion)
		for line := range strings.Lines(b.Body.String()) {
			var e map[string]any
			if err := json.Unmarshal([]byte(line), &e); err != nil || e["category"] != category || e["tenantId"] != a.Site.Tenant || e["resourceId"] != "/tenants/"+a.Site.Tenant+"/providers/Microsoft.aadiam" {
				t.Errorf("the line %q: %v", line, err)
			}
			out = append(out, e)
		}
	}
	return out
}

// A tenant's sign-ins of each kind and the changes of its directory are sent where its
// own settings say, each to its category, and nothing of another tenant's. Settings
// are for administrators of the directory alone, whatever roles they have at the
// subscription, and an account is written to by who may read its keys.
func TestTenantsLogsAreSent(t *testing.T) {
	t.Parallel()
	a, s := serveHere(t)
	p := newPoliced(t, a)
	l := &lab{door: s.door, base: s.ready.ARM, sub: s.ready.SubscriptionID, location: s.ready.Location, arm: p.token, graph: a.admin(t, "graph")}
	account, body := p.account("tenantlogs", nil)
	p.fine(account, body)
	base, v := a.Site.Base()+"/providers/microsoft.aadiam/diagnosticSettings", "?api-version=2017-04-01"
	var logs []any
	kinds := []string{"AuditLogs", "SignInLogs", "NonInteractiveUserSignInLogs", "ServicePrincipalSignInLogs", "ManagedIdentitySignInLogs"}
	for _, c := range kinds {
		logs = append(logs, map[string]any{"category": c, "enabled": true, "retentionPolicy": map[string]any{"enabled": false, "days": 0}})
	}
	setting := func(more ...any) map[string]any {
		props := map[string]any{"storageAccountId": p.path(account), "logs": logs}
		for i := 0; i+1 < len(more); i += 2 {
			props[more[i].(string)] = more[i+1]
		}
		return map[string]any{"properties": props}
	}

	// Who may.
	as := func(name, directory, role string) string {
		c := a.newPerson(t, name)
		if directory != "" {
			l.must(t, nil, l.graph, http.MethodPost, s.ready.Graph+"/v1.0/roleManagement/directory/roleAssignments", map[string]any{"principalId": c.object, "roleDefinitionId": directory, "directoryScopeId": "/"})
		}
		if role != "" {
			a.giveRole(t, p.token, p.path(p.sub), c.object, role)
		}
		return tokenFor(t, a, c.id, c.secret, a.audiences()["arm"])
	}
	const administrator, reader = "194ae4cb-b126-40b2-bd5b-6091b380977d", "5d6b6bb7-de71-4623-b4af-96380a352509" // of security
	for name, c := range map[string]struct {
		token             string
		list, put, delete int
	}{
		"a stranger":                      {as("stranger", "", ""), 403, 403, 403},
		"the subscription's owner":        {as("owner", "", "Owner"), 403, 403, 403},
		"who reads security":              {as("reads", reader, "Contributor"), 200, 403, 403},
		"who administers, and no account": {as("keyless", administrator, ""), 200, 403, 204},
		"who administers both":            {as("both", administrator, "Contributor"), 200, 200, 200},
	} {
		if w := call(a, c.token, http.MethodGet, base+v, nil); w.Code != c.list {
			t.Errorf("%s lists: %d %s", name, w.Code, w.Body)
		}
		if w := call(a, c.token, http.MethodPut, base+"/tried"+v, setting()); w.Code != c.put || name == "who administers, and no account" && !strings.Contains(w.Body.String(), "LinkedAuthorizationFailed") {
			t.Errorf("%s makes a setting: %d %s", name, w.Code, w.Body)
		}
		if w := call(a, c.token, http.MethodDelete, base+"/tried"+v, nil); w.Code != c.delete {
			t.Errorf("%s deletes: %d %s", name, w.Code, w.Body)
		}
	}
	for why, b := range map[string]any{
		"an unknown category": setting("logs", []any{map[string]any{"category": "RiskyUsers", "enabled": true}}),
		"a group":             setting("logs", []any{map[string]any{"categoryGroup": "allLogs", "enabled": true}}),
		"a workspace":         setting("workspaceId", "/subscriptions/x"),
		"nowhere":             setting("storageAccountId", nil),
		"another name":        map[string]any{"name": "x", "properties": setting()["properties"]},
	} {
		if w := call(a, p.token, http.MethodPut, base+"/all"+v, b); w.Code != http.StatusBadRequest {
			t.Errorf("a setting with %s = %d %s", why, w.Code, w.Body)
		}
	}

	// What is sent.
	made := must(t, a, http.StatusOK, p.token, http.MethodPut, base+"/all"+v, setting())
	if made["id"] != "/providers/microsoft.aadiam/diagnosticSettings/all" || made["name"] != "all" || len(made["properties"].(map[string]any)["logs"].([]any)) != 5 {
		t.Errorf("the setting is %v", made)
	}
	must(t, a, http.StatusConflict, p.token, http.MethodPut, base+"/again"+v, setting())
	other := newTenant(t, a, "other.example")
	theirs := tokenAt(t, a, other.tenant, other.admin.id, other.admin.secret, a.Site.Base())
	if got := must(t, a, http.StatusOK, theirs, http.MethodGet, base+v, nil)["value"].([]any); len(got) != 0 {
		t.Errorf("another tenant sees %v", got)
	}
	must(t, a, http.StatusNotFound, theirs, http.MethodGet, base+"/all"+v, nil)
	must(t, a, http.StatusNoContent, theirs, http.MethodDelete, base+"/all"+v, nil)
	if got := must(t, a, http.StatusForbidden, theirs, http.MethodPut, base+"/all"+v, setting()); !strings.Contains(fmt.Sprint(got), "LinkedAuthorizationFailed") {
		t.Errorf("another tenant sends to our account: %v", got)
	}

	_, person := l.newHuman(t, s, "logged")
	l.signedIn(t, s, person, a.Site.Base(), "https://vault.azure.net") // at the page, then by a refresh token
	robot := a.newPerson(t, "robot")
	tokenFor(t, a, robot.id, robot.secret, a.Site.Base())
	if w := call(a, "", http.MethodPost, a.Site.Base()+"/"+a.Site.Tenant+"/oauth2/v2.0/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {robot.id}, "client_secret": {"wrong"}, "scope": {a.Site.Base() + "/.default"}}); w.Code == http.StatusOK {
		t.Fatal("a wrong secret is taken")
	}
	mi := arm.MustID(p.path(p.group) + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/logged")
	l.put(t, mi.String(), map[string]any{"location": l.location})
	mint := a.system(a.Site.Tenant, "test", &arm.Lease{Scope: mi, Actions: []arm.Action{identity.MintManaged}, Why: "a test"})
	if _, _, _, err := (mlTokens{a}).Managed(t.Context(), mint, mi, a.Site.Base(), ""); err != nil {
		t.Fatal(err)
	}
	me := a.newPerson(t, "who reads them")
	a.giveRole(t, p.token, p.path(account), me.object, "Storage Blob Data Reader")
	blobs := tokenFor(t, a, me.id, me.secret, a.audiences()["blob"])
	of := func(category string, is func(e, told map[string]any) bool) func() bool {
		return func() bool {
			for _, e := range tenantLogs(t, a, blobs, "tenantlogs", category) {
				if told, ok := e["properties"].(map[string]any); ok && is(e, told) {
					return true
				}
			}
			return false
		}
	}
	for what, there := range map[string]func() bool{
		"the person at the page": of("SignInLogs", func(e, told map[string]any) bool {
			return told["userPrincipalName"] == person.UserName && told["isInteractive"] == true && e["resultType"] == "0"
		}),
		"the refreshed token": of("NonInteractiveUserSignInLogs", func(_, told map[string]any) bool {
			return told["userPrincipalName"] == person.UserName && told["isInteractive"] == false
		}),
		"the application": of("ServicePrincipalSignInLogs", func(e, told map[string]any) bool { return told["appId"] == robot.id && e["resultType"] == "0" }),
		"a wrong secret": of("ServicePrincipalSignInLogs", func(e, told map[string]any) bool {
			return told["appId"] == robot.id && e["resultType"] == "7000215" && e["resultSignature"] == "FAILURE"
		}),
		"the managed identity": of("ManagedIdentitySignInLogs", func(_, told map[string]any) bool { return told["userPrincipalName"] == "logged" }),
		"a new application": of("AuditLogs", func(e, told map[string]any) bool {
			return e["operationName"] == "microsoft.directory/applications/create" && told["result"] == "success"
		}),
	} {
		l.until(t, 20*time.Second, what+" is in the logs", there)
	}
	for _, c := range kinds {
		for _, e := range tenantLogs(t, a, blobs, "tenantlogs", c) {
			if text := fmt.Sprint(e); strings.Contains(text, other.tenant) || strings.Contains(text, other.admin.id) || strings.Contains(text, robot.secret) {
				t.Errorf("the log has %s", text)
			}
		}
	}

	must(t, a, http.StatusOK, p.token, http.MethodDelete, base+"/all"+v, nil)
	must(t, a, http.StatusNotFound, p.token, http.MethodGet, base+"/all"+v, nil)
	if got := must(t, a, http.StatusOK, p.token, http.MethodGet, a.Site.Base()+"/providers/microsoft.aadiam/diagnosticSettingsCategories"+v, nil)["value"].([]any); len(got) != len(kinds) {
		t.Errorf("the categories are %v", got)
	}
}
