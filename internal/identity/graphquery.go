package identity

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/odata"
)

// query is what OData's options ask of an answer.
type query struct {
	raw    url.Values
	match  odata.Matcher // $filter and $search
	size   int           // rows of a page
	counts bool          // $count=true
	fields []string
	order  []ordering
	expand []expansion
	after  map[string]string // the last row of the page before, by what rows are ordered by
}

type ordering struct {
	name string
	down bool
}

// expansion is one relation of $expand, with the properties wanted of what it leads to.
type expansion struct {
	name   string
	fields []string
}

// sortable are the properties that lists can be ordered by.
var sortable = []string{"displayName", "userPrincipalName", "mail", "givenName", "surname", "createdDateTime"}

// options are those that there are; clients may write them without the dollar sign.
var options = []string{"$count", "$expand", "$filter", "$orderby", "$search", "$select", "$skiptoken", "$top"}

func unsupported(format string, args ...any) error {
	return &arm.Error{Code: "Request_UnsupportedQuery", Message: arm.Errorf(arm.BadRequest, format, args...).Message}
}

// parseQuery reads the options of a request. Each stands once and means something.
func parseQuery(r *http.Request) (q query, err error) {
	q.raw = url.Values{}
	sent, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return q, arm.Errorf(arm.BadRequest, "The query is malformed.")
	}
	for k, v := range sent {
		name := "$" + strings.ToLower(strings.TrimPrefix(k, "$"))
		if !slices.Contains(options, name) {
			return q, unsupported("The query option %s is not supported; supported are %s.", printable(k), strings.Join(options, ", "))
		}
		if len(v) != 1 || q.raw.Has(name) {
			return q, arm.Errorf(arm.BadRequest, "Query option '%s' was specified more than once, but it must be specified at most once.", name)
		}
		q.raw.Set(name, v[0])
	}
	if q.match, err = parseFilter(q.raw.Get("$filter")); err != nil {
		return q, err
	}
	if q.size, err = pageOf(q.raw.Get("$top")); err != nil {
		return q, err
	}
	eventual := strings.EqualFold(r.Header.Get("ConsistencyLevel"), "eventual")
	if err := q.readCount(eventual); err != nil {
		return q, err
	}
	if err := q.readSearch(eventual); err != nil {
		return q, err
	}
	if q.fields, err = fieldsOf(q.raw.Get("$select")); err != nil {
		return q, err
	}
	if q.order, err = orderOf(q.raw.Get("$orderby")); err != nil {
		return q, err
	}
	q.expand, err = expansionsOf(q.raw.Get("$expand"))
	return q, err
}

func (q *query) readCount(eventual bool) error {
	switch strings.ToLower(q.raw.Get("$count")) {
	case "", "false":
		return nil
	case "true":
		if !eventual {
			return unsupported("$count needs the header 'ConsistencyLevel: eventual'.")
		}
		q.counts = true
		return nil
	}
	return arm.Errorf(arm.BadRequest, "$count is %s; it must be true or false.", printable(q.raw.Get("$count")))
}

func (q *query) readSearch(eventual bool) error {
	text := q.raw.Get("$search")
	if text == "" {
		return nil
	}
	if !eventual {
		return unsupported("Request with $search query parameter only works through MSGraph with a special request header: 'ConsistencyLevel: eventual'.")
	}
	found, err := parseSearch(text)
	if err != nil {
		return err
	}
	q.match = odata.And(q.match, found)
	return nil
}

var fieldForm = regexp.MustCompile(`^@?[A-Za-z][A-Za-z0-9._/]{0,119}$`)

// fieldsOf are the properties that $select names; none means all.
func fieldsOf(text string) (out []string, err error) {
	if text == "" {
		return nil, nil
	}
	for _, f := range strings.Split(text, ",") {
		if f = strings.TrimSpace(f); f == "*" {
			return nil, nil
		}
		if !fieldForm.MatchString(f) {
			return nil, arm.Errorf(arm.BadRequest, "$select has %q, which is no name of a property.", printable(f))
		}
		out = append(out, f)
	}
	return out, nil
}

