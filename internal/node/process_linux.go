//go:build linux && (amd64 || arm64)

package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const openSafely = unix.O_NOFOLLOW | unix.O_NONBLOCK

func diskSize(st fs.FileInfo) int64 {
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		return max(s.Blocks*512, 0)
	}
	return st.Size()
}

// buildTime is how long a sandbox may take to be built.
const buildTime = 20 * time.Second

// Process is a sandbox that runs.
type Process struct {
	cmd       *exec.Cmd
	peer      peer
	group     *cgroup
	plan      Plan
	watched   []*Folder
	listeners map[string]net.Listener
	logs      *logPump
	done      chan struct{} // closed when nothing of it runs any more
	exit      Exit          // readable when done is closed

	mu      sync.Mutex // guards the rest
	stopped Reason     // why it was told to stop
	detail  string
}

// Start runs the plan. When it returns without an error the command runs; the
// listeners take connections and wait to be served. When ctx is done the command
// is told to end and then killed.
func Start(ctx context.Context, p Plan) (*Process, error) {
	return start(ctx, p, false)
}

func start(ctx context.Context, p Plan, probe bool) (*Process, error) {
	p.Limits = p.Limits.WithDefaults()
	if err := p.Check(); err != nil {
		return nil, err
	}
	pr := &Process{plan: p, listeners: map[string]net.Listener{}, done: make(chan struct{})}
	s, err := pr.prepare(probe)
	if err == nil {
		err = pr.launch(s)
	}
	if err != nil {
		pr.abandon()
		return nil, fmt.Errorf("starting sandbox %s: %w", p.Name, err)
	}
	go pr.follow(ctx)
	return pr, nil
}

// prepare makes what the sandbox will be told.
func (p *Process) prepare(probe bool) (spec, error) {
	s := spec{UID: InnerUser, ABI: landlockABI(), Probe: probe, HostCAs: hostCAs()}
	switch p.plan.Tier {
	case Root:
		if os.Geteuid() != 0 {
			return s, errors.New("tier root needs the server to be root")
		}
		s.Users, s.Switch = usersWork(), true
		if !s.Users {
			s.UID = p.plan.User
		}
	case Userns:
		s.Users = true
	case Landlock:
		if s.ABI < minLandlock {
			return s, fmt.Errorf("tier landlock needs Landlock ABI %d; the kernel has %d", minLandlock, s.ABI)
		}
		if os.Geteuid() == 0 {
			return s, errors.New("tier landlock is not for root, whose rights Landlock does not take")
		}
		s.UID = os.Getuid()
		if err := p.hostListeners(&s); err != nil {
			return s, err
		}
	}
	if p.plan.Tier == Root {
		if err := p.giveAway(); err != nil {
			return s, err
		}
	}
	p.group = newCgroup(p.plan.Name, p.plan.Limits)
	s.Watch = p.group.dirs["memory"] == ""
	s.Plan = p.plan
	s.Plan.Env = p.placed()
	return s, nil
}

// giveAway makes the sandbox's user the owner of its private folders.
func (p *Process) giveAway() error {
	for _, m := range p.plan.Mounts {
		if !m.Private {
			continue
		}
		err := filepath.WalkDir(m.Host, func(name string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Lchown(name, p.plan.User, p.plan.User)
		})
		if err != nil {
			return fmt.Errorf("giving %s to user %d: %w", m.Host, p.plan.User, err)
		}
	}
	return nil
}

// hostListeners opens the plan's listeners on the host's loopback.
func (p *Process) hostListeners(s *spec) error {
	for _, l := range p.plan.Listen {
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		p.listeners[l.Name] = ln
		s.Ports = append(s.Ports, ln.Addr().(*net.TCPAddr).Port)
	}
	return nil
}

// placed is the plan's environment with listeners' addresses filled in.
func (p *Process) placed() []string {
	var pairs []string
	for _, l := range p.plan.Listen {
		addr := l.Addr
		if ln := p.listeners[l.Name]; ln != nil {
			addr = ln.Addr().String()
		}
		pairs = append(pairs, Place(l.Name), addr)
	}
	fill := strings.NewReplacer(pairs...)
	out := make([]string, len(p.plan.Env))
	for i, e := range p.plan.Env {
		out[i] = fill.Replace(e)
	}
	return out
}

