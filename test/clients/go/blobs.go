package main

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/storage/armstorage/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/lease"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/pageblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/service"
)

// depth drives what blobs can do beside being read and written.
func (r *run) depth(c *azblob.Client) {
	box := c.ServiceClient().NewContainerClient("depth")
	if _, err := box.Create(r.ctx, nil); !r.ok("azblob: a container for what follows", err) {
		return
	}
	r.leases(c, box)
	r.history(c, box)
	r.tagged(c, box)
	r.guarded(c, box)
	r.firewall(c)
	r.batch(box)
	r.settings(c)
	r.aging()
	r.pages(box)
}

// pages seals an append blob, and keeps a disk: written in places, resized, and compared with what it was.
func (r *run) pages(box *container.Client) {
	done := box.NewAppendBlobClient("done")
	_, err := done.Create(r.ctx, nil)
	if err == nil {
		_, err = done.Seal(r.ctx, nil)
	}
	r.ok("azblob: seal", err)
	_, err = done.AppendBlock(r.ctx, streaming.NopCloser(strings.NewReader("more")), nil)
	r.refused("more of what is sealed", err, "BlobIsSealed")

	disk := box.NewPageBlobClient("disk")
	_, err = disk.Create(r.ctx, 1<<20, &pageblob.CreateOptions{SequenceNumber: to.Ptr(int64(3))})
	put := func(at int64, b byte) error {
		data := bytes.Repeat([]byte{b}, 4096)
		_, err := disk.UploadPages(r.ctx, streaming.NopCloser(bytes.NewReader(data)), blob.HTTPRange{Offset: at, Count: int64(len(data))}, nil)
		return err
	}
	if err == nil {
		err = put(8192, 'a')
	}
	if !r.ok("azblob pages: write", err) {
		return
	}
	snap, err := disk.CreateSnapshot(r.ctx, nil)
	if err == nil {
		_, err = disk.ClearPages(r.ctx, blob.HTTPRange{Offset: 8192, Count: 512}, nil)
	}
	if err == nil {
		err = put(65536, 'b')
	}
	r.ok("azblob pages: clear", err)
	list, err := disk.NewGetPageRangesPager(nil).NextPage(r.ctx)
	if err == nil {
		err = equal(len(list.PageRange), 2)
	}
	r.ok("azblob pages: what was written", err)
	if snap.Snapshot != nil {
		diff, err := disk.NewGetPageRangesDiffPager(&pageblob.GetPageRangesDiffOptions{PrevSnapshot: snap.Snapshot}).NextPage(r.ctx)
		if err == nil {
			err = errors.Join(equal(len(diff.PageRange), 1), equal(len(diff.ClearRange), 1))
		}
		r.ok("azblob pages: what is other since a snapshot", err)
	}
	_, err = disk.Resize(r.ctx, 2<<20, nil)
	r.ok("azblob pages: resize", err)
	n, err := disk.UpdateSequenceNumber(r.ctx, &pageblob.UpdateSequenceNumberOptions{ActionType: to.Ptr(pageblob.SequenceNumberActionTypeIncrement)})
	if err == nil {
		err = equal(*n.BlobSequenceNumber, int64(4))
	}
	r.ok("azblob pages: sequence number", err)
	_, err = disk.UploadPages(r.ctx, streaming.NopCloser(bytes.NewReader(make([]byte, 512))), blob.HTTPRange{Count: 512}, &pageblob.UploadPagesOptions{SequenceNumberAccessConditions: &pageblob.SequenceNumberAccessConditions{IfSequenceNumberLessThan: to.Ptr(int64(4))}})
	r.refused("a write of an older writer", err, "SequenceNumberConditionNotMet")
	got, err := disk.DownloadStream(r.ctx, &blob.DownloadStreamOptions{Range: blob.HTTPRange{Offset: 8192, Count: 1024}})
	if err == nil {
		var b bytes.Buffer
		_, err = b.ReadFrom(got.Body)
		err = errors.Join(err, got.Body.Close(), equal(b.String(), strings.Repeat("\x00", 512)+strings.Repeat("a", 512)))
	}
	r.ok("azblob pages: read", err)
}

