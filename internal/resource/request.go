package resource

import "net/http"

// Version wants exactly one api-version, of the form that ARM's have: what
// every door of Resource Manager asks for, also one that serves no Kind.
func Version(r *http.Request) error { return version(r) }

// ReadBody is the request's body, which must not be larger than ARM takes.
func ReadBody(w http.ResponseWriter, r *http.Request) ([]byte, error) { return readBody(w, r) }
