// Package identity knows who people and workloads are: a directory, sign-in and tokens.
package identity

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"castellan/internal/access"
	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/gate"
	"castellan/internal/issuer"
	"castellan/internal/seal"
	"castellan/internal/store"
)

// Config is what a Service needs; all of it is required.
type Config struct {
	DB   *store.DB
	Log  *audit.Log
	Gate *gate.Gate
	Root seal.Key // keys of this package are sealed under keys derived from it
	Site arm.Site // Tenant may be empty until Bootstrap ran: the first tenant is then the home
	Now  func() time.Time
	// Warn tells operators what they must look at; nil tells nobody.
	Warn func(what string, args ...any)
	// Issuers is the file of settings about foreign issuers (issuer.Settings);
	// empty: the system's certificate authorities, and never this machine.
	Issuers string
}

// Service is the directory and what is built on it.
type Service struct {
	Config
	index   *index
	keys    *keyring
	cache   tokenCache
	revoked revocations
	hasher  *hasher
	locks   lockout
	spray   spray
	pace    pace
	flows   seal.Key
	style   style
	apis    map[string]api
	known   map[string]*App
	issuers *issuer.Keys
	rules   atomic.Pointer[map[string]*access.Rules] // Conditional Access, by tenant
	loans   loans
	onGone  []func(tx *store.Tx, principal string) error
	// onTenant makes what else a tenant begins with.
	onTenant func(tx *store.Tx, f Founded) (subscription string, err error)
	fed      *federation
}

// New opens the directory that cfg.DB keeps, and makes signing keys if there
// are none yet.
func New(cfg Config) (*Service, error) {
	st, err := newStyle()
	if err != nil {
		return nil, fmt.Errorf("reading the sign-in page: %w", err)
	}
	s := &Service{
		Config: cfg, index: newIndex(), keys: newKeyring(cfg.Root), hasher: newHasher(), flows: cfg.Root.Derive("identity flows"), style: st,
		cache: tokenCache{m: map[[32]byte]*verified{}}, revoked: revocations{m: map[string]time.Time{}},
		locks: lockout{known: map[string]lock{}, other: map[string]lock{}}, spray: spray{nets: map[netip.Prefix]guesses{}},
		pace: pace{polls: map[string]time.Time{}, guesses: map[string][]time.Time{}},
		apis: audiences(cfg.Site), known: wellKnown(cfg.Site),
		fed: newFederation(),
	}
	if s.issuers, err = issuer.Open(issuer.Config{File: cfg.Issuers, Own: s.own, Now: cfg.Now}); err != nil {
		return nil, err
	}
	s.OnPrincipalGone(forgetMethods)
	ctx := context.Background()
	if err := cfg.DB.Do(ctx, s.migrateRoles); err != nil {
		return nil, fmt.Errorf("reading the directory's roles: %w", err)
	}
	err = cfg.DB.View(ctx, func(tx *store.Tx) error {
		for _, load := range []func(*store.Tx) error{s.index.load, s.loadAccess, s.keys.load, s.revoked.load, s.locks.load} {
			if err := load(tx); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the directory: %w", err)
	}
	if err := s.admitEverywhere(ctx); err != nil {
		return nil, err
	}
	return s, s.keys.ensure(ctx, cfg.DB, cfg.Now())
}

// Run publishes the keys that will sign next. Then it forgets, now and then,
// what nobody can use any more, and synchronises LDAP directories when that is
// due, until ctx is done.
func (s *Service) Run(ctx context.Context) error {
	if err := s.keys.announce(ctx, s.DB, s.Now()); err != nil {
		return err
	}
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for swept := (time.Time{}); ; {
		if now := s.Now(); now.Sub(swept) >= time.Hour {
			if err := s.DB.Do(ctx, func(tx *store.Tx) error { return s.sweep(tx, now) }); err != nil {
				return err
			}
			swept = now
		}
		s.syncDue(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Home is the id of the tenant that the installation's subscriptions belong to,
// or "" before Bootstrap.
func (s *Service) Home() string {
	if s.Site.Tenant != "" {
		return s.Site.Tenant
	}
	return find(s.index, func(x *index) string {
		var first *Tenant
		for _, t := range x.tenants {
			if first == nil || t.Created.Before(first.Created) {
				first = t
			}
		}
		if first == nil {
			return ""
		}
		return first.ID
	})
}

// Challenge is the WWW-Authenticate value that sends a client to sign-in, at the
// tenant whose the subscription in the path is.
func (s *Service) Challenge(r *http.Request) string {
	tenant := s.Site.TenantOfKey(strings.ToLower(r.URL.Path))
	if tenant == "" {
		tenant = s.Home()
	}
	return `Bearer authorization_uri="` + s.Site.Base() + "/" + tenant + `"`
}

// OnPrincipalGone makes fn run in every transaction that removes a principal.
// Call it before the first request.
func (s *Service) OnPrincipalGone(fn func(tx *store.Tx, principal string) error) {
	s.onGone = append(s.onGone, fn)
}

// Principal is the kind of the principal with this object id, whatever the id's
// letter case, as tx sees it; ok is false if the tenant has none.
func (s *Service) Principal(tx *store.Tx, tenant, id string) (kind arm.Kind, ok bool, err error) {
	if !isGUID(id) {
		return "", false, nil
	}
	for _, c := range []struct {
		class string
		kind  arm.Kind
	}{{"user", arm.User}, {"group", arm.Group}, {"sp", arm.ServicePrincipal}} {
		v, err := tx.Get(objectTable, tenant+"|"+c.class+"|"+fold(id))
		if err != nil {
			return "", false, err
		}
		if v != nil {
			return c.kind, true, nil
		}
	}
	return "", false, nil
}

// Groups are the object ids of all groups that the principal is in, also by
// nesting, as tx sees it; none for a principal that is not there.
func (s *Service) Groups(tx *store.Tx, tenant, id string) ([]string, error) {
	seen := map[string]bool{}
	var out []string
	for todo := []string{fold(id)}; len(todo) > 0; {
		next := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		rows, err := tx.Scan(groupTable, tenant+"|"+next+"|", "", 0)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			g := r.Key[strings.LastIndexByte(r.Key, '|')+1:]
			if !seen[g] {
				seen[g] = true
				out, todo = append(out, g), append(todo, g)
			}
		}
	}
	return out, nil
}
