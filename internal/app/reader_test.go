package app

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"castellan/internal/gate"
	"castellan/internal/resource"
)

// hidden is a platform in which each kind of thing that keeps a secret keeps one
// that is known here.
type hidden struct {
	*policed
	graph, keys     string // the administrator's tokens for the directory and for vaults
	vault, account  string // URLs
	logs, workspace string // URLs
	run, experiment string
	decision        string // correlation id of a refusal
	all             []canary
}

func (h *hidden) new(kind string) string {
	return h.got(kind, newCanary())
}

func (h *hidden) got(kind, text string) string {
	if len(text) < 12 {
		h.Fatalf("the %s is %q", kind, text)
	}
	h.all = append(h.all, canary{kind: kind, text: text})
	return text
}

func (h *hidden) post(want int, u string, body any) map[string]any {
	h.Helper()
	return must(h.T, h.a, want, h.token, http.MethodPost, u+version, body)
}

func (h *hidden) directory(want int, path string, body any) map[string]any {
	h.Helper()
	return must(h.T, h.a, want, h.graph, http.MethodPost, "https://"+h.a.Site.GraphHost()+"/v1.0/"+path, body)
}

// things makes the accounts, the vault and the workspace.
func (h *hidden) things() {
	var body map[string]any
	h.account, body = h.policed.account("keepsacct", map[string]any{})
	h.fine(h.account, body)
	h.logs, body = h.policed.account("logsacct", map[string]any{})
	h.fine(h.logs, body)
	h.vault = h.group + "/providers/Microsoft.KeyVault/vaults/keeps-kv"
	h.fine(h.vault, map[string]any{"location": "local", "properties": map[string]any{"tenantId": h.a.Site.Tenant, "sku": map[string]any{"family": "A", "name": "standard"}, "enableRbacAuthorization": true}})
	me := claimOf(h.token, "oid")
	h.a.giveRole(h.T, h.token, h.path(h.vault), me, "Key Vault Administrator")
	h.workspace = h.group + "/providers/Microsoft.MachineLearningServices/workspaces/keeps"
	made(h.T, h.a, h.token, h.path(h.workspace), map[string]any{"location": "local", "identity": map[string]any{"type": "SystemAssigned"},
		"properties": map[string]any{"storageAccount": h.path(h.account), "keyVault": h.path(h.vault)}})
	for _, k := range h.post(http.StatusOK, h.account+"/listKeys", nil)["keys"].([]any) {
		h.got("account key", fmt.Sprint(k.(map[string]any)["value"]))
	}
	for at, categories := range map[string][]string{h.vault: {"AuditEvent"}, h.account + "/blobServices/default": {"StorageRead", "StorageWrite"}, h.sub: {"Administrative", "Policy"}} {
		var on []any
		for _, c := range categories {
			on = append(on, map[string]any{"category": c, "enabled": true})
		}
		h.fine(at+"/providers/Microsoft.Insights/diagnosticSettings/tell", map[string]any{"properties": map[string]any{"storageAccountId": h.path(h.logs), "logs": on}})
	}
	h.fine(h.account+"/blobServices/default/containers/con", map[string]any{})
	h.fine(h.workspace+"/computes/cpu", map[string]any{"location": "local", "properties": map[string]any{"computeType": "AmlCompute", "properties": map[string]any{"vmSize": "Standard_B1s", "scaleSettings": map[string]any{"maxNodeCount": 1}}}})
}

