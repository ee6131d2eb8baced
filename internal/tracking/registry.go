package tracking

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

func (s *Service) registryRoutes() []gate.Route {
	return []gate.Route{
		s.mlflow(modelsWrite, "POST", "registered-models/create", nil, s.createModel),
		s.mlflow(modelsRead, "GET", "registered-models/get", nil, s.getModel),
		s.mlflow(modelsRead, "GET", "registered-models/search", nil, s.searchModels),
		s.mlflow(modelsRead, "GET", "registered-models/list", nil, s.searchModels),
		s.mlflow(modelsWrite, "POST", "registered-models/rename", nil, s.renameModel),
		s.mlflow(modelsWrite, "PATCH", "registered-models/update", nil, s.updateModel),
		s.mlflow(modelsDelete, "DELETE", "registered-models/delete", nil, s.deleteModel),
		s.mlflow(modelsWrite, "POST", "registered-models/set-tag", nil, s.tagModel),
		s.mlflow(modelsWrite, "DELETE", "registered-models/delete-tag", nil, s.untagModel),
		s.mlflow(modelsWrite, "POST", "registered-models/alias", nil, s.setAlias),
		s.mlflow(modelsWrite, "DELETE", "registered-models/alias", nil, s.deleteAlias),
		s.mlflow(versionsRead, "GET", "registered-models/alias", nil, s.byAlias),
		s.mlflow(versionsRead, "GET", "registered-models/get-latest-versions", nil, s.latestVersions),
		s.mlflow(versionsRead, "POST", "registered-models/get-latest-versions", nil, s.latestVersions),
		s.mlflow(versionsWrite, "POST", "model-versions/create", sourceRun, s.createVersion),
		s.mlflow(versionsRead, "GET", "model-versions/get", nil, s.getVersion),
		s.mlflow(versionsRead, "GET", "model-versions/get-download-uri", nil, s.downloadURI),
		s.mlflow(versionsRead, "GET", "model-versions/search", nil, s.searchVersions),
		s.mlflow(versionsWrite, "PATCH", "model-versions/update", nil, s.updateVersion),
		s.mlflow(versionsWrite, "POST", "model-versions/transition-stage", nil, s.moveVersion),
		s.mlflow(versionsDelete, "DELETE", "model-versions/delete", nil, s.deleteVersion),
		s.mlflow(versionsWrite, "POST", "model-versions/set-tag", nil, s.tagVersion),
		s.mlflow(versionsWrite, "DELETE", "model-versions/delete-tag", nil, s.untagVersion),
	}
}

// sourceRun is the run whose artifacts a new version is made from.
func sourceRun(s *Service, r *http.Request, _ gate.Vars, ws arm.ID) (string, error) {
	in := read(r)
	source := in.must("source")
	if in.err != nil {
		return "", in.err
	}
	p, err := s.parseSource(ws, source)
	if err != nil {
		return "", err
	}
	return s.runOf(r.Context(), ws, p)
}

// newDoc is a new resource, stamped as Resource Manager does.
func (s *Service) newDoc(id arm.ID, typ string, by arm.Caller) *resource.Doc {
	d := &resource.Doc{ID: id, Name: id.Name(), Type: typ, Instance: arm.NewHex()}
	s.touch(d, by)
	return d
}

// touch notes who changed a resource, and when.
func (s *Service) touch(d *resource.Doc, by arm.Caller) {
	who, kind := by.App, "Application"
	if by.Kind == arm.User {
		who, kind = by.Name, "User"
	}
	now := s.Now().UTC()
	sys := resource.System{CreatedBy: who, CreatedByType: kind, CreatedAt: now}
	if d.System != nil {
		sys = *d.System
	}
	sys.ModifiedBy, sys.ModifiedByType, sys.ModifiedAt = who, kind, now
	d.System, d.Etag = &sys, `"`+arm.NewHex()+`"`
}

