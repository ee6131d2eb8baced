package compliance

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/odata"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// kind is one kind of policy object: all are kept, listed and shown alike.
type kind struct {
	typ, doc            string
	read, write, remove arm.Action
	// high is set for what lies at management groups and subscriptions only.
	high bool
	// low is set for what speaks of one resource: lists have it from there and
	// from above, and it is not patched.
	low bool
	// props is a pointer to fresh properties with the defaults filled in.
	props func() any
	// check judges o in the transaction that writes it; old is nil if it is new.
	check func(tx *store.Tx, o, old *object) error
	// free says whether o may be deleted.
	free func(tx *store.Tx, o *object) error
	// asks are what else the caller must be allowed to do.
	asks func(tx *store.Tx, o *object) ([]resource.Linked, error)
	// identity is set for what can have a managed identity.
	identity bool
}

func newKind(typ, doc string) *kind {
	return &kind{
		typ: typ, doc: doc,
		read:   arm.NewAction(typ+"/read", "see "+doc),
		write:  arm.NewAction(typ+"/write", "make or change "+doc),
		remove: arm.NewAction(typ+"/delete", "delete "+doc),
	}
}

// object is a policy object as it is kept, under the key of its id in the table
// of its kind.
type object struct {
	ID         arm.ID             `json:"id"`
	Scope      arm.ID             `json:"scope"`
	Tenant     string             `json:"tenant"`
	Location   string             `json:"location,omitempty"`
	Identity   *resource.Identity `json:"identity,omitempty"`
	Properties json.RawMessage    `json:"properties"`
	System     resource.System    `json:"systemData"`
}

// name is the last part of the kind's type.
func (k *kind) name() string { return k.typ[strings.IndexByte(k.typ, '/')+1:] }

func (k *kind) table() string { return strings.ToLower(k.name()) }

// objectBody is what a client may send of an object.
type objectBody struct {
	ID         string             `json:"id"`
	Name       string             `json:"name"`
	Type       string             `json:"type"`
	Location   string             `json:"location"`
	Identity   *resource.Identity `json:"identity"`
	Properties any                `json:"properties"`
	System     any                `json:"systemData" arm:"readonly"`
}

var nameForm = regexp.MustCompile(`^[^<>*%&:\\?.+/#]{0,63}[^<>*%&:\\?.+/# ]$`)

func (s *Service) routes(k *kind) []gate.Route {
	list := "GET /{scope...}/providers/" + k.typ
	item := "/{scope...}/providers/" + k.typ + "/{name}"
	here := func(n int) gate.Locate {
		return func(r *http.Request, _ gate.Vars) (gate.Target, error) { return resource.Locate(r, n) }
	}
	out := []gate.Route{
		gate.On(k.read, list, here(3), s.list(k)),
		gate.On(k.read, "GET "+item, here(0), s.get(k)),
		gate.On(k.write, "PUT "+item, here(0), s.put(k, false)),
		gate.On(k.remove, "DELETE "+item, here(0), s.delete(k)),
	}
	switch {
	case k.high:
		return append(out, s.rootRoutes(k)...)
	case k.low:
		return out
	}
	return append(out, gate.On(k.write, "PATCH "+item, here(0), s.put(k, true)))
}

func load(tx *store.Tx, k *kind, id arm.ID) (*object, error) {
	o, ok, err := store.GetJSON[object](tx, k.table(), id.Key())
	if err != nil || !ok {
		return nil, err
	}
	return &o, nil
}

func all(tx *store.Tx, k *kind) ([]object, error) {
	return store.ScanJSON[object](tx, k.table(), "", "", 0)
}

func (k *kind) missing(id arm.ID) error {
	name := k.name()
	return &arm.Error{Code: arm.Code(strings.ToUpper(name[:1]) + strings.TrimSuffix(name[1:], "s") + "NotFound"), Status: http.StatusNotFound, Message: "The " + k.doc[strings.IndexByte(k.doc, ' ')+1:] + " '" + id.Name() + "' is not found at '" + id.Parent().String() + "'."}
}

func (s *Service) get(k *kind) gate.Verb {
	return func(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
		id, err := g.On(k.read)
		if err != nil {
			return err
		}
		return s.DB.View(r.Context(), func(tx *store.Tx) error {
			o, err := load(tx, k, id)
			if err != nil {
				return err
			}
			if o == nil {
				return k.missing(id)
			}
			gate.WriteJSON(w, http.StatusOK, k.show(o))
			return nil
		})
	}
}

// page is how many objects one answer of a list has at most.
const page = 500

