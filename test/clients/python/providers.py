"""Policies, deployments, storage, vaults and workspaces by the Azure SDK's management clients for Python."""

import uuid

from azure.mgmt.keyvault import KeyVaultManagementClient
from azure.mgmt.machinelearningservices import MachineLearningServicesMgmtClient
from azure.mgmt.policyinsights import PolicyInsightsClient
from azure.mgmt.policyinsights.models import QueryOptions
from azure.mgmt.resource.deployments import DeploymentsMgmtClient
from azure.mgmt.resource.policy import PolicyClient
from azure.mgmt.resource.resources import ResourceManagementClient
from azure.mgmt.storage import StorageManagementClient
from checks import Suite, equal, must
from sdk import Sdk, subscription, typed, world
import vaults as content

suite = Suite("providers")
name, location = "by-providers", world.get("location", "local")
group = f"/subscriptions/{subscription}/resourceGroups/{name}"
identities = "Microsoft.ManagedIdentity/userAssignedIdentities"
BUILTIN = "871b6d14-10aa-478d-b590-94f262ecfa99"  # Require a tag on resources
CONTRIBUTOR = "/providers/Microsoft.Authorization/roleDefinitions/b24988ac-6180-42a0-ab88-20f7382dd24c"


def ok(what, do):
    return suite.ok(what, do)


def wrong(what, do, status, *codes):
    typed(suite, what, do, status, *codes)


def named(rows):
    return [r.name for r in rows]


def holds(want, rows):
    must(want in named(rows), f"{want} is not listed")


def definitions(p):
    a, sets = p.admin.policy_definitions, p.admin.policy_set_definitions
    rule = {"if": {"allOf": [{"field": "type", "equals": identities}, {"field": "[concat('tags[', parameters('tag'), ']')]", "exists": "false"}]}, "then": {"effect": "audit"}}
    body = {"properties": {"displayName": "py", "mode": "Indexed", "policyRule": rule, "parameters": {"tag": {"type": "String"}}}}
    made = ok("policy_definitions.create_or_update", lambda: a.create_or_update("py-tag", body))
    ok("policy_definitions.get", lambda: equal(a.get("py-tag").mode, "Indexed"))
    ok("policy_definitions.list", lambda: holds("py-tag", a.list(filter="policyType eq 'Custom'")))
    ok("policy_definitions.get_built_in", lambda: equal(a.get_built_in(BUILTIN).policy_type, "BuiltIn"))
    ok("policy_definitions.list_built_in", lambda: holds(BUILTIN, a.list_built_in()))
    wrong("policy_definitions.create_or_update with a condition that there is not", lambda: a.create_or_update("py-bad", {"properties": {**body["properties"], "policyRule": {"if": {"colour": "red"}, "then": {"effect": "audit"}}}}), 400, "InvalidPolicyRule")
    wrong("policy_definitions.create_or_update with a mode that there is not", lambda: a.create_or_update("py-bad", {"properties": {**body["properties"], "mode": "Sometimes"}}), 400, "InvalidPolicyDefinitionMode", "InvalidPolicyDefinition", "NotSupported", "InvalidRequestContent")
    wrong("policy_definitions.get of none", lambda: a.get("none-such"), 404, "PolicyDefinitionNotFound")
    wrong("a Reader's policy_definitions.create_or_update", lambda: p.reader.policy_definitions.create_or_update("py-tag", body), 403, "AuthorizationFailed")
    member = {"policyDefinitionId": made.id, "policyDefinitionReferenceId": "one", "parameters": {"tag": {"value": "[parameters('tag')]"}}}
    initiative = {"properties": {"policyDefinitions": [member], "parameters": {"tag": {"type": "String", "defaultValue": "owner"}}}}
    ok("policy_set_definitions.create_or_update", lambda: sets.create_or_update("py-set", initiative))
    ok("policy_set_definitions.get", lambda: equal(len(sets.get("py-set").policy_definitions), 1))
    ok("policy_set_definitions.list", lambda: holds("py-set", sets.list()))
    ok("policy_set_definitions.list_built_in", lambda: list(sets.list_built_in()))
    wrong("policy_set_definitions.get_built_in of none", lambda: sets.get_built_in(str(uuid.uuid4())), 404, "PolicySetDefinitionNotFound")
    wrong("policy_set_definitions.create_or_update of no policy", lambda: sets.create_or_update("py-bad", {"properties": {"policyDefinitions": [{"policyDefinitionId": made.id + "-not"}]}}), 404, "PolicyDefinitionNotFound")
    wrong("a Reader's policy_set_definitions.delete", lambda: p.reader.policy_set_definitions.delete("py-set"), 403, "AuthorizationFailed")
    wrong("policy_definitions.delete of what is in use", lambda: a.delete("py-tag"), 409, "PolicyDefinitionInUse")
    return made


