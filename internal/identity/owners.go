package identity

import (
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/store"
)

// Who owns what is kept twice, read from either side.
const (
	ownerTable = "directory_owners" // tenant|object|owner
	ownedTable = "directory_owned"  // tenant|owner|object
)

// addOwner makes owner an owner of object; both are in the tenant.
func (s *Service) addOwner(tx *store.Tx, tenant, object, owner string) error {
	if err := tx.Put(ownerTable, tenant+"|"+object+"|"+owner, nil); err != nil {
		return err
	}
	tx.After(func() { s.index.own(object, owner) })
	return tx.Put(ownedTable, tenant+"|"+owner+"|"+object, nil)
}

// dropOwner ends that.
func (s *Service) dropOwner(tx *store.Tx, tenant, object, owner string) error {
	if err := tx.Delete(ownerTable, tenant+"|"+object+"|"+owner); err != nil {
		return err
	}
	tx.After(func() { s.index.disown(object, owner) })
	return tx.Delete(ownedTable, tenant+"|"+owner+"|"+object)
}

// ownNew makes the caller the owner of what it has just made, if it could not
// change it otherwise: who may register applications and no more must be able to
// go on with its own.
func (v *visit) ownNew(tx *store.Tx, object string, change arm.Action) error {
	if v.g.Sees(change, tenantID(v.tenant)) {
		return nil
	}
	return v.s.addOwner(tx, v.tenant, object, v.g.Caller().Object)
}

// owned is the object that the path names, which can have owners.
func (v *visit) owned() (object string, group *Group, err error) {
	switch strings.ToLower(v.seg(0)) {
	case "groups":
		g, err := v.group()
		if err != nil {
			return "", nil, err
		}
		return g.ID, g, nil
	case "serviceprincipals":
		p, err := v.principal()
		if err != nil {
			return "", nil, err
		}
		return p.ID, nil, nil
	}
	a, err := v.application()
	if err != nil {
		return "", nil, err
	}
	return a.ID, nil, nil
}

func (v *visit) listOwners() (answer, error) {
	id, _, err := v.owned()
	if err != nil {
		return answer{}, err
	}
	return v.list("directoryObjects", v.ownerRows(id))
}

func (v *visit) ownerRows(id string) []map[string]any { return v.shownAll(v.s.index.ownersOf(id)) }

// reference is the object that the client points to by its @odata.id.
func (v *visit) reference() (string, error) {
	var b struct {
		ID string `json:"@odata.id"`
	}
	if err := v.body(&b); err != nil {
		return "", err
	}
	return refID(b.ID)
}

// refID is the object that a reference ends with.
func refID(ref string) (string, error) {
	id := fold(ref[strings.LastIndexByte(ref, '/')+1:])
	if !isGUID(id) {
		return "", arm.Errorf(arm.BadRequest, "Invalid URL format specified in payload: %s; it must end with the id of an object.", printable(ref))
	}
	return id, nil
}

func (v *visit) addOwner() (answer, error) {
	owner, err := v.reference()
	if err != nil {
		return answer{}, err
	}
	id, _, err := v.owned()
	if err != nil {
		return answer{}, err
	}
	return done, v.change(func(tx *store.Tx) error { return v.addOwnerIn(tx, id, owner) })
}

// addOwnerIn makes a person or an application's principal an owner.
func (v *visit) addOwnerIn(tx *store.Tx, object, owner string) error {
	kind, ok, err := v.s.Principal(tx, v.tenant, owner)
	if err != nil {
		return err
	}
	if !ok {
		return missing("directoryObject", owner)
	}
	if kind == arm.Group {
		return arm.Errorf(arm.BadRequest, "A group can't be an owner; owners are users and service principals.")
	}
	already, err := tx.Get(ownerTable, v.tenant+"|"+object+"|"+owner)
	if err != nil {
		return err
	}
	if already != nil {
		return arm.Errorf(arm.BadRequest, "One or more added object references already exist for the following modified properties: 'owners'.")
	}
	return v.s.addOwner(tx, v.tenant, object, owner)
}

// removeOwner ends an ownership. A group that had a person for an owner keeps one.
func (v *visit) removeOwner() (answer, error) {
	id, group, err := v.owned()
	if err != nil {
		return answer{}, err
	}
	owner := fold(v.seg(3))
	return done, v.change(func(tx *store.Tx) error {
		rows, err := tx.Scan(ownerTable, v.tenant+"|"+id+"|", "", 0)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(rows, func(r store.Row) bool { return strings.HasSuffix(r.Key, "|"+owner) }) {
			return missing("directoryObject", owner)
		}
		if group != nil && len(rows) == 1 {
			return arm.Errorf(arm.BadRequest, "The group must have at least one owner, hence this owner cannot be removed.")
		}
		return v.s.dropOwner(tx, v.tenant, id, owner)
	})
}
