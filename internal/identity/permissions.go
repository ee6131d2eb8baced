package identity

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/store"
)

// An API has two kinds of permissions. Scopes are what a client may do for a
// person, as far as somebody consented (scp); roles are what a principal has by
// itself, as far as somebody assigned it (roles). Both are rows of tables of
// their own, for both join two principals of the tenant.
const (
	consentTable    = "directory_consents"                   // tenant|client|id
	assignmentTable = "directory_app_roles"                  // tenant|principal|id
	defaultRole     = "00000000-0000-0000-0000-000000000000" // assigned, with no role in particular
)

// Scope is a permission that people hand to clients (oauth2PermissionScopes).
type Scope struct {
	ID, Value                                string
	Admin                                    bool // only administrators consent to it
	Disabled                                 bool
	AdminName, AdminText, UserName, UserText string
}

// AppRole is a permission that principals have (appRoles).
type AppRole struct {
	ID, Value, Name, Description string
	Members                      []string // User, Application
	Disabled                     bool
}

// Needs is what a client says it will ask an API for (requiredResourceAccess).
type Needs struct {
	App    string // app id of the API
	Scopes []string
	Roles  []string // both by id
}

// Preauthorized is a client that an API lets ask for scopes with no consent.
type Preauthorized struct {
	App    string
	Scopes []string // by id
}

// Consent lets a client do things for a person, or for all people, at an API
// (an oauth2PermissionGrant).
type Consent struct {
	ID, Tenant       string
	Client, Resource string // object ids of principals
	User             string // "" is all people
	Scopes           []string
	Created          time.Time
}

// Assignment gives a principal a role at an API (an appRoleAssignment).
type Assignment struct {
	ID, Tenant string
	Principal  string
	Kind       arm.Kind
	Resource   string // object id of the API's principal
	Role       string // by id
	Created    time.Time
}

// shop are the scopes of an API, and who offers them.
type shop struct {
	app    string // app id
	name   string
	scopes []Scope
	roles  []AppRole
	first  bool // one of the platform's own
}

// ownScopes are those of the platform's own APIs. An API of Azure has one;
// what a person may do is decided by roles there. At the directory they also
// bound what a client of somebody else's may do for a person.
func ownScopes(v service) []Scope {
	if v.appID != graphApp {
		return []Scope{{ID: scopeID(v.appID, v.delegate), Value: v.delegate, AdminName: "Access " + v.name, AdminText: "Access " + v.name + " as the person", UserName: "Access " + v.name, UserText: "Access " + v.name + " as you"}}
	}
	return graphScopes
}

const (
	graphApp        = "00000003-0000-0000-c000-000000000000" // the directory's API
	directoryAccess = "Directory.AccessAsUser.All"
)

// graphScopes and graphRoles are what the directory's API offers, by the ids
// that Microsoft published.
var graphScopes, graphRoles = offers(book)

func offers(b *roleBook) (scopes []Scope, roles []AppRole) {
	scope := func(id, value, text string, admin bool) Scope {
		return Scope{ID: id, Value: value, Admin: admin, AdminName: text, AdminText: text, UserName: text, UserText: text}
	}
	scopes = []Scope{
		scope("e1fe6dd8-ba31-4d61-89e7-88639da4683d", "User.Read", "Sign in and read the person's profile", false),
		scope("0e263e50-5827-48a4-b97c-d940288653c7", directoryAccess, "Access the directory with all that the person may do", true),
	}
	for _, h := range b.permissions {
		if h.scope != "" {
			scopes = append(scopes, scope(h.scope, h.name, h.doc, true))
		}
		roles = append(roles, AppRole{ID: h.id, Value: h.name, Name: h.doc, Description: h.doc, Members: []string{"Application"}})
	}
	return scopes, roles
}

// scopes and roles are what the API of a principal offers; a is its
// application, or nil.
func (p *Principal) scopes(a *App) []Scope {
	switch {
	case p.Platform:
		return ownScopes(service{name: p.Name, appID: p.AppID, delegate: "user_impersonation"})
	case a == nil:
		return nil
	}
	return a.Scopes
}

