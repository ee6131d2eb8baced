// Package vault keeps secrets, keys and certificates in key vaults, and who may have them.
//
// A vault is a resource; what it keeps lies under a random id of the vault's
// own, sealed with a key of the vault's own, which the root key wraps. A vault
// that takes the place of a purged one therefore finds nothing of it. Secrets,
// keys and certificates are classes of one thing: a name with versions, and a bin.
package vault

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"castellan/internal/arm"
	"castellan/internal/cmk"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/seal"
	"castellan/internal/store"
)

// Config is what a Service needs. DB, Gate, Root, Site, Now and Log are required.
type Config struct {
	DB   *store.DB
	Gate *gate.Gate // lets the service's own worker in
	Log  *slog.Logger
	Root seal.Key // wraps the vaults' keys
	Site arm.Site
	Now  func() time.Time
	// Who authenticates callers of the data plane. Without it nobody gets in.
	Who func(*http.Request) (arm.Caller, error)
	// May says whether a caller's roles allow an action. It is asked within the
	// transaction that changes how a vault decides; without it none may change.
	May func(c arm.Caller, a arm.Action, id arm.ID) bool
	// Judge says whether a vault may be as a change of its access policies makes
	// it; nil lets all be.
	Judge func(tx *store.Tx, d *resource.Doc, by arm.Caller) error
	// Pace is how many times Azure's limits a vault has; 0 is no limit.
	Pace int
	// Told hears of every secret's value before it is given out; nil is nobody.
	Told func(ctx context.Context, value arm.Secret)
}

// Service is all key vaults of an installation.
type Service struct {
	Config
	root  seal.Key
	pace  *gate.Buckets
	kind  *resource.Kind
	mu    sync.RWMutex     // guards names and paths
	names map[string]*live // by vault name, lower case
	paths map[string]*live // the same, by id
}

// live is what is known of a vault that is not deleted, so that requests find it.
// It is replaced, never changed.
type live struct {
	ID    arm.ID
	UID   string
	Props Properties
}

// New is a Service that knows the vaults in the store.
func New(c Config) (*Service, error) {
	s := &Service{Config: c, root: c.Root.Derive("vault"), pace: gate.NewBuckets(c.Now), names: map[string]*live{}, paths: map[string]*live{}}
	s.kind = s.vaults()
	err := c.DB.View(context.Background(), func(tx *store.Tx) error {
		rows, err := store.ScanJSON[named](tx, nameTable, "", "", 0)
		if err != nil {
			return err
		}
		for _, n := range rows {
			if n.Deleted != nil {
				continue
			}
			d, err := resource.Load(tx, n.ID)
			if err != nil {
				return err
			}
			if d == nil {
				return fmt.Errorf("vault: the vault %s has a name but no resource", n.ID)
			}
			p, err := propsOf(d)
			if err != nil {
				return err
			}
			s.know(&live{n.ID, n.UID, p})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the vaults: %w", err)
	}
	return s, nil
}

// Kinds are the kinds of resources that the service has.
func (s *Service) Kinds() []*resource.Kind { return []*resource.Kind{s.kind} }

// RBAC reports whether roles decide about the vault's content; if not, its
// access policies do. exists is false if there is no such vault.
func (s *Service) RBAC(id arm.ID) (rbac, exists bool) {
	v := s.byID(id)
	return v != nil && v.Props.rbac(), v != nil
}

func (s *Service) know(v *live) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names[strings.ToLower(v.ID.Name())] = v
	s.paths[v.ID.Key()] = v
}

func (s *Service) forget(id arm.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.names, strings.ToLower(id.Name()))
	delete(s.paths, id.Key())
}

func (s *Service) byName(name string) *live {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.names[strings.ToLower(name)]
}

// byID is the vault that id is or lies in, or nil.
func (s *Service) byID(id arm.ID) *live {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if v := s.paths[id.Key()]; v != nil {
		return v
	}
	if strings.HasPrefix(strings.ToLower(id.Type()), vaultType+"/") {
		return s.paths[id.Parent().Key()]
	}
	return nil
}

const vaultType = "microsoft.keyvault/vaults" // lower case, to compare with

// Names of all vaults lie in one table, deleted ones too: a name is free only
// when its vault was purged. Wrapped keys lie under the vaults' own ids.
const (
	nameTable = "vault_names"
	keyTable  = "vault_keys"
)

// named is who has a vault name.
type named struct {
	ID      arm.ID   `json:"id"`
	UID     string   `json:"uid"` // 128 random bits, in hex; what the vault keeps lies under it
	Deleted *deleted `json:"deleted,omitempty"`
}

// deleted is a vault in the bin.
type deleted struct {
	Doc      json.RawMessage `json:"doc"`                // the resource as it was
	Instance string          `json:"instance,omitempty"` // which it was
	At       time.Time       `json:"at"`
	Purge    time.Time       `json:"purge"` // when it goes for good
}

func vaultKey(name string) string { return strings.ToLower(name) }

// dataKey is the key that seals what the vault keeps.
func (s *Service) dataKey(tx *store.Tx, uid string) (seal.Key, error) {
	w, err := tx.Get(keyTable, uid)
	if err != nil {
		return seal.Key{}, err
	}
	k, err := s.root.Unwrap(w, uid)
	if err != nil {
		return seal.Key{}, fmt.Errorf("opening the key of vault %s: %w", uid, err)
	}
	return k, nil
}

// newVault makes the vault's own id and key.
func (s *Service) newVault(tx *store.Tx) (uid string, err error) {
	uid = arm.NewHex()
	return uid, tx.Put(keyTable, uid, s.root.Wrap(seal.Random(), uid))
}

// idOf is the vault, of those that are not deleted, that keeps what lies under uid.
func (s *Service) idOf(uid string) (arm.ID, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, v := range s.names {
		if v.UID == uid {
			return v.ID, true
		}
	}
	return arm.ID{}, false
}

// tables are those where vaults' content lies.
func tables() (out []string) {
	for _, c := range classes {
		out = append(out, c.names, c.bin, c.versions)
	}
	return append(out, contactTable, issuerTable)
}

// erase forgets all that a vault kept. Its key goes too, so that even a copy of
// its rows does not open any more.
func (s *Service) erase(tx *store.Tx, n named) error {
	k, err := n.kept(tx)
	if err != nil {
		return err
	}
	if err := cmk.Destroy(tx, k, s.Now()); err != nil {
		return err
	}
	for _, t := range tables() {
		rows, err := tx.Scan(t, n.UID+"/", "", 0)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if err := tx.Delete(t, r.Key); err != nil {
				return err
			}
		}
	}
	return tx.Delete(keyTable, n.UID)
}

// target is the grant's vault, if the grant is for a.
func (s *Service) target(g gate.Grant, a ...arm.Action) (*live, error) {
	id, err := g.On(a...)
	if err != nil {
		return nil, err
	}
	v := s.byID(id)
	if v == nil {
		return nil, noVault(id.Name())
	}
	return v, nil
}

func noVault(name string) error {
	return &arm.Error{Code: "VaultNotFound", Status: http.StatusNotFound, Message: fmt.Sprintf("There is no key vault %q.", name)}
}
