package tracking

import (
	"net/http"
	"strings"
	"testing"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// A lock on a registered model holds it at MLflow's doors, whose target is the
// workspace, and no other model. No door that changes models is left out.
func TestLockedModels(t *testing.T) {
	w := newWorld(t)
	id := w.run("a")
	w.do("ann", "PUT", proxy(ws1)+"/runs/"+id+"/model/MLmodel", "x")
	for _, name := range []string{"iris", "iris2"} {
		w.must("ann", "POST", "registered-models/create", obj{"name": name})
		w.must("ann", "POST", "model-versions/create", obj{"name": name, "source": "runs:/" + id + "/model"})
	}
	bodies := map[string]obj{
		"registered-models/update": {"description": "d"}, "registered-models/set-tag": {"key": "k", "value": "v"}, "registered-models/delete-tag": {"key": "k"},
		"registered-models/alias": {"alias": "a", "version": "1"}, "registered-models/rename": {"new_name": "rose"}, "registered-models/delete": {},
		"model-versions/create": {"source": "runs:/" + id + "/model"}, "model-versions/update": {"version": "1", "description": "d"}, "model-versions/set-tag": {"version": "1", "key": "k", "value": "v"},
		"model-versions/delete-tag": {"version": "1", "key": "k"}, "model-versions/transition-stage": {"version": "1", "stage": "Staging", "archive_existing_versions": false}, "model-versions/delete": {"version": "1"},
	}
	w.gate.Locks = &gate.Locks{DB: w.s.DB, Holding: func(_ *store.Tx, _ arm.Action, id arm.ID) error {
		if id.Within(ws1.Child("models", "iris")) {
			return &arm.Error{Code: "ScopeLocked", Status: http.StatusConflict, Message: "it is locked"}
		}
		return nil
	}}
	n := 0
	for _, rt := range w.plane.Routes {
		door := rt.Pattern[strings.LastIndex(rt.Pattern[:strings.LastIndexByte(rt.Pattern, '/')], "/")+1:]
		if a := rt.Action.Key(); !strings.Contains(a, "/models/") || strings.HasSuffix(a, "/read") || door == "registered-models/create" {
			continue
		}
		n++
		body := bodies[door]
		if body == nil {
			t.Errorf("there is no body for %s", door)
			continue
		}
		body["name"] = "iris"
		if rt.Method == http.MethodDelete && door == "registered-models/alias" {
			delete(body, "version")
		}
		if a := w.ml("ann", rt.Method, door, body); a.status != http.StatusConflict || a.text("error_code") != "INVALID_STATE" {
			t.Errorf("%s %s of a locked model = %d %s", rt.Method, door, a.status, a.body)
		}
		body["name"] = "iris2"
		if a := w.ml("ann", rt.Method, door, body); a.status == http.StatusConflict {
			t.Errorf("%s %s of another model = %d %s", rt.Method, door, a.status, a.body)
		}
	}
	if n < 12 {
		t.Errorf("only %d doors were found", n)
	}
}
