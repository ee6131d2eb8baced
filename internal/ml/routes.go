package ml

import (
	"net/http"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
)

// Routes are the ARM plane's doors that no kind has.
func (s *Service) Routes() []gate.Route {
	const at = "/subscriptions/{sub}/providers/" + namespace + "/locations/{location}/"
	const version = workspacePattern + "/codes/{code}/versions/{version}/"
	return []gate.Route{
		gate.On(readSizes, "GET "+at+"vmSizes", subscription, s.listSizes),
		gate.On(readUsages, "GET "+at+"usages", subscription, s.listUsages),
		gate.On(readQuotas, "GET "+at+"quotas", subscription, s.listQuotas),
		s.v2(gate.On(writeCodeVersion, "POST "+version+"startPendingUpload", assetVersion, s.startUpload)),
	}
}

// MLRoutes are the doors of the ML plane that belong to workspaces and jobs; those of v1
// write datastores as resources does, once it has its routes.
// The plane's Who must try RunToken before it looks for an access token.
func (s *Service) MLRoutes(resources *resource.Server) []gate.Route {
	return append(s.v1Routes(resources),
		gate.Public("clients ask where a service is before they sign in, and the answer is the same for everybody", "GET /discovery", s.discovery),
		gate.Public("clients ask where a service is before they sign in, and the answer is the same for everybody", "GET /discovery/{any...}", s.discovery),
		gate.On(renewToken, "POST /mlservice/v1.0"+workspacePattern+"/runs/{run}/token", ownRun, s.renew),
	)
}

// workspacePattern is the path of a workspace.
const workspacePattern = "/subscriptions/{sub}/resourceGroups/{group}/providers/" + namespace + "/workspaces/{workspace}"

func subscription(r *http.Request, v gate.Vars) (gate.Target, error) {
	if err := resource.Version(r); err != nil {
		return gate.Target{}, err
	}
	id, err := arm.ParseID("/subscriptions/" + v["sub"])
	return gate.Target{ID: id}, err
}

// workspaceOf is the id that the values of workspacePattern spell.
func workspaceOf(v gate.Vars) (arm.ID, error) {
	return arm.ParseID("/subscriptions/" + v["sub"] + "/resourceGroups/" + v["group"] + "/providers/" + namespace + "/workspaces/" + v["workspace"])
}

// assetVersion is the version that a path names, less the operation at its end.
func assetVersion(r *http.Request, _ gate.Vars) (gate.Target, error) {
	if err := resource.Version(r); err != nil {
		return gate.Target{}, err
	}
	p := r.URL.EscapedPath()
	id, err := arm.ParseID(p[:strings.LastIndexByte(p, '/')])
	return gate.Target{ID: id}, err
}

func ownRun(_ *http.Request, v gate.Vars) (gate.Target, error) {
	id, err := workspaceOf(v)
	return gate.Target{ID: id, Item: v["run"]}, err
}

// discovery says where the services of the ML plane are: all on one host.
func (s *Service) discovery(w http.ResponseWriter, _ *http.Request, _ gate.Vars) error {
	base := s.Site.Base()
	gate.WriteJSON(w, http.StatusOK, map[string]string{
		"api": base, "history": base, "experimentation": base, "artifact": base, "mlflow": base,
		"modelmanagement": base, "modelregistry": base, "metrics": base, "catalog": base, "pipelines": base, "hyperdrive": base,
		"studio": base,
	})
	return nil
}
