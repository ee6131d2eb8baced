package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/authorization/armauthorization/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/managementgroups/armmanagementgroups"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/monitor/armmonitor"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/msi/armmsi"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/policyinsights/armpolicyinsights"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armdeployments"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armlocks"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armpolicy"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources/v3"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/subscription/armsubscription"
	"github.com/google/uuid"
)

// management drives the clients of Resource Manager's own services.
func (r *run) management() {
	r.locks()
	r.generic()
	r.tags()
	r.providers()
	r.identities()
	r.policies()
	r.deployments()
	r.custom()
	r.denials()
	r.eligible()
	r.logs()
	r.atRoot()
}

func (r *run) scope() string {
	return "/subscriptions/" + r.SubscriptionID + "/resourceGroups/" + group
}

const (
	identityType  = "Microsoft.ManagedIdentity/userAssignedIdentities"
	componentType = "Microsoft.Insights/components"
)

func (r *run) locks() {
	type client = *armlocks.ManagementLocksClient
	of := func(who azcore.TokenCredential) (client, error) {
		return armlocks.NewManagementLocksClient(r.SubscriptionID, who, r.arm())
	}
	s := about(r, "armlocks", of, func(c client) (string, error) { return all(c.NewListAtSubscriptionLevelPager(nil)) })
	keep := armlocks.ManagementLockObject{Properties: &armlocks.ManagementLockProperties{Level: to.Ptr(armlocks.LockLevelCanNotDelete), Notes: to.Ptr("go")}}
	s.changes("CreateOrUpdateAtResourceGroupLevel", by(of, func(c client) error {
		return said(c.CreateOrUpdateAtResourceGroupLevel(r.ctx, group, "go", keep, nil))
	}))
	s.reads("GetAtResourceGroupLevel", by(of, func(c client) error {
		got, err := c.GetAtResourceGroupLevel(r.ctx, group, "go", nil)
		if err != nil {
			return err
		}
		return equal(value(got.Properties.Level), armlocks.LockLevelCanNotDelete)
	}))
	r.refused("the Owner's delete of a locked group", by(r.armGroups, func(c *armresources.ResourceGroupsClient) error {
		return ended(c.BeginDelete(r.ctx, group, nil))
	})(r.admin), "ScopeLocked")
	s.changes("DeleteAtResourceGroupLevel", by(of, func(c client) error { return said(c.DeleteAtResourceGroupLevel(r.ctx, group, "go", nil)) }))
}

func (r *run) armGroups(who azcore.TokenCredential) (*armresources.ResourceGroupsClient, error) {
	return armresources.NewResourceGroupsClient(r.SubscriptionID, who, r.arm())
}

func (r *run) armResources(who azcore.TokenCredential) (*armresources.Client, error) {
	return armresources.NewClient(r.SubscriptionID, who, r.arm())
}

// generic are resources of any type, and their move.
func (r *run) generic() {
	type client = *armresources.Client
	of := r.armResources
	const api = "2023-01-31"
	s := about(r, "armresources", of, func(c client) (string, error) {
		return all(c.NewListPager(&armresources.ClientListOptions{Filter: to.Ptr("name eq 'generic'")}))
	})
	at := r.id(identityType + "/generic")
	s.changes("BeginCreateOrUpdateByID", by(of, func(c client) error {
		return ended(c.BeginCreateOrUpdateByID(r.ctx, at, api, armresources.GenericResource{Location: &r.Location}, nil))
	}))
	s.changes("BeginUpdateByID", by(of, func(c client) error {
		return ended(c.BeginUpdateByID(r.ctx, at, api, armresources.GenericResource{Tags: map[string]*string{"go": to.Ptr("1")}}, nil))
	}))
	s.reads("GetByID", by(of, func(c client) error {
		got, err := c.GetByID(r.ctx, at, api, nil)
		if err != nil {
			return err
		}
		return equal(value(got.Tags["go"]), "1")
	}))
	s.changes("BeginDeleteByID", by(of, func(c client) error { return ended(c.BeginDeleteByID(r.ctx, at, api, nil)) }))

	const there, insights = group + "-there", "2020-02-02"
	s.reads("BeginCreateOrUpdateByID of what moves", by(of, func(c client) error {
		return ended(c.BeginCreateOrUpdateByID(r.ctx, r.id(componentType+"/generic"), insights, armresources.GenericResource{Location: &r.Location, Kind: to.Ptr("web"), Properties: map[string]any{"Application_Type": "web"}}, nil))
	}))
	s.reads("ResourceGroups.CreateOrUpdate to move to", by(r.armGroups, func(c *armresources.ResourceGroupsClient) error {
		return said(c.CreateOrUpdate(r.ctx, there, armresources.ResourceGroup{Location: &r.Location}, nil))
	}))
	move := armresources.MoveInfo{Resources: []*string{to.Ptr(r.id(componentType + "/generic"))}, TargetResourceGroup: to.Ptr(strings.Replace(r.scope(), group, there, 1))}
	s.reads("BeginValidateMoveResources", by(of, func(c client) error { return ended(c.BeginValidateMoveResources(r.ctx, group, move, nil)) }))
	s.changes("BeginMoveResources", by(of, func(c client) error { return ended(c.BeginMoveResources(r.ctx, group, move, nil)) }))
	s.reads("GetByID of what moved", by(of, func(c client) error {
		return said(c.GetByID(r.ctx, strings.Replace(r.id(componentType+"/generic"), group, there, 1), insights, nil))
	}))
	s.changes("ResourceGroups.BeginDelete with what moved there", by(r.armGroups, func(c *armresources.ResourceGroupsClient) error {
		return ended(c.BeginDelete(r.ctx, there, nil))
	}))
}

