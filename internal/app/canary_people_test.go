package app

import (
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"html"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/mfa"
)

// directory: what is known of people, groups and applications, and secrets that others gave out.
func (p *planter) directory() {
	graph := p.s.ready.Graph + "/v1.0/"
	post := func(path string, body map[string]any) (out struct{ ID, SecretText string }) {
		p.must(p.t, &out, p.graph, http.MethodPost, graph+path, body)
		return out
	}
	for range 10 {
		post("users", map[string]any{"accountEnabled": true, "displayName": p.new("person's name"), "givenName": p.new("given name"), "surname": p.new("surname"), "mail": p.new("person's mail") + "@example.com",
			"mailNickname": "x", "userPrincipalName": p.new("user principal name") + "@" + strings.TrimPrefix(p.base, "https://"), "passwordProfile": map[string]any{"password": "Aa1-" + p.new("password")}})
		post("groups", map[string]any{"displayName": p.new("group's name"), "description": p.new("group's description"), "mailNickname": p.new("nickname"), "mailEnabled": false, "securityEnabled": true})
	}
	for range 5 {
		app := post("applications", map[string]any{"displayName": p.new("application's name"), "web": map[string]any{"redirectUris": []string{"https://" + p.new("redirect") + ".example/"}}})
		post("applications/"+app.ID+"/federatedIdentityCredentials", map[string]any{"name": p.new("credential's name"), "issuer": "https://" + p.new("issuer") + ".example", "subject": p.new("subject"),
			"audiences": []string{"api://AzureADTokenExchange"}, "description": p.new("credential's description")})
	}
	op := httptest.NewTLSServer(http.NotFoundHandler())
	p.t.Cleanup(op.Close)
	post("identity/identityProviders", map[string]any{"@odata.type": "#microsoft.graph.openIdConnectIdentityProvider", "displayName": p.new("provider's name"), "issuer": op.URL, "clientId": p.new("client id elsewhere"),
		"clientSecret": p.new("provider's client secret"), "domains": []string{p.new("domain") + ".example"}, "certificateAuthorities": pemOf(op)})
	post("identity/ldapDirectories", map[string]any{"displayName": p.new("directory's name"), "url": "ldaps://127.0.0.1:1", "bindDn": "cn=" + p.new("LDAP user"), "bindPassword": p.new("LDAP password"),
		"userBase": "ou=" + p.new("LDAP place"), "groupBase": "ou=groups", "domains": []string{p.new("domain") + ".example"}})
	p.got("SCIM token", post("identity/scimTokens", map[string]any{"displayName": p.new("SCIM token's name")}).SecretText)
}

var (
	appKey    = regexp.MustCompile(`<code class="key">([A-Z2-7 ]+)</code>`)
	spareCode = regexp.MustCompile(`<li><code>([A-Z0-9-]+)</code></li>`)
)

// factors: what signs a person in at the pages, with a seed for one-time codes and codes to recover with.
func (p *planter) factors() {
	for name, text := range p.signInPage(p.t, p.s) {
		if len(text) >= 16 {
			p.got("browser's "+name, text)
		}
	}
	upn := p.new("user principal name") + "@" + strings.TrimPrefix(p.base, "https://")
	password := "Aa1-" + p.new("password")
	p.must(p.t, nil, p.graph, http.MethodPost, p.s.ready.Graph+"/v1.0/users", map[string]any{"accountEnabled": true, "displayName": "m", "mailNickname": "m", "userPrincipalName": upn,
		"passwordProfile": map[string]any{"password": password, "forceChangePasswordNextSignIn": false}})
	jar, err := cookiejar.New(nil)
	if err != nil {
		p.t.Fatal(err)
	}
	c := &http.Client{Jar: jar, Transport: p.http.Transport}
	res, err := c.Get(p.base + "/common/mysecurityinfo")
	page := ""
	send := func(path string, v url.Values) {
		p.t.Helper()
		if err != nil {
			p.t.Fatal(err)
		}
		page = drain(p.t, res)
		if flow := hiddenFlow.FindStringSubmatch(page); flow != nil {
			v.Set("ctx", html.UnescapeString(flow[1]))
		}
		res, err = c.PostForm(p.base+path, v)
	}
	send("/common/login", url.Values{"login": {upn}, "passwd": {password}})
	send("/common/mysecurityinfo", url.Values{"do": {"app"}})
	send("/common/register/app", url.Values{"otc": {p.new("one-time code that is wrong")}})
	m := appKey.FindStringSubmatch(page)
	if m == nil {
		p.t.Fatalf("no key on the page: %s", page)
	}
	text := strings.ReplaceAll(m[1], " ", "")
	seed, err2 := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(text)
	if err2 != nil {
		p.t.Fatal(err2)
	}
	p.got("seed of one-time codes", text)
	p.binary("seed of one-time codes, as bytes", seed)
	code, err2 := mfa.Code(seed, time.Now())
	if err2 != nil {
		p.t.Fatal(err2)
	}
	send("/common/register/app", url.Values{"otc": {code}})
	page = drain(p.t, res)
	spare := spareCode.FindAllStringSubmatch(page, -1)
	if len(spare) == 0 {
		p.t.Fatalf("no codes to recover with: %s", page)
	}
	for _, m := range spare {
		p.got("code to recover with", m[1])
	}
}

