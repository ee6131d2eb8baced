//go:build linux && (amd64 || arm64)

package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// The two standings of this program inside a sandbox, told by its argv[0].
const (
	initName   = "castellan-init"   // builds the sandbox, then becomes the reaper
	reaperName = "castellan-reaper" // starts the command, reaps, watches, reports
)

// What both inherit, beside the standard three.
const (
	specFD    = 3 // sealed file with the spec
	controlFD = 4 // socket to the server
)

// spec is what a sandbox is told by the server.
type spec struct {
	Plan    Plan
	Users   bool // there is a user namespace of its own
	UID     int  // the command's user and group as seen inside
	Switch  bool // the reaper starts as another user and must become UID
	ABI     int  // Landlock's
	Ports   []int
	Probe   bool   // build everything and run nothing
	HostCAs []byte `json:"-"` // PEM, read by the server; it follows the rest as it is
	Rest    int    // bytes of HostCAs
	Watch   bool   // the kernel does not hold the memory limit: watch it
}

// report is one message from the sandbox to the server.
type report struct {
	Error     string `json:",omitempty"` // the sandbox could not be built
	Listeners int    `json:",omitempty"` // so many descriptors come along
	Started   bool   `json:",omitempty"`
	Exit      *ended `json:",omitempty"`
}

type ended struct {
	Code   int
	Signal string
	Reason Reason
	Detail string
}

// specFile puts s into a sealed anonymous file: it may hold tokens, which are
// thus never on disk and gone with the last descriptor.
func specFile(s spec) (*os.File, error) {
	s.Rest = len(s.HostCAs)
	b, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	b = append(b, s.HostCAs...)
	fd, err := unix.MemfdCreate("castellan-spec", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "spec")
	if _, err := f.Write(b); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := seal(fd); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func seal(fd int) error {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	return err
}

func readSpec() (s spec, err error) {
	// No os.File: the descriptor is read in more than one stage, and what the
	// garbage collector finds unused it closes.
	var st unix.Stat_t
	if err := unix.Fstat(specFD, &st); err != nil {
		return s, fmt.Errorf("reading the spec: %w", err)
	}
	b := make([]byte, st.Size)
	for at := 0; at < len(b); {
		n, err := unix.Pread(specFD, b[at:], int64(at))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return s, fmt.Errorf("reading the spec: %w", err)
		}
		if n == 0 {
			return s, errors.New("the spec is cut")
		}
		at += n
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&s); err != nil {
		return s, err
	}
	if at := int(d.InputOffset()); at+s.Rest == len(b) {
		s.HostCAs = b[at:]
		return s, nil
	}
	return s, errors.New("the spec is cut")
}

// control is the sandbox's end of the socket to the server; it is used through
// plain system calls, so that it also works on a thread that seccomp filters.
type control struct{ fd int }

func (c control) send(r report, fds ...int) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	return unix.Sendmsg(c.fd, b, oob, nil, unix.MSG_NOSIGNAL)
}

// receive waits for one message of the server; an error means that it is gone.
func (c control) receive() (byte, error) {
	var b [1]byte
	for {
		n, err := unix.Read(c.fd, b[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return 0, io.EOF
		}
		return b[0], nil
	}
}

// Messages of the server.
const (
	msgBuild = 'b' // limits are in place: build the sandbox
	msgStop  = 's' // ask the command to end
)

// peer is the server's end.
type peer struct{ c *net.UnixConn }

func newPeer() (peer, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return peer{}, nil, fmt.Errorf("socketpair: %w", err)
	}
	far := os.NewFile(uintptr(fds[1]), "control")
	near := os.NewFile(uintptr(fds[0]), "control")
	c, err := net.FileConn(near)
	near.Close()
	if err != nil {
		return peer{}, nil, errors.Join(err, far.Close())
	}
	return peer{c.(*net.UnixConn)}, far, nil
}

func (p peer) tell(m byte) error {
	_, err := p.c.Write([]byte{m})
	return err
}

// hear waits for one report until the deadline, if there is one.
func (p peer) hear(deadline time.Time) (r report, files []*os.File, err error) {
	if err := p.c.SetReadDeadline(deadline); err != nil {
		return r, nil, err
	}
	b, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4*maxListen))
	n, on, _, _, err := p.c.ReadMsgUnix(b, oob)
	if err != nil {
		return r, nil, err
	}
	if n == 0 {
		return r, nil, io.EOF
	}
	if msgs, err := unix.ParseSocketControlMessage(oob[:on]); err == nil {
		for i := range msgs {
			fds, _ := unix.ParseUnixRights(&msgs[i]) // other messages hold no descriptors
			for _, fd := range fds {
				unix.CloseOnExec(fd)
				files = append(files, os.NewFile(uintptr(fd), "listener"))
			}
		}
	}
	return r, files, json.Unmarshal(b[:n], &r)
}
