package identity

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

const (
	maxGraphBody = 1 << 20 // bytes
	graphPage    = 100     // rows of a list, unless $top says otherwise
	maxGraphPage = 999
)

// visit is one request to the directory, behind the gate.
type visit struct {
	s        *Service
	r        *http.Request
	w        http.ResponseWriter
	g        gate.Grant
	about    arm.ID // what the Grant is for: an object of the directory, or the directory
	tenant   string
	path     []string // segments behind /v1.0, from the Grant's item
	q        query    // of a GET
	cast     string   // the @odata.type that a list is narrowed to
	counting bool     // only the number of rows is asked for
}

// answer is what a request to the directory is answered with.
type answer struct {
	status int
	body   any // a string is plain text
}

var done = answer{status: http.StatusNoContent}

// Graph is the directory's plane, Microsoft Graph's, on its own host and below
// /v1.0 on the shared one. The tenant is always the token's.
func (s *Service) Graph() *gate.Plane {
	p := &gate.Plane{
		Name: "graph", Fold: true, Refuse: s.refuseGraph,
		Host: func(h string) bool { return h == s.Site.GraphHost() || h == s.Site.Host() },
		Who:  s.Bearer(s.Site.GraphAudiences()...),
	}
	for _, more := range [][]gate.Route{
		s.selfDoors(),
		s.userDoors(), s.methodDoors(),
		s.groupDoors(),
		s.appDoors(),
		s.federatedDoors(), s.permissionDoors(), s.policyDoors(),
		s.principalDoors(),
		s.objectDoors(), s.memberDoors(),
		s.roleDoors(),
		s.keyDoors(),
		s.tenantDoors(),
		s.providerDoors(),
		s.ldapDoors(),
		s.scimTokenDoors(),
		s.linkDoors(),
		s.accessDoors(),
		s.contextDoors(),
		s.signInDoors(),
		{s.batchDoor(p)},
	} {
		p.Routes = append(p.Routes, more...)
	}
	return p
}

// door is a route of the directory.
func (s *Service) door(a arm.Action, pattern string, do func(*visit) (answer, error)) gate.Route {
	method, path, _ := strings.Cut(pattern, " ")
	return gate.On(a, method+" /v1.0/"+path, s.locateGraph, func(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
		id, err := g.On(a)
		if err != nil {
			return err
		}
		tenant, _, _ := scopeOf(id)
		v := &visit{s: s, r: r, w: w, g: g, about: id, tenant: tenant, path: strings.Split(g.Item(), "/")}
		if r.Method == http.MethodGet {
			if v.q, err = parseQuery(r); err != nil {
				return err
			}
		}
		out, err := do(v)
		if err != nil {
			return err
		}
		if out.body == nil {
			w.WriteHeader(out.status)
			return nil
		}
		if text, ok := out.body.(string); ok {
			w.Header().Set("Content-Type", "text/plain")
			_, err := io.WriteString(w, text)
			return err
		}
		gate.WriteJSON(w, out.status, out.body)
		return nil
	})
}

// locateGraph finds the caller's own directory, and in it the object that the
// path is about.
func (s *Service) locateGraph(r *http.Request, _ gate.Vars) (gate.Target, error) {
	c, err := s.Bearer(s.Site.GraphAudiences()...)(r)
	if err != nil {
		return gate.Target{}, err
	}
	path, err := url.PathUnescape(r.URL.EscapedPath())
	if err != nil {
		return gate.Target{}, arm.Errorf(arm.BadRequest, "the path is malformed")
	}
	_, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return gate.Target{ID: s.about(c, strings.Split(rest, "/")), Item: rest}, nil
}

// about is the scope of the object that a path names with its first segments,
// or of the directory as a whole.
func (s *Service) about(c arm.Caller, path []string) arm.ID {
	name := ""
	if len(path) > 1 {
		name = path[1]
	}
	class := strings.ToLower(path[0])
	if set, key, ok := entityKey(path[0]); ok {
		class, name = strings.ToLower(set), key
		if a := s.index.client(key); a != nil && class == "applications" {
			name = a.ID
		}
		if p := s.index.spOf(c.Tenant, key); p != nil && class == "serviceprincipals" {
			name = p.ID
		}
	}
	var e entry
	switch class {
	case "me":
		e = orNil(s.index.user(c.Object))
	case "users":
		e = orNil(s.index.userNamed(name))
	case "groups":
		e = orNil(s.index.group(fold(name)))
	case "applications":
		e = orNil(s.index.app(fold(name)))
	case "serviceprincipals":
		e = orNil(s.index.sp(fold(name)))
	}
	if e == nil {
		return tenantID(c.Tenant)
	}
	tenant, _, id := e.place()
	if tenant != c.Tenant {
		return tenantID(c.Tenant)
	}
	return objectID(tenant, sets[class], id)
}

