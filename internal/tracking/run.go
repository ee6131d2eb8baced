package tracking

import (
	"context"
	"maps"
	"net/http"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

func (s *Service) runRoutes() []gate.Route {
	return []gate.Route{
		s.mlflow(RunsWrite, "POST", "runs/create", nil, s.createRun),
		s.mlflow(RunsRead, "GET", "runs/get", runOf, s.getRun),
		s.mlflow(RunsRead, "POST", "runs/search", nil, s.searchRuns),
		s.mlflow(RunsWrite, "POST", "runs/update", runOf, s.updateRun),
		s.mlflow(runsDelete, "POST", "runs/delete", runOf, s.markRun(runsDelete, true)),
		s.mlflow(RunsWrite, "POST", "runs/restore", runOf, s.markRun(RunsWrite, false)),
		s.mlflow(metricsWrite, "POST", "runs/log-metric", runOf, s.logMetric),
		s.mlflow(RunsWrite, "POST", "runs/log-batch", runOf, s.logBatch),
		s.mlflow(RunsWrite, "POST", "runs/log-parameter", runOf, s.logParam),
		s.mlflow(RunsWrite, "POST", "runs/set-tag", runOf, s.setTag),
		s.mlflow(RunsWrite, "POST", "runs/delete-tag", runOf, s.deleteTag),
		s.mlflow(RunsWrite, "POST", "runs/log-inputs", runOf, s.logInputs),
		s.mlflow(RunsWrite, "POST", "runs/outputs", runOf, s.logOutputs),
		s.mlflow(RunsWrite, "POST", "runs/log-model", runOf, s.logModel),
		s.mlflow(RunsRead, "GET", "metrics/get-history", runOf, s.metricHistory),
		s.mlflow(RunsRead, "GET", "metrics/get-history-bulk", nil, s.bulkHistory),
		s.mlflow(RunsRead, "GET", "metrics/get-history-bulk-interval", nil, s.bulkHistory),
		s.mlflow(ArtifactsRead, "GET", "artifacts/list", runOf, s.listArtifacts),
	}
}

// MLflow's statuses for Azure's, and the other way round.
var (
	toMLflow = map[string]string{
		"NotStarted": "SCHEDULED", "Queued": "SCHEDULED", "Provisioning": "SCHEDULED", "Preparing": "SCHEDULED", "Starting": "SCHEDULED",
		"Running": "RUNNING", "Finalizing": "RUNNING", "CancelRequested": "RUNNING", "NotResponding": "RUNNING", "Paused": "RUNNING",
		"Completed": "FINISHED", "Failed": "FAILED", "Canceled": "KILLED",
	}
	fromMLflow    = map[string]string{"SCHEDULED": "Queued", "RUNNING": "Running", "FINISHED": "Completed", "FAILED": "Failed", "KILLED": "Canceled"}
	statusNumbers = map[string]string{"1": "RUNNING", "2": "SCHEDULED", "3": "FINISHED", "4": "FAILED", "5": "KILLED"}
)

// over reports whether a status is the last one.
func over(status string) bool {
	return status == "Completed" || status == "Failed" || status == "Canceled"
}

func (r *run) info(place string) map[string]any {
	out := map[string]any{
		"run_id": r.ID, "run_uuid": r.ID, "run_name": r.Name, "experiment_id": r.Experiment, "user_id": r.User,
		"status": toMLflow[r.Status], "start_time": r.Start, "artifact_uri": place, "lifecycle_stage": stage(r.Deleted),
	}
	if r.End != 0 {
		out["end_time"] = r.End
	}
	return out
}

// show is a run with all that it logged, with m as its metrics.
func (s *Service) show(ws arm.ID, in *input, r *run, m map[string]point, exp string) map[string]any {
	data := map[string]any{"metrics": showMetrics(m), "params": pairs(r.Params), "tags": pairs(r.tags())}
	inputs := map[string]any{"dataset_inputs": shown(r.Datasets, dataset.show)}
	if len(r.ModelsIn) > 0 {
		inputs["model_inputs"] = shown(r.ModelsIn, func(id string) map[string]any { return map[string]any{"model_id": id} })
	}
	out := map[string]any{"info": r.info(s.artifactURI(ws, in, r, exp)), "data": data, "inputs": inputs}
	if len(r.ModelsOut) > 0 {
		out["outputs"] = map[string]any{"model_outputs": shown(r.ModelsOut, func(m modelOut) map[string]any {
			return map[string]any{"model_id": m.ID, "step": m.Step}
		})}
	}
	return out
}

// artifactURI is where a run's artifacts are for the client that asks: Azure's
// own plugin knows only its own scheme, any other client only MLflow's.
func (s *Service) artifactURI(ws arm.ID, in *input, r *run, exp string) string {
	if strings.Contains(in.agent, "azureml-mlflow/") {
		return "azureml://" + s.Site.Host() + "/mlflow/v2.0" + ws.String() + "/experiments/" + exp + "/runs/" + r.ID + "/artifacts"
	}
	return proxied + runFolder + r.ID
}

// tags are the run's, with those that MLflow keeps as tags and we do not.
func (r *run) tags() map[string]string {
	out := maps.Clone(r.Tags)
	if out == nil {
		out = map[string]string{}
	}
	out["mlflow.runName"] = r.Name
	if r.User != "" && out["mlflow.user"] == "" {
		out["mlflow.user"] = r.User
	}
	return out
}

func (d dataset) show() map[string]any {
	set := map[string]any{"name": d.Name, "digest": d.Digest, "source_type": d.SourceType, "source": d.Source}
	if d.Schema != "" {
		set["schema"] = d.Schema
	}
	if d.Profile != "" {
		set["profile"] = d.Profile
	}
	return map[string]any{"dataset": set, "tags": d.Tags}
}

func (s *Service) createRun(ctx context.Context, g gate.Grant, in *input) (any, error) {
	exp, user, name := in.text("experiment_id"), in.text("user_id"), in.text("run_name")
	start, tags := in.integer("start_time", s.now()), in.pairs("tags", maxTags)
	if err := in.done(); err != nil {
		return nil, err
	}
	if exp == "" {
		exp = defaultExperiment.ID
	}
	var r *run
	var in2 experiment
	var ws arm.ID
	err := s.change(ctx, g, RunsWrite, func(tx *store.Tx, w Workspace) (err error) {
		if o := own(g); o != "" {
			return arm.Errorf(arm.Forbidden, "The token is that of run %s and can't begin other runs.", o)
		}
		if in2, err = s.readyExperiment(tx, w.UID, exp); err != nil {
			return err
		}
		ws = w.ID
		by := g.Caller()
		r = &run{ID: arm.NewHex(), Experiment: in2.ID, Name: name, User: user, Object: by.Object, Tenant: by.Tenant, Status: "Running", Created: s.now(), Start: start, Modified: s.now()}
		if r.User == "" {
			r.User = by.Name
		}
		if err := r.retag(tags); err != nil {
			return err
		}
		if err := r.number(tx, w.UID); err != nil {
			return err
		}
		return saveRun(tx, w.UID, r, nil)
	})
	if err != nil {
		return nil, err
	}
	return map[string]any{"run": s.show(ws, in, r, nil, in2.Name)}, nil
}

// readyExperiment is one in which runs can begin. The default one is kept now
// if it was not yet.
func (s *Service) readyExperiment(tx *store.Tx, ws, id string) (experiment, error) {
	e, err := loadExperiment(tx, ws, id)
	if err != nil {
		return e, err
	}
	if e.ID == defaultExperiment.ID && e.Created == 0 {
		e.Created, e.Updated = s.now(), s.now()
		if err := saveExperiment(tx, ws, e); err != nil {
			return e, err
		}
	}
	return e, active(&e)
}

// retag sets tags, of which the run's name is one, and names a run that has none.
func (r *run) retag(tags []pair) error {
	for _, t := range tags {
		if t.Key == "mlflow.runName" {
			if r.Name != "" && r.Name != t.Value && r.Tags == nil {
				return bad("Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values (run_name='%s', mlflow.runName='%s').", clip(r.Name), clip(t.Value))
			}
			r.Name = t.Value
		}
	}
	if r.Name == "" {
		r.Name = "run-" + r.ID[:min(8, len(r.ID))]
	}
	if err := checkName("run", r.Name); err != nil {
		return err
	}
	var err error
	if r.Tags, err = setTags(r.Tags, tags, "Run "+r.ID); err != nil {
		return err
	}
	delete(r.Tags, "mlflow.runName")
	return nil
}

func (s *Service) getRun(ctx context.Context, g gate.Grant, in *input) (any, error) {
	id := in.target(g)
	if err := in.done(); err != nil {
		return nil, err
	}
	var out map[string]any
	err := s.view(ctx, g, RunsRead, func(tx *store.Tx, w Workspace) error {
		r, err := loadRun(tx, w.UID, id)
		if err != nil {
			return err
		}
		m, err := loadLatest(tx, r)
		if err != nil {
			return err
		}
		e, err := loadExperiment(tx, w.UID, r.Experiment)
		if err != nil {
			return err
		}
		out = s.show(w.ID, in, r, m, e.Name)
		return nil
	})
	return map[string]any{"run": out}, err
}

// alter changes one run that is active; fn may look at what it was before.
func (s *Service) alter(ctx context.Context, g gate.Grant, id string, fn func(tx *store.Tx, w Workspace, r *run) error) error {
	return s.change(ctx, g, RunsWrite, func(tx *store.Tx, w Workspace) error {
		r, err := activeRun(tx, w.UID, id)
		if err != nil {
			return err
		}
		old := *r
		r.Modified = s.now()
		if err := fn(tx, w, r); err != nil {
			return err
		}
		return saveRun(tx, w.UID, r, &old)
	})
}

// updateRun changes a run's status, end and name. The status of a job's run is
// what the platform saw, so what others say of it is heard and not kept.
func (s *Service) updateRun(ctx context.Context, g gate.Grant, in *input) (any, error) {
	id, status, end, name := in.target(g), in.text("status"), in.integer("end_time", 0), in.text("run_name")
	if err := in.done(); err != nil {
		return nil, err
	}
	if n, ok := statusNumbers[status]; ok {
		status = n
	}
	if status != "" && fromMLflow[status] == "" {
		return nil, bad("status is '%s'; it must be one of %s", clip(status), sortedKeys(fromMLflow))
	}
	var out map[string]any
	err := s.alter(ctx, g, id, func(tx *store.Tx, w Workspace, r *run) error {
		if !r.Job && status != "" {
			r.Status = fromMLflow[status]
			if r.End = 0; over(r.Status) {
				r.End = s.now()
			}
		}
		if !r.Job && end != 0 {
			r.End = end
		}
		if name != "" {
			if err := checkName("run", name); err != nil {
				return err
			}
			r.Name = name
		}
		e, err := loadExperiment(tx, w.UID, r.Experiment)
		out = r.info(s.artifactURI(w.ID, in, r, e.Name))
		return err
	})
	return map[string]any{"run_info": out}, err
}

func (s *Service) markRun(a arm.Action, deleted bool) verb {
	return func(ctx context.Context, g gate.Grant, in *input) (any, error) {
		id := in.target(g)
		if err := in.done(); err != nil {
			return nil, err
		}
		return nil, s.change(ctx, g, a, func(tx *store.Tx, w Workspace) error {
			r, err := loadRun(tx, w.UID, id)
			if err != nil {
				return err
			}
			if r.Job && deleted && !over(r.Status) {
				return &arm.Error{Code: noState, Status: http.StatusConflict, Message: "Run " + r.ID + " is that of a job which goes on; cancel the job first."}
			}
			old := *r
			r.Deleted, r.Modified = deleted, s.now()
			return saveRun(tx, w.UID, r, &old)
		})
	}
}

func (s *Service) logParam(ctx context.Context, g gate.Grant, in *input) (any, error) {
	id, p := in.target(g), pair{in.must("key"), in.text("value")}
	if err := in.done(); err != nil {
		return nil, err
	}
	return nil, s.alter(ctx, g, id, func(_ *store.Tx, _ Workspace, r *run) error { return r.setParams([]pair{p}) })
}

// setParams adds parameters; one that is there keeps its value for good.
func (r *run) setParams(params []pair) error {
	m := maps.Clone(r.Params)
	if m == nil {
		m = map[string]string{}
	}
	for _, p := range params {
		if err := checkParam(p); err != nil {
			return err
		}
		if old, ok := m[p.Key]; ok && old != p.Value {
			return bad("Changing param values is not allowed. Param with key='%s' was already logged with value='%s' for run ID='%s'. Attempted logging new value '%s'.", clip(p.Key), clip(old), r.ID, clip(p.Value))
		}
		m[p.Key] = p.Value
	}
	if len(m) > maxParams {
		return arm.Errorf(limited, "Run %s would have %d parameters; at most %d are allowed.", r.ID, len(m), maxParams)
	}
	r.Params = m
	return nil
}

func (s *Service) setTag(ctx context.Context, g gate.Grant, in *input) (any, error) {
	id, t := in.target(g), pair{in.must("key"), in.text("value")}
	if err := in.done(); err != nil {
		return nil, err
	}
	return nil, s.alter(ctx, g, id, func(_ *store.Tx, _ Workspace, r *run) error {
		if r.Tags == nil {
			r.Tags = map[string]string{}
		}
		return r.retag([]pair{t})
	})
}

func (s *Service) deleteTag(ctx context.Context, g gate.Grant, in *input) (any, error) {
	id, name := in.target(g), in.must("key")
	if err := in.done(); err != nil {
		return nil, err
	}
	return nil, s.alter(ctx, g, id, func(_ *store.Tx, _ Workspace, r *run) error {
		if _, ok := r.Tags[name]; !ok {
			return arm.Errorf(notThere, "No tag with name: %s in run with id %s", clip(name), r.ID)
		}
		delete(r.Tags, name)
		return nil
	})
}

func (s *Service) logInputs(ctx context.Context, g gate.Grant, in *input) (any, error) {
	id := in.target(g)
	var sets []dataset
	in.each("datasets", 1000, func(in *input) {
		d := dataset{Tags: in.pairs("tags", maxBatchOther)}
		in.object("dataset", in.any("dataset"), func(in *input) {
			d.Name, d.Digest = in.must("name"), in.must("digest")
			d.SourceType, d.Source = in.text("source_type"), in.text("source")
			d.Schema, d.Profile = in.text("schema"), in.text("profile")
		})
		sets = append(sets, d)
	})
	models := in.modelIDs("models")
	if err := in.done(); err != nil {
		return nil, err
	}
	return nil, s.alter(ctx, g, id, func(tx *store.Tx, w Workspace, r *run) error {
		for _, d := range sets {
			r.addDataset(d)
		}
		for _, m := range models {
			if _, err := loadLogged(tx, w.UID, m.ID); err != nil {
				return err
			}
			r.ModelsIn = append(r.ModelsIn, m.ID)
		}
		return r.few()
	})
}

// few refuses more inputs and outputs than a run may have.
func (r *run) few() error {
	size := 0
	for _, d := range r.Datasets {
		size += len(d.Name) + len(d.Digest) + len(d.Source) + len(d.Schema) + len(d.Profile) + 32*len(d.Tags)
	}
	if n := len(r.Datasets) + len(r.ModelsIn) + len(r.ModelsOut); n > 1000 || size > maxRun {
		return arm.Errorf(limited, "Run %s would have %d inputs and outputs that take %d bytes; at most 1000 and %d bytes are allowed.", r.ID, n, size, maxRun)
	}
	return nil
}

func (r *run) addDataset(d dataset) {
	for i, x := range r.Datasets {
		if x.Name == d.Name && x.Digest == d.Digest {
			r.Datasets[i] = d
			return
		}
	}
	r.Datasets = append(r.Datasets, d)
}

func (in *input) modelIDs(name string) []modelOut {
	var out []modelOut
	in.each(name, 1000, func(in *input) { out = append(out, modelOut{in.must("model_id"), in.integer("step", 0)}) })
	return out
}

func (s *Service) logOutputs(ctx context.Context, g gate.Grant, in *input) (any, error) {
	id, models := in.target(g), in.modelIDs("models")
	if err := in.done(); err != nil {
		return nil, err
	}
	return nil, s.alter(ctx, g, id, func(tx *store.Tx, w Workspace, r *run) error {
		for _, m := range models {
			if _, err := loadLogged(tx, w.UID, m.ID); err != nil {
				return err
			}
			r.ModelsOut = append(r.ModelsOut, m)
		}
		return r.few()
	})
}

// historyTag is the tag in which MLflow 2 keeps what models a run logged.
const historyTag = "mlflow.log-model.history"

func (s *Service) logModel(ctx context.Context, g gate.Grant, in *input) (any, error) {
	id, doc := in.target(g), in.must("model_json")
	if err := in.done(); err != nil {
		return nil, err
	}
	tree, err := arm.ParseJSON([]byte(doc))
	if err != nil {
		return nil, bad("Malformed model info. model_json is not JSON.")
	}
	m, ok := tree.(map[string]any)
	if !ok || m["artifact_path"] == nil || m["flavors"] == nil || m["utc_time_created"] == nil {
		return nil, bad("Model json is missing mandatory fields: artifact_path, flavors, utc_time_created.")
	}
	if rid, _ := m["run_id"].(string); rid != "" && !strings.EqualFold(rid, id) {
		return nil, bad("model_json is of run '%s'; the request is about run '%s'", clip(rid), id)
	}
	return nil, s.alter(ctx, g, id, func(_ *store.Tx, _ Workspace, r *run) error {
		list := strings.TrimSuffix(strings.TrimPrefix(r.Tags[historyTag], "["), "]")
		if list != "" {
			list += ","
		}
		if list = "[" + list + doc + "]"; len(list) > maxRun/2 {
			return arm.Errorf(limited, "Run %s has logged more models than can be kept.", r.ID)
		}
		if r.Tags == nil {
			r.Tags = map[string]string{}
		}
		r.Tags[historyTag] = list
		return nil
	})
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}