// aging gives the account a lifecycle rule.
func (r *run) aging() {
	c, err := armstorage.NewManagementPoliciesClient(r.SubscriptionID, r.admin, r.arm())
	rule := func(days float32, prefix string) armstorage.ManagementPolicy {
		return armstorage.ManagementPolicy{Properties: &armstorage.ManagementPolicyProperties{Policy: &armstorage.ManagementPolicySchema{Rules: []*armstorage.ManagementPolicyRule{{
			Name: to.Ptr("old"), Type: to.Ptr(armstorage.RuleTypeLifecycle), Definition: &armstorage.ManagementPolicyDefinition{
				Filters: &armstorage.ManagementPolicyFilter{BlobTypes: []*string{to.Ptr("blockBlob")}, PrefixMatch: []*string{&prefix}},
				Actions: &armstorage.ManagementPolicyAction{BaseBlob: &armstorage.ManagementPolicyBaseBlob{Delete: &armstorage.DateAfterModification{DaysAfterModificationGreaterThan: &days}}},
			},
		}}}}}
	}
	if err == nil {
		_, err = c.CreateOrUpdate(r.ctx, group, account, armstorage.ManagementPolicyNameDefault, rule(30, "depth/old"), nil)
	}
	if err == nil {
		_, err = c.Get(r.ctx, group, account, armstorage.ManagementPolicyNameDefault, nil)
	}
	if !r.ok("armstorage: lifecycle rules", err) {
		return
	}
	_, err = c.CreateOrUpdate(r.ctx, group, account, armstorage.ManagementPolicyNameDefault, rule(-1, "depth/old"), nil)
	r.refused("a rule for what is not there yet", err, "whole number")
	_, err = c.Delete(r.ctx, group, account, armstorage.ManagementPolicyNameDefault, nil)
	r.ok("armstorage: no lifecycle rules", err)
}

// settings changes what an account's blobs have in common, and asks as a browser would.
func (r *run) settings(c *azblob.Client) {
	site := "https://page.example"
	_, err := c.ServiceClient().SetProperties(r.ctx, &service.SetPropertiesOptions{CORS: []*service.CORSRule{{
		AllowedOrigins: &site, AllowedMethods: to.Ptr("GET"), AllowedHeaders: to.Ptr("x-ms-*"), ExposedHeaders: to.Ptr("x-ms-*"), MaxAgeInSeconds: to.Ptr(int32(60)),
	}}})
	r.ok("azblob: set CORS rules", err)
	got, err := c.ServiceClient().GetProperties(r.ctx, nil)
	if err == nil && len(got.CORS) != 1 {
		err = errors.New("the rule is not there")
	}
	r.ok("azblob: get the service's properties", err)
	_, err = c.ServiceClient().SetProperties(r.ctx, &service.SetPropertiesOptions{StaticWebsite: &service.StaticWebsite{Enabled: to.Ptr(true)}})
	r.refused("a static website", err, "FeatureNotSupported")
	_, err = c.ServiceClient().GetAccountInfo(r.ctx, nil)
	r.ok("azblob: the account's information", err)
	req, err := http.NewRequestWithContext(r.ctx, http.MethodOptions, c.URL()+"depth/tagged", nil)
	if err == nil {
		req.Header.Set("Origin", site)
		req.Header.Set("Access-Control-Request-Method", "GET")
		var resp *http.Response
		if resp, err = http.DefaultClient.Do(req); err == nil {
			err = errors.Join(equal(resp.Header.Get("Access-Control-Allow-Origin"), site), resp.Body.Close())
		}
	}
	r.ok("azblob: a preflight", err)
}

// batch deletes several blobs by one request, each by its own right.
func (r *run) batch(box *container.Client) {
	b, err := box.NewBatchBuilder()
	if err == nil {
		err = errors.Join(b.Delete("leased", nil), b.Delete("none", nil))
	}
	var got container.SubmitBatchResponse
	if err == nil {
		got, err = box.SubmitBatch(r.ctx, b, nil)
	}
	if err == nil {
		err = equal(len(got.Responses), 2)
	}
	if !r.ok("azblob: a batch of deletes", err) {
		return
	}
	r.ok("azblob batch: what is there is deleted", got.Responses[0].Error)
	r.refused("in a batch, a delete of what is not there", got.Responses[1].Error, string(bloberror.BlobNotFound))
}

