package blob

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

// Rules are CORS rules: which pages of other sites browsers let read answers of
// this account. They open nothing, for every request still shows a credential.
// Without rules there are no pages.
type Rules struct {
	List []Rule `json:"corsRules"`
}

// Rule is one of them; the first that fits counts.
type Rule struct {
	Origins []string `json:"allowedOrigins"` // as browsers send them, or * for all
	Methods []string `json:"allowedMethods"`
	MaxAge  int      `json:"maxAgeInSeconds"` // how long browsers may remember a preflight
	Exposed []string `json:"exposedHeaders"`  // of answers; one may end with *
	Headers []string `json:"allowedHeaders"`  // of requests; one may end with *
}

// Limits of CORS rules, as Azure's.
const (
	maxRules      = 5
	maxRulesBytes = 2 << 10
	maxRuleText   = 256 // bytes of an origin or header
	maxLiterals   = 64  // origins, or headers without a *
	maxPrefixed   = 2   // headers with one
)

var corsMethods = []string{"DELETE", "GET", "HEAD", "MERGE", "POST", "OPTIONS", "PUT", "PATCH"}

func (r *Rules) list() []Rule {
	if r == nil {
		return nil
	}
	return r.List
}

// check holds the rules against Azure's limits.
func (r *Rules) check() error {
	bad := func(format string, args ...any) error {
		return arm.Errorf(arm.BadRequest, "cors.corsRules is invalid: "+format, args...)
	}
	total := 0
	for _, x := range r.list() {
		for _, l := range [][]string{x.Origins, x.Methods, x.Exposed, x.Headers} {
			for _, v := range l {
				if total += len(v); v == "" || len(v) > maxRuleText || strings.ContainsFunc(v, func(c rune) bool { return c <= ' ' || c > '~' || c == ',' }) {
					return bad("%q must be 1 to %d visible characters of ASCII without commas", v, maxRuleText)
				}
			}
		}
		switch {
		case len(x.Origins) == 0 || len(x.Methods) == 0:
			return bad("allowedOrigins and allowedMethods must not be empty")
		case len(x.Origins) > maxLiterals:
			return bad("allowedOrigins has %d origins; at most %d are allowed", len(x.Origins), maxLiterals)
		case x.MaxAge < 0:
			return bad("maxAgeInSeconds is %d; it must not be below 0", x.MaxAge)
		}
		for _, v := range x.Origins {
			if v != "*" && strings.Contains(v, "*") {
				return bad("allowedOrigins has %q; it must be origins or * alone", v)
			}
		}
		for _, v := range x.Methods {
			if !slices.Contains(corsMethods, v) {
				return bad("allowedMethods has %q; it must be of %s", v, strings.Join(corsMethods, ", "))
			}
		}
		for field, l := range map[string][]string{"exposedHeaders": x.Exposed, "allowedHeaders": x.Headers} {
			prefixed := 0
			for _, v := range l {
				if i := strings.Index(v, "*"); i == len(v)-1 {
					prefixed++
				} else if i >= 0 {
					return bad("%s has %q; a * may stand at the end alone", field, v)
				}
			}
			if prefixed > maxPrefixed || len(l)-prefixed > maxLiterals {
				return bad("%s has %d headers, %d of them with *; at most %d without and %d with one are allowed", field, len(l), prefixed, maxLiterals, maxPrefixed)
			}
		}
	}
	if len(r.list()) > maxRules || total > maxRulesBytes {
		return bad("there are %d rules of %d bytes; at most %d of %d bytes are allowed", len(r.list()), total, maxRules, maxRulesBytes)
	}
	return nil
}

func (r Rule) any() bool { return slices.Contains(r.Origins, "*") }

// fits reports whether the rule is for requests by the method from the origin.
func (r Rule) fits(origin, method string) bool {
	return (r.any() || slices.Contains(r.Origins, origin)) && slices.Contains(r.Methods, method)
}

// lets reports whether requests may have the headers, names with commas.
func (r Rule) lets(headers string) bool {
	for h := range strings.SplitSeq(headers, ",") {
		if h = strings.TrimSpace(h); h != "" && !named(r.Headers, h) {
			return false
		}
	}
	return true
}

