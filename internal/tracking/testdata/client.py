"""What the stock MLflow client does, all of it against a real server."""
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException

print("mlflow", mlflow.__version__)


def refused(code, f, *a, **k):
    try:
        f(*a, **k)
    except MlflowException as e:
        assert e.error_code == code, (e.error_code, e)
        return
    raise AssertionError(f"{f.__name__} was not refused")


c = MlflowClient()
eid = c.create_experiment("iris", tags={"team": "a"})
refused("RESOURCE_ALREADY_EXISTS", c.create_experiment, "iris")
assert c.get_experiment(eid).name == "iris"
assert c.get_experiment_by_name("iris").tags == {"team": "a"}
assert c.get_experiment_by_name("nope") is None
c.set_experiment_tag(eid, "k", "v")
c.delete_experiment_tag(eid, "team")
assert c.get_experiment(eid).tags == {"k": "v"}
c.rename_experiment(eid, "iris2")
assert {e.name for e in c.search_experiments()} == {"iris2", "Default"}
assert [e.name for e in c.search_experiments(filter_string="name ILIKE 'IRIS%'")] == ["iris2"]
e2 = c.create_experiment("gone")
c.delete_experiment(e2)
assert [e.name for e in c.search_experiments(view_type=ViewType.DELETED_ONLY)] == ["gone"]
c.restore_experiment(e2)

mlflow.set_experiment("iris2")
with mlflow.start_run(run_name="first", tags={"a": "b"}) as run:
    mlflow.log_param("lr", 0.1)
    mlflow.log_params({"depth": 3, "name": "x" * 500})
    mlflow.log_metric("loss", 1.5, step=0)
    mlflow.log_metrics({"loss": 0.5, "acc": 0.9}, step=1)
    mlflow.log_metric("nan", math.nan)
    mlflow.log_metric("inf", math.inf)
    mlflow.log_metric("ninf", -math.inf)
    mlflow.set_tag("mlflow.note.content", "<script>alert(1)</script>")
    mlflow.log_text("hello", "notes/hello.txt")
    mlflow.log_dict({"a": 1}, "conf.json")
    with tempfile.TemporaryDirectory() as d:
        p = pathlib.Path(d)
        (p / "sub").mkdir()
        (p / "sub" / "ä ü+&%.bin").write_bytes(os.urandom(1 << 20))
        (p / "empty").write_bytes(b"")
        mlflow.log_artifacts(d, "many")
rid = run.info.run_id
r = c.get_run(rid)
assert r.info.status == "FINISHED" and r.info.end_time, r.info
assert r.data.params == {"lr": "0.1", "depth": "3", "name": "x" * 500}
assert r.data.metrics["loss"] == 0.5 and math.isnan(r.data.metrics["nan"])
assert r.data.metrics["inf"] == math.inf and r.data.metrics["ninf"] == -math.inf, r.data.metrics
assert r.data.tags["a"] == "b" and r.data.tags["mlflow.runName"] == "first"
assert [m.value for m in c.get_metric_history(rid, "loss")] == [1.5, 0.5]
refused("INVALID_PARAMETER_VALUE", c.log_param, rid, "lr", "0.2")
assert sorted(a.path for a in c.list_artifacts(rid)) == ["conf.json", "many", "notes"]
assert [(a.path, a.file_size) for a in c.list_artifacts(rid, "notes")] == [("notes/hello.txt", 5)]
with tempfile.TemporaryDirectory() as d:
    got = pathlib.Path(c.download_artifacts(rid, "", d))
    assert (got / "notes/hello.txt").read_text() == "hello"
    assert (got / "many/sub/ä ü+&%.bin").stat().st_size == 1 << 20
assert mlflow.artifacts.load_text(run.info.artifact_uri + "/notes/hello.txt") == "hello"

