package tracking

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"castellan/internal/arm"
	"castellan/internal/store"
)

// A role opens what it names: a reader writes nothing, who may log metrics logs
// metrics alone, and nobody learns from a refusal what there is.
func TestRoles(t *testing.T) {
	w := newWorld(t)
	id := w.run("a")
	log := obj{"run_id": id, "key": "m", "value": 1, "timestamp": 1}
	for _, c := range []struct {
		as, method, path string
		body             any
		want             int
	}{
		{"reader", "GET", "runs/get?run_id=" + id, nil, 200},
		{"reader", "POST", "runs/search", obj{"experiment_ids": []string{"0"}}, 200},
		{"reader", "POST", "runs/log-metric", log, 403},
		{"reader", "POST", "runs/create", obj{"experiment_id": "0"}, 403},
		{"reader", "POST", "registered-models/create", obj{"name": "m"}, 403},
		{"metrics", "POST", "runs/log-metric", log, 200},
		{"metrics", "POST", "runs/log-batch", obj{"run_id": id}, 403},
		{"metrics", "POST", "runs/set-tag", obj{"run_id": id, "key": "a", "value": "b"}, 403},
		{"metrics", "GET", "runs/get?run_id=" + id, nil, 403},
		{"nobody", "GET", "runs/get?run_id=" + id, nil, 403},
		{"nobody", "GET", "runs/get?run_id=none", nil, 403},
	} {
		if a := w.ml(c.as, c.method, c.path, c.body); a.status != c.want {
			t.Errorf("%s %s as %s = %d %s, want %d", c.method, c.path, c.as, a.status, a.body, c.want)
		}
	}
	if a := w.do("reader", "PUT", proxy(ws1)+"/runs/"+id+"/x", "x"); a.status != 403 || len(w.blobs.all) > 0 {
		t.Errorf("a reader uploads: %d", a.status)
	}
	none := strings.Replace(base(ws1), "/ws1/", "/none/", 1)
	if a := w.do("ann", "GET", none+"experiments/get?experiment_id=0", nil); a.status != 404 || a.code() != "RESOURCE_DOES_NOT_EXIST" {
		t.Errorf("a workspace that is not there = %d %s", a.status, a.body)
	}
}

