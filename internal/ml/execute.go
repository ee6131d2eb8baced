package ml

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// work is a job on its way through its sandbox.
type work struct {
	s    *Service
	open openJob
	w    workspace
	cl   cluster
	p    jobProps
	in   jobInner
	run  string
	who  identity // of its cluster; zero if that has none
	lent *Loan    // of the one who submitted it, if it runs with their identity
	dir  folders
	// scratch is what becomes of what lies in dir; forget ends it for good.
	scratch string
	forget  func() error
	logs    []LogFilter // what its log goes through
	hide    *redactor   // and what keeps secrets out of it
}

// folders are a job's, on the host.
type folders struct{ root, code, inputs, outputs string }

// execute takes a job from the queue to its end, whatever that is.
func (s *Service) execute(ctx context.Context, j openJob, cl cluster) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go s.watchKey(ctx, cancel, j)
	status, why := s.perform(ctx, j, cl)
	after, stop := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer stop()
	if status == "" {
		return
	}
	if err := s.finish(after, j, status, why); err != nil && !errors.Is(err, errOver) && arm.CodeOf(err) != arm.NotFound {
		s.Log.Error("a job's end was not recorded", "job", j.ID.String(), "error", err)
	}
}

// watchKey ends a job that runs when its workspace's key is taken away: what it has
// of the workspace goes with it.
func (s *Service) watchKey(ctx context.Context, cancel context.CancelCauseFunc, j openJob) {
	tick := time.NewTicker(keyWatch)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if s.Gate.Ready != nil {
			s.Gate.Ready(ctx, j.ID)
		}
		if _, _, err := s.job(ctx, j); shut(err) && gate.Status(err) == http.StatusForbidden {
			cancel(errShut)
			return
		}
	}
}

// perform is execute, and tells how the job ended.
func (s *Service) perform(ctx context.Context, j openJob, cl cluster) (Status, string) {
	k, err := s.begin(ctx, j, cl)
	if err != nil {
		return s.verdict(ctx, err)
	}
	defer func() {
		if err := errors.Join(wipe(k.dir.root), k.forget()); err != nil {
			s.Log.Error("a job's folder was not wiped, or its key not forgotten", "job", j.ID.String(), "error", err)
		}
	}()
	if err := k.stage(ctx); err != nil {
		return s.verdict(ctx, err)
	}
	if err := s.setJob(ctx, j, func(in *jobInner) { in.Launched = true }); err != nil {
		return s.verdict(ctx, err)
	}
	end, err := k.launch(ctx)
	s.live.end(k.w.Doc.ID, k.run)
	if err != nil {
		return s.verdict(ctx, err)
	}
	return k.finalize(ctx, end)
}

// verdict is how a job ends that did not get through. The empty status is of
// one that was over already, or that waits for another start of the server.
func (s *Service) verdict(ctx context.Context, err error) (Status, string) {
	switch {
	case errors.Is(err, errOver):
		return "", ""
	case errors.Is(context.Cause(ctx), errKilled):
		return Canceled, ""
	case errors.Is(context.Cause(ctx), errShut):
		return Failed, lostKey
	case ctx.Err() != nil:
		return "", ""
	}
	var e *arm.Error
	if errors.As(err, &e) && e.Code != arm.Internal {
		return Failed, e.Message
	}
	s.Log.Error("a job failed inside the platform", "error", err)
	_, why := gate.PublicError(err)
	return Failed, why
}

