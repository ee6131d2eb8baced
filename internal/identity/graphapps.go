package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // only names certificates
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// Limits of one application, and how long secrets last.
const (
	maxRedirects   = 256
	maxCredentials = 40
	secretLife     = 2 * 365 * 24 * time.Hour
	minRSA         = 2048 // bits of a certificate's key
)

func (a *App) show() map[string]any {
	web, public, spa := []string{}, []string{}, []string{}
	for _, r := range a.Redirects {
		switch {
		case r.Web:
			web = append(web, r.URI)
		case r.SPA:
			spa = append(spa, r.URI)
		default:
			public = append(public, r.URI)
		}
	}
	secrets, certs := []any{}, []any{}
	for _, x := range a.Secrets {
		secrets = append(secrets, x.show(""))
	}
	for _, x := range a.Certs {
		sum := sha1.Sum(x.DER) //nolint:gosec // see the import
		certs = append(certs, map[string]any{"keyId": x.KeyID, "displayName": nullable(x.Name), "type": "AsymmetricX509Cert", "usage": "Verify", "key": nil,
			"customKeyIdentifier": strings.ToUpper(hex.EncodeToString(sum[:])), "startDateTime": stamp(x.Start), "endDateTime": stamp(x.End)})
	}
	return map[string]any{
		"id": a.ID, "appId": a.AppID, "displayName": a.Name, "identifierUris": append([]string{}, a.URIs...), "signInAudience": "AzureADMyOrg", "createdDateTime": stamp(a.Created),
		"isFallbackPublicClient": a.Public, "publicClient": map[string]any{"redirectUris": public}, "spa": map[string]any{"redirectUris": spa},
		"web":                 map[string]any{"redirectUris": web, "implicitGrantSettings": map[string]any{"enableAccessTokenIssuance": false, "enableIdTokenIssuance": false}},
		"passwordCredentials": secrets, "keyCredentials": certs, "requiredResourceAccess": a.showNeeds(), "appRoles": showRoles(a.Roles), "tags": []string{},
		"api": a.showAPI(), "groupMembershipClaims": nullable(a.GroupClaims), "optionalClaims": nil, "publisherDomain": nil,
	}
}

func (x Secret) show(text string) map[string]any {
	return map[string]any{"keyId": x.KeyID, "displayName": nullable(x.Name), "hint": x.Hint, "secretText": nullable(text), "customKeyIdentifier": nil,
		"startDateTime": stamp(x.Start), "endDateTime": stamp(x.End)}
}

type redirects struct {
	URIs     []string `json:"redirectUris"`
	Home     any      `json:"homePageUrl"`
	Implicit any      `json:"implicitGrantSettings"`
	Logout   any      `json:"logoutUrl"`
	Settings any      `json:"redirectUriSettings"`
}

type keyBody struct {
	KeyID  string `json:"keyId"`
	Type   string `json:"type"`
	Usage  string `json:"usage"`
	Key    string `json:"key"`
	Name   string `json:"displayName"`
	Start  any    `json:"startDateTime"` // the certificate says from when to when
	End    any    `json:"endDateTime"`
	Custom any    `json:"customKeyIdentifier"`
}

// appBody is what a client may say of an application. What is only for show is
// taken and not kept.
type appBody struct {
	Name      *string     `json:"displayName"`
	URIs      *[]string   `json:"identifierUris"`
	Fallback  *bool       `json:"isFallbackPublicClient"`
	Web       *redirects  `json:"web"`
	Public    *redirects  `json:"publicClient"`
	SPA       *redirects  `json:"spa"`
	Keys      *[]keyBody  `json:"keyCredentials"`
	Passwords []any       `json:"passwordCredentials"`
	Audience  *string     `json:"signInAudience"`
	API       *apiBody    `json:"api"`
	Roles     *[]roleBody `json:"appRoles"`
	Access    *[]needBody `json:"requiredResourceAccess"`
	Claims    any         `json:"optionalClaims"`
	Groups    *string     `json:"groupMembershipClaims"`
	Tags      any         `json:"tags"`
	Info      any         `json:"info"`
	Notes     any         `json:"notes"`
	Device    any         `json:"isDeviceOnlyAuthSupported"`
}

