package resource

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"regexp"
	"sort"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

var (
	readProviders  = arm.NewAction("Microsoft.Resources/subscriptions/providers/read", "see which resource providers there are")
	readLocations  = arm.NewAction("Microsoft.Resources/subscriptions/locations/read", "see which locations there are")
	readResources  = arm.NewAction("Microsoft.Resources/subscriptions/resources/read", "see the resources of a subscription")
	readGroupItems = arm.NewAction("Microsoft.Resources/subscriptions/resourceGroups/resources/read", "see the resources of a group")
	readOperations = arm.NewAction("Microsoft.Resources/providers/operations/read", "see which operations a provider has")
	readTenants    = arm.NewAction("Microsoft.Resources/tenants/read", "see the directory one signed in to")
)

// shapeSubscription is a subscription as Azure shows it, which has no properties.
func shapeSubscription(s arm.Site, d *Doc) any {
	id := d.ID.Subscription()
	var p struct {
		Name string `json:"displayName"`
	}
	_ = json.Unmarshal(d.Properties, &p) // a subscription without a display name goes by its id
	if p.Name == "" {
		p.Name = id
	}
	return map[string]any{
		"id": "/subscriptions/" + id, "subscriptionId": id, "tenantId": s.TenantOf(d.ID), "displayName": p.Name, "state": "Enabled",
		"authorizationSource": "RoleBased", "managedByTenants": []any{},
		"subscriptionPolicies": map[string]any{"locationPlacementId": "Public_2014-09-01", "quotaId": "Internal_2014-09-01", "spendingLimit": "Off"},
	}
}

// CatalogRoutes are the doors to what is derived from all kinds: providers and
// their operations, locations, and lists of resources of any kind.
func (s *Server) CatalogRoutes() []gate.Route {
	sub := func(r *http.Request, v gate.Vars) (gate.Target, error) {
		if err := version(r); err != nil {
			return gate.Target{}, err
		}
		id, err := arm.ParseID("/subscriptions/" + v["sub"])
		return gate.Target{ID: id, Item: v["ns"]}, err
	}
	group := func(r *http.Request, v gate.Vars) (gate.Target, error) { return Locate(r, 1) }
	root := func(r *http.Request, v gate.Vars) (gate.Target, error) {
		return gate.Target{ID: arm.Root, Item: v["ns"]}, version(r)
	}
	return []gate.Route{
		gate.Each(readProviders, "GET /subscriptions/{sub}/providers", sub, s.providers),
		gate.Each(readProviders, "GET /subscriptions/{sub}/providers/{ns}", sub, s.provider),
		gate.Each(readProviders, "GET /providers", root, s.providers),
		gate.Each(readProviders, "GET /providers/{ns}", root, s.provider),
		gate.On(register, "POST /subscriptions/{sub}/providers/{ns}/register", sub, s.register),
		gate.Each(readOperations, "GET /providers/{ns}/operations", root, s.providerOperations),
		gate.Each(readLocations, "GET /subscriptions/{sub}/locations", sub, s.locations),
		gate.Each(readResources, "GET /subscriptions/{sub}/resources", sub, s.resources),
		gate.Each(readGroupItems, "GET /subscriptions/{sub}/resourcegroups/{group}/resources", group, s.resources),
		gate.Each(readTenants, "GET /tenants", root, s.tenants),
	}
}

var register = arm.NewAction("Microsoft.Resources/subscriptions/providers/register/action", "register a resource provider")

// Namespaces are the providers that the kinds belong to, each with its types.
func (s *Server) namespaces() map[string][]string {
	out := map[string][]string{}
	for _, k := range s.kinds {
		ns, typ, _ := strings.Cut(k.Type, "/")
		out[ns] = append(out[ns], typ)
	}
	return out
}

// describe is a provider as the subscription shows it, or as all do at the root.
func (s *Server) describe(at arm.ID, ns string, types []string) map[string]any {
	list := make([]any, len(types))
	for i, t := range types {
		list[i] = map[string]any{"resourceType": t, "locations": []string{s.Site.Location}, "apiVersions": apiVersions, "capabilities": "None"}
	}
	return map[string]any{"id": strings.TrimSuffix(at.String(), "/") + "/providers/" + ns, "namespace": ns, "registrationState": "Registered", "registrationPolicy": "RegistrationFree", "resourceTypes": list}
}

// apiVersions is what tools that choose a version are shown; any version that
// has the form of one is served.
var apiVersions = []string{"2025-06-01", "2024-04-01", "2023-01-01", "2022-09-01", "2021-04-01"}

