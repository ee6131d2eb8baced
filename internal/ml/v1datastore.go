package ml

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// v1Datastores are v1's doors to the datastores of Resource Manager.
type v1Datastores struct {
	*Service
	put, remove gate.Verb // of the kind
}

func (s v1Datastores) routes() []gate.Route {
	const all, one = datastoreV1 + "/datastores", datastoreV1 + "/datastores/{name}"
	return []gate.Route{
		gate.On(readDatastore, "GET "+all, v1Workspace, s.list),
		gate.On(writeDatastore, "POST "+all, v1Named, s.create),
		gate.On(readDatastore, "GET "+one, v1Datastore, s.get),
		gate.On(writeDatastore, "PUT "+one, v1Datastore, s.update),
		gate.On(deleteDatastore, "DELETE "+one, v1Datastore, s.remove).Before(s.keepsDefault),
		gate.On(readDatastore, "GET "+datastoreV1+"/default", v1Workspace, s.getDefault),
		gate.On(writeDatastore, "PUT "+datastoreV1+"/default/{name}", v1Default, s.setDefault),
	}
}

// v1Workspace is the workspace that a path names.
func v1Workspace(_ *http.Request, v gate.Vars) (gate.Target, error) {
	for _, n := range []string{"sub", "group", "workspace"} {
		if err := arm.CheckSegment(v[n]); err != nil { // decoded, it may have become several
			return gate.Target{}, err
		}
	}
	id, err := workspaceOf(v)
	return gate.Target{ID: id}, err
}

func v1Datastore(r *http.Request, v gate.Vars) (gate.Target, error) {
	on, err := v1Workspace(r, v)
	if err == nil {
		err = arm.CheckSegment(v["name"])
	}
	if err != nil {
		return gate.Target{}, err
	}
	return gate.Target{ID: on.ID.Child("datastores", strings.ToLower(v["name"]))}, nil
}

// v1Default is the workspace itself, for its default is about all of it.
func v1Default(r *http.Request, v gate.Vars) (gate.Target, error) {
	on, err := v1Workspace(r, v)
	on.Item = v["name"]
	return on, err
}

// maxV1 is how many bytes a body of v1's services may have.
const maxV1 = 256 << 10

// v1Named is the datastore that a body names; the workspace if it names none,
// which the verb refuses once the caller is admitted.
func v1Named(r *http.Request, v gate.Vars) (gate.Target, error) {
	on, err := v1Workspace(r, v)
	if err != nil {
		return on, err
	}
	data, err := v1Body(r)
	if err != nil {
		return on, err
	}
	r.Body = io.NopCloser(bytes.NewReader(data))
	tree, _ := arm.ParseJSON(data)
	doc, _ := tree.(map[string]any)
	for k, value := range doc {
		if name, ok := value.(string); ok && strings.EqualFold(k, "name") && arm.CheckSegment(name) == nil {
			on.ID = on.ID.Child("datastores", strings.ToLower(name))
		}
	}
	return on, nil
}

func v1Body(r *http.Request) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r.Body, maxV1+1))
	if err != nil {
		return nil, &arm.Error{Code: arm.BadRequest, Message: "the request body could not be read", Err: err}
	}
	if len(data) > maxV1 {
		return nil, arm.Errorf(arm.TooLarge, "the request body is larger than %d bytes", maxV1)
	}
	return data, nil
}

func (s v1Datastores) get(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(readDatastore)
	if err != nil {
		return err
	}
	var d *resource.Doc
	if err := s.DB.View(r.Context(), func(tx *store.Tx) error {
		d, err = s.datastoreIn(tx, id)
		return err
	}); err != nil {
		return err
	}
	return s.answer(w, r, g, d)
}

// datastoreIn loads a datastore in tx.
func (s v1Datastores) datastoreIn(tx *store.Tx, id arm.ID) (*resource.Doc, error) {
	if _, err := s.workspaceIn(tx, id.Parent()); err != nil {
		return nil, err
	}
	d, err := resource.Load(tx, id)
	if err == nil && d == nil {
		err = arm.Errorf(arm.NotFound, "Could not find datastore %s in workspace %s.", id.Name(), id.Parent().Name())
	}
	return d, err
}

// answer shows one datastore, with what opens it to who may have that.
func (s v1Datastores) answer(w http.ResponseWriter, r *http.Request, g gate.Grant, d *resource.Doc) error {
	out, err := s.shown(r, g, d, true)
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	gate.WriteJSON(w, http.StatusOK, out)
	return nil
}

