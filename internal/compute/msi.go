package compute

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"castellan/internal/arm"
)

// TokenFunc mints a token for one sandbox. At most one of clientID, objectID
// and resourceID is set; one that is not of an identity of this sandbox, and a
// resource that is not on the platform's list, is an arm.BadRequest.
type TokenFunc func(ctx context.Context, resource, clientID, objectID, resourceID string) (token arm.Secret, client string, expires time.Time, err error)

// MSIPath is the path for MSI_ENDPOINT and IDENTITY_ENDPOINT.
const MSIPath = "/msi/token"

// MSI serves the managed identities of one sandbox, and of no other, in the forms
// of Azure ML (MSI_ENDPOINT) and of App Service (IDENTITY_ENDPOINT). It belongs on
// a listener of its own inside that sandbox; who asks must know the secret,
// which is made anew for each start.
func MSI(secret arm.Secret, token TokenFunc, now func() time.Time) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		status, err := localOnly(r, MSIPath)
		if err == nil && !shows(r, secret) {
			status, err = http.StatusUnauthorized, errors.New("the secret is missing or not this sandbox's")
		}
		if err != nil {
			localError(w, status, err.Error())
			return
		}
		q, err := ask(r.URL, "2017-09-01")
		if err != nil {
			localError(w, http.StatusBadRequest, err.Error())
			return
		}
		answer(w, r, token, q, now(), func(status int, why string) { localError(w, status, why) })
	})
}

// localOnly refuses what is no GET of the path that a process of this very
// sandbox makes: what was forwarded, and what a page's name was made to lead to.
func localOnly(r *http.Request, path string) (int, error) {
	switch h := hostOf(r); {
	case r.URL.Path != path:
		return http.StatusNotFound, errors.New("there is nothing at this path")
	case r.Method != http.MethodGet:
		return http.StatusMethodNotAllowed, errors.New("the method must be GET")
	case forwarded(r):
		return http.StatusBadRequest, errors.New("the request was forwarded; it must come from the machine itself")
	case h != "127.0.0.1" && h != "localhost":
		return http.StatusBadRequest, errors.New("the Host header must be that of the endpoint")
	}
	return 0, nil
}

// shows reports whether the request has the secret, in either form's header.
func shows(r *http.Request, secret arm.Secret) bool {
	shown := r.Header.Get("X-IDENTITY-HEADER")
	if shown == "" {
		shown = r.Header.Get("secret")
	}
	return !secret.IsZero() && subtle.ConstantTimeCompare([]byte(shown), secret.Reveal()) == 1
}

func forwarded(r *http.Request) bool {
	return len(r.Header.Values("X-Forwarded-For"))+len(r.Header.Values("Forwarded")) > 0
}

func hostOf(r *http.Request) string {
	if h, _, err := net.SplitHostPort(r.Host); err == nil {
		return h
	}
	return r.Host
}

// question is what a client wants a token for.
type question struct{ resource, client, object, res, version string }

var versionRE = regexp.MustCompile(`^20[0-9]{2}-[0-9]{2}-[0-9]{2}(-preview)?$`)

// ask reads a question; oldest is the first version that is served, "" where
// clients send none.
func ask(u *url.URL, oldest string) (question, error) {
	q, named, err := parameters(u)
	switch {
	case err != nil:
		return q, err
	case oldest != "" && (!versionRE.MatchString(q.version) || q.version < oldest):
		return q, errors.New("api-version is missing or too old; the oldest is " + oldest)
	case q.resource == "":
		return q, errors.New("resource is missing")
	case named > 1:
		return q, errors.New("at most one of client_id, object_id and msi_res_id may be given")
	}
	return q, nil
}

// parameters reads a query, in which nothing may stand twice, and tells how many
// parameters name an identity.
func parameters(u *url.URL) (q question, named int, err error) {
	v, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return q, 0, errors.New("the query is malformed")
	}
	seen := map[string]bool{}
	for name, values := range v {
		name = strings.ToLower(name)
		if len(values) > 1 || seen[name] {
			return q, 0, errors.New("a parameter is given twice")
		}
		if seen[name] = true; values[0] == "" {
			continue
		}
		switch name {
		case "api-version":
			q.version = values[0]
		case "resource":
			q.resource = values[0]
		case "client_id", "clientid":
			q.client, named = values[0], named+1
		case "object_id", "principal_id":
			q.object, named = values[0], named+1
		case "mi_res_id", "msi_res_id":
			q.res, named = values[0], named+1
		}
	}
	return q, named, nil
}

// answer tells the token that q asks for. A sandbox without identities has none.
func answer(w http.ResponseWriter, r *http.Request, mint TokenFunc, q question, now time.Time, refuse func(int, string)) {
	if mint == nil {
		refuse(http.StatusBadRequest, "Identity not found: this sandbox has no managed identity")
		return
	}
	token, client, expires, err := mint(r.Context(), q.resource, q.client, q.object, q.res)
	if err != nil {
		refuse(worded(err))
		return
	}
	tell(w, q.resource, client, token, expires, now)
}

// worded is what a sandbox is told of an error.
func worded(err error) (int, string) {
	var e *arm.Error
	if errors.As(err, &e) && e.Code != arm.Internal {
		return http.StatusBadRequest, e.Message
	}
	return http.StatusInternalServerError, "the token could not be made"
}

// tell writes a token in the form that all these endpoints have.
func tell(w http.ResponseWriter, resource, client string, token arm.Secret, expires, now time.Time) {
	left := max(int64(expires.Sub(now)/time.Second), 0)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	json.NewEncoder(w).Encode(map[string]string{ // a client that went away needs no answer
		"access_token": string(token.Reveal()), "client_id": client, "resource": resource, "token_type": "Bearer",
		"expires_on": strconv.FormatInt(expires.Unix(), 10), "expires_in": strconv.FormatInt(left, 10),
		"ext_expires_in": strconv.FormatInt(left, 10), "not_before": strconv.FormatInt(now.Unix(), 10),
	})
}

func imdsError(w http.ResponseWriter, status int, code, why string) {
	writeJSON(w, status, map[string]any{"error": code, "error_description": why})
}

func localError(w http.ResponseWriter, status int, why string) {
	writeJSON(w, status, map[string]any{"statusCode": status, "message": why})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body) // as above
}
