package compliance

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/odata"
)

// query is the OData options of a query of PolicyInsights.
type query struct {
	top     int // of all pages
	skip    int // what pages before this one had
	from    time.Time
	to      time.Time
	match   odata.Matcher
	apply   odata.Apply
	details bool  // $expand=PolicyEvaluationDetails
	parts   *part // $expand=components; nil shows none
	choose  []string
	order   []order
}

// part is what of each row's components is shown.
type part struct {
	match odata.Matcher
	apply odata.Apply
}

type order struct {
	name string
	down bool
}

// pageOf is how many rows one answer has.
const pageOf = 1000

const options = "$top, $from, $to, $filter, $apply, $select, $orderby, $expand, $skiptoken"

func readQuery(r *http.Request) (q query, err error) {
	v := url.Values{}
	for name, given := range r.URL.Query() {
		name = strings.ToLower(name)
		if name != "api-version" && !slices.Contains(strings.Split(options, ", "), name) || len(given) > 1 || v.Has(name) {
			return q, arm.Errorf(arm.BadRequest, "the query option %q is not supported, or there twice; supported: %s", name, options)
		}
		v[name] = given
	}
	q.top = 10_000
	if t := v.Get("$top"); t != "" {
		if q.top, err = strconv.Atoi(t); err != nil || q.top < 1 {
			return q, arm.Errorf(arm.BadRequest, "$top is %q; it must be a whole number above 0", t)
		}
	}
	if t := v.Get("$skiptoken"); t != "" {
		b, err := base64.RawURLEncoding.DecodeString(t)
		if q.skip, _ = strconv.Atoi(string(b)); err != nil || q.skip < 1 || q.skip >= q.top {
			return q, arm.Errorf(arm.BadRequest, "the $skiptoken is not one that a nextLink gave")
		}
	}
	for name, to := range map[string]*time.Time{"$from": &q.from, "$to": &q.to} {
		if t := v.Get(name); t != "" {
			if *to, err = time.Parse(time.RFC3339, t); err != nil {
				return q, arm.Errorf(arm.BadRequest, "%s is %q; it must be a time such as 2026-01-31T08:00:00Z", name, t)
			}
		}
	}
	q.choose = list(v.Get("$select"))
	for _, t := range list(v.Get("$orderby")) {
		name, dir, _ := strings.Cut(t, " ")
		if dir = strings.ToLower(strings.TrimSpace(dir)); dir != "" && dir != "asc" && dir != "desc" {
			return q, arm.Errorf(arm.BadRequest, "$orderby has %q; it must be names, each with asc or desc behind it or nothing", t)
		}
		q.order = append(q.order, order{name, dir == "desc"})
	}
	if q.match, err = odata.ParseFilter(v.Get("$filter")); err != nil {
		return q, badOption(err)
	}
	if q.apply, err = odata.ParseApply(v.Get("$apply")); err != nil {
		return q, badOption(err)
	}
	return q, q.expand(v.Get("$expand"))
}

// list are the items of a list with commas.
func list(text string) (out []string) {
	for x := range strings.SplitSeq(text, ",") {
		if x = strings.TrimSpace(x); x != "" {
			out = append(out, x)
		}
	}
	return out
}

// expand reads $expand: PolicyEvaluationDetails, or components, perhaps with
// ($filter=...;$apply=...).
func (q *query) expand(text string) (err error) {
	bad := arm.Errorf(arm.BadRequest, "$expand is %.200q; supported: PolicyEvaluationDetails, components, components($filter=...;$apply=...)", text)
	name, rest, nested := strings.Cut(text, "(")
	switch {
	case text == "":
		return nil
	case strings.EqualFold(text, "PolicyEvaluationDetails"):
		q.details = true
		return nil
	case !strings.EqualFold(name, "components"):
		return bad
	}
	q.parts = &part{}
	texts := map[string]string{}
	if nested {
		inner, ok := strings.CutSuffix(rest, ")")
		for opt := range strings.SplitSeq(inner, ";") {
			n, v, ok2 := strings.Cut(opt, "=")
			if n = strings.ToLower(strings.TrimSpace(n)); n != "$filter" && n != "$apply" || texts[n] != "" {
				ok = false
			}
			texts[n], ok = v, ok && ok2
		}
		if !ok {
			return bad
		}
	}
	if q.parts.match, err = odata.ParseFilter(texts["$filter"]); err != nil {
		return badOption(err)
	}
	if q.parts.apply, err = odata.ParseApply(texts["$apply"]); err != nil {
		return badOption(err)
	}
	return nil
}

