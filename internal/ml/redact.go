package ml

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"sync"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

// What a job prints is read by more people than may read its secrets. So its log
// shows none that the platform knows the job to have: what opens its datastores,
// its tokens, and what it was told by vaults, accounts and this package while it ran.

// shortest is how many bytes a secret has at least that a log hides: hiding
// shorter ones, such as "1", would leave nothing of the log.
const shortest = 8

// hidden stands in logs where a secret was.
var hidden = []byte("[redacted]")

// redactor hides secrets in a stream, also those that come in pieces. It is safe
// for concurrent use.
type redactor struct {
	mu    sync.Mutex
	known [][]byte // every form of every secret
	rest  []byte   // the stream's end so far, which may be the beginning of a secret
}

// hide adds secrets to those that are not shown from now on.
func (r *redactor) hide(secrets ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range secrets {
		for _, f := range forms(s) {
			if len(f) >= shortest && !slices.ContainsFunc(r.known, func(k []byte) bool { return string(k) == f }) {
				r.known = append(r.known, []byte(f))
			}
		}
	}
}

// forms are how a secret may stand in a text: itself, its lines, as part of a URL, of
// JSON, and of what is base64 with something before and after it.
func forms(s string) []string {
	if len(s) < shortest {
		return nil
	}
	out := []string{s, url.QueryEscape(s), url.PathEscape(s)}
	if b, err := json.Marshal(s); err == nil {
		out = append(out, strings.Trim(string(b), `"`))
	}
	if lines := strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }); len(lines) > 1 {
		for _, l := range lines {
			if !strings.HasPrefix(l, "-----") { // which every PEM text has
				out = append(out, l)
			}
		}
	}
	for shift := range 3 { // bytes that stand before it in its first group of three
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			text := enc.EncodeToString(append(make([]byte, shift), s...))
			whole := (shift + len(s)) / 3 * 4 // what follows depends on what comes after the secret
			out = append(out, text[[]int{0, 2, 3}[shift]:whole])
		}
	}
	return out
}

// next is what can be shown of the stream, once b has come.
func (r *redactor) next(b []byte) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rest = append(r.rest, b...)
	shown, n := r.scan(r.rest, false)
	r.rest = append([]byte(nil), r.rest[n:]...)
	return shown
}

// last is what is left to show at the stream's end.
func (r *redactor) last() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	shown, _ := r.scan(r.rest, true)
	r.rest = nil
	return shown
}

// scan replaces every secret in b by hidden, the first one first and of several at
// one place the longest. n is how much of b is done with: unless b is the end,
// what may be the beginning of a secret waits.
func (r *redactor) scan(b []byte, end bool) (shown []byte, n int) {
	for {
		at, size := r.find(b[n:])
		wait := len(b) - n
		if !end {
			wait = r.pending(b[n:])
		}
		if at < 0 || at >= wait {
			return append(shown, b[n:n+wait]...), n + wait
		}
		shown = append(append(shown, b[n:n+at]...), hidden...)
		n += at + size
	}
}

// find is where the first secret in b is, and how long it is; -1 if there is none.
func (r *redactor) find(b []byte) (at, size int) {
	at = -1
	for _, k := range r.known {
		in := b
		if at >= 0 {
			in = b[:min(len(b), at+len(k))]
		}
		if i := bytes.Index(in, k); i >= 0 && (at < 0 || i < at || i == at && len(k) > size) {
			at, size = i, len(k)
		}
	}
	return at, size
}

// pending is where the first end of b begins that is the beginning of a secret;
// len(b) if none does.
func (r *redactor) pending(b []byte) int {
	first := len(b)
	for _, k := range r.known {
		for i := max(0, len(b)-len(k)+1); i < first; i++ {
			if b[i] == k[0] && bytes.HasPrefix(k, b[i:]) {
				first = i
			}
		}
	}
	return first
}

// texts are the parts of what opens a datastore that are secret.
func (x secrets) texts() []string {
	out := []string{x.Key, x.ClientSecret, x.Certificate, string(x.pem()), x.SAS}
	if q, err := url.ParseQuery(x.SAS); err == nil {
		out = append(out, q.Get("sig"))
	}
	return out
}

// Told says that the sandbox of this name has been told a secret, so that the log
// of its job does not show it. A sandbox that runs no job has no log.
func (s *Service) Told(sandbox string, secret arm.Secret) {
	if r := s.live.inside(sandbox); r != nil {
		r.hide(string(secret.Reveal()))
	}
}

// hideFrom hides what the job is told from whose sandbox the request came.
func (s *Service) hideFrom(ctx context.Context, secrets ...string) {
	if r := s.live.inside(gate.Origin(ctx)); r != nil {
		r.hide(secrets...)
	}
}

// inside is what hides secrets in the log of the run in a sandbox, or nil.
func (l *live) inside(sandbox string) *redactor {
	if sandbox == "" {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.runs {
		if r.sandbox == sandbox {
			return r.hides
		}
	}
	return nil
}
