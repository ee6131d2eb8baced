package identity

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

// maxBatch is how many requests one batch may hold, as at Graph.
const maxBatch = 20

var sendBatch = arm.NewAction("microsoft.directory/batches/send", "send several requests at once; each is asked about by itself")

// batchPart is one request of a batch.
type batchPart struct {
	ID      string            `json:"id"`
	Method  string            `json:"method"`
	URL     string            `json:"url"` // below /v1.0
	Headers map[string]string `json:"headers"`
	Body    any               `json:"body"`
	After   []string          `json:"dependsOn"`
}

// partHeaders are those that a request of a batch may bring. Who calls, and
// from where, is said by the batch's own request.
var partHeaders = []string{"Content-Type", "ConsistencyLevel", "If-Match", "Prefer", "Client-Request-Id"}

// partMethods are those that Graph has.
var partMethods = []string{http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodPut, http.MethodDelete}

// batchDoor takes several requests in one (Graph's JSON batching). Each goes
// through the gate as a call of its own, with an entry of its own in the audit log.
func (s *Service) batchDoor(p *gate.Plane) gate.Route {
	return s.door(sendBatch, "POST $batch", func(v *visit) (answer, error) {
		var b struct {
			Requests []batchPart `json:"requests"`
		}
		if err := v.body(&b); err != nil {
			return answer{}, err
		}
		order, err := inOrder(b.Requests)
		if err != nil {
			return answer{}, err
		}
		failed := map[string]bool{}
		responses := []any{}
		for _, part := range order {
			to := &partAnswer{header: http.Header{}}
			if slices.ContainsFunc(part.After, func(id string) bool { return failed[id] }) {
				to.status = http.StatusFailedDependency
				to.body.WriteString(`{"error":{"code":"FailedDependency","message":"A request that this one depends on failed."}}`)
			} else if err := v.send(p, part, to); err != nil {
				return answer{}, err
			}
			failed[part.ID] = to.status >= 400
			responses = append(responses, to.show(part.ID))
		}
		return answer{http.StatusOK, map[string]any{"responses": responses}}, nil
	})
}

// inOrder puts the requests behind those that they depend on. What is wrong with
// any of them is found before the first is sent.
func inOrder(list []batchPart) (out []batchPart, err error) {
	if len(list) == 0 || len(list) > maxBatch {
		return nil, arm.Errorf(arm.BadRequest, "A batch has 1 to %d requests; this one has %d.", maxBatch, len(list))
	}
	known, sent := map[string]bool{}, map[string]bool{}
	for _, p := range list {
		u, err := url.ParseRequestURI(p.path())
		switch {
		case p.ID == "" || known[p.ID]:
			return nil, arm.Errorf(arm.BadRequest, "Each request of a batch needs an id of its own.")
		case !slices.Contains(partMethods, strings.ToUpper(p.Method)):
			return nil, arm.Errorf(arm.BadRequest, "The method of request %s is %s; it must be one of %s.", printable(p.ID), printable(p.Method), strings.Join(partMethods, ", "))
		case err != nil || strings.Contains(p.URL, "://") || strings.HasPrefix(p.URL, "//") || u.Fragment != "":
			return nil, arm.Errorf(arm.BadRequest, "The url of request %s must be a path below /v1.0, as /users.", printable(p.ID))
		case strings.HasPrefix(strings.ToLower(u.Path), "/v1.0/$batch"):
			return nil, arm.Errorf(arm.BadRequest, "Request %s is a batch; batches hold none.", printable(p.ID))
		}
		known[p.ID] = true
	}
	for len(out) < len(list) {
		before := len(out)
		for _, p := range list {
			if !sent[p.ID] && !slices.ContainsFunc(p.After, func(id string) bool { return !sent[id] }) {
				out, sent[p.ID] = append(out, p), true
			}
		}
		if len(out) == before {
			return nil, arm.Errorf(arm.BadRequest, "dependsOn names a request that is not in the batch, or requests depend on each other in a circle.")
		}
	}
	return out, nil
}

func (p batchPart) path() string { return "/v1.0/" + strings.TrimPrefix(p.URL, "/") }

// send carries one request through the gate.
func (v *visit) send(p *gate.Plane, part batchPart, to *partAnswer) error {
	r := v.r.Clone(v.r.Context())
	u, err := url.ParseRequestURI(part.path())
	if err != nil {
		return err
	}
	r.Method, r.URL, r.RequestURI, r.Header = strings.ToUpper(part.Method), u, part.path(), http.Header{}
	for k, x := range part.Headers {
		if slices.ContainsFunc(partHeaders, func(h string) bool { return strings.EqualFold(h, k) }) {
			r.Header.Set(k, x)
		}
	}
	r.Header["Authorization"] = v.r.Header["Authorization"]
	body := []byte{}
	if part.Body != nil {
		if body, err = json.Marshal(part.Body); err != nil {
			return err
		}
	}
	r.Body, r.ContentLength = http.NoBody, int64(len(body))
	if len(body) > 0 {
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	rt, vars, _, err := p.Find(r)
	if err == nil && rt.Method == "" {
		err = arm.Errorf(arm.NotFound, "Resource not found for the segment '%s'.", printable(part.URL))
	}
	if err != nil {
		p.Refuse(to, r, err)
		return nil
	}
	v.s.Gate.Serve(p, rt, vars, to, r)
	return nil
}

// partAnswer keeps the answer to one request of a batch.
type partAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *partAnswer) Header() http.Header { return a.header }

func (a *partAnswer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *partAnswer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(b)
}

func (a *partAnswer) show(id string) map[string]any {
	a.WriteHeader(http.StatusOK)
	headers := map[string]string{}
	for k := range a.header {
		headers[k] = a.header.Get(k)
	}
	out := map[string]any{"id": id, "status": a.status, "headers": headers}
	switch b := a.body.Bytes(); {
	case len(b) == 0:
	case json.Valid(b) && a.header.Get("Content-Type") != "text/plain":
		headers["Content-Type"], out["body"] = "application/json", json.RawMessage(b)
	default:
		out["body"] = string(b)
	}
	return out
}
