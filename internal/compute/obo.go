package compute

import (
	"context"
	"net/http"
	"time"

	"castellan/internal/arm"
)

// LentFunc mints a token of the person who submitted a task, for one resource.
type LentFunc func(ctx context.Context, resource string) (token arm.Secret, client string, expires time.Time, err error)

// OBOPath is the path for OBO_ENDPOINT.
const OBOPath = "/obo/token"

// OBO serves the tokens of the person on whose behalf a sandbox's task runs.
// Its clients send no secret, so it belongs on OBOListener, which Plan gives to
// sandboxes with a network of their own alone.
func OBO(token LentFunc, now func() time.Time) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if status, err := localOnly(r, OBOPath); err != nil {
			localError(w, status, err.Error())
			return
		}
		q, err := ask(r.URL, "")
		if err != nil {
			localError(w, http.StatusBadRequest, err.Error())
			return
		}
		text, client, expires, err := token(r.Context(), q.resource)
		if err != nil {
			status, why := worded(err)
			localError(w, status, why)
			return
		}
		tell(w, q.resource, client, text, expires, now())
	})
}