func (r *run) tags() {
	type client = *armresources.TagsClient
	of := func(who azcore.TokenCredential) (client, error) {
		return armresources.NewTagsClient(r.SubscriptionID, who, r.arm())
	}
	s := about(r, "armresources.Tags", of, func(c client) (string, error) {
		got, err := c.GetAtScope(r.ctx, r.scope(), nil)
		if err != nil {
			return "", err
		}
		list, err := all(c.NewListPager(nil))
		return fmt.Sprint(value(got.Properties.Tags["tier"])) + list, err
	})
	tier := &armresources.Tags{Tags: map[string]*string{"tier": to.Ptr("one")}}
	patch := func(how armresources.TagsPatchOperation) as {
		return by(of, func(c client) error {
			return ended(c.BeginUpdateAtScope(r.ctx, r.scope(), armresources.TagsPatchResource{Operation: &how, Properties: tier}, nil))
		})
	}
	s.changes("BeginUpdateAtScope, Merge", patch(armresources.TagsPatchOperationMerge))
	s.changes("BeginUpdateAtScope, Delete", patch(armresources.TagsPatchOperationDelete))
	s.changes("BeginCreateOrUpdateAtScope", by(of, func(c client) error {
		return ended(c.BeginCreateOrUpdateAtScope(r.ctx, r.scope(), armresources.TagsResource{Properties: tier}, nil))
	}))
	s.changes("BeginDeleteAtScope", by(of, func(c client) error { return ended(c.BeginDeleteAtScope(r.ctx, r.scope(), nil)) }))
	s.changes("CreateOrUpdate", by(of, func(c client) error { return said(c.CreateOrUpdate(r.ctx, "gopher", nil)) }))
	s.changes("CreateOrUpdateValue", by(of, func(c client) error { return said(c.CreateOrUpdateValue(r.ctx, "gopher", "blue", nil)) }))
	s.changes("DeleteValue", by(of, func(c client) error { return said(c.DeleteValue(r.ctx, "gopher", "blue", nil)) }))
	s.changes("Delete", by(of, func(c client) error { return said(c.Delete(r.ctx, "gopher", nil)) }))
}

func (r *run) providers() {
	type client = *armresources.ProvidersClient
	const namespace = "Microsoft.Subscription"
	of := func(who azcore.TokenCredential) (client, error) {
		return armresources.NewProvidersClient(r.SubscriptionID, who, r.arm())
	}
	s := about(r, "armresources.Providers", of, func(c client) (string, error) {
		got, err := c.Get(r.ctx, namespace, nil)
		return value(got.RegistrationState), err
	})
	s.reads("NewListPager", by(of, func(c client) error {
		return holds(c.NewListPager(nil), "Microsoft.Authorization", "Microsoft.PolicyInsights")
	}))
	s.changes("Unregister", by(of, func(c client) error { return said(c.Unregister(r.ctx, namespace, nil)) }))
	s.changes("Register", by(of, func(c client) error { return said(c.Register(r.ctx, namespace, nil)) }))
}

