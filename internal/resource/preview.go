package resource

import (
	"context"
	"encoding/json"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/store"
)

// Forecast is what a PUT would make of a resource: what clients may set of it
// before and after, policies included.
type Forecast struct {
	Before, After map[string]any // Before is nil if there is no such resource
	NoEffect      []string       // properties that were sent, and that the platform alone sets
}

// Preview is the Forecast for a PUT of data, or the error that the PUT would come
// to: nil for what is no Kind's. It changes nothing. If fresh is set, what is to
// hold the resource is not there yet, so that nothing but its form is judged. Who
// asks must have seen that the caller may read and write id.
func (s *Server) Preview(ctx context.Context, by arm.Caller, id arm.ID, version string, data []byte, fresh bool) (f *Forecast, err error) {
	k := s.Kind(id.Type())
	if k == nil {
		return nil, nil
	}
	h := handler{s: s, k: k, version: version}
	f = &Forecast{NoEffect: k.idle(data)}
	err = s.DB.View(ctx, func(tx *store.Tx) error {
		c := Change{Doc: h.base(id, nil, false)}
		if fresh {
			if err := k.decode(data, id, version, c.Doc, nil); err != nil {
				return err
			}
		} else if c, err = h.prepare(tx, by, id, data, false); err != nil {
			return err
		}
		if c.Old != nil {
			if f.Before, err = k.settable(c.Old); err != nil {
				return err
			}
		}
		f.After, err = k.settable(c.Doc)
		return err
	})
	return f, err
}

// idle are the properties in data that clients may send and not set.
func (k *Kind) idle(data []byte) (out []string) {
	var b struct {
		Properties map[string]any `json:"properties"`
	}
	if json.Unmarshal(data, &b) != nil {
		return nil // decoding says so
	}
	for _, p := range arm.ReadOnly(k.props()) {
		for name := range b.Properties {
			if strings.EqualFold(name, p) {
				out = append(out, "properties."+p)
			}
		}
	}
	return out
}

// settable is d with nothing but what a client may send, as a tree.
func (k *Kind) settable(d *Doc) (map[string]any, error) {
	m, err := k.export(d)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"type", "apiVersion", "name", "dependsOn"} {
		delete(m, name)
	}
	return parsed(m, d.ID)
}
