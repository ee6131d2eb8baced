package vault

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/seal"
	"castellan/internal/store"
)

// What vaults keep lies under UID/name, and UID/name/version; deleted secrets
// lie in a table of their own, their versions stay where they are.
const (
	secretTable  = "vault_secrets"
	deletedTable = "vault_deleted_secrets"
	versionTable = "vault_secret_versions"
)

// Limits of a secret.
const (
	maxValue       = 25 << 10 // bytes
	maxContentType = 255      // characters
	maxTags        = 15
	maxTag         = 256 // characters of a tag's name or value
)

// Secret is one version of a secret.
type Secret struct {
	Name, Version string
	Value         arm.Secret // zero where only metadata was asked for
	ContentType   string
	Tags          map[string]string
	Attributes    Attributes
}

// Attributes say when a version may be read.
type Attributes struct {
	Enabled   bool       `json:"enabled"`
	NotBefore *time.Time `json:"nbf,omitempty"`
	Expires   *time.Time `json:"exp,omitempty"`
	Created   time.Time  `json:"created"`
	Updated   time.Time  `json:"updated"`
}

// secretRow is a secret: its name as it was first spelt and its newest version.
type secretRow struct {
	Name    string     `json:"name"`
	Current string     `json:"current"`
	Deleted *time.Time `json:"deleted,omitempty"`
	Purge   *time.Time `json:"purge,omitempty"`
}

// versionRow is one version, its value sealed for the place where it lies.
type versionRow struct {
	Version     string            `json:"version"`
	Sealed      []byte            `json:"sealed"`
	ContentType string            `json:"contentType,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	Attributes  Attributes        `json:"attributes"`
}

func secretKey(uid, name string) string { return uid + "/" + strings.ToLower(name) }

func versionKey(uid, name, version string) string {
	return secretKey(uid, name) + "/" + strings.ToLower(version)
}

func (v versionRow) secret(name string) Secret {
	return Secret{Name: name, Version: v.Version, ContentType: v.ContentType, Tags: v.Tags, Attributes: v.Attributes}
}

// open is the version with its value.
func (v versionRow) open(k seal.Key, uid, name string) (Secret, error) {
	plain, err := k.Open(v.Sealed, "secret "+versionKey(uid, name, v.Version))
	if err != nil {
		return Secret{}, fmt.Errorf("opening version %s of secret %s in vault %s: %w", v.Version, name, uid, err)
	}
	out := v.secret(name)
	out.Value = arm.NewSecret(plain)
	return out, nil
}

// usable says whether the version may be read now.
func (v versionRow) usable(now time.Time) error {
	a := v.Attributes
	switch {
	case !a.Enabled:
		return shut("SecretDisabled", "Operation get is not allowed on a disabled secret.")
	case a.NotBefore != nil && now.Before(*a.NotBefore):
		return shut("SecretNotYetValid", "Operation get is not allowed on a secret before its nbf, %s.", a.NotBefore.Format(time.RFC3339))
	case a.Expires != nil && !now.Before(*a.Expires):
		return shut("SecretExpired", "Operation get is not allowed on a secret after its exp, %s.", a.Expires.Format(time.RFC3339))
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

func noSecret(name string) error {
	return &arm.Error{Code: "SecretNotFound", Status: http.StatusNotFound, Message: fmt.Sprintf("A secret with (name/id) %s was not found in this key vault. If you recently deleted this secret you may be able to recover it.", name)}
}

func bad(format string, args ...any) error { return arm.Errorf("BadParameter", format, args...) }

var (
	secretForm  = regexp.MustCompile(`^[0-9A-Za-z-]{1,127}$`)
	versionForm = regexp.MustCompile(`^[0-9A-Fa-f]{32}$`)
)

// SecretTarget is what a Grant for one secret of a vault must be for.
func SecretTarget(vault arm.ID, name string) (gate.Target, error) {
	if !secretForm.MatchString(name) {
		return gate.Target{}, bad("the secret name %q is invalid; it must be 1 to 127 letters, digits and hyphens", name)
	}
	return gate.Target{ID: vault.Child("secrets", name), Item: name}, nil
}

// of is the vault and the secret's name that the Grant is for.
func (s *Service) of(g gate.Grant, a arm.Action) (*live, string, error) {
	v, err := s.target(g, a)
	if err != nil {
		return nil, "", err
	}
	id, err := g.On(a)
	if err != nil {
		return nil, "", err
	}
	if id.Key() == v.ID.Key() || !secretForm.MatchString(id.Name()) {
		return nil, "", bad("the request names no secret")
	}
	return v, id.Name(), nil
}

// current is a secret that is there and its version, the newest if version is "".
func current(tx *store.Tx, uid, name, version string) (secretRow, versionRow, error) {
	row, ok, err := store.GetJSON[secretRow](tx, secretTable, secretKey(uid, name))
	if err != nil {
		return row, versionRow{}, err
	}
	if !ok {
		return row, versionRow{}, noSecret(name)
	}
	if version == "" {
		version = row.Current
	}
	if !versionForm.MatchString(version) {
		return row, versionRow{}, bad("the version %q is invalid; it must be 32 hexadecimal digits", version)
	}
	v, ok, err := store.GetJSON[versionRow](tx, versionTable, versionKey(uid, name, version))
	if err == nil && !ok {
		err = noSecret(name + "/" + version)
	}
	return row, v, err
}

// binned is a deleted secret that can still be recovered. Once its time is over
// ok is false.
func (s *Service) binned(tx *store.Tx, uid, name string) (row secretRow, ok bool, err error) {
	row, ok, err = store.GetJSON[secretRow](tx, deletedTable, secretKey(uid, name))
	return row, ok && !s.over(row), err
}

func (s *Service) over(row secretRow) bool { return row.Purge != nil && !s.Now().Before(*row.Purge) }

// eraseSecret forgets a deleted secret and all its versions.
func eraseSecret(tx *store.Tx, uid, name string) error {
	rows, err := tx.Scan(versionTable, secretKey(uid, name)+"/", "", 0)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if err := tx.Delete(versionTable, r.Key); err != nil {
			return err
		}
	}
	return tx.Delete(deletedTable, secretKey(uid, name))
}

// sweepSecrets erases the deleted secrets whose time is over.
func (s *Service) sweepSecrets(tx *store.Tx, uid string) error {
	rows, err := store.ScanJSON[secretRow](tx, deletedTable, uid+"/", "", 0)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if s.over(r) {
			if err := eraseSecret(tx, uid, r.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkMeta holds what a client says about a secret against the limits.
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
