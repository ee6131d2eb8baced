package deploy

import (
	"bytes"
	"context"
	"fmt"
	"net/http"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// Inside is Doors over a plane and its gate: a request takes the way of one
// from outside, but for the proof of who asks, which was given when the
// deployment was accepted.
type Inside struct {
	Gate  *gate.Gate
	Plane func() *gate.Plane // the plane of Resource Manager, once it is complete
	Site  arm.Site
	// Resources knows what policies say of a deletion.
	Resources *resource.Server
}

// May looks which door the request would come to, and what the gate would say.
func (i Inside) May(as arm.Caller, method string, id arm.ID) (known, allowed bool, action string) {
	rt, _, _, err := i.Plane().Match(method, id.String())
	if err != nil || rt.Action.IsZero() || as.Lease != nil {
		return err == nil && !rt.Action.IsZero(), false, rt.Action.Name()
	}
	return true, i.Gate.Would(as, rt.Action, id), rt.Action.Name()
}

// Spared asks locks and policies, which bind whoever may delete.
func (i Inside) Spared(ctx context.Context, as arm.Caller, id arm.ID) error {
	rt, _, _, err := i.Plane().Match(http.MethodDelete, id.String())
	if err != nil {
		return err
	}
	return i.Resources.DB.View(ctx, func(tx *store.Tx) error {
		if i.Gate.Locks != nil {
			if err := i.Gate.Locks.Holding(tx, rt.Action, id); err != nil {
				return err
			}
		}
		return i.Resources.MayGo(tx, as, id)
	})
}

// Preview asks the kinds of resources.
func (i Inside) Preview(ctx context.Context, as arm.Caller, id arm.ID, apiVersion string, body []byte, fresh bool) (*resource.Forecast, error) {
	return i.Resources.Preview(ctx, as, id, apiVersion, body, fresh)
}

// Do carries a request through the gate.
func (i Inside) Do(ctx context.Context, as arm.Caller, method string, id arm.ID, apiVersion string, body []byte) (Answer, error) {
	r, err := http.NewRequestWithContext(ctx, method, i.Site.Base()+id.String()+"?api-version="+apiVersion, bytes.NewReader(body))
	if err != nil {
		return Answer{}, fmt.Errorf("making the request %s %s: %w", method, id, err)
	}
	r.RequestURI = r.URL.RequestURI()
	r.Header.Set("Content-Type", "application/json")
	w := &answer{header: http.Header{}}
	rt, v, found, err := i.Plane().Match(method, r.URL.EscapedPath())
	switch {
	case err != nil:
		gate.RefuseARM(w, r, err)
	case rt.Method == "" && found:
		gate.RefuseARM(w, r, arm.Errorf(arm.MethodNotAllowed, "%s can't be asked with %s", id, method))
	case rt.Method == "":
		gate.RefuseARM(w, r, &arm.Error{Code: "InvalidResourceType", Status: http.StatusNotFound, Message: fmt.Sprintf("There are no resources of the type %s.", id.Type())})
	default:
		face := &gate.Plane{Name: "deployment", Fold: true, Refuse: gate.RefuseARM, Who: func(*http.Request) (arm.Caller, error) { return as, nil }}
		i.Gate.Serve(face, rt, v, w, r)
	}
	return Answer{Status: w.status, Operation: w.header.Get("Azure-AsyncOperation"), Body: w.body.Bytes()}, ctx.Err()
}

// answer keeps what a door answers.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header is the answer's header.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader keeps the first status.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

// Write keeps part of the body.
func (a *answer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(b)
}
