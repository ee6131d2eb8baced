package arm

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"sort"
	"strings"
	"unicode/utf8"
)

// maxDepth is how deep a JSON document may nest.
const maxDepth = 64

// ParseJSON reads one JSON document the one way in which all of the platform
// reads it: numbers as json.Number, objects as map[string]any. It refuses what
// two readers could take for two things: keys that differ in ASCII case only or
// not at all, a second document behind the first, text that is not UTF-8.
func ParseJSON(data []byte) (any, error) {
	if !utf8.Valid(data) {
		return nil, Errorf(InvalidRequest, "the request body is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	v, err := parseValue(dec, 0)
	if err == nil {
		if _, more := dec.Token(); !errors.Is(more, io.EOF) {
			return nil, Errorf(InvalidRequest, "the request body goes on after its JSON document")
		}
		return v, nil
	}
	var e *Error
	if errors.As(err, &e) {
		return nil, e
	}
	return nil, &Error{Code: InvalidRequest, Message: "the request body is not valid JSON", Err: err}
}

func parseValue(dec *json.Decoder, depth int) (any, error) {
	t, err := dec.Token()
	if err != nil {
		return nil, err
	}
	d, ok := t.(json.Delim)
	if !ok {
		return checkNumber(t)
	}
	if depth >= maxDepth {
		return nil, Errorf(InvalidRequest, "the request body nests deeper than %d", maxDepth)
	}
	if d == '[' {
		return parseArray(dec, depth)
	}
	return parseObject(dec, depth)
}

func checkNumber(t any) (any, error) {
	if n, ok := t.(json.Number); ok {
		if _, err := n.Float64(); err != nil {
			return nil, Errorf(InvalidRequest, "the request body has a number that is out of range")
		}
	}
	return t, nil
}

func parseArray(dec *json.Decoder, depth int) (any, error) {
	out := []any{}
	for dec.More() {
		v, err := parseValue(dec, depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	_, err := dec.Token()
	return out, err
}

func parseObject(dec *json.Decoder, depth int) (any, error) {
	out, seen := map[string]any{}, map[string]string{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, err
		}
		k := t.(string) // the decoder gives nothing else as a key
		if other, twice := seen[fold(k)]; twice {
			return nil, Errorf(InvalidRequest, "the request body has the property %q twice (also as %q)", k, other)
		}
		seen[fold(k)] = k
		if out[k], err = parseValue(dec, depth+1); err != nil {
			return nil, err
		}
	}
	_, err := dec.Token()
	return out, err
}

// fold lowers ASCII letters only, so that no other letter becomes one of them.
func fold(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// Decode reads data into v, a pointer to a struct, by the struct's json tags:
// odd-case keys become the tag's spelling, fields tagged arm:"readonly" are
// dropped, fields tagged arm:"only=A|B" take one of those values, and unknown
// fields are refused by name. A field of type map or any takes what comes. The
// tag arm:"since=VERSION" is for package resource.
func Decode(data []byte, v any) error {
	tree, err := ParseJSON(data)
	if err != nil {
		return err
	}
	return DecodeTree(tree, v)
}

// DecodeTree is Decode for what ParseJSON gave.
func DecodeTree(tree, v any) error {
	clean, err := conform(tree, reflect.TypeOf(v).Elem(), "")
	if err != nil {
		return err
	}
	b, err := json.Marshal(clean)
	if err != nil {
		return &Error{Code: InvalidRequest, Message: "the request body can't be read", Err: err}
	}
	if err := json.Unmarshal(b, v); err != nil {
		return wrongType(err)
	}
	return nil
}

// Settable is the object in data as a client could send it for the struct that v
// points to: without what is read-only there.
func Settable(data []byte, v any) (any, error) {
	tree, err := ParseJSON(data)
	if err != nil {
		return nil, err
	}
	return conform(tree, reflect.TypeOf(v).Elem(), "")
}

func wrongType(err error) error {
	var t *json.UnmarshalTypeError
	if errors.As(err, &t) {
		return Errorf(InvalidRequest, "%s is a %s; it must be a %s", t.Field, t.Value, t.Type)
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Code: InvalidRequest, Message: "the request body has a value of the wrong form", Err: err}
}

// conform gives tree the spelling of t, or says what does not fit.
func conform(tree any, t reflect.Type, path string) (any, error) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch v := tree.(type) {
	case map[string]any:
		if t.Kind() == reflect.Struct && !opaque(t) {
			return conformObject(v, t, path)
		}
		if t.Kind() == reflect.Map {
			return conformMap(v, t.Elem(), path)
		}
	case []any:
		if t.Kind() == reflect.Slice {
			out := make([]any, len(v))
			for i, x := range v {
				var err error
				if out[i], err = conform(x, t.Elem(), path+"[]"); err != nil {
					return nil, err
				}
			}
			return out, nil
		}
	}
	return tree, nil
}

// opaque types read themselves.
func opaque(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]())
}

func conformMap(v map[string]any, elem reflect.Type, path string) (any, error) {
	out := make(map[string]any, len(v))
	for k, x := range v {
		y, err := conform(x, elem, join(path, k))
		if err != nil {
			return nil, err
		}
		out[k] = y
	}
	return out, nil
}

func conformObject(v map[string]any, t reflect.Type, path string) (any, error) {
	known := fields(t)
	out := make(map[string]any, len(v))
	for k, x := range v {
		f, ok := known[fold(k)]
		if !ok {
			return nil, unknown(join(path, k), known)
		}
		if f.readonly || x == nil {
			continue
		}
		if err := f.allows(x, join(path, f.name)); err != nil {
			return nil, err
		}
		y, err := conform(x, f.typ, join(path, f.name))
		if err != nil {
			return nil, err
		}
		out[f.name] = y
	}
	return out, nil
}

func unknown(path string, known map[string]field) error {
	var names []string
	for _, f := range known {
		if !f.readonly {
			names = append(names, f.name)
		}
	}
	sort.Strings(names)
	return Errorf(InvalidRequest, "the property %q is not supported; supported here: %s", path, strings.Join(names, ", "))
}

func join(path, k string) string {
	if path == "" {
		return k
	}
	return path + "." + k
}

type field struct {
	name     string
	typ      reflect.Type
	readonly bool
	only     []string
	since    string
}

// allows says whether the platform can keep what value x promises.
func (f field) allows(x any, path string) error {
	if len(f.only) == 0 {
		return nil
	}
	s := textOf(x)
	for _, o := range f.only {
		if fold(s) == fold(o) {
			return nil
		}
	}
	return Errorf(Unsupported, "%s is %q; supported: %s", path, s, strings.Join(f.only, ", "))
}

func textOf(x any) string {
	if s, ok := x.(string); ok {
		return s
	}
	b, err := json.Marshal(x)
	if err != nil {
		return "?"
	}
	return string(b)
}

// fields is what the struct t takes, by folded name.
func fields(t reflect.Type) map[string]field {
	out := map[string]field{}
	for i := range t.NumField() {
		sf := t.Field(i)
		if sf.Anonymous && sf.Type.Kind() == reflect.Struct && sf.Tag.Get("json") == "" {
			for k, f := range fields(sf.Type) {
				out[k] = f
			}
			continue
		}
		name, _, _ := strings.Cut(sf.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		f := field{name: name, typ: sf.Type}
		for _, opt := range strings.Split(sf.Tag.Get("arm"), ",") {
			if opt == "readonly" {
				f.readonly = true
			} else if v, ok := strings.CutPrefix(opt, "only="); ok {
				f.only = strings.Split(v, "|")
			} else if v, ok := strings.CutPrefix(opt, "since="); ok {
				f.since = v
			}
		}
		out[fold(name)] = f
	}
	return out
}

// Paths are the properties that the struct behind v takes, and those that it
// only shows, each as a path such as networkAcls.ipRules[*].value.
func Paths(v any) []string {
	var out []string
	walk(reflect.TypeOf(v), "", 0, func(path string, _ field) { out = append(out, path) })
	sort.Strings(out)
	return out
}

// Since are those of the paths whose fields are tagged arm:"since=VERSION", each
// with what the tag says.
func Since(v any) map[string]string {
	out := map[string]string{}
	walk(reflect.TypeOf(v), "", 0, func(path string, f field) {
		if f.since != "" {
			out[path] = f.since
		}
	})
	return out
}

// ReadOnly are the properties that the struct behind v only shows.
func ReadOnly(v any) (out []string) {
	for _, f := range fields(reflect.TypeOf(v).Elem()) {
		if f.readonly {
			out = append(out, f.name)
		}
	}
	sort.Strings(out)
	return out
}

// walk calls do for all properties of t: for elements of lists with no field.
func walk(t reflect.Type, at string, depth int, do func(path string, f field)) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case depth > 8: // a type that holds itself
	case t.Kind() == reflect.Slice && t.Elem().Kind() != reflect.Uint8:
		do(at+"[*]", field{})
		walk(t.Elem(), at+"[*]", depth+1, do)
	case t.Kind() == reflect.Struct && !opaque(t):
		for _, f := range fields(t) {
			do(join(at, f.name), f)
			walk(f.typ, join(at, f.name), depth+1, do)
		}
	}
}