def assignments(p, made):
    a = p.admin.policy_assignments
    one = f"{group}/providers/Microsoft.Authorization/policyAssignments/py-1".lstrip("/")
    body = {"properties": {"policyDefinitionId": made.id, "displayName": "py", "parameters": {"tag": {"value": "cost"}}}}
    ok("policy_assignments.create_by_id", lambda: equal(a.create_by_id(one, body).name, "py-1"))
    ok("policy_assignments.create", lambda: equal(a.create(group, "py-2", {"properties": {"policyDefinitionId": made.id.replace("policyDefinitions/py-tag", "policySetDefinitions/py-set")}}).name, "py-2"))
    ok("policy_assignments.create with an identity", lambda: must(a.create(group, "py-3", {"location": location, "identity": {"type": "SystemAssigned"}, **body}).identity.principal_id, "no principal"))
    ok("policy_assignments.get", lambda: equal(a.get(group, "py-1").enforcement_mode, "Default"))
    ok("policy_assignments.get_by_id", lambda: equal(a.get_by_id(one).display_name, "py"))
    ok("policy_assignments.update", lambda: equal(a.update(group, "py-3", {"identity": {"type": "None"}}).identity, None))
    ok("policy_assignments.update_by_id", lambda: a.update_by_id(one, {"properties": {}}))
    ok("policy_assignments.list", lambda: holds("py-1", a.list()))
    ok("policy_assignments.list_for_resource_group", lambda: must({"py-1", "py-2", "py-3"} <= set(named(a.list_for_resource_group(name))), "not listed"))
    ok("policy_assignments.list_for_resource", lambda: must("py-1" in named(a.list_for_resource(name, "Microsoft.ManagedIdentity", "", "userAssignedIdentities", "without")), "not listed"))
    wrong("policy_assignments.create without a parameter", lambda: a.create(group, "py-bad", {"properties": {"policyDefinitionId": made.id}}), 400, "MissingPolicyParameter", "InvalidPolicyParameters")
    wrong("policy_assignments.create of no definition", lambda: a.create(group, "py-bad", {"properties": {"policyDefinitionId": made.id + "-not"}}), 404, "PolicyDefinitionNotFound")
    wrong("policy_assignments.get of none", lambda: a.get(group, "none-such"), 404, "PolicyAssignmentNotFound")
    wrong("a Reader's policy_assignments.create", lambda: p.reader.policy_assignments.create(group, "py-bad", body), 403, "AuthorizationFailed")
    ok("policy_assignments.delete_by_id", lambda: a.delete_by_id(f"{group}/providers/Microsoft.Authorization/policyAssignments/py-3".lstrip("/")))


