package compute

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"castellan/internal/node"
)

// Config is what a Service needs. Dir is the one field without a default.
type Config struct {
	Dir   string                       // scratch folder of this installation alone; what lies in it at the start is wiped
	Tools []string                     // folders of the host that every task may read
	Names func(tenant string) []string // host names of the platform and of a tenant, asked at each start; nil means none
	CA    func() []byte                // PEM of the platform's authority; nil means none
	Edge  Serve                        // serves the platform's TLS edge; nil means tasks do not reach it
	Proxy Serve                        // serves a CONNECT proxy to the edge alone; nil means none
	Slots int                          // tasks that run at once; 0 means 16
	// Sealed refuses a scratch folder that would leave on a disk what tasks had in it.
	Sealed bool
}

// Serve serves a listener inside the sandbox of this name until l is closed.
type Serve func(sandbox string, l net.Listener) error

// firstUser is the host user of the first slot in tier root: far above those
// of people, services and other programs' containers.
const firstUser = 2_000_000_000

// Service runs tasks.
type Service struct {
	cfg      Config
	standing node.Standing
	slots    chan int
	scratch  string // what becomes of what tasks leave in the scratch folder
}

// What becomes of what a task leaves in its folder, on the disk.
const (
	keyScratch    = "key"    // it is under a key of the task's own, which is forgotten at its end
	memoryScratch = "memory" // it is on no disk, unless the machine swaps
	plainScratch  = "plain"  // it is removed, as files are
)

// Ended is how a task ended. When it is handed out nothing of the task runs.
type Ended struct {
	Code     int
	TimedOut bool
	Canceled bool
	Reason   string            // "" if the command ended by itself, else why, for people
	Tier     string            // the isolation that was really used
	Details  map[string]string // which limits the kernel held, and the like
}

// New finds out what this machine holds and wipes what a crash left behind.
func New(ctx context.Context, cfg Config) (*Service, error) {
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil || cfg.Dir == "" {
		return nil, fmt.Errorf("compute: Config.Dir is %q; it must be a folder", cfg.Dir)
	}
	cfg.Dir = dir
	if cfg.Slots == 0 {
		cfg.Slots = 16
	}
	if err := clear(dir); err != nil {
		return nil, fmt.Errorf("compute: %w", err)
	}
	s := &Service{cfg: cfg, standing: node.Probe(ctx), slots: make(chan int, cfg.Slots)}
	if s.scratch, err = probe(dir); err != nil {
		return nil, fmt.Errorf("compute: trying the scratch folder %s: %w", dir, err)
	}
	if cfg.Sealed && s.scratch == plainScratch {
		return nil, fmt.Errorf("compute: the scratch folder %s lies on a disk whose file system encrypts no folders, and what jobs leave must be sealed; name one on ext4 (made, or tuned, with -O encrypt), f2fs or tmpfs", dir)
	}
	for i := range cfg.Slots {
		s.slots <- i
	}
	return s, nil
}

// probe is what becomes of what tasks leave in dir, found by trying.
func probe(dir string) (string, error) {
	if node.InMemory(dir) {
		return memoryScratch, nil
	}
	try, err := os.MkdirTemp(dir, "probe-")
	if err != nil {
		return "", err
	}
	forget, err := node.Encrypt(try)
	if errors.Is(err, node.ErrPlain) {
		return plainScratch, os.Remove(try)
	}
	if err != nil {
		return "", errors.Join(err, os.Remove(try))
	}
	return keyScratch, errors.Join(os.Remove(try), forget())
}

// Seal sees to it that what will lie in a task's folder, which is empty yet, opens to
// nobody once forget was called, as far as the scratch folder can do that: how says
// how far. forget is called when the folder was wiped.
func (s *Service) Seal(dir string) (how string, forget func() error, err error) {
	if s.scratch != keyScratch {
		return s.scratch, func() error { return nil }, nil
	}
	forget, err = node.Encrypt(dir)
	return keyScratch, forget, err
}

// marker is a file that says that a folder is for scratch and may be wiped.
const marker = ".castellan-scratch"

