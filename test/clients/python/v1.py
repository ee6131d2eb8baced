"""Datastores and secrets as v1 knows them: azureml-core, unmodified, at a workspace of its own."""

import contextlib
import io
import logging
import os
import pathlib
import sys
import tarfile
import tempfile
import uuid

import requests
from checks import Suite, equal, load, must, within

os.environ["HOME"] = tempfile.mkdtemp(prefix="castellan-v1-")  # for what azureml-core keeps there

from azureml.core import Datastore, Workspace  # noqa: E402
from azureml.core.authentication import ArmTokenAuthentication  # noqa: E402

logging.disable(logging.ERROR)
world = load("CASTELLAN_WORLD")
suite = Suite("v1")
GROUP = f"/subscriptions/{world['subscriptionId']}/resourceGroups/clients"
STORAGE = GROUP + "/providers/Microsoft.Storage/storageAccounts/clientsacct"
LAKE = GROUP + "/providers/Microsoft.Storage/storageAccounts/v1lake"
WORKSPACE = GROUP + "/providers/Microsoft.MachineLearningServices/workspaces/v1lab"
USER_ACCESS_ADMINISTRATOR, READER, BLOB_READER = "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9", "acdd72a7-3385-48ef-bd42-f606fba81ae7", "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1"
tokens = {}


def token(who, scope):
    if (who, scope) not in tokens:
        r = requests.post(f"{world['loginEndpoint']}/{world['tenantId']}/oauth2/v2.0/token", timeout=30, data={
            "grant_type": "client_credentials", "client_id": world[who]["clientId"], "client_secret": world[who]["clientSecret"], "scope": scope + "/.default"})
        r.raise_for_status()
        tokens[who, scope] = r.json()["access_token"]
    return tokens[who, scope]


def arm(method, path, body=None, version="2024-10-01", who="admin"):
    r = requests.request(method, f"{world['armEndpoint']}{path}?api-version={version}", json=body, headers={"Authorization": "Bearer " + token(who, world["armEndpoint"])}, timeout=60)
    if not r.ok:
        raise AssertionError(f"{method} {path}: {r.status_code} {r.text[:300]}")
    return r.json() if r.content else None


def vault(method, name, body=None):
    r = requests.request(method, f"https://clients-kv.{world['suffixes']['vault']}/secrets/{name}?api-version=7.5", json=body, headers={"Authorization": "Bearer " + token("admin", "https://vault.azure.net")}, timeout=60)
    r.raise_for_status()
    return r.json()


def made(path, version="2024-10-01"):
    return within(60, lambda: (d := arm("GET", path, version=version))["properties"].get("provisioningState", "Succeeded") == "Succeeded" and d)


def workspace(who):
    # ServicePrincipalAuthentication asks Microsoft's own host about every authority.
    auth = ArmTokenAuthentication(token(who, world["armEndpoint"]), cloud=os.environ["AZUREML_CURRENT_CLOUD"])
    return Workspace(world["subscriptionId"], "clients", "v1lab", auth=auth)


def quiet(do):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return do()


def roles(scope):
    return {a["properties"]["roleDefinitionId"].split("/")[-1] for a in arm("GET", scope + "/providers/Microsoft.Authorization/roleAssignments", version="2022-04-01")["value"] if a["properties"]["principalId"] == identity}


suite.ok("a workspace", lambda: arm("PUT", WORKSPACE, {"location": "local", "identity": {"type": "SystemAssigned"}, "properties": {"storageAccount": STORAGE, "keyVault": GROUP + "/providers/Microsoft.KeyVault/vaults/clients-kv"}}))
identity = made(WORKSPACE)["identity"]["principalId"]
arm("PUT", LAKE, {"location": "local", "kind": "StorageV2", "sku": {"name": "Standard_LRS"}, "properties": {"isHnsEnabled": True}}, "2024-01-01")
key = arm("POST", made(LAKE, "2024-01-01")["id"] + "/listKeys", version="2024-01-01")["keys"][0]["value"]