func (s *Server) providers(w http.ResponseWriter, _ *http.Request, g gate.Grant) error {
	at, err := g.On(readProviders)
	if err != nil {
		return err
	}
	all := s.namespaces()
	var names []string
	for ns := range all {
		names = append(names, ns)
	}
	sort.Strings(names)
	list := make([]any, len(names))
	for i, ns := range names {
		list[i] = s.describe(at, ns, all[ns])
	}
	return writeJSON(w, http.StatusOK, map[string]any{"value": list})
}

func (s *Server) find(ns string) (string, []string, error) {
	for name, types := range s.namespaces() {
		if strings.EqualFold(name, ns) {
			return name, types, nil
		}
	}
	return "", nil, &arm.Error{Code: "InvalidResourceNamespace", Status: http.StatusNotFound, Message: "The resource namespace '" + ns + "' is invalid."}
}

// aliases are the names under which policies know the properties of a type.
func (k *Kind) aliases() []any {
	list := []any{}
	add := func(name, path string) {
		list = append(list, map[string]any{"name": k.Type + "/" + name, "defaultPath": path, "type": "PlainText", "paths": []any{map[string]any{"path": path, "apiVersions": apiVersions}}})
	}
	for _, p := range arm.Paths(k.props()) {
		add(p, "properties."+p)
	}
	if !k.Global {
		add("sku.name", "sku.name")
	}
	return list
}

func (s *Server) provider(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	at, err := g.On(readProviders)
	if err != nil {
		return err
	}
	ns, types, err := s.find(g.Item())
	if err != nil {
		return err
	}
	out := s.describe(at, ns, types)
	if strings.EqualFold(r.URL.Query().Get("$expand"), "resourceTypes/aliases") {
		for _, t := range out["resourceTypes"].([]any) {
			m := t.(map[string]any)
			m["aliases"] = s.Kind(ns + "/" + m["resourceType"].(string)).aliases()
		}
	}
	return writeJSON(w, http.StatusOK, out)
}

// register answers that the provider is registered: all are, always.
func (s *Server) register(w http.ResponseWriter, _ *http.Request, g gate.Grant) error {
	at, err := g.On(register)
	if err != nil {
		return err
	}
	ns, types, err := s.find(g.Item())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, s.describe(at, ns, types))
}

func (s *Server) providerOperations(w http.ResponseWriter, _ *http.Request, g gate.Grant) error {
	if _, err := g.On(readOperations); err != nil {
		return err
	}
	ns, _, err := s.find(g.Item())
	if err != nil {
		return err
	}
	var list []any
	add := func(a arm.Action, typ string) {
		list = append(list, map[string]any{"name": a.Name(), "isDataAction": a.Data(), "display": map[string]any{"provider": ns, "resource": typ, "operation": a.Doc(), "description": a.Doc()}})
	}
	for _, k := range s.kinds {
		if n, typ, _ := strings.Cut(k.Type, "/"); n == ns {
			add(k.read, typ)
			add(k.write, typ)
			add(k.remove, typ)
			for _, p := range k.Posts {
				add(p.Action, typ)
			}
		}
	}
	return writeJSON(w, http.StatusOK, map[string]any{"value": list})
}

func (s *Server) locations(w http.ResponseWriter, _ *http.Request, g gate.Grant) error {
	id, err := g.On(readLocations)
	if err != nil {
		return err
	}
	l := s.Site.Location
	return writeJSON(w, http.StatusOK, map[string]any{"value": []any{map[string]any{
		"id": id.String() + "/locations/" + l, "name": l, "displayName": l, "regionalDisplayName": l, "type": "Region",
		"metadata": map[string]any{"regionType": "Physical", "regionCategory": "Recommended"},
	}}})
}

func (s *Server) tenants(w http.ResponseWriter, _ *http.Request, g gate.Grant) error {
	if _, err := g.On(readTenants); err != nil {
		return err
	}
	t := g.Caller().Tenant
	return writeJSON(w, http.StatusOK, map[string]any{"value": []any{map[string]any{"id": "/tenants/" + t, "tenantId": t, "tenantCategory": "Home", "displayName": t}}})
}

// clauseForm is one condition of the $filter that lists of resources take.
var clauseForm = regexp.MustCompile(`(?i)^\s*(resourceType|resourceGroup|name|location|tagName|tagValue)\s+eq\s+'([^']+)'\s*$`)

