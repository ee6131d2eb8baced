package app

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"castellan/internal/store"
)

// guardedLab is a workspace whose key a customer's key wraps.
type guardedLab struct {
	*guarded
	ws     string // its id
	mlflow string
	token  string
	user   string // id of the identity that may use the key
	run    string
}

const marker = "canary-of-the-workspace-5e1f"

func (g *guarded) labBody(key string) map[string]any {
	ua := g.path(g.group) + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/keyuser"
	return map[string]any{"location": "local", "identity": map[string]any{"type": "SystemAssigned,UserAssigned", "userAssignedIdentities": map[string]any{ua: map[string]any{}}}, "properties": map[string]any{
		"storageAccount": g.path(g.account), "keyVault": g.path(g.vault),
		"encryption": map[string]any{"status": "Enabled", "identity": map[string]any{"userAssignedIdentity": ua}, "keyVaultProperties": map[string]any{"keyVaultArmId": g.path(g.vault), "keyIdentifier": key}},
	}}
}

func newGuardedLab(t *testing.T) *guardedLab {
	g := newGuarded(t)
	g.a.Run(t.Context())
	l := &guardedLab{guarded: g, token: g.policed.token, user: g.group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/keyuser"}
	g.fine(l.user, map[string]any{"location": "local"})
	l.ws = g.path(g.group) + "/providers/Microsoft.MachineLearningServices/workspaces/sealed"
	// A key that the identity may not use is refused, and leaves nothing.
	if w := call(g.a, l.token, http.MethodPut, g.a.Site.Base()+l.ws+version, g.labBody(l.keyID())); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "KeyVaultAuthenticationFailure") {
		t.Errorf("a workspace whose identity may not use the key = %d %s", w.Code, w.Body)
	}
	must(t, g.a, http.StatusNotFound, l.token, http.MethodGet, g.a.Site.Base()+l.ws+version, nil)
	l.letUser()
	made(t, g.a, l.token, l.ws, g.labBody(l.keyID()))
	l.mlflow = g.a.Site.Base() + "/mlflow/v1.0" + l.ws + "/api/2.0/mlflow/"
	return l
}

func (l *guardedLab) keyID() string { return "https://guards." + l.a.Site.VaultSuffix() + "/keys/k" }

// letUser gives the identity the right to use the vault's keys.
func (l *guardedLab) letUser() {
	l.Helper()
	principal := fmt.Sprint(must(l.T, l.a, http.StatusOK, l.token, http.MethodGet, l.user+version, nil)["properties"].(map[string]any)["principalId"])
	l.a.giveRole(l.T, l.token, l.path(l.vault), principal, "Key Vault Crypto Service Encryption User")
	list := must(l.T, l.a, http.StatusOK, l.token, http.MethodGet, l.vault+"/providers/Microsoft.Authorization/roleAssignments?api-version=2022-04-01&$filter=principalId%20eq%20'"+principal+"'", nil)
	l.role = l.a.Site.Base() + fmt.Sprint(list["value"].([]any)[0].(map[string]any)["id"])
}

func (l *guardedLab) fill() {
	l.Helper()
	run := must(l.T, l.a, http.StatusOK, l.token, http.MethodPost, l.mlflow+"runs/create", map[string]any{"experiment_id": "0", "run_name": marker, "start_time": 1})
	l.run = fmt.Sprint(run["run"].(map[string]any)["info"].(map[string]any)["run_id"])
	must(l.T, l.a, http.StatusOK, l.token, http.MethodPost, l.mlflow+"runs/log-batch", map[string]any{"run_id": l.run,
		"metrics": []any{map[string]any{"key": marker, "value": 42.5, "timestamp": 1, "step": 0}}, "params": []any{map[string]any{"key": "p", "value": marker}}, "tags": []any{map[string]any{"key": "t", "value": marker}}})
	must(l.T, l.a, http.StatusOK, l.token, http.MethodPost, l.mlflow+"experiments/create", map[string]any{"name": "e-" + marker})
	must(l.T, l.a, http.StatusOK, l.token, http.MethodPost, l.mlflow+"registered-models/create", map[string]any{"name": "m-model", "description": marker})
	made(l.T, l.a, l.token, l.ws+"/datastores/mine", map[string]any{"properties": map[string]any{"datastoreType": "AzureBlob", "accountName": "guarded", "containerName": "data", "description": marker, "credentials": map[string]any{"credentialsType": "None"}}})
	made(l.T, l.a, l.token, l.ws+"/data/d/versions/1", map[string]any{"properties": map[string]any{"dataType": "uri_file", "dataUri": "azureml://datastores/mine/paths/x", "description": marker}})
	made(l.T, l.a, l.token, l.ws+"/computes/cpu", map[string]any{"location": "local", "properties": map[string]any{
		"computeType": "AmlCompute", "properties": map[string]any{"vmSize": "Standard_B1s", "scaleSettings": map[string]any{"minNodeCount": 0, "maxNodeCount": 1}},
	}})
}