func (s v1Datastores) shown(r *http.Request, g gate.Grant, d *resource.Doc, secret bool) (v1Store, error) {
	p, err := props[datastoreProps](d)
	if err != nil {
		return v1Store{}, err
	}
	if !secret || p.Credentials.Type == credNone {
		return v1Shown(d, p, secrets{})
	}
	ws, err := s.load(r.Context(), d.ID.Parent())
	if err != nil {
		return v1Store{}, err
	}
	may, wide, err := s.unveil(r.Context(), g, ws, d.ID)
	if err != nil {
		return v1Store{}, err
	}
	if _, err := may.On(listSecrets, readSecrets); err != nil {
		return v1Shown(d, p, secrets{})
	}
	x, err := s.opener(r, ws, d, p, wide)
	if err := may.Close(r.Context(), err); err != nil {
		return v1Store{}, err
	}
	return v1Shown(d, p, x)
}

// opener is what opens a datastore. For the workspace's own it is a signature for
// an hour, which only reads for whom the mode alone lets have it.
func (s v1Datastores) opener(r *http.Request, w workspace, d *resource.Doc, p datastoreProps, wide bool) (secrets, error) {
	in, err := inner[datastoreInner](d)
	if err != nil {
		return secrets{}, err
	}
	if !in.System {
		x, err := s.kept(r.Context(), w, d, in)
		s.hideFrom(r.Context(), x.texts()...)
		return x, err
	}
	if p.Type == azureFile { // nothing signs for a share but the key, which does more than read
		if !wide {
			return secrets{}, nil
		}
		key, err := s.storageKey(r.Context(), w)
		text, _ := key.(string)
		return secrets{Type: credKey, Key: text}, err
	}
	rights := "rl"
	if wide {
		rights = "racwl"
	}
	sas, err := s.Accounts.Sign(r.Context(), w.self(), w.StorageAccount.ID, p.Container, rights, s.Now().Add(time.Hour))
	if err != nil {
		return secrets{}, err
	}
	x := secrets{Type: credSAS, SAS: string(sas.Reveal())}
	s.hideFrom(r.Context(), x.texts()...)
	return x, nil
}

func (s v1Datastores) list(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(readDatastore)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	count := 100
	if text := q.Get("count"); text != "" {
		if count, err = strconv.Atoi(text); err != nil || count < 1 {
			return arm.Errorf(arm.BadRequest, "count is %q; it must be a whole number above 0", text)
		}
	}
	var names []string
	if text := q.Get("dataStoreNames"); text != "" {
		names = strings.Split(strings.ToLower(text), ",")
	}
	var found []*resource.Doc
	if err := s.DB.View(r.Context(), func(tx *store.Tx) error {
		if _, err := s.workspaceIn(tx, id); err != nil {
			return err
		}
		found, err = resource.List(tx, s.kinds.datastore.Type, id, q.Get("continuationToken"), 0)
		return err
	}); err != nil {
		return err
	}
	found = slices.DeleteFunc(found, func(d *resource.Doc) bool {
		return names != nil && !slices.Contains(names, strings.ToLower(d.Name))
	})
	out := map[string]any{}
	if len(found) > count {
		found = found[:count]
		out["continuationToken"] = found[count-1].ID.Key()
	}
	value := make([]v1Store, len(found))
	for i, d := range found {
		if value[i], err = s.shown(r, g, d, strings.EqualFold(q.Get("includeSecret"), "true")); err != nil {
			return err
		}
	}
	out["value"] = value
	w.Header().Set("Cache-Control", "no-store")
	gate.WriteJSON(w, http.StatusOK, out)
	return nil
}

// create makes a datastore. Clients that may write over one know the refusal of
// one that is there by its words.
func (s v1Datastores) create(_ http.ResponseWriter, r *http.Request, g gate.Grant) error {
	if id, err := g.On(writeDatastore); err != nil || strings.EqualFold(id.Type(), workspaceType) {
		return cmp.Or(err, error(arm.Errorf(arm.BadRequest, "name is missing, or no name; the body must have that of the datastore")))
	}
	taken := arm.Errorf(arm.BadRequest, "Another datastore with the same name already exists in the workspace.")
	there, err := s.there(r, g)
	if err != nil {
		return err
	}
	if there {
		return taken
	}
	err = s.write(r, g, "If-None-Match")
	if arm.CodeOf(err) == arm.PreconditionFailed {
		return taken
	}
	return err
}

func (s v1Datastores) update(_ http.ResponseWriter, r *http.Request, g gate.Grant) error {
	there, err := s.there(r, g)
	if err == nil && !there {
		err = arm.Errorf(arm.NotFound, "Could not find the datastore in the workspace.")
	}
	if err != nil {
		return err
	}
	return s.write(r, g, "If-Match")
}

func (s v1Datastores) there(r *http.Request, g gate.Grant) (there bool, err error) {
	id, err := g.On(writeDatastore)
	if err != nil {
		return false, err
	}
	err = s.DB.View(r.Context(), func(tx *store.Tx) error {
		if _, err := s.workspaceIn(tx, id.Parent()); err != nil {
			return err
		}
		d, err := resource.Load(tx, id)
		there = d != nil
		return err
	})
	return there, err
}

