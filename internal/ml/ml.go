// Package ml has workspaces, data and jobs: the face that data scientists see.
//
// A workspace is a resource with an identity of its own, which reaches the
// storage account and the key vault; people reach those through the workspace.
// Jobs wait in one durable queue and run in sandboxes with a token that is good
// for their own run only (token.go). The package knows its neighbours by the
// interfaces of links.go alone.
package ml

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"castellan/internal/arm"
	"castellan/internal/cmk"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// namespace is what all types and actions of the package begin with.
const namespace = "Microsoft.MachineLearningServices"

// Config is what a Service needs. DB, Gate, Root and the links are required.
type Config struct {
	DB   *store.DB
	Gate *gate.Gate
	Root string // folder for what jobs work on, wiped by whoever runs sandboxes before New
	Site arm.Site
	Now  func() time.Time // nil means time.Now
	Log  *slog.Logger     // for operators; nothing is logged if nil

	Keys         *cmk.Keys // guard what workspaces keep
	Customers    CustomerKeys
	Blobs        Blobs
	Accounts     Accounts
	Roles        Roles
	Vaults       Vaults
	Runs         Runs
	Sandboxes    Sandboxes
	Tokens       Tokens
	Metadata     Metadata
	People       People
	Applications Applications
	Policies     Policies // nil if there are none
	Around       Around

	// Machine is what jobs may use of this machine, all together; zero fields
	// mean all that it has.
	Machine Machine
	// LegacyContributor gives new workspaces' identities Contributor on their
	// resource group, as Azure did before November 2024, not Azure AI Administrator.
	LegacyContributor bool
}

// Machine is how much there is to give to jobs.
type Machine struct {
	CPUs     int
	MemoryMB int
}

// Service is workspaces and what is in them.
type Service struct {
	Config
	sizes  []Size // that the machine can give, the smallest first
	signer *signer
	live   *live
	engine *engine
	kinds  kinds
}

// kinds are the values that resource serves.
type kinds struct {
	workspace, compute, datastore, job                    *resource.Kind
	code, codeVersion, data, dataVersion, env, envVersion *resource.Kind
}

// New makes a Service. Nothing runs before Run.
func New(cfg Config) (*Service, error) {
	if cfg.DB == nil || cfg.Gate == nil || cfg.Root == "" || cfg.Keys == nil {
		return nil, errors.New("ml: Config wants DB, Gate, Root and Keys")
	}
	if cfg.Blobs == nil || cfg.Accounts == nil || cfg.Roles == nil || cfg.Vaults == nil || cfg.Runs == nil || cfg.Sandboxes == nil || cfg.Tokens == nil || cfg.Metadata == nil || cfg.People == nil || cfg.Applications == nil || cfg.Around == nil {
		return nil, errors.New("ml: Config wants every link (Blobs, Accounts, Roles, Vaults, Runs, Sandboxes, Tokens, Metadata, People, Applications, Around)")
	}
	root, err := filepath.Abs(cfg.Root)
	if err != nil {
		return nil, fmt.Errorf("finding the folder of jobs: %w", err)
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("making the folder of jobs: %w", err)
	}
	cfg.Root = root
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Machine = measure(cfg.Machine)
	s := &Service{Config: cfg, sizes: fitting(cfg.Machine), live: newLive(cfg.People.Recall)}
	if s.signer, err = newSigner(cfg.Site, cfg.Now); err != nil {
		return nil, err
	}
	s.engine = newEngine(s)
	s.makeKinds()
	return s, nil
}

// measure fills in what the machine has where m is silent.
func measure(m Machine) Machine {
	if m.CPUs <= 0 {
		m.CPUs = runtime.NumCPU()
	}
	if m.MemoryMB <= 0 {
		m.MemoryMB = totalMemoryMB()
	}
	return m
}

// Kinds are the kinds of resources that the package has, parents first.
func (s *Service) Kinds() []*resource.Kind {
	k := s.kinds
	return []*resource.Kind{k.workspace, k.compute, k.datastore, k.code, k.codeVersion, k.data, k.dataVersion, k.env, k.envVersion, k.job}
}

// Run runs jobs until ctx is done, and returns when none is under way.
func (s *Service) Run(ctx context.Context) error { return s.engine.run(ctx) }

// system is the package's own worker: a caller whose lease names all that it
// may do, and where.
func (s *Service) system(why string, scope arm.ID, actions ...arm.Action) arm.Caller {
	return arm.Caller{
		Tenant: s.Site.TenantOf(scope), Object: "system:ml", Kind: arm.ServicePrincipal, Name: "system:ml", Token: "system",
		Lease: &arm.Lease{Scope: scope, Actions: actions, Why: why},
	}
}

// act lets the worker change one resource through the gate, recorded like
// everybody's changes.
func (s *Service) act(ctx context.Context, why string, a arm.Action, on arm.ID, change func(tx *store.Tx) error) error {
	g, err := s.Gate.Admit(ctx, s.system(why, on, a), a, gate.Target{ID: on})
	if err != nil {
		return err
	}
	return g.Close(ctx, g.Change(ctx, s.DB, change))
}

// makeKinds makes the kinds, parents first.
func (s *Service) makeKinds() {
	stated := func() any { return &statedProps{} }
	s.kinds.workspace = s.workspaceKind()
	s.kinds.compute = s.computeKind()
	s.kinds.datastore = s.datastoreKind()
	s.kinds.code = s.containerKind("codes", "code", stated)
	s.kinds.codeVersion = s.codeVersionKind()
	s.kinds.data = s.containerKind("data", "a data asset", func() any { return &dataContainerProps{} })
	s.kinds.dataVersion = s.dataVersionKind()
	s.kinds.env = s.containerKind("environments", "an environment", stated)
	s.kinds.envVersion = s.envVersionKind()
	s.kinds.job = s.jobKind()
}
