"""Makes what the suites share: people's applications with their roles, and a workspace.

It speaks plain HTTP, for it is no test of a client; the suites are.
"""

import base64
import datetime
import json
import os
import uuid

import jwt
import requests
from checks import Suite, load, within
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from signin import Person

READER = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
SCIENTIST = "f6c7c914-8db3-469d-8ca1-694a8f32e121"
BLOB_CONTRIBUTOR = "ba92f5b4-2d11-453d-a403-e96b0029c9fe"
VAULT_ADMINISTRATOR = "00482a5a-887f-4fb3-b363-3b7fe8e74483"

ready = load("CASTELLAN_READY")
suite = Suite("world")
arm, graph = ready["armEndpoint"], ready["graphEndpoint"]
group = f"/subscriptions/{ready['subscriptionId']}/resourceGroups/clients"
providers = group + "/providers"
ids = {
    "group": group,
    "storage": providers + "/Microsoft.Storage/storageAccounts/clientsacct",
    "vault": providers + "/Microsoft.KeyVault/vaults/clients-kv",
    "workspace": providers + "/Microsoft.MachineLearningServices/workspaces/lab",
}
versions = {
    "Microsoft.Storage": "2025-08-01",
    "Microsoft.KeyVault": "2026-02-01",
    "Microsoft.MachineLearningServices": "2024-10-01",
    "Microsoft.Authorization": "2022-04-01",
}


def token(scope, client=None):
    client = client or ready["admin"]
    r = requests.post(
        f"{ready['loginEndpoint']}/{ready['tenantId']}/oauth2/v2.0/token",
        data={
            "grant_type": "client_credentials",
            "client_id": client["clientId"],
            "client_secret": client["clientSecret"],
            "scope": scope + "/.default",
        },
        timeout=30,
    )
    if not r.ok:
        raise AssertionError(f"no token: {r.status_code} {r.text[:300]}")
    return r.json()["access_token"]


def claim(token, name):
    return jwt.decode(token, options={"verify_signature": False})[name]


def call(method, url, bearer, body=None):
    r = requests.request(method, url, json=body, headers={"Authorization": "Bearer " + bearer}, timeout=60)
    if not r.ok:
        raise AssertionError(f"{method} {url}: {r.status_code} {r.text[:300]}")
    return r.json() if r.content else {}


def put(path, body):
    """PUT, and wait until the resource is as wished."""
    provider = path.split("/providers/")[-1].split("/")[0] if "/providers/" in path else ""
    url = f"{arm}{path}?api-version={versions.get(provider, '2024-11-01')}"
    bearer = token(arm)
    call("PUT", url, bearer, body)

    def done():
        now = call("GET", url, bearer)
        state = now.get("properties", {}).get("provisioningState", "Succeeded")
        if state in ("Failed", "Canceled"):
            raise AssertionError(f"{path}: {state} {now}")
        return now if state == "Succeeded" else None

    return within(60, done)


def assign(role, principal, scope):
    name = str(uuid.uuid4())
    put(
        f"{scope}/providers/Microsoft.Authorization/roleAssignments/{name}",
        {
            "properties": {
                "roleDefinitionId": f"/subscriptions/{ready['subscriptionId']}/providers/Microsoft.Authorization/roleDefinitions/{role}",
                "principalId": principal,
                "principalType": "ServicePrincipal",
            }
        },
    )


def application(name, secret=True):
    """An application, with a secret if it has one, and its service principal."""
    bearer = token(graph)
    app = call("POST", graph + "/v1.0/applications", bearer, {"displayName": name})
    principal = call("POST", graph + "/v1.0/servicePrincipals", bearer, {"appId": app["appId"]})
    if secret:
        secret = call("POST", f"{graph}/v1.0/applications/{app['id']}/addPassword", bearer, {"passwordCredential": {"displayName": "clients"}})["secretText"]
    return {
        "objectId": principal["id"],
        "application": app["id"],
        "clientId": app["appId"],
        "clientSecret": secret or "",
    }


def certificate(app):
    """Gives the application a certificate; the path of the file with its key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    now = datetime.datetime.now(datetime.timezone.utc)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "clients")])
    cert = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1)).sign(key, hashes.SHA256())
    )
    der = base64.b64encode(cert.public_bytes(serialization.Encoding.DER)).decode()
    call(
        "PATCH", f"{graph}/v1.0/applications/{app['application']}", token(graph),
        {"keyCredentials": [{"type": "AsymmetricX509Cert", "usage": "Verify", "key": der, "displayName": "clients"}]},
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return keep("robot.pem", pem + cert.public_bytes(serialization.Encoding.PEM))


def keep(name, what):
    """The path of a file beside the world's."""
    path = os.path.join(os.path.dirname(os.environ["CASTELLAN_WORLD"]), name)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as f:
        f.write(what)
    return path


def federated():
    """An application without credentials, and the file of a cluster's token that it trusts."""
    issuer, now, subject = load("CASTELLAN_FEDERATION"), datetime.datetime.now(datetime.timezone.utc), "system:serviceaccount:ml:shared"
    app = application("federated", secret=False)
    call("POST", f"{graph}/v1.0/applications/{app['application']}/federatedIdentityCredentials", token(graph), {"name": "shared", "issuer": issuer["issuer"], "subject": subject, "audiences": ["api://AzureADTokenExchange"]})
    said = {"iss": issuer["issuer"], "sub": subject, "aud": "api://AzureADTokenExchange", "iat": now, "nbf": now, "exp": now + datetime.timedelta(hours=2)}
    return {**app, "assertion": keep("cluster.jwt", jwt.encode(said, issuer["key"], algorithm="RS256", headers={"kid": issuer["kid"]}).encode())}


