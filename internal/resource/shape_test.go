package resource

import (
	"encoding/json"
	"testing"

	"castellan/internal/arm"
)

// What a version does not have is hidden, refused and kept at whatever depth it lies,
// in whatever case it is spelt, and nothing beside it is.
func TestShapesBelow(t *testing.T) {
	k := &Kind{Since: map[string]string{"a.b": "2024-04-01-preview", "c": "2021-01-01"}}
	was := json.RawMessage(`{"a":{"b":9007199254740993,"x":2},"c":3,"d":4}`)
	for _, c := range []struct{ version, sent, hidden, kept string }{
		{"2024-04-01", `{"A":{"x":5}}`, `{"a":{"x":2},"c":3,"d":4}`, `{"A":{"b":9007199254740993,"x":5}}`},
		{"2020-01-01", `{"d":1}`, `{"a":{"x":2},"d":4}`, `{"c":3,"d":1}`},
		{"2020-01-01", `null`, `{"a":{"x":2},"d":4}`, `{"c":3}`},
		{"2024-04-01-preview", `{"d":1}`, string(was), `{"d":1}`},
		{"", `{"d":1}`, string(was), `{"d":1}`},
	} {
		hidden, err := k.hidden(c.version, was)
		if err != nil || string(hidden) != c.hidden {
			t.Errorf("%s shows %s, %v; want %s", c.version, hidden, err, c.hidden)
		}
		tree, err := arm.ParseJSON([]byte(c.sent))
		if err != nil {
			t.Fatal(err)
		}
		if tree, err = k.shape().kept(c.version, tree, was); err != nil {
			t.Fatal(err)
		}
		if got, err := json.Marshal(tree); err != nil || string(got) != c.kept {
			t.Errorf("%s keeps %s, %v; want %s", c.version, got, err, c.kept)
		}
	}
	for sent, ok := range map[string]bool{`{"a":{"B":1}}`: false, `{"C":null}`: false, `{"a":{"x":1}}`: true, `{"a":[]}`: true, `[]`: true} {
		tree, err := arm.ParseJSON([]byte(sent))
		if err != nil {
			t.Fatal(err)
		}
		if err := k.shape().known("2020-01-01", tree, ""); (err == nil) != ok {
			t.Errorf("%s is refused with %v, want it taken: %t", sent, err, ok)
		}
	}
}

// What previews have is not what others have, and lists are looked into.
func TestShapesOfPreviews(t *testing.T) {
	k := &Kind{Since: map[string]string{"l[*].n": "2024-04-01-preview 2025-01-01", "p": "2023-01-01-preview previews"}}
	const all, old, none = `{"l":[{"m":1,"n":2},{"n":3}],"p":4}`, `{"l":[{"m":1},{}],"p":4}`, `{"l":[{"m":1},{}]}`
	for version, want := range map[string]string{
		"2022-01-01": none, "2022-01-01-preview": none, "2024-01-01": none, "2024-01-01-preview": old, "2024-04-01-preview": all,
		"2024-06-01": none, "2025-01-01": `{"l":[{"m":1,"n":2},{"n":3}]}`, "2025-01-01-preview": all, "": all,
	} {
		if got, err := k.hidden(version, json.RawMessage(all)); err != nil || string(got) != want {
			t.Errorf("%s shows %s, %v; want %s", version, got, err, want)
		}
		tree, err := arm.ParseJSON([]byte(all))
		if err != nil {
			t.Fatal(err)
		}
		if err := k.shape().known(version, tree, ""); (err == nil) != (want == all) {
			t.Errorf("%s is refused with %v", version, err)
		}
	}
}
