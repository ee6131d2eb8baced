"""The Azure CLI: sign-in as an application and by device code, and the commands of the main job."""

import base64
import hashlib
import json
import re
import subprocess

from azcli import az, environment, here, login, program
from checks import Suite, equal, load, must, within
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from signin import Person

world = load("CASTELLAN_WORLD")
suite = Suite("az")
group, lab = world["group"], world["workspace"]


# Sign-in as an application.
signed = suite.ok("login by service principal", lambda: login("admin"))
if not signed:
    suite.finish()
suite.ok("it sees the subscription", lambda: must(world["subscriptionId"] in [s["id"] for s in signed], "not listed"))
suite.ok("account show", lambda: equal(az("account", "show")["tenantId"], world["tenantId"]))
suite.ok("login by certificate", lambda: az("login", "--service-principal", "--username", world["robot"]["clientId"], "--certificate", world["robot"]["certificate"], "--tenant", world["tenantId"], who="robot"))
suite.ok("account get-access-token", lambda: must(az("account", "get-access-token")["accessToken"].count(".") == 2, "no token"))

# Groups.
suite.ok("group create", lambda: equal(az("group", "create", "--name", "by-az", "--location", world.get("location", "local"), "--tags", "a=b")["tags"], {"a": "b"}))
suite.ok("group show", lambda: equal(az("group", "show", "--name", "BY-AZ")["name"].lower(), "by-az"))
suite.ok("group exists", lambda: equal(az("group", "exists", "--name", "by-az"), True))
suite.ok("group exists of none", lambda: equal(az("group", "exists", "--name", "none-such"), False))
suite.ok("group list", lambda: must("by-az" in [g["name"] for g in az("group", "list")], "not listed"))
suite.ok("group update", lambda: equal(az("group", "update", "--name", "by-az", "--set", "tags.c=d")["tags"], {"a": "b", "c": "d"}))

# The workspace's own identity, and roles.
found = suite.ok("ad sp list --display-name", lambda: az("ad", "sp", "list", "--display-name", "lab")) or []
suite.ok("the workspace's identity is a managed identity", lambda: equal([s["servicePrincipalType"] for s in found if s["displayName"] == "lab"], ["ManagedIdentity"]))
suite.ok("ad sp show", lambda: equal(az("ad", "sp", "show", "--id", world["reader"]["clientId"])["id"], world["reader"]["objectId"]))
suite.ok("role definition list --name", lambda: equal([r["roleName"] for r in az("role", "definition", "list", "--name", "Reader")], ["Reader"]))
scope = f"/subscriptions/{world['subscriptionId']}/resourceGroups/by-az"
given = suite.ok("role assignment create --assignee", lambda: az("role", "assignment", "create", "--assignee", world["reader"]["clientId"], "--role", "Reader", "--scope", scope))
suite.ok("role assignment create --assignee-object-id", lambda: az("role", "assignment", "create", "--assignee-object-id", world["robot"]["objectId"], "--assignee-principal-type", "ServicePrincipal", "--role", "Tag Contributor", "--scope", scope))
suite.ok("role assignment list", lambda: must({world["reader"]["objectId"], world["robot"]["objectId"]} <= {a["principalId"] for a in az("role", "assignment", "list", "--scope", scope)}, "not both are listed"))
suite.ok("role assignment list shows the workspace's identity its roles", lambda: must({"Storage Blob Data Contributor", "Key Vault Administrator"} <= {a["roleDefinitionName"] for a in az("role", "assignment", "list", "--all", "--assignee", found[0]["id"])}, "a role is missing"))
delegated = "((!(ActionMatches{'Microsoft.Authorization/roleAssignments/write'})) OR (@Request[Microsoft.Authorization/roleAssignments:RoleDefinitionId] ForAnyOfAnyValues:GuidEquals {acdd72a7-3385-48ef-bd42-f606fba81ae7}))"
suite.ok("role assignment create --condition", lambda: equal(az("role", "assignment", "create", "--assignee-object-id", world["robot"]["objectId"], "--assignee-principal-type", "ServicePrincipal", "--role", "Role Based Access Control Administrator", "--scope", scope, "--condition", delegated, "--condition-version", "2.0")["condition"], delegated))
suite.ok("who may give one role gives it", lambda: az("role", "assignment", "create", "--assignee-object-id", world["scientist"]["objectId"], "--assignee-principal-type", "ServicePrincipal", "--role", "Reader", "--scope", scope, who="robot"))
suite.refused("another role, by them", lambda: az("role", "assignment", "create", "--assignee-object-id", world["robot"]["objectId"], "--assignee-principal-type", "ServicePrincipal", "--role", "Owner", "--scope", scope, who="robot"), "AuthorizationFailed")
suite.ok("role assignment delete", lambda: az("role", "assignment", "delete", "--assignee", world["reader"]["clientId"], "--role", "Reader", "--scope", scope))
suite.ok("it is gone", lambda: must(world["reader"]["objectId"] not in [a["principalId"] for a in az("role", "assignment", "list", "--scope", scope)], "still listed"))