// launch starts the sandbox's first process and waits until the command runs.
func (p *Process) launch(s spec) error {
	exe, err := ownProgram()
	if err != nil {
		return fmt.Errorf("copying the program: %w", err)
	}
	told, err := specFile(s)
	if err != nil {
		return err
	}
	defer told.Close()
	var far *os.File
	if p.peer, far, err = newPeer(); err != nil {
		return err
	}
	defer far.Close()
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	p.logs = newLogPump(out, p.plan.Log, p.plan.LogLimit)
	p.cmd = &exec.Cmd{Path: exe, Args: []string{initName}, Env: []string{}, Dir: "/",
		Stdout: in, Stderr: in, ExtraFiles: []*os.File{told, far}, SysProcAttr: attributes(s)}
	if err := p.cmd.Start(); err != nil {
		p.cmd = nil
		return err
	}
	in.Close()
	far.Close()
	if err := p.group.add(p.cmd.Process.Pid); err != nil {
		return err
	}
	if err := p.peer.tell(msgBuild); err != nil {
		return err
	}
	return p.settle()
}

// attributes are the namespaces and rights that the first process begins with.
func attributes(s spec) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if !s.Plan.Tier.Namespaced() {
		return a
	}
	a.Cloneflags = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP
	if !s.Users {
		return a
	}
	a.Cloneflags |= unix.CLONE_NEWUSER
	one := func(in, out int) syscall.SysProcIDMap {
		return syscall.SysProcIDMap{ContainerID: in, HostID: out, Size: 1}
	}
	if s.Plan.Tier == Root {
		ids := []syscall.SysProcIDMap{one(0, 0), one(s.UID, s.Plan.User)}
		a.UidMappings, a.GidMappings, a.GidMappingsEnableSetgroups = ids, ids, true
		return a
	}
	a.UidMappings = []syscall.SysProcIDMap{one(s.UID, os.Geteuid())}
	a.GidMappings = []syscall.SysProcIDMap{one(s.UID, os.Getegid())}
	// Not being user 0 inside, it keeps these through exec only so.
	a.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE, unix.CAP_SETPCAP, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER}
	return a
}

// settle takes reports until the command runs.
func (p *Process) settle() error {
	deadline := time.Now().Add(buildTime)
	for {
		r, files, err := p.peer.hear(deadline)
		if err != nil {
			return fmt.Errorf("it said nothing of its start: %w", err)
		}
		if err := p.adopt(files); err != nil {
			return err
		}
		if r.Error != "" {
			return errors.New(r.Error)
		}
		if r.Started {
			return nil
		}
	}
}

// adopt makes listeners of descriptors, which come in the plan's order.
func (p *Process) adopt(files []*os.File) error {
	for i, f := range files {
		ln, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return fmt.Errorf("taking a listener: %w", err)
		}
		if i >= len(p.plan.Listen) {
			return errors.Join(errors.New("there are more listeners than planned"), ln.Close())
		}
		p.listeners[p.plan.Listen[i].Name] = ln
	}
	return nil
}

// abandon undoes a start that failed.
func (p *Process) abandon() {
	if p.cmd != nil {
		p.cmd.Process.Kill()
		p.cmd.Wait()
	}
	p.release()
}

func (p *Process) release() {
	for _, l := range p.listeners {
		l.Close()
	}
	if p.peer.c != nil {
		p.peer.c.Close()
	}
	if p.logs != nil {
		p.logs.close()
	}
	if p.group != nil {
		p.group.remove()
	}
	for _, f := range p.watched {
		f.Close()
	}
}

// Listeners are the plan's listeners, by name. They end with the sandbox.
func (p *Process) Listeners() map[string]net.Listener { return p.listeners }

// Wait waits until nothing of the sandbox runs and tells how it ended.
func (p *Process) Wait() Exit {
	<-p.done
	return p.exit
}

// Done is closed when nothing of the sandbox runs any more.
func (p *Process) Done() <-chan struct{} { return p.done }

// Stop tells the command to end, and kills the sandbox after the plan's grace.
func (p *Process) Stop() { p.stop(Canceled, "") }

func (p *Process) stop(why Reason, detail string) {
	p.mu.Lock()
	first := p.stopped == ""
	if first {
		p.stopped, p.detail = why, detail
	}
	p.mu.Unlock()
	if !first {
		return
	}
	if p.plan.Grace == 0 || p.peer.tell(msgStop) != nil {
		p.kill()
		return
	}
	time.AfterFunc(p.plan.Grace, p.kill)
}

