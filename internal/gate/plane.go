package gate

import (
	"bytes"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"castellan/internal/arm"
)

// Vars are the values of a pattern's wildcards, decoded, by name.
type Vars map[string]string

// Locate finds what a request is about. It looks at the path alone.
type Locate func(r *http.Request, v Vars) (Target, error)

// Verb does what was asked. It gets its target from the Grant.
type Verb func(w http.ResponseWriter, r *http.Request, g Grant) error

// Route is one door: either it has an action or a reason to be open.
type Route struct {
	Method, Pattern string
	Action          arm.Action
	Why             string // of a public door
	locate          Locate
	verb            Verb
	open            func(w http.ResponseWriter, r *http.Request, v Vars) error
	stream          bool
	each            bool
}

// On is a door that asks for an action. pattern is "METHOD /path/{name}/{rest...}",
// on planes with a Query perhaps with "?key=value" behind it.
func On(a arm.Action, pattern string, locate Locate, verb Verb) Route {
	m, p, _ := strings.Cut(pattern, " ")
	return Route{Method: m, Pattern: p, Action: a, locate: locate, verb: verb}
}

// Stream is On for answers too large or too long to hold back until the audit
// entry is written; the entry is written when the answer begins.
func Stream(a arm.Action, pattern string, locate Locate, verb Verb) Route {
	r := On(a, pattern, locate, verb)
	r.stream = true
	return r
}

// Each is a door to a list of which everybody sees the rows that they may see,
// perhaps none: a grants the whole list, and without it the verb must ask
// Grant.Sees for every row.
func Each(a arm.Action, pattern string, locate Locate, verb Verb) Route {
	r := On(a, pattern, locate, verb)
	r.each = true
	return r
}

// Through is the route with its verb as with makes it.
func (r Route) Through(with func(Verb) Verb) Route {
	r.verb = with(r.verb)
	return r
}

// Filtered reports whether the door is an Each.
func (r Route) Filtered() bool { return r.each }

// Before is the door with a question that is asked once its caller is admitted:
// an error is the answer, and nothing is done.
func (r Route) Before(ask func(r *http.Request, g Grant) error) Route {
	do := r.verb
	r.verb = func(w http.ResponseWriter, req *http.Request, g Grant) error {
		if err := ask(req, g); err != nil {
			return err
		}
		return do(w, req, g)
	}
	return r
}

// Public is a door that anybody may open; why says so to a reviewer who does
// not believe it.
func Public(why, pattern string, serve func(w http.ResponseWriter, r *http.Request, v Vars) error) Route {
	m, p, _ := strings.Cut(pattern, " ")
	return Route{Method: m, Pattern: p, Why: why, open: serve}
}

// Valid reports whether the route names a permission or a reason, not both.
func (r Route) Valid() bool {
	if r.Method == "" || !strings.HasPrefix(r.Pattern, "/") {
		return false
	}
	guarded := !r.Action.IsZero() && r.locate != nil && r.verb != nil
	public := r.Why != "" && r.open != nil
	return guarded != public
}

// Plane is the face of one protocol.
type Plane struct {
	Name   string
	Fold   bool                   // the path minds no case (ARM)
	Host   func(host string) bool // which hosts the plane answers on, without port; nil: any
	Who    func(r *http.Request) (arm.Caller, error)
	Refuse func(w http.ResponseWriter, r *http.Request, err error)
	Routes []Route // all of them, before the first request
	// Unlocked reports whether a is done here on data, which locks do not hold,
	// although roles have it among their actions. nil: nothing is.
	Unlocked func(a arm.Action) bool
	// Cancelled is what a is answered with while the subscription of what it is about
	// is cancelled, or nil if it goes on. A plane without it goes on.
	Cancelled func(a arm.Action) error
	// Pass lets a caller's request go on, or says that there were too many; done
	// is called when it is over. nil lets all go on.
	Pass func(w http.ResponseWriter, r *http.Request, who arm.Caller) (done func(), err error)
	// Query is what of a request's query tells doors apart, in one spelling; a
	// pattern names it behind a question mark. Without it none does.
	Query func(r *http.Request) string

	once     sync.Once // guards the making of what follows
	patterns [][]string
	queries  []string
	fixed    map[int][]int // routes by how many segments their paths have
	open     []int         // routes whose paths have any number of segments
}