# A vault and its secrets.
suite.ok("keyvault create", lambda: az("keyvault", "create", "--name", "by-az-kv", "--resource-group", "by-az", "--location", world.get("location", "local")))
suite.ok("keyvault list", lambda: must("by-az-kv" in [v["name"] for v in az("keyvault", "list", "--resource-group", "by-az")], "not listed"))
suite.ok("keyvault secret set", lambda: equal(az("keyvault", "secret", "set", "--vault-name", "clients-kv", "--name", "by-az", "--value", "first")["value"], "first"))
suite.ok("keyvault secret set again", lambda: az("keyvault", "secret", "set", "--vault-name", "clients-kv", "--name", "by-az", "--value", "second"))
suite.ok("keyvault secret show", lambda: equal(az("keyvault", "secret", "show", "--vault-name", "clients-kv", "--name", "by-az")["value"], "second"))
suite.ok("keyvault secret list", lambda: must("by-az" in [s["name"] for s in az("keyvault", "secret", "list", "--vault-name", "clients-kv")], "not listed"))
suite.ok("keyvault secret list-versions", lambda: equal(len(az("keyvault", "secret", "list-versions", "--vault-name", "clients-kv", "--name", "by-az")), 2))
suite.ok("keyvault secret delete", lambda: az("keyvault", "secret", "delete", "--vault-name", "clients-kv", "--name", "by-az"))

# Its keys. What az encrypts and signs, the vault does.
kv, one = ("--vault-name", "clients-kv"), ("--vault-name", "clients-kv", "--name", "by-az")
words = base64.b64encode(b"words from az").decode()
sha = base64.b64encode(hashlib.sha256(b"words from az").digest()).decode()
oaep, rs = ("--algorithm", "RSA-OAEP-256", "--data-type", "base64"), ("--algorithm", "RS256", "--digest", sha)
made = suite.ok("keyvault key create", lambda: az("keyvault", "key", "create", *one, "--kty", "RSA", "--size", "2048")["key"]["kid"])
suite.ok("keyvault key list", lambda: must(made.rpartition("/")[0] in [k["kid"] for k in az("keyvault", "key", "list", *kv)], "not listed"))
sealed = suite.ok("keyvault key encrypt", lambda: az("keyvault", "key", "encrypt", *one, *oaep, "--value", words)["result"])
suite.ok("keyvault key decrypt", lambda: equal(az("keyvault", "key", "decrypt", *one, *oaep, "--value", sealed)["result"], words))
signed = suite.ok("keyvault key sign", lambda: az("keyvault", "key", "sign", *one, *rs)["signature"])
suite.ok("keyvault key verify", lambda: equal(az("keyvault", "key", "verify", *one, *rs, "--signature", signed)["isValid"], True))
policy = here / "rotation.json"
policy.write_text(json.dumps({"lifetimeActions": [{"trigger": {"timeAfterCreate": "P90D"}, "action": {"type": "Rotate"}}], "attributes": {"expiryTime": "P2Y"}}))
suite.ok("keyvault key rotation-policy update", lambda: equal(az("keyvault", "key", "rotation-policy", "update", *one, "--value", str(policy))["expiresIn"], "P2Y"))
suite.ok("keyvault key rotation-policy show", lambda: equal(az("keyvault", "key", "rotation-policy", "show", *one)["lifetimeActions"][0]["timeAfterCreate"], "P90D"))
suite.ok("keyvault key rotate", lambda: must(az("keyvault", "key", "rotate", *one)["key"]["kid"] != made, "it is the same version"))
suite.ok("keyvault key show of the version before", lambda: equal(az("keyvault", "key", "show", "--id", made)["key"]["kid"], made))
suite.ok("keyvault key backup", lambda: az("keyvault", "key", "backup", *one, "--file", str(here / "key.backup")))
suite.ok("keyvault key delete", lambda: az("keyvault", "key", "delete", *one))
suite.ok("keyvault key recover", lambda: az("keyvault", "key", "recover", *one))
suite.ok("keyvault key delete again", lambda: az("keyvault", "key", "delete", *one))
suite.ok("keyvault key purge", lambda: az("keyvault", "key", "purge", *one))
suite.ok("keyvault key restore", lambda: must(az("keyvault", "key", "restore", *kv, "--file", str(here / "key.backup"))["key"]["kid"] != made, "the restored key's newest version is the first"))
pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
(here / "key.pem").write_bytes(pem)
suite.ok("keyvault key import", lambda: equal(az("keyvault", "key", "import", *kv, "--name", "az-brought", "--pem-file", str(here / "key.pem"))["key"]["crv"], "P-256"))
suite.ok("keyvault key download", lambda: az("keyvault", "key", "download", *kv, "--name", "az-brought", "--file", str(here / "public.pem")))
suite.ok("what was downloaded is the public part", lambda: equal(serialization.load_pem_public_key((here / "public.pem").read_bytes()), serialization.load_pem_private_key(pem, None).public_key()))

