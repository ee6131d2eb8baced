// Package compute runs tasks in sandboxes: it plans them purely and has a node carry the plan out.
package compute

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/node"
)

// Task is one command to run in a sandbox of its own.
type Task struct {
	Name      string                  // of the sandbox: lower case letters, digits and -, not longer than 63
	Dir       string                  // folder on the host, below Config.Dir, made for this task alone: all of it may be written but ReadOnly
	ReadOnly  []string                // folders below Dir, by their host paths
	Work      string                  // working directory, by its host path, in Dir
	Command   []string                // Command[0] is an absolute path of the sandbox
	Env       []string                // NAME=value; all that the command gets
	CPUs      float64                 // 0 means one
	MemoryMB  int                     // 0 means 2048
	Timeout   time.Duration           // 0 means none
	Listeners map[string]http.Handler // served inside the sandbox, each by its name, and in nobody else's
	Log       io.Writer               // gets standard output and error as they come
	Tenant    string                  // whose it is: only this tenant's host names are known inside
}

// Place is what all sandboxes of an installation have in common.
type Place struct {
	Dir   string        // scratch folder that tasks' folders lie in
	Tier  node.Tier     // how they are isolated
	User  int           // host user, in tier root
	Names []string      // host names of the platform
	CA    []byte        // PEM of the platform's certificate authority
	Edge  bool          // the platform's edge is served inside, at port 443 of its names
	Proxy bool          // a CONNECT proxy to the edge is served inside
	Tools []string      // folders of the host shown read-only, such as a Python installation
	Grace time.Duration // between SIGTERM and SIGKILL
}

// Names of the listeners that every sandbox may have, and of those that ask for
// no secret and are therefore only where a sandbox has a network of its own: on
// a loopback that it shares, everybody on the machine could ask.
const (
	EdgeListener  = "edge"
	ProxyListener = "proxy"
	IMDSListener  = "imds" // at IMDSAddr; left out where it can't be
	OBOListener   = "obo"  // refused where it can't be
)

// IMDSAddr is where clients look for the instance metadata service.
const IMDSAddr = "169.254.169.254:80"

// home is where a task sees its folder in a sandbox with a file system of its own.
const home = "/job"

// Inside is where a task sees the host's path p below its folder.
func (pl Place) Inside(p string) string {
	if !pl.Tier.Namespaced() {
		return p
	}
	rel, err := filepath.Rel(pl.Dir, p)
	if err != nil || !filepath.IsLocal(rel) {
		return p
	}
	_, rest, _ := strings.Cut(filepath.ToSlash(rel), "/")
	return path.Join(home, rest)
}

// Plan is the sandbox for t. It touches nothing.
func Plan(t Task, pl Place) (node.Plan, error) {
	if pl.Tier == node.None {
		return node.Plan{}, fmt.Errorf("this machine holds no sandbox, so jobs are refused")
	}
	if err := within(pl.Dir, t.Dir); err != nil {
		return node.Plan{}, err
	}
	p := node.Plan{Name: t.Name, Tier: pl.Tier, User: pl.User, Argv: t.Command, Env: t.Env, Dir: pl.Inside(t.Work),
		CA: pl.CA, Timeout: t.Timeout, Grace: pl.Grace, Log: t.Log,
		Limits: node.Limits{CPUs: t.CPUs, Memory: int64(t.MemoryMB) << 20}.WithDefaults()}
	p.Mounts = []node.Mount{{Host: t.Dir, Guest: pl.Inside(t.Dir), Write: true, Private: true}}
	for _, ro := range t.ReadOnly {
		if err := within(t.Dir, ro); err != nil {
			return node.Plan{}, err
		}
		p.Mounts = append(p.Mounts, node.Mount{Host: ro, Guest: pl.Inside(ro)})
	}
	for _, tool := range pl.Tools {
		p.Mounts = append(p.Mounts, node.Mount{Host: tool, Guest: tool})
	}
	if pl.Tier.Namespaced() && pl.Edge {
		for _, n := range pl.Names {
			p.Hosts = append(p.Hosts, node.Host{Name: n, Addr: "127.0.0.1"})
		}
	}
	if _, lent := t.Listeners[OBOListener]; lent && !pl.Tier.Namespaced() {
		return node.Plan{}, arm.Errorf(arm.Unsupported, "the job wants a person's identity (UserIdentity), which is lent into sandboxes with a network of their own alone; this machine's are of tier %s", pl.Tier)
	}
	p.Listen = listens(t, pl)
	return p, p.Check()
}

func within(dir, sub string) error {
	rel, err := filepath.Rel(dir, sub)
	if err != nil || rel == "." || !filepath.IsLocal(rel) {
		return fmt.Errorf("the folder %s is not inside %s", sub, dir)
	}
	return nil
}

// listens gives each listener an address of its own, the same at every start.
func listens(t Task, pl Place) []node.Listen {
	var out []node.Listen
	if pl.Edge {
		out = append(out, node.Listen{Name: EdgeListener, Addr: "127.0.0.1:443"})
	}
	if pl.Proxy {
		out = append(out, node.Listen{Name: ProxyListener, Addr: "127.0.0.1:3128"})
	}
	port := 46800
	for _, name := range slices.Sorted(maps.Keys(t.Listeners)) {
		if name == IMDSListener && !pl.Tier.Namespaced() {
			continue
		}
		addr := IMDSAddr
		if name != IMDSListener {
			addr = fmt.Sprintf("127.0.0.1:%d", port)
			port++
		}
		out = append(out, node.Listen{Name: name, Addr: addr})
	}
	return out
}
