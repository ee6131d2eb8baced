package tracking

import (
	"context"
	"io"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// JobRun is the run of a job that begins.
type JobRun struct {
	ID          string // the job's name
	Experiment  string // its name; made if it is not there; "" is Default
	DisplayName string
	User        arm.Caller // who submitted the job
	Tags        map[string]string
	Properties  map[string]string
	Started     time.Time // when it was submitted; zero is now
}

// JobUpdate changes the run of a job. Zero fields leave what is; a status that
// is over is never left again.
type JobUpdate struct {
	Status     string // as Azure spells it
	Started    time.Time
	Ended      time.Time
	Error      string // why it failed, for people
	Tags       map[string]string
	Properties map[string]string
	Outputs    map[string]Output // named outputs, by name
}

// Output is an asset that a run made.
type Output struct {
	AssetID string `json:"assetId"`
	Type    string `json:"type"`
}

// CreateJobRun begins the run of a job, if it is not there, and tells the id of
// its experiment. The Grant is for RunsWrite on the workspace and the run. It is
// safe to repeat; a run of the same name that is no job's is in its way.
func (s *Service) CreateJobRun(ctx context.Context, g gate.Grant, j JobRun) (experiment string, err error) {
	if err := checkRunID(j.ID); err != nil {
		return "", err
	}
	if !strings.EqualFold(g.Item(), j.ID) {
		return "", arm.Errorf(arm.Forbidden, "the grant is for the run '%s', not for '%s'", g.Item(), j.ID)
	}
	err = s.change(ctx, g, RunsWrite, func(tx *store.Tx, w Workspace) error {
		if old, err := loadRun(tx, w.UID, j.ID); err == nil {
			if !old.Job {
				return arm.Errorf(arm.Conflict, "There is a run %s already, which is not that of a job.", old.ID)
			}
			experiment = old.Experiment
			return nil
		} else if arm.CodeOf(err) != notThere {
			return err
		}
		e, err := s.jobExperiment(tx, w.UID, j.Experiment)
		if err != nil {
			return err
		}
		experiment = e.ID
		return s.beginJob(tx, w, e, j)
	})
	return experiment, err
}

// jobExperiment is the experiment of a name, made if it is not there.
func (s *Service) jobExperiment(tx *store.Tx, ws, name string) (experiment, error) {
	if name == "" {
		name = defaultExperiment.Name
	}
	e, ok, err := experimentNamed(tx, ws, name)
	if err != nil {
		return e, err
	}
	if ok {
		return s.readyExperiment(tx, ws, e.ID)
	}
	if e, err = s.newExperiment(tx, ws, name); err != nil {
		return e, err
	}
	return e, saveExperiment(tx, ws, e)
}

func (s *Service) beginJob(tx *store.Tx, w Workspace, e experiment, j JobRun) (err error) {
	r := &run{ID: j.ID, Name: j.DisplayName, Experiment: e.ID, User: j.User.Name, Object: j.User.Object, Tenant: j.User.Tenant, Status: "NotStarted", Created: s.now(), Start: millis(j.Started), Modified: s.now(), Job: true}
	if r.Name == "" {
		r.Name = j.ID
	}
	if r.User == "" {
		r.User = j.User.App
	}
	if r.Start == 0 {
		r.Start = r.Created
	}
	r.Tags = map[string]string{}
	if err := r.retag(pairs(j.Tags)); err != nil {
		return err
	}
	if r.Properties, err = addProperties(nil, j.Properties, true); err != nil {
		return err
	}
	if err := r.number(tx, w.UID); err != nil {
		return err
	}
	return saveRun(tx, w.UID, r, nil)
}

// UpdateJobRun changes the run that the Grant, for RunsWrite, names. It is for
// the platform, which alone knows a job's status; no door leads here.
func (s *Service) UpdateJobRun(ctx context.Context, g gate.Grant, u JobUpdate) error {
	if u.Status != "" && toMLflow[u.Status] == "" {
		return bad("status is '%s'; it must be one of %s", clip(u.Status), sortedKeys(toMLflow))
	}
	return s.change(ctx, g, RunsWrite, func(tx *store.Tx, w Workspace) error {
		r, err := loadRun(tx, w.UID, g.Item())
		if err != nil {
			return err
		}
		old := *r
		r.Modified = s.now()
		if err := r.update(u); err != nil {
			return err
		}
		return saveRun(tx, w.UID, r, &old)
	})
}

func (r *run) update(u JobUpdate) (err error) {
	if !over(r.Status) {
		if u.Status != "" {
			r.Status = u.Status
		}
		if !u.Started.IsZero() {
			r.Start = millis(u.Started)
		}
		if !u.Ended.IsZero() {
			r.End = millis(u.Ended)
		}
		if u.Error != "" {
			r.Error = u.Error[:min(len(u.Error), maxTag)]
		}
	}
	if len(u.Outputs) > 0 {
		r.Outputs = u.Outputs
	}
	if r.Tags == nil {
		r.Tags = map[string]string{}
	}
	if err := r.retag(pairs(u.Tags)); err != nil {
		return err
	}
	r.Properties, err = addProperties(r.Properties, u.Properties, true)
	return err
}

// AppendArtifact adds data to one of the run's artifacts, which the first call
// makes. The Grant is for ArtifactsWrite on the workspace and the run.
func (s *Service) AppendArtifact(ctx context.Context, g gate.Grant, path string, data []byte) error {
	p := place{run: g.Item(), path: path}
	if err := firstErr(checkRunID(p.run), checkPath(path)); err != nil {
		return err
	}
	w, err := s.held(ctx, g, ArtifactsWrite, &p)
	if err != nil {
		return err
	}
	return s.Blobs.Append(ctx, w, p.blob(), data)
}

// PutArtifact keeps one artifact of the run wholly; size is -1 if it isn't
// known. The Grant is for ArtifactsWrite on the workspace and the run.
func (s *Service) PutArtifact(ctx context.Context, g gate.Grant, path, contentType string, content io.Reader, size int64) error {
	p := place{run: g.Item(), path: path}
	if err := firstErr(checkRunID(p.run), checkPath(path)); err != nil {
		return err
	}
	return s.put(ctx, g, p, contentType, content, size)
}

// maxListed is the most artifacts that Artifacts lists.
const maxListed = 10_000

// Artifacts are up to 10,000 artifacts of the run below prefix, by their paths
// in it. The Grant is for ArtifactsRead on the workspace and the run.
func (s *Service) Artifacts(ctx context.Context, g gate.Grant, prefix string) ([]Blob, error) {
	at, err := folderPath(prefix)
	if err != nil {
		return nil, err
	}
	p := place{run: g.Item(), path: at}
	if err := checkRunID(p.run); err != nil {
		return nil, err
	}
	w, err := s.held(ctx, g, ArtifactsRead, &p)
	if err != nil {
		return nil, err
	}
	var out []Blob
	err = s.eachBlob(ctx, w, p.prefix(), func(b Blob) error {
		b.Name = strings.TrimPrefix(b.Name, p.folder())
		if out = append(out, b); len(out) > maxListed {
			return arm.Errorf(limited, "Run %s has more than %d artifacts below '%s'.", p.run, maxListed, at)
		}
		return nil
	})
	return out, err
}

// Status is the status of a run, as Azure spells it; "" if there is no such
// run. It is a fact for whoever checks a run's token, and needs no grant.
func (s *Service) Status(ctx context.Context, workspace arm.ID, id string) (status string, err error) {
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		w, ok, err := s.Workspaces.Find(tx, workspace)
		if err != nil || !ok {
			return err
		}
		r, err := loadRun(tx, w.UID, id)
		if err == nil && !r.Deleted {
			status = r.Status
		}
		return err
	})
	if arm.CodeOf(err) == notThere {
		err = nil
	}
	return status, err
}
