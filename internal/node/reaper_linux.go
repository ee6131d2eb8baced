//go:build linux && (amd64 || arm64)

package node

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// reaper is process 1 of a sandbox (in tier Landlock: the parent of all its
// processes). It has no right that the command has not.
type reaper struct {
	s   spec
	ctl control

	mu     sync.Mutex // guards the rest
	reason Reason     // why it killed the command
	detail string
}

func runReaper() int {
	// Handlers, other than ignoring, are not inherited by the command. This comes
	// before the thread is locked: from a locked one it takes milliseconds.
	signal.Notify(make(chan os.Signal, 1))
	r := &reaper{ctl: control{controlFD}}
	if err := r.run(); err != nil {
		r.ctl.send(report{Error: err.Error()}) // the server also sees the exit code
		return failed
	}
	return 0
}

func (r *reaper) run() (err error) {
	if r.s, err = readSpec(); err != nil {
		return err
	}
	runtime.GOMAXPROCS(1)
	warm(spareThreads)
	runtime.LockOSThread() // what follows limits this thread and the command it starts
	// Nothing of the command may look into this process, which knows the spec.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return step("shutting the reaper", err)
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return step("becoming the parent of orphans", err)
	}
	if err := unix.CloseRange(specFD, ^uint(0)>>33, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return step("marking descriptors", err)
	}
	if err := r.shut(); err != nil {
		return err
	}
	if r.s.Probe {
		if err := r.ctl.send(report{Started: true}); err != nil {
			return err
		}
		return r.ctl.send(report{Exit: &ended{Reason: Exited}})
	}
	pid, err := syscall.ForkExec(r.s.Plan.Argv[0], r.s.Plan.Argv, &syscall.ProcAttr{
		Dir: r.s.Plan.Dir, Env: r.s.Plan.Env, Files: []uintptr{0, 1, 2},
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return step("starting "+r.s.Plan.Argv[0], err)
	}
	if r.s.Watch { // on the command alone: this process must not starve while it watches
		n := uint64(r.s.Plan.Limits.Memory)
		if err := unix.Prlimit(pid, unix.RLIMIT_DATA, &unix.Rlimit{Cur: n, Max: n}, nil); err != nil && err != unix.ESRCH {
			syscall.Kill(pid, syscall.SIGKILL)
			return step("limiting memory", err)
		}
	}
	// The kernel, short of memory, shall take the command and not this process.
	os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("500"), 0) // a wish
	if err := r.ctl.send(report{Started: true}); err != nil {
		return err
	}
	go r.obey()
	if r.s.Watch {
		go r.watch()
	}
	end := r.wait(pid)
	if !r.s.Plan.Tier.Namespaced() {
		// This thread is as shut as the command and does not see /proc; others do.
		all := make(chan struct{})
		go func() { r.killAll(); close(all) }()
		<-all
	}
	return r.ctl.send(report{Exit: &end})
}

// spareThreads is more than the reaper ever blocks at a time.
const spareThreads = 8

// warm makes threads ahead. A command that uses up the processes which it may
// have leaves none to this process, whose runtime would end it over that.
func warm(n int) {
	var begun, ended sync.WaitGroup
	hold := make(chan struct{})
	for range n {
		begun.Add(1)
		ended.Add(1)
		go func() {
			defer ended.Done()
			runtime.LockOSThread()
			defer runtime.UnlockOSThread() // the thread stays, for others
			begun.Done()
			<-hold
		}()
	}
	begun.Wait()
	close(hold)
	ended.Wait()
}

// shut limits this thread, and so the command that it starts.
func (r *reaper) shut() error {
	l := r.s.Plan.Limits
	limits := map[int]uint64{
		unix.RLIMIT_CORE: 0, unix.RLIMIT_NOFILE: uint64(l.Open), unix.RLIMIT_FSIZE: uint64(l.Disk),
		unix.RLIMIT_MEMLOCK: 64 << 10, unix.RLIMIT_MSGQUEUE: 1 << 20,
	}
	if r.s.Users || r.s.Plan.Tier == Root {
		limits[unix.RLIMIT_NPROC] = uint64(l.Pids)
	}
	for what, max := range limits {
		if err := lower(what, max); err != nil {
			return step("lowering limit "+strconv.Itoa(what), err)
		}
	}
	if r.s.ABI > 0 {
		tcp := !r.s.Plan.Tier.Namespaced()
		if err := restrict(r.s.ABI, r.s.rules(), r.s.Ports, tcp); err != nil {
			return err
		}
	}
	return filterThread(!r.s.Plan.Tier.Namespaced())
}

