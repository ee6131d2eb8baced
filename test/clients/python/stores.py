"""Datastores of azure-ai-ml: each kind of credential, and what reads and writes through it."""

import contextlib
import datetime
import io
import logging
import pathlib
import tempfile
import uuid

import requests
from azure.ai.ml import Input, MLClient, Output, command
from azure.ai.ml._artifacts._artifact_utilities import download_artifact_from_aml_uri
from azure.ai.ml._utils._storage_utils import DatastoreType, get_storage_client
from azure.ai.ml.entities import (
    AccountKeyConfiguration, AmlCompute, AzureBlobDatastore, AzureDataLakeGen2Datastore, AzureFileDatastore, CertificateConfiguration, Data,
    Environment, SasTokenConfiguration, ServicePrincipalConfiguration,
)
from azure.identity import ClientSecretCredential
from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, generate_container_sas
from azure.storage.fileshare import ShareSasPermissions, ShareServiceClient, generate_share_sas
from checks import Suite, equal, load, must, within

logging.disable(logging.WARNING)
world = load("CASTELLAN_WORLD")
suite = Suite("datastores")
HOST = Environment(image="castellan.local/host:1")
GROUP = f"/subscriptions/{world['subscriptionId']}/resourceGroups/clients"
STORAGE = GROUP + "/providers/Microsoft.Storage/storageAccounts/clientsacct"
VAULT = GROUP + "/providers/Microsoft.KeyVault/vaults/clients-kv"
BLOB_CONTRIBUTOR = "ba92f5b4-2d11-453d-a403-e96b0029c9fe"


def credential(who):
    return ClientSecretCredential(world["tenantId"], world[who]["clientId"], world[who]["clientSecret"], authority=world["loginEndpoint"], disable_instance_discovery=True)


def client(who):
    return MLClient(credential(who), world["subscriptionId"], "clients", "lab", enable_telemetry=False)


def arm(method, path, body=None):
    token = credential("admin").get_token(world["armEndpoint"] + "/.default").token
    r = requests.request(method, world["armEndpoint"] + path, json=body, headers={"Authorization": "Bearer " + token}, timeout=60)
    r.raise_for_status()
    return r.json() if r.content else None


def quiet(do):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return do()


admin, reader = client("admin"), client("reader")
key = arm("POST", STORAGE + "/listKeys?api-version=2024-01-01")["keys"][0]["value"]
blobs = BlobServiceClient(f"https://clientsacct.blob.{world['suffixes']['blob'].removeprefix('blob.')}", credential=key)
blobs.create_container("stores")
blobs.get_blob_client("stores", "word.txt").upload_blob(b"a word of the datastore")
sas = generate_container_sas("clientsacct", "stores", account_key=key, permission=ContainerSasPermissions(read=True, list=True, write=True, create=True, add=True),
                             expiry=datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1))

# A file share, as azure-storage-file-share knows it.
files = ShareServiceClient(f"https://clientsacct.file.{world['suffixes']['storage']}", credential=key)
share = suite.ok("share: create", lambda: files.create_share("stores", quota=5, metadata={"by": "python"}))
suite.ok("share: properties", lambda: (lambda p: (equal(p.quota, 5), equal(p.metadata, {"by": "python"})))(share.get_share_properties()))
suite.ok("share: a directory in a directory", lambda: share.create_directory("Raw").create_subdirectory("2026"))
big = bytes(range(256)) * 20000
suite.ok("share: upload in parts, each with its MD5", lambda: share.get_file_client("Raw/2026/big").upload_file(big, max_concurrency=3, validate_content=True))
suite.ok("share: its download, in any case", lambda: equal(share.get_file_client("RAW/2026/BIG").download_file(max_concurrency=3).readall(), big))
suite.ok("share: ranges, cleared and cut", lambda: (lambda c: (c.clear_range(0, 512), c.resize_file(1024), equal(c.get_ranges(), [{"start": 512, "end": 1023}]), equal(c.download_file().readall(), bytes(512) + big[512:1024])))(share.get_file_client("Raw/2026/big")))
suite.ok("share: list", lambda: equal([(e["name"], e["is_directory"]) for e in share.list_directories_and_files("Raw")], [("2026", True)]))
suite.ok("share: rename a directory", lambda: share.get_directory_client("Raw").rename_directory("cooked"))
suite.ok("share: what is there", lambda: (must(share.get_file_client("cooked/2026/big").exists(), "the file moved"), must(not share.get_directory_client("Raw").exists(), "the directory stayed")))
suite.refused("share: a full directory is not deleted", lambda: share.delete_directory("cooked"), "DirectoryNotEmpty")
suite.refused("share: a file named like a device", lambda: share.get_file_client("nul.txt").create_file(1), "InvalidResourceName")
share.get_file_client("word.txt").upload_file(b"a word of the datastore")
share_sas = generate_share_sas("clientsacct", "stores", key, permission=ShareSasPermissions(read=True, list=True, write=True, create=True, delete=True),
                               expiry=datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1))
