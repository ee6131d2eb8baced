package main

import (
	"bytes"
	"errors"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/storage/armstorage/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azdatalake"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azdatalake/file"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azdatalake/filesystem"
)

const lakeAccount = "clientsgolake"

// lake drives an account with a hierarchical namespace.
func (r *run) lake() {
	accounts, err := armstorage.NewAccountsClient(r.SubscriptionID, r.admin, r.arm())
	var got armstorage.AccountsClientCreateResponse
	var keys armstorage.AccountsClientListKeysResponse
	if err == nil {
		poller, e := accounts.BeginCreate(r.ctx, group, lakeAccount, armstorage.AccountCreateParameters{
			Location: &r.Location, Kind: to.Ptr(armstorage.KindStorageV2), SKU: &armstorage.SKU{Name: to.Ptr(armstorage.SKUNameStandardLRS)},
			Properties: &armstorage.AccountPropertiesCreateParameters{IsHnsEnabled: to.Ptr(true)},
		}, nil)
		if err = e; err == nil {
			got, err = poller.PollUntilDone(r.ctx, fast)
		}
	}
	if err == nil {
		keys, err = accounts.ListKeys(r.ctx, group, lakeAccount, nil)
	}
	if !r.ok("armstorage: an account with a hierarchical namespace", err) {
		return
	}
	url := value(got.Properties.PrimaryEndpoints.Dfs) + "data"
	cred, err := azdatalake.NewSharedKeyCredential(lakeAccount, value(keys.Keys[0].Value))
	var fs *filesystem.Client
	if err == nil {
		fs, err = filesystem.NewClientWithSharedKeyCredential(url, cred, &filesystem.ClientOptions{ClientOptions: r.opts})
	}
	if err == nil {
		_, err = fs.Create(r.ctx, nil)
	}
	if !r.ok("azdatalake: file system create", err) {
		return
	}
	r.files(fs)
	r.access(fs, url)
}

// read is what a file has.
func (r *run) read(f *file.Client, want string) error {
	got, err := f.DownloadStream(r.ctx, nil)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	_, err = b.ReadFrom(got.Body)
	return errors.Join(err, got.Body.Close(), equal(b.String(), want))
}

// names are the paths of a file system.
func (r *run) names(fs *filesystem.Client) (string, error) {
	var out []string
	for pages := fs.NewListPathsPager(true, &filesystem.ListPathsOptions{MaxResults: to.Ptr(int32(2))}); pages.More(); {
		page, err := pages.NextPage(r.ctx)
		if err != nil {
			return "", err
		}
		for _, p := range page.Paths {
			out = append(out, value(p.Name))
		}
	}
	return strings.Join(out, " "), nil
}

func (r *run) files(fs *filesystem.Client) {
	dir := fs.NewDirectoryClient("a/b")
	_, err := dir.Create(r.ctx, nil)
	r.ok("azdatalake: directory create", err)
	f := fs.NewFileClient("a/b/f")
	_, err = f.Create(r.ctx, nil)
	if err == nil {
		_, err = f.AppendData(r.ctx, 0, streaming.NopCloser(strings.NewReader("hello")), &file.AppendDataOptions{TransactionalValidation: file.TransferValidationTypeComputeCRC64()})
	}
	r.ok("azdatalake: append with a CRC64", err)
	_, err = f.FlushData(r.ctx, 6, nil)
	r.refused("a flush of more than was appended", err, "InvalidFlushPosition")
	_, err = f.FlushData(r.ctx, 5, nil)
	if err == nil {
		err = r.read(f, "hello")
	}
	r.ok("azdatalake: flush, and read", err)
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<17)
	up := fs.NewFileClient("a/big")
	_, err = up.Create(r.ctx, nil)
	if err == nil {
		err = up.UploadBuffer(r.ctx, big, &file.UploadBufferOptions{ChunkSize: 300 << 10, Concurrency: 3})
	}
	if err == nil {
		err = r.read(up, string(big))
	}
	r.ok("azdatalake: upload in parallel chunks", err)
	props, err := up.GetProperties(r.ctx, nil)
	if err == nil {
		err = errors.Join(equal(value(props.ContentLength), int64(len(big))), equal(value(props.Owner), "$superuser"), equal(value(props.ResourceType), "file"))
	}
	r.ok("azdatalake: properties", err)
	_, err = dir.Rename(r.ctx, "a/c d", nil)
	list, e := r.names(fs)
	r.ok("azdatalake: rename a directory, and list by pages", errors.Join(err, e, equal(list, "a a/big a/c d a/c d/f")))
	_, err = fs.NewDirectoryClient("a/c d").Rename(r.ctx, "none/x", nil)
	r.refused("a rename into no directory", err, "RenameDestinationParentPathNotFound")
	_, err = fs.NewFileClient("a").Delete(r.ctx, nil)
	r.refused("a delete of a full directory as a file", err, "DirectoryNotEmpty")
	_, err = fs.NewDirectoryClient("a/c d").Delete(r.ctx, nil)
	r.ok("azdatalake: delete a directory", err)
}

// access lets the stranger in by lists alone, and shuts them out again.
func (r *run) access(fs *filesystem.Client, url string) {
	root := fs.NewDirectoryClient("/")
	theirs := func(who azcore.TokenCredential) (*file.Client, error) {
		return file.NewClient(url+"/a/big", who, &file.ClientOptions{ClientOptions: r.opts})
	}
	c, err := theirs(r.stranger)
	if err == nil {
		_, err = c.DownloadStream(r.ctx, nil)
	}
	r.refused("a stranger's read of a file", err, "AuthorizationPermissionMismatch")
	id := r.Stranger.ObjectID
	done, err := root.UpdateAccessControlRecursive(r.ctx, "user:"+id+":r-x", nil)
	if err == nil {
		err = errors.Join(equal(value(done.DirectoriesSuccessful), 2), equal(value(done.FilesSuccessful), 1), equal(value(done.FailureCount), 0))
	}
	r.ok("azdatalake: modify access below the root", err)
	if c, err = theirs(r.stranger); err == nil {
		_, err = c.DownloadStream(r.ctx, nil)
	}
	r.ok("azdatalake: then the stranger reads", err)
	if c != nil {
		_, err = c.AppendData(r.ctx, 0, streaming.NopCloser(strings.NewReader("x")), nil)
		r.refused("a stranger's append", err, "AuthorizationPermissionMismatch")
	}
	shown, err := root.GetAccessControl(r.ctx, nil)
	if err == nil {
		err = equal(value(shown.ACL), "user::rwx,user:"+id+":r-x,group::r-x,mask::r-x,other::---")
	}
	r.ok("azdatalake: access of the root", err)
	_, err = root.RemoveAccessControlRecursive(r.ctx, "user:"+id, nil)
	if err == nil {
		if c, err = theirs(r.stranger); err == nil {
			_, err = c.DownloadStream(r.ctx, nil)
		}
	}
	r.refused("the stranger's read, once they are removed", err, "AuthorizationPermissionMismatch")
}
