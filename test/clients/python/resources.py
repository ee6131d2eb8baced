"""Resource Manager by az: locks, tags, resources of any type, moves, providers, management groups and deny assignments."""

import json

from azcli import az, login, together
from checks import Suite, equal, load

world = load("CASTELLAN_WORLD")
suite = Suite("resources")
location = world.get("location", "local")
name = "by-locks"
group = f"/subscriptions/{world['subscriptionId']}/resourceGroups/{name}"


def names(rows):
    return sorted(r["name"] for r in rows)


if not suite.ok("login", lambda: login("admin")):
    suite.finish()
az("group", "create", "--name", name, "--location", location)
az("storage", "account", "create", "--name", "lockedbyaz", "--resource-group", name, "--sku", "Standard_LRS")
account = f"{group}/providers/Microsoft.Storage/storageAccounts/lockedbyaz"


def tags(scope):
    """Tags of a group and of a resource."""
    what = "a group" if scope == group else "a resource"
    suite.ok(f"tag create at {what}", lambda: equal(az("tag", "create", "--resource-id", scope, "--tags", "a=1", "b=2")["properties"]["tags"], {"a": "1", "b": "2"}))
    suite.ok(f"tag update --operation Merge at {what}", lambda: equal(az("tag", "update", "--resource-id", scope, "--operation", "Merge", "--tags", "b=3")["properties"]["tags"], {"a": "1", "b": "3"}))
    suite.ok(f"tag update --operation Delete at {what}", lambda: equal(az("tag", "update", "--resource-id", scope, "--operation", "Delete", "--tags", "a=1")["properties"]["tags"], {"b": "3"}))
    suite.ok(f"tag list at {what}", lambda: equal(az("tag", "list", "--resource-id", scope)["properties"]["tags"], {"b": "3"}))


def tag_names():
    """Names of tags, predefined and in use."""
    suite.ok("tag create, a name", lambda: equal(az("tag", "create", "--name", "tier")["tagName"], "tier"))
    suite.ok("tag add-value", lambda: equal(az("tag", "add-value", "--name", "tier", "--value", "low")["tagValue"], "low"))
    suite.ok("tag list has it, and those in use", lambda: equal({"tier", "b"} <= {t["tagName"] for t in az("tag", "list")}, True))
    suite.ok("tag remove-value", lambda: az("tag", "remove-value", "--name", "tier", "--value", "low"))
    suite.ok("tag delete, a name", lambda: az("tag", "delete", "--name", "tier", "--yes"))


def providers():
    """Providers."""
    unused = "Microsoft.Subscription"  # no suite has resources of it
    suite.ok("provider unregister", lambda: az("provider", "unregister", "--namespace", unused))
    suite.ok("provider register --wait", lambda: az("provider", "register", "--namespace", unused, "--wait"))
    suite.ok("provider list", lambda: equal({p["registrationState"] for p in az("provider", "list", "--expand", "resourceTypes/aliases")}, {"Registered"}))


