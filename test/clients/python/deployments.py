"""Deployments by az: to groups, subscriptions, management groups and the tenant."""

import json
import os
import pty
import subprocess
import uuid

from azcli import az, environment, here, login, program, world
from checks import Suite, equal, must

suite = Suite("deployments")
location, name = world.get("location", "local"), "by-deploying"
subscription = f"/subscriptions/{world['subscriptionId']}"
group, arm = f"{subscription}/resourceGroups/{name}", world["armEndpoint"]
root = f"/providers/Microsoft.Management/managementGroups/{world['tenantId']}"
schemas = "https://schema.management.azure.com/schemas/2019-04-01/"


def template(*resources, **more):
    """A file with a template of these resources."""
    path = here / f"{uuid.uuid4()}.json"
    path.write_text(json.dumps({"$schema": schemas + "deploymentTemplate.json#", "contentVersion": "1.0.0.0", **more, "resources": resources}))
    return str(path)


def identity(called, **more):
    return {"type": "Microsoft.ManagedIdentity/userAssignedIdentities", "apiVersion": "2023-01-31", "name": called, "location": location, **more}


def made(called, **more):
    return {"type": "Microsoft.Resources/resourceGroups", "apiVersion": "2024-03-01", "name": called, "location": "[deployment().location]", **more}


def nested(called, inner, **where):
    return {"type": "Microsoft.Resources/deployments", "apiVersion": "2022-09-01", "name": called, **where, "properties": {"mode": "Incremental", "expressionEvaluationOptions": {"scope": "inner"}, "template": json.loads(open(inner).read())}}


def role(called, principal, scope):
    """A role for an application; its id."""
    return az("role", "assignment", "create", "--assignee-object-id", principal, "--assignee-principal-type", "ServicePrincipal", "--role", called, "--scope", scope)["id"]


def names():
    return sorted(r["name"] for r in az("resource", "list", "--resource-group", name))


where = {"group": ("--resource-group", name), "sub": ("--location", location), "mg": ("--location", location, "--management-group-id", world["tenantId"]), "tenant": ("--location", location)}


def deploy(scope, called, file, *more, who="admin"):
    """az deployment SCOPE create; what came out."""
    return az("deployment", scope, "create", "--name", called, "--template-file", file, *where[scope], *more, who=who)["properties"]


def what_if(scope, file, *more, who="admin"):
    """az deployment SCOPE what-if; what would become of each resource."""
    found = az("deployment", scope, "what-if", "--name", "if", "--template-file", file, *where[scope], "--no-pretty-print", *more, who=who)
    return {c["resourceId"].split("/")[-1]: c for c in found["changes"]}


def types(changes):
    return {n: c["changeType"] for n, c in changes.items()}


def confirmed(answer, *words):
    """Runs az for a person at a terminal, who gives one answer; what az said."""
    theirs, ours = pty.openpty()
    os.write(theirs, answer.encode() + b"\n")
    done = subprocess.run([program, *words, "--output", "json"], env=environment("admin"), stdin=ours, capture_output=True, text=True, timeout=180)
    must(done.returncode == 0, done.stderr)
    return done.stdout


def succeeded(properties):
    return equal(properties["provisioningState"], "Succeeded")


if not suite.ok("login", lambda: login("admin")):
    suite.finish()
az("group", "create", "--name", name, "--location", location)

# A group: what the template lacks goes, in mode Complete, unless a lock holds it.
both = template(identity("stays"), identity("goes"), outputs={"id": {"type": "string", "value": "[resourceId('Microsoft.ManagedIdentity/userAssignedIdentities', 'stays')]"}})
one = template(identity("stays"), identity("new"))
suite.ok("group create", lambda: equal(deploy("group", "both", both)["outputs"]["id"]["value"], f"{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/stays"))
az("lock", "create", "--name", "held", "--lock-type", "CanNotDelete", "--resource-group", name, "--resource", "goes", "--resource-type", "Microsoft.ManagedIdentity/userAssignedIdentities")
suite.refused("group create --mode Complete over a lock", lambda: deploy("group", "complete", one, "--mode", "Complete"), "ScopeLocked")
suite.ok("nothing was made or deleted", lambda: equal(names(), ["goes", "stays"]))
az("lock", "delete", "--name", "held", "--resource-group", name, "--resource", "goes", "--resource-type", "Microsoft.ManagedIdentity/userAssignedIdentities")
suite.ok("group create --mode Complete", lambda: succeeded(deploy("group", "complete", one, "--mode", "Complete")))
suite.ok("what the template lacks is gone", lambda: equal(names(), ["new", "stays"]))
suite.ok("operation group list", lambda: equal(sorted(o["properties"]["provisioningOperation"] for o in az("deployment", "operation", "group", "list", "--resource-group", name, "--name", "complete")), ["Create", "Create", "Delete"]))
suite.ok("group export", lambda: equal(len(az("deployment", "group", "export", "--resource-group", name, "--name", "complete")["resources"]), 2))
suite.refused("group cancel of what is over", lambda: az("deployment", "group", "cancel", "--resource-group", name, "--name", "complete"), "DeploymentCannotBeCancelled")

