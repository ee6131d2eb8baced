"""azure-identity's and MSAL's credentials of every kind, and what Conditional Access makes of them."""

import datetime
import json
import os
import pathlib
import tempfile
import uuid

import jwt
import msal
import requests
from azure.identity import (
    AzureCliCredential,
    CertificateCredential,
    ClientAssertionCredential,
    ClientSecretCredential,
    OnBehalfOfCredential,
    UsernamePasswordCredential,
    WorkloadIdentityCredential,
)
from checks import Suite, equal, load, must
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509 import load_pem_x509_certificate
from signin import Person

world = load("CASTELLAN_WORLD")
suite = Suite("credentials")
here = pathlib.Path(tempfile.mkdtemp(prefix="castellan-credentials-"))
tenant, arm, graph = world["tenantId"], world["armEndpoint"], world["graphEndpoint"]
authority = world["loginEndpoint"]
known = {"authority": authority, "disable_instance_discovery": True}
SCOPE = arm + "/.default"
CLI = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"


def claims(token):
    return jwt.decode(token, options={"verify_signature": False})


def admin(method, path, body=None):
    bearer = ClientSecretCredential(tenant, world["admin"]["clientId"], world["admin"]["clientSecret"], **known).get_token(graph + "/.default").token
    r = requests.request(method, f"{graph}/v1.0/{path}", json=body, headers={"Authorization": "Bearer " + bearer}, timeout=30)
    if not r.ok:
        raise AssertionError(f"{method} {path}: {r.status_code} {r.text[:300]}")
    return r.json() if r.content else {}


def reads(credential):
    """The credential's token reads the group as whoever it is."""
    token = credential.get_token(SCOPE).token
    r = requests.get(f"{arm}{world['group']}?api-version=2021-04-01", headers={"Authorization": "Bearer " + token}, timeout=30)
    must(r.ok, f"{r.status_code} {r.text[:200]}")
    return claims(token)


# Secrets and certificates.
robot = world["robot"]
suite.ok("client secret", lambda: equal(reads(ClientSecretCredential(tenant, robot["clientId"], robot["clientSecret"], **known))["appidacr"], "1"))
suite.ok("certificate", lambda: equal(reads(CertificateCredential(tenant, robot["clientId"], certificate_path=robot["certificate"], **known))["appidacr"], "2"))


def bundle():
    pem = pathlib.Path(robot["certificate"]).read_bytes()
    key, cert = serialization.load_pem_private_key(pem, None), load_pem_x509_certificate(pem[pem.index(b"-----BEGIN CERT"):])
    return key, cert, pkcs12.serialize_key_and_certificates(b"robot", key, cert, None, serialization.BestAvailableEncryption(b"secret"))


suite.ok("certificate of a PFX", lambda: equal(reads(CertificateCredential(tenant, robot["clientId"], certificate_data=bundle()[2], password="secret", **known))["oid"], robot["objectId"]))
suite.refused("another's certificate", lambda: reads(CertificateCredential(tenant, world["reader"]["clientId"], certificate_path=robot["certificate"], **known)), "AADSTS700027")

# Federated credentials: a token of another issuer, whose keys the server was given.
issuer = load("CASTELLAN_FEDERATION")


def foreign(**more):
    now = datetime.datetime.now(datetime.timezone.utc)
    said = {"iss": issuer["issuer"], "sub": "system:serviceaccount:ml:trainer", "aud": "api://AzureADTokenExchange", "iat": now, "nbf": now, "exp": now + datetime.timedelta(minutes=10), "jti": str(uuid.uuid4())}
    return jwt.encode({**said, **more}, issuer["key"], algorithm="RS256", headers={"kid": issuer["kid"]})


