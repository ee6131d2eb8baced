package app

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const published = "../../../shared/data/"

// shape is what a published specification says of one JSON value.
type shape interface {
	// below are the shapes that a property of the value may have, or with "[*]"
	// its elements; open says that the specification leaves it free.
	below(name string) (_ []shape, open bool)
}

// hasPath reports whether one of the shapes has what path names.
func hasPath(shapes []shape, path []string) bool {
	if len(path) == 0 {
		return true
	}
	for _, s := range shapes {
		if next, open := s.below(path[0]); open || len(next) > 0 && hasPath(next, path[1:]) {
			return true
		}
	}
	return false
}

// unknown are the names in a value that none of the shapes has.
func unknown(shapes []shape, v any, at string) (out []string) {
	look := func(name, at string, v any) {
		var all []shape
		for _, s := range shapes {
			next, open := s.below(name)
			if open {
				return
			}
			all = append(all, next...)
		}
		if len(all) == 0 {
			out = append(out, at)
			return
		}
		out = append(out, unknown(all, v, at)...)
	}
	switch v := v.(type) {
	case map[string]any:
		for name, x := range v {
			look(name, strings.TrimPrefix(at+"."+name, "."), x)
		}
	case []any:
		for _, x := range v[:min(len(v), 20)] { // the others are like them
			look("[*]", at+"[*]", x)
		}
	}
	return out
}

// swaggers are the files of the REST specifications, by path.
type swaggers map[string]map[string]any

func (s swaggers) read(t *testing.T, file string) map[string]any {
	if s[file] == nil {
		var doc map[string]any
		read(t, file, &doc)
		s[file] = doc
	}
	return s[file]
}

// schema is a schema of one of them.
type schema struct {
	t    *testing.T
	in   swaggers
	file string
	name string // of the definition; "" if it has none
	node map[string]any
}

