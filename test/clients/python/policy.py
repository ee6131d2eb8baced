"""Azure Policy by az: definitions, initiatives, assignments, exemptions, what they deny and how resources comply."""

import json
import tempfile

from azcli import az, login
from checks import Suite, equal, load, must, within

world = load("CASTELLAN_WORLD")
suite = Suite("policy")
location = world.get("location", "local")
arm = world["armEndpoint"].rstrip("/")
group = f"/subscriptions/{world['subscriptionId']}/resourceGroups/by-policy"


def written(value):
    """A file with value as JSON, as az takes rules and parameters."""
    f = tempfile.NamedTemporaryFile("w", suffix=".json", delete=False)
    json.dump(value, f)
    f.close()
    return f.name


def identity(name, *more, **who):
    return az("identity", "create", "--resource-group", "by-policy", "--name", name, *more, **who)


if not suite.ok("login", lambda: login("admin")):
    suite.finish()
az("group", "create", "--name", "by-policy", "--location", location, "--tags", "team=green")

# A definition, an assignment, and what it denies to the Owner.
rule = {"if": {"allOf": [{"field": "type", "equals": "Microsoft.ManagedIdentity/userAssignedIdentities"}, {"field": "[concat('tags[', parameters('tag'), ']')]", "exists": "false"}]}, "then": {"effect": "[parameters('effect')]"}}
params = {"tag": {"type": "String"}, "effect": {"type": "String", "defaultValue": "Deny", "allowedValues": ["Deny", "Audit", "Disabled"]}}
made = suite.ok("definition create", lambda: az("policy", "definition", "create", "--name", "need-tag", "--display-name", "Identities have a tag", "--mode", "Indexed", "--rules", written(rule), "--params", written(params)))
suite.ok("definition show", lambda: equal(az("policy", "definition", "show", "--name", "need-tag")["policyRule"], rule))
suite.ok("definition list", lambda: must("need-tag" in [d["name"] for d in az("policy", "definition", "list")], "not listed"))
suite.refused("a definition with an effect that there is not", lambda: az("policy", "definition", "create", "--name", "wrong", "--rules", written({"if": {"field": "name", "like": "*"}, "then": {"effect": "explode"}})), "InvalidPolicyRule")
suite.refused("an assignment that lacks a parameter", lambda: az("policy", "assignment", "create", "--name", "lacks", "--policy", "need-tag", "--scope", group), "InvalidPolicyParameters")
suite.ok("assignment create", lambda: az("policy", "assignment", "create", "--name", "cost", "--display-name", "Say what it costs", "--policy", "need-tag", "--scope", group, "--params", json.dumps({"tag": {"value": "cost"}})))
suite.ok("assignment show", lambda: equal(az("policy", "assignment", "show", "--name", "cost", "--scope", group)["policyDefinitionId"].lower(), made["id"].lower()))
suite.ok("assignment list", lambda: must("cost" in [a["name"] for a in az("policy", "assignment", "list", "--scope", group)], "not listed"))
suite.ok("a message for who is refused", lambda: az("policy", "assignment", "non-compliance-message", "create", "--name", "cost", "--scope", group, "--message", "Give it the tag cost."))
suite.refused("what the policy denies, to the Owner", lambda: identity("without"), "RequestDisallowedByPolicy")
suite.refused("with the assignment's message", lambda: identity("without"), "Give it the tag cost.")
suite.ok("what complies", lambda: identity("with", "--tags", "cost=1"))

# An exemption.
assignment = az("policy", "assignment", "show", "--name", "cost", "--scope", group)["id"]
suite.ok("exemption create", lambda: az("policy", "exemption", "create", "--name", "once", "--policy-assignment", assignment, "--exemption-category", "Waiver", "--scope", group))
suite.ok("exemption list", lambda: must("once" in [e["name"] for e in az("policy", "exemption", "list", "--scope", group)], "not listed"))
suite.ok("what is exempted", lambda: identity("without"))
suite.ok("exemption delete", lambda: az("policy", "exemption", "delete", "--name", "once", "--scope", group))
suite.refused("once the exemption is gone", lambda: identity("without-too"), "RequestDisallowedByPolicy")