// reads are requests that give what the workspace keeps.
func (l *guardedLab) reads() map[string][3]any {
	base := l.a.Site.Base() + l.ws
	return map[string][3]any{
		"run":         {http.MethodGet, l.mlflow + "runs/get?run_id=" + l.run, nil},
		"metric":      {http.MethodGet, l.mlflow + "metrics/get-history?run_id=" + l.run + "&metric_key=" + marker, nil},
		"search":      {http.MethodPost, l.mlflow + "runs/search", map[string]any{"experiment_ids": []string{"0"}}},
		"experiments": {http.MethodPost, l.mlflow + "experiments/search", map[string]any{"max_results": 10}},
		"log":         {http.MethodPost, l.mlflow + "runs/log-metric", map[string]any{"run_id": l.run, "key": "k", "value": 1, "timestamp": 1, "step": 0}},
		"models":      {http.MethodGet, l.mlflow + "registered-models/search", nil},
		"model":       {http.MethodGet, base + "/models/m-model" + version, nil},
		"datastore":   {http.MethodGet, base + "/datastores/mine" + version, nil},
		"datastores":  {http.MethodGet, base + "/datastores" + version, nil},
		"secrets":     {http.MethodPost, base + "/datastores/mine/listSecrets" + version, nil},
		"data":        {http.MethodGet, base + "/data/d/versions/1" + version, nil},
		"all data":    {http.MethodGet, base + "/data/d/versions" + version, nil},
		"over":        {http.MethodPut, base + "/datastores/mine" + version, map[string]any{"properties": map[string]any{"datastoreType": "AzureBlob", "accountName": "guarded", "containerName": "other", "credentials": map[string]any{"credentialsType": "None"}}}},
		"new":         {http.MethodPost, l.mlflow + "experiments/create", map[string]any{"name": "made-meanwhile"}},
	}
}

