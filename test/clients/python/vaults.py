"""What vaults keep, by the Azure SDK's clients for Python: keys, of which the client does half the work itself, and secrets; a vault that access policies decide for."""

import base64
import datetime
import hashlib

from azure.identity import ClientSecretCredential
from azure.keyvault.certificates import CertificateClient, CertificateContact, CertificatePolicy
from azure.keyvault.keys import JsonWebKey, KeyClient, KeyCurveName, KeyRotationLifetimeAction, KeyRotationPolicy, KeyRotationPolicyAction
from azure.keyvault.keys.crypto import CryptographyClient, EncryptionAlgorithm, KeyWrapAlgorithm, SignatureAlgorithm
from azure.keyvault.secrets import SecretClient
from checks import equal, must
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12
from sdk import typed, world

WORDS = b"words of thirty-two bytes, a key"


def credential(who):
    return ClientSecretCredential(world["tenantId"], world[who]["clientId"], world[who]["clientSecret"], authority=world["loginEndpoint"], disable_instance_discovery=True)


def drive(suite, management, group, location):
    """Makes a vault with access policies: the administrator has all but purge, the reader signs, verifies and decrypts by keys that it can't see."""
    permissions = {"admin": {"keys": ["all"], "secrets": ["all"], "certificates": ["all"]}, "reader": {"keys": ["sign", "verify", "decrypt", "unwrapKey"]}}
    policies = [{"tenantId": world["tenantId"], "objectId": world[who]["objectId"], "permissions": p} for who, p in permissions.items()]
    body = {"location": location, "properties": {"tenantId": world["tenantId"], "sku": {"family": "A", "name": "standard"}, "enableRbacAuthorization": False, "accessPolicies": policies}}
    made = suite.ok("a vault with access policies", lambda: management.admin.vaults.begin_create_or_update(group, "py-policies", body).result())
    url = made.properties.vault_uri
    keys(suite, url)
    secrets(suite, url)
    certificates(suite, url)
    firewall(suite, management, group, url)


