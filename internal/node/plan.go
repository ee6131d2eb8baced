package node

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Plan is one sandbox, complete: what runs in it and all that it can reach.
// Whatever is not in the plan is not in the sandbox.
type Plan struct {
	Name   string   // of the sandbox: cgroup and host name; lower case letters, digits and -
	Tier   Tier     // how it is isolated; Start refuses what the tier cannot hold
	User   int      // host user and group id of its processes in tier Root; other tiers run as the server's user
	Argv   []string // the command; Argv[0] is an absolute path inside the sandbox
	Env    []string // NAME=value, exactly what the command gets
	Dir    string   // the working directory inside the sandbox
	Mounts []Mount  // folders and files of the host that the sandbox sees, beside the system's programs
	Hosts  []Host   // names that resolve inside the sandbox; there is no DNS
	CA     []byte   // PEM of certificate authorities trusted beside the host's
	Listen []Listen // sockets opened inside the sandbox and served by whoever started it
	Limits Limits

	Timeout  time.Duration // 0 means none
	Grace    time.Duration // between SIGTERM and SIGKILL when stopped; at most MaxGrace
	Log      io.Writer     `json:"-"` // gets standard output and error as they come; nil discards them
	LogLimit int64         // bytes that Log gets at most; 0 means DefaultLogLimit
}

// Mount makes Host, on the server's side, appear as Guest.
type Mount struct {
	Host, Guest string
	Write       bool // read-only unless set
	Private     bool // belongs to this sandbox alone: Start makes its user the owner
}

// Host is a name that resolves inside the sandbox.
type Host struct{ Name, Addr string }

// Listen is a TCP socket inside the sandbox. In tier Landlock, which has no
// network of its own, it is a port of the host's loopback chosen by the kernel;
// Place(Name) in an environment value stands for the address really used.
type Listen struct{ Name, Addr string }

// Place stands, in a value of Plan.Env, for the host:port that the listener of
// this name got.
func Place(name string) string { return "{{castellan:listener:" + name + "}}" }

// Limits bound what a sandbox uses. Zero means DefaultLimits' value.
type Limits struct {
	Memory int64   // bytes, of all processes together
	CPUs   float64 // processor seconds per second
	Pids   int     // processes and threads
	Disk   int64   // bytes in writable folders, all together
	Files  int     // files and folders in writable folders
	Open   int     // open files of one process
}

// DefaultLimits are for a plan that says nothing.
var defaultLimits = Limits{Memory: 2 << 30, CPUs: 1, Pids: 512, Disk: 10 << 30, Files: 1_000_000, Open: 4096}

const (
	// DefaultLogLimit is how many bytes of a command's output are kept.
	DefaultLogLimit int64 = 64 << 20
	// MaxGrace is the longest time between SIGTERM and SIGKILL, so that nothing
	// of a sandbox is left 5 seconds after it was stopped.
	MaxGrace = 3 * time.Second
	// InnerUser is the user and group id that the command sees as its own where
	// the sandbox has a user namespace.
	InnerUser = 1000
)

// WithDefaults is l with every zero replaced.
func (l Limits) WithDefaults() Limits {
	d := defaultLimits
	pick(&l.Memory, d.Memory)
	pick(&l.CPUs, d.CPUs)
	pick(&l.Pids, d.Pids)
	pick(&l.Disk, d.Disk)
	pick(&l.Files, d.Files)
	pick(&l.Open, d.Open)
	return l
}

