package app

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"unicode"

	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// realm is a tenant with a world in it.
type realm struct {
	tenant, sub, domain string
	admin               person
	user                string // object id of the administrator
	tokens              map[string]string
	account, vault      string
	scope               string // what {scope} stands for, without its first slash; "" is the subscription
}

// newTenant makes a tenant through the door that the home tenant has for it.
func newTenant(t *testing.T, a *App, domain string) realm {
	t.Helper()
	m := must(t, a, http.StatusCreated, a.admin(t, "graph"), http.MethodPost, "https://"+a.Site.GraphHost()+"/v1.0/castellan/tenants", map[string]any{
		"displayName": domain, "defaultDomainName": domain,
	})
	var b struct {
		ID            string   `json:"id"`
		Subscriptions []string `json:"subscriptionIds"`
		Administrator struct{ ID string }
		Application   struct{ ID, AppID, SecretText string }
	}
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &b); err != nil || len(b.Subscriptions) != 1 {
		t.Fatalf("the new tenant is %s", text)
	}
	return realm{tenant: b.ID, sub: b.Subscriptions[0], domain: domain, user: b.Administrator.ID, admin: person{b.Application.AppID, b.Application.SecretText, b.Application.ID}}
}

// settle signs the realm's administrator in for every plane, and makes a world.
func (x *realm) settle(t *testing.T, a *App, name string) {
	t.Helper()
	x.tokens = map[string]string{}
	for plane, aud := range a.audiences() {
		x.tokens[plane] = tokenAt(t, a, x.tenant, x.admin.id, x.admin.secret, aud)
	}
	x.account, x.vault = name+"acct", name+"-vault"
	group := "/subscriptions/" + x.sub + "/resourceGroups/lab"
	account := group + "/providers/Microsoft.Storage/storageAccounts/" + x.account
	vault := group + "/providers/Microsoft.KeyVault/vaults/" + x.vault
	mi := group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/" + name
	token, at := x.tokens["arm"], map[string]any{"location": "local"}
	made(t, a, token, group, at)
	made(t, a, token, mi, at)
	made(t, a, token, account, map[string]any{"location": "local", "kind": "StorageV2", "sku": map[string]any{"name": "Standard_LRS"}})
	made(t, a, token, vault, map[string]any{"location": "local", "properties": map[string]any{"tenantId": x.tenant, "sku": map[string]any{"family": "A", "name": "standard"}}})
	ws := group + "/providers/Microsoft.MachineLearningServices/workspaces/lab"
	made(t, a, token, ws, map[string]any{
		"location": "local", "identity": map[string]any{"type": "SystemAssigned"}, "properties": map[string]any{"storageAccount": account, "keyVault": vault},
	})
	made(t, a, token, ws+"/computes/cpu", map[string]any{"location": "local", "properties": map[string]any{
		"computeType": "AmlCompute", "properties": map[string]any{"vmSize": "Standard_B1s", "scaleSettings": map[string]any{"minNodeCount": 0, "maxNodeCount": 1}},
	}})
}

// path fills a pattern with what the realm has.
func (x *realm) path(pattern string) string {
	return wildcard.ReplaceAllStringFunc(pattern, func(w string) string {
		switch name := strings.Trim(w, "{}."); name {
		case "sub":
			return x.sub
		case "tenant":
			return x.tenant
		case "scope":
			return cmp.Or(x.scope, "subscriptions/"+x.sub)
		case "group", "workspace", "workspaces":
			return "lab"
		case "storageAccounts":
			return x.account
		case "vaults":
			return x.vault
		case "name":
			if strings.Contains(strings.ToLower(pattern), "/vaults/{name}") {
				return x.vault
			}
			return "x0000001"
		case "computes":
			return "cpu"
		case "id", "user", "member":
			return x.user
		case "ns":
			return "Microsoft.KeyVault"
		case "model":
			return "m-" + strings.Repeat("0", 32)
		case "container":
			if strings.Contains(pattern, "ExperimentRun") {
				return "dcid.x0000001"
			}
			return "x0000001"
		case "path":
			return "runs/x0000001/x"
		case "version":
			if strings.HasPrefix(pattern, "/secrets") || strings.HasPrefix(pattern, "/keys") || strings.HasPrefix(pattern, "/certificates") {
				return strings.Repeat("0", 32)
			}
			return "v1.0"
		default:
			return "x0000001"
		}
	})
}