// write has the kind write the datastore that r describes, under a condition.
func (s v1Datastores) write(r *http.Request, g gate.Grant, condition string) error {
	id, err := g.On(writeDatastore)
	if err != nil {
		return err
	}
	data, err := v1Body(r)
	if err != nil {
		return err
	}
	var in v1Store
	if err := arm.Decode(data, &in); err != nil {
		return err
	}
	if in.Name != "" && !strings.EqualFold(in.Name, id.Name()) {
		return arm.Errorf(arm.BadRequest, "name is %q, and the path names the datastore %s", in.Name, id.Name())
	}
	body, err := in.arm()
	if err != nil {
		return err
	}
	if strings.EqualFold(r.URL.Query().Get("createIfNotExists"), "true") {
		if err := s.makePlace(r, g, id, body); err != nil {
			return err
		}
	}
	as := r.Clone(r.Context())
	as.URL.RawQuery = url.Values{"api-version": {v1Version}, "skipValidation": {r.URL.Query().Get("skipValidation")}}.Encode()
	as.Body = io.NopCloser(bytes.NewReader(body))
	as.Header.Del("If-Match")
	as.Header.Set(condition, "*")
	return s.put(unheard{http.Header{}}, as, g)
}

// v1Version is the api-version as which v1's requests are read.
const v1Version = "2024-10-01"

// unheard takes an answer that nobody hears: v1's is another.
type unheard struct{ header http.Header }

func (u unheard) Header() http.Header         { return u.header }
func (u unheard) Write(b []byte) (int, error) { return len(b), nil }
func (u unheard) WriteHeader(int)             {}

// makePlace makes the container that a datastore will be, by what opens it, or as the
// caller where nothing does.
func (s v1Datastores) makePlace(r *http.Request, g gate.Grant, id arm.ID, body []byte) error {
	var doc struct {
		Properties datastoreProps `json:"properties"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return err
	}
	if doc.Properties.Type == azureFile {
		return arm.Errorf(arm.Unsupported, "createIfNotExists is true, which makes containers; make the share by Resource Manager or by its own protocol")
	}
	d := &resource.Doc{ID: id, Name: id.Name()}
	sent, _, err := s.credential(resource.Change{Doc: d}, doc.Properties)
	if err != nil {
		return err
	}
	var l location
	if err := s.DB.View(r.Context(), func(tx *store.Tx) error {
		l, err = described(tx, &resource.Doc{ID: id, Name: id.Name(), Inner: json.RawMessage("{}")}, doc.Properties)
		return err
	}); err != nil {
		return err
	}
	by := Access{As: g.Caller()}
	if sent != nil {
		if by, err = s.opening(r.Context(), l, *sent); err != nil {
			return err
		}
	}
	return s.Blobs.Ensure(r.Context(), by, l.account, l.container)
}

func (s v1Datastores) getDefault(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(readDatastore)
	if err != nil {
		return err
	}
	var d *resource.Doc
	if err := s.DB.View(r.Context(), func(tx *store.Tx) error {
		if _, err := s.workspaceIn(tx, id); err != nil {
			return err
		}
		d, err = s.defaultIn(tx, id)
		return err
	}); err != nil {
		return err
	}
	return s.answer(w, r, g, d)
}

// defaultIn is the workspace's default datastore.
func (s *Service) defaultIn(tx *store.Tx, workspace arm.ID) (*resource.Doc, error) {
	all, err := resource.List(tx, s.kinds.datastore.Type, workspace, "", 0)
	if err != nil {
		return nil, err
	}
	for _, d := range all {
		if in, err := inner[datastoreInner](d); err != nil || in.Default {
			return d, err
		}
	}
	return nil, arm.Errorf(arm.NotFound, "the workspace has no default datastore; set one")
}

// setDefault makes another datastore the workspace's default, in Resource Manager too.
func (s v1Datastores) setDefault(_ http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(writeDatastore)
	if err != nil {
		return err
	}
	if err := arm.CheckSegment(g.Item()); err != nil {
		return err
	}
	return g.Change(r.Context(), s.DB, func(tx *store.Tx) error {
		d, err := s.datastoreIn(tx, id.Child("datastores", g.Item()))
		if err != nil {
			return err
		}
		was, err := s.defaultIn(tx, id)
		if err != nil && arm.CodeOf(err) != arm.NotFound {
			return err
		}
		return errors.Join(s.mark(tx, was, false), s.mark(tx, d, true))
	})
}

// mark notes whether a datastore is the default; d may be nil.
func (s v1Datastores) mark(tx *store.Tx, d *resource.Doc, is bool) error {
	if d == nil {
		return nil
	}
	in, err := inner[datastoreInner](d)
	if err != nil {
		return err
	}
	in.Default, d.Etag = is, `"`+arm.NewUUID()+`"`
	if err := setInner(d, in); err != nil {
		return err
	}
	return resource.Save(tx, d)
}