def keys(suite, url):
    def ok(what, do):
        return suite.ok("keys: " + what, do)

    clients = {who: KeyClient(url, credential(who), retry_total=1) for who in ("admin", "reader", "stranger")}
    c = clients["admin"]
    key = ok("create_rsa_key", lambda: c.create_rsa_key("py-rsa", size=2048, tags={"a": "b"}))
    curve = ok("create_ec_key", lambda: c.create_ec_key("py-ec", curve=KeyCurveName.p_256))
    whole = CryptographyClient(key, credential("admin"))  # encrypts and verifies by itself
    blind = CryptographyClient(key.id, credential("reader"))  # may not see the key, and has the vault do all
    for alg in (SignatureAlgorithm.rs256, SignatureAlgorithm.ps512):
        d = hashlib.new("sha256" if alg == SignatureAlgorithm.rs256 else "sha512", WORDS).digest()
        signed = ok(f"sign by {alg.value}", lambda: whole.sign(alg, d).signature)
        ok(f"{alg.value} verified here", lambda: must(whole.verify(alg, d, signed).is_valid, "it does not verify"))
        ok(f"{alg.value} verified by the vault", lambda: must(blind.verify(alg, d, signed).is_valid, "it does not verify"))
        ok(f"{alg.value}, bent, verified by the vault", lambda: equal(blind.verify(alg, d, signed[:-1] + bytes([signed[-1] ^ 1])).is_valid, False))
    for alg in (EncryptionAlgorithm.rsa_oaep, EncryptionAlgorithm.rsa_oaep_256):
        ok(f"{alg.value}: encrypted here, decrypted by the vault", lambda: equal(blind.decrypt(alg, whole.encrypt(alg, WORDS).ciphertext).plaintext, WORDS))
    ok("wrapped here, unwrapped by the vault", lambda: equal(blind.unwrap_key(KeyWrapAlgorithm.rsa_oaep_256, whole.wrap_key(KeyWrapAlgorithm.rsa_oaep_256, WORDS).encrypted_key).key, WORDS))
    typed(suite, "keys: a wrap without the permission to", lambda: blind.wrap_key(KeyWrapAlgorithm.rsa_oaep, WORDS), 403, "Forbidden")
    sha256 = hashlib.sha256(WORDS).digest()
    by = CryptographyClient(curve, credential("admin"))
    ok("ES256 signed by the vault, verified here", lambda: must(by.verify(SignatureAlgorithm.es256, sha256, by.sign(SignatureAlgorithm.es256, sha256).signature).is_valid, "it does not verify"))
    ok("the key's private part is not here", lambda: must(not key.key.d and not key.key.p, "it has a private part"))
    n = ec.generate_private_key(ec.SECP384R1()).private_numbers()
    d, x, y = (i.to_bytes(48, "big") for i in (n.private_value, n.public_numbers.x, n.public_numbers.y))
    ok("import_key", lambda: equal(c.import_key("py-ec", JsonWebKey(kty="EC", crv="P-384", d=d, x=x, y=y, key_ops=["sign", "verify"])).key.x, x))
    ok("list_properties_of_keys", lambda: equal(sorted(k.name for k in c.list_properties_of_keys()), ["py-ec", "py-rsa"]))
    ok("list_properties_of_key_versions", lambda: equal(len(list(c.list_properties_of_key_versions("py-ec"))), 2))
    ok("update_key_properties", lambda: equal(c.update_key_properties("py-ec", curve.properties.version, enabled=False, tags={"c": "d"}).properties.enabled, False))
    policy = KeyRotationPolicy(expires_in="P2Y", lifetime_actions=[KeyRotationLifetimeAction(KeyRotationPolicyAction.rotate, time_after_create="P1Y")])
    ok("update_key_rotation_policy", lambda: equal(c.update_key_rotation_policy("py-rsa", policy).expires_in, "P2Y"))
    ok("get_key_rotation_policy", lambda: equal(c.get_key_rotation_policy("py-rsa").lifetime_actions[0].time_after_create, "P1Y"))
    ok("rotate_key", lambda: must(c.rotate_key("py-rsa").id != key.id, "it is the same version"))
    ok("the version before decrypts still", lambda: equal(blind.decrypt(EncryptionAlgorithm.rsa_oaep, whole.encrypt(EncryptionAlgorithm.rsa_oaep, WORDS).ciphertext).plaintext, WORDS))
    saved = ok("backup_key", lambda: c.backup_key("py-ec"))
    ok("begin_delete_key", lambda: must(c.begin_delete_key("py-ec", _polling_interval=0.2).result().recovery_id, "no recovery id"))
    ok("get_deleted_key", lambda: c.get_deleted_key("py-ec"))
    ok("list_deleted_keys", lambda: equal([k.name for k in c.list_deleted_keys()], ["py-ec"]))
    typed(suite, "keys: restore_key_backup over what is in the bin", lambda: c.restore_key_backup(saved), 409, "Conflict")
    typed(suite, "keys: purge_deleted_key by who has all, which purge is not of", lambda: c.purge_deleted_key("py-ec"), 403, "Forbidden")
    ok("begin_recover_deleted_key", lambda: equal(c.begin_recover_deleted_key("py-ec", _polling_interval=0.2).result().name, "py-ec"))
    for who in ("reader", "stranger"):
        typed(suite, f"keys: a {who}'s get_key", lambda who=who: clients[who].get_key("py-rsa"), 403, "Forbidden")
        typed(suite, f"keys: a {who}'s list", lambda who=who: clients[who].list_properties_of_keys(), 403, "Forbidden")
    typed(suite, "keys: a stranger's signature", lambda: CryptographyClient(key.id, credential("stranger")).sign(SignatureAlgorithm.rs256, sha256), 403, "Forbidden")
    typed(suite, "keys: a signature by a disabled key", lambda: by.sign(SignatureAlgorithm.es256, sha256), 403, "Forbidden")


def secrets(suite, url):
    c, theirs = SecretClient(url, credential("admin"), retry_total=1), SecretClient(url, credential("reader"), retry_total=1)
    suite.ok("secrets: set_secret", lambda: equal(c.set_secret("py", "words", content_type="text/plain", tags={"a": "b"}).value, "words"))
    suite.ok("secrets: get_secret", lambda: equal(c.get_secret("py").properties.content_type, "text/plain"))
    suite.ok("secrets: update_secret_properties", lambda: equal(c.update_secret_properties("py", enabled=False).enabled, False))
    typed(suite, "secrets: get_secret of a disabled one", lambda: c.get_secret("py"), 403, "Forbidden")
    typed(suite, "secrets: get_secret by who has permissions on keys alone", lambda: theirs.get_secret("py"), 403, "Forbidden")
    typed(suite, "secrets: get_secret of none", lambda: c.get_secret("none-such"), 404, "SecretNotFound")


