package app

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"castellan/internal/cmk"
	"castellan/internal/identity"
	"castellan/internal/outside"
)

// serveApp serves a platform on loopback until end is called.
func serveApp(t *testing.T, a *App) (e *Edge, end func()) {
	t.Helper()
	e, err := Listen(a, "127.0.0.1:0", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Serve(ctx) }()
	var over bool
	end = func() {
		if cancel(); !over {
			over = true
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(end)
	return e, end
}

func writeJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	path := t.TempDir() + "/settings.json"
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// issuerOf is the issuer of a tenant's tokens.
func issuerOf(a *App, tenant string) string { return a.Site.Base() + "/" + tenant + "/v2.0" }

// user makes a user-assigned identity, and gives its id and its principal.
func (g *guarded) user(name string) (id, principal string) {
	g.Helper()
	u := g.group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/" + name
	g.fine(u, map[string]any{"location": "local"})
	d := must(g.T, g.a, http.StatusOK, g.policed.token, http.MethodGet, u+version, nil)
	return g.path(u), fmt.Sprint(d["properties"].(map[string]any)["principalId"])
}

// trust makes an application in a tenant that trusts another tenant's identity.
func trust(t *testing.T, a *App, graphToken, iss, subject string) (client, object, credential string) {
	t.Helper()
	graph := "https://" + a.Site.GraphHost() + "/v1.0"
	app := must(t, a, http.StatusCreated, graphToken, http.MethodPost, graph+"/applications", map[string]any{"displayName": "key user"})
	sp := must(t, a, http.StatusCreated, graphToken, http.MethodPost, graph+"/servicePrincipals", map[string]any{"appId": app["appId"]})
	at := graph + "/applications/" + fmt.Sprint(app["id"]) + "/federatedIdentityCredentials"
	must(t, a, http.StatusCreated, graphToken, http.MethodPost, at, map[string]any{"name": "identity", "issuer": iss, "subject": subject, "audiences": []string{identity.ExchangeAudience}})
	return fmt.Sprint(app["appId"]), fmt.Sprint(sp["id"]), at + "/identity"
}

// encrypted is a body of an account whose key a key elsewhere guards.
func (g *guarded) encrypted(user, client, uri string) map[string]any {
	_, body := g.policed.account("far", nil)
	body["identity"] = map[string]any{"type": "UserAssigned", "userAssignedIdentities": map[string]any{user: map[string]any{}}}
	body["properties"] = map[string]any{"encryption": map[string]any{
		"keySource": "Microsoft.Keyvault", "identity": map[string]any{"userAssignedIdentity": user, "federatedIdentityClientId": client},
		"keyvaultproperties": map[string]any{"keyname": "k", "keyvaulturi": uri},
	}}
	return body
}

// far reads or writes what lies in the account far.
func (g *guarded) far(method, path, body string) (int, string) {
	w := call(g.a, g.blobs, method, "https://far.blob.core."+g.a.Site.Suffix+"/data"+path, body, "x-ms-version", "2023-11-03", "x-ms-blob-type", "BlockBlob")
	return w.Code, w.Body.String()
}

func (g *guarded) wantFar(t *testing.T, status int, says string) {
	t.Helper()
	if code, body := g.far(http.MethodGet, "/x", ""); code != status || !strings.Contains(body, says) {
		t.Errorf("GET = %d %.300s, want %d %s", code, body, status, says)
	}
}

// lapse is when what the vault elsewhere said last no longer stands.
func (g *guarded) lapse() { g.clock.to(g.clock.now().Add(cmk.Lease + time.Second)) }

// makeFar makes the account far, with a blob x.
func (g *guarded) makeFar(t *testing.T, user, client, uri string) {
	t.Helper()
	u := g.group + "/providers/Microsoft.Storage/storageAccounts/far"
	g.fine(u, g.encrypted(user, client, uri))
	g.a.giveRole(t, g.policed.token, g.path(u), g.operator(), "Storage Blob Data Owner")
	for _, x := range []string{"?restype=container", "/x"} {
		if code, body := g.far(http.MethodPut, x, "canary"); code != http.StatusCreated {
			t.Fatalf("PUT %s = %d %s", x, code, body)
		}
	}
}

// A key in another installation guards an account and a workspace here: its
// administrator takes it away and gives it back; while that installation is down all
// stays shut; and no vault is asked that is not listed.
func TestAKeyInAnotherInstallation(t *testing.T) {
	t.Parallel()
	l := &guardedLab{guarded: newGuarded(t)}
	g := l.guarded
	l.token, l.user = g.policed.token, g.group+"/providers/Microsoft.ManagedIdentity/userAssignedIdentities/keyuser"
	g.a.Run(t.Context())
	user, principal := g.user("keyuser")
	iss := issuerOf(g.a, g.a.Site.Tenant)
	keys := must(t, g.a, http.StatusOK, "", http.MethodGet, g.a.Site.Base()+"/"+g.a.Site.Tenant+"/discovery/v2.0/keys", nil)
	there := newGuardedAt(t, Config{Suffix: "there.localhost", Issuers: writeJSON(t, map[string]any{"keys": map[string]any{iss: keys}})})
	client, object, credential := trust(t, there.a, there.a.admin(t, "graph"), iss, principal)
	uri := "https://guards." + there.a.Site.VaultSuffix()

	e, end := serveApp(t, there.a)
	r, err := e.Ready()
	if err != nil {
		t.Fatal(err)
	}
	var settings string
	list := func(vaults ...outside.Vault) {
		t.Helper()
		settings = writeJSON(t, outside.Settings{CAFile: r.CAFile, Vaults: vaults})
		if g.a.outside, err = outside.Open(outside.Config{File: settings, Assert: g.a.assert, Now: g.a.Now}); err != nil {
			t.Fatal(err)
		}
	}
	listed := outside.Vault{Host: "guards." + there.a.Site.VaultSuffix(), Authority: there.a.Site.Base() + "/" + there.a.Site.Tenant, Tenants: []string{g.a.Site.Tenant}, Proxy: r.Proxy}
	account := g.group + "/providers/Microsoft.Storage/storageAccounts/far"
	refused := func(says string, body map[string]any) {
		t.Helper()
		if w := call(g.a, l.token, http.MethodPut, account+version, body); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), says) {
			t.Errorf("PUT = %d %.400s, want 400 %s", w.Code, w.Body, says)
		}
	}
	refused("administrator permits", g.encrypted(user, client, uri))
	other := listed
	other.Tenants = []string{there.a.Site.Tenant}
	list(other)
	refused("administrator permits", g.encrypted(user, client, uri))
	other = listed
	other.Authority = there.a.Site.Base() + "/" + g.a.Site.Tenant
	list(other)
	refused("KeyVaultAuthenticationFailure", g.encrypted(user, client, uri))
	list(listed)
	refused("federatedIdentityClientId", g.encrypted(user, "", uri))
	refused("KeyVaultAuthenticationFailure", g.encrypted(user, client, uri)) // no role yet
	role := func() (u string) {
		there.a.giveRole(t, there.policed.token, there.path(there.vault), object, "Key Vault Crypto Service Encryption User")
		rows := must(t, there.a, http.StatusOK, there.policed.token, http.MethodGet, there.vault+"/providers/Microsoft.Authorization/roleAssignments?api-version=2022-04-01&$filter=principalId%20eq%20'"+object+"'", nil)
		return there.a.Site.Base() + fmt.Sprint(rows["value"].([]any)[0].(map[string]any)["id"])
	}
	given := role()
	must(t, g.a, http.StatusNotFound, l.token, http.MethodGet, account+version, nil)
	g.makeFar(t, user, client, uri)
	body := g.labBody(uri + "/keys/k")
	body["properties"].(map[string]any)["encryption"].(map[string]any)["keyVaultProperties"] = map[string]any{
		"keyVaultArmId": there.path(there.vault), "keyIdentifier": uri + "/keys/k", "identityClientId": client}
	l.ws = g.path(g.group) + "/providers/Microsoft.MachineLearningServices/workspaces/sealed"
	made(t, g.a, l.token, l.ws, body)
	l.mlflow = g.a.Site.Base() + "/mlflow/v1.0" + l.ws + "/api/2.0/mlflow/"
	must(t, g.a, http.StatusOK, l.token, http.MethodPost, l.mlflow+"experiments/create", map[string]any{"name": "kept"})

	enable := func(on bool) {
		there.key(http.StatusOK, http.MethodPatch, "k", map[string]any{"attributes": map[string]any{"enabled": on}})
	}
	for _, way := range []struct {
		name       string
		shut, open func()
		status     int
		says       string
	}{
		{"disabled", func() { enable(false) }, func() { enable(true) }, http.StatusForbidden, "KeyVaultEncryptionKeyNotFound"},
		{"its right taken", func() {
			must(t, there.a, http.StatusOK, there.policed.token, http.MethodDelete, given+"?api-version=2022-04-01", nil)
		}, func() { given = role() }, http.StatusForbidden, "KeyVaultAuthenticationFailure"},
		{"no longer trusted", func() {
			must(t, there.a, http.StatusNoContent, there.a.admin(t, "graph"), http.MethodDelete, credential, nil)
		}, func() {
			must(t, there.a, http.StatusCreated, there.a.admin(t, "graph"), http.MethodPost, strings.TrimSuffix(credential, "/identity"), map[string]any{"name": "identity", "issuer": iss, "subject": principal, "audiences": []string{identity.ExchangeAudience}})
		}, http.StatusForbidden, "KeyVaultAuthenticationFailure"},
		{"no longer listed", func() { list() }, func() { list(listed) }, http.StatusForbidden, "KeyVaultAuthenticationFailure"},
		{"the installation down", func() { end() }, func() {
			e, end = serveApp(t, there.a)
			listed.Proxy = "http://" + e.Proxy
			list(listed)
		}, http.StatusServiceUnavailable, "does not answer"},
	} {
		t.Run(way.name, func(t *testing.T) {
			g.wantFar(t, http.StatusOK, "canary")
			way.shut()
			g.lapse()
			g.wantFar(t, way.status, way.says)
			if w := call(g.a, l.token, http.MethodPost, l.mlflow+"experiments/search", map[string]any{"max_results": 10}); w.Code != way.status || strings.Contains(w.Body.String(), "kept") {
				t.Errorf("the workspace's experiments = %d %s", w.Code, w.Body)
			}
			way.open()
			g.clock.to(g.clock.now().Add(6 * time.Second)) // an outage stands a while longer than a refusal
			g.wantFar(t, http.StatusOK, "canary")
			if w := call(g.a, l.token, http.MethodPost, l.mlflow+"experiments/search", map[string]any{"max_results": 10}); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "kept") {
				t.Errorf("the workspace's experiments = %d %s", w.Code, w.Body)
			}
		})
	}
	// A newer version there wraps anew.
	there.key(http.StatusOK, http.MethodPost, "k/rotate", nil)
	g.a.blob.TurnKeys(t.Context())
	if err := g.a.keys.Turn(t.Context()); err != nil {
		t.Error(err)
	}
	newest := fmt.Sprint(there.key(http.StatusOK, http.MethodGet, "k", nil)["key"].(map[string]any)["kid"])
	for _, line := range []string{g.path(account) + " blobs of the account", l.ws + " run history, jobs and assets of the workspace"} {
		if got := fmt.Sprint(l.keyLines(l.token)[line]["wrappedBy"]); !strings.Contains(got, newest) {
			t.Errorf("%s is wrapped by %s, want %s", line, got, newest)
		}
	}
	g.wantFar(t, http.StatusOK, "canary")

	// A backup that is restored is under the key as it is there now.
	cfg := g.a.Config
	cfg.RootKey, cfg.OutsideVaults = cfg.keyFile(), settings
	folder, err := BackupFolder(t.Context(), cfg, t.TempDir()+"/backups")
	if err != nil {
		t.Fatal(err)
	}
	point, err := folder.Make(t.Context(), cfg.Data)
	if err != nil {
		t.Fatal(err)
	}
	enable(false)
	back := (&kept{guarded: g, cfg: cfg, folder: folder}).restored(t, point)
	search := func() (int, string) {
		w := call(back.a, l.token, http.MethodPost, l.mlflow+"experiments/search", map[string]any{"max_results": 10})
		return w.Code, w.Body.String()
	}
	back.wantFar(t, http.StatusForbidden, "KeyVaultEncryptionKeyNotFound")
	if code, body := search(); code != http.StatusForbidden || strings.Contains(body, "kept") {
		t.Errorf("restored, the workspace's experiments = %d %s", code, body)
	}
	enable(true)
	back.past()
	back.wantFar(t, http.StatusOK, "canary")
	if code, body := search(); code != http.StatusOK || !strings.Contains(body, "kept") {
		t.Errorf("restored and the key given back, the workspace's experiments = %d %s", code, body)
	}
}

