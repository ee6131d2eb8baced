// Package tracking keeps what runs log: experiments, runs, metrics, artifacts
// and registered models, and speaks MLflow's protocol and Azure's run history.
//
// A workspace is named in the path of every request. What is kept lies under
// the workspace's own GUID, so that a workspace made anew under an old name
// sees nothing of its predecessor.
package tracking

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// Config is what a Service needs; every field but Judge and Removed is needed.
type Config struct {
	DB   *store.DB
	Gate *gate.Gate
	Site arm.Site
	Now  func() time.Time
	// Who proves who calls: the bearer of a token for Resource Manager or the ML
	// plane, or a run by its own token, which is a Caller with a Lease whose Item
	// is the run's id and whose Scope is its workspace.
	Who func(*http.Request) (arm.Caller, error)
	// Workspace is the kind that models lie in.
	Workspace  *resource.Kind
	Blobs      Blobs
	Workspaces Workspaces
	// Judge says whether a model or version that MLflow's registry writes may be so.
	Judge func(tx *store.Tx, d *resource.Doc, by arm.Caller) error
	// Removed is run for every model and version that MLflow's registry deletes,
	// in the deletion's own transaction, as Resource Manager does for what it
	// deletes itself. nil does nothing.
	Removed func(tx *store.Tx, d *resource.Doc) error
}

// Service keeps run history. It is safe for concurrent use.
type Service struct {
	Config
	models   *resource.Kind
	versions *resource.Kind
}

// New makes a Service.
func New(cfg Config) (*Service, error) {
	if cfg.DB == nil || cfg.Gate == nil || cfg.Now == nil || cfg.Who == nil || cfg.Workspace == nil || cfg.Blobs == nil || cfg.Workspaces == nil {
		return nil, errors.New("tracking: a part of the configuration is missing")
	}
	s := &Service{Config: cfg}
	s.models = s.modelKind()
	s.versions = s.versionKind()
	return s, nil
}

// Plane is the MLflow, run history and artifact face, on the host of Resource
// Manager and told apart from it by the path.
func (s *Service) Plane() *gate.Plane {
	return &gate.Plane{
		Name: "ml", Fold: true, Refuse: s.refuse, Who: s.who, Routes: s.routes(),
		Host:     func(host string) bool { return host == s.Site.Host() },
		Unlocked: isHistory,
		Cancelled: func(a arm.Action) error {
			if strings.HasSuffix(a.Key(), "/read") {
				return nil
			}
			return &arm.Error{Code: "ReadOnlyDisabledSubscription", Status: http.StatusConflict, Message: "The workspace's subscription is disabled, so that what is in it can be read and not changed. Enable it first."}
		},
	}
}

// isHistory reports whether a is about run history, which Resource Manager does
// not keep and so locks do not hold, unlike registered models.
func isHistory(a arm.Action) bool {
	for _, part := range []string{"experiments/", "metrics/", "metadata/"} {
		if strings.HasPrefix(a.Key(), strings.ToLower(namespace+"/workspaces/"+part)) {
			return true
		}
	}
	return false
}

// Kinds are the resources of Resource Manager that the service keeps: models
// and their versions, the same that MLflow's model registry shows.
func (s *Service) Kinds() []*resource.Kind { return []*resource.Kind{s.models, s.versions} }

// find is the workspace of an id, as it is now.
func (s *Service) find(ctx context.Context, id arm.ID) (w Workspace, err error) {
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		w, err = s.workspace(tx, id)
		return err
	})
	return w, err
}

func (s *Service) workspace(tx *store.Tx, id arm.ID) (Workspace, error) {
	w, ok, err := s.Workspaces.Find(tx, id)
	if err != nil {
		return Workspace{}, err
	}
	if !ok || w.UID == "" {
		return Workspace{}, arm.Errorf(arm.NotFound, "The workspace '%s' was not found.", id)
	}
	w.ID = id
	return w, nil
}
