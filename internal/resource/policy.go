package resource

import (
	"encoding/json"
	"fmt"
	"reflect"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/store"
)

// Policies judge resources that are about to be written or deleted. They are
// asked in the change's own transaction, once the caller may make the change:
// a policy binds its Owner too.
type Policies interface {
	// Review says whether c.Doc, which doc shows, may be so. Where policies change
	// it, edit makes their changes in its document.
	Review(tx *store.Tx, c *Change, doc map[string]any) (edit func(doc map[string]any) error, err error)
	// Settled records what Review found of c, which is being written.
	Settled(tx *store.Tx, c *Change) error
	// Removing says whether d may be deleted.
	Removing(tx *store.Tx, by arm.Caller, d *Doc, doc map[string]any) error
}

// Tracked reports whether resources of the kind have a location and tags, which
// Azure Policy's mode Indexed asks for.
func (k *Kind) Tracked() bool {
	return k != Group && k != Subscription && !k.Global && k.Parent == Group
}

// Tree is d as an answer shows it, for policies to judge.
func (s *Server) Tree(d *Doc) (map[string]any, error) {
	k := s.Kind(d.Type)
	if k == nil {
		return nil, fmt.Errorf("resource: %s is of no kind", d.ID)
	}
	return tree(k, d)
}

func tree(k *Kind, d *Doc) (map[string]any, error) {
	shown := *d
	shown.Etag = ""
	if k.Show != nil {
		props := map[string]any{}
		if err := json.Unmarshal(d.Properties, &props); err != nil {
			return nil, err
		}
		k.Show(d, props)
		b, err := json.Marshal(props)
		if err != nil {
			return nil, err
		}
		shown.Properties = b
	}
	return plain(&shown)
}

// plain is d as it is kept, as a tree.
func plain(d *Doc) (map[string]any, error) { return parsed(d, d.ID) }

// parsed is v, an object that says what is so of id, as requests are read.
func parsed(v any, id arm.ID) (map[string]any, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	t, err := arm.ParseJSON(b)
	if err != nil {
		return nil, fmt.Errorf("reading %s again: %w", id, err)
	}
	return t.(map[string]any), nil
}

// review has policies judge c, and makes c.Doc what they make of it.
func (h handler) review(tx *store.Tx, c *Change) error {
	if h.s.Policies == nil {
		return nil
	}
	doc, err := tree(h.k, c.Doc)
	if err != nil {
		return err
	}
	edit, err := h.s.Policies.Review(tx, c, doc)
	if err != nil || edit == nil {
		return err
	}
	if err := h.k.rewrite(c.Doc, edit); err != nil {
		return &arm.Error{Code: "PolicyModifyFailed", Message: "a policy changes the resource to what it can't be: " + messageOf(err), Err: err}
	}
	if h.k.Check != nil {
		return h.k.Check(*c)
	}
	return nil
}

func messageOf(err error) string {
	_, message := gate.PublicError(err)
	return message
}

// Judge has policies judge a resource that a service writes by itself, and makes
// it what they make of it. What is no Kind's they can't change.
func (s *Server) Judge(tx *store.Tx, d *Doc, by arm.Caller) error {
	if s.Policies == nil {
		return nil
	}
	old, err := Load(tx, d.ID)
	if err != nil {
		return err
	}
	c := &Change{Doc: d, Old: old, Caller: by}
	if k := s.Kind(d.Type); k != nil {
		err = handler{s: s, k: k}.review(tx, c)
	} else {
		var doc map[string]any
		if doc, err = plain(d); err != nil {
			return err
		}
		var edit func(map[string]any) error
		if edit, err = s.Policies.Review(tx, c, doc); err == nil && edit != nil {
			err = arm.Errorf("PolicyModifyFailed", "a policy changes %s, which can't be changed by policies", d.ID)
		}
	}
	if err != nil {
		return err
	}
	return s.Policies.Settled(tx, c)
}

// Removed runs what is run for every resource that is deleted, for one that a
// service deletes by itself, once policies let it go.
func (s *Server) Removed(tx *store.Tx, d *Doc, by arm.Caller) error {
	if k := s.Kind(d.Type); k != nil && s.Policies != nil {
		doc, err := tree(k, d)
		if err != nil {
			return err
		}
		if err := s.Policies.Removing(tx, by, d, doc); err != nil {
			return err
		}
	}
	for _, f := range s.OnRemove {
		if err := f(tx, d); err != nil {
			return err
		}
	}
	return nil
}

// rewrite makes d what policies make of its document: what a client could have
// sent, and nothing else.
func (k *Kind) rewrite(d *Doc, edit func(doc map[string]any) error) error {
	was, err := plain(d)
	if err != nil {
		return err
	}
	doc, err := plain(d)
	if err != nil {
		return err
	}
	if err := edit(doc); err != nil {
		return err
	}
	next := *d
	for name, v := range doc {
		if reflect.DeepEqual(was[name], v) {
			continue
		}
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		switch name {
		case "tags":
			next.Tags = nil
			err = json.Unmarshal(b, &next.Tags)
		case "sku":
			next.SKU = nil
			err = json.Unmarshal(b, &next.SKU)
		case "kind":
			err = json.Unmarshal(b, &next.Kind)
		case "properties":
			next.Properties, err = k.reread(b)
		default:
			err = arm.Errorf(arm.InvalidRequest, "%s can't be changed by a policy", name)
		}
		if err != nil {
			return err
		}
	}
	*d = next
	return nil
}

// reread holds properties against what clients may send, and gives them in the
// kind's own form, with what only the platform sets as it stands in them.
func (k *Kind) reread(data []byte) (json.RawMessage, error) {
	if err := arm.Decode(data, k.props()); err != nil {
		return nil, err
	}
	props := k.props()
	if err := json.Unmarshal(data, props); err != nil {
		return nil, err
	}
	return json.Marshal(props)
}

// MayGo asks policies whether id, with all that lies in it, may be deleted.
func (s *Server) MayGo(tx *store.Tx, by arm.Caller, id arm.ID) error {
	gone, err := All(tx, id)
	if err != nil {
		return err
	}
	return s.mayGo(tx, by, gone)
}

// mayGo asks policies whether all that is about to be deleted may be.
func (s *Server) mayGo(tx *store.Tx, by arm.Caller, gone []*Doc) error {
	if s.Policies == nil {
		return nil
	}
	for _, d := range gone {
		k := s.Kind(d.Type)
		if k == nil {
			continue
		}
		doc, err := tree(k, d)
		if err != nil {
			return err
		}
		if err := s.Policies.Removing(tx, by, d, doc); err != nil {
			return err
		}
	}
	return nil
}

// All is every resource at or below a scope that is a subscription, a group or
// a resource, in the order of their ids.
func All(tx *store.Tx, scope arm.ID) ([]*Doc, error) {
	out, err := Below(tx, scope)
	if err != nil {
		return nil, err
	}
	if d, err := Load(tx, scope); err != nil {
		return nil, err
	} else if d != nil {
		out = append([]*Doc{d}, out...)
	}
	return out, nil
}
