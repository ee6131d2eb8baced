package identity

import (
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"castellan/internal/access"
	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

var (
	readPolicies       = arm.NewAction("microsoft.directory/conditionalAccessPolicies/standard/read", "see under which conditions people may sign in")
	createPolicy       = arm.NewAction("microsoft.directory/conditionalAccessPolicies/create", "add a Conditional Access policy")
	updateAccessPolicy = arm.NewAction("microsoft.directory/conditionalAccessPolicies/basic/update", "change a Conditional Access policy")
	deletePolicy       = arm.NewAction("microsoft.directory/conditionalAccessPolicies/delete", "delete a Conditional Access policy")
	readLocations      = arm.NewAction("microsoft.directory/namedLocations/standard/read", "see the named locations of Conditional Access")
	createLocation     = arm.NewAction("microsoft.directory/namedLocations/create", "add a named location")
	updateLocation     = arm.NewAction("microsoft.directory/namedLocations/basic/update", "change a named location, which may open what policies keep shut")
	deleteLocation     = arm.NewAction("microsoft.directory/namedLocations/delete", "delete a named location")
)

const (
	policyClass       = "identity/conditionalAccess/policies"
	locationClass     = "identity/conditionalAccess/namedLocations"
	maxAccessPolicies = 240 // of a tenant, as in Entra
	maxLocations      = 195
)

func (s *Service) accessDoors() []gate.Route {
	const policies, places = "identity/conditionalaccess/policies", "identity/conditionalaccess/namedlocations"
	return []gate.Route{
		s.door(readPolicies, "GET "+policies, func(v *visit) (answer, error) {
			rows, err := rowsOf(v, policyTable, (*policyRow).show)
			if err != nil {
				return answer{}, err
			}
			return v.list(policyClass, rows)
		}),
		s.door(createPolicy, "POST "+policies, (*visit).createPolicy),
		s.door(readPolicies, "GET "+policies+"/{id}", func(v *visit) (answer, error) {
			p, err := rowOf[*policyRow](v, policyTable, "conditionalAccessPolicy")
			if err != nil {
				return answer{}, err
			}
			return v.one(http.StatusOK, policyClass, p.show())
		}),
		s.door(updateAccessPolicy, "PATCH "+policies+"/{id}", (*visit).updatePolicy),
		s.door(deletePolicy, "DELETE "+policies+"/{id}", (*visit).deletePolicy),
		s.door(readLocations, "GET "+places, func(v *visit) (answer, error) {
			rows, err := rowsOf(v, locationTable, (*locationRow).show)
			if err != nil {
				return answer{}, err
			}
			return v.list(locationClass, rows)
		}),
		s.door(createLocation, "POST "+places, (*visit).createLocation),
		s.door(readLocations, "GET "+places+"/{id}", func(v *visit) (answer, error) {
			l, err := rowOf[*locationRow](v, locationTable, "namedLocation")
			if err != nil {
				return answer{}, err
			}
			return v.one(http.StatusOK, locationClass, l.show())
		}),
		s.door(updateLocation, "PATCH "+places+"/{id}", (*visit).updateLocation),
		s.door(deleteLocation, "DELETE "+places+"/{id}", (*visit).deleteLocation),
	}
}

// rowsOf shows all rows of the visit's tenant.
func rowsOf[T any](v *visit, table string, show func(T) map[string]any) (out []map[string]any, err error) {
	err = v.s.DB.View(v.r.Context(), func(tx *store.Tx) error {
		rows, err := store.ScanJSON[T](tx, table, v.tenant+"|", "", 0)
		for _, r := range rows {
			out = append(out, show(r))
		}
		return err
	})
	return out, err
}

// rowOf is the row that the path names.
func rowOf[T any](v *visit, table, class string) (row T, err error) {
	ok := false
	err = v.s.DB.View(v.r.Context(), func(tx *store.Tx) (err error) {
		row, ok, err = store.GetJSON[T](tx, table, v.tenant+"|"+fold(v.seg(3)))
		return err
	})
	if err == nil && !ok {
		err = missing(class, v.seg(3))
	}
	return row, err
}

// shown is a body as JSON has it, with what the platform adds.
func shown(body any, id string, created, modified time.Time) map[string]any {
	m := map[string]any{}
	b, err := json.Marshal(body)
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		return map[string]any{"id": id} // what came as JSON goes as JSON
	}
	m["id"], m["createdDateTime"], m["modifiedDateTime"] = id, stamp(created), nil
	if !modified.IsZero() {
		m["modifiedDateTime"] = stamp(modified)
	}
	return m
}

