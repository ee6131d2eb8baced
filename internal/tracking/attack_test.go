package tracking

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

// evil are paths that a second reader could take for another place.
var evil = []string{
	"../x", "a/../../x", "..", ".", "a/./b", "a//b", "/etc/passwd", "//host/share", `..\x`, `a\b`, `\\host\share`, "%2e%2e/x", "a/%2e%2e%2fx", "%252e%252e%252fx",
	"..%2fx", "..;/x", "file:///etc/passwd", "file:/etc/passwd", "dbfs:/x", "C:/x", "s3://b/k", "x?y=z", "x#y", "#../x", "a/x\x00y", "a\nb", "a/...", "a/.. /b", "a /..",
	strings.Repeat("a/", 70) + "x", strings.Repeat("a", 1000), "\xff\xfe",
}

// MLF-01: no spelling of a path leads out of a run's own artifacts, on any verb.
func TestArtifactPathsLeadNowhereElse(t *testing.T) {
	w := newWorld(t)
	id := w.run("r")
	w.do("ann", "PUT", proxy(ws1)+"/runs/"+id+"/ok.txt", "fine")
	before := len(w.blobs.all)
	for _, p := range evil {
		escaped := url.PathEscape(p)
		half := strings.ReplaceAll(escaped, "%2F", "/")
		for _, path := range []string{escaped, half} {
			for _, m := range []string{"GET", "PUT", "DELETE"} {
				a := w.do("ann", m, proxy(ws1)+"/runs/"+id+"/"+path, map[string]any{"PUT": "evil"}[m])
				if a.status != 400 || a.code() != "INVALID_PARAMETER_VALUE" {
					t.Errorf("%s %q = %d %s", m, path, a.status, a.body)
				}
			}
		}
		for door, q := range map[string]string{
			proxy(ws1): "path=" + url.QueryEscape("runs/"+id+"/"+p), base(ws1) + "artifacts/list": "run_id=" + id + "&path=" + url.QueryEscape(p),
			past0(ws1) + "experiments/Default/runs/" + id + "/artifacts/contentinfo": "path=" + url.QueryEscape(p),
			past0(ws1) + "experiments/Default/runs/" + id + "/artifacts/path":        "path=" + url.QueryEscape(p),
		} {
			if a := w.do("ann", "GET", door+"?"+q, nil); a.status != 400 {
				t.Errorf("GET %s?%s = %d %s", door, q, a.status, a.body)
			}
		}
		body, _ := json.Marshal(obj{"paths": []obj{{"path": p}}})
		if a := w.do("ann", "POST", past0(ws1)+"experiments/Default/runs/"+id+"/artifacts/batch/metadata", string(body)); a.status != 400 && json.Valid(body) && p == strings.ToValidUTF8(p, "") {
			t.Errorf("batch/metadata of %q = %d %s", p, a.status, a.body)
		}
	}
	if len(w.blobs.all) != before || len(w.blobs.sigs) > 0 {
		t.Errorf("there are %d blobs, want %d; signed: %v", len(w.blobs.all), before, w.blobs.sigs)
	}
}

