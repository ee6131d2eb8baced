package policy_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"castellan/internal/policy"
)

const shared = "../../../shared/data/"

// file is a file of cases that Microsoft's own engine is held against.
type file struct {
	Definition string `yaml:"policy_definition"`
	Cases      []struct {
		Note       string
		Rule       string         `yaml:"policy_rule"`
		Definition string         `yaml:"policy_definition"`
		Resource   map[string]any `yaml:"resource"`
		Parameters map[string]any `yaml:"parameters"`
		Version    string         `yaml:"api_version"`
		Context    map[string]any `yaml:"context"`
		Request    map[string]any `yaml:"request_context"`
		Related    []struct {
			Response map[string]any `yaml:"response"`
		} `yaml:"host_await"`
		Effect    string `yaml:"want_effect"`
		None      bool   `yaml:"want_undefined"`
		Details   any    `yaml:"want_details"`
		NoCompile bool   `yaml:"want_compile_error"`
		NoParse   bool   `yaml:"want_parse_error"`
	}
}

// otherwise are the published cases where we answer otherwise, and why.
var otherwise = map[string]string{}

func init() {
	for why, ids := range map[string][]string{
		"the document is flattened: what is an object's own stands in properties, or a key has a dot in it": {
			"e2e_activitylog_capture_all_regions/compliant_all_regions_present",
			"e2e_tags_append/pass_tag_already_exists",
			"e2e_tags_append/pass_tag_matches_value",
			"e2e_tags_inherit_modify/pass_tag_matches",
		},
		"subscription() is not given, and what can't be worked out is no answer": {
			"e2e_asc_internet_traffic_firewall/aine_firewall_no_matching_subnet",
		},
		"the alias of a type that does not exist here stands for a place that its name does not tell": {
			"e2e_automanage_deployv2/dine_windows_vm_canonical",
			"e2e_automanage_deployv2/dine_linux_vm_canonical",
			"e2e_azupdate_customer_managed_dine/dine_windows_vm_no_config",
			"e2e_azupdate_customer_managed_dine/dine_linux_vm_no_config",
			"e2e_cosmos_max_throughput/deny_mongodb_throughput_settings",
			"e2e_cosmos_max_throughput/deny_table_autoscale",
			"e2e_datafactory_linked_secrets/audit_sql_server_secure_string",
			"e2e_datafactory_linked_secrets/audit_storage_sas_no_keyvault",
			"e2e_datafactory_linked_secrets/audit_azure_sql_dw_spkey_securestring",
			"e2e_datafactory_linked_secrets/audit_storage_accountkey_not_keyvault",
			"e2e_datafactory_linked_secrets/audit_amazon_s3_secret_securestring",
			"e2e_datafactory_linked_secrets/audit_sftp_privatekey_securestring",
			"e2e_vm_managed_disk/audit_vm_unmanaged_osdisk",
			"e2e_vm_managed_disk/audit_vmss_vhd_containers",
			"e2e_vm_managed_disk/audit_vmss_image_url",
			"e2e_vm_skus_allowed/allow_permitted_sku",
			"e2e_vm_skus_allowed/allow_case_insensitive_sku",
		},
		"a parameter has neither a value nor a default, which an assignment here must not lack": {
			"e2e_fic_aks_issuer/skip_wrong_resource_type",
		},
		"the effect lacks what it needs to be done, so the definition is refused": {
			"e2e_monitoring_dine_existence/compliant_all_conditions",
			"e2e_monitoring_dine_existence/no_related_resource",
			"e2e_monitoring_dine_existence/enabled_false",
			"effect_details/modify_no_details",
			"effect_details/dine_structured_details",
			"effect_details/append_bare_effect_no_details",
			"effect_details/modify_bare_effect_no_details",
		},
		"in like only * is a wildcard, as Azure documents": {
			"operators/like_question_mark",
		},
		"the template language has no such literal, and reads whole numbers only": {
			"template_functions/fn_int_from_float_string",
			"template_functions/fn_string_from_bool",
		},
		"the alias stands for other places at other API versions; documents here have one shape": {
			"versioned_normalization/accountType_new_api",
			"versioned_normalization/accountType_new_api_wrong_value",
			"versioned_normalization/fq_accountType_new_api",
			"versioned_normalization/config_threshold_old_api",
			"versioned_normalization/config_threshold_old_api_wrong",
			"versioned_normalization/tier_old_api",
			"versioned_normalization/tier_new_api",
			"versioned_normalization/operationMode_oldest_api",
			"versioned_normalization/operationMode_middle_api",
			"versioned_normalization/operationMode_newest_api",
			"versioned_normalization/operationMode_default_no_api",
			"versioned_normalization/fq_operationMode_middle_api",
			"versioned_normalization/config_retryCount_old_api",
			"versioned_normalization/encryption_enabled_old_api",
			"versioned_normalization/encryption_enabled_old_api_wrong",
			"versioned_normalization/fq_config_retryCount_old_api",
			"versioned_normalization/rules_priority_new_api",
		},
	} {
		for _, id := range ids {
			otherwise[id] = why
		}
	}
}