func (r *run) identities() {
	type client = *armmsi.UserAssignedIdentitiesClient
	type trusts = *armmsi.FederatedIdentityCredentialsClient
	of := func(who azcore.TokenCredential) (client, error) {
		return armmsi.NewUserAssignedIdentitiesClient(r.SubscriptionID, who, r.arm())
	}
	ofTrusts := func(who azcore.TokenCredential) (trusts, error) {
		return armmsi.NewFederatedIdentityCredentialsClient(r.SubscriptionID, who, r.arm())
	}
	s := about(r, "armmsi.UserAssignedIdentities", of, func(c client) (string, error) { return all(c.NewListByResourceGroupPager(group, nil)) })
	s.changes("CreateOrUpdate", by(of, func(c client) error {
		return said(c.CreateOrUpdate(r.ctx, group, "go", armmsi.Identity{Location: &r.Location}, nil))
	}))
	s.changes("Update", by(of, func(c client) error {
		return said(c.Update(r.ctx, group, "go", armmsi.IdentityUpdate{Tags: map[string]*string{"a": to.Ptr("b")}}, nil))
	}))
	t := about(r, "armmsi.FederatedIdentityCredentials", ofTrusts, func(c trusts) (string, error) { return all(c.NewListPager(group, "go", nil)) })
	trust := armmsi.FederatedIdentityCredential{Properties: &armmsi.FederatedIdentityCredentialProperties{Issuer: to.Ptr("https://tokens.example"), Subject: to.Ptr("go"), Audiences: []*string{to.Ptr("api://AzureADTokenExchange")}}}
	t.changes("CreateOrUpdate", by(ofTrusts, func(c trusts) error { return said(c.CreateOrUpdate(r.ctx, group, "go", "trust", trust, nil)) }))
	t.changes("Delete", by(ofTrusts, func(c trusts) error { return said(c.Delete(r.ctx, group, "go", "trust", nil)) }))
	s.changes("Delete", by(of, func(c client) error { return said(c.Delete(r.ctx, group, "go", nil)) }))
}

// policies keeps an identity without a tag from being made, then lets it be.
func (r *run) policies() {
	type client = *armpolicy.ClientFactory
	of := func(who azcore.TokenCredential) (client, error) {
		return armpolicy.NewClientFactory(r.SubscriptionID, who, r.arm())
	}
	custom := to.Ptr("policyType eq 'Custom'")
	d := about(r, "armpolicy.Definitions", of, func(c client) (string, error) {
		return all(c.NewDefinitionsClient().NewListPager(&armpolicy.DefinitionsClientListOptions{Filter: custom}))
	})
	s := about(r, "armpolicy.SetDefinitions", of, func(c client) (string, error) {
		return all(c.NewSetDefinitionsClient().NewListPager(&armpolicy.SetDefinitionsClientListOptions{Filter: custom}))
	})
	a := about(r, "armpolicy.Assignments", of, func(c client) (string, error) {
		return all(c.NewAssignmentsClient().NewListForResourceGroupPager(group, nil))
	})
	e := about(r, "armpolicy.Exemptions", of, func(c client) (string, error) {
		return all(c.NewExemptionsClient().NewListForResourceGroupPager(group, nil))
	})
	definition := armpolicy.Definition{Properties: &armpolicy.DefinitionProperties{Mode: to.Ptr("Indexed"), PolicyRule: map[string]any{
		"if":   map[string]any{"allOf": []any{map[string]any{"field": "type", "equals": identityType}, map[string]any{"field": "tags['owner']", "exists": false}}},
		"then": map[string]any{"effect": "deny"},
	}}}
	id := to.Ptr("/subscriptions/" + r.SubscriptionID + "/providers/Microsoft.Authorization/policyDefinitions/by-go")
	audit := armpolicy.AssignmentUpdate{Properties: &armpolicy.AssignmentUpdateProperties{Overrides: []*armpolicy.Override{{Kind: to.Ptr(armpolicy.OverrideKindPolicyEffect), Value: to.Ptr("audit")}}}}
	waiver := armpolicy.Exemption{Properties: &armpolicy.ExemptionProperties{PolicyAssignmentID: to.Ptr(r.id("Microsoft.Authorization/policyAssignments/by-go")), ExemptionCategory: to.Ptr(armpolicy.ExemptionCategoryWaiver)}}
	untagged := by(func(who azcore.TokenCredential) (*armmsi.UserAssignedIdentitiesClient, error) {
		return armmsi.NewUserAssignedIdentitiesClient(r.SubscriptionID, who, r.arm())
	}, func(c *armmsi.UserAssignedIdentitiesClient) error {
		return said(c.CreateOrUpdate(r.ctx, group, "untagged", armmsi.Identity{Location: &r.Location}, nil))
	})
	d.changes("CreateOrUpdate", by(of, func(c client) error {
		return said(c.NewDefinitionsClient().CreateOrUpdate(r.ctx, "by-go", definition, nil))
	}))
	s.changes("CreateOrUpdate", by(of, func(c client) error {
		return said(c.NewSetDefinitionsClient().CreateOrUpdate(r.ctx, "by-go", armpolicy.SetDefinition{Properties: &armpolicy.SetDefinitionProperties{PolicyDefinitions: []*armpolicy.DefinitionReference{{PolicyDefinitionID: id}}}}, nil))
	}))
	s.changes("Delete", by(of, func(c client) error { return said(c.NewSetDefinitionsClient().Delete(r.ctx, "by-go", nil)) }))
	a.changes("Create", by(of, func(c client) error {
		return said(c.NewAssignmentsClient().Create(r.ctx, r.scope(), "by-go", armpolicy.Assignment{Properties: &armpolicy.AssignmentProperties{PolicyDefinitionID: id}}, nil))
	}))
	r.refused("the Owner's identity without a tag", untagged(r.admin), "RequestDisallowedByPolicy")
	r.restrictions()
	e.changes("CreateOrUpdate", by(of, func(c client) error {
		return said(c.NewExemptionsClient().CreateOrUpdate(r.ctx, r.scope(), "by-go", waiver, nil))
	}))
	r.ok("armpolicy: an exempt identity without a tag", untagged(r.admin))
	e.changes("Delete", by(of, func(c client) error { return said(c.NewExemptionsClient().Delete(r.ctx, r.scope(), "by-go", nil)) }))
	a.changes("Update", by(of, func(c client) error {
		return said(c.NewAssignmentsClient().Update(r.ctx, r.scope(), "by-go", audit, nil))
	}))
	r.ok("armpolicy: an audited identity without a tag", untagged(r.admin))
	r.compliance()
	a.changes("Delete", by(of, func(c client) error { return said(c.NewAssignmentsClient().Delete(r.ctx, r.scope(), "by-go", nil)) }))
	d.changes("Delete", by(of, func(c client) error { return said(c.NewDefinitionsClient().Delete(r.ctx, "by-go", nil)) }))
}

