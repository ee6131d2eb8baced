package blob

import "castellan/internal/arm"

// What one can do with blobs. Storage Blob Data Reader has the first, Storage
// Blob Data Contributor all.
var (
	BlobRead   = arm.NewDataAction("Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read", "read blobs and list them")
	BlobWrite  = arm.NewDataAction("Microsoft.Storage/storageAccounts/blobServices/containers/blobs/write", "make and change blobs")
	BlobDelete = arm.NewDataAction("Microsoft.Storage/storageAccounts/blobServices/containers/blobs/delete", "delete blobs")
	// Storage Blob Data Owner alone has this.
	BlobDeleteVersion   = arm.NewDataAction("Microsoft.Storage/storageAccounts/blobServices/containers/blobs/deleteBlobVersion/action", "delete versions of blobs")
	BlobDeletePermanent = arm.NewDataAction("Microsoft.Storage/storageAccounts/blobServices/containers/blobs/permanentDelete/action", "remove for good snapshots and versions that are deleted but kept")
	// The rights to tags are Storage Blob Data Owner's alone.
	BlobTagsRead  = arm.NewDataAction("Microsoft.Storage/storageAccounts/blobServices/containers/blobs/tags/read", "see the tags of blobs")
	BlobTagsWrite = arm.NewDataAction("Microsoft.Storage/storageAccounts/blobServices/containers/blobs/tags/write", "change the tags of blobs")
	BlobFilter    = arm.NewDataAction("Microsoft.Storage/storageAccounts/blobServices/containers/blobs/filter/action", "find blobs by their tags")
	BlobAdd       = arm.NewDataAction("Microsoft.Storage/storageAccounts/blobServices/containers/blobs/add/action", "add to the end of append blobs")
	// The rights to access lists are Storage Blob Data Owner's alone.
	BlobMove        = arm.NewDataAction("Microsoft.Storage/storageAccounts/blobServices/containers/blobs/move/action", "move paths of a hierarchical namespace")
	BlobPermissions = arm.NewDataAction("Microsoft.Storage/storageAccounts/blobServices/containers/blobs/modifyPermissions/action", "change the access lists of paths")
	BlobOwnership   = arm.NewDataAction("Microsoft.Storage/storageAccounts/blobServices/containers/blobs/manageOwnership/action", "change the owner and the group of paths")
)

// What one can do with containers, by either plane.
var (
	ContainerRead   = arm.NewAction("Microsoft.Storage/storageAccounts/blobServices/containers/read", "see a blob container")
	ContainerWrite  = arm.NewAction("Microsoft.Storage/storageAccounts/blobServices/containers/write", "make or change a blob container")
	ContainerDelete = arm.NewAction("Microsoft.Storage/storageAccounts/blobServices/containers/delete", "delete a blob container")
	PolicyRead      = arm.NewAction("Microsoft.Storage/storageAccounts/blobServices/containers/getAcl/action", "see a container's stored access policies")
	PolicyWrite     = arm.NewAction("Microsoft.Storage/storageAccounts/blobServices/containers/setAcl/action", "change a container's stored access policies")
)

// What one can do with files in shares. A token must allow besides what backup software
// does (FileBackupRead, FileBackupWrite): files have no access lists here that could
// say more. Storage File Data Privileged Contributor has all of these.
var (
	FileRead        = arm.NewDataAction("Microsoft.Storage/storageAccounts/fileServices/fileshares/files/read", "read files in shares and list them")
	FileWrite       = arm.NewDataAction("Microsoft.Storage/storageAccounts/fileServices/fileshares/files/write", "make and change files in shares")
	FileDelete      = arm.NewDataAction("Microsoft.Storage/storageAccounts/fileServices/fileshares/files/delete", "delete files in shares")
	FileBackupRead  = arm.NewDataAction("Microsoft.Storage/storageAccounts/fileServices/readFileBackupSemantics/action", "read files in shares whatever their access lists say")
	FileBackupWrite = arm.NewDataAction("Microsoft.Storage/storageAccounts/fileServices/writeFileBackupSemantics/action", "change files in shares whatever their access lists say")
)

