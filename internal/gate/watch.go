package gate

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"

	"castellan/internal/arm"
)

// again is how often a request that takes long is judged anew.
const again = 250 * time.Millisecond

// watch judges a request's caller again for as long as the request is served:
// whoever is disabled, signed out or loses a role loses what is under way too,
// within a second (continuous access evaluation).
type watch struct {
	gate  *Gate
	plane *Plane
	route Route
	w     http.ResponseWriter
	r     *http.Request
	end   context.CancelFunc

	mu    sync.Mutex // guards the rest; who and on are not changed once the timer is there
	who   arm.Caller
	on    Target
	timer *time.Timer
	over  bool
	lost  error
}

// watch readies a request that may take long, one whose answer is streamed or
// that brings a body, for being watched. For others it gives it back and nil. It
// comes before locate, which may put what it read in the body's place.
func (g *Gate) watch(p *Plane, rt Route, w http.ResponseWriter, r *http.Request) (*http.Request, *watch) {
	if !rt.stream && r.ContentLength == 0 {
		return r, nil
	}
	ctx, end := context.WithCancel(r.Context())
	x := &watch{gate: g, plane: p, route: rt, w: w, r: r, end: end}
	watched := r.WithContext(ctx)
	if r.Body != nil {
		watched.Body = watchedBody{r.Body, x}
	}
	return watched, x
}

// begin begins to watch, once the caller was let in.
func (x *watch) begin(who arm.Caller, on Target) {
	if x == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.who, x.on = who, on
	x.timer = time.AfterFunc(again, x.look)
}

// stop ends the watch.
func (x *watch) stop() {
	if x == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.over = true
	if x.timer != nil {
		x.timer.Stop()
	}
	x.end()
}

// watchedBody is a body that ends with the right to send it.
type watchedBody struct {
	io.ReadCloser
	x *watch
}

func (b watchedBody) Read(p []byte) (int, error) {
	if err := b.x.gone(); err != nil {
		return 0, err
	}
	return b.ReadCloser.Read(p)
}

// gone is why the caller may not go on, or nil.
func (x *watch) gone() error {
	if x == nil {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.lost
}

// look is the caller proven and judged once more.
func (x *watch) look() {
	err := x.gone()
	if err == nil {
		err = x.judge()
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over {
		return
	}
	x.timer.Reset(again)
	if err == nil {
		return
	}
	x.lost = err
	x.end()
	// What waits for the client is not woken by the context, and may begin to
	// wait anew until it sees that the right is gone: hence again and again.
	// Where the connection has no deadlines there is nothing to wait for.
	c := http.NewResponseController(x.w)
	_ = c.SetReadDeadline(time.Now())
	if x.route.stream {
		_ = c.SetWriteDeadline(time.Now())
	}
}

func (x *watch) judge() error {
	// A copy: who is asked may write into the request, which is being served.
	who, err := x.plane.Who(x.r.WithContext(x.r.Context()))
	if err != nil {
		return err
	}
	if who.Object != x.who.Object {
		return arm.Errorf(arm.Unauthenticated, "the request is somebody else's now")
	}
	if err := x.gate.cancelled(x.plane, x.route.Action, x.on.ID); err != nil || x.route.each {
		return err
	}
	if ok, _, reason := x.gate.judge(who, x.route.Action, x.on); !ok {
		return arm.Errorf(arm.Forbidden, "The right to perform action '%s' over scope '%s' was lost while the request was served: %s.", x.route.Action.Name(), x.on.ID, reason)
	}
	return nil
}

// settle ends the watch. A request that failed after its caller lost the right
// to it failed because of that.
func (x *watch) settle(err error) error {
	x.stop()
	if lost := x.gone(); err != nil && lost != nil {
		return lost
	}
	return err
}
