package ml

import (
	"context"
	"net/http"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// The services of v1, as azureml-core speaks to them: datastores
// (v1datastore.go) and secrets (v1secret.go). They show what Resource Manager
// and the workspace's vault have; nothing is kept for them alone.
//
// Who may read credentials by them is the workspace's choice. As a rule it is
// whom v2 lets, by datastores/listsecrets/action. In v1 legacy mode it is also
// whom v1 let: every reader, by metadata/secrets/read.

const (
	datastoreV1  = "/datastore/v1.0" + workspacePattern
	credentialV2 = "/credential/v2.0" + workspacePattern // which v1 calls
)

var (
	readDatastore  = arm.NewAction(workspaceType+"/datastores/read", "see a datastore")
	writeDatastore = arm.NewAction(workspaceType+"/datastores/write", "make or change a datastore")

	readSecrets   = arm.NewAction(workspaceType+"/metadata/secrets/read", "read the secrets that are kept for a workspace's jobs")
	writeSecrets  = arm.NewAction(workspaceType+"/metadata/secrets/write", "keep a secret for a workspace's jobs")
	deleteSecrets = arm.NewAction(workspaceType+"/metadata/secrets/delete", "delete a secret that is kept for a workspace's jobs")
)

// v1Routes are the doors of v1's services.
func (s *Service) v1Routes(resources *resource.Server) []gate.Route {
	v := v1Datastores{s, resources.Put(s.kinds.datastore), resources.Delete(s.kinds.datastore)}
	return append(v.routes(), s.v1SecretRoutes()...)
}

// legacy reports whether the workspace is in v1 legacy mode.
func (w workspace) legacy() bool { return bool(w.V1LegacyMode) }

// Guard shuts those of a kind's doors in Resource Manager that a workspace in v1
// legacy mode does not have: all below the workspace but those of its computes.
func (s *Service) Guard(k *resource.Kind, doors []gate.Route) []gate.Route {
	below := strings.ToLower(workspaceType + "/")
	if typ := strings.ToLower(k.Type); !strings.HasPrefix(typ, below) || typ == strings.ToLower(s.kinds.compute.Type) {
		return doors
	}
	for i, d := range doors {
		doors[i] = s.v2(d)
		if k == s.kinds.datastore && d.Method == http.MethodDelete {
			doors[i] = doors[i].Before(s.keepsDefault)
		}
	}
	return doors
}

// v2 is a door that workspaces in v1 legacy mode do not have.
func (s *Service) v2(d gate.Route) gate.Route {
	return d.Before(func(r *http.Request, g gate.Grant) error {
		id, err := g.On(d.Action)
		if err != nil {
			return err
		}
		for !strings.EqualFold(id.Type(), workspaceType) {
			if id = id.Parent(); id.IsZero() {
				return nil
			}
		}
		w, err := s.load(r.Context(), id)
		if arm.CodeOf(err) == arm.NotFound {
			return nil // which the door says itself
		}
		if err == nil && w.legacy() {
			err = arm.Errorf(arm.BadRequest, "The workspace %s is in v1 legacy mode (v1LegacyMode is true), in which the API of v2 is disabled: use the services of v1 (azureml-core), or set v1LegacyMode to false", w.Name)
		}
		return err
	})
}

// unveil is a Grant to read what opens id, a datastore or what a workspace keeps
// in its vault, for who holds g; the zero Grant if they may not. wide says that it
// is theirs in every mode, not by v1's rule alone.
func (s *Service) unveil(ctx context.Context, g gate.Grant, w workspace, id arm.ID) (_ gate.Grant, wide bool, err error) {
	actions := []arm.Action{listSecrets}
	if w.legacy() {
		actions = append(actions, readSecrets)
	}
	for i, a := range actions {
		if ok, _ := s.Gate.Judge(g.Caller(), a, gate.Target{ID: id}); ok {
			grant, err := s.Gate.Admit(ctx, g.Caller(), a, gate.Target{ID: id})
			return grant, i == 0, err
		}
	}
	return gate.Grant{}, false, nil
}

// keepsDefault refuses to delete the workspace's own datastores, which go with
// the workspace, and the one that is its default.
func (s *Service) keepsDefault(r *http.Request, g gate.Grant) error {
	id, err := g.On(deleteDatastore)
	if err != nil {
		return err
	}
	return s.DB.View(r.Context(), func(tx *store.Tx) error {
		d, err := resource.Load(tx, id)
		if err != nil || d == nil {
			return err
		}
		in, err := inner[datastoreInner](d)
		switch {
		case err != nil:
			return err
		case in.System:
			return arm.Errorf(arm.BadRequest, "the datastore %s is the workspace's own and can't be deleted", d.Name)
		case in.Default:
			return arm.Errorf(arm.BadRequest, "the datastore %s is the workspace's default and can't be deleted; make another the default first", d.Name)
		}
		return nil
	})
}
