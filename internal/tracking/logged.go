package tracking

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// loggedModel is a model that MLflow 3 logged; a registered version may be made
// from it.
type loggedModel struct {
	ID         string            `json:"id"`
	Experiment string            `json:"experiment"`
	Name       string            `json:"name"`
	Type       string            `json:"type,omitempty"`
	Run        string            `json:"run,omitempty"`
	Status     string            `json:"status"`
	Created    int64             `json:"created"`
	Updated    int64             `json:"updated"`
	Deleted    bool              `json:"deleted,omitempty"`
	Params     map[string]string `json:"params,omitempty"`
	Tags       map[string]string `json:"tags,omitempty"`
	Metrics    []measured        `json:"metrics,omitempty"`
	Versions   []registration    `json:"versions,omitempty"`
}

// measured is the last value of one of the model's metrics, on one data set.
type measured struct {
	Key     string `json:"key"`
	Point   point  `json:"point"`
	Dataset string `json:"dataset,omitempty"`
	Digest  string `json:"digest,omitempty"`
	Run     string `json:"run"`
}

type registration struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

var loggedStatuses = map[string]string{
	"LOGGED_MODEL_PENDING": "LOGGED_MODEL_PENDING", "LOGGED_MODEL_READY": "LOGGED_MODEL_READY", "LOGGED_MODEL_UPLOAD_FAILED": "LOGGED_MODEL_UPLOAD_FAILED",
	"1": "LOGGED_MODEL_PENDING", "2": "LOGGED_MODEL_READY", "3": "LOGGED_MODEL_UPLOAD_FAILED",
}

func (s *Service) loggedRoutes() []gate.Route {
	about := func(s *Service, r *http.Request, v gate.Vars, ws arm.ID) (string, error) {
		if err := checkModelID(v["model"]); err != nil {
			return "", err
		}
		return s.runOf(r.Context(), ws, place{model: v["model"]})
	}
	source := func(_ *Service, r *http.Request, _ gate.Vars, _ arm.ID) (string, error) {
		in := read(r)
		id := in.text("source_run_id")
		if in.err != nil || id == "" {
			return "", in.err
		}
		return id, checkRunID(id)
	}
	return []gate.Route{
		s.mlflow(RunsWrite, "POST", "logged-models", source, s.createLogged),
		s.mlflow(RunsRead, "POST", "logged-models/search", nil, s.searchLogged),
		s.mlflow(RunsRead, "GET", "logged-models/{model}", about, s.getLogged),
		s.mlflow(RunsWrite, "PATCH", "logged-models/{model}", about, s.finalizeLogged),
		s.mlflow(runsDelete, "DELETE", "logged-models/{model}", about, s.deleteLogged),
		s.mlflow(RunsWrite, "PATCH", "logged-models/{model}/tags", about, s.tagLogged),
		s.mlflow(RunsWrite, "DELETE", "logged-models/{model}/tags/{tag}", about, s.untagLogged),
		s.mlflow(RunsWrite, "POST", "logged-models/{model}/params", about, s.paramLogged),
		s.mlflow(ArtifactsRead, "GET", "logged-models/{model}/artifacts/directories", about, s.listLogged),
	}
}

func (in *input) modelID() string {
	in.ignore("model_id")
	id := in.segment(4) // behind api/2.0/mlflow/logged-models
	if err := checkModelID(id); err != nil && in.err == nil {
		in.err = err
	}
	return id
}

func loadLogged(tx *store.Tx, ws, id string) (loggedModel, error) {
	if err := checkModelID(id); err != nil {
		return loggedModel{}, err
	}
	m, ok, err := store.GetJSON[loggedModel](tx, logged, key(ws, id))
	if err == nil && !ok {
		err = arm.Errorf(notThere, "Logged model with ID '%s' not found.", id)
	}
	return m, err
}

func saveLogged(tx *store.Tx, ws string, m loggedModel) error {
	size := 0
	for _, x := range []map[string]string{m.Params, m.Tags} {
		for k, v := range x {
			size += len(k) + len(v)
		}
	}
	if size > maxRun || len(m.Metrics) > maxMetrics || len(m.Versions) > 1000 {
		return arm.Errorf(limited, "Logged model %s would have %d bytes of parameters and tags and %d metrics; at most %d and %d are allowed.", m.ID, size, len(m.Metrics), maxRun, maxMetrics)
	}
	return store.PutJSON(tx, logged, key(ws, m.ID), m)
}

