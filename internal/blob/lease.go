package blob

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
	"castellan/internal/resource"
	"castellan/internal/store"
)

// lease keeps a blob or container for whoever knows its id: a leased blob is
// written and deleted, a leased container is deleted, by them alone. It is
// replaced, never changed, and it changes with time: ask state.
type lease struct {
	ID      string    `json:"id"`
	Seconds int       `json:"seconds"` // endless is without end
	End     time.Time `json:"end"`     // of a lease that has one
	Broken  time.Time `json:"broken"`  // when it stops to hold because somebody broke it; zero if nobody did
}

const (
	endless      = -1
	shortest     = 15 // seconds of a lease
	longest      = 60
	longestBreak = 60 // seconds until a broken lease stops to hold
)

// The states of leases, as Azure's.
const (
	available = "available"
	leased    = "leased"
	expired   = "expired"
	breaking  = "breaking"
	broken    = "broken"
)

// state is what the lease, which may be nil, is at that time.
func (l *lease) state(now time.Time) string {
	switch {
	case l == nil:
		return available
	case !l.Broken.IsZero() && now.Before(l.Broken):
		return breaking
	case !l.Broken.IsZero():
		return broken
	case l.Seconds != endless && !now.Before(l.End):
		return expired
	}
	return leased
}

// holds reports whether the lease keeps others out.
func (l *lease) holds(now time.Time) bool {
	s := l.state(now)
	return s == leased || s == breaking
}

// kept is the lease after a write: one that does not hold any more is forgotten.
func (l *lease) kept(now time.Time) *lease {
	if !l.holds(now) {
		return nil
	}
	return l
}

// admits says whether a request that shows the id, perhaps "", may go on. what is
// Blob or Container, as in Azure's codes.
func (l *lease) admits(id, what string, write bool, now time.Time) error {
	switch state := l.state(now); {
	case id == "" && write && l.holds(now):
		return fail(http.StatusPreconditionFailed, "LeaseIdMissing", "There is currently a lease on the %s and no lease ID was specified in the request.", strings.ToLower(what))
	case id == "":
		return nil
	case state == available, id != l.ID && !l.holds(now):
		return fail(http.StatusPreconditionFailed, arm.Code("LeaseNotPresentWith"+what+"Operation"), "There is currently no lease on the %s.", strings.ToLower(what))
	case id != l.ID:
		return fail(http.StatusPreconditionFailed, arm.Code("LeaseIdMismatchWith"+what+"Operation"), "The lease ID specified did not match the lease ID for the %s.", strings.ToLower(what))
	case !l.holds(now):
		return fail(http.StatusPreconditionFailed, "LeaseLost", "A lease ID was specified, but the lease for the %s has expired.", strings.ToLower(what))
	}
	return nil
}

// wish is what somebody wants of a lease.
type wish struct {
	action   string
	id       string // that the request shows
	proposed string // a new one
	seconds  int    // of a new lease
	period   int    // seconds until a broken lease ends, or below 0
}

func refuseLease(code arm.Code, message string) error {
	return fail(http.StatusConflict, code, "%s", message)
}

func mismatch() error {
	return refuseLease("LeaseIdMismatchWithLeaseOperation", "The lease ID specified did not match the lease ID for the resource with the specified lease operation.")
}

func notLeased() error {
	return refuseLease("LeaseNotPresentWithLeaseOperation", "There is currently no lease on the resource.")
}

// after is the lease, which may be nil, once the wish is granted.
func (l *lease) after(w wish, now time.Time) (*lease, error) {
	state := l.state(now)
	switch w.action {
	case "acquire":
		return l.acquire(w, state, now)
	case "break":
		return l.breaks(w, state, now)
	case "change":
		return l.change(w, state)
	}
	if state == available || w.id != l.ID {
		return nil, mismatch()
	}
	if w.action == "release" {
		return nil, nil
	}
	if state == breaking || state == broken {
		return nil, refuseLease("LeaseIsBrokenAndCannotBeRenewed", "The lease ID matched, but the lease has been broken explicitly and cannot be renewed.")
	}
	return newLease(l.ID, l.Seconds, now), nil
}

func newLease(id string, seconds int, now time.Time) *lease {
	l := &lease{ID: id, Seconds: seconds}
	if seconds != endless {
		l.End = now.Add(time.Duration(seconds) * time.Second)
	}
	return l
}

