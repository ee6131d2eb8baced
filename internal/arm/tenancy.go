package arm

import (
	"strings"
	"sync"
)

// Tenancy says which tenant each subscription belongs to, and how management
// groups hold them. What is not in it belongs to nobody. It is safe for
// concurrent use, and its zero value is empty.
type Tenancy struct {
	mu     sync.RWMutex // guards the rest
	owners map[string]owned
	closed map[string]bool  // subscriptions that were cancelled
	groups map[string]owned // by name in lower case; a root group's is its tenant's id
}

// owned is a tenant, and the management group that something lies in directly,
// in lower case: "" for a root group.
type owned struct{ tenant, in string }

// AddTenant says that there is a tenant of this id, and so its root group.
func (t *Tenancy) AddTenant(id string) {
	id = strings.ToLower(id)
	t.PutGroup(id, "", id)
}

// Put says that a subscription belongs to a tenant. One that is new lies in its
// root group.
func (t *Tenancy) Put(subscription, tenant string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	subscription = strings.ToLower(subscription)
	if t.owners == nil {
		t.owners = map[string]owned{}
	}
	if t.owners[subscription].tenant != tenant {
		t.owners[subscription] = owned{tenant, strings.ToLower(tenant)}
	}
}

// Cancel says that a subscription was cancelled, or is enabled again.
func (t *Tenancy) Cancel(subscription string, cancelled bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	subscription = strings.ToLower(subscription)
	if !cancelled {
		delete(t.closed, subscription)
		return
	}
	if t.closed == nil {
		t.closed = map[string]bool{}
	}
	t.closed[subscription] = true
}

// Cancelled reports whether id lies in a subscription that was cancelled.
func (t *Tenancy) Cancelled(id ID) bool {
	if t == nil {
		return false
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.closed) > 0 && t.closed[strings.ToLower(id.Subscription())]
}

// PutGroup says that a management group of a tenant lies in another.
func (t *Tenancy) PutGroup(name, in, tenant string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.groups == nil {
		t.groups = map[string]owned{}
	}
	t.groups[strings.ToLower(name)] = owned{tenant, strings.ToLower(in)}
}

// RemoveGroup says that a management group is gone.
func (t *Tenancy) RemoveGroup(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.groups, strings.ToLower(name))
}

// Place says which management group a subscription lies in.
func (t *Tenancy) Place(subscription, group string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if x, ok := t.owners[strings.ToLower(subscription)]; ok {
		t.owners[strings.ToLower(subscription)] = owned{x.tenant, strings.ToLower(group)}
	}
}

// Subscriptions are the ids of a tenant's subscriptions, in no order.
func (t *Tenancy) Subscriptions(tenant string) []string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var out []string
	for sub, of := range t.owners {
		if of.tenant == tenant {
			out = append(out, sub)
		}
	}
	return out
}

const (
	subscriptions    = "/subscriptions/"
	managementGroups = "/providers/microsoft.management/managementgroups/"
	tenantScopes     = "/providers/microsoft.resources/tenants/"
)

// TenantScope is where what lies at / of one tenant is kept. No door leads there.
func TenantScope(tenant string) ID {
	t := "/providers/Microsoft.Resources/tenants/" + tenant
	return ID{text: t, key: strings.ToLower(t)}
}

// find is what owns the key, and the name of the management group that the key
// is or lies in; "" for a subscription.
func (t *Tenancy) find(key string) (x owned, group string) {
	if rest, ok := strings.CutPrefix(key, subscriptions); ok {
		sub, _, _ := strings.Cut(rest, "/")
		return t.owners[sub], ""
	}
	if rest, ok := strings.CutPrefix(key, managementGroups); ok {
		group, _, _ = strings.Cut(rest, "/")
		return t.groups[group], group
	}
	return owned{}, ""
}

// TenantOf is the tenant that owns id: that of its subscription, or of the
// management group that it is or lies in. It is "" for what every tenant has one
// of, such as Root, and for what is nobody's.
func (s Site) TenantOf(id ID) string { return s.TenantOfKey(id.Key()) }

// TenantOfKey is TenantOf for an id's Key.
func (s Site) TenantOfKey(key string) string {
	if rest, ok := strings.CutPrefix(key, tenantScopes); ok {
		tenant, _, _ := strings.Cut(rest, "/")
		return tenant
	}
	if s.Tenancy == nil {
		if strings.HasPrefix(key, subscriptions) || key == managementGroups+strings.ToLower(s.Tenant) {
			return s.Tenant
		}
		return ""
	}
	s.Tenancy.mu.RLock()
	defer s.Tenancy.mu.RUnlock()
	x, _ := s.Tenancy.find(key)
	return x.tenant
}

// GroupsAbove are the keys of the management groups that hold a subscription, a
// management group or what lies in one, given by its key: the innermost first,
// at last the tenant's root group. A group does not hold itself.
func (s Site) GroupsAbove(key string) (out []string) {
	if s.Tenancy == nil {
		if strings.HasPrefix(key, subscriptions) {
			return []string{managementGroups + strings.ToLower(s.Tenant)}
		}
		return nil
	}
	s.Tenancy.mu.RLock()
	defer s.Tenancy.mu.RUnlock()
	x, _ := s.Tenancy.find(key)
	for x.in != "" && len(out) <= maxGroups {
		out = append(out, managementGroups+x.in)
		x = s.Tenancy.groups[x.in]
	}
	return out
}

// maxGroups bounds the way up, should a circle ever come to be.
const maxGroups = 8
