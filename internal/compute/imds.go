package compute

import (
	"net/http"
	"strings"
	"time"
)

// Paths of the instance metadata service.
const (
	IMDSPath     = "/metadata/identity/oauth2/token"
	instancePath = "/metadata/instance"
)

const imdsHost = "169.254.169.254"

// IMDS is the instance metadata service of one sandbox: its managed identities'
// tokens, and facts about the node, as the objects compute and network. It asks
// for no secret, so it belongs on IMDSAddr of a sandbox that has a network of its
// own, and nowhere else. A nil token is of a sandbox without identities.
func IMDS(token TokenFunc, facts map[string]any, now func() time.Time) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if why := imdsRefusal(r); why != "" {
			imdsError(w, http.StatusBadRequest, "invalid_request", why)
			return
		}
		if r.Method != http.MethodGet {
			imdsError(w, http.StatusMethodNotAllowed, "invalid_request", "the method must be GET")
			return
		}
		path := strings.TrimSuffix(r.URL.Path, "/")
		if path == IMDSPath {
			imdsToken(w, r, token, now())
			return
		}
		if fact, ok := instance(path, facts); ok {
			imdsFacts(w, r, fact)
			return
		}
		imdsError(w, http.StatusNotFound, "not_found", "there is nothing at this path")
	})
}

// imdsRefusal is why a request is none that a process of the machine itself
// makes on purpose, or "": a server that was tricked into fetching a URL sets no
// header of its own, a proxy adds one, a page's name is no address.
func imdsRefusal(r *http.Request) string {
	switch {
	case len(r.Header.Values("Metadata")) != 1 || !strings.EqualFold(r.Header.Get("Metadata"), "true"):
		return "Required metadata header not specified"
	case forwarded(r):
		return "the request was forwarded; it must come from the machine itself"
	case r.Host != imdsHost && r.Host != imdsHost+":80":
		return "the Host header must be " + imdsHost
	}
	return ""
}

func imdsToken(w http.ResponseWriter, r *http.Request, token TokenFunc, now time.Time) {
	refuse := func(status int, why string) { imdsError(w, status, "invalid_request", why) }
	q, err := ask(r.URL, "2018-02-01")
	if err != nil {
		refuse(http.StatusBadRequest, err.Error())
		return
	}
	answer(w, r, token, q, now, refuse)
}

// instance finds the facts at a path: all of them, or one object.
func instance(path string, facts map[string]any) (any, bool) {
	if path == instancePath {
		return facts, true
	}
	name, ok := strings.CutPrefix(path, instancePath+"/")
	fact, has := facts[name]
	return fact, ok && has
}

// imdsFacts tells facts, in JSON alone.
func imdsFacts(w http.ResponseWriter, r *http.Request, fact any) {
	q := r.URL.Query()
	if api := q.Get("api-version"); !versionRE.MatchString(api) || api < "2017-08-01" {
		imdsError(w, http.StatusBadRequest, "invalid_request", "api-version is missing or too old; the oldest is 2017-08-01")
		return
	}
	if f := q.Get("format"); f != "" && !strings.EqualFold(f, "json") {
		imdsError(w, http.StatusBadRequest, "invalid_request", "format must be json")
		return
	}
	writeJSON(w, http.StatusOK, fact)
}