func (m loggedModel) show() map[string]any {
	metrics := shown(m.Metrics, func(x measured) map[string]any {
		out := metric{key: x.Key, point: x.Point}.show()
		out["run_id"], out["model_id"] = x.Run, m.ID
		if x.Dataset != "" {
			out["dataset_name"], out["dataset_digest"] = x.Dataset, x.Digest
		}
		return out
	})
	info := map[string]any{
		"model_id": m.ID, "experiment_id": m.Experiment, "name": m.Name, "creation_timestamp_ms": m.Created, "last_updated_timestamp_ms": m.Updated,
		"artifact_uri": place{model: m.ID}.uri(), "status": m.Status, "tags": pairs(m.Tags),
		"registrations": shown(m.Versions, func(r registration) map[string]any { return map[string]any{"name": r.Name, "version": r.Version} }),
	}
	if m.Type != "" {
		info["model_type"] = m.Type
	}
	if m.Run != "" {
		info["source_run_id"] = m.Run
	}
	return map[string]any{"info": info, "data": map[string]any{"params": pairs(m.Params), "metrics": metrics}}
}

func (s *Service) createLogged(ctx context.Context, g gate.Grant, in *input) (any, error) {
	m := loggedModel{ID: "m-" + arm.NewHex(), Experiment: in.text("experiment_id"), Name: in.text("name"), Type: in.text("model_type"), Run: in.text("source_run_id"), Status: "LOGGED_MODEL_PENDING", Created: s.now(), Updated: s.now()}
	params, tags := in.pairs("params", maxParams), in.pairs("tags", maxTags)
	if err := in.done(); err != nil {
		return nil, err
	}
	if m.Name == "" {
		m.Name = "model-" + m.ID[2:10]
	}
	if len(m.Name) > maxName || strings.ContainsAny(m.Name, "/:.%\"'") {
		return nil, bad("Invalid model name '%s'. It must have at most %d bytes and none of the characters / : . %% \" '.", clip(m.Name), maxName)
	}
	err := s.change(ctx, g, RunsWrite, func(tx *store.Tx, w Workspace) error {
		if err := notOwn(g, m.Run); err != nil {
			return err
		}
		if m.Run != "" {
			r, err := activeRun(tx, w.UID, m.Run)
			if err != nil {
				return err
			}
			if m.Run = r.ID; m.Experiment == "" {
				m.Experiment = r.Experiment
			}
		}
		if _, err := s.readyExperiment(tx, w.UID, m.Experiment); err != nil {
			return err
		}
		if err := m.setParams(params); err != nil {
			return err
		}
		var err error
		if m.Tags, err = setTags(nil, tags, "Model "+m.ID); err != nil {
			return err
		}
		return saveLogged(tx, w.UID, m)
	})
	return map[string]any{"model": m.show()}, err
}

func (m *loggedModel) setParams(params []pair) error {
	r := run{ID: m.ID, Params: m.Params}
	err := r.setParams(params)
	m.Params = r.Params
	return err
}

func (s *Service) getLogged(ctx context.Context, g gate.Grant, in *input) (any, error) {
	id := in.modelID()
	in.ignore("allow_deleted")
	if err := in.done(); err != nil {
		return nil, err
	}
	var m loggedModel
	err := s.view(ctx, g, RunsRead, func(tx *store.Tx, w Workspace) (err error) {
		if m, err = loadLogged(tx, w.UID, id); err != nil {
			return err
		}
		return notOwn(g, m.Run)
	})
	if err != nil {
		return nil, err
	}
	return map[string]any{"model": m.show()}, nil
}

