package app

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"castellan/internal/arm"
	"castellan/internal/blob"
	"castellan/internal/gate"
)

// guarded is a storage account whose key a customer's key wraps.
type guarded struct {
	*policed
	clock   *movable
	vault   string // URL in Resource Manager
	account string
	role    string // URL of the assignment that lets the account use the key
	keys    string // token for the vault
	blobs   string // token for the account
	close   func()
}

const (
	vaultVersion = "?api-version=7.5"
	large        = 3 << 20 // bytes; more than one chunk of a file
)

func newGuarded(t *testing.T) *guarded { return newGuardedAt(t, Config{}) }

func newGuardedAt(t *testing.T, cfg Config) *guarded {
	clock := &movable{at: time.Now()}
	cfg.Data, cfg.Now = t.TempDir()+"/data", clock.now
	a, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	g := &guarded{policed: newPoliced(t, a), clock: clock}
	g.close = sync.OnceFunc(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(g.close)
	g.vault = g.group + "/providers/Microsoft.KeyVault/vaults/guards"
	g.fine(g.vault, g.vaultBody(true))
	var body map[string]any
	g.account, body = g.policed.account("guarded", map[string]any{})
	body["identity"] = map[string]any{"type": "SystemAssigned"}
	g.fine(g.account, body)
	me := a.newPerson(t, "operator")
	a.giveRole(t, g.token, g.path(g.vault), me.object, "Key Vault Crypto Officer")
	a.giveRole(t, g.token, g.path(g.account), me.object, "Storage Blob Data Owner")
	g.keys, g.blobs = tokenFor(t, a, me.id, me.secret, a.audiences()["vault"]), tokenFor(t, a, me.id, me.secret, a.audiences()["blob"])
	g.key(http.StatusOK, http.MethodPost, "k/create", map[string]any{"kty": "RSA", "key_size": 2048})
	return g
}

func (g *guarded) vaultBody(protected bool) map[string]any {
	props := map[string]any{"tenantId": g.a.Site.Tenant, "sku": map[string]any{"family": "A", "name": "standard"}, "enableRbacAuthorization": true}
	if protected {
		props["enablePurgeProtection"] = true
	}
	return map[string]any{"location": "local", "properties": props}
}

// key does something with a key of the vault.
func (g *guarded) key(want int, method, path string, body any) map[string]any {
	g.Helper()
	return must(g.T, g.a, want, g.keys, method, "https://guards."+g.a.Site.VaultSuffix()+"/keys/"+path+vaultVersion, body)
}

// guard asks for a key, the newest version of "k" unless more says otherwise.
func (g *guarded) guard(more map[string]any) (status int, answer string) {
	g.Helper()
	v := map[string]any{"keyname": "k", "keyvaulturi": "https://guards." + g.a.Site.VaultSuffix() + "/"}
	for k, x := range more {
		v[k] = x
	}
	w := call(g.a, g.token, http.MethodPatch, g.account+version, map[string]any{"properties": map[string]any{"encryption": map[string]any{"keySource": "Microsoft.Keyvault", "keyvaultproperties": v}}})
	return w.Code, w.Body.String()
}

// letIn gives the account's identity the right to use the vault's keys.
func (g *guarded) letIn() {
	g.Helper()
	d := must(g.T, g.a, http.StatusOK, g.token, http.MethodGet, g.account+version, nil)
	principal := fmt.Sprint(d["identity"].(map[string]any)["principalId"])
	g.a.giveRole(g.T, g.token, g.path(g.vault), principal, "Key Vault Crypto Service Encryption User")
	list := must(g.T, g.a, http.StatusOK, g.token, http.MethodGet, g.vault+"/providers/Microsoft.Authorization/roleAssignments?api-version=2022-04-01&$filter=principalId%20eq%20'"+principal+"'", nil)
	g.role = g.a.Site.Base() + fmt.Sprint(list["value"].([]any)[0].(map[string]any)["id"])
}

func (g *guarded) blob(method, name string, body []byte) (int, string) {
	w := call(g.a, g.blobs, method, "https://guarded.blob.core."+g.a.Site.Suffix+"/data"+name, string(body), "x-ms-version", "2023-11-03", "x-ms-blob-type", "BlockBlob")
	return w.Code, w.Body.String()
}

// past is when the last look at the key, or the last refusal, no longer stands.
func (g *guarded) past() { g.clock.to(g.clock.now().Add(time.Second)) }

// Every way of taking a customer's key away ends the reading and writing of what
// it guards within a lease, with a stream that is under way; every way of giving
// it back brings all back as it was.
func TestCustomersKeyGuardsAnAccount(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	if code, body := g.blob(http.MethodPut, "?restype=container", nil); code != http.StatusCreated {
		t.Fatalf("a container = %d %s", code, body)
	}
	big := make([]byte, large)
	_, _ = rand.Read(big) // never fails
	small := []byte("a small one")
	if code, body := g.blob(http.MethodPut, "/before", small); code != http.StatusCreated {
		t.Fatalf("a blob = %d %s", code, body)
	}

	// A key that can't be used is refused, and all stays.
	if code, body := g.guard(nil); code != http.StatusBadRequest || !strings.Contains(body, "KeyVaultAuthenticationFailure") {
		t.Errorf("without a right to the key = %d %s", code, body)
	}
	g.letIn()
	g.fine(g.group+"/providers/Microsoft.KeyVault/vaults/loose", g.vaultBody(false))
	for says, more := range map[string]map[string]any{
		"KeyVaultPolicyError":           {"keyvaulturi": "https://loose." + g.a.Site.VaultSuffix()},
		"KeyVaultVaultNotFound":         {"keyvaulturi": "https://nowhere." + g.a.Site.VaultSuffix()},
		"KeyVaultEncryptionKeyNotFound": {"keyname": "other"},
		"must be that of a vault of":    {"keyvaulturi": "https://vault.example.com"},
		"keyname":                       {"keyname": ""},
	} {
		if code, body := g.guard(more); code/100 != 4 || !strings.Contains(body, says) {
			t.Errorf("with %v = %d %s, want %s", more, code, body, says)
		}
	}
	g.key(http.StatusOK, http.MethodPost, "ec/create", map[string]any{"kty": "EC"})
	if code, body := g.guard(map[string]any{"keyname": "ec"}); code != http.StatusBadRequest {
		t.Errorf("a key that wraps nothing = %d %s", code, body)
	}
	if got := g.shown(); got["keySource"] != "Microsoft.Storage" {
		t.Errorf("after refusals the encryption is %v", got)
	}

	if code, body := g.guard(nil); code != http.StatusOK {
		t.Fatalf("the key is refused: %d %s", code, body)
	}
	if got := g.shown(); got["keySource"] != "Microsoft.Keyvault" || got["keyvaultproperties"].(map[string]any)["currentVersionedKeyIdentifier"] == nil {
		t.Errorf("the encryption is shown as %v", got)
	}
	if code, body := g.blob(http.MethodPut, "/big", big); code != http.StatusCreated {
		t.Fatalf("a blob = %d %s", code, body)
	}
	// A request that speaks of something else leaves the key, also while it is shut.
	disable := func(on bool) {
		g.key(http.StatusOK, http.MethodPatch, "k", map[string]any{"attributes": map[string]any{"enabled": on}})
	}
	ways := []struct {
		name       string
		shut, open func()
		says       string
	}{
		{"disabled", func() { disable(false) }, func() { disable(true) }, "KeyVaultEncryptionKeyNotFound"},
		{"deleted", func() { g.key(http.StatusOK, http.MethodDelete, "k", nil) }, func() {
			must(t, g.a, http.StatusOK, g.keys, http.MethodPost, "https://guards."+g.a.Site.VaultSuffix()+"/deletedkeys/k/recover"+vaultVersion, nil)
		}, "KeyVaultEncryptionKeyNotFound"},
		{"expired", func() {
			g.key(http.StatusOK, http.MethodPatch, "k", map[string]any{"attributes": map[string]any{"exp": g.clock.now().Unix() - 10}})
		}, func() {
			g.key(http.StatusOK, http.MethodPatch, "k", map[string]any{"attributes": map[string]any{"exp": g.clock.now().Unix() + 1<<20}})
		}, "KeyVaultEncryptionKeyNotFound"},
		{"not for it", func() {
			g.key(http.StatusOK, http.MethodPatch, "k", map[string]any{"key_ops": []string{"sign"}})
		}, func() {
			g.key(http.StatusOK, http.MethodPatch, "k", map[string]any{"key_ops": []string{"wrapKey", "unwrapKey"}})
		}, "KeyVaultEncryptionKeyNotFound"},
		{"its right taken", func() { must(t, g.a, http.StatusOK, g.token, http.MethodDelete, g.role+"?api-version=2022-04-01", nil) }, g.letIn, "KeyVaultAuthenticationFailure"},
		{"its vault deleted", func() { must(t, g.a, http.StatusOK, g.token, http.MethodDelete, g.vault+version, nil) }, func() {
			body := g.vaultBody(true)
			body["properties"].(map[string]any)["createMode"] = "recover"
			g.fine(g.vault, body)
			g.a.giveRole(t, g.token, g.path(g.vault), g.operator(), "Key Vault Crypto Officer") // roles go with a vault
			g.letIn()
		}, "KeyVaultVaultNotFound"},
	}
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			g.same(t, "/before", small)
			stream := g.stream(t, "big")
			defer stream.Close()
			head := make([]byte, 1000)
			if _, err := io.ReadFull(stream, head); err != nil || !bytes.Equal(head, big[:1000]) {
				t.Fatalf("the beginning of a stream: %v", err)
			}
			way.shut()
			g.past()
			for _, x := range []struct{ method, name string }{{http.MethodGet, "/before"}, {http.MethodGet, "/big"}, {http.MethodHead, "/big"}, {http.MethodPut, "/new"}} {
				code, body := g.blob(x.method, x.name, small)
				if code != http.StatusForbidden || x.method != http.MethodHead && !strings.Contains(body, way.says) {
					t.Errorf("%s %s = %d %.300s, want 403 %s", x.method, x.name, code, body, way.says)
				}
			}
			for _, list := range []string{"?restype=container&comp=list&include=metadata", "?restype=container&comp=list&include=tags", "?restype=container&comp=blobs&where=a%3D%27b%27"} {
				if code, body := g.blob(http.MethodGet, list, nil); code != http.StatusForbidden || !strings.Contains(body, way.says) {
					t.Errorf("GET %s = %d %.300s", list, code, body)
				}
			}
			if code, _ := g.blob(http.MethodGet, "?restype=container&comp=list", nil); code != http.StatusOK {
				t.Errorf("names can't be listed: %d", code)
			}
			if rest, err := io.ReadAll(stream); err == nil || len(rest) > 256<<10 {
				t.Errorf("a stream that was open gave %d bytes more, %v", len(rest), err)
			}
			if w := call(g.a, g.token, http.MethodPatch, g.account+version, map[string]any{"tags": map[string]any{"while": way.name}}); w.Code != http.StatusOK {
				t.Errorf("a tag meanwhile = %d %s", w.Code, w.Body)
			}
			if w := call(g.a, g.token, http.MethodPatch, g.account+version, map[string]any{"properties": map[string]any{"encryption": map[string]any{"keySource": "Microsoft.Storage"}}}); w.Code/100 != 4 {
				t.Errorf("whoever lost the key gets round it: %d %s", w.Code, w.Body)
			}
			way.open()
			g.past()
			g.same(t, "/before", small)
			g.same(t, "/big", big)
		})
	}
}

