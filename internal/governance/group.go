package governance

import (
	"cmp"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// The tables of management groups: the groups by name, the groups that
// subscriptions lie in, if not in the root group, and a tenant's settings.
const (
	groups        = "managementgroups"
	groupMembers  = "managementgroupmembers"
	groupSettings = "managementgroupsettings"
)

// groupsKey is what the keys of all management groups begin with.
const groupsKey = "/providers/microsoft.management/managementgroups/"

// maxDepth is how many levels of groups lie below the root group, as in Azure.
const maxDepth = 6

// groupName is what a management group may be called.
var groupName = regexp.MustCompile(`^[A-Za-z0-9._()-]{0,89}[A-Za-z0-9_()-]$`)

type object = map[string]any

// group is a management group as it is kept. A root group is kept once it was
// changed.
type group struct {
	Name    string    `json:"name"`
	Display string    `json:"displayName"`
	Tenant  string    `json:"tenant"`
	Parent  string    `json:"parent"` // its name in lower case; "" of a root group
	Version int       `json:"version"`
	Updated time.Time `json:"updated"`
	By      string    `json:"by"`
}

func (x *group) id() arm.ID   { return groupID(x.Name) }
func (x *group) root() bool   { return x.Parent == "" }
func (x *group) info() object { return object{"name": x.Name, "displayName": x.Display} }
func (x *group) parent() object {
	return object{"id": x.id(), "name": x.Name, "displayName": x.Display}
}

// settings are a tenant's about its hierarchy. Making a group needs the right to
// write the root group unless an administrator lets everybody do it.
type settings struct {
	Default string `json:"default,omitempty"` // where new subscriptions and groups go; "" is the root group
	Open    bool   `json:"open,omitempty"`    // everybody of the tenant may make groups
}

// member is a subscription and the group it lies in, both in lower case.
type member struct {
	Sub string `json:"subscription"`
	In  string `json:"in"`
}

// hierarchy is all that a tenant's management groups hold.
type hierarchy struct {
	settings
	root   string            // name of the root group
	groups map[string]*group // by name in lower case
	subs   map[string]string // subscription ids, each with the name of its group in lower case
}

func rootOf(tenant string) *group {
	return &group{Name: tenant, Display: "Tenant Root Group", Tenant: tenant, Version: 1}
}

// group is the management group of this id, or the error that there is none.
func (s *Service) group(tx *store.Tx, id arm.ID) (*group, error) {
	x, ok, err := store.GetJSON[group](tx, groups, key(id.Name()))
	if err != nil || ok {
		return &x, err
	}
	if t := s.Site.TenantOf(id); t != "" && key(t) == key(id.Name()) {
		return rootOf(t), nil
	}
	return nil, notFound("The management group '%s' was not found.", id.Name())
}

// hierarchy reads a tenant's management groups.
func (s *Service) hierarchy(tx *store.Tx, tenant string) (*hierarchy, error) {
	h := &hierarchy{root: key(tenant), groups: map[string]*group{key(tenant): rootOf(tenant)}, subs: map[string]string{}}
	all, err := store.ScanJSON[*group](tx, groups, "", "", 0)
	if err != nil {
		return nil, err
	}
	for _, x := range all {
		if x.Tenant == tenant {
			h.groups[key(x.Name)] = x
		}
	}
	for _, sub := range s.Site.Tenancy.Subscriptions(tenant) {
		m, _, err := store.GetJSON[member](tx, groupMembers, sub)
		if err != nil {
			return nil, err
		}
		h.subs[sub] = cmp.Or(m.In, h.root)
	}
	h.settings, _, err = store.GetJSON[settings](tx, groupSettings, tenant)
	return h, err
}

// landing is the name of the group that new groups and subscriptions go to.
func (h *hierarchy) landing() string { return cmp.Or(h.Default, h.root) }

// chain is a group and all above it, innermost first.
func (h *hierarchy) chain(name string) (out []*group) {
	for x := h.groups[name]; x != nil && !slices.Contains(out, x); x = h.groups[x.Parent] {
		out = append(out, x)
	}
	return out
}

// below are the groups directly in one, by name.
func (h *hierarchy) below(name string) (out []*group) {
	for _, x := range h.groups {
		if !x.root() && x.Parent == name {
			out = append(out, x)
		}
	}
	slices.SortFunc(out, func(x, y *group) int { return cmp.Compare(key(x.Name), key(y.Name)) })
	return out
}

// subscriptions are the ids of those directly in a group.
func (h *hierarchy) subscriptions(name string) (out []string) {
	for sub, in := range h.subs {
		if in == name {
			out = append(out, sub)
		}
	}
	slices.Sort(out)
	return out
}

// height is how many levels of groups a group has, with itself.
func (h *hierarchy) height(name string) int {
	n := 0
	for _, x := range h.below(name) {
		n = max(n, h.height(key(x.Name)))
	}
	return n + 1
}

// fits says whether a group of the name, which may be new, can lie in another.
func (h *hierarchy) fits(name, in string) error {
	above := h.chain(in)
	for _, x := range above {
		if key(x.Name) == name {
			return arm.Errorf(arm.BadRequest, "The management group '%s' can't lie in '%s', which is itself or lies inside it.", name, in)
		}
	}
	if depth := len(above) - 1 + h.height(name); depth > maxDepth {
		return arm.Errorf(arm.BadRequest, "The management group '%s' in '%s' would make a hierarchy of %d levels below the root group; at most %d are allowed.", name, in, depth, maxDepth)
	}
	return nil
}

// keepGroup writes x; what is decided from then on follows it.
func (s *Service) keepGroup(tx *store.Tx, x *group, by arm.Caller) error {
	x.Version, x.Updated, x.By = x.Version+1, s.Now().UTC(), by.Object
	tx.After(func() {
		s.Engine.Move(func() { s.Site.Tenancy.PutGroup(x.Name, x.Parent, x.Tenant) })
	})
	return store.PutJSON(tx, groups, key(x.Name), x)
}

// place puts a subscription in a group, of its name in lower case.
func (s *Service) place(tx *store.Tx, sub, in string) error {
	tx.After(func() { s.Engine.Move(func() { s.Site.Tenancy.Place(sub, in) }) })
	return store.PutJSON(tx, groupMembers, sub, member{sub, in})
}

// land puts a new subscription where the tenant wants new ones.
func (s *Service) land(tx *store.Tx, sub, tenant string) error {
	set, _, err := store.GetJSON[settings](tx, groupSettings, tenant)
	if err != nil || set.Default == "" {
		return err
	}
	return s.place(tx, sub, set.Default)
}

// loadGroups tells the tenancy of the groups that are kept.
func (s *Service) loadGroups(tx *store.Tx) error {
	all, err := store.ScanJSON[group](tx, groups, "", "", 0)
	if err != nil {
		return err
	}
	members, err := store.ScanJSON[member](tx, groupMembers, "", "", 0)
	if err != nil {
		return err
	}
	s.Engine.Move(func() {
		for _, x := range all {
			s.Site.Tenancy.PutGroup(x.Name, x.Parent, x.Tenant)
		}
		for _, m := range members {
			s.Site.Tenancy.Place(m.Sub, m.In)
		}
	})
	return nil
}

// keepsRoles fails if a custom role that is assigned in what is moved could not
// be assigned there any more: in groups that are given, innermost first.
func (s *Service) keepsRoles(tx *store.Tx, what arm.ID, above []*group) error {
	all, err := s.around(tx, what, nil)
	if err != nil {
		return err
	}
	for _, a := range all {
		r, ok, err := s.role(tx, a.Role)
		if err != nil {
			return err
		}
		if !ok || len(r.AssignableScopes) == 0 || !s.within(a.Scope, what) || s.builtIn[a.Role].ID != "" {
			continue
		}
		if !slices.ContainsFunc(r.AssignableScopes, func(text string) bool {
			at, err := arm.ParseID(text)
			if err != nil || !s.within(a.Scope, at) && !isGroup(at) {
				return false
			}
			return !isGroup(at) || s.within(a.Scope, at) && s.within(at, what) || slices.ContainsFunc(above, func(x *group) bool { return x.id().Key() == at.Key() })
		}) {
			return arm.Errorf(arm.BadRequest, "'%s' can't be moved: the custom role '%s' is assigned at %s, and is not assignable there after the move. Take the assignment away, or make the role assignable at a management group that holds the new place.", what, r.Name, a.Scope)
		}
	}
	return nil
}

// displayName is a subscription's name for people.
func displayName(tx *store.Tx, sub string) (string, error) {
	d, err := resource.Load(tx, arm.MustID("/subscriptions/"+sub))
	if err != nil || d == nil {
		return sub, err
	}
	var p struct {
		Name string `json:"displayName"`
	}
	err = json.Unmarshal(d.Properties, &p)
	return cmp.Or(p.Name, sub), err
}

// groupOf is the name, in lower case, of the management group that a body names.
func groupOf(field, text string) (string, error) {
	id, err := arm.ParseID(text)
	if err != nil || !isGroup(id) || !groupName.MatchString(id.Name()) {
		return "", arm.Errorf(arm.InvalidRequest, "%s is %q; it must be the id of a management group, /providers/%s/NAME", field, text, groupType)
	}
	return strings.ToLower(id.Name()), nil
}
