package app

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// keyLines are the lines of castellan keys as somebody sees them, by what they protect.
func (g *guarded) keyLines(token string) map[string]map[string]any {
	g.Helper()
	u := g.a.Site.Base() + "/subscriptions/" + g.a.Site.Subscription + "/providers/Castellan.Keys/dataKeys?api-version=2026-01-01"
	out := map[string]map[string]any{}
	for _, x := range must(g.T, g.a, http.StatusOK, token, http.MethodGet, u, nil)["value"].([]any) {
		props := x.(map[string]any)["properties"].(map[string]any)
		out[fmt.Sprint(props["scope"], " ", props["protects"])] = props
	}
	return out
}

// Everybody sees the keys of what they may read and of nothing else; a customer's
// key is shown with whether it may be used now; no key is among what is shown.
func TestKeysShowWhatProtectsWhat(t *testing.T) {
	g := newGuarded(t)
	g.letIn()
	if code, body := g.guard(nil); code != http.StatusOK {
		t.Fatalf("the key is refused: %d %s", code, body)
	}
	account, vault := g.path(g.account)+" blobs of the account", g.path(g.vault)+" secrets, keys and certificates of the vault"
	all := g.keyLines(g.token)
	if all["/ all keys of the installation"] == nil || all[vault]["state"] != "Enabled" {
		t.Errorf("the owner sees %v", all)
	}
	line := all[account]
	by := fmt.Sprint(line["wrappedBy"])
	if line["state"] != "Enabled" || !strings.Contains(by, "root key https://guards.") || !strings.Contains(by, "/keys/k/") || line["lastRotated"] == nil {
		t.Errorf("the account's key is shown as %v", line)
	}
	g.key(http.StatusOK, http.MethodPatch, "k", map[string]any{"attributes": map[string]any{"enabled": false}})
	g.past()
	if line := g.keyLines(g.token)[account]; line["state"] != "KeyVaultEncryptionKeyNotFound" {
		t.Errorf("with the customer's key disabled the account's is shown as %v", line)
	}
	reader := g.a.newPerson(t, "reader")
	token := tokenFor(t, g.a, reader.id, reader.secret, g.a.audiences()["arm"])
	if got := g.keyLines(token); len(got) != 0 {
		t.Errorf("a stranger sees %v", got)
	}
	g.a.giveRole(t, g.token, g.path(g.account), reader.object, "Reader")
	if got := g.keyLines(token); len(got) != 1 || got[account] == nil {
		t.Errorf("who may read the account alone sees %v", got)
	}
	text, _ := json.Marshal(all)
	for _, wrapped := range g.a.wrappedKeys(t) {
		if b, _ := json.Marshal(wrapped); strings.Contains(string(text), strings.Trim(string(b), `"`)) {
			t.Error("a wrapped key is shown")
		}
	}
	g.close()
	list, err := Keys(t.Context(), g.a.Config)
	if err != nil || len(list) != len(all) {
		t.Errorf("the data folder has %d lines, %v; the server showed %d", len(list), err, len(all))
	}
}

// wrappedKeys are all data keys as they lie on disk.
func (a *App) wrappedKeys(t *testing.T) (out [][]byte) {
	t.Helper()
	kept, err := a.keptKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range kept {
		if k.Customer != nil {
			k.Data = k.Customer.Data
		}
		out = append(out, k.Data)
	}
	return out
}

// Everything that is derived from the root key stands in the list that castellan
// keys shows.
func TestDerivedKeysAreListed(t *testing.T) {
	label := regexp.MustCompile(`\b[rR]oot(?:\(\))?\.Derive\("([^"]+)"\)|key\.Derive\("([^"]+)"\)`)
	found := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, m := range label.FindAllStringSubmatch(string(b), -1) {
			found[m[1]+m[2]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for l := range found {
		if derived[l] == "" {
			t.Errorf("the key %q is derived from the root key; castellan keys does not show it", l)
		}
	}
	for l := range derived {
		if !found[l] {
			t.Errorf("castellan keys shows %q, which nothing derives", l)
		}
	}
}
