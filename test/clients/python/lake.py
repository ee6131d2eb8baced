"""Paths of an account with a hierarchical namespace: azure-storage-file-datalake, and the Azure CLI."""

import datetime

from azcli import az, here, login, world
from azure.identity import ClientSecretCredential
from azure.storage.filedatalake import (
    DataLakeDirectoryClient, DataLakeFileClient, DataLakeServiceClient, DirectorySasPermissions, FileSasPermissions, generate_directory_sas, generate_file_sas,
)
from checks import Suite, equal, must

suite = Suite("lake")
must(login("admin"), "no sign-in")
name, where = "clientslake", ("--resource-group", "clients")
account = suite.ok("storage account create --hns", lambda: az("storage", "account", "create", "--name", name, *where, "--location", world.get("location", "local"), "--sku", "Standard_LRS", "--hns", "true"))
suite.ok("its endpoint and namespace", lambda: (equal(account["isHnsEnabled"], True), must(".dfs." in account["primaryEndpoints"]["dfs"], account)))
url = account["primaryEndpoints"]["dfs"]
key = az("storage", "account", "keys", "list", "--account-name", name, *where)[0]["value"]
stranger, admin = world["stranger"]["objectId"], world["admin"]["objectId"]


def of(who):
    """Somebody's client; one that is not there before keeps no refusal."""
    return DataLakeServiceClient(url, ClientSecretCredential(world["tenantId"], world[who]["clientId"], world[who]["clientSecret"], authority=world["loginEndpoint"], disable_instance_discovery=True), retry_total=0)


service = DataLakeServiceClient(url, key, retry_total=0)
fs = suite.ok("file system create", lambda: service.create_file_system("data", metadata={"by": "python"}))
suite.refused("a file system that is there", lambda: service.create_file_system("data"), "already exists")
suite.ok("file systems are listed", lambda: equal([f.name for f in service.list_file_systems()], ["data"]))
suite.ok("file system properties", lambda: equal(fs.get_file_system_properties().metadata, {"by": "python"}))
suite.ok("directory create", lambda: fs.create_directory("raw/2026", metadata={"year": "2026"}))
file = fs.get_file_client("raw/2026/day.csv")
suite.ok("file create", lambda: file.create_file(content_settings=None, metadata={"kind": "day"}))
suite.ok("append, in two parts", lambda: (file.append_data(b"world", 6), file.append_data(b"hello ", 0)))
suite.refused("a flush beyond what is there", lambda: file.flush_data(12), "InvalidFlushPosition")
suite.ok("flush", lambda: file.flush_data(11))
suite.ok("download", lambda: equal(file.download_file().readall(), b"hello world"))
suite.ok("download of a range", lambda: equal(file.download_file(offset=6, length=5).readall(), b"world"))
big = bytes(range(256)) * 40000
suite.ok("upload in parallel parts", lambda: fs.get_file_client("raw/big").upload_data(big, overwrite=True, chunk_size=1 << 20, max_concurrency=4))
suite.ok("its download", lambda: equal(fs.get_file_client("raw/big").download_file().readall(), big))
suite.ok("file properties", lambda: (lambda p: (equal(p.size, 11), equal(p.metadata, {"kind": "day"}), equal(p.owner, "$superuser"), equal(p.permissions, "rw-r-----")))(file.get_file_properties()))
suite.ok("what is there", lambda: (must(file.exists(), "no file"), must(fs.get_directory_client("raw").exists(), "no directory"), must(not fs.get_file_client("none").exists(), "there is none")))
suite.ok("directory properties", lambda: equal(fs.get_directory_client("raw/2026").get_directory_properties().metadata.get("year"), "2026"))
suite.ok("metadata and headers", lambda: (file.set_metadata({"kind": "new"}), equal(file.get_file_properties().metadata, {"kind": "new"})))
suite.ok("paths, by pages", lambda: equal([p.name for p in fs.get_paths(max_results=1)], ["raw", "raw/2026", "raw/2026/day.csv", "raw/big"]))
suite.ok("paths of a directory alone", lambda: equal([(p.name, p.is_directory, p.owner) for p in fs.get_paths("raw", recursive=False)], [("raw/2026", True, "$superuser"), ("raw/big", False, "$superuser")]))
suite.refused("a list of what is not there", lambda: list(fs.get_paths("none")), "PathNotFound")
lease = suite.ok("lease a file", lambda: file.acquire_lease(15))
suite.refused("an append without the lease", lambda: file.append_data(b"x", 11), "LeaseIdMissing")
suite.ok("release it", lease.release)
other = service.create_file_system("other")
suite.ok("rename a directory, into another file system", lambda: fs.get_directory_client("raw/2026").rename_directory("other/moved"))
suite.ok("what it has moved with it", lambda: (equal(other.get_file_client("moved/day.csv").download_file().readall(), b"hello world"), equal([p.name for p in fs.get_paths()], ["raw", "raw/big"])))
suite.refused("a rename of what is not there", lambda: fs.get_directory_client("none").rename_directory("other/x"), "SourcePathNotFound")
suite.refused("a rename into itself", lambda: other.get_directory_client("moved").rename_directory("other/moved/in"), "InvalidRenameSourcePath")
suite.refused("a deletion of a full directory as a file", lambda: other.get_file_client("moved").delete_file(), "DirectoryNotEmpty")

