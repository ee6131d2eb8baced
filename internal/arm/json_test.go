package arm

import (
	"strings"
	"testing"
)

type doc struct {
	Access string `json:"publicNetworkAccess" arm:"only=Enabled"`
	Days   int    `json:"days"`
	State  string `json:"provisioningState" arm:"readonly"`
	Inner  []struct {
		Name string `json:"name"`
	} `json:"inner"`
	Free map[string]any `json:"free"`
}

// What two readers could take for two things is refused (ARM-05, ARM-06, ARM-07).
func TestParseJSONRefuses(t *testing.T) {
	for name, in := range map[string]string{
		"two documents":      `{}{}`,
		"a key twice":        `{"a":1,"a":2}`,
		"a key in two cases": `{"publicNetworkAccess":"Disabled","PublicNetworkAccess":"Enabled"}`,
		"nested twice":       `{"x":[{"a":1,"A":2}]}`,
		"too deep":           strings.Repeat("[", 20000) + strings.Repeat("]", 20000),
		"a huge number":      `{"a":1e400}`,
		"a byte order mark":  "\xef\xbb\xbf{}",
		"UTF-16":             "{\x00}\x00",
		"not UTF-8":          "{\"a\":\"\xff\"}",
		"NUL":                "{}\x00",
		"nothing":            ``,
		"half":               `{"a":`,
		"a trailing comma":   `{"a":1,}`,
	} {
		if v, err := ParseJSON([]byte(in)); CodeOf(err) != InvalidRequest {
			t.Errorf("%s: %v, %v", name, v, err)
		}
	}
}

func TestDecode(t *testing.T) {
	var d doc
	err := Decode([]byte(`{"PUBLICnetworkAccess":"enabled","provisioningState":"Hacked","inner":[{"NAME":"n"}],"free":{"Any":{"x":1}},"days":null}`), &d)
	if err != nil || d.Access != "enabled" || d.State != "" || d.Inner[0].Name != "n" || d.Free["Any"] == nil {
		t.Errorf("Decode = %+v, %v", d, err)
	}
	for in, want := range map[string]string{
		`{"publicNetworkAcceſſ":"Enabled"}`:  "not supported",
		`{"inner":[{"nope":1}]}`:             "inner[].nope",
		`{"publicNetworkAccess":"Disabled"}`: "supported: Enabled",
		`{"days":"seven"}`:                   "days",
		`{"inner":{"name":"an object"}}`:     "inner",
		`[]`:                                 "must be",
	} {
		if err := Decode([]byte(in), &d); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Decode(%s) = %v, want it to say %q", in, err, want)
		}
	}
}

// No input makes the parser fall over, and what it takes it takes again.
func FuzzParseJSON(f *testing.F) {
	f.Add([]byte(`{"a":[1,{"b":null}],"c":"ſ"}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var d doc
		_ = Decode(in, &d) // only that it returns
	})
}