# Its certificates.
suite.ok("keyvault certificate create", lambda: equal(az("keyvault", "certificate", "create", *one[:2], "--name", "az-cert", "--policy", json.dumps(az("keyvault", "certificate", "get-default-policy")))["status"], "completed"))
suite.ok("keyvault certificate show", lambda: equal(az("keyvault", "certificate", "show", *kv, "--name", "az-cert")["policy"]["issuerParameters"]["name"], "Self"))
suite.ok("keyvault certificate list", lambda: must("az-cert" in [c["name"] for c in az("keyvault", "certificate", "list", *kv)], "not listed"))
suite.ok("keyvault certificate download", lambda: az("keyvault", "certificate", "download", *kv, "--name", "az-cert", "--file", str(here / "cert.pem")))
suite.ok("what was downloaded is the certificate", lambda: equal(x509.load_pem_x509_certificate((here / "cert.pem").read_bytes()).subject.rfc4514_string(), "CN=CLIGetDefaultPolicy"))
suite.ok("keyvault secret download of its PFX", lambda: az("keyvault", "secret", "download", *kv, "--name", "az-cert", "--encoding", "base64", "--file", str(here / "cert.pfx")))
suite.ok("keyvault certificate import", lambda: must(az("keyvault", "certificate", "import", *kv, "--name", "az-cert2", "--file", str(here / "cert.pfx"))["x509ThumbprintHex"], "no thumbprint"))
suite.ok("keyvault certificate delete", lambda: az("keyvault", "certificate", "delete", *kv, "--name", "az-cert"))
suite.ok("keyvault certificate purge", lambda: az("keyvault", "certificate", "purge", *kv, "--name", "az-cert"))

