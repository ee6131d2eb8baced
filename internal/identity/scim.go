package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/scim"
	"castellan/internal/store"
)

// readSCIM is to see what can be provisioned, not whom.
var readSCIM = arm.NewAction("microsoft.directory/provisioning/standard/read", "see how people and groups are provisioned by SCIM")

// scimActions are all that a SCIM token allows, in the directory of its tenant.
var scimActions = []arm.Action{
	readSCIM, readUsers, createUser, updateUser, enableUser, disableUser, renameUser, deleteUser,
	readGroups, createGroup, updateGroup, deleteGroup, readMembers, changeMembers,
}

const scimPage = 200 // rows of a list, at most

// SCIM is the plane by which an outside system provisions people and groups
// (RFC 7644), for one tenant each, on the shared host.
func (s *Service) SCIM() *gate.Plane {
	return &gate.Plane{
		Name: "scim", Refuse: refuseSCIM, Who: s.scimCaller,
		Host: func(h string) bool { return h == s.Site.Host() },
		Routes: slices.Concat(s.scimUserDoors(), s.scimGroupDoors(), []gate.Route{
			s.scimDoor(readSCIM, "GET ServiceProviderConfig", (*visit).scimConfig),
			s.scimDoor(readSCIM, "GET ResourceTypes", (*visit).scimTypes),
			s.scimDoor(readSCIM, "GET ResourceTypes/{id}", (*visit).scimTypes),
			s.scimDoor(readSCIM, "GET Schemas", (*visit).scimSchemas),
			s.scimDoor(readSCIM, "GET Schemas/{id}", (*visit).scimSchemas),
		}, s.scimElsewhere()),
	}
}

// scimElsewhere are the paths at which there is nothing.
func (s *Service) scimElsewhere() (out []gate.Route) {
	for _, m := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
		out = append(out, s.scimDoor(readSCIM, m+" {any...}", func(v *visit) (answer, error) {
			if slices.Contains([]string{"Users", "Groups", "ServiceProviderConfig", "ResourceTypes", "Schemas"}, v.seg(0)) && len(v.path) < 3 && v.r.Method != http.MethodGet {
				return answer{}, arm.Errorf(arm.MethodNotAllowed, "%s can't be done to %s.", v.r.Method, printable(strings.Join(v.path, "/")))
			}
			return answer{}, arm.Errorf(arm.NotFound, "There is nothing at %s %s; there are Users, Groups, ServiceProviderConfig, ResourceTypes and Schemas. Bulk, Me and .search are not supported.", v.r.Method, printable(strings.Join(v.path, "/")))
		}))
	}
	return out
}

// scimDoor is a route of the plane, below /TENANT/scim/v2.
func (s *Service) scimDoor(a arm.Action, pattern string, do func(*visit) (answer, error)) gate.Route {
	method, path, _ := strings.Cut(pattern, " ")
	return gate.On(a, method+" /{tenant}/scim/v2/"+path, s.locateSCIM, func(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
		id, err := g.On(a)
		if err != nil {
			return err
		}
		tenant, _, _ := scopeOf(id)
		out, err := do(&visit{s: s, r: r, w: w, g: g, about: id, tenant: tenant, path: strings.Split(g.Item(), "/")})
		if err != nil {
			return err
		}
		writeSCIM(w, out.status, out.body)
		return nil
	})
}

// locateSCIM finds the directory of the tenant in the path, and in it the person
// or group. A tenant that isn't there is no token's.
func (s *Service) locateSCIM(r *http.Request, v gate.Vars) (gate.Target, error) {
	path, err := url.PathUnescape(r.URL.EscapedPath())
	if err != nil {
		return gate.Target{}, arm.Errorf(arm.BadRequest, "the path is malformed")
	}
	_, item, _ := strings.Cut(path, "/scim/v2/")
	t := s.index.tenantOf(v["tenant"])
	if t == nil {
		return gate.Target{ID: tenantID(""), Item: item}, nil
	}
	set, id, _ := strings.Cut(item, "/")
	var e entry
	switch set {
	case "Users":
		e = orNil(s.index.user(id))
	case "Groups":
		e = orNil(s.index.group(id))
	}
	if e != nil {
		if tenant, _, _ := e.place(); tenant == t.ID {
			return gate.Target{ID: objectID(t.ID, strings.ToLower(set), id), Item: item}, nil
		}
	}
	return gate.Target{ID: tenantID(t.ID), Item: item}, nil
}

func writeSCIM(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/scim+json; charset=utf-8")
	if m, ok := body.(map[string]any); ok {
		if meta, ok := m["meta"].(map[string]any); ok {
			for head, key := range map[string]string{"ETag": "version", "Location": "location"} {
				if x, ok := meta[key].(string); ok {
					w.Header().Set(head, x)
				}
			}
		}
	}
	b, err := json.Marshal(body)
	if err != nil { // only for values that the program itself made wrong
		status, b = http.StatusInternalServerError, nil
	}
	if body == nil {
		b = nil
	}
	w.WriteHeader(status)
	_, _ = w.Write(b) // the client may have gone
}