def behalf():
    """An application with a scope, and the file of a person's token for it, who signed in by device code."""
    bearer, scope = token(graph), str(uuid.uuid4())
    app = application("shared middle tier")
    call("PATCH", f"{graph}/v1.0/applications/{app['application']}", bearer, {"api": {"requestedAccessTokenVersion": 2, "oauth2PermissionScopes": [{"id": scope, "value": "use", "type": "User", "isEnabled": True, "adminConsentDisplayName": "Use it", "adminConsentDescription": "Use it"}]}, "identifierUris": ["api://" + app["clientId"]]})
    front = call("POST", graph + "/v1.0/applications", bearer, {"displayName": "shared front", "isFallbackPublicClient": True, "publicClient": {"redirectUris": ["http://localhost"]}})
    there = call("POST", graph + "/v1.0/servicePrincipals", bearer, {"appId": front["appId"]})["id"]
    platform = call("GET", graph + "/v1.0/servicePrincipals?$filter=appId eq '797f4846-ba00-4fd7-ba43-dac1f8f63013'", bearer)["value"][0]["id"]
    for client, resource, value in ((there, app["objectId"], "use"), (app["objectId"], platform, "user_impersonation")):
        call("POST", graph + "/v1.0/oauth2PermissionGrants", bearer, {"clientId": client, "resourceId": resource, "consentType": "AllPrincipals", "scope": value})
    name, password = "shared@" + ready["admin"]["userName"].split("@")[1], "Correct-Horse-Battery-" + uuid.uuid4().hex[:8]
    person = call("POST", graph + "/v1.0/users", bearer, {"accountEnabled": True, "displayName": "Shared", "mailNickname": "shared", "userPrincipalName": name, "passwordProfile": {"password": password, "forceChangePasswordNextSignIn": False}})
    login = f"{ready['loginEndpoint']}/{ready['tenantId']}/oauth2/v2.0/"
    device = requests.post(login + "devicecode", data={"client_id": front["appId"], "scope": f"api://{app['clientId']}/use"}, timeout=30).json()
    said = Person(name, password, password).enter(device["verification_uri"], device["user_code"])
    got = requests.post(login + "token", data={"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "client_id": front["appId"], "device_code": device["device_code"]}, timeout=30).json()
    if "access_token" not in got:
        raise AssertionError(f"{got.get('error_description')} after {said!r}")
    return {**app, "person": person["id"], "assertion": keep("person.jwt", got["access_token"].encode())}


world = {**ready, **ids}
world["admin"] = {**ready["admin"], "objectId": suite.ok("the administrator signs in", lambda: claim(token(arm), "oid"))}
for who in ("reader", "scientist", "stranger", "robot"):
    world[who] = suite.ok(f"application of the {who}", lambda: application(who)) or dict.fromkeys(("objectId", "clientId", "clientSecret"), "")
world["federated"] = suite.ok("an application that trusts a cluster's tokens", federated) or {}
world["behalf"] = suite.ok("a person's token for an application", behalf) or {}
world["robot"]["certificate"] = suite.ok("certificate of the robot", lambda: certificate(world["robot"])) or ""

place = {"location": ready.get("location", "local")}
suite.ok("resource group", lambda: put(group, place))
suite.ok("storage account", lambda: put(ids["storage"], {**place, "kind": "StorageV2", "sku": {"name": "Standard_LRS"}, "properties": {}}))
suite.ok("key vault", lambda: put(ids["vault"], {**place, "properties": {"tenantId": ready["tenantId"], "sku": {"family": "A", "name": "standard"}, "enableRbacAuthorization": True}}))
lab = suite.ok("workspace", lambda: put(ids["workspace"], {**place, "identity": {"type": "SystemAssigned"}, "properties": {"storageAccount": ids["storage"], "keyVault": ids["vault"], "friendlyName": "lab"}}))
suite.ok("cluster", lambda: put(ids["workspace"] + "/computes/cpu", {**place, "properties": {"computeType": "AmlCompute", "properties": {"vmSize": "Standard_DS1_v2", "scaleSettings": {"minNodeCount": 0, "maxNodeCount": 1, "nodeIdleTimeBeforeScaleDown": "PT120S"}}}}))
world["tracking"] = lab["properties"]["mlFlowTrackingUri"].replace("azureml://", "https://") if lab else ""

suite.ok("roles", lambda: [
    assign(READER, world["reader"]["objectId"], group),
    assign(READER, world["robot"]["objectId"], group),
    assign(SCIENTIST, world["scientist"]["objectId"], ids["workspace"]),
    assign(BLOB_CONTRIBUTOR, world["admin"]["objectId"], group),
    assign(VAULT_ADMINISTRATOR, world["admin"]["objectId"], group),
])
with open(os.open(os.environ["CASTELLAN_WORLD"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
    json.dump(world, f)
suite.finish()