func (p *policyRow) show() map[string]any {
	m := shown(p.Body, p.ID, p.Created, p.Modified)
	m["templateId"] = nil
	return m
}

func (l *locationRow) show() map[string]any {
	return shown(l.Body, l.ID, l.Created, l.Modified)
}

// patch lays what the client sent over a body, key by key; null takes away.
func (v *visit) patch(over, out any) error {
	b, err := io.ReadAll(http.MaxBytesReader(v.w, v.r.Body, maxGraphBody))
	if err != nil {
		return &arm.Error{Code: arm.BadRequest, Message: "The request body could not be read.", Err: err}
	}
	tree, err := arm.ParseJSON(b)
	if err != nil {
		return err
	}
	changes, ok := tree.(map[string]any)
	if !ok {
		return arm.Errorf(arm.BadRequest, "The request body must be an object.")
	}
	return arm.DecodeTree(merge(shown(over, "", time.Time{}, time.Time{}), changes), out)
}

func merge(base, changes map[string]any) map[string]any {
	for k, x := range changes {
		for old := range base {
			if strings.EqualFold(old, k) {
				k = old
			}
		}
		sub, isMap := x.(map[string]any)
		was, wasMap := base[k].(map[string]any)
		switch {
		case x == nil:
			delete(base, k)
		case isMap && wasMap:
			base[k] = merge(was, sub)
		default:
			base[k] = x
		}
	}
	return base
}

func (v *visit) createPolicy() (answer, error) {
	p := &policyRow{ID: arm.NewUUID(), Tenant: v.tenant, Created: v.s.Now().UTC()}
	if err := v.body(&p.Body); err != nil {
		return answer{}, err
	}
	if len(p.Body.Conditions.Clients) == 0 {
		p.Body.Conditions.Clients = []string{"all"}
	}
	err := v.change(func(tx *store.Tx) error {
		if err := room(tx, policyTable, v.tenant, maxAccessPolicies); err != nil {
			return err
		}
		return v.keepPolicy(tx, p)
	})
	if err != nil {
		return answer{}, err
	}
	return v.one(http.StatusCreated, policyClass, p.show())
}

func room(tx *store.Tx, table, tenant string, most int) error {
	rows, err := tx.Scan(table, tenant+"|", "", most)
	if err == nil && len(rows) >= most {
		err = arm.Errorf(arm.BadRequest, "There are %d already, which is as many as there can be.", most)
	}
	return err
}

func (v *visit) updatePolicy() (answer, error) {
	was, err := rowOf[*policyRow](v, policyTable, "conditionalAccessPolicy")
	if err != nil {
		return answer{}, err
	}
	next := *was
	next.Body, next.Modified, next.Revision = policyBody{}, v.s.Now().UTC(), was.Revision+1
	if err := v.patch(was.Body, &next.Body); err != nil {
		return answer{}, err
	}
	return done, v.change(func(tx *store.Tx) error {
		now, ok, err := store.GetJSON[*policyRow](tx, policyTable, v.tenant+"|"+was.ID)
		if err != nil {
			return err
		}
		if !ok || now.Revision != was.Revision {
			return arm.Errorf(arm.Conflict, "The policy was changed by somebody else at the same moment. Try again.")
		}
		return v.keepPolicy(tx, &next)
	})
}