// MLF-09: what is too much is refused by name, and wholly.
func TestLimits(t *testing.T) {
	w := newWorld(t)
	id := w.run("a")
	many := func(n int, f func(i int) obj) []obj {
		out := make([]obj, n)
		for i := range out {
			out[i] = f(i)
		}
		return out
	}
	metric := func(i int) obj { return obj{"key": fmt.Sprint("m", i%7), "value": i, "timestamp": i, "step": i} }
	tag := func(i int) obj { return obj{"key": fmt.Sprint("k", i), "value": "v"} }
	for name, c := range map[string]struct {
		path string
		body any
		want int
	}{
		"1000 metrics":            {"runs/log-batch", obj{"run_id": id, "metrics": many(1000, metric)}, 200},
		"1001 metrics":            {"runs/log-batch", obj{"run_id": id, "metrics": many(1001, metric)}, 400},
		"101 params":              {"runs/log-batch", obj{"run_id": id, "params": many(101, tag)}, 400},
		"101 tags":                {"runs/log-batch", obj{"run_id": id, "tags": many(101, tag)}, 400},
		"1001 of all kinds":       {"runs/log-batch", obj{"run_id": id, "metrics": many(990, metric), "params": many(6, tag), "tags": many(5, tag)}, 400},
		"a key of 251":            {"runs/log-metric", obj{"run_id": id, "key": strings.Repeat("k", 251), "value": 1}, 400},
		"a key of 1 MB":           {"runs/log-metric", obj{"run_id": id, "key": strings.Repeat("k", 1<<20), "value": 1}, 400},
		"a key that is a path":    {"runs/log-metric", obj{"run_id": id, "key": "../x", "value": 1}, 400},
		"a key with a bar":        {"runs/log-metric", obj{"run_id": id, "key": "a|b", "value": 1}, 400},
		"a param of 6001":         {"runs/log-parameter", obj{"run_id": id, "key": "p", "value": strings.Repeat("v", 6001)}, 400},
		"a tag of 8001":           {"runs/set-tag", obj{"run_id": id, "key": "p", "value": strings.Repeat("v", 8001)}, 400},
		"no value":                {"runs/log-metric", obj{"run_id": id, "key": "k"}, 400},
		"a text for a value":      {"runs/log-metric", obj{"run_id": id, "key": "k", "value": "high"}, 400},
		"NaN without quotes":      {"runs/log-metric", `{"run_id":"` + id + `","key":"k","value":NaN}`, 400},
		"a value out of range":    {"runs/log-metric", `{"run_id":"` + id + `","key":"k","value":1e999}`, 400},
		"the last moment":         {"runs/log-metric", obj{"run_id": id, "key": "t", "value": 1, "timestamp": "9223372036854775807", "step": "-9223372036854775808"}, 200},
		"the first moment":        {"runs/log-metric", obj{"run_id": id, "key": "t", "value": 2, "timestamp": "-9223372036854775808", "step": "9223372036854775807"}, 200},
		"a moment too late":       {"runs/log-metric", obj{"run_id": id, "key": "t", "value": 2, "timestamp": "9223372036854775808"}, 400},
		"a field nobody knows":    {"runs/log-metric", obj{"run_id": id, "key": "t", "value": 2, "colour": "red"}, 400},
		"two runs":                {"runs/log-metric", obj{"run_id": id, "run_uuid": "other", "key": "t", "value": 2}, 400},
		"no run":                  {"runs/log-metric", obj{"key": "t", "value": 2}, 400},
		"a body that is a list":   {"runs/log-metric", `[]`, 400},
		"a body that is no JSON":  {"runs/log-metric", `{`, 400},
		"a body of 9 MB":          {"runs/log-batch", `{"x":"` + strings.Repeat("x", 9<<20) + `"}`, 413},
		"one key twice":           {"runs/log-metric", `{"run_id":"` + id + `","key":"k","value":1,"value":2}`, 400},
		"a run id that is a path": {"runs/log-metric", obj{"run_id": "../" + id, "key": "k", "value": 1}, 400},
		"too many results":        {"runs/search", obj{"experiment_ids": []string{"0"}, "max_results": 50001}, 400},
		"a page token of others":  {"runs/search", obj{"experiment_ids": []string{"0"}, "page_token": "%%%"}, 400},
	} {
		if a := w.ml("ann", "POST", c.path, c.body); a.status != c.want {
			t.Errorf("%s = %d %.300s, want %d", name, a.status, a.body, c.want)
		}
	}
}

// The points of a metric come back as they were logged, in order, page by page;
// the latest is the one of the highest step.
func TestMetricHistory(t *testing.T) {
	w := newWorld(t)
	id := w.run("a")
	values := []any{"NaN", "Infinity", "-Infinity", -1.5, 0, 5e-324, 1.7976931348623157e308, -0.25}
	var batch []obj
	for i, v := range values {
		batch = append(batch, obj{"key": "v", "value": v, "timestamp": 100 - i, "step": i % 3})
	}
	w.must("ann", "POST", "runs/log-batch", obj{"run_id": id, "metrics": batch})
	w.must("ann", "POST", "runs/log-batch", obj{"run_id": id, "metrics": batch}) // the same points are the same
	w.must("ann", "POST", "runs/log-metric", obj{"run_id": id, "key": "v2", "value": 1, "timestamp": 1})
	var got []string
	token := ""
	for {
		a := w.must("ann", "GET", "metrics/get-history?max_results=3&metric_key=v&run_id="+id+"&page_token="+token, nil)
		for _, m := range a.list("metrics") {
			got = append(got, fmt.Sprint(m.(obj)["value"], "@", m.(obj)["timestamp"]))
		}
		if token = a.text("next_page_token"); token == "" {
			break
		}
	}
	if want := "[-0.25@93 1.7976931348623157e+308@94 5e-324@95 0@96 -1.5@97 -Infinity@98 Infinity@99 NaN@100]"; fmt.Sprint(got) != want {
		t.Errorf("history = %v, want %s", got, want)
	}
	for _, m := range w.must("ann", "GET", "runs/get?run_id="+id, nil).list("run", "data", "metrics") {
		if m.(obj)["key"] == "v" && (m.(obj)["step"] != 2.0 || m.(obj)["timestamp"] != 98.0) {
			t.Errorf("the latest is %v", m)
		}
	}
	bulk := w.must("ann", "GET", "metrics/get-history-bulk-interval?metric_key=v&max_results=4&start_step=0&end_step=1&run_ids="+id, nil)
	if n := len(bulk.list("metrics")); n < 2 || n > 4 {
		t.Errorf("the thinned history has %d values", n)
	}
}

