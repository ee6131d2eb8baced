package app

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"

	"castellan/internal/node"
	"castellan/internal/resource"
)

// TestMain lets the test binary be the init of its own sandboxes, and a platform
// that can be killed.
func TestMain(m *testing.M) {
	node.Main()
	serveIfAsked()
	serveBareIfAsked()
	os.Exit(m.Run())
}

// newApp is a whole platform in a temporary folder, with its workers running.
func newApp(t *testing.T) *App {
	t.Helper()
	a, err := New(t.Context(), Config{Data: t.TempDir() + "/data"})
	if err != nil {
		t.Fatal(err)
	}
	a.Run(t.Context())
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

// verbs are the services whose verbs ask for Grants.
func (a *App) verbs() []any {
	return []any{a.identity, a.roles, a.policies, a.vault, a.blob, a.ml, a.tracking, a.deploy}
}

// versioned is u with a version of what it names in the place of "any".
func versioned(u string) string {
	return strings.Replace(u, "api-version=any", "api-version="+resource.VersionFor(u), 1)
}

// call sends one request to the platform as the bearer of token.
func call(a *App, token, method, u string, body any, header ...string) *httptest.ResponseRecorder {
	var in string
	contentType := "application/json"
	switch b := body.(type) {
	case nil:
	case string:
		in = b
	case url.Values:
		in, contentType = b.Encode(), "application/x-www-form-urlencoded"
	default:
		j, err := json.Marshal(b)
		if err != nil {
			panic(err)
		}
		in = string(j)
	}
	r := httptest.NewRequest(method, versioned(u), strings.NewReader(in))
	r.Header.Set("Content-Type", contentType)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	a.Handler.ServeHTTP(w, r)
	return w
}

// must is call whose answer must have the status.
func must(t *testing.T, a *App, want int, token, method, u string, body any, header ...string) map[string]any {
	t.Helper()
	w := call(a, token, method, u, body, header...)
	if w.Code != want {
		t.Fatalf("%s %s = %d, want %d: %s", method, u, w.Code, want, w.Body)
	}
	var out map[string]any
	_ = json.Unmarshal(w.Body.Bytes(), &out) // not every answer is JSON
	return out
}

// tokenFor signs an application in for one audience.
func tokenFor(t *testing.T, a *App, id, secret, audience string) string {
	t.Helper()
	return tokenAt(t, a, a.Site.Tenant, id, secret, audience)
}

// tokenAt is tokenFor at a tenant.
func tokenAt(t *testing.T, a *App, tenant, id, secret, audience string) string {
	t.Helper()
	w := call(a, "", http.MethodPost, a.Site.Base()+"/"+tenant+"/oauth2/v2.0/token", url.Values{
		"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {secret}, "scope": {audience + "/.default"},
	})
	var out struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || out.Token == "" {
		t.Fatalf("signing in for %s = %d %s", audience, w.Code, w.Body)
	}
	return out.Token
}

// audiences are the planes' audiences, by the planes' names.
func (a *App) audiences() map[string]string {
	return map[string]string{
		"arm": a.Site.Base(), "ml": "https://ml.azure.com", "graph": "https://" + a.Site.GraphHost(),
		"vault": "https://vault.azure.net", "blob": "https://storage.azure.com",
	}
}

// admin is a token of the first administrator's application.
func (a *App) admin(t *testing.T, plane string) string {
	t.Helper()
	return tokenFor(t, a, a.Admin.ClientID, string(a.Admin.ClientSecret.Reveal()), a.audiences()[plane])
}

// person is an application that signs in, and what rights hang on.
type person struct {
	id, secret, object string
}

// newPerson makes an application without any role, through Graph.
func (a *App) newPerson(t *testing.T, name string) person {
	t.Helper()
	g, graph := a.admin(t, "graph"), "https://"+a.Site.GraphHost()+"/v1.0"
	made := must(t, a, http.StatusCreated, g, http.MethodPost, graph+"/applications", map[string]any{"displayName": name})
	id := fmt.Sprint(made["appId"])
	sp := must(t, a, http.StatusCreated, g, http.MethodPost, graph+"/servicePrincipals", map[string]any{"appId": id})
	key := must(t, a, http.StatusOK, g, http.MethodPost, graph+"/applications/"+fmt.Sprint(made["id"])+"/addPassword", map[string]any{"passwordCredential": map[string]any{"displayName": "test"}})
	return person{id, fmt.Sprint(key["secretText"]), fmt.Sprint(sp["id"])}
}

// stranger is somebody without a role, signed in for every plane.
func (a *App) stranger(t *testing.T) map[string]string {
	t.Helper()
	p := a.newPerson(t, "stranger")
	out := map[string]string{}
	for plane, aud := range a.audiences() {
		out[plane] = tokenFor(t, a, p.id, p.secret, aud)
	}
	return out
}