def certificates(suite, url):
    def ok(what, do):
        return suite.ok("certificates: " + what, do)

    c, theirs = CertificateClient(url, credential("admin"), retry_total=1), CertificateClient(url, credential("reader"), retry_total=1)
    value = SecretClient(url, credential("admin"), retry_total=1)
    policy = CertificatePolicy(issuer_name="Self", subject="CN=py.example", san_dns_names=["py.example"], san_ip_addresses=["10.0.0.1"], san_uris=["spiffe://py.example/a"], key_type="EC", key_curve_name="P-256", exportable=True, validity_in_months=3)
    made = ok("begin_create_certificate", lambda: c.begin_create_certificate("py-self", policy, tags={"a": "b"}).result())
    leaf = x509.load_der_x509_certificate(bytes(made.cer))
    ok("it signs itself", lambda: leaf.verify_directly_issued_by(leaf))
    ok("its other names", lambda: equal([str(n.value) for n in leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value], ["py.example", "spiffe://py.example/a", "10.0.0.1"]))
    ok("its thumbprint", lambda: equal(bytes(made.properties.x509_thumbprint), leaf.fingerprint(hashes.SHA1())))
    loaded = ok("its secret is a PFX", lambda: pkcs12.load_pkcs12(base64.b64decode(value.get_secret("py-self").value), None))
    ok("which has certificate and key", lambda: must(loaded.cert.certificate == leaf and loaded.key.public_key() == leaf.public_key(), "another one"))
    ok("get_certificate_operation", lambda: equal(c.get_certificate_operation("py-self").status, "completed"))
    ok("get_certificate_policy", lambda: equal(c.get_certificate_policy("py-self").san_dns_names, ["py.example"]))
    ok("update_certificate_policy", lambda: equal(c.update_certificate_policy("py-self", CertificatePolicy(issuer_name="Self", subject="CN=py2.example", validity_in_months=6)).subject, "CN=py2.example"))
    ok("update_certificate_properties", lambda: equal(c.update_certificate_properties("py-self", enabled=True, tags={"c": "d"}).properties.tags, {"c": "d"}))
    key = ec.generate_private_key(ec.SECP384R1())
    now = datetime.datetime.now(datetime.timezone.utc)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "brought")])
    own = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=90)).sign(key, hashes.SHA384())
    pfx = pkcs12.serialize_key_and_certificates(b"brought", key, own, None, serialization.BestAvailableEncryption(b"words"))
    ok("import_certificate, PFX", lambda: equal(bytes(c.import_certificate("py-brought", pfx, password="words").cer), own.public_bytes(serialization.Encoding.DER)))
    typed(suite, "certificates: import_certificate with a wrong password", lambda: c.import_certificate("py-brought", pfx, password="other"), 400, "BadParameter")
    typed(suite, "certificates: create by an issuer that there is not", lambda: c.begin_create_certificate("py-none", CertificatePolicy(issuer_name="nobody", subject="CN=a")), 400, "BadParameter")
    typed(suite, "certificates: delete of a certificate's secret", lambda: value.begin_delete_secret("py-self"), 403, "Forbidden")
    typed(suite, "certificates: a certificate by who has permissions on keys alone", lambda: theirs.get_certificate("py-self"), 403, "Forbidden")
    ok("list_properties_of_certificates", lambda: equal(sorted(p.name for p in c.list_properties_of_certificates()), ["py-brought", "py-self"]))
    ok("create_issuer", lambda: equal(c.create_issuer("digi", "DigiCert", account_id="me").provider, "DigiCert"))
    ok("list_properties_of_issuers", lambda: equal([i.name for i in c.list_properties_of_issuers()], ["digi"]))
    ok("delete_issuer", lambda: c.delete_issuer("digi"))
    ok("set_contacts", lambda: equal(c.set_contacts([CertificateContact(email="a@example")])[0].email, "a@example"))
    ok("delete_contacts", lambda: c.delete_contacts())
    ok("begin_delete_certificate", lambda: c.begin_delete_certificate("py-self", _polling_interval=0.2).result())
    ok("begin_recover_deleted_certificate", lambda: equal(c.begin_recover_deleted_certificate("py-self", _polling_interval=0.2).result().name, "py-self"))


def firewall(suite, management, group, url):
    """Shuts the vault to all but an address that is not this machine's, and lets this machine in again."""
    c = SecretClient(url, credential("admin"), retry_total=1)

    def shut(address):
        acls = {"defaultAction": "Deny", "bypass": "AzureServices", "ipRules": [{"value": address}], "virtualNetworkRules": []}
        return management.admin.vaults.update(group, "py-policies", {"properties": {"networkAcls": acls}}).properties.network_acls.ip_rules[0].value

    suite.ok("firewall: a rule of another address", lambda: equal(shut("192.0.2.1"), "192.0.2.1/32"))
    typed(suite, "firewall: set_secret from here", lambda: c.set_secret("py-shut", "x"), 403, "Forbidden")
    suite.ok("firewall: a rule of this machine's addresses", lambda: equal(shut("127.0.0.0/8"), "127.0.0.0/8"))
    suite.ok("firewall: set_secret from there", lambda: equal(c.set_secret("py-shut", "x").value, "x"))
