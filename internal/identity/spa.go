package identity

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"castellan/internal/gate"
)

// Pages that are clients themselves (single-page applications) reach the token
// endpoint from their own origin. Browsers let them read the answer only where
// we say so, and we say so to the origins of such clients' redirects alone.

// spaLife is how long what a page keeps is good for, from the sign-in on: pages
// can't keep secrets well.
const spaLife = 24 * time.Hour

// originOf is the origin of a URL, as browsers write it.
func originOf(uri string) string {
	u, err := url.Parse(uri)
	if err != nil || u.Host == "" {
		return ""
	}
	return strings.ToLower(u.Scheme + "://" + u.Host)
}

// hasOrigin reports whether the application has a page at an origin.
func (a *App) hasOrigin(origin string) bool {
	for _, r := range a.Redirects {
		if !r.SPA {
			continue
		}
		if originOf(r.URI) == origin {
			return true
		}
		// On the person's own machine the port is free, as in redirects.
		if m := loopback.FindStringSubmatch(origin); m != nil && originOf(r.URI) == m[1] {
			return true
		}
	}
	return false
}

// allowOrigin lets a page of the client's read the answer.
func (s *Service) allowOrigin(w http.ResponseWriter, r *http.Request, client string) {
	w.Header().Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	app := s.index.client(client)
	if origin == "" || app == nil || !app.hasOrigin(origin) {
		return
	}
	w.Header().Set("Access-Control-Allow-Origin", origin)
	w.Header().Set("Access-Control-Expose-Headers", "client-request-id")
}

// fromOrigin holds a grant against the page that uses it: what was given to a
// page is used from its origin, and nothing else from any.
func fromOrigin(r *http.Request, g grant) error {
	origin := r.Header.Get("Origin")
	switch {
	case g.SPA != "" && origin == "":
		return problemf(9002327, "invalid_request", "Tokens issued for the 'Single-Page Application' client-type may only be redeemed via cross-origin requests.")
	case origin != g.SPA:
		return problemf(9002326, "invalid_request", "Cross-origin token redemption is permitted only for the 'Single-Page Application' client-type. Request origin: '%s'.", printable(origin))
	}
	return nil
}

// servePreflight tells a browser whether a page may ask for tokens. Which client
// it is stands in the request that follows, and is looked at then.
func (s *Service) servePreflight(w http.ResponseWriter, r *http.Request, _ gate.Vars) error {
	origin := r.Header.Get("Origin")
	w.Header().Add("Vary", "Origin")
	ok := find(s.index, func(x *index) bool {
		for _, a := range x.apps {
			if a.hasOrigin(origin) {
				return true
			}
		}
		return false
	})
	if ok {
		w.Header().Set("Access-Control-Allow-Origin", origin)
		w.Header().Set("Access-Control-Allow-Methods", "POST, OPTIONS")
		w.Header().Set("Access-Control-Allow-Headers", "content-type, client-request-id, return-client-request-id, x-client-sku, x-client-ver, x-client-os, x-client-cpu, x-client-current-telemetry, x-client-last-telemetry, x-ms-lib-capability")
		w.Header().Set("Access-Control-Max-Age", "600")
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// anybody lets every page read what is public.
func anybody(serve func(http.ResponseWriter, *http.Request, gate.Vars) error) func(http.ResponseWriter, *http.Request, gate.Vars) error {
	return func(w http.ResponseWriter, r *http.Request, v gate.Vars) error {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		return serve(w, r, v)
	}
}
