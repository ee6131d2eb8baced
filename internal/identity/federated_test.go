package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// cluster is a real OpenID issuer behind TLS, with one key, such as a
// Kubernetes cluster or a forge.
type cluster struct {
	t      testing.TB
	server *httptest.Server
	key    *rsa.PrivateKey
	file   string // settings that let it be asked
}

func newCluster(t testing.TB) *cluster {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, key: key}
	c.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/keys" {
			_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{KeyID: "k", Key: &key.PublicKey, Use: "sig", Algorithm: "RS256"}}})
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": c.server.URL, "jwks_uri": c.server.URL + "/keys"})
	}))
	t.Cleanup(c.server.Close)
	dir := t.TempDir()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.server.Certificate().Raw})
	c.file = filepath.Join(dir, "issuers.json")
	for path, b := range map[string][]byte{filepath.Join(dir, "ca.pem"): ca, c.file: mustJSON(map[string]any{"caFile": filepath.Join(dir, "ca.pem"), "loopback": true})} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

const workload = "system:serviceaccount:team:train"

// token is what the cluster gives a pod, with something changed.
func (c *cluster) token(now time.Time, change map[string]any) string {
	c.t.Helper()
	body := map[string]any{
		"iss": c.server.URL, "sub": workload, "aud": []string{ExchangeAudience}, "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(), "jti": arm.NewUUID(),
		"kubernetes.io": map[string]any{"namespace": "team", "serviceaccount": map[string]any{"name": "train", "uid": arm.NewUUID()}},
	}
	maps.Copy(body, change)
	for k, v := range change {
		if v == nil {
			delete(body, k)
		}
	}
	return forge(c.t, c.key, map[string]any{"alg": "RS256", "kid": "k"}, body)
}

// exchange shows a foreign token to the token endpoint.
func (w *world) exchange(client, assertion string) reply {
	w.t.Helper()
	return w.form(w.tokenPath(), url.Values{"grant_type": {"client_credentials"}, "client_id": {client}, "client_assertion_type": {assertionType}, "client_assertion": {assertion}, "scope": {w.site.Base() + "/.default"}})
}

// newApp is a new application with its principal.
func (w *world) newApp(name string, more map[string]any) (app reply, principal string) {
	w.t.Helper()
	body := map[string]any{"displayName": name}
	maps.Copy(body, more)
	app = w.admin("POST", "applications", body)
	return app, w.admin("POST", "servicePrincipals", map[string]any{"appId": app.text("appId")}).text("id")
}

func clusterWorld(t *testing.T) (*world, *cluster) {
	c := newCluster(t)
	return newWorldWith(t, func(cfg *Config) { cfg.Issuers = c.file }), c
}

