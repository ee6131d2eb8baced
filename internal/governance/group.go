package governance

import (
	"net/http"

	"castellan/internal/gate"
)

// showGroup is the tenant's root management group, the only one there is.
func (s *Service) showGroup() map[string]any {
	t := s.Site.Tenant
	return map[string]any{
		"id": s.root, "type": groupType, "name": t,
		"properties": map[string]any{"tenantId": t, "displayName": "Tenant Root Group", "details": map[string]any{"version": 1}},
	}
}

func (s *Service) listGroups(w http.ResponseWriter, _ *http.Request, g gate.Grant) error {
	if _, err := g.On(ReadGroup); err != nil {
		return err
	}
	list := []any{}
	if g.Sees(ReadGroup, s.root) {
		list = append(list, s.showGroup())
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{"value": list})
	return nil
}

func (s *Service) getGroup(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(ReadGroup)
	if err != nil {
		return err
	}
	if id.Key() != s.root.Key() {
		return notFound("The management group '%s' was not found.", id.Name())
	}
	gate.WriteJSON(w, http.StatusOK, s.showGroup())
	return nil
}