func (r *run) leases(c *azblob.Client, box *container.Client) {
	_, err := c.UploadBuffer(r.ctx, "depth", "leased", []byte("one"), nil)
	l, e := lease.NewBlobClient(box.NewBlobClient("leased"), nil)
	if err == nil && e == nil {
		_, err = l.AcquireLease(r.ctx, 15, nil)
	}
	if !r.ok("azblob lease: acquire", err) || e != nil {
		return
	}
	_, err = c.UploadBuffer(r.ctx, "depth", "leased", []byte("two"), nil)
	r.refused("a write without the lease", err, string(bloberror.LeaseIDMissing))
	_, err = c.UploadBuffer(r.ctx, "depth", "leased", []byte("two"), &azblob.UploadBufferOptions{AccessConditions: &blob.AccessConditions{LeaseAccessConditions: &blob.LeaseAccessConditions{LeaseID: l.LeaseID()}}})
	r.ok("azblob lease: write with it", err)
	_, err = l.RenewLease(r.ctx, nil)
	r.ok("azblob lease: renew", err)
	_, err = l.ReleaseLease(r.ctx, nil)
	r.ok("azblob lease: release", err)
}

// history has the account keep versions and what is deleted.
func (r *run) history(c *azblob.Client, box *container.Client) {
	services, err := armstorage.NewBlobServicesClient(r.SubscriptionID, r.admin, r.arm())
	week := &armstorage.DeleteRetentionPolicy{Enabled: to.Ptr(true), Days: to.Ptr(int32(7))}
	if err == nil {
		_, err = services.SetServiceProperties(r.ctx, group, account, armstorage.BlobServiceProperties{BlobServiceProperties: &armstorage.BlobServicePropertiesProperties{DeleteRetentionPolicy: week}}, nil)
	}
	r.ok("armstorage: keep what is deleted", err)
	b := box.NewBlockBlobClient("past")
	_, err = c.UploadBuffer(r.ctx, "depth", "past", []byte("first"), nil)
	var snap blob.CreateSnapshotResponse
	if err == nil {
		snap, err = b.CreateSnapshot(r.ctx, nil)
	}
	r.ok("azblob snapshot: create", err)
	_, err = b.Delete(r.ctx, nil)
	r.refused("a delete of a blob with snapshots", err, string(bloberror.SnapshotsPresent))
	_, err = b.Delete(r.ctx, &blob.DeleteOptions{DeleteSnapshots: to.Ptr(blob.DeleteSnapshotsOptionTypeInclude)})
	r.ok("azblob: delete with snapshots", err)
	deleted := 0
	for pages := box.NewListBlobsFlatPager(&container.ListBlobsFlatOptions{Include: container.ListBlobsInclude{Deleted: true, Snapshots: true}}); err == nil && pages.More(); {
		page, e := pages.NextPage(r.ctx)
		if err = e; err != nil {
			break
		}
		for _, i := range page.Segment.BlobItems {
			if value(i.Deleted) {
				deleted++
			}
		}
	}
	if err == nil && deleted < 2 {
		err = equal(deleted, 2)
	}
	r.ok("azblob list: what is deleted", err)
	_, err = b.Undelete(r.ctx, nil)
	r.ok("azblob: undelete", err)
	if value(snap.Snapshot) == "" {
		return
	}
	old, err := b.WithSnapshot(value(snap.Snapshot))
	if err == nil {
		got := make([]byte, 5)
		if _, err = old.DownloadBuffer(r.ctx, got, nil); err == nil {
			err = equal(string(got), "first")
		}
	}
	r.ok("azblob snapshot: read what came back", err)
}

