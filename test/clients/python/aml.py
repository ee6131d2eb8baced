"""The MLClient of azure-ai-ml: workspaces, what repairs them, compute, a job with a code folder, its log and its outputs."""

import contextlib
import io
import logging
import pathlib
import tempfile

import requests
from azure.ai.ml import Input, MLClient, command
from azure.ai.ml.entities import AccountKeyConfiguration, AmlCompute, AzureBlobDatastore, CustomerManagedKey, Data, Environment, IdentityConfiguration, ManagedIdentityConfiguration, Model, Workspace
from azure.core.exceptions import HttpResponseError
from azure.identity import ClientSecretCredential
from azure.storage.blob import BlobServiceClient
from checks import Suite, equal, load, must, within

logging.disable(logging.WARNING)  # the SDK's notices would hide the checks
world = load("CASTELLAN_WORLD")
suite = Suite("azure-ai-ml")
HOST = Environment(image="castellan.local/host:1")


def client(who, workspace="lab", group="clients"):
    credential = ClientSecretCredential(
        world["tenantId"], world[who]["clientId"], world[who]["clientSecret"],
        authority=world["loginEndpoint"], disable_instance_discovery=True,
    )
    return MLClient(credential, world["subscriptionId"], group, workspace, enable_telemetry=False)


def quiet(do):
    """do(), with what it prints kept; (result, text)."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(io.StringIO()):
        return do(), text.getvalue()


def code_folder():
    """A real local code folder: a program, and data below it."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="castellan-code-")) / "code"
    (folder / "data").mkdir(parents=True)
    (folder / "run.sh").write_text(
        'set -eu\necho "begin $1"\nwc -l < data/numbers.txt\nsleep 4\necho "run is ${AZUREML_RUN_ID:-unknown}"\n'
        "mkdir -p outputs && echo 42 > outputs/answer.txt\necho the end\n"
    )
    (folder / "data" / "numbers.txt").write_text("".join(f"{n}\n" for n in range(1000)))
    return folder


def job(folder, **changes):
    wish = {"code": str(folder), "command": "sh run.sh hello", "environment": HOST, "compute": "cpu", "experiment_name": "clients", "display_name": "from MLClient", **changes}
    return command(**wish)


admin, scientist, reader, stranger = (client(who) for who in ("admin", "scientist", "reader", "stranger"))

# Workspaces: by an ARM template, as this client does it, then an update and an end.
made = suite.ok("workspace create", lambda: admin.workspaces.begin_create(Workspace(name="fresh", location=world.get("location", "local"), display_name="Fresh", description="made by MLClient", tags={"a": "b"})).result())
suite.ok("workspace get", lambda: equal(admin.workspaces.get("fresh").display_name, "Fresh"))
suite.ok("workspace has an identity of its own", lambda: must(admin.workspaces.get("fresh").identity.principal_id, "no principal id"))
suite.ok("workspace update", lambda: equal(admin.workspaces.begin_create(Workspace(name="fresh", location=world.get("location", "local"), display_name="Fresher")).result().display_name, "Fresher"))
suite.ok("workspace list", lambda: must({"lab", "fresh"} <= {w.name for w in admin.workspaces.list()}, "lab and fresh are not both listed"))


def arm(method, path, body=None):
    """One request of Resource Manager, as the administrator, for what no method of MLClient does."""
    token = ClientSecretCredential(
        world["tenantId"], world["admin"]["clientId"], world["admin"]["clientSecret"],
        authority=world["loginEndpoint"], disable_instance_discovery=True,
    ).get_token(world["armEndpoint"] + "/.default").token
    r = requests.request(method, world["armEndpoint"] + path, json=body, headers={"Authorization": "Bearer " + token}, timeout=60)
    r.raise_for_status()
    return r.json() if r.content else None


def diagnosed():
    """Every code of a diagnosis, with its message."""
    found = admin.workspaces.begin_diagnose("fresh").result()
    return [(r.code, r.message) for part in vars(found).values() for r in part or []]


def only(code, *words):
    found = diagnosed()
    equal([c for c, _ in found], [code])
    must(all(w in found[0][1] for w in words), f"the message is {found[0][1]}")


# What the workspace needs is taken from it, is named, and comes back.
fresh = admin.workspaces.get("fresh")
me = fresh.identity.principal_id
suite.ok("workspace diagnose finds nothing", lambda: equal(diagnosed(), []))
for a in arm("GET", f"{fresh.storage_account}/providers/Microsoft.Authorization/roleAssignments?api-version=2022-04-01&$filter=principalId eq '{me}'")["value"]:
    if a["properties"]["scope"].lower() == fresh.storage_account.lower():
        arm("DELETE", a["id"] + "?api-version=2022-04-01")