func orderOf(text string) (out []ordering, err error) {
	if text == "" {
		return nil, nil
	}
	for _, part := range strings.Split(text, ",") {
		words := strings.Fields(part)
		if len(words) == 0 || len(words) > 2 || len(words) == 2 && words[1] != "asc" && words[1] != "desc" {
			return nil, arm.Errorf(arm.BadRequest, "$orderby has %q; it must be PROPERTY, PROPERTY asc or PROPERTY desc.", printable(part))
		}
		at := slices.IndexFunc(sortable, func(s string) bool { return strings.EqualFold(s, words[0]) })
		if at < 0 {
			return nil, unsupported("Sorting not supported for property %s; supported are %s.", printable(words[0]), strings.Join(sortable, ", "))
		}
		out = append(out, ordering{sortable[at], len(words) == 2 && words[1] == "desc"})
	}
	return out, nil
}

var expandForm = regexp.MustCompile(`^([A-Za-z]+)(?:\(\$select=([^()]*)\))?$`)

func expansionsOf(text string) (out []expansion, err error) {
	if text == "" {
		return nil, nil
	}
	depth := 0
	for _, part := range strings.FieldsFunc(text, func(c rune) bool {
		switch c {
		case '(':
			depth++
		case ')':
			depth--
		}
		return c == ',' && depth == 0
	}) {
		m := expandForm.FindStringSubmatch(strings.TrimSpace(part))
		if m == nil {
			return nil, unsupported("$expand has %s; it must be NAME or NAME($select=PROPERTY,PROPERTY).", printable(part))
		}
		fields, err := fieldsOf(m[2])
		if err != nil {
			return nil, err
		}
		out = append(out, expansion{m[1], fields})
	}
	return out, nil
}

var (
	searchable = []string{"displayName", "description", "mail", "userPrincipalName", "givenName", "surname"}
	searchForm = regexp.MustCompile(`^\s*"([A-Za-z]+):([^"]{1,256})"\s*(?:(AND|OR)\b|$)`)
)

// parseSearch makes the matcher of a $search: "NAME:WORDS", joined by AND and
// OR. Each word is the beginning of a word in the property.
func parseSearch(text string) (odata.Matcher, error) {
	bad := unsupported(`The $search %s is not supported. Supported is "NAME:WORDS", in double quotes, joined by AND or by OR, with one of %s.`, printable(text), strings.Join(searchable, ", "))
	var any []odata.Matcher
	var all odata.Matcher
	for rest, joint := text, ""; ; {
		m := searchForm.FindStringSubmatch(rest)
		if m == nil {
			return nil, bad
		}
		at := slices.IndexFunc(searchable, func(s string) bool { return strings.EqualFold(s, m[1]) })
		if at < 0 {
			return nil, bad
		}
		this := searchFor(searchable[at], wordsOf(m[2]))
		switch joint {
		case "AND":
			all = odata.And(all, this)
		default:
			if all != nil {
				any = append(any, all)
			}
			all = this
		}
		rest, joint = rest[len(m[0]):], m[3]
		if joint == "" {
			break
		}
	}
	for _, m := range any {
		all = odata.Or(m, all)
	}
	return all, nil
}

func searchFor(name string, words []string) odata.Matcher {
	return func(m map[string]any) (bool, error) {
		text, _ := m[name].(string)
		has := wordsOf(text)
		for _, w := range words {
			if !slices.ContainsFunc(has, func(x string) bool { return strings.HasPrefix(x, w) }) {
				return false, nil
			}
		}
		return len(words) > 0, nil
	}
}

func wordsOf(text string) []string {
	return strings.FieldsFunc(strings.ToLower(text), func(c rune) bool { return !unicode.IsLetter(c) && !unicode.IsDigit(c) })
}

// key is what a row is ordered by, under its name.
func (q query) key(m map[string]any) map[string]string {
	out := map[string]string{"id": textOf(m["id"])}
	for _, o := range q.order {
		out[o.name] = fold(textOf(m[o.name]))
	}
	return out
}