var andForm = regexp.MustCompile(`(?i)\s+and\s+`)

// readFilter reads a $filter: conditions on equality, all of which must hold.
func readFilter(f string) (map[string]string, error) {
	out := map[string]string{}
	if f == "" {
		return out, nil
	}
	for _, c := range andForm.Split(f, -1) {
		m := clauseForm.FindStringSubmatch(c)
		if m == nil {
			return nil, arm.Errorf(arm.BadRequest, "the $filter %q is not supported; supported: conditions such as resourceType eq 'NAMESPACE/TYPE' on resourceType, resourceGroup, name, location, tagName and tagValue, joined by and", f)
		}
		out[strings.ToLower(m[1])] = m[2]
	}
	return out, nil
}

// meets reports whether d has what the filter wants.
func meets(d *Doc, want map[string]string) bool {
	for key, v := range want {
		ok := false
		switch key {
		case "resourcetype":
			ok = strings.EqualFold(d.Type, v)
		case "resourcegroup":
			ok = strings.EqualFold(d.ID.Group().Name(), v)
		case "name":
			ok = strings.EqualFold(d.Name, v)
		case "location":
			ok = place(d.Location) == place(v)
		case "tagname":
			_, ok = d.Tags[v]
			if tag, also := want["tagvalue"]; ok && also {
				ok = d.Tags[v] == tag
			}
		case "tagvalue":
			_, ok = want["tagname"]
		}
		if !ok {
			return false
		}
	}
	return true
}

func (s *Server) resources(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	scope, err := g.On(readResources, readGroupItems)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	want, err := readFilter(q.Get("$filter"))
	if err != nil {
		return err
	}
	more, err := readExpand(q.Get("$expand"))
	if err != nil {
		return err
	}
	after, err := skip(q.Get("$skiptoken"))
	if err != nil {
		return err
	}
	size, err := pageSize(r)
	if err != nil {
		return err
	}
	var found []*Doc
	if err := s.DB.View(r.Context(), func(tx *store.Tx) error {
		docs, err := Below(tx, scope)
		if err != nil {
			return err
		}
		for _, d := range docs {
			k := s.Kind(d.Type)
			if k != nil && k.Parent == Group && d.ID.Key() > after && meets(d, want) && g.Sees(k.read, d.ID) {
				found = append(found, d)
			}
		}
		return nil
	}); err != nil {
		return err
	}
	out := map[string]any{}
	if len(found) > size {
		found = found[:size]
		q.Set("$skiptoken", base64.RawURLEncoding.EncodeToString([]byte(found[size-1].ID.Key())))
		out["nextLink"] = s.Site.Base() + r.URL.EscapedPath() + "?" + q.Encode()
	}
	list := make([]any, len(found))
	for i, d := range found {
		list[i] = d.generic(more)
	}
	out["value"] = list
	return writeJSON(w, http.StatusOK, out)
}

// expansions are what lists of resources show on demand.
var expansions = map[string]func(*Doc) any{
	"createdtime": func(d *Doc) any { return d.System.CreatedAt },
	"changedtime": func(d *Doc) any { return d.System.ModifiedAt },
	"provisioningstate": func(d *Doc) any {
		var p struct {
			State string `json:"provisioningState"`
		}
		_ = json.Unmarshal(d.Properties, &p) // not every kind has one
		return cmp.Or(p.State, "Succeeded")
	},
}

// readExpand reads an $expand, as createdTime,provisioningState.
func readExpand(e string) ([]string, error) {
	if e == "" {
		return nil, nil
	}
	names := strings.Split(e, ",")
	for i, n := range names {
		if names[i] = strings.TrimSpace(n); expansions[strings.ToLower(names[i])] == nil {
			return nil, arm.Errorf(arm.BadRequest, "the $expand %q is not supported; supported: createdTime, changedTime and provisioningState, joined by commas", e)
		}
	}
	return names, nil
}

// generic is d as lists of resources of any kind show it.
func (d *Doc) generic(more []string) map[string]any {
	out := map[string]any{"id": d.ID, "name": d.Name, "type": d.Type, "location": d.Location, "tags": d.Tags, "kind": d.Kind, "sku": d.SKU, "identity": d.Identity}
	for _, n := range more {
		key := strings.ToLower(n)
		if d.System != nil || key == "provisioningstate" {
			out[strings.ToLower(n[:1])+n[1:]] = expansions[key](d)
		}
	}
	return out
}