func created(d *resource.Doc) time.Time {
	if d.System == nil {
		return time.Time{}
	}
	return d.System.CreatedAt
}

func changed(d *resource.Doc) time.Time {
	if d.System == nil {
		return time.Time{}
	}
	return d.System.ModifiedAt
}

// entry is a model or a version with what it says.
type entry[P, I any] struct {
	*resource.Doc
	props P
	inner I
}

type (
	model   = entry[modelProps, modelInner]
	version = entry[versionProps, versionInner]
)

func entryOf[P, I any](d *resource.Doc) (e entry[P, I], err error) {
	e.Doc = d
	if e.props, err = propsOf[P](d); err == nil {
		e.inner, err = innerOf[I](d)
	}
	return e, err
}

// keep writes a model or a version that a caller makes or changes, if policies
// let it be so.
func keep[P, I any](tx *store.Tx, s *Service, e entry[P, I], by arm.Caller) error {
	if err := firstErr(setProps(e.Doc, e.props), setInner(e.Doc, e.inner)); err != nil {
		return err
	}
	if s.Judge != nil {
		if err := s.Judge(tx, e.Doc, by); err != nil {
			return err
		}
	}
	return resource.Save(tx, e.Doc)
}

func loadModel(tx *store.Tx, ws arm.ID, name string) (model, error) {
	if err := checkModelName(name); err != nil {
		return model{}, err
	}
	d, err := resource.Load(tx, ws.Child("models", name))
	if err == nil && d == nil {
		err = arm.Errorf(notThere, "Registered Model with name=%s not found", name)
	}
	if err != nil {
		return model{}, err
	}
	return entryOf[modelProps, modelInner](d)
}

func loadVersion(tx *store.Tx, ws arm.ID, name, number string) (version, error) {
	if err := checkModelName(name); err != nil {
		return version{}, err
	}
	if !modelName.MatchString(number) {
		return version{}, bad("Invalid model version: '%s'", clip(number))
	}
	d, err := resource.Load(tx, ws.Child("models", name).Child("versions", number))
	if err == nil && d == nil {
		err = arm.Errorf(notThere, "Model Version (name=%s, version=%s) not found", name, number)
	}
	if err != nil {
		return version{}, err
	}
	return entryOf[versionProps, versionInner](d)
}

// alterModel changes a registered model; only notes of it can change, so a run
// may not.
func (s *Service) alterModel(ctx context.Context, g gate.Grant, name string, fn func(tx *store.Tx, w Workspace, m *model) error) (out map[string]any, err error) {
	err = s.change(ctx, g, modelsWrite, func(tx *store.Tx, w Workspace) error {
		if o := own(g); o != "" {
			return arm.Errorf(arm.Forbidden, "The token is that of run %s and can't change registered models.", o)
		}
		m, err := loadModel(tx, w.ID, name)
		if err != nil {
			return err
		}
		if err := firstErr(g.Free(tx, modelsWrite, m.ID), fn(tx, w, &m)); err != nil {
			return err
		}
		s.touch(m.Doc, g.Caller())
		if err := keep(tx, s, m, g.Caller()); err != nil {
			return err
		}
		out, err = s.showModel(tx, m)
		return err
	})
	if err != nil {
		return nil, err
	}
	return map[string]any{"registered_model": out}, nil
}

// alterVersion changes one version; a run may change only those that it made.
func (s *Service) alterVersion(ctx context.Context, g gate.Grant, name, number string, fn func(tx *store.Tx, w Workspace, v *version) error) (map[string]any, error) {
	var out map[string]any
	err := s.change(ctx, g, versionsWrite, func(tx *store.Tx, w Workspace) error {
		v, err := loadVersion(tx, w.ID, name, number)
		if err != nil {
			return err
		}
		if err := notOwn(g, v.props.Job); err != nil {
			return err
		}
		if err := firstErr(g.Free(tx, versionsWrite, v.ID), fn(tx, w, &v)); err != nil {
			return err
		}
		s.touch(v.Doc, g.Caller())
		if err := keep(tx, s, v, g.Caller()); err != nil {
			return err
		}
		out, err = showVersion(tx, v)
		return err
	})
	if err != nil {
		return nil, err
	}
	return map[string]any{"model_version": out}, nil
}

