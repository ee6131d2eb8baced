// Package blob keeps blobs in containers of storage accounts, speaking the storage protocol.
//
// An account and its containers are resources; what a container holds lies
// under a random id of the container's own, so one that takes the name of a
// deleted one finds nothing of it. Bytes are encrypted with a key of the
// account's own, which the root key wraps: small ones lie in the store, others
// in files named by random ids. A blob is there once the transaction that names
// it is committed, and whole; a file that no row names is removed.
package blob

import (
	"context"
	"errors"
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

// Config is what a Service needs. DB, Root, Dir, Site and Now are required.
type Config struct {
	DB   *store.DB
	Gate *gate.Gate // asked for the source of a copy, and for what lifecycle rules do; without it neither is done
	Root seal.Key   // wraps the accounts' keys
	Dir  string     // where the files lie, made if it is not there
	Site arm.Site
	Now  func() time.Time
	// Who authenticates bearer tokens for storage. Without it no token gets in.
	Who func(*http.Request) (arm.Caller, error)
	// Signer is a principal as it is now, with all its groups, and an error if it
	// may not sign in. Without it no user delegation signature gets in.
	Signer func(ctx context.Context, tenant, object string) (arm.Caller, error)
	// May says what roles allow a caller. A user delegation signature can do only
	// what it allows the signer at the time. Without it, nothing.
	May func(c arm.Caller, a arm.Action, id arm.ID) bool
	// NameOf is the user principal name of somebody, or "". Without it there are only ids.
	NameOf func(tenant, object string) string
	// OnRemove is run for every container that the data plane deletes, in the
	// deletion's own transaction: what resource.Server does for those that
	// Resource Manager deletes. nil is nothing.
	OnRemove func(tx *store.Tx, d *resource.Doc) error
	// Patience is how long an upload or download may stand still; 0 means a minute.
	Patience time.Duration
	// Customers are customers' keys, in vaults. Without it accounts have the platform's alone.
	Customers CustomerKeys
	// Told hears of every account key before it is given out; nil is nobody.
	Told func(ctx context.Context, key arm.Secret)
	Log  *slog.Logger // for operators; nil logs nothing
}

// CustomerKeys are customers' keys in vaults.
type CustomerKeys interface {
	cmk.Vaults
	// Fit says whether the key is fit to guard an account: its vault must keep what
	// is deleted.
	Fit(ctx context.Context, r cmk.Ref) error
	// Outside reports whether the vault of a host outside of the installation may be
	// asked for what is a tenant's.
	Outside(host, tenant string) bool
	// UserAssigned is the principal of a user-assigned identity.
	UserAssigned(ctx context.Context, id arm.ID) (string, error)
}

// Service is all storage accounts of an installation.
type Service struct {
	Config
	root  seal.Key
	outer seal.Key // wraps the second keys of accounts that are sealed twice
	ring  *cmk.Ring
	files *files
	wake  chan struct{}

	mu    sync.RWMutex        // guards names
	names map[string]*account // by account name
}

// New is a Service that knows the accounts in the store.
func New(c Config) (*Service, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Patience == 0 {
		c.Patience = time.Minute
	}
	f, err := openFiles(c.Dir)
	if err != nil {
		return nil, err
	}
	s := &Service{Config: c, root: c.Root.Derive("blob"), outer: c.Root.Derive("blob infrastructure"), files: f, wake: make(chan struct{}, 1), names: map[string]*account{}}
	s.ring = &cmk.Ring{Root: s.root, Vaults: c.Customers, Now: c.Now}
	if err := c.DB.View(context.Background(), s.load); err != nil {
		return nil, fmt.Errorf("reading the storage accounts: %w", err)
	}
	return s, nil
}

func (s *Service) load(tx *store.Tx) error {
	rows, err := store.ScanJSON[accountRow](tx, accountTable, "", "", 0)
	if err != nil {
		return err
	}
	for _, r := range rows {
		d, err := resource.Load(tx, r.ID)
		if err != nil {
			return err
		}
		if d == nil {
			return fmt.Errorf("blob: the account %s has a name but no resource", r.ID)
		}
		a, err := s.open(tx, r, d)
		if err != nil {
			return err
		}
		s.names[nameKey(r.ID.Name())] = a
	}
	return nil
}

// Kinds are the kinds of resources that the service has, parents first.
func (s *Service) Kinds() []*resource.Kind {
	accounts := s.accounts()
	services := s.blobServices(accounts)
	files := s.fileServices(accounts)
	return []*resource.Kind{accounts, services, s.containers(services), files, s.shares(files), s.managementPolicies(accounts)}
}

// Run removes files that nothing names, and what deleted containers held, until
// ctx is done. It is run once, from the start on.
func (s *Service) Run(ctx context.Context) error {
	if err := s.sweep(ctx); err != nil && ctx.Err() == nil {
		s.Log.Error("files without a blob were not removed", "error", err)
	}
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		if err := s.empty(ctx); err != nil && ctx.Err() == nil {
			s.Log.Error("what a deleted container held was not removed; it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-tick.C:
			if err := s.purge(ctx); err != nil && ctx.Err() == nil {
				s.Log.Error("what was kept long enough was not removed; it is tried again", "error", err)
			}
			if err := s.age(ctx); err != nil && ctx.Err() == nil {
				s.Log.Error("lifecycle rules were not carried out; it is tried again", "error", err)
			}
			if err := s.expire(ctx); err != nil && ctx.Err() == nil {
				s.Log.Error("blocks that were never committed were not removed; it is tried again", "error", err)
			}
		}
	}
}

// stir has Run look at what there is to remove.
func (s *Service) stir() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Service) know(a *account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names[nameKey(a.ID.Name())] = a
}

