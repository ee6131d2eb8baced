package identity

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"castellan/internal/store"
)

// index is the directory in memory. It changes only after a commit, and objects
// in it are never altered: a change puts a new one in their place.
type index struct {
	mu      sync.RWMutex // guards all fields
	tenants map[string]*Tenant
	domains map[string]*Tenant
	users   map[string]*User
	upns    map[string]*User
	groups  map[string]*Group
	apps    map[string]*App
	clients map[string]*App // by app id
	uris    map[string]*App
	sps     map[string]*Principal
	byApp   map[string]*Principal // by tenant|app id
	managed map[string]*Principal // by resource
	members map[string]map[string]bool
	parents map[string]map[string]bool
	roles   map[string]map[string]*RoleAssignment // by principal and role
	owners  map[string]map[string]bool            // by object
	owning  map[string]map[string]bool            // by owner
	granted map[string]map[string]Assignment      // by principal and id
	closure map[string][]string                   // transitive groups by principal, as far as asked for
	idps    map[string]*Provider
	ldaps   map[string]*LDAP
	realms  map[string]entry // by domain: the *Provider or *LDAP of its people
}

func newIndex() *index {
	return &index{
		tenants: map[string]*Tenant{}, domains: map[string]*Tenant{}, users: map[string]*User{}, upns: map[string]*User{},
		groups: map[string]*Group{}, apps: map[string]*App{}, clients: map[string]*App{}, uris: map[string]*App{},
		sps: map[string]*Principal{}, byApp: map[string]*Principal{}, managed: map[string]*Principal{},
		members: map[string]map[string]bool{}, parents: map[string]map[string]bool{}, closure: map[string][]string{},
		roles: map[string]map[string]*RoleAssignment{}, owners: map[string]map[string]bool{}, owning: map[string]map[string]bool{}, granted: map[string]map[string]Assignment{},
		idps: map[string]*Provider{}, ldaps: map[string]*LDAP{}, realms: map[string]entry{},
	}
}

// load fills the index from the store.
func (x *index) load(tx *store.Tx) error {
	tenants, err := store.ScanJSON[*Tenant](tx, tenantTable, "", "", 0)
	if err != nil {
		return err
	}
	for _, t := range tenants {
		x.tenant(t)
		if err := x.loadTenant(tx, t.ID); err != nil {
			return err
		}
	}
	return nil
}

func (x *index) loadTenant(tx *store.Tx, tenant string) error {
	if err := loadClass[*User](x, tx, tenant, "user"); err != nil {
		return err
	}
	if err := loadClass[*Group](x, tx, tenant, "group"); err != nil {
		return err
	}
	if err := loadClass[*App](x, tx, tenant, "app"); err != nil {
		return err
	}
	if err := loadClass[*Principal](x, tx, tenant, "sp"); err != nil {
		return err
	}
	if err := loadClass[*Provider](x, tx, tenant, "idp"); err != nil {
		return err
	}
	if err := loadClass[*LDAP](x, tx, tenant, "ldap"); err != nil {
		return err
	}
	members, err := tx.Scan(memberTable, tenant+"|", "", 0)
	if err != nil {
		return err
	}
	for _, r := range members {
		p := strings.Split(r.Key, "|")
		x.join(p[1], p[2])
	}
	owners, err := tx.Scan(ownerTable, tenant+"|", "", 0)
	if err != nil {
		return err
	}
	for _, r := range owners {
		p := strings.Split(r.Key, "|")
		x.own(p[1], p[2])
	}
	granted, err := store.ScanJSON[Assignment](tx, assignmentTable, tenant+"|", "", 0)
	if err != nil {
		return err
	}
	for _, a := range granted {
		x.assign(a)
	}
	roles, err := store.ScanJSON[*RoleAssignment](tx, roleTable, tenant+"|", "", 0)
	for _, r := range roles {
		x.empower(r)
	}
	return err
}

func loadClass[T entry](x *index, tx *store.Tx, tenant, class string) error {
	rows, err := store.ScanJSON[T](tx, objectTable, tenant+"|"+class+"|", "", 0)
	for _, e := range rows {
		x.put(e)
	}
	return err
}