// Every way of taking the customer's key away ends the reading and writing of
// what the workspace keeps, by every door; giving it back brings all back. Other
// workspaces and lists over all of them go on.
func TestCustomersKeyGuardsAWorkspace(t *testing.T) {
	l := newGuardedLab(t)
	l.fill()
	plain := l.path(l.group) + "/providers/Microsoft.MachineLearningServices/workspaces/plain"
	made(t, l.a, l.token, plain, map[string]any{"location": "local", "properties": map[string]any{"storageAccount": l.path(l.account), "keyVault": l.path(l.vault)}})
	if line := l.keyLines(l.token)[l.ws+" run history, jobs and assets of the workspace"]; line["state"] != "Enabled" || !strings.Contains(fmt.Sprint(line["wrappedBy"]), "/keys/k/") {
		t.Errorf("castellan keys shows %v", line)
	}
	disable := func(on bool) {
		l.key(http.StatusOK, http.MethodPatch, "k", map[string]any{"attributes": map[string]any{"enabled": on}})
	}
	for _, way := range []struct {
		name       string
		shut, open func()
	}{
		{"disabled", func() { disable(false) }, func() { disable(true) }},
		{"expired", func() {
			l.key(http.StatusOK, http.MethodPatch, "k", map[string]any{"attributes": map[string]any{"exp": l.clock.now().Unix() - 10}})
		}, func() {
			l.key(http.StatusOK, http.MethodPatch, "k", map[string]any{"attributes": map[string]any{"exp": l.clock.now().Unix() + 1<<20}})
		}},
		{"deleted", func() { l.key(http.StatusOK, http.MethodDelete, "k", nil) }, func() {
			must(t, l.a, http.StatusOK, l.keys, http.MethodPost, "https://guards."+l.a.Site.VaultSuffix()+"/deletedkeys/k/recover"+vaultVersion, nil)
		}},
		{"its right taken", func() { must(t, l.a, http.StatusOK, l.token, http.MethodDelete, l.role+"?api-version=2022-04-01", nil) }, l.letUser},
	} {
		t.Run(way.name, func(t *testing.T) {
			for name, r := range l.reads() {
				if name == "new" {
					continue
				}
				if w := call(l.a, l.token, r[0].(string), r[1].(string), r[2]); w.Code/100 != 2 {
					t.Fatalf("before, %s = %d %s", name, w.Code, w.Body)
				}
			}
			way.shut()
			l.past()
			for name, r := range l.reads() {
				w := call(l.a, l.token, r[0].(string), r[1].(string), r[2])
				if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "The data can't be read or written") || strings.Contains(w.Body.String(), marker) {
					t.Errorf("%s = %d %.300s", name, w.Code, w.Body)
				}
			}
			l.quiet(t)
			must(t, l.a, http.StatusOK, l.token, http.MethodGet, l.a.Site.Base()+l.ws+version, nil)
			if w := call(l.a, l.token, http.MethodGet, l.group+"/resources"+"?api-version=2021-04-01", nil); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "sealed") {
				t.Errorf("the group's resources = %d %s", w.Code, w.Body)
			}
			if w := call(l.a, l.token, http.MethodGet, l.a.Site.Base()+plain+"/datastores"+version, nil); w.Code != http.StatusOK {
				t.Errorf("another workspace = %d %s", w.Code, w.Body)
			}
			way.open()
			l.past()
		})
	}
	for name, r := range l.reads() {
		if w := call(l.a, l.token, r[0].(string), r[1].(string), r[2]); w.Code/100 != 2 || name == "run" && !strings.Contains(w.Body.String(), "42.5") {
			t.Errorf("after all, %s = %d %s", name, w.Code, w.Body)
		}
	}
	// What is encrypted stays so, and stays in its vault.
	for says, change := range map[string]any{
		"can't be changed after": map[string]any{"status": "Disabled"},
		"must be a key of":       map[string]any{"status": "Enabled", "keyVaultProperties": map[string]any{"keyVaultArmId": l.path(l.vault), "keyIdentifier": "https://other." + l.a.Site.VaultSuffix() + "/keys/k"}},
		"is not among":           map[string]any{"status": "Enabled", "identity": map[string]any{"userAssignedIdentity": l.path(l.user) + "x"}, "keyVaultProperties": map[string]any{"keyVaultArmId": l.path(l.vault), "keyIdentifier": l.keyID()}},
	} {
		if w := call(l.a, l.token, http.MethodPatch, l.a.Site.Base()+l.ws+version, map[string]any{"properties": map[string]any{"encryption": change}}); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), says) {
			t.Errorf("%v = %d %s", change, w.Code, w.Body)
		}
	}
	// Another key of the vault takes over; then the first doesn't matter.
	l.key(http.StatusOK, http.MethodPost, "k2/create", map[string]any{"kty": "RSA"})
	if w := call(l.a, l.token, http.MethodPut, l.a.Site.Base()+l.ws+version, l.labBody(l.keyID()+"2")); w.Code != http.StatusOK {
		t.Fatalf("another key = %d %s", w.Code, w.Body)
	}
	disable(false)
	l.past()
	must(t, l.a, http.StatusOK, l.token, http.MethodGet, l.mlflow+"runs/get?run_id="+l.run, nil)
	// A workspace whose key is gone can be deleted, with all that lies in it.
	l.key(http.StatusOK, http.MethodPatch, "k2", map[string]any{"attributes": map[string]any{"enabled": false}})
	l.past()
	must(t, l.a, http.StatusOK, l.token, http.MethodDelete, l.a.Site.Base()+l.ws+version, nil)
	must(t, l.a, http.StatusNotFound, l.token, http.MethodGet, l.a.Site.Base()+l.ws+"/datastores/mine"+version, nil)
	if w := call(l.a, l.token, http.MethodGet, l.a.Site.Base()+plain+"/datastores"+version, nil); w.Code != http.StatusOK {
		t.Errorf("another workspace after that = %d %s", w.Code, w.Body)
	}
}

