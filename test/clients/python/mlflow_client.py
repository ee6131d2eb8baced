"""The plain mlflow client from outside, with an ARM token as its tracking token."""

import contextlib
import io
import logging
import math
import os
import pathlib
import tempfile
import time
import warnings

import requests
from checks import Suite, equal, load, must

warnings.filterwarnings("ignore")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # a fault shows at once
world = load("CASTELLAN_WORLD")
suite = Suite("mlflow")


def token(who, scope=None, secret=None):
    r = requests.post(
        f"{world['loginEndpoint']}/{world['tenantId']}/oauth2/v2.0/token",
        data={"grant_type": "client_credentials", "client_id": world[who]["clientId"], "client_secret": secret or world[who]["clientSecret"], "scope": (scope or world["armEndpoint"]) + "/.default"},
        timeout=30,
    )
    if not r.ok:
        raise AssertionError(r.text)
    return r.json()["access_token"]


os.environ["MLFLOW_TRACKING_URI"] = world["tracking"]
os.environ["MLFLOW_TRACKING_TOKEN"] = suite.ok("token of the scientist", lambda: token("scientist")) or ""

import mlflow  # noqa: E402  after its environment
from mlflow import MlflowClient  # noqa: E402
from mlflow.entities import Metric, Param, RunTag  # noqa: E402

logging.getLogger("mlflow").setLevel(logging.ERROR)
client = MlflowClient()


def quiet(do):
    """do(), without the links that mlflow prints."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return do()


def as_(who, do, scope=None):
    """do() with somebody else's token; the client reads it at every call."""
    before = os.environ["MLFLOW_TRACKING_TOKEN"]
    os.environ["MLFLOW_TRACKING_TOKEN"] = who if who.startswith("token:") else token(who, scope)
    try:
        return do()
    finally:
        os.environ["MLFLOW_TRACKING_TOKEN"] = before


# Experiments.
experiment = suite.ok("create_experiment", lambda: client.create_experiment("outside", tags={"by": "mlflow"})) or "0"
suite.ok("get_experiment", lambda: equal(client.get_experiment(experiment).name, "outside"))
suite.ok("get_experiment_by_name", lambda: equal(client.get_experiment_by_name("outside").experiment_id, experiment))
suite.ok("get_experiment_by_name of none", lambda: equal(client.get_experiment_by_name("none such"), None))
suite.refused("an experiment of the same name", lambda: client.create_experiment("outside"), "RESOURCE_ALREADY_EXISTS")
suite.ok("set_experiment_tag", lambda: client.set_experiment_tag(experiment, "k", "v"))
suite.ok("the tags are kept", lambda: equal({k: client.get_experiment(experiment).tags.get(k) for k in ("by", "k")}, {"by": "mlflow", "k": "v"}))
suite.ok("search_experiments", lambda: must(experiment in [e.experiment_id for e in client.search_experiments()], "not found"))
suite.ok("rename_experiment", lambda: client.rename_experiment(experiment, "outside2"))

# A run with parameters, tags, single and batched metrics.
run = suite.ok("create_run", lambda: client.create_run(experiment, run_name="first", tags={"a": "b"}))
if run is None:
    suite.finish()
rid, now = run.info.run_id, int(time.time() * 1000)
suite.ok("log_metric", lambda: client.log_metric(rid, "loss", 0.5, step=1))
suite.ok("log_metric again", lambda: client.log_metric(rid, "loss", 0.25, step=2))
suite.ok("log_param", lambda: client.log_param(rid, "depth", 3))
suite.ok("set_tag", lambda: client.set_tag(rid, "note", "wörld \U0001f30d"))
suite.ok("log_batch of 1000 metrics", lambda: client.log_batch(rid, [Metric("batch", i / 7, now + i, i) for i in range(1000)], [Param(f"p{i}", str(i)) for i in range(100)], [RunTag(f"t{i}", str(i)) for i in range(100)]))
suite.ok("get_metric_history is whole and exact", lambda: equal([(m.step, m.value) for m in sorted(client.get_metric_history(rid, "batch"), key=lambda m: m.step)], [(i, i / 7) for i in range(1000)]))
suite.ok("not-a-number and infinity are metrics", lambda: [client.log_metric(rid, "odd", v, step=i) for i, v in enumerate((float("nan"), float("inf"), -float("inf")))])
# MLflow's own server answers infinity with the greatest number there is.
suite.ok("and come back", lambda: equal([(math.isnan(m.value), abs(m.value) > 1e308, m.value > 0) for m in sorted(client.get_metric_history(rid, "odd"), key=lambda m: m.step)], [(True, False, False), (False, True, True), (False, True, False)]))


