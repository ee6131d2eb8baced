package app

import (
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"castellan/internal/arm"
)

// sick is a workspace with all that one can break.
type sick struct {
	*policed
	ws, account, vault, elsewhere string // URLs
	principal                     string // the workspace's identity
}

func newSick(t *testing.T, byRoles bool) *sick {
	t.Helper()
	a := newApp(t)
	p := newPoliced(t, a)
	w := &sick{policed: p, ws: p.group + "/providers/Microsoft.MachineLearningServices/workspaces/sick", vault: p.group + "/providers/Microsoft.KeyVault/vaults/sick-kv"}
	var body map[string]any
	w.account, body = p.account("sickacct", nil)
	p.fine(w.account, body)
	w.elsewhere, body = p.account("elsewhereacct", nil)
	p.fine(w.elsewhere, body)
	p.fine(w.vault, map[string]any{"location": "local", "properties": map[string]any{
		"tenantId": a.Site.Tenant, "sku": map[string]any{"family": "A", "name": "standard"}, "enableRbacAuthorization": byRoles, "accessPolicies": []any{}}})
	p.fine(w.insights(), map[string]any{"location": "local"})
	out := made(t, a, p.token, p.path(w.ws), map[string]any{"location": "local", "properties": map[string]any{
		"storageAccount": p.path(w.account), "keyVault": p.path(w.vault), "applicationInsights": p.path(w.insights())}})
	w.principal = out.Identity.Principal
	for name, account := range map[string]string{"keyed": w.account, "afar": w.elsewhere} {
		p.fine(account+"/blobServices/default/containers/extra", map[string]any{})
		w.datastore(name, account, w.key(account), "&skipValidation=true") // as azure-ai-ml does
	}
	return w
}

func (w *sick) insights() string {
	return w.group + "/providers/Microsoft.Insights/components/sick"
}

// share is the workspace's file share.
func (w *sick) share() string {
	w.Helper()
	store := must(w.T, w.a, http.StatusOK, w.token, http.MethodGet, w.ws+"/datastores/workspacefilestore"+version, nil)["properties"].(map[string]any)
	return w.account + "/fileServices/default/shares/" + fmt.Sprint(store["fileShareName"])
}

// key is an account's first key, as its Owner lists it.
func (w *sick) key(account string) string {
	w.Helper()
	keys := must(w.T, w.a, http.StatusOK, w.token, http.MethodPost, account+"/listKeys"+version, nil)["keys"].([]any)
	return fmt.Sprint(keys[0].(map[string]any)["value"])
}

func (w *sick) datastore(name, account, key, query string) {
	w.Helper()
	must(w.T, w.a, http.StatusCreated, w.token, http.MethodPut, w.ws+"/datastores/"+name+version+query, map[string]any{"properties": map[string]any{
		"datastoreType": "AzureBlob", "accountName": account[strings.LastIndexByte(account, '/')+1:], "containerName": "extra",
		"credentials": map[string]any{"credentialsType": "AccountKey", "secrets": map[string]any{"secretsType": "AccountKey", "key": key}}}})
}

// diagnosis is what is wrong, as GROUP CODE, and the messages.
func (w *sick) diagnosis(token string) (codes []string, text string) {
	w.Helper()
	out := must(w.T, w.a, http.StatusOK, token, http.MethodPost, w.ws+"/diagnose"+version, map[string]any{"value": map[string]any{}})["value"].(map[string]any)
	if len(out) != 9 {
		w.Errorf("the diagnosis has %d parts: %v", len(out), out)
	}
	for part, found := range out {
		for _, f := range found.([]any) {
			f := f.(map[string]any)
			if l := f["level"]; l != "Error" && l != "Warning" {
				w.Errorf("the level of %v is %v", f, l)
			}
			codes = append(codes, strings.TrimSuffix(part, "Results")+" "+fmt.Sprint(f["code"]))
			text += fmt.Sprint(f["message"], "\n")
		}
	}
	slices.Sort(codes)
	return codes, text
}