// Serve carries one matched request through the gate: authenticate, locate,
// admit, do, record, answer.
func (g *Gate) Serve(p *Plane, rt Route, v Vars, w http.ResponseWriter, r *http.Request) {
	if rt.open != nil {
		if err := rt.open(w, r, v); err != nil {
			g.refuse(p, w, r, err)
		}
		return
	}
	who, err := p.Who(r)
	if err != nil {
		g.refuse(p, w, r, err)
		return
	}
	if p.Pass != nil {
		done, err := p.Pass(w, r, who)
		if err != nil {
			g.refuse(p, w, r, err)
			return
		}
		defer done()
	}
	r, watch := g.watch(p, rt, w, r)
	defer watch.stop()
	r.Pattern = rt.Pattern
	on, err := rt.locate(r, v)
	if err != nil {
		g.refuse(p, w, r, err)
		return
	}
	admit := g.admit
	if rt.each {
		admit = g.admitEach
	}
	grant, err := admit(r.Context(), p.Name, who, rt.Action, on)
	if err != nil {
		g.refuse(p, w, r, err)
		return
	}
	w.Header().Set("x-ms-correlation-request-id", grant.Correlation())
	err = g.cancelled(p, rt.Action, on.ID)
	if err == nil {
		err = grant.unlocked(r.Context(), p)
	}
	if err != nil {
		g.refuse(p, w, r, grant.Close(r.Context(), err))
		return
	}
	watch.begin(who, on)
	if rt.stream {
		s := &streamed{ResponseWriter: w, watch: watch}
		if err := grant.Close2(r, watch.settle(rt.verb(s, r, grant)), s); err != nil {
			g.refuse(p, w, r, err)
		}
		return
	}
	held := &heldBack{header: w.Header()}
	if err := grant.Close(r.Context(), watch.settle(rt.verb(held, r, grant))); err != nil {
		g.refuse(p, w, r, err)
		return
	}
	held.release(w)
}

// cancelled is why a is not done to id while its subscription is cancelled, or nil.
func (g *Gate) cancelled(p *Plane, a arm.Action, id arm.ID) error {
	if p.Cancelled == nil || !g.Site.Tenancy.Cancelled(id) {
		return nil
	}
	return p.Cancelled(a)
}

// refuse words a refusal, and reports what is a fault of ours.
func (g *Gate) refuse(p *Plane, w http.ResponseWriter, r *http.Request, err error) {
	if g != nil && g.Report != nil && Status(err) >= http.StatusInternalServerError {
		g.Report(r, err)
	}
	p.Refuse(w, r, err)
}

// Close2 ends a streamed answer: an error after the first byte can only cut it.
func (g Grant) Close2(r *http.Request, err error, s *streamed) error {
	err = g.Close(r.Context(), err)
	if err != nil && s.begun {
		panic(http.ErrAbortHandler)
	}
	return err
}

// heldBack keeps an answer until its audit entry is written.
type heldBack struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (h *heldBack) Header() http.Header { return h.header }

func (h *heldBack) WriteHeader(status int) {
	if h.status == 0 {
		h.status = status
	}
}

func (h *heldBack) Write(b []byte) (int, error) { return h.body.Write(b) }

func (h *heldBack) release(w http.ResponseWriter) {
	if h.status == 0 {
		h.status = http.StatusOK
	}
	w.WriteHeader(h.status)
	_, _ = w.Write(h.body.Bytes()) // the client may have gone
}

// streamed remembers whether the answer began.
type streamed struct {
	http.ResponseWriter
	watch *watch
	begun bool
}

func (s *streamed) WriteHeader(status int) { s.begun = true; s.ResponseWriter.WriteHeader(status) }