func (r *run) insights(who azcore.TokenCredential) (*armpolicyinsights.ClientFactory, error) {
	return armpolicyinsights.NewClientFactory(r.SubscriptionID, who, r.arm())
}

// restrictions are what the policy would say.
func (r *run) restrictions() {
	asked := armpolicyinsights.CheckRestrictionsRequest{ResourceDetails: &armpolicyinsights.CheckRestrictionsResourceDetails{ResourceContent: map[string]any{"type": identityType, "name": "x", "location": r.Location}}}
	check := by(r.insights, func(c *armpolicyinsights.ClientFactory) error {
		got, err := c.NewPolicyRestrictionsClient().CheckAtResourceGroupScope(r.ctx, group, asked, nil)
		if err != nil {
			return err
		}
		return equal(len(got.ContentEvaluationResult.PolicyEvaluations), 1)
	})
	r.ok("armpolicyinsights.PolicyRestrictions.CheckAtResourceGroupScope", check(r.admin))
	r.refused("a stranger's armpolicyinsights.PolicyRestrictions.CheckAtResourceGroupScope", check(r.stranger), "AuthorizationFailed")
}

// compliance is what the policy found.
func (r *run) compliance() {
	type client = *armpolicyinsights.ClientFactory
	s := subject{run: r, client: "armpolicyinsights"}
	s.reads("PolicyEvents.NewListQueryResultsForResourceGroupPager", by(r.insights, func(c client) error {
		return holds(c.NewPolicyEventsClient().NewListQueryResultsForResourceGroupPager(armpolicyinsights.PolicyEventsResourceTypeDefault, r.SubscriptionID, group, nil, nil), "untagged", "audit")
	}))
	trigger := by(r.insights, func(c client) error {
		return ended(c.NewPolicyStatesClient().BeginTriggerResourceGroupEvaluation(r.ctx, r.SubscriptionID, group, nil))
	})
	r.refused("a Reader's armpolicyinsights.PolicyStates.BeginTriggerResourceGroupEvaluation", trigger(r.reader), "AuthorizationFailed")
	s.reads("PolicyStates.BeginTriggerResourceGroupEvaluation", trigger)
	latest := by(r.insights, func(c client) error {
		return holds(c.NewPolicyStatesClient().NewListQueryResultsForResourceGroupPager(armpolicyinsights.PolicyStatesResourceLatest, r.SubscriptionID, group, nil, nil), "untagged", "NonCompliant")
	})
	s.reads("PolicyStates.NewListQueryResultsForResourceGroupPager", latest)
	r.refused("a stranger's armpolicyinsights.PolicyStates.NewListQueryResultsForResourceGroupPager", latest(r.stranger), "AuthorizationFailed")
	s.reads("PolicyStates.SummarizeForResourceGroup", by(r.insights, func(c client) error {
		got, err := c.NewPolicyStatesClient().SummarizeForResourceGroup(r.ctx, armpolicyinsights.PolicyStatesSummaryResourceTypeLatest, r.SubscriptionID, group, nil, nil)
		if err != nil {
			return err
		}
		return equal(value(got.Value[0].Results.NonCompliantResources), 1)
	}))
}