// scimWords are the codes of all planes that SCIM has a word for.
var scimWords = map[arm.Code]arm.Code{arm.Conflict: scim.Uniqueness, arm.BadRequest: scim.InvalidValue, arm.InvalidRequest: scim.InvalidSyntax, arm.TooLarge: ""}

// refuseSCIM writes err as RFC 7644 says (3.12).
func refuseSCIM(w http.ResponseWriter, _ *http.Request, err error) {
	status := gate.Status(err)
	code, message := gate.PublicError(err)
	m := map[string]any{"schemas": []string{scim.ErrorURN}, "status": strconv.Itoa(status), "detail": message}
	if word, ok := scimWords[code]; ok {
		code = word
	}
	if status == http.StatusBadRequest || status == http.StatusConflict && code == scim.Uniqueness {
		m["scimType"] = code
	}
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="scim"`)
	}
	writeSCIM(w, status, m)
}

// scimBase is the URL of the plane for a tenant.
func (s *Service) scimBase(tenant string) string { return s.Site.Base() + "/" + tenant + "/scim/v2" }

func (v *visit) scimBody() (any, error) {
	b, err := io.ReadAll(http.MaxBytesReader(v.w, v.r.Body, maxGraphBody))
	var big *http.MaxBytesError
	if errors.As(err, &big) {
		return nil, arm.Errorf(arm.TooLarge, "The body has more than %d bytes.", maxGraphBody)
	}
	if err != nil {
		return nil, &arm.Error{Code: arm.InvalidRequest, Message: "The request body could not be read.", Err: err}
	}
	return arm.ParseJSON(b)
}

func (v *visit) scimConfig() (answer, error) {
	no := map[string]any{"supported": false}
	return answer{http.StatusOK, map[string]any{
		"schemas": []string{"urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"}, "patch": map[string]any{"supported": true},
		"bulk":   map[string]any{"supported": false, "maxOperations": 0, "maxPayloadSize": 0},
		"filter": map[string]any{"supported": true, "maxResults": scimPage}, "changePassword": no, "sort": no, "etag": map[string]any{"supported": true},
		"authenticationSchemes": []any{map[string]any{"type": "oauthbearertoken", "name": "SCIM token", "description": "a token that an administrator of the tenant made for this", "primary": true}},
		"meta":                  map[string]any{"resourceType": "ServiceProviderConfig", "location": v.s.scimBase(v.tenant) + "/ServiceProviderConfig"},
	}}, nil
}

func (v *visit) scimTypes() (answer, error) {
	var all []map[string]any
	for _, t := range scim.Types {
		all = append(all, t.Show(v.s.scimBase(v.tenant)))
	}
	return v.scimDescribed(all)
}

func (v *visit) scimSchemas() (answer, error) {
	var all []map[string]any
	for _, t := range scim.Types {
		for _, x := range append([]*scim.Schema{t.Core}, t.Extensions...) {
			all = append(all, x.Show(v.s.scimBase(v.tenant)))
		}
	}
	return v.scimDescribed(all)
}

// scimDescribed is one description by its id, or all. They can't be filtered (RFC 7644, 4).
func (v *visit) scimDescribed(all []map[string]any) (answer, error) {
	if v.r.URL.Query().Has("filter") {
		return answer{}, arm.Errorf(arm.Forbidden, "%s can't be filtered.", v.seg(0))
	}
	if v.seg(1) == "" {
		return scimRows(all, len(all), 1), nil
	}
	for _, m := range all {
		if m["id"] == v.seg(1) {
			return answer{http.StatusOK, m}, nil
		}
	}
	return answer{}, scimMissing(v.seg(0), v.seg(1))
}

func scimMissing(what, id string) error {
	return arm.Errorf(arm.NotFound, "There is nothing with the id %s among the %s that were provisioned here.", printable(id), what)
}

func scimRows(rows []map[string]any, total, start int) answer {
	if rows == nil {
		rows = []map[string]any{}
	}
	return answer{http.StatusOK, map[string]any{"schemas": []string{scim.ListURN}, "totalResults": total, "startIndex": start, "itemsPerPage": len(rows), "Resources": rows}}
}

// scimList answers with those of all resources that the query means.
func (v *visit) scimList(t *scim.Type, all []map[string]any) (answer, error) {
	q := v.r.URL.Query()
	if q.Has("sortBy") || q.Has("sortOrder") {
		return answer{}, arm.Errorf(scim.InvalidValue, "sortBy is not supported: lists are in the order of ids.")
	}
	start, err := countOf(q, "startIndex", 1)
	if err != nil {
		return answer{}, err
	}
	count, err := countOf(q, "count", scimPage)
	if err != nil {
		return answer{}, err
	}
	start, count = max(start, 1), min(max(count, 0), scimPage)
	match, err := t.Filter(q.Get("filter"))
	if err != nil {
		return answer{}, err
	}
	all = slices.DeleteFunc(all, func(m map[string]any) bool { return !match(m) })
	slices.SortFunc(all, func(a, b map[string]any) int { return strings.Compare(a["id"].(string), b["id"].(string)) })
	from := min(start-1, len(all))
	var rows []map[string]any
	for _, m := range all[from:min(from+count, len(all))] {
		m, err := t.Select(m, q.Get("attributes"), q.Get("excludedAttributes"))
		if err != nil {
			return answer{}, err
		}
		rows = append(rows, m)
	}
	return scimRows(rows, len(all), start), nil
}

func countOf(q url.Values, name string, otherwise int) (int, error) {
	if !q.Has(name) {
		return otherwise, nil
	}
	n, err := strconv.Atoi(q.Get(name))
	if err != nil {
		return 0, arm.Errorf(scim.InvalidValue, "%s is %q; it must be a number.", name, printable(q.Get(name)))
	}
	return n, nil
}

// scimOne answers with one resource, as much of it as is wanted.
func (v *visit) scimOne(status int, t *scim.Type, m map[string]any) (answer, error) {
	q := v.r.URL.Query()
	out, err := t.Select(m, q.Get("attributes"), q.Get("excludedAttributes"))
	if err != nil {
		return answer{}, err
	}
	meta := m["meta"].(map[string]any)
	v.w.Header().Set("ETag", meta["version"].(string))
	if status == http.StatusOK && v.r.Method == http.MethodGet && etagIn(v.r.Header.Get("If-None-Match"), meta["version"].(string)) {
		return answer{status: http.StatusNotModified}, nil
	}
	return answer{status, out}, nil
}

// etagIn reports whether a header of ETags has this one. All of ours are weak.
func etagIn(header, etag string) bool {
	for _, x := range strings.Split(header, ",") {
		if x = strings.TrimSpace(x); x == "*" || x != "" && strings.TrimPrefix(x, "W/") == strings.TrimPrefix(etag, "W/") {
			return true
		}
	}
	return false
}

// versionOf is the ETag of what a resource is shown as.
func versionOf(m map[string]any) string {
	b, _ := json.Marshal(m) // of what was JSON
	sum := sha256.Sum256(b)
	return `W/"` + hex.EncodeToString(sum[:12]) + `"`
}

// checkMatch holds a client's If-Match against what the transaction sees, which
// must also be what the change was worked out from.
func (v *visit) checkMatch(was, now map[string]any) error {
	version := now["meta"].(map[string]any)["version"].(string)
	if want := v.r.Header.Get("If-Match"); want != "" && !etagIn(want, version) {
		return arm.Errorf(arm.PreconditionFailed, "The resource is now %s, and not as If-Match says.", version)
	}
	if was["meta"].(map[string]any)["version"] != version {
		return &arm.Error{Code: "Conflict", Status: http.StatusConflict, Message: "The resource was changed by somebody else at the same moment. Try again."}
	}
	return nil
}

// aside are the attributes that SCIM said and the directory has no place for.
func aside(m map[string]any, not ...string) (string, error) {
	out := map[string]any{}
	for k, v := range m {
		if !slices.Contains(not, k) {
			out[k] = v
		}
	}
	b, err := json.Marshal(out)
	return string(b), err
}

// recall is what aside kept.
func recall(text string) (map[string]any, error) {
	if text == "" {
		return map[string]any{}, nil
	}
	v, err := arm.ParseJSON([]byte(text))
	m, _ := v.(map[string]any)
	if m == nil {
		m = map[string]any{}
	}
	return m, err
}

// errProtected refuses to touch administrators and what makes them.
var errProtected = arm.Errorf(arm.Forbidden, "This person has a directory role, is in a group that gives one, or is an account for emergencies: only an administrator of the directory changes them.")

// untouchable reports whether SCIM leaves somebody alone whom it made.
func (s *Service) untouchable(class, id string) bool {
	return s.protected(class, id) || len(s.directoryRoles(id)) > 0
}

// provisioned is an object that SCIM made in the tenant, as tx sees it.
func provisioned(tx *store.Tx, tenant, id string) (kind string, ok bool, err error) {
	u, ok, err := fetch[*User](tx, tenant, "user", id)
	if err != nil || ok {
		return "User", ok && u.Origin == scimOrigin, err
	}
	g, ok, err := fetch[*Group](tx, tenant, "group", id)
	return "Group", ok && g.Origin == scimOrigin && !g.Assignable, err
}