func (s *streamed) Write(b []byte) (int, error) {
	if err := s.watch.gone(); err != nil {
		return 0, err
	}
	s.begun = true
	return s.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (s *streamed) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// Find finds the route of a request. found tells whether any route has the
// path, whatever its method.
func (p *Plane) Find(r *http.Request) (rt Route, v Vars, found bool, err error) {
	query := ""
	if p.Query != nil {
		query = p.Query(r)
	}
	return p.find(r.Method, r.URL.EscapedPath(), query)
}

// Match is Find for a method and an escaped path, with nothing in the query
// that tells doors apart.
func (p *Plane) Match(method, escapedPath string) (rt Route, v Vars, found bool, err error) {
	return p.find(method, escapedPath, "")
}

func (p *Plane) find(method, escapedPath, query string) (rt Route, v Vars, found bool, err error) {
	segs, err := split(escapedPath)
	if err != nil {
		return Route{}, nil, false, err
	}
	if p.Fold {
		segs = orphan(segs)
	}
	p.once.Do(p.compile)
	best := -1
	for _, list := range [2][]int{p.fixed[len(segs)], p.open} {
		for _, i := range list {
			if p.queries[i] != query || !match(p.patterns[i], segs, p.Fold) {
				continue
			}
			found = true
			if p.Routes[i].Method == method && (best < 0 || more(p.patterns[i], p.patterns[best])) {
				best = i
			}
		}
	}
	if best < 0 {
		return Route{}, nil, found, nil
	}
	return p.Routes[best], fill(p.patterns[best], segs), true, nil
}

// compile cuts the patterns into segments, and sorts those that fit one length
// of path from those that fit many.
func (p *Plane) compile() {
	p.fixed = map[int][]int{}
	p.patterns = make([][]string, len(p.Routes))
	p.queries = make([]string, len(p.Routes))
	for i, rt := range p.Routes {
		path, query, _ := strings.Cut(rt.Pattern, "?")
		pat := strings.Split(strings.TrimPrefix(path, "/"), "/")
		p.patterns[i], p.queries[i] = pat, query
		if strings.Contains(path, "...}") {
			p.open = append(p.open, i)
			continue
		}
		p.fixed[len(pat)] = append(p.fixed[len(pat)], i)
	}
}

// Begins reports whether the path of one of the plane's doors begins with the
// fixed segment seg.
func (p *Plane) Begins(seg string) bool {
	for _, rt := range p.Routes {
		first, _, _ := strings.Cut(rt.Pattern[1:], "/")
		if first == seg || p.Fold && strings.EqualFold(first, seg) {
			return true
		}
	}
	return false
}

// more reports whether pattern a is more specific than b: the first segment
// that differs is fixed in a and a wildcard in b, or a has no rest.
func more(a, b []string) bool {
	for i := 0; i < len(a) && i < len(b); i++ {
		x, y := rank(a[i]), rank(b[i])
		if x != y {
			return x > y
		}
	}
	return len(a) > len(b)
}

func rank(seg string) int {
	switch {
	case strings.HasSuffix(seg, "...}"):
		return 0
	case strings.HasPrefix(seg, "{"):
		return 1
	default:
		return 2
	}
}

// split cuts an escaped path at its literal slashes and decodes each segment
// once. Dots and empty inner segments are refused, never cleaned away.
func split(escaped string) ([]string, error) {
	parts := strings.Split(strings.TrimPrefix(escaped, "/"), "/")
	for i, s := range parts {
		d, err := url.PathUnescape(s)
		if err != nil {
			return nil, arm.Errorf(arm.InvalidResourceName, "the path has a malformed percent escape")
		}
		if d == "." || d == ".." || strings.ContainsRune(d, 0) {
			return nil, arm.Errorf(arm.InvalidResourceName, "the path has the segment %q", d)
		}
		parts[i] = d
	}
	return parts, nil
}

// orphan is segs without the empty one that clients of Resource Manager leave
// where a parent resource's path would stand:
// subscriptions/S/resourceGroups/G/providers/NS//TYPE/NAME.
func orphan(segs []string) []string {
	const parent = 6
	if len(segs) > parent+2 && segs[parent] == "" && matchFixed([]string{"subscriptions", "{s}", "resourceGroups", "{g}", "providers", "{ns}"}, segs[:parent], true) {
		return slices.Delete(segs, parent, parent+1)
	}
	return segs
}

// match reports whether segs have the form of pat. {x...} takes any number of
// segments; at the end of a pattern it wants at least one, but for {any...}.
func match(pat, segs []string, fold bool) bool {
	for i, p := range pat {
		if strings.HasSuffix(p, "...}") {
			tail := pat[i+1:]
			end := len(segs) - len(tail)
			if end < i || !matchFixed(tail, segs[end:], fold) {
				return false
			}
			return p == "{any...}" || len(tail) > 0 || end > i && (end > i+1 || segs[i] != "")
		}
		if i >= len(segs) || !matchFixed(pat[i:i+1], segs[i:i+1], fold) {
			return false
		}
	}
	return len(segs) == len(pat)
}

// matchFixed holds segments against as many pattern segments.
func matchFixed(pat, segs []string, fold bool) bool {
	for i, p := range pat {
		if strings.HasPrefix(p, "{") {
			if segs[i] == "" {
				return false
			}
		} else if p != segs[i] && !(fold && strings.EqualFold(p, segs[i])) {
			return false
		}
	}
	return true
}

// fill is what the wildcards of pat stand for in segs, which match it.
func fill(pat, segs []string) Vars {
	v := Vars{}
	for i, p := range pat {
		switch {
		case strings.HasSuffix(p, "...}"):
			tail := pat[i+1:]
			end := len(segs) - len(tail)
			v[p[1:len(p)-4]] = strings.Join(segs[i:end], "/")
			for j, q := range tail {
				if strings.HasPrefix(q, "{") {
					v[q[1:len(q)-1]] = segs[end+j]
				}
			}
			return v
		case strings.HasPrefix(p, "{"):
			v[p[1:len(p)-1]] = segs[i]
		}
	}
	return v
}
