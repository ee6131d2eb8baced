package identity

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

// problem is an OAuth error as Entra words it: AADSTS and a number that tells
// clients and people what it was.
type problem struct {
	status int
	number int
	code   string // of RFC 6749 and its kin
	text   string
	err    error  // for the operator
	sub    string // suberror, by which client libraries choose what to do
	claims string // what the client must ask for at the next sign-in
}

func (p *problem) Error() string {
	if p.err != nil {
		return p.description() + ": " + p.err.Error()
	}
	return p.description()
}

// Unwrap is the cause.
func (p *problem) Unwrap() error { return p.err }

func (p *problem) description() string { return fmt.Sprintf("AADSTS%d: %s", p.number, p.text) }

// problemf makes a problem of status 400, or 401 for clients that are not who
// they say (RFC 6749 section 5.2).
func problemf(number int, code, format string, args ...any) *problem {
	status := http.StatusBadRequest
	if code == "invalid_client" {
		status = http.StatusUnauthorized
	}
	return &problem{status: status, number: number, code: code, text: fmt.Sprintf(format, args...)}
}

// problemOf is err as a problem; what is none is the server's own fault, of
// which nothing is told.
func problemOf(err error) *problem {
	var p *problem
	if errors.As(err, &p) {
		return p
	}
	status := http.StatusInternalServerError
	if s := gate.Status(err); s < 500 {
		return &problem{status: s, number: 900144, code: "invalid_request", text: publicText(err), err: err}
	}
	return &problem{status: status, number: 90033, code: "temporarily_unavailable", text: "The server met an unexpected condition. Please try again later.", err: err}
}

func publicText(err error) string {
	_, m := gate.PublicError(err)
	return m
}

// refuseLogin writes err as the token endpoint does.
func (s *Service) refuseLogin(w http.ResponseWriter, r *http.Request, err error) {
	p := problemOf(err)
	now := s.Now().UTC()
	trace := arm.NewUUID()
	h := w.Header()
	h.Set("Cache-Control", "no-store, no-cache")
	h.Set("Pragma", "no-cache")
	if p.status == http.StatusUnauthorized && r.Header.Get("Authorization") != "" {
		h.Set("WWW-Authenticate", `Basic realm="`+s.Site.Host()+`"`)
	}
	out := map[string]any{
		"error": p.code, "error_description": fmt.Sprintf("%s Trace ID: %s Correlation ID: %s Timestamp: %s", p.description(), trace, correlation(r), now.Format("2006-01-02 15:04:05Z")),
		"error_codes": []int{p.number}, "timestamp": now.Format("2006-01-02 15:04:05Z"), "trace_id": trace, "correlation_id": correlation(r),
	}
	for name, v := range map[string]string{"suberror": p.sub, "claims": p.claims} {
		if v != "" {
			out[name] = v
		}
	}
	gate.WriteJSON(w, p.status, out)
}

// correlation is the id by which the client knows its request, if it has the
// form of one.
func correlation(r *http.Request) string {
	id := r.Header.Get("client-request-id")
	if isGUID(id) {
		return id
	}
	return noCorrelation
}

// noCorrelation stands where a client gave no id.
const noCorrelation = "00000000-0000-0000-0000-000000000000"

func isGUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		hex := '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
		if dash != (c == '-') || !dash && !hex {
			return false
		}
	}
	return true
}

// stamp is a time as JSON of Graph has it.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
