"""The directory by the Azure CLI: `az ad` for people, groups, applications and principals, each seen by what it does."""

import json
import os
import pathlib
import subprocess
import tempfile

import requests
from checks import Suite, equal, load, must

world = load("CASTELLAN_WORLD")
suite = Suite("ad")
here = pathlib.Path(tempfile.mkdtemp(prefix="castellan-ad-"))
domain = world["admin"]["userName"].split("@")[1]
graph, tenant = world["graphEndpoint"], world["tenantId"]
GRAPH, USERS, READ = "00000003-0000-0000-c000-000000000000", "df021288-bdef-4463-88db-98f22de89214", "e1fe6dd8-ba31-4d61-89e7-88639da4683d"


def az(*words, who="admin"):
    env = {**os.environ, "AZURE_CONFIG_DIR": str(here / who), "AZURE_CORE_COLLECT_TELEMETRY": "no", "AZURE_CORE_LOGIN_EXPERIENCE_V2": "off", "AZURE_CORE_NO_COLOR": "1"}
    done = subprocess.run([os.environ["CASTELLAN_AZ"], *words, "--output", "json"], env=env, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise AssertionError(f"{words[:3]}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout) if done.stdout.strip() else None


def ad(*words, who="admin"):
    return az("ad", *words, who=who)


def token(client, secret, scope=graph):
    r = requests.post(f"{world['loginEndpoint']}/{tenant}/oauth2/v2.0/token", timeout=30,
                      data={"grant_type": "client_credentials", "client_id": client, "client_secret": secret, "scope": scope + "/.default"})
    if not r.ok:
        raise AssertionError(r.text)
    return r.json()["access_token"]


def status(bearer, path, method="GET", body=None):
    return requests.request(method, f"{graph}/v1.0/{path}", json=body, headers={"Authorization": "Bearer " + bearer}, timeout=30).status_code


def rest(method, path, body=None):
    more = ["--body", json.dumps(body)] if body is not None else []
    return az("rest", "--method", method, "--resource", graph, "--url", f"{graph}/v1.0/{path}", *more)


suite.ok("login", lambda: az("login", "--service-principal", "--username", world["admin"]["clientId"], "--password", world["admin"]["clientSecret"], "--tenant", tenant))

# People.
name = "zoe@" + domain
zoe = suite.ok("user create", lambda: ad("user", "create", "--display-name", "Zoe", "--user-principal-name", name, "--password", "Correct-Horse-Battery-7!")["id"])
suite.ok("user list by a filter", lambda: equal([u["id"] for u in ad("user", "list", "--upn", name)], [zoe]))
suite.ok("user update", lambda: ad("user", "update", "--id", zoe, "--display-name", "Zoe Z"))
suite.ok("user show", lambda: equal(ad("user", "show", "--id", name)["displayName"], "Zoe Z"))
suite.refused("a user of another domain", lambda: ad("user", "create", "--display-name", "x", "--user-principal-name", "x@example.org", "--password", "Correct-Horse-Battery-7!"), "domain")
suite.refused("a weak password", lambda: ad("user", "create", "--display-name", "x", "--user-principal-name", "weak@" + domain, "--password", "x"), "password")

# Groups.
group = suite.ok("group create", lambda: ad("group", "create", "--display-name", "Zoo", "--mail-nickname", "zoo")["id"])
suite.ok("group member add", lambda: ad("group", "member", "add", "--group", group, "--member-id", zoe))
suite.ok("group member list", lambda: equal([m["id"] for m in ad("group", "member", "list", "--group", "Zoo")], [zoe]))
suite.ok("group member check", lambda: equal(ad("group", "member", "check", "--group", group, "--member-id", zoe), {"value": True}))
suite.ok("user get-member-groups", lambda: equal([g["id"] for g in ad("user", "get-member-groups", "--id", zoe)], [group]))
suite.ok("group get-member-groups", lambda: equal(ad("group", "get-member-groups", "--group", group), []))
suite.refused("a member twice", lambda: ad("group", "member", "add", "--group", group, "--member-id", zoe), "already exist")
suite.ok("group owner add", lambda: ad("group", "owner", "add", "--group", group, "--owner-object-id", zoe))
suite.ok("group owner list", lambda: equal([o["id"] for o in ad("group", "owner", "list", "--group", group)], [zoe]))
suite.ok("group member remove", lambda: ad("group", "member", "remove", "--group", group, "--member-id", zoe))
suite.ok("group member check after", lambda: equal(ad("group", "member", "check", "--group", group, "--member-id", zoe), {"value": False}))

# Applications and their principals.
app = suite.ok("app create", lambda: ad("app", "create", "--display-name", "Zebra")) or {}
client = app.get("appId")
suite.ok("app list by a name", lambda: equal([a["appId"] for a in ad("app", "list", "--display-name", "Zebra")], [client]))
suite.ok("app update", lambda: ad("app", "update", "--id", client, "--web-redirect-uris", "https://zebra.example/back"))
suite.ok("app show", lambda: equal(ad("app", "show", "--id", client)["web"]["redirectUris"], ["https://zebra.example/back"]))
suite.ok("app owner add", lambda: ad("app", "owner", "add", "--id", client, "--owner-object-id", zoe))
suite.ok("app owner list", lambda: equal([o["id"] for o in ad("app", "owner", "list", "--id", client)], [zoe]))
suite.ok("app owner remove", lambda: ad("app", "owner", "remove", "--id", client, "--owner-object-id", zoe))
principal = suite.ok("sp create", lambda: ad("sp", "create", "--id", client)["id"])
suite.ok("sp list by a filter", lambda: equal([p["id"] for p in ad("sp", "list", "--filter", f"appId eq '{client}'")], [principal]))
suite.ok("sp show", lambda: equal(ad("sp", "show", "--id", client)["id"], principal))
first = suite.ok("app credential reset", lambda: ad("app", "credential", "reset", "--id", client)["password"])
suite.ok("the secret works", lambda: token(client, first))
second = suite.ok("app credential reset again", lambda: ad("app", "credential", "reset", "--id", client)["password"])
suite.refused("the secret that was replaced", lambda: token(client, first), "AADSTS7000215")
suite.ok("app credential list", lambda: equal(len(ad("app", "credential", "list", "--id", client)), 1))
fic = {"name": "forge", "issuer": "https://forge.example", "subject": "repo:zoo", "audiences": ["api://AzureADTokenExchange"]}
suite.ok("app federated-credential create", lambda: ad("app", "federated-credential", "create", "--id", client, "--parameters", json.dumps(fic)))
suite.ok("app federated-credential list", lambda: equal([f["subject"] for f in ad("app", "federated-credential", "list", "--id", client)], ["repo:zoo"]))
suite.ok("app federated-credential delete", lambda: ad("app", "federated-credential", "delete", "--id", client, "--federated-credential-id", "forge"))

# Permissions of the directory: asked for, given, seen in the token and at the door, and taken away.
suite.ok("app permission add", lambda: ad("app", "permission", "add", "--id", client, "--api", GRAPH, "--api-permissions", USERS + "=Role", READ + "=Scope"))
suite.ok("app permission list", lambda: equal([x["id"] for a in ad("app", "permission", "list", "--id", client) for x in a["resourceAccess"] if x["type"] == "Role"], [USERS]))
bearer = token(client, second)
suite.ok("what it only asks for opens nothing", lambda: equal(status(bearer, "users"), 403))
suite.ok("app permission grant", lambda: ad("app", "permission", "grant", "--id", client, "--api", GRAPH, "--scope", "User.Read"))
suite.ok("app permission list-grants", lambda: equal([g["scope"] for g in ad("app", "permission", "list-grants", "--id", client)], ["User.Read"]))
suite.refused("a scope that is none", lambda: ad("app", "permission", "grant", "--id", client, "--api", GRAPH, "--scope", "No.Such.Scope"), "No.Such.Scope")
suite.refused("app permission admin-consent, which the CLI does in Microsoft's own cloud only", lambda: ad("app", "permission", "admin-consent", "--id", client), "sovereign")
api = suite.ok("the directory's own principal", lambda: ad("sp", "show", "--id", GRAPH)["id"])
given = suite.ok("an application permission", lambda: rest("post", f"servicePrincipals/{principal}/appRoleAssignments", {"principalId": principal, "resourceId": api, "appRoleId": USERS})["id"])
suite.ok("it opens its doors", lambda: equal([status(bearer, "users"), status(bearer, "groups"), status(bearer, "users/" + (zoe or "x"), "DELETE")], [200, 403, 403]))
suite.ok("login as the application", lambda: az("login", "--service-principal", "--username", client, "--password", second, "--tenant", tenant, "--allow-no-subscriptions", who="zebra"))
suite.ok("user show as the application", lambda: equal(ad("user", "show", "--id", name, who="zebra")["id"], zoe))
suite.refused("user delete as the application", lambda: ad("user", "delete", "--id", name, who="zebra"), "Insufficient privileges")
suite.refused("app create as the application", lambda: ad("app", "create", "--display-name", "foal", who="zebra"), "Insufficient privileges")
suite.ok("the permission is taken away", lambda: rest("delete", f"servicePrincipals/{principal}/appRoleAssignments/{given}"))
suite.ok("and ends with the next call", lambda: equal(status(bearer, "users"), 403))

# What is deleted is gone at once.
suite.ok("sp delete", lambda: ad("sp", "delete", "--id", principal))
suite.ok("its token is dead", lambda: equal(status(bearer, "me"), 401))
suite.ok("app delete", lambda: ad("app", "delete", "--id", client))
suite.refused("the application after", lambda: ad("app", "show", "--id", client), "does not exist")
suite.ok("user delete", lambda: ad("user", "delete", "--id", name))
suite.refused("the person after", lambda: ad("user", "show", "--id", name), "does not exist")
suite.ok("group delete", lambda: ad("group", "delete", "--group", group))
suite.refused("the group after", lambda: ad("group", "show", "--group", group), "does not exist", "No group")
audits = f"{graph}/v1.0/auditLogs/directoryAudits?$filter=category eq 'GroupManagement' and result eq 'success'"
suite.ok("rest lists the directory's audits", lambda: must(world["admin"]["objectId"] in {(a["initiatedBy"]["app"] or {}).get("servicePrincipalId") for a in az("rest", "--method", "get", "--url", audits)["value"] if a["operationType"] == "Add"}, "the group's making is not there"))
suite.finish()