def states(i, made):
    s, e = i.admin.policy_states, i.admin.policy_events
    where = {
        "subscription": (subscription,), "resource_group": (subscription, name), "resource": (f"{group}/providers/{identities}/without".lstrip("/"),),
        "resource_group_level_policy_assignment": (subscription, name, "py-1"), "policy_definition": (subscription, made.name),
    }
    ok("policy_states.begin_trigger_resource_group_evaluation", lambda: s.begin_trigger_resource_group_evaluation(subscription, name).result())
    ok("policy_states.begin_trigger_subscription_evaluation", lambda: s.begin_trigger_subscription_evaluation(subscription).result())
    for level, args in where.items():
        ok(f"policy_states.list_query_results_for_{level}", lambda level=level, args=args: must(any(r.resource_id.endswith("/without") and r.compliance_state == "NonCompliant" for r in getattr(s, "list_query_results_for_" + level)("latest", *args)), "not listed"))
        ok(f"policy_states.summarize_for_{level}", lambda level=level, args=args: must(getattr(s, "summarize_for_" + level)("latest", *args).value[0].results.non_compliant_resources, "none"))
        ok(f"policy_events.list_query_results_for_{level}", lambda level=level, args=args: list(getattr(e, "list_query_results_for_" + level)("default", *args)))
    said = QueryOptions(apply="groupby((PolicyAssignmentName, ComplianceState), aggregate($count as Found))", filter="IsCompliant eq false and (PolicyAssignmentName eq 'py-1' or PolicyAssignmentName eq 'none')")
    ok("policy_states grouped and counted", lambda: must([r.additional_properties.get("Found", 0) > 0 for r in s.list_query_results_for_subscription("latest", subscription, said)] == [True], "not one group"))
    why = QueryOptions(expand="PolicyEvaluationDetails", filter="PolicyAssignmentName eq 'py-1'")
    ok("policy_states with the tests that were made", lambda: must(all(r.policy_evaluation_details.evaluated_expressions[0].operator for r in s.list_query_results_for_resource("latest", where["resource"][0], why)), "no tests"))
    wrong("policy_states by what there is not", lambda: list(s.list_query_results_for_subscription("latest", subscription, QueryOptions(filter="Nothing eq 'x'"))), 400, "BadRequest")
    wrong("policy_states of a kind that there is not", lambda: s.list_query_results_for_resource_group("ancient", subscription, name), 400, "BadRequest")
    wrong("a stranger's policy_states", lambda: i.stranger.policy_states.list_query_results_for_resource_group("latest", subscription, name), 403, "AuthorizationFailed")
    wrong("a Reader's begin_trigger_resource_group_evaluation", lambda: i.reader.policy_states.begin_trigger_resource_group_evaluation(subscription, name), 403, "AuthorizationFailed")
    asked = {"resourceDetails": {"resourceContent": {"type": identities, "name": "x"}}}
    ok("policy_restrictions.check_at_resource_group_scope", lambda: i.admin.policy_restrictions.check_at_resource_group_scope(name, asked))
    ok("policy_restrictions.check_at_subscription_scope", lambda: i.admin.policy_restrictions.check_at_subscription_scope(asked))
    wrong("a stranger's policy_restrictions.check_at_resource_group_scope", lambda: i.stranger.policy_restrictions.check_at_resource_group_scope(name, asked), 403, "AuthorizationFailed")


def remediations(i, p, rm):
    rule = {"if": {"allOf": [{"field": "type", "equals": identities}, {"field": "tags['done']", "exists": "false"}]}, "then": {"effect": "modify", "details": {"roleDefinitionIds": [CONTRIBUTOR], "operations": [{"operation": "add", "field": "tags['done']", "value": "yes"}]}}}
    made = p.admin.policy_definitions.create_or_update("py-modify", {"properties": {"mode": "Indexed", "policyRule": rule}})
    given = p.admin.policy_assignments.create(group, "py-modify", {"location": location, "identity": {"type": "SystemAssigned"}, "properties": {"policyDefinitionId": made.id}})
    r, task = i.admin.remediations, {"properties": {"policyAssignmentId": given.id}}
    resource = f"{group}/providers/{identities}/without".lstrip("/")
    for level, args in (("resource", (resource,)), ("resource_group", (name,))):
        of = lambda verb, level=level: getattr(r, f"{verb}_{level}")
        ok(f"remediations.create_or_update_at_{level}", lambda of=of, args=args, level=level: equal(of("create_or_update_at")(*args, "py-" + level.replace("_", ""), task).policy_assignment_id.lower(), given.id.lower()))
        n = "py-" + level.replace("_", "")
        ok(f"remediations.get_at_{level}", lambda of=of, args=args, n=n: equal(of("get_at")(*args, n).name, n))
        ok(f"remediations.list_for_{level}", lambda of=of, args=args, n=n: holds(n, of("list_for")(*args)))
        ok(f"remediations.list_deployments_at_{level}", lambda of=of, args=args, n=n: list(of("list_deployments_at")(*args, n)))
    wrong("remediations.create_or_update of no assignment", lambda: r.create_or_update_at_resource_group(name, "py-bad", {"properties": {"policyAssignmentId": given.id + "-not"}}), 400, "InvalidRequestContent")
    wrong("remediations.create_or_update_at_subscription above the assignment", lambda: r.create_or_update_at_subscription("py-bad", task), 400, "InvalidRequestContent")
    wrong("remediations.get of none", lambda: r.get_at_resource_group(name, "none-such"), 404, "RemediationNotFound", "ResourceNotFound")
    wrong("a Reader's remediations.create_or_update", lambda: i.reader.remediations.create_or_update_at_resource_group(name, "py-bad", task), 403, "AuthorizationFailed")
    for level, args in (("resource", (resource,)), ("resource_group", (name,))):
        n = "py-" + level.replace("_", "")
        # What has ended can't be canceled; what has not can.
        def cancel(level=level, args=args, n=n):
            state = getattr(r, "get_at_" + level)(*args, n).provisioning_state
            try:
                getattr(r, "cancel_at_" + level)(*args, n)
            except Exception as e:
                must(getattr(e, "status_code", 0) in (400, 409), e)
                must(getattr(r, "get_at_" + level)(*args, n).provisioning_state in ("Succeeded", "Failed"), f"{state}: {e}")
        ok(f"remediations.cancel_at_{level}", cancel)
        ok(f"remediations.delete_at_{level}", lambda level=level, args=args, n=n: getattr(r, "delete_at_" + level)(*args, n))


