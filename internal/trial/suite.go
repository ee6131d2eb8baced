package trial

import (
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Suite is a file of tests of one policy.
type Suite struct {
	File   *File
	Policy *Policy
	params map[string]any
	cases  []testCase
}

// testCase is one test: a resource, and what must come of it.
type testCase struct {
	name    string
	subject Subject
	params  map[string]any
	expect  []string // the outcome, or exactly these effects
	exact   bool     // expect is effects
	message string   // a part of what an error of a rule must say
	becomes map[string]any
	at      string
}

// Open reads the file of a name that another file gives.
type Open func(name string) (*File, error)

const (
	suiteFields = "policy, definitions, parameters, now, cases"
	caseFields  = "name, resource, parameters, apiVersion, subscription, resourceGroup, related, now, expect, message, becomes"
)

// IsSuite reports whether a file holds tests rather than a policy.
func IsSuite(f *File) bool {
	m, _ := f.Tree.(map[string]any)
	return member(m, "cases") != nil
}

// ReadSuite reads tests. The files that it names are opened by open; definitions
// that they don't have find may have.
func ReadSuite(f *File, open Open, find Find) (*Suite, error) {
	m, ok := f.Tree.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%s holds no object; it must have %s", f.At(""), suiteFields)
	}
	if err := f.only(m, "", suiteFields); err != nil {
		return nil, err
	}
	s := &Suite{File: f}
	more, _ := member(m, "definitions").([]any)
	var files []*File
	for i, x := range more {
		g, err := f.open(x, fmt.Sprintf("definitions[%d]", i), open)
		if err != nil {
			return nil, err
		}
		files = append(files, g)
	}
	pol, err := f.open(member(m, "policy"), "policy", open)
	if err != nil {
		return nil, err
	}
	if s.Policy, err = ReadPolicy(pol, Among(files, find)); err != nil {
		return nil, err
	}
	if s.params, err = f.params(m, ""); err != nil {
		return nil, err
	}
	now, err := f.time(m, "", time.Time{})
	if err != nil {
		return nil, err
	}
	list, ok := member(m, "cases").([]any)
	if !ok || len(list) == 0 {
		return nil, fmt.Errorf("%s: cases must be an array of at least one test", f.At("cases"))
	}
	for i, x := range list {
		c, err := f.testCase(x, fmt.Sprintf("cases[%d]", i), now, open)
		if err != nil {
			return nil, err
		}
		s.cases = append(s.cases, c)
	}
	return s, nil
}

// Among finds definitions in files, by id or by name, and else by find.
func Among(files []*File, find Find) Find {
	return func(id string) (*File, bool) {
		for _, f := range files {
			m, _ := f.Tree.(map[string]any)
			if strings.EqualFold(text(m, "id"), id) || strings.EqualFold(NameOf(f), id[strings.LastIndexByte(id, '/')+1:]) {
				return f, true
			}
		}
		return find(id)
	}
}

// only refuses what is not among the fields.
func (f *File) only(m map[string]any, at, fields string) error {
	for k := range m {
		if !slices.ContainsFunc(strings.Split(fields, ", "), func(s string) bool { return strings.EqualFold(s, k) }) {
			part := strings.TrimPrefix(at+"."+k, ".")
			return fmt.Errorf("%s: there is no %q here; there are %s", f.At(part), k, fields)
		}
	}
	return nil
}

// open is the file that a value names, or the value itself where it is an object.
func (f *File) open(v any, part string, open Open) (*File, error) {
	switch x := v.(type) {
	case string:
		g, err := open(x)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.At(part), err)
		}
		return g, nil
	case map[string]any:
		g := &File{Name: f.Name, Tree: x}
		if n := f.node; n != nil {
			for _, name := range strings.FieldsFunc(part, func(r rune) bool { return strings.ContainsRune(".[]", r) }) {
				if n = child(n, name); n == nil {
					break
				}
			}
			g.node = n
		}
		return g, nil
	}
	return nil, fmt.Errorf("%s: %s must be a file's name, or what would be in it", f.At(part), part)
}

func (f *File) params(m map[string]any, at string) (map[string]any, error) {
	v := member(m, "parameters")
	if v == nil {
		return map[string]any{}, nil
	}
	out, err := Values(v)
	if err != nil {
		err = fmt.Errorf("%s: %w", f.At(strings.TrimPrefix(at+".parameters", ".")), err)
	}
	return out, err
}

