package identity

import (
	"net/http"
	"slices"
	"strings"

	jose "github.com/go-jose/go-jose/v4"

	"castellan/internal/gate"
)

const (
	noToken  = "a client must learn how to sign in before it can"
	tokenWay = "clients prove themselves by what the request carries; every outcome is recorded"
	pageWay  = "people prove themselves here; every outcome is recorded"
)

// Login is the sign-in plane: discovery, token endpoints and the pages where
// people sign in. All of it is on the shared host, below a tenant's id or
// domain, common or organizations.
func (s *Service) Login() *gate.Plane {
	token, tokenV1 := s.serveToken(false), s.serveToken(true)
	device, deviceV1 := s.serveDevice(false), s.serveDevice(true)
	authorize, authorizeV1 := s.serveAuthorize(false), s.serveAuthorize(true)
	p := &gate.Plane{
		Name: "login", Fold: true, Refuse: s.refuseLogin,
		Host: func(h string) bool { return h == s.Site.Host() },
		Routes: []gate.Route{
			gate.Public(noToken, "GET /{tenant}/v2.0/.well-known/openid-configuration", anybody(s.serveConfiguration(false))),
			gate.Public(noToken, "GET /{tenant}/.well-known/openid-configuration", anybody(s.serveConfiguration(true))),
			gate.Public("the keys are public", "GET /{tenant}/discovery/v2.0/keys", anybody(s.serveKeys)),
			gate.Public("the keys are public", "GET /{tenant}/discovery/keys", anybody(s.serveKeys)),
			gate.Public(noToken, "GET /{tenant}/discovery/instance", anybody(s.serveInstance)),
			gate.Public(noToken, "GET /{tenant}/userrealm/{user}", s.serveRealm),

			gate.Public(tokenWay, "POST /{tenant}/oauth2/v2.0/token", token),
			gate.Public(tokenWay, "POST /{tenant}/oauth2/token", tokenV1),
			gate.Public("a browser asks whether a page may ask; nothing is given", "OPTIONS /{tenant}/oauth2/v2.0/token", s.servePreflight),
			gate.Public(tokenWay, "POST /{tenant}/oauth2/v2.0/devicecode", device),
			gate.Public(tokenWay, "POST /{tenant}/oauth2/devicecode", deviceV1),
			gate.Public(tokenWay, "GET /{tenant}/oauth2/devicecode", deviceV1),

			gate.Public(pageWay, "GET /{tenant}/oauth2/v2.0/authorize", authorize),
			gate.Public(pageWay, "POST /{tenant}/oauth2/v2.0/authorize", authorize),
			gate.Public(pageWay, "GET /{tenant}/oauth2/authorize", authorizeV1),
			gate.Public(pageWay, "GET /{tenant}/adminconsent", s.serveAdminConsent),
			gate.Public(pageWay, "GET /{tenant}/v2.0/adminconsent", s.serveAdminConsent),
			gate.Public(pageWay, "GET /common/oauth2/deviceauth", s.serveDevicePage),
			gate.Public(pageWay, "GET "+securityPath, s.serveSecurity),
			gate.Public(pageWay, "GET /{tenant}/oauth2/v2.0/logout", s.serveLogout),
			gate.Public(pageWay, "GET /{tenant}/oauth2/logout", s.serveLogout),
			gate.Public(pageWay, "GET /{tenant}/federation/oauth2/{provider}", s.serveReturn),
		},
	}
	p.Routes = append(p.Routes, s.formDoors()...)
	return p
}