func (r *run) deployments() {
	type client = *armdeployments.DeploymentsClient
	of := func(who azcore.TokenCredential) (client, error) {
		return armdeployments.NewDeploymentsClient(r.SubscriptionID, who, r.arm())
	}
	s := about(r, "armdeployments", of, func(c client) (string, error) { return all(c.NewListByResourceGroupPager(group, nil)) })
	body := armdeployments.Deployment{Properties: &armdeployments.DeploymentProperties{Mode: to.Ptr(armdeployments.DeploymentModeIncremental), Template: map[string]any{
		"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "contentVersion": "1.0.0.0",
		"resources": []any{map[string]any{"type": identityType, "apiVersion": "2023-01-31", "name": "deployed", "location": r.Location}},
		"outputs":   map[string]any{"who": map[string]any{"type": "string", "value": "[reference('deployed').principalId]"}},
	}}}
	s.reads("BeginValidate", by(of, func(c client) error { return ended(c.BeginValidate(r.ctx, group, "by-go", body, nil)) }))
	s.changes("BeginCreateOrUpdate", by(of, func(c client) error { return ended(c.BeginCreateOrUpdate(r.ctx, group, "by-go", body, nil)) }))
	s.reads("Get", by(of, func(c client) error {
		got, err := c.Get(r.ctx, group, "by-go", nil)
		if err == nil && !strings.Contains(fmt.Sprint(got.Properties.Outputs), "who") {
			err = fmt.Errorf("its outputs are %v", got.Properties.Outputs)
		}
		return err
	}))
	s.reads("Operations.NewListPager", by(func(who azcore.TokenCredential) (*armdeployments.DeploymentOperationsClient, error) {
		return armdeployments.NewDeploymentOperationsClient(r.SubscriptionID, who, r.arm())
	}, func(c *armdeployments.DeploymentOperationsClient) error {
		return holds(c.NewListPager(group, "by-go", nil), "deployed")
	}))
	s.changes("BeginDelete", by(of, func(c client) error { return ended(c.BeginDelete(r.ctx, group, "by-go", nil)) }))
}

// custom is a role of one's own.
func (r *run) custom() {
	type client = *armauthorization.RoleDefinitionsClient
	of := func(who azcore.TokenCredential) (client, error) {
		return armauthorization.NewRoleDefinitionsClient(who, r.arm())
	}
	s := about(r, "armauthorization.RoleDefinitions", of, func(c client) (string, error) {
		return all(c.NewListPager(r.scope(), &armauthorization.RoleDefinitionsClientListOptions{Filter: to.Ptr("type eq 'CustomRole'")}))
	})
	name := uuid.NewString()
	role := armauthorization.RoleDefinition{Properties: &armauthorization.RoleDefinitionProperties{
		RoleName: to.Ptr("By Go " + name[:8]), RoleType: to.Ptr("CustomRole"), AssignableScopes: []*string{to.Ptr(r.scope())},
		Permissions: []*armauthorization.Permission{{Actions: []*string{to.Ptr("Microsoft.Storage/*/read")}}},
	}}
	s.changes("CreateOrUpdate", by(of, func(c client) error { return said(c.CreateOrUpdate(r.ctx, r.scope(), name, role, nil)) }))
	s.reads("Get", by(of, func(c client) error { return said(c.Get(r.ctx, r.scope(), name, nil)) }))
	s.changes("Delete", by(of, func(c client) error { return said(c.Delete(r.ctx, r.scope(), name, nil)) }))
}