suite.ok("federatedIdentityCredentials", lambda: admin("POST", f"applications/{robot['application']}/federatedIdentityCredentials", {"name": "cluster", "issuer": issuer["issuer"], "subject": "system:serviceaccount:ml:trainer", "audiences": ["api://AzureADTokenExchange"]}))
suite.ok("client assertion", lambda: equal(reads(ClientAssertionCredential(tenant, robot["clientId"], foreign, **known))["oid"], robot["objectId"]))
(here / "token").write_text(foreign())
suite.ok("workload identity", lambda: equal(reads(WorkloadIdentityCredential(tenant_id=tenant, client_id=robot["clientId"], token_file_path=str(here / "token"), **known))["oid"], robot["objectId"]))
suite.refused("another subject", lambda: reads(ClientAssertionCredential(tenant, robot["clientId"], lambda: foreign(sub="system:serviceaccount:ml:other"), **known)), "AADSTS700213", "AADSTS70021")
suite.refused("another audience", lambda: reads(ClientAssertionCredential(tenant, robot["clientId"], lambda: foreign(aud="api://else"), **known)), "AADSTS7002", "AADSTS70021")
suite.refused("an application that does not trust it", lambda: reads(ClientAssertionCredential(tenant, world["reader"]["clientId"], foreign, **known)), "AADSTS7002", "AADSTS70021", "AADSTS700027")


# A person, with a client of their own that calls an application, which calls on.
class Somebody:
    def __init__(self, name):
        self.name, self.password = f"{name}@{world['admin']['userName'].split('@')[1]}", "Correct-Horse-Battery-" + uuid.uuid4().hex[:8]
        made = admin("POST", "users", {"accountEnabled": True, "displayName": name, "mailNickname": name, "userPrincipalName": self.name, "passwordProfile": {"password": self.password, "forceChangePasswordNextSignIn": False}})
        self.id = made["id"]

    def by_device(self, client, scopes):
        app = msal.PublicClientApplication(client, authority=f"{authority}/{tenant}", instance_discovery=False, client_capabilities=["CP1"])
        flow = app.initiate_device_flow(scopes=scopes)
        must("user_code" in flow, flow)
        said = Person(self.name, self.password, self.password).enter(flow["verification_uri"], flow["user_code"])
        got = app.acquire_token_by_device_flow(flow)
        must("access_token" in got, f"{got.get('error_description')} after {said!r}")
        return app, got


ann = suite.ok("a person", lambda: Somebody("ann"))
if not ann:
    suite.finish()


def chain():
    api, name = admin("POST", "applications", {"displayName": "middle tier"}), str(uuid.uuid4())
    admin("PATCH", f"applications/{api['id']}", {"identifierUris": ["api://" + api["appId"]], "api": {"requestedAccessTokenVersion": 2, "oauth2PermissionScopes": [{"id": name, "value": "use", "type": "User", "isEnabled": True, "adminConsentDisplayName": "Use it", "adminConsentDescription": "Use it"}]}})
    secret = admin("POST", f"applications/{api['id']}/addPassword", {"passwordCredential": {"displayName": "clients"}})["secretText"]
    client = admin("POST", "applications", {"displayName": "front", "isFallbackPublicClient": True, "publicClient": {"redirectUris": ["http://localhost"]}})
    there = {a: admin("POST", "servicePrincipals", {"appId": a})["id"] for a in (api["appId"], client["appId"])}
    platform = admin("GET", "servicePrincipals?$filter=appId eq '797f4846-ba00-4fd7-ba43-dac1f8f63013'")["value"][0]["id"]
    for a, b, scope in ((there[client["appId"]], there[api["appId"]], "use"), (there[api["appId"]], platform, "user_impersonation")):
        admin("POST", "oauth2PermissionGrants", {"clientId": a, "resourceId": b, "consentType": "AllPrincipals", "scope": scope})
    return api["appId"], secret, client["appId"]


made = suite.ok("applications with scopes and consent", chain)
if made:
    api, secret, client = made
    got = suite.ok("device code for an application's scope", lambda: ann.by_device(client, [f"api://{api}/use"])[1])
    if got:
        suite.ok("the token says so", lambda: equal((claims(got["access_token"])["scp"], claims(got["access_token"])["aud"]), ("use", api)))
        behalf = OnBehalfOfCredential(tenant, api, client_secret=secret, user_assertion=got["access_token"], **known)
        suite.ok("on behalf of", lambda: equal(claims(behalf.get_token(SCOPE).token)["oid"], ann.id))
        suite.refused("on behalf of, with a token for somebody else", lambda: OnBehalfOfCredential(tenant, robot["clientId"], client_secret=robot["clientSecret"], user_assertion=got["access_token"], **known).get_token(SCOPE), "AADSTS50013", "AADSTS500131")