// A workload's own token is its credential: exactly the issuer, subject and
// audience that an administrator wrote down, signed by that issuer, in time.
func TestFederatedCredential(t *testing.T) {
	w, c := clusterWorld(t)
	app, _ := w.newApp("train", nil)
	id, at := app.text("appId"), "applications/"+app.text("id")+"/federatedIdentityCredentials"
	if r := w.exchange(id, c.token(w.now(), nil)); r.status != 401 || !strings.Contains(r.text("error_description"), "AADSTS700211") {
		t.Errorf("before it is trusted: %d %s", r.status, r.body)
	}
	f := w.admin("POST", at, map[string]any{"name": "cluster", "issuer": c.server.URL, "subject": workload, "audiences": []string{ExchangeAudience}})
	w.admin("POST", at, map[string]any{"name": "forge", "issuer": c.server.URL, "subject": "repo:org/repo:environment:prod", "audiences": []string{ExchangeAudience}})
	good := c.token(w.now(), nil)
	r := w.exchange(id, good)
	if r.status != 200 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	token := r.text("access_token")
	if caller, err := w.verify(token); err != nil || caller.App != id || claims(t, token)["appidacr"] != "2" {
		t.Errorf("%+v, %v", caller, err)
	}
	// A pod's token lies in a file for an hour and is shown again and again.
	if r := w.exchange(id, good); r.status != 200 {
		t.Errorf("shown again: %d %s", r.status, r.body)
	}
	if r := w.exchange(id, c.token(w.now(), map[string]any{"sub": "repo:org/repo:environment:prod", "aud": ExchangeAudience, "repository": "org/repo", "ref": "refs/heads/main"})); r.status != 200 {
		t.Errorf("as a forge has it: %d %s", r.status, r.body)
	}
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	now := w.now()
	stranger, _ := w.newApp("other", nil)
	for name, x := range map[string]struct{ number, raw string }{
		"another subject":      {"700213", c.token(now, map[string]any{"sub": workload + "2"})},
		"in capitals":          {"700213", c.token(now, map[string]any{"sub": strings.ToUpper(workload)})},
		"no subject":           {"700213", c.token(now, map[string]any{"sub": nil})},
		"another audience":     {"700212", c.token(now, map[string]any{"aud": "api://azureadtokenexchange"})},
		"no audience":          {"700212", c.token(now, map[string]any{"aud": nil})},
		"a slash":              {"700211", c.token(now, map[string]any{"iss": c.server.URL + "/"})},
		"another issuer":       {"700211", c.token(now, map[string]any{"iss": "https://other.example"})},
		"expired":              {"700024", c.token(now.Add(-2*time.Hour), nil)},
		"no exp":               {"700024", c.token(now, map[string]any{"exp": nil})},
		"no iat":               {"700024", c.token(now, map[string]any{"iat": nil})},
		"not yet":              {"700024", c.token(now, map[string]any{"nbf": now.Add(10 * time.Minute).Unix()})},
		"a year":               {"700024", c.token(now, map[string]any{"exp": now.Add(8760 * time.Hour).Unix()})},
		"another key":          {"50013", forge(t, other, map[string]any{"alg": "RS256", "kid": "k"}, claims(t, good))},
		"another key's name":   {"50013", forge(t, c.key, map[string]any{"alg": "RS256", "kid": "x"}, claims(t, good))},
		"none":                 {"50013", part(map[string]any{"alg": "none", "kid": "k"}) + "." + strings.Split(good, ".")[1] + ".eA"},
		"cut":                  {"700027", good[:len(good)/2]},
		"the platform's token": {"700211", w.appToken(w.site.Base())},
	} {
		if r := w.exchange(id, x.raw); r.status != 401 || r.code() != "invalid_client" || !strings.Contains(r.text("error_description"), "AADSTS"+x.number+":") {
			t.Errorf("%s: %d %s, want AADSTS%s", name, r.status, r.body, x.number)
		}
	}
	if r := w.exchange(stranger.text("appId"), good); r.status != 401 {
		t.Errorf("another application: %d %s", r.status, r.body)
	}
	if e := w.tail(); !strings.Contains(fmt.Sprint(e), "federated credential") {
		t.Error("no entry tells how the workload signed in")
	}

	// The token dies with the trust, and with a change of what is trusted.
	w.admin("PATCH", at+"/cluster", map[string]any{"description": "the training cluster"})
	if _, err := w.verify(token); err != nil {
		t.Errorf("a new description: %v", err)
	}
	w.admin("PATCH", at+"/"+f.text("id"), map[string]any{"subject": "system:serviceaccount:team:other"})
	w.refused("the trust is in another subject now", token)
	w.admin("PATCH", at+"(name='cluster')", map[string]any{"subject": workload})
	again := w.exchange(id, good).text("access_token")
	if _, err := w.verify(again); err != nil {
		t.Fatal(err)
	}
	w.refused("of the time before", token)
	w.admin("DELETE", at+"(name='cluster')", nil)
	w.refused("the trust is gone", again)
	if r := w.exchange(id, good); r.status != 401 {
		t.Errorf("the trust is gone: %d %s", r.status, r.body)
	}
}

