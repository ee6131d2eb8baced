package ml

import (
	"strings"

	"castellan/internal/arm"
)

// identity is one managed identity of a cluster.
type identity struct {
	of        arm.ID // whose it is: the cluster, or the user-assigned identity itself
	principal string
	client    string // "" where only a token tells
	name      string
}

// caller is the identity, acting.
func (i identity) caller(tenant string) arm.Caller {
	if i.principal == "" {
		return arm.Caller{}
	}
	return arm.Caller{Tenant: tenant, Object: i.principal, App: i.client, Kind: arm.ServicePrincipal, Name: i.name, Token: "managed"}
}

// identities are those of the cluster: its own, or those given to it, by name.
func (c cluster) identities() []identity {
	if c.Doc.Identity == nil {
		return nil
	}
	if c.Doc.Identity.Has() {
		return []identity{{of: c.Doc.ID, principal: c.Doc.Identity.Principal, name: c.Doc.ID.Parent().Name() + "/computes/" + c.Doc.Name}}
	}
	var out []identity
	for _, text := range sortedKeys(c.Doc.Identity.Users) {
		id, err := arm.ParseID(text)
		if err != nil {
			continue
		}
		u := c.Doc.Identity.Users[text]
		out = append(out, identity{of: id, principal: u.Principal, client: u.Client, name: id.Name()})
	}
	return out
}

// identity is the one that a job asks for, or the first.
func (c cluster) identity(want *jobIdentity) (identity, error) {
	all := c.identities()
	named := want != nil && strings.EqualFold(want.Type, "managed")
	if !named {
		if len(all) == 0 {
			return identity{}, nil
		}
		return all[0], nil
	}
	for _, i := range all {
		switch {
		case want.Client != "" && !strings.EqualFold(want.Client, i.client),
			want.Object != "" && !strings.EqualFold(want.Object, i.principal),
			want.Resource != "" && !strings.EqualFold(want.Resource, i.of.String()):
			continue
		}
		return i, nil
	}
	return identity{}, arm.Errorf(arm.BadRequest, "identity is Managed, but the cluster %s has no such managed identity (it has %d)", c.Doc.Name, len(all))
}