func textOf(v any) string {
	s, _ := v.(string)
	return s
}

// compare orders two rows by their keys.
func (q query) compare(a, b map[string]string) int {
	for _, o := range q.order {
		if c := strings.Compare(a[o.name], b[o.name]); c != 0 {
			if o.down {
				return -c
			}
			return c
		}
	}
	return cmp.Compare(a["id"], b["id"])
}

// resume reads where the page before ended.
func (q *query) resume() error {
	if !q.raw.Has("$skiptoken") {
		return nil
	}
	b, err := base64.RawURLEncoding.DecodeString(q.raw.Get("$skiptoken"))
	d := json.NewDecoder(bytes.NewReader(b))
	if err != nil || d.Decode(&q.after) != nil || len(q.after) != len(q.key(nil)) {
		return errSkipToken
	}
	for name := range q.key(nil) {
		if _, ok := q.after[name]; !ok {
			return errSkipToken
		}
	}
	return nil
}

// pick is the object with the properties that $select names.
func pick(m map[string]any, fields []string) map[string]any {
	if fields == nil {
		return m
	}
	out := map[string]any{}
	for k, v := range m {
		if strings.HasPrefix(k, "@odata.") || slices.ContainsFunc(fields, func(f string) bool { return strings.EqualFold(f, k) }) {
			out[k] = v
		}
	}
	return out
}

// list answers with those of the objects that the query means, page by page.
func (v *visit) list(class string, all []map[string]any) (answer, error) {
	if err := v.q.resume(); err != nil {
		return answer{}, err
	}
	show, err := v.shape(class, tenantID(v.tenant))
	if err != nil {
		return answer{}, err
	}
	for _, o := range v.q.order {
		if len(all) > 0 && !slices.ContainsFunc(all, func(m map[string]any) bool { _, ok := m[o.name]; return ok }) {
			return answer{}, unsupported("Sorting not supported for property %s of %s.", o.name, class)
		}
	}
	type row struct {
		m   map[string]any
		key map[string]string
	}
	rows := []row{}
	for _, m := range all {
		if v.cast != "" && m["@odata.type"] != v.cast {
			continue
		}
		ok, err := v.q.match(m)
		if err != nil {
			return answer{}, err
		}
		if ok {
			rows = append(rows, row{m, v.q.key(m)})
		}
	}
	if v.counting {
		return answer{http.StatusOK, strconv.Itoa(len(rows))}, nil
	}
	out := map[string]any{"@odata.context": v.context(class)}
	if v.q.counts {
		out["@odata.count"] = len(rows)
	}
	slices.SortFunc(rows, func(a, b row) int { return v.q.compare(a.key, b.key) })
	value := []map[string]any{}
	var last map[string]string
	for _, x := range rows {
		if v.q.after != nil && v.q.compare(x.key, v.q.after) <= 0 {
			continue
		}
		if len(value) == v.q.size {
			out["@odata.nextLink"] = v.nextLink(last)
			break
		}
		m, err := show(x.m)
		if err != nil {
			return answer{}, err
		}
		value, last = append(value, m), x.key
	}
	out["value"] = value
	return answer{http.StatusOK, out}, nil
}

func (v *visit) nextLink(last map[string]string) string {
	b, _ := json.Marshal(last) // a map of texts
	q := url.Values{}
	for k := range v.q.raw {
		q.Set(k, v.q.raw.Get(k))
	}
	q.Set("$skiptoken", base64.RawURLEncoding.EncodeToString(b))
	return "https://" + v.r.Host + v.r.URL.EscapedPath() + "?" + q.Encode()
}

