package server

import (
	"net/http"
	"net/url"
	"strings"

	"castellan/internal/arm"
)

var slashes = strings.NewReplacer("%2F", "/", "%2f", "/")

// unescapeScope gives a path of Resource Manager whose scope is one escaped segment,
// /%2Fsubscriptions%2FID/providers/…, as the SDK for Python sends it, the form that it
// has from everybody else. It comes before anything reads the path, so that doors,
// rights, policies and the log see the one id. A path is left alone, and then leads
// nowhere, unless it can be read in one way: the scope is whole and an id, nothing but
// its slashes is escaped, once, and none is behind it.
func unescapeScope(r *http.Request) {
	scope, rest, ok := strings.Cut(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
	plain := strings.TrimPrefix(slashes.Replace(scope), "/")
	first, _, several := strings.Cut(strings.ToLower(plain), "/")
	if !ok || !several || first != "subscriptions" && first != "providers" || strings.Contains(strings.ToLower(rest), "%2f") {
		return
	}
	if under, _, _ := strings.Cut(rest, "/"); !strings.EqualFold(under, "providers") {
		return
	}
	behind, err := url.PathUnescape(rest)
	if _, bad := arm.ParseID("/" + plain); bad != nil || err != nil {
		return
	}
	r.URL.Path, r.URL.RawPath = "/"+plain+"/"+behind, "/"+plain+"/"+rest
}
