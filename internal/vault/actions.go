package vault

import "castellan/internal/arm"

// What one can do in a vault. Key Vault Secrets User has the first two, Key
// Vault Secrets Officer all.
var (
	SecretGet      = arm.NewDataAction("Microsoft.KeyVault/vaults/secrets/getSecret/action", "read a secret's value")
	SecretMetadata = arm.NewDataAction("Microsoft.KeyVault/vaults/secrets/readMetadata/action", "list secrets and see all but their values")
	SecretSet      = arm.NewDataAction("Microsoft.KeyVault/vaults/secrets/setSecret/action", "make a secret or a new version of one")
	SecretUpdate   = arm.NewDataAction("Microsoft.KeyVault/vaults/secrets/update/action", "change when a secret is valid, and its tags")
	SecretDelete   = arm.NewDataAction("Microsoft.KeyVault/vaults/secrets/delete", "delete a secret, so that it can be recovered")
	SecretRecover  = arm.NewDataAction("Microsoft.KeyVault/vaults/secrets/recover/action", "recover a deleted secret")
	SecretPurge    = arm.NewDataAction("Microsoft.KeyVault/vaults/secrets/purge/action", "delete a deleted secret for good")
)

// Backups of secrets.
var (
	SecretBackup  = arm.NewDataAction("Microsoft.KeyVault/vaults/secrets/backup/action", "take a sealed copy of a secret with all its versions")
	SecretRestore = arm.NewDataAction("Microsoft.KeyVault/vaults/secrets/restore/action", "put a sealed copy of a secret into a vault")
)

// What one can do with keys. Key Vault Crypto User has those that use a key, Key
// Vault Crypto Officer all.
var (
	KeyRead       = arm.NewDataAction("Microsoft.KeyVault/vaults/keys/read", "list keys and see their public parts")
	KeyCreate     = arm.NewDataAction("Microsoft.KeyVault/vaults/keys/create/action", "make a key or a new version of one")
	KeyImport     = arm.NewDataAction("Microsoft.KeyVault/vaults/keys/import/action", "bring a key from elsewhere")
	KeyUpdate     = arm.NewDataAction("Microsoft.KeyVault/vaults/keys/update/action", "change when and for what a key is valid, and its tags")
	KeyDelete     = arm.NewDataAction("Microsoft.KeyVault/vaults/keys/delete", "delete a key, so that it can be recovered")
	KeyRecover    = arm.NewDataAction("Microsoft.KeyVault/vaults/keys/recover/action", "recover a deleted key")
	KeyPurge      = arm.NewDataAction("Microsoft.KeyVault/vaults/keys/purge/action", "delete a deleted key for good")
	KeyBackup     = arm.NewDataAction("Microsoft.KeyVault/vaults/keys/backup/action", "take a sealed copy of a key with all its versions")
	KeyRestore    = arm.NewDataAction("Microsoft.KeyVault/vaults/keys/restore/action", "put a sealed copy of a key into a vault")
	KeyEncrypt    = arm.NewDataAction("Microsoft.KeyVault/vaults/keys/encrypt/action", "encrypt with a key")
	KeyDecrypt    = arm.NewDataAction("Microsoft.KeyVault/vaults/keys/decrypt/action", "decrypt with a key")
	KeyWrap       = arm.NewDataAction("Microsoft.KeyVault/vaults/keys/wrap/action", "wrap a key with a key")
	KeyUnwrap     = arm.NewDataAction("Microsoft.KeyVault/vaults/keys/unwrap/action", "unwrap a key with a key")
	KeySign       = arm.NewDataAction("Microsoft.KeyVault/vaults/keys/sign/action", "sign a digest with a key")
	KeyVerify     = arm.NewDataAction("Microsoft.KeyVault/vaults/keys/verify/action", "verify a signature with a key")
	KeyRelease    = arm.NewDataAction("Microsoft.KeyVault/vaults/keys/release/action", "take a key out to an attested place")
	KeyRotate     = arm.NewDataAction("Microsoft.KeyVault/vaults/keys/rotate/action", "make a new version of a key as its rotation policy says")
	RotationRead  = arm.NewDataAction("Microsoft.KeyVault/vaults/keyrotationpolicies/read", "see a key's rotation policy")
	RotationWrite = arm.NewDataAction("Microsoft.KeyVault/vaults/keyrotationpolicies/write", "change a key's rotation policy")
)

