package resource

import (
	"strings"

	"castellan/internal/arm"
)

// Wide are the scopes above groups, as doors spell them: a subscription, a
// management group, the tenant.
var Wide = []string{"/subscriptions/{sub}", "/providers/Microsoft.Management/managementGroups/{mg}", ""}

// Kept is the id under which a resource is kept: what lies at /, of which every
// tenant has its own, under its tenant's.
func Kept(id arm.ID, tenant string) arm.ID {
	if id == arm.Root || id.Subscription() != "" || id.Parent() != arm.Root || tenant == "" {
		return id
	}
	return arm.TenantScope(tenant).Child(id.Type(), id.Name())
}

// Shown is the id that clients know of what is kept under id.
func Shown(id arm.ID) arm.ID {
	if p := id.Parent(); p == arm.Root || !strings.HasPrefix(p.Key(), arm.TenantScope("").Key()) {
		return id
	}
	return arm.Root.Child(id.Type(), id.Name())
}
