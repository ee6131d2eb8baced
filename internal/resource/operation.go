package resource

import (
	"cmp"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// Operations lie under their ids; those that are not over also in a table of
// their own, which is what is resumed after a crash.
const (
	operations     = "operations"
	openOperations = "operations_open"
	results        = "operations_results" // by time, those that have a Result
)

// kept is how long a Result can be fetched.
const kept = time.Hour

// The states of an operation, as Azure-AsyncOperation spells them.
const (
	InProgress = "InProgress"
	Succeeded  = "Succeeded"
	Failed     = "Failed"
)

// Operation is something that goes on after its request was answered.
type Operation struct {
	ID       string      `json:"id"` // 128 random bits, in hex
	Resource arm.ID      `json:"resource"`
	Instance string      `json:"instance"` // of the resource
	Etag     string      `json:"etag"`     // of the change that it applies
	Tenant   string      `json:"tenant"`
	Caller   string      `json:"caller"` // object id of who may ask for it
	Status   string      `json:"status"`
	Code     arm.Code    `json:"code,omitempty"`
	Message  string      `json:"message,omitempty"`
	Started  time.Time   `json:"started"`
	Ended    *time.Time  `json:"ended,omitempty"`
	Quiet    bool        `json:"quiet,omitempty"` // its result is no resource
	Begun    *gate.Begun `json:"begun,omitempty"` // for the record of its end
	// Result is what it is answered with, if that is no resource.
	Result json.RawMessage `json:"result,omitempty"`
}

// begin keeps a new operation for the change, and marks its resource as on the way.
func (s *Server) begin(tx *store.Tx, c *Change) (string, error) {
	state := "Updating"
	if c.Old == nil || StateOf(c.Old) == "Creating" {
		state = "Creating"
	}
	if err := setState(c.Doc, state); err != nil {
		return "", err
	}
	op := Operation{
		ID: arm.NewHex(), Resource: c.Doc.ID, Instance: c.Doc.Instance, Etag: c.Doc.Etag,
		Tenant: c.Caller.Tenant, Caller: c.Caller.Object, Status: InProgress, Started: s.Now().UTC(), Begun: c.begun,
	}
	if s.Wake != nil {
		tx.After(s.Wake)
	}
	return op.ID, Keep(tx, op)
}

// over is an operation that ended with its request, for clients that ask how it went
// because Azure's takes longer.
func (s *Server) over(g gate.Grant, on arm.ID) Operation {
	now := s.Now().UTC()
	return Operation{
		ID: arm.NewHex(), Resource: on, Tenant: g.Caller().Tenant, Caller: g.Caller().Object,
		Status: Succeeded, Started: now, Ended: &now, Quiet: true,
	}
}

// Keep writes an operation that is not over.
func Keep(tx *store.Tx, op Operation) error {
	if err := store.PutJSON(tx, operations, op.ID, op); err != nil {
		return err
	}
	return tx.Put(openOperations, op.ID, nil)
}

// KeepResult keeps an operation that is over, for its caller to fetch its Result
// within the hour. It forgets those whose hour is over.
func KeepResult(tx *store.Tx, op Operation) error {
	rows, err := tx.Scan(results, "", "", 0)
	if err != nil {
		return err
	}
	now := *op.Ended
	for _, r := range rows {
		at, id, _ := strings.Cut(r.Key, "/")
		if at > now.Add(-kept).Format(time.RFC3339) {
			break
		}
		if err := tx.Delete(results, r.Key); err != nil {
			return err
		}
		if err := tx.Delete(operations, id); err != nil {
			return err
		}
	}
	if err := tx.Put(results, now.Format(time.RFC3339)+"/"+op.ID, nil); err != nil {
		return err
	}
	return store.PutJSON(tx, operations, op.ID, op)
}

// StateOf is the resource's provisioningState.
func StateOf(d *Doc) string {
	var p struct {
		State string `json:"provisioningState"`
	}
	if json.Unmarshal(d.Properties, &p) != nil {
		return ""
	}
	return p.State
}

func setState(d *Doc, state string) error {
	props := map[string]json.RawMessage{}
	if len(d.Properties) > 0 {
		if err := json.Unmarshal(d.Properties, &props); err != nil {
			return err
		}
	}
	props["provisioningState"], _ = json.Marshal(state) // a string can't fail
	b, err := json.Marshal(props)
	d.Properties = b
	return err
}

// Open lists the operations that are not over.
func Open(tx *store.Tx) ([]Operation, error) {
	rows, err := tx.Scan(openOperations, "", "", 0)
	if err != nil {
		return nil, err
	}
	var out []Operation
	for _, r := range rows {
		op, ok, err := store.GetJSON[Operation](tx, operations, r.Key)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, op)
		}
	}
	return out, nil
}