func (s *Service) createModel(ctx context.Context, g gate.Grant, in *input) (any, error) {
	name, text, tags := in.must("name"), in.text("description"), in.pairs("tags", maxBatchOther)
	in.ignore("deployment_job_id")
	if in.text("deployment_job_id") != "" {
		in.fail("deployment_job_id is not supported.")
	}
	if err := in.done(); err != nil {
		return nil, err
	}
	if err := checkModelName(name); err != nil {
		return nil, err
	}
	var out map[string]any
	err := s.change(ctx, g, modelsWrite, func(tx *store.Tx, w Workspace) error {
		id := w.ID.Child("models", name)
		if d, err := resource.Load(tx, id); err != nil || d != nil {
			return firstErr(err, arm.Errorf(exists, "Registered Model (name=%s) already exists.", name))
		}
		m := model{Doc: s.newDoc(id, modelType, g.Caller()), props: modelProps{Description: text}, inner: modelInner{User: g.Caller().Name}}
		var err error
		if m.props.Tags, err = setTags(nil, tags, "Model "+name); err != nil {
			return err
		}
		if err := keep(tx, s, m, g.Caller()); err != nil {
			return err
		}
		out, err = s.showModel(tx, m)
		return err
	})
	if err != nil {
		return nil, err
	}
	return map[string]any{"registered_model": out}, nil
}

func (s *Service) getModel(ctx context.Context, g gate.Grant, in *input) (any, error) {
	name := in.must("name")
	if err := in.done(); err != nil {
		return nil, err
	}
	var out map[string]any
	err := s.view(ctx, g, modelsRead, func(tx *store.Tx, w Workspace) error {
		m, err := loadModel(tx, w.ID, name)
		if err != nil {
			return err
		}
		out, err = s.showModel(tx, m)
		return err
	})
	return map[string]any{"registered_model": out}, err
}

func (s *Service) updateModel(ctx context.Context, g gate.Grant, in *input) (any, error) {
	name, text := in.must("name"), in.text("description")
	if in.text("deployment_job_id") != "" {
		in.fail("deployment_job_id is not supported.")
	}
	if err := in.done(); err != nil {
		return nil, err
	}
	return s.alterModel(ctx, g, name, func(_ *store.Tx, _ Workspace, m *model) error {
		m.props.Description = text
		return nil
	})
}

// renameModel moves a model and its versions to another id.
func (s *Service) renameModel(ctx context.Context, g gate.Grant, in *input) (any, error) {
	name, to := in.must("name"), in.must("new_name")
	if err := in.done(); err != nil {
		return nil, err
	}
	if err := checkModelName(to); err != nil {
		return nil, err
	}
	return s.alterModel(ctx, g, name, func(tx *store.Tx, w Workspace, m *model) error {
		if err := g.Free(tx, modelsDelete, m.ID); err != nil {
			return err
		}
		id := w.ID.Child("models", to)
		if d, err := resource.Load(tx, id); err != nil || d != nil {
			return firstErr(err, arm.Errorf(exists, "Registered Model (name=%s) already exists.", to))
		}
		all, err := versionsOf(tx, m.ID)
		if err != nil {
			return err
		}
		for _, v := range all {
			if err := s.forget(tx, v); err != nil {
				return err
			}
			v.ID = id.Child("versions", v.Name)
			if err := firstErr(resource.Save(tx, v), s.reregister(tx, w.UID, v, name, to)); err != nil {
				return err
			}
		}
		if err := s.forget(tx, m.Doc); err != nil {
			return err
		}
		m.Doc.ID, m.Doc.Name = id, to
		return nil
	})
}

