package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/keyvault/armkeyvault/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/storage/armstorage/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
)

const (
	account = "bygoacct"
	vault   = "by-go-kv"
)

// storage makes an account and uses its blobs, by token and by key.
func (r *run) storage() {
	accounts, err := armstorage.NewAccountsClient(r.SubscriptionID, r.admin, r.arm())
	if err == nil {
		poller, e := accounts.BeginCreate(r.ctx, group, account, armstorage.AccountCreateParameters{
			Location: &r.Location, Kind: to.Ptr(armstorage.KindStorageV2), SKU: &armstorage.SKU{Name: to.Ptr(armstorage.SKUNameStandardLRS)},
			Properties: &armstorage.AccountPropertiesCreateParameters{AllowSharedKeyAccess: to.Ptr(true)},
		}, nil)
		if err = e; err == nil {
			_, err = poller.PollUntilDone(r.ctx, fast)
		}
	}
	if !r.ok("armstorage: account create", err) {
		return
	}
	got, err := accounts.GetProperties(r.ctx, group, account, nil)
	if !r.ok("armstorage: account get", err) || got.Properties == nil || got.Properties.PrimaryEndpoints == nil {
		r.ok("armstorage: its blob endpoint", fmt.Errorf("no primaryEndpoints"))
		return
	}
	url := value(got.Properties.PrimaryEndpoints.Blob)
	containers, err := armstorage.NewBlobContainersClient(r.SubscriptionID, r.admin, r.arm())
	if err == nil {
		_, err = containers.Create(r.ctx, group, account, "by-arm", armstorage.BlobContainer{ContainerProperties: &armstorage.ContainerProperties{}}, nil)
	}
	r.ok("armstorage: container create", err)
	keys, err := accounts.ListKeys(r.ctx, group, account, nil)
	if err == nil && len(keys.Keys) < 2 {
		err = fmt.Errorf("%d keys", len(keys.Keys))
	}
	r.ok("armstorage: keys", err)
	r.bearer(url)
	if err == nil {
		r.sharedKey(url, value(keys.Keys[0].Value))
	}
	theirs, err := armstorage.NewAccountsClient(r.SubscriptionID, r.reader, r.arm())
	if err == nil {
		_, err = theirs.ListKeys(r.ctx, group, account, nil)
	}
	r.refused("a reader's look at the keys", err, "AuthorizationFailed")
}

func (r *run) blobs(url string, who azcore.TokenCredential) (*azblob.Client, error) {
	return azblob.NewClient(url, who, &azblob.ClientOptions{ClientOptions: r.opts})
}

