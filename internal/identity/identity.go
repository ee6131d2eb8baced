// Package identity knows who people and workloads are: a directory, sign-in and tokens.
package identity

import (
	"context"
	"errors"
	"net/http"
	"time"

	"castellan/internal/arm"
	"castellan/internal/audit"
	"castellan/internal/gate"
	"castellan/internal/resource"
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
}

// Service is the directory and what is built on it.
type Service struct {
	Config
	onGone []func(tx *store.Tx, principal string) error
}

var errSkeleton = errors.New("identity: not built yet")

// New opens the directory that cfg.DB keeps.
func New(cfg Config) (*Service, error) { return &Service{Config: cfg}, nil }

// Founding says how the first tenant is made.
type Founding struct {
	Tenant string // its id; empty makes a random one
	Domain string // empty means the site's suffix
	Admin  string // local part of the administrator's user name; empty means admin
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
}

// Bootstrap makes the first tenant with one administrator and one application,
// unless there is a tenant already.
func (s *Service) Bootstrap(ctx context.Context, f Founding) (Founded, error) {
	return Founded{}, errSkeleton
}

// Home is the id of the tenant that the installation's subscriptions belong to, or "".
func (s *Service) Home() string { return s.Site.Tenant }

// Login is the sign-in plane, on the shared host.
func (s *Service) Login() *gate.Plane { return &gate.Plane{Name: "login"} }

// Graph is the directory's plane, on its own host and below /v1.0 on the shared one.
func (s *Service) Graph() *gate.Plane { return &gate.Plane{Name: "graph"} }

// Bearer reads the caller from a request's bearer token, which must be for one
// of the audiences and from the home tenant.
func (s *Service) Bearer(audiences ...string) func(*http.Request) (arm.Caller, error) {
	return func(*http.Request) (arm.Caller, error) { return arm.Caller{}, errSkeleton }
}

// VerifyToken is the caller that an access token for one of the audiences proves.
func (s *Service) VerifyToken(ctx context.Context, raw string, audiences []string) (arm.Caller, error) {
	return arm.Caller{}, errSkeleton
}

// Challenge is the WWW-Authenticate value that sends a client to sign-in.
func (s *Service) Challenge() string {
	return `Bearer authorization_uri="` + s.Site.Base() + "/" + s.Home() + `"`
}

// Decide answers for ids below /providers/Microsoft.Directory; handled is false
// for all others.
func (s *Service) Decide(c arm.Caller, a arm.Action, id arm.ID) (handled, allowed bool, reason string) {
	return false, false, ""
}

// MintManaged is what a token for a managed identity asks for. No role has it:
// only the platform's own leases do.
var MintManaged = arm.NewDataAction("Castellan.Identity/managedIdentities/mint/action", "get a token as a managed identity")

// ManagedToken makes an access token for the managed identity that the Grant's
// target has (a resource) or is (a user-assigned identity).
func (s *Service) ManagedToken(ctx context.Context, g gate.Grant, audience string) (token string, expires time.Time, clientID string, err error) {
	return "", time.Time{}, "", errSkeleton
}

// OnPrincipalGone makes fn run in every transaction that removes a principal.
// Call it before the first request.
func (s *Service) OnPrincipalGone(fn func(tx *store.Tx, principal string) error) {
	s.onGone = append(s.onGone, fn)
}

// Ensure is the system-assigned identity of a resource, made if it is not there.
func (s *Service) Ensure(tx *store.Tx, of arm.ID, name string) (principal, tenant string, err error) {
	return "", "", errSkeleton
}

// Drop removes the system-assigned identity of a resource, if it has one.
func (s *Service) Drop(tx *store.Tx, of arm.ID) error { return errSkeleton }

// UserAssigned is the principal of a user-assigned identity.
func (s *Service) UserAssigned(tx *store.Tx, id arm.ID) (principal, client string, ok bool, err error) {
	return "", "", false, errSkeleton
}

// Kinds are the resource kinds of this package.
func (s *Service) Kinds() []*resource.Kind { return nil }

var _ resource.Identities = (*Service)(nil)
