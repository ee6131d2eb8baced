package compliance

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// Built-in definitions lie at the root, under the names that Azure's have.
//
//go:embed builtin/definitions.json
var builtinText []byte

// builtIn are the built-in definitions, by the keys of their ids.
var builtIn = readBuiltIn()

// sortedBuiltIn are they in the order of their ids.
var sortedBuiltIn = func() []*object {
	var out []*object
	for _, k := range slices.Sorted(maps.Keys(builtIn)) {
		out = append(out, builtIn[k])
	}
	return out
}()

func readBuiltIn() map[string]*object {
	var list []json.RawMessage
	if err := json.Unmarshal(builtinText, &list); err != nil {
		panic(fmt.Sprint("compliance: the built-in definitions: ", err))
	}
	out := map[string]*object{}
	for _, text := range list {
		var name struct {
			Name string `json:"name"`
		}
		var p definitionProps
		if err := json.Unmarshal(text, &name); err != nil {
			panic(fmt.Sprint("compliance: a built-in definition: ", err))
		}
		if err := json.Unmarshal(text, &p); err != nil {
			panic(fmt.Sprint("compliance: the built-in definition ", name.Name, ": ", err))
		}
		props, err := json.Marshal(p)
		if err != nil {
			panic(fmt.Sprint("compliance: the built-in definition ", name.Name, ": ", err))
		}
		id := arm.MustID("/providers/" + definitions.typ + "/" + name.Name)
		out[id.Key()] = &object{ID: id, Scope: arm.Root, Properties: props}
	}
	return out
}

// rootRoutes are the doors to what is built in, which everybody may see.
func (s *Service) rootRoutes(k *kind) []gate.Route {
	at := func(n int) gate.Locate {
		return func(r *http.Request, _ gate.Vars) (gate.Target, error) { return resource.Locate(r, n) }
	}
	return []gate.Route{
		gate.Each(k.read, "GET /providers/"+k.typ, at(3), func(w http.ResponseWriter, r *http.Request, g gate.Grant) error {
			if _, err := g.On(k.read); err != nil {
				return err
			}
			f, err := k.listFilter(r.URL.Query().Get("$filter"), time.Time{})
			if err != nil {
				return err
			}
			gate.WriteJSON(w, http.StatusOK, map[string]any{"value": k.showBuiltIn(f.means)})
			return nil
		}),
		gate.Each(k.read, "GET /providers/"+k.typ+"/{name}", at(0), func(w http.ResponseWriter, _ *http.Request, g gate.Grant) error {
			id, err := g.On(k.read)
			if err != nil {
				return err
			}
			o := builtIn[id.Key()]
			if o == nil {
				return k.missing(id)
			}
			gate.WriteJSON(w, http.StatusOK, k.show(o))
			return nil
		}),
	}
}

// BuiltIn is the text of the built-in definition of an id or a name, whole.
func BuiltIn(id string) ([]byte, bool) {
	k := strings.ToLower(id)
	if !strings.HasPrefix(k, "/") {
		k = strings.ToLower("/providers/"+definitions.typ+"/") + k
	}
	o := builtIn[k]
	if o == nil {
		return nil, false
	}
	text, err := json.Marshal(map[string]any{"id": o.ID, "name": o.ID.Name(), "properties": o.Properties})
	return text, err == nil
}

// showBuiltIn are the built-in objects of a kind, as answers have them.
func (k *kind) showBuiltIn(means func(*object) bool) []any {
	out := []any{}
	for _, o := range sortedBuiltIn {
		if strings.EqualFold(o.ID.Type(), k.typ) && means(o) {
			out = append(out, k.show(o))
		}
	}
	return out
}

// find is a built-in object, or one that the store has, or nil.
func find(tx *store.Tx, k *kind, id arm.ID) (*object, error) {
	if o := builtIn[id.Key()]; o != nil {
		return o, nil
	}
	return load(tx, k, id)
}