func (r *run) bearer(url string) {
	c, err := r.blobs(url, r.admin)
	if err == nil {
		_, err = c.CreateContainer(r.ctx, "data", nil)
	}
	if !r.ok("azblob, token: container create", err) {
		return
	}
	_, err = c.CreateContainer(r.ctx, "data", nil)
	r.refused("the same container twice", err, string(bloberror.ContainerAlreadyExists))
	small := []byte("small blob")
	_, err = c.UploadBuffer(r.ctx, "data", "dir/small.txt", small, nil)
	r.ok("azblob, token: upload", err)
	large := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MiB
	_, err = c.UploadStream(r.ctx, "data", "large.bin", bytes.NewReader(large), &azblob.UploadStreamOptions{BlockSize: 1 << 20})
	r.ok("azblob, token: upload in blocks", err)
	r.ok("azblob, token: download is the same", same(r, c, "data", "large.bin", large))
	part, err := c.DownloadStream(r.ctx, "data", "large.bin", &azblob.DownloadStreamOptions{Range: blob.HTTPRange{Offset: 5, Count: 7}})
	if err == nil {
		b, e := io.ReadAll(part.Body)
		if err = e; err == nil {
			err = equal(string(b), "56789ab")
		}
	}
	r.ok("azblob, token: a range", err)
	names := ""
	for pages := c.NewListBlobsFlatPager("data", &azblob.ListBlobsFlatOptions{MaxResults: to.Ptr(int32(1))}); pages.More(); {
		page, e := pages.NextPage(r.ctx)
		if err = e; err != nil {
			break
		}
		for _, b := range page.Segment.BlobItems {
			names += value(b.Name) + " "
		}
	}
	if err == nil {
		err = equal(names, "dir/small.txt large.bin ")
	}
	r.ok("azblob, token: list, page by page", err)
	b := c.ServiceClient().NewContainerClient("data").NewBlobClient("dir/small.txt")
	_, err = b.SetMetadata(r.ctx, map[string]*string{"k": to.Ptr("v")}, nil)
	r.ok("azblob, token: metadata", err)
	props, err := b.GetProperties(r.ctx, nil)
	if err == nil {
		err = equal(value(props.ContentLength), int64(len(small)))
	}
	r.ok("azblob, token: properties", err)
	_, err = b.Delete(r.ctx, &blob.DeleteOptions{AccessConditions: &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfMatch: to.Ptr(azcore.ETag(`"0xnone"`))}}})
	r.refused("a delete of another etag", err, string(bloberror.ConditionNotMet))
	for _, w := range []struct {
		name string
		who  azcore.TokenCredential
	}{{"a stranger's", r.stranger}, {"a reader of the account, who is none of its data, whose", r.reader}} {
		theirs, err := r.blobs(url, w.who)
		if err == nil {
			_, err = theirs.DownloadStream(r.ctx, "data", "dir/small.txt", nil)
		}
		r.refused(w.name+" download", err, "AuthorizationPermissionMismatch", "AuthorizationFailure", "BlobNotFound", "ResourceNotFound", "ContainerNotFound")
		if theirs != nil {
			_, err = theirs.UploadBuffer(r.ctx, "data", "mine.txt", small, nil)
			r.refused(w.name+" upload", err, "AuthorizationPermissionMismatch", "AuthorizationFailure", "ResourceNotFound", "ContainerNotFound")
		}
	}
	r.refused("an ARM token on a blob", r.bare(url+"data/dir/small.txt", r.ARM), "401", "403")
	_, err = c.DeleteBlob(r.ctx, "data", "large.bin", nil)
	r.ok("azblob, token: delete", err)
}

func same(r *run, c *azblob.Client, container, name string, want []byte) error {
	got := make([]byte, len(want))
	n, err := c.DownloadBuffer(r.ctx, container, name, got, nil)
	if err != nil {
		return err
	}
	if n != int64(len(want)) || !bytes.Equal(got, want) {
		return fmt.Errorf("%d bytes came, and not the same", n)
	}
	return nil
}

func (r *run) sharedKey(url, key string) {
	cred, err := azblob.NewSharedKeyCredential(account, key)
	if !r.ok("azblob, key: credential", err) {
		return
	}
	c, err := azblob.NewClientWithSharedKeyCredential(url, cred, &azblob.ClientOptions{ClientOptions: r.opts})
	if err == nil {
		_, err = c.CreateContainer(r.ctx, "keyed", &azblob.CreateContainerOptions{Metadata: map[string]*string{"k": to.Ptr("v")}})
	}
	r.ok("azblob, key: container create", err)
	_, err = c.UploadBuffer(r.ctx, "keyed", "odd name/ä+b.txt", []byte("keyed"), nil)
	r.ok("azblob, key: upload to an odd name", err)
	r.ok("azblob, key: download", same(r, c, "keyed", "odd name/ä+b.txt", []byte("keyed")))
	var found []string
	for pages := c.ServiceClient().NewContainerClient("keyed").NewListBlobsHierarchyPager("/", &container.ListBlobsHierarchyOptions{}); pages.More(); {
		page, e := pages.NextPage(r.ctx)
		if err = e; err != nil {
			break
		}
		for _, p := range page.Segment.BlobPrefixes {
			found = append(found, value(p.Name))
		}
	}
	if err == nil {
		err = equal(strings.Join(found, " "), "odd name/")
	}
	r.ok("azblob, key: list by folders", err)
	r.depth(c)
	bad, err := azblob.NewSharedKeyCredential(account, "AAAA"+key[4:])
	if err == nil {
		c, e := azblob.NewClientWithSharedKeyCredential(url, bad, &azblob.ClientOptions{ClientOptions: r.opts})
		if err = e; err == nil {
			_, err = c.DownloadStream(r.ctx, "keyed", "odd name/ä+b.txt", nil)
		}
	}
	r.refused("a wrong account key", err, "AuthenticationFailed")
}