// begin loads all that the job is about and makes its folder.
func (s *Service) begin(ctx context.Context, j openJob, cl cluster) (*work, error) {
	k := &work{s: s, open: j, cl: cl, run: j.ID.Name(), hide: &redactor{}}
	if err := s.setJob(ctx, j, func(in *jobInner) { in.Status = Preparing }); err != nil {
		return nil, err
	}
	d, in, err := s.job(ctx, j)
	if err != nil {
		return nil, err
	}
	k.in = in
	if k.p, err = props[jobProps](d); err != nil {
		return nil, err
	}
	if k.w, err = s.load(ctx, d.ID.Parent()); err != nil {
		return nil, err
	}
	if bool(k.w.HBI) && !s.Sandboxes.Sealed() { // the server may have another scratch folder than when the workspace was made
		return nil, arm.Errorf(arm.Unsupported, "The workspace has hbiWorkspace, and this server's scratch folder isn't encrypted; nothing of the job was written to it.")
	}
	if s.Policies != nil { // they may be others than when it was submitted
		if err := s.DB.View(ctx, func(tx *store.Tx) (err error) {
			k.logs, err = s.Policies.Job(tx, d)
			return err
		}); err != nil {
			return nil, err
		}
	}
	if k.who, err = cl.identity(k.p.Identity); err != nil {
		return nil, err
	}
	if k.p.asUser() {
		k.lent = &Loan{Tenant: in.By.Tenant, User: in.By.Object, SignIn: in.By.SignIn, Sandbox: sandboxName(j.Instance)}
		if _, err := k.lender(ctx); err != nil {
			return nil, at("identity", err)
		}
	}
	if err := s.Runs.Update(ctx, s.history(k.w.Doc.ID, k.run), k.w.Doc.ID, k.run, Update{Status: Preparing}); err != nil {
		return nil, err
	}
	root := filepath.Join(s.Root, "job-"+j.Instance)
	k.dir = folders{root, filepath.Join(root, "code"), filepath.Join(root, "inputs"), filepath.Join(root, "outputs")}
	if err := wipe(root); err != nil {
		return nil, fmt.Errorf("clearing a job's folder: %w", err)
	}
	if err := os.Mkdir(root, 0o700); err != nil {
		return nil, fmt.Errorf("making a job's folder: %w", err)
	}
	if k.scratch, k.forget, err = s.Sandboxes.Seal(root); err != nil {
		return nil, errors.Join(fmt.Errorf("sealing a job's folder: %w", err), os.Remove(root))
	}
	for _, f := range []string{k.dir.code, k.dir.inputs, k.dir.outputs, filepath.Join(k.dir.code, "outputs"), filepath.Join(k.dir.code, "logs"), filepath.Join(root, "tmp")} {
		if err := os.Mkdir(f, 0o700); err != nil {
			return nil, errors.Join(fmt.Errorf("making a job's folder: %w", err), k.forget())
		}
	}
	return k, nil
}

// launch runs the command in a sandbox, with a token of its own.
func (k *work) launch(ctx context.Context) (Ended, error) {
	s := k.s
	timeout, err := k.timeout()
	if err != nil {
		return Ended{}, err
	}
	run := liveRun{workspace: k.w.Doc.ID, run: k.run, by: k.in.By, object: k.who.principal, kind: arm.ServicePrincipal, lent: k.lent != nil, tenant: k.w.tenant, hides: k.hide, sandbox: sandboxName(k.open.Instance)}
	if run.object == "" || run.lent {
		run.object, run.kind = k.in.By.Object, k.in.By.Kind
	}
	if timeout > 0 {
		run.until = s.Now().Add(timeout + time.Minute)
	}
	run = s.live.begin(run)
	if k.lent != nil {
		k.lent.ID = run.attempt
		s.People.Lend(*k.lent)
		defer s.People.Recall(k.lent.ID)
	}
	if ctx.Err() != nil { // a cancel before begin could not end it
		return Ended{}, ctx.Err()
	}
	token, expiry, err := s.signer.mint(run)
	if err != nil {
		return Ended{}, err
	}
	k.hide.hide(string(token.Reveal()))
	command, err := k.p.render(func(n string) string { return s.Sandboxes.Inside(k.input(n)) }, func(n string) string { return s.Sandboxes.Inside(k.output(n)) })
	if err != nil {
		return Ended{}, err
	}
	log, err := newLogs(k)
	if err != nil {
		return Ended{}, err
	}
	t := Task{
		Name: run.sandbox, Dir: k.dir.root, ReadOnly: []string{k.dir.inputs}, Work: k.dir.code,
		Command: []string{shell(), "-c", command}, CPUs: float64(k.cl.size.CPUs), MemoryMB: k.cl.size.MemoryMB, Timeout: timeout, Log: log, Tenant: k.w.tenant,
	}
	t.Env, t.Listeners = k.surroundings(token, expiry)
	end, err := k.whileLent(ctx, func(ctx context.Context) (Ended, error) { return s.Sandboxes.Run(ctx, t, k.begun) })
	return end, errors.Join(err, log.close())
}