// A key in a vault of another tenant of the installation guards an account by an
// application there that trusts its identity, and by nothing less.
func TestAKeyInAnotherTenant(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	user, principal := g.user("keyuser")
	x := newTenant(t, g.a, "beta.example")
	x.tokens = map[string]string{}
	for plane, aud := range g.a.audiences() {
		x.tokens[plane] = tokenAt(t, g.a, x.tenant, x.admin.id, x.admin.secret, aud)
	}
	made(t, g.a, x.tokens["arm"], "/subscriptions/"+x.sub+"/resourceGroups/lab", map[string]any{"location": "local"})
	vault := "/subscriptions/" + x.sub + "/resourceGroups/lab/providers/Microsoft.KeyVault/vaults/beta-guards"
	vaultBody := g.vaultBody(true)
	vaultBody["properties"].(map[string]any)["tenantId"] = x.tenant
	made(t, g.a, x.tokens["arm"], vault, vaultBody)
	g.a.giveRole(t, x.tokens["arm"], vault, x.admin.object, "Key Vault Crypto Officer")
	uri := "https://beta-guards." + g.a.Site.VaultSuffix()
	must(t, g.a, http.StatusOK, x.tokens["vault"], http.MethodPost, uri+"/keys/k/create"+vaultVersion, map[string]any{"kty": "RSA", "key_size": 2048})
	client, object, credential := trust(t, g.a, x.tokens["graph"], issuerOf(g.a, g.a.Site.Tenant), principal)
	account := g.group + "/providers/Microsoft.Storage/storageAccounts/far"
	refused := func(why string, body map[string]any) {
		t.Helper()
		if w := call(g.a, g.policed.token, http.MethodPut, account+version, body); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "KeyVaultAuthenticationFailure") {
			t.Errorf("%s: PUT = %d %.400s", why, w.Code, w.Body)
		}
	}
	refused("no right there", g.encrypted(user, client, uri))
	g.a.giveRole(t, x.tokens["arm"], vault, object, "Key Vault Crypto Service Encryption User")
	refused("the identity itself", g.encrypted(user, "", uri))
	stranger, _ := g.user("stranger")
	refused("an identity that is not trusted", g.encrypted(stranger, client, uri))
	g.makeFar(t, user, client, uri)
	must(t, g.a, http.StatusNoContent, x.tokens["graph"], http.MethodDelete, credential, nil)
	g.past()
	g.wantFar(t, http.StatusForbidden, "KeyVaultAuthenticationFailure")
	must(t, g.a, http.StatusCreated, x.tokens["graph"], http.MethodPost, strings.TrimSuffix(credential, "/identity"), map[string]any{"name": "identity", "issuer": issuerOf(g.a, g.a.Site.Tenant), "subject": principal, "audiences": []string{identity.ExchangeAudience}})
	g.past()
	g.wantFar(t, http.StatusOK, "canary")
}