// remodel changes one logged model.
func (s *Service) remodel(ctx context.Context, g gate.Grant, a arm.Action, id string, fn func(tx *store.Tx, ws string, m *loggedModel) error) (any, error) {
	var m loggedModel
	err := s.change(ctx, g, a, func(tx *store.Tx, w Workspace) (err error) {
		if m, err = loadLogged(tx, w.UID, id); err != nil {
			return err
		}
		if err := notOwn(g, m.Run); err != nil {
			return err
		}
		m.Updated = s.now()
		if err := fn(tx, w.UID, &m); err != nil {
			return err
		}
		return saveLogged(tx, w.UID, m)
	})
	if err != nil {
		return nil, err
	}
	return map[string]any{"model": m.show()}, nil
}

func (s *Service) finalizeLogged(ctx context.Context, g gate.Grant, in *input) (any, error) {
	id, status := in.modelID(), in.must("status")
	if err := in.done(); err != nil {
		return nil, err
	}
	if loggedStatuses[status] == "" {
		return nil, bad("status is '%s'; it must be LOGGED_MODEL_READY or LOGGED_MODEL_UPLOAD_FAILED", clip(status))
	}
	return s.remodel(ctx, g, RunsWrite, id, func(_ *store.Tx, _ string, m *loggedModel) error {
		m.Status = loggedStatuses[status]
		return nil
	})
}

func (s *Service) deleteLogged(ctx context.Context, g gate.Grant, in *input) (any, error) {
	id := in.modelID()
	if err := in.done(); err != nil {
		return nil, err
	}
	return nil, s.change(ctx, g, runsDelete, func(tx *store.Tx, w Workspace) error {
		m, err := loadLogged(tx, w.UID, id)
		if err != nil {
			return err
		}
		if len(m.Versions) > 0 {
			return &arm.Error{Code: noState, Status: http.StatusConflict, Message: "Logged model " + m.ID + " is registered as version " + m.Versions[0].Version + " of " + m.Versions[0].Name + "; delete that first."}
		}
		return tx.Delete(logged, key(w.UID, m.ID))
	})
}

func (s *Service) tagLogged(ctx context.Context, g gate.Grant, in *input) (any, error) {
	id, tags := in.modelID(), in.pairs("tags", maxBatchOther)
	if err := in.done(); err != nil {
		return nil, err
	}
	return s.remodel(ctx, g, RunsWrite, id, func(_ *store.Tx, _ string, m *loggedModel) (err error) {
		m.Tags, err = setTags(m.Tags, tags, "Model "+id)
		return err
	})
}

func (s *Service) untagLogged(ctx context.Context, g gate.Grant, in *input) (any, error) {
	id, name := in.modelID(), in.segment(6)
	in.ignore("tag_key")
	if err := in.done(); err != nil {
		return nil, err
	}
	_, err := s.remodel(ctx, g, RunsWrite, id, func(_ *store.Tx, _ string, m *loggedModel) error {
		if _, ok := m.Tags[name]; !ok {
			return arm.Errorf(notThere, "No tag with key '%s' found for model with ID '%s'.", clip(name), id)
		}
		delete(m.Tags, name)
		return nil
	})
	return nil, err
}

func (s *Service) paramLogged(ctx context.Context, g gate.Grant, in *input) (any, error) {
	id, params := in.modelID(), in.pairs("params", maxBatchOther)
	if err := in.done(); err != nil {
		return nil, err
	}
	_, err := s.remodel(ctx, g, RunsWrite, id, func(_ *store.Tx, _ string, m *loggedModel) error { return m.setParams(params) })
	return nil, err
}

func (s *Service) listLogged(ctx context.Context, g gate.Grant, in *input) (any, error) {
	p, mark := place{model: in.modelID()}, in.text("page_token")
	at, err := folderPath(in.text("artifact_directory_path"))
	if err != nil {
		return nil, err
	}
	if err := in.done(); err != nil {
		return nil, err
	}
	p.path = at
	w, err := s.held(ctx, g, ArtifactsRead, &p)
	if err != nil {
		return nil, err
	}
	files, next, err := s.files(ctx, w, p, mark)
	if err != nil {
		return nil, err
	}
	out := map[string]any{"root_uri": place{model: p.model}.uri(), "files": files}
	if next != "" {
		out["next_page_token"] = next
	}
	return out, nil
}

