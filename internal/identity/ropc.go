package identity

import (
	"context"
	"slices"

	"castellan/internal/access"
	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// PasswordGrant says whether an application may hand in a person's password
// itself (the grant password, ROPC). Nothing about it is good: the application
// sees the password, and a second factor can't be asked for. It is off unless
// an administrator names the applications that can't do otherwise.
type PasswordGrant struct {
	Enabled bool     `json:"isEnabled"`
	Clients []string `json:"allowedClients"` // app ids
}

// maxPasswordClients is how many applications can be named.
const maxPasswordClients = 50

// GetPasswordGrant is the tenant's setting.
func (s *Service) GetPasswordGrant(_ context.Context, g gate.Grant) (PasswordGrant, error) {
	id, err := g.On(readDirectory, updatePolicy)
	if err != nil {
		return PasswordGrant{}, err
	}
	t := s.index.tenantOf(id.Name())
	if t == nil {
		return PasswordGrant{}, missing("tenant", id.Name())
	}
	return PasswordGrant{Enabled: t.PasswordGrant, Clients: append([]string{}, t.PasswordClients...)}, nil
}

// SetPasswordGrant changes the tenant's setting.
func (s *Service) SetPasswordGrant(ctx context.Context, g gate.Grant, p PasswordGrant) (PasswordGrant, error) {
	id, err := g.On(updatePolicy)
	if err != nil {
		return PasswordGrant{}, err
	}
	if len(p.Clients) > maxPasswordClients {
		return PasswordGrant{}, arm.Errorf(arm.BadRequest, "allowedClients names %d applications; at most %d are allowed", len(p.Clients), maxPasswordClients)
	}
	out := PasswordGrant{Enabled: p.Enabled, Clients: []string{}}
	for _, c := range p.Clients {
		if s.known[fold(c)] == nil && s.index.spOf(id.Name(), c) == nil {
			return PasswordGrant{}, arm.Errorf(arm.BadRequest, "allowedClients has %s, which is no application of the tenant", printable(c))
		}
		out.Clients = append(out.Clients, fold(c))
	}
	return out, g.Change(ctx, s.DB, func(tx *store.Tx) error {
		return s.amendTenant(tx, id.Name(), func(t *Tenant) { t.PasswordGrant, t.PasswordClients = out.Enabled, out.Clients })
	})
}

// givePassword is the grant password.
func (s *Service) givePassword(ctx context.Context, a *asking) (_ map[string]any, err error) {
	e := signIn{app: a.form.Get("client_id"), grant: "password", how: "password"}
	defer func() { err = s.note(ctx, e, err) }()
	name := a.form.Get("username")
	if a.tenant == nil {
		a.tenant = s.tenantOfPerson(name)
	}
	if a.tenant == nil || !a.tenant.PasswordGrant {
		return nil, problemf(70003, "unsupported_grant_type", "The app requested the grant type 'password', which this organization does not allow: a password is typed into the sign-in page only. Use an authorization code, a device code or a client credential.")
	}
	e.tenant = a.tenant.ID
	if a.client, err = s.authenticate(ctx, a.r, a.form, a.tenant); err != nil {
		return nil, err
	}
	e.app = a.client.app.AppID
	if !slices.Contains(a.tenant.PasswordClients, fold(e.app)) {
		return nil, problemf(7000218, "unauthorized_client", "The app with the id '%s' is not among those that the organization allows the grant type 'password'.", e.app)
	}
	if a.client.evidence == "" && !a.client.app.Public {
		return nil, problemf(7000218, "invalid_client", "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.")
	}
	if err := s.readWish(a); err != nil {
		return nil, err
	}
	if a.wish.resource == "" {
		a.wish.resource = s.Site.GraphAudiences()[0]
	}
	if known := s.index.upn(name); known != nil && known.Tenant == a.tenant.ID {
		e.object, e.name = known.ID, known.UPN
	}
	u, err := s.checkUser(a.r, a.tenant, name, a.form.Get("password"))
	if err != nil {
		return nil, err
	}
	if u.MustChange {
		return nil, problemf(50055, "invalid_grant", "The password is expired: the user must choose another at the sign-in page.")
	}
	return s.person(ctx, &e, a, s.byPassword(a, u), func(*store.Tx) (bool, error) { return false, nil })
}

// tenantOfPerson is the tenant of the domain that a user name ends with.
func (s *Service) tenantOfPerson(name string) *Tenant {
	if u := s.index.upn(name); u != nil {
		return s.index.tenantOf(u.Tenant)
	}
	return nil
}

// byPassword is the sign-in that a password alone is.
func (s *Service) byPassword(a *asking, u *User) grant {
	return grant{Tenant: u.Tenant, User: u.ID, Client: a.client.app.AppID, Family: arm.NewUUID(), Epoch: u.Epoch, Confidential: a.client.evidence != "", Kind: access.Native, Proofs: access.Proofs{{Method: access.Password, At: s.Now()}}}
}