func (s schema) at(node any) schema {
	m, _ := node.(map[string]any)
	ref, ok := m["$ref"].(string)
	if !ok {
		return schema{s.t, s.in, s.file, "", m}
	}
	file, pointer, _ := strings.Cut(ref, "#/")
	to := schema{s.t, s.in, s.file, filepath.Base(pointer), nil}
	if file != "" {
		to.file = filepath.Join(filepath.Dir(s.file), file)
	}
	if _, err := os.Stat(to.file); err != nil {
		return to // not at hand, so it is left free
	}
	v := any(s.in.read(s.t, to.file))
	for name := range strings.SplitSeq(pointer, "/") {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	to.node, _ = v.(map[string]any)
	return to
}

func (s schema) below(name string) ([]shape, bool) {
	props, _ := s.node["properties"].(map[string]any)
	all, _ := s.node["allOf"].([]any)
	var out []shape
	if items, ok := s.node["items"]; ok {
		if name == "[*]" {
			out = append(out, s.at(items))
		}
		return out, false
	}
	for k, p := range props {
		if strings.EqualFold(k, name) {
			out = append(out, s.at(p))
		}
	}
	for _, a := range all {
		more, open := s.at(a).below(name)
		if open && s.at(a).node["properties"] != nil {
			return nil, true
		}
		out = append(out, more...)
	}
	if s.name != "" && s.node["discriminator"] != nil {
		for _, d := range s.heirs() {
			more, _ := d.below(name)
			out = append(out, more...)
		}
	}
	switch a := s.node["additionalProperties"].(type) {
	case map[string]any:
		out = append(out, s.at(a))
	case bool:
		return out, a
	}
	typ, _ := s.node["type"].(string)
	return out, len(props)+len(all) == 0 && s.node["additionalProperties"] == nil && (typ == "" || typ == "object")
}

// heirs are the definitions of the file that say of themselves to be of all of s.
func (s schema) heirs() (out []schema) {
	defs, _ := s.in.read(s.t, s.file)["definitions"].(map[string]any)
	for name, d := range defs {
		m, _ := d.(map[string]any)
		all, _ := m["allOf"].([]any)
		for _, a := range all {
			if ref, _ := a.(map[string]any)["$ref"].(string); ref == "#/definitions/"+s.name {
				own := map[string]any{"properties": m["properties"], "discriminator": m["discriminator"]}
				if m["properties"] == nil {
					own["properties"] = map[string]any{"": nil}
				}
				out = append(out, schema{s.t, s.in, s.file, name, own})
			}
		}
	}
	return out
}

// bicep are the types of one file, as Bicep's own publisher lists them.
type bicep []struct {
	Kind                 string `json:"$type"`
	Name                 string
	Body, ItemType       ref
	AdditionalProperties *ref
	Properties           map[string]struct{ Type ref }
	BaseProperties       map[string]struct{ Type ref }
	Elements             json.RawMessage // refs by name of a discriminated object, or a union's list
}

type ref struct {
	Ref string `json:"$ref"`
}

// typed is a type of them.
type typed struct {
	in bicep
	i  int
}

func (b bicep) at(r ref) typed {
	i, err := strconv.Atoi(strings.TrimPrefix(r.Ref, "#/"))
	if err != nil {
		panic(err)
	}
	return typed{b, i}
}

func (x typed) below(name string) (out []shape, open bool) {
	typ := x.in[x.i]
	switch typ.Kind {
	case "AnyType":
		return nil, true
	case "ArrayType":
		if name == "[*]" {
			out = append(out, x.in.at(typ.ItemType))
		}
		return out, false
	case "ObjectType", "DiscriminatedObjectType":
	default:
		return nil, false
	}
	for _, props := range []map[string]struct{ Type ref }{typ.Properties, typ.BaseProperties} {
		for k, p := range props {
			if strings.EqualFold(k, name) {
				out = append(out, x.in.at(p.Type))
			}
		}
	}
	var elements map[string]ref
	_ = json.Unmarshal(typ.Elements, &elements) // a union's is a list
	for _, e := range elements {
		more, _ := x.in.at(e).below(name)
		out = append(out, more...)
	}
	if typ.AdditionalProperties != nil {
		out = append(out, x.in.at(*typ.AdditionalProperties))
	}
	return out, typ.Kind == "ObjectType" && len(typ.Properties) == 0 && typ.AdditionalProperties == nil
}

// specified are the answers of the published specifications: of what lies at a
// path, with a version.
type specified struct {
	swaggers
	// items are the shapes of types in lower case, by version.
	items map[string]map[string][]shape
}

// specification reads all that is published of types and paths here.
func specification(t *testing.T) specified {
	t.Helper()
	if _, err := os.Stat(published); err != nil {
		t.Skip("shared/data is absent, so the published shapes are not held against")
	}
	out := specified{swaggers{}, map[string]map[string][]shape{}}
	add := func(typ, v string, s shape) {
		typ = strings.ToLower(typ)
		if out.items[typ] == nil {
			out.items[typ] = map[string][]shape{}
		}
		out.items[typ][v] = append(out.items[typ][v], s)
	}
	files, _ := filepath.Glob(published + "arm-specs/*/resource-manager/*/*/*/*.json")
	for _, f := range files {
		doc := out.read(t, f)
		version := doc["info"].(map[string]any)["version"].(string)
		paths, _ := doc["paths"].(map[string]any)
		for path, ops := range paths {
			typ := typeOf(path)
			if typ == "" || !strings.HasSuffix(path, "}") && !strings.HasSuffix(path, "/default") {
				continue
			}
			for _, s := range out.ofOperation(t, f, ops.(map[string]any)) {
				add(typ, version, s)
			}
		}
	}
	files, _ = filepath.Glob(published + "bicep-types/*/*/*/types.json")
	for _, f := range files {
		var types bicep
		read(t, f, &types)
		for _, x := range types {
			if typ, v, ok := strings.Cut(x.Name, "@"); ok {
				add(typ, v, types.at(x.Body))
			}
		}
	}
	return out
}

// ofOperation are the shapes of what a path's PUT takes and its GET answers.
func (s specified) ofOperation(t *testing.T, file string, ops map[string]any) (out []shape) {
	root := schema{t: t, in: s.swaggers, file: file}
	if put, ok := ops["put"].(map[string]any); ok {
		for _, p := range put["parameters"].([]any) {
			if p := root.at(p); p.node["in"] == "body" {
				out = append(out, p.at(p.node["schema"]))
			}
		}
	}
	if get, ok := ops["get"].(map[string]any); ok {
		if answer, ok := get["responses"].(map[string]any)["200"].(map[string]any); ok && answer["schema"] != nil {
			out = append(out, root.at(answer["schema"]))
		}
	}
	return out
}