func (s *Service) forget(id arm.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.names, nameKey(id.Name()))
}

// byName is the account of that name, or nil.
func (s *Service) byName(name string) *account {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.names[nameKey(name)]
}

// at is the account that a host is of, as that endpoint shows it, or nil.
func (s *Service) at(host string) *account {
	a := s.byName(s.accountOf(host))
	if a != nil && s.fileHost(host) {
		return a.forFiles()
	}
	return a
}

// byID is the account with that id, or nil.
func (s *Service) byID(id arm.ID) *account {
	if a := s.byName(id.Name()); a != nil && a.ID.Key() == id.Key() {
		return a
	}
	return nil
}

// place is what a Grant is about: an account, perhaps a container, perhaps a blob.
type place struct {
	*account
	data      dataKey // of the account's bytes; set by blobTarget
	container string
	blob      string
	kind      string // of a share's path: fileKind or dirKind, or "" where both will do
	with      string // the deletion of a directory that takes the blob with it
}

// target is the Grant's place, if the Grant is for one of the actions.
func (s *Service) target(g gate.Grant, actions ...arm.Action) (place, error) {
	id, err := g.On(actions...)
	if err != nil {
		return place{}, err
	}
	of, p := id, place{blob: g.Item()}
	switch strings.ToLower(id.Type()) {
	case containerType, shareType:
		p.container = strings.ToLower(id.Name())
		id = id.Parent().Parent()
	case serviceType, fileServiceType:
		id = id.Parent()
	}
	if p.account = s.byID(id); p.account == nil {
		return place{}, noAccount(id.Name())
	}
	if typ := strings.ToLower(of.Type()); typ == shareType || typ == fileServiceType {
		p.account, p.kind = p.account.forFiles(), g.Op()
	}
	return p, nil
}

// blobTarget is target for what is about one blob.
func (s *Service) blobTarget(g gate.Grant, actions ...arm.Action) (place, error) {
	p, err := s.target(g, actions...)
	if err != nil {
		return p, err
	}
	if p.container == "" {
		return p, errors.New("blob: the grant names no container")
	}
	if err := p.checkName(); err != nil {
		return p, err
	}
	if _, err := g.On(BlobDelete, FileDelete); err == nil {
		return p, nil // to delete needs no key
	}
	p.data, err = s.dataKey(p.account)
	return p, err
}