// The keys of points are in the order of what they stand for.
func TestPointsSort(t *testing.T) {
	floats := []float64{math.Inf(-1), -math.MaxFloat64, -1, -math.SmallestNonzeroFloat64, 0, math.SmallestNonzeroFloat64, 1, math.MaxFloat64, math.Inf(1), math.NaN()}
	for i, f := range floats {
		if got := unsortableFloat(sortableFloat(f)); got != f && !math.IsNaN(f) {
			t.Errorf("%v comes back as %v", f, got)
		}
		if i > 0 && sortableFloat(floats[i-1]) >= sortableFloat(f) {
			t.Errorf("%v does not come before %v", floats[i-1], f)
		}
	}
	ints := []int64{math.MinInt64, -1, 0, 1, math.MaxInt64}
	for i, n := range ints {
		if unsortable(sortable(n)) != n || i > 0 && sortable(ints[i-1]) >= sortable(n) {
			t.Errorf("%d is out of order", n)
		}
	}
}

// A batch is kept wholly or not at all, under one entry in the audit log.
func TestBatchIsOneThing(t *testing.T) {
	w := newWorld(t)
	id := w.run("a")
	w.must("ann", "POST", "runs/log-parameter", obj{"run_id": id, "key": "p", "value": "1"})
	before := w.entries()
	bad := obj{"run_id": id, "metrics": []obj{{"key": "m", "value": 1, "timestamp": 1}}, "params": []obj{{"key": "q", "value": "1"}, {"key": "p", "value": "2"}}, "tags": []obj{{"key": "t", "value": "1"}}}
	if a := w.ml("ann", "POST", "runs/log-batch", bad); a.status != 400 {
		t.Fatalf("a parameter was changed: %d %s", a.status, a.body)
	}
	a := w.must("ann", "GET", "runs/get?run_id="+id, nil)
	if len(a.list("run", "data", "metrics")) != 0 || len(a.list("run", "data", "params")) != 1 || len(w.must("ann", "GET", "metrics/get-history?metric_key=m&run_id="+id, nil).list("metrics")) != 0 {
		t.Errorf("half of a batch was kept: %s", a.body)
	}
	bad["params"] = []obj{{"key": "p", "value": "1"}}
	w.must("ann", "POST", "runs/log-batch", bad)
	if n := w.entries() - before; n != 4 {
		t.Errorf("4 requests left %d entries", n)
	}
}