// list is what reaches the scope: what lies there and above. With the filter
// atExactScope() it is what lies there alone.
func (s *Service) list(k *kind) gate.Verb {
	return func(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
		scope, err := g.On(k.read)
		if err != nil {
			return err
		}
		q := r.URL.Query()
		f, err := k.listFilter(q.Get("$filter"), s.Now())
		if err != nil {
			return err
		}
		after, err := base64.RawURLEncoding.DecodeString(q.Get("$skiptoken"))
		if err != nil {
			return arm.Errorf(arm.BadRequest, "the $skiptoken is not one that a nextLink gave")
		}
		var found []object
		err = s.DB.View(r.Context(), func(tx *store.Tx) error {
			if _, err := s.Scope(tx, scope); err != nil {
				return err
			}
			found, err = all(tx, k)
			return err
		})
		if err != nil {
			return err
		}
		above := s.Above(scope)
		if k.low {
			above = nil
		}
		found = slices.DeleteFunc(found, func(o object) bool {
			at := o.Scope.Key()
			here := at == scope.Key() || !f.exact && slices.Contains(above, at) || f.below && slices.Contains(s.Above(o.Scope), scope.Key())
			return !here || o.Tenant != g.Caller().Tenant || o.ID.Key() <= string(after) || !f.means(&o)
		})
		out := map[string]any{}
		if len(found) > page {
			found = found[:page]
			q.Set("$skiptoken", base64.RawURLEncoding.EncodeToString([]byte(found[page-1].ID.Key())))
			out["nextLink"] = s.Site.Base() + r.URL.EscapedPath() + "?" + q.Encode()
		}
		list := []any{}
		if f.builtins && len(after) == 0 && k.high {
			list = k.showBuiltIn(f.means)
		}
		for i := range found {
			list = append(list, k.show(&found[i]))
		}
		out["value"] = list
		gate.WriteJSON(w, http.StatusOK, out)
		return nil
	}
}

// choosing is what of a list somebody wants.
type choosing struct {
	exact, below, builtins bool
	means                  func(o *object) bool
}

// filters are by what lists of a kind are filtered.
var filters = map[string][]string{
	definitions.typ: {"policyType", "category"}, sets.typ: {"policyType", "category"},
	assignments.typ: {"policyDefinitionId"}, exemptions.typ: {"policyAssignmentId"}, attestations.typ: {},
}

// listFilter reads the filters of a list. Azure shows what lies below a
// subscription or group unless atScope() or atExactScope() is asked for.
func (k *kind) listFilter(text string, now time.Time) (c choosing, err error) {
	c = choosing{below: true, builtins: true, means: func(*object) bool { return true }}
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "":
		return c, nil
	case "atexactscope()":
		c.exact, c.below, c.builtins = true, false, false
		return c, nil
	case "atscope()":
		c.below = false
		return c, nil
	case "excludeexpired()":
		if k.typ == exemptions.typ {
			c.means = func(o *object) bool {
				p, err := propsOf[exemptionProps](o)
				return err == nil && !(&exemption{o, p}).over(now)
			}
			return c, nil
		}
	}
	m, err := odata.ParseFilter(text)
	if err == nil {
		_, err = m(k.row(nil))
	}
	if err != nil {
		return c, arm.Errorf(arm.BadRequest, "the $filter %.200q is not supported; supported: atScope(), atExactScope(), excludeExpired() of exemptions, and %s", text, strings.Join(append(filters[k.typ], ""), " eq '...', "))
	}
	c.below = !k.high
	c.means = func(o *object) bool {
		ok, err := m(k.row(o))
		return ok && err == nil
	}
	return c, nil
}

// row is what an object is filtered by.
func (k *kind) row(o *object) map[string]any {
	var p struct {
		Definition string `json:"policyDefinitionId"`
		Assignment string `json:"policyAssignmentId"`
		Metadata   any    `json:"metadata"`
	}
	all := map[string]any{}
	if o != nil {
		_ = json.Unmarshal(o.Properties, &p) // it was read before it was kept
		all = map[string]any{"policyDefinitionId": p.Definition, "policyAssignmentId": p.Assignment, "category": metadataCategory(p.Metadata), "policyType": "Custom"}
		if builtIn[o.ID.Key()] != nil {
			all["policyType"] = "BuiltIn"
		}
	}
	out := map[string]any{}
	for _, name := range filters[k.typ] {
		out[name] = all[name]
	}
	return out
}

