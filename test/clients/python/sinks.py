"""Logs that leave: az sets what is sent, and a storage account, rsyslog and OpenTelemetry's collector get it."""

import json
import os
import pathlib
import uuid

import requests
from azure.core.exceptions import ResourceNotFoundError
from azure.identity import ClientSecretCredential
from azure.storage.blob import ContainerClient
from azcli import az, login, together
from checks import Suite, equal, load, must, within

world = load("CASTELLAN_WORLD")
suite = Suite("sinks")
received = pathlib.Path(os.environ["CASTELLAN_SINKS"])
vault, account = world["vault"], world["storage"]
subscription = "/subscriptions/" + world["subscriptionId"]
secret = "kept-from-every-log-" + uuid.uuid4().hex
credential = ClientSecretCredential(world["tenantId"], world["admin"]["clientId"], world["admin"]["clientSecret"], authority=world["loginEndpoint"], disable_instance_discovery=True)
settings = ("monitor", "diagnostic-settings")
logs = json.dumps([{"categoryGroup": "audit", "enabled": True}])


def names(rows):
    return sorted(r["name"] for r in rows)


def syslog(name):
    """The records that rsyslog got, each with the head of its message."""
    for line in (received / ("received-" + name)).read_text().splitlines():
        pri, host, app, kind, message = line.split("|", 4)
        yield (pri, host, app, kind), json.loads(message)


def otlp():
    """The records that the collector got, each with its attributes."""
    for line in (received / "received-otlp").read_text().splitlines():
        for r in json.loads(line)["resourceLogs"]:
            for s in r["scopeLogs"]:
                for e in s["logRecords"]:
                    yield {a["key"]: a["value"]["stringValue"] for a in e["attributes"]}, json.loads(e["body"]["stringValue"])


def blobs(container):
    """The records that the storage account got."""
    client = ContainerClient(f"https://clientsacct.blob.{world['suffixes']['storage']}", container, credential=credential)
    try:
        for b in client.list_blobs():
            at = received / ("blob-" + uuid.uuid4().hex)
            at.write_bytes(client.download_blob(b.name).readall())
            yield from (json.loads(line) for line in at.read_text().splitlines())
    except ResourceNotFoundError:  # of the container: nothing came yet
        return


def find(rows, operation, caller, decision, target=""):
    """The record of what somebody did, once it is there."""
    def look():
        for r in rows():
            claims = r["identity"]["claims"]
            who = claims.get("http://schemas.microsoft.com/identity/claims/objectidentifier") or claims.get("appid")
            scope = r["identity"]["authorization"]["scope"].lower()
            if r["operationName"].lower() == operation.lower() and who == caller and r["properties"]["decision"] == decision and scope.startswith(target.lower()):
                return r
        return None
    r = within(20, look)
    equal(r["callerIpAddress"], "127.0.0.1")
    return r


if not suite.ok("login", lambda: together(lambda: login("admin"), lambda: login("reader", who="reader"))):
    suite.finish()

# What is sent where, by az.
suite.ok("diagnostic-settings categories list", lambda: equal(names(az(*settings, "categories", "list", "--resource", vault)["value"]), ["AuditEvent"]))
tls = (received / "rsyslog.conf").exists()
to = ("--storage-account", account, *(("--marketplace-partner-id", "/providers/Castellan.Insights/sinks/tls") if tls else ()))
if not tls:
    print("SKIP sinks: rsyslog: it is not installed")
made, below = suite.ok("diagnostic-settings create and subscription create", lambda: together(
    lambda: az(*settings, "create", "--name", "kept", "--resource", vault, "--logs", logs, *to),
    lambda: az(*settings, "subscription", "create", "--name", "all", "--location", "local", "--logs", json.dumps([{"category": "Administrative", "enabled": True}]), "--storage-account", account),
)) or ({}, {})
suite.ok("they say what was asked for", lambda: equal((made["storageAccountId"].lower(), made["logs"][0]["categoryGroup"], below["logs"][0]["category"]), (account.lower(), "audit", "Administrative")))
entra = world["armEndpoint"] + "/providers/microsoft.aadiam/diagnosticSettings/signins?api-version=2017-04-01"
sign_ins = json.dumps({"properties": {"storageAccountId": account, "logs": [{"category": c, "enabled": True} for c in ("AuditLogs", "ServicePrincipalSignInLogs")]}})
together(
    lambda: suite.ok("az rest sends the tenant's sign-ins", lambda: equal(az("rest", "--method", "put", "--url", entra, "--body", sign_ins)["name"], "signins")),
    lambda: suite.refused("a Reader of the subscription sends them", lambda: az("rest", "--method", "put", "--url", entra, "--body", sign_ins, who="reader"), "AuthorizationFailed"),
    lambda: suite.refused("a Reader's diagnostic-settings create", lambda: az(*settings, "create", "--name", "theirs", "--resource", vault, "--logs", logs, "--storage-account", account, who="reader"), "AuthorizationFailed"),
    lambda: suite.refused("logs of a vault to Log Analytics", lambda: az(*settings, "create", "--name", "la", "--resource", vault, "--logs", logs, "--workspace", world["group"] + "/providers/Microsoft.OperationalInsights/workspaces/la"), "Log Analytics workspaces collect nothing here"),
)