def run_as_written():
    data = client.get_run(rid).data
    equal(data.metrics["loss"], 0.25)
    equal((data.params["depth"], data.params["p99"]), ("3", "99"))
    equal((data.tags["a"], data.tags["note"], data.tags["t99"]), ("b", "wörld \U0001f30d", "99"))


suite.ok("get_run", run_as_written)
suite.refused("a changed parameter", lambda: client.log_param(rid, "depth", 4), "INVALID_PARAMETER_VALUE", "already logged")
suite.ok("delete_tag", lambda: client.delete_tag(rid, "t0"))
suite.ok("search_runs by metric", lambda: equal([r.info.run_id for r in client.search_runs([experiment], "metrics.loss < 0.3 and params.depth = '3'")], [rid]))
suite.ok("search_runs without a match", lambda: equal(len(client.search_runs([experiment], "metrics.loss > 0.3")), 0))
suite.ok("search_runs by tag, ordered", lambda: equal([r.info.run_id for r in client.search_runs([experiment], "tags.a = 'b'", order_by=["metrics.loss DESC"])], [rid]))

# Artifacts.
folder = pathlib.Path(tempfile.mkdtemp(prefix="castellan-artifacts-"))
(folder / "sub").mkdir()
(folder / "a.txt").write_text("hello artifact")
(folder / "sub" / "big.bin").write_bytes(os.urandom(3 << 20))
suite.ok("log_artifact", lambda: client.log_artifact(rid, str(folder / "a.txt"), "dir"))
suite.ok("log_artifacts of a folder", lambda: client.log_artifacts(rid, str(folder), "all"))
suite.ok("log_text with odd letters in its name", lambda: client.log_text(rid, "text", "odd names/ä b+c%.txt"))
suite.ok("log_dict", lambda: client.log_dict(rid, {"a": 1}, "d.json"))
suite.ok("list_artifacts", lambda: equal([(f.path, f.is_dir, f.file_size) for f in client.list_artifacts(rid)], [("all", True, None), ("d.json", False, 12), ("dir", True, None), ("odd names", True, None)]))
suite.ok("list_artifacts of a folder", lambda: equal([f.path for f in client.list_artifacts(rid, "all")], ["all/a.txt", "all/sub"]))
suite.ok("download_artifacts of a file", lambda: equal(pathlib.Path(client.download_artifacts(rid, "dir/a.txt", tempfile.mkdtemp())).read_text(), "hello artifact"))
suite.ok("download_artifacts of a folder", lambda: equal((pathlib.Path(client.download_artifacts(rid, "all", tempfile.mkdtemp())) / "sub" / "big.bin").read_bytes(), (folder / "sub" / "big.bin").read_bytes()))
suite.ok("download of the odd name", lambda: equal(pathlib.Path(client.download_artifacts(rid, "odd names/ä b+c%.txt", tempfile.mkdtemp())).read_text(), "text"))

# A model, as mlflow 3 logs it, and the registry.


class Doubles(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input: list[float]) -> list[float]:
        return [2 * x for x in model_input]


def log_model():
    with mlflow.start_run(experiment_id=experiment, run_name="with a model"):
        mlflow.log_params({"x": 1})
        mlflow.log_metrics({"y": 2.0}, step=3)
        return mlflow.pyfunc.log_model(name="doubles", python_model=Doubles(), pip_requirements=[])


model = suite.ok("log_model", lambda: quiet(log_model))
if model:
    suite.ok("the logged model is ready", lambda: equal(str(mlflow.get_logged_model(model.model_id).status).split(".")[-1], "READY"))
    suite.ok("load_model and predict", lambda: equal(mlflow.pyfunc.load_model(model.model_uri).predict([1.5]), [3.0]))
    suite.ok("search_logged_models", lambda: must(model.model_id in [m.model_id for m in client.search_logged_models([experiment])], "not found"))
    suite.ok("register_model", lambda: equal(str(quiet(lambda: mlflow.register_model(model.model_uri, "doubles")).version), "1"))
    suite.ok("load of the registered model", lambda: equal(mlflow.pyfunc.load_model("models:/doubles/1").predict([2.0]), [4.0]))
