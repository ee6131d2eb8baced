package template

import (
	"cmp"
	"strings"

	"castellan/internal/arm"
)

// placeFunctions speak of where a template is deployed, and name resources.
var placeFunctions = map[string]function{
	"subscription":    {0, 0, func(e env, _ []any) (any, error) { return e.d.scope.subscription() }},
	"managementgroup": {0, 0, func(e env, _ []any) (any, error) { return e.d.scope.managementGroup() }},
	"resourcegroup":   {0, 0, func(e env, _ []any) (any, error) { return e.d.scope.group() }},
	"tenant": {0, 0, func(e env, _ []any) (any, error) {
		return map[string]any{"tenantId": e.d.scope.Tenant, "displayName": e.d.scope.Tenant}, nil
	}},
	"deployment":             {0, 0, func(e env, _ []any) (any, error) { return e.d.describe(), nil }},
	"environment":            {0, 0, func(e env, _ []any) (any, error) { return e.d.scope.Environment, nil }},
	"resourceid":             {2, -1, resourceID},
	"subscriptionresourceid": {2, -1, subscriptionResourceID},
	"extensionresourceid":    {3, -1, extensionResourceID},
	"tenantresourceid":       {2, -1, tenantResourceID},

	"managementgroupresourceid": {2, -1, managementGroupResourceID},
}

func (s *Scope) subscription() (any, error) {
	if s.Subscription == "" {
		return nil, invalid("the template is not deployed to a subscription")
	}
	return map[string]any{"id": "/subscriptions/" + s.Subscription, "subscriptionId": s.Subscription, "tenantId": s.Tenant, "displayName": s.SubscriptionName}, nil
}

func (s *Scope) managementGroup() (any, error) {
	if s.ManagementGroup == "" {
		return nil, invalid("the template is not deployed to a management group")
	}
	return map[string]any{
		"id": managementGroups + s.ManagementGroup, "name": s.ManagementGroup, "type": "/providers/Microsoft.Management/managementGroups",
		"properties": map[string]any{"tenantId": s.Tenant, "displayName": s.ManagementGroup},
	}, nil
}

const managementGroups = "/providers/Microsoft.Management/managementGroups/"

// base is the id of what the template is deployed to, "" for the tenant.
func (s *Scope) base() string {
	switch {
	case s.Group != "":
		return s.groupID()
	case s.Subscription != "":
		return "/subscriptions/" + s.Subscription
	case s.ManagementGroup != "":
		return managementGroups + s.ManagementGroup
	}
	return ""
}

func (s *Scope) group() (any, error) {
	if s.Group == "" {
		return nil, invalid("the template is not deployed to a resource group")
	}
	tags := map[string]any{}
	for k, v := range s.GroupTags {
		tags[k] = v
	}
	return map[string]any{
		"id": s.groupID(), "name": s.Group, "type": "Microsoft.Resources/resourceGroups", "location": s.GroupLocation, "tags": tags,
		"properties": map[string]any{"provisioningState": "Succeeded"},
	}, nil
}

func (s *Scope) groupID() string {
	return "/subscriptions/" + s.Subscription + "/resourceGroups/" + s.Group
}

// describe is what deployment() gives; the parameters it leaves out, for some
// may be secrets.
func (d *Deployment) describe() any {
	return map[string]any{"name": d.scope.Deployment, "location": cmp.Or(d.scope.Location, d.scope.GroupLocation), "properties": map[string]any{"mode": d.scope.Mode, "template": map[string]any{"contentVersion": get(d.tree, "contentVersion")}}}
}

// pairs is providers/TYPE with names between its segments. The number of names
// tells where the type's own segments end.
func pairs(typ string, names []string) (string, error) {
	segs := strings.Split(strings.TrimSuffix(typ, "/"), "/")
	if len(segs) < 2 || len(segs)-1 != len(names) {
		return "", invalid("the type has %d segments behind its namespace and there are %d names; both must be the same", max(0, len(segs)-1), len(names))
	}
	out := "/providers/" + segs[0]
	for i, n := range names {
		if n != "" && arm.CheckSegment(n) != nil { // an empty one makes an id that nothing can use
			return "", invalid("a name is not one segment of a resource id")
		}
		out += "/" + segs[i+1] + "/" + n
	}
	return out, nil
}

