package blob

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// query is a request's query, read once and in one way: for the signature, for
// what the signature permits, for which door is meant and for what is done.
type query map[string]string

// sasNames are the parameters of shared access signatures.
var sasNames = strings.Fields("sv ss srt sr sp st se si sip spr sig skoid sktid skt ske sks skv saoid suoid scid skdutid sduoid srh srq ses sdd rscc rscd rsce rscl rsct")

// pathNames are those that operations on the Data Lake endpoint take, in its own
// spelling. Signatures are over them in lower case, and so they are kept.
var pathNames = strings.Fields("resource recursive directory continuation maxResults upn action position retainUncommittedData close flush mode maxRecords forceFlag paginated beginFrom")

// otherNames are those that operations take. Some are known only to be refused.
var otherNames = strings.Fields("restype comp timeout prefix delimiter marker maxresults include blockid blocklisttype snapshot prevsnapshot versionid api-version showonly where startfrom endbefore deletetype copyid tier qt sharesnapshot prevsharesnapshot")

// parseQuery reads a raw query. It refuses what two readers could take for two
// things: a name twice, in odd case or spelt with escapes, a semicolon.
func parseQuery(raw string) (query, error) {
	q := query{}
	if strings.Contains(raw, ";") {
		return nil, fail(http.StatusBadRequest, "InvalidQueryParameterValue", "The query has a semicolon that is not percent-encoded.")
	}
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		k, v, _ := strings.Cut(part, "=")
		name, err := url.QueryUnescape(k)
		value, err2 := url.QueryUnescape(v)
		if err != nil || err2 != nil {
			return nil, fail(http.StatusBadRequest, "InvalidQueryParameterValue", "The query has a malformed percent escape.")
		}
		lower := strings.ToLower(name)
		spelt := slices.Contains(pathNames, name) // in the one way that is not lower case
		switch {
		case !spelt && !known(lower):
			return nil, fail(http.StatusBadRequest, "UnsupportedQueryParameter", "The query parameter %q is not supported.", name)
		case name != k && lower != "api-version" || !spelt && name != lower:
			return nil, fail(http.StatusBadRequest, "InvalidQueryParameterValue", "The query parameter %s must be written in lower case and without escapes.", lower)
		}
		name = lower
		if _, twice := q[name]; twice {
			return nil, fail(http.StatusBadRequest, "InvalidQueryParameterValue", "The query parameter %s is there more than once.", name)
		}
		q[name] = value
	}
	return q, nil
}

func known(name string) bool {
	return slices.Contains(sasNames, name) || slices.Contains(otherNames, name)
}

// door is what tells operations apart that have one method and path.
func (q query) door() string {
	var out []string
	for _, k := range []string{"restype", "comp"} {
		if v, ok := q[k]; ok {
			out = append(out, k+"="+v)
		}
	}
	return strings.Join(out, "&")
}

// doorOf is door for a request; no door has the answer for an unreadable query.
func doorOf(r *http.Request) string {
	if r.Method == http.MethodOptions {
		return "preflight" // it has the query of what comes after it
	}
	q, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return "unreadable"
	}
	if q["deletetype"] == "permanent" && r.Method == http.MethodDelete && q.door() == "" {
		return "deletetype=permanent"
	}
	if _, ok := q["versionid"]; ok && r.Method == http.MethodDelete && q.door() == "" {
		return "versionid" // which asks for another right than to delete the blob
	}
	return q.door()
}

// count is a whole number from 1 to most.
func (q query) count(name string, most int) (int, error) {
	v, ok := q[name]
	if !ok {
		return most, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		return 0, badQuery(name, v, "a whole number")
	}
	if n < 1 {
		return 0, fail(http.StatusBadRequest, "OutOfRangeQueryParameterValue", "The query parameter %s is %d; it must be at least 1.", name, n)
	}
	return min(n, most), nil
}

// include holds the datasets that a list is to show against those there are.
func (q query) include(known ...string) (map[string]bool, error) {
	out := map[string]bool{}
	for x := range strings.SplitSeq(q["include"], ",") {
		x = strings.ToLower(strings.TrimSpace(x))
		if x != "" && !slices.Contains(known, x) {
			return nil, badQuery("include", x, "of "+strings.Join(known, ", "))
		}
		out[x] = true
	}
	return out, nil
}
