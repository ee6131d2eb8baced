//go:build linux && (amd64 || arm64)

package node

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// ownProgram is the path of a sealed copy of this program in memory, made when
// the first sandbox starts. Sandboxes run the copy: whatever a command does to
// the /proc/PID/exe that it may see, the file of the real program is out of reach.
var ownProgram = sync.OnceValues(copyProgram)

func copyProgram() (string, error) {
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", err
	}
	defer in.Close()
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("castellan", flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3 all may be executed
		fd, err = unix.MemfdCreate("castellan", flags)
	}
	if err != nil {
		return "", fmt.Errorf("memfd_create: %w", err)
	}
	// High, so that it is in nobody's way when descriptors are laid out for a
	// child. It stays open as long as this process lives.
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 200)
	if err != nil {
		unix.Close(fd)
		return "", fmt.Errorf("moving a descriptor: %w", err)
	}
	out := os.NewFile(uintptr(fd), "castellan")
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		return "", errors.Join(err, unix.Close(high))
	}
	if err := errors.Join(out.Chmod(0o555), seal(fd)); err != nil {
		return "", errors.Join(err, unix.Close(high))
	}
	return "/proc/self/fd/" + strconv.Itoa(high), nil
}