now = int(time.time() * 1000)
c.log_batch(rid, [Metric("many", i, now + i, i) for i in range(1000)])
c.log_batch(rid, [Metric("b", 1, now, 0)], [Param("bp", "1")], [RunTag("bt", "1")])
assert len(c.get_metric_history(rid, "many")) == 1000
refused("INVALID_PARAMETER_VALUE", c._tracking_client.store.log_batch, rid, [Metric("m", i, now, i) for i in range(1001)], [], [])
c.delete_tag(rid, "a")
c.update_run(rid, name="renamed")
assert c.get_run(rid).info.run_name == "renamed"

ids = []
for i in range(5):
    x = c.create_run(eid, run_name=f"s{i}")
    c.log_metric(x.info.run_id, "score", i)
    c.log_param(x.info.run_id, "even", str(i % 2 == 0))
    c.set_terminated(x.info.run_id, "FAILED" if i == 4 else "FINISHED")
    ids.append(x.info.run_id)
names = lambda *a, **k: [x.info.run_name for x in c.search_runs([eid], *a, **k)]
assert names("metrics.score > 1", order_by=["metrics.score DESC"]) == ["s4", "s3", "s2"]
assert names("params.even = 'True' and metrics.score < 4", order_by=["metrics.score ASC"]) == ["s0", "s2"]
assert names("attributes.status = 'FAILED'") == ["s4"]
assert names("run_name LIKE 's%'", order_by=["run_name"]) == [f"s{i}" for i in range(5)]
assert names(f"run_id IN ('{ids[0]}', '{ids[3]}')", order_by=["attributes.start_time"]) == ["s0", "s3"]
page = c.search_runs([eid], max_results=2)
seen = list(page)
while page.token:
    page = c.search_runs([eid], max_results=2, page_token=page.token)
    seen += page
assert len(seen) == 6 and len({x.info.run_id for x in seen}) == 6
refused("INVALID_PARAMETER_VALUE", c.search_runs, [eid], "metrics.score > 'x' OR 1=1")
c.delete_run(ids[0])
assert "s0" not in names()
assert [x.info.run_id for x in c.search_runs([eid], run_view_type=ViewType.DELETED_ONLY)] == [ids[0]]
refused("INVALID_PARAMETER_VALUE", c.log_metric, ids[0], "x", 1)
c.restore_run(ids[0])

# The registry.
c.create_registered_model("irismodel", tags={"t": "1"}, description="d")
refused("RESOURCE_ALREADY_EXISTS", c.create_registered_model, "irismodel")
v = c.create_model_version("irismodel", f"runs:/{rid}/many", rid, tags={"q": "w"}, description="one")
assert v.version in ("1", 1) and v.status == "READY", v
v2 = c.create_model_version("irismodel", f"mlflow-artifacts:/runs/{rid}/notes", rid)
assert str(v2.version) == "2"
assert c.get_model_version_download_uri("irismodel", "1") == f"mlflow-artifacts:/runs/{rid}/many"
c.set_registered_model_alias("irismodel", "champion", "1")
assert str(c.get_model_version_by_alias("irismodel", "champion").version) == "1"
assert c.get_registered_model("irismodel").aliases == {"champion": "1"}, c.get_registered_model("irismodel").aliases
c.set_model_version_tag("irismodel", "1", "x", "y")
assert c.get_model_version("irismodel", "1").tags == {"q": "w", "x": "y"}
c.delete_model_version_tag("irismodel", "1", "x")
c.update_model_version("irismodel", "1", "uno")
c.transition_model_version_stage("irismodel", "1", "Production")
c.transition_model_version_stage("irismodel", "2", "Production", archive_existing_versions=True)
assert c.get_model_version("irismodel", "1").current_stage == "Archived"
assert [str(x.version) for x in c.get_latest_versions("irismodel", ["Production"])] == ["2"]
assert [str(x.version) for x in c.search_model_versions("name='irismodel'", order_by=["version_number ASC"])] == ["1", "2"]
assert [x.name for x in c.search_registered_models("name LIKE 'iris%'")] == ["irismodel"]
c.rename_registered_model("irismodel", "iris-renamed")
assert str(c.get_model_version("iris-renamed", "2").version) == "2"
c.delete_registered_model_alias("iris-renamed", "champion")
c.delete_model_version("iris-renamed", "2")
refused("RESOURCE_DOES_NOT_EXIST", c.get_model_version, "iris-renamed", "2")
for bad in ("/etc", "file:///etc", "s3://b/k", "../x", f"runs:/{rid}/../x", "mlflow-artifacts:/runs/nope/x"):
    try:
        c.create_model_version("iris-renamed", bad, rid)
    except MlflowException as e:
        assert e.error_code in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"), e
    else:
        raise AssertionError(bad)