// keepPolicy writes a policy that can be kept, names what there is, and leaves
// somebody who can take it back.
func (v *visit) keepPolicy(tx *store.Tx, p *policyRow) error {
	compiled, err := p.Body.compile(p.ID)
	if err != nil {
		return err
	}
	if err := v.s.namesOf(tx, v.tenant, compiled); err != nil {
		return err
	}
	if err := store.PutJSON(tx, policyTable, v.tenant+"|"+p.ID, p); err != nil {
		return err
	}
	rules, err := v.s.followRules(tx, v.tenant)
	if err != nil {
		return err
	}
	return v.s.wayBack(v.tenant, rules, addressOf(v.r))
}

// namesOf refuses a policy that names what is not there: who mistypes an id
// believes in a policy that holds nobody.
func (s *Service) namesOf(tx *store.Tx, tenant string, p access.Policy) error {
	for _, x := range []struct {
		class, what string
		list        []string
	}{{"user", "user", append(slices.Clone(p.IncludeUsers), p.ExcludeUsers...)}, {"group", "group", append(slices.Clone(p.IncludeGroups), p.ExcludeGroups...)}} {
		for _, id := range x.list {
			if id == access.All || id == access.None {
				continue
			}
			v, err := tx.Get(objectTable, tenant+"|"+x.class+"|"+id)
			if err != nil {
				return err
			}
			if v == nil {
				return arm.Errorf(arm.BadRequest, "There is no %s with the id %s.", x.what, id)
			}
		}
	}
	for _, id := range append(slices.Clone(p.IncludeRoles), p.ExcludeRoles...) {
		if !s.isDirectoryRole(id) {
			return arm.Errorf(arm.BadRequest, "There is no directory role with the template id %s.", id)
		}
	}
	for _, id := range append(slices.Clone(p.IncludeLocations), p.ExcludeLocations...) {
		if id == access.All || id == access.AllTrusted {
			continue
		}
		v, err := tx.Get(locationTable, tenant+"|"+id)
		if err != nil {
			return err
		}
		if v == nil {
			return arm.Errorf(arm.BadRequest, "There is no named location with the id %s.", id)
		}
	}
	for _, id := range p.Contexts {
		v, err := tx.Get(contextTable, tenant+"|"+id)
		if err != nil {
			return err
		}
		if v == nil {
			return arm.Errorf(arm.BadRequest, "There is no authentication context with the id %s; make it first.", printable(id))
		}
	}
	return s.appsOf(tx, tenant, p)
}

// appsOf wants the applications that a policy names to be in the tenant.
func (s *Service) appsOf(tx *store.Tx, tenant string, p access.Policy) error {
	for _, id := range append(slices.Clone(p.IncludeApps), p.ExcludeApps...) {
		if id == access.All || id == access.None || s.isService(id) {
			continue
		}
		_, ok, err := named[*Principal](tx, "sp|"+tenant+"|"+id)
		if err != nil {
			return err
		}
		if !ok {
			return arm.Errorf(arm.BadRequest, "There is no service principal with the appId %s; make it first (POST /servicePrincipals).", id)
		}
	}
	return nil
}

// isService reports whether an app id is that of one of the platform's own APIs.
func (s *Service) isService(appID string) bool {
	_, ok := s.apis[appID]
	return ok
}

// isDirectoryRole reports whether id is the template of a directory role.
func (s *Service) isDirectoryRole(id string) bool { return book.byID[id] != nil }

// wayBack refuses rules by which every person who could change them is kept out
// of the directory, where they are changed. Break-glass accounts are never
// kept out; applications are held by no policy, but nobody should need one.
func (s *Service) wayBack(tenant string, rules *access.Rules, from netip.Addr) error {
	people, out := 0, 0
	for _, u := range s.administrators(tenant) {
		people++
		f := s.factsOf(u)
		f.Resource, f.App, f.Address, f.Client = s.apis[s.Site.GraphAudiences()[0]].app, azureCLI, from, access.Native
		native := rules.Forbids(f)
		f.Client = access.Browser
		if native != "" && rules.Forbids(f) != "" {
			out++
		}
	}
	if people > 0 && out == people {
		return arm.Errorf(arm.BadRequest, "The policy would keep every administrator out of the directory, so that nobody could take it back. Exclude one of them, or make a break-glass account first.")
	}
	return nil
}

