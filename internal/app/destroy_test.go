package app

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"castellan/internal/audit"
	"castellan/internal/cmk"
	"castellan/internal/store"

	"lukechampine.com/adiantum"
)

// pages are all pages of the data folder's store, opened with the root key, as who
// has the disk and the root key reads them.
func (a *App) pages(t *testing.T) []byte {
	t.Helper()
	root, err := rootKey(t.Context(), a.Config)
	if err != nil {
		t.Fatal(err)
	}
	c := adiantum.New(root.Derive("pages").Bytes())
	files, err := filepath.Glob(filepath.Join(a.Data, store.FileName+"*"))
	if err != nil {
		t.Fatal(err)
	}
	var out []byte
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at+4096 <= len(b); at += 4096 {
			out = append(out, c.Decrypt(slices.Clone(b[at:at+4096]), binary.LittleEndian.AppendUint64(nil, uint64(at)))...)
		}
	}
	return out
}

// What is deleted for good loses its key on disk, and a signed statement says so,
// to who may read it; old copies of its rows open no more, with the root key and all
// keys that there are.
func TestDeletedKeysAreDestroyed(t *testing.T) {
	g := newGuarded(t)
	base := g.path(g.group) + "/providers/"
	g.a.Run(t.Context())
	loose, account, ws := base+"Microsoft.KeyVault/vaults/loose", base+"Microsoft.Storage/storageAccounts/goes", base+"Microsoft.MachineLearningServices/workspaces/goes"
	g.fine(g.a.Site.Base()+loose, g.vaultBody(false))
	_, body := g.policed.account("goes", nil)
	g.fine(g.a.Site.Base()+account, body)
	made(t, g.a, g.token, ws, map[string]any{"location": "local", "properties": map[string]any{"storageAccount": g.path(g.account), "keyVault": g.path(g.vault)}})
	must(t, g.a, http.StatusOK, g.token, http.MethodPost, g.a.Site.Base()+"/mlflow/v1.0"+ws+"/api/2.0/mlflow/experiments/create", map[string]any{"name": "old-" + marker})
	back, err := BackupFolder(t.Context(), g.a.Config, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	back.Now = g.clock.now
	point, err := back.Make(t.Context(), g.a.Data)
	if err != nil {
		t.Fatal(err)
	}

	// What lies on disk of the keys, and of what the workspace's seals.
	sealed := map[string][]byte{} // the rows that have the keys, by resource
	var old [][]byte              // rows of the workspace, as the root key opens them
	root, err := rootKey(t.Context(), g.a.Config)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := g.a.keptKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := store.Open(g.a.Data, root)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	uid := ""
	if err := raw.View(t.Context(), func(tx *store.Tx) error {
		for _, k := range kept {
			table, key, typ := "data_keys", k.UID, strings.ToLower(k.ID.Type())
			switch typ {
			case "microsoft.keyvault/vaults":
				table = "vault_keys"
			case "microsoft.storage/storageaccounts":
				table, key = "blob_accounts", strings.ToLower(k.ID.Name())
			}
			v, err := tx.Sealed(table, key)
			if err != nil || len(v) < 60 {
				return fmt.Errorf("the key of %s is not found: %w", k.ID, err)
			}
			sealed[k.ID.String()] = v
			if strings.EqualFold(k.ID.String(), ws) {
				uid = k.UID
			}
		}
		return tx.Raw(func(table, key string, value []byte, err error) {
			if table == "tracking_experiments" && strings.HasPrefix(key, uid) {
				old = append(old, append([]byte(table+"\x00"+key+"\x01"), value...))
			}
		})
	}); err != nil {
		t.Fatal(err)
	}
	opens := func() (n int) {
		all, err := g.a.keptKeys(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range old {
			place, value, _ := bytes.Cut(row, []byte{1})
			for _, k := range all {
				for _, by := range []string{"workspaces", "vault", "blob"} {
					if key, err := root.Derive(by).Unwrap(k.Data, k.UID); err == nil {
						if plain, err := key.Open(value, string(place)); err == nil && bytes.Contains(plain, []byte(marker)) {
							n++
						}
					}
				}
			}
		}
		return n
	}
	if opens() != 1 {
		t.Fatal("the old row does not open before; this test can't tell")
	}
	onDisk := func(id string) bool { return bytes.Contains(g.a.pages(t), sealed[id]) }
	for _, id := range []string{loose, account, ws, g.path(g.vault)} {
		if len(sealed[id]) == 0 || !onDisk(id) {
			t.Fatalf("the key of %s is not on disk before", id)
		}
	}

	g.destroyVersions(t)
	must(t, g.a, http.StatusOK, g.token, http.MethodDelete, g.a.Site.Base()+ws+version, nil)
	must(t, g.a, http.StatusOK, g.token, http.MethodDelete, g.a.Site.Base()+account+version, nil)
	must(t, g.a, http.StatusOK, g.token, http.MethodDelete, g.a.Site.Base()+loose+version, nil)
	u := g.a.Site.Base() + "/subscriptions/" + g.a.Site.Subscription + "/providers/"
	must(t, g.a, http.StatusOK, g.token, http.MethodPost, u+"Microsoft.KeyVault/locations/local/deletedVaults/loose/purge"+version, nil)
	(&guardedLab{guarded: g}).until("the keys are destroyed", func() bool { return g.a.destroyKeys(t.Context()) == nil })

	for _, id := range []string{loose, account, ws} {
		if onDisk(id) {
			t.Errorf("the key of %s is on disk still", id)
		}
	}
	if !onDisk(g.path(g.vault)) {
		t.Error("the key of a vault that was not deleted is gone")
	}
	if n := opens(); n != 0 {
		t.Errorf("%d old rows open with what is left", n)
	}

	key, err := g.a.Audit.Key(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list := must(t, g.a, http.StatusOK, g.token, http.MethodGet, u+"Castellan.Keys/destructions?api-version=2026-01-01", nil)["value"].([]any)
	found := map[string]string{}
	for _, x := range list {
		props := x.(map[string]any)["properties"].(map[string]any)
		found[fmt.Sprint(props["scope"])] = fmt.Sprint(props["statement"])
	}
	for _, k := range kept {
		text, gone := found[k.ID.String()]
		if gone != slices.Contains([]string{loose, account, ws}, k.ID.String()) {
			t.Errorf("of %s there is the statement %q", k.ID, text)
		}
		if !gone {
			continue
		}
		lines, err := audit.ParseStatement([]byte(text), key)
		for _, want := range []string{"key id: " + k.UID + "\n", "sha256 of the wrapped key: " + k.Thumbprint() + "\n", "Castellan administration", "backup that may hold it: ", point.Name} {
			if err != nil || !strings.Contains(lines, want) {
				t.Errorf("the statement about %s does not say %q, %v:\n%s", k.ID, want, err, lines)
			}
		}
		if _, err := audit.ParseStatement([]byte(strings.Replace(text, k.UID, strings.Repeat("0", len(k.UID)), 1)), key); err == nil {
			t.Error("a statement that was altered is taken")
		}
		if _, err := audit.ParseCheckpoint([]byte(text), key); err == nil {
			t.Error("a statement passes for a checkpoint")
		}
	}
	if signed, err := g.a.Audit.Checkpoint(t.Context()); err != nil {
		t.Error(err)
	} else if _, err := audit.ParseStatement(signed, key); err == nil {
		t.Error("a checkpoint passes for a statement")
	}
	stranger := g.a.stranger(t)
	if got := must(t, g.a, http.StatusOK, stranger["arm"], http.MethodGet, u+"Castellan.Keys/destructions?api-version=2026-01-01", nil)["value"].([]any); len(got) != 0 {
		t.Errorf("a stranger reads %v", got)
	}
}

// destroyVersions purges a key with two versions in the vault loose, and wants
// each off the disk and stated.
func (g *guarded) destroyVersions(t *testing.T) {
	t.Helper()
	at := "https://loose." + g.a.Site.VaultSuffix()
	id := g.path(g.group) + "/providers/Microsoft.KeyVault/vaults/loose"
	g.a.giveRole(t, g.token, id, g.operator(), "Key Vault Crypto Officer")
	var versions []string
	for range 2 {
		k := must(t, g.a, http.StatusOK, g.keys, http.MethodPost, at+"/keys/gone/create"+vaultVersion, map[string]any{"kty": "EC"})
		kid := fmt.Sprint(k["key"].(map[string]any)["kid"])
		versions = append(versions, kid[strings.LastIndex(kid, "/")+1:])
	}
	must(t, g.a, http.StatusOK, g.keys, http.MethodPost, at+"/keys/stays/create"+vaultVersion, map[string]any{"kty": "EC"})
	g.a.giveRole(t, g.token, id, g.operator(), "Key Vault Administrator") // to purge
	must(t, g.a, http.StatusOK, g.keys, http.MethodDelete, at+"/keys/gone"+vaultVersion, nil)
	before := g.a.pages(t)
	var gone []cmk.Destroyed
	must(t, g.a, http.StatusNoContent, g.keys, http.MethodDelete, at+"/deletedkeys/gone"+vaultVersion, nil)
	if err := g.a.db.View(t.Context(), func(tx *store.Tx) (err error) { gone, err = cmk.Unstated(tx); return err }); err != nil {
		t.Fatal(err)
	}
	(&guardedLab{guarded: g}).until("the versions are destroyed", func() bool { return g.a.destroyKeys(t.Context()) == nil })
	pages := g.a.pages(t)
	list := must(t, g.a, http.StatusOK, g.token, http.MethodGet, g.a.Site.Base()+"/subscriptions/"+g.a.Site.Subscription+"/providers/Castellan.Keys/destructions?api-version=2026-01-01", nil)["value"].([]any)
	text := fmt.Sprint(list)
	for _, v := range versions {
		if !strings.Contains(text, "version: "+v+"\n") || !strings.Contains(text, "/vaults/loose/keys/gone\n") || !strings.Contains(text, "every backup that a client took") {
			t.Errorf("of the version %s there is no statement: %s", v, text)
		}
		if !bytes.Contains(before, []byte("/gone/"+v)) || bytes.Contains(pages, []byte("/gone/"+v)) {
			t.Errorf("the version %s was not on disk before, or is still", v)
		}
	}
	if len(list) != len(versions) || len(gone) > len(versions) || strings.Contains(text, "keys/stays") {
		t.Errorf("%d statements about %d versions", len(list), len(versions))
	}
}
