package identity

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"slices"
	"strings"

	jose "github.com/go-jose/go-jose/v4"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/openid"
	"castellan/internal/store"
)

var (
	readProvider   = arm.NewAction("microsoft.directory/identityProviders/standard/read", "see whose sign-ins elsewhere are believed")
	createProvider = arm.NewAction("microsoft.directory/identityProviders/create", "believe the sign-ins of another provider or directory")
	updateProvider = arm.NewAction("microsoft.directory/identityProviders/update", "change how sign-ins elsewhere are believed")
	deleteProvider = arm.NewAction("microsoft.directory/identityProviders/delete", "believe the sign-ins of a provider or directory no longer")
	readDomains    = arm.NewAction("microsoft.directory/domains/standard/read", "see the domains of the tenant and who signs their people in")
	readLinks      = arm.NewAction("microsoft.directory/users/identities/read", "see whom a person is elsewhere")
	linkUser       = arm.NewAction("microsoft.directory/users/identities/update", "say whom a person is elsewhere, who then signs in as them")
)

// Graph's words for how far a provider's second factor is believed.
const (
	acceptMFA = "acceptIfMfaDoneByFederatedIdp"
	rejectMFA = "rejectMfaByFederatedIdp"
)

func (s *Service) providerDoors() []gate.Route {
	return []gate.Route{
		s.door(readProvider, "GET identity/identityproviders", (*visit).listProviders),
		s.door(createProvider, "POST identity/identityproviders", (*visit).createProvider),
		s.door(readProvider, "GET identity/identityproviders/{id}", func(v *visit) (answer, error) {
			p, err := v.provider()
			if err != nil {
				return answer{}, err
			}
			return v.oneProvider(http.StatusOK, p)
		}),
		s.door(updateProvider, "PATCH identity/identityproviders/{id}", (*visit).updateProvider),
		s.door(deleteProvider, "DELETE identity/identityproviders/{id}", func(v *visit) (answer, error) {
			p, err := v.provider()
			if err != nil {
				return answer{}, err
			}
			return done, v.change(func(tx *store.Tx) error { return errors.Join(v.s.endGiven(tx, p.Tenant, p.Issuer), v.s.remove(tx, p)) })
		}),
		s.door(readDomains, "GET domains", func(v *visit) (answer, error) { return v.list("domains", v.domains()) }),
		s.door(readDomains, "GET domains/{id}/federationconfiguration", (*visit).federationOf),
	}
}

// show is the provider as Graph shows an OpenID Connect provider, and what is
// ours besides. Secrets are never shown.
func (s *Service) showProvider(p *Provider) (map[string]any, error) {
	rules := []any{}
	for _, r := range p.Groups {
		rules = append(rules, map[string]any{"claimValue": r.Value, "groupId": r.Group})
	}
	mfa := map[bool]string{true: acceptMFA, false: rejectMFA}[p.TrustMFA]
	m := map[string]any{
		"@odata.type": "#microsoft.graph.openIdConnectIdentityProvider", "id": p.ID, "displayName": p.Name, "clientId": p.ClientID, "clientSecret": nil, "issuer": p.Issuer,
		"metadataUrl": strings.TrimSuffix(p.Issuer, "/") + "/.well-known/openid-configuration", "scope": strings.TrimSpace("openid " + p.Scope), "responseType": "code", "responseMode": "query",
		"domains": nonNil(p.Domains), "domainHint": firstOf(p.Domains), "redirectUri": s.returnsTo(p), "isEnabled": !p.Disabled, "createdDateTime": stamp(p.Created),
		"claimsMapping":           map[string]any{"userId": "sub", "userPrincipalName": p.Claims.UPN, "displayName": p.Claims.Name, "givenName": p.Claims.Given, "surname": p.Claims.Surname, "email": p.Claims.Mail},
		"federatedIdpMfaBehavior": mfa, "mfaMethods": nonNil(p.MFAMethods), "mfaClasses": nonNil(p.MFAClasses),
		"groupsClaim": p.GroupsClaim, "groupMappings": rules, "certificateAuthorities": nullable(p.Roots), "createUsers": p.Create, "matchExternalId": p.Provisioned,
		"clientAuthentication": "clientSecret", "clientAssertionKey": nil,
	}
	if len(p.Key) > 0 {
		k, err := s.signingJWK(p)
		if err != nil {
			return nil, err
		}
		m["clientAuthentication"], m["clientAssertionKey"] = "privateKeyJwt", jose.JSONWebKeySet{Keys: []jose.JSONWebKey{k.Public()}}
	}
	return m, nil
}

