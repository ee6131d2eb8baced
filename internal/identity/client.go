package identity

import (
	"context"
	"crypto/sha1" //nolint:gosec // only names certificates, as x5t does by its definition
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"castellan/internal/arm"
	"castellan/internal/issuer"
	"castellan/internal/store"
)

// azureCLI is the public client that the Azure CLI and all libraries of Azure
// sign people in as, unless they are told otherwise. Every tenant knows it.
const azureCLI = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"

// wellKnown are the applications that every tenant knows without an entry.
func wellKnown(s arm.Site) map[string]*App {
	return map[string]*App{azureCLI: {
		AppID: azureCLI, Name: "Azure command line and libraries", Public: true,
		Redirects: []Redirect{{URI: "http://localhost"}, {URI: "http://127.0.0.1"}, {URI: s.Base() + "/common/oauth2/nativeclient"}},
	}}
}

// client is an application that asks for something, in a tenant.
type client struct {
	app       *App
	principal *Principal // nil for a well-known one
	evidence  string     // id of the credential that it showed, or ""
	how       string     // what it showed: secret, certificate, nothing
}

// lookup is the application of a tenant by its app id.
func (s *Service) lookup(tenant, appID string) (client, error) {
	if a := s.known[fold(appID)]; a != nil {
		return client{app: a, how: "nothing"}, nil
	}
	a := s.index.client(appID)
	p := s.index.spOf(tenant, appID)
	if a == nil || p == nil || p.Managed {
		return client{}, problemf(700016, "unauthorized_client", "Application with identifier '%s' was not found in the directory. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant.", printable(appID))
	}
	if p.Disabled {
		return client{}, problemf(7000112, "unauthorized_client", "Application '%s' is disabled.", printable(appID))
	}
	return client{app: a, principal: p, how: "nothing"}, nil
}

// authenticate is the client of a token request, once what it shows is right.
// It may show nothing, which proves nothing: evidence stays empty.
func (s *Service) authenticate(ctx context.Context, r *http.Request, form url.Values, t *Tenant) (client, error) {
	id, secret := form.Get("client_id"), form.Get("client_secret")
	if user, pass, ok := basic(r); ok {
		if secret != "" || form.Has("client_assertion") || id != "" && !strings.EqualFold(id, user) {
			return client{}, problemf(900144, "invalid_request", "The client must show one credential, and be the same everywhere in the request.")
		}
		id, secret = user, pass
	} else if len(r.Header.Values("Authorization")) > 0 {
		return client{}, problemf(900144, "invalid_request", "The Authorization header of a token request must be of the scheme Basic.")
	}
	if id == "" {
		return client{}, problemf(900144, "invalid_request", "The request body must contain the following parameter: 'client_id'.")
	}
	c, err := s.lookup(t.ID, id)
	if managed, ok := s.federatedIdentity(t.ID, id); ok && form.Has("client_assertion") {
		c, err = managed, nil
	}
	if err != nil {
		return client{}, err
	}
	switch {
	case form.Has("client_assertion") && secret != "":
		return client{}, problemf(900144, "invalid_request", "The client must show one credential.")
	case form.Has("client_assertion"):
		return s.assert(ctx, r, form, t, c)
	case secret != "":
		return s.checkSecret(c, secret)
	}
	return c, nil
}

// basic are the client's id and secret from a Basic header (RFC 6749 section
// 2.3.1: each is form-encoded first).
func basic(r *http.Request) (id, secret string, ok bool) {
	user, pass, ok := r.BasicAuth()
	if !ok {
		return "", "", false
	}
	id, e1 := url.QueryUnescape(user)
	secret, e2 := url.QueryUnescape(pass)
	return id, secret, e1 == nil && e2 == nil
}

func hashSecret(secret string) []byte {
	sum := sha256.Sum256([]byte("client secret|" + secret))
	return sum[:]
}

func (s *Service) checkSecret(c client, secret string) (client, error) {
	now, hash := s.Now(), hashSecret(secret)
	expired := false
	for _, x := range c.app.Secrets {
		if subtle.ConstantTimeCompare(x.Hash, hash) != 1 {
			continue
		}
		if now.Before(x.Start) || !now.Before(x.End) {
			expired = true
			continue
		}
		c.evidence, c.how = x.KeyID, "secret"
		return c, nil
	}
	if expired {
		return client{}, problemf(7000222, "invalid_client", "The provided client secret keys for app '%s' are expired.", c.app.AppID)
	}
	return client{}, problemf(7000215, "invalid_client", "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '%s'.", c.app.AppID)
}

const (
	assertionType  = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	assertionTable = "identity_assertions" // hashes of jti, until they expire
	assertionLife  = 24 * time.Hour        // longest lifetime of an assertion
)

// assertionAlgorithms are those that a client may sign with (PS256 by newer
// clients, RS256 by older ones, ES256 with a key on a curve).
var assertionAlgorithms = []jose.SignatureAlgorithm{jose.PS256, jose.RS256, jose.ES256}

