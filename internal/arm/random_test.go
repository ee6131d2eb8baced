package arm

import (
	"regexp"
	"testing"
)

// Random ids have their form and do not come twice.
func TestRandomIDs(t *testing.T) {
	for name, c := range map[string]struct {
		make func() string
		form string
	}{
		"UUID": {NewUUID, `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`},
		"hex":  {NewHex, `^[0-9a-f]{32}$`},
	} {
		form, seen := regexp.MustCompile(c.form), map[string]bool{}
		for range 1000 {
			id := c.make()
			if !form.MatchString(id) || seen[id] {
				t.Fatalf("%s: %q has another form, or came twice", name, id)
			}
			seen[id] = true
		}
	}
}