suite.refused("share: its signature opens no container of its name", lambda: BlobServiceClient(blobs.url, credential=share_sas).get_blob_client("stores", "word.txt").download_blob(), "AuthenticationFailed")
arm("PUT", f"{STORAGE}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}?api-version=2022-04-01", {"properties": {
    "roleDefinitionId": f"/subscriptions/{world['subscriptionId']}/providers/Microsoft.Authorization/roleDefinitions/{BLOB_CONTRIBUTOR}",
    "principalId": world["robot"]["objectId"], "principalType": "ServicePrincipal"}})
quiet(lambda: admin.compute.begin_create_or_update(AmlCompute(name="stores", size="Standard_DS1_v2", min_instances=0, max_instances=2)).wait())

robot = {"tenant_id": world["tenantId"], "client_id": world["robot"]["clientId"], "authority_url": world["loginEndpoint"]}
pem = pathlib.Path(world["robot"]["certificate"]).read_text()
kinds = {
    "keyed": (AccountKeyConfiguration(account_key=key), lambda c: c.account_key, key),
    "signed": (SasTokenConfiguration(sas_token=sas), lambda c: c.sas_token, sas),
    "secret": (ServicePrincipalConfiguration(client_secret=world["robot"]["clientSecret"], **robot), lambda c: c.client_secret, world["robot"]["clientSecret"]),
    "certified": (CertificateConfiguration(certificate=pem, thumbprint="none", **robot), lambda c: c.certificate, pem),
}
stores = {name: AzureBlobDatastore(name="st_" + name, account_name="clientsacct", container_name="stores", credentials=c[0]) for name, c in kinds.items()}
stores["lake"] = AzureDataLakeGen2Datastore(name="st_lake", account_name="clientsacct", filesystem="stores", credentials=kinds["secret"][0])
kinds["lake"] = kinds["secret"]
for name, creds in {"files": kinds["keyed"], "filesigned": (SasTokenConfiguration(sas_token=share_sas), kinds["signed"][1], share_sas)}.items():
    kinds[name] = creds
    stores[name] = AzureFileDatastore(name="st_" + name, account_name="clientsacct", file_share_name="stores", credentials=creds[0])


def secrets():
    """What the workspace's vault has, as its administrator sees it."""
    token = credential("admin").get_token("https://vault.azure.net/.default").token
    r = requests.get(f"https://clients-kv.{world['suffixes']['vault']}/secrets?api-version=7.5", headers={"Authorization": "Bearer " + token}, timeout=60)
    r.raise_for_status()
    return {s["id"]: s.get("tags") or {} for s in r.json()["value"]}


jobs = {}
for name, store in stores.items():
    _, shown, value = kinds[name]
    suite.ok(f"{name}: create", lambda: admin.datastores.create_or_update(store))
    suite.ok(f"{name}: get shows no secret", lambda: must(not shown(admin.datastores.get("st_" + name).credentials), "it does"))
    suite.ok(f"{name}: get with secrets", lambda: equal(shown(admin.datastores.get("st_" + name, include_secrets=True).credentials), value))
    suite.refused(f"{name}: a reader's get with secrets", lambda: reader.datastores.get("st_" + name, include_secrets=True), "AuthorizationFailed", "403")
    suite.ok(f"{name}: the vault has the secret", lambda: must("st_" + name in [t.get("datastore") for t in secrets().values()], f"it has {secrets()}"))
    word = Input(type="uri_file", path=f"azureml://datastores/st_{name}/paths/word.txt", mode="download")
    jobs[name] = suite.ok(f"{name}: a job", lambda: quiet(lambda: admin.jobs.create_or_update(command(command="grep 'a word' ${{inputs.word}}", inputs={"word": word}, environment=HOST, compute="stores"))))