// denials are read alone by this client; Resource Manager's generic one puts them.
func (r *run) denials() {
	type client = *armauthorization.DenyAssignmentsClient
	of := func(who azcore.TokenCredential) (client, error) {
		return armauthorization.NewDenyAssignmentsClient(r.SubscriptionID, who, r.arm())
	}
	s := about(r, "armauthorization.DenyAssignments", of, func(c client) (string, error) { return all(c.NewListForScopePager(r.scope(), nil)) })
	name, api := uuid.NewString(), "2024-07-01-preview"
	at := r.id("Microsoft.Authorization/denyAssignments/" + name)
	denial := armresources.GenericResource{Properties: map[string]any{
		"denyAssignmentName": "by go", "principals": []any{map[string]any{"id": r.Reader.ObjectID, "type": "ServicePrincipal"}}, "excludePrincipals": []any{},
		"permissions": []any{map[string]any{"actions": []any{"Microsoft.ManagedIdentity/userAssignedIdentities/read"}, "notActions": []any{}, "dataActions": []any{}, "notDataActions": []any{}}},
	}}
	reads := by(func(who azcore.TokenCredential) (*armmsi.UserAssignedIdentitiesClient, error) {
		return armmsi.NewUserAssignedIdentitiesClient(r.SubscriptionID, who, r.arm())
	}, func(c *armmsi.UserAssignedIdentitiesClient) error { return said(c.Get(r.ctx, group, "untagged", nil)) })
	r.ok("armmsi: a Reader's UserAssignedIdentities.Get", reads(r.reader))
	s.changes("put by armresources", by(r.armResources, func(c *armresources.Client) error {
		return ended(c.BeginCreateOrUpdateByID(r.ctx, at, api, denial, nil))
	}))
	r.refused("a Reader's armmsi.UserAssignedIdentities.Get, which is denied", reads(r.reader), "AuthorizationFailed")
	s.reads("Get", by(of, func(c client) error {
		got, err := c.Get(r.ctx, r.scope(), name, nil)
		if err != nil {
			return err
		}
		return equal(value(got.Properties.DenyAssignmentName), "by go")
	}))
	s.reads("NewListForResourceGroupPager", by(of, func(c client) error { return holds(c.NewListForResourceGroupPager(group, nil), name) }))
	s.changes("deleted by armresources", by(r.armResources, func(c *armresources.Client) error { return ended(c.BeginDeleteByID(r.ctx, at, api, nil)) }))
	r.ok("armmsi: the Reader's UserAssignedIdentities.Get again", reads(r.reader))
	list := by(of, func(c client) error { return said(all(c.NewListForScopePager(r.scope(), nil))) })
	r.refused("a stranger's armauthorization.DenyAssignments.NewListForScopePager", list(r.stranger), "AuthorizationFailed")
}

// eligible is a role that somebody may activate.
func (r *run) eligible() {
	type client = *armauthorization.RoleEligibilitySchedulesClient
	of := func(who azcore.TokenCredential) (client, error) {
		return armauthorization.NewRoleEligibilitySchedulesClient(who, r.arm())
	}
	s := about(r, "armauthorization.RoleEligibilityScheduleRequests", of, func(c client) (string, error) { return all(c.NewListForScopePager(r.scope(), nil)) })
	request := func(kind armauthorization.RequestType) as {
		return by(func(who azcore.TokenCredential) (*armauthorization.RoleEligibilityScheduleRequestsClient, error) {
			return armauthorization.NewRoleEligibilityScheduleRequestsClient(who, r.arm())
		}, func(c *armauthorization.RoleEligibilityScheduleRequestsClient) error {
			return said(c.Create(r.ctx, r.scope(), uuid.NewString(), armauthorization.RoleEligibilityScheduleRequest{Properties: &armauthorization.RoleEligibilityScheduleRequestProperties{
				RoleDefinitionID: r.role(blobReader), PrincipalID: &r.Behalf.Person, RequestType: &kind, Justification: to.Ptr("by go"),
				ScheduleInfo: &armauthorization.RoleEligibilityScheduleRequestPropertiesScheduleInfo{Expiration: &armauthorization.RoleEligibilityScheduleRequestPropertiesScheduleInfoExpiration{Type: to.Ptr(armauthorization.TypeAfterDuration), Duration: to.Ptr("PT8H")}},
			}}, nil))
		})
	}
	s.changes("Create", request(armauthorization.RequestTypeAdminAssign))
	s.changes("Create to remove", request(armauthorization.RequestTypeAdminRemove))
}