// begun records that the command has been started.
func (k *work) begun(tier string) {
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	now := k.s.Now().UTC()
	err := k.s.setJob(ctx, k.open, func(in *jobInner) {
		in.Started, in.Tier = now, tier
		if in.Status == Preparing {
			in.Status = Running
		}
	})
	if err == nil {
		err = k.s.Runs.Update(ctx, k.s.history(k.w.Doc.ID, k.run), k.w.Doc.ID, k.run,
			Update{Status: Running, Started: now, Properties: map[string]string{"castellan.sandbox": tier, "castellan.cluster": k.cl.Doc.Name}})
	}
	if err != nil {
		k.s.Log.Error("a job's start was not recorded", "job", k.open.ID.String(), "error", err)
	}
}

// finalize keeps what the command left, and tells how the job ended.
func (k *work) finalize(ctx context.Context, end Ended) (Status, string) {
	after, stop := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Minute)
	defer stop()
	props := map[string]string{"castellan.exitCode": strconv.Itoa(end.Code), "castellan.scratch": k.scratch}
	for name, v := range end.Details {
		props["castellan.sandbox."+name] = v
	}
	err := k.s.setJob(after, k.open, func(in *jobInner) {
		in.Exit = &end.Code
		if in.Status == Running || in.Status == Preparing {
			in.Status = Finalizing
		}
	})
	if err == nil {
		err = k.s.Runs.Update(after, k.s.history(k.w.Doc.ID, k.run), k.w.Doc.ID, k.run, Update{Status: Finalizing, Properties: props})
	}
	if err == nil {
		err = k.collect(after)
	}
	killed := errors.Is(context.Cause(ctx), errKilled)
	switch {
	case killed:
		return Canceled, ""
	case errors.Is(context.Cause(ctx), errShut):
		return Failed, lostKey
	case ctx.Err() != nil:
		return Failed, "The server was stopped while the job ran, and the job with it; submit it again."
	case end.TimedOut:
		return Failed, "The command was ended when its time limit (" + k.p.Limits.Timeout + ") was over."
	case end.Reason != "":
		return Failed, "The command was ended by the sandbox: " + end.Reason + "."
	case end.Code != 0:
		return Failed, "The command ended with exit code " + strconv.Itoa(end.Code) + "; see user_logs/std_log.txt."
	case err != nil:
		status, why := k.s.verdict(after, err)
		return status, "The command succeeded, but its results could not be kept: " + why
	}
	return Completed, ""
}

func (k *work) timeout() (time.Duration, error) {
	if k.p.Limits == nil {
		return 0, nil
	}
	return duration(k.p.Limits.Timeout)
}

// input and output are where a port lies on the host.
func (k *work) input(name string) string {
	f := filepath.Join(k.dir.inputs, name)
	if in := k.p.Inputs[name]; in != nil && strings.EqualFold(in.Type, "uri_file") {
		if only, err := onlyFile(f); err == nil {
			return only
		}
	}
	return f
}

func (k *work) output(name string) string {
	f := filepath.Join(k.dir.outputs, name)
	if o := k.p.Outputs[name]; o != nil && strings.EqualFold(o.Type, "uri_file") {
		return filepath.Join(f, name)
	}
	return f
}

// onlyFile is the one entry of a folder.
func onlyFile(dir string) (string, error) {
	all, err := os.ReadDir(dir)
	if err != nil || len(all) != 1 {
		return "", errors.Join(err, os.ErrNotExist)
	}
	return filepath.Join(dir, all[0].Name()), nil
}

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// sandboxName is a name for a job's sandbox.
func sandboxName(instance string) string {
	name := "job-" + notInNames.ReplaceAllString(strings.ToLower(instance), "")
	return name[:min(len(name), 40)]
}

// shell is bash, as in Azure, or sh where there is none.
func shell() string {
	if _, err := os.Stat("/bin/bash"); err == nil {
		return "/bin/bash"
	}
	return "/bin/sh"
}

// reach finds a place as it is now, and by what the job gets at it.
func (k *work) reach(ctx context.Context, find func(tx *store.Tx) (location, error)) (l location, by Access, err error) {
	if err = k.s.DB.View(ctx, func(tx *store.Tx) (err error) {
		l, err = find(tx)
		return err
	}); err != nil {
		return l, by, err
	}
	as, err := k.acting(ctx)
	if err != nil {
		return l, by, err
	}
	by, used, err := k.s.access(ctx, k.w, l, as)
	k.hide.hide(used.texts()...)
	return l, by, err
}
