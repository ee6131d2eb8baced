package app

import (
	"crypto/sha256"
	"encoding/base64"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// doorway is a door of a plane that opens to the administrator.
type doorway struct {
	plane, method, url string
	body               any
}

// doorways are a read and a write of every plane.
func (l *lab) doorways(graph string) []doorway {
	tagged := l.url("/subscriptions/" + l.sub + "/resourceGroups/lab")
	return []doorway{
		{"arm", http.MethodGet, l.url(l.workspace), nil},
		{"arm", http.MethodPatch, tagged, map[string]any{"tags": map[string]any{"a": "b"}}},
		{"ml", http.MethodGet, l.mlflow + "experiments/get?experiment_id=" + l.experiment, nil},
		{"ml", http.MethodPost, l.mlflow + "runs/create", map[string]any{"experiment_id": l.experiment}},
		{"graph", http.MethodGet, graph + "/v1.0/users", nil},
		{"graph", http.MethodPost, graph + "/v1.0/groups", map[string]any{"displayName": "g", "mailEnabled": false, "mailNickname": "g", "securityEnabled": true}},
		{"vault", http.MethodGet, l.vaultURL + "secrets?api-version=7.4", nil},
		{"vault", http.MethodPut, l.vaultURL + "secrets/s?api-version=7.4", map[string]any{"value": "v"}},
		{"blob", http.MethodGet, l.blobURL + "?comp=list", nil},
		{"blob", http.MethodPut, l.blobURL + "con/b", []byte("x")},
	}
}

// knockAt sends a token to a doorway.
func (l *lab) knockAt(t *testing.T, d doorway, token string) reply {
	t.Helper()
	var header []string
	if d.plane == "blob" {
		header = []string{"x-ms-version", storageVersion, "x-ms-blob-type", "BlockBlob"}
	}
	a, err := l.send(token, d.method, d.url, d.body, header...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Even the owner's token opens the planes of its audience and no other; and
// what is no access token, or another installation's, opens nothing (TOK-05,
// TOK-08, TOK-10, TOK-06).
func TestTokensOpenOnlyAtHome(t *testing.T) {
	t.Parallel()
	s := spawn(t, t.TempDir()+"/data")
	l := newLab(t, s)
	ml := s.token(t, *s.ready.Admin, "https://ml.azure.com")
	tokens := map[string]string{"arm": l.arm, "ml": ml, "graph": l.graph, "vault": l.vault, "blob": l.blob}
	doors := l.doorways(s.ready.Graph)
	for _, d := range doors {
		for aud, token := range tokens {
			a := l.knockAt(t, d, token)
			home := slices.Contains(audiencesOf(d.plane), aud)
			if home && a.status/100 != 2 || !home && a.status != http.StatusUnauthorized {
				t.Errorf("%s %s with the owner's token for %s = %d %s", d.method, d.url, aud, a.status, a.body)
			}
			if a.status == http.StatusUnauthorized && a.header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s %s: a 401 of %s without a challenge", d.method, d.url, d.plane)
			}
		}
	}
	others := l.signInPage(t, s)
	other := spawn(t, t.TempDir()+"/data") // the same names, another tenant, other keys
	for plane, aud := range map[string]string{"arm": s.ready.ARM, "graph": s.ready.Graph, "vault": "https://vault.azure.net", "blob": "https://storage.azure.com", "ml": "https://ml.azure.com"} {
		others["another installation's token for "+plane] = other.token(t, *other.ready.Admin, aud)
	}
	others["client secret"] = s.ready.Admin.ClientSecret
	others["account key"], others["signature of a URL"] = l.keyAndSignature(t)
	for name, token := range others {
		if token == "" {
			t.Fatalf("there is no %s", name)
		}
		for _, d := range doors {
			if a := l.knockAt(t, d, token); a.status != http.StatusUnauthorized {
				t.Errorf("%s %s with a %s = %d %s", d.method, d.url, name, a.status, a.body)
			}
		}
	}
	t.Logf("%d doors; %d access tokens, %d things that are none", len(doors), len(tokens), len(others))
}

const (
	cli      = "04b07795-8ddb-461a-bbee-02f9e1bf7b46" // the public client of the Azure CLI
	back     = "http://localhost:8400"
	verifier = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKL"
)

var (
	hiddenFlow = regexp.MustCompile(`name="ctx" value="([^"]*)"`)
	formTarget = regexp.MustCompile(`<form method="post" action="([^"]*)"`)
)

// signInPage signs the administrator in as a browser does, twice, and gives
// all that comes of it but for the access token: an ID token, a refresh token, a
// code that was not redeemed, and the browser's session.
func (l *lab) signInPage(t *testing.T, s *served) map[string]string {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Jar: jar, Transport: l.http.Transport, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), back) {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	const scope = " openid offline_access profile"
	authorize := l.base + "/" + s.ready.TenantID + "/oauth2/v2.0/authorize?" + url.Values{
		"client_id": {cli}, "response_type": {"code"}, "redirect_uri": {back}, "scope": {l.base + "/.default" + scope}, "state": {"s"},
		"code_challenge": {s256(verifier)}, "code_challenge_method": {"S256"},
	}.Encode()
	first := l.through(t, c, authorize, *s.ready.Admin)
	var got struct {
		ID      string `json:"id_token"`
		Refresh string `json:"refresh_token"`
	}
	l.must(t, &got, "", http.MethodPost, l.base+"/"+s.ready.TenantID+"/oauth2/v2.0/token", url.Values{
		"grant_type": {"authorization_code"}, "client_id": {cli}, "code": {first}, "redirect_uri": {back}, "code_verifier": {verifier},
	})
	out := map[string]string{"ID token": got.ID, "refresh token": got.Refresh, "redeemed code": first, "code": l.through(t, c, authorize, *s.ready.Admin)}
	site, err := url.Parse(l.base)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range jar.Cookies(site) {
		out["cookie "+k.Name] = k.Value
	}
	return out
}

func s256(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func drain(t *testing.T, res *http.Response) string {
	t.Helper()
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// through goes through the pages until there is a code.
func (l *lab) through(t *testing.T, c *http.Client, at string, who ReadyAdmin) string {
	t.Helper()
	next := "Aa1-" + newCanary()
	res, err := c.Get(at)
	for range 4 {
		if err != nil {
			t.Fatal(err)
		}
		page := drain(t, res)
		if to, err := res.Location(); err == nil {
			return to.Query().Get("code")
		}
		form, flow := formTarget.FindStringSubmatch(page), hiddenFlow.FindStringSubmatch(page)
		if form == nil || flow == nil {
			t.Fatalf("%s is no form: %s", res.Request.URL, page)
		}
		action, _ := res.Request.URL.Parse(html.UnescapeString(form[1]))
		res, err = c.PostForm(action.String(), url.Values{
			"ctx": {html.UnescapeString(flow[1])}, "login": {who.UserName}, "passwd": {who.Password}, "newpasswd": {next}, "confirmnewpasswd": {next},
		})
	}
	t.Fatal("the pages do not end")
	return ""
}

// keyAndSignature are an account's key and a signed query of a URL.
func (l *lab) keyAndSignature(t *testing.T) (key, signature string) {
	t.Helper()
	var list struct{ Keys []struct{ Value string } }
	l.must(t, &list, l.arm, http.MethodPost, l.url(l.group+"/providers/Microsoft.Storage/storageAccounts/"+l.account+"/listKeys"), nil)
	var up struct {
		Reference struct {
			Credential struct{ SASURI string } `json:"credential"`
		} `json:"blobReferenceForConsumption"`
	}
	l.must(t, &up, l.arm, http.MethodPost, l.url(l.workspace+"/codes/c/versions/1/startPendingUpload"), map[string]any{"pendingUploadType": "TemporaryBlobReference"})
	_, signature, _ = strings.Cut(up.Reference.Credential.SASURI, "?")
	return list.Keys[0].Value, signature
}

// The token that a real job really has opens its own run, and nothing else of
// its workspace that is not on the published list, no other workspace and no
// other plane; once the job is over it opens nothing (MID-04).
func TestRunTokenIsForItsRun(t *testing.T) {
	t.Parallel()
	needsSandbox(t)
	a, s := serveHere(t)
	l := newLab(t, s)
	storage := l.group + "/providers/Microsoft.Storage/storageAccounts/" + l.account
	vault := l.group + "/providers/Microsoft.KeyVault/vaults/lab-vault"
	second := strings.TrimSuffix(l.workspace, "lab") + "second"
	l.put(t, second, map[string]any{"location": l.location, "identity": map[string]any{"type": "SystemAssigned"}, "properties": map[string]any{"storageAccount": storage, "keyVault": vault}})
	l.put(t, l.workspace+"/computes/cpu", map[string]any{"location": l.location, "identity": map[string]any{"type": "SystemAssigned"}, "properties": map[string]any{
		"computeType": "AmlCompute", "properties": map[string]any{"vmSize": "Standard_DS1_v2", "scaleSettings": map[string]any{"maxNodeCount": 1}},
	}})
	c := &client{lab: l, led: newLedger()}
	foreign, ok := c.newRun()
	if !ok {
		t.Fatal(c.led.wrong)
	}
	l.start("own", "echo $(echo $AZUREML_RUN_TOKEN"+veil+") $(cat /proc/sys/kernel/hostname); while :; do sleep 1; done", nil)
	words := strings.Fields(l.said(t, "own"))
	token, box := unveil(words[0]), words[1]
	host := l.door
	l.door = a.insideOf(box)
	own := func() []doorway {
		return []doorway{
			{"ml", http.MethodGet, l.mlflow + "runs/get?run_id=own", nil},
			{"ml", http.MethodPost, l.mlflow + "runs/set-tag", map[string]any{"run_id": "own", "key": "k", "value": "v"}},
			{"ml", http.MethodPost, l.mlflow + "runs/log-metric", map[string]any{"run_id": "own", "key": "k", "value": 1, "timestamp": 1, "step": 0}},
			{"ml", http.MethodPost, l.base + "/mlservice/v1.0" + l.workspace + "/runs/own/token", nil},
		}
	}
	for _, d := range own() {
		if a := l.knockAt(t, d, token); a.status != http.StatusOK {
			t.Errorf("%s %s with the run's own token = %d %s", d.method, d.url, a.status, a.body)
		}
	}
	elsewhere := strings.Replace(l.mlflow, l.workspace, second, 1)
	refused := []doorway{
		{"another run", http.MethodGet, l.mlflow + "runs/get?run_id=" + foreign, nil},
		{"another run", http.MethodPost, l.mlflow + "runs/set-tag", map[string]any{"run_id": foreign, "key": "k", "value": "v"}},
		{"another run", http.MethodPost, l.base + "/mlservice/v1.0" + l.workspace + "/runs/" + foreign + "/token", nil},
		{"its own run's end", http.MethodPost, l.mlflow + "runs/delete", map[string]any{"run_id": "own"}},
		{"another workspace", http.MethodGet, elsewhere + "experiments/get?experiment_id=" + l.experiment, nil},
		{"another workspace", http.MethodPost, elsewhere + "runs/create", map[string]any{"experiment_id": "0"}},
		{"another workspace", http.MethodPost, l.base + "/mlservice/v1.0" + second + "/runs/own/token", nil},
	}
	for _, d := range refused {
		if a := l.knockAt(t, d, token); a.status != http.StatusForbidden && a.status != http.StatusNotFound {
			t.Errorf("%s: %s %s with a run's token = %d %s", d.plane, d.method, d.url, a.status, a.body)
		}
	}
	for _, d := range l.doorways(s.ready.Graph) {
		if d.plane == "ml" {
			continue
		}
		if a := l.knockAt(t, d, token); a.status != http.StatusUnauthorized {
			t.Errorf("%s %s with a run's token = %d %s", d.method, d.url, a.status, a.body)
		}
	}
	admin := s.ready.Admin.ClientID
	for as, more := range map[string]url.Values{
		"a client's assertion": {"grant_type": {"client_credentials"}, "client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {token}},
		"a client's secret":    {"grant_type": {"client_credentials"}, "client_secret": {token}},
		"a refresh token":      {"grant_type": {"refresh_token"}, "client_secret": {s.ready.Admin.ClientSecret}, "refresh_token": {token}},
		"a code":               {"grant_type": {"authorization_code"}, "client_secret": {s.ready.Admin.ClientSecret}, "code": {token}, "redirect_uri": {"http://localhost"}, "code_verifier": {strings.Repeat("v", 43)}},
		"a device code":        {"grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "client_secret": {s.ready.Admin.ClientSecret}, "device_code": {token}},
		"a person's assertion": {"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "requested_token_use": {"on_behalf_of"}, "client_secret": {s.ready.Admin.ClientSecret}, "assertion": {token}},
	} {
		more.Set("client_id", admin)
		more.Set("scope", l.base+"/.default")
		a := l.knockAt(t, doorway{"login", http.MethodPost, s.ready.Login + "/" + s.ready.TenantID + "/oauth2/v2.0/token", more}, "")
		if a.status != http.StatusBadRequest && a.status != http.StatusUnauthorized || strings.Contains(string(a.body), "access_token") {
			t.Errorf("a run's token as %s = %d %s", as, a.status, a.body)
		}
	}
	theft(t, a, l, token, map[string]door{"the host": host, "another sandbox": a.insideOf("job-another")})
	l.must(t, nil, l.arm, http.MethodPost, l.url(l.workspace+"/jobs/own/cancel"), nil)
	l.until(t, time.Minute, "the job's end", func() bool { return l.status("own") == "Canceled" })
	for _, d := range own() {
		if a := l.knockAt(t, d, token); a.status != http.StatusUnauthorized {
			t.Errorf("%s %s with the token of a run that is over = %d %s", d.method, d.url, a.status, a.body)
		}
	}
}
