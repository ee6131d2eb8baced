package governance

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/condition"
	"castellan/internal/gate"
	"castellan/internal/rbac"
	"castellan/internal/resource"
	"castellan/internal/store"
)

const memberType = groupType + "/subscriptions"

// The actions of management groups.
var (
	ReadGroup    = arm.NewAction(groupType+"/read", "see a management group")
	WriteGroup   = arm.NewAction(groupType+"/write", "make, change or move a management group")
	DeleteGroup  = arm.NewAction(groupType+"/delete", "delete a management group")
	readMember   = arm.NewAction(memberType+"/read", "see the subscriptions of a management group")
	writeMember  = arm.NewAction(memberType+"/write", "put a subscription in a management group")
	deleteMember = arm.NewAction(memberType+"/delete", "take a subscription out of a management group")
	readBelow    = arm.NewAction(groupType+"/descendants/read", "see all that a management group holds")
	readEntities = arm.NewAction("Microsoft.Management/getEntities/action", "see all management groups and subscriptions of the tenant")

	readSubscription = arm.NewAction("Microsoft.Resources/subscriptions/read", "see a subscription")
)

func (s *Service) groupRoutes() []gate.Route {
	const all, one = "/providers/" + groupType, "/providers/" + groupType + "/{group}"
	list := func(r *http.Request, _ gate.Vars) (gate.Target, error) { return resource.Locate(r, 1) }
	return []gate.Route{
		gate.Each(ReadGroup, "GET "+all, locateGroups, s.listGroups),
		gate.On(ReadGroup, "GET "+one, locateItem, s.getGroup),
		gate.On(WriteGroup, "PUT "+one, locateItem, s.putGroup),
		gate.On(WriteGroup, "PATCH "+one, locateItem, s.patchGroup),
		gate.On(DeleteGroup, "DELETE "+one, locateItem, s.deleteGroup),
		gate.On(readBelow, "GET "+one+"/descendants", list, s.listDescendants),
		gate.On(readMember, "GET "+one+"/subscriptions", list, s.listMembers),
		gate.On(readMember, "GET "+one+"/subscriptions/{member}", locateItem, s.getMember),
		gate.On(writeMember, "PUT "+one+"/subscriptions/{member}", locateItem, s.putMember),
		gate.On(deleteMember, "DELETE "+one+"/subscriptions/{member}", locateItem, s.deleteMember),
		gate.On(readSettings, "GET "+one+"/settings", list, s.listSettings),
		gate.On(readSettings, "GET "+one+"/settings/default", locateItem, s.getSettings),
		gate.On(writeSettings, "PUT "+one+"/settings/default", locateItem, s.putSettings),
		gate.On(writeSettings, "PATCH "+one+"/settings/default", locateItem, s.putSettings),
		gate.On(deleteSettings, "DELETE "+one+"/settings/default", locateItem, s.deleteSettings),
		gate.Each(readEntities, "POST /providers/Microsoft.Management/getEntities", locateGroups, s.listEntities),
	}
}

// groupBody is what a client may send of a group in a PUT.
type groupBody struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Type       string `json:"type"`
	Properties struct {
		Display string `json:"displayName"`
		Details struct {
			Parent struct {
				ID      string `json:"id"`
				Name    any    `json:"name" arm:"readonly"`
				Display any    `json:"displayName" arm:"readonly"`
			} `json:"parent"`
			Version any `json:"version" arm:"readonly"`
			Time    any `json:"updatedTime" arm:"readonly"`
			By      any `json:"updatedBy" arm:"readonly"`
		} `json:"details"`
		Tenant   any `json:"tenantId" arm:"readonly"`
		Children any `json:"children" arm:"readonly"`
	} `json:"properties"`
}

// groupPatch is what a client may send of a group in a PATCH.
type groupPatch struct {
	Display string `json:"displayName"`
	Parent  string `json:"parentGroupId"`
}

