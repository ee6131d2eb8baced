package identity

import (
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/store"
)

// The directory is a handful of kinds of objects, each a row of one table under
// tenant|class|id, with an index in memory that follows every commit. Names
// that must be unique are claimed in a table of their own, so that uniqueness
// is decided by the transaction and not by the index.
const (
	tenantTable = "tenants"
	objectTable = "directory"
	nameTable   = "directory_names"
	memberTable = "directory_members" // tenant|group|member
	groupTable  = "directory_groups"  // tenant|member|group: the same, read from the other side
)

// Tenant is one directory.
type Tenant struct {
	ID, Domain, Name string
	Created          time.Time
	PasswordGrant    bool     // the grant password is allowed, to these clients
	PasswordClients  []string // app ids
	Lifetimes        []LifetimePolicy
	UserConsent      bool // people may consent for themselves to what is not for administrators alone
}

// User is a person.
type User struct {
	ID, Tenant, UPN, Name, Given, Surname, Mail string
	Password                                    string // argon2id, in PHC form; empty: nobody can sign in
	MustChange, Disabled                        bool
	Epoch                                       int // what was issued in an earlier epoch is dead
	Created                                     time.Time
	// BreakGlass is an account for emergencies: no Conditional Access policy
	// holds it, and each use is recorded loudly.
	BreakGlass bool
	outside
}

// Group is a set of principals, groups among them.
type Group struct {
	ID, Tenant, Name, Description, Nick string
	Created                             time.Time
	Assignable                          bool // directory roles can be given to it; never changed
	outside
}

// App is an application: what can ask for tokens, and how it proves itself.
type App struct {
	ID, Tenant, AppID, Name string
	Public                  bool // may use flows without a credential of its own
	Redirects               []Redirect
	URIs                    []string // by which its own API is known (identifierUris)
	Secrets                 []Secret
	Certs                   []Cert
	Created                 time.Time
	Federated               []Federated // other issuers whose tokens stand for a credential
	Scopes                  []Scope     // of its own API
	Roles                   []AppRole   // at its own API
	Needs                   []Needs     // what it says it will ask others for
	Trusted                 []Preauthorized
	TokenVersion            int    // of tokens for its API; 0 is 2
	Lifetime                string // id of the policy for tokens for its API
	GroupClaims             string // SecurityGroup or All: tokens for its API name groups
}

// Redirect is a place that codes may be sent to.
type Redirect struct {
	URI string
	Web bool // the client there keeps a secret
	SPA bool // the client there is a page in a browser
}

// Secret is a client secret, of which only the hash is kept: it is random and
// long, so a plain hash tells nothing about it.
type Secret struct {
	KeyID, Name, Hint string
	Hash              []byte
	Start, End        time.Time
}

// Cert is a certificate whose key signs client assertions.
type Cert struct {
	KeyID, Name string
	DER         []byte
	Start, End  time.Time
}

// Principal is what an application, or a resource, is in a tenant: what rights
// can be given to (a servicePrincipal in Graph's words).
type Principal struct {
	ID, Tenant, AppID, Name string
	Managed                 bool
	Explicit                bool   // a user-assigned managed identity
	Resource                string // id of the resource that has the managed identity, or is it
	Disabled                bool
	Epoch                   int
	Created                 time.Time
	Federated               []Federated // of a user-assigned managed identity
	Platform                bool        // of the platform's own APIs
	AssignmentRequired      bool        // only for who has a role at it
	Lifetime                string      // id of the policy for tokens for its API
}

// entry is an object of the directory.
type entry interface {
	// place is where it lies.
	place() (tenant, class, id string)
	// unique are the names that no other object may have.
	unique() []string
}

func (u *User) place() (string, string, string)      { return u.Tenant, "user", u.ID }
func (g *Group) place() (string, string, string)     { return g.Tenant, "group", g.ID }
func (a *App) place() (string, string, string)       { return a.Tenant, "app", a.ID }
func (p *Principal) place() (string, string, string) { return p.Tenant, "sp", p.ID }

func (u *User) unique() []string {
	return append([]string{"upn|" + fold(u.UPN)}, u.outside.unique(u.Tenant)...)
}
func (g *Group) unique() []string { return g.outside.unique(g.Tenant) }

func (a *App) unique() []string {
	out := []string{"app|" + fold(a.AppID)}
	for _, u := range a.URIs {
		out = append(out, "uri|"+fold(u))
	}
	return out
}

func (p *Principal) unique() []string {
	out := []string{"sp|" + p.Tenant + "|" + fold(p.AppID)}
	if p.Resource != "" {
		out = append(out, "mi|"+fold(p.Resource))
	}
	return out
}

// fold is the one form in which names are compared. It lowers ASCII letters
// only: no other letter becomes one of them.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, strings.TrimSpace(s))
}

func rowKey(e entry) string {
	t, c, id := e.place()
	return t + "|" + c + "|" + id
}

// put keeps e, which must not be changed afterwards.
func (s *Service) put(tx *store.Tx, e entry) error {
	if err := s.rename(tx, e); err != nil {
		return err
	}
	if err := store.PutJSON(tx, objectTable, rowKey(e), e); err != nil {
		return err
	}
	tx.After(func() { s.index.put(e) })
	return nil
}

