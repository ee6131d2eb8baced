package ml

import (
	"bufio"
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// What azure-ai-ml makes of the public examples is taken, or refused by the name
// of what can't be kept.
func TestGoldenBodies(t *testing.T) {
	f, err := os.Open("../../../shared/data/azureml-examples/golden-rest-bodies.jsonl")
	if err != nil {
		t.Skip("shared/data is absent, so the example bodies are not held against")
	}
	defer f.Close()
	w := newWorld(t)
	w.workspace(ws)
	w.blobs.put(account2, "data-container", "x", "x")
	expect := map[string]string{ // "" is taken; else what the refusal names
		"cli/resources/compute/cluster-basic.yml":         "",
		"cli/resources/compute/cluster-low-priority.yml":  "vmPriority",
		"cli/resources/compute/cluster-ssh-password.yml":  "userAccountCredentials|disableLocalAuth",
		"cli/resources/compute/cluster-user-identity.yml": "resource id",
		"cli/resources/compute/instance-minimal.yml":      "ComputeInstance",
		"cli/resources/compute/vm-attach.yml":             "VirtualMachine",
		"cli/resources/datastore/adls-gen1-credless.yml":  "AzureDataLakeGen1",
		"cli/resources/datastore/adls-gen2-credless.yml":  "",
		"cli/resources/datastore/blob-credless.yml":       "",
		"cli/resources/datastore/blob-sas.yml":            "sig",
		"cli/resources/datastore/file-sas.yml":            "sig",
		"cli/resources/workspace/basic.yml":               "",
		"cli/resources/workspace/privatelink.yml":         "publicNetworkAccess",
		"cli/assets/environment/docker-image.yml":         "image",
		"cli/assets/environment/docker-context.yml":       "build",
		"cli/assets/data/cloud-folder.yml":                "",
		"cli/assets/data/cloud-file-wasbs.yml":            "not a place",
		"cli/assets/data/public-file-https.yml":           "not on this installation",
	}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 8<<20)
	seen := 0
	for lines.Scan() {
		var g struct {
			File, Kind string
			Body       map[string]any
		}
		if err := json.Unmarshal(lines.Bytes(), &g); err != nil {
			t.Fatal(err)
		}
		want, ok := expect[g.File]
		if !ok {
			continue
		}
		seen++
		w.golden(g.File, g.Kind, g.Body, want)
	}
	if seen != len(expect) {
		t.Errorf("%d of %d bodies were there", seen, len(expect))
	}
}

func (w *world) golden(file, kind string, body map[string]any, want string) {
	props, _ := body["properties"].(map[string]any)
	name := strings.NewReplacer("/", "", ".", "", "-", "").Replace(strings.TrimSuffix(file[strings.LastIndexByte(file, '/'):], ".yml"))
	path := ws + "/" + map[string]string{"compute": "computes/" + name, "datastore": "datastores/" + name, "environment": "environments/" + name + "/versions/1", "data": "data/" + name + "/versions/1"}[kind]
	if kind == "workspace" {
		path, props["storageAccount"], props["keyVault"] = ws2, account1, vault1
	}
	if kind == "datastore" {
		props["accountName"], props["endpoint"] = "acct2", "core."+w.site.Suffix
	}
	status, out := w.do("olga", "PUT", path, jsonText(body), 0)
	text := jsonText(out["error"])
	if want == "" {
		if status >= 300 {
			w.t.Errorf("%s = %d %s, want it taken", file, status, text)
		}
		return
	}
	named := false
	for _, n := range strings.Split(want, "|") {
		named = named || strings.Contains(text, n)
	}
	if status != 400 || !named {
		w.t.Errorf("%s = %d %s, want it refused by %s", file, status, text, want)
	}
}
