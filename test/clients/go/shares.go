package main

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/storage/armstorage/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azfile/directory"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azfile/file"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azfile/sas"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azfile/service"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azfile/share"
)

// shares drives file shares of the account of the lake.
func (r *run) shares() {
	arms, err := armstorage.NewFileSharesClient(r.SubscriptionID, r.admin, r.arm())
	if err == nil {
		_, err = arms.Create(r.ctx, group, lakeAccount, "data", armstorage.FileShare{FileShareProperties: &armstorage.FileShareProperties{ShareQuota: to.Ptr(int32(7))}}, nil)
	}
	var got armstorage.FileSharesClientGetResponse
	if err == nil {
		got, err = arms.Get(r.ctx, group, lakeAccount, "data", nil)
	}
	if err == nil {
		err = equal(value(got.FileShareProperties.ShareQuota), int32(7))
	}
	accounts, e := armstorage.NewAccountsClient(r.SubscriptionID, r.admin, r.arm())
	var keys armstorage.AccountsClientListKeysResponse
	if e == nil {
		keys, e = accounts.ListKeys(r.ctx, group, lakeAccount, nil)
	}
	if !r.ok("armstorage: a file share", errors.Join(err, e)) {
		return
	}
	cred, err := service.NewSharedKeyCredential(lakeAccount, value(keys.Keys[0].Value))
	url := "https://" + lakeAccount + ".file." + r.Suffixes["storage"] + "/"
	var svc *service.Client
	if err == nil {
		svc, err = service.NewClientWithSharedKeyCredential(url, cred, &service.ClientOptions{ClientOptions: r.opts})
	}
	if !r.ok("azfile: client", err) {
		return
	}
	s := svc.NewShareClient("data")
	props, err := s.GetProperties(r.ctx, nil)
	r.ok("azfile: share properties", errors.Join(err, equal(value(props.Quota), int32(7))))
	_, err = svc.NewShareClient("other").Create(r.ctx, &share.CreateOptions{AccessTier: to.Ptr(share.AccessTierHot)})
	r.ok("azfile: share create", err)
	r.shared(s, url, cred)
}

func (r *run) shared(s *share.Client, url string, cred *service.SharedKeyCredential) {
	dir := s.NewDirectoryClient("Dir")
	_, err := dir.Create(r.ctx, nil)
	r.ok("azfile: directory create", err)
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<19)
	f := dir.NewFileClient("Big.bin")
	_, err = f.Create(r.ctx, int64(len(big)), &file.CreateOptions{HTTPHeaders: &file.HTTPHeaders{ContentType: to.Ptr("a/b")}})
	if err == nil {
		err = f.UploadBuffer(r.ctx, big, &file.UploadBufferOptions{ChunkSize: 1 << 20, Concurrency: 3})
	}
	down := make([]byte, len(big))
	if err == nil {
		_, err = s.NewDirectoryClient("DIR").NewFileClient("BIG.BIN").DownloadBuffer(r.ctx, down, &file.DownloadBufferOptions{ChunkSize: 3 << 20})
	}
	r.ok("azfile: upload in parallel ranges, and read under a name in another case", errors.Join(err, equal(bytes.Equal(down, big), true)))
	got, err := f.GetProperties(r.ctx, nil)
	r.ok("azfile: file properties", errors.Join(err, equal(value(got.ContentLength), int64(len(big))), equal(value(got.ContentType), "a/b")))
	_, err = f.ClearRange(r.ctx, file.HTTPRange{Offset: 512, Count: 1024}, nil)
	if err == nil {
		_, err = f.Resize(r.ctx, 4096, nil)
	}
	ranges, e := f.GetRangeList(r.ctx, nil)
	if err = errors.Join(err, e); err == nil {
		err = equal(len(ranges.Ranges), 2)
	}
	r.ok("azfile: clear a range, cut, and list ranges", err)
	_, err = f.SetMetadata(r.ctx, &file.SetMetadataOptions{Metadata: map[string]*string{"a": to.Ptr("b")}})
	r.ok("azfile: metadata", err)
	_, err = dir.Rename(r.ctx, "moved", nil)
	r.ok("azfile: rename a directory", err)
	var names []string
	pages := s.NewDirectoryClient("moved").NewListFilesAndDirectoriesPager(&directory.ListFilesAndDirectoriesOptions{Include: directory.ListFilesInclude{Timestamps: true, ETag: true}})
	for err = nil; pages.More() && err == nil; {
		var page directory.ListFilesAndDirectoriesResponse
		if page, err = pages.NextPage(r.ctx); err == nil {
			for _, x := range page.Segment.Files {
				names = append(names, value(x.Name))
			}
		}
	}
	r.ok("azfile: list", errors.Join(err, equal(strings.Join(names, " "), "Big.bin")))
	_, err = s.NewDirectoryClient("moved").Delete(r.ctx, nil)
	r.refused("azfile: a delete of a full directory", err, "DirectoryNotEmpty")

	signed, err := sas.SignatureValues{Protocol: sas.ProtocolHTTPS, ExpiryTime: time.Now().Add(time.Hour).UTC(), ShareName: "data", FilePath: "moved/Big.bin", Permissions: (&sas.FilePermissions{Read: true}).String()}.SignWithSharedKey(cred)
	if !r.ok("azfile: a signature", err) {
		return
	}
	with := func(path string) *file.Client {
		c, _ := file.NewClientWithNoCredential(url+path+"?"+signed.Encode(), &file.ClientOptions{ClientOptions: r.opts})
		return c
	}
	text := func(c *file.Client) error {
		got, err := c.DownloadStream(r.ctx, nil)
		if err != nil {
			return err
		}
		b, err := io.ReadAll(got.Body)
		return errors.Join(err, got.Body.Close(), equal(len(b), 4096))
	}
	r.ok("azfile: a file's signature opens it", text(with("data/moved/Big.bin")))
	r.refused("a file's signature for another share", text(with("other/moved/Big.bin")), "AuthenticationFailed")
	_, err = with("data/moved/Big.bin").Delete(r.ctx, nil)
	r.refused("a delete by a signature that reads", err, "AuthorizationPermissionMismatch")
	by := func(who azcore.TokenCredential, intent *share.TokenIntent) error {
		c, err := file.NewClient(url+"data/moved/Big.bin", who, &file.ClientOptions{ClientOptions: r.opts, FileRequestIntent: intent})
		if err != nil {
			return err
		}
		return text(c)
	}
	r.refused("a stranger's read of a file in a share", by(r.stranger, to.Ptr(share.TokenIntentBackup)), "AuthorizationPermissionMismatch")
}