func (w *sick) resync() []any {
	w.Helper()
	return must(w.T, w.a, http.StatusOK, w.token, http.MethodPost, w.ws+"/resyncKeys"+version, nil)["restored"].([]any)
}

// repairs are how many changes the log has for resyncKeys since begin.
func (w *sick) repairs(begin time.Time) (n int) {
	w.Helper()
	all, err := w.a.Audit.Tail(w.Context(), 200)
	if err != nil {
		w.Fatal(err)
	}
	for _, e := range all {
		if !e.Time.Before(begin) && strings.HasPrefix(e.Reason, "resyncKeys of the workspace sick, for ") && strings.HasSuffix(e.Action, "/write") {
			n++
		}
	}
	return n
}

// take takes the workspace's identity's roles at a scope, a URL.
func (w *sick) take(scope string) {
	w.Helper()
	held := 0
	for _, x := range w.a.roles.For(w.principal) {
		if x.Scope.Key() == arm.MustID(w.path(scope)).Key() {
			must(w.T, w.a, http.StatusOK, w.token, http.MethodDelete, w.a.Site.Base()+x.ID+version, nil)
			held++
		}
	}
	if held == 0 {
		w.Fatalf("the identity has no role at %s", scope)
	}
}

// Everything that can break is broken, one at a time: the diagnosis names it and
// nothing else, and is clean once it is healed; resyncKeys says what it repaired
// where it is the cure, and finds nothing to do then (C16, B20, B21, T19).
func TestDiagnosisNamesWhatIsBroken(t *testing.T) {
	t.Parallel()
	w := newSick(t, true)
	reader := w.a.newPerson(t, "reader")
	w.a.giveRole(t, w.token, w.path(w.ws), reader.object, "Reader")
	readers := tokenFor(t, w.a, reader.id, reader.secret, w.a.audiences()["arm"])
	patch := func(u string, props map[string]any) {
		t.Helper()
		must(t, w.a, http.StatusOK, w.token, http.MethodPatch, u+version, map[string]any{"properties": props})
	}
	remove := func(u string) {
		t.Helper()
		if r := call(w.a, w.token, http.MethodDelete, u+version, nil); r.Code/100 != 2 {
			t.Fatalf("DELETE %s = %d %s", u, r.Code, r.Body)
		}
	}
	graph := func(want int, method, path string, body any) map[string]any {
		t.Helper()
		return must(t, w.a, want, w.a.admin(t, "graph"), method, "https://"+w.a.Site.GraphHost()+"/v1.0"+path, body)
	}
	regenerate := func(account string) {
		t.Helper()
		must(t, w.a, http.StatusOK, w.token, http.MethodPost, account+"/regenerateKey"+version, map[string]any{"keyName": "key1"})
	}
	cluster := w.ws + "/computes/cpu"
	uai := w.group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/u1"
	var lock, legacy string
	for _, c := range []struct {
		name  string
		spoil func()
		want  []string
		says  string
		heal  func()
		cured []string // what resyncKeys says, if it is the cure
	}{
		{"nothing", func() {}, nil, "", func() {}, nil},
		{"the role on the account is taken", func() { w.take(w.account) }, []string{"storageAccount StorageAccountRoleMissing"}, w.path(w.account), nil, []string{"Storage Blob Data Contributor on " + w.path(w.account)}},
		{"the roles on the vault are taken", func() { w.take(w.vault) }, []string{"keyVault KeyVaultRoleMissing", "keyVault KeyVaultRoleMissing"}, "Key Vault Administrator", nil,
			[]string{"Contributor on " + w.path(w.vault), "Key Vault Administrator on " + w.path(w.vault)}},
		{"the role on the workspace is taken", func() { w.take(w.ws) }, []string{"other WorkspaceRoleMissing"}, w.path(w.ws), nil, []string{"Contributor on " + w.path(w.ws)}},
		{"the role on the group is taken", func() { w.take(w.group) }, []string{"other WorkspaceRoleMissing"}, "Azure AI Administrator", nil, []string{"Azure AI Administrator on " + w.path(w.group)}},
		{"the file share is gone", func() { remove(w.share()) }, []string{"storageAccount StorageShareNotFound"}, "azureml-filestore-", nil, []string{"the file share " + path.Base(w.share()) + " of " + w.path(w.account)}},
		{"a container is gone", func() { remove(w.account + "/blobServices/default/containers/azureml") }, []string{"storageAccount StorageContainerNotFound"}, "azureml", nil, []string{"the container azureml of " + w.path(w.account)}},
		{"the account's key is another", func() { regenerate(w.account) }, []string{"other DatastoreCredentialsInvalid"}, "keyed", nil, []string{"the account key of the datastore keyed"}},
		{"another account's key is another", func() { regenerate(w.elsewhere) }, []string{"other DatastoreCredentialsInvalid"}, "Register it anew", func() {
			must(t, w.a, http.StatusOK, w.token, http.MethodDelete, w.ws+"/datastores/afar"+version, nil)
			w.datastore("afar", w.elsewhere, w.key(w.elsewhere), "")
		}, nil},
		{"a datastore's container is gone", func() { remove(w.elsewhere + "/blobServices/default/containers/extra") }, []string{"other DatastoreCredentialsInvalid"}, "afar", func() {
			w.fine(w.elsewhere+"/blobServices/default/containers/extra", map[string]any{})
		}, nil},
		{"the account takes no keys", func() { patch(w.account, map[string]any{"allowSharedKeyAccess": false}) }, []string{"storageAccount StorageKeyAccessDisabled"}, "allowSharedKeyAccess", func() {
			patch(w.account, map[string]any{"allowSharedKeyAccess": true})
		}, nil},
		{"the vault is deleted, and recovered without its roles", func() { remove(w.vault) }, []string{"keyVault KeyVaultSoftDeleted"}, "recovered until", func() {
			w.fine(w.vault, map[string]any{"location": "local", "properties": map[string]any{"tenantId": w.a.Site.Tenant, "createMode": "recover", "sku": map[string]any{"family": "A", "name": "standard"}}})
			if got, _ := w.diagnosis(w.token); !slices.Equal(got, []string{"keyVault KeyVaultRoleMissing", "keyVault KeyVaultRoleMissing"}) {
				t.Errorf("a recovered vault: %v", got)
			}
			w.resync()
		}, nil},
		{"a lock keeps the vault", func() { lock = w.lock(w.vault, "CanNotDelete") }, []string{"resourceLock ResourceLocked"}, "CanNotDelete", func() { w.unlock(lock) }, nil},
		{"a lock keeps the group as it is", func() { lock = w.lock(w.group, "ReadOnly") }, []string{"resourceLock ResourceLocked"}, "resyncKeys", func() { w.unlock(lock) }, nil},
		{"the component is deleted", func() { remove(w.insights()) }, []string{"applicationInsights ApplicationInsightsNotFound"}, w.path(w.insights()), func() {
			w.fine(w.insights(), map[string]any{"location": "local"})
		}, nil},
		{"the identity may not sign in", func() {
			graph(http.StatusNoContent, http.MethodPatch, "/servicePrincipals/"+w.principal, map[string]any{"accountEnabled": false})
		},
			[]string{"other IdentityNotUsable"}, w.principal, func() {
				graph(http.StatusNoContent, http.MethodPatch, "/servicePrincipals/"+w.principal, map[string]any{"accountEnabled": true})
			}, nil},
		{"a cluster's identity is deleted", func() {
			w.fine(uai, map[string]any{"location": "local"})
			w.fine(cluster, map[string]any{"location": "local", "identity": map[string]any{"type": "UserAssigned", "userAssignedIdentities": map[string]any{w.path(uai): map[string]any{}}}, "properties": map[string]any{
				"computeType": "AmlCompute", "properties": map[string]any{"vmSize": "Standard_DS1_v2", "scaleSettings": map[string]any{"maxNodeCount": 1}}}})
			remove(uai)
		}, []string{"other ComputeIdentityNotUsable"}, "cpu", func() { remove(cluster) }, nil},
		{"an account of former times", func() {
			app := graph(http.StatusCreated, http.MethodPost, "/applications", map[string]any{"displayName": "Microsoft-AzureML-Support-App-" + arm.NewUUID()})
			sp := graph(http.StatusCreated, http.MethodPost, "/servicePrincipals", map[string]any{"appId": app["appId"]})
			legacy = fmt.Sprint(sp["id"])
			w.a.giveRole(t, w.token, w.path(w.sub), legacy, "Contributor")
		}, []string{"other LegacySupportAccount"}, "Contributor on " + w.path(w.sub), func() { graph(http.StatusNoContent, http.MethodDelete, "/servicePrincipals/"+legacy, nil) }, nil},
		{"the other account is deleted", func() { remove(w.elsewhere) }, []string{"other DatastoreAccountNotFound"}, w.path(w.elsewhere), func() { remove(w.ws + "/datastores/afar") }, nil},
		{"the account is deleted", func() { remove(w.account) }, []string{"storageAccount StorageAccountNotFound"}, w.path(w.account), nil, nil},
		{"the account is made anew", func() {
			w.fine(w.account, map[string]any{"location": "local", "sku": map[string]any{"name": "Standard_LRS"}, "kind": "StorageV2"})
		},
			[]string{"storageAccount StorageAccountReplaced"}, "another workspace", nil, nil},
	} {
		c.spoil()
		got, text := w.diagnosis(readers)
		if !slices.Equal(got, c.want) || !strings.Contains(text, c.says) {
			t.Errorf("%s: the diagnosis is %v (%s), want %v and %q", c.name, got, text, c.want, c.says)
		}
		must(t, w.a, http.StatusForbidden, readers, http.MethodPost, w.ws+"/resyncKeys"+version, nil)
		if c.heal == nil && c.cured == nil {
			if r := call(w.a, w.token, http.MethodPost, w.ws+"/resyncKeys"+version, nil); r.Code != http.StatusConflict && r.Code != http.StatusBadRequest {
				t.Errorf("%s: resyncKeys = %d %s", c.name, r.Code, r.Body)
			}
			continue
		}
		if len(c.cured) > 0 {
			begin := time.Now()
			if said := fmt.Sprint(w.resync()); said != fmt.Sprint(c.cured) {
				t.Errorf("%s: resyncKeys repaired %s, want %s", c.name, said, c.cured)
			}
			want := len(c.cured)
			if strings.HasPrefix(c.cured[0], "the container") || strings.HasPrefix(c.cured[0], "the file share") { // which the workspace's identity makes
				want = 0
			}
			if n := w.repairs(begin); n != want {
				t.Errorf("%s: the log has %d repairs, want %d", c.name, n, want)
			}
		} else {
			c.heal()
		}
		if got, text := w.diagnosis(w.token); len(got) > 0 {
			t.Fatalf("%s, healed: %v (%s)", c.name, got, text)
		}
		if again := w.resync(); len(again) > 0 {
			t.Errorf("%s: resyncKeys repairs what is whole: %v", c.name, again)
		}
	}
}