// A customer's key with a new version wraps the account's key anew: the data
// stays as it is, nothing fails meanwhile, and the old version can go.
func TestCustomersKeyRotates(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	g.letIn()
	if code, body := g.guard(nil); code != http.StatusOK {
		t.Fatalf("the key is refused: %d %s", code, body)
	}
	if code, body := g.blob(http.MethodPut, "?restype=container", nil); code != http.StatusCreated {
		t.Fatalf("a container = %d %s", code, body)
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), large/16)
	if code, body := g.blob(http.MethodPut, "/big", big); code != http.StatusCreated {
		t.Fatalf("a blob = %d %s", code, body)
	}
	stream := g.stream(t, "big")
	defer stream.Close()
	for range 3 {
		old := fmt.Sprint(g.shown()["keyvaultproperties"].(map[string]any)["currentVersionedKeyIdentifier"])
		g.key(http.StatusOK, http.MethodPost, "k/rotate", nil)
		g.a.blob.TurnKeys(t.Context())
		now := fmt.Sprint(g.shown()["keyvaultproperties"].(map[string]any)["currentVersionedKeyIdentifier"])
		if now == old {
			t.Fatalf("after a rotation %s still wraps", old)
		}
		g.key(http.StatusOK, http.MethodPatch, "k/"+old[strings.LastIndex(old, "/")+1:], map[string]any{"attributes": map[string]any{"enabled": false}})
		g.past()
		g.same(t, "/big", big)
	}
	if all, err := io.ReadAll(stream); err != nil || !bytes.Equal(all, big) {
		t.Errorf("a stream over all of this gave %d bytes, %v", len(all), err)
	}
	// One that names its version stays with it.
	named := g.shown()["keyvaultproperties"].(map[string]any)["currentVersionedKeyIdentifier"].(string)
	v := named[strings.LastIndex(named, "/")+1:]
	if code, body := g.guard(map[string]any{"keyversion": v}); code != http.StatusOK {
		t.Fatalf("naming the version = %d %s", code, body)
	}
	g.key(http.StatusOK, http.MethodPost, "k/rotate", nil)
	g.a.blob.TurnKeys(t.Context())
	if got := g.shown()["keyvaultproperties"].(map[string]any)["currentVersionedKeyIdentifier"]; got != named {
		t.Errorf("a named version was left for %v", got)
	}
	// Back under the platform's key, the customer's no longer matters.
	if w := call(g.a, g.token, http.MethodPatch, g.account+version, map[string]any{"properties": map[string]any{"encryption": map[string]any{"keySource": "Microsoft.Storage"}}}); w.Code != http.StatusOK {
		t.Fatalf("back to the platform's key = %d %s", w.Code, w.Body)
	}
	g.key(http.StatusOK, http.MethodDelete, "k", nil)
	g.past()
	g.same(t, "/big", big)
	// And one that needs no system-assigned identity any more may lose it.
	if w := call(g.a, g.token, http.MethodPatch, g.account+version, map[string]any{"identity": map[string]any{"type": "None"}}); w.Code != http.StatusOK {
		t.Errorf("the identity taken away = %d %s", w.Code, w.Body)
	}
}

