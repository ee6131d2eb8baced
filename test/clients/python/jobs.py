"""Identities where jobs run: azure-identity and azure-ai-ml's own credential, unmodified, inside a job's sandbox.

The code folder of the jobs is this virtual environment in one archive: a sandbox sees
the system's Python and nothing of the user's.
"""

import contextlib
import hashlib
import io
import logging
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import uuid

import requests
from azure.ai.ml import MLClient, UserIdentityConfiguration, command
from azure.ai.ml.entities import AmlCompute, Environment, IdentityConfiguration
from azure.identity import ClientSecretCredential, DeviceCodeCredential
from checks import Suite, load
from signin import Person

logging.disable(logging.WARNING)
world, ready = load("CASTELLAN_WORLD"), load("CASTELLAN_READY")
suite = Suite("jobs")
HOST = Environment(image="castellan.local/host:1")
SYSTEM = "/usr/bin/python3"
WORKSPACE = f"/subscriptions/{world['subscriptionId']}/resourceGroups/clients/providers/Microsoft.MachineLearningServices/workspaces/lab"
STORAGE = f"/subscriptions/{world['subscriptionId']}/resourceGroups/clients/providers/Microsoft.Storage/storageAccounts/clientsacct"
VAULT = f"/subscriptions/{world['subscriptionId']}/resourceGroups/clients/providers/Microsoft.KeyVault/vaults/clients-kv"
SECRETS_USER, SCIENTIST, BLOB_READER = "4633458b-17de-408a-b874-0445c86b69e6", "f6c7c914-8db3-469d-8ca1-694a8f32e121", "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1"

IN_JOB = '''
import base64, hashlib, json, os, sys
from azure.identity import DefaultAzureCredential, ManagedIdentityCredential
from azure.storage.blob import BlobServiceClient

def oid(token):
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["oid"]

def said(name, do):
    try:
        print("said", name, do(), flush=True)
    except Exception as e:
        print("said", name, "ERROR", type(e).__name__, " ".join(str(e).split())[:300], flush=True)

scope, blobs = "https://storage.azure.com/.default", sys.argv[2]
def listed(credential):
    return len([c.name for c in BlobServiceClient(blobs, credential=credential).list_containers()]) > 0

if sys.argv[1] == "managed":
    said("app-service", lambda: oid(ManagedIdentityCredential().get_token(scope).token))
    said("default", lambda: oid(DefaultAzureCredential().get_token(scope).token))
    said("default-client-id", lambda: oid(ManagedIdentityCredential(client_id=os.environ["DEFAULT_IDENTITY_CLIENT_ID"]).get_token(scope).token))
    said("containers", lambda: listed(ManagedIdentityCredential()))
    try:
        from azure.keyvault.secrets import SecretClient
        vault = SecretClient(sys.argv[3], ManagedIdentityCredential())
        value = vault.get_secret("for-jobs").value
    except Exception as e:
        vault, value = None, f"{type(e).__name__} {' '.join(str(e).split())[:300]}"
    said("secret", lambda: value)
    said("secret-digest", lambda: hashlib.sha256(value.encode()).hexdigest())
    said("secret-in-base64", lambda: base64.b64encode(b"x" + value.encode()).decode())
    print("said secret-in-pieces ", end="", flush=True)
    for c in value:
        print(c, end="", flush=True)
    print(flush=True)
    said("secret-set", lambda: vault.set_secret("made-by-a-job", "x").id)
    said("others", lambda: oid(ManagedIdentityCredential(client_id="00000000-1111-2222-3333-444444444444").get_token(scope).token))
    for name in ("IDENTITY_ENDPOINT", "IDENTITY_HEADER"):
        del os.environ[name]
    said("azure-ml", lambda: oid(ManagedIdentityCredential().get_token(scope).token))
    for name in ("MSI_ENDPOINT", "MSI_SECRET"):
        del os.environ[name]
    said("imds", lambda: oid(ManagedIdentityCredential().get_token(scope).token))
    said("imds-default", lambda: oid(DefaultAzureCredential().get_token(scope).token))
else:
    from azure.ai.ml.identity import AzureMLOnBehalfOfCredential
    said("on-behalf", lambda: oid(AzureMLOnBehalfOfCredential().get_token(scope).token))
    said("containers", lambda: listed(AzureMLOnBehalfOfCredential()))
    said("graph", lambda: oid(AzureMLOnBehalfOfCredential().get_token("https://graph.microsoft.com/.default").token))
'''


def quiet(do):
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(io.StringIO()):
        return do(), text.getvalue()