func (s *Service) appDoors() []gate.Route {
	out := []gate.Route{
		s.door(createApp, "POST applications", (*visit).createApp),
		s.door(readApps, "GET applications/{id}", (*visit).readApp),
		s.door(updateApp, "PATCH applications/{id}", (*visit).updateApp),
		s.door(deleteApp, "DELETE applications/{id}", (*visit).deleteApp),
		s.door(ownApp, "POST applications/{id}/owners/$ref", (*visit).addOwner),
		s.door(ownApp, "DELETE applications/{id}/owners/{member}/$ref", (*visit).removeOwner),
		s.door(credentialApp, "POST applications/{id}/addpassword", (*visit).addPassword),
		s.door(credentialApp, "POST applications/{id}/removepassword", (*visit).removePassword),
		s.door(credentialApp, "POST serviceprincipals/{id}/addpassword", (*visit).addPassword),
		s.door(credentialApp, "POST serviceprincipals/{id}/removepassword", (*visit).removePassword),
		s.door(readEntity, "GET {entity}", (*visit).readEntity),
	}
	out = append(out, s.collection(readApps, "applications", false, (*visit).listApps)...)
	return append(out, s.collection(readAppOwners, "applications/{id}/owners", true, (*visit).listOwners)...)
}

// application is what the path names, by object id; an application's principal
// stands for its application.
func (v *visit) application() (*App, error) {
	id := fold(v.seg(1))
	if strings.EqualFold(v.seg(0), "servicePrincipals") {
		p := v.s.index.sp(id)
		if p == nil || p.Tenant != v.tenant {
			return nil, missing("servicePrincipal", id)
		}
		if a := v.s.index.client(p.AppID); a != nil && a.Tenant == v.tenant && !p.Managed {
			return a, nil
		}
		return nil, arm.Errorf(arm.BadRequest, "A managed identity has no credentials that anybody could add or remove.")
	}
	a := v.s.index.app(id)
	if a == nil || a.Tenant != v.tenant {
		return nil, missing("application", v.seg(1))
	}
	return a, nil
}

func (v *visit) listApps() (answer, error) {
	rows := find(v.s.index, func(x *index) (out []map[string]any) {
		for _, a := range x.apps {
			if a.Tenant == v.tenant {
				out = append(out, a.show())
			}
		}
		return out
	})
	return v.list("applications", rows)
}

func (v *visit) readApp() (answer, error) {
	a, err := v.application()
	if err != nil {
		return answer{}, err
	}
	return v.one(http.StatusOK, "applications", a.show())
}

// readEntity reads one object in OData's spelling: applications(appId='...').
func (v *visit) readEntity() (answer, error) {
	set, id, ok := entityKey(v.seg(0))
	if !ok {
		return answer{}, missing("entity set", v.seg(0))
	}
	switch strings.ToLower(set) {
	case "applications":
		if err := v.also(readApps); err != nil {
			return answer{}, err
		}
		if a := v.s.index.client(id); a != nil && a.Tenant == v.tenant {
			return v.one(http.StatusOK, "applications", a.show())
		}
	case "serviceprincipals":
		if err := v.also(readPrincipals); err != nil {
			return answer{}, err
		}
		if p := v.s.index.spOf(v.tenant, id); p != nil {
			return v.one(http.StatusOK, "servicePrincipals", p.show(v.s.index.client(id)))
		}
	case "directoryroles":
		if err := v.also(readRoles); err != nil {
			return answer{}, err
		}
		if h := book.byID[fold(id)]; h != nil {
			return v.one(http.StatusOK, "directoryRoles", h.showRole())
		}
	}
	return answer{}, missing(set, id)
}

