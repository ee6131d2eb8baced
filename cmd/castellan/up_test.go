package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"castellan/internal/app"
	"castellan/internal/node"
)

// TestMain lets the test binary be the init of its own sandboxes.
func TestMain(m *testing.M) {
	node.Main()
	os.Exit(m.Run())
}

// printed keeps what the command prints, and ends the command once it has
// printed the mark.
type printed struct {
	mu   sync.Mutex
	text bytes.Buffer
	mark string
	end  context.CancelFunc
}

func (p *printed) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, err := p.text.Write(b)
	if strings.Contains(p.text.String(), p.mark) {
		p.end()
	}
	return n, err
}

// serve runs castellan up on the folder until it has printed the mark.
func serve(t *testing.T, dir, mark string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &printed{mark: mark, end: cancel}
	c := root()
	c.SetOut(out)
	c.SetArgs(append([]string{"up", "--data", dir, "--listen", "127.0.0.1:0"}, args...))
	if err := c.ExecuteContext(ctx); err != nil {
		t.Fatal(err)
	}
	return out.text.String()
}

// With --json there is one object a line, and the first says all that a client
// must know; the administrator's secrets are told by the first start alone.
func TestUpTellsScripts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	for _, first := range []bool{true, false} {
		text := serve(t, dir, "\n", "--json")
		line, rest, _ := strings.Cut(text, "\n")
		var r app.Ready
		if err := json.Unmarshal([]byte(line), &r); err != nil || rest != "" {
			t.Fatalf("printed %q: %v", text, err)
		}
		for name, v := range map[string]string{
			"armEndpoint": r.ARM, "loginEndpoint": r.Login, "graphEndpoint": r.Graph, "mlEndpoint": r.ML, "tenantId": r.TenantID, "subscriptionId": r.SubscriptionID,
			"caFile": r.CAFile, "proxy": r.Proxy, "vault": r.Suffixes["vault"], "blob": r.Suffixes["blob"], "registry": r.Suffixes["registry"], "inference": r.Suffixes["inference"],
		} {
			if v == "" {
				t.Errorf("%s is empty in %s", name, line)
			}
		}
		if !r.Ready || (r.Admin != nil) != first {
			t.Errorf("first start %v: ready %v, administrator told %v", first, r.Ready, r.Admin != nil)
		}
		if first && (r.Admin.ClientID == "" || r.Admin.ClientSecret == "" || r.Admin.UserName == "" || r.Admin.Password == "") {
			t.Error("the first start does not tell the whole administrator")
		}
		kept, err := os.ReadFile(filepath.Join(dir, "server.json"))
		if err != nil {
			t.Fatal(err)
		}
		if first && (bytes.Contains(kept, []byte(r.Admin.ClientSecret)) || bytes.Contains(kept, []byte(r.Admin.Password))) {
			t.Error("server.json has the administrator's secrets")
		}
	}
}

// For people there is one line to reach the server by, and castellan setup
// gives the same address.
func TestUpTellsPeople(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	text := serve(t, dir, "Stop with Ctrl-C.")
	if n := strings.Count(text, "HTTPS_PROXY="); n != 1 {
		t.Errorf("there are %d lines with HTTPS_PROXY, want 1:\n%s", n, text)
	}
	_, line, _ := strings.Cut(text, "HTTPS_PROXY=")
	line, _, _ = strings.Cut(line, "\n")
	var env bytes.Buffer
	c := root()
	c.SetOut(&env)
	c.SetArgs([]string{"setup", "clients", "--data", dir, "--env"})
	if err := c.Execute(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(env.String(), "export HTTPS_PROXY='"+line+"'\n") {
		t.Errorf("up says %s and setup\n%s", line, env.String())
	}
}

// What can't be done is said, with what is allowed.
func TestBadCommands(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"up --listen nonsense", "HOST:PORT"},
		{"up --suffix localhost --listen 127.0.0.1:0 --data " + t.TempDir() + "/d", "two labels"},
		{"setup clients --data " + t.TempDir(), "no server has run"},
		{"audit verify /nonexistent", "no such file"},
		{"fly", "unknown command"},
	} {
		cmd := root()
		cmd.SetOut(&bytes.Buffer{})
		cmd.SetArgs(strings.Fields(c.args))
		if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.args, err, c.want)
		}
	}
}
