package vault

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// Contacts and issuers of a vault lie under its own id, and go with it.
const (
	contactTable = "vault_contacts"
	issuerTable  = "vault_issuers"
)

// Limits of contacts and issuers.
const (
	maxContacts = 100
	maxIssuers  = 25 // one page of a list
)

// Contact is somebody whom a vault's certificates concern.
type Contact struct {
	Email string `json:"email"`
	Name  string `json:"name,omitempty"`
	Phone string `json:"phone,omitempty"`
}

// Issuer is a certificate authority elsewhere, as a vault knows it. Nothing here
// reaches one, so the password for it is not kept.
type Issuer struct {
	Name     string
	Provider string
	Account  string
	Org      Organization
	Disabled bool
	Created  int64 // seconds since 1970
	Updated  int64
}

// Organization is who is known to an issuer.
type Organization struct {
	ID     string          `json:"id,omitempty"`
	Admins []Administrator `json:"admin_details,omitempty"`
}

// Administrator is who may be asked at an organization.
type Administrator struct {
	First string `json:"first_name,omitempty"`
	Last  string `json:"last_name,omitempty"`
	Email string `json:"email,omitempty"`
	Phone string `json:"phone,omitempty"`
}

// mayIssue is an error unless certificates of the issuer can be made here.
func (s *Service) mayIssue(tx *store.Tx, v *live, name string) error {
	if name == issuerSelf || name == issuerUnknown {
		return nil
	}
	row, ok, err := store.GetJSON[Issuer](tx, issuerTable, nameKey(v.UID, name))
	switch {
	case err != nil:
		return err
	case !ok:
		return bad("policy.issuer.name is %q, and the vault has no such issuer; it may be Self, Unknown or the name of one", name)
	}
	return bad("the issuer %s is of the provider %s, which can't be reached from this installation; let the issuer be Unknown, have the request signed and merge the certificate", name, row.Provider)
}

// Contacts are those of the vault that the Grant is for.
func (s *Service) Contacts(ctx context.Context, g gate.Grant) (out []Contact, err error) {
	v, err := s.target(g, ContactsWrite)
	if err != nil {
		return nil, err
	}
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		out, err = contactsOf(tx, v.UID)
		return err
	})
	return out, err
}

func contactsOf(tx *store.Tx, uid string) ([]Contact, error) {
	out, ok, err := store.GetJSON[[]Contact](tx, contactTable, uid+"/")
	if err == nil && !ok {
		err = &arm.Error{Code: "ContactsNotFound", Status: http.StatusNotFound, Message: "There are no contacts of this vault's certificates."}
	}
	return out, err
}

// SetContacts puts contacts in the place of those that the vault had.
func (s *Service) SetContacts(ctx context.Context, g gate.Grant, list []Contact) error {
	v, err := s.target(g, ContactsWrite)
	if err != nil {
		return err
	}
	if len(list) == 0 || len(list) > maxContacts {
		return bad("contacts has %d entries; it must have 1 to %d", len(list), maxContacts)
	}
	for i, c := range list {
		if !strings.Contains(c.Email, "@") || len(c.Email)+len(c.Name)+len(c.Phone) > 1024 {
			return bad("contacts[%d] must have an email, and be shorter than 1024 bytes", i)
		}
	}
	return g.Change(ctx, s.DB, func(tx *store.Tx) error {
		if err := s.alive(tx, v); err != nil {
			return err
		}
		return store.PutJSON(tx, contactTable, v.UID+"/", list)
	})
}

// DeleteContacts forgets the contacts; the answer is what they were.
func (s *Service) DeleteContacts(ctx context.Context, g gate.Grant) (out []Contact, err error) {
	v, err := s.target(g, ContactsWrite)
	if err != nil {
		return nil, err
	}
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		if out, err = contactsOf(tx, v.UID); err != nil {
			return err
		}
		return tx.Delete(contactTable, v.UID+"/")
	})
	return out, err
}

// Issuers are all that the vault has.
func (s *Service) Issuers(ctx context.Context, g gate.Grant) (out []Issuer, err error) {
	v, err := s.target(g, IssuerRead)
	if err != nil {
		return nil, err
	}
	if id, err := g.On(IssuerRead); err != nil || id.Key() != v.ID.Key() {
		return nil, arm.Errorf(arm.Forbidden, "the grant is for one issuer, not for the vault %s", v.ID.Name())
	}
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		rows, err := store.ScanJSON[Issuer](tx, issuerTable, v.UID+"/", "", 0)
		out = rows
		return err
	})
	return out, err
}

// GetIssuer is the issuer that the Grant is for, without its password.
func (s *Service) GetIssuer(ctx context.Context, g gate.Grant) (out Issuer, err error) {
	v, name, err := s.of(g, IssuerRead)
	if err != nil {
		return out, err
	}
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		out, err = issuerOf(tx, v.UID, name)
		return err
	})
	return out, err
}

func issuerOf(tx *store.Tx, uid, name string) (Issuer, error) {
	row, ok, err := store.GetJSON[Issuer](tx, issuerTable, nameKey(uid, name))
	if err == nil && !ok {
		err = &arm.Error{Code: "CertificateIssuerNotFound", Status: http.StatusNotFound, Message: fmt.Sprintf("The vault has no issuer %s.", name)}
	}
	return row, err
}

// SetIssuer changes the issuer that the Grant is for, and makes one that is not
// there if fresh is set.
func (s *Service) SetIssuer(ctx context.Context, g gate.Grant, fresh bool, change func(*Issuer)) (out Issuer, err error) {
	v, name, err := s.of(g, IssuerWrite)
	if err != nil {
		return out, err
	}
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		if err := s.alive(tx, v); err != nil {
			return err
		}
		row, err := issuerOf(tx, v.UID, name)
		now := s.Now().Unix()
		if fresh {
			if err := s.roomForIssuer(tx, v.UID, name); err != nil {
				return err
			}
			row = Issuer{Name: name, Created: now}
		} else if err != nil {
			return err
		}
		row.Updated = now
		change(&row)
		if row.Provider == "" || len(row.Provider) > maxTag {
			return bad("provider is missing or longer than %d characters", maxTag)
		}
		out = row
		return store.PutJSON(tx, issuerTable, nameKey(v.UID, name), row)
	})
	return out, err
}

func (s *Service) roomForIssuer(tx *store.Tx, uid, name string) error {
	if strings.EqualFold(name, issuerSelf) || strings.EqualFold(name, issuerUnknown) {
		return bad("no issuer can be named %s, which every vault has", name)
	}
	rows, err := tx.Scan(issuerTable, uid+"/", "", maxIssuers)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if r.Key == nameKey(uid, name) {
			return nil
		}
	}
	if len(rows) == maxIssuers {
		return bad("the vault has %d issuers already, as many as are allowed", maxIssuers)
	}
	return nil
}

// DeleteIssuer forgets the issuer that the Grant is for; the answer is what it was.
func (s *Service) DeleteIssuer(ctx context.Context, g gate.Grant) (out Issuer, err error) {
	v, name, err := s.of(g, IssuerDelete)
	if err != nil {
		return out, err
	}
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		if out, err = issuerOf(tx, v.UID, name); err != nil {
			return err
		}
		return tx.Delete(issuerTable, nameKey(v.UID, name))
	})
	return out, err
}