ws = suite.ok("Workspace", lambda: quiet(lambda: workspace("admin")))
reader = quiet(lambda: workspace("reader"))
suite.ok("get_default_datastore", lambda: equal(ws.get_default_datastore().name, "workspaceblobstore"))
mine = suite.ok("register_azure_blob_container, and its container", lambda: quiet(lambda: Datastore.register_azure_blob_container(ws, "Mine", "mine", "v1lake", account_key=key, create_if_not_exists=True)))
suite.refused("a second of the name", lambda: quiet(lambda: Datastore.register_azure_blob_container(ws, "mine", "mine", "v1lake", account_key=key)), "already exists")
suite.ok("overwrite", lambda: quiet(lambda: Datastore.register_azure_blob_container(ws, "mine", "mine", "v1lake", account_key=key, overwrite=True)))
suite.refused("a wrong key", lambda: quiet(lambda: Datastore.register_azure_blob_container(ws, "wrong", "mine", "v1lake", account_key="d3Jvbmc=")), "does not open")
suite.ok("Resource Manager has the same", lambda: equal(arm("GET", WORKSPACE + "/datastores/mine")["properties"]["accountName"], "v1lake"))
suite.ok("Datastore.get", lambda: equal(Datastore.get(ws, "mine").account_key, key))
suite.ok("a reader's has no key", lambda: equal(Datastore.get(reader, "mine").account_key, None))
suite.ok("ws.datastores", lambda: equal(sorted(ws.datastores), ["mine", "workspaceartifactstore", "workspaceblobstore", "workspacefilestore"]))
suite.ok("set_default_datastore", lambda: (ws.set_default_datastore("mine"), equal(ws.get_default_datastore().name, "mine")))
suite.refused("unregister the default", lambda: Datastore.get(ws, "mine").unregister(), "default")
ws.set_default_datastore("workspaceblobstore")

folder = pathlib.Path(tempfile.mkdtemp(prefix="castellan-v1-"))
(folder / "up").mkdir()
(folder / "up" / "word.txt").write_text("a word of v1")
for name in ("mine", "workspaceblobstore"):
    suite.ok(f"upload to {name}", lambda: quiet(lambda: Datastore.get(ws, name).upload(str(folder / "up"), "v1/words", overwrite=True, show_progress=False)))
    suite.ok(f"download from {name}", lambda: equal(quiet(lambda: Datastore.get(ws, name).download(str(folder / name), "v1/words", show_progress=False)), 1))
    suite.ok(f"what came back from {name}", lambda: equal((folder / name / "v1" / "words" / "word.txt").read_text(), "a word of v1"))

robot = world["robot"]
arm("PUT", f"{LAKE}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}", {"properties": {
    "roleDefinitionId": f"/subscriptions/{world['subscriptionId']}/providers/Microsoft.Authorization/roleDefinitions/{BLOB_READER}", "principalId": robot["objectId"], "principalType": "ServicePrincipal"}}, "2022-04-01")
lake = suite.ok("register_azure_data_lake_gen2", lambda: quiet(lambda: Datastore.register_azure_data_lake_gen2(
    ws, "lake", "mine", "v1lake", tenant_id=world["tenantId"], client_id=robot["clientId"], client_secret=robot["clientSecret"], authority_url=world["loginEndpoint"])))
suite.ok("its credentials", lambda: equal((lake.client_id, lake.client_secret), (robot["clientId"], robot["clientSecret"])))

arm("PUT", STORAGE + "/fileServices/default/shares/v1share", {"properties": {}}, "2024-01-01")
own = arm("POST", STORAGE + "/listKeys", version="2024-01-01")["keys"][0]["value"]
share = suite.ok("register_azure_file_share", lambda: quiet(lambda: Datastore.register_azure_file_share(ws, "share", "v1share", "clientsacct", account_key=own)))
suite.ok("upload to the share", lambda: quiet(lambda: share.upload(str(folder / "up"), "words", overwrite=True, show_progress=False)))
suite.ok("download from the share", lambda: equal(quiet(lambda: Datastore.get(ws, "share").download(str(folder / "share"), "words", show_progress=False)), 1))
suite.ok("what came back from the share", lambda: equal((folder / "share" / "words" / "word.txt").read_text(), "a word of v1"))
share.unregister()