// measure notes metrics with the logged models that they measure.
func measure(tx *store.Tx, ws string, r *run, metrics []metric) error {
	models := map[string]loggedModel{}
	for _, x := range metrics {
		if x.model == "" {
			continue
		}
		m, ok := models[x.model]
		if !ok {
			var err error
			if m, err = loadLogged(tx, ws, x.model); err != nil {
				return err
			}
			if m.Run != "" && !strings.EqualFold(m.Run, r.ID) {
				return bad("Logged model %s is that of run %s; a metric of run %s can't measure it.", m.ID, m.Run, r.ID)
			}
		}
		m.measure(r.ID, x)
		models[x.model] = m
	}
	for _, id := range slices.Sorted(maps.Keys(models)) {
		if err := saveLogged(tx, ws, models[id]); err != nil {
			return err
		}
	}
	return nil
}

func (m *loggedModel) measure(run string, x metric) {
	for i, old := range m.Metrics {
		if old.Key == x.key && old.Dataset == x.dataset && old.Digest == x.digest && old.Run == run {
			if x.point.after(old.Point) {
				m.Metrics[i].Point = x.point
			}
			return
		}
	}
	m.Metrics = append(m.Metrics, measured{x.key, x.point, x.dataset, x.digest, run})
}

var loggedGrammar = grammar{
	kinds: map[string]string{
		"metric": "metric", "metrics": "metric", "param": "parameter", "params": "parameter", "parameter": "parameter", "parameters": "parameter",
		"tag": "tag", "tags": "tag", "attribute": "attribute", "attributes": "attribute", "attr": "attribute",
	},
	attributes: map[string]field{
		"name": {list: true}, "model_id": {list: true}, "model_type": {list: true}, "status": {list: true}, "source_run_id": {list: true}, "experiment_id": {list: true},
		"creation_timestamp": {numeric: true}, "creation_time": {numeric: true, as: "creation_timestamp"}, "last_updated_timestamp": {numeric: true},
	},
	tail: []term{{"attribute", "creation_timestamp", true}, {"attribute", "model_id", false}},
}

func (m loggedModel) values(kind, key string) []value {
	switch kind {
	case "metric":
		var out []value
		for _, x := range m.Metrics {
			if x.Key == key {
				out = append(out, floatValue(x.Point.v))
			}
		}
		return out
	case "parameter":
		v, ok := m.Params[key]
		return oneText(v, ok)
	case "tag":
		v, ok := m.Tags[key]
		return oneText(v, ok)
	}
	switch key {
	case "creation_timestamp":
		return []value{intValue(m.Created)}
	case "last_updated_timestamp":
		return []value{intValue(m.Updated)}
	}
	v := map[string]string{"name": m.Name, "model_id": m.ID, "model_type": m.Type, "status": strings.TrimPrefix(m.Status, "LOGGED_MODEL_"), "source_run_id": m.Run, "experiment_id": m.Experiment}[key]
	return oneText(v, v != "")
}

func (s *Service) searchLogged(ctx context.Context, g gate.Grant, in *input) (any, error) {
	exps, where := in.texts("experiment_ids"), in.text("filter")
	size, from := limit(in, 50, 1000), offset(in)
	var by []string
	in.each("order_by", 20, func(in *input) {
		name := in.must("field_name")
		if asc := in.flag("ascending"); !asc && in.has("ascending") {
			name += " DESC"
		}
		by = append(by, name)
	})
	if err := in.done(); err != nil {
		return nil, err
	}
	q, err := loggedGrammar.query(where, by)
	if err != nil {
		return nil, err
	}
	var hits []loggedModel
	err = s.view(ctx, g, RunsRead, func(tx *store.Tx, w Workspace) error {
		all, err := store.ScanJSON[loggedModel](tx, logged, key(w.UID, ""), "", 0)
		for _, m := range all {
			if slices.Contains(exps, m.Experiment) && notOwn(g, m.Run) == nil && q.matches(m) {
				hits = append(hits, m)
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	sortBy(q, hits)
	hits, next := part(hits, from, size)
	out := map[string]any{"models": shown(hits, loggedModel.show)}
	if next != "" {
		out["next_page_token"] = next
	}
	return out, nil
}
