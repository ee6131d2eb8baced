//go:build linux && (amd64 || arm64)

package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cgroup is a sandbox's place in the kernel's accounts: one folder on cgroup 2,
// one for each resource on cgroup 1, always below the server's own.
type cgroup struct {
	dirs map[string]string // memory, pids, cpu: the folder that limits it
	v2   map[string]bool
}

// ownCgroups are the folders of this process, by controller; "" is cgroup 2's.
func ownCgroups() map[string]string {
	out := map[string]string{}
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return out
	}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 || strings.Contains(f[2], "..") {
			continue
		}
		for _, c := range strings.Split(f[1], ",") {
			base := "/sys/fs/cgroup/" + c
			if f[0] == "0" {
				c, base = "", "/sys/fs/cgroup"
				if exists("/sys/fs/cgroup/unified/cgroup.controllers") {
					base = "/sys/fs/cgroup/unified"
				}
			}
			out[c] = filepath.Join(base, f[2])
		}
	}
	return out
}

// newCgroup makes a place named name and limits what it can there. What the
// kernel or the rights at hand do not allow is left out, and so advisory.
func newCgroup(name string, l Limits) *cgroup {
	g := &cgroup{dirs: map[string]string{}, v2: map[string]bool{}}
	own := ownCgroups()
	for _, c := range []string{"memory", "pids", "cpu"} {
		parent, v2 := own[c], false
		if parent == "" {
			parent, v2 = own[""], true
		}
		if parent == "" || v2 && !delegated(parent, c) {
			continue
		}
		dir := filepath.Join(parent, "castellan-"+name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			continue
		}
		if err := setLimit(dir, c, v2, l); err != nil {
			os.Remove(dir) // empty: nothing was put in yet
			continue
		}
		g.dirs[c], g.v2[c] = dir, v2
	}
	return g
}

// delegated reports whether children of dir may be limited in c.
func delegated(dir, c string) bool {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil {
		return false
	}
	if slices.Contains(strings.Fields(string(b)), c) {
		return true
	}
	return os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0) == nil
}

func setLimit(dir, c string, v2 bool, l Limits) error {
	set := func(file string, value any) error {
		f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = fmt.Fprint(f, value)
		return errors.Join(err, f.Close())
	}
	const period = 100_000 // microseconds
	quota := int64(l.CPUs * period)
	switch {
	case c == "pids":
		return set("pids.max", l.Pids+reaperThreads)
	case c == "memory" && v2:
		set("memory.swap.max", 0) // no swap accounts, no swap to forbid
		return set("memory.max", l.Memory)
	case c == "memory":
		if err := set("memory.limit_in_bytes", l.Memory); err != nil {
			return err
		}
		set("memory.memsw.limit_in_bytes", l.Memory) // as above
		return nil
	case v2:
		return set("cpu.max", fmt.Sprintf("%d %d", quota, period))
	default:
		if err := set("cpu.cfs_period_us", period); err != nil {
			return err
		}
		return set("cpu.cfs_quota_us", quota)
	}
}

// reaperThreads are those of process 1, which are not the command's.
const reaperThreads = 16

// add puts a process, and what it will start, into the group.
func (g *cgroup) add(pid int) error {
	for c, dir := range g.dirs {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return fmt.Errorf("limiting %s: %w", c, err)
		}
	}
	return nil
}

func (g *cgroup) enforced() (out []string) {
	for c := range g.dirs {
		out = append(out, c)
	}
	slices.Sort(out)
	return out
}

// killed reports whether the kernel ended a process for want of memory.
func (g *cgroup) killed() bool {
	dir, file := g.dirs["memory"], "memory.oom_control"
	if dir == "" {
		return false
	}
	if g.v2["memory"] {
		file = "memory.events"
	}
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
			return n != "0"
		}
	}
	return false
}

// remove takes the group away; its processes have ended.
func (g *cgroup) remove() {
	for _, dir := range g.dirs {
		for range 50 {
			if err := syscall.Rmdir(dir); err != syscall.EBUSY {
				break
			}
			time.Sleep(2 * time.Millisecond) // the kernel clears up behind the last process
		}
	}
}

// SweepCgroups removes what a crashed server left of sandboxes whose names
// begin with prefix. Groups in use cannot be removed, so none is harmed.
func SweepCgroups(prefix string) {
	for _, parent := range ownCgroups() {
		dirs, _ := filepath.Glob(filepath.Join(parent, "castellan-"+prefix+"*"))
		for _, d := range dirs {
			syscall.Rmdir(d)
		}
	}
}
