package tracking

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"castellan/internal/arm"
)

// maxBody is the most bytes of a request's JSON: a full batch with long values.
const maxBody = 8 << 20

func bad(format string, args ...any) *arm.Error { return arm.Errorf(invalid, format, args...) }

// input is what a request says, from its JSON body or its query, read field by
// field. What nobody asked for is refused in the end, by name: what the
// platform does not know it does not promise. The first error stands.
type input struct {
	tree map[string]any
	used map[string]bool
	err  error

	path, agent string   // of the request, for answers that say where things are
	behind      []string // the segments of the path behind the workspace
}

// body is a request's body that was read once, with its tree.
type body struct {
	io.Reader
	tree map[string]any
	err  error
}

func (body) Close() error { return nil }

// read is the request's input. The body is read at most once: whoever locates
// the target and the verb see the same tree.
func read(r *http.Request) *input {
	if r.Method == http.MethodGet {
		return newInput(queryTree(r.URL.RawQuery))
	}
	b, ok := r.Body.(*body)
	if !ok {
		b = &body{Reader: http.NoBody}
		b.tree, b.err = parseBody(r.Body)
		r.Body = b
	}
	return newInput(b.tree, b.err)
}

func newInput(tree map[string]any, err error) *input {
	return &input{tree: tree, used: make(map[string]bool, len(tree)), err: err}
}

func parseBody(r io.Reader) (map[string]any, error) {
	if r == nil {
		return nil, nil
	}
	data, err := io.ReadAll(io.LimitReader(r, maxBody+1))
	switch {
	case err != nil:
		return nil, &arm.Error{Code: arm.BadRequest, Message: "the request body could not be read", Err: err}
	case len(data) > maxBody:
		return nil, arm.Errorf(arm.TooLarge, "the request body is larger than %d bytes", maxBody)
	case len(data) == 0:
		return nil, nil
	}
	v, err := arm.ParseJSON(data)
	if err != nil {
		return nil, err
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, bad("the request body must be a JSON object")
	}
	return m, nil
}

// queryTree is a query as a tree: every value is a list of texts.
func queryTree(raw string) (map[string]any, error) {
	q, err := url.ParseQuery(raw)
	if err != nil {
		return nil, bad("the query is malformed")
	}
	out := make(map[string]any, len(q))
	for k, v := range q {
		list := make([]any, len(v))
		for i, s := range v {
			list[i] = s
		}
		out[k] = list
	}
	return out, nil
}

func (in *input) fail(format string, args ...any) {
	if in.err == nil {
		in.err = bad(format, args...)
	}
}

func (in *input) any(name string) any {
	in.used[name] = true
	return in.tree[name]
}

// one is the value of name where a single one is meant.
func (in *input) one(name string) any {
	v := in.any(name)
	list, ok := v.([]any)
	if !ok {
		return v
	}
	if len(list) != 1 {
		in.fail("%s is given %d times; it must be given once", name, len(list))
		return nil
	}
	return list[0]
}

func (in *input) text(name string) string {
	switch v := in.one(name).(type) {
	case nil:
		return ""
	case string:
		return v
	case json.Number: // an experiment's id, as some clients write it
		return v.String()
	}
	in.fail("%s must be a string", name)
	return ""
}

// must is a text that has to be there.
func (in *input) must(name string) string {
	s := in.text(name)
	if s == "" {
		in.fail("Missing value for required parameter '%s'.", name)
	}
	return s
}

// either is the text of the first name that has one: old clients say run_uuid.
func (in *input) either(names ...string) string {
	out := ""
	for _, n := range names {
		if s := in.text(n); s != "" && out == "" {
			out = s
		} else if s != "" && s != out {
			in.fail("%s is '%s', but %s is '%s'", n, s, names[0], out)
		}
	}
	return out
}

func (in *input) has(name string) bool { return in.tree[name] != nil }

// integer is a whole number, which JSON of protocol buffers may write as a string.
func (in *input) integer(name string, def int64) int64 {
	var s string
	switch v := in.one(name).(type) {
	case nil:
		return def
	case string:
		s = v
	case json.Number:
		s = v.String()
	default:
		in.fail("%s must be an integer", name)
		return def
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		f, ferr := strconv.ParseFloat(s, 64)
		if ferr != nil || f != math.Trunc(f) || math.Abs(f) >= 1<<63 {
			in.fail("%s is '%s'; it must be an integer of 64 bits", name, clip(s))
			return def
		}
		n = int64(f)
	}
	return n
}