# Access lists.
ours = lambda path: of("stranger").get_file_client("other", path)
suite.refused("a stranger's read", lambda: ours("moved/day.csv").download_file().readall(), "AuthorizationPermissionMismatch")
suite.refused("a stranger's list", lambda: list(of("stranger").get_file_system_client("other").get_paths()), "AuthorizationPermissionMismatch")
root = other.get_directory_client("/")
suite.ok("access of the root", lambda: equal(root.get_access_control()["acl"], "user::rwx,group::r-x,other::---"))
suite.ok("modify access below the root", lambda: (lambda r: (equal(r.counters.failure_count, 0), equal(r.counters.directories_successful, 2), equal(r.counters.files_successful, 1)))(root.update_access_control_recursive(acl=f"user:{stranger}:r-x,default:user:{stranger}:r-x", batch_size=1)))
suite.ok("then the stranger reads", lambda: equal(ours("moved/day.csv").download_file().readall(), b"hello world"))
suite.ok("and lists", lambda: equal([p.name for p in of("stranger").get_file_system_client("other").get_paths()], ["moved", "moved/day.csv"]))
suite.refused("but does not write", lambda: ours("moved/day.csv").append_data(b"x", 11), "AuthorizationPermissionMismatch")
suite.refused("nor make", lambda: ours("moved/new.csv").create_file(), "AuthorizationPermissionMismatch")
suite.refused("nor delete", lambda: ours("moved/day.csv").delete_file(), "AuthorizationPermissionMismatch")
suite.refused("nor change access", lambda: ours("moved/day.csv").set_access_control(permissions="0777"), "AuthorizationPermissionMismatch")
suite.ok("what is made inherits", lambda: (other.get_file_client("moved/made").create_file(), must(f"user:{stranger}:r-x" in other.get_file_client("moved/made").get_access_control()["acl"], "it does not")))
suite.ok("remove the stranger from all", lambda: equal(root.remove_access_control_recursive(acl=f"user:{stranger},default:user:{stranger}").counters.failure_count, 0))
suite.refused("then the stranger's read", lambda: ours("moved/day.csv").download_file().readall(), "AuthorizationPermissionMismatch")
suite.ok("permissions and an owner", lambda: (lambda f: (f.set_access_control(owner=stranger, permissions="rwxr-x--x"), equal((f.get_access_control()["owner"], f.get_access_control()["permissions"].rstrip("+")), (stranger, "rwxr-x--x"))))(other.get_file_client("moved/made")))
suite.refused("a list that is none", lambda: root.set_access_control(acl="user::rwx"), "InvalidAccessControlList")
suite.refused("an owner, by a contributor", lambda: of("admin").get_file_client("other", "moved/day.csv").set_access_control(owner=stranger), "AuthorizationPermissionMismatch")

# Signatures.
soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=30)
sas = generate_directory_sas(name, "other", "moved", key, permission=DirectorySasPermissions(read=True, list=True, write=True, create=True, move=True), expiry=soon)
suite.ok("a directory's signature opens what lies in it", lambda: equal(DataLakeFileClient(url, "other", "moved/day.csv", sas).download_file().readall(), b"hello world"))
suite.refused("and nothing beside it", lambda: DataLakeFileClient(url, "data", "raw/big", sas).download_file().readall(), "AuthenticationFailed", "AuthorizationResourceTypeMismatch")
suite.ok("a rename by it", lambda: DataLakeDirectoryClient(url, "other", "moved/made", sas).rename_directory("other/moved/renamed"))
delegated = of("admin").get_user_delegation_key(soon - datetime.timedelta(hours=1), soon)
signed = lambda **more: DataLakeFileClient(url, "other", "moved/day.csv", generate_file_sas(name, "other", "moved", "day.csv", delegated, permission=FileSasPermissions(read=True), expiry=soon, **more), retry_total=0).download_file().readall()
suite.ok("a user delegation signature", lambda: equal(signed(preauthorized_agent_object_id=stranger, correlation_id="11111111-2222-3333-4444-555555555555"), b"hello world"))
suite.refused("one for somebody whom the lists do not let in", lambda: signed(agent_object_id=stranger), "AuthorizationPermissionMismatch")

# The Azure CLI.
at = ("--account-name", name, "--auth-mode", "login")
(here / "lake.txt").write_text("by az\n")
suite.ok("storage fs create", lambda: az("storage", "fs", "create", "--name", "by-az", *at))
suite.ok("storage fs directory create", lambda: az("storage", "fs", "directory", "create", "--name", "dir/sub", "--file-system", "by-az", *at))
suite.ok("storage fs file upload", lambda: az("storage", "fs", "file", "upload", "--source", str(here / "lake.txt"), "--path", "dir/sub/f.txt", "--file-system", "by-az", *at))
suite.ok("storage fs directory move", lambda: az("storage", "fs", "directory", "move", "--name", "dir/sub", "--new-directory", "by-az/dir/moved", "--file-system", "by-az", *at))
suite.ok("storage fs file list", lambda: equal([p["name"] for p in az("storage", "fs", "file", "list", "--file-system", "by-az", *at)], ["dir", "dir/moved", "dir/moved/f.txt"]))
suite.ok("storage fs access show", lambda: equal(az("storage", "fs", "access", "show", "--path", "dir/moved", "--file-system", "by-az", *at)["owner"], admin))
suite.ok("storage fs access set-recursive", lambda: equal(az("storage", "fs", "access", "update-recursive", "--acl", f"user:{stranger}:r-x", "--path", "dir", "--file-system", "by-az", "--account-name", name, "--account-key", key)["counters"]["filesSuccessful"], 1))
suite.ok("storage fs directory delete", lambda: az("storage", "fs", "directory", "delete", "--name", "dir", "--file-system", "by-az", "--yes", *at))
suite.refused("an account whose namespace changes", lambda: az("rest", "--method", "patch", "--url", account["id"] + "?api-version=2023-05-01", "--body", '{"properties":{"isHnsEnabled":false}}'), "AccountPropertyCannotBeUpdated")
suite.finish()