def deployments(d):
    a, o = d.admin.deployments, d.admin.deployment_operations
    template = {"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "contentVersion": "1.0.0.0", "parameters": {"n": {"type": "string"}}, "resources": [{"type": identities, "apiVersion": "2023-01-31", "name": "[parameters('n')]", "location": location}], "outputs": {"id": {"type": "string", "value": "[resourceId('Microsoft.ManagedIdentity/userAssignedIdentities', parameters('n'))]"}}}
    body = {"properties": {"mode": "Incremental", "template": template, "parameters": {"n": {"value": "deployed"}}}}
    lacks = {"properties": {"mode": "Incremental", "template": template}}
    ok("deployments.begin_validate", lambda: equal(a.begin_validate(name, "py", body).result().error, None))
    ok("deployments.begin_create_or_update", lambda: must(a.begin_create_or_update(name, "py", body).result().properties.outputs["id"]["value"].endswith("/deployed"), "no output"))
    ok("deployments.get", lambda: equal(a.get(name, "py").properties.provisioning_state, "Succeeded"))
    ok("deployments.check_existence", lambda: equal((a.check_existence(name, "py"), a.check_existence(name, "none-such")), (True, False)))
    ok("deployments.list_by_resource_group", lambda: holds("py", a.list_by_resource_group(name)))
    ok("deployments.export_template", lambda: must(a.export_template(name, "py").template["resources"], "no resources"))
    ops = ok("deployment_operations.list", lambda: list(o.list(name, "py"))) or []
    ok("deployment_operations.get", lambda: equal(o.get(name, "py", ops[0].operation_id).properties.provisioning_state, "Succeeded"))
    wrong("deployments.begin_create_or_update without a parameter", lambda: a.begin_create_or_update(name, "py-bad", lacks).result(), 400, "InvalidTemplate")
    wrong("deployments.begin_validate without a parameter", lambda: a.begin_validate(name, "py-bad", lacks).result(), 400, "InvalidTemplate")
    wrong("deployments.get of none", lambda: a.get(name, "none-such"), 404, "DeploymentNotFound", "ResourceNotFound")
    wrong("a Reader's deployments.begin_create_or_update", lambda: d.reader.deployments.begin_create_or_update(name, "py-r", body).result(), 403, "AuthorizationFailed")
    ok("deployments.begin_delete", lambda: a.begin_delete(name, "py").result())


def storage(s):
    a, b = s.admin.storage_accounts, s.admin.blob_containers
    acct = "pyacct" + uuid.uuid4().hex[:8]
    body = {"location": location, "kind": "StorageV2", "sku": {"name": "Standard_LRS"}}
    ok("storage_accounts.check_name_availability", lambda: equal(a.check_name_availability({"name": acct, "type": "Microsoft.Storage/storageAccounts"}).name_available, True))
    ok("storage_accounts.begin_create", lambda: equal(a.begin_create(name, acct, body).result().provisioning_state, "Succeeded"))
    ok("storage_accounts.check_name_availability of what is taken", lambda: equal(a.check_name_availability({"name": acct, "type": "Microsoft.Storage/storageAccounts"}).reason, "AlreadyExists"))
    ok("storage_accounts.get_properties", lambda: must(a.get_properties(name, acct).primary_endpoints.blob, "no endpoint"))
    ok("storage_accounts.update", lambda: equal(a.update(name, acct, {"properties": {"allowSharedKeyAccess": True, "minimumTlsVersion": "TLS1_2"}}).allow_shared_key_access, True))
    ok("storage_accounts.list", lambda: holds(acct, a.list()))
    ok("storage_accounts.list_by_resource_group", lambda: holds(acct, a.list_by_resource_group(name)))
    keys = ok("storage_accounts.list_keys", lambda: a.list_keys(name, acct).keys_property)
    ok("storage_accounts.regenerate_key", lambda: must(a.regenerate_key(name, acct, {"keyName": "key1"}).keys_property[0].value != keys[0].value, "the same key"))
    ok("storage_accounts.revoke_user_delegation_keys", lambda: a.revoke_user_delegation_keys(name, acct))
    wrong("storage_accounts.begin_create with a bad name", lambda: a.begin_create(name, "Bad-Name", body).result(), 400, "AccountNameInvalid")
    wrong("storage_accounts.regenerate_key of none", lambda: a.regenerate_key(name, acct, {"keyName": "key9"}), 400, "BadRequest")
    wrong("storage_accounts.get_properties of none", lambda: a.get_properties(name, "nonesuch"), 404, "ResourceNotFound")
    wrong("a Reader's storage_accounts.list_keys", lambda: s.reader.storage_accounts.list_keys(name, acct), 403, "AuthorizationFailed")
    ok("blob_services.list", lambda: equal(named(s.admin.blob_services.list(name, acct)), ["default"]))
    ok("blob_services.set_service_properties", lambda: s.admin.blob_services.set_service_properties(name, acct, {"properties": {"deleteRetentionPolicy": {"enabled": False}}}))
    ok("blob_services.get_service_properties", lambda: equal(s.admin.blob_services.get_service_properties(name, acct).delete_retention_policy.enabled, False))
    ok("blob_containers.create", lambda: equal(b.create(name, acct, "box", {}).name, "box"))
    ok("blob_containers.update", lambda: equal(b.update(name, acct, "box", {"properties": {"metadata": {"a": "b"}}}).metadata, {"a": "b"}))
    ok("blob_containers.get", lambda: equal(b.get(name, acct, "box").public_access, "None"))
    ok("blob_containers.list", lambda: equal(named(b.list(name, acct)), ["box"]))
    wrong("blob_containers.create with a bad name", lambda: b.create(name, acct, "a_b", {}), 400, "InvalidResourceName")
    wrong("blob_containers.create for all the world", lambda: b.create(name, acct, "open", {"properties": {"publicAccess": "Blob"}}), 400, "NotSupported")
    wrong("a Reader's blob_containers.delete", lambda: s.reader.blob_containers.delete(name, acct, "box"), 403, "AuthorizationFailed")
    ok("blob_containers.delete", lambda: b.delete(name, acct, "box"))
    ok("storage_accounts.delete", lambda: a.delete(name, acct))


def vaults(k):
    v, s = k.admin.vaults, k.admin.secrets
    kv = "py-" + uuid.uuid4().hex[:8]
    body = {"location": location, "properties": {"tenantId": world["tenantId"], "sku": {"family": "A", "name": "standard"}, "accessPolicies": [], "enableRbacAuthorization": False}}
    ok("vaults.check_name_availability", lambda: equal(v.check_name_availability({"name": kv, "type": "Microsoft.KeyVault/vaults"}).name_available, True))
    ok("vaults.begin_create_or_update", lambda: must(v.begin_create_or_update(name, kv, body).result().properties.vault_uri, "no uri"))
    ok("vaults.get", lambda: equal(v.get(name, kv).name, kv))
    ok("vaults.update", lambda: equal(v.update(name, kv, {"tags": {"a": "b"}}).tags, {"a": "b"}))
    ok("vaults.list", lambda: holds(kv, v.list()))
    ok("vaults.list_by_subscription", lambda: holds(kv, v.list_by_subscription()))
    ok("vaults.list_by_resource_group", lambda: holds(kv, v.list_by_resource_group(name)))
    entry = {"properties": {"accessPolicies": [{"tenantId": world["tenantId"], "objectId": world["reader"]["objectId"], "permissions": {"secrets": ["get"]}}]}}
    ok("vaults.update_access_policy", lambda: equal(len(v.update_access_policy(name, kv, "add", entry).properties.access_policies), 1))
    ok("secrets.create_or_update", lambda: equal(s.create_or_update("clients", "clients-kv", "one", {"properties": {"value": "hidden"}}).name, "one"))
    ok("secrets.get", lambda: equal(s.get("clients", "clients-kv", "one").properties.value, None))
    ok("secrets.list", lambda: holds("one", s.list("clients", "clients-kv")))
    wrong("vaults.begin_create_or_update with a bad name", lambda: v.begin_create_or_update(name, "1-", body).result(), 400, "VaultNameNotValid")
    wrong("vaults.begin_create_or_update of another tenant", lambda: v.begin_create_or_update(name, kv + "x", {**body, "properties": {**body["properties"], "tenantId": str(uuid.uuid4())}}).result(), 400, "BadRequest", "InvalidTenantId")
    wrong("vaults.get of none", lambda: v.get(name, "none-such"), 404, "ResourceNotFound")
    wrong("a Reader's secrets.create_or_update", lambda: k.reader.secrets.create_or_update(name, kv, "two", {"properties": {"value": "x"}}), 403, "AuthorizationFailed", "Forbidden")
    wrong("a Reader's vaults.update_access_policy", lambda: k.reader.vaults.update_access_policy(name, kv, "add", entry), 403, "AuthorizationFailed")
    ok("vaults.delete", lambda: v.delete(name, kv))
    ok("vaults.list_deleted", lambda: holds(kv, v.list_deleted()))
    ok("vaults.get_deleted", lambda: equal(v.get_deleted(kv, location).name, kv))
    wrong("a Reader's vaults.begin_purge_deleted", lambda: k.reader.vaults.begin_purge_deleted(kv, location).result(), 403, "AuthorizationFailed")
    ok("vaults.begin_purge_deleted", lambda: v.begin_purge_deleted(kv, location).result())
    wrong("vaults.get_deleted of none", lambda: v.get_deleted(kv, location), 404, "DeletedVaultNotFound", "ResourceNotFound")


def workspaces(m):
    w, c = m.admin.workspaces, m.admin.machine_learning_compute
    ok("workspaces.get", lambda: equal(w.get("clients", "lab").friendly_name, "lab"))
    ok("workspaces.list_by_subscription", lambda: holds("lab", w.list_by_subscription()))
    ok("workspaces.list_by_resource_group", lambda: holds("lab", w.list_by_resource_group("clients")))
    ok("workspaces.update", lambda: equal(w.update("clients", "lab", {"tags": {"py": "1"}}).tags["py"], "1"))
    ok("workspaces.list_keys", lambda: w.list_keys("clients", "lab"))
    ok("machine_learning_compute.list_by_workspace", lambda: holds("cpu", c.list_by_workspace("clients", "lab")))
    ok("machine_learning_compute.get", lambda: equal(c.get("clients", "lab", "cpu").properties.compute_type, "AmlCompute"))
    ok("machine_learning_compute.list_nodes", lambda: c.list_nodes("clients", "lab", "cpu"))
    ok("usages.list", lambda: list(m.admin.usages.list(location)))
    wrong("workspaces.get of none", lambda: w.get("clients", "none-such"), 404, "ResourceNotFound")
    wrong("machine_learning_compute.get of none", lambda: c.get("clients", "lab", "none-such"), 404, "ResourceNotFound")
    wrong("a Reader's workspaces.list_keys", lambda: m.reader.workspaces.list_keys("clients", "lab"), 403, "AuthorizationFailed")
    wrong("a Reader's workspaces.update", lambda: m.reader.workspaces.update("clients", "lab", {"tags": {}}), 403, "AuthorizationFailed")
    wrong("workspaces.begin_create_or_update without what it needs", lambda: w.begin_create_or_update(name, "bare", {"location": location, "identity": {"type": "SystemAssigned"}, "properties": {}}).result(), 400, "ValidationError", "InvalidRequestContent", "BadRequest")


p, i, d, s, k, m, rm = (Sdk(suite, kind) for kind in (PolicyClient, PolicyInsightsClient, DeploymentsMgmtClient, StorageManagementClient, KeyVaultManagementClient, MachineLearningServicesMgmtClient, ResourceManagementClient))
rm.admin.resource_groups.create_or_update(name, {"location": location})
rm.admin.resources.begin_create_or_update_by_id(f"{group}/providers/{identities}/without", {"location": location}, api_version="2023-01-31").result()
made = definitions(p)
parts = [lambda: assignments(p, made), lambda: states(i, made), lambda: remediations(i, p, rm), lambda: deployments(d), lambda: storage(s), lambda: vaults(k), lambda: content.drive(suite, k, name, location), lambda: workspaces(m)]
for n, part in enumerate(parts):
    try:
        part()
    except Exception as e:
        suite.fail(f"part {n}", e)
for a in ("py-1", "py-2", "py-modify"):
    ok(f"policy_assignments.delete {a}", lambda a=a: p.admin.policy_assignments.delete(group, a))
ok("policy_set_definitions.delete", lambda: p.admin.policy_set_definitions.delete("py-set"))
for a in ("py-tag", "py-modify"):
    ok(f"policy_definitions.delete {a}", lambda a=a: p.admin.policy_definitions.delete(a))
rm.admin.resource_groups.begin_delete(name)
suite.finish()
