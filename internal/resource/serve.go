package resource

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

const (
	maxBody = 4 << 20 // bytes of a request body; ARM takes no more either
	page    = 200     // resources in one answer of a list
)

// Server serves kinds.
type Server struct {
	DB   *store.DB
	Gate *gate.Gate
	Now  func() time.Time
	Site arm.Site
	// Identities makes managed identities; without it no resource has one.
	Identities Identities
	// OnRemove are run for every resource that is deleted, in the deletion's
	// own transaction.
	OnRemove []func(tx *store.Tx, d *Doc) error
	// Policies judge what is about to be written or deleted; without them all may be.
	Policies Policies
	// Gains reports whether somebody has roles above what lies in the group to
	// who has them not above what lies in the group from; without it nobody has.
	Gains func(tx *store.Tx, from, to arm.ID) (bool, error)
	// Actions are those of all doors, for the list of providers; nil is none.
	Actions func() []arm.Action
	// Wake is called when there is a new operation to run.
	Wake func()

	kinds []*Kind
}

// Kinds are all kinds that have routes, in the order in which they got them.
func (s *Server) Kinds() []*Kind { return s.kinds }

// Kind is the kind of a type, or nil.
func (s *Server) Kind(typ string) *Kind {
	for _, k := range s.kinds {
		if strings.EqualFold(k.Type, typ) {
			return k
		}
	}
	return nil
}

// Routes are all doors of one kind.
func (s *Server) Routes(k *Kind) []gate.Route {
	k.actions()
	s.kinds = append(s.kinds, k)
	h := handler{s: s, k: k}
	item, list := paths(k)
	if k.Wide == nil {
		return h.routes(item, list)
	}
	group, _ := paths(Group)
	var out []gate.Route
	for _, scope := range append([]string{group}, Wide...) {
		below := scope + "/providers/" + k.Type
		out = append(out, h.routes(below+"/{"+k.name()+"}", []string{below})...)
	}
	return out
}

// routes are the doors of the kind at one sort of scope.
func (h handler) routes(item string, list []string) []gate.Route {
	k := h.k
	out := []gate.Route{
		gate.On(k.read, "GET "+item, h.locate, h.get),
		gate.On(k.read, "HEAD "+item, h.locate, h.get),
	}
	if !k.NoPut {
		out = append(out, gate.On(k.write, "PUT "+item, h.locate, h.put))
	}
	if !k.NoPatch {
		out = append(out, gate.On(k.write, "PATCH "+item, h.locate, h.patch))
	}
	if !k.NoDelete {
		out = append(out, gate.On(k.remove, "DELETE "+item, h.locate, h.delete))
	}
	lists := gate.On
	if k.Each || k.Parent == Group {
		lists = gate.Each
	}
	for _, l := range list {
		out = append(out, lists(k.read, "GET "+l, h.locateList, h.list))
	}
	for _, p := range k.Posts {
		out = append(out, gate.On(p.Action, "POST "+item+"/"+p.Name, h.locatePost, h.post(p)))
	}
	return out
}

// paths are where one resource of the kind lies and where lists of it are had.
func paths(k *Kind) (item string, lists []string) {
	switch {
	case k == Subscription:
		return "/subscriptions/{sub}", []string{"/subscriptions"}
	case k == Group:
		return "/subscriptions/{sub}/resourcegroups/{group}", []string{"/subscriptions/{sub}/resourcegroups"}
	}
	parent, _ := paths(k.Parent)
	if k.Parent == Group || k.Parent == Subscription {
		below := "/providers/" + k.Type
		lists = []string{parent + below}
		if k.Parent == Group {
			lists = append(lists, "/subscriptions/{sub}"+below)
		}
		return parent + below + "/{" + k.name() + "}", lists
	}
	return parent + "/" + k.name() + "/{" + k.name() + "}", []string{parent + "/" + k.name()}
}

type handler struct {
	s *Server
	k *Kind
	// version is the request's api-version.
	version string
}

func (h handler) locate(r *http.Request, _ gate.Vars) (gate.Target, error) { return Locate(r, 0) }

