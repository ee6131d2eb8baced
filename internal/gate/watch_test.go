package gate

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"castellan/internal/arm"
)

// Who is asked again while a request is served may write into what it is asked
// about: that is never the request that is being served.
func TestWatchingLeavesTheRequestAlone(t *testing.T) {
	w := newWorld(t, true)
	type noted struct{}
	var mu sync.Mutex
	asked, total := map[*http.Request]int{}, 0
	twice := make(chan struct{})
	p := &Plane{Name: "test", Refuse: RefuseARM, Who: func(r *http.Request) (arm.Caller, error) {
		*r = *r.WithContext(context.WithValue(r.Context(), noted{}, "x"))
		mu.Lock()
		defer mu.Unlock()
		if asked[r]++; total < 2 {
			if total++; total == 2 {
				close(twice)
			}
		}
		return arm.Caller{Object: "ann"}, nil
	}}
	var served *http.Request
	rt := Stream(read, "GET /a", func(*http.Request, Vars) (Target, error) { return Target{ID: thing}, nil }, func(_ http.ResponseWriter, r *http.Request, g Grant) error {
		_, err := g.On(read)
		served = r
		<-twice
		if r.Context().Value(noted{}) != "x" {
			t.Error("the request that is served lost what it was given")
		}
		return err
	})
	r := httptest.NewRequest(http.MethodGet, "/a", nil)
	w.gate.Serve(p, rt, nil, httptest.NewRecorder(), r)
	mu.Lock()
	defer mu.Unlock()
	if asked[r] != 1 || asked[served] != 0 {
		t.Errorf("it was asked %d times about the request and %d times about what is served", asked[r], asked[served])
	}
}