func (s *Service) putGroup(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(WriteGroup)
	if err != nil {
		return err
	}
	var b groupBody
	if err := decodeBody(w, r, &b); err != nil {
		return err
	}
	if err := agrees(b.ID, b.Name, b.Type, id, groupType); err != nil {
		return err
	}
	return s.writeGroup(w, r, g, id, groupPatch{b.Properties.Display, b.Properties.Details.Parent.ID}, true)
}

func (s *Service) patchGroup(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(WriteGroup)
	if err != nil {
		return err
	}
	var b groupPatch
	if err := decodeBody(w, r, &b); err != nil {
		return err
	}
	return s.writeGroup(w, r, g, id, b, false)
}

func decodeBody(w http.ResponseWriter, r *http.Request, v any) error {
	data, err := resource.ReadBody(w, r)
	if err != nil || len(data) == 0 {
		return err
	}
	return arm.Decode(data, v)
}

// writeGroup makes, changes or moves a group. Who may is asked before the
// transaction, of the groups as they are then; if somebody moved them in between
// nothing is done.
func (s *Service) writeGroup(w http.ResponseWriter, r *http.Request, g gate.Grant, id arm.ID, b groupPatch, make bool) error {
	name, tenant, parent, err := key(id.Name()), g.Caller().Tenant, "", error(nil)
	switch {
	case !groupName.MatchString(id.Name()):
		return arm.Errorf(arm.InvalidResourceName, "The name '%s' of a management group must have 1 to 90 letters, digits or ._-() and must not end with a dot.", id.Name())
	case len(b.Display) > maxText:
		return arm.Errorf(arm.InvalidRequest, "displayName is %d bytes long; at most %d are allowed", len(b.Display), maxText)
	case b.Parent != "":
		if parent, err = groupOf("the parent", b.Parent); err != nil {
			return err
		}
	}
	h, err := s.look(r.Context(), tenant)
	if err != nil {
		return err
	}
	x, old := h.groups[name], ""
	switch {
	case x == nil && !make:
		return notFound("The management group '%s' was not found.", id.Name())
	case x == nil:
		if parent = cmp.Or(parent, h.landing()); parent != h.landing() || !h.Open {
			if err := s.mayHold(r.Context(), g, parent, h.root); err != nil {
				return err
			}
		}
	default:
		if !s.Gate.Would(g.Caller(), WriteGroup, id) { // it was made since the door was opened
			return arm.Errorf(arm.Conflict, "The management group '%s' was made meanwhile. Try again.", id.Name())
		}
		old = x.Parent
		if parent = cmp.Or(parent, old); parent == old {
			break
		}
		if x.root() {
			return arm.Errorf(arm.BadRequest, "The root management group can't be moved.")
		}
		if err := s.mayMove(r.Context(), g, id, old, parent, h.root); err != nil {
			return err
		}
	}
	if parent != "" && h.groups[parent] == nil {
		return notFound("The parent management group '%s' was not found.", parent)
	}
	owns := x == nil && !s.Gate.Would(g.Caller(), WriteGroup, groupID(parent))
	err = g.Change(r.Context(), s.DB, func(tx *store.Tx) error {
		_, taken, err := store.GetJSON[group](tx, groups, name) // perhaps another tenant's
		if err != nil {
			return err
		}
		if taken && x == nil {
			return arm.Errorf(arm.Conflict, "The management group '%s' was made meanwhile. Try again.", id.Name())
		}
		if h, err = s.hierarchy(tx, tenant); err != nil {
			return err
		}
		now := h.groups[name]
		if (now == nil) != (x == nil) || now != nil && now.Parent != old {
			return arm.Errorf(arm.Conflict, "The management group '%s' was changed meanwhile. Try again.", id.Name())
		}
		if parent != "" && h.groups[parent] == nil {
			return arm.Errorf(arm.Conflict, "The management group '%s' was deleted meanwhile.", parent)
		}
		if now == nil {
			now = &group{Name: id.Name(), Tenant: tenant, Display: id.Name()}
		}
		if now.Parent != parent {
			if err := h.fits(name, parent); err != nil {
				return err
			}
			if x != nil {
				if err := s.keepsRoles(tx, id, h.chain(parent)); err != nil {
					return err
				}
			}
		}
		now.Parent, now.Display = parent, cmp.Or(b.Display, now.Display)
		h.groups[name] = now
		if err := s.keepGroup(tx, now, g.Caller()); err != nil || !owns {
			return err
		}
		return s.Assign(tx, rbac.Assignment{Scope: now.id(), RoleID: s.named["owner"], Principal: g.Caller().Object, PrincipalType: g.Caller().Kind}, g.Caller())
	})
	if err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, s.showGroup(h, h.groups[name], nil))
	return nil
}