// logs are the activity log, and where a vault's is sent.
func (r *run) logs() {
	type client = *armmonitor.DiagnosticSettingsClient
	of := func(who azcore.TokenCredential) (client, error) {
		return armmonitor.NewDiagnosticSettingsClient(who, r.arm())
	}
	vault := r.id("Microsoft.KeyVault/vaults/" + vault)
	s := about(r, "armmonitor.DiagnosticSettings", of, func(c client) (string, error) { return all(c.NewListPager(vault, nil)) })
	account := strings.Replace(r.id("Microsoft.Storage/storageAccounts/clientsacct"), group, "clients", 1)
	setting := armmonitor.DiagnosticSettingsResource{Properties: &armmonitor.DiagnosticSettings{StorageAccountID: &account, Logs: []*armmonitor.LogSettings{{CategoryGroup: to.Ptr("audit"), Enabled: to.Ptr(true)}}}}
	s.changes("CreateOrUpdate", by(of, func(c client) error { return said(c.CreateOrUpdate(r.ctx, vault, "go", setting, nil)) }))
	s.reads("Get", by(of, func(c client) error {
		got, err := c.Get(r.ctx, vault, "go", nil)
		if err != nil {
			return err
		}
		return equal(strings.ToLower(value(got.Properties.StorageAccountID)), strings.ToLower(account))
	}))
	s.changes("Delete", by(of, func(c client) error { return said(c.Delete(r.ctx, vault, "go", nil)) }))

	type events = *armmonitor.ActivityLogsClient
	ofEvents := func(who azcore.TokenCredential) (events, error) {
		return armmonitor.NewActivityLogsClient(r.SubscriptionID, who, r.arm())
	}
	filter := fmt.Sprintf("eventTimestamp ge '%s' and resourceGroupName eq '%s'", time.Now().Add(-time.Hour).UTC().Format(time.RFC3339), group)
	s.client = "armmonitor.ActivityLogs"
	s.reads("NewListPager", by(ofEvents, func(c events) error {
		return holds(c.NewListPager(filter, nil), "Microsoft.Insights/diagnosticSettings/delete", `"caller":"`+r.Admin.ObjectID, `"caller":"`+r.Reader.ObjectID, "Failed")
	}))
	r.ok("armmonitor: a stranger sees no event", by(ofEvents, func(c events) error {
		list, err := all(c.NewListPager(filter, nil))
		if strings.Contains(list, "eventTimestamp") {
			err = errors.New("there are some")
		}
		return err
	})(r.stranger))
}

// atRoot does what takes rights at the root: the administrator elevates first.
func (r *run) atRoot() {
	r.ok("armauthorization.GlobalAdministrator.ElevateAccess", by(func(who azcore.TokenCredential) (*armauthorization.GlobalAdministratorClient, error) {
		return armauthorization.NewGlobalAdministratorClient(who, r.arm())
	}, func(c *armauthorization.GlobalAdministratorClient) error { return said(c.ElevateAccess(r.ctx, nil)) })(r.admin))
	assignments := func(who azcore.TokenCredential) (*armauthorization.RoleAssignmentsClient, error) {
		return armauthorization.NewRoleAssignmentsClient(r.SubscriptionID, who, r.arm())
	}
	root, name := "/providers/Microsoft.Management/managementGroups/"+r.TenantID, uuid.NewString()
	owner := armauthorization.RoleAssignmentCreateParameters{Properties: &armauthorization.RoleAssignmentProperties{
		RoleDefinitionID: to.Ptr("/providers/Microsoft.Authorization/roleDefinitions/" + ownerRole), PrincipalID: &r.Admin.ObjectID, PrincipalType: to.Ptr(armauthorization.PrincipalTypeServicePrincipal),
	}}
	s := about(r, "armauthorization.RoleAssignments", assignments, func(c *armauthorization.RoleAssignmentsClient) (string, error) {
		return all(c.NewListForScopePager(root, nil))
	})
	s.changes("Create at the root group", by(assignments, func(c *armauthorization.RoleAssignmentsClient) error {
		return said(c.Create(r.ctx, root, name, owner, nil))
	}))
	r.groups()
	r.aliases()
	s.changes("Delete at the root group", by(assignments, func(c *armauthorization.RoleAssignmentsClient) error {
		return said(c.Delete(r.ctx, root, name, nil))
	}))
}

