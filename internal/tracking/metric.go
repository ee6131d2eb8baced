package tracking

import (
	"context"
	"encoding/json"
	"math"
	"strconv"

	"castellan/internal/gate"
	"castellan/internal/store"
)

// point is one value of a metric.
type point struct {
	v    float64
	t    int64 // milliseconds since 1970
	step int64
	n    int64 // of the latest one: how many were logged
}

// MarshalJSON writes a point for the store, where NaN must be possible.
func (p point) MarshalJSON() ([]byte, error) {
	b := append(make([]byte, 0, 80), '[')
	b = append(strconv.AppendUint(b, math.Float64bits(p.v), 10), ',')
	b = append(strconv.AppendInt(b, p.t, 10), ',')
	b = append(strconv.AppendInt(b, p.step, 10), ',')
	return append(strconv.AppendInt(b, p.n, 10), ']'), nil
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (p *point) UnmarshalJSON(b []byte) error {
	var a [4]json.Number
	if err := json.Unmarshal(b, &a); err != nil {
		return err
	}
	bits, err := strconv.ParseUint(a[0].String(), 10, 64)
	if err != nil {
		return err
	}
	p.v = math.Float64frombits(bits)
	for i, to := range []*int64{&p.t, &p.step, &p.n} {
		if *to, err = a[i+1].Int64(); err != nil {
			return err
		}
	}
	return nil
}

// after reports whether p is the later one: by step, then time, then value.
func (p point) after(q point) bool {
	if p.step != q.step {
		return p.step > q.step
	}
	if p.t != q.t {
		return p.t > q.t
	}
	return sortableFloat(p.v) >= sortableFloat(q.v)
}

// metric is a point with the metric's name.
type metric struct {
	key string
	point
	model, dataset, digest string // of a logged model that it measures, on a data set
}

func (m metric) show() map[string]any {
	return map[string]any{"key": m.key, "value": number(m.v), "timestamp": m.t, "step": m.step}
}

func showMetrics(m map[string]point) []map[string]any {
	out := make([]map[string]any, 0, len(m))
	for k, p := range m {
		out = append(out, metric{key: k, point: p}.show())
	}
	return out
}

// metric reads one from a request.
func (in *input) metric(now int64) metric {
	m := metric{key: in.must("key"), point: point{v: in.number("value"), t: in.integer("timestamp", now), step: in.integer("step", 0)}}
	m.model, m.dataset, m.digest = in.text("model_id"), in.text("dataset_name"), in.text("dataset_digest")
	if in.err == nil {
		if err := checkKey("metric", m.key); err != nil {
			in.err = err
		}
	}
	return m
}

func (s *Service) logMetric(ctx context.Context, g gate.Grant, in *input) (any, error) {
	id := in.target(g)
	m := in.metric(s.now())
	if err := in.done(); err != nil {
		return nil, err
	}
	return nil, s.change(ctx, g, metricsWrite, func(tx *store.Tx, w Workspace) error {
		r, err := activeRun(tx, w.UID, id)
		if err != nil {
			return err
		}
		if err := ownModels(tx, g, w.UID, []metric{m}); err != nil {
			return err
		}
		return addMetrics(tx, w.UID, r, []metric{m})
	})
}

// ownModels refuses a run metrics of logged models that are not its own, also
// of those that no run logged.
func ownModels(tx *store.Tx, g gate.Grant, ws string, metrics []metric) error {
	for _, x := range metrics {
		if x.model == "" || own(g) == "" {
			continue
		}
		m, err := loadLogged(tx, ws, x.model)
		if err != nil {
			return err
		}
		if err := notOwn(g, m.Run); err != nil {
			return err
		}
	}
	return nil
}

// logBatch keeps all of a batch or nothing of it.
func (s *Service) logBatch(ctx context.Context, g gate.Grant, in *input) (any, error) {
	id, now := in.target(g), s.now()
	var metrics []metric
	in.each("metrics", maxBatch, func(in *input) {
		in.ignore("run_id", "run_uuid") // old clients repeat it
		metrics = append(metrics, in.metric(now))
	})
	params, tags := in.pairs("params", maxBatchOther), in.pairs("tags", maxBatchOther)
	if err := in.done(); err != nil {
		return nil, err
	}
	if n := len(metrics) + len(params) + len(tags); n > maxBatch {
		return nil, bad("A batch logging request can contain at most %d metrics, params and tags together. Got %d.", maxBatch, n)
	}
	return nil, s.change(ctx, g, RunsWrite, func(tx *store.Tx, w Workspace) error {
		r, err := activeRun(tx, w.UID, id)
		if err != nil {
			return err
		}
		if err := ownModels(tx, g, w.UID, metrics); err != nil {
			return err
		}
		if err := addMetrics(tx, w.UID, r, metrics); err != nil || len(params)+len(tags) == 0 {
			return err
		}
		old := *r
		r.Modified = s.now()
		if err := r.setParams(params); err != nil {
			return err
		}
		if r.Tags == nil {
			r.Tags = map[string]string{}
		}
		if err := r.retag(tags); err != nil {
			return err
		}
		return saveRun(tx, w.UID, r, &old)
	})
}

func (s *Service) metricHistory(ctx context.Context, g gate.Grant, in *input) (any, error) {
	id, name, mark := in.target(g), in.must("metric_key"), in.text("page_token")
	size := limit(in, 25_000, 25_000)
	if mark != "" && !isMark(mark) {
		in.fail("page_token is not one that a history gave")
	}
	if err := in.done(); err != nil {
		return nil, err
	}
	if err := checkKey("metric", name); err != nil {
		return nil, err
	}
	var found []metric
	var next string
	err := s.view(ctx, g, RunsRead, func(tx *store.Tx, w Workspace) error {
		r, err := loadRun(tx, w.UID, id)
		if err != nil {
			return err
		}
		found, next, err = history(tx, r, name, mark, size)
		return err
	})
	if err != nil {
		return nil, err
	}
	out := map[string]any{"metrics": shown(found, metric.show)}
	if next != "" {
		out["next_page_token"] = next
	}
	return out, nil
}

// bulkHistory is the history of one metric in several runs, thinned out to
// max_results values a run between two steps.
func (s *Service) bulkHistory(ctx context.Context, g gate.Grant, in *input) (any, error) {
	ids, name := append(in.texts("run_id"), in.texts("run_ids")...), in.must("metric_key")
	from, to := in.integer("start_step", math.MinInt64), in.integer("end_step", math.MaxInt64)
	size := limit(in, 2500, 25_000)
	if err := in.done(); err != nil {
		return nil, err
	}
	if len(ids) == 0 || len(ids) > 100 {
		return nil, bad("GetMetricHistoryBulk request must specify 1 to 100 run_ids. Got %d.", len(ids))
	}
	if err := checkKey("metric", name); err != nil {
		return nil, err
	}
	out := []map[string]any{}
	err := s.view(ctx, g, RunsRead, func(tx *store.Tx, w Workspace) error {
		for _, id := range ids {
			if err := notOwn(g, id); err != nil {
				return err
			}
			r, err := loadRun(tx, w.UID, id)
			if err != nil {
				return err
			}
			found, err := between(tx, r, name, from, to, size)
			if err != nil {
				return err
			}
			for _, m := range found {
				x := m.show()
				x["run_id"] = r.ID
				out = append(out, x)
			}
		}
		return nil
	})
	return map[string]any{"metrics": out}, err
}

// between is every k-th value between two steps, k so that no more than size are left.
func between(tx *store.Tx, r *run, name string, from, to int64, size int) ([]metric, error) {
	var out []metric
	every, seen, mark := 1, 0, ""
	for {
		part, next, err := history(tx, r, name, mark, 10_000)
		if err != nil {
			return nil, err
		}
		for _, m := range part {
			if m.step < from || m.step > to {
				continue
			}
			if seen%every == 0 {
				out = append(out, m)
			}
			if seen++; len(out) > size {
				every *= 2
				out = halve(out)
			}
		}
		if next == "" {
			return out, nil
		}
		mark = next
	}
}

// halve keeps every second value.
func halve(m []metric) []metric {
	n := 0
	for i := 0; i < len(m); i += 2 {
		m[n] = m[i]
		n++
	}
	return m[:n]
}