func (r *run) tagged(c *azblob.Client, box *container.Client) {
	_, err := c.UploadBuffer(r.ctx, "depth", "tagged", []byte("x"), &azblob.UploadBufferOptions{Tags: map[string]string{"Project": "Cascade"}})
	r.ok("azblob tags: upload with tags", err)
	b := box.NewBlockBlobClient("tagged")
	got, err := b.GetTags(r.ctx, nil)
	if err == nil {
		err = equal(len(got.BlobTagSet), 1)
	}
	r.ok("azblob tags: get", err)
	found, err := c.ServiceClient().FilterBlobs(r.ctx, `@container = 'depth' AND "Project" = 'Cascade'`, nil)
	if err == nil {
		err = equal(len(found.Blobs), 1)
	}
	r.ok("azblob tags: find", err)
	_, err = b.Delete(r.ctx, &blob.DeleteOptions{AccessConditions: &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfTags: to.Ptr(`"Project" = 'Other'`)}}})
	r.refused("a delete of other tags", err, string(bloberror.ConditionNotMet))
	_, err = b.SetTier(r.ctx, blob.AccessTierArchive, nil)
	r.ok("azblob: archive", err)
	_, err = b.DownloadStream(r.ctx, nil)
	r.refused("a read of what is archived", err, string(bloberror.BlobArchived))
	_, err = b.SetTier(r.ctx, blob.AccessTierHot, nil)
	r.ok("azblob: take out of the archive", err)
	source, err := b.GetSASURL(sas.BlobPermissions{Read: true}, time.Now().Add(time.Hour), nil)
	to1 := box.NewBlockBlobClient("from-url")
	if err == nil {
		_, err = to1.StageBlockFromURL(r.ctx, "QQ==", source, nil)
	}
	r.ok("azblob: stage a block from a URL", err)
	_, err = to1.StageBlockFromURL(r.ctx, "QQ==", "https://example.com/"+strings.TrimPrefix(source, "https://"), nil)
	r.refused("a block from elsewhere", err, string(bloberror.CannotVerifyCopySource))
	_, err = to1.StageBlock(r.ctx, "Qg==", streaming.NopCloser(bytes.NewReader([]byte("checked"))), &blockblob.StageBlockOptions{TransactionalValidation: blob.TransferValidationTypeComputeCRC64()})
	r.ok("azblob: stage a block with its CRC64", err)
	_, err = to1.StageBlock(r.ctx, "Qg==", streaming.NopCloser(bytes.NewReader([]byte("checked"))), &blockblob.StageBlockOptions{TransactionalValidation: blob.TransferValidationTypeCRC64(1)})
	r.refused("a block with another CRC64", err, "Crc64Mismatch")
}

func (r *run) guarded(c *azblob.Client, box *container.Client) {
	boxes, err := armstorage.NewBlobContainersClient(r.SubscriptionID, r.admin, r.arm())
	if err == nil {
		_, err = boxes.SetLegalHold(r.ctx, group, account, "depth", armstorage.LegalHold{Tags: []*string{to.Ptr("case1")}}, nil)
	}
	if !r.ok("armstorage: a legal hold", err) {
		return
	}
	_, err = box.NewBlobClient("leased").Delete(r.ctx, nil)
	r.refused("a delete under a legal hold", err, "BlobImmutableDueToLegalHold")
	_, err = boxes.Delete(r.ctx, group, account, "depth", nil)
	r.refused("a delete of its container", err, "ContainerImmutableDueToLegalHold")
	_, err = boxes.ClearLegalHold(r.ctx, group, account, "depth", armstorage.LegalHold{Tags: []*string{to.Ptr("case1")}}, nil)
	r.ok("armstorage: clear the legal hold", err)
	p, err := boxes.CreateOrUpdateImmutabilityPolicy(r.ctx, group, account, "depth", &armstorage.BlobContainersClientCreateOrUpdateImmutabilityPolicyOptions{Parameters: &armstorage.ImmutabilityPolicy{Properties: &armstorage.ImmutabilityPolicyProperty{ImmutabilityPeriodSinceCreationInDays: to.Ptr(int32(1))}}})
	r.ok("armstorage: an immutability policy", err)
	_, err = c.UploadBuffer(r.ctx, "depth", "leased", []byte("over"), nil)
	r.refused("a write over what is immutable", err, "BlobImmutableDueToPolicy")
	if p.ETag != nil {
		_, err = boxes.DeleteImmutabilityPolicy(r.ctx, group, account, "depth", *p.ETag, nil)
		r.ok("armstorage: delete the unlocked policy", err)
	}
}

func (r *run) firewall(c *azblob.Client) {
	accounts, err := armstorage.NewAccountsClient(r.SubscriptionID, r.admin, r.arm())
	set := func(action armstorage.DefaultAction, rules ...*armstorage.IPRule) {
		if err == nil {
			_, err = accounts.Update(r.ctx, group, account, armstorage.AccountUpdateParameters{Properties: &armstorage.AccountPropertiesUpdateParameters{NetworkRuleSet: &armstorage.NetworkRuleSet{DefaultAction: &action, IPRules: rules}}}, nil)
		}
	}
	read := func() error { _, err := c.DownloadStream(r.ctx, "depth", "past", nil); return err }
	set(armstorage.DefaultActionDeny)
	r.ok("armstorage: shut the account", err)
	r.refused("a read of an account that is shut", read(), "AuthorizationFailure")
	set(armstorage.DefaultActionDeny, &armstorage.IPRule{IPAddressOrRange: to.Ptr("127.0.0.0/8")})
	r.ok("armstorage: let in addresses", err)
	r.ok("azblob: read from an address that is let in", read())
	set(armstorage.DefaultActionAllow)
	r.ok("armstorage: open the account", err)
}