// look is the hierarchy now.
func (s *Service) look(ctx context.Context, tenant string) (h *hierarchy, err error) {
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		h, err = s.hierarchy(tx, tenant)
		return err
	})
	return h, err
}

// mayHold asks whether the caller may change what lies in a group. The root
// group, from which all come and to which all may go, needs no right of its own.
func (s *Service) mayHold(ctx context.Context, g gate.Grant, name, root string) error {
	if name == root {
		return nil
	}
	return s.also(ctx, g, WriteGroup, gate.Target{ID: groupID(name)})
}

// mayMove asks what a move needs. Who holds roles above the new place gets them
// over what is moved, and policies of the old place end: so the mover must be
// one who could make themselves Owner of it, and may change both groups.
func (s *Service) mayMove(ctx context.Context, g gate.Grant, what arm.ID, from, to, root string) error {
	give := func() *condition.Attributes {
		return s.asked(ctx, assignmentID(what, arm.NewUUID()), s.named["owner"], g.Caller().Object)
	}
	if err := s.also(ctx, g, WriteGroup, gate.Target{ID: what}); err != nil {
		return err
	}
	if err := s.also(ctx, g, WriteAssignment, gate.Target{ID: what, Attributes: give}); err != nil {
		return err
	}
	if err := s.mayHold(ctx, g, from, root); err != nil {
		return err
	}
	return s.mayHold(ctx, g, to, root)
}

// also asks the gate for one thing more than the door did.
func (s *Service) also(ctx context.Context, g gate.Grant, a arm.Action, on gate.Target) error {
	x, err := s.Gate.Admit(ctx, g.Caller(), a, on)
	if c := arm.CodeOf(err); c == arm.Forbidden || c == arm.WrongTenant {
		return arm.Errorf(arm.LinkedForbidden, "The client with object id '%s' has permission for the request, but does not have permission to perform action '%s' over the linked scope '%s', or the linked scope is invalid.", g.Caller().Object, a.Name(), on.ID)
	}
	return x.Close(ctx, err)
}

// mayCreate is the answer about a group that is not there yet.
func (s *Service) mayCreate(c arm.Caller) (allowed bool, reason string) {
	var set settings
	err := s.DB.View(context.Background(), func(tx *store.Tx) (err error) {
		set, _, err = store.GetJSON[settings](tx, groupSettings, c.Tenant)
		return err
	})
	switch {
	case err != nil || c.Tenant == "":
		return false, "nothing says that the caller may make management groups"
	case set.Open:
		return true, "everybody of the tenant may make management groups"
	}
	d := s.Engine.Decide(c, WriteGroup, rootGroup(c.Tenant))
	return d.Allowed, "asked at the root management group: " + cmp.Or(d.Role, d.Reason)
}