# The caller gives the workspace's identity its roles, by the door of role assignments.
grant = dict(grant_workspace_access=True, subscription_id=world["subscriptionId"], resource_group="clients", skip_validation=True)
suite.ok("grant_workspace_access", lambda: quiet(lambda: Datastore.register_azure_blob_container(ws, "granted", "mine", "v1lake", account_key=key, **grant)))
suite.ok("the workspace's identity has its roles", lambda: must({READER, BLOB_READER} <= roles(LAKE), roles(LAKE)))
suite.ok("the datastore says so", lambda: equal(Datastore.get(ws, "granted").service_data_access_auth_identity, "WorkspaceSystemAssignedIdentity"))
scientist = quiet(lambda: (arm("PUT", f"{WORKSPACE}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}", {"properties": {
    "roleDefinitionId": f"/subscriptions/{world['subscriptionId']}/providers/Microsoft.Authorization/roleDefinitions/f6c7c914-8db3-469d-8ca1-694a8f32e121", "principalId": world["scientist"]["objectId"], "principalType": "ServicePrincipal"}}, "2022-04-01"), workspace("scientist"))[1])
was = roles(STORAGE)
suite.ok("a scientist asks for grant_workspace_access", lambda: quiet(lambda: Datastore.register_azure_blob_container(scientist, "more", "mine", "clientsacct", account_key="d3Jvbmc=", **grant)))
suite.ok("and gives no role, for they may give none", lambda: equal(roles(STORAGE), was))
suite.ok("unregister", lambda: [Datastore.get(ws, n).unregister() for n in ("lake", "granted")])
suite.ok("Resource Manager has them no more", lambda: must(not {"lake", "granted"} & {d["name"] for d in arm("GET", WORKSPACE + "/datastores")["value"]}, "it has"))

keyvault = ws.get_default_keyvault()
suite.ok("set_secret", lambda: keyvault.set_secret("v1-word", "the first word of v1"))
suite.ok("set_secret over it", lambda: keyvault.set_secret("v1-word", "the word of v1"))
suite.ok("get_secret", lambda: equal(keyvault.get_secret("v1-word"), "the word of v1"))
suite.ok("set_secrets", lambda: keyvault.set_secrets({"v1-a": "value a", "v1-b": "value b"}))
suite.ok("get_secrets", lambda: equal(keyvault.get_secrets(["v1-a", "v1-none"]), {"v1-a": "value a", "v1-none": None}))
vault("PUT", "v1-portal", {"value": "set in the portal"})
suite.ok("list_secrets has what was set so", lambda: equal(sorted(s["name"] for s in keyvault.list_secrets()), ["v1-a", "v1-b", "v1-word"]))
suite.ok("get_secret of another, by one's own right", lambda: equal(keyvault.get_secret("v1-portal"), "set in the portal"))
suite.refused("of another, by the workspace's right", lambda: scientist.get_default_keyvault().get_secret("v1-portal"), "Forbidden")
suite.refused("over another, by the workspace's right", lambda: scientist.get_default_keyvault().set_secret("v1-portal", "mine now"), "Forbidden")
suite.ok("a scientist's get_secret", lambda: equal(scientist.get_default_keyvault().get_secret("v1-word"), "the word of v1"))
suite.refused("a reader's get_secret", lambda: reader.get_default_keyvault().get_secret("v1-word"), "Forbidden")
suite.refused("a reader's set_secret", lambda: reader.get_default_keyvault().set_secret("v1-word", "x"), "Forbidden")
suite.ok("the vault has it", lambda: equal(vault("GET", "v1-word")["value"], "the word of v1"))

# In a job: the client itself comes along in an archive, for a sandbox sees none of the user's.
IN_JOB = """
import sys
sys.path.insert(0, sys.argv[1])
from azureml.core import Run
run = Run.get_context()
print("said", run.id, "[" + run.get_secret("v1-word") + "]", run.get_secrets(["v1-word", "v1-none"])["v1-none"], flush=True)
for name, do in {"set": lambda: run.experiment.workspace.get_default_keyvault().set_secret("v1-word", "x"), "portal": lambda: run.get_secret("v1-portal")}.items():
    try:
        do()
        print(name, "was allowed", flush=True)
    except Exception as e:
        print(name, "was refused", flush=True)
"""