func (x *realm) host(a *App, plane, host string) string {
	switch plane {
	case "vault":
		return x.vault + "." + a.Site.VaultSuffix()
	case "blob", "dfs", "file":
		return x.account + "." + plane + "." + a.Site.StorageSuffix()
	}
	return host
}

// respell is text in other letter case: another spelling of the same path.
func respell(r *rand.Rand, text string) string {
	return strings.Map(func(c rune) rune {
		if r.IntN(2) == 0 {
			return unicode.ToUpper(c)
		}
		return unicode.ToLower(c)
	}, text)
}

// documents are all resources of a subscription, as the store has them.
func documents(t *testing.T, a *App, sub string) string {
	t.Helper()
	var out []string
	err := a.db.View(t.Context(), func(tx *store.Tx) error {
		docs, err := resource.Below(tx, arm.MustID("/subscriptions/"+sub))
		for _, d := range docs {
			out = append(out, d.ID.Key()+" "+d.Etag+" "+d.Instance)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, "\n")
}

// Tenants of one installation share nothing: with every token of one, not one of
// 20,000 calls to what another owns succeeds, at any door, in any spelling; lists
// that everybody may ask for tell nothing of it; and the owner's audit log tells
// of the attempts (TOK-06, TEN-01). The home tenant has no rights in others.
func TestTenantsShareNothing(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	home := realm{tenant: a.Site.Tenant, sub: a.Site.Subscription, domain: a.Site.Suffix, admin: person{id: a.Admin.ClientID, secret: string(a.Admin.ClientSecret.Reveal())}}
	home.user = fmt.Sprint(must(t, a, http.StatusOK, a.admin(t, "graph"), http.MethodGet, "https://"+a.Site.GraphHost()+"/v1.0/users/"+a.Admin.UserName, nil)["id"])
	other, third := newTenant(t, a, "other.example"), newTenant(t, a, "third.example")
	for name, x := range map[string]*realm{"home": &home, "other": &other, "third": &third} {
		x.settle(t, a, name)
	}
	before := map[string]string{other.sub: documents(t, a, other.sub), home.sub: documents(t, a, home.sub)}
	r := rand.New(rand.NewPCG(1, 2))
	calls := 0
	// Each round walks all doors four times: two tenants' tokens against two others' worlds.
	for calls < 20_000 {
		for _, fight := range []struct{ owner, thief *realm }{{&other, &home}, {&home, &other}, {&other, &third}} {
			calls += fight.owner.attack(t, a, fight.thief, r)
		}
	}
	for sub, was := range before {
		if documents(t, a, sub) != was {
			t.Errorf("the resources of %s were changed", sub)
		}
	}
	told := 0
	for _, e := range tail(t, a) {
		if e.Tenant == other.tenant && e.Caller == third.admin.object && e.Outcome == string(arm.WrongTenant) {
			told++
		}
	}
	if told == 0 {
		t.Error("the owner's log does not tell of the attempts")
	}
	t.Logf("%d calls with another tenant's tokens, all refused; %d of them in the tail of the owner's log", calls, told)
}

// attack knocks at every guarded door of what x owns, with the thief's tokens.
func (x *realm) attack(t *testing.T, a *App, thief *realm, r *rand.Rand) (calls int) {
	t.Helper()
	for _, p := range a.Planes {
		for _, rt := range p.Routes {
			if rt.Action.IsZero() || rt.Pattern == "/v1.0/castellan/tenants" && thief.tenant == a.Site.Tenant {
				continue
			}
			path := x.path(rt.Pattern)
			if p.Fold {
				path = respell(r, path)
			}
			for _, aud := range audiencesOf(p.Name) {
				got := knock(a, rt.Method, x.host(a, p.Name, hostOf(t, a, p)), path, thief.tokens[aud])
				calls++
				owned := strings.Contains(strings.ToLower(path), x.sub) || p.Name == "vault" || p.Name == "blob" || p.Name == "dfs" || p.Name == "file"
				body := strings.ToLower(got.Body.String())
				switch {
				case p.Name == "ml" && got.Code == http.StatusBadRequest: // a name that no run or model can have
				case owned && got.Code != http.StatusUnauthorized:
					t.Errorf("%s %s %s with a token of another tenant = %d, want 401: %s", p.Name, rt.Method, path, got.Code, got.Body)
				case !owned && got.Code/100 == 2:
					for _, secret := range []string{x.tenant, x.sub, x.user, x.account, x.vault, x.domain} {
						if strings.Contains(body, strings.ToLower(secret)) && !strings.Contains(a.Site.Suffix, secret) {
							t.Errorf("%s %s %s tells another tenant of %s: %s", p.Name, rt.Method, path, secret, got.Body)
						}
					}
				}
			}
		}
	}
	return calls
}

// A role, a role assignment and an access policy can't be given to, or by, another tenant.
func TestNothingIsGivenAcrossTenants(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	other := newTenant(t, a, "other.example")
	other.settle(t, a, "other")
	home := a.admin(t, "arm")
	base, sub := a.Site.Base(), "/subscriptions/"+a.Site.Subscription
	role := func(owner string) map[string]any {
		return map[string]any{"properties": map[string]any{"roleDefinitionId": sub + "/providers/Microsoft.Authorization/roleDefinitions/" + ownerRole, "principalId": owner}}
	}
	const v = "?api-version=any"
	for what, c := range map[string]struct {
		token, url string
		body       any
		want       int
	}{
		"home's principal at home":    {home, base + sub + "/providers/Microsoft.Authorization/roleAssignments/" + arm.NewUUID() + v, role(a.newPerson(t, "x").object), 201},
		"other's principal at home":   {home, base + sub + "/providers/Microsoft.Authorization/roleAssignments/" + arm.NewUUID() + v, role(other.admin.object), 400},
		"home's principal at other's": {other.tokens["arm"], base + "/subscriptions/" + other.sub + "/providers/Microsoft.Authorization/roleAssignments/" + arm.NewUUID() + v, role(a.newPerson(t, "y").object), 400},
		"a custom role for two tenants": {home, base + sub + "/providers/Microsoft.Authorization/roleDefinitions/" + arm.NewUUID() + v, map[string]any{"properties": map[string]any{
			"roleName": "both", "permissions": []any{map[string]any{"actions": []string{"*/read"}}}, "assignableScopes": []string{sub, "/subscriptions/" + other.sub},
		}}, 403},
		"a vault of another tenant": {home, base + sub + "/resourceGroups/g/providers/Microsoft.KeyVault/vaults/elsewhere" + v, map[string]any{
			"location": "local", "properties": map[string]any{"tenantId": other.tenant, "sku": map[string]any{"family": "A", "name": "standard"}},
		}, 400},
		"a workspace over another's storage": {home, base + sub + "/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/thief" + v, map[string]any{
			"location": "local", "identity": map[string]any{"type": "SystemAssigned"}, "properties": map[string]any{
				"storageAccount": "/subscriptions/" + other.sub + "/resourceGroups/lab/providers/Microsoft.Storage/storageAccounts/otheracct",
				"keyVault":       "/subscriptions/" + other.sub + "/resourceGroups/lab/providers/Microsoft.KeyVault/vaults/other-vault",
			},
		}, 403},
	} {
		made(t, a, home, sub+"/resourceGroups/g", map[string]any{"location": "local"})
		if w := call(a, c.token, http.MethodPut, c.url, c.body); w.Code != c.want {
			t.Errorf("%s = %d, want %d: %s", what, w.Code, c.want, w.Body)
		}
	}
	// Two tenants may use one name for a custom role.
	for i, x := range []struct{ token, sub string }{{home, sub}, {other.tokens["arm"], "/subscriptions/" + other.sub}} {
		w := call(a, x.token, http.MethodPut, base+x.sub+"/providers/Microsoft.Authorization/roleDefinitions/"+arm.NewUUID()+v, map[string]any{"properties": map[string]any{
			"roleName": "the same name", "permissions": []any{map[string]any{"actions": []string{"*/read"}}}, "assignableScopes": []string{x.sub},
		}})
		if w.Code != http.StatusCreated {
			t.Errorf("tenant %d names its role: %d %s", i, w.Code, w.Body)
		}
	}
	// Only the home tenant makes tenants.
	if w := call(a, other.tokens["graph"], http.MethodPost, "https://"+a.Site.GraphHost()+"/v1.0/castellan/tenants", map[string]any{"defaultDomainName": "more.example"}); w.Code != http.StatusForbidden {
		t.Errorf("another tenant makes a tenant: %d %s", w.Code, w.Body)
	}
}

func tail(t *testing.T, a *App) []audit.Entry { return tailOf(t, a, 2000) }

func tailOf(t *testing.T, a *App, n int) []audit.Entry {
	t.Helper()
	if err := a.Audit.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	entries, err := a.Audit.Tail(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}
