package identity

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// Rights on the directory come from the directory's own role alone: people see
// their tenant, administrators change it, and Azure's roles are never asked.
func TestWhoMayChangeTheDirectory(t *testing.T) {
	w := newWorld(t)
	id, upn := w.user("ann")
	token := w.graphToken(upn)
	for _, path := range []string{"me", "users", "users/" + id, "groups", "applications", "servicePrincipals", "organization", "organization/" + w.first.Tenant, "subscribedSkus", "directoryObjects/" + id} {
		if r := w.graph(token, "GET", path, nil); r.status != 200 {
			t.Errorf("a person reads %s: %d %s", path, r.status, r.body)
		}
	}
	for _, rt := range w.s.Graph().Routes {
		if rt.Method == "GET" || strings.HasSuffix(rt.Action.Key(), "/read") || rt.Action.Key() == changeSelf.Key() || rt.Action.Key() == sendBatch.Key() {
			continue
		}
		path := strings.NewReplacer("{id}", id, "{member}", id, "{class}", "access", "/v1.0/", "").Replace(rt.Pattern)
		if r := w.graph(token, rt.Method, path, map[string]any{}); r.status != 403 || r.code() != "Authorization_RequestDenied" {
			t.Errorf("a person without a role: %s %s: %d %s", rt.Method, path, r.status, r.body)
		}
		if r := w.graph("", rt.Method, path, map[string]any{}); r.status != 401 {
			t.Errorf("nobody: %s %s: %d", rt.Method, path, r.status)
		}
	}
	if r := w.graph(w.appToken(w.site.Base()), "GET", "users", nil); r.status != 401 {
		t.Errorf("a token for Resource Manager at Graph: %d", r.status)
	}
	app := w.admin("POST", "applications", map[string]any{"displayName": "plain"})
	sp := w.admin("POST", "servicePrincipals", map[string]any{"appId": app.text("appId")})
	secret := w.admin("POST", "applications/"+app.text("id")+"/addPassword", map[string]any{"passwordCredential": map[string]any{"displayName": "s"}}).text("secretText")
	r := w.form(w.tokenPath(), url.Values{"grant_type": {"client_credentials"}, "client_id": {app.text("appId")}, "client_secret": {secret}, "scope": {"https://graph.microsoft.com/.default"}})
	if got := w.graph(r.text("access_token"), "GET", "users", nil); got.status != 403 {
		t.Errorf("an application without a role reads the directory: %d", got.status)
	}
	w.admin("POST", "roleManagement/directory/roleAssignments", map[string]any{"principalId": sp.text("id"), "roleDefinitionId": globalAdministrator, "directoryScopeId": "/"})
	if got := w.graph(r.text("access_token"), "GET", "users", nil); got.status != 200 {
		t.Errorf("with the role it does not: %d %s", got.status, got.body)
	}
	for name, id := range map[string]arm.ID{"a subscription": arm.MustID("/subscriptions/s"), "the root": arm.Root} {
		if handled, ok, _ := w.s.Decide(arm.Caller{Tenant: w.first.Tenant, Object: w.first.UserObject}, createUser, id); !handled || ok {
			t.Errorf("an action of the directory at %s: handled %v, allowed %v", name, handled, ok)
		}
	}
	admin := arm.Caller{Tenant: w.first.Tenant, Object: w.first.UserObject, Kind: arm.User}
	if _, ok, _ := w.s.Decide(admin, arm.NewAction("Microsoft.Compute/x/write", ""), tenantID(w.first.Tenant)); ok {
		t.Error("a directory role gives rights that are not the directory's")
	}
	if handled, _, _ := w.s.Decide(admin, arm.NewAction("Microsoft.Compute/x/write", ""), arm.MustID("/subscriptions/s")); handled {
		t.Error("the directory answers for a subscription")
	}
}