func (x *index) tenant(t *Tenant) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.tenants[t.ID], x.domains[fold(t.Domain)] = t, t
}

func (x *index) put(e entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.forget(e)
	switch o := e.(type) {
	case *User:
		x.users[o.ID], x.upns[fold(o.UPN)] = o, o
	case *Group:
		x.groups[o.ID] = o
	case *App:
		x.apps[o.ID], x.clients[fold(o.AppID)] = o, o
		for _, u := range o.URIs {
			x.uris[fold(u)] = o
		}
	case *Provider:
		x.idps[o.ID] = o
		x.reign(o.Domains, o)
	case *LDAP:
		x.ldaps[o.ID] = o
		x.reign(o.Domains, o)
	case *Principal:
		x.sps[o.ID], x.byApp[o.Tenant+"|"+fold(o.AppID)] = o, o
		if o.Resource != "" {
			x.managed[fold(o.Resource)] = o
		}
	}
}

// forget takes what the index has in e's place out of it. The caller holds mu.
func (x *index) forget(e entry) {
	_, _, id := e.place()
	switch e.(type) {
	case *User:
		if o := x.users[id]; o != nil {
			delete(x.upns, fold(o.UPN))
			delete(x.users, id)
		}
	case *Group:
		delete(x.groups, id)
	case *App:
		if o := x.apps[id]; o != nil {
			delete(x.clients, fold(o.AppID))
			for _, u := range o.URIs {
				delete(x.uris, fold(u))
			}
			delete(x.apps, id)
		}
	case *Provider:
		if o := x.idps[id]; o != nil {
			x.reign(o.Domains, nil)
			delete(x.idps, id)
		}
	case *LDAP:
		if o := x.ldaps[id]; o != nil {
			x.reign(o.Domains, nil)
			delete(x.ldaps, id)
		}
	case *Principal:
		if o := x.sps[id]; o != nil {
			delete(x.byApp, o.Tenant+"|"+fold(o.AppID))
			delete(x.managed, fold(o.Resource))
			delete(x.sps, id)
		}
	}
}

// reign says who signs in the people of domains; nil: the directory itself. The
// caller holds mu.
func (x *index) reign(domains []string, by entry) {
	for _, d := range domains {
		if x.realms[d] = by; by == nil {
			delete(x.realms, d)
		}
	}
}

func (x *index) remove(e entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.forget(e)
	_, class, id := e.place()
	unlink(x.owners, x.owning, id)
	unlink(x.owning, x.owners, id)
	if class == "app" || class == "idp" || class == "ldap" {
		return
	}
	delete(x.roles, id)
	delete(x.granted, id)
	for g := range x.parents[id] {
		delete(x.members[g], id)
	}
	for m := range x.members[id] {
		delete(x.parents[m], id)
	}
	delete(x.parents, id)
	delete(x.members, id)
	clear(x.closure)
}

func (x *index) join(group, member string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	link(x.members, group, member)
	link(x.parents, member, group)
	clear(x.closure)
}

func link(m map[string]map[string]bool, a, b string) {
	if m[a] == nil {
		m[a] = map[string]bool{}
	}
	m[a][b] = true
}

func (x *index) leave(group, member string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.members[group], member)
	delete(x.parents[member], group)
	clear(x.closure)
}

// unlink takes id out of a, and out of b, which has the same links from the other side.
func unlink(a, b map[string]map[string]bool, id string) {
	for other := range a[id] {
		delete(b[other], id)
	}
	delete(a, id)
}

func (x *index) own(object, owner string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	link(x.owners, object, owner)
	link(x.owning, owner, object)
}

func (x *index) disown(object, owner string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.owners[object], owner)
	delete(x.owning[owner], object)
}

// owns reports whether owner owns object.
func (x *index) owns(owner, object string) bool {
	return find(x, func(x *index) bool { return x.owners[object][owner] })
}

// owned lists what somebody owns; ownersOf who owns something.
func (x *index) owned(owner string) []string {
	return find(x, func(x *index) []string { return slices.Sorted(maps.Keys(x.owning[owner])) })
}

func (x *index) ownersOf(object string) []string {
	return find(x, func(x *index) []string { return slices.Sorted(maps.Keys(x.owners[object])) })
}