// Every published case gets the answer that is stated with it.
func TestPublishedCases(t *testing.T) {
	files, _ := filepath.Glob(shared + "regorus-azure-policy/azure_policy/cases/*.yaml")
	if len(files) == 0 {
		t.Skip("shared/data is absent, so the published cases are not held against")
	}
	ran := 0
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var f file
		if err := yaml.Unmarshal(text, &f); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, c := range f.Cases {
			ran++
			id := strings.TrimSuffix(filepath.Base(name), ".yaml") + "/" + c.Note
			t.Run(id, func(t *testing.T) {
				def := c.Definition
				switch {
				case def != "":
				case c.Rule != "":
					def = `{"policyRule":` + c.Rule + `}`
				default:
					def = f.Definition
				}
				in := &policy.Input{Resource: plain(c.Resource), APIVersion: c.Version, Now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
				if in.APIVersion == "" {
					in.APIVersion = "2026-01-01"
				}
				if v, ok := c.Request["apiVersion"].(string); ok {
					in.APIVersion = v
				}
				in.Group, _ = plain(c.Context)["resourceGroup"].(map[string]any)
				in.Subscription, _ = plain(c.Context)["subscription"].(map[string]any)
				got, err := judge(def, plain(c.Parameters), c.Rule != "", in, func(x policy.Related) []map[string]any {
					if len(c.Related) > 0 && c.Related[0].Response != nil {
						res := plain(c.Related[0].Response)
						if res["type"] == nil {
							res["type"] = x.Type
						}
						return []map[string]any{res}
					}
					return nil
				})
				want := strings.ToLower(c.Effect)
				if c.NoCompile || c.NoParse {
					want = "refused"
				}
				why, listed := otherwise[id]
				if ok := got == want; ok == listed {
					t.Errorf("%s (%v), want %s; %s\n%s\n%v", got, err, want, why, def, c.Resource)
				}
			})
		}
	}
	if ran < 400 {
		t.Errorf("only %d cases were run", ran)
	}
}

// judge gives the effect of a definition on a resource, in lower case.
func judge(def string, params map[string]any, bare bool, in *policy.Input, related func(policy.Related) []map[string]any) (string, error) {
	if bare && len(params) > 0 {
		// A rule alone: its parameters are declared nowhere.
		decl := map[string]any{}
		for k, v := range params {
			typ := "String"
			switch v.(type) {
			case []any:
				typ = "Array"
			case map[string]any:
				typ = "Object"
			case bool:
				typ = "Boolean"
			case int64, float64:
				typ = "Float"
			}
			decl[k] = map[string]any{"type": typ}
		}
		text, _ := json.Marshal(decl)
		def = `{"parameters":` + string(text) + "," + def[1:]
	}
	d, err := policy.ParseRule([]byte(def))
	if err != nil {
		return "refused", err
	}
	r, err := d.Bind(params)
	if err != nil {
		return "refused", err
	}
	if r.Effect == policy.Disabled {
		return "", nil
	}
	yes, err := r.Applies(in)
	if err != nil || !yes {
		return "", err
	}
	switch r.Effect {
	case policy.AuditIfNotExists, policy.DeployIfNotExists:
		x, err := r.Related(in)
		if err != nil {
			return "", err
		}
		for _, res := range related(x) {
			if ok, err := x.Meets(res); err != nil || ok {
				return "", err
			}
		}
	case policy.Modify, policy.Append:
		if _, err := r.Changes(in); err != nil {
			return "", err
		}
	}
	return strings.ToLower(string(r.Effect)), nil
}

// plain is a document as the platform reads it.
func plain(m map[string]any) map[string]any {
	if m == nil {
		return nil
	}
	text, err := json.Marshal(m)
	if err != nil {
		panic(fmt.Sprint("a case has no JSON form: ", err))
	}
	d := json.NewDecoder(strings.NewReader(string(text)))
	d.UseNumber()
	var out map[string]any
	if err := d.Decode(&out); err != nil {
		panic(err)
	}
	return policy.Plain(out).(map[string]any)
}

// Every published definition loads as it is.
func TestPublishedDefinitionsLoad(t *testing.T) {
	files, _ := filepath.Glob(shared + "azure-policy/*/*.json")
	more, _ := filepath.Glob(shared + "azure-policy/*/*/*.json")
	files = append(files, more...)
	if len(files) == 0 {
		t.Skip("shared/data is absent, so the published definitions are not loaded")
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := policy.ParseRule(text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(files) < 260 {
		t.Errorf("only %d definitions were loaded", len(files))
	}
}
