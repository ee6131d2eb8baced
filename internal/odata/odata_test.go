package odata

import (
	"encoding/json"
	"errors"
	"testing"
	"time"
)

func wantUnsupported(t *testing.T, text string, err error) {
	t.Helper()
	var u *Unsupported
	if !errors.As(err, &u) {
		t.Errorf("%q: %v; want that it is not supported", text, err)
	}
}

// Values of all kinds are compared by what they are.
func TestFilter(t *testing.T) {
	m := map[string]any{
		"n": 7, "f": 1.5, "text": "1", "yes": true, "none": nil, "list": []string{"Group1", "x"}, "any": []any{"Y", 3}, "in": map[string]any{"deep": "A"},
		"at": time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
	}
	for f, want := range map[string]bool{
		"n gt 6": true, "n lt 10": true, "n eq 7.0": true, "f ge 1.5": true, "text eq '1'": true, "text eq '1.0'": false, "text eq '01'": false, "yes eq true": true,
		"none eq null": true, "n eq null": false, "n ne null": true, "none eq 'x'": false, "none ne 'x'": true, "'group1' IN list": true, "'group2' in list": false, "'y' in any": true,
		"at gt 2026-01-02T03:04:05Z": true, "at lt 2026-01-02T03:04:06Z": true, "at lt '2026-01-02T05:04:06+01:00'": true, "contains(text,'1')": true, "IN/DEEP eq 'a'": true,
		"yes eq false or (n eq 7 and not (text eq '2'))": true,
	} {
		match, err := ParseFilter(f)
		if err != nil {
			t.Errorf("%q: %v", f, err)
			continue
		}
		if got, err := match(m); err != nil || got != want {
			t.Errorf("%q = %v, %v; want %v", f, got, err, want)
		}
	}
	for _, f := range []string{"'a' in", "'a' in 'b'", "'a' in (list)", "n eq null null", "n gt null", "contains(n)", "n add 1 eq 8", "1 eq 1"} {
		_, err := ParseFilter(f)
		wantUnsupported(t, f, err)
	}
	match, _ := ParseFilter("missing eq 1")
	_, err := match(m)
	wantUnsupported(t, "missing", err)
}

func TestApply(t *testing.T) {
	rows := func() []map[string]any {
		return []map[string]any{
			{"who": "a", "what": "x", "n": 1}, {"who": "A", "what": "y", "n": 2}, {"who": "b", "what": "x", "n": 4}, {"who": "b", "what": "x", "n": 5},
		}
	}
	for text, want := range map[string]string{
		"":                         `[{"n":1,"what":"x","who":"a"},{"n":2,"what":"y","who":"A"},{"n":4,"what":"x","who":"b"},{"n":5,"what":"x","who":"b"}]`,
		"aggregate($count as Num)": `[{"Num":4}]`,
		"aggregate(n with sum as s, N with average as a, n with min as lo, n with max as hi, who with countdistinct as d)": `[{"a":3,"d":2,"hi":5,"lo":1,"s":12}]`,
		"groupby((WHO))": `[{"who":"a"},{"who":"b"}]`,
		"groupby((Who, what), aggregate($count as Num))":                `[{"Num":1,"what":"x","who":"a"},{"Num":1,"what":"y","who":"A"},{"Num":2,"what":"x","who":"b"}]`,
		"groupby((who,what))/groupby((who),aggregate($count as kinds))": `[{"kinds":2,"who":"a"},{"kinds":1,"who":"b"}]`,
		"filter(n gt 1) / groupby((who),aggregate($count as c))":        `[{"c":1,"who":"A"},{"c":2,"who":"b"}]`,
		"filter(n gt 9)/aggregate($count as c, n with average as a)":    `[{"a":null,"c":0}]`,
	} {
		apply, err := ParseApply(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		out, err := apply(rows())
		got, _ := json.Marshal(out)
		if err != nil || string(got) != want {
			t.Errorf("%q = %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"x", "groupby()", "groupby(())", "groupby((a)", "groupby(a)", "groupby((a),)", "groupby((a),aggregate())", "aggregate()", "aggregate($count)", "aggregate($count as )", "aggregate(n with median as m)",
		"aggregate($count as c)/", "aggregate($count as c)groupby((c))", "/aggregate($count as c)", "filter(n)", "concat(x)", "groupby((a b))"} {
		_, err := ParseApply(text)
		wantUnsupported(t, text, err)
	}
	for _, text := range []string{"groupby((missing))", "aggregate(missing with sum as s)", "aggregate(who with sum as s)", "groupby((who),aggregate($count as WHO))", "aggregate($count as c, $count as C)"} {
		apply, err := ParseApply(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		_, err = apply(rows())
		wantUnsupported(t, text, err)
	}
}

// No text ends the program, and what is read can be asked.
func FuzzOData(f *testing.F) {
	for _, s := range []string{"a eq 'b' and not (n gt 1)", "'x' in list", "groupby((a),aggregate($count as c))/filter(c gt 1)", "list/any(x:x eq '1')"} {
		f.Add(s)
	}
	row := map[string]any{"a": "b", "n": 1, "list": []any{"1"}, "none": nil}
	f.Fuzz(func(_ *testing.T, text string) {
		if m, err := ParseFilter(text); err == nil {
			_, _ = m(row)
		}
		if a, err := ParseApply(text); err == nil {
			_, _ = a([]map[string]any{row, row})
		}
	})
}
