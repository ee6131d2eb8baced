package identity

import (
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/issuer"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// Federated is a trust in another issuer: its tokens with exactly this subject
// and audience stand for a credential of ours (workload identity federation).
type Federated struct {
	ID, Name, Description string
	Issuer, Subject       string
	Audiences             []string
	// Proof is what tokens given for it carry (evd). It is another whenever
	// issuer, subject or audience are, so that tokens given before are dead.
	Proof   string
	Created time.Time
}

const (
	maxFederated = 20
	// ExchangeAudience is what Azure's clients ask foreign issuers for.
	ExchangeAudience = "api://AzureADTokenExchange"
)

func trusts(list []Federated, proof string) bool {
	return slices.ContainsFunc(list, func(f Federated) bool { return f.Proof == proof && proof != "" })
}

// federatedIdentity is a user-assigned managed identity as a client of the
// token endpoint, where it proves itself by another issuer's token alone.
func (s *Service) federatedIdentity(tenant, appID string) (client, bool) {
	p := s.index.spOf(tenant, appID)
	if p == nil || !p.Managed || !p.Explicit || p.Disabled {
		return client{}, false
	}
	return client{app: &App{Tenant: tenant, AppID: p.AppID, Name: p.Name, Federated: p.Federated}, principal: p, how: "nothing"}, true
}

// own reports whether host is one of the platform's own names.
func (s *Service) own(host string) bool {
	return host == s.Site.Host() || host == s.Site.Suffix || strings.HasSuffix(host, "."+s.Site.Suffix)
}

// federate is the client that another issuer's token proves. said is what the
// token says of itself; nobody is asked about it unless an administrator wrote
// down exactly this issuer, subject and audience.
func (s *Service) federate(ctx context.Context, raw string, said map[string]any, c client) (client, error) {
	f, err := c.trusted(said)
	if err != nil {
		return client{}, err
	}
	m, err := s.foreign(ctx, raw, f.Issuer)
	switch {
	case errors.Is(err, issuer.ErrFetch):
		return client{}, &problem{status: 401, number: 50166, code: "invalid_client", text: "Request to External OIDC endpoint failed.", err: err}
	case err != nil:
		return client{}, &problem{status: 401, number: 50013, code: "invalid_client", text: "Assertion failed signature validation: " + plain(err) + ".", err: err}
	}
	if err := s.foreignTimes(m); err != nil {
		return client{}, problemf(700024, "invalid_client", "Client assertion is not within its valid time range: %s.", plain(err))
	}
	if g, err := c.trusted(m); err != nil || g.ID != f.ID {
		return client{}, problemf(700213, "invalid_client", "No matching federated identity record found for presented assertion.")
	}
	c.evidence, c.how = f.Proof, "federated credential"
	return c, nil
}

// plain is a reason without the word that goes before it.
func plain(err error) string {
	_, why, ok := strings.Cut(err.Error(), ": ")
	if !ok {
		return err.Error()
	}
	return why
}

// trusted is the one trust that a token's claims fit in all three parts.
func (c client) trusted(m map[string]any) (Federated, error) {
	iss, sub := text(m, "iss"), text(m, "sub")
	number, what := 700211, "issuer"
	for _, f := range c.app.Federated {
		if f.Issuer != iss || iss == "" {
			continue
		}
		if number == 700211 {
			number, what = 700213, "subject"
		}
		if f.Subject != sub || sub == "" {
			continue
		}
		if slices.ContainsFunc(audiencesIn(m), func(a string) bool { return slices.Contains(f.Audiences, a) }) {
			return f, nil
		}
		number, what = 700212, "audience"
	}
	return Federated{}, problemf(number, "invalid_client", "No matching federated identity record found for presented assertion %s. Please check your federated identity credential Subject, Audience and Issuer against the presented assertion.", what)
}

// audiencesIn are a token's audiences, of which it may have one or several.
func audiencesIn(m map[string]any) []string {
	if a := text(m, "aud"); a != "" {
		return []string{a}
	}
	return texts(m, "aud")
}

// foreign is the claims of a token of an issuer: one of our own tenants, whose
// keys are at hand, or another, whose keys are fetched.
func (s *Service) foreign(ctx context.Context, raw, name string) (map[string]any, error) {
	tenant, ours := strings.CutPrefix(strings.TrimSuffix(name, "/v2.0"), s.Site.Base()+"/")
	if !ours || !strings.HasSuffix(name, "/v2.0") || s.index.tenantOf(tenant) == nil {
		return s.issuers.Verify(ctx, raw, name)
	}
	v, err := s.open(raw, s.Now())
	if err != nil {
		return nil, err
	}
	if _, err := s.living(v); err != nil {
		return nil, err
	}
	m, _, err := s.keys.verify(accessClass, raw, s.Now())
	if err == nil && (text(m, "iss") != name || text(m, "idtyp") != "app") {
		return nil, badToken("only an application's or managed identity's token of this issuer is taken")
	}
	if err == nil && v.sandbox != "" {
		return nil, badToken("it is bound to a sandbox, and what it would be changed for is not")
	}
	return m, err
}

// foreignTimes holds exp, iat and nbf; a token must say when it ends and when it began.
func (s *Service) foreignTimes(m map[string]any) error {
	now := s.Now()
	exp, err := seconds(m, "exp")
	if err != nil {
		return err
	}
	iat, err := seconds(m, "iat")
	if err != nil {
		return err
	}
	nbf := iat
	if _, given := m["nbf"]; given {
		if nbf, err = seconds(m, "nbf"); err != nil {
			return err
		}
	}
	switch {
	case !now.Before(exp.Add(skew)):
		return badToken("it has expired")
	case now.Add(5*time.Minute).Before(nbf) || now.Add(5*time.Minute).Before(iat):
		return badToken("it is not valid yet")
	case exp.Before(iat) || exp.Sub(iat) > longest:
		return badToken("it lives longer than a day")
	}
	return nil
}

var federatedName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{2,119}$`)

// check says whether f may stand in list, where it has its place by its id.
func (f Federated) check(list []Federated) error {
	if !federatedName.MatchString(f.Name) {
		return arm.Errorf(arm.BadRequest, "The name of a federated identity credential must be 3 to 120 letters, digits, hyphens and underscores, and begin with a letter or digit.")
	}
	if err := issuer.CheckName(f.Issuer); err != nil {
		return arm.Errorf(arm.BadRequest, "issuer is not valid: %s.", err)
	}
	if f.Subject == "" || len(f.Subject) > 600 || strings.TrimSpace(f.Subject) != f.Subject || strings.ContainsRune(f.Subject, '*') {
		return arm.Errorf(arm.BadRequest, "subject must be 1 to 600 characters without spaces around it; it is compared letter by letter, so * stands for nothing else.")
	}
	if len(f.Audiences) != 1 || f.Audiences[0] == "" || len(f.Audiences[0]) > 600 {
		return arm.Errorf(arm.BadRequest, "audiences must have exactly one value of 1 to 600 characters, such as %s.", ExchangeAudience)
	}
	if len(f.Description) > 600 {
		return arm.Errorf(arm.BadRequest, "description is longer than 600 characters.")
	}
	for _, x := range list {
		switch {
		case x.ID == f.ID:
		case fold(x.Name) == fold(f.Name):
			return arm.Errorf(arm.Conflict, "Another federated identity credential has the name %s.", f.Name)
		case x.Issuer == f.Issuer && x.Subject == f.Subject:
			return arm.Errorf(arm.Conflict, "Issuer and subject combination already exists, in the federated identity credential %s.", x.Name)
		}
	}
	return nil
}

// federate puts f into a list, or in the place of the one with its id.
func federate(list []Federated, f Federated) ([]Federated, error) {
	if err := f.check(list); err != nil {
		return nil, err
	}
	at := slices.IndexFunc(list, func(x Federated) bool { return x.ID == f.ID })
	if at < 0 {
		if len(list) >= maxFederated {
			return nil, arm.Errorf(arm.BadRequest, "There are %d federated identity credentials already, and no more can be.", maxFederated)
		}
		f.Proof = arm.NewUUID()
		return append(slices.Clone(list), f), nil
	}
	old := list[at]
	if f.Proof = old.Proof; f.Issuer != old.Issuer || f.Subject != old.Subject || !slices.Equal(f.Audiences, old.Audiences) {
		f.Proof = arm.NewUUID()
	}
	out := slices.Clone(list)
	out[at] = f
	return out, nil
}

// federatedProps is the properties of a user-assigned identity's trust.
type federatedProps struct {
	Issuer    string   `json:"issuer"`
	Subject   string   `json:"subject"`
	Audiences []string `json:"audiences"`
}

// federatedKind is the resource by which a user-assigned identity trusts
// another issuer. What counts lies with the identity's principal.
func (s *Service) federatedKind(of *resource.Kind) *resource.Kind {
	return &resource.Kind{
		Type: of.Type + "/federatedIdentityCredentials", SystemData: "2023-01-31", Doc: "a trust of a user-assigned managed identity in another issuer", Parent: of, Global: true, NoPatch: true,
		Props: func() any { return &federatedProps{} }, Save: s.saveFederated, Remove: func(tx *store.Tx, d *resource.Doc) error {
			return s.amendManaged(tx, d.ID, func(p *Principal) error {
				p.Federated = slices.DeleteFunc(slices.Clone(p.Federated), func(f Federated) bool { return f.ID == d.ID.Key() })
				return nil
			})
		},
	}
}

func (s *Service) saveFederated(tx *store.Tx, c resource.Change) error {
	var props federatedProps
	if err := json.Unmarshal(c.Doc.Properties, &props); err != nil {
		return err
	}
	f := Federated{ID: c.Doc.ID.Key(), Name: c.Doc.Name, Issuer: props.Issuer, Subject: props.Subject, Audiences: props.Audiences, Created: s.Now().UTC()}
	return s.amendManaged(tx, c.Doc.ID, func(p *Principal) (err error) {
		p.Federated, err = federate(p.Federated, f)
		return err
	})
}

// amendManaged changes the principal of the user-assigned identity that has
// child; one that is gone needs no change.
func (s *Service) amendManaged(tx *store.Tx, child arm.ID, fn func(*Principal) error) error {
	p, ok, err := named[*Principal](tx, "mi|"+child.Parent().Key())
	if err != nil || !ok {
		return err
	}
	if err := fn(p); err != nil {
		return err
	}
	return s.put(tx, p)
}