// rename claims e's names, and lets go of those that it had before.
func (s *Service) rename(tx *store.Tx, e entry) error {
	key := rowKey(e)
	old, err := loadEntry(tx, e)
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, n := range e.unique() {
		holder, err := tx.Get(nameTable, n)
		if err != nil {
			return err
		}
		if holder != nil && string(holder) != key {
			return arm.Errorf(arm.Conflict, "Another object with the same value for property %s already exists.", property(n))
		}
		if keep[n] = true; holder != nil {
			continue
		}
		if err := tx.Put(nameTable, n, []byte(key)); err != nil {
			return err
		}
	}
	if old == nil {
		return nil
	}
	for _, n := range old.unique() {
		if keep[n] {
			continue
		}
		if err := tx.Delete(nameTable, n); err != nil {
			return err
		}
	}
	return nil
}

func property(name string) string {
	what, _, _ := strings.Cut(name, "|")
	return map[string]string{"upn": "userPrincipalName", "app": "appId", "uri": "identifierUris", "sp": "appId", "mi": "alternativeNames", "domain": "domains", "issuer": "issuer", "external": "externalId"}[what]
}

// loadEntry is the row in e's place, in e's type, or nil.
func loadEntry(tx *store.Tx, e entry) (entry, error) {
	key := rowKey(e)
	switch e.(type) {
	case *User:
		return loaded(store.GetJSON[*User](tx, objectTable, key))
	case *Group:
		return loaded(store.GetJSON[*Group](tx, objectTable, key))
	case *App:
		return loaded(store.GetJSON[*App](tx, objectTable, key))
	case *Provider:
		return loaded(store.GetJSON[*Provider](tx, objectTable, key))
	case *LDAP:
		return loaded(store.GetJSON[*LDAP](tx, objectTable, key))
	default:
		return loaded(store.GetJSON[*Principal](tx, objectTable, key))
	}
}

func loaded[T entry](e T, ok bool, err error) (entry, error) {
	if err != nil || !ok {
		return nil, err
	}
	return e, nil
}

// fetch is the object as the transaction sees it; ok is false if there is none.
func fetch[T entry](tx *store.Tx, tenant, class, id string) (T, bool, error) {
	return store.GetJSON[T](tx, objectTable, tenant+"|"+class+"|"+id)
}

// named is the object that has a unique name, as the transaction sees it.
func named[T entry](tx *store.Tx, name string) (e T, ok bool, err error) {
	key, err := tx.Get(nameTable, name)
	if err != nil || key == nil {
		return e, false, err
	}
	return store.GetJSON[T](tx, objectTable, string(key))
}

// remove forgets e with all that hangs on it: names, memberships, roles, and
// what others keep for principals that are gone.
func (s *Service) remove(tx *store.Tx, e entry) error {
	tenant, class, id := e.place()
	for _, n := range e.unique() {
		if err := tx.Delete(nameTable, n); err != nil {
			return err
		}
	}
	if err := tx.Delete(objectTable, rowKey(e)); err != nil {
		return err
	}
	if err := s.leaveAll(tx, tenant, id); err != nil {
		return err
	}
	tx.After(func() { s.index.remove(e) })
	if class == "app" || class == "idp" || class == "ldap" {
		return nil
	}
	if err := dropLinks(tx, tenant, id); err != nil {
		return err
	}
	if err := s.dropRoles(tx, tenant, id); err != nil {
		return err
	}
	if err := s.forgetPermissions(tx, tenant, id); err != nil {
		return err
	}
	for _, f := range s.onGone {
		if err := f(tx, id); err != nil {
			return err
		}
	}
	return nil
}

// leaveAll takes id out of all groups, and all members out of id; it owns
// nothing any more, nor has it owners.
func (s *Service) leaveAll(tx *store.Tx, tenant, id string) error {
	for _, t := range []struct{ here, there string }{{groupTable, memberTable}, {memberTable, groupTable}, {ownerTable, ownedTable}, {ownedTable, ownerTable}} {
		rows, err := tx.Scan(t.here, tenant+"|"+id+"|", "", 0)
		if err != nil {
			return err
		}
		for _, r := range rows {
			other := r.Key[strings.LastIndexByte(r.Key, '|')+1:]
			if err := tx.Delete(t.here, r.Key); err != nil {
				return err
			}
			if err := tx.Delete(t.there, tenant+"|"+other+"|"+id); err != nil {
				return err
			}
		}
	}
	return nil
}

// join makes member a member of group; both are in the tenant.
func (s *Service) join(tx *store.Tx, tenant, group, member string) error {
	if err := tx.Put(memberTable, tenant+"|"+group+"|"+member, nil); err != nil {
		return err
	}
	tx.After(func() { s.index.join(group, member) })
	return tx.Put(groupTable, tenant+"|"+member+"|"+group, nil)
}

// leave ends a membership.
func (s *Service) leave(tx *store.Tx, tenant, group, member string) error {
	if err := tx.Delete(memberTable, tenant+"|"+group+"|"+member); err != nil {
		return err
	}
	tx.After(func() { s.index.leave(group, member) })
	return tx.Delete(groupTable, tenant+"|"+member+"|"+group)
}
