"""The Azure CLI: a storage account whose key a customer's key guards, in a vault."""

from azcli import az, here, login, world
from checks import Suite, equal, must, within

suite = Suite("encryption")
where = ("--resource-group", "guards")
must(login("admin"), "no sign-in")
me = ("--assignee-object-id", world["admin"]["objectId"], "--assignee-principal-type", "ServicePrincipal")

suite.ok("group create", lambda: az("group", "create", "--name", "guards", "--location", world.get("location", "local")))
vault = suite.ok("keyvault create with purge protection", lambda: az("keyvault", "create", "--name", "cmk-by-az", *where, "--location", world.get("location", "local"), "--enable-purge-protection", "true"))
account = suite.ok("storage account create with an identity, encrypted twice", lambda: az("storage", "account", "create", "--name", "cmkbyaz", *where, "--location", world.get("location", "local"), "--sku", "Standard_LRS", "--identity-type", "SystemAssigned", "--require-infrastructure-encryption", "true"))
suite.ok("requireInfrastructureEncryption is shown", lambda: equal(account["encryption"]["requireInfrastructureEncryption"], True))
suite.ok("role assignment create, for the vault's keys", lambda: az("role", "assignment", "create", *me, "--role", "Key Vault Crypto Officer", "--scope", vault["id"]))
suite.ok("role assignment create, for the blobs", lambda: az("role", "assignment", "create", *me, "--role", "Storage Blob Data Owner", "--scope", account["id"]))
suite.ok("keyvault key create", lambda: az("keyvault", "key", "create", "--vault-name", "cmk-by-az", "--name", "guard", "--kty", "RSA", "--size", "3072"))

use = ("storage", "account", "update", "--name", "cmkbyaz", *where, "--encryption-key-source", "Microsoft.Keyvault", "--encryption-key-vault", vault["properties"]["vaultUri"], "--encryption-key-name", "guard")
suite.refused("the key, while the account's identity may not use it", lambda: az(*use), "KeyVaultAuthenticationFailure")
suite.ok("role assignment create, for the account's identity", lambda: az("role", "assignment", "create", "--assignee-object-id", account["identity"]["principalId"], "--assignee-principal-type", "ServicePrincipal", "--role", "Key Vault Crypto Service Encryption User", "--scope", vault["id"]))
suite.ok("storage account update --encryption-key-source", lambda: equal(az(*use)["encryption"]["keySource"], "Microsoft.Keyvault"))

blob = ("--account-name", "cmkbyaz", "--auth-mode", "login")
(here / "guarded.txt").write_text("guarded\n")
suite.ok("storage container create", lambda: az("storage", "container", "create", "--name", "data", *blob))
suite.ok("storage blob upload", lambda: az("storage", "blob", "upload", "--container-name", "data", "--name", "b", "--file", str(here / "guarded.txt"), *blob))


def download():
    az("storage", "blob", "download", "--container-name", "data", "--name", "b", "--file", str(here / "open.txt"), *blob)
    return equal((here / "open.txt").read_text(), "guarded\n")


def again():
    try:
        return download()
    except AssertionError:
        return None


suite.ok("keyvault key set-attributes --enabled false", lambda: az("keyvault", "key", "set-attributes", "--vault-name", "cmk-by-az", "--name", "guard", "--enabled", "false"))
suite.refused("to read, while the key is disabled", download, "KeyVaultEncryptionKeyNotFound")
suite.ok("keyvault key set-attributes --enabled true", lambda: az("keyvault", "key", "set-attributes", "--vault-name", "cmk-by-az", "--name", "guard", "--enabled", "true"))
suite.ok("all is back", lambda: within(10, again))
suite.finish()