func (r *run) groups() {
	type client = *armmanagementgroups.ClientFactory
	of := func(who azcore.TokenCredential) (client, error) {
		return armmanagementgroups.NewClientFactory(who, r.arm())
	}
	s := about(r, "armmanagementgroups", of, func(c client) (string, error) {
		list, err := all(c.NewClient().NewListPager(nil))
		if err != nil {
			return "", err
		}
		entities, err := all(c.NewEntitiesClient().NewListPager(nil))
		return list + entities, err
	})
	made := armmanagementgroups.CreateManagementGroupRequest{Properties: &armmanagementgroups.CreateManagementGroupProperties{DisplayName: to.Ptr("By Go")}}
	// Whoever is signed in may make a group unless the tenant's settings say otherwise, as in Azure.
	s.reads("BeginCreateOrUpdate", by(of, func(c client) error { return ended(c.NewClient().BeginCreateOrUpdate(r.ctx, "by-go", made, nil)) }))
	s.changes("Update", by(of, func(c client) error {
		return said(c.NewClient().Update(r.ctx, "by-go", armmanagementgroups.PatchManagementGroupRequest{DisplayName: to.Ptr("By Go, renamed")}, nil))
	}))
	s.changes("Subscriptions.Create", by(of, func(c client) error {
		return said(c.NewManagementGroupSubscriptionsClient().Create(r.ctx, "by-go", r.SubscriptionID, nil))
	}))
	s.reads("NewGetDescendantsPager", by(of, func(c client) error {
		return holds(c.NewClient().NewGetDescendantsPager("by-go", nil), r.SubscriptionID)
	}))
	s.changes("Subscriptions.Delete", by(of, func(c client) error {
		return said(c.NewManagementGroupSubscriptionsClient().Delete(r.ctx, "by-go", r.SubscriptionID, nil))
	}))
	s.changes("BeginDelete", by(of, func(c client) error { return ended(c.NewClient().BeginDelete(r.ctx, "by-go", nil)) }))
}

// aliases make subscriptions. What is made is somebody else's.
func (r *run) aliases() {
	type client = *armsubscription.ClientFactory
	of := func(who azcore.TokenCredential) (client, error) {
		return armsubscription.NewClientFactory(who, r.arm())
	}
	s := about(r, "armsubscription", of, func(c client) (string, error) {
		got, err := c.NewAliasClient().List(r.ctx, nil)
		if err != nil {
			return "", err
		}
		b, err := json.Marshal(got.AliasListResult)
		if err != nil {
			return "", err
		}
		list, err := all(c.NewSubscriptionsClient().NewListPager(nil))
		return string(b) + list, err
	})
	body := armsubscription.PutAliasRequest{Properties: &armsubscription.PutAliasRequestProperties{DisplayName: to.Ptr("By Go"), Workload: to.Ptr(armsubscription.WorkloadProduction), BillingScope: to.Ptr("/billingAccounts/1/enrollmentAccounts/1"),
		AdditionalProperties: &armsubscription.PutAliasRequestAdditionalProperties{SubscriptionOwnerID: &r.Scientist.ObjectID}}}
	s.changes("Alias.BeginCreate", by(of, func(c client) error { return ended(c.NewAliasClient().BeginCreate(r.ctx, "by-go", body, nil)) }))
	made := ""
	s.reads("Alias.Get", by(of, func(c client) error {
		got, err := c.NewAliasClient().Get(r.ctx, "by-go", nil)
		if err != nil {
			return err
		}
		made = value(got.Properties.SubscriptionID)
		return nil
	}))
	s.changes("Subscription.Rename", by(of, func(c client) error {
		return said(c.NewClient().Rename(r.ctx, made, armsubscription.Name{SubscriptionName: to.Ptr("By Go, renamed")}, nil))
	}))
	s.changes("Subscription.Cancel", by(of, func(c client) error { return said(c.NewClient().Cancel(r.ctx, made, nil)) }))
	s.changes("Subscription.Enable", by(of, func(c client) error { return said(c.NewClient().Enable(r.ctx, made, nil)) }))
	s.changes("Alias.Delete", by(of, func(c client) error { return said(c.NewAliasClient().Delete(r.ctx, "by-go", nil)) }))
}