// deleteGroup forgets an empty group and what was given there.
func (s *Service) deleteGroup(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(DeleteGroup)
	if err != nil {
		return err
	}
	err = g.Change(r.Context(), s.DB, func(tx *store.Tx) error {
		h, err := s.hierarchy(tx, g.Caller().Tenant)
		if err != nil {
			return err
		}
		name := key(id.Name())
		x := h.groups[name]
		switch {
		case x == nil:
			return nil
		case x.root():
			return arm.Errorf(arm.BadRequest, "The root management group can't be deleted.")
		case len(h.below(name))+len(h.subscriptions(name)) > 0:
			return arm.Errorf(arm.BadRequest, "The management group '%s' can't be deleted: it has child groups or subscriptions. Move them first.", x.Name)
		case h.Default == name:
			return arm.Errorf(arm.BadRequest, "The management group '%s' can't be deleted: it is where new subscriptions go. Choose another default management group first.", x.Name)
		}
		gone := s.Removed
		if gone == nil {
			gone = s.DropScope
		}
		if err := gone(tx, &resource.Doc{ID: x.id(), Name: x.Name, Type: groupType}); err != nil {
			return err
		}
		tx.After(func() { s.Engine.Move(func() { s.Site.Tenancy.RemoveGroup(name) }) })
		return tx.Delete(groups, name)
	})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Service) listGroups(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	if _, err := g.On(ReadGroup); err != nil {
		return err
	}
	h, err := s.look(r.Context(), g.Caller().Tenant)
	if err != nil {
		return err
	}
	list := []any{}
	for _, x := range h.all(h.root) {
		if g.Sees(ReadGroup, x.id()) {
			list = append(list, object{"id": x.id(), "type": groupType, "name": x.Name, "properties": object{"tenantId": x.Tenant, "displayName": x.Display}})
		}
	}
	gate.WriteJSON(w, http.StatusOK, object{"value": list})
	return nil
}

// all are a group and all groups in it, outer ones first.
func (h *hierarchy) all(name string) []*group {
	out := []*group{h.groups[name]}
	for _, x := range h.below(name) {
		out = append(out, h.all(key(x.Name))...)
	}
	return out
}

func (s *Service) getGroup(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(ReadGroup)
	if err != nil {
		return err
	}
	var want []string
	q := r.URL.Query()
	for _, x := range strings.FieldsFunc(q.Get("$expand"), func(c rune) bool { return c == ',' || c == ' ' }) {
		if want = append(want, key(x)); !slices.Contains([]string{"children", "path", "ancestors"}, key(x)) {
			return arm.Errorf(arm.BadRequest, "the $expand %q is not supported; supported: children, path, ancestors", x)
		}
	}
	if strings.EqualFold(q.Get("$recurse"), "true") {
		if !slices.Contains(want, "children") {
			return arm.Errorf(arm.BadRequest, "$recurse needs $expand=children")
		}
		want = append(want, "recurse")
	}
	switch f := strings.Join(strings.Fields(key(q.Get("$filter"))), " "); f {
	case "":
	case "children.childtype ne subscription":
		want = append(want, "groups")
	default:
		return arm.Errorf(arm.BadRequest, "the $filter %q is not supported; supported: children.childType ne Subscription", q.Get("$filter"))
	}
	var out any
	err = s.DB.View(r.Context(), func(tx *store.Tx) error {
		h, x, err := s.groupIn(tx, g.Caller().Tenant, id.Name())
		if err != nil {
			return err
		}
		shown := s.showGroup(h, x, want)
		if slices.Contains(want, "children") {
			shown["properties"].(object)["children"], err = h.showChildren(tx, key(x.Name), want)
		}
		out = shown
		return err
	})
	if err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, out)
	return nil
}