// shape says what of an object of a class is shown: what $expand adds, for which
// the gate is asked about on, and no more than $select names.
func (v *visit) shape(class string, on arm.ID) (func(map[string]any) (map[string]any, error), error) {
	var with []relation
	for _, e := range v.q.expand {
		at := slices.IndexFunc(relationsOf(class), func(x relation) bool { return strings.EqualFold(x.name, e.name) })
		if at < 0 {
			var have []string
			for _, x := range relationsOf(class) {
				have = append(have, x.name)
			}
			return nil, unsupported("$expand of %s is not supported for %s; supported are: %s.", printable(e.name), class, strings.Join(have, ", "))
		}
		x := relationsOf(class)[at]
		if err := v.alsoOn(x.action, on); err != nil {
			return nil, err
		}
		with = append(with, x)
	}
	return func(m map[string]any) (map[string]any, error) {
		out := pick(m, v.q.fields)
		for i, x := range with {
			list, err := x.rows(v, m["id"].(string))
			if err != nil {
				return nil, err
			}
			shown := []map[string]any{}
			for _, o := range list[:min(len(list), maxExpand)] {
				shown = append(shown, pick(o, v.q.expand[i].fields))
			}
			out[x.name] = shown
		}
		return out, nil
	}, nil
}

// maxExpand is how many objects $expand shows of each relation, as at Graph.
const maxExpand = 20

// relation is what $expand can add to an object, and what one must be allowed for it.
type relation struct {
	name   string
	action arm.Action
	rows   func(v *visit, id string) ([]map[string]any, error)
}

func relationsOf(class string) []relation {
	in := relation{"memberOf", readMembers, func(v *visit, id string) ([]map[string]any, error) { return v.groupRows(id, false), nil }}
	owners := relation{"owners", readAppOwners, func(v *visit, id string) ([]map[string]any, error) { return v.ownerRows(id), nil }}
	has := relation{"appRoleAssignments", readAssigned, func(v *visit, id string) ([]map[string]any, error) {
		return v.assignedRows(func(a Assignment) bool { return a.Principal == id })
	}}
	switch class {
	case "users":
		return []relation{has, in}
	case "groups":
		owners.action = readOwners
		members := relation{"members", readMembers, func(v *visit, id string) ([]map[string]any, error) { return v.memberRows(id, false), nil }}
		return []relation{has, in, members, owners}
	case "applications":
		return []relation{owners}
	case "servicePrincipals":
		given := relation{"appRoleAssignedTo", readAssigned, func(v *visit, id string) ([]map[string]any, error) {
			return v.assignedRows(func(a Assignment) bool { return a.Resource == id })
		}}
		return []relation{given, has, in, owners}
	}
	return nil
}

// casts are the kinds of objects that a list of several can be narrowed to.
var casts = []string{"application", "directoryRole", "group", "servicePrincipal", "user"}

// collection is a list, its count below /$count and, where it is of several
// kinds of objects, each kind below its name.
func (s *Service) collection(a arm.Action, pattern string, mixed bool, do func(*visit) (answer, error)) []gate.Route {
	n := strings.Count(pattern, "/") + 1
	narrowed := func(v *visit) (answer, error) {
		for _, seg := range v.path[n:] {
			if strings.EqualFold(seg, "$count") && !v.counting {
				if !strings.EqualFold(v.r.Header.Get("ConsistencyLevel"), "eventual") {
					return answer{}, unsupported("$count needs the header 'ConsistencyLevel: eventual'.")
				}
				v.counting = true
				continue
			}
			name := strings.TrimPrefix(strings.ToLower(seg), "microsoft.")
			at := slices.IndexFunc(casts, func(c string) bool { return name == "graph."+strings.ToLower(c) })
			if at < 0 || v.cast != "" || v.counting {
				return answer{}, arm.Errorf(arm.BadRequest, "Resource not found for the segment '%s'; it may be $count, or microsoft.graph. with one of %s.", printable(seg), strings.Join(casts, ", "))
			}
			v.cast = "#microsoft.graph." + casts[at]
		}
		return do(v)
	}
	out := []gate.Route{s.door(a, "GET "+pattern, do)}
	if !mixed {
		return append(out, s.door(a, "GET "+pattern+"/$count", narrowed))
	}
	return append(out, s.door(a, "GET "+pattern+"/{as}", narrowed), s.door(a, "GET "+pattern+"/{as}/$count", narrowed))
}
