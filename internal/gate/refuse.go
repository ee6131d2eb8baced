package gate

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"castellan/internal/arm"
)

// statuses maps error codes to HTTP statuses, for all planes. What is not here
// is 400; an error without a code is 500.
var statuses = map[arm.Code]int{
	arm.Unauthenticated:      http.StatusUnauthorized,
	arm.WrongTenant:          http.StatusUnauthorized,
	arm.Forbidden:            http.StatusForbidden,
	arm.LinkedForbidden:      http.StatusForbidden,
	arm.NotFound:             http.StatusNotFound,
	arm.GroupNotFound:        http.StatusNotFound,
	arm.SubscriptionNotFound: http.StatusNotFound,
	arm.MethodNotAllowed:     http.StatusMethodNotAllowed,
	arm.Conflict:             http.StatusConflict,
	arm.PreconditionFailed:   http.StatusPreconditionFailed,
	arm.TooLarge:             http.StatusRequestEntityTooLarge,
	arm.TooMany:              http.StatusTooManyRequests,
	arm.Internal:             http.StatusInternalServerError,
}

// Status is the HTTP status of err: the one it names itself, else its code's.
func Status(err error) int {
	var e *arm.Error
	if !errors.As(err, &e) {
		return http.StatusInternalServerError
	}
	if e.Status != 0 {
		return e.Status
	}
	if s, ok := statuses[e.Code]; ok {
		return s
	}
	return http.StatusBadRequest
}

// PublicError is what a caller may know of err: its code and message, never a cause.
func PublicError(err error) (arm.Code, string) {
	var e *arm.Error
	if !errors.As(err, &e) || e.Code == arm.Internal {
		return arm.Internal, "The server met an unexpected condition."
	}
	return e.Code, e.Message
}

// Challenge are the parameters that, in a WWW-Authenticate header, ask a client
// for another token, as Azure's clients read it; "" if err asks for none.
func Challenge(err error) string {
	var e *arm.Error
	if !errors.As(err, &e) || e.Claims == "" {
		return ""
	}
	return `, error="insufficient_claims", claims="` + base64.StdEncoding.EncodeToString([]byte(e.Claims)) + `"`
}

// TokenError is Challenge, or else says that the token is none.
func TokenError(err error) string {
	if c := Challenge(err); c != "" {
		return c
	}
	return `, error="invalid_token", error_description="The access token is missing, expired, or not for this service."`
}

// RefuseARM writes err as Resource Manager does: {"error":{"code","message"}}.
func RefuseARM(w http.ResponseWriter, _ *http.Request, err error) {
	code, message := PublicError(err)
	inner := map[string]any{"code": code, "message": message}
	var e *arm.Error
	if errors.As(err, &e) && e.Target != "" {
		inner["target"] = e.Target
	}
	if e != nil && len(e.Info) > 0 {
		inner["additionalInfo"] = e.Info
	}
	status := Status(err)
	w.Header().Set("x-ms-failure-cause", map[bool]string{true: "gateway", false: "service"}[status < 500])
	WriteJSON(w, status, map[string]any{"error": inner})
}

// WriteJSON answers with v as JSON.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil { // only for values that the program itself made wrong
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	_, _ = w.Write(b) // the client may have gone
}
