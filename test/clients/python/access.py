"""Conditional Access between two tokens: claims challenges as azure-core, azure-identity, MSAL and az meet them, and answer them."""

import base64
import json
import os
import pathlib
import re
import subprocess
import tempfile
import uuid

import jwt
import msal
import requests
from azure.core.exceptions import ClientAuthenticationError
from azure.core.pipeline.policies import RetryPolicy
from azure.core.rest import HttpRequest
from azure.identity import AuthenticationRequiredError, ClientSecretCredential, DeviceCodeCredential
from azure.mgmt.core import ARMPipelineClient
from azure.mgmt.core.policies import ARMChallengeAuthenticationPolicy
from checks import Suite, equal, load, must
from signin import Person

world = load("CASTELLAN_WORLD")
suite = Suite("access")
here = pathlib.Path(tempfile.mkdtemp(prefix="castellan-access-"))
tenant, arm, graph, authority = world["tenantId"], world["armEndpoint"], world["graphEndpoint"], world["loginEndpoint"]
known = {"authority": authority, "disable_instance_discovery": True}
SCOPE = arm + "/.default"
CLI = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"
ARM_APP = "797f4846-ba00-4fd7-ba43-dac1f8f63013"
POLICIES, CONTEXTS = "identity/conditionalAccess/policies", "identity/conditionalAccess/authenticationContextClassReferences"
READER = "acdd72a7-3385-48ef-bd42-f606fba81ae7"


def said(token):
    return jwt.decode(token, options={"verify_signature": False})


def rest(base, method, path, body=None):
    bearer = ClientSecretCredential(tenant, world["admin"]["clientId"], world["admin"]["clientSecret"], **known).get_token(base + "/.default").token
    r = requests.request(method, base + path, json=body, headers={"Authorization": "Bearer " + bearer}, timeout=30)
    if not r.ok:
        raise AssertionError(f"{method} {path}: {r.status_code} {r.text[:300]}")
    return r.json() if r.content else {}


def admin(method, path, body=None):
    return rest(graph, method, "/v1.0/" + path, body)


def somebody(name):
    """A person who may read the group."""
    who = Person(f"{name}@{world['admin']['userName'].split('@')[1]}", "Correct-Horse-Battery-" + uuid.uuid4().hex[:8], "")
    who.id = admin("POST", "users", {"accountEnabled": True, "displayName": name, "mailNickname": name, "userPrincipalName": who.name, "passwordProfile": {"password": who.password, "forceChangePasswordNextSignIn": False}})["id"]
    rest(arm, "PUT", f"{world['group']}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}?api-version=2022-04-01", {"properties": {"roleDefinitionId": f"/subscriptions/{world['subscriptionId']}/providers/Microsoft.Authorization/roleDefinitions/{READER}", "principalId": who.id, "principalType": "User"}})
    return who


def policy(who, control, **apps):
    """A policy for one person; what takes it away."""
    made = admin("POST", POLICIES, {
        "displayName": f"{control} for {who.name}", "state": "enabled",
        "conditions": {"users": {"includeUsers": [who.id]}, "applications": apps or {"includeApplications": [ARM_APP]}, "clientAppTypes": ["all"]},
        "grantControls": {"operator": "OR", "builtInControls": [control]},
    })
    return lambda: admin("DELETE", f"{POLICIES}/{made['id']}")


class Client:
    """azure-mgmt-core's own pipeline, with azure-identity's credential."""

    def __init__(self, credential, cae):
        self.calls = ARMPipelineClient(arm, policies=[RetryPolicy(retry_total=0), ARMChallengeAuthenticationPolicy(credential, SCOPE, enable_cae=cae)])

    def read(self):
        answer = self.calls.send_request(HttpRequest("GET", f"{arm}{world['group']}?api-version=2021-04-01"))
        if answer.status_code >= 400:
            raise ClientAuthenticationError(f"{answer.status_code} {answer.headers.get('WWW-Authenticate')}")
        return answer.json()["name"]


def by_device(who, **more):
    """azure-identity asks for a device code, which the person enters at the sign-in page."""
    asked = []

    def prompt(uri, code, _):
        asked.append(who.enter(uri, code))

    return DeviceCodeCredential(CLI, tenant_id=tenant, prompt_callback=prompt, **known, **more), asked


# azure-identity and azure-mgmt-core: the step up happens by itself.
ann = suite.ok("a person", lambda: somebody("cae-ann"))
if not ann:
    suite.finish()