// vaults: secrets of a value and of old versions, deleted ones, keys that were imported, backups.
func (h *hidden) vaults() {
	at := "https://keeps-kv." + h.a.Site.VaultSuffix() + "/"
	ask := func(method, path string, body any) map[string]any {
		h.Helper()
		return must(h.T, h.a, http.StatusOK, h.keys, method, at+path+"?api-version=7.4", body)
	}
	for range 2 {
		ask(http.MethodPut, "secrets/kept", map[string]any{"value": h.new("vault secret")})
	}
	ask(http.MethodPut, "secrets/gone", map[string]any{"value": h.new("deleted vault secret")})
	h.got("backup of a secret", fmt.Sprint(ask(http.MethodPost, "secrets/kept/backup", nil)["value"])[:80])
	ask(http.MethodDelete, "secrets/gone", nil)
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		h.Fatal(err)
	}
	d, err := k.Bytes()
	if err != nil {
		h.Fatal(err)
	}
	point, err := k.PublicKey.Bytes()
	if err != nil {
		h.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	ask(http.MethodPut, "keys/kept", map[string]any{"key": map[string]any{"kty": "EC", "crv": "P-256", "key_ops": []string{"sign"}, "d": b64(d), "x": b64(point[1:33]), "y": b64(point[33:])}})
	h.all = append(h.all, canary{kind: "private key", text: string(d)})
}

// learning: credentials of datastores of each type, and a signature that was given out.
func (h *hidden) learning() {
	var sas url.Values
	up := h.post(http.StatusOK, h.workspace+"/codes/c/versions/1/startPendingUpload", map[string]any{"pendingUploadType": "TemporaryBlobReference"})
	uri, err := url.Parse(fmt.Sprint(up["blobReferenceForConsumption"].(map[string]any)["credential"].(map[string]any)["sasUri"]))
	if err != nil {
		h.Fatal(err)
	}
	sas = uri.Query()
	h.got("signature of a URL", sas.Get("sig"))
	for name, secrets := range map[string]map[string]any{
		"AccountKey": {"key": base64.StdEncoding.EncodeToString([]byte(h.new("datastore's account key")))},
		"Sas":        {"sasToken": "sv=2022-11-02&sr=c&sp=rl&se=2099-01-01T00:00:00Z&sig=" + h.new("datastore's signature")},
	} {
		secrets["secretsType"] = name
		must(h.T, h.a, http.StatusCreated, h.token, http.MethodPut, h.workspace+"/datastores/by"+strings.ToLower(name)+version+"&skipValidation=true", map[string]any{"properties": map[string]any{
			"datastoreType": "AzureBlob", "accountName": "keepsacct", "containerName": "con", "credentials": map[string]any{"credentialsType": name, "secrets": secrets}}})
	}
	mlflow := h.a.Site.Base() + "/mlflow/v2.0" + h.path(h.workspace) + "/api/2.0/mlflow/"
	h.experiment = fmt.Sprint(h.post(http.StatusOK, mlflow+"experiments/create", map[string]any{"name": "e"})["experiment_id"])
	run := h.post(http.StatusOK, mlflow+"runs/create", map[string]any{"experiment_id": h.experiment, "start_time": 1})["run"].(map[string]any)
	h.run = fmt.Sprint(run["info"].(map[string]any)["run_id"])
	h.post(http.StatusOK, mlflow+"registered-models/create", map[string]any{"name": "m"})
}

