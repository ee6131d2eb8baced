package resource

import (
	"encoding/json"
	"errors"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/store"
)

// Table is where resources lie, each under its id's key.
const Table = docs

// Resources lie in one table under their ids' keys, and once more, empty, under
// type and key, which is what lists walk.
const (
	docs   = "resources"
	byType = "resources_by_type"
)

// row is a Doc with what no answer shows.
type row struct {
	Doc
	Hidden   json.RawMessage `json:"inner,omitempty"`
	Instance string          `json:"instance"`
}

func typed(typ string, id arm.ID) string { return strings.ToLower(typ) + "|" + id.Key() }

// Load is the resource id as it is kept, or nil if there is none.
func Load(tx *store.Tx, id arm.ID) (*Doc, error) {
	r, ok, err := store.GetJSON[row](tx, docs, id.Key())
	if err != nil || !ok {
		return nil, err
	}
	d := r.Doc
	d.Inner, d.Instance = r.Hidden, r.Instance
	return &d, nil
}

// Save keeps d.
func Save(tx *store.Tx, d *Doc) error {
	if d.Shut != nil {
		return d.Shut // what is not known must not be written over
	}
	if err := store.PutJSON(tx, docs, d.ID.Key(), row{*d, d.Inner, d.Instance}); err != nil {
		return err
	}
	return tx.Put(byType, typed(d.Type, d.ID), nil)
}

// Remove forgets d.
func Remove(tx *store.Tx, d *Doc) error {
	if err := tx.Delete(byType, typed(d.Type, d.ID)); err != nil {
		return err
	}
	return tx.Delete(docs, d.ID.Key())
}

// glimpse is Load, but of a resource whose row can't be opened it tells what the id
// tells, and why in Shut.
func glimpse(tx *store.Tx, id arm.ID) (*Doc, error) {
	d, err := Load(tx, id)
	if shut, ok := errors.AsType[*store.Shut](err); ok {
		return &Doc{ID: id, Name: id.Name(), Type: id.Type(), Properties: json.RawMessage("{}"), Shut: shut.Err}, nil
	}
	return d, err
}

// List is up to limit resources of a type below scope, in the order of their
// ids, beginning behind the key after.
func List(tx *store.Tx, typ string, scope arm.ID, after string, limit int) ([]*Doc, error) {
	prefix := strings.ToLower(typ) + "|" + strings.TrimSuffix(scope.Key(), "/") + "/"
	if after != "" {
		after = strings.ToLower(typ) + "|" + after
	}
	rows, err := tx.Scan(byType, prefix, after, limit)
	if err != nil {
		return nil, err
	}
	out := make([]*Doc, 0, len(rows))
	for _, r := range rows {
		_, key, _ := strings.Cut(r.Key, "|")
		id, err := arm.ParseID(key)
		if err != nil {
			return nil, err
		}
		d, err := Load(tx, id)
		if err != nil {
			return nil, err
		}
		if d != nil {
			out = append(out, d)
		}
	}
	return out, nil
}

// Below is every resource that lies below scope, innermost last. Of those whose
// key can't be used Shut says so.
func Below(tx *store.Tx, scope arm.ID) ([]*Doc, error) {
	keys, err := tx.Keys(docs, strings.TrimSuffix(scope.Key(), "/")+"/", "", 0)
	if err != nil {
		return nil, err
	}
	out := make([]*Doc, 0, len(keys))
	for _, key := range keys {
		id, err := arm.ParseID(key)
		if err != nil {
			return nil, err
		}
		d, err := glimpse(tx, id)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}
