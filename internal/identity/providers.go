package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"castellan/internal/arm"
	"castellan/internal/ldap"
	"castellan/internal/openid"
	"castellan/internal/store"
)

// Provider is somebody else's OpenID provider, at which people of the tenant
// sign in. Whom it vouches for is known by issuer and subject alone; the names
// that it tells are for show.
type Provider struct {
	ID, Tenant, Name, Issuer, ClientID, Scope string
	Secret                                    []byte   // the client secret, sealed
	Key                                       []byte   // or the private key of client assertions, sealed
	Domains                                   []string // whose people sign in there
	Claims                                    claimNames
	GroupsClaim                               string
	Groups                                    []groupRule
	TrustMFA                                  bool     // its word counts that somebody showed two factors
	MFAMethods, MFAClasses                    []string // and these are the words: values of amr and of acr
	Roots                                     string   // PEM; empty: whom the system trusts
	Create                                    bool     // people come to be when they first sign in
	Provisioned                               bool     // its subject is the externalId of people that SCIM made
	Disabled                                  bool
	Created                                   time.Time
}

// claimNames say in which claim each property of a person is.
type claimNames struct{ UPN, Name, Given, Surname, Mail string }

// groupRule makes those of the claim's value members of a group.
type groupRule struct{ Value, Group string }

func (p *Provider) place() (string, string, string) { return p.Tenant, "idp", p.ID }

func (p *Provider) unique() []string {
	out := []string{"issuer|" + p.Tenant + "|" + p.Issuer}
	for _, d := range p.Domains {
		out = append(out, "domain|"+d)
	}
	return out
}

// providers are those of a tenant at which one can sign in, by name.
func (x *index) providers(tenant string) []*Provider {
	out := find(x, func(x *index) (out []*Provider) {
		for _, p := range x.idps {
			if p.Tenant == tenant && !p.Disabled {
				out = append(out, p)
			}
		}
		return out
	})
	slices.SortFunc(out, func(a, b *Provider) int { return strings.Compare(a.Name+"|"+a.ID, b.Name+"|"+b.ID) })
	return out
}

func (x *index) provider(id string) *Provider {
	return find(x, func(x *index) *Provider { return x.idps[id] })
}

// realm is who signs in the people of a domain besides the directory itself: a
// *Provider, a *LDAP, or nil.
func (x *index) realm(domain string) entry {
	return find(x, func(x *index) entry { return x.realms[fold(domain)] })
}

// checkDomains folds domains that people of others will be known by. Those of
// the installation and of its tenants, and what lies below them, are the
// directory's own.
func (s *Service) checkDomains(domains []string) ([]string, error) {
	var out []string
	for _, d := range domains {
		d = fold(d)
		if !domainForm.MatchString(d) || len(d) > 253 {
			return nil, arm.Errorf(arm.BadRequest, "The domain %q is malformed; it must be like corp.example.", printable(d))
		}
		if own := find(s.index, func(x *index) bool {
			for name := range x.domains {
				if d == name || strings.HasSuffix(d, "."+name) || strings.HasSuffix(name, "."+d) {
					return true
				}
			}
			return false
		}); own || s.Site.Owns(d) {
			return nil, arm.Errorf(arm.BadRequest, "The domain %s is a directory's own; people of it sign in here.", d)
		}
		if !slices.Contains(out, d) {
			out = append(out, d)
		}
	}
	return out, nil
}

// sealing is where a secret of a federated thing lies.
func sealing(e entry, what string) string { return rowKey(e) + "|" + what }

// federation is what is made of providers and directories while the process runs.
type federation struct {
	mu      sync.Mutex // guards clients and ldaps
	clients map[*Provider]*openid.Provider
	ldaps   map[*LDAP]*ldap.Directory
}

func newFederation() *federation {
	return &federation{clients: map[*Provider]*openid.Provider{}, ldaps: map[*LDAP]*ldap.Directory{}}
}

// openidOf is the client of a provider. A changed provider is another key, so
// that what was read of the old one is not believed of the new.
func (s *Service) openidOf(p *Provider) (*openid.Provider, error) {
	s.fed.mu.Lock()
	defer s.fed.mu.Unlock()
	if o := s.fed.clients[p]; o != nil {
		return o, nil
	}
	cfg := openid.Config{Issuer: p.Issuer, ClientID: p.ClientID, Scopes: strings.Fields(p.Scope), Now: s.Now}
	key := s.Root.Derive("identity federation")
	if len(p.Secret) > 0 {
		b, err := key.Open(p.Secret, sealing(p, "secret"))
		if err != nil {
			return nil, err
		}
		cfg.Secret = arm.NewSecret(b)
	}
	if len(p.Key) > 0 {
		jwk, err := s.signingJWK(p)
		if err != nil {
			return nil, err
		}
		cfg.Key = jwk
	}
	var err error
	if cfg.Roots, err = pool(p.Roots); err != nil {
		return nil, err
	}
	o, err := openid.New(cfg)
	if err != nil {
		return nil, err
	}
	for old := range s.fed.clients {
		if old.ID == p.ID {
			delete(s.fed.clients, old)
		}
	}
	s.fed.clients[p] = o
	return o, nil
}

