package governance

import (
	"net/http"
	"regexp"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// The types of what governance serves.
const (
	assignmentType = "Microsoft.Authorization/roleAssignments"
	definitionType = "Microsoft.Authorization/roleDefinitions"
	groupType      = "Microsoft.Management/managementGroups"
)

// guidForm is the form of the names of assignments and definitions.
var guidForm = regexp.MustCompile(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$`)

// key is the form in which GUIDs and role names are compared.
func key(s string) string { return strings.ToLower(s) }

// locateItem is the assignment, definition or management group of the path.
func locateItem(r *http.Request, _ gate.Vars) (gate.Target, error) { return resource.Locate(r, 0) }

// locateScope is the scope in front of /providers/Microsoft.Authorization/LIST.
func locateScope(r *http.Request, _ gate.Vars) (gate.Target, error) { return resource.Locate(r, 3) }

func locateGroups(r *http.Request, _ gate.Vars) (gate.Target, error) {
	return gate.Target{ID: arm.Root}, resource.Version(r)
}

// scope is id as it was first written, or the error that says what of it does
// not exist.
func (s *Service) scope(tx *store.Tx, id arm.ID) (arm.ID, error) {
	switch {
	case id == arm.Root:
		return id, nil
	case isGroup(id):
		x, err := s.group(tx, id)
		if err != nil {
			return arm.ID{}, err
		}
		return x.id(), nil
	}
	d, err := resource.Load(tx, id)
	if err != nil {
		return arm.ID{}, err
	}
	if d != nil {
		return d.ID, nil
	}
	if s.Exists != nil {
		if ok, err := s.Exists(tx, id); ok || err != nil {
			return id, err
		}
	}
	return arm.ID{}, missing(tx, id)
}

// Scope is id as it was first written, or the error that says what of it does
// not exist.
func (s *Service) Scope(tx *store.Tx, id arm.ID) (arm.ID, error) { return s.scope(tx, id) }

// Above are the keys of the scopes that hold id, management groups among them,
// without id.
func (s *Service) Above(id arm.ID) []string { return s.above(id) }

// missing says which part of id, the outermost first, does not exist.
func missing(tx *store.Tx, id arm.ID) error {
	sub := id.Subscription()
	if sub == "" {
		return arm.Errorf(arm.NotFound, "The scope '%s' was not found.", id)
	}
	d, err := resource.Load(tx, subscription(id))
	if err != nil {
		return err
	}
	if d == nil {
		return arm.Errorf(arm.SubscriptionNotFound, "The subscription '%s' could not be found.", sub)
	}
	group := id.Group()
	if group.IsZero() {
		return arm.Errorf(arm.NotFound, "The Resource '%s' was not found.", id)
	}
	if d, err = resource.Load(tx, group); err != nil {
		return err
	}
	if d == nil {
		return arm.Errorf(arm.GroupNotFound, "Resource group '%s' could not be found.", group.Name())
	}
	return arm.Errorf(arm.NotFound, "The Resource '%s/%s' under resource group '%s' was not found.", id.Type(), id.Name(), group.Name())
}

// subscription is the subscription that holds id, or the zero ID.
func subscription(id arm.ID) arm.ID {
	if id.Subscription() == "" {
		return arm.ID{}
	}
	return arm.MustID("/subscriptions/" + id.Subscription())
}

// isSubscription reports whether id is a subscription itself.
func isSubscription(id arm.ID) bool { return !id.IsZero() && id.Key() == subscription(id).Key() }

// groupID is the id of a management group.
func groupID(name string) arm.ID { return arm.MustID("/providers/" + groupType + "/" + name) }

// rootGroup is the management group that holds all others, and all
// subscriptions, of a tenant.
func rootGroup(tenant string) arm.ID { return groupID(tenant) }

// isGroup reports whether id has the form of a management group's.
func isGroup(id arm.ID) bool {
	return strings.EqualFold(id.Type(), groupType) && id.Parent() == arm.Root
}

// tenantOf is the tenant that an assignment or role at the scope belongs to:
// the scope's, or for what every tenant has one of, the caller's.
func (s *Service) tenantOf(scope arm.ID, by arm.Caller) string {
	if t := s.Site.TenantOf(scope); t != "" {
		return t
	}
	return by.Tenant
}

// within reports whether id is holder or lies below it.
func (s *Service) within(id, holder arm.ID) bool {
	return id.Within(holder) || slices.Contains(s.Site.GroupsAbove(id.Key()), holder.Key())
}

// above are the keys of the scopes that hold id, without id.
func (s *Service) above(id arm.ID) []string {
	return append(id.Scopes()[1:], s.Site.GroupsAbove(id.Key())...)
}

// Gains reports whether a role is given, or somebody eligible for one, at a scope
// that holds the group to and not the group from.
func (s *Service) Gains(tx *store.Tx, from, to arm.ID) (bool, error) {
	had := append(s.above(from), from.Key())
	for _, k := range append(s.above(to), to.Key()) {
		if slices.Contains(had, k) {
			continue
		}
		given, err := exactly(tx, k)
		if err != nil {
			return false, err
		}
		able, err := store.ScanJSON[eligibility](tx, eligibilities, strings.TrimSuffix(k, "/")+"/providers/"+key(eligibilityType)+"/", "", 1)
		if err != nil {
			return false, err
		}
		if len(given)+len(able) > 0 {
			return true, nil
		}
	}
	return false, nil
}
