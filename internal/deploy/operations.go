package deploy

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// What a run did lies under its seed, one row per resource.
const operationTable = "deployment_operations"

// operation is what became of one resource of a deployment.
type operation struct {
	Index  int        `json:"index"`
	Target arm.ID     `json:"target"`
	Type   string     `json:"type"`
	Does   string     `json:"does,omitempty"` // "Delete", or "" for Create
	State  string     `json:"state"`
	Status int        `json:"status,omitempty"`
	Error  *problem   `json:"error,omitempty"`
	Began  time.Time  `json:"began"`
	Ended  *time.Time `json:"ended,omitempty"`
}

func operationKey(seed string, i int) string { return fmt.Sprintf("%s/%04d", seed, i) }

// recorded is what is recorded of the resource, or nil.
func (r *run) recorded(ctx context.Context, i int) (op *operation, err error) {
	err = r.s.DB.View(ctx, func(tx *store.Tx) error {
		x, ok, err := store.GetJSON[operation](tx, operationTable, operationKey(r.in.Seed, i))
		if ok {
			op = &x
		}
		return err
	})
	return op, err
}

// record keeps op, unless the deployment is gone or another run has taken its
// place: then this one ends.
func (r *run) record(ctx context.Context, op *operation) error {
	if over(op.State) {
		now := r.s.Now().UTC()
		op.Ended = &now
	}
	return r.s.DB.Do(ctx, func(tx *store.Tx) error {
		d, err := resource.Load(tx, r.doc.ID)
		if err != nil {
			return err
		}
		if d == nil || d.Instance != r.doc.Instance || d.Etag != r.doc.Etag {
			return arm.Errorf("DeploymentCanceled", "the deployment was deleted before it was over")
		}
		return store.PutJSON(tx, operationTable, operationKey(r.in.Seed, op.Index), op)
	})
}

func forgetOperations(tx *store.Tx, d *resource.Doc) error {
	in, err := innerOf(d)
	if err != nil {
		return err
	}
	rows, err := tx.Scan(operationTable, in.Seed+"/", "", 0)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if err := tx.Delete(operationTable, row.Key); err != nil {
			return err
		}
	}
	return nil
}

// find is the deployment that the grant is for, with its operations.
func (s *Service) find(ctx context.Context, g gate.Grant, a arm.Action) (d *resource.Doc, ops []operation, err error) {
	id, err := g.On(a)
	if err != nil {
		return nil, nil, err
	}
	id = resource.Kept(id, g.Caller().Tenant)
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		if d, err = resource.Load(tx, id); err != nil {
			return err
		}
		if d == nil {
			return notFound(id)
		}
		in, err := innerOf(d)
		if err != nil {
			return err
		}
		ops, err = store.ScanJSON[operation](tx, operationTable, in.Seed+"/", "", 0)
		return err
	})
	return d, ops, err
}

func (s *Service) listOperations(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	d, ops, err := s.find(r.Context(), g, ReadOperation)
	if err != nil {
		return err
	}
	list := make([]any, len(ops))
	for i, op := range ops {
		list[i] = op.show(d)
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{"value": list})
	return nil
}

func (s *Service) readOperation(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	d, ops, err := s.find(r.Context(), g, ReadOperation)
	if err != nil {
		return err
	}
	for _, op := range ops {
		if op.id() == g.Item() {
			gate.WriteJSON(w, http.StatusOK, op.show(d))
			return nil
		}
	}
	return &arm.Error{Code: "DeploymentOperationNotFound", Status: http.StatusNotFound, Message: fmt.Sprintf("The deployment has no operation '%s'.", g.Item())}
}

func (op operation) id() string { return fmt.Sprintf("%016X", op.Index+1) }

func (op operation) show(d *resource.Doc) map[string]any {
	end := op.Began
	if op.Ended != nil {
		end = *op.Ended
	}
	p := map[string]any{
		"provisioningOperation": cmp.Or(op.Does, "Create"), "provisioningState": op.State, "timestamp": end, "duration": duration(end.Sub(op.Began)),
		"targetResource": map[string]any{"id": op.Target, "resourceType": op.Type, "resourceName": op.Target.Name()},
	}
	if op.Status != 0 {
		p["statusCode"] = http.StatusText(op.Status)
	}
	if op.Error != nil {
		p["statusMessage"] = map[string]any{"error": op.Error}
	}
	return map[string]any{"id": resource.Shown(d.ID).String() + "/operations/" + op.id(), "operationId": op.id(), "properties": p}
}

