package main

import (
	"fmt"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/authorization/armauthorization/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources/v3"
	"github.com/google/uuid"
)

// The built-in roles that this suite gives.
const (
	blobContributor = "ba92f5b4-2d11-453d-a403-e96b0029c9fe"
	blobReader      = "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1"
	vaultAdmin      = "00482a5a-887f-4fb3-b363-3b7fe8e74483" // Key Vault Administrator
	readerRole      = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
	ownerRole       = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"
)

// resources makes the group, and roles in it.
func (r *run) resources() bool {
	groups, err := armresources.NewResourceGroupsClient(r.SubscriptionID, r.admin, r.arm())
	if err == nil {
		_, err = groups.CreateOrUpdate(r.ctx, group, armresources.ResourceGroup{Location: &r.Location, Tags: map[string]*string{"by": to.Ptr("go")}}, nil)
	}
	if !r.ok("armresources: group create", err) {
		return false
	}
	got, err := groups.Get(r.ctx, "BY-GO", nil)
	if err == nil {
		err = equal(value(got.Tags["by"]), "go")
	}
	r.ok("armresources: group get, whatever the case", err)
	there, err := groups.CheckExistence(r.ctx, "none-such", nil)
	if err == nil {
		err = equal(there.Success, false)
	}
	r.ok("armresources: a group that is not there", err)
	r.ok("armresources: group list", r.listed(groups))

	theirs, err := armresources.NewResourceGroupsClient(r.SubscriptionID, r.stranger, r.arm())
	if err == nil {
		_, err = theirs.Get(r.ctx, group, nil)
	}
	r.refused("a stranger's group get", err, "AuthorizationFailed", "ResourceGroupNotFound")
	if theirs != nil {
		_, err = theirs.CreateOrUpdate(r.ctx, "strange", armresources.ResourceGroup{Location: &r.Location}, nil)
		r.refused("a stranger's group create", err, "AuthorizationFailed")
	}
	r.roles()
	return true
}

func (r *run) listed(groups *armresources.ResourceGroupsClient) error {
	for pages := groups.NewListPager(nil); pages.More(); {
		page, err := pages.NextPage(r.ctx)
		if err != nil {
			return err
		}
		for _, g := range page.Value {
			if value(g.Name) == group {
				return nil
			}
		}
	}
	return fmt.Errorf("%s is not listed", group)
}

func (r *run) role(id string) *string {
	return to.Ptr("/subscriptions/" + r.SubscriptionID + "/providers/Microsoft.Authorization/roleDefinitions/" + id)
}

func (r *run) roles() {
	scope := "/subscriptions/" + r.SubscriptionID + "/resourceGroups/" + group
	definitions, err := armauthorization.NewRoleDefinitionsClient(r.admin, r.arm())
	if err == nil {
		err = r.named(definitions, scope)
	}
	r.ok("armauthorization: role definition by name", err)
	assignments, err := armauthorization.NewRoleAssignmentsClient(r.SubscriptionID, r.admin, r.arm())
	if !r.ok("armauthorization: client", err) {
		return
	}
	give := func(role, who string) (string, error) {
		name := uuid.NewString()
		_, err := assignments.Create(r.ctx, scope, name, armauthorization.RoleAssignmentCreateParameters{Properties: &armauthorization.RoleAssignmentProperties{
			RoleDefinitionID: r.role(role), PrincipalID: &who, PrincipalType: to.Ptr(armauthorization.PrincipalTypeServicePrincipal),
		}}, nil)
		return name, err
	}
	_, err = give(blobContributor, r.Admin.ObjectID)
	r.ok("armauthorization: role assignment create", err)
	_, err = give(vaultAdmin, r.Admin.ObjectID)
	r.ok("armauthorization: another role", err)
	_, err = give(vaultAdmin, r.Admin.ObjectID)
	r.refused("the same role twice", err, "RoleAssignmentExists")
	_, err = give(readerRole, r.Reader.ObjectID)
	r.ok("armauthorization: a reader", err)
	name, err := give(blobReader, r.Stranger.ObjectID)
	if err == nil {
		_, err = assignments.Get(r.ctx, scope, name, nil)
	}
	r.ok("armauthorization: role assignment get", err)
	_, err = assignments.Delete(r.ctx, scope, name, nil)
	r.ok("armauthorization: role assignment delete", err)
	_, err = assignments.Get(r.ctx, scope, name, nil)
	r.refused("get of the deleted assignment", err, "RoleAssignmentNotFound", "404")
	theirs, err := armauthorization.NewRoleAssignmentsClient(r.SubscriptionID, r.reader, r.arm())
	if err == nil {
		_, err = theirs.Create(r.ctx, scope, uuid.NewString(), armauthorization.RoleAssignmentCreateParameters{Properties: &armauthorization.RoleAssignmentProperties{
			RoleDefinitionID: r.role(ownerRole), PrincipalID: &r.Reader.ObjectID, PrincipalType: to.Ptr(armauthorization.PrincipalTypeServicePrincipal),
		}}, nil)
	}
	r.refused("a reader's role for themselves", err, "AuthorizationFailed")
}

func (r *run) named(definitions *armauthorization.RoleDefinitionsClient, scope string) error {
	for pages := definitions.NewListPager(scope, &armauthorization.RoleDefinitionsClientListOptions{Filter: to.Ptr("roleName eq 'Reader'")}); pages.More(); {
		page, err := pages.NextPage(r.ctx)
		if err != nil {
			return err
		}
		for _, d := range page.Value {
			if value(d.Name) == readerRole {
				return nil
			}
		}
	}
	return fmt.Errorf("no role is named Reader")
}

// end removes the group with all that is in it.
func (r *run) end() {
	theirs, err := armresources.NewResourceGroupsClient(r.SubscriptionID, r.reader, r.arm())
	if err == nil {
		_, err = theirs.BeginDelete(r.ctx, group, nil)
	}
	r.refused("a reader's group delete", err, "AuthorizationFailed")
	groups, err := armresources.NewResourceGroupsClient(r.SubscriptionID, r.admin, r.arm())
	if err == nil {
		poller, e := groups.BeginDelete(r.ctx, group, nil)
		if err = e; err == nil {
			_, err = poller.PollUntilDone(r.ctx, fast)
		}
	}
	r.ok("armresources: group delete", err)
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(time.Second / 2) {
		there, err := groups.CheckExistence(r.ctx, group, nil)
		if err == nil {
			err = equal(there.Success, false)
		}
		if err == nil || time.Now().After(until) {
			r.ok("armresources: it is gone", err)
			return
		}
	}
}
