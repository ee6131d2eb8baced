package resource

import (
	"context"
	"net/http"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// maxMove is the most resources that one request moves, as in Azure.
const maxMove = 800

var (
	moveResources = arm.NewAction("Microsoft.Resources/subscriptions/resourceGroups/moveResources/action", "move a group's resources to another group")
	validateMove  = arm.NewAction("Microsoft.Resources/subscriptions/resourceGroups/validateMoveResources/action", "see whether a group's resources can be moved to another group")
	assignRoles   = arm.NewAction("Microsoft.Authorization/roleAssignments/write", "give somebody a role")
)

// MoveRoutes are the doors by which resources come from one group to another.
func (s *Server) MoveRoutes() []gate.Route {
	at := func(r *http.Request, _ gate.Vars) (gate.Target, error) { return Locate(r, 1) }
	const group = "POST /subscriptions/{sub}/resourcegroups/{group}/"
	return []gate.Route{
		gate.On(moveResources, group+"moveResources", at, s.move),
		gate.On(validateMove, group+"validateMoveResources", at, s.validateMove),
	}
}

// moving is one request to move: resources of the group from to the group to.
type moving struct {
	from, to arm.ID
	ids      []arm.ID // those named, directly in from
}

// newID is what id, which lies in from, is in to.
func (m moving) newID(id arm.ID) (arm.ID, error) {
	return arm.ParseID(m.to.String() + id.String()[len(m.from.String()):])
}

// readMove reads what is to be moved out of from.
func readMove(w http.ResponseWriter, r *http.Request, from arm.ID) (m moving, err error) {
	data, err := readBody(w, r)
	if err != nil {
		return m, err
	}
	var b struct {
		Resources []string `json:"resources"`
		Target    string   `json:"targetResourceGroup"`
	}
	if err := arm.Decode(data, &b); err != nil {
		return m, err
	}
	m.from = from
	if m.to, err = arm.ParseID(b.Target); err != nil || m.to.Group().IsZero() || m.to.Group() != m.to {
		return m, arm.Errorf("InvalidTargetResourceGroup", "targetResourceGroup is %.200q; it must be the id of a resource group, such as /subscriptions/ID/resourceGroups/NAME", b.Target)
	}
	if m.to.Key() == from.Key() {
		return m, arm.Errorf("SourceAndTargetGroupAreSame", "targetResourceGroup is the group %s that the resources are in; it must be another one", from.Name())
	}
	if len(b.Resources) == 0 || len(b.Resources) > maxMove {
		return m, arm.Errorf(arm.InvalidRequest, "resources has %d ids; it must have from 1 to %d", len(b.Resources), maxMove)
	}
	seen := map[string]bool{}
	for _, text := range b.Resources {
		id, err := arm.ParseID(text)
		if err != nil {
			return m, err
		}
		if id.Group().Key() != from.Key() || id.Parent().Key() != from.Key() {
			return m, arm.Errorf(arm.InvalidRequest, "resources has %s; all must lie in the group %s, and not in another resource, with which they move", id, from)
		}
		if seen[id.Key()] {
			return m, arm.Errorf(arm.InvalidRequest, "resources has %s twice", id)
		}
		seen[id.Key()] = true
		m.ids = append(m.ids, id)
	}
	return m, nil
}

func (s *Server) move(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	from, err := g.On(moveResources)
	if err != nil {
		return err
	}
	m, err := readMove(w, r, from)
	if err != nil {
		return err
	}
	if err := s.mayMove(r.Context(), g, moveResources, m); err != nil {
		return err
	}
	op := s.over(g, from)
	if err := g.Change(r.Context(), s.DB, func(tx *store.Tx) error {
		if err := s.moveAll(tx, g, m, r.URL.Query().Get("api-version"), true); err != nil {
			return err
		}
		return store.PutJSON(tx, operations, op.ID, op)
	}); err != nil {
		return err
	}
	s.announce(w, &Doc{ID: from, Type: Group.Type}, op.ID)
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// validateMove answers as a move would, and moves nothing.
func (s *Server) validateMove(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	from, err := g.On(validateMove)
	if err != nil {
		return err
	}
	m, err := readMove(w, r, from)
	if err != nil {
		return err
	}
	if err := s.mayMove(r.Context(), g, validateMove, m); err != nil {
		return err
	}
	if err := s.DB.View(r.Context(), func(tx *store.Tx) error {
		return s.moveAll(tx, g, m, r.URL.Query().Get("api-version"), false)
	}); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// mayMove asks the gate for what a move needs besides its own action: to write
// in the target group and, where more people have roles there than here, to
// give roles. Else whoever may move a vault would get at its secrets by moving
// it to a group of their own.
func (s *Server) mayMove(ctx context.Context, g gate.Grant, a arm.Action, m moving) error {
	links := []Linked{{Group.write, m.to, "targetResourceGroup"}}
	gains := false
	if err := s.DB.View(ctx, func(tx *store.Tx) (err error) {
		if s.Gains != nil {
			gains, err = s.Gains(tx, m.from, m.to)
		}
		return err
	}); err != nil {
		return err
	}
	for _, id := range m.ids {
		to, err := m.newID(id)
		if err != nil {
			return err
		}
		if k := s.Kind(id.Type()); k != nil {
			links = append(links, Linked{k.write, to, "targetResourceGroup"})
		}
		if gains {
			links = append(links, Linked{assignRoles, id, "targetResourceGroup, where others have roles"})
		}
	}
	return AdmitLinked(ctx, s.Gate, g, a, m.from, links)
}

// moveAll judges the whole move and, if it is not only asked for, does it.
func (s *Server) moveAll(tx *store.Tx, g gate.Grant, m moving, version string, do bool) error {
	for _, id := range []arm.ID{m.from, m.to} {
		d, err := Load(tx, id)
		if err != nil {
			return err
		}
		if d == nil {
			return missing(Group, id)
		}
		if id.Key() == m.to.Key() {
			m.to = d.ID // as it was first written
		} else {
			m.from = d.ID
		}
	}
	kinds := make([]*Kind, len(m.ids))
	were := make([]*Doc, len(m.ids))
	for i, id := range m.ids {
		d, err := Load(tx, id)
		if err != nil {
			return err
		}
		if d == nil {
			return arm.Errorf(arm.NotFound, "The Resource '%s' under resource group '%s' was not found.", id, m.from.Name())
		}
		if kinds[i] = s.Kind(d.Type); kinds[i] == nil || kinds[i].Moved == nil || d.Identity != nil {
			return immovable(d, "Resource move is not supported for resources of type '%s': '%s'.", d.Type, d.ID)
		}
		if st := StateOf(d); st == "Creating" || st == "Updating" {
			return &arm.Error{Code: "MoveCannotProceedWithResourcesNotInSucceededState", Status: http.StatusConflict, Message: d.ID.String() + " is " + strings.ToLower(st) + "; it can be moved when that is over."}
		}
		were[i] = d
	}
	if err := s.unreferenced(tx, m); err != nil {
		return err
	}
	for i, d := range were {
		if err := s.moveOne(tx, g, m, kinds[i], d, version, do); err != nil {
			return err
		}
	}
	return nil
}

func immovable(d *Doc, format string, args ...any) error {
	e := arm.Errorf("ResourceMoveProviderValidationFailed", format, args...)
	e.Status, e.Target = http.StatusConflict, d.Type
	return e
}

// unreferenced says whether nothing that stays points to what goes: such as a
// workspace to its storage account, which it could not find afterwards.
func (s *Server) unreferenced(tx *store.Tx, m moving) error {
	goes := map[string]bool{}
	for _, id := range m.ids {
		goes[id.Key()] = true
	}
	tenant := s.Site.TenantOf(m.from)
	for _, k := range s.kinds {
		if !k.Holds {
			continue
		}
		docs, err := List(tx, k.Type, arm.Root, "", 0)
		if err != nil {
			return err
		}
		for _, d := range docs {
			if s.Site.TenantOf(d.ID) != tenant {
				continue
			}
			links, err := k.links(d)
			if err != nil {
				return err
			}
			for _, l := range links {
				if goes[l.ID.Key()] {
					return &arm.Error{Code: "MissingMoveDependentResources", Status: http.StatusConflict, Target: l.ID.Type(), Message: "The move resources request can't move '" + l.ID.String() + "': '" + d.ID.String() + "' depends on it (" + l.Field + ") and would not find it in another group."}
				}
			}
		}
	}
	return nil
}

// moveOne moves d, whose kind is k, and all below it. Locks and policies judge
// it as a deletion here and as something new there; what was given, locked or
// assigned at its old id is dropped with that.
func (s *Server) moveOne(tx *store.Tx, g gate.Grant, m moving, k *Kind, d *Doc, version string, do bool) error {
	to, err := m.newID(d.ID)
	if err != nil {
		return err
	}
	if err := g.Free(tx, k.remove, d.ID); err != nil {
		return err
	}
	if err := g.Free(tx, k.write, to); err != nil {
		return err
	}
	if there, err := Load(tx, to); err != nil {
		return err
	} else if there != nil {
		return immovable(d, "The target resource group already has a resource '%s'.", there.ID)
	}
	h := handler{s: s, k: k, version: version}
	below, err := Below(tx, d.ID)
	if err != nil {
		return err
	}
	if err := s.mayGo(tx, g.Caller(), append(below[:len(below):len(below)], d)); err != nil {
		return err
	}
	next := *d
	next.ID = to
	h.stamp(&next, g.Caller())
	c := Change{Doc: &next, Caller: g.Caller(), Version: version}
	if err := h.review(tx, &c); err != nil || !do {
		return err
	}
	if err := g.Also(tx, k.remove, d.ID, "it is moved to "+to.String()); err != nil {
		return err
	}
	if err := g.Also(tx, k.write, to, "it is moved from "+d.ID.String()); err != nil {
		return err
	}
	for _, old := range append([]*Doc{d}, below...) {
		for _, f := range s.OnRemove {
			if err := f(tx, old); err != nil {
				return err
			}
		}
		if err := Remove(tx, old); err != nil {
			return err
		}
		if old == d {
			continue
		}
		under := *old
		if under.ID, err = m.newID(old.ID); err != nil {
			return err
		}
		if err := Save(tx, &under); err != nil {
			return err
		}
	}
	if err := k.Moved(tx, d.ID, &next); err != nil {
		return err
	}
	if s.Policies != nil {
		if err := s.Policies.Settled(tx, &c); err != nil {
			return err
		}
	}
	return Save(tx, &next)
}
