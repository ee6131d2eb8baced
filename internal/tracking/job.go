package tracking

import (
	"context"
	"io"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

// JobRun is the run of a job that begins.
type JobRun struct {
	ID          string // the job's name
	Experiment  string // its name; made if it is not there
	DisplayName string
	User        arm.Caller // who submitted the job
	Tags        map[string]string
	Properties  map[string]string
	Started     time.Time // when it was submitted
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
// its experiment. The Grant is for RunsWrite on the workspace and the run.
func (s *Service) CreateJobRun(ctx context.Context, g gate.Grant, r JobRun) (experiment string, err error) {
	return "", nil
}

// UpdateJobRun changes the run that the Grant, for RunsWrite, names.
func (s *Service) UpdateJobRun(ctx context.Context, g gate.Grant, u JobUpdate) error { return nil }

// AppendArtifact adds data to one of the run's artifacts, which the first call
// makes. The Grant is for ArtifactsWrite on the workspace and the run.
func (s *Service) AppendArtifact(ctx context.Context, g gate.Grant, path string, data []byte) error {
	return nil
}

// PutArtifact keeps one artifact of the run wholly; size is -1 if it isn't
// known. The Grant is for ArtifactsWrite on the workspace and the run.
func (s *Service) PutArtifact(ctx context.Context, g gate.Grant, path, contentType string, content io.Reader, size int64) error {
	return nil
}

// Artifacts are up to 10,000 artifacts of the run below prefix, by their paths
// in it. The Grant is for ArtifactsRead on the workspace and the run.
func (s *Service) Artifacts(ctx context.Context, g gate.Grant, prefix string) ([]Blob, error) {
	return nil, nil
}

// Status is the status of a run, as Azure spells it; "" if there is no such
// run. It is a fact for whoever checks a run's token, and needs no grant.
func (s *Service) Status(ctx context.Context, workspace arm.ID, run string) (string, error) {
	return "", nil
}