// vault makes a key vault and keeps secrets in it.
func (r *run) vault() {
	vaults, err := armkeyvault.NewVaultsClient(r.SubscriptionID, r.admin, r.arm())
	url := ""
	if err == nil {
		poller, e := vaults.BeginCreateOrUpdate(r.ctx, group, vault, armkeyvault.VaultCreateOrUpdateParameters{Location: &r.Location, Properties: &armkeyvault.VaultProperties{
			TenantID: &r.TenantID, SKU: &armkeyvault.SKU{Family: to.Ptr(armkeyvault.SKUFamilyA), Name: to.Ptr(armkeyvault.SKUNameStandard)}, EnableRbacAuthorization: to.Ptr(true),
		}}, nil)
		if err = e; err == nil {
			made, e := poller.PollUntilDone(r.ctx, fast)
			if err = e; err == nil && made.Properties != nil {
				url = value(made.Properties.VaultURI)
			}
		}
	}
	if !r.ok("armkeyvault: vault create", err) {
		return
	}
	_, err = vaults.Get(r.ctx, group, vault, nil)
	r.ok("armkeyvault: vault get", err)
	secrets := func(who azcore.TokenCredential) *azsecrets.Client {
		c, err := azsecrets.NewClient(url, who, &azsecrets.ClientOptions{ClientOptions: r.opts})
		if err != nil {
			r.ok("azsecrets: client", err)
		}
		return c
	}
	c := secrets(r.admin)
	if c == nil {
		return
	}
	_, err = c.SetSecret(r.ctx, "pw", azsecrets.SetSecretParameters{Value: to.Ptr("first"), ContentType: to.Ptr("text/plain"), Tags: map[string]*string{"a": to.Ptr("b")}}, nil)
	r.ok("azsecrets: set", err)
	second, err := c.SetSecret(r.ctx, "pw", azsecrets.SetSecretParameters{Value: to.Ptr("second")}, nil)
	r.ok("azsecrets: set again", err)
	newest, err := c.GetSecret(r.ctx, "pw", "", nil)
	if err == nil {
		err = equal(value(newest.Value), "second")
	}
	if err == nil && second.ID != nil {
		err = equal(newest.ID.Version(), second.ID.Version())
	}
	r.ok("azsecrets: the newest version", err)
	n := 0
	for pages := c.NewListSecretPropertiesVersionsPager("pw", nil); pages.More(); {
		page, e := pages.NextPage(r.ctx)
		if err = e; err != nil {
			break
		}
		n += len(page.Value)
	}
	if err == nil {
		err = equal(n, 2)
	}
	r.ok("azsecrets: list of versions", err)
	_, err = secrets(r.reader).GetSecret(r.ctx, "pw", "", nil)
	r.refused("a reader's get of a secret", err, "Forbidden")
	_, err = secrets(r.stranger).GetSecret(r.ctx, "pw", "", nil)
	r.refused("a stranger's get of a secret", err, "Forbidden", "SecretNotFound", "404")
	_, err = secrets(r.reader).SetSecret(r.ctx, "pw", azsecrets.SetSecretParameters{Value: to.Ptr("mine")}, nil)
	r.refused("a reader's set of a secret", err, "Forbidden")
	r.refused("an ARM token on the vault", r.bare(url+"secrets/pw?api-version=7.4", r.ARM), "401")
	_, err = c.DeleteSecret(r.ctx, "pw", nil)
	r.ok("azsecrets: delete", err)
	_, err = c.GetSecret(r.ctx, "pw", "", nil)
	r.refused("get of the deleted secret", err, "SecretNotFound")
	_, err = c.GetDeletedSecret(r.ctx, "pw", nil)
	r.ok("azsecrets: the deleted secret", err)
	_, err = c.RecoverDeletedSecret(r.ctx, "pw", nil)
	r.ok("azsecrets: recover", err)
	saved, err := c.BackupSecret(r.ctx, "pw", nil)
	r.ok("azsecrets: backup", err)
	if _, err = c.DeleteSecret(r.ctx, "pw", nil); err == nil {
		_, err = c.PurgeDeletedSecret(r.ctx, "pw", nil)
	}
	r.ok("azsecrets: purge", err)
	back, err := c.RestoreSecret(r.ctx, azsecrets.RestoreSecretParameters{SecretBackup: saved.Value}, nil)
	if err == nil {
		err = equal(back.ID.Version(), newest.ID.Version())
	}
	r.ok("azsecrets: restore", err)
	r.keys(url)
	r.certificates(url)
}