// End records how an operation ended, with the resource's state and an entry of the
// audit log, in one transaction. A resource that was changed or replaced meanwhile keeps the
// state that its newer operation gave it.
func (s *Server) End(tx *store.Tx, op Operation, status string, code arm.Code, message string) error {
	now := s.Now().UTC()
	op.Status, op.Code, op.Message, op.Ended = status, code, message, &now
	if err := store.PutJSON(tx, operations, op.ID, op); err != nil {
		return err
	}
	if err := tx.Delete(openOperations, op.ID); err != nil {
		return err
	}
	outcome := "ok"
	if status != Succeeded {
		outcome = string(cmp.Or(code, arm.Internal))
	}
	if err := s.Gate.Ended(tx, op.Begun, outcome); err != nil {
		return err
	}
	d, err := Load(tx, op.Resource)
	if err != nil || d == nil || d.Instance != op.Instance || d.Etag != op.Etag {
		return err
	}
	if err := setState(d, status); err != nil {
		return err
	}
	return Save(tx, d)
}

// announce tells the client where to ask how the operation goes.
func (s *Server) announce(w http.ResponseWriter, d *Doc, op string) {
	ns, _, _ := strings.Cut(d.Type, "/")
	at := operationBase(s.Site, d.ID, ns) + "/operationStatuses/" + op
	w.Header().Set("Azure-AsyncOperation", at+"?api-version="+VersionFor(at))
	Await(w, s.Site, d.ID, ns, op)
}

// Await tells the client where to fetch the result of an operation on id.
func Await(w http.ResponseWriter, site arm.Site, id arm.ID, namespace, op string) {
	at := operationBase(site, id, namespace) + "/operationResults/" + op
	w.Header().Set("Location", at+"?api-version="+VersionFor(at))
	w.Header().Set("Retry-After", "1")
}

func operationBase(site arm.Site, id arm.ID, namespace string) string {
	base := site.Base()
	if sub := id.Subscription(); sub != "" {
		base += "/subscriptions/" + sub
	}
	return base + "/providers/" + namespace + "/locations/" + site.Location
}

var readOperation = arm.NewAction("Microsoft.Resources/subscriptions/operationresults/read", "see how an operation goes that one has begun")

// OperationRoutes are the doors to operations. Whoever began one may see it;
// to everybody else it does not exist.
func (s *Server) OperationRoutes() []gate.Route {
	const at = "/providers/{ns}/locations/{location}/"
	const inSub = "/subscriptions/{sub}" + at
	locate := func(r *http.Request, v gate.Vars) (gate.Target, error) {
		if err := version(r); err != nil || v["sub"] == "" {
			return gate.Target{ID: arm.Root, Item: v["op"]}, err
		}
		id, err := arm.ParseID("/subscriptions/" + v["sub"])
		return gate.Target{ID: id, Item: v["op"]}, err
	}
	return []gate.Route{
		gate.Each(readOperation, "GET "+inSub+"operationStatuses/{op}", locate, s.operationStatus),
		gate.Each(readOperation, "GET "+inSub+"operationResults/{op}", locate, s.operationResult),
		gate.Each(readOperation, "GET "+at+"operationStatuses/{op}", locate, s.operationStatus),
		gate.Each(readOperation, "GET "+at+"operationResults/{op}", locate, s.operationResult),
	}
}

func (s *Server) operation(r *http.Request, g gate.Grant) (op Operation, err error) {
	sub, err := g.On(readOperation)
	if err != nil {
		return op, err
	}
	ok := false
	if err := s.DB.View(r.Context(), func(tx *store.Tx) (err error) {
		op, ok, err = store.GetJSON[Operation](tx, operations, g.Item())
		return err
	}); err != nil {
		return op, err
	}
	who := g.Caller()
	if !ok || op.Caller != who.Object || op.Tenant != who.Tenant || op.Resource.Subscription() != sub.Subscription() {
		return op, arm.Errorf(arm.NotFound, "There is no operation %q that you began.", g.Item())
	}
	return op, nil
}

func (s *Server) operationStatus(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	op, err := s.operation(r, g)
	if err != nil {
		return err
	}
	out := map[string]any{"id": r.URL.Path, "name": op.ID, "status": op.Status, "startTime": op.Started}
	if op.Ended != nil {
		out["endTime"] = *op.Ended
	} else {
		w.Header().Set("Retry-After", "1")
	}
	if op.Status == Failed {
		out["error"] = map[string]any{"code": op.Code, "message": op.Message}
	}
	return writeJSON(w, http.StatusOK, out)
}

// operationResult is for clients that follow Location: 202 while it goes on,
// then the resource.
func (s *Server) operationResult(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	op, err := s.operation(r, g)
	if err != nil {
		return err
	}
	switch op.Status {
	case InProgress:
		s.announce(w, &Doc{ID: op.Resource, Type: op.Resource.Type()}, op.ID)
		w.WriteHeader(http.StatusAccepted)
		return nil
	case Failed:
		return arm.Errorf(op.Code, "%s", op.Message)
	}
	if op.Result != nil {
		return writeJSON(w, http.StatusOK, op.Result)
	}
	var d *Doc
	if err := s.DB.View(r.Context(), func(tx *store.Tx) (err error) {
		d, err = Load(tx, op.Resource)
		return err
	}); err != nil {
		return err
	}
	k := s.Kind(op.Resource.Type())
	if op.Quiet || d == nil || k == nil || !g.Sees(k.read, d.ID) {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return handler{s: s, k: k}.answer(w, http.StatusOK, d)
}