// fill takes over what the client said.
func (a *App) fill(s *Service, b appBody) error {
	if b.Audience != nil && *b.Audience != "AzureADMyOrg" && *b.Audience != "" {
		return arm.Errorf(arm.BadRequest, "signInAudience is %s; only AzureADMyOrg is supported: applications belong to one tenant.", printable(*b.Audience))
	}
	if len(b.Passwords) > 0 {
		return arm.Errorf(arm.BadRequest, "passwordCredentials can't be set: secrets are made by the server; use addPassword.")
	}
	if b.Name != nil {
		if err := checkName(*b.Name); err != nil {
			return err
		}
		a.Name = *b.Name
	}
	if b.Fallback != nil {
		a.Public = *b.Fallback
	}
	if b.URIs != nil {
		for _, u := range *b.URIs {
			if err := s.checkIdentifier(u, a); err != nil {
				return err
			}
		}
		a.URIs = *b.URIs
	}
	if err := a.fillRedirects(b); err != nil {
		return err
	}
	if err := a.fillPermissions(b); err != nil {
		return err
	}
	return a.fillKeys(b, s.Now())
}

// checkIdentifier says whether an application may be known by uri: its own id,
// or a name in the tenant. None may pass for one of the platform's own APIs.
func (s *Service) checkIdentifier(uri string, a *App) error {
	t := s.index.tenantOf(a.Tenant)
	heads := []string{"api://" + a.AppID, "api://" + a.Tenant}
	if t != nil && !s.own(t.Domain) {
		heads = append(heads, "api://"+t.Domain, "https://"+t.Domain)
	}
	if printable(uri) != uri || strings.ContainsAny(uri, " ?#*\\%") || strings.HasSuffix(uri, "/") {
		heads = nil
	}
	for i, h := range heads {
		if uri == h && i == 0 || strings.HasPrefix(uri, h+"/") {
			return nil
		}
	}
	return arm.Errorf(arm.BadRequest, "Values of identifierUris must be api://%s or begin with it, with api:// and the tenant's id, or with a verified domain of the tenant, and a slash.", a.AppID)
}

func (a *App) fillRedirects(b appBody) error {
	for _, x := range []struct {
		sent *redirects
		mine func(Redirect) bool
		like Redirect
	}{
		{b.Web, func(r Redirect) bool { return r.Web }, Redirect{Web: true}},
		{b.SPA, func(r Redirect) bool { return r.SPA }, Redirect{SPA: true}},
		{b.Public, func(r Redirect) bool { return !r.Web && !r.SPA }, Redirect{}},
	} {
		if x.sent == nil || x.sent.URIs == nil {
			continue
		}
		a.Redirects = slices.DeleteFunc(slices.Clone(a.Redirects), x.mine)
		for _, u := range x.sent.URIs {
			if err := checkRedirect(u); err != nil {
				return err
			}
			r := x.like
			r.URI = u
			a.Redirects = append(a.Redirects, r)
		}
	}
	if len(a.Redirects) > maxRedirects {
		return arm.Errorf(arm.BadRequest, "An application has at most %d redirect URIs.", maxRedirects)
	}
	return nil
}