// badOption words what is wrong with an option.
func badOption(err error) error {
	return &arm.Error{Code: arm.BadRequest, Message: "The query is not valid: " + err.Error() + ".", Err: err}
}

// shown are the rows that are meant, as they are meant. A name that no row has is an error.
func (q query) shown(rows []map[string]any) (_ []map[string]any, err error) {
	for _, r := range rows {
		if q.parts == nil {
			delete(r, "components")
		} else if r["components"], err = q.parts.of(r["components"]); err != nil {
			return nil, badOption(err)
		}
	}
	if rows, err = odata.Keep(rows, q.match); err != nil {
		return nil, badOption(err)
	}
	if rows, err = q.apply(rows); err != nil {
		return nil, badOption(err)
	}
	names := slices.Clone(q.choose)
	for _, o := range q.order {
		names = append(names, o.name)
	}
	for _, n := range names {
		if len(rows) > 0 {
			if _, ok := odata.Value(rows[0], n); !ok {
				return nil, arm.Errorf(arm.BadRequest, "there is no property %q", n)
			}
		}
	}
	slices.SortStableFunc(rows, func(a, b map[string]any) int {
		for _, o := range q.order {
			x, _ := odata.Value(a, o.name)
			y, _ := odata.Value(b, o.name)
			if c := odata.Compare(x, y); c != 0 && o.down {
				return -c
			} else if c != 0 {
				return c
			}
		}
		return 0
	})
	return rows, nil
}

// of are the components that are meant.
func (p *part) of(v any) (any, error) {
	var rows []map[string]any
	all, _ := v.([]any)
	for _, c := range all {
		if m, ok := c.(map[string]any); ok {
			rows = append(rows, m)
		}
	}
	rows, err := odata.Keep(rows, p.match)
	if err != nil {
		return nil, err
	}
	if rows, err = p.apply(rows); rows == nil {
		rows = []map[string]any{}
	}
	return rows, err
}

// answer writes a page of the rows that are meant. Rows are found anew for each
// page: what changed in between may be missing, or be there twice.
func (q query) answer(w http.ResponseWriter, r *http.Request, site arm.Site, rows []map[string]any) error {
	rows, err := q.shown(rows)
	if err != nil {
		return err
	}
	rows = rows[min(q.skip, len(rows)):min(q.top, len(rows))]
	next := any(nil)
	if len(rows) > pageOf {
		rows = rows[:pageOf]
		v := r.URL.Query()
		for name := range v {
			if strings.EqualFold(name, "$skiptoken") {
				v.Del(name)
			}
		}
		v.Set("$skiptoken", base64.RawURLEncoding.EncodeToString([]byte(strconv.Itoa(q.skip+pageOf))))
		next = site.Base() + r.URL.EscapedPath() + "?" + v.Encode()
	}
	segs := strings.Split(r.URL.EscapedPath(), "/") // .../policyStates/latest/queryResults
	n := len(segs)
	context := site.Base() + strings.Join(segs[:n-2], "/") + "/$metadata#" + segs[n-2]
	out := []any{}
	for _, row := range rows {
		shown := row
		if len(q.choose) > 0 {
			shown = map[string]any{}
			for _, name := range q.choose {
				k, _ := odata.Name(row, name)
				shown[k] = row[k]
			}
		}
		shown["@odata.id"], shown["@odata.context"] = nil, context+"/$entity"
		out = append(out, shown)
	}
	gate.WriteJSON(w, http.StatusOK, map[string]any{"@odata.context": context, "@odata.count": len(out), "@odata.nextLink": next, "value": out})
	return nil
}
