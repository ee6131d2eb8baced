package policy

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// function is one that policy rules have beside those of templates.
type function struct {
	later bool // it speaks of the resource, of the request or of the time
	least int
	most  int
	do    func(r *run, a []any) (any, error)
}

var functions map[string]function

func init() {
	functions = map[string]function{
		"parameters":      {false, 1, 1, parameter},
		"field":           {true, 1, 1, fieldValue},
		"current":         {true, 0, 1, current},
		"requestcontext":  {true, 0, 0, func(r *run, _ []any) (any, error) { return map[string]any{"apiVersion": r.in.APIVersion}, nil }},
		"subscription":    {true, 0, 0, func(r *run, _ []any) (any, error) { return place(r.in.Subscription, "subscription") }},
		"resourcegroup":   {true, 0, 0, func(r *run, _ []any) (any, error) { return place(r.in.Group, "resource group") }},
		"policy":          {true, 0, 0, itself},
		"utcnow":          {true, 0, 0, func(r *run, _ []any) (any, error) { return stamp(r.in.Now), nil }},
		"adddays":         {false, 2, 3, addDays},
		"datetimetoepoch": {false, 1, 1, epoch},
		"iprangecontains": {false, 2, 2, ipRangeContains},
		"indexfromend":    {false, 2, 2, func(_ *run, a []any) (any, error) { return fromEnd(a, false) }},
		"tryindexfromend": {false, 2, 2, func(_ *run, a []any) (any, error) { return fromEnd(a, true) }},
		"tryget":          {false, 2, -1, tryGet},
		"equals":          {false, 2, 2, func(_ *run, a []any) (any, error) { return equal(orEmpty(a[0]), orEmpty(a[1])), nil }},
		"float":           {false, 1, 1, toFloat},
	}
}

// call is the functions that an expression has from here.
func (r *run) call(name string, args []any) (any, bool, error) {
	f, ok := functions[name]
	if !ok {
		return nil, false, nil
	}
	if len(args) < f.least || f.most >= 0 && len(args) > f.most {
		return nil, true, invalid("the function %s has %d arguments; it must have %d to %d", name, len(args), f.least, f.most)
	}
	v, err := f.do(r, args)
	return v, true, err
}

func itself(r *run, _ []any) (any, error) {
	if r.in.Policy == nil {
		return map[string]any{}, nil
	}
	return r.in.Policy(), nil
}

// orEmpty takes what is missing for empty text, as Azure's rules expect of equals.
func orEmpty(v any) any {
	if v == nil {
		return ""
	}
	return v
}

func textArgument(a []any, i int) (string, error) {
	s, ok := a[i].(string)
	if !ok {
		return "", invalid("argument %d is %s; it must be a string", i+1, kindOf(a[i]))
	}
	return s, nil
}

func parameter(r *run, a []any) (any, error) {
	name, err := textArgument(a, 0)
	if err != nil {
		return nil, err
	}
	v, ok := lookup(r.params, name)
	if !ok {
		return nil, invalid("the definition has no parameter %q", clip(name))
	}
	return v, nil
}

func fieldValue(r *run, a []any) (any, error) {
	name, err := textArgument(a, 0)
	if err != nil {
		return nil, err
	}
	p, err := parsePath(name)
	if err != nil {
		return nil, err
	}
	return r.collect(&p)
}

// current is the member that a count looks at: of the innermost one, of one by
// its name, or what lies under it.
func current(r *run, a []any) (any, error) {
	if len(r.scopes) == 0 {
		return nil, invalid("current() stands outside of a count")
	}
	if len(a) == 0 {
		return r.scopes[len(r.scopes)-1].value, nil
	}
	name, err := textArgument(a, 0)
	if err != nil {
		return nil, err
	}
	for i := len(r.scopes) - 1; i >= 0; i-- {
		if r.scopes[i].key == name {
			return r.scopes[i].value, nil
		}
	}
	p, err := parsePath(name)
	if err != nil {
		return nil, err
	}
	if at, steps, ok := r.start(&p); ok && p.each > 0 && len(steps) < len(p.steps) {
		var out any
		err := r.walk(at, steps, p.typ != "", func(v any, _ bool) error {
			out = v
			return nil
		})
		return out, err
	}
	return nil, invalid("there is no count of %q around current()", clip(name))
}

