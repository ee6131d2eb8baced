package scim

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"castellan/internal/arm"
)

func tree(t *testing.T, s string) any {
	t.Helper()
	v, err := arm.ParseJSON([]byte(s))
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return v
}

func shown(v any) string { b, _ := json.Marshal(v); return string(b) }

const person = `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"userName":"Ann","externalId":"E1","active":true,"name":{"givenName":"Ann","familyName":"Lee"},
	"emails":[{"value":"a@x.example","type":"work","primary":true},{"value":"b@x.example","type":"home"}]}`

// A resource is read by its schema: names in any letter case, what the platform
// alone says left out, everything else refused by name.
func TestRead(t *testing.T) {
	const urn = `"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],`
	for _, c := range []struct{ name, body, want, code string }{
		{"odd case", `{"SCHEMAS":["URN:ietf:params:scim:schemas:core:2.0:User"],"USERNAME":"a"}`, `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"userName":"a"}`, ""},
		{"an id of the client's", `{` + urn + `"userName":"a","id":"mine","meta":{"version":"1"},"groups":[{"value":"g"}]}`, `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"userName":"a"}`, ""},
		{"Entra's booleans and manager", `{` + urn + `"userName":"a","active":"False","` + EnterpriseURN + `":{"manager":"m"}}`, `{"active":false,"schemas":["urn:ietf:params:scim:schemas:core:2.0:User","` + EnterpriseURN + `"],"` + EnterpriseURN + `":{"manager":{"value":"m"}},"userName":"a"}`, ""},
		{"a password", `{` + urn + `"userName":"a","Password":"x"}`, "", "invalidValue"},
		{"no schema", `{"userName":"a"}`, "", "invalidValue"},
		{"another schema", `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User","urn:x"],"userName":"a"}`, "", "invalidValue"},
		{"no name", `{` + urn + `"userName":""}`, "", "invalidValue"},
		{"an unknown attribute", `{` + urn + `"userName":"a","roles":["admin"]}`, "", "invalidSyntax"},
		{"an object for text", `{` + urn + `"userName":{"a":1}}`, "", "invalidValue"},
		{"a number for text", `{` + urn + `"userName":1}`, "", "invalidValue"},
		{"two primaries", `{` + urn + `"userName":"a","emails":[{"value":"a","primary":true},{"value":"b","primary":true}]}`, "", "invalidValue"},
		{"long text", `{` + urn + `"userName":"` + strings.Repeat("a", 5000) + `"}`, "", "invalidValue"},
		{"no object", `[]`, "", "invalidSyntax"},
	} {
		got, err := Users.Read(tree(t, c.body))
		if code, _ := codeOf(err); err != nil && string(code) != c.code || err == nil && shown(got) != c.want {
			t.Errorf("%s: Read = %s, %v; want %s %s", c.name, shown(got), err, c.want, c.code)
		}
	}
}

func TestFilter(t *testing.T) {
	m, err := Users.Read(tree(t, person))
	if err != nil {
		t.Fatal(err)
	}
	m["id"], m["meta"] = "I1", map[string]any{"created": "2026-01-02T03:04:05Z"}
	for f, want := range map[string]bool{
		`userName eq "ann"`: true, `USERNAME EQ "ANN"`: true, `externalId eq "e1"`: false, `externalId eq "E1"`: true, `id eq "I1"`: true,
		`userName ne "bob"`: true, `userName sw "a" and userName ew "n"`: true, `not (userName co "n")`: false, `title pr`: false, `emails pr`: true,
		`emails eq "B@x.example"`: true, `emails.type eq "home"`: true, `emails[type eq "home" and value co "a@"]`: false, `emails[type eq "work" and value co "a@"]`: true,
		`active eq true`: true, `active eq "False"`: false, `title eq null`: true, `title ne "x"`: true, `name.familyName gt "kay"`: true,
		`urn:ietf:params:scim:schemas:core:2.0:User:userName eq "ann"`: true, EnterpriseURN + `:department pr`: false,
		`meta.created gt "2026-01-01T00:00:00+01:00"`: true, `userName eq "a\"b"`: false, `userName eq "x" or (userName eq "ann" and active eq true)`: true,
	} {
		test, err := Users.Filter(f)
		if err != nil {
			t.Errorf("Filter(%s): %v", f, err)
		} else if test(m) != want {
			t.Errorf("Filter(%s) = %v, want %v", f, !want, want)
		}
	}
}

