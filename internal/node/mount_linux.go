//go:build linux && (amd64 || arm64)

package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// source is a file or folder of the host, opened before it is hidden.
type source struct {
	fd    int
	dir   bool
	link  string // for a symbolic link: where it points
	guest string
	attr  uint64 // of the mount
}

const (
	readOnly = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	writable = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	device   = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
)

// mountAll makes the sandbox's root: a small tmpfs in which only what is listed
// here is seen, and from which there is no way back.
func (s spec) mountAll() error {
	if err := step("detaching mounts from the host", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")); err != nil {
		return err
	}
	sources, err := s.sources()
	if err != nil {
		return err
	}
	root, err := newRoot()
	if err != nil {
		return err
	}
	for _, src := range sources {
		if err := step("showing "+src.guest, src.show(root)); err != nil {
			return err
		}
		unix.Close(src.fd)
	}
	if err := s.writeEtc(root); err != nil {
		return err
	}
	if err := s.special(root); err != nil {
		return err
	}
	return leave(root)
}

// sources opens all that is shown, while the host's names still hold.
func (s spec) sources() ([]source, error) {
	var out []source
	add := func(host, guest string, attr uint64, optional bool) error {
		src, err := openSource(host, guest, attr)
		if optional && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)) {
			return nil
		}
		if err != nil {
			return step("opening "+host, err)
		}
		out = append(out, src)
		return nil
	}
	for _, d := range systemDirs {
		if err := add(d, d, readOnly, true); err != nil {
			return nil, err
		}
	}
	for _, f := range etcFiles {
		if err := add("/etc/"+f, "/etc/"+f, readOnly, true); err != nil {
			return nil, err
		}
	}
	for _, d := range []string{"null", "zero", "full", "random", "urandom"} {
		if err := add("/dev/"+d, "/dev/"+d, device, false); err != nil {
			return nil, err
		}
	}
	for _, m := range s.Plan.Mounts {
		attr := uint64(readOnly)
		if m.Write {
			attr = writable
		}
		if err := add(m.Host, m.Guest, attr, false); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func openSource(host, guest string, attr uint64) (source, error) {
	fd, err := unix.Open(host, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return source{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return source{}, err
	}
	src := source{fd: fd, guest: guest, attr: attr, dir: st.Mode&unix.S_IFMT == unix.S_IFDIR}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		src.link, err = os.Readlink(host)
	}
	return src, err
}

// show makes the source appear in root. Links of the system stay links: what
// they point to is looked up inside.
func (src source) show(root string) error {
	at := filepath.Join(root, src.guest)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	if src.link != "" {
		return os.Symlink(src.link, at)
	}
	if err := makePoint(at, src.dir); err != nil {
		return err
	}
	from := fmt.Sprintf("/proc/self/fd/%d", src.fd)
	if err := unix.Mount(from, at, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return step("binding", err)
	}
	return step("setting attributes", unix.MountSetattr(unix.AT_FDCWD, at, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: src.attr}))
}

