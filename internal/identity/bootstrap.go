package identity

import (
	"context"
	"time"

	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/store"
)

// Founding says how the first tenant is made.
type Founding struct {
	Tenant string // its id; empty makes a random one
	Domain string // empty means the site's suffix
	Admin  string // local part of the administrator's user name; empty means admin
	Name   string // for people; empty means the domain
}

// Founded is what Bootstrap made. Secrets are only ever told here.
type Founded struct {
	Fresh        bool // false: there was a tenant already, and only Tenant and Domain are set
	Tenant       string
	Domain       string
	UserName     string // user principal name of the first administrator
	UserObject   string
	Password     arm.Secret // must be changed at first sign-in
	ClientID     string     // of the first administrator's application
	ClientObject string     // object id of its service principal
	ClientSecret arm.Secret
	Subscription string // id of the tenant's subscription
}

// firstSecret is how long the first application's secret lasts.
const firstSecret = 2 * 365 * 24 * time.Hour

// Bootstrap makes the first tenant with one administrator and one application,
// unless there is a tenant already.
func (s *Service) Bootstrap(ctx context.Context, f Founding) (Founded, error) {
	if t := s.index.tenantOf(s.Home()); t != nil {
		return Founded{Tenant: t.ID, Domain: t.Domain}, nil
	}
	return s.found(ctx, f, func(fn func(*store.Tx) error) error { return s.DB.Do(ctx, fn) })
}

// found makes a tenant, in a transaction that change begins.
func (s *Service) found(ctx context.Context, f Founding, change func(func(*store.Tx) error) error) (Founded, error) {
	f = f.defaults(s.Site)
	if !isGUID(f.Tenant) {
		return Founded{}, arm.Errorf(arm.BadRequest, "the tenant id %q is not a GUID", f.Tenant)
	}
	now, password, secret := s.Now().UTC(), letters(20), newSecret()
	hash, err := s.hasher.hash(ctx, password)
	if err != nil {
		return Founded{}, err
	}
	t := &Tenant{ID: fold(f.Tenant), Domain: fold(f.Domain), Name: f.Name, Created: now}
	u := &User{ID: arm.NewUUID(), Tenant: t.ID, UPN: f.Admin + "@" + t.Domain, Name: "Administrator", Password: hash, MustChange: true, Created: now}
	if err := checkUPN(u.UPN, t.Domain); err != nil {
		return Founded{}, err
	}
	app := &App{ID: arm.NewUUID(), Tenant: t.ID, AppID: arm.NewUUID(), Name: "Castellan administration", Created: now,
		Secrets: []Secret{{KeyID: arm.NewUUID(), Name: "first start", Hint: hint(secret), Hash: hashSecret(secret), Start: now, End: now.Add(firstSecret)}}}
	p := &Principal{ID: arm.NewUUID(), Tenant: t.ID, AppID: app.AppID, Name: app.Name, Created: now}
	out := Founded{
		Fresh: true, Tenant: t.ID, Domain: t.Domain, UserName: u.UPN, UserObject: u.ID, Password: arm.NewSecret([]byte(password)),
		ClientID: app.AppID, ClientObject: p.ID, ClientSecret: arm.NewSecret([]byte(secret)),
	}
	err = change(func(tx *store.Tx) error {
		if err := s.putTenant(tx, t); err != nil {
			return err
		}
		for _, e := range []entry{u, app, p} {
			if err := s.put(tx, e); err != nil {
				return err
			}
		}
		if err := s.admitServices(tx, t.ID); err != nil {
			return err
		}
		for _, id := range []string{u.ID, p.ID} {
			if err := s.empower(tx, RoleAssignment{Tenant: t.ID, Principal: id, Role: globalAdministrator, Created: now}); err != nil {
				return err
			}
		}
		if s.onTenant != nil {
			if out.Subscription, err = s.onTenant(tx, out); err != nil {
				return err
			}
		}
		return s.Log.Append(tx, audit.Entry{Tenant: t.ID, Caller: "system:setup", Credential: "system", Action: createTenant.Name(), Target: tenantID(t.ID).String(),
			Item: u.ID + " " + p.ID, Decision: "allowed", Reason: "a tenant begins with administrators", Outcome: "ok"})
	})
	if err != nil {
		return Founded{}, err
	}
	return out, nil
}

func (f Founding) defaults(site arm.Site) Founding {
	if f.Tenant == "" {
		f.Tenant = site.Tenant
	}
	if f.Tenant == "" {
		f.Tenant = arm.NewUUID()
	}
	if f.Domain == "" {
		f.Domain = site.Suffix
	}
	if f.Name == "" {
		f.Name = f.Domain
	}
	if f.Admin == "" {
		f.Admin = "admin"
	}
	return f
}

// putTenant keeps a new tenant, whose id and domain nobody may have.
func (s *Service) putTenant(tx *store.Tx, t *Tenant) error {
	old, err := tx.Get(tenantTable, t.ID)
	if err != nil {
		return err
	}
	holder, err := tx.Get(nameTable, "domain|"+t.Domain)
	if err != nil {
		return err
	}
	if old != nil || holder != nil {
		return arm.Errorf(arm.Conflict, "the id %s or the domain %s is somebody's already", t.ID, t.Domain)
	}
	if err := tx.Put(nameTable, "domain|"+t.Domain, []byte(t.ID)); err != nil {
		return err
	}
	tx.After(func() { s.index.tenant(t) })
	return store.PutJSON(tx, tenantTable, t.ID, t)
}

// newSecret is a client secret of more than 256 random bits.
func newSecret() string { return letters(44) }