// lower sets a limit, or leaves a lower one that is there.
func lower(what int, max uint64) error {
	var old unix.Rlimit
	if err := unix.Getrlimit(what, &old); err != nil {
		return err
	}
	n := min(max, old.Max)
	return unix.Setrlimit(what, &unix.Rlimit{Cur: n, Max: n})
}

// obey does what the server says, and ends everything once it is gone.
func (r *reaper) obey() {
	for {
		m, err := r.ctl.receive()
		if err != nil {
			if !r.s.Plan.Tier.Namespaced() {
				r.killAll()
			}
			os.Exit(failed) // process 1 takes all others along
		}
		if m == msgStop {
			r.signal(unix.SIGTERM)
		}
	}
}

// signal sends to every process of the sandbox but this.
func (r *reaper) signal(sig syscall.Signal) {
	if r.s.Plan.Tier.Namespaced() {
		syscall.Kill(-1, sig) // none left is fine
		return
	}
	for _, pid := range descendants() {
		syscall.Kill(pid, sig) // gone is fine
	}
}

// wait reaps until the command has ended.
func (r *reaper) wait(pid int) ended {
	for {
		var ws syscall.WaitStatus
		got, err := syscall.Wait4(-1, &ws, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return ended{Code: failed, Reason: Broken, Detail: "waiting: " + err.Error()}
		}
		if got == pid && (ws.Exited() || ws.Signaled()) {
			return r.outcome(ws)
		}
	}
}

func (r *reaper) outcome(ws syscall.WaitStatus) ended {
	e := ended{Code: ws.ExitStatus(), Reason: Exited}
	if ws.Signaled() {
		e = ended{Code: 128 + int(ws.Signal()), Signal: unix.SignalName(ws.Signal()), Reason: Signaled}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reason != "" {
		e.Reason, e.Detail = r.reason, r.detail
	}
	return e
}

// watchEvery is how often memory is added up where the kernel does not.
const watchEvery = 100 * time.Millisecond

// watch ends the sandbox when its processes together have more memory than the
// plan says. What is shared counts once a process: it errs on the strict side.
func (r *reaper) watch() {
	for range time.Tick(watchEvery) {
		var pids []int
		if r.s.Plan.Tier.Namespaced() {
			pids = processes()
		} else {
			pids = descendants()
		}
		if used := resident(pids); used > r.s.Plan.Limits.Memory {
			r.mu.Lock()
			r.reason, r.detail = OutOfMem, fmt.Sprintf("the processes have %d bytes of memory; the limit is %d", used, r.s.Plan.Limits.Memory)
			r.mu.Unlock()
			r.signal(unix.SIGKILL)
		}
	}
}

// resident is the memory of pids, without the pages of files.
func resident(pids []int) (sum int64) {
	for _, pid := range pids {
		if pid == os.Getpid() {
			continue
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue // it ended
		}
		for line := range strings.Lines(string(b)) {
			name, rest, _ := strings.Cut(line, ":")
			if name == "RssAnon" || name == "RssShmem" {
				kb, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
				sum += kb << 10
			}
		}
	}
	return sum
}

func processes() (pids []int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		if pid, err := strconv.Atoi(filepath.Base(d)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// descendants are all processes that this one is the parent of, or their
// parents' parent. Orphans come back to it, as it is a subreaper.
func descendants() (out []int) {
	children := map[int][]int{}
	for _, pid := range processes() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		// The name, in brackets, may hold anything; the parent is two words on.
		if f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:])); len(f) > 1 {
			ppid, _ := strconv.Atoi(f[1])
			children[ppid] = append(children[ppid], pid)
		}
	}
	for todo := []int{os.Getpid()}; len(todo) > 0; todo = todo[1:] {
		out = append(out, children[todo[0]]...)
		todo = append(todo, children[todo[0]]...)
	}
	return out
}

// killAll ends all descendants: first they are stopped, so that none forks on
// while others die.
func (r *reaper) killAll() {
	for range 200 {
		left := descendants()
		if len(left) == 0 {
			return
		}
		for _, pid := range left {
			syscall.Kill(pid, syscall.SIGSTOP)
		}
		for _, pid := range descendants() {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		for {
			got, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if err != nil || got <= 0 {
				break
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
}