func nonNil(list []string) []string { return append([]string{}, list...) }

func firstOf(list []string) any {
	if len(list) == 0 {
		return nil
	}
	return list[0]
}

// providerBody is what a client may say of a provider.
type providerBody struct {
	Type          *string   `json:"@odata.type" arm:"only=#microsoft.graph.openIdConnectIdentityProvider|microsoft.graph.openIdConnectIdentityProvider"`
	Name          *string   `json:"displayName"`
	Issuer        *string   `json:"issuer"`
	ClientID      *string   `json:"clientId"`
	Secret        *string   `json:"clientSecret"`
	Proof         *string   `json:"clientAuthentication" arm:"only=clientSecret|privateKeyJwt"`
	Scope         *string   `json:"scope"`
	ResponseType  *string   `json:"responseType" arm:"only=code"`
	ResponseMode  *string   `json:"responseMode" arm:"only=query"`
	Domains       *[]string `json:"domains"`
	Enabled       *bool     `json:"isEnabled"`
	Create        *bool     `json:"createUsers"`
	Match         *bool     `json:"matchExternalId"`
	MFA           *string   `json:"federatedIdpMfaBehavior" arm:"only=acceptIfMfaDoneByFederatedIdp|rejectMfaByFederatedIdp"`
	MFAMethods    *[]string `json:"mfaMethods"`
	MFAClasses    *[]string `json:"mfaClasses"`
	GroupsClaim   *string   `json:"groupsClaim"`
	Roots         *string   `json:"certificateAuthorities"`
	ClaimsMapping *struct {
		UserID  *string `json:"userId" arm:"only=sub"`
		UPN     *string `json:"userPrincipalName"`
		Name    *string `json:"displayName"`
		Given   *string `json:"givenName"`
		Surname *string `json:"surname"`
		Mail    *string `json:"email"`
	} `json:"claimsMapping"`
	Groups *[]struct {
		Value string `json:"claimValue"`
		Group string `json:"groupId"`
	} `json:"groupMappings"`
}

func (v *visit) provider() (*Provider, error) {
	p := v.s.index.provider(fold(v.seg(2)))
	if p == nil || p.Tenant != v.tenant {
		return nil, missing("identityProvider", v.seg(2))
	}
	return p, nil
}

func (v *visit) oneProvider(status int, p *Provider) (answer, error) {
	m, err := v.s.showProvider(p)
	if err != nil {
		return answer{}, err
	}
	return v.one(status, "identity/identityProviders", m)
}

func (v *visit) listProviders() (answer, error) {
	var rows []map[string]any
	for _, p := range find(v.s.index, func(x *index) (out []*Provider) {
		for _, p := range x.idps {
			if p.Tenant == v.tenant {
				out = append(out, p)
			}
		}
		return out
	}) {
		m, err := v.s.showProvider(p)
		if err != nil {
			return answer{}, err
		}
		rows = append(rows, m)
	}
	return v.list("identity/identityProviders", rows)
}

func (v *visit) createProvider() (answer, error) {
	var b providerBody
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	p := &Provider{
		ID: arm.NewUUID(), Tenant: v.tenant, Scope: "profile email", Create: true, MFAMethods: []string{"mfa"}, Created: v.s.Now().UTC(),
		Claims: claimNames{UPN: "preferred_username", Name: "name", Given: "given_name", Surname: "family_name", Mail: "email"},
	}
	if b.Name == nil || b.Issuer == nil || b.ClientID == nil {
		return answer{}, arm.Errorf(arm.BadRequest, "An identity provider needs displayName, issuer and clientId.")
	}
	if err := v.s.fillProvider(p, b); err != nil {
		return answer{}, err
	}
	if len(p.Secret) == 0 && len(p.Key) == 0 {
		return answer{}, arm.Errorf(arm.BadRequest, "An identity provider needs a clientSecret, or clientAuthentication privateKeyJwt.")
	}
	if err := v.change(func(tx *store.Tx) error { return v.putProvider(tx, p) }); err != nil {
		return answer{}, err
	}
	return v.oneProvider(http.StatusCreated, p)
}