def locks():
    """Locks of a group, of a resource, of the subscription."""
    suite.ok("lock create at a group", lambda: equal(az("lock", "create", "--name", "keep", "--lock-type", "CanNotDelete", "--resource-group", name, "--notes", "it pays")["level"], "CanNotDelete"))
    suite.ok("lock show", lambda: equal(az("lock", "show", "--name", "keep", "--resource-group", name)["notes"], "it pays"))
    suite.refused("to delete what the group holds, to the Owner", lambda: az("storage", "account", "delete", "--name", "lockedbyaz", "--resource-group", name, "--yes"), "ScopeLocked")
    suite.ok("CanNotDelete lets change", lambda: equal(az("storage", "account", "update", "--name", "lockedbyaz", "--resource-group", name, "--tags", "a=b")["tags"], {"a": "b"}))
    suite.ok("lock create at a resource", lambda: az("lock", "create", "--name", "still", "--lock-type", "ReadOnly", "--resource-group", name, "--resource", "lockedbyaz", "--resource-type", "Microsoft.Storage/storageAccounts"))
    suite.ok("resource lock list", lambda: equal(names(az("resource", "lock", "list", "--resource-group", name, "--resource", "lockedbyaz", "--resource-type", "Microsoft.Storage/storageAccounts")), ["keep", "still"]))
    suite.ok("group lock list", lambda: equal(names(az("group", "lock", "list", "--resource-group", name)), ["keep", "still"]))
    suite.refused("ReadOnly refuses a change", lambda: az("storage", "account", "update", "--name", "lockedbyaz", "--resource-group", name, "--tags", "a=c"), "ScopeLocked")
    suite.refused("ReadOnly refuses the keys", lambda: az("storage", "account", "keys", "list", "--account-name", "lockedbyaz", "--resource-group", name), "ScopeLocked")
    suite.refused("ReadOnly refuses a role", lambda: az("role", "assignment", "create", "--assignee-object-id", world["reader"]["objectId"], "--assignee-principal-type", "ServicePrincipal", "--role", "Reader", "--scope", account), "ScopeLocked")
    suite.ok("lock update", lambda: equal(az("lock", "update", "--ids", f"{account}/providers/Microsoft.Authorization/locks/still", "--lock-type", "CanNotDelete")["level"], "CanNotDelete"))
    suite.ok("the keys, once the lock is another", lambda: az("storage", "account", "keys", "list", "--account-name", "lockedbyaz", "--resource-group", name))
    suite.ok("lock delete", lambda: az("lock", "delete", "--name", "keep", "--resource-group", name))
    suite.refused("to delete the group, which holds a locked resource", lambda: az("group", "delete", "--name", name, "--yes"), "ScopeLocked")
    suite.ok("account lock create", lambda: az("account", "lock", "create", "--name", "all", "--lock-type", "CanNotDelete"))
    suite.ok("account lock list", lambda: equal("all" in names(az("account", "lock", "list")), True))
    suite.ok("account lock delete", lambda: az("account", "lock", "delete", "--name", "all"))

    # A Contributor takes no lock away.
    az("role", "assignment", "create", "--assignee-object-id", world["reader"]["objectId"], "--assignee-principal-type", "ServicePrincipal", "--role", "Contributor", "--scope", group)
    login("reader", who="contributor")
    suite.refused("a Contributor's lock delete", lambda: az("lock", "delete", "--ids", f"{account}/providers/Microsoft.Authorization/locks/still", who="contributor"), "AuthorizationFailed")
    suite.ok("resource lock delete", lambda: az("resource", "lock", "delete", "--name", "still", "--resource-group", name, "--resource", "lockedbyaz", "--resource-type", "Microsoft.Storage/storageAccounts"))
    suite.ok("the group goes once nothing is locked", lambda: az("group", "delete", "--name", name, "--yes"))


def children(row):
    return sorted(c["displayName"] for c in row["children"] or [])