// reregister tells the logged model of a version that the model is renamed.
func (s *Service) reregister(tx *store.Tx, ws string, d *resource.Doc, from, to string) error {
	in, err := innerOf[versionInner](d)
	if err != nil || in.Model == "" {
		return err
	}
	m, err := loadLogged(tx, ws, in.Model)
	if err != nil {
		return err
	}
	for i, r := range m.Versions {
		if strings.EqualFold(r.Name, from) && r.Version == d.Name {
			m.Versions[i].Name = to
		}
	}
	return saveLogged(tx, ws, m)
}

// forget takes a resource away from where it lies.
func (s *Service) forget(tx *store.Tx, d *resource.Doc) error {
	if s.Removed != nil {
		if err := s.Removed(tx, d); err != nil {
			return err
		}
	}
	return resource.Remove(tx, d)
}

func (s *Service) deleteModel(ctx context.Context, g gate.Grant, in *input) (any, error) {
	name := in.must("name")
	if err := in.done(); err != nil {
		return nil, err
	}
	return nil, s.change(ctx, g, modelsDelete, func(tx *store.Tx, w Workspace) error {
		m, err := loadModel(tx, w.ID, name)
		if err != nil {
			return err
		}
		if err := g.Free(tx, modelsDelete, m.ID); err != nil {
			return err
		}
		all, err := versionsOf(tx, m.ID)
		if err != nil {
			return err
		}
		for _, v := range all {
			if err := firstErr(s.unregister(tx, v), s.forget(tx, v)); err != nil {
				return err
			}
		}
		return s.forget(tx, m.Doc)
	})
}

func (s *Service) tagModel(ctx context.Context, g gate.Grant, in *input) (any, error) {
	name, t := in.must("name"), pair{in.must("key"), in.text("value")}
	if err := in.done(); err != nil {
		return nil, err
	}
	_, err := s.alterModel(ctx, g, name, func(_ *store.Tx, _ Workspace, m *model) (err error) {
		m.props.Tags, err = setTags(m.props.Tags, []pair{t}, "Model "+name)
		return err
	})
	return nil, err
}

func (s *Service) untagModel(ctx context.Context, g gate.Grant, in *input) (any, error) {
	name, k := in.must("name"), in.must("key")
	if err := in.done(); err != nil {
		return nil, err
	}
	_, err := s.alterModel(ctx, g, name, func(_ *store.Tx, _ Workspace, m *model) error {
		delete(m.props.Tags, k)
		return nil
	})
	return nil, err
}

var (
	aliasForm   = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)
	versionLike = regexp.MustCompile(`^[vV][0-9]+$|^[0-9]+$`)
)

func checkAlias(a string) error {
	if !aliasForm.MatchString(a) || strings.EqualFold(a, "latest") || versionLike.MatchString(a) {
		return bad("Invalid alias name: '%s'. It must have 1 to 255 letters, digits, '_' and '-', and be neither 'latest' nor like a version.", clip(a))
	}
	return nil
}

func (s *Service) setAlias(ctx context.Context, g gate.Grant, in *input) (any, error) {
	name, alias, number := in.must("name"), in.must("alias"), in.must("version")
	if err := in.done(); err != nil {
		return nil, err
	}
	if err := checkAlias(alias); err != nil {
		return nil, err
	}
	_, err := s.alterModel(ctx, g, name, func(tx *store.Tx, w Workspace, m *model) error {
		if _, err := loadVersion(tx, w.ID, name, number); err != nil {
			return err
		}
		if m.inner.Aliases == nil {
			m.inner.Aliases = map[string]string{}
		}
		if m.inner.Aliases[alias] = number; len(m.inner.Aliases) > 1000 {
			return arm.Errorf(limited, "Model %s would have more than 1000 aliases.", name)
		}
		return nil
	})
	return nil, err
}

