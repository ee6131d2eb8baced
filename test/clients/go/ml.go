package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/machinelearning/armmachinelearning/v4"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/storage/armstorage/v2"
)

const workspace = "by-go-lab"

// ml makes a workspace and a cluster, and runs jobs.
func (r *run) ml() {
	f, err := armmachinelearning.NewClientFactory(r.SubscriptionID, r.admin, r.arm())
	if !r.ok("armmachinelearning: clients", err) {
		return
	}
	if !r.workspace(f) {
		return
	}
	compute := f.NewComputeClient()
	poller, err := compute.BeginCreateOrUpdate(r.ctx, group, workspace, "cpu", armmachinelearning.ComputeResource{Location: &r.Location, Properties: &armmachinelearning.AmlCompute{
		ComputeType: to.Ptr(armmachinelearning.ComputeTypeAmlCompute),
		Properties: &armmachinelearning.AmlComputeProperties{VMSize: to.Ptr("Standard_DS1_v2"), ScaleSettings: &armmachinelearning.ScaleSettings{
			MinNodeCount: to.Ptr(int32(0)), MaxNodeCount: to.Ptr(int32(1)), NodeIdleTimeBeforeScaleDown: to.Ptr("PT120S"),
		}},
	}}, nil)
	if err == nil {
		_, err = poller.PollUntilDone(r.ctx, fast)
	}
	r.ok("armmachinelearning: compute create", err)
	got, err := compute.Get(r.ctx, group, workspace, "cpu", nil)
	if err == nil {
		c, ok := got.Properties.(*armmachinelearning.AmlCompute)
		if err = fmt.Errorf("it is a %T", got.Properties); ok {
			err = equal(value(c.ProvisioningState), armmachinelearning.ProvisioningStateSucceeded)
		}
	}
	r.ok("armmachinelearning: compute get", err)
	r.jobs(f)
	r.mlRefused()
	gone, err := f.NewWorkspacesClient().BeginDelete(r.ctx, group, workspace, nil)
	if err == nil {
		_, err = gone.PollUntilDone(r.ctx, fast)
	}
	r.ok("armmachinelearning: workspace delete", err)
	_, err = f.NewWorkspacesClient().Get(r.ctx, group, workspace, nil)
	r.refused("get of the deleted workspace", err, "ResourceNotFound")
}

func (r *run) workspace(f *armmachinelearning.ClientFactory) bool {
	c := f.NewWorkspacesClient()
	poller, err := c.BeginCreateOrUpdate(r.ctx, group, workspace, armmachinelearning.Workspace{
		Location: &r.Location, Identity: &armmachinelearning.ManagedServiceIdentity{Type: to.Ptr(armmachinelearning.ManagedServiceIdentityTypeSystemAssigned)},
		Properties: &armmachinelearning.WorkspaceProperties{
			StorageAccount: to.Ptr(r.id("Microsoft.Storage/storageAccounts/" + account)), KeyVault: to.Ptr(r.id("Microsoft.KeyVault/vaults/" + vault)),
			FriendlyName: to.Ptr("Go lab"),
		},
	}, nil)
	if err == nil {
		_, err = poller.PollUntilDone(r.ctx, fast)
	}
	if !r.ok("armmachinelearning: workspace create", err) {
		return false
	}
	got, err := c.Get(r.ctx, group, workspace, nil)
	switch {
	case err != nil:
	case got.Identity == nil || value(got.Identity.PrincipalID) == "":
		err = errors.New("it has no identity of its own")
	default:
		err = equal(value(got.Properties.FriendlyName), "Go lab")
	}
	r.ok("armmachinelearning: workspace get", err)
	update, err := c.BeginUpdate(r.ctx, group, workspace, armmachinelearning.WorkspaceUpdateParameters{Tags: map[string]*string{"a": to.Ptr("b")}}, nil)
	if err == nil {
		_, err = update.PollUntilDone(r.ctx, fast)
	}
	r.ok("armmachinelearning: workspace update", err)
	found := false
	for pages := c.NewListBySubscriptionPager(nil); pages.More(); {
		page, e := pages.NextPage(r.ctx)
		if err = e; err != nil {
			break
		}
		for _, w := range page.Value {
			found = found || value(w.Name) == workspace
		}
	}
	if err == nil && !found {
		err = errors.New("it is not listed")
	}
	r.ok("armmachinelearning: workspace list", err)
	return true
}

func (r *run) job(command string) armmachinelearning.JobBase {
	at := r.id("Microsoft.MachineLearningServices/workspaces/" + workspace)
	return armmachinelearning.JobBase{Properties: &armmachinelearning.CommandJob{
		JobType: to.Ptr(armmachinelearning.JobTypeCommand), Command: &command, ExperimentName: to.Ptr("by-go"),
		EnvironmentID: to.Ptr(at + "/environments/host/versions/1"), ComputeID: to.Ptr(at + "/computes/cpu"),
	}}
}