// MLF-02: a version is made from what lies in its own workspace and from nothing else.
func TestModelSources(t *testing.T) {
	w := newWorld(t)
	id, other := w.run("a"), w.run("b")
	foreign := w.do("ann", "POST", base(ws2)+"runs/create", obj{"experiment_id": "0"}).text("run", "info", "run_id")
	for run, ws := range map[string]arm.ID{id: ws1, other: ws1, foreign: ws2} {
		w.do("ann", "PUT", proxy(ws)+"/runs/"+run+"/model/weights", "x")
	}
	w.must("ann", "POST", "registered-models/create", obj{"name": "m"})
	sources := []string{
		"/etc/passwd", "file:///etc", "file:/etc", "https://example.com/x", "s3://b/k", "dbfs:/x", "models:/m/1", "runs:/" + foreign + "/model", "mlflow-artifacts:/runs/" + foreign + "/model",
		"runs:/" + id, "runs:/" + id + "/../" + other + "/model", "runs:/" + id + "/nothing", "mlflow-artifacts://evil/runs/" + id + "/model", "mlflow-artifacts:/runs/" + id + "/model?x", "mlflow-artifacts:/runs/" + id + "/model#/../..",
		"azureml://castellan.localhost/mlflow/v2.0" + ws2.String() + "/experiments/Default/runs/" + id + "/artifacts/model",
		"azureml://evil.example/mlflow/v2.0" + ws1.String() + "/experiments/Default/runs/" + id + "/artifacts/model",
		"azureml://subscriptions/" + ws1.Subscription() + "/resourcegroups/g/workspaces/ws2/datastores/workspaceartifactstore/paths/ExperimentRun/dcid." + id + "/model",
		"azureml://datastores/workspaceartifactstore/paths/../x", "models:/m-" + strings.Repeat("0", 32), "models:/m-../../x",
	}
	for _, src := range sources {
		if a := w.ml("ann", "POST", "model-versions/create", obj{"name": "m", "source": src}); a.status != 400 && a.status != 404 && a.status != 403 {
			t.Errorf("source %q = %d %s", src, a.status, a.body)
		}
	}
	if a := w.ml("ann", "POST", "model-versions/create", obj{"name": "m", "source": "runs:/" + id + "/model", "run_id": other}); a.status != 400 {
		t.Errorf("the run of another source = %d %s", a.status, a.body)
	}
	if a := w.ml("run:ws1:"+id, "POST", "model-versions/create", obj{"name": "m", "source": "runs:/" + other + "/model"}); a.status != 403 {
		t.Errorf("a run registers another's artifacts: %d %s", a.status, a.body)
	}
	for _, src := range []string{
		"runs:/" + id + "/model", "mlflow-artifacts:/runs/" + id + "/model/weights", "azureml://jobs/" + id + "/outputs/artifacts/paths/model",
		"azureml://castellan.localhost/mlflow/v2.0" + ws1.String() + "/experiments/Default/runs/" + id + "/artifacts/model",
		"azureml://datastores/workspaceartifactstore/paths/ExperimentRun/dcid." + id + "/model",
	} {
		if a := w.ml("run:ws1:"+id, "POST", "model-versions/create", obj{"name": "m", "source": src, "run_id": id}); a.status != 200 || a.text("model_version", "run_id") != id {
			t.Errorf("source %q = %d %s", src, a.status, a.body)
		}
	}
}

// fill gives a pattern's variables values.
func fill(pattern, ws, run string) string {
	out := ""
	for _, seg := range strings.Split(strings.Trim(pattern, "/"), "/") {
		v, ok := map[string]string{
			"{version}": "v2.0", "{sub}": ws1.Subscription(), "{group}": "g", "{workspace}": ws, "{run}": run, "{experiment}": "Default", "{experimentid}": "0", "{container}": "dcid." + run,
			"{path...}": "runs/" + run + "/x", "{model}": "m-" + strings.Repeat("0", 32), "{tag}": "t",
		}[seg]
		if strings.HasPrefix(pattern, "/artifact/") && seg == "{path...}" {
			v = "x"
		}
		if !ok {
			v = seg
		}
		out += "/" + v
	}
	return out
}