// In a vault that goes by access policies the identity's policy is looked at, all
// of it; a vault that goes by roles afterwards wants the role (B13, B21).
func TestDiagnosisOfAccessPolicies(t *testing.T) {
	t.Parallel()
	w := newSick(t, false)
	policies := func(op string, secrets ...string) {
		t.Helper()
		must(t, w.a, http.StatusOK, w.token, http.MethodPut, w.vault+"/accessPolicies/"+op+version, map[string]any{"properties": map[string]any{"accessPolicies": []any{map[string]any{
			"tenantId": w.a.Site.Tenant, "objectId": w.principal, "permissions": map[string]any{"secrets": secrets}}}}})
	}
	for name, spoil := range map[string]func(){"removed": func() { policies("remove", strings.Fields("get list set delete backup restore recover")...) }, "made narrower": func() { policies("replace", "get", "list") }} {
		if got, text := w.diagnosis(w.token); len(got) > 0 {
			t.Fatalf("before: %v (%s)", got, text)
		}
		spoil()
		if got, text := w.diagnosis(w.token); !slices.Equal(got, []string{"keyVault KeyVaultAccessPolicyMissing"}) {
			t.Errorf("a policy that was %s: %v (%s)", name, got, text)
		}
		if got := fmt.Sprint(w.resync()); got != "[an access policy on "+w.path(w.vault)+"]" {
			t.Errorf("a policy that was %s: resyncKeys repaired %s", name, got)
		}
	}
	must(t, w.a, http.StatusOK, w.token, http.MethodPatch, w.vault+version, map[string]any{"properties": map[string]any{"enableRbacAuthorization": true}})
	if got, text := w.diagnosis(w.token); !slices.Equal(got, []string{"keyVault KeyVaultRoleMissing"}) || !strings.Contains(text, "Key Vault Administrator") {
		t.Errorf("a vault that goes by roles now: %v (%s)", got, text)
	}
	w.resync()
}