// quiet looks for what the workspace keeps in the whole store, with the root key.
func (l *guardedLab) quiet(t *testing.T) {
	t.Helper()
	root, err := rootKey(t.Context(), l.a.Config)
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(l.a.Data, root) // with no guard
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows := 0
	if err := db.View(t.Context(), func(tx *store.Tx) error {
		return tx.Raw(func(table, key string, value []byte, err error) {
			if strings.HasPrefix(table, "audit") || table == "tracking_names" || table == "policy_events" || table == "operations" {
				return // names alone, which the log has
			}
			if rows++; bytes.Contains(value, []byte(marker)) {
				t.Errorf("with the root key a row of %s is read: %.80s", table, key)
			}
		})
	}); err != nil {
		t.Fatal(err)
	}
	if rows < 100 {
		t.Errorf("only %d rows were looked at", rows)
	}
}

// A new version of the key wraps the workspace's key anew; the old can go.
func TestAWorkspacesKeyRotates(t *testing.T) {
	l := newGuardedLab(t)
	l.fill()
	uid := fmt.Sprint(must(t, l.a, http.StatusOK, l.token, http.MethodGet, l.a.Site.Base()+l.ws+version, nil)["properties"].(map[string]any)["workspaceId"])
	for range 2 {
		old := l.a.keys.Customer(uid).With
		l.key(http.StatusOK, http.MethodPost, "k/rotate", nil)
		if err := l.a.keys.Turn(t.Context()); err != nil {
			t.Fatal(err)
		}
		if now := l.a.keys.Customer(uid).With; now == old {
			t.Fatalf("after a rotation %s still wraps", old)
		}
		l.key(http.StatusOK, http.MethodPatch, "k/"+old, map[string]any{"attributes": map[string]any{"enabled": false}})
		l.past()
		must(t, l.a, http.StatusOK, l.token, http.MethodGet, l.mlflow+"runs/get?run_id="+l.run, nil)
	}
}

// A job that runs when the key is taken away ends; when the key is back it says why.
func TestAJobEndsWithItsWorkspacesKey(t *testing.T) {
	needsSandbox(t)
	l := newGuardedLab(t)
	l.fill()
	entries, err := os.ReadDir(filepath.Join(l.a.Data, "scratch"))
	if err != nil {
		t.Fatal(err)
	}
	idle := len(entries)
	busy := func() bool {
		entries, err := os.ReadDir(filepath.Join(l.a.Data, "scratch"))
		return err != nil || len(entries) > idle
	}
	job := l.a.Site.Base() + l.ws + "/jobs/long" + version
	must(t, l.a, http.StatusCreated, l.token, http.MethodPut, job, jobOn(l.policed, l.a.Site.Base()+l.ws))
	status := func() string {
		w := call(l.a, l.token, http.MethodGet, job, nil)
		var d struct{ Properties struct{ Status string } }
		_ = json.Unmarshal(w.Body.Bytes(), &d) // "" is no status
		return d.Properties.Status
	}
	l.until("the job runs", func() bool { return status() == "Running" })
	if !busy() {
		t.Fatal("the job has no folder")
	}
	l.key(http.StatusOK, http.MethodPatch, "k", map[string]any{"attributes": map[string]any{"enabled": false}})
	l.past()
	l.until("its folder is gone", func() bool { return !busy() })
	l.key(http.StatusOK, http.MethodPatch, "k", map[string]any{"attributes": map[string]any{"enabled": true}})
	l.past()
	l.until("it says why", func() bool { l.past(); return status() == "Failed" })
}

func (l *guardedLab) until(what string, holds func() bool) {
	l.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); <-time.After(50 * time.Millisecond) {
		if holds() {
			return
		}
	}
	l.Fatalf("it never was so that %s", what)
}
