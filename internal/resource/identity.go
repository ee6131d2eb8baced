package resource

import (
	"strings"

	"castellan/internal/arm"
	"castellan/internal/store"
)

// Identity is the managed identities of a resource (Azure's identity object).
type Identity struct {
	Type      string                  `json:"type"`
	Principal string                  `json:"principalId,omitempty" arm:"readonly"`
	Tenant    string                  `json:"tenantId,omitempty" arm:"readonly"`
	Users     map[string]UserAssigned `json:"userAssignedIdentities,omitempty"`
}

// UserAssigned is one user-assigned identity, as a resource that has it shows it.
type UserAssigned struct {
	Principal string `json:"principalId,omitempty" arm:"readonly"`
	Client    string `json:"clientId,omitempty" arm:"readonly"`
}

// Has reports whether the identity object asks for a system-assigned identity.
func (i *Identity) Has() bool {
	return i != nil && strings.Contains(strings.ToLower(i.Type), "systemassigned")
}

// Identities makes and unmakes the principals behind managed identities, always
// in the transaction of the resource that has them.
type Identities interface {
	// Ensure is the system-assigned identity of a resource, made if it is not there.
	Ensure(tx *store.Tx, of arm.ID, name string) (principal, tenant string, err error)
	// Drop removes the system-assigned identity of a resource, if it has one.
	Drop(tx *store.Tx, of arm.ID) error
	// UserAssigned is the principal of a user-assigned identity; ok is false if
	// there is no such resource.
	UserAssigned(tx *store.Tx, id arm.ID) (principal, client string, ok bool, err error)
}

// AssignIdentity is what attaching a user-assigned identity to a resource asks
// of the caller on that identity (Managed Identity Operator has it).
var AssignIdentity = arm.NewAction("Microsoft.ManagedIdentity/userAssignedIdentities/assign/action", "give a user-assigned identity to a resource")

// merge takes what a client sent for an identity over what is; what the
// platform set, a client can't. A user-assigned identity given as null goes.
func merge(base *Doc, sent *Identity) error {
	next := &Identity{Users: map[string]UserAssigned{}}
	system, user := false, false
	for _, t := range strings.Split(sent.Type, ",") {
		switch strings.ToLower(strings.TrimSpace(t)) {
		case "systemassigned":
			system = true
		case "userassigned":
			user = true
		case "none":
		default:
			return arm.Errorf(arm.InvalidRequest, "identity.type is %q; it must be None, SystemAssigned, UserAssigned or SystemAssigned,UserAssigned", sent.Type)
		}
	}
	if !user && len(sent.Users) > 0 || user && len(sent.Users) == 0 {
		return arm.Errorf(arm.InvalidRequest, "identity.type is %q with %d userAssignedIdentities; UserAssigned needs at least one, and no other type takes any", sent.Type, len(sent.Users))
	}
	for text := range sent.Users {
		id, err := arm.ParseID(text)
		if err != nil {
			return err
		}
		next.Users[id.String()] = UserAssigned{}
	}
	switch {
	case system && user:
		next.Type = "SystemAssigned,UserAssigned"
	case system:
		next.Type = "SystemAssigned"
	case user:
		next.Type = "UserAssigned"
	default:
		base.Identity = nil
		return nil
	}
	if system && base.Identity != nil {
		next.Principal, next.Tenant = base.Identity.Principal, base.Identity.Tenant
	}
	base.Identity = next
	return nil
}

// identify makes the identities that the change asks for, and unmakes the
// system-assigned one that it no longer does.
func (s *Server) identify(tx *store.Tx, k *Kind, c *Change) (err error) {
	d := c.Doc
	if k.Identity == nil {
		return nil
	}
	if d.Identity != nil && s.Identities == nil {
		return arm.Errorf(arm.Unsupported, "this installation has no managed identities")
	}
	var was *Identity
	if c.Old != nil {
		was = c.Old.Identity
	}
	name := ""
	if d.Identity.Has() {
		name = k.Identity(d)
	}
	return d.Identity.Settle(tx, s.Identities, d.ID, name, was)
}

// Settle makes the system-assigned identity, of that name, which a resource asks
// for, unmakes the one that it no longer does, and finds those that it names.
func (i *Identity) Settle(tx *store.Tx, ids Identities, of arm.ID, name string, was *Identity) (err error) {
	if was.Has() && !i.Has() {
		if err := ids.Drop(tx, of); err != nil {
			return err
		}
	}
	if i == nil {
		return nil
	}
	if i.Has() {
		if i.Principal, i.Tenant, err = ids.Ensure(tx, of, name); err != nil {
			return err
		}
	}
	for text := range i.Users {
		id, err := arm.ParseID(text)
		if err != nil {
			return err
		}
		principal, client, ok, err := ids.UserAssigned(tx, id)
		if err != nil {
			return err
		}
		if !ok {
			return arm.Errorf(arm.NotFound, "the user-assigned identity %s does not exist", id)
		}
		i.Users[text] = UserAssigned{principal, client}
	}
	return nil
}

// links are what the kind says that d points to, and its user-assigned identities.
func (k *Kind) links(d *Doc) ([]Linked, error) {
	var out []Linked
	if k.Links != nil {
		var err error
		if out, err = k.Links(d); err != nil {
			return nil, err
		}
	}
	if d.Identity != nil {
		for text := range d.Identity.Users {
			id, err := arm.ParseID(text)
			if err != nil {
				return nil, err
			}
			out = append(out, Linked{AssignIdentity, id, "identity.userAssignedIdentities"})
		}
	}
	return out, nil
}

// heldBy are the links that d has. A user-assigned identity that was made anew
// since d got it is not among them: it is another, for which nobody was asked.
func (s *Server) heldBy(tx *store.Tx, k *Kind, d *Doc) ([]Linked, error) {
	links, err := k.links(d)
	if err != nil || s.Identities == nil {
		return links, err
	}
	var out []Linked
	for _, l := range links {
		if l.Action.Key() == AssignIdentity.Key() {
			principal, _, ok, err := s.Identities.UserAssigned(tx, l.ID)
			if err != nil {
				return nil, err
			}
			if !ok || !d.Identity.knows(l.ID, principal) {
				continue
			}
		}
		out = append(out, l)
	}
	return out, nil
}

// Lists reports whether the user-assigned identity of that id, in text, is named.
func (i *Identity) Lists(text string) bool {
	want, err := arm.ParseID(text)
	if i == nil || err != nil {
		return false
	}
	for has := range i.Users {
		if id, err := arm.ParseID(has); err == nil && id.Key() == want.Key() {
			return true
		}
	}
	return false
}

// knows reports whether the user-assigned identity id is there with this principal.
func (i *Identity) knows(id arm.ID, principal string) bool {
	if i == nil {
		return false
	}
	for text, u := range i.Users {
		if has, err := arm.ParseID(text); err == nil && has.Key() == id.Key() && u.Principal == principal {
			return true
		}
	}
	return false
}