# Passwords from clients are refused until an administrator turns them on.
# MSAL remembers a refusal for a minute, so each try is with a new one.
def by_password():
    return claims(UsernamePasswordCredential(CLI, ann.name, ann.password, tenant_id=tenant, **known).get_token(SCOPE).token)


suite.refused("user name and password", by_password, "AADSTS70003", "unsupported_grant_type")
suite.ok("an administrator turns it on", lambda: admin("PATCH", "policies/passwordGrantPolicy", {"isEnabled": True, "allowedClients": [CLI]}))
suite.ok("user name and password, turned on", lambda: equal(by_password()["amr"], ["pwd"]))
suite.ok("turned off again", lambda: admin("PATCH", "policies/passwordGrantPolicy", {"isEnabled": False}))

# Conditional Access, as MSAL meets it.
signed = suite.ok("a person by device code", lambda: ann.by_device(CLI, [SCOPE]))
if signed:
    app, first = signed
    account = app.get_accounts()[0]
    policy = suite.ok("a policy that wants MFA", lambda: admin("POST", "identity/conditionalAccess/policies", {
        "displayName": "MFA for Resource Manager", "state": "enabled",
        "conditions": {"users": {"includeUsers": [ann.id]}, "applications": {"includeApplications": ["797f4846-ba00-4fd7-ba43-dac1f8f63013"]}, "clientAppTypes": ["all"]},
        "grantControls": {"operator": "OR", "builtInControls": ["mfa"]},
    }))

    def again():
        anew = msal.PublicClientApplication(CLI, authority=f"{authority}/{tenant}", instance_discovery=False, token_cache=app.token_cache)
        return anew.acquire_token_silent_with_error([SCOPE], account=account, force_refresh=True) or {}

    def silently():
        answer = app.acquire_token_silent_with_error([SCOPE], account=account, force_refresh=True)
        if "access_token" in answer:
            raise AssertionError("a token without MFA")
        equal(answer["error"], "interaction_required")
        must("AADSTS50076" in answer["error_description"] and "capolids" in answer.get("claims", ""), answer)

    suite.ok("acquire_token_silent says interaction_required with claims", silently)
    suite.ok("the sign-in log tells why", lambda: must(any(r["status"]["errorCode"] == 50076 and r["conditionalAccessStatus"] == "failure" for r in admin("GET", f"auditLogs/signIns?$filter=userId eq '{ann.id}'")["value"]), "no entry"))
    if policy:
        suite.ok("the policy deleted", lambda: admin("DELETE", "identity/conditionalAccess/policies/" + policy["id"]))
    suite.ok("acquire_token_silent again", lambda: must("access_token" in again(), "no token"))

    def call():
        r = requests.get(f"{arm}/subscriptions?api-version=2022-12-01", headers={"Authorization": "Bearer " + first["access_token"]}, timeout=30)
        must(r.ok, f"{r.status_code} {r.headers.get('WWW-Authenticate')}")

    suite.ok("the person's token", call)
    suite.ok("the person disabled", lambda: admin("PATCH", "users/" + ann.id, {"accountEnabled": False}))
    suite.refused("the token of somebody disabled", call, "401")
    suite.ok("no token is had any more", lambda: must("access_token" not in again(), "a token"))

# What az signed in for.
os.environ["PATH"] = str(pathlib.Path(os.environ["CASTELLAN_AZ"]).parent) + os.pathsep + os.environ["PATH"]
os.environ["AZURE_CONFIG_DIR"] = str(here / "az")


def by_az():
    import subprocess

    done = subprocess.run([os.environ["CASTELLAN_AZ"], "login", "--service-principal", "--username", robot["clientId"], "--password", robot["clientSecret"], "--tenant", tenant], capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    must(done.returncode == 0, done.stderr[-300:])
    return equal(claims(AzureCliCredential(tenant_id=tenant, process_timeout=60).get_token(SCOPE).token)["oid"], robot["objectId"])


suite.ok("az's sign-in", by_az)
suite.ok("the federated credential removed", lambda: [admin("DELETE", f"applications/{robot['application']}/federatedIdentityCredentials/{c['id']}") for c in admin("GET", f"applications/{robot['application']}/federatedIdentityCredentials")["value"]])
suite.refused("what it gave", lambda: reads(ClientAssertionCredential(tenant, robot["clientId"], foreign, **known)), "AADSTS7002", "AADSTS70021")
suite.finish()
