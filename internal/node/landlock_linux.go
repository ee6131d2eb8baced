//go:build linux && (amd64 || arm64)

package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What Landlock can be asked to hold, by the ABI it came with.
const (
	fsRead  = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	fsRun   = fsRead | unix.LANDLOCK_ACCESS_FS_EXECUTE
	fsABI1  = 1<<13 - 1
	fsFile  = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	fsNodes = unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_MAKE_CHAR
)

// ruleNetPort is LANDLOCK_RULE_NET_PORT.
const ruleNetPort = 2

// minLandlock is the ABI that tier Landlock needs: 6 is the first that keeps
// signals of a command from the server, which there is the same user.
const minLandlock = 6

func landlockABI() int {
	v, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if e != 0 {
		return 0
	}
	return int(v)
}

func fsHandled(abi int) uint64 {
	h := uint64(fsABI1)
	for _, x := range []struct {
		abi  int
		mask uint64
	}{{2, unix.LANDLOCK_ACCESS_FS_REFER}, {3, unix.LANDLOCK_ACCESS_FS_TRUNCATE}, {5, unix.LANDLOCK_ACCESS_FS_IOCTL_DEV}} {
		if abi >= x.abi {
			h |= x.mask
		}
	}
	return h
}

// pathRule lets files beneath Path be used so.
type pathRule struct {
	Path     string
	Access   uint64
	Optional bool // a missing file is no error
}

// restrict puts the calling thread, and all it starts, into a Landlock domain.
// Any error is fatal for the sandbox: a domain is never half loaded.
func restrict(abi int, rules []pathRule, ports []int, net bool) error {
	attr := unix.LandlockRulesetAttr{Handled_access_fs: fsHandled(abi)}
	size := unsafe.Sizeof(attr.Handled_access_fs)
	if abi >= 4 {
		size += unsafe.Sizeof(attr.Handled_access_net)
		if net {
			attr.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
		}
	}
	if abi >= 6 {
		size += unsafe.Sizeof(attr.Scoped)
		attr.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	rs, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if e != 0 {
		return fmt.Errorf("landlock_create_ruleset: %w", e)
	}
	defer unix.Close(int(rs))
	for _, r := range rules {
		if err := addPath(int(rs), r, attr.Handled_access_fs); err != nil {
			return fmt.Errorf("landlock rule for %s: %w", r.Path, err)
		}
	}
	for _, p := range ports {
		if err := addPort(int(rs), p); err != nil {
			return fmt.Errorf("landlock rule for port %d: %w", p, err)
		}
	}
	if _, _, e := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, rs, 0, 0); e != 0 {
		return fmt.Errorf("landlock_restrict_self: %w", e)
	}
	return nil
}

func addPath(rs int, r pathRule, handled uint64) error {
	fd, err := unix.Open(r.Path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if r.Optional && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	access := r.Access & handled
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		access &= fsFile
	}
	attr := unix.LandlockPathBeneathAttr{Allowed_access: access, Parent_fd: int32(fd)}
	_, _, e := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(rs), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

func addPort(rs, port int) error {
	attr := struct{ access, port uint64 }{unix.LANDLOCK_ACCESS_NET_CONNECT_TCP, uint64(port)}
	_, _, e := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(rs), ruleNetPort, uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// rules are what the command may use of the file system: the system's programs
// to read and run, its own folders to write, and no device can be made.
func (s spec) rules() []pathRule {
	all := fsHandled(s.ABI) &^ uint64(fsNodes)
	var out []pathRule
	for _, d := range systemDirs {
		out = append(out, pathRule{d, fsRun, true})
	}
	for _, d := range []string{"null", "zero", "full", "random", "urandom"} {
		out = append(out, pathRule{"/dev/" + d, fsRead | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV, false})
	}
	if s.Plan.Tier.Namespaced() {
		out = append(out, pathRule{"/etc", fsRead, false}, pathRule{"/proc", fsRead, false}, pathRule{"/dev/shm", all, false},
			pathRule{"/", unix.LANDLOCK_ACCESS_FS_READ_DIR, false}, pathRule{"/tmp", all, true})
	} else {
		out = append(out, hostRules()...)
	}
	for _, m := range s.Plan.Mounts {
		access := uint64(fsRun)
		if m.Write {
			access = all
		}
		out = append(out, pathRule{m.Guest, access, false})
	}
	return out
}

// hostRules are the files of the host itself that a command of tier Landlock
// may read: public, and needed to start programs and find names.
func hostRules() []pathRule {
	var out []pathRule
	for _, f := range append([]string{"passwd", "group", "hosts", "nsswitch.conf", "host.conf", "ssl/certs", "pki/tls/certs"}, etcFiles...) {
		out = append(out, pathRule{"/etc/" + f, fsRead, true})
	}
	for _, f := range []string{"cpuinfo", "meminfo", "stat", "uptime", "loadavg", "version", "filesystems"} {
		out = append(out, pathRule{"/proc/" + f, fsRead, true})
	}
	return append(out, pathRule{"/sys/devices/system/cpu", fsRead, true})
}

// systemDirs have the programs and libraries of the host.
var systemDirs = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}

// etcFiles of the host are shown as they are; none of them holds a secret.
var etcFiles = []string{"alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "timezone", "mime.types", "magic", "fonts", "protocols", "services", "python3", "python3.11", "python3.12", "python3.13", "python3.14", "matplotlibrc"}

func exists(p string) bool {
	_, err := os.Lstat(p)
	return err == nil
}