# How resources comply.
suite.ok("state trigger-scan", lambda: az("policy", "state", "trigger-scan", "--resource-group", "by-policy"))
states = suite.ok("state list", lambda: az("policy", "state", "list", "--resource-group", "by-policy", "--policy-assignment", "cost")) or []
suite.ok("each resource with its state", lambda: equal({s["resourceId"].split("/")[-1]: s["complianceState"] for s in states}, {"with": "Compliant", "without": "NonCompliant"}))
suite.ok("state list --filter", lambda: equal(len(az("policy", "state", "list", "--resource-group", "by-policy", "--filter", "complianceState eq 'NonCompliant'")), 1))
suite.ok("state list --policy-definition --apply --order-by", lambda: equal([s["N"] for s in az("policy", "state", "list", "--policy-definition", "need-tag", "--apply", "groupby((complianceState), aggregate($count as N))", "--order-by", "N desc")], [1, 1]))
details = suite.ok("state list --expand PolicyEvaluationDetails", lambda: az("policy", "state", "list", "--resource", group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/without", "--filter", "complianceState eq 'NonCompliant'", "--expand", "PolicyEvaluationDetails")) or [{}]
suite.ok("why it does not comply", lambda: must(any(e["result"] == "True" and "cost" in e["expression"] for e in details[0]["policyEvaluationDetails"]["evaluatedExpressions"]), "no such test"))
suite.ok("event list --policy-assignment", lambda: az("policy", "event", "list", "--resource-group", "by-policy", "--policy-assignment", "cost"))
suite.ok("state summarize", lambda: equal(az("policy", "state", "summarize", "--resource-group", "by-policy")["results"]["nonCompliantResources"], 1))

past = f"{arm}{group}/providers/Microsoft.PolicyInsights/policyStates/default/queryResults?api-version=2024-10-01"
suite.ok("what scans found", lambda: must(any(s["complianceState"] == "NonCompliant" for s in az("rest", "--method", "post", "--url", past)["value"]), "nothing"))

# People attest to what nobody else can judge.
manual = {"if": {"field": "type", "equals": "Microsoft.ManagedIdentity/userAssignedIdentities"}, "then": {"effect": "manual", "details": {"defaultState": "Unknown"}}}
az("policy", "definition", "create", "--name", "reviewed", "--mode", "All", "--rules", written(manual))
reviewed = az("policy", "assignment", "create", "--name", "reviewed", "--policy", "reviewed", "--scope", group)["id"]
seen = group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/with/providers/Microsoft.PolicyInsights/attestations/seen"
body = {"properties": {"policyAssignmentId": reviewed, "complianceState": "Compliant", "owner": "ann", "expiresOn": "2099-01-01T00:00:00Z", "evidence": [{"description": "minutes", "sourceUri": "https://example.org/minutes"}]}}
suite.ok("an attestation", lambda: equal(az("rest", "--method", "put", "--url", f"{arm}{seen}?api-version=2024-10-01", "--body", json.dumps(body))["properties"]["provisioningState"], "Succeeded"))
suite.ok("each resource with what people say", lambda: equal({s["resourceId"].split("/")[-1]: s["complianceState"] for s in az("policy", "state", "list", "--resource-group", "by-policy", "--policy-assignment", "reviewed")}, {"with": "Compliant", "without": "Unknown"}))
az("policy", "assignment", "delete", "--name", "reviewed", "--scope", group)

# What would bind nothing is refused by name.
packages = {"if": {"field": "Microsoft.MachineLearningServices.Data/workspaces/computeName", "exists": "true"}, "then": {"effect": "enforceSetting", "details": {"setting": {"name": "allowedPythonPackageChannels", "value": []}}}}
az("policy", "definition", "create", "--name", "packages", "--mode", "Microsoft.MachineLearningServices.Data", "--rules", written(packages))
suite.refused("a setting that binds nothing here", lambda: az("policy", "assignment", "create", "--name", "packages", "--policy", "packages", "--scope", group), "allowedPythonPackageChannels")

# Not enforced, it only tells.
suite.ok("assignment update --enforcement-mode", lambda: equal(az("policy", "assignment", "update", "--name", "cost", "--scope", group, "--enforcement-mode", "DoNotEnforce")["enforcementMode"], "DoNotEnforce"))
suite.ok("what is not enforced", lambda: identity("without-too"))
suite.ok("event list", lambda: must(any(e["resourceId"].lower().endswith("/without-too") for e in az("policy", "event", "list", "--resource-group", "by-policy")), "no event tells of it"))

# An initiative, and a policy that changes what it finds.
members = [{"policyDefinitionId": made["id"], "policyDefinitionReferenceId": "owner", "parameters": {"tag": {"value": "[parameters('tag')]"}}}]
suite.ok("set-definition create", lambda: az("policy", "set-definition", "create", "--name", "tags", "--definitions", written(members), "--params", written({"tag": {"type": "String", "defaultValue": "owner"}})))
suite.ok("assignment of an initiative", lambda: az("policy", "assignment", "create", "--name", "owner", "--policy-set-definition", "tags", "--scope", group))
suite.refused("what the initiative denies", lambda: identity("ownerless"), "RequestDisallowedByPolicy")
contributor = "/providers/Microsoft.Authorization/roleDefinitions/b24988ac-6180-42a0-ab88-20f7382dd24c"
inherit = {"if": {"field": "tags['owner']", "exists": "false"}, "then": {"effect": "modify", "details": {"roleDefinitionIds": [contributor], "operations": [{"operation": "addOrReplace", "field": "tags['owner']", "value": "[resourceGroup().tags['team']]"}]}}}
suite.ok("definition create with modify", lambda: az("policy", "definition", "create", "--name", "inherit", "--mode", "Indexed", "--rules", written(inherit)))
suite.refused("an assignment that changes and has no identity", lambda: az("policy", "assignment", "create", "--name", "inherit", "--policy", "inherit", "--scope", group), "ResourceIdentityRequired")
suite.ok("assignment with an identity", lambda: must(az("policy", "assignment", "create", "--name", "inherit", "--policy", "inherit", "--scope", group, "--mi-system-assigned", "--location", location)["identity"]["principalId"], "no principal"))
suite.ok("a resource is changed before it is denied", lambda: equal(identity("inherits")["tags"], {"owner": "green"}))

suite.ok("provider show --expand resourceTypes/aliases", lambda: must(any(a["name"] == "Microsoft.Storage/storageAccounts/allowSharedKeyAccess" for t in az("provider", "show", "--namespace", "Microsoft.Storage", "--expand", "resourceTypes/aliases")["resourceTypes"] for a in t["aliases"] or []), "not listed"))

# A task repairs what was there before, as the assignment's identity.
az("policy", "assignment", "create", "--name", "repairs", "--policy", "inherit", "--scope", group, "--mi-system-assigned", "--location", location, "--role", "Contributor", "--identity-scope", group)
suite.ok("remediation create", lambda: az("policy", "remediation", "create", "--name", "repair", "--policy-assignment", "repairs", "--resource-group", "by-policy"))
suite.ok("it succeeds", lambda: within(30, lambda: az("policy", "remediation", "show", "--name", "repair", "--resource-group", "by-policy")["provisioningState"] == "Succeeded"))
suite.ok("remediation deployment list", lambda: must(az("policy", "remediation", "deployment", "list", "--name", "repair", "--resource-group", "by-policy"), "nothing was repaired"))
suite.ok("the resource is repaired", lambda: equal(az("identity", "show", "--resource-group", "by-policy", "--name", "without")["tags"].get("owner"), "green"))
suite.ok("remediation list", lambda: must("repair" in [r["name"] for r in az("policy", "remediation", "list", "--resource-group", "by-policy")], "not listed"))

# What it lacks may be of the subscription.
subscription = f"/subscriptions/{world['subscriptionId']}"
resource_group = {"type": "Microsoft.Resources/resourceGroups", "apiVersion": "2021-04-01", "name": "by-repair", "location": "[deployment().location]"}
deploys = {"location": location, "properties": {"mode": "incremental", "template": {"$schema": "https://schema.management.azure.com/schemas/2018-05-01/subscriptionDeploymentTemplate.json#", "contentVersion": "1.0.0.0", "resources": [resource_group]}}}
lacks = {"if": {"allOf": [{"field": "type", "equals": "Microsoft.ManagedIdentity/userAssignedIdentities"}, {"field": "name", "equals": "without"}]}, "then": {"effect": "deployIfNotExists", "details": {"type": "Microsoft.Resources/subscriptions/resourceGroups", "name": "by-repair", "existenceScope": "subscription", "deploymentScope": "subscription", "roleDefinitionIds": [contributor], "deployment": deploys}}}
az("policy", "definition", "create", "--name", "lacks", "--mode", "Indexed", "--rules", written(lacks))
az("policy", "assignment", "create", "--name", "lacks", "--policy", "lacks", "--scope", subscription, "--mi-system-assigned", "--location", location, "--role", "Contributor", "--identity-scope", subscription)
suite.ok("remediation create at the subscription", lambda: az("policy", "remediation", "create", "--name", "lacks", "--policy-assignment", "lacks"))
suite.ok("its group is made", lambda: within(30, lambda: az("group", "exists", "--name", "by-repair")))
suite.ok("by a deployment to the subscription", lambda: must(any(d["name"].startswith("PolicyDeployment_") for d in az("deployment", "sub", "list")), "no deployment is listed"))
az("policy", "assignment", "delete", "--name", "lacks", "--scope", subscription)
az("group", "delete", "--name", "by-repair", "--yes", "--no-wait")

suite.ok("remediation delete", lambda: az("policy", "remediation", "delete", "--name", "repair", "--resource-group", "by-policy"))

# Definitions in use stay; then everything goes.
suite.refused("to delete a definition in use", lambda: az("policy", "definition", "delete", "--name", "need-tag"), "PolicyDefinitionInUse")
for name in ("cost", "owner", "inherit", "repairs"):
    suite.ok(f"assignment delete {name}", lambda name=name: az("policy", "assignment", "delete", "--name", name, "--scope", group))
suite.ok("set-definition delete", lambda: az("policy", "set-definition", "delete", "--name", "tags"))
suite.ok("definition delete", lambda: az("policy", "definition", "delete", "--name", "need-tag"))
suite.ok("nothing is denied any more", lambda: equal(identity("free").get("tags") or {}, {}))

# A Reader sees policies and writes none.
az("role", "assignment", "create", "--assignee-object-id", world["reader"]["objectId"], "--assignee-principal-type", "ServicePrincipal", "--role", "Reader", "--scope", group)
login("reader", who="reader")
builtin = "871b6d14-10aa-478d-b590-94f262ecfa99"
suite.ok("a Reader sees a built-in definition", lambda: equal(az("policy", "definition", "show", "--name", builtin, who="reader")["policyType"], "BuiltIn"))
suite.refused("a Reader's assignment", lambda: az("policy", "assignment", "create", "--name", "theirs", "--policy", builtin, "--params", json.dumps({"tagName": {"value": "x"}}), "--scope", group, who="reader"), "AuthorizationFailed")
suite.ok("assignment of a built-in definition", lambda: az("policy", "assignment", "create", "--name", "built-in", "--policy", builtin, "--params", json.dumps({"tagName": {"value": "x"}}), "--scope", group))
suite.refused("what a built-in definition denies", lambda: identity("tagless"), "RequestDisallowedByPolicy")
suite.finish()
