package template

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"castellan/internal/arm"
)

func scope() Scope {
	return Scope{
		Tenant: "tenant", Subscription: "sub", SubscriptionName: "home", Group: "rg", GroupLocation: "local", Deployment: "dep", Seed: "seed",
		Now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Environment: map[string]any{"suffixes": map[string]any{"storage": "core.test"}},
	}
}

func load(t *testing.T, text, params string) (*Deployment, error) {
	t.Helper()
	tree, err := Read([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	p, err := Read([]byte(params))
	if err != nil {
		t.Fatal(err)
	}
	return New(tree, p.(map[string]any), scope())
}

func must(t *testing.T, text, params string) *Deployment {
	t.Helper()
	d, err := load(t, text, params)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// results evaluates one expression as an output.
func results(t *testing.T, expr string) (any, error) {
	t.Helper()
	b, err := json.Marshal(expr)
	if err != nil {
		t.Fatal(err)
	}
	d := must(t, `{"parameters":{"name":{"type":"string"},"list":{"type":"array"},"obj":{"type":"object"},"n":{"type":"int","defaultValue":7}},
		"variables":{"greet":"[concat('hello ', parameters('name'))]","loop":"[variables('loop')]","copy":[{"name":"squares","count":3,"input":"[mul(copyIndex('squares'), copyIndex('squares'))]"}]},
		"functions":[{"namespace":"my","members":{"twice":{"parameters":[{"name":"s","type":"string"}],"output":{"type":"string","value":"[concat(parameters('s'), parameters('s'))]"}}}}]}`,
		`{"name":{"value":"ann"},"list":{"value":[1,2,3]},"obj":{"value":{"a":{"B":"c"},"text":"[not(1)]"}}}`)
	tree, err := Read([]byte(`{"v":` + string(b) + `}`))
	if err != nil {
		t.Fatal(err)
	}
	v, err := env{d: d}.value(tree, "test")
	if err != nil {
		return nil, err
	}
	return v.(map[string]any)["v"], nil
}

// Expressions mean what Azure documents.
func TestExpressions(t *testing.T) {
	for expr, want := range map[string]string{
		"plain": `"plain"`, "[[literal]": `"[literal]"`, "[not closed": `"[not closed"`, "": `""`,
		"[parameters('name')]": `"ann"`, "[PARAMETERS('NAME')]": `"ann"`, "[variables('greet')]": `"hello ann"`, "[variables('squares')]": `[0,1,4]`,
		"[parameters('obj').a.b]": `"c"`, "[parameters('obj')['A']['b']]": `"c"`, "[parameters('list')[add(0, 1)]]": `2`, "[parameters('obj').text]": `"[not(1)]"`,
		"[my.twice('ab')]": `"abab"`, "['it''s']": `"it's"`, "[ concat ( 'a' , 'b' ) ]": `"ab"`, "[concat(createArray(1), createArray('x'))]": `[1,"x"]`, "[concat('n', 5, true())]": `"n5True"`,
		"[format('{0}-{1}-{0}', 'a', 2)]": `"a-2-a"`, "[format('{{{0}}}', 1)]": `"{1}"`, "[format('{0:D3}{1:00}', 7, 8)]": `"00708"`,
		"[resourceId('A.B/cs', 'x')]":                             `"/subscriptions/sub/resourceGroups/rg/providers/A.B/cs/x"`,
		"[resourceId('g2', 'A.B/cs/ds', 'x', 'y')]":               `"/subscriptions/sub/resourceGroups/g2/providers/A.B/cs/x/ds/y"`,
		"[resourceId('s2', 'g2', 'A.B/cs', 'x')]":                 `"/subscriptions/s2/resourceGroups/g2/providers/A.B/cs/x"`,
		"[subscriptionResourceId('A.B/cs', 'x')]":                 `"/subscriptions/sub/providers/A.B/cs/x"`,
		"[extensionResourceId(resourceGroup().id, 'C.D/e', 'f')]": `"/subscriptions/sub/resourceGroups/rg/providers/C.D/e/f"`,
		"[subscription().tenantId]":                               `"tenant"`, "[resourceGroup().location]": `"local"`, "[deployment().name]": `"dep"`, "[tenant().tenantId]": `"tenant"`, "[environment().suffixes.storage]": `"core.test"`,
		"[if(true(), 'a', variables('nope'))]": `"a"`, "[if(equals(1, 1), 1, 2)]": `1`, "[and(false(), variables('nope'))]": `false`, "[or(true(), variables('nope'))]": `true`, "[not(false())]": `true`,
		"[equals('a', 'A')]": `false`, "[equals(1, '1')]": `false`, "[equals(createArray(1, 2), parameters('list'))]": `false`, "[equals(createObject('a', 1), createObject('a', 1))]": `true`, "[equals(null(), null())]": `true`,
		"[greater(2, 1)]": `true`, "[less('a', 'b')]": `true`, "[greaterOrEquals(1, 1)]": `true`, "[lessOrEquals(2, 1)]": `false`,
		"[json('null')]": `null`, "[json('{\"a\":[1,2.5]}').a[1]]": `2.5`, "[json('{\"a\":[1]}').a[0]]": `1`,
		"[toLower('AbC')]": `"abc"`, "[toUpper('ab')]": `"AB"`, "[trim(' a ')]": `"a"`, "[substring('hello', 1, 3)]": `"ell"`, "[substring('hello', 5)]": `""`, "[replace('a-b-c', '-', '')]": `"abc"`, "[split('a;b,c', createArray(';', ','))]": `["a","b","c"]`, "[split('a/b', '/')[1]]": `"b"`, "[string(createObject('a', 1))]": `"{\"a\":1}"`, "[string(true())]": `"True"`, "[padLeft('7', 3, '0')]": `"007"`, "[startsWith('Hello', 'he')]": `true`, "[endsWith('Hello', 'LO')]": `true`, "[indexOf('hello', 'L')]": `2`, "[lastIndexOf('hello', 'l')]": `3`, "[uri('http://x/a/', 'b')]": `"http://x/a/b"`, "[uri('http://x/a', 'b')]": `"http://x/b"`, "[uriComponent('a b/ü')]": `"a%20b%2F%C3%BC"`, "[base64('hi')]": `"aGk="`, "[base64ToString('aGk=')]": `"hi"`,
		"[int('12')]": `12`, "[bool('True')]": `true`, "[bool(0)]": `false`, "[coalesce(null(), json('null'), 3)]": `3`, "[add(1, -2)]": `-1`, "[sub(1, 2)]": `-1`, "[mul(3, 4)]": `12`, "[div(7, 2)]": `3`, "[mod(7, 3)]": `1`, "[min(3, 1, 2)]": `1`, "[max(parameters('list'))]": `3`,
		"[union(createArray(1, 2), createArray(2, 3))]": `[1,2,3]`, "[union(createObject('a', createObject('x', 1)), createObject('A', createObject('y', 2), 'b', 3))]": `{"a":{"x":1,"y":2},"b":3}`, "[intersection(createArray(1, 2), createArray(2, 3))]": `[2]`, "[contains('hello', 'ell')]": `true`, "[contains(parameters('list'), 2)]": `true`, "[contains(parameters('obj'), 'TEXT')]": `true`, "[empty('')]": `true`, "[empty(createObject())]": `true`, "[empty(null())]": `true`, "[length(parameters('list'))]": `3`, "[first('abc')]": `"a"`, "[last(parameters('list'))]": `3`, "[first(createArray())]": `null`, "[join(createArray('a', 'b'), ', ')]": `"a, b"`, "[range(2, 3)]": `[2,3,4]`, "[take(parameters('list'), 2)]": `[1,2]`, "[skip('hello', 3)]": `"lo"`, "[take('hi', 9)]": `"hi"`, "[skip(parameters('list'), -1)]": `[1,2,3]`, "[array('a')]": `["a"]`, "[flatten(createArray(createArray(1), createArray(2)))]": `[1,2]`, "[items(createObject('b', 1, 'a', 2))]": `[{"key":"a","value":2},{"key":"b","value":1}]`,
		"[guid('a', 'b')]": `"` + nameID("a-b") + `"`, "[parameters('n')]": `7`,
	} {
		v, err := results(t, expr)
		if err != nil {
			t.Errorf("%s: %v", expr, err)
			continue
		}
		if b, _ := json.Marshal(v); string(b) != want {
			t.Errorf("%s = %s, want %s", expr, b, want)
		}
	}
}

// What is no expression, or asks for what is not there, is refused with the
// place, and without any value.
func TestBadExpressions(t *testing.T) {
	deep := strings.Repeat("not(", 200) + "true()" + strings.Repeat(")", 200)
	for _, expr := range []string{
		"[]", "[concat(]", "[concat('a']", "['a]", "[concat('a',)]", "[a b]", "[parameters]", "[parameters(name)]", "[parameters('ann').]", "[1.5]", "[true]", "[concat('a') 'b']", "[99999999999999999999]", "[" + deep + "]",
		"[nosuch('a')]", "[my.nosuch('a')]", "[my.twice()]", "[parameters('nosuch')]", "[variables('nosuch')]", "[variables('loop')]", "[parameters('obj').nosuch]", "[parameters('list')[3]]", "[parameters('list')['a']]", "[parameters('name')[0]]",
		"[concat()]", "[toLower(1)]", "[toLower('a', 'b')]", "[if('x', 1, 2)]", "[int('x')]", "[bool('perhaps')]", "[div(1, 0)]", "[mul(9223372036854775807, 2)]", "[add(9223372036854775807, 1)]", "[substring('abc', 2, 2)]", "[substring('abc', -1)]", "[format('{1}', 'a')]", "[format('{0', 'a')]", "[format('{0:X}', 1)]", "[resourceId('x')]", "[resourceId('A.B/cs', 'x', 'y')]", "[resourceId('A.B/cs', '..')]", "[resourceId('A.B/cs', 'a/b')]", "[resourceId('A.B/cs', '%2e')]", "[json('{')]", "[base64ToString('***')]", "[newGuid()]", "[utcNow()]", "[copyIndex()]", "[range(0, 100000000)]", "[uri('x', 'y')]", "[listKeys('a', 'b')]", "[min(createArray())]",
	} {
		v, err := results(t, expr)
		if err == nil {
			t.Errorf("%.80s = %v, want an error", expr, v)
			continue
		}
		if arm.CodeOf(err) != InvalidTemplate {
			t.Errorf("%.80s: %v", expr, err)
		}
		if !strings.Contains(err.Error(), "test.v") && !strings.Contains(err.Error(), "variables.") {
			t.Errorf("%.80s: the error does not name the place: %v", expr, err)
		}
	}
}

// A small template cannot make the machine work without an end.
func TestBombs(t *testing.T) {
	doubling := func(f string) string {
		vars := []string{`"v0":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"`}
		for i := 1; i < 60; i++ {
			vars = append(vars, fmt.Sprintf(`"v%d":"[%s(variables('v%d'), variables('v%d'))]"`, i, f, i-1, i-1))
		}
		return strings.Join(vars, ",")
	}
	for name, text := range map[string]string{
		"strings that double":          `{"variables":{` + doubling("concat") + `},"outputs":{"o":{"type":"string","value":"[variables('v59')]"}}}`,
		"arrays that double":           `{"variables":{` + doubling("createArray") + `},"outputs":{"o":{"type":"array","value":"[variables('v59')]"}}}`,
		"as text":                      `{"variables":{` + doubling("createArray") + `},"outputs":{"o":{"type":"string","value":"[string(variables('v59'))]"}}}`,
		"compared":                     `{"variables":{` + doubling("createArray") + `},"outputs":{"o":{"type":"bool","value":"[equals(variables('v59'), createArray(variables('v58'), variables('v58')))]"}}}`,
		"loops in loops":               `{"variables":{"copy":[{"name":"a","count":800,"input":{"copy":[{"name":"b","count":800,"input":{"copy":[{"name":"c","count":800,"input":"x"}]}}]}}]},"outputs":{"o":{"type":"array","value":"[variables('a')]"}}}`,
		"a function that calls itself": `{"functions":[{"namespace":"f","members":{"g":{"parameters":[],"output":{"type":"string","value":"[f.g()]"}}}}],"outputs":{"o":{"type":"string","value":"[f.g()]"}}}`,
		"resources":                    `{"resources":[{"type":"A.B/c","apiVersion":"2020-01-01","name":"[string(copyIndex())]","copy":{"name":"l","count":801}}]}`,
	} {
		d, err := load(t, text, "{}")
		if err == nil {
			if _, err = d.Plan(); err == nil {
				_, err = d.Outputs()
			}
		}
		if err == nil {
			t.Errorf("%s came to an end of its own", name)
		}
	}
}

// Parameters are held against what the template says of them.
func TestParameters(t *testing.T) {
	const text = `{"parameters":{"s":{"type":"string","allowedValues":["Dev","Prod"],"defaultValue":"Dev"},"n":{"type":"int","minValue":1,"maxValue":3,"defaultValue":2},"l":{"type":"array","maxLength":2,"defaultValue":[]},
		"k":{"type":"secureString","minLength":4},"d":{"type":"string","defaultValue":"[concat(parameters('s'), newGuid(), utcNow('yyyy'))]"},"o":{"type":"object","nullable":true}}}`
	for params, ok := range map[string]bool{
		`{"k":{"value":"hunter2"}}`: true, `{"K":{"value":"hunter2"},"s":{"value":"prod"}}`: true, `{"k":{"value":"hunter2"},"s":{"value":null}}`: true, `{"k":{"value":"hunter2"},"s":null}`: true,
		`{}`: false, `{"k":{"value":null}}`: false, `{"k":{"value":"abc"}}`: false, `{"k":{"value":5}}`: false, `{"k":{"value":"hunter2"},"n":{"value":4}}`: false, `{"k":{"value":"hunter2"},"n":{"value":"2"}}`: false, `{"k":{"value":"hunter2"},"n":{"value":1.5}}`: false,
		`{"k":{"value":"hunter2"},"s":{"value":"Test"}}`: false, `{"k":{"value":"hunter2"},"l":{"value":[1,2,3]}}`: false, `{"k":{"value":"hunter2"},"x":{"value":1}}`: false, `{"k":"hunter2"}`: false, `{"k":{"reference":{"keyVault":{"id":"x"},"secretName":"y"}}}`: false,
	} {
		_, err := load(t, text, params)
		if (err == nil) != ok || err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want ok %v", params, err, ok)
		}
	}
	a, b := must(t, text, `{"k":{"value":"hunter2"}}`), must(t, text, `{"k":{"value":"hunter2"}}`)
	shown, _ := json.Marshal(a.Parameters())
	again, _ := json.Marshal(b.Parameters())
	if strings.Contains(string(shown), "hunter2") || string(shown) != string(again) || !strings.Contains(string(shown), "2026") {
		t.Errorf("the parameters show as %s and %s", shown, again)
	}
	if s := a.Secrets(); len(s) != 1 || s[0] != "hunter2" {
		t.Errorf("Secrets = %v", s)
	}
}

// Azure's promise about uniqueString: 13 letters and digits, the same for the
// same arguments and else another.
func TestUniqueString(t *testing.T) {
	seen := map[string]string{}
	for _, expr := range []string{"[uniqueString('a')]", "[uniqueString('b')]", "[uniqueString('a', 'b')]", "[uniqueString('ab')]", "[uniqueString('a', 'B')]"} {
		v, err := results(t, expr)
		again, _ := results(t, expr)
		s, ok := v.(string)
		if err != nil || !ok || v != again || len(s) != 13 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz234567") != "" || seen[s] != "" {
			t.Errorf("%s = %v (%v), again %v", expr, v, err, again)
		}
		seen[s] = expr
	}
}

// The freedoms of template files are taken, ambiguity is not.
func TestRead(t *testing.T) {
	for text, want := range map[string]string{
		"{\"properties\": {\"mode\": \"Incremental\", template:{\r\n // a comment\r\n \"a\": /* more */ [1, 2,], 'b': 'x\ny',}}}": `{"properties":{"mode":"Incremental","template":{"a":[1,2],"b":"x\ny"}}}`,
		`{"a":"A😀\n"}`: `{"a":"A😀\n"}`, `[true,false,null,-1.5e3]`: `[true,false,null,-1.5e3]`, "\uFEFF{}": `{}`,
	} {
		v, err := Read([]byte(text))
		b, _ := json.Marshal(v)
		if err != nil || string(b) != want {
			t.Errorf("%q = %s, %v; want %s", text, b, err, want)
		}
	}
	for _, text := range []string{"", "{", "{}{}", `{"a":1,"A":2}`, `{"a" 1}`, `{"a":}`, `{a b:1}`, `[1 2]`, `{"a":01}`, `{"a":1e999}`, `"x`, `"\x"`, `"\ud800"`, "/* no end", "nil", `{"a":1}x`, "\xff", strings.Repeat("[", 5000), `{,}`, `{"a":+1}`, `{"a":NaN}`} {
		if v, err := Read([]byte(text)); err == nil {
			t.Errorf("%.40q = %v, want an error", text, v)
		}
	}
}

// The quickstart templates that Azure publishes for machine learning are read,
// and everything in them that does not depend on deployed resources works out.
func TestQuickstarts(t *testing.T) {
	files, _ := filepath.Glob("../../../shared/data/quickstarts-ml/*/azuredeploy.json")
	more, _ := filepath.Glob("../../../shared/data/quickstarts-ml/*/prereqs/*.azuredeploy.json")
	if files = append(files, more...); len(files) == 0 {
		t.Skip("shared/data is absent, so the quickstart templates are not held against")
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		tree, err := Read(b)
		if err != nil {
			t.Errorf("%s: %v", f, err)
			continue
		}
		d, err := New(tree, sample(tree), scope())
		if err != nil {
			t.Errorf("%s: %v", f, err)
			continue
		}
		plan, err := d.Plan()
		if err != nil || len(plan) == 0 {
			t.Errorf("%s: %d resources, %v", f, len(plan), err)
			continue
		}
		for _, r := range plan {
			if _, err := r.Body(); err != nil && !Later(err) {
				t.Errorf("%s: %s: %v", f, r.ID, err)
			}
		}
		for v := range d.vars {
			if _, err := d.variable(v); err != nil && !Later(err) {
				t.Errorf("%s: variable %s: %v", f, v, err)
			}
		}
	}
}

// sample is a value for every parameter without a default.
func sample(tree any) map[string]any {
	out := map[string]any{}
	params, _ := get(tree.(map[string]any), "parameters").(map[string]any)
	for k, p := range params {
		def := p.(map[string]any)
		if _, ok := lookup(def, "defaultValue"); ok {
			continue
		}
		var v any
		switch strings.ToLower(get(def, "type").(string)) {
		case "int":
			v = json.Number("1")
		case "bool":
			v = false
		case "array":
			v = []any{}
		case "object", "secureobject":
			v = map[string]any{}
		default:
			v = "abcd1234"
		}
		if a, ok := get(def, "allowedValues").([]any); ok {
			v = a[0]
		}
		out[k] = map[string]any{"value": v}
	}
	return out
}