func (s *Service) deleteAlias(ctx context.Context, g gate.Grant, in *input) (any, error) {
	name, alias := in.must("name"), in.must("alias")
	if err := in.done(); err != nil {
		return nil, err
	}
	_, err := s.alterModel(ctx, g, name, func(_ *store.Tx, _ Workspace, m *model) error {
		delete(m.inner.Aliases, alias)
		return nil
	})
	return nil, err
}

// oneVersion answers with the version that pick finds.
func (s *Service) oneVersion(ctx context.Context, g gate.Grant, pick func(tx *store.Tx, w Workspace) (version, error)) (any, error) {
	var out map[string]any
	err := s.view(ctx, g, versionsRead, func(tx *store.Tx, w Workspace) error {
		v, err := pick(tx, w)
		if err != nil {
			return err
		}
		out, err = showVersion(tx, v)
		return err
	})
	return map[string]any{"model_version": out}, err
}

func (s *Service) byAlias(ctx context.Context, g gate.Grant, in *input) (any, error) {
	name, alias := in.must("name"), in.must("alias")
	if err := in.done(); err != nil {
		return nil, err
	}
	return s.oneVersion(ctx, g, func(tx *store.Tx, w Workspace) (version, error) {
		m, err := loadModel(tx, w.ID, name)
		if err != nil {
			return version{}, err
		}
		number, ok := m.inner.Aliases[alias]
		if !ok {
			return version{}, bad("Registered model alias %s not found.", clip(alias))
		}
		return loadVersion(tx, w.ID, name, number)
	})
}

func (s *Service) getVersion(ctx context.Context, g gate.Grant, in *input) (any, error) {
	name, number := in.must("name"), in.must("version")
	if err := in.done(); err != nil {
		return nil, err
	}
	return s.oneVersion(ctx, g, func(tx *store.Tx, w Workspace) (version, error) { return loadVersion(tx, w.ID, name, number) })
}

// downloadURI is where a client of MLflow finds a version's files.
func (s *Service) downloadURI(ctx context.Context, g gate.Grant, in *input) (any, error) {
	name, number := in.must("name"), in.must("version")
	if err := in.done(); err != nil {
		return nil, err
	}
	uri := ""
	err := s.view(ctx, g, versionsRead, func(tx *store.Tx, w Workspace) error {
		v, err := loadVersion(tx, w.ID, name, number)
		if err != nil {
			return err
		}
		uri = v.props.URI
		if p, err := s.parseSource(w.ID, uri); err == nil {
			uri = p.uri()
		}
		return nil
	})
	return map[string]string{"artifact_uri": uri}, err
}

// stages are MLflow's, by their names in lower case.
var stages = map[string]string{"none": "None", "staging": "Staging", "production": "Production", "archived": "Archived"}

func (v *versionProps) stage() string {
	if st, ok := stages[strings.ToLower(v.Stage)]; ok {
		return st
	}
	return "None"
}

func (s *Service) latestVersions(ctx context.Context, g gate.Grant, in *input) (any, error) {
	name, want := in.must("name"), in.texts("stages")
	if err := in.done(); err != nil {
		return nil, err
	}
	for i, st := range want {
		if want[i] = stages[strings.ToLower(st)]; want[i] == "" {
			return nil, bad("Invalid Model Version stage: %s. Value must be one of None, Staging, Production, Archived.", clip(st))
		}
	}
	out := []map[string]any{}
	err := s.view(ctx, g, versionsRead, func(tx *store.Tx, w Workspace) error {
		m, err := loadModel(tx, w.ID, name)
		if err != nil {
			return err
		}
		last, err := lastVersions(tx, m.ID)
		if err != nil {
			return err
		}
		for _, v := range last {
			if len(want) == 0 || slices.Contains(want, v.props.stage()) {
				x, err := showVersion(tx, v)
				if err != nil {
					return err
				}
				out = append(out, x)
			}
		}
		return nil
	})
	return map[string]any{"model_versions": out}, err
}