// What can't be understood is refused and never taken for everything, and
// within a blink (filter bombs).
func TestFilterRefuses(t *testing.T) {
	for _, f := range []string{
		"x", `password eq "x"`, `userName like "x"`, `active gt true`, `active eq "maybe"`, `name eq "x"`, `userName eq 5`, `userName eq "x" or`, `emails[foo eq "x"]`,
		`userName[value eq "x"]`, `meta.created gt "yesterday"`, `urn:x:userName eq "a"`, `userName gt null`, `userName eq "a" userName eq "b"`, " ",
		strings.Repeat("(", 2000), strings.Repeat("not (", 8) + `userName eq "x"`, strings.Repeat(`userName eq "x" or `, 5000) + `userName eq "x"`,
		"((((((((" + strings.Repeat("a", 1900), strings.Repeat("emails[", 8), strings.Repeat("a.", 900), strings.Repeat("urn:", 500), strings.Repeat(" ", 2000), "(\x00", "\xff\xfe",
	} {
		start := time.Now()
		test, err := Users.Filter(f)
		if code, _ := codeOf(err); test != nil || err == nil || code != InvalidFilter {
			t.Errorf("Filter(%.60q) = %v, want it refused as invalidFilter", f, err)
		}
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("Filter(%.60q) took %v", f, d)
		}
	}
}

// A filter as large as may be is read in a blink.
func TestFilterIsFast(t *testing.T) {
	for _, f := range []string{
		strings.Repeat(`userName eq "x" or `, 100) + `userName eq "x"`,
		strings.Repeat("(", 8) + `userName eq "x"` + strings.Repeat(")", 8),
		strings.Repeat("not (", 8) + `userName eq "x"` + strings.Repeat(")", 8),
	} {
		start := time.Now()
		if _, err := Users.Filter(f); err != nil {
			t.Errorf("Filter(%.60q): %v", f, err)
		}
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("Filter(%.60q) took %v", f, d)
		}
	}
}

// Changes as the RFC, Entra and Okta write them.
func TestPatch(t *testing.T) {
	for _, c := range []struct{ name, ops, want, code string }{
		{"a replace", `{"op":"replace","path":"active","value":false}`, `"active":false`, ""},
		{"Entra disables", `{"op":"Replace","path":"active","value":"False"}`, `"active":false`, ""},
		{"Okta disables", `{"op":"replace","value":{"active":false}}`, `"active":false`, ""},
		{"no path, paths for keys", `{"op":"Add","value":{"name.givenName":"Bea","urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:department":"R"}}`, `"givenName":"Bea"`, ""},
		{"of a complex value the rest stays", `{"op":"replace","path":"name","value":{"givenName":"Bea"}}`, `"name":{"familyName":"Lee","givenName":"Bea"}`, ""},
		{"a value by its type", `{"op":"replace","path":"emails[type eq \"home\"].value","value":"c@x.example"}`, `{"type":"home","value":"c@x.example"}`, ""},
		{"Entra adds a value of a type", `{"op":"Add","path":"phoneNumbers[type eq \"mobile\"].value","value":"1"}`, `"phoneNumbers":[{"type":"mobile","value":"1"}]`, ""},
		{"the new primary is it", `{"op":"add","path":"emails","value":[{"value":"c","primary":true}]}`, `{"primary":false,"type":"work","value":"a@x.example"}`, ""},
		{"twice the same", `{"op":"add","path":"emails","value":{"value":"b@x.example","type":"home"}}`, `{"type":"home","value":"b@x.example"}]`, ""},
		{"a removed value", `{"op":"remove","path":"emails[type eq \"work\"]"}`, `"emails":[{"type":"home","value":"b@x.example"}]`, ""},
		{"an id that is so", `{"op":"replace","value":{"id":"I1","title":"T"}}`, `"title":"T"`, ""},
		{"the manager", `{"op":"Add","path":"urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:manager","value":"M1"}`, `"manager":{"value":"M1"}`, ""},
		{"another id", `{"op":"replace","value":{"id":"I2"}}`, "", "mutability"},
		{"the id by its path", `{"op":"replace","path":"id","value":"I2"}`, "", "mutability"},
		{"a group by the back door", `{"op":"add","path":"groups","value":[{"value":"admins"}]}`, "", "mutability"},
		{"a group inside of it", `{"op":"replace","path":"groups.value","value":"admins"}`, "", "mutability"},
		{"the needed name", `{"op":"remove","path":"userName"}`, "", "mutability"},
		{"no such value", `{"op":"replace","path":"emails[type eq \"other\"].value","value":"c"}`, "", "noTarget"},
		{"no path to remove", `{"op":"remove"}`, "", "noTarget"},
		{"no such attribute", `{"op":"add","path":"shoeSize","value":"9"}`, "", "invalidPath"},
		{"a malformed path", `{"op":"add","path":"emails[","value":"9"}`, "", "invalidPath"},
		{"a password", `{"op":"add","path":"password","value":"9"}`, "", "invalidValue"},
		{"a password without a path", `{"op":"add","value":{"password":"9"}}`, "", "invalidValue"},
		{"one attribute twice", `{"op":"add","value":{"userName":"a","urn:ietf:params:scim:schemas:core:2.0:User:userName":"b"}}`, "", "invalidValue"},
		{"another op", `{"op":"move","path":"active"}`, "", "invalidSyntax"},
		{"all or nothing", `{"op":"replace","path":"active","value":false},{"op":"remove","path":"id"}`, "", "mutability"},
		{"too many", strings.Repeat(`{"op":"replace","path":"active","value":false},`, 1000) + `{"op":"remove","path":"title"}`, "", "invalidSyntax"},
	} {
		m, err := Users.Read(tree(t, person))
		if err != nil {
			t.Fatal(err)
		}
		m["id"] = "I1"
		before := shown(m)
		got, err := Users.Patch(m, tree(t, `{"schemas":["`+PatchURN+`"],"Operations":[`+c.ops+`]}`))
		if code, _ := codeOf(err); err != nil && string(code) != c.code || err == nil && (c.code != "" || !strings.Contains(shown(got), c.want)) {
			t.Errorf("%s: Patch = %s, %v; want %s %s", c.name, shown(got), err, c.want, c.code)
		}
		if shown(m) != before {
			t.Errorf("%s: Patch changed what it was given", c.name)
		}
	}
}

