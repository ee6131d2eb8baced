package server

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"castellan/internal/arm"
	"castellan/internal/gate"
)

// A caller who goes faster than the limit is told when to come again, and comes
// through then; others, other subscriptions and other kinds of requests are not
// held up by it, and nobody fills the memory by it.
func TestThrottle(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	tenancy := &arm.Tenancy{}
	tenancy.Put("s1", "t")
	tenancy.Put("s2", "t")
	x := NewThrottle(arm.Site{Tenant: "t", Tenancy: tenancy}, 1, func() time.Time { return now })
	ask := func(who, method, path string) (int, http.Header) {
		w := httptest.NewRecorder()
		done, err := x.Pass(w, httptest.NewRequest(method, "https://test"+path, nil), arm.Caller{Tenant: "t", Object: who})
		if err == nil {
			done()
			return http.StatusOK, w.Header()
		}
		if e, ok := err.(*arm.Error); ok {
			return e.Status, w.Header()
		}
		return 0, w.Header()
	}
	for i := range 250 {
		if code, h := ask("ann", "GET", "/subscriptions/S1/x"); code != 200 || h.Get("x-ms-ratelimit-remaining-subscription-reads") != fmt.Sprint(249-i) {
			t.Fatalf("request %d = %d with %v", i, code, h)
		}
	}
	if code, h := ask("ann", "HEAD", "/subscriptions/s1"); code != 429 || h.Get("Retry-After") != "1" || h.Get("x-ms-ratelimit-remaining-subscription-reads") != "0" {
		t.Errorf("one too many = %d with %v", code, h)
	}
	for _, c := range []struct{ who, method, path, header string }{
		{"ann", "PUT", "/subscriptions/s1/x", "subscription-writes"}, {"ann", "POST", "/subscriptions/s1/x", "subscription-writes"}, {"ann", "DELETE", "/subscriptions/s1/x", "subscription-deletes"},
		{"ann", "GET", "/subscriptions/s2/x", "subscription-reads"}, {"ann", "GET", "/providers", "tenant-reads"}, {"bob", "GET", "/subscriptions/s1/x", "subscription-reads"},
	} {
		if code, h := ask(c.who, c.method, c.path); code != 200 || h.Get("x-ms-ratelimit-remaining-"+c.header) == "" {
			t.Errorf("%v = %d with %v", c, code, h)
		}
	}
	now = now.Add(time.Second)
	for i := range 26 {
		if code, _ := ask("ann", "GET", "/subscriptions/s1"); (code == 200) != (i < 25) {
			t.Errorf("a second later request %d = %d", i, code)
		}
	}
	for i := range 251 { // made up names share one bucket
		code, _ := ask("eve", "GET", fmt.Sprint("/subscriptions/none", i))
		if (code == 200) != (i < 250) {
			t.Fatalf("request %d for what is not there = %d", i, code)
		}
	}
	for i := range 3 * gate.MaxBuckets {
		ask(fmt.Sprint("many", i), "GET", "/subscriptions/s1")
	}
	if x.buckets.Len() > gate.MaxBuckets || len(x.turns.busy) != 0 {
		t.Errorf("%d buckets and %d callers are remembered", x.buckets.Len(), len(x.turns.busy))
	}
}

// Nobody has more than so many requests served at once.
func TestThrottleAtOnce(t *testing.T) {
	x := NewThrottle(arm.Site{Tenant: "t"}, 100, time.Now)
	pass := func(who string) (func(), error) {
		return x.Pass(httptest.NewRecorder(), httptest.NewRequest("GET", "https://test/providers", nil), arm.Caller{Tenant: "t", Object: who})
	}
	var over func()
	for i := range atOnce {
		done, err := pass("ann")
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		over = done
	}
	if _, err := pass("ann"); err == nil {
		t.Error("one more is served")
	}
	if _, err := pass("bob"); err != nil {
		t.Errorf("somebody else: %v", err)
	}
	over()
	if _, err := pass("ann"); err != nil {
		t.Errorf("once one is over: %v", err)
	}
}

// On the planes of data nobody has more than so many requests served at once either,
// and what the plane itself refuses counts no longer than it takes to say so.
func TestInTurn(t *testing.T) {
	refuses := true
	p := &gate.Plane{Who: func(*http.Request) (arm.Caller, error) { return arm.Caller{}, nil }, Pass: func(http.ResponseWriter, *http.Request, arm.Caller) (func(), error) {
		if refuses {
			return nil, arm.Errorf(arm.Forbidden, "not from there")
		}
		return func() {}, nil
	}}
	open := &gate.Plane{}
	InTurn([]*gate.Plane{p, open})
	if open.Pass != nil {
		t.Error("a plane that knows nobody holds somebody up")
	}
	w := httptest.NewRecorder()
	pass := func(who string) (func(), error) {
		return p.Pass(w, httptest.NewRequest("GET", "https://test/x", nil), arm.Caller{Tenant: "t", Object: who})
	}
	for range 2 * dataAtOnce {
		if _, err := pass("ann"); arm.CodeOf(err) != arm.Forbidden {
			t.Fatal(err)
		}
	}
	refuses = false
	var over func()
	for i := range dataAtOnce {
		done, err := pass("ann")
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		over = done
	}
	if _, err := pass("ann"); arm.CodeOf(err) != arm.TooMany || w.Header().Get("Retry-After") == "" {
		t.Errorf("one too many: %v, %v", err, w.Header())
	}
	if _, err := pass("bob"); err != nil {
		t.Errorf("somebody else: %v", err)
	}
	over()
	if _, err := pass("ann"); err != nil {
		t.Errorf("once one is over: %v", err)
	}
}