credential, asked = by_device(ann)
able = Client(credential, True)
suite.ok("a call with CAE", lambda: equal(able.read(), "clients"))
suite.ok("the token says that its client can answer", lambda: equal(said(credential.get_token(SCOPE, enable_cae=True).token).get("xms_cc"), ["cp1"]))
plain = Client(by_device(ann)[0], False)
suite.ok("a call without CAE", lambda: equal(plain.read(), "clients"))
away = suite.ok("a policy that wants MFA", lambda: policy(ann, "mfa"))
suite.refused("the next call without CAE, plainly", plain.read, 'error="invalid_token"')
suite.ok("the next call with CAE: challenged, stepped up and answered", lambda: equal((able.read(), len(asked)), ("clients", 2)))
suite.ok("the new token shows both factors", lambda: must("mfa" in said(credential.get_token(SCOPE, enable_cae=True).token)["amr"], "no mfa"))
suite.ok("and goes on", lambda: equal((able.read(), len(asked)), ("clients", 2)))
suite.ok("the sign-ins revoked", lambda: admin("POST", f"users/{ann.id}/revokeSignInSessions"))
suite.ok("the next call: challenged, signed in again and answered", lambda: equal((able.read(), len(asked)), ("clients", 3)))
if away:
    suite.ok("the policy deleted", away)

# Applications that ask by themselves when to bother the person.
bob = suite.ok("another person", lambda: somebody("cae-bob"))
if bob:
    credential, asked = by_device(bob, disable_automatic_authentication=True)
    suite.ok("authenticate", lambda: credential.authenticate(scopes=[SCOPE], enable_cae=True))
    able = Client(credential, True)
    suite.ok("a call", lambda: equal(able.read(), "clients"))
    away = suite.ok("a policy that wants MFA of them", lambda: policy(bob, "mfa"))

    def required():
        try:
            able.read()
        except AuthenticationRequiredError as e:
            must("nbf" in json.loads(e.claims)["access_token"], e.claims)
            must("AADSTS50076" in str(e), e)
            return e.claims
        raise AssertionError("no AuthenticationRequiredError")

    wanted = suite.ok("AuthenticationRequiredError with claims", required)
    suite.ok("authenticate with the claims", lambda: credential.authenticate(scopes=[SCOPE], claims=wanted, enable_cae=True))
    suite.ok("a call after the step up", lambda: equal((able.read(), len(asked)), ("clients", 2)))
    blocked = suite.ok("a policy that blocks", lambda: policy(bob, "block"))
    suite.refused("a call of somebody blocked", able.read, "AADSTS53003")
    for take in (blocked, away):
        if take:
            suite.ok("a policy deleted", take)
    suite.ok("a call as before", lambda: equal(able.read(), "clients"))

# Applications as themselves.
robot = world["robot"]
as_robot = ClientSecretCredential(tenant, robot["clientId"], robot["clientSecret"], **known)
machine = Client(as_robot, True)
suite.ok("an application's call with CAE", lambda: equal(machine.read(), "clients"))
suite.ok("its token says so", lambda: equal(said(as_robot.get_token(SCOPE, enable_cae=True).token).get("xms_cc"), ["cp1"]))
suite.ok("the application disabled", lambda: admin("PATCH", f"servicePrincipals/{robot['objectId']}", {"accountEnabled": False}))
suite.refused("its call: challenged, and no other token to be had", machine.read, "AADSTS7000112")
suite.ok("the application enabled again", lambda: admin("PATCH", f"servicePrincipals/{robot['objectId']}", {"accountEnabled": True}))