// What one can do with certificates, and with whom they come from and concern.
// Key Vault Certificates Officer has all. Seeing who is concerned takes the right
// to change it, as there is no other.
var (
	CertificateRead    = arm.NewDataAction("Microsoft.KeyVault/vaults/certificates/read", "list certificates, see them, their policies and how their making goes")
	CertificateCreate  = arm.NewDataAction("Microsoft.KeyVault/vaults/certificates/create/action", "make a certificate or a new version of one")
	CertificateImport  = arm.NewDataAction("Microsoft.KeyVault/vaults/certificates/import/action", "bring a certificate with its key from elsewhere")
	CertificateUpdate  = arm.NewDataAction("Microsoft.KeyVault/vaults/certificates/update/action", "change a certificate's policy, tags and whether it is enabled, and cancel its making")
	CertificateDelete  = arm.NewDataAction("Microsoft.KeyVault/vaults/certificates/delete", "delete a certificate with its key and secret, so that it can be recovered")
	CertificateRecover = arm.NewDataAction("Microsoft.KeyVault/vaults/certificates/recover/action", "recover a deleted certificate")
	CertificatePurge   = arm.NewDataAction("Microsoft.KeyVault/vaults/certificates/purge/action", "delete a deleted certificate for good")
	CertificateBackup  = arm.NewDataAction("Microsoft.KeyVault/vaults/certificates/backup/action", "take a sealed copy of a certificate with all its versions and keys")
	CertificateRestore = arm.NewDataAction("Microsoft.KeyVault/vaults/certificates/restore/action", "put a sealed copy of a certificate into a vault")
	ContactsWrite      = arm.NewDataAction("Microsoft.KeyVault/vaults/certificatecontacts/write", "see and change whom a vault's certificates concern")
	IssuerRead         = arm.NewDataAction("Microsoft.KeyVault/vaults/certificatecas/read", "list issuers of certificates and see them")
	IssuerWrite        = arm.NewDataAction("Microsoft.KeyVault/vaults/certificatecas/write", "set an issuer of certificates")
	IssuerDelete       = arm.NewDataAction("Microsoft.KeyVault/vaults/certificatecas/delete", "delete an issuer of certificates")
)

// What one can do to vaults beside reading, writing and deleting them.
var (
	PolicyWrite     = arm.NewAction("Microsoft.KeyVault/vaults/accessPolicies/write", "change a vault's access policies")
	DeletedList     = arm.NewAction("Microsoft.KeyVault/deletedVaults/read", "list deleted vaults")
	DeletedRead     = arm.NewAction("Microsoft.KeyVault/locations/deletedVaults/read", "see a deleted vault")
	DeletedPurge    = arm.NewAction("Microsoft.KeyVault/locations/deletedVaults/purge/action", "delete a deleted vault for good")
	NameCheck       = arm.NewAction("Microsoft.KeyVault/checkNameAvailability/read", "see whether a vault name is free")
	assignmentWrite = arm.NewAction("Microsoft.Authorization/roleAssignments/write", "assign roles")
)

// permits maps the actions to the permissions of access policies that allow
// them; an action that is not here no policy allows.
var permits = map[string][]string{
	SecretGet.Key():      {"get"},
	SecretMetadata.Key(): {"list"},
	SecretSet.Key():      {"set"},
	SecretUpdate.Key():   {"set"},
	SecretDelete.Key():   {"delete"},
	SecretRecover.Key():  {"recover"},
	SecretPurge.Key():    {"purge"},
	SecretBackup.Key():   {"backup"},
	SecretRestore.Key():  {"restore"},

	KeyRead.Key():       {"list"},
	KeyCreate.Key():     {"create"},
	KeyImport.Key():     {"import"},
	KeyUpdate.Key():     {"update"},
	KeyDelete.Key():     {"delete"},
	KeyRecover.Key():    {"recover"},
	KeyPurge.Key():      {"purge"},
	KeyBackup.Key():     {"backup"},
	KeyRestore.Key():    {"restore"},
	KeyEncrypt.Key():    {"encrypt"},
	KeyDecrypt.Key():    {"decrypt"},
	KeyWrap.Key():       {"wrapkey"},
	KeyUnwrap.Key():     {"unwrapkey"},
	KeySign.Key():       {"sign"},
	KeyVerify.Key():     {"verify"},
	KeyRelease.Key():    {"release"},
	KeyRotate.Key():     {"rotate"},
	RotationRead.Key():  {"getrotationpolicy"},
	RotationWrite.Key(): {"setrotationpolicy"},

	CertificateRead.Key():    {"list"},
	CertificateCreate.Key():  {"create"},
	CertificateImport.Key():  {"import"},
	CertificateUpdate.Key():  {"update"},
	CertificateDelete.Key():  {"delete"},
	CertificateRecover.Key(): {"recover"},
	CertificatePurge.Key():   {"purge"},
	CertificateBackup.Key():  {"backup"},
	CertificateRestore.Key(): {"restore"},
	ContactsWrite.Key():      {"managecontacts"},
	IssuerRead.Key():         {"listissuers", "manageissuers"},
	IssuerWrite.Key():        {"setissuers", "manageissuers"},
	IssuerDelete.Key():       {"deleteissuers", "manageissuers"},
}