// governed: locks, roles, policies, management groups and deployments, with what these take and give in secret.
func (p *planter) governed() {
	put := func(id string, properties map[string]any) {
		p.must(p.t, nil, p.arm, http.MethodPut, p.url(id), map[string]any{"properties": properties})
	}
	sub := "/subscriptions/" + p.sub
	p.must(p.t, nil, p.arm, http.MethodPost, p.base+"/providers/Microsoft.Authorization/elevateAccess?api-version=2016-07-01", nil)
	p.must(p.t, nil, p.arm, http.MethodPut, p.url("/providers/Microsoft.Management/managementGroups/"+p.s.ready.TenantID+"/providers/Microsoft.Authorization/roleAssignments/"+arm.NewUUID()),
		assignmentOf(p.sub, "8e3af657-a8ff-443c-a75c-2fe8c4bcb635", p.owner)) // Owner
	for i := range 5 {
		put(sub+"/providers/Microsoft.Authorization/policyDefinitions/"+p.new("definition's name"), map[string]any{"displayName": p.new("definition's display name"), "description": p.new("definition's description"),
			"metadata": map[string]any{"category": p.new("category")}, "mode": "All", "policyRule": map[string]any{"if": map[string]any{"field": "tags['x']", "equals": p.new("value in a rule")}, "then": map[string]any{"effect": "audit"}}})
		put(fmt.Sprintf("%s/resourceGroups/tagged%d/providers/Microsoft.Authorization/locks/%s", sub, i, p.new("lock's name")), map[string]any{"level": "CanNotDelete", "notes": p.new("lock's notes")})
		p.must(p.t, nil, p.arm, http.MethodPut, p.url("/providers/Microsoft.Management/managementGroups/"+p.new("management group's name")), map[string]any{"properties": map[string]any{"displayName": p.new("management group's display name")}})
		put(p.group+"/providers/Microsoft.Resources/deployments/"+p.new("deployment's name"), map[string]any{"mode": "Incremental",
			"template": map[string]any{"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "contentVersion": "1.0.0.0",
				"parameters": map[string]any{"s": map[string]any{"type": "securestring"}, "t": map[string]any{"type": "string", "defaultValue": p.new("parameter's default")}, "o": map[string]any{"type": "secureObject"}},
				"variables":  map[string]any{"v": p.new("variable of a template")},
				"outputs":    map[string]any{"s": map[string]any{"type": "securestring", "value": "[concat(parameters('s'), '" + p.new("part of a secure output") + "')]"}, "t": map[string]any{"type": "string", "value": p.new("output")}},
				"resources":  []any{}},
			"parameters": map[string]any{"s": map[string]any{"value": p.new("secure parameter")}, "o": map[string]any{"value": map[string]any{"k": p.new("value in a secure object")}}}})
	}
}

// datastores: what opens accounts for jobs, and what is said of data, models and environments.
func (p *planter) datastores() {
	for i := range 10 {
		creds := map[string]any{"credentialsType": "AccountKey", "secrets": map[string]any{"secretsType": "AccountKey", "key": base64.StdEncoding.EncodeToString([]byte(p.new("datastore's account key")))}}
		if i%2 == 0 {
			creds = map[string]any{"credentialsType": "Sas", "secrets": map[string]any{"secretsType": "Sas", "sasToken": "sv=2022-11-02&sr=c&sp=rl&se=2099-01-01T00:00:00Z&sig=" + p.new("datastore's signature")}}
		}
		p.must(p.t, nil, p.arm, http.MethodPut, p.url(p.workspace+"/datastores/"+p.new("datastore's name"))+"&skipValidation=true", map[string]any{"properties": map[string]any{"datastoreType": "AzureBlob",
			"accountName": p.account, "containerName": p.new("datastore's container"), "description": p.new("datastore's description"), "tags": map[string]any{p.new("tag's key"): p.new("tag's value")}, "credentials": creds}})
		for kind, properties := range map[string]map[string]any{
			"environments": {"image": "castellan.local/host:1"},
			"models":       {"modelUri": "azureml://datastores/workspaceblobstore/paths/" + p.new("path of a model"), "modelType": "custom_model"},
			"data":         {"dataUri": "azureml://datastores/workspaceblobstore/paths/" + p.new("path of data"), "dataType": "uri_file"},
		} {
			p.must(p.t, nil, p.arm, http.MethodPut, p.url(p.workspace+"/"+kind+"/"+p.new("asset's name")+"/versions/1"), map[string]any{"properties": properties})
		}
	}
}
