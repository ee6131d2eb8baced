"""Random filters and orders over random runs, with what MLflow's own code makes of them, as JSON."""
import json
import random
import sys

from mlflow.entities import LifecycleStage, Metric, Param, Run, RunData, RunInfo, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.search_utils import SearchUtils

rnd = random.Random(7)
texts = ["a", "b", "ab", "Ab", "a%b", "a_b", "", "é", "x y", "0.1"]
numbers = [-1.5, 0.0, 0.5, 1.0, 2.0, 1e10]
runs, plain = [], []
for i in range(30):
    status = rnd.choice(["RUNNING", "FINISHED", "FAILED", "KILLED", "SCHEDULED"])
    name, start = rnd.choice(texts[:4]), rnd.randrange(5) * 100
    metrics = {k: rnd.choice(numbers) for k in ("m", "n", "a/b c") if rnd.random() < 0.7}
    params = {k: rnd.choice(texts) for k in ("p", "q r", "s.t") if rnd.random() < 0.7}
    tags = {k: rnd.choice(texts) for k in ("t", "u.v", "w-x") if rnd.random() < 0.7}
    rid = f"r{i:02d}"
    info = RunInfo(run_id=rid, experiment_id="0", user_id="", status=status, start_time=start, end_time=None, lifecycle_stage=LifecycleStage.ACTIVE, run_name=name)
    runs.append(Run(info, RunData([Metric(k, v, 0, 0) for k, v in metrics.items()], [Param(k, v) for k, v in params.items()], [RunTag(k, v) for k, v in tags.items()])))
    plain.append(dict(ID=rid, Name=name, Status=status, Start=start, Metrics=metrics, Params=params, Tags=tags))

q = lambda s: "'" + s + "'"


def clause():
    kind = rnd.randrange(9)
    if kind < 3:
        left = rnd.choice(["metrics.m", "metric.n", "metrics.`a/b c`", 'metrics."a/b c"', "metrics.none"])
        return f"{left} {rnd.choice(['<', '<=', '>', '>=', '=', '!='])} {rnd.choice(['0.5', '1', '-1.5', '0', '2.0', '1e10', '.5'])}"
    if kind < 6:
        left = rnd.choice(["params.p", "param.`q r`", "parameters.s.t", "tags.t", "tag.u.v", "tags.`w-x`", 'tags."t"', "tags.none"])
        op = rnd.choice(["=", "!=", "LIKE", "ILIKE", "like"])
        return f"{left} {op} {q(rnd.choice(texts + ['%', 'a%', '%b', '_b', 'A%', '%a%']))}"
    if kind == 6:
        return rnd.choice(["start_time", "attributes.start_time", "attr.created"]) + f" {rnd.choice(['<', '>=', '=', '!='])} {rnd.choice([0, 100, 300])}"
    if kind == 7:
        return rnd.choice([f"status = {q(rnd.choice(['RUNNING', 'FAILED', 'x']))}", f"run_name LIKE {q(rnd.choice(['a%', '%b']))}", "run_id IN ('r01', 'r02', 'r99')", "attributes.run_id NOT IN ('r01','r02')", "run_id != 'r03'"])
    return rnd.choice(["params.p > 'a'", "metrics.m LIKE 'x'", "metrics.m = 'x'", "nope.x = 'y'", "params.p = 5", "status > 'a'", "start_time = 'x'", "tags.t IS NULL", "params.p IS NOT NULL", "metrics.m IS NULL", "garbage"])


cases = []
for _ in range(int(sys.argv[1])):
    filt = rnd.choice([" AND ", " and "]).join(clause() for _ in range(rnd.randrange(4)))
    order = [rnd.choice(["metrics.m", "metrics.`a/b c`", "params.p", "tags.t", "start_time", "attributes.run_name", "run_id", "nope.x", "nope"]) + rnd.choice(["", " ASC", " DESC", " desc"]) for _ in range(rnd.choice([0, 0, 1, 2]))]
    case = dict(Filter=filt, Order=order)
    try:
        for one in SearchUtils.parse_search_filter(filt):  # it looks at a comparator only when it comes to it
            SearchUtils._does_run_match_clause(runs[0], one)
        case["Want"] = [r.info.run_id for r in SearchUtils.sort(SearchUtils.filter(runs, filt), order)]
    except (MlflowException, AttributeError, KeyError, TypeError) as e:
        case["Error"] = str(e) or type(e).__name__
    cases.append(case)
json.dump(dict(Runs=plain, Cases=cases), sys.stdout)
