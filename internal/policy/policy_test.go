package policy_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"castellan/internal/policy"
)

func doc(t *testing.T, text string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	return policy.Plain(m).(map[string]any)
}

func rule(t *testing.T, text string, params map[string]any) *policy.Rule {
	t.Helper()
	d, err := policy.ParseRule([]byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	r, err := d.Bind(params)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return r
}

const account = `{"id":"/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/a","name":"a","type":"Microsoft.Storage/storageAccounts",
	"location":"westeurope","tags":{"env":"dev"},"sku":{"name":"Standard_LRS"},
	"properties":{"minimumTlsVersion":"TLS1_0","networkAcls":{"ipRules":[{"value":"10.0.0.1"},{"value":"10.0.0.2","action":"Allow"}]}}}`

// What modify and append make of a resource, written out.
func TestChanges(t *testing.T) {
	for name, c := range map[string]struct{ effect, details, want string }{
		"a property by its alias":        {"modify", `{"operation":"addOrReplace","field":"Microsoft.Storage/storageAccounts/minimumTlsVersion","value":"TLS1_2"}`, `{"properties":{"minimumTlsVersion":"TLS1_2"}}`},
		"add leaves what is there":       {"modify", `{"operation":"add","field":"Microsoft.Storage/storageAccounts/minimumTlsVersion","value":"TLS1_2"}`, `{}`},
		"add makes what is not":          {"modify", `{"operation":"add","field":"Microsoft.Storage/storageAccounts/allowBlobPublicAccess","value":false}`, `{"properties":{"allowBlobPublicAccess":false}}`},
		"objects on the way":             {"modify", `{"operation":"addOrReplace","field":"Microsoft.Storage/storageAccounts/networkAcls.bypass","value":"None"}`, `{"properties":{"networkAcls":{"bypass":"None"}}}`},
		"what stands beside properties":  {"modify", `{"operation":"addOrReplace","field":"Microsoft.Storage/storageAccounts/sku.name","value":"Standard_ZRS"}`, `{"sku":{"name":"Standard_ZRS"}}`},
		"a tag":                          {"modify", `{"operation":"addOrReplace","field":"tags['cost.center']","value":"[field('location')]"}`, `{"tags":{"cost.center":"westeurope"}}`},
		"a tag goes":                     {"modify", `{"operation":"remove","field":"tags.env"}`, `{"tags":{"env":null}}`},
		"each member of an array":        {"modify", `{"operation":"addOrReplace","field":"Microsoft.Storage/storageAccounts/networkAcls.ipRules[*].action","value":"Deny"}`, `{"properties":{"networkAcls":{"ipRules":[{"value":"10.0.0.1","action":"Deny"},{"value":"10.0.0.2","action":"Deny"}]}}}`},
		"a condition that does not hold": {"modify", `{"operation":"addOrReplace","field":"tags.env","value":"x","condition":"[equals(field('tags.env'),'prod')]"}`, `{}`},
		"a condition that holds":         {"modify", `{"operation":"addOrReplace","field":"tags.env","value":"x","condition":"[equals(field('tags.env'),'DEV')]"}`, `{"tags":{"env":"x"}}`},
		"append to an array":             {"append", `{"field":"Microsoft.Storage/storageAccounts/networkAcls.ipRules[*]","value":{"value":"10.0.0.3"}}`, `{"properties":{"networkAcls":{"ipRules":[{"value":"10.0.0.1"},{"value":"10.0.0.2","action":"Allow"},{"value":"10.0.0.3"}]}}}`},
		"append what is there":           {"append", `{"field":"Microsoft.Storage/storageAccounts/networkAcls.ipRules[*]","value":{"value":"10.0.0.1"}}`, `{}`},
		"append to another value":        {"append", `{"field":"Microsoft.Storage/storageAccounts/minimumTlsVersion","value":"TLS1_2"}`, "error"},
		"something else in the way":      {"modify", `{"operation":"addOrReplace","field":"Microsoft.Storage/storageAccounts/minimumTlsVersion.x","value":"y"}`, "error"},
	} {
		t.Run(name, func(t *testing.T) {
			details := "[" + c.details + "]"
			if c.effect == "modify" {
				details = `{"roleDefinitionIds":["r"],"operations":` + details + `}`
			}
			r := rule(t, `{"policyRule":{"if":{"field":"type","like":"*"},"then":{"effect":"`+c.effect+`","details":`+details+`}}}`, nil)
			got := doc(t, account)
			changes, err := r.Changes(&policy.Input{Resource: doc(t, account), Now: time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			changed := false
			for _, ch := range changes {
				did, err2 := ch.Make(got)
				changed = changed || did
				if err2 != nil {
					err = err2
				}
			}
			if c.want == "error" {
				if err == nil || !reflect.DeepEqual(got, doc(t, account)) {
					t.Errorf("%v, %v; want an error and no change", err, got)
				}
				return
			}
			want := doc(t, account)
			merge(want, doc(t, c.want))
			if err != nil || !reflect.DeepEqual(got, want) || changed != (c.want != "{}") {
				t.Errorf("%v, changed %v\n got %v\nwant %v", err, changed, got, want)
			}
		})
	}
}

// merge puts one document over another; null takes away.
func merge(into, over map[string]any) {
	for k, v := range over {
		m, is := v.(map[string]any)
		at, has := into[k].(map[string]any)
		switch {
		case v == nil:
			delete(into, k)
		case is && has:
			merge(at, m)
		default:
			into[k] = v
		}
	}
}

// What names a resource no policy changes.
func TestNoPolicyRenames(t *testing.T) {
	for _, field := range []string{"id", "name", "type", "location", "Microsoft.Storage/storageAccounts/primaryEndpoints.blob"} {
		_, err := policy.ParseRule([]byte(`{"policyRule":{"if":{"field":"type","like":"*"},"then":{"effect":"modify","details":{"roleDefinitionIds":["r"],"operations":[{"operation":"addOrReplace","field":"` + field + `","value":"x"}]}}}}`))
		if err == nil {
			t.Errorf("a definition that changes %s was taken", field)
		}
	}
	// By a parameter the name comes to light later, and is refused all the same.
	r := rule(t, `{"parameters":{"f":{"type":"String"}},"policyRule":{"if":{"field":"type","like":"*"},"then":{"effect":"modify","details":{"roleDefinitionIds":["r"],"operations":[{"operation":"addOrReplace","field":"[parameters('f')]","value":"x"}]}}}}`, map[string]any{"f": "name"})
	if c, err := r.Changes(&policy.Input{Resource: doc(t, account)}); err == nil {
		t.Errorf("a rule makes %v", c)
	}
}

// Wrong definitions are refused, and the error says where and what is allowed.
func TestWrongDefinitions(t *testing.T) {
	ok := `{"field":"name","equals":"x"}`
	for def, says := range map[string]string{
		`{}`:                               "policyRule",
		`{"policyRule":{"if":` + ok + `}}`: "then",
		`{"policyRule":{"if":` + ok + `,"then":{"effect":"explode"}}}`:                                                        "auditIfNotExists",
		`{"policyRule":{"if":` + ok + `,"then":{"effect":"addToNetworkGroup"}}}`:                                              "addToNetworkGroup",
		`{"policyRule":{"if":` + ok + `,"then":{"effect":"[field('kind')]"}}}`:                                                "without a resource",
		`{"policyRule":{"if":` + ok + `,"then":{"effect":"deny"},"else":{}}}`:                                                 "else",
		`{"mode":"Some.Data","policyRule":{"if":` + ok + `,"then":{"effect":"deny"}}}`:                                        "Microsoft.MachineLearningServices.v2.Data",
		`{"policyRule":{"if":{"field":"name"},"then":{"effect":"deny"}}}`:                                                     "exactly one",
		`{"policyRule":{"if":{"field":"name","value":"x","equals":"y"},"then":{"effect":"deny"}}}`:                            "exactly one",
		`{"policyRule":{"if":{"field":"name","resembles":"y"},"then":{"effect":"deny"}}}`:                                     "resembles",
		`{"policyRule":{"if":{"field":"name","equals":"x","like":"y"},"then":{"effect":"deny"}}}`:                             "side by side",
		`{"policyRule":{"if":{"allOf":[],"anyOf":[]},"then":{"effect":"deny"}}}`:                                              "beside",
		`{"policyRule":{"if":{"field":"name","in":"x"},"then":{"effect":"deny"}}}`:                                            "an array",
		`{"policyRule":{"if":{"field":"a..b","equals":"x"},"then":{"effect":"deny"}}}`:                                        "empty name",
		`{"policyRule":{"if":{"count":{"field":"a.b"},"equals":1},"then":{"effect":"deny"}}}`:                                 "[*]",
		`{"policyRule":{"if":{"value":"[reference('x')]","equals":1},"then":{"effect":"deny"}}}`:                              "reference",
		`{"policyRule":{"if":{"value":"[concat('x']","equals":1},"then":{"effect":"deny"}}}`:                                  "policyRule.if",
		`{"policyRule":{"if":{"value":"[parameters('p')]","equals":1},"then":{"effect":"deny"}}}`:                             "p",
		`{"parameters":{"p":{"type":"Text"}},"policyRule":{"if":` + ok + `,"then":{"effect":"deny"}}}`:                        "String",
		`{"parameters":{"p":{"type":"Integer","defaultValue":"x"}},"policyRule":{"if":` + ok + `}}`:                           "Integer",
		`{"policyRule":{"if":` + ok + `,"then":{"effect":"denyAction","details":{"actionNames":["read"]}}}}`:                  "delete",
		`{"policyRule":{"if":` + ok + `,"then":{"effect":"deny"}},"policyrule":{}}`:                                           "",
		`{"policyRule":{"if":` + strings.Repeat(`{"not":`, 40) + ok + strings.Repeat("}", 40) + `,"then":{"effect":"deny"}}}`: "deep",
	} {
		_, err := policy.ParseRule([]byte(def))
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s\ngives %v, which should say %q", def, err, says)
		}
	}
}

// A rule that is made to take for ever comes to an end, and its end is no "no".
func TestRulesEnd(t *testing.T) {
	big := make([]any, 2000)
	for i := range big {
		big[i] = map[string]any{"v": int64(i)}
	}
	res := map[string]any{"type": "x/y", "properties": map[string]any{"a": big}}
	for name, cond := range map[string]string{
		"counts in counts": `{"count":{"field":"properties.a[*]","where":{"count":{"value":"[range(0,2000)]","name":"b","where":{"value":"[current('b')]","equals":"[current('properties.a[*].v')]"}},"greater":0}},"greater":0}`,
		"long text":        `{"value":"[length(concat(string(field('properties.a[*]')),string(field('properties.a[*]'))))]","less":0}`,
	} {
		r := rule(t, `{"policyRule":{"if":`+cond+`,"then":{"effect":"deny"}}}`, nil)
		yes, err := r.Applies(&policy.Input{Resource: res})
		if name == "counts in counts" && err == nil {
			t.Errorf("%s: %v; it should be stopped", name, yes)
		}
	}
}

// A rule says for which types it is, so that it costs nothing for others.
func TestTypesOfRules(t *testing.T) {
	for cond, want := range map[string]string{
		`{"field":"type","equals":"A.B/c"}`:       "[a.b/c]",
		`{"field":"type","in":["A/b","C/d"]}`:     "[a/b c/d]",
		`{"field":"type","notEquals":"A/b"}`:      "any",
		`{"not":{"field":"type","equals":"A/b"}}`: "any",
		`{"allOf":[{"field":"name","equals":"x"},{"field":"type","in":["A/b","C/d"]},{"field":"type","equals":"c/D"}]}`: "[c/d]",
		`{"anyOf":[{"field":"type","equals":"A/b"},{"field":"type","equals":"C/d"}]}`:                                   "[a/b c/d]",
		`{"anyOf":[{"field":"type","equals":"A/b"},{"field":"name","equals":"x"}]}`:                                     "any",
	} {
		r := rule(t, `{"policyRule":{"if":`+cond+`,"then":{"effect":"deny"}}}`, nil)
		got := "any"
		if r.Types != nil {
			got = fmt.Sprint(r.Types)
		}
		if got != want {
			t.Errorf("%s is for %s, want %s", cond, got, want)
		}
	}
}

// Parameters: given, defaults, and what is refused.
func TestParameters(t *testing.T) {
	d, err := policy.ParseRule([]byte(`{"parameters":{"Names":{"type":"Array","allowedValues":["a","b"]},"effect":{"type":"String","defaultValue":"Audit","allowedValues":["Audit","Deny"]}},
		"policyRule":{"if":{"field":"name","in":"[parameters('names')]"},"then":{"effect":"[parameters('effect')]"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := d.Bind(map[string]any{"names": []any{"A"}, "EFFECT": "deny"}); err != nil || r.Effect != policy.Deny {
		t.Errorf("%v, %v", r, err)
	}
	for _, given := range []map[string]any{
		{}, {"names": "a"}, {"names": []any{"c"}}, {"names": []any{"a"}, "effect": "Modify"}, {"names": []any{"a"}, "other": true},
	} {
		if _, err := d.Bind(given); err == nil {
			t.Errorf("%v was taken", given)
		}
	}
}

// Text is compared as strings.EqualFold or strings.ToLower see it, whatever letters
// it has; a rule's quick way and its slow one agree.
func TestTextIsComparedOneWay(t *testing.T) {
	parts := []string{"", "a", "A", "k", "K", "\u212a", "s", "ſ", "i", "İ", "ı", "@", "`", "[", "{", "é", "É", "\xff", "1", "*"}
	holds := func(op, want, got string) bool {
		t.Helper()
		return applies(t, fmt.Sprintf(`{"field":"properties.x","%s":%s}`, op, want), got)
	}
	n := 0
	for _, a := range parts {
		for _, b := range parts {
			x, y := a+"b"+b, b+"B"+a
			if !utf8.ValidString(x) {
				continue
			}
			want, err := json.Marshal(y)
			if err != nil {
				t.Fatal(err)
			}
			low, lower := strings.ToLower(x), strings.ToLower(y)
			same := strings.EqualFold(x, y) || low == lower
			for op, ok := range map[string]bool{"equals": same, "notEquals": !same} {
				if got := holds(op, string(want), x); got != ok {
					t.Errorf("%q %s %q = %v", x, op, y, got)
				}
				n++
			}
			for op, ok := range map[string]bool{"in": same, "notIn": !same} {
				if got := holds(op, `["other",`+string(want)+`]`, x); got != ok {
					t.Errorf("%q %s %q = %v", x, op, y, got)
				}
				// A list with a number in it goes the slow way.
				if got := holds(op, `[7,`+string(want)+`]`, x); got != ok {
					t.Errorf("%q %s 7 and %q = %v", x, op, y, got)
				}
			}
		}
	}
	if n < 100 {
		t.Errorf("only %d comparisons", n)
	}
}

func applies(t *testing.T, cond, x string) bool {
	t.Helper()
	ok, err := rule(t, `{"policyRule":{"if":`+cond+`,"then":{"effect":"deny"}}}`, nil).Applies(&policy.Input{Resource: map[string]any{"type": "a/b", "properties": map[string]any{"x": x}}})
	if err != nil {
		t.Fatal(err)
	}
	return ok
}
