package vault

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/cmk"
	"castellan/internal/gate"
	"castellan/internal/key"
	"castellan/internal/seal"
	"castellan/internal/store"
)

// class is one sort of thing that vaults keep. Its rows lie under UID/name, and
// UID/name/version; what is deleted lies in a table of its own, its versions
// stay where they are.
type class struct {
	noun                 string     // as Key Vault's errors call it
	path                 string     // the first segment of its URL, behind "deleted" in the bin
	names, bin, versions string     // tables
	see                  arm.Action // to list it and see all but what is secret of it
	del, restore, purge  arm.Action // to put it in the bin, take it out, end it for good
	backup, unpack       arm.Action // to take a sealed copy, and put one into a vault
	with                 []*class   // what goes with each thing of it, under its name and versions
}

var (
	secrets = &class{"Secret", "secrets", "vault_secrets", "vault_deleted_secrets", "vault_secret_versions", SecretMetadata, SecretDelete, SecretRecover, SecretPurge, SecretBackup, SecretRestore, nil}
	keys    = &class{"Key", "keys", "vault_key_names", "vault_deleted_keys", "vault_key_versions", KeyRead, KeyDelete, KeyRecover, KeyPurge, KeyBackup, KeyRestore, nil}

	// The value of a certificate is itself, in DER. Its key and its secret, which
	// has both, are managed: they change with it alone.
	certificates = &class{"Certificate", "certificates", "vault_certificate_names", "vault_deleted_certificates", "vault_certificate_versions", CertificateRead, CertificateDelete, CertificateRecover, CertificatePurge, CertificateBackup, CertificateRestore, []*class{keys, secrets}}
)

// classes are all there are.
var classes = []*class{secrets, keys, certificates}

// parts are the class and what goes with it.
func (c *class) parts() []*class { return append([]*class{c}, c.with...) }

// Limits of a secret.
const (
	maxValue       = 25 << 10 // bytes
	maxContentType = 255      // characters
	maxTags        = 15
	maxTag         = 256 // characters of a tag's name or value
)

// Object is one version of something that a vault keeps.
type Object struct {
	Name, Version  string
	Value          arm.Secret // a secret's; zero where only metadata was asked for
	ContentType    string
	Tags           map[string]string
	Attributes     Attributes
	Key            *Key      // of a key, what is public of it
	Deleted, Purge time.Time // of what is in the bin: since when, and until when
	Managed        bool      // it is a certificate's
	Thumbprint     key.Bytes // of a certificate, by SHA-1
	Policy         *Policy   // of a certificate
	Pending        bool      // of a certificate: it was asked for here
}

// Attributes say when a version may be read.
type Attributes struct {
	Enabled   bool       `json:"enabled"`
	NotBefore *time.Time `json:"nbf,omitempty"`
	Expires   *time.Time `json:"exp,omitempty"`
	Created   time.Time  `json:"created"`
	Updated   time.Time  `json:"updated"`
}

// nameRow is what has a name: the name as it was first spelt and its newest version.
type nameRow struct {
	Name     string     `json:"name"`
	Current  string     `json:"current"`
	Deleted  *time.Time `json:"deleted,omitempty"`
	Purge    *time.Time `json:"purge,omitempty"`
	Rotation *Rotation  `json:"rotation,omitempty"` // a key's
	Managed  bool       `json:"managed,omitempty"`  // it is a certificate's
	Policy   *Policy    `json:"policy,omitempty"`   // a certificate's
	Pending  *pending   `json:"pending,omitempty"`  // how the last making of a certificate goes or went
}

