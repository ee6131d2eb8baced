package governance

import (
	"fmt"
	"testing"
)

// A filter means one thing or is refused; none means something else than it says.
func TestParseFilter(t *testing.T) {
	allowed := []string{"atScope()", "assignedTo(id)", "roleName eq"}
	for text, want := range map[string]string{
		"":                                     "[]",
		"atScope()":                            "[{atScope() }]",
		"  ATSCOPE ( ) ":                       "[{ATSCOPE() }]",
		"assignedTo('x') and atScope()":        "[{assignedTo(id) x} {atScope() }]",
		"roleName eq 'a and roleName eq b'":    "[{roleName eq a and roleName eq b}]",
		"roleName  EQ  'it''s'  AND atScope()": "[{roleName eq it's} {atScope() }]",
		"roleName eq x":                        "[{roleName eq x}]",
		"roleName eq ''":                       "[{roleName eq }]",
	} {
		got, err := parseFilter(text, allowed...)
		if fmt.Sprint(got) != want || err != nil {
			t.Errorf("%q: %v, %v; want %s", text, got, err, want)
		}
	}
	for _, bad := range []string{"atScope", "atScope('x')", "assignedTo()", "roleName eq 'x", "roleName eq", "roleName ne 'x'", "other eq 'x'", "atScope() atScope()",
		"atScope() or atScope()", "atScope() and", "and atScope()", "not atScope()", "roleName eq 'x'y", "(atScope())", "assignedTo('x'", "roleName eq 'a' and"} {
		if got, err := parseFilter(bad, allowed...); err == nil {
			t.Errorf("%q is read as %v", bad, got)
		}
	}
}

// No filter makes the parser fail in another way than by saying so.
func FuzzParseFilter(f *testing.F) {
	f.Add("atScope() and assignedTo('x')")
	f.Add("roleName eq 'it''s")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseFilter(text, "atScope()", "assignedTo(id)", "roleName eq")
		if err != nil && got != nil {
			t.Errorf("%q: %v with %v", text, got, err)
		}
	})
}