func (in *input) flag(name string) bool {
	switch v := in.one(name).(type) {
	case nil:
		return false
	case bool:
		return v
	case string:
		if b, err := strconv.ParseBool(v); err == nil {
			return b
		}
	}
	in.fail("%s must be true or false", name)
	return false
}

// number is a double; NaN and the infinities are strings in JSON.
func (in *input) number(name string) float64 {
	switch v := in.one(name).(type) {
	case nil:
		in.fail("Missing value for required parameter '%s'.", name)
	case json.Number:
		if f, err := v.Float64(); err == nil {
			return f
		}
		in.fail("%s is out of range", name)
	case string:
		switch v {
		case "NaN":
			return math.NaN()
		case "Infinity", "inf":
			return math.Inf(1)
		case "-Infinity", "-inf":
			return math.Inf(-1)
		}
		if f, err := strconv.ParseFloat(v, 64); err == nil && !math.IsNaN(f) && !math.IsInf(f, 0) {
			return f
		}
		in.fail("%s is '%s'; it must be a number, \"NaN\", \"Infinity\" or \"-Infinity\"", name, clip(v))
	default:
		in.fail("%s must be a number", name)
	}
	return 0
}

func (in *input) texts(name string) []string {
	v := in.any(name)
	if v == nil {
		return nil
	}
	list, ok := v.([]any)
	if !ok {
		in.fail("%s must be a list of strings", name)
		return nil
	}
	out := make([]string, 0, len(list))
	for _, x := range list {
		switch x := x.(type) {
		case string:
			out = append(out, x)
		case json.Number:
			out = append(out, x.String())
		default:
			in.fail("%s must be a list of strings", name)
			return nil
		}
	}
	return out
}

// each calls f with every object of a list of at most limit.
func (in *input) each(name string, limit int, f func(*input)) {
	v := in.any(name)
	if v == nil || in.err != nil {
		return
	}
	list, ok := v.([]any)
	if !ok {
		in.fail("%s must be a list of objects", name)
		return
	}
	if len(list) > limit {
		in.fail("A request can contain at most %d %s. Got %d.", limit, name, len(list))
		return
	}
	for i, x := range list {
		in.object(name+"["+strconv.Itoa(i)+"]", x, f)
	}
}

func (in *input) object(name string, x any, f func(*input)) {
	m, ok := x.(map[string]any)
	if !ok {
		in.fail("%s must be an object", name)
		return
	}
	if in.err != nil {
		return
	}
	sub := newInput(m, nil)
	f(sub)
	if err := sub.done(); err != nil {
		var e *arm.Error
		if errors.As(err, &e) {
			err = bad("%s: %s", name, e.Message)
		}
		in.err = err
	}
}

// pairs is a list of {key, value} objects.
func (in *input) pairs(name string, limit int) []pair {
	var out []pair
	in.each(name, limit, func(in *input) { out = append(out, pair{in.must("key"), in.text("value")}) })
	return out
}

// strings is an object whose values are texts.
func (in *input) strings(name string) map[string]string {
	v := in.any(name)
	if v == nil {
		return nil
	}
	m, ok := v.(map[string]any)
	if !ok {
		in.fail("%s must be an object of strings", name)
		return nil
	}
	out := make(map[string]string, len(m))
	for k, x := range m {
		s, ok := x.(string)
		if !ok && x != nil {
			in.fail("%s.%s must be a string", name, k)
			return nil
		}
		out[k] = s
	}
	return out
}

// ignore names fields that change nothing here.
func (in *input) ignore(names ...string) {
	for _, n := range names {
		in.used[n] = true
	}
}

// unescape decodes one segment of a path, which the router has found well formed.
func unescape(seg string) string {
	if s, err := url.PathUnescape(seg); err == nil {
		return s
	}
	return ""
}

// done is the first error: also that of a field that nobody knows.
func (in *input) done() error {
	if in.err != nil {
		return in.err
	}
	for _, k := range slices.Sorted(maps.Keys(in.tree)) {
		if !in.used[k] && in.tree[k] != nil {
			return bad("The parameter '%s' is not supported here; supported: %s.", clip(k), strings.Join(slices.Sorted(maps.Keys(in.used)), ", "))
		}
	}
	return nil
}

// clip shortens what a caller sent for a message.
func clip(s string) string {
	if len(s) <= 100 {
		return s
	}
	return strings.ToValidUTF8(s[:100], "") + "..."
}