// The last administrator can't be removed in any way.
func TestLastAdministratorStays(t *testing.T) {
	w := newWorld(t)
	graph := w.appToken("https://" + w.site.GraphHost())
	app := w.admin("GET", "applications", nil).json["value"].([]any)[0].(map[string]any)["id"].(string)
	global := func(principal string) string {
		return (&RoleAssignment{Principal: principal, Role: globalAdministrator}).id()
	}
	w.admin("DELETE", "roleManagement/directory/roleAssignments/"+global(w.first.UserObject), nil)
	for _, c := range []struct {
		method, path string
		body         any
	}{
		{"DELETE", "servicePrincipals/" + w.first.ClientObject, nil},
		{"DELETE", "applications/" + app, nil},
		{"PATCH", "servicePrincipals/" + w.first.ClientObject, map[string]any{"accountEnabled": false}},
		{"DELETE", "roleManagement/directory/roleAssignments/" + global(w.first.ClientObject), nil},
		{"DELETE", "directoryRoles/" + globalAdministrator + "/members/" + w.first.ClientObject + "/$ref", nil},
	} {
		if r := w.graph(graph, c.method, c.path, c.body); r.status != 400 || !strings.Contains(string(r.body), "last enabled administrator") {
			t.Errorf("%s %s: %d %s", c.method, c.path, r.status, r.body)
		}
	}
}

// Groups count also by nesting, at once, and a circle of groups harms nobody.
func TestGroupsAreTransitive(t *testing.T) {
	w := newWorld(t)
	id, upn := w.user("ann")
	token := w.userTokens(upn).text("access_token")
	make := func(name string) string {
		return w.admin("POST", "groups", map[string]any{"displayName": name, "mailNickname": name, "mailEnabled": false, "securityEnabled": true}).text("id")
	}
	join := func(group, member string) {
		w.admin("POST", "groups/"+group+"/members/$ref", map[string]any{"@odata.id": "https://graph.microsoft.com/v1.0/directoryObjects/" + member})
	}
	groups := func() []string {
		c, err := w.verify(token)
		if err != nil {
			t.Fatal(err)
		}
		var fromStore []string
		if err := w.db.View(context.Background(), func(tx *store.Tx) (err error) { fromStore, err = w.s.Groups(tx, w.first.Tenant, id); return err }); err != nil {
			t.Fatal(err)
		}
		if slices.Sort(fromStore); !slices.Equal(fromStore, c.Groups) {
			t.Errorf("the store says %v, the index %v", fromStore, c.Groups)
		}
		return c.Groups
	}
	a, b, c := make("a"), make("b"), make("c")
	join(b, a)
	join(c, b)
	join(a, c)
	if got := groups(); len(got) != 0 {
		t.Errorf("in no group: %v", got)
	}
	join(a, id)
	want := []string{a, b, c}
	slices.Sort(want)
	if got := groups(); !slices.Equal(got, want) {
		t.Errorf("groups = %v, want %v", got, want)
	}
	if r := w.admin("GET", "groups/"+c+"/transitiveMembers", nil); !strings.Contains(string(r.body), id) {
		t.Errorf("transitive members: %s", r.body)
	}
	if r := w.admin("GET", "groups/"+c+"/members", nil); strings.Contains(string(r.body), id) {
		t.Errorf("members: %s", r.body)
	}
	again, err := New(w.s.Config)
	if err != nil {
		t.Fatal(err)
	}
	if got := again.index.groupsOf(id); !slices.Equal(got, want) {
		t.Errorf("after a restart: %v", got)
	}
	w.admin("DELETE", "groups/"+b, nil)
	if got := groups(); !slices.Equal(got, []string{a}) {
		t.Errorf("without b: %v", got)
	}
	w.admin("DELETE", "groups/"+a+"/members/"+id+"/$ref", nil)
	if got := groups(); len(got) != 0 {
		t.Errorf("taken out: %v", got)
	}
}