suite.ok("workspace diagnose names the role that was taken", lambda: only("StorageAccountRoleMissing", "Storage Blob Data Contributor", me))
suite.ok("a reader's workspace diagnose", lambda: must(reader.workspaces.begin_diagnose("lab").result() is not None, "no result"))
suite.refused("a reader's workspace sync-keys", lambda: reader.workspaces.begin_sync_keys("lab").wait(), "AuthorizationFailed", "403")
suite.ok("workspace sync-keys", lambda: admin.workspaces.begin_sync_keys("fresh").wait())
suite.ok("workspace diagnose finds nothing any more", lambda: equal(diagnosed(), []))

# The account's key is another: jobs fail that read by the older one, until sync-keys.
on_fresh = client("admin", workspace="fresh")
account = fresh.storage_account.rsplit("/", 1)[1]
key = arm("POST", fresh.storage_account + "/listKeys?api-version=2024-01-01")["keys"][0]["value"]
blobs = BlobServiceClient(f"https://{account}.blob.{world['suffixes']['blob'].removeprefix('blob.')}", credential=key)
blobs.create_container("extra")
blobs.get_blob_client("extra", "word.txt").upload_blob(b"a word of the datastore")

# What azure-storage-blob does with a blob beside its bytes.
deep = blobs.get_blob_client("extra", "deep.txt")
deep.upload_blob(b"one", tags={"Project": "Cascade"})
lease = deep.acquire_lease(15)
suite.refused("an upload over a leased blob", lambda: deep.upload_blob(b"two", overwrite=True), "LeaseIdMissing")
suite.ok("lease a blob", lambda: (deep.upload_blob(b"two", overwrite=True, lease=lease, tags={"Project": "Cascade"}), lease.release()))
snapshot = deep.create_snapshot()["snapshot"]
deep.upload_blob(b"three", overwrite=True, tags={"Project": "Cascade"})
suite.ok("a snapshot keeps what was", lambda: equal(blobs.get_blob_client("extra", "deep.txt", snapshot=snapshot).download_blob().readall(), b"two"))
suite.refused("a delete of a blob with snapshots", lambda: deep.delete_blob(), "SnapshotsPresent")
suite.ok("tags and their search", lambda: equal([b.name for b in blobs.find_blobs_by_tags("\"Project\" = 'Cascade'")], ["deep.txt"]))
suite.refused("a read by other tags", lambda: deep.download_blob(if_tags_match_condition="\"Project\" = 'Other'").readall(), "ConditionNotMet", "condition specified")
deep.set_standard_blob_tier("Archive")
suite.refused("a read of what is archived", lambda: deep.download_blob().readall(), "BlobArchived")
deep.set_standard_blob_tier("Hot")
deep.delete_blob(delete_snapshots="include")
disk = blobs.get_blob_client("extra", "disk")
disk.upload_blob(b"p" * 1024 + bytes(1 << 20), blob_type="PageBlob")
disk.clear_page(offset=0, length=512)
suite.ok("pages", lambda: equal([(r.start, r.end, r.cleared) for r in disk.list_page_ranges()][0][0], 512))
suite.ok("datastore create by key", lambda: on_fresh.datastores.create_or_update(AzureBlobDatastore(name="keyed", account_name=account, container_name="extra", credentials=AccountKeyConfiguration(account_key=key))))
suite.ok("compute create in it", lambda: on_fresh.compute.begin_create_or_update(AmlCompute(name="cpu", size="Standard_DS1_v2", min_instances=0, max_instances=1)).wait())


def reads():
    """How a job ends that reads by the datastore's key."""
    word = Input(type="uri_file", path="azureml://datastores/keyed/paths/word.txt", mode="download")
    made = quiet(lambda: on_fresh.jobs.create_or_update(command(command="grep 'a word' ${{inputs.word}}", inputs={"word": word}, environment=HOST, compute="cpu")))[0]
    return within(60, lambda: (s := on_fresh.jobs.get(made.name).status) in ("Completed", "Failed", "Canceled") and s)


arm("POST", fresh.storage_account + "/regenerateKey?api-version=2024-01-01", {"keyName": "key1"})
suite.ok("a job fails once the key is another", lambda: equal(reads(), "Failed"))
suite.ok("workspace diagnose names the datastore", lambda: only("DatastoreCredentialsInvalid", "keyed"))
suite.ok("workspace sync-keys renews the key", lambda: admin.workspaces.begin_sync_keys("fresh").wait())
suite.ok("a job reads again", lambda: equal(reads(), "Completed"))
suite.ok("workspace delete", lambda: admin.workspaces.begin_delete("fresh", delete_dependent_resources=False).result())
suite.refused("get of the deleted workspace", lambda: admin.workspaces.get("fresh"), "ResourceNotFound", "404")