// deployments: secure parameters and outputs, in what works, in what is refused
// and says why, nested, and in what a vault keeps.
func (h *hidden) deployments() {
	secure := func(kind string) map[string]any {
		return map[string]any{"s": map[string]any{"type": "securestring", "defaultValue": h.new(kind)}}
	}
	account := func(name, kind string) any {
		return map[string]any{"type": "Microsoft.Storage/storageAccounts", "apiVersion": "2023-01-01", "name": name, "location": "local", "sku": map[string]any{"name": kind}, "kind": "StorageV2"}
	}
	template := func(params map[string]any, outputs any, resources ...any) map[string]any {
		return map[string]any{"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "contentVersion": "1.0.0.0", "parameters": params, "outputs": outputs, "resources": resources}
	}
	value := func(typ, text string) map[string]any {
		return map[string]any{"o": map[string]any{"type": typ, "value": text}}
	}
	nested := map[string]any{"type": "Microsoft.Resources/deployments", "apiVersion": "2021-04-01", "name": "inner", "properties": map[string]any{
		"mode": "Incremental", "expressionEvaluationOptions": map[string]any{"scope": "inner"}, "parameters": map[string]any{"s": map[string]any{"value": "[parameters('s')]"}},
		"template": template(map[string]any{"s": map[string]any{"type": "securestring"}}, value("securestring", "[parameters('s')]"), account("innerrefused", "[parameters('s')]")),
	}}
	for name, tpl := range map[string]map[string]any{
		"works": template(secure("secure parameter"), value("securestring", "[concat('x', parameters('s'))]"), map[string]any{
			"type": "Microsoft.KeyVault/vaults/secrets", "apiVersion": "2023-07-01", "name": "keeps-kv/deployed", "properties": map[string]any{"value": "[parameters('s')]"}}),
		"refused":   template(secure("secure parameter that is refused"), nil, account("refusedacct", "[parameters('s')]")),
		"nested":    template(secure("secure parameter of a nested template"), nil, nested),
		"insulting": template(secure("secure parameter that is no number"), nil, account("[string(int(parameters('s')))]", "Standard_LRS")),
	} {
		params := map[string]any{"s": map[string]any{"value": h.new("value of a " + name + " secure parameter")}}
		u := h.group + "/providers/Microsoft.Resources/deployments/" + name
		w := call(h.a, h.token, http.MethodPut, u+version, map[string]any{"properties": map[string]any{"mode": "Incremental", "template": tpl, "parameters": params}})
		if w.Code/100 != 2 && w.Code != http.StatusBadRequest {
			h.Fatalf("the deployment %s = %d %s", name, w.Code, w.Body)
		}
		h.await("the deployment "+name, func() bool {
			w := call(h.a, h.token, http.MethodGet, u+version, nil)
			return w.Code == http.StatusNotFound || strings.Contains(w.Body.String(), `"provisioningState":"Failed"`) || strings.Contains(w.Body.String(), `"provisioningState":"Succeeded"`)
		})
	}
}

// people: passwords, secrets of applications, tokens, trust in other directories.
func (h *hidden) people() {
	user := h.directory(http.StatusCreated, "users", map[string]any{"accountEnabled": true, "displayName": "u", "mailNickname": "u", "userPrincipalName": "u@" + h.a.Site.Host(),
		"passwordProfile": map[string]any{"password": "Aa1-" + h.new("password"), "forceChangePasswordNextSignIn": false}})
	p := h.a.newPerson(h.T, "keeps")
	h.got("client secret", p.secret)
	token := tokenFor(h.T, h.a, p.id, p.secret, h.a.audiences()["arm"])
	h.got("access token", token)
	w := call(h.a, token, http.MethodPut, h.group+version, map[string]any{"location": "local"})
	h.decision = w.Header().Get("x-ms-correlation-request-id")
	if w.Code != http.StatusForbidden {
		h.Fatalf("a stranger's PUT = %d", w.Code)
	}
	_, after, _ := strings.Cut(w.Body.String(), "Correlation id: ")
	h.decision, _, _ = strings.Cut(after, ".")
	h.got("SCIM token", fmt.Sprint(h.directory(http.StatusCreated, "identity/scimTokens", map[string]any{"displayName": "hr"})["secretText"]))
	op := httptest.NewTLSServer(http.NotFoundHandler())
	h.Cleanup(op.Close)
	h.directory(http.StatusCreated, "identity/identityProviders", map[string]any{"@odata.type": "#microsoft.graph.openIdConnectIdentityProvider", "displayName": "Corp", "issuer": op.URL, "clientId": "castellan", "clientSecret": h.new("provider's client secret"),
		"domains": []string{"corp.example"}, "certificateAuthorities": pemOf(op)})
	h.directory(http.StatusCreated, "identity/ldapDirectories", map[string]any{"displayName": "Corp", "url": "ldaps://127.0.0.1:1", "bindDn": "cn=reader", "bindPassword": h.new("LDAP password"),
		"userBase": "ou=people", "groupBase": "ou=groups", "domains": []string{"ldap.example"}})
	group := h.directory(http.StatusCreated, "groups", map[string]any{"displayName": "g", "mailNickname": "g", "mailEnabled": false, "securityEnabled": true})
	h.directory(http.StatusNoContent, fmt.Sprint("groups/", group["id"], "/members/$ref"), map[string]any{"@odata.id": "https://graph/v1.0/directoryObjects/" + fmt.Sprint(user["id"])})
	h.got("administrator's client secret", string(h.a.Admin.ClientSecret.Reveal()))
	h.got("administrator's password", string(h.a.Admin.Password.Reveal()))
	h.got("administrator's token", h.token)
}

// policies that look at secrets, and tell what they saw.
func (h *hidden) policies() {
	def := h.define("curious", "All", nil, tree(h.T, `{"if":{"allOf":[{"field":"type","equals":"Microsoft.MachineLearningServices/workspaces/datastores"},{"field":"name","exists":true}]},"then":{"effect":"audit"}}`))
	h.assign(h.group, "curious", def, nil)
	h.post(http.StatusOK, h.group+"/providers/Microsoft.PolicyInsights/policyStates/latest/triggerEvaluation", nil)
	h.lock(h.workspace, "CanNotDelete")
}

func pemOf(s *httptest.Server) string {
	return "-----BEGIN CERTIFICATE-----\n" + base64.StdEncoding.EncodeToString(s.Certificate().Raw) + "\n-----END CERTIFICATE-----\n"
}

// visitor is a Reader of everything, who walks through all doors by what the
// lists tell.
type visitor struct {
	*hidden
	tokens  map[string]string
	scan    scanner
	lists   map[string][]string
	answers map[int]int
	seen    map[string]bool
	read    int // bytes
}

// ask sends a request, and looks for secrets in all that comes back.
func (v *visitor) ask(plane, method, u, body string) *httptest.ResponseRecorder {
	w := call(v.a, v.tokens[audiencesOf(plane)[0]], method, u, body, "x-ms-version", storageVersion, "ConsistencyLevel", "eventual")
	text := slices.Clip(w.Body.Bytes())
	for _, values := range w.Header() {
		text = append(text, "\n"+strings.Join(values, "\n")...)
	}
	if v.seen[string(text)] {
		return w
	}
	v.seen[string(text)] = true
	for _, f := range v.scan.scan(text) {
		v.Errorf("%s %s tells the Reader a %s as %q: %d %s", method, u, f.canary.kind, f.form, w.Code, w.Body)
	}
	v.answers[w.Code]++
	v.read += len(text)
	return w
}

// names are the last segments of what a list has.
func (v *visitor) names(p *gate.Plane, u string) []string {
	if out, ok := v.lists[u]; ok {
		return out
	}
	var list struct {
		Value []map[string]any `json:"value"`
	}
	w := v.ask(p.Name, http.MethodGet, v.versioned(p, u), "")
	_ = json.Unmarshal(w.Body.Bytes(), &list)
	var out []string
	for _, x := range list.Value {
		for _, field := range []string{"kid", "id", "name"} {
			if s, ok := x[field].(string); ok && s != "" {
				out = append(out, s[strings.LastIndexByte(s, '/')+1:])
				break
			}
		}
	}
	v.lists[u] = out
	return out
}

func (v *visitor) versioned(p *gate.Plane, u string) string {
	switch {
	case p.Name == "blob", p.Name == "dfs", p.Name == "file", p.Name == "graph", p.Name == "scim", p.Name == "login":
		return u
	case strings.Contains(u, "?"):
		return u + "&api-version=" + resource.VersionFor(u)
	}
	return u + "?api-version=" + resource.VersionFor(u)
}

// paths fills a pattern's wildcards with what there is.
func (v *visitor) paths(p *gate.Plane, host, pattern string) []string {
	path, query, hasQuery := strings.Cut(pattern, "?")
	out := []string{""}
	for _, seg := range strings.Split(path[1:], "/") {
		var next []string
		for _, at := range out {
			names := []string{seg}
			if strings.HasPrefix(seg, "{") {
				names = v.known(strings.Trim(seg, "{}."), at)
				if names == nil {
					names = v.names(p, "https://"+host+at)
				}
				if len(names) == 0 {
					names = []string{"x0000001"}
				}
			}
			for _, n := range names[:min(len(names), 3)] {
				next = append(next, at+"/"+n)
			}
		}
		out = next
	}
	if hasQuery {
		for i := range out {
			out[i] += "?" + query
		}
	}
	return out
}

// known are the names that no list tells.
func (v *visitor) known(wildcard, at string) []string {
	last := strings.ToLower(at[strings.LastIndexByte(at, '/')+1:])
	switch wildcard {
	case "sub":
		return []string{v.a.Site.Subscription}
	case "tenant", "mg":
		return []string{v.a.Site.Tenant}
	case "scope":
		return []string{v.path(v.sub)[1:], v.path(v.group)[1:], v.path(v.vault)[1:], v.path(v.account)[1:], v.path(v.workspace)[1:], v.path(v.workspace)[1:] + "/datastores/byaccountkey", "providers/Microsoft.Management/managementGroups/" + v.a.Site.Tenant}
	case "group":
		if last == "managementgroups" {
			return []string{v.a.Site.Tenant}
		}
		return []string{"policed"}
	case "ns":
		return []string{"Microsoft.KeyVault", "Microsoft.MachineLearningServices"}
	case "location":
		return []string{v.a.Site.Location}
	case "decision":
		return []string{v.decision}
	case "workspace":
		return []string{"keeps"}
	case "experimentid":
		return []string{v.experiment}
	case "experiment":
		return []string{"e"}
	case "run":
		return []string{v.run}
	case "container":
		if strings.Contains(strings.ToLower(at), "experimentrun") {
			return []string{"dcid." + v.run}
		}
		return []string{"con", "insights-logs-auditevent"}
	case "path":
		return []string{"runs/" + v.run + "/model"}
	case "blob", "any":
		var out []string
		w := v.ask("blob", http.MethodGet, "https://logsacct.blob."+v.a.Site.StorageSuffix()+at+"?restype=container&comp=list", "")
		for _, part := range strings.Split(w.Body.String(), "<Name>")[1:] {
			name, _, _ := strings.Cut(part, "</Name>")
			out = append(out, (&url.URL{Path: name}).EscapedPath())
		}
		return out
	case "as":
		return []string{"microsoft.graph.user"}
	case "version":
		if last == "mlflow" || last == "artifact" {
			return []string{"v2.0"}
		}
		if strings.HasPrefix(at, "/secrets/") || strings.HasPrefix(at, "/keys/") {
			return v.names(v.a.plane("vault"), "https://keeps-kv."+v.a.Site.VaultSuffix()+at+"/versions")
		}
	}
	return nil
}

// Who may read everything, and read only, learns no secret: not by any door of
// any plane, by any list, export, log, explanation, state of policies or
// diagnostics, nor by any refusal (RBAC-06). Nor does the server's own log tell.
func TestAReaderMeetsNoSecret(t *testing.T) {
	t.Parallel()
	said := &said{}
	sinkHeader := newCanary()
	sinks := filepath.Join(t.TempDir(), "sinks")
	if err := os.WriteFile(sinks, []byte(`{"sinks":[{"name":"far","otlp":"https://127.0.0.1:1/v1/logs","headers":{"Authorization":"Bearer `+sinkHeader+`"}}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := New(t.Context(), Config{Data: t.TempDir() + "/data", Sinks: sinks, Log: slog.New(slog.NewTextHandler(said, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	a.Run(t.Context())
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	h := &hidden{policed: newPoliced(t, a), graph: a.admin(t, "graph"), keys: a.admin(t, "vault")}
	h.got("sink's header", sinkHeader)
	h.things()
	h.vaults()
	h.learning()
	h.deployments()
	h.people()
	h.policies()
	if err := a.diagnoses.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}

	reader := a.newPerson(t, "reader")
	v := &visitor{hidden: h, tokens: map[string]string{}, scan: newScanner(h.all), lists: map[string][]string{}, answers: map[int]int{}, seen: map[string]bool{}}
	h.post(http.StatusOK, a.Site.Base()+"/providers/Microsoft.Authorization/elevateAccess", nil)
	root := "/providers/Microsoft.Management/managementGroups/" + a.Site.Tenant
	for _, role := range []string{"Reader", "Key Vault Reader", "Monitoring Reader"} {
		a.giveRole(t, h.token, root, reader.object, role)
	}
	a.giveRole(t, h.token, h.path(h.logs), reader.object, "Storage Blob Data Reader")
	h.directory(http.StatusCreated, "roleManagement/directory/roleAssignments", map[string]any{"principalId": reader.object, "directoryScopeId": "/", "roleDefinitionId": "f2ef992c-3afb-46b9-b7cf-a126ee74c451"})
	for plane, audience := range a.audiences() {
		v.tokens[plane] = tokenFor(t, a, reader.id, reader.secret, audience)
	}
	control(t, v.scan, h.all)
	if w := call(a, h.token, http.MethodPost, h.account+"/listKeys"+version, nil); len(v.scan.scan(w.Body.Bytes())) != 2 {
		t.Fatal("the keys are not found where they are")
	}
	v.walk()
	v.said(said.Bytes())
}

// queries are what doors want to be asked, or may be, by the ends of their patterns.
var queries = map[string][]string{
	"/eventtypes/management/values": {"$filter=eventTimestamp ge '2020-01-01T00:00:00Z'"},
	"/whoCan":                       {"action=Microsoft.KeyVault/vaults/secrets/getSecret/action&dataAction=true", "action=Microsoft.KeyVault/vaults/read"},
	"/audit/growth":                 {"old=1&new=2"},
	"/audit/inclusion":              {"index=1&size=2"},
	"/resources":                    {"$expand=createdTime,changedTime,provisioningState"},
	"/users":                        {"$select=id,passwordProfile,passwordPolicies,signInSessionsValidFromDateTime"},
	"/users/{id}":                   {"$select=id,passwordProfile"},
	"/applications":                 {"$select=id,passwordCredentials,keyCredentials", "$expand=owners"},
	"/applications/{id}":            {"$select=id,passwordCredentials,keyCredentials"},
	"/servicePrincipals":            {"$select=id,passwordCredentials,keyCredentials", "$filter=passwordCredentials ne null"},
	"/identityProviders":            {"$select=id,clientSecret", "$filter=clientSecret ne null"},
	"/identityProviders/{id}":       {"$select=clientSecret"},
	"/ldapDirectories":              {"$select=id,bindPassword"},
	"/ldapDirectories/{id}":         {"$select=bindPassword"},
}

// bodies are what doors that read by POST take.
var bodies = map[string]string{
	"/exportTemplate":          `{"resources":["*"],"options":"IncludeParameterDefaultValue,IncludeComments"}`,
	"/diagnose":                `{"value":{}}`,
	"/$batch":                  `{"requests":[{"id":"1","method":"GET","url":"/identity/identityProviders"},{"id":"2","method":"GET","url":"/applications"}]}`,
	"/runs/search":             `{"experiment_ids":["EXPERIMENT"]}`,
	"/checkPolicyRestrictions": `{"resourceDetails":{"resourceContent":{"type":"Microsoft.MachineLearningServices/workspaces/datastores","name":"byaccountkey"}}}`,
}

// walk goes through all doors.
func (v *visitor) walk() {
	opened := 0
	for _, p := range v.a.Planes {
		host := map[string]string{"vault": "keeps-kv." + v.a.Site.VaultSuffix(), "blob": "logsacct.blob." + v.a.Site.StorageSuffix(), "dfs": "logsacct.dfs." + v.a.Site.StorageSuffix(), "file": "logsacct.file." + v.a.Site.StorageSuffix(), "graph": v.a.Site.GraphHost()}[p.Name]
		if host == "" {
			host = v.a.Site.Host()
		}
		for _, rt := range p.Routes {
			gave := false
			for _, path := range v.paths(p, host, rt.Pattern) {
				for _, u := range v.asked(p, rt, "https://"+host+path) {
					w := v.ask(p.Name, rt.Method, u, v.body(rt.Pattern))
					for range 12 { // ML's doors refuse what they do not know, by name
						_, after, unknown := strings.Cut(w.Body.String(), "The parameter '")
						name, _, _ := strings.Cut(after, "'")
						at, err := url.Parse(u)
						q := at.Query()
						if err != nil || !unknown || !q.Has(name) {
							break
						}
						q.Del(name)
						at.RawQuery = q.Encode()
						u = at.String()
						w = v.ask(p.Name, rt.Method, u, v.body(rt.Pattern))
					}
					gave = gave || w.Code/100 == 2
				}
			}
			if gave {
				opened++
			}
		}
	}
	v.Logf("%d secrets; %d doors gave something; answers %v, %d bytes", len(v.all), opened, v.answers, v.read)
	if len(v.all) < 25 || opened < 300 || v.answers[http.StatusOK] < 600 {
		v.Error("that is too little to be everything")
	}
}

// asked are the ways in which the door is asked at the URL.
func (v *visitor) asked(p *gate.Plane, rt gate.Route, u string) (out []string) {
	out = []string{v.versioned(p, u)}
	if rt.Method != http.MethodGet {
		return out
	}
	if p.Name == "ml" {
		return []string{out[0] + "&run_id=" + v.run + "&run_uuid=" + v.run + "&experiment_id=" + v.experiment + "&experiment_ids=" + v.experiment + "&experiment_name=e&name=m&version=1&path=model&metric_key=k"}
	}
	for end, more := range queries {
		if !strings.HasSuffix(strings.ToLower(rt.Pattern), strings.ToLower(end)) {
			continue
		}
		for _, q := range more {
			out = append(out, out[0]+map[bool]string{true: "&", false: "?"}[strings.Contains(out[0], "?")]+strings.ReplaceAll(q, " ", "%20"))
		}
	}
	return out
}

func (v *visitor) body(pattern string) string {
	for end, b := range bodies {
		if strings.HasSuffix(strings.ToLower(pattern), strings.ToLower(end)) {
			return strings.ReplaceAll(b, "EXPERIMENT", v.experiment)
		}
	}
	return "{}"
}

// said looks into the server's log, the audit log and the data folder.
func (v *visitor) said(log []byte) {
	entries, err := v.a.Audit.Tail(v.Context(), 1<<20)
	if err != nil || len(entries) < 1000 || len(log) == 0 {
		v.Fatalf("the server's log has %d bytes, the audit log %d entries, %v", len(log), len(entries), err)
	}
	text, err := json.Marshal(entries)
	if err != nil {
		v.Fatal(err)
	}
	for where, b := range map[string][]byte{"the server's log": log, "the audit log": text} {
		for _, f := range v.scan.scan(b) {
			v.Errorf("%s has a %s as %q", where, f.canary.kind, f.form)
		}
	}
	if _, hits := v.scan.folder(v.T, v.a.Data); len(hits) > 0 {
		v.Error(strings.Join(hits, "\n"))
	}
}
