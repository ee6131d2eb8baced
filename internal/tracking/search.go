package tracking

import (
	"context"
	"slices"
	"strings"

	"castellan/internal/gate"
	"castellan/internal/store"
)

var runGrammar = grammar{
	kinds: map[string]string{
		"metric": "metric", "metrics": "metric",
		"parameter": "parameter", "parameters": "parameter", "param": "parameter", "params": "parameter",
		"tag": "tag", "tags": "tag",
		"attribute": "attribute", "attributes": "attribute", "attr": "attribute", "run": "attribute",
		"dataset": "dataset", "datasets": "dataset",
	},
	attributes: map[string]field{
		"run_id": {list: true}, "run_uuid": {list: true, as: "run_id"}, "run_name": {}, "run name": {as: "run_name"}, "Run name": {as: "run_name"}, "Run Name": {as: "run_name"},
		"user_id": {}, "status": {}, "artifact_uri": {}, "experiment_id": {}, "lifecycle_stage": {noOrder: true},
		"start_time": {numeric: true}, "created": {numeric: true, as: "start_time"}, "Created": {numeric: true, as: "start_time"}, "end_time": {numeric: true},
	},
	tail: []term{{"attribute", "start_time", true}, {"attribute", "run_id", false}},
}

// hit is a run that a search looks at.
type hit struct {
	*run
	metrics map[string]point
}

func (h hit) values(kind, key string) []value {
	switch kind {
	case "metric":
		if p, ok := h.metrics[key]; ok {
			return []value{floatValue(p.v)}
		}
		return nil
	case "parameter":
		v, ok := h.Params[key]
		return oneText(v, ok)
	case "tag":
		v, ok := h.Tags[key]
		if key == "mlflow.runName" {
			return oneText(h.Name, true)
		}
		if key == "mlflow.user" && !ok {
			return oneText(h.User, h.User != "")
		}
		return oneText(v, ok)
	case "dataset":
		return h.datasetValues(key)
	}
	return h.attribute(key)
}

func (h hit) attribute(key string) []value {
	switch key {
	case "run_id":
		return []value{textValue(h.ID)}
	case "run_name":
		return []value{textValue(h.Name)}
	case "user_id":
		return []value{textValue(h.User)}
	case "status":
		return []value{textValue(toMLflow[h.Status])}
	case "artifact_uri":
		return []value{textValue(proxied + runFolder + h.ID)}
	case "experiment_id":
		return []value{textValue(h.Experiment)}
	case "lifecycle_stage":
		return []value{textValue(stage(h.Deleted))}
	case "start_time":
		return []value{intValue(h.Start)}
	case "end_time":
		if h.End != 0 {
			return []value{intValue(h.End)}
		}
	}
	return nil
}

func (h hit) datasetValues(key string) []value {
	var out []value
	for _, d := range h.Datasets {
		switch key {
		case "name":
			out = append(out, textValue(d.Name))
		case "digest":
			out = append(out, textValue(d.Digest))
		default:
			for _, t := range d.Tags {
				if t.Key == "mlflow.data.context" {
					out = append(out, textValue(t.Value))
				}
			}
		}
	}
	return out
}

// speaks reports whether the query looks at things of a kind.
func (q query) speaks(kind string) bool {
	for _, c := range q.clauses {
		if c.kind == kind {
			return true
		}
	}
	for _, t := range q.order {
		if t.kind == kind {
			return true
		}
	}
	return false
}

// wanted is one search of runs.
type wanted struct {
	q           query
	experiments []string
	stage       func(deleted bool) bool
	only        string // the run that asks, if one does
	metrics     bool   // needed to judge
}

// found is what a search remembers of a run until the page is known.
type found struct {
	id   string
	keys []*value
}

