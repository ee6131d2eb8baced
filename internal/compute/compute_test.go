package compute

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"castellan/internal/node"
)

func TestMain(m *testing.M) {
	node.Main()
	os.Exit(m.Run())
}

func service(t *testing.T) *Service {
	t.Helper()
	s, err := New(context.Background(), Config{Dir: filepath.Join(t.TempDir(), "scratch")})
	if err != nil {
		t.Fatal(err)
	}
	if why := s.Standing().Refusal(); why != "" {
		t.Skip(why)
	}
	return s
}

func run(t *testing.T, s *Service, script string, env ...string) (Ended, string) {
	t.Helper()
	dir := filepath.Join(s.Dir(), "run-1")
	if err := os.MkdirAll(filepath.Join(dir, "work"), 0o700); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	e, err := s.Run(context.Background(), Task{Name: "run-1", Dir: dir, Work: filepath.Join(dir, "work"), Command: []string{"/bin/sh", "-c", script},
		Env: append(env, "PATH=/usr/bin:/bin"), Timeout: 20 * time.Second, MemoryMB: 256, Log: &log,
		Listeners: map[string]http.Handler{"msi": http.NotFoundHandler()}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return e, log.String()
}

// A command runs with exactly its environment, its exit code is told, and what
// it writes to its folder is there afterwards.
func TestRuns(t *testing.T) {
	s := service(t)
	e, log := run(t, s, "env; id -u; echo kept > kept; exit 7", "A=b", "MSI="+s.Address("msi"))
	if e.Code != 7 || e.Reason != "" || !strings.Contains(log, "A=b") {
		t.Fatalf("got %+v and %q, want code 7 and A=b", e, log)
	}
	if b, err := os.ReadFile(filepath.Join(s.Dir(), "run-1/work/kept")); err != nil || string(b) != "kept\n" {
		t.Errorf("kept file: %q, %v", b, err)
	}
	t.Logf("%+v\n%s", e, log)
}