suite.ok("create_registered_model", lambda: client.create_registered_model("by-mlflow", tags={"a": "b"}, description="d"))
suite.refused("a registered model of the same name", lambda: client.create_registered_model("by-mlflow"), "RESOURCE_ALREADY_EXISTS")
suite.ok("create_model_version", lambda: equal(str(client.create_model_version("by-mlflow", f"{run.info.artifact_uri}/all", rid).version), "1"))
suite.ok("a second version", lambda: equal(str(client.create_model_version("by-mlflow", f"{run.info.artifact_uri}/dir", rid).version), "2"))
suite.ok("get_model_version", lambda: equal(client.get_model_version("by-mlflow", "1").run_id, rid))
suite.ok("set_registered_model_alias", lambda: client.set_registered_model_alias("by-mlflow", "champion", "2"))
suite.ok("get_model_version_by_alias", lambda: equal(str(client.get_model_version_by_alias("by-mlflow", "champion").version), "2"))
suite.ok("set_model_version_tag", lambda: client.set_model_version_tag("by-mlflow", "1", "k", "v"))
suite.ok("update_model_version", lambda: equal(client.update_model_version("by-mlflow", "1", "words").description, "words"))
suite.ok("search_model_versions", lambda: equal(sorted(str(v.version) for v in client.search_model_versions("name='by-mlflow'")), ["1", "2"]))
suite.ok("search_registered_models", lambda: must("by-mlflow" in [m.name for m in client.search_registered_models()], "not found"))
suite.ok("get_model_version_download_uri", lambda: client.get_model_version_download_uri("by-mlflow", "1"))
suite.ok("transition_model_version_stage", lambda: equal(client.transition_model_version_stage("by-mlflow", "1", "Production").current_stage, "Production"))
suite.ok("delete_registered_model_alias", lambda: client.delete_registered_model_alias("by-mlflow", "champion"))
suite.ok("delete_model_version", lambda: client.delete_model_version("by-mlflow", "1"))
suite.ok("delete_registered_model", lambda: client.delete_registered_model("by-mlflow"))
suite.refused("get of the deleted model", lambda: client.get_registered_model("by-mlflow"), "RESOURCE_DOES_NOT_EXIST")

# The end of a run.
suite.ok("set_terminated", lambda: quiet(lambda: client.set_terminated(rid, "FINISHED")))
suite.ok("its status", lambda: equal(client.get_run(rid).info.status, "FINISHED"))
suite.ok("delete_run and restore_run", lambda: [client.delete_run(rid), client.restore_run(rid)])

# What must be refused. A reader may look, but not write.
suite.ok("a reader's get_run", lambda: as_("reader", lambda: client.get_run(rid)))
suite.refused("a reader's create_experiment", lambda: as_("reader", lambda: client.create_experiment("mine")), "PERMISSION_DENIED", "403")
suite.refused("a reader's log_metric", lambda: as_("reader", lambda: client.log_metric(rid, "loss", 9)), "PERMISSION_DENIED", "403")
suite.refused("a reader's log_artifact", lambda: as_("reader", lambda: client.log_text(rid, "mine", "dir/a.txt")), "PERMISSION_DENIED", "403")
suite.refused("a reader's registered model", lambda: as_("reader", lambda: client.create_registered_model("mine")), "PERMISSION_DENIED", "403")
suite.refused("a stranger's get_run", lambda: as_("stranger", lambda: client.get_run(rid)), "PERMISSION_DENIED", "RESOURCE_DOES_NOT_EXIST", "403", "404")
suite.refused("a stranger's search", lambda: as_("stranger", lambda: client.search_experiments()), "PERMISSION_DENIED", "RESOURCE_DOES_NOT_EXIST", "403", "404")
suite.refused("a stranger's artifact", lambda: as_("stranger", lambda: client.download_artifacts(rid, "dir/a.txt", tempfile.mkdtemp())), "PERMISSION_DENIED", "RESOURCE_DOES_NOT_EXIST", "403", "404")
suite.refused("a token that is none", lambda: as_("token:nonsense", lambda: client.get_run(rid)), "UNAUTHENTICATED", "401")
suite.refused("no right to the storage by a token for storage", lambda: as_("scientist", lambda: client.get_run(rid), "https://storage.azure.com"), "UNAUTHENTICATED", "401")
suite.refused("a wrong secret", lambda: token("scientist", secret="wrong" * 8), "AADSTS7000215", "invalid_client")
suite.finish()
