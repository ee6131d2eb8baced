package resource

import (
	"maps"
	"net/http"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// tagsType is the extension under which Resource Manager shows the tags of any
// resource: who may tag need not be allowed to change anything else.
const tagsType = "Microsoft.Resources/tags"

var (
	readTags   = arm.NewAction(tagsType+"/read", "see tags")
	writeTags  = arm.NewAction(tagsType+"/write", "tag resources")
	deleteTags = arm.NewAction(tagsType+"/delete", "take all tags away")
)

// Limits of tags, as Azure's.
const (
	maxTags     = 50
	maxTagName  = 512 // bytes
	maxTagValue = 256 // bytes
)

// tagsBody is what a client may send of tags.
type tagsBody struct {
	ID         string `json:"id" arm:"readonly"`
	Name       string `json:"name" arm:"readonly"`
	Type       string `json:"type" arm:"readonly"`
	Operation  string `json:"operation" arm:"only=Merge|Replace|Delete"`
	Properties struct {
		Tags map[string]string `json:"tags"`
	} `json:"properties"`
}

// TagRoutes are the doors to the tags of resources, groups and subscriptions.
func (s *Server) TagRoutes() []gate.Route {
	const item = "/{scope...}/providers/" + tagsType + "/default"
	at := func(r *http.Request, _ gate.Vars) (gate.Target, error) { return Locate(r, 4) }
	return append(s.tagNameRoutes(), []gate.Route{
		gate.On(readTags, "GET "+item, at, s.getTags),
		gate.On(writeTags, "PUT "+item, at, s.changeTags(writeTags)),
		gate.On(writeTags, "PATCH "+item, at, s.changeTags(writeTags)),
		gate.On(deleteTags, "DELETE "+item, at, s.changeTags(deleteTags)),
	}...)
}

func (s *Server) getTags(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
	id, err := g.On(readTags)
	if err != nil {
		return err
	}
	return s.DB.View(r.Context(), func(tx *store.Tx) error {
		d, _, err := s.tagged(tx, id)
		if err != nil {
			return err
		}
		return writeJSON(w, http.StatusOK, showTags(d))
	})
}

// tagged is the resource at id and its kind, or the error that there is none.
func (s *Server) tagged(tx *store.Tx, id arm.ID) (*Doc, *Kind, error) {
	d, err := Load(tx, id)
	if err != nil {
		return nil, nil, err
	}
	if d == nil {
		return nil, nil, arm.Errorf(arm.NotFound, "The Resource '%s' was not found.", id)
	}
	k := s.Kind(d.Type)
	if k == nil || k != Group && k != Subscription && k.Parent != Group {
		return nil, nil, arm.Errorf("ResourceDoesNotSupportTags", "%s can't have tags.", id)
	}
	return d, k, nil
}

func showTags(d *Doc) map[string]any {
	tags := d.Tags
	if tags == nil {
		tags = map[string]string{}
	}
	return map[string]any{"id": d.ID.Child(tagsType, "default"), "name": "default", "type": tagsType, "properties": map[string]any{"tags": tags}}
}

// changeTags is PUT, which replaces all tags, PATCH, whose operation says what it
// does, and DELETE. Policies judge the outcome like any other change.
func (s *Server) changeTags(a arm.Action) gate.Verb {
	return func(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
		id, err := g.On(a)
		if err != nil {
			return err
		}
		b := tagsBody{Operation: "Replace"}
		if r.Method != http.MethodDelete {
			if b, err = readTagsBody(w, r); err != nil {
				return err
			}
		}
		var d *Doc
		err = g.Change(r.Context(), s.DB, func(tx *store.Tx) error {
			old, k, err := s.tagged(tx, id)
			if err != nil {
				return err
			}
			if st := StateOf(old); st == "Creating" || st == "Updating" {
				return arm.Errorf(arm.Conflict, "%s is %s; its tags can be changed when that is over", id, strings.ToLower(st))
			}
			next := *old
			d = &next
			if d.Tags, err = b.apply(old.Tags); err != nil {
				return err
			}
			h := handler{s: s, k: k, version: r.URL.Query().Get("api-version")}
			h.stamp(d, g.Caller())
			c := Change{Doc: d, Old: old, Caller: g.Caller(), Version: h.version}
			if err := h.review(tx, &c); err != nil {
				return err
			}
			if s.Policies != nil {
				if err := s.Policies.Settled(tx, &c); err != nil {
					return err
				}
			}
			return Save(tx, d)
		})
		if err != nil {
			return err
		}
		if r.Method == http.MethodDelete {
			w.WriteHeader(http.StatusOK)
			return nil
		}
		return writeJSON(w, http.StatusOK, showTags(d))
	}
}

func readTagsBody(w http.ResponseWriter, r *http.Request) (b tagsBody, err error) {
	data, err := readBody(w, r)
	if err != nil {
		return b, err
	}
	if err := arm.Decode(data, &b); err != nil {
		return b, err
	}
	switch {
	case r.Method == http.MethodPut && b.Operation != "":
		return b, arm.Errorf(arm.InvalidRequest, "operation is %q; PUT replaces all tags and takes no operation", b.Operation)
	case r.Method == http.MethodPut:
		b.Operation = "Replace"
	case b.Operation == "":
		return b, arm.Errorf(arm.InvalidRequest, "operation is missing; it must be Merge, Replace or Delete")
	}
	return b, nil
}

// apply makes of the tags that there are those that b asks for. Names mind no
// case; one that is there keeps its spelling. Delete takes only tags whose value
// is as b says.
func (b tagsBody) apply(had map[string]string) (map[string]string, error) {
	out := map[string]string{}
	if b.Operation != "Replace" {
		out = maps.Clone(had)
		if out == nil {
			out = map[string]string{}
		}
	}
	for name, value := range b.Properties.Tags {
		if err := checkTag(name, value); err != nil {
			return nil, err
		}
		spelt := name
		for n := range out {
			if strings.EqualFold(n, name) {
				spelt = n
			}
		}
		switch v, ok := out[spelt]; {
		case b.Operation == "Replace" && ok:
			return nil, arm.Errorf(arm.InvalidRequest, "properties.tags has the name %s twice", name)
		case b.Operation != "Delete":
			out[spelt] = value
		case v == value:
			delete(out, spelt)
		}
	}
	if len(out) > maxTags {
		return nil, arm.Errorf("TooManyTags", "the resource would have %d tags; at most %d are allowed", len(out), maxTags)
	}
	return out, nil
}

// checkTag says whether a tag can be so.
func checkTag(name, value string) error {
	if name == "" || len(name) > maxTagName || strings.ContainsAny(name, `<>%&\?/`) {
		return arm.Errorf("InvalidTagNameCharacters", "the tag name %.80q must have 1 to %d bytes, none of <>%%&\\?/", name, maxTagName)
	}
	if len(value) > maxTagValue {
		return arm.Errorf("InvalidTagValueLength", "the value of the tag %s has %d bytes; at most %d are allowed", name, len(value), maxTagValue)
	}
	return nil
}