// MLF-03: without a token every door and every path that is none answers alike.
func TestNoTokenNoDoor(t *testing.T) {
	w := newWorld(t)
	ask := func(method, path string) {
		t.Helper()
		if a := w.do("", method, path, nil); a.status != 401 || a.head.Get("WWW-Authenticate") == "" {
			t.Errorf("%s %s = %d %s", method, path, a.status, a.body)
		}
	}
	for _, rt := range w.plane.Routes {
		if !rt.Valid() || rt.Why != "" {
			t.Errorf("%s %s is not guarded", rt.Method, rt.Pattern)
		}
		ask(rt.Method, fill(rt.Pattern, "ws1", "r"))
	}
	at := "/mlflow/v2.0" + ws1.String()
	unknown := []string{"/ajax-api/2.0/mlflow/experiments/search", "/api/2.0/mlflow/traces", "/api/3.0/mlflow/traces", "/graphql", "/version", "/health", "/api/3.0/mlflow/server-info", "/static-files/x", "/get-artifact", "/model-versions/get-artifact", "/api/2.0/mlflow/gateway-proxy", "/api/3.0/jobs/", "/ajax-api/3.0/mlflow/traces", "/api/2.0/mlflow/users/create", "/signup", "/"}
	for _, p := range unknown {
		ask("GET", at+p)
		ask("POST", at+p)
		if a := w.do("ann", "GET", at+p, nil); a.status != 404 || a.code() != "ENDPOINT_NOT_FOUND" {
			t.Errorf("GET %s = %d %s", p, a.status, a.body)
		}
	}
	if a := w.do("ann", "GET", strings.Replace(base(ws1), "v2.0", "v9.0", 1)+"experiments/get?experiment_id=0", nil); a.status != 404 {
		t.Errorf("an unknown version = %d", a.status)
	}
	for _, v := range []string{"v1.0", "v2.0"} {
		path := strings.ToUpper(ws1.String()[:20]) + ws1.String()[20:]
		if a := w.do("ann", "GET", "/mlflow/"+v+path+"/api/2.0/mlflow/experiments/get?experiment_id=0", nil); a.status != 200 {
			t.Errorf("%s = %d %s", v, a.status, a.body)
		}
	}
}

// about are requests about one run, by the door they come to.
func about(run string) map[string]any {
	model := obj{"artifact_path": "m", "flavors": obj{}, "utc_time_created": "x"}
	doc, _ := json.Marshal(model)
	return map[string]any{
		"runs/update": obj{"run_id": run, "status": "KILLED"}, "runs/delete": obj{"run_id": run}, "runs/restore": obj{"run_id": run},
		"runs/log-metric": obj{"run_id": run, "key": "k", "value": 1, "timestamp": 1}, "runs/log-batch": obj{"run_id": run, "metrics": []obj{{"key": "k", "value": 1, "timestamp": 1}}},
		"runs/log-parameter": obj{"run_id": run, "key": "k", "value": "v"}, "runs/set-tag": obj{"run_id": run, "key": "k", "value": "v"}, "runs/delete-tag": obj{"run_id": run, "key": "k"},
		"runs/log-inputs": obj{"run_id": run, "datasets": []obj{}}, "runs/outputs": obj{"run_id": run}, "runs/log-model": obj{"run_id": run, "model_json": string(doc)},
		"logged-models": obj{"experiment_id": "0", "source_run_id": run}, "rundata": obj{"runId": run}, "batch/metadata": obj{"paths": []obj{{"path": "x"}}},
		"model-versions/create": obj{"name": "m", "source": "runs:/" + run + "/x"},
	}
}

// reach sends the request of a door to a run, if the door is about runs.
func (w *world) reach(as string, rt gate.Route, ws, run string) (answer, bool) {
	path := fill(rt.Pattern, ws, run)
	var body any
	for tail, b := range about(run) {
		if strings.HasSuffix(rt.Pattern, "/"+tail) {
			body = b
		}
	}
	switch {
	case body == nil && rt.Method == "PATCH" && strings.HasPrefix(rt.Pattern, "/history/"):
		body = obj{"displayName": "x"}
	case strings.Contains(rt.Pattern, "{run}"), strings.Contains(rt.Pattern, "{path...}"), strings.Contains(rt.Pattern, "{container}"), body != nil:
	case strings.HasSuffix(rt.Pattern, "runs/get"), strings.HasSuffix(rt.Pattern, "artifacts/list"):
		path += "?run_id=" + run
	case strings.HasSuffix(rt.Pattern, "metrics/get-history"):
		path += "?metric_key=k&run_id=" + run
	case strings.HasSuffix(rt.Pattern, "get-history-bulk"), strings.HasSuffix(rt.Pattern, "get-history-bulk-interval"):
		path += "?metric_key=k&run_ids=" + run
	case strings.HasSuffix(rt.Pattern, "mlflow-artifacts/artifacts"):
		path += "?path=runs/" + run
	default:
		return answer{}, false
	}
	if strings.HasSuffix(path, "/metadata") || strings.HasSuffix(path, "/contentinfo") || strings.HasSuffix(path, "/artifacturi") {
		if rt.Method == "GET" {
			path += "?path=x"
		}
	}
	return w.do(as, rt.Method, path, body), true
}

