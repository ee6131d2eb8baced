package governance

import (
	"cmp"
	"net/http"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

const settingsType = groupType + "/settings"

// The actions of a hierarchy's settings.
var (
	readSettings   = arm.NewAction(settingsType+"/read", "see what is set for a tenant's management groups")
	writeSettings  = arm.NewAction(settingsType+"/write", "set who may make management groups, and where new subscriptions go")
	deleteSettings = arm.NewAction(settingsType+"/delete", "set a tenant's management groups back")
)

// showMember is a subscription of a group.
func showMember(tx *store.Tx, h *hierarchy, sub string) (object, error) {
	called, err := displayName(tx, sub)
	in := h.groups[h.subs[sub]]
	return object{"id": in.id().Child("subscriptions", sub), "type": memberType, "name": sub, "properties": object{
		"tenant": in.Tenant, "displayName": called, "parent": object{"id": in.id()}, "state": "Active",
	}}, err
}

func (s *Service) listMembers(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(readMember)
	if err != nil {
		return err
	}
	return s.answerList(w, r, func(tx *store.Tx, add func(any)) error {
		h, _, err := s.groupIn(tx, g.Caller().Tenant, id.Name())
		if err != nil {
			return err
		}
		for _, sub := range h.subscriptions(key(id.Name())) {
			row, err := showMember(tx, h, sub)
			if err != nil {
				return err
			}
			add(row)
		}
		return nil
	})
}

func (s *Service) getMember(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(readMember)
	if err != nil {
		return err
	}
	return s.DB.View(r.Context(), func(tx *store.Tx) error {
		h, err := s.hierarchy(tx, g.Caller().Tenant)
		if err != nil {
			return err
		}
		sub := key(id.Name())
		if in, ok := h.subs[sub]; !ok || in != key(id.Parent().Name()) {
			return notFound("The management group '%s' has no subscription '%s'.", id.Parent().Name(), id.Name())
		}
		row, err := showMember(tx, h, sub)
		if err == nil {
			gate.WriteJSON(w, http.StatusOK, row)
		}
		return err
	})
}

func (s *Service) putMember(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(writeMember)
	if err != nil {
		return err
	}
	return s.moveSubscription(w, r, g, id, key(id.Parent().Name()), http.StatusOK)
}

// deleteMember puts a subscription back into the root group.
func (s *Service) deleteMember(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(deleteMember)
	if err != nil {
		return err
	}
	return s.moveSubscription(w, r, g, id, "", http.StatusNoContent)
}

// moveSubscription moves the subscription that id names last into a group, or
// with "" from the group that id lies in to the root group.
func (s *Service) moveSubscription(w http.ResponseWriter, r *http.Request, g gate.Grant, id arm.ID, to string, status int) error {
	tenant, sub := g.Caller().Tenant, key(id.Name())
	what, err := arm.ParseID("/subscriptions/" + sub)
	if err != nil {
		return err
	}
	h, err := s.look(r.Context(), tenant)
	if err != nil {
		return err
	}
	from, ok := h.subs[sub]
	leaves := to == ""
	if to = cmp.Or(to, h.root); !ok || from != to {
		// Of a subscription that is not there nobody is told more than that they
		// may not move it.
		if err := s.mayMove(r.Context(), g, what, cmp.Or(from, h.root), to, h.root); err != nil {
			return err
		}
	}
	if !ok {
		return arm.Errorf(arm.SubscriptionNotFound, "The subscription '%s' could not be found.", sub)
	}
	if leaves && from != key(id.Parent().Name()) {
		return notFound("The management group '%s' has no subscription '%s'.", id.Parent().Name(), sub)
	}
	var out any
	err = g.Change(r.Context(), s.DB, func(tx *store.Tx) error {
		if h, err = s.hierarchy(tx, tenant); err != nil {
			return err
		}
		switch {
		case h.subs[sub] != from:
			return arm.Errorf(arm.Conflict, "The subscription '%s' was moved meanwhile. Try again.", sub)
		case h.groups[to] == nil:
			return notFound("The management group '%s' was not found.", to)
		case from != to:
			if err := s.keepsRoles(tx, what, h.chain(to)); err != nil {
				return err
			}
			if err := s.place(tx, sub, to); err != nil {
				return err
			}
			h.subs[sub] = to
		}
		out, err = showMember(tx, h, sub)
		return err
	})
	if err != nil {
		return err
	}
	if status == http.StatusNoContent {
		w.WriteHeader(status)
		return nil
	}
	gate.WriteJSON(w, status, out)
	return nil
}

// settingsBody is what a client may send of a hierarchy's settings.
type settingsBody struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Type       string `json:"type"`
	Properties struct {
		Tenant  any     `json:"tenantId" arm:"readonly"`
		Require *bool   `json:"requireAuthorizationForGroupCreation"`
		Default *string `json:"defaultManagementGroup"`
	} `json:"properties"`
}

// settingsOf is the hierarchy whose settings the path names: only the root group
// has any. cut is how much of the id follows the group.
func (s *Service) settingsOf(tx *store.Tx, g gate.Grant, id arm.ID) (*hierarchy, error) {
	for !isGroup(id) && id != arm.Root {
		id = id.Parent()
	}
	h, err := s.hierarchy(tx, g.Caller().Tenant)
	if err != nil {
		return nil, err
	}
	if key(id.Name()) != h.root {
		return nil, arm.Errorf(arm.BadRequest, "Settings of the hierarchy are at the root management group '%s' alone.", h.root)
	}
	return h, nil
}