// clear empties the scratch folder. A folder with something in it that no
// Service has marked as its own is left alone: it is a mistake to name it.
func clear(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if _, err := os.Lstat(filepath.Join(dir, marker)); err != nil && len(entries) > 0 {
		return fmt.Errorf("the folder %s is not empty and no scratch folder of Castellan; name another", dir)
	}
	for _, e := range entries {
		if e.Name() == marker {
			continue
		}
		old := filepath.Join(dir, e.Name())
		if err := errors.Join(node.ForgetKey(old), node.Wipe(old)); err != nil {
			return fmt.Errorf("wiping %s: %w", dir, err)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, marker), nil, 0o600)
}

// Standing is what this machine holds.
func (s *Service) Standing() node.Standing { return s.standing }

// Scratch is what becomes of what tasks leave on the disk: key, memory or plain.
func (s *Service) Scratch() string { return s.scratch }

// Sealed reports whether nobody can read what tasks left behind.
func (s *Service) Sealed() bool { return s.scratch != plainScratch }

// Dir is the scratch folder that tasks' folders must lie in.
func (s *Service) Dir() string { return s.cfg.Dir }

// Inside is where a task will see a path of the host below its Dir.
func (s *Service) Inside(path string) string {
	return Place{Dir: s.cfg.Dir, Tier: s.standing.Tier}.Inside(path)
}

// Address stands for a listener's host:port in values of Env.
func (s *Service) Address(listener string) string { return node.Place(listener) }

// Run runs a task to its end, or kills it when ctx is done. begun is called
// once, when its command has been started. An error means that it could not be
// started.
func (s *Service) Run(ctx context.Context, t Task, begun func(tier string)) (Ended, error) {
	if why := s.standing.Refusal(); why != "" {
		return Ended{}, errors.New(why)
	}
	var slot int
	select {
	case slot = <-s.slots:
	case <-ctx.Done():
		return Ended{}, ctx.Err()
	}
	defer func() { s.slots <- slot }()
	plan, err := Plan(t, s.place(slot, t.Tenant))
	if err != nil {
		return Ended{}, err
	}
	if s.standing.Tier == node.Landlock && s.cfg.Proxy != nil {
		plan.Env = append(plan.Env, "HTTPS_PROXY=http://"+node.Place(ProxyListener))
	}
	p, err := node.Start(ctx, plan)
	if err != nil {
		return Ended{}, err
	}
	if begun != nil {
		begun(plan.Tier.String())
	}
	var served sync.WaitGroup
	for name, l := range p.Listeners() {
		served.Go(func() { s.serve(t, name, l) })
	}
	exit := p.Wait() // and the listeners are closed
	served.Wait()
	return ended(exit, plan.Tier), nil
}

func (s *Service) place(slot int, tenant string) Place {
	pl := Place{Dir: s.cfg.Dir, Tier: s.standing.Tier, User: firstUser + slot, Edge: s.cfg.Edge != nil, Proxy: s.cfg.Proxy != nil,
		Tools: s.cfg.Tools, Grace: 2 * time.Second}
	if s.cfg.Names != nil {
		pl.Names = s.cfg.Names(tenant)
	}
	if s.cfg.CA != nil {
		pl.CA = s.cfg.CA()
	}
	return pl
}

// serve serves one listener until it is closed; that is how each of them ends.
func (s *Service) serve(t Task, name string, l net.Listener) {
	h := t.Listeners[name]
	switch {
	case h != nil:
		srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 60 * time.Second, MaxHeaderBytes: 32 << 10}
		srv.Serve(l)
		srv.Close()
	case name == EdgeListener:
		s.cfg.Edge(t.Name, l)
	case name == ProxyListener:
		s.cfg.Proxy(t.Name, l)
	}
}

func ended(x node.Exit, tier node.Tier) Ended {
	e := Ended{Code: x.Code, TimedOut: x.Reason == node.TimedOut, Canceled: x.Reason == node.Canceled, Tier: tier.String(),
		Details: map[string]string{"enforced": strings.Join(x.Enforced, ","), "advisory": strings.Join(x.Advisory, ",")}}
	if x.LogCut {
		e.Details["log"] = "cut"
	}
	switch {
	case x.Reason == node.Exited:
	case x.Detail != "":
		e.Reason = string(x.Reason) + ": " + x.Detail
	case x.Signal != "":
		e.Reason = string(x.Reason) + " " + x.Signal
	default:
		e.Reason = string(x.Reason)
	}
	return e
}