// export answers with the template; parameters are no part of it.
func (s *Service) export(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	d, _, err := s.find(r.Context(), g, Export)
	if err != nil {
		return err
	}
	in, err := innerOf(d)
	if err != nil {
		return err
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{"template": in.Template})
	return nil
}

// validate says whether a template could be deployed by its caller, and
// deploys nothing.
func (s *Service) validate(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(Validate)
	if err != nil {
		return err
	}
	body, err := s.asked(w, r, g, id)
	if err != nil {
		return err
	}
	if body.Properties.Settings != nil {
		return arm.Errorf(arm.InvalidRequest, "properties.whatIfSettings is for whatIf, not for validate")
	}
	p, err := s.prepare(r.Context(), g.Caller(), resource.Kept(id, g.Caller().Tenant), body.Properties.properties, body.Location, r.URL.Query().Get("api-version"))
	if err != nil {
		return err
	}
	p.shown.State = "Succeeded"
	gate.WriteJSON(w, http.StatusOK, map[string]any{"id": id, "name": id.Name(), "type": deploymentType, "properties": p.shown})
	return nil
}

// deploymentBody is what a client may send of a deployment that is not to be made.
type deploymentBody struct {
	Location   string            `json:"location"`
	Tags       map[string]string `json:"tags"`
	Properties struct {
		properties
		Settings *struct {
			Format string `json:"resultFormat" arm:"only=FullResourcePayloads|ResourceIdOnly"`
		} `json:"whatIfSettings"`
	} `json:"properties"`
}

// asked reads a deployment that could go where id says.
func (s *Service) asked(w http.ResponseWriter, r *http.Request, g gate.Grant, id arm.ID) (body deploymentBody, err error) {
	data, err := resource.ReadBody(w, r)
	if err != nil {
		return body, err
	}
	if data, err = strict(data); err != nil {
		return body, err
	}
	if err := arm.Decode(data, &body); err != nil {
		return body, err
	}
	if err := body.Properties.at(resource.Kept(id, g.Caller().Tenant), body.Location); err != nil {
		return body, err
	}
	return body, s.there(r.Context(), id)
}

// there says whether what a deployment goes to exists.
func (s *Service) there(ctx context.Context, id arm.ID) error {
	return s.DB.View(ctx, func(tx *store.Tx) error {
		_, err := s.Scope(tx, id.Parent())
		return err
	})
}

// cancel stops a run before its next resource. What is on its way goes on, and
// so do nested deployments, which can be cancelled like this one.
func (s *Service) cancel(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(Cancel)
	if err != nil {
		return err
	}
	err = g.Change(r.Context(), s.DB, func(tx *store.Tx) error {
		d, err := resource.Load(tx, resource.Kept(id, g.Caller().Tenant))
		if err != nil {
			return err
		}
		if d == nil {
			return notFound(id)
		}
		if over(resource.StateOf(d)) {
			return &arm.Error{Code: "DeploymentCannotBeCancelled", Status: http.StatusConflict, Message: fmt.Sprintf("The deployment '%s' can't be cancelled, because it is over.", id.Name())}
		}
		in, err := innerOf(d)
		if err != nil {
			return err
		}
		var p properties
		if err := json.Unmarshal(d.Properties, &p); err != nil {
			return fmt.Errorf("reading the properties of %s: %w", id, err)
		}
		now := s.Now().UTC()
		p.State, p.Timestamp, p.Duration = "Canceled", &now, duration(now.Sub(in.Began))
		if d.Properties, err = json.Marshal(p); err != nil {
			return err
		}
		in.Parameters, in.Over = nil, true
		if d.Inner, err = json.Marshal(in); err != nil {
			return err
		}
		d.Etag = arm.NewHex() // by which the run sees that it is no more
		return resource.Save(tx, d)
	})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func notFound(id arm.ID) error {
	return &arm.Error{Code: "DeploymentNotFound", Status: http.StatusNotFound, Message: fmt.Sprintf("Deployment '%s' could not be found.", id.Name())}
}