# A storage account and its blobs.
text = here / "blob.txt"
text.write_text("from az\n")
blob = ("--account-name", "clientsacct", "--auth-mode", "login")
suite.ok("storage account create", lambda: az("storage", "account", "create", "--name", "byazacct", "--resource-group", "by-az", "--location", world.get("location", "local"), "--sku", "Standard_LRS"))
suite.ok("storage container create", lambda: equal(az("storage", "container", "create", "--name", "by-az", *blob)["created"], True))
suite.ok("storage blob upload", lambda: az("storage", "blob", "upload", "--container-name", "by-az", "--name", "dir/b.txt", "--file", str(text), *blob))
suite.ok("storage blob list", lambda: equal([b["name"] for b in az("storage", "blob", "list", "--container-name", "by-az", *blob)], ["dir/b.txt"]))
suite.ok("storage blob show", lambda: equal(az("storage", "blob", "show", "--container-name", "by-az", "--name", "dir/b.txt", *blob)["properties"]["contentLength"], 8))
suite.ok("storage blob download", lambda: az("storage", "blob", "download", "--container-name", "by-az", "--name", "dir/b.txt", "--file", str(here / "back.txt"), *blob))
suite.ok("the bytes are the same", lambda: equal((here / "back.txt").read_text(), "from az\n"))
suite.refused("an upload over what is there", lambda: az("storage", "blob", "upload", "--container-name", "by-az", "--name", "dir/b.txt", "--file", str(text), *blob), "BlobAlreadyExists", "already exists")
suite.ok("storage blob upload by the account's key", lambda: az("storage", "blob", "upload", "--account-name", "clientsacct", "--container-name", "by-az", "--name", "k.txt", "--file", str(text)))
files = ("--account-name", "clientsacct")
suite.ok("storage share-rm create", lambda: equal(az("storage", "share-rm", "create", "--name", "by-az", "--storage-account", "clientsacct", "--resource-group", "clients", "--quota", "2")["shareQuota"], 2))
suite.ok("storage directory create", lambda: az("storage", "directory", "create", "--share-name", "by-az", "--name", "dir", *files))
suite.ok("storage file upload", lambda: az("storage", "file", "upload", "--share-name", "by-az", "--path", "dir/f.txt", "--source", str(text), *files))
suite.ok("storage file list", lambda: equal([f["name"] for f in az("storage", "file", "list", "--share-name", "by-az", "--path", "dir", *files)], ["f.txt"]))
suite.ok("storage file download", lambda: (az("storage", "file", "download", "--share-name", "by-az", "--path", "dir/f.txt", "--dest", str(here / "file.back"), *files), equal((here / "file.back").read_text(), "from az\n")))
suite.ok("storage blob lease acquire", lambda: az("storage", "blob", "lease", "acquire", "--container-name", "by-az", "--blob-name", "dir/b.txt", "--lease-duration", "60", *blob))
suite.refused("a delete of a leased blob", lambda: az("storage", "blob", "delete", "--container-name", "by-az", "--name", "dir/b.txt", *blob), "LeaseIdMissing", "no lease ID was specified")
suite.ok("storage blob lease break", lambda: az("storage", "blob", "lease", "break", "--container-name", "by-az", "--blob-name", "dir/b.txt", "--lease-break-period", "0", *blob))
suite.ok("storage blob snapshot", lambda: az("storage", "blob", "snapshot", "--container-name", "by-az", "--name", "dir/b.txt", *blob))
suite.ok("storage blob delete with snapshots", lambda: az("storage", "blob", "delete", "--container-name", "by-az", "--name", "dir/b.txt", "--delete-snapshots", "only", *blob))
disk = here / "disk.vhd"
disk.write_bytes(b"d" * 1024 + bytes(7 << 20) + b"e" * 512)
suite.ok("storage blob upload --type page", lambda: az("storage", "blob", "upload", "--container-name", "by-az", "--name", "disk", "--file", str(disk), "--type", "page", *blob))
suite.ok("storage blob download of pages", lambda: (az("storage", "blob", "download", "--container-name", "by-az", "--name", "disk", "--file", str(here / "disk.back"), *blob), must((here / "disk.back").read_bytes() == disk.read_bytes(), "other bytes")))
rules = here / "rules.json"
rules.write_text('{"rules":[{"enabled":true,"name":"old","type":"Lifecycle","definition":{"filters":{"blobTypes":["blockBlob"],"prefixMatch":["by-az/old"]},"actions":{"baseBlob":{"tierToCool":{"daysAfterModificationGreaterThan":30},"delete":{"daysAfterModificationGreaterThan":90}}}}}]}')
suite.ok("storage account management-policy create", lambda: equal(az("storage", "account", "management-policy", "create", "--account-name", "byazacct", "--resource-group", "by-az", "--policy", "@" + str(rules))["policy"]["rules"][0]["name"], "old"))
suite.ok("storage cors add", lambda: az("storage", "cors", "add", "--account-name", "byazacct", "--services", "b", "--methods", "GET", "--origins", "https://page.example", "--allowed-headers", "*", "--exposed-headers", "*", "--max-age", "5"))
suite.ok("storage blob delete", lambda: az("storage", "blob", "delete", "--container-name", "by-az", "--name", "dir/b.txt", *blob))

# Whatever else, by its URL.
suite.ok("rest", lambda: equal(az("rest", "--method", "get", "--url", lab + "?api-version=2024-10-01")["name"], "lab"))
suite.ok("rest with a whole URL", lambda: equal(az("rest", "--method", "get", "--url", f"{world['armEndpoint']}{group}?api-version=2021-04-01")["name"], "clients"))
suite.ok("resource list", lambda: must("lab" in [r["name"] for r in az("resource", "list", "--resource-group", "clients")], "not listed"))