func (f *File) time(m map[string]any, at string, or time.Time) (time.Time, error) {
	v := member(m, "now")
	if v == nil {
		return or, nil
	}
	s, _ := v.(string)
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		err = fmt.Errorf("%s: now is %s; it must be a time such as 2026-01-31T12:00:00Z", f.At(strings.TrimPrefix(at+".now", ".")), show(v))
	}
	return t, err
}

func (f *File) testCase(x any, at string, now time.Time, open Open) (c testCase, err error) {
	c.at = f.At(at)
	m, ok := x.(map[string]any)
	if !ok {
		return c, fmt.Errorf("%s: a test must be an object with %s", c.at, caseFields)
	}
	if err := f.only(m, at, caseFields); err != nil {
		return c, err
	}
	if c.name = text(m, "name"); c.name == "" {
		c.name = at
	}
	g, err := f.open(member(m, "resource"), at+".resource", open)
	if err != nil {
		return c, err
	}
	if c.subject.Resource, err = ResourceOf(g, g.Tree, ""); err != nil {
		return c, err
	}
	if c.params, err = f.params(m, at); err != nil {
		return c, err
	}
	if c.subject.Now, err = f.time(m, at, now); err != nil {
		return c, err
	}
	c.subject.APIVersion, c.message = text(m, "apiVersion"), text(m, "message")
	c.subject.Subscription, _ = member(m, "subscription").(map[string]any)
	c.subject.Group, _ = member(m, "resourceGroup").(map[string]any)
	c.becomes, _ = member(m, "becomes").(map[string]any)
	related, _ := member(m, "related").([]any)
	for i, y := range related {
		r, err := ResourceOf(f, y, fmt.Sprintf("%s.related[%d]", at, i))
		if err != nil {
			return c, err
		}
		c.subject.Related = append(c.subject.Related, r)
	}
	c.expect, c.exact, err = f.expected(member(m, "expect"), at+".expect")
	return c, err
}

func (f *File) expected(v any, part string) (out []string, many bool, err error) {
	list, many := v.([]any)
	if !many {
		list = []any{v}
	}
	known := []string{None}
	for _, e := range strength {
		known = append(known, string(e))
	}
	for _, x := range list {
		s, _ := x.(string)
		n := slices.IndexFunc(known, func(k string) bool { return strings.EqualFold(k, s) })
		if n < 0 || many && n == 0 {
			return nil, false, fmt.Errorf("%s: expect is %s; it must be %s, or an array of effects", f.At(part), show(v), strings.Join(known, ", "))
		}
		out = append(out, known[n])
	}
	return out, many, nil
}

// Result is how one test went.
type Result struct {
	Name     string    `json:"name"`
	At       string    `json:"at"` // file:line
	Passed   bool      `json:"passed"`
	Why      []string  `json:"why,omitempty"` // it failed
	Outcome  string    `json:"outcome"`
	Findings []Finding `json:"findings,omitempty"`
	Seconds  float64   `json:"-"`
}

// Report is how all tests of a suite went.
type Report struct {
	Suite   string   `json:"suite"`
	Results []Result `json:"results"`
	Failed  int      `json:"failed"`
	// Branches is how many ways out of the rules' tests there are, two of each;
	// Missed are those that no test of the suite took.
	Branches int      `json:"branches"`
	Missed   []string `json:"missed,omitempty"`
}

// Run runs all tests.
func (s *Suite) Run() Report {
	r := Report{Suite: s.File.Name}
	taken, places := map[string]bool{}, map[string]string{}
	for _, c := range s.cases {
		began := time.Now()
		x := s.run(c, taken, places)
		x.Seconds = time.Since(began).Seconds()
		if !x.Passed {
			r.Failed++
		}
		r.Results = append(r.Results, x)
	}
	for key, where := range places {
		for _, way := range []string{"true", "false"} {
			if r.Branches++; !taken[key+"|"+way] {
				r.Missed = append(r.Missed, where+" is never "+way)
			}
		}
	}
	slices.Sort(r.Missed)
	return r
}