func (w *world) entries() int {
	w.t.Helper()
	if err := w.log.Sync(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	all, err := w.log.Tail(context.Background(), 100_000)
	if err != nil {
		w.t.Fatal(err)
	}
	return len(all)
}

// A run has no more parameters than it may, however they come.
func TestParametersEnd(t *testing.T) {
	w := newWorld(t)
	id := w.run("a")
	status, n := 200, 0
	for ; status == 200 && n < 10*maxParams; n += 100 {
		params := make([]obj, 100)
		for i := range params {
			params[i] = obj{"key": fmt.Sprint("p", n+i), "value": "v"}
		}
		a := w.ml("ann", "POST", "runs/log-batch", obj{"run_id": id, "params": params})
		if status = a.status; status != 200 && a.code() != "RESOURCE_LIMIT_EXCEEDED" {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	if n != maxParams+100 {
		t.Errorf("the limit came at %d", n)
	}
}

// Job runs: only the platform knows how a job is; a status that is over stays.
func TestJobRun(t *testing.T) {
	w, ctx := newWorld(t), context.Background()
	create := func(exp string) (string, error) {
		return w.s.CreateJobRun(ctx, w.admit(RunsWrite, ws1, "job1"), JobRun{ID: "job1", Experiment: exp, DisplayName: "My job", User: arm.Caller{Object: "ann", Name: "Ann"}, Properties: map[string]string{"azureml.x": "1"}, Started: time.Unix(5, 0)})
	}
	exp, err := create("iris")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := create("iris"); err != nil || again != exp {
		t.Errorf("again = %q, %v", again, err)
	}
	if _, err := w.s.CreateJobRun(ctx, w.admit(RunsWrite, ws1, "other"), JobRun{ID: "job2"}); err == nil {
		t.Error("a grant for one run makes another")
	}
	update := func(u JobUpdate) error { return w.s.UpdateJobRun(ctx, w.admit(RunsWrite, ws1, "job1"), u) }
	if err := update(JobUpdate{Status: "Running", Started: time.Unix(9, 0), Properties: map[string]string{"azureml.sandboxTier": "2"}}); err != nil {
		t.Fatal(err)
	}
	w.must("run:ws1:job1", "POST", "runs/update", obj{"run_id": "job1", "status": "FINISHED", "end_time": 1})
	if st, _ := w.s.Status(ctx, ws1, "JOB1"); st != "Running" {
		t.Errorf("the job ended itself: %s", st)
	}
	for _, p := range []obj{{"properties": obj{"azureml.sandboxTier": "9"}}, {"properties": obj{"azureml.new": "9"}}} {
		if a := w.do("ann", "PATCH", past0(ws1)+"experiments/iris/runs/job1", p); a.status != 400 {
			t.Errorf("%v = %d %s", p, a.status, a.body)
		}
	}
	if a := w.do("ann", "PATCH", past0(ws1)+"experiments/iris/runs/job1", obj{"displayName": "n", "tags": obj{"a": "b"}, "hidden": true}); a.status != 200 || a.text("displayName") != "n" || a.at("hidden") != true {
		t.Errorf("PATCH = %d %s", a.status, a.body)
	}
	if a := w.do("ann", "GET", past0(ws1)+"experiments/wrong/runs/job1", nil); a.status != 404 {
		t.Errorf("the run in another experiment = %d", a.status)
	}
	if a := w.ml("ann", "POST", "runs/delete", obj{"run_id": "job1"}); a.status != 409 {
		t.Errorf("a running job was deleted: %d", a.status)
	}
	if err := update(JobUpdate{Status: "Failed", Error: "it broke", Ended: time.Unix(10, 0)}); err != nil {
		t.Fatal(err)
	}
	if err := update(JobUpdate{Status: "Completed", Ended: time.Unix(99, 0)}); err != nil {
		t.Fatal(err)
	}
	a := w.must("ann", "GET", "runs/get?run_id=job1", nil)
	if a.text("run", "info", "status") != "FAILED" || a.at("run", "info", "end_time") != 10_000.0 || a.at("run", "info", "start_time") != 9000.0 {
		t.Errorf("run = %s", a.body)
	}
	if st, err := w.s.Status(ctx, ws2, "job1"); st != "" || err != nil {
		t.Errorf("the run in another workspace is %q, %v", st, err)
	}
}

// Logs can be followed by a URL that reads one blob, by whoever may read artifacts.
func TestLogsAreReadByURL(t *testing.T) {
	w, ctx := newWorld(t), context.Background()
	if _, err := w.s.CreateJobRun(ctx, w.admit(RunsWrite, ws1, "Job1"), JobRun{ID: "Job1"}); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"one\n", "two\n"} {
		if err := w.s.AppendArtifact(ctx, w.admit(ArtifactsWrite, ws1, "job1"), "user_logs/std_log.txt", []byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.s.PutArtifact(ctx, w.admit(ArtifactsWrite, ws1, "Job1"), "outputs/model.bin", "", strings.NewReader("bytes"), 5); err != nil {
		t.Fatal(err)
	}
	if err := w.s.PutArtifact(ctx, w.admit(ArtifactsWrite, ws1, "Job1"), "../x", "", strings.NewReader("bytes"), 5); err == nil {
		t.Error("an artifact lies outside")
	}
	if err := w.s.PutArtifact(ctx, w.admit(ArtifactsRead, ws1, "Job1"), "x", "", strings.NewReader("bytes"), 5); err == nil {
		t.Error("a grant to read writes")
	}
	if got := string(w.blobs.all["uid-1|ExperimentRun/dcid.Job1/user_logs/std_log.txt"]); got != "one\ntwo\n" {
		t.Errorf("the log is %q", got)
	}
	all, err := w.s.Artifacts(ctx, w.admit(ArtifactsRead, ws1, "Job1"), "")
	if err != nil || len(all) != 2 || all[0].Name != "outputs/model.bin" {
		t.Errorf("artifacts = %v, %v", all, err)
	}
	a := w.do("reader", "GET", past0(ws1)+"runs/Job1/details?api-version=v1.0", nil)
	if u := a.text("logFiles", "user_logs/std_log.txt"); a.status != 200 || !strings.Contains(u, "sp=r&") || a.at("logFiles").(obj)["outputs/model.bin"] != nil {
		t.Errorf("details = %d %s", a.status, a.body)
	}
	if a := w.do("run:ws1:Job1", "GET", past0(ws1)+"runs/Job1/details", nil); a.status != 200 || len(a.at("logFiles").(obj)) != 0 {
		t.Errorf("a run gets URLs: %s", a.body)
	}
	if a := w.do("ann", "POST", past0(ws1)+"rundata", obj{"runId": "Job1", "selectRunMetadata": true}); a.status != 200 || a.text("runMetadata", "status") != "NotStarted" || a.at("runMetadata", "outputs") == nil {
		t.Errorf("rundata = %d %s", a.status, a.body)
	}
	info := w.do("ann", "GET", "/artifact/v2.0"+ws1.String()+"/artifacts/contentinfo/ExperimentRun/dcid.Job1/outputs/model.bin", nil)
	if info.status != 200 || !strings.Contains(info.text("contentUri"), "outputs/model.bin?sp=r&") {
		t.Errorf("contentinfo = %d %s", info.status, info.body)
	}
	if a := w.do("ann", "GET", "/artifact/v2.0"+ws1.String()+"/artifacts/prefix/contentinfo/ExperimentRun/dcid.Job1/outputs", nil); a.status != 200 || len(a.list("value")) != 1 {
		t.Errorf("prefix/contentinfo = %d %s", a.status, a.body)
	}
	fresh := w.do("ann", "POST", past0(ws1)+"experiments/Default/runs/Job1/artifacts/batch/metadata", obj{"paths": []obj{{"path": "new/x"}}})
	if u, _ := fresh.at("artifactContentInformation", "new/x", "contentUri").(string); fresh.status != 200 || !strings.Contains(u, "sp=rcw") {
		t.Errorf("batch/metadata = %d %s", fresh.status, fresh.body)
	}
}

// Models of MLflow and of Resource Manager are the same; what a version is made
// of never changes (MLF-11).
func TestModelsAreResources(t *testing.T) {
	w := newWorld(t)
	id := w.run("a")
	w.do("ann", "PUT", proxy(ws1)+"/runs/"+id+"/model/MLmodel", "x")
	w.must("ann", "POST", "registered-models/create", obj{"name": "iris", "description": "d"})
	w.must("ann", "POST", "model-versions/create", obj{"name": "iris", "source": "runs:/" + id + "/model", "tags": []obj{{"key": "a", "value": "b"}}})
	const v = "?api-version=2023-08-01-preview"
	at := ws1.String() + "/models/iris"
	a := w.do("ann", "GET", at+v, nil)
	if a.status != 200 || a.text("properties", "nextVersion") != "2" || a.text("properties", "latestVersion") != "1" || a.text("properties", "description") != "d" {
		t.Errorf("container = %d %s", a.status, a.body)
	}
	a = w.do("ann", "GET", at+"/versions/1"+v, nil)
	uri := a.text("properties", "modelUri")
	if a.status != 200 || a.at("properties", "flavors") == nil || a.text("properties", "jobName") != id || !strings.HasSuffix(uri, "/workspaces/ws1/datastores/workspaceartifactstore/paths/ExperimentRun/dcid."+id+"/model") {
		t.Errorf("version = %d %s", a.status, a.body)
	}
	same := obj{"properties": obj{"modelUri": uri, "modelType": "mlflow_model", "jobName": id, "description": "new", "flavors": obj{}}}
	if a := w.do("ann", "PUT", at+"/versions/1"+v, same); a.status != 200 || a.text("properties", "description") != "new" {
		t.Errorf("the same again = %d %s", a.status, a.body)
	}
	for _, p := range []obj{{"modelUri": uri + "2", "modelType": "mlflow_model", "jobName": id}, {"modelUri": uri, "modelType": "custom_model", "jobName": id}, {"modelUri": uri, "modelType": "mlflow_model", "jobName": "other"}} {
		if a := w.do("ann", "PUT", at+"/versions/1"+v, obj{"properties": p}); a.status != 409 {
			t.Errorf("%v = %d %s", p, a.status, a.body)
		}
	}
	store := "azureml://subscriptions/" + ws1.Subscription() + "/resourcegroups/g/workspaces/ws1/datastores/workspaceblobstore/paths/LocalUpload/x/m.bin"
	if a := w.do("ann", "PUT", at+"/versions/7"+v, obj{"properties": obj{"modelUri": store, "modelType": "custom_model", "stage": "Production"}}); a.status != 201 {
		t.Errorf("PUT = %d %s", a.status, a.body)
	}
	for _, uri := range []string{"", "file:///etc", "https://evil.blob.core.castellan.localhost/c/x", "https://acct.blob.core.castellan.localhost/c/../x", strings.Replace(store, "ws1", "ws2", 1), strings.Replace(store, "LocalUpload", "..", 1), "azureml://jobs/x/outputs/../y", "runs:/none/x"} {
		if a := w.do("ann", "PUT", at+"/versions/8"+v, obj{"properties": obj{"modelUri": uri}}); a.status < 400 || a.status > 404 {
			t.Errorf("modelUri %q = %d %s", uri, a.status, a.body)
		}
	}
	got := w.must("ann", "GET", "registered-models/get?name=IRIS", nil)
	if len(got.list("registered_model", "latest_versions")) != 2 {
		t.Errorf("model = %s", got.body)
	}
	next := w.must("ann", "POST", "model-versions/create", obj{"name": "iris", "source": "runs:/" + id + "/model"})
	if next.text("model_version", "version") != "8" {
		t.Errorf("the next version is %s", next.body)
	}
	if a := w.do("ann", "DELETE", at+"/versions/8"+v, nil); a.status != 200 {
		t.Errorf("DELETE = %d %s", a.status, a.body)
	}
	if a := w.do("ann", "GET", at+v, nil); a.text("properties", "latestVersion") != "7" || a.text("properties", "nextVersion") != "9" {
		t.Errorf("after the deletion: %s", a.body)
	}
	if a := w.do("ann", "PUT", ws1.String()+"/models/fresh/versions/1"+v, obj{"properties": obj{"modelUri": store}}); a.status != 201 {
		t.Errorf("the first version makes no container: %d %s", a.status, a.body)
	}
	if a := w.ml("ann", "GET", "registered-models/get?name=fresh", nil); a.status != 200 {
		t.Errorf("the container made by a version = %d %s", a.status, a.body)
	}
}

// A workspace made anew under an old name sees nothing of its predecessor.
func TestNewWorkspaceIsEmpty(t *testing.T) {
	w := newWorld(t)
	id := w.run("a")
	w.spaces[ws1.Key()] = "uid-3"
	if a := w.ml("ann", "GET", "runs/get?run_id="+id, nil); a.status != 404 {
		t.Errorf("an old run = %d %s", a.status, a.body)
	}
	if n := len(w.must("ann", "POST", "runs/search", obj{"experiment_ids": []string{"0"}}).list("runs")); n != 0 {
		t.Errorf("the new workspace has %d runs", n)
	}
}

// The experiment's name is one experiment's, deleted or not.
func TestExperiments(t *testing.T) {
	w := newWorld(t)
	id := w.must("ann", "POST", "experiments/create", obj{"name": "a"}).text("experiment_id")
	if a := w.ml("ann", "POST", "experiments/create", obj{"name": "a"}); a.status != 400 && a.code() != "RESOURCE_ALREADY_EXISTS" {
		t.Errorf("the name twice = %d %s", a.status, a.body)
	}
	w.must("ann", "POST", "experiments/delete", obj{"experiment_id": id})
	if a := w.ml("ann", "POST", "runs/create", obj{"experiment_id": id}); a.status != 400 {
		t.Errorf("a run in a deleted experiment = %d", a.status)
	}
	if a := w.ml("ann", "POST", "experiments/create", obj{"name": "a"}); a.status == 200 {
		t.Error("the name of a deleted experiment is free")
	}
	w.must("ann", "POST", "experiments/restore", obj{"experiment_id": id})
	w.must("ann", "POST", "experiments/update", obj{"experiment_id": id, "new_name": "b"})
	w.must("ann", "POST", "experiments/create", obj{"name": "a"})
	if a := w.ml("ann", "POST", "experiments/create", obj{"name": "x", "artifact_location": "file:///etc"}); a.status != 400 {
		t.Errorf("artifacts elsewhere = %d", a.status)
	}
	if a := w.ml("ann", "POST", "experiments/delete", obj{"experiment_id": "0"}); a.status != 400 {
		t.Errorf("the default experiment is deleted: %d", a.status)
	}
}

// A reader that never ends does not fill the store: the upload fails.
func TestCapped(t *testing.T) {
	c := &capped{r: endless{}, left: 1000}
	n, err := io.Copy(io.Discard, c)
	var e *arm.Error
	if !errors.As(err, &e) || e.Code != arm.TooLarge || n > 1000 {
		t.Errorf("copied %d, %v", n, err)
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// What is logged is there after the store was closed, as everything is.
func TestKeptInOneTransaction(t *testing.T) {
	w := newWorld(t)
	id := w.run("a")
	w.must("ann", "POST", "runs/log-metric", obj{"run_id": id, "key": "m", "value": 1, "timestamp": 1})
	err := w.db.View(context.Background(), func(tx *store.Tx) error {
		r, err := loadRun(tx, "uid-1", id)
		if err != nil {
			return err
		}
		m, err := loadLatest(tx, r)
		if err == nil && m["m"].n != 1 {
			t.Errorf("latest = %v", m)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A history is whole and in order however its points came: out of order, twice,
// in batches of any size, and read in pages of any size.
func TestHistoryOfPointsInAnyOrder(t *testing.T) {
	w, rnd := newWorld(t), rand.New(rand.NewPCG(1, 2))
	r := &run{ID: "r", Number: 1, Experiment: "0"}
	want := map[string][]point{}
	for range 300 {
		var batch []metric
		for range rnd.IntN(60) {
			m := metric{key: fmt.Sprint("m", rnd.IntN(3)), point: point{v: float64(rnd.IntN(3)), t: rnd.Int64N(400) - 200, step: rnd.Int64N(3)}}
			batch = append(batch, m)
			want[m.key] = append(want[m.key], m.point)
		}
		if err := w.db.Do(context.Background(), func(tx *store.Tx) error { return addMetrics(tx, "uid-1", r, batch) }); err != nil {
			t.Fatal(err)
		}
	}
	err := w.db.View(context.Background(), func(tx *store.Tx) error {
		for name, all := range want {
			slices.SortFunc(all, point.order)
			all = slices.Compact(all)
			for _, size := range []int{1, 7, 100, 999, 25_000} {
				var got []point
				for mark := ""; ; {
					part, next, err := history(tx, r, name, mark, size)
					if err != nil {
						return err
					}
					for _, m := range part {
						got = append(got, m.point)
					}
					if mark = next; mark == "" || len(got) > 2*len(all) || size == 1 && len(got) > 200 {
						break
					}
				}
				if n := min(len(got), len(all)); !slices.Equal(got[:n], all[:n]) || size > 1 && len(got) != len(all) {
					t.Errorf("%s in pages of %d: %d points, want %d", name, size, len(got), len(all))
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