# A person by device code: az says where to go, a browser goes there.
def by_device():
    person = Person(world["admin"]["userName"], world["admin"]["password"], "Correct-Horse-Battery-9!")
    running = subprocess.Popen([program, "login", "--use-device-code", "--tenant", world["tenantId"], "--output", "json"], env={**environment("person"), "AZURE_CORE_ONLY_SHOW_ERRORS": "0"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
    try:
        said = ""
        while not (where := re.search(r"(https://\S+) and enter the code (\S+)", said)):
            line = running.stderr.readline()
            must(line, f"az ended with {said!r}")
            said += line
        end = person.enter(where[1], where[2])
        out, err = running.communicate(timeout=60)
        must(running.returncode == 0, f"{err[-300:]} after the page said {end!r}")
        return json.loads(out)
    finally:
        if running.poll() is None:
            running.kill()


person = suite.ok("login by device code", by_device)
if person:
    suite.ok("it is the person", lambda: equal(person[0]["user"], {"name": world["admin"]["userName"], "type": "user"}))
    suite.ok("the person's refresh token serves another audience", lambda: must(az("ad", "sp", "list", "--display-name", "lab", who="person"), "nothing found"))
    suite.ok("the person lists groups", lambda: must("clients" in [g["name"] for g in az("group", "list", who="person")], "not listed"))
    suite.ok("logout", lambda: az("logout", who="person"))

# What must be refused.
suite.refused("a wrong secret", lambda: login("admin", secret="wrong" * 8, who="wrong"), "AADSTS7000215", "invalid")
suite.refused("a stranger's login finds no subscription", lambda: login("stranger", who="stranger"), "No subscriptions found")
suite.ok("a stranger's login without one", lambda: az("login", "--service-principal", "--username", world["stranger"]["clientId"], "--password", world["stranger"]["clientSecret"], "--tenant", world["tenantId"], "--allow-no-subscriptions", who="stranger"))
suite.refused("a stranger's secret", lambda: az("keyvault", "secret", "list", "--vault-name", "clients-kv", who="stranger"), "Forbidden", "NotFound", "not exist")
suite.refused("a stranger's blob", lambda: az("storage", "blob", "list", "--container-name", "by-az", *blob, who="stranger"), "permission", "assigned one of the following roles", "Authorization", "NotFound", "does not exist")
suite.ok("a reader's login", lambda: login("reader", who="reader"))
suite.ok("a reader's group show", lambda: az("group", "show", "--name", "clients", who="reader"))
suite.refused("a reader's group update", lambda: az("group", "update", "--name", "clients", "--set", "tags.x=y", who="reader"), "AuthorizationFailed")
suite.refused("a reader's role for themselves", lambda: az("role", "assignment", "create", "--assignee-object-id", world["reader"]["objectId"], "--assignee-principal-type", "ServicePrincipal", "--role", "Owner", "--scope", group, who="reader"), "AuthorizationFailed")
suite.refused("a reader's secret", lambda: az("keyvault", "secret", "set", "--vault-name", "clients-kv", "--name", "mine", "--value", "x", who="reader"), "Forbidden")
suite.refused("a reader's key", lambda: az("keyvault", "key", "create", "--vault-name", "clients-kv", "--name", "mine", who="reader"), "Forbidden")
suite.refused("a reader's certificate", lambda: az("keyvault", "certificate", "show", *kv, "--name", "az-cert2", who="reader"), "Forbidden")
suite.refused("a reader's signature", lambda: az("keyvault", "key", "sign", *one, *rs, who="reader"), "Forbidden")
suite.refused("a reader's blob", lambda: az("storage", "blob", "upload", "--container-name", "by-az", "--name", "mine", "--file", str(text), *blob, who="reader"), "permission", "assigned one of the following roles", "Authorization")
suite.refused("a reader's look at the account's keys", lambda: az("storage", "account", "keys", "list", "--account-name", "clientsacct", "--resource-group", "clients", who="reader"), "AuthorizationFailed")
suite.refused("an ARM token on the vault", lambda: az("rest", "--method", "get", "--url", f"https://clients-kv.{world['suffixes']['vault']}/secrets?api-version=7.4", "--resource", world["armEndpoint"]), "Unauthorized", "401", "AKV10022", "audience")

suite.ok("group delete", lambda: az("group", "delete", "--name", "by-az", "--yes"))
suite.ok("group exists no more", lambda: within(30, lambda: az("group", "exists", "--name", "by-az") is False))
suite.finish()