# What happens: a secret is set and read, by whoever may and by whoever may not; a role is given; somebody signs in.
item = ("--vault-name", "clients-kv", "--name", "watched")
suite.ok("keyvault secret set", lambda: az("keyvault", "secret", "set", *item, "--value", secret))
suite.ok("keyvault secret show and role assignment create", lambda: together(
    lambda: equal(az("keyvault", "secret", "show", *item)["value"], secret),
    lambda: suite.refused("a Reader's keyvault secret show", lambda: az("keyvault", "secret", "show", *item, who="reader"), "Forbidden"),
    lambda: az("role", "assignment", "create", "--assignee-object-id", world["stranger"]["objectId"], "--assignee-principal-type", "ServicePrincipal", "--role", "Tag Contributor", "--scope", account),
))
wrong = {"grant_type": "client_credentials", "client_id": world["robot"]["clientId"], "client_secret": secret, "scope": world["armEndpoint"] + "/.default"}
suite.ok("a wrong secret signs nobody in", lambda: equal(requests.post(f"{world['loginEndpoint']}/{world['tenantId']}/oauth2/v2.0/token", data=wrong, timeout=30).status_code, 401))

admin, reader = world["admin"]["objectId"], world["reader"]["objectId"]
READ, GIVE, SIGNIN = "Microsoft.KeyVault/vaults/secrets/getSecret/action", "Microsoft.Authorization/roleAssignments/write", "microsoft.directory/signIn"
everything = {"the collector": lambda: (r for _, r in otlp())}
if tls:
    everything["rsyslog by TCP"] = lambda: (r for _, r in syslog("tcp"))
for name, rows in everything.items():
    suite.ok(f"{name} gets a secret's read", lambda rows=rows: equal(find(rows, READ, admin, "allowed", vault)["resultType"], "Success"))
    suite.ok(f"{name} gets a refused read", lambda rows=rows: equal(find(rows, READ, reader, "refused", vault)["resultSignature"], "403"))
    suite.ok(f"{name} gets a role assignment", lambda rows=rows: find(rows, GIVE, admin, "allowed", account))
    suite.ok(f"{name} gets a sign-in", lambda rows=rows: find(rows, SIGNIN, admin, "allowed"))
    suite.ok(f"{name} gets a refused sign-in", lambda rows=rows: find(rows, SIGNIN, world["robot"]["clientId"], "refused"))
suite.ok("the collector gets attributes", lambda: must(any(a["azure.operation.name"] == READ and a["azure.category"] == "Audit" and a["cloud.resource_id"].lower() == f"{vault}/secrets/watched".lower() for a, _ in otlp()), "none has them"))
if tls:
    suite.ok("rsyslog by TLS gets a secret's read", lambda: find(lambda: (r for _, r in syslog("tls")), READ, admin, "allowed", vault))
    suite.ok("rsyslog by TLS gets a refused read", lambda: find(lambda: (r for _, r in syslog("tls")), READ, reader, "refused", vault))
    suite.ok("rsyslog by TLS gets the vault's log alone", lambda: equal({(r["resourceId"], r["category"]) for _, r in syslog("tls")}, {(vault.upper(), "AuditEvent")}))
    suite.ok("rsyslog reads the messages' heads", lambda: equal({h[1:] for h, _ in syslog("tls")}, {("castellan.localhost", "castellan", "AuditEvent")}))
    suite.ok("rsyslog gets what was refused as a warning, and the rest as informational", lambda: equal({(h[0], r["properties"]["decision"]) for h, r in syslog("tls")}, {("108", "refused"), ("110", "allowed")}))
suite.ok("the storage account gets the vault's log", lambda: find(lambda: blobs("insights-logs-auditevent"), READ, admin, "allowed", vault))
suite.ok("the storage account gets the subscription's log", lambda: find(lambda: blobs("insights-logs-administrative"), GIVE, admin, "allowed", account))
suite.ok("the storage account gets the tenant's refused sign-in", lambda: within(20, lambda: any(r["properties"]["appId"] == world["robot"]["clientId"] and r["resultType"] == "7000215" for r in blobs("insights-logs-serviceprincipalsigninlogs"))))
suite.ok("no log has the secret", lambda: must(not [p.name for p in received.iterdir() if secret in p.read_text()], "one has"))

# And no more.
deliveries = f"{world['armEndpoint']}{vault}/providers/Castellan.Insights/deliveries?api-version=2026-01-01"
suite.ok("diagnostic-settings list and show, and how the deliveries go", lambda: equal(together(
    lambda: names(az(*settings, "list", "--resource", vault)),
    lambda: az(*settings, "subscription", "show", "--name", "all")["name"],
    lambda: {d["properties"]["status"] for d in az("rest", "--method", "get", "--url", deliveries)["value"]},
), [["kept"], "all", {"Delivering"}]))
suite.ok("diagnostic-settings update, of a resource and of a subscription", lambda: equal(together(
    lambda: az(*settings, "update", "--name", "kept", "--resource", vault, "--set", "logs[0].enabled=false")["logs"][0]["enabled"],
    lambda: az(*settings, "subscription", "update", "--name", "all", "--logs", json.dumps([{"category": "Policy", "enabled": True}]))["logs"][0]["category"],
    lambda: suite.refused("a Reader's diagnostic-settings delete", lambda: az(*settings, "delete", "--name", "kept", "--resource", vault, who="reader"), "AuthorizationFailed"),
), [False, "Policy", None]))
suite.ok("diagnostic-settings delete, of a resource and of a subscription", lambda: together(
    lambda: az(*settings, "delete", "--name", "kept", "--resource", vault),
    lambda: az(*settings, "subscription", "delete", "--name", "all", "--yes"),
    lambda: az("rest", "--method", "delete", "--url", entra),
))
suite.ok("they are gone", lambda: equal(together(
    lambda: names(az(*settings, "list", "--resource", vault)),
    lambda: names(az(*settings, "subscription", "list")["value"]),
), [[], []]))
suite.finish()
