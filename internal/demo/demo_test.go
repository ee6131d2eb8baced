package demo

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"castellan/internal/node"
)

// TestMain lets the test binary be the init of its own sandboxes.
func TestMain(m *testing.M) {
	node.Main()
	os.Exit(m.Run())
}

// The README's first command holds what it promises, step by step.
func TestTheMainJob(t *testing.T) {
	if s := node.Probe(t.Context()); s.Tier == node.None {
		t.Skipf("this machine holds no sandbox: %s", s.Refusal())
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("there is no go command to build the job with")
	}
	var out strings.Builder
	dir := filepath.Join(t.TempDir(), "data")
	if err := Run(t.Context(), Config{Data: dir, Out: &out}); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{
		"must change it at once", "Key Vault Administrator on the key vault", "metric test_accuracy", "model iris, version 1",
		"sam (no role) reads the workspace: 403", "rita (Reader) makes a cluster: 403", "the run's token on another workspace: 403",
		"the run's token on Resource Manager: 401", "the run's token on storage: 401", "the run's token on the key vault: 401", "unbroken",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the demo does not say %q", want)
		}
	}
	if t.Failed() {
		t.Log(out.String())
	}
	err := Run(t.Context(), Config{Data: dir, Out: &out})
	if err == nil || !strings.Contains(err.Error(), "not new") {
		t.Errorf("a second demo in the same folder = %v, want that it is not new", err)
	}
}
