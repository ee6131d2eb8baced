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
}
