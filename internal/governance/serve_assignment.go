package governance

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/condition"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// page is how many assignments one answer of a list has at most.
const page = 500

// maxText is the longest description, in bytes.
const maxText = 1024

// assignmentBody is what a client may send of an assignment.
type assignmentBody struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Type       string `json:"type"`
	Properties struct {
		Role        string   `json:"roleDefinitionId"`
		Principal   string   `json:"principalId"`
		Kind        arm.Kind `json:"principalType"`
		Description string   `json:"description"`
		Scope       string   `json:"scope"`

		Condition  string `json:"condition"`
		Version    string `json:"conditionVersion"`
		Delegate   bool   `json:"canDelegate" arm:"only=false"`
		DelegateTo string `json:"delegatedManagedIdentityResourceId"`

		CreatedOn any `json:"createdOn" arm:"readonly"`
		CreatedBy any `json:"createdBy" arm:"readonly"`
		UpdatedOn any `json:"updatedOn" arm:"readonly"`
		UpdatedBy any `json:"updatedBy" arm:"readonly"`
	} `json:"properties"`
}

// read holds the body against itself and the path, and makes an assignment of
// it that check has not seen yet.
func (b *assignmentBody) read(id arm.ID) (*assignment, error) {
	p := &b.Properties
	role, err := roleOf(p.Role)
	switch {
	case !guidForm.MatchString(id.Name()):
		return nil, arm.Errorf("InvalidRoleAssignmentId", "The role assignment ID '%s' is not valid. The role assignment ID must be a GUID.", id.Name())
	case err != nil:
		return nil, err
	case !guidForm.MatchString(p.Principal):
		return nil, arm.Errorf("InvalidPrincipalId", "The Principal ID '%s' is not valid. Principal ID must be a GUID.", p.Principal)
	case p.Kind != "" && p.Kind != arm.User && p.Kind != arm.Group && p.Kind != arm.ServicePrincipal:
		return nil, arm.Errorf(arm.InvalidRequest, "properties.principalType is %q; it must be User, Group or ServicePrincipal", p.Kind)
	case p.DelegateTo != "":
		return nil, arm.Errorf(arm.Unsupported, "properties.delegatedManagedIdentityResourceId is not supported: there is one tenant")
	case len(p.Description) > maxText:
		return nil, arm.Errorf(arm.InvalidRequest, "properties.description is %d bytes long; at most %d are allowed", len(p.Description), maxText)
	case p.Scope != "" && !strings.EqualFold(strings.TrimSuffix(p.Scope, "/"), strings.TrimSuffix(id.Parent().String(), "/")):
		return nil, arm.Errorf(arm.InvalidRequest, "properties.scope is %q; the request's scope is %q", p.Scope, id.Parent())
	}
	if err := agrees(b.ID, b.Name, b.Type, id, assignmentType); err != nil {
		return nil, err
	}
	if p.Condition != "" || p.Version != "" {
		if _, err := condition.Parse(p.Condition, p.Version); err != nil {
			return nil, err
		}
	}
	return &assignment{Role: role, Principal: key(p.Principal), Kind: p.Kind, Description: p.Description, Condition: p.Condition, Version: p.Version}, nil
}

// agrees holds what a body says of itself against the path.
func agrees(id, name, typ string, path arm.ID, want string) error {
	switch {
	case id != "" && key(id[strings.LastIndexByte(id, '/')+1:]) != key(path.Name()):
		return arm.Errorf(arm.InvalidRequest, "the body's id is %q; the request's is %q", id, path)
	case name != "" && !strings.EqualFold(name, path.Name()):
		return arm.Errorf(arm.InvalidRequest, "the body's name is %q; the request's is %q", name, path.Name())
	case typ != "" && !strings.EqualFold(typ, want):
		return arm.Errorf(arm.InvalidRequest, "the body's type is %q; it must be %s", typ, want)
	}
	return nil
}

// roleOf is the GUID of the role that a resource id names.
func roleOf(text string) (string, error) {
	id, err := arm.ParseID(text)
	if err != nil || !strings.EqualFold(id.Type(), definitionType) || !guidForm.MatchString(id.Name()) {
		return "", arm.Errorf("InvalidRoleDefinitionId", "The role definition ID '%s' is not valid. It must be .../providers/Microsoft.Authorization/roleDefinitions/GUID.", text)
	}
	return key(id.Name()), nil
}