def brought():
    """The files of what this process has imported, and the program."""
    home = pathlib.Path(requests.__file__).parent.parent
    with tarfile.open(folder / "job" / "lib.tar", "w") as tar:
        tar.add(home / "azureml", "azureml", filter=lambda f: None if "__pycache__" in f.name else f)  # which imports as it goes
        for f in {m.__file__ for m in list(sys.modules.values()) if getattr(m, "__file__", None)}:
            if pathlib.Path(f).is_relative_to(home) and not pathlib.Path(f).is_relative_to(home / "azureml"):
                tar.add(f, pathlib.Path(f).relative_to(home))
    (folder / "job" / "job.py").write_text(IN_JOB)


def log(job):
    container = Datastore.get(ws, "workspaceartifactstore").blob_service.get_container_client("azureml")
    return container.download_blob(f"ExperimentRun/dcid.{job}/user_logs/std_log.txt").readall().decode()


def job(who, name):
    arm("PUT", f"{WORKSPACE}/jobs/{name}", {"properties": {
        "jobType": "Command", "environmentId": "azureml:host@latest", "computeId": WORKSPACE + "/computes/cpu",
        "command": "mkdir lib && tar xf ${{inputs.job}}/lib.tar -C lib && /usr/bin/python3 ${{inputs.job}}/job.py lib",
        "inputs": {"job": {"jobInputType": "uri_folder", "uri": "azureml://datastores/workspaceblobstore/paths/v1/job", "mode": "Download"}}}}, who=who)
    return within(60, lambda: (s := arm("GET", f"{WORKSPACE}/jobs/{name}")["properties"]["status"]) in ("Completed", "Failed", "Canceled") and s)


(folder / "job").mkdir()
arm("PUT", WORKSPACE + "/computes/cpu", {"location": "local", "properties": {"computeType": "AmlCompute", "properties": {"vmSize": "Standard_DS1_v2", "scaleSettings": {"minNodeCount": 0, "maxNodeCount": 1}}}})
made(WORKSPACE + "/computes/cpu")
suite.ok("the client goes to the datastore", lambda: (brought(), quiet(lambda: Datastore.get(ws, "workspaceblobstore").upload(str(folder / "job"), "v1/job", overwrite=True, show_progress=False))))
suite.ok("a job", lambda: equal(job("scientist", "v1-job"), "Completed"))
suite.ok("run.get_secret, hidden in the log; nothing else is opened", lambda: equal(log("v1-job").splitlines()[-3:], ["said v1-job [[redacted]] None", "set was refused", "portal was refused"]))

# In v1 legacy mode readers read, as v1's documents say, and v2 is shut.
suite.ok("v1LegacyMode", lambda: arm("PATCH", WORKSPACE, {"properties": {"v1LegacyMode": True}}))
made(WORKSPACE)
suite.ok("a reader's get_secret then", lambda: equal(reader.get_default_keyvault().get_secret("v1-word"), "the word of v1"))
suite.ok("a reader's datastore then", lambda: equal(Datastore.get(reader, "mine").account_key, key))
suite.ok("a reader's download then", lambda: equal(quiet(lambda: Datastore.get(reader, "workspaceblobstore").download(str(folder / "reader"), "v1/words", show_progress=False)), 1))
quiet(lambda: Datastore.get(reader, "workspaceblobstore").upload(str(folder / "up"), "v1/more", show_progress=False))  # it tells nobody what failed
suite.ok("a reader's upload brings nothing", lambda: equal(quiet(lambda: Datastore.get(ws, "workspaceblobstore").download(str(folder / "none"), "v1/more", show_progress=False)), 0))
suite.refused("v2's datastores then", lambda: arm("GET", WORKSPACE + "/datastores"), "v1LegacyMode")
arm("PATCH", WORKSPACE, {"properties": {"v1LegacyMode": False}})

suite.ok("delete_secret", lambda: keyvault.delete_secret("v1-word"))
suite.ok("delete_secrets", lambda: keyvault.delete_secrets(["v1-a", "v1-b"]))
suite.refused("get_secret of none", lambda: keyvault.get_secret("v1-word"), "not found")
suite.finish()