// serveConfiguration is OpenID Connect discovery. The names in it are those by
// which the client came, for clients hold the issuer against them.
func (s *Service) serveConfiguration(v1 bool) func(http.ResponseWriter, *http.Request, gate.Vars) error {
	return func(w http.ResponseWriter, r *http.Request, v gate.Vars) error {
		t, err := s.tenantNamed(v["tenant"])
		if err != nil {
			return err
		}
		base, name := s.base(r), strings.ToLower(v["tenant"])
		issuer := "{tenantid}"
		if t != nil {
			name, issuer = t.ID, t.ID
		}
		mid, end := "/oauth2/v2.0/", "/v2.0"
		keys := base + "/" + name + "/discovery/v2.0/keys"
		if v1 {
			mid, end, keys = "/oauth2/", "/", base+"/"+name+"/discovery/keys"
		}
		gate.WriteJSON(w, http.StatusOK, map[string]any{
			"issuer": base + "/" + issuer + end, "jwks_uri": keys,
			"authorization_endpoint": base + "/" + name + mid + "authorize", "token_endpoint": base + "/" + name + mid + "token",
			"device_authorization_endpoint": base + "/" + name + mid + "devicecode", "end_session_endpoint": base + "/" + name + mid + "logout",
			"token_endpoint_auth_methods_supported":            []string{"client_secret_post", "client_secret_basic", "private_key_jwt"},
			"token_endpoint_auth_signing_alg_values_supported": assertionAlgorithms,
			"response_types_supported":                         []string{"code"},
			"response_modes_supported":                         []string{"query", "fragment", "form_post"},
			"grant_types_supported":                            []string{"authorization_code", "refresh_token", "client_credentials", "urn:ietf:params:oauth:grant-type:device_code", behalfGrant},
			"code_challenge_methods_supported":                 []string{"S256"},
			"subject_types_supported":                          []string{"pairwise"},
			"id_token_signing_alg_values_supported":            []jose.SignatureAlgorithm{jose.RS256},
			"scopes_supported":                                 []string{"openid", "profile", "email", "offline_access"},
			"claims_supported":                                 []string{"sub", "iss", "aud", "exp", "iat", "auth_time", "amr", "nonce", "preferred_username", "name", "tid", "oid", "ver", "email", "sid"},
			"claims_parameter_supported":                       true,
			"request_uri_parameter_supported":                  false,
			"authorization_response_iss_parameter_supported":   true,
			"http_logout_supported":                            false,
			"frontchannel_logout_supported":                    false,
			"tenant_region_scope":                              nil,
			"cloud_instance_name":                              s.Site.Host(),
			"msgraph_host":                                     s.Site.GraphHost(),
		})
		return nil
	}
}

// serveKeys are the public keys, those that will sign among them.
func (s *Service) serveKeys(w http.ResponseWriter, r *http.Request, v gate.Vars) error {
	t, err := s.tenantNamed(v["tenant"])
	if err != nil {
		return err
	}
	issuer := s.Site.Base() + "/{tenantid}/v2.0"
	if t != nil {
		issuer = s.issuer(t.ID, false)
	}
	keys := s.keys.all(s.Now())
	slices.SortFunc(keys, func(a, b *signingKey) int { return strings.Compare(a.KID, b.KID) })
	list := make([]any, len(keys))
	for i, k := range keys {
		list[i] = publicJWK(k, issuer)
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{"keys": list})
	return nil
}

// serveInstance tells clients which names stand for this cloud.
func (s *Service) serveInstance(w http.ResponseWriter, r *http.Request, _ gate.Vars) error {
	host := strings.TrimPrefix(s.base(r), "https://")
	names := []string{host}
	if host != s.Site.Host() {
		names = append(names, s.Site.Host())
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{
		"tenant_discovery_endpoint": s.base(r) + "/common/v2.0/.well-known/openid-configuration", "api-version": "1.1",
		"metadata": []any{map[string]any{"preferred_network": host, "preferred_cache": host, "aliases": names}},
	})
	return nil
}

// serveRealm tells clients that people sign in here and nowhere else. The
// answer is the same for everybody and nobody.
func (s *Service) serveRealm(w http.ResponseWriter, r *http.Request, v gate.Vars) error {
	_, domain, ok := strings.Cut(v["user"], "@")
	if !ok || s.index.tenantOf(domain) == nil {
		gate.WriteJSON(w, http.StatusOK, map[string]any{"ver": "1.0", "account_type": "Unknown", "cloud_instance_name": s.Site.Host()})
		return nil
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{
		"ver": "1.0", "account_type": "Managed", "domain_name": fold(domain), "cloud_instance_name": s.Site.Host(),
		"cloud_audience_urn": "urn:federation:MicrosoftOnline", "NameSpaceType": "Managed", "DomainName": fold(domain), "Login": printable(v["user"]),
	})
	return nil
}
