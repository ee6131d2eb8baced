package compliance

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// Events lie under the time at which they were written, and a random end.
const eventTable = "policy_events"

// keptFor is how long events are kept, as in Azure; each new one takes two that
// are older away.
const keptFor = 90 * 24 * time.Hour

// event is what a policy found of a request.
type event struct {
	Time       time.Time `json:"time"`
	Resource   arm.ID    `json:"resource"`
	Type       string    `json:"type"`
	Location   string    `json:"location,omitempty"`
	Assignment arm.ID    `json:"assignment"`
	Scope      arm.ID    `json:"scope"`
	Definition arm.ID    `json:"definition"`
	Set        string    `json:"set,omitempty"`
	Ref        string    `json:"ref,omitempty"`
	Effect     string    `json:"effect"`
	Caller     string    `json:"caller"`
	Component  string    `json:"component,omitempty"` // id of the job that a rule of a data plane's mode judged
}

func (s *Service) note(tx *store.Tx, d *resource.Doc, by arm.Caller, h hit) error {
	on, typ := h.where(d)
	e := event{
		Time: s.Now().UTC(), Resource: on, Type: typ, Location: d.Location, Assignment: h.ID, Scope: h.Scope, Definition: h.def.id,
		Ref: h.ref, Effect: string(h.rule.Effect), Caller: by.Object,
	}
	if !h.component.IsZero() {
		e.Component = h.component.String()
	}
	if h.set != nil {
		e.Set = h.set.id.String()
	}
	old, err := tx.Scan(eventTable, "", "", 2)
	if err != nil {
		return err
	}
	for _, r := range old {
		if r.Key < at(e.Time.Add(-keptFor)) {
			if err := tx.Delete(eventTable, r.Key); err != nil {
				return err
			}
		}
	}
	return store.PutJSON(tx, eventTable, at(e.Time)+"-"+arm.NewHex(), e)
}

// at is where the events of a time begin.
func at(t time.Time) string { return fmt.Sprintf("%020d", t.UnixNano()) }

func (e event) show() map[string]any {
	parts := []any{}
	if e.Component != "" {
		id := arm.MustID(e.Component)
		parts = append(parts, map[string]any{"id": id, "type": componentType, "name": id.Name(), "timestamp": e.Time, "policyDefinitionAction": e.Effect, "principalOid": e.Caller})
	}
	return map[string]any{
		"components": parts, "timestamp": e.Time, "resourceId": e.Resource, "resourceType": e.Type, "resourceLocation": e.Location, "subscriptionId": e.Resource.Subscription(),
		"resourceGroup": e.Resource.Group().Name(), "policyAssignmentId": e.Assignment, "policyAssignmentName": e.Assignment.Name(), "policyAssignmentScope": e.Scope,
		"policyDefinitionId": e.Definition, "policyDefinitionName": e.Definition.Name(), "policyDefinitionAction": e.Effect, "policySetDefinitionId": e.Set, "policySetDefinitionName": e.Set[strings.LastIndexByte(e.Set, '/')+1:],
		"policyDefinitionReferenceId": e.Ref, "isCompliant": false, "complianceState": "NonCompliant", "principalOid": e.Caller,
	}
}

// events answers what policies found of requests at or below a scope, the
// latest first.
func (s *Service) events(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	scope, err := g.On(queryEvents)
	if err != nil {
		return err
	}
	q, err := readQuery(r)
	if err != nil {
		return err
	}
	var found []event
	var only choice
	err = s.DB.View(r.Context(), func(tx *store.Tx) error {
		if only, scope, err = s.meant(tx, scope); err != nil {
			return err
		}
		found, err = store.ScanJSON[event](tx, eventTable, "", "", 0)
		return err
	})
	if err != nil {
		return err
	}
	var rows []map[string]any
	for i := len(found) - 1; i >= 0; i-- {
		e := found[i]
		row := e.show()
		if !s.below(e.Resource, scope) || !only.holds(row) || e.Time.Before(q.from) || !q.to.IsZero() && e.Time.After(q.to) {
			continue
		}
		rows = append(rows, row)
	}
	return q.answer(w, r, s.Site, rows)
}

// below reports whether id is the scope or lies below it.
func (s *Service) below(id, scope arm.ID) bool {
	return id.Key() == scope.Key() || contains(s.Above(id), scope.Key()) || strings.EqualFold(scope.Key(), "/")
}