// assert is the client that a signed assertion proves (RFC 7523). The key comes
// from the application's own certificates, never from the assertion.
func (s *Service) assert(ctx context.Context, r *http.Request, form url.Values, t *Tenant, c client) (client, error) {
	bad := func(why string) error {
		return problemf(700027, "invalid_client", "Client assertion failed validation: %s.", why)
	}
	if form.Get("client_assertion_type") != assertionType {
		return client{}, problemf(900144, "invalid_request", "client_assertion_type must be %s.", assertionType)
	}
	raw := form.Get("client_assertion")
	head, said, err := issuer.Unverified(raw)
	if err != nil {
		return client{}, bad("it is malformed")
	}
	if iss := text(said, "iss"); !strings.EqualFold(iss, c.app.AppID) && strings.Contains(iss, ":") {
		return s.federate(ctx, raw, said, c)
	}
	cert, key, why := c.certificate(head, s.Now())
	if key == nil {
		return client{}, bad(why)
	}
	j, err := jose.ParseSignedCompact(raw, assertionAlgorithms)
	if err != nil {
		return client{}, bad("it must be signed with PS256, RS256 or ES256")
	}
	payload, err := j.Verify(key)
	if err != nil {
		return client{}, bad("its signature does not verify")
	}
	m, err := object(payload)
	if err != nil {
		return client{}, bad("its claims are malformed")
	}
	exp, err := s.assertionTimes(m)
	if err != nil {
		return client{}, bad(err.Error())
	}
	if !strings.EqualFold(text(m, "iss"), c.app.AppID) || !strings.EqualFold(text(m, "sub"), c.app.AppID) {
		return client{}, bad("iss and sub must be the client id")
	}
	if !s.ours(m["aud"], r, t) {
		return client{}, bad("aud must be this token endpoint")
	}
	if err := s.once(ctx, c.app.AppID, text(m, "jti"), exp); err != nil {
		return client{}, err
	}
	c.evidence, c.how = cert.KeyID, "certificate"
	return c, nil
}

// certificate is the application's certificate that a header names by its hash.
// A chain in x5c proves nothing: a certificate is known by itself, and not by
// who issued it and for which name.
func (c client) certificate(head map[string]any, now time.Time) (_ Cert, key any, why string) {
	for _, x := range c.app.Certs {
		s256, s1 := sha256.Sum256(x.DER), sha1.Sum(x.DER) //nolint:gosec // see the import
		named := names(text(head, "x5t#S256"), s256[:])
		if text(head, "x5t#S256") == "" {
			named = names(text(head, "x5t"), s1[:])
		}
		if !named {
			continue
		}
		if now.Before(x.Start) || !now.Before(x.End) {
			return Cert{}, nil, "the certificate is not valid now"
		}
		if chain, given := head["x5c"]; given && !leads(chain, x.DER) {
			return Cert{}, nil, "x5c is of another certificate than the one that the header names"
		}
		parsed, err := x509.ParseCertificate(x.DER)
		if err != nil {
			return Cert{}, nil, "the certificate can't be read"
		}
		return x, parsed.PublicKey, ""
	}
	if _, given := head["x5c"]; given {
		return Cert{}, nil, "the certificate is not registered on the application; authentication by subject name and issuer (x5c) is not supported"
	}
	return Cert{}, nil, "the certificate with identifier used to sign the client assertion is not registered on application"
}

// leads reports whether a chain begins with the certificate.
func leads(chain any, der []byte) bool {
	list, _ := chain.([]any)
	if len(list) == 0 || len(list) > 10 {
		return false
	}
	first, _ := list[0].(string)
	return subtle.ConstantTimeCompare([]byte(first), []byte(base64.StdEncoding.EncodeToString(der))) == 1
}

// names reports whether name is the hash in base64. Clients write it in the
// URL's alphabet, as RFC 7515 says, or in the common one with padding (MSAL for Go).
func names(name string, hash []byte) bool {
	plain := strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(name, "="))
	return name != "" && plain == base64.RawURLEncoding.EncodeToString(hash)
}

// assertionTimes wants exp, and holds it and nbf against now.
func (s *Service) assertionTimes(m map[string]any) (time.Time, error) {
	now := s.Now()
	exp, err := seconds(m, "exp")
	if err != nil || !now.Before(exp.Add(skew)) {
		return exp, badToken("it has expired, or says no exp")
	}
	if exp.Sub(now) > assertionLife {
		return exp, badToken("it lives longer than a day")
	}
	if _, given := m["nbf"]; given {
		if nbf, err := seconds(m, "nbf"); err != nil || now.Add(5*time.Minute).Before(nbf) {
			return exp, badToken("it is not valid yet")
		}
	}
	return exp, nil
}

// ours reports whether aud is this tenant's token endpoint and nothing else.
func (s *Service) ours(aud any, r *http.Request, t *Tenant) bool {
	if list, ok := aud.([]any); ok && len(list) == 1 {
		aud = list[0]
	}
	got, ok := aud.(string)
	if !ok {
		return false
	}
	for _, base := range []string{s.Site.Base(), s.base(r)} {
		for _, name := range []string{t.ID, t.Domain, segment(r)} {
			for _, end := range []string{"/oauth2/v2.0/token", "/oauth2/token", "/v2.0", "/"} {
				if got == base+"/"+name+end {
					return true
				}
			}
		}
	}
	return false
}

// segment is the first segment of a request's path.
func segment(r *http.Request) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	return first
}

// once refuses an assertion that was shown before.
func (s *Service) once(ctx context.Context, appID, jti string, exp time.Time) error {
	if jti == "" || len(jti) > 512 {
		return problemf(700027, "invalid_client", "Client assertion failed validation: it must have a jti.")
	}
	sum := sha256.Sum256([]byte(appID + "|" + jti))
	key := base64.RawURLEncoding.EncodeToString(sum[:])
	return s.DB.Do(ctx, func(tx *store.Tx) error {
		seen, err := tx.Get(assertionTable, key)
		if err != nil {
			return err
		}
		if seen != nil {
			return problemf(700027, "invalid_client", "Client assertion failed validation: it was used before.")
		}
		return tx.Put(assertionTable, key, []byte(exp.Add(skew+time.Minute).UTC().Format(time.RFC3339)))
	})
}