func (r *run) jobs(f *armmachinelearning.ClientFactory) {
	_, err := f.NewEnvironmentVersionsClient().CreateOrUpdate(r.ctx, group, workspace, "host", "1", armmachinelearning.EnvironmentVersion{
		Properties: &armmachinelearning.EnvironmentVersionProperties{Image: to.Ptr("castellan.local/host:1")},
	}, nil)
	r.ok("armmachinelearning: environment create", err)
	c := f.NewJobsClient()
	_, err = c.CreateOrUpdate(r.ctx, group, workspace, "quick", r.job("echo done"), nil)
	if r.ok("armmachinelearning: job create", err) {
		r.ok("armmachinelearning: job get until it is Completed", r.until(c, "quick", armmachinelearning.JobStatusCompleted))
	}
	_, err = c.CreateOrUpdate(r.ctx, group, workspace, "slow", r.job("sleep 300"), nil)
	if r.ok("armmachinelearning: a slow job", err) {
		poller, err := c.BeginCancel(r.ctx, group, workspace, "slow", nil)
		if err == nil {
			_, err = poller.PollUntilDone(r.ctx, fast)
		}
		r.ok("armmachinelearning: job cancel", err)
		r.ok("armmachinelearning: it becomes Canceled", r.until(c, "slow", armmachinelearning.JobStatusCanceled))
	}
	n := 0
	for pages := c.NewListPager(group, workspace, nil); pages.More(); {
		page, e := pages.NextPage(r.ctx)
		if err = e; err != nil {
			break
		}
		n += len(page.Value)
	}
	if err == nil {
		err = equal(n, 2)
	}
	r.ok("armmachinelearning: job list", err)
	_, err = f.NewDatastoresClient().Get(r.ctx, group, workspace, "workspaceblobstore", nil)
	r.ok("armmachinelearning: datastore get", err)
	r.datastores(f.NewDatastoresClient())
}

// datastores registers one by the account's key, which is tried unless the client says otherwise.
func (r *run) datastores(c *armmachinelearning.DatastoresClient) {
	accounts, err := armstorage.NewAccountsClient(r.SubscriptionID, r.admin, r.arm())
	if err != nil {
		r.ok("armstorage: client", err)
		return
	}
	keys, err := accounts.ListKeys(r.ctx, group, account, nil)
	if !r.ok("armstorage: keys for a datastore", err) {
		return
	}
	right := value(keys.Keys[0].Value)
	put := func(name, key string, o *armmachinelearning.DatastoresClientCreateOrUpdateOptions) error {
		_, err := c.CreateOrUpdate(r.ctx, group, workspace, name, armmachinelearning.Datastore{Properties: &armmachinelearning.AzureBlobDatastore{
			DatastoreType: to.Ptr(armmachinelearning.DatastoreTypeAzureBlob), AccountName: to.Ptr(account), ContainerName: to.Ptr("azureml"), Endpoint: to.Ptr(r.Suffixes["storage"]),
			Credentials: &armmachinelearning.AccountKeyDatastoreCredentials{CredentialsType: to.Ptr(armmachinelearning.CredentialsTypeAccountKey),
				Secrets: &armmachinelearning.AccountKeyDatastoreSecrets{SecretsType: to.Ptr(armmachinelearning.SecretsTypeAccountKey), Key: &key}},
		}}, o)
		return err
	}
	r.refused("a datastore by a wrong key", put("wrong", "d3Jvbmc=", nil), "InvalidDatastore")
	r.ok("armmachinelearning: a wrong key without validation", put("wrong", "d3Jvbmc=", &armmachinelearning.DatastoresClientCreateOrUpdateOptions{SkipValidation: to.Ptr(true)}))
	r.ok("armmachinelearning: a datastore by key", put("keyed", right, nil))
	secrets, err := c.ListSecrets(r.ctx, group, workspace, "keyed", nil)
	if err == nil {
		k, ok := secrets.DatastoreSecretsClassification.(*armmachinelearning.AccountKeyDatastoreSecrets)
		if err = fmt.Errorf("they are %T", secrets.DatastoreSecretsClassification); ok {
			err = equal(value(k.Key), right)
		}
	}
	r.ok("armmachinelearning: its secrets", err)
	_, err = c.Delete(r.ctx, group, workspace, "wrong", nil)
	r.ok("armmachinelearning: datastore delete", err)
}

// until waits for a job's status; another end is an error.
func (r *run) until(c *armmachinelearning.JobsClient, name string, want armmachinelearning.JobStatus) error {
	for until := time.Now().Add(60 * time.Second); ; time.Sleep(time.Second / 2) {
		got, err := c.Get(r.ctx, group, workspace, name, nil)
		if err != nil {
			return err
		}
		status := value(got.Properties.GetJobBaseProperties().Status)
		if status == want {
			return nil
		}
		ended := status == armmachinelearning.JobStatusCompleted || status == armmachinelearning.JobStatusFailed || status == armmachinelearning.JobStatusCanceled
		if ended || time.Now().After(until) {
			return fmt.Errorf("it is %s, want %s", status, want)
		}
	}
}

func (r *run) mlRefused() {
	f, err := armmachinelearning.NewClientFactory(r.SubscriptionID, r.reader, r.arm())
	if !r.ok("armmachinelearning: a reader's clients", err) {
		return
	}
	_, err = f.NewWorkspacesClient().Get(r.ctx, group, workspace, nil)
	r.ok("armmachinelearning: a reader reads", err)
	_, err = f.NewJobsClient().CreateOrUpdate(r.ctx, group, workspace, "mine", r.job("echo mine"), nil)
	r.refused("a reader's job", err, "AuthorizationFailed")
	_, err = f.NewWorkspacesClient().BeginDelete(r.ctx, group, workspace, nil)
	r.refused("a reader's workspace delete", err, "AuthorizationFailed")
	f, err = armmachinelearning.NewClientFactory(r.SubscriptionID, r.stranger, r.arm())
	if err == nil {
		_, err = f.NewWorkspacesClient().Get(r.ctx, group, workspace, nil)
	}
	r.refused("a stranger's workspace get", err, "ResourceNotFound", "ResourceGroupNotFound", "AuthorizationFailed")
}