// A managed identity lives and dies with its resource; one made anew under the
// same id is somebody else. Nobody but the platform gets its tokens.
func TestManagedIdentity(t *testing.T) {
	w := newWorld(t)
	ws := arm.MustID("/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/ws")
	var gone []string
	w.s.OnPrincipalGone(func(_ *store.Tx, id string) error { gone = append(gone, id); return nil })
	ensure := func() (id string) {
		if err := w.db.Do(context.Background(), func(tx *store.Tx) (err error) { id, _, err = w.s.Ensure(tx, ws, "ws"); return err }); err != nil {
			t.Fatal(err)
		}
		return id
	}
	first := ensure()
	if again := ensure(); again != first {
		t.Errorf("a second principal %s beside %s", again, first)
	}
	worker := arm.Caller{Object: "system:w", Tenant: w.first.Tenant, Lease: &arm.Lease{Scope: ws, Actions: []arm.Action{MintManaged}, Why: "test"}}
	mint := func(c arm.Caller) (string, error) {
		g, err := w.gate.Admit(context.Background(), c, MintManaged, gate.Target{ID: ws})
		if err != nil {
			return "", err
		}
		token, exp, client, err := w.s.ManagedToken(context.Background(), g, "https://storage.azure.com", "")
		if err == nil && (client == "" || !exp.After(w.now())) {
			t.Errorf("client %q, until %v", client, exp)
		}
		return token, g.Close(context.Background(), err)
	}
	token, err := mint(worker)
	if err != nil {
		t.Fatal(err)
	}
	c, err := w.s.VerifyToken(context.Background(), token, w.site.StorageAudiences())
	if err != nil || c.Object != first || c.Kind != arm.ServicePrincipal || c.Name != "ws" {
		t.Errorf("%+v, %v", c, err)
	}
	if m := claims(t, token); m["xms_mirid"] != ws.String() || m["idtyp"] != "app" {
		t.Errorf("claims %v", m)
	}
	if r := w.admin("GET", "servicePrincipals?$filter="+url.QueryEscape("startswith(displayName,'WS')"), nil); len(r.json["value"].([]any)) != 1 || !strings.Contains(string(r.body), `"ManagedIdentity"`) || !strings.Contains(string(r.body), ws.String()) {
		t.Errorf("az ad sp list --display-name ws: %s", r.body)
	}
	owner := arm.Caller{Tenant: w.first.Tenant, Object: w.first.UserObject, Kind: arm.User}
	if token, err := mint(owner); err == nil || token != "" {
		t.Error("an administrator gets a workspace's token")
	}
	all := gate.New(func(arm.Caller, arm.Action, gate.Target) (bool, string) { return true, "everything" }, w.log)
	g, err := all.Admit(context.Background(), owner, MintManaged, gate.Target{ID: ws})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := w.s.ManagedToken(context.Background(), g, "https://storage.azure.com", ""); err == nil {
		t.Error("whoever a custom role allows it gets a workspace's token")
	}
	graph := w.appToken("https://" + w.site.GraphHost())
	for _, c := range []struct{ method, path string }{{"DELETE", "servicePrincipals/" + first}, {"POST", "servicePrincipals/" + first + "/addPassword"}} {
		if r := w.graph(graph, c.method, c.path, map[string]any{}); r.status != 400 {
			t.Errorf("%s %s: %d", c.method, c.path, r.status)
		}
	}

	if err := w.db.Do(context.Background(), func(tx *store.Tx) error { return w.s.Drop(tx, ws) }); err != nil {
		t.Fatal(err)
	}
	if _, err := w.s.VerifyToken(context.Background(), token, w.site.StorageAudiences()); arm.CodeOf(err) != arm.Unauthenticated {
		t.Errorf("the token outlives the resource: %v", err)
	}
	if !slices.Equal(gone, []string{first}) {
		t.Errorf("gone: %v", gone)
	}
	if second := ensure(); second == first {
		t.Error("the resource made anew has the old principal")
	}
	if _, err := w.s.VerifyToken(context.Background(), token, w.site.StorageAudiences()); err == nil {
		t.Error("the old token speaks for the new resource")
	}
}