// What an administrator may write down, and who may.
func TestFederatedCredentialsAreManaged(t *testing.T) {
	w := newWorld(t)
	app, _ := w.newApp("train", nil)
	at := "applications/" + app.text("id") + "/federatedIdentityCredentials"
	body := func(name, subject string) map[string]any {
		return map[string]any{"name": name, "issuer": "https://token.actions.githubusercontent.com", "subject": subject, "audiences": []string{ExchangeAudience}}
	}
	w.admin("POST", at, body("one", "repo:a"))
	_, upn := w.user("ann")
	ann := w.graphToken(upn)
	for _, x := range [][2]string{{"POST", at}, {"PATCH", at + "/one"}, {"DELETE", at + "/one"}, {"DELETE", at + "(name='one')"}} {
		if r := w.graph(ann, x[0], x[1], body("two", "repo:b")); r.status != 403 {
			t.Errorf("%s %s by anybody: %d", x[0], x[1], r.status)
		}
	}
	if r := w.graph(ann, "GET", at+"/one", nil); r.status != 200 || r.text("subject") != "repo:a" {
		t.Errorf("by name: %d %s", r.status, r.body)
	}
	with := func(k string, v any) map[string]any {
		m := body("two", "repo:b")
		m[k] = v
		return m
	}
	for name, b := range map[string]map[string]any{
		"its name":             body("ONE", "repo:b"),
		"its subject":          body("two", "repo:a"),
		"a short name":         body("x", "repo:b"),
		"a name with a quote":  body("a'b", "repo:b"),
		"any subject":          body("two", "repo:*"),
		"no subject":           body("two", ""),
		"http":                 with("issuer", "http://token.actions.githubusercontent.com"),
		"metadata":             with("issuer", "https://169.254.169.254"),
		"metadata, in decimal": with("issuer", "https://2852039166"),
		"no audience":          with("audiences", []string{}),
		"two audiences":        with("audiences", []string{ExchangeAudience, "b"}),
		"an expression":        with("claimsMatchingExpression", map[string]any{"value": "claims['sub'] matches '*'", "languageVersion": 1}),
		"an unknown field":     with("wildcard", true),
	} {
		if r := w.graph(w.token, "POST", at, b); r.status != 400 {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	for i := range maxFederated - 1 {
		w.admin("POST", at, body(fmt.Sprintf("more%d", i), fmt.Sprintf("repo:more%d", i)))
	}
	if r := w.graph(w.token, "POST", at, body("two", "repo:b")); r.status != 400 {
		t.Errorf("one too many: %d %s", r.status, r.body)
	}
	if r := w.admin("GET", at, nil); len(r.json["value"].([]any)) != maxFederated {
		t.Errorf("%s", r.body)
	}
	for _, x := range [][2]string{{"GET", at + "/nope"}, {"DELETE", at + "(name='nope')"}, {"GET", "applications/" + app.text("id") + "/other(name='one')"}} {
		if r := w.graph(w.token, x[0], x[1], nil); r.status != 404 {
			t.Errorf("%s %s: %d", x[0], x[1], r.status)
		}
	}
}

// A user-assigned managed identity is such a client too, and no other managed
// identity is; its trusts are resources below it.
func TestFederatedManagedIdentity(t *testing.T) {
	w, c := clusterWorld(t)
	ctx := context.Background()
	identityID := arm.MustID("/subscriptions/s/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/ua")
	doc := &resource.Doc{ID: arm.MustID(identityID.String() + "/federatedIdentityCredentials/fic"), Name: "fic"}
	kinds := w.s.Kinds()
	fic := kinds[1]
	var p, other *Principal
	save := func(subject string) error {
		doc.Properties = mustJSON(federatedProps{Issuer: c.server.URL, Subject: subject, Audiences: []string{ExchangeAudience}})
		return w.db.Do(ctx, func(tx *store.Tx) error { return fic.Save(tx, resource.Change{Doc: doc}) })
	}
	err := w.db.Do(ctx, func(tx *store.Tx) (err error) {
		if p, err = w.s.ensure(tx, identityID, "ua", true); err != nil {
			return err
		}
		other, err = w.s.ensure(tx, arm.MustID("/subscriptions/s/resourceGroups/rg/providers/Microsoft.MachineLearningServices/workspaces/ws"), "ws", false)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := save(workload); err != nil {
		t.Fatal(err)
	}
	r := w.exchange(p.AppID, c.token(w.now(), nil))
	if r.status != 200 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	token := r.text("access_token")
	caller, err := w.verify(token)
	if err != nil || caller.Object != p.ID || claims(t, token)["xms_mirid"] != identityID.String() {
		t.Errorf("%+v, %v", caller, err)
	}
	if r := w.exchange(other.AppID, c.token(w.now(), nil)); r.status < 400 || r.status > 401 {
		t.Errorf("a resource's own identity: %d %s", r.status, r.body)
	}
	for name, form := range map[string]url.Values{
		"no credential": {"grant_type": {"client_credentials"}, "client_id": {p.AppID}, "scope": {w.site.Base() + "/.default"}},
		"a secret":      {"grant_type": {"client_credentials"}, "client_id": {p.AppID}, "client_secret": {"x"}, "scope": {w.site.Base() + "/.default"}},
	} {
		if r := w.form(w.tokenPath(), form); r.status < 400 {
			t.Errorf("%s: %d", name, r.status)
		}
	}
	if err := save(workload + "2"); err != nil {
		t.Fatal(err)
	}
	w.refused("the trust is in another subject now", token)
	if err := save(workload); err != nil {
		t.Fatal(err)
	}
	token = w.exchange(p.AppID, c.token(w.now(), nil)).text("access_token")
	if _, err := w.verify(token); err != nil {
		t.Error(err)
	}
	if err := w.db.Do(ctx, func(tx *store.Tx) error { return fic.Remove(tx, doc) }); err != nil {
		t.Fatal(err)
	}
	w.refused("the trust is gone", token)

	// Its own token for the exchange stands for an application's credential.
	mi, _, _, err := w.managedToken(identityID, ExchangeAudience)
	if err != nil {
		t.Fatal(err)
	}
	app, _ := w.newApp("chained", nil)
	w.admin("POST", "applications/"+app.text("id")+"/federatedIdentityCredentials", map[string]any{"name": "chain", "issuer": w.s.issuer(w.first.Tenant, false), "subject": p.ID, "audiences": []string{ExchangeAudience}})
	if r := w.exchange(app.text("appId"), mi); r.status != 200 {
		t.Errorf("a managed identity's token: %d %s", r.status, r.body)
	}
	if err := w.db.Do(ctx, func(tx *store.Tx) error { return w.s.Drop(tx, identityID) }); err != nil {
		t.Fatal(err)
	}
	if r := w.exchange(app.text("appId"), mi); r.status != 401 {
		t.Errorf("the managed identity is gone: %d %s", r.status, r.body)
	}
}

// managedToken is a token of a managed identity, as the platform gets it.
func (w *world) managedToken(of arm.ID, audience string) (string, time.Time, string, error) {
	return w.managedTokenIn(of, audience, "")
}

func (w *world) managedTokenIn(of arm.ID, audience, sandbox string) (string, time.Time, string, error) {
	c := arm.Caller{Tenant: w.first.Tenant, Object: "x", Token: "system", Lease: &arm.Lease{Scope: of, Actions: []arm.Action{MintManaged}, Why: "a test"}}
	g, err := w.gate.Admit(context.Background(), c, MintManaged, gate.Target{ID: of})
	if err != nil {
		return "", time.Time{}, "", err
	}
	defer func() { _ = g.Close(context.Background(), nil) }()
	return w.s.ManagedToken(context.Background(), g, audience, sandbox)
}

// A certificate counts by itself: one with a key on a curve does, and a chain
// to a name that the application's certificate has (SNI) does not.
func TestCertificatesCountByThemselves(t *testing.T) {
	w := newWorld(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issue := func(serial int64, key *ecdsa.PrivateKey) []byte {
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "c.example"}, NotBefore: w.now().Add(-time.Hour), NotAfter: w.now().Add(48 * time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	der := issue(1, key)
	app, _ := w.newApp("c", map[string]any{"keyCredentials": []any{map[string]any{"type": "AsymmetricX509Cert", "usage": "Verify", "key": base64.StdEncoding.EncodeToString(der)}}})
	sign := func(key *ecdsa.PrivateKey, head map[string]any) string {
		o := &jose.SignerOptions{}
		for k, v := range head {
			o.WithHeader(jose.HeaderKey(k), v)
		}
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, o)
		if err != nil {
			t.Fatal(err)
		}
		j, err := signer.Sign(mustJSON(map[string]any{"iss": app.text("appId"), "sub": app.text("appId"), "aud": w.site.Base() + w.tokenPath(), "jti": arm.NewUUID(), "exp": w.now().Add(10 * time.Minute).Unix()}))
		if err != nil {
			t.Fatal(err)
		}
		out, _ := j.CompactSerialize()
		return out
	}
	s1, s256 := sha1.Sum(der), sha256.Sum256(der)
	byName := map[string]any{"x5t#S256": b64.EncodeToString(s256[:])}
	withChain := func(list ...[]byte) map[string]any {
		m := maps.Clone(byName)
		var chain []string
		for _, d := range list {
			chain = append(chain, base64.StdEncoding.EncodeToString(d))
		}
		m["x5c"] = chain
		return m
	}
	mine, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	same := issue(2, mine) // the same subject and issuer, another key
	m1, m256 := sha1.Sum(same), sha256.Sum256(same)
	for name, raw := range map[string]string{"SHA-256": sign(key, byName), "SHA-1": sign(key, map[string]any{"x5t": b64.EncodeToString(s1[:])}), "its chain besides": sign(key, withChain(der))} {
		if r := w.exchange(app.text("appId"), raw); r.status != 200 {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	bare := "subject name and issuer" // the refusal says what is not supported
	for name, x := range map[string]struct{ raw, says string }{
		"a chain alone":                   {sign(mine, map[string]any{"x5c": []string{base64.StdEncoding.EncodeToString(same)}}), bare},
		"a chain with its own name":       {sign(mine, map[string]any{"x5t#S256": b64.EncodeToString(m256[:]), "x5t": b64.EncodeToString(m1[:]), "x5c": []string{base64.StdEncoding.EncodeToString(same)}}), bare},
		"the right name, another chain":   {sign(mine, withChain(same, der)), "x5c"},
		"the right key, another's chain":  {sign(key, withChain(same)), "x5c"},
		"a chain that is none":            {sign(key, map[string]any{"x5t#S256": byName["x5t#S256"], "x5c": "x"}), "x5c"},
		"the right name, another key":     {sign(mine, byName), "signature"},
		"SHA-1 right and SHA-256 another": {sign(key, map[string]any{"x5t": b64.EncodeToString(s1[:]), "x5t#S256": b64.EncodeToString(m256[:])}), "not registered"},
	} {
		if r := w.exchange(app.text("appId"), x.raw); r.status != 401 || r.code() != "invalid_client" || !strings.Contains(r.text("error_description"), x.says) {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
}