def management_groups():
    """Management groups: a Global Administrator elevates, makes a tree and moves the subscription."""
    arm = world["armEndpoint"]
    root, groups = world["tenantId"], "/providers/Microsoft.Management/managementGroups"
    mg = ("account", "management-group")
    suite.ok("elevateAccess", lambda: az("rest", "--method", "post", "--url", f"{arm}/providers/Microsoft.Authorization/elevateAccess?api-version=2016-07-01"))
    suite.ok("role assignment create at the root group", lambda: az("role", "assignment", "create", "--assignee-object-id", world["admin"]["objectId"], "--assignee-principal-type", "ServicePrincipal", "--role", "Owner", "--scope", f"{groups}/{root}"))
    suite.ok("management-group create", lambda: equal(az(*mg, "create", "--name", "corp", "--display-name", "Corp")["displayName"], "Corp"))
    suite.ok("management-group create --parent", lambda: equal(az(*mg, "create", "--name", "online", "--parent", "corp")["details"]["parent"]["name"], "corp"))
    suite.ok("management-group subscription add", lambda: az(*mg, "subscription", "add", "--name", "online", "--subscription", world["subscriptionId"]))
    suite.ok("management-group show --expand --recurse", lambda: equal(children(az(*mg, "show", "--name", "corp", "--expand", "--recurse")), ["online"]))
    suite.refused("to delete a group that holds something", lambda: az(*mg, "delete", "--name", "online"), "BadRequest")

    # A deny assignment of the group reaches what lies in the subscription, until it is taken away.
    denial = f"{arm}{groups}/online/providers/Microsoft.Authorization/denyAssignments/00000001-0000-4000-a000-000000000000?api-version=2024-07-01-preview"
    body = {"properties": {"denyAssignmentName": "no-groups", "permissions": [{"actions": ["Microsoft.Resources/subscriptions/resourceGroups/write"], "notActions": [], "dataActions": [], "notDataActions": []}], "principals": [{"id": world["admin"]["objectId"], "type": "ServicePrincipal"}], "excludePrincipals": []}}
    suite.ok("rest puts a deny assignment", lambda: equal(az("rest", "--method", "put", "--url", denial, "--body", json.dumps(body))["properties"]["isSystemProtected"], False))
    suite.refused("group create, which is denied to the Owner", lambda: az("group", "create", "--name", "denied", "--location", location), "AuthorizationFailed")
    suite.ok("rest deletes a deny assignment", lambda: az("rest", "--method", "delete", "--url", denial))
    suite.ok("management-group subscription remove", lambda: az(*mg, "subscription", "remove", "--name", "online", "--subscription", world["subscriptionId"]))
    suite.ok("management-group delete", lambda: [az(*mg, "delete", "--name", n) for n in ("online", "corp")])


# What does not meet goes on at once: most of the time is that of az's own start.
together(lambda: (tags(group), tag_names()), lambda: tags(account), providers)
suite.ok("the resource shows its tags", lambda: equal(az("storage", "account", "show", "--name", "lockedbyaz", "--resource-group", name)["tags"], {"b": "3"}))
suite.ok("tag delete", lambda: az("tag", "delete", "--resource-id", account, "--yes"))

# Resources of any type, and their move to another group and back.
there = f"{name}-there"
az("group", "create", "--name", there, "--location", location)
moved = account.replace(name, there)
suite.ok("resource tag", lambda: equal(az("resource", "tag", "--ids", account, "--tags", "q=it's")["tags"], {"q": "it's"}))
suite.ok("resource list --tag", lambda: equal(names(az("resource", "list", "--tag", "q")), ["lockedbyaz"]))
suite.ok("group export", lambda: equal([r["type"] for r in az("group", "export", "--name", name)["resources"] if r["name"] == "lockedbyaz"], ["Microsoft.Storage/storageAccounts"]))
suite.ok("resource move", lambda: az("resource", "move", "--ids", account, "--destination-group", there))
suite.refused("it is here no more", lambda: az("resource", "show", "--ids", account), "ResourceNotFound")
suite.ok("its key is the same door", lambda: az("storage", "container", "create", "--name", "still", "--account-name", "lockedbyaz", "--auth-mode", "key"))
suite.ok("resource move back", lambda: az("resource", "move", "--ids", moved, "--destination-group", name))
suite.refused("resource move of an identity", lambda: (az("identity", "create", "--name", "stays", "--resource-group", there), az("resource", "move", "--ids", f"/subscriptions/{world['subscriptionId']}/resourceGroups/{there}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/stays", "--destination-group", name)), "ResourceMoveProviderValidationFailed")
suite.ok("resource delete", lambda: az("resource", "delete", "--ids", f"/subscriptions/{world['subscriptionId']}/resourceGroups/{there}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/stays"))
suite.ok("group delete of what is empty", lambda: az("group", "delete", "--name", there, "--yes"))

together(locks, management_groups)
suite.finish()