// checkRedirect says whether codes may ever be sent to uri: https to a host, or
// http to the person's own machine, and spelt in a way that has one meaning.
func checkRedirect(uri string) error {
	u, err := url.Parse(uri)
	if err != nil || len(uri) > 2048 || printable(uri[:min(len(uri), 200)]) != uri[:min(len(uri), 200)] || strings.ContainsAny(uri, "*\\#@ %\"<>'`{}|^;") {
		return arm.Errorf(arm.BadRequest, "The redirect URI %s is not allowed: it must be an absolute URI without wildcards, user names, fragments, escapes or other special characters.", printable(uri))
	}
	local := u.Hostname() == "localhost" || u.Hostname() == "127.0.0.1"
	switch {
	case u.Opaque != "" || u.Host == "" || u.Hostname() == "" || strings.Contains(u.Path, "//") || strings.Contains(u.Path+"/", "/../") || strings.Contains(u.Path+"/", "/./"):
	case u.Scheme == "https" && strings.HasPrefix(uri, "https://") && strings.ToLower(u.Host) == u.Host && !strings.HasSuffix(u.Hostname(), "."):
		return nil
	case u.Scheme == "http" && local && strings.HasPrefix(uri, "http://"):
		return nil
	}
	return arm.Errorf(arm.BadRequest, "The redirect URI %s is not allowed: it must be https, or http to localhost or 127.0.0.1.", printable(uri))
}

// fillKeys replaces the certificates. One that is sent with its keyId and
// without its key is kept as it is.
func (a *App) fillKeys(b appBody, now time.Time) error {
	if b.Keys == nil {
		return nil
	}
	if len(*b.Keys) > maxCredentials {
		return arm.Errorf(arm.BadRequest, "An application has at most %d certificates.", maxCredentials)
	}
	var out []Cert
	for _, k := range *b.Keys {
		if at := slices.IndexFunc(a.Certs, func(c Cert) bool { return c.KeyID == fold(k.KeyID) }); k.Key == "" && at >= 0 {
			out = append(out, a.Certs[at])
			continue
		}
		c, err := readCert(k, now)
		if err != nil {
			return err
		}
		out = append(out, c)
	}
	a.Certs = out
	return nil
}

func readCert(k keyBody, now time.Time) (Cert, error) {
	bad := func(why string) (Cert, error) {
		return Cert{}, arm.Errorf(arm.BadRequest, "A key credential is invalid: %s.", why)
	}
	if !strings.EqualFold(k.Type, "AsymmetricX509Cert") || !strings.EqualFold(k.Usage, "Verify") {
		return bad("type must be AsymmetricX509Cert and usage Verify")
	}
	der, err := base64.StdEncoding.DecodeString(k.Key)
	if err != nil {
		return bad("key must be base64")
	}
	if block, _ := pem.Decode(der); block != nil {
		der = block.Bytes
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return bad("key must be an X.509 certificate")
	}
	if !strong(cert.PublicKey) {
		return bad("the certificate's key must be RSA of at least 2048 bits, or on the curve P-256")
	}
	if !now.Before(cert.NotAfter) {
		return bad("the certificate has expired")
	}
	id := fold(k.KeyID)
	if !isGUID(id) {
		id = arm.NewUUID()
	}
	return Cert{KeyID: id, Name: k.Name, DER: der, Start: cert.NotBefore, End: cert.NotAfter}, nil
}

// strong reports whether a key may sign client assertions.
func strong(key any) bool {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return k.N.BitLen() >= minRSA
	case *ecdsa.PublicKey:
		return k.Curve == elliptic.P256()
	}
	return false
}

func (v *visit) createApp() (answer, error) {
	var b appBody
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	if b.Name == nil {
		return answer{}, arm.Errorf(arm.BadRequest, "An application needs a displayName.")
	}
	a := &App{ID: arm.NewUUID(), Tenant: v.tenant, AppID: arm.NewUUID(), Created: v.s.Now().UTC()}
	if err := a.fill(v.s, b); err != nil {
		return answer{}, err
	}
	err := v.change(func(tx *store.Tx) error {
		if err := v.s.put(tx, a); err != nil {
			return err
		}
		return v.ownNew(tx, a.ID, updateApp)
	})
	if err != nil {
		return answer{}, err
	}
	return v.one(http.StatusCreated, "applications", a.show())
}

