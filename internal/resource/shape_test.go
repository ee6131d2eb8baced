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
		{"2020-01-01", `{"d":1}`, `{"a":{"x":2},"d":4}`, `{"a":{"b":9007199254740993},"c":3,"d":1}`},
		{"2020-01-01", `null`, `{"a":{"x":2},"d":4}`, `{"a":{"b":9007199254740993},"c":3}`},
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
		if tree, err = k.kept(c.version, tree, was); err != nil {
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
		if err := k.known("2020-01-01", tree); (err == nil) != ok {
			t.Errorf("%s is refused with %v, want it taken: %t", sent, err, ok)
		}
	}
}
