package tracking

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"
)

func sortedKeys[V any](m map[string]V) string {
	return strings.Join(slices.Sorted(maps.Keys(m)), ", ")
}

func sortPairs(p []pair) {
	slices.SortFunc(p, func(a, b pair) int { return cmp.Compare(a.Key, b.Key) })
}

func (q query) matches(t thing) bool {
	for _, c := range q.clauses {
		if !c.holds(t) {
			return false
		}
	}
	return true
}

// holds reports whether a value of t fits. What t does not have fits nothing,
// also not !=.
func (c clause) holds(t thing) bool {
	have := t.values(c.kind, c.key)
	switch c.op {
	case "IS NULL":
		return len(have) == 0
	case "IS NOT NULL":
		return len(have) > 0
	}
	for _, v := range have {
		if c.fits(v) {
			return true
		}
	}
	return false
}

func (c clause) fits(v value) bool {
	switch c.op {
	case "IN":
		return slices.Contains(c.list, v.text)
	case "NOT IN":
		return !slices.Contains(c.list, v.text)
	case "LIKE":
		return like([]rune(v.text), []rune(c.want.text))
	case "ILIKE":
		return like([]rune(strings.ToLower(v.text)), []rune(strings.ToLower(c.want.text)))
	}
	if v.isNum != c.want.isNum {
		return false
	}
	if v.isNum && (math.IsNaN(v.num) || math.IsNaN(c.want.num)) {
		return c.op == "!="
	}
	n := compare(v, c.want)
	switch c.op {
	case "=":
		return n == 0
	case "!=":
		return n != 0
	case "<":
		return n < 0
	case "<=":
		return n <= 0
	case ">":
		return n > 0
	case ">=":
		return n >= 0
	}
	return false
}

func compare(a, b value) int {
	switch {
	case a.isInt && b.isInt:
		return cmp.Compare(a.integer, b.integer)
	case a.isNum:
		return cmp.Compare(a.num, b.num)
	}
	return strings.Compare(a.text, b.text)
}

// like holds s against a pattern in which % is any text and _ any character,
// in time proportional to the product of their lengths at most.
func like(s, pattern []rune) bool {
	i, j, star, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case j < len(pattern) && pattern[j] == '%':
			star, mark = j, i
			j++
		case j < len(pattern) && (pattern[j] == '_' || pattern[j] == s[i]):
			i++
			j++
		case star >= 0:
			mark++
			i, j = mark, star+1
		default:
			return false
		}
	}
	for j < len(pattern) && pattern[j] == '%' {
		j++
	}
	return j == len(pattern)
}

// less orders two lists of keys; each key is what a thing has for a term, or
// nil. NaN comes after every number and nil after that, whatever the direction.
func (q query) less(a, b []*value) int {
	for i, t := range q.order {
		n := last(a[i]) - last(b[i])
		if n == 0 && a[i] != nil && !(a[i].isNum && math.IsNaN(a[i].num)) {
			if n = compare(*a[i], *b[i]); t.desc {
				n = -n
			}
		}
		if n != 0 {
			return n
		}
	}
	return 0
}

func last(v *value) int {
	switch {
	case v == nil:
		return 2
	case v.isNum && math.IsNaN(v.num):
		return 1
	}
	return 0
}

// keys are what t has for the terms of the order.
func (q query) keys(t thing) []*value {
	out := make([]*value, len(q.order))
	for i, o := range q.order {
		if v := t.values(o.kind, o.key); len(v) > 0 {
			out[i] = &v[0]
		}
	}
	return out
}

// sortBy puts things into the query's order.
func sortBy[T thing](q query, things []T) {
	type row struct {
		keys []*value
		t    T
	}
	rows := make([]row, len(things))
	for i, t := range things {
		rows[i] = row{q.keys(t), t}
	}
	slices.SortStableFunc(rows, func(a, b row) int { return q.less(a.keys, b.keys) })
	for i, r := range rows {
		things[i] = r.t
	}
}

// oneText is values of a text, if there is one.
func oneText(s string, ok bool) []value {
	if !ok {
		return nil
	}
	return []value{textValue(s)}
}

var experimentGrammar = grammar{
	kinds: map[string]string{"attribute": "attribute", "attributes": "attribute", "attr": "attribute", "tag": "tag", "tags": "tag"},
	attributes: map[string]field{
		"name": {}, "experiment_id": {}, "creation_time": {numeric: true}, "last_update_time": {numeric: true},
	},
	tail: []term{{"attribute", "last_update_time", true}, {"attribute", "experiment_id", false}},
}

func (e experiment) values(kind, key string) []value {
	if kind == "tag" {
		v, ok := e.Tags[key]
		return oneText(v, ok)
	}
	switch key {
	case "name":
		return []value{textValue(e.Name)}
	case "experiment_id":
		return []value{textValue(e.ID)}
	case "creation_time":
		return []value{intValue(e.Created)}
	case "last_update_time":
		return []value{intValue(e.Updated)}
	}
	return nil
}
