package ml

import (
	"context"
	"errors"
	"sync"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// openJobs has the jobs of which not all is done yet, in the order in which
// they were submitted. A row goes when history knows how its job ended.
const openJobs = "ml_jobs_open"

// openJob is a row of openJobs.
type openJob struct {
	ID       arm.ID `json:"id"`
	Instance string `json:"instance"`
}

// retry is how long the engine waits before it tries again what failed.
const retry = 2 * time.Second

// errKilled is the cause for which a canceled job's context ends.
var errKilled = errors.New("the job was canceled")

// errShut is the cause for which a job's context ends when its workspace's key was
// taken away.
var errShut = errors.New("the workspace's key can't be used")

const lostKey = "The key of the workspace could not be used while the job ran, so the job was ended; submit it again."

// errOver says that a job is over, and so was not changed.
var errOver = errors.New("the job is over")

// engine runs jobs, each in a goroutine of its own that run waits for.
type engine struct {
	s    *Service
	poke chan struct{}

	mu   sync.Mutex // guards busy
	busy map[string]*execution
}

// execution is a job under way.
type execution struct {
	cluster arm.ID
	job     string
	size    Size
	cancel  context.CancelCauseFunc
}

func newEngine(s *Service) *engine {
	return &engine{s: s, poke: make(chan struct{}, 1), busy: map[string]*execution{}}
}

// wake says that there may be something to do. It never waits.
func (e *engine) wake() {
	select {
	case e.poke <- struct{}{}:
	default:
	}
}

// kill stops a job that is under way. It never waits.
func (e *engine) kill(instance string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if x := e.busy[instance]; x != nil {
		x.cancel(errKilled)
	}
}

// onCluster lists the jobs under way on a cluster.
func (e *engine) onCluster(id arm.ID) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []string
	for _, x := range e.busy {
		if x.cluster.Key() == id.Key() {
			out = append(out, x.job)
		}
	}
	return out
}

// usedCPUs is how many of the machine's CPUs jobs hold.
func (e *engine) usedCPUs() (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range e.busy {
		n += x.size.CPUs
	}
	return n
}

