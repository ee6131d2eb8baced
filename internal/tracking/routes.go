package tracking

import "castellan/internal/gate"

// routes are all doors of the plane.
func (s *Service) routes() []gate.Route {
	var out []gate.Route
	for _, part := range [][]gate.Route{
		s.experimentRoutes(), s.runRoutes(), s.artifactRoutes(), s.loggedRoutes(), s.registryRoutes(), s.historyRoutes(), s.runArtifactRoutes(),
	} {
		out = append(out, part...)
	}
	return out
}