// state is all that can be seen of a run.
func (w *world) state(ws arm.ID, run string) string {
	var out []string
	for _, p := range []string{base(ws) + "runs/get?run_id=" + run, past0(ws) + "runs/" + run, base(ws) + "artifacts/list?run_id=" + run, base(ws) + "metrics/get-history?metric_key=k&run_id=" + run, base(ws) + "registered-models/search"} {
		out = append(out, string(w.do("ann", "GET", p, nil).body))
	}
	return strings.Join(out, "\n")
}

// MLF-05, MID-04: no door leads from one workspace to another's run, nor from a
// run's token to another run, also not to one of the same name elsewhere.
func TestNoDoorLeadsToAnotherRun(t *testing.T) {
	w := newWorld(t)
	a, b := w.run("a"), w.run("b")
	w.do("ann", "PUT", proxy(ws1)+"/runs/"+b+"/x", "secret")
	w.must("ann", "POST", "registered-models/create", obj{"name": "m"})
	was := w.state(ws1, b)
	doors := 0
	for _, rt := range w.plane.Routes {
		if res, ok := w.reach("two", rt, "ws2", b); ok {
			doors++
			if res.status != 404 && res.status != 403 {
				t.Errorf("%s %s by way of ws2 = %d %s", rt.Method, rt.Pattern, res.status, res.body)
			}
		}
		if res, ok := w.reach("two", rt, "ws1", b); ok && res.status != 403 {
			t.Errorf("%s %s as a stranger = %d %s", rt.Method, rt.Pattern, res.status, res.body)
		}
		for _, as := range []string{"run:ws1:" + a, "run:ws2:" + b} {
			if res, ok := w.reach(as, rt, "ws1", b); ok && res.status != 403 {
				t.Errorf("%s %s by %s = %d %s", rt.Method, rt.Pattern, as, res.status, res.body)
			}
		}
	}
	if doors < 45 {
		t.Errorf("only %d doors are about runs", doors)
	}
	if now := w.state(ws1, b); now != was {
		t.Errorf("the run changed:\n%s\nwas\n%s", now, was)
	}
	if len(w.blobs.sigs) > 0 {
		t.Errorf("signed: %v", w.blobs.sigs)
	}
}

// A run names itself where a request names no run, and sees no more than its own.
func TestRunSeesItsOwn(t *testing.T) {
	w := newWorld(t)
	e1 := w.must("ann", "POST", "experiments/create", obj{"name": "e1"}).text("experiment_id")
	e2 := w.must("ann", "POST", "experiments/create", obj{"name": "e2"}).text("experiment_id")
	id := w.must("ann", "POST", "runs/create", obj{"experiment_id": e1}).text("run", "info", "run_id")
	w.must("ann", "POST", "runs/create", obj{"experiment_id": e1})
	as := "run:ws1:" + id
	if got := w.must(as, "POST", "runs/search", obj{"experiment_ids": []string{e1, e2}}).list("runs"); len(got) != 1 {
		t.Errorf("a run sees %d runs, want its own", len(got))
	}
	if got := w.must(as, "POST", "experiments/search", obj{"max_results": 10}).list("experiments"); len(got) != 1 {
		t.Errorf("a run sees %d experiments, want its own", len(got))
	}
	for path, want := range map[string]int{
		"experiments/get?experiment_id=" + e1: 200, "experiments/get?experiment_id=" + e2: 403, "experiments/get-by-name?experiment_name=e2": 403, "experiments/get-by-name?experiment_name=none": 403,
		"runs/get?run_id=" + id: 200, "registered-models/search": 200,
	} {
		if a := w.ml(as, "GET", path, nil); a.status != want {
			t.Errorf("GET %s = %d, want %d: %s", path, a.status, want, a.body)
		}
	}
	for path, body := range map[string]obj{
		"runs/create": {"experiment_id": e1}, "experiments/create": {"name": "x"}, "experiments/delete": {"experiment_id": e1}, "runs/delete": {"run_id": id},
	} {
		if a := w.ml(as, "POST", path, body); a.status != 403 {
			t.Errorf("POST %s = %d %s", path, a.status, a.body)
		}
	}
}