func (v *visit) updateProvider() (answer, error) {
	var b providerBody
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	was, err := v.provider()
	if err != nil {
		return answer{}, err
	}
	err = v.change(func(tx *store.Tx) error {
		p, ok, err := fetch[*Provider](tx, v.tenant, "idp", was.ID)
		if err != nil {
			return err
		}
		if !ok {
			return missing("identityProvider", was.ID)
		}
		if b.Issuer != nil && *b.Issuer != p.Issuer && b.Secret == nil && len(p.Key) == 0 {
			return arm.Errorf(arm.BadRequest, "With another issuer give the clientSecret anew: the old one is not shown to another provider.")
		}
		if err := v.s.fillProvider(p, b); err != nil {
			return err
		}
		return v.putProvider(tx, p)
	})
	return done, err
}

// putProvider keeps a provider whose rules name groups of the tenant that give
// no directory roles.
func (v *visit) putProvider(tx *store.Tx, p *Provider) error {
	for _, r := range p.Groups {
		g, ok, err := fetch[*Group](tx, p.Tenant, "group", r.Group)
		switch {
		case err != nil:
			return err
		case !ok:
			return missing("group", r.Group)
		case g.Assignable:
			return arm.Errorf(arm.BadRequest, "The group %s can be given directory roles (isAssignableToRole), so nobody comes into it by what another provider says.", g.ID)
		}
	}
	if err := v.vouch(tx, p.Issuer, p.Disabled); err != nil {
		return err
	}
	return v.s.put(tx, p)
}

// vouch is asked before an issuer of the tenant is changed. A disabled one ends
// what it gave. Any other vouches for those who are bound to it: whoever could
// turn it could be them, and so must be one who could bind them.
func (v *visit) vouch(tx *store.Tx, issuer string, disabled bool) error {
	if disabled {
		return v.s.endGiven(tx, v.tenant, issuer)
	}
	bound, err := boundTo(tx, v.tenant, issuer)
	if err != nil {
		return err
	}
	for _, l := range bound {
		if !v.s.protected("users", l.User) {
			continue
		}
		if ok, _ := v.s.decide(v.g.Caller(), linkUser, objectID(v.tenant, "users", l.User)); !ok {
			return arm.Errorf(arm.Forbidden, "An administrator signs in by it, so that only who may bind administrators to identities elsewhere may change it, or have it believed. It can be disabled.")
		}
	}
	return nil
}

// boundTo are those who are bound to identities of an issuer.
func boundTo(tx *store.Tx, tenant, issuer string) ([]tie, error) {
	all, err := store.ScanJSON[tie](tx, linkTable, tenant+"|", "", 0)
	return slices.DeleteFunc(all, func(l tie) bool { return l.Issuer != issuer }), err
}

// endGiven ends the sessions and tokens of all who are bound to an issuer that
// is believed no longer.
func (s *Service) endGiven(tx *store.Tx, tenant, issuer string) error {
	bound, err := boundTo(tx, tenant, issuer)
	if err != nil {
		return err
	}
	for _, l := range bound {
		u, ok, err := fetch[*User](tx, tenant, "user", l.User)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		u.Epoch++
		if err := s.put(tx, u); err != nil {
			return err
		}
	}
	return nil
}

// fillProvider takes over what the client said.
func (s *Service) fillProvider(p *Provider, b providerBody) error {
	if b.Name != nil {
		if err := checkName(*b.Name); err != nil {
			return err
		}
		p.Name = strings.TrimSpace(*b.Name)
	}
	if b.Issuer != nil {
		if err := openid.CheckURL(*b.Issuer); err != nil {
			return arm.Errorf(arm.BadRequest, "The issuer is %q; it %v.", printable(*b.Issuer), err)
		}
		p.Issuer = *b.Issuer
	}
	if b.ClientID != nil {
		if *b.ClientID == "" || printable(*b.ClientID) != *b.ClientID {
			return arm.Errorf(arm.BadRequest, "The clientId must have 1 to 200 printable characters.")
		}
		p.ClientID = *b.ClientID
	}
	if b.Domains != nil {
		domains, err := s.checkDomains(*b.Domains)
		if err != nil {
			return err
		}
		p.Domains = domains
	}
	for to, from := range map[*bool]*bool{&p.Create: b.Create, &p.Provisioned: b.Match} {
		if from != nil {
			*to = *from
		}
	}
	if b.Enabled != nil {
		p.Disabled = !*b.Enabled
	}
	if err := p.fillClaims(b); err != nil {
		return err
	}
	if err := fillRoots(&p.Roots, b.Roots); err != nil {
		return err
	}
	return s.fillProof(p, b)
}

