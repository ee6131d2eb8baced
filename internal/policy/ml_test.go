package policy

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Every published definition of machine learning finds what it is about and
// nothing else, with each of its effects (POL-02).
func TestMachineLearningDefinitions(t *testing.T) {
	files, _ := filepath.Glob("../../../shared/data/azure-policy/machine-learning/*.json")
	if len(files) == 0 {
		t.Skip("shared/data is absent, so the published definitions are not walked")
	}
	const ws, compute = "Microsoft.MachineLearningServices/workspaces", "Microsoft.MachineLearningServices/workspaces/computes"
	type props = map[string]any
	made := func(typ string, p props) props {
		return props{"id": "/subscriptions/s/resourceGroups/g/providers/" + typ + "/n", "name": "n", "type": typ, "location": "local", "properties": p}
	}
	job := func(name string) props {
		return made("Microsoft.MachineLearningServices.Data/workspaces", props{"computeName": name, "computeType": "MachineLearningCompute", "isIsolatedNetwork": "No", "tags": []any{}})
	}
	model := func(id string) props {
		return made("Microsoft.MachineLearningServices.v2.Data/workspaces/deployments", props{"model": props{"registryName": "r", "publisher": "p", "assetId": id}})
	}
	link := func(status string) props {
		return made(ws, props{"privateEndpointConnections": []any{props{"properties": props{"privateLinkServiceConnectionState": props{"status": status}}}}})
	}
	state := func(s string) props { return made(ws, props{"encryption": props{"status": s}}) }
	instance := func(p props) props {
		p = maps.Clone(p)
		p["computeType"] = "ComputeInstance"
		return made(compute, p)
	}
	endpoint := func(group string) props {
		return made("Microsoft.Network/privateEndpoints", props{"privateLinkServiceConnections": []any{props{"properties": props{"groupIds": []any{group}, "privateLinkServiceId": "x/Microsoft.MachineLearningServices/workspaces/w"}}}})
	}
	cpu := props{"computeNames": []any{"cpu"}}
	with := func(p props, name string, v any) props {
		p = maps.Clone(p)
		if p == nil {
			p = props{}
		}
		p[name] = v
		return p
	}
	account := made("Microsoft.Storage/storageAccounts", props{})
	cases := map[string]struct {
		given     props
		bad, good props
	}{
		"12e5dd16-d201-47ff-849b-8454061c293d": {props{"allowedAssetIds": []any{"registries/good/"}}, model("azureml://registries/bad/models/m"), model("azureml://registries/good/models/m")},
		"19539b54-c61e-4196-9a38-67598701be90": {props{"allowedRegistryName": "good"}, model("azureml://registries/bad/models/m"), model("azureml://registries/good/models/m")},
		"5853517a-63de-11ea-bc55-0242ac130003": {cpu, job("cpu"), job("gpu")},
		"1d413020-63de-11ea-bc55-0242ac130003": {with(cpu, "datastore", "d"), job("cpu"), job("gpu")},
		"53c70b02-63dd-11ea-bc55-0242ac130003": {cpu, job("cpu"), job("gpu")},
		"77eeea86-7e81-4a7d-9067-de844d096752": {cpu, job("cpu"), job("gpu")},
		"6a6f7384-63de-11ea-bc55-0242ac130003": {with(cpu, "signingKey", "k"), job("cpu"), job("gpu")},
		"3948394e-63de-11ea-bc55-0242ac130003": {with(cpu, "approvalEndpoint", "https://x"), job("cpu"), job("gpu")},
		"afe0c3be-ba3b-4544-ba52-0c99672a8ad6": {nil, made(ws, props{}), account},
		"f59276f0-5740-4aaf-821d-45d185aa210e": {props{"logAnalytics": "/l"}, made(ws, props{}), account},
		"f110a506-2dcb-422e-bcea-d533fc8c35e2": {nil, instance(props{"osImageMetadata": props{"isLatestOsImageVersion": false}}), instance(props{"osImageMetadata": props{"isLatestOsImageVersion": true}})},
		"e96a9a5f-07ca-471b-9bc5-6a0f33cbd68f": {nil, instance(props{"disableLocalAuth": false}), instance(props{"disableLocalAuth": true})},
		"a6f9a2d0-cff7-4855-83ad-4cd750666512": {nil, instance(props{}), instance(props{"disableLocalAuth": true})},
		"679ddf89-ab8f-48a5-9029-e76054077449": {nil, instance(props{"idleTimeBeforeShutdown": ""}), instance(props{"idleTimeBeforeShutdown": "PT15M"})},
		"6ddb1705-c8cf-450e-aa4b-19ad6703c440": {props{"isolationMode": "AllowOnlyApprovedOutbound"}, made(ws, props{"managedNetwork": props{"isolationMode": "Disabled"}}), made(ws, props{"managedNetwork": props{"isolationMode": "AllowOnlyApprovedOutbound"}})},
		"7804b5c7-01dc-4723-969b-ae300cc07ff1": {nil, instance(props{}), instance(props{"subnet": props{"id": "/s"}})},
		"ba769a63-b8cc-4b2d-abf6-ac33c7204be8": {nil, state("Disabled"), state("Enabled")},
		"7f40cee6-e933-4d0f-a782-b96615e0f4a6": {nil, state("Disabled"), with(state("Enabled"), "kind", "project")},
		"e413671a-dd10-4cc1-a943-45b598596cb7": {nil, made(ws, props{"v1LegacyMode": false}), made(ws, props{"v1LegacyMode": true})},
		"ee40564d-486e-4f68-a5ca-7a621edae0fb": {props{"privateDnsZoneId": "/z"}, endpoint("amlworkspace"), endpoint("blob")},
		"40cec1dd-a100-4920-b15b-3024fe8901ab": {nil, link("Pending"), link("Approved")},
		"45e05259-1eb5-4f70-9574-baf73e9d219b": {nil, link("Rejected"), link("Approved")},
		"7838fd83-5cbb-4b5d-888c-bfa240972597": {props{"privateEndpointSubnetId": "/s"}, made(ws, props{}), account},
		"438c38d2-3772-465a-a9cc-7a6666a275ce": {nil, made(ws, props{}), made(ws, props{"publicNetworkAccess": "Disabled"})},
		"a10ee784-7409-4941-b091-663697637c0f": {nil, made(ws, props{"publicNetworkAccess": "Enabled"}), made(ws, props{"publicNetworkAccess": "Disabled"})},
		"5f0c7d88-c7de-45b8-ac49-db49e72eaa78": {nil, made(ws, props{"primaryUserAssignedIdentity": ""}), made(ws, props{"primaryUserAssignedIdentity": "/u"})},
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var head struct{ Name string }
		if err := json.Unmarshal(text, &head); err != nil {
			t.Fatal(err)
		}
		c, ok := cases[head.Name]
		if !ok {
			t.Errorf("%s has no documents to judge", filepath.Base(f))
			continue
		}
		delete(cases, head.Name)
		d, err := ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		if len(d.Effects()) == 0 {
			t.Errorf("%s has no effects", filepath.Base(f))
		}
		for _, e := range d.Effects() {
			given := maps.Clone(c.given)
			for _, p := range d.Parameters {
				if p.Name == "effect" || p.Name == "effects" {
					given = with(given, p.Name, spelled(p, e))
				}
			}
			r, err := d.Bind(given)
			if err != nil {
				t.Fatalf("%s with %s: %v", filepath.Base(f), e, err)
			}
			if r.Effect != e {
				t.Errorf("%s has the effect %s, want %s", filepath.Base(f), r.Effect, e)
			}
			for want, doc := range map[bool]props{true: c.bad, false: c.good} {
				in := &Input{Resource: Plain(doc).(map[string]any), APIVersion: "2024-04-01", Now: time.Now()}
				if got, err := r.Applies(in); err != nil || got != want {
					t.Errorf("%s with %s says %v (%v) of %v, want %v", filepath.Base(f), e, got, err, doc, want)
				}
			}
		}
	}
	for name := range cases {
		t.Errorf("%s is published nowhere", name)
	}
}

// spelled is an effect as a parameter allows it.
func spelled(p Parameter, e Effect) any {
	for _, a := range p.Allowed {
		if sameFold(a, string(e)) {
			return a
		}
	}
	return string(e)
}
