"""Roles for a time, by the Azure CLI and castellan's own commands: eligible, activated, given back, refused without a second factor, and approved by another."""

import json
import os
import pathlib
import re
import subprocess
import tempfile
import uuid

import requests
from checks import Suite, equal, load
from signin import Person

world = load("CASTELLAN_WORLD")
suite = Suite("pim")
here = pathlib.Path(tempfile.mkdtemp(prefix="castellan-pim-"))
az_program, own_program = os.environ["CASTELLAN_AZ"], os.environ["CASTELLAN_PROGRAM"]
scope = f"/subscriptions/{world['subscriptionId']}/resourceGroups/pim"
role = f"/subscriptions/{world['subscriptionId']}/providers/Microsoft.Authorization/roleDefinitions/b24988ac-6180-42a0-ab88-20f7382dd24c"
domain = world["admin"]["userName"].split("@")[1]
password = "Correct-Horse-Battery-7!"


def environment(who):
    """Everybody has folders of their own, signed in as themselves."""
    folder = here / who
    folder.mkdir(exist_ok=True)
    return {**os.environ, "AZURE_CONFIG_DIR": str(folder), "XDG_CONFIG_HOME": str(folder), "AZURE_CORE_COLLECT_TELEMETRY": "no", "AZURE_CORE_LOGIN_EXPERIENCE_V2": "off", "AZURE_CORE_NO_COLOR": "1"}


