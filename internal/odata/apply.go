package odata

import (
	"fmt"
	"slices"
	"strings"
)

// Apply makes other rows of rows: groups, and sums of them. Its error is an
// *Unsupported.
type Apply func(rows []map[string]any) ([]map[string]any, error)

// ParseApply reads a $apply: filter(FILTER), groupby((NAME,...)), groupby((NAME,...),
// aggregate(...)) and aggregate($count as NAME, PROPERTY with sum as NAME, also with
// min, max, average and countdistinct), joined by slashes. The empty one changes nothing.
func ParseApply(text string) (Apply, error) {
	if strings.TrimSpace(text) == "" {
		return func(rows []map[string]any) ([]map[string]any, error) { return rows, nil }, nil
	}
	return read(text, (*parser).steps)
}

func (p *parser) steps() (Apply, error) {
	var steps []Apply
	for sign := ""; ; sign = "/" {
		name, ok := strings.CutPrefix(strings.ToLower(p.take()), sign)
		if ok && name == "" && sign != "" {
			name = strings.ToLower(p.take()) // the slash stood alone
		}
		if !ok {
			return nil, p.wrong()
		}
		if err := p.want("("); err != nil {
			return nil, err
		}
		step, err := p.step(name)
		if err != nil {
			return nil, err
		}
		if err := p.want(")"); err != nil {
			return nil, err
		}
		steps = append(steps, step)
		if !strings.HasPrefix(p.peek(), "/") {
			break
		}
	}
	return func(rows []map[string]any) (_ []map[string]any, err error) {
		for _, s := range steps {
			if rows, err = s(rows); err != nil {
				return nil, err
			}
		}
		return rows, nil
	}, nil
}

// step reads what stands in the parentheses of one transformation.
func (p *parser) step(name string) (Apply, error) {
	switch name {
	case "filter":
		m, err := p.either()
		return func(rows []map[string]any) ([]map[string]any, error) { return Keep(rows, m) }, err
	case "aggregate":
		sums, err := p.sums()
		return func(rows []map[string]any) ([]map[string]any, error) {
			one, err := sums.of(rows, map[string]any{}, p)
			return []map[string]any{one}, err
		}, err
	case "groupby":
		return p.groups()
	}
	return nil, p.wrong()
}

// Keep are those of the rows that m means.
func Keep(rows []map[string]any, m Matcher) (out []map[string]any, err error) {
	for _, r := range rows {
		ok, err := m(r)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, r)
		}
	}
	return out, nil
}

func (p *parser) groups() (Apply, error) {
	if err := p.want("("); err != nil {
		return nil, err
	}
	var by []string
	for sign := ","; sign == ","; sign = p.take() {
		name := p.take()
		if !isName(name) {
			return nil, p.wrong()
		}
		by = append(by, name)
		if s := p.peek(); s != "," && s != ")" {
			return nil, p.wrong()
		}
	}
	var sums sums
	if p.peek() == "," {
		p.at++
		if err := p.want("aggregate", "("); err != nil {
			return nil, err
		}
		var err error
		if sums, err = p.sums(); err != nil {
			return nil, err
		}
		if err := p.want(")"); err != nil {
			return nil, err
		}
	}
	return func(rows []map[string]any) (out []map[string]any, err error) {
		type group struct {
			row  map[string]any
			rows []map[string]any
		}
		found := map[string]*group{}
		var order []*group
		for _, r := range rows {
			g := &group{row: map[string]any{}}
			key := ""
			for _, n := range by {
				k, ok := Name(r, n)
				if !ok {
					return nil, p.wrong()
				}
				g.row[k] = r[k]
				key += fmt.Sprintf("%q", fold(fmt.Sprint(r[k])))
			}
			if found[key] == nil {
				found[key] = g
				order = append(order, g)
			}
			found[key].rows = append(found[key].rows, r)
		}
		for _, g := range order {
			if _, err := sums.of(g.rows, g.row, p); err != nil {
				return nil, err
			}
			out = append(out, g.row)
		}
		return out, nil
	}, nil
}

// sums are what is worked out of rows.
type sums []sum

type sum struct {
	of, with, as string // of is "" to count rows
}

var methods = []string{"sum", "min", "max", "average", "countdistinct"}

func (p *parser) sums() (out sums, err error) {
	for sign := ","; sign == ","; {
		var x sum
		if name := p.take(); !strings.EqualFold(name, "$count") {
			if x.of = name; !isName(name) {
				return nil, p.wrong()
			}
			if err := p.want("with"); err != nil {
				return nil, err
			}
			if x.with = strings.ToLower(p.take()); !slices.Contains(methods, x.with) {
				return nil, p.wrong()
			}
		}
		if err := p.want("as"); err != nil {
			return nil, err
		}
		if x.as = p.take(); !isName(x.as) {
			return nil, p.wrong()
		}
		out = append(out, x)
		if sign = p.peek(); sign == "," {
			p.at++
		}
	}
	return out, nil
}

// of adds the sums of rows to row.
func (all sums) of(rows []map[string]any, row map[string]any, p *parser) (map[string]any, error) {
	for _, x := range all {
		if _, taken := Name(row, x.as); taken {
			return nil, p.wrong()
		}
		if x.of == "" {
			row[x.as] = len(rows)
			continue
		}
		v, err := x.work(rows, p)
		if err != nil {
			return nil, err
		}
		row[x.as] = v
	}
	return row, nil
}

func (x sum) work(rows []map[string]any, p *parser) (any, error) {
	var best any
	total, distinct := 0.0, map[string]bool{}
	for i, r := range rows {
		v, ok := Value(r, x.of)
		if !ok {
			return nil, p.wrong()
		}
		distinct[fold(fmt.Sprint(v))] = true
		n, isNumber := number(v)
		total += n
		switch x.with {
		case "sum", "average":
			if !isNumber {
				return nil, p.wrong()
			}
		case "min", "max":
			if c := Compare(v, best); i == 0 || x.with == "min" && c < 0 || x.with == "max" && c > 0 {
				best = v
			}
		}
	}
	switch x.with {
	case "countdistinct":
		return len(distinct), nil
	case "sum":
		return total, nil
	case "average":
		if len(rows) == 0 {
			return nil, nil
		}
		return total / float64(len(rows)), nil
	}
	return best, nil
}

func number(v any) (float64, bool) {
	switch n := v.(type) {
	case int:
		return float64(n), true
	case int64:
		return float64(n), true
	case float64:
		return n, true
	}
	return 0, false
}