// versionRow is one version, its value sealed for the place where it lies.
type versionRow struct {
	Version     string            `json:"version"`
	Sealed      []byte            `json:"sealed"`
	ContentType string            `json:"contentType,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	Attributes  Attributes        `json:"attributes"`
	Key         *Key              `json:"key,omitempty"`
	Thumbprint  key.Bytes         `json:"x5t,omitempty"`
	Kept        bool              `json:"kept,omitempty"` // a certificate's key that may not leave
}

func nameKey(uid, name string) string { return uid + "/" + strings.ToLower(name) }

func versionKey(uid, name, version string) string {
	return nameKey(uid, name) + "/" + strings.ToLower(version)
}

// context names the place where a version's value lies.
func (c *class) context(uid, name, version string) string {
	return strings.ToLower(c.noun) + " " + versionKey(uid, name, version)
}

func (v versionRow) object(n nameRow) Object {
	out := Object{Name: n.Name, Version: v.Version, ContentType: v.ContentType, Tags: v.Tags, Attributes: v.Attributes, Key: v.Key, Managed: n.Managed, Thumbprint: v.Thumbprint, Policy: n.Policy, Pending: n.Pending != nil}
	if n.Deleted != nil {
		out.Deleted, out.Purge = *n.Deleted, *n.Purge
	}
	return out
}

// open is the version's value: a secret, or what is private of a key.
func (c *class) open(k seal.Key, uid, name string, v versionRow) (arm.Secret, error) {
	plain, err := k.Open(v.Sealed, c.context(uid, name, v.Version))
	if err != nil {
		return arm.Secret{}, fmt.Errorf("opening version %s of %s %s in vault %s: %w", v.Version, c.noun, name, uid, err)
	}
	return arm.NewSecret(plain), nil
}

// usable says whether op may be done with the version now.
func (c *class) usable(v versionRow, op string, now time.Time) error {
	a, thing := v.Attributes, strings.ToLower(c.noun)
	switch {
	case !a.Enabled:
		return shut(c.noun+"Disabled", "Operation %s is not allowed on a disabled %s.", op, thing)
	case a.NotBefore != nil && now.Before(*a.NotBefore):
		return shut(c.noun+"NotYetValid", "Operation %s is not allowed on a %s before its nbf, %s.", op, thing, a.NotBefore.Format(time.RFC3339))
	case a.Expires != nil && !now.Before(*a.Expires):
		return shut(c.noun+"Expired", "Operation %s is not allowed on a %s after its exp, %s.", op, thing, a.Expires.Format(time.RFC3339))
	}
	return nil
}

// fault is an error of the data plane with the inner code that Key Vault shows.
type fault struct {
	inner string
	err   *arm.Error
}

func (f *fault) Error() string { return f.err.Error() }

// Unwrap is the error without its inner code.
func (f *fault) Unwrap() error { return f.err }

func shut(inner, format string, args ...any) error {
	return &fault{inner, &arm.Error{Code: "Forbidden", Status: http.StatusForbidden, Message: fmt.Sprintf(format, args...)}}
}

// own is an error if what has the name is a certificate's, and so not to be
// changed by itself.
func (c *class) own(row nameRow, op string) error {
	if !row.Managed {
		return nil
	}
	return shut(c.noun+"ManagedByKeyVault", "Operation %s is not allowed on this %s, since it belongs to the certificate %s.", op, strings.ToLower(c.noun), row.Name)
}

func (c *class) missing(name string) error {
	return &arm.Error{Code: arm.Code(c.noun + "NotFound"), Status: http.StatusNotFound, Message: fmt.Sprintf("A %[1]s with (name/id) %[2]s was not found in this key vault. If you recently deleted this %[1]s you may be able to recover it.", strings.ToLower(c.noun), name)}
}

func bad(format string, args ...any) error { return arm.Errorf("BadParameter", format, args...) }

var (
	nameOf      = regexp.MustCompile(`^[0-9A-Za-z-]{1,127}$`)
	versionForm = regexp.MustCompile(`^[0-9A-Fa-f]{32}$`)
)

// within is what a Grant for one thing of the class in a vault must be for.
func (c *class) within(vault arm.ID, name string) (gate.Target, error) {
	if !nameOf.MatchString(name) {
		return gate.Target{}, bad("the %s name %q is invalid; it must be 1 to 127 letters, digits and hyphens", strings.ToLower(c.noun), name)
	}
	return gate.Target{ID: vault.Child(c.path, name), Item: name}, nil
}

// of is the vault and the name in it that the Grant is for.
func (s *Service) of(g gate.Grant, a arm.Action) (*live, string, error) {
	v, err := s.target(g, a)
	if err != nil {
		return nil, "", err
	}
	id, err := g.On(a)
	if err != nil {
		return nil, "", err
	}
	if id.Key() == v.ID.Key() || !nameOf.MatchString(id.Name()) {
		return nil, "", bad("the request names nothing in the vault")
	}
	return v, id.Name(), nil
}

// current is what is there of a name and its version, the newest if version is "".
func (c *class) current(tx *store.Tx, uid, name, version string) (nameRow, versionRow, error) {
	row, ok, err := store.GetJSON[nameRow](tx, c.names, nameKey(uid, name))
	if err != nil {
		return row, versionRow{}, err
	}
	if !ok {
		return row, versionRow{}, c.missing(name)
	}
	if version == "" {
		version = row.Current
	}
	if row.Current == "" { // a certificate that is yet to be made
		return row, versionRow{}, c.missing(name)
	}
	if !versionForm.MatchString(version) {
		return row, versionRow{}, bad("the version %q is invalid; it must be 32 hexadecimal digits", version)
	}
	v, ok, err := store.GetJSON[versionRow](tx, c.versions, versionKey(uid, name, version))
	if err == nil && !ok {
		err = c.missing(name + "/" + version)
	}
	return row, v, err
}

// binned is what can still be recovered. Once its time is over ok is false.
func (s *Service) binned(tx *store.Tx, c *class, uid, name string) (row nameRow, ok bool, err error) {
	row, ok, err = store.GetJSON[nameRow](tx, c.bin, nameKey(uid, name))
	return row, ok && !s.over(row), err
}

func (s *Service) over(row nameRow) bool { return row.Purge != nil && !s.Now().Before(*row.Purge) }

// erase forgets what is in the bin under the name, with all its versions.
func (c *class) erase(tx *store.Tx, uid, name string) error {
	rows, err := tx.Scan(c.versions, nameKey(uid, name)+"/", "", 0)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if err := tx.Delete(c.versions, r.Key); err != nil {
			return err
		}
	}
	return tx.Delete(c.bin, nameKey(uid, name))
}

// end erases what is in the bin under the name for good, and notes which keys are
// destroyed by that.
func (s *Service) end(tx *store.Tx, c *class, uid, name string) error {
	if c != keys {
		return c.erase(tx, uid, name)
	}
	rows, err := store.ScanJSON[versionRow](tx, keys.versions, nameKey(uid, name)+"/", "", 0)
	if err != nil {
		return err
	}
	vault, ok := s.idOf(uid)
	if !ok {
		return fmt.Errorf("vault: nobody has the vault %s", uid)
	}
	for _, r := range rows {
		if err := cmk.DestroyVersion(tx, vault.Child(c.path, name), name, r.Version, r.Sealed, r.Attributes.Created, s.Now()); err != nil {
			return err
		}
	}
	return c.erase(tx, uid, name)
}

// sweepBins erases what is in a vault's bins and whose time is over.
func (s *Service) sweepBins(tx *store.Tx, uid string) error {
	for _, c := range classes {
		rows, err := store.ScanJSON[nameRow](tx, c.bin, uid+"/", "", 0)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if s.over(r) {
				if err := s.end(tx, c, uid, r.Name); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// checkMeta holds what a client says about a thing against the limits.
func checkMeta(contentType string, tags map[string]string, a Attributes) error {
	if len(contentType) > maxContentType {
		return bad("contentType has %d characters; at most %d are allowed", len(contentType), maxContentType)
	}
	if len(tags) > maxTags {
		return bad("there are %d tags; at most %d are allowed", len(tags), maxTags)
	}
	for k, v := range tags {
		if len(k) > maxTag || len(v) > maxTag {
			return bad("a tag's name or value is longer than %d characters", maxTag)
		}
	}
	if a.NotBefore != nil && a.Expires != nil && !a.NotBefore.Before(*a.Expires) {
		return bad("attributes.nbf is not before attributes.exp")
	}
	return nil
}
