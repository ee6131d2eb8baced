package resource

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
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
		Name  string `json:"displayName"`
		State string `json:"state"`
	}
	_ = json.Unmarshal(d.Properties, &p) // a subscription without a display name goes by its id
	if p.Name == "" {
		p.Name = id
	}
	return map[string]any{
		"id": "/subscriptions/" + id, "subscriptionId": id, "tenantId": s.TenantOf(d.ID), "displayName": p.Name, "state": cmp.Or(p.State, "Enabled"),
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
		gate.On(register, "POST /subscriptions/{sub}/providers/{ns}/register", sub, s.register(register, true)),
		gate.On(unregister, "POST /subscriptions/{sub}/providers/{ns}/unregister", sub, s.register(unregister, false)),
		gate.Each(readProviders, "GET /subscriptions/{sub}/providers/{ns}/providerPermissions", sub, s.providerPermissions),
		gate.Each(readOperations, "GET /providers/{ns}/operations", root, s.providerOperations),
		gate.Each(readLocations, "GET /subscriptions/{sub}/locations", sub, s.locations),
		gate.Each(readResources, "GET /subscriptions/{sub}/resources", sub, s.resources),
		gate.Each(readGroupItems, "GET /subscriptions/{sub}/resourcegroups/{group}/resources", group, s.resources),
		gate.Each(exportGroup, "POST /subscriptions/{sub}/resourcegroups/{group}/exportTemplate", group, s.exportGroup),
		gate.Each(readTenants, "GET /tenants", root, s.tenants),
	}
}

// namespaces are the providers that the kinds belong to, each with its types,
// and those that have no kinds but doors, with the types that these act on.
func (s *Server) namespaces() map[string][]string {
	out := map[string][]string{}
	for _, k := range s.kinds {
		ns, typ, _ := strings.Cut(k.Type, "/")
		out[ns] = append(out[ns], typ)
	}
	for ns, actions := range s.kindless() {
		types := []string{}
		for _, a := range actions {
			if typ := typeOf(a); typ != "" && !slices.Contains(types, typ) {
				types = append(types, typ)
			}
		}
		slices.Sort(types)
		out[ns] = types
	}
	return out
}

// kindless are the actions of doors in namespaces that no kind is of.
func (s *Server) kindless() map[string][]arm.Action {
	out := map[string][]arm.Action{}
	if s.Actions == nil {
		return out
	}
	for _, a := range s.Actions() {
		ns, _, _ := strings.Cut(a.Name(), "/")
		if strings.HasPrefix(ns, "Microsoft.") && !slices.ContainsFunc(s.kinds, func(k *Kind) bool { return strings.HasPrefix(k.Type, ns+"/") }) {
			out[ns] = append(out[ns], a)
		}
	}
	return out
}

// typeOf is the type, without its namespace, that an action is done to.
func typeOf(a arm.Action) string {
	p := strings.Split(strings.TrimSuffix(a.Name(), "/action"), "/")
	return strings.Join(p[1:len(p)-1], "/")
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
		list = append(list, map[string]any{"name": k.Type + "/" + name, "defaultPath": path, "type": "PlainText", "paths": []any{map[string]any{"path": path, "apiVersions": Versions(k.Type)}}})
	}
	for _, p := range arm.Paths(k.props()) {
		add(p, "properties."+p)
	}
	if !k.Global {
		add("sku.name", "sku.name")
	}
	return list
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
	for _, a := range s.kindless()[ns] {
		add(a, typeOf(a))
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
