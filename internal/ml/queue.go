package ml

import (
	"context"
	"errors"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// settled tells history of a new job before its PUT is answered, so that who
// asks for its run next finds it; and of one that was deleted before its end.
func (e *engine) settled(d *resource.Doc) {
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	err := e.announce(ctx, openJob{d.ID, d.Instance})
	if in, bad := inner[jobInner](d); arm.CodeOf(err) == arm.NotFound && bad == nil && !in.Status.Over() {
		ws := d.ID.Parent()
		err = e.s.Runs.Update(ctx, e.s.history(ws, d.Name), ws, d.Name, Update{Status: Canceled, Ended: e.s.Now().UTC()})
	}
	if err != nil && !errors.Is(err, errOver) && arm.CodeOf(err) != arm.NotFound {
		e.s.Log.Error("history was not told of a job yet", "job", d.ID.String(), "error", err)
	}
	e.wake()
}

// announce makes the run of a job that has none, and queues the job.
func (e *engine) announce(ctx context.Context, j openJob) error {
	d, in, err := e.s.job(ctx, j)
	if err != nil || in.Status != NotStarted {
		return err
	}
	p, err := props[jobProps](d)
	if err != nil {
		return err
	}
	ws := d.ID.Parent()
	name := p.DisplayName
	if name == "" {
		name = d.Name
	}
	exp, err := e.s.Runs.Create(ctx, e.s.history(ws, d.Name), ws, Run{
		ID: d.Name, Experiment: p.Experiment, DisplayName: name, User: in.By.caller(), Tags: p.Tags, Properties: p.Properties, Started: in.Submitted,
	})
	if err != nil {
		return err
	}
	return e.s.setJob(ctx, j, func(in *jobInner) {
		if in.Status == NotStarted {
			in.Status, in.ExpID = Queued, exp
		}
	})
}

// history is the worker that writes a job's run.
func (s *Service) history(workspace arm.ID, run string) arm.Caller {
	c := s.system("keeping the history of job "+run, workspace, writeRuns, writeArtifacts)
	c.Lease.Item = run
	return c
}

var (
	writeRuns      = arm.NewAction(workspaceType+"/experiments/runs/write", "begin runs and write to them")
	writeArtifacts = arm.NewAction(workspaceType+"/metadata/artifacts/write", "write the artifacts of runs")
)

// job loads an open job; arm.NotFound says that it is gone.
func (s *Service) job(ctx context.Context, j openJob) (d *resource.Doc, in jobInner, err error) {
	err = s.DB.View(ctx, func(tx *store.Tx) (err error) {
		d, in, err = jobIn(tx, j.ID)
		return err
	})
	if err == nil && d.Instance != j.Instance {
		err = arm.Errorf(arm.NotFound, "the job %s was replaced", j.ID.Name())
	}
	return d, in, err
}

// setJob changes where a job is. A job that is over is never changed: errOver.
func (s *Service) setJob(ctx context.Context, j openJob, change func(in *jobInner)) error {
	g, err := s.Gate.Admit(ctx, s.system("running the job "+j.ID.Name(), j.ID, writeJob), writeJob, gate.Target{ID: j.ID})
	if err != nil {
		return err
	}
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		d, in, err := jobIn(tx, j.ID)
		if err != nil {
			return err
		}
		if d.Instance != j.Instance {
			return arm.Errorf(arm.NotFound, "the job %s was replaced", j.ID.Name())
		}
		if in.Status.Over() {
			return errOver
		}
		change(&in)
		if err := setInner(d, in); err != nil {
			return err
		}
		return resource.Save(tx, d)
	})
	return g.Close(ctx, err)
}

// finish ends a job.
func (s *Service) finish(ctx context.Context, j openJob, status Status, why string) error {
	return s.setJob(ctx, j, func(in *jobInner) {
		in.Status, in.Ended, in.Error = status, s.Now().UTC(), why
	})
}

// conclude tells history how a job ended, and closes its row.
func (e *engine) conclude(ctx context.Context, j openJob) error {
	d, in, err := e.s.job(ctx, j)
	if arm.CodeOf(err) == arm.NotFound {
		return nil
	}
	if err != nil || !in.Status.Over() {
		return err
	}
	ws := d.ID.Parent()
	err = e.s.Runs.Update(ctx, e.s.history(ws, d.Name), ws, d.Name, Update{Status: in.Status, Started: in.Started, Ended: in.Ended, Error: in.Error})
	if err != nil && arm.CodeOf(err) != arm.NotFound {
		return err
	}
	return e.s.DB.Do(ctx, func(tx *store.Tx) error { return tx.Delete(openJobs, in.Queue) })
}