// showGroup is a group as Azure shows it, but for what it holds.
func (s *Service) showGroup(h *hierarchy, x *group, want []string) object {
	details := object{"version": x.Version, "updatedTime": timeOrNull(x.Updated), "updatedBy": nullable(x.By), "parent": nil}
	if above := h.groups[x.Parent]; above != nil {
		details["parent"] = above.parent()
	}
	chain := h.chain(key(x.Name))
	if slices.Contains(want, "path") {
		var path []any
		for _, y := range slices.Backward(chain) {
			path = append(path, y.info())
		}
		details["path"] = path
	}
	if slices.Contains(want, "ancestors") {
		names, infos := []string{}, []any{}
		for _, y := range chain[1:] {
			names, infos = append(names, y.Name), append(infos, y.info())
		}
		details["managementGroupAncestors"], details["managementGroupAncestorsChain"] = names, infos
	}
	return object{"id": x.id(), "type": groupType, "name": x.Name, "properties": object{"tenantId": x.Tenant, "displayName": x.Display, "details": details, "children": nil}}
}

// showChildren is what a group holds, or null if that is nothing.
func (h *hierarchy) showChildren(tx *store.Tx, name string, want []string) (any, error) {
	var out []any
	for _, x := range h.below(name) {
		row := object{"type": groupType, "id": x.id(), "name": x.Name, "displayName": x.Display, "children": nil}
		if slices.Contains(want, "recurse") {
			var err error
			if row["children"], err = h.showChildren(tx, key(x.Name), want); err != nil {
				return nil, err
			}
		}
		out = append(out, row)
	}
	if slices.Contains(want, "groups") {
		return out, nil
	}
	for _, sub := range h.subscriptions(name) {
		called, err := displayName(tx, sub)
		if err != nil {
			return nil, err
		}
		out = append(out, object{"type": "/subscriptions", "id": "/subscriptions/" + sub, "name": sub, "displayName": called, "children": nil})
	}
	return out, nil
}

// groupIn is a group of the tenant, and the hierarchy that it stands in.
func (s *Service) groupIn(tx *store.Tx, tenant, name string) (*hierarchy, *group, error) {
	h, err := s.hierarchy(tx, tenant)
	if err != nil {
		return nil, nil, err
	}
	x := h.groups[key(name)]
	if x == nil {
		return nil, nil, notFound("The management group '%s' was not found.", name)
	}
	return h, x, nil
}

// listDescendants lists all that a group holds, the groups first.
func (s *Service) listDescendants(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(readBelow)
	if err != nil {
		return err
	}
	return s.answerList(w, r, func(tx *store.Tx, add func(any)) error {
		h, _, err := s.groupIn(tx, g.Caller().Tenant, id.Name())
		if err != nil {
			return err
		}
		all := h.all(key(id.Name()))
		for _, x := range all[1:] {
			add(object{"id": x.id(), "type": groupType, "name": x.Name, "properties": object{"displayName": x.Display, "parent": object{"id": h.groups[x.Parent].id()}}})
		}
		for _, x := range all {
			for _, sub := range h.subscriptions(key(x.Name)) {
				called, err := displayName(tx, sub)
				if err != nil {
					return err
				}
				add(object{"id": "/subscriptions/" + sub, "type": "/subscriptions", "name": sub, "properties": object{"displayName": called, "parent": object{"id": x.id()}}})
			}
		}
		return nil
	})
}

// answerList answers with the rows that fn finds, all in one snapshot.
func (s *Service) answerList(w http.ResponseWriter, r *http.Request, fn func(tx *store.Tx, add func(row any)) error) error {
	list := []any{}
	if err := s.DB.View(r.Context(), func(tx *store.Tx) error {
		return fn(tx, func(row any) { list = append(list, row) })
	}); err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, object{"value": list})
	return nil
}

// elevateAccess makes a Global Administrator User Access Administrator at the root
// management group, so that somebody can begin to give roles there. Azure's is
// at /, which here is no one tenant's.
func (s *Service) elevateAccess(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	if _, err := g.On(elevate); err != nil {
		return err
	}
	by := g.Caller()
	err := g.Change(r.Context(), s.DB, func(tx *store.Tx) error {
		return s.Assign(tx, rbac.Assignment{Scope: rootGroup(by.Tenant), RoleID: s.named["user access administrator"], Principal: by.Object, PrincipalType: by.Kind}, by)
	})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}
