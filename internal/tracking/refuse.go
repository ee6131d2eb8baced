package tracking

import (
	"math"
	"net/http"
	"strings"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

// Codes that MLflow's clients know; the others of the platform are translated.
const (
	invalid  arm.Code = "INVALID_PARAMETER_VALUE"
	exists   arm.Code = "RESOURCE_ALREADY_EXISTS"
	limited  arm.Code = "RESOURCE_LIMIT_EXCEEDED"
	noState  arm.Code = "INVALID_STATE"
	notThere          = arm.NotFound
)

var mlflowCodes = map[arm.Code]string{
	arm.NotFound:             "RESOURCE_DOES_NOT_EXIST",
	arm.GroupNotFound:        "RESOURCE_DOES_NOT_EXIST",
	arm.SubscriptionNotFound: "RESOURCE_DOES_NOT_EXIST",
	arm.Forbidden:            "PERMISSION_DENIED",
	arm.LinkedForbidden:      "PERMISSION_DENIED",
	arm.Unauthenticated:      "UNAUTHENTICATED",
	arm.WrongTenant:          "UNAUTHENTICATED",
	arm.MethodNotAllowed:     "ENDPOINT_NOT_FOUND",
	"InvalidResourceType":    "ENDPOINT_NOT_FOUND",
	"ScopeLocked":            string(noState),
	arm.Conflict:             string(exists),
	arm.TooMany:              "REQUEST_LIMIT_EXCEEDED",
	arm.TooLarge:             "REQUEST_LIMIT_EXCEEDED",
	arm.Internal:             "INTERNAL_ERROR",
	arm.Unsupported:          "NOT_IMPLEMENTED",
}

func isMLflow(r *http.Request) bool {
	return len(r.URL.Path) >= 8 && strings.EqualFold(r.URL.Path[:8], "/mlflow/")
}

// isV1 reports whether the request is to one of the services of v1 that package ml has.
func isV1(r *http.Request) bool {
	path := strings.ToLower(r.URL.Path)
	return strings.HasPrefix(path, "/datastore/") || strings.HasPrefix(path, "/credential/")
}

// tenant is the one that people of the workspace in the path sign in to.
func (s *Service) tenant(r *http.Request) string {
	path := strings.ToLower(r.URL.Path)
	if i := strings.Index(path, "/subscriptions/"); i >= 0 {
		if t := s.Site.TenantOfKey(path[i:]); t != "" {
			return t
		}
	}
	return s.Site.Tenant
}

// refuse writes an error as MLflow does below /mlflow, else as Azure does.
func (s *Service) refuse(w http.ResponseWriter, r *http.Request, err error) {
	status := gate.Status(err)
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer authorization_uri="`+s.Site.Base()+"/"+s.tenant(r)+`"`+gate.TokenError(err))
	}
	code, message := gate.PublicError(err)
	switch {
	case isV1(r):
		whose := "UserError" // the only one that azureml-core shows without a trace of its stack
		if status >= http.StatusInternalServerError {
			whose = "ServiceError"
		}
		gate.WriteJSON(w, status, map[string]any{"error": map[string]any{"code": whose, "message": message, "details": []any{}, "innerError": map[string]any{"code": code}}})
		return
	case !isMLflow(r):
		gate.RefuseARM(w, r, err)
		return
	}
	name, ok := mlflowCodes[code]
	if !ok {
		name = string(invalid)
		if strings.ToUpper(string(code)) == string(code) {
			name = string(code)
		}
	}
	gate.WriteJSON(w, status, map[string]string{"error_code": name, "message": message})
}

// number is a double in an answer: JSON has no NaN and no infinities.
func number(f float64) any {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	return f
}
