package arm

import (
	"strings"
	"sync"
)

// Tenancy says which tenant each subscription belongs to. What is not in it
// belongs to nobody. It is safe for concurrent use, and its zero value is empty.
type Tenancy struct {
	mu      sync.RWMutex // guards the rest
	owners  map[string]string
	tenants map[string]bool
}

// AddTenant says that there is a tenant of this id.
func (t *Tenancy) AddTenant(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tenants == nil {
		t.tenants = map[string]bool{}
	}
	t.tenants[strings.ToLower(id)] = true
}

// Put says that a subscription belongs to a tenant.
func (t *Tenancy) Put(subscription, tenant string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.owners == nil {
		t.owners = map[string]string{}
	}
	t.owners[strings.ToLower(subscription)] = tenant
}

// Subscriptions are the ids of a tenant's subscriptions, in no order.
func (t *Tenancy) Subscriptions(tenant string) []string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var out []string
	for sub, of := range t.owners {
		if of == tenant {
			out = append(out, sub)
		}
	}
	return out
}

const (
	subscriptions    = "/subscriptions/"
	managementGroups = "/providers/microsoft.management/managementgroups/"
)

// TenantOf is the tenant that owns id: that of its subscription, or of the root
// management group that it lies in. It is "" for what every tenant has one of,
// such as Root, and for what is nobody's.
func (s Site) TenantOf(id ID) string { return s.TenantOfKey(id.Key()) }

// TenantOfKey is TenantOf for an id's Key.
func (s Site) TenantOfKey(key string) string {
	if rest, ok := strings.CutPrefix(key, subscriptions); ok {
		if s.Tenancy == nil {
			return s.Tenant
		}
		sub, _, _ := strings.Cut(rest, "/")
		s.Tenancy.mu.RLock()
		defer s.Tenancy.mu.RUnlock()
		return s.Tenancy.owners[sub]
	}
	rest, ok := strings.CutPrefix(key, managementGroups)
	if !ok {
		return ""
	}
	group, _, _ := strings.Cut(rest, "/")
	if s.Tenancy == nil {
		if group == strings.ToLower(s.Tenant) {
			return s.Tenant
		}
		return ""
	}
	s.Tenancy.mu.RLock()
	defer s.Tenancy.mu.RUnlock()
	if s.Tenancy.tenants[group] {
		return group
	}
	return ""
}