func (x *index) empower(r *RoleAssignment) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.roles[r.Principal] == nil {
		x.roles[r.Principal] = map[string]*RoleAssignment{}
	}
	x.roles[r.Principal][r.Role] = r
}

func (x *index) disempower(principal, role string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.roles[principal], role)
}

func (x *index) assign(a Assignment) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.granted[a.Principal] == nil {
		x.granted[a.Principal] = map[string]Assignment{}
	}
	x.granted[a.Principal][a.ID] = a
}

func (x *index) unassign(a Assignment) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.granted[a.Principal], a.ID)
}

// assigned are the roles at APIs that a principal has by itself.
func (x *index) assigned(principal string) []Assignment {
	return find(x, func(x *index) []Assignment { return slices.Collect(maps.Values(x.granted[principal])) })
}

// rolesOf lists the directory roles that a principal has at now, by itself or
// by a group that roles can be given to.
func (x *index) rolesOf(principal string, now time.Time) []string {
	groups := x.groupsOf(principal)
	x.mu.RLock()
	defer x.mu.RUnlock()
	has := map[string]bool{}
	for _, r := range x.roles[principal] {
		if r.lives(now) {
			has[r.Role] = true
		}
	}
	for _, g := range groups {
		if o := x.groups[g]; o == nil || !o.Assignable {
			continue
		}
		for _, r := range x.roles[g] {
			if r.lives(now) {
				has[r.Role] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(has))
}

// groupsOf lists the groups that id is in, also by nesting, in the order of
// their ids. A circle of groups is walked once. The result must not be altered.
func (x *index) groupsOf(id string) []string {
	x.mu.RLock()
	out, ok := x.closure[id]
	x.mu.RUnlock()
	if ok {
		return out
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	seen := reach(x.parents, id)
	out = slices.Sorted(maps.Keys(seen))
	x.closure[id] = slices.Clip(out)
	return out
}

// reach is everything that can be come to from id, but id itself.
func reach(edges map[string]map[string]bool, id string) map[string]bool {
	seen := map[string]bool{}
	for todo := []string{id}; len(todo) > 0; {
		next := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for g := range edges[next] {
			if !seen[g] && g != id {
				seen[g] = true
				todo = append(todo, g)
			}
		}
	}
	return seen
}

// membersOf lists the members of a group; nested ones too if all is set.
func (x *index) membersOf(group string, all bool) []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if all {
		return slices.Sorted(maps.Keys(reach(x.members, group)))
	}
	return slices.Sorted(maps.Keys(x.members[group]))
}

// find reads from the index under its lock.
func find[T any](x *index, m func(*index) T) T {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return m(x)
}

// tenantOf is the tenant that name is the id or domain of, or nil.
func (x *index) tenantOf(name string) *Tenant {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if t := x.tenants[fold(name)]; t != nil {
		return t
	}
	return x.domains[fold(name)]
}

func (x *index) user(id string) *User { return find(x, func(x *index) *User { return x.users[id] }) }
func (x *index) group(id string) *Group {
	return find(x, func(x *index) *Group { return x.groups[id] })
}
func (x *index) app(id string) *App { return find(x, func(x *index) *App { return x.apps[id] }) }
func (x *index) sp(id string) *Principal {
	return find(x, func(x *index) *Principal { return x.sps[id] })
}
func (x *index) client(appID string) *App {
	return find(x, func(x *index) *App { return x.clients[fold(appID)] })
}
func (x *index) api(uri string) *App {
	return find(x, func(x *index) *App { return x.uris[fold(uri)] })
}
func (x *index) upn(name string) *User {
	return find(x, func(x *index) *User { return x.upns[fold(name)] })
}

// userNamed is the person with this object id or user principal name, or nil.
func (x *index) userNamed(name string) *User {
	if u := x.user(fold(name)); u != nil {
		return u
	}
	return x.upn(name)
}

func (x *index) of(res string) *Principal {
	return find(x, func(x *index) *Principal { return x.managed[fold(res)] })
}
func (x *index) spOf(tenant, appID string) *Principal {
	return find(x, func(x *index) *Principal { return x.byApp[tenant+"|"+fold(appID)] })
}