// lastVersions are the latest version in every stage.
func lastVersions(tx *store.Tx, model arm.ID) ([]version, error) {
	all, err := versionsOf(tx, model)
	if err != nil {
		return nil, err
	}
	last := map[string]version{}
	for _, d := range all {
		v, err := entryOf[versionProps, versionInner](d)
		if err != nil {
			return nil, err
		}
		last[v.props.stage()] = v
	}
	out := make([]version, 0, len(last))
	for _, st := range slices.Sorted(maps.Keys(last)) {
		out = append(out, last[st])
	}
	return out, nil
}

func (s *Service) createVersion(ctx context.Context, g gate.Grant, in *input) (any, error) {
	name, source, runID := in.must("name"), in.must("source"), in.text("run_id")
	text, link, modelID, tags := in.text("description"), in.text("run_link"), in.text("model_id"), in.pairs("tags", maxBatchOther)
	if err := in.done(); err != nil {
		return nil, err
	}
	if len(link) > 500 {
		return nil, bad("run_link has %d bytes; at most 500 are allowed", len(link))
	}
	ws, err := g.On(versionsWrite)
	if err != nil {
		return nil, err
	}
	p, err := s.parseSource(ws, source)
	if err != nil {
		return nil, err
	}
	w, err := s.held(ctx, g, versionsWrite, &p)
	if err != nil {
		return nil, err
	}
	if err := s.present(ctx, w, p); err != nil {
		return nil, err
	}
	var out map[string]any
	err = s.change(ctx, g, versionsWrite, func(tx *store.Tx, w Workspace) error {
		m, err := loadModel(tx, w.ID, name)
		if err != nil {
			return err
		}
		v := version{Doc: s.newDoc(m.ID.Child("versions", strconv.Itoa(m.inner.Last+1)), versionType, g.Caller())}
		v.props = versionProps{Description: text, URI: p.azure(w.ID), Type: "mlflow_model", Flavors: map[string]flavor{}}
		v.inner = versionInner{Source: source, Link: link, User: g.Caller().Name, Model: p.model}
		if v.props.Job, err = s.origin(tx, w.UID, p, runID, modelID, registration{m.Name, v.Name}); err != nil {
			return err
		}
		if v.inner.Model == "" {
			v.inner.Model = modelID
		}
		if v.props.Tags, err = setTags(nil, tags, "Model version "+name); err != nil {
			return err
		}
		if err := firstErr(g.Free(tx, versionsWrite, v.ID), keep(tx, s, v, g.Caller()), s.counted(tx, v.Doc, g.Caller())); err != nil {
			return err
		}
		out, err = showVersion(tx, v)
		return err
	})
	if err != nil {
		return nil, err
	}
	return map[string]any{"model_version": out}, nil
}

// origin is the run that a version comes from. What the request says of run and
// logged model must agree with where the files are.
func (s *Service) origin(tx *store.Tx, ws string, p place, runID, modelID string, as registration) (string, error) {
	run := p.run
	if p.model != "" && modelID == "" {
		modelID = p.model
	}
	if modelID != "" {
		m, err := loadLogged(tx, ws, modelID)
		if err != nil {
			return "", err
		}
		if p.model != "" && p.model != modelID || p.run != "" && !strings.EqualFold(p.run, m.Run) {
			return "", bad("The source is not that of logged model %s.", modelID)
		}
		run = m.Run
		m.Versions = append(m.Versions, as)
		if err := saveLogged(tx, ws, m); err != nil {
			return "", err
		}
	}
	if runID != "" && !strings.EqualFold(runID, run) {
		return "", bad("The source is an artifact of run '%s', but run_id is '%s'.", run, clip(runID))
	}
	return run, nil
}

