//go:build linux && (amd64 || arm64)

package node

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Main must be the first call of main and of every TestMain. It returns at once
// unless this process is the inside of a sandbox; then it never returns.
func Main() {
	if len(os.Args) == 0 {
		return
	}
	switch os.Args[0] {
	case initName:
		runtime.LockOSThread()
		os.Exit(runInit())
	case reaperName:
		os.Exit(runReaper())
	}
}

// failed is the exit code of a sandbox that could not be built.
const failed = 125

// runInit builds the sandbox from inside its namespaces, gives up every right
// and becomes the reaper. It runs on one locked thread: rights are a thread's,
// and exec leaves no other thread behind.
func runInit() int {
	ctl := control{controlFD}
	s, err := readSpec()
	if err == nil {
		err = s.build(ctl)
	}
	if err != nil {
		ctl.send(report{Error: err.Error()}) // the server also sees the exit code
		return failed
	}
	return failed // not reached: build ends in exec
}

func (s spec) build(ctl control) error {
	// The thread that started this may end before its process does; the reaper
	// therefore also ends when the control socket does.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return step("setting the parent death signal", err)
	}
	if m, err := ctl.receive(); err != nil || m != msgBuild {
		return errors.New("the server went away")
	}
	if s.Plan.Tier.Namespaced() {
		if err := s.enter(ctl); err != nil {
			return err
		}
	}
	if err := unix.CloseRange(controlFD+1, ^uint(0)>>33, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return step("marking descriptors", err)
	}
	if err := s.dropRights(); err != nil {
		return err
	}
	return step("becoming the reaper", unix.Exec("/proc/self/exe", []string{reaperName}, nil))
}

func step(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// enter makes file system, host name and network what the plan says.
func (s spec) enter(ctl control) error {
	if err := step("setting the host name", unix.Sethostname([]byte(s.Plan.Name))); err != nil {
		return err
	}
	if err := step("setting the domain name", unix.Setdomainname([]byte("(none)"))); err != nil {
		return err
	}
	if err := s.mountAll(); err != nil {
		return err
	}
	fds, err := s.listen()
	if err != nil {
		return err
	}
	if len(fds) == 0 {
		return nil
	}
	if err := step("handing over listeners", ctl.send(report{Listeners: len(fds)}, fds...)); err != nil {
		return err
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	return nil
}

// listen brings the loopback up and opens the plan's sockets on it.
func (s spec) listen() (fds []int, err error) {
	if err := step("bringing up the loopback", loopback("lo", netip.Addr{})); err != nil {
		return nil, err
	}
	added := map[netip.Addr]bool{}
	for _, l := range s.Plan.Listen {
		at := netip.MustParseAddrPort(l.Addr) // checked with the plan
		if !at.Addr().IsLoopback() && !added[at.Addr()] {
			name := fmt.Sprintf("lo:%d", len(added)+1)
			if err := step("adding "+at.Addr().String(), loopback(name, at.Addr())); err != nil {
				return nil, err
			}
			added[at.Addr()] = true
		}
		fd, err := listenTCP(at)
		if err != nil {
			return nil, step("listening on "+l.Addr, err)
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

func listenTCP(at netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return 0, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}); err != nil {
		return 0, err
	}
	return fd, unix.Listen(fd, 1024)
}

// loopback gives the interface an address, if there is one, and brings it up.
func loopback(name string, addr netip.Addr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if addr.IsValid() {
		a := addr.As4()
		if err := ifr.SetInet4Addr(a[:]); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFADDR, ifr); err != nil {
			return err
		}
		if err := ifr.SetInet4Addr(net.IPv4bcast.To4()); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFNETMASK, ifr); err != nil {
			return err
		}
		return nil
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

// dropRights leaves this thread no capability, no group and no way to get one.
func (s spec) dropRights() error {
	for c := 0; c <= 63; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break // the kernel has no more
		}
		if err != nil && s.Plan.Tier.Namespaced() {
			return step("emptying the bounding set", err)
		}
	}
	if s.Switch {
		if err := s.become(); err != nil {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return step("clearing ambient capabilities", err)
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&hdr, &none[0]); err != nil {
		return step("dropping capabilities", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return step("setting no_new_privs", err)
	}
	// Changing the user cleared it.
	return step("setting the parent death signal", unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0))
}

// become changes this thread's user for good. It uses the bare calls, which
// concern the calling thread alone; no other outlives the exec that follows.
func (s spec) become() error {
	id := uintptr(s.UID)
	var none [1]uint32
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, 0, uintptr(unsafe.Pointer(&none[0])), 0); e != 0 {
		return step("leaving all groups", e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, id, id, id); e != 0 {
		return step("changing the group", e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, id, id, id); e != 0 {
		return step("changing the user", e)
	}
	return nil
}