// sets are the names of the sets of objects that can be owned or administer.
var sets = map[string]string{"me": "users", "users": "users", "groups": "groups", "applications": "applications", "serviceprincipals": "servicePrincipals"}

func orNil[T any, P interface {
	*T
	entry
}](p P) entry {
	if p == nil {
		return nil
	}
	return p
}

// entityKey reads OData's spelling of an object by another key than its id:
// applications(appId='...').
func entityKey(seg string) (set, key string, ok bool) {
	set, rest, ok := strings.Cut(seg, "(")
	rest, end := strings.CutSuffix(rest, "')")
	name, key, eq := strings.Cut(rest, "='")
	if !ok || !end || !eq || !strings.EqualFold(name, "appId") && !strings.EqualFold(name, "roleTemplateId") {
		return "", "", false
	}
	return set, key, true
}

// also asks the gate for one more action on what the request is about: some
// doors open to several, and what is sent says which.
func (v *visit) also(a arm.Action) error { return v.alsoOn(a, v.about) }

// alsoOn asks the gate for one more action, on something else than the path names.
func (v *visit) alsoOn(a arm.Action, id arm.ID) error {
	ctx := v.r.Context()
	g, err := v.s.Gate.Admit(ctx, v.g.Caller(), a, gate.Target{ID: id, Item: v.g.Item()})
	if err != nil {
		return err
	}
	return g.Close(ctx, nil)
}

// seg is the path's segment i, or "".
func (v *visit) seg(i int) string {
	if i >= len(v.path) {
		return ""
	}
	return v.path[i]
}

// body reads what the client sent, by out's tags; what is not there is refused by name.
func (v *visit) body(out any) error {
	b, err := io.ReadAll(http.MaxBytesReader(v.w, v.r.Body, maxGraphBody))
	if err != nil {
		return &arm.Error{Code: arm.BadRequest, Message: "The request body could not be read.", Err: err}
	}
	return arm.Decode(b, out)
}

// change runs fn in the transaction that also records the change.
func (v *visit) change(fn func(tx *store.Tx) error) error {
	return v.g.Change(v.r.Context(), v.s.DB, fn)
}

func (v *visit) context(what string) string {
	return "https://" + v.s.Site.GraphHost() + "/v1.0/$metadata#" + what
}

// one answers with one object.
func (v *visit) one(status int, class string, m map[string]any) (answer, error) {
	show, err := v.shape(class, v.about)
	if err != nil {
		return answer{}, err
	}
	if m, err = show(m); err != nil {
		return answer{}, err
	}
	m["@odata.context"] = v.context(class + "/$entity")
	return answer{status, m}, nil
}

// errSkipToken is about a $skiptoken that is no list's.
var errSkipToken = arm.Errorf(arm.BadRequest, "The $skiptoken is not one that a nextLink gave.")

func pageOf(top string) (int, error) {
	if top == "" {
		return graphPage, nil
	}
	n, err := strconv.Atoi(top)
	if err != nil || n < 1 || n > maxGraphPage {
		return 0, arm.Errorf(arm.BadRequest, "$top is %q; it must be from 1 to %d.", printable(top), maxGraphPage)
	}
	return n, nil
}

func missing(class, id string) error {
	return arm.Errorf(arm.NotFound, "Resource '%s' of the type %s does not exist or one of its queried reference-property objects are not present.", printable(id), class)
}

// graphCodes are Graph's words for the codes of all planes.
var graphCodes = map[arm.Code]arm.Code{
	arm.NotFound: "Request_ResourceNotFound", arm.Forbidden: "Authorization_RequestDenied", arm.Conflict: "Request_MultipleObjectsWithSameKeyValue",
	arm.BadRequest: "Request_BadRequest", arm.InvalidRequest: "Request_BadRequest", arm.Internal: "InternalServerError",
}

// refuseGraph writes err as Microsoft Graph does.
func (s *Service) refuseGraph(w http.ResponseWriter, r *http.Request, err error) {
	var p *problem
	if errors.As(err, &p) {
		err = &arm.Error{Code: arm.BadRequest, Message: p.text, Err: err}
	}
	status := gate.Status(err)
	code, message := gate.PublicError(err)
	if g, ok := graphCodes[code]; ok {
		code = g
	}
	switch status {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer realm="", authorization_uri="`+s.Site.Base()+`/common/oauth2/authorize", client_id="00000003-0000-0000-c000-000000000000"`+gate.Challenge(err))
	case http.StatusForbidden:
		message = "Insufficient privileges to complete the operation. " + message
	case http.StatusConflict:
		status = http.StatusBadRequest // as Graph answers
	}
	gate.WriteJSON(w, status, map[string]any{"error": map[string]any{"code": code, "message": message, "innerError": map[string]any{
		"date": s.Now().UTC().Format("2006-01-02T15:04:05"), "request-id": arm.NewUUID(), "client-request-id": correlation(r),
	}}})
}