// resyncKeys puts no key where none had opened the account: who may write
// datastores and repair a workspace, but list no keys, gets no key by that. Nor
// does it renew keys for a workspace that goes by identities.
func TestResyncGivesNobodyAKey(t *testing.T) {
	t.Parallel()
	w := newSick(t, true)
	thief := w.a.newPerson(t, "thief")
	role := w.sub + "/providers/Microsoft.Authorization/roleDefinitions/" + arm.NewUUID()
	must(t, w.a, http.StatusCreated, w.token, http.MethodPut, role+version, map[string]any{"properties": map[string]any{
		"roleName": "Datastore Writer", "type": "CustomRole", "assignableScopes": []any{w.path(w.sub)}, "permissions": []any{map[string]any{"actions": []any{
			"Microsoft.MachineLearningServices/workspaces/read", "Microsoft.MachineLearningServices/workspaces/datastores/*", "Microsoft.MachineLearningServices/workspaces/resynckeys/action"}}}}})
	must(t, w.a, http.StatusCreated, w.token, http.MethodPut, w.ws+"/providers/Microsoft.Authorization/roleAssignments/"+arm.NewUUID()+"?api-version=2022-04-01",
		map[string]any{"properties": map[string]any{"roleDefinitionId": w.path(role), "principalId": thief.object}})
	bogus := "AAAA"
	owner := w.token
	w.token = tokenFor(t, w.a, thief.id, thief.secret, w.a.audiences()["arm"])
	w.datastore("bogus", w.account, bogus, "&skipValidation=true")
	if got := w.resync(); len(got) > 0 {
		t.Errorf("resyncKeys repaired %v", got)
	}
	if got := must(t, w.a, http.StatusOK, w.token, http.MethodPost, w.ws+"/datastores/bogus/listSecrets"+version, nil)["key"]; got != bogus {
		t.Error("resyncKeys put another key into a datastore whose key never opened anything")
	}
	w.token = owner
	must(t, w.a, http.StatusOK, w.token, http.MethodPatch, w.ws+version, map[string]any{"properties": map[string]any{"systemDatastoresAuthMode": "identity"}})
	made(t, w.a, w.token, w.path(w.ws), map[string]any{"location": "local", "properties": map[string]any{"systemDatastoresAuthMode": "identity",
		"storageAccount": w.path(w.account), "keyVault": w.path(w.vault), "applicationInsights": w.path(w.insights())}})
	must(t, w.a, http.StatusOK, w.token, http.MethodPost, w.account+"/regenerateKey"+version, map[string]any{"keyName": "key1"})
	if got := w.resync(); len(got) > 0 {
		t.Errorf("resyncKeys renewed a key for a workspace that goes by identities: %v", got)
	}
}