// named reports whether a header is one of the list.
func named(list []string, header string) bool {
	return slices.ContainsFunc(list, func(v string) bool {
		prefix, any := strings.CutSuffix(v, "*")
		return strings.EqualFold(v, header) || any && len(header) >= len(prefix) && strings.EqualFold(header[:len(prefix)], prefix)
	})
}

// corsOf is the rule for r, or nil.
func (s *Service) corsOf(r *http.Request, method string) *Rule {
	origin := r.Header.Get("Origin")
	a := s.at(r.Host)
	if origin == "" || a == nil {
		return nil
	}
	if i := slices.IndexFunc(a.rules.cors, func(x Rule) bool { return x.fits(origin, method) }); i >= 0 {
		return &a.rules.cors[i]
	}
	return nil
}

// corsHeaders say what a browser may show of an answer to a page of the origin.
func (r *Rule) corsHeaders(h http.Header, origin string) {
	if r.any() {
		h.Set("Access-Control-Allow-Origin", "*")
		return
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Allow-Credentials", "true")
}

// corsWriter says which of an answer's headers a page may see, once they are known.
type corsWriter struct {
	http.ResponseWriter
	rule *Rule
}

func (w corsWriter) WriteHeader(status int) { w.expose(); w.ResponseWriter.WriteHeader(status) }

// Unwrap is for http.ResponseController.
func (w corsWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w corsWriter) expose() {
	h := w.Header()
	h.Del("Access-Control-Expose-Headers")
	var out []string
	for k := range h {
		if !strings.HasPrefix(k, "Access-Control-") && named(w.rule.Exposed, k) {
			out = append(out, k)
		}
	}
	if slices.Sort(out); len(out) > 0 {
		h.Set("Access-Control-Expose-Headers", strings.Join(out, ","))
	}
}

// cors prepares the answer to r for pages of other sites. A cache must not give
// what was for one site to another.
func (x *exchange) cors() {
	a := x.s.at(x.r.Host)
	if a == nil || len(a.rules.cors) == 0 {
		return
	}
	rule := x.s.corsOf(x.r, x.r.Method)
	if rule == nil || !rule.any() {
		x.w.Header().Set("Vary", "Origin")
	}
	if rule != nil {
		rule.corsHeaders(x.w.Header(), x.r.Header.Get("Origin"))
		x.w = corsWriter{x.w, rule}
	}
}

// preflightWhy is why the doors to preflights are open.
const preflightWhy = "browsers ask here, before they send a credential, whether a page may send it; the answer tells nothing but that a rule of the account's owner fits"

// preflight is Preflight Blob Request. Whether what it is about exists does not matter.
func (s *Service) preflight(w http.ResponseWriter, r *http.Request, _ gate.Vars) error {
	h := w.Header()
	exchange{w: w, r: r, s: s}.identify()
	method, headers := r.Header.Get("Access-Control-Request-Method"), strings.Join(r.Header.Values("Access-Control-Request-Headers"), ",")
	if r.Header.Get("Origin") == "" || method == "" {
		return fail(http.StatusBadRequest, "MissingRequiredHeader", "A preflight must have the headers Origin and Access-Control-Request-Method.")
	}
	if !slices.Contains(corsMethods, method) {
		return badHeader("Access-Control-Request-Method", method, "of "+strings.Join(corsMethods, ", "))
	}
	h.Set("Vary", "Origin,Access-Control-Request-Headers,Access-Control-Request-Method")
	if a := s.at(r.Host); a != nil {
		for _, rule := range a.rules.cors {
			if origin := r.Header.Get("Origin"); rule.fits(origin, method) && rule.lets(headers) {
				rule.corsHeaders(h, origin)
				h.Set("Access-Control-Allow-Methods", method)
				if headers != "" {
					h.Set("Access-Control-Allow-Headers", headers)
				}
				h.Set("Access-Control-Max-Age", strconv.Itoa(rule.MaxAge))
				w.WriteHeader(http.StatusOK)
				return nil
			}
		}
	}
	return fail(http.StatusForbidden, "CorsPreflightFailure", "CORS not enabled or no matching rule found for this request.")
}
