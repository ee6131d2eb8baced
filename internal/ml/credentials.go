package ml

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

const (
	credNone        = "None"
	credKey         = "AccountKey"
	credSAS         = "Sas"
	credPrincipal   = "ServicePrincipal"
	credCertificate = "Certificate"
)

// credentialTypes are by what each type of datastore is reached, as Azure's
// clients offer it. None is the reader's identity, as Microsoft Entra knows it, which
// Azure takes for no share.
var credentialTypes = map[string][]string{
	azureBlob: {credNone, credKey, credSAS, credPrincipal, credCertificate},
	azureGen2: {credNone, credKey, credSAS, credPrincipal, credCertificate},
	azureFile: {credKey, credSAS},
}

// credentials are by what a datastore is reached. Secrets come in here, and
// leave for the workspace's vault before anything is kept.
type credentials struct {
	Type       string   `json:"credentialsType" arm:"only=None|AccountKey|Sas|ServicePrincipal|Certificate"`
	Authority  string   `json:"authorityUrl,omitempty"`
	Resource   string   `json:"resourceUrl,omitempty"`
	Tenant     string   `json:"tenantId,omitempty"`
	Client     string   `json:"clientId,omitempty"`
	Thumbprint string   `json:"thumbprint,omitempty"`
	Secrets    *secrets `json:"secrets,omitempty"`
}

// secrets are what opens a datastore, as the wire and the vault have it.
type secrets struct {
	Type         string `json:"secretsType,omitempty" arm:"only=AccountKey|Sas|ServicePrincipal|Certificate"`
	Key          string `json:"key,omitempty"`
	SAS          string `json:"sasToken,omitempty"`
	ClientSecret string `json:"clientSecret,omitempty"`
	Certificate  string `json:"certificate,omitempty"` // in PEM, with its private key; perhaps in base64
}

// pem is the certificate's PEM text.
func (x secrets) pem() []byte {
	if b, err := base64.StdEncoding.DecodeString(x.Certificate); err == nil {
		return b
	}
	return []byte(x.Certificate)
}

// same says whether two descriptions of a datastore are opened by the same secret.
func (p datastoreProps) same(q datastoreProps) bool {
	a, b := p.Credentials, q.Credentials
	return strings.EqualFold(p.Account, q.Account) && p.Type == q.Type && p.place() == q.place() && strings.EqualFold(a.Type, b.Type) &&
		strings.EqualFold(a.Tenant, b.Tenant) && strings.EqualFold(a.Client, b.Client) && strings.EqualFold(a.Thumbprint, b.Thumbprint)
}

// credential is what a change sends to open the datastore with: nil if it
// keeps what is kept, or needs nothing.
func (s *Service) credential(c resource.Change, p datastoreProps) (sent *secrets, kept bool, err error) {
	bad := func(format string, args ...any) (*secrets, bool, error) {
		return nil, false, arm.Errorf(arm.BadRequest, format, args...)
	}
	x := p.Credentials
	x.Type = spelt(x.Type, credentialTypes[p.Type]...)
	if x.Type == "" {
		return nil, false, arm.Errorf(arm.Unsupported, "credentials.credentialsType is %q; a datastore of type %s has one of %s", p.Credentials.Type, p.Type, strings.Join(credentialTypes[p.Type], ", "))
	}
	if x.Type == credPrincipal || x.Type == credCertificate {
		if err := s.ofThisTenant(c.Doc.ID, x); err != nil {
			return nil, false, err
		}
	}
	if x.Type == credNone {
		return nil, false, nil
	}
	if c.Old != nil && x.Secrets == nil {
		was, err := props[datastoreProps](c.Old)
		if err != nil || was.same(p) {
			return nil, true, err
		}
	}
	in := secrets{}
	if x.Secrets != nil {
		in = *x.Secrets
	}
	out := secrets{Type: x.Type}
	switch x.Type {
	case credKey:
		if b, err := base64.StdEncoding.DecodeString(in.Key); err != nil || len(b) == 0 {
			return bad("credentials.secrets.key must be the account's key, in base64")
		}
		out.Key = in.Key
	case credSAS:
		out.SAS = strings.TrimPrefix(in.SAS, "?")
		if q, err := url.ParseQuery(out.SAS); err != nil || q.Get("sig") == "" {
			return bad("credentials.secrets.sasToken must be a shared access signature, with a sig")
		}
	case credPrincipal:
		if out.ClientSecret = in.ClientSecret; out.ClientSecret == "" {
			return bad("credentials.secrets.clientSecret must be a secret of the application credentials.clientId")
		}
	case credCertificate:
		if out.Certificate = in.Certificate; !strings.Contains(string(in.pem()), "-----BEGIN") {
			return bad("credentials.secrets.certificate must be a certificate of the application with its private key, in PEM, perhaps in base64")
		}
	}
	return &out, false, nil
}

