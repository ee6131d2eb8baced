package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
	"castellan/internal/template"
)

// change is what a deployment would do to one resource, as Azure shows it.
type change struct {
	ID     arm.ID         `json:"resourceId"`
	Type   string         `json:"changeType"` // Create, Delete, Modify, NoChange, Ignore, Deploy or Unsupported
	Reason string         `json:"unsupportedReason,omitempty"`
	Before map[string]any `json:"before,omitempty"`
	After  map[string]any `json:"after,omitempty"`
	Delta  []delta        `json:"delta,omitempty"`
}

// whatIf tells what a deployment by the caller would change, and changes nothing.
// Like Azure it answers with where the result is to be fetched.
func (s *Service) whatIf(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(WhatIf)
	if err != nil {
		return err
	}
	body, err := s.asked(w, r, g, id)
	if err != nil {
		return err
	}
	p, err := s.prepare(r.Context(), g.Caller(), resource.Kept(id, g.Caller().Tenant), body.Properties.properties, body.Location, r.URL.Query().Get("api-version"))
	if err != nil {
		return err
	}
	f := forecast{s: s, as: g.Caller(), p: p, fresh: map[string]bool{}, hide: hider(p.found.secrets)}
	f.idOnly = body.Properties.Settings != nil && strings.EqualFold(body.Properties.Settings.Format, "ResourceIdOnly")
	if err := f.tell(r.Context(), id.Group()); err != nil {
		return err
	}
	result, err := json.Marshal(map[string]any{"status": resource.Succeeded, "properties": map[string]any{"changes": f.changes}})
	if err != nil {
		return fmt.Errorf("writing what %s would change: %w", id, err)
	}
	now := s.Now().UTC()
	op := resource.Operation{ID: arm.NewHex(), Resource: id, Tenant: g.Caller().Tenant, Caller: g.Caller().Object, Status: resource.Succeeded, Started: now, Ended: &now, Result: result}
	if err := g.Change(r.Context(), s.DB, func(tx *store.Tx) error { return resource.KeepResult(tx, op) }); err != nil {
		return err
	}
	resource.Await(w, s.Site, id, "Microsoft.Resources", op.ID)
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// forecast gathers what a deployment would change. What is there now it asks of
// the doors, as the caller: it reveals nothing that a GET would not.
type forecast struct {
	s       *Service
	as      arm.Caller
	p       *prepared
	idOnly  bool
	hide    *strings.Replacer
	fresh   map[string]bool // keys of what would be made
	changes []change
}

// tell gathers what would become of all resources in the template, and of those
// beside them. group is the one that the deployment goes to, if any.
func (f *forecast) tell(ctx context.Context, group arm.ID) error {
	f.changes = []change{}
	groups := []arm.ID{group}
	for _, x := range f.p.found.planned {
		if x.IsDeployment() && x.body != nil {
			continue // what is in it is planned, too
		}
		c, err := f.one(ctx, x)
		if err != nil {
			return f.wrong(x.ID, err)
		}
		if c.Type == "Create" {
			f.fresh[x.ID.Key()] = true
		}
		f.changes = append(f.changes, c)
		if !slices.ContainsFunc(groups, func(g arm.ID) bool { return g.Key() == x.ID.Group().Key() }) {
			groups = append(groups, x.ID.Group())
		}
	}
	for _, g := range groups {
		if g.IsZero() {
			continue
		}
		typ := "Ignore"
		if f.p.run.Complete && g.Key() == group.Key() {
			typ = "Delete"
		}
		if err := f.beside(ctx, g, typ); err != nil {
			return err
		}
	}
	return nil
}

// wrong is why a resource could not be deployed, without secrets.
func (f *forecast) wrong(id arm.ID, err error) error {
	var e *arm.Error
	if !errors.As(err, &e) {
		return err
	}
	told := *e
	told.Message = f.hide.Replace(e.Message)
	if told.Target == "" {
		told.Target = id.String()
	}
	return &told
}

// one is what would become of a resource in the template.
func (f *forecast) one(ctx context.Context, x planned) (change, error) {
	unsupported := func(reason string) (change, error) {
		return change{ID: x.ID, Type: "Unsupported", Reason: reason}, nil
	}
	switch {
	case x.Maybe:
		return unsupported("Its condition is known only at deployment.")
	case x.IsDeployment():
		return unsupported("What it deploys is known only at deployment.")
	}
	now, status, err := f.now(ctx, x.ID, x.APIVersion)
	if err != nil {
		return change{}, err
	}
	if status != http.StatusOK && status != http.StatusNotFound {
		return unsupported("The caller may not read it.")
	}
	body, known := x.body, x.body != nil
	if !known {
		if body, err = x.Known(); err != nil {
			return change{}, err
		}
	}
	data, err := json.Marshal(body)
	if err != nil {
		return change{}, fmt.Errorf("writing %s: %w", x.ID, err)
	}
	p, err := f.s.Doors.Preview(ctx, f.as, x.ID, x.APIVersion, data, f.isFresh(x.ID))
	switch {
	case err != nil && !known:
		return unsupported("It depends on what is known only at deployment.")
	case err != nil:
		return change{}, err
	case p == nil && now == nil && !f.isFresh(x.ID):
		// Nobody else sees that what is to hold it is not there.
		if up := x.ID.Parent(); strings.Count(up.Type(), "/") > 0 {
			_, status, err := f.now(ctx, up, resource.VersionFor(up.String()))
			if err == nil && status == http.StatusNotFound {
				err = arm.Errorf(arm.NotFound, "The resource %s, in which %s is to lie, was not found.", up, x.ID.Name())
			}
			if err != nil {
				return change{}, err
			}
		}
		p = &resource.Forecast{After: body}
	case p == nil:
		p = &resource.Forecast{Before: now, After: body}
		if now != nil {
			p.After = overlay(now, body).(map[string]any)
		}
	}
	return f.compare(x, now != nil, p, body), nil
}

// compare is the change between what is and what would be.
func (f *forecast) compare(x planned, there bool, p *resource.Forecast, body map[string]any) change {
	c := change{ID: x.ID, Type: "Create"}
	if there {
		c.Type = "Deploy"
	}
	if f.idOnly {
		return c
	}
	before, after := hidden(p.Before, f.hide).(map[string]any), hidden(p.After, f.hide).(map[string]any)
	if there {
		c.Type, c.Before = "NoChange", named(before, x.ID, x.Type, x.APIVersion)
		if len(differ(p.Before, p.After, "")) > 0 {
			c.Type, c.Delta = "Modify", differ(before, after, "")
		}
	}
	for _, path := range p.NoEffect {
		c.Delta = append(c.Delta, delta{Path: path, Type: "NoEffect"})
	}
	c.After = named(after, x.ID, x.Type, x.APIVersion)
	return c
}

// isFresh reports whether something that holds id would be made first.
func (f *forecast) isFresh(id arm.ID) bool {
	for up := id.Parent(); !up.IsZero() && up != arm.Root; up = up.Parent() {
		if f.fresh[up.Key()] {
			return true
		}
	}
	return false
}

// now is a resource as the caller may see it, and what its door answered.
func (f *forecast) now(ctx context.Context, id arm.ID, version string) (map[string]any, int, error) {
	a, err := f.s.Doors.Do(ctx, f.as, http.MethodGet, id, version, nil)
	if err != nil || a.Status != http.StatusOK {
		if err == nil && (a.Status >= 500 || a.Status == http.StatusTooManyRequests) {
			err = fmt.Errorf("looking at %s: the answer is %d", id, a.Status)
		}
		return nil, a.Status, err
	}
	v, err := template.Read(a.Body)
	if err != nil {
		return nil, 0, fmt.Errorf("reading the state of %s: %w", id, err)
	}
	m, _ := template.Whole(v).(map[string]any)
	return m, a.Status, nil
}

// beside are the resources of a group that the template does not speak of, as far
// as the caller may see them.
func (f *forecast) beside(ctx context.Context, group arm.ID, typ string) error {
	gone, err := f.s.absent(ctx, group, f.p.run.KeepOff, &f.p.found)
	if err != nil {
		return err
	}
	for _, id := range gone {
		version := resource.VersionFor(id.String())
		now, status, err := f.now(ctx, id, version)
		if err != nil {
			return err
		}
		if status != http.StatusOK {
			continue
		}
		c := change{ID: id, Type: typ}
		if !f.idOnly {
			c.Before = named(hidden(now, f.hide).(map[string]any), id, id.Type(), version)
		}
		f.changes = append(f.changes, c)
	}
	return nil
}

// named is a resource with what tells it from others.
func named(m map[string]any, id arm.ID, typ, version string) map[string]any {
	return union(m, map[string]any{"id": id, "name": id.Name(), "type": typ, "apiVersion": version})
}
