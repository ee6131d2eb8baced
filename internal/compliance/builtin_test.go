package compliance

import (
	"encoding/json"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"castellan/internal/policy"
)

// Every built-in definition is the published one of its name, in other words:
// the same mode, parameters and effects, and the same answer for every resource.
func TestBuiltInMeansThePublished(t *testing.T) {
	files, _ := filepath.Glob("../../../shared/data/azure-policy/*/*.json")
	more, _ := filepath.Glob("../../../shared/data/azure-policy/*/*/*.json")
	if len(files)+len(more) == 0 {
		t.Skip("shared/data is absent, so the built-in definitions are not compared with the published ones")
	}
	published := map[string]*policy.Definition{}
	for _, f := range append(files, more...) {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var head struct{ Name string }
		_ = json.Unmarshal(text, &head) // statistics have no name
		if d, err := policy.ParseRule(text); err == nil {
			published[head.Name] = d
		}
	}
	if len(builtIn) < 15 {
		t.Errorf("there are %d built-in definitions", len(builtIn))
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, o := range sortedBuiltIn {
		ours, err := parse(o)
		if err != nil {
			t.Fatalf("%s: %v", o.ID, err)
		}
		theirs := published[o.ID.Name()]
		if theirs == nil {
			t.Errorf("%s is published nowhere", o.ID)
			continue
		}
		if ours.Mode != theirs.Mode {
			t.Errorf("%s has the mode %s, the published one %s", o.ID, ours.Mode, theirs.Mode)
		}
		for name, p := range theirs.Parameters {
			q := ours.Parameters[name]
			if q.Type != p.Type || !reflect.DeepEqual(q.Default, p.Default) || !(len(q.Allowed) > 0) == (len(p.Allowed) > 0) {
				t.Errorf("%s: the parameter %s is %+v, published %+v", o.ID, name, q, p)
			}
		}
		agree(t, rnd, o.ID.Name(), ours, theirs, nil)
		if ours.Mode == mlMode {
			agree(t, rnd, o.ID.Name(), ours, theirs, map[string]any{"computeNames": []any{"CPU"}, "computeType": "MachineLearningCompute", "isIsolatedNetwork": "Yes"})
			agree(t, rnd, o.ID.Name(), ours, theirs, map[string]any{"tags": []any{"b:2", "a:1"}, "isIsolatedNetwork": "No"})
		}
	}
}

// agree holds two definitions against each other on made-up resources.
func agree(t *testing.T, rnd *rand.Rand, name string, ours, theirs *policy.Definition, given map[string]any) {
	t.Helper()
	given = maps.Clone(given)
	if given == nil {
		given = map[string]any{}
	}
	for _, p := range ours.Parameters {
		switch {
		case p.HasValue:
		case p.Type == "Array":
			given[p.Name] = []any{"westeurope", "Microsoft.Storage/storageAccounts"}
		case p.Name == "tagName":
			given[p.Name] = "env"
		default:
			given[p.Name] = "prod"
		}
	}
	a, err := ours.Bind(given)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	b, err := theirs.Bind(given)
	if err != nil {
		t.Fatalf("%s, published: %v", name, err)
	}
	if a.Effect != b.Effect {
		t.Errorf("%s has the effect %s, the published one %s", name, a.Effect, b.Effect)
	}
	yes := 0
	for range 1000 {
		in := resourceOf(rnd)
		if ours.Mode == mlMode {
			in.Resource["type"] = usesType
		}
		x, errX := a.Applies(in)
		y, errY := b.Applies(in)
		if x != y || (errX == nil) != (errY == nil) {
			t.Fatalf("%s says %v (%v), the published one %v (%v), of %v in %v", name, x, errX, y, errY, in.Resource, in.Group)
		}
		if x {
			yes++
		}
	}
	if yes == 0 || yes == 1000 {
		t.Errorf("%s says the same of all resources: %d", name, yes)
	}
}

func connection(status string) any {
	return map[string]any{"properties": map[string]any{"privateLinkServiceConnectionState": map[string]any{"status": status}}}
}

func resourceOf(rnd *rand.Rand) *policy.Input {
	pick := func(of ...any) any { return of[rnd.IntN(len(of))] }
	props := map[string]any{}
	for name, values := range map[string][]any{
		"allowSharedKeyAccess": {true, false, nil}, "supportsHttpsTrafficOnly": {true, false}, "minimumTlsVersion": {"TLS1_0", "TLS1_2", "tls1_2", nil},
		"allowBlobPublicAccess": {true, false, nil}, "enableSoftDelete": {true, false, nil}, "enablePurgeProtection": {true, false, nil},
		"enableRbacAuthorization": {true, false, nil}, "createMode": {"default", "recover", nil}, "computeType": {"AmlCompute", "ComputeInstance", "Kubernetes", "MachineLearningCompute"},
		"disableLocalAuth": {true, false, nil}, "v1LegacyMode": {true, false, nil}, "publicNetworkAccess": {"Enabled", "disabled", nil}, "primaryUserAssignedIdentity": {"", "u", nil},
		"managedNetwork": {map[string]any{"isolationMode": "Disabled"}, map[string]any{"isolationMode": "AllowInternetOutbound"}, nil},
		"encryption":     {map[string]any{"status": "Enabled"}, map[string]any{"status": "Disabled"}, nil}, "properties": {map[string]any{"subnet": map[string]any{"id": "x"}}, map[string]any{"subnet": map[string]any{"id": ""}}, nil},
		"privateEndpointConnections": {[]any{}, []any{connection("Approved"), connection("Pending")}, []any{connection("Rejected")}, nil},
		"computeName":                {"cpu", "gpu"}, "isIsolatedNetwork": {"Yes", "No"},
	} {
		if v := pick(values...); v != nil {
			props[name] = v
		}
	}
	tags := func() map[string]any {
		m := map[string]any{}
		if v := pick("prod", "PROD", "dev", "", nil); v != nil {
			m["env"] = v
		}
		return m
	}
	labels := []any{}
	for _, l := range []any{pick("a:1", nil), pick("b:2", "c:3", nil)} {
		if l != nil {
			labels = append(labels, l)
		}
	}
	props["tags"] = labels
	typ := pick("Microsoft.MachineLearningServices/workspaces", "Microsoft.Storage/storageAccounts", "Microsoft.KeyVault/vaults", "Microsoft.MachineLearningServices/workspaces/computes", "Microsoft.Resources/subscriptions/resourceGroups", "Microsoft.Other/things")
	return &policy.Input{
		Resource:   map[string]any{"name": "n", "id": "/subscriptions/s/resourceGroups/g/providers/" + typ.(string) + "/n", "type": pick(typ, strings.ToLower(typ.(string))), "kind": pick("Default", "project", nil), "location": pick("westeurope", "WestEurope", "global", "eastus"), "tags": tags(), "properties": props},
		Group:      map[string]any{"tags": tags()},
		APIVersion: "2026-01-01",
	}
}