// ofThisTenant wants a service principal of the tenant whose workspace it is.
func (s *Service) ofThisTenant(id arm.ID, x credentials) error {
	host := func(text string) string {
		u, err := url.Parse(text)
		if err != nil {
			return ""
		}
		return u.Scheme + "://" + u.Host
	}
	switch own := s.Site.TenantOf(id); {
	case x.Client == "" || x.Tenant == "":
		return arm.Errorf(arm.BadRequest, "credentials of type %s need tenantId and clientId", x.Type)
	case !strings.EqualFold(x.Tenant, own):
		return arm.Errorf(arm.BadRequest, "credentials.tenantId is %q; a workspace reads storage of its own tenant alone, which is %s", x.Tenant, own)
	case x.Authority != "" && host(x.Authority) != s.Site.Base():
		return arm.Errorf(arm.BadRequest, "credentials.authorityUrl is %q; the authority here is %s", x.Authority, s.Site.Base())
	case x.Resource != "" && !slices.Contains(s.Site.StorageAudiences(), strings.TrimRight(x.Resource, "/")):
		return arm.Errorf(arm.BadRequest, "credentials.resourceUrl is %q; it can be %s", x.Resource, strings.Join(s.Site.StorageAudiences(), ", "))
	}
	return nil
}

// seenDatastore is what tryDatastore did and saw.
type seenDatastore struct {
	secret secretRef // what was sent, in the vault
	proven bool      // the credentials open the datastore
}

// tryDatastore opens a new datastore's container with the credentials that it
// was given, and puts them into the workspace's vault; a client may have
// some that do not open kept all the same. Without credentials it is the
// reader's identity that must open it, and that is not known yet. If the change
// comes to nothing after that, the vault has a version that nothing names.
func (s *Service) tryDatastore(ctx context.Context, c resource.Change) (any, error) {
	p, err := props[datastoreProps](c.Doc)
	if err != nil {
		return nil, err
	}
	var l location
	if err := s.DB.View(ctx, func(tx *store.Tx) (err error) {
		l, err = described(tx, c.Doc, p)
		return err
	}); err != nil {
		return nil, err
	}
	w, err := s.load(ctx, c.Doc.ID.Parent())
	if err != nil {
		return nil, err
	}
	sent, kept, err := s.credential(c, p)
	if err != nil {
		return nil, err
	}
	var seen seenDatastore
	if sent != nil || kept || p.asWorkspace() {
		err := s.tryOpen(ctx, w, l, sent)
		if seen.proven = err == nil; err != nil && !strings.EqualFold(c.Query.Get("skipValidation"), "true") {
			_, message := gate.PublicError(err)
			return nil, arm.Errorf("InvalidDatastore", "%s %s of %s does not open with the credentials given: %s (skipValidation=true keeps the datastore all the same)", placeFields[p.Type], p.place(), p.Account, message)
		}
	}
	if sent != nil {
		seen.secret, err = s.keepSecret(ctx, w, c.Doc, l.in.Secret.Name, *sent)
	}
	return seen, err
}

// asWorkspace reports whether the platform itself reads the datastore as the workspace.
func (p datastoreProps) asWorkspace() bool {
	return strings.EqualFold(p.Credentials.Type, credNone) && p.ServiceData != "" && !strings.EqualFold(p.ServiceData, credNone)
}

// tryOpen opens a datastore, by what was sent if that is not nil.
func (s *Service) tryOpen(ctx context.Context, w workspace, l location, sent *secrets) error {
	by, err := Access{As: w.self()}, error(nil)
	switch {
	case sent != nil:
		by, err = s.opening(ctx, l, *sent)
	case l.creds.Type != credNone:
		by, _, err = s.access(ctx, w, l, arm.Caller{})
	}
	if err != nil {
		return err
	}
	if by.As.IsZero() {
		by.As = s.system("trying the datastore "+l.name, l.account)
	}
	_, err = s.Blobs.List(ctx, by, l.account, l.container, "\x7f", 1)
	return err
}

// opening is what secrets open a datastore as.
func (s *Service) opening(ctx context.Context, l location, x secrets) (Access, error) {
	switch l.creds.Type {
	case credKey:
		return Access{Key: arm.NewSecret([]byte(x.Key)), Files: l.files}, nil
	case credSAS:
		return Access{SAS: arm.NewSecret([]byte(x.SAS)), Files: l.files}, nil
	case credPrincipal:
		as, err := s.Applications.Prove(ctx, l.creds.Tenant, l.creds.Client, arm.NewSecret([]byte(x.ClientSecret)), arm.Secret{})
		return Access{As: as}, err
	case credCertificate:
		as, err := s.Applications.Prove(ctx, l.creds.Tenant, l.creds.Client, arm.Secret{}, arm.NewSecret(x.pem()))
		return Access{As: as}, err
	}
	return Access{}, arm.Errorf(arm.Forbidden, "the datastore %s keeps no credentials", l.name)
}