func (s *Service) put(k *kind, patch bool) gate.Verb {
	return func(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
		id, err := g.On(k.write)
		if err != nil {
			return err
		}
		data, err := resource.ReadBody(w, r)
		if err != nil {
			return err
		}
		if err := s.ask(r, g, k, id, data, patch); err != nil {
			return err
		}
		var o, old *object
		err = g.Change(r.Context(), s.DB, func(tx *store.Tx) error {
			if o, old, err = s.prepare(tx, g, k, id, r.URL.Query().Get("api-version"), data, patch); err != nil {
				return err
			}
			if k.identity {
				var was *resource.Identity
				if old != nil {
					was = old.Identity
				}
				if err := o.Identity.Settle(tx, s.Identities, o.ID, o.ID.Name(), was); err != nil {
					return err
				}
			}
			tx.After(func() { s.force.put(s, k, o) })
			return store.PutJSON(tx, k.table(), o.ID.Key(), o)
		})
		if err != nil {
			return err
		}
		status := http.StatusOK
		if old == nil || (k.high || k.identity) && !patch {
			status = http.StatusCreated // Azure's answer also where something was there
		}
		gate.WriteJSON(w, status, k.show(o))
		return nil
	}
}

// ask asks the gate for everything else that a change needs.
func (s *Service) ask(r *http.Request, g gate.Grant, k *kind, id arm.ID, data []byte, patch bool) error {
	var links []resource.Linked
	err := s.DB.View(r.Context(), func(tx *store.Tx) error {
		o, old, err := s.prepare(tx, g, k, id, r.URL.Query().Get("api-version"), data, patch)
		if err != nil {
			return err
		}
		if k.asks != nil {
			if links, err = k.asks(tx, o); err != nil {
				return err
			}
		}
		return s.askIdentity(tx, &links, o, old)
	})
	if err != nil {
		return err
	}
	return resource.AdmitLinked(r.Context(), s.Gate, g, k.write, id, links)
}

// prepare is the object that data asks for with an api-version, checked.
func (s *Service) prepare(tx *store.Tx, g gate.Grant, k *kind, id arm.ID, version string, data []byte, patch bool) (o, old *object, err error) {
	var b objectBody
	if err := arm.Decode(data, &b); err != nil {
		return nil, nil, err
	}
	switch {
	case !nameForm.MatchString(id.Name()):
		return nil, nil, arm.Errorf(arm.InvalidResourceName, "The name '%s' must have 1 to 64 characters, none of <>*%%&:\\?.+/#, and not end with a space.", id.Name())
	case b.ID != "" && !strings.EqualFold(b.ID, id.String()):
		return nil, nil, arm.Errorf(arm.InvalidRequest, "the body's id is %q; the request's is %q", b.ID, id)
	case b.Name != "" && !strings.EqualFold(b.Name, id.Name()):
		return nil, nil, arm.Errorf(arm.InvalidRequest, "the body's name is %q; the request's is %q", b.Name, id.Name())
	case b.Type != "" && !strings.EqualFold(b.Type, k.typ):
		return nil, nil, arm.Errorf(arm.InvalidRequest, "the body's type is %q; it must be %s", b.Type, k.typ)
	case !k.identity && (b.Identity != nil || b.Location != ""):
		return nil, nil, arm.Errorf(arm.InvalidRequest, "%s has no identity and no location", k.doc)
	}
	scope, err := s.Scope(tx, id.Parent())
	if err != nil {
		return nil, nil, err
	}
	if k.high && !high(scope) {
		return nil, nil, arm.Errorf("InvalidPolicyDefinitionScope", "%s lies at a management group or a subscription, not at %s", k.doc, scope)
	}
	if old, err = load(tx, k, id); err != nil {
		return nil, nil, err
	}
	if patch && old == nil {
		return nil, nil, k.missing(id)
	}
	o = &object{ID: scope.Child(k.typ, id.Name()), Scope: scope, Tenant: s.Site.TenantOf(scope), Location: b.Location}
	if o.Tenant == "" {
		return nil, nil, arm.Errorf(arm.InvalidRequest, "%s lies at no tenant's scope", id)
	}
	props := k.props()
	if old != nil {
		o.ID, o.System, o.Identity = old.ID, old.System, old.Identity
		if o.Location == "" {
			o.Location = old.Location
		}
		if patch {
			if err := json.Unmarshal(old.Properties, props); err != nil {
				return nil, nil, err
			}
		} else if b.Properties, err = resource.Preserve(k.typ, version, b.Properties, old.Properties); err != nil {
			return nil, nil, err
		}
	}
	if b.Identity != nil {
		if err := o.takeIdentity(b.Identity); err != nil {
			return nil, nil, err
		}
	}
	if b.Properties != nil {
		if _, ok := b.Properties.(map[string]any); !ok {
			return nil, nil, arm.Errorf(arm.InvalidRequest, "properties must be an object")
		}
		if err := arm.DecodeTree(b.Properties, props); err != nil {
			return nil, nil, err
		}
	}
	if o.Properties, err = json.Marshal(props); err != nil {
		return nil, nil, err
	}
	o.System.Stamp(g.Caller(), s.Now())
	return o, old, k.check(tx, o, old)
}