func (p *Principal) roles(a *App) []AppRole {
	switch {
	case p.Platform && p.AppID == graphApp:
		return graphRoles
	case p.Platform || a == nil:
		return nil
	}
	return a.Roles
}

// lets reports whether the client that a person calls the directory with may do
// a for them: an administrator who signs in to somebody's application does not
// hand it the directory. The platform's own client and its own pages may.
func (s *Service) lets(c arm.Caller, a arm.Action) bool {
	if c.Kind != arm.User || c.App == "" || s.known[fold(c.App)] != nil || slices.Contains(c.Scopes, directoryAccess) {
		return true
	}
	if book.everyone.allows(a.Key()) {
		return len(c.Scopes) > 0
	}
	return slices.ContainsFunc(c.Scopes, func(x string) bool {
		h := book.rights[fold(x)]
		return h != nil && h.scope != "" && h.allows(a.Key())
	})
}

// shop is what an API offers in a tenant; ok is false if it is not there.
func (s *Service) shop(tenant, appID string) (shop, bool) {
	for _, v := range services(s.Site) {
		if fold(v.appID) == fold(appID) {
			out := shop{app: v.appID, name: v.name, scopes: ownScopes(v), first: true}
			if v.appID == graphApp {
				out.roles = graphRoles
			}
			return out, true
		}
	}
	a := s.index.client(appID)
	if a == nil || a.Tenant != tenant || s.index.spOf(tenant, a.AppID) == nil {
		return shop{}, false
	}
	return shop{app: a.AppID, name: a.Name, scopes: a.Scopes, roles: a.Roles}, true
}

// scope is the enabled scope that match finds.
func (h shop) scope(match func(Scope) bool) (Scope, bool) {
	at := slices.IndexFunc(h.scopes, func(x Scope) bool { return !x.Disabled && match(x) })
	if at < 0 {
		return Scope{}, false
	}
	return h.scopes[at], true
}

func (h shop) named(value string) (Scope, bool) {
	return h.scope(func(x Scope) bool { return fold(x.Value) == fold(value) })
}

func (h shop) byID(id string) (Scope, bool) {
	return h.scope(func(x Scope) bool { return x.ID == fold(id) })
}

// only are those of the values that the API still offers, in its own spelling.
func (h shop) only(values []string) (out []string) {
	for _, v := range values {
		if x, ok := h.named(v); ok && !slices.Contains(out, x.Value) {
			out = append(out, x.Value)
		}
	}
	slices.Sort(out)
	return out
}

// consented are the scopes of an API that a client may use for a person.
func (s *Service) consented(tx *store.Tx, tenant string, c client, h shop, user string) ([]string, error) {
	out := s.preauthorized(c, h)
	if c.principal == nil { // one of the platform's own clients; nobody consents to it
		return h.only(out), nil
	}
	resource := s.index.spOf(tenant, h.app)
	if resource == nil {
		return nil, nil
	}
	rows, err := store.ScanJSON[Consent](tx, consentTable, tenant+"|"+c.principal.ID+"|", "", 0)
	if err != nil {
		return nil, err
	}
	for _, g := range rows {
		if g.Resource == resource.ID && (g.User == "" || g.User == user) {
			out = append(out, g.Scopes...)
		}
	}
	return h.only(out), nil
}

// preauthorized are the scopes that need no consent: the platform's own client
// at the platform's own APIs, a client at its own API, and whom an API names.
func (s *Service) preauthorized(c client, h shop) (out []string) {
	own := c.principal == nil
	if own && h.first {
		return []string{s.delegate(h.app)}
	}
	if !own && fold(c.app.AppID) == fold(h.app) {
		for _, x := range h.scopes {
			out = append(out, x.Value)
		}
		return out
	}
	api := s.index.client(h.app)
	if h.first || api == nil {
		return nil
	}
	for _, p := range api.Trusted {
		for _, id := range p.Scopes {
			if x, ok := h.byID(id); ok && fold(p.App) == fold(c.app.AppID) {
				out = append(out, x.Value)
			}
		}
	}
	return out
}

