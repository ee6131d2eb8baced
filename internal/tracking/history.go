package tracking

import (
	"context"
	"maps"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// signedFor is how long a URL for one artifact is good for.
const signedFor = 15 * time.Minute

// logFolders are where the logs of runs lie among their artifacts.
var logFolders = []string{"user_logs/", "system_logs/", "logs/", "azureml-logs/"}

// maxLogs is the most log files that one answer names.
const maxLogs = 200

func (s *Service) historyRoutes() []gate.Route {
	var out []gate.Route
	for _, at := range []string{"runs/{run}", "experiments/{experiment}/runs/{run}", "experimentids/{experimentid}/runs/{run}"} {
		out = append(out,
			s.door(RunsRead, "GET", historyPath+at, runAt, s.historyRun),
			s.door(RunsWrite, "PATCH", historyPath+at, runAt, s.patchRun),
			s.door(RunsRead, "GET", historyPath+at+"/details", runAt, s.runDetails),
			s.door(RunsRead, "GET", historyPath+at+"/children", runAt, s.runChildren),
		)
	}
	body := runIn("runId")
	return append(out, s.door(RunsRead, "POST", historyPath+"rundata", body, s.runData))
}

// historyAt holds the experiment that the path names, if it does, against the
// run's.
func (in *input) historyAt(e experiment) error {
	kind, name := strings.ToLower(in.segment(0)), in.segment(1)
	if kind == "experiments" && name != e.Name || kind == "experimentids" && name != e.ID {
		return arm.Errorf(notThere, "The run is not in the experiment '%s'.", clip(name))
	}
	return nil
}

// past is a run with its experiment, for the face of run history.
type past struct {
	*run
	in experiment
	w  Workspace
}

// recall is the run that the request's path is about.
func (s *Service) recall(ctx context.Context, g gate.Grant, in *input, id string) (p past, err error) {
	err = s.view(ctx, g, RunsRead, func(tx *store.Tx, w Workspace) error {
		if err := notOwn(g, id); err != nil {
			return err
		}
		p, err = pastRun(tx, w, in, id)
		return err
	})
	return p, err
}

func pastRun(tx *store.Tx, w Workspace, in *input, id string) (p past, err error) {
	p.w = w
	if p.run, err = loadRun(tx, w.UID, id); err != nil {
		return p, err
	}
	if p.in, err = loadExperiment(tx, w.UID, p.Experiment); err != nil {
		return p, err
	}
	return p, in.historyAt(p.in)
}

func utc(ms int64) any {
	if ms == 0 {
		return nil
	}
	return time.UnixMilli(ms).UTC().Format(time.RFC3339Nano)
}

// dto is a run as run history shows it.
func (p past) dto() map[string]any {
	r := p.run
	user := map[string]any{"userObjectId": r.Object, "userTenantId": r.Tenant, "userName": r.User}
	out := map[string]any{
		"runId": r.ID, "runUuid": r.ID, "rootRunId": r.ID, "runNumber": r.Number, "experimentId": r.Experiment, "displayName": r.Name, "name": r.Name,
		"status": r.Status, "createdUtc": utc(r.Created), "startTimeUtc": utc(r.Start), "endTimeUtc": utc(r.End), "lastModifiedUtc": utc(r.Modified),
		"dataContainerId": "dcid." + r.ID, "description": r.Text, "hidden": r.Hidden, "runType": "azureml.mlflow", "createdBy": user, "userId": r.Object,
		"properties": orEmpty(r.Properties), "parameters": orEmpty(r.Params), "tags": orEmpty(r.Tags), "outputs": outputs(r.Outputs), "inputs": map[string]any{},
		"error": failure(r.Error), "warnings": []any{},
	}
	if r.Job {
		out["runType"] = "azureml.scriptrun"
	}
	if r.End > r.Start {
		out["duration"] = span(time.Duration(r.End-r.Start) * time.Millisecond)
	}
	return out
}

// span is a duration as .NET writes it.
func span(d time.Duration) string {
	base := time.Unix(0, 0).UTC().Add(d % (24 * time.Hour)).Format("15:04:05.0000000")
	if days := d / (24 * time.Hour); days > 0 {
		return time.Duration(days).String() + "." + base
	}
	return base
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

func outputs(m map[string]Output) map[string]Output {
	if m == nil {
		return map[string]Output{}
	}
	return m
}

func failure(text string) any {
	if text == "" {
		return nil
	}
	return map[string]any{"error": map[string]any{"code": "UserError", "message": text}}
}

func (s *Service) historyRun(ctx context.Context, g gate.Grant, in *input) (any, error) {
	id := g.Item()
	in.ignore("api-version")
	if err := in.done(); err != nil {
		return nil, err
	}
	p, err := s.recall(ctx, g, in, id)
	if err != nil {
		return nil, err
	}
	return p.dto(), nil
}

// runDetails is what a client polls that follows a run: its status, and URLs by
// which its logs can be read for a while. Only who may read artifacts gets those.
func (s *Service) runDetails(ctx context.Context, g gate.Grant, in *input) (any, error) {
	id := g.Item()
	in.ignore("api-version")
	if err := in.done(); err != nil {
		return nil, err
	}
	p, err := s.recall(ctx, g, in, id)
	if err != nil {
		return nil, err
	}
	logs := map[string]string{}
	if g.Sees(ArtifactsRead, p.w.ID) {
		if logs, err = s.logs(ctx, p); err != nil {
			return nil, err
		}
	}
	d := p.dto()
	out := map[string]any{"logFiles": logs, "createdTimeUtc": d["createdUtc"], "runDefinition": nil}
	for _, k := range []string{"runId", "runUuid", "rootRunId", "runNumber", "status", "startTimeUtc", "endTimeUtc", "error", "warnings", "tags", "properties", "parameters", "inputs", "outputs", "createdBy", "userId", "lastModifiedUtc"} {
		out[k] = d[k]
	}
	return out, nil
}

// logs are URLs of the run's log files, by their paths.
func (s *Service) logs(ctx context.Context, p past) (map[string]string, error) {
	out := map[string]string{}
	at := place{run: p.ID}
	for _, folder := range logFolders {
		blobs, _, err := s.Blobs.List(ctx, p.w, at.folder()+folder, true, "", maxLogs)
		if err != nil {
			return nil, err
		}
		for _, b := range blobs {
			if len(out) == maxLogs {
				return out, nil
			}
			url, err := s.sign(ctx, p.w, b.Name, "r")
			if err != nil {
				return nil, err
			}
			out[strings.TrimPrefix(b.Name, at.folder())] = url
		}
	}
	return out, nil
}

// sign is a URL for one blob that is good for a short while. It is meant to be
// given to the caller, who may do with the blob what the URL allows.
func (s *Service) sign(ctx context.Context, w Workspace, name, permissions string) (string, error) {
	url, err := s.Blobs.Sign(ctx, w, name, permissions, s.Now().Add(signedFor))
	return string(url.Reveal()), err
}

// runChildren is empty: no run has children of its own here.
func (s *Service) runChildren(ctx context.Context, g gate.Grant, in *input) (any, error) {
	id := g.Item()
	in.ignore("api-version", "$top", "$filter", "$orderby", "$sortorder", "$count", "$continuationToken")
	if err := in.done(); err != nil {
		return nil, err
	}
	_, err := s.recall(ctx, g, in, id)
	return map[string]any{"value": []any{}, "nextLink": nil}, err
}

func (s *Service) runData(ctx context.Context, g gate.Grant, in *input) (any, error) {
	id := g.Item()
	in.ignore("runId", "selectRunMetadata", "selectRunDefinition", "selectJobSpecification")
	if err := in.done(); err != nil {
		return nil, err
	}
	p, err := s.recall(ctx, g, in, id)
	if err != nil {
		return nil, err
	}
	return map[string]any{"runMetadata": p.dto(), "runDefinition": nil, "jobSpecification": nil}, nil
}

// patchRun changes what people say of a run: its name, description, tags and
// properties, and whether it is archived.
func (s *Service) patchRun(ctx context.Context, g gate.Grant, in *input) (any, error) {
	id := g.Item()
	name, text := in.text("displayName"), in.text("description")
	tags, props := in.strings("tags"), in.strings("properties")
	hide, hidden := in.has("hidden"), in.flag("hidden")
	in.same("runId", id)
	if err := in.done(); err != nil {
		return nil, err
	}
	var p past
	err := s.alter(ctx, g, id, func(tx *store.Tx, w Workspace, r *run) (err error) {
		if p.in, err = loadExperiment(tx, w.UID, r.Experiment); err != nil {
			return err
		}
		if err := in.historyAt(p.in); err != nil {
			return err
		}
		if p.run, p.w = r, w; name != "" {
			r.Name = name
		}
		if len(text) > maxTag {
			return bad("description has %d bytes; at most %d are allowed", len(text), maxTag)
		}
		if text != "" {
			r.Text = text
		}
		if hide {
			r.Hidden = hidden
		}
		if r.Tags == nil {
			r.Tags = map[string]string{}
		}
		if err := r.retag(pairs(tags)); err != nil {
			return err
		}
		r.Properties, err = addProperties(r.Properties, props, false)
		return err
	})
	if err != nil {
		return nil, err
	}
	return p.dto(), nil
}

// same refuses another value than want of a field that may be left out.
func (in *input) same(name, want string) {
	if s := in.text(name); s != "" && !strings.EqualFold(s, want) {
		in.fail("%s is '%s'; the path says '%s'", name, clip(s), want)
	}
}

// addProperties adds properties, which never change once they are there unless
// the platform itself says so. Nobody else may speak in its name.
func addProperties(m, add map[string]string, platform bool) (map[string]string, error) {
	out := maps.Clone(m)
	for k, v := range add {
		if len(k) == 0 || len(k) > maxKey || len(v) > maxTag {
			return nil, bad("The property '%s' has %d bytes; a property's name may have 1 to %d, its value %d.", clip(k), len(v), maxKey, maxTag)
		}
		old, had := m[k]
		if !platform && had && old != v {
			return nil, bad("The property '%s' of a run can't be changed.", clip(k))
		}
		if !platform && !had && strings.HasPrefix(strings.ToLower(k), "azureml.") {
			return nil, bad("The property '%s' is the platform's own; properties that begin with azureml. can't be set.", clip(k))
		}
		if out == nil {
			out = map[string]string{}
		}
		out[k] = v
	}
	if len(out) > maxTags {
		return nil, arm.Errorf(limited, "The run would have %d properties; at most %d are allowed.", len(out), maxTags)
	}
	return out, nil
}
