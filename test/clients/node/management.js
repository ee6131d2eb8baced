// Resource Manager's own clients: whatever changes something is refused to a Reader first, and changes nothing; then it is done.
"use strict";
const { randomUUID } = require("crypto");
const { AuthorizationManagementClient } = require("@azure/arm-authorization");
const { ManagementLockClient } = require("@azure/arm-locks");
const { ManagementGroupsAPI } = require("@azure/arm-managementgroups");
const { MonitorClient } = require("@azure/arm-monitor");
const { PolicyClient } = require("@azure/arm-policy");
const { ResourceManagementClient } = require("@azure/arm-resources");

module.exports = async function management({ ok, refused, equal, all, credential, scope, world }) {
  const name = "managed-by-node";
  const subscription = "/subscriptions/" + world.subscriptionId;
  const group = `${subscription}/resourceGroups/${name}`;
  const location = world.location || "local";
  const options = { endpoint: world.armEndpoint, credentialScopes: scope, credentials: { scopes: [scope] }, retryOptions: { maxRetries: 1 } };
  const fast = { updateIntervalInMs: 200 };
  const made = new Map(); // clients by who and kind
  const client = (who, Kind) => {
    const key = who + Kind.name;
    if (!made.has(key)) made.set(key, Kind === ManagementGroupsAPI ? new Kind(credential(who), options) : new Kind(credential(who), world.subscriptionId, options));
    return made.get(key);
  };

  // reads is a call that only looks.
  const reads = (what, Kind, call) => ok(what, () => call(client("admin", Kind)));
  // changes is a call that changes what look says, but not for a Reader.
  const changes = async (what, Kind, look, call) => {
    const now = async () => JSON.stringify(await look(client("admin", Kind)));
    const before = await now();
    await refused("a Reader's " + what, () => call(client("reader", Kind)), "AuthorizationFailed");
    await ok(what, async () => {
      equal(await now(), before);
      await call(client("admin", Kind));
      if ((await now()) === before) throw new Error("nothing came of it: " + before);
    });
  };

  const identity = "Microsoft.ManagedIdentity/userAssignedIdentities";
  const id = (n) => `${group}/providers/${identity}/${n}`;
  const api = "2023-01-31";
  const role = (guid) => `${subscription}/providers/Microsoft.Authorization/roleDefinitions/${guid}`;
  const [reader, blobReader] = ["acdd72a7-3385-48ef-bd42-f606fba81ae7", "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1"];

  const groups = (c) => all(c.resourceGroups.list());
  await changes("resourceGroups.createOrUpdate", ResourceManagementClient, groups, (c) => c.resourceGroups.createOrUpdate(name, { location }));
  const assignments = (c) => all(c.roleAssignments.listForScope(group, { filter: "atScope()" }));
  const given = { roleDefinitionId: role(reader), principalId: world.reader.objectId, principalType: "ServicePrincipal" };
  await changes("roleAssignments.create", AuthorizationManagementClient, assignments, (c) => c.roleAssignments.create(group, randomUUID(), given));
  await changes("tags.beginUpdateAtScope", ResourceManagementClient, groups, (c) => c.tagsOperations.beginUpdateAtScopeAndWait(group, { operation: "Merge", properties: { tags: { by: "node" } } }, fast));

  const resources = (c) => all(c.resources.list({ filter: "name eq 'generic'" }));
  await changes("resources.beginCreateOrUpdateById", ResourceManagementClient, resources, (c) => c.resources.beginCreateOrUpdateByIdAndWait(id("generic"), api, { location }, fast));
  await reads("resources.getById", ResourceManagementClient, async (c) => equal((await c.resources.getById(id("generic"), api)).name, "generic"));
  await refused("resources.getById of none", () => client("admin", ResourceManagementClient).resources.getById(id("none"), api), "ResourceNotFound");
  await reads("providers.list", ResourceManagementClient, async (c) => equal((await all(c.providers.list())).some((p) => p.namespace === "Microsoft.Authorization"), true));

  const locks = (c) => all(c.managementLocks.listAtResourceGroupLevel(name));
  await changes("managementLocks.createOrUpdateAtResourceGroupLevel", ManagementLockClient, locks, (c) => c.managementLocks.createOrUpdateAtResourceGroupLevel(name, "keep", { level: "CanNotDelete" }));
  await refused("the Owner's resources.beginDeleteById below a lock", () => client("admin", ResourceManagementClient).resources.beginDeleteByIdAndWait(id("generic"), api, fast), "ScopeLocked");
  await changes("managementLocks.deleteAtResourceGroupLevel", ManagementLockClient, locks, (c) => c.managementLocks.deleteAtResourceGroupLevel(name, "keep"));
  await changes("resources.beginDeleteById", ResourceManagementClient, resources, (c) => c.resources.beginDeleteByIdAndWait(id("generic"), api, fast));

  const definitions = (c) => all(c.policyDefinitions.list({ filter: "policyType eq 'Custom'" }));
  const policyRule = { if: { allOf: [{ field: "type", equals: identity }, { field: "tags['owner']", exists: "false" }] }, then: { effect: "deny" } };
  await changes("policyDefinitions.createOrUpdate", PolicyClient, definitions, (c) => c.policyDefinitions.createOrUpdate("by-node", { mode: "Indexed", policyRule }));
  const assigned = (c) => all(c.policyAssignments.listForResourceGroup(name));
  const policyDefinitionId = `${subscription}/providers/Microsoft.Authorization/policyDefinitions/by-node`;
  await changes("policyAssignments.create", PolicyClient, assigned, (c) => c.policyAssignments.create(group, "by-node", { policyDefinitionId }));
  await refused("the Owner's resource that a policy denies", () => client("admin", ResourceManagementClient).resources.beginCreateOrUpdateByIdAndWait(id("denied"), api, { location }, fast), "RequestDisallowedByPolicy");
  await changes("policyAssignments.delete", PolicyClient, assigned, (c) => c.policyAssignments.delete(group, "by-node"));
  await changes("policyDefinitions.delete", PolicyClient, definitions, (c) => c.policyDefinitions.delete("by-node"));

  const guid = randomUUID();
  const custom = (c) => all(c.roleDefinitions.list(group, { filter: "type eq 'CustomRole'" }));
  await changes("roleDefinitions.createOrUpdate", AuthorizationManagementClient, custom, (c) => c.roleDefinitions.createOrUpdate(group, guid, { roleName: "By node " + guid.slice(0, 8), roleType: "CustomRole", assignableScopes: [group], permissions: [{ actions: ["Microsoft.Storage/*/read"] }] }));
  await changes("roleDefinitions.delete", AuthorizationManagementClient, custom, (c) => c.roleDefinitions.delete(group, guid));
  const eligible = (c) => all(c.roleEligibilitySchedules.listForScope(group));
  const ask = (requestType) => (c) => c.roleEligibilityScheduleRequests.create(group, randomUUID(), { roleDefinitionId: role(blobReader), principalId: world.behalf.person, requestType, justification: "by node", scheduleInfo: { expiration: { type: "AfterDuration", duration: "PT8H" } } });
  await changes("roleEligibilityScheduleRequests.create", AuthorizationManagementClient, eligible, ask("AdminAssign"));
  await changes("roleEligibilityScheduleRequests.create to remove", AuthorizationManagementClient, eligible, ask("AdminRemove"));
  await reads("denyAssignments.listForScope", AuthorizationManagementClient, (c) => all(c.denyAssignments.listForScope(group)));
  await refused("a stranger's denyAssignments.listForScope", () => all(client("stranger", AuthorizationManagementClient).denyAssignments.listForScope(group)), "AuthorizationFailed");

  const settings = async (c) => (await all(c.diagnosticSettings.list(world.vault))).map((s) => s.name);
  await changes("diagnosticSettings.createOrUpdate", MonitorClient, settings, (c) => c.diagnosticSettings.createOrUpdate(world.vault, "by-node", { storageAccountId: world.storage, logs: [{ categoryGroup: "audit", enabled: true }] }));
  await changes("diagnosticSettings.delete", MonitorClient, settings, (c) => c.diagnosticSettings.delete(world.vault, "by-node"));
  const since = new Date(Date.now() - 3600_000).toISOString();
  const events = (c) => all(c.activityLogs.list(`eventTimestamp ge '${since}' and resourceGroupName eq '${name}'`));
  await reads("activityLogs.list", MonitorClient, async (c) => {
    const list = await events(c);
    equal(list.some((e) => e.operationName.value === "Microsoft.Authorization/locks/delete" && e.caller === world.reader.objectId && e.status.value === "Failed"), true);
    equal(list.some((e) => e.operationName.value === "Microsoft.Authorization/locks/delete" && e.caller === world.admin.objectId && e.status.value === "Succeeded"), true);
  });
  await ok("a stranger's activityLogs.list is empty", async () => equal((await events(client("stranger", MonitorClient))).length, 0));

  await reads("managementGroups.list", ManagementGroupsAPI, (c) => all(c.managementGroups.list()));
  await refused("a Reader's managementGroups.beginDelete of the root", () => client("reader", ManagementGroupsAPI).managementGroups.beginDeleteAndWait(world.tenantId, fast), "AuthorizationFailed");
  await changes("resourceGroups.beginDelete", ResourceManagementClient, groups, (c) => c.resourceGroups.beginDeleteAndWait(name, fast));
};
