//go:build linux && (amd64 || arm64)

package node

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data; the arguments' low halves, as both machines
// are little endian.
const (
	offNR   = 0
	offArch = 4
	offArg0 = 16
	offArg1 = 24
	offArg2 = 32
	offArg3 = 40
)

// newNamespaces are the flags of clone that make a namespace.
const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// denied are the system calls that no job needs and escapes have used: EPERM.
var denied = append([]int{
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_UNSHARE, unix.SYS_SETNS,
	unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR,
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_KCMP, unix.SYS_PIDFD_GETFD, unix.SYS_PROCESS_MADVISE,
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL,
	unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE,
	unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_FANOTIFY_INIT, unix.SYS_FANOTIFY_MARK,
	unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_REBOOT, unix.SYS_ACCT, unix.SYS_SYSLOG, unix.SYS_VHANGUP,
	unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_ADJTIMEX, unix.SYS_CLOCK_ADJTIME, unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME,
	unix.SYS_MIGRATE_PAGES, unix.SYS_MOVE_PAGES, unix.SYS_MKNODAT, unix.SYS_PERSONALITY,
}, deniedHere...)

// absent are calls that callers must believe the kernel does not have, so that
// they take the older one, whose arguments a filter can see: ENOSYS.
var absent = []int{unix.SYS_CLONE3}

const (
	retAllow = 0x7fff0000
	retErrno = 0x00050000
	retKill  = 0x80000000
)

// filter makes the seccomp program. stream leaves TCP over IPv4 as the one kind
// of socket, for a tier whose network is the host's.
func filter(stream bool) []unix.SockFilter {
	b := &bpf{}
	b.load(offArch)
	b.unless(nativeArch, retKill)
	b.load(offNR)
	b.above(maxNR, retErrno|uint32(unix.ENOSYS)) // also the calls of x32
	for _, n := range absent {
		b.when(uint32(n), retErrno|uint32(unix.ENOSYS))
	}
	for _, n := range denied {
		if n == unix.SYS_MKNODAT || n == unix.SYS_PERSONALITY {
			continue // looked at below
		}
		b.when(uint32(n), retErrno|uint32(unix.EPERM))
	}
	b.on(unix.SYS_CLONE, func() {
		b.load(offArg0)
		b.whenBits(newNamespaces, retErrno|uint32(unix.EPERM))
	})
	b.on(unix.SYS_IOCTL, func() { // typing into somebody's terminal
		b.load(offArg1)
		b.when(unix.TIOCSTI, retErrno|uint32(unix.EPERM))
		b.when(0x541C, retErrno|uint32(unix.EPERM)) // TIOCLINUX
	})
	b.on(unix.SYS_PERSONALITY, func() { // asking is fine, changing is not
		b.load(offArg0)
		b.when(0, retAllow)
		b.when(0xffffffff, retAllow)
		b.ret(retErrno | uint32(unix.EPERM))
	})
	b.on(unix.SYS_MKNODAT, func() { b.node(offArg2) })
	b.onMknod()
	b.on(unix.SYS_SOCKET, func() { b.socket(stream) })
	if stream { // sending with a connection by the way asks Landlock nothing
		for nr, flags := range map[int]uint32{unix.SYS_SENDTO: offArg3, unix.SYS_SENDMSG: offArg2, unix.SYS_SENDMMSG: offArg3} {
			b.on(nr, func() {
				b.load(flags)
				b.whenBits(unix.MSG_FASTOPEN, retErrno|uint32(unix.EPERM))
			})
		}
	}
	b.ret(retAllow)
	return b.prog
}

// node lets pipes, sockets and files be made, and no devices.
func (b *bpf) node(modeAt uint32) {
	b.load(modeAt)
	b.and(unix.S_IFMT)
	b.when(unix.S_IFCHR, retErrno|uint32(unix.EPERM))
	b.when(unix.S_IFBLK, retErrno|uint32(unix.EPERM))
	b.ret(retAllow)
}

func (b *bpf) socket(stream bool) {
	refuse := uint32(retErrno | uint32(unix.EPERM))
	if stream {
		b.load(offArg1)
		b.and(0xf)
		b.unless(unix.SOCK_STREAM, refuse)
		b.load(offArg0)
		b.unless(unix.AF_INET, refuse)
		b.load(offArg2) // Landlock's rules are for TCP alone
		b.when(0, retAllow)
		b.when(unix.IPPROTO_TCP, retAllow)
		b.ret(refuse)
		return
	}
	// A vsock, among others, is the same in all network namespaces.
	b.load(offArg0)
	for _, f := range []uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6} {
		b.when(f, retAllow)
	}
	b.unless(unix.AF_NETLINK, refuse)
	b.load(offArg2)
	b.unless(unix.NETLINK_ROUTE, refuse)
	b.ret(retAllow)
}

// bpf assembles a filter.
type bpf struct{ prog []unix.SockFilter }

func (b *bpf) add(code uint16, jt, jf uint8, k uint32) {
	b.prog = append(b.prog, unix.SockFilter{Code: code, Jt: jt, Jf: jf, K: k})
}

func (b *bpf) load(off uint32) { b.add(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, 0, 0, off) }
func (b *bpf) and(k uint32)    { b.add(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, 0, 0, k) }
func (b *bpf) ret(r uint32)    { b.add(unix.BPF_RET|unix.BPF_K, 0, 0, r) }

func (b *bpf) when(k, r uint32) {
	b.add(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, 0, 1, k)
	b.ret(r)
}

func (b *bpf) unless(k, r uint32) {
	b.add(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, 1, 0, k)
	b.ret(r)
}

func (b *bpf) above(k, r uint32) {
	b.add(unix.BPF_JMP|unix.BPF_JGT|unix.BPF_K, 0, 1, k)
	b.ret(r)
}

func (b *bpf) whenBits(k, r uint32) {
	b.add(unix.BPF_JMP|unix.BPF_JSET|unix.BPF_K, 0, 1, k)
	b.ret(r)
}

// on runs body for system call nr; what body does not decide is allowed.
func (b *bpf) on(nr int, body func()) {
	at := len(b.prog)
	b.add(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, 0, 0, uint32(nr))
	body()
	b.ret(retAllow)
	b.prog[at].Jf = uint8(len(b.prog) - at - 1)
}

// filterThread loads the filter for the calling thread and all it starts.
func filterThread(stream bool) error {
	prog := filter(stream)
	f := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&f))); e != 0 {
		return fmt.Errorf("seccomp: %w", e)
	}
	return nil
}