// present says whether there is anything at a place.
func (s *Service) present(ctx context.Context, w Workspace, p place) error {
	below, _, err := s.Blobs.List(ctx, w, p.prefix(), true, "", 1)
	if err != nil || len(below) > 0 {
		return err
	}
	if p.path == "" {
		return arm.Errorf(notThere, "Logged model %s has no files.", p.model)
	}
	c, err := s.Blobs.Open(ctx, w, p.blob(), 0)
	if err != nil {
		return missing(err, p)
	}
	return c.Close()
}

func (s *Service) updateVersion(ctx context.Context, g gate.Grant, in *input) (any, error) {
	name, number, text := in.must("name"), in.must("version"), in.text("description")
	if err := in.done(); err != nil {
		return nil, err
	}
	return s.alterVersion(ctx, g, name, number, func(_ *store.Tx, _ Workspace, v *version) error {
		v.props.Description = text
		return nil
	})
}

func (s *Service) moveVersion(ctx context.Context, g gate.Grant, in *input) (any, error) {
	name, number, to, archive := in.must("name"), in.must("version"), in.must("stage"), in.flag("archive_existing_versions")
	if err := in.done(); err != nil {
		return nil, err
	}
	st := stages[strings.ToLower(to)]
	if st == "" {
		return nil, bad("Invalid Model Version stage: %s. Value must be one of None, Staging, Production, Archived.", clip(to))
	}
	if archive && st != "Staging" && st != "Production" {
		return nil, bad("Model version transition cannot archive existing model versions because '%s' is not an Active stage. Valid stages are Staging, Production.", st)
	}
	return s.alterVersion(ctx, g, name, number, func(tx *store.Tx, w Workspace, v *version) error {
		if o := own(g); o != "" {
			return arm.Errorf(arm.Forbidden, "The token is that of run %s and can't move versions between stages.", o)
		}
		if v.props.Stage = st; !archive {
			return nil
		}
		all, err := versionsOf(tx, v.ID.Parent())
		if err != nil {
			return err
		}
		for _, d := range all {
			x, err := entryOf[versionProps, versionInner](d)
			if err != nil {
				return err
			}
			if x.Name == v.Name || x.props.stage() != st {
				continue
			}
			x.props.Stage = "Archived"
			s.touch(x.Doc, g.Caller())
			if err := keep(tx, s, x, g.Caller()); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Service) deleteVersion(ctx context.Context, g gate.Grant, in *input) (any, error) {
	name, number := in.must("name"), in.must("version")
	if err := in.done(); err != nil {
		return nil, err
	}
	return nil, s.change(ctx, g, versionsDelete, func(tx *store.Tx, w Workspace) error {
		v, err := loadVersion(tx, w.ID, name, number)
		if err != nil {
			return err
		}
		return firstErr(g.Free(tx, versionsDelete, v.ID), s.versionRemoved(tx, v.Doc), s.forget(tx, v.Doc))
	})
}

func (s *Service) tagVersion(ctx context.Context, g gate.Grant, in *input) (any, error) {
	name, number, t := in.must("name"), in.must("version"), pair{in.must("key"), in.text("value")}
	if err := in.done(); err != nil {
		return nil, err
	}
	_, err := s.alterVersion(ctx, g, name, number, func(_ *store.Tx, _ Workspace, v *version) (err error) {
		v.props.Tags, err = setTags(v.props.Tags, []pair{t}, fmt.Sprintf("Version %s of model %s", number, name))
		return err
	})
	return nil, err
}

func (s *Service) untagVersion(ctx context.Context, g gate.Grant, in *input) (any, error) {
	name, number, k := in.must("name"), in.must("version"), in.must("key")
	if err := in.done(); err != nil {
		return nil, err
	}
	_, err := s.alterVersion(ctx, g, name, number, func(_ *store.Tx, _ Workspace, v *version) error {
		delete(v.props.Tags, k)
		return nil
	})
	return nil, err
}
