package tracking

import (
	"context"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// defaultExperiment is where runs go that name none. Every workspace has it,
// kept or not.
var defaultExperiment = experiment{ID: "0", Name: "Default"}

func (s *Service) experimentRoutes() []gate.Route {
	return []gate.Route{
		s.mlflow(experimentsWrite, "POST", "experiments/create", nil, s.createExperiment),
		s.mlflow(experimentsRead, "GET", "experiments/get", nil, s.getExperiment),
		s.mlflow(experimentsRead, "GET", "experiments/get-by-name", nil, s.getExperimentByName),
		s.mlflow(experimentsRead, "GET", "experiments/search", nil, s.searchExperiments),
		s.mlflow(experimentsRead, "POST", "experiments/search", nil, s.searchExperiments),
		s.mlflow(experimentsRead, "GET", "experiments/list", nil, s.searchExperiments),
		s.mlflow(experimentsWrite, "POST", "experiments/update", nil, s.updateExperiment),
		s.mlflow(experimentsDelete, "POST", "experiments/delete", nil, s.markExperiment(experimentsDelete, true)),
		s.mlflow(experimentsWrite, "POST", "experiments/restore", nil, s.markExperiment(experimentsWrite, false)),
		s.mlflow(experimentsWrite, "POST", "experiments/set-experiment-tag", nil, s.setExperimentTag),
		s.mlflow(experimentsWrite, "POST", "experiments/delete-experiment-tag", nil, s.deleteExperimentTag),
	}
}

func stage(deleted bool) string {
	if deleted {
		return "deleted"
	}
	return "active"
}

func pairs(m map[string]string) []pair {
	out := make([]pair, 0, len(m))
	for k, v := range m {
		out = append(out, pair{k, v})
	}
	sortPairs(out)
	return out
}

func (e experiment) show() map[string]any {
	return map[string]any{
		"experiment_id": e.ID, "name": e.Name, "artifact_location": "mlflow-artifacts:/", "lifecycle_stage": stage(e.Deleted),
		"creation_time": e.Created, "last_update_time": e.Updated, "tags": pairs(e.Tags),
	}
}

func (s *Service) now() int64 { return s.Now().UnixMilli() }

func (s *Service) createExperiment(ctx context.Context, g gate.Grant, in *input) (any, error) {
	name, tags, place := in.must("name"), in.pairs("tags", maxBatchOther), in.text("artifact_location")
	if err := in.done(); err != nil {
		return nil, err
	}
	if place != "" && place != "mlflow-artifacts:/" {
		return nil, bad("artifact_location is '%s'; artifacts lie in the workspace's own store, so it must be left out.", clip(place))
	}
	var id string
	err := s.change(ctx, g, experimentsWrite, func(tx *store.Tx, w Workspace) error {
		e, err := s.newExperiment(tx, w.UID, name)
		if err != nil {
			return err
		}
		if e.Tags, err = setTags(nil, tags, "Experiment "+name); err != nil {
			return err
		}
		id = e.ID
		return saveExperiment(tx, w.UID, e)
	})
	return map[string]string{"experiment_id": id}, err
}

// newExperiment is a new experiment, whose name nobody has; it is not kept yet.
func (s *Service) newExperiment(tx *store.Tx, ws, name string) (experiment, error) {
	if err := checkName("experiment", name); err != nil {
		return experiment{}, err
	}
	old, ok, err := experimentNamed(tx, ws, name)
	if err != nil {
		return experiment{}, err
	}
	if ok && old.Deleted {
		return experiment{}, arm.Errorf(exists, "Experiment '%s' already exists in deleted state. You can restore the experiment, or permanently choose another name.", clip(name))
	}
	if ok {
		return experiment{}, arm.Errorf(exists, "Experiment '%s' already exists.", clip(name))
	}
	return experiment{ID: arm.NewUUID(), Name: name, Created: s.now(), Updated: s.now()}, nil
}

// ownExperiment refuses a run what is not about its own experiment.
func (s *Service) ownExperiment(tx *store.Tx, g gate.Grant, ws, id string) error {
	o := own(g)
	if o == "" {
		return nil
	}
	r, err := loadRun(tx, ws, o)
	if err == nil && r.Experiment == id {
		return nil
	}
	return arm.Errorf(arm.Forbidden, "The token is that of run %s, which may see only its own experiment.", o)
}

func (s *Service) getExperiment(ctx context.Context, g gate.Grant, in *input) (any, error) {
	id := in.must("experiment_id")
	if err := in.done(); err != nil {
		return nil, err
	}
	var e experiment
	err := s.view(ctx, g, experimentsRead, func(tx *store.Tx, w Workspace) (err error) {
		if err = s.ownExperiment(tx, g, w.UID, id); err == nil {
			e, err = loadExperiment(tx, w.UID, id)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return map[string]any{"experiment": e.show()}, nil
}

func (s *Service) getExperimentByName(ctx context.Context, g gate.Grant, in *input) (any, error) {
	name := in.must("experiment_name")
	if err := in.done(); err != nil {
		return nil, err
	}
	var e experiment
	err := s.view(ctx, g, experimentsRead, func(tx *store.Tx, w Workspace) (err error) {
		var ok bool
		if e, ok, err = experimentNamed(tx, w.UID, name); err != nil {
			return err
		}
		if err := s.ownExperiment(tx, g, w.UID, e.ID); err != nil {
			return err
		}
		if !ok {
			return arm.Errorf(notThere, "Could not find experiment with name '%s'", clip(name))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return map[string]any{"experiment": e.show()}, nil
}

// viewType is which of active and deleted things are meant.
func viewType(in *input, name string) func(deleted bool) bool {
	switch v := in.text(name); strings.ToUpper(v) {
	case "", "ACTIVE_ONLY", "1":
		return func(deleted bool) bool { return !deleted }
	case "DELETED_ONLY", "2":
		return func(deleted bool) bool { return deleted }
	case "ALL", "3":
		return func(bool) bool { return true }
	default:
		in.fail("%s is '%s'; it must be ACTIVE_ONLY, DELETED_ONLY or ALL", name, clip(v))
		return func(bool) bool { return false }
	}
}

// limit is a page's size.
func limit(in *input, def, most int64) int {
	n := in.integer("max_results", def)
	if n < 1 || n > most {
		in.fail("max_results is %d; it must be from 1 to %d", n, most)
	}
	return int(n)
}

// offset reads a page token, which says how many results were shown.
func offset(in *input) int {
	t := in.text("page_token")
	if t == "" {
		return 0
	}
	b, err := base64.RawURLEncoding.DecodeString(t)
	n, nerr := strconv.Atoi(string(b))
	if err != nil || nerr != nil || n < 0 {
		in.fail("page_token is not one that a search gave")
	}
	return n
}

// part is the page of found that begins at from, and the token of the next.
func part[T any](found []T, from, size int) ([]T, string) {
	if from >= len(found) {
		return nil, ""
	}
	found = found[from:]
	if len(found) <= size {
		return found, ""
	}
	return found[:size], base64.RawURLEncoding.EncodeToString([]byte(strconv.Itoa(from + size)))
}

func (s *Service) searchExperiments(ctx context.Context, g gate.Grant, in *input) (any, error) {
	wanted, size, from := viewType(in, "view_type"), limit(in, 1000, 50_000), offset(in)
	where, by := in.text("filter"), in.texts("order_by")
	if err := in.done(); err != nil {
		return nil, err
	}
	q, err := experimentGrammar.query(where, by)
	if err != nil {
		return nil, err
	}
	var found []experiment
	err = s.view(ctx, g, experimentsRead, func(tx *store.Tx, w Workspace) error {
		all, err := allExperiments(tx, w.UID)
		if err != nil {
			return err
		}
		for _, e := range all {
			if wanted(e.Deleted) && q.matches(e) && s.ownExperiment(tx, g, w.UID, e.ID) == nil {
				found = append(found, e)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	sortBy(q, found)
	found, next := part(found, from, size)
	out := map[string]any{"experiments": shown(found, experiment.show)}
	if next != "" {
		out["next_page_token"] = next
	}
	return out, nil
}

func allExperiments(tx *store.Tx, ws string) ([]experiment, error) {
	all, err := store.ScanJSON[experiment](tx, experiments, key(ws, ""), "", 0)
	if err != nil {
		return nil, err
	}
	for _, e := range all {
		if e.ID == defaultExperiment.ID {
			return all, nil
		}
	}
	return append(all, defaultExperiment), nil
}

func shown[T any](items []T, show func(T) map[string]any) []map[string]any {
	out := make([]map[string]any, len(items))
	for i, x := range items {
		out[i] = show(x)
	}
	return out
}

// amend changes one experiment.
func (s *Service) amend(ctx context.Context, g gate.Grant, a arm.Action, id string, fn func(tx *store.Tx, ws string, e *experiment) error) error {
	return s.change(ctx, g, a, func(tx *store.Tx, w Workspace) error {
		if own(g) != "" {
			return arm.Errorf(arm.Forbidden, "A run's token can't change experiments.")
		}
		e, err := loadExperiment(tx, w.UID, id)
		if err != nil {
			return err
		}
		e.Updated = s.now()
		if err := fn(tx, w.UID, &e); err != nil {
			return err
		}
		return saveExperiment(tx, w.UID, e)
	})
}

func active(e *experiment) error {
	if e.Deleted {
		return bad("The experiment %s must be in the 'active' state. Current state is deleted.", e.ID)
	}
	return nil
}

func (s *Service) updateExperiment(ctx context.Context, g gate.Grant, in *input) (any, error) {
	id, name := in.must("experiment_id"), in.text("new_name")
	if err := in.done(); err != nil {
		return nil, err
	}
	return nil, s.amend(ctx, g, experimentsWrite, id, func(tx *store.Tx, ws string, e *experiment) error {
		if err := active(e); err != nil || name == "" || name == e.Name {
			return err
		}
		if id == defaultExperiment.ID {
			return bad("The default experiment can't be renamed.")
		}
		if _, err := s.newExperiment(tx, ws, name); err != nil {
			return err
		}
		if err := tx.Delete(names, key(ws, e.Name)); err != nil {
			return err
		}
		e.Name = name
		return nil
	})
}

func (s *Service) markExperiment(a arm.Action, deleted bool) verb {
	return func(ctx context.Context, g gate.Grant, in *input) (any, error) {
		id := in.must("experiment_id")
		if err := in.done(); err != nil {
			return nil, err
		}
		return nil, s.amend(ctx, g, a, id, func(_ *store.Tx, _ string, e *experiment) error {
			if id == defaultExperiment.ID {
				return bad("The default experiment can't be deleted.")
			}
			if e.Deleted == deleted {
				return &arm.Error{Code: notThere, Status: http.StatusNotFound, Message: "The experiment " + e.ID + " is in the state '" + stage(deleted) + "' already."}
			}
			e.Deleted = deleted
			return nil
		})
	}
}

func (s *Service) setExperimentTag(ctx context.Context, g gate.Grant, in *input) (any, error) {
	id, tag := in.must("experiment_id"), pair{in.must("key"), in.text("value")}
	if err := in.done(); err != nil {
		return nil, err
	}
	return nil, s.amend(ctx, g, experimentsWrite, id, func(_ *store.Tx, _ string, e *experiment) (err error) {
		if err = active(e); err == nil {
			e.Tags, err = setTags(e.Tags, []pair{tag}, "Experiment "+e.ID)
		}
		return err
	})
}

func (s *Service) deleteExperimentTag(ctx context.Context, g gate.Grant, in *input) (any, error) {
	id, name := in.must("experiment_id"), in.must("key")
	if err := in.done(); err != nil {
		return nil, err
	}
	return nil, s.amend(ctx, g, experimentsWrite, id, func(_ *store.Tx, _ string, e *experiment) error {
		if _, ok := e.Tags[name]; !ok {
			return arm.Errorf(notThere, "No tag with name: %s in experiment with id %s", clip(name), e.ID)
		}
		delete(e.Tags, name)
		return active(e)
	})
}