// high reports whether a scope is a management group or a subscription.
func high(id arm.ID) bool {
	return strings.EqualFold(id.Type(), "Microsoft.Management/managementGroups") || strings.EqualFold(id.Type(), "Microsoft.Resources/subscriptions")
}

func (s *Service) delete(k *kind) gate.Verb {
	return func(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
		id, err := g.On(k.remove)
		if err != nil {
			return err
		}
		var o *object
		err = g.Change(r.Context(), s.DB, func(tx *store.Tx) error {
			if o, err = load(tx, k, id); err != nil || o == nil {
				return err
			}
			if k.free != nil {
				if err := k.free(tx, o); err != nil {
					return err
				}
			}
			return s.forget(tx, k, o)
		})
		if err != nil {
			return err
		}
		if o == nil {
			w.WriteHeader(http.StatusNoContent)
			return nil
		}
		gate.WriteJSON(w, http.StatusOK, k.show(o))
		return nil
	}
}

// forget removes o and, with an assignment, its identity.
func (s *Service) forget(tx *store.Tx, k *kind, o *object) error {
	if o.Identity != nil && o.Identity.Principal != "" {
		if err := s.Identities.Drop(tx, o.ID); err != nil {
			return err
		}
	}
	tx.After(func() { s.force.drop(k, o) })
	return tx.Delete(k.table(), o.ID.Key())
}

// DropScope forgets everything at a resource or below it, when it is deleted.
// It is one of resource.Server's OnRemove.
func (s *Service) DropScope(tx *store.Tx, d *resource.Doc) error {
	for _, k := range s.kinds() {
		found, err := store.ScanJSON[object](tx, k.table(), d.ID.Key()+"/", "", 0)
		if err != nil {
			return err
		}
		for i := range found {
			if err := s.forget(tx, k, &found[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// show is o as answers have it.
func (k *kind) show(o *object) map[string]any {
	var props map[string]any
	if err := json.Unmarshal(o.Properties, &props); err != nil {
		props = map[string]any{}
	}
	out := map[string]any{"id": o.ID, "name": o.ID.Name(), "type": k.typ, "properties": props}
	if !o.System.CreatedAt.IsZero() {
		out["systemData"] = o.System
	}
	switch {
	case k.high && o.Scope == arm.Root:
		props["policyType"] = "BuiltIn"
	case k.high:
		props["policyType"] = "Custom"
	case k.identity:
		props["scope"] = o.Scope
		if o.Location != "" {
			out["location"] = o.Location
		}
		if o.Identity != nil {
			out["identity"] = o.Identity
		}
	}
	return out
}

// takeIdentity takes the identity that a client asks for.
func (o *object) takeIdentity(sent *resource.Identity) error {
	switch strings.ToLower(sent.Type) {
	case "none":
		o.Identity = nil
	case "systemassigned":
		if len(sent.Users) > 0 {
			return arm.Errorf(arm.InvalidRequest, "identity.type is SystemAssigned, which takes no userAssignedIdentities")
		}
		if o.Identity == nil || len(o.Identity.Users) > 0 {
			o.Identity = &resource.Identity{Type: "SystemAssigned"}
		}
	case "userassigned":
		if len(sent.Users) != 1 {
			return arm.Errorf(arm.InvalidRequest, "identity.userAssignedIdentities has %d identities; an assignment has one", len(sent.Users))
		}
		next := &resource.Identity{Type: "UserAssigned", Users: map[string]resource.UserAssigned{}}
		for text := range sent.Users {
			id, err := arm.ParseID(text)
			if err != nil {
				return err
			}
			next.Users[id.String()] = resource.UserAssigned{}
		}
		o.Identity = next
	default:
		return arm.Errorf(arm.InvalidRequest, "identity.type is %q; it must be None, SystemAssigned or UserAssigned", sent.Type)
	}
	if o.Identity != nil && o.Location == "" {
		return arm.Errorf("LocationRequired", "an assignment with an identity must have a location")
	}
	return nil
}

// askIdentity adds what attaching another's identity needs.
func (s *Service) askIdentity(tx *store.Tx, links *[]resource.Linked, o, old *object) error {
	if o.Identity == nil {
		return nil
	}
	for text := range o.Identity.Users {
		id, err := arm.ParseID(text)
		if err != nil {
			return err
		}
		if old != nil && old.Identity != nil {
			principal, _, ok, err := s.Identities.UserAssigned(tx, id)
			if err != nil {
				return err
			}
			if had, same := old.Identity.Users[text]; ok && same && had.Principal == principal {
				continue
			}
		}
		*links = append(*links, resource.Linked{Action: resource.AssignIdentity, ID: id, Field: "identity.userAssignedIdentities"})
	}
	return nil
}