c.delete_registered_model("iris-renamed")

# MLflow 3 logs models apart from runs.
if int(mlflow.__version__.split(".")[0]) >= 3:
    with mlflow.start_run() as run:
        m = mlflow.initialize_logged_model(name="net", params={"p": "1"}, tags={"a": "b"}, source_run_id=run.info.run_id)
        with tempfile.TemporaryDirectory() as d:
            pathlib.Path(d, "MLmodel").write_text("flavors: {}\n")
            c.log_model_artifacts(m.model_id, d)
        m = mlflow.finalize_logged_model(m.model_id, "READY")
        assert str(m.status) in ("LoggedModelStatus.READY", "READY"), m.status
        mlflow.log_metric("acc", 0.75, model_id=m.model_id)
        m = mlflow.get_logged_model(m.model_id)
        assert m.params == {"p": "1"} and m.metrics[0].value == 0.75, m
        assert [x.model_id for x in c.search_logged_models([eid], filter_string="metrics.acc > 0.5")] == [m.model_id]
        assert [f.path for f in c.list_logged_model_artifacts(m.model_id)] == ["MLmodel"]
        c.set_logged_model_tags(m.model_id, {"z": "1"})
        c.delete_logged_model_tag(m.model_id, "a")
        c.create_registered_model("net")
        v = c.create_model_version("net", f"models:/{m.model_id}", run.info.run_id, model_id=m.model_id)
        assert c.get_model_version("net", "1").run_id == run.info.run_id  # the client reads no model_id
        assert mlflow.get_logged_model(m.model_id).tags.get("z") == "1"
    if hasattr(mlflow, "register_model"):
        v = mlflow.register_model(f"models:/{m.model_id}", "fluent")
        assert str(v.version) == "1"
        with tempfile.TemporaryDirectory() as d:
            mlflow.artifacts.download_artifacts("models:/fluent/1", dst_path=d)

# A job: nothing but the environment, and a token that is good for one run.
job = c.create_run(eid, run_name="job").info.run_id
other = ids[1]
env = dict(os.environ, MLFLOW_TRACKING_TOKEN=f"run:{os.environ['RUN_WORKSPACE']}:{job}", MLFLOW_RUN_ID=job, MLFLOW_EXPERIMENT_ID=eid)
code = f"""
import mlflow, tempfile
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
with mlflow.start_run() as r:
    assert r.info.run_id == {job!r}
    mlflow.log_metric('acc', 0.5)
    mlflow.log_param('p', 1)
    mlflow.log_text('weights', 'model/weights.txt')
    assert [x.path for x in MlflowClient().list_artifacts({job!r})] == ['model']
c = MlflowClient()
assert c.get_experiment({eid!r}).name == 'iris2'
c.create_registered_model('byjob')
c.create_model_version('byjob', 'runs:/{job}/model', {job!r})
for what in (lambda: c.get_run({other!r}), lambda: c.log_metric({other!r}, 'x', 1), lambda: c.list_artifacts({other!r}), lambda: c.create_run({eid!r}), lambda: c.create_experiment('x'), lambda: c.delete_run({job!r}), lambda: c.delete_registered_model('byjob'), lambda: c.create_model_version('byjob', 'runs:/{rid}/many', {rid!r})):
    try:
        what()
    except Exception as e:
        assert 'PERMISSION_DENIED' in str(e) or '403' in str(e), e
    else:
        raise AssertionError('a run reached another')
assert len(c.search_runs([{eid!r}])) == 1
"""
subprocess.run([sys.executable, "-c", code], env=env, check=True)
print("ok")