func (s *Service) putAssignment(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(WriteAssignment)
	if err != nil {
		return err
	}
	data, err := resource.ReadBody(w, r)
	if err != nil {
		return err
	}
	var b assignmentBody
	if err := arm.Decode(data, &b); err != nil {
		return err
	}
	a, err := b.read(id)
	if err != nil {
		return err
	}
	status := http.StatusCreated
	err = g.Change(r.Context(), s.DB, func(tx *store.Tx) error {
		if a.Scope, err = s.scope(tx, id.Parent()); err != nil {
			return err
		}
		a.ID, a.Tenant = assignmentID(a.Scope, id.Name()), s.tenantOf(a.Scope, g.Caller())
		if err := s.check(tx, a); err != nil {
			return err
		}
		fresh, err := s.settle(tx, a, r.URL.Query().Get("api-version"))
		if err != nil {
			return err
		}
		if !fresh {
			status = http.StatusOK
		}
		s.stamp(a, g.Caller())
		if err := s.judge(tx, a, g.Caller()); err != nil {
			return err
		}
		return s.keep(tx, a)
	})
	if err != nil {
		return err
	}
	gate.WriteJSON(w, status, a.show())
	return nil
}

// judge asks policies whether an assignment may be so.
func (s *Service) judge(tx *store.Tx, a *assignment, by arm.Caller) error {
	if s.Judge == nil {
		return nil
	}
	props, err := json.Marshal(a.show()["properties"])
	if err != nil {
		return err
	}
	return s.Judge(tx, &resource.Doc{ID: a.ID, Name: a.ID.Name(), Type: assignmentType, Properties: props}, by)
}

// settle holds a against what has its name or gives the same. Of an assignment
// that is there only the description and the condition can change, by who asks
// with a version that has them.
func (s *Service) settle(tx *store.Tx, a *assignment, version string) (fresh bool, err error) {
	old, err := indexed(tx, "name|"+a.name())
	if err != nil {
		return false, err
	}
	if old != nil && s.owner(old) != s.owner(a) {
		return false, s.taken(old, a)
	}
	if old != nil && (old.held() != a.held() || old.ID.Key() != a.ID.Key()) {
		return false, arm.Errorf("RoleAssignmentUpdateNotPermitted", "Tenant ID, application ID, principal ID, role and scope are not allowed to be updated: the name %s belongs to an assignment that gives something else.", a.ID.Name())
	}
	twin, err := indexed(tx, a.held())
	if err != nil {
		return false, err
	}
	if twin != nil && twin.window().over(s.Now()) {
		if err := s.forget(tx, twin); err != nil {
			return false, err
		}
		if twin = nil; old != nil && old.window().over(s.Now()) {
			old = nil
		}
	}
	if twin != nil && twin.name() != a.name() {
		return false, exists(twin)
	}
	if old == nil {
		return true, nil
	}
	if !resource.Shapes()[strings.ToLower(assignmentType)].Has(version, "properties.condition") {
		a.Description, a.Condition, a.Version = old.Description, old.Condition, old.Version
	}
	*a = assignment{ID: old.ID, Scope: old.Scope, Role: old.Role, Principal: old.Principal, Kind: old.Kind, Description: a.Description, Condition: a.Condition, Version: a.Version, CreatedOn: old.CreatedOn, CreatedBy: old.CreatedBy,
		Tenant: old.Tenant, NotBefore: old.NotBefore, NotAfter: old.NotAfter, Eligible: old.Eligible, Via: old.Via, Request: old.Request}
	return false, nil
}

func (s *Service) getAssignment(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(ReadAssignment)
	if err != nil {
		return err
	}
	return s.DB.View(r.Context(), func(tx *store.Tx) error {
		a, err := load(tx, id.Key())
		if err != nil {
			return err
		}
		if a == nil || s.owner(a) != g.Caller().Tenant || !s.holds(a) {
			return &arm.Error{Code: "RoleAssignmentNotFound", Status: http.StatusNotFound, Message: "The role assignment '" + id.Name() + "' is not found."}
		}
		gate.WriteJSON(w, http.StatusOK, a.show())
		return nil
	})
}