// administrators are the people who may change policies and can sign in.
func (s *Service) administrators(tenant string) (out []*User) {
	people := find(s.index, func(x *index) (out []*User) {
		for _, u := range x.users {
			if u.Tenant == tenant && !u.Disabled {
				out = append(out, u)
			}
		}
		return out
	})
	for _, u := range people {
		if slices.Contains(s.directoryRoles(u.ID), globalAdministrator) {
			out = append(out, u)
		}
	}
	return out
}

func (v *visit) deletePolicy() (answer, error) {
	p, err := rowOf[*policyRow](v, policyTable, "conditionalAccessPolicy")
	if err != nil {
		return answer{}, err
	}
	return done, v.change(func(tx *store.Tx) error {
		if err := tx.Delete(policyTable, v.tenant+"|"+p.ID); err != nil {
			return err
		}
		_, err := v.s.followRules(tx, v.tenant)
		return err
	})
}

func (v *visit) createLocation() (answer, error) {
	l := &locationRow{ID: arm.NewUUID(), Tenant: v.tenant, Created: v.s.Now().UTC()}
	if err := v.body(&l.Body); err != nil {
		return answer{}, err
	}
	err := v.change(func(tx *store.Tx) error {
		if err := room(tx, locationTable, v.tenant, maxLocations); err != nil {
			return err
		}
		return v.keepLocation(tx, l)
	})
	if err != nil {
		return answer{}, err
	}
	return v.one(http.StatusCreated, locationClass, l.show())
}

func (v *visit) updateLocation() (answer, error) {
	was, err := rowOf[*locationRow](v, locationTable, "namedLocation")
	if err != nil {
		return answer{}, err
	}
	next := *was
	next.Body, next.Modified, next.Revision = locationBody{}, v.s.Now().UTC(), was.Revision+1
	if err := v.patch(was.Body, &next.Body); err != nil {
		return answer{}, err
	}
	return done, v.change(func(tx *store.Tx) error {
		now, ok, err := store.GetJSON[*locationRow](tx, locationTable, v.tenant+"|"+was.ID)
		if err != nil {
			return err
		}
		if !ok || now.Revision != was.Revision {
			return arm.Errorf(arm.Conflict, "The location was changed by somebody else at the same moment. Try again.")
		}
		return v.keepLocation(tx, &next)
	})
}

func (v *visit) keepLocation(tx *store.Tx, l *locationRow) error {
	if _, err := l.Body.compile(l.ID); err != nil {
		return err
	}
	if err := store.PutJSON(tx, locationTable, v.tenant+"|"+l.ID, l); err != nil {
		return err
	}
	rules, err := v.s.followRules(tx, v.tenant)
	if err != nil {
		return err
	}
	return v.s.wayBack(v.tenant, rules, addressOf(v.r))
}

// deleteLocation refuses while a policy names the location: without it the
// policy would mean something else.
func (v *visit) deleteLocation() (answer, error) {
	l, err := rowOf[*locationRow](v, locationTable, "namedLocation")
	if err != nil {
		return answer{}, err
	}
	return done, v.change(func(tx *store.Tx) error {
		rows, err := store.ScanJSON[*policyRow](tx, policyTable, v.tenant+"|", "", 0)
		if err != nil {
			return err
		}
		for _, r := range rows {
			p, err := r.Body.compile(r.ID)
			if err != nil {
				return err
			}
			if slices.Contains(p.IncludeLocations, l.ID) || slices.Contains(p.ExcludeLocations, l.ID) {
				return arm.Errorf(arm.BadRequest, "The policy %s names the location; change it first.", r.ID)
			}
		}
		if err := tx.Delete(locationTable, v.tenant+"|"+l.ID); err != nil {
			return err
		}
		rules, err := v.s.followRules(tx, v.tenant)
		if err != nil {
			return err
		}
		return v.s.wayBack(v.tenant, rules, addressOf(v.r))
	})
}