// Members come and go by their ids alone.
func TestPatchMembers(t *testing.T) {
	for ops, want := range map[string]string{
		`{"op":"Add","path":"members","value":[{"$ref":null,"value":"C"},{"value":"a"}]}`: "a b C",
		`{"op":"remove","path":"members[value eq \"A\"]"}`:                                "B",
		`{"op":"Remove","path":"members","value":[{"value":"B"}]}`:                        "A",
		`{"op":"remove","path":"members"}`:                                                "",
		`{"op":"replace","path":"members","value":[{"value":"C"}]}`:                       "C",
		`{"op":"replace","value":{"id":"G1","displayName":"N"}}`:                          "A B",
	} {
		m := map[string]any{"id": "G1", "displayName": "G", "members": []any{map[string]any{"value": "A", "type": "User"}, map[string]any{"value": "B"}}}
		got, err := Groups.Patch(m, tree(t, `{"schemas":["`+PatchURN+`"],"Operations":[`+ops+`]}`))
		if err != nil {
			t.Errorf("%s: %v", ops, err)
			continue
		}
		var ids []string
		list, _ := got["members"].([]any)
		for _, x := range list {
			ids = append(ids, x.(map[string]any)["value"].(string))
		}
		if !strings.EqualFold(strings.Join(ids, " "), want) {
			t.Errorf("%s: members = %v, want %s", ops, ids, want)
		}
	}
}

func TestSelect(t *testing.T) {
	m, err := Users.Read(tree(t, person))
	if err != nil {
		t.Fatal(err)
	}
	m["id"] = "I1"
	for _, c := range []struct{ attributes, excluded, want string }{
		{"userName", "", `{"id":"I1","schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"userName":"Ann"}`},
		{"emails.type, name.givenName", "", `{"emails":[{"type":"work"},{"type":"home"}],"id":"I1","name":{"givenName":"Ann"},"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"]}`},
		{"", "emails,name.familyName,id", `{"active":true,"externalId":"E1","id":"I1","name":{"givenName":"Ann"},"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"userName":"Ann"}`},
	} {
		if got, err := Users.Select(m, c.attributes, c.excluded); err != nil || shown(got) != c.want {
			t.Errorf("Select(%s, %s) = %s, %v; want %s", c.attributes, c.excluded, shown(got), err, c.want)
		}
	}
	if _, err := Users.Select(m, "nope", ""); err == nil {
		t.Error("an attribute that there isn't was selected")
	}
}