// fillRoots takes over certificates in PEM.
func fillRoots(to, from *string) error {
	if from == nil {
		return nil
	}
	if *from != "" {
		rest := []byte(*from)
		for {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			if _, err := x509.ParseCertificate(block.Bytes); err != nil || block.Type != "CERTIFICATE" {
				return arm.Errorf(arm.BadRequest, "certificateAuthorities must be certificates in PEM and nothing else.")
			}
		}
		if _, err := pool(*from); err != nil || strings.TrimSpace(string(rest)) != "" {
			return arm.Errorf(arm.BadRequest, "certificateAuthorities must be certificates in PEM and nothing else.")
		}
	}
	*to = *from
	return nil
}

// fillProof takes over how we prove ourselves to the provider.
func (s *Service) fillProof(p *Provider, b providerBody) error {
	if b.Proof != nil && strings.EqualFold(*b.Proof, "privateKeyJwt") {
		if b.Secret != nil {
			return arm.Errorf(arm.BadRequest, "With clientAuthentication privateKeyJwt there is no clientSecret: the platform makes the key and shows its public part.")
		}
		if len(p.Key) > 0 {
			return nil
		}
		return s.newSigningKey(p)
	}
	if b.Secret == nil {
		return nil
	}
	if *b.Secret == "" || len(*b.Secret) > 2048 {
		return arm.Errorf(arm.BadRequest, "The clientSecret must have 1 to 2048 bytes.")
	}
	p.Secret, p.Key = s.Root.Derive("identity federation").Seal([]byte(*b.Secret), sealing(p, "secret")), nil
	return nil
}

func (p *Provider) fillClaims(b providerBody) error {
	if m := b.ClaimsMapping; m != nil {
		for to, from := range map[*string]*string{&p.Claims.UPN: m.UPN, &p.Claims.Name: m.Name, &p.Claims.Given: m.Given, &p.Claims.Surname: m.Surname, &p.Claims.Mail: m.Mail} {
			if from == nil {
				continue
			}
			if len(*from) > 100 || printable(*from) != *from {
				return arm.Errorf(arm.BadRequest, "A claim's name in claimsMapping must have at most 100 printable characters.")
			}
			*to = *from
		}
	}
	if b.Scope != nil {
		scopes := slices.DeleteFunc(strings.Fields(*b.Scope), func(x string) bool { return x == "openid" })
		if len(*b.Scope) > 500 || printable(strings.Join(scopes, "")) != strings.Join(scopes, "") {
			return arm.Errorf(arm.BadRequest, "The scope must have at most 500 printable characters.")
		}
		p.Scope = strings.Join(scopes, " ")
	}
	if b.GroupsClaim != nil {
		p.GroupsClaim = (*b.GroupsClaim)[:min(len(*b.GroupsClaim), 100)]
	}
	if b.Groups != nil {
		p.Groups = nil
		for _, r := range *b.Groups {
			if r.Value == "" || len(r.Value) > 512 || !isGUID(r.Group) {
				return arm.Errorf(arm.BadRequest, "A group mapping needs a claimValue and the groupId of a group.")
			}
			p.Groups = append(p.Groups, groupRule{Value: r.Value, Group: fold(r.Group)})
		}
	}
	if len(p.Groups) > 1000 || len(p.Domains) > 100 {
		return arm.Errorf(arm.BadRequest, "An identity provider has at most 1000 group mappings and 100 domains.")
	}
	if b.MFA != nil {
		p.TrustMFA = strings.EqualFold(*b.MFA, acceptMFA)
	}
	if b.MFAMethods != nil {
		p.MFAMethods = *b.MFAMethods
	}
	if b.MFAClasses != nil {
		p.MFAClasses = *b.MFAClasses
	}
	if slices.Contains(p.MFAMethods, "") || slices.Contains(p.MFAClasses, "") {
		return arm.Errorf(arm.BadRequest, "A value of mfaMethods or mfaClasses is empty; a provider that says nothing would be taken for one that says so.")
	}
	return nil
}

// domains are those of the tenant, and who signs their people in.
func (v *visit) domains() []map[string]any {
	row := func(name, kind string, own bool) map[string]any {
		return map[string]any{"id": name, "authenticationType": kind, "isDefault": own, "isInitial": own, "isRoot": true, "isVerified": true, "isAdminManaged": true, "supportedServices": []string{}}
	}
	return find(v.s.index, func(x *index) (out []map[string]any) {
		if t := x.tenants[v.tenant]; t != nil {
			out = append(out, row(t.Domain, "Managed", true))
		}
		for name, e := range x.realms {
			tenant, class, _ := e.place()
			if tenant == v.tenant {
				out = append(out, row(name, map[string]string{"idp": "Federated", "ldap": "Managed"}[class], false))
			}
		}
		return out
	})
}