// delegate is the scope that the platform's own client has at an own API.
func (s *Service) delegate(appID string) string {
	for _, v := range services(s.Site) {
		if v.appID == appID {
			return v.delegate
		}
	}
	return ""
}

// permit is what a person's token for an API says in scp, or why there is none.
// What is asked by name must have been consented to; whatever else was, is said too.
func (s *Service) permit(tx *store.Tx, tenant string, c client, to api, scopes []string, user string) (string, error) {
	h, ok := s.shop(tenant, to.app)
	if !ok {
		return "", problemf(650052, "invalid_resource", "The app is trying to access a service '%s' that the organization lacks a service principal for.", printable(to.name))
	}
	had, err := s.consented(tx, tenant, c, h, user)
	if err != nil {
		return "", err
	}
	if len(had) == 0 && !(c.principal != nil && fold(c.app.AppID) == fold(h.app)) {
		return "", unconsented(c)
	}
	for _, name := range bareScopes(scopes) {
		if name == ".default" {
			continue
		}
		x, ok := h.named(name)
		if !ok {
			return "", problemf(650053, "invalid_scope", "The application '%s' asked for scope '%s' that doesn't exist on the resource '%s'.", c.app.AppID, printable(name), h.app)
		}
		if !slices.Contains(had, x.Value) {
			return "", unconsented(c)
		}
	}
	return strings.Join(had, " "), nil
}

func unconsented(c client) error {
	p := problemf(65001, "invalid_grant", "The user or administrator has not consented to use the application with ID '%s' named '%s'. Send an interactive authorization request for this user and resource.", c.app.AppID, printable(c.app.Name))
	p.sub = "consent_required"
	return p
}

// bareScopes are scopes without the API's name in front.
func bareScopes(scopes []string) (out []string) {
	for _, s := range scopes {
		out = append(out, s[strings.LastIndexByte(s, '/')+1:])
	}
	return out
}

// assigned are the roles that a principal has at an API: its own, and for
// people those of the groups that they are in themselves.
func (s *Service) assigned(tx *store.Tx, tenant, resource string, holders []string) (out []Assignment, err error) {
	for _, id := range holders {
		rows, err := store.ScanJSON[Assignment](tx, assignmentTable, tenant+"|"+id+"|", "", 0)
		if err != nil {
			return nil, err
		}
		for _, a := range rows {
			if a.Resource == resource {
				out = append(out, a)
			}
		}
	}
	return out, nil
}

// holders are whose assignments count for a subject.
func (s *Service) holders(sub subject) []string {
	if sub.user == nil {
		return []string{sub.sp.ID}
	}
	return append(s.index.directGroups(sub.user.ID), sub.user.ID)
}

// rolesAt is what a subject's token for an API says in roles, or why there is
// none: where an assignment is required, those without one are turned away.
func (s *Service) rolesAt(tx *store.Tx, tenant, appID string, sub subject) (out []string, err error) {
	p := s.index.spOf(tenant, appID)
	if p == nil {
		return nil, nil
	}
	offered := p.roles(s.index.client(appID))
	list, err := s.assigned(tx, tenant, p.ID, s.holders(sub))
	if err != nil {
		return nil, err
	}
	if len(list) == 0 && p.AssignmentRequired && !(sub.sp != nil && sub.sp.ID == p.ID) {
		return nil, unassigned(p, sub)
	}
	kind := map[bool]string{true: "User", false: "Application"}[sub.user != nil]
	for _, x := range list {
		if at := slices.IndexFunc(offered, func(r AppRole) bool { return r.ID == x.Role && !r.Disabled && slices.Contains(r.Members, kind) }); at >= 0 && !slices.Contains(out, offered[at].Value) {
			out = append(out, offered[at].Value)
		}
	}
	slices.Sort(out)
	return out, nil
}