// secretRef is where a secret lies in the workspace's vault.
type secretRef struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// keepSecret puts a datastore's secret into the workspace's vault, as the
// workspace, under the name that it has there. A new name is of this one datastore:
// another that is called like it, later, finds nothing of it.
func (s *Service) keepSecret(ctx context.Context, w workspace, d *resource.Doc, name string, x secrets) (at secretRef, err error) {
	value, err := json.Marshal(x)
	if err != nil {
		return at, err
	}
	if at.Name = name; name == "" {
		at.Name = "datastore-" + arm.NewHex()
	}
	at.Version, err = s.Vaults.Keep(ctx, w.self(), w.KeyVault.ID, VaultSecret{
		Name: at.Name, Value: arm.NewSecret(value), Type: "application/json", Tags: map[string]string{"workspace": w.Name, "datastore": d.Name},
	})
	return at, unreachable(err, w, d.Name)
}

// kept is a datastore's secret, read from the workspace's vault as the workspace.
func (s *Service) kept(ctx context.Context, w workspace, d *resource.Doc, in datastoreInner) (x secrets, err error) {
	if in.Secret.Name == "" {
		return x, arm.Errorf(arm.BadRequest, "the datastore %s keeps no secret; register it anew", d.Name)
	}
	value, err := s.Vaults.Kept(ctx, w.self(), w.KeyVault.ID, in.Secret.Name, in.Secret.Version)
	if err != nil {
		return x, unreachable(err, w, d.Name)
	}
	return x, json.Unmarshal(value.Reveal(), &x)
}

// unreachable says that a workspace can't get at what its vault keeps.
func unreachable(err error, w workspace, datastore string) error {
	if err == nil || arm.CodeOf(err) == arm.Internal {
		return err
	}
	_, message := gate.PublicError(err)
	if arm.CodeOf(err) == "SecretNotFound" {
		return arm.Errorf(secretMissing, "The secret of the datastore %s is not in the vault %s any more: %s", datastore, w.KeyVault, message)
	}
	return arm.Errorf(secretUnavailable, "The workspace's identity can't reach the secret of the datastore %s in the vault %s: %s", datastore, w.KeyVault, message)
}

// The ways in which a datastore is cut off from its secret.
const (
	secretMissing     arm.Code = "DatastoreSecretMissing"
	secretUnavailable arm.Code = "DatastoreSecretUnavailable"
)

// saveDatastore notes where the secrets went, and drops them.
func (s *Service) saveDatastore(tx *store.Tx, c resource.Change) error {
	p, err := props[datastoreProps](c.Doc)
	if err != nil {
		return err
	}
	l, err := described(tx, c.Doc, p)
	if err != nil {
		return err
	}
	seen, _ := c.Seen.(seenDatastore)
	sent, kept, err := s.credential(c, p)
	if err != nil {
		return err
	}
	var old datastoreInner
	if c.Old != nil {
		if old, err = inner[datastoreInner](c.Old); err != nil {
			return err
		}
	}
	in := datastoreInner{Account: l.account, Proven: seen.proven, Default: old.Default}
	switch {
	case kept:
		in.Secret = old.Secret
	case sent != nil && seen.secret.Name == "":
		return arm.Errorf(arm.Conflict, "the datastore %s was changed meanwhile; send the change again", c.Doc.Name)
	default:
		in.Secret = seen.secret
	}
	if in.Secret.Name == "" {
		in.Stale = old.Secret
	}
	p.Credentials.Secrets, p.Credentials.Type = nil, l.creds.Type
	if c.Doc.Properties, err = json.Marshal(p); err != nil {
		return err
	}
	return setInner(c.Doc, in)
}

// tidyDatastore deletes from the vault what opened a datastore that is gone, or
// that is opened otherwise now. After a crash it stays there, and nothing names it.
func (s *Service) tidyDatastore(d *resource.Doc) {
	in, err := inner[datastoreInner](d)
	if err != nil {
		return
	}
	at := in.Stale
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	defer stop()
	if at.Name == "" {
		if at = in.Secret; at.Name == "" {
			return
		}
		var now *resource.Doc
		if err := s.DB.View(ctx, func(tx *store.Tx) (err error) {
			now, err = resource.Load(tx, d.ID)
			return err
		}); err != nil || now != nil && now.Instance == d.Instance {
			return
		}
	}
	w, err := s.load(ctx, d.ID.Parent())
	if err == nil {
		err = s.Vaults.Discard(ctx, w.self(), w.KeyVault.ID, at.Name)
	}
	if err != nil {
		s.Log.Warn("the secret of a datastore stays in the vault", "datastore", d.ID.String(), "error", err)
	}
}