// An account may begin with a customer's key, by a user-assigned identity; an
// identity that the key hangs on can't be taken away.
func TestCustomersKeyWithAUserAssignedIdentity(t *testing.T) {
	t.Parallel()
	g := newGuarded(t)
	ua := g.group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/keyuser"
	g.fine(ua, map[string]any{"location": "local"})
	principal := fmt.Sprint(must(t, g.a, http.StatusOK, g.token, http.MethodGet, ua+version, nil)["properties"].(map[string]any)["principalId"])
	g.a.giveRole(t, g.token, g.path(g.vault), principal, "Key Vault Crypto Service Encryption User")
	u, body := g.policed.account("fresh", nil)
	body["identity"] = map[string]any{"type": "UserAssigned", "userAssignedIdentities": map[string]any{g.path(ua): map[string]any{}}}
	body["properties"] = map[string]any{"encryption": map[string]any{
		"keySource": "Microsoft.Keyvault", "identity": map[string]any{"userAssignedIdentity": g.path(ua)},
		"keyvaultproperties": map[string]any{"keyname": "k", "keyvaulturi": "https://guards." + g.a.Site.VaultSuffix()},
	}}
	g.fine(u, body)
	if w := call(g.a, g.token, http.MethodPatch, u+version, map[string]any{"identity": map[string]any{"type": "None"}}); w.Code/100 != 4 {
		t.Errorf("the identity that the key hangs on was taken away: %d %s", w.Code, w.Body)
	}
	me := g.operator()
	g.a.giveRole(t, g.token, g.path(u), me, "Storage Blob Data Owner")
	at := "https://fresh.blob.core." + g.a.Site.Suffix + "/data"
	must(t, g.a, http.StatusCreated, g.blobs, http.MethodPut, at+"?restype=container", nil, "x-ms-version", "2023-11-03")
	must(t, g.a, http.StatusCreated, g.blobs, http.MethodPut, at+"/x", "bytes", "x-ms-version", "2023-11-03", "x-ms-blob-type", "BlockBlob")
	must(t, g.a, http.StatusOK, g.token, http.MethodDelete, ua+version, nil)
	g.past()
	if w := call(g.a, g.blobs, http.MethodGet, at+"/x", nil, "x-ms-version", "2023-11-03"); w.Code != http.StatusForbidden {
		t.Errorf("without the identity the blob is read: %d %s", w.Code, w.Body)
	}
	// Another identity of the same name is another.
	g.fine(ua, map[string]any{"location": "local"})
	if w := call(g.a, g.blobs, http.MethodGet, at+"/x", nil, "x-ms-version", "2023-11-03"); w.Code != http.StatusForbidden {
		t.Errorf("with another identity of the same name the blob is read: %d %s", w.Code, w.Body)
	}
	must(t, g.a, http.StatusAccepted, g.blobs, http.MethodDelete, at+"/x", nil, "x-ms-version", "2023-11-03") // to delete needs no key
}