func (s *Suite) run(c testCase, taken map[string]bool, places map[string]string) Result {
	x := Result{Name: c.name, At: c.at, Outcome: None}
	params := map[string]any{}
	for _, from := range []map[string]any{s.params, c.params} {
		for k, v := range from {
			for old := range params {
				if strings.EqualFold(old, k) {
					delete(params, old)
				}
			}
			params[k] = v
		}
	}
	rules, err := s.Policy.Bind(params)
	if err != nil {
		x.Why = []string{err.Error()}
		return x
	}
	for _, r := range rules {
		for _, place := range r.Tests() {
			part := place
			if m, _ := r.file.Tree.(map[string]any); member(m, "properties") != nil {
				part = "properties." + place
			} else if member(m, "policyRule") == nil {
				part = strings.TrimPrefix(place, "policyRule.")
			}
			places[r.Name+"|"+place] = r.file.At(part) + ": " + place + " of " + r.Name
		}
	}
	found, outcome := Judge(rules, c.subject, func(rule, place string, held bool) { taken[fmt.Sprintf("%s|%s|%t", rule, place, held)] = true })
	x.Outcome, x.Findings = Outcome(found), found
	x.Why = c.differs(found, x.Outcome, outcome)
	x.Passed = len(x.Why) == 0
	return x
}

// differs says how what was found is not what the test expects.
func (c testCase) differs(found []Finding, outcome string, doc map[string]any) (why []string) {
	if c.exact {
		var got []string
		for _, f := range found {
			got = append(got, string(f.Effect))
		}
		want := slices.Sorted(slices.Values(c.expect))
		if slices.Sort(got); !slices.Equal(got, want) {
			why = append(why, fmt.Sprintf("the effects are %q, want %q", got, want))
		}
	} else if outcome != c.expect[0] {
		why = append(why, fmt.Sprintf("the outcome is %s, want %s", outcome, c.expect[0]))
	}
	said := c.message == ""
	for _, f := range found {
		said = said || strings.Contains(f.Error, c.message) || strings.Contains(f.Rule, c.message)
		if f.Error != "" && c.message == "" {
			why = append(why, f.Rule+" could not be judged: "+f.Error)
		}
	}
	if !said {
		why = append(why, fmt.Sprintf("no rule that applies says %q", c.message))
	}
	return append(why, within(doc, c.becomes, "the resource")...)
}

// within says what of want is not in got: objects may have more.
func within(got, want any, at string) (why []string) {
	m, is := want.(map[string]any)
	if !is {
		if show(got) != show(want) {
			return []string{fmt.Sprintf("%s becomes %s, want %s", at, show(got), show(want))}
		}
		return nil
	}
	g, _ := got.(map[string]any)
	for k, v := range m {
		why = append(why, within(member(g, k), v, at+"."+k)...)
	}
	slices.Sort(why)
	return why
}

// Text writes the report for people: failures, and with verbose everything.
func (r Report) Text(w io.Writer, verbose bool) error {
	for _, x := range r.Results {
		switch {
		case !x.Passed:
			fmt.Fprintf(w, "FAIL  %s: %s\n", x.At, x.Name)
			for _, y := range x.Why {
				fmt.Fprintf(w, "      %s\n", y)
			}
		case verbose:
			fmt.Fprintf(w, "ok    %s: %s (%s)\n", x.At, x.Name, x.Outcome)
		}
	}
	if verbose {
		for _, m := range r.Missed {
			fmt.Fprintf(w, "miss  %s\n", m)
		}
	}
	_, err := fmt.Fprintf(w, "%s: %d of %d tests pass; they take %d of %d branches\n", r.Suite, len(r.Results)-r.Failed, len(r.Results), r.Branches-len(r.Missed), r.Branches)
	return err
}

type junitSuite struct {
	XMLName  xml.Name    `xml:"testsuite"`
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Name    string    `xml:"name,attr"`
	Class   string    `xml:"classname,attr"`
	File    string    `xml:"file,attr"`
	Time    string    `xml:"time,attr"`
	Failure *junitBad `xml:"failure"`
}

type junitBad struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// JUnit writes reports as build servers read them.
func JUnit(w io.Writer, all []Report) error {
	var top struct {
		XMLName xml.Name     `xml:"testsuites"`
		Suites  []junitSuite `xml:"testsuite"`
	}
	for _, r := range all {
		s := junitSuite{Name: r.Suite, Tests: len(r.Results), Failures: r.Failed}
		for _, x := range r.Results {
			c := junitCase{Name: x.Name, Class: r.Suite, File: x.At, Time: fmt.Sprintf("%.6f", x.Seconds)}
			if !x.Passed {
				c.Failure = &junitBad{x.Why[0], strings.Join(x.Why, "\n")}
			}
			s.Cases = append(s.Cases, c)
		}
		top.Suites = append(top.Suites, s)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(top); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w)
	return err
}
