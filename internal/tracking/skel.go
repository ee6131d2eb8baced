package tracking

import (
	"net/http"

	"castellan/internal/gate"
	"castellan/internal/resource"
)

func (s *Service) refuse(w http.ResponseWriter, r *http.Request, err error) {
	gate.RefuseARM(w, r, err)
}
func (s *Service) routes() []gate.Route { return nil }
func (s *Service) modelKind() *resource.Kind {
	return &resource.Kind{Type: namespace + "/workspaces/models", Doc: "a model", Parent: s.Workspace, Global: true, Implied: true}
}
func (s *Service) versionKind() *resource.Kind {
	return &resource.Kind{Type: namespace + "/workspaces/models/versions", Doc: "a version of a model", Parent: s.models, Global: true}
}