func pick[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

var (
	nameRE = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	hostRE = regexp.MustCompile(`^[a-z0-9_]([a-z0-9._-]{0,251}[a-z0-9])?$`)
	envRE  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*=`)
)

// Check says everything that is wrong with the plan, each by its field.
func (p Plan) Check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("plan: "+format, args...)) }
	if !nameRE.MatchString(p.Name) {
		bad("Name is %q; it must be 1 to 63 lower case letters, digits and hyphens", p.Name)
	}
	if p.Tier != Root && p.Tier != Userns && p.Tier != Landlock {
		bad("Tier is %q; it must be root, userns or landlock", p.Tier)
	}
	if p.Tier == Root && (p.User < 1000 || int64(p.User) >= 1<<32-2) {
		bad("User is %d; in tier root it must be from 1000 to 4294967293", p.User)
	}
	if len(p.Argv) == 0 || !path.IsAbs(p.Argv[0]) {
		bad("Argv is %d words; the first must be an absolute path", len(p.Argv))
	}
	for _, a := range p.Argv {
		if strings.ContainsRune(a, 0) {
			bad("Argv has a word with a NUL byte")
		}
	}
	if !clean(p.Dir) {
		bad("Dir is %q; it must be a clean absolute path", p.Dir)
	}
	p.checkEnv(bad)
	p.checkMounts(bad)
	p.checkNet(bad)
	p.checkLimits(bad)
	return errors.Join(errs...)
}

func clean(s string) bool {
	return path.IsAbs(s) && path.Clean(s) == s && !strings.ContainsRune(s, 0)
}

func (p Plan) checkEnv(bad func(string, ...any)) {
	for i, e := range p.Env {
		name, _, _ := strings.Cut(e, "=")
		if !envRE.MatchString(e) {
			bad("Env[%d] has the name %q; a name has letters, digits, _ and . and does not begin with a digit", i, name)
		}
		if strings.ContainsRune(e, 0) { // the value may be a secret: it is not shown
			bad("Env[%d] (%q) has a NUL byte", i, name)
		}
	}
}

// The sandbox's own folders, which no mount may hide.
var reserved = []string{"/", "/proc", "/sys", "/dev", "/etc", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/run", "/root", "/home"}

func (p Plan) checkMounts(bad func(string, ...any)) {
	for i, m := range p.Mounts {
		if !filepath.IsAbs(m.Host) || filepath.Clean(m.Host) != m.Host || m.Host == "/" {
			bad("Mounts[%d].Host is %q; it must be a clean absolute path and not /", i, m.Host)
		}
		if !clean(m.Guest) || slices.Contains(reserved, m.Guest) {
			bad("Mounts[%d].Guest is %q; it must be a clean absolute path that is not the system's", i, m.Guest)
		}
		for _, r := range []string{"/proc/", "/sys/", "/dev/", "/etc/"} {
			if p.Tier.Namespaced() && strings.HasPrefix(m.Guest, r) {
				bad("Mounts[%d].Guest is %q; nothing is mounted under %s", i, m.Guest, r)
			}
		}
		if p.Tier == Landlock && m.Host != m.Guest {
			bad("Mounts[%d] shows %s as %s; tier landlock cannot rename", i, m.Host, m.Guest)
		}
		if m.Private && !m.Write {
			bad("Mounts[%d] is Private but not writable", i)
		}
	}
}

func (p Plan) checkNet(bad func(string, ...any)) {
	for i, h := range p.Hosts {
		a, err := netip.ParseAddr(h.Addr)
		if !hostRE.MatchString(h.Name) || err != nil || !inner(a) {
			bad("Hosts[%d] is %q at %q; it must be a lower case name at 127.0.0.0/8 or 169.254.0.0/16", i, h.Name, h.Addr)
		}
	}
	seen := map[string]bool{}
	for i, l := range p.Listen {
		a, err := netip.ParseAddrPort(l.Addr)
		if !nameRE.MatchString(l.Name) || seen[l.Name] || err != nil || !inner(a.Addr()) || a.Port() == 0 {
			bad("Listen[%d] is %q at %q; it must be a name of its own at a port of 127.0.0.0/8 or 169.254.0.0/16", i, l.Name, l.Addr)
		}
		seen[l.Name] = true
	}
	if len(p.Listen) > maxListen {
		bad("Listen has %d sockets; it may have %d", len(p.Listen), maxListen)
	}
}

const maxListen = 32

func inner(a netip.Addr) bool {
	return a.Is4() && (a.IsLoopback() || a.IsLinkLocalUnicast())
}

func (p Plan) checkLimits(bad func(string, ...any)) {
	l := p.Limits.WithDefaults()
	if l.Memory < 4<<20 || l.CPUs < 0.01 || l.Pids < 4 || l.Disk < 4096 || l.Files < 16 || l.Open < 16 {
		bad("Limits are %+v; the least is 4 MiB of memory, 0.01 CPUs, 4 pids, 4 KiB of disk, 16 files, 16 open files", l)
	}
	if p.Timeout < 0 || p.Grace < 0 || p.Grace > MaxGrace || p.LogLimit < 0 {
		bad("Timeout is %s, Grace %s, LogLimit %d; none may be negative and Grace at most %s", p.Timeout, p.Grace, p.LogLimit, MaxGrace)
	}
}

// String is the plan as text for people and golden tests. Values of the
// environment may be secrets, so only names appear.
func (p Plan) String() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("sandbox %s", p.Name)
	line("tier    %s", p.Tier)
	if p.Tier == Root {
		line("user    %d", p.User)
	}
	line("run     %q", p.Argv)
	line("in      %s", p.Dir)
	for _, e := range p.Env {
		name, _, _ := strings.Cut(e, "=")
		line("env     %s", name)
	}
	for _, m := range p.Mounts {
		line("mount   %s %s from %s", mode(m), m.Guest, m.Host)
	}
	for _, h := range p.Hosts {
		line("host    %s %s", h.Addr, h.Name)
	}
	for _, l := range p.Listen {
		line("listen  %s %s", l.Addr, l.Name)
	}
	l := p.Limits.WithDefaults()
	line("limit   memory %d, cpus %g, pids %d, disk %d, files %d, open %d", l.Memory, l.CPUs, l.Pids, l.Disk, l.Files, l.Open)
	line("time    %s, grace %s", p.Timeout, p.Grace)
	line("ca      %d bytes", len(p.CA))
	return b.String()
}

func mode(m Mount) string {
	switch {
	case m.Private:
		return "private "
	case m.Write:
		return "write   "
	default:
		return "read    "
	}
}

// Reason is why a command ended.
type Reason string

// The reasons. Exited says that the command ended by itself, whatever its code.
const (
	Exited     Reason = "exited"
	Signaled   Reason = "signaled"
	TimedOut   Reason = "timeout"
	Canceled   Reason = "canceled"
	OutOfMem   Reason = "memory limit"
	OutOfDisk  Reason = "disk limit"
	OutOfFiles Reason = "file count limit"
	Broken     Reason = "sandbox failed"
)

// Exit is how a sandbox ended. When it is handed out nothing of the sandbox runs.
type Exit struct {
	Code     int    // the exit code; 128 and the signal's number if a signal ended it
	Signal   string // the signal's name, if one ended it
	Reason   Reason
	Detail   string   // for people: which limit, what failed
	Enforced []string // limits that the kernel held for the sandbox as a whole
	Advisory []string // limits that were held per process, or by watching
	LogBytes int64    // bytes of output, also those not kept
	LogCut   bool     // some output was not kept
}
