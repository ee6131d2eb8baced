package app

import (
	"os"
	"path/filepath"
	"testing"
)

// OPS-01: the platform does not start on a secret that others of the machine can
// read, nor leave anything in its data folder that they can.
func TestLooseSecretFilesAreRefused(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"root key", "passphrase"} {
		dir := t.TempDir()
		path := filepath.Join(dir, "secret")
		if err := os.WriteFile(path, []byte("QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg := Config{Data: filepath.Join(dir, "data"), RootKey: path}
		if what == "passphrase" {
			cfg.RootKey, cfg.PassphraseFile = "", path
		}
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		if a, err := New(t.Context(), cfg); err == nil {
			_ = a.Close()
			t.Errorf("a %s that others can read is taken", what)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := New(t.Context(), cfg)
		if err != nil {
			t.Errorf("a %s that only its owner can read: %v", what, err)
			continue
		}
		_ = a.Close()
	}
}