# What azure-ai-ml itself brings and takes, by a signature and by a key that listSecrets gives.
for name in ("keyed", "signed"):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="castellan-stores-"))
    (folder / "mine.txt").write_text("brought by " + name)
    made = suite.ok(f"{name}: upload", lambda: quiet(lambda: admin.data.create_or_update(Data(name="brought-" + name, version="1", type="uri_file", path=str(folder / "mine.txt"), datastore="st_" + name))))
    suite.ok(f"{name}: download", lambda: quiet(lambda: download_artifact_from_aml_uri(uri=made.path, destination=str(folder / "back"), datastore_operation=admin.datastores)))
    suite.ok(f"{name}: what came back", lambda: equal((folder / "back" / "mine.txt").read_text(), "brought by " + name))

for name in ("files", "filesigned"):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="castellan-stores-"))
    (folder / "mine").mkdir()
    (folder / "mine" / "m.txt").write_text("brought by " + name)
    # For data azure-ai-ml refuses to upload to a share, so its client of shares is called as its own code does.
    theirs = suite.ok(f"{name}: what azure-ai-ml uploads with", lambda: get_storage_client(kinds[name][2], "clientsacct", DatastoreType.AZURE_FILE, files.url, "stores"))
    made = suite.ok(f"{name}: upload", lambda: theirs.upload(str(folder / "mine"), "brought-" + name, "1", asset_hash=name, show_progress=False)["remote path"])
    suite.ok(f"{name}: upload of what is there", lambda: equal(theirs.upload(str(folder / "mine"), "again", "2", asset_hash=name, show_progress=False), {"remote path": made, "name": "brought-" + name, "version": "1"}))
    suite.ok(f"{name}: download", lambda: theirs.download(made.split("/")[0], str(folder / "back")))
    suite.ok(f"{name}: what came back", lambda: equal([p.read_text() for p in (folder / "back").rglob("m.txt")], ["brought by " + name]))
    suite.ok(f"{name}: data", lambda: admin.data.create_or_update(Data(name="brought-" + name, version="1", type="uri_folder", path=f"azureml://datastores/st_{name}/paths/LocalUpload/{made}")))
    out = Output(type="uri_folder", path=f"azureml://datastores/st_{name}/paths/Left/{name}")
    jobs["out of " + name] = suite.ok(f"{name}: a job that leaves files", lambda: quiet(lambda: admin.jobs.create_or_update(command(
        command="mkdir ${{outputs.out}}/d && cp ${{inputs.brought}}/m.txt ${{outputs.out}}/d/", inputs={"brought": Input(type="uri_folder", path=f"brought-{name}:1")}, outputs={"out": out}, environment=HOST, compute="stores"))))

own = suite.ok("workspacefilestore: get", lambda: admin.datastores.get("workspacefilestore"))
jobs["workspacefilestore"] = suite.ok("workspacefilestore: a job that leaves files", lambda: quiet(lambda: admin.jobs.create_or_update(command(
    command="cp ${{inputs.brought}}/m.txt ${{outputs.out}}/", inputs={"brought": Input(type="uri_folder", path="brought-files:1")},
    outputs={"out": Output(type="uri_folder", path="azureml://datastores/workspacefilestore/paths/own")}, environment=HOST, compute="stores"))))

for name, made in jobs.items():
    suite.ok(f"{name}: the job has read", lambda: equal(within(60, lambda: (s := admin.jobs.get(made.name).status) in ("Completed", "Failed", "Canceled") and s), "Completed"))
for name in ("files", "filesigned"):
    suite.ok(f"{name}: what the job left", lambda: equal(share.get_file_client(f"left/{name}/d/m.txt").download_file().readall(), b"brought by " + name.encode()))
suite.ok("workspacefilestore: what the job left", lambda: equal(files.get_share_client(own.file_share_name).get_file_client("own/m.txt").download_file().readall(), b"brought by files"))
suite.refused("workspacefilestore: made anew as somebody's own", lambda: quiet(lambda: admin.datastores.create_or_update(AzureFileDatastore(name="workspacefilestore", account_name="clientsacct", file_share_name="stores", credentials=kinds["keyed"][0]))), "can't be changed")
for name in stores:
    suite.ok(f"{name}: delete", lambda: admin.datastores.delete("st_" + name))
suite.ok("the vault has none of the secrets any more", lambda: must(not [t for t in secrets().values() if t.get("datastore", "").startswith("st_")], f"it has {secrets()}"))
suite.finish()