// run starts jobs until ctx is done, and returns when none is under way.
func (e *engine) run(ctx context.Context) error {
	if err := e.recover(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	e.wake()
	for {
		again := time.NewTimer(time.Hour)
		select {
		case <-ctx.Done():
			again.Stop()
			return nil
		case <-e.poke:
		case <-again.C:
		}
		again.Stop()
		if e.dispatch(ctx, &wg) {
			time.AfterFunc(retry, e.wake)
		}
	}
}

// recover settles what the last process left: a job whose command may have run
// has failed, for nobody knows how far it came; one that never began waits again.
func (e *engine) recover(ctx context.Context) error {
	open, err := e.open(ctx)
	if err != nil {
		return err
	}
	for _, j := range open {
		if err := e.settle(ctx, j, "The server ended while the job ran, and the job with it; submit it again."); err != nil {
			if !shut(err) {
				return err
			}
			e.s.Log.Warn("a job's workspace can't be read; it is settled when it can", "job", j.ID.String(), "error", err)
		}
	}
	return nil
}

// settle ends or requeues a job that nobody runs any more; why is for one whose
// command had begun.
func (e *engine) settle(ctx context.Context, j openJob, why string) error {
	err := e.s.setJob(ctx, j, func(in *jobInner) {
		now := e.s.Now().UTC()
		switch {
		case in.Launched && in.Cancel, !in.Launched && in.Cancel:
			in.Status, in.Ended = Canceled, now
		case in.Launched:
			in.Status, in.Ended, in.Error = Failed, now, why
		case in.Status != NotStarted:
			in.Status = Queued
		}
	})
	if errors.Is(err, errOver) || arm.CodeOf(err) == arm.NotFound {
		return nil
	}
	return err
}

// shut reports whether err is that a workspace's key can't be used.
func shut(err error) bool {
	_, ok := errors.AsType[*store.Shut](err)
	return ok
}

func (e *engine) open(ctx context.Context) (out []openJob, err error) {
	err = e.s.DB.View(ctx, func(tx *store.Tx) (err error) {
		out, err = store.ScanJSON[openJob](tx, openJobs, "", "", 0)
		return err
	})
	return out, err
}

// dispatch looks at every open job, in order, and starts what may start. again
// says that something failed that may work later.
func (e *engine) dispatch(ctx context.Context, wg *sync.WaitGroup) (again bool) {
	open, err := e.open(ctx)
	if err != nil {
		return ctx.Err() == nil
	}
	for _, j := range open {
		if e.isBusy(j.Instance) {
			continue
		}
		if err := e.consider(ctx, j, wg); err != nil && ctx.Err() == nil {
			if again = true; shut(err) {
				continue // whoever took the key away knows
			}
			e.s.Log.Error("a job could not be moved on", "job", j.ID.String(), "error", err)
		}
	}
	return again
}

func (e *engine) isBusy(instance string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.busy[instance] != nil
}

// consider takes the next step with one job that nobody runs.
func (e *engine) consider(ctx context.Context, j openJob, wg *sync.WaitGroup) error {
	if e.s.Gate.Ready != nil {
		e.s.Gate.Ready(ctx, j.ID)
	}
	d, in, err := e.s.job(ctx, j)
	if arm.CodeOf(err) == arm.NotFound {
		return nil // its removal takes the row
	}
	if err != nil {
		return err
	}
	switch {
	case in.Status.Over():
		return e.conclude(ctx, j)
	case in.Status == NotStarted:
		if err := e.announce(ctx, j); err != nil {
			return err
		}
	case in.Status != Queued: // its end could not be written down
		defer e.wake()
		return e.settle(ctx, j, lostKey)
	}
	var (
		cl cluster
		ok bool
	)
	p, err := props[jobProps](d)
	if err != nil {
		return err
	}
	err = e.s.DB.View(ctx, func(tx *store.Tx) (err error) {
		cl, ok, err = e.s.clusterIn(tx, p.ComputeID.ID)
		return err
	})
	if err != nil || !ok {
		why := "The cluster " + p.ComputeID.Name() + " was deleted before the job began."
		if err != nil {
			_, why = gate.PublicError(err)
		}
		return errors.Join(e.s.finish(ctx, j, Failed, why), e.conclude(ctx, j))
	}
	e.start(ctx, j, cl, wg)
	return nil
}

// start runs a job, if its cluster has a node free and the machine has room.
func (e *engine) start(ctx context.Context, j openJob, cl cluster, wg *sync.WaitGroup) {
	jctx, cancel := context.WithCancelCause(ctx)
	x := &execution{cluster: cl.Doc.ID, job: j.ID.Name(), size: cl.size, cancel: cancel}
	if !e.claim(j.Instance, x, cl.Cluster.Scale.Max) {
		cancel(nil)
		return
	}
	wg.Add(1)
	go func() {
		defer wg.Done()
		defer cancel(nil)
		e.s.execute(jctx, j, cl)
		if err := e.conclude(context.WithoutCancel(ctx), j); err != nil {
			e.s.Log.Error("history was not told how a job ended", "job", j.ID.String(), "error", err)
			time.AfterFunc(retry, e.wake)
		}
		e.mu.Lock()
		delete(e.busy, j.Instance)
		e.mu.Unlock()
		e.wake()
	}()
}

func (e *engine) claim(instance string, x *execution, nodes int) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	cpus, memory := x.size.CPUs, x.size.MemoryMB
	for _, o := range e.busy {
		if o.cluster.Key() == x.cluster.Key() {
			nodes--
		}
		cpus, memory = cpus+o.size.CPUs, memory+o.size.MemoryMB
	}
	if nodes < 1 || cpus > e.s.Machine.CPUs || memory > e.s.Machine.MemoryMB {
		return false
	}
	e.busy[instance] = x
	return true
}
