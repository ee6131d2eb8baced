package server

import (
	"net/http"
	"sync"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

// dataAtOnce is how many requests of one caller are served at the same time on the
// planes of data, where one has many connections.
const dataAtOnce = 512

// turns are the requests under way, by caller.
type turns struct {
	most int // of one caller

	mu   sync.Mutex // guards busy
	busy map[string]int
}

func newTurns(most int) *turns { return &turns{most: most, busy: map[string]int{}} }

// begin lets one more of the caller's go on, which done ends; done is nil if there are
// too many.
func (t *turns) begin(caller string) (done func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.busy[caller] >= t.most {
		return nil
	}
	t.busy[caller]++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.busy[caller]--; t.busy[caller] == 0 {
			delete(t.busy, caller)
		}
	}
}

// InTurn holds each caller of the planes of data to so many requests at the same time
// as leave room for others: a caller is a principal, or whoever has an account's keys
// and what was signed by them. Planes that have a pace already keep it.
func InTurn(planes []*gate.Plane) {
	t := newTurns(dataAtOnce)
	for _, p := range planes {
		if p.Who == nil || p.Fold {
			continue
		}
		pass := p.Pass
		p.Pass = func(w http.ResponseWriter, r *http.Request, who arm.Caller) (func(), error) {
			done := t.begin(who.Tenant + "|" + who.Object)
			if done == nil {
				w.Header().Set("Retry-After", "1")
				return nil, arm.Errorf(arm.TooMany, "The caller has %d requests under way, which is as many as one may have; wait until some have ended.", dataAtOnce)
			}
			if pass == nil {
				return done, nil
			}
			also, err := pass(w, r, who)
			if err != nil {
				done()
				return nil, err
			}
			return func() { also(); done() }, nil
		}
	}
}