func makePoint(at string, dir bool) error {
	if dir {
		return os.MkdirAll(at, 0o755)
	}
	f, err := os.OpenFile(at, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// newRoot mounts the new root over a folder that every host has.
func newRoot() (string, error) {
	for _, d := range []string{"/tmp", "/mnt", "/var/tmp", "/run"} {
		if !exists(d) {
			continue
		}
		return d, step("mounting the root", unix.Mount("tmpfs", d, "tmpfs", unix.MS_NOSUID, "mode=0755,size=16m,nr_inodes=4096"))
	}
	return "", errors.New("the host has none of /tmp, /mnt, /var/tmp, /run")
}

// writeEtc writes the few files that programs need to find users and names.
func (s spec) writeEtc(root string) error {
	id := s.UID
	hosts := "127.0.0.1 localhost " + s.Plan.Name + "\n"
	for _, h := range s.Plan.Hosts {
		hosts += h.Addr + " " + h.Name + "\n"
	}
	ca := string(s.HostCAs) + "\n" + string(s.Plan.CA)
	files := map[string]string{
		"passwd":        fmt.Sprintf("root:x:0:0::/:/sbin/nologin\njob:x:%d:%d::%s:/bin/sh\nnobody:x:65534:65534::/:/sbin/nologin\n", id, id, s.home()),
		"group":         fmt.Sprintf("root:x:0:\njob:x:%d:\nnogroup:x:65534:\n", id),
		"hosts":         hosts,
		"hostname":      s.Plan.Name + "\n",
		"resolv.conf":   "# There is no DNS here; names stand in /etc/hosts.\nnameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
		"nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
		"os-release":    "ID=castellan-sandbox\nNAME=\"Castellan sandbox\"\n",
		"machine-id":    "",

		"ssl/certs/ca-certificates.crt": ca,
		"ssl/cert.pem":                  ca,
		"pki/tls/certs/ca-bundle.crt":   ca,
		"castellan/ca.pem":              string(s.Plan.CA),
	}
	for name, text := range files {
		at := filepath.Join(root, "etc", name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return step("writing /etc", err)
		}
		if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
			return step("writing /etc", err)
		}
	}
	return nil
}

func (s spec) home() string { return s.Plan.Dir }

// special mounts /proc, /dev/shm and, unless the plan brings one, /tmp.
func (s spec) special(root string) error {
	for _, d := range []string{"proc", "dev/shm", "tmp", "run", "var"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return step("making "+d, err)
		}
	}
	for name, to := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		if err := os.Symlink(to, filepath.Join(root, "dev", name)); err != nil {
			return step("linking /dev/"+name, err)
		}
	}
	small := fmt.Sprintf("mode=1777,size=%d,nr_inodes=65536", min(s.Plan.Limits.Memory/2, 1<<30))
	if err := unix.Mount("tmpfs", filepath.Join(root, "dev/shm"), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, small); err != nil {
		return step("mounting /dev/shm", err)
	}
	if !s.mounts("/tmp") {
		if err := unix.Mount("tmpfs", filepath.Join(root, "tmp"), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, small); err != nil {
			return step("mounting /tmp", err)
		}
	}
	if err := unix.Mount("proc", filepath.Join(root, "proc"), "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return step("mounting /proc", err)
	}
	return maskProc(filepath.Join(root, "proc"), filepath.Join(root, "dev/null"))
}

func (s spec) mounts(guest string) bool {
	for _, m := range s.Plan.Mounts {
		if m.Guest == guest {
			return true
		}
	}
	return false
}

// maskProc hides what tells of the host and freezes what changes it.
func maskProc(proc, null string) error {
	for _, f := range []string{"kcore", "kmsg", "keys", "key-users", "timer_list", "sched_debug", "latency_stats", "timer_stats", "kallsyms", "kpagecount", "kpageflags", "kpagecgroup", "config.gz", "slabinfo", "vmallocinfo", "mtrr", "modules", "sysrq-trigger"} {
		at := path.Join(proc, f)
		if !exists(at) {
			continue
		}
		if err := unix.Mount(null, at, "", unix.MS_BIND, ""); err != nil {
			return step("masking "+f, err)
		}
	}
	for _, d := range []string{"acpi", "scsi", "asound", "driver", "tty", "dynamic_debug", "fs", "irq", "bus"} {
		at := path.Join(proc, d)
		if !exists(at) {
			continue
		}
		if err := unix.Mount("tmpfs", at, "tmpfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=0,nr_inodes=1"); err != nil {
			return step("masking "+d, err)
		}
	}
	at := path.Join(proc, "sys")
	if err := unix.Mount(at, at, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return step("freezing /proc/sys", err)
	}
	return step("freezing /proc/sys", unix.MountSetattr(unix.AT_FDCWD, at, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: readOnly | unix.MOUNT_ATTR_NOEXEC}))
}

// leave makes root the one and only root, and freezes it.
func leave(root string) error {
	if err := unix.Chdir(root); err != nil {
		return step("entering the root", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return step("pivot_root", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return step("letting go of the host's root", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return step("entering /", err)
	}
	return step("freezing the root", unix.MountSetattr(unix.AT_FDCWD, "/", 0, &unix.MountAttr{Attr_set: readOnly}))
}

// hostCAs are the certificate authorities that the host trusts.
func hostCAs() []byte {
	for _, f := range []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem", "/etc/ssl/ca-bundle.pem"} {
		if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), "BEGIN CERTIFICATE") {
			return b
		}
	}
	return nil
}
