package resource

import (
	"net/http"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

var exportGroup = arm.NewAction("Microsoft.Resources/subscriptions/resourceGroups/exportTemplate/action", "see a group's resources as a template")

const schema = "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#"

// exportGroup shows those of a group's resources that the caller sees as a
// template that would make them. Names are not made parameters, whatever options say.
func (s *Server) exportGroup(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	group, err := g.On(exportGroup)
	if err != nil {
		return err
	}
	data, err := readBody(w, r)
	if err != nil {
		return err
	}
	var b struct {
		Resources []string `json:"resources"`
		Options   string   `json:"options"`
		Format    string   `json:"outputFormat" arm:"only=Json"`
	}
	if err := arm.Decode(data, &b); err != nil {
		return err
	}
	if len(b.Resources) == 0 {
		return arm.Errorf(arm.InvalidRequest, "resources is empty; it must have the ids of resources, or '*' for all")
	}
	list := []any{}
	if err := s.DB.View(r.Context(), func(tx *store.Tx) error {
		var failed error
		if err := s.each(tx, g, group, "", func(k *Kind, d *Doc) bool {
			if k.NoPut || strings.EqualFold(k.Type, "Microsoft.Resources/deployments") || !named(b.Resources, d.ID) {
				return true
			}
			var one map[string]any
			if failed = d.Shut; failed != nil {
				return false
			}
			if one, failed = k.export(d); failed == nil {
				list = append(list, one)
			}
			return failed == nil
		}); err != nil {
			return err
		}
		return failed
	}); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"template": map[string]any{
		"$schema": schema, "contentVersion": "1.0.0.0", "parameters": map[string]any{}, "variables": map[string]any{}, "resources": list,
	}})
}

// named reports whether ids has all, or id or what it lies in.
func named(ids []string, id arm.ID) bool {
	return slices.ContainsFunc(ids, func(text string) bool {
		at, err := arm.ParseID(text)
		return text == "*" || err == nil && id.Within(at)
	})
}

// export is d as a template has it: what a client could send.
func (k *Kind) export(d *Doc) (map[string]any, error) {
	names := []string{d.Name}
	var needs []string
	for p, id := k.Parent, d.ID.Parent(); p != nil && p != Group && p != Subscription; p, id = p.Parent, id.Parent() {
		names = append([]string{id.Name()}, names...)
		if needs == nil {
			needs = []string{id.String()}
		}
	}
	out := map[string]any{"type": k.Type, "apiVersion": newest(k.Type), "name": strings.Join(names, "/")}
	if needs != nil {
		out["dependsOn"] = needs
	}
	for name, v := range map[string]string{"location": d.Location, "kind": d.Kind} {
		if v != "" {
			out[name] = v
		}
	}
	if len(d.Tags) > 0 {
		out["tags"] = d.Tags
	}
	if len(d.SKU) > 0 {
		out["sku"] = d.SKU
	}
	if d.Identity != nil {
		users := map[string]any{}
		for id := range d.Identity.Users {
			users[id] = map[string]any{}
		}
		identity := map[string]any{"type": d.Identity.Type}
		if len(users) > 0 {
			identity["userAssignedIdentities"] = users
		}
		out["identity"] = identity
	}
	props, err := k.hidden(newest(k.Type), d.Properties)
	if err != nil {
		return nil, err
	}
	out["properties"], err = arm.Settable(props, k.props())
	return out, err
}