# What-if tells what would become of each resource and property, and changes nothing.
other = template(identity("stays", tags={"a": "b"}), identity("third"))
told = suite.ok("group what-if", lambda: what_if("group", other)) or {}
suite.ok("it knows each resource", lambda: equal(types(told), {"stays": "Modify", "third": "Create", "new": "Ignore"}))
suite.ok("it knows each property", lambda: equal([(d["path"], d["propertyChangeType"], d["after"]) for d in told["stays"]["delta"]], [("tags.a", "Create", "b")]))
suite.ok("group what-if --mode Complete --result-format ResourceIdOnly", lambda: equal({n: (c["changeType"], c["after"]) for n, c in what_if("group", other, "--mode", "Complete", "--result-format", "ResourceIdOnly").items()}, {"stays": ("Deploy", None), "third": ("Create", None), "new": ("Delete", None)}))
create = ("deployment", "group", "create", "--resource-group", name, "--name", "asks", "--template-file", other, "--confirm-with-what-if")
suite.ok("group create --confirm-with-what-if, and no", lambda: must("1 to create, 1 to modify, 1 to ignore" in confirmed("n", *create), "no summary"))
suite.ok("nothing was deployed", lambda: equal(names(), ["new", "stays"]))
suite.ok("group create --confirm-with-what-if, and yes", lambda: must('"Succeeded"' in confirmed("y", *create), "it was not deployed"))
suite.ok("it was deployed", lambda: equal(types(what_if("group", other)), {"stays": "NoChange", "third": "NoChange", "new": "Ignore"}))
suite.ok("group validate", lambda: succeeded(az("deployment", "group", "validate", "--resource-group", name, "--template-file", other)["properties"]))

# Wider scopes: a subscription makes a group and fills it; above it, deployments are nested.
wide = template(made("by-sub"), nested("fills", template(identity("deep")), resourceGroup="by-sub", dependsOn=["by-sub"]), outputs={"at": {"type": "string", "value": "[subscription().id]"}})
suite.ok("sub what-if", lambda: equal(types(what_if("sub", wide)), {"by-sub": "Create", "deep": "Create"}))
suite.ok("sub create", lambda: equal(deploy("sub", "wide", wide)["outputs"]["at"]["value"], subscription))
suite.ok("the group is filled", lambda: equal([i["name"] for i in az("identity", "list", "--resource-group", "by-sub")], ["deep"]))
suite.ok("sub list", lambda: must("wide" in [d["name"] for d in az("deployment", "sub", "list")], "not listed"))
into = template(nested("into", template(made("by-mg")), subscriptionId=world["subscriptionId"], location=location))
az("rest", "--method", "post", "--url", f"{arm}/providers/Microsoft.Authorization/elevateAccess?api-version=2016-07-01")
suite.ok("an Owner at the root group", lambda: role("Owner", world["admin"]["objectId"], root))
suite.ok("mg what-if", lambda: equal(types(what_if("mg", into)), {"by-mg": "Create"}))
suite.ok("mg create", lambda: succeeded(deploy("mg", "wide", into)))
suite.ok("tenant what-if", lambda: equal(types(what_if("tenant", into)), {"by-mg": "NoChange"}))
suite.ok("tenant create", lambda: succeeded(deploy("tenant", "wide", into)))
suite.ok("tenant show", lambda: equal(az("deployment", "tenant", "show", "--name", "wide")["id"], "/providers/Microsoft.Resources/deployments/wide"))
suite.ok("operation tenant list", lambda: equal([o["properties"]["targetResource"]["resourceName"] for o in az("deployment", "operation", "tenant", "list", "--name", "wide")], ["into"]))

# A Contributor of the group deploys to it, and nothing that only others may do.
role("Contributor", world["reader"]["objectId"], group)
login("reader", who="contributor")
suite.ok("a Contributor's group create", lambda: succeeded(deploy("group", "theirs", one, who="contributor")))
more = template(identity("never"), nested("up", template(made("never")), subscriptionId=world["subscriptionId"], location=location))
suite.refused("a Contributor's group create that goes up", lambda: deploy("group", "up", more, who="contributor"), "InvalidTemplateDeployment")
suite.ok("nothing of it was made", lambda: must("never" not in names(), "it was made"))
for scope in ("sub", "mg", "tenant"):
    suite.refused(f"a Contributor's {scope} create", lambda scope=scope: deploy(scope, "theirs", into, who="contributor"), "AuthorizationFailed")
suite.refused("a Contributor's sub what-if", lambda: what_if("sub", into, who="contributor"), "AuthorizationFailed")
suite.refused("a Contributor's group what-if that goes up", lambda: what_if("group", more, who="contributor"), "InvalidTemplateDeployment")

az("role", "assignment", "delete", "--assignee", world["admin"]["clientId"], "--scope", root)
for g in ("by-sub", "by-mg", name):
    az("group", "delete", "--name", g, "--yes", "--no-wait")
suite.finish()
