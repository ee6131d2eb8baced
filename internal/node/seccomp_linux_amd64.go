package node

import "golang.org/x/sys/unix"

const nativeArch = unix.AUDIT_ARCH_X86_64

// maxNR is above every call of this machine that a job may know, and below x32's.
const maxNR = 0x3fffffff

var deniedHere = []int{
	unix.SYS_IOPL, unix.SYS_IOPERM, unix.SYS_MODIFY_LDT, unix.SYS_USELIB, unix.SYS_USTAT, unix.SYS_SYSFS, unix.SYS__SYSCTL,
	unix.SYS_CREATE_MODULE, unix.SYS_GET_KERNEL_SYMS, unix.SYS_QUERY_MODULE, unix.SYS_NFSSERVCTL, unix.SYS_LOOKUP_DCOOKIE, unix.SYS_KEXEC_LOAD,
}

func (b *bpf) onMknod() { b.on(unix.SYS_MKNOD, func() { b.node(offArg1) }) }