// federationOf is who signs in the people of a domain.
func (v *visit) federationOf() (answer, error) {
	p, ok := v.s.index.realm(v.seg(1)).(*Provider)
	if !ok || p.Tenant != v.tenant {
		return answer{}, missing("internalDomainFederation", v.seg(1))
	}
	return v.list("domains('"+fold(v.seg(1))+"')/federationConfiguration", []map[string]any{{
		"id": p.ID, "displayName": p.Name, "issuerUri": p.Issuer, "preferredAuthenticationProtocol": "openIdConnect",
		"federatedIdpMfaBehavior": map[bool]string{true: acceptMFA, false: rejectMFA}[p.TrustMFA],
	}})
}

// linkDoors say whom a person is elsewhere. Binding somebody's account to an
// outsider lets the outsider in as them, so that it asks for a right of its own.
func (s *Service) linkDoors() []gate.Route {
	return []gate.Route{
		s.door(readLinks, "GET users/{id}/identities", func(v *visit) (answer, error) {
			u, err := v.user(v.seg(1))
			if err != nil {
				return answer{}, err
			}
			rows := []map[string]any{}
			err = v.s.DB.View(v.r.Context(), func(tx *store.Tx) error {
				all, err := linksOf(tx, v.tenant, u.ID)
				for _, l := range all {
					rows = append(rows, l.show())
				}
				return err
			})
			if err != nil {
				return answer{}, err
			}
			return v.list("users('"+u.ID+"')/identities", rows)
		}),
		s.door(linkUser, "POST users/{id}/identities", (*visit).addLink),
		s.door(linkUser, "DELETE users/{id}/identities/{identity}", (*visit).removeLink),
	}
}

func (l tie) show() map[string]any {
	return map[string]any{"id": l.ID, "signInType": "federated", "issuer": l.Issuer, "issuerAssignedId": l.Subject, "createdDateTime": stamp(l.At)}
}

func (v *visit) addLink() (answer, error) {
	var b struct {
		Type    string `json:"signInType" arm:"only=federated"`
		Issuer  string `json:"issuer"`
		Subject string `json:"issuerAssignedId"`
	}
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	u, err := v.user(v.seg(1))
	if err != nil {
		return answer{}, err
	}
	if b.Issuer == "" || b.Subject == "" || len(b.Subject) > 255 || !v.believes(b.Issuer) {
		return answer{}, arm.Errorf(arm.BadRequest, "An identity needs the issuer of one of the tenant's identity providers and an issuerAssignedId, which is the subject there.")
	}
	l := tie{ID: arm.NewUUID(), User: u.ID, Issuer: b.Issuer, Subject: b.Subject, By: v.g.Caller().Object, At: v.s.Now().UTC()}
	err = v.change(func(tx *store.Tx) error {
		if _, ok, err := fetch[*User](tx, v.tenant, "user", u.ID); err != nil || !ok {
			return missingOr(err, "user", u.ID)
		}
		return bindLink(tx, v.tenant, l)
	})
	if err != nil {
		return answer{}, err
	}
	return v.one(http.StatusCreated, "users('"+u.ID+"')/identities", l.show())
}

func missingOr(err error, class, id string) error {
	if err != nil {
		return err
	}
	return missing(class, id)
}

// believes reports whether the tenant has a provider or directory of this issuer.
func (v *visit) believes(issuer string) bool {
	return find(v.s.index, func(x *index) bool {
		for _, p := range x.idps {
			if p.Tenant == v.tenant && p.Issuer == issuer {
				return true
			}
		}
		for _, d := range x.ldaps {
			if d.Tenant == v.tenant && d.issuer() == issuer {
				return true
			}
		}
		return false
	})
}

// removeLink unbinds an outsider, and ends what was given to the person.
func (v *visit) removeLink() (answer, error) {
	u, err := v.user(v.seg(1))
	if err != nil {
		return answer{}, err
	}
	return done, v.change(func(tx *store.Tx) error {
		all, err := linksOf(tx, v.tenant, u.ID)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all, func(l tie) bool { return l.ID == fold(v.seg(3)) })
		now, ok, err := fetch[*User](tx, v.tenant, "user", u.ID)
		if err != nil || i < 0 || !ok {
			return missingOr(err, "objectIdentity", v.seg(3))
		}
		if err := dropLink(tx, v.tenant, all[i]); err != nil {
			return err
		}
		now.Epoch++
		return v.s.put(tx, now)
	})
}