// kill ends process 1, and with it all others. In tier Landlock the reaper is
// what kills, once the control socket is shut; only then it is killed itself.
func (p *Process) kill() {
	if p.plan.Tier.Namespaced() {
		p.cmd.Process.Kill()
		return
	}
	p.peer.c.CloseWrite()
	time.AfterFunc(2*time.Second, func() { p.cmd.Process.Kill() })
}

// follow watches the sandbox to its end.
func (p *Process) follow(ctx context.Context) {
	var report *ended
	gone := make(chan struct{})
	go func() { report = p.listen(); close(gone) }()
	p.oversee(ctx, gone)
	p.cmd.Wait() // the code says less than the report
	p.exit = p.conclude(report)
	p.exit.LogBytes, p.exit.LogCut = p.logs.finish()
	p.release()
	close(p.done)
}

// listen takes reports until the sandbox is gone.
func (p *Process) listen() (last *ended) {
	for {
		r, files, err := p.peer.hear(time.Time{})
		if err != nil {
			return last
		}
		for _, f := range files {
			f.Close() // none is due any more
		}
		if r.Exit != nil {
			last = r.Exit
		}
		if r.Error != "" && last == nil {
			last = &ended{Code: failed, Reason: Broken, Detail: r.Error}
		}
	}
}

// oversee stops the sandbox for the caller, the clock or the disk.
func (p *Process) oversee(ctx context.Context, gone <-chan struct{}) {
	var timeout <-chan time.Time
	if p.plan.Timeout > 0 {
		t := time.NewTimer(p.plan.Timeout)
		defer t.Stop()
		timeout = t.C
	}
	canceled := ctx.Done()
	disk := time.NewTimer(diskEvery)
	defer disk.Stop()
	for {
		select {
		case <-gone:
			return
		case <-canceled:
			canceled = nil
			p.stop(Canceled, "")
		case <-timeout:
			p.stop(TimedOut, fmt.Sprintf("the command ran for %s", p.plan.Timeout))
		case <-disk.C:
			began := time.Now()
			p.checkDisk()
			disk.Reset(max(diskEvery, 10*time.Since(began)))
		}
	}
}

// diskEvery is how often the writable folders are measured.
const diskEvery = 250 * time.Millisecond

func (p *Process) checkDisk() {
	if p.watched == nil {
		for _, m := range p.plan.Mounts {
			if !m.Write {
				continue
			}
			if f, err := OpenFolder(m.Host); err == nil {
				p.watched = append(p.watched, f)
			}
		}
	}
	var bytes int64
	var files int
	l := p.plan.Limits
	for _, f := range p.watched {
		b, n := f.Usage(Bounds{Files: l.Files, Bytes: l.Disk})
		bytes, files = bytes+b, files+n
	}
	if bytes > l.Disk {
		p.stop(OutOfDisk, fmt.Sprintf("its folders have more than %d bytes", l.Disk))
	}
	if files > l.Files {
		p.stop(OutOfFiles, fmt.Sprintf("its folders have more than %d files, or are nested more than %d deep", l.Files, maxDepth))
	}
}

// conclude says how it ended: what stopped it goes before what that did to it.
func (p *Process) conclude(r *ended) Exit {
	e := Exit{Code: failed, Reason: Broken, Detail: "the sandbox ended without a report"}
	if r != nil {
		e = Exit{Code: r.Code, Signal: r.Signal, Reason: r.Reason, Detail: r.Detail}
	}
	if p.group.killed() && e.Code != 0 {
		e.Reason, e.Detail = OutOfMem, fmt.Sprintf("the kernel ended a process: the limit is %d bytes", p.plan.Limits.Memory)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped != "" {
		e.Reason, e.Detail = p.stopped, p.detail
		if r == nil {
			e.Code, e.Signal = 128+int(unix.SIGKILL), "SIGKILL"
		}
	}
	e.Enforced, e.Advisory = p.held()
	return e
}

// held says which limits the kernel held as a whole, and which not.
func (p *Process) held() (enforced, advisory []string) {
	enforced = p.group.enforced()
	for _, c := range []string{"cpu", "memory", "pids"} {
		switch {
		case p.group.dirs[c] != "":
		case c == "pids" && p.plan.Tier.Namespaced():
			enforced = append(enforced, c) // RLIMIT_NPROC of a user of its own
		default:
			advisory = append(advisory, c)
		}
	}
	return enforced, append(advisory, "disk")
}
