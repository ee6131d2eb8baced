package compute

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"castellan/internal/arm"
)

// TokenFunc mints a token for one sandbox. At most one of clientID, objectID
// and resourceID is set; one that is not of an identity of this sandbox, and a
// resource that is not on the platform's list, is an arm.BadRequest.
type TokenFunc func(ctx context.Context, resource, clientID, objectID, resourceID string) (token arm.Secret, client string, expires time.Time, err error)

// MSIConfig is what the managed identity endpoint of one sandbox needs.
type MSIConfig struct {
	Secret arm.Secret // what MSI_SECRET and IDENTITY_HEADER say; made anew for each start
	Token  TokenFunc
	Now    func() time.Time
}

// Paths of the endpoint: MSIPath for MSI_ENDPOINT and IDENTITY_ENDPOINT.
const (
	MSIPath  = "/msi/token"
	IMDSPath = "/metadata/identity/oauth2/token"
)

// MSI serves the managed identities of one sandbox, and of no other, in three
// forms: Azure ML's (MSI_ENDPOINT), App Service's (IDENTITY_ENDPOINT) and the
// instance metadata service's. It belongs on listeners inside that sandbox only.
func MSI(cfg MSIConfig) http.Handler {
	m := msi{cfg}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		switch r.URL.Path {
		case IMDSPath:
			m.imds(w, r)
		case MSIPath:
			m.local(w, r)
		default:
			imdsError(w, http.StatusNotFound, "not_found", "there is nothing at this path")
		}
	})
}

type msi struct{ MSIConfig }

func (m msi) imds(w http.ResponseWriter, r *http.Request) {
	refuse := func(why string) { imdsError(w, http.StatusBadRequest, "invalid_request", why) }
	switch {
	case r.Method != http.MethodGet:
		imdsError(w, http.StatusMethodNotAllowed, "invalid_request", "the method must be GET")
		return
	case !strings.EqualFold(r.Header.Get("Metadata"), "true"):
		refuse("Required metadata header not specified")
		return
	case forwarded(r):
		refuse("the request was forwarded; it must come from the machine itself")
		return
	case hostOf(r) != "169.254.169.254":
		refuse("the Host header must be 169.254.169.254")
		return
	}
	q, err := ask(r.URL, "2018-02-01")
	if err != nil {
		refuse(err.Error())
		return
	}
	m.answer(w, r, q, func(status int, why string) { imdsError(w, status, "invalid_request", why) })
}

func (m msi) local(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, why string) { localError(w, status, why) }
	if r.Method != http.MethodGet {
		refuse(http.StatusMethodNotAllowed, "the method must be GET")
		return
	}
	if forwarded(r) {
		refuse(http.StatusBadRequest, "the request was forwarded; it must come from the machine itself")
		return
	}
	if h := hostOf(r); h != "127.0.0.1" && h != "localhost" {
		refuse(http.StatusBadRequest, "the Host header must be that of the endpoint")
		return
	}
	shown := r.Header.Get("X-IDENTITY-HEADER")
	if shown == "" {
		shown = r.Header.Get("secret")
	}
	if m.Secret.IsZero() || subtle.ConstantTimeCompare([]byte(shown), m.Secret.Reveal()) != 1 {
		refuse(http.StatusUnauthorized, "the secret is missing or not this sandbox's")
		return
	}
	q, err := ask(r.URL, "2017-09-01")
	if err != nil {
		refuse(http.StatusBadRequest, err.Error())
		return
	}
	m.answer(w, r, q, refuse)
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
type question struct{ resource, client, object, res string }

// ask reads a question; every parameter counts once at most.
func ask(u *url.URL, oldest string) (q question, err error) {
	v, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return q, errors.New("the query is malformed")
	}
	named := 0
	for name, values := range v {
		if len(values) > 1 {
			return q, errors.New("a parameter is given twice")
		}
		if values[0] == "" {
			continue
		}
		switch strings.ToLower(name) {
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
	if api := v.Get("api-version"); len(api) < 10 || api < oldest {
		return q, errors.New("api-version is missing or too old; the oldest is " + oldest)
	}
	if q.resource == "" {
		return q, errors.New("resource is missing")
	}
	if named > 1 {
		return q, errors.New("at most one of client_id, object_id and msi_res_id may be given")
	}
	return q, nil
}

func (m msi) answer(w http.ResponseWriter, r *http.Request, q question, refuse func(int, string)) {
	token, client, expires, err := m.Token(r.Context(), q.resource, q.client, q.object, q.res)
	if err != nil {
		var e *arm.Error
		if errors.As(err, &e) && e.Code != arm.Internal {
			refuse(http.StatusBadRequest, e.Message)
			return
		}
		refuse(http.StatusInternalServerError, "the token could not be made")
		return
	}
	left := max(int64(expires.Sub(m.Now())/time.Second), 0)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	json.NewEncoder(w).Encode(map[string]string{ // a client that went away needs no answer
		"access_token": string(token.Reveal()), "client_id": client, "resource": q.resource, "token_type": "Bearer",
		"expires_on": strconv.FormatInt(expires.Unix(), 10), "expires_in": strconv.FormatInt(left, 10),
		"ext_expires_in": strconv.FormatInt(left, 10), "not_before": strconv.FormatInt(m.Now().Unix(), 10),
	})
}

func imdsError(w http.ResponseWriter, status int, code, why string) {
	writeError(w, status, map[string]any{"error": code, "error_description": why})
}

func localError(w http.ResponseWriter, status int, why string) {
	writeError(w, status, map[string]any{"statusCode": status, "message": why})
}

func writeError(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body) // as above
}
