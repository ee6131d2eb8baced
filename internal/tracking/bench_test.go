package tracking

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"castellan/internal/store"
)

// post sends a body for a benchmark, over a connection that is kept.
func (w *world) post(c *http.Client, path string, body []byte) error {
	req, err := http.NewRequest("POST", w.url+base(ws1)+path, strings.NewReader(string(body)))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer ann")
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if data, err := io.ReadAll(res.Body); err != nil || res.StatusCode != 200 {
		return fmt.Errorf("%d %s %v", res.StatusCode, data, err)
	}
	return nil
}

func batch(run string, n, step int) []byte {
	metrics := make([]obj, n)
	for i := range metrics {
		metrics[i] = obj{"key": fmt.Sprint("metric_", i), "value": float64(step) / 7, "timestamp": 1_700_000_000_000 + step, "step": step}
	}
	b, err := json.Marshal(obj{"run_id": run, "metrics": metrics})
	if err != nil {
		panic(err)
	}
	return b
}

// Twenty users log batches of metrics to runs of their own, by HTTP, every batch
// on disk before it is answered.
func BenchmarkLogBatch(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(n, "metrics"), func(b *testing.B) {
			w := newWorld(b)
			c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
			var users, steps atomic.Int64
			b.SetParallelism(max(1, 20/runtime.GOMAXPROCS(0)))
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				var run string
				if err := w.db.Do(context.Background(), func(tx *store.Tx) error {
					r := &run0{ID: fmt.Sprint("r", users.Add(1)), Experiment: "0", Status: "Running", Name: "x"}
					r.Number = uint64(users.Load())
					run = r.ID
					return saveRun(tx, "uid-1", r, nil)
				}); err != nil {
					b.Error(err)
				}
				for pb.Next() {
					if err := w.post(c, "runs/log-batch", batch(run, n, int(steps.Add(1)))); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "batches/s")
		})
	}
}

type run0 = run

// A search of an experiment with many runs, by a metric and in its order.
func BenchmarkSearchRuns(b *testing.B) {
	const n = 10_000
	w := newWorld(b)
	err := w.db.Do(context.Background(), func(tx *store.Tx) error {
		for i := range n {
			r := &run{ID: fmt.Sprint("r", i), Number: uint64(i + 1), Experiment: "0", Status: "Running", Name: "x", Start: int64(i), Params: map[string]string{"lr": fmt.Sprint(i % 10)}}
			if err := saveRun(tx, "uid-1", r, nil); err != nil {
				return err
			}
			if err := addMetrics(tx, "uid-1", r, []metric{{key: "acc", point: point{v: float64(i%100) / 100}}}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	for name, q := range map[string]obj{
		"latest100":  {"experiment_ids": []string{"0"}, "max_results": 100},
		"bestOf10k":  {"experiment_ids": []string{"0"}, "max_results": 100, "filter": "metrics.acc > 0.9", "order_by": []string{"metrics.acc DESC"}},
		"byParam10k": {"experiment_ids": []string{"0"}, "max_results": 100, "filter": "params.lr = '3'"},
	} {
		b.Run(name, func(b *testing.B) {
			body, _ := json.Marshal(q) // strings and numbers marshal
			for b.Loop() {
				if err := w.post(http.DefaultClient, "runs/search", body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A million values of metrics are kept and read with flat memory.
func BenchmarkMillionPoints(b *testing.B) {
	w := newWorld(b)
	id := w.run("a")
	var peak uint64
	look := func() {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		peak = max(peak, m.HeapInuse)
	}
	for b.Loop() {
		for i := range 1000 {
			points := make([]obj, 1000)
			for j := range points {
				points[j] = obj{"key": fmt.Sprint("m", j%4), "value": j, "timestamp": i*1000 + j, "step": i}
			}
			body, _ := json.Marshal(obj{"run_id": id, "metrics": points}) // strings and numbers marshal
			if err := w.post(http.DefaultClient, "runs/log-batch", body); err != nil {
				b.Fatal(err)
			}
			if i%100 == 0 {
				look()
			}
		}
		for token, n := "", 0; ; n++ {
			a := w.must("ann", "GET", "metrics/get-history?metric_key=m1&run_id="+id+"&page_token="+token, nil)
			if token = a.text("next_page_token"); token == "" {
				break
			}
			look()
		}
	}
	b.ReportMetric(float64(peak)/(1<<20), "MB-heap")
}