// A user-assigned identity is a resource that shows its principal.
func TestUserAssignedIdentity(t *testing.T) {
	w := newWorld(t)
	id := arm.MustID("/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/u")
	k := w.s.Kinds()[0]
	d := &resource.Doc{ID: id, Name: "u", Type: k.Type, Properties: []byte(`{}`)}
	if err := w.db.Do(context.Background(), func(tx *store.Tx) error { return k.Save(tx, resource.Change{Doc: d}) }); err != nil {
		t.Fatal(err)
	}
	err := w.db.View(context.Background(), func(tx *store.Tx) error {
		p, c, ok, err := w.s.UserAssigned(tx, id)
		if !ok || !strings.Contains(string(d.Properties), p) || !strings.Contains(string(d.Properties), c) {
			t.Errorf("%s %s %v: %s", p, c, ok, d.Properties)
		}
		kind, ok, err2 := w.s.Principal(tx, w.first.Tenant, strings.ToUpper(p))
		if kind != arm.ServicePrincipal || !ok || err2 != nil {
			t.Errorf("Principal = %v, %v, %v", kind, ok, err2)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.db.Do(context.Background(), func(tx *store.Tx) error { return k.Remove(tx, d) }); err != nil {
		t.Fatal(err)
	}
	if w.s.index.of(id.Key()) != nil {
		t.Error("the principal outlives the resource")
	}
}

// An application proves itself by a signed assertion, with its own key, to this
// token endpoint, once.
func TestCertificate(t *testing.T) {
	w := newWorld(t)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "c"}, NotBefore: w.now().Add(-time.Hour), NotAfter: w.now().Add(48 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	app := w.admin("POST", "applications", map[string]any{"displayName": "c", "keyCredentials": []any{map[string]any{"type": "AsymmetricX509Cert", "usage": "Verify", "key": base64.StdEncoding.EncodeToString(der)}}})
	w.admin("POST", "servicePrincipals", map[string]any{"appId": app.text("appId")})
	s1, s256 := sha1.Sum(der), sha256.Sum256(der)
	sign := func(alg jose.SignatureAlgorithm, by *rsa.PrivateKey, head, change map[string]any) string {
		body := map[string]any{"iss": app.text("appId"), "sub": app.text("appId"), "aud": w.site.Base() + w.tokenPath(), "jti": arm.NewUUID(), "nbf": w.now().Unix(), "exp": w.now().Add(10 * time.Minute).Unix()}
		for k, v := range change {
			if body[k] = v; v == nil {
				delete(body, k)
			}
		}
		opts := (&jose.SignerOptions{}).WithType("JWT")
		for k, v := range head {
			opts.WithHeader(jose.HeaderKey(k), v)
		}
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: by}, opts)
		if err != nil {
			t.Fatal(err)
		}
		j, err := signer.Sign(mustJSON(body))
		if err != nil {
			t.Fatal(err)
		}
		out, _ := j.CompactSerialize()
		return out
	}
	send := func(assertion string) reply {
		return w.form(w.tokenPath(), url.Values{"grant_type": {"client_credentials"}, "client_id": {app.text("appId")}, "client_assertion_type": {assertionType}, "client_assertion": {assertion}, "scope": {w.site.Base() + "/.default"}})
	}
	new256, old1 := map[string]any{"x5t#S256": b64.EncodeToString(s256[:])}, map[string]any{"x5t": b64.EncodeToString(s1[:])}
	shown := sign(jose.PS256, key, new256, nil)
	goLike := map[string]any{"x5t#S256": base64.StdEncoding.EncodeToString(s256[:])}
	for name, a := range map[string]string{"PS256": shown, "RS256 and SHA-1 name": sign(jose.RS256, key, old1, nil), "as MSAL for Go names it": sign(jose.PS256, key, goLike, nil)} {
		if r := send(a); r.status != 200 || claims(t, r.text("access_token"))["appidacr"] != "2" {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, a := range map[string]string{
		"shown again":            shown,
		"another key":            sign(jose.PS256, other, new256, nil),
		"another key, with x5c":  sign(jose.PS256, other, map[string]any{"x5t#S256": b64.EncodeToString(s256[:]), "jwk": jose.JSONWebKey{Key: &other.PublicKey}}, nil),
		"no name of the key":     sign(jose.PS256, key, nil, nil),
		"another endpoint":       sign(jose.PS256, key, new256, map[string]any{"aud": "https://login.microsoftonline.com" + w.tokenPath()}),
		"another tenant":         sign(jose.PS256, key, new256, map[string]any{"aud": w.site.Base() + "/" + arm.NewUUID() + "/oauth2/v2.0/token"}),
		"two endpoints":          sign(jose.PS256, key, new256, map[string]any{"aud": []string{w.site.Base() + w.tokenPath(), "https://other.example"}}),
		"expired":                sign(jose.PS256, key, new256, map[string]any{"exp": w.now().Add(-time.Minute).Unix()}),
		"no expiry":              sign(jose.PS256, key, new256, map[string]any{"exp": nil}),
		"a year":                 sign(jose.PS256, key, new256, map[string]any{"exp": w.now().Add(8760 * time.Hour).Unix()}),
		"no jti":                 sign(jose.PS256, key, new256, map[string]any{"jti": nil}),
		"another client":         sign(jose.PS256, key, new256, map[string]any{"iss": w.first.ClientID}),
		"another client's right": sign(jose.PS256, key, new256, map[string]any{"sub": w.first.ClientID}),
		"RS512":                  sign(jose.RS512, key, new256, nil),
	} {
		if r := send(a); r.status != 401 || r.code() != "invalid_client" {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	w.pass(49 * time.Hour)
	if r := send(sign(jose.PS256, key, new256, nil)); r.status != 401 {
		t.Errorf("the certificate has expired: %d %s", r.status, r.body)
	}
}

// A token dies with the secret that it was given for.
func TestSecretsCanBeTakenAway(t *testing.T) {
	w := newWorld(t)
	app := w.admin("POST", "applications", map[string]any{"displayName": "a"})
	w.admin("POST", "servicePrincipals", map[string]any{"appId": app.text("appId")})
	made := w.admin("POST", "applications/"+app.text("id")+"/addPassword", map[string]any{"passwordCredential": map[string]any{"displayName": "ci"}})
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {app.text("appId")}, "client_secret": {made.text("secretText")}, "scope": {w.site.Base() + "/.default"}}
	token := w.form(w.tokenPath(), form).text("access_token")
	if _, err := w.verify(token); err != nil {
		t.Fatal(err)
	}
	if r := w.admin("GET", "applications/"+app.text("id"), nil); strings.Contains(string(r.body), made.text("secretText")) {
		t.Error("the secret is shown a second time")
	}
	w.admin("POST", "applications/"+app.text("id")+"/removePassword", map[string]any{"keyId": made.text("keyId")})
	w.refused("the secret is gone", token)
	if r := w.form(w.tokenPath(), form); r.code() != "invalid_client" {
		t.Errorf("the secret still works: %d", r.status)
	}
}

// OID-18: an application can't be registered with an address that is not
// clearly its own.
func TestRedirectsAtRegistration(t *testing.T) {
	w := newWorld(t)
	graph := w.appToken("https://" + w.site.GraphHost())
	for _, uri := range []string{"https://*.example/cb", "https://app.example/*", "http://app.example/cb", "javascript:alert(1)", "data:text/html,x", "custom://x", "urn:ietf:wg:oauth:2.0:oob", "//app.example", "/cb", "", "https://", "https:///cb",
		"https://user@app.example/cb", "https://app.example/cb#x", "https://app.example/../cb", "https://app.example/a/./b", "https://app.example\\@evil.example", "https://app.example/%2e", "https://App.example/cb", "https://app.example./cb", "file:///etc/passwd", "http://localhost.evil.example", "http://10.0.0.1/cb", "https://a b/cb"} {
		for _, kind := range []string{"web", "publicClient", "spa"} {
			r := w.graph(graph, "POST", "applications", map[string]any{"displayName": "a", kind: map[string]any{"redirectUris": []string{uri}}})
			if r.status != 400 {
				t.Errorf("%s %q: %d", kind, uri, r.status)
			}
		}
	}
	for _, uri := range []string{"api://" + arm.NewUUID(), "https://vault.azure.net", w.site.Base(), "https://graph.microsoft.com", "00000003-0000-0000-c000-000000000000"} {
		if r := w.graph(graph, "POST", "applications", map[string]any{"displayName": "a", "identifierUris": []string{uri}}); r.status != 400 {
			t.Errorf("identifierUris %s: %d", uri, r.status)
		}
	}
}

// What clients ask discovery, and what they hold against it.
func TestDiscovery(t *testing.T) {
	w := newWorld(t)
	get := func(host, path string) reply {
		req, _ := http.NewRequest("GET", "https://"+host+path, nil)
		return w.do(w.client(), req)
	}
	for _, host := range []string{w.site.Host(), w.site.Host() + ":8443"} {
		for _, name := range []string{w.first.Tenant, w.first.Domain, strings.ToUpper(w.first.Tenant)} {
			r := get(host, "/"+name+"/v2.0/.well-known/openid-configuration")
			if r.text("issuer") != "https://"+host+"/"+w.first.Tenant+"/v2.0" || r.text("token_endpoint") != "https://"+host+"/"+w.first.Tenant+"/oauth2/v2.0/token" {
				t.Errorf("%s %s: %s", host, name, r.body)
			}
			for _, k := range []string{"authorization_endpoint", "device_authorization_endpoint", "jwks_uri", "end_session_endpoint"} {
				if !strings.HasPrefix(r.text(k), "https://"+host+"/") {
					t.Errorf("%s is %q", k, r.text(k))
				}
			}
		}
		if r := get(host, "/common/v2.0/.well-known/openid-configuration"); r.text("issuer") != "https://"+host+"/{tenantid}/v2.0" {
			t.Errorf("common: %s", r.body)
		}
		if r := get(host, "/common/discovery/instance?api-version=1.1&authorization_endpoint=x"); !strings.Contains(string(r.body), `"`+host+`"`) {
			t.Errorf("instance discovery: %s", r.body)
		}
	}
	if r := get(w.site.Host(), "/"+arm.NewUUID()+"/v2.0/.well-known/openid-configuration"); r.status != 400 || r.code() != "invalid_request" {
		t.Errorf("no such tenant: %d %s", r.status, r.body)
	}
	if r := get(w.site.Host(), "/common/UserRealm/admin@"+w.first.Domain+"?api-version=1.0"); r.text("account_type") != "Managed" {
		t.Errorf("realm: %s", r.body)
	}
	if len(w.published()) != 2 {
		t.Errorf("%d keys", len(w.published()))
	}
}

// Filters mean what they say, and what can't be meant is refused.
func TestFilter(t *testing.T) {
	m := map[string]any{"id": "1", "displayName": "O'Neil", "accountEnabled": true, "servicePrincipalNames": []string{"A", "api://b"}, "appId": "x", "mail": nil}
	for f, want := range map[string]bool{
		"": true, "displayName eq 'o''neil'": true, "displayName eq 'x'": false, "startswith(displayName,'O''N')": true, "startswith(displayName, 'n')": false, "endswith(displayname,'IL')": true,
		"servicePrincipalNames/any(c:c eq 'API://B')": true, "servicePrincipalNames/any(x:x eq 'c')": false, "accountEnabled eq true": true, "accountEnabled eq false": false, "appId in ('a','X')": true, "appId in ('a')": false,
		"appId eq 'x' and displayName eq 'x'": false, "appId eq 'x' or displayName eq 'x'": true, "appId eq 'z' and displayName eq 'x' or id eq '1'": true, "appId eq 'z' and (displayName eq 'x' or id eq '1')": false, "mail eq 'x'": false, "mail ne 'x'": true, "appId ne 'X'": false, "appId gt 'w' and appId le 'x'": true, "not (appId eq 'x')": false, "not startswith(appId,'y')": true, "id ge 1 and id lt 10": true,
	} {
		match, err := parseFilter(f)
		if err != nil {
			t.Errorf("%q: %v", f, err)
			continue
		}
		if got, err := match(m); err != nil || got != want {
			t.Errorf("%q = %v, %v; want %v", f, got, err, want)
		}
	}
	for _, f := range []string{"x", "x eq", "x eq 'a", "x eq 'a' and", "x eq 'a' 'b'", "(x eq 'a'", "x eq 'a')", "not", "not not", "x eq ne", "x/any(c:d eq 'a')", "startswith('a',x)", "startswith(x)", "x in ()", "x in ('a'", "x eq y", "'a' eq 'a'", "or", strings.Repeat("(", 1000) + "x eq 'a'" + strings.Repeat(")", 1000)} {
		if _, err := parseFilter(f); err == nil {
			t.Errorf("%q is understood", f)
		}
	}
	match, err := parseFilter("unknown eq 'x'")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := match(m); err == nil {
		t.Error("a property that is not there is filtered by")
	}
}

// CRY-02: passwords are kept as argon2id of a stated cost, and many sign-ins at
// once wait in line.
func TestPasswordsAreHashed(t *testing.T) {
	w := newWorld(t)
	id, upn := w.user("ann")
	u := w.s.index.user(id)
	if !strings.HasPrefix(u.Password, "$argon2id$v=19$m=19456,t=2,p=1$") || strings.Contains(u.Password, goodPassword) {
		t.Errorf("kept as %q", u.Password)
	}
	if r := w.admin("GET", "users/"+upn, nil); strings.Contains(string(r.body), "argon2") || r.text("id") != id {
		t.Errorf("shown: %s", r.body)
	}
	ctx, cancel := context.WithCancel(context.Background())
	for range hashing {
		if err := w.s.hasher.enter(ctx); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if _, err := w.s.hasher.matches(ctx, u.Password, goodPassword); err == nil {
		t.Error("more passwords are hashed at once than may be")
	}
	for range hashing {
		w.s.hasher.leave()
	}
	for _, c := range []struct {
		hash, password string
		want           bool
	}{{u.Password, goodPassword, true}, {u.Password, goodPassword + "x", false}, {"", goodPassword, false}, {"", "", false}, {u.Password, "", false}, {u.Password, strings.Repeat("x", 1<<20), false}} {
		if ok, err := w.s.hasher.matches(context.Background(), c.hash, c.password); err != nil || ok != c.want {
			t.Errorf("matches(%d bytes, %d bytes) = %v, %v", len(c.hash), len(c.password), ok, err)
		}
	}
}