func (h *hierarchy) showSettings() object {
	root := h.groups[h.root]
	return object{"id": root.id().Child("settings", "default"), "type": settingsType, "name": "default", "properties": object{
		"tenantId": root.Tenant, "requireAuthorizationForGroupCreation": !h.Open, "defaultManagementGroup": h.groups[h.landing()].id(),
	}}
}

func (s *Service) listSettings(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	return s.showSettings(w, r, g, func(row object) object { return object{"value": []any{row}} })
}

func (s *Service) getSettings(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	return s.showSettings(w, r, g, func(row object) object { return row })
}

func (s *Service) showSettings(w http.ResponseWriter, r *http.Request, g gate.Grant, shape func(object) object) error {
	id, err := g.On(readSettings)
	if err != nil {
		return err
	}
	return s.DB.View(r.Context(), func(tx *store.Tx) error {
		h, err := s.settingsOf(tx, g, id)
		if err == nil {
			gate.WriteJSON(w, http.StatusOK, shape(h.showSettings()))
		}
		return err
	})
}

func (s *Service) putSettings(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(writeSettings)
	if err != nil {
		return err
	}
	var b settingsBody
	if err := decodeBody(w, r, &b); err != nil {
		return err
	}
	if err := agrees(b.ID, b.Name, b.Type, id, settingsType); err != nil {
		return err
	}
	landing := ""
	if p := b.Properties.Default; p != nil && *p != "" {
		if landing, err = groupOf("properties.defaultManagementGroup", *p); err != nil {
			return err
		}
		if err := s.also(r.Context(), g, WriteGroup, gate.Target{ID: groupID(landing)}); err != nil {
			return err
		}
	}
	var h *hierarchy
	err = g.Change(r.Context(), s.DB, func(tx *store.Tx) error {
		if h, err = s.settingsOf(tx, g, id); err != nil {
			return err
		}
		if p := b.Properties.Require; p != nil {
			h.Open = !*p
		} else if r.Method == http.MethodPut {
			h.Open = false
		}
		if landing != "" && h.groups[landing] == nil {
			return notFound("The management group '%s' was not found.", landing)
		}
		if b.Properties.Default != nil || r.Method == http.MethodPut {
			h.Default = landing
		}
		return store.PutJSON(tx, groupSettings, g.Caller().Tenant, h.settings)
	})
	if err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, h.showSettings())
	return nil
}

func (s *Service) deleteSettings(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(deleteSettings)
	if err != nil {
		return err
	}
	err = g.Change(r.Context(), s.DB, func(tx *store.Tx) error {
		if _, err := s.settingsOf(tx, g, id); err != nil {
			return err
		}
		return tx.Delete(groupSettings, g.Caller().Tenant)
	})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// listEntities lists the groups and subscriptions in which the caller may see
// something, with how much that is.
func (s *Service) listEntities(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	if _, err := g.On(readEntities); err != nil {
		return err
	}
	for name := range r.URL.Query() {
		if name != "api-version" && name != "$top" {
			return arm.Errorf(arm.BadRequest, "the option %s of getEntities is not supported", name)
		}
	}
	return s.answerList(w, r, func(tx *store.Tx, add func(any)) error {
		h, err := s.hierarchy(tx, g.Caller().Tenant)
		if err != nil {
			return err
		}
		show := func(id arm.ID, typ, name, called string, above []*group, read arm.Action) object {
			may := "noaccess"
			switch {
			case g.Sees(WriteGroup, id):
				may = "edit"
			case g.Sees(read, id):
				may = "view"
			case !g.SeesBelow(id):
				return nil
			}
			p := object{"tenantId": h.groups[h.root].Tenant, "displayName": called, "permissions": may, "inheritedPermissions": may, "parent": nil}
			names, chain := []string{}, []string{}
			for i := len(above) - 1; i >= 0; i-- {
				names, chain = append(names, above[i].Name), append(chain, above[i].Display)
			}
			p["parentNameChain"], p["parentDisplayNameChain"] = names, chain
			if len(above) > 0 {
				p["parent"] = object{"id": above[0].id()}
			}
			return object{"id": id, "type": typ, "name": name, "properties": p}
		}
		for _, x := range h.all(h.root) {
			name := key(x.Name)
			if row := show(x.id(), groupType, x.Name, x.Display, h.chain(name)[1:], ReadGroup); row != nil {
				p := row["properties"].(object)
				groups, subs := h.below(name), h.subscriptions(name)
				p["numberOfChildren"], p["numberOfChildGroups"] = len(groups)+len(subs), len(groups)
				p["numberOfDescendants"] = -1
				for _, y := range h.all(name) {
					p["numberOfDescendants"] = p["numberOfDescendants"].(int) + 1 + len(h.subscriptions(key(y.Name)))
				}
				add(row)
			}
			for _, sub := range h.subscriptions(name) {
				called, err := displayName(tx, sub)
				if err != nil {
					return err
				}
				if row := show(arm.MustID("/subscriptions/"+sub), "/subscriptions", sub, called, h.chain(name), readSubscription); row != nil {
					add(row)
				}
			}
		}
		return nil
	})
}