func (s *Service) deleteAssignment(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(DeleteAssignment)
	if err != nil {
		return err
	}
	var a *assignment
	err = g.Change(r.Context(), s.DB, func(tx *store.Tx) error {
		if a, err = load(tx, id.Key()); err != nil || a == nil {
			return err
		}
		if s.owner(a) != g.Caller().Tenant {
			a = nil
			return nil
		}
		return s.release(tx, a)
	})
	if err != nil {
		return err
	}
	if a == nil {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	gate.WriteJSON(w, http.StatusOK, a.show())
	return nil
}

// show is a as answers have it. The role's id lies in the subscription of the
// scope, as in the list of roles there.
func (a *assignment) show() map[string]any {
	return map[string]any{
		"id": a.ID, "name": a.ID.Name(), "type": assignmentType,
		"properties": map[string]any{
			"roleDefinitionId": definitionID(a.Scope, a.Role), "principalId": a.Principal, "principalType": a.Kind, "scope": a.Scope,
			"description": nullable(a.Description), "condition": nullable(a.Condition), "conditionVersion": nullable(a.Version), "delegatedManagedIdentityResourceId": nil,
			"createdOn": a.CreatedOn, "createdBy": a.CreatedBy, "updatedOn": a.UpdatedOn, "updatedBy": a.UpdatedBy,
		},
	}
}

// nullable is s, or null for nothing.
func nullable(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func (s *Service) listAssignments(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	scope, err := g.On(ReadAssignment)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	clauses, err := parseFilter(q.Get("$filter"), "atScope()", "principalId eq", "assignedTo(id)", "roleDefinitionId eq")
	if err != nil {
		return err
	}
	after, err := cursor(q)
	if err != nil {
		return err
	}
	var found []*assignment
	err = s.DB.View(r.Context(), func(tx *store.Tx) error {
		if _, err := s.scope(tx, scope); err != nil {
			return err
		}
		found, err = s.find(tx, scope, g.Caller().Tenant, clauses)
		return err
	})
	if err != nil {
		return err
	}
	found = slices.DeleteFunc(found, func(a *assignment) bool { return a.ID.Key() <= after })
	out := map[string]any{}
	if len(found) > page {
		found = found[:page]
		out["nextLink"] = s.next(r, q, found[page-1].ID.Key())
	}
	list := make([]any, len(found))
	for i, a := range found {
		list[i] = a.show()
	}
	out["value"] = list
	gate.WriteJSON(w, http.StatusOK, out)
	return nil
}

// cursor is where the page before ended, "" for the first.
func cursor(q url.Values) (string, error) {
	after, err := base64.RawURLEncoding.DecodeString(q.Get("$skiptoken") + q.Get("$skipToken"))
	if err != nil {
		return "", arm.Errorf(arm.BadRequest, "the $skipToken is not one that a nextLink gave")
	}
	return string(after), nil
}

// next is the link to the page that begins after the cursor.
func (s *Service) next(r *http.Request, q url.Values, after string) string {
	q.Del("$skiptoken")
	q.Set("$skipToken", base64.RawURLEncoding.EncodeToString([]byte(after)))
	return s.Site.Base() + r.URL.EscapedPath() + "?" + q.Encode()
}

// find is, by id, what of the tenant reaches the scope and, without atScope(),
// what begins inside it, as far as all clauses hold.
func (s *Service) find(tx *store.Tx, scope arm.ID, tenant string, clauses []clause) ([]*assignment, error) {
	found, err := s.around(tx, scope, clauses)
	if err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(a *assignment) bool { return s.owner(a) != tenant })
	for _, c := range clauses {
		keep, err := s.keeps(tx, scope, tenant, c)
		if err != nil {
			return nil, err
		}
		found = slices.DeleteFunc(found, func(a *assignment) bool { return !keep(a) })
	}
	found = slices.DeleteFunc(found, func(a *assignment) bool { return !s.holds(a) })
	slices.SortFunc(found, func(a, b *assignment) int { return strings.Compare(a.ID.Key(), b.ID.Key()) })
	return found, nil
}

// around is everything at, above or below the scope; of one principal only, if
// a clause asks for one, since that is quickly found.
func (s *Service) around(tx *store.Tx, scope arm.ID, clauses []clause) ([]*assignment, error) {
	for _, c := range clauses {
		if key(c.name) != "principalid eq" {
			continue
		}
		found, err := held(tx, c.value)
		return slices.DeleteFunc(found, func(a *assignment) bool { return !s.within(scope, a.Scope) && !s.within(a.Scope, scope) }), err
	}
	found, err := below(tx, scope)
	if err != nil {
		return nil, err
	}
	if isGroup(scope) {
		for _, at := range []string{"/subscriptions/", groupsKey} {
			more, err := scan(tx, at)
			if err != nil {
				return nil, err
			}
			found = append(found, slices.DeleteFunc(more, func(a *assignment) bool { return a.Scope.Within(scope) || !s.within(a.Scope, scope) })...)
		}
	}
	for _, k := range s.above(scope) {
		more, err := exactly(tx, k)
		if err != nil {
			return nil, err
		}
		found = append(found, more...)
	}
	return found, nil
}

// keeps is the test that a clause stands for.
func (s *Service) keeps(tx *store.Tx, scope arm.ID, tenant string, c clause) (func(*assignment) bool, error) {
	switch key(c.name) {
	case "atscope()":
		return func(a *assignment) bool { return s.within(scope, a.Scope) }, nil
	case "principalid eq":
		return func(a *assignment) bool { return a.Principal == key(c.value) }, nil
	case "roledefinitionid eq":
		return func(a *assignment) bool { return a.Role == roleGUID(c.value) }, nil
	}
	groups, err := s.Directory.Groups(tx, tenant, key(c.value))
	if err != nil {
		return nil, err
	}
	who := map[string]bool{key(c.value): true}
	for _, id := range groups {
		who[key(id)] = true
	}
	return func(a *assignment) bool { return who[a.Principal] }, nil
}