func place(m map[string]any, what string) (any, error) {
	if m == nil {
		return nil, invalid("the resource is in no %s", what)
	}
	return m, nil
}

// stamp is a time as utcNow() gives it.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.0000000Z") }

func readTime(v any) (time.Time, error) {
	s, ok := v.(string)
	if !ok {
		return time.Time{}, invalid("a time is %s; it must be a string as of ISO 8601", kindOf(v))
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05Z07:00", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, invalid("%q is no time as of ISO 8601", clip(s))
}

func addDays(_ *run, a []any) (any, error) {
	t, err := readTime(a[0])
	if err != nil {
		return nil, err
	}
	days, ok := a[1].(int64)
	if !ok || days < -3_660_000 || days > 3_660_000 {
		return nil, invalid("argument 2 must be a whole number of days")
	}
	if len(a) > 2 {
		return nil, invalid("addDays takes no format here")
	}
	return stamp(t.AddDate(0, 0, int(days))), nil
}

func epoch(_ *run, a []any) (any, error) {
	t, err := readTime(a[0])
	return t.Unix(), err
}

// ipRangeContains reports whether a range of addresses lies in another: each is
// an address, a prefix, or two addresses with a hyphen.
func ipRangeContains(_ *run, a []any) (any, error) {
	var ends [2][2]netip.Addr
	for i := range ends {
		s, err := textArgument(a, i)
		if err != nil {
			return nil, err
		}
		if ends[i], err = ipRange(s); err != nil {
			return nil, err
		}
	}
	outer, inner := ends[0], ends[1]
	if outer[0].Is4() != inner[0].Is4() {
		return false, nil
	}
	return outer[0].Compare(inner[0]) <= 0 && inner[1].Compare(outer[1]) <= 0, nil
}

func ipRange(s string) (ends [2]netip.Addr, err error) {
	s = strings.TrimSpace(s)
	if from, to, ok := strings.Cut(s, "-"); ok {
		a, errA := netip.ParseAddr(strings.TrimSpace(from))
		b, errB := netip.ParseAddr(strings.TrimSpace(to))
		if errA == nil && errB == nil && a.Is4() == b.Is4() && a.Compare(b) <= 0 {
			return [2]netip.Addr{a, b}, nil
		}
	} else if p, err := netip.ParsePrefix(s); err == nil {
		p = p.Masked()
		last := p.Addr().AsSlice()
		for bit := p.Bits(); bit < len(last)*8; bit++ {
			last[bit/8] |= 0x80 >> (bit % 8)
		}
		end, _ := netip.AddrFromSlice(last)
		return [2]netip.Addr{p.Addr(), end}, nil
	} else if a, err := netip.ParseAddr(s); err == nil {
		return [2]netip.Addr{a, a}, nil
	}
	return ends, invalid("%q is no range of addresses", clip(s))
}

func fromEnd(a []any, try bool) (any, error) {
	members, ok := a[0].([]any)
	i, isInt := a[1].(int64)
	if !ok || !isInt {
		return nil, invalid("the arguments must be an array and a whole number")
	}
	if i < 1 || i > int64(len(members)) {
		if try {
			return nil, nil
		}
		return nil, invalid("an array of %d members has no such one", len(members))
	}
	return members[int64(len(members))-i], nil
}

func tryGet(_ *run, a []any) (any, error) {
	at := a[0]
	for _, key := range a[1:] {
		switch b := at.(type) {
		case map[string]any:
			name, ok := key.(string)
			if !ok {
				return nil, invalid("a property is asked for by %s; it must be a string", kindOf(key))
			}
			at, _ = lookup(b, name)
		case []any:
			i, ok := key.(int64)
			if !ok {
				return nil, invalid("a member of an array is asked for by %s; it must be a whole number", kindOf(key))
			}
			if i < 0 || i >= int64(len(b)) {
				return nil, nil
			}
			at = b[i]
		default:
			return nil, nil
		}
	}
	return at, nil
}

func toFloat(_ *run, a []any) (any, error) {
	switch x := a[0].(type) {
	case float64:
		return x, nil
	case int64:
		return float64(x), nil
	case json.Number:
		return x.Float64()
	case string:
		if f, err := strconv.ParseFloat(x, 64); err == nil {
			return f, nil
		}
	}
	return nil, fmt.Errorf("%s can't be read as a number", kindOf(a[0]))
}