func (l *lease) acquire(w wish, state string, now time.Time) (*lease, error) {
	switch {
	case state == breaking && w.proposed == l.ID:
		return nil, refuseLease("LeaseIsBreakingAndCannotBeAcquired", "The lease ID matched, but the lease is currently in breaking state and cannot be acquired until it is broken.")
	case state == breaking, state == leased && w.proposed != l.ID:
		return nil, refuseLease("LeaseAlreadyPresent", "There is already a lease present.")
	}
	return newLease(text(w.proposed, arm.NewUUID()), w.seconds, now), nil
}

func (l *lease) change(w wish, state string) (*lease, error) {
	switch {
	case state == available, state == broken, state == expired:
		return nil, notLeased()
	case w.id != l.ID && w.proposed != l.ID:
		return nil, mismatch()
	case state == breaking:
		return nil, refuseLease("LeaseIsBreakingAndCannotBeChanged", "The lease ID matched, but the lease is currently in breaking state and cannot be changed.")
	}
	next := *l
	next.ID = w.proposed
	return &next, nil
}

// breaks ends a lease after the wish's period, if that is sooner than it would
// end anyway. An endless one ends at once unless a period is named.
func (l *lease) breaks(w wish, state string, now time.Time) (*lease, error) {
	switch state {
	case available:
		return nil, notLeased()
	case broken:
		return l, nil
	}
	end := l.Broken // of one that is breaking
	if state != breaking {
		if end = l.End; l.Seconds == endless {
			end = now.Add(max(0, time.Duration(w.period)) * time.Second)
		}
	}
	if sooner := now.Add(time.Duration(w.period) * time.Second); w.period >= 0 && sooner.Before(end) {
		end = sooner
	}
	next := *l
	next.Broken = end
	return &next, nil
}

// remaining is how many seconds a broken lease still holds.
func (l *lease) remaining(now time.Time) int {
	left := l.Broken.Sub(now)
	return max(0, int((left+time.Second-1)/time.Second))
}

// leaseBlob does what somebody wishes of the lease of the blob that the Grant,
// for BlobWrite, is about. The blob's etag stays.
func (s *Service) leaseBlob(ctx context.Context, g gate.Grant, w wish, when Conditions) (l *lease, info Info, err error) {
	p, err := s.blobTarget(g, BlobWrite, FileWrite)
	if err != nil {
		return nil, info, err
	}
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		c, b, err := s.here(tx, p, when)
		if err != nil {
			return err
		}
		if err := s.lists(tx, c, g, p.blob, BlobWrite); err != nil {
			return err
		}
		if l, err = b.Lease.after(w, s.Now()); err != nil {
			return err
		}
		b.Lease = l
		info = b.info(p.blob)
		return store.PutJSON(tx, blobTable, blobKey(c, p.blob), b)
	})
	return l, info, err
}

// leaseContainer is leaseBlob for a container, for a Grant for ContainerWrite.
func (s *Service) leaseContainer(ctx context.Context, g gate.Grant, w wish, when Conditions) (l *lease, info ContainerInfo, err error) {
	p, err := s.target(g, ContainerWrite, ShareWrite)
	if err != nil {
		return nil, info, err
	}
	err = g.Change(ctx, s.DB, func(tx *store.Tx) error {
		d, err := s.loadContainer(tx, p, when, false)
		if err != nil {
			return err
		}
		in, err := innerOf(d)
		if err != nil {
			return err
		}
		if l, err = in.Lease.after(w, s.Now()); err != nil {
			return err
		}
		in.Lease = l
		if d.Inner, err = json.Marshal(in); err != nil {
			return err
		}
		if info, err = containerInfo(d); err != nil {
			return err
		}
		return resource.Save(tx, d)
	})
	return l, info, err
}

// containerInner is what a container's resource keeps beside its properties.
type containerInner struct {
	Lease *lease `json:"lease,omitempty"`
	Guard *guard `json:"guard,omitempty"` // as in the container's row
}

func innerOf(d *resource.Doc) (in containerInner, err error) {
	if len(d.Inner) > 0 {
		if err = json.Unmarshal(d.Inner, &in); err != nil {
			err = fmt.Errorf("reading what %s keeps: %w", d.ID, err)
		}
	}
	return in, err
}

var guidForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// leaseID is the header that shows a lease's id, in the one form that it is kept in.
func leaseID(h http.Header, name string) (string, error) {
	v := h.Get(name)
	if v == "" {
		return "", nil
	}
	id := strings.ToLower(strings.Trim(v, "{}"))
	if !guidForm.MatchString(id) {
		return "", badHeader(name, v, "a GUID")
	}
	return id, nil
}

// wish is what a request to lease says.
func (x exchange) wish() (w wish, err error) {
	h := x.r.Header
	w.action = strings.ToLower(h.Get("x-ms-lease-action"))
	if w.id, err = leaseID(h, "x-ms-lease-id"); err != nil {
		return w, err
	}
	if w.proposed, err = leaseID(h, "x-ms-proposed-lease-id"); err != nil {
		return w, err
	}
	number := func(name string, none int, ok func(n int) bool, want string) (int, error) {
		v := h.Get(name)
		if v == "" {
			return none, nil
		}
		n, err := strconv.Atoi(v)
		if err != nil || !ok(n) {
			return 0, badHeader(name, v, want)
		}
		return n, nil
	}
	if w.seconds, err = number("x-ms-lease-duration", 0, func(n int) bool { return n == endless || n >= shortest && n <= longest }, "-1, or 15 to 60 seconds"); err != nil {
		return w, err
	}
	if w.period, err = number("x-ms-lease-break-period", -1, func(n int) bool { return n >= 0 && n <= longestBreak }, "0 to 60 seconds"); err != nil {
		return w, err
	}
	return w, w.whole(h.Get("x-ms-lease-action"))
}

// whole says whether the wish has what its action needs.
func (w wish) whole(said string) error {
	missing := func(name string) error {
		return fail(http.StatusBadRequest, "MissingRequiredHeader", "The header %s is missing; a lease can't be %sd without it.", name, strings.TrimSuffix(w.action, "e"))
	}
	switch w.action {
	case "acquire":
		if w.seconds == 0 {
			return missing("x-ms-lease-duration")
		}
	case "renew", "release", "change":
		if w.id == "" {
			return missing("x-ms-lease-id")
		}
		if w.action == "change" && w.proposed == "" {
			return missing("x-ms-proposed-lease-id")
		}
	case "break":
	default:
		return badHeader("x-ms-lease-action", said, "acquire, renew, change, release or break")
	}
	return nil
}

// leased answers a request to lease.
func (x exchange) leased(w wish, l *lease, etag string, modified time.Time) {
	h := x.w.Header()
	h.Set("ETag", etag)
	h.Set("Last-Modified", httpTime(modified))
	h.Set("Content-Length", "0")
	if w.action == "break" {
		h.Set("x-ms-lease-time", strconv.Itoa(l.remaining(x.s.Now())))
	} else if l != nil {
		h.Set("x-ms-lease-id", l.ID)
	}
	x.w.WriteHeader(map[string]int{"acquire": http.StatusCreated, "break": http.StatusAccepted, "renew": http.StatusOK, "change": http.StatusOK, "release": http.StatusOK}[w.action])
}

// leaseOfBlob is Lease Blob.
func (s *Service) leaseOfBlob(x exchange) error {
	w, err := x.wish()
	if err != nil {
		return err
	}
	when, err := conditions(x.r.Header, "")
	if err != nil {
		return err
	}
	l, info, err := s.leaseBlob(x.r.Context(), x.g, w, when)
	if err == nil {
		x.leased(w, l, info.ETag, info.Modified)
	}
	return err
}

// leaseOfContainer is Lease Container.
func (s *Service) leaseOfContainer(x exchange) error {
	w, err := x.wish()
	if err != nil {
		return err
	}
	when, err := conditions(x.r.Header, "")
	if err != nil {
		return err
	}
	when.Lease = "" // the wish has it
	l, info, err := s.leaseContainer(x.r.Context(), x.g, w, when)
	if err == nil {
		x.leased(w, l, info.ETag, info.Modified)
	}
	return err
}

// showLease writes a lease's state as headers.
func (x exchange) showLease(l *lease) {
	h, state := x.w.Header(), l.state(x.s.Now())
	h.Set("x-ms-lease-state", state)
	h.Set("x-ms-lease-status", l.status(x.s.Now()))
	if state == leased {
		h.Set("x-ms-lease-duration", l.duration())
	}
}

func (l *lease) status(now time.Time) string {
	if l.holds(now) {
		return "locked"
	}
	return "unlocked"
}

func (l *lease) duration() string {
	if l.Seconds == endless {
		return "infinite"
	}
	return "fixed"
}