// signingJWK is the private key by which we prove ourselves to the provider.
func (s *Service) signingJWK(p *Provider) (*jose.JSONWebKey, error) {
	b, err := s.Root.Derive("identity federation").Open(p.Key, sealing(p, "key"))
	if err != nil {
		return nil, err
	}
	jwk := &jose.JSONWebKey{}
	return jwk, json.Unmarshal(b, jwk)
}

// newSigningKey makes the provider a key of its own.
func (s *Service) newSigningKey(p *Provider) error {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	b, err := json.Marshal(jose.JSONWebKey{Key: k, KeyID: arm.NewUUID(), Algorithm: string(jose.ES256), Use: "sig"})
	if err != nil {
		return err
	}
	p.Key, p.Secret = s.Root.Derive("identity federation").Seal(b, sealing(p, "key")), nil
	return nil
}

// pool is the certificates of a PEM text, or nil for none.
func pool(text string) (*x509.CertPool, error) {
	if text == "" {
		return nil, nil
	}
	out := x509.NewCertPool()
	if !out.AppendCertsFromPEM([]byte(text)) {
		return nil, errors.New("there is no certificate in it")
	}
	return out, nil
}

// tie says whom of the directory an outsider is: the one place where it is
// decided, keyed by issuer and subject and by nothing that either may choose.
type tie struct {
	ID, User, Issuer, Subject string
	By                        string // who bound them: an administrator's id, or what made the person
	At                        time.Time
}

const (
	linkTable  = "identity_links"    // tenant|hash of issuer and subject
	linksTable = "identity_links_of" // tenant|user|that hash
)

// linkKey folds nothing: subjects that differ in case are two people's.
func linkKey(tenant, issuer, subject string) string {
	sum := sha256.Sum256([]byte("link|" + jsonText([]string{issuer, subject})))
	return tenant + "|" + hex.EncodeToString(sum[:])
}

// jsonText writes texts so that no two lists are one text.
func jsonText(list []string) string {
	b, _ := json.Marshal(list) // texts always can be
	return string(b)
}

func linkOf(tx *store.Tx, tenant, issuer, subject string) (tie, bool, error) {
	return store.GetJSON[tie](tx, linkTable, linkKey(tenant, issuer, subject))
}

// bindLink makes the outsider the person. An outsider is one person at most.
func bindLink(tx *store.Tx, tenant string, l tie) error {
	key := linkKey(tenant, l.Issuer, l.Subject)
	old, err := tx.Get(linkTable, key)
	if err != nil {
		return err
	}
	if old != nil {
		return arm.Errorf(arm.Conflict, "This identity of %s is bound to a person already.", printable(l.Issuer))
	}
	if l.ID == "" {
		l.ID = arm.NewUUID()
	}
	if err := store.PutJSON(tx, linkTable, key, l); err != nil {
		return err
	}
	return tx.Put(linksTable, tenant+"|"+l.User+"|"+key, nil)
}

// linksOf are the outsiders that a person is.
func linksOf(tx *store.Tx, tenant, user string) ([]tie, error) {
	rows, err := tx.Scan(linksTable, tenant+"|"+user+"|", "", 0)
	if err != nil {
		return nil, err
	}
	var out []tie
	for _, r := range rows {
		l, ok, err := store.GetJSON[tie](tx, linkTable, strings.TrimPrefix(r.Key, tenant+"|"+user+"|"))
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, l)
		}
	}
	return out, nil
}

func dropLink(tx *store.Tx, tenant string, l tie) error {
	key := linkKey(tenant, l.Issuer, l.Subject)
	if err := tx.Delete(linkTable, key); err != nil {
		return err
	}
	return tx.Delete(linksTable, tenant+"|"+l.User+"|"+key)
}

// dropLinks forgets whom a person was who is gone.
func dropLinks(tx *store.Tx, tenant, user string) error {
	all, err := linksOf(tx, tenant, user)
	if err != nil {
		return err
	}
	for _, l := range all {
		if err := dropLink(tx, tenant, l); err != nil {
			return err
		}
	}
	return nil
}

// outside is what a person or group that others know of has besides.
type outside struct {
	Origin     string    // who made it: idp|ID, ldap|ID, scim, or "" for an administrator
	External   string    // SCIM's externalId, or a group's id in its LDAP directory
	DisabledBy string    // the origin that disabled it and may enable it again; "" for people
	SCIM       string    `json:",omitempty"` // JSON of what SCIM said besides
	Changed    time.Time // by its origin
}

// errGuest refuses a password to people whom others sign in.
var errGuest = arm.Errorf(arm.BadRequest, "This person signs in elsewhere, and has no password here.")

// guest reports whether the person came from a provider or an LDAP directory.
func (u *User) guest() bool {
	return strings.HasPrefix(u.Origin, "idp|") || strings.HasPrefix(u.Origin, "ldap|")
}