func unassigned(p *Principal, sub subject) error {
	if sub.user == nil {
		return problemf(501051, "invalid_grant", "Application '%s'(%s) is not assigned to a role for the application '%s'(%s).", sub.client, printable(sub.sp.Name), p.AppID, printable(p.Name))
	}
	return problemf(50105, "invalid_grant", "Your administrator has configured the application %s ('%s') to block users unless they are specifically granted ('assigned') access to the application. The signed in user is blocked because they are not a direct member of a group with access, nor had access directly assigned by an administrator.", printable(p.Name), p.AppID)
}

// directGroups are the groups that id is in itself, not by nesting.
func (x *index) directGroups(id string) []string {
	return find(x, func(x *index) (out []string) {
		for g := range x.parents[id] {
			out = append(out, g)
		}
		return out
	})
}

// forgetPermissions removes what joins a principal that is gone to others.
func (s *Service) forgetPermissions(tx *store.Tx, tenant, id string) error {
	consents, err := store.ScanJSON[Consent](tx, consentTable, tenant+"|", "", 0)
	if err != nil {
		return err
	}
	for _, c := range consents {
		if c.Client != id && c.Resource != id && c.User != id {
			continue
		}
		if err := tx.Delete(consentTable, c.key()); err != nil {
			return err
		}
	}
	roles, err := store.ScanJSON[Assignment](tx, assignmentTable, tenant+"|", "", 0)
	if err != nil {
		return err
	}
	for _, a := range roles {
		if a.Principal != id && a.Resource != id {
			continue
		}
		if err := s.unassign(tx, a); err != nil {
			return err
		}
	}
	return nil
}

// assign gives a principal a role at an API; unassign takes it away. The next
// call of whoever has it is decided by that.
func (s *Service) assign(tx *store.Tx, a Assignment) error {
	tx.After(func() { s.index.assign(a) })
	return store.PutJSON(tx, assignmentTable, a.key(), a)
}

func (s *Service) unassign(tx *store.Tx, a Assignment) error {
	tx.After(func() { s.index.unassign(a) })
	return tx.Delete(assignmentTable, a.key())
}

func (c Consent) key() string    { return c.Tenant + "|" + c.Client + "|" + c.ID }
func (a Assignment) key() string { return a.Tenant + "|" + a.Principal + "|" + a.ID }

// admitServices gives a tenant the principals of the platform's own APIs, which
// consents and conditions point at.
func (s *Service) admitServices(tx *store.Tx, tenant string) error {
	for _, v := range services(s.Site) {
		_, ok, err := named[*Principal](tx, "sp|"+tenant+"|"+fold(v.appID))
		if err != nil {
			return err
		}
		if ok {
			continue
		}
		if err := s.put(tx, &Principal{ID: arm.NewUUID(), Tenant: tenant, AppID: v.appID, Name: v.name, Platform: true, Created: s.Now().UTC()}); err != nil {
			return err
		}
	}
	return nil
}

// admitEverywhere does so for tenants that were made before an API was there.
func (s *Service) admitEverywhere(ctx context.Context) error {
	tenants := find(s.index, func(x *index) (out []string) {
		for id := range x.tenants {
			out = append(out, id)
		}
		return out
	})
	for _, id := range tenants {
		if s.admitted(id) {
			continue
		}
		if err := s.DB.Do(ctx, func(tx *store.Tx) error { return s.admitServices(tx, id) }); err != nil {
			return fmt.Errorf("admitting the platform's own APIs: %w", err)
		}
	}
	return nil
}

// admitted reports whether a tenant has all of them.
func (s *Service) admitted(tenant string) bool {
	for _, v := range services(s.Site) {
		if s.index.spOf(tenant, v.appID) == nil {
			return false
		}
	}
	return true
}

// scopeID is a lasting id for a scope of the platform's own.
func scopeID(appID, value string) string {
	h := hexOf("scope|" + appID + "|" + value)
	return strings.Join([]string{h[:8], h[8:12], "4" + h[13:16], "8" + h[17:20], h[20:32]}, "-")
}

var permissionValue = regexp.MustCompile(`^[A-Za-z0-9!#$%&'()*+,\-:;<=>?@\[\]^+_{|}~./]{1,120}$`)

func hexOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