# Compute and datastores.
suite.ok("compute create", lambda: equal(admin.compute.begin_create_or_update(AmlCompute(name="from-sdk", size="Standard_DS1_v2", min_instances=0, max_instances=2)).result().provisioning_state, "Succeeded"))
suite.ok("compute get", lambda: equal(admin.compute.get("from-sdk").max_instances, 2))
suite.ok("compute list", lambda: must({"cpu", "from-sdk"} <= {c.name for c in admin.compute.list()}, "cpu and from-sdk are not both listed"))
suite.ok("compute delete", lambda: admin.compute.begin_delete("from-sdk").wait())
suite.ok("datastore get", lambda: equal(admin.datastores.get("workspaceblobstore").account_name, "clientsacct"))
suite.ok("datastore default", lambda: equal(scientist.datastores.get_default().name, "workspaceblobstore"))

# The main job, as a data scientist.
folder = code_folder()
run = suite.ok("job create with a local code folder", lambda: quiet(lambda: scientist.jobs.create_or_update(job(folder)))[0])
name = run.name if run else "none"
log = suite.ok("job stream", lambda: quiet(lambda: scientist.jobs.stream(name))[1]) or ""
suite.ok("the log has the job's own words, from begin to end", lambda: must("begin hello\n1000\n" in log and "the end\n" in log, f"log is {log!r}"))
suite.ok("the log names the run", lambda: must(f"run is {name}" in log, f"log is {log[-300:]!r}"))
suite.ok("job get", lambda: equal(scientist.jobs.get(name).status, "Completed"))
suite.ok("job list", lambda: must(name in [j.name for j in scientist.jobs.list()], f"{name} is not listed"))


def downloaded():
    target = tempfile.mkdtemp(prefix="castellan-download-")
    quiet(lambda: scientist.jobs.download(name, download_path=target, all=True))
    found = sorted(str(p.relative_to(target)) for p in pathlib.Path(target).rglob("*") if p.is_file())
    must(any(f.endswith("std_log.txt") for f in found), f"no log in {found}")
    must(any(f.endswith("outputs/answer.txt") for f in found), f"no outputs/answer.txt in {found}")
    return found


suite.ok("job download", downloaded)
again = suite.ok("the same code folder is used again", lambda: quiet(lambda: scientist.jobs.create_or_update(job(folder, command="sh run.sh again")))[0])
if again:
    suite.ok("the second job ends", lambda: must("begin again" in quiet(lambda: scientist.jobs.stream(again.name))[1], "its log is not its own"))

failing = suite.ok("job that fails", lambda: quiet(lambda: scientist.jobs.create_or_update(command(command="echo on its way; sleep 2; exit 3", environment=HOST, compute="cpu")))[0])
if failing:
    suite.refused("stream of a failed job tells that it failed", lambda: quiet(lambda: scientist.jobs.stream(failing.name)), "exception", "exit")
    suite.ok("its status", lambda: equal(scientist.jobs.get(failing.name).status, "Failed"))

long = suite.ok("job that would take long", lambda: quiet(lambda: scientist.jobs.create_or_update(command(command="sleep 600", environment=HOST, compute="cpu")))[0])
if long:
    suite.ok("job cancel", lambda: scientist.jobs.begin_cancel(long.name).wait())
    suite.ok("its status becomes Canceled", lambda: within(30, lambda: scientist.jobs.get(long.name).status == "Canceled"))

# Assets.
suite.ok("environment create", lambda: equal(admin.environments.create_or_update(Environment(name="host", image="castellan.local/host:1")).version, "1"))
suite.ok("data create", lambda: quiet(lambda: admin.data.create_or_update(Data(name="numbers", path=str(folder / "data"), type="uri_folder")))[0])
suite.ok("model create", lambda: quiet(lambda: admin.models.create_or_update(Model(name="plain", path=str(folder / "data" / "numbers.txt"), type="custom_model")))[0])
suite.ok("model list", lambda: equal([m.version for m in admin.models.list(name="plain")], ["1"]))

# What must be refused.
suite.ok("a reader reads", lambda: reader.workspaces.get("lab").name)
suite.refused("a reader's compute", lambda: reader.compute.begin_create_or_update(AmlCompute(name="mine", size="Standard_DS1_v2", max_instances=1)).result(), "AuthorizationFailed", "403")
suite.refused("a reader's job", lambda: quiet(lambda: reader.jobs.create_or_update(job(folder, command="sh run.sh reader"))), "AuthorizationFailed", "403")
suite.refused("a reader's cancel", lambda: reader.jobs.begin_cancel(name).wait(), "AuthorizationFailed", "403")
suite.refused("a reader's delete", lambda: reader.workspaces.begin_delete("lab", delete_dependent_resources=False).result(), "AuthorizationFailed", "403")
suite.refused("a scientist's compute", lambda: scientist.compute.begin_create_or_update(AmlCompute(name="mine", size="Standard_DS1_v2", max_instances=1)).result(), "AuthorizationFailed", "403")