// typeAt is the index of the argument that is a resource type; the scope's
// parts stand before it.
func typeAt(args []string, from int) int {
	for i := from; i < len(args); i++ {
		if strings.Contains(args[i], "/") && !strings.HasPrefix(args[i], "/") {
			return i
		}
	}
	return -1
}

// resourceID takes [subscription,] [group,] type, names.
func resourceID(e env, a []any) (any, error) {
	args, err := texts(a)
	if err != nil {
		return nil, err
	}
	s := e.d.scope
	sub, group := s.Subscription, s.Group
	i := typeAt(args, 0)
	switch i {
	case 0:
	case 1:
		if group = args[0]; s.Group == "" {
			sub, group = args[0], ""
		}
	case 2:
		sub, group = args[0], args[1]
	default:
		return nil, invalid("there is no resource type, such as Microsoft.Storage/storageAccounts, among the first arguments")
	}
	for _, seg := range []string{sub, group} {
		if seg != "" && arm.CheckSegment(seg) != nil {
			return nil, invalid("a subscription id or group name is not one segment of a resource id")
		}
	}
	p, err := pairs(args[i], args[i+1:])
	if err != nil {
		return nil, err
	}
	if sub == "" {
		return p, nil
	}
	if group == "" {
		return inSubscription(sub, p), nil
	}
	return "/subscriptions/" + sub + "/resourceGroups/" + group + p, nil
}

func subscriptionResourceID(e env, a []any) (any, error) {
	sub, p, err := below(e.d.scope.Subscription, a, "the subscription id is not one segment of a resource id")
	if err != nil {
		return nil, err
	}
	return inSubscription(sub, p), nil
}

// below reads [scope,] type, names: the scope, own if none is given, and the path of
// the rest. bad is the error about a scope that is none.
func below(own string, a []any, bad string) (scope, path string, err error) {
	args, err := texts(a)
	if err != nil {
		return "", "", err
	}
	i := typeAt(args, 0)
	switch i {
	case 0:
		scope = own
	case 1:
		scope = args[0]
	default:
		return "", "", invalid("there is no resource type among the first arguments")
	}
	if arm.CheckSegment(scope) != nil {
		return "", "", invalid("%s", bad)
	}
	path, err = pairs(args[i], args[i+1:])
	return scope, path, err
}

// inSubscription is the id of what lies in a subscription: a resource group is
// no resource of a provider.
func inSubscription(sub, rest string) string {
	const groups = "/providers/microsoft.resources/resourcegroups/"
	if len(rest) > len(groups) && strings.EqualFold(rest[:len(groups)], groups) {
		rest = "/resourceGroups/" + rest[len(groups):]
	}
	return "/subscriptions/" + sub + rest
}

// managementGroupResourceID takes [management group,] type, names.
func managementGroupResourceID(e env, a []any) (any, error) {
	mg, p, err := below(e.d.scope.ManagementGroup, a, "the management group is not one segment of a resource id")
	if err != nil {
		return nil, err
	}
	return managementGroups + mg + p, nil
}

func extensionResourceID(_ env, a []any) (any, error) {
	args, err := texts(a)
	if err != nil {
		return nil, err
	}
	if _, err := arm.ParseID(args[0]); err != nil {
		return nil, invalid("argument 1 is not a resource id")
	}
	p, err := pairs(args[1], args[2:])
	return strings.TrimSuffix(args[0], "/") + p, err
}

func tenantResourceID(_ env, a []any) (any, error) {
	args, err := texts(a)
	if err != nil {
		return nil, err
	}
	return pairs(args[0], args[1:])
}
