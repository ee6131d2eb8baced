package governance

import (
	"net/http"

	"castellan/internal/gate"
)

// showGroup is a tenant's root management group, the only one it has.
func showGroup(t string) map[string]any {
	return map[string]any{
		"id": rootGroup(t), "type": groupType, "name": t,
		"properties": map[string]any{"tenantId": t, "displayName": "Tenant Root Group", "details": map[string]any{"version": 1}},
	}
}

func (s *Service) listGroups(w http.ResponseWriter, _ *http.Request, g gate.Grant) error {
	if _, err := g.On(ReadGroup); err != nil {
		return err
	}
	list := []any{}
	if t := g.Caller().Tenant; g.Sees(ReadGroup, rootGroup(t)) {
		list = append(list, showGroup(t))
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{"value": list})
	return nil
}

func (s *Service) getGroup(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(ReadGroup)
	if err != nil {
		return err
	}
	t := s.Site.TenantOf(id)
	if t == "" || !isRootGroup(id) {
		return notFound("The management group '%s' was not found.", id.Name())
	}
	gate.WriteJSON(w, http.StatusOK, showGroup(t))
	return nil
}
