package server

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// A client must neither send nor take so slowly that it holds a connection for
// nothing. Of a request's body something must come within patience, always, and
// on the whole slowest bytes a second after that; of an answer every piece must
// be taken within patience. Who keeps to that may go on for hours.
const (
	patience = time.Minute
	slowest  = 1 << 10
	piece    = 64 << 10
)

// pacedBody is a request's body that must come at a pace. Its deadline is the
// connection's, or the HTTP/2 stream's. It is lifted at the body's end, for the
// answer may take its time.
type pacedBody struct {
	io.ReadCloser
	deadline func(time.Time) error
	begun    time.Time
	patience time.Duration
	came     int64
}

// Read reads while the body keeps its pace.
func (b *pacedBody) Read(p []byte) (int, error) {
	on := time.Now().Add(b.patience)
	if due := b.begun.Add(b.patience + time.Duration(b.came/slowest)*time.Second); due.Before(on) {
		on = due
	}
	_ = b.deadline(on) // what has no deadlines (a recorder in a test) goes without
	n, err := b.ReadCloser.Read(p)
	if b.came += int64(n); errors.Is(err, io.EOF) {
		_ = b.deadline(time.Time{})
	}
	return n, err
}

// pacedAnswer is an answer that must be taken piece by piece.
type pacedAnswer struct {
	http.ResponseWriter
	deadline func(time.Time) error
	patience time.Duration
}

// Write writes while the client takes what is written.
func (a *pacedAnswer) Write(p []byte) (done int, err error) {
	defer func() { _ = a.deadline(time.Time{}) }()
	for {
		_ = a.deadline(time.Now().Add(a.patience))
		n, err := a.ResponseWriter.Write(p[done:min(len(p), done+piece)])
		if done += n; err != nil || done == len(p) {
			return done, err
		}
	}
}

// Unwrap is for http.ResponseController.
func (a *pacedAnswer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// pace holds a request and its answer to the pace. The request is another one than
// net/http's, which else would no more know how much of a body is left, and read on
// before it answers whoever is refused.
func (h *Handler) pace(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, *http.Request) {
	c := http.NewResponseController(w)
	if r.Body != nil && r.Body != http.NoBody {
		b := &pacedBody{ReadCloser: r.Body, deadline: c.SetReadDeadline, begun: time.Now(), patience: h.patience}
		_ = b.deadline(b.begun.Add(b.patience)) // also where nobody reads: the server itself then skips the rest
		r = r.WithContext(r.Context())
		r.Body = b
	}
	return &pacedAnswer{ResponseWriter: w, deadline: c.SetWriteDeadline, patience: h.patience}, r
}