def code_folder():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="castellan-jobs-")) / "code"
    folder.mkdir()
    packages = next(p for p in map(pathlib.Path, sys.path) if p.name == "site-packages")
    skip = {"__pycache__", "pip", "setuptools", "tests", "test"}
    with tarfile.open(folder / "packages.tar", "w") as archive:
        for entry in sorted(packages.iterdir()):
            archive.add(entry, entry.name, filter=lambda i: None if skip & set(i.name.split("/")) else i)
        # azure-keyvault-secrets, which azure-ai-ml does not need itself.
        archive.add(pathlib.Path(sys.prefix).parent / "management" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages" / "azure" / "keyvault", "azure/keyvault")
    (folder / "inside.py").write_text(IN_JOB)
    return folder


def call(method, url, token, body=None):
    answer = requests.request(method, url, json=body, headers={"Authorization": "Bearer " + token}, timeout=60)
    if not answer.ok:
        raise AssertionError(f"{method} {url}: {answer.status_code} {answer.text[:300]}")
    return answer.json()


def give(role, scope, principal, kind):
    name = f"{world['armEndpoint']}{scope}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}?api-version=2022-04-01"
    properties = {"roleDefinitionId": f"/subscriptions/{world['subscriptionId']}/providers/Microsoft.Authorization/roleDefinitions/{role}", "principalId": principal, "principalType": kind}
    call("PUT", name, token(world["armEndpoint"]), {"properties": properties})


credential = ClientSecretCredential(world["tenantId"], world["admin"]["clientId"], world["admin"]["clientSecret"], authority=world["loginEndpoint"], disable_instance_discovery=True)
admin = MLClient(credential, world["subscriptionId"], "clients", "lab", enable_telemetry=False)


def token(audience):
    return credential.get_token(audience + "/.default").token


def work(client, how, **more):
    """Runs a job; what it said, by name."""
    line = f"mkdir p && tar xf packages.tar -C p && PYTHONPATH=p PYTHONDONTWRITEBYTECODE=1 {SYSTEM} inside.py {how} https://clientsacct.{ready['suffixes']['blob']}/ https://clients-kv.{ready['suffixes']['vault']}/"
    run = quiet(lambda: client.jobs.create_or_update(command(code=str(folder), command=line, environment=HOST, compute="mi", **more)))[0]
    log = quiet(lambda: client.jobs.stream(run.name))[1]
    found = dict(l.split(" ", 2)[1:] for l in log.splitlines() if l.startswith("said "))
    if not found:
        raise AssertionError(f"the job said nothing: {log[-500:]}")
    return found


def check(name, said, want):
    def look():
        got = (said or {}).get(name)
        if got != want and not (callable(want) and got and want(got)):
            raise AssertionError(f"got {got}, want {want}")

    suite.ok(name, look)


version = subprocess.run([SYSTEM, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True, check=False).stdout.strip()
if version != str(sys.version_info[:2]):
    print(f"SKIP jobs: the system's Python is {version or 'not there'} and the clients' {sys.version_info[:2]}")
    suite.finish()

folder = code_folder()
cluster = suite.ok("cluster with an identity", lambda: admin.compute.begin_create_or_update(AmlCompute(name="mi", size="Standard_DS1_v2", max_instances=1, identity=IdentityConfiguration(type="system_assigned"))).result())
principal = cluster.identity.principal_id if cluster else "none"
suite.ok("its role", lambda: give(BLOB_READER, STORAGE, principal, "ServicePrincipal"))

# A secret that the cluster's identity may read, and not set.
vault, secret = f"https://clients-kv.{ready['suffixes']['vault']}/secrets/", "a secret for jobs, " + uuid.uuid4().hex
call("PUT", vault + "for-jobs?api-version=7.5", token("https://vault.azure.net"), {"value": secret})
give(SECRETS_USER, VAULT, principal, "ServicePrincipal")
said = suite.ok("a job with the cluster's identity", lambda: work(admin, "managed"))
for name in ("app-service", "default", "default-client-id", "azure-ml", "imds", "imds-default"):
    check(name, said, principal)
check("containers", said, "True")
check("others", said, lambda text: text.startswith("ERROR"))
check("secret-digest", said, hashlib.sha256(secret.encode()).hexdigest())
check("secret", said, "[redacted]")
check("secret-in-pieces", said, "[redacted]")
check("secret-in-base64", said, lambda text: "[redacted]" in text and len(text) < 20)
check("secret-set", said, lambda text: "ERROR" in text and "Forbidden" in text)

name = f"jana@{world['admin']['userName'].split('@')[1]}"
password = "Correct-Horse-Battery-7!"
person = suite.ok("a person", lambda: call("POST", world["graphEndpoint"] + "/v1.0/users", token(world["graphEndpoint"]), {
    "accountEnabled": True, "displayName": "Jana", "mailNickname": "jana", "userPrincipalName": name, "passwordProfile": {"password": password, "forceChangePasswordNextSignIn": False}}))
if person:
    give(SCIENTIST, WORKSPACE, person["id"], "User")
    give(BLOB_READER, STORAGE, person["id"], "User")
    browser = Person(name, password, password)
    device = DeviceCodeCredential(tenant_id=world["tenantId"], client_id="04b07795-8ddb-461a-bbee-02f9e1bf7b46", authority=world["loginEndpoint"], disable_instance_discovery=True,
                                  prompt_callback=lambda uri, code, _: browser.enter(uri, code))
    jana = MLClient(device, world["subscriptionId"], "clients", "lab", enable_telemetry=False)
    said = suite.ok("a job with its submitter's identity", lambda: work(jana, "person", identity=UserIdentityConfiguration()))
    check("on-behalf", said, person["id"])
    check("containers", said, "True")
    check("graph", said, lambda text: text.startswith("ERROR"))
suite.finish()