func (h handler) locateList(r *http.Request, _ gate.Vars) (gate.Target, error) {
	if h.k == Subscription {
		return gate.Target{ID: arm.Root}, version(r)
	}
	cut := 1
	if h.k.Parent == Group || h.k.Parent == Subscription {
		if cut = 3; h.k == Group {
			cut = 1
		}
	}
	return Locate(r, cut)
}

func (h handler) locatePost(r *http.Request, _ gate.Vars) (gate.Target, error) {
	return Locate(r, 1)
}

// Locate is the id that the request's path spells, less its last cut segments,
// once the request names an api-version. Clients that put a scope with its
// leading slash into /{scope}/... send two of them; they count as one, and so do
// those around a parent resource that there is not.
func Locate(r *http.Request, cut int) (gate.Target, error) {
	if err := version(r); err != nil {
		return gate.Target{}, err
	}
	p := r.URL.EscapedPath()
	if strings.HasPrefix(p, "//") {
		p = p[1:]
	}
	p = noParent.ReplaceAllString(p, "$1/")
	for range cut {
		p = p[:strings.LastIndexByte(p, '/')]
	}
	if p == "" {
		return gate.Target{ID: arm.Root}, nil
	}
	id, err := arm.ParseID(p)
	return gate.Target{ID: id}, err
}

// noParent is where the SDKs' methods for one resource put a parent's path.
var noParent = regexp.MustCompile(`(?i)^(/subscriptions/[^/]+/resourcegroups/[^/]+/providers/[^/]+)//`)

