"""A refusal explained, who could have done it, and the activity log: by the Azure CLI and castellan's own commands."""

import json
import os
import re
import subprocess

from azcli import az, environment, here, login
from checks import Suite, equal, load, must

world = load("CASTELLAN_WORLD")
suite = Suite("why")
sub = "/subscriptions/" + world["subscriptionId"]
scope = sub + "/resourceGroups/by-why"
reader = world["reader"]["objectId"]


def own(*words, who="admin"):
    """Runs castellan; its JSON, or an error with what it said."""
    env = {**environment(who), "XDG_CONFIG_HOME": str(here / who), "AZURE_TENANT_ID": world["tenantId"], "AZURE_CLIENT_ID": world[who]["clientId"], "AZURE_CLIENT_SECRET": world[who]["clientSecret"]}
    tail = [] if words[0] == "login" else ["--output", "json"]
    done = subprocess.run([os.environ["CASTELLAN_PROGRAM"], *words, *tail], env=env, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise AssertionError(f"castellan {words[0]}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout) if tail else None


def refused():
    """The correlation id of what az is refused."""
    try:
        az("group", "update", "--name", "by-why", "--set", "tags.a=b", who="reader")
    except AssertionError as e:
        return re.search(r"Correlation id: ([0-9a-f]+)", str(e))[1]
    raise AssertionError("it was allowed")


def log(*words, who="admin"):
    return az("monitor", "activity-log", "list", "--offset", "1h", "--max-events", "1000", *words, who=who)


for who in ("admin", "reader"):
    suite.ok("az login of the " + who, lambda who=who: login(who, who=who))
    suite.ok("castellan login of the " + who, lambda who=who: own("login", "--service-principal", "--data", os.environ["CASTELLAN_DATA"], who=who))
suite.ok("group create", lambda: az("group", "create", "--name", "by-why", "--location", world.get("location", "local")))
suite.ok("role assignment create", lambda: az("role", "assignment", "create", "--assignee-object-id", reader, "--assignee-principal-type", "ServicePrincipal", "--role", "Reader", "--scope", scope))
correlation = suite.ok("a refusal carries its id", refused)
if not correlation:
    suite.finish()

said = suite.ok("castellan why", lambda: own("why", correlation)) or {}
suite.ok("it names who, what and where", lambda: equal([said["callerId"], said["action"], said["scope"].lower()], [reader, "Microsoft.Resources/subscriptions/resourceGroups/write", scope.lower()]))
suite.ok("it names the role that did not do", lambda: must(["Reader", "LacksAction"] in [[a["roleName"], a["verdict"]] for a in said["assignmentsConsidered"]], said["assignmentsConsidered"]))
suite.ok("it proposes a role", lambda: must(said["smallestRole"]["roleName"] not in ("", "Owner", "Contributor"), said["smallestRole"]))
suite.ok("a reader, who may see assignments, sees the same", lambda: equal(own("why", correlation, who="reader")["missingAction"], said["missingAction"]))
suite.ok("az rest has it too", lambda: equal(az("rest", "--method", "get", "--url", f"/providers/Castellan.Authorization/decisions/{correlation}?api-version=2026-01-01")["properties"]["action"], said["action"]))
suite.ok("castellan who-can", lambda: must({"Owner"} <= {w["roleName"] for w in own("who-can", said["action"], scope)} and reader not in [w["principalId"] for w in own("who-can", said["action"], scope)], "who can"))
suite.ok("what it proposes is enough", lambda: az("role", "assignment", "create", "--assignee-object-id", reader, "--assignee-principal-type", "ServicePrincipal", "--role", said["smallestRole"]["roleName"], "--scope", scope))
suite.ok("az group update then", lambda: equal(az("group", "update", "--name", "by-why", "--set", "tags.a=b", who="reader")["tags"], {"a": "b"}))
suite.ok("castellan why says that it changed", lambda: equal([own("why", correlation)[x] for x in ("decision", "changed")], ["refused", True]))
suite.ok("who-can lists them", lambda: must(reader in [w["principalId"] for w in own("who-can", said["action"], scope)], "not listed"))

events = suite.ok("activity-log list -g", lambda: log("--resource-group", "by-why")) or []
suite.ok("it has the refusal and the changes", lambda: must({("Failed", "Forbidden"), ("Succeeded", "OK")} <= {(e["status"]["value"], e["subStatus"]["value"]) for e in events}, events))
suite.ok("newest first", lambda: equal([e["eventTimestamp"] for e in events], sorted((e["eventTimestamp"] for e in events), reverse=True)))
suite.ok("no reads", lambda: equal([e["operationName"]["value"] for e in events if e["operationName"]["value"].endswith("/read")], []))
suite.ok("activity-log list --correlation-id", lambda: equal([[e["caller"], e["authorization"]["action"]] for e in log("--correlation-id", correlation)], [[reader, said["action"]]]))
suite.ok("activity-log list --resource-id", lambda: must(log("--resource-id", scope), "none"))
suite.ok("activity-log list --namespace", lambda: equal({e["resourceProviderName"]["value"] for e in log("--namespace", "Microsoft.Authorization")}, {"Microsoft.Authorization"}))
suite.ok("activity-log list --caller --status", lambda: equal({(e["caller"], e["status"]["value"]) for e in log("--caller", reader, "--status", "Failed")}, {(reader, "Failed")}))
suite.ok("activity-log list --select", lambda: must(all(e["caller"] and not e.get("claims") for e in log("--select", "caller", "status")), "more than was selected"))
(here / "empty.json").write_text(json.dumps({"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "contentVersion": "1.0.0.0", "resources": []}))
made = suite.ok("deployment group create", lambda: az("deployment", "group", "create", "--resource-group", "by-why", "--name", "long", "--template-file", str(here / "empty.json")))
suite.ok("what goes on has a beginning and an end of one correlation id", lambda: equal(
    [[e["eventName"]["value"], e["status"]["value"], e["operationName"]["value"]] for e in log("--correlation-id", made["properties"]["correlationId"])],
    [["EndRequest", "Succeeded", "Microsoft.Resources/deployments/write"], ["BeginRequest", "Started", "Microsoft.Resources/deployments/write"]]))
suite.ok("castellan why explains it", lambda: equal(own("why", made["properties"]["correlationId"].replace("-", ""))["decision"], "allowed"))
suite.ok("another group create", lambda: az("group", "create", "--name", "by-why-2", "--location", world.get("location", "local")))
suite.ok("who made it sees that", lambda: must("by-why-2" in {e["resourceGroupName"] for e in log()}, "no event"))
suite.ok("a reader of other groups sees the events of those", lambda: must("by-why" in (seen := {e["resourceGroupName"] for e in log(who="reader")}) and "by-why-2" not in seen, seen))
suite.finish()