// A run's metrics measure the models that it logged, and none that a person did.
func TestRunMeasuresItsOwnModels(t *testing.T) {
	w := newWorld(t)
	id := w.must("ann", "POST", "runs/create", obj{"experiment_id": "0"}).text("run", "info", "run_id")
	loose := w.must("ann", "POST", "logged-models", obj{"experiment_id": "0", "name": "of-ann"}).text("model", "info", "model_id")
	mine := w.must("ann", "POST", "logged-models", obj{"experiment_id": "0", "name": "of-run", "source_run_id": id}).text("model", "info", "model_id")
	as := "run:ws1:" + id
	for model, want := range map[string]int{mine: 200, loose: 403} {
		m := obj{"key": "acc", "value": 1, "timestamp": 1, "step": 0, "model_id": model}
		if a := w.ml(as, "POST", "runs/log-batch", obj{"run_id": id, "metrics": []obj{m}}); a.status != want {
			t.Errorf("log-batch = %d %s, want %d", a.status, a.body, want)
		}
		m["run_id"] = id
		if a := w.ml(as, "POST", "runs/log-metric", m); a.status != want {
			t.Errorf("log-metric = %d %s, want %d", a.status, a.body, want)
		}
	}
	if got := w.must("ann", "GET", "logged-models/"+loose, nil).list("model", "data", "metrics"); len(got) != 0 {
		t.Errorf("the model of ann has %v", got)
	}
}

// A slash that is escaped in the path is no way to another workspace or run.
func TestEscapedSlashes(t *testing.T) {
	w := newWorld(t)
	id := w.run("a")
	for _, p := range []string{
		strings.Replace(base(ws1), "/ws1/", "/ws1%2Fjobs%2Fx/", 1) + "runs/get?run_id=" + id,
		strings.Replace(base(ws1), "/g/", "/g%2Fproviders%2FX%2Fy%2Fz/", 1) + "runs/get?run_id=" + id,
		past0(ws1) + "runs/" + id + "%2Fdetails", past0(ws1) + "runs/..%2F" + id, past0(ws1) + "runs/%2e%2e/details",
	} {
		if a := w.do("ann", "GET", p, nil); a.status != 400 {
			t.Errorf("GET %s = %d %s", p, a.status, a.body)
		}
	}
}

// MLF-07: what a job wrote is never run or shown by a browser.
func TestWhatJobsWriteIsInert(t *testing.T) {
	w := newWorld(t)
	const html = "<html><script>alert(1)</script>"
	id := w.must("ann", "POST", "runs/create", obj{"experiment_id": "0", "run_name": html, "tags": []obj{{"key": "mlflow.note.content", "value": html}}}).text("run", "info", "run_id")
	w.must("ann", "POST", "runs/log-parameter", obj{"run_id": id, "key": "p", "value": html})
	a := w.must("ann", "GET", "runs/get?run_id="+id, nil)
	if ct := a.head.Get("Content-Type"); !strings.HasPrefix(ct, "application/json") || a.text("run", "info", "run_name") != html {
		t.Errorf("a run is %q, named %q", ct, a.text("run", "info", "run_name"))
	}
	w.do("ann", "PUT", proxy(ws1)+"/runs/"+id+"/x.html", html)
	a = w.do("ann", "GET", proxy(ws1)+"/runs/"+id+"/x.html", nil)
	for k, want := range map[string]string{"Content-Type": "application/octet-stream", "X-Content-Type-Options": "nosniff", "Content-Disposition": "attachment; filename=x.html"} {
		if got := a.head.Get(k); got != want {
			t.Errorf("%s is %q, want %q", k, got, want)
		}
	}
	if string(a.body) != html || !strings.Contains(a.head.Get("Content-Security-Policy"), "sandbox") {
		t.Errorf("the artifact is %q under %q", a.body, a.head.Get("Content-Security-Policy"))
	}
}