// collect is every run that matches, in order.
func (x wanted) collect(tx *store.Tx, ws string) ([]found, error) {
	var out []found
	for _, e := range x.experiments {
		if strings.Contains(e, "|") {
			continue
		}
		err := eachRun(tx, ws, e, "", func(_ string, r *run) (bool, error) {
			ok, keys, err := x.judge(tx, r)
			if ok {
				out = append(out, found{r.ID, keys})
			}
			return true, err
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(out, func(a, b found) int { return x.q.less(a.keys, b.keys) })
	return out, nil
}

func (x wanted) judge(tx *store.Tx, r *run) (ok bool, keys []*value, err error) {
	if !x.stage(r.Deleted) || x.only != "" && !strings.EqualFold(x.only, r.ID) {
		return false, nil, nil
	}
	h := hit{run: r}
	if x.metrics {
		if h.metrics, err = loadLatest(tx, r); err != nil {
			return false, nil, err
		}
	}
	if !x.q.matches(h) {
		return false, nil, nil
	}
	return true, x.q.keys(h), nil
}

// eachRun walks an experiment's runs, the latest first, beginning behind a
// mark, until f returns false.
func eachRun(tx *store.Tx, ws, exp, mark string, f func(mark string, r *run) (bool, error)) error {
	const part = 500
	prefix := key(ws, exp, "")
	for {
		rows, err := tx.Scan(order, prefix, mark, part)
		if err != nil {
			return err
		}
		for _, row := range rows {
			mark = row.Key
			r, err := loadRun(tx, ws, row.Key[strings.LastIndexByte(row.Key, '|')+1:])
			if err != nil {
				return err
			}
			if more, err := f(mark, r); err != nil || !more {
				return err
			}
		}
		if len(rows) < part {
			return nil
		}
	}
}

func (s *Service) searchRuns(ctx context.Context, g gate.Grant, in *input) (any, error) {
	x := wanted{experiments: in.texts("experiment_ids"), stage: viewType(in, "run_view_type"), only: own(g)}
	where, by := in.text("filter"), in.texts("order_by")
	size, from := limit(in, 1000, 50_000), offset(in)
	if err := in.done(); err != nil {
		return nil, err
	}
	if len(x.experiments) > 1000 {
		return nil, bad("experiment_ids has %d ids; at most 1000 are allowed", len(x.experiments))
	}
	var err error
	if x.q, err = runGrammar.query(where, by); err != nil {
		return nil, err
	}
	x.metrics = x.q.speaks("metric")
	slices.Sort(x.experiments)
	x.experiments = slices.Compact(x.experiments)
	out := map[string]any{}
	err = s.view(ctx, g, RunsRead, func(tx *store.Tx, w Workspace) error {
		page, next, err := x.page(tx, w.UID, from, size)
		if err != nil {
			return err
		}
		if next != "" {
			out["next_page_token"] = next
		}
		list := make([]map[string]any, 0, len(page))
		titles := map[string]string{}
		for _, id := range page {
			r, err := loadRun(tx, w.UID, id)
			if err != nil {
				return err
			}
			m, err := loadLatest(tx, r)
			if err != nil {
				return err
			}
			if _, ok := titles[r.Experiment]; !ok {
				e, err := loadExperiment(tx, w.UID, r.Experiment)
				if err != nil {
					return err
				}
				titles[r.Experiment] = e.Name
			}
			list = append(list, s.show(w.ID, in, r, m, titles[r.Experiment]))
		}
		out["runs"] = list
		return nil
	})
	return out, err
}

// page is the ids of one page. In the order in which an experiment's runs lie
// it is found without looking at the runs behind it.
func (x wanted) page(tx *store.Tx, ws string, from, size int) ([]string, string, error) {
	var hits []found
	var err error
	if len(x.experiments) == 1 && !x.q.sorted && !strings.Contains(x.experiments[0], "|") {
		err = eachRun(tx, ws, x.experiments[0], "", func(_ string, r *run) (bool, error) {
			ok, _, err := x.judge(tx, r)
			if ok {
				hits = append(hits, found{id: r.ID})
			}
			return len(hits) <= from+size, err
		})
	} else {
		hits, err = x.collect(tx, ws)
	}
	if err != nil {
		return nil, "", err
	}
	hits, next := part(hits, from, size)
	ids := make([]string, len(hits))
	for i, h := range hits {
		ids[i] = h.id
	}
	return ids, next, nil
}