func (h handler) get(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(h.k.read)
	if err != nil {
		return err
	}
	id, h.version = Kept(id, g.Caller().Tenant), r.URL.Query().Get("api-version")
	var d *Doc
	if err := h.s.DB.View(r.Context(), func(tx *store.Tx) (err error) {
		d, err = h.find(tx, id)
		return err
	}); err != nil {
		return err
	}
	if r.Method == http.MethodHead {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return h.answer(w, http.StatusOK, d)
}

// find is the resource, or the error that says what is missing.
func (h handler) find(tx *store.Tx, id arm.ID) (*Doc, error) {
	d, err := Load(tx, id)
	if err != nil || d != nil {
		return d, err
	}
	if err := h.parent(tx, id); err != nil {
		return nil, err
	}
	return nil, missing(h.k, id)
}

func missing(k *Kind, id arm.ID) error {
	switch k {
	case Group:
		return arm.Errorf(arm.GroupNotFound, "Resource group '%s' could not be found.", id.Name())
	case Subscription:
		return arm.Errorf(arm.SubscriptionNotFound, "The subscription '%s' could not be found.", id.Name())
	}
	if id.Group().IsZero() {
		return arm.Errorf(arm.NotFound, "The Resource '%s/%s' under %s was not found.", k.Type, id.Name(), Shown(id).Parent())
	}
	return arm.Errorf(arm.NotFound, "The Resource '%s/%s' under resource group '%s' was not found.", k.Type, id.Name(), id.Group().Name())
}

// parent says whether what must hold id exists.
func (h handler) parent(tx *store.Tx, id arm.ID) error {
	if h.k.Wide != nil && id.Group().IsZero() {
		return h.k.Wide(tx, Shown(id).Parent())
	}
	for k, p := h.k.Parent, id.Parent(); k != nil; k, p = k.Parent, p.Parent() {
		d, err := Load(tx, p)
		if err != nil {
			return err
		}
		if d == nil && !k.Implied {
			return missing(k, p)
		}
	}
	return nil
}

func (h handler) list(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	scope, err := g.On(h.k.read)
	if err != nil {
		return err
	}
	h.version = r.URL.Query().Get("api-version")
	after, err := skip(r.URL.Query().Get("$skiptoken"))
	if err != nil {
		return err
	}
	size, err := pageSize(r)
	if err != nil {
		return err
	}
	meant := func(*Doc) bool { return true }
	if h.k.Filter != nil {
		if meant, err = h.k.Filter(r.URL.Query()); err != nil {
			return err
		}
	}
	var found []*Doc
	if err := h.s.DB.View(r.Context(), func(tx *store.Tx) (err error) {
		if h.k.Wide != nil {
			if err := h.parent(tx, scope.Child(h.k.Type, "any")); err != nil {
				return err
			}
			if scope == arm.Root {
				scope = arm.TenantScope(g.Caller().Tenant)
			}
			meant = func(d *Doc) bool { return d.ID.Parent().Key() == scope.Key() }
		} else if scope != arm.Root && (h.k.Parent == nil || !h.k.Parent.Implied) {
			if err := h.exists(tx, scope); err != nil {
				return err
			}
		}
		found, err = h.visible(tx, g, scope, after, size+1, meant)
		return err
	}); err != nil {
		return err
	}
	out := map[string]any{}
	if len(found) > size {
		found = found[:size]
		q := r.URL.Query()
		q.Set("$skiptoken", base64.RawURLEncoding.EncodeToString([]byte(found[size-1].ID.Key())))
		out["nextLink"] = h.s.Site.Base() + r.URL.EscapedPath() + "?" + q.Encode()
	}
	items := make([]any, len(found))
	for i, d := range found {
		if items[i], err = h.view(d); err != nil {
			return err
		}
	}
	out["value"] = items
	return writeJSON(w, http.StatusOK, out)
}

// pageSize is $top, where the request has one, but at most a page.
func pageSize(r *http.Request) (int, error) { return topSize(r, page) }

// topSize is $top, but at most n, which it is too where the request has none.
func topSize(r *http.Request, n int) (int, error) {
	top := r.URL.Query().Get("$top")
	if top == "" {
		return n, nil
	}
	want, err := strconv.Atoi(top)
	if err != nil || want < 1 {
		return 0, arm.Errorf(arm.BadRequest, "$top is %q; it must be a whole number above 0", top)
	}
	return min(want, n), nil
}

// visible is up to limit resources of the list that the Grant sees.
func (h handler) visible(tx *store.Tx, g gate.Grant, scope arm.ID, after string, limit int, meant func(*Doc) bool) ([]*Doc, error) {
	var out []*Doc
	for {
		found, err := List(tx, h.k.Type, scope, after, page)
		if err != nil {
			return nil, err
		}
		for _, d := range found {
			if meant(d) && (g.Sees(h.k.read, d.ID) || h.k == Subscription && g.SeesBelow(d.ID)) {
				out = append(out, d)
			}
			if len(out) == limit {
				return out, nil
			}
		}
		if len(found) < page {
			return out, nil
		}
		after = found[len(found)-1].ID.Key()
	}
}

func skip(token string) (string, error) {
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(b) > 4096 {
		return "", arm.Errorf(arm.BadRequest, "the $skiptoken is not one that a nextLink gave")
	}
	return string(b), nil
}

func (h handler) exists(tx *store.Tx, scope arm.ID) error {
	d, err := Load(tx, scope)
	if err != nil || d != nil {
		return err
	}
	kinds := map[bool]*Kind{true: Group, false: Subscription}
	if !scope.Group().IsZero() && scope.Key() != scope.Group().Key() {
		return missing(h.k.Parent, scope)
	}
	return missing(kinds[!scope.Group().IsZero()], scope)
}

func (h handler) put(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	return h.change(w, r, g, false)
}

// Put and Delete are what a kind's own doors do, for another plane that shows the
// same resources: its doors ask for the kind's actions, and their target is the resource.
func (s *Server) Put(k *Kind) gate.Verb    { return handler{s: s, k: k}.put }
func (s *Server) Delete(k *Kind) gate.Verb { return handler{s: s, k: k}.delete }

func (h handler) patch(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	return h.change(w, r, g, true)
}

// change is PUT and PATCH: decode, check, look at what it links to, then write
// the resource and the audit entry in one transaction.
func (h handler) change(w http.ResponseWriter, r *http.Request, g gate.Grant, patch bool) error {
	id, err := g.On(h.k.write)
	if err != nil {
		return err
	}
	id = Kept(id, g.Caller().Tenant)
	h.version = r.URL.Query().Get("api-version")
	data, err := readBody(w, r)
	if err != nil {
		return err
	}
	if h.k.Body != nil {
		if data, err = h.k.Body(data); err != nil {
			return err
		}
	}
	if err := h.linked(r.Context(), g, id, data, patch); err != nil {
		return err
	}
	seen, err := h.needs(r, g, id, data, patch)
	if err != nil {
		return err
	}
	var c Change
	err = g.Change(r.Context(), h.s.DB, func(tx *store.Tx) error {
		if c, err = h.prepare(tx, g.Caller(), id, data, patch); err != nil {
			return err
		}
		c.Seen = seen
		if h.k.Apply != nil {
			c.begun = g.Begin()
		}
		if err := precondition(r, c.Old); err != nil {
			return err
		}
		return h.s.keep(tx, h.k, &c)
	})
	if err != nil {
		return err
	}
	if h.k.Settled != nil {
		h.k.Settled(c.Doc)
	}
	if c.Operation != "" {
		h.s.announce(w, c.Doc, c.Operation)
	}
	return h.answer(w, h.k.status(c), c.Doc)
}

// needs is what the kind wants to have seen before the transaction.
func (h handler) needs(r *http.Request, g gate.Grant, id arm.ID, data []byte, patch bool) (any, error) {
	if h.k.Needs == nil {
		return nil, nil
	}
	var c Change
	if err := h.s.DB.View(r.Context(), func(tx *store.Tx) (err error) {
		c, err = h.prepare(tx, g.Caller(), id, data, patch)
		return err
	}); err != nil {
		return nil, err
	}
	c.Query = r.URL.Query()
	return h.k.Needs(r.Context(), c)
}

// status is what a successful PUT or PATCH is answered with.
func (k *Kind) status(c Change) int {
	switch {
	case c.Old == nil && k.Created != 0:
		return k.Created
	case c.Old == nil:
		return http.StatusCreated
	case k.Updated != 0:
		return k.Updated
	}
	return http.StatusOK
}

// keep writes the change, and the operation that will make the world follow it.
func (s *Server) keep(tx *store.Tx, k *Kind, c *Change) error {
	if err := s.identify(tx, k, c); err != nil {
		return err
	}
	if k.Save != nil {
		if err := k.Save(tx, *c); err != nil {
			return err
		}
	}
	if s.Policies != nil {
		if err := s.Policies.Settled(tx, c); err != nil {
			return err
		}
	}
	if k.Apply != nil {
		op, err := s.begin(tx, c)
		if err != nil {
			return err
		}
		c.Operation = op
	}
	return Save(tx, c.Doc)
}

// prepare is the change that data asks for, checked, against what is in tx.
func (h handler) prepare(tx *store.Tx, by arm.Caller, id arm.ID, data []byte, patch bool) (Change, error) {
	if err := h.parent(tx, id); err != nil {
		return Change{}, err
	}
	old, err := Load(tx, id)
	if err != nil {
		return Change{}, err
	}
	if patch && old == nil {
		return Change{}, missing(h.k, id)
	}
	if old == nil {
		if err := registered(tx, id, h.k.Type); err != nil {
			return Change{}, err
		}
	}
	d := h.base(id, old, patch)
	if err := h.k.decode(data, id, h.version, d, old); err != nil {
		return Change{}, err
	}
	if !h.k.Global && h.k.Parent == Group && d.Location == "" {
		return Change{}, arm.Errorf("LocationRequired", "The location property is required for this definition.")
	}
	h.stamp(d, by)
	c := Change{Doc: d, Old: old, Caller: by, Version: h.version}
	if h.k.Check != nil {
		if err := h.k.Check(c); err != nil {
			return c, err
		}
	}
	return c, h.review(tx, &c)
}

// base is what data is read over.
func (h handler) base(id arm.ID, old *Doc, patch bool) *Doc {
	if old == nil {
		return &Doc{ID: id, Name: id.Name(), Type: h.k.Type, Instance: arm.NewHex()}
	}
	d := *old
	if !patch {
		d.Properties, d.Tags, d.SKU, d.Kind = nil, nil, nil, ""
	}
	return &d
}

func (h handler) stamp(d *Doc, by arm.Caller) {
	var sys System
	if d.System != nil {
		sys = *d.System
	}
	sys.Stamp(by, h.s.Now())
	d.System, d.Etag = &sys, etag()
}

// Stamp notes that by changes what s is of now, or makes it.
func (s *System) Stamp(by arm.Caller, now time.Time) {
	typ, who := "Application", by.App
	if by.Kind == arm.User {
		typ, who = "User", by.Name
	}
	s.ModifiedBy, s.ModifiedByType, s.ModifiedAt = who, typ, now.UTC()
	if s.CreatedAt.IsZero() {
		s.CreatedBy, s.CreatedByType, s.CreatedAt = who, typ, now.UTC()
	}
}

// linked asks the gate for every resource that the change newly points to.
func (h handler) linked(ctx context.Context, g gate.Grant, id arm.ID, data []byte, patch bool) error {
	if h.k.Links == nil && h.k.Identity == nil {
		return nil
	}
	var links, had []Linked
	err := h.s.DB.View(ctx, func(tx *store.Tx) error {
		c, err := h.prepare(tx, g.Caller(), id, data, patch)
		if err != nil {
			return err
		}
		if c.Old != nil {
			if had, err = h.s.heldBy(tx, h.k, c.Old); err != nil {
				return err
			}
		}
		links, err = h.k.links(c.Doc)
		return err
	})
	if err != nil {
		return err
	}
	links = slices.DeleteFunc(links, func(l Linked) bool { return holds(had, l) })
	return AdmitLinked(ctx, h.s.Gate, g, h.k.write, id, links)
}

// AdmitLinked asks the gate for everything that a change of id points to, of
// whoever may make the change itself.
func AdmitLinked(ctx context.Context, at *gate.Gate, g gate.Grant, write arm.Action, id arm.ID, links []Linked) error {
	for _, l := range links {
		lg, err := at.Admit(ctx, g.Caller(), l.Action, gate.Target{ID: l.ID})
		if arm.CodeOf(err) == arm.Forbidden {
			return arm.Errorf(arm.LinkedForbidden, "The client with object id '%s' has permission to perform action '%s' on scope '%s'; however, it does not have permission to perform action '%s' on the linked scope '%s' (%s).",
				g.Caller().Object, write.Name(), id, l.Action.Name(), l.ID, l.Field)
		}
		if arm.CodeOf(err) == arm.WrongTenant {
			return arm.Errorf(arm.LinkedForbidden, "The client has permission to perform action '%s' on scope '%s'; however, the current tenant '%s' is not authorized to access linked subscription '%s' (%s).",
				write.Name(), id, g.Caller().Tenant, l.ID.Subscription(), l.Field)
		}
		if err != nil {
			return err
		}
		if err := lg.Close(ctx, nil); err != nil {
			return err
		}
	}
	return nil
}

func holds(had []Linked, l Linked) bool {
	for _, x := range had {
		if x.ID.Key() == l.ID.Key() && x.Action.Key() == l.Action.Key() {
			return true
		}
	}
	return false
}

// precondition is If-Match and If-None-Match (RFC 9110 section 13).
func precondition(r *http.Request, old *Doc) error {
	if m := strings.Join(r.Header.Values("If-Match"), ","); m != "" && (old == nil || !names(m, old.Etag)) {
		return arm.Errorf(arm.PreconditionFailed, "the resource's etag is not %s", m)
	}
	if m := strings.Join(r.Header.Values("If-None-Match"), ","); m != "" && old != nil && names(m, old.Etag) {
		return arm.Errorf(arm.PreconditionFailed, "the resource exists, and If-None-Match is %s", m)
	}
	return nil
}

// names reports whether a list of etags has this one, or is a star. Ours have no
// commas, and none is weak.
func names(list, etag string) bool {
	for _, e := range strings.Split(list, ",") {
		if e = strings.TrimSpace(e); e == "*" || e == etag {
			return true
		}
	}
	return false
}

func (h handler) delete(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(h.k.remove)
	if err != nil {
		return err
	}
	id = Kept(id, g.Caller().Tenant)
	var gone []*Doc
	op := h.s.over(g, id)
	err = g.Change(r.Context(), h.s.DB, func(tx *store.Tx) error {
		d, err := Load(tx, id)
		if err != nil {
			return err
		}
		if err := precondition(r, d); err != nil || d == nil {
			return err
		}
		if gone, err = Below(tx, id); err != nil {
			return err
		}
		gone = append(gone, d)
		if err := h.s.mayGo(tx, g.Caller(), gone); err != nil {
			return err
		}
		if h.k.Deleted == http.StatusAccepted {
			if err := store.PutJSON(tx, operations, op.ID, op); err != nil {
				return err
			}
		}
		return h.s.removeAll(tx, gone)
	})
	if err != nil {
		return err
	}
	if len(gone) == 0 {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	d := gone[len(gone)-1]
	if h.k.Settled != nil {
		h.k.Settled(d)
	}
	if h.k.Deleted == http.StatusAccepted {
		h.s.announce(w, d, op.ID)
	}
	w.WriteHeader(cmp.Or(h.k.Deleted, http.StatusOK))
	return nil
}

// removeAll forgets the resources, the last first: what lies below before what holds it.
func (s *Server) removeAll(tx *store.Tx, gone []*Doc) error {
	for _, d := range gone {
		if k := s.Kind(d.Type); k != nil && k.Remove != nil {
			if err := k.Remove(tx, d); err != nil {
				return err
			}
		}
		if d.Identity != nil && d.Identity.Principal != "" && s.Identities != nil {
			if err := s.Identities.Drop(tx, d.ID); err != nil {
				return err
			}
		}
		for _, f := range s.OnRemove {
			if err := f(tx, d); err != nil {
				return err
			}
		}
		if err := Remove(tx, d); err != nil {
			return err
		}
	}
	return nil
}

func (h handler) post(p Post) gate.Verb {
	return func(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
		id, err := g.On(p.Action)
		if err != nil {
			return err
		}
		data, err := readBody(w, r)
		if err != nil {
			return err
		}
		var d *Doc
		if err := h.s.DB.View(r.Context(), func(tx *store.Tx) (err error) {
			d, err = h.find(tx, id)
			return err
		}); err != nil {
			return err
		}
		status, answer, err := p.Do(r.Context(), g, d, data)
		if err != nil {
			return err
		}
		if answer == nil {
			w.WriteHeader(status)
			return nil
		}
		return writeJSON(w, status, answer)
	}
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var big *http.MaxBytesError
	if errors.As(err, &big) {
		return nil, arm.Errorf(arm.TooLarge, "the request body is larger than %d bytes", maxBody)
	}
	if err != nil {
		return nil, &arm.Error{Code: arm.BadRequest, Message: "the request body could not be read", Err: err}
	}
	return data, nil
}

// view is d as an answer shows it.
func (h handler) view(d *Doc) (any, error) {
	if h.k.Shape != nil {
		return h.k.Shape(h.s.Site, d), nil
	}
	if shown := Shown(d.ID); shown.Key() != d.ID.Key() {
		own := *d
		own.ID, d = shown, &own
	}
	out := *d
	if !h.k.Etag {
		out.Etag = ""
	}
	if h.version != "" && h.version < first(h.k.SystemData, h.version) {
		out.System = nil
	}
	if h.k.Show != nil {
		props := map[string]any{}
		if err := json.Unmarshal(d.Properties, &props); err != nil {
			return nil, err
		}
		h.k.Show(d, props)
		b, err := json.Marshal(props)
		if err != nil {
			return nil, err
		}
		out.Properties = b
	}
	var err error
	out.Properties, err = h.k.hidden(h.version, out.Properties)
	return &out, err
}

func (h handler) answer(w http.ResponseWriter, status int, d *Doc) error {
	v, err := h.view(d)
	if err != nil {
		return err
	}
	w.Header().Set("ETag", d.Etag)
	return writeJSON(w, status, v)
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, err = w.Write(b)
	return err
}

func etag() string { return `"` + arm.NewHex() + `"` }