def run(program, *words, who="admin"):
    done = subprocess.run([program, *words, "--output", "json"], env=environment(who), capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise AssertionError(f"{words[:2]}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout) if done.stdout.strip() else None


def az(*words, who="admin"):
    return run(az_program, *words, who=who)


def by_device(*words, who="pia"):
    """A program says where to go and what to enter; a browser does."""
    running = subprocess.Popen(words, env=environment(who), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
    try:
        said = ""
        while not (where := re.search(r"(https://\S+) and enter the code (\S+)", said)):
            line = running.stderr.readline()
            if not line:
                raise AssertionError(f"it ended with {said!r}")
            said += line
        end = Person(f"{who}@{domain}", password, password).enter(where[1], where[2])
        _, err = running.communicate(timeout=30)
        if running.returncode:
            raise AssertionError(f"{err[-300:]} after the page said {end!r}")
    finally:
        if running.poll() is None:
            running.kill()


bearers = {}


def person_rest(method, path, version, body=None, who="pia"):
    """az rest as a person, whose profile knows no subscription before they have a role: so they hand over their token themselves."""
    if who not in bearers:
        bearers[who] = az("account", "get-access-token", "--tenant", world["tenantId"], who=who)["accessToken"]
    more = ["--body", json.dumps(body)] if body else []
    mark = "&" if "?" in path else "?"
    return az("rest", "--method", method, "--url", f"{world['armEndpoint']}{path}{mark}api-version={version}", *more, "--skip-authorization-header", "--headers", "Authorization=Bearer " + bearers[who], "Content-Type=application/json", who=who)


def wish(kind, request, principal, duration="PT1H"):
    """The path and body of a request for a schedule."""
    expiration = {"expiration": {"type": "AfterDuration", "duration": duration}}
    body = {"properties": {"principalId": principal, "roleDefinitionId": role, "requestType": request, "justification": "a check", "scheduleInfo": expiration}}
    return f"{scope}/providers/Microsoft.Authorization/{kind}ScheduleRequests/{uuid.uuid4()}", body


def make_eligible(principal):
    path, body = wish("roleEligibility", "AdminAssign", principal, "PT8H")
    return az("rest", "--method", "put", "--url", path + "?api-version=2020-10-01", "--body", json.dumps(body))["properties"]["status"]


def ask(request):
    path, body = wish("roleAssignment", request, person)
    return person_rest("put", path, "2020-10-01", body)["properties"]["status"]


def touch():
    return person_rest("patch", scope, "2021-04-01", {"tags": {"by": "pia"}})


def need(rule):
    """Changes a rule of the role's policy."""
    at = f"{scope}/providers/Microsoft.Authorization/roleManagementPolicyAssignments?api-version=2020-10-01"
    mine = [a["properties"]["policyId"] for a in az("rest", "--method", "get", "--url", at)["value"] if a["properties"]["roleDefinitionId"].endswith(role.rsplit("/", 1)[1])]
    return az("rest", "--method", "patch", "--url", mine[0] + "?api-version=2020-10-01", "--body", json.dumps({"properties": {"rules": [rule]}}))


def challenge():
    """What the refusal of an activation asks for, as a client reads it."""
    path, body = wish("roleAssignment", "SelfActivate", person)
    r = requests.put(f"{world['armEndpoint']}{path}?api-version=2020-10-01", json=body, headers={"Authorization": "Bearer " + bearers["pia"]}, timeout=30)
    equal(r.ok, False)
    asked = r.headers.get("WWW-Authenticate", "")
    equal("insufficient_claims" in asked and "claims=" in asked, True)


suite.ok("login", lambda: az("login", "--service-principal", "--username", world["admin"]["clientId"], "--password", world["admin"]["clientSecret"], "--tenant", world["tenantId"]))
suite.ok("account set, for other suites make subscriptions", lambda: az("account", "set", "--subscription", world["subscriptionId"]))
suite.ok("group create", lambda: az("group", "create", "--name", "pim", "--location", world.get("location", "local")))


def create(who):
    return az("ad", "user", "create", "--display-name", who.title(), "--user-principal-name", f"{who}@{domain}", "--password", password)["id"]


person = suite.ok("ad user create", lambda: create("pia"))
if not person:
    suite.finish()
suite.ok("make eligible", lambda: equal(make_eligible(person), "Provisioned"))
suite.ok("the person's login", lambda: by_device(az_program, "login", "--use-device-code", "--allow-no-subscriptions", "--tenant", world["tenantId"]))
suite.ok("castellan login by device code", lambda: by_device(own_program, "login", "--data", os.environ["CASTELLAN_DATA"]))
suite.ok("castellan pim eligible", lambda: equal([e["properties"]["principalId"] for e in run(own_program, "pim", "eligible", "--scope", scope, who="pia")], [person]))
suite.refused("what they are eligible for, not activated", touch, "AuthorizationFailed")
suite.ok("activate", lambda: equal(ask("SelfActivate"), "Provisioned"))
suite.ok("it is effective", lambda: equal(touch()["tags"], {"by": "pia"}))
suite.ok("castellan pim list", lambda: equal([e["properties"]["assignmentType"] for e in run(own_program, "pim", "list", "--scope", scope, who="pia")], ["Activated"]))
suite.ok("deactivate", lambda: ask("SelfDeactivate"))
suite.refused("what was given back", touch, "AuthorizationFailed")
suite.ok("castellan pim activate", lambda: equal(run(own_program, "pim", "activate", "Contributor", "--scope", scope, "--justification", "a check", who="pia")["properties"]["status"], "Provisioned"))
suite.ok("deactivate again", lambda: ask("SelfDeactivate"))
suite.ok("the policy asks for two kinds of factors", lambda: need({"id": "Enablement_EndUser_Assignment", "ruleType": "RoleManagementPolicyEnablementRule", "enabledRules": ["MultiFactorAuthentication", "Justification"]}))
suite.ok("an activation without is answered by a claims challenge", lambda: challenge())
suite.refused("castellan pim activate without a second factor", lambda: run(own_program, "pim", "activate", "Contributor", "--scope", scope, "--justification", "a check", who="pia"), "second factor")
suite.refused("what was not activated", touch, "AuthorizationFailed")
suite.ok("castellan login, which asks for the second factor then", lambda: by_device(own_program, "login", "--data", os.environ["CASTELLAN_DATA"]))
suite.ok("castellan pim activate with it", lambda: equal(run(own_program, "pim", "activate", "Contributor", "--scope", scope, "--justification", "a check", who="pia")["properties"]["status"], "Provisioned"))
suite.ok("that is effective", lambda: equal(touch()["tags"], {"by": "pia"}))
suite.ok("deactivate once more", lambda: ask("SelfDeactivate"))

# Another decides: an approver, by castellan's command and by Azure's own doors; nobody else, and never who asks.
approvals, preview = "/providers/Microsoft.Authorization/roleAssignmentApprovals", "2021-01-01-preview"


def waiting(who):
    """What waits for somebody's decision: the names of approvals."""
    mine = [a["name"] for a in run(own_program, "pim", "approve", who=who)]
    equal([a["name"] for a in person_rest("get", approvals + "?$filter=asApprover()", preview, who=who)["value"]], mine)
    return mine


def request():
    equal(run(own_program, "pim", "activate", "Contributor", "--scope", scope, "--justification", "a check", who="pia")["properties"]["status"], "PendingApproval")
    return waiting("ada")[0]


def decide(approval, who, *more):
    return run(own_program, "pim", "approve", "--request", approval, "--justification", "agreed", *more, who=who)["properties"]["reviewResult"]


def decide_by_az(approval, who, result, stage=None):
    at = f"{approvals}/{approval}/stages"
    stage = stage or person_rest("get", at, preview, who=who)["value"][0]["name"]
    return person_rest("patch", f"{at}/{stage}", preview, {"properties": {"reviewResult": result, "justification": "agreed"}}, who=who)["properties"]["reviewResult"]


def asks(approver):
    stage = {"approvalStageTimeOutInDays": 1, "isApproverJustificationRequired": True, "primaryApprovers": [{"id": approver, "userType": "User"}]}
    return need({"id": "Approval_EndUser_Assignment", "ruleType": "RoleManagementPolicyApprovalRule", "setting": {"isApprovalRequired": bool(approver), "approvalMode": "SingleStage", "approvalStages": [stage] if approver else []}})


others = suite.ok("an approver and a third person", lambda: {who: create(who) for who in ("ada", "tom")})
if others:
    for who in others:
        suite.ok(f"{who}'s login", lambda who=who: by_device(az_program, "login", "--use-device-code", "--allow-no-subscriptions", "--tenant", world["tenantId"], who=who))
        suite.ok(f"{who}'s castellan login", lambda who=who: by_device(own_program, "login", "--data", os.environ["CASTELLAN_DATA"], who=who))
    suite.ok("the policy asks for an approval", lambda: asks(others["ada"]))
    suite.ok("nothing waits yet", lambda: equal(waiting("ada"), []))
    approval = suite.ok("a request waits for the approver", request)
    if approval:
        stage = suite.ok("its stage", lambda: person_rest("get", f"{approvals}/{approval}/stages", preview, who="ada")["value"][0]["name"])
        suite.refused("what was not approved", touch, "AuthorizationFailed")
        for who in ("tom", "pia"):
            suite.ok(f"nothing waits for {who}", lambda who=who: equal(waiting(who), []))
            suite.refused(f"castellan pim approve by {who}", lambda who=who: decide(approval, who), "AuthorizationFailed", "NotFound")
            suite.refused(f"az rest by {who}", lambda who=who: decide_by_az(approval, who, "Approve", stage), "AuthorizationFailed", "NotFound")
        suite.refused("what others approved", touch, "AuthorizationFailed")
        suite.ok("castellan pim approve", lambda: equal(decide(approval, "ada"), "Approve"))
        suite.ok("what was approved is effective", lambda: equal(touch()["tags"], {"by": "pia"}))
        suite.refused("a second decision", lambda: decide_by_az(approval, "ada", "Deny", stage), "Conflict", "AuthorizationFailed", "RequestConflict")
        suite.ok("deactivate what was approved", lambda: ask("SelfDeactivate"))
    denied = suite.ok("another request", request)
    if denied:
        suite.ok("castellan pim approve --deny", lambda: equal(decide(denied, "ada", "--deny"), "Deny"))
        suite.refused("what was denied", touch, "AuthorizationFailed")
    third = suite.ok("a third request", request)
    if third:
        suite.ok("az rest approves", lambda: equal(decide_by_az(third, "ada", "Approve"), "Approve"))
        suite.ok("what az approved is effective", lambda: equal(touch()["tags"], {"by": "pia"}))
        suite.ok("deactivate that", lambda: ask("SelfDeactivate"))
    suite.ok("the policy asks for none any more", lambda: asks(None))

# An authentication context: castellan's own token is of none, but another can be had without asking the person.
graph = world["graphEndpoint"]
suite.ok("an authentication context", lambda: az("rest", "--method", "post", "--resource", graph, "--url", graph + "/v1.0/identity/conditionalAccess/authenticationContextClassReferences", "--body", json.dumps({"id": "c9", "displayName": "Activating", "description": "roles", "isAvailable": True})))
suite.ok("the policy asks for it", lambda: need({"id": "AuthenticationContext_EndUser_Assignment", "ruleType": "RoleManagementPolicyAuthenticationContextRule", "isEnabled": True, "claimValue": "c9"}))
suite.ok("castellan pim activate, which answers the challenge", lambda: equal(run(own_program, "pim", "activate", "Contributor", "--scope", scope, "--justification", "a check", who="pia")["properties"]["status"], "Provisioned"))
suite.finish()
