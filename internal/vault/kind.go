package vault

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"castellan/internal/arm"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// vaults is the kind of key vaults.
func (s *Service) vaults() *resource.Kind {
	return &resource.Kind{
		Type: "Microsoft.KeyVault/vaults", SystemData: "2020-04-01-preview",
		Doc:    "a key vault",
		Parent: resource.Group,
		Props:  func() any { return &Properties{} },
		Check:  s.check,
		Save:   s.save,
		Remove: s.remove,
		Moved:  s.moved,
		Show:   s.show,
	}
}

// inner is what a vault's resource remembers beside its properties.
type inner struct {
	UID string `json:"uid"`
}

// save gives a new vault its name, or brings a deleted one back, and looks that
// nobody changes how the vault decides who may not assign roles.
func (s *Service) save(tx *store.Tx, c resource.Change) error {
	p, err := propsOf(c.Doc)
	if err != nil {
		return err
	}
	if c.Old != nil {
		return s.saveChanged(tx, c, p)
	}
	n, taken, err := s.lookup(tx, c.Doc.Name)
	switch {
	case err != nil:
		return err
	case p.CreateMode == "recover":
		return s.recover(tx, c.Doc, n, taken)
	case taken && n.Deleted != nil:
		return &arm.Error{Code: "ConflictError", Status: http.StatusConflict, Message: fmt.Sprintf("A vault with the name '%s' exists in deleted state. You need to either recover or purge it.", c.Doc.Name)}
	case taken:
		return &arm.Error{Code: "VaultAlreadyExists", Status: http.StatusConflict, Message: fmt.Sprintf("The vault name '%s' is already in use. Vault names are globally unique.", c.Doc.Name)}
	}
	if n.UID != "" {
		if err := s.erase(tx, n); err != nil {
			return err
		}
	}
	uid, err := s.newVault(tx)
	if err != nil {
		return err
	}
	if c.Doc.Inner, err = json.Marshal(inner{uid}); err != nil {
		return err
	}
	tx.After(func() { s.know(&live{c.Doc.ID, uid, p}) })
	return store.PutJSON(tx, nameTable, vaultKey(c.Doc.Name), named{ID: c.Doc.ID, UID: uid})
}

func (s *Service) saveChanged(tx *store.Tx, c resource.Change, p Properties) error {
	old, err := propsOf(c.Old)
	if err != nil {
		return err
	}
	if old.rbac() != p.rbac() && !s.mayAssign(c.Caller, c.Doc.ID) {
		return arm.Errorf(arm.LinkedForbidden, "The client with object id '%s' has permission to perform action '%s' on scope '%s'; however, it does not have permission to perform action '%s' on it, which changing properties.enableRbacAuthorization needs.",
			c.Caller.Object, s.kind.Write().Name(), c.Doc.ID, assignmentWrite.Name())
	}
	uid, err := uidOf(c.Doc)
	if err != nil {
		return err
	}
	tx.After(func() { s.know(&live{c.Doc.ID, uid, p}) })
	return nil
}

// moved keeps the vault's name, and with it its secrets, for its new id.
func (s *Service) moved(tx *store.Tx, from arm.ID, d *resource.Doc) error {
	p, err := propsOf(d)
	if err != nil {
		return err
	}
	uid, err := uidOf(d)
	if err != nil {
		return err
	}
	tx.After(func() {
		s.forget(from)
		s.know(&live{d.ID, uid, p})
	})
	return store.PutJSON(tx, nameTable, vaultKey(d.Name), named{ID: d.ID, UID: uid})
}

func (s *Service) mayAssign(c arm.Caller, id arm.ID) bool {
	return s.May != nil && c.Lease == nil && s.May(c, assignmentWrite, id)
}

func uidOf(d *resource.Doc) (string, error) {
	var in inner
	if err := json.Unmarshal(d.Inner, &in); err != nil || in.UID == "" {
		return "", fmt.Errorf("vault: the vault %s has no id of its own", d.ID)
	}
	return in.UID, nil
}

// lookup is who has the name. A deleted vault whose time is over has it no
// more; its remains are in n all the same, for whoever takes the name.
func (s *Service) lookup(tx *store.Tx, name string) (n named, taken bool, err error) {
	n, taken, err = store.GetJSON[named](tx, nameTable, vaultKey(name))
	if taken && n.Deleted != nil && !s.Now().Before(n.Deleted.Purge) {
		taken = false
	}
	return n, taken, err
}

// recover puts a deleted vault in the place of d.
func (s *Service) recover(tx *store.Tx, d *resource.Doc, n named, taken bool) error {
	if !taken || n.Deleted == nil || n.ID.Key() != d.ID.Key() {
		return &arm.Error{Code: "VaultNotFound", Status: http.StatusNotFound, Message: fmt.Sprintf("There is no deleted vault '%s' with the id %s to recover.", d.Name, d.ID)}
	}
	var was resource.Doc
	if err := json.Unmarshal(n.Deleted.Doc, &was); err != nil {
		return fmt.Errorf("reading the deleted vault %s: %w", n.ID, err)
	}
	p, err := propsOf(&was)
	if err != nil {
		return err
	}
	d.ID, d.Name, d.Location, d.Tags, d.Properties = was.ID, was.Name, was.Location, was.Tags, was.Properties
	if d.Inner, err = json.Marshal(inner{n.UID}); err != nil {
		return err
	}
	if n.Deleted.Instance != "" {
		d.Instance = n.Deleted.Instance // it is the one that was deleted, not another
	}
	tx.After(func() { s.know(&live{d.ID, n.UID, p}) })
	return store.PutJSON(tx, nameTable, vaultKey(d.Name), named{ID: d.ID, UID: n.UID})
}

// remove puts a vault in the bin, from where it can be recovered.
func (s *Service) remove(tx *store.Tx, d *resource.Doc) error {
	p, err := propsOf(d)
	if err != nil {
		return err
	}
	uid, err := uidOf(d)
	if err != nil {
		return err
	}
	doc, err := json.Marshal(d)
	if err != nil {
		return err
	}
	now := s.Now().UTC().Truncate(time.Second)
	bin := &deleted{Doc: doc, Instance: d.Instance, At: now, Purge: now.AddDate(0, 0, p.retention())}
	tx.After(func() { s.forget(d.ID) })
	return store.PutJSON(tx, nameTable, vaultKey(d.Name), named{ID: d.ID, UID: uid, Deleted: bin})
}

func (s *Service) show(d *resource.Doc, props map[string]any) {
	props["vaultUri"] = s.Site.VaultURL(d.Name)
	props["provisioningState"] = "Succeeded"
	delete(props, "createMode")
}