// amend changes an application in a transaction.
func (v *visit) amend(fn func(tx *store.Tx, a *App) error) (*App, error) {
	was, err := v.application()
	if err != nil {
		return nil, err
	}
	var out *App
	err = v.change(func(tx *store.Tx) error {
		a, ok, err := fetch[*App](tx, v.tenant, "app", was.ID)
		if err != nil {
			return err
		}
		if !ok {
			return missing("application", was.ID)
		}
		out = a
		if err := fn(tx, a); err != nil {
			return err
		}
		return v.s.put(tx, a)
	})
	return out, err
}

func (v *visit) updateApp() (answer, error) {
	var b appBody
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	if b.Keys != nil {
		if err := v.also(credentialApp); err != nil {
			return answer{}, err
		}
	}
	_, err := v.amend(func(tx *store.Tx, a *App) error {
		if err := a.fill(v.s, b); err != nil || b.Name == nil {
			return err
		}
		p, ok, err := named[*Principal](tx, "sp|"+v.tenant+"|"+fold(a.AppID))
		if err != nil || !ok {
			return err
		}
		p.Name = a.Name
		return v.s.put(tx, p)
	})
	return done, err
}

// deleteApp deletes an application with its principal.
func (v *visit) deleteApp() (answer, error) {
	a, err := v.application()
	if err != nil {
		return answer{}, err
	}
	return done, v.change(func(tx *store.Tx) error {
		p, ok, err := named[*Principal](tx, "sp|"+v.tenant+"|"+fold(a.AppID))
		if err != nil {
			return err
		}
		if ok {
			if err := v.s.lastAdmin(tx, v.tenant, p.ID); err != nil {
				return err
			}
			if err := v.s.remove(tx, p); err != nil {
				return err
			}
		}
		return v.s.remove(tx, a)
	})
}

// addPassword makes a secret, which this answer alone shows.
func (v *visit) addPassword() (answer, error) {
	var b struct {
		Credential struct {
			Name  *string    `json:"displayName"`
			Start *time.Time `json:"startDateTime"`
			End   *time.Time `json:"endDateTime"`
		} `json:"passwordCredential"`
	}
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	text, now := newSecret(), v.s.Now().UTC()
	x := Secret{KeyID: arm.NewUUID(), Hint: hint(text), Hash: hashSecret(text), Start: now, End: now.Add(secretLife)}
	if c := b.Credential; c.Name != nil {
		x.Name = (*c.Name)[:min(len(*c.Name), 120)]
	}
	if s := b.Credential.Start; s != nil {
		x.Start = s.UTC()
	}
	if e := b.Credential.End; e != nil {
		x.End = e.UTC()
	}
	if !x.Start.Before(x.End) || !now.Before(x.End) {
		return answer{}, arm.Errorf(arm.BadRequest, "endDateTime must be later than startDateTime and than now.")
	}
	_, err := v.amend(func(_ *store.Tx, a *App) error {
		if len(a.Secrets) >= maxCredentials {
			return arm.Errorf(arm.BadRequest, "An application has at most %d secrets; remove one first.", maxCredentials)
		}
		a.Secrets = append(a.Secrets, x)
		return nil
	})
	if err != nil {
		return answer{}, err
	}
	m := x.show(text)
	m["@odata.context"] = v.context("microsoft.graph.passwordCredential")
	return answer{http.StatusOK, m}, nil
}

// removePassword ends a secret, and with it every token that it got.
func (v *visit) removePassword() (answer, error) {
	var b struct {
		KeyID string `json:"keyId"`
	}
	if err := v.body(&b); err != nil {
		return answer{}, err
	}
	_, err := v.amend(func(_ *store.Tx, a *App) error {
		n := len(a.Secrets)
		a.Secrets = slices.DeleteFunc(a.Secrets, func(x Secret) bool { return x.KeyID == fold(b.KeyID) })
		if len(a.Secrets) == n {
			return arm.Errorf(arm.BadRequest, "No password credential found with keyId %s.", printable(b.KeyID))
		}
		return nil
	})
	return done, err
}