# MSAL by the browser: authentication contexts.
carl = suite.ok("a third person", lambda: somebody("cae-carl"))
if carl:
    app = msal.PublicClientApplication(CLI, authority=f"{authority}/{tenant}", instance_discovery=False, client_capabilities=["CP1"])

    def browser(claims=None):
        flow = app.initiate_auth_code_flow([SCOPE], redirect_uri="http://localhost:8400", claims_challenge=claims)
        got = app.acquire_token_by_auth_code_flow(flow, carl.sign_in(flow["auth_uri"]))
        must("access_token" in got, got)
        return said(got["access_token"])

    suite.ok("acquire_token_by_auth_code_flow", lambda: equal((browser().get("acrs"), browser().get("xms_cc")), (None, ["cp1"])))
    suite.ok("an authentication context", lambda: admin("POST", CONTEXTS, {"id": "c7", "displayName": "Deleting", "description": "deletes", "isAvailable": True}))
    gone = suite.ok("a policy for it", lambda: policy(carl, "mfa", includeAuthenticationContextClassReferences=["c7"]))
    context = json.dumps({"access_token": {"acrs": {"essential": True, "value": "c7"}}})

    def silently():
        got = app.acquire_token_silent_with_error([SCOPE], account=app.get_accounts()[0], claims_challenge=context)
        equal((got.get("error"), got.get("suberror"), "access_token" in got), ("interaction_required", "basic_action", False))
        return got["claims"]

    more = suite.ok("acquire_token_silent with the context says interaction_required with claims", silently)
    suite.ok("a sign-in with those claims", lambda: equal(browser(more)["acrs"], ["c7"]))
    suite.ok("acquire_token_silent with the context then", lambda: equal(said(app.acquire_token_silent([SCOPE], account=app.get_accounts()[0], claims_challenge=context)["access_token"])["acrs"], ["c7"]))
    suite.ok("a sign-in without", lambda: equal(browser().get("acrs"), None))
    suite.refused("a context that there is not", lambda: browser(context.replace("c7", "c8")), "no authentication context of the tenant")
    if gone:
        suite.ok("that policy deleted", gone)
    suite.ok("the context deleted", lambda: admin("DELETE", CONTEXTS + "/c7"))

# az, which can answer challenges too, and says with what command.
environment = {**os.environ, "AZURE_CONFIG_DIR": str(here / "az"), "AZURE_CORE_COLLECT_TELEMETRY": "no", "AZURE_CORE_LOGIN_EXPERIENCE_V2": "off", "AZURE_CORE_NO_COLOR": "1"}


def az(*words, who="az"):
    """az's output, or an error with all that it says. It remembers refusals for a minute, but in who's own folder."""
    done = subprocess.run([os.environ["CASTELLAN_AZ"], *words], env={**environment, "AZURE_CONFIG_DIR": str(here / who)}, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise AssertionError(done.stderr[-3000:])
    return done.stdout


def az_login(who, *words):
    """az says where to go and what to enter; a browser does."""
    running = subprocess.Popen([os.environ["CASTELLAN_AZ"], "login", "--use-device-code", "--tenant", tenant, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
    try:
        text = ""
        while not (where := re.search(r"(https://\S+) and enter the code (\S+)", text)):
            line = running.stderr.readline()
            must(line, f"it ended with {text!r}")
            text += line
        end = who.enter(where[1], where[2])
        _, err = running.communicate(timeout=60)
        must(running.returncode == 0, f"{err[-300:]} after the page said {end!r}")
    finally:
        if running.poll() is None:
            running.kill()


group = ("group", "show", "--name", "clients", "--output", "json")
dora = suite.ok("a fourth person", lambda: somebody("cae-dora"))
if dora:
    suite.ok("az login", lambda: az_login(dora))
    suite.ok("az group show", lambda: equal(json.loads(az(*group))["name"], "clients"))
    stays = suite.ok("a policy that wants MFA of them too", lambda: policy(dora, "mfa"))

    def command():
        """The challenge that az says how to answer."""
        try:
            az(*group)
        except AssertionError as e:
            given = re.search(r'--claims-challenge "?([A-Za-z0-9+/=]+)', str(e))
            must(given, e)
            must("nbf" in base64.b64decode(given[1]).decode(), given[1])
            return given[1]
        raise AssertionError("az was let in")

    given = suite.ok("az is challenged, and says the command that answers", command)
    suite.ok("that command", lambda: az_login(dora, "--claims-challenge", given))
    suite.ok("az group show after it", lambda: equal(json.loads(az(*group))["name"], "clients"))
    suite.ok("passwords from az allowed", lambda: admin("PATCH", "policies/passwordGrantPolicy", {"isEnabled": True, "allowedClients": [CLI]}))
    suite.refused("az login with a password, where MFA is wanted", lambda: az("login", "--username", dora.name, "--password", dora.password, "--tenant", tenant), "AADSTS50076")
    shut = suite.ok("a policy that blocks them", lambda: policy(dora, "block"))
    suite.refused("az login with a password, where a policy blocks", lambda: az("login", "--username", dora.name, "--password", dora.password, "--tenant", tenant, who="az2"), "AADSTS53003")
    suite.ok("passwords from az forbidden", lambda: admin("PATCH", "policies/passwordGrantPolicy", {"isEnabled": False}))
    suite.refused("az group show, where a policy blocks", lambda: az(*group), "claims-challenge", "AADSTS53003")
    for take in (shut, stays):
        if take:
            suite.ok("one of their policies deleted", take)
suite.finish()
