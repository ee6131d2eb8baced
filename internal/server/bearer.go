package server

import (
	"net/http"

	"castellan/internal/gate"
)

// Challenging is RefuseARM which also tells whoever is not signed in where to
// do so; challenge is the WWW-Authenticate value, without an error.
func Challenging(challenge func(*http.Request) string) func(http.ResponseWriter, *http.Request, error) {
	return func(w http.ResponseWriter, r *http.Request, err error) {
		if gate.Status(err) == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", challenge(r)+gate.TokenError(err))
		}
		gate.RefuseARM(w, r, err)
	}
}