# A workspace whose key a customer's key guards.
GROUP = f"/subscriptions/{world['subscriptionId']}/resourceGroups/clients"
KEEPER = GROUP + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/keeper"
VAULT = GROUP + "/providers/Microsoft.KeyVault/vaults/cmk-by-aml"


def give(principal, role, name):
    arm("PUT", f"{GROUP}/providers/Microsoft.Authorization/roleAssignments/00000000-0000-4000-8000-{name:012}?api-version=2022-04-01", {"properties": {
        "principalId": principal, "principalType": "ServicePrincipal", "roleDefinitionId": f"/subscriptions/{world['subscriptionId']}/providers/Microsoft.Authorization/roleDefinitions/{role}"}})


def key(method, path, body):
    """One request of the vault's data plane."""
    token = ClientSecretCredential(
        world["tenantId"], world["admin"]["clientId"], world["admin"]["clientSecret"],
        authority=world["loginEndpoint"], disable_instance_discovery=True,
    ).get_token("https://vault.azure.net/.default").token
    r = requests.request(method, vault["properties"]["vaultUri"] + path + "?api-version=7.5", json=body, headers={"Authorization": "Bearer " + token}, timeout=60)
    r.raise_for_status()
    return r.json()


location = world.get("location", "local")
keeper = arm("PUT", KEEPER + "?api-version=2023-01-31", {"location": location})["properties"]["principalId"]
vault = arm("PUT", VAULT + "?api-version=2023-07-01", {"location": location, "properties": {"tenantId": world["tenantId"], "sku": {"family": "A", "name": "standard"}, "enableRbacAuthorization": True, "enablePurgeProtection": True}})
give(world["admin"]["objectId"], "14b46e9e-c2b7-41b4-b07b-48a6ebf60603", 1)  # Key Vault Crypto Officer
guard = key("POST", "keys/guard/create", {"kty": "RSA"})["key"]["kid"]


def sealed():
    return admin.workspaces.begin_create(Workspace(
        name="sealed", location=location, customer_managed_key=CustomerManagedKey(key_vault=VAULT, key_uri=guard), primary_user_assigned_identity=KEEPER,
        identity=IdentityConfiguration(type="user_assigned", user_assigned_identities=[ManagedIdentityConfiguration(resource_id=KEEPER)]))).result()


suite.refused("a workspace whose identity may not use the key", sealed, "KeyVaultAuthenticationFailure")
for n, role in enumerate(("e147488a-f6f5-4113-8e2d-b22465e65bf6", "b24988ac-6180-42a0-ab88-20f7382dd24c", "ba92f5b4-2d11-453d-a403-e96b0029c9fe"), 2):  # to use keys, Contributor, blobs
    give(keeper, role, n)
suite.ok("workspace create with a customer-managed key", lambda: equal(sealed().customer_managed_key.key_uri, guard))
inside = client("admin", "sealed")
suite.ok("its datastores", lambda: must([d.name for d in inside.datastores.list()], "there is none"))
key("PATCH", "keys/guard", {"attributes": {"enabled": False}})


def look():
    try:
        return [d.name for d in inside.datastores.list()]
    except HttpResponseError as e:
        return e.error.code


# What the vault said is believed for a quarter of a second.
suite.ok("refused: its datastores, once the key is disabled", lambda: within(3, lambda: look() == "KeyVaultEncryptionKeyNotFound", every=0.1))
key("PATCH", "keys/guard", {"attributes": {"enabled": True}})
suite.ok("its datastores again", lambda: within(10, lambda: isinstance(look(), list)))

suite.refused("a scientist's new workspace", lambda: scientist.workspaces.begin_create(Workspace(name="mine", location=world.get("location", "local"))).result(), "AuthorizationFailed", "403")
suite.refused("a stranger's get", lambda: stranger.workspaces.get("lab"), "AuthorizationFailed", "ResourceNotFound", "ResourceGroupNotFound", "404", "403")
suite.refused("a stranger's job list", lambda: list(stranger.jobs.list()), "AuthorizationFailed", "ResourceNotFound", "404", "403")
suite.refused("a stranger's stream", lambda: quiet(lambda: stranger.jobs.stream(name)), "AuthorizationFailed", "ResourceNotFound", "404", "403")
suite.refused("a wrong secret", lambda: ClientSecretCredential(world["tenantId"], world["admin"]["clientId"], "wrong" * 8, authority=world["loginEndpoint"], disable_instance_discovery=True).get_token(world["armEndpoint"] + "/.default"), "AADSTS7000215", "invalid_client")
suite.finish()