// What one can do with shares, by either plane.
var (
	ShareRead        = arm.NewAction("Microsoft.Storage/storageAccounts/fileServices/shares/read", "see a file share")
	ShareWrite       = arm.NewAction("Microsoft.Storage/storageAccounts/fileServices/shares/write", "make or change a file share")
	ShareDelete      = arm.NewAction("Microsoft.Storage/storageAccounts/fileServices/shares/delete", "delete a file share")
	SharePolicyRead  = arm.NewAction("Microsoft.Storage/storageAccounts/fileServices/shares/getAcl/action", "see a share's stored access policies")
	SharePolicyWrite = arm.NewAction("Microsoft.Storage/storageAccounts/fileServices/shares/setAcl/action", "change a share's stored access policies")
	FileServiceRead  = arm.NewAction("Microsoft.Storage/storageAccounts/fileServices/read", "see the settings of an account's file shares")
	FileServiceWrite = arm.NewAction("Microsoft.Storage/storageAccounts/fileServices/write", "change the settings of an account's file shares")
)

// What one can do with what keeps a container from being changed.
var (
	HoldSet     = arm.NewAction("Microsoft.Storage/storageAccounts/blobServices/containers/setLegalHold/action", "put a legal hold on a container")
	HoldClear   = arm.NewAction("Microsoft.Storage/storageAccounts/blobServices/containers/clearLegalHold/action", "take a legal hold from a container")
	GuardRead   = arm.NewAction("Microsoft.Storage/storageAccounts/blobServices/containers/immutabilityPolicies/read", "see a container's immutability policy")
	GuardWrite  = arm.NewAction("Microsoft.Storage/storageAccounts/blobServices/containers/immutabilityPolicies/write", "set a container's immutability policy")
	GuardDelete = arm.NewAction("Microsoft.Storage/storageAccounts/blobServices/containers/immutabilityPolicies/delete", "delete a container's unlocked immutability policy")
	GuardLock   = arm.NewAction("Microsoft.Storage/storageAccounts/blobServices/containers/immutabilityPolicies/lock/action", "lock a container's immutability policy for good")
	GuardExtend = arm.NewAction("Microsoft.Storage/storageAccounts/blobServices/containers/immutabilityPolicies/extend/action", "make a container's locked immutability policy longer")
)

// What one can do with an account beside reading, writing and deleting it.
var (
	ServiceRead      = arm.NewAction("Microsoft.Storage/storageAccounts/blobServices/read", "see the settings of an account's blobs")
	ServiceWrite     = arm.NewAction("Microsoft.Storage/storageAccounts/blobServices/write", "change the settings of an account's blobs")
	DelegationKey    = arm.NewAction("Microsoft.Storage/storageAccounts/blobServices/generateUserDelegationKey/action", "sign for others what one may do oneself")
	DelegationRevoke = arm.NewAction("Microsoft.Storage/storageAccounts/revokeUserDelegationKeys/action", "end all user delegation signatures of an account")
	KeyList          = arm.NewAction("Microsoft.Storage/storageAccounts/listkeys/action", "read an account's keys, which open all of it")
	KeyRegenerate    = arm.NewAction("Microsoft.Storage/storageAccounts/regeneratekey/action", "replace an account's key")
	NameCheck        = arm.NewAction("Microsoft.Storage/checknameavailability/read", "see whether an account name is free")
)

// byKey is what an account key can do: everything with the account's data.
var byKey = []arm.Action{BlobRead, BlobWrite, BlobDelete, BlobDeleteVersion, BlobDeletePermanent, BlobAdd, BlobTagsRead, BlobTagsWrite, BlobFilter, BlobMove, BlobPermissions, BlobOwnership, ContainerRead, ContainerWrite, ContainerDelete, PolicyRead, PolicyWrite, ServiceRead, ServiceWrite,
	FileRead, FileWrite, FileDelete, FileBackupRead, FileBackupWrite, ShareRead, ShareWrite, ShareDelete, SharePolicyRead, SharePolicyWrite, FileServiceRead, FileServiceWrite}
