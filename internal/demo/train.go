package demo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"time"

	"castellan/examples"
)

// buildJob compiles the example's program; it gives the snapshot's files.
func buildJob(ctx context.Context) (map[string][]byte, error) {
	tool, err := exec.LookPath("go")
	if err != nil {
		return nil, errors.New("the demo's job is a Go program, which needs the go command to be built; install Go")
	}
	dir, err := os.MkdirTemp("", "castellan-iris-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	src, err := fs.Sub(examples.Iris, "iris")
	if err != nil {
		return nil, err
	}
	if err := os.CopyFS(dir, src); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module iris\n\ngo 1.25\n"), 0o644); err != nil {
		return nil, err
	}
	// With go run's own settings, so that what it compiled is used again.
	cmd := exec.CommandContext(ctx, tool, "build", "-ldflags", "-s -w", "-o", "iris", ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the job: %w: %s", err, out)
	}
	files := map[string][]byte{}
	for _, f := range []string{"iris", "iris.csv", "main.go", "tracker.go"} {
		if files[f], err = os.ReadFile(filepath.Join(dir, f)); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// snapshotHash names a code snapshot by what is in it.
func snapshotHash(files map[string][]byte) string {
	var names []string
	for n := range files {
		names = append(names, n)
	}
	sort.Strings(names)
	h := sha256.New()
	for _, n := range names {
		sum := sha256.Sum256(files[n])
		fmt.Fprintf(h, "%s %x\n", n, sum)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// uploadCode puts the snapshot where the workspace says, and registers it.
func (d *demo) uploadCode(ctx context.Context, files map[string][]byte) (id string, err error) {
	id = d.workspace.id + "/codes/iris/versions/" + snapshotHash(files)[:16]
	var pending struct {
		Reference struct {
			URI        string `json:"blobUri"`
			Credential struct {
				SAS string `json:"sasUri"`
			} `json:"credential"`
		} `json:"blobReferenceForConsumption"`
	}
	if _, err := d.arm(ctx, d.scientist, http.MethodPost, id+"/startPendingUpload", map[string]any{"pendingUploadType": "TemporaryBlobReference"}, &pending); err != nil {
		return "", err
	}
	sas, err := url.Parse(pending.Reference.Credential.SAS)
	if err != nil {
		return "", fmt.Errorf("reading where to upload: %w", err)
	}
	for name, data := range files {
		u := *sas
		u.Path = path.Join(sas.Path, "iris", name)
		a, err := d.send(ctx, "", http.MethodPut, u.String(), data, "x-ms-blob-type", "BlockBlob", "x-ms-version", "2023-11-03")
		if err != nil {
			return "", err
		}
		if a.status != http.StatusCreated {
			return "", fmt.Errorf("uploading %s: %d %s", name, a.status, a.failure())
		}
	}
	_, err = d.arm(ctx, d.scientist, http.MethodPut, id, map[string]any{"properties": map[string]any{"codeUri": strings.TrimSuffix(pending.Reference.URI, "/") + "/iris"}}, nil)
	return id, err
}

// submit runs a command on the cluster and follows its log until it ends.
func (d *demo) submit(ctx context.Context, name, code, command string) (log string, err error) {
	job := d.workspace.id + "/jobs/" + name
	if _, err := d.arm(ctx, d.scientist, http.MethodPut, job, map[string]any{"properties": map[string]any{
		"jobType": "Command", "displayName": name, "experimentName": "iris", "codeId": code, "command": command,
		"environmentId": d.workspace.id + "/environments/host/versions/1", "computeId": d.workspace.id + "/computes/cpu",
		"limits": map[string]any{"jobLimitsType": "Command", "timeout": "PT5M"},
	}}, nil); err != nil {
		return "", err
	}
	shown := 0
	err = wait(ctx, 2*time.Minute, func() (bool, error) {
		status, err := d.status(ctx, job)
		if err != nil {
			return false, err
		}
		if log, err = d.log(ctx, name); err != nil {
			return false, err
		}
		for _, l := range strings.SplitAfter(log[shown:], "\n") {
			if strings.HasSuffix(l, "\n") {
				shown += len(l)
				if !strings.HasPrefix(l, "tried ") {
					d.say("  | %s", strings.TrimSpace(l))
				}
			}
		}
		switch status {
		case "Completed":
			return true, nil
		case "Failed", "Canceled":
			return false, fmt.Errorf("the job %s is %s: %s; its log: %s", name, status, d.reason(ctx, name), log)
		}
		return false, nil
	})
	return log, err
}

// reason is why a run failed.
func (d *demo) reason(ctx context.Context, run string) string {
	var details struct {
		Error struct {
			Error struct {
				Message string `json:"message"`
			} `json:"error"`
		} `json:"error"`
	}
	if _, err := d.arm(ctx, d.scientist, http.MethodGet, "/history/v1.0"+d.workspace.id+"/runs/"+run+"/details", nil, &details); err != nil {
		return err.Error()
	}
	return details.Error.Error.Message
}

func (d *demo) status(ctx context.Context, job string) (string, error) {
	var got struct {
		Properties struct {
			Status string `json:"status"`
		} `json:"properties"`
	}
	_, err := d.arm(ctx, d.scientist, http.MethodGet, job, nil, &got)
	return got.Properties.Status, err
}

// log is what the job has printed so far, read as the studio and the clients do:
// the run's details name the file.
func (d *demo) log(ctx context.Context, run string) (string, error) {
	var details struct {
		Files map[string]string `json:"logFiles"`
	}
	if _, err := d.arm(ctx, d.scientist, http.MethodGet, "/history/v1.0"+d.workspace.id+"/runs/"+run+"/details", nil, &details); err != nil {
		return "", err
	}
	u := details.Files["user_logs/std_log.txt"]
	if u == "" {
		return "", nil
	}
	a, err := d.send(ctx, "", http.MethodGet, u, nil)
	if err != nil || a.status == http.StatusNotFound {
		return "", err
	}
	return string(a.body), read(a, "GET", "the log", nil)
}

func (d *demo) train(ctx context.Context) error {
	files, err := buildJob(ctx)
	if err != nil {
		return err
	}
	code, err := d.uploadCode(ctx, files)
	if err != nil {
		return fmt.Errorf("uploading the code: %w", err)
	}
	d.say("dana uploads the code by a short-lived URL for one folder; its digest is pinned.")
	d.job = "iris-" + time.Now().UTC().Format("150405")
	if _, err := d.submit(ctx, d.job, code, "./iris train --data iris.csv --epochs 400"); err != nil {
		return err
	}
	d.code = code
	return nil
}

// mlflow calls the workspace's MLflow REST API as dana.
func (d *demo) mlflow(ctx context.Context, method, p string, body, out any) error {
	a, err := d.send(ctx, d.scientist.token, method, d.workspace.tracking(d.edge.App.Site.Base())+"/api/2.0/mlflow/"+p, body)
	if err != nil {
		return err
	}
	return read(a, method, p, out)
}

func (d *demo) results(ctx context.Context) error {
	var run struct {
		Run struct {
			Info struct {
				Status string `json:"status"`
			} `json:"info"`
			Data struct {
				Metrics []struct {
					Key   string  `json:"key"`
					Value float64 `json:"value"`
				} `json:"metrics"`
			} `json:"data"`
		} `json:"run"`
	}
	// The run's history is told of the job's end a moment after the job is over.
	if err := wait(ctx, time.Minute, func() (bool, error) {
		err := d.mlflow(ctx, http.MethodGet, "runs/get?run_id="+d.job, nil, &run)
		return run.Run.Info.Status != "RUNNING", err
	}); err != nil {
		return err
	}
	accuracy := -1.0
	for _, m := range run.Run.Data.Metrics {
		d.say("metric %-16s %.4f", m.Key, m.Value)
		if m.Key == "test_accuracy" {
			accuracy = m.Value
		}
	}
	if run.Run.Info.Status != "FINISHED" || accuracy < 0.8 {
		return fmt.Errorf("the run is %s with accuracy %.2f; it must be FINISHED and above 0.8", run.Run.Info.Status, accuracy)
	}
	var details struct {
		Properties map[string]string `json:"properties"`
	}
	if _, err := d.arm(ctx, d.scientist, http.MethodGet, "/history/v1.0"+d.workspace.id+"/runs/"+d.job+"/details", nil, &details); err != nil {
		return err
	}
	tier := details.Properties["castellan.sandbox"]
	if tier == "" {
		return errors.New("the run does not say in which sandbox it ran")
	}
	d.say("it ran in a sandbox of tier %s", tier)
	var model struct {
		Version struct {
			Name, Version, Source string
		} `json:"model_version"`
	}
	if err := d.mlflow(ctx, http.MethodGet, "model-versions/get?name=iris&version=1", nil, &model); err != nil {
		return err
	}
	d.say("model %s, version %s, from %s", model.Version.Name, model.Version.Version, model.Version.Source)
	return nil
}