// operator is the object id of who holds the tokens.
func (g *guarded) operator() string {
	g.Helper()
	c, err := g.a.identity.Bearer(g.a.Site.VaultAudiences()...)(bearer(g.keys))
	if err != nil {
		g.Fatal(err)
	}
	return c.Object
}

func bearer(token string) *http.Request {
	return &http.Request{Method: http.MethodGet, Host: "x", Header: http.Header{"Authorization": {"Bearer " + token}}}
}

// shown is the account's encryption.
func (g *guarded) shown() map[string]any {
	g.Helper()
	return must(g.T, g.a, http.StatusOK, g.token, http.MethodGet, g.account+version, nil)["properties"].(map[string]any)["encryption"].(map[string]any)
}

func (g *guarded) same(t *testing.T, name string, want []byte) {
	t.Helper()
	if code, body := g.blob(http.MethodGet, name, nil); code != http.StatusOK || body != string(want) {
		t.Errorf("GET %s = %d with %d bytes, want %d: %.200s", name, code, len(body), len(want), body)
	}
}

// stream begins to read a blob.
func (g *guarded) stream(t *testing.T, name string) io.ReadCloser {
	t.Helper()
	id, err := container(arm.MustID(g.path(g.account)), "data")
	if err != nil {
		t.Fatal(err)
	}
	as, err := g.a.identity.Known(g.a.Site.Tenant, g.operator())
	if err != nil {
		t.Fatal(err)
	}
	body, err := admit(t.Context(), g.a.gate, as, blob.BlobRead, gate.Target{ID: id, Item: name}, func(x gate.Grant) (io.ReadCloser, error) {
		r, _, err := g.a.blob.Read(t.Context(), x, 0, -1)
		return r, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return body
}
