package arm

import (
	"fmt"
	"strings"
	"testing"
)

const vault = "/subscriptions/s/resourceGroups/rg1/providers/Microsoft.KeyVault/vaults/kv"

// An id means one thing, however it is written; what could mean two is refused.
func TestParseID(t *testing.T) {
	if MustID(vault).Key() != MustID(strings.ToUpper(vault)).Key() {
		t.Error("case makes two ids of one")
	}
	for _, bad := range []string{"", "x", "//", "/subscriptions", "/subscriptions/s/", vault + "/..", vault + "/%2e",
		"/subscriptions/s/resourceGroups", "/other/x", vault + "/secrets", "/subscriptions/s/resourceGroups/a b",
		"/subscriptions/s/resourceGroups/ſ", "/subscriptions/" + strings.Repeat("a", 3000)} {
		if id, err := ParseID(bad); err == nil {
			t.Errorf("ParseID(%.40q) = %v, want an error", bad, id)
		}
	}
}

func TestScopes(t *testing.T) {
	ra := MustID(vault + "/providers/Microsoft.Authorization/roleAssignments/x")
	want := []string{ra.Key(), strings.ToLower(vault), "/subscriptions/s/resourcegroups/rg1", "/subscriptions/s", "/"}
	if got := ra.Scopes(); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("Scopes = %q, want %q", got, want)
	}
	if MustID("/subscriptions/s/resourceGroups/rg10").Within(MustID("/subscriptions/s/resourceGroups/rg1")) {
		t.Error("rg10 is taken to lie in rg1")
	}
	if got := MustID(vault).Type(); got != "Microsoft.KeyVault/vaults" {
		t.Errorf("Type = %q", got)
	}
}

// A secret is printed by no verb and no encoder.
func TestSecretsDoNotPrint(t *testing.T) {
	s := NewSecret([]byte("hunter2"))
	j, _ := s.MarshalJSON()
	for _, got := range []string{fmt.Sprint(s), fmt.Sprintf("%v %+v %#v %s %x %q %d", s, s, s, s, s, s, s), fmt.Sprintf("%v", struct{ S Secret }{s}), string(j)} {
		if strings.Contains(got, "hunter2") || strings.Contains(got, "68756e") || strings.Contains(got, "104") {
			t.Errorf("a secret prints as %q", got)
		}
	}
}
